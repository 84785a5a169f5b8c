/* cron.c - see cron.h. */
#include "common/util/cron.h"

#include <ctype.h>
#include <strings.h>

#define NS_PER_S 1000000000ll
#define S_PER_DAY 86400ll
#define DAYS_AHEAD (30 * 366)

/* ---- the text ---- */

struct cron_field {
    const char *what;
    unsigned min, max;
    const char *const *names; /* of min, min + 1, ... */
};

static const char *const month_names[] = { "jan", "feb", "mar", "apr", "may", "jun", "jul",
                                           "aug", "sep", "oct", "nov", "dec", NULL };
static const char *const day_names[] = { "sun", "mon", "tue", "wed", "thu", "fri", "sat", NULL };
static const struct cron_field cron_fields[] = {
    { "minute", 0, 59, NULL },          { "hour", 0, 23, NULL },
    { "day of month", 1, 31, NULL },    { "month", 1, 12, month_names },
    { "day of week", 0, 7, day_names },
};
#define FIELDS (sizeof cron_fields / sizeof *cron_fields)

static const struct {
    const char *name, *text;
} shorthands[] = {
    { "@yearly", "0 0 1 1 *" }, { "@annually", "0 0 1 1 *" }, { "@monthly", "0 0 1 * *" }, { "@weekly", "0 0 * * 0" },
    { "@daily", "0 0 * * *" },  { "@midnight", "0 0 * * *" }, { "@hourly", "0 * * * *" },
};

static bool next_word(struct str *rest, struct str *ret)
{
    while (rest->n && (rest->p[0] == ' ' || rest->p[0] == '\t'))
        rest->p++, rest->n--;
    *ret = (struct str){ rest->p, 0 };
    while (rest->n && rest->p[0] != ' ' && rest->p[0] != '\t')
        rest->p++, rest->n--, ret->n++;
    return ret->n > 0;
}

/* split - what comes before the first @c; *rest is what follows, .p NULL when there is none. */
static struct str split(struct str s, char c, struct str *rest)
{
    const char *at = s.n ? memchr(s.p, c, s.n) : NULL;
    *rest = (struct str){ NULL, 0 };
    if (!at)
        return s;
    *rest = (struct str){ at + 1, s.n - (size_t)(at + 1 - s.p) };
    return (struct str){ s.p, (size_t)(at - s.p) };
}

static int bad(const struct cron_field *f, struct str part, struct err *e)
{
    return err_set(e, ERR_INVALID, "\"" STR_FMT "\" is no %s: %u to %u%s, *, ranges a-b, lists a,b and steps /n",
                   (int)(part.n < 40 ? part.n : 40), part.p ? part.p : "", f->what, f->min, f->max,
                   f->names ? " or names" : "");
}

static bool value(const struct cron_field *f, struct str s, unsigned *ret)
{
    uint64_t n;
    for (unsigned i = 0; f->names && f->names[i]; i++)
        if (s.n == 3 && strncasecmp(s.p, f->names[i], 3) == 0) {
            *ret = f->min + i;
            return true;
        }
    if (s.n == 0 || s.n > 2 || !isdigit((unsigned char)s.p[0]) || !str_u64(s, &n) || n < f->min || n > f->max)
        return false;
    *ret = (unsigned)n;
    return true;
}

/* part - one element of a list: *, a, a-b, each with /step; a/step runs to the end of the field. */
static int part(const struct cron_field *f, struct str text, uint64_t *bits, struct err *e)
{
    struct str steps, to, range = split(text, '/', &steps);
    struct str from = split(range, '-', &to);
    unsigned a = f->min, b = f->max, step = 1;
    uint64_t n = 1;
    if (str_is(range, "*") || str_is(range, "?")) {
        b = f->max == 7 ? 6 : f->max;
    } else {
        if (!value(f, from, &a) || (to.p && !value(f, to, &b)))
            return bad(f, text, e);
        if (!to.p && !steps.p)
            b = a;
        if (f->max == 7 && to.p && b == 0) /* sat-sun */
            b = 7;
    }
    if (steps.p && (steps.n == 0 || steps.n > 2 || !str_u64(steps, &n) || n == 0))
        return bad(f, text, e);
    step = (unsigned)n;
    if (a > b)
        return bad(f, text, e);
    for (unsigned i = a; i <= b; i += step)
        *bits |= 1ull << (f->max == 7 && i == 7 ? 0 : i);
    return 0;
}

static int field(const struct cron_field *f, struct str text, uint64_t *bits, struct err *e)
{
    struct str rest = text;
    *bits = 0;
    while (rest.p) {
        struct str one = split(rest, ',', &rest);
        int r = part(f, one, bits, e);
        if (r != 0)
            return r;
    }
    return 0;
}

static bool starred(struct str s)
{
    return s.n > 0 && (s.p[0] == '*' || s.p[0] == '?');
}

static int shorthand(struct str *text, struct err *e)
{
    struct str rest = *text, word, more;
    if (!next_word(&rest, &word) || word.p[0] != '@')
        return 0;
    for (size_t i = 0; i < sizeof shorthands / sizeof *shorthands; i++)
        if (str_is(word, shorthands[i].name) && !next_word(&rest, &more)) {
            *text = str_from(shorthands[i].text);
            return 0;
        }
    return err_set(e, ERR_INVALID,
                   "\"" STR_FMT "\" is none of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly",
                   (int)(word.n < 40 ? word.n : 40), word.p);
}

static int time_zone(struct str *text, struct err *e)
{
    struct str rest = *text, word;
    if (!next_word(&rest, &word))
        return 0;
    struct str prefix = str_starts(word, STR("CRON_TZ=")) ? STR("CRON_TZ=") : STR("TZ=");
    if (!str_starts(word, prefix))
        return 0;
    struct str zone = { word.p + prefix.n, word.n - prefix.n };
    if (!str_is(zone, "UTC") && !str_is(zone, "Etc/UTC"))
        return err_set(e, ERR_INVALID, "time zone \"" STR_FMT "\": only UTC is supported",
                       (int)(zone.n < 40 ? zone.n : 40), zone.p);
    *text = rest;
    return 0;
}

static int64_t next_day(const struct cron *c, int64_t day);

int cron_parse(struct str text, struct cron *ret, struct err *e)
{
    struct str words[FIELDS], rest, more;
    uint64_t bits[FIELDS];
    if (text.n > CRON_TEXT_MAX)
        return err_set(e, ERR_INVALID, "a schedule has at most %u characters", CRON_TEXT_MAX);
    int r = time_zone(&text, e);
    if (r == 0)
        r = shorthand(&text, e);
    if (r != 0)
        return r;
    rest = text;
    for (size_t i = 0; i < FIELDS; i++)
        if (!next_word(&rest, &words[i]))
            return err_set(e, ERR_INVALID,
                           "five fields are needed: minute, hour, day of month, month, day of week; this has %zu", i);
    if (next_word(&rest, &more))
        return err_set(e, ERR_INVALID,
                       "five fields are needed: minute, hour, day of month, month, day of week; this has more");
    for (size_t i = 0; i < FIELDS; i++)
        if ((r = field(&cron_fields[i], words[i], &bits[i], e)) != 0)
            return r;
    struct cron c = { .minutes = bits[0],
                      .hours = (uint32_t)bits[1],
                      .days = (uint32_t)bits[2],
                      .months = (uint16_t)bits[3],
                      .weekdays = (uint8_t)bits[4],
                      .any_day = starred(words[2]),
                      .any_weekday = starred(words[4]) };
    if (next_day(&c, 0) < 0)
        return err_set(e, ERR_INVALID, "there is no such day in any year");
    *ret = c;
    return 0;
}

/* ---- the calendar (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms") ---- */

static void civil(int64_t day, unsigned *ret_month, unsigned *ret_day)
{
    int64_t z = day + 719468, era = (z >= 0 ? z : z - 146096) / 146097;
    unsigned doe = (unsigned)(z - era * 146097);
    unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    *ret_day = doy - (153 * mp + 2) / 5 + 1;
    *ret_month = mp < 10 ? mp + 3 : mp - 9;
}

static unsigned weekday(int64_t day) /* 1970-01-01 was a Thursday */
{
    return (unsigned)((day % 7 + 11) % 7);
}

static bool day_matches(const struct cron *c, int64_t day)
{
    unsigned month, dom;
    civil(day, &month, &dom);
    bool d = c->days >> dom & 1, w = c->weekdays >> weekday(day) & 1;
    return (c->months >> month & 1) && (c->any_day || c->any_weekday ? d && w : d || w);
}

/* next_day - the first that matches, from @day on; -1 when there is none. */
static int64_t next_day(const struct cron *c, int64_t day)
{
    for (int64_t end = day + DAYS_AHEAD; day < end; day++)
        if (day_matches(c, day))
            return day;
    return -1;
}

/* next_minute - the first minute of a day that matches, from @from on; -1 when there is none. */
static int next_minute(const struct cron *c, int from)
{
    for (int hour = from / 60; hour < 24; hour++) {
        if (!(c->hours >> hour & 1))
            continue;
        for (int m = hour == from / 60 ? from % 60 : 0; m < 60; m++)
            if (c->minutes >> m & 1)
                return hour * 60 + m;
    }
    return -1;
}

int64_t cron_next(const struct cron *c, int64_t after_ns)
{
    int64_t s = after_ns >= 0 ? after_ns / NS_PER_S : -1;
    int64_t minute = (s + 60) / 60; /* the next whole one */
    if (s < 0)
        minute = 0;
    int64_t day = minute / 1440;
    int at = (int)(minute % 1440);
    if (day > INT64_MAX / NS_PER_S / S_PER_DAY - DAYS_AHEAD - 1)
        return CRON_NEVER;
    for (unsigned tries = 0; tries < 2; tries++) {
        int64_t found = next_day(c, day);
        if (found < 0)
            return CRON_NEVER;
        int m = next_minute(c, found == day ? at : 0);
        if (m >= 0)
            return (found * S_PER_DAY + m * 60) * NS_PER_S;
        day = found + 1;
        at = 0;
    }
    return CRON_NEVER;
}

/* A window that ends now is doubled until a due time is in it, so a long absence costs no more than its last stretch.
 */
int64_t cron_last(const struct cron *c, int64_t after_ns, int64_t until_ns)
{
    int64_t width = 60 * NS_PER_S, from = until_ns, last = CRON_NEVER;
    if (cron_next(c, after_ns) > until_ns)
        return CRON_NEVER;
    do {
        from = until_ns - after_ns > width ? until_ns - width : after_ns;
        width = width > INT64_MAX / 2 ? INT64_MAX : width * 2;
    } while (from > after_ns && cron_next(c, from) > until_ns);
    for (int64_t t = cron_next(c, from); t <= until_ns; t = cron_next(c, t))
        last = t;
    return last;
}
