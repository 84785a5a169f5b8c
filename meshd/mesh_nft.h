/*
 * mesh_nft.h - the one nftables table that is ours, through netlink.
 *
 *   table ip microswarm {
 *     map ports { type inet_proto . inet_service : verdict }     # (tcp, 8080) -> goto n3a
 *     map slots { type inet_proto . inet_service . mark : ipv4_addr . inet_service }
 *     set published { type inet_proto . inet_service }
 *     chain n3a { dnat ip to meta l4proto . th dport . numgen random mod 3 map @slots; drop }
 *     chain n3b { ... numgen random mod 3 offset 65536 ... }     # the other half, see mesh_core.h
 *     chain n0a { refuse }                                       # published, and nobody ready
 *     chain forward_port { meta l4proto . th dport vmap @ports; meta l4proto . th dport @published drop }
 *     chain pre  { type nat hook prerouting;  fib daddr type local jump forward_port }
 *     chain out  { type nat hook output;      fib daddr type local jump forward_port }
 *     chain post { type nat hook postrouting; masquerade: localhost and hairpin into the bridge, everything out of it }
 *     chain guard, forward, icmp: nothing for 127/8 from a sandbox, no unpublished ports from outside, no redirects
 *   }
 *
 * The cost of a connection does not grow with the number of ports. `drop` stands behind each lookup, because a first
 * packet that slips through untranslated would poison its flow; dropped, it is sent again. A change touches elements
 * only.
 *
 * Service addresses (VIPs) will use the same maps in each sandbox's own namespace.
 */
#pragma once

#include "meshd/mesh_core.h"
#include "meshd/netlink/mesh_msg.h"

struct mesh_nft {
    struct mesh_msg req;
    struct mesh_msg watch; /* member of NFNLGRP_NFTABLES */
    char bridge[16];
    struct mesh_subnet subnet;
    struct table chains; /* names of the drawing chains that are there */
    uint64_t transactions, rebuilds;
};

int mesh_nft_open(struct mesh_nft *t, const char *bridge, struct mesh_subnet s, struct err *e);
void mesh_nft_close(struct mesh_nft *t); /* leaves the table alone */

/* mesh_nft_read - what the table holds. *ret_intact is false when it is not there or is not as we would make it. */
int mesh_nft_read(struct mesh_nft *t, struct mesh_dump *d, bool *ret_intact, struct err *e);

/* mesh_nft_rebuild - replaces the table by a new one with these edits, in one transaction. */
int mesh_nft_rebuild(struct mesh_nft *t, const struct mesh_edits *now, struct err *e);

/* mesh_nft_apply - the plan in two transactions; an empty half costs nothing. */
int mesh_nft_apply(struct mesh_nft *t, const struct mesh_plan *p, struct err *e);

/* mesh_nft_watch_read - reads what happened; true when someone else changed our table, or events were lost. */
bool mesh_nft_watch_read(struct mesh_nft *t);

/* mesh_nft_foreign_drops - appends the names of other tables' forward chains that drop by default, as a JSON array. */
int mesh_nft_foreign_drops(struct mesh_nft *t, struct buf *out, unsigned *ret_count, struct err *e);
