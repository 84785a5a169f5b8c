/* disp_shell.h - the process around the core: requests of agents, the controller loop, timers, probes. */
#pragma once

#include "common/daemon/daemon.h"

struct disp_conf {
    uint64_t suspect_ms, orphan_ms, flap_max, flap_window_ms, flap_hold_ms, flap_hold_max_ms, drain_wait_ms, drain_ms,
        usage_ms;
};
extern struct disp_conf disp_conf;
extern const struct route disp_routes[];

int disp_shell_start(struct err *e);
void disp_shell_stop(void);
void disp_shell_status(struct buf *out);
void disp_shell_metrics(struct buf *out);
void disp_shell_sessions(const char *args, struct buf *out); /* probes */
void disp_shell_networks(const char *args, struct buf *out);
