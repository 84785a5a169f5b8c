/*
 * plane.c - the whole control plane at scale: real daemons, messages, store and Raft; the agents are simulated.
 *
 *   plane [-b BIN] [-n NODES] [-s SERVICES] [-t TASKS] [-m MANAGERS] [-p PARALLELISM] [-o] [-d] [-k SECONDS]
 *
 * Managers (1 or 3) of all their daemons in a network and mount namespace of its own, run folder on tmpfs. Each node's
 * agent has a session and a long poll at the leader's dispatcherd, as gatewayd brings them ("from"), and reports a task
 * as running when it hears of it and as shut down when it is to stop: no containers, no links of workers. Declared
 * through Docker's API: SERVICES services with TASKS tasks in all, then an update of each of them, PARALLELISM (0: all)
 * tasks at a time; -o: each on an overlay network of its own; -d: no update. Measured: tasks a second until all run, as
 * the store says; CPU time of each daemon; memory a task over all daemons of a manager, the state map counted once; a
 * restart of raftd. -k stays for so many seconds after each measurement, to be looked at.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/daemon/daemon.h"
#include "common/object/views.h"
#include "common/proto/msg_dispatcherd.h"
#include "common/store/store.h"
#include "common/store/txn.h"
#include "common/util/check.h"
#include "common/util/clock.h"
#include "common/util/id.h"
#include "common/util/table.h"

#define MANAGERS_MAX 3u
#define CALL_MS 120000u
#define REST_S 8u       /* daemons give back what a burst needed after 5 s */
#define REPORT_MAX 512u /* statuses in one report, as agentd's */

static const char *const daemons[] = { "raftd",      "gatewayd",   "cad",         "orchestratord",
                                       "allocatord", "schedulerd", "dispatcherd", "apid" };
#define DAEMONS (sizeof daemons / sizeof *daemons)

struct manager {
    char run[96], state[96], sock[128], addr[32];
    pid_t pid[DAEMONS];
};

struct task { /* as its node knows it */
    uint64_t generation;
    enum task_state state; /* ready, running or shutdown */
    bool told;             /* the manager knows */
};

struct agent {
    char node[ID_SIZE], session[ID_SIZE * 2];
    uint64_t seq, heartbeat_ms;
    struct table tasks; /* ID -> struct task */
    struct table news;  /* IDs of tasks to report */
    bool reporting;
    size_t nsent;
    char (*sent)[ID_SIZE];
};

static struct {
    sd_event *loop;
    char dir[64];
    const char *bin;
    unsigned nodes, services, tasks, managers, parallelism;
    bool overlay, declare_only;
    unsigned keep; /* seconds */
    struct manager m[MANAGERS_MAX];
    unsigned leader;
    struct rpc_client *raft, *disp;
    struct agent *agents;
    unsigned open, refused;
    uint64_t generation; /* that is waited for */
    size_t running;      /* tasks of that generation that the store has as running */
    size_t older;        /* of others, likewise */
    uint64_t reports, statuses, assignments;
    bool writing;
    struct buf body;
    struct arena arena;
} b;

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void stop_all(int sig)
{
    for (unsigned i = 0; i < b.managers; i++)
        for (unsigned d = 0; d < DAEMONS; d++)
            if (b.m[i].pid[d] > 0)
                kill(b.m[i].pid[d], sig);
    for (unsigned i = 0; i < b.managers; i++)
        for (unsigned d = 0; d < DAEMONS; d++)
            if (b.m[i].pid[d] > 0)
                waitpid(b.m[i].pid[d], NULL, 0);
}

static void clean_up(void)
{
    char cmd[256];
    for (unsigned i = 0; i < b.managers; i++)
        umount2(b.m[i].run, MNT_DETACH);
    snprintf(cmd, sizeof cmd, "rm -rf %s", b.dir);
    if (system(cmd) != 0)
        fprintf(stderr, "plane: %s is left over\n", b.dir);
}

_Noreturn static void fail(const char *what, struct str why)
{
    fprintf(stderr, "plane: %s: " STR_FMT "\n", what, STR_ARG(why));
    stop_all(SIGKILL);
    clean_up();
    _exit(1);
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

static void figure(const char *name, double value, const char *unit, const char *more)
{
    printf("{\"name\":\"plane_%u.%s\",\"value\":%.4g,\"unit\":\"%s\"%s%s}\n", b.tasks, name, value, unit,
           *more ? "," : "", more);
    fflush(stdout);
}

/* ---- the daemons ---- */

static pid_t start(const struct manager *m, const char *name)
{
    char path[512], user[DAEMONS + 1][64];
    char *argv[40] = { path, "-r", (char *)m->run, "-s", (char *)m->state, "-o", "log_level=warn" };
    unsigned n = 7;
    snprintf(path, sizeof path, "%s/%s", b.bin, name);
    for (unsigned i = 0; i < DAEMONS; i++) {
        snprintf(user[i], sizeof user[i], "user_%s=root", daemons[i]);
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

static void start_manager(unsigned i)
{
    struct manager *m = &b.m[i];
    snprintf(m->run, sizeof m->run, "%s/run%u", b.dir, i);
    snprintf(m->state, sizeof m->state, "%s/state%u", b.dir, i);
    snprintf(m->sock, sizeof m->sock, "%s/docker.sock", m->run);
    snprintf(m->addr, sizeof m->addr, "127.0.0.%u:2377", i + 1);
    CHECK(mkdir(m->run, 0755) == 0 && mkdir(m->state, 0755) == 0);
    CHECK(mount("plane", m->run, "tmpfs", 0, "mode=0755,size=80%") == 0);
    for (unsigned d = 0; d < DAEMONS; d++)
        m->pid[d] = start(m, daemons[d]);
}

static double cpu_seconds(pid_t pid)
{
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f || !fgets(line, sizeof line, f))
        fail("a daemon", STR("is gone"));
    fclose(f);
    char *p = strrchr(line, ')'); /* the end of field 2; user and system time are 14 and 15, proc(5) */
    for (int i = 2; p && i < 14; i++)
        p = strchr(p + 1, ' ');
    CHECK(p);
    unsigned long user = strtoul(p, &p, 10), sys = strtoul(p, NULL, 10);
    return (double)(user + sys) / (double)sysconf(_SC_CLK_TCK);
}

/* memory_kib - one line of smaps_rollup. */
static double memory_kib(pid_t pid, const char *key)
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
    return (double)kib;
}

static double map_kib(const struct manager *m)
{
    char path[160];
    struct stat st, secret;
    snprintf(path, sizeof path, "%s/state/data.mdb", m->run);
    CHECK(stat(path, &st) == 0);
    snprintf(path, sizeof path, "%s/secret/data.mdb", m->run);
    CHECK(stat(path, &secret) == 0);
    return (double)(st.st_blocks + secret.st_blocks) / 2; /* of 512 bytes */
}

struct usage {
    double cpu[MANAGERS_MAX][DAEMONS], own[MANAGERS_MAX][DAEMONS], map[MANAGERS_MAX], agents;
    uint64_t at_us;
};

static void usage_now(struct usage *u)
{
    u->at_us = now_us();
    for (unsigned i = 0; i < b.managers; i++) {
        for (unsigned d = 0; d < DAEMONS; d++) {
            u->cpu[i][d] = cpu_seconds(b.m[i].pid[d]);
            u->own[i][d] = memory_kib(b.m[i].pid[d], "Anonymous:");
        }
        u->map[i] = map_kib(&b.m[i]);
    }
    u->agents = cpu_seconds(getpid());
}

static void tell_cpu(const char *what, const struct usage *from, unsigned tasks)
{
    struct usage u;
    char name[96], more[128];
    double all = 0;
    usage_now(&u);
    for (unsigned i = 0; i < b.managers; i++)
        for (unsigned d = 0; d < DAEMONS; d++) {
            double s = u.cpu[i][d] - from->cpu[i][d];
            all += s;
            snprintf(name, sizeof name, "%s.cpu.%s%s", what, daemons[d], i == b.leader ? "" : "_follower");
            snprintf(more, sizeof more, "\"us_a_task\":%.2f", s * 1e6 / tasks);
            figure(name, s, "s", more);
        }
    snprintf(name, sizeof name, "%s.cpu.all", what);
    snprintf(more, sizeof more, "\"us_a_task\":%.2f,\"simulated_agents_s\":%.2f", all * 1e6 / tasks,
             u.agents - from->agents);
    figure(name, all, "s", more);
}

static uint64_t stay_until_us;
static bool stayed(void)
{
    return now_us() >= stay_until_us;
}

static void stay(unsigned seconds)
{
    stay_until_us = now_us() + seconds * 1000000ull;
    run_until(stayed, seconds * 1000ull + 10000, "staying");
}

/* tell_memory - at rest, when the daemons have given back what the burst needed; of a task in the store, of which an
 * update leaves twice as many: its history. */
static void tell_memory(const char *what, const struct usage *from, size_t tasks)
{
    struct usage u;
    char name[96], more[160];
    stay(REST_S);
    usage_now(&u);
    const unsigned i = b.leader;
    double all = u.map[i] - from->map[i];
    for (unsigned d = 0; d < DAEMONS; d++) {
        double kib = u.own[i][d] - from->own[i][d];
        all += kib;
        snprintf(name, sizeof name, "%s.memory.%s", what, daemons[d]);
        snprintf(more, sizeof more, "\"bytes_a_task\":%.0f,\"pss_mib\":%.1f", kib * 1024 / (double)tasks,
                 memory_kib(b.m[i].pid[d], "Pss:") / 1024);
        figure(name, kib / 1024, "MiB", more);
    }
    snprintf(name, sizeof name, "%s.memory.map", what);
    snprintf(more, sizeof more, "\"bytes_a_task\":%.0f", (u.map[i] - from->map[i]) * 1024 / (double)tasks);
    figure(name, (u.map[i] - from->map[i]) / 1024, "MiB", more);
    snprintf(name, sizeof name, "%s.memory_a_task", what);
    figure(name, all * 1024 / (double)tasks, "bytes",
           "\"target\":1024,\"note\":\"all daemons of a manager, the map once\"");
}

/* ---- Docker's API ---- */

/* http - one request, one answer; the body of it, to be freed. */
static char *http(const char *sock, const char *method, const char *path, const char *body, int *ret_status)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    struct buf msg = BUF_INIT;
    size_t n = 0, cap = 65536;
    char *in = malloc(cap);
    snprintf(sa.sun_path, sizeof sa.sun_path, "%s", sock);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *ret_status = 0;
    if (fd < 0 || !in || connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
        goto out;
    buf_printf(&msg,
               "%s /v1.41%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
               "Content-Length: %zu\r\n\r\n%s",
               method, path, strlen(body), body);
    if (send(fd, msg.p, msg.n, MSG_NOSIGNAL) != (ssize_t)msg.n)
        goto out;
    for (ssize_t k; (k = recv(fd, in + n, cap - 1 - n, 0)) > 0;) {
        n += (size_t)k;
        if (cap - n < 4096)
            CHECK((in = realloc(in, cap *= 2)) != NULL);
    }
    in[n] = 0;
    char *end = strstr(in, "\r\n\r\n");
    if (n > 12 && end) {
        *ret_status = atoi(in + 9);
        memmove(in, end + 4, n - (size_t)(end + 4 - in) + 1);
    }
out:
    if (fd >= 0)
        close(fd);
    buf_done(&msg);
    return in;
}

static void api(unsigned manager, const char *method, const char *path, const char *body, int want, char *ret,
                size_t size)
{
    int status;
    char *p = http(b.m[manager].sock, method, path, body, &status);
    if (status != want)
        fail(path, str_from(p));
    if (ret)
        snprintf(ret, size, "%s", p);
    free(p);
}

/* json_text - the value of the first such key; our own daemons' answers. */
static void json_text(const char *doc, const char *key, char *ret, size_t size)
{
    char want[64];
    snprintf(want, sizeof want, "\"%s\":\"", key);
    const char *p = strstr(doc, want);
    size_t n = p ? strcspn(p + strlen(want), "\"") : 0;
    if (!p || n >= size)
        fail(key, str_from(doc));
    memcpy(ret, p + strlen(want), n);
    ret[n] = 0;
}

static unsigned waited_for;
static bool up(void)
{
    int status;
    char *p = http(b.m[waited_for].sock, "GET", "/_ping", "", &status);
    free(p);
    return status == 200;
}

static void wait_up(unsigned i)
{
    waited_for = i;
    run_until(up, 30000, "apid");
}

static void make_swarm(void)
{
    static char doc[65536];
    char body[512], token[128];
    wait_up(0);
    snprintf(body, sizeof body, "{\"ListenAddr\":\"%s\",\"AdvertiseAddr\":\"%s\",\"Spec\":{}}", b.m[0].addr,
             b.m[0].addr);
    api(0, "POST", "/swarm/init", body, 200, NULL, 0);
    api(0, "GET", "/swarm", "", 200, doc, sizeof doc);
    json_text(doc, "Manager", token, sizeof token);
    for (unsigned i = 1; i < b.managers; i++) {
        wait_up(i);
        snprintf(body, sizeof body,
                 "{\"ListenAddr\":\"%s\",\"AdvertiseAddr\":\"%s\",\"RemoteAddrs\":[\"%s\"],\"JoinToken\":\"%s\"}",
                 b.m[i].addr, b.m[i].addr, b.m[0].addr, token);
        api(i, "POST", "/swarm/join", body, 200, NULL, 0);
    }
}

/* services_create, services_update - by a process of its own, one request after the other. Like a stack's deployment.
 */
static void put_service(struct buf *d, unsigned i, uint64_t generation)
{
    buf_printf(d,
               "{\"Name\":\"svc%u\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"registry.example.net/web@sha256:"
               "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\",\"Env\":[\"SETTING=a value of the "
               "length that is usual\"]},\"ForceUpdate\":%" PRIu64,
               i, generation);
    if (b.overlay)
        buf_printf(d, ",\"Networks\":[{\"Target\":\"net%u\"}]", i);
    buf_printf(
        d,
        "},\"Mode\":{\"Replicated\":{\"Replicas\":%u}},\"UpdateConfig\":{\"Parallelism\":%u,\"Monitor\":1000000000}}",
        b.tasks / b.services + (i < b.tasks % b.services), b.parallelism);
}

static void declare(uint64_t generation)
{
    struct buf d = BUF_INIT;
    char path[128], *p;
    int status;
    for (unsigned i = 0; i < b.services; i++) {
        buf_clear(&d);
        put_service(&d, i, generation);
        snprintf(path, sizeof path, "/services/svc%u", i);
        if (generation > 0) {
            p = http(b.m[0].sock, "GET", path, "", &status);
            const char *v = status == 200 ? strstr(p, "\"Index\":") : NULL;
            snprintf(path, sizeof path, "/services/svc%u/update?version=%lu", i, v ? strtoul(v + 8, NULL, 10) : 0);
            free(p);
            p = http(b.m[0].sock, "POST", path, buf_cstr(&d), &status);
        } else {
            p = http(b.m[0].sock, "POST", "/services/create", buf_cstr(&d), &status);
        }
        if (status != (generation > 0 ? 200 : 201)) {
            fprintf(stderr, "plane: service %u: %d %s\n", i, status, p);
            _exit(1);
        }
        free(p);
    }
    _exit(0);
}

static pid_t declaring;
static bool declared(void)
{
    int status;
    if (declaring && waitpid(declaring, &status, WNOHANG) == declaring) {
        if (status != 0)
            fail("declare", STR("refused"));
        declaring = 0;
    }
    return declaring == 0;
}

/* ---- nodes ---- */

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

static void make_nodes(void)
{
    struct txn t;
    struct buf d = BUF_INIT;
    txn_init(&t);
    for (unsigned i = 0; i < b.nodes; i++) {
        struct str id = str_from(b.agents[i].node);
        buf_clear(&d);
        mp_map(&d, 4);
        mp_kv_str(&d, "ID", id);
        mp_kv_cstr(&d, "Role", "worker");
        mp_cstr(&d, "Spec");
        mp_map(&d, 2);
        mp_kv_cstr(&d, "Role", "worker");
        mp_kv_cstr(&d, "Availability", "active");
        mp_cstr(&d, "Status");
        mp_map(&d, 1);
        mp_kv_cstr(&d, "State", "unknown");
        txn_create(&t, KIND_NODE, id, txn_doc(&t, &d));
        if (t.nchg < 1000 && i + 1 < b.nodes)
            continue;
        b.writing = true;
        txn_send(&t, b.raft, CALL_MS, on_written, NULL);
        run_until(written, CALL_MS, "nodes");
        txn_reset(&t);
    }
    txn_done(&t);
    buf_done(&d);
}

/* ---- the agents ---- */

static void poll_assignments(struct agent *a);
static void report(struct agent *a);

static void call(struct agent *a, const struct op *op, const void *req, rpc_raw_fn *done)
{
    struct rpc_origin from = {
        .role = RPC_WORKER, .node = str_from(a->node), .svc = STR("agentd"), .addr = STR("10.1.2.3")
    };
    buf_clear(&b.body);
    fields_encode(req, op->req, &b.body);
    CHECK(!b.body.failed);
    rpc_send_raw(b.disp, str_from(op->name), buf_str(&b.body), &from, CALL_MS, done, a);
}

static const void *decoded(const struct op *op, int code, struct str msg, struct str body, struct arena *mem)
{
    struct err e = ERR_INIT;
    if (code != 0)
        fail(op->name, msg);
    arena_init(mem, 256u << 20);
    void *rep = arena_alloc(mem, op->rep_size);
    CHECK(rep != NULL);
    need(fields_decode(rep, op->rep, op->rep_size, body, FIELDS_VIEW, mem, &e), &e, op->name);
    return rep;
}

static void count(const struct task *t, int by)
{
    if (t->told && t->state == TASK_RUNNING)
        *(t->generation == b.generation ? &b.running : &b.older) += (size_t)by;
}

static void on_reported(void *arg, int code, struct str msg, struct str body)
{
    struct agent *a = arg;
    (void)body;
    if (code != 0)
        fail("status", msg);
    for (size_t i = 0; i < a->nsent; i++) {
        struct task *t = table_get(&a->tasks, str_from(a->sent[i]));
        if (!t || table_get(&a->news, str_from(a->sent[i])))
            continue;
        count(t, -1);
        t->told = true;
        count(t, 1);
    }
    a->reporting = false;
    free(a->sent);
    a->sent = NULL;
    report(a);
}

/* report - one at a time, of what is newest, as agentd does it. */
static void report(struct agent *a)
{
    struct task_status s[REPORT_MAX];
    char container[REPORT_MAX][65];
    struct disp_status req = { .SessionID = str_from(a->session), .Statuses = { s, 0 } };
    struct str id;
    size_t n = a->news.count < REPORT_MAX ? a->news.count : REPORT_MAX;
    if (a->reporting || n == 0)
        return;
    a->sent = calloc(n, sizeof *a->sent);
    CHECK(a->sent != NULL);
    for (struct table_pos p = { 0 }; req.Statuses.n < n && table_next(&a->news, &p, &id, NULL);) {
        const struct task *t = table_get(&a->tasks, id);
        size_t i = req.Statuses.n;
        CHECK(str_copy(a->sent[i], ID_SIZE, id));
        if (!t)
            continue;
        snprintf(container[i], sizeof container[i], "%s%s0123456789abcd", a->sent[i], a->sent[i]);
        s[req.Statuses.n++] = (struct task_status){ .TaskID = str_from(a->sent[i]),
                                                    .State = str_from(task_state_name(t->state)),
                                                    .Message = t->state == TASK_RUNNING ? STR("started")
                                                               : t->state == TASK_READY ? STR("prepared")
                                                                                        : STR("shutdown"),
                                                    .Timestamp = clock_wall().ns,
                                                    .ContainerID = str_from(container[i]),
                                                    .PID = 4711 + (uint64_t)i,
                                                    .HasContainer = t->state != TASK_READY };
    }
    a->nsent = req.Statuses.n;
    for (size_t i = 0; i < a->nsent; i++)
        table_del(&a->news, str_from(a->sent[i]));
    a->reporting = true;
    b.reports++;
    b.statuses += a->nsent;
    call(a, &op_disp_status, &req, on_reported);
}

static void take(struct agent *a, const struct assignment *v)
{
    bool fresh;
    struct task *t = table_put(&a->tasks, v->ID, &fresh);
    enum task_state desired = task_state_parse(v->DesiredState),
                    state = desired > TASK_RUNNING ? TASK_SHUTDOWN : desired;
    if (!fresh && t->state == state)
        return;
    count(t, -1);
    t->state = state;
    t->told = false;
    (void)mp_get_u64(v->Spec, "ForceUpdate", &t->generation);
    table_put(&a->news, v->ID, NULL);
}

static void drop(struct agent *a, struct str id)
{
    struct task *t = table_get(&a->tasks, id);
    if (!t)
        return;
    count(t, -1);
    table_del(&a->tasks, id);
    table_del(&a->news, id);
}

static void on_assigned(void *arg, int code, struct str msg, struct str body)
{
    struct agent *a = arg;
    struct arena mem;
    const struct disp_assignments_reply *r = decoded(&op_disp_assignments, code, msg, body, &mem);
    const struct assignment *v = r->Tasks.v;
    CHECK(!r->Full || a->tasks.count == 0); /* no session is lost here */
    a->seq = r->Seq;
    b.assignments += r->Tasks.n;
    for (size_t i = 0; i < r->Tasks.n; i++)
        take(a, &v[i]);
    for (size_t i = 0; i < r->Removed.n; i++)
        drop(a, r->Removed.v[i]);
    arena_done(&mem);
    poll_assignments(a);
    report(a);
}

static void poll_assignments(struct agent *a)
{
    struct disp_assignments req = { str_from(a->session), a->seq, a->heartbeat_ms };
    call(a, &op_disp_assignments, &req, on_assigned);
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
        mp_map(&d, 4);
        mp_kv_cstr(&d, "Hostname", "worker");
        mp_cstr(&d, "Platform");
        mp_map(&d, 2);
        mp_kv_cstr(&d, "Architecture", "x86_64");
        mp_kv_cstr(&d, "OS", "linux");
        mp_cstr(&d, "Resources");
        mp_map(&d, 2);
        mp_kv_i64(&d, "NanoCPUs", 64000000000);
        mp_kv_i64(&d, "MemoryBytes", 256ll << 30);
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

static bool all_running(void)
{
    static uint64_t next;
    uint64_t now = now_us();
    if (getenv("PLANE_PROGRESS") && now > next) {
        next = now + 1000000;
        fprintf(stderr, "%.1f s: running %zu older %zu\n", (double)now / 1e6, b.running, b.older);
    }
    return declared() && b.running == b.tasks && b.older == 0;
}

/* ---- the store's own word ---- */

static size_t store_running(unsigned manager, uint64_t *ret_bytes, size_t *ret_all)
{
    struct store *s = NULL;
    struct store_snap *snap;
    struct store_iter it;
    struct err e = ERR_INIT;
    struct str state, desired;
    size_t n = 0;
    *ret_all = 0;
    *ret_bytes = 0;
    need(store_open(&s, b.m[manager].run, false, &e), &e, "store");
    need(store_begin(s, &snap, &e), &e, "store");
    for (store_each(snap, KIND_TASK, &it); store_next(&it);) {
        ++*ret_all;
        *ret_bytes += it.doc.n;
        n += mp_get_str(it.doc, "Status.State", &state) && str_is(state, "running") &&
             mp_get_str(it.doc, "DesiredState", &desired) && str_is(desired, "running");
    }
    store_end(snap);
    store_close(s);
    return n;
}

/* ---- the run ---- */

static size_t measure(const char *what, uint64_t generation)
{
    struct usage before;
    char name[96], more[256];
    size_t all;
    uint64_t bytes;
    usage_now(&before);
    b.generation = generation;
    b.older += b.running;
    b.running = 0;
    b.reports = b.statuses = b.assignments = 0;
    fflush(stdout);
    declaring = fork();
    CHECK(declaring >= 0);
    if (declaring == 0)
        declare(generation);
    uint64_t t0 = now_us();
    run_until(all_running, 3600000, what);
    double s = (double)(now_us() - t0) / 1e6;
    size_t running = store_running(b.leader, &bytes, &all);
    if (running != b.tasks)
        fail(what, STR("the store does not say that all run"));
    snprintf(name, sizeof name, "%s.tasks", what);
    snprintf(more, sizeof more,
             "\"target\":7500,\"seconds\":%.3f,\"nodes\":%u,\"services\":%u,\"managers\":%u,\"agents\":\"simulated\"%s",
             s, b.nodes, b.services, b.managers, b.overlay ? ",\"networks\":\"overlay\"" : "");
    figure(name, b.tasks / s, "tasks a second", more);
    tell_cpu(what, &before, b.tasks);
    snprintf(name, sizeof name, "%s.task_document", what);
    snprintf(more, sizeof more,
             "\"tasks_in_store\":%zu,\"reports\":%" PRIu64 ",\"statuses\":%" PRIu64 ",\"assignments\":%" PRIu64, all,
             b.reports, b.statuses, b.assignments);
    figure(name, (double)bytes / (double)all, "bytes", more);
    return all;
}

static void make_networks(void)
{
    char body[256];
    for (unsigned i = 0; b.overlay && i < b.services; i++) {
        snprintf(body, sizeof body,
                 "{\"Name\":\"net%u\",\"Driver\":\"overlay\",\"IPAM\":{\"Config\":[{\"Subnet\":\"10.%u.0.0/16\"}]}}", i,
                 i + 1); /* 10.0.0.0/24 is the ingress network's */
        api(0, "POST", "/networks/create", body, 201, NULL, 0);
    }
}

/* restart_raftd - until it leads again over all of that, the map kept (a crash), or gone (a reboot). */
static void restart_raftd(const char *what, bool reboot)
{
    struct raftd_empty none = { 0 };
    struct err e = ERR_INIT;
    struct manager *m = &b.m[0];
    struct arena a;
    char path[160], cmd[256];
    kill(m->pid[0], SIGKILL);
    waitpid(m->pid[0], NULL, 0);
    snprintf(path, sizeof path, "%s/state", m->run);
    snprintf(cmd, sizeof cmd, "rm -rf %s %s/secret", path, m->run);
    if (reboot && system(cmd) != 0)
        fail(path, STR("cannot be removed"));
    uint64_t t0 = now_us();
    m->pid[0] = start(m, "raftd");
    arena_init(&a, 1u << 20);
    char rep[256];
    CHECK(op_raftd_barrier.rep_size <= sizeof rep);
    for (uint64_t end = now_us() + 600000000;
         rpc_call_sync(m->run, "raftd", &op_raftd_barrier, &none, 60000, rep, &a, &e) != 0;)
        if (now_us() > end)
            fail("raftd", str_from(e.msg));
    arena_done(&a);
    figure(what, (double)(now_us() - t0) / 1e6, "s", "\"note\":\"killed, until a barrier is answered\"");
}

static void options(int argc, char **argv)
{
    int c;
    b.bin = getenv("MICROSWARM_BIN") ? getenv("MICROSWARM_BIN") : "build/bin";
    b.nodes = 1000;
    b.services = 100;
    b.tasks = 100000;
    b.managers = 1;
    while ((c = getopt(argc, argv, "b:n:s:t:m:p:odk:")) != -1) {
        unsigned long v = optarg ? strtoul(optarg, NULL, 10) : 0;
        if (c == 'b')
            b.bin = optarg;
        else if (c == 'n')
            b.nodes = (unsigned)v;
        else if (c == 's')
            b.services = (unsigned)v;
        else if (c == 't')
            b.tasks = (unsigned)v;
        else if (c == 'm')
            b.managers = (unsigned)v;
        else if (c == 'p')
            b.parallelism = (unsigned)v;
        else if (c == 'o')
            b.overlay = true;
        else if (c == 'd')
            b.declare_only = true;
        else if (c == 'k')
            b.keep = (unsigned)v;
        else
            exit(2);
    }
    if (!b.nodes || !b.services || b.tasks < b.services || (b.managers != 1 && b.managers != 3) ||
        (b.overlay && b.services > 250)) {
        fprintf(stderr, "plane [-b BIN] [-n NODES] [-s SERVICES, with -o at most 250] [-t TASKS] [-m 1|3] [-p "
                        "PARALLELISM] [-o] [-d] [-k SECONDS]\n");
        exit(2);
    }
}

static void own_namespaces(void)
{
    struct ifreq r = { .ifr_flags = IFF_UP };
    strcpy(r.ifr_name, "lo");
    if (unshare(CLONE_NEWNS | CLONE_NEWNET) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        perror("plane: namespaces (run as root)");
        exit(1);
    }
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &r) == 0);
    close(fd);
}

static void make_agents(void)
{
    b.agents = calloc(b.nodes, sizeof *b.agents);
    CHECK(b.agents != NULL);
    for (unsigned i = 0; i < b.nodes; i++) {
        id_new(b.agents[i].node);
        table_init(&b.agents[i].tasks, sizeof(struct task));
        table_init(&b.agents[i].news, 0);
    }
    make_nodes();
    for (unsigned i = 0; i < b.nodes; i++)
        hello(&b.agents[i]);
    run_until(all_open, CALL_MS, "sessions");
}

int main(int argc, char **argv)
{
    struct err e = ERR_INIT;
    struct usage empty;
    options(argc, argv);
    own_namespaces();
    log_init("plane");
    arena_init(&b.arena, 512u << 20);
    snprintf(b.dir, sizeof b.dir, "/tmp/plane-bench-XXXXXX");
    CHECK(mkdtemp(b.dir) != NULL && sd_event_new(&b.loop) >= 0);
    for (unsigned i = 0; i < b.managers; i++)
        start_manager(i);
    make_swarm();
    need(rpc_client_open(&b.raft, b.loop, b.m[0].run, "raftd", &e), &e, "raftd");
    need(rpc_client_open(&b.disp, b.loop, b.m[0].run, "dispatcherd", &e), &e, "dispatcherd");
    make_agents();
    make_networks();
    usage_now(&empty);
    tell_memory("declare", &empty, measure("declare", 0));
    stay(b.keep);
    if (!b.declare_only) {
        tell_memory("update", &empty, measure("update", 1));
        stay(b.keep);
    }
    if (b.managers == 1) {
        restart_raftd("raftd_restart", false);
        restart_raftd("raftd_restart_after_reboot", true);
    }
    stop_all(SIGTERM);
    clean_up();
    fflush(stdout);
    _exit(0); /* nng takes many seconds to close so many contexts */
}
