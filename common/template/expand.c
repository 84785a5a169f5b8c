#include "common/template/expand.h"

#include <strings.h>

#include "common/template/gotext.h"
#include "common/template/tmpl_fn.h"
#include "common/util/check.h"
#include "common/util/cleanup.h"

DEFINE_CLEANUP(struct tmpl *, tmpl_free)

static void json_freep(json_t **j)
{
    json_decref(*j);
}

/* ---- types, as Go names them ---- */

static const char *type_below(const json_t *root, const json_t *v)
{
    const json_t *node = json_object_get(root, "Node");

    if (v == json_object_get(root, "Service"))
        return "struct { ID string; Name string; Labels map[string]string }";
    if (v == node)
        return "struct { ID string; Hostname string; Platform template.Platform }";
    if (v == json_object_get(node, "Platform"))
        return "template.Platform";
    if (v == json_object_get(root, "Task"))
        return "struct { ID string; Name string; Slot string }";
    return "map[string]string";
}

static const char *text_type(const json_t *root, const json_t *v)
{
    return v == root ? "*template.Context" : type_below(root, v);
}

static const char *payload_type(const json_t *root, const json_t *v)
{
    return v == root ? "*template.PayloadContext" : type_below(root, v);
}

static bool labels(const json_t *root, const json_t *v)
{
    return v == json_object_get(json_object_get(root, "Service"), "Labels");
}

/* ---- functions ---- */

#define FN(name) static int fn_##name(struct exec *ex, const struct val *a, unsigned n, struct val *ret)

FN(join) /* the separator comes first */
{
    struct buf b = TMPL_BUF;

    for (unsigned i = 0; i < n; i++)
        if (val_want_text(ex, a[i]) < 0)
            return -ERR_INVALID;
    for (unsigned i = 1; i < n; i++) {
        struct str s = val_str(a[i]), sep = val_str(a[0]);
        if (i > 1)
            buf_put(&b, sep.p, sep.n);
        buf_put(&b, s.p, s.n);
    }
    *ret = val_text(ex, &b);
    return 0;
}

FN(env) /* unknown ones are empty; names in any case, as Docker's */
{
    const struct expand_refs *refs = exec_arg(ex);

    (void)n;
    if (val_want_text(ex, a[0]) < 0)
        return -ERR_INVALID;
    struct str name = val_str(a[0]), value = { "", 0 };
    for (size_t i = 0; i < refs->env.n; i++) {
        struct str v = refs->env.v[i];
        if (v.n > name.n && v.p[name.n] == '=' && strncasecmp(v.p, name.p, name.n) == 0) {
            value = (struct str){ v.p + name.n + 1, v.n - name.n - 1 };
            break;
        }
    }
    *ret = val_new(ex, json_stringn_nocheck(value.p, value.n));
    return 0;
}

static int refer(struct exec *ex, const struct val *a, struct val *ret, const char *what,
                 bool (*find)(void *arg, struct str target, struct str *ret))
{
    const struct expand_refs *refs = exec_arg(ex);
    struct str content;

    if (val_want_text(ex, a[0]) < 0)
        return -ERR_INVALID;
    struct str target = val_str(a[0]);
    if (!find(refs->arg, target, &content))
        return exec_fail(ex, "error calling %s: %s target %.*s not found", what, what,
                         (int)(target.n < 100 ? target.n : 100), target.p);
    *ret = val_new(ex, json_stringn_nocheck(content.n ? content.p : "", content.n));
    return 0;
}

FN(secret)
{
    (void)n;
    return refer(ex, a, ret, "secret", ((const struct expand_refs *)exec_arg(ex))->secret);
}

FN(config)
{
    (void)n;
    return refer(ex, a, ret, "config", ((const struct expand_refs *)exec_arg(ex))->config);
}

static const struct tmpl_fn payload_fns[] = {
    { "join", 1, 32, fn_join }, { "env", 1, 1, fn_env }, { "secret", 1, 1, fn_secret }, { "config", 1, 1, fn_config }
};
static const struct tmpl_lang text_lang = {
    .name = "expansion", .fns = payload_fns, .fn_count = 1, .type_name = text_type, .is_map = labels, .needs_keys = true
};
/* Which labels there will be is not looked at when a service is posted. */
static const struct tmpl_lang check_lang = {
    .name = "expansion", .fns = payload_fns, .fn_count = 1, .type_name = text_type, .is_map = labels
};
static const struct tmpl_lang payload_lang = { .name = "expansion",
                                               .fns = payload_fns,
                                               .fn_count = 4,
                                               .type_name = payload_type,
                                               .is_map = labels,
                                               .needs_keys = true };

/* ---- data ---- */

static json_t *text(struct str s)
{
    return json_stringn_nocheck(s.n ? s.p : "", s.n);
}

static json_t *data_of(const struct expand_ctx *c)
{
    json_t *map = json_object(), *platform, *service, *node, *task;

    for (size_t i = 0; i < c->service_labels.n; i++)
        json_object_setn_new_nocheck(map, c->service_labels.v[i].key.p, c->service_labels.v[i].key.n,
                                     text(c->service_labels.v[i].val));
    service = json_pack("{s:o,s:o,s:o}", "ID", text(c->service_id), "Name", text(c->service_name), "Labels", map);
    platform = json_pack("{s:o,s:o}", "Architecture", text(c->node_arch), "OS", text(c->node_os));
    node = json_pack("{s:o,s:o,s:o}", "ID", text(c->node_id), "Hostname", text(c->node_hostname), "Platform", platform);
    task = json_pack("{s:o,s:o,s:o}", "ID", text(c->task_id), "Name", text(c->task_name), "Slot", text(c->task_slot));
    json_t *root = json_pack("{s:o,s:o,s:o}", "Service", service, "Node", node, "Task", task);
    CHECK(root);
    return root;
}

static int expand(const struct tmpl_lang *lang, const struct expand_ctx *ctx, const struct expand_refs *refs,
                  struct str in, struct buf *out, struct err *e)
{
    _cleanup_(tmpl_freep) struct tmpl *t = NULL;
    _cleanup_(json_freep) json_t *data = NULL;
    int r = tmpl_parse(&t, lang, in, e);

    if (r < 0)
        return r;
    data = data_of(ctx);
    return tmpl_exec(t, data, TMPL_ROW, (void *)refs, out, e);
}

static bool plain(struct str in)
{
    return in.n == 0 || memmem(in.p, in.n, "{{", 2) == NULL;
}

int expand_text(const struct expand_ctx *ctx, struct str in, struct arena *a, struct str *ret, struct err *e)
{
    _cleanup_(buf_done) struct buf out = { .limit = EXPAND_TEXT_MAX };

    if (plain(in)) {
        *ret = in;
        return 0;
    }
    int r = expand(&text_lang, ctx, NULL, in, &out, e);
    if (r < 0)
        return r;
    struct str s = arena_str(a, buf_str(&out));
    if (!s.p)
        return err_set(e, ERR_NOMEM, "template: out of memory");
    *ret = s;
    return 0;
}

int expand_check(struct str in, struct err *e)
{
    static const struct expand_ctx any = { .service_id = { "serviceid", 9 },
                                           .service_name = { "servicename", 11 },
                                           .node_id = { "nodeid", 6 },
                                           .node_hostname = { "nodeHostname", 12 },
                                           .node_arch = { "architecture", 12 },
                                           .node_os = { "os", 2 },
                                           .task_id = { "", 0 },
                                           .task_name = { "taskname", 8 },
                                           .task_slot = { "1", 1 } };
    _cleanup_(buf_done) struct buf out = { .limit = EXPAND_TEXT_MAX };

    return plain(in) ? 0 : expand(&check_lang, &any, NULL, in, &out, e);
}

/* ---- in Docker's words ---- */

static int where(struct err *e, const char *what, struct str text)
{
    struct buf q = { .limit = 400 };

    go_quote(&q, (struct str){ text.p, text.n < 100 ? text.n : 100 });
    int r = err_wrap(e, "expanding %s %s", what, q.n ? buf_cstr(&q) : "");
    buf_done(&q);
    return r;
}

/* value_of - what of NAME=value is expanded. */
static struct str value_of(struct str env)
{
    const char *eq = env.n ? memchr(env.p, '=', env.n) : NULL;
    return eq ? (struct str){ eq + 1, env.n - (size_t)(eq + 1 - env.p) } : (struct str){ env.p, 0 };
}

int expand_env(const struct expand_ctx *ctx, struct str in, struct arena *a, struct str *ret, struct err *e)
{
    struct str value = value_of(in), out = { NULL, 0 };

    if (plain(value)) {
        *ret = in;
        return 0;
    }
    if (expand_text(ctx, value, a, &out, e) < 0)
        return where(e, "env", in);
    size_t head = in.n - value.n;
    char *p = arena_alloc(a, head + out.n + 1);
    if (!p)
        return err_set(e, ERR_NOMEM, "template: out of memory");
    memcpy(p, in.p, head);
    if (out.n)
        memcpy(p + head, out.p, out.n);
    *ret = (struct str){ p, head + out.n };
    return 0;
}

int expand_env_check(struct str in, struct err *e)
{
    return expand_check(value_of(in), e) < 0 ? where(e, "env", in) : 0;
}

int expand_mount(const struct expand_ctx *ctx, const char *which, struct str in, struct arena *a, struct str *ret,
                 struct err *e)
{
    return expand_text(ctx, in, a, ret, e) < 0 ? where(e, which, in) : 0;
}

int expand_mount_check(const char *which, struct str in, struct err *e)
{
    return expand_check(in, e) < 0 ? where(e, which, in) : 0;
}

int expand_payload(const struct expand_ctx *ctx, const struct expand_refs *refs, struct str in, struct buf *out,
                   struct err *e)
{
    return expand(&payload_lang, ctx, refs, in, out, e);
}
