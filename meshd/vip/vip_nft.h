/*
 * vip_nft.h - the nftables tables in a sandbox's namespace, through a socket of that namespace.
 *
 *   table ip microswarm {
 *     map slots { type ipv4_addr . mark : ipv4_addr }             # (VIP, slot) -> backend
 *     map vips { type ipv4_addr : verdict }                       # VIP -> goto n3a
 *     set known { type ipv4_addr }                                # the keys of vips
 *     chain n3a { dnat to ip daddr . numgen random mod 3 map @slots; drop }
 *     chain n3b { ... numgen random mod 3 offset 65536 ... }      # the other half, see vip_core.h
 *     chain n0a { refuse }                                        # a VIP without backends
 *     chain out { type nat hook output priority -100; ip daddr vmap @vips; ip daddr @known drop }
 *     chain dns { type nat hook output priority -105; 127.0.0.11, port 53 of TCP and UDP: dnat to port 4053 }
 *   }
 *   table ip6 microswarm { the same, without dns }                # in sandboxes with IPv6 addresses
 *
 * The cost of a connection does not grow with the number of VIPs. No source address is changed. `drop` stands behind
 * each lookup, because a first packet that slips through untranslated would poison its flow; dropped, it is sent again.
 * Changes touch elements only.
 */
#pragma once

#include "meshd/netlink/mesh_nfx.h"
#include "meshd/vip/vip_core.h"

#define VIP_DNS_PORT 4053u /* where the nameserver listens on 127.0.0.11 (meshd/dns) */

/* vip_nft_make - replaces the tables by new ones with these edits, in one transaction. */
int vip_nft_make(struct mesh_msg *m, bool ipv6, const struct vip_edits *es, struct err *e);
int vip_nft_apply(struct mesh_msg *m, const struct vip_edits *es, struct err *e); /* nothing to do: fine */

/* vip_nft_read - what the tables hold. *ret_intact is false when one is not there, or not as we would make it. */
int vip_nft_read(struct mesh_msg *m, bool ipv6, struct vip_dump *d, bool *ret_intact, struct err *e);

/* vip_nft_gen - the namespace's number of changes to rules so far: grows with each transaction, anybody's. */
int vip_nft_gen(struct mesh_msg *m, uint32_t *ret, struct err *e);
