#include "meshd/mesh_nl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/util/check.h"
#include "common/util/cleanup.h"

#define ROOM 1024
#define DEFAULT_ROUTE_PREFIX 8 /* shorter ones stand for "everywhere" (a VPN's 0.0.0.0/1) */

int mesh_nl_open(struct mesh_nl *nl, struct err *e)
{
    *nl = (struct mesh_nl){ .host_ns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC) };
    if (nl->host_ns < 0)
        return err_errno(e, errno, "open /proc/thread-self/ns/net");
    nl->ipv6 = access("/proc/sys/net/ipv6/conf", F_OK) == 0;
    return mesh_msg_open(&nl->rt, NETLINK_ROUTE, e);
}

void mesh_nl_close(struct mesh_nl *nl)
{
    mesh_msg_close(&nl->rt);
    closep(&nl->host_ns);
    nl->host_ns = -1;
}

/* ---- looking ---- */

/* dump - one listing; again when it was interrupted by a change (fn may then see an entry twice). */
static int dump(struct mesh_nl *nl, uint16_t type, size_t extra, const char *what, mesh_msg_fn *fn, void *arg,
                struct err *e)
{
    for (int tries = 0;; tries++) {
        int errnum = 0;
        struct nlmsghdr *h = mesh_msg_put(&nl->rt, type, NLM_F_DUMP, extra, ROOM);
        if (type != RTM_GETLINK)
            ((struct rtgenmsg *)mnl_nlmsg_get_payload(h))->rtgen_family = AF_INET;
        int r = mesh_msg_dump(&nl->rt, what, fn, arg, &errnum, e);
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
        else if (mnl_attr_get_type(a) == IFLA_LINKINFO)
            link_kind(a, &l);
    }
    ls->fn(&l, ls->arg);
}

int mesh_nl_links(struct mesh_nl *nl, mesh_link_fn *fn, void *arg, struct err *e)
{
    struct links ls = { fn, arg };
    return dump(nl, RTM_GETLINK, sizeof(struct ifinfomsg), "list links", link_one, &ls, e);
}

struct addr_find {
    unsigned index;
    uint32_t addr;
    uint8_t prefix;
};

static void addr_one(const struct nlmsghdr *h, void *arg)
{
    const struct ifaddrmsg *am = mnl_nlmsg_get_payload(h);
    struct addr_find *f = arg;
    const struct nlattr *a;
    if (am->ifa_index != f->index || f->addr != 0)
        return;
    for (struct mesh_attrs it = mesh_attrs_of(h, sizeof *am); mesh_attrs_next(&it, &a);)
        if (mnl_attr_get_type(a) == IFA_LOCAL) {
            f->addr = ntohl(mnl_attr_get_u32(a));
            f->prefix = am->ifa_prefixlen;
        }
}

int mesh_nl_addr(struct mesh_nl *nl, unsigned index, uint32_t *ret_addr, uint8_t *ret_prefix, struct err *e)
{
    struct addr_find f = { .index = index };
    int r = dump(nl, RTM_GETADDR, sizeof(struct ifaddrmsg), "list addresses", addr_one, &f, e);
    *ret_addr = f.addr;
    *ret_prefix = f.prefix;
    return r;
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
    int r = dump(nl, RTM_GETROUTE, sizeof(struct rtmsg), "list routes", route_one, &c, e);
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

static struct nlmsghdr *put_link(struct mesh_msg *m, uint16_t flags, const char *name, bool up)
{
    struct nlmsghdr *h = mesh_msg_put(m, RTM_NEWLINK, NLM_F_ACK | flags, sizeof(struct ifinfomsg), ROOM);
    struct ifinfomsg *ifi = mnl_nlmsg_get_payload(h);
    if (up)
        ifi->ifi_flags = ifi->ifi_change = IFF_UP;
    mnl_attr_put_strz(h, IFLA_IFNAME, name);
    return h;
}

/* put_no_ipv6 - no link-local address on our host-side links: they need none, and each would cost a detection round. */
static void put_no_ipv6(const struct mesh_nl *nl, struct nlmsghdr *h)
{
    if (!nl->ipv6)
        return;
    struct nlattr *spec = mnl_attr_nest_start(h, IFLA_AF_SPEC);
    struct nlattr *inet6 = mnl_attr_nest_start(h, AF_INET6);
    mnl_attr_put_u8(h, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
    mnl_attr_nest_end(h, inet6);
    mnl_attr_nest_end(h, spec);
}

static void put_addr(struct mesh_msg *m, unsigned index, uint32_t addr, struct mesh_subnet s)
{
    struct nlmsghdr *h =
        mesh_msg_put(m, RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, sizeof(struct ifaddrmsg), ROOM);
    *(struct ifaddrmsg *)mnl_nlmsg_get_payload(h) =
        (struct ifaddrmsg){ .ifa_family = AF_INET, .ifa_prefixlen = s.prefix, .ifa_index = index };
    mnl_attr_put_u32(h, IFA_LOCAL, htonl(addr));
    mnl_attr_put_u32(h, IFA_ADDRESS, htonl(addr));
    mnl_attr_put_u32(h, IFA_BROADCAST, htonl(mesh_subnet_last(s)));
}

static void put_default_route(struct mesh_msg *m, struct mesh_subnet s)
{
    struct nlmsghdr *h =
        mesh_msg_put(m, RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, sizeof(struct rtmsg), ROOM);
    *(struct rtmsg *)mnl_nlmsg_get_payload(h) = (struct rtmsg){ .rtm_family = AF_INET,
                                                                .rtm_table = RT_TABLE_MAIN,
                                                                .rtm_protocol = RTPROT_STATIC,
                                                                .rtm_scope = RT_SCOPE_UNIVERSE,
                                                                .rtm_type = RTN_UNICAST };
    mnl_attr_put_u32(h, RTA_GATEWAY, htonl(mesh_subnet_gateway(s)));
}

/* ---- the host's side ---- */

struct find {
    const char *name;
    struct mesh_link l;
};

static void find_one(const struct mesh_link *l, void *arg)
{
    struct find *f = arg;
    if (strcmp(l->name, f->name) == 0)
        f->l = *l;
}

static void put_bridge(struct mesh_nl *nl, const char *name, struct mesh_subnet s, unsigned mtu)
{
    uint8_t mac[6];
    struct nlmsghdr *h = put_link(&nl->rt, NLM_F_CREATE | NLM_F_EXCL, name, false);
    mac_of(mesh_subnet_gateway(s), mac);
    mnl_attr_put(h, IFLA_ADDRESS, sizeof mac, mac); /* fixed: else it would follow the lowest port's */
    mnl_attr_put_u32(h, IFLA_MTU, mtu);
    struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO);
    mnl_attr_put_strz(h, IFLA_INFO_KIND, "bridge");
    struct nlattr *data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
    mnl_attr_put_u8(h, IFLA_BR_MCAST_SNOOPING, 0); /* no querier, no timers */
    mnl_attr_nest_end(h, data);
    mnl_attr_nest_end(h, info);
}

int mesh_nl_bridge(struct mesh_nl *nl, const char *name, struct mesh_subnet s, unsigned mtu, unsigned *ret_index,
                   struct err *e)
{
    struct find f = { .name = name };
    int r = mesh_nl_links(nl, find_one, &f, e);
    if (r < 0)
        return r;
    if (f.l.index && !f.l.bridge)
        return err_set(e, ERR_PRECONDITION, "link %s exists and is not a bridge", name);
    if (!f.l.index) {
        put_bridge(nl, name, s, mtu);
        r = mesh_msg_send(&nl->rt, "make bridge", NULL, e);
        f.l.index = if_nametoindex(name);
        if (r < 0)
            return err_wrap(e, "%s", name);
    }
    struct nlmsghdr *h = put_link(&nl->rt, 0, name, true);
    put_no_ipv6(nl, h);
    put_addr(&nl->rt, f.l.index, mesh_subnet_gateway(s), s);
    *ret_index = f.l.index;
    r = mesh_msg_send(&nl->rt, "set up bridge", NULL, e);
    return r < 0 ? err_wrap(e, "%s", name) : 0;
}

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

int mesh_nl_link_del(struct mesh_nl *nl, const char *name, struct err *e)
{
    int errnum = 0;
    struct nlmsghdr *h = mesh_msg_put(&nl->rt, RTM_DELLINK, NLM_F_ACK, sizeof(struct ifinfomsg), ROOM);
    mnl_attr_put_strz(h, IFLA_IFNAME, name);
    int r = mesh_msg_send(&nl->rt, "delete link", &errnum, e);
    return r < 0 && errnum == ENODEV ? 0 : r;
}

/* put_enslave - the host end as a port: up, hairpin (a task may reach itself through a published port even where
 * br_netfilter translates on the bridge), the task's id as alias. */
static void put_enslave(struct mesh_nl *nl, const char *name, const char *alias, unsigned bridge)
{
    struct nlmsghdr *h = put_link(&nl->rt, 0, name, false);
    mnl_attr_put_u32(h, IFLA_MASTER, bridge);
    mnl_attr_put_strz(h, IFLA_IFALIAS, alias);
    put_no_ipv6(nl, h);
    h = put_link(&nl->rt, 0, name, true);
    struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO);
    mnl_attr_put_strz(h, IFLA_INFO_SLAVE_KIND, "bridge");
    struct nlattr *data = mnl_attr_nest_start(h, IFLA_INFO_SLAVE_DATA);
    mnl_attr_put_u8(h, IFLA_BRPORT_MODE, BRIDGE_MODE_HAIRPIN);
    mnl_attr_nest_end(h, data);
    mnl_attr_nest_end(h, info);
}

int mesh_nl_link_enslave(struct mesh_nl *nl, const char *name, const char *alias, unsigned bridge, struct err *e)
{
    put_enslave(nl, name, alias, bridge);
    return mesh_msg_send(&nl->rt, "add link to bridge", NULL, e);
}

/* ---- namespaces ---- */

static int netns_enter(const struct mesh_plug *p, struct err *e)
{
    return p->make ? mesh_ns_make(p->pin, e) : mesh_ns_enter(p->pin, e);
}

/* put_veth - both ends at once, the peer born in its namespace. Neither is up: a peer can't be opened before its other
 * end is there (ENOTCONN). */
static void put_veth(struct mesh_nl *nl, const struct mesh_plug *p, const char *name, int ns_fd)
{
    uint8_t mac[6];
    struct nlmsghdr *h = put_link(&nl->rt, NLM_F_CREATE | NLM_F_EXCL, name, false);
    mnl_attr_put_u32(h, IFLA_MTU, p->mtu);
    struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO);
    mnl_attr_put_strz(h, IFLA_INFO_KIND, "veth");
    struct nlattr *data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
    struct nlattr *peer = mnl_attr_nest_start(h, VETH_INFO_PEER);
    mnl_nlmsg_put_extra_header(h, sizeof(struct ifinfomsg));
    mnl_attr_put_strz(h, IFLA_IFNAME, "eth0");
    mnl_attr_put_u32(h, IFLA_MTU, p->mtu);
    mac_of(p->addr, mac);
    mnl_attr_put(h, IFLA_ADDRESS, sizeof mac, mac);
    mnl_attr_put_u32(h, IFLA_NET_NS_FD, (uint32_t)ns_fd);
    mnl_attr_nest_end(h, peer);
    mnl_attr_nest_end(h, data);
    mnl_attr_nest_end(h, info);
}

static int plug_link(struct mesh_nl *nl, const struct mesh_plug *p, struct err *e)
{
    char name[IFNAMSIZ];
    int errnum = 0;
    _cleanup_(closep) int ns_fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (ns_fd < 0)
        return err_errno(e, errno, "open /proc/thread-self/ns/net");
    mesh_nl_veth_name(p->addr, name);
    put_veth(nl, p, name, ns_fd);
    int r = mesh_msg_send(&nl->rt, "make link", &errnum, e);
    if (r < 0 && errnum == EEXIST)
        e->code = ERR_CONFLICT;
    if (r < 0) {
        err_wrap(e, "%s", name);
        return -e->code;
    }
    put_enslave(nl, name, p->task, p->bridge);
    r = mesh_msg_send(&nl->rt, "add link to bridge", &errnum, e);
    return r < 0 ? err_wrap(e, "%s", name) : 0;
}

static int plug_inside(const struct mesh_plug *p, struct err *e)
{
    struct mesh_msg m;
    int r = mesh_msg_open(&m, NETLINK_ROUTE, e);
    if (r < 0)
        return r;
    put_link(&m, 0, "lo", true);
    unsigned index = p->addr ? if_nametoindex("eth0") : 0;
    if (index) {
        put_addr(&m, index, p->addr, p->subnet);
        put_link(&m, 0, "eth0", true);
        put_default_route(&m, p->subnet);
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
    int r = netns_enter(p, e);
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
            (void)mesh_nl_link_del(nl, name, NULL);
        (void)mesh_ns_unpin(p->pin, NULL);
    }
    return r;
}
