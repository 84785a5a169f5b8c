/*
 * fake_agent - an agent without containers: it claims at once whatever state is wanted. For trying and timing the
 * control plane without agentd: fake_agent RUN_DIR [SECONDS]
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/daemon/rpc.h"
#include "common/object/views.h"
#include "common/proto/msg_dispatcherd.h"
#include "common/util/check.h"
#include "common/util/clock.h"
#include "common/util/table.h"

struct fake {
    const char *run_dir;
    struct arena a;
    char session[64];
    uint64_t seq;
    struct table tasks; /* ID -> enum task_state reported */
};

static int call(struct fake *f, const struct op *op, const void *req, void *rep)
{
    struct err e = ERR_INIT;
    int r = rpc_call_sync(f->run_dir, "dispatcherd", op, req, 30000, rep, &f->a, &e);
    if (r != 0)
        fprintf(stderr, "%s: %s\n", op->name, e.msg);
    return r;
}

static bool open_session(struct fake *f)
{
    struct buf b = BUF_INIT;
    struct disp_session_reply rep;
    mp_map(&b, 3);
    mp_kv_cstr(&b, "Hostname", "fake");
    mp_cstr(&b, "Platform");
    mp_map(&b, 2);
    mp_kv_cstr(&b, "Architecture", "x86_64");
    mp_kv_cstr(&b, "OS", "linux");
    mp_cstr(&b, "Resources");
    mp_map(&b, 2);
    mp_kv_i64(&b, "NanoCPUs", 2000000000);
    mp_kv_i64(&b, "MemoryBytes", 8ll << 30);
    struct disp_session req = { .Hostname = STR("fake"), .Description = buf_str(&b) };
    int r = call(f, &op_disp_session, &req, &rep);
    buf_done(&b);
    if (r != 0)
        return false;
    CHECK(str_copy(f->session, sizeof f->session, rep.SessionID));
    f->seq = 0;
    printf("session of node " STR_FMT "\n", STR_ARG(rep.NodeID));
    return true;
}

/* target - what a node without containers can claim at once. */
static enum task_state target(enum task_state desired)
{
    return desired >= TASK_SHUTDOWN ? TASK_SHUTDOWN : desired < TASK_RUNNING ? TASK_READY : TASK_RUNNING;
}

static void work(struct fake *f, const struct disp_assignments_reply *rep)
{
    struct task_status *s = arena_array(&f->a, rep->Tasks.n + 1, sizeof *s);
    struct disp_status req = { .SessionID = str_from(f->session) };
    struct disp_status_reply done;
    const struct assignment *t = rep->Tasks.v;
    CHECK(s != NULL);
    for (size_t i = 0; i < rep->Removed.n; i++)
        table_del(&f->tasks, rep->Removed.v[i]);
    for (size_t i = 0; i < rep->Tasks.n; i++) {
        enum task_state *now = table_put(&f->tasks, t[i].ID, NULL), want = target(task_state_parse(t[i].DesiredState));
        if (want <= *now)
            continue;
        *now = want;
        s[req.Statuses.n++] = (struct task_status){ .TaskID = t[i].ID,
                                                    .State = str_from(task_state_name(want)),
                                                    .Message = STR("started"),
                                                    .Timestamp = clock_wall().ns };
    }
    req.Statuses.v = s;
    printf("%" PRIu64 " seq %" PRIu64 "%s: %zu tasks, %zu removed, %zu reports\n", clock_mono().ms, rep->Seq,
           rep->Full ? " full" : "", rep->Tasks.n, rep->Removed.n, req.Statuses.n);
    fflush(stdout);
    if (req.Statuses.n && call(f, &op_disp_status, &req, &done) != 0)
        f->session[0] = 0;
}

int main(int argc, char **argv)
{
    struct fake f = { .run_dir = argc > 1 ? argv[1] : "/run/microswarm" };
    uint64_t end = clock_mono().ms + (argc > 2 ? strtoull(argv[2], NULL, 10) : 3600) * 1000;
    arena_init(&f.a, 256u << 20);
    table_init(&f.tasks, sizeof(enum task_state));
    while (clock_mono().ms < end) {
        struct disp_assignments req = { .WaitMs = 1000 };
        struct disp_assignments_reply rep;
        arena_reset(&f.a);
        if (!f.session[0] && !open_session(&f)) {
            usleep(100000); /* wait: for a dispatcherd to be there; a tool, not a daemon */
            continue;
        }
        req.SessionID = str_from(f.session);
        req.Seq = f.seq;
        if (call(&f, &op_disp_assignments, &req, &rep) != 0) {
            f.session[0] = 0;
            continue;
        }
        if (rep.Seq != f.seq)
            work(&f, &rep);
        f.seq = rep.Seq;
    }
    return 0;
}
