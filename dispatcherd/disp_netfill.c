/* disp_netfill.c - what is said about networks, read from the documents. */
#include <arpa/inet.h>
#include <inttypes.h>

#include "common/util/check.h"
#include "dispatcherd/disp_network.h"

#define OLD_ANSWER_MAX 50000u /* so many entries that the node may have heard of: rather everything anew */
#define VXLAN_PORT 4789u

struct filling {
    const struct disp_net *d;
    struct store_snap *snap;
    struct arena *a;
    struct dnet_node *node;
    uint64_t seq;
    struct disp_network_reply *rep;
    size_t cap[8];
};
enum { NETWORKS, SERVICES, ENDPOINTS, NODES, GONE_NETWORKS, GONE_NODES, GONE_SERVICES, GONE_ENDPOINTS };

static void *arena_need(struct arena *a, size_t n, size_t size)
{
    void *p = arena_array(a, n, size);
    CHECK(p != NULL);
    return p;
}

static void *one_more(struct filling *f, struct list *l, int which, size_t size)
{
    if (l->n == f->cap[which]) {
        f->cap[which] = l->n ? l->n * 2 : 8;
        void *more = arena_need(f->a, f->cap[which], size);
        if (l->n)
            memcpy(more, l->v, l->n * size);
        l->v = more;
    }
    return (char *)l->v + size * l->n++;
}

static void add_str(struct filling *f, struct strs *l, int which, struct str s)
{
    struct list as = { l->v, l->n };
    *(struct str *)one_more(f, &as, which, sizeof s) = s;
    *l = (struct strs){ as.v, as.n };
}

static void gone(struct filling *f, struct strs *l, int which, const char *net, const char *id)
{
    char *s = arena_printf(f->a, "%s/%s", net, id);
    CHECK(s != NULL);
    add_str(f, l, which, str_from(s));
}

static struct str text(struct str doc, const char *path)
{
    struct str s;
    return mp_get_str(doc, path, &s) ? s : STR("");
}

/* host - without a prefix length */
static struct str host(struct str addr)
{
    const char *slash = addr.n ? memchr(addr.p, '/', addr.n) : NULL;
    return slash ? (struct str){ addr.p, (size_t)(slash - addr.p) } : addr;
}

/* ---- networks ---- */

static bool option(const struct strmap *m, const char *key, struct str *ret)
{
    for (size_t i = 0; i < m->n; i++)
        if (str_is(m->v[i].key, key)) {
            *ret = m->v[i].val;
            return true;
        }
    return false;
}

static bool six(struct str subnet)
{
    return subnet.n && memchr(subnet.p, ':', subnet.n);
}

void dnet_network(struct str id, struct str doc, struct arena *a, struct net_network *ret)
{
    struct view_network v;
    struct str opt;
    struct err e;
    uint64_t mtu;
    *ret = (struct net_network){ .ID = id };
    if (view_network(doc, &v, a, &e) != 0)
        return;
    ret->Name = v.Spec.Name;
    ret->VNI = v.State.VNI;
    ret->Internal = v.Spec.Internal;
    ret->Ingress = v.Spec.Ingress;
    ret->Attachable = v.Spec.Attachable;
    ret->Encrypted = option(&v.Spec.Options, "encrypted", &opt) && !str_is(opt, "false");
    if (option(&v.Spec.Options, "com.docker.network.driver.mtu", &opt) && str_u64(opt, &mtu) && mtu <= 65535)
        ret->MTU = mtu;
    const struct view_ipam_config *c = v.IPAM.Config.v;
    struct net_subnet *s = arena_need(a, v.IPAM.Config.n + 1, sizeof *s);
    for (int family = 0; family < 2; family++)
        for (size_t i = 0; i < v.IPAM.Config.n && ret->Subnets.n < NET_SUBNETS_MAX; i++)
            if (c[i].Subnet.n && six(c[i].Subnet) == (family == 1))
                s[ret->Subnets.n++] = (struct net_subnet){ c[i].Subnet, host(c[i].Gateway) };
    ret->Subnets.v = s;
}

void dnet_attachments(struct store_snap *snap, struct str task_doc, struct arena *a, struct list *ret)
{
    struct view_task t;
    struct str doc;
    struct err e;
    *ret = (struct list){ NULL, 0 };
    if (!mp_find(task_doc, "NetworksAttachments", &doc) || view_task(task_doc, &t, a, &e) != 0)
        return;
    const struct view_task_network *v = t.NetworksAttachments.v;
    struct net_attachment *out = arena_need(a, t.NetworksAttachments.n + 1, sizeof *out);
    for (size_t i = 0; i < t.NetworksAttachments.n && ret->n < NET_PER_TASK_MAX; i++) {
        if (store_get(snap, KIND_NETWORK, v[i].NetworkID, &doc) != 0)
            continue;
        struct net_attachment *o = &out[ret->n++];
        *o = (struct net_attachment){ .Addresses = v[i].Addresses, .Aliases = v[i].Aliases };
        dnet_network(v[i].NetworkID, doc, a, &o->Network);
    }
    ret->v = out;
}

static void put_network(struct filling *f, const struct dnet_net *n)
{
    struct str doc;
    if (store_get(f->snap, KIND_NETWORK, str_from(n->id), &doc) == 0) {
        struct net_network *out = one_more(f, &f->rep->Networks, NETWORKS, sizeof *out);
        dnet_network(str_from(n->id), doc, f->a, out);
    }
}

/* ---- services ---- */

static void put_aliases(const struct view_service *v, struct str net, struct net_service *out)
{
    const struct view_attachment_config *c = v->Spec.TaskTemplate.Networks.v;
    for (size_t i = 0; i < v->Spec.TaskTemplate.Networks.n; i++)
        if (str_eq(c[i].Target, net))
            out->Aliases = c[i].Aliases;
}

static void put_vips(struct filling *f, const struct view_service *v, struct str net, struct net_service *out)
{
    const struct view_vip *vip = v->Endpoint.VirtualIPs.v;
    out->VIPs.v = arena_need(f->a, v->Endpoint.VirtualIPs.n + 1, sizeof(struct str));
    for (size_t i = 0; i < v->Endpoint.VirtualIPs.n && out->VIPs.n < NET_SUBNETS_MAX; i++)
        if (str_eq(vip[i].NetworkID, net) && vip[i].Addr.n)
            out->VIPs.v[out->VIPs.n++] = host(vip[i].Addr);
}

static void put_ports(struct filling *f, const struct view_service *v, struct net_service *out)
{
    const struct view_port *p = v->Endpoint.Ports.v;
    struct net_port *o = arena_need(f->a, v->Endpoint.Ports.n + 1, sizeof *o);
    out->Ports.v = o;
    for (size_t i = 0; i < v->Endpoint.Ports.n; i++)
        if ((p[i].PublishMode.n == 0 || str_is(p[i].PublishMode, "ingress")) && p[i].TargetPort - 1 < 65535 &&
            p[i].PublishedPort - 1 < 65535)
            o[out->Ports.n++] =
                (struct net_port){ p[i].Protocol.n ? p[i].Protocol : STR("tcp"), p[i].TargetPort, p[i].PublishedPort };
}

static void put_service(struct filling *f, const struct dnet_entry *e)
{
    struct view_service v;
    struct str doc, net = str_from(e->net->id);
    struct err err;
    if (store_get(f->snap, KIND_SERVICE, str_from(e->id), &doc) != 0 || view_service(doc, &v, f->a, &err) != 0) {
        gone(f, &f->rep->GoneServices, GONE_SERVICES, e->net->id, e->id);
        return;
    }
    struct net_service *out = one_more(f, &f->rep->Services, SERVICES, sizeof *out);
    *out = (struct net_service){ .ID = v.ID.n ? v.ID : str_from(e->id), .NetworkID = net, .Name = v.Spec.Name };
    out->Mode = str_is(v.Spec.EndpointSpec.Mode, "dnsrr") ? STR("dnsrr") : STR("vip");
    put_aliases(&v, net, out);
    if (e->net->ingress)
        put_ports(f, &v, out);
    else
        put_vips(f, &v, net, out);
}

/* ---- endpoints ---- */

static struct str task_name(struct filling *f, const struct dnet_task *t, const struct dnet_entry *e, uint64_t slot)
{
    const struct dnet_service *s = table_get(&f->d->services, str_from(t->service));
    char *name;
    if (!s || !s->name)
        return STR("");
    if (slot)
        name = arena_printf(f->a, "%s.%" PRIu64 ".%s", s->name, slot, e->id);
    else
        name = arena_printf(f->a, "%s.%s.%s", s->name, t->node->id, e->id);
    CHECK(name != NULL);
    return str_from(name);
}

static void put_addresses(struct filling *f, struct str doc, const struct dnet_entry *e, struct net_endpoint *out)
{
    struct view_task v;
    struct err err;
    if (view_task(doc, &v, f->a, &err) != 0)
        return;
    const struct view_task_network *n = v.NetworksAttachments.v;
    for (size_t i = 0; i < v.NetworksAttachments.n; i++) {
        if (!str_is(n[i].NetworkID, e->net->id))
            continue;
        out->Addresses.v = arena_need(f->a, n[i].Addresses.n + 1, sizeof(struct str));
        for (size_t k = 0; k < n[i].Addresses.n && k < NET_SUBNETS_MAX; k++)
            out->Addresses.v[out->Addresses.n++] = host(n[i].Addresses.v[k]);
        return;
    }
}

/*
 * Its state is the mirror's: the document may be newer already. That a node is told "ready" only when the mirror knows
 * it is what lets a task that never was ready stop without asking anybody.
 */
static void put_endpoint(struct filling *f, const struct dnet_entry *e)
{
    static const char *const names[] = { "", "starting", "ready", "draining" };
    const struct dnet_task *t = table_get(&f->d->tasks, str_from(e->id));
    struct str doc;
    uint64_t slot = 0;
    if (!t || store_get(f->snap, KIND_TASK, str_from(e->id), &doc) != 0) {
        gone(f, &f->rep->GoneEndpoints, GONE_ENDPOINTS, e->net->id, e->id);
        return;
    }
    struct net_endpoint *out = one_more(f, &f->rep->Endpoints, ENDPOINTS, sizeof *out);
    *out = (struct net_endpoint){ .ID = str_from(e->id),
                                  .NetworkID = str_from(e->net->id),
                                  .ServiceID = str_from(t->service),
                                  .NodeID = str_from(t->node->id),
                                  .State = str_from(names[t->state]) };
    (void)mp_get_u64(doc, "Slot", &slot);
    out->Name = task_name(f, t, e, slot);
    put_addresses(f, doc, e, out);
}

/* ---- nodes ---- */

#define HOSTNAME_BYTES 255u

/* is_address - a node says itself where it is: what one makes up must not spoil the answer for all others. */
static bool is_address(struct str s)
{
    char s0[INET6_ADDRSTRLEN];
    struct in6_addr a;
    return str_copy(s0, sizeof s0, s) && (inet_pton(AF_INET, s0, &a) == 1 || inet_pton(AF_INET6, s0, &a) == 1);
}

static void put_node(struct filling *f, const struct dnet_entry *e)
{
    struct str doc, addr, hostname, boot;
    if (store_get(f->snap, KIND_NODE, str_from(e->id), &doc) != 0) {
        add_str(f, &f->rep->GoneNodes, GONE_NODES, str_from(e->id));
        return;
    }
    addr = text(doc, "DataPathAddr");
    addr = addr.n ? addr : text(doc, "Status.Addr");
    hostname = text(doc, "Description.Hostname");
    boot = text(doc, "BootID");
    struct net_node *out = one_more(f, &f->rep->Nodes, NODES, sizeof *out);
    *out = (struct net_node){ .ID = str_from(e->id),
                              .Addr = is_address(addr) ? addr : STR(""),
                              .Hostname = hostname.n <= HOSTNAME_BYTES ? hostname : STR(""),
                              .BootID = boot.n <= NET_BOOT_ID_MAX ? boot : STR("") };
}

/* ---- the answer ---- */

static void put(struct filling *f, const struct dnet_entry *e)
{
    if (e->kind == DNET_NODE)
        put_node(f, e);
    else if (e->kind == DNET_SERVICE)
        put_service(f, e);
    else
        put_endpoint(f, e);
}

static void put_gone(struct filling *f, const struct dnet_entry *e)
{
    if (e->kind == DNET_NODE)
        add_str(f, &f->rep->GoneNodes, GONE_NODES, str_from(e->id));
    else if (e->kind == DNET_SERVICE)
        gone(f, &f->rep->GoneServices, GONE_SERVICES, e->net->id, e->id);
    else
        gone(f, &f->rep->GoneEndpoints, GONE_ENDPOINTS, e->net->id, e->id);
}

static void put_all(struct filling *f, const struct dnet_net *n)
{
    for (const struct dnet_link *k = n->live.first; k; k = k->next)
        put(f, (const struct dnet_entry *)k);
}

static void put_changes(struct filling *f, const struct dnet_net *n)
{
    for (const struct dnet_link *k = n->live.last; k && k->rev > f->seq; k = k->prev)
        put(f, (const struct dnet_entry *)k);
    for (const struct dnet_link *k = n->gone.last; k && k->rev > f->seq; k = k->prev)
        put_gone(f, (const struct dnet_entry *)k);
}

static bool wanted(const struct disp_net *d, const struct dnet_hold *h)
{
    return h->net != &d->swarm && h->refs && h->net->there;
}

static size_t old_first(const struct disp_net *d, uint64_t seq)
{
    size_t lo = 0, hi = d->nold;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (d->old[mid].rev > seq)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

static bool must_be_full(const struct disp_net *d, const struct dnet_node *n)
{
    size_t kept = 0;
    if (n->seq == 0 || n->seq > d->revision || n->seq < d->floor || n->seq < d->swarm.floor)
        return true;
    for (size_t i = 0; i < n->nholds; i++) {
        bool keeps = wanted(d, &n->holds[i]) && n->holds[i].held;
        if (keeps && n->seq < n->holds[i].net->floor)
            return true;
        kept += keeps;
    }
    return (d->nold - old_first(d, n->seq)) * kept > OLD_ANSWER_MAX;
}

static bool service_on(const struct disp_net *d, const char *id, const struct dnet_net *n)
{
    const struct dnet_service *s = table_get(&d->services, str_from(id));
    for (size_t i = 0; s && i < s->n; i++)
        if (s->on[i]->net == n)
            return true;
    return false;
}

/* put_old - what is not there any more, and where it was is not known: nowhere, to be sure. */
static void put_old(struct filling *f)
{
    for (size_t k = old_first(f->d, f->seq); k < f->d->nold; k++) {
        const struct dnet_old *o = &f->d->old[k];
        struct str id = str_from(o->id);
        if (o->kind == KIND_NODE && !table_get(&f->d->nodes, id))
            add_str(f, &f->rep->GoneNodes, GONE_NODES, id);
        for (size_t i = 0; o->kind != KIND_NODE && i < f->node->nholds; i++) {
            const struct dnet_hold *h = &f->node->holds[i];
            if (!wanted(f->d, h) || !h->held)
                continue;
            if (o->kind == KIND_SERVICE && !service_on(f->d, o->id, h->net))
                gone(f, &f->rep->GoneServices, GONE_SERVICES, h->net->id, o->id);
            else if (o->kind == KIND_TASK && !table_get(&f->d->tasks, id))
                gone(f, &f->rep->GoneEndpoints, GONE_ENDPOINTS, h->net->id, o->id);
        }
    }
}

static void put_lost(struct filling *f)
{
    const struct strs *held = &f->node->req->Networks;
    for (size_t i = 0; i < held->n; i++) {
        const struct dnet_net *n = table_get(&f->d->nets, held->v[i]);
        bool keep = false;
        for (size_t k = 0; n && k < f->node->nholds; k++)
            keep |= f->node->holds[k].net == n && wanted(f->d, &f->node->holds[k]);
        if (!keep)
            add_str(f, &f->rep->GoneNetworks, GONE_NETWORKS, held->v[i]);
    }
}

static const struct field key_fields[] = {
    FIELD_STR(struct net_key, Purpose, 0, 64),
    FIELD_U64(struct net_key, Epoch, 0, UINT64_MAX),
    FIELD_BIN(struct net_key, Key, 0, 64),
    FIELD_END,
};
struct keys {
    struct list Keys;
};
static const struct field keys_fields[] = {
    FIELD_LIST(struct keys, Keys, key_fields, struct net_key, 64),
    FIELD_END,
};

static void put_keys(struct filling *f)
{
    struct keys k;
    struct str doc;
    struct err e;
    if (store_get(f->snap, KIND_CREDENTIAL, STR(STORE_NETWORK_KEYS_ID), &doc) == 0 &&
        fields_decode(&k, keys_fields, sizeof k, doc, FIELDS_VIEW, f->a, &e) == 0)
        f->rep->Keys = k.Keys;
}

static void put_port(struct filling *f)
{
    struct store_iter it;
    f->rep->DataPathPort = VXLAN_PORT;
    for (store_each(f->snap, KIND_CLUSTER, &it); store_next(&it);) {
        uint64_t port = 0;
        if (mp_get_u64(it.doc, "DataPathPort", &port) && port - 1 < 65535)
            f->rep->DataPathPort = port;
    }
}

void dnet_fill(struct disp_net *d, struct store_snap *snap, struct dnet_node *n, struct arena *a,
               struct disp_network_reply *rep)
{
    struct filling f = { .d = d, .snap = snap, .a = a, .node = n, .rep = rep };
    bool full = must_be_full(d, n);
    f.seq = full ? 0 : n->seq;
    *rep = (struct disp_network_reply){ .Seq = d->revision, .Full = full };
    put_port(&f);
    if (d->keys_rev > f.seq)
        put_keys(&f);
    if (full)
        put_all(&f, &d->swarm);
    else
        put_changes(&f, &d->swarm);
    for (size_t i = 0; i < n->nholds; i++) {
        const struct dnet_hold *h = &n->holds[i];
        if (!wanted(d, h))
            continue;
        bool all = full || !h->held;
        if (all || h->net->rev > f.seq)
            put_network(&f, h->net);
        if (all)
            put_all(&f, h->net);
        else
            put_changes(&f, h->net);
    }
    if (!full) {
        put_lost(&f);
        put_old(&f);
    }
}

bool dnet_sign(const struct disp_net *d, const struct dnet_node *n, struct buf *out)
{
    if (n->strangers)
        return false;
    buf_put(out, &n->seq, sizeof n->seq);
    buf_put(out, &d->revision, sizeof d->revision);
    for (size_t i = 0; i < n->nholds; i++) {
        const struct dnet_hold *h = &n->holds[i];
        char what = (char)(wanted(d, h) + 2 * h->held);
        if (h->net == &d->swarm)
            continue;
        buf_put(out, &h->net, sizeof h->net);
        buf_putc(out, what);
    }
    return !out->failed;
}
