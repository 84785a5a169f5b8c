/* disp_shell.c - see disp_shell.h. */
#include "dispatcherd/disp_shell.h"

#include <inttypes.h>

#include "dispatcherd/disp_pass.h"

#define BARRIER_MS 3000u

struct disp_conf disp_conf;

static struct disp_keeper keeper;
static struct controller *controller;
static struct timer *timer;
static struct rpc_client *raftd;
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

static void call_networks(void *call, struct str body)
{
    rpc_reply_raw(call, ERR_OK, STR(""), body);
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

static uint64_t armed = DISP_NEVER;

static void arm(void)
{
    uint64_t at = disp_due(&keeper);
    if (at != armed) /* most calls change nothing about it */
        timer_arm(timer, at);
    armed = at;
}

static void on_barrier(void *arg, const void *rep, const struct err *e)
{
    (void)rep;
    if (e->code != 0)
        log_warn("who is silent is not declared down while no majority answers: %s", e->msg);
    disp_confirmed(&keeper, (uint64_t)(uintptr_t)arg, e->code == 0);
    arm();
}

static void ask_barrier(void *k, uint64_t round)
{
    (void)k;
    rpc_send(raftd, &op_raftd_barrier, &(struct raftd_empty){ 0 }, BARRIER_MS, on_barrier, (void *)(uintptr_t)round);
}

static const struct disp_calls calls = { call_opened, call_stored, call_assigned, call_networks, call_failed,
                                         call_arena,  mono_now,    id_new,        ask_barrier };

/* ---- requests ---- */

/*
 * caller - which node a call is for: the one that its certificate names, or this host's own.
 *
 * On this host's socket agentd and meshd speak for the node, and gatewayd only brings what other nodes' agents ask.
 */
static bool caller(struct rpc_call *c, const char *daemon, struct rpc_origin *ret)
{
    *ret = rpc_origin(c);
    if (ret->role == RPC_LOCAL)
        return rpc_permit(c, daemon_user(daemon), daemon);
    if (ret->role != RPC_NOBODY && ret->node.n) /* which of that node's daemons: its own affair, and gatewayd's */
        return true;
    rpc_fail(c, ERR_DENIED, "only the agents of nodes of this swarm may ask for this");
    return false;
}

static void on_session(struct rpc_call *c, const void *req)
{
    struct rpc_origin o;
    if (!caller(c, "agentd", &o))
        return;
    /* A worker is where its link comes from. A manager says where it is reached. */
    disp_hello(&keeper, c, req, o.node, o.role == RPC_WORKER ? o.addr : STR(""));
    arm();
}

static void on_assignments(struct rpc_call *c, const void *req)
{
    struct rpc_origin o;
    if (!caller(c, "agentd", &o))
        return;
    disp_poll(&keeper, c, req, o.node);
    arm();
}

static void on_network(struct rpc_call *c, const void *req)
{
    struct rpc_origin o;
    if (!caller(c, "meshd", &o))
        return;
    disp_network(&keeper, c, req, o.node);
    arm();
}

static void on_status(struct rpc_call *c, const void *req)
{
    struct rpc_origin o;
    if (caller(c, "agentd", &o))
        disp_report(&keeper, c, req, o.node);
}

static void on_payload(struct rpc_call *c, const void *req)
{
    struct disp_payload_reply rep;
    struct rpc_origin o;
    struct err e = ERR_INIT;
    if (!caller(c, "agentd", &o))
        return;
    int r = disp_payload(&keeper, req, o.node, rpc_arena(c), &rep, &e);
    keeper.payloads += r == 0;
    keeper.refused += r == -ERR_DENIED;
    if (r == 0)
        rpc_reply(c, &rep);
    else
        rpc_fail_err(c, &e);
    arm();
}

static void on_usage(struct rpc_call *c, const void *req)
{
    struct rpc_origin o;
    struct err e = ERR_INIT;
    if (!caller(c, "agentd", &o))
        return;
    if (disp_usage(&keeper, req, o.node, &e) == 0)
        rpc_reply(c, &(struct disp_usage_reply){ 0 });
    else
        rpc_fail_err(c, &e);
    arm();
}

/* The local apid alone, which sees what its clients post anyway. */
static void on_secret_is(struct rpc_call *c, const void *req)
{
    struct disp_secret_is_reply rep = { 0 };
    struct err e = ERR_INIT;
    if (!rpc_permit(c, daemon_user("apid"), "apid"))
        return;
    if (rpc_origin(c).role != RPC_LOCAL)
        rpc_fail(c, ERR_DENIED, "only this host's apid may ask for this");
    else if (disp_secret_is(&keeper, req, &rep, &e) == 0)
        rpc_reply(c, &rep);
    else
        rpc_fail_err(c, &e);
}

static void on_link(struct rpc_call *c, const void *req)
{
    const struct disp_link *l = req;
    if (!rpc_permit(c, daemon_user("gatewayd"), "gatewayd"))
        return;
    if (rpc_origin(c).role != RPC_LOCAL) {
        rpc_fail(c, ERR_DENIED, "only this host's gatewayd knows its links");
        return;
    }
    disp_hint(&keeper, l->NodeID, l->Up);
    rpc_reply(c, &(struct disp_link_reply){ 0 });
    arm();
}

const struct route disp_routes[] = {
    { &op_disp_session, on_session },
    { &op_disp_assignments, on_assignments },
    { &op_disp_status, on_status },
    { &op_disp_network, on_network },
    { &op_disp_link, on_link },
    { &op_disp_payload, on_payload },
    { &op_disp_secret_is, on_secret_is },
    { &op_disp_usage, on_usage },
    { 0 },
};

/* ---- the loop ---- */

static void on_timer(void *arg)
{
    (void)arg;
    armed = disp_tick(&keeper);
    timer_arm(timer, armed);
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
    keeper.core.suspect_ms = disp_conf.suspect_ms;
    keeper.net.drain_wait_ms = disp_conf.drain_wait_ms;
    keeper.net.drain_ms = disp_conf.drain_ms;
    keeper.usages.period_ms = disp_conf.usage_ms;
    keeper.orphan_after_ns = (int64_t)disp_conf.orphan_ms * 1000000;
    keeper.flap = (struct disp_flap_conf){ .max = disp_conf.flap_max,
                                           .window_ns = (int64_t)disp_conf.flap_window_ms * 1000000,
                                           .hold_ns = (int64_t)disp_conf.flap_hold_ms * 1000000,
                                           .hold_max_ns = (int64_t)disp_conf.flap_hold_max_ms * 1000000 };
    int r = timer_open(&timer, on_timer, NULL, e);
    if (r == 0)
        r = rpc_client_open(&raftd, daemon_loop(), daemon_run_dir(), "raftd", e);
    if (r == 0)
        r = controller_open(&controller, daemon_loop(), daemon_run_dir(), &ops, &keeper, e);
    keeper.controller = controller;
    return r;
}

void disp_shell_stop(void)
{
    disp_keeper_done(&keeper);
    controller = controller_free(controller);
    raftd = rpc_client_free(raftd);
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
                   ",\"session\":%s,\"tasks_told\":%" PRIu32 ",\"tasks_to_tell\":%zu,\"seq\":%" PRIu64
                   ",\"polling\":%s,\"suspect\":%s,\"held\":%s,\"down_in_ms\":%" PRIu64 "}",
                   p->session[0] ? "true" : "false", p->ntold, p->dirty.count, p->seq, p->poll ? "true" : "false",
                   p->suspect ? "true" : "false", p->held ? "true" : "false",
                   p->deadline_ms > now ? p->deadline_ms - now : 0);
    }
    buf_putc(out, ']');
}

void disp_shell_networks(const char *args, struct buf *out)
{
    struct dnet_node *n;
    struct dnet_task *t;
    bool first = true;
    (void)args;
    buf_printf(
        out,
        "{\"revision\":%" PRIu64 ",\"networks\":%zu,\"services\":%zu,\"tasks\":%zu,\"to_answer\":%zu,\"draining\":[",
        keeper.net.revision, keeper.net.nets.count, keeper.net.services.count, keeper.net.tasks.count, keeper.net.nhot);
    for (t = keeper.net.draining.first; t; t = t->next_drain, first = false) {
        buf_puts(out, first ? "{\"task\":" : ",{\"task\":");
        buf_json_str(out, table_key(&keeper.net.tasks, t));
        buf_printf(out, ",\"since_revision\":%" PRIu64 ",\"waits_for\":", t->drain_rev);
        const struct dnet_node *who = NULL;
        for (size_t i = 0; i < t->n && !who; i++)
            who = t->waits[i].parked;
        buf_json_str(out, str_from(who ? who->id : ""));
        buf_putc(out, '}');
    }
    buf_puts(out, "],\"nodes\":[");
    first = true;
    for (struct table_pos pos = { 0 }; table_next(&keeper.net.nodes, &pos, NULL, &n); first = false) {
        buf_puts(out, first ? "{\"node\":" : ",{\"node\":");
        buf_json_str(out, str_from(n->id));
        buf_printf(out, ",\"has_revision\":%" PRIu64 ",\"networks\":%zu,\"polling\":%s,\"live\":%s}", n->acked,
                   n->nholds - 1, n->poll ? "true" : "false", n->live ? "true" : "false");
    }
    buf_puts(out, "]}");
}

void disp_shell_metrics(struct buf *out)
{
    const struct {
        const char *name;
        uint64_t value;
    } all[] = { { "reports", keeper.reports },
                { "reports_ignored", keeper.ignored },
                { "nodes_lost", keeper.nodes_lost },
                { "nodes_damped", keeper.damped },
                { "tasks_orphaned", keeper.orphaned },
                { "answers", keeper.answers },
                { "assignments", keeper.assignments },
                { "network_asks", keeper.net_asks },
                { "network_answers", keeper.net_answers },
                { "network_answers_shared", keeper.net_shared },
                { "network_answers_full", keeper.net_fulls },
                { "network_bytes", keeper.net_bytes },
                { "payloads", keeper.payloads },
                { "payloads_refused", keeper.refused },
                { "drains", keeper.net.drains },
                { "drains_late", keeper.net.late } };
    controller_metrics(controller, out);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        buf_printf(out, "# TYPE microswarm_dispatcherd_%s_total counter\nmicroswarm_dispatcherd_%s_total %" PRIu64 "\n",
                   all[i].name, all[i].name, all[i].value);
    buf_printf(out, "# TYPE microswarm_dispatcherd_sessions gauge\nmicroswarm_dispatcherd_sessions %zu\n",
               keeper.core.sessions.count);
}
