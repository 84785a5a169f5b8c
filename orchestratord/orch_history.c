/* orch_history.c - which records of ended tasks go (swarmkit.md §3.6). */
#include "orchestratord/orch_priv.h"

/* The last task of a slot without a live one says why there is none: it stays. */
static struct orch_task *oldest_ended(const struct slot *s)
{
    const struct orch_task *last = orch_count_live(s) == 0 ? orch_newest(s) : NULL;
    struct orch_task *old = NULL;
    for (size_t i = 0; i < s->n; i++) {
        struct orch_task *t = &s->tasks[i];
        if (t->want != TASK_REMOVE && !t->drop && !t->proof && t != last && !orch_live(t) && orch_stopped(t) &&
            (!old || t->status_ns < old->status_ns))
            old = t;
    }
    return old;
}

/* Docker lets MaxAttempts + 1 replace the limit, even downwards; here it only raises it. */
void orch_trim_history(struct pass *p, struct slot *s)
{
    int64_t limit = p->svc->history_limit;
    uint64_t attempts = p->svc->restart.max_attempts;
    size_t n = s->create != NULL;
    if (limit < 0)
        return;
    if (attempts > 0 && attempts < INT64_MAX - 1)
        limit = later(limit, (int64_t)attempts + 1);
    for (size_t i = 0; i < s->n; i++)
        n += s->tasks[i].want != TASK_REMOVE;
    for (struct orch_task *t; n > (uint64_t)limit && (t = oldest_ended(s)); n--)
        t->drop = true;
}

void orch_reap(struct pass *p)
{
    for (size_t i = 0; i < p->n; i++) {
        struct orch_task *t = &p->tasks[i];
        if (t->want == TASK_REMOVE && (orch_stopped(t) || t->node_gone))
            t->drop = true;
    }
}
