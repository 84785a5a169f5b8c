/* disp_network.c - the mirror of disp_network.h: what changed when, who holds what, who waits for whom. */
#include "dispatcherd/disp_network.h"

#include <stdlib.h>

#include "common/util/check.h"
#include "common/util/print.h"

#define OLD_MAX 100000u
#define LOOK_BACK                                                                                                      \
    30000u /* revisions before the first of this process: what a node may be behind at a change of leader */
#define TOMBSTONES_MIN 1000u

#define TOKENS_MS 10   /* answers a millisecond, in the long run */
#define TOKENS_MAX 256 /* at once */
#define TOKEN_BYTES 4096u
#define TOKEN_SHARED_BYTES 16384u /* 160 MB a second */

void dnet_init(struct disp_net *d)
{
    *d = (struct disp_net){ .drain_wait_ms = 2000, .drain_ms = 5000, .tokens = TOKENS_MAX };
    table_init(&d->nets, sizeof(struct dnet_net));
    table_init(&d->tasks, sizeof(struct dnet_task));
    table_init(&d->services, sizeof(struct dnet_service));
    table_init(&d->nodes, sizeof(struct dnet_node));
    d->hot_end = &d->hot;
}

/* ---- lists by revision ---- */

static void list_append(struct dnet_list *l, struct dnet_link *k)
{
    CHECK(l->last == NULL || l->last->rev <= k->rev);
    k->prev = l->last;
    k->next = NULL;
    *(l->last ? &l->last->next : &l->first) = k;
    l->last = k;
    l->n++;
}

static void list_remove(struct dnet_list *l, struct dnet_link *k)
{
    *(k->prev ? &k->prev->next : &l->first) = k->next;
    *(k->next ? &k->next->prev : &l->last) = k->prev;
    k->prev = k->next = NULL;
    l->n--;
}

static void free_list(struct dnet_list *l)
{
    for (struct dnet_link *k = l->first, *next; k; k = next) {
        next = k->next;
        free(k); /* the entry begins with it */
    }
    *l = (struct dnet_list){ 0 };
}

static struct dnet_entry *entry_of(struct dnet_link *k)
{
    return (struct dnet_entry *)k;
}

static void *grow(void *v, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return v;
    *cap = *cap ? *cap * 2 : 4;
    v = reallocarray(v, *cap, size);
    CHECK(v != NULL);
    return v;
}

static void touch(struct disp_net *d, struct dnet_net *n)
{
    if (n->changed)
        return;
    n->changed = true;
    n->next_changed = d->changed;
    d->changed = n;
}

/* entry_fresh - it is as it is since now (while loading: since `rev`). */
static void entry_fresh(struct disp_net *d, struct dnet_entry *e, uint64_t rev)
{
    if (d->loading) {
        e->link.rev = rev;
        d->load = grow(d->load, d->nload, &d->cload, sizeof *d->load);
        d->load[d->nload++] = e;
        return;
    }
    if (e->link.rev)
        list_remove(&e->net->live, &e->link);
    e->link.rev = d->revision;
    list_append(&e->net->live, &e->link);
    touch(d, e->net);
}

static struct dnet_entry *entry_new(struct disp_net *d, struct dnet_net *net, int kind, struct str id, uint64_t print,
                                    uint64_t rev)
{
    struct dnet_entry *e = calloc(1, sizeof *e);
    CHECK(e != NULL && str_copy(e->id, sizeof e->id, id));
    e->net = net;
    e->kind = kind;
    e->print = print;
    /* what comes back leaves no tombstone that would speak after it */
    for (struct dnet_link *k = kind == DNET_ENDPOINT ? NULL : net->gone.last, *prev; k; k = prev) {
        prev = k->prev;
        if (entry_of(k)->kind == e->kind && str_is(id, entry_of(k)->id)) {
            list_remove(&net->gone, k);
            free(k);
        }
    }
    entry_fresh(d, e, rev);
    return e;
}

/* entry_gone - what is left is its tombstone; the network's alone. */
static void entry_gone(struct disp_net *d, struct dnet_entry *e)
{
    struct dnet_net *n = e->net;
    CHECK(!d->loading);
    list_remove(&n->live, &e->link);
    e->gone = true;
    e->link.rev = d->revision;
    list_append(&n->gone, &e->link);
    while (n->gone.n > TOMBSTONES_MIN + 2 * n->live.n) {
        struct dnet_link *k = n->gone.first;
        CHECK(k != NULL);
        n->floor = k->rev; /* NOLINT(clang-analyzer-unix.Malloc): what was freed is off the list */
        list_remove(&n->gone, k);
        free(k);
    }
    touch(d, n);
}

static uint64_t newest(const struct dnet_net *n)
{
    uint64_t at = n->rev;
    if (n->live.last && n->live.last->rev > at)
        at = n->live.last->rev;
    if (n->gone.last && n->gone.last->rev > at)
        at = n->gone.last->rev;
    return at;
}

/* ---- calls that wait: a heap by time, and a queue of those to answer ---- */

static void heap_set(struct disp_net *d, size_t at, struct dnet_node *n)
{
    d->heap[at - 1] = n;
    n->heap_at = at;
}

static void heap_up(struct disp_net *d, struct dnet_node *n)
{
    size_t at = n->heap_at;
    for (; at > 1 && d->heap[at / 2 - 1]->until_ms > n->until_ms; at /= 2)
        heap_set(d, at, d->heap[at / 2 - 1]);
    heap_set(d, at, n);
}

static void heap_down(struct disp_net *d, struct dnet_node *n)
{
    size_t at = n->heap_at;
    for (size_t c; (c = 2 * at) <= d->nheap; at = c) {
        if (c < d->nheap && d->heap[c]->until_ms < d->heap[c - 1]->until_ms)
            c++;
        if (d->heap[c - 1]->until_ms >= n->until_ms)
            break;
        heap_set(d, at, d->heap[c - 1]);
    }
    heap_set(d, at, n);
}

static void heap_remove(struct disp_net *d, struct dnet_node *n)
{
    size_t at = n->heap_at;
    if (at == 0)
        return;
    struct dnet_node *last = d->heap[--d->nheap];
    n->heap_at = 0;
    if (last == n)
        return;
    heap_set(d, at, last);
    heap_up(d, last);
    heap_down(d, last);
}

static void heap_add(struct disp_net *d, struct dnet_node *n)
{
    d->heap = grow(d->heap, d->nheap, &d->cheap, sizeof(struct dnet_node *));
    n->heap_at = ++d->nheap;
    heap_up(d, n);
}

static void heat(struct disp_net *d, struct dnet_node *n)
{
    if (n->hot || !n->poll)
        return;
    heap_remove(d, n);
    n->hot = true;
    n->next_hot = NULL;
    *d->hot_end = n;
    d->hot_end = &n->next_hot;
    d->nhot++;
}

static void cool(struct disp_net *d, struct dnet_node *n)
{
    struct dnet_node **at = &d->hot;
    if (!n->hot)
        return;
    while (*at != n) {
        CHECK(*at != NULL);
        at = &(*at)->next_hot;
    }
    *at = n->next_hot;
    if (!*at)
        d->hot_end = at;
    n->hot = false;
    d->nhot--;
}

static void *take_poll(struct disp_net *d, struct dnet_node *n)
{
    void *call = n->poll;
    if (!call)
        return NULL;
    heap_remove(d, n);
    cool(d, n);
    n->poll = NULL;
    n->req = NULL;
    return call;
}

/* ---- draining ---- */

static bool unheard(const struct dnet_node *n, uint64_t rev)
{
    return n->live && n->acked < rev;
}

static void unpark(struct dnet_wait *w)
{
    if (!w->parked)
        return;
    *(w->prev_parked ? &w->prev_parked->next_parked : &w->parked->parked) = w->next_parked;
    if (w->next_parked)
        w->next_parked->prev_parked = w->prev_parked;
    w->parked = NULL;
}

static void drain_unlink(struct dnet_drains *l, struct dnet_task *t)
{
    *(t->prev_drain ? &t->prev_drain->next_drain : &l->first) = t->next_drain;
    *(t->next_drain ? &t->next_drain->prev_drain : &l->last) = t->prev_drain;
    t->prev_drain = t->next_drain = NULL;
}

static void drain_link(struct dnet_drains *l, struct dnet_task *t)
{
    t->prev_drain = l->last;
    t->next_drain = NULL;
    *(l->last ? &l->last->next_drain : &l->first) = t;
    l->last = t;
}

/* drain_end - it waits for nobody any more. */
static void drain_end(struct disp_net *d, struct dnet_task *t)
{
    if (t->drained && !t->never)
        drain_unlink(&d->over, t);
    t->drained = false;
    if (!t->waits)
        return;
    for (size_t i = 0; i < t->n; i++) {
        struct dnet_wait *w = &t->waits[i];
        unpark(w);
        *(w->prev ? &w->prev->next : &w->net->waits) = w->next;
        if (w->next)
            w->next->prev = w->prev;
    }
    free(t->waits);
    t->waits = NULL;
    drain_unlink(&d->draining, t);
}

/* drain_told - what dnet_task_drained() says of it has changed. */
static void drain_told(struct disp_net *d, struct dnet_task *t)
{
    d->drained = grow(d->drained, d->ndrained, &d->cdrained, sizeof *d->drained);
    CHECK(str_copy(d->drained[d->ndrained++], ID_SIZE, table_key(&d->tasks, t)));
}

static void drain_over(struct disp_net *d, struct dnet_task *t)
{
    drain_end(d, t);
    t->drained = true;
    drain_link(&d->over, t);
    drain_told(d, t);
}

/* advance - on to the next holder that has not heard; the task is drained when there is none on any network. */
static void advance(struct disp_net *d, struct dnet_wait *w)
{
    struct dnet_net *n = w->net;
    unpark(w);
    for (; w->pos < n->nholders; w->pos++) {
        struct dnet_node *node = n->holders[w->pos].node;
        if (!unheard(node, w->task->drain_rev))
            continue;
        w->parked = node;
        w->prev_parked = NULL;
        w->next_parked = node->parked;
        if (node->parked)
            node->parked->prev_parked = w;
        node->parked = w;
        return;
    }
    if (--w->task->waiting == 0)
        drain_over(d, w->task);
}

static void advance_all(struct disp_net *d, struct dnet_task *t)
{
    for (size_t i = 0; t->waits && i < t->n; i++)
        advance(d, &t->waits[i]);
}

static void drain_begin(struct disp_net *d, struct dnet_task *t, uint64_t rev, uint64_t now_ms)
{
    t->waits = calloc(t->n, sizeof *t->waits);
    CHECK(t->waits != NULL);
    t->waiting = t->n;
    t->drain_rev = rev ? rev : d->revision;
    t->drain_until_ms = now_ms + d->drain_wait_ms;
    drain_link(&d->draining, t);
    d->drains++;
    for (size_t i = 0; i < t->n; i++) {
        struct dnet_wait *w = &t->waits[i];
        w->task = t;
        w->net = t->on[i]->net;
        w->next = w->net->waits;
        if (w->next)
            w->next->prev = w;
        w->net->waits = w;
    }
    if (!d->loading)
        advance_all(d, t);
}

/* heard - the node has acknowledged, or is not waited for any more. */
static void heard(struct disp_net *d, struct dnet_node *n)
{
    struct dnet_wait *w = n->parked, *next;
    n->parked = NULL;
    for (struct dnet_wait *i = w; i; i = i->next_parked)
        i->parked = NULL;
    for (; w; w = next) { /* a task that is over by one of them takes its others along, which are parked elsewhere */
        next = w->next_parked;
        w->prev_parked = w->next_parked = NULL;
        advance(d, w);
    }
}

bool dnet_drained(struct disp_net *d, struct str *ret_task)
{
    if (d->drained_at == d->ndrained) {
        d->drained_at = d->ndrained = 0;
        return false;
    }
    *ret_task = str_from(d->drained[d->drained_at++]);
    return true;
}

/* ---- who holds what ---- */

static struct dnet_hold *hold_find(struct dnet_node *node, const struct dnet_net *net)
{
    for (size_t i = 0; i < node->nholds; i++)
        if (node->holds[i].net == net)
            return &node->holds[i];
    return NULL;
}

static struct dnet_hold *hold_get(struct dnet_node *node, struct dnet_net *net)
{
    struct dnet_hold *h = hold_find(node, net);
    if (h)
        return h;
    node->holds = grow(node->holds, node->nholds, &node->cholds, sizeof *node->holds);
    net->holders = grow(net->holders, net->nholders, &net->cholders, sizeof *net->holders);
    h = &node->holds[node->nholds];
    *h = (struct dnet_hold){ .net = net, .at = net->nholders };
    net->holders[net->nholders++] = (struct dnet_holder){ node, node->nholds++ };
    return h;
}

/* hold_drop - the last one of each array takes the place, so those that look through the holders begin again. */
static void hold_drop(struct disp_net *d, struct dnet_node *node, struct dnet_hold *h)
{
    struct dnet_net *net = h->net;
    size_t at = h->at, i = (size_t)(h - node->holds);
    net->holders[at] = net->holders[--net->nholders];
    net->holders[at].node->holds[net->holders[at].at].at = at;
    node->holds[i] = node->holds[--node->nholds];
    if (i < node->nholds)
        node->holds[i].net->holders[node->holds[i].at].at = i;
    touch(d, net);
    for (struct dnet_wait *w = net->waits, *next; w; w = next) {
        next = w->next;
        if (!w->parked) /* through already */
            continue;
        w->pos = 0;
        advance(d, w);
    }
}

static void hold_trim(struct disp_net *d, struct dnet_node *node, struct dnet_hold *h)
{
    if (h->refs == 0 && !h->held)
        hold_drop(d, node, h);
}

static void hold_ref(struct disp_net *d, struct dnet_node *node, struct dnet_net *net)
{
    if (hold_get(node, net)->refs++ == 0)
        heat(d, node);
}

static void hold_unref(struct disp_net *d, struct dnet_node *node, struct dnet_net *net)
{
    struct dnet_hold *h = hold_find(node, net);
    CHECK(h && h->refs > 0);
    if (--h->refs > 0)
        return;
    heat(d, node);
    hold_trim(d, node, h);
}

/* ---- networks ---- */

static struct dnet_net *net_of(struct disp_net *d, struct str id)
{
    bool fresh;
    if (id.n == 0 || id.n >= ID_SIZE)
        return NULL;
    struct dnet_net *n = table_put(&d->nets, id, &fresh);
    if (fresh)
        CHECK(str_copy(n->id, sizeof n->id, id));
    return n;
}

static uint64_t mix_u64(uint64_t h, uint64_t v)
{
    return print_mix(h, (struct str){ (const char *)&v, sizeof v });
}

static struct str raw(struct str doc, const char *path)
{
    struct str s;
    return mp_path(doc, path, &s) ? s : STR("");
}

static struct str text(struct str doc, const char *path)
{
    struct str s;
    return mp_get_str(doc, path, &s) ? s : STR("");
}

static uint64_t rev_of(struct str doc)
{
    uint64_t rev = 0;
    (void)mp_get_u64(doc, "Rev", &rev);
    return rev;
}

static void set_ingress(struct disp_net *d, struct dnet_net *n, bool ingress)
{
    struct dnet_node *node;
    if (n->ingress == ingress)
        return;
    n->ingress = ingress;
    for (struct table_pos pos = { 0 }; table_next(&d->nodes, &pos, NULL, &node);)
        (ingress ? hold_ref : hold_unref)(d, node, n);
    if (ingress) {
        d->ingress = grow(d->ingress, d->ningress, &d->cingress, sizeof(struct dnet_net *));
        d->ingress[d->ningress++] = n;
        return;
    }
    for (size_t i = 0; i < d->ningress; i++)
        if (d->ingress[i] == n)
            d->ingress[i--] = d->ingress[--d->ningress];
}

static void net_changed(struct disp_net *d, struct dnet_net *n, struct str doc)
{
    n->rev = d->loading ? rev_of(doc) : d->revision;
    touch(d, n);
}

void dnet_note_network(struct disp_net *d, struct str id, struct str doc)
{
    struct dnet_net *n = doc.n ? net_of(d, id) : table_get(&d->nets, id);
    uint64_t vni = 0, print;
    bool ingress = false;
    if (!n)
        return;
    (void)mp_get_u64(doc, "State.VNI", &vni);
    (void)mp_get_bool(doc, "Spec.Ingress", &ingress);
    print = mix_u64(print_mix(print_mix(PRINT_NONE, raw(doc, "Spec")), raw(doc, "IPAM")), vni);
    bool there = doc.n != 0 && vni != 0;
    if (there != n->there || (there && print != n->print))
        net_changed(d, n, doc);
    n->there = there;
    n->print = print;
    set_ingress(d, n, doc.n != 0 && ingress);
}

static void free_net(struct dnet_net *n)
{
    free_list(&n->live);
    free_list(&n->gone);
    free(n->holders);
}

/* ---- services ---- */

static struct dnet_service *service_of(struct disp_net *d, struct str id)
{
    return table_put(&d->services, id, NULL);
}

static void service_trim(struct disp_net *d, struct dnet_service *s)
{
    if (s->there || s->tasks)
        return;
    CHECK(s->n == 0);
    free(s->name);
    free(s->on);
    table_del(&d->services, table_key(&d->services, s));
}

/* Where a service is, and what is said about it there. */
struct place {
    struct dnet_net *net;
    uint64_t print;
};

static void place_add(struct disp_net *d, struct place **v, size_t *n, size_t *cap, struct str net, struct str what)
{
    struct dnet_net *at = net_of(d, net);
    size_t i = 0;
    if (!at)
        return;
    while (i < *n && (*v)[i].net != at)
        i++;
    if (i == *n) {
        *v = grow(*v, *n, cap, sizeof **v);
        (*v)[(*n)++] = (struct place){ at, PRINT_NONE };
    }
    (*v)[i].print = print_mix((*v)[i].print, what);
}

static bool each_raw(struct mp_cursor *c, size_t *left, struct str *ret)
{
    return *left && (*left)-- && mp_span(c, ret) == 0;
}

static struct mp_cursor array_of(struct str doc, const char *path, size_t *ret_n)
{
    struct mp_cursor c = mp_cursor(raw(doc, path));
    struct mp_val v;
    *ret_n = raw(doc, path).n && mp_next(&c, &v) == 0 && v.type == MP_ARRAY ? v.n : 0;
    return c;
}

static bool in_ingress_mode(struct str port)
{
    struct str mode = text(port, "PublishMode");
    return mode.n == 0 || str_is(mode, "ingress");
}

/* places_of - as asked for, and as allocated; the ingress network when it publishes a port there. */
static struct place *places_of(struct disp_net *d, struct str doc, size_t *ret_n)
{
    struct place *v = NULL;
    size_t n = 0, cap = 0, left;
    struct str span;
    struct mp_cursor c = array_of(doc, "Spec.TaskTemplate.Networks", &left);
    while (each_raw(&c, &left, &span))
        place_add(d, &v, &n, &cap, text(span, "Target"), raw(span, "Aliases"));
    c = array_of(doc, "Endpoint.VirtualIPs", &left);
    while (each_raw(&c, &left, &span)) {
        struct dnet_net *net = net_of(d, text(span, "NetworkID"));
        if (net && !net->ingress)
            place_add(d, &v, &n, &cap, text(span, "NetworkID"), text(span, "Addr"));
    }
    c = array_of(doc, "Endpoint.Ports", &left);
    while (each_raw(&c, &left, &span))
        for (size_t i = 0; in_ingress_mode(span) && i < d->ningress; i++)
            place_add(d, &v, &n, &cap, str_from(d->ingress[i]->id), span);
    *ret_n = n;
    return v;
}

static void service_entry(struct disp_net *d, struct dnet_service *s, struct str id, const struct place *p,
                          uint64_t rev)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->on[i]->net == p->net) {
            if (s->on[i]->print != p->print) {
                s->on[i]->print = p->print;
                entry_fresh(d, s->on[i], rev);
            }
            return;
        }
    s->on = reallocarray(s->on, s->n + 1, sizeof(struct dnet_entry *));
    CHECK(s->on != NULL);
    s->on[s->n++] = entry_new(d, p->net, DNET_SERVICE, id, p->print, rev);
}

static void service_leave(struct disp_net *d, struct dnet_service *s, const struct place *v, size_t n)
{
    for (size_t i = 0; i < s->n; i++) {
        bool stays = false;
        for (size_t k = 0; k < n; k++)
            stays |= v[k].net == s->on[i]->net;
        if (stays)
            continue;
        entry_gone(d, s->on[i]);
        s->on[i--] = s->on[--s->n];
    }
}

static void old_add(struct disp_net *d, uint64_t rev, enum kind kind, struct str id)
{
    if (rev <= d->floor || id.n >= ID_SIZE)
        return;
    d->old = grow(d->old, d->nold, &d->cold, sizeof *d->old);
    d->old[d->nold] = (struct dnet_old){ .rev = rev, .kind = kind };
    CHECK(str_copy(d->old[d->nold++].id, ID_SIZE, id));
}

static uint64_t drain_period(const struct disp_net *d, struct str doc)
{
    struct mp_cursor c = mp_cursor(raw(doc, "Spec.Labels"));
    struct mp_val v;
    struct str key, val, label = { NULL, 0 };
    uint64_t ms;
    if (raw(doc, "Spec.Labels").n == 0 || mp_next(&c, &v) != 0 || v.type != MP_MAP)
        return d->drain_ms;
    for (size_t i = 0; i < v.n && mp_span(&c, &key) == 0 && mp_span(&c, &val) == 0; i++) /* its key has a dot */
        if (mp_as_str(key, &key) && str_is(key, VIEW_DRAIN_LABEL))
            (void)mp_as_str(val, &label);
    return view_drain_period(label, &ms) ? ms : d->drain_ms;
}

void dnet_note_service(struct disp_net *d, struct str id, struct str doc)
{
    struct dnet_service *s = doc.n ? service_of(d, id) : table_get(&d->services, id);
    struct str name = text(doc, "Spec.Name"), mode = text(doc, "Spec.EndpointSpec.Mode");
    size_t n = 0;
    if (!s || id.n >= ID_SIZE)
        return;
    struct place *v = doc.n ? places_of(d, doc, &n) : NULL;
    for (size_t i = 0; i < n; i++)
        v[i].print = print_mix(print_mix(v[i].print, name), mode);
    service_leave(d, s, v, n);
    for (size_t i = 0; i < n; i++)
        service_entry(d, s, id, &v[i], rev_of(doc));
    free(v);
    s->there = doc.n != 0;
    if (s->there) {
        s->drain_ms = drain_period(d, doc);
        if (!s->name || !str_is(name, s->name)) {
            free(s->name);
            s->name = str_dup(name);
        }
        if (d->loading)
            old_add(d, rev_of(doc), KIND_SERVICE, id); /* it may have left a network */
    }
    service_trim(d, s);
}

uint64_t dnet_drain_ms(const struct disp_net *d, struct str task_doc, struct str service_id)
{
    const struct dnet_service *s = table_get(&d->services, service_id);
    size_t n;
    (void)array_of(task_doc, "NetworksAttachments", &n);
    if (n == 0)
        return 0;
    return s && s->name ? s->drain_ms : d->drain_ms;
}

/* ---- tasks ---- */

static bool stop_wanted(struct str doc)
{
    return task_state_parse(text(doc, "DesiredState")) >= TASK_SHUTDOWN;
}

static enum dnet_state state_of(struct str doc)
{
    enum task_state desired = task_state_parse(text(doc, "DesiredState")),
                    now = task_state_parse(text(doc, "Status.State"));
    if (now < TASK_ASSIGNED || now > TASK_RUNNING)
        return DNET_GONE;
    if (now < TASK_RUNNING || desired < TASK_RUNNING)
        return DNET_STARTING;
    return desired >= TASK_SHUTDOWN ? DNET_DRAINING : DNET_READY;
}

static void task_leave(struct disp_net *d, struct dnet_task *t, size_t i)
{
    hold_unref(d, t->node, t->on[i]->net);
    entry_gone(d, t->on[i]);
    t->on[i] = t->on[--t->n];
}

static void task_drop(struct disp_net *d, struct dnet_task *t)
{
    struct dnet_service *s = table_get(&d->services, str_from(t->service));
    drain_end(d, t);
    while (t->n)
        task_leave(d, t, t->n - 1);
    free(t->on);
    table_del(&d->tasks, table_key(&d->tasks, t));
    if (s) {
        s->tasks--;
        service_trim(d, s);
    }
}

static bool same_networks(const struct dnet_task *t, struct str doc)
{
    size_t left, n = 0;
    struct str span;
    struct mp_cursor c = array_of(doc, "NetworksAttachments", &left);
    while (each_raw(&c, &left, &span)) {
        struct str id = text(span, "NetworkID");
        size_t i = 0;
        while (i < t->n && !str_is(id, t->on[i]->net->id))
            i++;
        if (i == t->n)
            return false;
        n++;
    }
    return n == t->n;
}

static void task_enter(struct disp_net *d, struct dnet_task *t, struct str id, struct str doc)
{
    size_t left;
    struct str span;
    struct mp_cursor c = array_of(doc, "NetworksAttachments", &left);
    if (left > NET_PER_TASK_MAX)
        left = NET_PER_TASK_MAX;
    t->on = calloc(left + 1, sizeof(struct dnet_entry *));
    CHECK(t->on != NULL);
    while (each_raw(&c, &left, &span)) {
        struct dnet_net *net = net_of(d, text(span, "NetworkID"));
        bool twice = false;
        for (size_t i = 0; i < t->n; i++)
            twice |= t->on[i]->net == net; /* NOLINT(clang-analyzer-core.NullDereference): i is below n */
        if (!net || twice)
            continue;
        t->on[t->n++] = entry_new(d, net, DNET_ENDPOINT, id, 0, rev_of(doc));
        hold_ref(d, t->node, net);
    }
}

static void task_state(struct disp_net *d, struct dnet_task *t, enum dnet_state state, uint64_t rev, uint64_t now_ms)
{
    enum dnet_state before = t->state;
    t->state = state;
    if (state == before)
        return;
    drain_end(d, t);
    if (state != DNET_DRAINING)
        return;
    if (t->never)
        t->drained = true; /* nobody was ever told to connect to it */
    else
        drain_begin(d, t, d->loading ? rev : d->revision, now_ms);
}

static struct dnet_task *task_new(struct disp_net *d, struct dnet_node *node, struct str id, struct str doc)
{
    struct str service = text(doc, "ServiceID");
    struct dnet_task *t = table_put(&d->tasks, id, NULL);
    t->node = node;
    if (service.n && str_copy(t->service, sizeof t->service, service))
        service_of(d, service)->tasks++;
    task_enter(d, t, id, doc);
    return t;
}

void dnet_note_task(struct disp_net *d, struct str id, struct str doc, uint64_t now_ms)
{
    struct dnet_task *t = table_get(&d->tasks, id);
    enum dnet_state state = doc.n ? state_of(doc) : DNET_GONE;
    struct dnet_node *node = doc.n ? table_get(&d->nodes, text(doc, "NodeID")) : NULL;
    size_t n = 0;
    if (id.n >= ID_SIZE)
        return;
    if (doc.n)
        (void)array_of(doc, "NetworksAttachments", &n);
    if (state == DNET_GONE || !node || n == 0) {
        if (t)
            task_drop(d, t);
        else if (d->loading && state == DNET_GONE)
            old_add(d, rev_of(doc), KIND_TASK, id);
        else if (d->loading && !node && n) /* its node was removed, nobody knows when */
            old_add(d, d->begin, KIND_TASK, id);
        return;
    }
    if (t && (t->node != node || !same_networks(t, doc))) { /* does not happen, but then it is another one */
        task_drop(d, t);
        t = NULL;
    }
    bool fresh = t == NULL;
    if (fresh)
        t = task_new(d, node, id, doc);
    uint64_t print =
        mix_u64(print_mix(print_mix(PRINT_NONE, raw(doc, "NetworksAttachments")), raw(doc, "ServiceID")), state);
    for (size_t i = 0; i < t->n; i++)
        if (t->on[i]->print != print) { /* NOLINT(clang-analyzer-core.NullDereference): i is below n */
            t->on[i]->print = print;
            if (!fresh)
                entry_fresh(d, t->on[i], 0);
        }
    t->rev = rev_of(doc);
    if (state == DNET_STARTING && stop_wanted(doc))
        t->never = true;
    task_state(d, t, state, rev_of(doc), now_ms);
}

bool dnet_task_drained(const struct disp_net *d, struct str task, struct str doc)
{
    const struct dnet_task *t = table_get(&d->tasks, task);
    size_t n;
    if (!stop_wanted(doc))
        return false;
    if (!t) {
        (void)array_of(doc, "NetworksAttachments", &n);
        return n == 0 || state_of(doc) == DNET_GONE || !table_get(&d->nodes, text(doc, "NodeID"));
    }
    if (t->rev != rev_of(doc)) /* nothing is decided on half the news */
        return false;
    return t->state == DNET_DRAINING ? t->drained : t->never;
}

/* ---- nodes ---- */

static struct str node_addr(struct str doc)
{
    struct str addr = text(doc, "DataPathAddr");
    return addr.n ? addr : text(doc, "Status.Addr");
}

static void node_gone(struct disp_net *d, struct dnet_node *n)
{
    struct dnet_task *t;
    CHECK(n->poll == NULL);
    for (struct table_pos pos = { 0 }; table_next(&d->tasks, &pos, NULL, &t);)
        if (t->node == n)
            task_drop(d, t); /* what belonged to it is given up */
    n->live = false;
    heard(d, n);
    while (n->nholds)
        hold_drop(d, n, &n->holds[n->nholds - 1]);
    entry_gone(d, n->entry);
    free(n->holds);
    table_del(&d->nodes, str_from(n->id));
}

void dnet_note_node(struct disp_net *d, struct str id, struct str doc)
{
    bool fresh;
    if (id.n == 0 || id.n >= ID_SIZE)
        return;
    struct dnet_node *n = table_get(&d->nodes, id);
    if (doc.n == 0) {
        if (n)
            node_gone(d, n);
        return;
    }
    uint64_t print = print_mix(print_mix(print_mix(PRINT_NONE, node_addr(doc)), text(doc, "Description.Hostname")),
                               text(doc, "BootID"));
    n = table_put(&d->nodes, id, &fresh);
    if (fresh) {
        CHECK(str_copy(n->id, sizeof n->id, id));
        n->entry = entry_new(d, &d->swarm, DNET_NODE, id, print, rev_of(doc));
        hold_ref(d, n, &d->swarm);
        for (size_t i = 0; i < d->ningress; i++)
            hold_ref(d, n, d->ingress[i]);
    } else if (n->entry->print != print) {
        n->entry->print = print;
        entry_fresh(d, n->entry, 0);
    }
}

static bool shares_network(struct dnet_node *n, const struct dnet_task *t)
{
    for (size_t i = 0; i < t->n; i++)
        if (hold_find(n, t->on[i]->net))
            return true;
    return false;
}

/* Who comes back may not have heard what was decided without it. */
void dnet_live(struct disp_net *d, struct str node, bool live, uint64_t now_ms)
{
    struct dnet_node *n = table_get(&d->nodes, node);
    if (!n || n->live == live)
        return;
    n->live = live;
    if (!live)
        heard(d, n);
    for (struct dnet_task *t = live ? d->over.first : NULL, *next; t; t = next) {
        next = t->next_drain;
        if (unheard(n, t->drain_rev) && shares_network(n, t)) {
            drain_end(d, t);
            drain_begin(d, t, t->drain_rev, now_ms);
            drain_told(d, t);
        }
    }
}

void dnet_note_keys(struct disp_net *d, struct str doc)
{
    d->keys_rev = d->loading ? rev_of(doc) : d->revision;
    touch(d, &d->swarm);
}

/* ---- from nothing ---- */

void dnet_clear(struct disp_net *d)
{
    struct dnet_net *n;
    struct dnet_task *t;
    struct dnet_service *s;
    struct dnet_node *node;
    for (size_t i = 0; i < d->nload; i++)
        free(d->load[i]);
    for (struct table_pos p = { 0 }; table_next(&d->tasks, &p, NULL, &t);) {
        free(t->on);
        free(t->waits);
    }
    for (struct table_pos p = { 0 }; table_next(&d->services, &p, NULL, &s);) {
        free(s->name);
        free(s->on);
    }
    for (struct table_pos p = { 0 }; table_next(&d->nodes, &p, NULL, &node);) {
        CHECK(node->poll == NULL);
        free(node->holds);
    }
    for (struct table_pos p = { 0 }; table_next(&d->nets, &p, NULL, &n);)
        free_net(n);
    free_net(&d->swarm);
    d->swarm = (struct dnet_net){ 0 };
    table_clear(&d->tasks);
    table_clear(&d->services);
    table_clear(&d->nodes);
    table_clear(&d->nets);
    d->nload = d->nold = d->ningress = d->ndrained = d->drained_at = 0;
    d->changed = NULL;
    d->draining = d->over = (struct dnet_drains){ NULL, NULL };
    d->revision = d->keys_rev = d->begin = d->floor = 0;
    d->loading = false;
    CHECK(d->nheap == 0 && d->nhot == 0);
}

void dnet_done(struct disp_net *d)
{
    dnet_clear(d);
    table_done(&d->tasks);
    table_done(&d->services);
    table_done(&d->nodes);
    table_done(&d->nets);
    free(d->load);
    free(d->old);
    free(d->ingress);
    free(d->heap);
    free(d->drained);
    *d = (struct disp_net){ 0 };
}

static void remember(void *arg, uint64_t revision, enum kind kind, struct str id, char op)
{
    if (op == 'd' && (kind == KIND_TASK || kind == KIND_SERVICE || kind == KIND_NODE))
        old_add(arg, revision, kind, id);
}

void dnet_load(struct disp_net *d, struct store_snap *snap, uint64_t revision)
{
    struct err e;
    dnet_clear(d);
    d->revision = d->begin = revision;
    d->floor = store_log_start(snap);
    if (d->floor + LOOK_BACK < revision)
        d->floor = revision - LOOK_BACK;
    d->loading = true;
    if (store_changes(snap, d->floor, remember, d, &e) != 0)
        d->floor = revision;
}

static int by_rev(const void *a, const void *b)
{
    uint64_t x = (*(struct dnet_entry *const *)a)->link.rev, y = (*(struct dnet_entry *const *)b)->link.rev;
    return x < y ? -1 : x > y;
}

static int old_by_rev(const void *a, const void *b)
{
    uint64_t x = ((const struct dnet_old *)a)->rev, y = ((const struct dnet_old *)b)->rev;
    return x < y ? -1 : x > y;
}

void dnet_loaded(struct disp_net *d)
{
    struct dnet_task *t;
    d->loading = false;
    if (d->nload)
        qsort(d->load, d->nload, sizeof(struct dnet_entry *), by_rev);
    for (size_t i = 0; i < d->nload; i++) {
        if (d->load[i]->link.rev == 0 || d->load[i]->link.rev > d->revision)
            d->load[i]->link.rev = d->revision;
        list_append(&d->load[i]->net->live, &d->load[i]->link);
    }
    free(d->load);
    d->load = NULL;
    d->nload = d->cload = 0;
    if (d->nold)
        qsort(d->old, d->nold, sizeof *d->old, old_by_rev);
    if (d->nold > OLD_MAX) {
        size_t drop = d->nold - OLD_MAX;
        d->floor = d->old[drop - 1].rev;
        memmove(d->old, d->old + drop, OLD_MAX * sizeof *d->old);
        d->nold = OLD_MAX;
    }
    for (struct table_pos p = { 0 }; table_next(&d->tasks, &p, NULL, &t);)
        advance_all(d, t);
}

/* ---- turns ---- */

void dnet_turn(struct disp_net *d, uint64_t revision)
{
    d->revision = revision;
    if (d->begin != d->floor &&
        revision - d->begin > STORE_LOG_KEEP) { /* whoever still needs that is told everything */
        free(d->old);
        d->old = NULL;
        d->nold = d->cold = 0;
        d->floor = d->begin;
    }
}

static bool has_news(const struct disp_net *d, const struct dnet_node *n)
{
    if (n->seq > d->revision)
        return false;
    if (n->seq < d->floor || n->seq == 0 || n->strangers || newest(&d->swarm) > n->seq || d->keys_rev > n->seq)
        return true;
    if (d->nold && d->old[d->nold - 1].rev > n->seq)
        return true;
    for (size_t i = 0; i < n->nholds; i++) {
        const struct dnet_hold *h = &n->holds[i];
        bool wanted = h->refs && h->net->there;
        if (h->net != &d->swarm && (wanted != h->held || (wanted && newest(h->net) > n->seq)))
            return true;
    }
    return false;
}

void dnet_settle(struct disp_net *d)
{
    for (struct dnet_net *n = d->changed, *next; n; n = next) {
        next = n->next_changed;
        n->changed = false;
        n->next_changed = NULL;
        for (size_t i = 0; i < n->nholders; i++)
            if (n->holders[i].node->poll && !n->holders[i].node->hot && has_news(d, n->holders[i].node))
                heat(d, n->holders[i].node);
        if (n != &d->swarm && !n->there && !n->ingress && n->live.n == 0 && n->nholders == 0) {
            CHECK(n->waits == NULL);
            free_net(n);
            table_del(&d->nets, str_from(n->id));
        }
    }
    d->changed = NULL;
}

/* ---- calls ---- */

/* take_held - what it says it holds, and nothing else. */
static void take_held(struct disp_net *d, struct dnet_node *n, const struct disp_network *req)
{
    for (size_t i = 0; i < n->nholds; i++)
        n->holds[i].held = false;
    n->strangers = false;
    for (size_t i = 0; req->Seq && i < req->Networks.n; i++) {
        struct dnet_net *net = table_get(&d->nets, req->Networks.v[i]);
        if (net)
            hold_get(n, net)->held = true;
        else
            n->strangers = true;
    }
    for (size_t i = n->nholds; i-- > 0;)
        hold_trim(d, n, &n->holds[i]);
}

bool dnet_ask(struct disp_net *d, struct str node, void *call, const struct disp_network *req, uint64_t now_ms,
              void **ret_before, uint64_t *ret_before_seq)
{
    struct dnet_node *n = table_get(&d->nodes, node);
    *ret_before = NULL;
    if (!n)
        return false;
    *ret_before_seq = n->seq;
    *ret_before = take_poll(d, n);
    n->seq = req->Seq;
    n->acked = req->Seq > d->revision ? 0 : req->Seq;
    take_held(d, n, req);
    heard(d, n);
    n->poll = call;
    n->req = req;
    uint64_t wait = req->WaitMs < DNET_WAIT_MAX_MS ? req->WaitMs : DNET_WAIT_MAX_MS;
    if (req->Seq > d->revision && wait < DNET_AHEAD_MS)
        wait = DNET_AHEAD_MS;
    n->until_ms = now_ms + wait;
    if (wait == 0 || has_news(d, n))
        heat(d, n);
    else
        heap_add(d, n);
    return true;
}

void *dnet_answered(struct disp_net *d, struct dnet_node *n)
{
    for (size_t i = 0; i < n->nholds; i++) {
        struct dnet_hold *h = &n->holds[i];
        if (h->net != &d->swarm && h->refs && h->net->there)
            h->held = true; /* until it says otherwise */
    }
    return take_poll(d, n);
}

void *dnet_withdraw(struct disp_net *d, struct str node)
{
    struct dnet_node *n = table_get(&d->nodes, node);
    return n ? take_poll(d, n) : NULL;
}

void *dnet_withdraw_any(struct disp_net *d)
{
    struct dnet_node *n = d->hot ? d->hot : d->nheap ? d->heap[d->nheap - 1] : NULL;
    return n ? take_poll(d, n) : NULL;
}

void dnet_tick(struct disp_net *d, uint64_t now_ms)
{
    while (d->nheap && d->heap[0]->until_ms <= now_ms)
        heat(d, d->heap[0]);
    while (d->draining.first && d->draining.first->drain_until_ms <= now_ms) {
        d->late++;
        drain_over(d, d->draining.first);
    }
}

static int64_t tokens_at(const struct disp_net *d, uint64_t now_ms)
{
    uint64_t passed = now_ms > d->tokens_ms ? now_ms - d->tokens_ms : 0;
    if (passed > 1000000)
        return TOKENS_MAX;
    int64_t have = d->tokens + (int64_t)passed * TOKENS_MS;
    return have < TOKENS_MAX ? have : TOKENS_MAX;
}

uint64_t dnet_due(const struct disp_net *d, uint64_t now_ms)
{
    uint64_t at = d->nheap ? d->heap[0]->until_ms : DNET_NEVER;
    if (d->draining.first && d->draining.first->drain_until_ms < at)
        at = d->draining.first->drain_until_ms;
    if (d->hot) {
        /* not for each token, but for some at a time */
        int64_t have = tokens_at(d, now_ms), least = d->nhot < TOKENS_MAX / 4 ? 1 : TOKENS_MAX / 4;
        uint64_t then = have >= least ? now_ms : now_ms + (uint64_t)((least - have + TOKENS_MS - 1) / TOKENS_MS);
        at = then < at ? then : at;
    }
    return at;
}

struct dnet_node *dnet_next(struct disp_net *d, uint64_t now_ms)
{
    d->tokens = tokens_at(d, now_ms);
    d->tokens_ms = now_ms;
    return d->tokens > 0 ? d->hot : NULL;
}

void dnet_spent(struct disp_net *d, size_t bytes, bool shared)
{
    d->tokens -= 1 + (int64_t)(bytes / (shared ? TOKEN_SHARED_BYTES : TOKEN_BYTES));
}

void dnet_check(const struct disp_net *d)
{
    struct dnet_net *n;
    struct dnet_task *t;
    struct dnet_node *node;
    size_t polls = 0, drains = 0, over = 0;
    for (struct table_pos p = { 0 }; table_next(&d->nets, &p, NULL, &n);) {
        uint64_t before = 0;
        for (const struct dnet_link *k = n->live.first; k; before = k->rev, k = k->next)
            CHECK(k->rev >= before && k->rev <= d->revision && !((const struct dnet_entry *)k)->gone);
        before = n->floor;
        for (const struct dnet_link *k = n->gone.first; k; before = k->rev, k = k->next)
            CHECK(k->rev >= before && ((const struct dnet_entry *)k)->gone);
        for (size_t i = 0; i < n->nholders; i++)
            CHECK(n->holders[i].node->holds[n->holders[i].at].net == n &&
                  n->holders[i].node->holds[n->holders[i].at].at == i);
    }
    for (struct table_pos p = { 0 }; table_next(&d->tasks, &p, NULL, &t);) {
        CHECK(t->state != DNET_GONE && t->n > 0);
        CHECK((t->waits != NULL) == (t->state == DNET_DRAINING && !t->drained));
        for (size_t i = 0; t->waits && i < t->n; i++)
            CHECK(!t->waits[i].parked || unheard(t->waits[i].parked, t->drain_rev));
        drains += t->waits != NULL;
        over += t->drained && !t->never;
    }
    for (struct table_pos p = { 0 }; table_next(&d->nodes, &p, NULL, &node);) {
        CHECK((node->poll != NULL) == (node->hot || node->heap_at != 0));
        CHECK(!node->poll || node->hot || !has_news(d, node) || d->changed);
        for (const struct dnet_wait *w = node->parked; w; w = w->next_parked)
            CHECK(w->parked == node);
        polls += node->poll != NULL;
    }
    CHECK(polls == d->nheap + d->nhot);
    for (t = d->draining.first; t; t = t->next_drain)
        drains--;
    for (t = d->over.first; t; t = t->next_drain)
        over--;
    CHECK(drains == 0 && over == 0);
}
