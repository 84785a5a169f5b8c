#include "meshd/netlink/mesh_link.h"

#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

struct nlmsghdr *mesh_link_put(struct mesh_msg *m, uint16_t flags, const char *name, bool up)
{
    struct nlmsghdr *h = mesh_msg_put(m, RTM_NEWLINK, NLM_F_ACK | flags, sizeof(struct ifinfomsg), MESH_LINK_ROOM);
    struct ifinfomsg *ifi = mnl_nlmsg_get_payload(h);
    if (up)
        ifi->ifi_flags = ifi->ifi_change = IFF_UP;
    mnl_attr_put_strz(h, IFLA_IFNAME, name);
    return h;
}

void mesh_link_put_no_ipv6(struct nlmsghdr *h)
{
    struct nlattr *spec = mnl_attr_nest_start(h, IFLA_AF_SPEC);
    struct nlattr *inet6 = mnl_attr_nest_start(h, AF_INET6);
    mnl_attr_put_u8(h, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
    mnl_attr_nest_end(h, inet6);
    mnl_attr_nest_end(h, spec);
}
