/*
 * alloc_core.h - which ports a service publishes (swarmkit.md §5.5).
 *
 * Ingress ports are swarm-wide: a published port belongs to one service. Host-mode ports are a matter of each node, so
 * they are only copied. Decided from what is asked, what this service had, and what others hold.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/util/err.h"
#include "common/util/str.h"

#define ALLOC_AUTO_FIRST 30000u
#define ALLOC_AUTO_LAST 32767u

enum alloc_proto { ALLOC_TCP, ALLOC_UDP, ALLOC_SCTP, ALLOC_PROTO_COUNT };
extern const char *const alloc_proto_name[ALLOC_PROTO_COUNT];
enum alloc_proto alloc_proto_parse(struct str s); /* "" and unknown: tcp */

struct alloc_port {
    struct str name;
    enum alloc_proto proto;
    bool host;
    uint64_t target, published; /* published 0: any */
};

/* Somebody else holds this ingress port. */
typedef bool alloc_taken_fn(void *arg, enum alloc_proto proto, uint64_t port);

/*
 * alloc_ports - resolves the ports of one service.
 *
 * @had     what it was given before: an automatic port stays when name, protocol and target stay
 * @cursor  where the search for the next automatic port begins, one per protocol (0: at the first); so that a port
 *          just freed is not given away at once
 * @out     n ports, in the order of spec
 *
 * Returns 0, or -ERR_CONFLICT with *ret_bad the first port that cannot be had.
 */
int alloc_ports(const struct alloc_port *spec, size_t n, const struct alloc_port *had, size_t nhad,
                alloc_taken_fn *taken, void *arg, unsigned cursor[ALLOC_PROTO_COUNT], struct alloc_port *out,
                const struct alloc_port **ret_bad);
