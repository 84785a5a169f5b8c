/* cad_issue.c - certificates on request: who may have which, and the node's record. */
#include <openssl/crypto.h>
#include <stdlib.h>

#include "cad/ca_token.h"
#include "cad/cad_pass.h"
#include "common/daemon/log.h"
#include "common/util/check.h"

#define BATCH 32u     /* certificates in one transaction */
#define TRIES_MAX 20u /* transactions that failed, for one request */
#define REMOVED "node " STR_FMT " was removed from swarm"

/* ---- whose key is it ---- */

static struct str key_text(const uint8_t key[CA_KEY_DIGEST])
{
    return (struct str){ (const char *)key, CA_KEY_DIGEST };
}

void cad_learn_node(struct cad_keeper *k, struct str id, struct str doc)
{
    struct str keys;

    if (id.n >= CAD_ID_SIZE || !mp_path(doc, "Certificate.Keys", &keys))
        return;
    struct mp_cursor c = mp_cursor(keys);
    struct mp_val v;
    if (mp_next(&c, &v) != 0 || v.type != MP_BIN)
        return;
    for (size_t i = 0; i + CA_KEY_DIGEST <= v.s.n; i += CA_KEY_DIGEST) {
        char *owner = table_put(&k->keys, (struct str){ v.s.p + i, CA_KEY_DIGEST }, NULL);
        (void)str_copy(owner, CAD_ID_SIZE, id);
    }
}

void cad_forget_node(struct cad_keeper *k, struct str id)
{
    struct str key;
    char *owner;

    for (struct table_pos pos = { 0 }; table_next(&k->keys, &pos, &key, &owner);)
        if (str_is(id, owner))
            table_del(&k->keys, key);
}

/* ---- calls ---- */

static void free_wait(struct cad_wait *w)
{
    cad_outside_forget(w->outside);
    buf_done(&w->signed_cert);
    buf_done(&w->chain);
    buf_done(&w->trust);
    free(w);
}

static void refuse(struct cad_keeper *k, struct cad_wait *w, const struct err *e)
{
    k->refused++;
    log_info("no certificate for %s%s addr=%s: %s", w->peer[0] ? "node=" : "a node without one", w->peer, w->addr,
             e->msg);
    k->calls->failed(w->call, e);
    free_wait(w);
}

/* limited - more nodes without a certificate come than we want to look at. */
static bool limited(struct cad_keeper *k, int64_t now_ns)
{
    double most = k->limits.per_second;

    if (now_ns > k->tokens_at)
        k->tokens += (double)(now_ns - k->tokens_at) / 1e9 * most;
    if (k->tokens > most || now_ns < k->tokens_at) /* a clock that was set back gives all of it */
        k->tokens = most;
    k->tokens_at = now_ns;
    if (k->tokens < 1)
        return true;
    k->tokens -= 1;
    return false;
}

static void enqueue(struct cad_keeper *k, struct cad_wait *w)
{
    w->next = NULL;
    *k->queue_end = w;
    k->queue_end = &w->next;
    k->nqueue++;
    controller_kick(k->controller);
}

void cad_ask_issue(struct cad_keeper *k, void *call, const struct cad_issue *req, const struct rpc_origin *from,
                   int64_t now_ns)
{
    struct err e = ERR_INIT;

    if (!k->leading)
        err_set(&e, ERR_UNAVAILABLE, "this manager is not the leader: only the leader issues certificates");
    else if (k->nqueue >= k->limits.queue_max || (from->role == RPC_NOBODY && limited(k, now_ns)))
        err_set(&e, ERR_UNAVAILABLE, "too many requests for certificates at a time: try again");
    if (e.code != 0) {
        k->limited += k->leading;
        k->calls->failed(call, &e);
        return;
    }
    struct cad_wait *w = calloc(1, sizeof *w);
    CHECK(w != NULL);
    w->call = call;
    w->req = req;
    w->asker = from->role;
    (void)str_copy(w->peer, sizeof w->peer, from->node);
    (void)str_copy(w->addr, sizeof w->addr, from->addr);
    enqueue(k, w);
}

/* ---- who may have what ---- */

static bool is_manager(struct str doc)
{
    struct str role = cad_text_at(doc, "Role");

    return str_is(role.n ? role : cad_text_at(doc, "Spec.Role"), "manager");
}

static int take_node(struct cad_work *c, struct cad_wait *w, struct str id, struct err *e)
{
    struct str doc;

    if (id.n == 0 || !str_copy(w->node, sizeof w->node, id) || store_get(c->p->snap, KIND_NODE, id, &doc) < 0)
        return err_set(e, ERR_DENIED, REMOVED, STR_ARG(id));
    w->manager = is_manager(doc);
    return 0;
}

static bool availability_ok(struct str s)
{
    return s.n == 0 || str_is(s, "active") || str_is(s, "pause") || str_is(s, "drain");
}

/* by_token - a new node; or, when the answer to the same request was lost, the node that it made. */
static int by_token(struct cad_work *c, struct cad_wait *w, struct err *e)
{
    struct str tokens, doc;

    if (store_get(c->p->snap, KIND_CREDENTIAL, STR(STORE_TOKENS_ID), &tokens) < 0)
        return err_set(e, ERR_UNAVAILABLE, "the join tokens are not made yet: try again");
    if (ca_token_judge(w->req->Token, cad_text_at(tokens, "Worker"), cad_text_at(tokens, "Manager"), &w->manager, e) <
        0)
        return -e->code;
    if (!availability_ok(w->req->Availability))
        return err_set(e, ERR_INVALID, "invalid Availability: \"" STR_FMT "\"", STR_ARG(w->req->Availability));
    if (ca_csr_check(w->req->CSR, w->key, e) < 0)
        return -e->code;
    const char *owner = table_get(&c->k->keys, key_text(w->key));
    if (owner && store_get(c->p->snap, KIND_NODE, str_from(owner), &doc) == 0)
        return take_node(c, w, str_from(owner), e);
    w->fresh = true;
    uint8_t random[17];
    while (!w->fresh_id[0] || store_get(c->p->snap, KIND_NODE, str_from(w->fresh_id), &doc) == 0) {
        c->k->calls->random(random, sizeof random);
        id_from_bytes(random, w->fresh_id);
    }
    memcpy(w->node, w->fresh_id, sizeof w->fresh_id);
    return 0;
}

static int by_proof(struct cad_work *c, struct cad_wait *w, struct err *e)
{
    const struct cad_previous *old = c->root.Previous.v;
    struct str roots[CAD_PREVIOUS_MAX + 2], doc;
    struct cad_cert_doc cert;
    struct ca_info i = { .cn = "" };
    size_t n = 0;

    roots[n++] = c->root.Cert;
    if (c->root.Rotation)
        roots[n++] = c->root.Rotation->NewCert;
    for (size_t k = 0; k < c->root.Previous.n && k < CAD_PREVIOUS_MAX; k++)
        roots[n++] = old[k].Cert;
    int r = ca_proof_check(w->req->OldCert, roots, n, w->req->CSR, w->req->Proof, &i, e);
    if (r == 0 && !str_is(c->id, i.org))
        r = err_set(e, ERR_DENIED, "the old certificate is of another swarm");
    if (r == 0)
        r = take_node(c, w, str_from(i.cn), e);
    /* A root that was replaced may have been stolen: what it signs counts only for keys that we have seen ourselves. */
    if (r == 0 && (store_get(c->p->snap, KIND_NODE, str_from(i.cn), &doc) < 0 ||
                   cad_cert_doc(doc, &cert, c->p->arena, e) < 0 || !cad_knows_key(&cert, i.key)))
        r = err_set(e, ERR_DENIED, "the old certificate is not one that node %s got from this swarm", i.cn);
    memcpy(w->proven, i.key, CA_KEY_DIGEST);
    w->has_proven = r == 0;
    ca_info_done(&i);
    return r;
}

/* by_host - for the node that this cad runs on, and that leads. A swarm that was restored from a backup does not know
 * it yet: it leads under a new name. */
static int by_host(struct cad_work *c, struct cad_wait *w, struct err *e)
{
    struct str doc, id = c->p->meta->node_id;

    if (!c->p->meta->leader || !str_eq(id, c->p->meta->leader_id) || store_get(c->p->snap, KIND_NODE, id, &doc) == 0 ||
        !str_copy(w->node, sizeof w->node, id))
        return take_node(c, w, id, e);
    w->fresh = w->manager = true;
    return 0;
}

static int decide(struct cad_work *c, struct cad_wait *w, struct err *e)
{
    int r;

    w->fresh = w->has_proven = false;
    if (w->asker == RPC_LOCAL)
        r = by_host(c, w, e);
    else if (w->asker != RPC_NOBODY)
        r = take_node(c, w, str_from(w->peer), e);
    else if (w->req->Token.n > 0)
        return by_token(c, w, e);
    else if (w->req->OldCert.n > 0)
        r = by_proof(c, w, e);
    else
        r = err_set(e, ERR_INVALID, "A valid join token is necessary to join this cluster");
    return r < 0 ? r : ca_csr_check(w->req->CSR, w->key, e);
}

/* ---- signing ---- */

static struct ca_leaf leaf_of(const struct cad_work *c, const struct cad_wait *w)
{
    int64_t life_ns = 0;

    (void)mp_get_i64(c->doc, "Spec.CAConfig.NodeCertExpiry", &life_ns);
    return (struct ca_leaf){ .node_id = str_from(w->node),
                             .cluster_id = c->id,
                             .manager = w->manager,
                             .now_s = c->p->now.ns / 1000000000,
                             .life_s = life_ns / 1000000000 };
}

/* sign_outside - 1: the external CA is being asked. */
static int sign_outside(struct cad_work *c, struct cad_wait *w, struct err *e)
{
    struct ca_leaf l = leaf_of(c, w);

    if (w->outside_err.code != 0)
        return err_set(e, ERR_UNAVAILABLE, "%s", w->outside_err.msg);
    if (w->signed_cert.n == 0)
        return cad_outside_sign(c, w, &l) ? 1 : err_set(e, ERR_UNAVAILABLE, "the external CA is busy: try again");
    int r = ca_leaf_check(buf_str(&w->signed_cert), cad_signing_root(&c->root), w->key, &l, e);
    if (r < 0) { /* role or root may have changed while it was signed; the node asks again */
        e->code = ERR_UNAVAILABLE;
        return err_wrap(e, "the external CA's answer");
    }
    buf_put(&w->chain, w->signed_cert.p, w->signed_cert.n);
    if (w->chain.n > 0 && w->chain.p[w->chain.n - 1] != '\n')
        buf_putc(&w->chain, '\n');
    return 0;
}

/* begins - the first certificate of all, in a swarm whose root was made here: as Docker's, it is signed here even when
 * an external CA is set, which can't know that root yet. */
static bool begins(struct cad_work *c, const struct cad_wait *w)
{
    struct cad_cert_doc cert = { 0 };
    struct str doc;
    struct err e = ERR_INIT;

    return w->asker == RPC_LOCAL && !w->fresh && !c->root.Rotation &&
           store_get(c->p->snap, KIND_NODE, str_from(w->node), &doc) == 0 &&
           cad_cert_doc(doc, &cert, c->p->arena, &e) == 0 && cert.Keys.n == 0 &&
           cad_secret(c->p->snap, STORE_CA_KEY_ID).n > 0;
}

static int sign(struct cad_work *c, struct cad_wait *w, struct err *e)
{
    struct str root = cad_signing_root(&c->root);
    struct ca_leaf l = leaf_of(c, w);

    buf_clear(&w->chain);
    if (cad_outside_for(c, root, NULL) &&
        !begins(c, w)) /* no falling back: the key that is here need not be in use any more */
        return sign_outside(c, w, e);
    struct str key = cad_secret(c->p->snap, c->root.Rotation ? STORE_CA_NEXT_ID : STORE_CA_KEY_ID);
    if (key.n == 0)
        return err_set(e, ERR_UNAVAILABLE, "the key of the swarm's root is not here, and no external CA is set");
    return ca_sign(root, key, w->req->CSR, &l, &w->chain, e);
}

/* ---- the node's record ---- */

static void put_fresh(struct buf *b, const struct cad_wait *w)
{
    struct str a = w->req->Availability;

    mp_kv_cstr(b, "ID", w->node);
    mp_cstr(b, "Spec");
    mp_map(b, 3);
    mp_kv_cstr(b, "Role", w->manager ? "manager" : "worker");
    mp_kv_str(b, "Availability", a.n ? a : STR("active"));
    mp_cstr(b, "Labels");
    mp_map(b, 0);
    mp_cstr(b, "Status");
    mp_map(b, w->addr[0] ? 2 : 1);
    mp_kv_cstr(b, "State", "unknown");
    if (w->addr[0])
        mp_kv_cstr(b, "Addr", w->addr);
}

/* write_node - Role and Certificate are ours alone, so nothing but the node's removal can come between. */
static int write_node(struct cad_work *c, struct cad_wait *w, struct err *e)
{
    struct ca_info leaf = { .cn = "" }, issuer = { .cn = "" };
    struct cad_cert_doc cert = { 0 };
    struct str doc = STR("");
    struct buf *b = &c->k->doc;
    int r = ca_info(buf_str(&w->chain), &leaf, e);

    if (r == 0)
        r = ca_info(cad_signing_root(&c->root), &issuer, e);
    if (r == 0 && !w->fresh && store_get(c->p->snap, KIND_NODE, str_from(w->node), &doc) == 0)
        r = cad_cert_doc(doc, &cert, c->p->arena, e);
    if (r < 0)
        goto out;
    cert.Role = w->manager ? STR("manager") : STR("worker");
    cert.Status = STR("issued");
    cert.Issuer = arena_str(c->p->arena, (struct str){ (const char *)issuer.key, CA_KEY_DIGEST });
    if (w->has_proven)
        cert.Keys = cad_add_key(c->p->arena, cert.Keys, w->proven);
    cert.Keys = cad_add_key(c->p->arena, cert.Keys, w->key);
    cert.IssuedAt = c->p->now.ns;
    cert.NotAfter = leaf.not_after_s * 1000000000;
    buf_clear(b);
    mp_map(b, w->fresh ? 5 : 2);
    if (w->fresh)
        put_fresh(b, w);
    mp_kv_str(b, "Role", cert.Role);
    cad_put_cert_doc(b, &cert);
    struct str id = arena_str(&c->p->txn->arena, str_from(w->node));
    if (w->fresh)
        txn_create(c->p->txn, KIND_NODE, id, txn_doc(c->p->txn, b));
    else
        txn_update(c->p->txn, KIND_NODE, id, txn_doc(c->p->txn, b));
out:
    ca_info_done(&leaf);
    ca_info_done(&issuer);
    return r;
}

static int issue(struct cad_work *c, struct cad_wait *w, struct err *e)
{
    int r = sign(c, w, e);

    if (r == 0)
        r = write_node(c, w, e);
    if (r != 0)
        return r;
    cad_put_chain(&w->chain, &c->root);
    buf_clear(&w->trust);
    buf_put(&w->trust, c->root.Cert.p, c->root.Cert.n);
    CHECK(!w->chain.failed && !w->trust.failed && str_copy(w->cluster, sizeof w->cluster, c->id));
    return 0;
}

/* busy - the same node, or the same new key, is in this transaction already. */
static bool busy(const struct cad_keeper *k, const struct cad_wait *w)
{
    for (const struct cad_wait *f = k->flying; f; f = f->next)
        if (strcmp(f->node, w->node) == 0 || memcmp(f->key, w->key, CA_KEY_DIGEST) == 0)
            return true;
    return false;
}

static struct cad_wait *take(struct cad_keeper *k, struct cad_wait **at)
{
    struct cad_wait *w = *at;

    *at = w->next;
    if (k->queue_end == &w->next)
        k->queue_end = at;
    w->next = NULL;
    k->nqueue--;
    return w;
}

void cad_issue_some(struct cad_work *c)
{
    struct cad_keeper *k = c->k;
    unsigned n = 0;

    for (struct cad_wait **at = &k->queue, *w; (w = *at) != NULL;) {
        struct err e = ERR_INIT;
        if (w->outside) {
            at = &w->next;
            continue;
        }
        if (n++ == BATCH) {
            c->p->more = true;
            return;
        }
        int r = decide(c, w, &e);
        if (r == 0 && busy(k, w)) { /* it waits for the next pass, which sees what came of the first */
            c->p->more = true;
            at = &w->next;
            continue;
        }
        if (r == 0)
            r = issue(c, w, &e);
        if (r > 0) {
            at = &w->next;
            continue;
        }
        w = take(k, at);
        if (r < 0) {
            refuse(k, w, &e);
            continue;
        }
        w->next = k->flying;
        k->flying = w;
    }
}

static void answer(struct cad_keeper *k, struct cad_wait *w)
{
    struct cad_issue_reply rep = { .NodeID = str_from(w->node),
                                   .ClusterID = str_from(w->cluster),
                                   .Role = w->manager ? STR("manager") : STR("worker"),
                                   .Chain = buf_str(&w->chain),
                                   .TrustRoot = buf_str(&w->trust) };
    char *owner = table_put(&k->keys, key_text(w->key), NULL);

    (void)str_copy(owner, CAD_ID_SIZE, rep.NodeID);
    k->issued++;
    log_info("issued a certificate node=%s role=" STR_FMT "%s", w->node, STR_ARG(rep.Role),
             w->fresh ? ": it joined by token" : "");
    k->calls->issued(w->call, &rep);
    free_wait(w);
}

void cad_issue_done(struct cad_keeper *k, const struct err *e)
{
    struct cad_wait *w = k->flying;

    k->flying = NULL;
    for (struct cad_wait *next; w; w = next) {
        next = w->next;
        if (e->code == 0) {
            answer(k, w);
        } else if (++w->tries >= TRIES_MAX) {
            refuse(k, w, e);
        } else {
            enqueue(k, w);
        }
    }
}

void cad_issue_drop(struct cad_keeper *k, const struct err *e)
{
    struct cad_wait *lists[] = { k->queue, k->flying };

    k->queue = k->flying = NULL;
    k->queue_end = &k->queue;
    k->nqueue = 0;
    for (size_t i = 0; i < 2; i++)
        for (struct cad_wait *w = lists[i], *next; w; w = next) {
            next = w->next;
            if (e)
                k->calls->failed(w->call, e);
            free_wait(w);
        }
}
