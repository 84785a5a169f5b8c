/* alloc_pass.h - which networks, services and tasks wait for something to be allocated, and the transaction that gives
 * it. */
#pragma once

#include "allocatord/alloc_core.h"
#include "allocatord/alloc_space.h"
#include "common/store/controller.h"

struct alloc {
    struct marks networks, services, tasks;
    struct marks dead;    /* tasks that may hold addresses and need them no more */
    struct marks reasons; /* networks that may have to say that they are full, or no longer */
    struct space space;
    struct table stuck;    /* service ID -> nothing: does not have everything; its new tasks wait */
    struct table homeless; /* network ID -> nothing: waits for a subnet or VXLAN id that another one has */
    struct table waiting;  /* "s" or "t" and an ID -> char[STORE_ID_MAX + 1], the network: see alloc_net.waiters */
    struct buf doc;
    unsigned cursor[ALLOC_PROTO_COUNT];
    uint64_t allocated, refused; /* tasks; for metrics */

    /* during one pass */
    struct table answers;  /* service ID -> struct alloc_answer */
    struct table specs;    /* taskspec ID -> struct list * of view_attachment_config */
    struct table required; /* network ID -> nothing: the transaction requires that it exists */
    struct ip *nodes;      /* addresses of all nodes, once a subnet is chosen; in the pass's arena */
    size_t nnodes;
};

void alloc_init(struct alloc *al);
void alloc_done(struct alloc *al);
extern const struct controller_ops alloc_ops; /* arg: struct alloc */
