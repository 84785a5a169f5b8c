/* cad_upkeep.c - what the cluster object must have: a root, join tokens, the key of locked managers. */
#include <openssl/crypto.h>

#include "cad/ca_root.h"
#include "cad/ca_token.h"
#include "cad/cad_pass.h"
#include "common/daemon/log.h"
#include "common/util/check.h"

#define SECRETS_MAX 16u

struct str cad_secret(struct store_snap *snap, const char *id)
{
    struct str doc, v;

    if (store_get(snap, KIND_CREDENTIAL, str_from(id), &doc) < 0 || !mp_find(doc, "Data", &v))
        return (struct str){ NULL, 0 };
    struct mp_cursor c = mp_cursor(v);
    struct mp_val val;
    if (mp_next(&c, &val) != 0 || (val.type != MP_BIN && val.type != MP_STR))
        return (struct str){ NULL, 0 };
    return val.s;
}

void cad_put_credential(struct cad_work *w, const char *id)
{
    struct cad_keeper *k = w->k;
    struct txn *t = w->p->txn;
    struct str doc = txn_doc(t, &k->doc);

    OPENSSL_cleanse(k->doc.p, k->doc.n);
    CHECK(k->nsecrets < SECRETS_MAX);
    if (doc.p)
        k->secrets[k->nsecrets++] = doc;
    txn_purge(t, KIND_CREDENTIAL, str_from(id));
    txn_create(t, KIND_CREDENTIAL, str_from(id), doc);
}

void cad_put_secret(struct cad_work *w, const char *id, const char *const *names, const struct str *values, size_t n,
                    bool binary)
{
    struct cad_keeper *k = w->k;

    if (n == 0) {
        txn_purge(w->p->txn, KIND_CREDENTIAL, str_from(id));
        return;
    }
    buf_clear(&k->doc);
    mp_map(&k->doc, n + 1);
    mp_kv_cstr(&k->doc, "ID", id);
    for (size_t i = 0; i < n; i++) {
        mp_cstr(&k->doc, names[i]);
        if (binary)
            mp_bin(&k->doc, values[i]);
        else
            mp_str(&k->doc, values[i]);
    }
    cad_put_credential(w, id);
}

/* ---- root ---- */

/* A swarm that begins with an external CA, whose certificate came along: that is its root, and its key is elsewhere. */
static bool take_outside_root(struct cad_work *w)
{
    struct str cert = cad_outside_root(w);

    if (cert.n == 0)
        return false;
    w->root.Cert = cert;
    w->root_dirty = w->tls_dirty = true;
    log_info("the root certificate of cluster=" STR_FMT " is an external CA's", STR_ARG(w->id));
    return true;
}

/* The key goes to the secret map in the transaction that publishes the certificate: never one without the other. */
static void make_root(struct cad_work *w)
{
    struct ca_root root = { .key_pem = BUF_INIT };
    struct err e = ERR_INIT;

    if (ca_root_make(&root, w->p->now.ns / 1000000000, &e) < 0) {
        log_error("root certificate: %s", e.msg);
    } else {
        struct str key = buf_str(&root.key_pem);
        cad_put_secret(w, STORE_CA_KEY_ID, (const char *const[]){ "Data" }, &key, 1, true);
        w->root.Cert = arena_str(w->p->arena, buf_str(&root.cert_pem));
        w->root_dirty = w->tls_dirty = true;
        w->k->roots_made++;
        log_info("made the root certificate of cluster=" STR_FMT, STR_ARG(w->id));
    }
    ca_root_done(&root);
}

/* ---- tokens ---- */

static struct str fresh_token(struct cad_work *w, const char *digest)
{
    uint8_t secret[CA_SECRET_BYTES];
    char *text = arena_alloc(w->p->arena, CA_TOKEN_SIZE);

    CHECK(text != NULL);
    w->k->calls->random(secret, sizeof secret);
    ca_token(digest, secret, text);
    OPENSSL_cleanse(secret, sizeof secret);
    w->k->tokens_made++;
    return str_from(text);
}

/* Of a store of an older version the tokens stand in the cluster object, where every daemon could read them. */
static void tokens_now(struct cad_work *w, struct str ret[2])
{
    struct str doc;

    if (store_get(w->p->snap, KIND_CREDENTIAL, STR(STORE_TOKENS_ID), &doc) == 0) {
        ret[0] = cad_text_at(doc, "Worker");
        ret[1] = cad_text_at(doc, "Manager");
    } else {
        ret[0] = cad_text_at(w->doc, "JoinTokens.Worker");
        ret[1] = cad_text_at(w->doc, "JoinTokens.Manager");
    }
}

static void put_tokens(struct cad_work *w, const struct str token[2])
{
    cad_put_secret(w, STORE_TOKENS_ID, (const char *const[]){ "Worker", "Manager" }, token, 2, false);
}

void cad_renew_tokens(struct cad_work *w, bool worker, bool manager)
{
    char *digest = arena_alloc(w->p->arena, CA_DIGEST_DIGITS + 1);
    struct str token[2];

    CHECK(digest != NULL);
    tokens_now(w, token);
    ca_digest(w->root.Cert, digest);
    if (worker || !ca_token_ok(token[0]))
        token[0] = fresh_token(w, digest);
    if (manager || !ca_token_ok(token[1]))
        token[1] = fresh_token(w, digest);
    w->root.Digest = str_from(digest);
    w->root_dirty = true;
    put_tokens(w, token);
}

static void keep_tokens(struct cad_work *w)
{
    struct cad_epochs want = { 0 }, *have = &w->root.TokenEpoch;
    struct str old, doc;
    bool moved = store_get(w->p->snap, KIND_CREDENTIAL, STR(STORE_TOKENS_ID), &doc) == 0;

    (void)mp_get_u64(w->doc, "TokenEpoch.Worker", &want.Worker);
    (void)mp_get_u64(w->doc, "TokenEpoch.Manager", &want.Manager);
    w->drop_tokens = mp_find(w->doc, "JoinTokens", &old);
    bool worker = want.Worker != have->Worker, manager = want.Manager != have->Manager;
    if (moved && !worker && !manager && w->root.Digest.n > 0)
        return;
    *have = want;
    cad_renew_tokens(w, worker, manager);
    if (worker || manager)
        log_info("made new join tokens worker_epoch=%llu manager_epoch=%llu", (unsigned long long)want.Worker,
                 (unsigned long long)want.Manager);
}

/* ---- the key of locked managers ---- */

static void make_unlock_key(struct cad_work *w)
{
    uint8_t key[CA_UNLOCK_BYTES];
    char text[CA_UNLOCK_SIZE];

    w->k->calls->random(key, sizeof key);
    ca_unlock_text(key, text);
    struct str v = str_from(text);
    cad_put_secret(w, STORE_UNLOCK_KEY_ID, (const char *const[]){ "Key" }, &v, 1, false);
    OPENSSL_cleanse(key, sizeof key);
    OPENSSL_cleanse(text, sizeof text);
}

static void keep_unlock_key(struct cad_work *w)
{
    uint64_t epoch = 0;
    bool lock = false;
    struct str doc;
    bool have = store_get(w->p->snap, KIND_CREDENTIAL, STR(STORE_UNLOCK_KEY_ID), &doc) == 0;

    (void)mp_get_bool(w->doc, "Spec.EncryptionConfig.AutoLockManagers", &lock);
    (void)mp_get_u64(w->doc, "UnlockKeyEpoch", &epoch);
    if (lock && (!have || epoch != w->root.UnlockKeyEpoch)) {
        make_unlock_key(w);
        log_info(have ? "made a new unlock key" : "managers lock themselves: made the unlock key");
    } else if (!lock && have) {
        cad_put_secret(w, STORE_UNLOCK_KEY_ID, NULL, NULL, 0, false);
        log_info("managers do not lock themselves any more: removed the unlock key");
    }
    if (epoch != w->root.UnlockKeyEpoch) {
        w->root.UnlockKeyEpoch = epoch;
        w->root_dirty = true;
    }
}

void cad_upkeep(struct cad_work *w)
{
    if (w->root.Cert.n == 0 && !take_outside_root(w))
        make_root(w);
    if (w->root.Cert.n == 0)
        return;
    keep_tokens(w);
    keep_unlock_key(w);
}

/* ---- what others may ask for ---- */

static int begin(struct store *s, struct store_snap **snap, struct store_meta *m, struct err *e)
{
    if (store_begin(s, snap, e) < 0)
        return -e->code;
    if (store_meta(*snap, m, e) < 0 || !m->initialized) {
        *snap = store_end(*snap);
        return err_set(e, ERR_UNAVAILABLE, "this node is not part of a swarm");
    }
    return 0;
}

int cad_get_root(struct store *s, struct arena *a, struct cad_root_reply *ret, struct err *e)
{
    struct store_snap *snap = NULL;
    struct store_meta m = { 0 };
    struct str doc;

    if (begin(s, &snap, &m, e) < 0)
        return -e->code;
    if (store_get(snap, KIND_CLUSTER, m.cluster_id, &doc) == 0)
        ret->Cert = arena_str(a, cad_text_at(doc, "RootCA.Cert"));
    store_end(snap);
    return ret->Cert.n > 0 ? 0 : err_set(e, ERR_UNAVAILABLE, "the root certificate is not made yet: try again");
}

int cad_get_tokens(struct store *s, struct arena *a, struct cad_tokens_reply *ret, struct err *e)
{
    struct store_snap *snap = NULL;
    struct store_meta m = { 0 };
    struct str doc;

    if (begin(s, &snap, &m, e) < 0)
        return -e->code;
    if (store_get(snap, KIND_CREDENTIAL, STR(STORE_TOKENS_ID), &doc) == 0) {
        ret->Worker = arena_str(a, cad_text_at(doc, "Worker"));
        ret->Manager = arena_str(a, cad_text_at(doc, "Manager"));
    }
    store_end(snap);
    if (ret->Worker.n == 0 || ret->Manager.n == 0)
        return err_set(e, ERR_UNAVAILABLE, "the join tokens are not made yet: try again");
    return 0;
}

int cad_get_unlock_key(struct store *s, struct arena *a, struct cad_unlock_key_reply *ret, struct err *e)
{
    struct store_snap *snap = NULL;
    struct store_meta m = { 0 };
    struct str doc;

    if (begin(s, &snap, &m, e) < 0)
        return -e->code;
    if (store_get(snap, KIND_CREDENTIAL, STR(STORE_UNLOCK_KEY_ID), &doc) == 0) {
        ret->Key = arena_str(a, cad_text_at(doc, "Key"));
        (void)mp_get_u64(doc, "Rev", &ret->Epoch);
    }
    store_end(snap);
    return 0;
}
