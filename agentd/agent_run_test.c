/*
 * agent_run_test.c - agentd as a process, with real containers: gatewayd, dispatcherd and meshd are played by this
 * test.
 *
 * Needs root, crun and conmon; without them every case is skipped. It works in a mount namespace of its own, where the
 * hybrid cgroup2 mount is gone (crun 1.8 refuses it).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agentd/fsutil.h"
#include "agentd/test_json.h"
#include "common/daemon/rpc.h"
#include "common/proto/msg_agentd.h"
#include "common/proto/msg_dispatcherd.h"
#include "common/proto/msg_gatewayd.h"
#include "common/proto/msg_meshd.h"
#include "common/util/check.h"
#include "common/util/cleanup.h"
#include "common/util/clock.h"

#define DEADLINE_MS 60000
#define MAX_TASKS 128

struct ftask {
    char id[64], desired[16], auth[256];
    uint64_t seq;
    bool removed;
    bool networked, drained;
    uint64_t drain_ms;
    struct buf spec;
    /* as reported */
    char state[16], message[64], err[400], container[80];
    int64_t exit_code;
    uint64_t pid;
    uint64_t at_ms[2]; /* when starting / running was seen */
};

static struct {
    sd_event *loop;
    char dir[64], run[96], state[96], agentd[400];
    pid_t pid;
    struct rpc_server *gateway, *disp, *mesh;
    struct rpc_client *client, *relay;
    struct rpc_call *identity;
    bool cut; /* no way to any manager */
    struct ftask tasks[MAX_TASKS];
    size_t ntasks;
    uint64_t seq;
    unsigned sessions, refused, mesh_up, mesh_down;
    struct rpc_call *poll;
    uint64_t poll_seq;
    bool usable, mesh_fails;
    /* what meshd was asked about tasks with networks: u(p), r(eady), o(ut), q(uiet) */
    char mesh_asked[64], mesh_up_text[512];
    bool mesh_unable, mesh_holds, quiet_holds;
    struct rpc_call *mesh_held, *quiet_held;
    uint64_t quiet_ms;
    /* the last answer of agentd */
    bool answered;
    struct err answer;
    char text[8192];
    bool log_end;
    char cursor[128];
} f;

/* ---- dispatcherd's part ---- */

static struct str address = { "10.0.1.5/24", 11 }, outside = { "10.0.0.5/24", 11 }, alias = { "www", 3 };
static struct net_attachment attachments[] = {
    { .Network = { .ID = { "net1", 4 }, .Name = { "front", 5 }, .VNI = 4097 },
      .Addresses = { &address, 1 },
      .Aliases = { &alias, 1 } },
    { .Network = { .ID = { "net0", 4 }, .Name = { "ingress", 7 }, .VNI = 4096, .Ingress = true },
      .Addresses = { &outside, 1 } },
};

static void answer_poll(void)
{
    struct assignment v[MAX_TASKS];
    struct str removed[MAX_TASKS];
    struct disp_assignments_reply rep = { .Seq = f.seq, .Full = f.poll_seq == 0 };
    size_t n = 0, nr = 0;
    if (!f.poll || (f.poll_seq == f.seq && f.poll_seq != 0))
        return;
    for (size_t i = 0; i < f.ntasks; i++) {
        struct ftask *t = &f.tasks[i];
        if (t->seq <= f.poll_seq && !rep.Full)
            continue;
        if (t->removed) {
            if (!rep.Full)
                removed[nr++] = str_from(t->id);
            continue;
        }
        v[n] = (struct assignment){ .ID = str_from(t->id),
                                    .Rev = t->seq,
                                    .ServiceID = STR("svc1"),
                                    .ServiceName = STR("web"),
                                    .Slot = 7,
                                    .NodeID = STR("node1"),
                                    .NodeHostname = STR("host1"),
                                    .DesiredState = str_from(t->desired),
                                    .Spec = buf_str(&t->spec),
                                    .RegistryAuth = str_from(t->auth) };
        if (t->networked) {
            v[n].Networks = (struct list){ attachments, 2 };
            v[n].DrainMs = t->drain_ms;
            v[n].Drained = t->drained;
        }
        n++;
    }
    rep.Tasks = (struct list){ v, n };
    rep.Removed = (struct strs){ removed, nr };
    struct rpc_call *c = TAKE(f.poll);
    rpc_reply(c, &rep);
}

static void on_session(struct rpc_call *c, const void *req)
{
    const struct disp_session *s = req;
    struct disp_session_reply rep = { STR("node1"), STR("s1"), 5000 };
    struct str root;
    uint64_t cpus = 0;
    assert_true(mp_get_u64(s->Description, "Resources.NanoCPUs", &cpus) && cpus > 0);
    assert_true(mp_get_str(s->Description, "TLSInfo.TrustRoot", &root) && str_starts(root, STR("-----BEGIN")));
    assert_true(str_is(s->Addr, "10.0.0.7") && str_is(s->DataPathAddr, "10.7.7.7"));
    assert_true(rpc_origin(c).role == RPC_WORKER && str_is(rpc_origin(c).node, "node1"));
    f.sessions++;
    rpc_reply(c, &rep);
}

static void fail_poll(int code)
{
    struct rpc_call *c = TAKE(f.poll);
    if (c)
        rpc_fail(c, code, "the test wants it so");
}

static void on_poll(struct rpc_call *c, const void *req)
{
    fail_poll(ERR_UNAVAILABLE);
    f.poll = c;
    f.poll_seq = ((const struct disp_assignments *)req)->Seq;
    answer_poll();
}

static struct ftask *ftask(const char *id)
{
    for (size_t i = f.ntasks; i > 0; i--)
        if (strcmp(f.tasks[i - 1].id, id) == 0)
            return &f.tasks[i - 1];
    return NULL;
}

static void on_status(struct rpc_call *c, const void *req)
{
    const struct disp_status *s = req;
    struct disp_status_reply rep = { { 0, 0 } };
    for (size_t i = 0; i < s->Statuses.n; i++) {
        const struct task_status *st = &((const struct task_status *)s->Statuses.v)[i];
        char id[64];
        assert_true(str_copy(id, sizeof id, st->TaskID));
        struct ftask *t = ftask(id);
        if (!t)
            continue;
        str_copy(t->state, sizeof t->state, st->State);
        str_copy(t->message, sizeof t->message, st->Message);
        str_copy(t->err, sizeof t->err, st->Err);
        str_copy(t->container, sizeof t->container, st->ContainerID);
        t->exit_code = st->ExitCode;
        t->pid = st->PID;
        if (str_is(st->State, "running"))
            t->at_ms[1] = clock_mono().ms;
    }
    rpc_reply(c, &rep);
}

/* ---- gatewayd's part ---- */

static void on_identity(struct rpc_call *c, const void *req)
{
    struct gw_identity_reply rep = { .Seq = 1,
                                     .State = STR("active"),
                                     .NodeID = STR("node1"),
                                     .ClusterID = STR("cluster1"),
                                     .Role = STR("worker"),
                                     .AdvertiseAddr = STR("10.0.0.7:2377"),
                                     .DataPathAddr = STR("10.7.7.7"),
                                     .TrustRoot = STR("-----BEGIN CERTIFICATE-----"),
                                     .CertIssuerSubject = STR("subject"),
                                     .CertIssuerPublicKey = STR("key") };
    if (((const struct gw_identity *)req)->Seq == 0) {
        rpc_reply(c, &rep);
    } else { /* nothing new, as long as the test lasts */
        if (f.identity)
            rpc_fail(f.identity, ERR_UNAVAILABLE, "asked again");
        f.identity = c;
    }
}

static void relayed(void *arg, int code, struct str msg, struct str body)
{
    rpc_reply_raw(arg, code, msg, body);
}

static void on_relay(struct rpc_call *c, const struct rpc_request *rq)
{
    struct rpc_origin from = {
        .role = RPC_WORKER, .node = STR("node1"), .svc = STR("agentd"), .addr = STR("10.0.0.7")
    };
    assert_true(str_is(rq->to, "leader") && str_is(rq->svc, "dispatcherd"));
    if (f.cut) {
        f.refused++;
        rpc_fail(c, ERR_UNAVAILABLE, "no manager can be reached");
    } else {
        rpc_send_raw(f.relay, rq->op, rq->body, &from, DEADLINE_MS, relayed, c);
    }
}

static const struct route gateway_routes[] = { { &op_gw_identity, on_identity }, { 0 } };

/* ---- meshd's part ---- */

static void mesh_note(struct str task, char what)
{
    size_t n = strlen(f.mesh_asked);
    if (str_starts(task, STR("t-net")) && n + 1 < sizeof f.mesh_asked)
        f.mesh_asked[n] = what;
}

static void note_up(const struct mesh_up *r)
{
    const struct net_attachment *a = r->Networks.v;
    int n = snprintf(f.mesh_up_text, sizeof f.mesh_up_text, STR_FMT " " STR_FMT " " STR_FMT, STR_ARG(r->ServiceName),
                     STR_ARG(r->TaskName), STR_ARG(r->Hostname));
    for (size_t i = 0; i < r->Networks.n; i++)
        n += snprintf(f.mesh_up_text + n, sizeof f.mesh_up_text - (size_t)n, " " STR_FMT "%s=" STR_FMT "+%zu",
                      STR_ARG(a[i].Network.Name), a[i].Network.Ingress ? "!" : "", STR_ARG(a[i].Addresses.v[0]),
                      a[i].Aliases.n);
    mesh_note(r->TaskID, 'u');
}

static void on_mesh_up(struct rpc_call *c, const void *req)
{
    static struct str addr = { "10.9.8.7/24", 11 };
    note_up(req);
    if (f.mesh_holds) {
        f.mesh_held = c;
        return;
    }
    if (f.mesh_unable) {
        rpc_fail(c, ERR_PRECONDITION, "network front: this kernel cannot encrypt");
        return;
    }
    struct mesh_up_reply rep = { .ResolvConf = STR("nameserver 9.9.9.9\n"), .Addresses = { &addr, 1 } };
    f.mesh_up++;
    if (f.mesh_fails)
        rpc_fail(c, ERR_CONFLICT, "port is already allocated");
    else
        rpc_reply(c, &rep);
}

static void on_mesh_ready(struct rpc_call *c, const void *req)
{
    const struct mesh_ready *r = req;
    mesh_note(r->TaskID, r->Ready ? 'r' : 'o');
    rpc_reply(c, NULL);
}

static void on_mesh_quiet(struct rpc_call *c, const void *req)
{
    const struct mesh_quiet *r = req;
    mesh_note(r->TaskID, 'q');
    f.quiet_ms = r->WaitMs;
    if (f.quiet_holds)
        f.quiet_held = c;
    else
        rpc_reply(c, &(struct mesh_quiet_reply){ .Quiet = true });
}

static void on_mesh_down(struct rpc_call *c, const void *req)
{
    (void)req;
    f.mesh_down++;
    rpc_reply(c, NULL);
}

static void on_mesh_list(struct rpc_call *c, const void *req)
{
    (void)req;
    struct mesh_list_reply rep = { { 0, 0 } };
    rpc_reply(c, &rep);
}

static const struct route disp_routes[] = {
    { &op_disp_session, on_session }, { &op_disp_assignments, on_poll }, { &op_disp_status, on_status }, { 0 }
};
static const struct route mesh_routes[] = { { &op_mesh_up, on_mesh_up },       { &op_mesh_ready, on_mesh_ready },
                                            { &op_mesh_quiet, on_mesh_quiet }, { &op_mesh_down, on_mesh_down },
                                            { &op_mesh_list, on_mesh_list },   { 0 } };

/* ---- driving ---- */

static void start_agentd(void)
{
    f.pid = fork();
    assert_true(f.pid >= 0);
    if (f.pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        execl(f.agentd, f.agentd, "-r", f.run, "-s", f.state, "-o", "log_level=info", "-o", "log_size_max=64k", "-o",
              "layer_size_max=32m", NULL);
        _exit(127);
    }
}

static void kill_agentd(int sig)
{
    int status;
    kill(f.pid, sig);
    waitpid(f.pid, &status, 0);
    f.pid = 0;
    fail_poll(ERR_UNAVAILABLE);
}

#define WAIT(cond)                                                                                                     \
    do {                                                                                                               \
        uint64_t until_ = clock_mono().ms + DEADLINE_MS;                                                               \
        while (!(cond)) {                                                                                              \
            if (clock_mono().ms > until_)                                                                              \
                fail_msg("waited too long for %s", #cond);                                                             \
            assert_true(sd_event_run(f.loop, 20000) >= 0);                                                             \
        }                                                                                                              \
    } while (0)

static void desire(const char *id, const char *desired)
{
    struct ftask *t = ftask(id);
    CHECK(t);
    snprintf(t->desired, sizeof t->desired, "%s", desired);
    t->seq = ++f.seq;
    answer_poll();
}

static struct ftask *add(const char *id, const char *desired, const char *json)
{
    json_error_t je;
    json_t *j = json_loads(json, 0, &je);
    if (!j)
        fail_msg("%s: %s", json, je.text);
    struct ftask *t = &f.tasks[f.ntasks++];
    assert_true(f.ntasks < MAX_TASKS);
    snprintf(t->id, sizeof t->id, "%s", id);
    test_json_pack(&t->spec, j);
    json_decref(j);
    desire(id, desired);
    return t;
}

static void drop(const char *id)
{
    struct ftask *t = ftask(id);
    char path[300];
    t->removed = true;
    t->seq = ++f.seq;
    answer_poll();
    snprintf(path, sizeof path, "%s/tasks/%s", f.state, id);
    WAIT(access(path, F_OK) < 0);
    snprintf(path, sizeof path, "%s/tasks/%s", f.run, id);
    WAIT(access(path, F_OK) < 0);
}

static bool ended(const struct ftask *t)
{
    return strcmp(t->state, "complete") == 0 || strcmp(t->state, "failed") == 0 || strcmp(t->state, "rejected") == 0 ||
           strcmp(t->state, "shutdown") == 0;
}

static void wait_state(const struct ftask *t, const char *state)
{
    WAIT(strcmp(t->state, state) == 0 || (ended(t) && strcmp(t->state, state) != 0));
    if (strcmp(t->state, state) != 0)
        fail_msg("task %s: %s (%s), expected %s", t->id, t->state, t->err, state);
}

/* runs a command to its end and gives its output */
static const char *run_sh(const char *id, const char *members, const char *script);

static void on_answer(void *arg, const void *rep, const struct err *e)
{
    (void)arg;
    f.answered = true;
    f.answer = *e;
    if (!rep)
        f.answer.code = e->code ? e->code : ERR_INTERNAL;
}

static void on_logs(void *arg, const void *rep, const struct err *e)
{
    const struct agent_logs_reply *r = rep;
    size_t n = strlen(f.text);
    on_answer(arg, rep, e);
    for (size_t i = 0; r && i < r->Lines.n; i++) {
        const struct agent_log_line *l = &((const struct agent_log_line *)r->Lines.v)[i];
        size_t k = l->Data.n < sizeof f.text - n - 1 ? l->Data.n : sizeof f.text - n - 1;
        memcpy(f.text + n, l->Data.p, k);
        n += k;
        f.text[n] = '\0';
    }
    if (r) {
        f.log_end = r->End;
        str_copy(f.cursor, sizeof f.cursor, r->Cursor);
    }
}

static void ask(const struct op *op, const void *req, rpc_done_fn *done)
{
    f.answered = false;
    rpc_send(f.client, op, req, DEADLINE_MS, done ? done : on_answer, NULL);
    WAIT(f.answered);
}

static void logs(const char *id, int64_t tail, const char *cursor, uint64_t wait_ms)
{
    struct agent_logs req = { .TaskID = str_from(id),
                              .Stdout = true,
                              .Stderr = true,
                              .Tail = tail,
                              .Cursor = str_from(cursor),
                              .WaitMs = wait_ms };
    f.text[0] = '\0';
    ask(&op_agent_logs, &req, on_logs);
    assert_int_equal(f.answer.code, 0);
}

static const char *run_sh(const char *id, const char *members, const char *script)
{
    char json[4096];
    snprintf(json, sizeof json, "{\"ContainerSpec\":{\"Image\":\"busybox\",\"Args\":[\"sh\",\"-c\",\"%s\"]%s%s}}",
             script, members[0] ? "," : "", members);
    struct ftask *t = add(id, "running", json);
    WAIT(ended(t));
    if (strcmp(t->state, "complete") != 0)
        print_message("# %s: %s %s\n", id, t->state, t->err);
    logs(id, -1, "", 0);
    return f.text;
}

static void load_image(const char *path, const char *id)
{
    _cleanup_(buf_done) struct buf b = BUF_INIT;
    struct err e = ERR_INIT;
    assert_int_equal(fs_read(path, 64u << 20, &b, &e), 0);
    for (size_t off = 0;;) {
        size_t n = b.n - off > 1u << 20 ? 1u << 20 : b.n - off;
        struct agent_image_load req = {
            .UploadID = str_from(id), .Offset = off, .Data = { b.p + off, n }, .Last = off + n == b.n
        };
        ask(&op_agent_image_load, &req, NULL);
        off += n;
        if (f.answer.code || off == b.n)
            return;
    }
}

static int setup(void **state)
{
    struct err e = ERR_INIT;
    char cmd[600];
    (void)state;
    if (geteuid() != 0 || access("/usr/bin/crun", X_OK) < 0 || access("/usr/bin/conmon", X_OK) < 0 ||
        access(f.agentd, X_OK) < 0 || access("/bin/busybox", X_OK) < 0)
        return 0;
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return 0;
    (void)umount2("/sys/fs/cgroup/unified", MNT_DETACH);
    snprintf(f.dir, sizeof f.dir, "/tmp/agent-test-XXXXXX");
    if (!mkdtemp(f.dir))
        return -1;
    snprintf(f.run, sizeof f.run, "%s/run", f.dir);
    snprintf(f.state, sizeof f.state, "%s/state", f.dir);
    mkdir(f.run, 0755);
    mkdir(f.state, 0755);
    snprintf(cmd, sizeof cmd, "agentd/testdata/mkimage.sh %s/bb.tar busybox:latest", f.dir);
    if (system(cmd) != 0)
        return -1;
    f.seq = 1;
    f.usable = sd_event_new(&f.loop) >= 0 &&
               rpc_server_open(&f.gateway, f.loop, f.run, "gatewayd", gateway_routes, 64, &e) == 0 &&
               rpc_client_open(&f.relay, f.loop, f.run, "dispatcherd", &e) == 0 &&
               rpc_server_open(&f.disp, f.loop, f.run, "dispatcherd", disp_routes, 64, &e) == 0 &&
               rpc_server_open(&f.mesh, f.loop, f.run, "meshd", mesh_routes, 64, &e) == 0 &&
               rpc_client_open(&f.client, f.loop, f.run, "agentd", &e) == 0;
    if (f.usable) {
        rpc_server_relay(f.gateway, on_relay);
        rpc_server_gateway(f.disp, geteuid());
    }
    start_agentd();
    return f.usable ? 0 : -1;
}

static int teardown(void **state)
{
    char cmd[200];
    (void)state;
    if (!f.usable)
        return 0;
    for (size_t i = 0; i < f.ntasks; i++)
        f.tasks[i].removed = true;
    ask(&op_agent_leave, &(struct agent_empty){ 0 }, NULL);
    kill_agentd(SIGTERM);
    rpc_client_free(f.client);
    rpc_client_free(f.relay);
    rpc_server_free(f.gateway);
    rpc_server_free(f.disp);
    rpc_server_free(f.mesh);
    sd_event_unref(f.loop);
    for (size_t i = 0; i < f.ntasks; i++)
        buf_done(&f.tasks[i].spec);
    snprintf(cmd, sizeof cmd, "rm -rf --one-file-system %s", f.dir);
    return system(cmd);
}

#define NEEDS_ROOT()                                                                                                   \
    if (!f.usable) {                                                                                                   \
        skip();                                                                                                        \
    }

/* ---- cases ---- */

static void no_image_is_rejected(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct ftask *t = add("t-noimage", "running", "{\"ContainerSpec\":{\"Image\":\"127.0.0.1:1/nosuch:1\"}}");
    wait_state(t, "rejected");
    assert_string_equal(t->err, "No such image: 127.0.0.1:1/nosuch:1");
    assert_string_equal(t->container, "");
    drop("t-noimage");
}

static void image_loads(void **state)
{
    char path[100], cmd[900];
    (void)state;
    NEEDS_ROOT();
    snprintf(path, sizeof path, "%s/bb.tar", f.dir);
    load_image(path, "u1");
    assert_int_equal(f.answer.code, 0);
    /* the same bytes with one changed inside the layer */
    snprintf(cmd, sizeof cmd,
             "cd %s && mkdir x && tar -C x -xf bb.tar && printf 'Z' | dd of=x/layer.tar bs=1 seek=40000 "
             "conv=notrunc status=none && tar -C x -cf bad.tar manifest.json config.json layer.tar && "
             "head -c 5000 bb.tar > cut.tar && sed -i s/layer.tar/nosuch.tar/ x/manifest.json && "
             "sed -i s/busybox/other/ x/manifest.json && tar -C x -cf miss.tar manifest.json config.json",
             f.dir);
    assert_int_equal(system(cmd), 0);
    struct agent_image_ref rm = { .Image = STR("busybox:latest") };
    ask(&op_agent_image_remove, &rm, NULL);
    assert_int_equal(f.answer.code, 0);
    static const char *const bad[] = { "bad", "cut", "miss" };
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s.tar", f.dir, bad[i]);
        load_image(path, bad[i]);
        assert_int_equal(f.answer.code, ERR_INVALID);
        print_message("# %s: %s\n", bad[i], f.answer.msg);
    }
    snprintf(cmd, sizeof cmd, "test -z \"$(ls %s/images/layers)$(ls %s/images/configs)\"", f.state, f.state);
    uint64_t until = clock_mono().ms + DEADLINE_MS; /* leftovers go in the background */
    while (system(cmd) != 0)
        assert_true(clock_mono().ms < until);
    snprintf(path, sizeof path, "%s/bb.tar", f.dir);
    load_image(path, "u2");
    assert_int_equal(f.answer.code, 0);
}

/* layers that want out of their folder, and members that nobody can read to their end */
static void hostile_images(void **state)
{
    static const char *const bad[] = { "fifo-manifest.json", "fifo-config.json", "fifo-layer.tar" };
    static const char *const evil[] = { "link", "rel", "up", "hard", "white", "mark" };
    char cmd[900], path[160];
    (void)state;
    NEEDS_ROOT();
    snprintf(cmd, sizeof cmd, "agentd/testdata/hostile.py %s", f.dir);
    assert_int_equal(system(cmd), 0);
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s.tar", f.dir, bad[i]);
        load_image(path, bad[i]);
        assert_int_equal(f.answer.code, ERR_INVALID);
        print_message("# %s: %s\n", bad[i], f.answer.msg);
    }
    for (size_t i = 0; i < sizeof evil / sizeof evil[0]; i++) {
        snprintf(path, sizeof path, "%s/evil-%s.tar", f.dir, evil[i]);
        load_image(path, evil[i]);
        print_message("# %s: %d %s\n", evil[i], f.answer.code, f.answer.msg);
    }
    assert_int_equal(f.answer.code, 0);
    snprintf(path, sizeof path, "%s/bomb.tar", f.dir);
    load_image(path, "bomb");
    assert_int_equal(f.answer.code, ERR_TOO_BIG);
    print_message("# a layer that unpacks to too much: %s\n", f.answer.msg);
    snprintf(cmd, sizeof cmd, "ls -A %s/images/tmp | grep -q .", f.state);
    WAIT(system(cmd) != 0); /* nothing of it is left, a moment after the answer */
    snprintf(cmd, sizeof cmd,
             "cd %s/victim && test \"$(ls -A)\" = file && test \"$(cat file)\" = mine && "
             "! getfattr -d -m - . 2>/dev/null | grep -q overlay",
             f.dir);
    assert_int_equal(system(cmd), 0);
    snprintf(cmd, sizeof cmd,
             "cd %s/images/layers && for d in */d; do python3 -c 'import os,sys; a=os.listxattr(sys.argv[1]); "
             "sys.exit(\"user.kept\" not in a or any(\"overlay\" in x for x in a))' $d || exit 1; done",
             f.state);
    assert_int_equal(system(cmd), 0);
}

/* ---- a registry on loopback ---- */

static int free_port(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof a;
    _cleanup_(closep) int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s, (struct sockaddr *)&a, n), 0);
    assert_int_equal(getsockname(s, (struct sockaddr *)&a, &n), 0);
    return ntohs(a.sin_port);
}

static bool listens(int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    _cleanup_(closep) int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return connect(s, (struct sockaddr *)&a, sizeof a) == 0;
}

/* user "joe", password "secret" when @auth */
static pid_t start_registry(int port, bool auth)
{
    char conf[300], dir[200];
    struct err e = ERR_INIT;
    _cleanup_(buf_done) struct buf b = BUF_INIT;
    snprintf(dir, sizeof dir, "%s/registry-%d", f.dir, port);
    mkdir(dir, 0755);
    snprintf(conf, sizeof conf, "%s/htpasswd", dir);
    assert_int_equal(
        fs_write(conf, STR("joe:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"), 0644, &e), 0);
    buf_printf(
        &b,
        "version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\n"
        "http: {addr: '127.0.0.1:%d'}\n",
        dir, port);
    if (auth)
        buf_printf(&b, "auth: {htpasswd: {realm: r, path: %s}}\n", conf);
    snprintf(conf, sizeof conf, "%s/config.yml", dir);
    assert_int_equal(fs_write(conf, buf_str(&b), 0644, &e), 0);
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR);
        dup2(null, 1);
        dup2(null, 2);
        execl("/usr/bin/docker-registry", "docker-registry", "serve", conf, NULL);
        _exit(127);
    }
    WAIT(listens(port));
    return pid;
}

static void push(int port, const char *name, const char *creds)
{
    char cmd[600];
    snprintf(cmd, sizeof cmd,
             "skopeo copy --quiet --dest-tls-verify=false %s %s docker-archive:%s/bb.tar docker://127.0.0.1:%d/%s",
             creds[0] ? "--dest-creds" : "", creds, f.dir, port, name);
    assert_int_equal(system(cmd), 0);
}

static char pulled_digest[100];
static bool pulled_uptodate;

static void on_pulled(void *arg, const void *rep, const struct err *e)
{
    const struct agent_image_pull_reply *r = rep;
    on_answer(arg, rep, e);
    if (r) {
        str_copy(pulled_digest, sizeof pulled_digest, r->Digest);
        pulled_uptodate = r->UpToDate;
    }
}

static void pulls(void **state)
{
    char ref[100], json[300], err[300];
    (void)state;
    NEEDS_ROOT();
    if (access("/usr/bin/docker-registry", X_OK) < 0 || access("/usr/bin/skopeo", X_OK) < 0)
        skip();
    int port = free_port();
    pid_t reg = start_registry(port, false);
    push(port, "app:1", "");
    snprintf(ref, sizeof ref, "127.0.0.1:%d/app:1", port);
    snprintf(json, sizeof json, "{\"ContainerSpec\":{\"Image\":\"%s\",\"Args\":[\"true\"]}}", ref);
    struct ftask *t = add("t-pull", "running", json);
    wait_state(t, "complete");
    struct agent_image_ref req = { .Image = str_from(ref) };
    ask(&op_agent_image_pull, &req, on_pulled);
    assert_int_equal(f.answer.code, 0);
    assert_true(pulled_uptodate);
    assert_int_equal(strlen(pulled_digest), 71);
    snprintf(json, sizeof json, "{\"ContainerSpec\":{\"Image\":\"%s@%s\",\"Args\":[\"true\"]}}", ref, pulled_digest);
    kill(reg, SIGKILL);
    waitpid(reg, NULL, 0);
    t = add("t-pull-digest", "running", json); /* present: nobody is asked */
    wait_state(t, "complete");
    snprintf(json, sizeof json, "{\"ContainerSpec\":{\"Image\":\"%s\",\"Args\":[\"true\"]}}", ref);
    t = add("t-pull-gone", "running", json); /* the registry is away: the local one */
    wait_state(t, "complete");

    port = free_port();
    reg = start_registry(port, true);
    push(port, "priv:1", "joe:secret");
    snprintf(ref, sizeof ref, "127.0.0.1:%d/priv:1", port);
    snprintf(json, sizeof json, "{\"ContainerSpec\":{\"Image\":\"%s\",\"Args\":[\"true\"]}}", ref);
    t = add("t-noauth", "running", json);
    wait_state(t, "rejected");
    snprintf(err, sizeof err,
             "pull access denied for 127.0.0.1:%d/priv, repository does not exist or may require 'docker login'", port);
    assert_non_null(strstr(t->err, err));
    snprintf(ref, sizeof ref, "127.0.0.1:%d/priv:nosuch", port);
    struct agent_image_ref bad = { .Image = str_from(ref),
                                   .RegistryAuth = STR("{\"username\":\"joe\",\"password\":\"secret\"}") };
    ask(&op_agent_image_pull, &bad, on_pulled);
    assert_int_equal(f.answer.code, ERR_NOT_FOUND);
    print_message("# %s\n", f.answer.msg);
    struct agent_image_ref res = bad;
    snprintf(ref, sizeof ref, "127.0.0.1:%d/priv:1", port);
    res.Image = str_from(ref);
    ask(&op_agent_image_resolve, &res, NULL);
    assert_int_equal(f.answer.code, 0);
    struct ftask *p = &f.tasks[f.ntasks];
    snprintf(p->auth, sizeof p->auth, "{\"username\":\"joe\",\"password\":\"secret\",\"serveraddress\":\"x\"}");
    t = add("t-auth", "running", json);
    wait_state(t, "complete");
    snprintf(json, sizeof json, "! grep -rl secret %s/agent %s/images/index.json; ! ls %s/auth-* 2>/dev/null", f.state,
             f.state, f.run);
    assert_int_equal(system(json), 0);
    kill(reg, SIGKILL);
    waitpid(reg, NULL, 0);
    static const char *const all[] = { "t-pull", "t-pull-digest", "t-pull-gone", "t-noauth", "t-auth" };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        drop(all[i]);
}

static void runs_and_stops(void **state)
{
    (void)state;
    NEEDS_ROOT();
    uint64_t t0 = clock_mono().ms;
    struct ftask *t = add("t-run", "running",
                          "{\"ContainerSpec\":{\"Image\":\"busybox\",\"Command\":[\"sh\"],\"Args\":[\"-c\",\"trap "
                          "'exit 3' TERM; echo up; while :; do sleep 0.02; done\"]}}");
    wait_state(t, "running");
    print_message("# assigned to running: %" PRIu64 " ms\n", clock_mono().ms - t0);
    assert_string_equal(t->message, "started");
    assert_int_equal(strlen(t->container), 64);
    assert_int_equal(kill((pid_t)t->pid, 0), 0);
    logs("t-run", -1, "", DEADLINE_MS / 2); /* its trap is set once it speaks */
    assert_string_equal(f.text, "up\n");
    t0 = clock_mono().ms;
    desire("t-run", "shutdown");
    wait_state(t, "shutdown");
    print_message("# stop: %" PRIu64 " ms\n", clock_mono().ms - t0);
    assert_int_equal(t->exit_code, 3);
    drop("t-run");
}

static void exit_codes(void **state)
{
    (void)state;
    NEEDS_ROOT();
    run_sh("t-ok", "", "echo out; echo err >&2");
    assert_string_equal(ftask("t-ok")->state, "complete");
    assert_string_equal(ftask("t-ok")->message, "finished");
    assert_non_null(strstr(f.text, "out\n"));
    assert_non_null(strstr(f.text, "err\n"));
    assert_true(f.log_end);
    run_sh("t-five", "", "exit 5");
    assert_string_equal(ftask("t-five")->state, "failed");
    assert_string_equal(ftask("t-five")->err, "task: non-zero exit (5)");
    assert_int_equal(ftask("t-five")->exit_code, 5);
    struct ftask *t = add("t-nocmd", "running", "{\"ContainerSpec\":{\"Image\":\"busybox\",\"Command\":[\"foo\"]}}");
    wait_state(t, "failed");
    print_message("# %s\n", t->err);
    assert_non_null(strstr(t->err, "starting container failed: "));
    assert_non_null(strstr(t->err, "exec: \"foo\": executable file not found in $PATH"));
    assert_int_equal(t->exit_code, 127);
    t = add("t-nobind", "running",
            "{\"ContainerSpec\":{\"Image\":\"busybox\",\"Mounts\":[{\"Type\":\"bind\",\"Source\":\"/nonexistent/"
            "x\",\"Target\":\"/x\"}]}}");
    wait_state(t, "rejected");
    assert_string_equal(t->err,
                        "invalid mount config for type \"bind\": bind source path does not exist: /nonexistent/x");
    t = add("t-nouser", "running", "{\"ContainerSpec\":{\"Image\":\"busybox\",\"User\":\"ghost\"}}");
    wait_state(t, "failed");
    assert_string_equal(t->err,
                        "starting container failed: unable to find user ghost: no matching entries in passwd file");
    f.mesh_fails = true;
    t = add("t-port", "running", "{\"ContainerSpec\":{\"Image\":\"busybox\"}}");
    wait_state(t, "failed");
    assert_string_equal(t->err, "starting container failed: port is already allocated");
    f.mesh_fails = false;
    static const char *const all[] = { "t-ok", "t-five", "t-nocmd", "t-nobind", "t-nouser", "t-port" };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        drop(all[i]);
}

static void spec_is_honoured(void **state)
{
    (void)state;
    NEEDS_ROOT();
    const char *o =
        run_sh("t-spec",
               "\"Env\":[\"A={{.Service.Name}}-{{.Task.Slot}}\",\"FROM_IMAGE=2\"],\"Dir\":\"/new/"
               "dir\",\"User\":\"app\",\"Groups\":[\"extra\",\"77\"],"
               "\"Hostname\":\"h-{{.Node.Hostname}}\",\"Hosts\":[\"1.2.3.4 foo bar\"],\"ReadOnly\":true,\"Init\":true,"
               "\"Ulimits\":[{\"Name\":\"nofile\",\"Soft\":100,\"Hard\":200}],\"CapabilityDrop\":[\"CAP_CHOWN\"],"
               "\"Mounts\":[{\"Type\":\"tmpfs\",\"Target\":\"/"
               "scratch\",\"TmpfsOptions\":{\"SizeBytes\":1048576,\"Mode\":511}},"
               "{\"Type\":\"volume\",\"Source\":\"vol1\",\"Target\":\"/data\"}]",
               "id; pwd; hostname; env; cat /etc/hosts /etc/resolv.conf; ulimit -n; ulimit -Hn; cat /proc/1/cmdline | "
               "tr '\\\\0' ' '; echo; "
               "touch /ro-test || echo readonly; echo x > /scratch/y && echo wrote; cat /data/seed; grep -E "
               "'Cap|Secc|NoNew' /proc/self/status; "
               "mount | grep -E ' /(data|scratch|proc/sys|etc/hosts) '");
    print_message("%s", o);
    assert_string_equal(ftask("t-spec")->state, "complete");
    assert_non_null(strstr(o, "uid=1000(app) gid=1000(app) groups=77,1000(app),2000(extra)"));
    assert_non_null(strstr(o, "\n/new/dir\n"));
    assert_non_null(strstr(o, "\nh-host1\n"));
    assert_non_null(strstr(o, "A=web-7\n"));
    assert_non_null(strstr(o, "FROM_IMAGE=2\n"));
    assert_non_null(strstr(o, "HOME=/home\n"));
    assert_non_null(strstr(o, "1.2.3.4\tfoo bar\n"));
    assert_non_null(strstr(o, "10.9.8.7\th-host1\n"));
    assert_non_null(strstr(o, "nameserver 9.9.9.9\n"));
    assert_non_null(strstr(o, "100\n200\n"));
    assert_non_null(strstr(o, "/sbin/docker-init -- sh"));
    assert_non_null(strstr(o, "readonly\n"));
    assert_non_null(strstr(o, "wrote\n"));
    assert_non_null(strstr(o, "seed\n"));
    assert_non_null(strstr(o, "CapEff:\t0000000000000000\n"));
    assert_non_null(strstr(o, "CapBnd:\t00000000a80425fa\n"));
    assert_non_null(strstr(o, "Seccomp:\t2\n"));
    assert_non_null(strstr(o, "size=1024k"));
    drop("t-spec");
    char path[200];
    snprintf(path, sizeof path, "%s/volumes/vol1/_data/seed", f.state);
    assert_int_equal(access(path, F_OK), 0);
    snprintf(path, sizeof path, "%s/volumes/vol1/_data/out", f.state);
    assert_int_equal(symlink("/etc", path), 0);
    o = run_sh("t-subfill", "\"Mounts\":[{\"Type\":\"volume\",\"Source\":\"vol1\",\"Target\":\"/data\"}]",
               "mkdir -p /data/in/deep && echo content > /data/in/deep/file && echo done");
    assert_non_null(strstr(o, "done"));
    o = run_sh("t-subuse",
               "\"Mounts\":[{\"Type\":\"volume\",\"Source\":\"vol1\",\"Target\":\"/data\","
               "\"VolumeOptions\":{\"Subpath\":\"in/deep\"}},{\"Type\":\"volume\",\"Source\":\"vol1\","
               "\"Target\":\"/one\",\"VolumeOptions\":{\"Subpath\":\"in/deep/file\"}}]",
               "ls /data; cat /data/file /one; echo more >> /one; cat /data/file");
    assert_non_null(strstr(o, "file\ncontent\ncontent\ncontent\nmore\n"));
    drop("t-subfill");
    drop("t-subuse");
    assert_int_not_equal(system("grep -q /sub /proc/self/mountinfo"), 0);
    static const char *const sub[] = { "out", "..", "nothing" };
    for (size_t i = 0; i < 3; i++) {
        char members[200], id[16];
        snprintf(id, sizeof id, "t-sub%zu", i);
        snprintf(members, sizeof members,
                 "\"Mounts\":[{\"Type\":\"volume\",\"Source\":\"vol1\",\"Target\":\"/data\","
                 "\"VolumeOptions\":{\"Subpath\":\"%s\"}}]",
                 sub[i]);
        (void)run_sh(id, members, "ls /data");
        assert_string_equal(ftask(id)->state, "failed");
        assert_non_null(strstr(ftask(id)->err, "volume"));
        drop(id);
    }
    o = run_sh("t-seccomp", "\"CapabilityAdd\":[\"CAP_SYS_ADMIN\"]", "mount -t tmpfs x /tmp && echo mounted");
    assert_non_null(strstr(o, "mounted\n"));
    o = run_sh("t-noseccomp", "\"Privileges\":{\"Seccomp\":{\"Mode\":\"unconfined\"},\"NoNewPrivileges\":true}",
               "grep -E 'Secc|NoNew' /proc/self/status");
    assert_non_null(strstr(o, "NoNewPrivs:\t1\nSeccomp:\t0\n"));
    drop("t-seccomp");
    drop("t-noseccomp");
}

static void limits_hold(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct ftask *t =
        add("t-oom", "running",
            "{\"ContainerSpec\":{\"Image\":\"busybox\",\"Args\":[\"sh\",\"-c\",\"cat /dev/zero | head -c 100000000 | "
            "sh -c 'x=$(tr a b); echo $x'\"]},\"Resources\":{\"Limits\":{\"MemoryBytes\":16777216}}}");
    WAIT(ended(t));
    print_message("# oom in a child: %s %s\n", t->state, t->err);
    t = add("t-oom2", "running",
            "{\"ContainerSpec\":{\"Image\":\"busybox\",\"Command\":[\"dd\",\"if=/dev/zero\",\"of=/dev/"
            "null\",\"bs=100M\",\"count=1\"]},\"Resources\":{\"Limits\":{\"MemoryBytes\":16777216,\"NanoCPUs\":"
            "500000000,\"Pids\":20}}}");
    wait_state(t, "failed");
    assert_string_equal(t->err, "task: non-zero exit (137): OOMKilled");
    assert_int_equal(t->exit_code, 137);
    t = add("t-lim", "running",
            "{\"ContainerSpec\":{\"Image\":\"busybox\"},\"Resources\":{\"Limits\":{\"MemoryBytes\":16777216,"
            "\"NanoCPUs\":500000000,\"Pids\":20}}}");
    wait_state(t, "running");
    if (access("/sys/fs/cgroup/memory/memory.limit_in_bytes", F_OK) == 0)
        assert_int_equal(
            system("test $(cat /sys/fs/cgroup/memory/microswarm/t-lim/memory.limit_in_bytes) = 16777216 && "
                   "test $(cat /sys/fs/cgroup/cpu/microswarm/t-lim/cpu.cfs_quota_us) = 50000 && "
                   "test $(cat /sys/fs/cgroup/pids/microswarm/t-lim/pids.max) = 20"),
            0);
    drop("t-oom");
    drop("t-oom2");
    drop("t-lim");
    assert_int_equal(system("! ls -d /sys/fs/cgroup/*/microswarm/t-* 2>/dev/null"), 0);
}

static void survives_restart(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct ftask *a = add("t-live", "running",
                          "{\"ContainerSpec\":{\"Image\":\"busybox\",\"Args\":[\"sh\",\"-c\",\"i=0; while :; do "
                          "i=$((i+1)); echo line $i; sleep 0.05; done\"]}}");
    struct ftask *b = add("t-dies", "running", "{\"ContainerSpec\":{\"Image\":\"busybox\"}}");
    struct ftask *c = add("t-mon", "running", "{\"ContainerSpec\":{\"Image\":\"busybox\"}}");
    wait_state(a, "running");
    wait_state(b, "running");
    wait_state(c, "running");
    uint64_t pid = a->pid;
    unsigned sessions = f.sessions;
    kill_agentd(SIGKILL);
    assert_int_equal(kill((pid_t)pid, 0), 0);
    kill((pid_t)b->pid, SIGKILL); /* while nobody watches */
    char path[300];
    _cleanup_(buf_done) struct buf mon = BUF_INIT;
    struct err e = ERR_INIT;
    snprintf(path, sizeof path, "%s/tasks/t-mon/conmon.pid", f.run);
    assert_int_equal(fs_read(path, 32, &mon, &e), 0);
    assert_int_equal(kill((pid_t)strtol(buf_cstr(&mon), NULL, 10), SIGKILL), 0);
    start_agentd();
    WAIT(f.sessions > sessions);
    wait_state(b, "failed");
    assert_string_equal(b->err, "task: non-zero exit (137)");
    wait_state(c, "failed");
    print_message("# monitor killed: %s\n", c->err);
    assert_string_equal(a->state, "running");
    assert_int_equal(a->pid, pid);
    assert_int_equal(kill((pid_t)pid, 0), 0);
    logs("t-live", 1, "", 0);
    char before[8192];
    snprintf(before, sizeof before, "%s", f.text);
    logs("t-live", -1, f.cursor, 5000); /* long poll: the next line */
    assert_true(strncmp(f.text, "line ", 5) == 0 && strcmp(f.text, before) != 0);
    kill((pid_t)pid, SIGKILL);
    wait_state(a, "failed");
    drop("t-live");
    drop("t-dies");
    drop("t-mon");
}

/* Cut off from all managers, a node goes on; what happened meanwhile is reported afterwards, in the same session. */
static void cut_off(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct ftask *a = add("t-stays", "running", "{\"ContainerSpec\":{\"Image\":\"busybox\"}}");
    struct ftask *b = add("t-ends", "running", "{\"ContainerSpec\":{\"Image\":\"busybox\"}}");
    wait_state(a, "running");
    wait_state(b, "running");
    WAIT(f.poll != NULL);
    unsigned sessions = f.sessions, refused = f.refused;
    f.cut = true;
    fail_poll(ERR_UNAVAILABLE);
    kill((pid_t)b->pid, SIGKILL);
    WAIT(f.refused > refused + 3); /* the poll, the report, and both again */
    assert_string_equal(b->state, "running");
    assert_int_equal(kill((pid_t)a->pid, 0), 0);
    f.cut = false;
    wait_state(b, "failed");
    assert_int_equal(f.sessions, sessions);
    assert_string_equal(a->state, "running");
    WAIT(f.poll != NULL);
    uint64_t before = clock_mono().ms;
    fail_poll(ERR_GONE); /* another manager leads, which knows of no session */
    WAIT(f.sessions == sessions + 1 && f.poll != NULL);
    print_message("# a new session after %" PRIu64 " ms\n", clock_mono().ms - before);
    assert_true(clock_mono().ms - before < 1000);
    assert_int_equal(kill((pid_t)a->pid, 0), 0);
    drop("t-stays");
    drop("t-ends");
}

static struct ftask *add_networked(const char *id, uint64_t drain_ms)
{
    json_t *j = json_loads("{\"ContainerSpec\":{\"Image\":\"busybox\",\"Hostname\":\"host-a\","
                           "\"StopSignal\":\"KILL\"}}",
                           0, NULL);
    struct ftask *t = &f.tasks[f.ntasks++];
    assert_true(f.ntasks < MAX_TASKS);
    snprintf(t->id, sizeof t->id, "%s", id);
    t->networked = true;
    t->drain_ms = drain_ms;
    test_json_pack(&t->spec, j);
    json_decref(j);
    memset(f.mesh_asked, 0, sizeof f.mesh_asked);
    desire(id, "running");
    return t;
}

/* A task that others connect to: out of the way at once, then the managers' word, then quiet, then the signal. */
static void drains(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct ftask *t = add_networked("t-net1", 7000);
    wait_state(t, "running");
    assert_string_equal(f.mesh_asked, "ur");
    assert_string_equal(f.mesh_up_text, "web web.7.t-net1 host-a front=10.0.1.5/24+1 ingress!=10.0.0.5/24+0");
    desire("t-net1", "shutdown");
    WAIT(strcmp(f.mesh_asked, "uro") == 0);
    assert_int_equal(kill((pid_t)t->pid, 0), 0);
    f.quiet_holds = true;
    t->drained = true;
    desire("t-net1", "shutdown");
    WAIT(f.quiet_held != NULL);
    assert_string_equal(f.mesh_asked, "uroq");
    assert_int_equal(f.quiet_ms, 7000);
    assert_int_equal(kill((pid_t)t->pid, 0), 0); /* it still serves what is open */
    assert_string_equal(t->state, "running");
    rpc_reply(TAKE(f.quiet_held), &(struct mesh_quiet_reply){ .Connections = 3 });
    f.quiet_holds = false;
    wait_state(t, "shutdown");
    drop("t-net1");
    /* no manager says anything: after drain_wait it goes on */
    t = add_networked("t-net2", 7000);
    wait_state(t, "running");
    desire("t-net2", "shutdown");
    wait_state(t, "shutdown");
    assert_string_equal(f.mesh_asked, "uroq");
    drop("t-net2");
    /* nobody connects to it: no questions */
    t = add_networked("t-net3", 0);
    wait_state(t, "running");
    desire("t-net3", "shutdown");
    wait_state(t, "shutdown");
    assert_string_equal(f.mesh_asked, "uro");
    drop("t-net3");
    /* it ends by itself while it waits */
    t = add_networked("t-net4", 7000);
    wait_state(t, "running");
    desire("t-net4", "shutdown");
    WAIT(strcmp(f.mesh_asked, "uro") == 0);
    kill((pid_t)t->pid, SIGKILL);
    wait_state(t, "shutdown");
    drop("t-net4");
}

/* What a node cannot do at all is rejected, with the reason. */
static void network_is_refused(void **state)
{
    (void)state;
    NEEDS_ROOT();
    f.mesh_unable = true;
    struct ftask *t = add_networked("t-net5", 0);
    wait_state(t, "rejected");
    assert_string_equal(t->err, "network front: this kernel cannot encrypt");
    assert_string_equal(t->container, "");
    f.mesh_unable = false;
    drop("t-net5");
}

/* Without any manager, a restarted agentd knows the networks of what it had begun. */
static void networks_are_kept(void **state)
{
    (void)state;
    NEEDS_ROOT();
    f.mesh_holds = true;
    struct ftask *t = add_networked("t-net6", 50);
    WAIT(f.mesh_held != NULL && strcmp(t->state, "starting") == 0); /* reported, so stored */
    kill_agentd(SIGKILL);
    rpc_fail(TAKE(f.mesh_held), ERR_UNAVAILABLE, "nobody waits for this");
    f.cut = true;
    f.mesh_holds = false;
    f.mesh_up_text[0] = '\0';
    start_agentd();
    WAIT(f.mesh_up_text[0] != '\0');
    assert_string_equal(f.mesh_up_text, "web web.7.t-net6 host-a front=10.0.1.5/24+1 ingress!=10.0.0.5/24+0");
    f.cut = false;
    wait_state(t, "running");
    kill((pid_t)t->pid, SIGKILL);
    wait_state(t, "failed");
    drop("t-net6");
}

static void logs_rotate(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct ftask *t =
        add("t-log", "running", "{\"ContainerSpec\":{\"Image\":\"busybox\",\"Args\":[\"sh\",\"-c\",\"seq 1 3000\"]}}");
    wait_state(t, "complete");
    logs("t-log", 3, "", 0);
    assert_string_equal(f.text, "2998\n2999\n3000\n");
    assert_true(f.log_end);
    int n = 0;
    struct agent_logs req = { .TaskID = STR("t-log"), .Stdout = true, .Tail = -1 };
    f.text[0] = '\0';
    ask(&op_agent_logs, &req, on_logs);
    n = (int)strtol(f.text, NULL, 10);
    print_message("# oldest line kept: %d\n", n);
    assert_true(n >= 1 && n < 2000);
    char cmd[200];
    snprintf(cmd, sizeof cmd, "ls -la %s/tasks/t-log", f.state);
    assert_int_equal(system(cmd), 0);
    drop("t-log");
}

static void one_after_the_other(void **state)
{
    enum { N = 20 };
    uint64_t sum = 0, worst = 0;
    char id[32];
    (void)state;
    NEEDS_ROOT();
    for (int i = 0; i < N; i++) {
        snprintf(id, sizeof id, "t-seq%d", i);
        uint64_t t0 = clock_mono().ms;
        struct ftask *t = add(id, "running", "{\"ContainerSpec\":{\"Image\":\"busybox\",\"StopSignal\":\"KILL\"}}");
        wait_state(t, "running");
        uint64_t ms = clock_mono().ms - t0;
        sum += ms;
        worst = ms > worst ? ms : worst;
        drop(id);
    }
    print_message("# assigned to running, one at a time: mean %" PRIu64 " ms, worst %" PRIu64 " ms\n", sum / N, worst);
}

static void many_at_once(void **state)
{
    (void)state;
    NEEDS_ROOT();
    uint64_t t0 = clock_mono().ms;
    char id[32];
    enum { N = 40 };
    struct ftask *t[N];
    for (int i = 0; i < N; i++) {
        snprintf(id, sizeof id, "t-many%d", i);
        t[i] = add(id, "running", "{\"ContainerSpec\":{\"Image\":\"busybox\"}}");
    }
    for (int i = 0; i < N; i++)
        wait_state(t[i], "running");
    uint64_t ms = clock_mono().ms - t0;
    print_message("# %d containers in %" PRIu64 " ms: %.1f a second\n", N, ms, N * 1000.0 / (double)ms);
    if (system("grep -h ^Pss: $(pgrep -x conmon | sed 's|.*|/proc/&/smaps_rollup|') | awk '{s+=$2} END {print \"# "
               "conmon PSS\", s/NR, \"KiB each\"}'") != 0)
        print_message("# no memory figures\n");
    char cmd[200];
    snprintf(cmd, sizeof cmd, "echo \"# agentd $(grep ^Pss: /proc/%d/smaps_rollup)\"", (int)f.pid);
    (void)!system(cmd);
    t0 = clock_mono().ms;
    for (int i = 0; i < N; i++)
        kill((pid_t)t[i]->pid, SIGKILL);
    for (int i = 0; i < N; i++)
        wait_state(t[i], "failed");
    print_message("# %d ends seen in %" PRIu64 " ms\n", N, clock_mono().ms - t0);
    for (int i = 0; i < N; i++)
        drop(t[i]->id);
    assert_int_equal(system("! ls -d /sys/fs/cgroup/*/microswarm/t-* 2>/dev/null"), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_image_is_rejected),
        cmocka_unit_test(image_loads),
        cmocka_unit_test(hostile_images),
        cmocka_unit_test(runs_and_stops),
        cmocka_unit_test(exit_codes),
        cmocka_unit_test(spec_is_honoured),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(survives_restart),
        cmocka_unit_test(cut_off),
        cmocka_unit_test(drains),
        cmocka_unit_test(network_is_refused),
        cmocka_unit_test(networks_are_kept),
        cmocka_unit_test(logs_rotate),
        cmocka_unit_test(one_after_the_other),
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(pulls),
    };
    (void)argc;
    snprintf(f.agentd, sizeof f.agentd, "%.300s", argv[0]);
    char *slash = strrchr(f.agentd, '/');
    snprintf(slash ? slash : f.agentd, 32, "/../bin/agentd");
    return cmocka_run_group_tests(tests, setup, teardown);
}
