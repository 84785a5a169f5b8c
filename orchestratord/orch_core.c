/* orch_core.c - the stages of one decision: restarts, scaling, rolling update, history: in this order, over the slots
 * of one service. */
#include "orchestratord/orch_priv.h"

#include <stdlib.h>

#include "common/util/check.h"

static int by_slot(const void *a, const void *b)
{
    const struct orch_task *x = a, *y = b;
    if (x->slot != y->slot)
        return x->slot < y->slot ? -1 : 1;
    if (x->created_ns != y->created_ns)
        return x->created_ns < y->created_ns ? -1 : 1;
    return str_cmp(x->id, y->id);
}

static void make_slots(struct pass *p)
{
    for (size_t i = 0, j; i < p->n; i = j) {
        size_t staying = 0;
        for (j = i; j < p->n && p->tasks[j].slot == p->tasks[i].slot; j++)
            staying += p->tasks[j].want != TASK_REMOVE;
        if (staying)
            p->slots[p->nslots++] = (struct slot){ .number = p->tasks[i].slot, .tasks = &p->tasks[i], .n = j - i };
    }
}

void orch_reconcile(const struct orch_service *svc, struct orch_task *tasks, size_t n, int64_t now_ns, struct arena *a,
                    struct orch_out *out)
{
    struct pass p = { .svc = svc, .tasks = tasks, .n = n, .now = now_ns, .out = out };
    *out = (struct orch_out){ .update = svc->update, .next_ns = ORCH_NEVER };
    if (n)
        qsort(tasks, n, sizeof *tasks, by_slot);
    for (size_t i = 0; i < n; i++) {
        tasks[i].want = svc->exists ? tasks[i].desired : TASK_REMOVE;
        tasks[i].drop = false;
    }
    if (svc->exists) {
        size_t most = n + ORCH_CREATE_MAX;
        if (svc->replicas < ORCH_CREATE_MAX)
            most = n + svc->replicas;
        p.slots = arena_array(a, most + 1, sizeof *p.slots);
        out->create = arena_array(a, most + 1, sizeof *out->create);
        CHECK(p.slots != NULL && out->create != NULL);
        make_slots(&p);
        for (size_t i = 0; i < p.nslots; i++)
            orch_restart_slot(&p, &p.slots[i]);
        orch_scale(&p, a);
        for (size_t i = 0; i < p.nslots; i++)
            orch_stop_doubles(&p.slots[i]);
        orch_update_slots(&p);
        for (size_t i = 0; i < p.nslots; i++)
            orch_trim_history(&p, &p.slots[i]);
    }
    orch_reap(&p);
}
