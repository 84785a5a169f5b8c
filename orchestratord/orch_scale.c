/* orch_scale.c - as many slots as replicas (swarmkit.md §3.2). */
#include "orchestratord/orch_priv.h"

#include <stdlib.h>

#include "common/util/check.h"

/* orch_occupied - it has a live task, or its last one has ended for good (a job well done, or out of attempts). */
bool orch_occupied(const struct pass *p, const struct slot *s)
{
    const struct orch_task *t = orch_newest(s);
    if (orch_count_live(s) > 0)
        return true;
    return t && p->svc->update != ORCH_UPDATE_ROLLBACK && !orch_should_restart(p, s, t);
}

static void remove_slot(struct pass *p, struct slot *s)
{
    s->keep = false;
    for (size_t i = 0; i < s->n; i++)
        orch_want(&s->tasks[i], TASK_REMOVE);
    if (s->create) {
        *s->create = p->out->create[--p->out->ncreate];
        for (size_t i = 0; i < p->nslots; i++)
            if (p->slots[i].create == &p->out->create[p->out->ncreate])
                p->slots[i].create = s->create;
        s->create = NULL;
    }
}

static const struct orch_task *only_live(const struct slot *s)
{
    const struct orch_task *t = NULL;
    if (orch_count_live(s) != 1)
        return NULL;
    for (size_t i = 0; i < s->n; i++)
        if (orch_live(&s->tasks[i]))
            t = &s->tasks[i];
    return t && t->node_id.n ? t : NULL;
}

static int by_running(const void *a, const void *b)
{
    const struct slot *x = *(struct slot *const *)a, *y = *(struct slot *const *)b;
    if (x->running != y->running)
        return x->running ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

static int by_node(const void *a, const void *b)
{
    const struct orch_task *x = only_live(*(struct slot *const *)a), *y = only_live(*(struct slot *const *)b);
    if (!x || !y)
        return x ? -1 : y ? 1 : by_running(a, b);
    int c = str_cmp(x->node_id, y->node_id);
    return c ? c : by_running(a, b);
}

static int by_ordinal(const void *a, const void *b)
{
    const struct slot *x = *(struct slot *const *)a, *y = *(struct slot *const *)b;
    if (x->ordinal != y->ordinal)
        return x->ordinal < y->ordinal ? -1 : 1;
    return by_running(a, b);
}

/* scale_down - victims in this order: not yet placed or in the middle of a change, most crowded node, not running,
 * high slot number. */
static void scale_down(struct pass *p, size_t occupied_slots, struct arena *a)
{
    struct slot **v = arena_array(a, occupied_slots, sizeof(struct slot *));
    size_t n = 0;
    CHECK(v != NULL);
    for (size_t i = 0; i < p->nslots; i++) {
        struct slot *s = &p->slots[i];
        if (!s->keep)
            continue;
        for (size_t j = 0; j < s->n; j++)
            s->running |= orch_live(&s->tasks[j]) && s->tasks[j].state == TASK_RUNNING;
        v[n++] = s;
    }
    qsort(v, n, sizeof *v, by_node);
    const struct orch_task *before = NULL;
    for (size_t i = 0; i < n; i++) {
        const struct orch_task *t = only_live(v[i]);
        v[i]->ordinal = !t ? ORCH_NEVER : before && str_eq(before->node_id, t->node_id) ? v[i - 1]->ordinal + 1 : 0;
        before = t;
    }
    qsort(v, n, sizeof *v, by_ordinal);
    for (size_t i = p->svc->replicas; i < n; i++)
        remove_slot(p, v[i]);
}

/* scale_up - the lowest free slot numbers from 1; a dead slot that gets a task again keeps its history. The slots are
 * sorted by number, new ones come behind them. */
static void scale_up(struct pass *p, size_t missing)
{
    size_t known = p->nslots, i = 0;
    for (uint64_t number = 1; missing > 0; number++) {
        while (i < known && p->slots[i].number < number)
            i++;
        struct slot *s = i < known && p->slots[i].number == number ? &p->slots[i] : NULL;
        if (s && s->keep)
            continue;
        if (!s) {
            s = &p->slots[p->nslots++];
            *s = (struct slot){ .number = number };
        }
        s->keep = true;
        struct orch_create *c = orch_new_task(p, s);
        if (orch_slot_stopping(s))
            c->desired = TASK_READY;
        missing--;
    }
}

void orch_scale(struct pass *p, struct arena *a)
{
    size_t n = 0;
    for (size_t i = 0; i < p->nslots; i++)
        n += p->slots[i].keep = orch_occupied(p, &p->slots[i]);
    if (n > p->svc->replicas)
        scale_down(p, n, a);
    else if (n < p->svc->replicas)
        scale_up(p, p->svc->replicas - n < ORCH_CREATE_MAX ? p->svc->replicas - n : ORCH_CREATE_MAX);
    p->out->more = p->svc->replicas > n && p->svc->replicas - n > ORCH_CREATE_MAX;
    for (size_t i = 0; i < p->nslots; i++)
        if (!p->slots[i].keep)
            remove_slot(p, &p->slots[i]);
}
