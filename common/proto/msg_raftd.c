#include "common/proto/msg_raftd.h"

#define ADDR_MAX 300
#define PAGE_MAX (1u << 20)

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
    FIELD_STR(struct raftd_bootstrap, Addr, 0, ADDR_MAX),
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
static const struct field member_fields[] = {
    FIELD_U64(struct raftd_member, RaftID, 1, UINT64_MAX),
    FIELD_STR(struct raftd_member, NodeID, 1, 64),
    FIELD_STR(struct raftd_member, Addr, 0, ADDR_MAX),
    FIELD_BOOL(struct raftd_member, Learner),
    FIELD_BOOL(struct raftd_member, Leader),
    FIELD_BOOL(struct raftd_member, Reachable),
    FIELD_END,
};
static const struct field members_reply_fields[] = {
    FIELD_LIST(struct raftd_members_reply, Members, member_fields, struct raftd_member, 64),
    FIELD_END,
};
static const struct field member_add_fields[] = {
    FIELD_STR(struct raftd_member_add, NodeID, 1, 64),
    FIELD_STR(struct raftd_member_add, Addr, 1, ADDR_MAX),
    FIELD_U64(struct raftd_member_add, RaftID, 0, UINT64_MAX),
    FIELD_END,
};
static const struct field member_add_reply_fields[] = {
    FIELD_U64(struct raftd_member_add_reply, RaftID, 1, UINT64_MAX),
    FIELD_STR(struct raftd_member_add_reply, ClusterID, 1, 64),
    FIELD_END,
};
static const struct field member_remove_fields[] = {
    FIELD_STR(struct raftd_member_remove, NodeID, 1, 64),
    FIELD_END,
};
static const struct field forward_fields[] = {
    FIELD_U64(struct raftd_forward, Req, 1, UINT64_MAX),
    FIELD_U64(struct raftd_forward, Term, 1, UINT64_MAX),
    FIELD_STR(struct raftd_forward, Who, 1, 64),
    FIELD_RAW_REQ(struct raftd_forward, Txn),
    FIELD_END,
};
static const struct field unlock_fields[] = {
    FIELD_STR(struct raftd_unlock, Key, 1, 256),
    FIELD_END,
};
static const struct field node_key_reply_fields[] = {
    FIELD_STR(struct raftd_node_key_reply, Key, 1, 64),
    FIELD_BOOL(struct raftd_node_key_reply, Known),
    FIELD_U64(struct raftd_node_key_reply, Epoch, 0, UINT64_MAX),
    FIELD_END,
};
static const struct field backup_fields[] = {
    FIELD_STR(struct raftd_backup, BackupID, 1, 64),
    FIELD_STR(struct raftd_backup, Passphrase, 1, 1024),
    FIELD_U64(struct raftd_backup, Offset, 0, UINT64_MAX),
    FIELD_END,
};
static const struct field backup_reply_fields[] = {
    FIELD_BIN(struct raftd_backup_reply, Data, 0, PAGE_MAX),
    FIELD_BOOL(struct raftd_backup_reply, Last),
    FIELD_END,
};
static const struct field restore_fields[] = {
    FIELD_STR(struct raftd_restore, RestoreID, 1, 64),
    FIELD_STR(struct raftd_restore, Passphrase, 1, 1024),
    FIELD_U64(struct raftd_restore, Offset, 0, UINT64_MAX),
    FIELD_BIN(struct raftd_restore, Data, 0, PAGE_MAX),
    FIELD_BOOL(struct raftd_restore, Last),
    FIELD_STR(struct raftd_restore, NodeID, 1, 64),
    FIELD_STR(struct raftd_restore, Addr, 0, ADDR_MAX),
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
const struct op op_raftd_members = { "members", "The managers in the Raft group, as the leader sees them.", EMPTY,
                                     members_reply_fields, sizeof(struct raftd_members_reply) };
const struct op op_raftd_member_add = { "member_add",
                                        "Adds the asking manager to the Raft group, or notes its new address.",
                                        member_add_fields,
                                        sizeof(struct raftd_member_add),
                                        member_add_reply_fields,
                                        sizeof(struct raftd_member_add_reply) };
const struct op op_raftd_member_remove = { "member_remove",
                                           "Takes a manager out of the Raft group, unless that would cost the quorum.",
                                           member_remove_fields, sizeof(struct raftd_member_remove), EMPTY };
const struct op op_raftd_forward = {
    "forward",        "A transaction that another manager's raftd passes on to the leader.",
    forward_fields,   sizeof(struct raftd_forward),
    txn_reply_fields, sizeof(struct raftd_txn_reply)
};
const struct op op_raftd_force_new = { "force_new", "Makes this node the only voter; what the others hold is lost.",
                                       EMPTY, txn_reply_fields, sizeof(struct raftd_txn_reply) };
const struct op op_raftd_unlock = { "unlock", "Opens a locked store with the swarm's unlock key.", unlock_fields,
                                    sizeof(struct raftd_unlock), EMPTY };
const struct op op_raftd_node_key = { "node_key", "What seals the node's TLS key while managers lock themselves.",
                                      EMPTY, node_key_reply_fields, sizeof(struct raftd_node_key_reply) };
const struct op op_raftd_backup = { "backup",
                                    "One page of a sealed copy of the store.",
                                    backup_fields,
                                    sizeof(struct raftd_backup),
                                    backup_reply_fields,
                                    sizeof(struct raftd_backup_reply) };
const struct op op_raftd_restore = { "restore", "One page of a backup to start a swarm of one manager from.",
                                     restore_fields, sizeof(struct raftd_restore), EMPTY };
