/* request.c - who waits for what, and passing requests on to the leader. */
#include <stdlib.h>

#include "common/util/id.h"
#include "raftd/node_priv.h"

#define PATIENCE_TICK_MS 50u
#define AGAIN_MS 50u         /* between two attempts with the same leader */
#define LOST_LEADER_MS 3000u /* an entry of a leader that stepped down is waited for this long */
#define COMING_MS 10000u     /* until what the leader has done is applied here */
#define FORWARD_MS 15000u
/* How long the first of a batch waits for the others: about as long as they need to come back after an answer, and less
 * than what a batch of its own costs the managers. */
#define GATHER_US 250u
#define LIMBO_MS 8000u /* until a leader of a later term shows what became of it */

#define NO_LEADER                                                                                                      \
    "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of "   \
    "the managers are online."

struct read {
    struct request *q;
    uint64_t index; /* 0: not confirmed yet */
};

static struct {
    struct read reads[RAFT_READS_MAX]; /* by cookie */
    size_t n_reads;
    struct timer *patience;
    bool ticking;
    uint64_t again_ms;
    uint64_t crowd; /* so many requests were under way together lately */
    sd_event_source *gather;
    bool gathering, gathered;
} rq;

/* ---- lists ---- */

void request_push(struct request_list *l, struct request *q)
{
    q->next = NULL;
    *l->tail = q;
    l->tail = &q->next;
}

struct request *request_pop(struct request_list *l)
{
    struct request *q = l->head;
    if (q == NULL)
        return NULL;
    l->head = q->next;
    if (l->head == NULL)
        l->tail = &l->head;
    q->next = NULL;
    return q;
}

static void list_init(struct request_list *l)
{
    l->head = NULL;
    l->tail = &l->head;
}

/* list_take - all of it, to be looked at one by one and put where it belongs. */
static struct request_list list_take(struct request_list *l)
{
    struct request_list all;
    list_init(&all);
    for (struct request *q; (q = request_pop(l)) != NULL;)
        request_push(&all, q);
    return all;
}

static void list_remove(struct request_list *l, struct request *gone)
{
    struct request_list all;
    list_init(&all);
    for (struct request *q; (q = request_pop(l)) != NULL;)
        if (q != gone)
            request_push(&all, q);
    for (struct request *q; (q = request_pop(&all)) != NULL;)
        request_push(l, q);
}

/* ---- answers ---- */

struct request *request_new(struct rpc_call *c, enum request_kind k)
{
    struct request *q = calloc(1, sizeof *q);
    CHECK(q != NULL);
    q->call = c;
    q->kind = k;
    q->deadline_ms = clock_mono().ms + node_conf.leader_wait_ms;
    return q;
}

static void members_reply(struct rpc_call *c)
{
    struct node_member v[RAFT_MEMBERS_MAX];
    size_t n = node_member_list(v);
    struct raftd_member *m = arena_array(rpc_arena(c), n + 1, sizeof *m);
    if (m == NULL) {
        rpc_fail(c, ERR_NOMEM, "out of memory");
        return;
    }
    for (size_t i = 0; i < n; i++)
        m[i] = (struct raftd_member){ .RaftID = v[i].m.id,
                                      .NodeID = arena_str(rpc_arena(c), str_from(v[i].m.node)),
                                      .Addr = arena_str(rpc_arena(c), str_from(v[i].m.addr)),
                                      .Learner = v[i].m.learner,
                                      .Leader = v[i].leader,
                                      .Reachable = v[i].reachable };
    rpc_reply(c, &(struct raftd_members_reply){ { m, n } });
}

static void reply(struct request *q)
{
    struct raftd_txn_reply rep = { .Revision = q->revision };
    struct raftd_member_add_reply add = { .RaftID = q->member };
    switch (q->kind) {
    case REQ_TXN:
    case REQ_BARRIER:
    case REQ_START:
        rpc_reply(q->call, &rep);
        return;
    case REQ_MEMBERS:
        members_reply(q->call);
        return;
    case REQ_ADD:
        add.ClusterID = str_from(raft_log_identity(node.log)->cluster_id);
        rpc_reply(q->call, &add);
        return;
    case REQ_REMOVE:
        rpc_reply(q->call, &(struct raftd_empty){ 0 });
        return;
    }
}

void request_answer(struct request *q)
{
    if (q->call != NULL && q->result.code != 0)
        rpc_fail_err(q->call, &q->result);
    else if (q->call != NULL)
        reply(q);
    free(q);
}

static void fail(struct request *q, int code, const char *why)
{
    err_set(&q->result, code, "%s", why);
    if (code != ERR_CONFLICT)
        node_counts.refused++;
    request_answer(q);
}

static void ticking(void)
{
    if (rq.ticking)
        return;
    rq.ticking = true;
    timer_arm(rq.patience, clock_mono().ms + PATIENCE_TICK_MS);
}

/* ---- with the leader ---- */

/* no_answer - of the leader's, or it says that it was not done (ERR_UNAVAILABLE). Any other is for the log to tell:
 * requests_seen(). */
static bool no_answer(const struct err *e)
{
    return e->code == ERR_UNAVAILABLE || e->code == ERR_TIMEOUT || e->code == ERR_INTERNAL || e->code == ERR_NOMEM;
}

static void on_forwarded(void *arg, const void *rep, const struct err *e)
{
    struct request *q = arg;
    list_remove(&node.away, q);
    if (q->call == NULL) {
        free(q);
        return;
    }
    if (e->code != 0)
        node_counts.forward_failures++;
    if (e->code == 0) {
        q->revision = ((const struct raftd_txn_reply *)rep)->Revision;
        q->deadline_ms = clock_mono().ms + COMING_MS;
        request_push(&node.coming, q);
    } else if (q->kind == REQ_TXN && no_answer(e) && e->code != ERR_UNAVAILABLE) {
        q->deadline_ms = clock_mono().ms + LIMBO_MS;
        request_push(&node.limbo, q);
    } else if (no_answer(e)) { /* not done, or only a read: once more */
        rq.again_ms = clock_mono().ms + AGAIN_MS;
        request_push(&node.held, q);
    } else {
        q->result = *e;
        request_answer(q);
        return;
    }
    ticking();
    node_turn_soon();
}

static void forward(struct request *q, const struct raft_status *s)
{
    static const struct raftd_empty none;
    struct buf b = BUF_INIT;
    struct raftd_txn t = { .Requires = q->en.Requires, .Changes = q->en.Changes };
    struct str leader = str_from(node_leader(s));
    node_counts.forwarded++;
    request_push(&node.away, q);
    if (q->kind != REQ_TXN) {
        rpc_send_via(node.gateway, leader, "raftd", &op_raftd_barrier, &none, FORWARD_MS, on_forwarded, q);
        return;
    }
    random_bytes(&q->req, sizeof q->req);
    q->req |= 1;
    q->sent_term = s->term;
    fields_encode(&t, op_raftd_txn.req, &b);
    struct raftd_forward f = { .Req = q->req, .Term = s->term, .Who = str_from(q->by), .Txn = buf_str(&b) };
    rpc_send_via(node.gateway, leader, "raftd", &op_raftd_forward, &f, FORWARD_MS, on_forwarded, q);
    buf_done(&b);
}

/*
 * What became of a transaction with a leader that was lost, this node sees in its own log. The leader of a term writes
 * entries of that term only, and once an entry of a later term is committed none of an earlier one is committed after
 * it (Raft §5.3, §5.4): so either the transaction has been applied here by then, or it never will be, and may be sent
 * again.
 */
void requests_seen(const struct raft_log_entry *en, const struct err *result, uint64_t revision)
{
    const struct request_list *const lists[] = { &node.away, &node.limbo };
    uint64_t req = en->type == RAFT_ENTRY_DATA ? entry_req(en->data) : 0;
    for (size_t i = 0; i < 2; i++)
        for (struct request *q = lists[i]->head; q != NULL; q = q->next) {
            if (q->kind != REQ_TXN || q->done)
                continue;
            q->again = en->term > q->sent_term;
            if (req == 0 || q->req != req)
                continue;
            q->done = true;
            q->again = false;
            q->result = *result;
            q->revision = revision;
        }
}

/* instead - another request for the same call; the first one is left to the answer that may still come for it. */
static struct request *instead(struct request *q)
{
    struct request *n = request_new(q->call, q->kind);
    n->en = q->en;
    memcpy(n->by, q->by, sizeof n->by);
    n->en.By = str_from(n->by);
    n->done = q->done;
    n->result = q->result;
    n->revision = q->revision;
    q->call = NULL;
    return n;
}

/* A snapshot of the leader does not say which transactions are in it. */
void requests_snapshot(uint64_t index)
{
    static const char why[] = "it may be in the leader's snapshot: outcome unknown";
    for (struct request *q = node.away.head; q != NULL; q = q->next)
        if (q->call != NULL && q->kind == REQ_TXN)
            fail(instead(q), ERR_TIMEOUT, why);
    struct request_list all = list_take(&node.limbo);
    for (struct request *q; (q = request_pop(&all)) != NULL;)
        fail(q, ERR_TIMEOUT, why);
    all = list_take(&node.waiting);
    for (struct request *q; (q = request_pop(&all)) != NULL;)
        if (q->index <= index)
            fail(q, ERR_TIMEOUT, why);
        else
            request_push(&node.waiting, q);
}

static void hold(struct request *q)
{
    request_push(&node.held, q);
    ticking();
    node_turn_soon();
}

static void answer_away(void)
{
    for (struct request *q = node.away.head; q != NULL; q = q->next) {
        if (q->call != NULL && q->done)
            request_answer(instead(q));
        else if (q->call != NULL && q->again)
            hold(instead(q));
    }
    struct request_list all = list_take(&node.limbo);
    for (struct request *q; (q = request_pop(&all)) != NULL;) {
        if (q->done) {
            request_answer(q);
        } else if (q->again) {
            q->again = false;
            q->deadline_ms = clock_mono().ms + node_conf.leader_wait_ms;
            hold(q);
        } else {
            request_push(&node.limbo, q);
        }
    }
}

/* ---- at the leader ---- */

/* Removing needs little space, and makes some: it goes on when the store is full. */
static bool grows(const struct entry *en)
{
    const struct txn_change *ch = en->Changes.v;
    for (size_t i = 0; i < en->Changes.n; i++)
        if (ch[i].Doc.n > 0)
            return true;
    return false;
}

static void enqueue(struct request *q)
{
    struct err e = ERR_INIT;
    size_t off = node.batch.n;
    entry_encode(&q->en, &node.batch);
    if (node.batch.failed || node.batch.n - off > TXN_BYTES_MAX) {
        bool big = !node.batch.failed;
        node.batch.failed = false;
        node.batch.n = off;
        err_set(&q->result, big ? ERR_TOO_BIG : ERR_NOMEM,
                big ? "the transaction is over %u bytes" : "out of memory (%u bytes)", TXN_BYTES_MAX);
        request_answer(q);
        return;
    }
    /* Twice its size: documents, and index entries with their pages. */
    if (grows(&q->en) && !sm_room(node.sm, 2 * node.batch.n, clock_mono().ms, &e)) {
        node.batch.n = off;
        fail(q, e.code, e.msg);
        return;
    }
    q->off = off;
    q->len = node.batch.n - off;
    request_push(&node.queued, q);
    node.n_queued++;
}

static void read_start(struct request *q)
{
    struct err e = ERR_INIT;
    uint64_t cookie = 0;
    while (cookie < RAFT_READS_MAX && rq.reads[cookie].q != NULL)
        cookie++;
    if (cookie == RAFT_READS_MAX) {
        fail(q, ERR_UNAVAILABLE, "too many barriers wait already");
        return;
    }
    struct raft_event ev = { .type = RAFT_EV_READ, .cookie = cookie };
    rq.reads[cookie] = (struct read){ q, 0 };
    rq.n_reads++;
    if (node_step(&ev, &e) == 0)
        return;
    rq.reads[cookie].q = NULL;
    rq.n_reads--;
    fail(q, e.code, e.msg);
}

static void not_leader(struct request *q)
{
    fail(q, ERR_UNAVAILABLE, "this node is not the leader");
}

/* dispatch - to where it can be done now. */
static void dispatch(struct request *q)
{
    struct raft_status s;
    if (node.locked || node.core == NULL) {
        fail(q, ERR_UNAVAILABLE,
             node.locked ? "the store is locked: the swarm's unlock key is needed"
                         : "this node is not part of a swarm");
        return;
    }
    raft_status(node.core, &s);
    if (node.stalled[0] != 0) {
        fail(q, ERR_IO, node.stalled);
        return;
    }
    bool leads = s.role == RAFT_LEADER && s.transferee == 0 && (q->of_term == 0 || q->of_term == s.term);
    if (leads && q->kind == REQ_TXN) {
        enqueue(q);
        return;
    }
    if (leads) {
        read_start(q);
        return;
    }
    if (q->foreign || q->en.Term != 0) {
        not_leader(q);
        return;
    }
    const char *leader = node_leader(&s);
    if (s.role == RAFT_FOLLOWER && leader[0] != 0 && clock_mono().ms >= rq.again_ms) {
        forward(q, &s);
        return;
    }
    request_push(&node.held, q);
    ticking();
}

static void held_again(void)
{
    struct request_list all = list_take(&node.held);
    for (struct request *q; (q = request_pop(&all)) != NULL;)
        dispatch(q);
}

void node_propose(struct rpc_call *c, const struct entry *en, uint64_t of_term)
{
    struct request *q = request_new(c, REQ_TXN);
    q->en = *en;
    q->foreign = of_term != 0;
    q->of_term = of_term;
    (void)str_copy(q->by, sizeof q->by, en->By);
    q->en.By = str_from(q->by);
    dispatch(q);
    if (node.n_queued >= BATCH_ENTRIES || node.batch.n >= BATCH_BYTES)
        node_turn();
    else
        node_turn_soon();
}

void node_barrier(struct rpc_call *c, bool foreign)
{
    struct request *q = request_new(c, REQ_BARRIER);
    q->foreign = foreign;
    dispatch(q);
    node_turn_soon();
}

static void on_members(void *arg, const void *rep, const struct err *e)
{
    struct request *q = arg;
    list_remove(&node.away, q);
    if (q->call != NULL && e->code == 0)
        rpc_reply(q->call, rep);
    else if (q->call != NULL)
        members_reply(q->call); /* as this node sees it */
    free(q);
}

void node_members(struct rpc_call *c, bool foreign)
{
    static const struct raftd_empty none;
    struct raft_status s = { 0 };
    struct request *q = request_new(c, REQ_MEMBERS);
    q->foreign = foreign;
    if (node.core != NULL)
        raft_status(node.core, &s);
    if (foreign) { /* it wants to know for certain */
        dispatch(q);
        node_turn_soon();
        return;
    }
    if (node.core == NULL || s.role != RAFT_FOLLOWER || node_leader(&s)[0] == 0) {
        request_answer(q);
        return;
    }
    request_push(&node.away, q);
    rpc_send_via(node.gateway, str_from(node_leader(&s)), "raftd", &op_raftd_members, &none, 1000, on_members, q);
}

/* ---- what the core says ---- */

void requests_appended(const struct raft_effects *fx)
{
    size_t n = fx->append_to - fx->append_from + 1;
    const char *base = node.batch.p;
    struct block *b = block_take(&node.batch);
    for (uint64_t i = fx->append_from; i <= fx->append_to; i++, n--) {
        struct request *q = request_pop(&node.queued);
        CHECK(q != NULL);
        tail_add(&node.tail, &(struct raft_log_entry){ i, fx->append_term, RAFT_ENTRY_DATA, { base + q->off, q->len } },
                 b);
        q->index = i;
        q->term = fx->append_term;
        q->deadline_ms = 0;
        request_push(&node.waiting, q);
    }
    block_drop(b);
    CHECK(n == 0 && node.queued.head == NULL);
    node.n_queued = 0;
}

/* A request passed on to the leader of one term must not get into the log in another one. */
static void stale_again(void)
{
    struct raft_status s;
    bool stale = false;
    raft_status(node.core, &s);
    for (const struct request *q = node.queued.head; q != NULL; q = q->next)
        stale |= q->of_term != 0 && q->of_term != s.term;
    if (!stale)
        return;
    struct request_list all = list_take(&node.queued);
    node.n_queued = 0;
    buf_clear(&node.batch);
    for (struct request *q; (q = request_pop(&all)) != NULL;)
        dispatch(q);
}

static int on_gathered(sd_event_source *src, uint64_t usec, void *arg)
{
    (void)src, (void)usec, (void)arg;
    rq.gathered = true;
    node_turn();
    return 0;
}

static void gather_end(void)
{
    if (rq.gathering)
        (void)sd_event_source_set_enabled(rq.gather, SD_EVENT_OFF);
    rq.gathering = rq.gathered = false;
}

/*
 * worth_it - each batch costs every manager a write and a few messages: the busier, the larger they should be. What
 * comes while others are being committed waits until it is as much as those. And when an answer has set clients free,
 * who ask again at once, the first of them waits a moment for the others. A single client never waits.
 */
static bool worth_it(void)
{
    struct raft_status s;
    raft_status(node.core, &s);
    uint64_t under_way = s.last_index - s.committed;
    if (s.role != RAFT_LEADER || node.batch.n >= BATCH_BYTES / 8)
        return true;
    if (under_way > 0)
        return node.n_queued >= under_way;
    if (rq.gathered || 4 * node.n_queued >= 3 * rq.crowd)
        return true;
    if (!rq.gathering) {
        rq.gathering = true;
        (void)sd_event_source_set_time_relative(rq.gather, GATHER_US);
        (void)sd_event_source_set_enabled(rq.gather, SD_EVENT_ONESHOT);
    }
    return false;
}

/* crowd_note - a batch goes out. Fewer are believed only after some batches. */
static void crowd_note(uint64_t under_way)
{
    uint64_t less = rq.crowd - (rq.crowd + 7) / 8;
    rq.crowd = under_way > less ? under_way : less;
}

static void propose(void)
{
    struct err e = ERR_INIT;
    stale_again();
    if (node.n_queued == 0 || !worth_it())
        return;
    struct raft_event ev = {
        .type = RAFT_EV_PROPOSE,
        .n_entries = (uint32_t)node.n_queued,
        .bytes = node.batch.n,
    };
    struct raft_status s;
    size_t n = node.n_queued;
    gather_end();
    if (node_step(&ev, &e) == 0) {
        raft_status(node.core, &s);
        crowd_note(s.last_index - s.committed);
        node_counts.batches++;
        node_counts.txns += n;
        if (n > node_counts.batch_max)
            node_counts.batch_max = n;
        return;
    }
    struct request_list all = list_take(&node.queued);
    node.n_queued = 0;
    buf_clear(&node.batch);
    for (struct request *q; (q = request_pop(&all)) != NULL;)
        if (e.code != ERR_UNAVAILABLE || q->foreign || q->en.Term != 0)
            fail(q, e.code, e.msg);
        else
            request_push(&node.held, q);
    ticking();
}

void requests_flush(void)
{
    if (node.held.head != NULL)
        held_again();
    propose();
}

void requests_applied(uint64_t index, uint64_t term, const struct err *result, uint64_t revision)
{
    for (struct request *q = node.waiting.head; q != NULL; q = q->next) {
        if (q->index != index)
            continue;
        q->done = true;
        q->revision = revision;
        if (q->term == term)
            q->result = *result;
        else /* another leader's entry is there for good: ours never will be */
            err_set(&q->result, ERR_UNAVAILABLE, "the leader has changed: this was not done");
        q->again = q->term != term && q->kind == REQ_TXN && !q->foreign && q->en.Term == 0;
        if (q->term == term)
            return;
    }
}

void requests_apply_undo(void)
{
    const struct request_list *const lists[] = { &node.waiting, &node.away, &node.limbo };
    for (size_t i = 0; i < 3; i++)
        for (struct request *q = lists[i]->head; q != NULL; q = q->next) {
            q->done = q->again = false;
            q->result = (struct err)ERR_INIT;
        }
}

static void answer_done(struct request *q)
{
    if (!q->again) {
        request_answer(q);
        return;
    }
    q->again = q->done = false;
    q->result = (struct err)ERR_INIT;
    q->deadline_ms = clock_mono().ms + node_conf.leader_wait_ms;
    request_push(&node.held, q);
    ticking();
    node_turn_soon();
}

/* What is applied ahead of its commit is done only then. */
static bool is_done(const struct request *q)
{
    return q->done && q->index <= sm_applied(node.sm);
}

static void answer_waiting(void)
{
    while (node.waiting.head != NULL && is_done(node.waiting.head))
        answer_done(request_pop(&node.waiting));
    bool more = false;
    for (struct request *q = node.waiting.head; q != NULL; q = q->next)
        more |= is_done(q);
    if (!more)
        return;
    struct request_list all = list_take(&node.waiting);
    for (struct request *q; (q = request_pop(&all)) != NULL;)
        if (is_done(q))
            answer_done(q);
        else
            request_push(&node.waiting, q);
}

static void answer_coming(void)
{
    uint64_t revision = sm_revision(node.sm);
    struct request_list all = list_take(&node.coming);
    for (struct request *q; (q = request_pop(&all)) != NULL;)
        if (q->revision <= revision)
            request_answer(q);
        else
            request_push(&node.coming, q);
}

static void answer_reads(void)
{
    for (size_t i = 0; rq.n_reads > 0 && i < RAFT_READS_MAX; i++) {
        struct request *q = rq.reads[i].q;
        if (q == NULL || rq.reads[i].index == 0 || rq.reads[i].index > sm_applied(node.sm))
            continue;
        rq.reads[i].q = NULL;
        rq.n_reads--;
        q->revision = sm_revision(node.sm);
        request_answer(q);
    }
}

void requests_answer(void)
{
    if (node.waiting.head != NULL)
        answer_waiting();
    if (node.away.head != NULL || node.limbo.head != NULL)
        answer_away();
    if (node.coming.head != NULL)
        answer_coming();
    if (rq.n_reads > 0)
        answer_reads();
}

void requests_reads(const struct raft_effects *fx)
{
    for (size_t i = 0; i < fx->n_reads; i++) {
        struct read *r = &rq.reads[fx->reads[i].cookie];
        CHECK(r->q != NULL);
        if (fx->reads[i].index != 0) {
            r->index = fx->reads[i].index;
            continue;
        }
        struct request *q = r->q;
        r->q = NULL;
        rq.n_reads--;
        if (q->foreign) {
            not_leader(q);
        } else {
            request_push(&node.held, q);
            ticking();
        }
    }
}

void requests_role(void)
{
    struct raft_status s;
    raft_status(node.core, &s);
    rq.again_ms = 0;
    for (struct request *q = node.away.head; q != NULL && s.leader != 0; q = q->next)
        if (q->call != NULL && q->kind == REQ_BARRIER) /* a read of the leader before: ask the new one */
            hold(instead(q));
    if (s.role == RAFT_LEADER)
        return;
    uint64_t at = clock_mono().ms + LOST_LEADER_MS;
    for (struct request *q = node.waiting.head; q != NULL; q = q->next)
        if (q->deadline_ms == 0 || q->deadline_ms > at)
            q->deadline_ms = at;
    if (node.waiting.head != NULL)
        ticking();
}

bool requests_of(struct str node_id, uint64_t upto)
{
    for (const struct request *q = node.waiting.head; q != NULL; q = q->next)
        if (q->foreign && q->index <= upto && str_eq(rpc_origin(q->call).node, node_id))
            return true;
    return false;
}

void requests_lost(uint64_t from, int code, const char *why)
{
    struct request_list all = list_take(&node.waiting);
    for (struct request *q; (q = request_pop(&all)) != NULL;)
        if (q->index >= from)
            fail(q, code, why);
        else
            request_push(&node.waiting, q);
}

/* ---- patience ---- */

static void overdue(struct request_list *l, uint64_t now, int code, const char *why)
{
    struct request_list all = list_take(l);
    for (struct request *q; (q = request_pop(&all)) != NULL;)
        if (q->deadline_ms != 0 && now >= q->deadline_ms)
            fail(q, code, why);
        else
            request_push(l, q);
}

static void on_patience(void *arg)
{
    uint64_t now = clock_mono().ms;
    struct raft_status s = { 0 };
    (void)arg;
    rq.ticking = false;
    if (node.core != NULL)
        raft_status(node.core, &s);
    overdue(&node.held, now, ERR_UNAVAILABLE, NO_LEADER);
    if (s.role != RAFT_LEADER)
        overdue(&node.waiting, now, ERR_TIMEOUT, "the leader has changed meanwhile: outcome unknown");
    overdue(&node.limbo, now, ERR_TIMEOUT, "the leader was lost before it answered: outcome unknown");
    overdue(&node.coming, now, ERR_TIMEOUT, "it is done, but this node has not heard of it yet");
    if (node.held.head != NULL)
        node_turn_soon();
    if (node.held.head != NULL || node.coming.head != NULL || node.limbo.head != NULL ||
        (node.waiting.head != NULL && s.role != RAFT_LEADER))
        ticking();
}

static void fail_list(struct request_list *l, int code, const char *why)
{
    struct request_list all = list_take(l);
    for (struct request *q; (q = request_pop(&all)) != NULL;)
        fail(q, code, why);
}

void requests_fail_all(const char *why)
{
    node.n_queued = 0;
    buf_clear(&node.batch);
    fail_list(&node.queued, ERR_UNAVAILABLE, why);
    fail_list(&node.held, ERR_UNAVAILABLE, why);
    fail_list(&node.waiting, ERR_TIMEOUT, "outcome unknown");
    fail_list(&node.coming, ERR_TIMEOUT, "it is done, but this node has not heard of it yet");
    fail_list(&node.limbo, ERR_TIMEOUT, "outcome unknown");
    for (size_t i = 0; i < RAFT_READS_MAX; i++) {
        if (rq.reads[i].q != NULL)
            fail(rq.reads[i].q, ERR_UNAVAILABLE, why);
        rq.reads[i].q = NULL;
    }
    rq.n_reads = 0;
    for (struct request *q = node.away.head; q != NULL; q = q->next) { /* theirs until the answer comes */
        if (q->call != NULL)
            rpc_fail(q->call, ERR_TIMEOUT, "%s: outcome unknown", why);
        q->call = NULL;
    }
}

bool requests_idle(void)
{
    return requests_count() == 0;
}

size_t requests_count(void)
{
    const struct request_list *const all[] = { &node.queued, &node.held,  &node.waiting,
                                               &node.coming, &node.limbo, &node.away };
    size_t n = rq.n_reads;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        for (const struct request *q = all[i]->head; q != NULL; q = q->next)
            n++;
    return n;
}

int requests_open(struct err *e)
{
    list_init(&node.queued);
    list_init(&node.waiting);
    list_init(&node.held);
    list_init(&node.away);
    list_init(&node.coming);
    list_init(&node.limbo);
    int r = sd_event_add_time(daemon_loop(), &rq.gather, CLOCK_MONOTONIC, UINT64_MAX, 1, on_gathered, NULL);
    if (r >= 0)
        r = sd_event_source_set_enabled(rq.gather, SD_EVENT_OFF);
    return r < 0 ? err_errno(e, -r, "add timer") : timer_open(&rq.patience, on_patience, NULL, e);
}

/* The calls have gone with the server. */
void requests_close(void)
{
    struct request_list *const all[] = {
        &node.queued, &node.held, &node.waiting, &node.coming, &node.limbo, &node.away
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        for (struct request *q; (q = request_pop(all[i])) != NULL;)
            free(q);
    for (size_t i = 0; i < RAFT_READS_MAX; i++) {
        free(rq.reads[i].q);
        rq.reads[i].q = NULL;
    }
    rq.n_reads = 0;
    rq.ticking = false;
    rq.gather = sd_event_source_disable_unref(rq.gather);
    rq.gathering = rq.gathered = false;
    rq.patience = timer_free(rq.patience);
}
