/* node_priv.h - what the files of raftd's shell share. */
#pragma once

#include "common/daemon/daemon.h"
#include "common/util/check.h"
#include "common/util/clock.h"
#include "raftd/autolock.h"
#include "raftd/node.h"
#include "raftd/peer_msg.h"
#include "raftd/pub.h"
#include "raftd/raft_log.h"
#include "raftd/tail.h"

#define BATCH_ENTRIES 1024u
#define BATCH_BYTES (8u << 20)
#define RETRY_MS 500u
#define KEEP_BUFFER_BYTES (256u << 10) /* idle memory */

enum request_kind { REQ_TXN, REQ_BARRIER, REQ_START, REQ_MEMBERS, REQ_ADD, REQ_REMOVE };

/* A call that waits: for the next write, for its entry to be applied, for a leader, for an answer of the leader. */
struct request {
    struct request *next;
    struct rpc_call *call; /* NULL: answered already */
    enum request_kind kind;
    bool foreign;            /* of another manager, which has passed it on */
    uint64_t of_term;        /* then: the term in which this node is to lead */
    uint64_t req, sent_term; /* passed on under this number to the leader of this term */
    struct entry en;         /* REQ_TXN; points into the call */
    char by[65];
    uint64_t deadline_ms; /* 0: none yet */

    size_t off, len;      /* its entry in node.batch */
    uint64_t index, term; /* in the log */
    bool done;            /* its index is applied */
    bool again;           /* but another leader's entry is there */
    struct err result;
    uint64_t revision;
    raft_id member; /* REQ_ADD */
};

struct request_list {
    struct request *head, **tail;
};
void request_push(struct request_list *l, struct request *q);
struct request *request_pop(struct request_list *l);

struct node {
    char dir[512], run_dir[CONF_TEXT_MAX];
    struct raft *core; /* NULL: in no swarm, or locked */
    struct raft_log *log;
    struct sm *sm;
    struct pub *pub;
    struct rpc_client *gateway;
    struct raft_effects fx;
    struct timer *tick, *retry;
    sd_event_source *turn; /* after everything that has arrived */
    bool locked;
    struct autolock autolock;

    struct members members; /* in force */
    struct member newcomer; /* of the change being proposed; id 0: none */

    /* writing: node_write.c */
    struct tail tail;
    struct buf batch; /* entries of the proposals that wait for the next write */
    const struct peer_msg *msg;
    uint64_t handed;  /* up to here the log has the entries, durable or not */
    bool writing;     /* a write is under way in the other thread */
    size_t unsettled; /* messages and bytes since the last turn */

    /* requests: request.c */
    struct request_list queued;  /* in node.batch */
    struct request_list waiting; /* written, not applied yet */
    struct request_list held;    /* nobody leads */
    struct request_list away;    /* with the leader */
    struct request_list limbo;   /* the leader was lost before it answered */
    struct request_list coming;  /* done by the leader, not applied here yet */
    size_t n_queued;

    uint64_t commit; /* as the core said last */
    char stalled[200];
    bool want_snapshot, cluster_changed, role_changed, draining;
    uint64_t interval, keep;
    struct buf scratch;
};
extern struct node node;

/* node.c */
int node_step(struct raft_event *ev, struct err *e);
void node_turn_soon(void);
void node_turn(void);
void give_up(const char *what, const struct err *e);
const char *node_role_text(const struct raft_status *s);
const char *node_leader(const struct raft_status *s);               /* its node, "" */
int node_create(const struct raft_log_identity *id, struct err *e); /* a log without entries: a member that joins */
int node_maps_replace(struct err *e); /* the maps start again from the snapshot that was installed */

/* node_write.c */
void write_open(void);
void write_close(void);
void write_note(const struct raft_effects *fx);
bool write_go(void); /* false: there is nothing to do, or the disk is busy */
bool write_pending(void);
int log_entry_at(uint64_t index, struct raft_log_entry *ret, struct err *e); /* lives until the next call */

/* node_apply.c */
bool apply_some_rounds(void); /* true: there is more */
void apply_ahead(void);       /* what is being written, without showing it to anybody yet */
void apply_give_back(void);   /* none of that; before anything else is done to the maps */
void apply_after(void);       /* roles, publishing, answers */
int apply_init(struct err *e);
void apply_close(void);
void apply_open(void);

/* node_snap.c */
void snapshots_reset(void);
void snapshots_turn(void);
void snapshot_consider(void);
void snapshot_abandon(void);
bool snapshot_running(void);
void cluster_read(void);

/* request.c */
struct request *request_new(struct rpc_call *c, enum request_kind k);
int requests_open(struct err *e);
void requests_close(void);
void requests_flush(void);                             /* proposes what is queued */
void requests_appended(const struct raft_effects *fx); /* the queued ones are in the log now */
void requests_applied(uint64_t index, uint64_t term, const struct err *result, uint64_t revision);
void requests_seen(const struct raft_log_entry *en, const struct err *result, uint64_t revision);
void requests_snapshot(uint64_t index); /* one that ends there took the place of entries */
void requests_apply_undo(void);         /* the batch was not committed to the maps */
void requests_answer(void);
void requests_reads(const struct raft_effects *fx);
void requests_role(void);                                     /* who leads has changed */
bool requests_of(struct str node_id, uint64_t upto);          /* it waits for an entry up to there */
void requests_lost(uint64_t from, int code, const char *why); /* entries from there on will never be applied */
void requests_fail_all(const char *why);
bool requests_idle(void);
size_t requests_count(void);
void request_answer(struct request *q);

/* group.c */
int group_open(struct err *e);
void group_close(void);
void group_started(void); /* the node is in a swarm since now */
void group_refresh(void); /* node.members as the core has it in force */
void group_turn(void);    /* promotes, announces, looks whether this node still belongs */
void group_left(void);
void group_role(void);                 /* who leads may have changed */
const char *group_node_of(raft_id id); /* NULL: unknown */
void group_stay_out(void);
bool group_heard(raft_id from, struct str node_id); /* false: it is not that member's */

/* stream.c */
int streams_open(struct err *e);
void streams_close(void);
void stream_snapshot(raft_id to, const char *to_node);
bool stream_entry(const struct raft_msg *m, const char *to_node, uint64_t *ret_bytes); /* one that is too large */
void stream_on_chunk(const struct peer_chunk *c, struct str from_node);
void stream_on_ack(const struct peer_ack *a);
void streams_stop(void); /* what goes out: this node does not lead any more */
void streams_reset(void);

void node_message(struct peer_msg *m, struct str from_node);
