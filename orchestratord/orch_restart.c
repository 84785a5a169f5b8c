/* orch_restart.c - what replaces a task that ended, and when (swarmkit.md §3.5). */
#include "orchestratord/orch_priv.h"

/* attempts_left - all but the first task of a spec in a slot were restarts; history keeps MaxAttempts + 1 of them. */
static bool attempts_left(const struct slot *s, const struct orch_task *t, int64_t now)
{
    const struct orch_restart *r = &t->restart;
    int64_t end = t->state > TASK_RUNNING ? t->status_ns : now;
    uint64_t restarts = 0;
    bool first = true;
    if (r->max_attempts == 0)
        return true;
    for (size_t i = 0; i < s->n; i++) {
        const struct orch_task *o = &s->tasks[i];
        if (o->spec != t->spec || o->want == TASK_REMOVE)
            continue;
        if (!first && (r->window_ns == 0 || (o->created_ns > end - r->window_ns && o->created_ns < end)))
            restarts++;
        first = false;
    }
    return restarts < r->max_attempts;
}

bool orch_should_restart(const struct slot *s, const struct orch_task *t, int64_t now)
{
    if (t->restart.condition == ORCH_NONE || (t->restart.condition == ORCH_ON_FAILURE && t->state == TASK_COMPLETE))
        return false;
    return attempts_left(s, t, now);
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

static void restart_task(struct pass *p, struct slot *s, struct orch_task *t)
{
    bool dead = t->state > TASK_RUNNING;
    if (t->want < TASK_RUNNING && t->start_ns > p->now) { /* it ended before its turn came: never restart faster */
        orch_look_again(p, t->start_ns);
        return;
    }
    orch_want(t, TASK_SHUTDOWN);
    if (has_live_current(s, t) || !orch_should_restart(s, t, p->now))
        return;
    struct orch_create *c = orch_new_task(p, s);
    c->restarts = quick_restarts(t);
    c->replaces = t->id;
    c->start_ns = later(dead ? t->status_ns : p->now, 0);
    if (dead) /* what only has to move does not wait; Docker lets it when the node is down */
        c->start_ns += restart_delay(t->restart.delay_ns, c->restarts);
    if (c->start_ns > p->now || !(dead || t->node_down)) {
        c->desired = TASK_READY;
        if (c->start_ns > p->now)
            orch_look_again(p, c->start_ns);
    }
}

/* start_task - a task that waits in READY may run when its delay is over and the one it replaces has stopped. */
static void start_task(struct pass *p, struct slot *s, struct orch_task *t)
{
    const struct orch_task *old = NULL;
    int64_t patience = later(t->created_ns, t->start_ns) + ORCH_STOP_WAIT_NS;
    for (size_t i = 0; i < s->n && t->replaces.n; i++)
        if (str_eq(s->tasks[i].id, t->replaces))
            old = &s->tasks[i];
    if (t->start_ns > p->now)
        orch_look_again(p, t->start_ns);
    else if (old && !orch_stopped(old) && !old->node_down && patience > p->now)
        orch_look_again(p, patience);
    else
        orch_want(t, TASK_RUNNING);
}

void orch_restart_slot(struct pass *p, struct slot *s)
{
    for (size_t i = 0; i < s->n; i++) {
        struct orch_task *t = &s->tasks[i];
        if (orch_live(t) && (t->state > TASK_RUNNING || t->node_down || t->node_drain))
            restart_task(p, s, t);
    }
    for (size_t i = 0; i < s->n; i++)
        if (s->tasks[i].want < TASK_RUNNING)
            start_task(p, s, &s->tasks[i]);
}
