/* Requests as commands make them. */
#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>

#include "swarmctl/cli.h"
#include "swarmctl/jpath.h"

static struct http *connection(struct cli *c)
{
    struct http **h = c->streaming ? &c->side : &c->http;

    if (!*h)
        *h = http_open(c->socket, c->debug ? c->err : NULL);
    return *h;
}

/* The words of a refusal: {"message":"..."}, or whatever text there is. */
static void explain(struct cli *c, const struct http_request *rq, const struct http_reply *reply)
{
    json_t *j = json_loadb(reply->body.p ? reply->body.p : "", reply->body.n, 0, NULL);
    const char *message = jstr(j, "message");

    buf_clear(&c->why);
    size_t n = strlen(message);
    while (n > 0 && isspace((unsigned char)message[n - 1]))
        n--;
    if (n > 0) {
        buf_printf(&c->why, "Error response from daemon: %.*s", (int)n, message);
    } else if (reply->body.p && reply->body.n > 0) {
        struct str s = buf_str(&reply->body);
        while (s.n > 0 && isspace((unsigned char)s.p[s.n - 1]))
            s.n--;
        buf_printf(&c->why, "Error response from daemon: " STR_FMT, STR_ARG(s));
    } else {
        buf_printf(&c->why,
                   "request returned %ld for API route %s, check if the server supports the requested API version",
                   reply->status, rq->path);
    }
    json_decref(j);
}

static int perform(struct cli *c, const struct http_request *rq, struct http_reply *reply)
{
    struct http *h = connection(c);
    struct err e = ERR_INIT;

    c->status = 0;
    if (!h || http_do(h, rq, reply, &e) < 0) {
        buf_clear(&c->why);
        buf_puts(&c->why, h ? e.msg : "libcurl can't be set up");
        return 1;
    }
    c->status = reply->status;
    if (reply->api_version[0])
        str_copy(c->api_version, sizeof c->api_version, str_from(reply->api_version));
    if (reply->status < 400)
        return 0;
    explain(c, rq, reply);
    return 1;
}

int api_raw(struct cli *c, const char *method, const char *path, const json_t *body, const char *const *headers,
            struct buf *ret)
{
    struct http_reply reply = { 0 };
    struct buf text = BUF_INIT;
    struct http_request rq = { .method = method, .path = path, .headers = headers, .body_fd = -1 };

    if (body) {
        jdump(&text, body);
        rq.body = buf_cstr(&text);
        rq.body_len = text.n;
        rq.content_type = "application/json";
    }
    int r = perform(c, &rq, &reply);
    buf_done(&text);
    if (r == 0 && ret) {
        *ret = reply.body;
        return 0;
    }
    http_reply_done(&reply);
    return r;
}

int api_call(struct cli *c, const char *method, const char *path, const json_t *body, json_t **ret)
{
    struct buf text = BUF_INIT;
    json_error_t je;
    int r = api_raw(c, method, path, body, NULL, &text);

    if (ret)
        *ret = NULL;
    if (r == 0 && ret && text.n > 0) {
        *ret = json_loadb(text.p, text.n, JSON_DECODE_ANY, &je);
        if (!*ret) {
            buf_clear(&c->why);
            buf_printf(&c->why, "invalid reply from daemon: %s %s: %s", method, path, je.text);
            r = 1;
        }
    }
    buf_done(&text);
    return r;
}

int api_get(struct cli *c, json_t **ret, const char *fmt, ...)
{
    char *path = NULL;
    va_list ap;

    va_start(ap, fmt);
    int n = vasprintf(&path, fmt, ap);
    va_end(ap);
    if (n < 0)
        return 1;
    int r = api_call(c, "GET", path, NULL, ret);
    free(path);
    if (r == 0 && !*ret) {
        buf_clear(&c->why);
        buf_puts(&c->why, "empty reply from daemon");
        return 1;
    }
    return r;
}

int api_stream(struct cli *c, const char *method, const char *path, int body_fd, const char *content_type,
               const char *const *headers, bool (*on_data)(const char *p, size_t n, void *arg), void *arg)
{
    struct http_reply reply = { 0 };
    struct http_request rq = { .method = method,
                               .path = path,
                               .body_fd = body_fd,
                               .content_type = content_type,
                               .headers = headers,
                               .on_data = on_data,
                               .arg = arg };
    struct http *h = connection(c);
    struct err e = ERR_INIT;
    int r = 0;

    c->streaming = true; /* lookups from on_data go over a connection of their own */
    c->status = 0;
    if (!h || http_do(h, &rq, &reply, &e) < 0) {
        buf_clear(&c->why);
        buf_puts(&c->why, h ? e.msg : "libcurl can't be set up");
        r = 1;
    } else if (reply.status >= 400) {
        explain(c, &rq, &reply);
        r = 1;
    }
    c->status = reply.status;
    c->streaming = false;
    http_reply_done(&reply);
    return r;
}

bool api_at_least(struct cli *c, unsigned minor)
{
    uint64_t have;

    if (!c->api_version[0])
        api_raw(c, "HEAD", "/_ping", NULL, NULL, NULL);
    if (strncmp(c->api_version, "1.", 2) != 0 || !str_u64(str_from(c->api_version + 2), &have))
        return true; /* unknown: let the daemon say what it doesn't know */
    return have >= minor;
}

static void percent(struct buf *b, const char *text, const char *also)
{
    for (; *text; text++) {
        unsigned char ch = (unsigned char)*text;
        if (isalnum(ch) || strchr("-_.~", ch) || strchr(also, ch))
            buf_putc(b, (char)ch);
        else
            buf_printf(b, "%%%02X", ch);
    }
}

void url_path(struct buf *b, const char *name)
{
    percent(b, name, "/:@$&+,;=");
}

void url_query(struct buf *b, const char *key, const char *value)
{
    buf_printf(b, "%c%s=", memchr(b->p, '?', b->n) ? '&' : '?', key);
    percent(b, value, "");
}

void filter_add(json_t *filters, const char *key, const char *value)
{
    json_t *set = json_object_get(filters, key);

    if (!set) {
        set = json_object();
        json_object_set_new(filters, key, set);
    }
    json_object_set_new(set, value, json_true());
}

json_t *filters_of(const struct flagset *fs, const char *flag)
{
    json_t *filters = json_object(), *f;
    size_t i;

    for_each (flag_json(fs, flag), i, f)
        filter_add(filters, jstr(f, "key"), jstr(f, "value"));
    return filters;
}

void url_filters(struct buf *b, json_t *filters)
{
    if (json_object_size(filters) > 0) {
        struct buf text = BUF_INIT;
        jdump(&text, filters);
        url_query(b, "filters", buf_cstr(&text));
        buf_done(&text);
    }
    json_decref(filters);
}
