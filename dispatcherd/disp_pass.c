/* disp_pass.c - see disp_pass.h. */
#include "dispatcherd/disp_pass.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/daemon/daemon.h"
#include "common/daemon/log.h"
#include "common/util/check.h"

#define SCRATCH_BYTES (64u << 20)
#define SECOND_NS 1000000000ll

/* What the status of a task will be after this pass. */
struct best {
    struct str node; /* whose task it is */
    struct view_task_status status;
    size_t change; /* its place in the transaction, from 1; 0: nothing is written yet */
};

void disp_keeper_init(struct disp_keeper *k, const struct disp_calls *calls)
{
    *k = (struct disp_keeper){ .calls = calls,
                               .flap = { 3, 600 * SECOND_NS, 30 * SECOND_NS, 600 * SECOND_NS },
                               .orphan_after_ns = 300 * SECOND_NS };
    k->queue_end = &k->queue;
    disp_init(&k->core);
    marks_init(&k->lost);
    marks_init(&k->gone);
    table_init(&k->loss, sizeof(struct disp_lost));
    table_init(&k->orphans, sizeof(int64_t));
    table_init(&k->holds, sizeof(int64_t));
    table_init(&k->best, sizeof(struct best));
    arena_init(&k->scratch, SCRATCH_BYTES);
    usages_init(&k->usages);
    table_init(&k->scaling, sizeof(uint64_t));
    disp_net_init(k);
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
    disp_net_done(k);
    disp_done(&k->core);
    marks_done(&k->lost);
    marks_done(&k->gone);
    table_done(&k->loss);
    table_done(&k->orphans);
    table_done(&k->holds);
    table_done(&k->best);
    usages_done(&k->usages);
    table_done(&k->scaling);
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
    if (k->active)
        controller_kick(k->controller);
    return w;
}

/* drop_waits - those that `bad` picks fail. */
static void drop_waits(struct disp_keeper *k, bool (*bad)(const struct disp_wait *w, const void *arg), const void *arg,
                       const char *why)
{
    struct disp_wait **at = &k->queue;
    while (*at) {
        struct disp_wait *w = *at;
        if (!bad(w, arg)) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        k->calls->failed(w->call, w->hello ? ERR_UNAVAILABLE : ERR_GONE, why);
        free_wait(w);
    }
    k->queue_end = at;
}

static bool hello_of(const struct disp_wait *w, const void *arg)
{
    return w->hello && str_is(*(const struct str *)arg, w->node);
}

static bool any_wait(const struct disp_wait *w, const void *arg)
{
    (void)arg;
    return w->call != NULL;
}

static bool overdue(const struct disp_wait *w, const void *arg)
{
    return w->until_ms <= *(const uint64_t *)arg;
}

#define NOT_LEADING "this manager does not lead"
#define LEAD_WAIT_MS 1000u

void disp_hello(struct disp_keeper *k, void *call, const struct disp_session *req, struct str node, struct str addr)
{
    struct err e = ERR_INIT;
    if (disp_check_description(req->Description, k->calls->arena(call), &e) != 0) {
        k->calls->failed(call, ERR_INVALID, e.msg);
        return;
    }
    drop_waits(k, hello_of, &node, "asked again"); /* the agent has given up on the call before */
    struct disp_wait *w = enqueue(k, call, node);
    w->hello = true;
    w->session = req;
    w->until_ms = k->calls->now_ms() + LEAD_WAIT_MS;
    if (!str_copy(w->addr, sizeof w->addr, addr.n ? addr : req->Addr))
        w->addr[0] = 0;
    k->calls->new_id(w->id);
}

struct disp_peer *disp_peer_of_call(struct disp_keeper *k, struct str session, struct str node, struct str *ret_owner)
{
    struct str who = node.n ? node : str_from(k->self);
    const char *owner = table_get(&k->core.sessions, session);
    if (!owner || !str_is(who, owner))
        return NULL;
    return disp_find(&k->core, session, k->calls->now_ms(), ret_owner);
}

void disp_report(struct disp_keeper *k, void *call, const struct disp_status *req, struct str node)
{
    struct str owner;
    if (!disp_peer_of_call(k, req->SessionID, node, &owner)) {
        k->calls->failed(call, ERR_GONE, DISP_NO_SESSION);
        return;
    }
    struct disp_wait *w = enqueue(k, call, owner);
    w->status = req;
    k->reports += req->Statuses.n;
}

void disp_hint(struct disp_keeper *k, struct str node, bool up)
{
    disp_link(&k->core, node, up, k->calls->now_ms());
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
    if (store_begin(controller_store(k->controller), &snap, &e) != 0) {
        disp_resync(&k->core, p); /* the next turn looks again */
        return;
    }
    if (store_meta(snap, &m, &e) == 0)
        answer_poll(k, snap, m.revision, p, plan);
    else
        disp_resync(&k->core, p);
    store_end(snap);
}

void disp_poll(struct disp_keeper *k, void *call, const struct disp_assignments *req, struct str node)
{
    struct str owner;
    struct disp_peer *p = disp_peer_of_call(k, req->SessionID, node, &owner);
    if (!p) {
        k->calls->failed(call, ERR_GONE, DISP_NO_SESSION);
        return;
    }
    if (p->poll) /* the agent gave up on it */
        answer_idle(k, p);
    uint64_t wait = req->WaitMs < p->heartbeat_ms ? req->WaitMs : p->heartbeat_ms;
    disp_poll_wait(&k->core, p, call, req->Seq, k->calls->now_ms() + wait);
    enum disp_answer plan = disp_plan(p, req->Seq);
    if (plan != DISP_NOTHING)
        look_now(k, p, plan);
    else if (wait == 0)
        answer_idle(k, p);
}

#define CONFIRM_AGAIN_MS 200u

static void confirm(struct disp_keeper *k)
{
    struct disp_lost *l;
    k->confirm_at_ms = 0;
    if (k->confirming || k->loss.count == 0 || !k->active)
        return;
    for (struct table_pos pos = { 0 }; table_next(&k->loss, &pos, NULL, &l);)
        l->asked = true;
    k->confirming = true;
    k->calls->confirm(k, ++k->round);
}

void disp_confirmed(struct disp_keeper *k, uint64_t round, bool ok)
{
    struct disp_lost *l;
    struct str node;
    bool more = false;
    if (!k->confirming || round != k->round)
        return;
    k->confirming = false;
    for (struct table_pos pos = { 0 }; table_next(&k->loss, &pos, &node, &l);) {
        if (ok && l->asked)
            marks_add(&k->lost, node);
        else
            more = true;
        l->asked = false;
    }
    if (ok)
        controller_kick(k->controller);
    if (more && !ok)
        k->confirm_at_ms = k->calls->now_ms() + CONFIRM_AGAIN_MS;
    else if (more)
        confirm(k);
}

static void lose(struct disp_keeper *k, struct str node, enum disp_loss why)
{
    struct disp_lost *l = table_put(&k->loss, node, NULL);
    *l = (struct disp_lost){ .why = why };
}

uint64_t disp_due(const struct disp_keeper *k)
{
    uint64_t at = disp_next_ms(&k->core);
    uint64_t net = dnet_due(&k->net, k->calls->now_ms());
    if (net < at)
        at = net;
    if (k->confirm_at_ms && k->confirm_at_ms < at)
        at = k->confirm_at_ms;
    for (const struct disp_wait *w = k->active ? NULL : k->queue; w; w = w->next)
        if (w->until_ms < at)
            at = w->until_ms;
    return at;
}

uint64_t disp_tick(struct disp_keeper *k)
{
    uint64_t now = k->calls->now_ms(), silent;
    enum disp_due due;
    struct str node;
    while ((due = disp_expire(&k->core, now, &node, &silent)) != DISP_DUE_NOTHING) {
        struct disp_peer *p = table_get(&k->core.peers, node);
        if (due == DISP_DUE_POLL) {
            answer_idle(k, p);
            continue;
        }
        if (due == DISP_DUE_DOWN && p->poll) {
            k->calls->failed(p->poll, ERR_GONE, "session expired");
            p->poll = NULL;
        }
        log_warn("node=" STR_FMT " was silent for %" PRIu64 " ms: %s", STR_ARG(node), silent,
                 due == DISP_DUE_DOWN ? "down" : "unknown");
        k->nodes_lost += due == DISP_DUE_DOWN;
        if (due == DISP_DUE_DOWN)
            dnet_live(&k->net, node, false, now);
        lose(k, node, due == DISP_DUE_DOWN ? DISP_LOSS_SILENT : DISP_LOSS_UNKNOWN);
    }
    if (!k->active)
        drop_waits(k, overdue, &now, NOT_LEADING);
    if (k->confirm_at_ms <= now)
        confirm(k);
    disp_net_tick(k);
    return disp_due(k);
}

/* ---- what changed ---- */

static void learn_period(struct disp_keeper *k, struct str doc)
{
    int64_t ns = 0;
    (void)mp_get_i64(doc, "Spec.Dispatcher.HeartbeatPeriod", &ns);
    k->core.period_ms = ns >= 1000000 ? (uint64_t)ns / 1000000 : 5000;
}

/* learn_node - a node without a session is down already, or must open one soon. */
static void learn_node(struct disp_keeper *k, struct str id, struct str doc)
{
    struct str state;
    struct disp_lost *l = table_get(&k->loss, id);
    disp_learn_node(k, id, doc);
    if (l && mp_get_str(doc, "Status.State", &state) && str_is(state, l->why == DISP_LOSS_UNKNOWN ? "unknown" : "down"))
        table_del(&k->loss, id); /* it is stored */
    if (mp_get_str(doc, "Status.State", &state) && !str_is(state, "down"))
        disp_watch(&k->core, id, k->calls->now_ms());
    const struct disp_peer *p = table_get(&k->core.peers, id);
    dnet_live(&k->net, id, p && p->deadline_ms, k->calls->now_ms());
}

static void forget_node(struct disp_keeper *k, struct str id)
{
    struct disp_peer *p = table_get(&k->core.peers, id);
    if (p && p->poll) {
        k->calls->failed(p->poll, ERR_GONE, "the node was removed from the swarm");
        p->poll = NULL;
    }
    void *call = dnet_withdraw(&k->net, id);
    if (call)
        k->calls->failed(call, ERR_NOT_FOUND, "the node was removed from the swarm");
    disp_forget(&k->core, id);
    table_del(&k->loss, id);
    table_del(&k->orphans, id);
    table_del(&k->holds, id);
    marks_add(&k->gone, id);
}

static void lead(struct disp_keeper *k, const struct store_meta *meta)
{
    k->active = true;
    if (!str_copy(k->self, sizeof k->self, meta->node_id))
        k->self[0] = 0;
}

/* note_task - a node must hear of it; when there is no such node, nobody will ever report about it. */
static void note_task(struct disp_keeper *k, struct store_snap *snap, struct str id, struct str doc)
{
    struct str node, none;
    disp_note_task(k, id, doc);
    if (mp_get_str(doc, "NodeID", &node) && node.n && !table_get(&k->core.peers, node) &&
        store_get(snap, KIND_NODE, node, &none) != 0)
        marks_add(&k->gone, node);
}

static void on_reload(void *arg, struct store_snap *snap, const struct store_meta *meta)
{
    struct disp_keeper *k = arg;
    struct store_iter it;
    struct disp_peer *p;
    struct str id, doc;
    size_t n = 0;
    lead(k, meta);
    table_clear(&k->orphans);
    table_clear(&k->holds);
    for (struct table_pos pos = { 0 }; table_next(&k->core.peers, &pos, &id, &p);) {
        disp_resync(&k->core, p);
        if (store_get(snap, KIND_NODE, id, &doc) != 0)
            forget_node(k, id);
    }
    for (store_each(snap, KIND_CLUSTER, &it); store_next(&it);)
        learn_period(k, it.doc);
    disp_net_reload(k, snap, meta->revision);
    usages_clear(&k->usages);
    for (store_each(snap, KIND_SERVICE, &it); store_next(&it);)
        disp_note_scaling(k, snap, it.id, it.doc);
    for (store_each(snap, KIND_NODE, &it); store_next(&it);) {
        dnet_note_node(&k->net, it.id, it.doc);
        learn_node(k, it.id, it.doc);
    }
    for (store_each(snap, KIND_TASK, &it); store_next(&it);) {
        if (n++ % 4096 == 0)
            daemon_busy();
        dnet_note_task(&k->net, it.id, it.doc, k->calls->now_ms());
        note_task(k, snap, it.id, it.doc);
    }
    dnet_loaded(&k->net);
}

static void on_change(void *arg, struct store_snap *snap, enum kind kind, struct str id, char op)
{
    struct disp_keeper *k = arg;
    struct str doc;
    bool there = store_get(snap, kind, id, &doc) == 0;
    (void)op;
    if (kind == KIND_NODE && !there)
        forget_node(k, id);
    if (!there)
        doc = STR("");
    disp_net_change(k, snap, kind, id, doc);
    if (kind == KIND_TASK)
        disp_note_use(k, id, doc);
    if (kind == KIND_TASK && there)
        note_task(k, snap, id, doc);
    else if (kind == KIND_TASK)
        disp_task_gone(&k->core, id);
    else if (kind == KIND_SERVICE)
        disp_note_scaling(k, snap, id, doc);
    else if (kind == KIND_NODE && there)
        learn_node(k, id, doc);
    else if (kind == KIND_CLUSTER && there)
        learn_period(k, doc);
}

static void answer_hot(struct disp_keeper *k, struct store_snap *snap, uint64_t revision)
{
    struct disp_peer *p;
    while ((p = disp_hot(&k->core))) {
        enum disp_answer plan = p->poll ? disp_plan(p, p->poll_seq) : DISP_NOTHING;
        if (plan != DISP_NOTHING)
            answer_poll(k, snap, revision, p, plan);
    }
}

void disp_answer_hot(struct disp_keeper *k)
{
    struct store_snap *snap;
    struct store_meta m;
    struct err e;
    if (store_begin(controller_store(k->controller), &snap, &e) != 0)
        return; /* the next turn answers */
    if (store_meta(snap, &m, &e) == 0)
        answer_hot(k, snap, m.revision);
    store_end(snap);
}

static void on_seen(void *arg, struct store_snap *snap, const struct store_meta *meta)
{
    struct disp_keeper *k = arg;
    struct str task;
    lead(k, meta);
    disp_net_seen(k, snap, meta->revision);
    k->net_turning = false;
    while (dnet_drained(&k->net, &task))
        disp_task_gone(&k->core, task); /* its node must hear of it */
    answer_hot(k, snap, meta->revision);
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
        return str_eq(best->node, node) ? best : NULL;
    if (store_get(p->snap, KIND_TASK, task, &doc) != 0 || view_task(doc, &v, p->arena, &e) != 0 ||
        !str_eq(v.NodeID, node))
        return NULL;
    best = table_put(&k->best, task, NULL);
    best->node = v.NodeID;
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

/* status_doc - running_at: since when it ran before this report; 0: it did not. */
static struct str status_doc(struct disp_keeper *k, struct controller_pass *p, const struct task_status *s,
                             int64_t running_at)
{
    struct buf *b = &k->doc;
    buf_clear(b);
    mp_map(b, 1);
    mp_cstr(b, "Status");
    mp_map(b, 4 + (s->Err.n != 0) + s->HasContainer + (s->Ports.n != 0) + (running_at != 0));
    mp_kv_str(b, "State", s->State);
    mp_kv_str(b, "Message", s->Message);
    if (s->Err.n)
        mp_kv_str(b, "Err", s->Err);
    mp_kv_i64(b, "Timestamp", s->Timestamp);
    mp_kv_i64(b, "AppliedAt", p->now.ns);
    if (running_at)
        mp_kv_i64(b, "RunningAt", running_at);
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
    int64_t running_at = view_running_since(&now->status);
    now->status = (struct view_task_status){ .State = s->State,
                                             .Message = s->Message,
                                             .Err = s->Err,
                                             .AppliedAt = p->now.ns,
                                             .RunningAt = running_at,
                                             .ContainerStatus = container_of(p->arena, s) };
    struct str doc = status_doc(k, p, s, running_at);
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

/* ---- the pass ---- */

/* split_queue - what came with and after `first` waits for the next transaction; false: there is nothing before it. */
static bool split_queue(struct disp_keeper *k, struct disp_wait *first)
{
    struct disp_wait *before = k->flying;
    if (first == before)
        return false;
    while (before->next != first)
        before = before->next;
    before->next = NULL;
    k->queue = first;
    while (first->next)
        first = first->next;
    k->queue_end = &first->next;
    return true;
}

static void on_pass(void *arg, struct controller_pass *p)
{
    struct disp_keeper *k = arg;
    table_clear(&k->best);
    CHECK(k->flying == NULL);
    k->flying = k->queue;
    k->queue = NULL;
    k->queue_end = &k->queue;
    disp_write_losses(k, p);
    for (struct disp_wait *w = k->flying; w; w = w->next) {
        if (p->txn->nchg >= CONTROLLER_CHANGES_SOFT && split_queue(k, w)) {
            p->more = true;
            break;
        }
        if (w->hello)
            disp_take_hello(k, p, w);
        else
            take_status(k, p, w);
    }
    disp_write_ready(k, p);
    disp_write_orphans(k, p);
    disp_write_usages(k, p);
}

static void open_session(struct disp_keeper *k, struct disp_wait *w)
{
    struct disp_peer *p = table_get(&k->core.peers, str_from(w->node));
    uint64_t jitter = 0;
    if (p && p->poll) {
        k->calls->failed(p->poll, ERR_GONE, "a newer session was opened");
        p->poll = NULL;
    }
    for (size_t i = 0; w->id[i]; i++) /* the session's name is as random as anything */
        jitter = jitter * 31 + (unsigned char)w->id[i];
    table_del(&k->loss, str_from(w->node));
    p = disp_open(&k->core, str_from(w->node), w->id, k->calls->now_ms(), jitter);
    p->held = w->held;
    dnet_live(&k->net, str_from(w->node), true, k->calls->now_ms());
    log_info("node=%s opened a session%s", w->node, w->held ? "; it flaps, so it is not ready yet" : "");
    struct disp_session_reply rep = { .NodeID = str_from(w->node),
                                      .SessionID = str_from(w->id),
                                      .HeartbeatMs = p->heartbeat_ms };
    k->calls->opened(w->call, &rep);
}

static void finish(struct disp_keeper *k, struct disp_wait *w)
{
    struct disp_status_reply rep = { .Unknown = w->unknown };
    if (!w->hello)
        k->calls->stored(w->call, &rep);
    else if (w->vanished)
        k->calls->failed(w->call, ERR_NOT_FOUND, "node not found: it is not, or not any more, part of this swarm");
    else
        open_session(k, w);
}

static void on_done(void *arg, const struct err *e)
{
    struct disp_keeper *k = arg;
    struct disp_wait *w = k->flying, *last = NULL;
    k->flying = NULL;
    marks_settle(&k->lost, e->code == 0);
    marks_settle(&k->gone, e->code == 0);
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
    if (!k->active)
        drop_waits(k, any_wait, NULL, NOT_LEADING);
}

static void on_standby(void *arg)
{
    struct disp_keeper *k = arg;
    k->active = false;
    k->confirming = false;
    k->confirm_at_ms = 0;
    fail_polls(k, NOT_LEADING);
    drop_waits(k, any_wait, NULL, NOT_LEADING);
    disp_net_fail(k, NOT_LEADING);
    dnet_clear(&k->net);
    disp_clear(&k->core);
    marks_clear(&k->lost);
    marks_clear(&k->gone);
    table_clear(&k->loss);
    table_clear(&k->orphans);
    table_clear(&k->holds);
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
