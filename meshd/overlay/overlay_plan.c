#include "meshd/overlay/overlay_plan.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "common/util/check.h"

#define UNDERLAY_MTU 1500u
#define VXLAN_BYTES4 50u /* RFC 7348: outer IPv4, UDP, VXLAN, inner Ethernet */
#define VXLAN_BYTES6 70u
#define ESP_BYTES 40u /* SPI, sequence, IV, padding, trailer, ICV of AES-GCM (RFC 4106), rounded up */
#define MTU_MIN 576u

static struct str mac_key(const uint8_t mac[6])
{
    return (struct str){ (const char *)mac, 6 };
}

static struct str ip_key(const struct netmap_ip *ip, char buf[17])
{
    size_t n = ip->family == AF_INET6 ? 16 : 4;
    buf[0] = (char)ip->family;
    memcpy(buf + 1, ip->b, n);
    return (struct str){ buf, n + 1 };
}

void overlay_have_init(struct overlay_have *h)
{
    table_init(&h->fdb, sizeof(struct netmap_ip));
    table_init(&h->neigh, sizeof(struct overlay_neigh));
}

void overlay_have_clear(struct overlay_have *h)
{
    table_clear(&h->fdb);
    table_clear(&h->neigh);
}

void overlay_have_done(struct overlay_have *h)
{
    table_done(&h->fdb);
    table_done(&h->neigh);
}

void overlay_have_fdb(struct overlay_have *h, const uint8_t mac[6], const struct netmap_ip *node)
{
    *(struct netmap_ip *)table_put(&h->fdb, mac_key(mac), NULL) = *node;
}

void overlay_have_neigh(struct overlay_have *h, const struct netmap_ip *ip, const uint8_t mac[6])
{
    char buf[17];
    struct overlay_neigh *n = table_put(&h->neigh, ip_key(ip, buf), NULL);
    n->ip = *ip;
    memcpy(n->mac.b, mac, 6);
}

void overlay_edits_done(struct overlay_edits *es)
{
    free(es->v);
    *es = (struct overlay_edits){ 0 };
}

static void edit(struct overlay_edits *es, enum overlay_edit_type type, const uint8_t mac[6],
                 const struct netmap_ip *ip)
{
    if (es->n == es->cap) {
        es->cap = es->cap * 2 + 16;
        es->v = realloc(es->v, es->cap * sizeof *es->v);
        CHECK(es->v != NULL);
    }
    struct overlay_edit *ed = &es->v[es->n++];
    *ed = (struct overlay_edit){ .type = type, .ip = *ip };
    memcpy(ed->mac.b, mac, 6);
}

/* where - the address of the node that an endpoint is on, if it is to be reached by VXLAN. */
static const struct netmap_ip *where(const struct netmap *m, const struct overlay_self *self,
                                     const struct netmap_endpoint *ep)
{
    if (!ep || ep->nips == 0 || str_is(self->node, ep->node))
        return NULL;
    const struct netmap_node *node = netmap_node(m, str_from(ep->node));
    return node && node->addr.family == self->family ? &node->addr : NULL;
}

static void want_fdb(struct overlay_have *have, const uint8_t mac[6], const struct netmap_ip *node,
                     struct overlay_edits *out)
{
    struct netmap_ip *h = table_get(&have->fdb, mac_key(mac));
    if (node && (!h || !netmap_ip_eq(h, node))) {
        edit(out, OVERLAY_FDB_SET, mac, node);
        overlay_have_fdb(have, mac, node);
    } else if (!node && h) {
        edit(out, OVERLAY_FDB_DEL, mac, h);
        table_del(&have->fdb, mac_key(mac));
    }
}

static void want_neigh(struct overlay_have *have, const struct netmap_ip *ip, const uint8_t *mac,
                       struct overlay_edits *out)
{
    char buf[17];
    struct overlay_neigh *h = table_get(&have->neigh, ip_key(ip, buf));
    if (mac && (!h || memcmp(h->mac.b, mac, 6) != 0)) {
        edit(out, OVERLAY_NEIGH_SET, mac, ip);
        overlay_have_neigh(have, ip, mac);
    } else if (!mac && h) {
        edit(out, OVERLAY_NEIGH_DEL, h->mac.b, ip);
        table_del(&have->neigh, ip_key(ip, buf));
    }
}

void overlay_plan_addrs(struct overlay_have *have, const struct netmap *m, const struct netmap_network *n,
                        const struct overlay_self *self, const struct netmap_ip *ips, size_t nips,
                        struct overlay_edits *out)
{
    for (size_t i = 0; i < nips; i++) {
        struct netmap_service *svc = NULL;
        struct netmap_endpoint *ep = NULL;
        uint8_t mac[6], ep_mac[6];
        if (n)
            (void)netmap_by_address(n, &ips[i], &svc, &ep);
        const struct netmap_ip *node = where(m, self, ep);
        netmap_mac(&ips[i], mac);
        if (node)
            netmap_mac(&ep->ips[0], ep_mac);
        want_fdb(have, mac, node && netmap_ip_eq(&ep->ips[0], &ips[i]) ? node : NULL, out);
        want_neigh(have, &ips[i], node ? ep_mac : NULL, out);
    }
}

/* stale_fdb - what is there and should not be. The address behind it is not known, so the wanted ones are collected. */
static void stale_fdb(struct overlay_have *have, const struct table *wanted, struct overlay_edits *out)
{
    struct netmap_ip *node;
    struct str key;
    for (struct table_pos pos = { 0 }; table_next(&have->fdb, &pos, &key, &node);)
        if (!table_get(wanted, key)) {
            edit(out, OVERLAY_FDB_DEL, (const uint8_t *)key.p, node);
            table_del(&have->fdb, key);
        }
}

static void stale_neigh(struct overlay_have *have, const struct table *wanted, struct overlay_edits *out)
{
    struct overlay_neigh *ng;
    struct str key;
    for (struct table_pos pos = { 0 }; table_next(&have->neigh, &pos, &key, &ng);)
        if (!table_get(wanted, key)) {
            edit(out, OVERLAY_NEIGH_DEL, ng->mac.b, &ng->ip);
            table_del(&have->neigh, key);
        }
}

void overlay_plan_all(struct overlay_have *have, const struct netmap *m, const struct netmap_network *n,
                      const struct overlay_self *self, struct overlay_edits *out)
{
    struct table wanted; /* keys of both kinds: they differ in length */
    struct netmap_endpoint **ep;
    uint8_t mac[6];
    char buf[17];
    table_init(&wanted, 1);
    for (struct table_pos pos = { 0 }; n && table_next(&n->endpoints, &pos, NULL, &ep);) {
        if (!where(m, self, *ep))
            continue;
        netmap_mac(&(*ep)->ips[0], mac);
        table_put(&wanted, mac_key(mac), NULL);
        for (size_t i = 0; i < (*ep)->nips; i++)
            table_put(&wanted, ip_key(&(*ep)->ips[i], buf), NULL);
    }
    stale_neigh(have, &wanted, out);
    stale_fdb(have, &wanted, out);
    for (struct table_pos pos = { 0 }; n && table_next(&n->endpoints, &pos, NULL, &ep);)
        overlay_plan_addrs(have, m, n, self, (*ep)->ips, (*ep)->nips, out);
    table_done(&wanted);
}

bool overlay_vxlan_fits(const struct overlay_vxlan *want, const struct overlay_vxlan *have)
{
    return want->vni == have->vni && want->port == have->port && want->local.family == have->local.family &&
           netmap_ip_eq(&want->local, &have->local);
}

unsigned overlay_mtu(uint32_t option, unsigned underlay, uint8_t family, bool encrypted)
{
    unsigned less = (family == AF_INET6 ? VXLAN_BYTES6 : VXLAN_BYTES4) + (encrypted ? ESP_BYTES : 0);
    if (option)
        return option;
    if (underlay == 0)
        underlay = UNDERLAY_MTU;
    return underlay < MTU_MIN + less ? MTU_MIN : underlay - less > 65535 ? 65535 : underlay - less;
}
