/* cad_shell.h - what main() needs of cad. */
#pragma once

#include "common/util/err.h"
#include "common/util/str.h"

int cad_start(struct err *e);
void cad_stop(void);
void cad_status(struct buf *out);
void cad_metrics(struct buf *out);
