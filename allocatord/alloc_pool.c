/* alloc_pool.c - see alloc_pool.h. */
#include "allocatord/alloc_pool.h"

#include <stdlib.h>

#include "common/util/check.h"

#define PAGE_BITS 4096u
#define PAGE_WORDS (PAGE_BITS / 64)

struct pool_page {
    uint64_t bits[PAGE_WORDS];
    uint32_t used;
};

void pool_init(struct alloc_pool *p, struct cidr subnet, struct cidr range)
{
    struct ip first = cidr_first(range), last = cidr_last(range);
    ip_num n = last.v - first.v;
    *p = (struct alloc_pool){ .subnet = subnet, .range = range };
    p->size = n >= POOL_SPAN ? POOL_SPAN : (uint32_t)n + 1;
    p->npages = (p->size + PAGE_BITS - 1) / PAGE_BITS;
    p->pages = calloc(p->npages, sizeof(struct pool_page *));
    CHECK(p->pages != NULL);
    if (subnet.len + 1u < ip_bits(subnet.ip.family)) { /* RFC 3021: a /31 has neither */
        pool_set(p, cidr_first(subnet), true);
        if (subnet.ip.family == 4)
            pool_set(p, cidr_last(subnet), true);
    }
}

void pool_done(struct alloc_pool *p)
{
    for (uint32_t i = 0; i < p->npages; i++)
        free(p->pages[i]);
    free(p->pages);
    *p = (struct alloc_pool){ 0 };
}

static bool offset_of(const struct alloc_pool *p, struct ip ip, uint32_t *ret)
{
    struct ip first = cidr_first(p->range);
    if (ip.family != first.family || ip.v < first.v || ip.v - first.v >= p->size)
        return false;
    *ret = (uint32_t)(ip.v - first.v);
    return true;
}

void pool_set(struct alloc_pool *p, struct ip ip, bool used)
{
    uint32_t at;
    if (!offset_of(p, ip, &at))
        return;
    struct pool_page **slot = &p->pages[at / PAGE_BITS], *page = *slot;
    uint64_t bit = 1ull << at % 64;
    uint32_t word = at % PAGE_BITS / 64;
    if (page == NULL && used)
        page = *slot = calloc(1, sizeof *page);
    CHECK(page != NULL || !used);
    if (page == NULL || ((page->bits[word] & bit) != 0) == used)
        return;
    page->bits[word] ^= bit;
    page->used += used ? 1u : -1u;
    p->used += used ? 1u : -1u;
    if (page->used == 0) {
        free(page);
        *slot = NULL;
    }
}

bool pool_has(const struct alloc_pool *p, struct ip ip)
{
    uint32_t at;
    if (!offset_of(p, ip, &at) || p->pages[at / PAGE_BITS] == NULL)
        return false;
    return p->pages[at / PAGE_BITS]->bits[at % PAGE_BITS / 64] >> at % 64 & 1;
}

/* free_in - the first free offset in [from, to), a word at a time and over full pages at once; `to` when there is none.
 */
static uint32_t free_in(const struct alloc_pool *p, uint32_t from, uint32_t to)
{
    while (from < to) {
        const struct pool_page *page = p->pages[from / PAGE_BITS];
        if (page == NULL)
            return from;
        if (page->used == PAGE_BITS) {
            from = (from / PAGE_BITS + 1) * PAGE_BITS;
            continue;
        }
        uint64_t open = ~page->bits[from % PAGE_BITS / 64] & ~0ull << from % 64;
        if (open == 0) {
            from = (from / 64 + 1) * 64;
            continue;
        }
        from = from / 64 * 64 + (uint32_t)__builtin_ctzll(open);
        break;
    }
    return from < to ? from : to;
}

bool pool_take(struct alloc_pool *p, struct ip *ret)
{
    if (p->used == p->size)
        return false;
    uint32_t at = free_in(p, p->cursor, p->size);
    if (at == p->size)
        at = free_in(p, 0, p->cursor);
    *ret = cidr_first(p->range);
    ret->v += at;
    pool_set(p, *ret, true);
    p->cursor = at + 1 == p->size ? 0 : at + 1;
    return true;
}

void pool_past(struct alloc_pool *p, struct ip ip)
{
    uint32_t at;
    if (offset_of(p, ip, &at) && at >= p->cursor)
        p->cursor = at + 1 == p->size ? 0 : at + 1;
}

uint32_t pool_free(const struct alloc_pool *p)
{
    return p->size - p->used;
}
