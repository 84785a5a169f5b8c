/*
 * alloc_subnet.h - which subnets are taken, and which ones a new network gets.
 *
 * Subnets of a swarm never overlap: a container may be on any two of its networks. What a user asks for is given as it
 * is or refused; what nobody asked for comes out of the swarm's pools, cut to its subnet size, the next one each time.
 * Pure.
 */
#pragma once

#include <stddef.h>

#include "common/object/views.h"
#include "common/util/cidr.h"
#include "common/util/err.h"

/* Prefixes that do not overlap, in order. */
struct subnets {
    struct cidr *v;
    size_t n, cap;
};
void subnets_clear(struct subnets *s);
void subnets_done(struct subnets *s);
bool subnets_add(struct subnets *s, struct cidr c); /* false: it overlaps with one that is there */
void subnets_del(struct subnets *s, struct cidr c); /* exactly this one */
const struct cidr *subnets_overlap(const struct subnets *s, struct cidr c); /* the first such one; NULL */

/* subnets_next - the first free prefix of length @len within the pools, looked for from @cursor on (an address behind
 * the last one given; family 0: from the start), then from the start. */
bool subnets_next(const struct subnets *s, const struct cidr *pools, size_t npools, uint8_t len, struct ip cursor,
                  struct cidr *ret);

/* subnets_away - the same, but rather one that none of these addresses lies in: those of the nodes, whose neighbours
 * containers may want to reach, and whose own routes the ingress network must not hide. When there is none, any. */
bool subnets_away(const struct subnets *s, const struct cidr *pools, size_t npools, uint8_t len, struct ip cursor,
                  const struct ip *avoid, size_t navoid, struct cidr *ret);

/* One subnet of a network, asked for or given. */
struct subnet {
    struct cidr net, range; /* net.ip.family 0: any will do; range: net when none was asked for */
    struct ip gateway;      /* family 0: any */
    bool has_range;
    const struct strmap *aux; /* addresses that are never given */
};

/* subnet_read - what was asked for, as numbers. apid has refused most of what this refuses. */
int subnet_read(const struct view_ipam_config *c, struct subnet *ret, struct err *e);

/* subnet_gateway - chooses one when none was asked for: the first address that can be given. */
void subnet_gateway(struct subnet *s);

/* subnet_pool - the addresses of it that can be given to services and tasks. */
struct alloc_pool;
void subnet_pool(const struct subnet *s, struct alloc_pool *ret);

/* subnet_ula - where a swarm's own IPv6 subnets come from: RFC 4193, the global ID a hash of the swarm's ID. */
struct cidr subnet_ula(struct str cluster_id);
