/*
 * mesh_ct.h - forgetting connections that can only go wrong: conntrack entries through ctnetlink.
 *
 * Entries are deleted by their reply tuple: by the original one, a client's port that was used again meanwhile for a
 * live connection to another task would be hit.
 */
#pragma once

#include "meshd/mesh_core.h"
#include "meshd/netlink/mesh_msg.h"

enum mesh_ct_what {
    MESH_CT_ALL = 1,    /* the task is gone: whatever was translated to it */
    MESH_CT_UDP = 2,    /* it gets nothing new: what has no connections, or it would go on for ever */
    MESH_CT_CLOSED = 4, /* the same while it drains: TCP entries at their end. A client that uses its port again would
                           meet one, and with it the task that is leaving */
};

/* What to forget, collected, because looking through the kernel's table takes milliseconds, however few are found. */
struct mesh_ct {
    struct mesh_ct_addr {
        uint32_t addr; /* of the task, host byte order */
        unsigned what; /* enum mesh_ct_what, several */
    } * addrs;
    uint16_t *ports; /* published or not any more: UDP flows from before, which would go on as they did */
    uint32_t gate;   /* with ports: flows that were translated to this address count, too; 0: none */
    size_t naddrs, nports;
};
void mesh_ct_addr(struct mesh_ct *c, uint32_t addr, enum mesh_ct_what what);
void mesh_ct_port(struct mesh_ct *c, uint16_t port);
void mesh_ct_done(struct mesh_ct *c);
static inline bool mesh_ct_empty(const struct mesh_ct *c)
{
    return c->naddrs == 0 && c->nports == 0;
}

/* mesh_ct_forget - deletes them, in the namespace of @nf, and empties the collection. */
int mesh_ct_forget(struct mesh_ct *c, struct mesh_msg *nf, unsigned *ret_count, struct err *e);
