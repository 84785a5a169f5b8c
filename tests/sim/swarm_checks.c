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

/* check_step - what must hold after every transaction. */
void check_step(void)
{
    struct store_snap *snap;
    struct err e;
    CHECK(store_begin(leader()->store, &snap, &e) == 0);
    for (unsigned i = 0; i < NODES; i++)
        CHECK(amount_on(snap, str_from(sim.agents[i].node)) <= NODE_MEMORY);
    (void)check_addresses(snap);
    check_networks(snap);
    store_end(snap);
}

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
        addresses += d->on & 1u << k ? 1u + sim.networks[k].six : 0;
    arena_done(&a);
    return on == d->on && addresses == have;
}

static const char *wrong_task(struct str doc, const struct declared *d, uint64_t *slots, unsigned *running)
{
    struct str state, desired, spec;
    uint64_t slot;
    if (!mp_get_str(doc, "Status.State", &state) || !mp_get_str(doc, "DesiredState", &desired) ||
        !mp_get_str(doc, "TaskSpecID", &spec) || !mp_get_u64(doc, "Slot", &slot))
        return "task is damaged";
    if (str_is(desired, "running") != str_is(state, "running"))
        return "a task is not in its desired state";
    if (str_is(desired, "ready") || str_is(desired, "remove"))
        return "a task is on its way";
    if (!str_is(desired, "running"))
        return NULL;
    if (!str_is(spec, d->spec))
        return "a task has an old spec";
    if (!attached_right(doc, d))
        return "a task is not on its networks";
    if (slot < 64 && *slots & 1ull << slot)
        return "a slot runs twice";
    *slots |= slot < 64 ? 1ull << slot : 0;
    ++*running;
    return NULL;
}

static const char *wrong_service(struct store_snap *snap, const struct declared *d)
{
    struct view_service v;
    struct store_iter it;
    struct arena a;
    struct err e;
    struct str doc;
    unsigned running = 0, specs = 0, ports = 0, vips = 0, want_vips = 0;
    uint64_t slots = 0;
    arena_init(&a, 1 << 20);
    if (store_get(snap, KIND_SERVICE, str_from(d->id), &doc) != 0 || view_service(doc, &v, &a, &e) != 0)
        return "service is missing";
    bool updating = str_is(v.UpdateStatus.State, "updating");
    size_t endpoint_ports = v.Endpoint.Ports.n, endpoint_vips = v.Endpoint.VirtualIPs.n;
    arena_done(&a);
    for (store_each_index(snap, IX_TASK_SERVICE, str_from(d->id), &it); store_next(&it);) {
        const char *what = wrong_task(it.doc, d, &slots, &running);
        if (what) {
            store_iter_done(&it);
            return what;
        }
    }
    for (store_each_index(snap, IX_TASKSPEC_SERVICE, str_from(d->id), &it); store_next(&it);)
        specs++;
    for (store_each_index(snap, IX_RESERVATION_OWNER, str_from(d->id), &it); store_next(&it);) {
        ports += str_starts(it.id, STR("port/"));
        vips += str_starts(it.id, STR("addr/"));
    }
    for (unsigned i = 0; i < NETWORKS_MAX && !d->dnsrr; i++)
        want_vips += d->on & 1u << i ? 1u + sim.networks[i].six : 0;
    want_vips += d->port != 0;
    if (running != d->replicas)
        return "the number of running tasks is wrong";
    if (updating)
        return "the update does not end";
    if (ports != (d->port != 0) || endpoint_ports != ports)
        return "ports are wrong";
    if (vips != want_vips || endpoint_vips != vips)
        return "virtual addresses are wrong";
    return specs > 12 ? "taskspecs pile up" : NULL;
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
    size_t live = 0, declared = 0;
    for (unsigned i = 0; i < NODES; i++)
        for (struct table_pos pos = { 0 }; table_next(&sim.agents[i].tasks, &pos, NULL, &t);)
            live += t->state <= TASK_RUNNING;
    for (unsigned i = 0; i < SERVICES_MAX; i++)
        declared += sim.services[i].id[0] ? sim.services[i].replicas : 0;
    if (!what && live != declared)
        what = "nodes run something else";
    return what;
}
