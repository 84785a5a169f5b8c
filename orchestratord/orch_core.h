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
#include "common/util/cron.h"
#include "common/util/str.h"

#define ORCH_NEVER INT64_MAX
#define ORCH_CREATE_MAX 5000u           /* new tasks in one decision; the rest follows in the next */
#define ORCH_STOP_WAIT_NS 60000000000ll /* a replacement waits at most this long for the old task to stop */
#define ORCH_STABLE_NS 10000000000ll    /* a task that ran this long has recovered: its restarts count anew */
#define ORCH_HEAR_NS 30000000000ll      /* after a time without a leader, nodes have so long to say what runs */
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

enum orch_action { ORCH_PAUSE, ORCH_CONTINUE, ORCH_ROLLBACK }; /* when too many new tasks failed */

enum orch_mode { ORCH_REPLICATED, ORCH_GLOBAL, ORCH_REPLICATED_JOB, ORCH_GLOBAL_JOB };

/* A node that a global service or job may be on: one that meets its constraints and its platform. */
struct orch_place {
    struct str id;
    bool open; /* takes new tasks: active and ready. Else what runs there stays, and is not replaced. */
};

/* When a job runs by itself. */
struct orch_schedule {
    bool given;
    struct cron cron;
    int64_t from_ns; /* what was due until then has been dealt with */
    bool replace;    /* a run that is still going ends when the next is due; else that one is skipped */
};

struct orch_service {
    bool exists;
    enum orch_mode mode;
    uint64_t replicas;
    const struct orch_place *places; /* global modes; sorted by id */
    size_t nplaces;
    uint64_t completions, concurrent; /* replicated jobs */
    bool begun;                       /* jobs: there is a run; one with a schedule has none before its first time */
    struct orch_schedule schedule;
    struct orch_restart restart; /* of the current spec */
    int64_t history_limit;       /* negative: keep all */
    enum orch_update update;
    uint64_t parallelism; /* 0: all at once */
    int64_t update_delay_ns;
    int64_t monitor_ns; /* an update is complete when its last task has run for so long */
    bool start_first;
    enum orch_action on_failure;
    double max_failure_ratio;
    int64_t progress_ns;      /* so long may a new task take to run; 0: for ever */
    int64_t reports_ns;       /* wall: since when the nodes' reports are followed */
    bool can_roll_back;       /* there is a previous spec */
    uint64_t slots, failures; /* of this update or rollback: to replace when it began; tasks that failed */
};

/* One stored task; `want` and `drop` are the answer. */
struct orch_task {
    struct str id, node_id, replaces;
    uint64_t slot; /* global modes: the node says which slot it is */
    enum task_state state, desired;
    bool current;   /* has the service's current taskspec; of a job: belongs to its current run */
    unsigned spec;  /* tasks with the same taskspec have the same number */
    bool node_down; /* its node is down or gone */
    bool node_gone; /* its node was removed from the swarm: nobody will report */
    bool node_drain;
    bool held;                               /* its node is down with too many others; it has to wait its turn */
    bool evict;                              /* it is wanted elsewhere; as good as on a drained node */
    int64_t created_ns, status_ns, start_ns; /* wall; start_ns: StartNotBefore, 0 none */
    int64_t running_ns;                      /* since when it runs, or when it began to; 0: it never did */
    int64_t grace_ns;                        /* so long may it take to stop */
    uint64_t restarts;                       /* quick restarts in a row that led to this task */
    uint64_t attempts;                       /* restarts of its spec in its slot that led to this task */
    struct orch_restart restart;             /* of its own spec */

    enum task_state want; /* DesiredState from now on; never lower than `desired` */
    bool drop;            /* delete the record */
    bool proof;           /* that its slot of a job is complete, or was updated: its record stays */
    const char *why;      /* why nothing more happens to it now; NULL: nothing to say */
    int64_t why_until_ns; /* and until when, at the latest; 0: no such time */
};

struct orch_create {
    uint64_t slot, restarts, attempts;
    struct str node_id; /* global modes */
    enum task_state desired;
    int64_t start_ns;
    struct str replaces;
};

/* What the slots of a job's current run add up to. */
struct orch_job {
    uint64_t slots, complete, active, given_up;
    bool rest;                      /* nothing more will happen by itself */
    const struct orch_task *failed; /* one that was given up; NULL: none */
};

enum orch_run { ORCH_RUN_NOTHING, ORCH_RUN_START, ORCH_RUN_SKIP };

struct orch_out {
    struct orch_create *create;
    size_t ncreate;
    enum orch_update update;  /* differs from the service's: write it; to ROLLBACK: with the previous spec */
    uint64_t slots, failures; /* the same */
    struct str culprit;       /* the task whose failure was one too many; "": none */
    bool stuck;               /* it did not fail, it took too long */
    bool more;                /* replicas are missing beyond ORCH_CREATE_MAX: decide again at once */
    bool updating;            /* RUNNING reports of this service matter to the update */
    struct orch_job job;
    enum orch_run run; /* what to do about the schedule's time `due_ns` */
    int64_t due_ns;
    int64_t next_ns; /* decide again then */
};

/*
 * orch_reconcile - one decision about one service.
 *
 * @tasks  all of the service's tasks; sorted in place by slot and age
 * @a      borrowed; out->create lives there. Must not be full (CHECK): an entry per task and replica is enough
 */
void orch_reconcile(const struct orch_service *svc, struct orch_task *tasks, size_t n, int64_t now_ns, struct arena *a,
                    struct orch_out *out);

static inline bool orch_is_job(const struct orch_service *s)
{
    return s->mode == ORCH_REPLICATED_JOB || s->mode == ORCH_GLOBAL_JOB;
}

static inline bool orch_is_global(const struct orch_service *s)
{
    return s->mode == ORCH_GLOBAL || s->mode == ORCH_GLOBAL_JOB;
}

enum orch_update orch_update_parse(struct str state);
const char *orch_update_name(enum orch_update u); /* "" for ORCH_UPDATE_NONE */
/* orch_update_message - for people, as Docker words it. */
void orch_update_message(const struct orch_service *svc, const struct orch_out *out, struct buf *ret);
