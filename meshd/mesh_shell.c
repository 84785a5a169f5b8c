#include "meshd/mesh_shell.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "meshd/mesh_gossip.h"
#include "meshd/mesh_networks.h"
#include "meshd/mesh_parts.h"
#include "meshd/mesh_view.h"
#include "meshd/mesh_wait.h"

#define FORGET_MS 30        /* collects what stops together; a UDP client of a dead task waits this long */
#define DRAIN_MS 100        /* between two looks at connections to tasks that are leaving */
#define SWEEP_MS 1000       /* after the last sandbox went: time enough for the kernel to have taken it apart */
#define REPAIR_GAP_MS 100ul /* between two repairs of the table, should someone keep taking it away */

struct mesh_conf mesh_shell_conf;
static uint64_t mesh_shell_reconcile_ms, gossip_port;

const struct conf_item mesh_shell_conf_items[] = {
    CONF_TEXT("link", mesh_shell_conf.link, "msgw0", "name of the host's link to the gateway"),
    CONF_TEXT("subnet", mesh_shell_conf.subnet, "auto",
              "of the sandboxes; auto: the first of 172.18.0.0/16 .. 172.31.0.0/16, 192.168.0.0/20 .. that is free"),
    CONF_COUNT("mtu", &mesh_shell_conf.mtu, "1500", 576, 65535,
               "of the gateway's links and the sandboxes' interfaces; 50 less where the VXLAN is on the way"),
    CONF_COUNT("port_first", &mesh_shell_conf.port_first, "32768", 1, 65535, "lowest host-mode port chosen by itself"),
    CONF_COUNT("port_last", &mesh_shell_conf.port_last, "60999", 1, 65535, "highest host-mode port chosen by itself"),
    CONF_TEXT("fallback_dns", mesh_shell_conf.fallback_dns, "8.8.8.8 8.8.4.4",
              "nameservers for sandboxes when the host has none but on loopback; empty: none"),
    CONF_TEXT("resolv_conf", mesh_shell_conf.resolv_conf, "/etc/resolv.conf", "the host's"),
    CONF_MS("reconcile", &mesh_shell_reconcile_ms, "1m", 1000, 86400000,
            "between two comparisons of the kernel with what should be there"),
    CONF_COUNT("gossip_port", &gossip_port, "7946", 1, 65535, "UDP, between the nodes' meshds; the same on all nodes"),
    CONF_COUNT("local_weight", &mesh_shell_conf.local_weight, "2", 1, 100,
               "how many times as often a task of this node gets a connection as one elsewhere"),
    CONF_END,
};

static struct {
    struct mesh_node node;
    struct mesh_parts parts;
    struct mesh_gossip *gossip; /* NULL: its port is somebody else's */
    bool open;
    sd_event_source *watch[2];
    uint64_t watched; /* which gateway */
    struct timer *repair, *sweep, *forget, *reconcile, *later;
    bool forgetting;
    uint64_t repaired_ms;
    uint64_t later_ms;    /* when `later` fires; UINT64_MAX: not at all */
    struct err unsettled; /* why the view is not carried out */
} self;

static int watch(void);

static void on_note(void *arg, const char *text)
{
    (void)arg;
    log_warn("%s", text);
}

/* ---- requests ---- */

/* forget_later - armed by the first, so that a steady stream of them does not put it off for ever. */
static void forget_later(void)
{
    if (self.forgetting ||
        (mesh_ct_empty(&self.node.stale) && mesh_ct_empty(&self.node.stale_host) && self.node.draining.count == 0))
        return;
    self.forgetting = true;
    timer_arm(self.forget, clock_mono().ms + FORGET_MS);
}

static void parts_at(uint64_t at_ms)
{
    self.later_ms = at_ms;
    timer_arm(self.later, at_ms);
}

/* parts_soon - the earlier time holds, so that a steady stream of changes does not put it off for ever. */
static void parts_soon(void)
{
    uint64_t at = clock_mono().ms + FORGET_MS;
    if (self.later_ms > at)
        parts_at(at);
}

/* parts_later - in a moment, and again as long as it asks for that. */
static void parts_later(void *arg)
{
    uint64_t now = clock_mono().ms, ms = mesh_parts_later(&self.parts, now);
    (void)arg;
    parts_at(ms == UINT64_MAX ? ms : now + ms);
}

static void forget(void *arg)
{
    struct err e = ERR_INIT;
    uint64_t start = clock_mono().ms, took;
    bool again = false;
    (void)arg;
    self.forgetting = false;
    if (mesh_node_forget(&self.node, &again, &e) < 0)
        log_warn("%s", e.msg);
    took = clock_mono().ms - start;
    if (again) { /* looking through a large table is not to take more than a tenth of a core */
        self.forgetting = true;
        timer_arm(self.forget, clock_mono().ms + (10 * took > DRAIN_MS ? 10 * took : DRAIN_MS));
    }
}

/* permitted - every daemon of the host may connect, but only this node's agentd, root as we are, has sandboxes. */
static bool permitted(struct rpc_call *c)
{
    return rpc_permit(c, geteuid(), "agentd");
}

static void on_up(struct rpc_call *c, const void *req)
{
    const struct mesh_up *up = req;
    struct mesh_up_reply rep;
    struct err e = ERR_INIT;
    if (!permitted(c))
        return;
    int r = mesh_parts_check(&self.parts, up, &e);
    if (r == 0)
        r = mesh_node_up(&self.node, up, rpc_arena(c), &rep, &e);
    if (r == 0) {
        r = mesh_parts_up(&self.parts, up, rpc_arena(c), &rep, &e);
        if (r < 0)
            (void)mesh_node_down(&self.node, up->TaskID, NULL);
    }
    if (r < 0) {
        parts_soon(); /* a network may have been made for it */
        log_error("sandbox not made task=" STR_FMT ": %s", STR_ARG(up->TaskID), e.msg);
        rpc_fail_err(c, &e);
        return;
    }
    for (size_t i = 0; i < rep.Ports.n; i++) {
        const struct mesh_port *p = &((const struct mesh_port *)rep.Ports.v)[i];
        char key[32];
        snprintf(key, sizeof key, STR_FMT "/%u", STR_ARG(p->Protocol), (unsigned)p->PublishedPort);
        const struct mesh_hold *h = table_get(&self.node.holds, str_from(key));
        if (h && h->errnum == EADDRINUSE)
            log_warn("port %s is also bound by another process of this host task=" STR_FMT, key, STR_ARG(up->TaskID));
    }
    log_debug("sandbox made task=" STR_FMT, STR_ARG(up->TaskID));
    (void)watch();
    forget_later();
    rpc_reply(c, &rep);
}

static void set_ready(struct rpc_call *c, const struct mesh_ready *r)
{
    struct err e = ERR_INIT;
    if (mesh_node_ready(&self.node, r->TaskID, r->Ready, &e) < 0) {
        log_error("task=" STR_FMT " ready=%d: %s", STR_ARG(r->TaskID), r->Ready, e.msg);
        rpc_fail_err(c, &e);
        return;
    }
    if (self.gossip)
        mesh_gossip_withdraw(self.gossip, r->TaskID, !r->Ready);
    forget_later();
    rpc_reply(c, &(struct mesh_empty){ 0 });
}

static void on_ready(struct rpc_call *c, const void *req)
{
    const struct mesh_ready *r = req;
    if (!permitted(c))
        return;
    if (r->Ready) {
        mesh_wait_listen(c, r, &self.node, set_ready);
        return;
    }
    mesh_wait_forget(r->TaskID);
    set_ready(c, r);
}

static void on_down(struct rpc_call *c, const void *req)
{
    const struct mesh_task *t = req;
    struct err e = ERR_INIT;
    if (!permitted(c))
        return;
    mesh_wait_forget(t->TaskID);
    if (mesh_parts_down(&self.parts, t->TaskID, clock_mono().ms, &e) < 0 ||
        mesh_node_down(&self.node, t->TaskID, &e) < 0) {
        log_error("sandbox not removed task=" STR_FMT ": %s", STR_ARG(t->TaskID), e.msg);
        rpc_fail_err(c, &e);
        return;
    }
    log_debug("sandbox removed task=" STR_FMT, STR_ARG(t->TaskID));
    if (self.gossip)
        mesh_gossip_withdraw(self.gossip, t->TaskID, true);
    forget_later();
    timer_arm(self.sweep, clock_mono().ms + SWEEP_MS);
    if (self.node.todo_far.count) /* its address is another task's by now, perhaps */
        mesh_view_again();
    parts_soon();
    rpc_reply(c, &(struct mesh_empty){ 0 });
}

static void on_quiet(struct rpc_call *c, const void *req)
{
    if (permitted(c))
        mesh_wait_quiet(c, req, &self.node);
}

static void on_list(struct rpc_call *c, const void *req)
{
    struct mesh_list_reply rep = { 0 };
    struct str task;
    size_t n = self.node.core.sandboxes.count;
    (void)req;
    if (!permitted(c))
        return;
    rep.TaskIDs.v = arena_array(rpc_arena(c), n + 1, sizeof(struct str));
    if (!rep.TaskIDs.v) {
        rpc_fail(c, ERR_NOMEM, "list does not fit");
        return;
    }
    for (struct table_pos pos = { 0 }; table_next(&self.node.core.sandboxes, &pos, &task, NULL);)
        rep.TaskIDs.v[rep.TaskIDs.n++] = task;
    rpc_reply(c, &rep);
}

const struct route mesh_shell_routes[] = {
    { &op_mesh_up, on_up },
    { &op_mesh_ready, on_ready },
    { &op_mesh_quiet, on_quiet },
    { &op_mesh_down, on_down },
    { &op_mesh_list, on_list },
    { &op_mesh_networks, mesh_networks },
    { 0 },
};

/* ---- the table's guard ---- */

static void repair(void *arg)
{
    struct err e = ERR_INIT;
    bool rebuilt = false;
    (void)arg;
    self.repaired_ms = clock_mono().ms;
    if (mesh_node_sync_rules(&self.node, &rebuilt, &e) < 0) {
        log_error("nftables table microswarm was changed by someone else and could not be put right: %s; trying again",
                  e.msg);
        timer_arm(self.repair, self.repaired_ms + 10 * REPAIR_GAP_MS);
        return;
    }
    self.node.recoveries++;
    log_warn("nftables table microswarm was changed by someone else: %s", rebuilt ? "made anew" : "put right");
}

static void sweep(void *arg)
{
    (void)arg;
    mesh_node_sweep(&self.node);
}

/* reconcile - what nobody tells us of: links, addresses, routes and neighbours that were taken away. */
static void reconcile(void *arg)
{
    struct err e = ERR_INIT;
    bool rebuilt = false;
    (void)arg;
    if (mesh_node_repair(&self.node, &rebuilt, on_note, NULL, &e) < 0)
        log_error("reconciling: %s", e.msg);
    else if (rebuilt)
        log_warn("reconciling: an nftables table of ours was made anew");
    (void)mesh_parts_reconcile(&self.parts);
    (void)watch();
    timer_arm(self.reconcile, clock_mono().ms + mesh_shell_reconcile_ms);
}

static int on_watch(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
    uint64_t now = clock_mono().ms;
    (void)s, (void)fd, (void)revents, (void)arg;
    if (!mesh_node_watch(&self.node))
        return 0;
    if (self.repaired_ms && now < self.repaired_ms + REPAIR_GAP_MS)
        timer_arm(self.repair, self.repaired_ms + REPAIR_GAP_MS);
    else
        repair(NULL);
    return 0;
}

/* ---- the swarm's networks ---- */

static void on_gossip(void *arg)
{
    (void)arg;
    mesh_view_again();
}

static bool managers_answer(void *arg)
{
    (void)arg;
    return mesh_view_linked();
}

static bool have_sandbox(void *arg, struct str task)
{
    (void)arg;
    return table_get(&self.node.core.sandboxes, task) != NULL;
}

/* gossip_open - without it nothing is lost but some seconds: another program may have its port. */
static void gossip_open(void)
{
    static const struct mesh_gossip_ops ops = { on_gossip, managers_answer };
    struct err e = ERR_INIT;
    if (mesh_gossip_open(&self.gossip, daemon_loop(), mesh_view(), (uint16_t)gossip_port, &ops, NULL, &e) < 0)
        log_error("%s: this node takes no part in gossip", e.msg);
}

static void gossip_follow(bool nodes)
{
    if (!self.gossip)
        return;
    mesh_gossip_self(self.gossip, str_from(mesh_view_self()));
    if (nodes)
        mesh_gossip_roster(self.gossip);
    mesh_gossip_tidy(self.gossip, have_sandbox, NULL);
}

/* carry_out - hands each change of the view to the parts it concerns. A part that fails keeps in mind what it has not
 * done, and does it when it is asked again. */
static bool carry_out(void *arg)
{
    struct netmap_change c;
    struct err e = ERR_INIT;
    bool done = true, nodes = false;
    (void)arg;
    mesh_node_self(&self.node, mesh_view_self());
    while (netmap_next(mesh_view(), &c)) {
        mesh_node_change(&self.node, &c);
        mesh_parts_change(&self.parts, &c);
        nodes = nodes || c.kind == NETMAP_ALL || c.kind == NETMAP_NODE || c.kind == NETMAP_KEYS;
    }
    gossip_follow(nodes);
    if (!mesh_parts_settle(&self.parts, mesh_view_self()))
        done = false;
    parts_soon();
    if (mesh_node_settle(&self.node, &e) < 0) {
        if (strcmp(self.unsettled.msg, e.msg) != 0)
            log_error("ingress network: %s; trying again", e.msg);
        self.unsettled = e;
        done = false;
    } else {
        self.unsettled = (struct err)ERR_INIT;
    }
    forget_later();
    return done;
}

/* ---- life ---- */

static void warn_foreign_drops(void)
{
    struct buf b = BUF_INIT;
    unsigned count = 0;
    if (mesh_host_drops(&self.node.host, &b, &count, NULL) == 0 && count)
        log_warn("forward chains of this host drop by default, and published ports with them: %s; "
                 "accept what goes to and comes from %s there",
                 buf_cstr(&b), mesh_shell_conf.link);
    buf_done(&b);
}

/* watch - anew when the gateway was made anew, and with it its socket. */
static int watch(void)
{
    int fds[2], r = 0;
    if (self.watched == self.node.gateways)
        return 0;
    self.watched = self.node.gateways;
    mesh_node_watch_fds(&self.node, fds);
    for (int i = 0; i < 2 && r >= 0; i++) {
        self.watch[i] = sd_event_source_unref(self.watch[i]);
        r = sd_event_add_io(daemon_loop(), &self.watch[i], fds[i], EPOLLIN, on_watch, NULL);
    }
    return r;
}

int mesh_shell_start(struct err *e)
{
    if (mesh_shell_conf.port_first > mesh_shell_conf.port_last)
        return err_set(e, ERR_INVALID, "setting port_first: is above port_last");
    self.open = true;
    int r = mesh_view_open(e);
    if (r == 0)
        r = mesh_node_open(&self.node, &mesh_shell_conf, daemon_run_dir(), mesh_view(), mesh_view_self(), on_note, NULL,
                           e);
    if (r == 0)
        r = timer_open(&self.repair, repair, NULL, e);
    if (r == 0)
        r = timer_open(&self.sweep, sweep, NULL, e);
    if (r == 0)
        r = timer_open(&self.forget, forget, NULL, e);
    if (r == 0)
        r = mesh_parts_open(&self.parts, daemon_loop(), daemon_run_dir(), &mesh_shell_conf, mesh_view(),
                            mesh_view_self(), on_note, NULL, e);
    if (r == 0)
        r = mesh_wait_open(e);
    if (r == 0)
        r = timer_open(&self.reconcile, reconcile, NULL, e);
    if (r == 0)
        r = timer_open(&self.later, parts_later, NULL, e);
    self.later_ms = UINT64_MAX;
    if (r < 0)
        return r;
    r = watch();
    if (r < 0)
        return err_errno(e, -r, "watch nftables");
    char addr[MESH_ADDR_TEXT];
    mesh_addr_text(self.node.subnet.base, addr);
    log_info("link %s subnet %s/%u sandboxes=%zu", mesh_shell_conf.link, addr, self.node.subnet.prefix,
             self.node.core.sandboxes.count);
    warn_foreign_drops();
    timer_arm(self.reconcile, clock_mono().ms + mesh_shell_reconcile_ms);
    gossip_open();
    return mesh_view_start(carry_out, NULL, e);
}

void mesh_shell_stop(void)
{
    for (int i = 0; i < 2; i++)
        self.watch[i] = sd_event_source_unref(self.watch[i]);
    self.repair = timer_free(self.repair);
    self.sweep = timer_free(self.sweep);
    self.forget = timer_free(self.forget);
    self.reconcile = timer_free(self.reconcile);
    mesh_wait_close();
    self.later = timer_free(self.later);
    self.gossip = mesh_gossip_free(self.gossip); /* it writes into the view */
    mesh_view_stop();
    mesh_parts_close(&self.parts);
    if (self.open)
        mesh_node_close(&self.node);
    self.open = false;
}

/* ---- probes ---- */

static void put_text(struct buf *out, const char *key, const char *val)
{
    buf_printf(out, "\"%s\":", key);
    buf_json_str(out, str_from(val));
}

static void put_sandbox(struct buf *out, const struct mesh_sandbox *sb)
{
    char addr[MESH_ADDR_TEXT], name[IFNAMSIZ];
    buf_putc(out, '{');
    put_text(out, "task", sb->task);
    buf_putc(out, ',');
    put_text(out, "service", sb->service);
    buf_printf(out, ",\"mode\":\"%s\",\"state\":\"%s\"", mesh_mode_name(sb->mode), mesh_state_name(sb->state));
    if (sb->addr) {
        mesh_addr_text(sb->addr, addr);
        mesh_nl_veth_name(sb->addr, name);
        buf_printf(out, ",\"address\":\"%s/%u\",\"link\":\"%s\"", addr, sb->given ? sb->given : self.node.subnet.prefix,
                   name);
    }
    buf_puts(out, ",\"ports\":[");
    for (size_t i = 0; i < sb->nports; i++)
        buf_printf(out, "%s\"%s %u->%u/%s\"", i ? "," : "", sb->ports[i].host_mode ? "host" : "ingress",
                   sb->ports[i].published, sb->ports[i].target, mesh_proto_name(sb->ports[i].proto));
    buf_puts(out, "]}");
}

static void probe_sandboxes(const char *args, struct buf *out)
{
    struct mesh_sandbox *sb;
    bool first = true;
    buf_putc(out, '[');
    for (struct table_pos pos = { 0 }; table_next(&self.node.core.sandboxes, &pos, NULL, &sb);) {
        if (args[0] && strncmp(sb->task, args, strlen(args)) != 0)
            continue;
        buf_puts(out, first ? "" : ",\n ");
        put_sandbox(out, sb);
        first = false;
    }
    buf_putc(out, ']');
}

static void put_port(struct buf *out, struct str key, const struct mesh_entry *p)
{
    const struct mesh_hold *h = table_get(&self.node.holds, key);
    buf_printf(out, "{\"port\":\"" STR_FMT "\",\"mode\":\"%s\",", STR_ARG(key), p->host_mode ? "host" : "ingress");
    put_text(out, p->host_mode ? "task" : "service", p->owner);
    buf_printf(out, ",\"sandboxes\":%u,\"installed\":%s,\"tasks\":[", p->members, p->in_kernel ? "true" : "false");
    for (uint32_t i = 0; i < p->nslots; i++) {
        char addr[MESH_ADDR_TEXT];
        mesh_addr_text(p->slots[i].addr, addr);
        buf_printf(out, "%s\"%s:%u\"", i ? "," : "", addr, p->slots[i].port);
    }
    buf_putc(out, ']');
    int six = mesh_proxy_errno(&self.node.proxy, p->proto, p->port);
    buf_puts(out, ",\"ipv6\":");
    buf_json_str(out, str_from(self.node.proxy.off            ? "the kernel has none"
                               : self.node.proxy_failure.code ? self.node.proxy_failure.msg
                               : six                          ? strerror(six)
                                                              : "by proxy"));
    if (h && h->errnum)
        buf_printf(out, ",\"warning\":\"%s\"",
                   h->errnum == EADDRINUSE ? "another process of this host has bound the port" : strerror(h->errnum));
    buf_putc(out, '}');
}

static void probe_ports(const char *args, struct buf *out)
{
    struct mesh_entry *p;
    struct str key;
    bool first = true;
    (void)args;
    buf_putc(out, '[');
    for (struct table_pos pos = { 0 }; table_next(&self.node.core.ports, &pos, &key, &p);) {
        buf_puts(out, first ? "" : ",\n ");
        put_port(out, key, p);
        first = false;
    }
    buf_putc(out, ']');
}

/* probe_rules - what the kernel has, read back now, against what it should have. */
static void probe_rules(const char *args, struct buf *out)
{
    struct mesh_dump d = { 0 };
    struct err e = ERR_INIT;
    bool intact = false;
    unsigned drops;
    (void)args;
    int r = mesh_nft_read(&self.node.nft, &d, &intact, &e);
    buf_printf(out, "{\"table\":\"ip microswarm\",\"intact\":%s,\"ports\":%zu,\"slots\":%zu,\"chains\":%zu",
               r == 0 && intact ? "true" : "false", d.nports, d.nslots, self.node.nft.chains.count);
    buf_printf(out, ",\"transactions\":%llu,\"rebuilds\":%llu,\"recoveries\":%llu,\"failures\":%llu",
               (unsigned long long)self.node.nft.transactions, (unsigned long long)self.node.nft.rebuilds,
               (unsigned long long)self.node.recoveries, (unsigned long long)self.node.failures);
    if (r < 0 || self.node.failures) {
        buf_putc(out, ',');
        put_text(out, "error", r < 0 ? e.msg : self.node.last_failure.msg);
    }
    buf_puts(out, ",\"foreign_drops\":");
    if (mesh_host_drops(&self.node.host, out, &drops, &e) < 0)
        log_debug("%s", e.msg);
    buf_putc(out, '}');
    mesh_dump_done(&d);
}

static void probe_repair(const char *args, struct buf *out)
{
    struct err e = ERR_INIT;
    bool rebuilt = false;
    (void)args;
    int r = mesh_node_repair(&self.node, &rebuilt, on_note, NULL, &e);
    watch();
    buf_printf(out, "{\"ok\":%s,\"rebuilt\":%s,", r == 0 ? "true" : "false", rebuilt ? "true" : "false");
    put_text(out, "error", r < 0 ? e.msg : "");
    buf_putc(out, '}');
}

static void probe_overlay(const char *args, struct buf *out)
{
    (void)args;
    overlay_probe(&self.parts.overlay, out);
}

static void probe_esp(const char *args, struct buf *out)
{
    (void)args;
    esp_probe(&self.parts.esp, out);
}

static void probe_gossip(const char *args, struct buf *out)
{
    (void)args;
    if (self.gossip)
        mesh_gossip_members(self.gossip, out);
    else
        buf_puts(out, "[]");
}

static void probe_vips(const char *args, struct buf *out)
{
    vip_probe(&self.parts.vip, args, out);
}

const struct probe mesh_shell_probes[] = {
    { "sandboxes", "[TASK]", "network namespaces of tasks, with addresses and ports", probe_sandboxes },
    { "ports", "", "published ports, the tasks behind them, and who else has bound them", probe_ports },
    { "networks", "", "what this node knows of the swarm's networks, and whether it is up to date",
      mesh_view_probe_networks },
    { "endpoints", "[NETWORK]", "the tasks on them, wherever they run", mesh_view_probe_endpoints },
    { "overlay", "", "overlay networks of this node: what the kernel has, and how that differs from the view",
      probe_overlay },
    { "esp", "", "IPsec of encrypted networks: peers and what is sent with", probe_esp },
    { "gossip", "", "the other nodes, as gossip has them", probe_gossip },
    { "vips", "[TASK]", "service addresses in the tasks' sandboxes: the same", probe_vips },
    { "rules", "", "the nftables table as the kernel has it", probe_rules },
    { "repair", "", "reads links and the nftables table back and puts right what differs", probe_repair },
    { 0 },
};

void mesh_shell_status(struct buf *out)
{
    char addr[MESH_ADDR_TEXT];
    mesh_addr_text(self.node.subnet.base, addr);
    buf_printf(out, ",\"subnet\":\"%s/%u\",\"sandboxes\":%zu,\"ports\":%zu,", addr, self.node.subnet.prefix,
               self.node.core.sandboxes.count, self.node.core.ports.count);
    put_text(out, "link", mesh_shell_conf.link);
}

static void metric(struct buf *out, const char *name, uint64_t v)
{
    buf_printf(out, "microswarm_meshd_%s %llu\n", name, (unsigned long long)v);
}

void mesh_shell_metrics(struct buf *out)
{
    const struct mesh_node *n = &self.node;
    metric(out, "sandboxes", n->core.sandboxes.count);
    metric(out, "ports", n->core.ports.count);
    metric(out, "sandboxes_made_total", n->ups);
    metric(out, "sandboxes_removed_total", n->downs);
    metric(out, "leftovers_removed_total", n->dropped);
    metric(out, "rule_transactions_total", n->nft.transactions);
    metric(out, "rule_rebuilds_total", n->nft.rebuilds);
    metric(out, "rule_recoveries_total", n->recoveries);
    metric(out, "rule_failures_total", n->failures);
    metric(out, "connections_forgotten_total", n->forgotten + self.parts.vip.forgotten);
    mesh_names_metrics(&self.parts.names, out);
    if (self.gossip)
        mesh_gossip_metrics(self.gossip, out);
    metric(out, "overlay_networks", self.parts.overlay.nets.count);
    metric(out, "overlay_repairs_total", self.parts.overlay.repaired);
    metric(out, "overlay_failures_total", self.parts.overlay.failures);
    metric(out, "vip_transactions_total", self.parts.vip.transactions);
    metric(out, "vip_repairs_total", self.parts.vip.repaired);
    metric(out, "vip_failures_total", self.parts.vip.failures);
}
