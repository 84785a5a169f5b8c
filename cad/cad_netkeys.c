/* cad_netkeys.c - see cad_netkeys.h. */
#include "cad/cad_netkeys.h"

#include <openssl/crypto.h>

#include "cad/cad_pass.h"
#include "common/daemon/log.h"
#include "common/util/check.h"

#define STORED_MAX 64u

const char *const netkeys_purposes[NETKEYS_PURPOSES] = { "gossip", "esp" };

struct stored_key {
    struct str Purpose, Key;
    uint64_t Epoch;
    int64_t MadeAt;
};
struct stored {
    struct list Keys;
    int64_t RotatedAt;
};
static const struct field key_fields[] = {
    FIELD_STR(struct stored_key, Purpose, 1, 16),
    FIELD_U64(struct stored_key, Epoch, 0, UINT64_MAX),
    FIELD_BIN(struct stored_key, Key, 0, 64),
    FIELD_I64(struct stored_key, MadeAt, INT64_MIN, INT64_MAX),
    FIELD_END,
};
static const struct field stored_fields[] = {
    FIELD_LIST(struct stored, Keys, key_fields, struct stored_key, STORED_MAX),
    FIELD_I64(struct stored, RotatedAt, INT64_MIN, INT64_MAX),
    FIELD_END,
};

static struct netkeys_ring *ring_of(struct netkeys *k, struct str purpose)
{
    for (size_t i = 0; i < NETKEYS_PURPOSES; i++)
        if (str_is(purpose, netkeys_purposes[i]))
            return &k->ring[i];
    return NULL;
}

int netkeys_read(struct str doc, struct netkeys *ret, struct arena *a, struct err *e)
{
    struct stored s;

    *ret = (struct netkeys){ .rotated_ns = 0 };
    if (fields_decode(&s, stored_fields, sizeof s, doc, FIELDS_VIEW, a, e) < 0)
        return err_set(e, ERR_CORRUPT, "network keys are not what was written");
    ret->rotated_ns = s.RotatedAt;
    for (size_t i = 0; i < s.Keys.n; i++) {
        const struct stored_key *in = &((const struct stored_key *)s.Keys.v)[i];
        struct netkeys_ring *r = ring_of(ret, in->Purpose);
        if (!r || r->n == NETKEYS_KEPT || in->Key.n != NETKEY_BYTES || in->Epoch == UINT64_MAX ||
            (r->n > 0 && in->Epoch >= r->keys[r->n - 1].epoch))
            continue;
        struct netkey *out = &r->keys[r->n++];
        out->epoch = in->Epoch;
        out->made_ns = in->MadeAt;
        memcpy(out->key, in->Key.p, NETKEY_BYTES);
    }
    return 0;
}

void netkeys_put(struct buf *b, const char *id, const struct netkeys *k)
{
    size_t n = 0;

    for (size_t i = 0; i < NETKEYS_PURPOSES; i++)
        n += k->ring[i].n;
    mp_map(b, 3);
    mp_kv_cstr(b, "ID", id);
    mp_kv_i64(b, "RotatedAt", k->rotated_ns);
    mp_cstr(b, "Keys");
    mp_array(b, n);
    for (size_t i = 0; i < NETKEYS_PURPOSES; i++) {
        for (size_t j = 0; j < k->ring[i].n; j++) {
            const struct netkey *key = &k->ring[i].keys[j];
            mp_map(b, 4);
            mp_kv_cstr(b, "Purpose", netkeys_purposes[i]);
            mp_kv_u64(b, "Epoch", key->epoch);
            mp_kv_i64(b, "MadeAt", key->made_ns);
            mp_cstr(b, "Key");
            mp_bin(b, (struct str){ (const char *)key->key, NETKEY_BYTES });
        }
    }
}

bool netkeys_due(const struct netkeys *k, int64_t interval_ns, int64_t now_ns, int64_t *ret_next_ns)
{
    for (size_t i = 0; i < NETKEYS_PURPOSES; i++)
        if (k->ring[i].n == 0)
            return true;
    /* made by a manager whose clock is far ahead: don't wait until ours has caught up */
    if (k->rotated_ns > now_ns && k->rotated_ns - now_ns > interval_ns)
        return true;
    *ret_next_ns = k->rotated_ns + interval_ns;
    return now_ns >= *ret_next_ns;
}

void netkeys_rotate(struct netkeys *k, int64_t now_ns, void (*random)(void *p, size_t n))
{
    for (size_t i = 0; i < NETKEYS_PURPOSES; i++) {
        struct netkeys_ring *r = &k->ring[i];
        uint64_t epoch = r->n ? r->keys[0].epoch + 1 : 1;
        memmove(&r->keys[1], &r->keys[0], (NETKEYS_KEPT - 1) * sizeof r->keys[0]);
        r->n += r->n < NETKEYS_KEPT;
        r->keys[0].epoch = epoch;
        r->keys[0].made_ns = now_ns;
        random(r->keys[0].key, NETKEY_BYTES);
    }
    k->rotated_ns = now_ns;
}

void netkeys_wipe(struct netkeys *k)
{
    OPENSSL_cleanse(k, sizeof *k);
}

/* ---- the pass ---- */

static void look(struct cad_work *w, struct str doc, struct netkeys *ret)
{
    struct err e = ERR_INIT;

    *ret = (struct netkeys){ .rotated_ns = 0 };
    if (doc.n && netkeys_read(doc, ret, w->p->arena, &e) < 0)
        log_error("%s: made anew", e.msg);
}

void cad_netkeys_some(struct cad_work *w)
{
    struct cad_keeper *k = w->k;
    struct str doc = { NULL, 0 }, id = STR(STORE_NETWORK_KEYS_ID);
    struct netkeys keys;
    int64_t next = CONTROLLER_NEVER;
    uint64_t rev = 0;

    bool there = store_get(w->p->snap, KIND_CREDENTIAL, id, &doc) == 0;
    look(w, doc, &keys);
    if (netkeys_due(&keys, k->limits.network_keys_ns, w->p->now.ns, &next)) {
        (void)mp_get_u64(doc, "Rev", &rev);
        if (there)
            txn_require_rev(w->p->txn, KIND_CREDENTIAL, id, rev);
        netkeys_rotate(&keys, w->p->now.ns, k->calls->random);
        buf_clear(&k->doc);
        netkeys_put(&k->doc, STORE_NETWORK_KEYS_ID, &keys);
        cad_put_credential(w, STORE_NETWORK_KEYS_ID);
        k->network_keys_made++;
        log_info("made new network keys epoch=%llu", (unsigned long long)keys.ring[0].keys[0].epoch);
    } else if (next < w->p->next_ns) {
        w->p->next_ns = next;
    }
    netkeys_wipe(&keys);
}
