/*
 * agent_events.h - inside agentd: what happened to containers, for those who listen (docker events). The last ones are
 * kept; a long poll says where it has got to.
 */
#pragma once

#include "agentd/agent_task.h"
#include "common/proto/msg_agentd.h"

/* agent_event - @action and @more are put together: "health_status: " "healthy". */
void agent_event(const struct atask *t, const char *action, const char *more);
void agent_events_op(struct rpc_call *c, const struct agent_events *req);
unsigned agent_events_waiting(void); /* who listen */
void agent_events_close(void);       /* calls that wait are gone with their server */
