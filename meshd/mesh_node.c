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
#include "meshd/mesh_file.h"
#include "meshd/mesh_resolv.h"

#define STUB_REAL "/run/systemd/resolve/resolv.conf"
#define RESOLV_MAX 32768u

void (*mesh_node_step)(const char *where);

static void step(const char *where)
{
    if (mesh_node_step)
        mesh_node_step(where);
}

static void pin_path(const struct mesh_node *n, const char *task, char path[512])
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

static void sync_holds(struct mesh_node *n)
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
}

/* ---- rules ---- */

static int rebuild(struct mesh_node *n, struct err *e)
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
    bool intact;
    int r = mesh_nft_read(&n->nft, &d, &intact, e);
    if (r == 0 && intact && mesh_core_load(&n->core, &d, &strays)) {
        *ret_rebuilt = false;
        r = mesh_nft_apply(&n->nft, &strays, e); /* first: a stray's key may be needed */
        mesh_core_plan(&n->core, &p);
        if (r == 0)
            r = mesh_nft_apply(&n->nft, &p, e);
    } else if (r == 0) {
        *ret_rebuilt = true;
        r = rebuild(n, e);
    }
    mesh_dump_done(&d);
    mesh_plan_done(&strays);
    mesh_plan_done(&p);
    return r;
}

/* note_new_udp - clients that talked to a port before it was published. */
static void note_new_udp(struct mesh_node *n, const struct mesh_plan *p)
{
    for (size_t i = 0; i < p->now.n; i++) {
        const struct mesh_edit *ed = &p->now.v[i];
        if (ed->type == MESH_PORT_SET && !ed->replaces && ed->proto == IPPROTO_UDP)
            mesh_ct_port(&n->stale, ed->port);
    }
}

int mesh_node_forget(struct mesh_node *n, struct err *e)
{
    unsigned count = 0;
    int r = mesh_ct_empty(&n->stale) ? 0 : mesh_ct_forget(&n->stale, &n->nft.req, &count, e);
    n->forgotten += count;
    return r;
}

/* commit - brings the kernel's table to what the core wants. A refused change is survived by making the table anew. */
static int commit(struct mesh_node *n, struct err *e)
{
    struct mesh_plan p = { 0 };
    mesh_core_plan(&n->core, &p);
    step("rules");
    int r = mesh_nft_apply(&n->nft, &p, e);
    if (r < 0) {
        n->failures++;
        n->last_failure = *e;
        r = rebuild(n, e);
    }
    note_new_udp(n, &p);
    mesh_plan_done(&p);
    sync_holds(n);
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
    pin_path(n, sb->task, pin);
    if (sb->mode != MESH_HOST)
        ret->Netns = arena_str(a, str_from(pin));
    if (sb->addr) {
        mesh_addr_text(sb->addr, addr);
        ret->Addresses.v = arena_array(a, 1, sizeof(struct str));
        char *text = arena_printf(a, "%s/%u", addr, n->subnet.prefix);
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

static int plug(struct mesh_node *n, const struct mesh_sandbox *sb, const struct strmap *sysctls, bool make,
                struct err *e)
{
    char now[IF_NAMESIZE];
    char pin[512];
    pin_path(n, sb->task, pin);
    struct mesh_plug p = { .pin = pin,
                           .make = make,
                           .task = sb->task,
                           .addr = sb->addr,
                           .subnet = n->subnet,
                           .bridge = n->bridge,
                           .mtu = (unsigned)n->conf.mtu,
                           .sysctls = sysctls };
    int r = mesh_nl_plug(&n->nl, &p, e);
    if (r >= 0 || !make || !sb->addr || (if_indextoname(n->bridge, now) && strcmp(now, n->conf.bridge) == 0))
        return r;
    r = mesh_node_repair_links(n, NULL, NULL, e); /* someone took the bridge away */
    p.bridge = n->bridge;
    return r < 0 ? r : mesh_nl_plug(&n->nl, &p, e);
}

/* make_net - namespace and link. An address whose link is still going away is passed over: the kernel refuses it. */
static int make_net(struct mesh_node *n, struct mesh_sandbox *sb, const struct strmap *sysctls, struct err *e)
{
    char pin[512];
    int r = 0;
    if (sb->mode == MESH_HOST)
        return 0;
    pin_path(n, sb->task, pin);
    (void)mesh_ns_unpin(pin, NULL);
    if (sb->mode == MESH_NONE)
        return plug(n, sb, sysctls, true, e);
    for (int tries = 0; tries < 1024; tries++) {
        sb->addr = mesh_core_addr_next(&n->core);
        if (sb->addr == 0)
            return err_set(e, ERR_UNAVAILABLE, "no free address in the sandboxes' subnet");
        r = plug(n, sb, sysctls, true, e);
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

static bool addr_in_use(struct mesh_node *n, uint32_t addr)
{
    struct mesh_sandbox *sb;
    for (struct table_pos pos = { 0 }; table_next(&n->core.sandboxes, &pos, NULL, &sb);)
        if (sb->addr == addr)
            return true;
    return false;
}

void mesh_node_sweep(struct mesh_node *n)
{
    for (size_t i = 0; i < n->nleaving; i++) {
        char name[IFNAMSIZ];
        mesh_nl_veth_name(n->leaving[i], name);
        if (if_nametoindex(name) && !addr_in_use(n, n->leaving[i]))
            (void)mesh_nl_link_del(&n->nl, name, NULL);
    }
    free(n->leaving);
    n->leaving = NULL;
    n->nleaving = n->cleaving = 0;
}

static void unmake_net(struct mesh_node *n, const char *task, enum mesh_mode mode, uint32_t addr)
{
    char pin[512];
    pin_path(n, task, pin);
    if (mode != MESH_HOST)
        (void)mesh_ns_unpin(pin, NULL);
    step("namespace gone");
    if (addr)
        leave(n, addr);
}

static int make(struct mesh_node *n, struct mesh_sandbox *sb, const struct strmap *sysctls, struct err *e)
{
    int r = claim_ports(n, sb, e);
    if (r == 0)
        r = make_net(n, sb, sysctls, e);
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
        pin_path(n, sb->task, pin);
        if (sb->mode == MESH_HOST || mesh_ns_pinned(pin))
            return reply(n, req, sb, a, ret, e);
        r = mesh_node_down(n, req->TaskID, e); /* someone took its namespace away: a new one */
        if (r < 0)
            return r;
    }
    r = parse_up(req, &fresh, e);
    if (r < 0)
        return r;
    r = make(n, &fresh, &req->Sysctls, e);
    if (r < 0) {
        free(fresh.ports);
        sync_holds(n);
        return r;
    }
    sb = mesh_core_add(&n->core, &fresh);
    n->ups++;
    r = commit(n, e);
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
    return r < 0 ? r : commit(n, e);
}

int mesh_node_down(struct mesh_node *n, struct str task, struct err *e)
{
    struct mesh_sandbox *sb = mesh_core_get(&n->core, task);
    char id[MESH_ID_SIZE];
    if (!sb)
        return 0;
    memcpy(id, sb->task, sizeof id);
    uint32_t addr = sb->addr;
    enum mesh_mode mode = sb->mode;
    if (addr && sb->nports)
        mesh_ct_addr(&n->stale, addr);
    int r = mesh_file_remove(n->files, id, e);
    if (r < 0)
        return r;
    step("file gone");
    mesh_core_del(&n->core, sb);
    n->downs++;
    r = commit(n, e);
    unmake_net(n, id, mode, addr);
    return r;
}

/* ---- opening ---- */

struct opening {
    struct mesh_node *n;
    mesh_note_fn *note;
    void *arg;
    struct mesh_sandbox *v; /* from the files */
    size_t count, cap;
    struct mesh_subnet subnet; /* of their addresses; prefix 0: none */
    struct mesh_link *links;   /* of the form of a sandbox's */
    size_t nlinks, clinks;
    struct mesh_link bridge;
};

static void note(struct opening *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void note(struct opening *o, const char *fmt, ...)
{
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap); /* NOLINT(clang-analyzer-valist.Uninitialized): it was just started */
    va_end(ap);
    if (o->note)
        o->note(o->arg, text);
}

static void open_file(void *arg, const char *name, struct mesh_sandbox *sb, struct mesh_subnet subnet,
                      const struct err *e)
{
    struct opening *o = arg;
    if (!sb) {
        note(o, "sandbox file %s: %s; removed with its sandbox", name, e->msg);
        (void)mesh_file_remove(o->n->files, name, NULL);
        return;
    }
    if (o->count == o->cap) {
        o->cap = o->cap * 2 + 16;
        o->v = realloc(o->v, o->cap * sizeof *o->v);
        CHECK(o->v != NULL);
    }
    o->v[o->count++] = *sb;
    if (subnet.prefix)
        o->subnet = subnet;
}

static void open_link(const struct mesh_link *l, void *arg)
{
    struct opening *o = arg;
    if (strcmp(l->name, o->n->conf.bridge) == 0)
        o->bridge = *l;
    if (mesh_nl_veth_addr(l->name) == 0)
        return;
    if (o->nlinks == o->clinks) {
        o->clinks = o->clinks * 2 + 16;
        o->links = realloc(o->links, o->clinks * sizeof *o->links);
        CHECK(o->links != NULL);
    }
    o->links[o->nlinks++] = *l;
}

/* first_free - the first of the private subnets that no route of the host overlaps. */
static int first_free(struct mesh_node *n, struct mesh_subnet *ret, struct err *e)
{
    for (unsigned i = 18; i < 32 + 16; i++) {
        struct mesh_subnet s = { 172u << 24 | i << 16, 16 };
        bool clash;
        if (i >= 32)
            s = (struct mesh_subnet){ 192u << 24 | 168u << 16 | (i - 32) << 12, 20 };
        int r = mesh_nl_route_clash(&n->nl, s, 0, &clash, e);
        if (r < 0)
            return r;
        if (!clash) {
            *ret = s;
            return 0;
        }
    }
    return err_set(e, ERR_PRECONDITION, "no free subnet for the sandboxes' bridge: choose one with the setting subnet");
}

static int configured_subnet(struct mesh_node *n, struct mesh_subnet *ret, struct err *e)
{
    bool clash = false;
    int r = mesh_subnet_parse(n->conf.subnet, ret, e);
    if (r == 0)
        r = mesh_nl_route_clash(&n->nl, *ret, 0, &clash, e);
    if (r == 0 && clash)
        r = err_set(e, ERR_PRECONDITION, "subnet %s overlaps with a route of this host", n->conf.subnet);
    return r;
}

/* open_subnet - what running sandboxes use stays; else the setting; else what the bridge has; else a free one. */
static int open_subnet(struct opening *o, struct err *e)
{
    struct mesh_node *n = o->n;
    struct mesh_subnet had = { 0 }, want;
    bool automatic = strcmp(n->conf.subnet, "auto") == 0;
    if (!automatic && mesh_subnet_parse(n->conf.subnet, &want, e) < 0)
        return -e->code;
    if (o->bridge.index) {
        uint32_t addr;
        int r = mesh_nl_addr(&n->nl, o->bridge.index, &addr, &had.prefix, e);
        if (r < 0)
            return r;
        had.base = had.prefix ? addr & (uint32_t)(0xffffffffull << (32 - had.prefix)) : 0;
        if (had.prefix < 16 || had.prefix > 29 || addr != mesh_subnet_gateway(had))
            had.prefix = 0;
    }
    if (o->subnet.prefix) {
        n->subnet = o->subnet;
        if (!automatic && want.base != n->subnet.base)
            note(o, "setting subnet = %s waits until no sandbox uses the old one", n->conf.subnet);
        return 0;
    }
    if (had.prefix && (automatic || (want.base == had.base && want.prefix == had.prefix))) {
        n->subnet = had;
        return 0;
    }
    if (o->bridge.index && o->bridge.bridge) {
        int r = mesh_nl_link_del(&n->nl, n->conf.bridge, e);
        if (r < 0)
            return r;
    }
    return automatic ? first_free(n, &n->subnet, e) : configured_subnet(n, &n->subnet, e);
}

static int open_host(struct mesh_node *n, struct err *e)
{
    char path[MESH_TEXT_MAX + 64];
    int r = mesh_nl_bridge(&n->nl, n->conf.bridge, n->subnet, (unsigned)n->conf.mtu, &n->bridge, e);
    if (r == 0)
        r = mesh_ns_sysctl("net/ipv4/ip_forward", "1", e);
    /* localhost:PORT goes to the bridge with a 127/8 source until it is masqueraded; the table guards the way back. */
    snprintf(path, sizeof path, "net/ipv4/conf/%s/route_localnet", n->conf.bridge);
    return r < 0 ? r : mesh_ns_sysctl(path, "1", e);
}

/* adopt_link - is the link the one of this sandbox? Then it is put right if need be. */
static bool adopt_link(struct opening *o, const struct mesh_link *l, const struct mesh_sandbox *sb)
{
    struct err e = ERR_INIT;
    if (!sb || sb->addr != mesh_nl_veth_addr(l->name))
        return false;
    if ((l->master != o->n->bridge || !l->up) &&
        mesh_nl_link_enslave(&o->n->nl, l->name, sb->task, o->n->bridge, &e) < 0)
        note(o, "link %s of task %s: %s", l->name, sb->task, e.msg);
    return true;
}

static void open_links(struct opening *o)
{
    struct mesh_node *n = o->n;
    for (size_t i = 0; i < o->nlinks; i++) {
        struct mesh_link *l = &o->links[i];
        if (l->master && l->master != n->bridge)
            l->name[0] = '\0'; /* another bridge's: another swarm's on this host */
        else if (!adopt_link(o, l, mesh_core_get(&n->core, str_from(l->alias)))) {
            note(o, "link %s belongs to no sandbox: removed", l->name);
            (void)mesh_nl_link_del(&n->nl, l->name, NULL);
            mesh_ct_addr(&n->stale, mesh_nl_veth_addr(l->name));
            l->name[0] = '\0';
            n->dropped++;
        }
    }
}

static bool has_link(const struct opening *o, uint32_t addr)
{
    for (size_t i = 0; i < o->nlinks; i++)
        if (mesh_nl_veth_addr(o->links[i].name) == addr)
            return true;
    return false;
}

/* open_repair - a sandbox that lives on, but has lost its link. */
static void open_repair(struct opening *o)
{
    struct mesh_sandbox *sb;
    for (struct table_pos pos = { 0 }; table_next(&o->n->core.sandboxes, &pos, NULL, &sb);) {
        struct err e = ERR_INIT;
        if (!sb->addr || has_link(o, sb->addr))
            continue;
        int r = plug(o->n, sb, NULL, false, &e);
        note(o, "task %s had lost its link: %s", sb->task, r < 0 ? e.msg : "made anew");
    }
}

static void open_pins(struct opening *o)
{
    DIR *d = opendir(o->n->pins);
    struct dirent *de;
    char pin[512];
    while (d && (de = readdir(d)))
        if (de->d_name[0] != '.' && strlen(de->d_name) < MESH_ID_SIZE &&
            !mesh_core_get(&o->n->core, str_from(de->d_name))) {
            pin_path(o->n, de->d_name, pin);
            (void)mesh_ns_unpin(pin, NULL);
            note(o, "network namespace %s belongs to no sandbox: removed", de->d_name);
            o->n->dropped++;
        }
    if (d)
        closedir(d);
}

/* open_sandboxes - those from the files whose namespace is still there (it is not after a restart of the host). */
static void open_sandboxes(struct opening *o)
{
    for (size_t i = 0; i < o->count; i++) {
        struct mesh_sandbox *sb = &o->v[i];
        char pin[512];
        pin_path(o->n, sb->task, pin);
        if (!mesh_core_get(&o->n->core, str_from(sb->task)) && (sb->mode == MESH_HOST || mesh_ns_pinned(pin))) {
            mesh_core_add(&o->n->core, sb);
            continue;
        }
        note(o, "task %s: its network namespace is gone", sb->task);
        (void)mesh_file_remove(o->n->files, sb->task, NULL);
        free(sb->ports);
        o->n->dropped++;
    }
}

int mesh_node_repair_links(struct mesh_node *n, mesh_note_fn *fn, void *arg, struct err *e)
{
    struct opening o = { .n = n, .note = fn, .arg = arg };
    int r = open_host(n, e);
    if (r == 0)
        r = mesh_nl_links(&n->nl, open_link, &o, e);
    if (r == 0) {
        open_links(&o);
        open_repair(&o);
    }
    free(o.links);
    return r;
}

static int open_kernel(struct opening *o, struct err *e)
{
    struct mesh_node *n = o->n;
    bool rebuilt = false;
    int r = mesh_nl_open(&n->nl, e);
    if (r == 0)
        r = mesh_nl_links(&n->nl, open_link, o, e);
    if (r == 0)
        r = open_subnet(o, e);
    if (r == 0)
        r = open_host(n, e);
    if (r == 0)
        r = mesh_nft_open(&n->nft, n->conf.bridge, n->subnet, e);
    if (r < 0)
        return r;
    mesh_core_set_subnet(&n->core, n->subnet);
    open_sandboxes(o);
    open_links(o);
    open_repair(o);
    open_pins(o);
    r = mesh_node_sync_rules(n, &rebuilt, e);
    if (r == 0)
        sync_holds(n);
    return r < 0 ? r : mesh_node_forget(n, e);
}

static int open_dirs(struct mesh_node *n, const char *run_dir, struct err *e)
{
    if (snprintf(n->files, sizeof n->files, "%s/mesh", run_dir) >= (int)sizeof n->files ||
        snprintf(n->pins, sizeof n->pins, "%s/netns", run_dir) >= (int)sizeof n->pins)
        return err_set(e, ERR_INVALID, "run folder: name too long");
    int r = dir_own(n->files, 0700, e);
    return r < 0 ? r : mesh_ns_dir(n->pins, e);
}

int mesh_node_open(struct mesh_node *n, const struct mesh_conf *conf, const char *run_dir, mesh_note_fn *fn, void *arg,
                   struct err *e)
{
    struct opening o = { .n = n, .note = fn, .arg = arg };
    *n = (struct mesh_node){ .conf = *conf, .nl = { .host_ns = -1 } };
    mesh_core_init(&n->core);
    table_init(&n->holds, sizeof(struct mesh_hold));
    int r = strlen(conf->bridge) < IFNAMSIZ && conf->bridge[0] && !strpbrk(conf->bridge, "/. ")
                ? open_dirs(n, run_dir, e)
                : err_set(e, ERR_INVALID, "setting bridge: must be a link's name of at most 15 characters");
    if (r == 0)
        r = mesh_file_each(n->files, open_file, &o, e);
    if (r == 0)
        r = open_kernel(&o, e);
    free(o.v);
    free(o.links);
    return r;
}

void mesh_node_close(struct mesh_node *n)
{
    struct mesh_hold *h;
    for (struct table_pos pos = { 0 }; table_next(&n->holds, &pos, NULL, &h);)
        closep(&h->fd);
    table_done(&n->holds);
    free(n->leaving);
    mesh_ct_done(&n->stale);
    mesh_nft_close(&n->nft);
    mesh_nl_close(&n->nl);
    mesh_core_done(&n->core);
}

int mesh_node_watch_fd(const struct mesh_node *n)
{
    return mnl_socket_get_fd(n->nft.watch.sock);
}

bool mesh_node_watch(struct mesh_node *n)
{
    return mesh_nft_watch_read(&n->nft);
}
