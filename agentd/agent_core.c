/* agent_core.c - see agent_core.h. */
#include "agentd/agent_core.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/util/check.h"

void task_init(struct task_core *t)
{
    *t = (struct task_core){ .phase = TP_NEW, .state = TASK_ASSIGNED, .desired = TASK_RUNNING };
}

static void enter(struct task_core *t, const struct task_event *ev, enum task_state state, const char *message)
{
    if (state < t->state)
        return; /* observed states only grow */
    t->state = state;
    t->since = ev->now;
    if (message)
        snprintf(t->message, sizeof t->message, "%s", message);
}

static void fail(struct task_core *t, const struct task_event *ev, enum task_state state)
{
    enter(t, ev, state, NULL); /* the message stays that of the last step, as Docker's does */
    snprintf(t->err, sizeof t->err, "%s", ev->text ? ev->text : "");
}

static bool stop_wanted(const struct task_core *t)
{
    return t->removed || t->desired >= TASK_SHUTDOWN;
}

static bool run_wanted(const struct task_core *t)
{
    return !stop_wanted(t) && t->desired >= TASK_RUNNING;
}

static unsigned done(struct task_core *t)
{
    t->phase = TP_DONE;
    return t->removed ? DO_FORGET : DO_STORE;
}

static unsigned clean(struct task_core *t)
{
    t->phase = TP_CLEANING;
    return DO_STORE | DO_CLEAN;
}

static unsigned shut(struct task_core *t, const struct task_event *ev)
{
    enter(t, ev, TASK_SHUTDOWN, "shutdown");
    return clean(t);
}

static unsigned quiet(struct task_core *t)
{
    t->drain = DRAIN_QUIET;
    return DO_QUIET;
}

static unsigned stop_now(struct task_core *t)
{
    t->drain = DRAIN_NONE;
    return DO_STOP;
}

static unsigned stop(struct task_core *t)
{
    t->phase = TP_STOPPING;
    /* of a task that was forgotten, nobody will say that it is drained; one that is not well helps nobody */
    if (!t->drains || t->removed || t->err[0])
        return DO_STORE | stop_now(t);
    if (t->drained)
        return DO_STORE | quiet(t);
    t->drain = DRAIN_WAIT;
    return DO_STORE | DO_DRAIN;
}

static unsigned prepare(struct task_core *t, const struct task_event *ev)
{
    if (stop_wanted(t)) { /* never began */
        enter(t, ev, TASK_SHUTDOWN, "shutdown");
        return done(t);
    }
    enter(t, ev, TASK_PREPARING, "preparing");
    t->phase = TP_PREPARING;
    return DO_STORE | DO_PREPARE;
}

static unsigned maybe_start(struct task_core *t, const struct task_event *ev)
{
    if (stop_wanted(t))
        return shut(t, ev);
    if (!run_wanted(t))
        return DO_STORE;
    enter(t, ev, TASK_STARTING, "starting");
    t->phase = TP_STARTING;
    return DO_STORE | DO_START;
}

static unsigned on_desired(struct task_core *t, const struct task_event *ev)
{
    switch (t->phase) {
    case TP_NEW:
        return prepare(t, ev);
    case TP_PREPARING:
        return stop_wanted(t) ? DO_STORE | DO_CANCEL : DO_STORE;
    case TP_READY:
        return maybe_start(t, ev);
    case TP_RUNNING:
        return stop_wanted(t) ? stop(t) : DO_STORE;
    case TP_STOPPING:
        return t->removed && t->drain != DRAIN_NONE ? DO_STORE | stop_now(t) : DO_STORE;
    case TP_DONE:
        return t->removed ? DO_FORGET : DO_STORE;
    default: /* starting: its event decides; cleaning: under way */
        return DO_STORE;
    }
}

/* fail_unhealthy - the reason is there since it was told to stop. How its end is worded differs by whether it ever ran,
 * as with Docker. */
static unsigned fail_unhealthy(struct task_core *t, const struct task_event *ev)
{
    char text[TASK_ERR_MAX + 64];
    struct task_event why = *ev;
    bool ran = t->state >= TASK_RUNNING && t->exit_code != 0;
    snprintf(text, sizeof text, "task: non-zero exit (%" PRId64 "): %s", t->exit_code, t->err);
    why.text = ran ? text : text + (strlen(text) - strlen(t->err));
    fail(t, &why, TASK_FAILED);
    return clean(t);
}

static unsigned unhealthy(struct task_core *t, const struct task_event *ev)
{
    if (t->phase != TP_RUNNING)
        return 0;
    snprintf(t->err, sizeof t->err, "%s", ev->text);
    return stop(t);
}

static unsigned healthy(struct task_core *t, const struct task_event *ev)
{
    if (t->phase != TP_RUNNING || t->state >= TASK_RUNNING)
        return 0;
    enter(t, ev, TASK_RUNNING, "started");
    return DO_STORE;
}

static unsigned exited(struct task_core *t, const struct task_event *ev)
{
    if (t->phase != TP_RUNNING && t->phase != TP_STOPPING)
        return 0;
    t->exit_code = ev->exit_code;
    t->pid = 0;
    if (t->err[0])
        return fail_unhealthy(t, ev);
    if (t->phase == TP_STOPPING)
        return shut(t, ev);
    if (ev->exit_code == 0) {
        enter(t, ev, TASK_COMPLETE, "finished");
        return clean(t);
    }
    char text[96];
    snprintf(text, sizeof text, "task: non-zero exit (%" PRId64 ")%s", ev->exit_code, ev->oom ? ": OOMKilled" : "");
    struct task_event why = *ev;
    why.text = text;
    fail(t, &why, TASK_FAILED);
    return clean(t);
}

static unsigned lost(struct task_core *t, const struct task_event *ev)
{
    if (t->phase != TP_RUNNING && t->phase != TP_STOPPING && t->phase != TP_STARTING)
        return 0;
    t->pid = 0;
    t->exit_code = -1;
    if (t->err[0])
        return fail_unhealthy(t, ev);
    if (stop_wanted(t))
        return shut(t, ev);
    fail(t, ev, TASK_FAILED);
    return clean(t);
}

static unsigned started(struct task_core *t, const struct task_event *ev)
{
    if (t->phase != TP_STARTING && ev->type != TE_ADOPTED)
        return 0;
    bool stopping = t->phase == TP_STOPPING;
    t->pid = ev->pid;
    t->has_container = true;
    t->checked = ev->checked;
    if (t->state < TASK_RUNNING && !t->checked)
        enter(t, ev, TASK_RUNNING, "started");
    t->phase = TP_RUNNING;
    return stopping || stop_wanted(t) ? stop(t) : DO_STORE;
}

static unsigned start_failed(struct task_core *t, const struct task_event *ev)
{
    if (t->phase != TP_STARTING)
        return 0;
    if (stop_wanted(t))
        return shut(t, ev);
    t->exit_code = ev->exit_code;
    t->has_container = ev->exit_code != 0;
    fail(t, ev, ev->reject ? TASK_REJECTED : TASK_FAILED);
    return clean(t);
}

static unsigned prepare_failed(struct task_core *t, const struct task_event *ev)
{
    if (t->phase != TP_PREPARING)
        return 0;
    if (stop_wanted(t))
        return shut(t, ev);
    fail(t, ev, TASK_REJECTED);
    return clean(t);
}

static unsigned prepared(struct task_core *t, const struct task_event *ev)
{
    if (t->phase != TP_PREPARING)
        return 0;
    enter(t, ev, TASK_READY, "prepared");
    t->phase = TP_READY;
    return maybe_start(t, ev);
}

/* What is left of each phase when agentd comes back and nothing of the task runs. */
static unsigned resume(struct task_core *t, const struct task_event *ev)
{
    switch (t->phase) {
    case TP_NEW:
    case TP_PREPARING:
    case TP_READY:
    case TP_STARTING: /* never got as far as running: do it again */
        if (stop_wanted(t))
            return shut(t, ev);
        enter(t, ev, TASK_PREPARING, "preparing");
        t->phase = TP_PREPARING;
        return DO_STORE | DO_PREPARE;
    case TP_CLEANING:
        return DO_CLEAN;
    case TP_DONE:
        return t->removed ? DO_FORGET : DO_STORE;
    default: /* running and stopping come back by TE_ADOPTED, TE_EXITED or TE_LOST */
        return 0;
    }
}

static unsigned assign(struct task_core *t, const struct task_event *ev)
{
    t->drains = ev->drains;
    t->drained |= ev->drained;
    if (ev->desired > t->desired || t->phase == TP_NEW) {
        t->desired = ev->desired;
        return on_desired(t, ev);
    }
    /* desired states never shrink; a repeated assignment is nothing new, unless it says that it may stop now */
    return t->phase == TP_STOPPING && t->drain == DRAIN_WAIT && t->drained ? quiet(t) : 0;
}

unsigned task_step(struct task_core *t, const struct task_event *ev)
{
    switch (ev->type) {
    case TE_ASSIGN:
        return assign(t, ev);
    case TE_DRAIN_OVER:
        return t->phase == TP_STOPPING && t->drain == DRAIN_WAIT ? quiet(t) : 0;
    case TE_QUIET:
        return t->phase == TP_STOPPING && t->drain == DRAIN_QUIET ? stop_now(t) : 0;
    case TE_REMOVED:
        if (t->removed)
            return 0;
        t->removed = true;
        return on_desired(t, ev);
    case TE_PREPARED:
        return prepared(t, ev);
    case TE_PREPARE_FAILED:
        return prepare_failed(t, ev);
    case TE_STARTED:
    case TE_ADOPTED:
        return started(t, ev);
    case TE_START_FAILED:
        return start_failed(t, ev);
    case TE_EXITED:
        return exited(t, ev);
    case TE_LOST:
        return lost(t, ev);
    case TE_GRACE_OVER:
        return t->phase == TP_STOPPING && t->drain == DRAIN_NONE ? DO_KILL : 0;
    case TE_CLEANED:
        return t->phase == TP_CLEANING ? done(t) : 0;
    case TE_RESUME:
        return resume(t, ev);
    case TE_HEALTHY:
        return healthy(t, ev);
    case TE_UNHEALTHY:
        return unhealthy(t, ev);
    }
    return 0;
}

void task_check(const struct task_core *t)
{
    CHECK(t->phase < TP_COUNT);
    CHECK((t->phase >= TP_CLEANING) == (t->state >= TASK_COMPLETE));
    CHECK(t->phase != TP_RUNNING || t->state == TASK_RUNNING || (t->state == TASK_STARTING && t->checked));
    CHECK(!t->err[0] || t->phase >= TP_STOPPING);
    CHECK(t->phase < TP_RUNNING || t->phase >= TP_CLEANING || t->has_container);
    CHECK(t->drain == DRAIN_NONE || t->drains || t->phase >= TP_STOPPING);
    CHECK(t->state != TASK_FAILED || t->err[0] != '\0');
    CHECK(t->state != TASK_REJECTED || t->err[0] != '\0');
}
