/*
 * node.h - raftd's shell: one thread that carries out what the core decides. Durable, then applied, then answered, then
 * published.
 *
 * Requests that arrive while a write is syncing wait in the inbox, and all go into the next write together (group
 * commit).
 */
#pragma once

#include "common/daemon/rpc.h"
#include "raftd/authority.h"
#include "raftd/core/raft.h"
#include "raftd/entry.h"
#include "raftd/sm.h"

struct node_conf {
    char secret_group[CONF_TEXT_MAX];
    uint64_t snapshot_interval, snapshot_keep, snapshot_bytes; /* where the cluster's spec says nothing */
    uint64_t slow_reader_ms;
    struct authority authority;
};
extern struct node_conf node_conf;

int node_start(struct err *e);
void node_stop(void);

/* node_propose - one checked transaction; the call is answered when it is applied, or refused. */
void node_propose(struct rpc_call *c, const struct entry *en);

/* node_barrier - answers with a revision that holds every write acknowledged before. */
void node_barrier(struct rpc_call *c);

/* node_bootstrap - a new swarm with this node as its only voter and `en` as its first entry. */
void node_bootstrap(struct rpc_call *c, struct str cluster_id, struct str node_id, const struct entry *en);

/* node_reset - leaves the swarm: log, keys and maps are gone when this returns 0. */
int node_reset(struct err *e);

struct node_status {
    bool initialized, snapshotting;
    struct raft_status raft;
    struct raft_log_identity id; /* when initialized */
    uint64_t revision, map_bytes, snapshot_index;
    char stalled[200]; /* why nothing is applied just now; "" */
};
void node_status(struct node_status *ret);

struct node_counts {
    uint64_t txns, conflicts, refused, batches, batch_max, applied_ns, snapshots, snapshot_failures, snapshot_ms,
        stale_readers;
};
extern struct node_counts node_counts;
void node_log_counts(struct raft_log_counts *ret); /* zeroes when there is no log */
struct sm *node_sm(void);
