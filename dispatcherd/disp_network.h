/*
 * disp_network.h - what each node must know of the swarm's networks, and which nodes know it already.
 *
 * A mirror of the store, small enough to be kept for every task that is on a network: which object was last changed at
 * which revision, for each network a list in that order. So an answer costs what has changed since the node's own
 * revision, and one change wakes those nodes only that hold the network. What is said about an object is read from the
 * documents when it is said. What is gone leaves a tombstone, and before the first revision of this process the store's
 * change log is looked at; a node that asks for more than is remembered is told everything.
 *
 * A revision means the same to every manager. A node that asks with it has all up to it in its kernel: when all nodes
 * that hold a network of a stopping task have said so, nobody sends new connections to it, and it counts as drained.
 */
#pragma once

#include "common/object/views.h"
#include "common/proto/msg_dispatcherd.h"
#include "common/store/store.h"
#include "common/util/id.h"
#include "common/util/table.h"

#define DNET_NEVER UINT64_MAX
#define DNET_WAIT_MAX_MS 60000u
/* Who has a later revision than this manager must not be taken back: it has been replaced as the leader, and finds out
 * within this time. If it still leads then, the swarm was restored from a backup. */
#define DNET_AHEAD_MS 5000u

struct dnet_link {
    struct dnet_link *prev, *next;
    uint64_t rev; /* of the object's last change that matters here, or a later one */
};
struct dnet_list { /* by revision, oldest first */
    struct dnet_link *first, *last;
    size_t n;
};

struct dnet_net;
struct dnet_node;
struct dnet_task;
struct dnet_wait;

/* One task or service on one network, or one node in the swarm; gone: its tombstone. */
struct dnet_entry {
    struct dnet_link link; /* first */
    struct dnet_net *net;
    uint64_t print; /* of what is said about it */
    enum { DNET_SERVICE, DNET_ENDPOINT, DNET_NODE } kind;
    bool gone;
    char id[ID_SIZE];
};

struct dnet_holder {
    struct dnet_node *node;
    size_t at; /* its place in node->holds */
};
struct dnet_net {
    char id[ID_SIZE];
    bool there; /* its document is, with all that was allocated for it */
    bool ingress, changed;
    uint64_t rev, print; /* of its document */
    uint64_t floor;      /* tombstones up to here may be forgotten */
    struct dnet_list live, gone;
    struct dnet_holder *holders; /* nodes that must know it, or may still do */
    size_t nholders, cholders;
    struct dnet_wait *waits; /* of draining tasks, all of this network */
    struct dnet_net *next_changed;
};

struct dnet_hold { /* a node and a network */
    struct dnet_net *net;
    uint32_t refs; /* tasks of it on the node; one more for an ingress network */
    bool held;     /* the node has it, or was sent it */
    size_t at;     /* its place in net->holders */
};
struct dnet_node {
    char id[ID_SIZE];
    struct dnet_entry *entry;
    struct dnet_hold *holds;
    size_t nholds, cholds;
    bool live;                      /* counts for draining */
    bool strangers;                 /* it holds networks that are not known here */
    uint64_t seq;                   /* as it asked last */
    uint64_t acked;                 /* of that: in its kernel; 0: not known */
    void *poll;                     /* the call that waits; NULL: none */
    const struct disp_network *req; /* of that call */
    uint64_t until_ms;
    size_t heap_at; /* from 1; 0: not waiting for the time */
    bool hot;       /* queued for an answer */
    struct dnet_node *next_hot;
    struct dnet_wait *parked; /* of draining tasks, that wait for this node */
};

/* A draining task and one of its networks: looks through the holders, and stops at each that has not heard yet. */
struct dnet_wait {
    struct dnet_task *task;
    struct dnet_net *net;
    struct dnet_wait *prev, *next; /* in net->waits */
    struct dnet_node *parked;      /* NULL: not at any */
    struct dnet_wait *prev_parked, *next_parked;
    size_t pos;
};

enum dnet_state { DNET_GONE, DNET_STARTING, DNET_READY, DNET_DRAINING };

/* That is on a network, has a node, and is not dead. */
struct dnet_task {
    struct dnet_node *node;
    struct dnet_entry **on;
    size_t n;
    enum dnet_state state;
    uint64_t rev; /* of its document, as noted */
    bool never;   /* it was to stop before it ran: no node was ever told to connect to it */
    bool drained;
    uint64_t drain_rev, drain_until_ms;        /* while it is draining and not drained */
    size_t waiting;                            /* networks that somebody still sends from */
    struct dnet_wait *waits;                   /* n of them */
    struct dnet_task *prev_drain, *next_drain; /* in one of the lists */
    char service[ID_SIZE];
};

struct dnet_service { /* stays while tasks refer to it */
    bool there;
    size_t tasks;
    uint64_t drain_ms;
    char *name;
    struct dnet_entry **on;
    size_t n;
};

struct dnet_old { /* before this process began to watch */
    uint64_t rev;
    enum kind kind;
    char id[ID_SIZE];
};

struct dnet_drains {
    struct dnet_task *first, *last;
};

struct disp_net {
    uint64_t revision; /* all that was told is of this one or earlier */
    uint64_t keys_rev;
    uint64_t begin, floor; /* the mirror is exact from `begin` on; what happened between is in `old` */
    struct table nets, tasks, services, nodes; /* ID -> struct dnet_... */
    struct dnet_net swarm;                     /* not a network: the nodes, held by all of them */
    struct dnet_net **ingress;
    size_t ningress, cingress;
    struct dnet_net *changed;
    struct dnet_old *old; /* by revision */
    size_t nold, cold;
    bool loading;
    struct dnet_entry **load; /* while loading: not in their lists yet */
    size_t nload, cload;
    struct dnet_node **heap; /* calls that wait, by until_ms */
    size_t nheap, cheap;
    struct dnet_node *hot, **hot_end;
    size_t nhot;
    int64_t tokens;
    uint64_t tokens_ms;
    struct dnet_drains draining, over; /* by drain_until_ms */
    char (*drained)[ID_SIZE];          /* since dnet_drained() was last asked */
    size_t ndrained, cdrained, drained_at;
    uint64_t drain_wait_ms, drain_ms; /* settings: the longest wait for acks; the default drain period */
    uint64_t late, drains;            /* for metrics: drains given up waiting for, and all */
};

void dnet_init(struct disp_net *d);
void dnet_done(struct disp_net *d);

/* dnet_clear - forgets everything but the settings. Waiting calls must have been answered. */
void dnet_clear(struct disp_net *d);

/* dnet_load - begins to read a snapshot from nothing: networks, services, nodes and tasks are then noted, in this
 * order; then dnet_loaded(). */
void dnet_load(struct disp_net *d, struct store_snap *snap, uint64_t revision);
void dnet_loaded(struct disp_net *d);

/* dnet_turn - changes follow, all of a snapshot of this revision. dnet_settle - they were all told: who waits and has
 * something to hear is queued. */
void dnet_turn(struct disp_net *d, uint64_t revision);
void dnet_settle(struct disp_net *d);

/* One object as it is now; an empty document: it is not there (any more). */
void dnet_note_network(struct disp_net *d, struct str id, struct str doc);
void dnet_note_service(struct disp_net *d, struct str id, struct str doc);
void dnet_note_node(struct disp_net *d, struct str id, struct str doc);
void dnet_note_task(struct disp_net *d, struct str id, struct str doc, uint64_t now_ms);
void dnet_note_keys(struct disp_net *d, struct str doc);

/* dnet_live - is the node there to be waited for? */
void dnet_live(struct disp_net *d, struct str node, bool live, uint64_t now_ms);

/* dnet_ask - a node's call. False: no such node. @ret_before: a call of the node that still waited, given up. */
bool dnet_ask(struct disp_net *d, struct str node, void *call, const struct disp_network *req, uint64_t now_ms,
              void **ret_before, uint64_t *ret_before_seq);

/* dnet_tick - calls whose time is up are queued, tasks that waited for too long are drained. */
void dnet_tick(struct disp_net *d, uint64_t now_ms);

/* dnet_due - when dnet_tick() or dnet_next() has something to do (mono ms); DNET_NEVER. */
uint64_t dnet_due(const struct disp_net *d, uint64_t now_ms);

/* dnet_next - the next node to answer, oldest first; NULL: nobody, or not yet (dnet_due()). Answers are paced, so that
 * thousands of nodes share what changed meanwhile and leave time for other work. dnet_spent - how long the answer was.
 */
struct dnet_node *dnet_next(struct disp_net *d, uint64_t now_ms);
void dnet_spent(struct disp_net *d, size_t bytes, bool shared);

/* dnet_sign - appends what tells this node's answer from that of another node; false: it is like no other. */
bool dnet_sign(const struct disp_net *d, const struct dnet_node *n, struct buf *out);

/* dnet_fill - the answer. Texts borrow from the arena and the snapshot. */
void dnet_fill(struct disp_net *d, struct store_snap *snap, struct dnet_node *n, struct arena *a,
               struct disp_network_reply *rep);

/* dnet_answered - takes its call away from a node, that now has been sent everything. */
void *dnet_answered(struct disp_net *d, struct dnet_node *n);

/* dnet_withdraw - the same without an answer; NULL: it had no call. Also for nodes that are not known. */
void *dnet_withdraw(struct disp_net *d, struct str node);
/* dnet_withdraw_any - one call of any node; NULL: nobody waits. */
void *dnet_withdraw_any(struct disp_net *d);

/* dnet_task_drained - it is to stop, and nobody sends it anything new. The document may be newer than what was noted.
 */
bool dnet_task_drained(const struct disp_net *d, struct str task, struct str doc);

/* dnet_drained - one task of which dnet_task_drained() says something else than when this was last asked; false: no
 * more. The text lives until the next change of anything. */
bool dnet_drained(struct disp_net *d, struct str *ret_task);

/* dnet_drain_ms - how long a task of the service may take to end its connections; 0 when it has no networks. */
uint64_t dnet_drain_ms(const struct disp_net *d, struct str task_doc, struct str service_id);

/* dnet_network - a network's document as messages say it. */
void dnet_network(struct str id, struct str doc, struct arena *a, struct net_network *ret);

/* dnet_attachments - those of a task. */
void dnet_attachments(struct store_snap *snap, struct str task_doc, struct arena *a, struct list *ret);

/* dnet_check - the invariants of the whole (CHECK). */
void dnet_check(const struct disp_net *d);
