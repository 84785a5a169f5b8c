/* alloc_subnet.c - see alloc_subnet.h. */
#include "allocatord/alloc_subnet.h"

#include <stdlib.h>

#include "allocatord/alloc_pool.h"
#include "common/util/check.h"

void subnets_clear(struct subnets *s)
{
    s->n = 0;
}

void subnets_done(struct subnets *s)
{
    free(s->v);
    *s = (struct subnets){ 0 };
}

/* behind - the first one that does not end before c begins. */
static size_t behind(const struct subnets *s, struct cidr c)
{
    struct ip from = cidr_first(c);
    size_t lo = 0, hi = s->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        struct ip last = cidr_last(s->v[mid]);
        if (last.family < from.family || (last.family == from.family && last.v < from.v))
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

const struct cidr *subnets_overlap(const struct subnets *s, struct cidr c)
{
    size_t i = behind(s, c);
    return i < s->n && cidr_overlap(s->v[i], c) ? &s->v[i] : NULL;
}

bool subnets_add(struct subnets *s, struct cidr c)
{
    size_t at = behind(s, c);
    if (at < s->n && cidr_overlap(s->v[at], c))
        return false;
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 64;
        s->v = reallocarray(s->v, s->cap, sizeof *s->v);
        CHECK(s->v != NULL);
    }
    memmove(&s->v[at + 1], &s->v[at], (s->n - at) * sizeof *s->v);
    s->v[at] = cidr_masked(c);
    s->n++;
    return true;
}

void subnets_del(struct subnets *s, struct cidr c)
{
    size_t at = behind(s, c);
    if (at >= s->n || cidr_cmp(s->v[at], c) != 0)
        return;
    memmove(&s->v[at], &s->v[at + 1], (s->n - at - 1) * sizeof *s->v);
    s->n--;
}

/* search - the first free one in a pool that begins at `from` or later. */
static bool search(const struct subnets *s, struct cidr pool, uint8_t len, struct ip from, struct cidr *ret)
{
    struct ip end = cidr_last(pool);
    struct cidr c = { from, len };
    if (len < pool.len || len > ip_bits(pool.ip.family))
        return false;
    if (cidr_first(c).v != from.v) { /* up to the next boundary */
        ip_num last = cidr_last(c).v;
        if (last >= end.v)
            return false;
        c.ip.v = last + 1;
    }
    for (;;) {
        const struct cidr *other = subnets_overlap(s, c);
        if (other == NULL) {
            *ret = c;
            return true;
        }
        struct ip last = cidr_last(other->len < len ? *other : c);
        if (last.v >= end.v)
            return false;
        c.ip.v = last.v + 1;
    }
}

bool subnets_next(const struct subnets *s, const struct cidr *pools, size_t npools, uint8_t len, struct ip cursor,
                  struct cidr *ret)
{
    size_t at = 0;
    while (at < npools && !cidr_has(pools[at], cursor))
        at++;
    for (size_t i = at; i < npools; i++)
        if (search(s, pools[i], len, i == at ? cursor : cidr_first(pools[i]), ret))
            return true;
    for (size_t i = 0; i < npools; i++)
        if (search(s, pools[i], len, cidr_first(pools[i]), ret))
            return true;
    return false;
}

static bool holds_one(struct cidr c, const struct ip *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (cidr_has(c, v[i]))
            return true;
    return false;
}

bool subnets_away(const struct subnets *s, const struct cidr *pools, size_t npools, uint8_t len, struct ip cursor,
                  const struct ip *avoid, size_t navoid, struct cidr *ret)
{
    struct cidr c;
    if (!subnets_next(s, pools, npools, len, cursor, ret))
        return false;
    c = *ret;
    for (size_t tries = 0; tries <= navoid; tries++) { /* each address spoils one */
        if (!holds_one(c, avoid, navoid)) {
            *ret = c;
            return true;
        }
        cursor = cidr_last(c);
        cursor.v++;
        if (!subnets_next(s, pools, npools, len, cursor, &c))
            break;
    }
    return true;
}

/* ---- one subnet ---- */

int subnet_read(const struct view_ipam_config *c, struct subnet *ret, struct err *e)
{
    *ret = (struct subnet){ .aux = &c->AuxiliaryAddresses };
    if (c->Subnet.n == 0) {
        if (c->IPRange.n || c->Gateway.n)
            return err_set(e, ERR_INVALID, "every ip-range or gateway must have a corresponding subnet");
        return 0;
    }
    if (!cidr_parse(c->Subnet, &ret->net))
        return err_set(e, ERR_INVALID, "invalid CIDR address: " STR_FMT, STR_ARG(c->Subnet));
    ret->range = ret->net = cidr_masked(ret->net);
    if (c->IPRange.n) {
        struct cidr range;
        if (!cidr_parse(c->IPRange, &range) || !cidr_holds(ret->net, range))
            return err_set(e, ERR_INVALID, "subnet " STR_FMT " does not contain range " STR_FMT, STR_ARG(c->Subnet),
                           STR_ARG(c->IPRange));
        ret->range = cidr_masked(range);
        ret->has_range = true;
    }
    if (c->Gateway.n && (!ip_parse(c->Gateway, &ret->gateway) || !cidr_has(ret->net, ret->gateway)))
        return err_set(e, ERR_INVALID, "subnet " STR_FMT " does not contain gateway " STR_FMT, STR_ARG(c->Subnet),
                       STR_ARG(c->Gateway));
    return 0;
}

void subnet_pool(const struct subnet *s, struct alloc_pool *ret)
{
    struct ip ip;
    pool_init(ret, s->net, s->range);
    ret->gateway = s->gateway;
    if (s->gateway.family)
        pool_set(ret, s->gateway, true);
    for (size_t i = 0; s->aux && i < s->aux->n; i++)
        if (ip_parse(s->aux->v[i].val, &ip))
            pool_set(ret, ip, true);
}

void subnet_gateway(struct subnet *s)
{
    struct alloc_pool p;
    if (s->gateway.family)
        return;
    subnet_pool(s, &p);
    if (!pool_take(&p, &s->gateway))
        s->gateway = (struct ip){ 0 };
    pool_done(&p);
}

struct cidr subnet_ula(struct str cluster_id)
{
    uint64_t hash = 0xcbf29ce484222325ull; /* FNV-1a: any 40 bits will do that differ between swarms */
    for (size_t i = 0; i < cluster_id.n; i++)
        hash = (hash ^ (uint8_t)cluster_id.p[i]) * 0x100000001b3ull;
    ip_num global = (hash ^ hash >> 40) & 0xffffffffffull;
    return (struct cidr){ { (ip_num)0xfd << 120 | global << 80, 6 }, 48 };
}
