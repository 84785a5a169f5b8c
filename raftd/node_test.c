/*
 * node_test.c - a whole raftd over its real sockets: requests, peers, feeds, probes, full disks, refusals to start.
 *
 * With --raftd this program is the daemon; the tests are the other process.
 */
#include <errno.h>
#include <fcntl.h>
#include <nng/nng.h>
#include <nng/protocol/pubsub0/sub.h>
#include <nng/protocol/reqrep0/req.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/daemon/daemon.h"
#include "common/store/store.h"
#include "raftd/node.h"
#include "raftd/ops.h"
#include "raftd/probes.h"
#include "raftd/test_dir.h"

static int raftd_start(struct err *e)
{
    node_conf.snapshot_interval = 50;
    node_conf.snapshot_keep = 5;
    node_conf.snapshot_bytes = 1ull << 40;
    node_conf.slow_reader_ms = 1000;
    node_conf.leader_wait_ms = 5000;
    for (unsigned i = 0; i < WHO_COUNT; i++)
        node_conf.authority.uid[i] = (uid_t)-1;
    const char *who = getenv("TEST_WHO"); /* which daemon we are, by our user */
    for (unsigned i = 0; i < WHO_COUNT; i++)
        if (who == NULL || strcmp(who, who_name[i]) == 0)
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
        .start = raftd_start,
        .drain = node_drain,
        .stop = node_stop,
        .status = probes_status,
        .metrics = probes_metrics,
    };
    char *args[] = { "raftd", "-c", "/dev/null", "-r", argv[2], "-s", argv[3], "-o", "log_level=error", NULL };
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return daemon_main(9, args, &spec);
}

/* ---- starting and stopping it ---- */

static char run_dir[300], state_dir[300], notify_path[320], log_path[320];
static int notify_fd = -1;
static pid_t pid;
static struct err e;

static bool start(void)
{
    char text[64];
    pid = fork();
    if (pid == 0) {
        int fd = open(log_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(fd, 2);
        setenv("NOTIFY_SOCKET", notify_path, 1);
        execl("/proc/self/exe", "raftd", "--raftd", run_dir, state_dir, (char *)NULL);
        _exit(127);
    }
    int pid_fd = pidfd_open(pid, 0);
    bool ready = false, over = false;
    while (!ready && !over) {
        struct pollfd p[2] = { { notify_fd, POLLIN, 0 }, { pid_fd, POLLIN, 0 } };
        assert_true(poll(p, 2, 30000) > 0);
        ssize_t n = p[0].revents ? recv(notify_fd, text, sizeof text - 1, MSG_DONTWAIT) : 0;
        ready = n > 6 && strncmp(text, "READY=1", 7) == 0;
        over = n <= 0 && p[1].revents != 0;
    }
    close(pid_fd);
    return ready;
}

static int stop(int sig)
{
    int st;
    char text[64];
    if (sig != 0)
        kill(pid, sig);
    assert_int_equal(waitpid(pid, &st, 0), pid);
    while (recv(notify_fd, text, sizeof text, MSG_DONTWAIT) >= 0)
        ;
    pid = 0;
    return WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
}

static int setup(void **state)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    unsetenv("TEST_WHO");
    if (test_dir_make(state) < 0)
        return -1;
    snprintf(run_dir, sizeof run_dir, "%s/run", test_dir);
    snprintf(state_dir, sizeof state_dir, "%s/state", test_dir);
    snprintf(notify_path, sizeof notify_path, "%s/notify", test_dir);
    snprintf(log_path, sizeof log_path, "%s/raftd.log", test_dir);
    mkdir(run_dir, 0700);
    mkdir(state_dir, 0700);
    snprintf(sa.sun_path, sizeof sa.sun_path, "%.100s", notify_path);
    notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return bind(notify_fd, (struct sockaddr *)&sa, sizeof sa);
}

static int teardown(void **state)
{
    if (pid > 0)
        stop(SIGKILL);
    close(notify_fd);
    umount2(run_dir, MNT_DETACH);
    umount2(state_dir, MNT_DETACH);
    return test_dir_remove(state);
}

/* ---- requests ---- */

static int call(const struct op *op, const void *req, void *rep)
{
    static struct arena a;
    struct raftd_txn_reply unused;
    arena_done(&a);
    arena_init(&a, 64u << 20);
    e = (struct err)ERR_INIT;
    return rpc_call_sync(run_dir, "raftd", op, req, 20000, rep ? rep : &unused, &a, &e);
}

static int boot(void)
{
    struct buf tokens = BUF_INIT;
    mp_map(&tokens, 2);
    mp_kv_cstr(&tokens, "JoinTokens", "SWMTKN-let-me-in");
    mp_kv_cstr(&tokens, "Shown", "yes");
    struct txn_change ch[2] = { { STR("create"), STR("cluster"), STR("c"), buf_str(&tokens) },
                                { STR("create"), STR("node"), STR("n"), STR("\x80") } };
    struct raftd_bootstrap req = { .ClusterID = STR("c"), .NodeID = STR("n"), .Changes = { ch, 2 } };
    int r = call(&op_raftd_bootstrap, &req, NULL);
    buf_done(&tokens);
    return r;
}

static int one(const char *op, const char *kind, const char *id, const char *field, struct str val)
{
    struct buf b = BUF_INIT;
    struct txn_change ch = { str_from(op), str_from(kind), str_from(id), { NULL, 0 } };
    if (field != NULL) {
        mp_map(&b, 1);
        mp_cstr(&b, field);
        mp_bin(&b, val);
        ch.Doc = buf_str(&b);
    }
    struct raftd_txn req = { .Changes = { &ch, 1 } };
    int r = call(&op_raftd_txn, &req, NULL);
    buf_done(&b);
    return r;
}

static uint64_t revision(void)
{
    struct raftd_status s;
    struct raftd_empty none = { 0 };
    assert_int_equal(call(&op_raftd_status, &none, &s), 0);
    return s.Revision;
}

static const char *probe(const char *line)
{
    static char text[1 << 16];
    char url[400];
    nng_socket s;
    size_t n = sizeof text - 1;
    snprintf(url, sizeof url, "ipc://%s/raftd.probe", run_dir);
    assert_int_equal(nng_req0_open(&s), 0);
    assert_int_equal(nng_socket_set_ms(s, NNG_OPT_RECVTIMEO, 10000), 0);
    assert_int_equal(nng_dial(s, url, NULL, 0), 0);
    assert_int_equal(nng_send(s, (void *)line, strlen(line), 0), 0);
    assert_int_equal(nng_recv(s, text, &n, 0), 0);
    text[n] = 0;
    nng_close(s);
    return text;
}

/* ---- tests ---- */

static void test_life(void **state)
{
    (void)state;
    struct raftd_empty none = { 0 };
    struct raftd_status s;
    struct raftd_txn_reply rep;
    assert_true(start());
    assert_int_equal(call(&op_raftd_status, &none, &s), 0);
    assert_true(str_is(s.State, "uninitialized"));
    assert_int_equal(one("create", "task", "t", "ServiceID", STR("s")), -ERR_UNAVAILABLE);
    assert_int_equal(call(&op_raftd_barrier, &none, &rep), -ERR_UNAVAILABLE);
    assert_int_equal(call(&op_raftd_reset, &none, &none), -ERR_PRECONDITION);
    assert_int_equal(boot(), 0);
    assert_int_equal(boot(), -ERR_PRECONDITION);
    assert_int_equal(call(&op_raftd_status, &none, &s), 0);
    assert_true(str_is(s.State, "leader") && str_is(s.NodeID, "n") && str_is(s.LeaderID, "n"));
    assert_int_equal(one("create", "task", "t", "ServiceID", STR("s")), 0);
    assert_int_equal(call(&op_raftd_barrier, &none, &rep), 0);
    assert_int_equal(rep.Revision, 2);
    assert_int_equal(stop(SIGTERM), 0);
    assert_true(start());
    assert_int_equal(revision(), 2);
    assert_int_equal(call(&op_raftd_reset, &none, &none), 0);
    assert_int_equal(call(&op_raftd_status, &none, &s), 0);
    assert_true(str_is(s.State, "uninitialized"));
    assert_true(test_missing("state/raft/log"));
    assert_int_equal(boot(), 0); /* and again */
    assert_int_equal(revision(), 1);
}

static void test_bootstrap_that_does_not_hold(void **state)
{
    (void)state;
    struct txn_change ch[2] = { { STR("create"), STR("node"), STR("n"), STR("\x80") },
                                { STR("create"), STR("node"), STR("n"), STR("\x80") } };
    struct raftd_bootstrap req = { .ClusterID = STR("c"), .NodeID = STR("n"), .Changes = { ch, 2 } };
    assert_true(start());
    assert_int_equal(call(&op_raftd_bootstrap, &req, NULL), -ERR_CONFLICT);
    req.Changes.n = 0;
    assert_int_equal(call(&op_raftd_bootstrap, &req, NULL), -ERR_INVALID);
    assert_int_equal(boot(), 0);
}

static void test_bad_requests(void **state)
{
    (void)state;
    static char big[TXN_BYTES_MAX];
    assert_true(start());
    assert_int_equal(boot(), 0);
    assert_int_equal(one("explode", "task", "t", NULL, STR("")), -ERR_INVALID);
    assert_non_null(strstr(e.msg, "Changes[0].Op"));
    assert_int_equal(one("create", "planet", "t", "X", STR("")), -ERR_INVALID);
    assert_int_equal(one("create", "task", "t", NULL, STR("")), -ERR_INVALID);
    assert_int_equal(one("delete", "task", "t", "X", STR("")), -ERR_INVALID);
    assert_int_equal(one("create", "task", "t", "X", (struct str){ big, sizeof big }), -ERR_TOO_BIG);
    assert_int_equal(one("create", "task", "t", "X", (struct str){ big, sizeof big - 4096 }),
                     0); /* chunked in the log */
    assert_int_equal(revision(), 2);
    assert_int_equal(stop(SIGKILL), 128 + SIGKILL);
    test_tree_remove(run_dir);
    mkdir(run_dir, 0700);
    assert_true(start());
    assert_int_equal(revision(), 2);
}

static void test_authority(void **state)
{
    (void)state;
    struct raftd_empty none = { 0 };
    assert_true(start());
    assert_int_equal(boot(), 0);
    assert_int_equal(one("create", "task", "t", "ServiceID", STR("s")), 0);
    stop(SIGTERM);
    setenv("TEST_WHO", "schedulerd", 1);
    assert_true(start());
    assert_int_equal(one("update", "task", "t", "NodeID", STR("n")), 0);
    assert_int_equal(one("update", "task", "t", "DesiredState", STR("remove")), -ERR_DENIED);
    assert_string_equal(e.msg, "schedulerd may not change task.DesiredState");
    assert_int_equal(one("create", "secret_data", "x", "Data", STR("n")), -ERR_DENIED);
    assert_int_equal(call(&op_raftd_reset, &none, &none), -ERR_DENIED);
    assert_int_equal(boot(), -ERR_DENIED);
    stop(SIGTERM);
    setenv("TEST_WHO", "nobody", 1);
    assert_true(start());
    assert_int_equal(one("update", "task", "t", "NodeID", STR("n")), -ERR_DENIED);
    assert_int_equal(revision(), 3);
}

static nng_socket subscribe(const char *name)
{
    char url[400];
    nng_socket s;
    snprintf(url, sizeof url, "ipc://%s/%s", run_dir, name);
    assert_int_equal(nng_sub0_open(&s), 0);
    assert_int_equal(nng_socket_set(s, NNG_OPT_SUB_SUBSCRIBE, "", 0), 0);
    assert_int_equal(nng_socket_set_ms(s, NNG_OPT_RECVTIMEO, 10000), 0);
    assert_int_equal(nng_dial(s, url, NULL, 0), 0);
    return s;
}

static void expect_text(nng_socket s, const char *want)
{
    char text[512];
    size_t n = sizeof text - 1;
    assert_int_equal(nng_recv(s, text, &n, 0), 0);
    text[n] = 0;
    assert_string_equal(text, want);
}

static void test_feeds(void **state)
{
    (void)state;
    assert_true(start());
    assert_int_equal(boot(), 0);
    nng_socket events = subscribe("raftd.events"), wake = subscribe("raftd.wake");
    (void)probe("version"); /* raftd's side has seen the connections by now, or does with the next */
    int r = one("create", "credential", "k", "Data", STR("geheim"));
    assert_int_equal(r, 0);
    char text[512];
    size_t n = sizeof text - 1;
    nng_socket_set_ms(events, NNG_OPT_RECVTIMEO, 2000);
    if (nng_recv(events, text, &n, 0) == 0) {
        text[n] = 0;
        assert_string_equal(text, "{\"kind\":\"credential\",\"id\":\"k\",\"op\":\"create\",\"revision\":2}\n");
    }
    nng_socket_set_ms(events, NNG_OPT_RECVTIMEO, 10000);
    assert_int_equal(one("create", "task", "t\"1", "ServiceID", STR("s")), 0);
    expect_text(events, "{\"kind\":\"task\",\"id\":\"t\\\"1\",\"op\":\"create\",\"revision\":3}\n");
    assert_int_equal(one("purge", "task", "t\"1", NULL, STR("")), 0);
    expect_text(events, "{\"kind\":\"task\",\"id\":\"t\\\"1\",\"op\":\"delete\",\"revision\":4}\n");
    n = sizeof text;
    assert_int_equal(nng_recv(wake, text, &n, 0), 0);
    nng_close(events);
    nng_close(wake);
}

static void test_probes(void **state)
{
    (void)state;
    assert_true(start());
    assert_non_null(strstr(probe("status"), "\"state\":\"uninitialized\""));
    assert_string_equal(probe("members"), "{\"members\":[]}");
    assert_int_equal(boot(), 0);
    assert_int_equal(one("create", "secret_data", "x", "Data", STR("geheim")), 0);
    assert_int_equal(one("create", "task", "t1", "ServiceID", STR("s")), 0);
    assert_non_null(strstr(probe("status"), "\"state\":\"leader\""));
    assert_non_null(strstr(probe("members"), "\"id\":\"n\""));
    assert_non_null(strstr(probe("get task/t1"), "\"ID\":\"t1\""));
    assert_non_null(strstr(probe("get task/t2"), "not found"));
    assert_non_null(strstr(probe("get secret_data/x"), "secret"));
    assert_null(strstr(probe("get secret_data/x"), "geheim"));
    assert_non_null(strstr(probe("list secret_data"), "error"));
    assert_non_null(
        strstr(probe("list task"), "{\"kind\":\"task\",\"count\":1,\"objects\":[{\"id\":\"t1\",\"rev\":3}]}"));
    assert_non_null(strstr(probe("get cluster/c"), "\"Shown\":\"yes\""));
    assert_null(strstr(probe("get cluster/c"), "SWMTKN"));
    static const char *const bad[] = { "get", "get ", "get task", "get task/", "get /x", "list", "list ", "list x/y" };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_non_null(strstr(probe(bad[i]), "error"));
    assert_non_null(strstr(probe("metrics"), "microswarm_raftd_leader 1\n"));
    assert_non_null(strstr(probe("metrics"), "microswarm_raftd_revision 3\n"));
    assert_non_null(strstr(probe("readers"), "\"readers\":[]"));
}

/* The SP protocol by hand: nng itself always sends whole messages. */
static void send_and_hang_up(const char *p, size_t n, size_t cut)
{
    static const char hello[8] = { 0, 'S', 'P', 0, 0, 0x30, 0, 0 };
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    char head[13] = { 1 }, theirs[8];
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(sa.sun_path, sizeof sa.sun_path, "%.90s/raftd.sock", run_dir);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(write(fd, hello, sizeof hello), sizeof hello);
    assert_int_equal(read(fd, theirs, sizeof theirs), sizeof theirs);
    head[7] = (char)((n + 4) >> 8);
    head[8] = (char)(n + 4);
    head[9] = (char)0x80; /* request id */
    assert_int_equal(write(fd, head, sizeof head), sizeof head);
    assert_int_equal(write(fd, p, n - cut), n - cut);
    close(fd);
}

static void test_client_hangs_up(void **state)
{
    (void)state;
    struct buf b = BUF_INIT, body = BUF_INIT;
    assert_true(start());
    assert_int_equal(boot(), 0);
    for (int i = 0; i < 60; i++) {
        char id[16];
        snprintf(id, sizeof id, "h%d", i);
        struct txn_change ch = { STR("create"), STR("task"), str_from(id), STR("\x80") };
        struct raftd_txn req = { .Changes = { &ch, 1 } };
        buf_clear(&b);
        buf_clear(&body);
        fields_encode(&req, op_raftd_txn.req, &body);
        struct rpc_request rq = { .v = RPC_VERSION, .id = 1, .op = STR("txn"), .body = buf_str(&body) };
        fields_encode(&rq, rpc_request_fields, &b);
        send_and_hang_up(b.p, b.n, (size_t)i % 3 * (b.n / 3));
    }
    buf_done(&b);
    buf_done(&body);
    assert_int_equal(one("create", "task", "after", "ServiceID", STR("s")), 0);
    assert_non_null(strstr(probe("get task/after"), "after"));
    assert_non_null(strstr(probe("get task/h1"), "not found")); /* cut in the middle: it never was */
}

/* Many entries: snapshots are taken and the log is cut, while requests go on; a reboot then starts from the snapshot.
 */
static void test_snapshots(void **state)
{
    (void)state;
    struct raftd_empty none = { 0 };
    struct raftd_status s;
    assert_true(start());
    assert_int_equal(boot(), 0);
    assert_int_equal(one("create", "task", "t", "ServiceID", STR("s")), 0);
    for (int i = 0; i < 400; i++)
        assert_int_equal(one("update", "task", "t", "StartNotBefore", STR("s")), 0);
    assert_int_equal(call(&op_raftd_status, &none, &s), 0);
    assert_true(s.FirstIndex > 100);
    assert_int_equal(s.LastIndex, 404); /* with the leader's own, and the list of members */
    stop(SIGKILL);
    test_tree_remove(run_dir);
    mkdir(run_dir, 0700);
    assert_true(start());
    assert_int_equal(revision(), 402);
    assert_non_null(strstr(probe("get task/t"), "\"Rev\":402"));
}

static bool log_says(const char *text)
{
    char all[8192];
    size_t n = test_read("raftd.log", all, sizeof all);
    all[n] = 0;
    return strstr(all, text) != NULL;
}

static void test_refuses_to_start(void **state)
{
    (void)state;
    static char whole[1 << 20];
    assert_true(start());
    assert_int_equal(boot(), 0);
    for (int i = 0; i < 60; i++)
        assert_int_equal(one("create", "task", (char[]){ (char)('A' + i), 0 }, "ServiceID", STR("s")), 0);
    stop(SIGTERM);
    size_t n = test_read("state/raft/log/seg-0000000001", whole, sizeof whole);
    test_write("state/raft/log/seg-0000000001", whole, n / 2);
    assert_false(start());
    assert_int_equal(stop(0), 1);
    assert_true(log_says("seg-0000000001: cut short"));
    test_write("state/raft/log/seg-0000000001", whole, n);
    char key[128];
    size_t kn = test_read("state/raft/log/data.key", key, sizeof key);
    test_remove("state/raft/log/data.key");
    assert_false(start());
    assert_int_equal(stop(0), 1);
    assert_true(log_says("data.key is missing"));
    test_write("state/raft/log/data.key", key, kn);
    assert_true(start());
    assert_int_equal(revision(), 61);
}

static bool small_disk(const char *path, const char *size, bool again)
{
    char opt[64];
    snprintf(opt, sizeof opt, "size=%s", size);
    return mount("tmpfs", path, "tmpfs", again ? MS_REMOUNT : 0, opt) == 0;
}

static void test_full_disk(void **state)
{
    (void)state;
    static char data[20000];
    uint64_t before = 0;
    int r = 0;
    if (!small_disk(state_dir, "600k", false))
        skip();
    assert_true(start());
    assert_int_equal(boot(), 0);
    for (int i = 0; i < 100 && r == 0; i++) {
        char id[16];
        snprintf(id, sizeof id, "t%d", i);
        before = revision();
        r = one("create", "task", id, "Data", (struct str){ data, sizeof data });
    }
    assert_int_equal(r, -ERR_IO);
    assert_non_null(strstr(e.msg, "No space left on device"));
    assert_int_equal(revision(), before); /* and it goes on */
    assert_non_null(strstr(probe("status"), "\"state\":\"leader\""));
    assert_true(small_disk(state_dir, "4m", true));
    assert_int_equal(one("create", "task", "later", "Data", (struct str){ data, sizeof data }), 0);
    assert_int_equal(revision(), before + 1);
    stop(SIGKILL);
    assert_true(start());
    assert_int_equal(revision(), before + 1);
}

static void test_full_map(void **state)
{
    (void)state;
    static char data[50000];
    uint64_t before = 0;
    int r = 0;
    if (!small_disk(run_dir, "3m", false))
        skip();
    assert_true(start());
    assert_int_equal(boot(), 0);
    for (int i = 0; i < 200 && r == 0; i++) {
        char id[16];
        snprintf(id, sizeof id, "t%d", i);
        before = revision();
        r = one("create", "task", id, "Data", (struct str){ data, sizeof data });
    }
    assert_int_equal(r, -ERR_IO);
    assert_non_null(strstr(e.msg, "the store is full"));
    assert_int_equal(revision(), before);
    for (int i = 0; i < 10; i++) { /* removing makes room */
        char id[16];
        snprintf(id, sizeof id, "t%d", i);
        assert_int_equal(one("purge", "task", id, NULL, STR("")), 0);
    }
    for (int i = 0; i < 3; i++) /* LMDB hands pages back two commits later */
        assert_int_equal(one("purge", "task", "none", NULL, STR("")), 0);
    assert_int_equal(one("create", "task", "later", "Data", (struct str){ data, 1000 }), 0);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--raftd") == 0)
        return raftd_main(argv);
    if (unshare(CLONE_NEWNS) == 0) /* mounts of ours are nobody else's */
        (void)mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_life),
        T(test_bootstrap_that_does_not_hold),
        T(test_bad_requests),
        T(test_authority),
        T(test_feeds),
        T(test_probes),
        T(test_client_hangs_up),
        T(test_snapshots),
        T(test_refuses_to_start),
        T(test_full_disk),
        T(test_full_map),
    };
    if (getenv("TEST_FILTER") != NULL)
        cmocka_set_test_filter(getenv("TEST_FILTER"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
