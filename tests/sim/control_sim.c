/*
 * control_sim - the controllers of several managers with agents of several nodes, in one process and in simulated time.
 *
 * Real: the four controllers with their loop on each manager, raftd's state machine and authority table, the store
 * library, dispatcherd's answers. Simulated: time, the log, messages, agents and their containers, users. Faults:
 * controllers killed at any moment with a transaction under way, that arrives long after their successor began;
 * transactions lost or applied without an answer; leader changes, where the old leader notices late and the new one's
 * map was behind; managers switched off; agents restarted or cut off from all managers, nodes switched off for a while,
 * with and without gatewayd's hint; drained, paused and removed nodes; containers that fail. After each transaction
 * invariants are checked; in the end, when faults have stopped, the swarm must become exactly what was declared.
 *
 *   control_sim [SEED [RUNS]]     a failure prints the seed that replays it
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "allocatord/alloc_pass.h"
#include "common/daemon/log.h"
#include "common/object/views.h"
#include "common/util/check.h"
#include "common/util/cidr.h"
#include "dispatcherd/disp_pass.h"
#include "orchestratord/orch_pass.h"
#include "raftd/authority.h"
#include "raftd/entry.h"
#include "raftd/sm.h"
#include "schedulerd/sched_pass.h"
#include "tests/sim/mesh_model.h"

#define MS 1000000ll
#define SECOND 1000000000ll
#define NODES 4
#define SERVICES_MAX 6
#define NODE_MEMORY (64ll << 20)
#define MANAGERS 3
#define LATE_MS 400 /* a transaction may be under way for so long */

enum { ORCH, ALLOC, SCHED, DISP, CONTROLLERS };
static const enum who who_of[CONTROLLERS] = { WHO_ORCHESTRATORD, WHO_ALLOCATORD, WHO_SCHEDULERD, WHO_DISPATCHERD };

enum event_type {
    EV_TURN,
    EV_DUE,
    EV_APPLY,
    EV_REPLY,
    EV_FOLLOW,
    EV_DEPOSED,
    EV_MANAGER,
    EV_LINK,
    EV_CONFIRM,
    EV_HEAL,
    EV_START,
    EV_AGENT,
    EV_MESH,
    EV_TASK,
    EV_BOOT,
    EV_TICK,
    EV_FAULT,
    EV_USER
};
struct event {
    int64_t at;
    uint64_t seq; /* ties in the order of their making */
    enum event_type type;
    unsigned who; /* controller (of all managers), manager or agent */
    uint64_t gen; /* of it: an event of an earlier life is void */
    void *p;
};

struct request { /* a transaction under way */
    unsigned from;
    uint64_t gen, revision;
    struct buf bytes;
    struct err result;
    rpc_done_fn *done;
    void *done_arg;
};

struct controller_life {
    struct controller *c; /* NULL: dead */
    unsigned who;
    uint64_t gen, arm_gen;
};

struct task_life { /* on a node */
    enum task_state state, desired, acked;
    bool removed, dirty;
    bool drains, drained; /* as assigned */
    int64_t stop_at;      /* it stops without the manager's word then */
    uint64_t gen;
};

struct call {
    struct call *next;
    unsigned agent, manager;
    uint64_t agent_gen;
    enum { HELLO, POLL, STATUS, NETWORK } kind;
    bool evil; /* of an agent that was taken over: must come to nothing */
    struct arena arena;
    struct disp_session hello;
    struct disp_assignments poll;
    struct disp_status status;
    struct disp_network network;
    uint64_t mesh_gen;
};

struct agent {
    char node[ID_SIZE], session[ID_SIZE];
    bool up;
    bool cut;         /* no manager can be reached */
    bool gone;        /* the swarm has removed this node */
    unsigned manager; /* who leads, as it believes */
    uint64_t gen, seq, heartbeat_ms;
    bool hello_out, poll_out, status_out;
    struct table tasks; /* ID -> struct task_life */
    /* its meshd */
    struct mesh_model mesh; /* what is in the kernel */
    struct buf answer;      /* on its way there */
    uint64_t mesh_gen;
    bool mesh_out;
};

struct logged { /* a committed entry */
    struct buf bytes;
    uint64_t term;
};

struct manager {
    struct sm *sm;
    struct store *store;
    char dir[64];
    bool up;
    uint64_t gen; /* of its being up */
    struct controller_life life[CONTROLLERS];
    struct orch orch;
    struct alloc alloc;
    struct sched_keeper sched;
    struct disp_keeper disp;
    int64_t tick_at;
};

struct declared { /* what the user wants; id "" none */
    char id[ID_SIZE], spec[ID_SIZE];
    unsigned replicas, version, order, parallelism;
    uint64_t port; /* 0 none, 1 automatic, else the number */
    unsigned on;   /* bits: of sim.networks */
    bool dnsrr;
};

#define NETWORKS_MAX 3
struct declared_net {
    char id[ID_SIZE];
    bool small, six; /* few addresses; IPv6 as well */
};

static struct sim {
    uint64_t seed, rng, seq;
    int64_t now;
    struct event *heap;
    size_t n, cap;
    struct logged *log;
    size_t nlog, cap_log;
    uint64_t term;
    unsigned leader;
    struct manager managers[MANAGERS];
    struct call *calls;
    struct agent agents[NODES];
    struct declared services[SERVICES_MAX];
    struct declared_net networks[NETWORKS_MAX];
    char ingress[ID_SIZE];
    bool faults;
    bool patient; /* managers wait for the nodes' word for as long as it takes */
    uint64_t told, drained;
    char why[1600];
    const char *availability[NODES];
    uint64_t txns, conflicts, kills, takeovers, late, cuts, offs, removals, applied_changes;
} sim;

static struct manager *manager_of(unsigned who)
{
    return &sim.managers[who / CONTROLLERS];
}

static struct controller_life *life_of(unsigned who)
{
    return &manager_of(who)->life[who % CONTROLLERS];
}

static unsigned who_is(const struct manager *m, unsigned controller)
{
    return (unsigned)(m - sim.managers) * CONTROLLERS + controller;
}

static struct manager *leader(void)
{
    return &sim.managers[sim.leader];
}

/* ---- chance and time ---- */

static uint64_t draw(void)
{
    uint64_t z = (sim.rng += 0x9e3779b97f4a7c15ull);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static uint64_t below(uint64_t n)
{
    return draw() % n;
}

static bool chance(unsigned percent)
{
    return below(100) < percent;
}

static void make_id(char id[ID_SIZE])
{
    uint8_t bytes[17];
    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)draw();
    id_from_bytes(bytes, id);
}

static void make_id_for(void *arg, char id[ID_SIZE])
{
    (void)arg;
    make_id(id);
}

static bool sooner(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void swap(size_t i, size_t j)
{
    struct event e = sim.heap[i];
    sim.heap[i] = sim.heap[j];
    sim.heap[j] = e;
}

static void schedule(int64_t at, enum event_type type, unsigned who, uint64_t gen, void *p)
{
    if (sim.n == sim.cap) {
        sim.cap = sim.cap ? sim.cap * 2 : 256;
        sim.heap = reallocarray(sim.heap, sim.cap, sizeof *sim.heap);
        CHECK(sim.heap != NULL);
    }
    size_t i = sim.n++;
    sim.heap[i] = (struct event){ at > sim.now ? at : sim.now, sim.seq++, type, who, gen, p };
    for (; i > 0 && sooner(&sim.heap[i], &sim.heap[(i - 1) / 2]); i = (i - 1) / 2)
        swap(i, (i - 1) / 2);
}

static struct event next_event(void)
{
    CHECK(sim.n > 0);
    struct event e = sim.heap[0];
    sim.heap[0] = sim.heap[--sim.n];
    for (size_t i = 0, best;; i = best) {
        best = i;
        for (size_t c = 2 * i + 1; c <= 2 * i + 2 && c < sim.n; c++)
            if (sooner(&sim.heap[c], &sim.heap[best]))
                best = c;
        if (best == i)
            return e;
        swap(i, best);
    }
}

/* ---- the store ---- */

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
static void check_step(void)
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

/* goes_back - desired states only go up. */
static bool goes_back(const struct txn_change *ch)
{
    struct buf doc = BUF_INIT;
    struct str was, will;
    struct err e;
    bool back = false;
    if (str_is(ch->Kind, "task") && (str_is(ch->Op, "merge") || str_is(ch->Op, "update")) &&
        mp_get_str(ch->Doc, "DesiredState", &will) && sm_get(leader()->sm, KIND_TASK, ch->ID, &doc, &e) == 0 &&
        mp_get_str(buf_str(&doc), "DesiredState", &was))
        back = task_state_parse(will) < task_state_parse(was);
    buf_done(&doc);
    return back;
}

/* follow - a manager applies what is committed. Returns the revision and result of the last entry. */
static uint64_t follow(struct manager *m, struct err *result)
{
    uint64_t revision = 0, done = sm_applied(m->sm);
    struct err e = ERR_INIT;
    if (done == sim.nlog)
        return 0;
    CHECK(sm_begin(m->sm, &e) == 0);
    for (uint64_t i = done; i < sim.nlog; i++) {
        struct raft_log_entry le = {
            .index = i + 1, .term = sim.log[i].term, .type = RAFT_ENTRY_DATA, .data = buf_str(&sim.log[i].bytes)
        };
        *result = (struct err)ERR_INIT;
        CHECK(sm_apply(m->sm, &le, result, &revision, &e) == 0);
    }
    CHECK(sm_commit(m->sm, &e) == 0);
    for (unsigned i = 0; i < CONTROLLERS; i++)
        if (m->life[i].c)
            schedule(sim.now + (int64_t)below(300000), EV_TURN, who_is(m, i), m->life[i].gen, NULL);
    return revision;
}

/* apply - as raftd does with an entry once it is committed: the leader at once, the others a little later. */
static uint64_t apply(unsigned who, struct list requires, struct list changes, uint64_t term, struct err *result)
{
    struct entry en = { .At = sim.now, .By = STR("sim"), .Term = term, .Requires = requires, .Changes = changes };
    struct err e = ERR_INIT;
    bool back = false;
    *result = (struct err)ERR_INIT;
    if (entry_check(&en, &e) != 0) {
        printf("refused: %s\n", e.msg);
        CHECK(!"a sound transaction");
    }
    const struct txn_change *ch = changes.v;
    for (size_t i = 0; i < changes.n; i++) {
        if (authority_check(who, &ch[i], &e) != 0) {
            printf("refused: %s\n", e.msg);
            CHECK(!"an authorized transaction");
        }
        back |= goes_back(&ch[i]);
    }
    if (sim.nlog == sim.cap_log) {
        sim.cap_log = sim.cap_log ? sim.cap_log * 2 : 1024;
        sim.log = reallocarray(sim.log, sim.cap_log, sizeof *sim.log);
        CHECK(sim.log != NULL);
    }
    sim.log[sim.nlog] = (struct logged){ .term = sim.term };
    entry_encode(&en, &sim.log[sim.nlog++].bytes);
    uint64_t revision = follow(leader(), result);
    CHECK(!back || result->code != 0);
    for (unsigned i = 0; i < MANAGERS; i++)
        if (i != sim.leader && sim.managers[i].up)
            schedule(sim.now + (int64_t)below(30 * MS), EV_FOLLOW, i, sim.managers[i].gen, NULL);
    sim.txns++;
    sim.conflicts += result->code != 0;
    sim.applied_changes += changes.n;
    if (result->code != 0 && result->code != ERR_CONFLICT && result->code != ERR_NOT_FOUND) {
        printf("failed: %s\n", result->msg);
        CHECK(!"only lost races");
    }
    check_step();
    return revision;
}

/* ---- controllers ---- */

static struct wall_ns io_now(void *arg)
{
    (void)arg;
    return (struct wall_ns){ sim.now };
}

static void io_send(void *arg, struct txn *txn, rpc_done_fn *done, void *done_arg)
{
    struct controller_life *l = arg;
    struct raftd_txn req = { .Term = txn->term,
                             .Requires = { txn->req, txn->nreq },
                             .Changes = { txn->chg, txn->nchg } };
    struct request *r = calloc(1, sizeof *r);
    CHECK(r != NULL && !txn->failed);
    fields_encode(&req, op_raftd_txn.req, &r->bytes);
    CHECK(!r->bytes.failed);
    *r = (struct request){ .from = l->who, .gen = l->gen, .bytes = r->bytes, .done = done, .done_arg = done_arg };
    int64_t way = sim.faults && chance(15) ? LATE_MS * MS : 2 * MS;
    schedule(sim.now + 200000 + (int64_t)below((uint64_t)way), EV_APPLY, l->who, 0, r);
}

static void io_arm(void *arg, int64_t at_ns)
{
    struct controller_life *l = arg;
    l->arm_gen++;
    if (at_ns != CONTROLLER_NEVER)
        schedule(at_ns > sim.now + 50000 ? at_ns : sim.now + 50000, EV_DUE, l->who, l->arm_gen, NULL);
}

static void io_kick(void *arg)
{
    struct controller_life *l = arg;
    schedule(sim.now, EV_TURN, l->who, l->gen, NULL);
}

static const struct disp_calls disp_calls;

static void start_controller(unsigned who)
{
    static const struct controller_ops *const ops[CONTROLLERS] = { &orch_ops, &alloc_ops, &sched_ops, &disp_ops };
    struct manager *m = manager_of(who);
    unsigned i = who % CONTROLLERS;
    void *arg[CONTROLLERS] = { &m->orch, &m->alloc, &m->sched, &m->disp };
    struct controller_io io = { &m->life[i], io_now, io_send, io_arm, io_kick };
    m->life[i].gen++;
    m->life[i].who = who;
    if (i == ORCH) {
        orch_init(&m->orch);
        m->orch.new_id = make_id_for;
    } else if (i == ALLOC) {
        alloc_init(&m->alloc);
    } else if (i == SCHED) {
        sched_keeper_init(&m->sched);
    } else {
        disp_keeper_init(&m->disp, &disp_calls);
        m->disp.orphan_after_ns = 10 * SECOND;
        m->disp.net.drain_wait_ms = sim.patient ? 3600000 : 2000;
        m->disp.flap = (struct disp_flap_conf){ 2, 60 * SECOND, 3 * SECOND, 12 * SECOND };
    }
    m->life[i].c = controller_new(m->store, &io, ops[i], arg[i]);
    if (i == DISP)
        m->disp.controller = m->life[i].c;
    schedule(sim.now, EV_TURN, who, m->life[i].gen, NULL);
}

static void fail_calls(unsigned manager);

static void kill_controller(unsigned who)
{
    struct manager *m = manager_of(who);
    unsigned i = who % CONTROLLERS;
    sim.kills++;
    m->life[i].gen++;
    m->life[i].arm_gen++;
    m->life[i].c = controller_free(m->life[i].c);
    if (i == ORCH)
        orch_done(&m->orch);
    else if (i == ALLOC)
        alloc_done(&m->alloc);
    else if (i == SCHED)
        sched_keeper_done(&m->sched);
    else
        disp_keeper_done(&m->disp);
    if (i == DISP)
        fail_calls(who / CONTROLLERS);
    if (m->up)
        schedule(sim.now + (int64_t)below(200 * MS), EV_START, who, m->life[i].gen, NULL);
}

/* ---- managers ---- */

static void set_role(struct manager *m, uint64_t term, bool leads)
{
    struct err e;
    CHECK(sm_set_role(m->sm, term, leads, leader()->dir + strlen(leader()->dir) - 6, &e) == 0);
    for (unsigned i = 0; i < CONTROLLERS; i++)
        if (m->life[i].c)
            schedule(sim.now + (int64_t)below(300000), EV_TURN, who_is(m, i), m->life[i].gen, NULL);
}

/* take_over - the new leader has all that is committed; the one before may not know for a while that it is none. */
static void take_over(unsigned next)
{
    unsigned before = sim.leader;
    struct err result;
    sim.takeovers++;
    sim.term++;
    sim.leader = next;
    (void)follow(leader(), &result);
    set_role(leader(), sim.term, true);
    if (before != next && sim.managers[before].up)
        schedule(sim.now + (int64_t)below(500 * MS), EV_DEPOSED, before, sim.managers[before].gen, NULL);
}

static unsigned another_manager(void)
{
    unsigned n = 0, pick = 0;
    for (unsigned i = 0; i < MANAGERS; i++)
        if (i != sim.leader && sim.managers[i].up && below(++n) == 0)
            pick = i;
    return n ? pick : sim.leader;
}

static void switch_manager_off(unsigned i)
{
    struct manager *m = &sim.managers[i];
    unsigned up = 0;
    for (unsigned k = 0; k < MANAGERS; k++)
        up += sim.managers[k].up;
    if (up * 2 <= MANAGERS + 1)
        return; /* a majority stays */
    m->up = false;
    m->gen++;
    if (sim.leader == i)
        take_over(another_manager());
    for (unsigned k = 0; k < CONTROLLERS; k++)
        if (m->life[k].c)
            kill_controller(who_is(m, k));
    set_role(m, sim.term, false);
    schedule(sim.now + (int64_t)below(10) * SECOND, EV_MANAGER, i, m->gen, NULL);
}

static void boot_manager(unsigned i)
{
    struct manager *m = &sim.managers[i];
    struct err result;
    m->up = true;
    m->gen++;
    (void)follow(m, &result);
    set_role(m, sim.term, false);
    for (unsigned k = 0; k < CONTROLLERS; k++)
        start_controller(who_is(m, k));
}

static void on_apply(struct request *r)
{
    struct raftd_txn req;
    struct arena a;
    struct err e;
    arena_init(&a, 256u << 20);
    if (sim.faults && chance(2)) { /* never arrived */
        err_set(&r->result, ERR_UNAVAILABLE, "lost");
    } else {
        CHECK(fields_decode(&req, op_raftd_txn.req, sizeof req, buf_str(&r->bytes), FIELDS_STRICT, &a, &e) == 0);
        sim.late += life_of(r->from)->gen != r->gen;
        r->revision = apply(1u << who_of[r->from % CONTROLLERS], req.Requires, req.Changes, req.Term, &r->result);
        if (sim.faults && chance(2)) /* applied, and nobody hears of it */
            err_set(&r->result, ERR_TIMEOUT, "no answer; outcome unknown");
    }
    arena_done(&a);
    schedule(sim.now + (int64_t)below(MS), EV_REPLY, r->from, r->gen, r);
}

static void on_reply(struct request *r)
{
    struct raftd_txn_reply rep = { r->revision };
    if (life_of(r->from)->gen == r->gen)
        r->done(r->done_arg, r->result.code ? NULL : &rep, &r->result);
    buf_done(&r->bytes);
    free(r);
}

/* ---- agents ---- */

static void wake_agent(unsigned i, int64_t in)
{
    schedule(sim.now + in, EV_AGENT, i, sim.agents[i].gen, NULL);
}

static void wake_mesh(unsigned i, int64_t in)
{
    schedule(sim.now + in, EV_MESH, i, sim.agents[i].mesh_gen, NULL);
}

static struct call *new_call(unsigned i, int kind)
{
    struct call *c = calloc(1, sizeof *c);
    CHECK(c != NULL);
    arena_init(&c->arena, 256u << 20);
    c->agent = i;
    c->manager = sim.agents[i].manager;
    c->agent_gen = sim.agents[i].gen;
    c->mesh_gen = sim.agents[i].mesh_gen;
    c->kind = kind;
    c->next = sim.calls;
    sim.calls = c;
    return c;
}

static void free_call(struct call *c)
{
    struct call **p = &sim.calls;
    while (*p != c)
        p = &(*p)->next;
    *p = c->next;
    arena_done(&c->arena);
    free(c);
}

/* agent_of - NULL when the agent that asked is not there any more. */
static struct agent *agent_of(struct call *c)
{
    struct agent *a = &sim.agents[c->agent];
    if (!a->up || a->gen != c->agent_gen)
        return NULL;
    if (c->kind == HELLO)
        a->hello_out = false;
    else if (c->kind == POLL)
        a->poll_out = false;
    else
        a->status_out = false;
    wake_agent(c->agent, (int64_t)below(sim.faults ? 5 * MS : MS));
    return a;
}

/* disp_of - where the agent's calls go; NULL: to nobody. */
static struct disp_keeper *disp_of(unsigned i)
{
    struct manager *m = &sim.managers[sim.agents[i].manager];
    return sim.agents[i].cut || !m->up || !m->life[DISP].c ? NULL : &m->disp;
}

/* answered - the agent the answer gets to; NULL: lost on the way. */
static struct agent *answered(struct call *c)
{
    struct agent *a = &sim.agents[c->agent];
    bool lost = a->cut;
    a = agent_of(c);
    return lost ? NULL : a;
}

/* forget - the swarm does not want it any more. */
static void forget(unsigned i, struct str id);

static void forget_all(unsigned i)
{
    struct task_life *t;
    struct str id;
    for (struct table_pos pos = { 0 }; table_next(&sim.agents[i].tasks, &pos, &id, &t);)
        forget(i, id);
}

/* mesh_answered - the same for what its meshd asked. */
static struct agent *mesh_answered(struct call *c)
{
    struct agent *a = &sim.agents[c->agent];
    if (!a->up || a->mesh_gen != c->mesh_gen)
        return NULL;
    a->mesh_out = false;
    wake_mesh(c->agent, (int64_t)below(sim.faults ? 20 * MS : MS));
    return a->cut ? NULL : a;
}

static void call_failed(void *p, int code, const char *why)
{
    struct call *c = p;
    if (c->kind == NETWORK) {
        struct agent *asker = mesh_answered(c);
        if (asker)
            asker->manager = chance(80) ? sim.leader : (unsigned)below(MANAGERS);
        free_call(c);
        return;
    }
    struct agent *a = c->evil ? NULL : answered(c);
    (void)why;
    if (a && code == ERR_NOT_FOUND)
        forget_all(c->agent);
    if (a && code != ERR_UNAVAILABLE)
        a->session[0] = 0;
    if (a)
        a->manager = chance(80) ? sim.leader : (unsigned)below(MANAGERS);
    free_call(c);
}

static void fail_calls(unsigned manager)
{
    for (bool found = true; found;) {
        found = false;
        for (struct call *c = sim.calls; c && !found; c = c->next)
            if (c->manager == manager) {
                call_failed(c, ERR_UNAVAILABLE, "dispatcherd is gone");
                found = true;
            }
    }
}

static void call_opened(void *p, const struct disp_session_reply *rep)
{
    struct agent *a = answered(p);
    if (a) {
        CHECK(str_copy(a->session, sizeof a->session, rep->SessionID));
        CHECK(str_is(rep->NodeID, a->node));
        a->heartbeat_ms = rep->HeartbeatMs;
        a->seq = 0;
    }
    free_call(p);
}

static void step_task(unsigned agent, struct str id, struct task_life *t, int64_t in)
{
    char *copy = str_dup(id);
    t->gen = ++sim.seq;
    schedule(sim.now + in, EV_TASK, agent, t->gen, copy);
}

static void assign(unsigned i, const struct assignment *as)
{
    bool fresh;
    struct task_life *t = table_put(&sim.agents[i].tasks, as->ID, &fresh);
    enum task_state desired = task_state_parse(as->DesiredState);
    CHECK(fresh || desired >= t->desired || t->removed);
    CHECK(as->Spec.n > 0); /* everything a node needs is there */
    if (desired >= TASK_SHUTDOWN && t->desired < TASK_SHUTDOWN)
        t->stop_at = sim.now + (sim.patient ? 3600 : 4) * SECOND;
    t->desired = desired;
    t->drains = as->DrainMs != 0;
    t->drained |= as->Drained;
    CHECK(!as->Drained || desired >= TASK_SHUTDOWN);
    t->removed = false;
    if (fresh)
        t->state = TASK_ASSIGNED;
    t->dirty = true; /* a report may have been lost with a session */
    step_task(i, as->ID, t, (int64_t)below(20 * MS));
}

static void forget(unsigned i, struct str id)
{
    struct task_life *t = table_get(&sim.agents[i].tasks, id);
    if (t && t->state > TASK_RUNNING) {
        table_del(&sim.agents[i].tasks, id);
    } else if (t) {
        t->removed = true;
        step_task(i, id, t, (int64_t)below(20 * MS));
    }
}

static bool given_up(struct manager *m, struct str task)
{
    struct buf doc = BUF_INIT;
    struct str state;
    struct err e;
    bool is = sm_get(m->sm, KIND_TASK, task, &doc, &e) == 0 && mp_get_str(buf_str(&doc), "Status.State", &state) &&
              str_is(state, "orphaned");
    buf_done(&doc);
    return is;
}

/*
 * check_drained - what may stop gets no new connections from any node that is alive, as far as this manager knows; all
 * the less from one that has its answer still on its way. When managers wait for ever for the nodes' word.
 */
static void check_drained(const struct call *c, const struct assignment *as)
{
    const struct disp_net *net = &sim.managers[c->manager].disp.net;
    const struct task_life *t = table_get(&sim.agents[c->agent].tasks, as->ID);
    if (!sim.patient || !as->Drained || as->DrainMs == 0 || !t || t->state > TASK_RUNNING ||
        given_up(&sim.managers[c->manager], as->ID))
        return;
    for (unsigned i = 0; i < NODES; i++) {
        const struct agent *a = &sim.agents[i];
        const struct dnet_node *n = table_get(&net->nodes, str_from(a->node));
        if (a->up && n && n->live)
            CHECK(!model_sends(&a->mesh, as->ID));
    }
    sim.drained++;
}

static void call_assigned(void *p, const struct disp_assignments_reply *rep)
{
    struct call *c = p;
    CHECK(!c->evil);
    struct agent *a = answered(c);
    const struct assignment *as = rep->Tasks.v;
    struct task_life *t;
    struct str id;
    if (a && !(sim.faults && chance(3))) { /* else the answer is lost */
        a->seq = rep->Seq;
        for (struct table_pos pos = { 0 }; rep->Full && table_next(&a->tasks, &pos, &id, &t);) {
            bool there = false;
            for (size_t i = 0; i < rep->Tasks.n; i++)
                there |= str_eq(as[i].ID, id);
            if (!there)
                forget(c->agent, id);
        }
        for (size_t i = 0; i < rep->Tasks.n; i++)
            assign(c->agent, &as[i]);
        for (size_t i = 0; i < rep->Tasks.n; i++)
            check_drained(c, &as[i]);
        for (size_t i = 0; i < rep->Removed.n; i++)
            forget(c->agent, rep->Removed.v[i]);
    }
    free_call(c);
}

static void call_stored(void *p, const struct disp_status_reply *rep)
{
    struct call *c = p;
    const struct task_status *s = c->status.Statuses.v;
    if (c->evil) {
        CHECK(rep->Unknown.n == c->status.Statuses.n);
        free_call(c);
        return;
    }
    struct agent *a = answered(c);
    for (size_t i = 0; a && i < c->status.Statuses.n; i++) {
        struct task_life *t = table_get(&a->tasks, s[i].TaskID);
        if (t && t->state == task_state_parse(s[i].State))
            t->dirty = false;
    }
    free_call(c);
}

static struct arena *call_arena(void *p)
{
    return &((struct call *)p)->arena;
}

static uint64_t call_now(void)
{
    return (uint64_t)(sim.now / MS);
}

/* call_confirm - only the leader hears of a majority. */
static void call_confirm(void *keeper, uint64_t round)
{
    for (unsigned i = 0; i < MANAGERS; i++)
        if (&sim.managers[i].disp == keeper)
            schedule(sim.now + 500000 + (int64_t)below(sim.faults ? 50 * MS : MS), EV_CONFIRM, i,
                     sim.managers[i].life[DISP].gen, (void *)(uintptr_t)round);
}

static void call_networks(void *p, struct str body)
{
    struct call *c = p;
    struct agent *a = mesh_answered(c);
    if (a && !(sim.faults && chance(3))) { /* else the answer is lost */
        buf_clear(&a->answer);
        buf_put(&a->answer, body.p, body.n);
        sim.told++;
    }
    free_call(c);
}

static const struct disp_calls disp_calls = { call_opened, call_stored, call_assigned, call_networks, call_failed,
                                              call_arena,  call_now,    make_id,       call_confirm };

static struct str description(struct call *c, unsigned i)
{
    struct buf b = BUF_INIT;
    char host[16];
    snprintf(host, sizeof host, "node%u", i);
    mp_map(&b, 2);
    mp_kv_cstr(&b, "Hostname", host);
    mp_cstr(&b, "Resources");
    mp_map(&b, 2);
    mp_kv_i64(&b, "NanoCPUs", 4 * SECOND);
    mp_kv_i64(&b, "MemoryBytes", NODE_MEMORY);
    struct str s = arena_str(&c->arena, buf_str(&b));
    buf_done(&b);
    return s;
}

static void say_hello(unsigned i)
{
    struct call *c = new_call(i, HELLO);
    c->hello = (struct disp_session){ .Hostname = STR("node"), .Description = description(c, i) };
    sim.agents[i].hello_out = true;
    disp_hello(disp_of(i), c, &c->hello, str_from(sim.agents[i].node), STR("10.0.0.1"));
}

static void poll_assignments(unsigned i)
{
    struct agent *a = &sim.agents[i];
    struct call *c = new_call(i, POLL);
    c->poll = (struct disp_assignments){ .SessionID = arena_str(&c->arena, str_from(a->session)),
                                         .Seq = a->seq,
                                         .WaitMs = a->heartbeat_ms };
    a->poll_out = true;
    disp_poll(disp_of(i), c, &c->poll, str_from(a->node));
}

static void report(unsigned i)
{
    struct agent *a = &sim.agents[i];
    struct task_life *t;
    struct str id;
    size_t n = 0;
    for (struct table_pos pos = { 0 }; table_next(&a->tasks, &pos, NULL, &t);)
        n += t->dirty && t->state > TASK_ASSIGNED;
    if (n == 0)
        return;
    struct call *c = new_call(i, STATUS);
    struct task_status *s = arena_array(&c->arena, n, sizeof *s);
    CHECK(s != NULL);
    c->status = (struct disp_status){ .SessionID = arena_str(&c->arena, str_from(a->session)), .Statuses = { s, 0 } };
    for (struct table_pos pos = { 0 }; table_next(&a->tasks, &pos, &id, &t);)
        if (t->dirty && t->state > TASK_ASSIGNED)
            s[c->status.Statuses.n++] = (struct task_status){ .TaskID = arena_str(&c->arena, id),
                                                              .State = str_from(task_state_name(t->state)),
                                                              .Message = str_from(task_state_name(t->state)),
                                                              .Timestamp = sim.now };
    a->status_out = true;
    disp_report(disp_of(i), c, &c->status, str_from(a->node));
}

/* intrude - an agent that was taken over claims things about another node's tasks, or asks for them. */
static void intrude(unsigned i)
{
    struct agent *a = &sim.agents[i], *victim = &sim.agents[(i + 1 + below(NODES - 1)) % NODES];
    struct task_life *t;
    struct str id;
    struct call *c = new_call(i, below(2) ? POLL : STATUS);
    struct task_status *s = arena_array(&c->arena, victim->tasks.count + 1, sizeof *s);
    CHECK(s != NULL);
    c->evil = true;
    if (c->kind == POLL) {
        c->poll.SessionID = arena_str(&c->arena, str_from(victim->session));
        disp_poll(disp_of(i), c, &c->poll, str_from(a->node));
        return;
    }
    c->status =
        (struct disp_status){ .SessionID = arena_str(&c->arena, str_from(chance(50) ? a->session : victim->session)),
                              .Statuses = { s, 0 } };
    for (struct table_pos pos = { 0 }; table_next(&victim->tasks, &pos, &id, &t);)
        s[c->status.Statuses.n++] = (struct task_status){ .TaskID = arena_str(&c->arena, id), .State = STR("failed") };
    disp_report(disp_of(i), c, &c->status, str_from(a->node));
}

static void agent_turn(unsigned i)
{
    struct agent *a = &sim.agents[i];
    if (!a->up)
        return;
    if (!disp_of(i)) {
        a->manager = sim.leader;
        wake_agent(i, 20 * MS);
        return;
    }
    if (sim.faults && a->session[0] && chance(2))
        intrude(i);
    if (!a->session[0] && !a->hello_out)
        say_hello(i);
    if (a->session[0] && !a->poll_out)
        poll_assignments(i);
    if (a->session[0] && !a->status_out)
        report(i);
}

/* mesh_turn - what was answered gets into the kernel; only then is it asked for more. */
static void mesh_turn(unsigned i)
{
    struct agent *a = &sim.agents[i];
    if (a->answer.n) {
        struct disp_network_reply rep;
        struct arena mem;
        struct err e;
        arena_init(&mem, 256u << 20);
        CHECK(fields_decode(&rep, op_disp_network.rep, sizeof rep, buf_str(&a->answer), FIELDS_STRICT, &mem, &e) == 0);
        model_apply(&a->mesh, &rep);
        arena_done(&mem);
        buf_clear(&a->answer);
    }
    if (a->mesh_out)
        return;
    if (!disp_of(i)) {
        a->manager = sim.leader;
        wake_mesh(i, 20 * MS);
        return;
    }
    struct call *c = new_call(i, NETWORK);
    model_ask(&a->mesh, &c->arena, &c->network);
    c->network.WaitMs = below(5000);
    a->mesh_out = true;
    disp_network(disp_of(i), c, &c->network, str_from(a->node));
}

/* restart_mesh - it knows nothing, and what is in the kernel stays until it has heard. */
static void restart_mesh(unsigned i)
{
    struct agent *a = &sim.agents[i];
    a->mesh_gen++;
    a->mesh_out = false;
    buf_clear(&a->answer);
    a->mesh.seq = 0;
    wake_mesh(i, (int64_t)below(100 * MS));
}

/* task_turn - the container's part: one step towards what is wanted, sometimes a failure. */
static void task_turn(unsigned i, struct str id, uint64_t gen)
{
    static const enum task_state steps[] = { TASK_ACCEPTED, TASK_PREPARING, TASK_READY, TASK_STARTING, TASK_RUNNING };
    struct agent *a = &sim.agents[i];
    struct task_life *t = a->up ? table_get(&a->tasks, id) : NULL;
    if (!t || t->gen != gen)
        return;
    enum task_state was = t->state, goal = t->desired < TASK_RUNNING ? TASK_READY : TASK_RUNNING;
    if (t->state > TASK_RUNNING) {
        if (t->removed)
            table_del(&a->tasks, id);
        wake_agent(i, 0);
        return;
    }
    bool stop = t->removed || t->desired >= TASK_SHUTDOWN;
    if (stop && t->drains && !t->drained && !t->removed && t->state == TASK_RUNNING && sim.now < t->stop_at) {
        step_task(i, id, t, t->stop_at - sim.now < 50 * MS ? t->stop_at - sim.now : 50 * MS);
        return;
    }
    if (t->desired > TASK_RUNNING || t->removed) {
        t->state = TASK_SHUTDOWN;
    } else if (sim.faults && chance(4)) {
        t->state = was < TASK_STARTING ? TASK_REJECTED : chance(30) ? TASK_COMPLETE : TASK_FAILED;
    } else {
        for (unsigned s = 0; s < sizeof steps / sizeof steps[0] && t->state == was; s++)
            if (steps[s] > was && steps[s] <= goal)
                t->state = steps[s];
    }
    if (t->state == was)
        return;
    t->dirty = true;
    wake_agent(i, 0);
    if (t->state < TASK_RUNNING || t->removed)
        step_task(i, id, t, (int64_t)below(30 * MS));
}

/* hint - gatewayd of each manager notices a lost link after a while, or a new one. */
static void hint(unsigned i, bool up, int64_t in)
{
    for (unsigned m = 0; m < MANAGERS; m++)
        schedule(sim.now + in + (int64_t)below(50 * MS), EV_LINK, m, 0, (void *)(uintptr_t)(i * 2 + up));
}

static void on_link(unsigned manager, unsigned i, bool up)
{
    struct manager *m = &sim.managers[manager];
    if (!m->life[DISP].c)
        return;
    disp_hint(&m->disp, str_from(sim.agents[i].node), up);
}

/* restart_agent - its containers go on. switch_off - they do not. */
static void restart_agent(unsigned i)
{
    struct agent *a = &sim.agents[i];
    struct task_life *t;
    struct str id;
    if (chance(50))
        hint(i, false, 0);
    a->gen++;
    a->session[0] = 0;
    a->hello_out = a->poll_out = a->status_out = false;
    a->up = true;
    a->manager = (unsigned)below(MANAGERS);
    for (struct table_pos pos = { 0 }; table_next(&a->tasks, &pos, &id, &t);) {
        t->dirty = true;
        step_task(i, id, t, (int64_t)below(50 * MS));
    }
    wake_agent(i, (int64_t)below(100 * MS));
    hint(i, true, 100 * MS);
    if (chance(50))
        restart_mesh(i);
    else
        wake_mesh(i, 0);
}

static void switch_off(unsigned i)
{
    struct agent *a = &sim.agents[i];
    struct task_life *t;
    sim.offs++;
    a->up = false;
    a->gen++;
    a->mesh_gen++;
    a->mesh_out = false;
    model_clear(&a->mesh); /* the kernel's memory */
    buf_clear(&a->answer);
    for (struct table_pos pos = { 0 }; table_next(&a->tasks, &pos, NULL, &t);)
        if (t->state >= TASK_ACCEPTED && t->state <= TASK_RUNNING)
            t->state = t->state < TASK_STARTING ? TASK_REJECTED : TASK_FAILED;
    if (chance(70))
        hint(i, false, (int64_t)below(3) * SECOND);
    schedule(sim.now + 5 * SECOND + (int64_t)below(40) * SECOND, EV_BOOT, i, a->gen, NULL);
}

/* cut_off - it runs on, and nobody hears of it. */
static void cut_off(unsigned i)
{
    struct agent *a = &sim.agents[i];
    sim.cuts++;
    a->cut = true;
    if (chance(70))
        hint(i, false, (int64_t)below(3) * SECOND);
    schedule(sim.now + (int64_t)below(chance(50) ? 2 : 30) * SECOND, EV_HEAL, i, 0, NULL);
}

static void heal_agent(unsigned i)
{
    struct agent *a = &sim.agents[i];
    if (!a->cut)
        return;
    a->cut = false;
    hint(i, true, 0);
    if (a->up)
        wake_agent(i, (int64_t)below(300 * MS));
}

/* ---- users ---- */

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

static void user_change(const char *op, enum kind kind, struct str id, struct buf *doc)
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

static void declare(struct declared *d)
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

static void set_availability(unsigned i, const char *availability)
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
static void join(unsigned i)
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

static void create_network(char id[ID_SIZE], const char *subnet, bool six, bool ingress)
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

static void user_acts(void)
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

static void fault(void)
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

/* ---- running ---- */

static void watch_dispatchers(void)
{
    for (unsigned i = 0; i < MANAGERS; i++) {
        struct manager *m = &sim.managers[i];
        uint64_t next = m->life[DISP].c ? disp_due(&m->disp) : DISP_NEVER;
        if (next != DISP_NEVER && (int64_t)next * MS < m->tick_at) {
            m->tick_at = (int64_t)next * MS;
            schedule(m->tick_at, EV_TICK, i, 0, NULL);
        }
        if (m->life[DISP].c && (sim.seq & 63) == 0)
            disp_check(&m->disp.core);
        if (m->life[DISP].c && (sim.seq & 63) == 0)
            dnet_check(&m->disp.net);
    }
}

static void step(void)
{
    struct event e = next_event();
    struct err result;
    CHECK(e.at >= sim.now);
    sim.now = e.at;
    switch (e.type) {
    case EV_TURN:
        if (life_of(e.who)->c && life_of(e.who)->gen == e.gen)
            controller_turn(life_of(e.who)->c);
        break;
    case EV_DUE:
        if (life_of(e.who)->c && life_of(e.who)->arm_gen == e.gen)
            controller_due(life_of(e.who)->c);
        break;
    case EV_APPLY:
        on_apply(e.p);
        break;
    case EV_REPLY:
        on_reply(e.p);
        break;
    case EV_FOLLOW:
        if (sim.managers[e.who].gen == e.gen)
            (void)follow(&sim.managers[e.who], &result);
        break;
    case EV_DEPOSED:
        if (sim.managers[e.who].gen == e.gen && sim.leader != e.who)
            set_role(&sim.managers[e.who], sim.term, false);
        break;
    case EV_MANAGER:
        if (sim.managers[e.who].gen == e.gen)
            boot_manager(e.who);
        break;
    case EV_LINK:
        on_link(e.who, (unsigned)((uintptr_t)e.p / 2), (uintptr_t)e.p & 1);
        break;
    case EV_CONFIRM:
        if (sim.managers[e.who].life[DISP].c && sim.managers[e.who].life[DISP].gen == e.gen)
            disp_confirmed(&sim.managers[e.who].disp, (uintptr_t)e.p,
                           e.who == sim.leader && !(sim.faults && chance(10)));
        break;
    case EV_HEAL:
        heal_agent(e.who);
        break;
    case EV_START:
        if (!life_of(e.who)->c && life_of(e.who)->gen == e.gen && manager_of(e.who)->up)
            start_controller(e.who);
        break;
    case EV_MESH:
        if (sim.agents[e.who].up && sim.agents[e.who].mesh_gen == e.gen)
            mesh_turn(e.who);
        break;
    case EV_AGENT:
        if (sim.agents[e.who].gen == e.gen)
            agent_turn(e.who);
        break;
    case EV_TASK:
        task_turn(e.who, str_from(e.p), e.gen);
        free(e.p);
        break;
    case EV_BOOT:
        if (!sim.agents[e.who].up && sim.agents[e.who].gen == e.gen)
            restart_agent(e.who);
        break;
    case EV_TICK:
        sim.managers[e.who].tick_at = INT64_MAX;
        if (sim.managers[e.who].life[DISP].c)
            disp_tick(&sim.managers[e.who].disp);
        break;
    case EV_FAULT:
        if (sim.faults) {
            fault();
            schedule(sim.now + (int64_t)below(3 * SECOND), EV_FAULT, 0, 0, NULL);
        }
        break;
    case EV_USER:
        if (sim.faults) {
            user_acts();
            schedule(sim.now + (int64_t)below(chance(50) ? 5 * MS : 2 * SECOND), EV_USER, 0, 0, NULL);
        }
        break;
    }
    watch_dispatchers();
}

/* wrong - what is not as declared; NULL when all is. */
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

static const char *wrong(void)
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

static void open_manager(unsigned i)
{
    struct raft_log_identity id = { .cluster_id = "simulatedcluster", .node_id = "simulatednode", .id = 1 };
    struct manager *m = &sim.managers[i];
    struct sm_conf conf = { .run_dir = m->dir, .secret_gid = (gid_t)-1, .map_bytes = 64ull << 20 };
    struct err why = ERR_INIT, e = ERR_INIT;
    bool fresh;
    snprintf(m->dir, sizeof m->dir, "/dev/shm/control-sim-XXXXXX");
    CHECK(mkdtemp(m->dir) != NULL);
    m->tick_at = INT64_MAX;
    if (sm_open(&m->sm, &conf, &id, 1, UINT64_MAX, &fresh, &why, &e) != 0 || sm_publish(m->sm, &e) != 0 ||
        store_open(&m->store, m->dir, true, &e) != 0) {
        printf("%s\n", e.msg);
        exit(1);
    }
}

static void begin(uint64_t seed)
{
    sim = (struct sim){
        .seed = seed, .patient = seed % 2 == 0, .rng = seed, .now = 1700000000ll * SECOND, .faults = true, .term = 1
    };
    for (unsigned i = 0; i < MANAGERS; i++)
        open_manager(i);
    for (unsigned i = 0; i < MANAGERS; i++)
        boot_manager(i);
    take_over(0);
    create_network(sim.ingress, NULL, false, true);
    for (unsigned i = 0; i < NODES; i++) {
        table_init(&sim.agents[i].tasks, sizeof(struct task_life));
        model_init(&sim.agents[i].mesh);
        join(i);
        restart_agent(i);
    }
    schedule(sim.now, EV_USER, 0, 0, NULL);
    schedule(sim.now + SECOND, EV_FAULT, 0, 0, NULL);
}

static void close_manager(unsigned i)
{
    struct manager *m = &sim.managers[i];
    char cmd[128];
    m->up = false;
    for (unsigned k = 0; k < CONTROLLERS; k++)
        if (m->life[k].c)
            kill_controller(who_is(m, k));
    store_close(m->store);
    sm_close(m->sm);
    snprintf(cmd, sizeof cmd, "rm -rf %s", m->dir);
    CHECK(system(cmd) == 0);
}

static void end(void)
{
    for (unsigned i = 0; i < MANAGERS; i++)
        close_manager(i);
    while (sim.n) {
        struct event e = next_event();
        if (e.type == EV_TASK)
            free(e.p);
        if (e.type == EV_APPLY || e.type == EV_REPLY) {
            buf_done(&((struct request *)e.p)->bytes);
            free(e.p);
        }
    }
    for (unsigned i = 0; i < NODES; i++) {
        table_done(&sim.agents[i].tasks);
        model_done(&sim.agents[i].mesh);
        buf_done(&sim.agents[i].answer);
    }
    for (size_t i = 0; i < sim.nlog; i++)
        buf_done(&sim.log[i].bytes);
    free(sim.log);
    free(sim.heap);
}

static void heal(void)
{
    sim.faults = false; /* liveness: from here on nothing breaks any more */
    for (unsigned i = 0; i < MANAGERS; i++)
        if (!sim.managers[i].up)
            boot_manager(i);
    for (unsigned i = 0; i < NODES; i++) {
        heal_agent(i);
        if (sim.agents[i].gone)
            join(i);
        restart_agent(i);
        if (strcmp(sim.availability[i], "active") != 0)
            set_availability(i, "active");
    }
    for (unsigned i = 0; i < SERVICES_MAX; i++) /* a last storm, with nothing after it that would hide what it left */
        if (sim.services[i].id[0]) {
            user_change("delete", KIND_SERVICE, str_from(sim.services[i].id), NULL);
            declare(&sim.services[i]);
        }
}

static bool run(uint64_t seed, int64_t seconds)
{
    printf("control_sim: seed %" PRIu64 "\n", seed);
    fflush(stdout);
    begin(seed);
    int64_t healed = sim.now + seconds * SECOND, last = healed + 600 * SECOND;
    while (sim.now < healed)
        step();
    heal();
    const char *what = "nothing was checked";
    for (int64_t look = sim.now; what && sim.now < last; look += SECOND) {
        while (sim.now < look)
            step();
        what = wrong();
    }
    printf("control_sim: seed %" PRIu64 ": %s; %" PRIu64 " transactions with %" PRIu64 " changes, %" PRIu64
           " conflicts, %" PRIu64 " late; %" PRIu64 " kills, %" PRIu64 " take-overs, %" PRIu64 " cuts, %" PRIu64
           " power-offs, %" PRIu64 " removals; %" PRIu64 " answers about networks, %" PRIu64
           " drained; converged after %.1f s\n",
           seed, what ? what : "ok", sim.txns, sim.applied_changes, sim.conflicts, sim.late, sim.kills, sim.takeovers,
           sim.cuts, sim.offs, sim.removals, sim.told, sim.drained, (double)(sim.now - healed) / (double)SECOND);
    if (what && sim.why[0])
        printf("%s\n", sim.why);
    end();
    return what == NULL;
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    unsigned runs = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : argc > 1 ? 1 : 10;
    if (argc <= 1)
        random_bytes(&seed, sizeof seed / 2);
    setvbuf(stdout, NULL, _IOLBF, 0);
    log_init("control_sim");
    log_set_level("error");
    for (unsigned i = 0; i < runs; i++)
        if (!run(seed + i, 120))
            return 1;
    return 0;
}
