#include "meshd/mesh_nl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fib_rules.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/util/check.h"
#include "common/util/cleanup.h"
#include "meshd/netlink/mesh_link.h"

#define ROOM 1024
#define DEFAULT_ROUTE_PREFIX 8 /* shorter ones stand for "everywhere" (a VPN's 0.0.0.0/1) */
#define UP_PREFIX 30
#define HOST_ALIAS "microswarm: to the gateway"
#define STEER_TABLE 100
#define STEER_PREF 100
#define STEER_HOP 0xa9fe7f01u /* 169.254.127.1: nobody; its neighbour entry has MESH_STEER_MAC */
#define NODE_HOPS 0xa9fe8000u /* 169.254.128.0: node number n is behind this + n */

int mesh_nl_open(struct mesh_nl *nl, struct err *e)
{
    *nl = (struct mesh_nl){ .host_ns = mesh_ns_self(), .gate_ns = -1 };
    if (nl->host_ns < 0)
        return err_errno(e, errno, "open /proc/thread-self/ns/net");
    nl->ipv6 = access("/proc/sys/net/ipv6/conf", F_OK) == 0;
    return mesh_msg_open(&nl->rt, NETLINK_ROUTE, e);
}

void mesh_nl_close(struct mesh_nl *nl)
{
    mesh_msg_close(&nl->rt);
    mesh_msg_close(&nl->gt);
    closep(&nl->host_ns);
    closep(&nl->gate_ns);
    nl->host_ns = nl->gate_ns = -1;
}

/* ---- looking ---- */

/* dump - one listing; again when it was interrupted by a change (fn may then see an entry twice). The family is the
 * first byte of every request. */
static int dump(struct mesh_msg *rt, uint16_t type, uint8_t family, size_t extra, const char *what, mesh_msg_fn *fn,
                void *arg, struct err *e)
{
    for (int tries = 0;; tries++) {
        int errnum = 0;
        struct nlmsghdr *h = mesh_msg_put(rt, type, NLM_F_DUMP, extra, ROOM);
        ((struct rtgenmsg *)mnl_nlmsg_get_payload(h))->rtgen_family = family;
        int r = mesh_msg_dump(rt, what, fn, arg, &errnum, e);
        if (errnum != EINTR || tries == 20)
            return r;
    }
}

struct links {
    mesh_link_fn *fn;
    void *arg;
};

static void link_kind(const struct nlattr *info, struct mesh_link *l)
{
    const struct nlattr *a;
    for (struct mesh_attrs it = mesh_attrs_in(info); mesh_attrs_next(&it, &a);)
        if (mnl_attr_get_type(a) == IFLA_INFO_KIND)
            l->bridge = strcmp(mnl_attr_get_str(a), "bridge") == 0;
}

static void link_one(const struct nlmsghdr *h, void *arg)
{
    const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(h);
    struct links *ls = arg;
    struct mesh_link l = { .index = (unsigned)ifi->ifi_index, .up = ifi->ifi_flags & IFF_UP };
    const struct nlattr *a;
    if (h->nlmsg_type != RTM_NEWLINK)
        return;
    for (struct mesh_attrs it = mesh_attrs_of(h, sizeof *ifi); mesh_attrs_next(&it, &a);) {
        if (mnl_attr_get_type(a) == IFLA_IFNAME)
            snprintf(l.name, sizeof l.name, "%s", mnl_attr_get_str(a));
        else if (mnl_attr_get_type(a) == IFLA_IFALIAS)
            snprintf(l.alias, sizeof l.alias, "%s", mnl_attr_get_str(a));
        else if (mnl_attr_get_type(a) == IFLA_MASTER)
            l.master = mnl_attr_get_u32(a);
        else if (mnl_attr_get_type(a) == IFLA_MTU)
            l.mtu = mnl_attr_get_u32(a);
        else if (mnl_attr_get_type(a) == IFLA_ADDRESS && mnl_attr_get_payload_len(a) == sizeof l.mac)
            memcpy(l.mac, mnl_attr_get_payload(a), sizeof l.mac);
        else if (mnl_attr_get_type(a) == IFLA_LINKINFO)
            link_kind(a, &l);
    }
    ls->fn(&l, ls->arg);
}

int mesh_nl_links(struct mesh_msg *rt, mesh_link_fn *fn, void *arg, struct err *e)
{
    struct links ls = { fn, arg };
    return dump(rt, RTM_GETLINK, AF_UNSPEC, sizeof(struct ifinfomsg), "list links", link_one, &ls, e);
}

static void keep_link(const struct mesh_link *l, void *arg)
{
    *(struct mesh_link *)arg = *l;
}

int mesh_nl_link(struct mesh_msg *rt, const char *name, struct mesh_link *ret, struct err *e)
{
    struct mesh_link l = { 0 };
    struct links ls = { keep_link, &l };
    int errnum = 0;
    mnl_attr_put_strz(mesh_msg_put(rt, RTM_GETLINK, NLM_F_ACK, sizeof(struct ifinfomsg), ROOM), IFLA_IFNAME, name);
    int r = mesh_msg_dump(rt, "look at link", link_one, &ls, &errnum, e);
    *ret = l;
    return r < 0 && errnum != ENODEV ? r : 0;
}

struct addr_find {
    struct netmap_ip want;
    unsigned index;
};

static void addr_one(const struct nlmsghdr *h, void *arg)
{
    const struct ifaddrmsg *am = mnl_nlmsg_get_payload(h);
    struct addr_find *f = arg;
    const struct nlattr *a;
    size_t n = f->want.family == AF_INET ? 4 : 16;
    if (am->ifa_family != f->want.family)
        return;
    for (struct mesh_attrs it = mesh_attrs_of(h, sizeof *am); mesh_attrs_next(&it, &a);)
        if ((mnl_attr_get_type(a) == IFA_LOCAL || mnl_attr_get_type(a) == IFA_ADDRESS) &&
            mnl_attr_get_payload_len(a) == n && memcmp(mnl_attr_get_payload(a), f->want.b, n) == 0)
            f->index = am->ifa_index;
}

struct mtu_find {
    unsigned index, mtu;
};

static void mtu_one(const struct mesh_link *l, void *arg)
{
    struct mtu_find *f = arg;
    if (l->index == f->index)
        f->mtu = l->mtu;
}

unsigned mesh_nl_mtu_of(struct mesh_nl *nl, const struct netmap_ip *addr)
{
    struct addr_find f = { .want = *addr };
    struct mtu_find m = { 0 };
    (void)dump(&nl->rt, RTM_GETADDR, addr->family, sizeof(struct ifaddrmsg), "list addresses", addr_one, &f, NULL);
    m.index = f.index;
    if (f.index)
        (void)mesh_nl_links(&nl->rt, mtu_one, &m, NULL);
    return m.mtu;
}

struct clash {
    struct mesh_subnet subnet;
    unsigned except;
    bool found;
};

static void route_one(const struct nlmsghdr *h, void *arg)
{
    const struct rtmsg *rm = mnl_nlmsg_get_payload(h);
    struct clash *c = arg;
    struct mesh_subnet s = { .prefix = rm->rtm_dst_len };
    const struct nlattr *a;
    unsigned oif = 0;
    if (rm->rtm_dst_len < DEFAULT_ROUTE_PREFIX || rm->rtm_table == RT_TABLE_LOCAL)
        return;
    for (struct mesh_attrs it = mesh_attrs_of(h, sizeof *rm); mesh_attrs_next(&it, &a);) {
        if (mnl_attr_get_type(a) == RTA_DST)
            s.base = ntohl(mnl_attr_get_u32(a));
        else if (mnl_attr_get_type(a) == RTA_OIF)
            oif = mnl_attr_get_u32(a);
    }
    uint32_t last = s.prefix == 32 ? s.base : mesh_subnet_last(s);
    if ((oif == 0 || oif != c->except) && s.base <= mesh_subnet_last(c->subnet) && c->subnet.base <= last)
        c->found = true;
}

int mesh_nl_route_clash(struct mesh_nl *nl, struct mesh_subnet s, unsigned except, bool *ret, struct err *e)
{
    struct clash c = { .subnet = s, .except = except };
    int r = dump(&nl->rt, RTM_GETROUTE, AF_INET, sizeof(struct rtmsg), "list routes", route_one, &c, e);
    *ret = c.found;
    return r;
}

/* ---- building messages ---- */

static void mac_of(uint32_t addr, uint8_t mac[6])
{
    mac[0] = 0x02;
    mac[1] = 0x42;
    for (int i = 0; i < 4; i++)
        mac[2 + i] = (uint8_t)(addr >> (24 - 8 * i));
}

/* put_no_ipv6 - no link-local address on our own links: they need none, and each would cost a detection round. */
static void put_no_ipv6(const struct mesh_nl *nl, struct nlmsghdr *h)
{
    if (nl->ipv6)
        mesh_link_put_no_ipv6(h);
}

static void put_addr(struct mesh_msg *m, unsigned index, uint32_t addr, uint8_t prefix)
{
    struct nlmsghdr *h =
        mesh_msg_put(m, RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, sizeof(struct ifaddrmsg), ROOM);
    *(struct ifaddrmsg *)mnl_nlmsg_get_payload(h) =
        (struct ifaddrmsg){ .ifa_family = AF_INET, .ifa_prefixlen = prefix, .ifa_index = index };
    mnl_attr_put_u32(h, IFA_LOCAL, htonl(addr));
    mnl_attr_put_u32(h, IFA_ADDRESS, htonl(addr));
}

struct route {
    uint32_t to; /* with prefix 32; 0: default */
    uint32_t via;
    unsigned link; /* 0: as the next hop is reached */
    bool onlink;
    uint8_t table; /* 0: main */
};

static struct nlmsghdr *put_route(struct mesh_msg *m, uint16_t type, uint16_t flags, const struct route *r)
{
    struct nlmsghdr *h = mesh_msg_put(m, type, NLM_F_ACK | flags, sizeof(struct rtmsg), ROOM);
    bool add = type == RTM_NEWROUTE;
    *(struct rtmsg *)mnl_nlmsg_get_payload(h) = (struct rtmsg){ .rtm_family = AF_INET,
                                                                .rtm_dst_len = r->to ? 32 : 0,
                                                                .rtm_table = r->table ? r->table : RT_TABLE_MAIN,
                                                                .rtm_protocol = add ? RTPROT_STATIC : RTPROT_UNSPEC,
                                                                .rtm_scope = !add     ? RT_SCOPE_NOWHERE
                                                                             : r->via ? RT_SCOPE_UNIVERSE
                                                                                      : RT_SCOPE_LINK,
                                                                .rtm_type = add ? RTN_UNICAST : RTN_UNSPEC,
                                                                .rtm_flags = r->onlink ? RTNH_F_ONLINK : 0 };
    if (r->to)
        mnl_attr_put_u32(h, RTA_DST, htonl(r->to));
    if (r->via)
        mnl_attr_put_u32(h, RTA_GATEWAY, htonl(r->via));
    if (r->link)
        mnl_attr_put_u32(h, RTA_OIF, r->link);
    return h;
}

static void route_add(struct mesh_msg *m, const struct route *r)
{
    put_route(m, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, r);
}

/* put_neigh - a permanent entry: where an address is on a link (family AF_INET), or where a MAC is behind a VXLAN
 * (AF_BRIDGE). */
static void put_neigh(struct mesh_msg *m, bool add, uint8_t family, unsigned link, const void *dst, uint16_t dst_len,
                      const uint8_t mac[6])
{
    struct nlmsghdr *h = mesh_msg_put(m, add ? RTM_NEWNEIGH : RTM_DELNEIGH,
                                      NLM_F_ACK | (add ? NLM_F_CREATE | NLM_F_REPLACE : 0), sizeof(struct ndmsg), ROOM);
    *(struct ndmsg *)mnl_nlmsg_get_payload(h) = (struct ndmsg){ .ndm_family = family,
                                                                .ndm_ifindex = (int)link,
                                                                .ndm_state = NUD_PERMANENT,
                                                                .ndm_flags = family == AF_BRIDGE ? NTF_SELF : 0 };
    mnl_attr_put(h, NDA_DST, dst_len, dst);
    if (mac)
        mnl_attr_put(h, NDA_LLADDR, 6, mac);
}

/* ---- the gateway ---- */

/* What forwarding between our own links needs. */
static int gateway_sysctls(const struct mesh_nl *nl, struct err *e)
{
    static const char *const zero[] = { "net/ipv4/conf/all/rp_filter", "net/ipv4/conf/default/rp_filter",
                                        "net/ipv4/conf/all/send_redirects", "net/ipv4/conf/default/send_redirects" };
    int r = mesh_ns_sysctl("net/ipv4/ip_forward", "1", e);
    for (size_t i = 0; r == 0 && i < sizeof zero / sizeof *zero; i++)
        r = mesh_ns_sysctl(zero[i], "0", e);
    if (r == 0 && nl->ipv6)
        r = mesh_ns_sysctl("net/ipv6/conf/default/disable_ipv6", "1", e);
    return r;
}

int mesh_nl_gateway(struct mesh_nl *nl, const char *pin, bool *ret_made, struct err *e)
{
    *ret_made = !mesh_ns_pinned(pin);
    closep(&nl->gate_ns);
    nl->gate_ns = -1;
    mesh_msg_close(&nl->gt);
    if (*ret_made)
        (void)mesh_ns_unpin(pin, NULL);
    int r = *ret_made ? mesh_ns_make(pin, e) : mesh_ns_enter(pin, e);
    if (r == 0)
        r = gateway_sysctls(nl, e);
    if (r == 0)
        r = mesh_msg_open(&nl->gt, NETLINK_ROUTE, e);
    if (r == 0 && (nl->gate_ns = mesh_ns_self()) < 0)
        r = err_errno(e, errno, "open the gateway's namespace");
    mesh_ns_back(nl->host_ns);
    return r < 0 ? err_wrap(e, "gateway") : 0;
}

static void put_veth(struct mesh_msg *m, const char *name, const char *peer_name, const uint8_t *peer_mac, unsigned mtu,
                     int peer_ns)
{
    struct nlmsghdr *h = mesh_link_put(m, NLM_F_CREATE | NLM_F_EXCL, name, false);
    mnl_attr_put_u32(h, IFLA_MTU, mtu);
    struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO);
    mnl_attr_put_strz(h, IFLA_INFO_KIND, "veth");
    struct nlattr *data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
    struct nlattr *peer = mnl_attr_nest_start(h, VETH_INFO_PEER);
    mnl_nlmsg_put_extra_header(h, sizeof(struct ifinfomsg));
    mnl_attr_put_strz(h, IFLA_IFNAME, peer_name);
    mnl_attr_put_u32(h, IFLA_MTU, mtu);
    if (peer_mac)
        mnl_attr_put(h, IFLA_ADDRESS, 6, peer_mac);
    mnl_attr_put_u32(h, IFLA_NET_NS_FD, (uint32_t)peer_ns);
    mnl_attr_nest_end(h, peer);
    mnl_attr_nest_end(h, data);
    mnl_attr_nest_end(h, info);
}

static int uplink_make(struct mesh_nl *nl, const char *link, unsigned mtu, struct mesh_link *host,
                       struct mesh_link *gate, struct err *e)
{
    int r = host->index ? mesh_nl_link_del(&nl->rt, link, e) : 0;
    if (r == 0 && gate->index)
        r = mesh_nl_link_del(&nl->gt, MESH_UPLINK, e);
    if (r < 0)
        return r;
    put_veth(&nl->rt, link, MESH_UPLINK, NULL, mtu, nl->gate_ns);
    r = mesh_msg_send(&nl->rt, "make link", NULL, e);
    if (r < 0)
        return err_wrap(e, "%s", link);
    mnl_attr_put_strz(mesh_link_put(&nl->rt, 0, link, false), IFLA_IFALIAS, HOST_ALIAS);
    r = mesh_msg_send(&nl->rt, "name link", NULL, e);
    if (r == 0)
        r = mesh_nl_link(&nl->rt, link, host, e);
    return r < 0 ? r : mesh_nl_link(&nl->gt, MESH_UPLINK, gate, e);
}

int mesh_nl_uplink(struct mesh_nl *nl, const char *link, struct mesh_subnet s, unsigned mtu, bool *ret_made,
                   struct err *e)
{
    struct mesh_link host, gate, lo;
    int r = mesh_nl_link(&nl->rt, link, &host, e);
    if (r == 0)
        r = mesh_nl_link(&nl->gt, MESH_UPLINK, &gate, e);
    if (r == 0)
        r = mesh_nl_link(&nl->gt, "lo", &lo, e);
    if (r < 0)
        return r;
    if (host.index && strcmp(host.alias, HOST_ALIAS) != 0)
        return err_set(e, ERR_PRECONDITION,
                       "link %s of this host is not ours: rename it, or choose another name (setting link)", link);
    *ret_made = !host.index || !gate.index;
    if (*ret_made)
        r = uplink_make(nl, link, mtu, &host, &gate, e);
    if (r < 0)
        return r;
    put_no_ipv6(nl, mesh_link_put(&nl->rt, 0, link, true));
    put_addr(&nl->rt, host.index, MESH_UP_HOST, UP_PREFIX);
    r = mesh_msg_send(&nl->rt, "set up link", NULL, e);
    if (r < 0)
        return err_wrap(e, "%s", link);
    mesh_link_put(&nl->gt, 0, "lo", true);
    put_addr(&nl->gt, lo.index, mesh_subnet_gateway(s), 32);
    put_no_ipv6(nl, mesh_link_put(&nl->gt, 0, MESH_UPLINK, true));
    put_addr(&nl->gt, gate.index, MESH_UP_GATE, UP_PREFIX);
    route_add(&nl->gt, &(struct route){ .via = MESH_UP_HOST });
    return mesh_msg_send(&nl->gt, "set up the gateway's links", NULL, e);
}

static void vxlan_alias(const struct mesh_vxlan *v, char text[MESH_ID_SIZE])
{
    char ip[NETMAP_IP_TEXT];
    snprintf(text, MESH_ID_SIZE, "vni %u port %u local %s", v->vni, v->port, netmap_ip_text(&v->local, ip));
}

/* put_vxlan - born in the gateway, with its socket in the host's namespace, where the message is sent. */
static void put_vxlan(struct mesh_nl *nl, const struct mesh_vxlan *v)
{
    uint8_t mac[6];
    struct nlmsghdr *h = mesh_link_put(&nl->rt, NLM_F_CREATE | NLM_F_EXCL, MESH_VXLAN, false);
    netmap_mac(&v->local, mac);
    mnl_attr_put(h, IFLA_ADDRESS, sizeof mac, mac);
    mnl_attr_put_u32(h, IFLA_MTU, v->mtu);
    mnl_attr_put_u32(h, IFLA_NET_NS_FD, (uint32_t)nl->gate_ns);
    struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO);
    mnl_attr_put_strz(h, IFLA_INFO_KIND, "vxlan");
    struct nlattr *data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
    mnl_attr_put_u32(h, IFLA_VXLAN_ID, v->vni);
    mnl_attr_put_u16(h, IFLA_VXLAN_PORT, htons(v->port));
    if (v->local.family == AF_INET)
        mnl_attr_put(h, IFLA_VXLAN_LOCAL, 4, v->local.b);
    else
        mnl_attr_put(h, IFLA_VXLAN_LOCAL6, 16, v->local.b);
    mnl_attr_put_u8(h, IFLA_VXLAN_LEARNING, 0);
    mnl_attr_nest_end(h, data);
    mnl_attr_nest_end(h, info);
}

int mesh_nl_vxlan(struct mesh_nl *nl, const struct mesh_vxlan *v, unsigned *ret_index, bool *ret_made, struct err *e)
{
    char alias[MESH_ID_SIZE];
    struct mesh_link l;
    int errnum = 0;
    vxlan_alias(v, alias);
    int r = mesh_nl_link(&nl->gt, MESH_VXLAN, &l, e);
    *ret_made = r == 0 && (!l.index || strcmp(l.alias, alias) != 0);
    if (r == 0 && *ret_made) {
        r = l.index ? mesh_nl_link_del(&nl->gt, MESH_VXLAN, e) : 0;
        if (r == 0) {
            put_vxlan(nl, v);
            r = mesh_msg_send(&nl->rt, "make VXLAN", &errnum, e);
        }
        if (r < 0 && errnum == EEXIST) {
            err_set(e, ERR_CONFLICT, "VXLAN id %u on port %u is in use on this host", v->vni, v->port);
            return -ERR_CONFLICT;
        }
        if (r == 0) {
            mnl_attr_put_strz(mesh_link_put(&nl->gt, 0, MESH_VXLAN, false), IFLA_IFALIAS, alias);
            r = mesh_msg_send(&nl->gt, "name VXLAN", NULL, e);
        }
        if (r == 0)
            r = mesh_nl_link(&nl->gt, MESH_VXLAN, &l, e);
    }
    if (r < 0)
        return r;
    *ret_index = l.index;
    struct nlmsghdr *h = mesh_link_put(&nl->gt, 0, MESH_VXLAN, true);
    mnl_attr_put_u32(h, IFLA_MTU, v->mtu);
    put_no_ipv6(nl, h);
    return mesh_msg_send(&nl->gt, "set up VXLAN", NULL, e);
}

int mesh_nl_steer(struct mesh_nl *nl, unsigned vxlan, uint32_t mark, uint32_t mask, struct err *e)
{
    uint32_t hop = htonl(STEER_HOP);
    int errnum = 0;
    route_add(&nl->gt, &(struct route){ .via = STEER_HOP, .link = vxlan, .onlink = true, .table = STEER_TABLE });
    put_neigh(&nl->gt, true, AF_INET, vxlan, &hop, sizeof hop, MESH_STEER_MAC);
    int r = mesh_msg_send(&nl->gt, "steer replies", NULL, e);
    if (r < 0)
        return r;
    struct nlmsghdr *h =
        mesh_msg_put(&nl->gt, RTM_NEWRULE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, sizeof(struct fib_rule_hdr), ROOM);
    *(struct fib_rule_hdr *)mnl_nlmsg_get_payload(h) =
        (struct fib_rule_hdr){ .family = AF_INET, .table = STEER_TABLE, .action = FR_ACT_TO_TBL };
    mnl_attr_put_u32(h, FRA_PRIORITY, STEER_PREF);
    mnl_attr_put_u32(h, FRA_FWMARK, mark);
    mnl_attr_put_u32(h, FRA_FWMASK, mask);
    r = mesh_msg_send(&nl->gt, "add routing rule", &errnum, e);
    return r < 0 && errnum == EEXIST ? 0 : r;
}

static void put_peer(struct mesh_nl *nl, bool add, unsigned vxlan, unsigned number, const struct netmap_ip *addr)
{
    uint32_t hop = htonl(NODE_HOPS + number);
    uint8_t mac[6];
    netmap_mac(addr, mac);
    put_neigh(&nl->gt, add, AF_BRIDGE, vxlan, addr->b, addr->family == AF_INET ? 4 : 16, mac);
    put_neigh(&nl->gt, add, AF_INET, vxlan, &hop, sizeof hop, add ? mac : NULL);
}

int mesh_nl_peer_add(struct mesh_nl *nl, unsigned vxlan, unsigned number, const struct netmap_ip *addr, struct err *e)
{
    put_peer(nl, true, vxlan, number, addr);
    return mesh_msg_send(&nl->gt, "add node", NULL, e);
}

int mesh_nl_peer_del(struct mesh_nl *nl, unsigned vxlan, unsigned number, const struct netmap_ip *addr, struct err *e)
{
    int errnum = 0;
    put_peer(nl, false, vxlan, number, addr);
    int r = mesh_msg_send(&nl->gt, "remove node", &errnum, e);
    return r < 0 && (errnum == ENOENT || errnum == ENODEV) ? 0 : r;
}

void mesh_nl_far_add(struct mesh_nl *nl, unsigned vxlan, unsigned number, uint32_t addr)
{
    route_add(&nl->gt, &(struct route){ .to = addr, .via = NODE_HOPS + number, .link = vxlan, .onlink = true });
}

void mesh_nl_far_del(struct mesh_nl *nl, unsigned vxlan, uint32_t addr)
{
    put_route(&nl->gt, RTM_DELROUTE, 0, &(struct route){ .to = addr, .link = vxlan });
}

int mesh_nl_flush(struct mesh_nl *nl, const char *what, struct err *e)
{
    int errnum = 0;
    if (!nl->gt.cur && nl->gt.n == 0)
        return 0;
    int r = mesh_msg_send(&nl->gt, what, &errnum, e);
    return r < 0 && errnum == ESRCH ? 0 : r; /* a route gone already */
}

struct far {
    unsigned vxlan;
    mesh_far_fn *fn;
    void *arg;
};

static void far_one(const struct nlmsghdr *h, void *arg)
{
    const struct rtmsg *rm = mnl_nlmsg_get_payload(h);
    struct far *f = arg;
    const struct nlattr *a;
    uint32_t to = 0, via = 0;
    unsigned oif = 0;
    if (rm->rtm_dst_len != 32 || rm->rtm_table != RT_TABLE_MAIN)
        return;
    for (struct mesh_attrs it = mesh_attrs_of(h, sizeof *rm); mesh_attrs_next(&it, &a);) {
        if (mnl_attr_get_type(a) == RTA_DST)
            to = ntohl(mnl_attr_get_u32(a));
        else if (mnl_attr_get_type(a) == RTA_GATEWAY)
            via = ntohl(mnl_attr_get_u32(a));
        else if (mnl_attr_get_type(a) == RTA_OIF)
            oif = mnl_attr_get_u32(a);
    }
    if (oif == f->vxlan)
        f->fn(to, via - NODE_HOPS, f->arg);
}

int mesh_nl_far_list(struct mesh_nl *nl, unsigned vxlan, mesh_far_fn *fn, void *arg, struct err *e)
{
    struct far f = { vxlan, fn, arg };
    return dump(&nl->gt, RTM_GETROUTE, AF_INET, sizeof(struct rtmsg), "list the gateway's routes", far_one, &f, e);
}

struct peers {
    unsigned vxlan;
    mesh_peer_fn *fn;
    void *arg;
};

static void peer_one(const struct nlmsghdr *h, void *arg)
{
    const struct ndmsg *nd = mnl_nlmsg_get_payload(h);
    struct peers *p = arg;
    struct netmap_ip dst = { 0 };
    const struct nlattr *a;
    uint8_t mac[6] = { 0 };
    if ((unsigned)nd->ndm_ifindex != p->vxlan)
        return;
    for (struct mesh_attrs it = mesh_attrs_of(h, sizeof *nd); mesh_attrs_next(&it, &a);) {
        size_t n = mnl_attr_get_payload_len(a);
        if (mnl_attr_get_type(a) == NDA_LLADDR && n == 6)
            memcpy(mac, mnl_attr_get_payload(a), 6);
        else if (mnl_attr_get_type(a) == NDA_DST && (n == 4 || n == 16)) {
            dst.family = n == 4 ? AF_INET : AF_INET6;
            dst.prefix = (uint8_t)(n * 8);
            memcpy(dst.b, mnl_attr_get_payload(a), n);
        }
    }
    if (dst.family)
        p->fn(mac, &dst, p->arg);
}

int mesh_nl_peer_list(struct mesh_nl *nl, unsigned vxlan, mesh_peer_fn *fn, void *arg, struct err *e)
{
    struct peers p = { vxlan, fn, arg };
    return dump(&nl->gt, RTM_GETNEIGH, AF_BRIDGE, sizeof(struct ndmsg), "list forwarding entries", peer_one, &p, e);
}

/* ---- sandboxes ---- */

void mesh_nl_veth_name(uint32_t addr, char name[IFNAMSIZ])
{
    snprintf(name, IFNAMSIZ, "ms%08x", addr);
}

uint32_t mesh_nl_veth_addr(const char *name)
{
    if (strlen(name) != 10 || strncmp(name, "ms", 2) != 0 || strspn(name + 2, "0123456789abcdef") != 8)
        return 0;
    return (uint32_t)strtoul(name + 2, NULL, 16);
}

int mesh_nl_link_del(struct mesh_msg *rt, const char *name, struct err *e)
{
    int errnum = 0;
    struct nlmsghdr *h = mesh_msg_put(rt, RTM_DELLINK, NLM_F_ACK, sizeof(struct ifinfomsg), ROOM);
    mnl_attr_put_strz(h, IFLA_IFNAME, name);
    int r = mesh_msg_send(rt, "delete link", &errnum, e);
    return r < 0 && errnum == ENODEV ? 0 : r;
}

int mesh_nl_adopt(struct mesh_nl *nl, const struct mesh_link *l, struct err *e)
{
    if (!l->up)
        put_no_ipv6(nl, mesh_link_put(&nl->gt, 0, l->name, true));
    route_add(&nl->gt, &(struct route){ .to = mesh_nl_veth_addr(l->name), .link = l->index });
    int r = mesh_msg_send(&nl->gt, "set up the gateway's end", NULL, e);
    return r < 0 ? err_wrap(e, "%s", l->name) : 0;
}

/* plug_link - the pair, its far end born in the sandbox. Neither is up at first: a peer can't be opened before its
 * other end is there (ENOTCONN). */
static int plug_link(struct mesh_nl *nl, const struct mesh_plug *p, struct err *e)
{
    char name[IFNAMSIZ];
    uint8_t mac[6];
    int errnum = 0;
    struct mesh_link l;
    _cleanup_(closep) int ns_fd = mesh_ns_self();
    if (ns_fd < 0)
        return err_errno(e, errno, "open /proc/thread-self/ns/net");
    mesh_nl_veth_name(p->addr, name);
    mac_of(p->addr, mac);
    put_veth(&nl->gt, name, "eth0", mac, p->mtu, ns_fd);
    int r = mesh_msg_send(&nl->gt, "make link", &errnum, e);
    if (r < 0 && errnum == EEXIST)
        e->code = ERR_CONFLICT;
    if (r < 0) {
        err_wrap(e, "%s", name);
        return -e->code;
    }
    struct nlmsghdr *h = mesh_link_put(&nl->gt, 0, name, false);
    mnl_attr_put_strz(h, IFLA_IFALIAS, p->task);
    r = mesh_msg_send(&nl->gt, "name link", NULL, e);
    if (r == 0)
        r = mesh_nl_link(&nl->gt, name, &l, e);
    return r < 0 ? r : mesh_nl_adopt(nl, &l, e);
}

static int plug_inside(const struct mesh_plug *p, struct err *e)
{
    struct mesh_msg m;
    int r = mesh_msg_open(&m, NETLINK_ROUTE, e);
    if (r < 0)
        return r;
    mesh_link_put(&m, 0, "lo", true);
    unsigned index = p->addr ? if_nametoindex("eth0") : 0;
    if (index) {
        put_addr(&m, index, p->addr, 32);
        mesh_link_put(&m, 0, "eth0", true);
        route_add(&m, &(struct route){ .to = p->gateway, .link = index });
        route_add(&m, &(struct route){ .via = p->gateway, .link = index });
    }
    r = mesh_msg_send(&m, "set up the sandbox's interfaces", NULL, e);
    mesh_msg_close(&m);
    return r;
}

/* What Docker sets in every namespace it makes. */
static int plug_defaults(const struct mesh_nl *nl, struct err *e)
{
    int r = mesh_ns_sysctl("net/ipv4/ip_unprivileged_port_start", "0", e);
    if (r == 0)
        r = mesh_ns_sysctl("net/ipv4/ping_group_range", "0 2147483647", e);
    if (r == 0 && nl->ipv6) /* for interfaces to come; loopback keeps ::1 */
        r = mesh_ns_sysctl("net/ipv6/conf/default/disable_ipv6", "1", e);
    return r;
}

static int plug_sysctls(const struct strmap *m, struct err *e)
{
    for (size_t i = 0; m && i < m->n; i++) {
        char path[256], value[256];
        if (!mesh_sysctl_path(m->v[i].key, path, sizeof path) || !str_copy(value, sizeof value, m->v[i].val))
            return err_set(e, ERR_INVALID, "Sysctls: " STR_FMT " is not one of the network", STR_ARG(m->v[i].key));
        int r = mesh_ns_sysctl(path, value, e);
        if (r < 0)
            return r;
    }
    return 0;
}

static int plug_steps(struct mesh_nl *nl, const struct mesh_plug *p, struct err *e)
{
    int r = p->make ? mesh_ns_make(p->pin, e) : mesh_ns_enter(p->pin, e);
    if (r == 0 && p->make)
        r = plug_defaults(nl, e);
    if (r == 0 && p->addr)
        r = plug_link(nl, p, e);
    if (r == 0)
        r = plug_inside(p, e);
    if (r == 0)
        r = plug_sysctls(p->sysctls, e);
    return r;
}

int mesh_nl_plug(struct mesh_nl *nl, const struct mesh_plug *p, struct err *e)
{
    int r = plug_steps(nl, p, e);
    mesh_ns_back(nl->host_ns);
    if (r < 0 && p->make) {
        char name[IFNAMSIZ];
        mesh_nl_veth_name(p->addr, name);
        if (p->addr && r != -ERR_CONFLICT)
            (void)mesh_nl_link_del(&nl->gt, name, NULL);
        (void)mesh_ns_unpin(p->pin, NULL);
    }
    return r;
}
