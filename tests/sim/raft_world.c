/* raft_world.c - see raft_world.h. */
#include "tests/sim/raft_world.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util/check.h"

#define MS 1000ull /* world time is in microseconds */
#define WRITES 256u
#define HEAL_MS 60000ull

enum event_type {
    E_TIMER,   /* a node's wake_at */
    E_MESSAGE, /* arrives */
    E_DISK,    /* some writes are done */
    E_APPLY,
    E_START,    /* a node comes up again */
    E_CLIENT,   /* somebody reads or writes */
    E_OPERATOR, /* members, transfers */
    E_CHAOS,    /* something breaks */
    E_SNAPSHOT, /* a transfer is over */
    E_KILL,     /* this one dies */
    E_HASTY,    /* an operator has waited for this leader */
    E_HINT,     /* gatewayd says that a link broke */
};

struct packet {
    struct raft_msg msg;
    struct entry *entries;
    struct raft_entry_meta *metas;
    uint64_t snapshot_index, snapshot_term; /* E_SNAPSHOT */
    uint16_t snapshot_members;
};

struct event {
    uint64_t at, seq;
    enum event_type type;
    unsigned slot;
    uint64_t life; /* of the node: an event for an earlier life is void; 0: for any */
    raft_id peer;
    struct packet *packet;
};

struct write {
    uint64_t id, truncate_from, from, to;
    bool hs_changed;
    struct raft_hard_state hs;
    struct entry *entries;
    uint64_t install_index, install_term;
    bool install_drops;
    uint16_t install_members;
};

struct disk { /* what survives a crash */
    struct raft_hard_state hs;
    uint64_t first, last, snap_index, snap_term;
    uint16_t snap_members;
    struct entry *e; /* by index */
};

struct node {
    raft_id id; /* 0: the place is free */
    bool up, fresh, slow_disk, sync_disk;
    uint64_t life;
    struct raft *core;
    struct raft_status st;
    double rate;
    uint64_t offset, last_ms, timer_at, wake;
    struct disk disk;
    struct entry *log; /* as the shell has it in memory: what the core was told to append */
    struct write writes[WRITES];
    unsigned writes_head, n_writes;
    bool disk_busy, disk_broken;
    uint64_t applied, apply_to, checked;
    uint16_t applied_members;
    uint64_t received_index, received_term; /* a snapshot that lies beside the log */
    uint16_t received_members;
    bool apply_due;
    uint64_t paused_until; /* the machine stands still; what arrives waits */
    unsigned removed;      /* seen to be removed: may be wiped */
};

struct op {
    bool busy, reads;
    uint64_t value, floor, deadline, cookie;
    unsigned slot;
    uint64_t life;
    uint64_t read_index; /* answer once this is applied */
};

static struct world {
    uint64_t now, seq, rng;
    const struct options *opt;
    struct result *res;
    struct checks checks;
    struct event *heap;
    size_t n_heap, cap_heap;
    struct node nodes[SLOTS];
    unsigned slot_of[IDS];
    raft_id next_id;
    struct raft_members pool[POOL];
    unsigned n_pool;
    struct op ops[OPS];
    uint64_t next_value, next_cookie;
    bool cut[SLOTS][SLOTS]; /* messages from, to */
    bool chaos;
    jmp_buf out;
    /* drawn from the seed */
    uint64_t delay_us, heartbeat_ms, election_ms, client_us, chaos_us, operator_us;
    unsigned loss, dup, reorder, late, apply_lag; /* of 1000 */
    unsigned kill_new, hasty;                     /* new leaders: killed, or told to change members, at once */
    bool feud;                                    /* leaders that remove each other, see chaos_feud() */
    raft_id feud_id;
    uint64_t down_us; /* how long a node stays down, at most */
    bool fifo;
    uint64_t last_arrival[SLOTS][SLOTS];
    unsigned append_max;
} w;

/* ---- small things ---- */

static uint64_t rnd(uint64_t below)
{
    uint64_t z = (w.rng += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

static bool chance(unsigned of_1000)
{
    return rnd(1000) < of_1000;
}

static void note(uint64_t v)
{
    w.res->hash = (w.res->hash ^ v) * 0x100000001b3u;
}

__attribute__((format(printf, 1, 2))) static void trace(const char *fmt, ...)
{
    if (!w.opt->trace)
        return;
    va_list ap;
    va_start(ap, fmt);
    printf("%9.3f ", (double)w.now / 1000.0);
    vprintf(fmt, ap);
    printf("\n");
    va_end(ap);
}

static struct node *node_of(raft_id id)
{
    struct node *n = id < IDS ? &w.nodes[w.slot_of[id]] : NULL;
    return n != NULL && n->id == id ? n : NULL;
}

static unsigned slot(const struct node *n)
{
    return (unsigned)(n - w.nodes);
}

static uint16_t pool_add(const struct raft_members *m)
{
    for (unsigned i = 1; i < w.n_pool; i++)
        if (w.pool[i].n == m->n && memcmp(w.pool[i].v, m->v, m->n * sizeof m->v[0]) == 0)
            return (uint16_t)i;
    CHECK(w.n_pool < POOL);
    struct raft_members *p = &w.pool[w.n_pool];
    memset(p, 0, sizeof *p);
    p->n = m->n;
    memcpy(p->v, m->v, m->n * sizeof m->v[0]);
    return (uint16_t)w.n_pool++;
}

/* ---- time ---- */

static bool before(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void put(struct event ev)
{
    if (w.n_heap == w.cap_heap) {
        w.cap_heap = w.cap_heap ? 2 * w.cap_heap : 1024;
        w.heap = realloc(w.heap, w.cap_heap * sizeof *w.heap);
        CHECK(w.heap != NULL);
    }
    ev.seq = ++w.seq;
    size_t i = w.n_heap++;
    for (; i > 0 && before(&ev, &w.heap[(i - 1) / 2]); i = (i - 1) / 2)
        w.heap[i] = w.heap[(i - 1) / 2];
    w.heap[i] = ev;
}

static struct event take(void)
{
    struct event top = w.heap[0], last = w.heap[--w.n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < w.n_heap; i = child) {
        if (child + 1 < w.n_heap && before(&w.heap[child + 1], &w.heap[child]))
            child++;
        if (!before(&w.heap[child], &last))
            break;
        w.heap[i] = w.heap[child];
    }
    w.heap[i] = last;
    return top;
}

/* Every node has a clock of its own, too fast or too slow, that never goes back. */
static struct mono_ms clock_of(struct node *n)
{
    uint64_t ms = n->offset + (uint64_t)((double)w.now * n->rate / 1000.0);
    if (ms > n->last_ms)
        n->last_ms = ms;
    return (struct mono_ms){ n->last_ms };
}

static uint64_t world_time(const struct node *n, uint64_t ms)
{
    return ms <= n->offset ? 0 : (uint64_t)((double)(ms - n->offset) * 1000.0 / n->rate) + 1;
}

static void timer_set(struct node *n, uint64_t wake)
{
    n->wake = wake;
    if (wake == UINT64_MAX)
        return;
    uint64_t at = world_time(n, wake);
    if (at <= w.now)
        at = w.now + 1;
    if (n->timer_at > w.now && n->timer_at <= at)
        return; /* that one looks again */
    n->timer_at = at;
    put((struct event){ .at = at, .type = E_TIMER, .slot = slot(n), .life = n->life });
}

/* ---- the network ---- */

static uint64_t latency(void)
{
    uint64_t d = w.delay_us / 2 + rnd(w.delay_us + 1);
    if (chance(w.reorder))
        d += rnd(20 * w.delay_us + 1);
    if (chance(w.late)) /* when everybody has forgotten it */
        d += rnd(4 * w.election_ms * MS);
    return d;
}

static void packet_free(struct packet *p)
{
    if (p == NULL)
        return;
    free(p->entries);
    free(p->metas);
    free(p);
}

static struct packet *packet_new(const struct raft_msg *m, const struct node *from, uint64_t entries_to)
{
    struct packet *p = calloc(1, sizeof *p);
    CHECK(p != NULL);
    p->msg = *m;
    uint64_t n = m->type == RAFT_MSG_APPEND && entries_to >= m->entries_from ? entries_to - m->entries_from + 1 : 0;
    p->entries = calloc(n + 1, sizeof *p->entries);
    p->metas = calloc(n + 1, sizeof *p->metas);
    CHECK(p->entries != NULL && p->metas != NULL);
    for (uint64_t i = 0; i < n; i++) {
        const struct entry *e = &from->log[m->entries_from + i];
        p->entries[i] = *e;
        p->metas[i] =
            (struct raft_entry_meta){ m->entries_from + i, e->term, e->type, e->members ? &w.pool[e->members] : NULL };
        checks_logged(&w.checks, m->entries_from + i, e,
                      i > 0 ? from->log[m->entries_from + i - 1].term : m->index_term);
    }
    p->msg.entries = p->metas;
    p->msg.n_entries = n;
    p->msg.entries_from = 1;
    p->msg.entries_to = 0;
    return p;
}

static void deliver_later(unsigned from, struct node *to, struct packet *p)
{
    uint64_t at = w.now + latency();
    if (w.fifo && at <= w.last_arrival[from][slot(to)])
        at = w.last_arrival[from][slot(to)] + 1;
    w.last_arrival[from][slot(to)] = at;
    put((struct event){ .at = at, .type = E_MESSAGE, .slot = slot(to), .peer = p->msg.from, .packet = p });
}

static void send_packet(struct node *n, const struct raft_msg *m, uint64_t entries_to)
{
    struct node *to = node_of(m->to);
    w.res->messages++;
    if (to == NULL || w.cut[slot(n)][slot(to)] || chance(w.loss))
        return;
    deliver_later(slot(n), to, packet_new(m, n, entries_to));
    if (chance(w.dup))
        deliver_later(slot(n), to, packet_new(m, n, entries_to));
}

static void snapshot_begin(struct node *n, const struct raft_msg *m)
{
    struct packet *p = calloc(1, sizeof *p);
    CHECK(p != NULL);
    p->snapshot_index = n->disk.snap_index; /* the newest it has */
    p->snapshot_term = n->disk.snap_term;
    p->snapshot_members = n->disk.snap_members;
    trace("%" PRIu64 " streams its snapshot %" PRIu64 " to %" PRIu64, n->id, p->snapshot_index, m->to);
    CHECK(p->snapshot_index >= m->index);
    put((struct event){ .at = w.now + 5 * latency() + rnd(w.election_ms * MS),
                        .type = E_SNAPSHOT,
                        .slot = slot(n),
                        .life = n->life,
                        .peer = m->to,
                        .packet = p });
}

/* ---- the disk ---- */

static void step(struct node *n, struct raft_event *ev);

static void write_forget(struct write *wr)
{
    free(wr->entries);
    wr->entries = NULL;
}

/* What raftd's log does with one write: as a whole, in this order, or not at all. */
static void write_carry_out(struct node *n, struct write *wr)
{
    struct disk *d = &n->disk;
    if (wr->install_index != 0) {
        CHECK(wr->install_index > d->snap_index);
        d->snap_index = wr->install_index;
        d->snap_term = wr->install_term;
        d->snap_members = wr->install_members;
        if (wr->install_drops) {
            d->first = wr->install_index + 1;
            d->last = wr->install_index;
        }
        CHECK(d->last >= wr->install_index);
    }
    if (wr->truncate_from != 0) {
        CHECK(wr->truncate_from >= d->first && wr->truncate_from <= d->last + 1);
        d->last = wr->truncate_from - 1;
    }
    if (wr->from <= wr->to) {
        CHECK(wr->from == d->last + 1);
        for (uint64_t i = wr->from; i <= wr->to; i++) {
            uint64_t prev = i > d->first ? d->e[i - 1].term : i - 1 == d->snap_index ? d->snap_term : UINT64_MAX;
            d->e[i] = wr->entries[i - wr->from];
            checks_logged(&w.checks, i, &d->e[i], i == 1 ? 0 : prev);
        }
        d->last = wr->to;
    }
    if (wr->hs_changed)
        d->hs = wr->hs;
    write_forget(wr);
}

/* The state machine starts again from a snapshot that was installed. */
static void installed(struct node *n, const struct write *wr)
{
    if (wr->install_index == 0)
        return;
    const struct entry *c = &w.checks.committed[wr->install_index];
    if (wr->install_index > w.checks.n_committed || c->term != wr->install_term)
        checks_fail(&w.checks,
                    "%" PRIu64 " installs a snapshot up to entry %" PRIu64 " of term %" PRIu64
                    ", which is not committed",
                    n->id, wr->install_index, wr->install_term);
    n->applied = wr->install_index;
    n->applied_members = wr->install_members;
    n->apply_to = n->applied > n->apply_to ? n->applied : n->apply_to;
    if (n->checked < n->applied)
        n->checked = n->applied;
    w.res->snapshots++;
}

static void disk_done(struct node *n, unsigned count)
{
    uint64_t id = 0;
    for (unsigned i = 0; i < count; i++) {
        struct write wr = n->writes[n->writes_head];
        write_carry_out(n, &wr);
        installed(n, &wr);
        id = wr.id;
        n->writes_head = (n->writes_head + 1) % WRITES;
        n->n_writes--;
    }
    struct raft_event ev = { .type = RAFT_EV_PERSISTED, .write = id };
    step(n, &ev);
}

static void disk_fail(struct node *n)
{
    struct raft_event ev = { .type = RAFT_EV_WRITE_FAILED, .write = n->writes[n->writes_head].id };
    trace("%" PRIu64 " disk refuses write %" PRIu64, n->id, ev.write);
    for (; n->n_writes > 0; n->n_writes--) {
        write_forget(&n->writes[n->writes_head]);
        n->writes_head = (n->writes_head + 1) % WRITES;
    }
    step(n, &ev);
}

static void disk_arm(struct node *n)
{
    if (n->n_writes == 0 || n->disk_busy)
        return;
    n->disk_busy = true;
    uint64_t d = n->sync_disk ? 0 : 200 + rnd(n->slow_disk ? 60 * MS : 4 * MS);
    put((struct event){ .at = w.now + d, .type = E_DISK, .slot = slot(n), .life = n->life });
}

static void on_disk(struct node *n)
{
    n->disk_busy = false;
    if (n->n_writes == 0)
        return;
    if (n->disk_broken || (w.chaos && chance(2)))
        disk_fail(n);
    else
        disk_done(n, n->sync_disk ? n->n_writes : 1 + (unsigned)rnd(n->n_writes));
    disk_arm(n);
}

static void write_put(struct node *n, const struct raft_effects *fx)
{
    CHECK(n->n_writes < WRITES);
    struct write *wr = &n->writes[(n->writes_head + n->n_writes++) % WRITES];
    *wr = (struct write){ .id = fx->write,
                          .truncate_from = fx->truncate_from,
                          .from = fx->append_from,
                          .to = fx->append_to,
                          .hs_changed = fx->hard_state_changed,
                          .hs = fx->hard_state,
                          .install_index = fx->install_index,
                          .install_term = fx->install_term,
                          .install_drops = fx->install_drops_log,
                          .install_members = n->received_members };
    uint64_t count = wr->from <= wr->to ? wr->to - wr->from + 1 : 0;
    if (count > 0) {
        wr->entries = malloc(count * sizeof *wr->entries);
        CHECK(wr->entries != NULL);
        memcpy(wr->entries, &n->log[wr->from], count * sizeof *wr->entries);
    }
    disk_arm(n);
}

/* ---- a node's shell ---- */

static void log_append(struct node *n, const struct raft_event *ev, const struct raft_effects *fx,
                       const uint64_t *values)
{
    if (fx->append_to > INDEX_MAX - 1) {
        checks_fail(&w.checks, "the run is longer than its tables");
        longjmp(w.out, 1);
    }
    for (uint64_t i = fx->append_from; i <= fx->append_to; i++) {
        struct entry *e = &n->log[i];
        w.res->entries++;
        if (fx->append_of_msg) {
            CHECK(ev->msg != NULL);
            uint64_t at = i - ev->msg->index - 1;
            const struct packet *p = (const struct packet *)ev->msg;
            CHECK(at < ev->msg->n_entries && ev->msg->entries[at].index == i);
            *e = p->entries[at];
            continue;
        }
        *e = (struct entry){ .term = fx->append_term, .type = (uint8_t)fx->append_type };
        CHECK(fx->append_type != RAFT_ENTRY_DATA || values != NULL);
        if (fx->append_type == RAFT_ENTRY_DATA)
            e->value = values[i - fx->append_from];
        if (fx->append_type == RAFT_ENTRY_MEMBERS)
            e->members = pool_add(&fx->append_members);
    }
}

/* The configuration in force is the last one in the log (Raft thesis §4.1). */
static void check_members(struct node *n)
{
    uint64_t at = n->st.members_index;
    for (uint64_t i = n->st.last_index; i > at && i >= n->st.first_index; i--)
        if (n->log[i].type == RAFT_ENTRY_MEMBERS) {
            checks_fail(&w.checks,
                        "members: %" PRIu64 " goes by entry %" PRIu64 ", but entry %" PRIu64 " came after it", n->id,
                        at, i);
            return;
        }
    if (at > n->disk.snap_index && at >= n->st.first_index &&
        (at > n->st.last_index || n->log[at].type != RAFT_ENTRY_MEMBERS))
        checks_fail(&w.checks, "members: %" PRIu64 " goes by entry %" PRIu64 ", which names none", n->id, at);
}

static void check_node(struct node *n, bool role_changed)
{
    struct raft_status *s = &n->st;
    raft_status(n->core, s);
    if (role_changed && s->role == RAFT_LEADER) {
        checks_leader(&w.checks, n->id, s->term, n->log, s->first_index, s->last_index);
        if (!s->ready) {
            w.res->elections++;
            if (chance(w.kill_new))
                put((struct event){
                    .at = w.now + rnd(8 * w.delay_us + 10 * MS), .type = E_KILL, .slot = slot(n), .life = n->life });
            if (chance(w.hasty))
                put((struct event){
                    .at = w.now + rnd(2 * w.delay_us), .type = E_HASTY, .slot = slot(n), .life = n->life });
        }
    }
    for (; n->checked < s->committed; n->checked++) {
        uint64_t i = n->checked + 1;
        if (i >= s->first_index)
            checks_committed(&w.checks, n->id, i, &n->log[i], s->term);
    }
}

static void apply_arm(struct node *n)
{
    if (n->apply_due || n->applied >= n->apply_to)
        return;
    n->apply_due = true;
    put((struct event){
        .at = w.now + (chance(w.apply_lag) ? rnd(50 * MS) : 0), .type = E_APPLY, .slot = slot(n), .life = n->life });
}

static void reads_released(struct node *n, const struct raft_effects *fx)
{
    for (size_t i = 0; i < fx->n_reads; i++)
        for (unsigned k = 0; k < OPS; k++) {
            struct op *o = &w.ops[k];
            if (!o->busy || !o->reads || o->cookie != fx->reads[i].cookie)
                continue;
            if (fx->reads[i].index == 0) {
                o->busy = false;
            } else {
                o->read_index = fx->reads[i].index;
                if (n->applied >= o->read_index) {
                    checks_read(&w.checks, o->floor, n->applied);
                    w.res->reads++;
                    o->busy = false;
                }
            }
        }
}

static const char *const msg_names[] = {
    "?",         "prevote",         "prevote-reply", "vote",    "vote-reply", "append", "append-reply",
    "heartbeat", "heartbeat-reply", "timeout-now",   "snapshot"
};

static bool send_one(struct node *n, const struct raft_msg *m)
{
    uint64_t to = m->entries_to, bytes;
    trace("%" PRIu64 " -> %" PRIu64 " %s term=%" PRIu64 " index=%" PRIu64 "/%" PRIu64 " commit=%" PRIu64
          " entries=%" PRIu64 "..%" PRIu64 "%s",
          m->from, m->to, msg_names[m->type], m->term, m->index, m->index_term, m->commit, m->entries_from,
          m->entries_to, m->reject ? " reject" : "");
    if (m->type == RAFT_MSG_SNAPSHOT) {
        snapshot_begin(n, m);
        return false;
    }
    if (m->type != RAFT_MSG_APPEND || m->entries_from > m->entries_to) {
        send_packet(n, m, m->entries_to);
        return false;
    }
    /* The shell cuts what is too long, and has at times no room at all. */
    if (chance(30))
        to = m->entries_from - 1;
    else if (to - m->entries_from >= w.append_max)
        to = m->entries_from + rnd(w.append_max);
    bytes = (to + 1 - m->entries_from) * 100;
    if (to >= m->entries_from)
        send_packet(n, m, to);
    if (chance(900) || to != m->entries_to)
        return raft_sent(n->core, m->to, to, bytes);
    return false;
}

static void step_values(struct node *n, struct raft_event *ev, const uint64_t *values, int *ret)
{
    static struct raft_effects fx;
    struct raft_msg msgs[RAFT_MSGS_MAX];
    struct err e = ERR_INIT;
    bool more = false;
    ev->now = clock_of(n);
    w.res->steps++;
    int rc = raft_step(n->core, ev, &fx, &e);
    if (ret != NULL)
        *ret = rc;
    if (rc == -ERR_CORRUPT || (rc == -ERR_INVALID && ev->type != RAFT_EV_MEMBERS))
        checks_fail(&w.checks, "%" PRIu64 ": %s", n->id, e.msg);
    if (rc < 0)
        return;
    log_append(n, ev, &fx, values);
    check_node(n, fx.role_changed);
    if (fx.members_changed || fx.truncate_from != 0 || chance(10))
        check_members(n);
    note(n->id ^ n->st.term << 8 ^ n->st.last_index << 20 ^ n->st.committed << 40 ^ (uint64_t)n->st.role << 60);
    if (fx.role_changed)
        trace("%" PRIu64 " is %s of term %" PRIu64 "%s", n->id, raft_role_name(n->st.role), n->st.term,
              n->st.ready ? ", ready" : "");
    if (fx.write != 0)
        write_put(n, &fx);
    if (fx.apply_to > n->apply_to)
        n->apply_to = fx.apply_to;
    apply_arm(n);
    reads_released(n, &fx);
    timer_set(n, fx.wake_at.ms);
    size_t n_msgs = fx.n_msgs;
    memcpy(msgs, fx.msgs, n_msgs * sizeof *msgs);
    for (size_t i = 0; i < n_msgs; i++)
        more |= send_one(n, &msgs[i]);
    if (more) {
        struct raft_event tick = { .type = RAFT_EV_TICK };
        step(n, &tick);
    }
}

static void step(struct node *n, struct raft_event *ev)
{
    step_values(n, ev, NULL, NULL);
}

/* ---- applying, and what clients hear of it ---- */

static void answer_writes(struct node *n, uint64_t index, const struct entry *e)
{
    for (unsigned k = 0; e->value != 0 && k < OPS; k++) {
        struct op *o = &w.ops[k];
        if (!o->busy || o->reads || o->value != e->value || o->slot != slot(n) || o->life != n->life)
            continue;
        checks_wrote(&w.checks, o->floor, o->value, index);
        w.res->writes++;
        o->busy = false;
    }
}

static void answer_reads(struct node *n)
{
    for (unsigned k = 0; k < OPS; k++) {
        struct op *o = &w.ops[k];
        if (!o->busy || !o->reads || o->read_index == 0 || o->slot != slot(n) || o->life != n->life ||
            n->applied < o->read_index)
            continue;
        checks_read(&w.checks, o->floor, n->applied);
        w.res->reads++;
        o->busy = false;
    }
}

static void on_apply(struct node *n)
{
    n->apply_due = false;
    if (n->applied >= n->apply_to)
        return;
    for (uint64_t i = n->applied + 1; i <= n->apply_to; i++) {
        CHECK(i >= n->disk.first && i <= n->disk.last); /* what is applied is on this disk */
        const struct entry *e = &n->disk.e[i];
        checks_committed(&w.checks, n->id, i, e, n->st.term);
        n->applied = i;
        if (e->type == RAFT_ENTRY_MEMBERS)
            n->applied_members = e->members;
        answer_writes(n, i, e);
    }
    struct raft_event ev = { .type = RAFT_EV_APPLIED, .index = n->applied };
    step(n, &ev);
    answer_reads(n);
}

static void compact(struct node *n)
{
    struct disk *d = &n->disk;
    if (n->applied <= d->snap_index || n->n_writes > 0 || w.pool[n->applied_members].n == 0)
        return;
    uint64_t keep = n->applied + 1 - d->first; /* that many could stay */
    d->snap_index = n->applied;
    d->snap_term = d->e[n->applied].term;
    d->snap_members = n->applied_members;
    d->first = chance(500) ? n->applied + 1 : n->applied + 1 - rnd(keep + 1);
    trace("%" PRIu64 " compacts: snapshot %" PRIu64 ", log from %" PRIu64, n->id, d->snap_index, d->first);
    struct raft_event ev = { .type = RAFT_EV_COMPACTED, .index = d->snap_index, .first_kept = d->first };
    step(n, &ev);
}

/* ---- up and down ---- */

static uint64_t term_of(void *arg, uint64_t index)
{
    return ((struct node *)arg)->disk.e[index].term;
}

static void node_start(struct node *n, bool reboot)
{
    struct raft_members_at changes[INDEX_MAX / 4];
    struct disk *d = &n->disk;
    struct err e = ERR_INIT;
    size_t n_changes = 0;
    struct raft_config c = { .id = n->id,
                             .seed = rnd(UINT64_MAX),
                             .heartbeat_ms = w.heartbeat_ms,
                             .election_ms = w.election_ms,
                             .inflight_msgs_max = 2 + (uint32_t)rnd(32),
                             .inflight_bytes_max = 1000 + rnd(10000),
                             .append_entries_max = 10 + (uint32_t)rnd(64) };
    c.members = w.pool[d->snap_members];
    if (reboot || n->applied > d->last || n->applied < d->snap_index) {
        n->applied = d->snap_index;
        n->applied_members = d->snap_members;
    }
    for (uint64_t i = d->snap_index + 1; i <= d->last; i++)
        if (d->e[i].type == RAFT_ENTRY_MEMBERS) {
            CHECK(n_changes < INDEX_MAX / 4);
            changes[n_changes++] = (struct raft_members_at){ i, w.pool[d->e[i].members] };
        }
    struct raft_log_state l = { .hard_state = d->hs,
                                .snapshot_index = d->snap_index,
                                .snapshot_term = d->snap_term,
                                .applied = n->applied,
                                .first_index = d->first,
                                .last_index = d->last,
                                .members = changes,
                                .n_members = n_changes };
    memcpy(n->log, d->e, (d->last + 1) * sizeof *n->log);
    n->apply_to = n->checked = n->applied;
    n->up = true;
    n->life++;
    n->timer_at = n->paused_until = 0;
    n->disk_busy = n->apply_due = false;
    if (raft_new(&n->core, &c, &l, term_of, n, &e) < 0) {
        checks_fail(&w.checks, "%" PRIu64 " does not start: %s", n->id, e.msg);
        longjmp(w.out, 1);
    }
    trace("%" PRIu64 " starts: term %" PRIu64 " vote %" PRIu64 " log %" PRIu64 "..%" PRIu64 " applied %" PRIu64, n->id,
          d->hs.term, d->hs.vote, d->first, d->last, n->applied);
    struct raft_event ev = { .type = RAFT_EV_TICK };
    step(n, &ev);
}

static void hints(raft_id id, uint64_t within_us)
{
    for (unsigned i = 0; i < SLOTS; i++)
        if (w.nodes[i].id != 0 && w.nodes[i].up && w.nodes[i].id != id)
            put((struct event){
                .at = w.now + rnd(within_us), .type = E_HINT, .slot = i, .life = w.nodes[i].life, .peer = id });
}

/* node_stop - of the writes under way the first few may have reached the disk; the others are lost. */
static void node_stop(struct node *n)
{
    unsigned done = n->n_writes > 0 ? (unsigned)rnd(n->n_writes + 1) : 0;
    trace("%" PRIu64 " dies; %u of %u writes are on disk", n->id, done, n->n_writes);
    for (unsigned i = 0; n->n_writes > 0; i++, n->n_writes--) {
        struct write *wr = &n->writes[n->writes_head];
        if (i < done) {
            write_carry_out(n, wr);
            if (wr->install_index != 0)
                n->applied = 0; /* the state machine's restart was not seen */
        }
        write_forget(wr);
        n->writes_head = (n->writes_head + 1) % WRITES;
    }
    n->core = raft_free(n->core);
    n->up = false;
    n->life++;
    for (unsigned k = 0; k < OPS; k++)
        if (w.ops[k].slot == slot(n))
            w.ops[k].busy = false; /* the client never learns what became of it */
    w.res->crashes++;
}

static struct node *node_make(uint16_t members, bool fresh)
{
    unsigned i = 0;
    while (i < SLOTS && w.nodes[i].id != 0)
        i++;
    if (i == SLOTS || w.next_id == IDS)
        return NULL;
    struct node *n = &w.nodes[i];
    uint64_t life = n->life;
    struct entry *log = n->log, *e = n->disk.e;
    *n = (struct node){ .id = w.next_id++, .life = life + 1, .log = log };
    n->disk = (struct disk){ .first = 1, .snap_members = members, .e = e };
    n->applied_members = members;
    n->fresh = fresh;
    n->rate = 0.85 + (double)rnd(300) / 1000.0;
    n->offset = rnd(100000);
    n->sync_disk = chance(400);
    n->slow_disk = chance(100);
    w.slot_of[n->id] = i;
    for (unsigned k = 0; k < SLOTS; k++)
        w.cut[i][k] = w.cut[k][i] = false;
    return n;
}

static void node_wipe(struct node *n)
{
    trace("%" PRIu64 " is gone for good", n->id);
    if (n->up)
        node_stop(n);
    n->id = 0;
}

/* ---- clients ---- */

static struct node *random_node(void)
{
    unsigned at = (unsigned)rnd(SLOTS);
    for (unsigned i = 0; i < SLOTS; i++) {
        struct node *n = &w.nodes[(at + i) % SLOTS];
        if (n->id != 0 && n->up && n->paused_until <= w.now)
            return n;
    }
    return NULL;
}

/* A node that thinks it leads; not always the newest one. */
static struct node *some_leader(void)
{
    struct node *best = NULL;
    for (unsigned i = 0; i < SLOTS; i++) {
        struct node *n = &w.nodes[i];
        if (n->id == 0 || !n->up || n->st.role != RAFT_LEADER || n->paused_until > w.now)
            continue;
        if (best == NULL || chance(500))
            best = n;
    }
    return best;
}

static void client_write(struct node *n)
{
    uint64_t values[5];
    unsigned want = 1 + (unsigned)rnd(5), got = 0;
    for (unsigned k = 0; k < OPS && got < want; k++) {
        struct op *o = &w.ops[k];
        if (o->busy && o->deadline > w.now)
            continue;
        values[got++] = ++w.next_value;
        *o = (struct op){ .busy = true,
                          .value = w.next_value,
                          .floor = checks_began(&w.checks),
                          .deadline = w.now + 5 * w.election_ms * MS,
                          .slot = slot(n),
                          .life = n->life };
    }
    if (got == 0)
        return;
    struct raft_event ev = { .type = RAFT_EV_PROPOSE, .n_entries = got, .bytes = 100ull * got };
    int rc = 0;
    step_values(n, &ev, values, &rc);
    for (unsigned k = 0; rc < 0 && k < OPS; k++)
        if (w.ops[k].busy && !w.ops[k].reads && w.ops[k].value > w.next_value - got)
            w.ops[k].busy = false;
}

static void client_read(struct node *n)
{
    for (unsigned k = 0; k < OPS; k++) {
        struct op *o = &w.ops[k];
        if (o->busy && o->deadline > w.now)
            continue;
        *o = (struct op){ .busy = true,
                          .reads = true,
                          .cookie = ++w.next_cookie,
                          .floor = checks_began(&w.checks),
                          .deadline = w.now + 5 * w.election_ms * MS,
                          .slot = slot(n),
                          .life = n->life };
        struct raft_event ev = { .type = RAFT_EV_READ, .cookie = o->cookie };
        int rc = 0;
        step_values(n, &ev, NULL, &rc);
        if (rc < 0)
            o->busy = false;
        return;
    }
}

static void on_client(void)
{
    struct node *n = chance(850) ? some_leader() : random_node();
    put((struct event){ .at = w.now + rnd(2 * w.client_us) + 1, .type = E_CLIENT });
    if (n == NULL)
        return;
    bool room = n->st.last_index < INDEX_MAX - 600;
    if (chance(600) && room)
        client_write(n);
    else
        client_read(n);
}

/* ---- operators ---- */

/* committed_members - what the whole group agreed on last. */
static const struct raft_members *committed_members(void)
{
    for (uint64_t i = w.checks.n_committed; i > 0; i--)
        if (w.checks.committed[i].type == RAFT_ENTRY_MEMBERS)
            return &w.pool[w.checks.committed[i].members];
    return &w.pool[1];
}

static int propose_change(struct node *leader, enum raft_change change, raft_id id)
{
    struct raft_event ev = { .type = RAFT_EV_MEMBERS, .change = change, .member = id };
    int rc = 0;
    if (leader->st.last_index > INDEX_MAX - 300)
        return -1;
    step_values(leader, &ev, NULL, &rc);
    trace("%" PRIu64 " change %d of %" PRIu64 ": %d", leader->id, (int)change, id, rc);
    if (rc == 0)
        w.res->changes++;
    return rc;
}

static enum { NO_MEMBER, VOTER, LEARNER } kind_in(const struct raft_members *m, raft_id id)
{
    for (size_t i = 0; i < m->n; i++)
        if (m->v[i].id == id)
            return m->v[i].learner ? LEARNER : VOTER;
    return NO_MEMBER;
}

static void operator_add(struct node *leader)
{
    struct node *n = NULL;
    for (unsigned i = 0; i < SLOTS; i++)
        if (w.nodes[i].id != 0 && w.nodes[i].fresh && w.nodes[i].up)
            n = &w.nodes[i];
    if (n == NULL) {
        n = node_make(0, true);
        if (n == NULL)
            return;
        node_start(n, true);
    }
    (void)propose_change(leader, RAFT_ADD_LEARNER, n->id);
}

/* What was removed, and everybody knows it, is switched off at some time; until then it may disturb. */
static void wipe_removed(void)
{
    const struct raft_members *m = committed_members();
    for (unsigned i = 0; i < SLOTS; i++) {
        struct node *n = &w.nodes[i];
        if (n->id == 0)
            continue;
        if (kind_in(m, n->id) != NO_MEMBER)
            n->fresh = false;
        else if (!n->fresh && chance(100))
            node_wipe(n);
    }
}

static void operate(struct node *leader)
{
    const struct raft_members *m = &leader->st.members;
    if (m->n == 0)
        return;
    const struct raft_member *one = &m->v[rnd(m->n)];
    size_t voters = 0;
    for (size_t i = 0; i < m->n; i++)
        voters += !m->v[i].learner;
    struct raft_event transfer = { .type = RAFT_EV_TRANSFER, .member = chance(300) ? 0 : one->id };
    switch (rnd(6)) {
    case 0:
        if (m->n < SLOTS - 1)
            operator_add(leader);
        break;
    case 1:
    case 2:
        for (size_t i = 0; i < m->n; i++)
            if (m->v[i].learner && propose_change(leader, RAFT_PROMOTE, m->v[i].id) == 0)
                break;
        break;
    case 3:
        if (voters > 2 || (voters == 2 && chance(200)) || one->learner)
            (void)propose_change(leader, RAFT_REMOVE, one->id);
        break;
    case 4:
        (void)propose_change(leader, RAFT_SAME_MEMBERS, 0);
        break;
    default:
        w.res->transfers++;
        step_values(leader, &transfer, NULL, &(int){ 0 });
    }
}

static void on_operator(void)
{
    put((struct event){ .at = w.now + rnd(2 * w.operator_us) + 1, .type = E_OPERATOR });
    wipe_removed();
    struct node *leader = some_leader();
    if (leader != NULL && w.chaos)
        operate(leader);
}

/* ---- chaos ---- */

static void crash(struct node *n)
{
    bool told = chance(600);
    node_stop(n);
    if (told)
        hints(n->id, 30 * MS);
    put((struct event){ .at = w.now + rnd(w.down_us), .type = E_START, .slot = slot(n), .life = n->life });
}

static void chaos_crash(void)
{
    struct node *n = chance(400) ? some_leader() : random_node();
    if (n != NULL)
        crash(n);
}

static void chaos_cut(void)
{
    unsigned kind = (unsigned)rnd(4), mask = (unsigned)rnd(1u << SLOTS);
    bool one_way = chance(300);
    for (unsigned a = 0; a < SLOTS; a++)
        for (unsigned b = 0; b < SLOTS; b++) {
            bool split = (mask >> a & 1) != (mask >> b & 1);
            if (kind == 0)
                w.cut[a][b] = false;
            else if (kind == 1 && a != b && chance(150))
                w.cut[a][b] = true;
            else if (kind >= 2 && split)
                w.cut[a][b] = !(one_way && (mask >> a & 1));
        }
    trace("cut: kind %u mask %x%s", kind, mask, one_way ? " one way" : "");
}

static void chaos_isolate_leader(void)
{
    struct node *n = some_leader();
    for (unsigned b = 0; n != NULL && b < SLOTS; b++)
        w.cut[slot(n)][b] = w.cut[b][slot(n)] = b != slot(n);
    if (n == NULL)
        return;
    trace("%" PRIu64 " is cut off", n->id);
    if (chance(600))
        hints(n->id, 30 * MS);
}

static void heal_links(void)
{
    memset(w.cut, 0, sizeof w.cut);
}

/*
 * A leader cut off in the middle of a change of members; its successor is told to remove it at once; then the first one
 * comes back, with a majority of its own configuration if it can have one (the bug of July 2015 in Raft thesis §4.1).
 */
static void chaos_feud(void)
{
    struct node *n = w.feud_id != 0 ? node_of(w.feud_id) : NULL;
    if (n == NULL) {
        n = some_leader();
        if (n == NULL)
            return;
        w.feud_id = n->id;
        chaos_isolate_leader();
        const struct raft_members *m = &n->st.members;
        (void)propose_change(n, RAFT_REMOVE, m->v[rnd(m->n)].id);
        return;
    }
    unsigned with = 1u << slot(n) | 1u << rnd(SLOTS);
    for (unsigned a = 0; a < SLOTS; a++)
        for (unsigned b = 0; b < SLOTS; b++)
            w.cut[a][b] = (with >> a & 1) != (with >> b & 1);
    hints(w.feud_id, 30 * MS);
    w.feud_id = 0;
}

static void on_chaos(void)
{
    put((struct event){ .at = w.now + rnd(2 * w.chaos_us) + 1, .type = E_CHAOS });
    struct node *n = random_node();
    if (!w.chaos || n == NULL)
        return;
    if (w.feud && chance(800)) {
        chaos_feud();
        return;
    }
    switch (rnd(13)) {
    case 0:
    case 1:
    case 2:
        chaos_crash();
        break;
    case 3:
    case 4:
        chaos_cut();
        break;
    case 5:
        chaos_isolate_leader();
        break;
    case 6:
    case 7:
        heal_links();
        break;
    case 8:
        n->disk_broken = chance(300);
        break;
    case 9:
        hints(n->id, 20 * MS);
        break;
    case 10:
        if (chance(400))
            n = some_leader();
        if (n != NULL) {
            n->paused_until = w.now + rnd(3 * w.election_ms * MS);
            trace("%" PRIu64 " stands still", n->id);
        }
        break;
    default:
        compact(n);
    }
}

/* ---- the run ---- */

static void on_snapshot(struct node *n, struct event *ev)
{
    struct node *to = node_of(ev->peer);
    struct packet *p = ev->packet;
    struct raft_event result = { .type = RAFT_EV_SNAPSHOT_FAILED, .member = ev->peer };
    bool through = to != NULL && to->up && !w.cut[slot(n)][slot(to)] && !w.cut[slot(to)][slot(n)];
    if (through && !(w.chaos && chance(200))) {
        uint64_t life = to->life;
        struct raft_event got = { .type = RAFT_EV_SNAPSHOT_RECEIVED,
                                  .index = p->snapshot_index,
                                  .term = p->snapshot_term,
                                  .members = &w.pool[p->snapshot_members] };
        to->received_members = p->snapshot_members;
        step(to, &got);
        if (to->life == life)
            result.type = RAFT_EV_SNAPSHOT_SENT;
    }
    step(n, &result);
}

static void on_message(struct node *n, struct packet *p)
{
    struct raft_event ev = { .type = RAFT_EV_MESSAGE, .msg = &p->msg };
    if (n->up && n->id == p->msg.to)
        step(n, &ev);
}

static void on_timer(struct node *n)
{
    struct raft_event ev = { .type = RAFT_EV_TICK };
    n->timer_at = 0;
    if (clock_of(n).ms >= n->wake)
        step(n, &ev);
    else
        timer_set(n, n->wake);
}

/* on_event - ev->packet is NULL behind it when it is still needed. */
static void on_event(struct event *ev)
{
    struct node *n = &w.nodes[ev->slot];
    bool of_node = ev->type != E_CLIENT && ev->type != E_OPERATOR && ev->type != E_CHAOS && ev->type != E_START;
    if (of_node && n->paused_until > w.now) {
        ev->at = n->paused_until + rnd(MS);
        put(*ev);
        ev->packet = NULL;
        return;
    }
    if (ev->type == E_CLIENT) {
        on_client();
    } else if (ev->type == E_OPERATOR) {
        on_operator();
    } else if (ev->type == E_CHAOS) {
        on_chaos();
    } else if (ev->type == E_MESSAGE) {
        on_message(n, ev->packet);
    } else if (n->id == 0 || ev->life != n->life) {
        return;
    } else if (ev->type == E_START) {
        node_start(n, chance(500));
    } else if (ev->type == E_TIMER) {
        on_timer(n);
    } else if (ev->type == E_DISK) {
        on_disk(n);
    } else if (ev->type == E_APPLY) {
        on_apply(n);
    } else if (ev->type == E_SNAPSHOT) {
        on_snapshot(n, ev);
    } else if (ev->type == E_KILL) {
        if (w.chaos)
            crash(n);
    } else if (ev->type == E_HASTY) {
        if (w.chaos && w.feud_id != 0)
            (void)propose_change(n, RAFT_REMOVE, w.feud_id);
        else if (w.chaos)
            operate(n);
    } else if (ev->type == E_HINT) {
        struct raft_event hint = { .type = RAFT_EV_LINK_LOST, .member = ev->peer };
        step(n, &hint);
    }
}

static bool run_until(uint64_t end, bool (*done)(void))
{
    while (w.n_heap > 0 && w.heap[0].at < end && w.res->what[0] == 0) {
        struct event ev = take();
        w.now = ev.at;
        note(ev.at ^ (uint64_t)ev.type << 56);
        on_event(&ev);
        packet_free(ev.packet);
        if (done != NULL && done())
            return true;
    }
    return false;
}

/* well - a leader of the committed configuration, and all its members have applied all that is committed. */
static bool well(void)
{
    const struct raft_members *m = committed_members();
    bool leader = false;
    for (size_t i = 0; i < m->n; i++) {
        struct node *n = node_of(m->v[i].id);
        if (n == NULL || !n->up || n->applied != w.checks.n_committed || n->st.last_index != n->applied)
            return false;
        leader |= n->st.ready;
    }
    return leader;
}

static uint64_t healed_index, healed_writes;

static bool recovered(void)
{
    return w.res->writes > healed_writes && w.checks.n_committed > healed_index && well();
}

/* heal - faults stop. From here on the group must get well by itself (Raft §5.6: availability). */
static void heal(void)
{
    w.chaos = false;
    w.loss = w.dup = w.reorder = w.late = w.kill_new = w.hasty = 0;
    w.fifo = true;
    w.append_max = 64;
    w.client_us = 200 * MS;
    heal_links();
    trace("---- healed ----");
    for (unsigned i = 0; i < SLOTS; i++) {
        struct node *n = &w.nodes[i];
        n->disk_broken = n->slow_disk = false;
        n->paused_until = 0;
        if (n->id != 0 && !n->up)
            node_start(n, true);
    }
    healed_index = w.checks.n_committed;
    healed_writes = w.res->writes;
    if (!run_until(w.now + HEAL_MS * MS, recovered) && w.res->what[0] == 0)
        checks_fail(&w.checks, "liveness: no progress, or no agreement, %llu s after the last fault", HEAL_MS / 1000);
}

static void draw(void)
{
    static const uint64_t delays[] = { 100, 500, 2000, 10000, 40000 };
    static const uint64_t beats[] = { 20, 50, 100 };
    w.delay_us = delays[rnd(5)];
    w.heartbeat_ms = beats[rnd(3)];
    w.election_ms = w.heartbeat_ms * (5 + rnd(6));
    if (w.election_ms < w.delay_us / 100)
        w.election_ms = w.delay_us / 100;
    w.late = chance(300) ? (unsigned)rnd(60) : 0;
    w.kill_new = chance(300) ? (unsigned)rnd(900) : 0;
    w.hasty = chance(300) ? (unsigned)rnd(900) : 0;
    w.down_us = chance(400) ? w.election_ms * MS / 5 : 3 * w.election_ms * MS;
    w.loss = chance(500) ? (unsigned)rnd(150) : 0;
    w.dup = chance(500) ? (unsigned)rnd(150) : 0;
    w.reorder = chance(500) ? (unsigned)rnd(200) : 0;
    w.fifo = w.reorder == 0 && w.late == 0 && chance(500);
    w.apply_lag = chance(500) ? (unsigned)rnd(500) : 0;
    w.append_max = 1 + (unsigned)rnd(chance(500) ? 4 : 64);
    w.client_us = w.election_ms * MS / (2 + rnd(40));
    w.chaos_us = w.election_ms * MS * (1 + rnd(40)) / 10;
    w.operator_us = w.election_ms * MS * (1 + rnd(60)) / 10;
    w.feud = chance(80);
    if (w.feud) {
        w.hasty = 900;
        w.chaos_us = w.election_ms * MS * 3 / 2;
        w.operator_us = w.election_ms * MS * 2;
    }
    w.chaos = true;
}

static void first_nodes(void)
{
    static const unsigned sizes[] = { 1, 2, 3, 3, 3, 4, 5, 5 };
    unsigned size = w.feud ? 4 : sizes[rnd(8)];
    struct raft_members m = { .n = size };
    for (unsigned i = 0; i < size; i++)
        m.v[i] = (struct raft_member){ i + 1, false };
    uint16_t members = pool_add(&m);
    for (unsigned i = 0; i < size; i++)
        node_start(node_make(members, false), true);
}

static void world_begin(const struct options *o, struct result *ret)
{
    struct entry *logs[SLOTS], *disks[SLOTS];
    struct event *heap = w.heap;
    size_t cap = w.cap_heap;
    for (unsigned i = 0; i < SLOTS; i++) { /* kept from run to run */
        logs[i] = w.nodes[i].log ? w.nodes[i].log : calloc(INDEX_MAX + 1, sizeof **logs);
        disks[i] = w.nodes[i].disk.e ? w.nodes[i].disk.e : calloc(INDEX_MAX + 1, sizeof **disks);
        CHECK(logs[i] != NULL && disks[i] != NULL);
    }
    memset(&w, 0, sizeof w);
    w.heap = heap;
    w.cap_heap = cap;
    for (unsigned i = 0; i < SLOTS; i++) {
        w.nodes[i].log = logs[i];
        w.nodes[i].disk.e = disks[i];
    }
    *ret = (struct result){ 0 };
    w.opt = o;
    w.res = ret;
    w.rng = o->seed * 0x2545f4914f6cdd1du + 1;
    w.next_id = 1;
    w.n_pool = 1;
    checks_init(&w.checks, ret->what, sizeof ret->what);
    draw();
}

static void world_end(void)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        struct node *n = &w.nodes[i];
        for (; n->n_writes > 0; n->n_writes--) {
            write_forget(&n->writes[n->writes_head]);
            n->writes_head = (n->writes_head + 1) % WRITES;
        }
        n->core = raft_free(n->core);
    }
    while (w.n_heap > 0)
        packet_free(w.heap[--w.n_heap].packet);
    checks_done(&w.checks);
    w.res->failed = w.res->what[0] != 0;
}

void world_core_failed(const char *what)
{
    checks_fail(&w.checks, "the core's own check: %s", what);
    longjmp(w.out, 1);
}

bool world_run(const struct options *o, struct result *ret)
{
    world_begin(o, ret);
    if (setjmp(w.out) == 0) {
        uint64_t length = o->sim_ms ? o->sim_ms : w.election_ms * (10 + rnd(60));
        first_nodes();
        put((struct event){ .at = w.election_ms * MS, .type = E_CLIENT });
        put((struct event){ .at = 2 * w.election_ms * MS, .type = E_CHAOS });
        put((struct event){ .at = 2 * w.election_ms * MS, .type = E_OPERATOR });
        (void)run_until(length * MS, NULL);
        if (ret->what[0] == 0)
            heal();
    }
    world_end();
    return !ret->failed;
}
