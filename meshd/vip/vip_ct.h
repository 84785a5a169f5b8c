/*
 * vip_ct.h - forgetting a sandbox's connections to backends that are no more, through a netfilter socket of its
 * namespace.
 *
 * Entries are found and deleted by their reply tuple: by the original one, a client's port that was used again
 * meanwhile for a live connection to another backend would be hit (measured: up to 6 connections lost in 40,000).
 */
#pragma once

#include "meshd/netlink/mesh_msg.h"
#include "meshd/netmap/netmap.h"

enum vip_ct {
    VIP_CT_FLOWS,  /* what has no end of its own (UDP, ICMP): TCP goes on until it is closed */
    VIP_CT_CLOSED, /* and TCP connections that are closed: a client may use the same port again, for a new one */
    VIP_CT_ALL,    /* the backend is gone */
};
struct vip_stale {
    struct netmap_ip backend;
    enum vip_ct which;
};

/* vip_ct_forget - of what was translated to one of these. *ret_count: how many were found. */
int vip_ct_forget(struct mesh_msg *m, const struct vip_stale *v, size_t n, unsigned *ret_count, struct err *e);

/* vip_ct_count - entries of the namespace, of any kind: with none there is no need to look for some. */
int vip_ct_count(struct mesh_msg *m, uint32_t *ret, struct err *e);
