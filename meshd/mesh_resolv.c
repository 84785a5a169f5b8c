#include "meshd/mesh_resolv.h"

#include <arpa/inet.h>

#define ADDR_SIZE 64

/* take_line - cuts the next line off *text; false at the end. */
static bool take_line(struct str *text, struct str *ret)
{
    if (text->n == 0)
        return false;
    const char *nl = memchr(text->p, '\n', text->n);
    size_t n = nl ? (size_t)(nl - text->p) : text->n;
    *ret = (struct str){ text->p, n };
    n += nl ? 1 : 0;
    text->p += n;
    text->n -= n;
    return true;
}

static bool blank(char ch)
{
    return ch == ' ' || ch == '\t' || ch == '\r';
}

static bool take_word(struct str *line, struct str *ret)
{
    while (line->n && blank(line->p[0]))
        line->p++, line->n--;
    if (line->n == 0)
        return false;
    size_t n = 0;
    while (n < line->n && !blank(line->p[n]))
        n++;
    *ret = (struct str){ line->p, n };
    line->p += n;
    line->n -= n;
    return true;
}

static bool parse4(struct str s, uint32_t *ret)
{
    char text[ADDR_SIZE];
    struct in_addr a;
    if (!str_copy(text, sizeof text, s) || inet_pton(AF_INET, text, &a) != 1)
        return false;
    *ret = ntohl(a.s_addr);
    return true;
}

static bool parse6(struct str s)
{
    char text[ADDR_SIZE];
    struct in6_addr a;
    if (!str_copy(text, sizeof text, s))
        return false;
    text[strcspn(text, "%")] = '\0';
    return inet_pton(AF_INET6, text, &a) == 1;
}

static bool reachable(struct str server, bool own_net)
{
    uint32_t a;
    return !own_net || (parse4(server, &a) && a >> 24 != 127);
}

static void put_words(struct buf *out, const char *key, const struct strs *v)
{
    buf_puts(out, key);
    for (size_t i = 0; i < v->n; i++) {
        buf_putc(out, ' ');
        buf_put(out, v->v[i].p, v->v[i].n);
    }
    buf_putc(out, '\n');
}

static void put_server(struct buf *out, struct str s, size_t *count)
{
    buf_puts(out, "nameserver ");
    buf_put(out, s.p, s.n);
    buf_putc(out, '\n');
    ++*count;
}

static void put_own(const struct mesh_resolv *r, struct buf *out, size_t *servers)
{
    if (r->search.n && !(r->search.n == 1 && str_is(r->search.v[0], ".")))
        put_words(out, "search", &r->search);
    for (size_t i = 0; i < r->nameservers.n; i++)
        put_server(out, r->nameservers.v[i], servers);
    if (r->options.n)
        put_words(out, "options", &r->options);
}

/* put_host_line - one line of the host's, unless the task replaces it. */
static void put_host_line(const struct mesh_resolv *r, struct str line, struct buf *out, size_t *servers)
{
    struct str rest = line, key, server;
    if (!take_word(&rest, &key) || key.p[0] == '#' || key.p[0] == ';')
        return;
    if (str_is(key, "nameserver")) {
        if (r->nameservers.n == 0 && take_word(&rest, &server) && reachable(server, r->own_net))
            put_server(out, server, servers);
        return;
    }
    bool search = str_is(key, "search") || str_is(key, "domain");
    if ((search && r->search.n) || (str_is(key, "options") && r->options.n))
        return;
    buf_put(out, line.p, line.n);
    buf_putc(out, '\n');
}

void mesh_resolv_text(const struct mesh_resolv *r, struct buf *out)
{
    struct str text = r->host, fallback = r->fallback, line;
    size_t servers = 0;
    put_own(r, out, &servers);
    while (take_line(&text, &line))
        put_host_line(r, line, out, &servers);
    if (servers == 0 && r->own_net)
        while (take_word(&fallback, &line))
            put_server(out, line, &servers);
}

static int check_words(const struct strs *v, const char *name, struct err *e)
{
    for (size_t i = 0; i < v->n; i++) {
        bool ok = v->v[i].n > 0;
        for (size_t j = 0; ok && j < v->v[i].n; j++)
            ok = (unsigned char)v->v[i].p[j] > ' ' && v->v[i].p[j] != 127;
        if (!ok)
            return err_set(e, ERR_INVALID, "DNSConfig.%s[%zu]: must be one word", name, i);
    }
    return 0;
}

int mesh_resolv_check(const struct mesh_resolv *r, struct err *e)
{
    uint32_t a;
    for (size_t i = 0; i < r->nameservers.n; i++)
        if (!parse4(r->nameservers.v[i], &a) && !parse6(r->nameservers.v[i]))
            return err_set(e, ERR_INVALID, "DNSConfig.Nameservers[%zu]: must be an IP address", i);
    int rc = check_words(&r->search, "Search", e);
    return rc < 0 ? rc : check_words(&r->options, "Options", e);
}

size_t mesh_resolv_words(struct str line, struct str *ret, size_t cap)
{
    size_t n = 0;
    while (n < cap && take_word(&line, &ret[n]))
        n++;
    return n;
}

size_t mesh_resolv_servers(struct str text, struct str *ret, size_t cap)
{
    struct str line, key;
    size_t n = 0;
    while (n < cap && take_line(&text, &line))
        if (take_word(&line, &key) && str_is(key, "nameserver"))
            n += mesh_resolv_words(line, &ret[n], 1);
    return n;
}

bool mesh_resolv_only_stub(struct str host)
{
    struct str line, key, server;
    bool stub = false;
    while (take_line(&host, &line)) {
        if (!take_word(&line, &key) || !str_is(key, "nameserver") || !take_word(&line, &server))
            continue;
        if (!str_is(server, "127.0.0.53"))
            return false;
        stub = true;
    }
    return stub;
}
