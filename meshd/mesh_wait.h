/*
 * mesh_wait.h - requests that wait: until nobody is connected to a task, or until a task that has just been started
 * listens on the ports that it publishes. One timer for all of them.
 */
#pragma once

#include "common/daemon/rpc.h"
#include "meshd/mesh_node.h"

int mesh_wait_open(struct err *e);
void mesh_wait_close(void);

/* mesh_wait_quiet - answers the call now or later, with a struct mesh_quiet_reply. */
void mesh_wait_quiet(struct rpc_call *c, const struct mesh_quiet *q, struct mesh_node *node);

/* mesh_wait_listen - calls `go_on` when the task listens on all of its published TCP ports, at once if there is nothing
 * to wait for, and at the latest after half a second: not every task listens on what it publishes, and one that needs
 * longer has a health check to say so. Else its first clients would be refused. mesh_wait_forget - it is not to become
 * ready any more: its call is answered. */
typedef void mesh_wait_fn(struct rpc_call *c, const struct mesh_ready *r);
void mesh_wait_listen(struct rpc_call *c, const struct mesh_ready *r, struct mesh_node *node, mesh_wait_fn *go_on);
void mesh_wait_forget(struct str task);
