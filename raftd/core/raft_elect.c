/*
 * raft_elect.c - terms, votes and timeouts (Raft §5.2, §5.4.1), with a round of pre-votes first (Raft thesis §9.6), a
 * leader that steps down when no majority answers it (§6.2), followers that ignore candidates while they hear from a
 * leader (§4.2.3), and leadership handed over (§3.10).
 *
 * A broken link is a hint that the leader's process died: a follower that got it waits for milliseconds instead of the
 * election timeout, and grants votes. It may be wrong: then the pre-vote fails, or one election was held for nothing.
 */
#include "raftd/core/raft_priv.h"

/* ---- when to try ---- */

static uint64_t delay(struct raft *r)
{
    uint64_t base = r->conf.election_ms;
    if (r->hurry) {
        unsigned shift = r->attempts < 16 ? r->attempts : 16;
        base = min_u64(base, r->conf.link_lost_ms << shift);
    }
    return base + raft_random(r, base + 1);
}

void raft_timeout_reset(struct raft *r)
{
    bool at_once = raft_sole_voter(r) && r->role == RAFT_FOLLOWER; /* nobody else to hear from */
    r->election_at = max_u64(at_once ? r->now.ms : r->now.ms + delay(r), r->write_retry_at);
}

void raft_on_link_lost(struct raft *r, const struct raft_event *ev)
{
    struct progress *p = raft_progress_of(r, ev->member);
    if (r->role == RAFT_LEADER && p != NULL && p->state == REPLICATE) {
        raft_progress_probe(p, p->match + 1); /* what was under way is lost */
        p->probe_sent = true;
    }
    if (r->role != RAFT_FOLLOWER || ev->member == 0 || ev->member != r->leader)
        return;
    if (!r->hurry)
        r->attempts = 0;
    r->hurry = true;
    r->election_at = min_u64(r->election_at, r->now.ms + delay(r));
}

bool raft_in_lease(const struct raft *r)
{
    if (r->role == RAFT_LEADER)
        return true; /* it steps down by itself when no majority answers */
    return r->leader != 0 && !r->hurry && r->now.ms - r->heard_leader < r->conf.election_ms;
}

/* ---- roles ---- */

static void votes_clear(struct raft *r)
{
    for (size_t i = 0; i < r->n_progress; i++)
        r->progress[i].vote = NO_VOTE;
}

static void leadership_drop(struct raft *r)
{
    raft_read_refuse_all(r);
    r->transferee = 0;
    r->uncommitted_bytes = 0;
    r->n_batches = 0;
    r->heartbeat_due = false;
    for (size_t i = 0; i < r->n_progress; i++)
        if (r->progress[i].leaving)
            r->n_progress = i; /* it is the last one */
}

void raft_become_follower(struct raft *r, uint64_t term, raft_id leader)
{
    if (r->role == RAFT_LEADER)
        leadership_drop(r);
    if (r->role != RAFT_FOLLOWER || r->hs.term != term || r->leader != leader)
        r->out->role_changed = true;
    if (term != r->hs.term) {
        raft_set_hard_state(r, term, 0);
        r->matched = r->acked = 0;
        r->ack_due = r->beat_due = false;
        r->beat_read_id = 0; /* that leader counted its own */
        r->vote_due = 0;
    }
    r->role = RAFT_FOLLOWER;
    r->leader = leader;
    r->votes_due = false;
    raft_timeout_reset(r);
}

void raft_follow(struct raft *r, raft_id leader)
{
    r->hurry = false;
    r->attempts = 0;
    if (r->role != RAFT_FOLLOWER || r->leader != leader)
        raft_become_follower(r, r->hs.term, leader);
    else
        raft_timeout_reset(r);
    r->heard_leader = r->now.ms;
}

static uint64_t has_vote(const struct raft *r, const struct progress *p)
{
    (void)r;
    return p->vote == GRANTED;
}

static void become_leader(struct raft *r)
{
    r->role = RAFT_LEADER;
    r->leader = r->conf.id;
    r->out->role_changed = true;
    r->hurry = false;
    r->attempts = 0;
    r->transferee = 0;
    for (size_t i = 0; i < r->n_progress; i++) {
        struct progress *p = &r->progress[i];
        raft_progress_reset(r, p);
        p->heard_ever = true; /* a while to answer */
        p->heard = r->now.ms;
    }
    raft_append_own(r, RAFT_ENTRY_NOOP, 1);
    r->noop_index = r->last;
    r->heartbeat_at = r->now.ms + r->conf.heartbeat_ms;
    r->heartbeat_due = true; /* others stop waiting now, even one that needs a snapshot */
}

static void campaign(struct raft *r, bool transfer)
{
    if (!raft_runs_room(r, r->hs.term + 1)) {
        r->out->want_snapshot = true;
        raft_timeout_reset(r);
        return;
    }
    uint64_t term = r->hs.term + 1;
    raft_become_follower(r, term, 0);
    r->role = RAFT_CANDIDATE;
    raft_timeout_reset(r);
    raft_set_hard_state(r, term, r->conf.id);
    votes_clear(r);
    r->votes_due = true; /* its own vote, and the others' after it, when that is on disk */
    r->vote_transfer = transfer;
}

static void votes_ask(struct raft *r, enum raft_msg_type type)
{
    for (size_t i = 0; i < r->n_progress; i++) {
        struct progress *p = &r->progress[i];
        if (p->id == r->conf.id)
            p->vote = GRANTED;
        if (p->id == r->conf.id || !raft_counts(p))
            continue;
        struct raft_msg *m = raft_send(r, type, p->id);
        m->term = type == RAFT_MSG_PREVOTE ? r->hs.term + 1 : r->hs.term;
        m->index = r->last;
        m->index_term = raft_last_term(r);
        m->transfer = type == RAFT_MSG_VOTE && r->vote_transfer;
    }
}

static void won(struct raft *r)
{
    if (r->role == RAFT_PRECANDIDATE)
        campaign(r, false);
    else
        become_leader(r);
}

static void pre_campaign(struct raft *r)
{
    if (r->role != RAFT_PRECANDIDATE || r->leader != 0)
        r->out->role_changed = true;
    r->role = RAFT_PRECANDIDATE;
    r->leader = 0;
    if (r->attempts < 32)
        r->attempts++;
    raft_timeout_reset(r);
    votes_clear(r);
    votes_ask(r, RAFT_MSG_PREVOTE);
    if (raft_quorum_value(r, has_vote))
        won(r);
}

/* ---- time ---- */

static uint64_t heard_at(const struct raft *r, const struct progress *p)
{
    return p->id == r->conf.id ? r->now.ms : p->heard;
}

static void leader_tick(struct raft *r)
{
    if (r->transferee != 0 && r->now.ms >= r->transfer_at) {
        r->transferee = 0;
        r->out->transfer_failed = true;
    }
    if (raft_quorum_value(r, heard_at) + r->conf.election_ms <= r->now.ms)
        raft_become_follower(r, r->hs.term, 0);
}

void raft_elect_tick(struct raft *r)
{
    if (r->role == RAFT_LEADER) {
        leader_tick(r);
        return;
    }
    if (r->now.ms < r->election_at)
        return;
    bool own_vote_under_way = r->role == RAFT_CANDIDATE && r->votes_due;
    if (!raft_may_lead(r) || r->install_write != 0 || own_vote_under_way)
        raft_timeout_reset(r);
    else
        pre_campaign(r);
}

void raft_elect_settle(struct raft *r)
{
    if (r->vote_due != 0 && raft_hard_state_durable(r)) {
        raft_send(r, RAFT_MSG_VOTE_REPLY, r->vote_due);
        r->vote_due = 0;
    }
    if (r->role != RAFT_CANDIDATE || !r->votes_due || !raft_hard_state_durable(r))
        return;
    r->votes_due = false;
    votes_ask(r, RAFT_MSG_VOTE);
    if (raft_quorum_value(r, has_vote))
        won(r);
}

/* ---- votes ---- */

/* Raft §5.4.1: the later last term, and with the same one the longer log. */
static bool up_to_date(const struct raft *r, const struct raft_msg *m)
{
    uint64_t term = raft_last_term(r);
    if (PLANTED(PLANT_VOTE_SHORT_LOG))
        return true;
    return m->index_term > term || (m->index_term == term && m->index >= r->last);
}

static void refuse(struct raft *r, const struct raft_msg *m)
{
    enum raft_msg_type t = m->type == RAFT_MSG_PREVOTE ? RAFT_MSG_PREVOTE_REPLY : RAFT_MSG_VOTE_REPLY;
    raft_send(r, t, m->from)->reject = true;
}

static void on_prevote(struct raft *r, const struct raft_msg *m)
{
    bool open =
        m->term > r->hs.term || (m->term == r->hs.term && r->leader == 0 && (r->hs.vote == 0 || r->hs.vote == m->from));
    if (raft_in_lease(r) || !open || !up_to_date(r, m)) {
        refuse(r, m);
        return;
    }
    raft_send(r, RAFT_MSG_PREVOTE_REPLY, m->from)->term = m->term;
    if (r->role == RAFT_FOLLOWER && r->hurry) /* let it try first */
        r->election_at = max_u64(r->election_at, r->now.ms + 2 * delay(r));
}

void raft_on_vote(struct raft *r, const struct raft_msg *m)
{
    if (m->type == RAFT_MSG_PREVOTE) {
        on_prevote(r, m);
        return;
    }
    bool free_vote = PLANTED(PLANT_VOTE_TWICE) || r->hs.vote == m->from || (r->hs.vote == 0 && r->leader == 0);
    if (m->term < r->hs.term || !free_vote || !up_to_date(r, m)) {
        refuse(r, m);
        return;
    }
    if (r->role != RAFT_FOLLOWER)
        raft_become_follower(r, r->hs.term, 0);
    if (r->hs.vote != m->from)
        raft_set_hard_state(r, r->hs.term, m->from);
    r->vote_due = m->from;
    raft_timeout_reset(r);
}

void raft_on_vote_reply(struct raft *r, const struct raft_msg *m)
{
    struct progress *p = raft_progress_of(r, m->from);
    bool pre = m->type == RAFT_MSG_PREVOTE_REPLY;
    enum raft_role role = pre ? RAFT_PRECANDIDATE : RAFT_CANDIDATE;
    if (PLANTED(PLANT_PREVOTES_COUNT) && pre && !m->reject && r->role == RAFT_CANDIDATE)
        role = RAFT_CANDIDATE;
    else if (!m->reject && m->term != (pre ? r->hs.term + 1 : r->hs.term))
        return; /* of an earlier attempt */
    if (r->role != role || p == NULL || (role == RAFT_CANDIDATE && r->votes_due))
        return;
    p->vote = m->reject ? REFUSED : GRANTED;
    if (raft_quorum_value(r, has_vote))
        won(r);
}

/* ---- handing over ---- */

void raft_on_timeout_now(struct raft *r, const struct raft_msg *m)
{
    if (r->leader != 0 && r->leader != m->from)
        return;
    if (m->term != r->hs.term || r->role == RAFT_LEADER || !raft_may_lead(r) || r->install_write != 0)
        return;
    campaign(r, true);
}

static struct progress *transfer_best(struct raft *r)
{
    struct progress *best = NULL;
    for (size_t i = 0; i < r->n_progress; i++) {
        struct progress *p = &r->progress[i];
        if (raft_counts(p) && p->id != r->conf.id && raft_active(r, p) && (best == NULL || p->match > best->match))
            best = p;
    }
    return best;
}

int raft_on_transfer(struct raft *r, const struct raft_event *ev, struct err *e)
{
    if (r->role != RAFT_LEADER)
        return err_set(e, ERR_UNAVAILABLE, "this node is not the leader");
    if (r->transferee != 0)
        return err_set(e, ERR_UNAVAILABLE, "leadership is being handed over already");
    struct progress *p = ev->member != 0 ? raft_progress_of(r, ev->member) : transfer_best(r);
    if (p == NULL || p->learner || p->leaving || p->id == r->conf.id)
        return err_set(e, ERR_PRECONDITION, "there is no such voter to hand leadership to");
    if (!raft_active(r, p))
        return err_set(e, ERR_UNAVAILABLE, "the voter that is to lead does not answer");
    r->transferee = p->id;
    r->transfer_at = r->now.ms + r->conf.election_ms;
    r->timeout_sent = false;
    r->out->role_changed = true;
    return 0;
}

void raft_transfer_go(struct raft *r)
{
    struct progress *p = r->transferee != 0 ? raft_progress_of(r, r->transferee) : NULL;
    if (p == NULL || p->match != r->last || r->timeout_sent)
        return;
    raft_send(r, RAFT_MSG_TIMEOUT_NOW, p->id);
    r->timeout_sent = true;
}

void raft_timeout_now_best(struct raft *r)
{
    struct progress *p = transfer_best(r);
    if (p != NULL && p->match >= r->commit)
        raft_send(r, RAFT_MSG_TIMEOUT_NOW, p->id);
}
