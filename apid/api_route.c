#include "apid/api_route.h"

static size_t take_digits(struct str *s, unsigned *ret)
{
    size_t n = 0;

    *ret = 0;
    while (n < s->n && n < 4 && s->p[n] >= '0' && s->p[n] <= '9')
        *ret = *ret * 10 + (unsigned)(s->p[n++] - '0');
    s->p += n;
    s->n -= n;
    return n;
}

int route_version(struct str *path)
{
    struct str s = *path;
    unsigned major, minor;

    if (!str_starts(s, STR("/v")) || s.n < 3 || s.p[2] < '0' || s.p[2] > '9')
        return 0;
    s.p += 2;
    s.n -= 2;
    if (take_digits(&s, &major) == 0 || s.n == 0 || s.p[0] != '.')
        return -1;
    s.p++;
    s.n--;
    if (take_digits(&s, &minor) == 0 || s.n == 0 || s.p[0] != '/' || minor > 99)
        return -1;
    *path = s;
    return (int)(major * 100 + minor);
}

/* "{*}" takes the longest run that lets the rest of the pattern match at the end: names are followed by "/json" etc. */
static bool match_rest(const char *tail, struct str s, struct str *param)
{
    size_t len = strlen(tail);

    if (s.n <= len || memcmp(s.p + s.n - len, tail, len) != 0)
        return false;
    *param = (struct str){ s.p, s.n - len };
    return true;
}

bool route_match(const char *pattern, struct str path, struct str params[ROUTE_PARAMS_MAX])
{
    size_t np = 0;

    while (*pattern) {
        if (strncmp(pattern, "{*}", 3) == 0)
            return np < ROUTE_PARAMS_MAX && match_rest(pattern + 3, path, &params[np]);
        if (strncmp(pattern, "{}", 2) == 0) {
            const char *slash = memchr(path.p, '/', path.n);
            size_t n = slash ? (size_t)(slash - path.p) : path.n;
            if (n == 0 || np == ROUTE_PARAMS_MAX)
                return false;
            params[np++] = (struct str){ path.p, n };
            path.p += n;
            path.n -= n;
            pattern += 2;
            continue;
        }
        if (path.n == 0 || *path.p != *pattern)
            return false;
        path.p++;
        path.n--;
        pattern++;
    }
    return path.n == 0;
}

const struct api_route *route_find(const struct api_route *table, struct str method, struct str path,
                                   struct str params[ROUTE_PARAMS_MAX])
{
    for (const struct api_route *t = table; t->pattern; t++) {
        bool fits = str_is(method, t->method) || (str_is(method, "HEAD") && strcmp(t->method, "GET") == 0);
        if (fits && route_match(t->pattern, path, params))
            return t;
    }
    return NULL;
}
