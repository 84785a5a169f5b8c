/* alloc_pass.c - see alloc_pass.h. */
#include "allocatord/alloc_pass.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/daemon/log.h"
#include "common/object/views.h"
#include "common/util/check.h"

#define SCRATCH_BYTES (16u << 20)
#define RESERVATION_ID_MAX 32

/* What the allocation of a service came to; lives as long as the pass. */
struct alloc_answer {
    bool ok;
    struct str ports;   /* ok: encoded array, for its tasks */
    const char *reason; /* not ok */
};

void alloc_init(struct alloc *al)
{
    *al = (struct alloc){ 0 };
    marks_init(&al->services);
    marks_init(&al->tasks);
    table_init(&al->stuck, 0);
    table_init(&al->answers, sizeof(struct alloc_answer));
    table_init(&al->claimed, 0);
    arena_init(&al->scratch, SCRATCH_BYTES);
}

void alloc_done(struct alloc *al)
{
    marks_done(&al->services);
    marks_done(&al->tasks);
    table_done(&al->stuck);
    table_done(&al->answers);
    table_done(&al->claimed);
    arena_done(&al->scratch);
    buf_done(&al->doc);
}

/* ---- what changed ---- */

static bool is_new_task(struct str doc)
{
    struct str state;
    return mp_get_str(doc, "Status.State", &state) && str_is(state, "new");
}

static void mark_new_tasks(struct alloc *al, struct store_snap *snap, struct str service)
{
    struct store_iter it;
    for (store_each_index(snap, IX_TASK_SERVICE, service, &it); store_next(&it);)
        if (is_new_task(it.doc))
            marks_add(&al->tasks, it.id);
}

static void on_reload(void *arg, struct store_snap *snap, const struct store_meta *meta)
{
    struct alloc *al = arg;
    struct store_iter it;
    struct str owner;
    (void)meta;
    marks_clear(&al->services);
    marks_clear(&al->tasks);
    table_clear(&al->stuck);
    for (store_each(snap, KIND_SERVICE, &it); store_next(&it);)
        marks_add(&al->services, it.id);
    for (store_each(snap, KIND_RESERVATION, &it); store_next(&it);)
        if (mp_get_str(it.doc, "OwnerID", &owner)) /* perhaps of a service that is gone */
            marks_add(&al->services, owner);
    for (store_each(snap, KIND_TASK, &it); store_next(&it);)
        if (is_new_task(it.doc))
            marks_add(&al->tasks, it.id);
}

static void retry_stuck(struct alloc *al)
{
    struct str id;
    for (struct table_pos p = { 0 }; table_next(&al->stuck, &p, &id, NULL);)
        marks_add(&al->services, id);
}

static void on_change(void *arg, struct store_snap *snap, enum kind kind, struct str id, char op)
{
    struct alloc *al = arg;
    struct str doc;
    if (kind == KIND_SERVICE)
        marks_add(&al->services, id);
    else if (kind == KIND_RESERVATION && op == 'd')
        retry_stuck(al);
    else if (kind == KIND_TASK && op != 'd' && store_get(snap, KIND_TASK, id, &doc) == 0 && is_new_task(doc))
        marks_add(&al->tasks, id);
}

/* ---- one service ---- */

struct job {
    struct alloc *al;
    struct controller_pass *p;
    struct str id;
    struct view_service view;
};

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

static struct str reservation_id(char buf[RESERVATION_ID_MAX], enum alloc_proto proto, uint64_t port)
{
    int n = snprintf(buf, RESERVATION_ID_MAX, "port/%s/%" PRIu64, alloc_proto_name[proto], port);
    return (struct str){ buf, (size_t)n };
}

/* held_by - the owner of a reservation as it will be after this transaction; "" none. Reservations that a removed or
 * changed service gives up in this same transaction still count: the next pass has them. */
static bool held_by(struct job *j, struct str reservation, struct str *ret_owner)
{
    struct str doc;
    return store_get(j->p->snap, KIND_RESERVATION, reservation, &doc) == 0 && mp_get_str(doc, "OwnerID", ret_owner);
}

static bool port_taken(void *arg, enum alloc_proto proto, uint64_t port)
{
    struct job *j = arg;
    char buf[RESERVATION_ID_MAX];
    struct str id = reservation_id(buf, proto, port), owner;
    if (held_by(j, id, &owner))
        return !str_eq(owner, j->id);
    return table_get(&j->al->claimed, id) != NULL;
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

static void reserve(struct job *j, const struct alloc_port *p)
{
    char buf[RESERVATION_ID_MAX];
    struct str id = reservation_id(buf, p->proto, p->published), owner;
    if (held_by(j, id, &owner))
        return;
    table_put(&j->al->claimed, id, NULL);
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

/* release - every reservation of the service but those for `keep`. */
static void release(struct job *j, const struct alloc_port *keep, size_t n)
{
    struct store_iter it;
    char buf[RESERVATION_ID_MAX];
    for (store_each_index(j->p->snap, IX_RESERVATION_OWNER, j->id, &it); store_next(&it);) {
        bool kept = !str_starts(it.id, STR("port/"));
        for (size_t i = 0; i < n && !kept; i++)
            kept = !keep[i].host && str_eq(it.id, reservation_id(buf, keep[i].proto, keep[i].published));
        if (!kept)
            txn_purge(j->p->txn, KIND_RESERVATION, it.id);
    }
}

/* write_endpoint - as Docker shows it: what was asked for, and what was given. Written only when it differs. */
static void write_endpoint(struct job *j, struct str doc, const struct alloc_port *ports, size_t n)
{
    struct buf *b = &j->al->doc;
    struct str stored = { 0 }, spec = { 0 };
    size_t head;
    if (n == 0 && j->view.Endpoint.Ports.n == 0)
        return;
    bool has_spec = mp_path(doc, "Spec.EndpointSpec", &spec);
    buf_clear(b);
    mp_map(b, 1);
    mp_cstr(b, "Endpoint");
    head = b->n;
    mp_map(b, n ? 2 : 1);
    mp_cstr(b, "Spec");
    if (has_spec)
        mp_raw(b, spec);
    else
        mp_map(b, 0);
    if (n) {
        mp_cstr(b, "Ports");
        put_ports(b, ports, n);
    }
    struct str endpoint = { b->p + head, b->n - head };
    if (!b->failed && mp_find(doc, "Endpoint", &stored) && str_eq(stored, endpoint))
        return;
    txn_merge(j->p->txn, KIND_SERVICE, j->id, txn_doc(j->p->txn, b));
    txn_require_version(j->p->txn, KIND_SERVICE, j->id, j->view.Version.Index);
}

/* explain - in the words of Docker's API, which refuses this when it sees it in time. */
static const char *explain(struct job *j, const struct alloc_port *bad)
{
    char buf[RESERVATION_ID_MAX];
    struct str owner = STR(""), doc, name = STR("");
    const char *reason;
    if (bad->published == 0)
        reason = arena_printf(j->p->arena, "no free port in %u-%u/%s", ALLOC_AUTO_FIRST, ALLOC_AUTO_LAST,
                              alloc_proto_name[bad->proto]);
    else if (held_by(j, reservation_id(buf, bad->proto, bad->published), &owner) && !str_eq(owner, j->id)) {
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

static struct alloc_answer allocate(struct job *j, struct str doc)
{
    const struct list *asked = &j->view.Spec.EndpointSpec.Ports;
    struct alloc_port *spec = read_ports(j, asked), *had = read_ports(j, &j->view.Endpoint.Ports);
    struct alloc_port *out = arena_array(j->p->arena, asked->n + 1, sizeof *out);
    const struct alloc_port *bad = NULL;
    CHECK(out != NULL);
    if (alloc_ports(spec, asked->n, had, j->view.Endpoint.Ports.n, port_taken, j, j->al->cursor, out, &bad) != 0) {
        table_put(&j->al->stuck, j->id, NULL);
        return (struct alloc_answer){ .reason = explain(j, bad) };
    }
    if (table_del(&j->al->stuck, j->id))
        mark_new_tasks(j->al, j->p->snap, j->id);
    for (size_t i = 0; i < asked->n; i++)
        if (!out[i].host)
            reserve(j, &out[i]);
    release(j, out, asked->n);
    write_endpoint(j, doc, out, asked->n);
    buf_clear(&j->al->doc);
    put_ports(&j->al->doc, out, asked->n);
    return (struct alloc_answer){ .ok = true, .ports = asked->n ? txn_doc(j->p->txn, &j->al->doc) : STR("") };
}

/* answer_for - allocates at most once in a pass; NULL when the service is gone or unreadable. */
static const struct alloc_answer *answer_for(struct alloc *al, struct controller_pass *p, struct str service)
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
        release(&j, NULL, 0);
    } else if (view_service(doc, &j.view, p->arena, &e) != 0) {
        log_error("service=" STR_FMT ": %s", STR_ARG(service), e.msg);
    } else {
        a = allocate(&j, doc);
    }
    known = table_put(&al->answers, service, NULL);
    *known = a;
    return a.ok || a.reason ? known : NULL;
}

/* ---- one task ---- */

static void write_task(struct alloc *al, struct controller_pass *p, struct str id, struct str doc,
                       const struct alloc_answer *a)
{
    struct buf *b = &al->doc;
    struct str err = STR("");
    (void)mp_get_str(doc, "Status.Err", &err);
    if (!a->ok && str_is(err, a->reason))
        return;
    buf_clear(b);
    mp_map(b, a->ok && a->ports.n ? 2 : 1);
    mp_cstr(b, "Status");
    mp_map(b, a->ok ? 3 : 4);
    mp_kv_cstr(b, "State", a->ok ? "pending" : "new");
    mp_kv_cstr(b, "Message", a->ok ? "pending task scheduling" : "created");
    mp_kv_i64(b, "Timestamp", p->now.ns);
    if (!a->ok)
        mp_kv_cstr(b, "Err", a->reason);
    if (a->ok && a->ports.n)
        mp_kv_raw(b, "Ports", a->ports);
    txn_merge(p->txn, KIND_TASK, id, txn_doc(p->txn, b));
    if (a->ok)
        al->allocated++;
    else
        al->refused++;
}

static void allocate_task(struct alloc *al, struct controller_pass *p, struct str id)
{
    struct str doc, service, desired;
    if (store_get(p->snap, KIND_TASK, id, &doc) != 0 || !is_new_task(doc) || !mp_get_str(doc, "ServiceID", &service))
        return;
    if (!mp_get_str(doc, "DesiredState", &desired) || str_is(desired, "remove") || str_is(desired, "shutdown"))
        return;
    const struct alloc_answer *a = answer_for(al, p, service);
    if (a)
        write_task(al, p, id, doc, a);
}

static void on_pass(void *arg, struct controller_pass *p)
{
    struct alloc *al = arg;
    struct str id;
    table_clear(&al->answers);
    table_clear(&al->claimed);
    while (p->txn->nchg < CONTROLLER_CHANGES_SOFT && marks_pop(&al->services, &id))
        (void)answer_for(al, p, id);
    while (p->txn->nchg < CONTROLLER_CHANGES_SOFT && marks_pop(&al->tasks, &id))
        allocate_task(al, p, id);
    p->more = al->services.pending.count || al->tasks.pending.count;
}

static void on_done(void *arg, const struct err *e)
{
    struct alloc *al = arg;
    marks_settle(&al->services, e->code == 0);
    marks_settle(&al->tasks, e->code == 0);
}

const struct controller_ops alloc_ops = {
    .name = "allocatord",
    .reload = on_reload,
    .change = on_change,
    .pass = on_pass,
    .done = on_done,
};
