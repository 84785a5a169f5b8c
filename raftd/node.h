/*
 * node.h - raftd's shell: one thread that carries out what the core decides. Durable, then applied, then answered, then
 * published.
 *
 * Requests that arrive while a write is syncing wait, and all go into the next write together (group commit). With
 * other managers the disk is waited for in a thread of its own (node_write.c), and entries are sent to them meanwhile.
 *
 * node.c starting, stepping and leaving     node_write.c   what the core wants durable
 * node_apply.c  committed entries, roles    node_snap.c    snapshots and compaction
 * request.c     who waits for what, and passing requests on to the leader
 * group.c       the Raft group: changes of it, joining it, leaving it     stream.c   large things to other managers
 */
#pragma once

#include "common/daemon/rpc.h"
#include "raftd/authority.h"
#include "raftd/core/raft.h"
#include "raftd/entry.h"
#include "raftd/members.h"
#include "raftd/seal.h"
#include "raftd/sm.h"

struct node_conf {
    char secret_group[CONF_TEXT_MAX];
    uint64_t snapshot_interval, snapshot_keep, snapshot_bytes; /* where the cluster's spec says nothing */
    uint64_t slow_reader_ms;
    uint64_t leader_wait_ms; /* how long a request waits for somebody to lead */
    struct authority authority;
};
extern struct node_conf node_conf;

int node_start(struct err *e);
bool node_drain(void);
void node_stop(void);

/* node_propose - one checked transaction; the call is answered when it is applied here, or refused. It is passed on to
 * the leader when that is another node, unless it is fenced, or comes from another node itself: then @of_term is the
 * term in which this one is to lead, else 0. */
void node_propose(struct rpc_call *c, const struct entry *en, uint64_t of_term);

/* node_barrier - answers with a revision that holds every write acknowledged before. */
void node_barrier(struct rpc_call *c, bool foreign);

/* node_bootstrap - a new swarm with this node as its only voter and `en` as its first transaction. */
void node_bootstrap(struct rpc_call *c, const struct raftd_bootstrap *b, const struct entry *en);

/* node_force_new - this node becomes the only voter, with what its log has. */
void node_force_new(struct rpc_call *c);

/* node_reset - leaves the swarm: log, keys and maps are gone when this returns 0. node_leave: and does not come back by
 * itself. */
int node_reset(struct err *e);
int node_leave(struct err *e);

/* node_key - seal_node_key() of the open log, and what autolock made of its keys; -ERR_PRECONDITION: locked, or there
 * is none. */
int node_key(char text[SEAL_NODE_KEY_SIZE], bool *ret_known, uint64_t *ret_epoch, struct err *e);
/* node_unlock - opens the locked log; -ERR_DENIED "invalid key". */
int node_unlock(struct str key, struct err *e);

/* For a restore: the node must be in no swarm; where its log is to be made; it has been made. */
int node_may_restore(struct err *e);
const char *node_log_parent(void);
int node_restored(struct err *e);

/* group.c; answered when the change is committed. */
void node_members(struct rpc_call *c, bool foreign);
void node_member_add(struct rpc_call *c, const struct raftd_member_add *in);
void node_member_remove(struct rpc_call *c, struct str node_id);
int node_transfer(struct str node_id, struct err *e); /* "": to whoever is furthest */

struct node_status {
    bool initialized, snapshotting, locked;
    struct raft_status raft;
    struct raft_log_identity id; /* when initialized */
    char leader[65];             /* its node; "" when nobody is known to lead */
    uint64_t revision, map_bytes, snapshot_index;
    uint64_t unlock_key_epoch; /* Rev of the unlock key that the log's key is wrapped with; 0: none, autolock is off */
    size_t waiting;            /* requests */
    char stalled[200];         /* why nothing is applied just now; "" */
};
void node_status(struct node_status *ret);
const char *node_state(const struct node_status *s); /* as op_raftd_status says it */

/* One member as this node sees it. */
struct node_member {
    struct member m;
    bool self, leader, reachable;
    struct raft_member_status raft;
};
size_t node_member_list(struct node_member v[RAFT_MEMBERS_MAX]);

struct node_counts {
    uint64_t txns, conflicts, refused, batches, batch_max, applied_ns, snapshots, snapshot_failures, snapshot_ms,
        stale_readers, forwarded, forward_failures, bad_messages, snapshots_sent, snapshots_received;
};
extern struct node_counts node_counts;
void node_log_counts(struct raft_log_counts *ret); /* zeroes when there is no log */
struct sm *node_sm(void);
