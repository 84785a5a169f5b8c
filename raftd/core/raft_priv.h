/*
 * raft_priv.h - what the files of the core share.
 *
 * raft.c      starting, the terms of the log, writes and what waits for them, the steps
 * raft_elect.c    terms, votes, timeouts, transfer       raft_repl.c  entries and heartbeats, both sides; snapshots
 * raft_members.c  the configuration in force, changes    raft_read.c  reads of current state
 */
#pragma once

#include "common/util/check.h"
#include "raftd/core/raft.h"

#define INFLIGHT_MAX 64u
#define WRITES_MAX 64u
#define BATCHES_MAX 64u
#define TERM_MAX (UINT64_MAX / 4) /* from a message; no honest group gets there */

#ifdef RAFT_PLANT
/* Known bugs, one at a time, for the test that the simulator finds each (tests/sim/raft_sim.c). */
#include "raftd/core/raft_plant.h"
#define PLANTED(bug) (raft_plant == (bug))
#else
#define PLANTED(bug) false
#endif

/* Terms never decrease along the log (Raft §5.3), so the terms of all entries are a short list of runs. */
struct run {
    uint64_t first, term;
};

enum progress_state {
    PROBE,     /* where its log matches is not known: one append at a time */
    REPLICATE, /* entries are sent ahead of the answers */
    SNAPSHOT   /* the shell streams one; nothing else but heartbeats */
};

struct inflight {
    uint64_t to, bytes;
};

/* What a leader or candidate knows of another member, or of itself. */
struct progress {
    raft_id id;
    bool learner;
    bool leaving; /* not a member any more; gets the entry that says so, until leave_at */
    uint64_t leave_at;
    enum progress_state state;
    uint64_t match, next;
    uint64_t epoch; /* of appends; a refusal of an earlier one is old news */
    bool nudge;     /* an append goes out with this step, also one that says nothing new */
    uint64_t probe_at;
    bool probe_sent;         /* PROBE: until an answer or the next heartbeat's */
    uint64_t snapshot_index; /* SNAPSHOT */
    uint64_t commit_sent;    /* the highest commit index it was told */
    uint64_t sent_from;      /* REPLICATE: of the newest append under way */
    struct inflight inflight[INFLIGHT_MAX];
    unsigned inflight_head, n_inflight;
    uint64_t inflight_bytes;
    bool heard_ever;
    uint64_t heard; /* ms */
    uint64_t read_ack;
    enum { NO_VOTE, GRANTED, REFUSED } vote;
    /* Catching up in rounds (Raft thesis §4.2.1): the last one took less than an election timeout. */
    uint64_t round_target, round_start;
    bool caught_up;
};

/* A write under way. */
struct write {
    uint64_t id;
    uint64_t from; /* the lowest index that it touches; 0: none */
    uint64_t to;   /* it makes the log durable up to here; 0: nothing of it */
    bool hard_state, install;
};

struct batch {
    uint64_t to, bytes;
};

struct waiting_read {
    uint64_t cookie, index;
    uint64_t round; /* confirmed by this one or a later one */
};

struct raft {
    struct raft_config conf;
    struct mono_ms now;
    struct raft_effects *out; /* of the step at hand */
    bool started;
    uint64_t rng;

    enum raft_role role;
    struct raft_hard_state hs;
    raft_id leader;

    uint64_t last;     /* highest index in the log */
    uint64_t stable;   /* on our disk, and in the log */
    uint64_t commit;   /* known to be on a majority of disks (Raft §5.3) */
    uint64_t released; /* given out as apply_to */
    uint64_t applied;
    uint64_t first; /* lowest index in the log */
    uint64_t snapshot_index, snapshot_term;
    struct run runs[RAFT_RUNS_MAX];
    size_t n_runs;

    /* Writes */
    uint64_t write, durable; /* numbers: of the last one asked for; everything up to here is durable */
    bool write_done;         /* by this step */
    uint64_t hs_write;       /* the one with the hard state; UINT64_MAX: none yet */
    struct write writes[WRITES_MAX];
    size_t n_writes;
    uint64_t disk_stale_from; /* a failed write left older entries there: the next append removes them first; 0: none */
    uint64_t write_retry_at;  /* the disk failed: leave it alone until then */

    /* Configurations: only the last one can be taken back (raft.h). */
    struct raft_members members, members_before;
    uint64_t members_index, members_before_index;
    bool have_before;
    struct progress progress[RAFT_MEMBERS_MAX + 1]; /* of the members, and behind them of one that leaves */
    size_t n_progress;

    /* Elections */
    uint64_t election_at;
    uint64_t heard_leader; /* ms */
    bool hurry;            /* the link to the leader broke and no leader was heard since */
    unsigned attempts;     /* at an election, in a hurry */
    bool votes_due;        /* candidate: the requests go out once the own vote is durable */
    bool vote_transfer;

    /* Leader */
    uint64_t noop_index; /* its own entry of this term */
    uint64_t heartbeat_at;
    raft_id transferee;
    uint64_t transfer_at;
    bool timeout_sent;
    struct waiting_read reads[RAFT_READS_MAX];
    size_t n_reads;
    uint64_t round, round_confirmed; /* of heartbeats that confirm reads */
    bool heartbeat_due;
    uint64_t uncommitted_bytes;
    struct batch batches[BATCHES_MAX];
    size_t n_batches;

    /* Follower */
    uint64_t matched; /* the log is as that of this term's leader up to here */
    uint64_t acked, ack_epoch;
    bool ack_due, beat_due; /* answers that wait for the disk */
    uint64_t beat_read_id;
    raft_id vote_due;       /* candidate that gets our vote once it is durable */
    uint64_t install_write; /* of the snapshot being installed; 0: none */
    uint64_t install_index, install_term;
    struct raft_members install_members;
    bool install_drops_log;
};

#define U(x) ((unsigned long long)(x))

/* raft.c */
uint64_t raft_last_term(const struct raft *r);
uint64_t raft_random(struct raft *r, uint64_t below); /* 0 .. below - 1 */
void raft_append_own(struct raft *r, enum raft_entry_type type, uint64_t n);
void raft_runs_add(struct raft *r, uint64_t index, uint64_t term);
bool raft_runs_room(const struct raft *r, uint64_t term); /* for an entry of that term behind the last one */
void raft_cut_tail(struct raft *r, uint64_t from);        /* the log ends before `from` now */
void raft_set_hard_state(struct raft *r, uint64_t term, raft_id vote);
bool raft_hard_state_durable(const struct raft *r);
struct raft_msg *raft_send(struct raft *r, enum raft_msg_type type, raft_id to); /* with the current term */
void raft_commit_to(struct raft *r, uint64_t index);
static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}
static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* raft_elect.c */
void raft_timeout_reset(struct raft *r);
void raft_become_follower(struct raft *r, uint64_t term, raft_id leader);
void raft_follow(struct raft *r, raft_id leader); /* a message of this term's leader */
bool raft_in_lease(const struct raft *r);
void raft_elect_tick(struct raft *r);
void raft_elect_settle(struct raft *r);
void raft_on_vote(struct raft *r, const struct raft_msg *m);
void raft_on_vote_reply(struct raft *r, const struct raft_msg *m);
void raft_on_timeout_now(struct raft *r, const struct raft_msg *m);
int raft_on_transfer(struct raft *r, const struct raft_event *ev, struct err *e);
void raft_on_link_lost(struct raft *r, const struct raft_event *ev);
void raft_transfer_go(struct raft *r); /* leader: if the one to take over has everything, it starts */
void raft_timeout_now_best(struct raft *r);

/* raft_repl.c */
void raft_progress_reset(struct raft *r, struct progress *p);
void raft_progress_probe(struct progress *p, uint64_t next);
void raft_repl_tick(struct raft *r);
void raft_repl_commit(struct raft *r); /* leader: what a majority has */
void raft_repl_settle(struct raft *r); /* messages */
int raft_append_check(const struct raft *r, const struct raft_msg *m, struct err *e);
void raft_on_append(struct raft *r, const struct raft_msg *m);
void raft_on_append_reply(struct raft *r, const struct raft_msg *m);
void raft_on_heartbeat(struct raft *r, const struct raft_msg *m);
void raft_on_heartbeat_reply(struct raft *r, const struct raft_msg *m);
int raft_on_snapshot_result(struct raft *r, const struct raft_event *ev, struct err *e);
int raft_on_snapshot_received(struct raft *r, const struct raft_event *ev, struct err *e);
void raft_install_done(struct raft *r);

/* raft_members.c */
int raft_members_check(const struct raft_members *m, struct err *e);
const struct raft_member *raft_members_find(const struct raft_members *m, raft_id id);
void raft_members_push(struct raft *r, uint64_t index, const struct raft_members *m);
bool raft_members_may_cut(const struct raft *r, uint64_t from);
void raft_members_cut(struct raft *r, uint64_t from);
void raft_members_install(struct raft *r, uint64_t index, const struct raft_members *m);
void raft_members_load(struct raft *r, const struct raft_log_state *log);
void raft_progress_load(struct raft *r); /* anew from the configuration in force */
bool raft_is_voter(const struct raft *r);
bool raft_may_lead(const struct raft *r);
bool raft_sole_voter(const struct raft *r);
bool raft_alone(const struct raft *r); /* the only member */
struct progress *raft_progress_of(struct raft *r, raft_id id);
bool raft_active(const struct raft *r, const struct progress *p);
bool raft_caught_up(const struct raft *r, const struct progress *p);
bool raft_counts(const struct progress *p); /* a voter */
/* raft_quorum_value - what at least a majority of the voters has reached, of one value for each. */
uint64_t raft_quorum_value(const struct raft *r, uint64_t (*value)(const struct raft *r, const struct progress *p));
int raft_on_members(struct raft *r, const struct raft_event *ev, struct err *e);

/* raft_read.c */
int raft_on_read(struct raft *r, const struct raft_event *ev, struct err *e);
void raft_read_refuse_all(struct raft *r);
void raft_read_settle(struct raft *r);
bool raft_read_next_round(struct raft *r); /* heartbeats go out now: reads that wait may use them */
