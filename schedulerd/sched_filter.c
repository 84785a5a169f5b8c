/* sched_filter.c - the pipeline: each filter says whether a node can take one more task of a spec. */
#include <stdio.h>

#include "schedulerd/sched_priv.h"

const char *const sched_filter_name[SCHED_FILTER_COUNT] = { "ready",       "resource", "plugin",
                                                            "constraint",  "platform", "hostport",
                                                            "maxreplicas", "volume",   "kernel" };

static int64_t left_of(const struct sched_node *n, struct str name)
{
    for (size_t i = 0; i < n->nstock; i++)
        if (str_eq(n->stock[i].name, name))
            return n->stock[i].amount - n->stock[i].used;
    return 0;
}

static bool has_resources(const struct sched_class *c, const struct sched_node *n, int64_t cpu, int64_t memory)
{
    if (cpu > 0 && cpu > n->cpu - n->used_cpu)
        return false;
    if (memory > 0 && memory > n->memory - n->used_memory)
        return false;
    for (unsigned i = 0; i < c->nkinds; i++)
        if (c->kinds[i].amount > left_of(n, c->kinds[i].name))
            return false;
    return true;
}

static bool same_plugin(struct str have, struct str want)
{
    return str_eq(have, want) ||
           (have.n == want.n + 7 && str_starts(have, want) && memcmp(have.p + want.n, ":latest", 7) == 0);
}

/* has - a node that lists none of a type is trusted to have it. */
static bool has(const struct sched_need *want, const struct sched_node *n)
{
    const struct list *l = &n->view.Description.Engine.Plugins;
    const struct view_plugin *p = l->v;
    bool lists_any = false;
    for (size_t i = 0; i < l->n; i++) {
        if (!str_eq(p[i].Type, want->type))
            continue;
        lists_any = true;
        if (same_plugin(p[i].Name, want->name))
            return true;
    }
    return !lists_any;
}

static bool has_all(const struct sched_class *c, const struct sched_node *n, bool kernel)
{
    for (unsigned i = 0; i < c->nneeds; i++)
        if (str_is(c->needs[i].type, SCHED_KERNEL_TYPE) == kernel && !has(&c->needs[i], n))
            return false;
    return true;
}

bool sched_meets_constraints(const struct sched_class *c, const struct sched_node *n)
{
    for (unsigned i = 0; i < c->nconstraints; i++)
        if (!constraint_match(&c->constraints[i], &n->view))
            return false;
    return true;
}

static bool has_platform(const struct sched_class *c, const struct sched_node *n)
{
    return platform_match(&(struct list){ .v = c->platforms, .n = c->nplatforms }, &n->view);
}

static bool has_ports(const struct sched_class *c, const struct sched_node *n)
{
    for (unsigned i = 0; i < c->nports; i++)
        for (unsigned k = 0; k < n->nports; k++)
            if (n->ports[k].port == c->ports[i])
                return false;
    return true;
}

bool sched_can_ever(const struct sched_class *c, const struct sched_node *n)
{
    return has_all(c, n, false) && sched_meets_constraints(c, n) && has_platform(c, n) && !c->csi &&
           has_all(c, n, true);
}

bool sched_has_room(const struct sched_class *c, const struct sched_node *n, int64_t cpu, int64_t memory)
{
    return n->present && n->ready && has_resources(c, n, cpu, memory) && has_ports(c, n);
}

enum sched_filter sched_filter_node(const struct sched_spec *spec, const struct sched_service *svc,
                                    const struct sched_node *n)
{
    const struct sched_class *c = spec->class;
    if (!n->present || !n->ready)
        return SCHED_READY;
    if (!has_resources(c, n, spec->cpu, spec->memory))
        return SCHED_RESOURCE;
    if (!has_all(c, n, false))
        return SCHED_PLUGIN;
    if (!sched_meets_constraints(c, n))
        return SCHED_CONSTRAINT;
    if (!has_platform(c, n))
        return SCHED_PLATFORM;
    if (!has_ports(c, n))
        return SCHED_HOST_PORT;
    if (spec->max_replicas && sched_count_of(&svc->counts, n->number) >= spec->max_replicas)
        return SCHED_MAX_REPLICAS;
    if (c->csi)
        return SCHED_VOLUME; /* no node has plugins for those */
    if (!has_all(c, n, true))
        return SCHED_KERNEL;
    return SCHED_FILTER_COUNT;
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
    [SCHED_VOLUME] = { "cannot fulfill requested CSI volume mounts on 1 node",
                       "cannot fulfill requested CSI volume mounts on %u nodes" },
    [SCHED_KERNEL] = { "missing kernel feature on 1 node", "missing kernel feature on %u nodes" },
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

/* sched_reason - "no suitable node (A; B)", what rejects most nodes first. */
const char *sched_reason(const struct sched *s, const struct sched_spec *spec, const struct sched_service *svc,
                         const struct sched_node *only, struct arena *a)
{
    unsigned counts[SCHED_FILTER_COUNT + 1] = { 0 };
    char text[1024];
    size_t at = 0;
    for (size_t i = only ? only->number : 0, end = only ? i + 1 : s->nat; i < end; i++)
        if (s->at[i] && s->at[i]->present)
            counts[sched_filter_node(spec, svc, s->at[i])]++;
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
    const char *reason = at ? arena_printf(a, "no suitable node (%.*s)", (int)at, text) : "no suitable node";
    CHECK(reason != NULL);
    return reason;
}
