/*
 * raft_repl.c - entries from the leader to the others (Raft §5.3), ahead of the answers (Raft thesis §10.2.1), as many
 * as fit into a window; heartbeats beside them; snapshots for who is too far behind (Raft §7).
 */
#include "raftd/core/raft_priv.h"

/* ---- what the leader knows of a member ---- */

static void window_clear(struct progress *p)
{
    p->n_inflight = p->inflight_head = 0;
    p->inflight_bytes = 0;
}

void raft_progress_reset(struct raft *r, struct progress *p)
{
    *p = (struct progress){ .id = p->id, .learner = p->learner, .next = r->last + 1, .vote = p->vote };
}

void raft_progress_probe(struct progress *p, uint64_t next)
{
    p->state = PROBE;
    p->epoch++;
    p->next = next > p->match ? next : p->match + 1;
    p->probe_sent = false;
    window_clear(p);
}

static void window_push(struct progress *p, uint64_t to)
{
    p->inflight[(p->inflight_head + p->n_inflight++) % INFLIGHT_MAX] = (struct inflight){ to, 0 };
}

static void window_release(struct progress *p, uint64_t upto)
{
    while (p->n_inflight > 0 && p->inflight[p->inflight_head].to <= upto) {
        p->inflight_bytes -= p->inflight[p->inflight_head].bytes;
        p->inflight_head = (p->inflight_head + 1) % INFLIGHT_MAX;
        p->n_inflight--;
    }
}

static bool window_open(const struct raft *r, const struct progress *p)
{
    return p->n_inflight < r->conf.inflight_msgs_max && p->inflight_bytes < r->conf.inflight_bytes_max;
}

/* ---- sending ---- */

static void send_snapshot(struct raft *r, struct progress *p)
{
    if (r->snapshot_index == 0 || !raft_active(r, p))
        return; /* none yet; or nobody there to take it */
    struct raft_msg *m = raft_send(r, RAFT_MSG_SNAPSHOT, p->id);
    m->index = r->snapshot_index;
    m->index_term = r->snapshot_term;
    p->state = SNAPSHOT;
    p->snapshot_index = r->snapshot_index;
    window_clear(p);
}

static bool prev_known(const struct raft *r, uint64_t prev)
{
    return prev == 0 ? r->first == 1 : prev + 1 >= r->first && raft_term_at(r, prev) != 0;
}

static void send_append(struct raft *r, struct progress *p, bool with_entries)
{
    uint64_t n = with_entries ? min_u64(r->last - (p->next - 1), r->conf.append_entries_max) : 0;
    struct raft_msg *m = raft_send(r, RAFT_MSG_APPEND, p->id);
    m->index = p->next - 1;
    m->index_term = raft_term_at(r, p->next - 1);
    m->commit = p->commit_sent = r->commit;
    m->read_id = p->epoch;
    m->entries_from = p->next;
    m->entries_to = p->next + n - 1;
    if (n > 0 && p->learner && p->round_target == 0) {
        p->round_target = r->last;
        p->round_start = r->now.ms;
    }
    if (p->state == PROBE) {
        p->probe_sent = true;
        p->probe_at = r->now.ms;
    } else if (n > 0) {
        p->sent_from = p->next;
        p->next += n;
        window_push(p, p->next - 1);
    }
}

/* replicate - what there is to tell, when there is room. @anyway: an append even when it says nothing new, so that one
 * that was lost is missed. */
static void replicate(struct raft *r, struct progress *p, bool anyway)
{
    if (p->id == r->conf.id || p->state == SNAPSHOT || (p->state == PROBE && p->probe_sent))
        return;
    if (!prev_known(r, p->next - 1)) {
        send_snapshot(r, p);
        return;
    }
    bool entries = p->next <= r->last && (p->state == PROBE || window_open(r, p));
    if (entries || anyway || p->commit_sent < r->commit || p->state == PROBE)
        send_append(r, p, entries);
}

bool raft_sent(struct raft *r, raft_id to, uint64_t entries_to, uint64_t bytes)
{
    struct progress *p = raft_progress_of(r, to);
    if (r->role != RAFT_LEADER || p == NULL)
        return false;
    if (p->state == PROBE)
        return false; /* one at a time, and `next` waits for the answer */
    if (p->state != REPLICATE || p->n_inflight == 0)
        return false;
    struct inflight *f = &p->inflight[(p->inflight_head + p->n_inflight - 1) % INFLIGHT_MAX];
    if (entries_to > f->to || entries_to + 1 < p->sent_from)
        return false;
    if (entries_to < p->sent_from) { /* no way through just now: again with the next heartbeat's answer */
        raft_progress_probe(p, p->sent_from);
        p->probe_sent = true;
        return false;
    }
    f->to = entries_to;
    f->bytes = bytes;
    p->inflight_bytes += bytes;
    p->next = entries_to + 1;
    return p->next <= r->last && window_open(r, p);
}

static void heartbeat(struct raft *r, struct progress *p)
{
    struct raft_msg *m = raft_send(r, RAFT_MSG_HEARTBEAT, p->id);
    /* Not beyond what is known to match: a heartbeat says nothing about the log before it. */
    m->commit = min_u64(r->commit, p->match);
    m->read_id = r->round;
}

void raft_repl_tick(struct raft *r)
{
    if (r->role != RAFT_LEADER || r->now.ms < r->heartbeat_at)
        return;
    r->heartbeat_at = r->now.ms + r->conf.heartbeat_ms;
    r->heartbeat_due = true;
    r->timeout_sent = false; /* once more */
    raft_read_next_round(r);
    struct progress *p = r->n_progress > 0 ? &r->progress[r->n_progress - 1] : NULL;
    if (p != NULL && p->leaving && r->now.ms >= p->leave_at)
        r->n_progress--;
}

/* ---- what is committed ---- */

static uint64_t durable_at(const struct raft *r, const struct progress *p)
{
    if (p->id != r->conf.id)
        return p->match;
    return PLANTED(PLANT_SELF_NOT_DURABLE) ? r->last : r->stable;
}

void raft_repl_commit(struct raft *r)
{
    if (r->role != RAFT_LEADER)
        return;
    uint64_t index = raft_quorum_value(r, durable_at);
    /* Only an entry of the own term is committed by counting (Raft §5.4.2); it takes all earlier ones with it. */
    if (index > r->commit && (raft_term_at(r, index) == r->hs.term || PLANTED(PLANT_COMMIT_OLD_TERM)))
        raft_commit_to(r, index);
    size_t done = 0;
    while (done < r->n_batches && r->batches[done].to <= r->commit)
        r->uncommitted_bytes -= r->batches[done++].bytes;
    for (size_t i = done; i < r->n_batches; i++)
        r->batches[i - done] = r->batches[i];
    r->n_batches -= done;
}

/* A leader that removed itself leads until that is committed (Raft thesis §4.2.2), and asks the best of the others to
 * take over at once. */
static void leave_if_removed(struct raft *r)
{
    if (r->members_index > r->commit || raft_is_voter(r))
        return;
    raft_timeout_now_best(r);
    raft_become_follower(r, r->hs.term, 0);
}

static void answers_settle(struct raft *r)
{
    if (!raft_hard_state_durable(r) || r->leader == 0 || r->role != RAFT_FOLLOWER)
        return;
    uint64_t upto = min_u64(max_u64(r->matched, min_u64(r->commit, r->stable)), r->stable);
    if (PLANTED(PLANT_ACK_NOT_DURABLE))
        upto = r->matched;
    /* All of it, or some more of it: each write that is done tells the leader something. */
    if (r->ack_due && (upto >= r->matched || (r->write_done && upto > r->acked))) {
        r->ack_due = upto < r->matched;
        r->acked = upto;
        struct raft_msg *a = raft_send(r, RAFT_MSG_APPEND_REPLY, r->leader);
        a->index = upto;
        a->read_id = r->ack_epoch;
    }
    if (r->beat_due) {
        r->beat_due = false;
        raft_send(r, RAFT_MSG_HEARTBEAT_REPLY, r->leader)->read_id = r->beat_read_id;
    }
}

void raft_repl_settle(struct raft *r)
{
    if (r->role != RAFT_LEADER) {
        answers_settle(r);
        return;
    }
    for (size_t i = 0; i < r->n_progress; i++) {
        if (r->heartbeat_due && r->progress[i].id != r->conf.id)
            heartbeat(r, &r->progress[i]);
        replicate(r, &r->progress[i], r->progress[i].nudge);
        r->progress[i].nudge = false;
    }
    r->heartbeat_due = false;
    raft_transfer_go(r);
    leave_if_removed(r);
}

/* ---- answers, at the leader ---- */

static void heard(struct raft *r, struct progress *p)
{
    p->heard_ever = true;
    p->heard = r->now.ms;
}

/* The last entry up to `index` whose term is not later than `term`: what lies behind it cannot match a log that has
 * that term there (Raft §5.3, end). */
static uint64_t last_of_term(const struct raft *r, uint64_t index, uint64_t term, uint64_t floor)
{
    size_t i = r->n_runs;
    if (index > r->last)
        index = r->last;
    while (i > 0 && (r->runs[i - 1].first > index || r->runs[i - 1].term > term)) {
        if (r->runs[i - 1].first <= index)
            index = r->runs[i - 1].first - 1;
        i--;
    }
    return max_u64(index, floor);
}

static void refused(struct raft *r, struct progress *p, const struct raft_msg *m)
{
    if (p->state == SNAPSHOT || m->read_id != p->epoch || m->index <= p->match)
        return; /* of an append from before the last change of mind */
    uint64_t upto = min_u64(last_of_term(r, min_u64(m->hint_index, m->index - 1), m->hint_term, 0), m->index - 1);
    raft_progress_probe(p, upto + 1);
}

static void rounds(struct raft *r, struct progress *p)
{
    if (!p->learner || p->round_target == 0 || p->match < p->round_target)
        return;
    p->caught_up = r->now.ms - p->round_start < r->conf.election_ms;
    p->round_start = r->now.ms;
    p->round_target = p->match < r->last ? r->last : 0;
}

void raft_on_append_reply(struct raft *r, const struct raft_msg *m)
{
    struct progress *p = raft_progress_of(r, m->from);
    if (r->role != RAFT_LEADER || p == NULL)
        return;
    heard(r, p);
    if (m->reject) {
        refused(r, p, m);
        return;
    }
    if (m->index > r->last)
        return; /* not of this leader's log */
    p->match = max_u64(p->match, m->index);
    p->next = max_u64(p->next, p->match + 1);
    window_release(p, m->index);
    bool probed = p->state == PROBE && (m->read_id == p->epoch || p->next == p->match + 1);
    if (probed || (p->state == SNAPSHOT && prev_known(r, p->match) && p->match >= p->snapshot_index)) {
        p->state = REPLICATE;
        p->next = p->match + 1;
        window_clear(p);
    }
    rounds(r, p);
}

void raft_on_heartbeat_reply(struct raft *r, const struct raft_msg *m)
{
    struct progress *p = raft_progress_of(r, m->from);
    if (r->role != RAFT_LEADER || p == NULL)
        return;
    heard(r, p);
    p->read_ack = max_u64(p->read_ack, min_u64(m->read_id, r->round));
    if (r->now.ms - p->probe_at >= r->conf.heartbeat_ms / 2) /* its answer should be here */
        p->probe_sent = false;
    p->nudge = p->match < r->last;
}

int raft_on_snapshot_result(struct raft *r, const struct raft_event *ev, struct err *e)
{
    if (ev->member == 0)
        return err_set(e, ERR_INVALID, "raft: a snapshot to nobody");
    struct progress *p = raft_progress_of(r, ev->member);
    if (r->role != RAFT_LEADER || p == NULL || p->state != SNAPSHOT)
        return 0;
    raft_progress_probe(p, ev->type == RAFT_EV_SNAPSHOT_SENT ? p->snapshot_index + 1 : p->match + 1);
    p->probe_sent = true; /* goes on with the next heartbeat's answer */
    return 0;
}

/* ---- at the others ---- */

static void append_refuse(struct raft *r, const struct raft_msg *m)
{
    uint64_t hint = last_of_term(r, min_u64(m->index, r->last), m->index_term, min_u64(r->commit, r->last));
    struct raft_msg *a = raft_send(r, RAFT_MSG_APPEND_REPLY, m->from);
    a->index = m->index;
    a->read_id = m->read_id;
    a->hint_index = hint;
    a->hint_term = raft_term_at(r, hint);
    a->reject = true;
}

/* matches - what is committed here is so in every later leader's log (Leader Completeness, Raft §5.4). */
static int matches(const struct raft *r, uint64_t index, uint64_t term, struct err *e)
{
    uint64_t own = raft_term_at(r, index);
    if (own == term && (own != 0 || index == 0))
        return 1;
    if (index > r->commit)
        return 0;
    if (own != 0)
        return err_set(e, ERR_CORRUPT, "raft: entry %llu is committed with term %llu, and the leader has term %llu",
                       U(index), U(own), U(term));
    return 1; /* older than the log, and what a snapshot holds is committed */
}

/* may_append - whether entry @en can go behind the log now; if not, the leader will send it again. */
static bool may_append(const struct raft *r, const struct raft_entry_meta *en)
{
    if (en->term < raft_last_term(r) || !raft_runs_room(r, en->term))
        return false;
    /* Two configurations that are not durable could be lost together, and only one can be taken back. */
    return en->type != RAFT_ENTRY_MEMBERS || r->members_index <= r->stable;
}

static void append_one(struct raft *r, const struct raft_entry_meta *en)
{
    if (r->out->append_from > r->out->append_to) {
        r->out->append_from = en->index;
        r->out->append_of_msg = true;
    }
    r->out->append_to = en->index;
    raft_runs_add(r, en->index, en->term);
    r->last = en->index;
    if (en->type == RAFT_ENTRY_MEMBERS)
        raft_members_push(r, en->index, en->members);
}

/* append_check - before anything is changed: in order, and no contradiction to what is committed or can't be undone. */
int raft_append_check(const struct raft *r, const struct raft_msg *m, struct err *e)
{
    uint64_t index = m->index, term = m->index_term;
    int same = matches(r, index, term, e), rc = same;
    for (size_t i = 0; i < m->n_entries && rc >= 0; i++) {
        const struct raft_entry_meta *en = &m->entries[i];
        if (en->index != ++index || en->term == 0 || en->term < term || en->term > m->term)
            return err_set(e, ERR_INVALID, "raft: an append's entry %llu of term %llu is out of order", U(en->index),
                           U(en->term));
        if (en->type == RAFT_ENTRY_MEMBERS &&
            (en->members == NULL || en->members->n == 0 || raft_members_check(en->members, NULL) < 0))
            return err_set(e, ERR_INVALID, "raft: an append's entry %llu names no valid members", U(en->index));
        term = en->term;
        rc = index <= r->last ? matches(r, index, term, e) : 0;
        if (same == 1 && rc == 0 && index <= r->last && !raft_members_may_cut(r, index))
            return err_set(e, ERR_CORRUPT, "raft: the leader's entry %llu takes back more than one change of members",
                           U(index));
        if (rc == 0)
            same = 0; /* the first that is new; the others are cut with it */
    }
    return rc < 0 ? rc : 0;
}

/* append_rest - the entries from place `i` on, which are new here or contradict what is. */
static void append_rest(struct raft *r, const struct raft_msg *m, size_t i, uint64_t *ret_upto)
{
    uint64_t from = m->entries[i].index;
    if (r->now.ms < r->write_retry_at)
        return;
    if (from <= r->last) {
        raft_cut_tail(r, from);
        r->out->truncate_from = from;
    }
    for (; i < m->n_entries && may_append(r, &m->entries[i]); i++) {
        append_one(r, &m->entries[i]);
        *ret_upto = m->entries[i].index;
    }
}

static void append_entries(struct raft *r, const struct raft_msg *m, uint64_t *ret_upto)
{
    size_t i = 0;
    *ret_upto = m->index;
    for (; i < m->n_entries; i++) {
        const struct raft_entry_meta *en = &m->entries[i];
        bool same = en->index <= r->last && matches(r, en->index, en->term, NULL) == 1;
        if (PLANTED(PLANT_NO_TRUNCATE) && en->index <= r->last)
            same = true;
        if (!same)
            break;
        *ret_upto = en->index;
    }
    if (PLANTED(PLANT_TRUNCATE_STALE) && i == m->n_entries && *ret_upto < r->last && *ret_upto >= r->released) {
        raft_cut_tail(r, *ret_upto + 1);
        r->out->truncate_from = *ret_upto + 1;
    }
    if (i < m->n_entries)
        append_rest(r, m, i, ret_upto);
}

void raft_on_append(struct raft *r, const struct raft_msg *m)
{
    uint64_t upto = 0;
    raft_follow(r, m->from);
    r->ack_epoch = m->read_id;
    if (r->install_write != 0)
        return; /* a moment later */
    if (m->index > r->last || matches(r, m->index, m->index_term, NULL) != 1) {
        append_refuse(r, m);
        return;
    }
    append_entries(r, m, &upto);
    r->matched = max_u64(r->matched, upto);
    /* Nothing of it could be taken: no answer, or the leader would send it again at once, and again. */
    if (m->n_entries == 0 || upto > m->index)
        r->ack_due = true;
    raft_commit_to(r, PLANTED(PLANT_COMMIT_UNVERIFIED) ? min_u64(m->commit, r->last) : min_u64(m->commit, upto));
}

void raft_on_heartbeat(struct raft *r, const struct raft_msg *m)
{
    raft_follow(r, m->from);
    r->beat_due = true;
    r->beat_read_id = max_u64(r->beat_read_id, m->read_id);
    if (r->install_write == 0)
        raft_commit_to(r, min_u64(m->commit, r->last)); /* at most what this node said it has */
}

/* ---- a snapshot from the leader ---- */

int raft_on_snapshot_received(struct raft *r, const struct raft_event *ev, struct err *e)
{
    if (ev->index == 0 || ev->index > TERM_MAX || ev->term == 0 || ev->term > TERM_MAX || ev->members == NULL ||
        ev->members->n == 0)
        return err_set(e, ERR_INVALID, "raft: a snapshot without an end or without members");
    int rc = raft_members_check(ev->members, e);
    if (rc < 0)
        return rc;
    r->ack_due = true;
    if (ev->index <= r->commit || r->role == RAFT_LEADER || r->install_write != 0)
        return 0; /* it says nothing new */
    /* What it holds was committed in that term; and nobody is elected with a log that is about to go. */
    if (ev->term > r->hs.term || r->role != RAFT_FOLLOWER)
        raft_become_follower(r, max_u64(ev->term, r->hs.term), 0);
    /* Entries that follow on it are kept (Raft §7). */
    r->install_index = ev->index;
    r->install_term = ev->term;
    r->install_members = *ev->members;
    r->install_drops_log = raft_term_at(r, ev->index) != ev->term;
    if (PLANTED(PLANT_SNAPSHOT_KEEPS_LOG) && ev->index < r->last)
        r->install_drops_log = false;
    r->install_write = UINT64_MAX;
    r->out->install_index = ev->index;
    r->out->install_term = ev->term;
    r->out->install_drops_log = r->install_drops_log;
    return 0;
}

/* raft_install_done - it is on disk: now the log is as it says. Nothing was appended in between. */
void raft_install_done(struct raft *r)
{
    r->install_write = 0;
    if (r->install_drops_log) {
        r->n_runs = 0;
        r->last = r->stable = r->install_index;
        r->first = r->install_index + 1;
        r->matched = r->acked = 0;
        r->disk_stale_from = 0;
    }
    r->snapshot_index = r->install_index;
    r->snapshot_term = r->install_term;
    raft_members_install(r, r->install_index, &r->install_members);
    if (r->commit < r->install_index)
        r->commit = r->install_index;
    r->applied = max_u64(r->applied, r->install_index);
    r->released = max_u64(r->released, r->install_index);
    r->matched = max_u64(r->matched, r->install_index);
    r->ack_due = true;
}
