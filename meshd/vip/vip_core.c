#include "meshd/vip/vip_core.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "common/util/check.h"

#define ARENA_MAX (64u << 20)

/* ---- addresses and lists ---- */

static size_t ip_size(uint8_t family)
{
    return family == AF_INET6 ? 16 : 4;
}

static struct str ip_key(const struct netmap_ip *ip, char buf[17])
{
    buf[0] = (char)ip->family;
    memcpy(buf + 1, ip->b, ip_size(ip->family));
    return (struct str){ buf, ip_size(ip->family) + 1 };
}

static struct netmap_ip ip_of_key(struct str key)
{
    struct netmap_ip ip = { .family = (uint8_t)key.p[0] };
    ip.prefix = ip.family == AF_INET6 ? 128 : 32;
    memcpy(ip.b, key.p + 1, key.n - 1);
    return ip;
}

static const uint8_t *list_at(const struct vip_list *l, uint32_t i)
{
    return l->addrs + i * ip_size(l->family);
}

static struct vip_list *list_new(uint8_t family, uint32_t n)
{
    struct vip_list *l = calloc(1, sizeof *l + n * ip_size(family));
    CHECK(l != NULL);
    l->refs = 1;
    l->family = family;
    l->n = n;
    return l;
}

static struct vip_list *list_ref(struct vip_list *l)
{
    l->refs++;
    return l;
}

static void list_unref(struct vip_list *l)
{
    if (l && --l->refs == 0)
        free(l);
}

static bool list_has(const struct vip_list *l, const uint8_t *addr)
{
    for (uint32_t i = 0; i < l->n; i++)
        if (memcmp(list_at(l, i), addr, ip_size(l->family)) == 0)
            return true;
    return false;
}

/* list_starts - are a's backends the first ones of b, in the same order? */
static bool list_starts(const struct vip_list *a, const struct vip_list *b)
{
    return a->n <= b->n && a->family == b->family && memcmp(a->addrs, b->addrs, a->n * ip_size(a->family)) == 0;
}

static int cmp4(const void *a, const void *b)
{
    return memcmp(a, b, 4);
}

static int cmp16(const void *a, const void *b)
{
    return memcmp(a, b, 16);
}

/* list_same - the same backends, in whatever order. */
static bool list_same(const struct vip_list *a, const struct vip_list *b)
{
    if (a == b)
        return true;
    if (a->n != b->n || a->family != b->family)
        return false;
    if (list_starts(a, b))
        return true;
    size_t size = ip_size(a->family), len = a->n * size;
    uint8_t *p = malloc(2 * len);
    CHECK(p != NULL);
    memcpy(p, a->addrs, len);
    memcpy(p + len, b->addrs, len);
    qsort(p, a->n, size, size == 4 ? cmp4 : cmp16);
    qsort(p + len, a->n, size, size == 4 ? cmp4 : cmp16);
    bool same = memcmp(p, p + len, len) == 0;
    free(p);
    return same;
}

/* ---- wants ---- */

/* backends - of a service for one of its VIPs: those that stay keep their order, and new ones come behind them, so that
 * growing a service only adds slots. */
static struct vip_list *backends(struct netmap_endpoint **eps, size_t neps, uint8_t family,
                                 const struct vip_list *before)
{
    struct vip_list *found = list_new(family, (uint32_t)(neps < VIP_SLOTS_MAX ? neps : VIP_SLOTS_MAX));
    struct vip_list *out = list_new(family, found->n);
    size_t size = ip_size(family);
    found->n = 0;
    for (size_t i = 0; i < neps && found->n < VIP_SLOTS_MAX; i++)
        for (size_t k = 0; k < eps[i]->nips; k++)
            if (eps[i]->ips[k].family == family) {
                memcpy(found->addrs + found->n++ * size, eps[i]->ips[k].b, size);
                break;
            }
    out->n = 0;
    for (uint32_t i = 0; before && i < before->n; i++)
        if (list_has(found, list_at(before, i)))
            memcpy(out->addrs + out->n++ * size, list_at(before, i), size);
    for (uint32_t i = 0; i < found->n; i++)
        if (!before || !list_has(before, list_at(found, i)))
            memcpy(out->addrs + out->n++ * size, list_at(found, i), size);
    free(found);
    return out;
}

static void tell_gone(const struct vip_net *net, const struct vip_list *old, const struct vip_list *new,
                      vip_gone_fn *gone, void *arg)
{
    for (uint32_t i = 0; gone && old && i < old->n; i++)
        if (!new || !list_has(new, list_at(old, i))) {
            struct netmap_ip ip = { .family = old->family, .prefix = old->family == AF_INET6 ? 128 : 32 };
            memcpy(ip.b, list_at(old, i), ip_size(old->family));
            gone(arg, net->id, &ip);
        }
}

static void want_set(struct vip_net *net, const struct netmap_ip *vip, const char *service,
                     struct netmap_endpoint **eps, size_t neps, vip_gone_fn *gone, void *arg)
{
    char buf[17];
    bool fresh;
    struct str key = ip_key(vip, buf);
    struct vip_want *w = table_put(&net->vips, key, &fresh);
    struct vip_list *l = backends(eps, neps, vip->family, w->list);
    str_copy(w->service, sizeof w->service, str_from(service));
    if (w->list && list_same(w->list, l)) {
        list_unref(l);
        return;
    }
    tell_gone(net, w->list, l, gone, arg);
    list_unref(w->list);
    w->list = l;
    table_put(&net->dirty, key, NULL);
}

static void want_del(struct vip_net *net, const struct netmap_ip *vip, const char *service, vip_gone_fn *gone,
                     void *arg)
{
    char buf[17];
    struct str key = ip_key(vip, buf);
    struct vip_want *w = table_get(&net->vips, key);
    if (!w || strcmp(w->service, service) != 0) /* another service's by now */
        return;
    tell_gone(net, w->list, NULL, gone, arg);
    list_unref(w->list);
    table_del(&net->vips, key);
    table_put(&net->dirty, key, NULL);
}

static bool vips_have(const struct netmap_ip *v, size_t n, const struct netmap_ip *ip)
{
    for (size_t i = 0; i < n; i++)
        if (netmap_ip_eq(&v[i], ip))
            return true;
    return false;
}

static void service_look(struct vip_net *net, const struct netmap *m, const struct netmap_network *n, const char *id,
                         vip_gone_fn *gone, void *arg)
{
    struct netmap_service *s = n ? netmap_service(n, str_from(id)) : NULL;
    struct vip_service *had = table_get(&net->services, str_from(id));
    size_t nvips = s && !s->dnsrr ? s->nvips : 0, neps = 0;
    struct netmap_endpoint **eps = NULL;
    struct arena a;
    for (size_t i = 0; had && i < had->nvips; i++)
        if (!vips_have(nvips ? s->vips : NULL, nvips, &had->vips[i]))
            want_del(net, &had->vips[i], id, gone, arg);
    if (nvips == 0) {
        if (had)
            free(had->vips);
        table_del(&net->services, str_from(id));
        return;
    }
    arena_init(&a, ARENA_MAX);
    neps = netmap_backends(m, n, s, &a, &eps);
    for (size_t i = 0; i < nvips; i++)
        want_set(net, &s->vips[i], id, eps, neps, gone, arg);
    arena_done(&a);
    had = table_put(&net->services, str_from(id), NULL);
    had->vips = realloc(had->vips, nvips * sizeof *had->vips);
    CHECK(had->vips != NULL);
    memcpy(had->vips, s->vips, nvips * sizeof *had->vips);
    had->nvips = nvips;
}

static struct vip_net *net_find(const struct vip_core *c, const char *id)
{
    struct vip_net **n = table_get(&c->nets, str_from(id));
    return n ? *n : NULL;
}

void vip_core_service(struct vip_core *c, const struct netmap *m, const char *network, const char *service,
                      vip_gone_fn *gone, void *arg)
{
    struct vip_net *net = net_find(c, network);
    if (net)
        service_look(net, m, netmap_network(m, str_from(network)), service, gone, arg);
}

static void network_look(struct vip_net *net, const struct netmap *m, vip_gone_fn *gone, void *arg)
{
    const struct netmap_network *n = netmap_network(m, str_from(net->id));
    struct netmap_service **s;
    struct str id;
    char text[ID_SIZE];
    for (struct table_pos pos = { 0 }; table_next(&net->services, &pos, &id, NULL);)
        if ((!n || !netmap_service(n, id)) && str_copy(text, sizeof text, id))
            service_look(net, m, n, text, gone, arg);
    for (struct table_pos pos = { 0 }; n && table_next(&n->services, &pos, NULL, &s);)
        service_look(net, m, n, (*s)->id, gone, arg);
}

void vip_core_network(struct vip_core *c, const struct netmap *m, const char *network, vip_gone_fn *gone, void *arg)
{
    struct vip_net *net = net_find(c, network);
    if (net)
        network_look(net, m, gone, arg);
}

/* ---- networks and sandboxes ---- */

static struct vip_net *net_use(struct vip_core *c, const struct netmap *m, const char *id)
{
    struct vip_net *net = net_find(c, id);
    if (!net) {
        net = calloc(1, sizeof *net);
        CHECK(net != NULL);
        str_copy(net->id, sizeof net->id, str_from(id));
        table_init(&net->vips, sizeof(struct vip_want));
        table_init(&net->services, sizeof(struct vip_service));
        table_init(&net->dirty, 1);
        *(struct vip_net **)table_put(&c->nets, str_from(id), NULL) = net;
        network_look(net, m, NULL, NULL);
        table_clear(&net->dirty); /* nobody is on it yet */
    }
    net->users++;
    return net;
}

static void net_free(struct vip_net *net)
{
    struct vip_want *w;
    struct vip_service *s;
    for (struct table_pos pos = { 0 }; table_next(&net->vips, &pos, NULL, &w);)
        list_unref(w->list);
    for (struct table_pos pos = { 0 }; table_next(&net->services, &pos, NULL, &s);)
        free(s->vips);
    table_done(&net->vips);
    table_done(&net->services);
    table_done(&net->dirty);
    free(net);
}

void vip_core_init(struct vip_core *c)
{
    table_init(&c->nets, sizeof(struct vip_net *));
    table_init(&c->sandboxes, sizeof(struct vip_sandbox *));
}

struct vip_sandbox *vip_core_get(const struct vip_core *c, struct str task)
{
    struct vip_sandbox **sb = table_get(&c->sandboxes, task);
    return sb ? *sb : NULL;
}

struct vip_sandbox *vip_core_add(struct vip_core *c, const struct netmap *m, struct str task,
                                 const char (*nets)[ID_SIZE], size_t nnets, bool ipv6)
{
    struct vip_sandbox *sb = calloc(1, sizeof *sb);
    CHECK(sb != NULL && !vip_core_get(c, task));
    CHECK(str_copy(sb->task, sizeof sb->task, task));
    sb->ipv6 = ipv6;
    sb->stale = true;
    sb->nnets = nnets;
    sb->nets = calloc(nnets + 1, sizeof(struct vip_net *));
    CHECK(sb->nets != NULL);
    for (size_t i = 0; i < nnets; i++)
        sb->nets[i] = net_use(c, m, nets[i]);
    table_init(&sb->vips, sizeof(struct vip_have));
    table_init(&sb->chains, sizeof(struct vip_chain));
    *(struct vip_sandbox **)table_put(&c->sandboxes, task, NULL) = sb;
    return sb;
}

void vip_core_forget(struct vip_sandbox *sb)
{
    struct vip_have *h;
    for (struct table_pos pos = { 0 }; table_next(&sb->vips, &pos, NULL, &h);)
        list_unref(h->list);
    table_clear(&sb->vips);
    table_clear(&sb->chains);
}

void vip_core_del(struct vip_core *c, struct str task)
{
    struct vip_sandbox *sb = vip_core_get(c, task);
    if (!sb)
        return;
    for (size_t i = 0; i < sb->nnets; i++)
        if (--sb->nets[i]->users == 0) {
            struct vip_net *net = sb->nets[i];
            table_del(&c->nets, str_from(net->id));
            net_free(net);
        }
    vip_core_forget(sb);
    table_done(&sb->vips);
    table_done(&sb->chains);
    table_del(&c->sandboxes, task);
    free(sb->nets);
    free(sb);
}

void vip_core_done(struct vip_core *c)
{
    struct str task;
    for (struct table_pos pos = { 0 }; table_next(&c->sandboxes, &pos, &task, NULL);)
        vip_core_del(c, task);
    table_done(&c->sandboxes);
    table_done(&c->nets);
}

/* ---- edits ---- */

void vip_plan_done(struct vip_plan *p)
{
    free(p->now.v);
    free(p->later.v);
    *p = (struct vip_plan){ 0 };
}

static struct vip_edit *edit(struct vip_edits *es, enum vip_edit_type type, const struct netmap_ip *vip)
{
    if (es->n == es->cap) {
        es->cap = es->cap * 2 + 16;
        es->v = realloc(es->v, es->cap * sizeof *es->v);
        CHECK(es->v != NULL);
    }
    struct vip_edit *ed = &es->v[es->n++];
    *ed = (struct vip_edit){ .type = type, .vip = *vip };
    return ed;
}

void vip_chain_name(uint32_t n, uint8_t half, char name[VIP_CHAIN_NAME])
{
    snprintf(name, VIP_CHAIN_NAME, "n%u%c", n, half ? 'b' : 'a');
}

bool vip_chain_parse(const char *name, uint32_t *ret_n, uint8_t *ret_half)
{
    char *end;
    if (name[0] != 'n' || name[1] < '0' || name[1] > '9')
        return false;
    unsigned long n = strtoul(name + 1, &end, 10);
    if (n > VIP_SLOTS_MAX || (end[0] != 'a' && end[0] != 'b') || end[1])
        return false;
    *ret_n = (uint32_t)n;
    *ret_half = end[0] == 'b';
    return true;
}

static struct str chain_key(uint8_t family, uint32_t n, uint8_t half, char buf[VIP_CHAIN_NAME + 1])
{
    buf[0] = family == AF_INET6 ? '6' : '4';
    vip_chain_name(n, half, buf + 1);
    return str_from(buf);
}

static void chain_use(struct vip_sandbox *sb, const struct netmap_ip *vip, uint32_t n, uint8_t half,
                      struct vip_edits *now)
{
    char buf[VIP_CHAIN_NAME + 1];
    bool fresh;
    struct vip_chain *c = table_put(&sb->chains, chain_key(vip->family, n, half, buf), &fresh);
    if (fresh) {
        *c = (struct vip_chain){ .n = n, .family = vip->family, .half = half };
        struct vip_edit *ed = edit(now, VIP_CHAIN_ADD, vip);
        ed->n = n;
        ed->half = half;
    }
    c->users++;
}

static void chain_leave(struct vip_sandbox *sb, const struct vip_have *h)
{
    char buf[VIP_CHAIN_NAME + 1];
    struct vip_chain *c = table_get(&sb->chains, chain_key(h->vip.family, h->list->n, h->half, buf));
    CHECK(c != NULL && c->users > 0);
    c->users--;
}

static void slots_add(const struct netmap_ip *vip, const struct vip_list *l, uint32_t from, uint8_t half,
                      struct vip_edits *out)
{
    for (uint32_t i = from; i < l->n; i++) {
        struct vip_edit *ed = edit(out, VIP_SLOT_ADD, vip);
        ed->slot = half * VIP_HALF + i;
        memcpy(ed->to, list_at(l, i), ip_size(l->family));
    }
}

static void slots_del(const struct vip_have *h, struct vip_edits *out)
{
    for (uint32_t i = 0; i < h->list->n; i++)
        edit(out, VIP_SLOT_DEL, &h->vip)->slot = h->half * VIP_HALF + i;
}

static void verdict(struct vip_sandbox *sb, const struct netmap_ip *vip, uint32_t n, uint8_t half, bool replaces,
                    struct vip_edits *now)
{
    chain_use(sb, vip, n, half, now);
    struct vip_edit *ed = edit(now, VIP_SET, vip);
    ed->n = n;
    ed->half = half;
    ed->replaces = replaces;
}

static void change(struct vip_sandbox *sb, struct vip_have *h, struct vip_list *want, struct vip_plan *p)
{
    bool grows = h->list->n == 0 || (want->n > 0 && list_starts(h->list, want));
    uint8_t half = grows || want->n == 0 ? h->half : !h->half;
    slots_add(&h->vip, want, grows ? h->list->n : 0, half, &p->now);
    chain_leave(sb, h);
    verdict(sb, &h->vip, want->n, half, true, &p->now);
    if (!grows)
        slots_del(h, &p->later);
    list_unref(h->list);
    h->list = list_ref(want);
    h->half = half;
}

/* wanted - by the first of the sandbox's networks that has it. */
static struct vip_list *wanted(const struct vip_sandbox *sb, struct str key)
{
    if (key.p[0] == AF_INET6 && !sb->ipv6)
        return NULL;
    for (size_t i = 0; i < sb->nnets; i++) {
        struct vip_want *w = table_get(&sb->nets[i]->vips, key);
        if (w)
            return w->list;
    }
    return NULL;
}

static void plan_one(struct vip_sandbox *sb, struct str key, struct vip_plan *p)
{
    struct vip_list *want = wanted(sb, key);
    struct vip_have *h = table_get(&sb->vips, key);
    if (!want && !h)
        return;
    if (!h) {
        h = table_put(&sb->vips, key, NULL);
        *h = (struct vip_have){ .vip = ip_of_key(key), .list = list_ref(want) };
        slots_add(&h->vip, want, 0, 0, &p->now);
        verdict(sb, &h->vip, want->n, 0, false, &p->now);
    } else if (!want) {
        edit(&p->now, VIP_DEL, &h->vip);
        slots_del(h, &p->later);
        chain_leave(sb, h);
        list_unref(h->list);
        table_del(&sb->vips, key);
    } else if (!list_same(h->list, want)) {
        change(sb, h, want, p);
    } else if (h->list != want && list_starts(h->list, want)) { /* read back: share it */
        list_unref(h->list);
        h->list = list_ref(want);
    }
}

void vip_core_plan(struct vip_sandbox *sb, struct vip_plan *p)
{
    struct str key;
    for (size_t i = 0; i < sb->nnets; i++)
        for (struct table_pos pos = { 0 }; table_next(&sb->nets[i]->dirty, &pos, &key, NULL);)
            plan_one(sb, key, p);
}

void vip_core_plan_all(struct vip_sandbox *sb, struct vip_plan *p)
{
    struct str key;
    for (struct table_pos pos = { 0 }; table_next(&sb->vips, &pos, &key, NULL);)
        plan_one(sb, key, p);
    for (size_t i = 0; i < sb->nnets; i++)
        for (struct table_pos pos = { 0 }; table_next(&sb->nets[i]->vips, &pos, &key, NULL);)
            plan_one(sb, key, p);
}

void vip_core_settled(struct vip_core *c)
{
    struct vip_net **net;
    for (struct table_pos pos = { 0 }; table_next(&c->nets, &pos, NULL, &net);)
        table_clear(&(*net)->dirty);
}

void vip_core_idle(struct vip_sandbox *sb, struct vip_edits *es)
{
    struct vip_chain *c;
    struct str key;
    size_t idle = 0;
    for (struct table_pos pos = { 0 }; table_next(&sb->chains, &pos, NULL, &c);)
        idle += c->users == 0;
    if (idle <= VIP_IDLE_CHAINS)
        return;
    for (struct table_pos pos = { 0 }; table_next(&sb->chains, &pos, &key, &c);)
        if (c->users == 0) {
            struct vip_edit *ed = edit(es, VIP_CHAIN_DEL, &(struct netmap_ip){ .family = c->family });
            ed->n = c->n;
            ed->half = c->half;
            table_del(&sb->chains, key);
        }
}

/* ---- the kernel's word ---- */

static void *grow(void *v, size_t *cap, size_t n, size_t size)
{
    if (n < *cap)
        return v;
    *cap = *cap * 2 + 16;
    v = realloc(v, *cap * size);
    CHECK(v != NULL);
    return v;
}

void vip_dump_vip(struct vip_dump *d, const struct vip_dump_vip *v)
{
    d->vips = grow(d->vips, &d->cvips, d->nvips, sizeof *d->vips);
    d->vips[d->nvips++] = *v;
}

void vip_dump_slot(struct vip_dump *d, const struct vip_dump_slot *s)
{
    d->slots = grow(d->slots, &d->cslots, d->nslots, sizeof *d->slots);
    d->slots[d->nslots++] = *s;
}

void vip_dump_chain(struct vip_dump *d, const struct vip_chain *c)
{
    d->chains = grow(d->chains, &d->cchains, d->nchains, sizeof *d->chains);
    d->chains[d->nchains++] = *c;
}

void vip_dump_done(struct vip_dump *d)
{
    free(d->vips);
    free(d->slots);
    free(d->chains);
    *d = (struct vip_dump){ 0 };
}

static bool load_vip(struct vip_sandbox *sb, const struct vip_dump_vip *v, struct table *missing)
{
    char buf[17], name[VIP_CHAIN_NAME + 1];
    bool fresh;
    struct vip_chain *c = table_get(&sb->chains, chain_key(v->vip.family, v->n, v->half, name));
    struct vip_have *h = table_put(&sb->vips, ip_key(&v->vip, buf), &fresh);
    if (!fresh) /* listed twice */
        return true;
    if (!c) {
        table_del(&sb->vips, ip_key(&v->vip, buf));
        return false;
    }
    *h = (struct vip_have){ .vip = v->vip, .half = v->half, .list = list_new(v->vip.family, v->n) };
    *(uint32_t *)table_put(missing, ip_key(&v->vip, buf), NULL) = v->n;
    c->users++;
    return true;
}

static void load_slot(struct vip_sandbox *sb, const struct vip_dump_slot *s, struct table *missing, struct table *seen,
                      struct vip_edits *strays)
{
    char buf[17], id[22];
    bool fresh;
    struct str key = ip_key(&s->vip, buf);
    struct vip_have *h = table_get(&sb->vips, key);
    uint32_t first = h ? h->half * VIP_HALF : 0;
    memcpy(id, key.p, key.n);
    memcpy(id + key.n, &s->slot, sizeof s->slot);
    table_put(seen, (struct str){ id, key.n + sizeof s->slot }, &fresh);
    if (!fresh)
        return;
    if (!h || s->slot < first || s->slot - first >= h->list->n) {
        edit(strays, VIP_SLOT_DEL, &s->vip)->slot = s->slot;
        return;
    }
    memcpy(h->list->addrs + (s->slot - first) * ip_size(s->vip.family), s->to, ip_size(s->vip.family));
    --*(uint32_t *)table_get(missing, key);
}

bool vip_core_load(struct vip_sandbox *sb, struct vip_dump *d, struct vip_edits *strays)
{
    char name[VIP_CHAIN_NAME + 1];
    struct table missing, seen;
    uint32_t *left;
    bool whole = true;
    vip_core_forget(sb);
    table_init(&missing, sizeof(uint32_t));
    table_init(&seen, 1);
    for (size_t i = 0; i < d->nchains; i++) {
        const struct vip_chain *c = &d->chains[i];
        struct vip_chain *mine = table_put(&sb->chains, chain_key(c->family, c->n, c->half, name), NULL);
        *mine = (struct vip_chain){ .n = c->n, .family = c->family, .half = c->half };
    }
    for (size_t i = 0; i < d->nvips; i++)
        whole &= load_vip(sb, &d->vips[i], &missing);
    for (size_t i = 0; i < d->nslots; i++)
        load_slot(sb, &d->slots[i], &missing, &seen, strays);
    for (struct table_pos pos = { 0 }; table_next(&missing, &pos, NULL, &left);)
        whole &= *left == 0;
    table_done(&missing);
    table_done(&seen);
    return whole;
}

size_t vip_core_differences(const struct vip_sandbox *sb, struct netmap_ip *vips, size_t max)
{
    struct vip_have *h;
    struct vip_want *w;
    struct str key;
    size_t n = 0;
    for (struct table_pos pos = { 0 }; table_next(&sb->vips, &pos, &key, &h);) {
        struct vip_list *want = wanted(sb, key);
        if ((!want || !list_same(want, h->list)) && n++ < max)
            vips[n - 1] = h->vip;
    }
    for (size_t i = 0; i < sb->nnets; i++)
        for (struct table_pos pos = { 0 }; table_next(&sb->nets[i]->vips, &pos, &key, &w);)
            if (wanted(sb, key) && !table_get(&sb->vips, key) && n++ < max)
                vips[n - 1] = ip_of_key(key);
    return n;
}

void vip_core_verify(const struct vip_core *c)
{
    struct vip_sandbox **sb;
    struct vip_chain *ch;
    struct vip_have *h;
    for (struct table_pos pos = { 0 }; table_next(&c->sandboxes, &pos, NULL, &sb);) {
        size_t users = 0;
        for (struct table_pos p2 = { 0 }; table_next(&(*sb)->chains, &p2, NULL, &ch);)
            users += ch->users;
        CHECK(users == (*sb)->vips.count);
        for (struct table_pos p2 = { 0 }; table_next(&(*sb)->vips, &p2, NULL, &h);) {
            char buf[VIP_CHAIN_NAME + 1];
            ch = table_get(&(*sb)->chains, chain_key(h->vip.family, h->list->n, h->half, buf));
            CHECK(ch && ch->users > 0);
            CHECK(h->list->refs > 0 && h->list->n <= VIP_SLOTS_MAX);
        }
        for (size_t i = 0; i < (*sb)->nnets; i++)
            CHECK((*sb)->nets[i]->users > 0);
    }
}
