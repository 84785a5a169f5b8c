/*
 * overlay_nl.h - the kernel's side of an overlay network: a namespace with a bridge br0, a VXLAN device vx0 whose
 * packets come and go in the host's namespace, and a veth for each interface of a sandbox.
 *
 * A namespace per network: networks may overlap, the host's firewall and br_netfilter are out of the way, and the host
 * has no links of ours. The device is born where it is to be, with its UDP socket in the host's namespace: nothing is
 * left behind in the host by a crash. Bridge and VXLAN learn nothing, and unicast is flooded into vx0 only, which knows
 * where everything is or drops it.
 */
#pragma once

#include <net/if.h>

#include "meshd/netlink/mesh_msg.h"
#include "meshd/netlink/mesh_ns.h"
#include "meshd/overlay/overlay_plan.h"

struct overlay_host {
    struct mesh_msg rt; /* in the host's namespace */
    int ns;             /* descriptor of it */
    bool ipv6;          /* the kernel has it */
};
int overlay_host_open(struct overlay_host *h, struct err *e);
void overlay_host_close(struct overlay_host *h);

/* overlay_host_mtu - of the link that has this address; 0: no link has. */
int overlay_host_mtu(struct overlay_host *h, const struct netmap_ip *local, unsigned *ret, struct err *e);

/* One network's namespace. Its sockets keep it alive: close it before the pin goes. */
struct overlay_ns {
    struct mesh_msg rt; /* in it */
    unsigned br, vx;    /* links; 0: not there */
};

/* overlay_ns_open - makes the namespace if it is not pinned yet (*ret_made), and gets in touch with it. */
int overlay_ns_open(struct overlay_host *h, const char *pin, struct overlay_ns *ns, bool *ret_made, struct err *e);
void overlay_ns_close(struct overlay_ns *ns);

struct overlay_port {
    unsigned index;
    bool up, enslaved; /* to our bridge */
    char name[IFNAMSIZ];
    char alias[80];
};
/* What links there are; also sets ns->br and ns->vx. */
struct overlay_seen {
    bool br_ok, vx_ok;       /* a bridge; a VXLAN device in it. Both are up */
    bool br_alien, vx_alien; /* of that name, but something else */
    unsigned br_mtu, vx_mtu, vx_master;
    struct overlay_vxlan vxlan;
    struct overlay_port *ports; /* other links, but loopback */
    size_t nports, cports;
};
int overlay_ns_look(struct overlay_ns *ns, struct overlay_seen *ret, struct err *e);
void overlay_seen_done(struct overlay_seen *s);

/* overlay_ns_bridge - makes br0, or sets it right. */
int overlay_ns_bridge(struct overlay_host *h, struct overlay_ns *ns, uint32_t vni, unsigned mtu, struct err *e);

/* overlay_ns_vxlan - makes vx0. *ret_errno is EEXIST when another device in reach of the same underlay has VNI and
 * port. */
int overlay_ns_vxlan(struct overlay_host *h, struct overlay_ns *ns, const char *pin, const struct overlay_vxlan *vx,
                     unsigned mtu, int *ret_errno, struct err *e);
/* overlay_ns_vxlan_set - sets an existing one right: in the bridge, up, MTU; its alias is the pin. */
int overlay_ns_vxlan_set(struct overlay_host *h, struct overlay_ns *ns, const char *pin, unsigned mtu, struct err *e);
int overlay_ns_del(struct overlay_ns *ns, const char *link, struct err *e); /* not there: fine */

/* overlay_ns_read - forwarding entries and neighbours of vx0. */
int overlay_ns_read(struct overlay_ns *ns, struct overlay_have *ret, struct err *e);
int overlay_ns_apply(struct overlay_ns *ns, const struct overlay_edits *es, struct err *e);

/* One interface of a sandbox. */
struct overlay_plug {
    const char *task;
    const char *sandbox; /* pin */
    unsigned eth;        /* its name there is eth<n> */
    unsigned mtu;
    size_t nips;
    const struct netmap_ip *ips; /* with the subnet's prefix */
};
/* overlay_port_name - of the outer end: "ms0a000105" for an interface with 02:42:0a:00:01:05. The kernel refuses a
 * second one with the same address. */
void overlay_port_name(const struct netmap_ip *first, char name[IFNAMSIZ]);

/* overlay_ns_plug - makes it: both ends, addresses, routes. -ERR_CONFLICT when the outer end is there already. The
 * thread is back in the host's namespace afterwards. */
int overlay_ns_plug(struct overlay_host *h, struct overlay_ns *ns, const struct overlay_plug *p, struct err *e);

/* overlay_ns_port_set - sets an outer end right: in the bridge, up, with its forwarding entry. */
int overlay_ns_port_set(struct overlay_host *h, struct overlay_ns *ns, const struct overlay_plug *p, struct err *e);

/*
 * overlay_free_vni - looks for the device that is in the way, in all namespaces of this machine that can be seen
 * (pinned ones, and those of processes), and takes it away when it is ours: its alias is a pin below @pins. A crash has
 * left it. *ret_what says what was found, for a person; *ret_freed whether it is worth trying again.
 */
#define OVERLAY_WHAT 400
int overlay_free_vni(struct overlay_host *h, const char *pins, const struct overlay_vxlan *vx, bool *ret_freed,
                     char what[OVERLAY_WHAT], struct err *e);

/* overlay_esp - can this kernel encrypt (ESP in transport mode with AES-GCM)? Tried in a namespace of its own, once. */
bool overlay_esp(struct overlay_host *h);
