/* mesh_link.h - the beginnings of messages about links, which the gateway's and the overlays' shells share. */
#pragma once

#include "meshd/netlink/mesh_msg.h"

#define MESH_LINK_ROOM 1024u /* for any one such message */

/* mesh_link_put - RTM_NEWLINK for a link of that name, with @flags besides NLM_F_ACK; up at once if @up. */
struct nlmsghdr *mesh_link_put(struct mesh_msg *m, uint16_t flags, const char *name, bool up);

/* mesh_link_put_no_ipv6 - no link-local address on the link: our own need none, and each costs a detection round. Only
 * where the kernel has IPv6. */
void mesh_link_put_no_ipv6(struct nlmsghdr *h);
