/* cad_rotate.c - the swarm moves to another root (swarmkit.md §8.6). */
#include <openssl/crypto.h>
#include <stdlib.h>

#include "cad/ca_root.h"
#include "cad/cad_pass.h"
#include "common/daemon/log.h"
#include "common/util/check.h"

/* ---- a request ---- */

static void free_turn(struct cad_turn *t)
{
    cad_outside_forget(t->outside);
    if (t->key.p)
        OPENSSL_cleanse(t->key.p, t->key.cap);
    buf_done(&t->key);
    buf_done(&t->cert);
    buf_done(&t->cross);
    buf_done(&t->old);
    free(t);
}

static void finish(struct cad_keeper *k, const struct err *e)
{
    struct cad_turn *t = k->turn;

    k->turn = NULL;
    if (e->code != 0) {
        log_warn("another root certificate: %s", e->msg);
        k->calls->failed(t->call, e);
    } else {
        k->calls->rotated(t->call);
    }
    free_turn(t);
}

void cad_ask_rotate(struct cad_keeper *k, void *call, const struct cad_rotate *req)
{
    struct err e = ERR_INIT;

    if (!k->leading)
        err_set(&e, ERR_UNAVAILABLE, "this manager is not the leader");
    else if (k->turn)
        err_set(&e, ERR_UNAVAILABLE, "another change of the root certificate is being made: try again");
    if (e.code != 0) {
        k->calls->failed(call, &e);
        return;
    }
    k->turn = calloc(1, sizeof *k->turn);
    CHECK(k->turn != NULL);
    k->turn->call = call;
    k->turn->req = req;
    controller_kick(k->controller);
}

void cad_rotate_drop(struct cad_keeper *k, const struct err *e)
{
    if (!k->turn)
        return;
    if (e)
        finish(k, e);
    else
        free_turn(k->turn);
    k->turn = NULL;
}

/* prepare - the new root and its key, given or fresh. */
static int prepare(struct cad_work *w, struct cad_turn *t, struct err *e)
{
    int64_t now_s = w->p->now.ns / 1000000000;
    struct str cert = t->req->SigningCACert, key = t->req->SigningCAKey;
    struct ca_root root = { .key_pem = BUF_INIT };
    int r;

    buf_clear(&t->cert);
    buf_clear(&t->key);
    if (cert.n > 0 || key.n > 0) {
        r = ca_root_check(cert, key, now_s, e);
        buf_put(&t->cert, cert.p, cert.n);
        buf_put(&t->key, key.p, key.n);
        if (r == 0 && key.n == 0 && !cad_outside_for(w, cert, &t->req->ExternalCAs))
            r = err_set(e, ERR_INVALID,
                        "there must be at least one valid, reachable external CA corresponding to the desired CA "
                        "certificate");
    } else {
        r = ca_root_make(&root, now_s, e);
        buf_put(&t->cert, root.cert_pem.p, root.cert_pem.n);
        buf_put(&t->key, root.key_pem.p, root.key_pem.n);
        w->k->roots_made += r == 0;
    }
    ca_root_done(&root);
    if (r == 0 && (t->cert.failed || t->key.failed))
        r = err_set(e, ERR_NOMEM, "out of memory");
    return r;
}

static int same_key(struct str a, struct str b, bool *ret, struct err *e)
{
    struct ca_info x = { .cn = "" }, y = { .cn = "" };
    int r = ca_info(a, &x, e);

    if (r == 0)
        r = ca_info(b, &y, e);
    *ret = r == 0 && memcmp(x.key, y.key, CA_KEY_DIGEST) == 0;
    ca_info_done(&x);
    ca_info_done(&y);
    return r;
}

static void put_key(struct cad_work *w, const char *id, struct str key)
{
    cad_put_secret(w, id, (const char *const[]){ "Data" }, &key, key.n > 0, true);
}

/* remember - a root that is not issued by any more. */
static void remember(struct cad_work *w, struct str cert, struct str cross)
{
    const struct cad_previous *old = w->root.Previous.v;
    struct cad_previous *all = arena_array(w->p->arena, CAD_PREVIOUS_MAX, sizeof *all);
    size_t n = 0;

    CHECK(all != NULL);
    all[n++] = (struct cad_previous){ cert, cross };
    for (size_t i = 0; i < w->root.Previous.n && n < CAD_PREVIOUS_MAX; i++)
        all[n++] = old[i];
    w->root.Previous = (struct list){ all, n };
}

static void set_dirty(struct cad_work *w)
{
    w->root_dirty = w->tls_dirty = true;
    w->k->nodes_unread = true;
}

/* back - the root that is trusted is the wanted one: a move away from it ends here. Its key may come or go. */
static void back(struct cad_work *w, struct cad_turn *t)
{
    if (w->root.Rotation) {
        remember(w, w->root.Rotation->NewCert, STR(""));
        w->root.Rotation = NULL;
        put_key(w, STORE_CA_NEXT_ID, STR(""));
        log_info("the move to another root certificate is called off");
    }
    put_key(w, STORE_CA_KEY_ID, buf_str(&t->key));
    set_dirty(w);
}

static void start(struct cad_work *w, struct cad_turn *t)
{
    struct cad_rotation *r = arena_alloc(w->p->arena, sizeof *r);

    CHECK(r != NULL);
    if (w->root.Rotation)
        remember(w, w->root.Rotation->NewCert, STR(""));
    *r = (struct cad_rotation){ .NewCert = arena_str(w->p->arena, buf_str(&t->cert)),
                                .CrossSigned = arena_str(w->p->arena, buf_str(&t->cross)),
                                .StartedAt = w->p->now.ns,
                                .Deadline = w->p->now.ns + w->k->limits.rotation_ns };
    w->root.Rotation = r;
    put_key(w, STORE_CA_NEXT_ID, buf_str(&t->key));
    set_dirty(w);
    log_info("the move to another root certificate begins");
}

/* cross - the old root vouches for the new one. True when that is there. */
static bool cross(struct cad_work *w, struct cad_turn *t, struct err *e)
{
    struct str key = cad_secret(w->p->snap, STORE_CA_KEY_ID);

    if (t->cross.n > 0 && str_eq(buf_str(&t->old), w->root.Cert))
        return true;
    buf_clear(&t->cross);
    buf_clear(&t->old);
    buf_put(&t->old, w->root.Cert.p, w->root.Cert.n);
    if (key.n > 0)
        return ca_cross_sign(w->root.Cert, key, buf_str(&t->cert), w->p->now.ns / 1000000000, &t->cross, e) == 0;
    if (t->key.n == 0)
        err_set(e, ERR_INVALID, "rotating from one external CA to a different external CA is not supported");
    else
        cad_outside_cross(w, t, e);
    return false;
}

static void take_turn(struct cad_work *w)
{
    struct cad_turn *t = w->k->turn;
    struct err e = ERR_INIT;
    bool same = false;

    if (t->outside) /* an external CA is being asked */
        return;
    if (t->cert.n == 0 && prepare(w, t, &e) < 0)
        goto failed;
    if (same_key(buf_str(&t->cert), w->root.Cert, &same, &e) < 0)
        goto failed;
    if (same && !str_eq(buf_str(&t->cert), w->root.Cert)) {
        err_set(&e, ERR_INVALID, "Cannot update to a cert with an identical key");
        goto failed;
    }
    if (same) {
        back(w, t);
    } else if (cross(w, t, &e)) {
        start(w, t);
    } else {
        if (e.code != 0)
            goto failed;
        return;
    }
    t->flying = true;
    return;
failed:
    finish(w->k, &e);
}

/* ---- progress ---- */

static bool text_same(struct str doc, const char *path, struct str want)
{
    struct str v;

    if (!mp_path(doc, path, &v))
        return false;
    struct mp_cursor c = mp_cursor(v);
    struct mp_val val;
    return mp_next(&c, &val) == 0 && (val.type == MP_BIN || val.type == MP_STR) && str_eq(val.s, want);
}

/* cad_rotate_note - where this node stands; into k->behind. */
static void note(struct cad_keeper *k, struct str id, struct str doc, const struct ca_info *issuer, int64_t now_ns)
{
    struct rotate_view v = { .down = false };
    struct str state = cad_text_at(doc, "Status.State"), unused;

    v.down = str_is(state, "down") || str_is(state, "disconnected");
    v.issued = text_same(doc, "Certificate.Issuer", (struct str){ (const char *)issuer->key, CA_KEY_DIGEST });
    (void)mp_get_i64(doc, "Certificate.IssuedAt", &v.issued_ns);
    v.reports = mp_path(doc, "Description.TLSInfo.CertIssuerPublicKey", &unused);
    v.uses = text_same(doc, "Description.TLSInfo.CertIssuerPublicKey", buf_str(&issuer->public_key));
    int64_t until = rotate_node(&v, now_ns);
    if (until == 0)
        table_del(&k->behind, id);
    else
        *(int64_t *)table_put(&k->behind, id, NULL) = until;
}

static void finish_move(struct cad_work *w)
{
    struct cad_rotation *r = w->root.Rotation;
    struct str key = cad_secret(w->p->snap, STORE_CA_NEXT_ID);

    if (w->k->behind.count > 0)
        log_warn(
            "the move to another root certificate ends at its deadline: %zu nodes will renew by proof of their key",
            w->k->behind.count);
    else
        log_info("every node has come over to the new root certificate");
    remember(w, w->root.Cert, r->CrossSigned);
    put_key(w, STORE_CA_KEY_ID, key);
    put_key(w, STORE_CA_NEXT_ID, STR(""));
    w->root.Cert = r->NewCert;
    w->root.Rotation = NULL;
    cad_renew_tokens(w, true, true);
    set_dirty(w);
    table_clear(&w->k->behind);
}

static void progress(struct cad_work *w)
{
    struct cad_keeper *k = w->k;
    struct ca_info issuer = { .cn = "" };
    int64_t now = w->p->now.ns, *until, next = w->root.Rotation->Deadline;
    struct err e = ERR_INIT;
    struct store_iter it;
    struct str id, doc;

    if (ca_info(w->root.Rotation->NewCert, &issuer, &e) < 0) {
        log_error("root certificate: %s", e.msg);
        goto out;
    }
    if (k->nodes_unread) {
        k->nodes_unread = false;
        table_clear(&k->behind);
        for (store_each(w->p->snap, KIND_NODE, &it); store_next(&it);)
            note(k, it.id, it.doc, &issuer, now);
    }
    for (struct table_pos pos = { 0 }; table_next(&k->behind, &pos, &id, &until);)
        if (store_get(w->p->snap, KIND_NODE, id, &doc) < 0)
            table_del(&k->behind, id);
    for (struct str moved; marks_pop(&k->moved, &moved);)
        if (store_get(w->p->snap, KIND_NODE, moved, &doc) == 0)
            note(k, moved, doc, &issuer, now);
    for (struct table_pos pos = { 0 }; table_next(&k->behind, &pos, &id, &until);) {
        if (*until <= now)
            table_del(&k->behind, id);
        else if (*until < next)
            next = *until;
    }
    if (rotate_over(k->behind.count, w->root.Rotation->Deadline, now))
        finish_move(w);
    else if (next < w->p->next_ns)
        w->p->next_ns = next;
out:
    ca_info_done(&issuer);
}

void cad_rotate_some(struct cad_work *w)
{
    if (w->k->turn)
        take_turn(w);
    if (w->root_dirty)
        return;
    if (w->root.Rotation) {
        progress(w);
    } else {
        w->k->nodes_unread = true;
        marks_clear(&w->k->moved);
    }
}

void cad_rotate_done(struct cad_keeper *k, const struct err *e)
{
    struct cad_turn *t = k->turn;

    marks_settle(&k->moved, e->code == 0);
    if (!t || !t->flying)
        return;
    t->flying = false;
    if (e->code == 0)
        finish(k, e);
    else if (++t->tries >= 20)
        finish(k, e);
}
