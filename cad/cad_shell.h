/* cad_shell.h - the process around the core: requests, the controller loop, probes. */
#pragma once

#include "common/daemon/daemon.h"

extern const struct route cad_routes[];

int cad_start(struct err *e);
void cad_stop(void);
void cad_status(struct buf *out);
void cad_metrics(struct buf *out);
