/* gw_shell.c - puts the parts together: events of links to those whom they concern, Raft's datagrams, probes. */
#include "gatewayd/gw_shell.h"

#include <inttypes.h>

#include "common/daemon/oneway.h"
#include "common/proto/msg_dispatcherd.h"
#include "common/util/clock.h"
#include "common/util/id.h"
#include "gatewayd/gw_authz.h"
#include "gatewayd/gw_route.h"

#define HINT_MS 2000u
#define REFUSALS_BURST 200u     /* lines at once, */
#define REFUSALS_PER_SECOND 10u /* and then */

struct gw_net gw_net;

static struct {
    struct oneway *peers;
    char instance[ID_SIZE];
    struct {
        const char *name;
        struct rpc_client *client;
    } daemons[4];
    uint64_t raft_in, raft_out, raft_lost, refusals;
    uint64_t log_at_ms, log_credit, log_left_out;
} sh = { .daemons = { { "raftd", NULL }, { "cad", NULL }, { "dispatcherd", NULL }, { "agentd", NULL } } };

const struct route gw_routes[] = {
    { &op_gw_identity, gw_ident_on_identity }, { &op_gw_setup, gw_ident_on_setup },   { &op_gw_join, gw_ident_on_join },
    { &op_gw_leave, gw_ident_on_leave },       { &op_gw_unlock, gw_ident_on_unlock }, { 0 },
};

/* ---- the daemons of this host ---- */

const char *gw_daemon_of(uid_t uid)
{
    static const char *const names[] = { "raftd",       "cad",  "orchestratord", "allocatord", "schedulerd",
                                         "dispatcherd", "apid", "agentd",        "meshd",      "gatewayd" };
    for (size_t i = 0; uid != 0 && i < sizeof names / sizeof *names; i++) {
        if (daemon_user(names[i]) == uid)
            return names[i];
    }
    return uid == 0 ? "root" : "";
}

struct rpc_client *gw_client(struct str daemon)
{
    struct err e = ERR_INIT;
    for (size_t i = 0; i < sizeof sh.daemons / sizeof *sh.daemons; i++) {
        if (!str_is(daemon, sh.daemons[i].name))
            continue;
        if (!sh.daemons[i].client &&
            rpc_client_open(&sh.daemons[i].client, daemon_loop(), daemon_run_dir(), sh.daemons[i].name, &e) < 0)
            log_error("%s", e.msg);
        return sh.daemons[i].client;
    }
    return NULL;
}

/* Refusals are for people who look for an intruder; an intruder must not be able to fill the log. */
void gw_shell_refused(const struct rpc_origin *from, const struct err *why)
{
    uint64_t now = gw_now_ms(), earned = (now - sh.log_at_ms) * REFUSALS_PER_SECOND / 1000;
    sh.refusals++;
    if (earned > 0) {
        sh.log_at_ms = now;
        sh.log_credit = sh.log_credit + earned < REFUSALS_BURST ? sh.log_credit + earned : REFUSALS_BURST;
    }
    if (sh.log_credit == 0) {
        sh.log_left_out++;
        return;
    }
    sh.log_credit--;
    if (sh.log_left_out > 0)
        log_warn("refused requests that were not logged: %" PRIu64, sh.log_left_out);
    sh.log_left_out = 0;
    log_warn("refused request node=" STR_FMT " role=%s by=" STR_FMT " addr=" STR_FMT ": %s", STR_ARG(from->node),
             gw_role_name(from->role), STR_ARG(from->svc), STR_ARG(from->addr), why->msg);
}

/* ---- Raft's datagrams ---- */

static void to_raftd(const char *kind, struct str node, struct str body)
{
    struct buf b = { .limit = GW_PEER_BODY_MAX + 4096 };
    struct gw_peer_frame f = { .Kind = str_from(kind), .Node = node, .Body = body };
    fields_encode(&f, gw_peer_frame_fields, &b);
    if (b.failed || !oneway_send(sh.peers, buf_str(&b), (struct str){ NULL, 0 }))
        sh.raft_lost++;
    buf_done(&b);
}

static void from_raftd(void *arg, struct str msg)
{
    struct gw_peer_frame f;
    struct arena a;
    struct buf b = BUF_INIT;
    (void)arg;
    arena_init(&a, 16 << 10);
    sh.raft_out++;
    if (fields_decode(&f, gw_peer_frame_fields, sizeof f, msg, FIELDS_STRICT, &a, NULL) == 0 && str_is(f.Kind, "msg")) {
        struct gw_link *l = gw_hub_link(f.Node);
        buf_put(&b, f.Body.p, f.Body.n);
        if (!l || l->role != RPC_MANAGER || gw_ident_role() != RPC_MANAGER || !gw_link_send(l, GW_RAFT, 0, &b))
            sh.raft_lost++;
    }
    buf_done(&b);
    arena_done(&a);
}

/* A raftd that has just come is told of the links there are. The others are told when ours has gone: an empty datagram
 * is as good as a closed link, and they need not wait for what it would have said. */
static void on_raftd(void *arg, bool up)
{
    (void)arg;
    for (struct gw_link *l = gw_net.links; l; l = l->next) {
        struct buf none = BUF_INIT;
        if (l->state != GW_UP || l->role != RPC_MANAGER || gw_hub_link(str_from(l->peer.node)) != l)
            continue;
        if (up)
            to_raftd("up", str_from(l->peer.node), (struct str){ NULL, 0 });
        else
            (void)gw_link_send(l, GW_RAFT, 0, &none);
    }
}

/* ---- links ---- */

static void on_hinted(void *arg, const void *rep, const struct err *e)
{
    (void)arg, (void)rep, (void)e; /* a hint */
}

void gw_shell_raft_link(struct gw_link *l, bool up)
{
    to_raftd(up ? "up" : "down", str_from(l->peer.node), (struct str){ NULL, 0 });
}

void gw_shell_node_link(struct gw_link *l, bool up)
{
    struct disp_link q = { str_from(l->peer.node), up };
    struct rpc_client *c;
    if (l->role == RPC_MANAGER)
        gw_shell_raft_link(l, up);
    if (gw_swarm()->leader && (c = gw_client(STR("dispatcherd"))) != NULL)
        rpc_send(c, &op_disp_link, &q, HINT_MS, on_hinted, NULL);
}

static void on_control(struct gw_link *l, struct str body)
{
    struct gw_control c;
    struct arena a;
    struct err e = ERR_INIT;
    arena_init(&a, 256 << 10);
    if (gw_wire_decode(&c, gw_control_fields, sizeof c, body, &a, &e) < 0) {
        gw_link_refuse(l, &e);
    } else if (str_is(c.Kind, "redial")) {
        gw_hub_redial_one(l);
    } else if (l->role != RPC_MANAGER) {
        err_set(&e, ERR_DENIED, "a control message that is for managers only");
        if (l->peer.role != RPC_MANAGER) /* one that is being demoted may not know it yet */
            gw_link_refuse(l, &e);
    } else if (l->grace) {
        log_debug("control message over a link that is for Raft alone: ignored");
    } else if (l->cookie == &gw_join_cookie) {
        log_debug("not a member yet: control message ignored");
    } else if (str_is(c.Kind, "swarm")) {
        if (!(gw_ident_role() == RPC_MANAGER && gw_swarm()->current)) /* else our own map knows better */
            gw_ident_swarm(c.Managers.v, c.Managers.n, c.Trust, c.Rev);
    } else if (str_is(c.Kind, "renew")) {
        char why[200] = "a manager says so";
        (void)str_copy(why, sizeof why, c.Text);
        gw_ident_renew(why, c.Code == 0);
    }
    arena_done(&a);
}

static void on_message(void *arg, struct gw_link *l, enum gw_type type, uint32_t stream, struct str body)
{
    struct err e = ERR_INIT;
    (void)arg;
    if (type == GW_REQUEST) {
        gw_route_on_request(l, stream, body);
    } else if (type == GW_REPLY) {
        gw_route_on_reply(l, stream, body);
    } else if (type == GW_CONTROL && body.p) {
        on_control(l, body);
    } else if (type == GW_RAFT && (l->role != RPC_MANAGER || gw_ident_role() != RPC_MANAGER)) {
        struct rpc_origin from = { l->role, str_from(l->peer.node), STR("raftd"), str_from(l->host) };
        err_set(&e, ERR_DENIED, "Raft's messages are for managers only");
        if (!l->raft_refused)
            gw_shell_refused(&from, &e);
        l->raft_refused = true;
        if (l->peer.role != RPC_MANAGER) /* one that is being demoted may not know it yet */
            gw_link_refuse(l, &e);
    } else if (type == GW_RAFT && body.p && body.n <= GW_PEER_BODY_MAX) {
        sh.raft_in++;
        to_raftd("msg", str_from(l->peer.node), body);
    }
}

/* ---- probes ---- */

void gw_shell_status(struct buf *out)
{
    struct gw_route_stats r;
    gw_route_stats(&r);
    buf_puts(out, ",\"identity\":");
    gw_ident_json(out);
    buf_printf(out,
               ",\"managers_connected\":%u,\"workers_connected\":%u,\"links\":%u,\"leader\":\"%s\",\"requests\":"
               "{\"outstanding\":%" PRIu64 ",\"waiting\":%" PRIu64 ",\"refused\":%" PRIu64 "}",
               gw_hub_nodes(RPC_MANAGER), gw_hub_nodes(RPC_WORKER), gw_net.nlinks, gw_swarm()->leader_id, r.outstanding,
               r.waiting, r.refused);
}

void gw_shell_metrics(struct buf *out)
{
    struct gw_route_stats r;
    gw_route_stats(&r);
    uint64_t rx = gw_net.n.rx_frames, tx = gw_net.n.tx_frames, dropped = gw_net.n.raft_dropped;
    for (const struct gw_link *l = gw_net.links; l; l = l->next) {
        rx += l->in.frames;
        tx += l->out.frames;
        dropped += l->out.dropped;
    }
    const struct {
        const char *name, *type;
        uint64_t v;
    } m[] = {
        { "links", "gauge", gw_net.nlinks },
        { "links_not_up", "gauge", gw_net.nyoung },
        { "managers_connected", "gauge", gw_hub_nodes(RPC_MANAGER) },
        { "workers_connected", "gauge", gw_hub_nodes(RPC_WORKER) },
        { "queued_bytes", "gauge", gw_net.out_bytes },
        { "unfinished_bytes", "gauge", gw_net.in_budget.used },
        { "frames_received_total", "counter", rx },
        { "frames_sent_total", "counter", tx },
        { "bytes_received_total", "counter", gw_net.n.rx_bytes },
        { "bytes_sent_total", "counter", gw_net.n.tx_bytes },
        { "connections_accepted_total", "counter", gw_net.n.accepted },
        { "handshakes_total", "counter", gw_net.n.handshakes },
        { "handshakes_failed_total", "counter", gw_net.n.handshakes_failed },
        { "peers_refused_total", "counter", gw_net.n.refused },
        { "connections_timed_out_total", "counter", gw_net.n.timeouts },
        { "connections_evicted_total", "counter", gw_net.n.evicted },
        { "requests_from_here_total", "counter", r.relayed },
        { "requests_from_nodes_total", "counter", r.received },
        { "requests_passed_on_total", "counter", r.forwarded },
        { "requests_refused_total", "counter", r.refused },
        { "requests_failed_total", "counter", r.failed },
        { "requests_outstanding", "gauge", r.outstanding },
        { "raft_messages_received_total", "counter", sh.raft_in },
        { "raft_messages_sent_total", "counter", sh.raft_out },
        { "raft_messages_lost_total", "counter", sh.raft_lost + dropped },
    };
    for (size_t i = 0; i < sizeof m / sizeof *m; i++)
        buf_printf(out, "# TYPE microswarm_gatewayd_%s %s\nmicroswarm_gatewayd_%s %" PRIu64 "\n", m[i].name, m[i].type,
                   m[i].name, m[i].v);
}

void gw_probe_links(const char *args, struct buf *out)
{
    static const char *const states[] = { "connecting", "handshake", "greeting", "up", "closed" };
    uint64_t now = gw_now_ms();
    const char *comma = "";
    (void)args;
    buf_putc(out, '[');
    for (const struct gw_link *l = gw_net.links; l; l = l->next) {
        struct gw_rtt rtt = { 0, 0 };
        if (l->state == GW_DEAD)
            continue;
        (void)gw_link_rtt(l, &rtt);
        buf_printf(out, "%s{\"node\":\"%s\",\"role\":\"%s\",\"state\":\"%s\",\"dialled\":%s,\"draining\":%s,\"addr\":",
                   comma, l->peer.node, gw_role_name(l->state >= GW_GREETING ? l->role : RPC_NOBODY), states[l->state],
                   l->dialled ? "true" : "false", l->draining ? "true" : "false");
        buf_json_str(out, str_from(l->host));
        buf_printf(out,
                   ",\"port\":%u,\"age_ms\":%" PRIu64 ",\"rtt_us\":%u,\"queued\":%zu,\"unfinished\":%zu,\"asked\":%u,"
                   "\"asking\":%u,\"received\":%" PRIu64 ",\"sent\":%" PRIu64 ",\"certificate_until\":%" PRId64 "}",
                   l->port, now - l->opened_ms, rtt.rtt_us, l->out.bytes, l->in.bytes, l->slots_used, l->n_in_calls,
                   l->rx_bytes, l->tx_bytes, l->peer.not_after);
        comma = ",";
    }
    buf_putc(out, ']');
}

void gw_probe_identity(const char *args, struct buf *out)
{
    (void)args;
    gw_ident_json(out);
}

void gw_probe_requests(const char *args, struct buf *out)
{
    (void)args;
    gw_route_list(out);
}

void gw_probe_rules(const char *args, struct buf *out)
{
    (void)args;
    buf_putc(out, '[');
    for (const struct gw_rule *r = gw_rules; r->svc; r++) {
        buf_printf(out, "%s{\"operation\":\"%s.%s\",\"roles\":[", r == gw_rules ? "" : ",", r->svc, r->op->name);
        const char *comma = "";
        for (int role = RPC_NOBODY; role <= RPC_MANAGER; role++) {
            if (!(r->roles & 1u << role))
                continue;
            buf_printf(out, "%s\"%s\"", comma, gw_role_name((enum rpc_role)role));
            comma = ",";
        }
        buf_printf(out, "],\"by\":\"%s\",\"self\":%s}", r->askers ? r->askers : "", r->self ? "true" : "false");
    }
    buf_putc(out, ']');
}

/* ---- start and stop ---- */

int gw_shell_start(struct err *e)
{
    static const struct gw_net_ops ops = {
        .admit = gw_hub_admit, .up = gw_hub_up, .down = gw_hub_down, .message = on_message
    };
    int r = gw_net_init(&gw_net, daemon_loop(), &ops, NULL, e);
    id_new(sh.instance);
    gw_net.hello.Instance = str_from(sh.instance);
    if (r == 0)
        r = gw_route_init(daemon_loop(), e);
    if (r == 0)
        r = gw_hub_init(e);
    if (r == 0)
        r = oneway_dial(&sh.peers, daemon_loop(), daemon_run_dir(), GW_PEERS_SOCKET, daemon_user("raftd"), from_raftd,
                        on_raftd, NULL, e);
    if (r == 0)
        r = gw_ident_init(e);
    return r < 0 ? r : gw_swarm_init(e);
}

void gw_shell_stop(void)
{
    gw_route_done();
    gw_net_done(&gw_net);
    gw_swarm_done();
    gw_ident_done();
    gw_hub_done();
    sh.peers = oneway_free(sh.peers);
    for (size_t i = 0; i < sizeof sh.daemons / sizeof *sh.daemons; i++)
        sh.daemons[i].client = rpc_client_free(sh.daemons[i].client);
}
