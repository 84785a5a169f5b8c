/* raft_world.c - see raft_world.h: time, the network, disks, the nodes' shells, and the run. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/raft_world_priv.h"

struct world w;

/* ---- small things ---- */

uint64_t world_rnd(uint64_t below)
{
    uint64_t z = (w.rng += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

bool world_chance(unsigned of_1000)
{
    return world_rnd(1000) < of_1000;
}

static void note(uint64_t v)
{
    w.res->hash = (w.res->hash ^ v) * 0x100000001b3u;
}

void world_trace(const char *fmt, ...)
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

struct node *world_node_of(raft_id id)
{
    struct node *n = id < IDS ? &w.nodes[w.slot_of[id]] : NULL;
    return n != NULL && n->id == id ? n : NULL;
}

unsigned world_slot(const struct node *n)
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

void world_put(struct event ev)
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
    world_put((struct event){ .at = at, .type = E_TIMER, .slot = world_slot(n), .life = n->life });
}

/* ---- the network ---- */

static uint64_t latency(void)
{
    uint64_t d = w.delay_us / 2 + world_rnd(w.delay_us + 1);
    if (world_chance(w.reorder))
        d += world_rnd(20 * w.delay_us + 1);
    if (world_chance(w.late)) /* when everybody has forgotten it */
        d += world_rnd(4 * w.election_ms * MS);
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
    if (w.fifo && at <= w.last_arrival[from][world_slot(to)])
        at = w.last_arrival[from][world_slot(to)] + 1;
    w.last_arrival[from][world_slot(to)] = at;
    world_put((struct event){ .at = at, .type = E_MESSAGE, .slot = world_slot(to), .peer = p->msg.from, .packet = p });
}

static void send_packet(struct node *n, const struct raft_msg *m, uint64_t entries_to)
{
    struct node *to = world_node_of(m->to);
    w.res->messages++;
    if (to == NULL || w.cut[world_slot(n)][world_slot(to)] || world_chance(w.loss))
        return;
    deliver_later(world_slot(n), to, packet_new(m, n, entries_to));
    if (world_chance(w.dup))
        deliver_later(world_slot(n), to, packet_new(m, n, entries_to));
}

static void snapshot_begin(struct node *n, const struct raft_msg *m)
{
    struct packet *p = calloc(1, sizeof *p);
    CHECK(p != NULL);
    p->snapshot_index = n->disk.snap_index; /* the newest it has */
    p->snapshot_term = n->disk.snap_term;
    p->snapshot_members = n->disk.snap_members;
    world_trace("%" PRIu64 " streams its snapshot %" PRIu64 " to %" PRIu64, n->id, p->snapshot_index, m->to);
    CHECK(p->snapshot_index >= m->index);
    world_put((struct event){ .at = w.now + 5 * latency() + world_rnd(w.election_ms * MS),
                              .type = E_SNAPSHOT,
                              .slot = world_slot(n),
                              .life = n->life,
                              .peer = m->to,
                              .packet = p });
}

/* ---- the disk ---- */

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
    world_step(n, &ev);
}

static void disk_fail(struct node *n)
{
    struct raft_event ev = { .type = RAFT_EV_WRITE_FAILED, .write = n->writes[n->writes_head].id };
    world_trace("%" PRIu64 " disk refuses write %" PRIu64, n->id, ev.write);
    for (; n->n_writes > 0; n->n_writes--) {
        write_forget(&n->writes[n->writes_head]);
        n->writes_head = (n->writes_head + 1) % WRITES;
    }
    world_step(n, &ev);
}

static void disk_arm(struct node *n)
{
    if (n->n_writes == 0 || n->disk_busy)
        return;
    n->disk_busy = true;
    uint64_t d = n->sync_disk ? 0 : 200 + world_rnd(n->slow_disk ? 60 * MS : 4 * MS);
    world_put((struct event){ .at = w.now + d, .type = E_DISK, .slot = world_slot(n), .life = n->life });
}

static void on_disk(struct node *n)
{
    n->disk_busy = false;
    if (n->n_writes == 0)
        return;
    if (n->disk_broken || (w.chaos && world_chance(2)))
        disk_fail(n);
    else
        disk_done(n, n->sync_disk ? n->n_writes : 1 + (unsigned)world_rnd(n->n_writes));
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
            if (world_chance(w.kill_new))
                world_put((struct event){ .at = w.now + world_rnd(8 * w.delay_us + 10 * MS),
                                          .type = E_KILL,
                                          .slot = world_slot(n),
                                          .life = n->life });
            if (world_chance(w.hasty))
                world_put((struct event){
                    .at = w.now + world_rnd(2 * w.delay_us), .type = E_HASTY, .slot = world_slot(n), .life = n->life });
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
    world_put((struct event){ .at = w.now + (world_chance(w.apply_lag) ? world_rnd(50 * MS) : 0),
                              .type = E_APPLY,
                              .slot = world_slot(n),
                              .life = n->life });
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
    world_trace("%" PRIu64 " -> %" PRIu64 " %s term=%" PRIu64 " index=%" PRIu64 "/%" PRIu64 " commit=%" PRIu64
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
    if (world_chance(30))
        to = m->entries_from - 1;
    else if (to - m->entries_from >= w.append_max)
        to = m->entries_from + world_rnd(w.append_max);
    bytes = (to + 1 - m->entries_from) * 100;
    if (to >= m->entries_from)
        send_packet(n, m, to);
    if (world_chance(900) || to != m->entries_to)
        return raft_sent(n->core, m->to, to, bytes);
    return false;
}

/* What raft.h promises of them: at most one append with entries to a member, and its entries are in the log. */
static void check_messages(struct node *n, const struct raft_msg *m, size_t count)
{
    unsigned appends[IDS] = { 0 };
    for (size_t i = 0; i < count; i++) {
        if (m[i].from != n->id || m[i].to == 0 || m[i].to == n->id || m[i].to >= IDS)
            checks_fail(&w.checks, "%" PRIu64 " sends a message to %" PRIu64, n->id, m[i].to);
        else if (m[i].type == RAFT_MSG_APPEND && m[i].entries_from <= m[i].entries_to &&
                 (appends[m[i].to]++ > 0 || m[i].entries_from != m[i].index + 1 ||
                  m[i].entries_from < n->st.first_index || m[i].entries_to > n->st.last_index))
            checks_fail(&w.checks,
                        "%" PRIu64 " sends %" PRIu64 " entries %" PRIu64 "..%" PRIu64 " of %" PRIu64 "..%" PRIu64,
                        n->id, m[i].to, m[i].entries_from, m[i].entries_to, n->st.first_index, n->st.last_index);
    }
}

void world_step_values(struct node *n, struct raft_event *ev, const uint64_t *values, int *ret)
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
    if (fx.members_changed || fx.truncate_from != 0 || world_chance(10))
        check_members(n);
    note(n->id ^ n->st.term << 8 ^ n->st.last_index << 20 ^ n->st.committed << 40 ^ (uint64_t)n->st.role << 60);
    if (fx.role_changed)
        world_trace("%" PRIu64 " is %s of term %" PRIu64 "%s", n->id, raft_role_name(n->st.role), n->st.term,
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
    check_messages(n, msgs, n_msgs);
    for (size_t i = 0; i < n_msgs; i++)
        more |= send_one(n, &msgs[i]);
    if (more) {
        struct raft_event tick = { .type = RAFT_EV_TICK };
        world_step(n, &tick);
    }
}

void world_step(struct node *n, struct raft_event *ev)
{
    world_step_values(n, ev, NULL, NULL);
}

/* ---- applying, and what clients hear of it ---- */

static void answer_writes(struct node *n, uint64_t index, const struct entry *e)
{
    for (unsigned k = 0; e->value != 0 && k < OPS; k++) {
        struct op *o = &w.ops[k];
        if (!o->busy || o->reads || o->value != e->value || o->slot != world_slot(n) || o->life != n->life)
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
        if (!o->busy || !o->reads || o->read_index == 0 || o->slot != world_slot(n) || o->life != n->life ||
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
    world_step(n, &ev);
    answer_reads(n);
}

void world_compact(struct node *n)
{
    struct disk *d = &n->disk;
    if (n->applied <= d->snap_index || n->n_writes > 0 || w.pool[n->applied_members].n == 0)
        return;
    uint64_t keep = n->applied + 1 - d->first; /* that many could stay */
    d->snap_index = n->applied;
    d->snap_term = d->e[n->applied].term;
    d->snap_members = n->applied_members;
    d->first = world_chance(500) ? n->applied + 1 : n->applied + 1 - world_rnd(keep + 1);
    world_trace("%" PRIu64 " compacts: snapshot %" PRIu64 ", log from %" PRIu64, n->id, d->snap_index, d->first);
    struct raft_event ev = { .type = RAFT_EV_COMPACTED, .index = d->snap_index, .first_kept = d->first };
    world_step(n, &ev);
}

/* ---- up and down ---- */

static uint64_t term_of(void *arg, uint64_t index)
{
    return ((struct node *)arg)->disk.e[index].term;
}

void world_node_start(struct node *n, bool reboot)
{
    struct raft_members_at changes[INDEX_MAX / 4];
    struct disk *d = &n->disk;
    struct err e = ERR_INIT;
    size_t n_changes = 0;
    struct raft_config c = { .id = n->id,
                             .seed = world_rnd(UINT64_MAX),
                             .heartbeat_ms = w.heartbeat_ms,
                             .election_ms = w.election_ms,
                             .inflight_msgs_max = 2 + (uint32_t)world_rnd(32),
                             .inflight_bytes_max = 1000 + world_rnd(10000),
                             .append_entries_max = 10 + (uint32_t)world_rnd(64) };
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
    world_trace("%" PRIu64 " starts: term %" PRIu64 " vote %" PRIu64 " log %" PRIu64 "..%" PRIu64 " applied %" PRIu64,
                n->id, d->hs.term, d->hs.vote, d->first, d->last, n->applied);
    struct raft_event ev = { .type = RAFT_EV_TICK };
    world_step(n, &ev);
}

void world_hints(raft_id id, uint64_t within_us)
{
    for (unsigned i = 0; i < SLOTS; i++)
        if (w.nodes[i].id != 0 && w.nodes[i].up && w.nodes[i].id != id)
            world_put((struct event){
                .at = w.now + world_rnd(within_us), .type = E_HINT, .slot = i, .life = w.nodes[i].life, .peer = id });
}

/* node_stop - of the writes under way the first few may have reached the disk; the others are lost. */
void world_node_stop(struct node *n)
{
    unsigned done = n->n_writes > 0 ? (unsigned)world_rnd(n->n_writes + 1) : 0;
    world_trace("%" PRIu64 " dies; %u of %u writes are on disk", n->id, done, n->n_writes);
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
        if (w.ops[k].slot == world_slot(n))
            w.ops[k].busy = false; /* the client never learns what became of it */
    w.res->crashes++;
}

struct node *world_node_make(uint16_t members, bool fresh)
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
    n->rate = 0.85 + (double)world_rnd(300) / 1000.0;
    n->offset = world_rnd(100000);
    n->sync_disk = world_chance(400);
    n->slow_disk = world_chance(100);
    w.slot_of[n->id] = i;
    for (unsigned k = 0; k < SLOTS; k++)
        w.cut[i][k] = w.cut[k][i] = false;
    return n;
}

void world_node_wipe(struct node *n)
{
    world_trace("%" PRIu64 " is gone for good", n->id);
    if (n->up)
        world_node_stop(n);
    n->id = 0;
}

/* ---- the run ---- */

static void on_snapshot(struct node *n, struct event *ev)
{
    struct node *to = world_node_of(ev->peer);
    struct packet *p = ev->packet;
    struct raft_event result = { .type = RAFT_EV_SNAPSHOT_FAILED, .member = ev->peer };
    bool through =
        to != NULL && to->up && !w.cut[world_slot(n)][world_slot(to)] && !w.cut[world_slot(to)][world_slot(n)];
    if (through && !(w.chaos && world_chance(200))) {
        uint64_t life = to->life;
        struct raft_event got = { .type = RAFT_EV_SNAPSHOT_RECEIVED,
                                  .index = p->snapshot_index,
                                  .term = p->snapshot_term,
                                  .members = &w.pool[p->snapshot_members] };
        to->received_members = p->snapshot_members;
        world_step(to, &got);
        if (to->life == life)
            result.type = RAFT_EV_SNAPSHOT_SENT;
    }
    world_step(n, &result);
}

static void on_message(struct node *n, struct packet *p)
{
    struct raft_event ev = { .type = RAFT_EV_MESSAGE, .msg = &p->msg };
    if (n->up && n->id == p->msg.to)
        world_step(n, &ev);
}

static void on_timer(struct node *n)
{
    struct raft_event ev = { .type = RAFT_EV_TICK };
    n->timer_at = 0;
    if (clock_of(n).ms >= n->wake)
        world_step(n, &ev);
    else
        timer_set(n, n->wake);
}

/* on_event - ev->packet is NULL behind it when it is still needed. */
static void on_event(struct event *ev)
{
    struct node *n = &w.nodes[ev->slot];
    bool of_node = ev->type != E_CLIENT && ev->type != E_OPERATOR && ev->type != E_CHAOS && ev->type != E_START;
    if (of_node && n->paused_until > w.now) {
        ev->at = n->paused_until + world_rnd(MS);
        world_put(*ev);
        ev->packet = NULL;
        return;
    }
    if (ev->type == E_CLIENT) {
        users_client();
    } else if (ev->type == E_OPERATOR) {
        users_operator();
    } else if (ev->type == E_CHAOS) {
        users_chaos();
    } else if (ev->type == E_MESSAGE) {
        on_message(n, ev->packet);
    } else if (n->id == 0 || ev->life != n->life) {
        return;
    } else if (ev->type == E_START) {
        world_node_start(n, world_chance(500));
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
            users_crash(n);
    } else if (ev->type == E_HASTY) {
        if (w.chaos && w.feud_id != 0)
            (void)users_propose(n, RAFT_REMOVE, w.feud_id);
        else if (w.chaos)
            users_operate(n);
    } else if (ev->type == E_HINT) {
        struct raft_event hint = { .type = RAFT_EV_LINK_LOST, .member = ev->peer };
        world_step(n, &hint);
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
    const struct raft_members *m = users_members();
    bool leader = false;
    for (size_t i = 0; i < m->n; i++) {
        struct node *n = world_node_of(m->v[i].id);
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
    users_heal_links();
    world_trace("---- healed ----");
    for (unsigned i = 0; i < SLOTS; i++) {
        struct node *n = &w.nodes[i];
        n->disk_broken = n->slow_disk = false;
        n->paused_until = 0;
        if (n->id != 0 && !n->up)
            world_node_start(n, true);
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
    w.delay_us = delays[world_rnd(5)];
    w.heartbeat_ms = beats[world_rnd(3)];
    w.election_ms = w.heartbeat_ms * (5 + world_rnd(6));
    if (w.election_ms < w.delay_us / 100)
        w.election_ms = w.delay_us / 100;
    w.late = world_chance(300) ? (unsigned)world_rnd(60) : 0;
    w.kill_new = world_chance(300) ? (unsigned)world_rnd(900) : 0;
    w.hasty = world_chance(300) ? (unsigned)world_rnd(900) : 0;
    w.down_us = world_chance(400) ? w.election_ms * MS / 5 : 3 * w.election_ms * MS;
    w.loss = world_chance(500) ? (unsigned)world_rnd(150) : 0;
    w.dup = world_chance(500) ? (unsigned)world_rnd(150) : 0;
    w.reorder = world_chance(500) ? (unsigned)world_rnd(200) : 0;
    w.fifo = w.reorder == 0 && w.late == 0 && world_chance(500);
    w.apply_lag = world_chance(500) ? (unsigned)world_rnd(500) : 0;
    w.append_max = 1 + (unsigned)world_rnd(world_chance(500) ? 4 : 64);
    w.client_us = w.election_ms * MS / (2 + world_rnd(40));
    w.chaos_us = w.election_ms * MS * (1 + world_rnd(40)) / 10;
    w.operator_us = w.election_ms * MS * (1 + world_rnd(60)) / 10;
    w.feud = world_chance(80);
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
    unsigned size = w.feud ? 4 : sizes[world_rnd(8)];
    struct raft_members m = { .n = size };
    for (unsigned i = 0; i < size; i++)
        m.v[i] = (struct raft_member){ i + 1, false };
    uint16_t members = pool_add(&m);
    for (unsigned i = 0; i < size; i++)
        world_node_start(world_node_make(members, false), true);
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
        uint64_t length = o->sim_ms ? o->sim_ms : w.election_ms * (10 + world_rnd(60));
        first_nodes();
        world_put((struct event){ .at = w.election_ms * MS, .type = E_CLIENT });
        world_put((struct event){ .at = 2 * w.election_ms * MS, .type = E_CHAOS });
        world_put((struct event){ .at = 2 * w.election_ms * MS, .type = E_OPERATOR });
        (void)run_until(length * MS, NULL);
        if (ret->what[0] == 0)
            heal();
    }
    world_end();
    return !ret->failed;
}
