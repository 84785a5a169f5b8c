/*
 * msg_raftd.h - what raftd answers on <run>/raftd.sock.
 *
 * A transaction is applied as a whole or not at all. It names kinds by their store name ("task", see store/layout.h).
 */
#pragma once

#include "common/proto/fields.h"

#define TXN_CHANGES_MAX 200000u
#define TXN_BYTES_MAX (64u << 20)

/* What must hold for the transaction to be applied. */
struct txn_require {
    struct str Kind, ID;
    struct str Test; /* "version": Version.Index equals Value; "rev": Rev equals Value; "exists"; "absent";
                        "unreferenced": no object refers to this one (indexes of type reference) */
    uint64_t Value;
};

struct txn_change {
    struct str Op; /* "create": must not exist; "update": must exist; "merge": nothing happens when it does not exist;
                      "delete": must exist; "purge": nothing happens when it does not exist */
    struct str Kind, ID;
    struct str Doc; /* raw map. create: the whole document; update, merge: top-level fields, nil removes one */
};

struct raftd_txn {
    uint64_t Term;        /* fence: refused when raftd's term differs; 0: not fenced (apid) */
    struct list Requires; /* struct txn_require */
    struct list Changes;  /* struct txn_change */
};
struct raftd_txn_reply {
    uint64_t Revision; /* the store revision that has this transaction applied */
};

/* Starts a swarm of one manager on a node without one. */
struct raftd_bootstrap {
    struct str ClusterID, NodeID;
    struct list Changes; /* struct txn_change, applied as the first transaction */
};

struct raftd_empty {
    char unused_;
};

struct raftd_status {
    struct str State; /* "uninitialized", "leader", "follower", "candidate" */
    struct str NodeID, ClusterID, LeaderID;
    uint64_t Term, Committed, Applied, Revision, FirstIndex, LastIndex;
};

extern const struct field txn_require_fields[], txn_change_fields[];
extern const struct op op_raftd_txn; /* raftd_txn -> raftd_txn_reply */
extern const struct op
    op_raftd_barrier; /* raftd_empty -> raftd_txn_reply: a revision that includes all acknowledged writes */
extern const struct op op_raftd_bootstrap; /* raftd_bootstrap -> raftd_txn_reply */
extern const struct op op_raftd_reset;     /* raftd_empty -> raftd_empty: leave: erase log, keys and map (apid only) */
extern const struct op op_raftd_status;    /* raftd_empty -> raftd_status */
