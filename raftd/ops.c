/* ops.c - the requests of common/proto/msg_raftd.h: who asks, may they, and is it sound. */
#include "raftd/ops.h"

#include "common/daemon/daemon.h"
#include "common/util/clock.h"
#include "common/util/crypto.h"
#include "raftd/backup.h"
#include "raftd/node.h"

static unsigned peer(struct rpc_call *c)
{
    return authority_who(&node_conf.authority, rpc_peer_uid(c));
}

static int read_stored(void *arg, enum kind kind, struct str id, struct buf *out, struct err *e)
{
    (void)arg;
    return node_sm() ? sm_get(node_sm(), kind, id, out, e) : err_set(e, ERR_NOT_FOUND, "there is no store");
}

static void refuse(struct rpc_call *c, const struct err *e)
{
    if (e->code == ERR_DENIED)
        log_warn("refused pid=%d uid=%u: %s", (int)rpc_peer_pid(c), rpc_peer_uid(c), e->msg);
    node_counts.refused++;
    rpc_fail_err(c, e);
}

/* is_raftd - the raftd of another manager, by its certificate and its gatewayd's word. */
static bool is_raftd(struct rpc_call *c)
{
    struct rpc_origin o = rpc_origin(c);
    return o.role == RPC_MANAGER && str_is(o.svc, "raftd");
}

static bool of_this_host(struct rpc_call *c)
{
    return rpc_origin(c).role == RPC_LOCAL;
}

static bool permit(struct rpc_call *c, bool ok, const char *what)
{
    struct err e = ERR_INIT;
    struct rpc_origin o = rpc_origin(c);
    if (ok)
        return true;
    if (o.role == RPC_LOCAL)
        err_set(&e, ERR_DENIED, "user %u may not %s", rpc_peer_uid(c), what);
    else
        err_set(&e, ERR_DENIED, STR_FMT " of node " STR_FMT " may not %s", STR_ARG(o.svc), STR_ARG(o.node), what);
    refuse(c, &e);
    return false;
}

static bool is_local(struct rpc_call *c, enum who who)
{
    return of_this_host(c) && (peer(c) & 1u << who) != 0;
}

static void txn(struct rpc_call *c, const struct raftd_txn *t, unsigned who, const struct raftd_forward *of)
{
    struct err e = ERR_INIT;
    char names[128];
    struct entry en = { .At = clock_wall().ns, .Term = t->Term, .Requires = t->Requires, .Changes = t->Changes };
    en.By = str_from(authority_names(who, names));
    en.Req = of ? of->Req : 0;
    int r = entry_check(&en, &e);
    if (r == 0)
        r = authority_check_txn(who, &en, read_stored, NULL, &e);
    if (r < 0)
        refuse(c, &e);
    else
        node_propose(c, &en, of ? of->Term : 0);
}

void ops_on_txn(struct rpc_call *c, const void *req)
{
    unsigned who = peer(c);
    if (permit(c, of_this_host(c) && who != 0, "change the store"))
        txn(c, req, who, NULL);
}

/* The manager that passes it on has looked whether its daemon may; so do we, going by the name it gives. */
void ops_on_forward(struct rpc_call *c, const void *req)
{
    const struct raftd_forward *f = req;
    struct err e = ERR_INIT;
    struct raftd_txn t = { 0 };
    if (!permit(c, is_raftd(c), "pass on a transaction"))
        return;
    int r = fields_decode(&t, op_raftd_txn.req, sizeof t, f->Txn, FIELDS_STRICT, rpc_arena(c), &e);
    unsigned who = authority_parse(f->Who);
    if (r == 0 && who == 0)
        r = err_set(&e, ERR_DENIED, "Who: there is no daemon \"" STR_FMT "\"", STR_ARG(f->Who));
    if (r == 0 && t.Term != 0)
        r = err_set(&e, ERR_INVALID, "Txn.Term: what is fenced is not passed on");
    if (r < 0)
        refuse(c, &e);
    else
        txn(c, &t, who, f);
}

void ops_on_barrier(struct rpc_call *c, const void *req)
{
    (void)req;
    if (permit(c, of_this_host(c) || is_raftd(c), "ask for a barrier"))
        node_barrier(c, !of_this_host(c));
}

void ops_on_members(struct rpc_call *c, const void *req)
{
    (void)req;
    if (permit(c, of_this_host(c) || rpc_origin(c).role == RPC_MANAGER, "ask for the members"))
        node_members(c, !of_this_host(c));
}

void ops_on_member_add(struct rpc_call *c, const void *req)
{
    const struct raftd_member_add *in = req;
    if (permit(c, is_raftd(c) && str_eq(rpc_origin(c).node, in->NodeID), "add this member"))
        node_member_add(c, in);
}

void ops_on_member_remove(struct rpc_call *c, const void *req)
{
    const struct raftd_member_remove *in = req;
    struct rpc_origin o = rpc_origin(c);
    bool itself = o.role == RPC_MANAGER && str_eq(o.node, in->NodeID);
    if (permit(c, is_local(c, WHO_CAD) || itself, "remove this member"))
        node_member_remove(c, in->NodeID);
}

void ops_on_bootstrap(struct rpc_call *c, const void *req)
{
    const struct raftd_bootstrap *b = req;
    struct err e = ERR_INIT;
    struct entry en = { .At = clock_wall().ns, .By = STR("apid"), .Changes = b->Changes };
    if (!permit(c, is_local(c, WHO_APID), "start a swarm"))
        return;
    int r = entry_check(&en, &e);
    if (r == 0 && b->Changes.n == 0)
        r = err_set(&e, ERR_INVALID, "Changes: a swarm starts with its cluster and its node");
    if (r < 0)
        refuse(c, &e);
    else
        node_bootstrap(c, b, &en);
}

void ops_on_force_new(struct rpc_call *c, const void *req)
{
    (void)req;
    if (permit(c, is_local(c, WHO_APID), "start the swarm anew from this node"))
        node_force_new(c);
}

void ops_on_unlock(struct rpc_call *c, const void *req)
{
    const struct raftd_unlock *in = req;
    struct err e = ERR_INIT;
    if (!permit(c, is_local(c, WHO_APID), "unlock the store"))
        return;
    if (node_unlock(in->Key, &e) < 0)
        rpc_fail_err(c, &e);
    else
        rpc_reply(c, &(struct raftd_empty){ 0 });
}

void ops_on_node_key(struct rpc_call *c, const void *req)
{
    struct raftd_node_key_reply rep = { .Known = false };
    char text[SEAL_NODE_KEY_SIZE];
    struct err e = ERR_INIT;
    (void)req;
    if (!of_this_host(c)) {
        (void)permit(c, false, "ask for the node's sealing key");
        return;
    }
    if (!rpc_permit(c, daemon_user("gatewayd"), "gatewayd"))
        return;
    if (node_key(text, &rep.Known, &rep.Epoch, &e) < 0) {
        rpc_fail_err(c, &e);
        return;
    }
    rep.Key = str_from(text);
    rpc_reply(c, &rep);
    crypto_wipe(text, sizeof text);
}

void ops_on_reset(struct rpc_call *c, const void *req)
{
    struct err e = ERR_INIT;
    struct node_status s;
    (void)req;
    if (!permit(c, is_local(c, WHO_APID), "leave the swarm"))
        return;
    node_status(&s);
    if (!s.initialized && !s.locked) {
        rpc_fail(c, ERR_PRECONDITION, "this node is not part of a swarm");
        return;
    }
    log_info("leaving the swarm cluster=%s node=%s", s.id.cluster_id, s.id.node_id);
    if (node_leave(&e) < 0) {
        rpc_fail_err(c, &e);
        log_msg(LOG_L_FATAL, "leave the swarm: %s", e.msg);
        daemon_exit(1);
        return;
    }
    rpc_reply(c, &(struct raftd_empty){ 0 });
}

void ops_on_status(struct rpc_call *c, const void *req)
{
    struct node_status s;
    (void)req;
    node_status(&s);
    struct raftd_status rep = {
        .State = str_from(node_state(&s)),
        .NodeID = str_from(s.id.node_id),
        .ClusterID = str_from(s.id.cluster_id),
        .LeaderID = str_from(s.leader),
        .Term = s.raft.term,
        .Committed = s.raft.committed,
        .Applied = s.raft.applied,
        .Revision = s.revision,
        .FirstIndex = s.raft.first_index,
        .LastIndex = s.raft.last_index,
    };
    rpc_reply(c, &rep);
}

/* ---- backup and restore: a page a request ---- */

static struct {
    char id[65];
    struct backup *backup;
    struct restore *restore;
    struct timer *over; /* nobody asks for the next page any more */
} bk;

#define PAGE_WAIT_MS 60000u

void ops_backup_drop(void)
{
    bk.backup = backup_free(bk.backup);
    bk.restore = restore_free(bk.restore);
    bk.id[0] = 0;
}

static void on_over(void *arg)
{
    (void)arg;
    ops_backup_drop();
}

int ops_open(struct err *e)
{
    return timer_open(&bk.over, on_over, NULL, e);
}

void ops_close(void)
{
    ops_backup_drop();
    bk.over = timer_free(bk.over);
}

static int backup_get(struct rpc_call *c, const struct raftd_backup *in, struct raftd_backup_reply *ret, struct err *e)
{
    struct node_status s;
    struct str page = { NULL, 0 };
    int r = 0;
    node_status(&s);
    if (!s.initialized)
        return err_set(e, ERR_PRECONDITION, "this node is not part of a swarm");
    if (in->Offset == 0 && !(bk.backup != NULL && str_is(in->BackupID, bk.id))) {
        ops_backup_drop();
        r = backup_begin(&bk.backup, node_sm(), &s.id, in->Passphrase, e);
        if (r == 0)
            (void)str_copy(bk.id, sizeof bk.id, in->BackupID);
    }
    if (r == 0 && (bk.backup == NULL || !str_is(in->BackupID, bk.id)))
        r = err_set(e, ERR_NOT_FOUND, "there is no such backup under way");
    if (r == 0)
        r = backup_page(bk.backup, in->Offset, &page, &ret->Last, e);
    if (r < 0)
        return r;
    ret->Data = arena_str(rpc_arena(c), page);
    return page.n > 0 && ret->Data.p == NULL ? err_set(e, ERR_NOMEM, "out of memory") : 0;
}

void ops_on_backup(struct rpc_call *c, const void *req)
{
    struct raftd_backup_reply rep = { .Last = false };
    struct err e = ERR_INIT;
    if (!permit(c, is_local(c, WHO_APID), "make a backup"))
        return;
    int r = backup_get(c, req, &rep, &e);
    timer_arm(bk.over, clock_mono().ms + PAGE_WAIT_MS);
    if (r < 0)
        rpc_fail_err(c, &e);
    else
        rpc_reply(c, &rep);
}

static int restore_page(const struct raftd_restore *in, struct err *e)
{
    int r = node_may_restore(e);
    if (r == 0 && in->Offset == 0 && !(bk.restore != NULL && str_is(in->RestoreID, bk.id))) {
        ops_backup_drop();
        r = restore_begin(&bk.restore, node_log_parent(), in->Passphrase, e);
        if (r == 0)
            (void)str_copy(bk.id, sizeof bk.id, in->RestoreID);
    }
    if (r == 0 && (bk.restore == NULL || !str_is(in->RestoreID, bk.id)))
        r = err_set(e, ERR_NOT_FOUND, "there is no such restore under way");
    if (r == 0)
        r = restore_put(bk.restore, in->Offset, in->Data, e);
    if (r < 0 || !in->Last)
        return r;
    r = restore_finish(bk.restore, in->NodeID, in->Addr, e);
    if (r == 0)
        r = node_restored(e);
    ops_backup_drop();
    return r;
}

void ops_on_restore(struct rpc_call *c, const void *req)
{
    struct err e = ERR_INIT;
    if (!permit(c, is_local(c, WHO_APID), "restore a backup"))
        return;
    int r = restore_page(req, &e);
    timer_arm(bk.over, clock_mono().ms + PAGE_WAIT_MS);
    if (r < 0)
        rpc_fail_err(c, &e);
    else
        rpc_reply(c, &(struct raftd_empty){ 0 });
}
