#include "common/util/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/util/check.h"

#define BUF_LIMIT_DEFAULT (256u << 20)

struct str str_from(const char *cstr)
{
    return cstr ? (struct str){ cstr, strlen(cstr) } : (struct str){ NULL, 0 };
}

bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool str_is(struct str a, const char *cstr)
{
    return str_eq(a, str_from(cstr));
}

int str_cmp(struct str a, struct str b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int r = n ? memcmp(a.p, b.p, n) : 0;
    return r != 0 ? r : (a.n > b.n) - (a.n < b.n);
}

bool str_starts(struct str s, struct str prefix)
{
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

char *str_dup(struct str s)
{
    char *p = malloc(s.n + 1);
    CHECK(p != NULL);
    if (s.n)
        memcpy(p, s.p, s.n);
    p[s.n] = '\0';
    return p;
}

bool str_copy(char *dst, size_t cap, struct str s)
{
    if (s.n >= cap)
        return false;
    if (s.n)
        memcpy(dst, s.p, s.n);
    dst[s.n] = '\0';
    return true;
}

bool str_u64(struct str s, uint64_t *ret)
{
    uint64_t v = 0;
    if (s.n == 0)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v))
            return false;
    }
    *ret = v;
    return true;
}

char *buf_reserve(struct buf *b, size_t n)
{
    size_t limit = b->limit ? b->limit : BUF_LIMIT_DEFAULT;
    if (b->failed || n > limit || b->n > limit - n) {
        b->failed = true;
        return NULL;
    }
    if (b->n + n > b->cap) {
        size_t cap = b->cap ? b->cap : 256;
        while (cap < b->n + n)
            cap *= 2;
        char *p = realloc(b->p, cap);
        if (!p) {
            b->failed = true;
            return NULL;
        }
        b->p = p;
        b->cap = cap;
    }
    return b->p + b->n;
}

void buf_put(struct buf *b, const void *p, size_t n)
{
    char *dst = n ? buf_reserve(b, n) : NULL; /* an empty buffer has no address to add to */
    if (dst) {
        memcpy(dst, p, n);
        b->n += n;
    }
}

void buf_puts(struct buf *b, const char *cstr)
{
    buf_put(b, cstr, strlen(cstr));
}

void buf_putc(struct buf *b, char c)
{
    buf_put(b, &c, 1);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap, ap2;
    va_start(ap, fmt);
    va_copy(ap2, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *dst = n >= 0 ? buf_reserve(b, (size_t)n + 1) : NULL;
    if (dst) {
        vsnprintf(dst, (size_t)n + 1, fmt, ap2);
        b->n += (size_t)n;
    }
    va_end(ap2);
}

void buf_clear(struct buf *b)
{
    b->n = 0;
    b->failed = false;
}

void buf_done(struct buf *b)
{
    free(b->p);
    *b = (struct buf){ .limit = b->limit };
}

const char *buf_cstr(struct buf *b)
{
    char *end = buf_reserve(b, 1);
    if (!end)
        return "";
    *end = '\0';
    return b->p;
}

/* Length of the well-formed UTF-8 sequence at p (RFC 3629), 0 when there is none. */
static size_t utf8_len(const uint8_t *p, size_t left)
{
    if (p[0] < 0x80)
        return 1;
    size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || left < n)
        return 0;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

void buf_json_str(struct buf *b, struct str s)
{
    static const char hex[] = "0123456789abcdef";
    buf_putc(b, '"');
    for (size_t i = 0; i < s.n;) {
        uint8_t c = (uint8_t)s.p[i];
        if (c >= 0x20 && c < 0x80 && c != '"' && c != '\\') {
            size_t run = i + 1;
            while (run < s.n && (uint8_t)s.p[run] >= 0x20 && (uint8_t)s.p[run] < 0x80 && s.p[run] != '"' &&
                   s.p[run] != '\\')
                run++;
            buf_put(b, s.p + i, run - i);
            i = run;
            continue;
        }
        size_t n = utf8_len((const uint8_t *)s.p + i, s.n - i);
        if (n > 1) {
            buf_put(b, s.p + i, n);
        } else if (n == 0) {
            buf_puts(b, "\\ufffd");
            n = 1;
        } else if (c == '"' || c == '\\') {
            buf_put(b, (char[]){ '\\', (char)c }, 2);
        } else if (c == '\n' || c == '\r' || c == '\t') {
            buf_put(b, (char[]){ '\\', c == '\n' ? 'n' : c == '\r' ? 'r' : 't' }, 2);
        } else {
            buf_put(b, (char[]){ '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] }, 6);
        }
        i += n;
    }
    buf_putc(b, '"');
}
