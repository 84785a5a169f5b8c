/*
 * mesh_proxy.h - published ports on IPv6: a process of its own that takes connections on [::]:PORT and passes them on
 * to 127.0.0.1:PORT, where the mesh takes over.
 *
 * Tasks have IPv4 addresses, and the kernel does not translate from one to the other. So here, and only here, the
 * client's address is lost: a task sees the node's. A process of its own, because it must outlive meshd as everything
 * else does: a meshd that starts finds it by its socket and tells it the ports anew. It ends when it has neither ports
 * nor connections. TCP and UDP; no SCTP.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/util/err.h"

/* ---- meshd's side ---- */

struct mesh_proxy_port {
    uint8_t proto, pad;
    uint16_t port;
    int32_t errnum; /* in an answer: why it is not served; 0: it is */
};
struct mesh_proxy {
    char path[108];
    char exe[256]; /* what to start it from; "": this program */
    int fd;        /* -1: not connected */
    bool off;      /* this kernel has no IPv6 */
    size_t nports;
    struct mesh_proxy_port *ports; /* as told last */
    uint64_t started;
};
int mesh_proxy_open(struct mesh_proxy *p, const char *run_dir, struct err *e);
void mesh_proxy_close(struct mesh_proxy *p); /* leaves it running */

/* mesh_proxy_want - the ports from now on (not taken; any order). Starts the process when there are any and it does not
 * run. Waits for its answer, which it gives at once: at most 2 s. */
int mesh_proxy_want(struct mesh_proxy *p, const struct mesh_proxy_port *ports, size_t n, struct err *e);
int mesh_proxy_errno(const struct mesh_proxy *p, uint8_t proto, uint16_t port); /* 0: served, or not asked for */

/* ---- the process ---- */

#define MESH_PROXY_FLAG "--proxy"
int mesh_proxy_main(int control_fd); /* listens already; returns the exit code */
