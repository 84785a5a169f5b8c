/*
 * agent_view.h - what people ask to see of this node: the containers of its tasks and its volumes. Changes nothing.
 */
#pragma once

#include "common/daemon/rpc.h"
#include "common/proto/msg_agentd.h"

struct agent;

/* The operations of msg_agentd.h. */
void view_op_containers(struct agent *ag, struct rpc_call *c, const struct agent_containers *req);
void view_op_volumes(struct agent *ag, struct rpc_call *c, const struct agent_volumes *req);
