/* table.c - chained buckets, doubled when there are more entries than buckets. */
#include "common/util/table.h"

#include <stdlib.h>

#include "common/util/check.h"

#define BUCKETS_KEPT 1024u

struct table_entry {
    struct table_entry *next;
    uint32_t hash, key_len;
    _Alignas(max_align_t) char data[]; /* the value, then the key and a NUL */
};

static uint32_t hash_of(struct str key)
{
    uint64_t h = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < key.n; i++)
        h = (h ^ (unsigned char)key.p[i]) * 0x100000001b3ull;
    return (uint32_t)(h ^ h >> 32);
}

void table_init(struct table *t, size_t value_size)
{
    *t = (struct table){ .value_size = value_size };
}

/* A table that was large once neither keeps that memory nor is walked through each time it is cleared again. */
void table_clear(struct table *t)
{
    for (size_t i = 0; i < t->nbuckets && t->count > 0; i++) {
        for (struct table_entry *e = t->buckets[i], *next; e; e = next) {
            next = e->next;
            free(e);
            t->count--;
        }
        t->buckets[i] = NULL;
    }
    if (t->nbuckets > BUCKETS_KEPT) {
        free(t->buckets);
        t->buckets = NULL;
        t->nbuckets = 0;
    }
}

void table_done(struct table *t)
{
    table_clear(t);
    free(t->buckets);
    *t = (struct table){ .value_size = t->value_size };
}

static char *entry_key(const struct table *t, struct table_entry *e)
{
    return e->data + t->value_size;
}

static struct table_entry **find(const struct table *t, struct str key, uint32_t hash)
{
    if (t->nbuckets == 0)
        return NULL;
    for (struct table_entry **p = &t->buckets[hash & (t->nbuckets - 1)]; *p; p = &(*p)->next)
        if ((*p)->hash == hash && (*p)->key_len == key.n && (key.n == 0 || memcmp(entry_key(t, *p), key.p, key.n) == 0))
            return p;
    return NULL;
}

static void grow(struct table *t)
{
    size_t n = t->nbuckets ? t->nbuckets * 2 : 16;
    struct table_entry **b = calloc(n, sizeof(struct table_entry *));
    CHECK(b != NULL);
    for (size_t i = 0; i < t->nbuckets; i++)
        for (struct table_entry *e = t->buckets[i], *next; e; e = next) {
            next = e->next;
            e->next = b[e->hash & (n - 1)];
            b[e->hash & (n - 1)] = e;
        }
    free(t->buckets);
    t->buckets = b;
    t->nbuckets = n;
}

void *table_get(const struct table *t, struct str key)
{
    struct table_entry **p = find(t, key, hash_of(key));
    return p ? (*p)->data : NULL;
}

void *table_put(struct table *t, struct str key, bool *ret_new)
{
    uint32_t hash = hash_of(key);
    struct table_entry **p = find(t, key, hash);
    if (ret_new)
        *ret_new = p == NULL;
    if (p)
        return (*p)->data;
    if (t->count >= t->nbuckets)
        grow(t);
    CHECK(key.n < UINT32_MAX);
    struct table_entry *e = malloc(sizeof *e + t->value_size + key.n + 1);
    CHECK(e != NULL);
    e->hash = hash;
    e->key_len = (uint32_t)key.n;
    memset(e->data, 0, t->value_size);
    if (key.n)
        memcpy(entry_key(t, e), key.p, key.n);
    entry_key(t, e)[key.n] = 0;
    e->next = t->buckets[hash & (t->nbuckets - 1)];
    t->buckets[hash & (t->nbuckets - 1)] = e;
    t->count++;
    return e->data;
}

bool table_del(struct table *t, struct str key)
{
    struct table_entry **p = find(t, key, hash_of(key));
    if (!p)
        return false;
    struct table_entry *e = *p;
    *p = e->next;
    free(e);
    t->count--;
    return true;
}

struct str table_key(const struct table *t, const void *value)
{
    struct table_entry *e = (struct table_entry *)((char *)(uintptr_t)value - offsetof(struct table_entry, data));
    return (struct str){ entry_key(t, e), e->key_len };
}

bool table_next(const struct table *t, struct table_pos *pos, struct str *key, void *val)
{
    struct table_entry *e = pos->next;
    while (!e) {
        if (pos->bucket >= t->nbuckets)
            return false;
        e = t->buckets[pos->bucket++];
    }
    pos->next = e->next;
    if (key)
        *key = (struct str){ entry_key(t, e), e->key_len };
    if (val)
        *(void **)val = e->data;
    return true;
}
