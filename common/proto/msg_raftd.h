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
    struct str Addr;     /* host:port that other managers reach this one at; "": none yet */
    struct list Changes; /* struct txn_change, applied as the first transaction */
};

struct raftd_empty {
    char unused_;
};

/* One manager in the Raft group. */
struct raftd_member {
    uint64_t RaftID;
    struct str NodeID, Addr;
    bool Learner;           /* still catching up */
    bool Leader, Reachable; /* as the leader sees it */
};
struct raftd_members_reply {
    struct list Members; /* struct raftd_member */
};
/* Adds the asking node as a learner that becomes a voter once it has caught up; a member already: notes its address.
 * Asked by the raftd of a manager, for itself. */
struct raftd_member_add {
    struct str NodeID, Addr;
    uint64_t RaftID; /* of the member that this node is by its log; 0: it has no log */
};
struct raftd_member_add_reply {
    uint64_t RaftID;
    struct str ClusterID;
};
/* Refused with ERR_PRECONDITION when the rest would have no quorum. The leader hands over first and then refuses with
 * ERR_UNAVAILABLE: ask again. Not a member: done already. */
struct raftd_member_remove {
    struct str NodeID;
};

/* What another manager's raftd passes on to the leader's: it has checked that its caller may do this. Once that one
 * applies the entry with this number, or any entry of a later term, it knows what became of it, whatever gets lost. */
struct raftd_forward {
    uint64_t Req;   /* drawn for each attempt */
    uint64_t Term;  /* of the leader that is meant: another one refuses with ERR_UNAVAILABLE */
    struct str Who; /* "apid": which daemon asked; several that share a user: "apid+cad" */
    struct str Txn; /* raw map: struct raftd_txn */
};

struct raftd_unlock {
    struct str Key; /* SWMKEY-1-...; secret */
};

/* What gatewayd seals the node's key with while autolock is on. */
struct raftd_node_key_reply {
    struct str Key; /* text, stays the same as long as this node is in the group; secret */
    bool Known;     /* is Epoch? Not before the log is applied */
    uint64_t Epoch; /* Rev of the unlock key that wraps the data key on this disk; 0: autolock is off */
};

/* One page of a sealed backup. The first page (Offset 0) takes the snapshot. */
struct raftd_backup {
    struct str BackupID;   /* chosen by the caller */
    struct str Passphrase; /* secret */
    uint64_t Offset;
};
struct raftd_backup_reply {
    struct str Data;
    bool Last;
};
/* A backup arrives in order, in pieces; after the last one this node is the only manager of the restored swarm. */
struct raftd_restore {
    struct str RestoreID, Passphrase;
    uint64_t Offset;
    struct str Data;
    bool Last;
    struct str NodeID, Addr; /* of this node */
};

struct raftd_status {
    struct str
        State; /* "uninitialized", "locked", "joining" (not in the group yet), "leader", "follower", "candidate" */
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
extern const struct op op_raftd_members;   /* raftd_empty -> raftd_members_reply; a follower asks the leader */
extern const struct op op_raftd_member_add, op_raftd_member_remove; /* -> raftd_member_add_reply, raftd_empty (cad) */
extern const struct op op_raftd_forward;   /* raftd_forward -> raftd_txn_reply (raftd of a manager) */
extern const struct op op_raftd_force_new; /* raftd_empty -> raftd_txn_reply: the only voter from now on (apid) */
extern const struct op op_raftd_unlock;    /* raftd_unlock -> raftd_empty (apid) */
extern const struct op op_raftd_node_key;  /* raftd_empty -> raftd_node_key_reply; of an open store (gatewayd) */
extern const struct op op_raftd_backup, op_raftd_restore; /* (apid) */
