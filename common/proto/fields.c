#include "common/proto/fields.h"

#include <stdio.h>

#include "common/util/check.h"

#define PATH_MAX_TEXT 200

/* Where the decoder is, for messages: outermost last. Made into text only when something is wrong. */
struct step {
    const struct step *up;
    const char *name; /* NULL: an entry of a list */
    size_t index;
};

struct decoder {
    enum fields_mode mode;
    struct arena *arena;
    struct err *e;
    const struct step *at;
};

static int decode_map(struct decoder *d, void *out, const struct field *table, struct mp_cursor *c, int depth);

static size_t path_text(const struct step *s, char text[PATH_MAX_TEXT])
{
    size_t n = s->up ? path_text(s->up, text) : 0;
    if (s->name)
        snprintf(text + n, PATH_MAX_TEXT - n, "%s%s", n ? "." : "", s->name);
    else
        snprintf(text + n, PATH_MAX_TEXT - n, "[%zu]", s->index);
    return n + strlen(text + n);
}

static int bad_code(struct decoder *d, int code, const char *what)
{
    char path[PATH_MAX_TEXT] = "message";
    if (d->at)
        path_text(d->at, path);
    return err_set(d->e, code, "%s: %s", path, what);
}

static int bad(struct decoder *d, const char *what)
{
    return bad_code(d, ERR_INVALID, what);
}

static int too_large(struct decoder *d)
{
    return bad_code(d, ERR_NOMEM, "too large");
}

static int decode_u64(struct decoder *d, const struct field *f, uint64_t *out, const struct mp_val *v)
{
    char text[120];
    if (v->type != MP_UINT)
        return bad(d, v->type == MP_INT ? "must not be negative" : "must be a number");
    if (d->mode == FIELDS_STRICT && (v->u < f->min || v->u > f->max)) {
        snprintf(text, sizeof text, "must be between %llu and %llu", (unsigned long long)f->min,
                 (unsigned long long)f->max);
        return bad(d, text);
    }
    *out = v->u;
    return 0;
}

static int decode_i64(struct decoder *d, const struct field *f, int64_t *out, const struct mp_val *v)
{
    if ((v->type != MP_UINT && v->type != MP_INT) || (v->type == MP_UINT && v->u > INT64_MAX))
        return bad(d, "must be a signed 64-bit number");
    int64_t i = v->type == MP_INT ? v->i : (int64_t)v->u;
    if (d->mode == FIELDS_STRICT && (i < f->imin || i > f->imax))
        return bad(d, "out of range");
    *out = i;
    return 0;
}

static int decode_text(struct decoder *d, const struct field *f, struct str *out, const struct mp_val *v)
{
    char text[120];
    if (v->type != (f->type == F_BIN ? MP_BIN : MP_STR))
        return bad(d, f->type == F_BIN ? "must be binary" : "must be text");
    if (d->mode == FIELDS_STRICT && (v->s.n < f->min || v->s.n > f->max)) {
        snprintf(text, sizeof text, "must have between %llu and %llu bytes", (unsigned long long)f->min,
                 (unsigned long long)f->max);
        return bad(d, text);
    }
    *out = v->s;
    return 0;
}

static int check_count(struct decoder *d, const struct field *f, size_t n)
{
    char text[80];
    if (d->mode == FIELDS_VIEW || n <= f->max)
        return 0;
    snprintf(text, sizeof text, "must have at most %llu entries", (unsigned long long)f->max);
    return bad(d, text);
}

static int decode_list(struct decoder *d, const struct field *f, struct list *out, struct mp_cursor *c, size_t n,
                       int depth)
{
    int r = check_count(d, f, n);
    if (r < 0)
        return r;
    char *v = n ? arena_array(d->arena, n, f->sub_size) : NULL;
    if (n && !v)
        return too_large(d);
    struct step step = { d->at, NULL, 0 };
    d->at = &step;
    for (; r >= 0 && step.index < n; step.index++)
        r = decode_map(d, v + step.index * f->sub_size, f->sub, c, depth + 1);
    d->at = step.up;
    if (r < 0)
        return r;
    *out = (struct list){ v, n };
    return 0;
}

static int decode_strs(struct decoder *d, const struct field *f, struct strs *out, struct mp_cursor *c, size_t n)
{
    int r = check_count(d, f, n);
    if (r < 0)
        return r;
    struct str *v = n ? arena_array(d->arena, n, sizeof *v) : NULL;
    if (n && !v)
        return too_large(d);
    for (size_t i = 0; i < n; i++) {
        struct mp_val s;
        if (mp_next(c, &s) < 0 || s.type != MP_STR)
            return bad(d, "must be a list of text");
        v[i] = s.s;
    }
    *out = (struct strs){ v, n };
    return 0;
}

static int decode_strmap(struct decoder *d, const struct field *f, struct strmap *out, struct mp_cursor *c, size_t n)
{
    int r = check_count(d, f, n);
    if (r < 0)
        return r;
    struct strpair *v = n ? arena_array(d->arena, n, sizeof *v) : NULL;
    if (n && !v)
        return too_large(d);
    for (size_t i = 0; i < n; i++) {
        struct mp_val key, val;
        if (mp_next(c, &key) < 0 || key.type != MP_STR || mp_next(c, &val) < 0 || val.type != MP_STR)
            return bad(d, "must be a map of text to text");
        v[i] = (struct strpair){ key.s, val.s };
    }
    *out = (struct strmap){ v, n };
    return 0;
}

/* Types that hold other values: the head is read here so that a nil can stand for "absent". */
static int decode_container(struct decoder *d, const struct field *f, char *at, struct mp_cursor *c, int depth)
{
    struct mp_cursor before = *c;
    struct mp_val v;
    if (mp_next(c, &v) < 0)
        return bad(d, "malformed");
    if (v.type == MP_NIL && d->mode == FIELDS_VIEW)
        return 0;
    bool wants_map = f->type == F_OBJ || f->type == F_PTR || f->type == F_STRMAP;
    if (v.type != (wants_map ? MP_MAP : MP_ARRAY))
        return bad(d, wants_map ? "must be a map" : "must be a list");
    switch (f->type) {
    case F_LIST:
        return decode_list(d, f, (struct list *)at, c, v.n, depth);
    case F_STRS:
        return decode_strs(d, f, (struct strs *)at, c, v.n);
    case F_STRMAP:
        return decode_strmap(d, f, (struct strmap *)at, c, v.n);
    default:
        break;
    }
    void *sub = at;
    if (f->type == F_PTR) {
        sub = arena_alloc(d->arena, f->sub_size);
        if (!sub)
            return too_large(d);
        *(void **)at = sub;
    }
    *c = before;
    return decode_map(d, sub, f->sub, c, depth + 1);
}

static int decode_value(struct decoder *d, const struct field *f, void *out, struct mp_cursor *c, int depth)
{
    char *at = (char *)out + f->off;
    struct mp_val v;
    switch (f->type) {
    case F_RAW:
        return mp_span(c, (struct str *)at) < 0 ? bad(d, "malformed") : 0;
    case F_OBJ:
    case F_PTR:
    case F_LIST:
    case F_STRS:
    case F_STRMAP:
        return decode_container(d, f, at, c, depth);
    default:
        break;
    }
    if (mp_next(c, &v) < 0)
        return bad(d, "malformed");
    if (v.type == MP_NIL && d->mode == FIELDS_VIEW)
        return 0;
    switch (f->type) {
    case F_U64:
        return decode_u64(d, f, (uint64_t *)at, &v);
    case F_I64:
        return decode_i64(d, f, (int64_t *)at, &v);
    case F_STR:
    case F_BIN:
        return decode_text(d, f, (struct str *)at, &v);
    case F_BOOL:
        if (v.type != MP_BOOL)
            return bad(d, "must be true or false");
        *(bool *)at = v.b;
        return 0;
    case F_F64:
        if (v.type != MP_F64 && v.type != MP_UINT && v.type != MP_INT)
            return bad(d, "must be a number");
        *(double *)at = v.type == MP_F64 ? v.f : v.type == MP_UINT ? (double)v.u : (double)v.i;
        return 0;
    default:
        CHECK(!"field type");
        return 0;
    }
}

static int unknown(struct decoder *d, struct str key)
{
    char name[64];
    snprintf(name, sizeof name, STR_FMT, (int)(key.n < 60 ? key.n : 60), key.p);
    struct step step = { d->at, name, 0 };
    d->at = &step;
    int r = bad(d, "unknown field");
    d->at = step.up;
    return r;
}

/* One pair of the map. A name may stand twice in a table: a view wants both the value and its raw span. */
static int decode_pair(struct decoder *d, void *out, const struct field *table, struct mp_cursor *c, uint64_t *seen,
                       int depth)
{
    struct mp_val key;
    if (mp_next(c, &key) < 0 || key.type != MP_STR)
        return bad(d, "keys must be text");
    struct mp_cursor start = *c;
    bool known = false;
    for (size_t i = 0; table[i].name; i++) {
        const struct field *f = &table[i];
        if (key.s.n != f->name_n || memcmp(key.s.p, f->name, key.s.n) != 0)
            continue;
        struct step step = { d->at, f->name, 0 };
        bool twice = !known && d->mode == FIELDS_STRICT && i < 64 && (*seen >> i & 1);
        d->at = &step;
        if (i < 64)
            *seen |= 1ull << i;
        *c = start;
        int r = twice ? bad(d, "given twice") : decode_value(d, f, out, c, depth);
        d->at = step.up;
        if (r < 0)
            return r;
        known = true;
    }
    if (known)
        return 0;
    if (d->mode == FIELDS_STRICT)
        return unknown(d, key.s);
    return mp_skip(c) < 0 ? bad(d, "malformed") : 0;
}

static int missing(struct decoder *d, const struct field *f)
{
    struct step step = { d->at, f->name, 0 };
    d->at = &step;
    int r = bad(d, "is missing");
    d->at = step.up;
    return r;
}

static int decode_map(struct decoder *d, void *out, const struct field *table, struct mp_cursor *c, int depth)
{
    struct mp_val head;
    uint64_t seen = 0;
    if (depth > MP_DEPTH_MAX)
        return bad(d, "nested too deeply");
    if (mp_next(c, &head) < 0 || head.type != MP_MAP)
        return bad(d, "must be a map");
    for (size_t i = 0; i < head.n; i++) {
        int r = decode_pair(d, out, table, c, &seen, depth);
        if (r < 0)
            return r;
    }
    for (size_t i = 0; d->mode == FIELDS_STRICT && table[i].name; i++)
        if (i < 64 && table[i].required && !(seen >> i & 1))
            return missing(d, &table[i]);
    return 0;
}

int fields_decode(void *out, const struct field *table, size_t size, struct str in, enum fields_mode mode,
                  struct arena *a, struct err *e)
{
    struct decoder d = { .mode = mode, .arena = a, .e = e };
    struct mp_cursor c = mp_cursor(in);
    memset(out, 0, size);
    int r = decode_map(&d, out, table, &c, 0);
    if (r == 0 && c.p != c.end)
        r = bad(&d, "bytes left over");
    return r;
}

static bool all_zero(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i])
            return false;
    }
    return true;
}

static bool is_empty(const char *base, const struct field *f)
{
    const char *at = base + f->off;
    switch (f->type) {
    case F_U64:
    case F_I64:
        return *(const uint64_t *)at == 0;
    case F_BOOL:
        return !*(const bool *)at;
    case F_F64:
        return *(const double *)at == 0;
    case F_STR:
    case F_BIN:
    case F_RAW:
        return ((const struct str *)at)->n == 0;
    case F_PTR:
        return *(void *const *)at == NULL;
    case F_OBJ:
        return all_zero(at, f->sub_size);
    case F_LIST:
    case F_STRS:
    case F_STRMAP:
        return ((const struct list *)at)->n == 0;
    }
    return true;
}

static void encode_strs(const struct strs *s, struct buf *out)
{
    mp_array(out, s->n);
    for (size_t i = 0; i < s->n; i++)
        mp_str(out, s->v[i]);
}

static void encode_strmap(const struct strmap *m, struct buf *out)
{
    mp_map(out, m->n);
    for (size_t i = 0; i < m->n; i++) {
        mp_str(out, m->v[i].key);
        mp_str(out, m->v[i].val);
    }
}

static void encode_list(const struct field *f, const struct list *l, struct buf *out)
{
    mp_array(out, l->n);
    for (size_t i = 0; i < l->n; i++)
        fields_encode((const char *)l->v + i * f->sub_size, f->sub, out);
}

static void encode_value(const char *base, const struct field *f, struct buf *out)
{
    const char *at = base + f->off;
    switch (f->type) {
    case F_U64:
        mp_u64(out, *(const uint64_t *)at);
        return;
    case F_I64:
        mp_i64(out, *(const int64_t *)at);
        return;
    case F_BOOL:
        mp_bool(out, *(const bool *)at);
        return;
    case F_F64:
        mp_f64(out, *(const double *)at);
        return;
    case F_STR:
        mp_str(out, *(const struct str *)at);
        return;
    case F_BIN:
        mp_bin(out, *(const struct str *)at);
        return;
    case F_RAW:
        if (((const struct str *)at)->n)
            mp_raw(out, *(const struct str *)at);
        else
            mp_map(out, 0);
        return;
    case F_OBJ:
        fields_encode(at, f->sub, out);
        return;
    case F_PTR:
        fields_encode(*(void *const *)at, f->sub, out);
        return;
    case F_LIST:
        encode_list(f, (const struct list *)at, out);
        return;
    case F_STRS:
        encode_strs((const struct strs *)at, out);
        return;
    case F_STRMAP:
        encode_strmap((const struct strmap *)at, out);
        return;
    }
}

void fields_encode(const void *in, const struct field *table, struct buf *out)
{
    size_t n = 0;
    for (const struct field *f = table; f->name; f++)
        n += f->required || !is_empty(in, f);
    mp_map(out, n);
    for (const struct field *f = table; f->name; f++) {
        if (!f->required && is_empty(in, f))
            continue;
        mp_str(out, (struct str){ f->name, f->name_n });
        encode_value(in, f, out);
    }
}

static int check_field(const char *base, const struct field *f, struct err *e)
{
    const char *at = base + f->off;
    switch (f->type) {
    case F_U64: {
        uint64_t v = *(const uint64_t *)at;
        if (v >= f->min && v <= f->max)
            return 0;
        return err_set(e, ERR_INVALID, "%s: must be between %llu and %llu", f->name, (unsigned long long)f->min,
                       (unsigned long long)f->max);
    }
    case F_I64: {
        int64_t v = *(const int64_t *)at;
        if (v >= f->imin && v <= f->imax)
            return 0;
        return err_set(e, ERR_INVALID, "%s: must be between %lld and %lld", f->name, (long long)f->imin,
                       (long long)f->imax);
    }
    case F_STR:
    case F_BIN: {
        size_t n = ((const struct str *)at)->n;
        if (n >= f->min && n <= f->max)
            return 0;
        return err_set(e, ERR_INVALID, "%s: must have between %llu and %llu bytes", f->name, (unsigned long long)f->min,
                       (unsigned long long)f->max);
    }
    case F_LIST:
    case F_STRS:
    case F_STRMAP:
        if (((const struct list *)at)->n <= f->max)
            return 0;
        return err_set(e, ERR_INVALID, "%s: must have at most %llu entries", f->name, (unsigned long long)f->max);
    default:
        return 0;
    }
}

int fields_check(const void *in, const struct field *table, struct err *e)
{
    for (const struct field *f = table; f->name; f++) {
        int r = check_field(in, f, e);
        if (r < 0)
            return r;
        if (f->type == F_OBJ)
            r = fields_check((const char *)in + f->off, f->sub, e);
        if (r < 0)
            return err_wrap(e, "%s", f->name);
    }
    return 0;
}
