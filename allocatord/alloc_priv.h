/* alloc_priv.h - what the files of the allocation pass share among themselves. */
#pragma once

#include "allocatord/alloc_pass.h"
#include "common/object/views.h"

/* What the allocation of a service came to; lives as long as the pass. */
struct alloc_answer {
    bool ok, ingress;   /* ingress: its tasks are on the ingress network */
    struct str ports;   /* ok: encoded array, for its tasks */
    const char *reason; /* not ok */
    struct str net;     /* not ok: the network that it waits for */
};

/* A network that a service or a task has to be on. */
struct alloc_want {
    struct str id;
    struct alloc_net *net;
    struct strs aliases;
};

/* alloc_wants - @asked and, if so, the ingress network, which comes first; each once. The networks of the node itself
 * ("host", "none", "bridge") are not ours. Returns how many, or -1 with a reason (and the network, if it exists). */
int alloc_wants(struct alloc *al, struct controller_pass *p, const struct list *asked, bool ingress,
                struct alloc_want **ret, struct alloc_answer *ret_why);

/* alloc_network - subnets and VXLAN id of a network that has none; frees what one that is gone had. */
void alloc_network(struct alloc *al, struct controller_pass *p, struct str id);
void alloc_network_reason(struct alloc *al, struct controller_pass *p, struct str id);

/* alloc_service - allocates at most once in a pass; NULL when the service is gone or unreadable. */
const struct alloc_answer *alloc_service(struct alloc *al, struct controller_pass *p, struct str service);

/* alloc_require - the transaction holds only if this network still exists. */
void alloc_require(struct alloc *al, struct controller_pass *p, struct str net);

/* alloc_release - every reservation of an owner but those in @keep. */
void alloc_release(struct controller_pass *p, struct str owner, const struct str *keep, size_t n);

/* alloc_owner - who holds a reservation in the store; false: nobody. */
bool alloc_owner(struct store_snap *snap, struct str reservation, struct str *ret);

/* alloc_wait - @key waits for the network to get something. alloc_wait_over - it has all it wants, or is gone.
 * alloc_wake - @n addresses have come free: so many look again. */
void alloc_wait(struct alloc *al, char kind, struct str id, struct str net);
void alloc_wait_over(struct alloc *al, char kind, struct str id);
void alloc_wake(struct alloc *al, struct store_snap *snap, struct str net, size_t n);

bool alloc_new_task(struct str doc);
void alloc_mark_new_tasks(struct alloc *al, struct store_snap *snap, struct str service);
