/*
 * agent_usage.h - inside agentd: what tasks use, of services whose labels ask for it (common/object/autoscale.h).
 *
 * As often as usage_period says, while there are such tasks: CPU time and memory of their control groups, and the
 * metric that the container exposes, read over HTTP from inside its network namespace. A container that does not answer
 * within a second, or says more than 1 MiB, has no metric; nothing here waits for it.
 */
#pragma once

#include "agentd/agent_task.h"

/* agent_usage_labels - the service's labels, at each assignment. */
void agent_usage_labels(struct atask *t, const struct strmap *labels);
void agent_usage_free(struct atask *t);
void agent_usage_close(void);
void agent_usage_metrics(struct buf *out);
