#include "common/proto/msg_raftd.h"

const struct field txn_require_fields[] = {
    FIELD_STR(struct txn_require, Kind, 1, 32),
    FIELD_STR(struct txn_require, ID, 1, 256),
    FIELD_STR(struct txn_require, Test, 1, 16),
    FIELD_U64(struct txn_require, Value, 0, UINT64_MAX),
    FIELD_END,
};
const struct field txn_change_fields[] = {
    FIELD_STR(struct txn_change, Op, 1, 16),
    FIELD_STR(struct txn_change, Kind, 1, 32),
    FIELD_STR(struct txn_change, ID, 1, 256),
    FIELD_RAW(struct txn_change, Doc),
    FIELD_END,
};
static const struct field txn_fields[] = {
    FIELD_U64(struct raftd_txn, Term, 0, UINT64_MAX),
    FIELD_LIST(struct raftd_txn, Requires, txn_require_fields, struct txn_require, TXN_CHANGES_MAX),
    FIELD_LIST(struct raftd_txn, Changes, txn_change_fields, struct txn_change, TXN_CHANGES_MAX),
    FIELD_END,
};
static const struct field txn_reply_fields[] = {
    FIELD_U64(struct raftd_txn_reply, Revision, 0, UINT64_MAX),
    FIELD_END,
};
static const struct field bootstrap_fields[] = {
    FIELD_STR(struct raftd_bootstrap, ClusterID, 1, 64),
    FIELD_STR(struct raftd_bootstrap, NodeID, 1, 64),
    FIELD_LIST(struct raftd_bootstrap, Changes, txn_change_fields, struct txn_change, 1000),
    FIELD_END,
};
static const struct field empty_fields[] = { FIELD_END };
static const struct field status_fields[] = {
    FIELD_STR(struct raftd_status, State, 1, 32),
    FIELD_STR(struct raftd_status, NodeID, 0, 64),
    FIELD_STR(struct raftd_status, ClusterID, 0, 64),
    FIELD_STR(struct raftd_status, LeaderID, 0, 64),
    FIELD_U64(struct raftd_status, Term, 0, UINT64_MAX),
    FIELD_U64(struct raftd_status, Committed, 0, UINT64_MAX),
    FIELD_U64(struct raftd_status, Applied, 0, UINT64_MAX),
    FIELD_U64(struct raftd_status, Revision, 0, UINT64_MAX),
    FIELD_U64(struct raftd_status, FirstIndex, 0, UINT64_MAX),
    FIELD_U64(struct raftd_status, LastIndex, 0, UINT64_MAX),
    FIELD_END,
};

#define EMPTY empty_fields, sizeof(struct raftd_empty)

const struct op op_raftd_txn = { "txn",
                                 "Applies changes everywhere or nowhere, once they are durable on a majority.",
                                 txn_fields,
                                 sizeof(struct raftd_txn),
                                 txn_reply_fields,
                                 sizeof(struct raftd_txn_reply) };
const struct op op_raftd_barrier = { "barrier", "Answers when the local map holds every write acknowledged so far.",
                                     EMPTY, txn_reply_fields, sizeof(struct raftd_txn_reply) };
const struct op op_raftd_bootstrap = { "bootstrap",      "Starts a new swarm with this node as its only manager.",
                                       bootstrap_fields, sizeof(struct raftd_bootstrap),
                                       txn_reply_fields, sizeof(struct raftd_txn_reply) };
const struct op op_raftd_reset = { "reset", "Leaves the swarm: erases log, keys and map of this node.", EMPTY, EMPTY };
const struct op op_raftd_status = { "status", "Role, term and log positions.", EMPTY, status_fields,
                                    sizeof(struct raftd_status) };
