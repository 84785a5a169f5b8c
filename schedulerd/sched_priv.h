/* sched_priv.h - the mirror's records, shared by the files of the core. */
#pragma once

#include "common/object/constraint.h"
#include "common/util/check.h"
#include "common/util/print.h"
#include "schedulerd/sched_core.h"

#define SCHED_OF(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

static inline void link_init(struct sched_link *l)
{
    l->prev = l->next = l;
}

static inline bool link_alone(const struct sched_link *l)
{
    return l->next == l;
}

static inline void link_del(struct sched_link *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
    link_init(l);
}

/* link_push - at the end of the list @head. */
static inline void link_push(struct sched_link *head, struct sched_link *l)
{
    l->prev = head->prev;
    l->next = head;
    head->prev->next = l;
    head->prev = l;
}

/* link_join - all of @from to the end of @to. */
static inline void link_join(struct sched_link *to, struct sched_link *from)
{
    if (link_alone(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    link_init(from);
}

/* Two walks over the same data: the first measures (p NULL), the second copies. */
struct sched_pack {
    char *p;
    size_t n;
};
void *sched_pack_room(struct sched_pack *k, size_t size); /* NULL while measuring; not zeroed */
struct str sched_pack_str(struct sched_pack *k, struct str s);

struct sched_kind { /* of generic resource: what is asked for */
    struct str name;
    int64_t amount;
};

struct sched_stock { /* of generic resource: what a node has */
    struct str name;
    int64_t amount, used;
    bool named;
    struct str *ids; /* of a named one: amount of them */
    bool *taken;
};

struct sched_need { /* of a spec: a plugin, or type SCHED_KERNEL_TYPE */
    struct str type, name;
};
#define SCHED_KERNEL_TYPE "Kernel" /* how agentd lists what its kernel can do among the plugins */

struct sched_port {
    unsigned port; /* protocol << 16 | number */
    unsigned uses;
};

struct sched_node {
    struct view_node view; /* only what placement looks at; points into block */
    void *block;
    bool present; /* false: only tasks refer to it */
    bool ready;
    bool enforce;        /* its number is in the list of those to look at */
    unsigned number;     /* index in sched.at; given again when it is gone */
    unsigned serial;     /* never given again */
    uint64_t traits;     /* a print of all that a class can ask for */
    int64_t cpu, memory; /* what it has */
    int64_t used_cpu, used_memory;
    struct sched_stock *stock;
    size_t nstock;
    struct sched_port *ports;
    unsigned nports, ports_cap;
    unsigned active;        /* tasks that are to run here */
    unsigned tasks;         /* that refer to this node */
    struct sched_link held; /* tasks that do not wait */
};

/* What is asked of a node but for the exact amounts: specs that ask for about the same share the order of nodes. */
struct sched_class {
    size_t refs;
    void *block;
    struct constraint *constraints;
    struct view_platform *platforms;
    struct str *spreads;
    unsigned *ports;
    struct sched_need *needs;
    struct sched_kind *kinds;
    unsigned nconstraints, nplatforms, nspreads, nports, nneeds, nkinds;
    bool csi;                      /* wants volumes of a cluster */
    int64_t cpu, memory;           /* the least that a spec of this class wants */
    struct sched_pool *pool;       /* NULL: not built */
    uint64_t said_pass;            /* the explanation of this pass ... */
    int64_t said_cpu, said_memory; /* ... for such a spec */
    const char *said;
};

struct sched_spec {
    struct sched_class *class;
    size_t refs;
    uint64_t number; /* in the order of their coming */
    uint64_t hash;   /* of the ID */
    uint64_t image;  /* print of its name */
    int64_t cpu, memory;
    uint64_t max_replicas;
    uint64_t hopeless; /* at this count of changes no less important tasks could make room; 0 never */
};

/* Tasks of a service on each node, of those that are to run: open addressing; a single one without a table. */
struct sched_count {
    unsigned node, n; /* n 0: free */
};
struct sched_counts {
    struct sched_count *v;
    unsigned cap, used;
    struct sched_count one;
};
unsigned sched_count_of(const struct sched_counts *c, unsigned node);
/* sched_count_next - for (i = 0; (x = sched_count_next(c, &i));) in no particular order. */
const struct sched_count *sched_count_next(const struct sched_counts *c, unsigned *i);

struct sched_priority {          /* services of one priority that have tasks to be looked at */
    struct sched_priority *next; /* lower */
    int value;
    size_t services;
    struct sched_link todo;
};

struct sched_service {
    size_t refs; /* tasks */
    struct sched_priority *priority;
    struct sched_policy policy;
    struct sched_counts counts;
    unsigned active, running;         /* tasks that are to run; of those, what does and is to stay */
    struct sched_link fresh, refused; /* tasks that wait */
    struct sched_link todo, again;    /* among those with fresh tasks; with refused ones */
    struct sched_link balanced, uneven;
};

struct sched_task {
    struct sched_spec *spec;
    struct sched_service *service;
    struct sched_node *node; /* NULL: none yet */
    struct sched_link link;  /* waiting: in its service's lists; else in its node's */
    unsigned slot;
    unsigned said; /* a print of the reason why it was refused last; 0 none */
    uint16_t state, desired;
    bool waiting : 1;   /* wants a decision */
    bool fresh : 1;     /* and has not been refused */
    bool holds : 1;     /* its reservations are counted on the node */
    bool active : 1;    /* it is counted among the node's tasks */
    bool evicted : 1;   /* it is to go elsewhere */
    bool given : 1;     /* it has named resources: sched.given */
    bool nominated : 1; /* room is kept for it: sched.nominations */
};

struct sched_given {
    size_t n;
    struct sched_need *v; /* type: the kind, name: the id */
    void *block;
};

/* A task of higher priority for which others make room: what it will need counts as used already. */
struct sched_nomination {
    struct sched_task *task;
    struct sched_node *node;
};

struct sched_failure {
    unsigned node, serial;
    int64_t at_ns;
};
struct sched_failures {
    struct sched_failure *v;
    unsigned n, cap;
};
#define SCHED_FAILURES_KEPT 4096u /* of one spec */

/* Where an image is, as far as that was seen: a task was ready there, so it had been pulled. The nodes seen last; not
 * all of them, since of those where a task could go one is enough. */
#define SCHED_IMAGE_NODES 32u
#define SCHED_IMAGES_MANY 4096u /* then all is forgotten */
struct sched_image {
    struct {
        unsigned node, serial;
    } at[SCHED_IMAGE_NODES];
    unsigned n, next;
};

/* ---- filters ---- */

/* sched_filter_node - the first filter that rejects the node; SCHED_FILTER_COUNT when none does. */
enum sched_filter sched_filter_node(const struct sched_spec *spec, const struct sched_service *svc,
                                    const struct sched_node *n);
bool sched_meets_constraints(const struct sched_class *c, const struct sched_node *n);
bool sched_can_ever(const struct sched_class *c, const struct sched_node *n); /* all but what tasks use, and ready */
bool sched_has_room(const struct sched_class *c, const struct sched_node *n, int64_t cpu, int64_t memory);
extern const char *const sched_filter_name[SCHED_FILTER_COUNT];

/* sched_reason - "no suitable node (...)" over all nodes, or @only one. Given by @a. */
const char *sched_reason(const struct sched *s, const struct sched_spec *spec, const struct sched_service *svc,
                         const struct sched_node *only, struct arena *a);

/* ---- the mirror ---- */

uint64_t sched_print(struct str s); /* FNV-1a, 64 bits */
unsigned *sched_room_unsigned(unsigned *v, size_t n, size_t *cap);

/* sched_recent - failures of a spec that still count; NULL none. */
const struct sched_failures *sched_recent(struct sched *s, const struct sched_spec *spec, int64_t now_ns);
unsigned sched_failures_on(const struct sched_failures *f, const struct sched_node *n, int64_t now_ns);

const struct sched_image *sched_image_of(const struct sched *s, const struct sched_spec *spec); /* NULL: nowhere */

/* sched_set - moves a task to a node and state, with everything that is counted. */
void sched_set(struct sched *s, struct sched_task *t, struct sched_node *n, enum task_state state,
               enum task_state desired);
void sched_refuse(struct sched *s, struct sched_task *t);
/* sched_give - picks what the task gets of its node's generic resources. */
struct list sched_give(struct sched *s, struct sched_task *t, struct arena *a);
void sched_evict(struct sched *s, struct sched_task *t);
void sched_nominate(struct sched *s, struct sched_task *t, struct sched_node *n);
const struct sched_node *sched_nominated(const struct sched *s, const struct sched_task *t); /* NULL: none */
void sched_unnominate(struct sched *s, struct sched_task *t);
/* sched_hold - counts what a spec needs on a node; sign -1: no longer. */
void sched_hold(struct sched *s, struct sched_node *n, const struct sched_spec *spec, int sign);
struct sched_priority *sched_next_todo(struct sched *s);

/* ---- the order of nodes ---- */

struct sched_group { /* tasks of one service and spec that are placed one after the other */
    struct sched *s;
    int64_t now_ns;
    struct sched_spec *spec;
    struct sched_service *service;
    const struct sched_failures *failures;
    struct sched_pool *pool;
    const struct sched_image *image; /* NULL: no node is known to have it */
    unsigned best;                   /* where the best node is in the pool */
    bool all;                        /* every node has the key of this group, not only those where it differs */
};

/* sched_group_begin - @tasks: how many are about to be placed, or SCHED_WHOLE: all keys will be looked at. */
#define SCHED_WHOLE UINT32_MAX
void sched_group_begin(struct sched_group *g, size_t tasks);
/* sched_group_best - the node that comes first; NULL: none can take a task. */
struct sched_node *sched_group_best(struct sched_group *g);
/* sched_group_placed - after sched_set() put a task on the best node. */
void sched_group_placed(struct sched_group *g);
void sched_group_end(struct sched_group *g);
/* sched_group_uneven - the node that has a task too many of the service, beside one that could take it; NULL: level. */
struct sched_node *sched_group_uneven(struct sched_group *g);
/* sched_group_better - a task that was taken off @from leaves more there than there are at @to, where they part. Each
 * such move brings the sum of the squares down, so there is an end to moving. */
bool sched_group_better(const struct sched_group *g, const struct sched_node *from, const struct sched_node *to);

/* sched_pool_nodes - the numbers of the nodes that could ever take a task of the class. Borrowed. */
const unsigned *sched_pool_nodes(struct sched *s, struct sched_class *c, size_t *ret_n);
void sched_pool_free(struct sched *s, struct sched_class *c);
void sched_index_clear(struct sched *s);

/* ---- room for what matters more ---- */

struct sched_victims {
    struct sched_eviction *v;
    size_t n, cap;
};
/* sched_preempt - finds a node where tasks of lower priority can make room, and keeps that room for the task. Returns
 * how many nodes were looked at. */
size_t sched_preempt(struct sched *s, struct sched_task *t, struct arena *a, struct sched_victims *out);
