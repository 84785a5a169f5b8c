/*
 * overlay_plan.h - what the VXLAN device of one network should know: behind which node is each Ethernet address
 * (forwarding entries), and which Ethernet address has each IP address (neighbours). Nothing is learned and nothing is
 * flooded: these entries are all there is. Pure: the map and what the kernel has go in, edits come out.
 *
 * Only endpoints of other nodes are in it, in any state: connections that are open go on while a task drains. An
 * endpoint's interface has the Ethernet address of its first IP address (netmap_mac()), so that nobody needs telling.
 */
#pragma once

#include "meshd/netmap/netmap.h"

struct overlay_mac {
    uint8_t b[6];
};

/* What the kernel has, as far as we know. */
struct overlay_have {
    struct table fdb;   /* Ethernet address -> struct netmap_ip: of the node */
    struct table neigh; /* family and address -> struct overlay_neigh */
};
struct overlay_neigh {
    struct netmap_ip ip;
    struct overlay_mac mac;
};
void overlay_have_init(struct overlay_have *h);
void overlay_have_clear(struct overlay_have *h);
void overlay_have_done(struct overlay_have *h);
void overlay_have_fdb(struct overlay_have *h, const uint8_t mac[6], const struct netmap_ip *node);
void overlay_have_neigh(struct overlay_have *h, const struct netmap_ip *ip, const uint8_t mac[6]);

enum overlay_edit_type { OVERLAY_FDB_SET, OVERLAY_FDB_DEL, OVERLAY_NEIGH_SET, OVERLAY_NEIGH_DEL };
struct overlay_edit {
    enum overlay_edit_type type;
    struct overlay_mac mac;
    struct netmap_ip ip; /* fdb: of the node; neigh: whose Ethernet address it is */
};
struct overlay_edits {
    struct overlay_edit *v;
    size_t n, cap;
};
void overlay_edits_done(struct overlay_edits *es);

/* Whose view it is. */
struct overlay_self {
    struct str node; /* endpoints here are none of VXLAN's business */
    uint8_t family;  /* of the data path: nodes with an address of another one can't be reached */
};

/*
 * overlay_plan_addrs - looks again at these addresses of the network; overlay_plan_all - at all that is or should be
 * there. @n NULL: the network is not known (any more), so nothing should be there.
 *
 * Afterwards `have` is as it will be: when carrying out the edits fails, read it back from the kernel.
 */
void overlay_plan_addrs(struct overlay_have *have, const struct netmap *m, const struct netmap_network *n,
                        const struct overlay_self *self, const struct netmap_ip *ips, size_t nips,
                        struct overlay_edits *out);
void overlay_plan_all(struct overlay_have *have, const struct netmap *m, const struct netmap_network *n,
                      const struct overlay_self *self, struct overlay_edits *out);

/* The VXLAN device itself. */
struct overlay_vxlan {
    uint32_t vni;
    uint16_t port;
    struct netmap_ip local;
};
/* overlay_vxlan_fits - can a device that is there stay? */
bool overlay_vxlan_fits(const struct overlay_vxlan *want, const struct overlay_vxlan *have);

/* overlay_mtu - of the network: its own option, else what VXLAN leaves of the underlay's (0: not known, 1500). */
unsigned overlay_mtu(uint32_t option, unsigned underlay, uint8_t family, bool encrypted);
