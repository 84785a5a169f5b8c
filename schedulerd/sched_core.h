/*
 * sched_core.h - which node runs a task (swarmkit.md §6).
 *
 * The core keeps a mirror: nodes with what is used on them, and tasks that use something or wait. It learns from
 * documents, in any order and as often as one likes; a pass places everything that waits, and takes its own decisions
 * into the mirror. When they could not be stored, the tasks concerned are put again as they are in the store.
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
                    SCHED_FILTER_COUNT /* all passed */
};

struct sched {
    struct table nodes; /* ID -> struct sched_node */
    struct table tasks; /* ID -> struct sched_task */
    struct table specs; /* taskspec ID -> struct sched_spec */
    struct sched_task *wait_list;
    size_t waiting; /* tasks that want a decision: the length of that list */
    uint64_t specs_seen;
    bool fresh;   /* a task came to wait since the last pass */
    bool freed;   /* something changed that may let a waiting task in */
    bool enforce; /* a node is not what it was: its tasks' constraints have to be looked at */
};

void sched_init(struct sched *s);
void sched_done(struct sched *s);
void sched_clear(struct sched *s);

/* sched_put_node - the encoded document; copied. 0 or an error of the decoder, then the node is as good as deleted. */
int sched_put_node(struct sched *s, struct str doc, struct err *e);
void sched_del_node(struct sched *s, struct str id);

bool sched_has_spec(const struct sched *s, struct str id);
/* sched_put_spec - the encoded taskspec; copied. Before the tasks that refer to it; goes with the last of them. */
int sched_put_spec(struct sched *s, struct str id, struct str doc, struct err *e);

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
};
struct sched_decisions {
    struct sched_decision *v;
    size_t n;
};

/* sched_pass - at most @max decisions; what is left keeps waiting. Returns true when there is more to do. */
bool sched_pass(struct sched *s, int64_t now_ns, size_t max, struct arena *a, struct sched_decisions *out);

/*
 * sched_enforce - tasks that are to run where their constraints are no longer met: a label was changed, a role
 * (swarmkit.md §3.7; resources are not looked at). Looks only at nodes that changed since the last time, or at all
 * after sched_clear() and sched_enforce_all().
 */
struct str *sched_enforce(struct sched *s, struct arena *a, size_t *ret_n);
void sched_enforce_all(struct sched *s);

/* sched_explain - the whole account for one waiting or placed task, as JSON: each node and what it says. */
void sched_explain(struct sched *s, struct str task, struct buf *out);

/* sched_check - whole-state invariants: what is counted on each node is what its tasks add up to (CHECK). */
void sched_check(const struct sched *s);
