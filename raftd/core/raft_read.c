/*
 * raft_read.c - reads of current state without writing (Raft thesis §6.4): remember the commit index, make sure with a
 * round of heartbeats that nobody else has become the leader, and answer when that index is applied.
 *
 * Only one round is under way at a time; what comes meanwhile shares the next one.
 */
#include "raftd/core/raft_priv.h"

static uint64_t read_ack_of(const struct raft *r, const struct progress *p)
{
    return p->id == r->conf.id ? r->round : p->read_ack;
}

int raft_on_read(struct raft *r, const struct raft_event *ev, struct err *e)
{
    if (r->role != RAFT_LEADER)
        return err_set(e, ERR_UNAVAILABLE, "this node is not the leader");
    if (r->n_reads == RAFT_READS_MAX)
        return err_set(e, ERR_TOO_BIG, "too many reads wait for the leader's confirmation");
    /* Its own first entry tells a leader what is committed: what earlier leaders acknowledged lies before that. */
    uint64_t index = max_u64(r->commit, r->noop_index);
    if (PLANTED(PLANT_READ_BEFORE_NOOP))
        index = r->commit;
    r->reads[r->n_reads++] = (struct waiting_read){ ev->cookie, index, r->round + 1 };
    return 0;
}

void raft_read_refuse_all(struct raft *r)
{
    for (size_t i = 0; i < r->n_reads; i++)
        r->out->reads[r->out->n_reads++] = (struct raft_read){ r->reads[i].cookie, 0 };
    r->n_reads = 0;
}

bool raft_read_next_round(struct raft *r)
{
    if (r->n_reads == 0 || r->reads[r->n_reads - 1].round <= r->round)
        return false;
    r->round++;
    return true;
}

static bool releasable(const struct raft *r, const struct waiting_read *w)
{
    if (PLANTED(PLANT_READ_WITHOUT_ROUND))
        return r->commit >= r->noop_index;
    if (PLANTED(PLANT_READ_BEFORE_NOOP))
        return w->round <= r->round_confirmed;
    return w->round <= r->round_confirmed && r->commit >= r->noop_index;
}

void raft_read_settle(struct raft *r)
{
    if (r->role != RAFT_LEADER || r->n_reads == 0)
        return;
    r->round_confirmed = raft_quorum_value(r, read_ack_of);
    if (r->round_confirmed == r->round && raft_read_next_round(r)) {
        r->heartbeat_due = true;
        r->round_confirmed = raft_quorum_value(r, read_ack_of); /* alone: at once */
    }
    size_t left = 0;
    for (size_t i = 0; i < r->n_reads; i++)
        if (releasable(r, &r->reads[i]))
            r->out->reads[r->out->n_reads++] = (struct raft_read){ r->reads[i].cookie, r->reads[i].index };
        else
            r->reads[left++] = r->reads[i];
    r->n_reads = left;
}
