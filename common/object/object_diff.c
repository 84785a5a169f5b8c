/* object_diff.c - defaults, differences between two DOMs, and the reference page's rows. */
#include <stdio.h>

#include "common/object/object_priv.h"

/* ---- defaults ---- */

static bool lacks(const struct obj_field *f, const json_t *v)
{
    return f->flags & OBJ_KEEP ? v == NULL || json_is_null(v) : obj_json_zero(v);
}

static json_t *default_of(const struct obj_field *f, json_t *obj)
{
    json_t *from = f->def_from ? json_object_get(obj, f->def_from) : NULL;
    if (!obj_json_zero(from))
        return json_copy(from);
    return f->def ? json_loads(f->def, JSON_DECODE_ANY, NULL) : NULL;
}

int obj_defaults(const struct obj_type *t, json_t *doc, struct err *e)
{
    int r = 0;
    for (const struct obj_field *f = t->fields; f->name != NULL && r == 0; f++) {
        json_t *v = json_object_get(doc, f->name), *item;
        size_t i;
        if (lacks(f, v) && (f->def != NULL || f->def_from != NULL)) {
            v = default_of(f, doc);
            if (v == NULL || json_object_set_new(doc, f->name, v) < 0)
                return err_set(e, ERR_NOMEM, "%s: no default for %s", t->name, f->name);
        }
        if (f->type == OT_OBJ && json_is_object(v))
            r = obj_defaults(f->sub, v, e);
        else if (f->type == OT_LIST && json_is_array(v))
            json_array_foreach (v, i, item) {
                if (r == 0 && json_is_object(item))
                    r = obj_defaults(f->sub, item, e);
            }
    }
    return r;
}

/* ---- differences ---- */

struct differ {
    struct obj_path path;
    obj_diff_fn *fn;
    void *arg;
    bool any;
};

static void diff_object(struct differ *d, const struct obj_type *t, json_t *a, json_t *b);

static void report(struct differ *d, const struct obj_field *f, json_t *a, json_t *b)
{
    bool secret = f != NULL && f->flags & OBJ_SECRET;
    d->any = true;
    if (d->fn != NULL)
        d->fn(d->arg, d->path.text, secret ? NULL : a, secret ? NULL : b);
}

/* same - equal, with numbers compared as numbers: 0 and 0.0 are one. */
static bool same(json_t *a, json_t *b)
{
    if (json_is_number(a) && json_is_number(b) && json_typeof(a) != json_typeof(b))
        return json_number_value(a) == json_number_value(b);
    return json_equal(a, b);
}

static bool equal_or_zero(const struct obj_field *f, json_t *a, json_t *b)
{
    if (a != NULL && b != NULL && same(a, b))
        return true;
    bool keep = f != NULL && f->flags & OBJ_KEEP;
    if (keep)
        return (a == NULL || json_is_null(a)) && (b == NULL || json_is_null(b));
    return obj_json_zero(a) && obj_json_zero(b);
}

/* diff_key - an entry of a map, or an unknown field: compared as a whole. */
static void diff_key(struct differ *d, const struct obj_field *f, const char *key, json_t *a, json_t *b)
{
    size_t mark = obj_path_push(&d->path, key);
    if (!equal_or_zero(NULL, a, b) || (a == NULL) != (b == NULL))
        report(d, f, a, b);
    obj_path_pop(&d->path, mark);
}

static void diff_map(struct differ *d, const struct obj_field *f, json_t *a, json_t *b)
{
    const char *key;
    json_t *v;
    json_object_foreach (a, key, v) {
        diff_key(d, f, key, v, json_object_get(b, key));
    }
    json_object_foreach (b, key, v) {
        if (json_object_get(a, key) == NULL)
            diff_key(d, f, key, NULL, v);
    }
}

static void diff_list(struct differ *d, const struct obj_field *f, json_t *a, json_t *b)
{
    size_t na = json_array_size(a), nb = json_array_size(b), n = na > nb ? na : nb;
    for (size_t i = 0; i < n; i++) {
        json_t *va = json_array_get(a, i), *vb = json_array_get(b, i);
        size_t mark = obj_path_push_index(&d->path, i);
        if (f->type == OT_LIST && va != NULL && vb != NULL)
            diff_object(d, f->sub, va, vb);
        else if (va == NULL || vb == NULL || !same(va, vb))
            report(d, f, va, vb);
        obj_path_pop(&d->path, mark);
    }
}

static bool is_kind(const json_t *v, json_type type)
{
    return v == NULL || json_is_null(v) || json_typeof(v) == type;
}

/* diff_field - down to the leaves where both sides have the field's shape; where they don't, the field itself. */
static void diff_field(struct differ *d, const struct obj_field *f, json_t *a, json_t *b)
{
    bool before = d->any;
    if (equal_or_zero(f, a, b))
        return;
    size_t mark = obj_path_push(&d->path, f->name);
    d->any = false;
    if (f->type == OT_OBJ && is_kind(a, JSON_OBJECT) && is_kind(b, JSON_OBJECT))
        diff_object(d, f->sub, a, b);
    else if ((f->type == OT_LIST || f->type == OT_STRS) && is_kind(a, JSON_ARRAY) && is_kind(b, JSON_ARRAY))
        diff_list(d, f, a, b);
    else if (f->type == OT_STRMAP && is_kind(a, JSON_OBJECT) && is_kind(b, JSON_OBJECT))
        diff_map(d, f, a, b);
    bool one_sided = f->flags & OBJ_KEEP && (a == NULL || b == NULL);
    if (!d->any && (f->type != OT_OBJ || one_sided)) /* a leaf; or {} against nothing where that matters */
        report(d, f, a, b);
    d->any = d->any || before;
    obj_path_pop(&d->path, mark);
}

static void diff_object(struct differ *d, const struct obj_type *t, json_t *a, json_t *b)
{
    const char *key;
    json_t *v;
    for (const struct obj_field *f = t->fields; f->name != NULL; f++)
        diff_field(d, f, json_object_get(a, f->name), json_object_get(b, f->name));
    json_object_foreach (a, key, v) {
        if (obj_field_find(t, key, strlen(key), 0) < 0)
            diff_key(d, NULL, key, v, json_object_get(b, key));
    }
    json_object_foreach (b, key, v) {
        if (obj_field_find(t, key, strlen(key), 0) < 0 && json_object_get(a, key) == NULL)
            diff_key(d, NULL, key, NULL, v);
    }
}

bool obj_diff(const struct obj_type *t, json_t *a, json_t *b, obj_diff_fn *fn, void *arg)
{
    struct differ d = { .fn = fn, .arg = arg };
    diff_object(&d, t, a, b);
    return d.any;
}

/* ---- reference ---- */

static const char *type_name(enum obj_ftype t)
{
    static const char *const names[] = {
        [OT_STR] = "text",           [OT_INT] = "integer", [OT_UINT] = "integer ≥ 0", [OT_BOOL] = "boolean",
        [OT_F64] = "number",         [OT_TIME] = "time",   [OT_DUR] = "nanoseconds",  [OT_BYTES] = "base64",
        [OT_ENUM] = "text",          [OT_OBJ] = "object",  [OT_LIST] = "list",        [OT_STRS] = "list of text",
        [OT_STRMAP] = "text → text", [OT_ANY] = "any",
    };
    return names[t];
}

static void put_limits(const struct obj_field *f, struct buf *out)
{
    const char *sep = "";
    for (size_t i = 0; f->type == OT_ENUM && f->values != NULL && f->values[i] != NULL; i++, sep = ", ")
        buf_printf(out, "%s`%s`", sep, f->values[i]);
    if (f->min != 0 || f->max != 0) {
        buf_printf(out, "%s%lld", sep, (long long)f->min);
        if (f->max != 0)
            buf_printf(out, "…%lld", (long long)f->max);
        sep = ", ";
    }
    if (f->flags & OBJ_REQUIRED) {
        buf_printf(out, "%srequired", sep);
        sep = ", ";
    }
    if (f->flags & (OBJ_SECRET | OBJ_INPUT_ONLY))
        buf_printf(out, "%snever returned", sep);
}

static void reference(const struct obj_type *t, struct obj_path *p, struct buf *out)
{
    for (const struct obj_field *f = t->fields; f->name != NULL; f++) {
        if (f->flags & OBJ_INTERNAL)
            continue;
        size_t mark = obj_path_push(p, f->name);
        buf_printf(out, "| `%s%s` | %s | ", p->text, f->type == OT_LIST ? "[]" : "", type_name(f->type));
        if (f->def != NULL)
            buf_printf(out, "`%s`", f->def);
        else if (f->def_from != NULL)
            buf_printf(out, "as `%s`", f->def_from);
        buf_puts(out, " | ");
        put_limits(f, out);
        buf_printf(out, " | %s |\n", f->doc ? f->doc : "");
        if (f->sub != NULL) {
            if (f->type == OT_LIST)
                p->n += (size_t)snprintf(p->text + p->n, sizeof p->text - p->n, "[]");
            reference(f->sub, p, out);
        }
        obj_path_pop(p, mark);
    }
}

void obj_reference(const struct obj_type *t, struct buf *out)
{
    struct obj_path p = { "", 0 };
    buf_puts(out, "| field | type | default | allowed | meaning |\n|---|---|---|---|---|\n");
    reference(t, &p, out);
}
