/*
 * crash_test.c - kills raftd before, and in the middle of, each of its writes to log, keys, snapshots and maps, one
 * after the other, and looks at what comes back.
 *
 * This program is also the raftd that it kills: with --raftd it runs the daemon, whose system calls that change files
 * go through the functions below (LMDB's, too: the program's symbols come before libc's). The n-th such call is the
 * end. The other process is the client; it knows what was acknowledged, restarts raftd once with the maps that were
 * left and once without (a reboot), and checks that every acknowledged transaction is there and each of the others as a
 * whole or not at all. It goes on with n + 1 until a run ends by itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
#include "raftd/test_fault.h"

/* ---- the raftd that dies ---- */

static int raftd_start(struct err *e)
{
    node_conf.snapshot_interval = 4;
    node_conf.snapshot_keep = 1;
    node_conf.snapshot_bytes = 1ull << 40;
    for (unsigned i = 0; i < WHO_COUNT; i++)
        node_conf.authority.uid[i] = getuid();
    return node_start(e);
}

static int raftd_main(char **argv)
{
    static const struct route routes[] = {
        { &op_raftd_txn, ops_on_txn },
        { &op_raftd_bootstrap, ops_on_bootstrap },
        { &op_raftd_reset, ops_on_reset },
        { &op_raftd_status, ops_on_status },
        { 0 },
    };
    static const struct daemon_spec spec = {
        .name = "raftd", .routes = routes, .probes = probes, .start = raftd_start, .stop = node_stop
    };
    char *args[] = { "raftd", "-c", "/dev/null", "-r", argv[2], "-s", argv[3], "-o", "log_level=error", NULL };
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    fault_armed = true;
    fault_at = strtol(argv[4], NULL, 10);
    fault_torn = argv[5][0] == 't';
    return daemon_main(9, args, &spec);
}

/* ---- the client ---- */

/* nng 1.5.2 loses a dialer's memory when it is closed while it connects again. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libnng\n";
}

#define TXNS 9u

static char run_dir[300], state_dir[300], notify_path[320];
static int notify_fd = -1, pid_fd = -1;
static pid_t pid;
static bool acked[TXNS + 1], booted;
static struct err e;

static void bad(const char *what)
{
    fprintf(stderr, "crash_test: fault %ld%s: %s: %s\n", fault_at, fault_torn ? " torn" : "", what, e.msg);
    if (getenv("CRASH_HOLD") != NULL)
        pause(); /* for a debugger */
    abort();
}

/* raftd_run - false when it died before it was ready. */
static bool raftd_run(long n, bool torn)
{
    char at[32], text[64];
    snprintf(at, sizeof at, "%ld", n);
    pid = fork();
    if (pid == 0) {
        setenv("NOTIFY_SOCKET", notify_path, 1);
        execl("/proc/self/exe", "raftd", "--raftd", run_dir, state_dir, at, torn ? "torn" : "before", (char *)NULL);
        _exit(127);
    }
    pid_fd = pidfd_open(pid, 0);
    for (;;) {
        struct pollfd p[2] = { { notify_fd, POLLIN, 0 }, { pid_fd, POLLIN, 0 } };
        if (poll(p, 2, 30000) <= 0)
            bad("raftd neither starts nor dies");
        ssize_t got = p[0].revents ? recv(notify_fd, text, sizeof text - 1, MSG_DONTWAIT) : 0;
        if (got > 0) {
            text[got] = 0;
            if (strstr(text, "READY=1") != NULL)
                return true;
        } else if (p[1].revents) {
            return false;
        }
    }
}

/* raftd_reap - returns whether it was killed, by us or by a fault. */
static bool raftd_reap(int sig)
{
    int st;
    struct pollfd p = { pid_fd, POLLIN, 0 };
    if (sig != 0)
        kill(pid, sig);
    if (poll(&p, 1, 10000) != 1)
        bad(sig ? "raftd does not stop" : "raftd refuses a request");
    if (waitpid(pid, &st, 0) != pid)
        bad("waitpid");
    close(pid_fd);
    char text[64];
    while (recv(notify_fd, text, sizeof text, MSG_DONTWAIT) >= 0)
        ;
    if (!WIFSIGNALED(st) && WEXITSTATUS(st) != 0)
        bad("raftd ended with an error of its own");
    if (WIFSIGNALED(st) && WTERMSIG(st) != SIGKILL) {
        err_set(&e, ERR_INTERNAL, "%s", strsignal(WTERMSIG(st)));
        bad("raftd crashed");
    }
    return WIFSIGNALED(st);
}

static struct txn_change change(const char *op, const char *kind, const char *id, struct str doc)
{
    return (struct txn_change){ str_from(op), str_from(kind), str_from(id), doc };
}

/* The asynchronous client, because it notices at once when raftd dies. */
static sd_event *loop;
static struct rpc_client *client;
static bool answered;

static void on_answer(void *arg, const void *rep, const struct err *err)
{
    *(int *)arg = rep != NULL ? 0 : -err->code;
    e = *err;
    answered = true;
}

static int call(const struct op *op, const void *req)
{
    int r = 0;
    answered = false;
    rpc_send(client, op, req, 8000, on_answer, &r);
    while (!answered)
        if (sd_event_run(loop, UINT64_MAX) < 0)
            bad("event loop");
    return r;
}

static int send_boot(void)
{
    struct txn_change ch[2] = { change("create", "cluster", "c", STR("\x80")),
                                change("create", "node", "n", STR("\x80")) };
    struct raftd_bootstrap req = { .ClusterID = STR("c"), .NodeID = STR("n"), .Changes = { ch, 2 } };
    return call(&op_raftd_bootstrap, &req);
}

/* Transaction i: a task and a credential of its own, the task of i - 1 removed, and a counter in a document of all. */
static int send_txn(unsigned i)
{
    char id[8], prev[8];
    static char big[3000];
    struct buf count = BUF_INIT, doc = BUF_INIT;
    snprintf(id, sizeof id, "x%u", i);
    snprintf(prev, sizeof prev, "x%u", i - 1);
    mp_map(&count, 1);
    mp_kv_u64(&count, "StartNotBefore", i);
    mp_map(&doc, 1);
    mp_cstr(&doc, "Data");
    mp_bin(&doc, (struct str){ big, sizeof big });
    struct txn_change ch[4] = {
        change("create", "task", id, buf_str(&doc)),
        change("create", "credential", id, buf_str(&doc)),
        change("purge", "task", prev, (struct str){ NULL, 0 }),
        change(i == 1 ? "create" : "update", "task", "count", buf_str(&count)),
    };
    struct raftd_txn req = { .Changes = { ch, 4 } };
    int r = call(&op_raftd_txn, &req);
    buf_done(&count);
    buf_done(&doc);
    return r;
}

static int send_reset(void)
{
    struct raftd_empty none = { 0 };
    return call(&op_raftd_reset, &none);
}

/* Everything up to `last` and nothing after it; `last` is what the counter says. */
static void check_state(struct store_snap *snap, unsigned last)
{
    struct str doc;
    for (unsigned i = 1; i <= TXNS; i++) {
        char id[8];
        snprintf(id, sizeof id, "x%u", i);
        bool task = store_get(snap, KIND_TASK, str_from(id), &doc) == 0;
        bool credential = store_get(snap, KIND_CREDENTIAL, str_from(id), &doc) == 0;
        if (task != (i == last) || credential != (i <= last))
            bad("a transaction is half applied");
        if (acked[i] && i > last)
            bad("an acknowledged transaction is missing");
    }
}

static void check(bool *ret_initialized)
{
    struct store *s = NULL;
    struct store_snap *snap;
    struct store_meta m;
    struct str doc;
    uint64_t last = 0;
    if (store_open(&s, run_dir, true, &e) < 0 || store_begin(s, &snap, &e) < 0 || store_meta(snap, &m, &e) < 0)
        bad("read the map");
    if (booted && !m.initialized)
        bad("the swarm is gone");
    if (m.initialized && (!m.leader || store_get(snap, KIND_CLUSTER, STR("c"), &doc) < 0 ||
                          store_get(snap, KIND_NODE, STR("n"), &doc) < 0))
        bad("the swarm is half there");
    if (store_get(snap, KIND_TASK, STR("count"), &doc) == 0)
        (void)mp_get_u64(doc, "StartNotBefore", &last);
    if (m.initialized && m.revision != last + 1)
        bad("the revision does not fit");
    check_state(snap, (unsigned)last);
    *ret_initialized = m.initialized;
    store_end(snap);
    store_close(s);
}

static void fresh_dirs(void)
{
    test_tree_remove(run_dir);
    test_tree_remove(state_dir);
    mkdir(run_dir, 0700);
    mkdir(state_dir, 0700);
    memset(acked, 0, sizeof acked);
    booted = false;
}

static void must_run(void)
{
    if (!raftd_run(0, false))
        bad("raftd does not start after the crash");
}

static void recover(bool may_be_gone)
{
    bool initialized;
    if (may_be_gone)
        booted = false;
    must_run();
    check(&initialized);
    raftd_reap(SIGKILL);
    test_tree_remove(run_dir);
    mkdir(run_dir, 0700);
    must_run();
    check(&initialized);
    raftd_reap(SIGTERM);
}

/* run_once - false when no fault was met. */
static bool run_once(long n, bool torn)
{
    bool dead, leaving = false;
    fault_at = n;
    fault_torn = torn;
    fresh_dirs();
    dead = !raftd_run(n, torn);
    if (!dead && rpc_client_open(&client, loop, run_dir, "raftd", &e) < 0)
        bad("connect");
    if (!dead)
        dead = send_boot() < 0;
    booted = !dead;
    for (unsigned i = 1; !dead && i <= TXNS; i++) {
        dead = send_txn(i) < 0;
        acked[i] = !dead;
    }
    if (!dead && n % 2 == 0) { /* every other time: it leaves the swarm in the end */
        memset(acked, 0, sizeof acked);
        leaving = true;
        dead = send_reset() < 0;
    }
    client = rpc_client_free(client);
    if (!raftd_reap(dead ? 0 : SIGTERM))
        return false;
    recover(leaving);
    return true;
}

static long run_all(bool torn, long step)
{
    long n = 1, quiet = 0;
    /* An odd and an even run without a fault: past the last write of both kinds of runs. */
    for (; quiet < 2; n += step)
        quiet = run_once(n, torn) ? 0 : quiet + 1;
    return n - 1;
}

static void sockets(void)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    snprintf(run_dir, sizeof run_dir, "%s/run", test_dir);
    snprintf(state_dir, sizeof state_dir, "%s/state", test_dir);
    snprintf(notify_path, sizeof notify_path, "%s/notify", test_dir);
    snprintf(sa.sun_path, sizeof sa.sun_path, "%.100s", notify_path);
    notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (notify_fd < 0 || bind(notify_fd, (struct sockaddr *)&sa, sizeof sa) < 0)
        bad("notify socket");
    if (sd_event_default(&loop) < 0)
        bad("event loop");
}

static void test_before_each_write(void **state)
{
    (void)state;
    long n = run_all(false, 1);
    print_message("%ld places to die before\n", n);
    assert_true(n > 100);
}

static void test_in_the_middle_of_each_write(void **state)
{
    (void)state;
    long n = run_all(true, 3);
    assert_true(n > 100);
}

int main(int argc, char **argv)
{
    if (argc == 6 && strcmp(argv[1], "--raftd") == 0)
        return raftd_main(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_before_each_write),
        cmocka_unit_test(test_in_the_middle_of_each_write),
    };
    if (test_dir_make(NULL) < 0)
        return 1;
    sockets();
    if (getenv("TEST_FILTER") != NULL)
        cmocka_set_test_filter(getenv("TEST_FILTER"));
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    test_dir_remove(NULL);
    return r;
}
