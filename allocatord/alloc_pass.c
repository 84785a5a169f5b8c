/* alloc_pass.c - see alloc_pass.h. */
#include "allocatord/alloc_pass.h"

#include <stdio.h>
#include <stdlib.h>

#include "allocatord/alloc_priv.h"
#include "common/daemon/log.h"
#include "common/util/check.h"

#define WAIT_KEY_SIZE (STORE_ID_MAX + 2)

void alloc_init(struct alloc *al)
{
    *al = (struct alloc){ 0 };
    marks_init(&al->networks);
    marks_init(&al->services);
    marks_init(&al->tasks);
    marks_init(&al->dead);
    marks_init(&al->reasons);
    space_init(&al->space);
    table_init(&al->stuck, 0);
    table_init(&al->homeless, 0);
    table_init(&al->waiting, STORE_ID_MAX + 1);
    table_init(&al->answers, sizeof(struct alloc_answer));
    table_init(&al->specs, sizeof(struct list));
    table_init(&al->required, 0);
}

void alloc_done(struct alloc *al)
{
    struct marks *m[] = { &al->networks, &al->services, &al->tasks, &al->dead, &al->reasons };
    struct table *t[] = { &al->stuck, &al->homeless, &al->waiting, &al->answers, &al->specs, &al->required };
    for (size_t i = 0; i < sizeof m / sizeof *m; i++)
        marks_done(m[i]);
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        table_done(t[i]);
    space_done(&al->space);
    buf_done(&al->doc);
}

/* ---- what changed ---- */

static struct str state_of(struct str doc)
{
    struct str state = { NULL, 0 };
    (void)mp_get_str(doc, "Status.State", &state);
    return state;
}

bool alloc_new_task(struct str doc)
{
    return str_is(state_of(doc), "new");
}

/*
 * is_over - nothing of this task can run any more, or ever will: its node has said so, or the swarm has given it up
 * with its node; or it was to stop before a node had it (desired states never go back, and no node starts what is to
 * stop).
 */
static bool is_over(struct str doc)
{
    struct str node = { NULL, 0 }, desired = { NULL, 0 };
    if (task_state_parse(state_of(doc)) > TASK_RUNNING)
        return true;
    (void)mp_get_str(doc, "NodeID", &node);
    (void)mp_get_str(doc, "DesiredState", &desired);
    return node.n == 0 && task_state_parse(desired) > TASK_COMPLETE;
}

void alloc_mark_new_tasks(struct alloc *al, struct store_snap *snap, struct str service)
{
    struct store_iter it;
    for (store_each_index(snap, IX_TASK_SERVICE, service, &it); store_next(&it);)
        if (alloc_new_task(it.doc))
            marks_add(&al->tasks, it.id);
}

static void mark_all(struct table *from, struct marks *to)
{
    struct str id;
    for (struct table_pos p = { 0 }; table_next(from, &p, &id, NULL);)
        marks_add(to, id);
}

/* see_owner - what a reservation is for may have gone before it was made. */
static void see_owner(struct alloc *al, struct store_snap *snap, struct str doc)
{
    struct str owner, kind = { NULL, 0 }, task;
    if (!mp_get_str(doc, "OwnerID", &owner))
        return;
    (void)mp_get_str(doc, "OwnerKind", &kind);
    if (str_is(kind, "task")) {
        if (store_get(snap, KIND_TASK, owner, &task) != 0 || is_over(task))
            marks_add(&al->dead, owner);
    } else if (str_is(kind, "network")) {
        if (store_get(snap, KIND_NETWORK, owner, &task) != 0)
            marks_add(&al->networks, owner);
    } else if (store_get(snap, KIND_SERVICE, owner, &task) != 0) {
        marks_add(&al->services, owner);
    }
}

static void see_task(struct alloc *al, struct str id, struct str doc)
{
    struct str attached;
    if (alloc_new_task(doc) && !is_over(doc))
        marks_add(&al->tasks, id);
    else if (al->waiting.count)
        alloc_wait_over(al, 't', id);
    if (is_over(doc) && mp_find(doc, "NetworksAttachments", &attached))
        marks_add(&al->dead, id);
}

static void on_reload(void *arg, struct store_snap *snap, const struct store_meta *meta)
{
    struct alloc *al = arg;
    struct store_iter it;
    struct marks *m[] = { &al->networks, &al->services, &al->tasks, &al->dead, &al->reasons };
    (void)meta;
    for (size_t i = 0; i < sizeof m / sizeof *m; i++)
        marks_clear(m[i]);
    table_clear(&al->stuck);
    table_clear(&al->homeless);
    table_clear(&al->waiting);
    space_clear(&al->space);
    for (store_each_prefix(snap, KIND_RESERVATION, STR("subnet/"), &it); store_next(&it);)
        space_sync(&al->space, snap, it.id);
    for (store_each(snap, KIND_NETWORK, &it); store_next(&it);) {
        (void)space_sync_net(&al->space, snap, it.id);
        marks_add(&al->networks, it.id);
        marks_add(&al->reasons, it.id);
    }
    for (store_each(snap, KIND_SERVICE, &it); store_next(&it);)
        marks_add(&al->services, it.id);
    for (store_each(snap, KIND_RESERVATION, &it); store_next(&it);)
        see_owner(al, snap, it.doc);
    for (store_each(snap, KIND_TASK, &it); store_next(&it);)
        if (alloc_new_task(it.doc))
            see_task(al, it.id, it.doc);
}

static void on_reservation(struct alloc *al, struct store_snap *snap, struct str id)
{
    struct str doc, net;
    struct ip ip;
    space_sync(&al->space, snap, id);
    if (store_get(snap, KIND_RESERVATION, id, &doc) == 0) {
        see_owner(al, snap, doc);
    } else if (addr_split(id, &net, &ip)) {
        alloc_wake(al, snap, net, 1);
    } else if (str_starts(id, STR("port/"))) {
        mark_all(&al->stuck, &al->services);
    } else {
        mark_all(&al->homeless, &al->networks);
    }
}

static void on_network(struct alloc *al, struct store_snap *snap, struct str id)
{
    bool was = space_net(&al->space, id) != NULL;
    (void)space_sync_net(&al->space, snap, id);
    if (!was) /* perhaps the ingress network that others wait for */
        mark_all(&al->stuck, &al->services);
    marks_add(&al->networks, id);
}

static void on_change(void *arg, struct store_snap *snap, enum kind kind, struct str id, char op)
{
    struct alloc *al = arg;
    struct str doc;
    (void)op; /* the snapshot may be newer */
    if (kind == KIND_SERVICE) {
        marks_add(&al->services, id);
    } else if (kind == KIND_NETWORK) {
        on_network(al, snap, id);
    } else if (kind == KIND_RESERVATION) {
        on_reservation(al, snap, id);
    } else if (kind == KIND_TASK && store_get(snap, KIND_TASK, id, &doc) == 0) {
        see_task(al, id, doc);
    } else if (kind == KIND_TASK) {
        alloc_wait_over(al, 't', id);
        marks_add(&al->dead, id);
    }
}

/* ---- waiting for addresses ---- */

static struct str wait_key(char buf[WAIT_KEY_SIZE], char kind, struct str id)
{
    int n = snprintf(buf, WAIT_KEY_SIZE, "%c" STR_FMT, kind, STR_ARG(id));
    return (struct str){ buf, (size_t)n };
}

void alloc_wait(struct alloc *al, char kind, struct str id, struct str net)
{
    struct alloc_net *n = space_net(&al->space, net);
    char buf[WAIT_KEY_SIZE];
    struct str key = wait_key(buf, kind, id);
    if (n == NULL)
        return;
    char *on = table_get(&al->waiting, key);
    if (on && !str_is(net, on))
        alloc_wait_over(al, kind, id);
    on = table_put(&al->waiting, key, NULL);
    CHECK(str_copy(on, STORE_ID_MAX + 1, net));
    table_put(&n->waiters, key, NULL);
    marks_add(&al->reasons, net);
}

void alloc_wait_over(struct alloc *al, char kind, struct str id)
{
    char buf[WAIT_KEY_SIZE];
    struct str key = wait_key(buf, kind, id);
    const char *on = al->waiting.count ? table_get(&al->waiting, key) : NULL;
    if (on == NULL)
        return;
    struct alloc_net *n = space_net(&al->space, str_from(on));
    if (n) {
        table_del(&n->waiters, key);
        marks_add(&al->reasons, str_from(on));
    }
    table_del(&al->waiting, key);
}

/* Who looks again and finds nothing waits again; so nobody is forgotten. */
void alloc_wake(struct alloc *al, struct store_snap *snap, struct str net, size_t n)
{
    struct alloc_net *on = space_net(&al->space, net);
    struct table_pos p = { 0 };
    struct str key;
    (void)snap;
    while (on && n > 0 && table_next(&on->waiters, &p, &key, NULL)) {
        struct str id = { key.p + 1, key.n - 1 };
        marks_add(key.p[0] == 's' ? &al->services : &al->tasks, id);
        table_del(&al->waiting, key);
        table_del(&on->waiters, key);
        n--;
    }
    if (on)
        marks_add(&al->reasons, net);
}

/* ---- networks that somebody wants to be on ---- */

static const char *why_not(struct controller_pass *p, struct str id, const struct alloc_net *net)
{
    const char *text;
    if (net == NULL)
        text = arena_printf(p->arena, "network " STR_FMT " not found", STR_ARG(id));
    else if (net->error.n)
        text = arena_printf(p->arena, "network " STR_FMT ": " STR_FMT, STR_ARG(net->name), STR_ARG(net->error));
    else
        text = arena_printf(p->arena, "network " STR_FMT " has no subnet yet", STR_ARG(net->name));
    CHECK(text != NULL);
    return text;
}

static bool have(const struct alloc_want *w, int n, struct str id)
{
    for (int i = 0; i < n; i++)
        if (str_eq(w[i].id, id))
            return true;
    return false;
}

int alloc_wants(struct alloc *al, struct controller_pass *p, const struct list *asked, bool ingress,
                struct alloc_want **ret, struct alloc_answer *why)
{
    const struct view_attachment_config *v = asked->v;
    struct alloc_want *w = arena_array(p->arena, asked->n + 2, sizeof *w);
    int n = 0;
    CHECK(w != NULL);
    *ret = w;
    if (ingress)
        w[n++].id = str_from(al->space.ingress);
    if (ingress && w[0].id.n == 0) {
        why->reason = "service needs ingress network, but no ingress network is present";
        return -1;
    }
    for (size_t i = 0; i < asked->n; i++) {
        if (str_is(v[i].Target, "host") || str_is(v[i].Target, "none") || str_is(v[i].Target, "bridge") ||
            have(w, n, v[i].Target))
            continue;
        w[n++] = (struct alloc_want){ .id = v[i].Target, .aliases = v[i].Aliases };
    }
    for (int i = 0; i < n; i++) {
        w[i].net = space_net(&al->space, w[i].id);
        if (w[i].net && w[i].net->npools)
            continue;
        why->reason = why_not(p, w[i].id, w[i].net);
        why->net = w[i].net ? w[i].id : (struct str){ NULL, 0 };
        return -1;
    }
    return n;
}

void alloc_require(struct alloc *al, struct controller_pass *p, struct str net)
{
    bool fresh;
    table_put(&al->required, net, &fresh);
    if (fresh)
        txn_require_exists(p->txn, KIND_NETWORK, arena_str(&p->txn->arena, net));
}

/* ---- one task ---- */

/* What a task gets on its networks, as it is chosen. */
struct attach {
    struct alloc_want *wants;
    int n;
    struct cidr (*addr)[2]; /* of each: IPv4, IPv6; family 0: none */
};

static const struct list *networks_of(struct alloc *al, struct controller_pass *p, struct str taskspec)
{
    struct list *known = table_get(&al->specs, taskspec);
    struct view_taskspec v = { 0 };
    struct str doc;
    struct err e;
    if (known)
        return known;
    if (store_get(p->snap, KIND_TASKSPEC, taskspec, &doc) == 0 && view_taskspec(doc, &v, p->arena, &e) != 0)
        log_error("taskspec=" STR_FMT ": %s", STR_ARG(taskspec), e.msg);
    known = table_put(&al->specs, taskspec, NULL);
    *known = v.Spec.Networks;
    return known;
}

static void put_back(struct attach *at, int n)
{
    for (int i = 0; i < n; i++)
        for (int f = 0; f < 2; f++)
            if (at->addr[i][f].ip.family)
                space_untake(at->wants[i].net, at->addr[i][f].ip);
}

/* choose_addresses - one of each family that a network has; on false, nothing is marked. */
static bool choose_addresses(struct alloc *al, struct controller_pass *p, struct attach *at, struct alloc_answer *why)
{
    at->addr = arena_array(p->arena, (size_t)at->n + 1, sizeof *at->addr);
    CHECK(at->addr != NULL);
    for (int i = 0; i < at->n; i++)
        for (int f = 0; f < 2; f++) {
            struct alloc_want *w = &at->wants[i];
            uint8_t family = f ? 6 : 4;
            if (!net_has_family(w->net, family) ||
                space_take(&al->space, p->snap, w->net, w->id, family, &at->addr[i][f]))
                continue;
            put_back(at, i + 1);
            why->net = w->id;
            why->reason =
                arena_printf(p->arena, "could not find an available IP on network " STR_FMT, STR_ARG(w->net->name));
            CHECK(why->reason != NULL);
            return false;
        }
    return true;
}

static void claim_addresses(struct alloc *al, struct controller_pass *p, struct str task, const struct attach *at)
{
    char buf[RESERVATION_ID_SIZE];
    for (int i = 0; i < at->n; i++) {
        alloc_require(al, p, at->wants[i].id);
        for (int f = 0; f < 2; f++)
            if (at->addr[i][f].ip.family)
                space_claim(&al->space, p->txn, &al->doc, addr_reservation(buf, at->wants[i].id, at->addr[i][f].ip),
                            KIND_TASK, task);
    }
}

static void put_attachment(struct buf *b, const struct alloc_want *w, const struct cidr addr[2])
{
    char text[CIDR_TEXT_MAX];
    mp_map(b, 2 + (w->aliases.n != 0));
    mp_kv_str(b, "NetworkID", w->id);
    mp_cstr(b, "Addresses");
    mp_array(b, (addr[0].ip.family != 0) + (addr[1].ip.family != 0));
    for (int f = 0; f < 2; f++)
        if (addr[f].ip.family)
            mp_cstr(b, cidr_text(addr[f], text));
    if (w->aliases.n == 0)
        return;
    mp_cstr(b, "Aliases");
    mp_array(b, w->aliases.n);
    for (size_t i = 0; i < w->aliases.n; i++)
        mp_str(b, w->aliases.v[i]);
}

static void put_status(struct buf *b, struct controller_pass *p, const char *state, const char *message,
                       const char *error)
{
    mp_cstr(b, "Status");
    mp_map(b, error ? 4 : 3);
    mp_kv_cstr(b, "State", state);
    mp_kv_cstr(b, "Message", message);
    mp_kv_i64(b, "Timestamp", p->now.ns);
    if (error)
        mp_kv_cstr(b, "Err", error);
}

static void refuse_task(struct alloc *al, struct controller_pass *p, struct str id, struct str doc, const char *reason)
{
    struct buf *b = &al->doc;
    struct str err = STR("");
    (void)mp_get_str(doc, "Status.Err", &err);
    if (str_is(err, reason))
        return;
    buf_clear(b);
    mp_map(b, 1);
    put_status(b, p, "new", "created", reason);
    txn_merge(p->txn, KIND_TASK, id, txn_doc(p->txn, b));
    al->refused++;
}

static void accept_task(struct alloc *al, struct controller_pass *p, struct str id, const struct alloc_answer *a,
                        const struct attach *at)
{
    struct buf *b = &al->doc;
    claim_addresses(al, p, id, at);
    buf_clear(b);
    mp_map(b, 1u + (a->ports.n != 0) + (at->n != 0));
    put_status(b, p, "pending", "pending task scheduling", NULL);
    if (a->ports.n)
        mp_kv_raw(b, "Ports", a->ports);
    if (at->n) {
        mp_cstr(b, "NetworksAttachments");
        mp_array(b, (size_t)at->n);
        for (int i = 0; i < at->n; i++)
            put_attachment(b, &at->wants[i], at->addr[i]);
    }
    txn_merge(p->txn, KIND_TASK, id, txn_doc(p->txn, b));
    al->allocated++;
}

static void allocate_task(struct alloc *al, struct controller_pass *p, struct str id)
{
    struct str doc, service, spec = { NULL, 0 };
    struct alloc_answer why = { 0 };
    struct attach at = { 0 };
    if (store_get(p->snap, KIND_TASK, id, &doc) != 0 || !alloc_new_task(doc) || is_over(doc) ||
        !mp_get_str(doc, "ServiceID", &service)) {
        alloc_wait_over(al, 't', id);
        return;
    }
    const struct alloc_answer *a = alloc_service(al, p, service);
    if (a == NULL)
        return;
    if (!a->ok) {
        refuse_task(al, p, id, doc, a->reason);
        return;
    }
    (void)mp_get_str(doc, "TaskSpecID", &spec);
    at.n = alloc_wants(al, p, networks_of(al, p, spec), a->ingress, &at.wants, &why);
    if (at.n < 0 || !choose_addresses(al, p, &at, &why)) {
        if (why.net.n)
            alloc_wait(al, 't', id, why.net);
        else if (a->ingress && al->space.ingress[0] == 0)
            table_put(&al->stuck, service, NULL);
        refuse_task(al, p, id, doc, why.reason);
        return;
    }
    alloc_wait_over(al, 't', id);
    accept_task(al, p, id, a, &at);
}

/* ---- the pass ---- */

static bool room(const struct controller_pass *p)
{
    return p->txn->nchg < CONTROLLER_CHANGES_SOFT;
}

static void on_pass(void *arg, struct controller_pass *p)
{
    struct alloc *al = arg;
    struct str id;
    table_clear(&al->answers);
    table_clear(&al->specs);
    table_clear(&al->required);
    al->nodes = NULL;
    space_recheck(&al->space, p->snap);
    while (room(p) && marks_pop(&al->networks, &id))
        alloc_network(al, p, id);
    while (room(p) && marks_pop(&al->dead, &id))
        alloc_release(p, id, NULL, 0);
    while (room(p) && marks_pop(&al->services, &id))
        (void)alloc_service(al, p, id);
    while (room(p) && marks_pop(&al->tasks, &id))
        allocate_task(al, p, id);
    while (room(p) && marks_pop(&al->reasons, &id))
        alloc_network_reason(al, p, id);
    p->more = al->networks.pending.count || al->dead.pending.count || al->services.pending.count ||
              al->tasks.pending.count || al->reasons.pending.count;
}

static void on_done(void *arg, const struct err *e)
{
    struct alloc *al = arg;
    bool ok = e->code == 0;
    marks_settle(&al->networks, ok);
    marks_settle(&al->services, ok);
    marks_settle(&al->tasks, ok);
    marks_settle(&al->dead, ok);
    marks_settle(&al->reasons, ok);
    space_settle(&al->space, ok);
}

const struct controller_ops alloc_ops = {
    .name = "allocatord",
    .reload = on_reload,
    .change = on_change,
    .pass = on_pass,
    .done = on_done,
};
