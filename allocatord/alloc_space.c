/* alloc_space.c - see alloc_space.h. */
#include "allocatord/alloc_space.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/daemon/log.h"
#include "common/util/check.h"

#define VIEW_BYTES (4u << 20)

void space_init(struct space *s)
{
    *s = (struct space){ .vni_cursor = VNI_FIRST };
    table_init(&s->nets, sizeof(struct alloc_net));
    table_init(&s->claimed, 0);
    table_init(&s->doubtful, 0);
}

static void text_set(struct str *to, struct str from)
{
    if (str_eq(*to, from))
        return;
    free((char *)to->p);
    *to = from.n ? (struct str){ str_dup(from), from.n } : (struct str){ NULL, 0 };
}

static void pools_drop(struct alloc_net *net)
{
    for (size_t i = 0; i < net->npools; i++)
        pool_done(&net->pools[i]);
    free(net->pools);
    net->pools = NULL;
    net->npools = 0;
}

static void net_done(struct alloc_net *net)
{
    pools_drop(net);
    table_done(&net->waiters);
    text_set(&net->name, STR(""));
    text_set(&net->error, STR(""));
}

void space_clear(struct space *s)
{
    struct alloc_net *net;
    for (struct table_pos p = { 0 }; table_next(&s->nets, &p, NULL, &net);)
        net_done(net);
    table_clear(&s->nets);
    table_clear(&s->claimed);
    table_clear(&s->doubtful);
    subnets_clear(&s->subnets);
    s->ingress[0] = 0;
    s->cursor4 = s->cursor6 = (struct ip){ 0 };
    s->vni_cursor = VNI_FIRST;
}

void space_done(struct space *s)
{
    space_clear(s);
    table_done(&s->nets);
    table_done(&s->claimed);
    table_done(&s->doubtful);
    subnets_done(&s->subnets);
}

struct alloc_net *space_net(struct space *s, struct str id)
{
    return table_get(&s->nets, id);
}

/* ---- names of reservations ---- */

struct str addr_reservation(char buf[RESERVATION_ID_SIZE], struct str net, struct ip ip)
{
    char text[IP_TEXT_MAX];
    int n = snprintf(buf, RESERVATION_ID_SIZE, "addr/" STR_FMT "/%s", STR_ARG(net), ip_text(ip, text));
    CHECK(n > 0 && n < (int)RESERVATION_ID_SIZE); /* apid makes networks' IDs, of 25 characters */
    return (struct str){ buf, (size_t)n };
}

struct str subnet_reservation(char buf[RESERVATION_ID_SIZE], struct cidr c)
{
    char text[CIDR_TEXT_MAX];
    int n = snprintf(buf, RESERVATION_ID_SIZE, "subnet/%s", cidr_text(cidr_masked(c), text));
    return (struct str){ buf, (size_t)n };
}

struct str vni_reservation(char buf[RESERVATION_ID_SIZE], uint64_t vni)
{
    int n = snprintf(buf, RESERVATION_ID_SIZE, "vni/%" PRIu64, vni);
    return (struct str){ buf, (size_t)n };
}

static struct str behind_prefix(struct str s, size_t n)
{
    return (struct str){ s.p + n, s.n - n };
}

bool addr_split(struct str reservation, struct str *ret_net, struct ip *ret_ip)
{
    if (!str_starts(reservation, STR("addr/")))
        return false;
    struct str rest = behind_prefix(reservation, 5);
    const char *slash = rest.n ? memchr(rest.p, '/', rest.n) : NULL;
    if (slash == NULL)
        return false;
    *ret_net = (struct str){ rest.p, (size_t)(slash - rest.p) };
    return ip_parse(behind_prefix(rest, ret_net->n + 1), ret_ip);
}

/* ---- following the store ---- */

static void mark_addr(struct alloc_net *net, struct ip ip, bool used)
{
    for (size_t i = 0; i < net->npools; i++)
        pool_set(&net->pools[i], ip, used);
}

void space_sync(struct space *s, struct store_snap *snap, struct str reservation)
{
    struct str doc, net;
    struct cidr c;
    struct ip ip;
    bool used =
        table_get(&s->claimed, reservation) != NULL || store_get(snap, KIND_RESERVATION, reservation, &doc) == 0;
    if (addr_split(reservation, &net, &ip)) {
        struct alloc_net *n = space_net(s, net);
        if (n)
            mark_addr(n, ip, used);
    } else if (str_starts(reservation, STR("subnet/")) && cidr_parse(behind_prefix(reservation, 7), &c)) {
        if (used)
            (void)subnets_add(&s->subnets, c);
        else
            subnets_del(&s->subnets, c);
    }
}

void net_set_error(struct alloc_net *net, struct str error)
{
    text_set(&net->error, error);
}

void net_set_pools(struct alloc_net *net, const struct subnet *v, size_t n)
{
    pools_drop(net);
    net->pools = calloc(n + 1, sizeof *net->pools);
    CHECK(net->pools != NULL);
    for (size_t i = 0; i < n; i++)
        subnet_pool(&v[i], &net->pools[i]);
    net->npools = n;
}

/* load_pools - of a network that has been allocated: its subnets, and which of their addresses are in use. */
static void load_pools(struct space *s, struct store_snap *snap, struct alloc_net *net, const struct view_network *v,
                       struct arena *a)
{
    const struct view_ipam_config *c = v->IPAM.Config.v;
    struct subnet *subnets = arena_array(a, v->IPAM.Config.n + 1, sizeof *subnets);
    char prefix[STORE_ID_MAX + 8];
    struct store_iter it;
    struct err e;
    struct str id;
    struct ip ip;
    size_t n = 0;
    CHECK(subnets != NULL);
    for (size_t i = 0; i < v->IPAM.Config.n; i++)
        if (subnet_read(&c[i], &subnets[n], &e) == 0 && subnets[n].net.ip.family)
            n++;
    net_set_pools(net, subnets, n);
    int len = snprintf(prefix, sizeof prefix, "addr/" STR_FMT "/", STR_ARG(v->ID));
    for (store_each_prefix(snap, KIND_RESERVATION, (struct str){ prefix, (size_t)len }, &it); store_next(&it);)
        if (addr_split(it.id, &id, &ip)) {
            mark_addr(net, ip, true);
            for (size_t i = 0; i < n; i++)
                pool_past(&net->pools[i], ip);
        }
    for (struct table_pos p = { 0 }; table_next(&s->claimed, &p, &id, NULL);) {
        struct str of;
        if (addr_split(id, &of, &ip) && str_eq(of, v->ID))
            mark_addr(net, ip, true);
    }
}

/* past_vni - as pool_past(), for the numbers that nobody chose. */
static void past_vni(struct space *s, const struct view_network *v)
{
    for (size_t i = 0; i < v->Spec.Options.n; i++)
        if (str_is(v->Spec.Options.v[i].key, VXLAN_OPTION))
            return;
    if (v->State.VNI >= s->vni_cursor)
        s->vni_cursor = v->State.VNI >= VNI_LAST ? VNI_FIRST : v->State.VNI + 1;
}

static void forget_net(struct space *s, struct str id)
{
    struct alloc_net *net = space_net(s, id);
    if (str_is(id, s->ingress))
        s->ingress[0] = 0;
    if (net)
        net_done(net);
    table_del(&s->nets, id);
}

bool space_sync_net(struct space *s, struct store_snap *snap, struct str id)
{
    struct view_network v;
    struct arena a;
    struct err e;
    struct str doc;
    bool fresh;
    if (store_get(snap, KIND_NETWORK, id, &doc) != 0) {
        forget_net(s, id);
        return true;
    }
    arena_init(&a, VIEW_BYTES);
    if (view_network(doc, &v, &a, &e) != 0) {
        log_error("network=" STR_FMT ": %s", STR_ARG(id), e.msg);
        arena_done(&a);
        return false;
    }
    struct alloc_net *net = table_put(&s->nets, id, &fresh);
    if (fresh)
        table_init(&net->waiters, 0);
    text_set(&net->name, v.Spec.Name);
    text_set(&net->error, v.State.VNI ? STR("") : v.State.Error);
    net->ingress = v.Spec.Ingress;
    if (net->ingress && !str_copy(s->ingress, sizeof s->ingress, id))
        s->ingress[0] = 0;
    if (fresh)
        past_vni(s, &v);
    if (v.State.VNI == 0)
        pools_drop(net);
    else if (net->npools == 0)
        load_pools(s, snap, net, &v, &a);
    arena_done(&a);
    return false;
}

/* ---- giving ---- */

bool space_free(struct space *s, struct store_snap *snap, struct str reservation)
{
    struct str doc;
    return table_get(&s->claimed, reservation) == NULL && store_get(snap, KIND_RESERVATION, reservation, &doc) != 0;
}

bool net_has_family(const struct alloc_net *net, uint8_t family)
{
    for (size_t i = 0; i < net->npools; i++)
        if (net->pools[i].subnet.ip.family == family)
            return true;
    return false;
}

bool space_take(struct space *s, struct store_snap *snap, struct alloc_net *net, struct str id, uint8_t family,
                struct cidr *ret)
{
    char buf[RESERVATION_ID_SIZE];
    struct ip ip;
    for (size_t i = 0; i < net->npools; i++) {
        struct alloc_pool *p = &net->pools[i];
        while (p->subnet.ip.family == family && pool_take(p, &ip))
            if (space_free(s, snap, addr_reservation(buf, id, ip))) {
                *ret = (struct cidr){ ip, p->subnet.len };
                return true;
            }
    }
    return false;
}

void space_untake(struct alloc_net *net, struct ip ip)
{
    mark_addr(net, ip, false);
}

void space_claim(struct space *s, struct txn *txn, struct buf *b, struct str reservation, enum kind owner_kind,
                 struct str owner)
{
    reservation = arena_str(&txn->arena, reservation);
    table_put(&s->claimed, reservation, NULL);
    buf_clear(b);
    mp_map(b, 3);
    mp_kv_str(b, "ID", reservation);
    mp_kv_str(b, "OwnerID", owner);
    mp_kv_cstr(b, "OwnerKind", kind_info[owner_kind].name);
    txn_create(txn, KIND_RESERVATION, reservation, txn_doc(txn, b));
}

void space_settle(struct space *s, bool ok)
{
    struct str id;
    for (struct table_pos p = { 0 }; !ok && table_next(&s->claimed, &p, &id, NULL);)
        table_put(&s->doubtful, id, NULL);
    table_clear(&s->claimed);
}

void space_recheck(struct space *s, struct store_snap *snap)
{
    struct str id;
    for (struct table_pos p = { 0 }; table_next(&s->doubtful, &p, &id, NULL);)
        space_sync(s, snap, id);
    table_clear(&s->doubtful);
}
