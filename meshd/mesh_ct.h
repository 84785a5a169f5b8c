/*
 * mesh_ct.h - forgetting connections of the host that can only go wrong: conntrack entries through ctnetlink.
 *
 * Entries are deleted by their reply tuple: by the original one, a client's port that was used again meanwhile for a
 * live connection to another task would be hit.
 */
#pragma once

#include "meshd/mesh_core.h"
#include "meshd/netlink/mesh_msg.h"

/* What to forget, collected, because looking through the kernel's table takes milliseconds, however few are found. */
struct mesh_ct {
    uint32_t *addrs; /* of tasks that are gone: what was translated to them, TCP and UDP (host byte order) */
    uint16_t *ports; /* newly published: UDP flows from before, which would go on missing the new rule */
    size_t naddrs, nports;
};
void mesh_ct_addr(struct mesh_ct *c, uint32_t addr);
void mesh_ct_port(struct mesh_ct *c, uint16_t port);
void mesh_ct_done(struct mesh_ct *c);
static inline bool mesh_ct_empty(const struct mesh_ct *c)
{
    return c->naddrs == 0 && c->nports == 0;
}

/* mesh_ct_forget - deletes them and empties the collection. */
int mesh_ct_forget(struct mesh_ct *c, struct mesh_msg *nf, unsigned *ret_count, struct err *e);
