/*
 * sched_class.c - what specs ask for. Specs that ask for the same but for the amounts of CPU and memory, and for about
 * the same of those, are of one class: a million services from one template share one order of nodes.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "schedulerd/sched_priv.h"

/* What a spec needs, gathered in the scratch arena. */
struct wants {
    struct constraint *constraints;
    struct str *constraint_texts, *spreads;
    const struct view_platform *platforms;
    unsigned *ports;
    struct sched_need *needs;
    struct sched_kind *kinds;
    unsigned nconstraints, nplatforms, nspreads, nports, nneeds, nkinds;
    bool csi;
};

static void *room(struct sched *s, size_t n, size_t size)
{
    void *p = arena_array(&s->scratch, n + 1, size);
    CHECK(p != NULL);
    return p;
}

static void want_constraints(struct sched *s, struct wants *w, const struct strs *l)
{
    w->constraints = room(s, l->n, sizeof *w->constraints);
    for (size_t i = 0; i < l->n; i++)
        if (!constraint_parse(l->v[i], &w->constraints[w->nconstraints++])) {
            w->nconstraints = 0; /* as Docker: one that is malformed turns the filter off */
            return;
        }
}

static void want_kinds(struct sched *s, struct wants *w, const struct list *l)
{
    const struct view_generic *g = l->v;
    w->kinds = room(s, l->n, sizeof *w->kinds);
    for (size_t i = 0; i < l->n; i++) {
        struct str name = g[i].DiscreteResourceSpec ? g[i].DiscreteResourceSpec->Kind
                          : g[i].NamedResourceSpec  ? g[i].NamedResourceSpec->Kind
                                                    : STR("");
        int64_t amount = g[i].DiscreteResourceSpec ? g[i].DiscreteResourceSpec->Value : g[i].NamedResourceSpec != NULL;
        unsigned at = 0;
        while (at < w->nkinds && !str_eq(w->kinds[at].name, name))
            at++;
        if (amount <= 0)
            continue;
        if (at == w->nkinds)
            w->kinds[w->nkinds++] = (struct sched_kind){ name, 0 };
        if (__builtin_add_overflow(w->kinds[at].amount, amount, &w->kinds[at].amount))
            w->kinds[at].amount = INT64_MAX;
    }
}

static void need(struct wants *w, struct str type, struct str name)
{
    for (unsigned i = 0; i < w->nneeds; i++)
        if (str_eq(w->needs[i].type, type) && str_eq(w->needs[i].name, name))
            return;
    w->needs[w->nneeds++] = (struct sched_need){ type, name };
}

static void want_ports(struct sched *s, struct wants *w, const struct list *l)
{
    const struct view_port *p = l->v;
    w->ports = room(s, l->n, sizeof *w->ports);
    for (size_t i = 0; i < l->n; i++) {
        unsigned proto = str_is(p[i].Protocol, "udp") ? 17 : str_is(p[i].Protocol, "sctp") ? 132 : 6;
        if (str_is(p[i].PublishMode, "host") && p[i].PublishedPort)
            w->ports[w->nports++] = proto << 16 | (unsigned)(p[i].PublishedPort & 0xffff);
    }
}

static void want_spreads(struct sched *s, struct wants *w, const struct list *l)
{
    static const struct view_node nothing;
    const struct view_preference *p = l->v;
    struct str value;
    w->spreads = room(s, l->n, sizeof *w->spreads);
    for (size_t i = 0; i < l->n; i++)
        if (p[i].Spread && constraint_label(p[i].Spread->SpreadDescriptor, &nothing, &value))
            w->spreads[w->nspreads++] = p[i].Spread->SpreadDescriptor;
}

static size_t mounts_of(struct str doc, struct mp_cursor *c)
{
    struct str mounts;
    struct mp_val head;
    if (!mp_path(doc, "Spec.ContainerSpec.Mounts", &mounts))
        return 0;
    *c = mp_cursor(mounts);
    return mp_next(c, &head) == 0 && head.type == MP_ARRAY ? head.n : 0;
}

/* want_needs - the drivers of logs, volumes and networks; what the kernel has to be able to do. */
static void want_needs(struct sched *s, struct wants *w, const struct view_taskspec *v, struct str doc,
                       sched_network_fn *network, void *arg)
{
    const struct view_task_template *t = &v->Spec;
    const struct view_attachment_config *net = t->Networks.v;
    struct mp_cursor c = { 0 };
    struct str mount, type, driver;
    size_t mounts = mounts_of(doc, &c);
    bool encrypted;
    w->needs = room(s, mounts + 2 * t->Networks.n + 3, sizeof *w->needs);
    if (t->LogDriver && t->LogDriver->Name.n && !str_is(t->LogDriver->Name, "none"))
        need(w, STR("Log"), t->LogDriver->Name);
    for (size_t i = 0; i < mounts && mp_span(&c, &mount) == 0; i++) {
        if (!mp_get_str(mount, "Type", &type))
            continue;
        w->csi |= str_is(type, "cluster");
        if (str_is(type, "volume") && mp_get_str(mount, "VolumeOptions.DriverConfig.Name", &driver) && driver.n &&
            !str_is(driver, "local"))
            need(w, STR("Volume"), driver);
    }
    for (size_t i = 0; network && i < t->Networks.n; i++) {
        if (!network(arg, net[i].Target, &driver, &encrypted))
            continue;
        if (driver.n)
            need(w, STR("Network"), arena_str(&s->scratch, driver));
        if (encrypted)
            need(w, STR(SCHED_KERNEL_TYPE), STR("esp"));
    }
}

/* ---- the key of a class ---- */

static void key_str(struct buf *b, struct str s)
{
    uint32_t n = (uint32_t)s.n;
    buf_put(b, &n, sizeof n);
    buf_put(b, s.p, s.n);
}

static void key_u64(struct buf *b, uint64_t v)
{
    buf_put(b, &v, sizeof v);
}

/* about - amounts between two powers of four are about the same. */
static unsigned about(int64_t amount)
{
    return amount <= 0 ? 0 : 1 + (unsigned)(63 - __builtin_clzll((uint64_t)amount)) / 2;
}

static struct str key_of(struct sched *s, const struct wants *w, const struct sched_spec *spec)
{
    struct buf *b = &s->key;
    buf_clear(b);
    key_u64(b, about(spec->cpu) << 8 | about(spec->memory) | (uint64_t)w->csi << 32);
    key_u64(b, w->nconstraints);
    for (unsigned i = 0; i < w->nconstraints; i++) {
        key_str(b, w->constraints[i].key);
        key_str(b, w->constraints[i].value);
        key_u64(b, w->constraints[i].equal);
    }
    key_u64(b, w->nplatforms);
    for (unsigned i = 0; i < w->nplatforms; i++) {
        key_str(b, w->platforms[i].OS);
        key_str(b, w->platforms[i].Architecture);
    }
    key_u64(b, w->nspreads);
    for (unsigned i = 0; i < w->nspreads; i++)
        key_str(b, w->spreads[i]);
    key_u64(b, w->nports);
    for (unsigned i = 0; i < w->nports; i++)
        key_u64(b, w->ports[i]);
    key_u64(b, w->nneeds);
    for (unsigned i = 0; i < w->nneeds; i++) {
        key_str(b, w->needs[i].type);
        key_str(b, w->needs[i].name);
    }
    for (unsigned i = 0; i < w->nkinds; i++) {
        key_str(b, w->kinds[i].name);
        key_u64(b, (uint64_t)w->kinds[i].amount);
    }
    CHECK(!b->failed);
    return buf_str(b);
}

static void pack_class(struct sched_pack *k, const struct wants *w, struct sched_class *c)
{
    c->constraints = sched_pack_room(k, w->nconstraints * sizeof *c->constraints);
    c->platforms = sched_pack_room(k, w->nplatforms * sizeof *c->platforms);
    c->spreads = sched_pack_room(k, w->nspreads * sizeof *c->spreads);
    c->needs = sched_pack_room(k, w->nneeds * sizeof *c->needs);
    c->kinds = sched_pack_room(k, w->nkinds * sizeof *c->kinds);
    c->ports = sched_pack_room(k, w->nports * sizeof *c->ports);
    for (unsigned i = 0; i < w->nconstraints; i++) {
        struct constraint one = { sched_pack_str(k, w->constraints[i].key), sched_pack_str(k, w->constraints[i].value),
                                  w->constraints[i].equal };
        if (k->p)
            c->constraints[i] = one;
    }
    for (unsigned i = 0; i < w->nplatforms; i++) {
        struct view_platform one = { .OS = sched_pack_str(k, w->platforms[i].OS),
                                     .Architecture = sched_pack_str(k, w->platforms[i].Architecture) };
        if (k->p)
            c->platforms[i] = one;
    }
    for (unsigned i = 0; i < w->nspreads; i++) {
        struct str one = sched_pack_str(k, w->spreads[i]);
        if (k->p)
            c->spreads[i] = one;
    }
    for (unsigned i = 0; i < w->nneeds; i++) {
        struct sched_need one = { sched_pack_str(k, w->needs[i].type), sched_pack_str(k, w->needs[i].name) };
        if (k->p)
            c->needs[i] = one;
    }
    for (unsigned i = 0; i < w->nkinds; i++) {
        struct sched_kind one = { sched_pack_str(k, w->kinds[i].name), w->kinds[i].amount };
        if (k->p)
            c->kinds[i] = one;
    }
    if (k->p && w->nports)
        memcpy(c->ports, w->ports, w->nports * sizeof *c->ports);
}

static struct sched_class *class_of(struct sched *s, const struct wants *w, const struct sched_spec *spec)
{
    bool fresh;
    struct sched_class *c = table_put(&s->classes, key_of(s, w, spec), &fresh);
    struct sched_pack k = { 0 };
    c->refs++;
    if (!fresh) {
        c->cpu = spec->cpu < c->cpu ? spec->cpu : c->cpu;
        c->memory = spec->memory < c->memory ? spec->memory : c->memory;
        return c;
    }
    pack_class(&k, w, c);
    k = (struct sched_pack){ malloc(k.n + 1), 0 };
    CHECK(k.p != NULL);
    c->block = k.p;
    pack_class(&k, w, c);
    c->nconstraints = w->nconstraints;
    c->nplatforms = w->nplatforms;
    c->nspreads = w->nspreads;
    c->nports = w->nports;
    c->nneeds = w->nneeds;
    c->nkinds = w->nkinds;
    c->csi = w->csi;
    c->cpu = spec->cpu;
    c->memory = spec->memory;
    return c;
}

/* ---- specs ---- */

bool sched_has_spec(const struct sched *s, struct str id)
{
    return table_get(&s->specs, id) != NULL;
}

int sched_put_spec(struct sched *s, struct str id, struct str doc, sched_network_fn *network, void *arg, struct err *e)
{
    struct view_taskspec v;
    struct sched_spec spec = { .number = s->specs_seen, .hash = sched_print(id) };
    struct wants w = { 0 };
    if (sched_has_spec(s, id)) /* they never change */
        return 0;
    arena_reset(&s->scratch);
    int r = view_taskspec(doc, &v, &s->scratch, e);
    if (r != 0)
        return r;
    const struct view_task_template *t = &v.Spec;
    spec.cpu = t->Resources.Reservations.NanoCPUs > 0 ? t->Resources.Reservations.NanoCPUs : 0;
    spec.memory = t->Resources.Reservations.MemoryBytes > 0 ? t->Resources.Reservations.MemoryBytes : 0;
    spec.max_replicas = t->Placement.MaxReplicas;
    spec.image = t->ContainerSpec && t->ContainerSpec->Image.n ? sched_print(t->ContainerSpec->Image) : 0;
    want_needs(s, &w, &v, doc, network, arg);
    want_kinds(s, &w, &t->Resources.Reservations.GenericResources);
    want_constraints(s, &w, &t->Placement.Constraints);
    want_ports(s, &w, &v.EndpointSpec.Ports);
    want_spreads(s, &w, &t->Placement.Preferences);
    w.platforms = t->Placement.Platforms.v;
    w.nplatforms = (unsigned)t->Placement.Platforms.n;
    spec.class = class_of(s, &w, &spec);
    s->specs_seen++;
    *(struct sched_spec *)table_put(&s->specs, id, NULL) = spec;
    return 0;
}
