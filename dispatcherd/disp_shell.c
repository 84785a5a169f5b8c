/* disp_shell.c - see disp_shell.h. */
#include "dispatcherd/disp_shell.h"

#include <inttypes.h>

#include "dispatcherd/disp_pass.h"

struct disp_conf disp_conf;

static struct disp_keeper keeper;
static struct controller *controller;
static struct timer *timer;
static const struct controller_ops *core_ops = &disp_ops;
static struct controller_ops ops;

/* ---- calls ---- */

static void call_opened(void *call, const struct disp_session_reply *rep)
{
    rpc_reply(call, rep);
}

static void call_stored(void *call, const struct disp_status_reply *rep)
{
    rpc_reply(call, rep);
}

static void call_assigned(void *call, const struct disp_assignments_reply *rep)
{
    rpc_reply(call, rep);
}

static void call_failed(void *call, int code, const char *why)
{
    rpc_fail(call, code, "%s", why);
}

static struct arena *call_arena(void *call)
{
    return rpc_arena(call);
}

static uint64_t mono_now(void)
{
    return clock_mono().ms;
}

static const struct disp_calls calls = { call_opened, call_stored, call_assigned, call_failed,
                                         call_arena,  mono_now,    id_new };

/* ---- requests ---- */

static void arm(void)
{
    timer_arm(timer, disp_next_ms(&keeper.core));
}

/* permitted - on this host's socket only agentd speaks for this node. */
static bool permitted(struct rpc_call *c)
{
    return rpc_permit(c, disp_conf.user_agentd, "agentd");
}

static void on_session(struct rpc_call *c, const void *req)
{
    if (permitted(c))
        disp_hello(&keeper, c, req, STR(""));
}

static void on_assignments(struct rpc_call *c, const void *req)
{
    if (!permitted(c))
        return;
    disp_poll(&keeper, c, req, STR(""));
    arm();
}

static void on_status(struct rpc_call *c, const void *req)
{
    if (permitted(c))
        disp_report(&keeper, c, req, STR(""));
}

const struct route disp_routes[] = {
    { &op_disp_session, on_session },
    { &op_disp_assignments, on_assignments },
    { &op_disp_status, on_status },
    { 0 },
};

/* ---- the loop ---- */

static void on_timer(void *arg)
{
    (void)arg;
    timer_arm(timer, disp_tick(&keeper));
}

/* Deadlines come and go with what a turn sees and with what a transaction settles. */
static void seen(void *arg, struct store_snap *snap, const struct store_meta *meta)
{
    core_ops->seen(arg, snap, meta);
    arm();
}

static void done(void *arg, const struct err *e)
{
    core_ops->done(arg, e);
    arm();
}

int disp_shell_start(struct err *e)
{
    ops = disp_ops;
    ops.seen = seen;
    ops.done = done;
    disp_keeper_init(&keeper, &calls);
    int r = timer_open(&timer, on_timer, NULL, e);
    if (r == 0)
        r = controller_open(&controller, daemon_loop(), daemon_run_dir(), &ops, &keeper, e);
    keeper.controller = controller;
    return r;
}

void disp_shell_stop(void)
{
    disp_keeper_done(&keeper);
    controller = controller_free(controller);
    timer = timer_free(timer);
}

void disp_shell_status(struct buf *out)
{
    controller_status(controller, out);
    buf_printf(out, ",\"nodes\":%zu,\"sessions\":%zu", keeper.core.peers.count, keeper.core.sessions.count);
}

void disp_shell_sessions(const char *args, struct buf *out)
{
    struct disp_peer *p;
    struct str node;
    uint64_t now = clock_mono().ms;
    bool first = true;
    (void)args;
    buf_putc(out, '[');
    for (struct table_pos pos = { 0 }; table_next(&keeper.core.peers, &pos, &node, &p); first = false) {
        buf_puts(out, first ? "{\"node\":" : ",{\"node\":");
        buf_json_str(out, node);
        buf_printf(out,
                   ",\"session\":%s,\"tasks_told\":%zu,\"tasks_to_tell\":%zu,\"seq\":%" PRIu64
                   ",\"polling\":%s,\"down_in_ms\":%" PRIu64 "}",
                   p->session[0] ? "true" : "false", p->sent.count, p->dirty.count, p->seq, p->poll ? "true" : "false",
                   p->deadline_ms > now ? p->deadline_ms - now : 0);
    }
    buf_putc(out, ']');
}

void disp_shell_metrics(struct buf *out)
{
    const struct {
        const char *name;
        uint64_t value;
    } all[] = { { "reports", keeper.reports },
                { "reports_ignored", keeper.ignored },
                { "nodes_lost", keeper.nodes_lost },
                { "answers", keeper.answers },
                { "assignments", keeper.assignments } };
    controller_metrics(controller, out);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        buf_printf(out, "# TYPE microswarm_dispatcherd_%s_total counter\nmicroswarm_dispatcherd_%s_total %" PRIu64 "\n",
                   all[i].name, all[i].name, all[i].value);
    buf_printf(out, "# TYPE microswarm_dispatcherd_sessions gauge\nmicroswarm_dispatcherd_sessions %zu\n",
               keeper.core.sessions.count);
}
