#include "apid/api_ref.h"

#include <ctype.h>
#include <jansson.h>

#define NAME_MAX_BYTES 255u

static bool is_lower_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

/* component := [a-z0-9]+ (sep [a-z0-9]+)*, sep := "." | "_" | "__" | "-"+ */
static bool path_component(const char *p, size_t n)
{
    size_t i = 0;

    if (n == 0)
        return false;
    while (i < n) {
        if (!is_lower_alnum(p[i]))
            return false;
        while (i < n && is_lower_alnum(p[i]))
            i++;
        if (i == n)
            return true;
        if (p[i] == '.') {
            i++;
        } else if (p[i] == '_') {
            i += i + 1 < n && p[i + 1] == '_' ? 2 : 1;
        } else if (p[i] == '-') {
            while (i < n && p[i] == '-')
                i++;
        } else {
            return false;
        }
    }
    return false; /* ended in a separator */
}

/* The part before the first '/' names a registry when it has a dot, a port, an upper-case letter, or is "localhost". */
static bool looks_like_host(struct str s)
{
    if (str_is(s, "localhost"))
        return true;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == '.' || s.p[i] == ':' || (s.p[i] >= 'A' && s.p[i] <= 'Z'))
            return true;
    return false;
}

static bool valid_host(struct str s)
{
    const char *colon = s.n > 0 && s.p[0] == '[' ? memchr(s.p, ']', s.n) : s.p;
    size_t host;

    if (!colon)
        return false;
    colon = memchr(colon, ':', s.n - (size_t)(colon - s.p));
    host = colon ? (size_t)(colon - s.p) : s.n;
    if (host == 0)
        return false;
    for (size_t i = 0; i < host; i++)
        if (!isalnum((unsigned char)s.p[i]) && (!s.p[i] || !strchr("-.[]:", s.p[i])))
            return false;
    for (size_t i = host + 1; colon && i < s.n; i++)
        if (!isdigit((unsigned char)s.p[i]))
            return false;
    return !colon || host + 1 < s.n;
}

static bool valid_tag(struct str t)
{
    if (t.n == 0 || t.n > 128 || !is_word(t.p[0]))
        return false;
    for (size_t i = 1; i < t.n; i++)
        if (!is_word(t.p[i]) && t.p[i] != '.' && t.p[i] != '-')
            return false;
    return true;
}

static bool valid_digest(struct str d)
{
    const char *colon = memchr(d.p, ':', d.n);
    size_t hex = colon ? d.n - (size_t)(colon + 1 - d.p) : 0;

    if (!colon || colon == d.p || hex < 32)
        return false;
    for (const char *c = d.p; c < colon; c++)
        if (!isalnum((unsigned char)*c) && (!*c || !strchr("-_+.", *c)))
            return false;
    for (size_t i = 0; i < hex; i++)
        if (!isxdigit((unsigned char)colon[1 + i]))
            return false;
    return !str_starts(d, STR("sha256:")) || hex == 64;
}

static int check_name(struct str name, struct err *e)
{
    const char *slash = memchr(name.p, '/', name.n);
    struct str host = { name.p, slash ? (size_t)(slash - name.p) : 0 };
    struct str path = name;
    bool upper = false;

    if (slash && looks_like_host(host)) {
        if (!valid_host(host))
            return err_set(e, ERR_INVALID, "invalid reference format");
        path = (struct str){ slash + 1, name.n - host.n - 1 };
    }
    for (size_t i = 0; i < path.n; i++)
        upper |= path.p[i] >= 'A' && path.p[i] <= 'Z';
    if (upper)
        return err_set(e, ERR_INVALID, "invalid reference format: repository name (" STR_FMT ") must be lowercase",
                       STR_ARG(path));
    for (size_t i = 0, start = 0; i <= path.n; i++) {
        if (i < path.n && path.p[i] != '/')
            continue;
        if (!path_component(path.p + start, i - start))
            return err_set(e, ERR_INVALID, "invalid reference format");
        start = i + 1;
    }
    return 0;
}

int image_ref_parse(struct str text, struct image_ref *ret, struct err *e)
{
    struct image_ref r = { .name = text };
    const char *at = text.n > 0 ? memchr(text.p, '@', text.n) : NULL;

    if (at) {
        r.name.n = (size_t)(at - text.p);
        r.digest = (struct str){ at + 1, text.n - r.name.n - 1 };
        if (!valid_digest(r.digest))
            return err_set(e, ERR_INVALID, "invalid reference format");
    }
    for (size_t i = r.name.n; i-- > 0 && r.name.p[i] != '/';) {
        if (r.name.p[i] != ':')
            continue;
        r.tag = (struct str){ r.name.p + i + 1, r.name.n - i - 1 };
        r.name.n = i;
        break;
    }
    if (r.name.n == 0 || r.name.n > NAME_MAX_BYTES)
        return err_set(e, ERR_INVALID, "invalid reference format");
    int rc = check_name(r.name, e);
    if (rc < 0)
        return rc;
    if (r.tag.p && !valid_tag(r.tag))
        return err_set(e, ERR_INVALID, "invalid reference format");
    *ret = r;
    return 0;
}

static struct str strip_default_host(struct str name)
{
    static const char *const hosts[] = { "docker.io/", "index.docker.io/", NULL };

    for (size_t i = 0; hosts[i]; i++)
        if (str_starts(name, str_from(hosts[i]))) {
            size_t n = strlen(hosts[i]);
            struct str rest = { name.p + n, name.n - n };
            const char *slash = memchr(rest.p, '/', rest.n);
            /* "docker.io/a.b/c" without its host would name the registry a.b. */
            bool ambiguous = slash && looks_like_host((struct str){ rest.p, (size_t)(slash - rest.p) });
            return ambiguous ? name : rest;
        }
    return name;
}

char *image_ref_familiar(const struct image_ref *r, struct arena *a)
{
    struct str name = strip_default_host(r->name);

    if (name.n != r->name.n && str_starts(name, STR("library/"))) {
        name.p += 8;
        name.n -= 8;
    }
    if (r->digest.n > 0)
        return arena_printf(a, STR_FMT "@" STR_FMT, STR_ARG(name), STR_ARG(r->digest));
    return arena_printf(a, STR_FMT ":" STR_FMT, STR_ARG(name), STR_ARG(r->tag.n > 0 ? r->tag : STR("latest")));
}

char *image_ref_path(const struct image_ref *r, struct arena *a)
{
    struct str name = strip_default_host(r->name);
    const char *slash = memchr(name.p, '/', name.n);

    if (slash && looks_like_host((struct str){ name.p, (size_t)(slash - name.p) })) {
        size_t skip = (size_t)(slash + 1 - name.p);
        return arena_printf(a, "%.*s", (int)(name.n - skip), slash + 1);
    }
    return arena_printf(a, "%s" STR_FMT, slash ? "" : "library/", STR_ARG(name));
}

static int b64_digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '-' || c == '+')
        return 62;
    if (c == '_' || c == '/')
        return 63;
    return -1;
}

static int b64_decode(struct str in, struct arena *a, struct str *ret, struct err *e)
{
    char *out = arena_alloc(a, in.n / 4 * 3 + 4);
    uint32_t bits = 0;
    unsigned have = 0;
    size_t n = 0;

    if (!out)
        return err_set(e, ERR_NOMEM, "X-Registry-Auth is too large");
    while (in.n > 0 && in.p[in.n - 1] == '=')
        in.n--;
    for (size_t i = 0; i < in.n; i++) {
        int d = b64_digit(in.p[i]);
        if (d < 0)
            return err_set(e, ERR_INVALID, "invalid X-Registry-Auth header: illegal base64 data at input byte %zu", i);
        bits = bits << 6 | (uint32_t)d;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[n++] = (char)(bits >> have);
        }
    }
    out[n] = '\0';
    *ret = (struct str){ out, n };
    return 0;
}

/* Credentials are there when any text field but the server's address is not empty. */
static bool has_credentials(json_t *o)
{
    static const char *const keys[] = { "username", "password", "auth", "identitytoken", "registrytoken", NULL };

    for (size_t i = 0; keys[i]; i++)
        if (json_string_length(json_object_get(o, keys[i])) > 0)
            return true;
    return false;
}

int auth_decode(struct str header, struct arena *a, struct str *ret_json, struct err *e)
{
    struct str text = { NULL, 0 };
    json_error_t je;
    int r;

    *ret_json = (struct str){ NULL, 0 };
    if (header.n == 0)
        return 0;
    if ((r = b64_decode(header, a, &text, e)) < 0)
        return r;
    if (text.n == 0)
        return 0;
    json_t *o = json_loadb(text.p, text.n, 0, &je);
    bool creds = json_is_object(o) && has_credentials(o);
    bool object = json_is_object(o);
    json_decref(o);
    if (!object)
        return err_set(e, ERR_INVALID, "invalid X-Registry-Auth header: must be a JSON object");
    if (creds)
        *ret_json = text;
    return 0;
}
