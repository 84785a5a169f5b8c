/* mesh_shell.h - meshd's requests, probes and the watch on the host's nftables, on the daemon's event loop. */
#pragma once

#include "common/daemon/daemon.h"
#include "meshd/mesh_node.h"

extern struct mesh_conf mesh_shell_conf;
extern const struct conf_item mesh_shell_conf_items[];
extern const struct route mesh_shell_routes[];
extern const struct probe mesh_shell_probes[];

int mesh_shell_start(struct err *e);
void mesh_shell_stop(void);
void mesh_shell_status(struct buf *out);
void mesh_shell_metrics(struct buf *out);
