/*
 * sched_move.c - tasks that have to go elsewhere: to make room for more important ones, or to be level again.
 *
 * Both only say so (Task.Evict); orchestratord replaces such a task, and the replacement is placed like any other.
 */
#include <stdlib.h>

#include "schedulerd/sched_priv.h"

#define VICTIMS_MAX 128u /* on one node that are thought about */

static void add_victim(struct sched *s, struct sched_task *t, const char *reason, struct arena *a,
                       struct sched_victims *out)
{
    if (out->n == out->cap) {
        struct sched_eviction *more = arena_array(a, out->cap = out->cap ? out->cap * 2 : 16, sizeof *more);
        CHECK(more != NULL);
        if (out->n)
            memcpy(more, out->v, out->n * sizeof *more);
        out->v = more;
    }
    out->v[out->n++] = (struct sched_eviction){ table_key(&s->tasks, t), reason };
    sched_evict(s, t);
}

/* ---- priorities ---- */

/* What there would be on a node without some of its tasks: those that end anyway, then victims. */
struct plan {
    const struct sched_spec *spec;
    const struct sched_node *node;
    struct sched_task *leaving[2 * VICTIMS_MAX];
    unsigned nending, n; /* the first nending are no victims */
};

static bool is_ending(const struct sched_task *t)
{
    return t->evicted || !t->active;
}

static int64_t kind_of(const struct sched_class *c, struct str name)
{
    for (unsigned i = 0; i < c->nkinds; i++)
        if (str_eq(c->kinds[i].name, name))
            return c->kinds[i].amount;
    return 0;
}

static bool kinds_fit(const struct plan *p)
{
    const struct sched_class *c = p->spec->class;
    for (unsigned i = 0; i < c->nkinds; i++) {
        int64_t left = 0;
        for (size_t k = 0; k < p->node->nstock; k++)
            if (str_eq(p->node->stock[k].name, c->kinds[i].name))
                left = p->node->stock[k].amount - p->node->stock[k].used;
        for (unsigned k = 0; k < p->n; k++)
            left += kind_of(p->leaving[k]->spec->class, c->kinds[i].name);
        if (left < c->kinds[i].amount)
            return false;
    }
    return true;
}

static unsigned uses_port(const struct sched_class *c, unsigned port)
{
    unsigned n = 0;
    for (unsigned i = 0; i < c->nports; i++)
        n += c->ports[i] == port;
    return n;
}

static bool ports_fit(const struct plan *p)
{
    const struct sched_class *c = p->spec->class;
    for (unsigned i = 0; i < c->nports; i++) {
        unsigned uses = 0, leaving = 0;
        for (unsigned k = 0; k < p->node->nports; k++)
            if (p->node->ports[k].port == c->ports[i])
                uses = p->node->ports[k].uses;
        for (unsigned k = 0; k < p->n; k++)
            leaving += uses_port(p->leaving[k]->spec->class, c->ports[i]);
        if (uses > leaving)
            return false;
    }
    return true;
}

static bool fits(const struct plan *p)
{
    int64_t cpu = p->node->cpu - p->node->used_cpu, memory = p->node->memory - p->node->used_memory;
    for (unsigned i = 0; i < p->n; i++) {
        cpu += p->leaving[i]->spec->cpu;
        memory += p->leaving[i]->spec->memory;
    }
    return (p->spec->cpu == 0 || p->spec->cpu <= cpu) && (p->spec->memory == 0 || p->spec->memory <= memory) &&
           kinds_fit(p) && ports_fit(p);
}

static int by_priority(const void *a, const void *b)
{
    const struct sched_task *x = *(struct sched_task *const *)a, *y = *(struct sched_task *const *)b;
    if (x->service->policy.priority != y->service->policy.priority)
        return x->service->policy.priority < y->service->policy.priority ? -1 : 1;
    bool xr = x->state == TASK_RUNNING, yr = y->state == TASK_RUNNING; /* what does not yet run is missed least */
    return xr != yr ? (xr ? 1 : -1) : 0;
}

/* plan_node - as few and unimportant victims as it takes; false: it cannot be done here. */
static bool plan_node(struct plan *p, struct sched_task *t, struct sched_node *n)
{
    struct sched_task *others[VICTIMS_MAX];
    unsigned nothers = 0;
    *p = (struct plan){ .spec = t->spec, .node = n };
    if (!n->present || !n->ready ||
        (t->spec->max_replicas && sched_count_of(&t->service->counts, n->number) >= t->spec->max_replicas))
        return false;
    for (struct sched_link *l = n->held.next; l != &n->held; l = l->next) {
        struct sched_task *x = SCHED_OF(l, struct sched_task, link);
        if (!x->holds)
            continue;
        if (is_ending(x) && p->nending < VICTIMS_MAX)
            p->leaving[p->nending++] = x;
        else if (!is_ending(x) && x->service->policy.priority < t->service->policy.priority && nothers < VICTIMS_MAX)
            others[nothers++] = x;
    }
    p->n = p->nending;
    if (fits(p))
        return true;
    qsort(others, nothers, sizeof others[0], by_priority);
    for (unsigned i = 0; i < nothers; i++) {
        p->leaving[p->n++] = others[i];
        if (fits(p))
            break;
    }
    if (!fits(p))
        return false;
    for (unsigned i = p->n; i-- > p->nending;) { /* the most important of them first: is it needed? */
        struct sched_task *x = p->leaving[i], *last = p->leaving[--p->n];
        p->leaving[i] = last;
        if (fits(p))
            continue;
        p->leaving[p->n++] = last;
        p->leaving[i] = x;
    }
    return true;
}

static int worst_of(const struct plan *p)
{
    int worst = INT32_MIN;
    for (unsigned i = p->nending; i < p->n; i++)
        if (p->leaving[i]->service->policy.priority > worst)
            worst = p->leaving[i]->service->policy.priority;
    return worst;
}

static bool better(const struct plan *x, const struct plan *y)
{
    int a = worst_of(x), b = worst_of(y);
    return a != b ? a < b : x->n - x->nending < y->n - y->nending;
}

static bool is_least(const struct sched *s, const struct sched_service *svc)
{
    const struct sched_priority *p = s->priorities;
    while (p && p->next)
        p = p->next;
    return !p || p->value >= svc->policy.priority;
}

size_t sched_preempt(struct sched *s, struct sched_task *t, struct arena *a, struct sched_victims *out)
{
    struct sched_node *node = NULL;
    size_t n = 0, looked = 0;
    if (is_least(s, t->service) || t->spec->hopeless == s->changes)
        return 0;
    arena_reset(&s->scratch);
    struct plan *best = arena_alloc(&s->scratch, sizeof *best), *one = arena_alloc(&s->scratch, sizeof *one);
    CHECK(best != NULL && one != NULL);
    const unsigned *numbers = t->node ? &t->node->number : sched_pool_nodes(s, t->spec->class, &n);
    if (t->node) /* of a global service, which may have as many tasks as there are nodes */
        n = t->node->present && sched_can_ever(t->spec->class, t->node);
    for (size_t i = 0; i < n; i++) {
        struct sched_node *x = s->at[numbers[i]];
        looked++;
        if (!plan_node(one, t, x) || (node && !better(one, best)))
            continue;
        *best = *one;
        node = x;
        if (best->n == best->nending)
            break;
    }
    if (!node && !t->node)
        t->spec->hopeless = s->changes;
    if (!node)
        return looked;
    for (unsigned i = best->nending; i < best->n; i++)
        add_victim(s, best->leaving[i], "preempted by a task of higher priority", a, out);
    sched_nominate(s, t, node);
    return looked;
}

/* ---- level again ---- */

struct move {
    struct sched_task *task;
    struct sched_node *from;
};

/* movable - the highest slot of a service on a node, of one spec or any; not those of jobs, nor those whose node is
 * given. */
static struct sched_task *movable(const struct sched_service *svc, const struct sched_spec *spec, struct sched_node *n)
{
    struct sched_task *best = NULL;
    for (struct sched_link *l = n->held.next; l != &n->held; l = l->next) {
        struct sched_task *t = SCHED_OF(l, struct sched_task, link);
        if (t->service == svc && (!spec || t->spec == spec) && t->state == TASK_RUNNING && t->desired == TASK_RUNNING &&
            !t->evicted && !t->given && t->slot && (!best || t->slot > best->slot))
            best = t;
    }
    return best;
}

static struct sched_task *any_movable(struct sched *s, const struct sched_service *svc)
{
    const struct sched_count *c;
    for (unsigned i = 0; (c = sched_count_next(&svc->counts, &i));) {
        struct sched_task *t = movable(svc, NULL, s->at[c->node]);
        if (t)
            return t;
    }
    return NULL;
}

/* try_move - as if the task were elsewhere already; false: everything is level, or nowhere is better. */
static bool try_move(struct sched *s, struct sched_service *svc, struct sched_spec *spec, int64_t now_ns,
                     struct move *ret)
{
    struct sched_group g = { .s = s, .now_ns = now_ns, .spec = spec, .service = svc };
    sched_group_begin(&g, SCHED_WHOLE);
    struct sched_node *from = sched_group_uneven(&g);
    sched_group_end(&g);
    struct sched_task *t = from ? movable(svc, spec, from) : NULL;
    if (!t)
        return false;
    *ret = (struct move){ t, from };
    enum task_state state = t->state, desired = t->desired;
    sched_set(s, t, NULL, state, desired);
    sched_group_begin(&g, 1);
    struct sched_node *to = sched_group_best(&g);
    bool better = to && sched_group_better(&g, from, to);
    sched_group_end(&g);
    sched_set(s, t, better ? to : from, state, desired);
    return better;
}

static size_t budget_of(const struct sched_service *svc)
{
    const struct view_budget *b = &svc->policy.rebalance;
    size_t n = b->tasks ? b->tasks : (size_t)svc->active * b->percent / 100;
    return n ? n : 1;
}

/* level - a service all of whose tasks run: nothing else of it is missing while it is moved. */
static void level(struct sched *s, struct sched_service *svc, int64_t now_ns, size_t max, struct arena *a,
                  struct sched_victims *out)
{
    size_t budget = budget_of(svc), n = 0;
    struct sched_task *any;
    if (svc->running != svc->active || !link_alone(&svc->fresh) || !link_alone(&svc->refused) ||
        !(any = any_movable(s, svc)))
        return;
    budget = budget < max ? budget : max;
    struct move *v = arena_array(a, budget + 1, sizeof *v);
    CHECK(v != NULL);
    while (n < budget && try_move(s, svc, any->spec, now_ns, &v[n]))
        n++;
    for (size_t i = 0; i < n; i++) { /* it is still where it was */
        sched_set(s, v[i].task, v[i].from, v[i].task->state, v[i].task->desired);
        add_victim(s, v[i].task, "moved to a node with fewer tasks of its service", a, out);
    }
}

struct sched_eviction *sched_rebalance(struct sched *s, int64_t now_ns, size_t max, struct arena *a, size_t *ret_n)
{
    struct sched_victims out = { 0 };
    struct sched_link mine;
    link_init(&mine);
    link_join(&mine, &s->uneven); /* looking at one puts it on the list again */
    while (!link_alone(&mine) && out.n < max) {
        struct sched_service *svc = SCHED_OF(mine.next, struct sched_service, uneven);
        size_t before = out.n;
        link_del(&svc->uneven);
        level(s, svc, now_ns, max - out.n, a, &out);
        if (out.n == before)
            link_del(&svc->uneven);
    }
    link_join(&s->uneven, &mine);
    *ret_n = out.n;
    return out.v;
}
