/* alloc_network.c - subnets and VXLAN ids of networks, and why one has none. */
#include <inttypes.h>
#include <stdio.h>

#include "allocatord/alloc_priv.h"
#include "common/daemon/log.h"
#include "common/util/check.h"

#define SUBNET_LEN 24u
#define SUBNET6_LEN 64u
#define ERROR_MAX 400u

/* One network on its way. */
struct net_job {
    struct alloc *al;
    struct controller_pass *p;
    struct str id;
    struct alloc_net *net;
    struct view_network v;
    struct subnet *subnets;
    size_t n;
    uint64_t vni;
};

static void read_cluster(struct net_job *j, struct view_cluster *ret)
{
    struct store_iter it;
    struct err e;
    *ret = (struct view_cluster){ 0 };
    store_each(j->p->snap, KIND_CLUSTER, &it);
    if (store_next(&it)) {
        if (view_cluster(it.doc, ret, j->p->arena, &e) != 0)
            log_error("%s", e.msg);
        store_iter_done(&it);
    }
}

/* read_nodes - where the nodes are; once in a pass. */
static void read_nodes(struct net_job *j)
{
    struct alloc *al = j->al;
    struct store_iter it;
    if (al->nodes)
        return;
    size_t max = 2 * (size_t)store_count(j->p->snap, KIND_NODE);
    al->nodes = arena_array(j->p->arena, max + 1, sizeof *al->nodes);
    al->nnodes = 0;
    CHECK(al->nodes != NULL);
    for (store_each(j->p->snap, KIND_NODE, &it); store_next(&it);) {
        struct str addr;
        if (al->nnodes < max && mp_get_str(it.doc, "Status.Addr", &addr) && ip_parse(addr, &al->nodes[al->nnodes]))
            al->nnodes++;
        if (al->nnodes < max && mp_get_str(it.doc, "DataPathAddr", &addr) && ip_parse(addr, &al->nodes[al->nnodes]))
            al->nnodes++;
    }
}

/* default_subnet - the next one of the swarm's pools. */
static int default_subnet(struct net_job *j, uint8_t family, struct subnet *s, struct err *e)
{
    struct space *sp = &j->al->space;
    struct ip *cursor = family == 6 ? &sp->cursor6 : &sp->cursor4;
    struct view_cluster c;
    struct cidr *pools;
    size_t n = 0;
    uint8_t len;
    read_cluster(j, &c);
    len = c.SubnetSize && c.SubnetSize <= 32 ? (uint8_t)c.SubnetSize : SUBNET_LEN;
    pools = arena_array(j->p->arena, c.DefaultAddrPool.n + 2, sizeof *pools);
    CHECK(pools != NULL);
    if (family == 6) {
        pools[n++] = subnet_ula(j->p->meta->cluster_id);
        len = SUBNET6_LEN;
    } else {
        for (size_t i = 0; i < c.DefaultAddrPool.n; i++)
            if (cidr_parse(c.DefaultAddrPool.v[i], &pools[n]) && pools[n].ip.family == 4)
                n++;
        if (n == 0)
            n = cidr_parse(STR("10.0.0.0/8"), pools);
    }
    read_nodes(j);
    if (!subnets_away(&sp->subnets, pools, n, len, *cursor, j->al->nodes, j->al->nnodes, &s->net))
        return err_set(e, ERR_CONFLICT,
                       "could not find an available, non-overlapping IPv%u address pool among the "
                       "defaults to assign to the network",
                       family);
    s->range = s->net;
    *cursor = cidr_last(s->net);
    cursor->v++;
    return 0;
}

/* overlap_error - with the name of the network that has it. */
static int overlap_error(struct net_job *j, struct cidr mine, struct cidr theirs, struct err *e)
{
    char buf[RESERVATION_ID_SIZE], a[CIDR_TEXT_MAX], b[CIDR_TEXT_MAX];
    struct str owner;
    const struct alloc_net *other = NULL;
    if (alloc_owner(j->p->snap, subnet_reservation(buf, theirs), &owner))
        other = space_net(&j->al->space, owner);
    return err_set(e, ERR_CONFLICT,
                   "invalid pool request: Pool overlaps with other one on this address space: %s with %s of " STR_FMT,
                   cidr_text(mine, a), cidr_text(theirs, b), other ? (int)other->name.n : 15,
                   other ? other->name.p : "another network");
}

/* add_subnet - marks it in the mirror at once, so that the next one does not overlap with it either. */
static int add_subnet(struct net_job *j, const struct view_ipam_config *c, uint8_t family, struct err *e)
{
    struct subnet *s = &j->subnets[j->n];
    int r = subnet_read(c, s, e);
    if (r == 0 && s->net.ip.family == 6 && !j->v.Spec.EnableIPv6)
        return 0; /* as Docker: not an error, not used */
    if (r == 0 && s->net.ip.family == 0)
        r = default_subnet(j, family, s, e);
    if (r != 0)
        return r;
    const struct cidr *other = subnets_overlap(&j->al->space.subnets, s->net);
    if (other != NULL)
        return overlap_error(j, s->net, *other, e);
    CHECK(subnets_add(&j->al->space.subnets, s->net));
    subnet_gateway(s);
    j->n++;
    return 0;
}

static bool have_family(const struct net_job *j, uint8_t family)
{
    for (size_t i = 0; i < j->n; i++)
        if (j->subnets[i].net.ip.family == family)
            return true;
    return false;
}

static int choose_subnets(struct net_job *j, struct err *e)
{
    const struct view_ipam_config *c = j->v.Spec.IPAM.Config.v;
    size_t n = j->v.Spec.IPAM.Config.n;
    static const struct view_ipam_config any;
    int r = 0;
    j->subnets = arena_array(j->p->arena, n + 2, sizeof *j->subnets);
    CHECK(j->subnets != NULL);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = add_subnet(j, &c[i], 4, e);
    if (r == 0 && !have_family(j, 4))
        r = add_subnet(j, &any, 4, e);
    if (r == 0 && j->v.Spec.EnableIPv6 && !have_family(j, 6))
        r = add_subnet(j, &any, 6, e);
    return r;
}

static int choose_vni(struct net_job *j, struct err *e)
{
    struct space *sp = &j->al->space;
    char buf[RESERVATION_ID_SIZE];
    const struct strmap *o = &j->v.Spec.Options;
    for (size_t i = 0; i < o->n; i++) {
        struct str list = o->v[i].val;
        if (!str_is(o->v[i].key, VXLAN_OPTION))
            continue;
        const char *comma = list.n ? memchr(list.p, ',', list.n) : NULL; /* Docker has one for each subnet */
        if (comma)
            list.n = (size_t)(comma - list.p);
        if (!str_u64(list, &j->vni) || j->vni == 0 || j->vni > VNI_LAST)
            return err_set(e, ERR_INVALID, "invalid vxlan id value \"" STR_FMT "\" passed", STR_ARG(list));
        if (!space_free(sp, j->p->snap, vni_reservation(buf, j->vni)))
            return err_set(e, ERR_CONFLICT, "vxlan id %" PRIu64 " is already in use by another network", j->vni);
        return 0;
    }
    j->vni = VNI_INGRESS;
    if (j->v.Spec.Ingress && space_free(sp, j->p->snap, vni_reservation(buf, j->vni)))
        return 0;
    for (uint64_t i = 0; i <= VNI_LAST - VNI_FIRST; i++) {
        j->vni = sp->vni_cursor;
        sp->vni_cursor = j->vni == VNI_LAST ? VNI_FIRST : j->vni + 1;
        if (space_free(sp, j->p->snap, vni_reservation(buf, j->vni)))
            return 0;
    }
    return err_set(e, ERR_CONFLICT, "no vxlan id is free");
}

static void put_subnet(struct buf *b, const struct subnet *s)
{
    char text[CIDR_TEXT_MAX];
    mp_map(b, 1 + (s->gateway.family != 0) + s->has_range + (s->aux && s->aux->n));
    mp_kv_cstr(b, "Subnet", cidr_text(s->net, text));
    if (s->has_range)
        mp_kv_cstr(b, "IPRange", cidr_text(s->range, text));
    if (s->gateway.family)
        mp_kv_cstr(b, "Gateway", ip_text(s->gateway, text));
    if (s->aux == NULL || s->aux->n == 0)
        return;
    mp_cstr(b, "AuxiliaryAddresses");
    mp_map(b, s->aux->n);
    for (size_t i = 0; i < s->aux->n; i++) {
        mp_str(b, s->aux->v[i].key);
        mp_str(b, s->aux->v[i].val);
    }
}

static void write_network(struct net_job *j)
{
    struct buf *b = &j->al->doc;
    char buf[RESERVATION_ID_SIZE];
    for (size_t i = 0; i < j->n; i++)
        space_claim(&j->al->space, j->p->txn, b, subnet_reservation(buf, j->subnets[i].net), KIND_NETWORK, j->id);
    space_claim(&j->al->space, j->p->txn, b, vni_reservation(buf, j->vni), KIND_NETWORK, j->id);
    buf_clear(b);
    mp_map(b, 3);
    mp_cstr(b, "IPAM");
    mp_map(b, 2);
    mp_kv_str(b, "Driver", j->v.Spec.IPAM.Driver.n ? j->v.Spec.IPAM.Driver : STR("default"));
    mp_cstr(b, "Config");
    mp_array(b, j->n);
    for (size_t i = 0; i < j->n; i++)
        put_subnet(b, &j->subnets[i]);
    mp_cstr(b, "State");
    mp_map(b, 1);
    mp_kv_u64(b, "VNI", j->vni);
    mp_cstr(b, "DriverState");
    mp_map(b, 2);
    mp_kv_cstr(b, "Name", "overlay");
    mp_cstr(b, "Options");
    mp_map(b, 1);
    int n = snprintf(buf, sizeof buf, "%" PRIu64, j->vni);
    mp_kv_str(b, VXLAN_OPTION, (struct str){ buf, (size_t)n });
    txn_merge(j->p->txn, KIND_NETWORK, j->id, txn_doc(j->p->txn, b));
}

static void write_error(struct alloc *al, struct controller_pass *p, struct str id, struct str now, uint64_t vni,
                        struct str error)
{
    struct buf *b = &al->doc;
    if (str_eq(now, error))
        return;
    buf_clear(b);
    mp_map(b, 1);
    mp_cstr(b, "State");
    mp_map(b, (vni != 0) + (error.n != 0));
    if (vni)
        mp_kv_u64(b, "VNI", vni);
    if (error.n)
        mp_kv_str(b, "Error", error);
    txn_merge(p->txn, KIND_NETWORK, id, txn_doc(p->txn, b));
}

static void refuse_network(struct net_job *j, const struct err *e)
{
    for (size_t i = 0; i < j->n; i++)
        subnets_del(&j->al->space.subnets, j->subnets[i].net);
    table_put(&j->al->homeless, j->id, NULL);
    net_set_error(j->net, str_from(e->msg));
    write_error(j->al, j->p, j->id, j->v.State.Error, 0, str_from(e->msg));
}

void alloc_network(struct alloc *al, struct controller_pass *p, struct str id)
{
    struct net_job j = { .al = al, .p = p, .id = id };
    struct str doc;
    struct err e = ERR_INIT;
    if (space_sync_net(&al->space, p->snap, id)) {
        table_del(&al->homeless, id);
        alloc_release(p, id, NULL, 0);
        return;
    }
    j.net = space_net(&al->space, id);
    if (j.net == NULL || store_get(p->snap, KIND_NETWORK, id, &doc) != 0 || view_network(doc, &j.v, p->arena, &e) != 0)
        return;
    if (j.net->npools == 0) {
        if (choose_subnets(&j, &e) != 0 || choose_vni(&j, &e) != 0) {
            refuse_network(&j, &e);
            return;
        }
        table_del(&al->homeless, id);
        write_network(&j);
        net_set_pools(j.net, j.subnets, j.n);
    }
    alloc_wake(al, p->snap, id, SIZE_MAX);
}

void alloc_network_reason(struct alloc *al, struct controller_pass *p, struct str id)
{
    struct alloc_net *net = space_net(&al->space, id);
    struct view_network v;
    char text[ERROR_MAX], cidr[CIDR_TEXT_MAX];
    struct str doc;
    struct err e;
    int n = 0;
    if (net == NULL || store_get(p->snap, KIND_NETWORK, id, &doc) != 0 || view_network(doc, &v, p->arena, &e) != 0 ||
        v.State.VNI == 0)
        return;
    for (size_t i = 0; net->waiters.count && i < net->npools && n < (int)sizeof text - 120; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s%s",
                      n ? ", " : "could not find an available IP: all taken of ", cidr_text(net->pools[i].range, cidr));
    write_error(al, p, id, v.State.Error, v.State.VNI, (struct str){ text, (size_t)n });
}
