/* mesh_networks.h - tells this node's apid which networks the node has a part in. */
#pragma once

#include "common/daemon/rpc.h"

void mesh_networks(struct rpc_call *c, const void *req);
