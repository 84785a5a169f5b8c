/* orch_shell.h - the process around the core: the controller loop and the probes. */
#pragma once

#include "common/daemon/daemon.h"

int orch_shell_start(struct err *e);
void orch_shell_stop(void);
void orch_shell_status(struct buf *out);
void orch_shell_metrics(struct buf *out);
void orch_shell_explain(const char *args, struct buf *out);

struct orch_conf {
    uint64_t mass_percent, mass_rate;
};
extern struct orch_conf orch_conf;
