/*
 * multi_test.c - several raftds as real processes, and a gatewayd that is made up: elections, replication, catching up,
 * coming and going.
 *
 * With --raftd this program is one raftd; the process of the tests plays the gatewayds of all nodes. It passes
 * datagrams and requests on between their run folders, says who each node is, and can cut any two nodes off from each
 * other: then nothing passes, and both are told.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/daemon/daemon.h"
#include "common/daemon/oneway.h"
#include "common/proto/msg_gatewayd.h"
#include "common/store/store.h"
#include "common/util/check.h"
#include "common/util/clock.h"
#include "raftd/node.h"
#include "raftd/ops.h"
#include "raftd/probes.h"
#include "raftd/test_dir.h"

#define NODES 5
#define PATIENCE_MS 20000u

/* ---- one raftd ---- */

static int raftd_start(struct err *e)
{
    node_conf.snapshot_interval = 50;
    node_conf.snapshot_keep = 5;
    node_conf.snapshot_bytes = 1ull << 40;
    node_conf.slow_reader_ms = 1000;
    node_conf.leader_wait_ms = 4000;
    for (unsigned i = 0; i < WHO_COUNT; i++)
        node_conf.authority.uid[i] = getuid();
    return node_start(e);
}

static int raftd_main(char **argv)
{
    static const struct route routes[] = { OPS_ROUTES, { 0 } };
    static const struct daemon_spec spec = {
        .name = "raftd",
        .routes = routes,
        .probes = probes,
        .max_calls = 256,
        .start = raftd_start,
        .drain = node_drain,
        .stop = node_stop,
        .status = probes_status,
        .metrics = probes_metrics,
    };
    char user[64];
    char *args[] = { "raftd", "-c", "/dev/null", "-r", argv[2], "-s", argv[3], "-o", user, NULL };
    snprintf(user, sizeof user, "user_gatewayd=%u", getuid());
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return daemon_main(9, args, &spec);
}

/* ---- the nodes, and what their gatewayds know ---- */

struct fake {
    int i;
    char id[8], addr[32];
    char run[300], state[300], log[300];
    pid_t pid;
    struct oneway *peers;
    struct rpc_server *server;
    struct rpc_client *raftd;
    struct store *store;
    const char *role; /* "": in no swarm */
    uint64_t seq;
    struct rpc_call *poll;
};

static struct fake nodes[NODES];
static bool cut[NODES][NODES];
static bool silent; /* cuts are not told, and requests get lost on the way, as with a cable pulled */
static struct rpc_call *lost[256];
static int n_lost;
static bool lose_answers;
static int deaf; /* no datagram reaches this node; -1: none */
static sd_event *loop;
static uint64_t dropped_every; /* loses one datagram of so many; 0: none */

static struct fake *by_id(struct str id)
{
    for (int i = 0; i < NODES; i++)
        if (str_is(id, nodes[i].id))
            return &nodes[i];
    return NULL;
}

static void frame(struct fake *to, const char *kind, const char *from, struct str body)
{
    struct buf b = BUF_INIT;
    struct gw_peer_frame f = { str_from(kind), str_from(from), body };
    fields_encode(&f, gw_peer_frame_fields, &b);
    if (to->peers != NULL)
        (void)oneway_send(to->peers, buf_str(&b), (struct str){ NULL, 0 });
    buf_done(&b);
}

static void on_frame(void *arg, struct str msg)
{
    static uint64_t n;
    struct fake *from = arg;
    struct gw_peer_frame f;
    struct arena a;
    struct err e = ERR_INIT;
    arena_init(&a, 4096);
    assert_int_equal(fields_decode(&f, gw_peer_frame_fields, sizeof f, msg, FIELDS_STRICT, &a, &e), 0);
    struct fake *to = by_id(f.Node);
    bool drop = dropped_every != 0 && ++n % dropped_every == 0;
    if (to != NULL && !cut[from->i][to->i] && to->i != deaf && !drop)
        frame(to, "msg", from->id, f.Body);
    arena_done(&a);
}

static void on_peers(void *arg, bool up)
{
    struct fake *f = arg;
    for (int i = 0; i < NODES; i++) {
        if (i == f->i || cut[f->i][i])
            continue;
        frame(&nodes[i], up ? "up" : "down", f->id, (struct str){ NULL, 0 });
        if (up)
            frame(f, nodes[i].pid > 0 ? "up" : "down", nodes[i].id, (struct str){ NULL, 0 });
    }
}

static void identity_reply(struct rpc_call *c, struct fake *f)
{
    bool in = f->role[0] != 0;
    struct gw_identity_reply r = { .Seq = f->seq,
                                   .State = str_from(in ? "active" : "inactive"),
                                   .NodeID = str_from(in ? f->id : ""),
                                   .ClusterID = str_from(in ? "c" : ""),
                                   .Role = str_from(f->role),
                                   .AdvertiseAddr = str_from(f->addr) };
    rpc_reply(c, &r);
}

static void identity(struct fake *f, const char *role)
{
    f->role = role;
    f->seq++;
    if (f->poll != NULL)
        identity_reply(f->poll, f);
    f->poll = NULL;
}

static void on_identity(struct rpc_call *c, const void *req)
{
    const struct gw_identity *in = req;

    struct fake *f = NULL;
    for (int i = 0; i < NODES; i++) /* by the process that asks */
        if (nodes[i].pid == rpc_peer_pid(c))
            f = &nodes[i];
    if (f == NULL)
        rpc_fail(c, ERR_UNAVAILABLE, "who are you");
    else if (in->Seq < f->seq)
        identity_reply(c, f);
    else
        f->poll = c;
}

static struct fake *leader_seen_by(const struct fake *from)
{
    for (int i = 0; i < NODES; i++) {
        struct store_snap *snap;
        struct store_meta m;
        struct err e = ERR_INIT;
        bool leads = false;
        if (nodes[i].pid <= 0 || cut[from->i][i] || store_begin(nodes[i].store, &snap, &e) < 0)
            continue;
        leads = store_meta(snap, &m, &e) == 0 && m.leader;
        store_end(snap);
        if (leads)
            return &nodes[i];
    }
    return NULL;
}

static void on_relayed(void *arg, int code, struct str msg, struct str body)
{
    if (lose_answers && n_lost < 256)
        lost[n_lost++] = arg;
    else
        rpc_reply_raw(arg, code, msg, body);
}

static void relay(struct rpc_call *c, const struct rpc_request *rq)
{
    struct fake *from = NULL;
    for (int i = 0; i < NODES; i++)
        if (nodes[i].pid == rpc_peer_pid(c))
            from = &nodes[i];
    struct fake *to = from == NULL ? NULL : str_is(rq->to, "leader") ? leader_seen_by(from) : by_id(rq->to);
    if (to != NULL && silent && cut[from->i][to->i] && n_lost < 256) {
        lost[n_lost++] = c;
        return;
    }
    if (to == NULL || to->pid <= 0 || cut[from->i][to->i]) {
        rpc_fail(c, ERR_UNAVAILABLE, "node " STR_FMT " is not connected", STR_ARG(rq->to));
        return;
    }
    struct rpc_origin o = { RPC_MANAGER, str_from(from->id), STR("raftd"), { "", 0 } };
    rpc_send_raw(to->raftd, rq->op, rq->body, &o, (unsigned)rq->ttl, on_relayed, c);
}

/* ---- time ---- */

static uint64_t now(void)
{
    return clock_mono().ms;
}

#define WAIT(cond)                                                                                                     \
    do {                                                                                                               \
        uint64_t until_ = now() + PATIENCE_MS;                                                                         \
        while (!(cond)) {                                                                                              \
            if (now() >= until_)                                                                                       \
                fail_msg("never: " #cond);                                                                             \
            assert_true(sd_event_run(loop, 5000) >= 0);                                                                \
        }                                                                                                              \
    } while (0)

static void run_for(uint64_t ms)
{
    for (uint64_t until = now() + ms; now() < until;)
        assert_true(sd_event_run(loop, 5000) >= 0);
}

/* ---- requests ---- */

struct answer {
    uint64_t revision, raft_id, leader_reachable, members, term, first, last, applied;
    struct err e;
    char state[33], leader[65];
    bool done;
};

static void on_reply(void *arg, const void *rep, const struct err *e)
{
    struct answer *a = arg;
    a->done = true;
    a->e = *e;
    if (rep != NULL)
        a->revision = ((const struct raftd_txn_reply *)rep)->Revision;
}

static void on_status(void *arg, const void *rep, const struct err *e)
{
    struct answer *a = arg;
    const struct raftd_status *s = rep;
    a->done = true;
    a->e = *e;
    if (rep == NULL)
        return;
    str_copy(a->state, sizeof a->state, s->State);
    str_copy(a->leader, sizeof a->leader, s->LeaderID);
    a->revision = s->Revision;
    a->term = s->Term;
    a->first = s->FirstIndex;
    a->last = s->LastIndex;
    a->applied = s->Applied;
}

static void on_members(void *arg, const void *rep, const struct err *e)
{
    struct answer *a = arg;
    const struct raftd_members_reply *r = rep;
    const struct raftd_member *m = r ? r->Members.v : NULL;
    a->done = true;
    a->e = *e;
    for (size_t i = 0; r != NULL && i < r->Members.n; i++) {
        a->members++;
        a->leader_reachable += m[i].Reachable;
        if (m[i].Leader)
            str_copy(a->leader, sizeof a->leader, m[i].NodeID);
    }
}

static struct answer ask(struct fake *f, const struct op *op, const void *req, rpc_done_fn *fn)
{
    struct answer a = { 0 };
    rpc_send(f->raftd, op, req, 10000, fn, &a);
    WAIT(a.done);
    return a;
}

static struct answer status(struct fake *f)
{
    static const struct raftd_empty none;
    return ask(f, &op_raftd_status, &none, on_status);
}

static struct answer members(struct fake *f)
{
    static const struct raftd_empty none;
    return ask(f, &op_raftd_members, &none, on_members);
}

static void write_start(struct fake *f, const char *id, size_t bytes, struct answer *a)
{
    struct buf b = BUF_INIT;
    char *data = calloc(1, bytes + 1);
    mp_map(&b, 1);
    mp_cstr(&b, "Data");
    mp_bin(&b, (struct str){ data, bytes });
    struct txn_change ch = { STR("create"), STR("task"), str_from(id), buf_str(&b) };
    struct raftd_txn t = { .Changes = { &ch, 1 } };
    *a = (struct answer){ 0 };
    rpc_send(f->raftd, &op_raftd_txn, &t, 10000, on_reply, a);
    buf_done(&b);
    free(data);
}

static struct answer put(struct fake *f, const char *id)
{
    struct answer a;
    write_start(f, id, 10, &a);
    WAIT(a.done);
    return a;
}

static void put_many(struct fake *f, const char *prefix, int n)
{
    char id[32];
    for (int i = 0; i < n; i++) {
        snprintf(id, sizeof id, "%s%d", prefix, i);
        struct answer a = put(f, id);
        if (a.e.code != 0)
            fail_msg("%s: %s", id, a.e.msg);
    }
}

static bool has(struct fake *f, const char *id)
{
    struct store_snap *snap;
    struct str doc;
    struct err e = ERR_INIT;
    if (store_begin(f->store, &snap, &e) < 0)
        return false;
    bool there = store_get(snap, KIND_TASK, str_from(id), &doc) == 0;
    store_end(snap);
    return there;
}

static struct answer barrier(struct fake *f)
{
    static const struct raftd_empty none;
    return ask(f, &op_raftd_barrier, &none, on_reply);
}

/* What the map of a node says. */
struct seen {
    uint64_t revision, term, members, voters;
    bool initialized, leader;
    char leader_id[65], addr[NODES][65];
};

static struct seen look(struct fake *f)
{
    struct seen s = { 0 };
    struct store_snap *snap;
    struct store_meta m;
    struct store_member v[STORE_MEMBERS_MAX];
    struct err e = ERR_INIT;
    if (store_begin(f->store, &snap, &e) < 0)
        return s;
    if (store_meta(snap, &m, &e) == 0) {
        s.revision = m.revision;
        s.term = m.term;
        s.initialized = m.initialized;
        s.leader = m.leader;
        str_copy(s.leader_id, sizeof s.leader_id, m.leader_id);
    }
    s.members = store_members(snap, v);
    for (size_t i = 0; i < s.members; i++) {
        struct fake *who = by_id(v[i].node_id);
        s.voters += !v[i].learner;
        if (who != NULL)
            str_copy(s.addr[who->i], sizeof s.addr[0], v[i].addr);
    }
    store_end(snap);
    return s;
}

/* ---- starting and stopping ---- */

static void start(struct fake *f)
{
    f->pid = fork();
    if (f->pid == 0) {
        int fd = open(f->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(fd, 2);
        execl("/proc/self/exe", "raftd", "--raftd", f->run, f->state, (char *)NULL);
        _exit(127);
    }
}

static int stop(struct fake *f, int sig)
{
    int st;
    uint64_t until = now() + PATIENCE_MS;
    kill(f->pid, sig);
    while (waitpid(f->pid, &st, WNOHANG) == 0) { /* it may still have something to say to the others */
        assert_true(now() < until);
        assert_true(sd_event_run(loop, 1000) >= 0);
    }
    f->pid = 0;
    f->poll = NULL;
    return WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
}

static void cut_off(int a, int b, bool on)
{
    cut[a][b] = cut[b][a] = on;
    if (silent)
        return;
    frame(&nodes[a], on ? "down" : "up", nodes[b].id, (struct str){ NULL, 0 });
    frame(&nodes[b], on ? "down" : "up", nodes[a].id, (struct str){ NULL, 0 });
}

static void isolate(struct fake *f, bool on)
{
    for (int i = 0; i < NODES; i++)
        if (i != f->i)
            cut_off(f->i, i, on);
}

static struct fake *leader_now(void)
{
    for (int i = 0; i < NODES; i++)
        if (nodes[i].pid > 0 && look(&nodes[i]).leader)
            return &nodes[i];
    return NULL;
}

/* leader - waits for one: on a busy machine they may elect another at any time. */
static struct fake *leader(void)
{
    struct fake *l;
    WAIT((l = leader_now()) != NULL);
    return l;
}

static struct fake *follower(void)
{
    struct fake *l = leader();
    for (int i = 0; i < NODES; i++)
        if (nodes[i].pid > 0 && &nodes[i] != l && look(&nodes[i]).voters > 0)
            return &nodes[i];
    fail();
    return NULL;
}

static void doc_role(struct buf *b, const char *role)
{
    mp_map(b, 1);
    mp_cstr(b, "Spec");
    mp_map(b, 1);
    mp_kv_cstr(b, "Role", role);
}

static void boot(void)
{
    struct buf b = BUF_INIT;
    doc_role(&b, "manager");
    struct txn_change ch[NODES + 1] = { { STR("create"), STR("cluster"), STR("c"), STR("\x80") } };
    for (int i = 0; i < NODES; i++)
        ch[i + 1] = (struct txn_change){ STR("create"), STR("node"), str_from(nodes[i].id), buf_str(&b) };
    struct raftd_bootstrap req = { .ClusterID = STR("c"),
                                   .NodeID = str_from(nodes[0].id),
                                   .Addr = str_from(nodes[0].addr),
                                   .Changes = { ch, NODES + 1 } };
    start(&nodes[0]);
    struct answer a = ask(&nodes[0], &op_raftd_bootstrap, &req, on_reply);
    if (a.e.code != 0)
        fail_msg("%s", a.e.msg);
    buf_done(&b);
    identity(&nodes[0], "manager");
}

static bool all_see(int n, uint64_t voters)
{
    for (int i = 0; i < n; i++)
        if (nodes[i].pid > 0 && (look(&nodes[i]).voters != voters || look(&nodes[i]).members != voters))
            return false;
    return true;
}

static void join(int i)
{
    start(&nodes[i]);
    identity(&nodes[i], "manager");
    WAIT(all_see(i + 1, (uint64_t)i + 1));
}

static void group_of(int n)
{
    boot();
    for (int i = 1; i < n; i++)
        join(i);
}

static int setup(void **state)
{
    struct err e = ERR_INIT;
    static const struct route routes[] = { { &op_gw_identity, on_identity }, { 0 } };
    if (test_dir_make(state) < 0)
        return -1;
    memset(cut, 0, sizeof cut);
    silent = lose_answers = false;
    n_lost = 0;
    deaf = -1;
    dropped_every = 0;
    for (int i = 0; i < NODES; i++) {
        struct fake *f = &nodes[i];
        *f = (struct fake){ .i = i, .role = "", .seq = 1 };
        snprintf(f->id, sizeof f->id, "n%d", i + 1);
        snprintf(f->addr, sizeof f->addr, "10.0.0.%d:2377", i + 1);
        snprintf(f->run, sizeof f->run, "%s/r%d", test_dir, i);
        snprintf(f->state, sizeof f->state, "%s/s%d", test_dir, i);
        snprintf(f->log, sizeof f->log, "%s/log%d", test_dir, i);
        mkdir(f->run, 0700);
        mkdir(f->state, 0700);
        if (rpc_server_open(&f->server, loop, f->run, "gatewayd", routes, 256, &e) < 0 ||
            rpc_client_open(&f->raftd, loop, f->run, "raftd", &e) < 0 ||
            oneway_dial(&f->peers, loop, f->run, GW_PEERS_SOCKET, getuid(), on_frame, on_peers, f, &e) < 0 ||
            store_open(&f->store, f->run, false, &e) < 0) {
            fprintf(stderr, "%s\n", e.msg);
            return -1;
        }
        rpc_server_relay(f->server, relay);
    }
    return 0;
}

static void print_logs(void)
{
    for (int i = 0; i < NODES; i++) {
        static char text[1 << 16];
        int fd = open(nodes[i].log, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
        if (n > 0)
            fprintf(stderr, "---- %s\n%.*s", nodes[i].id, (int)n, text);
        if (fd >= 0)
            close(fd);
    }
}

static int teardown(void **state)
{
    if (getenv("TEST_LOGS") != NULL)
        print_logs();
    for (int i = 0; i < NODES; i++) {
        struct fake *f = &nodes[i];
        if (f->pid > 0) {
            kill(f->pid, SIGKILL);
            waitpid(f->pid, NULL, 0);
        }
        f->peers = oneway_free(f->peers);
        f->server = rpc_server_free(f->server);
        f->raftd = rpc_client_free(f->raftd);
        f->store = store_close(f->store);
    }
    return test_dir_remove(state);
}

/* ---- tests ---- */

static void test_three(void **state)
{
    (void)state;
    group_of(3);
    struct fake *l = leader(), *f = follower();
    assert_int_equal(put(l, "a").e.code, 0);
    struct answer a = put(f, "b"); /* through a follower, and there at once */
    if (a.e.code != 0)
        fail_msg("%s", a.e.msg);
    assert_true(has(f, "b") && has(f, "a"));
    struct answer s = status(f);
    assert_string_equal(s.state, "follower");
    assert_string_equal(s.leader, l->id);
    assert_string_equal(look(f).leader_id, l->id);
    assert_false(look(f).leader);
    assert_int_equal(put(l, "c").e.code, 0);
    assert_true(barrier(f).revision >= look(l).revision);
    assert_true(has(f, "c"));
    struct answer m = members(f);
    assert_int_equal(m.members, 3);
    assert_int_equal(m.leader_reachable, 3);
    assert_string_equal(m.leader, l->id);
    a = put(f, "a"); /* a conflict comes back as one */
    assert_int_equal(a.e.code, ERR_CONFLICT);
    put_many(f, "f", 100);
    put_many(l, "l", 100);
    for (int i = 0; i < 3; i++) {
        WAIT(look(&nodes[i]).revision == look(l).revision);
        assert_true(has(&nodes[i], "f99") && has(&nodes[i], "l99"));
    }
    /* what is fenced is for the leader's own daemons */
    struct txn_change ch = { STR("purge"), STR("task"), STR("a"), { NULL, 0 } };
    struct raftd_txn t = { .Term = look(l).term, .Changes = { &ch, 1 } };
    assert_int_equal(ask(f, &op_raftd_txn, &t, on_reply).e.code, ERR_UNAVAILABLE);
    assert_int_equal(ask(l, &op_raftd_txn, &t, on_reply).e.code, 0);
}

static void test_leader_dies(void **state)
{
    (void)state;
    uint64_t slowest = 0;
    group_of(3);
    for (int round = 0; round < 5; round++) {
        char id[16];
        WAIT(leader_now() != NULL);
        struct fake *l = leader(), *f = follower();
        snprintf(id, sizeof id, "before%d", round);
        assert_int_equal(put(l, id).e.code, 0);
        stop(l, SIGKILL);
        uint64_t t0 = now();
        snprintf(id, sizeof id, "after%d", round);
        struct answer a = put(f, id);
        if (a.e.code != 0)
            fail_msg("%s", a.e.msg);
        slowest = now() - t0 > slowest ? now() - t0 : slowest;
        start(l);
        WAIT(has(l, id) && look(l).voters == 3);
    }
    print_message("slowest write after the leader was killed: %llu ms\n", (unsigned long long)slowest);
    assert_true(slowest < 1000);
    for (int i = 0; i < 5; i++) {
        char id[16];
        snprintf(id, sizeof id, "before%d", i);
        assert_true(has(&nodes[0], id) && has(&nodes[1], id) && has(&nodes[2], id));
    }
}

static void test_cut(void **state)
{
    (void)state;
    group_of(3);
    struct fake *l = leader(), *f = follower();
    struct answer limbo, a;
    assert_int_equal(put(l, "a").e.code, 0);
    isolate(l, true);
    write_start(l, "limbo", 10, &limbo);
    a = put(f, "b");
    if (a.e.code != 0)
        fail_msg("%s", a.e.msg);
    WAIT(limbo.done);
    assert_true(limbo.e.code == ERR_TIMEOUT || limbo.e.code == ERR_UNAVAILABLE);
    assert_false(look(l).leader);
    a = put(l, "c");
    assert_int_equal(a.e.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(a.e.msg, "The swarm does not have a leader."));
    assert_false(has(l, "b"));
    uint64_t t0 = now();
    isolate(l, false);
    WAIT(has(l, "b"));
    print_message("the old leader follows after %llu ms\n", (unsigned long long)(now() - t0));
    assert_false(has(l, "limbo"));
    assert_int_equal(put(l, "d").e.code, 0);
    assert_true(has(l, "d"));
}

/* A leader applies what it sends before it is committed. When it never is, nobody has seen it. */
static void test_ahead(void **state)
{
    (void)state;
    group_of(3);
    struct fake *l = leader(), *f = follower();
    struct answer a[20];
    assert_int_equal(put(l, "before").e.code, 0);
    uint64_t revision = look(l).revision;
    silent = true; /* it goes on leading for a while */
    isolate(l, true);
    for (int i = 0; i < 20; i++) {
        char id[16];
        snprintf(id, sizeof id, "s%d", i);
        write_start(l, id, 10, &a[i]);
    }
    for (int i = 0; i < 20; i++) {
        run_for(10);
        assert_false(has(l, "s0"));
        assert_int_equal(look(l).revision, revision);
        assert_false(a[i].done);
    }
    for (int i = 0; i < 20; i += 2) { /* the same objects, of another leader */
        char id[16];
        snprintf(id, sizeof id, "s%d", i);
        assert_int_equal(put(f, id).e.code, 0);
    }
    isolate(l, false);
    silent = false;
    WAIT(has(l, "s18"));
    for (int i = 0; i < 20; i++)
        WAIT(a[i].done);
    assert_int_equal(put(l, "after").e.code, 0);
    WAIT(look(l).revision == look(f).revision);
    for (int i = 0; i < 20; i++) {
        char id[16];
        snprintf(id, sizeof id, "s%d", i);
        assert_int_equal(has(l, id), has(f, id));
        assert_int_equal(has(l, id), i % 2 == 0 || a[i].e.code == 0);
        assert_true(i % 2 == 1 || a[i].e.code != 0);
    }
}

/* The leader's cable is pulled: requests on their way to it are lost, and nobody says so. What became of them, the log
 * of the next leader tells. */
static void test_silence(void **state)
{
    (void)state;
    group_of(3);
    struct fake *l = leader(), *f = follower();
    struct answer a[20], b;
    assert_int_equal(put(f, "before").e.code, 0);
    silent = true;
    isolate(l, true);
    uint64_t t0 = now();
    for (int i = 0; i < 20; i++) {
        char id[16];
        snprintf(id, sizeof id, "s%d", i);
        write_start(f, id, 10, &a[i]);
    }
    static const struct raftd_empty none;
    b = (struct answer){ 0 };
    rpc_send(f->raftd, &op_raftd_barrier, &none, 10000, on_reply, &b);
    for (int i = 0; i < 20; i++) {
        WAIT(a[i].done);
        if (a[i].e.code != 0)
            fail_msg("s%d: %s", i, a[i].e.msg);
    }
    WAIT(b.done);
    assert_int_equal(b.e.code, 0);
    print_message("writes through a follower went on %llu ms after the leader fell silent\n",
                  (unsigned long long)(now() - t0));
    assert_true(now() - t0 < 3500);
    assert_true(n_lost > 0);
    isolate(l, false);
    while (n_lost > 0)
        rpc_fail(lost[--n_lost], ERR_TIMEOUT, "the link to node %s was lost (closed); raftd.forward: outcome unknown",
                 l->id);
    WAIT(has(l, "s19"));
    assert_int_equal(put(f, "after").e.code, 0);
}

/* The answer is lost, and the entry comes inside a snapshot: nobody can know, and nothing is done twice. */
static void test_lost_in_a_snapshot(void **state)
{
    (void)state;
    group_of(3);
    struct fake *l = leader(), *f = follower();
    struct answer a;
    deaf = f->i;
    lose_answers = true;
    write_start(f, "once", 10, &a);
    WAIT(n_lost == 1);
    lose_answers = false;
    WAIT(has(l, "once"));
    uint64_t first = look(l).revision;
    put_many(l, "x", 200);
    assert_int_equal(put(l, "once").e.code, ERR_CONFLICT);
    deaf = -1;
    WAIT(has(f, "x199"));
    WAIT(a.done);
    assert_int_equal(a.e.code, ERR_TIMEOUT);
    assert_non_null(strstr(a.e.msg, "outcome unknown"));
    rpc_fail(lost[--n_lost], ERR_TIMEOUT, "the link to node %s was lost (closed): outcome unknown", l->id);
    assert_int_equal(put(f, "after").e.code, 0);
    WAIT(look(l).revision >= first + 201); /* the follower may be the first to have it */
    assert_int_equal(look(l).revision, first + 201);
}

/* The answer is lost, and the leader too: the log tells that it was done. */
static void test_lost_answer(void **state)
{
    (void)state;
    group_of(3);
    struct fake *l = leader(), *f = follower();
    struct answer a[10];
    lose_answers = true;
    for (int i = 0; i < 10; i++) {
        char id[16];
        snprintf(id, sizeof id, "s%d", i);
        write_start(f, id, 10, &a[i]);
    }
    for (int i = 0; i < 10; i++) {
        WAIT(a[i].done);
        assert_int_equal(a[i].e.code, 0);
    }
    lose_answers = false;
    while (n_lost > 0)
        rpc_fail(lost[--n_lost], ERR_TIMEOUT, "the link to node %s was lost (closed): outcome unknown", l->id);
    assert_int_equal(put(f, "after").e.code, 0);
}

static void test_lossy(void **state)
{
    (void)state;
    group_of(3);
    dropped_every = 7;
    put_many(leader(), "x", 60);
    put_many(follower(), "y", 60);
    dropped_every = 0;
    for (int i = 0; i < 3; i++)
        WAIT(has(&nodes[i], "x59") && has(&nodes[i], "y59"));
}

static void test_snapshot(void **state)
{
    (void)state;
    group_of(3);
    struct fake *l = leader(), *f = follower();
    stop(f, SIGTERM);
    put_many(l, "x", 300); /* an interval is 50 */
    assert_true(status(l).first > 100);
    start(f);
    WAIT(has(f, "x299"));
    WAIT(look(f).voters == 3);
    assert_true(status(f).first > 100);
    put_many(f, "y", 10);
    join(3); /* one that has nothing gets the snapshot, too */
    assert_true(has(&nodes[3], "x0") && has(&nodes[3], "x299"));
    stop(&nodes[3], SIGKILL); /* a reboot: the maps are gone */
    test_tree_remove(nodes[3].run);
    mkdir(nodes[3].run, 0700);
    nodes[3].server = rpc_server_free(nodes[3].server);
    nodes[3].raftd = rpc_client_free(nodes[3].raftd);
    nodes[3].peers = oneway_free(nodes[3].peers);
    struct err e = ERR_INIT;
    static const struct route routes[] = { { &op_gw_identity, on_identity }, { 0 } };
    assert_int_equal(rpc_server_open(&nodes[3].server, loop, nodes[3].run, "gatewayd", routes, 256, &e), 0);
    rpc_server_relay(nodes[3].server, relay);
    assert_int_equal(rpc_client_open(&nodes[3].raftd, loop, nodes[3].run, "raftd", &e), 0);
    assert_int_equal(
        oneway_dial(&nodes[3].peers, loop, nodes[3].run, GW_PEERS_SOCKET, getuid(), on_frame, on_peers, &nodes[3], &e),
        0);
    start(&nodes[3]);
    WAIT(has(&nodes[3], "x299") && look(&nodes[3]).voters == 4);
}

static struct answer member_remove(struct fake *at, struct fake *who)
{
    struct raftd_member_remove in = { str_from(who->id) };
    return ask(at, &op_raftd_member_remove, &in, on_reply);
}

static void node_role(struct fake *who, const char *role)
{
    struct buf b = BUF_INIT;
    doc_role(&b, role);
    struct txn_change ch = { STR("update"), STR("node"), str_from(who->id), buf_str(&b) };
    struct raftd_txn t = { .Changes = { &ch, 1 } };
    assert_int_equal(ask(leader(), &op_raftd_txn, &t, on_reply).e.code, 0);
    buf_done(&b);
}

static void test_removal(void **state)
{
    (void)state;
    group_of(3);
    struct fake *l = leader(), *f = follower(), *other = NULL;
    for (int i = 0; i < 3; i++)
        if (&nodes[i] != l && &nodes[i] != f)
            other = &nodes[i];
    put_many(l, "x", 10);
    node_role(f, "worker");
    assert_int_equal(member_remove(l, f).e.code, 0);
    assert_int_equal(look(l).members, 2);
    assert_int_equal(member_remove(l, f).e.code, 0); /* done already */
    identity(f, "worker");
    WAIT(!look(f).initialized);
    assert_string_equal(status(f).state, "uninitialized");
    /* and back, with a new number */
    node_role(f, "manager");
    identity(f, "manager");
    WAIT(look(f).voters == 3 && has(f, "x9"));
    /* the leader hands over first */
    struct answer a = member_remove(l, l);
    assert_int_equal(a.e.code, ERR_UNAVAILABLE);
    WAIT(leader_now() != NULL && leader_now() != l);
    node_role(l, "worker");
    do
        a = member_remove(leader(), l);
    while (a.e.code == ERR_UNAVAILABLE);
    assert_int_equal(a.e.code, 0);
    identity(l, "worker");
    WAIT(!look(l).initialized);
    /* Two are left, and one dies: it can go, since what is left then is a quorum by itself. */
    WAIT(leader_now() != NULL);
    struct fake *last = leader(), *dead = last == f ? other : f;
    stop(dead, SIGKILL);
    assert_int_equal(member_remove(last, dead).e.code, 0);
    assert_int_equal(put(last, "alone").e.code, 0);
    a = member_remove(last, last);
    assert_int_equal(a.e.code, ERR_PRECONDITION);
    assert_string_equal(a.e.msg, "can't remove member from the raft: this would result in a loss of quorum");
}

static void test_quorum(void **state)
{
    (void)state;
    group_of(3);
    struct fake *l = leader(), *f = follower();
    stop(f, SIGKILL);
    run_for(1100); /* wait: until the leader has not heard of it for an election timeout */
    for (int i = 0; i < 3; i++) {
        if (&nodes[i] == l || &nodes[i] == f)
            continue;
        struct answer a = member_remove(l, &nodes[i]); /* of the two left one does not answer */
        assert_int_equal(a.e.code, ERR_PRECONDITION);
        assert_string_equal(a.e.msg, "can't remove member from the raft: this would result in a loss of quorum");
    }
    assert_int_equal(members(l).leader_reachable, 2);
    assert_int_equal(member_remove(l, f).e.code, 0); /* the dead one may go */
    assert_int_equal(look(l).voters, 2);
    /* it was off meanwhile: it finds out, and joins again, since it is a manager by all else */
    start(f);
    WAIT(look(l).voters == 3 && look(f).voters == 3);
}

static void test_planned_stop(void **state)
{
    (void)state;
    group_of(3);
    struct fake *l = leader(), *f = follower();
    struct answer a[20];
    put_many(l, "x", 10);
    kill(l->pid, SIGTERM);
    uint64_t t0 = now();
    for (int i = 0; i < 20; i++) {
        char id[16];
        snprintf(id, sizeof id, "s%d", i);
        write_start(f, id, 10, &a[i]);
    }
    for (int i = 0; i < 20; i++) {
        WAIT(a[i].done);
        if (a[i].e.code != 0)
            fail_msg("s%d: %s", i, a[i].e.msg);
    }
    print_message("writes during a planned stop of the leader took %llu ms\n", (unsigned long long)(now() - t0));
    assert_true(now() - t0 < 500);
    assert_int_equal(stop(l, SIGTERM), 0);
}

static void test_force_new(void **state)
{
    (void)state;
    static const struct raftd_empty none;
    group_of(3);
    struct fake *l = leader(), *f = follower();
    put_many(l, "x", 120);
    WAIT(has(f, "x119"));
    for (int i = 0; i < 3; i++)
        if (&nodes[i] != f)
            stop(&nodes[i], SIGKILL);
    assert_int_equal(put(f, "y").e.code, ERR_UNAVAILABLE);
    struct answer a = ask(f, &op_raftd_force_new, &none, on_reply);
    if (a.e.code != 0)
        fail_msg("%s", a.e.msg);
    assert_true(look(f).leader && look(f).voters == 1);
    assert_true(has(f, "x0") && has(f, "x119"));
    assert_int_equal(put(f, "y").e.code, 0);
    uint64_t term = look(f).term;
    /* the others come back with the group as it was: they do no harm */
    for (int i = 0; i < 3; i++)
        if (&nodes[i] != f)
            start(&nodes[i]);
    put_many(f, "z", 20);
    run_for(1500); /* wait: they elect one of them */
    assert_true(look(f).leader);
    assert_int_equal(look(f).term, term);
    assert_true(has(f, "y") && has(f, "z19"));
    stop(f, SIGTERM);
    start(f);
    WAIT(look(f).leader && has(f, "z19") && look(f).voters == 1);
}

static void test_large(void **state)
{
    (void)state;
    struct answer a;
    group_of(3);
    struct fake *l = leader(), *f = follower();
    write_start(l, "large", 20 << 20, &a);
    struct answer small = put(f, "small");
    assert_int_equal(small.e.code, 0);
    WAIT(a.done);
    if (a.e.code != 0)
        fail_msg("%s", a.e.msg);
    write_start(f, "large2", 3 << 20, &a); /* passed on, and back */
    WAIT(a.done);
    assert_int_equal(a.e.code, 0);
    for (int i = 0; i < 3; i++)
        WAIT(has(&nodes[i], "large") && has(&nodes[i], "large2"));
    assert_true(leader() == l);
}

static void test_address(void **state)
{
    (void)state;
    group_of(3);
    struct fake *l = leader(), *f = follower();
    assert_string_equal(look(l).addr[f->i], f->addr);
    stop(f, SIGTERM);
    snprintf(f->addr, sizeof f->addr, "10.9.9.9:2377");
    f->seq++;
    start(f);
    WAIT(strcmp(look(l).addr[f->i], "10.9.9.9:2377") == 0);
    snprintf(l->addr, sizeof l->addr, "10.9.9.8:2377"); /* the leader's own */
    identity(l, "manager");
    WAIT(strcmp(look(f).addr[l->i], "10.9.9.8:2377") == 0);
    assert_int_equal(look(l).voters, 3);
}

/* A manager whose disk was replaced: it has no log, and the group still counts it. */
static void test_lost_disk(void **state)
{
    (void)state;
    char path[400];
    group_of(3);
    struct fake *l = leader(), *f = follower();
    put_many(l, "x", 10);
    stop(f, SIGKILL);
    snprintf(path, sizeof path, "%s/raft", f->state);
    test_tree_remove(path);
    start(f);
    WAIT(has(f, "x9") && look(f).voters == 3 && look(l).voters == 3);
}

static void test_leave(void **state)
{
    (void)state;
    static const struct raftd_empty none;
    group_of(3);
    struct fake *f = follower();
    assert_int_equal(ask(f, &op_raftd_reset, &none, on_reply).e.code, 0);
    assert_false(look(f).initialized);
    run_for(300); /* wait: it does not go back by itself */
    assert_string_equal(status(f).state, "uninitialized");
    assert_int_equal(put(leader(), "x").e.code, 0);
}

static void test_five(void **state)
{
    (void)state;
    group_of(5);
    put_many(leader(), "x", 20);
    struct fake *one = leader();
    stop(one, SIGKILL);
    WAIT(leader_now() != NULL);
    struct fake *two = leader();
    stop(two, SIGKILL);
    WAIT(leader_now() != NULL);
    struct answer a = put(follower(), "y");
    if (a.e.code != 0)
        fail_msg("%s", a.e.msg);
    start(one);
    start(two);
    WAIT(has(one, "y") && has(two, "y"));
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--raftd") == 0)
        return raftd_main(argv);
    signal(SIGPIPE, SIG_IGN);
    if (sd_event_default(&loop) < 0)
        return 1;
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_three),       T(test_leader_dies), T(test_cut),
        T(test_lossy),       T(test_silence),     T(test_lost_in_a_snapshot),
        T(test_lost_answer), T(test_snapshot),    T(test_removal),
        T(test_quorum),      T(test_five),        T(test_planned_stop),
        T(test_force_new),   T(test_large),       T(test_address),
        T(test_lost_disk),   T(test_leave),       T(test_ahead),
    };
    if (getenv("TEST_FILTER") != NULL)
        cmocka_set_test_filter(getenv("TEST_FILTER"));
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    sd_event_unref(loop);
    return r;
}
