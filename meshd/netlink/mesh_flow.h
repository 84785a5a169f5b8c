/*
 * mesh_flow.h - forgetting connections that the kernel tracks in a namespace, by their reply tuples.
 *
 * An original tuple may meanwhile be that of a new connection which reuses the client's port; a reply tuple has the
 * backend in it and cannot be mistaken.
 */
#pragma once

#include "meshd/netlink/mesh_msg.h"

struct mesh_flow { /* addresses in network byte order; IPv4 in the first four bytes */
    uint8_t reply_src[16], orig_dst[16];
    uint16_t orig_dport_be;
    uint8_t proto, tcp_state; /* TCP_CONNTRACK_* */
    uint32_t status;          /* IPS_* */
};
typedef bool mesh_flow_fn(const void *arg, const struct mesh_flow *fl);

/*
 * mesh_flow_forget - all of a family that `match` means.
 *
 * @only  replies come from this address alone: the kernel picks them where it can (since 5.8), and `match` has the last
 *        word all the same; NULL: look through all
 *
 * *ret_count is how many were meant, also when listing them ended with an error.
 */
int mesh_flow_forget(struct mesh_msg *m, uint8_t family, const void *only, mesh_flow_fn *match, const void *arg,
                     unsigned *ret_count, struct err *e);

/* mesh_flow_put - starts a message of conntrack's: IPCTNL_MSG_CT_*. */
struct nlmsghdr *mesh_flow_put(struct mesh_msg *m, int type, uint16_t flags, uint8_t family);
