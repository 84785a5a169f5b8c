/*
 * agents - ten thousand nodes at one dispatcherd: real messages on its real socket, as gatewayd brings them ("from"),
 * with raftd behind it. Each agent keeps its long poll open (the heartbeat), reports what it was told, and a thousand
 * tasks change each second: assigned, told to stop, removed, in turn. Each node's meshd has a long poll open, too, and
 * has in its kernel what it was told last: of the thousand networks those of its tasks (30 tasks of 10 nodes each), and
 * the ingress network, on which a share of the tasks is. Agents stop a task when it is drained.
 *
 *   agents [-b BIN] [-n NODES] [-c CHANGES_A_SECOND] [-s SECONDS] [-i TASKS_OF_1000_ON_INGRESS]
 *
 * Fails when, at rest, an agent or a meshd was not told exactly what the store says.
 */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/daemon/daemon.h"
#include "common/proto/msg_dispatcherd.h"
#include "common/proto/msg_raftd.h"
#include "common/util/check.h"
#include "common/util/clock.h"
#include "common/util/id.h"

#define TASKS 30000u
#define NETS 1000u
#define ON_NET (TASKS / NETS)
#define STEP_MS 10u
#define CALL_MS 60000u
#define SETTLE_MS 5000u

enum phase { ABSENT, RUNNING, STOPPING, PHASES };

struct seen { /* a task on a network, as a node knows it */
    char id[ID_SIZE];
    char state; /* 's', 'r', 'd'; 0: not there */
};
struct agent {
    char node[ID_SIZE], session[64];
    uint64_t seq, heartbeat_ms;
    uint64_t net_seq;
    bool has_net, has_ingress;
    struct seen seen[ON_NET];
};

struct task {
    char id[ID_SIZE];
    enum phase phase, told; /* as stored; as its node knows */
    uint64_t since_us;      /* of the last change; 0: told already */
    uint64_t ready_us;      /* reported running then */
};

static struct {
    sd_event *loop;
    char dir[64], run[80], state[80];
    const char *bin;
    pid_t raftd, dispatcherd;
    struct rpc_client *raft, *disp;
    sd_event_source *timer;
    unsigned nodes, rate, seconds;
    struct agent *agents;
    struct task *tasks;
    unsigned next;
    char service[NETS][ID_SIZE], net[NETS][ID_SIZE], ingress[ID_SIZE], spec[ID_SIZE];
    unsigned on_ingress; /* of 1000 */
    bool meshing;
    uint64_t net_polls, net_bytes, net_news, net_fulls, drained;
    uint32_t *net_latency_us;
    size_t nnet_latency;
    bool writing, measuring;
    unsigned open, refused;
    uint64_t changes, late_steps, told, reports, stored, polls;
    uint32_t *latency_us;
    size_t nlatency, cap_latency;
    struct buf body;
    struct arena arena;
} b;

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void fail(const char *what, struct str why)
{
    fprintf(stderr, "agents: %s: " STR_FMT "\n", what, STR_ARG(why));
    if (b.raftd > 0)
        kill(b.raftd, SIGKILL);
    if (b.dispatcherd > 0)
        kill(b.dispatcherd, SIGKILL);
    exit(1);
}

static void need(int r, const struct err *e, const char *what)
{
    if (r != 0)
        fail(what, str_from(e->msg));
}

static void run_until(bool (*done)(void), uint64_t ms, const char *what)
{
    uint64_t end = now_us() + ms * 1000;
    while (!done()) {
        if (now_us() > end)
            fail(what, STR("took too long"));
        CHECK(sd_event_run(b.loop, 100000) >= 0);
    }
}

/* ---- the daemons ---- */

static pid_t start(const char *name)
{
    char path[512], user[8][64];
    static const char *const users[] = { "apid",       "cad",         "orchestratord", "allocatord",
                                         "schedulerd", "dispatcherd", "gatewayd" };
    char *argv[32] = { path, "-r", b.run, "-s", b.state, "-o", "log_level=warn" };
    unsigned n = 7;
    snprintf(path, sizeof path, "%s/%s", b.bin, name);
    for (unsigned i = 0; i < sizeof users / sizeof users[0]; i++) {
        snprintf(user[i], sizeof user[i], "user_%s=root", users[i]);
        argv[n++] = "-o";
        argv[n++] = user[i];
    }
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        execv(path, argv);
        perror(path);
        _exit(127);
    }
    return pid;
}

static double cpu_seconds(pid_t pid)
{
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f || !fgets(line, sizeof line, f))
        fail("dispatcherd", STR("is gone"));
    fclose(f);
    char *p = strrchr(line, ')'); /* the end of field 2; user and system time are 14 and 15, proc(5) */
    for (int i = 2; p && i < 14; i++)
        p = strchr(p + 1, ' ');
    CHECK(p);
    unsigned long user = strtoul(p, &p, 10), sys = strtoul(p, NULL, 10);
    return (double)(user + sys) / (double)sysconf(_SC_CLK_TCK);
}

static double memory_mib(pid_t pid, const char *key)
{
    char path[64], line[256];
    unsigned long kib = 0;
    size_t n = strlen(key);
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, key, n) == 0)
            kib = strtoul(line + n, NULL, 10);
    if (f)
        fclose(f);
    return (double)kib / 1024;
}

/* ---- what the other controllers would write ---- */

static struct str keep(struct buf *doc)
{
    struct str s = arena_str(&b.arena, buf_str(doc));
    CHECK(s.p != NULL);
    buf_clear(doc);
    return s;
}

static struct txn_change change(const char *op, const char *kind, const char *id, struct buf *doc)
{
    struct txn_change c = { .Op = str_from(op), .Kind = str_from(kind), .ID = str_from(id) };
    if (doc)
        c.Doc = keep(doc);
    return c;
}

static void on_written(void *arg, const void *rep, const struct err *e)
{
    (void)arg;
    (void)rep;
    if (e->code != 0)
        fail("transaction", str_from(e->msg));
    b.writing = false;
}

static bool written(void)
{
    return !b.writing;
}

static void write_changes(struct txn_change *v, size_t n)
{
    struct raftd_txn req = { .Changes = { v, n } };
    b.writing = true;
    rpc_send(b.raft, &op_raftd_txn, &req, CALL_MS, on_written, NULL);
    arena_reset(&b.arena);
}

static void put_node(struct buf *d, const char *id)
{
    mp_map(d, 3);
    mp_kv_cstr(d, "ID", id);
    mp_cstr(d, "Spec");
    mp_map(d, 2);
    mp_kv_cstr(d, "Role", "worker");
    mp_kv_cstr(d, "Availability", "active");
    mp_cstr(d, "Status");
    mp_map(d, 1);
    mp_kv_cstr(d, "State", "unknown");
}

static void bootstrap(void)
{
    struct buf d = BUF_INIT;
    struct raftd_bootstrap req = { 0 };
    struct txn_change v[2];
    struct err e = ERR_INIT;
    struct raftd_txn_reply rep;
    char cluster[ID_SIZE];
    id_new(cluster);
    mp_map(&d, 2);
    mp_kv_cstr(&d, "ID", cluster);
    mp_cstr(&d, "Spec");
    mp_map(&d, 1);
    mp_kv_cstr(&d, "Name", "default");
    v[0] = change("create", "cluster", cluster, &d);
    put_node(&d, b.agents[0].node);
    v[1] = change("create", "node", b.agents[0].node, &d);
    req = (struct raftd_bootstrap){ str_from(cluster), str_from(b.agents[0].node), STR(""), { v, 2 } };
    need(rpc_call_sync(b.run, "raftd", &op_raftd_bootstrap, &req, CALL_MS, &rep, &b.arena, &e), &e, "bootstrap");
    buf_done(&d);
}

static void put_network(struct buf *d, const char *id, unsigned i, bool ingress)
{
    char name[32], subnet[32];
    snprintf(name, sizeof name, ingress ? "ingress" : "net%u", i);
    snprintf(subnet, sizeof subnet, "10.%u.%u.0/24", 1 + i / 256, i % 256);
    mp_map(d, 4);
    mp_kv_cstr(d, "ID", id);
    mp_cstr(d, "Spec");
    mp_map(d, 3);
    mp_kv_cstr(d, "Name", name);
    mp_kv_cstr(d, "Driver", "overlay");
    mp_kv_bool(d, "Ingress", ingress);
    mp_cstr(d, "IPAM");
    mp_map(d, 1);
    mp_cstr(d, "Config");
    mp_array(d, 1);
    mp_map(d, 1);
    mp_kv_cstr(d, "Subnet", subnet);
    mp_cstr(d, "State");
    mp_map(d, 1);
    mp_kv_u64(d, "VNI", 4096 + i);
}

static void put_service(struct buf *d, unsigned i)
{
    char name[32], vip[32];
    snprintf(name, sizeof name, "web%u", i);
    snprintf(vip, sizeof vip, "10.%u.%u.2/24", 1 + i / 256, i % 256);
    mp_map(d, 4);
    mp_kv_cstr(d, "ID", b.service[i]);
    mp_kv_cstr(d, "TaskSpecID", b.spec);
    mp_cstr(d, "Spec");
    mp_map(d, 2);
    mp_kv_cstr(d, "Name", name);
    mp_cstr(d, "TaskTemplate");
    mp_map(d, 1);
    mp_cstr(d, "Networks");
    mp_array(d, 1);
    mp_map(d, 1);
    mp_kv_cstr(d, "Target", b.net[i]);
    mp_cstr(d, "Endpoint");
    mp_map(d, 1);
    mp_cstr(d, "VirtualIPs");
    mp_array(d, 1);
    mp_map(d, 2);
    mp_kv_cstr(d, "NetworkID", b.net[i]);
    mp_kv_cstr(d, "Addr", vip);
}

static void make_networks(struct buf *d)
{
    struct txn_change *v = calloc(2 * NETS + 1, sizeof *v);
    CHECK(v != NULL);
    for (unsigned i = 0; i < NETS; i++) {
        put_network(d, b.net[i], i + 1, false);
        v[i] = change("create", "network", b.net[i], d);
    }
    put_network(d, b.ingress, 0, true);
    v[NETS] = change("create", "network", b.ingress, d);
    write_changes(v, NETS + 1); /* before what refers to them */
    run_until(written, CALL_MS, "networks");
    for (unsigned i = 0; i < NETS; i++) {
        put_service(d, i);
        v[i] = change("create", "service", b.service[i], d);
    }
    write_changes(v, NETS);
    run_until(written, CALL_MS, "services");
    free(v);
}

static void make_nodes(void)
{
    struct txn_change v[1000];
    struct buf d = BUF_INIT;
    size_t n = 0;
    for (unsigned i = 1; i < b.nodes; i++) {
        put_node(&d, b.agents[i].node);
        v[n++] = change("create", "node", b.agents[i].node, &d);
        if (n == 1000 || i + 1 == b.nodes) {
            write_changes(v, n);
            run_until(written, CALL_MS, "nodes");
            n = 0;
        }
    }
    mp_map(&d, 3);
    mp_kv_cstr(&d, "ID", b.spec);
    mp_kv_cstr(&d, "ServiceID", b.service[0]);
    mp_cstr(&d, "Spec");
    mp_map(&d, 1);
    mp_cstr(&d, "ContainerSpec");
    mp_map(&d, 2);
    mp_kv_cstr(&d, "Image",
               "registry.example.net/web:1@sha256:"
               "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    mp_cstr(&d, "Env");
    mp_array(&d, 3);
    for (unsigned i = 0; i < 3; i++)
        mp_cstr(&d, "SETTING=a value of the length that is usual");
    v[0] = change("create", "taskspec", b.spec, &d);
    write_changes(v, 1);
    run_until(written, CALL_MS, "taskspec");
    make_networks(&d);
    buf_done(&d);
}

static bool on_ingress(unsigned i)
{
    return (i * 2654435761u >> 12) % 1000 < b.on_ingress; /* spread over nodes and networks */
}

static void put_attachments(struct buf *d, unsigned i)
{
    char addr[32];
    mp_cstr(d, "NetworksAttachments");
    mp_array(d, 1 + on_ingress(i));
    for (unsigned k = 0; k < 1u + on_ingress(i); k++) {
        unsigned net = k ? 0 : i % NETS + 1;
        snprintf(addr, sizeof addr, "10.%u.%u.%u/24", 1 + net / 256, net % 256, 3 + i / NETS);
        mp_map(d, 2);
        mp_kv_cstr(d, "NetworkID", k ? b.ingress : b.net[i % NETS]);
        mp_cstr(d, "Addresses");
        mp_array(d, 1);
        mp_cstr(d, addr);
    }
}

/* next_change - one task goes one step on. */
static struct txn_change next_change(unsigned i, struct buf *d)
{
    struct task *t = &b.tasks[i];
    t->phase = (t->phase + 1) % PHASES;
    t->since_us = now_us();
    t->ready_us = 0;
    if (t->phase == ABSENT)
        return change("purge", "task", t->id, NULL);
    if (t->phase == STOPPING) {
        mp_map(d, 1);
        mp_kv_cstr(d, "DesiredState", "shutdown");
        return change("update", "task", t->id, d);
    }
    id_new(t->id);
    mp_map(d, 8);
    mp_kv_cstr(d, "ID", t->id);
    mp_kv_cstr(d, "ServiceID", b.service[i % NETS]);
    put_attachments(d, i);
    mp_kv_cstr(d, "TaskSpecID", b.spec);
    mp_kv_cstr(d, "NodeID", b.agents[i % b.nodes].node);
    mp_kv_u64(d, "Slot", i);
    mp_kv_cstr(d, "DesiredState", "running");
    mp_cstr(d, "Status");
    mp_map(d, 1);
    mp_kv_cstr(d, "State", "assigned");
    return change("create", "task", t->id, d);
}

static void change_tasks(unsigned n, bool (*wanted)(unsigned i))
{
    struct txn_change *v = calloc(n, sizeof *v);
    struct buf d = BUF_INIT;
    size_t k = 0;
    CHECK(v != NULL);
    for (unsigned tried = 0; k < n && tried < TASKS; tried++, b.next = (b.next + 1) % TASKS)
        if (!wanted || wanted(b.next))
            v[k++] = next_change(b.next, &d);
    b.changes += k;
    write_changes(v, k);
    buf_done(&d);
    free(v);
}

static int on_step(sd_event_source *src, uint64_t at_us, void *arg)
{
    static uint64_t due;
    uint64_t now = now_us();
    (void)at_us;
    (void)arg;
    if (due == 0)
        due = now;
    if (b.writing)
        b.late_steps += b.measuring;
    else
        change_tasks(b.rate * STEP_MS / 1000, NULL);
    due += STEP_MS * 1000ul;
    CHECK(sd_event_source_set_time(src, due > now ? due : now + 1000) >= 0);
    CHECK(sd_event_source_set_enabled(src, SD_EVENT_ONESHOT) >= 0);
    return 0;
}

/* ---- the agents ---- */

static void poll_assignments(struct agent *a);

static void call(struct agent *a, const struct op *op, const void *req, rpc_raw_fn *done)
{
    struct rpc_origin from = { .role = RPC_WORKER,
                               .node = str_from(a->node),
                               .svc = op == &op_disp_network ? STR("meshd") : STR("agentd"),
                               .addr = STR("10.1.2.3") };
    buf_clear(&b.body);
    fields_encode(req, op->req, &b.body);
    CHECK(!b.body.failed);
    rpc_send_raw(b.disp, str_from(op->name), buf_str(&b.body), &from, CALL_MS, done, a);
}

static void *decoded(const struct op *op, int code, struct str msg, struct str body, struct arena *mem)
{
    struct err e = ERR_INIT;
    if (code != 0)
        fail(op->name, msg);
    arena_init(mem, 16u << 20);
    void *rep = arena_alloc(mem, op->rep_size);
    CHECK(rep != NULL);
    need(fields_decode(rep, op->rep, op->rep_size, body, FIELDS_VIEW, mem, &e), &e, op->name);
    return rep;
}

static void on_reported(void *arg, int code, struct str msg, struct str body)
{
    (void)arg;
    (void)body;
    if (code != 0)
        fail("status", msg);
    b.stored++;
}

static struct task *task_at(uint64_t slot)
{
    CHECK(slot < TASKS);
    return &b.tasks[slot];
}

static void learn(struct task *t, enum phase phase)
{
    t->told = phase;
    if (t->since_us && b.measuring && t->phase == phase) {
        if (b.nlatency < b.cap_latency)
            b.latency_us[b.nlatency++] = (uint32_t)(now_us() - t->since_us);
        b.told++;
    }
    if (t->phase == phase)
        t->since_us = 0;
}

static void on_assigned(void *arg, int code, struct str msg, struct str body)
{
    struct agent *a = arg;
    struct arena mem;
    const struct disp_assignments_reply *r = decoded(&op_disp_assignments, code, msg, body, &mem);
    const struct assignment *v = r->Tasks.v;
    struct task_status s[64];
    struct disp_status req = { .SessionID = str_from(a->session), .Statuses = { s, 0 } };
    b.polls += b.measuring;
    a->seq = r->Seq;
    for (size_t i = 0; i < r->Tasks.n; i++) {
        struct task *t = task_at(v[i].Slot);
        bool run = str_is(v[i].DesiredState, "running");
        CHECK(str_eq(v[i].NodeID, str_from(a->node)) && v[i].Spec.n > 0);
        if (str_is(v[i].ID, t->id))
            learn(t, run ? RUNNING : STOPPING);
        if (!run && v[i].DrainMs && !v[i].Drained && b.meshing)
            continue; /* others still send to it */
        b.drained += !run && b.measuring;
        if (run && str_is(v[i].ID, t->id))
            t->ready_us = now_us();
        if (req.Statuses.n < sizeof s / sizeof s[0])
            s[req.Statuses.n++] = (struct task_status){ .TaskID = v[i].ID,
                                                        .State = run ? STR("running") : STR("shutdown"),
                                                        .Message = run ? STR("started") : STR("shutdown"),
                                                        .Timestamp = clock_wall().ns,
                                                        .ContainerID = v[i].ID,
                                                        .PID = 4711,
                                                        .HasContainer = true };
    }
    for (size_t i = 0; i < r->Removed.n; i++)
        for (unsigned k = (unsigned)(a - b.agents); k < TASKS; k += b.nodes)
            if (str_is(r->Removed.v[i], b.tasks[k].id))
                learn(&b.tasks[k], ABSENT);
    poll_assignments(a);
    if (req.Statuses.n) {
        b.reports++;
        call(a, &op_disp_status, &req, on_reported);
    }
    arena_done(&mem);
}

static void poll_assignments(struct agent *a)
{
    struct disp_assignments req = { str_from(a->session), a->seq, a->heartbeat_ms };
    call(a, &op_disp_assignments, &req, on_assigned);
}

/* ---- their meshds ---- */

static void poll_network(struct agent *a);

/* What is looked at of an answer: the list of all nodes is only stepped over. */
struct net_reply {
    uint64_t Seq;
    bool Full;
    struct list Networks, Endpoints;
    struct strs GoneNetworks, GoneEndpoints;
};
static const struct field net_reply_fields[] = {
    FIELD_U64(struct net_reply, Seq, 0, UINT64_MAX),
    FIELD_BOOL(struct net_reply, Full),
    FIELD_LIST(struct net_reply, Networks, net_network_fields, struct net_network, 1000000),
    FIELD_LIST(struct net_reply, Endpoints, net_endpoint_fields, struct net_endpoint, 1000000),
    FIELD_STRS(struct net_reply, GoneNetworks, 1000000),
    FIELD_STRS(struct net_reply, GoneEndpoints, 1000000),
    FIELD_END,
};

static unsigned own_net(const struct agent *a)
{
    return (unsigned)(a - b.agents) % NETS;
}

static void take_endpoint(struct agent *a, const struct net_endpoint *e)
{
    const char *dot = e->Name.n ? memchr(e->Name.p, '.', e->Name.n) : NULL;
    CHECK(dot != NULL);
    uint64_t slot = strtoull(dot + 1, NULL, 10);
    struct task *t = task_at(slot);
    if (!str_is(e->NetworkID, b.net[own_net(a)])) {
        CHECK(str_is(e->NetworkID, b.ingress) && a->has_ingress);
        return;
    }
    CHECK(a->has_net && slot % NETS == own_net(a));
    struct seen *s = &a->seen[slot / NETS];
    CHECK(str_copy(s->id, sizeof s->id, e->ID));
    s->state = e->State.p[0];
    if (s->state == 'r' && t->ready_us && str_is(e->ID, t->id) && b.measuring && b.nnet_latency < b.cap_latency)
        b.net_latency_us[b.nnet_latency++] = (uint32_t)(now_us() - t->ready_us);
}

static void take_gone(struct agent *a, struct str what)
{
    for (unsigned i = 0; i < ON_NET; i++)
        if (what.n > ID_LEN + 1 && str_is((struct str){ what.p + ID_LEN + 1, what.n - ID_LEN - 1 }, a->seen[i].id) &&
            memcmp(what.p, b.net[own_net(a)], ID_LEN) == 0)
            a->seen[i].state = 0;
}

static void take_networks(struct agent *a, const struct net_reply *r)
{
    const struct net_network *n = r->Networks.v;
    if (r->Full)
        a->has_net = a->has_ingress = false;
    for (size_t i = 0; i < r->GoneNetworks.n; i++) {
        CHECK(str_is(r->GoneNetworks.v[i], b.net[own_net(a)]));
        a->has_net = false;
    }
    if (!a->has_net)
        memset(a->seen, 0, sizeof a->seen);
    for (size_t i = 0; i < r->Networks.n; i++)
        *(n[i].Ingress ? &a->has_ingress : &a->has_net) = true;
    for (size_t i = 0; i < r->GoneEndpoints.n; i++)
        take_gone(a, r->GoneEndpoints.v[i]);
    for (size_t i = 0; i < r->Endpoints.n; i++)
        take_endpoint(a, &((const struct net_endpoint *)r->Endpoints.v)[i]);
}

static void on_networks(void *arg, int code, struct str msg, struct str body)
{
    struct agent *a = arg;
    struct net_reply r;
    struct arena mem;
    struct err e = ERR_INIT;
    if (code != 0)
        fail("network", msg);
    arena_init(&mem, 256u << 20);
    need(fields_decode(&r, net_reply_fields, sizeof r, body, FIELDS_VIEW, &mem, &e), &e, "network");
    b.net_polls += b.measuring;
    b.net_bytes += b.measuring ? body.n : 0;
    b.net_fulls += r.Full;
    b.net_news += b.measuring ? r.Endpoints.n + r.GoneEndpoints.n : 0;
    take_networks(a, &r);
    a->net_seq = r.Seq;
    arena_done(&mem);
    poll_network(a);
}

static void poll_network(struct agent *a)
{
    struct str held[2];
    struct disp_network req = { .Seq = a->net_seq, .WaitMs = 30000, .Networks = { held, 0 } };
    if (a->has_ingress)
        held[req.Networks.n++] = str_from(b.ingress);
    if (a->has_net)
        held[req.Networks.n++] = str_from(b.net[own_net(a)]);
    call(a, &op_disp_network, &req, on_networks);
}

static bool all_meshing(void)
{
    for (unsigned i = 0; i < b.nodes; i++)
        if (b.agents[i].net_seq == 0)
            return false;
    return true;
}

/* kernel_wrong - a running task must be known as ready where its network is, and nothing else may be known. */
static bool kernel_wrong(const struct agent *a)
{
    unsigned n = (unsigned)(a - b.agents);
    bool wanted = false;
    for (unsigned i = n; i < TASKS; i += b.nodes)
        wanted |= b.tasks[i].phase == RUNNING && i % NETS == own_net(a);
    if (a->has_net != wanted)
        return true;
    for (unsigned i = 0; wanted && i < ON_NET; i++) {
        const struct task *t = &b.tasks[i * NETS + own_net(a)];
        bool ready = t->phase == RUNNING;
        if (ready != (a->seen[i].state != 0) ||
            (ready && (a->seen[i].state != 'r' || strcmp(a->seen[i].id, t->id) != 0)))
            return true;
    }
    return false;
}

static void hello(struct agent *a);

static void on_opened(void *arg, int code, struct str msg, struct str body)
{
    struct agent *a = arg;
    struct arena mem;
    if (code == ERR_UNAVAILABLE && b.refused++ < b.nodes) { /* it does not lead yet */
        hello(a);
        return;
    }
    const struct disp_session_reply *r = decoded(&op_disp_session, code, msg, body, &mem);
    CHECK(str_copy(a->session, sizeof a->session, r->SessionID));
    a->heartbeat_ms = r->HeartbeatMs;
    arena_done(&mem);
    b.open++;
    poll_assignments(a);
}

static void hello(struct agent *a)
{
    static struct buf d;
    static char pem[900];
    if (d.n == 0) {
        memset(pem, 'A', sizeof pem - 1);
        mp_map(&d, 3);
        mp_kv_cstr(&d, "Hostname", "worker");
        mp_cstr(&d, "Resources");
        mp_map(&d, 2);
        mp_kv_i64(&d, "NanoCPUs", 4000000000);
        mp_kv_i64(&d, "MemoryBytes", 8ll << 30);
        mp_cstr(&d, "TLSInfo");
        mp_map(&d, 1);
        mp_kv_cstr(&d, "TrustRoot", pem);
    }
    struct disp_session req = { .Hostname = STR("worker"), .Description = buf_str(&d) };
    call(a, &op_disp_session, &req, on_opened);
}

static bool all_open(void)
{
    return b.open == b.nodes;
}

/* ---- the run ---- */

static uint64_t until_us;
static bool time_over(void)
{
    return now_us() >= until_us;
}

static void run_for(uint64_t ms)
{
    until_us = now_us() + ms * 1000;
    run_until(time_over, ms + 60000, "the run");
}

static bool at_rest(void)
{
    if (b.writing)
        return false;
    for (unsigned i = 0; i < TASKS; i++)
        if (b.tasks[i].told != b.tasks[i].phase)
            return false;
    for (unsigned i = 0; b.meshing && i < b.nodes; i++)
        if (kernel_wrong(&b.agents[i]))
            return false;
    return true;
}

static int by_value(const void *x, const void *y)
{
    uint32_t p = *(const uint32_t *)x, q = *(const uint32_t *)y;
    return p < q ? -1 : p > q;
}

static double percentile(uint32_t *v, size_t n, double p)
{
    if (n)
        qsort(v, n, sizeof *v, by_value);
    return n ? v[(size_t)((double)(n - 1) * p)] / 1000.0 : 0;
}

static void figure(const char *name, double value, const char *unit, const char *target)
{
    printf("{\"name\":\"agents_%u.%s\",\"value\":%.3f,\"unit\":\"%s\"%s%s}\n", b.nodes, name, value, unit,
           *target ? ",\"target\":" : "", target);
    fflush(stdout);
}

static bool two_thirds(unsigned i)
{
    return i % PHASES != 0;
}

static bool one_third(unsigned i)
{
    return i % PHASES == 2;
}

static void measure(void)
{
    b.measuring = true;
    b.cap_latency = (size_t)b.rate * (b.seconds + 10);
    b.latency_us = calloc(b.cap_latency, sizeof *b.latency_us);
    b.net_latency_us = calloc(b.cap_latency, sizeof *b.net_latency_us);
    CHECK(b.latency_us && b.net_latency_us);
    uint64_t changes = b.changes, stored = b.stored, t0 = now_us();
    double cpu = cpu_seconds(b.dispatcherd), raft = cpu_seconds(b.raftd);
    run_for(b.seconds * 1000ull);
    double s = (double)(now_us() - t0) / 1e6;
    b.measuring = false;
    figure("cpu", (cpu_seconds(b.dispatcherd) - cpu) / s, "cores", "1.0");
    figure("memory", memory_mib(b.dispatcherd, "Pss:"), "MiB", "300");
    figure("private_memory", memory_mib(b.dispatcherd, "Private_Dirty:") + memory_mib(b.dispatcherd, "Private_Clean:"),
           "MiB", "");
    figure("task_changes", (double)(b.changes - changes) / s, "a second", "1000");
    figure("told", (double)b.told / s, "a second", "");
    figure("reports", (double)(b.stored - stored) / s, "a second", "");
    figure("polls", (double)b.polls / s, "a second", "");
    figure("told_after_p50", percentile(b.latency_us, b.nlatency, 0.5), "ms", "");
    figure("told_after_p99", percentile(b.latency_us, b.nlatency, 0.99), "ms", "");
    figure("network_answers", (double)b.net_polls / s, "a second", "");
    figure("network_news", (double)b.net_news / s, "endpoints a second", "");
    figure("network_bytes", (double)b.net_bytes / s / 1048576, "MiB a second", "");
    figure("network_told_after_p50", percentile(b.net_latency_us, b.nnet_latency, 0.5), "ms", "");
    figure("network_told_after_p99", percentile(b.net_latency_us, b.nnet_latency, 0.99), "ms", "");
    figure("drained", (double)b.drained / s, "a second", "");
    figure("raftd_cpu", (cpu_seconds(b.raftd) - raft) / s, "cores", "");
}

static void options(int argc, char **argv)
{
    int c;
    b.bin = getenv("MICROSWARM_BIN") ? getenv("MICROSWARM_BIN") : "build/bin";
    b.nodes = 10000;
    b.rate = 1000;
    b.seconds = 20;
    b.on_ingress = 5;
    while ((c = getopt(argc, argv, "b:n:c:s:i:")) != -1) {
        if (c == 'b')
            b.bin = optarg;
        else if (c == 'n')
            b.nodes = (unsigned)strtoul(optarg, NULL, 10);
        else if (c == 'c')
            b.rate = (unsigned)strtoul(optarg, NULL, 10);
        else if (c == 's')
            b.seconds = (unsigned)strtoul(optarg, NULL, 10);
        else if (c == 'i')
            b.on_ingress = (unsigned)strtoul(optarg, NULL, 10);
        else
            exit(2);
    }
    if (b.nodes < NETS || b.nodes > TASKS || b.nodes % NETS || b.rate < 100 || b.seconds < 1) {
        fprintf(stderr,
                "agents [-b BIN] [-n NODES: thousands, 1000..%u] [-c CHANGES_A_SECOND: 100 or more] [-s SECONDS] "
                "[-i TASKS_OF_1000_ON_INGRESS]\n",
                TASKS);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    struct err e = ERR_INIT;
    char cmd[128];
    options(argc, argv);
    if (geteuid() != 0) {
        fprintf(stderr, "agents: must be run as root, to speak as gatewayd does\n");
        return 1;
    }
    log_init("agents");
    arena_init(&b.arena, 512u << 20);
    snprintf(b.dir, sizeof b.dir, "/tmp/agents-bench-XXXXXX");
    CHECK(mkdtemp(b.dir) != NULL);
    snprintf(b.run, sizeof b.run, "%s/run", b.dir);
    snprintf(b.state, sizeof b.state, "%s/state", b.dir);
    CHECK(mkdir(b.run, 0755) == 0 && mkdir(b.state, 0755) == 0);
    b.agents = calloc(b.nodes, sizeof *b.agents);
    b.tasks = calloc(TASKS, sizeof *b.tasks);
    CHECK(b.agents && b.tasks && sd_event_new(&b.loop) >= 0);
    for (unsigned i = 0; i < b.nodes; i++)
        id_new(b.agents[i].node);
    for (unsigned i = 0; i < NETS; i++) {
        id_new(b.service[i]);
        id_new(b.net[i]);
    }
    id_new(b.ingress);
    id_new(b.spec);
    b.raftd = start("raftd");
    b.dispatcherd = start("dispatcherd");
    need(rpc_client_open(&b.raft, b.loop, b.run, "raftd", &e), &e, "raftd");
    need(rpc_client_open(&b.disp, b.loop, b.run, "dispatcherd", &e), &e, "dispatcherd");
    bootstrap();
    make_nodes();

    uint64_t t0 = now_us();
    for (unsigned i = 0; i < b.nodes; i++)
        hello(&b.agents[i]);
    run_until(all_open, CALL_MS, "sessions");
    figure("all_sessions_open", (double)(now_us() - t0) / 1e6, "s", "");
    double cpu = cpu_seconds(b.dispatcherd);
    t0 = now_us();
    b.meshing = true;
    for (unsigned i = 0; i < b.nodes; i++)
        poll_network(&b.agents[i]);
    run_until(all_meshing, 4 * CALL_MS, "first answers about networks");
    figure("all_networks_told", (double)(now_us() - t0) / 1e6, "s", "");
    figure("all_networks_told_cpu", cpu_seconds(b.dispatcherd) - cpu, "s", "");
    run_for(6000); /* everybody's first polls end, so that the heartbeats are spread */
    cpu = cpu_seconds(b.dispatcherd);
    t0 = now_us();
    run_for(10000);
    figure("heartbeats_cpu", (cpu_seconds(b.dispatcherd) - cpu) / ((double)(now_us() - t0) / 1e6), "cores", "");

    change_tasks(TASKS, two_thirds);
    run_until(at_rest, CALL_MS, "first tasks");
    change_tasks(TASKS, one_third);
    run_until(at_rest, CALL_MS, "first stops");
    b.next = 0;
    CHECK(sd_event_add_time(b.loop, &b.timer, CLOCK_MONOTONIC, now_us(), 1, on_step, NULL) >= 0);
    run_for(3000);
    measure();
    b.timer = sd_event_source_disable_unref(b.timer);
    run_until(at_rest, SETTLE_MS, "what agents or kernels know is not what the store says");

    kill(b.dispatcherd, SIGTERM);
    kill(b.raftd, SIGTERM);
    waitpid(b.dispatcherd, NULL, 0);
    waitpid(b.raftd, NULL, 0);
    snprintf(cmd, sizeof cmd, "rm -rf %s", b.dir);
    int r = system(cmd);
    fflush(stdout);
    _exit(r == 0 ? 0 : 1); /* nng takes many seconds to close 20,000 contexts */
}
