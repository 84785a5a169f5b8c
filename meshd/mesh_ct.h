/*
 * mesh_ct.h - forgetting connections of the host that can only go wrong: conntrack entries through ctnetlink.
 *
 * Entries are deleted by their reply tuple: by the original one, a client's port that was used again meanwhile for a live
 * connection to another task would be hit.
 */
#pragma once

#include "meshd/mesh_core.h"
#include "meshd/mesh_msg.h"

/* mesh_ct_forget_task - what was translated to a task's address, TCP and UDP: the task is gone. */
int mesh_ct_forget_task(struct mesh_msg *nf, uint32_t addr, unsigned *ret_count, struct err *e);

/* mesh_ct_forget_untranslated - UDP flows to a port of this host from before it was published: they would keep missing
 * the new rule for as long as the client sends. */
int mesh_ct_forget_untranslated(struct mesh_msg *nf, uint16_t port, unsigned *ret_count, struct err *e);
