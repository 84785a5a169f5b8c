/* backup_ops.c - pages asked for and sent by apid. */
#include "raftd/backup_ops.h"

#include "common/daemon/daemon.h"
#include "common/util/clock.h"

#define IDLE_MS 60000u /* a snapshot keeps old pages alive */

static struct {
    struct backup *backup;
    struct restore *restore;
    char id[65];
    struct timer *timer;
} ops;

static void on_idle(void *arg)
{
    (void)arg;
    if (ops.backup != NULL || ops.restore != NULL)
        log_warn("%s %s was given up: nobody went on with it", ops.backup ? "backup" : "restore", ops.id);
    backup_ops_drop();
}

int backup_ops_start(struct err *e)
{
    return timer_open(&ops.timer, on_idle, NULL, e);
}

void backup_ops_drop(void)
{
    ops.backup = backup_free(ops.backup);
    ops.restore = restore_free(ops.restore);
    ops.id[0] = 0;
    if (ops.timer != NULL)
        timer_arm(ops.timer, UINT64_MAX);
}

void backup_ops_stop(void)
{
    backup_ops_drop();
    ops.timer = timer_free(ops.timer);
}

/* begun - is this the one under way? With offset 0 a new one takes its place; another offset has lost its own. */
static bool begun(struct str id, uint64_t offset, bool there)
{
    if (there && str_is(id, ops.id))
        return true;
    if (offset == 0)
        backup_ops_drop();
    return false;
}

void backup_on_page(struct rpc_call *c, const struct raftd_backup *in, struct sm *sm,
                    const struct raft_log_identity *id)
{
    struct err e = ERR_INIT;
    struct raftd_backup_reply rep = { 0 };
    if (!begun(in->BackupID, in->Offset, ops.backup != NULL)) {
        if (in->Offset != 0) {
            rpc_fail(c, ERR_NOT_FOUND, "backup " STR_FMT " is not under way any more: start it anew",
                     STR_ARG(in->BackupID));
            return;
        }
        if (backup_begin(&ops.backup, sm, id, in->Passphrase, &e) < 0) {
            rpc_fail_err(c, &e);
            return;
        }
        (void)str_copy(ops.id, sizeof ops.id, in->BackupID);
        log_info("backup=%s begun index=%llu", ops.id, (unsigned long long)sm_applied(sm));
    }
    timer_arm(ops.timer, clock_mono().ms + IDLE_MS);
    if (backup_page(ops.backup, in->Offset, &rep.Data, &rep.Last, &e) < 0) {
        rpc_fail_err(c, &e);
        return;
    }
    rpc_reply(c, &rep);
}

static int restore_page(const struct raftd_restore *in, const char *dir, struct err *e)
{
    if (!begun(in->RestoreID, in->Offset, ops.restore != NULL)) {
        if (in->Offset != 0)
            return err_set(e, ERR_NOT_FOUND, "restore " STR_FMT " is not under way any more: start it anew",
                           STR_ARG(in->RestoreID));
        int r = restore_begin(&ops.restore, dir, in->Passphrase, e);
        if (r < 0)
            return r;
        (void)str_copy(ops.id, sizeof ops.id, in->RestoreID);
    }
    timer_arm(ops.timer, clock_mono().ms + IDLE_MS);
    int r = restore_put(ops.restore, in->Offset, in->Data, e);
    if (r == 0 && in->Last)
        r = restore_finish(ops.restore, in->NodeID, in->Addr, e);
    return r;
}

bool backup_on_restore(struct rpc_call *c, const struct raftd_restore *in, const char *dir)
{
    struct err e = ERR_INIT;
    if (restore_page(in, dir, &e) < 0) {
        if (e.code != ERR_NOT_FOUND)
            backup_ops_drop();
        rpc_fail_err(c, &e);
        return false;
    }
    if (!in->Last) {
        rpc_reply(c, &(struct raftd_empty){ 0 });
        return false;
    }
    log_info("restore=%s done", ops.id);
    backup_ops_drop();
    return true;
}
