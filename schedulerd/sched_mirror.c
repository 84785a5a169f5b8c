/* sched_mirror.c - what the scheduler knows: nodes, specs, tasks, and what the tasks add up to on each node. */
#include <inttypes.h>
#include <stdio.h>

#include "common/util/check.h"
#include "schedulerd/sched_priv.h"

#define DOC_ARENA_BYTES (64u << 20)

void sched_init(struct sched *s)
{
    *s = (struct sched){ 0 };
    table_init(&s->nodes, sizeof(struct sched_node));
    table_init(&s->tasks, sizeof(struct sched_task));
    table_init(&s->specs, sizeof(struct sched_spec));
}

static void free_node(struct sched_node *n)
{
    arena_done(&n->mem);
    table_done(&n->used_kinds);
    table_done(&n->ports);
    table_done(&n->services);
}

void sched_clear(struct sched *s)
{
    struct sched_node *n;
    struct sched_spec *spec;
    for (struct table_pos p = { 0 }; table_next(&s->nodes, &p, NULL, &n);)
        free_node(n);
    for (struct table_pos p = { 0 }; table_next(&s->specs, &p, NULL, &spec);)
        arena_done(&spec->mem);
    table_clear(&s->nodes);
    table_clear(&s->specs);
    table_clear(&s->tasks);
    s->waiting = 0;
    s->wait_list = NULL;
    s->fresh = s->freed = true;
}

void sched_done(struct sched *s)
{
    sched_clear(s);
    table_done(&s->nodes);
    table_done(&s->specs);
    table_done(&s->tasks);
}

/* ---- nodes ---- */

static struct sched_node *node_of(struct sched *s, struct str id)
{
    bool fresh;
    struct sched_node *n = table_put(&s->nodes, id, &fresh);
    if (fresh) {
        arena_init(&n->mem, DOC_ARENA_BYTES);
        table_init(&n->used_kinds, sizeof(int64_t));
        table_init(&n->ports, sizeof(unsigned));
        table_init(&n->services, sizeof(unsigned));
    }
    return n;
}

/* kinds_of - generic resources added up by kind: a discrete amount, or one for each named thing. */
static struct sched_kind *kinds_of(const struct list *l, struct arena *a, size_t *ret_n)
{
    const struct view_generic *g = l->v;
    struct sched_kind *k = arena_array(a, l->n + 1, sizeof *k);
    size_t n = 0;
    CHECK(k != NULL);
    for (size_t i = 0; i < l->n; i++) {
        struct str name = g[i].DiscreteResourceSpec ? g[i].DiscreteResourceSpec->Kind
                          : g[i].NamedResourceSpec  ? g[i].NamedResourceSpec->Kind
                                                    : STR("");
        size_t at = 0;
        while (at < n && !str_eq(k[at].name, name))
            at++;
        if (at == n)
            k[n++].name = name;
        k[at].amount += g[i].DiscreteResourceSpec ? g[i].DiscreteResourceSpec->Value : g[i].NamedResourceSpec != NULL;
    }
    *ret_n = n;
    return k;
}

static uint64_t mix(uint64_t h, struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (unsigned char)s.p[i]) * 0x100000001b3ull;
    return (h ^ 0xff) * 0x100000001b3ull;
}

static uint64_t traits_of(const struct view_node *v)
{
    const struct strmap *labels[] = { &v->Spec.Labels, &v->Description.Engine.Labels };
    uint64_t h = mix(mix(0xcbf29ce484222325ull, v->Description.Hostname), v->Spec.Role);
    h = mix(mix(mix(h, v->Description.Platform.OS), v->Description.Platform.Architecture), v->Status.Addr);
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; i < labels[k]->n; i++)
            h = mix(mix(h + k, labels[k]->v[i].key), labels[k]->v[i].val);
    return h;
}

int sched_put_node(struct sched *s, struct str doc, struct err *e)
{
    struct str id;
    if (!mp_get_str(doc, "ID", &id) || id.n == 0)
        return err_set(e, ERR_CORRUPT, "node without ID");
    struct sched_node *n = node_of(s, id);
    arena_reset(&n->mem);
    struct str copy = arena_str(&n->mem, doc);
    n->present = false;
    s->freed = true;
    if (copy.p == NULL)
        return err_set(e, ERR_NOMEM, "node document of %zu bytes", doc.n);
    int r = view_node(copy, &n->view, &n->mem, e);
    if (r != 0)
        return r;
    n->present = true;
    n->ready = str_is(n->view.Status.State, "ready") &&
               (n->view.Spec.Availability.n == 0 || str_is(n->view.Spec.Availability, "active"));
    n->kinds = kinds_of(&n->view.Description.Resources.GenericResources, &n->mem, &n->nkinds);
    uint64_t traits = traits_of(&n->view);
    n->enforce |= traits != n->traits;
    s->enforce |= n->enforce;
    n->traits = traits;
    return 0;
}

static void drop_unused_node(struct sched *s, struct sched_node *n)
{
    if (n->present || n->tasks)
        return;
    free_node(n);
    table_del(&s->nodes, table_key(&s->nodes, n));
}

void sched_del_node(struct sched *s, struct str id)
{
    struct sched_node *n = table_get(&s->nodes, id);
    if (!n)
        return;
    n->present = false;
    s->freed = true; /* the explanations change */
    drop_unused_node(s, n);
}

static uint64_t hash_of(struct str id)
{
    uint64_t h = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < id.n; i++)
        h = (h ^ (unsigned char)id.p[i]) * 0x100000001b3ull;
    return h;
}

static unsigned live_failures(const struct sched_node *n, uint64_t spec, int64_t now_ns)
{
    unsigned count = 0;
    for (unsigned i = 0; i < n->nfailures; i++)
        count += n->failures[i].spec == spec && now_ns - n->failures[i].at_ns < SCHED_FAILURE_WINDOW_NS;
    return count;
}

unsigned sched_failures_of(const struct sched_node *n, const struct sched_spec *spec, int64_t now_ns)
{
    unsigned count = live_failures(n, spec->hash, now_ns);
    return count >= SCHED_FAILURES_MANY ? count : 0;
}

static void add_failure(struct sched_node *n, uint64_t spec, int64_t at_ns)
{
    struct sched_failure f = { spec, at_ns };
    if (n->nfailures == SCHED_FAILURES_KEPT) {
        memmove(n->failures, n->failures + 1, sizeof n->failures - sizeof n->failures[0]);
        n->nfailures--;
    }
    n->failures[n->nfailures++] = f;
}

/* ---- specs ---- */

bool sched_has_spec(const struct sched *s, struct str id)
{
    return table_get(&s->specs, id) != NULL;
}

static struct sched_spec *spec_of(struct sched *s, struct str id)
{
    bool fresh;
    struct sched_spec *spec = table_put(&s->specs, id, &fresh);
    if (fresh) {
        arena_init(&spec->mem, DOC_ARENA_BYTES);
        spec->number = s->specs_seen++;
        spec->hash = hash_of(id);
    }
    return spec;
}

static void take_constraints(struct sched_spec *spec, const struct strs *l)
{
    spec->constraints = arena_array(&spec->mem, l->n + 1, sizeof *spec->constraints);
    CHECK(spec->constraints != NULL);
    for (size_t i = 0; i < l->n; i++)
        if (!constraint_parse(l->v[i], &spec->constraints[spec->nconstraints++])) {
            spec->nconstraints = 0; /* as Docker: one that is malformed turns the filter off */
            return;
        }
}

static void take_ports(struct sched_spec *spec, const struct list *l)
{
    const struct view_port *p = l->v;
    spec->ports = arena_array(&spec->mem, l->n + 1, sizeof *spec->ports);
    CHECK(spec->ports != NULL);
    for (size_t i = 0; i < l->n; i++) {
        if (!str_is(p[i].PublishMode, "host") || p[i].PublishedPort == 0)
            continue;
        struct str proto = p[i].Protocol.n ? p[i].Protocol : STR("tcp");
        const char *text = arena_printf(&spec->mem, STR_FMT "/%" PRIu64, STR_ARG(proto), p[i].PublishedPort);
        CHECK(text != NULL);
        spec->ports[spec->nports++] = str_from(text);
    }
}

static void take_spreads(struct sched_spec *spec, const struct list *l)
{
    static const struct view_node nothing;
    const struct view_preference *p = l->v;
    struct str value;
    spec->spreads = arena_array(&spec->mem, l->n + 1, sizeof *spec->spreads);
    CHECK(spec->spreads != NULL);
    for (size_t i = 0; i < l->n; i++)
        if (p[i].Spread && constraint_label(p[i].Spread->SpreadDescriptor, &nothing, &value))
            spec->spreads[spec->nspreads++] = p[i].Spread->SpreadDescriptor;
}

static void need_plugin(struct sched_spec *spec, struct str type, struct str name)
{
    for (size_t i = 0; i < spec->nplugins; i++)
        if (str_eq(spec->plugins[i].type, type) && str_eq(spec->plugins[i].name, name))
            return;
    spec->plugins[spec->nplugins++] = (struct sched_plugin){ type, name };
}

/* take_plugins - the log driver, and the drivers of volumes. */
static void take_plugins(struct sched_spec *spec, const struct view_task_template *t, struct str doc)
{
    struct str mounts, mount, type, driver;
    struct mp_cursor c = mp_cursor(STR("\x90"));
    struct mp_val head = { 0 };
    if (mp_path(doc, "Spec.ContainerSpec.Mounts", &mounts))
        c = mp_cursor(mounts);
    if (mp_next(&c, &head) != 0 || head.type != MP_ARRAY)
        head.n = 0;
    spec->plugins = arena_array(&spec->mem, head.n + 1, sizeof *spec->plugins);
    CHECK(spec->plugins != NULL);
    if (t->LogDriver && t->LogDriver->Name.n && !str_is(t->LogDriver->Name, "none"))
        need_plugin(spec, STR("Log"), t->LogDriver->Name);
    for (size_t i = 0; i < head.n && mp_span(&c, &mount) == 0; i++)
        if (mp_get_str(mount, "Type", &type) && str_is(type, "volume") &&
            mp_get_str(mount, "VolumeOptions.DriverConfig.Name", &driver) && driver.n && !str_is(driver, "local"))
            need_plugin(spec, STR("Volume"), driver);
}

int sched_put_spec(struct sched *s, struct str id, struct str doc, struct err *e)
{
    struct view_taskspec v;
    struct sched_spec *spec = spec_of(s, id);
    struct str copy = arena_str(&spec->mem, doc);
    if (copy.p == NULL)
        return err_set(e, ERR_NOMEM, "taskspec of %zu bytes", doc.n);
    int r = view_taskspec(copy, &v, &spec->mem, e);
    if (r != 0)
        return r;
    const struct view_task_template *t = &v.Spec;
    spec->cpu = t->Resources.Reservations.NanoCPUs;
    spec->memory = t->Resources.Reservations.MemoryBytes;
    spec->kinds = kinds_of(&t->Resources.Reservations.GenericResources, &spec->mem, &spec->nkinds);
    take_constraints(spec, &t->Placement.Constraints);
    take_ports(spec, &v.EndpointSpec.Ports);
    take_spreads(spec, &t->Placement.Preferences);
    spec->platforms = t->Placement.Platforms.v;
    spec->nplatforms = t->Placement.Platforms.n;
    spec->max_replicas = t->Placement.MaxReplicas;
    take_plugins(spec, t, copy);
    return 0;
}

static void unref_spec(struct sched *s, struct sched_spec *spec)
{
    if (--spec->refs > 0)
        return;
    arena_done(&spec->mem);
    table_del(&s->specs, table_key(&s->specs, spec));
}

/* ---- counting ---- */

static void count(struct table *t, struct str key, int by)
{
    unsigned *v = table_put(t, key, NULL);
    CHECK(by > 0 || *v > 0);
    *v += (unsigned)by;
    if (*v == 0)
        table_del(t, key);
}

static void hold(struct sched_node *n, const struct sched_spec *spec, int sign)
{
    n->used_cpu += sign * spec->cpu;
    n->used_mem += sign * spec->memory;
    for (size_t i = 0; i < spec->nkinds; i++) {
        int64_t *used = table_put(&n->used_kinds, spec->kinds[i].name, NULL);
        *used += sign * spec->kinds[i].amount;
    }
    for (size_t i = 0; i < spec->nports; i++)
        count(&n->ports, spec->ports[i], sign);
}

unsigned sched_active_of(const struct sched_node *n, const char *service)
{
    const unsigned *v = table_get(&n->services, str_from(service));
    return v ? *v : 0;
}

static void wait_add(struct sched *s, struct sched_task *t)
{
    t->waiting = true;
    t->prev = NULL;
    t->next = s->wait_list;
    if (t->next)
        t->next->prev = t;
    s->wait_list = t;
    s->waiting++;
}

static void wait_del(struct sched *s, struct sched_task *t)
{
    if (t->prev)
        t->prev->next = t->next;
    else
        s->wait_list = t->next;
    if (t->next)
        t->next->prev = t->prev;
    t->waiting = false;
    s->waiting--;
}

/* uncount - takes the task off its node; what becomes free may let a waiting task in. */
static void uncount(struct sched *s, struct sched_task *t)
{
    if (t->holds)
        hold(t->node, t->spec, -1);
    if (t->active) {
        t->node->active--;
        count(&t->node->services, str_from(t->service), -1);
    }
    if (t->node)
        t->node->tasks--;
    if (t->waiting)
        wait_del(s, t);
    t->holds = t->active = false;
}

void sched_set(struct sched *s, struct sched_task *t, struct sched_node *n, enum task_state state,
               enum task_state desired)
{
    struct sched_node *before = t->node;
    bool held = t->holds, was_active = t->active;
    uncount(s, t);
    t->node = n;
    t->state = state;
    t->desired = desired;
    t->holds = n && state >= TASK_ASSIGNED && state <= TASK_RUNNING;
    t->active = t->holds && desired <= TASK_COMPLETE;
    if (n)
        n->tasks++;
    if (t->holds)
        hold(n, t->spec, 1);
    if (t->active) {
        n->active++;
        count(&n->services, str_from(t->service), 1);
    }
    if (state == TASK_PENDING)
        wait_add(s, t);
    if ((held && !t->holds) || (was_active && !t->active))
        s->freed = true;
    if (before && before != n)
        drop_unused_node(s, before);
}

/* ---- tasks ---- */

static bool interesting(enum task_state state)
{
    return state >= TASK_PENDING && state <= TASK_RUNNING;
}

static void note_failure(struct sched_node *n, const struct view_task *v, int64_t now_ns)
{
    int64_t at = v->Status.AppliedAt ? v->Status.AppliedAt : v->Status.Timestamp;
    if (n && now_ns - at < SCHED_FAILURE_WINDOW_NS)
        add_failure(n, hash_of(v->TaskSpecID), at);
}

static bool has_failed(enum task_state state)
{
    return state == TASK_FAILED || state == TASK_REJECTED;
}

void sched_put_failure(struct sched *s, const struct view_task *v, int64_t now_ns)
{
    if (has_failed(task_state_parse(v->Status.State)))
        note_failure(table_get(&s->nodes, v->NodeID), v, now_ns);
}

void sched_again(struct sched *s, struct str id)
{
    struct sched_task *t = table_get(&s->tasks, id);
    if (t && t->waiting)
        t->fresh = s->fresh = true;
}

void sched_put_task(struct sched *s, const struct view_task *v, int64_t now_ns)
{
    enum task_state state = task_state_parse(v->Status.State);
    bool fresh;
    struct sched_task *t = table_get(&s->tasks, v->ID);
    if (!interesting(state)) {
        if (t && has_failed(state)) /* seen alive before, so this counts once */
            note_failure(t->node, v, now_ns);
        sched_del_task(s, v->ID);
        return;
    }
    t = table_put(&s->tasks, v->ID, &fresh);
    if (fresh) {
        t->spec = spec_of(s, v->TaskSpecID);
        t->spec->refs++;
        t->created_ns = v->CreatedAt;
        t->slot = v->Slot;
        if (!str_copy(t->service, sizeof t->service, v->ServiceID))
            t->service[0] = 0;
    }
    bool was_waiting = t->waiting;
    struct sched_node *n = v->NodeID.n ? node_of(s, v->NodeID) : NULL;
    sched_set(s, t, n, state, task_state_parse(v->DesiredState));
    if (t->waiting && (!was_waiting || t->desired > TASK_COMPLETE))
        t->fresh = s->fresh = true;
}

void sched_del_task(struct sched *s, struct str id)
{
    struct sched_task *t = table_get(&s->tasks, id);
    if (!t)
        return;
    sched_set(s, t, NULL, TASK_NEW, TASK_NEW);
    unref_spec(s, t->spec);
    table_del(&s->tasks, table_key(&s->tasks, t));
}

void sched_enforce_all(struct sched *s)
{
    struct sched_node *n;
    for (struct table_pos p = { 0 }; table_next(&s->nodes, &p, NULL, &n);)
        n->enforce = s->enforce = true;
}

static bool wanted_there(const struct sched_task *t)
{
    return t->active && t->node->present && t->node->enforce && t->node->ready;
}

struct str *sched_enforce(struct sched *s, struct arena *a, size_t *ret_n)
{
    struct sched_task *t;
    struct sched_node *n;
    struct str *v = NULL;
    size_t cap = 0;
    *ret_n = 0;
    if (!s->enforce)
        return NULL;
    for (struct table_pos p = { 0 }; table_next(&s->tasks, &p, NULL, &t);) {
        if (!wanted_there(t) || sched_meets_constraints(t->spec, t->node))
            continue;
        if (*ret_n == cap) {
            struct str *more = arena_array(a, cap = cap ? cap * 2 : 64, sizeof *more);
            CHECK(more != NULL);
            if (*ret_n)
                memcpy(more, v, *ret_n * sizeof *v);
            v = more;
        }
        v[(*ret_n)++] = table_key(&s->tasks, t);
    }
    for (struct table_pos p = { 0 }; table_next(&s->nodes, &p, NULL, &n);)
        n->enforce = n->enforce && !n->ready; /* as Docker, one that is drained or down is looked at later */
    s->enforce = false;
    return v;
}

void sched_check(const struct sched *s)
{
    struct sched_node *n;
    struct sched_task *t;
    size_t waiting = 0;
    for (struct table_pos p = { 0 }; table_next(&s->nodes, &p, NULL, &n);) {
        int64_t cpu = 0, mem = 0;
        unsigned active = 0, tasks = 0;
        for (struct table_pos q = { 0 }; table_next(&s->tasks, &q, NULL, &t);) {
            if (t->node != n)
                continue;
            tasks++;
            active += t->active;
            cpu += t->holds ? t->spec->cpu : 0;
            mem += t->holds ? t->spec->memory : 0;
        }
        CHECK(cpu == n->used_cpu && mem == n->used_mem && active == n->active && tasks == n->tasks);
        CHECK(n->present || n->tasks);
    }
    for (struct table_pos q = { 0 }; table_next(&s->tasks, &q, NULL, &t);)
        waiting += t->waiting;
    CHECK(waiting == s->waiting);
}
