/* oci_tmpl.c - see oci_tmpl.h. */
#include "agentd/oci_tmpl.h"

#include "common/util/cleanup.h"

static struct str trim(struct str s)
{
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
        s = (struct str){ s.p + 1, s.n - 1 };
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

static bool field(const struct tmpl_ctx *c, struct str path, struct str *ret)
{
    const struct {
        const char *name;
        struct str v;
    } t[] = {
        { ".Service.ID", c->service_id },
        { ".Service.Name", c->service_name },
        { ".Node.ID", c->node_id },
        { ".Node.Hostname", c->node_hostname },
        { ".Node.Platform.Architecture", c->node_arch },
        { ".Node.Platform.OS", c->node_os },
        { ".Task.ID", c->task_id },
        { ".Task.Name", c->task_name },
        { ".Task.Slot", c->task_slot },
    };
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        if (str_is(path, t[i].name)) {
            *ret = t[i].v;
            return true;
        }
    }
    struct str labels = STR(".Service.Labels.");
    if (!str_starts(path, labels))
        return false;
    struct str key = { path.p + labels.n, path.n - labels.n };
    *ret = (struct str){ "<no value>", 10 };
    for (size_t i = 0; i < c->service_labels.n; i++)
        if (str_eq(c->service_labels.v[i].key, key))
            *ret = c->service_labels.v[i].val;
    return true;
}

static bool quoted(struct str s, struct str *ret)
{
    if (s.n < 2 || (s.p[0] != '"' && s.p[0] != '`') || s.p[s.n - 1] != s.p[0])
        return false;
    struct str in = { s.p + 1, s.n - 2 };
    if (in.n && (memchr(in.p, s.p[0], in.n) || (s.p[0] == '"' && memchr(in.p, '\\', in.n))))
        return false;
    *ret = in;
    return true;
}

static int action(const struct tmpl_ctx *c, struct str act, struct buf *out, struct err *e)
{
    struct str v, key, idx = STR("index .Service.Labels ");
    act = trim(act);
    if (quoted(act, &v) || field(c, act, &v)) {
        buf_put(out, v.p, v.n);
        return 0;
    }
    if (str_starts(act, idx) && quoted(trim((struct str){ act.p + idx.n, act.n - idx.n }), &key)) {
        for (size_t i = 0; i < c->service_labels.n; i++)
            if (str_eq(c->service_labels.v[i].key, key))
                buf_put(out, c->service_labels.v[i].val.p, c->service_labels.v[i].val.n);
        return 0;
    }
    return err_set(e, ERR_INVALID, "template: expansion: cannot evaluate {{" STR_FMT "}}", STR_ARG(act));
}

static const char *find2(const char *p, const char *end, char c)
{
    for (; p + 1 < end; p++)
        if (p[0] == c && p[1] == c)
            return p;
    return NULL;
}

int tmpl_expand(const struct tmpl_ctx *ctx, struct str in, struct arena *a, struct str *ret, struct err *e)
{
    const char *p = in.p, *end = in.p + in.n, *open;
    if (in.n == 0 || !find2(p, end, '{')) {
        *ret = in;
        return 0;
    }
    _cleanup_(buf_done) struct buf out = BUF_INIT;
    out.limit = 1u << 20;
    while ((open = find2(p, end, '{'))) {
        const char *close = find2(open + 2, end, '}');
        if (!close)
            return err_set(e, ERR_INVALID, "template: expansion: unclosed action in \"" STR_FMT "\"", STR_ARG(in));
        buf_put(&out, p, (size_t)(open - p));
        int r = action(ctx, (struct str){ open + 2, (size_t)(close - open - 2) }, &out, e);
        if (r < 0)
            return r;
        p = close + 2;
    }
    buf_put(&out, p, (size_t)(end - p));
    if (out.failed)
        return err_set(e, ERR_TOO_BIG, "template: the expanded text is too long");
    *ret = arena_str(a, buf_str(&out));
    if (!ret->p)
        return err_set(e, ERR_NOMEM, "template: out of memory");
    return 0;
}
