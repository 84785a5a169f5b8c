/*
 * sched_place.c - a pass: waiting tasks in groups of one spec, each group spread over the nodes that can take it.
 *
 * Docker levels the branches of the preference tree by computing shares and looping; giving each task to the branch
 * that has fewest gives the same numbers, and a branch that is full simply drops out.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/util/check.h"
#include "schedulerd/sched_priv.h"

/* A node as a candidate for one group. */
struct cand {
    struct sched_node *node;
    struct str id;
    unsigned failures, of_service;
};

/* A vertex of the preference tree: the values of one label below another, or at the bottom a heap of nodes. */
struct branch {
    struct str value;
    struct branch *children, *next; /* siblings in the order of their value */
    unsigned tasks;                 /* of the service, below here */
    struct cand **heap;             /* bottom only: best node first */
    size_t n, cap;
};

struct group {
    struct sched *s;
    int64_t now;
    struct arena *a;
    struct sched_spec *spec;
    const char *service;
    struct branch root;
};

/* ---- candidates ---- */

static bool before(const struct cand *x, const struct cand *y)
{
    if (x->failures != y->failures)
        return x->failures < y->failures;
    if (x->of_service != y->of_service)
        return x->of_service < y->of_service;
    if (x->node->active != y->node->active)
        return x->node->active < y->node->active;
    return str_cmp(x->id, y->id) < 0;
}

static void sift_down(struct branch *b, size_t i)
{
    for (;;) {
        size_t best = i, l = 2 * i + 1, r = l + 1;
        if (l < b->n && before(b->heap[l], b->heap[best]))
            best = l;
        if (r < b->n && before(b->heap[r], b->heap[best]))
            best = r;
        if (best == i)
            return;
        struct cand *t = b->heap[i];
        b->heap[i] = b->heap[best];
        b->heap[best] = t;
        i = best;
    }
}

static struct branch *child_of(struct group *g, struct branch *b, struct str value)
{
    struct branch **p = &b->children;
    while (*p && str_cmp((*p)->value, value) < 0)
        p = &(*p)->next;
    if (*p && str_eq((*p)->value, value))
        return *p;
    struct branch *c = arena_alloc(g->a, sizeof *c);
    CHECK(c != NULL);
    *c = (struct branch){ .value = value, .next = *p };
    *p = c;
    return c;
}

static struct branch *bottom_of(struct group *g, struct sched_node *n, unsigned of_service)
{
    struct branch *b = &g->root;
    b->tasks += of_service;
    for (size_t i = 0; i < g->spec->nspreads; i++) {
        struct str value = STR("");
        (void)constraint_label(g->spec->spreads[i], &n->view, &value);
        b = child_of(g, b, value);
        b->tasks += of_service;
    }
    return b;
}

static void add_candidate(struct group *g, struct branch *b, struct sched_node *n, struct str id, unsigned of_service)
{
    struct cand *c = arena_alloc(g->a, sizeof *c);
    CHECK(c != NULL);
    *c = (struct cand){ n, id, sched_failures_of(n, g->spec, g->now), of_service };
    if (b->n == b->cap) {
        size_t cap = b->cap ? b->cap * 2 : 8;
        struct cand **more = arena_array(g->a, cap, sizeof(struct cand *));
        CHECK(more != NULL);
        if (b->n)
            memcpy(more, b->heap, b->n * sizeof *more);
        b->heap = more;
        b->cap = cap;
    }
    b->heap[b->n++] = c;
}

static void heapify(struct branch *b)
{
    for (size_t i = b->n / 2; i-- > 0;)
        sift_down(b, i);
    for (struct branch *c = b->children; c; c = c->next)
        heapify(c);
}

static void make_tree(struct group *g)
{
    struct sched_node *n;
    struct str id;
    for (struct table_pos p = { 0 }; table_next(&g->s->nodes, &p, &id, &n);) {
        if (!n->present)
            continue;
        unsigned of_service = sched_active_of(n, g->service);
        struct branch *b = bottom_of(g, n, of_service);
        if (sched_filter_node(g->spec, g->service, n) == SCHED_FILTER_COUNT)
            add_candidate(g, b, n, id, of_service);
    }
    heapify(&g->root);
}

static bool has_room(const struct branch *b)
{
    if (b->n)
        return true;
    for (const struct branch *c = b->children; c; c = c->next)
        if (has_room(c))
            return true;
    return false;
}

/* place_one - down the branches with the fewest tasks to the best node; NULL when there is none. */
static struct sched_node *place_one(struct group *g, struct sched_task *t, struct str *ret_id)
{
    struct branch *b = &g->root;
    if (!has_room(b))
        return NULL;
    b->tasks++;
    while (b->children) {
        struct branch *best = NULL;
        for (struct branch *c = b->children; c; c = c->next)
            if ((!best || c->tasks < best->tasks) && has_room(c))
                best = c;
        CHECK(best != NULL); /* else b had no room */
        b = best;
        b->tasks++;
    }
    struct cand *c = b->heap[0];
    sched_set(g->s, t, c->node, TASK_ASSIGNED, t->desired);
    c->of_service++;
    if (sched_filter_node(g->spec, g->service, c->node) != SCHED_FILTER_COUNT)
        b->heap[0] = b->heap[--b->n];
    sift_down(b, 0);
    *ret_id = c->id;
    return c->node;
}

/* ---- explanations ---- */

static const struct {
    const char *one, *many; /* many: with the number of nodes */
} filter_text[SCHED_FILTER_COUNT] = {
    [SCHED_READY] = { "1 node not available for new tasks", "%u nodes not available for new tasks" },
    [SCHED_RESOURCE] = { "insufficient resources on 1 node", "insufficient resources on %u nodes" },
    [SCHED_PLUGIN] = { "missing plugin on 1 node", "missing plugin on %u nodes" },
    [SCHED_CONSTRAINT] = { "scheduling constraints not satisfied on 1 node",
                           "scheduling constraints not satisfied on %u nodes" },
    [SCHED_PLATFORM] = { "unsupported platform on 1 node", "unsupported platform on %u nodes" },
    [SCHED_HOST_PORT] = { "host-mode port already in use on 1 node", "host-mode port already in use on %u nodes" },
    [SCHED_MAX_REPLICAS] = { "max replicas per node limit exceed", "max replicas per node limit exceed" },
};

static size_t add_text(char *text, size_t at, size_t cap, enum sched_filter f, unsigned nodes)
{
    if (at >= cap)
        return at;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* both come from the table above */
    int n = snprintf(text + at, cap - at, nodes == 1 ? filter_text[f].one : filter_text[f].many, nodes);
#pragma GCC diagnostic pop
    return at + (n > 0 ? (size_t)n : 0);
}

/* explain - "no suitable node (A; B)", what rejects most nodes first. */
static const char *explain(struct group *g)
{
    unsigned counts[SCHED_FILTER_COUNT + 1] = { 0 };
    struct sched_node *n;
    char text[512];
    size_t at = 0;
    for (struct table_pos p = { 0 }; table_next(&g->s->nodes, &p, NULL, &n);)
        if (n->present)
            counts[sched_filter_node(g->spec, g->service, n)]++;
    for (bool first = true;; first = false) {
        enum sched_filter most = SCHED_FILTER_COUNT;
        for (unsigned f = 0; f < SCHED_FILTER_COUNT; f++)
            if (counts[f] && (most == SCHED_FILTER_COUNT || counts[f] > counts[most]))
                most = (enum sched_filter)f;
        if (most == SCHED_FILTER_COUNT)
            break;
        if (!first)
            at += (size_t)snprintf(text + at, sizeof text - at, "; ");
        at = add_text(text, at, sizeof text, most, counts[most]);
        counts[most] = 0;
    }
    const char *reason = at ? arena_printf(g->a, "no suitable node (%.*s)", (int)at, text) : "no suitable node";
    CHECK(reason != NULL);
    return reason;
}

void sched_explain(struct sched *s, struct str task, struct buf *out)
{
    struct sched_task *t = table_get(&s->tasks, task);
    struct sched_node *n;
    struct str id;
    bool first = true;
    if (!t) {
        buf_puts(out, "{\"error\":\"no such waiting or placed task\"}");
        return;
    }
    buf_puts(out, "{\"task\":");
    buf_json_str(out, task);
    buf_printf(out, ",\"state\":\"%s\",\"desired\":\"%s\",\"service\":", task_state_name(t->state),
               task_state_name(t->desired));
    buf_json_str(out, str_from(t->service));
    buf_puts(out, ",\"node\":");
    buf_json_str(out, t->node ? table_key(&s->nodes, t->node) : STR(""));
    buf_printf(out, ",\"needs\":{\"nano_cpus\":%lld,\"memory_bytes\":%lld},\"nodes\":[", (long long)t->spec->cpu,
               (long long)t->spec->memory);
    for (struct table_pos p = { 0 }; table_next(&s->nodes, &p, &id, &n);) {
        enum sched_filter f = sched_filter_node(t->spec, t->service, n);
        buf_puts(out, first ? "{\"id\":" : ",{\"id\":");
        first = false;
        buf_json_str(out, id);
        buf_puts(out, ",\"hostname\":");
        buf_json_str(out, n->present ? n->view.Description.Hostname : STR(""));
        buf_printf(out,
                   ",\"verdict\":\"%s\",\"tasks\":%u,\"tasks_of_service\":%u,\"nano_cpus_free\":%lld,"
                   "\"memory_bytes_free\":%lld}",
                   f == SCHED_FILTER_COUNT ? "fits" : sched_filter_name[f], n->active, sched_active_of(n, t->service),
                   (long long)(n->present ? n->view.Description.Resources.NanoCPUs - n->used_cpu : 0),
                   (long long)(n->present ? n->view.Description.Resources.MemoryBytes - n->used_mem : 0));
    }
    buf_puts(out, "]}");
}

/* ---- the pass ---- */

struct waiting {
    struct sched_task *task;
    struct str id;
};

static int by_group(const void *a, const void *b)
{
    const struct waiting *x = a, *y = b;
    int c = strcmp(x->task->service, y->task->service);
    if (c)
        return c;
    if (x->task->spec != y->task->spec)
        return x->task->spec->number < y->task->spec->number ? -1 : 1;
    if (x->task->slot != y->task->slot)
        return x->task->slot < y->task->slot ? -1 : 1;
    return str_cmp(x->id, y->id);
}

static struct waiting *collect(struct sched *s, struct arena *a, size_t *ret_n)
{
    struct waiting *w = arena_array(a, s->waiting + 1, sizeof *w);
    size_t n = 0;
    CHECK(w != NULL);
    for (struct sched_task *t = s->wait_list; t; t = t->next)
        if (t->fresh || s->freed)
            w[n++] = (struct waiting){ t, table_key(&s->tasks, t) };
    qsort(w, n, sizeof *w, by_group);
    *ret_n = n;
    return w;
}

static struct sched_decision decide(struct group *g, struct sched_task *t, struct str id, const char **reason)
{
    struct sched_decision d = { .task = id };
    if (t->desired > TASK_COMPLETE) {
        d.obsolete = true;
    } else if (t->node) { /* its node is given: only confirm */
        if (sched_filter_node(g->spec, g->service, t->node) == SCHED_FILTER_COUNT) {
            d.node = table_key(&g->s->nodes, t->node);
            d.preassigned = true;
            sched_set(g->s, t, t->node, TASK_ASSIGNED, t->desired);
        } else {
            d.reason = *reason ? *reason : (*reason = explain(g));
        }
    } else if (*reason || !place_one(g, t, &d.node)) {
        d.reason = *reason ? *reason : (*reason = explain(g));
    }
    t->fresh = false;
    return d;
}

bool sched_pass(struct sched *s, int64_t now_ns, size_t max, struct arena *a, struct sched_decisions *out)
{
    size_t n, i = 0;
    *out = (struct sched_decisions){ 0 };
    if (s->waiting == 0 || (!s->fresh && !s->freed)) {
        s->fresh = s->freed = false;
        return false;
    }
    struct waiting *w = collect(s, a, &n);
    out->v = arena_array(a, (n < max ? n : max) + 1, sizeof *out->v);
    CHECK(out->v != NULL);
    while (i < n && out->n < max) {
        struct group g = { .s = s, .now = now_ns, .a = a, .spec = w[i].task->spec, .service = w[i].task->service };
        const char *reason = NULL;
        struct sched_task *first = w[i].task;
        make_tree(&g);
        for (;
             i < n && out->n < max && w[i].task->spec == first->spec && strcmp(w[i].task->service, first->service) == 0;
             i++)
            out->v[out->n++] = decide(&g, w[i].task, w[i].id, &reason);
    }
    if (i == n)
        s->fresh = s->freed = false;
    return i < n;
}
