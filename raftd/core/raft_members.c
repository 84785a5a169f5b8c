/* raft_members.c - the configuration in force, and how it changes: one member at a time (Raft thesis §4). */
#include "raftd/core/raft_priv.h"

#define LEAVE_TIMEOUTS 5u /* election timeouts that a removed member is still told about it */

int raft_members_check(const struct raft_members *m, struct err *e)
{
    size_t voters = 0;
    if (m->n > RAFT_MEMBERS_MAX)
        return err_set(e, ERR_INVALID, "raft: %zu members, over %u", m->n, RAFT_MEMBERS_MAX);
    for (size_t i = 0; i < m->n; i++) {
        voters += !m->v[i].learner;
        if (m->v[i].id == 0)
            return err_set(e, ERR_INVALID, "raft: a member's number is never 0");
        for (size_t j = 0; j < i; j++)
            if (m->v[j].id == m->v[i].id)
                return err_set(e, ERR_INVALID, "raft: member %llx twice", U(m->v[i].id));
    }
    if (voters > RAFT_VOTERS_MAX)
        return err_set(e, ERR_INVALID, "raft: %zu voters, over %u", voters, RAFT_VOTERS_MAX);
    return m->n == 0 || voters > 0 ? 0 : err_set(e, ERR_INVALID, "raft: members, but no voter");
}

const struct raft_member *raft_members_find(const struct raft_members *m, raft_id id)
{
    for (size_t i = 0; i < m->n; i++)
        if (m->v[i].id == id)
            return &m->v[i];
    return NULL;
}

static bool votes_in(const struct raft_members *m, raft_id id)
{
    const struct raft_member *v = raft_members_find(m, id);
    return v != NULL && !v->learner;
}

bool raft_is_voter(const struct raft *r)
{
    return votes_in(&r->members, r->conf.id);
}

/* Raft thesis §4.2.2: one that was removed may still be needed as the leader until that is committed; its log may be
 * the only one of a majority that has the entry. It does not count itself. */
bool raft_may_lead(const struct raft *r)
{
    return raft_is_voter(r) ||
           (r->have_before && r->members_index > r->commit && votes_in(&r->members_before, r->conf.id));
}

bool raft_alone(const struct raft *r)
{
    return r->members.n == 1 && r->members.v[0].id == r->conf.id && r->n_progress == 1;
}

bool raft_sole_voter(const struct raft *r)
{
    size_t voters = 0;
    for (size_t i = 0; i < r->members.n; i++)
        voters += !r->members.v[i].learner;
    return voters == 1 && raft_is_voter(r);
}

struct progress *raft_progress_of(struct raft *r, raft_id id)
{
    for (size_t i = 0; i < r->n_progress; i++)
        if (r->progress[i].id == id)
            return &r->progress[i];
    return NULL;
}

bool raft_counts(const struct progress *p)
{
    return !p->leaving && (!p->learner || PLANTED(PLANT_LEARNERS_COUNT));
}

uint64_t raft_quorum_value(const struct raft *r, uint64_t (*value)(const struct raft *r, const struct progress *p))
{
    uint64_t v[RAFT_MEMBERS_MAX + 1];
    size_t n = 0;
    for (size_t i = 0; i < r->n_progress; i++) {
        if (!raft_counts(&r->progress[i]))
            continue;
        uint64_t x = value(r, &r->progress[i]);
        size_t at = n++;
        for (; at > 0 && v[at - 1] < x; at--)
            v[at] = v[at - 1];
        v[at] = x;
    }
    return n == 0 ? 0 : v[n / 2]; /* highest first: n / 2 + 1 of them are at least this */
}

bool raft_active(const struct raft *r, const struct progress *p)
{
    return p->id == r->conf.id || (p->heard_ever && r->now.ms - p->heard < r->conf.election_ms);
}

bool raft_caught_up(const struct raft *r, const struct progress *p)
{
    if (!raft_active(r, p))
        return false;
    return p->match == r->last || (p->caught_up && r->now.ms - p->round_start < r->conf.election_ms);
}

/* ---- what is in force ---- */

/* progress_load - one for each member, in the configuration's order; what is known of those that stay is kept. */
static void progress_load(struct raft *r, raft_id leaving)
{
    struct progress old[RAFT_MEMBERS_MAX + 1];
    size_t n_old = r->n_progress;
    for (size_t i = 0; i < n_old; i++)
        old[i] = r->progress[i];
    r->n_progress = r->members.n;
    for (size_t i = 0; i < r->members.n; i++) {
        struct progress *p = &r->progress[i];
        size_t j = 0;
        while (j < n_old && old[j].id != r->members.v[i].id)
            j++;
        if (j < n_old) {
            *p = old[j];
        } else {
            *p = (struct progress){ .id = r->members.v[i].id };
            raft_progress_reset(r, p);
        }
        p->learner = r->members.v[i].learner;
        p->leaving = false;
    }
    for (size_t j = 0; j < n_old && leaving != 0; j++)
        if (old[j].id == leaving) {
            struct progress *p = &r->progress[r->n_progress++];
            *p = old[j];
            p->leaving = true;
            p->leave_at = r->now.ms + LEAVE_TIMEOUTS * r->conf.election_ms;
        }
}

void raft_progress_load(struct raft *r)
{
    progress_load(r, 0);
}

static void in_force(struct raft *r, uint64_t index, const struct raft_members *m, raft_id leaving)
{
    r->members = *m;
    r->members_index = index;
    progress_load(r, leaving);
    if (r->out != NULL)
        r->out->members_changed = true;
}

void raft_members_push(struct raft *r, uint64_t index, const struct raft_members *m)
{
    raft_id leaving = 0;
    for (size_t i = 0; i < r->members.n && r->role == RAFT_LEADER; i++)
        if (r->members.v[i].id != r->conf.id && raft_members_find(m, r->members.v[i].id) == NULL)
            leaving = r->members.v[i].id;
    r->members_before = r->members;
    r->members_before_index = r->members_index;
    r->have_before = true;
    in_force(r, index, m, leaving);
}

bool raft_members_may_cut(const struct raft *r, uint64_t from)
{
    return r->members_index < from || (r->have_before && r->members_before_index < from);
}

void raft_members_cut(struct raft *r, uint64_t from)
{
    if (r->members_index < from || PLANTED(PLANT_MEMBERS_NOT_REVERTED))
        return;
    CHECK(r->have_before && r->members_before_index < from);
    r->have_before = false;
    struct raft_members m = r->members_before;
    in_force(r, r->members_before_index, &m, 0);
}

void raft_members_install(struct raft *r, uint64_t index, const struct raft_members *m)
{
    if (r->members_index > index && r->members_index <= r->last) { /* in an entry behind the snapshot, which stays */
        r->members_before = *m;
        r->members_before_index = index;
        r->have_before = true;
        return;
    }
    r->have_before = false;
    in_force(r, index, m, 0);
}

void raft_members_load(struct raft *r, const struct raft_log_state *log)
{
    in_force(r, log->snapshot_index, &r->conf.members, 0);
    for (size_t i = 0; i < log->n_members; i++)
        if (log->members[i].index > log->snapshot_index)
            raft_members_push(r, log->members[i].index, &log->members[i].members);
}

/* ---- changes ---- */

static int change_learner(struct raft_members *m, raft_id id, struct err *e)
{
    if (raft_members_find(m, id) != NULL)
        return err_set(e, ERR_PRECONDITION, "it is a member already");
    if (m->n == RAFT_MEMBERS_MAX)
        return err_set(e, ERR_PRECONDITION, "there are %u members already", RAFT_MEMBERS_MAX);
    m->v[m->n++] = (struct raft_member){ id, true };
    return 0;
}

static int change_promote(struct raft *r, struct raft_members *m, raft_id id, struct err *e)
{
    size_t voters = 0, at = m->n;
    for (size_t i = 0; i < m->n; i++) {
        voters += !m->v[i].learner;
        if (m->v[i].id == id)
            at = i;
    }
    if (at == m->n || !m->v[at].learner)
        return err_set(e, ERR_PRECONDITION, at == m->n ? "no such member" : "it is a voter already");
    if (voters == RAFT_VOTERS_MAX)
        return err_set(e, ERR_PRECONDITION, "there are %u voters already", RAFT_VOTERS_MAX);
    struct progress *p = raft_progress_of(r, id);
    if (!raft_caught_up(r, p))
        return err_set(e, ERR_UNAVAILABLE, "the new member has not caught up yet: it has %llu of %llu entries",
                       U(p->match), U(r->last));
    m->v[at].learner = false;
    return 0;
}

static int change_remove(struct raft *r, struct raft_members *m, raft_id id, struct err *e)
{
    size_t voters = 0, active = 0, at = m->n;
    for (size_t i = 0; i < m->n; i++) {
        struct progress *p = raft_progress_of(r, m->v[i].id);
        if (m->v[i].id == id)
            at = i;
        else if (!m->v[i].learner) {
            voters++;
            active += raft_active(r, p);
        }
    }
    if (at == m->n)
        return err_set(e, ERR_PRECONDITION, "no such member");
    if (!m->v[at].learner && voters == 0)
        return err_set(e, ERR_PRECONDITION, "the last voter cannot be removed");
    if (!m->v[at].learner && active < voters / 2 + 1)
        return err_set(e, ERR_PRECONDITION, "that would lose the quorum: of the %zu voters left only %zu answer",
                       voters, active);
    for (; at + 1 < m->n; at++)
        m->v[at] = m->v[at + 1];
    m->n--;
    return 0;
}

/* One at a time, and not before an entry of the own term is committed: without that two leaders could each have
 * changed one member of the same configuration and share no quorum (Ongaro, raft-dev, July 2015). */
static int change_possible(const struct raft *r, struct err *e)
{
    if (r->role != RAFT_LEADER)
        return err_set(e, ERR_UNAVAILABLE, "this node is not the leader");
    if (r->transferee != 0)
        return err_set(e, ERR_UNAVAILABLE, "leadership is being handed over");
    if (r->commit < r->noop_index && !PLANTED(PLANT_MEMBERS_BEFORE_NOOP))
        return err_set(e, ERR_UNAVAILABLE, "the leader has just been elected");
    if (r->members_index > min_u64(r->commit, r->stable) && !PLANTED(PLANT_MEMBERS_TWO))
        return err_set(e, ERR_UNAVAILABLE, "another change of members is under way");
    return 0;
}

int raft_on_members(struct raft *r, const struct raft_event *ev, struct err *e)
{
    int rc = change_possible(r, e);
    struct raft_members m = r->members;
    if (rc < 0)
        return rc;
    if (ev->member == 0 && ev->change != RAFT_SAME_MEMBERS)
        return err_set(e, ERR_INVALID, "raft: a member's number is never 0");
    switch (ev->change) {
    case RAFT_ADD_LEARNER:
        rc = change_learner(&m, ev->member, e);
        break;
    case RAFT_PROMOTE:
        rc = change_promote(r, &m, ev->member, e);
        break;
    case RAFT_REMOVE:
        rc = change_remove(r, &m, ev->member, e);
        break;
    case RAFT_SAME_MEMBERS:
        break;
    default:
        return err_set(e, ERR_INVALID, "raft: unknown change %d", (int)ev->change);
    }
    if (rc < 0)
        return rc;
    raft_append_own(r, RAFT_ENTRY_MEMBERS, 1);
    r->out->append_members = m;
    raft_members_push(r, r->last, &m);
    return 0;
}
