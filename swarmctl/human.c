#include "swarmctl/human.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>

#include "common/util/clock.h"

#define SECOND INT64_C(1000000000)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
/* in hours */
#define WEEK_H INT64_C(168)
#define MONTH_H INT64_C(720)
#define YEAR_H INT64_C(8760)

void human_duration(struct buf *b, int64_t ns)
{
    int64_t s = ns / SECOND, m = ns / MINUTE, h = (ns < INT64_MAX - HOUR / 2 ? ns + HOUR / 2 : ns) / HOUR;

    if (s < 1)
        buf_puts(b, "Less than a second");
    else if (s == 1)
        buf_puts(b, "1 second");
    else if (s < 60)
        buf_printf(b, "%" PRId64 " seconds", s);
    else if (m == 1)
        buf_puts(b, "About a minute");
    else if (m < 60)
        buf_printf(b, "%" PRId64 " minutes", m);
    else if (h == 1)
        buf_puts(b, "About an hour");
    else if (h < 48)
        buf_printf(b, "%" PRId64 " hours", h);
    else if (h < 2 * WEEK_H)
        buf_printf(b, "%" PRId64 " days", h / 24);
    else if (h < 2 * MONTH_H)
        buf_printf(b, "%" PRId64 " weeks", h / WEEK_H);
    else if (h < 2 * YEAR_H)
        buf_printf(b, "%" PRId64 " months", h / MONTH_H);
    else
        buf_printf(b, "%" PRId64 " years", ns / HOUR / YEAR_H);
}

static void scaled(struct buf *b, double size, double base, int digits, const char *const *units, size_t n)
{
    size_t i = 0;

    while (size >= base && i + 1 < n) {
        size /= base;
        i++;
    }
    buf_printf(b, "%.*g%s", digits, size, units[i]);
}

void human_bytes(struct buf *b, double size)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB" };
    scaled(b, size, 1024, 4, units, sizeof units / sizeof units[0]);
}

void human_size(struct buf *b, double size, int digits)
{
    static const char *const units[] = { "B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB" };
    scaled(b, size, 1000, digits, units, sizeof units / sizeof units[0]);
}

static const struct {
    const char *name;
    double ns;
} duration_units[] = {
    { "ns", 1 },   { "us", 1e3 }, { "µs", 1e3 }, { "μs", 1e3 },
    { "ms", 1e6 }, { "s", 1e9 },  { "m", 6e10 }, { "h", 3.6e12 },
};

static int duration_bad(struct err *e, const char *what, const char *text)
{
    struct buf q = BUF_INIT;
    go_quote(&q, str_from(text));
    err_set(e, ERR_INVALID, "time: %s %s", what, buf_cstr(&q));
    buf_done(&q);
    return -ERR_INVALID;
}

int go_duration_parse(const char *text, int64_t *ret_ns, struct err *e)
{
    const char *p = text;
    bool neg = false;
    int64_t total = 0;

    if (*p == '-' || *p == '+')
        neg = *p++ == '-';
    if (strcmp(p, "0") == 0) {
        *ret_ns = 0;
        return 0;
    }
    if (*p == '\0')
        return duration_bad(e, "invalid duration", text);
    while (*p) {
        uint64_t whole = 0;
        double frac = 0, scale = 1;
        bool digits = false;

        for (; isdigit((unsigned char)*p); p++, digits = true) {
            if (whole > (uint64_t)INT64_MAX / 10)
                return duration_bad(e, "invalid duration", text);
            whole = whole * 10 + (unsigned)(*p - '0');
        }
        if (*p == '.')
            for (p++; isdigit((unsigned char)*p); p++, digits = true)
                frac += (*p - '0') * (scale /= 10);
        if (!digits)
            return duration_bad(e, "invalid duration", text);
        size_t n = strcspn(p, ".0123456789");
        if (n == 0)
            return duration_bad(e, "missing unit in duration", text);
        double unit = 0;
        for (size_t i = 0; i < sizeof duration_units / sizeof duration_units[0]; i++)
            if (strlen(duration_units[i].name) == n && memcmp(duration_units[i].name, p, n) == 0)
                unit = duration_units[i].ns;
        if (unit == 0) {
            struct buf u = BUF_INIT;
            char name[64];
            snprintf(name, sizeof name, "%.*s", (int)(n < 60 ? n : 60), p);
            go_quote(&u, str_from(name));
            buf_puts(&u, " in duration");
            int r = 0;
            char what[160];
            snprintf(what, sizeof what, "unknown unit %s", buf_cstr(&u));
            r = duration_bad(e, what, text);
            buf_done(&u);
            return r;
        }
        int64_t part;
        if (__builtin_mul_overflow((int64_t)whole, (int64_t)unit, &part) ||
            __builtin_add_overflow(part, (int64_t)(frac * unit + 0.5), &part) ||
            __builtin_add_overflow(total, part, &total))
            return duration_bad(e, "invalid duration", text);
        p += n;
    }
    *ret_ns = neg ? -total : total;
    return 0;
}

void capitalize(struct buf *b, struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        buf_putc(b, (char)(i == 0 && s.n > 1 ? toupper((unsigned char)s.p[i]) : tolower((unsigned char)s.p[i])));
}

void ellipsis(struct buf *b, struct str s, size_t width)
{
    if (width == 0)
        return;
    if (text_columns(s) <= width) {
        buf_put(b, s.p, s.n);
        return;
    }
    size_t i = 0;
    for (size_t cols = 1; cols < width; cols++)
        i += text_char_len(s, i);
    buf_put(b, s.p, i);
    buf_puts(b, "…");
}

int natural_cmp(const char *a, const char *b)
{
    while (*a && *b) {
        if (isdigit((unsigned char)*a) && isdigit((unsigned char)*b)) {
            const char *za = a, *zb = b;
            while (*a == '0')
                a++;
            while (*b == '0')
                b++;
            size_t na = strspn(a, "0123456789"), nb = strspn(b, "0123456789");
            if (na != nb)
                return na < nb ? -1 : 1;
            int r = memcmp(a, b, na);
            if (r != 0)
                return r;
            if (a - za != b - zb)
                return a - za < b - zb ? -1 : 1;
            a += na;
            b += nb;
        } else {
            if (*a != *b)
                return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
            a++;
            b++;
        }
    }
    return (*a != 0) - (*b != 0);
}

unsigned edit_distance(const char *a, const char *b)
{
    unsigned row[65];
    size_t na = strnlen(a, 64), nb = strnlen(b, 64);

    for (size_t j = 0; j <= nb; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= na; i++) {
        unsigned diag = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= nb; j++) {
            unsigned best = diag + (a[i - 1] != b[j - 1]);
            diag = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[nb];
}
