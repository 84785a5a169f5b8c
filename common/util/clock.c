#include "common/util/clock.h"

#include <stdio.h>
#include <time.h>

#define NS_PER_S 1000000000ll

struct mono_ms clock_mono(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (struct mono_ms){ (uint64_t)ts.tv_sec * 1000u + (uint64_t)ts.tv_nsec / 1000000u };
}

struct wall_ns clock_wall(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (struct wall_ns){ (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec };
}

void wall_format(struct wall_ns t, char text[WALL_TEXT_MAX])
{
    if (t.ns == 0) { /* Go's zero time, which clients take for "never" */
        snprintf(text, WALL_TEXT_MAX, "0001-01-01T00:00:00Z");
        return;
    }
    int64_t sec = t.ns / NS_PER_S, frac = t.ns % NS_PER_S;
    if (frac < 0) {
        frac += NS_PER_S;
        sec--;
    }
    time_t tt = (time_t)sec;
    struct tm tm;
    gmtime_r(&tt, &tm);
    size_t n = strftime(text, WALL_TEXT_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
    if (frac != 0) {
        n += (size_t)snprintf(text + n, WALL_TEXT_MAX - n, ".%09lld", (long long)frac);
        while (text[n - 1] == '0')
            n--;
    }
    snprintf(text + n, WALL_TEXT_MAX - n, "Z");
}

/* Reads exactly `width` digits at *p. */
static bool digits(const char **p, const char *end, int width, int *ret)
{
    int v = 0;
    if (end - *p < width)
        return false;
    for (int i = 0; i < width; i++, (*p)++) {
        if (**p < '0' || **p > '9')
            return false;
        v = v * 10 + (**p - '0');
    }
    *ret = v;
    return true;
}

static bool expect(const char **p, const char *end, char c)
{
    if (*p == end || **p != c)
        return false;
    (*p)++;
    return true;
}

static bool parse_fraction(const char **p, const char *end, int64_t *ret)
{
    int64_t v = 0, unit = NS_PER_S / 10;
    int n = 0;
    for (; *p < end && **p >= '0' && **p <= '9'; (*p)++, n++, unit /= 10)
        v += (**p - '0') * unit;
    *ret = v;
    return n >= 1 && n <= 9;
}

static bool parse_offset(const char **p, const char *end, int64_t *ret_s)
{
    if (expect(p, end, 'Z') || expect(p, end, 'z')) {
        *ret_s = 0;
        return true;
    }
    int sign = expect(p, end, '+') ? 1 : expect(p, end, '-') ? -1 : 0, h, m;
    if (sign == 0 || !digits(p, end, 2, &h) || !expect(p, end, ':') || !digits(p, end, 2, &m) || h > 23 || m > 59)
        return false;
    *ret_s = (int64_t)sign * (h * 3600 + m * 60);
    return true;
}

bool wall_parse(struct str text, struct wall_ns *ret)
{
    const char *p = text.p, *end = text.p + text.n;
    int y, mo, d, h, mi, s;
    int64_t frac = 0, off;
    if (!digits(&p, end, 4, &y) || !expect(&p, end, '-') || !digits(&p, end, 2, &mo) || !expect(&p, end, '-') ||
        !digits(&p, end, 2, &d))
        return false;
    if (!expect(&p, end, 'T') && !expect(&p, end, 't') && !expect(&p, end, ' '))
        return false;
    if (!digits(&p, end, 2, &h) || !expect(&p, end, ':') || !digits(&p, end, 2, &mi) || !expect(&p, end, ':') ||
        !digits(&p, end, 2, &s))
        return false;
    if (expect(&p, end, '.') && !parse_fraction(&p, end, &frac))
        return false;
    if (!parse_offset(&p, end, &off) || p != end || mo < 1 || mo > 12 || d < 1 || d > 31 || h > 23 || mi > 59 || s > 60)
        return false;
    if (y == 1) { /* Go's zero time */
        ret->ns = 0;
        return true;
    }
    if (y < 1700 || y > 2200) /* int64 nanoseconds reach from 1677 to 2262 */
        return false;
    struct tm tm = { .tm_year = y - 1900, .tm_mon = mo - 1, .tm_mday = d, .tm_hour = h, .tm_min = mi, .tm_sec = s };
    ret->ns = ((int64_t)timegm(&tm) - off) * NS_PER_S + frac;
    return true;
}

static int64_t unit_ns(struct str u)
{
    static const struct {
        const char *name;
        int64_t ns;
    } units[] = { { "ns", 1 },       { "us", 1000 },         { "ms", 1000000 },
                  { "s", NS_PER_S }, { "m", 60 * NS_PER_S }, { "h", 3600 * NS_PER_S } };
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (str_is(u, units[i].name))
            return units[i].ns;
    }
    return 0;
}

/* One "12.5ms" at *p: whole and fractional part, then letters. */
static bool duration_term(const char **p, const char *end, int64_t *ret)
{
    uint64_t whole = 0;
    double frac = 0, scale = 0.1;
    const char *start = *p;
    for (; *p < end && **p >= '0' && **p <= '9'; (*p)++) {
        if (__builtin_mul_overflow(whole, 10u, &whole) || __builtin_add_overflow(whole, (uint64_t)(**p - '0'), &whole))
            return false;
    }
    if (*p < end && **p == '.') {
        for ((*p)++; *p < end && **p >= '0' && **p <= '9'; (*p)++, scale /= 10)
            frac += (**p - '0') * scale;
    }
    if (*p == start)
        return false;
    const char *u = *p;
    while (*p < end && **p >= 'a' && **p <= 'z')
        (*p)++;
    int64_t unit = unit_ns((struct str){ u, (size_t)(*p - u) }), v;
    if (unit == 0 || __builtin_mul_overflow(whole, unit, &v))
        return false;
    return !__builtin_add_overflow(v, (int64_t)(frac * (double)unit + 0.5), ret);
}

bool duration_parse(struct str text, int64_t *ret_ns)
{
    const char *p = text.p, *end = text.p + text.n;
    int64_t sum = 0, term;
    if (str_is(text, "0")) {
        *ret_ns = 0;
        return true;
    }
    if (text.n == 0)
        return false;
    while (p < end) {
        if (!duration_term(&p, end, &term) || __builtin_add_overflow(sum, term, &sum))
            return false;
    }
    *ret_ns = sum;
    return true;
}
