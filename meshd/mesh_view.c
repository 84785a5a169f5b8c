#include "meshd/mesh_view.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/daemon/daemon.h"
#include "common/proto/msg_gatewayd.h"
#include "common/util/check.h"
#include "common/util/cleanup.h"
#include "common/util/clock.h"

#define WAIT_MS 60000u
#define GRACE_MS 10000u
#define BACKOFF_MIN_MS 100u
#define BACKOFF_MAX_MS 250u /* one cheap local request: after a partition this is all that is lost */
#define RETRY_MAX_MS 5000u
#define RETRY_MS 50u     /* until carrying out is tried again; doubles */
#define GIVE_UP_MS 3000u /* then the next question is asked all the same, or a broken network would hide all others */
#define VIEW_MAX (64u << 20)

static struct {
    struct netmap map;
    mesh_view_fn *carry_out;
    void *arg;
    struct rpc_client *gateway;
    struct timer *identity_again, *ask_again, *retry, *soon;
    uint64_t identity_seq;
    char node[ID_SIZE];
    bool asking, carried, linked, open, identified;
    uint64_t backoff_ms, retry_ms, since_ms, saved_ms, save_cost_ms;
    uint64_t asks, answers, failures, stuck;
    struct err last;
    char file[400];
} self;

struct netmap *mesh_view(void)
{
    return &self.map;
}

const char *mesh_view_self(void)
{
    return self.node;
}

bool mesh_view_linked(void)
{
    return self.linked;
}

/* ---- the file ---- */

static struct str ip_text(struct arena *a, const struct netmap_ip *ip, bool prefix)
{
    char text[NETMAP_IP_TEXT];
    if (ip->family == 0)
        return (struct str){ 0 };
    netmap_ip_text(ip, text);
    char *p = prefix ? arena_printf(a, "%s/%u", text, ip->prefix) : arena_printf(a, "%s", text);
    CHECK(p != NULL);
    return str_from(p);
}

static struct strs ip_texts(struct arena *a, const struct netmap_ip *v, size_t n)
{
    struct strs s = { arena_array(a, n + 1, sizeof(struct str)), n };
    CHECK(s.v != NULL);
    for (size_t i = 0; i < n; i++)
        s.v[i] = ip_text(a, &v[i], false);
    return s;
}

static void *more(struct arena *a, size_t n, size_t size)
{
    void *p = arena_array(a, n + 1, size);
    CHECK(p != NULL);
    return p;
}

static struct net_network network_out(struct arena *a, const struct netmap_network *n)
{
    struct net_subnet *subs = more(a, n->nsubnets, sizeof *subs);
    for (size_t i = 0; i < n->nsubnets; i++)
        subs[i] =
            (struct net_subnet){ ip_text(a, &n->subnets[i].net, true), ip_text(a, &n->subnets[i].gateway, false) };
    return (struct net_network){ .ID = str_from(n->id),
                                 .Name = n->name,
                                 .VNI = n->vni,
                                 .MTU = n->mtu,
                                 .Encrypted = n->encrypted,
                                 .Internal = n->internal,
                                 .Ingress = n->ingress,
                                 .Subnets = { subs, n->nsubnets } };
}

static const char *proto_text(uint8_t proto)
{
    return proto == 6 ? "tcp" : proto == 17 ? "udp" : "sctp";
}

static struct net_service service_out(struct arena *a, const struct netmap_network *n, const struct netmap_service *s)
{
    struct net_port *ports = more(a, s->nports, sizeof *ports);
    for (size_t i = 0; i < s->nports; i++)
        ports[i] =
            (struct net_port){ str_from(proto_text(s->ports[i].proto)), s->ports[i].target, s->ports[i].published };
    return (struct net_service){ .ID = str_from(s->id),
                                 .NetworkID = str_from(n->id),
                                 .Name = s->name,
                                 .Mode = s->dnsrr ? STR("dnsrr") : STR("vip"),
                                 .VIPs = ip_texts(a, s->vips, s->nvips),
                                 .Aliases = { s->aliases, s->naliases },
                                 .Ports = { ports, s->nports } };
}

static struct net_endpoint endpoint_out(struct arena *a, const struct netmap_network *n,
                                        const struct netmap_endpoint *ep)
{
    static const char *const states[] = { "starting", "ready", "draining" };
    return (struct net_endpoint){ .ID = str_from(ep->id),
                                  .NetworkID = str_from(n->id),
                                  .ServiceID = str_from(ep->service),
                                  .NodeID = str_from(ep->node),
                                  .Name = ep->name,
                                  .State = str_from(states[ep->state]),
                                  .Addresses = ip_texts(a, ep->ips, ep->nips) };
}

static void view_out(struct arena *a, const struct netmap *m, struct disp_network_reply *ret)
{
    struct netmap_network **n;
    struct netmap_service **s;
    struct netmap_endpoint **ep;
    struct netmap_node *node;
    size_t nservices = 0, nendpoints = 0;
    for (struct table_pos p = { 0 }; table_next(&m->networks, &p, NULL, &n);) {
        nservices += (*n)->services.count;
        nendpoints += (*n)->endpoints.count;
    }
    *ret = (struct disp_network_reply){ .Full = true, .DataPathPort = m->data_path_port };
    struct net_network *networks = more(a, m->networks.count, sizeof *networks);
    struct net_service *services = more(a, nservices, sizeof *services);
    struct net_endpoint *endpoints = more(a, nendpoints, sizeof *endpoints);
    struct net_node *nodes = more(a, m->nodes.count, sizeof *nodes);
    ret->Networks.v = networks, ret->Services.v = services, ret->Endpoints.v = endpoints, ret->Nodes.v = nodes;
    for (struct table_pos p = { 0 }; table_next(&m->networks, &p, NULL, &n);) {
        networks[ret->Networks.n++] = network_out(a, *n);
        for (struct table_pos q = { 0 }; table_next(&(*n)->services, &q, NULL, &s);)
            services[ret->Services.n++] = service_out(a, *n, *s);
        for (struct table_pos q = { 0 }; table_next(&(*n)->endpoints, &q, NULL, &ep);)
            endpoints[ret->Endpoints.n++] = endpoint_out(a, *n, *ep);
    }
    for (struct table_pos p = { 0 }; table_next(&m->nodes, &p, NULL, &node);)
        nodes[ret->Nodes.n++] = (struct net_node){ .ID = str_from(node->id),
                                                   .Addr = ip_text(a, &node->addr, false),
                                                   .Hostname = str_from(node->hostname) };
}

void mesh_view_save(const struct netmap *m, struct buf *out)
{
    struct disp_network_reply r;
    struct arena a;
    arena_init(&a, VIEW_MAX);
    view_out(&a, m, &r);
    fields_encode(&r, op_disp_network.rep, out);
    arena_done(&a);
}

int mesh_view_load(struct netmap *m, struct str in, struct err *e)
{
    struct disp_network_reply rep;
    struct arena a;
    arena_init(&a, VIEW_MAX);
    int r = fields_decode(&rep, op_disp_network.rep, sizeof rep, in, FIELDS_STRICT, &a, e);
    if (r == 0) {
        rep.Seq = 0; /* and it is asked for anew */
        r = netmap_apply(m, &rep, e);
    }
    arena_done(&a);
    return r;
}

static int write_all(const char *path, struct str data)
{
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    for (size_t off = 0; fd >= 0 && off < data.n;) {
        ssize_t n = write(fd, data.p + off, data.n - off);
        if (n < 0 && errno != EINTR)
            return -1;
        off += n > 0 ? (size_t)n : 0;
    }
    return fd < 0 ? -1 : 0;
}

/* save - soon enough after each change; a view so large that writing takes long is written less often. */
static void save(void)
{
    uint64_t now = clock_mono().ms;
    char tmp[sizeof self.file + 8];
    struct buf b = { .limit = VIEW_MAX };
    if (!self.node[0])
        return;
    if (self.saved_ms && now < self.saved_ms + 20 * self.save_cost_ms) {
        timer_arm(self.soon, self.saved_ms + 20 * self.save_cost_ms);
        return;
    }
    buf_printf(&b, "%s\n", self.node);
    mesh_view_save(&self.map, &b);
    snprintf(tmp, sizeof tmp, "%s.new", self.file);
    if (b.failed || write_all(tmp, buf_str(&b)) < 0 || rename(tmp, self.file) < 0) {
        log_warn("%s: not written: %s", self.file, strerror(errno));
        (void)unlink(tmp);
    }
    buf_done(&b);
    self.saved_ms = clock_mono().ms;
    self.save_cost_ms = self.saved_ms - now;
}

static void load(void)
{
    struct buf b = { .limit = VIEW_MAX };
    struct err e = ERR_INIT;
    _cleanup_(closep) int fd = open(self.file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return;
    for (ssize_t n = 1; n > 0;) {
        char *p = buf_reserve(&b, 65536);
        n = p ? read(fd, p, 65536) : -1;
        b.n += n > 0 ? (size_t)n : 0;
    }
    const char *nl = b.n ? memchr(b.p, '\n', b.n) : NULL;
    struct str node = { b.p, nl ? (size_t)(nl - b.p) : 0 };
    if (!nl || !id_ok(node) || !str_copy(self.node, sizeof self.node, node))
        log_warn("%s: damaged, not used", self.file);
    else if (mesh_view_load(&self.map, (struct str){ nl + 1, b.n - node.n - 1 }, &e) < 0)
        log_warn("%s: %s", self.file, e.msg);
    buf_done(&b);
}

/* ---- carrying out ---- */

static void ask(void);

static void carry_out(void)
{
    uint64_t now = clock_mono().ms;
    bool was = self.carried;
    self.carried = self.carry_out(self.arg);
    if (self.carried) {
        self.retry_ms = 0;
        self.since_ms = 0;
        if (!was)
            log_debug("networks: carried out");
        save();
        ask();
        return;
    }
    if (!self.since_ms)
        self.since_ms = now;
    self.retry_ms = self.retry_ms ? self.retry_ms * 2 : RETRY_MS;
    if (self.retry_ms > RETRY_MAX_MS)
        self.retry_ms = RETRY_MAX_MS;
    timer_arm(self.retry, now + self.retry_ms);
    if (now >= self.since_ms + GIVE_UP_MS) {
        self.stuck++;
        ask();
    }
}

static void on_retry(void *arg)
{
    (void)arg;
    if (!self.carried)
        carry_out();
}

static void on_soon(void *arg)
{
    (void)arg;
    carry_out();
}

void mesh_view_again(void)
{
    timer_arm(self.soon, clock_mono().ms);
}

/* ---- asking ---- */

static void failed(const struct err *e)
{
    self.failures++;
    if (self.linked || strcmp(self.last.msg, e->msg) != 0)
        log_info("networks: %s; asking again", e->msg);
    self.last = *e;
    self.linked = false;
    self.backoff_ms = self.backoff_ms ? self.backoff_ms * 2 : BACKOFF_MIN_MS;
    if (self.backoff_ms > BACKOFF_MAX_MS)
        self.backoff_ms = BACKOFF_MAX_MS;
    timer_arm(self.ask_again, clock_mono().ms + self.backoff_ms);
}

static void on_network(void *arg, const void *rep, const struct err *e)
{
    const struct disp_network_reply *r = rep;
    struct err bad = ERR_INIT;
    (void)arg;
    self.asking = false;
    if (!self.node[0]) /* left the swarm meanwhile */
        return;
    if (!r) {
        failed(e);
        return;
    }
    self.answers++;
    if (netmap_apply(&self.map, r, &bad) < 0) {
        log_error("networks: the answer makes no sense: %s", bad.msg);
        failed(&bad);
        return;
    }
    if (!self.linked)
        log_info("networks: %zu networks, %zu nodes", self.map.networks.count, self.map.nodes.count);
    self.linked = true;
    self.backoff_ms = 0;
    self.last = (struct err)ERR_INIT;
    carry_out();
}

static void ask(void)
{
    /* After a failure the answer is wanted at once, whether there is news or not: it says that managers are there. */
    struct disp_network req = { .WaitMs = self.linked ? WAIT_MS : 0 };
    struct arena a;
    if (self.asking || !self.node[0])
        return;
    self.asking = true;
    self.asks++;
    arena_init(&a, 1u << 20);
    netmap_ask(&self.map, &a, &req);
    rpc_send_via(self.gateway, STR("leader"), "dispatcherd", &op_disp_network, &req, WAIT_MS + GRACE_MS, on_network,
                 NULL);
    arena_done(&a);
}

static void on_ask_again(void *arg)
{
    (void)arg;
    ask();
}

/* ---- who this node is ---- */

static void identity_ask(void);

static void forget_all(void)
{
    struct disp_network_reply nothing = { .Full = true };
    (void)netmap_apply(&self.map, &nothing, NULL);
    (void)unlink(self.file);
}

static void on_identity(void *arg, const void *rep, const struct err *e)
{
    const struct gw_identity_reply *r = rep;
    char node[ID_SIZE] = "";
    (void)arg, (void)e;
    if (!r) { /* it is starting: what was known of the swarm still holds */
        self.identity_seq = 0;
        timer_arm(self.identity_again, clock_mono().ms + 500);
        return;
    }
    self.identity_seq = r->Seq;
    if (str_is(r->State, "active"))
        str_copy(node, sizeof node, r->NodeID);
    else if (!str_is(r->State, "inactive")) /* locked, joining: what was known still holds */
        memcpy(node, self.node, sizeof node);
    if (strcmp(node, self.node) != 0 || !self.identified) {
        if (strcmp(node, self.node) != 0 && self.map.networks.count)
            forget_all();
        memcpy(self.node, node, sizeof self.node);
        self.identified = true;
        self.linked = false;
        self.backoff_ms = 0;
        carry_out();
    }
    if (str_is(r->State, "active"))
        ask();
    identity_ask();
}

static void identity_ask(void)
{
    struct gw_identity req = { .Seq = self.identity_seq, .WaitMs = WAIT_MS };
    rpc_send(self.gateway, &op_gw_identity, &req, WAIT_MS + GRACE_MS, on_identity, NULL);
}

static void on_identity_again(void *arg)
{
    (void)arg;
    identity_ask();
}

/* ---- life ---- */

int mesh_view_open(struct err *e)
{
    if (snprintf(self.file, sizeof self.file, "%s/mesh/.view", daemon_run_dir()) >= (int)sizeof self.file)
        return err_set(e, ERR_INVALID, "run folder: name too long");
    netmap_init(&self.map);
    self.open = true;
    load();
    return 0;
}

int mesh_view_start(mesh_view_fn *fn, void *arg, struct err *e)
{
    self.carry_out = fn;
    self.arg = arg;
    int r = timer_open(&self.identity_again, on_identity_again, NULL, e);
    if (r == 0)
        r = timer_open(&self.ask_again, on_ask_again, NULL, e);
    if (r == 0)
        r = timer_open(&self.retry, on_retry, NULL, e);
    if (r == 0)
        r = timer_open(&self.soon, on_soon, NULL, e);
    if (r == 0)
        r = rpc_client_open(&self.gateway, daemon_loop(), daemon_run_dir(), "gatewayd", e);
    if (r < 0)
        return r;
    identity_ask();
    return 0;
}

void mesh_view_stop(void)
{
    if (!self.open)
        return;
    self.gateway = rpc_client_free(self.gateway);
    self.identity_again = timer_free(self.identity_again);
    self.ask_again = timer_free(self.ask_again);
    self.retry = timer_free(self.retry);
    self.soon = timer_free(self.soon);
    netmap_done(&self.map);
    self.open = false;
}

/* ---- probes ---- */

static void put_ips(struct buf *out, const struct netmap_ip *v, size_t n)
{
    char text[NETMAP_IP_TEXT];
    buf_putc(out, '[');
    for (size_t i = 0; i < n; i++)
        buf_printf(out, "%s\"%s\"", i ? "," : "", netmap_ip_text(&v[i], text));
    buf_putc(out, ']');
}

static void put_network(struct buf *out, const struct netmap_network *n)
{
    struct netmap_service **s;
    bool first = true;
    buf_printf(out, "{\"id\":\"%s\",\"name\":", n->id);
    buf_json_str(out, n->name);
    buf_printf(out, ",\"vni\":%u,\"ingress\":%s,\"encrypted\":%s,\"internal\":%s,\"endpoints\":%zu,\"services\":[",
               n->vni, n->ingress ? "true" : "false", n->encrypted ? "true" : "false", n->internal ? "true" : "false",
               n->endpoints.count);
    for (struct table_pos p = { 0 }; table_next(&n->services, &p, NULL, &s);) {
        buf_printf(out, "%s\n  {\"id\":\"%s\",\"name\":", first ? "" : ",", (*s)->id);
        buf_json_str(out, (*s)->name);
        buf_puts(out, ",\"vips\":");
        put_ips(out, (*s)->vips, (*s)->nvips);
        buf_puts(out, ",\"ports\":[");
        for (size_t i = 0; i < (*s)->nports; i++)
            buf_printf(out, "%s\"%u->%u/%s\"", i ? "," : "", (*s)->ports[i].published, (*s)->ports[i].target,
                       proto_text((*s)->ports[i].proto));
        buf_puts(out, "]}");
        first = false;
    }
    buf_puts(out, "]}");
}

void mesh_view_probe_networks(const char *args, struct buf *out)
{
    struct netmap_network **n;
    struct netmap_node *node;
    bool first = true;
    (void)args;
    buf_printf(out, "{\"seq\":%llu,\"linked\":%s,\"carried_out\":%s,\"self\":\"%s\",\"data_path_port\":%u,",
               (unsigned long long)self.map.seq, self.linked ? "true" : "false", self.carried ? "true" : "false",
               self.node, self.map.data_path_port);
    buf_printf(out, "\"questions\":%llu,\"answers\":%llu,\"failures\":%llu,\"stuck\":%llu,\"error\":",
               (unsigned long long)self.asks, (unsigned long long)self.answers, (unsigned long long)self.failures,
               (unsigned long long)self.stuck);
    buf_json_str(out, str_from(self.last.msg));
    buf_puts(out, ",\n\"nodes\":[");
    for (struct table_pos p = { 0 }; table_next(&self.map.nodes, &p, NULL, &node); first = false) {
        buf_printf(out, "%s\n {\"id\":\"%s\",\"hostname\":", first ? "" : ",", node->id);
        buf_json_str(out, str_from(node->hostname));
        buf_puts(out, ",\"address\":");
        put_ips(out, &node->addr, 1);
        buf_putc(out, '}');
    }
    buf_puts(out, "],\n\"networks\":[");
    first = true;
    for (struct table_pos p = { 0 }; table_next(&self.map.networks, &p, NULL, &n); first = false) {
        buf_puts(out, first ? "\n " : ",\n ");
        put_network(out, *n);
    }
    buf_puts(out, "]}");
}

void mesh_view_probe_endpoints(const char *args, struct buf *out)
{
    static const char *const states[] = { "starting", "ready", "draining" };
    struct netmap_network **n;
    struct netmap_endpoint **ep;
    bool first = true;
    buf_putc(out, '[');
    for (struct table_pos p = { 0 }; table_next(&self.map.networks, &p, NULL, &n);) {
        if (args[0] && strcmp(args, (*n)->id) != 0 && !str_is((*n)->name, args))
            continue;
        for (struct table_pos q = { 0 }; table_next(&(*n)->endpoints, &q, NULL, &ep); first = false) {
            buf_printf(out, "%s{\"network\":", first ? "" : ",\n ");
            buf_json_str(out, (*n)->name);
            buf_printf(out,
                       ",\"task\":\"%s\",\"service\":\"%s\",\"node\":\"%s\",\"state\":\"%s\",\"usable\":%s,\"name\":",
                       (*ep)->id, (*ep)->service, (*ep)->node, states[(*ep)->state],
                       netmap_usable(&self.map, *ep) ? "true" : "false");
            buf_json_str(out, (*ep)->name);
            buf_puts(out, ",\"addresses\":");
            put_ips(out, (*ep)->ips, (*ep)->nips);
            buf_putc(out, '}');
        }
    }
    buf_putc(out, ']');
}
