#include "apid/api_query.h"

#include <errno.h>
#include <stdlib.h>
#include <strings.h>

#include "common/util/clock.h"

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int percent_decode(struct str in, bool plus, struct arena *a, struct str *ret, struct err *e)
{
    char *out = arena_alloc(a, in.n + 1);
    size_t n = 0;

    if (!out)
        return err_set(e, ERR_NOMEM, "request is too large");
    for (size_t i = 0; i < in.n; i++) {
        char c = in.p[i];
        if (c == '%') {
            int hi = i + 1 < in.n ? hex_digit(in.p[i + 1]) : -1;
            int lo = i + 2 < in.n ? hex_digit(in.p[i + 2]) : -1;
            if (hi < 0 || lo < 0) {
                size_t left = in.n - i < 3 ? in.n - i : 3;
                return err_set(e, ERR_INVALID, "invalid URL escape \"%.*s\"", (int)left, in.p + i);
            }
            c = (char)(hi << 4 | lo);
            i += 2;
        } else if (plus && c == '+') {
            c = ' ';
        }
        if (c == '\0')
            return err_set(e, ERR_INVALID, "invalid URL escape \"%%00\"");
        out[n++] = c;
    }
    out[n] = '\0';
    *ret = (struct str){ out, n };
    return 0;
}

int query_parse(struct query *q, struct str raw, struct arena *a, struct err *e)
{
    q->n = 0;
    while (raw.n > 0) {
        const char *amp = memchr(raw.p, '&', raw.n);
        struct str part = { raw.p, amp ? (size_t)(amp - raw.p) : raw.n };
        raw.p += part.n + (amp ? 1 : 0);
        raw.n -= part.n + (amp ? 1 : 0);
        if (part.n == 0)
            continue;
        if (q->n == QUERY_PAIRS_MAX)
            return err_set(e, ERR_INVALID, "more than %d query parameters", QUERY_PAIRS_MAX);
        const char *eq = memchr(part.p, '=', part.n);
        struct str key = { part.p, eq ? (size_t)(eq - part.p) : part.n };
        struct str val = { eq ? eq + 1 : part.p + part.n, eq ? part.n - key.n - 1 : 0 };
        struct query_pair *p = &q->v[q->n];
        int r = percent_decode(key, true, a, &p->key, e);
        if (r == 0)
            r = percent_decode(val, true, a, &p->val, e);
        if (r < 0)
            return r;
        q->n++;
    }
    return 0;
}

struct str query_get(const struct query *q, const char *key)
{
    for (size_t i = 0; i < q->n; i++)
        if (str_is(q->v[i].key, key))
            return q->v[i].val;
    return (struct str){ NULL, 0 };
}

bool query_loose(const struct query *q, const char *key)
{
    struct str v = query_get(q, key);
    return v.n > 0 && strcasecmp(v.p, "0") != 0 && strcasecmp(v.p, "no") != 0 && strcasecmp(v.p, "false") != 0 &&
           strcasecmp(v.p, "none") != 0;
}

static int parse_bool(struct str v, bool *ret)
{
    static const char *const yes[] = { "1", "t", "T", "TRUE", "true", "True", NULL };
    static const char *const no[] = { "0", "f", "F", "FALSE", "false", "False", NULL };

    for (size_t i = 0; yes[i]; i++) {
        if (str_is(v, yes[i])) {
            *ret = true;
            return 0;
        }
        if (str_is(v, no[i])) {
            *ret = false;
            return 0;
        }
    }
    return -1;
}

int query_strict(const struct query *q, const char *key, bool *ret, struct err *e)
{
    struct str v = query_get(q, key);

    *ret = false;
    if (v.n == 0)
        return 0;
    if (parse_bool(v, ret) < 0)
        return err_set(e, ERR_INVALID,
                       "invalid value for %s: " STR_FMT ": strconv.ParseBool: parsing \"" STR_FMT "\": invalid syntax",
                       key, STR_ARG(v), STR_ARG(v));
    return 0;
}

int query_rotate(const struct query *q, const char *key, bool *ret, struct err *e)
{
    struct str v = query_get(q, key);

    *ret = false;
    if (v.n > 0 && parse_bool(v, ret) < 0)
        return err_set(e, ERR_INVALID, "invalid value for %s: " STR_FMT, key, STR_ARG(v));
    return 0;
}

int query_version(const struct query *q, const char *kind, uint64_t *ret, struct err *e)
{
    struct str v = query_get(q, "version");
    const char *why = "invalid syntax";

    if (str_u64(v, ret))
        return 0;
    size_t digits = 0;
    while (digits < v.n && v.p[digits] >= '0' && v.p[digits] <= '9')
        digits++;
    if (v.n > 0 && digits == v.n)
        why = "value out of range";
    return err_set(e, ERR_INVALID, "invalid %s version '" STR_FMT "': strconv.ParseUint: parsing \"" STR_FMT "\": %s",
                   kind, STR_ARG(v), STR_ARG(v), why);
}

/* "1136073600.000000001": the fraction is read as Go does, right-padded to nanoseconds. */
static bool unix_time(struct str v, int64_t *ret_ns)
{
    uint64_t sec = 0, frac = 0;
    const char *dot = memchr(v.p, '.', v.n);
    struct str whole = { v.p, dot ? (size_t)(dot - v.p) : v.n };

    bool minus = whole.n > 1 && whole.p[0] == '-';
    if (minus) {
        whole.p++;
        whole.n--;
    }
    if (!str_u64(whole, &sec) || sec > 9000000000u)
        return false;
    if (dot) {
        char digits[10] = "000000000";
        struct str f = { dot + 1, v.n - (size_t)(dot + 1 - v.p) };
        if (f.n > 9)
            f.n = 9;
        memcpy(digits, f.p, f.n);
        if (!str_u64((struct str){ digits, 9 }, &frac))
            return false;
    }
    *ret_ns = (int64_t)sec * 1000000000 + (int64_t)frac;
    if (minus)
        *ret_ns = -*ret_ns;
    return true;
}

int query_time(const struct query *q, const char *key, int64_t *ret_ns, bool *ret_set, struct err *e)
{
    struct str v = query_get(q, key);
    struct wall_ns t;

    *ret_ns = 0;
    *ret_set = false;
    if (v.n == 0)
        return 0;
    if (unix_time(v, ret_ns)) {
        *ret_set = true;
        return 0;
    }
    if (wall_parse(v, &t)) {
        *ret_ns = t.ns;
        *ret_set = true;
        return 0;
    }
    return err_set(e, ERR_INVALID,
                   "invalid value for \"%s\": strconv.ParseInt: parsing \"" STR_FMT "\": invalid syntax", key,
                   STR_ARG(v));
}

int query_tail(const struct query *q, int64_t *ret, struct err *e)
{
    struct str v = query_get(q, "tail");
    uint64_t n;

    *ret = -1;
    if (v.n == 0 || str_is(v, "all"))
        return 0;
    if (str_u64(v, &n) && n <= INT32_MAX) {
        *ret = (int64_t)n;
        return 0;
    }
    if (v.n > 1 && v.p[0] == '-' && str_u64((struct str){ v.p + 1, v.n - 1 }, &n))
        return err_set(e, ERR_INVALID, "negative tail values not supported");
    return err_set(e, ERR_INVALID, "tail value must be a positive integer or \"all\"");
}
