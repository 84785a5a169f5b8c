/* mesh_wait.h - requests that wait until nobody is connected to a task: one timer for all of them. */
#pragma once

#include "common/daemon/rpc.h"
#include "meshd/mesh_node.h"

int mesh_wait_open(struct err *e);
void mesh_wait_close(void);

/* mesh_wait_quiet - answers the call now or later, with a struct mesh_quiet_reply. */
void mesh_wait_quiet(struct rpc_call *c, const struct mesh_quiet *q, struct mesh_node *node);
