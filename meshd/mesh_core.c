#include "meshd/mesh_core.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/util/check.h"
#include "common/util/cleanup.h"

/* ---- names ---- */

static const char *const mode_names[] = { "bridge", "none", "host" };
static const char *const state_names[] = { "starting", "ready", "draining" };

const char *mesh_mode_name(enum mesh_mode m)
{
    return mode_names[m];
}

const char *mesh_state_name(enum mesh_state s)
{
    return state_names[s];
}

bool mesh_mode_parse(struct str s, enum mesh_mode *ret)
{
    if (s.n == 0) {
        *ret = MESH_BRIDGE;
        return true;
    }
    for (unsigned i = 0; i < 3; i++)
        if (str_is(s, mode_names[i])) {
            *ret = (enum mesh_mode)i;
            return true;
        }
    return false;
}

bool mesh_state_parse(struct str s, enum mesh_state *ret)
{
    for (unsigned i = 0; i < 3; i++)
        if (str_is(s, state_names[i])) {
            *ret = (enum mesh_state)i;
            return true;
        }
    return false;
}

const char *mesh_proto_name(uint8_t proto)
{
    return proto == IPPROTO_TCP ? "tcp" : proto == IPPROTO_UDP ? "udp" : proto == IPPROTO_SCTP ? "sctp" : "?";
}

bool mesh_proto_parse(struct str s, uint8_t *ret)
{
    if (str_is(s, "tcp"))
        *ret = IPPROTO_TCP;
    else if (str_is(s, "udp"))
        *ret = IPPROTO_UDP;
    else if (str_is(s, "sctp"))
        *ret = IPPROTO_SCTP;
    else
        return false;
    return true;
}

bool mesh_sysctl_path(struct str name, char *path, size_t cap)
{
    if (name.n >= cap || !str_starts(name, STR("net.")))
        return false;
    for (size_t i = 0; i < name.n; i++) {
        char ch = name.p[i];
        /* An empty component or ".." would lead out of net; as in sysctl(8), a slash stands for a dot in a name. */
        if ((!id_char(ch) && ch != '/') || (ch == '.' && (i + 1 == name.n || name.p[i + 1] == '.')))
            return false;
        if (ch == '/' && (name.p[i - 1] == '.' || name.p[i - 1] == '/' || i + 1 == name.n || name.p[i + 1] == '.'))
            return false;
        path[i] = ch == '.' ? '/' : ch == '/' ? '.' : ch;
    }
    path[name.n] = '\0';
    return true;
}

void mesh_addr_text(uint32_t a, char text[MESH_ADDR_TEXT])
{
    snprintf(text, MESH_ADDR_TEXT, "%u.%u.%u.%u", a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255);
}

int mesh_subnet_parse(const char *text, struct mesh_subnet *ret, struct err *e)
{
    struct str s = str_from(text);
    const char *slash = strchr(text, '/');
    char addr[MESH_ADDR_TEXT];
    struct in_addr in;
    uint64_t prefix;
    if (!slash || !str_copy(addr, sizeof addr, (struct str){ text, (size_t)(slash - text) }) ||
        inet_pton(AF_INET, addr, &in) != 1 || in.s_addr == 0 ||
        !str_u64((struct str){ slash + 1, s.n - (size_t)(slash + 1 - text) }, &prefix))
        return err_set(e, ERR_INVALID, "subnet %s: must be of the form 172.18.0.0/16", text);
    if (prefix < 16 || prefix > 29)
        return err_set(e, ERR_INVALID, "subnet %s: the prefix must be between 16 and 29", text);
    struct mesh_subnet sub = { .base = ntohl(in.s_addr), .prefix = (uint8_t)prefix };
    if (sub.base & (uint32_t)(0xffffffffull >> prefix))
        return err_set(e, ERR_INVALID, "subnet %s: has host bits set", text);
    *ret = sub;
    return 0;
}

bool mesh_subnet_overlaps(struct mesh_subnet a, struct mesh_subnet b)
{
    return a.base <= mesh_subnet_last(b) && b.base <= mesh_subnet_last(a);
}

/* ---- life ---- */

#define PORT_KEY_SIZE 16
static struct str port_key(uint8_t proto, uint16_t port, char key[PORT_KEY_SIZE])
{
    int n = snprintf(key, PORT_KEY_SIZE, "%s/%u", mesh_proto_name(proto), port);
    return (struct str){ key, (size_t)n };
}

void mesh_core_init(struct mesh_core *c)
{
    *c = (struct mesh_core){ .seq = 1, .local_weight = 1 };
    table_init(&c->sandboxes, sizeof(struct mesh_sandbox));
    table_init(&c->ports, sizeof(struct mesh_entry));
    table_init(&c->services, sizeof(struct mesh_service));
}

void mesh_core_done(struct mesh_core *c)
{
    struct mesh_sandbox *sb;
    struct mesh_entry *p;
    struct mesh_service *s;
    for (struct table_pos pos = { 0 }; table_next(&c->sandboxes, &pos, NULL, &sb);)
        free(sb->ports);
    for (struct table_pos pos = { 0 }; table_next(&c->ports, &pos, NULL, &p);)
        free(p->slots);
    for (struct table_pos pos = { 0 }; table_next(&c->services, &pos, NULL, &s);) {
        free(s->ports);
        free(s->backends);
    }
    table_done(&c->sandboxes);
    table_done(&c->ports);
    table_done(&c->services);
    free(c->addr_used);
    *c = (struct mesh_core){ 0 };
}

/* ---- addresses ---- */

static bool addr_inside(const struct mesh_core *c, uint32_t addr)
{
    return addr > mesh_subnet_gateway(c->subnet) && addr < mesh_subnet_last(c->subnet);
}

static void addr_mark(struct mesh_core *c, uint32_t addr, bool used)
{
    if (!addr_inside(c, addr))
        return; /* of a subnet that was changed while the sandbox lives on: cannot clash */
    uint32_t i = addr - c->subnet.base;
    if (used)
        c->addr_used[i / 64] |= 1ull << (i % 64);
    else
        c->addr_used[i / 64] &= ~(1ull << (i % 64));
}

void mesh_core_set_subnet(struct mesh_core *c, struct mesh_subnet s)
{
    CHECK(c->sandboxes.count == 0 && s.prefix >= 16);
    free(c->addr_used);
    c->subnet = s;
    c->addr_last = mesh_subnet_gateway(s);
    c->addr_used = calloc((mesh_subnet_last(s) - s.base) / 64 + 1, sizeof *c->addr_used);
    CHECK(c->addr_used != NULL);
}

uint32_t mesh_core_addr_next(struct mesh_core *c)
{
    uint32_t first = mesh_subnet_gateway(c->subnet) + 1, last = mesh_subnet_last(c->subnet) - 1;
    for (uint32_t tries = last - first + 1, a = c->addr_last; tries > 0; tries--) {
        a = a >= last || a < first ? first : a + 1;
        uint32_t i = a - c->subnet.base;
        if (!(c->addr_used[i / 64] >> (i % 64) & 1))
            return c->addr_last = a;
    }
    return 0;
}

/* ---- ports ---- */

struct mesh_entry *mesh_core_port(struct mesh_core *c, uint8_t proto, uint16_t port)
{
    char key[PORT_KEY_SIZE];
    return table_get(&c->ports, port_key(proto, port, key));
}

static struct mesh_entry *port_make(struct mesh_core *c, uint8_t proto, uint16_t port)
{
    char key[PORT_KEY_SIZE];
    bool fresh;
    struct mesh_entry *p = table_put(&c->ports, port_key(proto, port, key), &fresh);
    p->proto = proto;
    p->port = port;
    return p;
}

uint16_t mesh_core_port_next(struct mesh_core *c, uint8_t proto, uint16_t after, uint16_t lo, uint16_t hi)
{
    unsigned port = after;
    for (unsigned tries = (unsigned)(hi - lo) + 1; tries > 0; tries--) {
        port = port < lo || port >= hi ? lo : port + 1;
        struct mesh_entry *p = mesh_core_port(c, proto, (uint16_t)port);
        if (!p || p->members + p->services == 0)
            return (uint16_t)port;
    }
    return 0;
}

static const char *owner_of(const struct mesh_sandbox *sb, bool host_mode)
{
    return host_mode || !sb->service[0] ? sb->task : sb->service;
}

/* publishes - what of the sandbox is published on p under p's owner; NULL if nothing. */
static const struct mesh_publish *publishes(const struct mesh_sandbox *sb, const struct mesh_entry *p)
{
    for (size_t i = 0; i < sb->nports; i++) {
        const struct mesh_publish *pub = &sb->ports[i];
        if (pub->published == p->port && pub->proto == p->proto && pub->host_mode == p->host_mode &&
            strcmp(owner_of(sb, pub->host_mode), p->owner) == 0)
            return pub;
    }
    return NULL;
}

/* owner_live - a sandbox of the port's owner that is not on its way out; NULL if there is none. */
static const struct mesh_sandbox *owner_live(struct mesh_core *c, const struct mesh_entry *p)
{
    struct mesh_sandbox *sb;
    for (struct table_pos pos = { 0 }; table_next(&c->sandboxes, &pos, NULL, &sb);)
        if (sb->state != MESH_DRAINING && publishes(sb, p))
            return sb;
    return NULL;
}

static const struct mesh_publish *service_port(const struct mesh_service *s, uint8_t proto, uint16_t port)
{
    for (size_t i = 0; s && i < s->nports; i++)
        if (s->ports[i].published == port && s->ports[i].proto == proto)
            return &s->ports[i];
    return NULL;
}

static void port_own(struct mesh_entry *p, const struct mesh_sandbox *sb, const struct mesh_publish *pub)
{
    p->dirty = true;
    if (p->services)
        return;
    p->host_mode = pub->host_mode;
    snprintf(p->owner, sizeof p->owner, "%s", owner_of(sb, pub->host_mode));
}

/* port_reown - the owner's last sandbox is gone: the port goes back to whoever else publishes it. */
static void port_reown(struct mesh_core *c, struct mesh_entry *p)
{
    struct mesh_sandbox *sb, *best = NULL;
    const struct mesh_publish *best_pub = NULL;
    if (p->services)
        return;
    for (struct table_pos pos = { 0 }; table_next(&c->sandboxes, &pos, NULL, &sb);) {
        if (publishes(sb, p))
            return;
        for (size_t i = 0; i < sb->nports; i++)
            if (sb->ports[i].published == p->port && sb->ports[i].proto == p->proto &&
                (!best || sb->ready_seq > best->ready_seq)) {
                best = sb;
                best_pub = &sb->ports[i];
            }
    }
    if (best)
        port_own(p, best, best_pub);
}

static int check_request(const struct mesh_sandbox *sb, struct err *e)
{
    for (size_t i = 0; i < sb->nports; i++)
        for (size_t j = 0; j < i; j++)
            if (sb->ports[i].published && sb->ports[i].published == sb->ports[j].published &&
                sb->ports[i].proto == sb->ports[j].proto)
                return err_set(e, ERR_INVALID, "Ports[%zu]: %s port %u is published twice", i,
                               mesh_proto_name(sb->ports[i].proto), sb->ports[i].published);
    return 0;
}

int mesh_core_check(struct mesh_core *c, const struct mesh_sandbox *sb, struct err *e)
{
    int r = check_request(sb, e);
    for (size_t i = 0; r == 0 && i < sb->nports; i++) {
        const struct mesh_publish *pub = &sb->ports[i];
        const struct mesh_entry *p = pub->published ? mesh_core_port(c, pub->proto, pub->published) : NULL;
        if (!p || p->members + p->services == 0 || (!pub->host_mode && !p->host_mode))
            continue;
        if (p->services)
            return err_set(e, ERR_CONFLICT, "ingress port %u/%s is already in use in the swarm by service %s", p->port,
                           mesh_proto_name(p->proto), p->owner);
        const struct mesh_sandbox *other = owner_live(c, p);
        if (other)
            return err_set(e, ERR_CONFLICT, "%s port %u/%s is already in use on this node by task %s",
                           p->host_mode ? "host-mode" : "ingress", p->port, mesh_proto_name(p->proto), other->task);
    }
    return r;
}

/* ---- sandboxes ---- */

struct mesh_sandbox *mesh_core_get(struct mesh_core *c, struct str task)
{
    return table_get(&c->sandboxes, task);
}

static void mark_ports(struct mesh_core *c, const struct mesh_sandbox *sb)
{
    for (size_t i = 0; i < sb->nports; i++)
        mesh_core_port(c, sb->ports[i].proto, sb->ports[i].published)->dirty = true;
}

struct mesh_sandbox *mesh_core_add(struct mesh_core *c, struct mesh_sandbox *in)
{
    bool fresh;
    struct mesh_sandbox *sb = table_put(&c->sandboxes, str_from(in->task), &fresh);
    CHECK(fresh);
    *sb = *in;
    *in = (struct mesh_sandbox){ 0 };
    sb->ready_seq = c->seq++;
    addr_mark(c, sb->addr, true);
    for (size_t i = 0; i < sb->nports; i++) {
        const struct mesh_publish *pub = &sb->ports[i];
        CHECK(pub->published != 0);
        struct mesh_entry *p = port_make(c, pub->proto, pub->published);
        /* Reading back after a restart comes in any order: a draining task must not take its port back then. */
        if (p->members++ == 0 || sb->state != MESH_DRAINING)
            port_own(p, sb, pub);
        p->dirty = true;
    }
    return sb;
}

void mesh_core_del(struct mesh_core *c, struct mesh_sandbox *sb)
{
    struct mesh_publish *ports = sb->ports;
    size_t nports = sb->nports;
    mark_ports(c, sb);
    addr_mark(c, sb->addr, false);
    table_del(&c->sandboxes, table_key(&c->sandboxes, sb));
    for (size_t i = 0; i < nports; i++) {
        struct mesh_entry *p = mesh_core_port(c, ports[i].proto, ports[i].published);
        CHECK(p && p->members > 0);
        if (--p->members > 0)
            port_reown(c, p);
    }
    free(ports);
}

int mesh_core_set_ready(struct mesh_core *c, struct mesh_sandbox *sb, bool ready, struct err *e)
{
    enum mesh_state want = ready ? MESH_READY : MESH_DRAINING;
    if (sb->state == want)
        return 0;
    for (size_t i = 0; ready && i < sb->nports; i++) {
        const struct mesh_entry *p = mesh_core_port(c, sb->ports[i].proto, sb->ports[i].published);
        if (sb->ports[i].host_mode && strcmp(p->owner, sb->task) != 0)
            return err_set(e, ERR_CONFLICT, "host-mode port %u/%s now belongs to %s", p->port,
                           mesh_proto_name(p->proto), p->owner);
    }
    sb->state = want;
    sb->ready_seq = c->seq++;
    mark_ports(c, sb);
    return 0;
}

/* ---- services ---- */

/* service_claims - another service that publishes the port; it is rare that there is one. */
static void service_claims(struct mesh_core *c, struct mesh_entry *p)
{
    struct mesh_service *s;
    struct str id;
    for (struct table_pos pos = { 0 }; table_next(&c->services, &pos, &id, &s);)
        if (service_port(s, p->proto, p->port))
            str_copy(p->owner, sizeof p->owner, id);
}

static void service_ports(struct mesh_core *c, struct str id, const struct mesh_publish *ports, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct mesh_entry *p = port_make(c, ports[i].proto, ports[i].published);
        p->services++;
        p->host_mode = false;
        p->dirty = true;
        str_copy(p->owner, sizeof p->owner, id);
    }
}

static void service_unports(struct mesh_core *c, const struct mesh_publish *ports, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct mesh_entry *p = mesh_core_port(c, ports[i].proto, ports[i].published);
        CHECK(p && p->services > 0);
        p->dirty = true;
        if (--p->services > 0)
            service_claims(c, p);
        else if (p->members > 0)
            port_reown(c, p);
    }
}

static bool same_ports(const struct mesh_service *s, const struct mesh_publish *ports, size_t n)
{
    if (s->nports != n)
        return false;
    for (size_t i = 0; i < n; i++)
        if (s->ports[i].proto != ports[i].proto || s->ports[i].published != ports[i].published)
            return false;
    return true;
}

void mesh_core_service(struct mesh_core *c, struct str id, struct mesh_publish *ports, size_t nports,
                       struct mesh_backend *backends, size_t nbackends)
{
    struct mesh_service *s = table_get(&c->services, id);
    struct mesh_publish *old = s ? s->ports : NULL;
    size_t nold = s ? s->nports : 0;
    if (!s && nports)
        s = table_put(&c->services, id, NULL);
    if (s) {
        bool same = same_ports(s, ports, nports);
        free(s->backends);
        *s = (struct mesh_service){ nports, nbackends, ports, backends };
        if (nports == 0)
            table_del(&c->services, id);
        if (same) {
            for (size_t i = 0; i < nports; i++)
                mesh_core_port(c, ports[i].proto, ports[i].published)->dirty = true;
        } else {
            service_ports(c, id, ports, nports); /* before the old ones go, so that what stays is not handed around */
            service_unports(c, old, nold);
        }
        free(old);
    }
    if (nports == 0) {
        free(ports);
        free(backends);
    }
    struct mesh_sandbox *sb; /* tasks of before, on ports that it does not publish any more: it may withdraw them, too */
    for (struct table_pos pos = { 0 }; table_next(&c->sandboxes, &pos, NULL, &sb);)
        if (str_is(id, sb->service))
            mark_ports(c, sb);
}

/* ---- plans ---- */

static void edit(struct mesh_edits *es, struct mesh_edit ed)
{
    if (es->n == es->cap) {
        es->cap = es->cap ? es->cap * 2 : 16;
        es->v = realloc(es->v, es->cap * sizeof *es->v);
        CHECK(es->v != NULL);
    }
    es->v[es->n++] = ed;
}

void mesh_plan_done(struct mesh_plan *p)
{
    free(p->now.v);
    free(p->later.v);
    *p = (struct mesh_plan){ 0 };
}

static bool slot_eq(struct mesh_slot a, struct mesh_slot b)
{
    return a.addr == b.addr && a.port == b.port;
}

/* Slots in the kernel keep their order, new ones come behind in the order in which they were listed. */
struct wanted {
    struct mesh_slot to;
    uint32_t rank;
};
struct wanteds {
    struct wanted *v;
    uint32_t n, cap;
};

static int slot_cmp(struct mesh_slot a, struct mesh_slot b)
{
    if (a.addr != b.addr)
        return a.addr < b.addr ? -1 : 1;
    return (a.port > b.port) - (a.port < b.port);
}

static int wanted_by_slot(const void *a, const void *b)
{
    const struct wanted *x = a, *y = b;
    int d = slot_cmp(x->to, y->to);
    return d ? d : (x->rank > y->rank) - (x->rank < y->rank);
}

static int wanted_by_rank(const void *a, const void *b)
{
    const struct wanted *x = a, *y = b;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

static void want(struct wanteds *w, struct mesh_slot s)
{
    if (w->n == MESH_SLOTS_MAX)
        return;
    if (w->n == w->cap) {
        w->cap = w->cap * 2 + 16;
        w->v = realloc(w->v, w->cap * sizeof *w->v);
        CHECK(w->v != NULL);
    }
    w->v[w->n] = (struct wanted){ s, MESH_SLOTS_MAX + w->n };
    w->n++;
}

static int sandbox_by_seq(const void *a, const void *b)
{
    const struct mesh_sandbox *const *x = a, *const *y = b;
    return ((*x)->ready_seq > (*y)->ready_seq) - ((*x)->ready_seq < (*y)->ready_seq);
}

/* withdrawn - the managers say that it gets nothing new, whatever its sandbox says. One they have not heard of yet, or
 * only as starting, is ready when this node says so. */
static bool withdrawn(const struct mesh_service *s, const char *task)
{
    for (size_t i = 0; s && i < s->nbackends; i++)
        if (strcmp(s->backends[i].task, task) == 0)
            return !s->backends[i].usable;
    return false;
}

/* want_local - the ready sandboxes of this node, in the order in which they became so. */
static void want_local(struct mesh_core *c, const struct mesh_entry *p, const struct mesh_service *s, unsigned weight,
                       struct wanteds *w)
{
    _cleanup_(freep) struct mesh_sandbox **v = calloc(c->sandboxes.count + 1, sizeof(struct mesh_sandbox *));
    struct mesh_sandbox *sb;
    size_t n = 0;
    CHECK(v != NULL);
    for (struct table_pos pos = { 0 }; table_next(&c->sandboxes, &pos, NULL, &sb);)
        if (sb->state == MESH_READY && sb->addr && publishes(sb, p) && !withdrawn(p->host_mode ? NULL : s, sb->task))
            v[n++] = sb;
    qsort(v, n, sizeof(struct mesh_sandbox *), sandbox_by_seq);
    for (size_t i = 0; i < n; i++)
        for (unsigned k = 0; k < weight; k++)
            want(w, (struct mesh_slot){ v[i]->addr, publishes(v[i], p)->target });
}

static void want_remote(const struct mesh_entry *p, const struct mesh_service *s, struct wanteds *w)
{
    const struct mesh_publish *pub = service_port(s, p->proto, p->port);
    for (size_t i = 0; pub && i < s->nbackends; i++)
        if (!s->backends[i].here && s->backends[i].usable && s->backends[i].addr)
            want(w, (struct mesh_slot){ s->backends[i].addr, pub->target });
}

/* rank_kept - gives what is in the kernel already the rank that it has there; the same slot may be there several times.
 */
static void rank_kept(const struct mesh_entry *p, struct wanteds *w)
{
    _cleanup_(freep) struct wanted *have = calloc(p->nslots + 1, sizeof *have);
    CHECK(have != NULL);
    for (uint32_t i = 0; i < p->nslots; i++)
        have[i] = (struct wanted){ p->slots[i], i };
    qsort(have, p->nslots, sizeof *have, wanted_by_slot);
    qsort(w->v, w->n, sizeof *w->v, wanted_by_slot);
    for (uint32_t i = 0, j = 0; i < w->n && j < p->nslots;) {
        int d = slot_cmp(w->v[i].to, have[j].to);
        if (d == 0)
            w->v[i].rank = have[j].rank;
        i += d <= 0;
        j += d >= 0;
    }
    qsort(w->v, w->n, sizeof *w->v, wanted_by_rank);
}

/* port_want - the slots p should have, in order. Given, malloc'd; *ret_n of them. */
static struct mesh_slot *port_want(struct mesh_core *c, const struct mesh_entry *p, uint32_t *ret_n)
{
    const struct mesh_service *s = p->host_mode ? NULL : table_get(&c->services, str_from(p->owner));
    struct wanteds w = { 0 }, remote = { 0 };
    want_remote(p, s, &remote);
    want_local(c, p, s, remote.n ? c->local_weight : 1, &w);
    for (uint32_t i = 0; i < remote.n; i++)
        want(&w, remote.v[i].to);
    if (w.n)
        rank_kept(p, &w);
    struct mesh_slot *v = calloc(w.n + 1, sizeof *v);
    CHECK(v != NULL);
    for (uint32_t i = 0; i < w.n; i++)
        v[i] = w.v[i].to;
    *ret_n = w.n;
    free(w.v);
    free(remote.v);
    return v;
}

/* has_port - a sandbox without an address of its own (host network) needs no entry. */
static bool has_port(struct mesh_core *c, const struct mesh_entry *p)
{
    struct mesh_sandbox *sb;
    if (p->services)
        return true;
    if (p->members == 0)
        return false;
    for (struct table_pos pos = { 0 }; table_next(&c->sandboxes, &pos, NULL, &sb);)
        if (sb->addr && publishes(sb, p))
            return true;
    return false;
}

static void plan_slots(const struct mesh_entry *p, enum mesh_edit_type type, uint8_t half, const struct mesh_slot *v,
                       uint32_t from, uint32_t to, struct mesh_edits *out)
{
    for (uint32_t i = from; i < to; i++)
        edit(out,
             (struct mesh_edit){
                 .type = type, .proto = p->proto, .port = p->port, .slot = (half ? MESH_HALF : 0) + i, .to = v[i] });
}

static void plan_gone(struct mesh_entry *p, struct mesh_plan *out)
{
    if (p->in_kernel)
        edit(&out->now, (struct mesh_edit){ .type = MESH_PORT_DEL, .proto = p->proto, .port = p->port });
    plan_slots(p, MESH_SLOT_DEL, p->half, p->slots, 0, p->nslots, &out->later);
    free(p->slots);
    p->slots = NULL;
    p->nslots = 0;
    p->in_kernel = false;
}

static void plan_port(struct mesh_core *c, struct mesh_entry *p, struct mesh_plan *out)
{
    p->dirty = false;
    if (!has_port(c, p)) {
        plan_gone(p, out);
        return;
    }
    uint32_t n, same = 0;
    struct mesh_slot *wanted = port_want(c, p, &n);
    while (same < n && same < p->nslots && slot_eq(wanted[same], p->slots[same]))
        same++;
    if (p->in_kernel && same == n && same == p->nslots) {
        free(wanted);
        return;
    }
    uint8_t half = p->half;
    if (same < n && same < p->nslots) { /* neither grown nor shrunk at the end: all anew, in the other half */
        half ^= 1;
        plan_slots(p, MESH_SLOT_DEL, p->half, p->slots, 0, p->nslots, &out->later);
        same = 0;
    } else {
        plan_slots(p, MESH_SLOT_DEL, half, p->slots, same, p->nslots, &out->later);
    }
    plan_slots(p, MESH_SLOT_ADD, half, wanted, same, n, &out->now);
    edit(&out->now, (struct mesh_edit){ .type = MESH_PORT_SET,
                                        .proto = p->proto,
                                        .port = p->port,
                                        .nslots = n,
                                        .half = half,
                                        .replaces = p->in_kernel });
    free(p->slots);
    p->slots = wanted;
    p->nslots = n;
    p->half = half;
    p->in_kernel = true;
}

void mesh_core_plan(struct mesh_core *c, struct mesh_plan *out)
{
    struct mesh_entry *p;
    struct str key;
    for (struct table_pos pos = { 0 }; table_next(&c->ports, &pos, &key, &p);) {
        if (p->dirty)
            plan_port(c, p, out);
        if (p->members + p->services == 0 && !p->in_kernel)
            table_del(&c->ports, key);
    }
}

static void forget_kernel(struct mesh_core *c)
{
    struct mesh_entry *p;
    for (struct table_pos pos = { 0 }; table_next(&c->ports, &pos, NULL, &p);) {
        free(p->slots);
        p->slots = NULL;
        p->nslots = 0;
        p->half = 0;
        p->in_kernel = false;
        p->dirty = true;
    }
}

void mesh_core_plan_all(struct mesh_core *c, struct mesh_plan *out)
{
    forget_kernel(c);
    mesh_core_plan(c, out);
}

/* ---- reading the kernel back ---- */

void mesh_dump_port(struct mesh_dump *d, struct mesh_dump_port p)
{
    if (d->nports == d->cports) {
        d->cports = d->cports ? d->cports * 2 : 16;
        d->ports = realloc(d->ports, d->cports * sizeof *d->ports);
        CHECK(d->ports != NULL);
    }
    d->ports[d->nports++] = p;
}

void mesh_dump_slot(struct mesh_dump *d, struct mesh_dump_slot s)
{
    if (d->nslots == d->cslots) {
        d->cslots = d->cslots ? d->cslots * 2 : 16;
        d->slots = realloc(d->slots, d->cslots * sizeof *d->slots);
        CHECK(d->slots != NULL);
    }
    d->slots[d->nslots++] = s;
}

void mesh_dump_done(struct mesh_dump *d)
{
    free(d->ports);
    free(d->slots);
    *d = (struct mesh_dump){ 0 };
}

static bool load_port(struct mesh_core *c, const struct mesh_dump_port *dp)
{
    if (dp->nslots > MESH_SLOTS_MAX || dp->half > 1)
        return false;
    struct mesh_entry *p = port_make(c, dp->proto, dp->port);
    if (p->in_kernel)
        return false;
    p->in_kernel = true;
    p->half = dp->half;
    p->nslots = dp->nslots;
    p->slots = calloc(dp->nslots + 1, sizeof *p->slots);
    CHECK(p->slots != NULL);
    return true;
}

bool mesh_core_load(struct mesh_core *c, const struct mesh_dump *d, struct mesh_plan *strays)
{
    struct mesh_entry *p;
    forget_kernel(c);
    for (size_t i = 0; i < d->nports; i++)
        if (!load_port(c, &d->ports[i]))
            return false;
    for (size_t i = 0; i < d->nslots; i++) {
        const struct mesh_dump_slot *s = &d->slots[i];
        uint32_t first;
        p = mesh_core_port(c, s->proto, s->port);
        first = p && p->half ? MESH_HALF : 0;
        if (p && s->slot >= first && s->slot - first < p->nslots)
            p->slots[s->slot - first] = s->to;
        else
            edit(&strays->later,
                 (struct mesh_edit){
                     .type = MESH_SLOT_DEL, .proto = s->proto, .port = s->port, .slot = s->slot, .to = s->to });
    }
    for (struct table_pos pos = { 0 }; table_next(&c->ports, &pos, NULL, &p);) {
        p->dirty = true;
        for (uint32_t i = 0; i < p->nslots; i++)
            if (p->slots[i].addr == 0)
                return false;
    }
    return true;
}

/* ---- invariants ---- */

void mesh_core_verify(struct mesh_core *c)
{
    struct mesh_sandbox *sb, *other;
    struct mesh_entry *p;
    struct mesh_service *s;
    for (struct table_pos a = { 0 }; table_next(&c->sandboxes, &a, NULL, &sb);) {
        CHECK(sb->addr == 0 || sb->mode == MESH_BRIDGE);
        for (struct table_pos b = { 0 }; table_next(&c->sandboxes, &b, NULL, &other);)
            CHECK(sb == other || sb->addr == 0 || sb->addr != other->addr);
        for (size_t i = 0; i < sb->nports; i++)
            CHECK(mesh_core_port(c, sb->ports[i].proto, sb->ports[i].published) != NULL);
    }
    for (struct table_pos pos = { 0 }; table_next(&c->ports, &pos, NULL, &p);) {
        unsigned members = 0;
        for (struct table_pos a = { 0 }; table_next(&c->sandboxes, &a, NULL, &sb);)
            for (size_t i = 0; i < sb->nports; i++)
                members += sb->ports[i].published == p->port && sb->ports[i].proto == p->proto;
        CHECK(members == p->members);
        unsigned services = 0;
        for (struct table_pos a = { 0 }; table_next(&c->services, &a, NULL, &s);)
            services += service_port(s, p->proto, p->port) != NULL;
        CHECK(services == p->services);
        CHECK(p->in_kernel || p->nslots == 0);
    }
}
