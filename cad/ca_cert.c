/* ca_cert.c - see ca_cert.h. */
#include "cad/ca_cert.h"

#include <openssl/core_names.h>
#include <openssl/sha.h>
#include <stdio.h>

#include "cad/ca_priv.h"

#define YEAR_S (365ll * 24 * 3600)
#define RSA_BITS_MIN 2048

DEFINE_CLEANUP(GENERAL_NAMES *, GENERAL_NAMES_free)

/* ---- looking ---- */

static void name_part(X509 *x, int nid, char ret[65])
{
    if (X509_NAME_get_text_by_NID(X509_get_subject_name(x), nid, ret, 65) < 0)
        ret[0] = 0;
}

static int64_t seconds_of(const ASN1_TIME *t)
{
    struct tm tm;

    return ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

static int put_der(struct buf *b, int n, unsigned char *p)
{
    if (n <= 0)
        return -1;
    buf_put(b, p, (size_t)n);
    OPENSSL_free(p);
    return b->failed ? -1 : 0;
}

static int key_digest(X509_PUBKEY *key, uint8_t ret[CA_KEY_DIGEST])
{
    unsigned char *p = NULL;
    int n = i2d_X509_PUBKEY(key, &p);

    if (n <= 0)
        return -1;
    SHA256(p, (size_t)n, ret);
    OPENSSL_free(p);
    return 0;
}

static int info_of(X509 *x, struct ca_info *ret, struct err *e)
{
    unsigned char *name = NULL, *key = NULL;
    int n = i2d_X509_NAME(X509_get_subject_name(x), &name), k = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &key);

    if (put_der(&ret->subject, n, name) < 0 || put_der(&ret->public_key, k, key) < 0 ||
        key_digest(X509_get_X509_PUBKEY(x), ret->key) < 0)
        return ca_ssl_err(e, "read the certificate");
    ret->not_before_s = seconds_of(X509_get0_notBefore(x));
    ret->not_after_s = seconds_of(X509_get0_notAfter(x));
    name_part(x, NID_commonName, ret->cn);
    name_part(x, NID_organizationName, ret->org);
    name_part(x, NID_organizationalUnitName, ret->unit);
    return 0;
}

int ca_info(struct str cert, struct ca_info *ret, struct err *e)
{
    _cleanup_(X509_freep) X509 *x = NULL;
    int r = ca_read_cert(cert, &x, e);

    return r < 0 ? r : info_of(x, ret, e);
}

void ca_info_done(struct ca_info *i)
{
    buf_done(&i->subject);
    buf_done(&i->public_key);
}

/* A curve with a name: one that is spelled out can be anything. */
static bool curve_ok(EVP_PKEY *key)
{
    char curve[32], form[32];

    if (EVP_PKEY_get_base_id(key) != EVP_PKEY_EC ||
        EVP_PKEY_get_utf8_string_param(key, OSSL_PKEY_PARAM_GROUP_NAME, curve, sizeof curve, NULL) != 1)
        return false;
    if (EVP_PKEY_get_utf8_string_param(key, OSSL_PKEY_PARAM_EC_ENCODING, form, sizeof form, NULL) != 1 ||
        strcmp(form, OSSL_PKEY_EC_ENCODING_GROUP) != 0)
        return false;
    return strcmp(curve, "prime256v1") == 0 || strcmp(curve, "secp384r1") == 0 || strcmp(curve, "secp521r1") == 0;
}

static int csr_read(struct str csr, X509_REQ **ret, struct err *e)
{
    _cleanup_(X509_REQ_freep) X509_REQ *q = NULL;
    int r = ca_read_csr(csr, &q, e);
    EVP_PKEY *key;

    if (r < 0)
        return r;
    key = X509_REQ_get0_pubkey(q);
    if (!key || !curve_ok(key)) {
        ERR_clear_error();
        return err_set(e, ERR_INVALID,
                       "certificate request: the key must be an elliptic curve's: P-256, P-384 or P-521");
    }
    if (X509_REQ_verify(q, key) != 1) {
        ERR_clear_error();
        return err_set(e, ERR_INVALID, "certificate request: it is not signed with its own key");
    }
    *ret = TAKE(q);
    return 0;
}

int ca_csr_check(struct str csr, uint8_t ret_key[CA_KEY_DIGEST], struct err *e)
{
    _cleanup_(X509_REQ_freep) X509_REQ *q = NULL;
    int r = csr_read(csr, &q, e);

    if (r < 0)
        return r;
    return key_digest(X509_REQ_get_X509_PUBKEY(q), ret_key) < 0 ? ca_ssl_err(e, "certificate request") : 0;
}

/* ---- making ---- */

unsigned ca_leaf_hosts(const struct ca_leaf *l, struct str ret[CA_HOSTS_MAX])
{
    ret[0] = l->manager ? STR("swarm-manager") : STR("swarm-worker");
    ret[1] = l->node_id;
    ret[2] = STR("swarm-ca");
    return l->manager ? 3 : 2;
}

static int add_hosts(X509 *x, const struct ca_leaf *l, struct err *e)
{
    _cleanup_(GENERAL_NAMES_freep) GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    struct str host[CA_HOSTS_MAX];
    unsigned n = ca_leaf_hosts(l, host);

    for (unsigned i = 0; i < n; i++) {
        GENERAL_NAME *g = GENERAL_NAME_new();
        ASN1_IA5STRING *s = ASN1_IA5STRING_new();
        if (!names || !g || !s || ASN1_STRING_set(s, host[i].p, (int)host[i].n) != 1) {
            GENERAL_NAME_free(g);
            ASN1_IA5STRING_free(s);
            return ca_ssl_err(e, "subject alternative names");
        }
        GENERAL_NAME_set0_value(g, GEN_DNS, s);
        if (sk_GENERAL_NAME_push(names, g) <= 0) {
            GENERAL_NAME_free(g);
            return ca_ssl_err(e, "subject alternative names");
        }
    }
    if (X509_add1_ext_i2d(x, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) != 1)
        return ca_ssl_err(e, "subject alternative names");
    return 0;
}

static bool add_name(X509_NAME *n, const char *field, struct str v)
{
    return X509_NAME_add_entry_by_txt(n, field, MBSTRING_UTF8, (const unsigned char *)v.p, (int)v.n, -1, 0) == 1;
}

static int set_times(X509 *x, X509 *issuer, int64_t from_s, int64_t to_s, struct err *e)
{
    int64_t first = seconds_of(X509_get0_notBefore(issuer)), last = seconds_of(X509_get0_notAfter(issuer));

    if (from_s < first) /* no longer than whoever signs it: some look at the whole chain at one moment */
        from_s = first;
    if (to_s > last)
        to_s = last;
    if (!ASN1_TIME_set(X509_getm_notBefore(x), from_s) || !ASN1_TIME_set(X509_getm_notAfter(x), to_s))
        return ca_ssl_err(e, "validity");
    return 0;
}

static int leaf_fields(X509 *x, X509 *issuer, X509_REQ *q, const struct ca_leaf *l, struct err *e)
{
    int64_t life = l->life_s < CA_LEAF_LIFE_MIN_S ? CA_LEAF_LIFE_DEFAULT_S : l->life_s;
    X509_NAME *name = X509_get_subject_name(x);
    struct str host[CA_HOSTS_MAX];

    (void)ca_leaf_hosts(l, host);
    if (X509_set_version(x, X509_VERSION_3) != 1 || ca_set_serial(x, e) < 0 || !add_name(name, "O", l->cluster_id) ||
        !add_name(name, "OU", host[0]) || !add_name(name, "CN", l->node_id) ||
        X509_set_issuer_name(x, X509_get_subject_name(issuer)) != 1 || X509_set_pubkey(x, X509_REQ_get0_pubkey(q)) != 1)
        return ca_ssl_err(e, "node certificate");
    return set_times(x, issuer, l->now_s - CA_BACKDATE_S, l->now_s + life, e);
}

static int leaf_extensions(X509 *x, X509 *issuer, const struct ca_leaf *l, struct err *e)
{
    int r = ca_add_extension(x, NID_key_usage, "critical,digitalSignature,keyEncipherment", e);

    if (r == 0)
        r = ca_add_extension(x, NID_ext_key_usage, "serverAuth,clientAuth", e);
    if (r == 0)
        r = ca_add_extension(x, NID_basic_constraints, "critical,CA:FALSE", e);
    if (r == 0)
        r = ca_add_extension(x, NID_subject_key_identifier, "hash", e);
    if (r == 0)
        r = ca_add_issuer_key(x, issuer, e);
    return r == 0 ? add_hosts(x, l, e) : r;
}

/* signer - a root and its key, which must belong together. */
static int read_signer(struct str root, struct str root_key, X509 **ret, EVP_PKEY **ret_key, struct err *e)
{
    int r = ca_read_cert(root, ret, e);

    if (r == 0)
        r = ca_read_key(root_key, ret_key, e);
    if (r < 0)
        return err_wrap(e, "the swarm's root");
    if (X509_check_private_key(*ret, *ret_key) != 1)
        return ca_ssl_err(e, "the swarm's root and its key do not belong together");
    return 0;
}

int ca_sign(struct str root, struct str root_key, struct str csr, const struct ca_leaf *l, struct buf *ret,
            struct err *e)
{
    _cleanup_(X509_freep) X509 *issuer = NULL, *x = X509_new();
    _cleanup_(EVP_PKEY_freep) EVP_PKEY *key = NULL;
    _cleanup_(X509_REQ_freep) X509_REQ *q = NULL;
    int r = csr_read(csr, &q, e);

    if (r == 0)
        r = read_signer(root, root_key, &issuer, &key, e);
    if (r == 0 && !x)
        r = ca_ssl_err(e, "node certificate");
    if (r == 0)
        r = leaf_fields(x, issuer, q, l, e);
    if (r == 0)
        r = leaf_extensions(x, issuer, l, e);
    if (r == 0 && X509_sign(x, key, EVP_sha256()) <= 0)
        r = ca_ssl_err(e, "sign the node's certificate");
    return r < 0 ? r : ca_put_cert(x, ret, e);
}

static int cross_build(X509 *x, X509 *old, X509 *root, int64_t now_s, struct err *e)
{
    if (X509_set_version(x, X509_VERSION_3) != 1 || ca_set_serial(x, e) < 0 ||
        X509_set_subject_name(x, X509_get_subject_name(root)) != 1 ||
        X509_set_issuer_name(x, X509_get_subject_name(old)) != 1 || X509_set_pubkey(x, X509_get0_pubkey(root)) != 1)
        return ca_ssl_err(e, "cross-signed certificate");
    int r = set_times(x, old, now_s - CA_BACKDATE_S, seconds_of(X509_get0_notAfter(root)), e);
    const ASN1_OCTET_STRING *id = X509_get0_subject_key_id(root);

    if (r == 0)
        r = ca_add_extension(x, NID_key_usage, "critical,keyCertSign,cRLSign", e);
    if (r == 0)
        r = ca_add_extension(x, NID_basic_constraints, "critical,CA:TRUE", e);
    if (r == 0 && id && X509_add1_ext_i2d(x, NID_subject_key_identifier, (void *)id, 0, X509V3_ADD_DEFAULT) != 1)
        r = ca_ssl_err(e, "subject key identifier");
    if (r == 0 && !id)
        r = ca_add_extension(x, NID_subject_key_identifier, "hash", e);
    return r == 0 ? ca_add_issuer_key(x, old, e) : r;
}

int ca_cross_sign(struct str old, struct str old_key, struct str root, int64_t now_s, struct buf *ret, struct err *e)
{
    _cleanup_(X509_freep) X509 *issuer = NULL, *subject = NULL, *x = X509_new();
    _cleanup_(EVP_PKEY_freep) EVP_PKEY *key = NULL;
    int r = read_signer(old, old_key, &issuer, &key, e);

    if (r == 0)
        r = ca_read_cert(root, &subject, e);
    if (r == 0 && !x)
        r = ca_ssl_err(e, "cross-signed certificate");
    if (r == 0)
        r = cross_build(x, issuer, subject, now_s, e);
    if (r == 0 && X509_sign(x, key, EVP_sha256()) <= 0)
        r = ca_ssl_err(e, "cross-sign the new root");
    return r < 0 ? r : ca_put_cert(x, ret, e);
}

int ca_root_csr(struct str root, struct str root_key, struct buf *ret, struct err *e)
{
    _cleanup_(X509_freep) X509 *x = NULL;
    _cleanup_(EVP_PKEY_freep) EVP_PKEY *key = NULL;
    _cleanup_(X509_REQ_freep) X509_REQ *q = NULL;
    _cleanup_(BIO_freep) BIO *b = BIO_new(BIO_s_mem());
    char *p = NULL;
    long n;
    int r = read_signer(root, root_key, &x, &key, e);

    if (r < 0)
        return r;
    q = X509_to_X509_REQ(x, key, EVP_sha256());
    if (!b || !q || PEM_write_bio_X509_REQ(b, q) != 1 || (n = BIO_get_mem_data(b, &p)) <= 0)
        return ca_ssl_err(e, "certificate request of the root");
    buf_put(ret, p, (size_t)n);
    return ret->failed ? err_set(e, ERR_NOMEM, "out of memory") : 0;
}

/* ---- judging ---- */

static bool signed_by(X509 *x, X509 *issuer)
{
    bool ok = X509_NAME_cmp(X509_get_issuer_name(x), X509_get_subject_name(issuer)) == 0 &&
              X509_verify(x, X509_get0_pubkey(issuer)) == 1;

    ERR_clear_error();
    return ok;
}

static int root_key_check(X509 *x, struct err *e)
{
    EVP_PKEY *key = X509_get0_pubkey(x);
    int type = key ? EVP_PKEY_get_base_id(key) : EVP_PKEY_NONE;

    if (type == EVP_PKEY_EC && curve_ok(key))
        return 0;
    if (type == EVP_PKEY_RSA && EVP_PKEY_get_bits(key) >= RSA_BITS_MIN)
        return 0;
    ERR_clear_error();
    return err_set(e, ERR_INVALID, "the CA's key must be on P-256, P-384 or P-521, or RSA of at least %d bits",
                   RSA_BITS_MIN);
}

int ca_root_check(struct str root, struct str key, int64_t now_s, struct err *e)
{
    _cleanup_(X509_freep) X509 *x = NULL;
    _cleanup_(EVP_PKEY_freep) EVP_PKEY *k = NULL;

    if (root.n == 0)
        return err_set(e, ERR_INVALID, "if a signing CA key is provided, the signing CA cert must also be provided");
    if (ca_read_cert(root, &x, e) < 0)
        return err_wrap(e, "the desired CA certificate");
    if (X509_check_ca(x) != 1 || !(X509_get_key_usage(x) & KU_KEY_CERT_SIGN))
        return err_set(e, ERR_INVALID, "the desired CA certificate may not sign certificates");
    if (!signed_by(x, x))
        return err_set(e, ERR_INVALID, "the desired CA certificate is not self-signed");
    if (root_key_check(x, e) < 0)
        return -e->code;
    if (seconds_of(X509_get0_notBefore(x)) > now_s)
        return err_set(e, ERR_INVALID, "the desired CA certificate is not valid yet");
    if (seconds_of(X509_get0_notAfter(x)) < now_s + YEAR_S)
        return err_set(e, ERR_INVALID, "CA certificate expires too soon");
    if (key.n == 0)
        return 0;
    if (ca_read_key(key, &k, e) < 0)
        return err_wrap(e, "the desired CA key");
    if (X509_check_private_key(x, k) != 1) {
        ERR_clear_error();
        return err_set(e, ERR_INVALID, "the signing CA key does not belong to the signing CA cert");
    }
    return 0;
}

static int chain_check(X509 *x, X509 *root, int64_t now_s, struct err *e)
{
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    int r = 0;

    if (!store || !ctx || X509_STORE_add_cert(store, root) != 1 || X509_STORE_CTX_init(ctx, store, x, NULL) != 1)
        r = ca_ssl_err(e, "check the certificate");
    if (r == 0) {
        X509_VERIFY_PARAM_set_time(X509_STORE_CTX_get0_param(ctx), (time_t)now_s);
        if (X509_verify_cert(ctx) != 1)
            r = err_set(e, ERR_INVALID, "the certificate is not good: %s",
                        X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx)));
        ERR_clear_error();
    }
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    return r;
}

int ca_leaf_check(struct str cert, struct str root, const uint8_t key[CA_KEY_DIGEST], const struct ca_leaf *l,
                  struct err *e)
{
    _cleanup_(X509_freep) X509 *x = NULL, *issuer = NULL;
    struct ca_info i = { .cn = "" };
    struct str host[CA_HOSTS_MAX];
    unsigned n = ca_leaf_hosts(l, host);
    int r = ca_read_cert(cert, &x, e);

    if (r == 0)
        r = ca_read_cert(root, &issuer, e);
    if (r == 0)
        r = chain_check(x, issuer, l->now_s, e);
    if (r == 0)
        r = info_of(x, &i, e);
    if (r == 0 && memcmp(i.key, key, CA_KEY_DIGEST) != 0)
        r = err_set(e, ERR_INVALID, "the certificate is for another key");
    if (r == 0 && (!str_is(l->node_id, i.cn) || !str_is(l->cluster_id, i.org) || !str_is(host[0], i.unit)))
        r = err_set(e, ERR_INVALID, "the certificate is for CN=%s, OU=%s, O=%s", i.cn, i.unit, i.org);
    for (unsigned k = 0; r == 0 && k < n; k++)
        if (X509_check_host(x, host[k].p, host[k].n, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, NULL) != 1)
            r = err_set(e, ERR_INVALID, "the certificate lacks the name " STR_FMT, STR_ARG(host[k]));
    if (r == 0 && X509_check_ca(x) != 0)
        r = err_set(e, ERR_INVALID, "the certificate is a CA's");
    ca_info_done(&i);
    return r;
}

int ca_cross_check(struct str cross, struct str old, struct str root, struct err *e)
{
    _cleanup_(X509_freep) X509 *x = NULL, *issuer = NULL, *subject = NULL;
    int r = ca_read_cert(cross, &x, e);

    if (r == 0)
        r = ca_read_cert(old, &issuer, e);
    if (r == 0)
        r = ca_read_cert(root, &subject, e);
    if (r < 0)
        return r;
    if (!signed_by(x, issuer) || X509_check_ca(x) != 1 ||
        X509_NAME_cmp(X509_get_subject_name(x), X509_get_subject_name(subject)) != 0 ||
        EVP_PKEY_eq(X509_get0_pubkey(x), X509_get0_pubkey(subject)) != 1) {
        ERR_clear_error();
        return err_set(e, ERR_INVALID, "this is not the new root's certificate by the old one");
    }
    return 0;
}

static int proof_verify(X509 *x, struct str csr, struct str proof, struct err *e)
{
    _cleanup_(EVP_MD_CTX_freep) EVP_MD_CTX *m = EVP_MD_CTX_new();
    bool ok = m && EVP_DigestVerifyInit(m, NULL, EVP_sha256(), NULL, X509_get0_pubkey(x)) == 1 &&
              EVP_DigestVerify(m, (const unsigned char *)proof.p, proof.n, (const unsigned char *)csr.p, csr.n) == 1;

    ERR_clear_error();
    return ok ? 0 : err_set(e, ERR_DENIED, "the proof was not made with the key of the old certificate");
}

int ca_proof_check(struct str old, const struct str *roots, size_t nroots, struct str csr, struct str proof,
                   struct ca_info *ret, struct err *e)
{
    _cleanup_(X509_freep) X509 *x = NULL;
    bool known = false;
    int r = ca_read_cert(old, &x, e);

    if (r < 0)
        return err_wrap(e, "the old certificate");
    for (size_t i = 0; i < nroots && !known; i++) {
        _cleanup_(X509_freep) X509 *root = NULL;
        struct err ignore;
        known = ca_read_cert(roots[i], &root, &ignore) == 0 && signed_by(x, root);
    }
    if (!known || X509_check_ca(x) != 0)
        return err_set(e, ERR_DENIED, "the old certificate was not issued by this swarm");
    r = proof_verify(x, csr, proof, e);
    return r < 0 ? r : info_of(x, ret, e);
}
