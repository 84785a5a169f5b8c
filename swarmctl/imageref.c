#include "swarmctl/imageref.h"

#include <ctype.h>

/* The part before the first slash names a registry if it can't be a path of Docker Hub. */
static size_t registry_len(struct str s)
{
    const char *slash = memchr(s.p, '/', s.n);
    if (!slash)
        return 0;
    size_t n = (size_t)(slash - s.p);
    bool upper = false;
    for (size_t i = 0; i < n; i++)
        upper = upper || isupper((unsigned char)s.p[i]);
    bool host = memchr(s.p, '.', n) || memchr(s.p, ':', n) || upper || (n == 9 && memcmp(s.p, "localhost", 9) == 0);
    return host ? n : 0;
}

static bool name_ok(struct str path)
{
    if (path.n == 0 || path.n > 255 || !isalnum((unsigned char)path.p[0]) ||
        !isalnum((unsigned char)path.p[path.n - 1]))
        return false;
    for (size_t i = 0; i < path.n; i++) {
        unsigned char c = (unsigned char)path.p[i];
        if (!(islower(c) || isdigit(c) || strchr("._-/", c)) || (c == '/' && path.p[i - 1] == '/'))
            return false;
    }
    return true;
}

static bool tag_ok(struct str t)
{
    if (t.n == 0 || t.n > 128 || !(isalnum((unsigned char)t.p[0]) || t.p[0] == '_'))
        return false;
    for (size_t i = 0; i < t.n; i++)
        if (!isalnum((unsigned char)t.p[i]) && !strchr("_.-", t.p[i]))
            return false;
    return true;
}

static bool is_id(struct str s)
{
    size_t i = 0;
    while (i < s.n && (isdigit((unsigned char)s.p[i]) || (s.p[i] >= 'a' && s.p[i] <= 'f')))
        i++;
    return i == s.n && i == 64;
}

static struct str cut(struct str s, size_t n)
{
    return (struct str){ s.p + n, s.n - n };
}

bool imageref_parse(const char *text, struct imageref *ret)
{
    struct str s = str_from(text);
    struct imageref r = { .tag = { NULL, 0 } };
    const char *at = memchr(s.p, '@', s.n);

    if (is_id(s))
        return false;
    if (at) {
        r.digest = cut(s, (size_t)(at - s.p) + 1);
        s.n = (size_t)(at - s.p);
        if (!memchr(r.digest.p, ':', r.digest.n))
            return false;
    }
    size_t host = registry_len(s), from = host ? host + 1 : 0;
    const char *colon = memchr(s.p + from, ':', s.n - from);
    if (colon) {
        r.tag = cut(s, (size_t)(colon - s.p) + 1);
        s.n = (size_t)(colon - s.p);
        if (!tag_ok(r.tag))
            return false;
    }
    if (!name_ok(cut(s, from)))
        return false;
    bool hub =
        (host == 9 && memcmp(s.p, "docker.io", 9) == 0) || (host == 15 && memcmp(s.p, "index.docker.io", 15) == 0);
    if (hub)
        s = cut(s, from);
    if ((hub || host == 0) && str_starts(s, STR("library/")) && !memchr(s.p + 8, '/', s.n - 8))
        s = cut(s, 8);
    r.name = s;
    *ret = r;
    return true;
}

void imageref_shown(struct buf *b, const char *text)
{
    struct imageref r;

    if (imageref_parse(text, &r) && r.tag.n > 0)
        buf_printf(b, STR_FMT ":" STR_FMT, STR_ARG(r.name), STR_ARG(r.tag));
    else
        buf_puts(b, text);
}

void imageref_tagged(struct buf *b, const char *text)
{
    struct imageref r;

    if (!imageref_parse(text, &r)) {
        buf_puts(b, text);
        return;
    }
    buf_put(b, r.name.p, r.name.n);
    if (r.tag.n > 0)
        buf_printf(b, ":" STR_FMT, STR_ARG(r.tag));
    else if (r.digest.n == 0)
        buf_puts(b, ":latest");
    if (r.digest.n > 0)
        buf_printf(b, "@" STR_FMT, STR_ARG(r.digest));
}

void imageref_registry(struct buf *b, const char *text)
{
    size_t n = registry_len(str_from(text));

    if (n > 0)
        buf_put(b, text, n);
    else
        buf_puts(b, "docker.io");
}
