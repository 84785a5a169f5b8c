/* disp_told.c - see disp_told.h. Entries in one array, chained by indexes into it. */
#include "dispatcherd/disp_told.h"

#include <stdlib.h>

#include "common/util/check.h"
#include "dispatcherd/disp_core.h"

#define FIRST_ENTRIES 64u

void told_init(struct told *t)
{
    *t = (struct told){ 0 };
}

void told_clear(struct told *t)
{
    told_done(t);
}

void told_done(struct told *t)
{
    free(t->v);
    free(t->buckets);
    told_init(t);
}

uint64_t told_task(struct str id)
{
    uint64_t h = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < id.n; i++)
        h = (h ^ (unsigned char)id.p[i]) * 0x100000001b3ull;
    h ^= h >> 32; /* the low bits choose the bucket */
    return h * 0x9e3779b97f4a7c15ull;
}

static uint32_t *bucket_of(const struct told *t, uint64_t task)
{
    return &t->buckets[(task >> 32) & (t->nbuckets - 1)];
}

static struct told_entry *at(const struct told *t, uint32_t i)
{
    return i ? &t->v[i - 1] : NULL;
}

static uint32_t index_of(const struct told *t, const struct told_entry *e)
{
    return (uint32_t)(e - t->v) + 1;
}

static struct told_entry *find_from(const struct told *t, uint32_t i, uint64_t task)
{
    struct told_entry *e;
    while ((e = at(t, i)) && e->task != task)
        i = e->next;
    return e;
}

struct told_entry *told_first(const struct told *t, uint64_t task)
{
    return t->nbuckets ? find_from(t, *bucket_of(t, task), task) : NULL;
}

struct told_entry *told_next(const struct told *t, const struct told_entry *e)
{
    return find_from(t, e->next, e->task);
}

struct told_entry *told_of(const struct told *t, uint64_t task, const struct disp_peer *p)
{
    struct told_entry *e = told_first(t, task);
    while (e && e->peer != p)
        e = told_next(t, e);
    return e;
}

static void link_bucket(struct told *t, struct told_entry *e)
{
    uint32_t *b = bucket_of(t, e->task);
    e->next = *b;
    *b = index_of(t, e);
}

static void grow(struct told *t)
{
    CHECK(t->cap < UINT32_MAX / 2);
    t->cap = t->cap ? t->cap * 2 : FIRST_ENTRIES;
    t->nbuckets = t->cap;
    t->v = reallocarray(t->v, t->cap, sizeof *t->v);
    free(t->buckets);
    t->buckets = calloc(t->nbuckets, sizeof *t->buckets);
    CHECK(t->v != NULL && t->buckets != NULL);
    for (uint32_t i = 0; i < t->n; i++) /* all of them are in use, or it would not grow */
        link_bucket(t, &t->v[i]);
}

struct told_entry *told_put(struct told *t, uint64_t task, struct disp_peer *p)
{
    struct told_entry *e = told_of(t, task, p);
    if (e)
        return e;
    if (t->unused == 0 && t->n == t->cap)
        grow(t);
    if (t->unused) {
        e = at(t, t->unused);
        t->unused = e->next;
    } else {
        e = &t->v[t->n++];
    }
    *e = (struct told_entry){ .task = task, .peer = p, .after = p->told };
    link_bucket(t, e);
    if (p->told)
        at(t, p->told)->before = index_of(t, e);
    p->told = index_of(t, e);
    p->ntold++;
    t->count++;
    return e;
}

void told_del(struct told *t, struct told_entry *e)
{
    uint32_t me = index_of(t, e), *link = bucket_of(t, e->task);
    while (*link != me)
        link = &at(t, *link)->next;
    *link = e->next;
    if (e->before)
        at(t, e->before)->after = e->after;
    else
        e->peer->told = e->after;
    if (e->after)
        at(t, e->after)->before = e->before;
    e->peer->ntold--;
    *e = (struct told_entry){ .next = t->unused };
    t->unused = me;
    t->count--;
}

void told_del_all(struct told *t, struct disp_peer *p)
{
    while (p->told)
        told_del(t, at(t, p->told));
    CHECK(p->ntold == 0);
}

void told_check(const struct told *t)
{
    size_t chained = 0, used = 0;
    for (uint32_t b = 0; b < t->nbuckets; b++)
        for (const struct told_entry *e = at(t, t->buckets[b]); e; e = at(t, e->next)) {
            CHECK(e->peer != NULL && bucket_of(t, e->task) == &t->buckets[b]);
            CHECK(e->before ? at(t, e->before)->after == index_of(t, e) : e->peer->told == index_of(t, e));
            chained++;
        }
    for (uint32_t i = 0; i < t->n; i++)
        used += t->v[i].peer != NULL;
    CHECK(chained == t->count && used == t->count);
}
