/* swarm_checks.c - what must hold after every transaction, and in the end. */
#include "tests/sim/swarm_world.h"

static int64_t amount_on(struct store_snap *snap, struct str node)
{
    struct store_iter it;
    struct str spec, doc, state;
    int64_t sum = 0, mem;
    for (store_each_index(snap, IX_TASK_NODE, node, &it); store_next(&it);) {
        mem = 0;
        enum task_state s = mp_get_str(it.doc, "Status.State", &state) ? task_state_parse(state) : TASK_NEW;
        if (s < TASK_ASSIGNED || s > TASK_RUNNING || !mp_get_str(it.doc, "TaskSpecID", &spec))
            continue;
        CHECK(store_get(snap, KIND_TASKSPEC, spec, &doc) == 0); /* never purged while a task may run */
        (void)mp_get_i64(doc, "Spec.Resources.Reservations.MemoryBytes", &mem);
        sum += mem;
    }
    return sum;
}

/* hold - an address is used by one service or task, which has it reserved. */
static void hold(struct store_snap *snap, struct table *held, struct str net, struct str cidr, struct str owner)
{
    struct str doc, by;
    char id[STORE_ID_MAX + 1];
    bool fresh;
    const char *slash = memchr(cidr.p, '/', cidr.n);
    CHECK(slash != NULL);
    int n = snprintf(id, sizeof id, "addr/" STR_FMT "/%.*s", STR_ARG(net), (int)(slash - cidr.p), cidr.p);
    table_put(held, (struct str){ id, (size_t)n }, &fresh);
    CHECK(fresh); /* nothing is given out twice */
    CHECK(store_get(snap, KIND_RESERVATION, (struct str){ id, (size_t)n }, &doc) == 0);
    CHECK(mp_get_str(doc, "OwnerID", &by) && str_eq(by, owner));
}

static size_t hold_task(struct store_snap *snap, struct table *held, const struct view_task *t)
{
    const struct view_task_network *net = t->NetworksAttachments.v;
    size_t n = 0;
    for (size_t i = 0; i < t->NetworksAttachments.n; i++)
        for (size_t k = 0; k < net[i].Addresses.n; k++, n++)
            hold(snap, held, net[i].NetworkID, net[i].Addresses.v[k], t->ID);
    return n;
}

static size_t hold_service(struct store_snap *snap, struct table *held, const struct view_service *s)
{
    const struct view_vip *v = s->Endpoint.VirtualIPs.v;
    for (size_t i = 0; i < s->Endpoint.VirtualIPs.n; i++)
        hold(snap, held, v[i].NetworkID, v[i].Addr, s->ID);
    return s->Endpoint.VirtualIPs.n;
}

/* check_addresses - of all tasks that may run and all services; returns how many there are. A task that has just ended
 * keeps its addresses until allocatord gets to it. */
static size_t check_addresses(struct store_snap *snap)
{
    struct table held;
    struct arena a;
    struct store_iter it;
    struct err e;
    size_t n = 0;
    table_init(&held, 0);
    arena_init(&a, 16u << 20);
    for (store_each(snap, KIND_TASK, &it); store_next(&it); arena_reset(&a)) {
        struct view_task t;
        CHECK(view_task(it.doc, &t, &a, &e) == 0);
        enum task_state state = task_state_parse(t.Status.State);
        bool never = t.NodeID.n == 0 && task_state_parse(t.DesiredState) > TASK_COMPLETE;
        if (state > TASK_NEW && state <= TASK_RUNNING && !never)
            n += hold_task(snap, &held, &t);
    }
    for (store_each(snap, KIND_SERVICE, &it); store_next(&it); arena_reset(&a)) {
        struct view_service s;
        CHECK(view_service(it.doc, &s, &a, &e) == 0);
        n += hold_service(snap, &held, &s);
    }
    arena_done(&a);
    table_done(&held);
    return n;
}

/* check_networks - no two have the same VXLAN id, or subnets that overlap. */
static void check_networks(struct store_snap *snap)
{
    struct cidr all[4 * (NETWORKS_MAX + 1)];
    uint64_t vni[4 * (NETWORKS_MAX + 1)];
    struct arena a;
    struct store_iter it;
    struct err e;
    size_t n = 0;
    arena_init(&a, 1u << 20);
    for (store_each(snap, KIND_NETWORK, &it); store_next(&it);) {
        struct view_network v;
        CHECK(view_network(it.doc, &v, &a, &e) == 0);
        const struct view_ipam_config *c = v.IPAM.Config.v;
        for (size_t i = 0; v.State.VNI && i < v.IPAM.Config.n; i++) {
            CHECK(n < sizeof all / sizeof *all && cidr_parse(c[i].Subnet, &all[n]));
            vni[n] = v.State.VNI;
            for (size_t k = 0; k < n; k++)
                CHECK(!cidr_overlap(all[k], all[n]) && (vni[k] != vni[n] || k + i >= n));
            n++;
        }
    }
    arena_done(&a);
}

static bool node_is_down(struct store_snap *snap, struct str node)
{
    struct str doc, state;
    return store_get(snap, KIND_NODE, node, &doc) != 0 ||
           (mp_get_str(doc, "Status.State", &state) && str_is(state, "down"));
}

static struct declared *declared_by(struct str service)
{
    for (unsigned i = 0; i < SERVICES_MAX; i++)
        if (sim.services[i].id[0] && str_is(service, sim.services[i].id))
            return &sim.services[i];
    return NULL;
}

/* check_numbers - of one service: no node has more tasks than it may, no job more than it may at a time. */
static void check_numbers(struct store_snap *snap, const struct declared *d)
{
    struct store_iter it;
    struct arena a;
    struct err e;
    unsigned running = 0, on[NODES] = { 0 };
    arena_init(&a, 4u << 20);
    for (store_each_index(snap, IX_TASK_SERVICE, str_from(d->id), &it); store_next(&it); arena_reset(&a)) {
        struct view_task t;
        CHECK(view_task(it.doc, &t, &a, &e) == 0);
        enum task_state state = task_state_parse(t.Status.State), desired = task_state_parse(t.DesiredState);
        bool live = state <= TASK_RUNNING && desired <= TASK_COMPLETE;
        running += live && t.JobIteration.Index == d->run;
        for (unsigned i = 0; i < NODES; i++)
            on[i] += live && state >= TASK_ASSIGNED && str_is(t.NodeID, sim.agents[i].node);
    }
    arena_done(&a);
    CHECK(d->mode != JOB || running <= d->concurrent);
    for (unsigned i = 0; i < NODES; i++)
        CHECK(d->per_node == 0 || on[i] <= d->per_node);
}

/* check_step - what must hold after every transaction. */
void check_step(void)
{
    struct store_snap *snap;
    struct err e;
    CHECK(store_begin(leader()->store, &snap, &e) == 0);
    for (unsigned i = 0; i < NODES; i++) {
        CHECK(amount_on(snap, str_from(sim.agents[i].node)) <= NODE_MEMORY);
        if (node_is_down(snap, str_from(sim.agents[i].node)))
            sim.trouble = sim.now;
    }
    (void)check_addresses(snap);
    check_networks(snap);
    for (unsigned i = 0; i < SERVICES_MAX; i++)
        if (sim.services[i].id[0])
            check_numbers(snap, &sim.services[i]);
    store_end(snap);
}

/* ---- what orchestratord may order ---- */

static bool same_place(const struct declared *d, const struct view_task *a, const struct view_task *b)
{
    bool global = d->mode == GLOBAL || d->mode == GLOBAL_JOB;
    return global ? str_eq(a->NodeID, b->NodeID) : a->Slot == b->Slot;
}

static bool runs(const struct view_task *t)
{
    return str_is(t->Status.State, "running") && str_is(t->DesiredState, "running");
}

/* check_may_start - what had the place before has stopped, or cannot be waited for. */
static void check_may_start(struct store_snap *snap, const struct declared *d, const struct view_task *t,
                            const struct view_task *all, size_t n)
{
    int64_t since = t->CreatedAt > t->StartNotBefore ? t->CreatedAt : t->StartNotBefore;
    if (d->order || sim.now >= since + 60 * SECOND)
        return;
    for (size_t i = 0; i < n; i++) {
        const struct view_task *o = &all[i];
        enum task_state state = task_state_parse(o->Status.State), desired = task_state_parse(o->DesiredState);
        if (str_eq(o->ID, t->ID) || !same_place(d, o, t) || state > TASK_RUNNING || desired == TASK_REMOVE ||
            (state < TASK_ASSIGNED && desired > TASK_COMPLETE) || (o->NodeID.n && node_is_down(snap, o->NodeID)))
            continue;
        CHECK(!"one task at a time in a slot");
    }
}

/* check_may_stop - an update takes no more away than it may; when nothing else takes anything away. */
static void check_may_stop(const struct declared *d, const struct view_task *t, struct str current,
                           const struct view_task *all, size_t n)
{
    unsigned down = 0;
    if (!sim.calm || sim.now < sim.trouble + 20 * SECOND || d->had_bad || d->moves || is_job(d) ||
        str_eq(t->TaskSpecID, current) || !str_is(t->Status.State, "running"))
        return;
    bool replaced = false;
    for (size_t i = 0; i < n; i++)
        replaced |= same_place(d, &all[i], t) && runs(&all[i]) && str_eq(all[i].TaskSpecID, current);
    if (d->order) {
        CHECK(replaced);
        return;
    }
    for (size_t i = 0; i < n; i++) { /* slots that had a task, and have none that runs */
        bool first = true, had = false, has = false;
        for (size_t k = 0; k < n; k++) {
            if (!same_place(d, &all[k], &all[i]))
                continue;
            first &= k >= i;
            has |= runs(&all[k]);
            had |= str_is(all[k].DesiredState, "shutdown") &&
                   (str_is(all[k].Status.State, "running") || str_is(all[k].Status.State, "shutdown"));
        }
        down += first && had && !has;
    }
    CHECK(d->parallelism == 0 || down <= d->parallelism);
}

/* check_orders - what orchestratord has just written. */
void check_orders(struct list changes)
{
    const struct txn_change *ch = changes.v;
    struct store_snap *snap;
    struct store_iter it;
    struct arena a;
    struct err e;
    CHECK(store_begin(leader()->store, &snap, &e) == 0);
    arena_init(&a, 64u << 20);
    for (size_t i = 0; i < changes.n; i++, arena_reset(&a)) {
        struct view_task *all = arena_array(&a, 4096, sizeof *all), *t = NULL;
        struct str doc, service, current, desired;
        struct declared *d;
        size_t n = 0;
        if (!str_is(ch[i].Kind, "task") || !mp_get_str(ch[i].Doc, "DesiredState", &desired) ||
            store_get(snap, KIND_TASK, ch[i].ID, &doc) != 0 || !mp_get_str(doc, "ServiceID", &service) ||
            !(d = declared_by(service)) || store_get(snap, KIND_SERVICE, service, &doc) != 0 ||
            !mp_get_str(doc, "TaskSpecID", &current))
            continue;
        for (store_each_index(snap, IX_TASK_SERVICE, service, &it); store_next(&it); n++) {
            CHECK(n < 4096 && view_task(it.doc, &all[n], &a, &e) == 0);
            if (str_eq(all[n].ID, ch[i].ID))
                t = &all[n];
        }
        if (t && (str_is(desired, "running") || str_is(desired, "complete")))
            check_may_start(snap, d, t, all, n);
        else if (t && str_is(desired, "shutdown"))
            check_may_stop(d, t, current, all, n);
    }
    arena_done(&a);
    store_end(snap);
}

/* ---- in the end ---- */

/* attached_right - a running task is on the networks that its service wants, with an address of each family. */
static bool attached_right(struct str doc, const struct declared *d)
{
    struct view_task t;
    struct arena a;
    struct err e;
    arena_init(&a, 1u << 20);
    CHECK(view_task(doc, &t, &a, &e) == 0);
    const struct view_task_network *n = t.NetworksAttachments.v;
    unsigned on = 0, addresses = d->port != 0, have = 0;
    for (size_t i = 0; i < t.NetworksAttachments.n; i++) {
        have += (unsigned)n[i].Addresses.n;
        for (unsigned k = 0; k < NETWORKS_MAX; k++)
            on |= str_is(n[i].NetworkID, sim.networks[k].id) ? 1u << k : 0;
    }
    for (unsigned k = 0; k < NETWORKS_MAX; k++)
        addresses += d->v.on & 1u << k ? 1u + sim.networks[k].six : 0;
    arena_done(&a);
    return on == d->v.on && addresses == have;
}

/* What a service's tasks are, counted. */
struct census {
    uint64_t slots; /* bits: where a task runs, or has done its job */
    unsigned running, complete;
};

static unsigned place_of(const struct view_task *t, const struct declared *d)
{
    if (d->mode == REPLICATED || d->mode == JOB)
        return t->Slot < 64 ? (unsigned)t->Slot : 63;
    for (unsigned i = 0; i < NODES; i++)
        if (str_is(t->NodeID, sim.agents[i].node))
            return i;
    return 63;
}

static const char *count_task(const struct view_task *t, const struct declared *d, struct census *c)
{
    uint64_t bit = 1ull << place_of(t, d);
    bool wanted = str_is(t->DesiredState, "running"), complete = str_is(t->Status.State, "complete");
    if (str_is(t->DesiredState, "ready") || str_is(t->DesiredState, "remove"))
        return "a task is on its way";
    if (is_job(d)) {
        if (t->JobIteration.Index != d->run)
            return task_state_parse(t->Status.State) <= TASK_RUNNING ? "a task of a former run is left" : NULL;
        if (!complete)
            return task_state_parse(t->Status.State) <= TASK_RUNNING ? "a job is not done" : NULL;
        c->complete += !(c->slots & bit);
        c->slots |= bit;
        return NULL;
    }
    if (wanted != str_is(t->Status.State, "running"))
        return "a task is not in its desired state";
    if (!wanted)
        return NULL;
    if (!str_is(t->TaskSpecID, d->v.spec))
        return "a task has an old spec";
    if (c->slots & bit)
        return "a slot runs twice";
    c->slots |= bit;
    c->running++;
    return NULL;
}

/* count_tasks - NULL, or what is wrong with one of them. */
static const char *count_tasks(struct store_snap *snap, const struct declared *d, struct census *c)
{
    struct store_iter it;
    struct arena a;
    struct err e;
    const char *what = NULL;
    arena_init(&a, 4u << 20);
    for (store_each_index(snap, IX_TASK_SERVICE, str_from(d->id), &it); store_next(&it); arena_reset(&a)) {
        struct view_task t;
        CHECK(view_task(it.doc, &t, &a, &e) == 0);
        const char *why = count_task(&t, d, c);
        if (!why && str_is(t.DesiredState, "running") && !attached_right(it.doc, d))
            why = "a task is not on its networks";
        if (why)
            what = why;
    }
    arena_done(&a);
    return what;
}

/* eligible - nodes on which a global service has a task. */
static uint64_t eligible(const struct declared *d)
{
    uint64_t nodes = 0;
    for (unsigned i = 0; i < NODES; i++)
        if (!d->zoned || sim.agents[i].zone)
            nodes |= 1ull << i;
    return nodes;
}

static const char *wrong_number(const struct declared *d, const struct census *c)
{
    switch (d->mode) {
    case REPLICATED:
        return c->running != d->replicas ? "the number of running tasks is wrong" : NULL;
    case GLOBAL:
        return c->slots != eligible(d) ? "a global service is not where it should be" : NULL;
    case JOB:
        return c->complete != d->replicas ? "the number of completed tasks is wrong" : NULL;
    case GLOBAL_JOB:
        return c->slots != eligible(d) ? "a global job was not done where it should be" : NULL;
    }
    return NULL;
}

static const char *wrong_service(struct store_snap *snap, struct declared *d)
{
    struct view_service v;
    struct store_iter it;
    struct arena a;
    struct err e;
    struct str doc;
    struct census c = { 0 };
    unsigned specs = 0, ports = 0, vips = 0, want_vips = 0;
    arena_init(&a, 1 << 20);
    if (store_get(snap, KIND_SERVICE, str_from(d->id), &doc) != 0 || view_service(doc, &v, &a, &e) != 0)
        return "service is missing";
    bool updating = str_is(v.UpdateStatus.State, "updating") || str_is(v.UpdateStatus.State, "rollback_started");
    size_t endpoint_ports = v.Endpoint.Ports.n, endpoint_vips = v.Endpoint.VirtualIPs.n;
    arena_done(&a);
    const char *what = count_tasks(snap, d, &c);
    if (!what)
        what = wrong_number(d, &c);
    if (what)
        return what;
    sim.running += c.running;
    for (store_each_index(snap, IX_TASKSPEC_SERVICE, str_from(d->id), &it); store_next(&it);)
        specs++;
    for (store_each_index(snap, IX_RESERVATION_OWNER, str_from(d->id), &it); store_next(&it);) {
        ports += str_starts(it.id, STR("port/"));
        vips += str_starts(it.id, STR("addr/"));
    }
    for (unsigned i = 0; i < NETWORKS_MAX && !d->dnsrr; i++)
        want_vips += d->v.on & 1u << i ? 1u + sim.networks[i].six : 0;
    want_vips += d->port != 0;
    if (updating)
        return "the update does not end";
    if (ports != (d->port != 0) || endpoint_ports != ports)
        return "ports are wrong";
    if (vips != want_vips || endpoint_vips != vips)
        return "virtual addresses are wrong";
    return specs > 12 ? "taskspecs pile up" : NULL;
}

/* unfinished - a bad update that has not come to its declared end; NULL: all have. */
const char *unfinished(void)
{
    static const char *const ends[] = { "paused", "completed", "rollback_completed" };
    struct store_snap *snap;
    struct err e;
    const char *what = NULL;
    CHECK(store_begin(leader()->store, &snap, &e) == 0);
    for (unsigned i = 0; i < SERVICES_MAX && !what; i++) {
        struct declared *d = &sim.services[i];
        struct str doc = STR(""), state = STR("none"), spec = STR("");
        if (!d->id[0] || !d->v.bad)
            continue;
        if (store_get(snap, KIND_SERVICE, str_from(d->id), &doc) != 0 || !mp_get_str(doc, "TaskSpecID", &spec))
            what = "service is missing";
        else if (!mp_get_str(doc, "UpdateStatus.State", &state) || !str_is(state, ends[d->action]))
            what = "a bad update has not ended as declared";
        else if (str_is(spec, d->v.spec) == (d->action == ROLLBACK))
            what = "a bad update ended with the wrong spec";
        if (what)
            snprintf(sim.why, sizeof sim.why,
                     "service %s: mode %d, action %d, order %u, replicas %u, parallelism %u: " STR_FMT, d->id, d->mode,
                     d->action, d->order, d->replicas, d->parallelism, STR_ARG(state));
    }
    store_end(snap);
    return what;
}

static bool owned(struct store_snap *snap, struct str reservation)
{
    struct str id, owner, kind = STR("service"), doc;
    if (mp_get_str(reservation, "ID", &id) && str_starts(id, STR(STORE_TURN_PREFIX)))
        return true;
    (void)mp_get_str(reservation, "OwnerKind", &kind);
    return mp_get_str(reservation, "OwnerID", &owner) &&
           store_get(snap, kind_by_name(kind.p, kind.n), owner, &doc) == 0;
}

/* wrong_kernel - a node's networks are exactly what the store says. */
static const char *wrong_kernel(struct store_snap *snap, unsigned i)
{
    struct mesh_model should;
    const char *what = "a node's networks are not those of the store";
    model_init(&should);
    model_from_store(&should, snap, str_from(sim.agents[i].node));
    const char *why = model_differs(&sim.agents[i].mesh, &should);
    if (!why)
        what = NULL;
    else
        snprintf(sim.why, sizeof sim.why, "node %s: %s", sim.agents[i].node, why);
    model_done(&should);
    return what;
}

const char *wrong(void)
{
    struct store_snap *snap;
    struct store_iter it;
    struct err e;
    struct str service;
    const char *what = NULL;
    sim.running = 0;
    CHECK(store_begin(leader()->store, &snap, &e) == 0);
    for (unsigned i = 0; i < SERVICES_MAX && !what; i++)
        if (sim.services[i].id[0])
            what = wrong_service(snap, &sim.services[i]);
    enum kind kinds[] = { KIND_TASK, KIND_TASKSPEC };
    for (unsigned k = 0; k < 2 && !what; k++)
        for (store_each(snap, kinds[k], &it); store_next(&it);) {
            struct str doc;
            if (!mp_get_str(it.doc, "ServiceID", &service) || store_get(snap, KIND_SERVICE, service, &doc) != 0)
                what = kinds[k] == KIND_TASK ? "a task of a removed service is left"
                                             : "a taskspec of a removed service is left";
        }
    size_t addresses = 0;
    for (store_each(snap, KIND_RESERVATION, &it); store_next(&it);) {
        addresses += str_starts(it.id, STR("addr/"));
        if (!what && !owned(snap, it.doc))
            what = "a reservation of something removed is left";
    }
    if (!what && addresses != check_addresses(snap))
        what = "an address is left";
    for (store_each(snap, KIND_NETWORK, &it); store_next(&it);) {
        uint64_t vni;
        struct str error;
        if (!what && !mp_get_u64(it.doc, "State.VNI", &vni) && !mp_get_str(it.doc, "State.Error", &error))
            what = "a network has neither a VXLAN id nor a reason";
    }
    for (unsigned i = 0; i < NODES && !what; i++)
        what = wrong_kernel(snap, i);
    store_end(snap);
    /* and the nodes agree */
    struct task_life *t;
    size_t live = 0;
    for (unsigned i = 0; i < NODES; i++)
        for (struct table_pos pos = { 0 }; table_next(&sim.agents[i].tasks, &pos, NULL, &t);)
            live += t->state <= TASK_RUNNING;
    if (!what && live != sim.running)
        what = "nodes run something else";
    return what;
}
