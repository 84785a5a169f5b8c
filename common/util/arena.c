#include "common/util/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_MIN 4096u

struct arena_chunk {
    struct arena_chunk *next;
    size_t used, size;
    _Alignas(max_align_t) char data[];
};

void arena_init(struct arena *a, size_t limit_bytes)
{
    *a = (struct arena){ .limit_bytes = limit_bytes };
}

void *arena_alloc(struct arena *a, size_t size)
{
    size_t align = _Alignof(max_align_t);
    if (size > SIZE_MAX / 2)
        return NULL;
    size = (size + align - 1) & ~(align - 1);
    if (size == 0)
        size = align;
    if (size > a->limit_bytes || a->used_bytes > a->limit_bytes - size)
        return NULL;
    if (!a->head || a->head->size - a->head->used < size) {
        size_t want = a->head ? a->head->size * 2 : CHUNK_MIN;
        if (want > (1u << 20))
            want = 1u << 20;
        if (want < size)
            want = size;
        struct arena_chunk *c = malloc(sizeof *c + want);
        if (!c)
            return NULL;
        *c = (struct arena_chunk){ .next = a->head, .size = want };
        a->head = c;
    }
    void *p = a->head->data + a->head->used;
    a->head->used += size;
    a->used_bytes += size;
    memset(p, 0, size);
    return p;
}

void *arena_array(struct arena *a, size_t n, size_t size)
{
    size_t total;
    return __builtin_mul_overflow(n, size, &total) ? NULL : arena_alloc(a, total);
}

struct str arena_str(struct arena *a, struct str s)
{
    char *p = arena_alloc(a, s.n + 1);
    if (!p)
        return (struct str){ NULL, 0 };
    if (s.n)
        memcpy(p, s.p, s.n);
    return (struct str){ p, s.n };
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap, ap2;
    va_start(ap, fmt);
    va_copy(ap2, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *p = n >= 0 ? arena_alloc(a, (size_t)n + 1) : NULL;
    if (p)
        vsnprintf(p, (size_t)n + 1, fmt, ap2);
    va_end(ap2);
    return p;
}

static void free_chunks(struct arena_chunk *c)
{
    while (c) {
        struct arena_chunk *next = c->next;
        free(c);
        c = next;
    }
}

void arena_reset(struct arena *a)
{
    struct arena_chunk *keep = a->head;
    if (keep) {
        free_chunks(keep->next);
        keep->next = NULL;
        keep->used = 0;
    }
    a->used_bytes = 0;
}

void arena_wipe(struct arena *a)
{
    for (struct arena_chunk *c = a->head; c; c = c->next)
        explicit_bzero(c->data, c->used);
}

void arena_done(struct arena *a)
{
    free_chunks(a->head);
    a->head = NULL;
    a->used_bytes = 0;
}
