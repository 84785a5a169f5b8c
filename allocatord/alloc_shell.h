/* alloc_shell.h - the process around the core: the controller loop and the probes. */
#pragma once

#include "common/daemon/daemon.h"

int alloc_shell_start(struct err *e);
void alloc_shell_stop(void);
void alloc_shell_status(struct buf *out);
void alloc_shell_metrics(struct buf *out);
