/* cad_doc.c - see cad_doc.h. */
#include "cad/cad_doc.h"

#include "common/util/check.h"

#define PEM_MAX 65536
#define TEXT_MAX 512

static const struct field epochs_fields[] = {
    FIELD_U64(struct cad_epochs, Worker, 0, UINT64_MAX),
    FIELD_U64(struct cad_epochs, Manager, 0, UINT64_MAX),
    FIELD_END,
};
static const struct field previous_fields[] = {
    FIELD_STR(struct cad_previous, Cert, 0, PEM_MAX),
    FIELD_STR(struct cad_previous, CrossSigned, 0, PEM_MAX),
    FIELD_END,
};
static const struct field rotation_fields[] = {
    FIELD_STR(struct cad_rotation, NewCert, 0, PEM_MAX),
    FIELD_STR(struct cad_rotation, CrossSigned, 0, PEM_MAX),
    FIELD_I64(struct cad_rotation, StartedAt, INT64_MIN, INT64_MAX),
    FIELD_I64(struct cad_rotation, Deadline, INT64_MIN, INT64_MAX),
    FIELD_END,
};
static const struct field root_fields[] = {
    FIELD_STR(struct cad_root_doc, Cert, 0, PEM_MAX),
    FIELD_STR(struct cad_root_doc, Digest, 0, 64),
    FIELD_OBJ(struct cad_root_doc, TokenEpoch, epochs_fields, struct cad_epochs),
    FIELD_U64(struct cad_root_doc, UnlockKeyEpoch, 0, UINT64_MAX),
    FIELD_PTR(struct cad_root_doc, Rotation, rotation_fields, struct cad_rotation),
    FIELD_LIST(struct cad_root_doc, Previous, previous_fields, struct cad_previous, CAD_PREVIOUS_MAX),
    FIELD_END,
};
static const struct field cert_fields[] = {
    FIELD_STR(struct cad_cert_doc, Role, 0, 16),
    FIELD_STR(struct cad_cert_doc, Status, 0, 16),
    FIELD_BIN(struct cad_cert_doc, Issuer, 0, CA_KEY_DIGEST),
    FIELD_BIN(struct cad_cert_doc, Keys, 0, CAD_KEYS_BYTES),
    FIELD_I64(struct cad_cert_doc, IssuedAt, INT64_MIN, INT64_MAX),
    FIELD_I64(struct cad_cert_doc, NotAfter, INT64_MIN, INT64_MAX),
    FIELD_STR(struct cad_cert_doc, RoleErr, 0, TEXT_MAX),
    FIELD_END,
};

struct str cad_text_at(struct str doc, const char *path)
{
    struct str s = { NULL, 0 };

    (void)mp_get_str(doc, path, &s);
    return s;
}

int cad_root_doc(struct str cluster, struct cad_root_doc *ret, struct arena *a, struct err *e)
{
    struct str v;

    *ret = (struct cad_root_doc){ 0 };
    if (!mp_find(cluster, "RootCA", &v))
        return 0;
    return fields_decode(ret, root_fields, sizeof *ret, v, FIELDS_VIEW, a, e);
}

void cad_put_root_doc(struct buf *b, const struct cad_root_doc *d)
{
    fields_encode(d, root_fields, b);
}

struct str cad_signing_root(const struct cad_root_doc *d)
{
    return d->Rotation ? d->Rotation->NewCert : d->Cert;
}

void cad_put_chain(struct buf *b, const struct cad_root_doc *d)
{
    const struct cad_previous *p = d->Previous.v;

    if (d->Rotation)
        buf_put(b, d->Rotation->CrossSigned.p, d->Rotation->CrossSigned.n);
    for (size_t i = 0; i < d->Previous.n; i++)
        buf_put(b, p[i].CrossSigned.p, p[i].CrossSigned.n);
}

int cad_cert_doc(struct str node, struct cad_cert_doc *ret, struct arena *a, struct err *e)
{
    struct str v;

    *ret = (struct cad_cert_doc){ 0 };
    if (!mp_find(node, "Certificate", &v))
        return 0;
    return fields_decode(ret, cert_fields, sizeof *ret, v, FIELDS_VIEW, a, e);
}

void cad_put_cert_doc(struct buf *b, const struct cad_cert_doc *d)
{
    mp_cstr(b, "Certificate");
    fields_encode(d, cert_fields, b);
}

bool cad_knows_key(const struct cad_cert_doc *d, const uint8_t key[CA_KEY_DIGEST])
{
    for (size_t i = 0; i + CA_KEY_DIGEST <= d->Keys.n; i += CA_KEY_DIGEST)
        if (memcmp(d->Keys.p + i, key, CA_KEY_DIGEST) == 0)
            return true;
    return false;
}

struct str cad_add_key(struct arena *a, struct str keys, const uint8_t key[CA_KEY_DIGEST])
{
    char *all = arena_alloc(a, CAD_KEYS_BYTES);
    size_t n = CA_KEY_DIGEST;

    CHECK(all != NULL);
    memcpy(all, key, CA_KEY_DIGEST);
    for (size_t i = 0; i + CA_KEY_DIGEST <= keys.n && n < CAD_KEYS_BYTES; i += CA_KEY_DIGEST)
        if (memcmp(keys.p + i, key, CA_KEY_DIGEST) != 0) {
            memcpy(all + n, keys.p + i, CA_KEY_DIGEST);
            n += CA_KEY_DIGEST;
        }
    return (struct str){ all, n };
}
