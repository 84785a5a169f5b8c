/* agent_shell.h - all that agentd does: tasks, images and logs tied together on the event loop. */
#pragma once

#include "common/daemon/daemon.h"

struct agent_conf {
    char conmon[CONF_TEXT_MAX], crun[CONF_TEXT_MAX], init[CONF_TEXT_MAX], cgroup_root[CONF_TEXT_MAX],
        insecure_registries[CONF_TEXT_MAX], labels[CONF_TEXT_MAX], node_generic_resources[CONF_TEXT_MAX];
    bool default_init;
    uint64_t starts_max, layer_size_max, log_size_max, log_files, backoff_max_ms, drain_wait_ms, health_starts_max,
        usage_period_ms;
};
extern struct agent_conf agent_conf;
extern const struct route agent_routes[];
extern const struct probe agent_probes[];

int agent_start(struct err *e);
void agent_stop(void);
void agent_status(struct buf *out);
void agent_metrics(struct buf *out);
