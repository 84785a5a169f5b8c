/* ops.c - the requests of common/proto/msg_raftd.h: who asks, may they, and is it sound. */
#include "raftd/ops.h"

#include "common/daemon/daemon.h"
#include "common/util/clock.h"
#include "raftd/node.h"

static unsigned peer(struct rpc_call *c)
{
    return authority_who(&node_conf.authority, rpc_peer_uid(c));
}

static int changes_check(unsigned who, const struct entry *en, struct err *e)
{
    const struct txn_change *ch = en->Changes.v;
    int r = 0;
    for (size_t i = 0; r == 0 && i < en->Changes.n; i++)
        r = authority_check(who, &ch[i], e);
    return r;
}

static void refuse(struct rpc_call *c, const struct err *e)
{
    if (e->code == ERR_DENIED)
        log_warn("refused pid=%d uid=%u: %s", (int)rpc_peer_pid(c), rpc_peer_uid(c), e->msg);
    node_counts.refused++;
    rpc_fail_err(c, e);
}

void ops_on_txn(struct rpc_call *c, const void *req)
{
    const struct raftd_txn *t = req;
    struct err e = ERR_INIT;
    unsigned who = peer(c);
    char names[128];
    struct entry en = { .At = clock_wall().ns, .Term = t->Term, .Requires = t->Requires, .Changes = t->Changes };
    en.By = str_from(authority_names(who, names));
    int r =
        who == 0 ? err_set(&e, ERR_DENIED, "user %u may not change the store", rpc_peer_uid(c)) : entry_check(&en, &e);
    if (r == 0)
        r = changes_check(who, &en, &e);
    if (r < 0)
        refuse(c, &e);
    else
        node_propose(c, &en);
}

void ops_on_barrier(struct rpc_call *c, const void *req)
{
    (void)req;
    node_barrier(c);
}

static bool is_apid(struct rpc_call *c, const char *what)
{
    struct err e = ERR_INIT;
    if (peer(c) & 1u << WHO_APID)
        return true;
    err_set(&e, ERR_DENIED, "user %u may not %s", rpc_peer_uid(c), what);
    refuse(c, &e);
    return false;
}

void ops_on_bootstrap(struct rpc_call *c, const void *req)
{
    const struct raftd_bootstrap *b = req;
    struct err e = ERR_INIT;
    struct entry en = { .At = clock_wall().ns, .By = STR("apid"), .Changes = b->Changes };
    if (!is_apid(c, "start a swarm"))
        return;
    int r = entry_check(&en, &e);
    if (r == 0 && b->Changes.n == 0)
        r = err_set(&e, ERR_INVALID, "Changes: a swarm starts with its cluster and its node");
    if (r < 0)
        refuse(c, &e);
    else
        node_bootstrap(c, b->ClusterID, b->NodeID, &en);
}

void ops_on_reset(struct rpc_call *c, const void *req)
{
    struct err e = ERR_INIT;
    struct node_status s;
    (void)req;
    if (!is_apid(c, "leave the swarm"))
        return;
    node_status(&s);
    if (!s.initialized) {
        rpc_fail(c, ERR_PRECONDITION, "this node is not part of a swarm");
        return;
    }
    log_info("leaving the swarm cluster=%s node=%s", s.id.cluster_id, s.id.node_id);
    if (node_reset(&e) < 0) {
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
        .State = str_from(s.initialized ? raft_role_name(s.raft.role) : "uninitialized"),
        .NodeID = str_from(s.id.node_id),
        .ClusterID = str_from(s.id.cluster_id),
        .LeaderID = str_from(s.initialized && s.raft.leader == s.raft.id ? s.id.node_id : ""),
        .Term = s.raft.term,
        .Committed = s.raft.committed,
        .Applied = s.raft.applied,
        .Revision = s.revision,
        .FirstIndex = s.raft.first_index,
        .LastIndex = s.raft.last_index,
    };
    rpc_reply(c, &rep);
}
