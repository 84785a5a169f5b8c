/* sched_priv.h - the mirror's records, shared by the files of the core. */
#pragma once

#include "common/object/constraint.h"
#include "schedulerd/sched_core.h"

struct sched_kind { /* of generic resource */
    struct str name;
    int64_t amount;
};

struct sched_failure {
    uint64_t spec; /* the hash of its ID: the failure outlives the last task of the spec */
    int64_t at_ns;
};
#define SCHED_FAILURES_KEPT 32u

struct sched_plugin { /* what a spec needs of a node's engine */
    struct str type, name;
};

struct sched_node {
    struct arena mem; /* holds the document that `view` points into */
    struct view_node view;
    bool present; /* false: only tasks refer to it */
    bool ready;
    bool enforce;             /* its tasks' constraints have to be looked at */
    uint64_t traits;          /* a print of all that constraints can be about */
    struct sched_kind *kinds; /* what it has */
    size_t nkinds;

    int64_t used_cpu, used_mem;
    struct table used_kinds; /* name -> int64_t */
    struct table ports;      /* "tcp/80" -> unsigned uses */
    struct table services;   /* service ID -> unsigned active tasks */
    unsigned active;         /* tasks that are to run here */
    unsigned tasks;          /* that refer to this node */
    struct sched_failure failures[SCHED_FAILURES_KEPT];
    unsigned nfailures;
};

struct sched_spec {
    struct arena mem;
    unsigned refs;
    uint64_t number; /* in the order of their coming */
    uint64_t hash;   /* of the ID */
    int64_t cpu, memory;
    struct sched_kind *kinds;
    size_t nkinds;
    struct constraint *constraints;
    size_t nconstraints;
    const struct view_platform *platforms;
    size_t nplatforms;
    struct str *spreads;
    size_t nspreads;
    struct str *ports; /* "tcp/80": host mode, explicit */
    size_t nports;
    struct sched_plugin *plugins;
    size_t nplugins;
    uint64_t max_replicas;
};

struct sched_task {
    struct sched_spec *spec;
    struct sched_node *node; /* NULL: none yet */
    char service[32];        /* ID; longer ones cannot be (id.h) */
    enum task_state state, desired;
    int64_t created_ns;
    uint64_t slot;
    bool waiting;                   /* wants a decision */
    bool fresh;                     /* came since the last pass */
    bool holds;                     /* its reservations are counted on the node */
    bool active;                    /* it is counted among the node's tasks */
    struct sched_task *prev, *next; /* among those that wait */
};

/* sched_filter_node - the first filter that rejects the node; SCHED_FILTER_COUNT when none does. */
enum sched_filter sched_filter_node(const struct sched_spec *spec, const char *service, const struct sched_node *n);
bool sched_meets_constraints(const struct sched_spec *spec, const struct sched_node *n);
extern const char *const sched_filter_name[SCHED_FILTER_COUNT];

unsigned sched_active_of(const struct sched_node *n, const char *service);
unsigned sched_failures_of(const struct sched_node *n, const struct sched_spec *spec, int64_t now_ns);

/* sched_set - moves a task to a node and state, with everything that is counted. */
void sched_set(struct sched *s, struct sched_task *t, struct sched_node *n, enum task_state state,
               enum task_state desired);
