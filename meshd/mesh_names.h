/*
 * mesh_names.h - gives each sandbox on overlay networks its nameserver (dns/): with its networks and its own name, and
 * with the host's nameservers behind it, which are looked up in the host's resolv.conf.
 */
#pragma once

#include "meshd/dns/dns_server.h"
#include "meshd/overlay/attach.h"

struct mesh_names {
    struct dns_server *server;
    char sandboxes[300];  /* folder of pins */
    const char *resolv;   /* the host's file */
    const char *fallback; /* nameservers for when it names none; blank-separated */
    uint64_t failures;
};

/* mesh_names_open - @resolv, @fallback, @map: borrowed for good. */
int mesh_names_open(struct mesh_names *n, sd_event *loop, const char *run_dir, const char *resolv, const char *fallback,
                    const struct netmap *map, struct err *e);
void mesh_names_close(struct mesh_names *n);

int mesh_names_add(struct mesh_names *n, const struct attach *at, struct err *e);
void mesh_names_del(struct mesh_names *n, struct str task); /* before its namespace is unpinned; unknown: fine */

/* mesh_names_host - reads the host's resolv.conf again. */
void mesh_names_host(struct mesh_names *n);

void mesh_names_metrics(const struct mesh_names *n, struct buf *out);
