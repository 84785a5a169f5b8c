/*
 * orch_job.c - the current run of a job (swarmkit.md §3.4, and what DESIGN §12 says about it).
 *
 * A slot is complete when one of its tasks is; whatever else there is in it goes, so that exactly as many tasks are
 * complete as the service asks for, although a node that was given up may report its own success late.
 */
#include "orchestratord/orch_priv.h"

/* end_old_run - what runs of an earlier run goes; what has ended is history, and is not restarted. */
static void end_old_run(struct slot *s)
{
    for (size_t i = 0; i < s->n; i++) {
        struct orch_task *t = &s->tasks[i];
        if (!t->current && t->state <= TASK_RUNNING)
            orch_want(t, TASK_REMOVE);
        else if (!t->current && orch_live(t))
            orch_want(t, TASK_SHUTDOWN);
    }
}

static void remove_slot(struct slot *s)
{
    for (size_t i = 0; i < s->n; i++)
        orch_want(&s->tasks[i], TASK_REMOVE);
}

/* completed - the first that completed is the proof; doubles go. So does what was left behind on a lost node: Docker's
 * client takes a slot for as far as its least advanced task, and would wait for that one. */
static bool completed(struct slot *s)
{
    struct orch_task *proof = NULL;
    for (size_t i = 0; i < s->n; i++) {
        struct orch_task *t = &s->tasks[i];
        if (t->current && t->state == TASK_COMPLETE && t->want != TASK_REMOVE &&
            (!proof || t->status_ns < proof->status_ns))
            proof = t;
    }
    for (size_t i = 0; proof && i < s->n; i++) {
        struct orch_task *t = &s->tasks[i];
        if (t == proof || !t->current)
            continue;
        if (t->state == TASK_COMPLETE || (t->state <= TASK_RUNNING && t->node_down))
            orch_want(t, TASK_REMOVE);
        else if (orch_live(t))
            orch_want(t, TASK_SHUTDOWN);
    }
    if (proof)
        proof->proof = true;
    return proof != NULL;
}

static struct orch_task *newest_current(const struct slot *s)
{
    for (size_t i = s->n; i-- > 0;)
        if (s->tasks[i].current && s->tasks[i].want != TASK_REMOVE)
            return &s->tasks[i];
    return NULL;
}

static bool live_current(const struct slot *s)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->tasks[i].current && orch_live(&s->tasks[i]))
            return true;
    return s->create != NULL;
}

/* still_there - a task of an earlier run that has not stopped yet: the new one waits for it. */
static const struct orch_task *still_there(const struct slot *s)
{
    for (size_t i = 0; i < s->n; i++)
        if (!s->tasks[i].current && !orch_stopped(&s->tasks[i]) && !s->tasks[i].node_down)
            return &s->tasks[i];
    return NULL;
}

static void wait_for_old(struct slot *s)
{
    const struct orch_task *old = still_there(s);
    if (!s->create || s->create->replaces.n || !old)
        return;
    s->create->replaces = old->id;
    s->create->desired = TASK_READY;
}

/* look_at - slots that are kept need no new task: complete, at work, or given up. */
static void look_at(struct pass *p, struct slot *s)
{
    struct orch_job *job = &p->out->job;
    struct orch_task *last;
    end_old_run(s);
    if (p->svc->mode == ORCH_REPLICATED_JOB ? s->number >= p->svc->completions : !s->place && s->tasks->node_gone) {
        remove_slot(s);
        s->keep = true; /* no new one */
        return;
    }
    if ((s->keep = completed(s))) {
        job->complete++;
        return;
    }
    if (!s->place && p->svc->mode == ORCH_GLOBAL_JOB)
        for (size_t i = 0; i < s->n; i++)
            if (orch_live(&s->tasks[i]))
                orch_want(&s->tasks[i], TASK_SHUTDOWN);
    orch_restart_slot(p, s);
    orch_stop_doubles(s);
    if ((s->keep = live_current(s))) {
        job->active++;
    } else if ((last = newest_current(s)) && !orch_should_restart(p, s, last)) {
        s->keep = true;
        job->given_up++;
        job->failed = last;
        orch_why(last,
                 last->restart.condition == ORCH_NONE ? "it failed, and its restart condition is none"
                                                      : "it failed, and its restart attempts are used up",
                 0);
    }
}

/* launch - the lowest slot numbers from 0 that have nothing to show yet. */
static void launch(struct pass *p)
{
    uint64_t room = p->svc->concurrent > p->out->job.active ? p->svc->concurrent - p->out->job.active : 0;
    size_t known = p->nslots, i = 0, made = 0;
    for (uint64_t number = 0; number < p->svc->completions && made < room; number++) {
        while (i < known && p->slots[i].number < number)
            i++;
        struct slot *s = i < known && p->slots[i].number == number ? &p->slots[i] : NULL;
        if (s && s->keep)
            continue;
        if (made == ORCH_CREATE_MAX) {
            p->out->more = true;
            break;
        }
        if (!s) {
            s = &p->slots[p->nslots++];
            *s = (struct slot){ .number = number };
        }
        s->keep = true;
        orch_new_task(p, s);
        made++;
    }
}

void orch_run_job(struct pass *p)
{
    struct orch_job *job = &p->out->job;
    for (size_t i = 0; i < p->nslots; i++)
        if (p->svc->begun)
            look_at(p, &p->slots[i]);
        else
            end_old_run(&p->slots[i]);
    if (p->svc->begun && p->svc->mode == ORCH_REPLICATED_JOB)
        launch(p);
    else if (p->svc->begun)
        orch_fill_places(p);
    job->active = 0;
    for (size_t i = 0; i < p->nslots; i++) {
        wait_for_old(&p->slots[i]);
        job->active += live_current(&p->slots[i]);
    }
    job->slots =
        p->svc->mode == ORCH_REPLICATED_JOB ? p->svc->completions : job->complete + job->active + job->given_up;
    job->rest = p->svc->begun && job->active == 0 && !p->out->more;
}
