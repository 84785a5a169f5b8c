/* image_ref.c - see image_ref.h. The grammar is Docker's (distribution/reference), written as a scanner. */
#include "agentd/image_ref.h"

#include <ctype.h>
#include <stdio.h>

static bool is_hex(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'f')))
            return false;
    return s.n > 0;
}

static bool lower_num(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* path components: [a-z0-9]+ joined by one '.', one or two '_', or any number of '-' */
static bool path_ok(const char *p, size_t n)
{
    size_t i = 0;
    if (n == 0)
        return false;
    for (;;) {
        if (i >= n || !lower_num(p[i]))
            return false;
        while (i < n && lower_num(p[i]))
            i++;
        if (i == n)
            return true;
        if (p[i] == '/' || p[i] == '.') {
            i++;
        } else if (p[i] == '_') {
            i++;
            if (i < n && p[i] == '_')
                i++;
        } else if (p[i] == '-') {
            while (i < n && p[i] == '-')
                i++;
        } else {
            return false;
        }
    }
}

static bool tag_ok(struct str s)
{
    if (s.n == 0 || s.n > 128)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        bool first = isalnum(c) || c == '_';
        if (!first && (i == 0 || (c != '.' && c != '-')))
            return false;
    }
    return true;
}

static bool domain_ok(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (!isalnum(c) && c != '.' && c != '-' && c != ':' && c != '[' && c != ']')
            return false;
    }
    return s.n > 0;
}

static bool looks_like_domain(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == '.' || s.p[i] == ':' || (s.p[i] >= 'A' && s.p[i] <= 'Z'))
            return true;
    return str_is(s, "localhost");
}

static bool digest_ok(struct str d)
{
    struct str pre = STR("sha256:");
    return d.n == 71 && str_starts(d, pre) && is_hex((struct str){ d.p + 7, 64 });
}

static int bad(struct err *e)
{
    return err_set(e, ERR_INVALID, "invalid reference format");
}

/* splits the digest and the tag off *s */
static int split_suffixes(struct str *s, struct image_ref *r, struct err *e)
{
    const char *at = s->n ? memchr(s->p, '@', s->n) : NULL;
    if (at) {
        struct str d = { at + 1, (size_t)(s->p + s->n - at - 1) };
        if (!digest_ok(d) || !str_copy(r->digest, sizeof r->digest, d))
            return bad(e);
        s->n = (size_t)(at - s->p);
    }
    for (size_t i = s->n; i > 0 && s->p[i - 1] != '/'; i--) {
        if (s->p[i - 1] != ':')
            continue;
        struct str t = { s->p + i, s->n - i };
        if (!tag_ok(t) || !str_copy(r->tag, sizeof r->tag, t))
            return bad(e);
        s->n = i - 1;
        break;
    }
    if (r->tag[0] == '\0' && r->digest[0] == '\0')
        snprintf(r->tag, sizeof r->tag, "latest");
    return 0;
}

int image_ref_parse(struct str text, struct image_ref *ret, struct err *e)
{
    struct image_ref r = { 0 };
    struct str hex, s = text;
    if (text.n == 0 || text.n >= IMAGE_REF_MAX || (image_ref_is_id(text, &hex) && hex.n == 64))
        return bad(e);
    int rc = split_suffixes(&s, &r, e);
    if (rc < 0)
        return rc;
    const char *slash = s.n ? memchr(s.p, '/', s.n) : NULL;
    struct str dom = { s.p, slash ? (size_t)(slash - s.p) : 0 };
    struct str path = s;
    if (slash && looks_like_domain(dom)) {
        path = (struct str){ slash + 1, (size_t)(s.p + s.n - slash - 1) };
        if (str_is(dom, "index.docker.io"))
            dom = STR("docker.io");
    } else {
        dom = STR("docker.io");
    }
    if (!domain_ok(dom) || !path_ok(path.p, path.n) || !str_copy(r.domain, sizeof r.domain, dom))
        return bad(e);
    bool official = str_is(dom, "docker.io") && !memchr(path.p, '/', path.n);
    if (path.n + 10 > sizeof r.path)
        return bad(e);
    snprintf(r.path, sizeof r.path, "%s" STR_FMT, official ? "library/" : "", STR_ARG(path));
    *ret = r;
    return 0;
}

void image_ref_familiar(const struct image_ref *r, char out[IMAGE_REF_MAX])
{
    if (strcmp(r->domain, "docker.io") != 0)
        snprintf(out, IMAGE_REF_MAX, "%s/%s", r->domain, r->path);
    else if (strncmp(r->path, "library/", 8) == 0 && !strchr(r->path + 8, '/'))
        snprintf(out, IMAGE_REF_MAX, "%s", r->path + 8);
    else if (looks_like_domain((struct str){ r->path, strcspn(r->path, "/") })) /* would be read as a registry */
        snprintf(out, IMAGE_REF_MAX, "docker.io/%s", r->path);
    else
        snprintf(out, IMAGE_REF_MAX, "%s", r->path);
}

void image_ref_familiar_tag(const struct image_ref *r, char out[IMAGE_REF_MAX + 130])
{
    char name[IMAGE_REF_MAX];
    image_ref_familiar(r, name);
    snprintf(out, IMAGE_REF_MAX + 130, "%s:%s", name, r->tag);
}

void image_ref_familiar_digest(const struct image_ref *r, const char *digest, char out[IMAGE_REF_MAX + 130])
{
    char name[IMAGE_REF_MAX];
    image_ref_familiar(r, name);
    snprintf(out, IMAGE_REF_MAX + 130, "%s@%s", name, digest);
}

bool image_ref_is_id(struct str text, struct str *ret_hex)
{
    struct str hex = text;
    if (str_starts(hex, STR("sha256:")))
        hex = (struct str){ hex.p + 7, hex.n - 7 };
    if (hex.n < 4 || hex.n > 64 || !is_hex(hex))
        return false;
    *ret_hex = hex;
    return true;
}

bool image_ref_loopback(const struct image_ref *r)
{
    return strncmp(r->domain, "127.", 4) == 0 || strcmp(r->domain, "localhost") == 0 ||
           strncmp(r->domain, "localhost:", 10) == 0 || strncmp(r->domain, "[::1]", 5) == 0;
}
