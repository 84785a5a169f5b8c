/* ops.h - the requests of common/proto/msg_raftd.h. */
#pragma once

#include "common/daemon/rpc.h"

#define OPS_ROUTES                                                                                                     \
    { &op_raftd_txn, ops_on_txn }, { &op_raftd_barrier, ops_on_barrier }, { &op_raftd_forward, ops_on_forward },       \
        { &op_raftd_bootstrap, ops_on_bootstrap }, { &op_raftd_reset, ops_on_reset },                                  \
        { &op_raftd_status, ops_on_status }, { &op_raftd_members, ops_on_members },                                    \
        { &op_raftd_member_add, ops_on_member_add }, { &op_raftd_member_remove, ops_on_member_remove },                \
        { &op_raftd_force_new, ops_on_force_new }, { &op_raftd_unlock, ops_on_unlock },                                \
        { &op_raftd_node_key, ops_on_node_key }, { &op_raftd_backup, ops_on_backup },                                  \
    {                                                                                                                  \
        &op_raftd_restore, ops_on_restore                                                                              \
    }

rpc_handler ops_on_txn, ops_on_barrier, ops_on_forward, ops_on_bootstrap, ops_on_reset, ops_on_status, ops_on_members,
    ops_on_member_add, ops_on_member_remove, ops_on_force_new, ops_on_unlock, ops_on_node_key, ops_on_backup,
    ops_on_restore;

int ops_open(struct err *e);
void ops_close(void);
void ops_backup_drop(void); /* before the maps go */
