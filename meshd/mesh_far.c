/* mesh_far.c - what of the swarm's view this node carries out: other nodes, the addresses that live on them, and who is
 * behind the published ports. */
#include "meshd/mesh_node.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "common/util/check.h"

#define VXLAN_PORT 4789
#define VXLAN_COST 50u     /* bytes of a packet, over IPv4 */
#define NOBODY 0xc0000008u /* 192.0.0.8, the dummy address of RFC 7600 */
#define FLUSH_EACH 100u    /* routes in a batch: each is acknowledged, and the socket holds so many answers */

static struct str addr_key(const uint32_t *addr)
{
    return (struct str){ (const char *)addr, sizeof *addr };
}

static uint32_t key_addr(struct str key)
{
    uint32_t addr;
    memcpy(&addr, key.p, sizeof addr);
    return addr;
}

static uint32_t ip4(const struct netmap_ip *ip)
{
    uint32_t be;
    memcpy(&be, ip->b, sizeof be);
    return ip->family == AF_INET ? ntohl(be) : 0;
}

bool mesh_node_address(const struct mesh_node *n, struct netmap_ip *ret)
{
    const struct netmap_node *node = n->self[0] ? netmap_node(n->view, str_from(n->self)) : NULL;
    if (node)
        *ret = node->addr;
    return node && node->addr.family;
}

/* ---- what is to do ---- */

void mesh_node_change(struct mesh_node *n, const struct netmap_change *c)
{
    bool ours = n->ingress[0] && strcmp(c->network, n->ingress) == 0;
    switch (c->kind) {
    case NETMAP_ALL:
        n->todo_all = true;
        break;
    case NETMAP_NETWORK: {
        const struct netmap_network *net = netmap_network(n->view, str_from(c->network));
        n->todo_all |= ours || (net && net->ingress);
        n->todo_nodes = true; /* the host lets its VXLAN id in */
        break;
    }
    case NETMAP_NODE:
        n->todo_nodes = true;
        break;
    case NETMAP_SERVICE:
        if (ours)
            table_put(&n->todo_services, str_from(c->id), NULL);
        break;
    case NETMAP_ENDPOINT: {
        const struct netmap_network *net = netmap_network(n->view, str_from(c->network));
        const struct netmap_endpoint *ep = net ? netmap_endpoint(net, str_from(c->id)) : NULL;
        for (size_t i = 0; ours && i < c->nips; i++) {
            uint32_t addr = ip4(&c->ips[i]);
            table_put(&n->todo_far, addr_key(&addr), NULL);
        }
        for (size_t i = 0; ours && ep && i < ep->nips; i++) {
            uint32_t addr = ip4(&ep->ips[i]);
            table_put(&n->todo_far, addr_key(&addr), NULL);
        }
        break;
    }
    case NETMAP_KEYS:
        break;
    }
}

void mesh_node_self(struct mesh_node *n, const char *self)
{
    if (strcmp(n->self, self) == 0)
        return;
    snprintf(n->self, sizeof n->self, "%s", self);
    n->todo_all = true;
}

/* ---- nodes ---- */

static bool number_taken(struct mesh_node *n, unsigned number)
{
    struct mesh_peer *p;
    for (struct table_pos pos = { 0 }; table_next(&n->peers, &pos, NULL, &p);)
        if (p->number == number)
            return true;
    return false;
}

/* number_for - the one that its connections are marked with already, or the lowest that is free. */
static unsigned number_for(struct mesh_node *n, const uint8_t mac[6])
{
    for (size_t i = 0; i < n->nft.nodes.n; i++)
        if (memcmp(n->nft.nodes.v[i].mac, mac, 6) == 0)
            return n->nft.nodes.v[i].number;
    for (unsigned k = 1; k < MESH_NODES_MAX; k++) {
        bool used = number_taken(n, k);
        for (size_t i = 0; !used && i < n->nft.nodes.n; i++)
            used = n->nft.nodes.v[i].number == k;
        if (!used)
            return k;
    }
    return 0;
}

static int peer_set(struct mesh_node *n, struct mesh_peer *p, const struct netmap_ip *addr, bool add, struct err *e)
{
    struct mesh_nft_node node = { .number = p->number };
    netmap_mac(addr, node.mac);
    if (add)
        node.number = p->number = number_for(n, node.mac);
    if (add && !p->number)
        return err_set(e, ERR_PRECONDITION, "more than %u nodes", MESH_NODES_MAX);
    /* A node may send before it gets anything: first to be known, last to be forgotten. */
    int r = add ? mesh_nft_node(&n->nft, &node, true, e) : 0;
    if (r == 0)
        r = add ? mesh_nl_peer_add(&n->nl, n->vxlan, p->number, addr, e)
                : mesh_nl_peer_del(&n->nl, n->vxlan, p->number, addr, e);
    return r == 0 && !add ? mesh_nft_node(&n->nft, &node, false, e) : r;
}

static int peers_gone(struct mesh_node *n, struct err *e)
{
    struct mesh_peer *p;
    struct str id;
    for (struct table_pos pos = { 0 }; table_next(&n->peers, &pos, &id, &p);) {
        const struct netmap_node *node = netmap_node(n->view, id);
        if (node && !str_is(id, n->self) && n->vxlan && netmap_ip_eq(&node->addr, &p->addr))
            continue;
        int r = n->vxlan ? peer_set(n, p, &p->addr, false, e) : 0;
        if (r < 0)
            return r;
        table_del(&n->peers, id);
        n->todo_all = true; /* its addresses are elsewhere, or nowhere */
    }
    return 0;
}

static int peers_new(struct mesh_node *n, struct err *e)
{
    struct netmap_node *node;
    struct str id;
    if (!n->vxlan)
        return 0;
    for (struct table_pos pos = { 0 }; table_next(&n->view->nodes, &pos, &id, &node);) {
        bool fresh;
        if (str_is(id, n->self) || !node->addr.family)
            continue;
        struct mesh_peer *p = table_put(&n->peers, id, &fresh);
        if (!fresh && p->number)
            continue;
        p->addr = node->addr;
        int r = peer_set(n, p, &node->addr, true, e);
        if (r < 0) {
            table_del(&n->peers, id);
            return r;
        }
        n->todo_all = true; /* addresses on it may have waited */
    }
    return 0;
}

/* ---- the VXLAN ---- */

struct strays {
    struct mesh_node *n;
    struct {
        uint8_t mac[6];
        struct netmap_ip dst;
    } * v;
    size_t count;
};

static void stray_peer(const uint8_t mac[6], const struct netmap_ip *dst, void *arg)
{
    struct strays *s = arg;
    for (size_t i = 0; i < s->n->nft.nodes.n; i++)
        if (memcmp(s->n->nft.nodes.v[i].mac, mac, 6) == 0)
            return;
    s->v = realloc(s->v, (s->count + 1) * sizeof *s->v);
    CHECK(s->v != NULL);
    memcpy(s->v[s->count].mac, mac, 6);
    s->v[s->count++].dst = *dst;
}

static void keep_far(uint32_t addr, unsigned number, void *arg)
{
    struct mesh_node *n = arg;
    *(unsigned *)table_put(&n->far, addr_key(&addr), NULL) = number;
}

/* nodes_left - nodes that the kernel's table still has from before a restart, and the view no longer. */
static int nodes_left(struct mesh_node *n, struct err *e)
{
    for (size_t i = n->nft.nodes.n; i-- > 0;) {
        struct mesh_nft_node node = n->nft.nodes.v[i];
        struct mesh_peer *p;
        bool known = false;
        for (struct table_pos pos = { 0 }; !known && table_next(&n->peers, &pos, NULL, &p);)
            known = p->number == node.number;
        if (!known && mesh_nft_node(&n->nft, &node, false, e) < 0)
            return -e->code;
    }
    return 0;
}

/* vxlan_adopt - takes the kernel's routes for what they are, and forwarding entries of nobody away. */
static int vxlan_adopt(struct mesh_node *n, struct err *e)
{
    struct strays s = { .n = n };
    table_clear(&n->far);
    int r = mesh_nl_far_list(&n->nl, n->vxlan, keep_far, n, e);
    if (r == 0)
        r = mesh_nl_peer_list(&n->nl, n->vxlan, stray_peer, &s, e);
    for (size_t i = 0; r == 0 && i < s.count; i++)
        r = mesh_nl_peer_del(&n->nl, n->vxlan, 0, &s.v[i].dst, e);
    free(s.v);
    return r;
}

static int vxlan_set(struct mesh_node *n, bool opening, struct err *e)
{
    const struct netmap_network *net = netmap_ingress(n->view);
    struct netmap_ip self;
    unsigned under, old = n->vxlan;
    bool made = false;
    snprintf(n->ingress, sizeof n->ingress, "%s", net ? net->id : "");
    if (!net || !mesh_node_address(n, &self)) {
        /* It stays as it is: connections of before may go on, and nothing new is sent there without routes. */
        return 0;
    }
    unsigned mtu = (unsigned)n->conf.mtu;
    under = mesh_nl_mtu_of(&n->nl, &self);
    if (under && under < mtu)
        mtu = under;
    mtu -= VXLAN_COST + (self.family == AF_INET6 ? 20 : 0);
    if (net->mtu && net->mtu < mtu)
        mtu = net->mtu;
    struct mesh_vxlan v = { .vni = net->vni,
                            .port = n->view->data_path_port ? n->view->data_path_port : VXLAN_PORT,
                            .local = self,
                            .mtu = mtu };
    int r = mesh_nl_vxlan(&n->nl, &v, &n->vxlan, &made, e);
    if (r < 0) {
        n->vxlan = 0;
        return r;
    }
    if (made) { /* and nothing of what was behind the old one is left */
        table_clear(&n->peers);
        table_clear(&n->far);
    } else if (old != n->vxlan) {
        r = vxlan_adopt(n, e);
    }
    if (r == 0)
        r = mesh_nl_steer(&n->nl, n->vxlan, MESH_MARK, MESH_MARK_MASK, e);
    bool fresh = made || (!n->nft.steering && !opening); /* when opening, it is read back and compared */
    n->nft.steering = true;
    if (r == 0 && fresh)
        r = mesh_nft_steer(&n->nft, e);
    n->host.vxlan_port = v.port;
    return r;
}

/* ---- addresses ---- */

/* far_number - of the node that an address lives on; 0: on none that we know, or here. */
static unsigned far_number(struct mesh_node *n, uint32_t addr)
{
    const struct netmap_network *net = netmap_ingress(n->view);
    struct netmap_ip ip = { .family = AF_INET, .prefix = 32 };
    struct netmap_service *s = NULL;
    struct netmap_endpoint *ep = NULL;
    uint32_t be = htonl(addr);
    memcpy(ip.b, &be, sizeof be);
    if (!net || mesh_node_has_addr(n, addr) || !netmap_by_address(net, &ip, &s, &ep) || !ep)
        return 0;
    const struct mesh_peer *p = table_get(&n->peers, str_from(ep->node));
    return p ? p->number : 0;
}

static bool address_lives(struct mesh_node *n, uint32_t addr)
{
    const struct netmap_network *net = netmap_ingress(n->view);
    struct netmap_ip ip = { .family = AF_INET, .prefix = 32 };
    struct netmap_service *s = NULL;
    struct netmap_endpoint *ep = NULL;
    uint32_t be = htonl(addr);
    memcpy(ip.b, &be, sizeof be);
    return mesh_node_has_addr(n, addr) || (net && netmap_by_address(net, &ip, &s, &ep) && ep);
}

/* far_sync - first the new ones: the way to an address is there before a connection is sent to it, and stays until none
 * is. */
static int far_sync(struct mesh_node *n, bool add, struct err *e)
{
    struct str key;
    unsigned count = 0;
    int r = 0;
    for (struct table_pos pos = { 0 }; n->vxlan && r == 0 && table_next(&n->todo_far, &pos, &key, NULL);) {
        uint32_t addr = key_addr(key);
        unsigned *have = table_get(&n->far, key), want = far_number(n, addr);
        if (add && want && (!have || *have != want)) {
            mesh_nl_far_add(&n->nl, n->vxlan, want, addr);
            *(unsigned *)table_put(&n->far, key, NULL) = want;
            count++;
        } else if (!add && !want && have) {
            if (!mesh_node_has_addr(n, addr))
                mesh_nl_far_del(&n->nl, n->vxlan, addr);
            table_del(&n->far, key);
            count++;
        }
        if (count % FLUSH_EACH == FLUSH_EACH - 1)
            r = mesh_nl_flush(&n->nl, "change the gateway's routes", e);
    }
    if (r == 0)
        r = mesh_nl_flush(&n->nl, "change the gateway's routes", e);
    if (r < 0) /* which of them were refused is not known: read them back the next time */
        n->vxlan = 0;
    return r;
}

static void far_forget(struct mesh_node *n)
{
    struct str key;
    for (struct table_pos pos = { 0 }; table_next(&n->todo_far, &pos, &key, NULL);) {
        uint32_t addr = key_addr(key);
        if (address_lives(n, addr))
            continue;
        mesh_ct_addr(&n->stale, addr, MESH_CT_ALL);
        table_del(&n->draining, key);
    }
}

/* ---- services ---- */

/* was_usable - a backend that got connections until now and gets none any more: what is left of them is looked at. */
static void note_leaving(struct mesh_node *n, const struct mesh_service *old, const struct netmap_network *net,
                         const struct mesh_backend *now, size_t nnow)
{
    for (size_t i = 0; old && i < old->nbackends; i++) {
        const struct mesh_backend *b = &old->backends[i];
        bool still = false;
        for (size_t k = 0; k < nnow && !still; k++)
            still = now[k].usable && strcmp(now[k].task, b->task) == 0;
        if (!b->usable || still || !b->addr)
            continue;
        if (net && netmap_endpoint(net, str_from(b->task)))
            mesh_node_drain(n, b->addr);
        else if (!address_lives(n, b->addr))
            mesh_ct_addr(&n->stale, b->addr, MESH_CT_ALL);
    }
}

static size_t backends_of(struct mesh_node *n, const struct netmap_network *net, struct str id,
                          struct mesh_backend **ret)
{
    const struct table *members = table_get(&net->members, id);
    struct mesh_backend *v = calloc(members ? members->count + 1 : 1, sizeof *v);
    struct str task;
    size_t count = 0;
    CHECK(v != NULL);
    for (struct table_pos pos = { 0 }; members && table_next(members, &pos, &task, NULL);) {
        const struct netmap_endpoint *ep = netmap_endpoint(net, task);
        struct mesh_backend *b = &v[count];
        for (size_t i = 0; ep && i < ep->nips && !b->addr; i++)
            b->addr = ip4(&ep->ips[i]);
        if (!ep || !b->addr || !str_copy(b->task, sizeof b->task, task))
            continue;
        b->here = n->self[0] && strcmp(ep->node, n->self) == 0;
        b->usable = b->here ? netmap_usable(n->view, ep) || ep->state == NETMAP_STARTING
                            : netmap_usable(n->view, ep) && table_get(&n->far, addr_key(&b->addr));
        count++;
    }
    *ret = v;
    return count;
}

static void service_set(struct mesh_node *n, struct str id)
{
    const struct netmap_network *net = netmap_ingress(n->view);
    const struct netmap_service *s = net ? netmap_service(net, id) : NULL;
    struct mesh_backend *backends = NULL;
    struct mesh_publish *ports = NULL;
    size_t nbackends = 0, nports = 0;
    if (s && s->nports) {
        nbackends = backends_of(n, net, id, &backends);
        ports = calloc(s->nports, sizeof *ports);
        CHECK(ports != NULL);
        for (size_t i = 0; i < s->nports; i++)
            if (s->ports[i].published)
                ports[nports++] = (struct mesh_publish){ .proto = s->ports[i].proto,
                                                         .target = s->ports[i].target,
                                                         .published = s->ports[i].published };
    }
    note_leaving(n, table_get(&n->core.services, id), net, backends, nbackends);
    mesh_core_service(&n->core, id, ports, nports, backends, nbackends);
}

/* ---- settling ---- */

static void all_todo(struct mesh_node *n)
{
    const struct netmap_network *net = netmap_ingress(n->view);
    struct netmap_endpoint **ep;
    struct str id;
    for (struct table_pos pos = { 0 }; table_next(&n->core.services, &pos, &id, NULL);)
        table_put(&n->todo_services, id, NULL);
    for (struct table_pos pos = { 0 }; table_next(&n->far, &pos, &id, NULL);)
        table_put(&n->todo_far, id, NULL);
    for (struct table_pos pos = { 0 }; net && table_next(&net->services, &pos, &id, NULL);)
        table_put(&n->todo_services, id, NULL);
    for (struct table_pos pos = { 0 }; net && table_next(&net->endpoints, &pos, NULL, &ep);)
        for (size_t i = 0; i < (*ep)->nips; i++) {
            uint32_t addr = ip4(&(*ep)->ips[i]);
            if (addr)
                table_put(&n->todo_far, addr_key(&addr), NULL);
        }
}

/* mesh_node_source - what localhost looks like to tasks: this node's address. Where that is no address of IPv4 it is
 * one that is nobody's, since the gateway of a task's node would take its own for the end of the way. */
uint32_t mesh_node_source(const struct mesh_node *n)
{
    struct netmap_ip self;
    if (!mesh_node_address(n, &self))
        return mesh_subnet_gateway(n->subnet);
    if (self.family != AF_INET)
        return NOBODY;
    return ip4(&self) >> 24 == 127 ? mesh_subnet_gateway(n->subnet) : ip4(&self); /* a swarm of one, on loopback */
}

static bool self_changed(struct mesh_node *n)
{
    uint32_t addr = mesh_node_source(n);
    if (addr == n->nft.self)
        return false;
    n->nft.self = addr; /* it is in a rule of the gateway's table */
    return true;
}

static int settle_nodes(struct mesh_node *n, bool opening, struct err *e)
{
    if (!n->todo_all && !n->todo_nodes)
        return 0;
    uint16_t port = n->host.vxlan_port;
    bool rebuilt, anew = self_changed(n);
    int r = anew && !opening ? mesh_node_rebuild(n, e) : 0;
    if (r == 0)
        r = vxlan_set(n, opening, e);
    if (r == 0)
        r = peers_gone(n, e);
    if (r == 0)
        r = peers_new(n, e);
    if (r == 0)
        r = nodes_left(n, e);
    n->todo_nodes = r < 0;
    if (opening) /* the host's table comes later, with the ports */
        return r;
    mesh_node_host_wants(n);
    struct err host_e = ERR_INIT;
    int rh =
        port == n->host.vxlan_port ? mesh_host_apply(&n->host, &host_e) : mesh_host_sync(&n->host, &rebuilt, &host_e);
    if (rh < 0 && r == 0) {
        n->todo_nodes = true;
        *e = host_e;
        r = rh;
    }
    return r;
}

/* drains_over - an address whose task is gone, even if another one has it by now. */
static void drains_over(struct mesh_node *n)
{
    struct mesh_service *s;
    struct mesh_sandbox *sb;
    struct table still;
    struct str key;
    if (n->draining.count == 0)
        return;
    table_init(&still, 0);
    for (struct table_pos pos = { 0 }; table_next(&n->core.services, &pos, NULL, &s);)
        for (size_t i = 0; i < s->nbackends; i++)
            if (!s->backends[i].usable)
                table_put(&still, addr_key(&s->backends[i].addr), NULL);
    for (struct table_pos pos = { 0 }; table_next(&n->core.sandboxes, &pos, NULL, &sb);)
        if (sb->state == MESH_DRAINING)
            table_put(&still, addr_key(&sb->addr), NULL);
    for (struct table_pos pos = { 0 }; table_next(&n->draining, &pos, &key, NULL);)
        if (!table_get(&still, key))
            table_del(&n->draining, key);
    table_done(&still);
}

/* settle - where there is no way to other nodes, ports go on with what is here. */
static int settle(struct mesh_node *n, bool opening, struct err *e)
{
    struct err first = ERR_INIT, later = ERR_INIT;
    struct str id;
    int r = settle_nodes(n, opening, &first);
    if (n->todo_all)
        all_todo(n);
    if (r == 0)
        r = far_sync(n, true, &first);
    for (struct table_pos pos = { 0 }; table_next(&n->todo_services, &pos, &id, NULL);)
        service_set(n, id);
    table_clear(&n->todo_services);
    drains_over(n);
    int rc = opening ? 0 : mesh_node_commit(n, &later);
    if (rc == 0 && r == 0)
        rc = far_sync(n, false, &later);
    if (r == 0 && rc == 0) {
        far_forget(n);
        table_clear(&n->todo_far);
        n->todo_all = false;
        return 0;
    }
    n->todo_all = true;
    if (e)
        *e = r < 0 ? first : later;
    return r < 0 ? r : rc;
}

int mesh_node_settle(struct mesh_node *n, struct err *e)
{
    return settle(n, false, e);
}

int mesh_node_settle_open(struct mesh_node *n, struct err *e)
{
    struct mesh_dump d = { 0 };
    bool intact;
    int r = mesh_nft_read(&n->nft, &d, &intact, e); /* for the numbers of the nodes */
    mesh_dump_done(&d);
    return r < 0 ? r : settle(n, true, e);
}
