/* orch_restart.c - what replaces a task that ended, and when (swarmkit.md §3.5). */
#include "orchestratord/orch_priv.h"

/* attempts_left - without a window the tasks carry the count; with one, those restarts count that were made inside it:
 * the tasks whose count is higher than that of the one before. History keeps MaxAttempts + 1 of them. */
static bool attempts_left(const struct slot *s, const struct orch_task *t, int64_t now)
{
    const struct orch_restart *r = &t->restart;
    int64_t end = t->state > TASK_RUNNING ? t->status_ns : now;
    uint64_t restarts = 0, before = 0;
    if (r->max_attempts == 0)
        return true;
    if (r->window_ns == 0)
        return t->attempts < r->max_attempts;
    for (size_t i = 0; i < s->n; i++) {
        const struct orch_task *o = &s->tasks[i];
        if (o->spec != t->spec || o->current != t->current || o->want == TASK_REMOVE)
            continue;
        restarts += o->attempts > before && o->created_ns > end - r->window_ns && o->created_ns < end;
        before = o->attempts;
    }
    return restarts < r->max_attempts;
}

/* A task that has to move because of its node did not fail, so no policy forbids its replacement; but Docker's does for
 * replicated services, and so does this. The task of a job that completed is never run again. */
bool orch_should_restart(const struct pass *p, const struct slot *s, const struct orch_task *t)
{
    if ((p->svc->mode != ORCH_REPLICATED || t->evict) && !orch_ended_itself(t))
        return true;
    if (t->restart.condition == ORCH_NONE)
        return false;
    if (t->state == TASK_COMPLETE && (t->restart.condition == ORCH_ON_FAILURE || orch_is_job(p->svc)))
        return false;
    return !orch_ended_itself(t) || attempts_left(s, t, p->now);
}

/* quick_restarts - how many restarts in a row the replacement of t will be. Docker has no back-off (DESIGN §12). */
static uint64_t quick_restarts(const struct orch_task *t)
{
    if (t->state <= TASK_RUNNING)
        return t->restarts; /* it moves because of its node, not because it failed */
    bool stable = t->state != TASK_REJECTED && t->status_ns - later(t->created_ns, t->start_ns) >= ORCH_STABLE_NS;
    return stable ? 1 : t->restarts + 1;
}

static int64_t restart_delay(int64_t delay, uint64_t restarts)
{
    if (restarts <= ORCH_QUICK_RESTARTS)
        return delay;
    int64_t longest = later(delay, ORCH_BACKOFF_MAX_NS);
    int64_t d = later(delay, ORCH_BACKOFF_MIN_NS);
    for (uint64_t i = ORCH_QUICK_RESTARTS; i < restarts && d < longest; i++)
        d *= 2;
    return sooner(d, longest);
}

static bool has_live_current(const struct slot *s, const struct orch_task *but)
{
    for (size_t i = 0; i < s->n; i++)
        if (&s->tasks[i] != but && orch_live(&s->tasks[i]) && s->tasks[i].current && s->tasks[i].state <= TASK_RUNNING)
            return true;
    return s->create != NULL;
}

/* may_replace - a global task stays away from a node that is not for it now; when it is again, it gets one at once. */
static bool may_replace(struct pass *p, struct slot *s, struct orch_task *t)
{
    if (orch_is_global(p->svc) && (!s->place || !s->place->open || t->node_down || t->node_drain)) {
        orch_why(t, "its node takes no new tasks now", 0);
        return false;
    }
    if (orch_should_restart(p, s, t))
        return true;
    orch_why(t,
             t->restart.condition == ORCH_NONE ? "its restart condition is none"
             : t->state == TASK_COMPLETE       ? "it has completed"
                                               : "its restart attempts are used up",
             0);
    return false;
}

static void restart_task(struct pass *p, struct slot *s, struct orch_task *t)
{
    bool dead = t->state > TASK_RUNNING;
    if (t->want < TASK_RUNNING && t->start_ns > p->now) { /* it ended before its turn came: never restart faster */
        orch_why(t, "it ended before its restart delay was over", t->start_ns);
        orch_look_again(p, t->start_ns);
        return;
    }
    orch_want(t, TASK_SHUTDOWN);
    if (has_live_current(s, t) || !may_replace(p, s, t))
        return;
    struct orch_create *c = orch_new_task(p, s);
    c->restarts = quick_restarts(t);
    c->attempts = t->attempts + orch_ended_itself(t);
    c->replaces = t->id;
    c->start_ns = later(dead ? t->status_ns : p->now, 0);
    if (dead) /* what only has to move does not wait; Docker lets it when the node is down */
        c->start_ns = after(c->start_ns, restart_delay(t->restart.delay_ns, c->restarts));
    if (c->start_ns > p->now || orch_slot_stopping(s)) {
        c->desired = TASK_READY;
        if (c->start_ns > p->now)
            orch_look_again(p, c->start_ns);
    }
}

/* stopping_until - how long a new task waits for those in its slot that were told to stop; 0: there are none. An update
 * that is turned back in its middle leaves two behind. */
static int64_t stopping_until(const struct slot *s, const struct orch_task *t)
{
    int64_t until = 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct orch_task *o = &s->tasks[i];
        if (o != t && !orch_live(o) && (o->want != TASK_REMOVE || str_eq(o->id, t->replaces)) && orch_holds_slot(o))
            until = later(until, after(after(later(t->created_ns, t->start_ns), ORCH_STOP_WAIT_NS), o->grace_ns));
    }
    return until;
}

/* start_task - a task that waits in READY may run when its delay is over and what it replaces has stopped. */
static void start_task(struct pass *p, struct slot *s, struct orch_task *t)
{
    int64_t patience = stopping_until(s, t);
    if (t->start_ns > p->now) {
        orch_why(t, "it waits for its restart delay", t->start_ns);
        orch_look_again(p, t->start_ns);
    } else if (patience > p->now) {
        orch_why(t, "it waits until the task that it replaces has stopped", patience);
        orch_look_again(p, patience);
    } else {
        orch_want(t, orch_is_job(p->svc) ? TASK_COMPLETE : TASK_RUNNING);
    }
}

void orch_restart_slot(struct pass *p, struct slot *s)
{
    for (size_t i = 0; i < s->n; i++) {
        struct orch_task *t = &s->tasks[i];
        if (orch_live(t) && (t->state > TASK_RUNNING || t->node_down || t->node_drain || t->evict))
            restart_task(p, s, t);
    }
    for (size_t i = 0; i < s->n; i++)
        if (s->tasks[i].want < TASK_RUNNING)
            start_task(p, s, &s->tasks[i]);
}
