/* cad_pass.c - see cad_pass.h. */
#include "cad/cad_pass.h"

#include <openssl/crypto.h>
#include <stdlib.h>

#include "common/daemon/log.h"
#include "common/util/check.h"

#define SECRETS_MAX 16u

void cad_keeper_init(struct cad_keeper *k, const struct cad_calls *calls)
{
    *k = (struct cad_keeper){ .calls = calls,
                              .limits = { 256, 100, 86400000000000ll, 43200000000000ll },
                              .tokens = 100 };
    k->queue_end = &k->queue;
    k->secrets = calloc(SECRETS_MAX, sizeof *k->secrets);
    CHECK(k->secrets != NULL);
    table_init(&k->keys, CAD_ID_SIZE);
    table_init(&k->role_errs, CAD_WHY_SIZE);
    table_init(&k->behind, sizeof(int64_t));
    role_init(&k->role_core);
    marks_init(&k->roles);
    marks_init(&k->moved);
}

static void wipe(struct cad_keeper *k)
{
    for (size_t i = 0; i < k->nsecrets; i++)
        OPENSSL_cleanse((void *)k->secrets[i].p, k->secrets[i].n);
    k->nsecrets = 0;
}

/* Calls that wait are gone with the server that brought them: the nodes ask again. */
void cad_keeper_done(struct cad_keeper *k)
{
    cad_issue_drop(k, NULL);
    cad_rotate_drop(k, NULL);
    wipe(k);
    free(k->secrets);
    table_done(&k->keys);
    table_done(&k->role_errs);
    table_done(&k->behind);
    role_done(&k->role_core);
    marks_done(&k->roles);
    marks_done(&k->moved);
    buf_done(&k->members);
    buf_done(&k->doc);
}

/* ---- what changed ---- */

static void on_reload(void *arg, struct store_snap *snap, const struct store_meta *meta)
{
    struct cad_keeper *k = arg;
    struct store_iter it;

    (void)meta;
    k->leading = true;
    k->cluster_dirty = true;
    k->nodes_unread = true;
    table_clear(&k->keys);
    buf_clear(&k->members);
    for (store_each(snap, KIND_NODE, &it); store_next(&it);) {
        cad_learn_node(k, it.id, it.doc);
        cad_roles_note(k, it.id, it.doc);
    }
}

static void on_change(void *arg, struct store_snap *snap, enum kind kind, struct str id, char op)
{
    struct cad_keeper *k = arg;
    struct str doc;

    if (kind == KIND_CLUSTER)
        k->cluster_dirty = true;
    if (kind != KIND_NODE)
        return;
    if (store_get(snap, KIND_NODE, id, &doc) == 0) {
        cad_learn_node(k, id, doc);
        cad_roles_note(k, id, doc);
        marks_add(&k->moved, id);
    } else if (op == 'd') {
        cad_forget_node(k, id);
        cad_roles_note(k, id, (struct str){ NULL, 0 });
    }
}

static void on_seen(void *arg, struct store_snap *snap, const struct store_meta *meta)
{
    (void)meta;
    cad_roles_members(arg, snap);
}

/* ---- the pass ---- */

static void put_tls_info(struct cad_work *w, struct buf *b)
{
    struct ca_info issuer = { .cn = "" };
    struct err e = ERR_INIT;

    if (ca_info(cad_signing_root(&w->root), &issuer, &e) < 0)
        log_error("root certificate: %s", e.msg);
    mp_cstr(b, "TLSInfo");
    mp_map(b, 3);
    mp_kv_str(b, "TrustRoot", w->root.Cert);
    mp_cstr(b, "CertIssuerSubject");
    mp_bin(b, buf_str(&issuer.subject));
    mp_cstr(b, "CertIssuerPublicKey");
    mp_bin(b, buf_str(&issuer.public_key));
    ca_info_done(&issuer);
}

static void write_cluster(struct cad_work *w)
{
    struct buf *b = &w->k->doc;
    uint64_t rev = 0;

    if (!w->root_dirty && !w->drop_tokens && !w->tls_dirty && txn_empty(w->p->txn))
        return;
    (void)mp_get_u64(w->doc, "Rev", &rev);
    txn_require_rev(w->p->txn, KIND_CLUSTER, arena_str(&w->p->txn->arena, w->id), rev);
    buf_clear(b);
    mp_map(b, 1 + w->drop_tokens + 2u * w->tls_dirty);
    mp_cstr(b, "RootCA");
    cad_put_root_doc(b, &w->root);
    if (w->drop_tokens) {
        mp_cstr(b, "JoinTokens");
        mp_nil(b);
    }
    if (w->tls_dirty) {
        put_tls_info(w, b);
        mp_kv_bool(b, "RootRotationInProgress", w->root.Rotation != NULL);
    }
    txn_update(w->p->txn, KIND_CLUSTER, arena_str(&w->p->txn->arena, w->id), txn_doc(w->p->txn, b));
}

static void on_pass(void *arg, struct controller_pass *p)
{
    struct cad_keeper *k = arg;
    struct cad_work w = { .k = k, .p = p, .id = p->meta->cluster_id };
    struct err e = ERR_INIT;

    CHECK(k->flying == NULL);
    if (store_get(p->snap, KIND_CLUSTER, w.id, &w.doc) < 0)
        return;
    if (cad_root_doc(w.doc, &w.root, p->arena, &e) < 0) {
        log_error("cluster object: %s", e.msg);
        return;
    }
    if (k->cluster_dirty)
        cad_upkeep(&w);
    w.tls_dirty |= w.root.Cert.n > 0 && !str_eq(cad_text_at(w.doc, "TLSInfo.TrustRoot"), w.root.Cert);
    k->cluster_dirty = false;
    if (!w.root_dirty && w.root.Cert.n > 0)
        cad_rotate_some(&w);
    write_cluster(&w);
    /* One thing in a transaction: what comes next is decided on with what this one gives. */
    if (txn_empty(p->txn) && w.root.Cert.n > 0)
        cad_netkeys_some(&w);
    if (txn_empty(p->txn))
        cad_roles_some(&w);
    if (!txn_empty(p->txn))
        p->more = true;
    else if (w.root.Cert.n > 0)
        cad_issue_some(&w);
}

static void on_done(void *arg, const struct err *e)
{
    struct cad_keeper *k = arg;

    wipe(k);
    marks_settle(&k->roles, e->code == 0);
    if (e->code != 0) {
        k->cluster_dirty = true;
        k->nodes_unread = true;
        if (e->code != ERR_CONFLICT && e->code != ERR_NOT_FOUND)
            log_warn("transaction: %s", e->msg);
    }
    cad_rotate_done(k, e);
    cad_issue_done(k, e);
}

static void on_standby(void *arg)
{
    struct cad_keeper *k = arg;
    struct err e = ERR_INIT;

    k->leading = false;
    err_set(&e, ERR_UNAVAILABLE, "this manager does not lead any more: only the leader issues certificates");
    cad_issue_drop(k, &e);
    cad_rotate_drop(k, &e);
    role_clear(&k->role_core);
    marks_clear(&k->roles);
    marks_clear(&k->moved);
    table_clear(&k->role_errs);
    table_clear(&k->behind);
    table_clear(&k->keys);
}

const struct controller_ops cad_ops = {
    .name = "cad",
    .secrets = true,
    .reload = on_reload,
    .change = on_change,
    .seen = on_seen,
    .pass = on_pass,
    .done = on_done,
    .standby = on_standby,
};
