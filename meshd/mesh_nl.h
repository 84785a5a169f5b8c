/*
 * mesh_nl.h - links, addresses, routes and neighbours through rtnetlink: the host's one veth pair, the gateway
 * namespace, and the sandboxes' links into it.
 *
 *   host:     <link> 169.254.77.1/30 ---- up0 169.254.77.2/30  :gateway
 *   gateway:  lo has the sandboxes' gateway address; ms<address> ---- eth0 :sandbox, one route for each
 *             vxg, the VXLAN of the ingress network: one neighbour and forwarding entry for each other node, one route
 *             for each address that lives on one; steering of replies by mark (see mesh_nft.h)
 *
 * The gateway's end of a sandbox's link is named after the sandbox's address ("msac120005" for 172.18.0.5), so that the
 * kernel itself refuses a second sandbox with one address, and carries the task's id as its alias: a dump of the links
 * tells who has which address even if every file were lost. Everything here may be asked for again: what is there
 * already stays.
 */
#pragma once

#include <net/if.h>

#include "common/proto/fields.h"
#include "meshd/mesh_core.h"
#include "meshd/netlink/mesh_msg.h"
#include "meshd/netlink/mesh_ns.h"
#include "meshd/netmap/netmap.h"

#define MESH_UPLINK "up0"
#define MESH_VXLAN "vxg"
#define MESH_UP_HOST 0xa9fe4d01u /* 169.254.77.1 */
#define MESH_UP_GATE 0xa9fe4d02u /* 169.254.77.2 */
#define MESH_NODES_MAX 0x7000u   /* other nodes: each has a number below this */

struct mesh_nl {
    struct mesh_msg rt; /* in the host's namespace */
    struct mesh_msg gt; /* in the gateway */
    int host_ns, gate_ns;
    bool ipv6; /* the kernel has it */
};

int mesh_nl_open(struct mesh_nl *nl, struct err *e);
void mesh_nl_close(struct mesh_nl *nl);

struct mesh_link {
    unsigned index, master, mtu; /* master 0: none */
    bool up, bridge;
    uint8_t mac[6];
    char name[IFNAMSIZ];
    char alias[MESH_ID_SIZE];
};
typedef void mesh_link_fn(const struct mesh_link *l, void *arg);
/* mesh_nl_links - @rt: which namespace's. mesh_nl_link - one; index 0: not there. */
int mesh_nl_links(struct mesh_msg *rt, mesh_link_fn *fn, void *arg, struct err *e);
int mesh_nl_link(struct mesh_msg *rt, const char *name, struct mesh_link *ret, struct err *e);
int mesh_nl_link_del(struct mesh_msg *rt, const char *name, struct err *e); /* not there: fine */

/* mesh_nl_route_clash - does a route of the host, other than default routes and those through link `except`, overlap?
 */
int mesh_nl_route_clash(struct mesh_nl *nl, struct mesh_subnet s, unsigned except, bool *ret, struct err *e);

/* mesh_nl_mtu_of - of the host's link that has this address; 0 when none has. */
unsigned mesh_nl_mtu_of(struct mesh_nl *nl, const struct netmap_ip *addr);

/* ---- the gateway ---- */

/* mesh_nl_gateway - enters the pinned gateway or makes it, for `nl`. *ret_made: it is new. */
int mesh_nl_gateway(struct mesh_nl *nl, const char *pin, bool *ret_made, struct err *e);

/* mesh_nl_uplink - the pair between host and gateway, addresses, routes. -ERR_PRECONDITION: a link of this name is
 * somebody else's. *ret_made: it was not there. */
int mesh_nl_uplink(struct mesh_nl *nl, const char *link, struct mesh_subnet s, unsigned mtu, bool *ret_made,
                   struct err *e);

struct mesh_vxlan {
    uint32_t vni;
    uint16_t port;
    struct netmap_ip local;
    unsigned mtu;
};
/* mesh_nl_vxlan - makes it, or makes it anew when it is not like this (told by its alias); *ret_index is its link.
 * -ERR_CONFLICT: the VNI is taken on this host, or the kernel is still taking an old one away: try again. */
int mesh_nl_vxlan(struct mesh_nl *nl, const struct mesh_vxlan *v, unsigned *ret_index, bool *ret_made, struct err *e);

/* mesh_nl_steer - what carries packets with a mark (mark & mask) to the VXLAN with the address MESH_STEER_MAC. */
#define MESH_STEER_MAC ((const uint8_t[6]){ 0x02, 0x4a, 0xff, 0xff, 0xff, 0xff })
int mesh_nl_steer(struct mesh_nl *nl, unsigned vxlan, uint32_t mark, uint32_t mask, struct err *e);

/* mesh_nl_peer - another node: its number, and where it is. */
int mesh_nl_peer_add(struct mesh_nl *nl, unsigned vxlan, unsigned number, const struct netmap_ip *addr, struct err *e);
int mesh_nl_peer_del(struct mesh_nl *nl, unsigned vxlan, unsigned number, const struct netmap_ip *addr, struct err *e);

/* mesh_nl_far - an address that lives on the node with this number. Deleting leaves a sandbox's own route alone. Both
 * pile up until mesh_nl_flush(). */
void mesh_nl_far_add(struct mesh_nl *nl, unsigned vxlan, unsigned number, uint32_t addr);
void mesh_nl_far_del(struct mesh_nl *nl, unsigned vxlan, uint32_t addr);
int mesh_nl_flush(struct mesh_nl *nl, const char *what, struct err *e);

/* mesh_nl_far_list - the routes of that kind in the kernel; mesh_nl_peer_list - the forwarding entries. */
typedef void mesh_far_fn(uint32_t addr, unsigned number, void *arg);
int mesh_nl_far_list(struct mesh_nl *nl, unsigned vxlan, mesh_far_fn *fn, void *arg, struct err *e);
typedef void mesh_peer_fn(const uint8_t mac[6], const struct netmap_ip *dst, void *arg);
int mesh_nl_peer_list(struct mesh_nl *nl, unsigned vxlan, mesh_peer_fn *fn, void *arg, struct err *e);

/* ---- sandboxes ---- */

/* mesh_nl_veth_name / _addr - between an address and its link's name; 0 when the name is not of that form. */
void mesh_nl_veth_name(uint32_t addr, char name[IFNAMSIZ]);
uint32_t mesh_nl_veth_addr(const char *name);

struct mesh_plug {
    const char *pin; /* path of the namespace */
    bool make;       /* a new namespace; else the pinned one gets its link again */
    const char *task;
    uint32_t addr; /* 0: loopback only */
    uint32_t gateway;
    unsigned mtu;
    const struct strmap *sysctls; /* checked names; may be NULL */
};
/*
 * mesh_nl_plug - makes a sandbox. The calling thread is back in the host's namespace afterwards, whatever happens.
 *
 * Returns 0, -ERR_CONFLICT when a link for this address is still there (take another address), or another error; what
 * was made of it is removed again.
 */
int mesh_nl_plug(struct mesh_nl *nl, const struct mesh_plug *p, struct err *e);

/* mesh_nl_adopt - a sandbox's link that is there: up, with its route. */
int mesh_nl_adopt(struct mesh_nl *nl, const struct mesh_link *l, struct err *e);
