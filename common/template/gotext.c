#include "common/template/gotext.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/util/check.h"
#include "common/util/clock.h"

#define SECOND INT64_C(1000000000)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)

/* A number with up to nine decimals, trailing zeros cut: 1500000 of 1000000 is "1.5". */
static void put_fraction(struct buf *b, uint64_t v, uint64_t unit)
{
    char frac[16];
    int width = 0;

    for (uint64_t u = unit; u > 1; u /= 10)
        width++;
    buf_printf(b, "%" PRIu64, v / unit);
    if (v % unit == 0)
        return;
    int n = snprintf(frac, sizeof frac, "%0*" PRIu64, width, v % unit);
    while (n > 0 && frac[n - 1] == '0')
        frac[--n] = '\0';
    buf_printf(b, ".%s", frac);
}

void go_duration(struct buf *b, int64_t ns)
{
    uint64_t u = ns < 0 ? -(uint64_t)ns : (uint64_t)ns;

    if (u == 0) {
        buf_puts(b, "0s");
        return;
    }
    if (ns < 0)
        buf_putc(b, '-');
    if (u < 1000) {
        buf_printf(b, "%" PRIu64 "ns", u);
    } else if (u < 1000000) {
        put_fraction(b, u, 1000);
        buf_puts(b, "µs");
    } else if (u < (uint64_t)SECOND) {
        put_fraction(b, u, 1000000);
        buf_puts(b, "ms");
    } else {
        uint64_t h = u / HOUR, m = u / MINUTE % 60;
        if (h > 0)
            buf_printf(b, "%" PRIu64 "h", h);
        if (h > 0 || m > 0)
            buf_printf(b, "%" PRIu64 "m", m);
        put_fraction(b, u % MINUTE, SECOND);
        buf_putc(b, 's');
    }
}

void go_time(struct buf *b, struct str s)
{
    struct wall_ns t;
    char text[WALL_TEXT_MAX];

    if (s.n == 0)
        s = STR("0001-01-01T00:00:00Z");
    if (!wall_parse(s, &t)) {
        if (str_is(s, "0001-01-01T00:00:00Z"))
            buf_puts(b, "0001-01-01 00:00:00 +0000 UTC");
        else
            buf_put(b, s.p, s.n);
        return;
    }
    wall_format(t, text);
    char *sep = strchr(text, 'T'), *z = strchr(text, 'Z');
    if (sep && z) {
        *sep = ' ';
        *z = '\0';
    }
    buf_printf(b, "%s +0000 UTC", text);
}

void go_quote(struct buf *b, struct str s)
{
    buf_putc(b, '"');
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '"' || c == '\\')
            buf_printf(b, "\\%c", c);
        else if (c == '\n')
            buf_puts(b, "\\n");
        else if (c == '\t')
            buf_puts(b, "\\t");
        else if (c == '\r')
            buf_puts(b, "\\r");
        else if (c < 0x20 || c == 0x7f)
            buf_printf(b, "\\x%02x", c);
        else
            buf_putc(b, (char)c);
    }
    buf_putc(b, '"');
}

size_t text_char_len(struct str s, size_t at)
{
    size_t n = 1;
    while (at + n < s.n && ((unsigned char)s.p[at + n] & 0xc0) == 0x80)
        n++;
    return n;
}

size_t text_columns(struct str s)
{
    size_t cols = 0;
    for (size_t i = 0; i < s.n; i += text_char_len(s, i))
        cols++;
    return cols;
}

static int cmp_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

const char **jkeys_sorted(json_t *obj, size_t *ret_n)
{
    size_t n = 0;
    const char **keys = calloc(json_object_size(obj) + 1, sizeof *keys), *key;
    json_t *v;

    CHECK(keys);
    json_object_foreach (obj, key, v) {
        keys[n++] = key; /* cppcheck-suppress nullPointerRedundantCheck */
    }
    /* cppcheck-suppress nullPointerRedundantCheck */
    qsort(keys, n, sizeof *keys, cmp_names);
    *ret_n = n;
    return keys;
}

bool jempty(const json_t *v)
{
    switch (v ? json_typeof(v) : JSON_NULL) {
    case JSON_STRING:
        return json_string_length(v) == 0;
    case JSON_INTEGER:
        return json_integer_value(v) == 0;
    case JSON_REAL:
        return json_real_value(v) == 0;
    case JSON_ARRAY:
        return json_array_size(v) == 0;
    case JSON_OBJECT:
        return json_object_size(v) == 0;
    case JSON_TRUE:
        return false;
    default:
        return true;
    }
}
