/*
 * mesh_nl.h - links, addresses and network namespaces through rtnetlink.
 *
 * The host keeps one bridge; each sandbox is a namespace pinned by a bind mount, with a veth whose host end is a port
 * of the bridge. The host end is named after the sandbox's address ("msac120005" for 172.18.0.5), so that the kernel
 * itself refuses a second sandbox with one address, and carries the task's id as its alias: a dump of the links tells
 * who has which address even if every file were lost. Overlay networks will add interfaces to a sandbox beside this
 * one.
 */
#pragma once

#include <net/if.h>

#include "common/proto/fields.h"
#include "meshd/mesh_core.h"
#include "meshd/netlink/mesh_msg.h"
#include "meshd/netlink/mesh_ns.h"

struct mesh_nl {
    struct mesh_msg rt; /* in the host's namespace */
    int host_ns;        /* descriptor of it */
    bool ipv6;          /* the kernel has it */
};

int mesh_nl_open(struct mesh_nl *nl, struct err *e);
void mesh_nl_close(struct mesh_nl *nl);

struct mesh_link {
    unsigned index, master; /* master 0: none */
    bool up, bridge;
    char name[IFNAMSIZ];
    char alias[MESH_ID_SIZE];
};
typedef void mesh_link_fn(const struct mesh_link *l, void *arg);
int mesh_nl_links(struct mesh_nl *nl, mesh_link_fn *fn, void *arg, struct err *e);

/* mesh_nl_addr - the first IPv4 address of a link with its prefix; 0.0.0.0/0 when it has none. */
int mesh_nl_addr(struct mesh_nl *nl, unsigned index, uint32_t *ret_addr, uint8_t *ret_prefix, struct err *e);

/* mesh_nl_route_clash - does a route of the host, other than default routes and those through link `except`, overlap?
 */
int mesh_nl_route_clash(struct mesh_nl *nl, struct mesh_subnet s, unsigned except, bool *ret, struct err *e);

/* mesh_nl_bridge - makes the bridge or sets an existing one right: address, up. *ret_index is its link. */
int mesh_nl_bridge(struct mesh_nl *nl, const char *name, struct mesh_subnet s, unsigned mtu, unsigned *ret_index,
                   struct err *e);

/* mesh_nl_veth_name / _addr - between an address and its link's name; 0 when the name is not of that form. */
void mesh_nl_veth_name(uint32_t addr, char name[IFNAMSIZ]);
uint32_t mesh_nl_veth_addr(const char *name);

int mesh_nl_link_del(struct mesh_nl *nl, const char *name, struct err *e); /* not there: fine */
int mesh_nl_link_enslave(struct mesh_nl *nl, const char *name, const char *alias, unsigned bridge, struct err *e);

struct mesh_plug {
    const char *pin; /* path of the namespace */
    bool make;       /* a new namespace; else the pinned one gets its link again */
    const char *task;
    uint32_t addr; /* 0: loopback only */
    struct mesh_subnet subnet;
    unsigned bridge, mtu;
    const struct strmap *sysctls; /* checked names; may be NULL */
};
/*
 * mesh_nl_plug - makes a sandbox. The calling thread is back in the host's namespace afterwards, whatever happens.
 *
 * Returns 0, -ERR_CONFLICT when a link for this address is still there (take another address), or another error; what
 * was made of it is removed again.
 */
int mesh_nl_plug(struct mesh_nl *nl, const struct mesh_plug *p, struct err *e);
