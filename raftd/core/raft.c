/* raft.c - one voter: it elects itself, and what is on its disk is on a majority of disks. */
#include "raftd/core/raft.h"

#include <stdlib.h>

#include "common/util/check.h"

/* Terms never decrease along the log (Raft §5.3), so the terms of all entries are a short list of runs. */
struct run {
    uint64_t first, term;
};

struct raft {
    struct raft_config conf;
    struct mono_ms now;
    enum raft_role role;
    struct raft_hard_state hs;
    bool hs_stable; /* the hard state is on disk */
    raft_id leader;
    uint64_t last;   /* highest index given out */
    uint64_t write;  /* number of the last one */
    uint64_t stable; /* highest index on our disk */
    uint64_t commit; /* highest index on a majority of disks (Raft §5.3) */
    uint64_t applied;
    uint64_t first; /* lowest index in the log */
    uint64_t snapshot_index, snapshot_term;
    uint64_t noop_index; /* our own entry of this term; meaningful while leader */
    uint64_t uncommitted_bytes;
    struct run runs[RAFT_RUNS_MAX];
    size_t n_runs;
    struct raft_read reads[RAFT_READS_MAX]; /* wait for the entry of our own term (Raft thesis §6.4) */
    size_t n_reads;
};

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

static void runs_add(struct raft *r, uint64_t index, uint64_t term)
{
    if (r->n_runs > 0 && r->runs[r->n_runs - 1].term == term)
        return;
    CHECK(r->n_runs == 0 || r->runs[r->n_runs - 1].term < term);
    CHECK(r->n_runs < RAFT_RUNS_MAX); /* campaign() refuses before that */
    r->runs[r->n_runs++] = (struct run){ index, term };
}

static void runs_cut_tail(struct raft *r, uint64_t from)
{
    while (r->n_runs > 0 && r->runs[r->n_runs - 1].first >= from)
        r->n_runs--;
}

static void runs_cut_head(struct raft *r, uint64_t first)
{
    size_t skip = 0;
    while (skip + 1 < r->n_runs && r->runs[skip + 1].first <= first)
        skip++;
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

/* ---- starting ---- */

static int config_check(const struct raft_config *c, struct err *e)
{
    if (c->id == 0)
        return err_set(e, ERR_INVALID, "raft: a member's number is never 0");
    if (c->members.n != 1)
        return err_set(e, ERR_UNIMPLEMENTED, "raft: %zu members: this version runs a single voter", c->members.n);
    if (c->members.v[0].id != c->id)
        return err_set(e, ERR_INVALID, "raft: this node is not a member");
    if (c->members.v[0].learner)
        return err_set(e, ERR_INVALID, "raft: the only member cannot be a learner");
    return 0;
}

static int log_state_check(const struct raft_log_state *l, struct err *e)
{
    if (l->first_index == 0)
        return err_set(e, ERR_INVALID, "raft: the log's first index is 0");
    if (l->first_index > l->snapshot_index + 1)
        return err_set(e, ERR_CORRUPT, "raft: entries %llu to %llu are in neither the log nor the snapshot",
                       (unsigned long long)l->snapshot_index + 1, (unsigned long long)l->first_index - 1);
    if (l->last_index + 1 < l->first_index || l->last_index < l->snapshot_index || l->applied > l->last_index)
        return err_set(e, ERR_CORRUPT, "raft: log %llu..%llu, snapshot %llu and applied %llu do not fit together",
                       (unsigned long long)l->first_index, (unsigned long long)l->last_index,
                       (unsigned long long)l->snapshot_index, (unsigned long long)l->applied);
    return 0;
}

static int runs_load(struct raft *r, uint64_t (*term_of)(void *, uint64_t), void *arg, struct err *e)
{
    uint64_t prev = 0;
    for (uint64_t i = r->first; i <= r->last; i++) {
        uint64_t term = term_of(arg, i);
        if (term == 0 || term < prev || term > r->hs.term)
            return err_set(e, ERR_CORRUPT, "raft: entry %llu has term %llu after term %llu in term %llu",
                           (unsigned long long)i, (unsigned long long)term, (unsigned long long)prev,
                           (unsigned long long)r->hs.term);
        if (term != prev && r->n_runs == RAFT_RUNS_MAX)
            return err_set(e, ERR_CORRUPT, "raft: the log spans more than %u terms", RAFT_RUNS_MAX);
        runs_add(r, i, term);
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
    r->hs = log->hard_state;
    r->hs_stable = true;
    r->first = log->first_index;
    r->last = r->stable = log->last_index;
    r->snapshot_index = log->snapshot_index;
    r->snapshot_term = log->snapshot_term;
    r->applied = log->applied;
    /* What was applied was committed, and so was what a snapshot holds; the rest is committed by our own entry. */
    r->commit = log->applied > log->snapshot_index ? log->applied : log->snapshot_index;
    rc = runs_load(r, term_of, arg, e);
    if (rc < 0) {
        free(r);
        return rc;
    }
    raft_check(r);
    *ret = r;
    return 0;
}

struct raft *raft_free(struct raft *r)
{
    free(r);
    return NULL;
}

/* ---- steps ---- */

static void append(struct raft *r, struct raft_effects *out, enum raft_entry_type type, uint64_t n)
{
    out->write = ++r->write;
    out->append_from = r->last + 1;
    out->append_to = r->last + n;
    out->append_term = r->hs.term;
    out->append_type = type;
    runs_add(r, r->last + 1, r->hs.term);
    r->last += n;
}

/* A single voter's own vote is a majority (Raft §5.2), but counts only once it is on disk; so does its first entry,
 * which is why both go there in one write. */
static void campaign(struct raft *r, struct raft_effects *out)
{
    if (r->n_runs == RAFT_RUNS_MAX) {
        out->want_snapshot = true;
        return;
    }
    r->role = RAFT_CANDIDATE;
    r->hs.term++;
    r->hs.vote = r->conf.id;
    r->hs_stable = false;
    out->hard_state_changed = true;
    out->hard_state = r->hs;
    append(r, out, RAFT_ENTRY_NOOP, 1);
    r->noop_index = r->last;
    out->role_changed = true;
}

static void commit_to(struct raft *r, uint64_t index, struct raft_effects *out)
{
    /* Only an entry of the own term is committed by counting (Raft §5.4.2); it takes all earlier ones with it. */
    if (index <= r->commit || raft_term_at(r, index) != r->hs.term)
        return;
    r->commit = index;
    out->apply_to = index;
    if (r->commit == r->last)
        r->uncommitted_bytes = 0;
}

static void reads_release(struct raft *r, struct raft_effects *out)
{
    if (r->role != RAFT_LEADER || r->commit < r->noop_index)
        return;
    for (size_t i = 0; i < r->n_reads; i++) {
        out->reads[i] = r->reads[i];
        out->reads[i].index = r->commit;
    }
    out->n_reads = r->n_reads;
    r->n_reads = 0;
}

static int on_persisted(struct raft *r, const struct raft_event *ev, struct raft_effects *out, struct err *e)
{
    if (ev->write > r->write)
        return err_set(e, ERR_INVALID, "raft: write %llu was never asked for", (unsigned long long)ev->write);
    if (ev->write < r->write)
        return 0;
    r->stable = r->last;
    r->hs_stable = true;
    if (r->role == RAFT_CANDIDATE && r->stable >= r->noop_index) {
        r->role = RAFT_LEADER;
        r->leader = r->conf.id;
        out->role_changed = true;
    }
    if (r->role == RAFT_LEADER)
        commit_to(r, r->stable, out);
    reads_release(r, out);
    return 0;
}

/* Nobody else has seen these entries, and a write that failed left nothing behind: they never were. */
static int on_write_failed(struct raft *r, const struct raft_event *ev, struct raft_effects *out, struct err *e)
{
    if (ev->write > r->write || r->stable == r->last)
        return err_set(e, ERR_INVALID, "raft: write %llu cannot have failed", (unsigned long long)ev->write);
    runs_cut_tail(r, r->stable + 1);
    r->last = r->stable;
    r->uncommitted_bytes = 0;
    if (r->role == RAFT_CANDIDATE) { /* not elected: the vote isn't on disk. The next tick tries again. */
        r->role = RAFT_FOLLOWER;
        out->role_changed = true;
    }
    return 0;
}

static int on_propose(struct raft *r, const struct raft_event *ev, struct raft_effects *out, struct err *e)
{
    if (r->role != RAFT_LEADER)
        return err_set(e, ERR_UNAVAILABLE, "this node is not the leader");
    if (ev->n_entries == 0)
        return err_set(e, ERR_INVALID, "raft: nothing is proposed");
    if (r->conf.uncommitted_bytes_max != 0 && r->uncommitted_bytes != 0 &&
        (r->uncommitted_bytes >= r->conf.uncommitted_bytes_max ||
         ev->bytes > r->conf.uncommitted_bytes_max - r->uncommitted_bytes))
        return err_set(e, ERR_TOO_BIG, "too much is waiting for the disk already");
    r->uncommitted_bytes += ev->bytes;
    append(r, out, RAFT_ENTRY_DATA, ev->n_entries);
    return 0;
}

static int on_read(struct raft *r, const struct raft_event *ev, struct raft_effects *out, struct err *e)
{
    if (r->role != RAFT_LEADER)
        return err_set(e, ERR_UNAVAILABLE, "this node is not the leader");
    if (r->n_reads == RAFT_READS_MAX)
        return err_set(e, ERR_TOO_BIG, "too many reads wait for the leader's first entry");
    r->reads[r->n_reads++] = (struct raft_read){ .cookie = ev->cookie };
    reads_release(r, out);
    return 0;
}

static int on_applied(struct raft *r, const struct raft_event *ev, struct raft_effects *out, struct err *e)
{
    if (ev->index < r->applied || ev->index > r->commit)
        return err_set(e, ERR_INVALID, "raft: applied %llu, but %llu is committed", (unsigned long long)ev->index,
                       (unsigned long long)r->commit);
    bool was = r->role == RAFT_LEADER && r->applied >= r->noop_index;
    r->applied = ev->index;
    if (!was && r->role == RAFT_LEADER && r->applied >= r->noop_index)
        out->role_changed = true; /* ready */
    return 0;
}

static int on_compacted(struct raft *r, const struct raft_event *ev, struct err *e)
{
    uint64_t term = raft_term_at(r, ev->index);
    if (ev->index > r->applied || ev->index < r->snapshot_index || term == 0 || ev->first_kept > ev->index + 1 ||
        ev->first_kept < r->first)
        return err_set(e, ERR_INVALID, "raft: no snapshot can end at entry %llu", (unsigned long long)ev->index);
    r->snapshot_index = ev->index;
    r->snapshot_term = term;
    r->first = ev->first_kept;
    runs_cut_head(r, r->first);
    return 0;
}

static int unimplemented(const char *what, struct err *e)
{
    return err_set(e, ERR_UNIMPLEMENTED, "raft: %s: this version runs a single voter", what);
}

static int dispatch(struct raft *r, const struct raft_event *ev, struct raft_effects *out, struct err *e)
{
    switch (ev->type) {
    case RAFT_EV_TICK:
        if (r->role == RAFT_FOLLOWER) /* nobody else to hear from: no timeout to wait for */
            campaign(r, out);
        return 0;
    case RAFT_EV_PROPOSE:
        return on_propose(r, ev, out, e);
    case RAFT_EV_PERSISTED:
        return on_persisted(r, ev, out, e);
    case RAFT_EV_WRITE_FAILED:
        return on_write_failed(r, ev, out, e);
    case RAFT_EV_APPLIED:
        return on_applied(r, ev, out, e);
    case RAFT_EV_READ:
        return on_read(r, ev, out, e);
    case RAFT_EV_COMPACTED:
        return on_compacted(r, ev, e);
    case RAFT_EV_MESSAGE:
        return unimplemented("a message from another member", e);
    case RAFT_EV_MEMBERS:
        return unimplemented("a membership change", e);
    case RAFT_EV_TRANSFER:
        return unimplemented("handing over leadership", e);
    case RAFT_EV_LINK_LOST:
    case RAFT_EV_SNAPSHOT_SENT:
    case RAFT_EV_SNAPSHOT_FAILED:
    case RAFT_EV_SNAPSHOT_RECEIVED:
        return unimplemented("another member", e);
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
    out->hard_state_changed = false;
    out->n_msgs = 0;
    out->apply_to = 0;
    out->n_reads = 0;
    out->role_changed = out->members_changed = out->transfer_failed = false;
    out->want_snapshot = false;
    out->wake_at.ms = UINT64_MAX;
}

int raft_step(struct raft *r, const struct raft_event *ev, struct raft_effects *out, struct err *e)
{
    effects_clear(out);
    CHECK(ev->now.ms >= r->now.ms);
    r->now = ev->now;
    int rc = dispatch(r, ev, out, e);
    if (rc < 0)
        return rc;
    if (r->n_runs > RAFT_RUNS_COMPACT)
        out->want_snapshot = true;
    raft_check(r);
    return 0;
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
        .voter = true,
        .member = true,
        .members = r->conf.members,
    };
}

void raft_check(const struct raft *r)
{
    CHECK(r->applied <= r->commit);
    CHECK(r->commit <= r->stable); /* one voter: nothing is committed that isn't on its own disk */
    CHECK(r->stable <= r->last);
    CHECK(r->snapshot_index <= r->commit);
    CHECK(r->first <= r->snapshot_index + 1);
    CHECK(r->last + 1 >= r->first);
    CHECK(r->n_runs == 0 || r->runs[r->n_runs - 1].term <= r->hs.term);
    CHECK(r->n_runs == 0 || r->runs[0].first <= r->first || r->first > r->last);
    CHECK(r->role != RAFT_LEADER || (r->hs_stable && r->hs.vote == r->conf.id && r->stable >= r->noop_index));
}

bool raft_sent(struct raft *r, raft_id to, uint64_t entries_to, uint64_t bytes)
{
    (void)r, (void)to, (void)entries_to, (void)bytes;
    return false;
}

bool raft_member_status(const struct raft *r, size_t i, struct raft_member_status *ret)
{
    if (i >= r->conf.members.n)
        return false;
    *ret = (struct raft_member_status){
        .id = r->conf.id, .active = true, .match = r->stable, .next = r->last + 1, .state = "replicate"
    };
    return true;
}
