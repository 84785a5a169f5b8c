/*
 * agent_health.h - inside agentd: the health checks of running containers.
 *
 * A check is `crun exec` of the image's or the service's command, with the container's user, environment and working
 * folder. All it starts is in a control group of its own below the container's, and none of that outlives the check.
 * Each task has at most one check at a time; so many over all tasks may begin together as the setting health_starts_max
 * says, and one that takes long does not count any more.
 */
#pragma once

#include "agentd/agent_task.h"
#include "common/proto/msg_agentd.h"

/*
 * agent_health_begin - the container runs: false when it has no health check.
 *
 * @back  agentd has restarted; what is known is in t->core
 */
bool agent_health_begin(struct atask *t, bool back);
void agent_health_end(struct atask *t);  /* it is stopping or gone; a check that is under way ends */
void agent_health_free(struct atask *t); /* with all that is known of it */
void agent_health_gone(struct atask *t); /* the container's files are being removed */

enum health_state agent_health_state(const struct atask *t);
/* agent_health_view - for docker inspect: also of a container that has ended. Text borrows from the task; lists from
 * the arena. */
void agent_health_view(const struct atask *t, struct arena *a, struct agent_health *ret);
void agent_health_metrics(struct buf *out);
