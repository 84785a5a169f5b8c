/*
 * orch_core.h - what the tasks of one service should be, decided from what they are.
 *
 * No state is kept between two calls: everything, delays included, follows from the stored tasks and the time. So a
 * restart of the daemon at any instruction changes nothing but the moment of the decision (DESIGN §6).
 *
 * Docker's behaviour is described in swarmkit.md §3 and §4; where this differs, it says so.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/object/views.h"
#include "common/util/arena.h"

#define ORCH_NEVER INT64_MAX
#define ORCH_CREATE_MAX 5000u           /* new tasks in one decision; the rest follows in the next */
#define ORCH_STOP_WAIT_NS 60000000000ll /* a replacement waits at most this long for the old task to stop */
#define ORCH_STABLE_NS 10000000000ll    /* a task that ran this long has recovered: its restarts count anew */
#define ORCH_MONITOR_NS 5000000000ll    /* Docker's default */
#define ORCH_QUICK_RESTARTS 5u          /* so many restarts in a row wait only for the configured delay */
#define ORCH_BACKOFF_MAX_NS 120000000000ll
#define ORCH_BACKOFF_MIN_NS 100000000ll /* where doubling starts when the configured delay is shorter */

enum orch_condition { ORCH_ANY, ORCH_ON_FAILURE, ORCH_NONE };
struct orch_restart {
    enum orch_condition condition;
    int64_t delay_ns, window_ns;
    uint64_t max_attempts; /* 0: no limit */
};

enum orch_update { /* the service's UpdateStatus.State */
                   ORCH_UPDATE_NONE,
                   ORCH_UPDATE_UPDATING,
                   ORCH_UPDATE_PAUSED,
                   ORCH_UPDATE_COMPLETED,
                   ORCH_UPDATE_ROLLBACK,
                   ORCH_UPDATE_ROLLBACK_PAUSED,
                   ORCH_UPDATE_ROLLBACK_COMPLETED,
};

struct orch_service {
    bool exists;
    uint64_t replicas;
    struct orch_restart restart; /* of the current spec */
    int64_t history_limit;       /* negative: keep all */
    enum orch_update update;
    uint64_t parallelism; /* 0: all at once */
    int64_t update_delay_ns;
    int64_t monitor_ns; /* an update is complete when its last task has run for so long */
    bool start_first;
};

/* One stored task; `want` and `drop` are the answer. */
struct orch_task {
    struct str id, node_id, replaces;
    uint64_t slot;
    enum task_state state, desired;
    bool current;   /* has the service's current taskspec */
    unsigned spec;  /* tasks with the same taskspec have the same number */
    bool node_down; /* its node is down or gone */
    bool node_gone; /* its node was removed from the swarm: nobody will report */
    bool node_drain;
    int64_t created_ns, status_ns, start_ns; /* wall; start_ns: StartNotBefore, 0 none */
    uint64_t restarts;                       /* quick restarts in a row that led to this task */
    struct orch_restart restart;             /* of its own spec */

    enum task_state want; /* DesiredState from now on; never lower than `desired` */
    bool drop;            /* delete the record */
};

struct orch_create {
    uint64_t slot, restarts;
    enum task_state desired;
    int64_t start_ns;
    struct str replaces;
};

struct orch_out {
    struct orch_create *create;
    size_t ncreate;
    enum orch_update update; /* differs from the service's: write it */
    bool more;               /* replicas are missing beyond ORCH_CREATE_MAX: decide again at once */
    bool updating;           /* RUNNING reports of this service matter to the update */
    int64_t next_ns;         /* decide again then */
};

/*
 * orch_reconcile - one decision about one service.
 *
 * @tasks  all of the service's tasks; sorted in place by slot and age
 * @a      borrowed; out->create lives there. Must not be full (CHECK): an entry per task and replica is enough
 */
void orch_reconcile(const struct orch_service *svc, struct orch_task *tasks, size_t n, int64_t now_ns, struct arena *a,
                    struct orch_out *out);

enum orch_update orch_update_parse(struct str state);
const char *orch_update_name(enum orch_update u); /* "" for ORCH_UPDATE_NONE */
const char *orch_update_message(enum orch_update u);
