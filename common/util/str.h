/*
 * str.h - borrowed text with a length, and a growable buffer.
 *
 * A struct str owns nothing and need not end in NUL: it may point into the store's map or into a message.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
    const char *p;
    size_t n;
};

#define STR(lit) ((struct str){ .p = (lit), .n = sizeof(lit) - 1 })
#define STR_FMT "%.*s"
#define STR_ARG(s) (int)(s).n, (s).p ? (s).p : ""

struct str str_from(const char *cstr); /* borrowed; NULL gives the empty string */
bool str_eq(struct str a, struct str b);
bool str_is(struct str a, const char *cstr);
int str_cmp(struct str a, struct str b); /* bytewise, shorter first on a tie */
bool str_starts(struct str s, struct str prefix);
char *str_dup(struct str s); /* given, NUL-terminated; aborts when out of memory */

/* str_copy - into a fixed array, always NUL-terminated; false when it did not fit (then nothing is copied). */
bool str_copy(char *dst, size_t cap, struct str s);

/* str_u64 - the whole of s as a decimal number; false on anything else or overflow. */
bool str_u64(struct str s, uint64_t *ret);

/* A growable byte buffer with an upper limit. Once `failed` is set, later appends do nothing: check it once at the end.
 */
struct buf {
    char *p;
    size_t n, cap;
    size_t limit; /* 0: 256 MiB */
    bool failed;  /* the limit or memory was reached; the content is incomplete */
};

#define BUF_INIT                                                                                                       \
    {                                                                                                                  \
        0                                                                                                              \
    }

void buf_put(struct buf *b, const void *p, size_t n);
void buf_puts(struct buf *b, const char *cstr);
void buf_putc(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
char *buf_reserve(struct buf *b, size_t n); /* room for n more bytes at b->p + b->n, or NULL; does not move n */
void buf_clear(struct buf *b);              /* empties, keeps the memory, clears `failed` */
void buf_done(struct buf *b);               /* frees; the buffer may be used again */
const char *buf_cstr(struct buf *b);        /* borrowed; NUL-terminated; "" when empty */
static inline struct str buf_str(const struct buf *b)
{
    return (struct str){ b->p, b->n };
}

/* buf_json_str - s as a quoted JSON string; bytes that are not UTF-8 become U+FFFD. */
void buf_json_str(struct buf *b, struct str s);
