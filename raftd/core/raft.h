/*
 * raft.h - the consensus core: what happened goes in as one event, what must be done comes out as effects.
 *
 * No I/O, no clock, no randomness of its own (time comes with every event, the seed with the configuration), and no
 * memory taken after raft_new(). The core knows entries by index, term and type only: their bytes stay with the shell,
 * which keeps them in its log, reads them for RAFT_MSG_APPEND, and hands them to whoever applies them.
 *
 * Writing: what a step wants on disk (a snapshot installed, entries removed, entries appended, the hard state) is one
 * write with a number, and happens as a whole or not at all. Writes are made in order; several may be under way, or be
 * put into one commit. RAFT_EV_PERSISTED tells the core. Sending: every message may be sent at once, before, during or
 * after any write: what must not be said before it is durable (Raft §5, Figure 2: "updated on stable storage before
 * responding to RPCs") comes out of the step that heard that it is. A leader sends its entries to others while it
 * writes them itself (Raft thesis §10.2.1). Messages may be lost, doubled, late and out of order.
 *
 * Applying: entries up to `apply_to` are committed, and on this disk; they may be applied at any time after.
 *
 * Membership (Raft thesis §4): one voter or learner at a time, in entries of type RAFT_ENTRY_MEMBERS, in force from the
 * moment such an entry is in the log. An entry of that kind is proposed only after all earlier ones are committed, so
 * that of those in a log only the last one can ever be taken back.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/util/clock.h"
#include "common/util/err.h"

typedef uint64_t raft_id; /* of a member; never 0, never used again after it was removed */

#define RAFT_MEMBERS_MAX 16u /* voters and learners */
#define RAFT_VOTERS_MAX 9u
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

struct raft_member {
    raft_id id;
    bool learner; /* gets the log, has no vote (Raft thesis §4.2.1) */
};

/* A configuration. n = 0: this node knows of none yet; it waits for a leader that does. */
struct raft_members {
    size_t n;
    struct raft_member v[RAFT_MEMBERS_MAX];
};

enum raft_entry_type {
    RAFT_ENTRY_NOOP = 1, /* a leader's first entry of its term (Raft §8) */
    RAFT_ENTRY_DATA = 2,
    RAFT_ENTRY_MEMBERS = 3 /* a configuration (Raft thesis §4.1); also one with the same ids, for what else is in it */
};

struct raft_entry_meta {
    uint64_t index, term;
    enum raft_entry_type type;
    const struct raft_members *members; /* RAFT_ENTRY_MEMBERS: what the entry says; else NULL */
};

/* ---- messages between cores ---- */
enum raft_msg_type {
    /* these numbers go over the wire */
    RAFT_MSG_PREVOTE = 1,
    RAFT_MSG_PREVOTE_REPLY = 2,
    RAFT_MSG_VOTE = 3,
    RAFT_MSG_VOTE_REPLY = 4,
    RAFT_MSG_APPEND = 5,
    RAFT_MSG_APPEND_REPLY = 6,
    RAFT_MSG_HEARTBEAT = 7,
    RAFT_MSG_HEARTBEAT_REPLY = 8,
    RAFT_MSG_TIMEOUT_NOW = 9, /* leadership transfer (Raft thesis §3.10) */
    /* Only out: stream the snapshot that ends at `index`, or a newer one, to `to`, in chunks, behind everything else;
     * then give RAFT_EV_SNAPSHOT_SENT or _FAILED. */
    RAFT_MSG_SNAPSHOT = 10,
};

/* All fields that are not pointers, entries_from and entries_to travel; a field that a type does not use is 0. */
struct raft_msg {
    enum raft_msg_type type;
    raft_id from, to;
    uint64_t term;
    uint64_t index, index_term; /* votes: the last entry; append: the entry before the first; snapshot: its end;
                                   append's reply: durable and as the leader's up to here, or the `index` refused */
    uint64_t commit;
    uint64_t read_id; /* heartbeat and reply: the round of reads that it confirms; append: comes back in its reply */
    uint64_t hint_index, hint_term; /* append refused: where the follower's log may match */
    bool reject;
    bool transfer; /* vote: the leader itself asked for this election */

    /* Outgoing append: the shell puts these entries in; empty when from > to. It may send fewer: raft_sent(). */
    uint64_t entries_from, entries_to;
    /* Incoming append: what is in it, in order, from index + 1 on. Borrowed for the step. */
    const struct raft_entry_meta *entries;
    size_t n_entries;
};

/* ---- in ---- */
enum raft_event_type {
    RAFT_EV_TICK,         /* time went on */
    RAFT_EV_MESSAGE,      /* msg */
    RAFT_EV_PROPOSE,      /* n_entries data entries, `bytes` in all: they get the next indexes */
    RAFT_EV_PERSISTED,    /* everything up to `write` is durable */
    RAFT_EV_WRITE_FAILED, /* the disk refused `write` and kept nothing of it; later writes were dropped, too */
    RAFT_EV_APPLIED,      /* up to index */
    RAFT_EV_READ,      /* leader: tell (effects.reads, with this cookie) when a read of the applied state is current */
    RAFT_EV_COMPACTED, /* a snapshot holds everything up to index; the log starts at first_kept */
    RAFT_EV_MEMBERS,   /* leader: propose the membership change `change` of `member` */
    RAFT_EV_TRANSFER,  /* leader: hand leadership to `member`; 0: to whoever is furthest */
    RAFT_EV_LINK_LOST, /* the connection to `member` broke: a hint, safety never depends on it */
    RAFT_EV_SNAPSHOT_SENT,     /* leader: `member` has all of it */
    RAFT_EV_SNAPSHOT_FAILED,   /* leader: it could not be sent to `member`; the core asks again */
    RAFT_EV_SNAPSHOT_RECEIVED, /* a snapshot {index, term, members} is here, complete and durable beside the log */
};

enum raft_change {
    RAFT_ADD_LEARNER = 1,
    RAFT_PROMOTE,     /* a learner that caught up becomes a voter */
    RAFT_REMOVE,      /* the leader, too: it steps down when that is committed (Raft thesis §4.2.2) */
    RAFT_SAME_MEMBERS /* an entry with the members as they are */
};

struct raft_event {
    struct mono_ms now; /* never earlier than in the previous event */
    enum raft_event_type type;
    const struct raft_msg *msg;
    uint32_t n_entries;
    uint64_t bytes;
    uint64_t write;
    uint64_t index, term;
    uint64_t first_kept;
    uint64_t cookie;
    enum raft_change change;
    raft_id member;
    const struct raft_members *members;
};

/* ---- out ---- */
struct raft_read {
    uint64_t cookie;
    uint64_t index; /* answer once this is applied; 0: not leader any more, refuse */
};

struct raft_effects {
    /* The write, in this order; 0: nothing to write. Answer it with RAFT_EV_PERSISTED or RAFT_EV_WRITE_FAILED. */
    uint64_t write;
    uint64_t install_index, install_term; /* this snapshot takes the place of the log before it, and the state machine
                                             starts again from it; 0: none */
    bool install_drops_log;               /* all entries go; otherwise those after it stay */
    uint64_t truncate_from;               /* remove entries from here on; 0: none */
    uint64_t append_from, append_to;      /* append these; from > to: none */
    bool append_of_msg;   /* they are those of the event's message with these indexes, type and term as there; else */
    uint64_t append_term; /* they are the leader's own, and the shell has their bytes, */
    enum raft_entry_type append_type;   /* and all have this type */
    struct raft_members append_members; /* of the leader's own RAFT_ENTRY_MEMBERS */
    bool hard_state_changed;
    struct raft_hard_state hard_state;

    struct raft_msg msgs[RAFT_MSGS_MAX]; /* at most one append with entries to each member */
    size_t n_msgs;

    uint64_t apply_to; /* everything up to here may be applied; 0: nothing new */
    struct raft_read reads[RAFT_READS_MAX];
    size_t n_reads;

    bool role_changed;      /* role, leader, term or readiness: look at raft_status() */
    bool members_changed;   /* what is in force changed: look at raft_status() */
    bool transfer_failed;   /* nobody took over in time; proposals are accepted again */
    bool want_snapshot;     /* the log spans many terms */
    struct mono_ms wake_at; /* step again with RAFT_EV_TICK then; UINT64_MAX: not needed */
};

struct raft_config {
    raft_id id;
    struct raft_members members; /* at the snapshot's end; without one, before the first entry */
    uint64_t seed;               /* of the election timeouts */
    /* 0 takes the default. */
    uint64_t heartbeat_ms; /* 100 */
    uint64_t election_ms;  /* 1000; timeout: drawn from election_ms .. 2 * election_ms */
    uint64_t link_lost_ms; /* 20; wait before an election when the link to the leader broke: from 1 to 2 * it */
    uint64_t uncommitted_bytes_max; /* more than this is refused; no limit */
    uint64_t inflight_bytes_max;    /* 4 MiB; sent to one member and not answered yet */
    uint32_t inflight_msgs_max;     /* 64, at most that */
    uint32_t append_entries_max;    /* 1024; in one message */
};

struct raft_members_at {
    uint64_t index;
    struct raft_members members;
};

/* What the log holds when the core starts. */
struct raft_log_state {
    struct raft_hard_state hard_state;
    uint64_t snapshot_index, snapshot_term; /* 0: none */
    uint64_t applied;                       /* by the state machine; at most last_index */
    uint64_t first_index, last_index;       /* last < first: no entries */
    const struct raft_members_at *members;  /* of the entries after the snapshot, in order; borrowed for raft_new() */
    size_t n_members;                       /* (the last two are enough) */
};

struct raft_status {
    raft_id id, leader; /* leader 0: none known */
    enum raft_role role;
    uint64_t term, committed, applied, stable, first_index, last_index;
    bool ready;                  /* leader, and its own entry of this term is applied */
    raft_id transferee;          /* leader: being handed over to */
    bool voter, member;          /* this node, in the configuration in force */
    struct raft_members members; /* the configuration in force */
    uint64_t members_index;      /* its entry; 0: from the snapshot or the start */
};

/* What the leader knows of a member. On other nodes only `active` of itself and of the leader means something. */
struct raft_member_status {
    raft_id id;
    bool learner;
    bool active;             /* this node itself, or heard from within the last election_ms */
    bool caught_up;          /* learner: may be promoted (Raft thesis §4.2.1) */
    uint64_t match, next;    /* leader: durable there up to match */
    const char *state;       /* leader: "probe", "replicate", "snapshot" */
    uint64_t heard_ms;       /* since it was heard from; UINT64_MAX: never */
    uint64_t inflight_bytes; /* sent and not answered */
};

struct raft;

/*
 * raft_new - @term_of gives the term of each entry in log_state's range, once, while starting.
 *
 * Returns 0, -ERR_INVALID, -ERR_NOMEM, or -ERR_CORRUPT when terms go backwards.
 */
int raft_new(struct raft **ret, const struct raft_config *conf, const struct raft_log_state *log,
             uint64_t (*term_of)(void *arg, uint64_t index), void *arg, struct err *e);
struct raft *raft_free(struct raft *r);

/*
 * raft_step - one event. *out is overwritten.
 *
 * Returns 0, or (with no effects, nothing changed):
 *   -ERR_UNAVAILABLE   not the leader; or not now: a change or a transfer is under way, a learner is behind. Ask again.
 *   -ERR_TOO_BIG       too much is uncommitted, or too many reads wait
 *   -ERR_PRECONDITION  the change makes no sense (no such member, the last voter, one voter too many), or would leave
 *                      the group without a quorum that answers
 *   -ERR_INVALID       an event or message that can't be
 *   -ERR_CORRUPT       a message that contradicts what is committed here
 */
int raft_step(struct raft *r, const struct raft_event *ev, struct raft_effects *out, struct err *e);

/*
 * raft_sent - what became of an append with entries that the last step put out: sent up to `entries_to` in `bytes`, cut
 * because a message would have become too large, or not at all (entries_to = msg->entries_from - 1) because there is no
 * link or its queue is full. Without this call all of it counts as sent, with no bytes.
 *
 * Returns true when there is more for this member: step with RAFT_EV_TICK, now.
 */
bool raft_sent(struct raft *r, raft_id to, uint64_t entries_to, uint64_t bytes);

void raft_status(const struct raft *r, struct raft_status *ret);

/* raft_member_status - of the member at place `i` of the configuration in force; false behind the last one. */
bool raft_member_status(const struct raft *r, size_t i, struct raft_member_status *ret);

/* raft_term_at - the term of an entry of the log or of the snapshot's end; 0 when it is not known. */
uint64_t raft_term_at(const struct raft *r, uint64_t index);

/* raft_check - CHECKs what must hold between any two events. */
void raft_check(const struct raft *r);
