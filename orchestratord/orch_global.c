/* orch_global.c - a slot for each node that the service may be on (swarmkit.md §3.3). */
#include "orchestratord/orch_priv.h"

const struct orch_place *orch_place_of(const struct orch_service *svc, struct str node)
{
    size_t lo = 0, hi = svc->nplaces;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = str_cmp(svc->places[mid].id, node);
        if (c == 0)
            return &svc->places[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

/* leave_node - the node is not for this service any more; what is left on one that was removed goes with it. */
static void leave_node(struct slot *s)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->tasks[i].node_gone)
            orch_want(&s->tasks[i], TASK_REMOVE);
        else if (orch_live(&s->tasks[i]))
            orch_want(&s->tasks[i], TASK_SHUTDOWN);
}

void orch_fill_places(struct pass *p)
{
    size_t known = p->nslots, i = 0, made = 0;
    for (size_t k = 0; k < p->svc->nplaces; k++) {
        const struct orch_place *place = &p->svc->places[k];
        while (i < known && str_cmp(p->slots[i].node, place->id) < 0)
            i++;
        struct slot *s = i < known && str_eq(p->slots[i].node, place->id) ? &p->slots[i] : NULL;
        if (!place->open || (s && s->keep))
            continue;
        if (made == ORCH_CREATE_MAX) {
            p->out->more = true;
            return;
        }
        if (!s) {
            s = &p->slots[p->nslots++];
            *s = (struct slot){ .node = place->id, .place = place };
        }
        s->keep = true;
        if (!s->create)
            orch_new_task(p, s);
        made++;
    }
}

/* A slot is kept, and so takes part in updates, where new tasks may begin: on a node that is paused or out of touch
 * the old task stays as it is. */
void orch_global(struct pass *p)
{
    for (size_t i = 0; i < p->nslots; i++) {
        struct slot *s = &p->slots[i];
        if (!s->place)
            leave_node(s);
        s->keep = s->place && s->place->open && orch_occupied(p, s);
    }
    orch_fill_places(p);
}
