/* sched_shell.h - the process around the core: the controller loop and the probes. */
#pragma once

#include "common/daemon/daemon.h"

int sched_shell_start(struct err *e);
void sched_shell_stop(void);
void sched_shell_status(struct buf *out);
void sched_shell_metrics(struct buf *out);
void sched_shell_explain(const char *args, struct buf *out); /* probe */
