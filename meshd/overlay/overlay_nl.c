#include "meshd/overlay/overlay_nl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "common/util/check.h"
#include "common/util/cleanup.h"
#include "meshd/netlink/mesh_link.h"

#define ROOM 1024
#define EDITS_PER_BATCH 128u /* should all be refused: what the socket can hold of answers */

int overlay_host_open(struct overlay_host *h, struct err *e)
{
    *h = (struct overlay_host){ .ns = mesh_ns_self() };
    if (h->ns < 0)
        return err_errno(e, errno, "open /proc/thread-self/ns/net");
    h->ipv6 = access("/proc/sys/net/ipv6/conf", F_OK) == 0;
    return mesh_msg_open(&h->rt, NETLINK_ROUTE, e);
}

void overlay_host_close(struct overlay_host *h)
{
    mesh_msg_close(&h->rt);
    closep(&h->ns);
    h->ns = -1;
}

/* ---- listings ---- */

static size_t ip_bytes(const struct netmap_ip *ip)
{
    return ip->family == AF_INET6 ? 16 : 4;
}

static bool ip_of(const struct nlattr *a, struct netmap_ip *ret)
{
    uint16_t n = mnl_attr_get_payload_len(a);
    if (n != 4 && n != 16)
        return false;
    *ret = (struct netmap_ip){ .family = n == 4 ? AF_INET : AF_INET6, .prefix = n == 4 ? 32 : 128 };
    memcpy(ret->b, mnl_attr_get_payload(a), n);
    return true;
}

/* dump - one listing; `clear` empties what was collected before it is asked for again, because of a change meanwhile.
 */
static int dump(struct mesh_msg *m, uint16_t type, uint8_t family, size_t extra, const char *what, mesh_msg_fn *fn,
                void *arg, void (*clear)(void *arg), struct err *e)
{
    for (int tries = 0;; tries++) {
        int errnum = 0;
        struct nlmsghdr *h = mesh_msg_put(m, type, NLM_F_DUMP, extra, ROOM);
        ((struct rtgenmsg *)mnl_nlmsg_get_payload(h))->rtgen_family = family;
        int r = mesh_msg_dump(m, what, fn, arg, &errnum, e);
        if (errnum != EINTR || tries == 20)
            return r;
        clear(arg);
    }
}

struct underlay {
    const struct netmap_ip *local;
    unsigned index, mtu;
};

static void underlay_clear(void *arg)
{
    (void)arg;
}

static void underlay_addr(const struct nlmsghdr *h, void *arg)
{
    const struct ifaddrmsg *am = mnl_nlmsg_get_payload(h);
    struct underlay *u = arg;
    const struct nlattr *a;
    struct netmap_ip ip;
    bool local = false;
    for (struct mesh_attrs it = mesh_attrs_of(h, sizeof *am); mesh_attrs_next(&it, &a);) {
        unsigned type = mnl_attr_get_type(a);
        if (type == IFA_LOCAL) /* IPv6 has it only when there is a peer */
            local = true;
        if ((type == IFA_LOCAL || (type == IFA_ADDRESS && !local)) && ip_of(a, &ip) && netmap_ip_eq(&ip, u->local))
            u->index = am->ifa_index;
    }
}

static void underlay_link(const struct nlmsghdr *h, void *arg)
{
    const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(h);
    struct underlay *u = arg;
    const struct nlattr *a;
    for (struct mesh_attrs it = mesh_attrs_of(h, sizeof *ifi); mesh_attrs_next(&it, &a);)
        if (mnl_attr_get_type(a) == IFLA_MTU && (unsigned)ifi->ifi_index == u->index)
            u->mtu = mnl_attr_get_u32(a);
}

int overlay_host_mtu(struct overlay_host *h, const struct netmap_ip *local, unsigned *ret, struct err *e)
{
    struct underlay u = { .local = local };
    int r = dump(&h->rt, RTM_GETADDR, local->family, sizeof(struct ifaddrmsg), "list addresses", underlay_addr, &u,
                 underlay_clear, e);
    if (r == 0 && u.index)
        r = dump(&h->rt, RTM_GETLINK, AF_UNSPEC, sizeof(struct ifinfomsg), "list links", underlay_link, &u,
                 underlay_clear, e);
    *ret = u.mtu;
    return r;
}

/* ---- the namespace ---- */

static int ns_inside(struct overlay_ns *ns, bool made, struct err *e)
{
    int r = mesh_msg_open(&ns->rt, NETLINK_ROUTE, e);
    /* br_netfilter would take what is bridged past the namespace's (empty) firewall, and it is on by default. */
    if (r == 0 && made && access("/proc/sys/net/bridge/bridge-nf-call-iptables", F_OK) == 0) {
        r = mesh_ns_sysctl("net/bridge/bridge-nf-call-iptables", "0", e);
        if (r == 0)
            r = mesh_ns_sysctl("net/bridge/bridge-nf-call-ip6tables", "0", e);
        if (r == 0)
            r = mesh_ns_sysctl("net/bridge/bridge-nf-call-arptables", "0", e);
    }
    return r;
}

int overlay_ns_open(struct overlay_host *h, const char *pin, struct overlay_ns *ns, bool *ret_made, struct err *e)
{
    *ns = (struct overlay_ns){ 0 };
    bool made = !mesh_ns_pinned(pin);
    if (made)
        (void)mesh_ns_unpin(pin, NULL); /* a file without a namespace: a crash in the middle */
    int r = made ? mesh_ns_make(pin, e) : mesh_ns_enter(pin, e);
    if (r == 0)
        r = ns_inside(ns, made, e);
    mesh_ns_back(h->ns);
    if (r < 0) {
        mesh_msg_close(&ns->rt);
        if (made)
            (void)mesh_ns_unpin(pin, NULL);
        return r;
    }
    *ret_made = made;
    return 0;
}

void overlay_ns_close(struct overlay_ns *ns)
{
    mesh_msg_close(&ns->rt);
    *ns = (struct overlay_ns){ 0 };
}

struct looking {
    struct overlay_ns *ns;
    struct overlay_seen *seen;
};

struct one_link {
    struct overlay_port port;
    const char *kind;
    unsigned mtu, master;
    struct overlay_vxlan vx;
};

static void link_vxlan(const struct nlattr *data, struct overlay_vxlan *vx)
{
    const struct nlattr *a;
    for (struct mesh_attrs it = mesh_attrs_in(data); mesh_attrs_next(&it, &a);) {
        unsigned type = mnl_attr_get_type(a);
        if (type == IFLA_VXLAN_ID)
            vx->vni = mnl_attr_get_u32(a);
        else if (type == IFLA_VXLAN_PORT)
            vx->port = ntohs(mnl_attr_get_u16(a));
        else if (type == IFLA_VXLAN_LOCAL || type == IFLA_VXLAN_LOCAL6)
            (void)ip_of(a, &vx->local);
    }
}

static void link_info(const struct nlattr *info, struct one_link *l)
{
    const struct nlattr *a;
    for (struct mesh_attrs it = mesh_attrs_in(info); mesh_attrs_next(&it, &a);) {
        if (mnl_attr_get_type(a) == IFLA_INFO_KIND)
            l->kind = mnl_attr_get_str(a);
        else if (mnl_attr_get_type(a) == IFLA_INFO_DATA && strcmp(l->kind, "vxlan") == 0)
            link_vxlan(a, &l->vx);
    }
}

static bool link_parse(const struct nlmsghdr *h, struct one_link *l)
{
    const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(h);
    const struct nlattr *a;
    *l = (struct one_link){ .port = { .index = (unsigned)ifi->ifi_index, .up = ifi->ifi_flags & IFF_UP }, .kind = "" };
    if (h->nlmsg_type != RTM_NEWLINK)
        return false;
    for (struct mesh_attrs it = mesh_attrs_of(h, sizeof *ifi); mesh_attrs_next(&it, &a);) {
        unsigned type = mnl_attr_get_type(a);
        if (type == IFLA_IFNAME)
            snprintf(l->port.name, sizeof l->port.name, "%s", mnl_attr_get_str(a));
        else if (type == IFLA_IFALIAS)
            snprintf(l->port.alias, sizeof l->port.alias, "%s", mnl_attr_get_str(a));
        else if (type == IFLA_MASTER)
            l->master = mnl_attr_get_u32(a);
        else if (type == IFLA_MTU)
            l->mtu = mnl_attr_get_u32(a);
        else if (type == IFLA_LINKINFO)
            link_info(a, l);
    }
    return true;
}

static void look_port(struct overlay_seen *s, const struct one_link *l)
{
    if (s->nports == s->cports) {
        s->cports = s->cports * 2 + 8;
        s->ports = realloc(s->ports, s->cports * sizeof *s->ports);
        CHECK(s->ports != NULL);
    }
    s->ports[s->nports] = l->port;
    s->ports[s->nports++].enslaved = l->master != 0;
}

static void look_one(const struct nlmsghdr *h, void *arg)
{
    struct looking *k = arg;
    struct overlay_seen *s = k->seen;
    struct one_link l;
    if (!link_parse(h, &l) || strcmp(l.port.name, "lo") == 0)
        return;
    if (strcmp(l.port.name, "br0") == 0) {
        s->br_alien = strcmp(l.kind, "bridge") != 0;
        s->br_ok = !s->br_alien && l.port.up;
        s->br_mtu = l.mtu;
        k->ns->br = l.port.index;
    } else if (strcmp(l.port.name, "vx0") == 0) {
        s->vx_alien = strcmp(l.kind, "vxlan") != 0;
        s->vx_ok = !s->vx_alien && l.port.up;
        s->vx_master = l.master;
        s->vx_mtu = l.mtu;
        s->vxlan = l.vx;
        k->ns->vx = l.port.index;
    } else {
        look_port(s, &l);
    }
}

void overlay_seen_done(struct overlay_seen *s)
{
    free(s->ports);
    *s = (struct overlay_seen){ 0 };
}

static void look_clear(void *arg)
{
    struct looking *k = arg;
    overlay_seen_done(k->seen);
    k->ns->br = k->ns->vx = 0;
}

int overlay_ns_look(struct overlay_ns *ns, struct overlay_seen *ret, struct err *e)
{
    struct looking k = { ns, ret };
    *ret = (struct overlay_seen){ 0 };
    look_clear(&k);
    int r = dump(&ns->rt, RTM_GETLINK, AF_UNSPEC, sizeof(struct ifinfomsg), "list links of an overlay network",
                 look_one, &k, look_clear, e);
    ret->vx_ok = ret->vx_ok && ret->vx_master == ns->br && ns->br != 0;
    return r;
}

/* ---- links ---- */

/* put_no_ipv6 - no link-local address on our side of the links: they need none. IPv6 itself stays, vx0 answers
 * neighbour solicitations. */
static void put_no_ipv6(const struct overlay_host *host, struct nlmsghdr *h)
{
    if (host->ipv6)
        mesh_link_put_no_ipv6(h);
}

static void put_bridge_port(struct mesh_msg *m, const char *name, bool flood)
{
    struct nlmsghdr *h = mesh_link_put(m, 0, name, true);
    struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO);
    mnl_attr_put_strz(h, IFLA_INFO_SLAVE_KIND, "bridge");
    struct nlattr *data = mnl_attr_nest_start(h, IFLA_INFO_SLAVE_DATA);
    mnl_attr_put_u8(h, IFLA_BRPORT_LEARNING, 0);
    mnl_attr_put_u8(h, IFLA_BRPORT_UNICAST_FLOOD, flood);
    mnl_attr_nest_end(h, data);
    mnl_attr_nest_end(h, info);
}

int overlay_ns_del(struct overlay_ns *ns, const char *link, struct err *e)
{
    int errnum = 0;
    struct nlmsghdr *h = mesh_msg_put(&ns->rt, RTM_DELLINK, NLM_F_ACK, sizeof(struct ifinfomsg), ROOM);
    mnl_attr_put_strz(h, IFLA_IFNAME, link);
    int r = mesh_msg_send(&ns->rt, "delete link of an overlay network", &errnum, e);
    return r < 0 && errnum == ENODEV ? 0 : r;
}

static void put_bridge(struct overlay_ns *ns, uint32_t vni)
{
    uint8_t mac[6] = { 0x02, 0x4d, 0x53, (uint8_t)(vni >> 16), (uint8_t)(vni >> 8), (uint8_t)vni };
    struct nlmsghdr *h = mesh_link_put(&ns->rt, NLM_F_CREATE | NLM_F_EXCL, "br0", false);
    mnl_attr_put(h, IFLA_ADDRESS, sizeof mac, mac); /* fixed: else it would follow the lowest port's */
    struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO);
    mnl_attr_put_strz(h, IFLA_INFO_KIND, "bridge");
    struct nlattr *data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
    mnl_attr_put_u8(h, IFLA_BR_MCAST_SNOOPING, 0); /* no querier, no timers */
    mnl_attr_nest_end(h, data);
    mnl_attr_nest_end(h, info);
}

/* link_index - of a link in the overlay's namespace: if_nametoindex() would look in the host's. */
struct index_of {
    const char *name;
    unsigned index;
};

static void index_one(const struct nlmsghdr *h, void *arg)
{
    struct index_of *x = arg;
    struct one_link l;
    if (link_parse(h, &l) && strcmp(l.port.name, x->name) == 0)
        x->index = l.port.index;
}

static int link_index(struct overlay_ns *ns, const char *name, unsigned *ret, struct err *e)
{
    struct index_of x = { .name = name };
    struct nlmsghdr *h = mesh_msg_put(&ns->rt, RTM_GETLINK, NLM_F_ACK, sizeof(struct ifinfomsg), ROOM);
    mnl_attr_put_strz(h, IFLA_IFNAME, name);
    int r = mesh_msg_dump(&ns->rt, "look at a link", index_one, &x, NULL, e);
    *ret = x.index;
    return r;
}

int overlay_ns_bridge(struct overlay_host *host, struct overlay_ns *ns, uint32_t vni, unsigned mtu, struct err *e)
{
    int r = 0;
    if (!ns->br) {
        put_bridge(ns, vni);
        r = mesh_msg_send(&ns->rt, "make bridge of an overlay network", NULL, e);
        if (r == 0)
            r = link_index(ns, "br0", &ns->br, e);
    }
    if (r < 0)
        return r;
    struct nlmsghdr *h = mesh_link_put(&ns->rt, 0, "br0", false); /* before it is up: no link-local address meanwhile */
    mnl_attr_put_u32(h, IFLA_MTU, mtu);
    put_no_ipv6(host, h);
    mesh_link_put(&ns->rt, 0, "br0", true);
    return mesh_msg_send(&ns->rt, "set up bridge of an overlay network", NULL, e);
}

static void put_vxlan(struct overlay_host *host, const struct overlay_vxlan *vx, unsigned mtu, int ns_fd)
{
    struct nlmsghdr *h = mesh_link_put(&host->rt, NLM_F_CREATE | NLM_F_EXCL, "vx0", false);
    mnl_attr_put_u32(h, IFLA_NET_NS_FD, (uint32_t)ns_fd);
    mnl_attr_put_u32(h, IFLA_MTU, mtu);
    struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO);
    mnl_attr_put_strz(h, IFLA_INFO_KIND, "vxlan");
    struct nlattr *data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
    mnl_attr_put_u32(h, IFLA_VXLAN_ID, vx->vni);
    mnl_attr_put(h, vx->local.family == AF_INET6 ? IFLA_VXLAN_LOCAL6 : IFLA_VXLAN_LOCAL, ip_bytes(&vx->local),
                 vx->local.b);
    mnl_attr_put_u16(h, IFLA_VXLAN_PORT, htons(vx->port));
    mnl_attr_put_u8(h, IFLA_VXLAN_LEARNING, 0);
    mnl_attr_put_u8(h, IFLA_VXLAN_PROXY, 1);
    mnl_attr_nest_end(h, data);
    mnl_attr_nest_end(h, info);
}

int overlay_ns_vxlan(struct overlay_host *host, struct overlay_ns *ns, const char *pin, const struct overlay_vxlan *vx,
                     unsigned mtu, int *ret_errno, struct err *e)
{
    _cleanup_(closep) int fd = open(pin, O_RDONLY | O_CLOEXEC);
    *ret_errno = 0;
    if (fd < 0)
        return err_errno(e, errno, "open %s", pin);
    put_vxlan(host, vx, mtu, fd);
    int r = mesh_msg_send(&host->rt, "make VXLAN device", ret_errno, e);
    if (r == 0)
        r = link_index(ns, "vx0", &ns->vx, e);
    return r < 0 ? r : overlay_ns_vxlan_set(host, ns, pin, mtu, e);
}

int overlay_ns_vxlan_set(struct overlay_host *host, struct overlay_ns *ns, const char *pin, unsigned mtu, struct err *e)
{
    struct nlmsghdr *h = mesh_link_put(&ns->rt, 0, "vx0", false);
    mnl_attr_put_u32(h, IFLA_MASTER, ns->br);
    mnl_attr_put_u32(h, IFLA_MTU, mtu);
    mnl_attr_put_strz(h, IFLA_IFALIAS, pin);
    put_no_ipv6(host, h);
    put_bridge_port(&ns->rt, "vx0", true);
    return mesh_msg_send(&ns->rt, "set up VXLAN device", NULL, e);
}

/* ---- forwarding entries and neighbours ---- */

struct reading {
    struct overlay_have *have;
    unsigned vx;
};

static void read_clear(void *arg)
{
    (void)arg; /* an entry seen twice is one */
}

static void read_neigh(const struct nlmsghdr *h, void *arg)
{
    const struct ndmsg *nd = mnl_nlmsg_get_payload(h);
    const struct nlattr *a;
    struct reading *rd = arg;
    const uint8_t *mac = NULL;
    struct netmap_ip dst = { 0 };
    if ((unsigned)nd->ndm_ifindex != rd->vx || !(nd->ndm_state & NUD_PERMANENT))
        return;
    if (nd->ndm_family == AF_BRIDGE && !(nd->ndm_flags & NTF_SELF))
        return;
    for (struct mesh_attrs it = mesh_attrs_of(h, sizeof *nd); mesh_attrs_next(&it, &a);) {
        if (mnl_attr_get_type(a) == NDA_LLADDR && mnl_attr_get_payload_len(a) == 6)
            mac = mnl_attr_get_payload(a);
        else if (mnl_attr_get_type(a) == NDA_DST)
            (void)ip_of(a, &dst);
    }
    if (!mac || !dst.family)
        return;
    if (nd->ndm_family == AF_BRIDGE)
        overlay_have_fdb(rd->have, mac, &dst);
    else
        overlay_have_neigh(rd->have, &dst, mac);
}

int overlay_ns_read(struct overlay_ns *ns, struct overlay_have *ret, struct err *e)
{
    static const uint8_t families[] = { AF_BRIDGE, AF_INET, AF_INET6 };
    struct reading rd = { ret, ns->vx };
    int r = 0;
    overlay_have_clear(ret);
    for (size_t i = 0; r == 0 && ns->vx && i < sizeof families; i++)
        r = dump(&ns->rt, RTM_GETNEIGH, families[i], sizeof(struct ndmsg), "list neighbours of an overlay network",
                 read_neigh, &rd, read_clear, e);
    return r;
}

static void put_edit(struct overlay_ns *ns, const struct overlay_edit *ed)
{
    bool set = ed->type == OVERLAY_FDB_SET || ed->type == OVERLAY_NEIGH_SET;
    bool fdb = ed->type == OVERLAY_FDB_SET || ed->type == OVERLAY_FDB_DEL;
    struct nlmsghdr *h = mesh_msg_put(&ns->rt, set ? RTM_NEWNEIGH : RTM_DELNEIGH,
                                      set ? NLM_F_CREATE | NLM_F_REPLACE : 0, sizeof(struct ndmsg), 128);
    *(struct ndmsg *)mnl_nlmsg_get_payload(h) = (struct ndmsg){ .ndm_family = fdb ? AF_BRIDGE : ed->ip.family,
                                                                .ndm_ifindex = (int)ns->vx,
                                                                .ndm_state = NUD_PERMANENT,
                                                                .ndm_flags = fdb ? NTF_SELF : 0 };
    if (fdb || set)
        mnl_attr_put(h, NDA_LLADDR, 6, ed->mac.b);
    if (!fdb || set)
        mnl_attr_put(h, NDA_DST, ip_bytes(&ed->ip), ed->ip.b);
}

/* The kernel says what it refuses, and with the last one that it has seen them all. */
int overlay_ns_apply(struct overlay_ns *ns, const struct overlay_edits *es, struct err *e)
{
    int r = 0;
    for (size_t i = 0; i < es->n;) {
        struct err e1 = ERR_INIT;
        for (size_t k = 0; i < es->n && k < EDITS_PER_BATCH; i++, k++)
            put_edit(ns, &es->v[i]);
        ns->rt.cur->nlmsg_flags |= NLM_F_ACK;
        if (mesh_msg_send(&ns->rt, "change neighbours of an overlay network", NULL, &e1) < 0 && r == 0) {
            r = -e1.code;
            if (e)
                *e = e1;
        }
    }
    return r;
}

/* ---- interfaces of sandboxes ---- */

void overlay_port_name(const struct netmap_ip *first, char name[IFNAMSIZ])
{
    uint8_t mac[6];
    netmap_mac(first, mac);
    snprintf(name, IFNAMSIZ, "ms%02x%02x%02x%02x", mac[2], mac[3], mac[4], mac[5]);
}

static void put_veth(struct overlay_ns *ns, const struct overlay_plug *p, const char *name, int sandbox_fd)
{
    uint8_t mac[6];
    char eth[IFNAMSIZ];
    struct nlmsghdr *h = mesh_link_put(&ns->rt, NLM_F_CREATE | NLM_F_EXCL, name, false);
    mnl_attr_put_u32(h, IFLA_MTU, p->mtu);
    struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO);
    mnl_attr_put_strz(h, IFLA_INFO_KIND, "veth");
    struct nlattr *data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
    struct nlattr *peer = mnl_attr_nest_start(h, VETH_INFO_PEER);
    mnl_nlmsg_put_extra_header(h, sizeof(struct ifinfomsg)); /* not up: a peer can't be before its other end is */
    snprintf(eth, sizeof eth, "eth%u", p->eth);
    mnl_attr_put_strz(h, IFLA_IFNAME, eth);
    mnl_attr_put_u32(h, IFLA_MTU, p->mtu);
    netmap_mac(&p->ips[0], mac);
    mnl_attr_put(h, IFLA_ADDRESS, sizeof mac, mac);
    mnl_attr_put_u32(h, IFLA_NET_NS_FD, (uint32_t)sandbox_fd);
    mnl_attr_nest_end(h, peer);
    mnl_attr_nest_end(h, data);
    mnl_attr_nest_end(h, info);
}

int overlay_ns_port_set(struct overlay_host *host, struct overlay_ns *ns, const struct overlay_plug *p, struct err *e)
{
    char name[IFNAMSIZ];
    uint8_t mac[6];
    unsigned index;
    overlay_port_name(&p->ips[0], name);
    netmap_mac(&p->ips[0], mac);
    struct nlmsghdr *h = mesh_link_put(&ns->rt, 0, name, false);
    mnl_attr_put_u32(h, IFLA_MASTER, ns->br);
    mnl_attr_put_strz(h, IFLA_IFALIAS, p->task);
    put_no_ipv6(host, h);
    put_bridge_port(&ns->rt, name, false);
    int r = mesh_msg_send(&ns->rt, "set up link of an overlay network", NULL, e);
    if (r == 0)
        r = link_index(ns, name, &index, e);
    if (r < 0)
        return r;
    h = mesh_msg_put(&ns->rt, RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, sizeof(struct ndmsg), 128);
    *(struct ndmsg *)mnl_nlmsg_get_payload(h) = (struct ndmsg){
        .ndm_family = AF_BRIDGE, .ndm_ifindex = (int)index, .ndm_state = NUD_NOARP, .ndm_flags = NTF_MASTER
    };
    mnl_attr_put(h, NDA_LLADDR, sizeof mac, mac);
    return mesh_msg_send(&ns->rt, "add forwarding entry", NULL, e);
}

static void put_addr(struct mesh_msg *m, unsigned index, const struct netmap_ip *ip)
{
    struct nlmsghdr *h =
        mesh_msg_put(m, RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, sizeof(struct ifaddrmsg), ROOM);
    *(struct ifaddrmsg *)mnl_nlmsg_get_payload(h) =
        (struct ifaddrmsg){ .ifa_family = ip->family,
                            .ifa_prefixlen = ip->prefix,
                            .ifa_index = index,
                            .ifa_flags = ip->family == AF_INET6 ? IFA_F_NODAD : 0 };
    mnl_attr_put(h, IFA_LOCAL, ip_bytes(ip), ip->b);
    mnl_attr_put(h, IFA_ADDRESS, ip_bytes(ip), ip->b);
    if (ip->family == AF_INET && ip->prefix <= 30) {
        uint32_t bcast;
        memcpy(&bcast, ip->b, sizeof bcast);
        bcast |= htonl((uint32_t)(0xffffffffull >> ip->prefix));
        mnl_attr_put_u32(h, IFA_BROADCAST, bcast);
    }
}

/* inside_ipv6 - sandboxes have IPv6 off for interfaces to come; this one gets addresses, and none but ours. */
static int inside_ipv6(const struct overlay_plug *p, struct err *e)
{
    char path[64];
    bool any = false;
    for (size_t i = 0; i < p->nips; i++)
        any |= p->ips[i].family == AF_INET6;
    if (!any)
        return 0;
    snprintf(path, sizeof path, "net/ipv6/conf/eth%u/accept_ra", p->eth);
    int r = mesh_ns_sysctl(path, "0", e);
    snprintf(path, sizeof path, "net/ipv6/conf/eth%u/disable_ipv6", p->eth);
    return r < 0 ? r : mesh_ns_sysctl(path, "0", e);
}

static int plug_inside(struct overlay_host *host, const struct overlay_plug *p, struct err *e)
{
    struct mesh_msg m;
    char eth[IFNAMSIZ];
    snprintf(eth, sizeof eth, "eth%u", p->eth);
    int r = inside_ipv6(p, e);
    if (r == 0)
        r = mesh_msg_open(&m, NETLINK_ROUTE, e);
    if (r < 0)
        return r;
    unsigned index = if_nametoindex(eth);
    put_no_ipv6(host, mesh_link_put(&m, 0, eth, false));
    mesh_link_put(&m, 0, eth, true);
    for (size_t i = 0; i < p->nips; i++)
        put_addr(&m, index, &p->ips[i]);
    r = mesh_msg_send(&m, "set up the sandbox's interface", NULL, e);
    mesh_msg_close(&m);
    return r < 0 ? err_wrap(e, "%s", eth) : 0;
}

static int plug_link(struct overlay_host *host, struct overlay_ns *ns, const struct overlay_plug *p, const char *name,
                     struct err *e)
{
    int errnum = 0;
    _cleanup_(closep) int fd = open(p->sandbox, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, errno, "open %s", p->sandbox);
    put_veth(ns, p, name, fd);
    int r = mesh_msg_send(&ns->rt, "make link of an overlay network", &errnum, e);
    if (r < 0 && errnum == EEXIST)
        e->code = ERR_CONFLICT;
    if (r < 0) {
        err_wrap(e, "%s", name);
        return -e->code;
    }
    return overlay_ns_port_set(host, ns, p, e);
}

int overlay_ns_plug(struct overlay_host *host, struct overlay_ns *ns, const struct overlay_plug *p, struct err *e)
{
    char name[IFNAMSIZ];
    struct err own = ERR_INIT;
    overlay_port_name(&p->ips[0], name);
    int r = plug_link(host, ns, p, name, &own);
    if (r == 0) {
        r = mesh_ns_enter(p->sandbox, &own);
        if (r == 0)
            r = plug_inside(host, p, &own);
        mesh_ns_back(host->ns);
    }
    if (r < 0 && r != -ERR_CONFLICT)
        (void)overlay_ns_del(ns, name, NULL);
    if (r < 0 && e)
        *e = own;
    return r;
}
