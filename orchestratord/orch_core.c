/* orch_core.c - the stages of one decision: restarts, scaling, rolling update, history: in this order, over the slots
 * of one service. */
#include "orchestratord/orch_priv.h"

#include <stdlib.h>

#include "common/util/check.h"

static int by_age(const struct orch_task *x, const struct orch_task *y)
{
    if (x->created_ns != y->created_ns)
        return x->created_ns < y->created_ns ? -1 : 1;
    return str_cmp(x->id, y->id);
}

static int by_slot(const void *a, const void *b)
{
    const struct orch_task *x = a, *y = b;
    if (x->slot != y->slot)
        return x->slot < y->slot ? -1 : 1;
    return by_age(x, y);
}

static int by_node(const void *a, const void *b)
{
    const struct orch_task *x = a, *y = b;
    int c = str_cmp(x->node_id, y->node_id);
    return c ? c : by_age(x, y);
}

static void make_slots(struct pass *p)
{
    bool global = orch_is_global(p->svc);
    for (size_t i = 0, j; i < p->n; i = j) {
        const struct orch_task *t = &p->tasks[i];
        size_t staying = 0;
        for (j = i; j < p->n && (global ? str_eq(p->tasks[j].node_id, t->node_id) : p->tasks[j].slot == t->slot); j++)
            staying += p->tasks[j].want != TASK_REMOVE;
        if (!staying)
            continue;
        struct slot *s = &p->slots[p->nslots++];
        *s = (struct slot){ .number = t->slot, .tasks = &p->tasks[i], .n = j - i };
        if (global) {
            s->number = 0;
            s->node = t->node_id;
            s->place = orch_place_of(p->svc, s->node);
        }
    }
}

static size_t most_new(const struct orch_service *svc)
{
    uint64_t n = orch_is_global(svc)                ? svc->nplaces
                 : svc->mode == ORCH_REPLICATED_JOB ? svc->concurrent
                                                    : svc->replicas;
    return n < ORCH_CREATE_MAX ? (size_t)n : ORCH_CREATE_MAX;
}

/* A job's slots are not updated: a new run replaces them all. */
static void decide_slots(struct pass *p, struct arena *a)
{
    if (orch_is_job(p->svc)) {
        orch_run_job(p);
        orch_keep_schedule(p);
        return;
    }
    for (size_t i = 0; i < p->nslots; i++)
        orch_restart_slot(p, &p->slots[i]);
    if (p->svc->mode == ORCH_GLOBAL)
        orch_global(p);
    else
        orch_scale(p, a);
    for (size_t i = 0; i < p->nslots; i++)
        orch_stop_doubles(&p->slots[i]);
    orch_update_slots(p);
}

void orch_reconcile(const struct orch_service *svc, struct orch_task *tasks, size_t n, int64_t now_ns, struct arena *a,
                    struct orch_out *out)
{
    struct pass p = { .svc = svc, .tasks = tasks, .n = n, .now = now_ns, .out = out };
    *out = (struct orch_out){ .update = svc->update, .next_ns = ORCH_NEVER };
    if (n)
        qsort(tasks, n, sizeof *tasks, orch_is_global(svc) ? by_node : by_slot);
    for (size_t i = 0; i < n; i++) {
        tasks[i].want = svc->exists ? tasks[i].desired : TASK_REMOVE;
        tasks[i].drop = tasks[i].proof = false;
        orch_why(&tasks[i], NULL, 0);
    }
    if (svc->exists) {
        size_t most = n + most_new(svc);
        p.slots = arena_array(a, most + 1, sizeof *p.slots);
        out->create = arena_array(a, most + 1, sizeof *out->create);
        CHECK(p.slots != NULL && out->create != NULL);
        make_slots(&p);
        decide_slots(&p, a);
        for (size_t i = 0; i < p.nslots; i++)
            orch_trim_history(&p, &p.slots[i]);
    }
    orch_reap(&p);
}
