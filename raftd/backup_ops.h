/* backup_ops.h - op_raftd_backup and op_raftd_restore: one of each at a time, and forgotten when nobody goes on. */
#pragma once

#include "common/daemon/rpc.h"
#include "common/proto/msg_raftd.h"
#include "raftd/backup.h"

int backup_ops_start(struct err *e);
void backup_ops_stop(void);

/* backup_ops_drop - before the state machine is closed: what is under way ends. */
void backup_ops_drop(void);

/* backup_on_page - answers the call. */
void backup_on_page(struct rpc_call *c, const struct raftd_backup *in, struct sm *sm,
                    const struct raft_log_identity *id);

/*
 * backup_on_restore - one page for a node that is in no swarm; `dir` is <state>/raft.
 *
 * True: that was the last one, and the log is there now: open the swarm, and answer. False: it has been answered.
 */
bool backup_on_restore(struct rpc_call *c, const struct raftd_restore *in, const char *dir);
