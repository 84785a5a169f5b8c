/*
 * raft.h - the consensus core: what happened goes in as one event, what must be done comes out as effects.
 *
 * No I/O, no clock, no randomness of its own (time comes with every event, the seed with the configuration), and no
 * memory taken after raft_new(). The core knows entries by index, term and size only: their bytes stay with the shell,
 * which keeps them in its log and hands them to whoever applies them.
 *
 * The order that makes it safe (Raft §5, Figure 2): of the effects of one step, first the truncation, then the append
 * and the hard state go to disk, in one write; only then are messages marked `after_sync` sent and RAFT_EV_PERSISTED
 * comes back. Entries up to `apply_to` are durable on a majority and may be applied at any time after.
 *
 * The interface is the one for several voters. This version runs a single voter and refuses everything else with
 * -ERR_UNIMPLEMENTED: a second voter, messages, learners, transfer. Nothing of it is pretended.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/util/clock.h"
#include "common/util/err.h"

typedef uint64_t raft_id; /* of a member; never 0 */

#define RAFT_MEMBERS_MAX 16u
#define RAFT_MSGS_MAX 64u
#define RAFT_READS_MAX 256u
#define RAFT_RUNS_MAX 4096u     /* terms that the log may span */
#define RAFT_RUNS_COMPACT 1024u /* beyond this many the core asks for a snapshot */

enum raft_role { RAFT_FOLLOWER, RAFT_PRECANDIDATE, RAFT_CANDIDATE, RAFT_LEADER };
const char *raft_role_name(enum raft_role r); /* "follower", "candidate", "leader" */

/* What the log must never forget (Raft §5.1: currentTerm and votedFor). */
struct raft_hard_state {
    uint64_t term;
    raft_id vote; /* 0: none in this term */
};

enum raft_entry_type {
    RAFT_ENTRY_NOOP = 1, /* a leader's first entry of its term (Raft §8) */
    RAFT_ENTRY_DATA = 2,
    RAFT_ENTRY_MEMBERS = 3 /* a membership change (Raft thesis §4.1: one at a time) */
};

struct raft_entry_meta {
    uint64_t index, term;
    enum raft_entry_type type;
    uint64_t bytes;
};

struct raft_member {
    raft_id id;
    bool learner;
};

/* ---- messages between cores ---- */
enum raft_msg_type {
    RAFT_MSG_PREVOTE,
    RAFT_MSG_PREVOTE_REPLY,
    RAFT_MSG_VOTE,
    RAFT_MSG_VOTE_REPLY,
    RAFT_MSG_APPEND,
    RAFT_MSG_APPEND_REPLY,
    RAFT_MSG_HEARTBEAT,
    RAFT_MSG_HEARTBEAT_REPLY,
    RAFT_MSG_SNAPSHOT, /* the shell streams the snapshot itself, in chunks, behind heartbeats */
    RAFT_MSG_SNAPSHOT_REPLY,
    RAFT_MSG_TIMEOUT_NOW,
};

struct raft_msg {
    enum raft_msg_type type;
    raft_id from, to;
    uint64_t term;
    uint64_t index, index_term; /* votes: the last entry; append: the entry before the first; snapshot: its end */
    uint64_t commit;
    uint64_t entries_from, entries_to;     /* append: the shell reads these from its log; empty when from > to */
    const struct raft_entry_meta *entries; /* incoming append: what is in it, in order */
    size_t n_entries;
    uint64_t read_id;               /* heartbeat: which reads it confirms */
    uint64_t hint_index, hint_term; /* rejected append: where the follower's log may match */
    bool reject;
    bool after_sync; /* outgoing: only after this step's writes are durable */
};

/* ---- in ---- */
enum raft_event_type {
    RAFT_EV_TICK, /* time went on */
    RAFT_EV_MESSAGE,
    RAFT_EV_PROPOSE,       /* n_entries of entry_type, bytes in all: they get the next indexes */
    RAFT_EV_PERSISTED,     /* everything up to index/term is durable, and so is the hard state of that step */
    RAFT_EV_APPEND_FAILED, /* the disk refused (and kept nothing of) the entries from index on */
    RAFT_EV_APPLIED,       /* up to index */
    RAFT_EV_READ,          /* cookie: tell when a read of the applied state is current */
    RAFT_EV_COMPACTED,     /* a snapshot holds everything up to index; the log starts at first_kept */
    RAFT_EV_MEMBERS,       /* propose a membership change */
    RAFT_EV_TRANSFER,      /* hand leadership to member */
    RAFT_EV_LINK_LOST,     /* the connection to member broke: a hint, safety never depends on it */
};

struct raft_event {
    struct mono_ms now; /* never earlier than in the previous event */
    enum raft_event_type type;
    const struct raft_msg *msg;
    enum raft_entry_type entry_type;
    uint32_t n_entries;
    uint64_t bytes;
    uint64_t index, term;
    uint64_t first_kept;
    uint64_t cookie;
    struct raft_member member;
};

/* ---- out ---- */
struct raft_read {
    uint64_t cookie;
    uint64_t index; /* answer once this is applied; 0: not leader any more, refuse */
};

struct raft_effects {
    /* To be made durable, in this order and in one write. */
    uint64_t truncate_from;          /* remove entries from here on; 0: none */
    uint64_t append_from, append_to; /* append these (the shell has their bytes); from > to: none */
    uint64_t append_term;
    enum raft_entry_type append_type;
    bool hard_state_changed;
    struct raft_hard_state hard_state;

    struct raft_msg msgs[RAFT_MSGS_MAX];
    size_t n_msgs;

    uint64_t apply_to; /* everything up to here is committed; 0: nothing new */
    struct raft_read reads[RAFT_READS_MAX];
    size_t n_reads;

    bool role_changed;      /* look at raft_status() */
    bool want_snapshot;     /* the log spans many terms */
    struct mono_ms wake_at; /* step again with RAFT_EV_TICK then; UINT64_MAX: not needed */
};

struct raft_config {
    raft_id id;
    struct raft_member members[RAFT_MEMBERS_MAX];
    size_t n_members;
    uint64_t seed;                      /* of the election timeouts */
    uint64_t heartbeat_ms, election_ms; /* timeout: drawn from election_ms .. 2 * election_ms */
    uint64_t uncommitted_bytes_max;     /* more than this is refused; 0: no limit */
};

/* What the log holds when the core starts. */
struct raft_log_state {
    struct raft_hard_state hard_state;
    uint64_t snapshot_index, snapshot_term; /* 0: none */
    uint64_t applied;                       /* by the state machine; at most last_index */
    uint64_t first_index, last_index;       /* last < first: no entries */
};

struct raft_status {
    raft_id id, leader; /* leader 0: none known */
    enum raft_role role;
    uint64_t term, committed, applied, stable, first_index, last_index;
    bool ready; /* leader, and its own entry of this term is applied */
    size_t n_members;
};

struct raft;

/*
 * raft_new - @term_of gives the term of each entry in log_state's range, once, while starting.
 *
 * Returns 0, -ERR_INVALID, -ERR_NOMEM, -ERR_CORRUPT when terms go backwards, or -ERR_UNIMPLEMENTED for several members.
 */
int raft_new(struct raft **ret, const struct raft_config *conf, const struct raft_log_state *log,
             uint64_t (*term_of)(void *arg, uint64_t index), void *arg, struct err *e);
struct raft *raft_free(struct raft *r);

/*
 * raft_step - one event. *out is overwritten.
 *
 * Returns 0, or (with no effects, nothing changed) -ERR_UNAVAILABLE when this isn't the leader, -ERR_TOO_BIG when too
 * much is uncommitted, -ERR_UNIMPLEMENTED for what needs several voters, -ERR_INVALID for an event that can't be.
 */
int raft_step(struct raft *r, const struct raft_event *ev, struct raft_effects *out, struct err *e);

void raft_status(const struct raft *r, struct raft_status *ret);

/* raft_term_at - the term of an entry of the log or of the snapshot's end; 0 when it is not known. */
uint64_t raft_term_at(const struct raft *r, uint64_t index);

/* raft_check - CHECKs what must hold between any two events. */
void raft_check(const struct raft *r);
