/* swarm_users.c - what users declare, and what breaks. */
#include "tests/sim/swarm_world.h"

static void put_networks(struct buf *b, const struct declared *d)
{
    unsigned n = (unsigned)__builtin_popcount(d->on);
    mp_cstr(b, "Networks");
    mp_array(b, n);
    for (unsigned i = 0; i < NETWORKS_MAX; i++)
        if (d->on & 1u << i) {
            mp_map(b, 1);
            mp_kv_cstr(b, "Target", sim.networks[i].id);
        }
}

/* some_networks - with few addresses only while there are faults: at last all tasks must get one. */
static unsigned some_networks(void)
{
    unsigned on = 0;
    for (unsigned i = 0; i < NETWORKS_MAX; i++)
        if (sim.networks[i].id[0] && (sim.faults || !sim.networks[i].small) && chance(40))
            on |= 1u << i;
    return on;
}

static void put_spec(struct buf *b, const struct declared *d)
{
    mp_cstr(b, "Spec");
    mp_map(b, 5);
    mp_kv_cstr(b, "Name", d->id);
    mp_cstr(b, "Mode");
    mp_map(b, 1);
    mp_cstr(b, "Replicated");
    mp_map(b, 1);
    mp_kv_u64(b, "Replicas", d->replicas);
    mp_cstr(b, "UpdateConfig");
    mp_map(b, 2);
    mp_kv_u64(b, "Parallelism", d->parallelism);
    mp_kv_cstr(b, "Order", d->order ? "start-first" : "stop-first");
    mp_cstr(b, "EndpointSpec");
    mp_map(b, 2);
    mp_kv_cstr(b, "Mode", d->dnsrr ? "dnsrr" : "vip");
    mp_cstr(b, "Ports");
    mp_array(b, d->port != 0);
    if (d->port) {
        mp_map(b, 1 + (d->port > 1));
        mp_kv_u64(b, "TargetPort", 80);
        if (d->port > 1)
            mp_kv_u64(b, "PublishedPort", d->port);
    }
    mp_cstr(b, "TaskTemplate");
    mp_map(b, 4);
    put_networks(b, d);
    mp_kv_u64(b, "ForceUpdate", d->version);
    mp_cstr(b, "RestartPolicy");
    mp_map(b, 1);
    mp_kv_i64(b, "Delay", 500 * MS);
    mp_cstr(b, "Resources");
    mp_map(b, 1);
    mp_cstr(b, "Reservations");
    mp_map(b, 1);
    mp_kv_i64(b, "MemoryBytes", (1 + d->version % 3) << 20);
}

void user_change(const char *op, enum kind kind, struct str id, struct buf *doc)
{
    struct txn_change ch = { .Op = str_from(op), .Kind = str_from(kind_info[kind].name), .ID = id };
    struct err result;
    if (doc)
        ch.Doc = buf_str(doc);
    apply(1u << WHO_APID, (struct list){ 0 }, (struct list){ &ch, 1 }, 0, &result);
    CHECK(result.code == 0);
    if (doc)
        buf_clear(doc);
}

static void put_taskspec(struct declared *d, struct buf *b)
{
    struct buf spec = BUF_INIT;
    struct str raw;
    make_id(d->spec);
    mp_map(&spec, 1);
    put_spec(&spec, d);
    mp_map(b, 4);
    mp_kv_cstr(b, "ID", d->spec);
    mp_kv_cstr(b, "ServiceID", d->id);
    mp_kv_cstr(b, "CredentialID", "");
    CHECK(mp_path(buf_str(&spec), "Spec.TaskTemplate", &raw));
    mp_kv_raw(b, "Spec", raw);
    user_change("create", KIND_TASKSPEC, str_from(d->spec), b);
    buf_done(&spec);
}

/* free_port - of three that all services compete for: apid refuses one that another service has, but it may take one
 * that was given back a moment ago. */
static uint64_t free_port(void)
{
    uint64_t port = 8000 + below(3);
    for (unsigned i = 0; i < SERVICES_MAX; i++)
        if (sim.services[i].id[0] && sim.services[i].port == port)
            return 1;
    return port;
}

void declare(struct declared *d)
{
    struct buf b = BUF_INIT;
    d->id[0] = 0;
    *d = (struct declared){ .replicas = (unsigned)below(12),
                            .order = (unsigned)below(2),
                            .parallelism = (unsigned)below(4),
                            .port = below(3),
                            .on = some_networks() };
    if (d->port == 2)
        d->port = free_port();
    d->dnsrr = d->port == 0 && chance(30);
    make_id(d->id);
    put_taskspec(d, &b);
    mp_map(&b, 3);
    mp_kv_cstr(&b, "ID", d->id);
    mp_kv_cstr(&b, "TaskSpecID", d->spec);
    put_spec(&b, d);
    user_change("create", KIND_SERVICE, str_from(d->id), &b);
    buf_done(&b);
}

static void redeclare(struct declared *d, bool new_spec)
{
    struct buf b = BUF_INIT;
    if (new_spec) {
        d->version++;
        if (chance(50))
            d->on = some_networks();
        put_taskspec(d, &b);
    } else {
        d->replicas = (unsigned)below(12);
    }
    mp_map(&b, 3);
    mp_kv_cstr(&b, "TaskSpecID", d->spec);
    mp_cstr(&b, "UpdateStatus");
    mp_nil(&b);
    put_spec(&b, d);
    user_change("update", KIND_SERVICE, str_from(d->id), &b);
    buf_done(&b);
}

static void put_node_spec(struct buf *b, const char *availability)
{
    mp_cstr(b, "Spec");
    mp_map(b, 2);
    mp_kv_cstr(b, "Role", "worker");
    mp_kv_cstr(b, "Availability", availability);
}

void set_availability(unsigned i, const char *availability)
{
    struct buf b = BUF_INIT;
    if (sim.agents[i].gone)
        return;
    mp_map(&b, 1);
    put_node_spec(&b, availability);
    user_change("update", KIND_NODE, str_from(sim.agents[i].node), &b);
    buf_done(&b);
    sim.availability[i] = availability;
}

/* join - with a certificate of its own, as a new node; what it ran under another name it forgets. */
void join(unsigned i)
{
    struct agent *a = &sim.agents[i];
    struct buf b = BUF_INIT;
    struct err result;
    make_id(a->node);
    mp_map(&b, 3);
    mp_kv_cstr(&b, "ID", a->node);
    put_node_spec(&b, "active");
    mp_cstr(&b, "Status");
    mp_map(&b, 1);
    mp_kv_cstr(&b, "State", "unknown");
    struct txn_change ch = { STR("create"), STR("node"), str_from(a->node), buf_str(&b) };
    apply(1u << WHO_CAD, (struct list){ 0 }, (struct list){ &ch, 1 }, 0, &result);
    CHECK(result.code == 0);
    buf_done(&b);
    a->gone = false;
    sim.availability[i] = "active";
}

/* remove_node - as `node rm --force` does; some time later it joins again. */
static void remove_node(unsigned i)
{
    struct agent *a = &sim.agents[i];
    unsigned left = 0;
    for (unsigned k = 0; k < NODES; k++)
        left += !sim.agents[k].gone;
    if (a->gone || left <= 2)
        return;
    sim.removals++;
    user_change("delete", KIND_NODE, str_from(a->node), NULL);
    a->gone = true;
}

void create_network(char id[ID_SIZE], const char *subnet, bool six, bool ingress)
{
    struct buf b = BUF_INIT;
    make_id(id);
    mp_map(&b, 2);
    mp_kv_cstr(&b, "ID", id);
    mp_cstr(&b, "Spec");
    mp_map(&b, 5);
    mp_kv_cstr(&b, "Name", ingress ? "ingress" : id);
    mp_kv_cstr(&b, "Driver", "overlay");
    mp_kv_bool(&b, "Ingress", ingress);
    mp_kv_bool(&b, "EnableIPv6", six);
    mp_cstr(&b, "IPAM");
    mp_map(&b, 1);
    mp_cstr(&b, "Config");
    mp_array(&b, subnet != NULL);
    if (subnet) {
        mp_map(&b, 1);
        mp_kv_cstr(&b, "Subnet", subnet);
    }
    user_change("create", KIND_NETWORK, str_from(id), &b);
    buf_done(&b);
}

/* change_network - makes one or removes it; as apid does, not while a service wants it. Two subnets are the same for
 * all, so that one has to wait for the other. */
static void change_network(unsigned i)
{
    static const char *const subnets[] = { NULL, NULL, "10.0.3.0/29", "172.30.0.0/29" };
    struct declared_net *n = &sim.networks[i];
    unsigned k = (unsigned)below(4);
    if (!n->id[0]) {
        *n = (struct declared_net){ .small = k > 1, .six = chance(30) };
        create_network(n->id, subnets[k], n->six, false);
        return;
    }
    for (unsigned s = 0; s < SERVICES_MAX; s++)
        if (sim.services[s].id[0] && sim.services[s].on & 1u << i)
            return;
    user_change("delete", KIND_NETWORK, str_from(n->id), NULL);
    n->id[0] = 0;
}

void user_acts(void)
{
    static const char *const availability[] = { "active", "pause", "drain" };
    struct declared *d = &sim.services[below(SERVICES_MAX)];
    unsigned node = (unsigned)below(NODES);
    if (chance(15))
        change_network((unsigned)below(NETWORKS_MAX));
    else if (!d->id[0])
        declare(d);
    else if (chance(15))
        user_change("delete", KIND_SERVICE, str_from(d->id), NULL), d->id[0] = 0, chance(50) ? declare(d) : (void)0;
    else if (chance(10))
        set_availability(node, availability[below(3)]);
    else if (chance(3))
        remove_node(node);
    else if (sim.agents[node].gone && chance(20))
        join(node), restart_agent(node);
    else
        redeclare(d, chance(40));
}

void fault(void)
{
    unsigned i = (unsigned)below((uint64_t)MANAGERS * CONTROLLERS), n = (unsigned)below(NODES);
    if (chance(50))
        i = sim.leader * CONTROLLERS + i % CONTROLLERS; /* where it hurts */
    if (chance(50)) {
        if (life_of(i)->c)
            kill_controller(i);
    } else if (chance(25)) {
        take_over(another_manager());
    } else if (chance(10)) {
        if (sim.managers[i / CONTROLLERS].up)
            switch_manager_off(i / CONTROLLERS);
    } else if (chance(60)) {
        if (sim.agents[n].up)
            restart_agent(n);
    } else if (chance(50)) {
        if (sim.agents[n].up)
            switch_off(n);
    } else if (!sim.agents[n].cut) {
        cut_off(n);
    }
}
