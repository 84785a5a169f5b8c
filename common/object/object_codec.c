/*
 * object_codec.c - DOM to msgpack, and msgpack to JSON text.
 *
 * Output is in the table's order, what the table does not know behind it. The DOM that obj_unpack() gives comes from
 * the same text, so that there is one place that decides what clients see.
 */
#include <math.h>
#include <stdio.h>

#include "common/object/object_priv.h"
#include "common/util/base64.h"
#include "common/util/check.h"
#include "common/util/clock.h"

/* ---- DOM to msgpack ---- */

static int pack_object(const struct obj_type *t, json_t *obj, struct buf *out);

static struct str json_str(const json_t *v)
{
    return (struct str){ json_string_value(v), json_string_length(v) };
}

static void pack_any(json_t *v, struct buf *out)
{
    size_t i;
    const char *key;
    json_t *item;
    switch (json_typeof(v)) {
    case JSON_NULL:
        mp_nil(out);
        return;
    case JSON_TRUE:
    case JSON_FALSE:
        mp_bool(out, json_is_true(v));
        return;
    case JSON_INTEGER:
        mp_i64(out, json_integer_value(v));
        return;
    case JSON_REAL:
        mp_f64(out, json_real_value(v));
        return;
    case JSON_STRING:
        mp_str(out, json_str(v));
        return;
    case JSON_ARRAY:
        mp_array(out, json_array_size(v));
        json_array_foreach (v, i, item) {
            pack_any(item, out);
        }
        return;
    case JSON_OBJECT:
        mp_map(out, json_object_size(v));
        json_object_foreach (v, key, item) {
            mp_cstr(out, key);
            pack_any(item, out);
        }
        return;
    }
}

static int pack_time(json_t *v, struct buf *out)
{
    struct wall_ns t = { 0 };
    struct str text = json_str(v);
    if (!str_is(text, "0001-01-01T00:00:00Z") && !wall_parse(text, &t))
        return -ERR_INVALID;
    mp_i64(out, t.ns);
    return 0;
}

static int pack_bytes(json_t *v, struct buf *out)
{
    struct buf raw = BUF_INIT;
    bool ok = base64_take(json_str(v), &raw);
    mp_bin(out, buf_str(&raw));
    buf_done(&raw);
    return ok ? 0 : -ERR_INVALID;
}

static int pack_list(const struct obj_field *f, json_t *v, struct buf *out)
{
    size_t i;
    json_t *item;
    int r = 0;
    mp_array(out, json_array_size(v));
    json_array_foreach (v, i, item) {
        r = json_is_object(item) ? pack_object(f->sub, item, out) : -ERR_INVALID;
        if (r < 0)
            break;
    }
    return r;
}

static int pack_field(const struct obj_field *f, json_t *v, struct buf *out)
{
    switch (f->type) {
    case OT_TIME:
        return json_is_string(v) ? pack_time(v, out) : -ERR_INVALID;
    case OT_BYTES:
        return json_is_string(v) ? pack_bytes(v, out) : -ERR_INVALID;
    case OT_F64:
        mp_f64(out, json_number_value(v));
        return 0;
    case OT_OBJ:
        return json_is_object(v) ? pack_object(f->sub, v, out) : -ERR_INVALID;
    case OT_LIST:
        return json_is_array(v) ? pack_list(f, v, out) : -ERR_INVALID;
    default:
        pack_any(v, out);
        return 0;
    }
}

static int pack_object(const struct obj_type *t, json_t *obj, struct buf *out)
{
    const char *key;
    json_t *v;
    size_t n = 0;
    int hint = 0;
    json_object_foreach (obj, key, v)
        n += !json_is_null(v);
    mp_map(out, n);
    json_object_foreach (obj, key, v) {
        if (json_is_null(v))
            continue;
        int i = obj_field_find(t, key, strlen(key), hint);
        mp_cstr(out, key);
        if (i < 0) {
            pack_any(v, out);
            continue;
        }
        hint = i + 1;
        int r = pack_field(&t->fields[i], v, out);
        if (r < 0)
            return r;
    }
    return 0;
}

int obj_pack(const struct obj_type *t, json_t *doc, struct buf *out, struct err *e)
{
    if (!json_is_object(doc) || pack_object(t, doc, out) < 0)
        return err_set(e, ERR_INVALID, "%s: does not have the shape of its table", t->name);
    if (out->failed)
        return err_set(e, ERR_NOMEM, "%s: too big to encode", t->name);
    return 0;
}

/* ---- msgpack to JSON text ---- */

struct writer {
    struct buf *out;
    const struct obj_overlay *over; /* of the outermost object */
    size_t nover;
};

static int write_object(struct writer *w, const struct obj_type *t, struct str doc, bool outermost);

static void write_f64(struct buf *out, double v)
{
    char text[40];
    if (!isfinite(v)) { /* JSON has no word for it */
        buf_puts(out, "0");
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    buf_puts(out, text);
}

static bool span_head(struct str span, struct mp_val *ret)
{
    struct mp_cursor c = mp_cursor(span);
    return span.n > 0 && mp_next(&c, ret) == 0;
}

static bool span_zero(struct str span)
{
    struct mp_val v;
    if (!span_head(span, &v))
        return true;
    switch (v.type) {
    case MP_NIL:
        return true;
    case MP_BOOL:
        return !v.b;
    case MP_UINT:
        return v.u == 0;
    case MP_INT:
        return false;
    case MP_F64:
        return v.f == 0;
    case MP_STR:
    case MP_BIN:
        return v.s.n == 0;
    case MP_ARRAY:
    case MP_MAP:
        return v.n == 0;
    }
    return false;
}

static bool span_nil(struct str span)
{
    return span.n == 0 || (span.n == 1 && (uint8_t)span.p[0] == 0xc0);
}

static void write_time(struct buf *out, int64_t ns)
{
    char text[WALL_TEXT_MAX];
    wall_format((struct wall_ns){ ns }, text);
    buf_putc(out, '"');
    buf_puts(out, text);
    buf_putc(out, '"');
}

static int write_list(struct writer *w, const struct obj_field *f, struct str span)
{
    struct mp_cursor c = mp_cursor(span);
    struct mp_val head;
    struct str item;
    if (mp_next(&c, &head) < 0)
        return -ERR_CORRUPT;
    buf_putc(w->out, '[');
    for (size_t i = 0; i < head.n; i++) {
        if (mp_span(&c, &item) < 0)
            return -ERR_CORRUPT;
        if (i > 0)
            buf_putc(w->out, ',');
        int r = write_object(w, f->sub, item, false);
        if (r < 0)
            return r;
    }
    buf_putc(w->out, ']');
    return 0;
}

/* write_value - a value of an unexpected type is shown as it is: another version may have meant it so. */
static int write_value(struct writer *w, const struct obj_field *f, struct str span)
{
    struct mp_val v;
    int64_t ns;
    if (!span_head(span, &v))
        return -ERR_CORRUPT;
    if (f->type == OT_OBJ && v.type == MP_MAP)
        return write_object(w, f->sub, span, false);
    if (f->type == OT_LIST && v.type == MP_ARRAY)
        return write_list(w, f, span);
    if (f->type == OT_TIME && mp_as_i64(span, &ns))
        write_time(w->out, ns);
    else if (v.type == MP_F64)
        write_f64(w->out, v.f);
    else if (v.type == MP_STR)
        buf_json_str(w->out, v.s);
    else
        mp_to_json(w->out, span);
    return 0;
}

/* write_absent - what an OBJ_ALWAYS field shows when it is absent or zero. */
static int write_absent(struct writer *w, const struct obj_field *f, struct str from)
{
    static const char empty_map[] = "\x80";
    if (f->def_from != NULL && !span_nil(from))
        return write_value(w, f, from);
    if (f->def != NULL) {
        buf_puts(w->out, f->def);
        return 0;
    }
    switch (f->type) {
    case OT_OBJ:
        return write_object(w, f->sub, (struct str){ empty_map, 1 }, false);
    case OT_TIME:
        write_time(w->out, 0);
        return 0;
    case OT_BOOL:
        buf_puts(w->out, "false");
        return 0;
    case OT_INT:
    case OT_UINT:
    case OT_DUR:
    case OT_F64:
        buf_putc(w->out, '0');
        return 0;
    case OT_LIST:
    case OT_STRS:
        buf_puts(w->out, "[]");
        return 0;
    case OT_STRMAP:
        buf_puts(w->out, "{}");
        return 0;
    case OT_ANY:
        buf_puts(w->out, "null");
        return 0;
    case OT_STR:
    case OT_ENUM:
    case OT_BYTES:
        buf_puts(w->out, "\"\"");
        return 0;
    }
    return 0;
}

static void write_comma(struct writer *w, bool *first)
{
    if (!*first)
        buf_putc(w->out, ',');
    *first = false;
}

/* write_key - a table's own name, which needs no escapes. */
static void write_key(struct writer *w, bool *first, const char *name)
{
    size_t n = strlen(name);
    write_comma(w, first);
    char *p = buf_reserve(w->out, n + 3);
    if (p == NULL)
        return;
    p[0] = '"';
    memcpy(p + 1, name, n); /* NOLINT(bugprone-not-null-terminated-result): buffers count, they do not end with NUL */
    p[1 + n] = '"';
    p[2 + n] = ':';
    w->out->n += n + 3;
}

static int write_field(struct writer *w, const struct obj_type *t, const struct str *spans, size_t i, bool *first)
{
    const struct obj_field *f = &t->fields[i];
    struct str from = { NULL, 0 };
    if (f->flags & (OBJ_SECRET | OBJ_INPUT_ONLY | OBJ_INTERNAL))
        return 0;
    bool show = f->flags & OBJ_KEEP ? !span_nil(spans[i]) : !span_zero(spans[i]);
    if (!show && !(f->flags & OBJ_ALWAYS))
        return 0;
    write_key(w, first, f->name);
    if (show)
        return write_value(w, f, spans[i]);
    for (size_t k = 0; f->def_from != NULL && t->fields[k].name != NULL; k++)
        if (strcmp(t->fields[k].name, f->def_from) == 0)
            from = spans[k];
    return write_absent(w, f, from);
}

/* write_unknown - what the table does not name, in the document's order. */
static int write_unknown(struct writer *w, const struct obj_type *t, struct str doc, bool *first)
{
    struct mp_cursor c = mp_cursor(doc);
    struct mp_val head, key;
    struct str val;
    if (mp_next(&c, &head) < 0)
        return -ERR_CORRUPT;
    for (size_t i = 0; i < head.n; i++) {
        if (mp_next(&c, &key) < 0 || key.type != MP_STR || mp_span(&c, &val) < 0)
            return -ERR_CORRUPT;
        if (span_nil(val) || obj_field_find(t, key.s.p, key.s.n, 0) >= 0)
            continue;
        write_comma(w, first);
        buf_json_str(w->out, key.s);
        buf_putc(w->out, ':');
        mp_to_json(w->out, val);
    }
    return 0;
}

/* spans_read - where each field's value is; *ret_unknown: how many are not in the table. */
static int spans_read(const struct obj_type *t, struct str doc, struct str *spans, size_t *ret_unknown)
{
    struct mp_cursor c = mp_cursor(doc);
    struct mp_val head, key;
    struct str val;
    int hint = 0;
    size_t unknown = 0;
    if (mp_next(&c, &head) < 0 || head.type != MP_MAP)
        return -ERR_CORRUPT;
    for (size_t i = 0; i < head.n; i++) {
        if (mp_next(&c, &key) < 0 || key.type != MP_STR || mp_span(&c, &val) < 0)
            return -ERR_CORRUPT;
        int f = obj_field_find(t, key.s.p, key.s.n, hint);
        if (f < 0) {
            unknown++;
            continue;
        }
        spans[f] = val;
        hint = f + 1;
    }
    *ret_unknown = unknown;
    return 0;
}

static int write_object(struct writer *w, const struct obj_type *t, struct str doc, bool outermost)
{
    struct str spans[OBJ_FIELDS_MAX] = { { NULL, 0 } };
    size_t unknown, n = 0;
    bool first = true;
    int r = spans_read(t, doc, spans, &unknown);
    for (size_t i = 0; outermost && i < w->nover; i++) {
        int f = obj_field_find(t, w->over[i].name, strlen(w->over[i].name), 0);
        CHECK(f >= 0);
        spans[f] = w->over[i].val; /* cppcheck-suppress negativeIndex ; CHECK does not return */
    }
    buf_putc(w->out, '{');
    for (; r == 0 && t->fields[n].name != NULL; n++)
        r = write_field(w, t, spans, n, &first);
    CHECK(n <= OBJ_FIELDS_MAX);
    if (r == 0 && unknown > 0)
        r = write_unknown(w, t, doc, &first);
    buf_putc(w->out, '}');
    return r;
}

int obj_write_json_with(const struct obj_type *t, struct str doc, const struct obj_overlay *over, size_t n,
                        struct buf *out, struct err *e)
{
    struct writer w = { out, over, n };
    size_t mark = out->n;
    int r = write_object(&w, t, doc, true);
    if (r == 0 && !out->failed)
        return 0;
    out->n = mark; /* half an object is worse than none */
    if (out->failed)
        return err_set(e, ERR_NOMEM, "%s: too big for its buffer", t->name);
    return err_set(e, ERR_CORRUPT, "%s: stored document is malformed", t->name);
}

int obj_write_json(const struct obj_type *t, struct str doc, struct buf *out, struct err *e)
{
    return obj_write_json_with(t, doc, NULL, 0, out, e);
}

int obj_unpack(const struct obj_type *t, struct str doc, json_t **ret, struct err *e)
{
    struct buf text = BUF_INIT;
    json_error_t je;
    int r = obj_write_json(t, doc, &text, e);
    if (r == 0) {
        json_t *v = json_loadb(text.p, text.n, JSON_ALLOW_NUL, &je);
        if (v == NULL)
            r = err_set(e, ERR_CORRUPT, "%s: stored document has no JSON form: %s", t->name, je.text);
        else
            *ret = v;
    }
    buf_done(&text);
    return r;
}
