/* probes.h - what a person may ask raftd on <run>/raftd.probe. Nothing of the secret map, no join tokens. */
#pragma once

#include "common/daemon/daemon.h"

extern const struct probe probes[];
void probes_status(struct buf *out);
void probes_metrics(struct buf *out);
