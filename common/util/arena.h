/*
 * arena.h - bump allocation for one message or one pass, released all at once.
 *
 * An arena grows in chunks up to a limit given at init; past it arena_alloc() returns NULL and the caller refuses the
 * work at hand. Nothing is ever freed singly. Memory is zeroed.
 */
#pragma once

#include <stddef.h>

#include "common/util/str.h"

struct arena_chunk;

struct arena {
    struct arena_chunk *head;
    size_t used_bytes;  /* over all chunks */
    size_t limit_bytes; /* arena_alloc() fails beyond this */
};

void arena_init(struct arena *a, size_t limit_bytes);

/* arena_alloc - NULL when the limit or the machine's memory is reached. Aligned for any type. */
void *arena_alloc(struct arena *a, size_t size);

/* arena_array - n elements, checked for overflow. */
void *arena_array(struct arena *a, size_t n, size_t size);

/* arena_str - a copy of s, NUL-terminated behind its length. {NULL,0} when full. */
struct str arena_str(struct arena *a, struct str s);

/* arena_printf - formatted text, given by the arena; NULL when full. */
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* arena_reset - forgets everything, keeps one chunk for the next pass. */
void arena_reset(struct arena *a);

/* arena_wipe - overwrites what was allocated, with nothing freed: before arena_done() of what held secrets. */
void arena_wipe(struct arena *a);

void arena_done(struct arena *a);
