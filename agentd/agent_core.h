/*
 * agent_core.h - the life of one task on its node, as a pure step function (swarmkit.md §2.3).
 *
 * What happens comes in as events; what to do goes out as a set of effects. The shell stores the new state before it
 * reports it, and answers each DO_PREPARE, DO_START and DO_CLEAN with exactly one event.
 *
 * A task that others connect to is stopped in three steps: no new connections on this node (DO_DRAIN); when the manager
 * says that none come from other nodes either, those that are open may end (DO_QUIET); then comes the stop signal.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/object/views.h"
#include "common/util/clock.h"

enum task_phase { /* stored: append only */
                  TP_NEW,
                  TP_PREPARING, /* image, volumes */
                  TP_READY,     /* prepared; waits for desired state "running" */
                  TP_STARTING,
                  TP_RUNNING,
                  TP_STOPPING, /* told to stop; the container has its grace period */
                  TP_CLEANING, /* terminal; the container's remains are being removed */
                  TP_DONE,     /* terminal; nothing is left but its log */
                  TP_COUNT
};

#define TASK_ERR_MAX 400
#define TASK_UNHEALTHY "dockerexec: unhealthy container" /* Docker's words */

struct task_core {
    enum task_phase phase;
    enum task_state state; /* reported */
    enum task_state desired;
    bool removed; /* the manager forgot it: forget it too, once it is stopped */
    char message[64];
    char err[TASK_ERR_MAX];
    struct wall_ns since; /* when `state` was entered */
    int64_t exit_code;
    uint64_t pid;
    bool has_container;
    bool checked; /* it runs for others only once its health check has succeeded; until then it is "starting" */
    bool drains;  /* others connect to it: it is taken out everywhere before it is stopped */
    bool drained; /* so says the manager */
    enum { DRAIN_NONE, DRAIN_WAIT, DRAIN_QUIET } drain; /* while stopping, before the signal; not stored */
};

enum task_event_type {
    TE_ASSIGN, /* desired */
    TE_REMOVED,
    TE_PREPARED,
    TE_PREPARE_FAILED, /* text */
    TE_STARTED,        /* pid */
    TE_START_FAILED,   /* text, exit_code (126, 127, or 0 when there was none), reject */
    TE_EXITED,         /* exit_code, oom */
    TE_LOST,           /* text: the container is gone and nobody knows how it ended */
    TE_GRACE_OVER,
    TE_CLEANED,
    TE_RESUME,     /* agentd has restarted and nothing of this task runs: go on from what is stored */
    TE_ADOPTED,    /* agentd has restarted and the container runs: pid */
    TE_DRAIN_OVER, /* nobody says that it is taken out everywhere: do without */
    TE_QUIET,      /* nobody is connected to it any more, or its drain period is over */
    TE_HEALTHY,    /* its first successful check; it is known to others */
    TE_UNHEALTHY,  /* text */
};

struct task_event {
    enum task_event_type type;
    struct wall_ns now;
    enum task_state desired;
    bool drains, drained; /* with it */
    bool checked;         /* TE_STARTED, TE_ADOPTED: it has a health check */
    bool reject;          /* TE_START_FAILED: this node cannot do it at all */
    const char *text;
    int64_t exit_code;
    bool oom;
    uint64_t pid;
};

enum {
    DO_STORE = 1, /* state or phase changed: store, then report */
    DO_PREPARE = 2,
    DO_START = 4,
    DO_STOP = 8, /* stop signal now, kill after the grace period */
    DO_KILL = 16,
    DO_CANCEL = 32, /* stop preparing; its event still comes */
    DO_CLEAN = 64,
    DO_FORGET = 128, /* drop it from the store; the struct may go */
    DO_DRAIN = 256,  /* no new connections here; answered by TE_DRAIN_OVER if nothing else happens */
    DO_QUIET = 512,  /* the same if it was not done yet, and wait for those that are open: TE_QUIET */
};

void task_init(struct task_core *t);

/* task_step - the effects, in the order of the enum. Events that do not fit the phase are ignored. */
unsigned task_step(struct task_core *t, const struct task_event *ev);

/* task_check - the invariants of one task; CHECKs. */
void task_check(const struct task_core *t);

static inline bool task_terminal(const struct task_core *t)
{
    return t->state >= TASK_COMPLETE;
}
