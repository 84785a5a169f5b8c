/* disp_netpass.c - the calls of meshds: kept until there is news for their node, and answered a few at a time. */
#include <inttypes.h>
#include <stdlib.h>

#include "common/daemon/log.h"
#include "common/util/check.h"
#include "dispatcherd/disp_pass.h"

#define ANSWER_BYTES (1u << 30)  /* of memory for one answer */
#define SHARED_KEEP (256u << 10) /* an answer of this size stays for the next turn, as memory */

void disp_net_init(struct disp_keeper *k)
{
    dnet_init(&k->net);
    arena_init(&k->net_arena, ANSWER_BYTES);
}

static void wipe(struct disp_shared *s)
{
    if (s->secret && s->body.p)
        explicit_bzero(s->body.p, s->body.cap);
    s->secret = false;
}

void disp_net_done(struct disp_keeper *k)
{
    while (dnet_withdraw_any(&k->net)) /* gone with the server that brought them */
        ;
    dnet_done(&k->net);
    arena_done(&k->net_arena);
    for (size_t i = 0; i < DISP_SHARED; i++) {
        wipe(&k->shared[i]);
        buf_done(&k->shared[i].sign);
        buf_done(&k->shared[i].body);
    }
}

/* disp_net_fail - nobody waits any more. */
void disp_net_fail(struct disp_keeper *k, const char *why)
{
    void *call;
    while ((call = dnet_withdraw_any(&k->net)))
        k->calls->failed(call, ERR_UNAVAILABLE, why);
}

/* ---- answers ---- */

static void forget_shared(struct disp_keeper *k)
{
    for (size_t i = 0; i < DISP_SHARED; i++) {
        wipe(&k->shared[i]);
        if (k->shared[i].body.cap > SHARED_KEEP)
            buf_done(&k->shared[i].body);
        buf_clear(&k->shared[i].sign);
    }
}

/* shared_for - where the answer for whoever is in this position is, or belongs. */
static struct disp_shared *shared_for(struct disp_keeper *k, const struct dnet_node *n, bool *ret_there)
{
    struct disp_shared *s = &k->shared[k->shared_at++ % DISP_SHARED];
    struct buf *sign = &k->doc;
    buf_clear(sign);
    *ret_there = false;
    if (!dnet_sign(&k->net, n, sign)) {
        buf_clear(&s->sign);
        return s;
    }
    for (size_t i = 0; i < DISP_SHARED; i++)
        if (k->shared[i].sign.n && str_eq(buf_str(&k->shared[i].sign), buf_str(sign))) {
            *ret_there = true;
            k->shared_at--;
            return &k->shared[i];
        }
    buf_clear(&s->sign);
    buf_put(&s->sign, sign->p, sign->n);
    return s;
}

static void encode(struct disp_keeper *k, struct store_snap *snap, struct dnet_node *n, struct disp_shared *s)
{
    struct disp_network_reply rep;
    wipe(s);
    arena_reset(&k->net_arena);
    dnet_fill(&k->net, snap, n, &k->net_arena, &rep);
    buf_clear(&s->body);
    fields_encode(&rep, op_disp_network.rep, &s->body);
    s->secret = rep.Keys.n != 0;
    k->net_fulls += rep.Full;
}

static void answer(struct disp_keeper *k, struct store_snap *snap, struct dnet_node *n)
{
    bool there;
    struct disp_shared *s = shared_for(k, n, &there);
    if (!there)
        encode(k, snap, n, s);
    void *call = dnet_answered(&k->net, n);
    k->net_answers++;
    k->net_shared += there;
    k->net_bytes += s->body.n;
    dnet_spent(&k->net, s->body.n, there);
    if (s->body.failed) {
        buf_clear(&s->sign);
        k->calls->failed(call, ERR_TOO_BIG, "the networks of this node do not fit into one answer");
    } else {
        k->calls->networks(call, buf_str(&s->body));
    }
}

static void answer_due(struct disp_keeper *k, struct store_snap *snap)
{
    struct dnet_node *n;
    while ((n = dnet_next(&k->net, k->calls->now_ms())))
        answer(k, snap, n);
}

/* disp_net_seen - every change of this turn was told. */
void disp_net_seen(struct disp_keeper *k, struct store_snap *snap, uint64_t revision)
{
    if (revision != k->net.revision)
        forget_shared(k);
    dnet_turn(&k->net, revision);
    dnet_settle(&k->net);
    answer_due(k, snap);
}

static struct store_snap *look(struct disp_keeper *k)
{
    struct store_snap *snap;
    struct err e;
    return store_begin(controller_store(k->controller), &snap, &e) == 0 ? snap : NULL;
}

/* tell_drained - agents hear at once that a task may stop. */
static void tell_drained(struct disp_keeper *k)
{
    struct str task;
    bool any = false;
    while (dnet_drained(&k->net, &task)) {
        disp_task_gone(&k->core, task); /* it is not; but its node must hear of it */
        any = true;
    }
    if (any)
        disp_answer_hot(k);
}

/* go_on - whatever can be said now. Not during a turn: there can be one snapshot at a time. */
static void go_on(struct disp_keeper *k)
{
    tell_drained(k);
    if (dnet_next(&k->net, k->calls->now_ms()) == NULL)
        return;
    struct store_snap *snap = look(k);
    if (snap) /* else the next turn answers, or the end of leadership */
        answer_due(k, snap);
    store_end(snap);
}

void disp_network(struct disp_keeper *k, void *call, const struct disp_network *req, struct str node)
{
    struct str who = node.n ? node : str_from(k->self);
    void *before;
    uint64_t before_seq;
    if (!k->active) {
        k->calls->failed(call, ERR_UNAVAILABLE, "this manager does not lead");
        return;
    }
    if (!dnet_ask(&k->net, who, call, req, k->calls->now_ms(), &before, &before_seq)) {
        k->calls->failed(call, ERR_NOT_FOUND, "node not found: it is not, or not any more, part of this swarm");
        return;
    }
    if (before) /* meshd gave up on it */
        k->calls->failed(before, ERR_CONFLICT, "asked again");
    k->net_asks++;
    go_on(k);
}

void disp_net_tick(struct disp_keeper *k)
{
    uint64_t late = k->net.late;
    dnet_tick(&k->net, k->calls->now_ms());
    if (k->net.late != late)
        log_warn("%" PRIu64 " tasks are stopped although not every node has confirmed that it sends them nothing",
                 k->net.late - late);
    if (k->active)
        go_on(k);
}

/* ---- what changed ---- */

void disp_net_reload(struct disp_keeper *k, struct store_snap *snap, uint64_t revision)
{
    struct store_iter it;
    struct str doc;
    disp_net_fail(k, "asked too early: again");
    forget_shared(k);
    dnet_load(&k->net, snap, revision);
    if (store_get(snap, KIND_CREDENTIAL, STR(STORE_NETWORK_KEYS_ID), &doc) == 0)
        dnet_note_keys(&k->net, doc);
    for (store_each(snap, KIND_NETWORK, &it); store_next(&it);)
        dnet_note_network(&k->net, it.id, it.doc);
    for (store_each(snap, KIND_SERVICE, &it); store_next(&it);)
        dnet_note_service(&k->net, it.id, it.doc);
}

void disp_net_change(struct disp_keeper *k, struct store_snap *snap, enum kind kind, struct str id, struct str doc)
{
    struct store_meta m;
    struct err e;
    if (!k->net_turning && store_meta(snap, &m, &e) == 0) {
        if (m.revision != k->net.revision)
            forget_shared(k);
        dnet_turn(&k->net, m.revision);
    }
    k->net_turning = true;
    if (kind == KIND_TASK)
        dnet_note_task(&k->net, id, doc, k->calls->now_ms());
    else if (kind == KIND_SERVICE)
        dnet_note_service(&k->net, id, doc);
    else if (kind == KIND_NETWORK)
        dnet_note_network(&k->net, id, doc);
    else if (kind == KIND_CREDENTIAL && str_is(id, STORE_NETWORK_KEYS_ID))
        dnet_note_keys(&k->net, doc);
    else if (kind == KIND_NODE)
        dnet_note_node(&k->net, id, doc);
}
