/* sched_filter.c - the pipeline: each filter says whether a node can take one more task of a spec. */
#include <strings.h>

#include "schedulerd/sched_priv.h"

const char *const sched_filter_name[SCHED_FILTER_COUNT] = { "ready",    "resource", "plugin",     "constraint",
                                                            "platform", "hostport", "maxreplicas" };

static int64_t amount_of(const struct sched_kind *k, size_t n, struct str name)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(k[i].name, name))
            return k[i].amount;
    return 0;
}

static bool has_resources(const struct sched_spec *spec, const struct sched_node *n)
{
    const struct view_node_resources *r = &n->view.Description.Resources;
    if (spec->cpu > 0 && spec->cpu > r->NanoCPUs - n->used_cpu)
        return false;
    if (spec->memory > 0 && spec->memory > r->MemoryBytes - n->used_mem)
        return false;
    for (size_t i = 0; i < spec->nkinds; i++) {
        const int64_t *used = table_get(&n->used_kinds, spec->kinds[i].name);
        if (spec->kinds[i].amount > amount_of(n->kinds, n->nkinds, spec->kinds[i].name) - (used ? *used : 0))
            return false;
    }
    return true;
}

static bool same_plugin(struct str have, struct str want)
{
    return str_eq(have, want) ||
           (have.n == want.n + 7 && str_starts(have, want) && memcmp(have.p + want.n, ":latest", 7) == 0);
}

/* has_plugin - a node that lists none of a type is trusted to have it. */
static bool has_plugin(const struct sched_plugin *want, const struct sched_node *n)
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

static bool has_plugins(const struct sched_spec *spec, const struct sched_node *n)
{
    for (size_t i = 0; i < spec->nplugins; i++)
        if (!has_plugin(&spec->plugins[i], n))
            return false;
    return true;
}

bool sched_meets_constraints(const struct sched_spec *spec, const struct sched_node *n)
{
    for (size_t i = 0; i < spec->nconstraints; i++)
        if (!constraint_match(&spec->constraints[i], &n->view))
            return false;
    return true;
}

static struct str architecture(struct str s)
{
    return str_is(s, "x86_64") ? STR("amd64") : str_is(s, "aarch64") ? STR("arm64") : s;
}

static bool same_word(struct str a, struct str b)
{
    return a.n == b.n && strncasecmp(a.p, b.p, a.n) == 0;
}

static bool has_platform(const struct sched_spec *spec, const struct sched_node *n)
{
    const struct view_platform *have = &n->view.Description.Platform;
    for (size_t i = 0; i < spec->nplatforms; i++) {
        const struct view_platform *p = &spec->platforms[i];
        if ((p->OS.n == 0 || same_word(p->OS, have->OS)) &&
            (p->Architecture.n == 0 || same_word(architecture(p->Architecture), architecture(have->Architecture))))
            return true;
    }
    return spec->nplatforms == 0;
}

static bool has_ports(const struct sched_spec *spec, const struct sched_node *n)
{
    for (size_t i = 0; i < spec->nports; i++)
        if (table_get(&n->ports, spec->ports[i]))
            return false;
    return true;
}

enum sched_filter sched_filter_node(const struct sched_spec *spec, const char *service, const struct sched_node *n)
{
    if (!n->present || !n->ready)
        return SCHED_READY;
    if (!has_resources(spec, n))
        return SCHED_RESOURCE;
    if (!has_plugins(spec, n))
        return SCHED_PLUGIN;
    if (!sched_meets_constraints(spec, n))
        return SCHED_CONSTRAINT;
    if (!has_platform(spec, n))
        return SCHED_PLATFORM;
    if (!has_ports(spec, n))
        return SCHED_HOST_PORT;
    if (spec->max_replicas && sched_active_of(n, service) >= spec->max_replicas)
        return SCHED_MAX_REPLICAS;
    return SCHED_FILTER_COUNT;
}
