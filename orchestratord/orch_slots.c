/* orch_slots.c - what the stages of a decision ask of slots and tasks. */
#include "orchestratord/orch_priv.h"

#include "common/util/check.h"

bool orch_live(const struct orch_task *t)
{
    return t->want <= TASK_RUNNING || (t->want == TASK_COMPLETE && t->state != TASK_COMPLETE);
}

bool orch_ended_itself(const struct orch_task *t)
{
    return t->state == TASK_COMPLETE || t->state == TASK_FAILED || t->state == TASK_REJECTED;
}

bool orch_stopped(const struct orch_task *t)
{
    return t->state > TASK_RUNNING || (t->state < TASK_ASSIGNED && t->want > TASK_COMPLETE);
}

bool orch_holds_slot(const struct orch_task *t)
{
    return !orch_stopped(t) && !t->node_down;
}

void orch_want(struct orch_task *t, enum task_state s)
{
    if (s > t->want)
        t->want = s;
}

void orch_look_again(struct pass *p, int64_t at)
{
    if (at < p->out->next_ns)
        p->out->next_ns = at;
}

void orch_why(struct orch_task *t, const char *why, int64_t until_ns)
{
    t->why = why;
    t->why_until_ns = until_ns;
}

struct orch_create *orch_new_task(struct pass *p, struct slot *s)
{
    struct orch_create *c = &p->out->create[p->out->ncreate++];
    *c = (struct orch_create){ .slot = s->number,
                               .node_id = s->node,
                               .desired = orch_is_job(p->svc) ? TASK_COMPLETE : TASK_RUNNING };
    if (!p->svc->start_first && orch_slot_stopping(s))
        c->desired = TASK_READY;
    CHECK(s->create == NULL);
    s->create = c;
    return c;
}

size_t orch_count_live(const struct slot *s)
{
    size_t n = s->create != NULL;
    for (size_t i = 0; i < s->n; i++)
        n += orch_live(&s->tasks[i]);
    return n;
}

bool orch_slot_stopping(const struct slot *s)
{
    for (size_t i = 0; i < s->n; i++)
        if (!orch_live(&s->tasks[i]) && s->tasks[i].want != TASK_REMOVE && orch_holds_slot(&s->tasks[i]))
            return true;
    return false;
}

struct orch_task *orch_newest(const struct slot *s)
{
    for (size_t i = s->n; i-- > 0;)
        if (s->tasks[i].want != TASK_REMOVE)
            return &s->tasks[i];
    return NULL;
}

struct orch_task *orch_clean_task(const struct slot *s)
{
    struct orch_task *best = NULL;
    for (size_t i = 0; i < s->n; i++) {
        struct orch_task *t = &s->tasks[i];
        if (orch_live(t) && t->current &&
            (!best || t->want > best->want || (t->want == best->want && t->state > best->state)))
            best = t;
    }
    return best;
}
