/*
 * sched_place.c - a pass: tasks that wait, service by service, each spread over the nodes that can take it.
 *
 * Docker levels the branches of the preference tree by computing shares and looping; giving each task to the branch
 * that has fewest gives the same numbers, and a branch that is full simply drops out. Of branches with equally many the
 * one with the best node comes first, so that many small services do not all begin in the same branch.
 */
#include <stdlib.h>

#include "schedulerd/sched_priv.h"

#define PLANS_MAX 200000u /* nodes whose tasks are all looked at for more important ones, in one pass */

#define SAID_END 2u /* instead of a reason's print, which is odd */

struct waiting {
    struct sched_task *task;
    struct str id;
};

struct pass {
    struct sched *s;
    int64_t now_ns;
    struct arena *a;
    struct sched_decisions *out;
    struct sched_victims victims;
    size_t plans; /* that may still be made */
};

static int by_spec(const void *a, const void *b)
{
    const struct waiting *x = a, *y = b;
    if (x->task->spec != y->task->spec)
        return x->task->spec->number < y->task->spec->number ? -1 : 1;
    if (x->task->slot != y->task->slot)
        return x->task->slot < y->task->slot ? -1 : 1;
    return str_cmp(x->id, y->id);
}

/* take - the oldest of a service's fresh tasks, at most as many as may still be decided on, in order. */
static struct waiting *take(struct pass *p, struct sched_service *svc, size_t max, size_t *ret_n)
{
    struct sched_link *l = svc->fresh.next;
    size_t n = 0, cap = 16;
    bool sorted = true;
    struct waiting *w = arena_array(p->a, cap, sizeof *w);
    CHECK(w != NULL);
    for (; l != &svc->fresh && n < max; l = l->next) {
        struct sched_task *t = SCHED_OF(l, struct sched_task, link);
        if (n == cap) {
            struct waiting *more = arena_array(p->a, cap *= 2, sizeof *w);
            CHECK(more != NULL);
            memcpy(more, w, n * sizeof *w);
            w = more;
        }
        w[n++] = (struct waiting){ t, table_key(&p->s->tasks, t) };
        sorted = sorted && (n < 2 || by_spec(&w[n - 2], &w[n - 1]) <= 0);
    }
    if (!sorted)
        qsort(w, n, sizeof *w, by_spec);
    *ret_n = n;
    return w;
}

static void decide(struct pass *p, struct sched_decision d)
{
    p->out->v[p->out->n++] = d;
}

/* refuse - says why, unless that has been said. */
static void refuse(struct pass *p, const struct waiting *w, const char *reason)
{
    unsigned print = (unsigned)sched_print(str_from(reason)) | 1;
    sched_refuse(p->s, w->task);
    if (w->task->said == print)
        return;
    w->task->said = print;
    decide(p, (struct sched_decision){ .task = w->id, .reason = reason });
}

/* explain - once in a pass for all specs of a class that ask for the same amounts. */
static const char *explain(struct pass *p, const struct sched_spec *spec, const struct sched_service *svc)
{
    struct sched_class *c = spec->class;
    if (spec->max_replicas)
        return sched_reason(p->s, spec, svc, NULL, p->a);
    if (c->said_pass != p->s->passes || c->said_cpu != spec->cpu || c->said_memory != spec->memory) {
        c->said = sched_reason(p->s, spec, svc, NULL, p->a);
        c->said_pass = p->s->passes;
        c->said_cpu = spec->cpu;
        c->said_memory = spec->memory;
    }
    return c->said;
}

static void make_room(struct pass *p, struct sched_task *t)
{
    if (p->plans == 0) {
        p->s->freed = true; /* in the next pass; what was hopeless is not tried again in that */
        return;
    }
    size_t n = sched_preempt(p->s, t, p->a, &p->victims);
    p->plans -= n < p->plans ? n : p->plans;
}

/* confirm - its node is given. */
static void confirm(struct pass *p, const struct waiting *w)
{
    struct sched_task *t = w->task;
    if (sched_filter_node(t->spec, t->service, t->node) != SCHED_FILTER_COUNT) {
        refuse(p, w, sched_reason(p->s, t->spec, t->service, t->node, p->a));
        make_room(p, t);
        return;
    }
    sched_set(p->s, t, t->node, TASK_ASSIGNED, t->desired);
    decide(p, (struct sched_decision){ .task = w->id,
                                       .node = table_key(&p->s->nodes, t->node),
                                       .preassigned = true,
                                       .generic = sched_give(p->s, t, p->a) });
}

static void place(struct pass *p, struct sched_group *g, const struct waiting *w, const char **reason)
{
    struct sched_node *n = *reason ? NULL : sched_group_best(g);
    if (!n) {
        *reason = *reason ? *reason : explain(p, g->spec, g->service);
        refuse(p, w, *reason);
        return;
    }
    sched_set(p->s, w->task, n, TASK_ASSIGNED, w->task->desired);
    sched_group_placed(g);
    decide(p, (struct sched_decision){
                  .task = w->id, .node = table_key(&p->s->nodes, n), .generic = sched_give(p->s, w->task, p->a) });
}

/* sort_out - what has a node, or an end, needs no search. Returns how many tasks do. */
static size_t sort_out(struct pass *p, const struct waiting *w, size_t n)
{
    size_t left = 0;
    for (size_t i = 0; i < n; i++) {
        struct sched_task *t = w[i].task;
        if (t->desired > TASK_COMPLETE) {
            sched_refuse(p->s, t);
            if (t->said != SAID_END)
                decide(p, (struct sched_decision){ .task = w[i].id, .obsolete = true });
            t->said = SAID_END;
        } else if (t->node) {
            confirm(p, &w[i]);
        } else {
            left++;
        }
    }
    return left;
}

static bool is_open(const struct sched_task *t)
{
    return t->waiting && !t->node && t->desired <= TASK_COMPLETE;
}

/* release - the room that was kept for these tasks; NULL when none was. */
static const struct sched_node **release(struct pass *p, const struct waiting *w, size_t n)
{
    const struct sched_node **kept = NULL;
    struct sched *s = p->s;
    bool freed = s->freed;
    uint64_t changes = s->changes;
    for (size_t i = 0; i < n && s->nnominations; i++) {
        if (!w[i].task->nominated)
            continue;
        kept = kept ? kept : arena_array(p->a, n, sizeof(const struct sched_node *));
        CHECK(kept != NULL);
        kept[i] = sched_nominated(s, w[i].task);
        sched_unnominate(s, w[i].task);
    }
    s->freed = freed; /* not for others, unless given_up() */
    s->changes = changes;
    return kept;
}

/* given_up - room that was kept is free for others now. */
static bool given_up(struct sched *s, const struct waiting *w, size_t n, const struct sched_node **kept)
{
    for (size_t i = 0; i < n; i++)
        if (kept[i] && kept[i] != (w[i].task->waiting ? sched_nominated(s, w[i].task) : w[i].task->node))
            return true;
    return false;
}

/* place_group - tasks of one service and spec. */
static void place_group(struct pass *p, const struct waiting *w, size_t n)
{
    struct sched_group g = { .s = p->s, .now_ns = p->now_ns, .spec = w[0].task->spec, .service = w[0].task->service };
    const char *reason = NULL;
    const struct sched_node **kept = release(p, w, n);
    size_t left = sort_out(p, w, n);
    if (left) {
        sched_group_begin(&g, left);
        for (size_t i = 0; i < n; i++)
            if (is_open(w[i].task))
                place(p, &g, &w[i], &reason);
        sched_group_end(&g);
        for (size_t i = 0; reason && i < n; i++)
            if (is_open(w[i].task))
                make_room(p, w[i].task);
    }
    if (kept && given_up(p->s, w, n, kept)) {
        p->s->freed = true;
        p->s->changes++;
    }
}

static size_t place_service(struct pass *p, struct sched_service *svc, size_t max)
{
    size_t n, from = 0;
    struct waiting *w = take(p, svc, max, &n);
    link_del(&svc->todo);
    for (size_t i = 1; i <= n; i++)
        if (i == n || w[i].task->spec != w[from].task->spec) {
            place_group(p, w + from, i - from);
            from = i;
        }
    if (!link_alone(&svc->fresh) && link_alone(&svc->todo)) /* the others are served first */
        link_push(&svc->priority->todo, &svc->todo);
    return n;
}

/* try_refused - every task that was refused is looked at again. */
static void try_refused(struct sched *s)
{
    while (!link_alone(&s->refused)) {
        struct sched_service *svc = SCHED_OF(s->refused.next, struct sched_service, again);
        for (struct sched_link *l = svc->refused.next; l != &svc->refused; l = l->next)
            SCHED_OF(l, struct sched_task, link)->fresh = true;
        link_join(&svc->fresh, &svc->refused);
        link_del(&svc->again);
        if (link_alone(&svc->todo))
            link_push(&svc->priority->todo, &svc->todo);
    }
    s->freed = false;
}

bool sched_pass(struct sched *s, int64_t now_ns, size_t max, struct arena *a, struct sched_decisions *out)
{
    struct pass p = { .s = s, .now_ns = now_ns, .a = a, .out = out, .plans = PLANS_MAX };
    struct sched_priority *level;
    size_t seen = 0, most;
    *out = (struct sched_decisions){ 0 };
    if (s->freed)
        try_refused(s);
    if (!sched_next_todo(s))
        return false;
    s->passes++;
    most = s->waiting < max ? s->waiting : max;
    out->v = arena_array(a, most + 1, sizeof *out->v);
    CHECK(out->v != NULL);
    while (seen < most && (level = sched_next_todo(s))) {
        struct sched_service *svc = SCHED_OF(level->todo.next, struct sched_service, todo);
        seen += place_service(&p, svc, most - seen);
    }
    out->evict = p.victims.v;
    out->nevict = p.victims.n;
    return sched_next_todo(s) != NULL || (s->freed && p.plans == 0);
}
