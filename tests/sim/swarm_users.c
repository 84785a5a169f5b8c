/* swarm_users.c - what users declare, and what breaks. */
#include "tests/sim/swarm_world.h"

static void put_networks(struct buf *b, const struct declared *d)
{
    unsigned n = (unsigned)__builtin_popcount(d->v.on);
    mp_cstr(b, "Networks");
    mp_array(b, n);
    for (unsigned i = 0; i < NETWORKS_MAX; i++)
        if (d->v.on & 1u << i) {
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

static void put_mode(struct buf *b, const struct declared *d)
{
    static const char *const name[] = { "Replicated", "Global", "ReplicatedJob", "GlobalJob" };
    mp_cstr(b, "Mode");
    mp_map(b, 1);
    mp_cstr(b, name[d->mode]);
    mp_map(b, d->mode == REPLICATED ? 1 : d->mode == JOB ? 2 : 0);
    if (d->mode == REPLICATED)
        mp_kv_u64(b, "Replicas", d->replicas);
    if (d->mode == JOB) {
        mp_kv_u64(b, "MaxConcurrent", d->concurrent);
        mp_kv_u64(b, "TotalCompletions", d->replicas);
    }
}

static void put_update(struct buf *b, const struct declared *d)
{
    static const char *const action[] = { "pause", "continue", "rollback" };
    static const char *const configs[] = { "UpdateConfig", "RollbackConfig" };
    for (unsigned i = 0; i < 2; i++) {
        mp_cstr(b, configs[i]);
        mp_map(b, 4);
        mp_kv_u64(b, "Parallelism", d->parallelism);
        mp_kv_cstr(b, "Order", d->order ? "start-first" : "stop-first");
        mp_kv_cstr(b, "FailureAction", i ? "pause" : action[d->action]);
        mp_kv_i64(b, "Monitor", 3 * SECOND);
    }
}

static void put_ports(struct buf *b, const struct declared *d)
{
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
}

static void put_template(struct buf *b, const struct declared *d)
{
    mp_cstr(b, "TaskTemplate");
    mp_map(b, 6);
    mp_cstr(b, "ContainerSpec");
    mp_map(b, 1);
    mp_kv_cstr(b, "Image", d->v.bad ? "bad" : "good");
    put_networks(b, d);
    mp_kv_u64(b, "ForceUpdate", d->v.number);
    mp_cstr(b, "RestartPolicy");
    mp_map(b, 1);
    mp_kv_i64(b, "Delay", 500 * MS);
    mp_cstr(b, "Placement");
    mp_map(b, 2);
    mp_cstr(b, "Constraints");
    mp_array(b, d->zoned);
    if (d->zoned)
        mp_cstr(b, "node.labels.zone==a");
    mp_kv_u64(b, "MaxReplicas", d->per_node);
    mp_cstr(b, "Resources");
    mp_map(b, 1);
    mp_cstr(b, "Reservations");
    mp_map(b, 1);
    mp_kv_i64(b, "MemoryBytes", (1 + d->v.number % 3) << 20);
}

static void put_spec(struct buf *b, const struct declared *d)
{
    bool job = d->mode == JOB || d->mode == GLOBAL_JOB;
    mp_cstr(b, "Spec");
    mp_map(b, job ? 5 : 7);
    mp_kv_cstr(b, "Name", d->id);
    mp_cstr(b, "Labels");
    mp_map(b, d->moves);
    if (d->moves)
        mp_kv_cstr(b, "microswarm.rebalance", "1");
    put_mode(b, d);
    if (!job) /* which jobs do not have */
        put_update(b, d);
    put_ports(b, d);
    put_template(b, d);
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
    make_id(d->v.spec);
    mp_map(&spec, 1);
    put_spec(&spec, d);
    mp_map(b, 4);
    mp_kv_cstr(b, "ID", d->v.spec);
    mp_kv_cstr(b, "ServiceID", d->id);
    mp_kv_cstr(b, "CredentialID", "");
    CHECK(mp_path(buf_str(&spec), "Spec.TaskTemplate", &raw));
    mp_kv_raw(b, "Spec", raw);
    user_change("create", KIND_TASKSPEC, str_from(d->v.spec), b);
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

bool is_job(const struct declared *d)
{
    return d->mode == JOB || d->mode == GLOBAL_JOB;
}

/* some_number - of replicas; few where only some nodes are allowed, so that at last all of them fit. */
static unsigned some_number(const struct declared *d)
{
    unsigned n = (unsigned)below(d->zoned ? 4 : 12);
    return d->per_node && n > NODES * d->per_node ? NODES * d->per_node : n;
}

/* put_run - what apid says of a job's run. */
static void put_run(struct buf *b, const struct declared *d)
{
    mp_cstr(b, "JobStatus");
    mp_map(b, 2);
    mp_cstr(b, "JobIteration");
    mp_map(b, 1);
    mp_kv_u64(b, "Index", d->run);
    mp_kv_i64(b, "LastExecution", sim.now);
}

static void choose(struct declared *d)
{
    *d = (struct declared){ .mode = chance(60) ? REPLICATED : (enum mode)below(4),
                            .order = (unsigned)below(2),
                            .parallelism = (unsigned)below(4),
                            .action = (enum action)below(3),
                            .zoned = chance(20),
                            .moves = chance(20),
                            .port = below(3) };
    if (is_job(d)) {
        d->port = 0;
        d->concurrent = 1 + (unsigned)below(4);
    } else {
        if (d->port == 2)
            d->port = free_port();
        d->dnsrr = d->port == 0 && chance(30);
    }
    d->v.on = some_networks();
    d->per_node = d->mode == REPLICATED && d->order == 0 && !d->zoned && chance(20) ? 1 + (unsigned)below(3) : 0;
    d->replicas = some_number(d);
}

void declare(struct declared *d)
{
    struct buf b = BUF_INIT;
    d->id[0] = 0;
    choose(d);
    make_id(d->id);
    put_taskspec(d, &b);
    mp_map(&b, 3 + is_job(d));
    mp_kv_cstr(&b, "ID", d->id);
    mp_kv_cstr(&b, "TaskSpecID", d->v.spec);
    if (is_job(d))
        put_run(&b, d);
    put_spec(&b, d);
    user_change("create", KIND_SERVICE, str_from(d->id), &b);
    buf_done(&b);
}

/* look_back - what apid would find: the service may have been rolled back. */
static void look_back(struct declared *d, struct buf *old, struct str *ret_spec)
{
    struct err e;
    struct str id;
    CHECK(sm_get(leader()->sm, KIND_SERVICE, str_from(d->id), old, &e) == 0);
    CHECK(mp_find(buf_str(old), "Spec", ret_spec) && mp_get_str(buf_str(old), "TaskSpecID", &id));
    if (str_is(id, d->before.spec))
        d->v = d->before;
    CHECK(str_is(id, d->v.spec));
}

void redeclare(struct declared *d, bool new_spec, bool bad)
{
    struct buf b = BUF_INIT, old = BUF_INIT;
    struct str spec;
    look_back(d, &old, &spec);
    if (new_spec) {
        d->before = d->v;
        d->v.number = ++d->versions;
        d->v.bad = bad;
        d->had_bad |= bad;
        if (chance(50))
            d->v.on = some_networks();
        put_taskspec(d, &b);
    } else {
        d->replicas = some_number(d);
    }
    d->run++;
    mp_map(&b, 3 + 2 * new_spec + is_job(d));
    mp_kv_cstr(&b, "TaskSpecID", d->v.spec);
    mp_cstr(&b, "UpdateStatus");
    mp_nil(&b);
    if (new_spec) {
        mp_kv_raw(&b, "PreviousSpec", spec);
        mp_kv_cstr(&b, "PreviousTaskSpecID", d->before.spec);
    }
    if (is_job(d))
        put_run(&b, d);
    put_spec(&b, d);
    user_change("update", KIND_SERVICE, str_from(d->id), &b);
    buf_done(&b);
    buf_done(&old);
}

static void put_node_spec(struct buf *b, const char *availability, bool zone)
{
    mp_cstr(b, "Spec");
    mp_map(b, 3);
    mp_kv_cstr(b, "Role", "worker");
    mp_kv_cstr(b, "Availability", availability);
    mp_cstr(b, "Labels");
    mp_map(b, zone);
    if (zone)
        mp_kv_cstr(b, "zone", "a");
}

void set_availability(unsigned i, const char *availability)
{
    struct buf b = BUF_INIT;
    if (sim.agents[i].gone)
        return;
    mp_map(&b, 1);
    put_node_spec(&b, availability, sim.agents[i].zone);
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
    put_node_spec(&b, "active", a->zone);
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
        if (sim.services[s].id[0] && (sim.services[s].v.on | sim.services[s].before.on) & 1u << i)
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
    else if (chance(10) && !sim.calm)
        set_availability(node, availability[below(3)]);
    else if (chance(5) && !sim.calm)
        sim.agents[node].zone ^= 1, set_availability(node, sim.availability[node]);
    else if (chance(3) && !sim.calm)
        remove_node(node);
    else if (sim.agents[node].gone && chance(20))
        join(node), restart_agent(node);
    else
        redeclare(d, chance(40), chance(20));
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
    } else if (chance(60) || sim.calm) {
        if (sim.agents[n].up)
            restart_agent(n);
    } else if (chance(50)) {
        if (sim.agents[n].up)
            switch_off(n);
    } else if (!sim.agents[n].cut) {
        cut_off(n);
    }
}
