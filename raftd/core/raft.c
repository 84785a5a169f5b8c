/*
 * raft.c - the consensus core (Raft: Ongaro and Ousterhout, USENIX ATC 2014; thesis: Ongaro, Stanford 2014): starting,
 * the terms of the log, writes and what waits for them, the steps. See raft_priv.h for the other files.
 */
#include <stdlib.h>

#include "raftd/core/raft_priv.h"

const char *raft_role_name(enum raft_role r)
{
    switch (r) {
    case RAFT_LEADER:
        return "leader";
    case RAFT_CANDIDATE:
    case RAFT_PRECANDIDATE:
        return "candidate";
    case RAFT_FOLLOWER:
        break;
    }
    return "follower";
}

/* ---- terms of the log ---- */

void raft_runs_add(struct raft *r, uint64_t index, uint64_t term)
{
    if (r->n_runs > 0 && r->runs[r->n_runs - 1].term == term)
        return;
    CHECK(r->n_runs == 0 || r->runs[r->n_runs - 1].term < term);
    CHECK(r->n_runs < RAFT_RUNS_MAX); /* raft_runs_room() was asked */
    r->runs[r->n_runs++] = (struct run){ index, term };
}

bool raft_runs_room(const struct raft *r, uint64_t term)
{
    return r->n_runs < RAFT_RUNS_MAX || r->runs[r->n_runs - 1].term == term;
}

static void runs_cut_head(struct raft *r, uint64_t first)
{
    size_t skip = 0;
    while (skip + 1 < r->n_runs && r->runs[skip + 1].first <= first)
        skip++;
    if (first > r->last)
        skip = r->n_runs; /* nothing is left of it */
    if (skip == 0)
        return;
    for (size_t i = skip; i < r->n_runs; i++)
        r->runs[i - skip] = r->runs[i];
    r->n_runs -= skip;
}

uint64_t raft_term_at(const struct raft *r, uint64_t index)
{
    if (index != 0 && index == r->snapshot_index)
        return r->snapshot_term;
    if (index < r->first || index > r->last)
        return 0;
    size_t i = r->n_runs;
    while (i > 0 && r->runs[i - 1].first > index)
        i--;
    return i > 0 ? r->runs[i - 1].term : 0;
}

uint64_t raft_last_term(const struct raft *r)
{
    return raft_term_at(r, r->last);
}

/* ---- starting ---- */

static void defaults(struct raft_config *c)
{
    if (c->heartbeat_ms == 0)
        c->heartbeat_ms = 100;
    if (c->election_ms == 0)
        c->election_ms = 1000;
    if (c->link_lost_ms == 0)
        c->link_lost_ms = 20;
    if (c->inflight_bytes_max == 0)
        c->inflight_bytes_max = 4u << 20;
    if (c->inflight_msgs_max == 0 || c->inflight_msgs_max > INFLIGHT_MAX)
        c->inflight_msgs_max = INFLIGHT_MAX;
    if (c->append_entries_max == 0)
        c->append_entries_max = 1024;
}

static int log_state_check(const struct raft_log_state *l, struct err *e)
{
    if (l->first_index == 0)
        return err_set(e, ERR_INVALID, "raft: the log's first index is 0");
    if (l->first_index > l->snapshot_index + 1)
        return err_set(e, ERR_CORRUPT, "raft: entries %llu to %llu are in neither the log nor the snapshot",
                       U(l->snapshot_index + 1), U(l->first_index - 1));
    if (l->last_index + 1 < l->first_index || l->last_index < l->snapshot_index || l->applied > l->last_index)
        return err_set(e, ERR_CORRUPT, "raft: log %llu..%llu, snapshot %llu and applied %llu do not fit together",
                       U(l->first_index), U(l->last_index), U(l->snapshot_index), U(l->applied));
    uint64_t prev = 0;
    for (size_t i = 0; i < l->n_members; i++) {
        uint64_t index = l->members[i].index;
        if (index <= prev || index > l->last_index || l->members[i].members.n == 0)
            return err_set(e, ERR_CORRUPT, "raft: members in entry %llu after entry %llu", U(index), U(prev));
        int rc = raft_members_check(&l->members[i].members, e);
        if (rc < 0)
            return rc;
        prev = index;
    }
    return 0;
}

static int config_check(const struct raft_config *c, struct err *e)
{
    if (c->id == 0)
        return err_set(e, ERR_INVALID, "raft: a member's number is never 0");
    return raft_members_check(&c->members, e);
}

static int runs_load(struct raft *r, uint64_t (*term_of)(void *, uint64_t), void *arg, struct err *e)
{
    uint64_t prev = 0;
    for (uint64_t i = r->first; i <= r->last; i++) {
        uint64_t term = term_of(arg, i);
        if (term == 0 || term < prev || term > r->hs.term)
            return err_set(e, ERR_CORRUPT, "raft: entry %llu has term %llu after term %llu in term %llu", U(i), U(term),
                           U(prev), U(r->hs.term));
        if (term != prev && r->n_runs == RAFT_RUNS_MAX)
            return err_set(e, ERR_CORRUPT, "raft: the log spans more than %u terms", RAFT_RUNS_MAX);
        raft_runs_add(r, i, term);
        prev = term;
    }
    return 0;
}

int raft_new(struct raft **ret, const struct raft_config *conf, const struct raft_log_state *log,
             uint64_t (*term_of)(void *arg, uint64_t index), void *arg, struct err *e)
{
    int rc = config_check(conf, e);
    if (rc == 0)
        rc = log_state_check(log, e);
    if (rc < 0)
        return rc;
    struct raft *r = calloc(1, sizeof *r);
    if (r == NULL)
        return err_set(e, ERR_NOMEM, "raft: out of memory");
    r->conf = *conf;
    defaults(&r->conf);
    r->rng = conf->seed;
    r->hs = log->hard_state;
    if (r->hs.term < log->snapshot_term)
        raft_set_hard_state(r, log->snapshot_term, 0);
    r->first = log->first_index;
    r->last = r->stable = log->last_index;
    r->snapshot_index = log->snapshot_index;
    r->snapshot_term = log->snapshot_term;
    r->applied = max_u64(log->applied, log->snapshot_index);
    /* What was applied was committed, and so was what a snapshot holds; the rest a leader will tell. */
    r->commit = r->released = r->applied;
    rc = runs_load(r, term_of, arg, e);
    if (rc < 0) {
        free(r);
        return rc;
    }
    raft_members_load(r, log);
    raft_check(r);
    *ret = r;
    return 0;
}

struct raft *raft_free(struct raft *r)
{
    free(r);
    return NULL;
}

/* ---- the log, and writing it ---- */

/* splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014) */
uint64_t raft_random(struct raft *r, uint64_t below)
{
    uint64_t z = (r->rng += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

void raft_append_own(struct raft *r, enum raft_entry_type type, uint64_t n)
{
    CHECK(r->out->append_from > r->out->append_to);
    r->out->append_from = r->last + 1;
    r->out->append_to = r->last + n;
    r->out->append_term = r->hs.term;
    r->out->append_type = type;
    raft_runs_add(r, r->last + 1, r->hs.term);
    r->last += n;
}

void raft_cut_tail(struct raft *r, uint64_t from)
{
    while (r->n_runs > 0 && r->runs[r->n_runs - 1].first >= from)
        r->n_runs--;
    r->last = from - 1;
    r->stable = min_u64(r->stable, r->last);
    r->matched = min_u64(r->matched, r->last);
    r->acked = min_u64(r->acked, r->last);
    for (size_t i = 0; i < r->n_writes; i++)
        r->writes[i].to = min_u64(r->writes[i].to, r->last);
    raft_members_cut(r, from);
}

void raft_set_hard_state(struct raft *r, uint64_t term, raft_id vote)
{
    r->hs = (struct raft_hard_state){ term, vote };
    r->hs_write = UINT64_MAX;
}

bool raft_hard_state_durable(const struct raft *r)
{
    return r->hs_write <= r->durable;
}

struct raft_msg *raft_send(struct raft *r, enum raft_msg_type type, raft_id to)
{
    CHECK(r->out->n_msgs < RAFT_MSGS_MAX);
    struct raft_msg *m = &r->out->msgs[r->out->n_msgs++];
    *m = (struct raft_msg){
        .type = type, .from = r->conf.id, .to = to, .term = r->hs.term, .entries_from = 1, .entries_to = 0
    };
    return m;
}

void raft_commit_to(struct raft *r, uint64_t index)
{
    r->commit = max_u64(r->commit, index);
}

static uint64_t min_set(uint64_t a, uint64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

static void write_note(struct raft *r, const struct write *w)
{
    if (r->n_writes < WRITES_MAX) {
        r->writes[r->n_writes++] = *w;
        return;
    }
    struct write *last = &r->writes[r->n_writes - 1]; /* counts when the later one is done */
    last->id = w->id;
    last->from = min_set(last->from, w->from);
    last->to = max_u64(last->to, w->to);
    last->hard_state |= w->hard_state;
    last->install |= w->install;
}

static void write_settle(struct raft *r)
{
    struct raft_effects *out = r->out;
    bool appends = out->append_from <= out->append_to;
    if (PLANTED(PLANT_TERM_NOT_PERSISTED) && r->hs_write == UINT64_MAX)
        r->hs_write = 0;
    bool hard_state = r->hs_write == UINT64_MAX && r->now.ms >= r->write_retry_at;
    if (!appends && !hard_state && out->truncate_from == 0 && out->install_index == 0)
        return;
    if ((appends || out->truncate_from != 0) && r->disk_stale_from != 0) {
        out->truncate_from = min_set(out->truncate_from, r->disk_stale_from);
        r->disk_stale_from = 0;
    }
    if (r->hs_write == UINT64_MAX) /* whatever is written, it goes along */
        hard_state = true;
    out->write = ++r->write;
    struct write w = { .id = out->write, .from = out->truncate_from, .install = out->install_index != 0 };
    if (appends) {
        w.from = min_set(w.from, out->append_from);
        w.to = out->append_to;
    }
    if (hard_state) {
        r->hs_write = w.id;
        w.hard_state = out->hard_state_changed = true;
        out->hard_state = r->hs;
        if (PLANTED(PLANT_VOTE_NOT_PERSISTED))
            out->hard_state.vote = 0;
    }
    if (w.install)
        r->install_write = w.id;
    write_note(r, &w);
}

static void writes_drop(struct raft *r, size_t n)
{
    r->n_writes -= n;
    for (size_t i = 0; i < r->n_writes; i++)
        r->writes[i] = r->writes[i + n];
}

static int on_persisted(struct raft *r, const struct raft_event *ev, struct err *e)
{
    size_t n = 0;
    if (ev->write > r->write)
        return err_set(e, ERR_INVALID, "raft: write %llu was never asked for", U(ev->write));
    for (; n < r->n_writes && r->writes[n].id <= ev->write; n++) {
        r->stable = max_u64(r->stable, r->writes[n].to);
        if (r->writes[n].install)
            raft_install_done(r);
    }
    writes_drop(r, n);
    r->write_done = true;
    r->durable = max_u64(r->durable, ev->write);
    return 0;
}

/* step_down_failed - a disk that refuses makes a bad leader; and what it has sent to others under these indexes must
 * not be followed by something else in the same term. Alone, nobody has seen it. */
static void step_down_failed(struct raft *r, bool was_alone)
{
    r->write_retry_at = r->now.ms + r->conf.heartbeat_ms;
    if (r->role == RAFT_LEADER && was_alone && raft_alone(r) && r->last >= r->noop_index) {
        r->uncommitted_bytes = 0;
        r->n_batches = 0;
        return;
    }
    if (r->role != RAFT_FOLLOWER)
        raft_become_follower(r, r->hs.term, 0);
    if (!raft_sole_voter(r))
        r->election_at = max_u64(r->election_at, r->now.ms + 2 * r->conf.election_ms);
}

static int on_write_failed(struct raft *r, const struct raft_event *ev, struct err *e)
{
    bool was_alone = raft_alone(r);
    uint64_t from = 0;
    size_t n = 0;
    if (ev->write > r->write || ev->write <= r->durable)
        return err_set(e, ERR_INVALID, "raft: write %llu cannot have failed", U(ev->write));
    while (n < r->n_writes && r->writes[n].id < ev->write)
        n++;
    for (size_t i = n; i < r->n_writes; i++) {
        from = min_set(from, r->writes[i].from);
        if (r->writes[i].hard_state)
            r->hs_write = UINT64_MAX;
        if (r->writes[i].install)
            r->install_write = 0;
    }
    r->n_writes = n;
    r->disk_stale_from = min_set(r->disk_stale_from, from);
    if (from != 0 && from <= r->last)
        raft_cut_tail(r, from);
    r->commit = min_u64(r->commit, r->last);
    step_down_failed(r, was_alone);
    return 0;
}

/* ---- the shell's own events ---- */

static void batch_note(struct raft *r, uint64_t bytes)
{
    r->uncommitted_bytes += bytes;
    if (r->n_batches == BATCHES_MAX) {
        r->batches[r->n_batches - 1].to = r->last;
        r->batches[r->n_batches - 1].bytes += bytes;
    } else {
        r->batches[r->n_batches++] = (struct batch){ r->last, bytes };
    }
}

static int on_propose(struct raft *r, const struct raft_event *ev, struct err *e)
{
    uint64_t max = r->conf.uncommitted_bytes_max;
    if (r->role != RAFT_LEADER)
        return err_set(e, ERR_UNAVAILABLE, "this node is not the leader");
    if (r->transferee != 0)
        return err_set(e, ERR_UNAVAILABLE, "leadership is being handed over");
    if (ev->n_entries == 0)
        return err_set(e, ERR_INVALID, "raft: nothing is proposed");
    if (max != 0 && r->uncommitted_bytes != 0 &&
        (r->uncommitted_bytes >= max || ev->bytes > max - r->uncommitted_bytes))
        return err_set(e, ERR_TOO_BIG, "too much waits to be committed already");
    raft_append_own(r, RAFT_ENTRY_DATA, ev->n_entries);
    batch_note(r, ev->bytes);
    return 0;
}

static int on_applied(struct raft *r, const struct raft_event *ev, struct err *e)
{
    if (ev->index < r->applied || ev->index > r->released)
        return err_set(e, ERR_INVALID, "raft: applied %llu, but %llu may be", U(ev->index), U(r->released));
    if (r->role == RAFT_LEADER && r->applied < r->noop_index && ev->index >= r->noop_index)
        r->out->role_changed = true; /* ready */
    r->applied = ev->index;
    return 0;
}

static int on_compacted(struct raft *r, const struct raft_event *ev, struct err *e)
{
    uint64_t term = raft_term_at(r, ev->index);
    if (ev->index > r->applied || ev->index < r->snapshot_index || term == 0 || ev->first_kept > ev->index + 1 ||
        ev->first_kept < r->first)
        return err_set(e, ERR_INVALID, "raft: no snapshot can end at entry %llu", U(ev->index));
    r->snapshot_index = ev->index;
    r->snapshot_term = term;
    r->first = ev->first_kept;
    runs_cut_head(r, r->first);
    return 0;
}

/* ---- messages ---- */

static int message_check(const struct raft *r, const struct raft_msg *m, struct err *e)
{
    if (m == NULL || m->from == 0 || m->from == r->conf.id || m->to != r->conf.id)
        return err_set(e, ERR_INVALID, "raft: a message from %llx to %llx came to %llx", m ? U(m->from) : 0,
                       m ? U(m->to) : 0, U(r->conf.id));
    if (m->type < RAFT_MSG_PREVOTE || m->type > RAFT_MSG_TIMEOUT_NOW || m->term == 0 || m->term > TERM_MAX ||
        m->index > TERM_MAX || m->index_term > m->term)
        return err_set(e, ERR_INVALID, "raft: a message of type %d, term %llu, index %llu", (int)m->type, U(m->term),
                       U(m->index));
    if (m->term < r->hs.term || (m->type != RAFT_MSG_APPEND && m->type != RAFT_MSG_HEARTBEAT))
        return 0;
    if (m->term == r->hs.term && (r->role == RAFT_LEADER || (r->leader != 0 && r->leader != m->from)))
        return err_set(e, ERR_CORRUPT, "raft: both %llx and %llx lead term %llu", U(r->leader), U(m->from), U(m->term));
    return m->type == RAFT_MSG_APPEND ? raft_append_check(r, m, e) : 0;
}

static bool of_leader(const struct raft_msg *m)
{
    return m->type == RAFT_MSG_APPEND || m->type == RAFT_MSG_HEARTBEAT;
}

/* Raft §5.1: a later term makes a follower. Asking about one (pre-vote), or being told that it may be had, does not. */
static bool brings_term(const struct raft_msg *m)
{
    return m->type != RAFT_MSG_PREVOTE && (m->type != RAFT_MSG_PREVOTE_REPLY || m->reject);
}

static void deliver(struct raft *r, const struct raft_msg *m)
{
    switch (m->type) {
    case RAFT_MSG_PREVOTE:
    case RAFT_MSG_VOTE:
        raft_on_vote(r, m);
        return;
    case RAFT_MSG_PREVOTE_REPLY:
    case RAFT_MSG_VOTE_REPLY:
        raft_on_vote_reply(r, m);
        return;
    case RAFT_MSG_APPEND:
        raft_on_append(r, m);
        return;
    case RAFT_MSG_APPEND_REPLY:
        raft_on_append_reply(r, m);
        return;
    case RAFT_MSG_HEARTBEAT:
        raft_on_heartbeat(r, m);
        return;
    case RAFT_MSG_HEARTBEAT_REPLY:
        raft_on_heartbeat_reply(r, m);
        return;
    case RAFT_MSG_TIMEOUT_NOW:
        raft_on_timeout_now(r, m);
        return;
    case RAFT_MSG_SNAPSHOT:
        return;
    }
}

static int on_message(struct raft *r, const struct raft_event *ev, struct err *e)
{
    const struct raft_msg *m = ev->msg;
    int rc = message_check(r, m, e);
    if (rc < 0)
        return rc;
    /* Raft thesis §4.2.3: who hears from a leader helps nobody to depose it, unless the leader itself asked. */
    if (m->type == RAFT_MSG_VOTE && m->term > r->hs.term && !m->transfer && raft_in_lease(r))
        return 0;
    if (m->term > r->hs.term && brings_term(m))
        raft_become_follower(r, m->term, 0);
    bool asks = m->type == RAFT_MSG_PREVOTE || m->type == RAFT_MSG_VOTE;
    if (m->term < r->hs.term && of_leader(m)) { /* it does not know yet that it was deposed */
        struct raft_msg *a = raft_send(r, RAFT_MSG_APPEND_REPLY, m->from);
        a->index = m->index;
        a->reject = true;
    } else if (m->term >= r->hs.term || asks) {
        deliver(r, m);
    }
    return 0;
}

/* ---- steps ---- */

static void on_tick(struct raft *r)
{
    raft_elect_tick(r);
    raft_repl_tick(r);
}

static int dispatch(struct raft *r, const struct raft_event *ev, struct err *e)
{
    switch (ev->type) {
    case RAFT_EV_TICK:
        on_tick(r);
        return 0;
    case RAFT_EV_MESSAGE:
        return on_message(r, ev, e);
    case RAFT_EV_PROPOSE:
        return on_propose(r, ev, e);
    case RAFT_EV_PERSISTED:
        return on_persisted(r, ev, e);
    case RAFT_EV_WRITE_FAILED:
        return on_write_failed(r, ev, e);
    case RAFT_EV_APPLIED:
        return on_applied(r, ev, e);
    case RAFT_EV_READ:
        return raft_on_read(r, ev, e);
    case RAFT_EV_COMPACTED:
        return on_compacted(r, ev, e);
    case RAFT_EV_MEMBERS:
        return raft_on_members(r, ev, e);
    case RAFT_EV_TRANSFER:
        return raft_on_transfer(r, ev, e);
    case RAFT_EV_LINK_LOST:
        raft_on_link_lost(r, ev);
        return 0;
    case RAFT_EV_SNAPSHOT_SENT:
    case RAFT_EV_SNAPSHOT_FAILED:
        return raft_on_snapshot_result(r, ev, e);
    case RAFT_EV_SNAPSHOT_RECEIVED:
        return raft_on_snapshot_received(r, ev, e);
    }
    return err_set(e, ERR_INVALID, "raft: unknown event %d", (int)ev->type);
}

static void effects_clear(struct raft_effects *out)
{
    /* Not memset: the arrays are large, and their counts say what is in them. */
    out->write = 0;
    out->install_index = out->install_term = 0;
    out->install_drops_log = false;
    out->truncate_from = 0;
    out->append_from = 1;
    out->append_to = 0;
    out->append_of_msg = false;
    out->append_term = 0;
    out->append_type = RAFT_ENTRY_NOOP;
    out->append_members.n = 0;
    out->hard_state_changed = false;
    out->n_msgs = 0;
    out->apply_to = 0;
    out->n_reads = 0;
    out->role_changed = out->members_changed = out->transfer_failed = false;
    out->want_snapshot = false;
    out->wake_at.ms = UINT64_MAX;
}

static uint64_t wake_at(const struct raft *r)
{
    uint64_t at = UINT64_MAX;
    if (r->role != RAFT_LEADER)
        at = raft_may_lead(r) ? r->election_at : UINT64_MAX;
    else if (r->n_progress > 1 || !raft_alone(r))
        at = r->heartbeat_at;
    if (r->hs_write == UINT64_MAX)
        at = min_u64(at, r->write_retry_at);
    return at;
}

/* settle - what follows from the new state, whatever event led to it. */
static void settle(struct raft *r)
{
    raft_elect_settle(r);
    raft_repl_commit(r);
    raft_read_settle(r); /* may start a round of heartbeats */
    raft_repl_settle(r);
    write_settle(r);
    uint64_t to = min_u64(r->commit, r->stable);
    if (to > r->released)
        r->out->apply_to = r->released = to;
    r->out->want_snapshot |= r->n_runs > RAFT_RUNS_COMPACT;
    r->out->wake_at.ms = wake_at(r);
}

int raft_step(struct raft *r, const struct raft_event *ev, struct raft_effects *out, struct err *e)
{
    effects_clear(out);
    CHECK(ev->now.ms >= r->now.ms);
    r->now = ev->now;
    r->out = out;
    r->write_done = false;
    if (!r->started) {
        r->started = true;
        raft_timeout_reset(r);
    }
    int rc = dispatch(r, ev, e);
    if (rc == 0) {
        settle(r);
        raft_check(r);
    }
    r->out = NULL;
    return rc;
}

void raft_status(const struct raft *r, struct raft_status *ret)
{
    *ret = (struct raft_status){
        .id = r->conf.id,
        .leader = r->leader,
        .role = r->role,
        .term = r->hs.term,
        .committed = r->commit,
        .applied = r->applied,
        .stable = r->stable,
        .first_index = r->first,
        .last_index = r->last,
        .ready = r->role == RAFT_LEADER && r->applied >= r->noop_index,
        .transferee = r->role == RAFT_LEADER ? r->transferee : 0,
        .voter = raft_is_voter(r),
        .member = raft_members_find(&r->members, r->conf.id) != NULL,
        .members = r->members,
        .members_index = r->members_index,
    };
}

static const char *progress_text(const struct progress *p)
{
    return p->state == SNAPSHOT ? "snapshot" : p->state == REPLICATE ? "replicate" : "probe";
}

bool raft_member_status(const struct raft *r, size_t i, struct raft_member_status *ret)
{
    if (i >= r->members.n)
        return false;
    const struct progress *p = &r->progress[i];
    bool self = p->id == r->conf.id, leads = r->role == RAFT_LEADER;
    *ret = (struct raft_member_status){
        .id = p->id, .learner = p->learner, .active = self, .state = "", .heard_ms = self ? 0 : UINT64_MAX
    };
    if (leads && !self) {
        ret->active = raft_active(r, p);
        ret->caught_up = raft_caught_up(r, p);
        ret->match = p->match;
        ret->next = p->next;
        ret->state = progress_text(p);
        ret->heard_ms = p->heard_ever ? r->now.ms - p->heard : UINT64_MAX;
        ret->inflight_bytes = p->inflight_bytes;
    } else if (self) {
        ret->match = r->stable;
        ret->next = r->last + 1;
    } else if (p->id == r->leader) {
        ret->heard_ms = r->now.ms - r->heard_leader;
        ret->active = ret->heard_ms < r->conf.election_ms;
    }
    return true;
}

void raft_check(const struct raft *r)
{
    CHECK(r->applied <= r->released);
    CHECK(r->released <= r->commit);
    CHECK(r->released <= r->stable);
    CHECK(r->stable <= r->last);
    CHECK(r->commit <= r->last);
    CHECK(r->snapshot_index <= r->commit);
    CHECK(r->first <= r->snapshot_index + 1);
    CHECK(r->last + 1 >= r->first);
    CHECK(r->durable <= r->write);
    CHECK(r->n_runs == 0 || r->runs[r->n_runs - 1].term <= r->hs.term);
    CHECK(r->n_runs == 0 || r->runs[0].first <= r->first || r->first > r->last);
    CHECK(r->role != RAFT_LEADER || (r->hs.vote == r->conf.id && r->leader == r->conf.id && r->last >= r->noop_index));
    CHECK(r->role != RAFT_LEADER || raft_hard_state_durable(r));
    CHECK(r->members_index <= r->last);
    CHECK(r->n_progress == r->members.n || (r->role == RAFT_LEADER && r->n_progress == r->members.n + 1));
}
