/* alloc_service.c - the published ports and virtual addresses of a service. */
#include <inttypes.h>
#include <stdio.h>

#include "allocatord/alloc_priv.h"
#include "common/daemon/log.h"
#include "common/util/check.h"

#define PORT_ID_SIZE 32

struct vip {
    struct str net;
    struct alloc_net *on;
    struct cidr addr;
    bool had;
};

struct job {
    struct alloc *al;
    struct controller_pass *p;
    struct str id;
    struct view_service view;
    struct vip *vips;
    size_t nvips;
};

bool alloc_owner(struct store_snap *snap, struct str reservation, struct str *ret)
{
    struct str doc;
    return store_get(snap, KIND_RESERVATION, reservation, &doc) == 0 && mp_get_str(doc, "OwnerID", ret);
}

/* ---- ports ---- */

static struct alloc_port *read_ports(struct job *j, const struct list *l)
{
    const struct view_port *v = l->v;
    struct alloc_port *p = arena_array(j->p->arena, l->n + 1, sizeof *p);
    CHECK(p != NULL);
    for (size_t i = 0; i < l->n; i++)
        p[i] = (struct alloc_port){ .name = v[i].Name,
                                    .proto = alloc_proto_parse(v[i].Protocol),
                                    .host = str_is(v[i].PublishMode, "host"),
                                    .target = v[i].TargetPort,
                                    .published = v[i].PublishedPort };
    return p;
}

static struct str port_reservation(char buf[PORT_ID_SIZE], enum alloc_proto proto, uint64_t port)
{
    int n = snprintf(buf, PORT_ID_SIZE, "port/%s/%" PRIu64, alloc_proto_name[proto], port);
    return (struct str){ buf, (size_t)n };
}

/* Reservations that a removed or changed service gives up in this same transaction still count: the next pass has them.
 */
static bool port_taken(void *arg, enum alloc_proto proto, uint64_t port)
{
    struct job *j = arg;
    char buf[PORT_ID_SIZE];
    struct str id = port_reservation(buf, proto, port), owner;
    if (alloc_owner(j->p->snap, id, &owner))
        return !str_eq(owner, j->id);
    return table_get(&j->al->space.claimed, id) != NULL;
}

static void put_ports(struct buf *b, const struct alloc_port *p, size_t n)
{
    mp_array(b, n);
    for (size_t i = 0; i < n; i++) {
        mp_map(b, 3 + (p[i].name.n != 0) + (p[i].published != 0));
        if (p[i].name.n)
            mp_kv_str(b, "Name", p[i].name);
        mp_kv_cstr(b, "Protocol", alloc_proto_name[p[i].proto]);
        mp_kv_u64(b, "TargetPort", p[i].target);
        if (p[i].published)
            mp_kv_u64(b, "PublishedPort", p[i].published);
        mp_kv_cstr(b, "PublishMode", p[i].host ? "host" : "ingress");
    }
}

static void reserve_port(struct job *j, const struct alloc_port *p)
{
    char buf[PORT_ID_SIZE];
    struct str id = port_reservation(buf, p->proto, p->published), owner;
    if (alloc_owner(j->p->snap, id, &owner))
        return;
    table_put(&j->al->space.claimed, id, NULL);
    id = arena_str(&j->p->txn->arena, id);
    struct buf *b = &j->al->doc;
    buf_clear(b);
    mp_map(b, 4);
    mp_kv_str(b, "ID", id);
    mp_kv_str(b, "OwnerID", j->id);
    mp_kv_cstr(b, "Protocol", alloc_proto_name[p->proto]);
    mp_kv_u64(b, "Port", p->published);
    txn_create(j->p->txn, KIND_RESERVATION, id, txn_doc(j->p->txn, b));
}

/* explain - in the words of Docker's API, which refuses this when it sees it in time. */
static const char *explain(struct job *j, const struct alloc_port *bad)
{
    char buf[PORT_ID_SIZE];
    struct str owner = STR(""), doc, name = STR("");
    const char *reason;
    if (bad->published == 0)
        reason = arena_printf(j->p->arena, "no free port in %u-%u/%s", ALLOC_AUTO_FIRST, ALLOC_AUTO_LAST,
                              alloc_proto_name[bad->proto]);
    else if (alloc_owner(j->p->snap, port_reservation(buf, bad->proto, bad->published), &owner) &&
             !str_eq(owner, j->id)) {
        if (store_get(j->p->snap, KIND_SERVICE, owner, &doc) == 0)
            (void)mp_get_str(doc, "Spec.Name", &name);
        reason = arena_printf(j->p->arena,
                              "port '%" PRIu64 "' is already in use by service '" STR_FMT "' (" STR_FMT
                              ") as an ingress port",
                              bad->published, STR_ARG(name), STR_ARG(owner));
    } else {
        reason = arena_printf(j->p->arena, "port '%" PRIu64 "' is already in use as an ingress port", bad->published);
    }
    CHECK(reason != NULL);
    return reason;
}

/* ---- virtual addresses ---- */

/* had_vip - what it was given before stays. */
static bool had_vip(struct job *j, struct str net, const struct alloc_net *on, uint8_t family, struct cidr *ret)
{
    const struct view_vip *v = j->view.Endpoint.VirtualIPs.v;
    char buf[RESERVATION_ID_SIZE];
    struct str owner;
    for (size_t i = 0; i < j->view.Endpoint.VirtualIPs.n; i++) {
        if (!str_eq(v[i].NetworkID, net) || !cidr_parse(v[i].Addr, ret) || ret->ip.family != family)
            continue;
        for (size_t k = 0; k < on->npools; k++)
            if (cidr_has(on->pools[k].subnet, ret->ip) &&
                alloc_owner(j->p->snap, addr_reservation(buf, net, ret->ip), &owner) && str_eq(owner, j->id))
                return true;
    }
    return false;
}

static bool choose_vip(struct job *j, const struct alloc_want *w, uint8_t family)
{
    struct vip *v = &j->vips[j->nvips];
    *v = (struct vip){ .net = w->id, .on = w->net };
    v->had = had_vip(j, w->id, w->net, family, &v->addr);
    if (!v->had && !space_take(&j->al->space, j->p->snap, w->net, w->id, family, &v->addr))
        return false;
    j->nvips++;
    return true;
}

static void put_back(struct job *j)
{
    for (size_t i = 0; i < j->nvips; i++)
        if (!j->vips[i].had)
            space_untake(j->vips[i].on, j->vips[i].addr.ip);
    j->nvips = 0;
}

/* choose_vips - one for each network and family; on false, nothing is marked. */
static bool choose_vips(struct job *j, bool ingress, struct alloc_answer *a)
{
    struct alloc_want *w;
    int n = alloc_wants(j->al, j->p, &j->view.Spec.TaskTemplate.Networks, ingress, &w, a);
    if (n < 0)
        return false;
    if (str_is(j->view.Spec.EndpointSpec.Mode, "dnsrr"))
        return true;
    j->vips = arena_array(j->p->arena, 2 * (size_t)n + 1, sizeof *j->vips);
    CHECK(j->vips != NULL);
    for (int i = 0; i < n; i++)
        for (uint8_t family = 4; family <= 6; family += 2)
            if (net_has_family(w[i].net, family) && !choose_vip(j, &w[i], family)) {
                put_back(j);
                a->net = w[i].id;
                a->reason =
                    arena_printf(j->p->arena, "could not find an available IP while allocating VIP on network " STR_FMT,
                                 STR_ARG(w[i].net->name));
                CHECK(a->reason != NULL);
                return false;
            }
    return true;
}

static void put_vips(struct buf *b, const struct vip *v, size_t n)
{
    char text[CIDR_TEXT_MAX];
    mp_array(b, n);
    for (size_t i = 0; i < n; i++) {
        mp_map(b, 2);
        mp_kv_str(b, "NetworkID", v[i].net);
        mp_kv_cstr(b, "Addr", cidr_text(v[i].addr, text));
    }
}

/* ---- the service ---- */

/* write_endpoint - as Docker shows it: what was asked for, and what was given. Written only when it differs. */
static void write_endpoint(struct job *j, struct str doc, const struct alloc_port *ports, size_t n)
{
    struct buf *b = &j->al->doc;
    struct str stored = { 0 }, spec = { 0 };
    size_t head;
    if (n == 0 && j->nvips == 0 && j->view.Endpoint.Ports.n == 0 && j->view.Endpoint.VirtualIPs.n == 0 &&
        !mp_path(doc, "Endpoint.Error", &stored))
        return;
    bool has_spec = mp_path(doc, "Spec.EndpointSpec", &spec);
    buf_clear(b);
    mp_map(b, 1);
    mp_cstr(b, "Endpoint");
    head = b->n;
    mp_map(b, 1u + (n != 0) + (j->nvips != 0));
    mp_cstr(b, "Spec");
    if (has_spec)
        mp_raw(b, spec);
    else
        mp_map(b, 0);
    if (n) {
        mp_cstr(b, "Ports");
        put_ports(b, ports, n);
    }
    if (j->nvips) {
        mp_cstr(b, "VirtualIPs");
        put_vips(b, j->vips, j->nvips);
    }
    struct str endpoint = { b->p + head, b->n - head };
    if (!b->failed && mp_find(doc, "Endpoint", &stored) && str_eq(stored, endpoint))
        return;
    txn_merge(j->p->txn, KIND_SERVICE, j->id, txn_doc(j->p->txn, b));
    txn_require_version(j->p->txn, KIND_SERVICE, j->id, j->view.Version.Index);
    for (size_t i = 0; i < j->nvips; i++)
        alloc_require(j->al, j->p, j->vips[i].net);
}

void alloc_release(struct controller_pass *p, struct str owner, const struct str *keep, size_t n)
{
    struct store_iter it;
    for (store_each_index(p->snap, IX_RESERVATION_OWNER, owner, &it); store_next(&it);) {
        bool kept = false;
        for (size_t i = 0; i < n && !kept; i++)
            kept = str_eq(it.id, keep[i]);
        if (!kept)
            txn_purge(p->txn, KIND_RESERVATION, it.id);
    }
}

/* settle - reserves what was chosen, and gives back the rest of what it had. */
static void settle(struct job *j, const struct alloc_port *ports, size_t n)
{
    struct str *keep = arena_array(j->p->arena, n + j->nvips + 1, sizeof *keep);
    char buf[RESERVATION_ID_SIZE];
    size_t nkeep = 0;
    CHECK(keep != NULL);
    for (size_t i = 0; i < n; i++) {
        if (ports[i].host)
            continue;
        reserve_port(j, &ports[i]);
        keep[nkeep++] = arena_str(j->p->arena, port_reservation(buf, ports[i].proto, ports[i].published));
    }
    for (size_t i = 0; i < j->nvips; i++) {
        struct str id = addr_reservation(buf, j->vips[i].net, j->vips[i].addr.ip);
        if (!j->vips[i].had)
            space_claim(&j->al->space, j->p->txn, &j->al->doc, id, KIND_SERVICE, j->id);
        keep[nkeep++] = arena_str(j->p->arena, id);
    }
    alloc_release(j->p, j->id, keep, nkeep);
}

/* write_reason - beside what the service has and keeps. */
static void write_reason(struct job *j, struct str doc, const char *reason)
{
    struct buf *b = &j->al->doc, error = BUF_INIT;
    struct str stored, now = { NULL, 0 };
    struct err e;
    (void)mp_get_str(doc, "Endpoint.Error", &now);
    if (str_is(now, reason))
        return;
    mp_map(&error, 1);
    mp_kv_cstr(&error, "Error", reason);
    buf_clear(b);
    mp_map(b, 1);
    mp_cstr(b, "Endpoint");
    if (!mp_find(doc, "Endpoint", &stored))
        mp_raw(b, buf_str(&error));
    else if (mp_merge(b, stored, buf_str(&error), &e) != 0)
        b->failed = true;
    if (!b->failed)
        txn_merge(j->p->txn, KIND_SERVICE, j->id, txn_doc(j->p->txn, b));
    buf_done(&error);
}

static struct alloc_answer refused(struct job *j, struct str doc, struct alloc_answer a)
{
    table_put(&j->al->stuck, j->id, NULL);
    write_reason(j, doc, a.reason);
    if (a.net.n)
        alloc_wait(j->al, 's', j->id, a.net);
    a.ok = false;
    return a;
}

static struct alloc_answer allocate(struct job *j, struct str doc)
{
    const struct list *asked = &j->view.Spec.EndpointSpec.Ports;
    struct alloc_port *spec = read_ports(j, asked), *had = read_ports(j, &j->view.Endpoint.Ports);
    struct alloc_port *out = arena_array(j->p->arena, asked->n + 1, sizeof *out);
    const struct alloc_port *bad = NULL;
    struct alloc_answer a = { 0 };
    CHECK(out != NULL);
    for (size_t i = 0; i < asked->n; i++)
        a.ingress |= !spec[i].host;
    if (alloc_ports(spec, asked->n, had, j->view.Endpoint.Ports.n, port_taken, j, j->al->cursor, out, &bad) != 0) {
        a.reason = explain(j, bad);
        return refused(j, doc, a);
    }
    if (!choose_vips(j, a.ingress, &a))
        return refused(j, doc, a);
    if (table_del(&j->al->stuck, j->id))
        alloc_mark_new_tasks(j->al, j->p->snap, j->id);
    alloc_wait_over(j->al, 's', j->id);
    settle(j, out, asked->n);
    write_endpoint(j, doc, out, asked->n);
    buf_clear(&j->al->doc);
    put_ports(&j->al->doc, out, asked->n);
    a.ok = true;
    a.ports = asked->n ? txn_doc(j->p->txn, &j->al->doc) : STR("");
    return a;
}

const struct alloc_answer *alloc_service(struct alloc *al, struct controller_pass *p, struct str service)
{
    struct alloc_answer *known = table_get(&al->answers, service);
    struct job j = { .al = al, .p = p, .id = service };
    struct str doc;
    struct err e;
    if (known)
        return known->ok || known->reason ? known : NULL;
    struct alloc_answer a = { 0 };
    if (store_get(p->snap, KIND_SERVICE, service, &doc) != 0) {
        table_del(&al->stuck, service);
        alloc_wait_over(al, 's', service);
        alloc_release(p, service, NULL, 0);
    } else if (view_service(doc, &j.view, p->arena, &e) != 0) {
        log_error("service=" STR_FMT ": %s", STR_ARG(service), e.msg);
    } else {
        a = allocate(&j, doc);
    }
    known = table_put(&al->answers, service, NULL);
    *known = a;
    return a.ok || a.reason ? known : NULL;
}
