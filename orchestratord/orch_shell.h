/* orch_shell.h - the process around the core: the controller loop and the probes. */
#pragma once

#include "common/daemon/daemon.h"

int orch_shell_start(struct err *e);
void orch_shell_stop(void);
void orch_shell_status(struct buf *out);
void orch_shell_metrics(struct buf *out);
