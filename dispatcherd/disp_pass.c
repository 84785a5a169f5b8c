/* disp_pass.c - see disp_pass.h. */
#include "dispatcherd/disp_pass.h"

#include <stdlib.h>

#include "common/daemon/log.h"
#include "common/util/check.h"

#define SCRATCH_BYTES (64u << 20)

/* What the status of a task will be after this pass. */
struct best {
    struct view_task_status status;
    size_t change; /* its place in the transaction, from 1; 0: nothing is written yet */
};

void disp_keeper_init(struct disp_keeper *k, const struct disp_calls *calls)
{
    *k = (struct disp_keeper){ .calls = calls };
    k->queue_end = &k->queue;
    disp_init(&k->core);
    marks_init(&k->down);
    table_init(&k->best, sizeof(struct best));
    arena_init(&k->scratch, SCRATCH_BYTES);
}

static void free_wait(struct disp_wait *w)
{
    free(w->unknown.v);
    free(w);
}

static void fail_polls(struct disp_keeper *k, const char *why)
{
    struct disp_peer *p;
    for (struct table_pos pos = { 0 }; table_next(&k->core.peers, &pos, NULL, &p);)
        if (p->poll) {
            k->calls->failed(p->poll, ERR_GONE, why);
            p->poll = NULL;
        }
}

/* Calls that wait are gone with the server that brought them: the agents ask again. */
void disp_keeper_done(struct disp_keeper *k)
{
    struct disp_wait *lists[] = { k->queue, k->flying };
    struct disp_peer *p;
    for (size_t i = 0; i < 2; i++)
        for (struct disp_wait *w = lists[i], *next; w; w = next) {
            next = w->next;
            free_wait(w);
        }
    for (struct table_pos pos = { 0 }; table_next(&k->core.peers, &pos, NULL, &p);)
        p->poll = NULL;
    disp_done(&k->core);
    marks_done(&k->down);
    table_done(&k->best);
    arena_done(&k->scratch);
    buf_done(&k->doc);
}

/* ---- calls ---- */

static struct disp_wait *enqueue(struct disp_keeper *k, void *call, struct str node)
{
    struct disp_wait *w = calloc(1, sizeof *w);
    CHECK(w != NULL);
    w->call = call;
    (void)str_copy(w->node, sizeof w->node, node);
    *k->queue_end = w;
    k->queue_end = &w->next;
    controller_kick(k->controller);
    return w;
}

/* supersede - an agent that asks again for its session has given up on the call before. */
static void supersede(struct disp_keeper *k, struct str node)
{
    struct disp_wait **at = &k->queue;
    while (*at) {
        struct disp_wait *w = *at;
        if (!w->hello || !str_is(node, w->node)) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        k->calls->failed(w->call, ERR_UNAVAILABLE, "asked again");
        free_wait(w);
    }
    k->queue_end = at;
}

void disp_hello(struct disp_keeper *k, void *call, const struct disp_session *req, struct str node)
{
    supersede(k, node);
    struct disp_wait *w = enqueue(k, call, node);
    w->hello = true;
    w->session = req;
    k->calls->new_id(w->id);
}

#define NO_SESSION "no such session: open a new one"

void disp_report(struct disp_keeper *k, void *call, const struct disp_status *req, struct str node)
{
    struct str owner;
    struct disp_peer *p = disp_find(&k->core, req->SessionID, k->calls->now_ms(), &owner);
    if (!p || (node.n && !str_eq(node, owner))) {
        k->calls->failed(call, ERR_GONE, NO_SESSION);
        return;
    }
    struct disp_wait *w = enqueue(k, call, owner);
    w->status = req;
    k->reports += req->Statuses.n;
}

static void answer_poll(struct disp_keeper *k, struct store_snap *snap, uint64_t revision, struct disp_peer *p,
                        enum disp_answer plan)
{
    struct disp_assignments_reply rep;
    void *call = p->poll;
    p->poll = NULL;
    disp_fill(k, snap, p, table_key(&k->core.peers, p), revision, plan, k->calls->arena(call), &rep);
    k->calls->assigned(call, &rep);
}

/* answer_idle - nothing new within the time asked for. */
static void answer_idle(struct disp_keeper *k, struct disp_peer *p)
{
    struct disp_assignments_reply rep = { .Seq = p->poll_seq };
    void *call = p->poll;
    p->poll = NULL;
    k->calls->assigned(call, &rep);
}

static void look_now(struct disp_keeper *k, struct disp_peer *p, enum disp_answer plan)
{
    struct store_snap *snap;
    struct store_meta m;
    struct err e;
    if (store_begin(controller_store(k->controller), &snap, &e) != 0)
        return; /* the next turn looks again */
    if (store_meta(snap, &m, &e) == 0)
        answer_poll(k, snap, m.revision, p, plan);
    store_end(snap);
}

void disp_poll(struct disp_keeper *k, void *call, const struct disp_assignments *req, struct str node)
{
    uint64_t now = k->calls->now_ms(), wait = req->WaitMs < k->core.period_ms ? req->WaitMs : k->core.period_ms;
    struct str owner;
    struct disp_peer *p = disp_find(&k->core, req->SessionID, now, &owner);
    if (!p || (node.n && !str_eq(node, owner))) {
        k->calls->failed(call, ERR_GONE, NO_SESSION);
        return;
    }
    if (p->poll) /* the agent gave up on it */
        answer_idle(k, p);
    p->poll = call;
    p->poll_seq = req->Seq;
    p->poll_until_ms = now + wait;
    enum disp_answer plan = disp_plan(p, req->Seq);
    if (plan != DISP_NOTHING)
        look_now(k, p, plan);
    else if (wait == 0)
        answer_idle(k, p);
}

uint64_t disp_tick(struct disp_keeper *k)
{
    uint64_t now = k->calls->now_ms();
    struct disp_peer *p;
    struct str node;
    while (disp_expire(&k->core, now, &node)) {
        p = table_get(&k->core.peers, node);
        if (p->poll) {
            k->calls->failed(p->poll, ERR_GONE, "session expired");
            p->poll = NULL;
        }
        log_warn("node=" STR_FMT " was silent for %u heartbeats: down", STR_ARG(node), DISP_GRACE);
        k->nodes_lost++;
        marks_add(&k->down, node);
        controller_kick(k->controller);
    }
    for (struct table_pos pos = { 0 }; table_next(&k->core.peers, &pos, NULL, &p);)
        if (p->poll && p->poll_until_ms <= now)
            answer_idle(k, p);
    return disp_next_ms(&k->core);
}

/* ---- what changed ---- */

static void learn_period(struct disp_keeper *k, struct str doc)
{
    int64_t ns = 0;
    (void)mp_get_i64(doc, "Spec.Dispatcher.HeartbeatPeriod", &ns);
    k->core.period_ms = ns >= 1000000 ? (uint64_t)ns / 1000000 : 5000;
}

static void learn_node(struct disp_keeper *k, struct str id, struct str doc)
{
    struct str state;
    if (mp_get_str(doc, "Status.State", &state) && !str_is(state, "down"))
        disp_watch(&k->core, id, k->calls->now_ms());
}

static void forget_node(struct disp_keeper *k, struct str id)
{
    struct disp_peer *p = table_get(&k->core.peers, id);
    if (p && p->poll) {
        k->calls->failed(p->poll, ERR_GONE, "the node was removed from the swarm");
        p->poll = NULL;
    }
    disp_forget(&k->core, id);
}

static void on_reload(void *arg, struct store_snap *snap, const struct store_meta *meta)
{
    struct disp_keeper *k = arg;
    struct store_iter it;
    struct disp_peer *p;
    struct str id, doc;
    (void)meta;
    for (struct table_pos pos = { 0 }; table_next(&k->core.peers, &pos, &id, &p);) {
        p->resync = true;
        if (store_get(snap, KIND_NODE, id, &doc) != 0)
            forget_node(k, id);
    }
    for (store_each(snap, KIND_CLUSTER, &it); store_next(&it);)
        learn_period(k, it.doc);
    for (store_each(snap, KIND_NODE, &it); store_next(&it);)
        learn_node(k, it.id, it.doc);
}

static void on_change(void *arg, struct store_snap *snap, enum kind kind, struct str id, char op)
{
    struct disp_keeper *k = arg;
    struct str doc;
    bool there = store_get(snap, kind, id, &doc) == 0;
    (void)op;
    if (kind == KIND_TASK && there)
        disp_note_task(k, id, doc);
    else if (kind == KIND_TASK)
        disp_task_gone(&k->core, id);
    else if (kind == KIND_NODE && there)
        learn_node(k, id, doc);
    else if (kind == KIND_NODE)
        forget_node(k, id);
    else if (kind == KIND_CLUSTER && there)
        learn_period(k, doc);
}

static void on_seen(void *arg, struct store_snap *snap, const struct store_meta *meta)
{
    struct disp_keeper *k = arg;
    struct disp_peer *p;
    for (struct table_pos pos = { 0 }; table_next(&k->core.peers, &pos, NULL, &p);) {
        enum disp_answer plan = p->poll ? disp_plan(p, p->poll_seq) : DISP_NOTHING;
        if (plan != DISP_NOTHING)
            answer_poll(k, snap, meta->revision, p, plan);
    }
}

/* ---- reports ---- */

static struct view_container_status *container_of(struct arena *a, const struct task_status *s)
{
    struct view_container_status *c = arena_alloc(a, sizeof *c);
    CHECK(c != NULL);
    *c = (struct view_container_status){ s->ContainerID, s->PID, s->ExitCode };
    return c;
}

/* status_now - what the task's status is, or will be after the earlier reports of this pass; NULL: not this node's. */
static struct best *status_now(struct disp_keeper *k, struct controller_pass *p, struct str task, struct str node)
{
    struct best *best = table_get(&k->best, task);
    struct view_task v;
    struct str doc;
    struct err e;
    if (best)
        return best;
    if (store_get(p->snap, KIND_TASK, task, &doc) != 0 || view_task(doc, &v, p->arena, &e) != 0 ||
        !str_eq(v.NodeID, node))
        return NULL;
    best = table_put(&k->best, task, NULL);
    best->status = v.Status;
    return best;
}

static void put_port_status(struct buf *b, const struct list *l)
{
    const struct task_port *t = l->v;
    mp_cstr(b, "PortStatus");
    mp_map(b, 1);
    mp_cstr(b, "Ports");
    mp_array(b, l->n);
    for (size_t i = 0; i < l->n; i++) {
        mp_map(b, 4);
        mp_kv_str(b, "Protocol", t[i].Protocol);
        mp_kv_u64(b, "TargetPort", t[i].TargetPort);
        mp_kv_u64(b, "PublishedPort", t[i].PublishedPort);
        mp_kv_str(b, "PublishMode", t[i].PublishMode);
    }
}

static struct str status_doc(struct disp_keeper *k, struct controller_pass *p, const struct task_status *s)
{
    struct buf *b = &k->doc;
    buf_clear(b);
    mp_map(b, 1);
    mp_cstr(b, "Status");
    mp_map(b, 4 + (s->Err.n != 0) + s->HasContainer + (s->Ports.n != 0));
    mp_kv_str(b, "State", s->State);
    mp_kv_str(b, "Message", s->Message);
    if (s->Err.n)
        mp_kv_str(b, "Err", s->Err);
    mp_kv_i64(b, "Timestamp", s->Timestamp);
    mp_kv_i64(b, "AppliedAt", p->now.ns);
    if (s->HasContainer) {
        mp_cstr(b, "ContainerStatus");
        mp_map(b, 3);
        mp_kv_str(b, "ContainerID", s->ContainerID);
        mp_kv_u64(b, "PID", s->PID);
        mp_kv_i64(b, "ExitCode", s->ExitCode);
    }
    if (s->Ports.n)
        put_port_status(b, &s->Ports);
    return txn_doc(p->txn, b);
}

static bool agent_state(enum task_state s)
{
    return s >= TASK_ACCEPTED && s <= TASK_REJECTED;
}

static void take_report(struct disp_keeper *k, struct controller_pass *p, struct disp_wait *w,
                        const struct task_status *s)
{
    enum task_state state = task_state_parse(s->State);
    struct best *now = status_now(k, p, s->TaskID, str_from(w->node));
    if (!now) {
        w->unknown.v[w->unknown.n++] = s->TaskID;
        return;
    }
    if (!agent_state(state) ||
        !disp_report_counts(&now->status, state, s->Message, s->Err, s->ContainerID, s->PID, s->ExitCode)) {
        k->ignored++;
        return;
    }
    now->status = (struct view_task_status){
        .State = s->State, .Message = s->Message, .Err = s->Err, .ContainerStatus = container_of(p->arena, s)
    };
    struct str doc = status_doc(k, p, s);
    if (now->change) { /* the states in between need not be stored */
        p->txn->chg[now->change - 1].Doc = doc;
        return;
    }
    txn_merge(p->txn, KIND_TASK, s->TaskID, doc);
    now->change = p->txn->nchg;
}

static void take_status(struct disp_keeper *k, struct controller_pass *p, struct disp_wait *w)
{
    const struct task_status *s = w->status->Statuses.v;
    w->unknown.v = realloc(w->unknown.v, (w->status->Statuses.n + 1) * sizeof *w->unknown.v);
    CHECK(w->unknown.v != NULL);
    w->unknown.n = 0;
    for (size_t i = 0; i < w->status->Statuses.n; i++)
        take_report(k, p, w, &s[i]);
}

/* ---- nodes ---- */

static void put_node_status(struct buf *b, const char *state, const char *message, struct str addr)
{
    mp_cstr(b, "Status");
    mp_map(b, 1 + (message[0] != 0) + (addr.n != 0));
    mp_kv_cstr(b, "State", state);
    if (message[0])
        mp_kv_cstr(b, "Message", message);
    if (addr.n)
        mp_kv_str(b, "Addr", addr);
}

/* take_hello - the node is ready, and this is what it is. A node of this swarm without a record gets one only if it is
 * this manager's own; others come through their certificate. */
static void take_hello(struct disp_keeper *k, struct controller_pass *p, struct disp_wait *w)
{
    struct buf *b = &k->doc;
    struct str id, doc = STR(""), stored = STR(""), state = STR(""), addr = STR("");
    bool own = w->node[0] == 0 || str_is(p->meta->node_id, w->node);
    if (own)
        (void)str_copy(w->node, sizeof w->node, p->meta->node_id);
    id = arena_str(&p->txn->arena, str_from(w->node));
    bool known = store_get(p->snap, KIND_NODE, id, &doc) == 0;
    w->vanished = !known && !own;
    if (w->vanished)
        return;
    (void)mp_find(doc, "Description", &stored);
    (void)mp_get_str(doc, "Status.State", &state);
    (void)mp_get_str(doc, "Status.Addr", &addr);
    struct str new_addr = w->session->Addr.n ? w->session->Addr : addr;
    if (known && str_is(state, "ready") && str_eq(stored, w->session->Description) && str_eq(addr, new_addr))
        return;
    buf_clear(b);
    mp_map(b, known ? 2 : 4);
    if (!known) {
        mp_kv_str(b, "ID", id);
        mp_cstr(b, "Spec");
        mp_map(b, 3);
        mp_kv_cstr(b, "Role", "manager");
        mp_kv_cstr(b, "Availability", "active");
        mp_cstr(b, "Labels");
        mp_map(b, 0);
    }
    mp_kv_raw(b, "Description", w->session->Description);
    put_node_status(b, "ready", "", new_addr);
    if (known)
        txn_merge(p->txn, KIND_NODE, id, txn_doc(p->txn, b));
    else
        txn_create(p->txn, KIND_NODE, id, txn_doc(p->txn, b));
}

static void write_down(struct disp_keeper *k, struct controller_pass *p, struct str id)
{
    struct disp_peer *peer = table_get(&k->core.peers, id);
    struct str doc, addr = STR("");
    if (store_get(p->snap, KIND_NODE, id, &doc) != 0 || (peer && peer->session[0]))
        return; /* it is back already */
    (void)mp_get_str(doc, "Status.Addr", &addr);
    buf_clear(&k->doc);
    mp_map(&k->doc, 1);
    put_node_status(&k->doc, "down", "heartbeat failure", addr);
    txn_merge(p->txn, KIND_NODE, id, txn_doc(p->txn, &k->doc));
}

/* ---- the pass ---- */

static void on_pass(void *arg, struct controller_pass *p)
{
    struct disp_keeper *k = arg;
    struct str id;
    table_clear(&k->best);
    CHECK(k->flying == NULL);
    k->flying = k->queue;
    k->queue = NULL;
    k->queue_end = &k->queue;
    while (marks_pop(&k->down, &id))
        write_down(k, p, id);
    for (struct disp_wait *w = k->flying; w; w = w->next)
        if (w->hello)
            take_hello(k, p, w);
        else
            take_status(k, p, w);
}

static void finish(struct disp_keeper *k, struct disp_wait *w)
{
    if (!w->hello) {
        struct disp_status_reply rep = { .Unknown = w->unknown };
        k->calls->stored(w->call, &rep);
        return;
    }
    if (w->vanished) {
        k->calls->failed(w->call, ERR_NOT_FOUND, "node not found");
        return;
    }
    struct disp_peer *p = table_get(&k->core.peers, str_from(w->node));
    if (p && p->poll) {
        k->calls->failed(p->poll, ERR_GONE, "a newer session was opened");
        p->poll = NULL;
    }
    disp_open(&k->core, str_from(w->node), w->id, k->calls->now_ms());
    log_info("node=%s opened a session", w->node);
    struct disp_session_reply rep = { .NodeID = str_from(w->node),
                                      .SessionID = str_from(w->id),
                                      .HeartbeatMs = k->core.period_ms };
    k->calls->opened(w->call, &rep);
}

static void on_done(void *arg, const struct err *e)
{
    struct disp_keeper *k = arg;
    struct disp_wait *w = k->flying, *last = NULL;
    k->flying = NULL;
    marks_settle(&k->down, e->code == 0);
    if (e->code == 0) {
        for (struct disp_wait *next; w; w = next) {
            next = w->next;
            finish(k, w);
            free_wait(w);
        }
        return;
    }
    for (last = w; last && last->next;) /* in front of what came since */
        last = last->next;
    if (last) {
        last->next = k->queue;
        if (!k->queue)
            k->queue_end = &last->next;
        k->queue = w;
    }
}

static void on_standby(void *arg)
{
    struct disp_keeper *k = arg;
    fail_polls(k, "this manager does not lead");
    disp_clear(&k->core);
    marks_clear(&k->down);
    /* what waits stays: a session is opened as soon as this manager leads again, reports fail by their session */
}

const struct controller_ops disp_ops = {
    .name = "dispatcherd",
    .secrets = true,
    .reload = on_reload,
    .change = on_change,
    .seen = on_seen,
    .pass = on_pass,
    .done = on_done,
    .standby = on_standby,
};
