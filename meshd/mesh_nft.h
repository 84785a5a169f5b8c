/*
 * mesh_nft.h - the gateway's nftables: who gets a connection to a published port, and the way back to its client.
 *
 *   table ip microswarm {
 *     map ports { type inet_proto . inet_service : verdict }     # (tcp, 8080) -> goto n3a
 *     map slots { type inet_proto . inet_service . mark : ipv4_addr . inet_service }
 *     set published { type inet_proto . inet_service }
 *     map nodes { type ether_addr : mark }                       # by whom a frame on the VXLAN was sent
 *     chain n3a { dnat ip to meta l4proto . th dport . numgen random mod 3 map @slots; drop }
 *     chain n3b { ... numgen random mod 3 offset 65536 ... }     # the other half, see mesh_core.h
 *     chain n0a { refuse }                                       # published, and nobody ready
 *     chain forward_port { meta l4proto . th dport vmap @ports; meta l4proto . th dport @published drop }
 *     chain guard (raw)      { from the VXLAN: ct original zone set ether saddr map @nodes accept; drop }
 *     chain steer (mangle)   { from the VXLAN, new: ct mark set ether saddr map @nodes
 *                              replies of such: meta mark set ct mark }
 *     chain pre  (nat)       { for ourselves: jump forward_port }
 *     chain post (nat)       { out to the host: snat to our end; from localhost, from a task to itself: to the node }
 *     chain forward (filter) { between tasks and to other nodes translated connections only; no transit }
 *   }
 *   table netdev microswarm {
 *     map macs { type mark : ether_addr }
 *     chain out { type filter hook egress device vxg; ether daddr <steer> ether daddr set meta mark map @macs }
 *   }
 *
 * The client's address is kept: a connection that entered on another node arrives with it, and the reply must leave
 * through that node again. Its mark (0x4a000000 | the node's number) is remembered with the connection; replies are
 * routed by it to one neighbour entry of nobody, whose Ethernet address is replaced by the entry node's on the way out.
 * A client may use one port of its own to two entry nodes at once, and after translation both are the same: so each
 * entry node's connections are in a zone of their own (its number), in the original direction only.
 *
 * The cost of a connection does not grow with the number of ports or nodes. `drop` stands behind each lookup, because a
 * first packet that slips through untranslated would poison its flow; dropped, it is sent again. A change touches
 * elements only.
 */
#pragma once

#include "meshd/mesh_core.h"
#include "meshd/netlink/mesh_nfx.h"

#define MESH_MARK 0x4a000000u
#define MESH_MARK_MASK 0xff000000u

struct mesh_nft_node {
    uint8_t mac[6];
    uint32_t number;
};
struct mesh_nft_nodes {
    struct mesh_nft_node *v;
    size_t n;
};

struct mesh_nft {
    struct mesh_msg req, watch; /* watch: member of NFNLGRP_NFTABLES */
    struct nfx ip, dev;
    uint32_t self;               /* what localhost and tasks that call themselves look like to tasks; host byte order */
    bool steering;               /* the VXLAN is there, so the netdev table should be */
    struct table chains;         /* names of the drawing chains that are there */
    struct mesh_nft_nodes nodes; /* in the kernel */
    uint64_t transactions, rebuilds;
};

/* mesh_nft_open - in the namespace of the calling thread. */
int mesh_nft_open(struct mesh_nft *t, uint32_t self_addr, struct err *e);
void mesh_nft_close(struct mesh_nft *t); /* leaves the tables alone */

/* mesh_nft_read - what the tables hold. *ret_intact is false when they are not there or not as we would make them; the
 * nodes are read in any case, if they are there. */
int mesh_nft_read(struct mesh_nft *t, struct mesh_dump *d, bool *ret_intact, struct err *e);

/* mesh_nft_rebuild - replaces the tables by new ones with these edits and the nodes, in one transaction. */
int mesh_nft_rebuild(struct mesh_nft *t, const struct mesh_edits *now, struct err *e);

/* mesh_nft_apply - the plan in two transactions; an empty half costs nothing. */
int mesh_nft_apply(struct mesh_nft *t, const struct mesh_plan *p, struct err *e);

/* mesh_nft_node - another node comes or goes. */
int mesh_nft_node(struct mesh_nft *t, const struct mesh_nft_node *node, bool add, struct err *e);

/* mesh_nft_steer - the netdev table, made anew: after the VXLAN was. */
int mesh_nft_steer(struct mesh_nft *t, struct err *e);

/* mesh_nft_watch_read - reads what happened; true when someone else changed our tables, or events were lost. */
bool mesh_nft_watch_read(struct mesh_nft *t);
