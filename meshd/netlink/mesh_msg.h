/*
 * mesh_msg.h - a netlink socket with a growable batch of messages, over libmnl.
 *
 * The kernel works on a batch while it is being sent, so every answer is in the socket when send returns: nothing here
 * waits. rtnetlink goes through libmnl as nftables does, so that the daemon carries one netlink library, not two.
 */
#pragma once

#include <libmnl/libmnl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/util/err.h"

struct mesh_msg {
    struct mnl_socket *sock;
    uint32_t portid, seq;
    char *buf;
    size_t n, cap;
    struct nlmsghdr *cur; /* the message being built */
    uint32_t acks;        /* asked for in this batch */
};

/* mesh_msg_open - @bus NETLINK_ROUTE or NETLINK_NETFILTER, in the network namespace of the calling thread. */
int mesh_msg_open(struct mesh_msg *m, int bus, struct err *e);
void mesh_msg_close(struct mesh_msg *m);

/* mesh_msg_put - starts a message; valid until the next put. @room: bytes it will take at most. @extra: zeroed header
 * of the family (struct ifinfomsg ...), found again with mnl_nlmsg_get_payload(). NLM_F_REQUEST is added. */
struct nlmsghdr *mesh_msg_put(struct mesh_msg *m, uint16_t type, uint16_t flags, size_t extra, size_t room);

/* mesh_msg_drop - forgets what was built. */
void mesh_msg_drop(struct mesh_msg *m);

/* mesh_msg_trim - gives its memory back, for a socket that is used now and then only. */
void mesh_msg_trim(struct mesh_msg *m);

/* mesh_msg_send - sends the batch and reads the answers. The first refusal is returned, with `what` and the kernel's
 * own words; *ret_errno (may be NULL) gets its errno. */
int mesh_msg_send(struct mesh_msg *m, const char *what, int *ret_errno, struct err *e);

/* mesh_msg_dump - sends the one message built (with NLM_F_DUMP) and calls fn for each answer. @ret_errno as above:
 * EINTR when something changed meanwhile, and the listing must be asked for again. */
typedef void mesh_msg_fn(const struct nlmsghdr *h, void *arg);
int mesh_msg_dump(struct mesh_msg *m, const char *what, mesh_msg_fn *fn, void *arg, int *ret_errno, struct err *e);

/* The attributes of a message behind its extra header, or those nested in one:
 * `for (struct mesh_attrs it = mesh_attrs_of(h, sizeof *g); mesh_attrs_next(&it, &a);)` */
struct mesh_attrs {
    const char *p;
    int n; /* bytes left */
};
struct mesh_attrs mesh_attrs_of(const struct nlmsghdr *h, size_t extra);
struct mesh_attrs mesh_attrs_in(const struct nlattr *nest);
bool mesh_attrs_next(struct mesh_attrs *it, const struct nlattr **ret);
