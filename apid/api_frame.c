#include "apid/api_frame.h"

#include <ctype.h>
#include <regex.h>

#include "common/proto/mp.h"
#include "common/util/clock.h"

void query_escape(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (isalnum(c) || c == '-' || c == '_' || c == '.' || c == '~')
            buf_putc(out, (char)c);
        else if (c == ' ')
            buf_putc(out, '+');
        else
            buf_printf(out, "%%%02X", c);
    }
}

/* ---- details ---- */

#define ATTRS_MAX 256

struct attrs {
    struct {
        struct str key, val;
    } v[ATTRS_MAX];
    size_t n;
};

static void add(struct attrs *a, struct str key, struct str val)
{
    for (size_t i = 0; i < a->n; i++)
        if (str_eq(a->v[i].key, key)) {
            a->v[i].val = val;
            return;
        }
    if (a->n < ATTRS_MAX) {
        a->v[a->n].key = key;
        a->v[a->n++].val = val;
    }
}

/* Which of a container's labels or variables a driver's option names: "a,b", or a regular expression. */
struct chosen {
    struct str names;
    regex_t regex;
    bool by_regex;
};

static void chosen_init(struct chosen *c, struct str options, const char *names, const char *regex)
{
    char text[256];
    struct str pattern = { NULL, 0 };

    *c = (struct chosen){ .by_regex = false };
    (void)mp_get_str(options, names, &c->names);
    if (mp_get_str(options, regex, &pattern) && pattern.n > 0 && str_copy(text, sizeof text, pattern))
        c->by_regex = regcomp(&c->regex, text, REG_EXTENDED | REG_NOSUB) == 0;
}

static void chosen_done(struct chosen *c)
{
    if (c->by_regex)
        regfree(&c->regex);
}

static bool is_chosen(const struct chosen *c, struct str key)
{
    char text[256];

    for (const char *p = c->names.p, *end = p + c->names.n; p && p < end;) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        struct str name = { p, (size_t)((comma ? comma : end) - p) };
        if (name.n > 0 && str_eq(name, key))
            return true;
        p = comma ? comma + 1 : end;
    }
    return c->by_regex && str_copy(text, sizeof text, key) && regexec(&c->regex, text, 0, NULL, 0) == 0;
}

static void add_labels(struct attrs *a, const struct chosen *c, struct str labels)
{
    struct mp_cursor cur = mp_cursor(labels);
    struct mp_val head, key, val;

    if (labels.n == 0 || mp_next(&cur, &head) < 0 || head.type != MP_MAP)
        return;
    for (size_t i = 0; i < head.n; i++) {
        if (mp_next(&cur, &key) < 0 || mp_next(&cur, &val) < 0 || key.type != MP_STR || val.type != MP_STR)
            return;
        if (is_chosen(c, key.s))
            add(a, key.s, val.s);
    }
}

static void add_env(struct attrs *a, const struct chosen *c, struct str env)
{
    struct mp_cursor cur = mp_cursor(env);
    struct mp_val head, v;

    if (env.n == 0 || mp_next(&cur, &head) < 0 || head.type != MP_ARRAY)
        return;
    for (size_t i = 0; i < head.n && mp_next(&cur, &v) == 0 && v.type == MP_STR; i++) {
        const char *eq = memchr(v.s.p, '=', v.s.n);
        struct str key = { v.s.p, eq ? (size_t)(eq - v.s.p) : 0 };
        if (eq && is_chosen(c, key))
            add(a, key, (struct str){ eq + 1, v.s.n - key.n - 1 });
    }
}

static void add_driver(struct attrs *a, struct str spec)
{
    struct str options = { NULL, 0 }, labels = { NULL, 0 }, env = { NULL, 0 }, tag = { NULL, 0 };
    struct chosen c;

    if (!mp_path(spec, "LogDriver.Options", &options))
        return;
    (void)mp_path(spec, "ContainerSpec.Labels", &labels);
    (void)mp_path(spec, "ContainerSpec.Env", &env);
    chosen_init(&c, options, "labels", "labels-regex");
    add_labels(a, &c, labels);
    chosen_done(&c);
    chosen_init(&c, options, "env", "env-regex");
    add_env(a, &c, env);
    chosen_done(&c);
    if (mp_get_str(options, "tag", &tag) && tag.n > 0 && !memchr(tag.p, '{', tag.n))
        add(a, STR("tag"), tag);
}

void log_details(struct buf *out, struct str spec, struct str node_id, struct str service_id, struct str task_id)
{
    struct attrs a;
    size_t from = out->n;

    a.n = 0;
    add_driver(&a, spec);
    add(&a, STR("com.docker.swarm.node.id"), node_id);
    add(&a, STR("com.docker.swarm.service.id"), service_id);
    add(&a, STR("com.docker.swarm.task.id"), task_id);
    for (size_t k = 0; k < a.n; k++) { /* few: the smallest that is left comes next */
        size_t min = k;
        for (size_t i = k + 1; i < a.n; i++)
            if (str_cmp(a.v[i].key, a.v[min].key) < 0)
                min = i;
        buf_puts(out, out->n > from ? "," : "");
        query_escape(out, a.v[min].key);
        buf_putc(out, '=');
        query_escape(out, a.v[min].val);
        a.v[min] = a.v[k];
    }
}

/* The engine prints all nine digits here, so that lines stay aligned. */
static void put_time(struct buf *out, int64_t ns)
{
    char text[WALL_TEXT_MAX];
    struct wall_ns whole = { ns - ns % 1000000000 };

    wall_format(whole, text);
    text[strcspn(text, ".Z")] = '\0';
    buf_printf(out, "%s.%09dZ ", text, (int)(ns % 1000000000));
}

void log_frame_put(struct buf *out, const struct log_style *style, const struct log_line *l)
{
    static const char zero[8] = { 0 };
    size_t start = out->n;

    if (!style->tty)
        buf_put(out, zero, sizeof zero);
    if (style->timestamps)
        put_time(out, l->time_ns);
    if (style->details) {
        buf_put(out, l->details.p, l->details.n);
        buf_putc(out, ' ');
    }
    if (l->data.n > 0)
        buf_put(out, l->data.p, l->data.n);
    if (style->tty || out->failed)
        return;
    size_t len = out->n - start - 8;
    unsigned char head[8] = { (unsigned char)l->stream,
                              0,
                              0,
                              0,
                              (unsigned char)(len >> 24),
                              (unsigned char)(len >> 16),
                              (unsigned char)(len >> 8),
                              (unsigned char)len };
    memcpy(out->p + start, head, sizeof head);
}
