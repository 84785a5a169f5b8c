/*
 * sched_core.h - which node runs a task (swarmkit.md §6).
 *
 * The core keeps a mirror: nodes with what is used on them, and tasks that use something or wait. It learns from
 * documents, in any order and as often as one likes; a pass places everything that waits, and takes its own decisions
 * into the mirror. When they could not be stored, the tasks concerned are put again as they are in the store.
 *
 * Nothing here looks at every node for each task: see sched_pool.c.
 */
#pragma once

#include "common/object/views.h"
#include "common/util/table.h"

#define SCHED_FAILURE_WINDOW_NS 300000000000ll /* failures of a spec on a node count for five minutes */
#define SCHED_FAILURES_MANY 5u                 /* so many make other nodes come first */

enum sched_filter { /* in this order; the first that rejects counts */
                    SCHED_READY,
                    SCHED_RESOURCE,
                    SCHED_PLUGIN,
                    SCHED_CONSTRAINT,
                    SCHED_PLATFORM,
                    SCHED_HOST_PORT,
                    SCHED_MAX_REPLICAS,
                    SCHED_VOLUME,
                    SCHED_KERNEL,
                    SCHED_FILTER_COUNT /* all passed */
};

struct sched_link { /* of circular lists */
    struct sched_link *prev, *next;
};

struct sched_node;
struct sched_nomination;
struct sched_priority;

struct sched {
    struct table nodes;     /* ID -> struct sched_node */
    struct table tasks;     /* ID -> struct sched_task */
    struct table specs;     /* taskspec ID -> struct sched_spec */
    struct table services;  /* ID -> struct sched_service: those with tasks, or with labels that matter */
    struct table classes;   /* what can be asked of a node -> struct sched_class */
    struct table indexes;   /* a key of constraints -> struct sched_index */
    struct table failures;  /* print of a taskspec's ID -> struct sched_failures */
    struct table images;    /* print of an image's name -> struct sched_image */
    struct table given;     /* task ID -> struct sched_given: named resources that it holds */
    struct sched_node **at; /* nodes by their number; NULL: free */
    size_t nat, at_cap;
    unsigned *free_numbers;
    size_t nfree, free_cap;
    unsigned serial; /* of the newest node */
    uint64_t epoch;  /* counts changes of what nodes are: what was sorted by that has to be sorted again */
    unsigned *log;   /* numbers of nodes where something became free, or else changed for the better */
    size_t nlog, log_cap;
    uint64_t log_base, log_read;        /* how many were forgotten before log[0]; how far somebody has read */
    struct sched_link pools;            /* classes whose nodes are sorted, the one used last at the end */
    size_t pooled;                      /* nodes in all of those */
    struct sched_priority *priorities;  /* highest first */
    struct sched_link refused;          /* services with tasks that were refused */
    struct sched_link balanced, uneven; /* services that want to be level; those that have to be looked at */
    struct sched_nomination *nominations;
    size_t nnominations, nominations_cap;
    unsigned *enforce; /* numbers of nodes that are not what they were: their tasks' constraints have to be looked at */
    size_t nenforce, enforce_cap;
    unsigned *looked; /* those that were looked at last */
    size_t nlooked, looked_cap;
    unsigned *touched, *branches; /* what a group has to put back at its end */
    size_t ntouched, touched_cap, nbranches, branches_cap;
    size_t waiting; /* tasks that want a decision */
    uint64_t specs_seen, passes;
    uint64_t changes; /* counts what may let a task in that had no hope */
    int64_t swept_ns; /* when old failures were forgotten last */
    struct arena scratch;
    struct buf key;
    bool freed; /* something changed that may let a refused task in */
};

void sched_init(struct sched *s);
void sched_done(struct sched *s);
void sched_clear(struct sched *s);

/* sched_put_node - the encoded document; copied. 0 or an error of the decoder, then the node is as good as deleted. */
int sched_put_node(struct sched *s, struct str doc, struct err *e);
void sched_del_node(struct sched *s, struct str id);

/* sched_network_fn - what a spec's network needs of a node: the driver, and whether it is encrypted; false: unknown. */
typedef bool sched_network_fn(void *arg, struct str id, struct str *ret_driver, bool *ret_encrypted);

bool sched_has_spec(const struct sched *s, struct str id);
/* sched_put_spec - the encoded taskspec; copied. Before the tasks that refer to it; goes with the last of them.
 * @network may be NULL: then networks need nothing. */
int sched_put_spec(struct sched *s, struct str id, struct str doc, sched_network_fn *network, void *arg, struct err *e);

/* What the labels of a service say (views.h); zeros: nothing. */
struct sched_policy {
    int priority;
    struct view_budget rebalance;
};
void sched_put_service(struct sched *s, struct str id, const struct sched_policy *p);
static inline void sched_del_service(struct sched *s, struct str id)
{
    sched_put_service(s, id, &(struct sched_policy){ 0 });
}

/* sched_put_task - a task without a known spec is taken to need nothing. now_ns: the age of failures. */
void sched_put_task(struct sched *s, const struct view_task *t, int64_t now_ns);
void sched_del_task(struct sched *s, struct str id);

/* sched_put_failure - a task that had failed before this mirror was made; after all other tasks. */
void sched_put_failure(struct sched *s, const struct view_task *t, int64_t now_ns);

/* sched_again - the decision about this task was not stored; it was put again as it is. */
void sched_again(struct sched *s, struct str id);

struct sched_decision {
    struct str task, node; /* borrowed from the mirror; node "": cannot be placed */
    const char *reason;    /* then */
    bool obsolete;         /* nobody wants it any more and it never ran: it ends here */
    bool preassigned;      /* its node was given, and fits */
    struct list generic;   /* view_generic: what it gets of the node's generic resources */
};
struct sched_eviction {
    struct str task;
    const char *reason;
};
struct sched_decisions {
    struct sched_decision *v;
    size_t n;
    struct sched_eviction *evict; /* tasks that have to make room */
    size_t nevict;
};

/* sched_pass - at most @max decisions; what is left keeps waiting. Returns true when there is more to do. */
bool sched_pass(struct sched *s, int64_t now_ns, size_t max, struct arena *a, struct sched_decisions *out);

/*
 * sched_rebalance - tasks of services that want to be level (label microswarm.rebalance) and are not, since nodes came
 * or changed: each service within its budget, of which everything takes part that is not running. At most @max.
 */
struct sched_eviction *sched_rebalance(struct sched *s, int64_t now_ns, size_t max, struct arena *a, size_t *ret_n);

/*
 * sched_enforce - tasks that are to run where their constraints are no longer met: a label was changed, a role
 * (swarmkit.md §3.7; resources are not looked at). Looks only at nodes that changed since the last time;
 * sched_enforce_again() has the same ones looked at once more.
 */
struct str *sched_enforce(struct sched *s, struct arena *a, size_t *ret_n);
void sched_enforce_again(struct sched *s);

/* sched_explain - the whole account for one waiting or placed task, as JSON: each node and what it says. At most
 * SCHED_EXPLAIN_NODES nodes one by one, those that fit first; what rejects the others is counted. */
#define SCHED_EXPLAIN_NODES 1000u
void sched_explain(struct sched *s, struct str task, int64_t now_ns, struct buf *out);

/* sched_check - whole-state invariants: what is counted on each node is what its tasks add up to (CHECK). */
void sched_check(const struct sched *s);
