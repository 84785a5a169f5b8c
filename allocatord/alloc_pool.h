/*
 * alloc_pool.h - the addresses of one subnet: which are in use, and the next one to give.
 *
 * A bit for each address, in pages that exist only while one of theirs is set: a /24 takes 512 bytes, a /8 with a
 * thousand addresses in use a few pages. Addresses are given in turn, so that one just freed is not reused at once
 * (what somebody still remembers of it has time to go away). Of subnets with more than POOL_SPAN addresses the first
 * POOL_SPAN are given. Pure; running out of memory is fatal, as in table.h.
 */
#pragma once

#include "common/util/cidr.h"

#define POOL_SPAN (1u << 24)

struct alloc_pool {
    struct cidr subnet;
    struct cidr range; /* what is given lies in here; the subnet, or a part of it */
    struct ip gateway;
    uint32_t size, used, cursor; /* addresses in the range; bits set; where the next search begins */
    uint32_t npages;
    struct pool_page **pages;
};

/* pool_init - nothing in use but what must not be given: the subnet's own address, IPv4's broadcast address. @range may
 * be the subnet. Both masked by the caller. */
void pool_init(struct alloc_pool *p, struct cidr subnet, struct cidr range);
void pool_done(struct alloc_pool *p);

/* pool_set - an address is in use, or no longer. Addresses outside the range are let pass. pool_has - is it? */
void pool_set(struct alloc_pool *p, struct ip ip, bool used);
bool pool_has(const struct alloc_pool *p, struct ip ip);

/* pool_take - the next free one, which is in use from now on; false: there is none. */
bool pool_take(struct alloc_pool *p, struct ip *ret);

/* pool_past - the search goes on behind this address, if it is not beyond it: for a pool that is made of what is in
 * use, so that after a change of leaders the turn is about where it was. */
void pool_past(struct alloc_pool *p, struct ip ip);

uint32_t pool_free(const struct alloc_pool *p);
