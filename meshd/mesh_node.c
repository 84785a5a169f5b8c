#include "meshd/mesh_node.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/util/check.h"
#include "common/util/cleanup.h"
#include "common/util/dir.h"
#include "meshd/dns/dns_server.h"
#include "meshd/mesh_file.h"
#include "meshd/mesh_resolv.h"

#define STUB_REAL "/run/systemd/resolve/resolv.conf"
#define RESOLV_MAX 32768u
#define MESH_VXLAN_COST 50u

void (*mesh_node_step)(const char *where);

static void step(const char *where)
{
    if (mesh_node_step)
        mesh_node_step(where);
}

void mesh_node_pin_path(const struct mesh_node *n, const char *task, char path[512])
{
    snprintf(path, 512, "%s/%s", n->pins, task);
}

/* ---- ports kept from the host's processes ---- */

static int hold_socket(uint8_t proto, uint16_t port, int *ret_errno)
{
    struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(port) };
    int one = 1, type = proto == IPPROTO_UDP ? SOCK_DGRAM : SOCK_STREAM;
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, proto);
    *ret_errno = 0;
    if (fd < 0) { /* no such protocol in this kernel (sctp): then nobody else has it either */
        *ret_errno = errno == EADDRINUSE ? EPROTONOSUPPORT : errno;
        return -1;
    }
    if (type == SOCK_DGRAM) /* nobody reads what a broadcast leaves here */
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &one, sizeof one);
    if (type == SOCK_STREAM) /* past the TIME_WAITs of an earlier user */
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&sin, sizeof sin) == 0)
        return fd;
    *ret_errno = errno;
    close(fd);
    return -1;
}

static struct str hold_key(uint8_t proto, uint16_t port, char key[16])
{
    int len = snprintf(key, 16, "%s/%u", mesh_proto_name(proto), port);
    return (struct str){ key, (size_t)len };
}

/* hold - tries again when an earlier try failed. False when another process has the port. */
static bool hold(struct mesh_node *n, uint8_t proto, uint16_t port)
{
    char key[16];
    bool fresh;
    struct mesh_hold *h = table_put(&n->holds, hold_key(proto, port, key), &fresh);
    if (fresh || h->fd < 0)
        h->fd = hold_socket(proto, port, &h->errnum);
    return h->errnum != EADDRINUSE;
}

static bool held_port_wanted(struct mesh_node *n, struct str key)
{
    struct mesh_entry *p = table_get(&n->core.ports, key);
    return p && p->in_kernel;
}

static void sync_proxy(struct mesh_node *n)
{
    struct mesh_proxy_port *v = calloc(n->core.ports.count + 1, sizeof *v);
    struct mesh_entry *p;
    size_t count = 0;
    CHECK(v != NULL);
    for (struct table_pos pos = { 0 }; table_next(&n->core.ports, &pos, NULL, &p);)
        if (p->in_kernel)
            v[count++] = (struct mesh_proxy_port){ .proto = p->proto, .port = p->port };
    n->proxy_failure = (struct err)ERR_INIT;
    (void)mesh_proxy_want(&n->proxy, v, count, &n->proxy_failure);
    free(v);
}

void mesh_node_sync_holds(struct mesh_node *n)
{
    struct mesh_hold *h;
    struct mesh_entry *p;
    struct str key;
    for (struct table_pos pos = { 0 }; table_next(&n->holds, &pos, &key, &h);)
        if (!held_port_wanted(n, key)) {
            closep(&h->fd);
            table_del(&n->holds, key);
        }
    for (struct table_pos pos = { 0 }; table_next(&n->core.ports, &pos, NULL, &p);)
        if (p->in_kernel)
            (void)hold(n, p->proto, p->port);
    sync_proxy(n);
}

/* ---- rules ---- */

/* mesh_node_host_wants - the host lets in what the gateway has, and VXLAN of those we know. */
void mesh_node_host_wants(struct mesh_node *n)
{
    struct mesh_keys keys[MESH_HOST_SETS] = { { .len = sizeof(struct mesh_port_key) }, { .len = 4 }, { .len = 4 } };
    struct mesh_entry *p;
    struct netmap_network **net;
    struct netmap_node *node;
    struct netmap_ip self;
    for (struct table_pos pos = { 0 }; table_next(&n->core.ports, &pos, NULL, &p);) {
        struct mesh_port_key k = { .proto = p->proto, .port_be = htons(p->port) };
        if (p->in_kernel)
            mesh_keys_add(&keys[MESH_HOST_PORTS], &k);
    }
    for (struct table_pos pos = { 0 }; table_next(&n->view->nodes, &pos, NULL, &node);)
        if (node->addr.family == AF_INET)
            mesh_keys_add(&keys[MESH_HOST_NODES], node->addr.b);
    for (struct table_pos pos = { 0 }; table_next(&n->view->networks, &pos, NULL, &net);) {
        uint32_t vni = htonl((*net)->vni << 8); /* as in the packet */
        /* Between IPv6 addresses the filter does not look. */
        if (mesh_node_address(n, &self) && self.family == AF_INET)
            mesh_keys_add(&keys[MESH_HOST_VNIS], &vni);
    }
    for (int i = 0; i < MESH_HOST_SETS; i++) {
        mesh_keys_sort(&keys[i]);
        mesh_host_want(&n->host, (enum mesh_host_set)i, &keys[i]);
    }
}

int mesh_node_rebuild(struct mesh_node *n, struct err *e)
{
    struct mesh_plan p = { 0 };
    mesh_core_plan_all(&n->core, &p);
    int r = mesh_nft_rebuild(&n->nft, &p.now, e);
    mesh_plan_done(&p);
    return r;
}

int mesh_node_sync_rules(struct mesh_node *n, bool *ret_rebuilt, struct err *e)
{
    struct mesh_dump d = { 0 };
    struct mesh_plan strays = { 0 }, p = { 0 };
    bool intact, host_rebuilt = false;
    int r = mesh_nft_read(&n->nft, &d, &intact, e);
    if (r == 0 && intact && mesh_core_load(&n->core, &d, &strays)) {
        *ret_rebuilt = false;
        r = mesh_nft_apply(&n->nft, &strays, e); /* first: a stray's key may be needed */
        mesh_core_plan(&n->core, &p);
        if (r == 0)
            r = mesh_nft_apply(&n->nft, &p, e);
    } else if (r == 0) {
        *ret_rebuilt = true;
        r = mesh_node_rebuild(n, e);
    }
    mesh_dump_done(&d);
    mesh_plan_done(&strays);
    mesh_plan_done(&p);
    mesh_node_host_wants(n);
    if (r == 0)
        r = mesh_host_sync(&n->host, &host_rebuilt, e);
    *ret_rebuilt |= host_rebuilt;
    return r;
}

/* note_udp - clients that talked to a port before it was published, or after: their flows would go on as they did. */
static bool note_udp(struct mesh_node *n, const struct mesh_plan *p)
{
    bool ports = false;
    for (size_t i = 0; i < p->now.n; i++) {
        const struct mesh_edit *ed = &p->now.v[i];
        bool comes_or_goes = ed->type == MESH_PORT_DEL || (ed->type == MESH_PORT_SET && !ed->replaces);
        ports |= comes_or_goes;
        if (comes_or_goes && ed->proto == IPPROTO_UDP)
            mesh_ct_port(&n->stale_host, ed->port);
    }
    return ports;
}

#define DRAIN_ROUNDS 3000u /* of forgetting: five minutes, for a task whose end nobody tells us */

void mesh_node_drain(struct mesh_node *n, uint32_t addr)
{
    *(unsigned *)table_put(&n->draining, (struct str){ (const char *)&addr, sizeof addr }, NULL) = DRAIN_ROUNDS;
    mesh_ct_addr(&n->stale, addr, MESH_CT_UDP);
}

int mesh_node_forget(struct mesh_node *n, bool *ret_again, struct err *e)
{
    unsigned count = 0, *rounds;
    struct str key;
    for (struct table_pos pos = { 0 }; table_next(&n->draining, &pos, &key, &rounds);) {
        uint32_t addr;
        memcpy(&addr, key.p, sizeof addr);
        mesh_ct_addr(&n->stale, addr, MESH_CT_CLOSED);
        if (--*rounds == 0)
            table_del(&n->draining, key);
    }
    int r = mesh_ct_empty(&n->stale) ? 0 : mesh_ct_forget(&n->stale, &n->nft.req, &count, e);
    n->forgotten += count;
    if (r == 0 && !mesh_ct_empty(&n->stale_host)) {
        r = mesh_ct_forget(&n->stale_host, &n->host.req, &count, e);
        n->forgotten += count;
    }
    *ret_again = n->draining.count > 0;
    return r;
}

/* mesh_node_commit - a refused change is survived by making the table anew. */
int mesh_node_commit(struct mesh_node *n, struct err *e)
{
    struct mesh_plan p = { 0 };
    mesh_core_plan(&n->core, &p);
    step("rules");
    int r = mesh_nft_apply(&n->nft, &p, e);
    if (r < 0) {
        n->failures++;
        n->last_failure = *e;
        r = mesh_node_rebuild(n, e);
    }
    step("gateway's rules");
    bool ports = note_udp(n, &p);
    mesh_plan_done(&p);
    if (!ports)
        return r;
    mesh_node_host_wants(n);
    if (r == 0)
        r = mesh_host_apply(&n->host, e);
    mesh_node_sync_holds(n);
    return r;
}

/* ---- answers ---- */

static void read_text(const char *path, struct buf *out)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *p = fd >= 0 ? buf_reserve(out, RESOLV_MAX) : NULL;
    ssize_t len = p ? read(fd, p, RESOLV_MAX) : 0;
    out->n += len > 0 ? (size_t)len : 0;
}

/* named - a task on overlay networks asks our nameserver in its sandbox, which asks the others. Names of services have
 * no dot, so they must be tried as they are (ndots:0), unless its service says otherwise. */
static void named(const struct mesh_up *req, struct mesh_resolv *rv, struct arena *a)
{
    static struct str ours = STR(DNS_ADDRESS);
    const struct net_attachment *at = req->Networks.v;
    bool overlay = false, ndots = false;
    for (size_t i = 0; i < req->Networks.n; i++)
        overlay = overlay || !at[i].Network.Ingress;
    for (size_t i = 0; i < req->Options.n; i++)
        ndots = ndots || str_starts(req->Options.v[i], STR("ndots:"));
    if (!overlay)
        return;
    rv->nameservers = (struct strs){ &ours, 1 };
    struct str *v = ndots ? NULL : arena_array(a, req->Options.n + 1, sizeof *v);
    if (!v)
        return;
    for (size_t i = 0; i < req->Options.n; i++)
        v[i] = req->Options.v[i];
    v[req->Options.n] = STR("ndots:0");
    rv->options = (struct strs){ v, req->Options.n + 1 };
}

static int resolv_reply(struct mesh_node *n, const struct mesh_up *req, enum mesh_mode mode, struct arena *a,
                        struct str *ret, struct err *e)
{
    struct buf host = BUF_INIT, out = BUF_INIT;
    read_text(n->conf.resolv_conf, &host);
    if (mode != MESH_HOST && mesh_resolv_only_stub(buf_str(&host))) {
        buf_clear(&host);
        read_text(STUB_REAL, &host);
    }
    struct mesh_resolv rv = { .host = buf_str(&host),
                              .nameservers = req->Nameservers,
                              .search = req->Search,
                              .options = req->Options,
                              .fallback = str_from(n->conf.fallback_dns),
                              .own_net = mode != MESH_HOST };
    if (mode == MESH_BRIDGE)
        named(req, &rv, a);
    mesh_resolv_text(&rv, &out);
    *ret = arena_str(a, buf_str(&out));
    bool full = out.failed || (out.n && !ret->p);
    buf_done(&host);
    buf_done(&out);
    return full ? err_set(e, ERR_NOMEM, "resolv.conf does not fit") : 0;
}

static int reply(struct mesh_node *n, const struct mesh_up *req, const struct mesh_sandbox *sb, struct arena *a,
                 struct mesh_up_reply *ret, struct err *e)
{
    char pin[512], addr[MESH_ADDR_TEXT];
    *ret = (struct mesh_up_reply){ 0 };
    mesh_node_pin_path(n, sb->task, pin);
    if (sb->mode != MESH_HOST)
        ret->Netns = arena_str(a, str_from(pin));
    if (sb->addr) {
        mesh_addr_text(sb->addr, addr);
        ret->Addresses.v = arena_array(a, 1, sizeof(struct str));
        char *text = arena_printf(a, "%s/%u", addr, sb->given ? sb->given : n->subnet.prefix);
        if (!ret->Addresses.v || !text)
            return err_set(e, ERR_NOMEM, "reply does not fit");
        ret->Addresses.n = 1;
        ret->Addresses.v[0] = str_from(text);
    }
    if (!mesh_ports_out(sb, a, &ret->Ports))
        return err_set(e, ERR_NOMEM, "reply does not fit");
    return resolv_reply(n, req, sb->mode, a, &ret->ResolvConf, e);
}

/* ---- up ---- */

static int check_sysctls(const struct strmap *m, struct err *e)
{
    char path[256];
    for (size_t i = 0; i < m->n; i++)
        if (!mesh_sysctl_path(m->v[i].key, path, sizeof path))
            return err_set(e, ERR_INVALID, "Sysctls: " STR_FMT " is not one of the network's (net.*)",
                           STR_ARG(m->v[i].key));
    return 0;
}

/* given_address - the one on the ingress network, if it is on it. */
static int given_address(const struct mesh_up *req, struct mesh_sandbox *sb, struct err *e)
{
    const struct net_attachment *at = req->Networks.v;
    for (size_t i = 0; i < req->Networks.n; i++) {
        for (size_t k = 0; at[i].Network.Ingress && k < at[i].Addresses.n; k++) {
            struct netmap_ip ip;
            if (!netmap_ip_parse(at[i].Addresses.v[k], &ip))
                return err_set(e, ERR_INVALID, "Networks[%zu].Addresses[%zu]: not an address", i, k);
            if (ip.family != AF_INET || sb->given)
                continue;
            uint32_t be;
            memcpy(&be, ip.b, sizeof be);
            sb->addr = ntohl(be);
            sb->given = ip.prefix;
            if (!sb->addr || !sb->given)
                return err_set(e, ERR_INVALID, "Networks[%zu].Addresses[%zu]: not an address", i, k);
        }
    }
    return 0;
}

/* has_way_out - a task all of whose networks are internal has none, unless it publishes a port of this node. */
static bool has_way_out(const struct mesh_up *req, const struct mesh_sandbox *sb)
{
    const struct net_attachment *at = req->Networks.v;
    bool out = req->Networks.n == 0 || sb->nports > 0;
    for (size_t i = 0; i < req->Networks.n; i++)
        out |= !at[i].Network.Internal;
    return out;
}

/* parse_up - the request as a sandbox without an address; on success sb->ports is the caller's. */
static int parse_up(const struct mesh_up *req, struct mesh_sandbox *sb, struct err *e)
{
    struct mesh_resolv dns = { .nameservers = req->Nameservers, .search = req->Search, .options = req->Options };
    int r = mesh_resolv_check(&dns, e);
    if (r == 0)
        r = check_sysctls(&req->Sysctls, e);
    if (r < 0)
        return r;
    if (!id_ok(req->TaskID))
        return err_set(e, ERR_INVALID, "TaskID: must be 1 to 64 of letters, digits, '_', '-' and '.'");
    if (req->ServiceID.n && !id_ok(req->ServiceID))
        return err_set(e, ERR_INVALID, "ServiceID: must be 1 to 64 of letters, digits, '_', '-' and '.'");
    if (!mesh_mode_parse(req->Mode, &sb->mode))
        return err_set(e, ERR_INVALID, "Mode: must be bridge, none or host");
    if (sb->mode == MESH_HOST && req->Sysctls.n)
        return err_set(e, ERR_INVALID, "Sysctls: not allowed in the host's network");
    str_copy(sb->task, sizeof sb->task, req->TaskID);
    str_copy(sb->service, sizeof sb->service, req->ServiceID);
    if (sb->mode == MESH_BRIDGE)
        r = given_address(req, sb, e);
    if (r < 0)
        return r;
    if (sb->mode == MESH_NONE) /* nothing to reach it by */
        return 0;
    return mesh_ports_in(&req->Ports, &sb->ports, &sb->nports, e);
}

/* choose_port - a host-mode port for the task: one nobody publishes and no process of the host has. In the host's
 * network the container binds for itself, and nothing is to be chosen. */
static int choose_port(struct mesh_node *n, const struct mesh_sandbox *sb, size_t i, struct err *e)
{
    struct mesh_publish *pub = &sb->ports[i];
    uint16_t lo = (uint16_t)n->conf.port_first, hi = (uint16_t)n->conf.port_last;
    for (unsigned tries = (unsigned)(hi - lo) + 1; tries > 0; tries--) {
        uint16_t port = mesh_core_port_next(&n->core, pub->proto, n->port_last, lo, hi);
        bool twice = false;
        if (port == 0)
            break;
        n->port_last = port;
        for (size_t j = 0; j < sb->nports; j++)
            twice |= sb->ports[j].published == port && sb->ports[j].proto == pub->proto;
        if (!twice && hold(n, pub->proto, port)) {
            pub->published = port;
            return 0;
        }
    }
    return err_set(e, ERR_UNAVAILABLE, "no free port in %u-%u for host-mode port %u/%s", lo, hi, pub->target,
                   mesh_proto_name(pub->proto));
}

static int claim_ports(struct mesh_node *n, const struct mesh_sandbox *sb, struct err *e)
{
    int r = mesh_core_check(&n->core, sb, e);
    for (size_t i = 0; r == 0 && i < sb->nports; i++) {
        struct mesh_publish *pub = &sb->ports[i];
        if (sb->mode != MESH_BRIDGE)
            pub->published = pub->published ? pub->published : pub->target; /* the container binds for itself */
        else if (pub->published == 0)
            r = choose_port(n, sb, i, e);
        else if (pub->host_mode && !hold(n, pub->proto, pub->published))
            r = err_set(e, ERR_CONFLICT, "host-mode port %u/%s is already in use on this node by another process",
                        pub->published, mesh_proto_name(pub->proto));
    }
    return r;
}

static int plug_once(struct mesh_node *n, const struct mesh_sandbox *sb, const struct strmap *sysctls, bool make,
                     struct err *e)
{
    char pin[512];
    mesh_node_pin_path(n, sb->task, pin);
    /* What comes from another node has been through the VXLAN. */
    unsigned mtu = (unsigned)n->conf.mtu - (sb->given ? MESH_VXLAN_COST : 0);
    struct mesh_plug p = { .pin = pin,
                           .make = make,
                           .task = sb->task,
                           .addr = sb->addr,
                           .gateway = mesh_subnet_gateway(n->subnet),
                           .mtu = mtu,
                           .sysctls = sysctls };
    return mesh_nl_plug(&n->nl, &p, e);
}

int mesh_node_plug(struct mesh_node *n, const struct mesh_sandbox *sb, const struct strmap *sysctls, bool make,
                   struct err *e)
{
    bool rebuilt;
    int r = plug_once(n, sb, sysctls, make, e);
    if (r >= 0 || r == -ERR_CONFLICT || !make || !sb->addr || mesh_ns_pinned(n->gate))
        return r;
    r = mesh_node_repair(n, &rebuilt, NULL, NULL, e); /* someone took the gateway away */
    return r < 0 ? r : plug_once(n, sb, sysctls, make, e);
}

bool mesh_node_has_addr(struct mesh_node *n, uint32_t addr)
{
    struct mesh_sandbox *sb;
    for (struct table_pos pos = { 0 }; table_next(&n->core.sandboxes, &pos, NULL, &sb);)
        if (sb->addr == addr)
            return true;
    return false;
}

/* plug_given - the managers give an address only when nobody has it any more; a link of it is one of the past. */
static int plug_given(struct mesh_node *n, const struct mesh_sandbox *sb, const struct strmap *sysctls, struct err *e)
{
    char name[IFNAMSIZ], addr[MESH_ADDR_TEXT];
    mesh_addr_text(sb->addr, addr);
    if (mesh_node_has_addr(n, sb->addr))
        return err_set(e, ERR_CONFLICT, "address %s is still in use by another task on this node", addr);
    int r = mesh_node_plug(n, sb, sysctls, true, e);
    if (r != -ERR_CONFLICT)
        return r;
    mesh_nl_veth_name(sb->addr, name);
    r = mesh_nl_link_del(&n->nl.gt, name, e);
    return r < 0 ? r : mesh_node_plug(n, sb, sysctls, true, e);
}

/* make_net - namespace and link. An address whose link is still going away is passed over: the kernel refuses it. */
static int make_net(struct mesh_node *n, struct mesh_sandbox *sb, const struct strmap *sysctls, bool out, struct err *e)
{
    char pin[512];
    int r = 0;
    if (sb->mode == MESH_HOST)
        return 0;
    mesh_node_pin_path(n, sb->task, pin);
    (void)mesh_ns_unpin(pin, NULL);
    if (sb->mode == MESH_NONE || (!out && !sb->given))
        return mesh_node_plug(n, sb, sysctls, true, e);
    if (sb->given)
        return plug_given(n, sb, sysctls, e);
    for (int tries = 0; tries < 1024; tries++) {
        sb->addr = mesh_core_addr_next(&n->core);
        if (sb->addr == 0)
            return err_set(e, ERR_UNAVAILABLE, "no free address in the sandboxes' subnet");
        r = mesh_node_plug(n, sb, sysctls, true, e);
        if (r != -ERR_CONFLICT)
            return r;
    }
    return r;
}

static void leave(struct mesh_node *n, uint32_t addr)
{
    if (n->nleaving == n->cleaving) {
        n->cleaving = n->cleaving * 2 + 16;
        n->leaving = realloc(n->leaving, n->cleaving * sizeof *n->leaving);
        CHECK(n->leaving != NULL);
    }
    n->leaving[n->nleaving++] = addr;
}

void mesh_node_sweep(struct mesh_node *n)
{
    for (size_t i = 0; i < n->nleaving; i++) {
        char name[IFNAMSIZ];
        mesh_nl_veth_name(n->leaving[i], name);
        if (!mesh_node_has_addr(n, n->leaving[i]))
            (void)mesh_nl_link_del(&n->nl.gt, name, NULL);
    }
    free(n->leaving);
    n->leaving = NULL;
    n->nleaving = n->cleaving = 0;
}

static void unmake_net(struct mesh_node *n, const char *task, enum mesh_mode mode, uint32_t addr)
{
    char pin[512];
    mesh_node_pin_path(n, task, pin);
    if (mode != MESH_HOST)
        (void)mesh_ns_unpin(pin, NULL);
    step("namespace gone");
    if (addr)
        leave(n, addr);
}

static int make(struct mesh_node *n, const struct mesh_up *req, struct mesh_sandbox *sb, struct err *e)
{
    int r = claim_ports(n, sb, e);
    if (r == 0)
        r = make_net(n, sb, &req->Sysctls, has_way_out(req, sb), e);
    step("net made");
    if (r < 0)
        return r;
    r = mesh_file_save(n->files, sb, n->subnet, e);
    step("file written");
    if (r < 0)
        unmake_net(n, sb->task, sb->mode, sb->addr);
    return r;
}

int mesh_node_up(struct mesh_node *n, const struct mesh_up *req, struct arena *a, struct mesh_up_reply *ret,
                 struct err *e)
{
    struct mesh_sandbox *sb = mesh_core_get(&n->core, req->TaskID), fresh = { 0 };
    char pin[512];
    int r;
    if (sb) {
        mesh_node_pin_path(n, sb->task, pin);
        if (sb->mode == MESH_HOST || mesh_ns_pinned(pin))
            return reply(n, req, sb, a, ret, e);
        r = mesh_node_down(n, req->TaskID, e); /* someone took its namespace away: a new one */
        if (r < 0)
            return r;
    }
    r = parse_up(req, &fresh, e);
    if (r < 0)
        return r;
    r = make(n, req, &fresh, e);
    if (r < 0) {
        free(fresh.ports);
        mesh_node_sync_holds(n);
        return r;
    }
    sb = mesh_core_add(&n->core, &fresh);
    if (sb->addr) /* its own route has taken the place of one to another node */
        table_del(&n->far, (struct str){ (const char *)&sb->addr, sizeof sb->addr });
    n->ups++;
    r = mesh_node_commit(n, e);
    return r < 0 ? r : reply(n, req, sb, a, ret, e);
}

int mesh_node_ready(struct mesh_node *n, struct str task, bool ready, struct err *e)
{
    struct mesh_sandbox *sb = mesh_core_get(&n->core, task);
    if (!sb)
        return err_set(e, ERR_NOT_FOUND, "task " STR_FMT " has no sandbox", STR_ARG(task));
    int r = mesh_core_set_ready(&n->core, sb, ready, e);
    if (r == 0)
        r = mesh_file_save(n->files, sb, n->subnet, e);
    step("state written");
    if (r < 0)
        return r;
    if (ready)
        table_del(&n->draining, (struct str){ (const char *)&sb->addr, sizeof sb->addr });
    else if (sb->addr && sb->nports)
        mesh_node_drain(n, sb->addr);
    return mesh_node_commit(n, e);
}

int mesh_node_down(struct mesh_node *n, struct str task, struct err *e)
{
    struct mesh_sandbox *sb = mesh_core_get(&n->core, task);
    char id[MESH_ID_SIZE];
    if (!sb)
        return 0;
    memcpy(id, sb->task, sizeof id);
    uint32_t addr = sb->addr;
    bool given = sb->given;
    enum mesh_mode mode = sb->mode;
    if (addr && sb->nports)
        mesh_ct_addr(&n->stale, addr, MESH_CT_ALL);
    table_del(&n->draining, (struct str){ (const char *)&addr, sizeof addr });
    int r = mesh_file_remove(n->files, id, e);
    if (r < 0)
        return r;
    step("file gone");
    mesh_core_del(&n->core, sb);
    n->downs++;
    r = mesh_node_commit(n, e);
    unmake_net(n, id, mode, addr);
    if (given) /* it may live on elsewhere, under another task */
        table_put(&n->todo_far, (struct str){ (const char *)&addr, sizeof addr }, NULL);
    return r;
}
