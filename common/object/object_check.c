/* object_check.c - JSON text to a checked DOM: shape rules from the tables, paths in the errors. */
#include <stdio.h>
#include <strings.h>

#include "common/object/object_priv.h"
#include "common/util/base64.h"
#include "common/util/clock.h"

/* Limits of types whose field names none. */
#define TEXT_MAX_DEFAULT (1 << 20)
#define COUNT_MAX_DEFAULT 10000

/* ---- paths and fields ---- */

static size_t path_put(struct obj_path *p, const char *name, size_t index)
{
    size_t mark = p->n, room = sizeof p->text - p->n;
    int n;
    if (name != NULL)
        n = snprintf(p->text + p->n, room, "%s%s", p->n ? "." : "", name);
    else
        n = snprintf(p->text + p->n, room, "[%zu]", index);
    p->n += (size_t)n < room ? (size_t)n : room - 1;
    return mark;
}

size_t obj_path_push(struct obj_path *p, const char *name)
{
    return path_put(p, name, 0);
}

size_t obj_path_push_index(struct obj_path *p, size_t index)
{
    return path_put(p, NULL, index);
}

void obj_path_pop(struct obj_path *p, size_t mark)
{
    p->n = mark;
    p->text[mark] = 0;
}

static bool field_is(const struct obj_field *f, const char *name, size_t len)
{
    return strlen(f->name) == len && memcmp(f->name, name, len) == 0; /* stored keys may hold 0x00 */
}

int obj_field_find(const struct obj_type *t, const char *name, size_t len, int hint)
{
    int n = 0;
    while (t->fields[n].name != NULL) {
        if (n == hint && field_is(&t->fields[n], name, len))
            return n;
        n++;
    }
    for (int i = 0; i < n; i++)
        if (field_is(&t->fields[i], name, len))
            return i;
    return -1;
}

bool obj_json_zero(const json_t *v)
{
    switch (v ? json_typeof(v) : JSON_NULL) {
    case JSON_NULL:
    case JSON_FALSE:
        return true;
    case JSON_TRUE:
        return false;
    case JSON_STRING:
        return json_string_length(v) == 0;
    case JSON_INTEGER:
        return json_integer_value(v) == 0;
    case JSON_REAL:
        return json_real_value(v) == 0;
    case JSON_ARRAY:
        return json_array_size(v) == 0;
    case JSON_OBJECT:
        return json_object_size(v) == 0;
    }
    return false;
}

/* ---- checks ---- */

static int check_object(const struct obj_type *t, json_t *obj, struct obj_path *p, struct err *e);

static int bad(const struct obj_path *p, struct err *e, const char *what)
{
    return err_set(e, ERR_INVALID, "%s: %s", p->n ? p->text : "body", what);
}

static int check_range(const struct obj_field *f, int64_t v, const struct obj_path *p, struct err *e)
{
    bool limited = f->min != 0 || f->max != 0;
    if (!limited || (v >= f->min && (f->max == 0 || v <= f->max)))
        return 0;
    if (f->max == 0)
        return err_set(e, ERR_INVALID, "%s: must not be less than %lld", p->text, (long long)f->min);
    return err_set(e, ERR_INVALID, "%s: must be between %lld and %lld", p->text, (long long)f->min, (long long)f->max);
}

static int check_text(const struct obj_field *f, json_t *v, const struct obj_path *p, struct err *e)
{
    size_t n = json_string_length(v), max = f->max ? (size_t)f->max : TEXT_MAX_DEFAULT;
    if (n > max)
        return err_set(e, ERR_INVALID, "%s: must have at most %zu bytes", p->text, max);
    if (n < (size_t)f->min && n > 0)
        return err_set(e, ERR_INVALID, "%s: must have at least %lld bytes", p->text, (long long)f->min);
    return 0;
}

/* "must be bind, volume or tmpfs" */
static int check_enum(const struct obj_field *f, json_t *v, const struct obj_path *p, struct err *e)
{
    char text[160];
    size_t n = 0;
    const char *s = json_string_value(v);
    if (*s == 0)
        return 0;
    for (size_t i = 0; f->values[i] != NULL; i++)
        if (strcmp(f->values[i], s) == 0)
            return 0;
    for (size_t i = 0; f->values[i] != NULL && n < sizeof text; i++) {
        const char *sep = i == 0 ? "" : f->values[i + 1] == NULL ? " or " : ", ";
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", sep, f->values[i]);
    }
    return err_set(e, ERR_INVALID, "%s: must be %s", p->text, text);
}

static int check_time(json_t *v, const struct obj_path *p, struct err *e)
{
    struct wall_ns t;
    struct str text = { json_string_value(v), json_string_length(v) };
    if (str_is(text, "0001-01-01T00:00:00Z") || wall_parse(text, &t))
        return 0;
    return bad(p, e, "must be a time like 2006-01-02T15:04:05Z");
}

static int check_bytes(const struct obj_field *f, json_t *v, const struct obj_path *p, struct err *e)
{
    struct buf b = BUF_INIT;
    bool ok = base64_take((struct str){ json_string_value(v), json_string_length(v) }, &b);
    size_t n = b.n;
    buf_done(&b);
    if (!ok)
        return bad(p, e, "must be base64");
    if (f->max && n > (size_t)f->max)
        return err_set(e, ERR_INVALID, "%s: must have at most %lld bytes", p->text, (long long)f->max);
    return 0;
}

static int check_count(const struct obj_field *f, size_t n, const struct obj_path *p, struct err *e)
{
    size_t max = f->max ? (size_t)f->max : COUNT_MAX_DEFAULT;
    if (n > max)
        return err_set(e, ERR_INVALID, "%s: must have at most %zu entries", p->text, max);
    return 0;
}

static int check_list(const struct obj_field *f, json_t *v, struct obj_path *p, struct err *e)
{
    size_t i;
    json_t *item;
    int r = check_count(f, json_array_size(v), p, e);
    json_array_foreach (v, i, item) {
        if (r < 0)
            return r;
        size_t mark = obj_path_push_index(p, i);
        if (f->type == OT_LIST)
            r = json_is_object(item) ? check_object(f->sub, item, p, e) : bad(p, e, "must be an object");
        else if (!json_is_string(item))
            r = bad(p, e, "must be text");
        obj_path_pop(p, mark);
    }
    return r;
}

static int check_strmap(const struct obj_field *f, json_t *v, struct obj_path *p, struct err *e)
{
    const char *key;
    json_t *item;
    void *tmp;
    int r = check_count(f, json_object_size(v), p, e);
    json_object_foreach_safe(v, tmp, key, item)
    {
        if (r < 0)
            return r;
        if (json_is_null(item)) /* Go decodes it as "" */
            json_object_set_new(v, key, json_string(""));
        else if (!json_is_string(item))
            r = bad(p, e, "must be a map of text to text");
    }
    return r;
}

static const char *wrong_type(const struct obj_field *f, const json_t *v)
{
    switch (f->type) {
    case OT_STR:
    case OT_ENUM:
    case OT_TIME:
    case OT_BYTES:
        return json_is_string(v) ? NULL : "must be text";
    case OT_INT:
    case OT_DUR:
        return json_is_integer(v) ? NULL : "must be a whole number";
    case OT_UINT:
        return !json_is_integer(v)         ? "must be a whole number"
               : json_integer_value(v) < 0 ? "must not be negative"
                                           : NULL;
    case OT_BOOL:
        return json_is_boolean(v) ? NULL : "must be true or false";
    case OT_F64:
        return json_is_number(v) ? NULL : "must be a number";
    case OT_OBJ:
        return json_is_object(v) ? NULL : "must be an object";
    case OT_LIST:
    case OT_STRS:
        return json_is_array(v) ? NULL : "must be a list";
    case OT_STRMAP:
        return json_is_object(v) ? NULL : "must be a map of text to text";
    case OT_ANY:
        return NULL;
    }
    return NULL;
}

static int check_shape(const struct obj_field *f, json_t *v, struct obj_path *p, struct err *e)
{
    switch (f->type) {
    case OT_STR:
        return check_text(f, v, p, e);
    case OT_ENUM:
        return f->values ? check_enum(f, v, p, e) : 0;
    case OT_TIME:
        return check_time(v, p, e);
    case OT_BYTES:
        return check_bytes(f, v, p, e);
    case OT_INT:
    case OT_UINT:
    case OT_DUR:
        return check_range(f, json_integer_value(v), p, e);
    case OT_OBJ:
        return check_object(f->sub, v, p, e);
    case OT_LIST:
    case OT_STRS:
        return check_list(f, v, p, e);
    case OT_STRMAP:
        return check_strmap(f, v, p, e);
    default:
        return 0;
    }
}

static int check_field(const struct obj_field *f, json_t *v, struct obj_path *p, struct err *e)
{
    const char *wrong = wrong_type(f, v);
    if (wrong != NULL)
        return bad(p, e, wrong);
    if (f->check != NULL) { /* first, so that Docker's words win over the general ones */
        int r = f->check(v, p->text, e);
        if (r < 0)
            return r;
    }
    return check_shape(f, v, p, e);
}

static int check_required(const struct obj_type *t, json_t *obj, struct obj_path *p, struct err *e)
{
    for (const struct obj_field *f = t->fields; f->name != NULL; f++) {
        if (!(f->flags & OBJ_REQUIRED) || !obj_json_zero(json_object_get(obj, f->name)))
            continue;
        obj_path_push(p, f->name);
        return bad(p, e, "is required");
    }
    return 0;
}

static const char *field_in_other_case(const struct obj_type *t, const char *key)
{
    for (const struct obj_field *f = t->fields; f->name != NULL; f++)
        if (strcasecmp(f->name, key) == 0)
            return f->name;
    return NULL;
}

/* fold_names - Go takes "replicated" for "Replicated", and docker-py relies on it. */
static int fold_names(const struct obj_type *t, json_t *obj, struct obj_path *p, struct err *e)
{
    const char *key;
    json_t *v;
    void *tmp;
    int hint = 0;
    json_object_foreach_safe(obj, tmp, key, v)
    {
        int i = obj_field_find(t, key, strlen(key), hint);
        const char *name = i < 0 ? field_in_other_case(t, key) : NULL;
        hint = i + 1;
        if (name == NULL)
            continue;
        if (json_object_get(obj, name) != NULL) {
            obj_path_push(p, name);
            return bad(p, e, "is there twice, in different case");
        }
        if (json_object_set(obj, name, v) < 0)
            return err_set(e, ERR_NOMEM, "out of memory");
        json_object_del(obj, key);
    }
    return 0;
}

static int check_object(const struct obj_type *t, json_t *obj, struct obj_path *p, struct err *e)
{
    const char *key;
    json_t *v;
    void *tmp;
    int hint = 0, r = fold_names(t, obj, p, e);
    if (r < 0)
        return r;
    json_object_foreach_safe(obj, tmp, key, v)
    {
        if (json_is_null(v)) {
            json_object_del(obj, key);
            continue;
        }
        int i = obj_field_find(t, key, strlen(key), hint);
        if (i < 0) /* not ours: kept as it is */
            continue;
        hint = i + 1;
        size_t mark = obj_path_push(p, t->fields[i].name);
        r = check_field(&t->fields[i], v, p, e);
        if (r < 0)
            return r;
        obj_path_pop(p, mark);
    }
    if (t->check != NULL)
        r = t->check(obj, p->text, e);
    return r < 0 ? r : check_required(t, obj, p, e);
}

int obj_check(const struct obj_type *t, json_t *doc, struct err *e)
{
    struct obj_path p = { "", 0 };
    if (!json_is_object(doc))
        return err_set(e, ERR_INVALID, "body: must be an object");
    return check_object(t, doc, &p, e);
}

void obj_fold(const struct obj_type *t, json_t *obj)
{
    const char *key;
    json_t *v;
    void *tmp;
    json_object_foreach_safe(obj, tmp, key, v)
    {
        int i = obj_field_find(t, key, strlen(key), 0);
        const char *name = i < 0 ? field_in_other_case(t, key) : t->fields[i].name;
        const struct obj_type *sub = NULL;
        if (json_is_null(v)) {
            json_object_del(obj, key);
            continue;
        }
        if (name != NULL)
            sub = t->fields[obj_field_find(t, name, strlen(name), 0)].sub;
        if (sub != NULL && json_is_object(v))
            obj_fold(sub, v);
        for (size_t k = 0; sub != NULL && k < json_array_size(v); k++)
            if (json_is_object(json_array_get(v, k)))
                obj_fold(sub, json_array_get(v, k));
        if (name != NULL && i < 0 && !json_object_get(obj, name)) {
            json_object_set(obj, name, v);
            json_object_del(obj, key);
        }
    }
}

/* ---- parsing ---- */

/* too_deep - jansson would go on to 2048 levels; strings are stepped over. */
static bool too_deep(struct str text)
{
    unsigned depth = 0;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (c == '"') {
            for (i++; i < text.n && text.p[i] != '"'; i++)
                i += text.p[i] == '\\';
        } else if (c == '{' || c == '[') {
            if (++depth > OBJ_DEPTH_MAX)
                return true;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return false;
}

static bool blank(struct str text)
{
    for (size_t i = 0; i < text.n; i++)
        if (strchr(" \t\r\n", text.p[i]) == NULL || text.p[i] == 0)
            return false;
    return true;
}

int obj_parse(const struct obj_type *t, struct str text, json_t **ret, struct err *e)
{
    json_error_t je;
    if (text.n > OBJ_JSON_MAX)
        return err_set(e, ERR_TOO_BIG, "invalid JSON: body is over %u bytes", OBJ_JSON_MAX);
    if (blank(text))
        return err_set(e, ERR_INVALID, "invalid JSON: got EOF while reading request body");
    if (too_deep(text))
        return err_set(e, ERR_INVALID, "invalid JSON: nested more than %d deep", OBJ_DEPTH_MAX);
    json_t *doc = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES, &je);
    if (doc == NULL && json_error_code(&je) == json_error_end_of_input_expected)
        return err_set(e, ERR_INVALID, "unexpected content after JSON");
    char why[160];
    if (doc == NULL && obj_syntax_error(text, why, sizeof why))
        return err_set(e, ERR_INVALID, "invalid JSON: %s", why);
    if (doc == NULL)
        return err_set(e, ERR_INVALID, "invalid JSON: %s (line %d, column %d)", je.text, je.line, je.column);
    int r = obj_check(t, doc, e);
    if (r < 0) {
        json_decref(doc);
        return r;
    }
    *ret = doc;
    return 0;
}
