#include "meshd/netmap/netmap.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/util/check.h"
#include "common/util/crypto.h"

#define NAME_CAP 512 /* of names as they are looked up */

/* ---- addresses ---- */

bool netmap_ip_parse(struct str text, struct netmap_ip *ret)
{
    char buf[NETMAP_IP_TEXT];
    const char *slash = text.n ? memchr(text.p, '/', text.n) : NULL;
    struct str addr = { text.p, slash ? (size_t)(slash - text.p) : text.n };
    uint64_t prefix;

    *ret = (struct netmap_ip){ 0 };
    if (!str_copy(buf, sizeof buf, addr) || strlen(buf) != addr.n)
        return false;
    if (inet_pton(AF_INET, buf, ret->b) == 1)
        ret->family = AF_INET;
    else if (inet_pton(AF_INET6, buf, ret->b) == 1)
        ret->family = AF_INET6;
    else
        return false;
    prefix = ret->family == AF_INET ? 32 : 128;
    if (slash) {
        uint64_t max = prefix;
        if (!str_u64((struct str){ slash + 1, text.n - addr.n - 1 }, &prefix) || prefix > max) {
            *ret = (struct netmap_ip){ 0 };
            return false;
        }
    }
    ret->prefix = (uint8_t)prefix;
    return true;
}

static size_t ip_bytes(const struct netmap_ip *ip)
{
    return ip->family == AF_INET ? 4 : 16;
}

bool netmap_ip_eq(const struct netmap_ip *a, const struct netmap_ip *b)
{
    return a->family == b->family && memcmp(a->b, b->b, ip_bytes(a)) == 0;
}

const char *netmap_ip_text(const struct netmap_ip *ip, char text[NETMAP_IP_TEXT])
{
    if (!ip->family || !inet_ntop(ip->family, ip->b, text, NETMAP_IP_TEXT))
        snprintf(text, NETMAP_IP_TEXT, "-");
    return text;
}

void netmap_mac(const struct netmap_ip *ip, uint8_t mac[6])
{
    mac[0] = 0x02;
    mac[1] = 0x42;
    if (ip->family == AF_INET) {
        memcpy(mac + 2, ip->b, 4);
        return;
    }
    uint32_t hash = 0x811c9dc5u; /* FNV-1a */
    for (size_t i = 0; i < sizeof ip->b; i++)
        hash = (hash ^ ip->b[i]) * 0x01000193u;
    mac[1] = 0x43; /* never that of an IPv4 address */
    memcpy(mac + 2, &hash, 4);
}

/* an address as a key: family and bytes */
static struct str ip_key(const struct netmap_ip *ip, char buf[17])
{
    buf[0] = ip->family == AF_INET ? '4' : '6';
    memcpy(buf + 1, ip->b, ip_bytes(ip));
    return (struct str){ buf, 1 + ip_bytes(ip) };
}

/* ---- changes ---- */

static struct netmap_change *push(struct netmap *m, enum netmap_kind kind)
{
    if (m->nchanges == m->cchanges) {
        m->cchanges = m->cchanges ? m->cchanges * 2 : 64;
        m->changes = realloc(m->changes, m->cchanges * sizeof *m->changes);
        CHECK(m->changes != NULL);
    }
    struct netmap_change *c = &m->changes[m->nchanges++];
    *c = (struct netmap_change){ .kind = kind };
    return c;
}

static void push_service(struct netmap *m, const char *network, const char *id)
{
    char key[2 * ID_SIZE];
    bool is_new;

    if (!id[0])
        return;
    snprintf(key, sizeof key, "%s/%s", network, id);
    table_put(&m->queued, str_from(key), &is_new);
    if (!is_new)
        return;
    struct netmap_change *c = push(m, NETMAP_SERVICE);
    snprintf(c->network, sizeof c->network, "%s", network);
    snprintf(c->id, sizeof c->id, "%s", id);
}

static void push_network(struct netmap *m, const char *id)
{
    snprintf(push(m, NETMAP_NETWORK)->network, ID_SIZE, "%s", id);
}

bool netmap_next(struct netmap *m, struct netmap_change *ret)
{
    if (m->taken == m->nchanges) {
        m->taken = m->nchanges = 0;
        return false;
    }
    *ret = m->changes[m->taken++];
    if (ret->kind == NETMAP_SERVICE) {
        char key[2 * ID_SIZE];
        snprintf(key, sizeof key, "%s/%s", ret->network, ret->id);
        table_del(&m->queued, str_from(key));
    }
    return true;
}

static void drop_changes(struct netmap *m)
{
    m->taken = m->nchanges = 0;
    table_clear(&m->queued);
}

/* ---- life ---- */

void netmap_init(struct netmap *m)
{
    *m = (struct netmap){ 0 };
    table_init(&m->networks, sizeof(struct netmap_network *));
    table_init(&m->nodes, sizeof(struct netmap_node));
    table_init(&m->dead, 0);
    table_init(&m->withdrawn, 0);
    table_init(&m->queued, 0);
}

static void free_service(struct netmap_service *s)
{
    for (size_t i = 0; i < s->naliases; i++)
        free((char *)s->aliases[i].p);
    free(s->aliases);
    free((char *)s->name.p);
    free(s->vips);
    free(s->ports);
    free(s);
}

static void free_endpoint(struct netmap_endpoint *ep)
{
    free((char *)ep->name.p);
    free(ep);
}

static void free_sets(struct table *sets)
{
    struct table *set;
    for (struct table_pos p = { 0 }; table_next(sets, &p, NULL, &set);)
        table_done(set);
    table_done(sets);
}

static void free_network(struct netmap_network *n)
{
    struct netmap_service **s;
    struct netmap_endpoint **ep;

    for (struct table_pos p = { 0 }; table_next(&n->services, &p, NULL, &s);)
        free_service(*s);
    for (struct table_pos p = { 0 }; table_next(&n->endpoints, &p, NULL, &ep);)
        free_endpoint(*ep);
    table_done(&n->services);
    table_done(&n->endpoints);
    table_done(&n->addresses);
    free_sets(&n->members);
    free_sets(&n->names);
    free((char *)n->name.p);
    free(n->subnets);
    free(n);
}

static void forget_all(struct netmap *m)
{
    struct netmap_network **n;

    for (struct table_pos p = { 0 }; table_next(&m->networks, &p, NULL, &n);)
        free_network(*n);
    table_clear(&m->networks);
    table_clear(&m->nodes);
    m->seq = 0;
    drop_changes(m);
}

void netmap_done(struct netmap *m)
{
    forget_all(m);
    table_done(&m->networks);
    table_done(&m->nodes);
    table_done(&m->dead);
    table_done(&m->withdrawn);
    table_done(&m->queued);
    free(m->changes);
    crypto_wipe(m->keys, sizeof m->keys);
}

/* ---- looking up ---- */

struct netmap_network *netmap_network(const struct netmap *m, struct str id)
{
    struct netmap_network **n = table_get(&m->networks, id);
    return n ? *n : NULL;
}

struct netmap_network *netmap_ingress(const struct netmap *m)
{
    struct netmap_network **n;
    for (struct table_pos p = { 0 }; table_next(&m->networks, &p, NULL, &n);)
        if ((*n)->ingress)
            return *n;
    return NULL;
}

struct netmap_service *netmap_service(const struct netmap_network *n, struct str id)
{
    struct netmap_service **s = table_get(&n->services, id);
    return s ? *s : NULL;
}

struct netmap_endpoint *netmap_endpoint(const struct netmap_network *n, struct str id)
{
    struct netmap_endpoint **ep = table_get(&n->endpoints, id);
    return ep ? *ep : NULL;
}

struct netmap_node *netmap_node(const struct netmap *m, struct str id)
{
    return table_get(&m->nodes, id);
}

bool netmap_usable(const struct netmap *m, const struct netmap_endpoint *ep)
{
    return ep->state == NETMAP_READY && ep->nips > 0 && !table_get(&m->dead, str_from(ep->node)) &&
           !table_get(&m->withdrawn, str_from(ep->id));
}

const struct netmap_key *netmap_key_use(const struct netmap *m, const char *purpose)
{
    const struct netmap_key *newest = NULL, *second = NULL;
    for (size_t i = 0; i < m->nkeys; i++) {
        const struct netmap_key *k = &m->keys[i];
        if (strcmp(k->purpose, purpose) != 0)
            continue;
        if (!newest || k->epoch > newest->epoch) {
            second = newest;
            newest = k;
        } else if (!second || k->epoch > second->epoch) {
            second = k;
        }
    }
    return second ? second : newest;
}

static int by_endpoint(const void *a, const void *b)
{
    return strcmp((*(struct netmap_endpoint *const *)a)->id, (*(struct netmap_endpoint *const *)b)->id);
}

size_t netmap_backends(const struct netmap *m, const struct netmap_network *n, const struct netmap_service *s,
                       struct arena *a, struct netmap_endpoint ***ret)
{
    const struct table *members = table_get(&n->members, str_from(s->id));
    size_t count = 0;
    struct str id;

    *ret = arena_array(a, (members ? members->count : 0) + 1, sizeof **ret);
    CHECK(*ret != NULL);
    if (!members)
        return 0;
    for (struct table_pos p = { 0 }; table_next(members, &p, &id, NULL);) {
        struct netmap_endpoint *ep = netmap_endpoint(n, id);
        if (ep && netmap_usable(m, ep))
            (*ret)[count++] = ep;
    }
    qsort(*ret, count, sizeof **ret, by_endpoint);
    return count;
}

static int by_service(const void *a, const void *b)
{
    return strcmp((*(struct netmap_service *const *)a)->id, (*(struct netmap_service *const *)b)->id);
}

/* names are compared without case; longer ones than any name can be are not found */
static struct str fold(struct str name, char buf[NAME_CAP])
{
    if (name.n > NAME_CAP)
        return (struct str){ NULL, 0 };
    for (size_t i = 0; i < name.n; i++)
        buf[i] = name.p[i] >= 'A' && name.p[i] <= 'Z' ? (char)(name.p[i] + ('a' - 'A')) : name.p[i];
    return (struct str){ buf, name.n };
}

size_t netmap_by_name(const struct netmap_network *n, struct str name, struct arena *a, struct netmap_service ***ret)
{
    char buf[NAME_CAP];
    const struct table *ids = table_get(&n->names, fold(name, buf));
    size_t count = 0;
    struct str id;

    *ret = arena_array(a, (ids ? ids->count : 0) + 1, sizeof **ret);
    if (!*ret || !ids)
        return 0;
    for (struct table_pos p = { 0 }; table_next(ids, &p, &id, NULL);) {
        struct netmap_service *s = netmap_service(n, id);
        if (s)
            (*ret)[count++] = s;
    }
    qsort(*ret, count, sizeof **ret, by_service);
    return count;
}

bool netmap_by_address(const struct netmap_network *n, const struct netmap_ip *ip, struct netmap_service **ret_service,
                       struct netmap_endpoint **ret_endpoint)
{
    char buf[17];
    const struct netmap_owner *o = table_get(&n->addresses, ip_key(ip, buf));

    *ret_service = o && o->service ? netmap_service(n, str_from(o->id)) : NULL;
    *ret_endpoint = o && !o->service ? netmap_endpoint(n, str_from(o->id)) : NULL;
    return *ret_service || *ret_endpoint;
}

/* ---- what belongs together ---- */

static void set_add(struct table *sets, struct str key, struct str id)
{
    bool is_new;
    struct table *set = table_put(sets, key, &is_new);
    if (is_new)
        table_init(set, 0);
    table_put(set, id, NULL);
}

static void set_del(struct table *sets, struct str key, struct str id)
{
    struct table *set = table_get(sets, key);
    if (!set || !table_del(set, id) || set->count > 0)
        return;
    table_done(set);
    table_del(sets, key);
}

static void own(struct netmap_network *n, const struct netmap_ip *ip, bool service, const char *id)
{
    char buf[17];
    struct netmap_owner *o = table_put(&n->addresses, ip_key(ip, buf), NULL);
    o->service = service;
    snprintf(o->id, sizeof o->id, "%s", id);
}

static void disown(struct netmap_network *n, const struct netmap_ip *ip, const char *id)
{
    char buf[17];
    struct str key = ip_key(ip, buf);
    const struct netmap_owner *o = table_get(&n->addresses, key);
    if (o && strcmp(o->id, id) == 0)
        table_del(&n->addresses, key);
}

static void link_service(struct netmap_network *n, const struct netmap_service *s, bool on)
{
    char buf[NAME_CAP];
    struct str id = str_from(s->id);
    void (*const change)(struct table *, struct str, struct str) = on ? set_add : set_del;

    change(&n->names, fold(s->name, buf), id);
    for (size_t i = 0; i < s->naliases; i++)
        change(&n->names, fold(s->aliases[i], buf), id);
    for (size_t i = 0; i < s->nvips; i++) {
        if (on)
            own(n, &s->vips[i], true, s->id);
        else
            disown(n, &s->vips[i], s->id);
    }
}

static void link_endpoint(struct netmap_network *n, const struct netmap_endpoint *ep, bool on)
{
    if (ep->service[0])
        (on ? set_add : set_del)(&n->members, str_from(ep->service), str_from(ep->id));
    for (size_t i = 0; i < ep->nips; i++) {
        if (on)
            own(n, &ep->ips[i], false, ep->id);
        else
            disown(n, &ep->ips[i], ep->id);
    }
}

static void del_service(struct netmap *m, struct netmap_network *n, struct str id)
{
    struct netmap_service *s = netmap_service(n, id);
    if (!s)
        return;
    push_service(m, n->id, s->id);
    link_service(n, s, false);
    table_del(&n->services, id);
    free_service(s);
}

static void push_endpoint(struct netmap *m, const struct netmap_network *n, const char *id,
                          const struct netmap_endpoint *before)
{
    struct netmap_change *c = push(m, NETMAP_ENDPOINT);
    snprintf(c->network, sizeof c->network, "%s", n->id);
    snprintf(c->id, sizeof c->id, "%s", id);
    if (!before)
        return;
    snprintf(c->node, sizeof c->node, "%s", before->node);
    c->nips = before->nips;
    memcpy(c->ips, before->ips, sizeof c->ips);
}

static void del_endpoint(struct netmap *m, struct netmap_network *n, struct str id)
{
    struct netmap_endpoint *ep = netmap_endpoint(n, id);
    if (!ep)
        return;
    push_endpoint(m, n, ep->id, ep);
    push_service(m, n->id, ep->service);
    link_endpoint(n, ep, false);
    table_del(&n->endpoints, id);
    free_endpoint(ep);
}

/* ---- checking an answer ---- */

/* all_anew - it answers a question without a Seq, or says itself that it is everything */
static bool all_anew(const struct netmap *m, const struct disp_network_reply *r)
{
    return r->Full || m->seq == 0;
}

static bool known(const struct netmap *m, const struct disp_network_reply *r, struct str network)
{
    const struct net_network *v = r->Networks.v;
    for (size_t i = 0; i < r->Networks.n; i++)
        if (str_eq(v[i].ID, network))
            return true;
    if (all_anew(m, r) || !netmap_network(m, network))
        return false;
    for (size_t i = 0; i < r->GoneNetworks.n; i++)
        if (str_eq(r->GoneNetworks.v[i], network))
            return false;
    return true;
}

static bool short_id(struct str s, bool may_be_empty)
{
    return s.n < ID_SIZE && (s.n > 0 || may_be_empty) && (s.n == 0 || id_ok(s));
}

static int bad(struct err *e, const char *list, size_t i, const char *field, struct str value)
{
    return err_set(e, ERR_INVALID, "network view: %s[%zu].%s: \"" STR_FMT "\"", list, i, field, STR_ARG(value));
}

static int check_ips(const struct strs *l, bool cidr, const char *list, size_t i, const char *field, struct err *e)
{
    struct netmap_ip ip;
    for (size_t k = 0; k < l->n; k++)
        if (!netmap_ip_parse(l->v[k], &ip) || (!cidr && memchr(l->v[k].p, '/', l->v[k].n)))
            return bad(e, list, i, field, l->v[k]);
    return 0;
}

static int check_network(const struct net_network *n, size_t i, struct err *e)
{
    const struct net_subnet *s = n->Subnets.v;
    struct netmap_ip ip;

    if (!short_id(n->ID, false))
        return bad(e, "Networks", i, "ID", n->ID);
    for (size_t k = 0; k < n->Subnets.n; k++)
        if (!netmap_ip_parse(s[k].Subnet, &ip) || (s[k].Gateway.n && !netmap_ip_parse(s[k].Gateway, &ip)))
            return bad(e, "Networks", i, "Subnets", s[k].Subnet);
    return 0;
}

static bool parse_proto(struct str s, uint8_t *ret)
{
    *ret = str_is(s, "tcp") ? IPPROTO_TCP : str_is(s, "udp") ? IPPROTO_UDP : str_is(s, "sctp") ? IPPROTO_SCTP : 0;
    return *ret != 0;
}

static int check_service(const struct netmap *m, const struct disp_network_reply *r, const struct net_service *s,
                         size_t i, struct err *e)
{
    const struct net_port *p = s->Ports.v;
    uint8_t proto;

    if (!short_id(s->ID, false))
        return bad(e, "Services", i, "ID", s->ID);
    if (!known(m, r, s->NetworkID))
        return bad(e, "Services", i, "NetworkID", s->NetworkID);
    if (!str_is(s->Mode, "vip") && !str_is(s->Mode, "dnsrr"))
        return bad(e, "Services", i, "Mode", s->Mode);
    for (size_t k = 0; k < s->Ports.n; k++)
        if (!parse_proto(p[k].Protocol, &proto))
            return bad(e, "Services", i, "Ports.Protocol", p[k].Protocol);
    return check_ips(&s->VIPs, true, "Services", i, "VIPs", e);
}

static bool parse_state(struct str s, enum netmap_state *ret)
{
    static const char *const names[] = { "starting", "ready", "draining" };
    for (size_t i = 0; i < 3; i++)
        if (str_is(s, names[i])) {
            *ret = (enum netmap_state)i;
            return true;
        }
    return false;
}

static int check_endpoint(const struct netmap *m, const struct disp_network_reply *r, const struct net_endpoint *ep,
                          size_t i, struct err *e)
{
    enum netmap_state state;

    if (!short_id(ep->ID, false))
        return bad(e, "Endpoints", i, "ID", ep->ID);
    if (!short_id(ep->ServiceID, true))
        return bad(e, "Endpoints", i, "ServiceID", ep->ServiceID);
    if (!short_id(ep->NodeID, false))
        return bad(e, "Endpoints", i, "NodeID", ep->NodeID);
    if (!known(m, r, ep->NetworkID))
        return bad(e, "Endpoints", i, "NetworkID", ep->NetworkID);
    if (!parse_state(ep->State, &state))
        return bad(e, "Endpoints", i, "State", ep->State);
    if (ep->Addresses.n > NETMAP_IPS_MAX)
        return bad(e, "Endpoints", i, "Addresses", ep->Addresses.v[NETMAP_IPS_MAX]);
    return check_ips(&ep->Addresses, true, "Endpoints", i, "Addresses", e);
}

static int check_node(const struct net_node *n, size_t i, struct err *e)
{
    struct netmap_ip ip;
    if (!short_id(n->ID, false))
        return bad(e, "Nodes", i, "ID", n->ID);
    if (n->Addr.n && (!netmap_ip_parse(n->Addr, &ip) || ip.prefix != (ip.family == AF_INET ? 32 : 128)))
        return bad(e, "Nodes", i, "Addr", n->Addr);
    return 0;
}

static int check_reply(const struct netmap *m, const struct disp_network_reply *r, struct err *e)
{
    int ret = 0;
    for (size_t i = 0; ret == 0 && i < r->Networks.n; i++)
        ret = check_network(&((const struct net_network *)r->Networks.v)[i], i, e);
    for (size_t i = 0; ret == 0 && i < r->Services.n; i++)
        ret = check_service(m, r, &((const struct net_service *)r->Services.v)[i], i, e);
    for (size_t i = 0; ret == 0 && i < r->Endpoints.n; i++)
        ret = check_endpoint(m, r, &((const struct net_endpoint *)r->Endpoints.v)[i], i, e);
    for (size_t i = 0; ret == 0 && i < r->Nodes.n; i++)
        ret = check_node(&((const struct net_node *)r->Nodes.v)[i], i, e);
    for (size_t i = 0; ret == 0 && i < r->Keys.n; i++) {
        const struct net_key *k = &((const struct net_key *)r->Keys.v)[i];
        if (i >= sizeof m->keys / sizeof *m->keys || k->Purpose.n >= sizeof m->keys->purpose ||
            k->Key.n > sizeof m->keys->key)
            ret = bad(e, "Keys", i, "Purpose", k->Purpose);
    }
    return ret;
}

/* ---- taking an answer in ---- */

static struct str own_str(struct str s)
{
    return (struct str){ str_dup(s), s.n };
}

static void *own_array(size_t n, size_t size)
{
    void *p = calloc(n + 1, size);
    CHECK(p != NULL);
    return p;
}

static void put_network(struct netmap *m, const struct net_network *in)
{
    const struct net_subnet *s = in->Subnets.v;
    bool is_new;
    struct netmap_network **slot = table_put(&m->networks, in->ID, &is_new), *n;

    if (is_new) {
        *slot = own_array(0, sizeof **slot);
        table_init(&(*slot)->services, sizeof(struct netmap_service *));
        table_init(&(*slot)->endpoints, sizeof(struct netmap_endpoint *));
        table_init(&(*slot)->members, sizeof(struct table));
        table_init(&(*slot)->names, sizeof(struct table));
        table_init(&(*slot)->addresses, sizeof(struct netmap_owner));
    }
    n = *slot;
    (void)str_copy(n->id, sizeof n->id, in->ID);
    free((char *)n->name.p);
    n->name = own_str(in->Name);
    n->vni = (uint32_t)in->VNI;
    n->mtu = (uint32_t)in->MTU;
    n->encrypted = in->Encrypted;
    n->internal = in->Internal;
    n->ingress = in->Ingress;
    free(n->subnets);
    n->subnets = own_array(in->Subnets.n, sizeof *n->subnets);
    n->nsubnets = in->Subnets.n;
    for (size_t i = 0; i < in->Subnets.n; i++) {
        (void)netmap_ip_parse(s[i].Subnet, &n->subnets[i].net);
        (void)netmap_ip_parse(s[i].Gateway, &n->subnets[i].gateway);
    }
    push_network(m, n->id);
}

static void put_service(struct netmap *m, const struct net_service *in)
{
    struct netmap_network *n = netmap_network(m, in->NetworkID);
    struct netmap_service *s = netmap_service(n, in->ID), **slot;
    const struct net_port *p = in->Ports.v;

    if (s) {
        link_service(n, s, false);
        table_del(&n->services, in->ID);
        free_service(s);
    }
    s = own_array(0, sizeof *s);
    (void)str_copy(s->id, sizeof s->id, in->ID);
    s->name = own_str(in->Name);
    s->dnsrr = str_is(in->Mode, "dnsrr");
    s->vips = own_array(in->VIPs.n, sizeof *s->vips);
    s->nvips = in->VIPs.n;
    for (size_t i = 0; i < s->nvips; i++)
        (void)netmap_ip_parse(in->VIPs.v[i], &s->vips[i]);
    s->aliases = own_array(in->Aliases.n, sizeof *s->aliases);
    s->naliases = in->Aliases.n;
    for (size_t i = 0; i < s->naliases; i++)
        s->aliases[i] = own_str(in->Aliases.v[i]);
    s->ports = own_array(in->Ports.n, sizeof *s->ports);
    s->nports = in->Ports.n;
    for (size_t i = 0; i < s->nports; i++) {
        s->ports[i].target = (uint16_t)p[i].TargetPort;
        s->ports[i].published = (uint16_t)p[i].PublishedPort;
        (void)parse_proto(p[i].Protocol, &s->ports[i].proto);
    }
    slot = table_put(&n->services, in->ID, NULL);
    *slot = s;
    link_service(n, s, true);
    push_service(m, n->id, s->id);
}

/* moved - is there anything that more than its service has to know? */
static bool moved(const struct netmap_endpoint *a, const struct netmap_endpoint *b)
{
    if (strcmp(a->node, b->node) != 0 || a->nips != b->nips)
        return true;
    for (size_t i = 0; i < a->nips; i++)
        if (!netmap_ip_eq(&a->ips[i], &b->ips[i]) || a->ips[i].prefix != b->ips[i].prefix)
            return true;
    return false;
}

static void put_endpoint(struct netmap *m, const struct net_endpoint *in)
{
    struct netmap_network *n = netmap_network(m, in->NetworkID);
    struct netmap_endpoint *old = netmap_endpoint(n, in->ID), *ep = own_array(0, sizeof *ep), **slot;

    (void)str_copy(ep->id, sizeof ep->id, in->ID);
    (void)str_copy(ep->service, sizeof ep->service, in->ServiceID);
    (void)str_copy(ep->node, sizeof ep->node, in->NodeID);
    ep->name = own_str(in->Name);
    (void)parse_state(in->State, &ep->state);
    ep->nips = in->Addresses.n;
    for (size_t i = 0; i < ep->nips; i++)
        (void)netmap_ip_parse(in->Addresses.v[i], &ep->ips[i]);
    if (!old || moved(old, ep))
        push_endpoint(m, n, ep->id, old);
    push_service(m, n->id, ep->service);
    if (old) {
        if (strcmp(old->service, ep->service) != 0)
            push_service(m, n->id, old->service);
        link_endpoint(n, old, false);
        table_del(&n->endpoints, in->ID);
        free_endpoint(old);
    }
    slot = table_put(&n->endpoints, in->ID, NULL);
    *slot = ep;
    link_endpoint(n, ep, true);
}

static void push_node(struct netmap *m, struct str id, const struct netmap_ip *before)
{
    struct netmap_change *c = push(m, NETMAP_NODE);
    (void)str_copy(c->id, sizeof c->id, id);
    if (before && before->family) {
        c->nips = 1;
        c->ips[0] = *before;
    }
}

static void put_node(struct netmap *m, const struct net_node *in)
{
    bool is_new;
    struct netmap_node *n = table_put(&m->nodes, in->ID, &is_new), old = *n;
    size_t len = in->Hostname.n < sizeof n->hostname ? in->Hostname.n : sizeof n->hostname - 1;

    (void)str_copy(n->id, sizeof n->id, in->ID);
    snprintf(n->hostname, sizeof n->hostname, STR_FMT, (int)len, in->Hostname.p ? in->Hostname.p : "");
    if (!in->Addr.n)
        n->addr = (struct netmap_ip){ 0 };
    else
        (void)netmap_ip_parse(in->Addr, &n->addr);
    if (!str_copy(n->boot, sizeof n->boot, in->BootID))
        n->boot[0] = 0;
    if (is_new || !netmap_ip_eq(&old.addr, &n->addr) || strcmp(old.boot, n->boot) != 0)
        push_node(m, in->ID, &old.addr);
}

static void del_node(struct netmap *m, struct str id)
{
    const struct netmap_node *n = table_get(&m->nodes, id);
    if (!n)
        return;
    push_node(m, id, &n->addr);
    table_del(&m->nodes, id);
    table_del(&m->dead, id);
}

static void take_keys(struct netmap *m, const struct list *l)
{
    const struct net_key *in = l->v;
    crypto_wipe(m->keys, sizeof m->keys);
    m->nkeys = l->n;
    for (size_t i = 0; i < l->n; i++) {
        struct netmap_key *k = &m->keys[i];
        (void)str_copy(k->purpose, sizeof k->purpose, in[i].Purpose);
        k->epoch = in[i].Epoch;
        k->n = (uint8_t)in[i].Key.n;
        memcpy(k->key, in[i].Key.p, in[i].Key.n);
    }
    push(m, NETMAP_KEYS);
}

/* "<network ID>/<ID>" */
static struct netmap_network *split(struct netmap *m, struct str both, struct str *ret_id)
{
    const char *slash = both.n ? memchr(both.p, '/', both.n) : NULL;
    if (!slash)
        return NULL;
    *ret_id = (struct str){ slash + 1, both.n - (size_t)(slash + 1 - both.p) };
    return netmap_network(m, (struct str){ both.p, (size_t)(slash - both.p) });
}

static void take_gone(struct netmap *m, const struct disp_network_reply *r)
{
    struct netmap_network *n;
    struct str id;

    for (size_t i = 0; i < r->GoneEndpoints.n; i++)
        if ((n = split(m, r->GoneEndpoints.v[i], &id)) != NULL)
            del_endpoint(m, n, id);
    for (size_t i = 0; i < r->GoneServices.n; i++)
        if ((n = split(m, r->GoneServices.v[i], &id)) != NULL)
            del_service(m, n, id);
    for (size_t i = 0; i < r->GoneNetworks.n; i++)
        if ((n = netmap_network(m, r->GoneNetworks.v[i])) != NULL) {
            push_network(m, n->id);
            table_del(&m->networks, r->GoneNetworks.v[i]);
            free_network(n);
        }
    for (size_t i = 0; i < r->GoneNodes.n; i++)
        del_node(m, r->GoneNodes.v[i]);
}

int netmap_apply(struct netmap *m, const struct disp_network_reply *r, struct err *e)
{
    int ret = check_reply(m, r, e);
    if (ret < 0) {
        m->seq = 0; /* asks for everything */
        return ret;
    }
    if (all_anew(m, r)) {
        forget_all(m);
        push(m, NETMAP_ALL);
    }
    take_gone(m, r);
    if (r->Keys.n > 0)
        take_keys(m, &r->Keys);
    for (size_t i = 0; i < r->Nodes.n; i++)
        put_node(m, &((const struct net_node *)r->Nodes.v)[i]);
    for (size_t i = 0; i < r->Networks.n; i++)
        put_network(m, &((const struct net_network *)r->Networks.v)[i]);
    for (size_t i = 0; i < r->Endpoints.n; i++)
        put_endpoint(m, &((const struct net_endpoint *)r->Endpoints.v)[i]);
    for (size_t i = 0; i < r->Services.n; i++)
        put_service(m, &((const struct net_service *)r->Services.v)[i]);
    if (r->DataPathPort)
        m->data_path_port = (uint16_t)r->DataPathPort;
    m->seq = r->Seq;
    return 0;
}

void netmap_ask(const struct netmap *m, struct arena *a, struct disp_network *ret)
{
    struct str id;

    ret->Seq = m->seq;
    ret->Networks = (struct strs){ arena_array(a, m->networks.count + 1, sizeof(struct str)), 0 };
    CHECK(ret->Networks.v != NULL);
    if (m->seq == 0)
        return;
    for (struct table_pos p = { 0 }; table_next(&m->networks, &p, &id, NULL);)
        ret->Networks.v[ret->Networks.n++] = id;
}

/* ---- gossip ---- */

void netmap_node_dead(struct netmap *m, struct str node, bool dead)
{
    struct netmap_network **n;
    struct netmap_endpoint **ep;

    if (dead == (table_get(&m->dead, node) != NULL))
        return;
    if (dead)
        table_put(&m->dead, node, NULL);
    else
        table_del(&m->dead, node);
    for (struct table_pos p = { 0 }; table_next(&m->networks, &p, NULL, &n);)
        for (struct table_pos q = { 0 }; table_next(&(*n)->endpoints, &q, NULL, &ep);)
            if (str_is(node, (*ep)->node))
                push_service(m, (*n)->id, (*ep)->service);
}

void netmap_withdraw(struct netmap *m, struct str task, bool withdrawn)
{
    struct netmap_network **n;

    if (withdrawn == (table_get(&m->withdrawn, task) != NULL))
        return;
    if (withdrawn)
        table_put(&m->withdrawn, task, NULL);
    else
        table_del(&m->withdrawn, task);
    for (struct table_pos p = { 0 }; table_next(&m->networks, &p, NULL, &n);) {
        const struct netmap_endpoint *ep = netmap_endpoint(*n, task);
        if (ep)
            push_service(m, (*n)->id, ep->service);
    }
}
