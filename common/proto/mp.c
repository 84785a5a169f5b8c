#include "common/proto/mp.h"
#include "common/util/base64.h"

#include <msgpack.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static int write_cb(void *data, const char *p, size_t n)
{
    buf_put(data, p, n);
    return 0;
}

#define PACKER(b) (&(msgpack_packer){ .data = (b), .callback = write_cb })

void mp_nil(struct buf *b)
{
    msgpack_pack_nil(PACKER(b));
}

void mp_bool(struct buf *b, bool v)
{
    if (v)
        msgpack_pack_true(PACKER(b));
    else
        msgpack_pack_false(PACKER(b));
}

void mp_u64(struct buf *b, uint64_t v)
{
    msgpack_pack_uint64(PACKER(b), v);
}

void mp_i64(struct buf *b, int64_t v)
{
    msgpack_pack_int64(PACKER(b), v);
}

void mp_f64(struct buf *b, double v)
{
    msgpack_pack_double(PACKER(b), v);
}

void mp_str(struct buf *b, struct str s)
{
    msgpack_pack_str(PACKER(b), s.n);
    buf_put(b, s.p, s.n);
}

void mp_cstr(struct buf *b, const char *s)
{
    mp_str(b, str_from(s));
}

void mp_bin(struct buf *b, struct str s)
{
    msgpack_pack_bin(PACKER(b), s.n);
    buf_put(b, s.p, s.n);
}

void mp_array(struct buf *b, size_t n)
{
    msgpack_pack_array(PACKER(b), n);
}

void mp_map(struct buf *b, size_t n)
{
    msgpack_pack_map(PACKER(b), n);
}

void mp_raw(struct buf *b, struct str span)
{
    buf_put(b, span.p, span.n);
}

void mp_kv_str(struct buf *b, const char *key, struct str v)
{
    mp_cstr(b, key);
    mp_str(b, v);
}

void mp_kv_cstr(struct buf *b, const char *key, const char *v)
{
    mp_cstr(b, key);
    mp_cstr(b, v);
}

void mp_kv_u64(struct buf *b, const char *key, uint64_t v)
{
    mp_cstr(b, key);
    mp_u64(b, v);
}

void mp_kv_i64(struct buf *b, const char *key, int64_t v)
{
    mp_cstr(b, key);
    mp_i64(b, v);
}

void mp_kv_bool(struct buf *b, const char *key, bool v)
{
    mp_cstr(b, key);
    mp_bool(b, v);
}

void mp_kv_raw(struct buf *b, const char *key, struct str span)
{
    mp_cstr(b, key);
    mp_raw(b, span);
}

struct mp_cursor mp_cursor(struct str span)
{
    const uint8_t *p = (const uint8_t *)span.p;
    return (struct mp_cursor){ p, p ? p + span.n : p };
}

static bool take_be(struct mp_cursor *c, size_t width, uint64_t *ret)
{
    uint64_t v = 0;
    if ((size_t)(c->end - c->p) < width)
        return false;
    for (size_t i = 0; i < width; i++)
        v = v << 8 | *c->p++;
    *ret = v;
    return true;
}

static int take_bytes(struct mp_cursor *c, enum mp_type type, uint64_t n, struct mp_val *ret)
{
    if (n > (uint64_t)(c->end - c->p))
        return -ERR_INVALID;
    *ret = (struct mp_val){ .type = type, .s = { (const char *)c->p, (size_t)n } };
    c->p += n;
    return 0;
}

/* An element takes at least one byte, a pair two: a larger count is a lie. */
static int take_count(struct mp_cursor *c, enum mp_type type, uint64_t n, struct mp_val *ret)
{
    uint64_t left = (uint64_t)(c->end - c->p);
    if (n > (type == MP_MAP ? left / 2 : left))
        return -ERR_INVALID;
    *ret = (struct mp_val){ .type = type, .n = (size_t)n };
    return 0;
}

static int take_signed(struct mp_cursor *c, size_t width, struct mp_val *ret)
{
    uint64_t u;
    if (!take_be(c, width, &u))
        return -ERR_INVALID;
    int64_t v = width == 1 ? (int8_t)u : width == 2 ? (int16_t)u : width == 4 ? (int32_t)u : (int64_t)u;
    *ret = v < 0 ? (struct mp_val){ .type = MP_INT, .i = v } : (struct mp_val){ .type = MP_UINT, .u = (uint64_t)v };
    return 0;
}

static int take_float(struct mp_cursor *c, bool wide, struct mp_val *ret)
{
    uint64_t u;
    if (!take_be(c, wide ? 8 : 4, &u))
        return -ERR_INVALID;
    double d;
    if (wide) {
        memcpy(&d, &u, sizeof d);
    } else {
        uint32_t u32 = (uint32_t)u;
        float f;
        memcpy(&f, &u32, sizeof f);
        d = (double)f;
    }
    *ret = (struct mp_val){ .type = MP_F64, .f = d };
    return 0;
}

/* Types whose length stands in the next `width` bytes. */
static int take_sized(struct mp_cursor *c, enum mp_type type, size_t width, struct mp_val *ret)
{
    uint64_t n;
    if (!take_be(c, width, &n))
        return -ERR_INVALID;
    return type == MP_STR || type == MP_BIN ? take_bytes(c, type, n, ret) : take_count(c, type, n, ret);
}

/* ---- words ---- */

/*
 * Field names and texts that every task's document has, and what stands for them in a packed one: the position in this
 * table. It is part of what is stored: words are added at the end, and none is ever taken out or changed.
 */
#define W(s)                                                                                                           \
    {                                                                                                                  \
        s, sizeof s - 1                                                                                                \
    }
static const struct str words[] = {
    W("ServiceID"),
    W("Slot"),
    W("TaskSpecID"),
    W("NodeID"),
    W("DesiredState"),
    W("Status"),
    W("State"),
    W("Message"),
    W("Err"),
    W("Timestamp"),
    W("AppliedAt"),
    W("AppliedBy"),
    W("ContainerStatus"),
    W("ContainerID"),
    W("PID"),
    W("ExitCode"),
    W("PortStatus"),
    W("Ports"),
    W("Version"),
    W("Index"),
    W("Rev"),
    W("CreatedAt"),
    W("UpdatedAt"),
    W("StartNotBefore"),
    W("ReplacesID"),
    W("Restarts"),
    W("JobIteration"),
    W("Evict"),
    W("Reason"),
    W("NetworksAttachments"),
    W("NetworkID"),
    W("Addresses"),
    W("Aliases"),
    W("Protocol"),
    W("TargetPort"),
    W("PublishedPort"),
    W("PublishMode"),
    W("OwnerID"),
    W("OwnerKind"),
    W("new"),
    W("pending"),
    W("assigned"),
    W("accepted"),
    W("preparing"),
    W("ready"),
    W("starting"),
    W("running"),
    W("complete"),
    W("shutdown"),
    W("failed"),
    W("rejected"),
    W("remove"),
    W("orphaned"),
    W("created"),
    W("started"),
    W("prepared"),
    W("finished"),
    W("pending task scheduling"),
    W("scheduler assigned task to node"),
    W("scheduler confirmed task can run on preassigned node"),
    W("service"),
    W("task"),
    W("ingress"),
    W("host"),
    W("tcp"),
    W("udp"),
};
#undef W
#define WORDS (sizeof words / sizeof *words)
#define WORD_HEAD 0xd4 /* fixext 1: */
#define WORD_TYPE 'w'
#define WORD_SLOTS 256u /* twice as many as there are words, at least */
_Static_assert(WORDS * 2 <= WORD_SLOTS, "the table of words is half empty");

static uint8_t word_slot(struct str s)
{
    uint32_t h = (uint32_t)s.n;
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (unsigned char)s.p[i]) * 0x01000193u;
    return (uint8_t)(h ^ h >> 8 ^ h >> 16);
}

static uint8_t word_slots[WORD_SLOTS]; /* number + 1; 0: free */

static void fill_word_slots(void)
{
    for (size_t i = 0; i < WORDS; i++) {
        uint8_t at = word_slot(words[i]);
        while (word_slots[at])
            at++;
        word_slots[at] = (uint8_t)(i + 1);
    }
}

/* word_of - its number, or -1. */
static int word_of(struct str s)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_word_slots);
    for (uint8_t at = word_slot(s); word_slots[at]; at++)
        if (str_eq(words[word_slots[at] - 1], s))
            return word_slots[at] - 1;
    return -1;
}

int mp_next(struct mp_cursor *c, struct mp_val *ret)
{
    uint64_t u;
    if (c->p == c->end)
        return -ERR_INVALID;
    uint8_t h = *c->p++;
    if (h <= 0x7f) {
        *ret = (struct mp_val){ .type = MP_UINT, .u = h };
        return 0;
    }
    if (h >= 0xe0) {
        *ret = (struct mp_val){ .type = MP_INT, .i = (int8_t)h };
        return 0;
    }
    if (h <= 0x8f)
        return take_count(c, MP_MAP, h & 0x0f, ret);
    if (h <= 0x9f)
        return take_count(c, MP_ARRAY, h & 0x0f, ret);
    if (h <= 0xbf)
        return take_bytes(c, MP_STR, h & 0x1f, ret);
    switch (h) {
    case 0xc0:
        *ret = (struct mp_val){ .type = MP_NIL };
        return 0;
    case 0xc2:
    case 0xc3:
        *ret = (struct mp_val){ .type = MP_BOOL, .b = h == 0xc3 };
        return 0;
    case 0xc4:
    case 0xc5:
    case 0xc6:
        return take_sized(c, MP_BIN, (size_t)1 << (h - 0xc4), ret);
    case 0xca:
    case 0xcb:
        return take_float(c, h == 0xcb, ret);
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
        if (!take_be(c, (size_t)1 << (h - 0xcc), &u))
            return -ERR_INVALID;
        *ret = (struct mp_val){ .type = MP_UINT, .u = u };
        return 0;
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3:
        return take_signed(c, (size_t)1 << (h - 0xd0), ret);
    case WORD_HEAD:
        if (c->end - c->p < 2 || c->p[0] != WORD_TYPE || c->p[1] >= WORDS)
            return -ERR_INVALID;
        *ret = (struct mp_val){ .type = MP_STR, .s = words[c->p[1]] };
        c->p += 2;
        return 0;
    case 0xd9:
    case 0xda:
    case 0xdb:
        return take_sized(c, MP_STR, (size_t)1 << (h - 0xd9), ret);
    case 0xdc:
    case 0xdd:
        return take_sized(c, MP_ARRAY, (size_t)2 << (h - 0xdc), ret);
    case 0xde:
    case 0xdf:
        return take_sized(c, MP_MAP, (size_t)2 << (h - 0xde), ret);
    default: /* 0xc1 is reserved; other extension types have no meaning here */
        return -ERR_INVALID;
    }
}

/* step_over - a scalar of the usual kinds, as mp_next() would; false: it is something else, or cut. */
static inline bool step_over(struct mp_cursor *c)
{
    static const uint8_t wide[8] = { 1, 2, 4, 8, 1, 2, 4, 8 }; /* 0xcc..0xd3 */
    size_t left = (size_t)(c->end - c->p), n;
    if (left == 0)
        return false;
    uint8_t h = *c->p;
    if (h <= 0x7f || h >= 0xe0)
        n = 1;
    else if (h >= 0xa0 && h <= 0xbf)
        n = 1u + (h & 0x1f);
    else if (h >= 0xcc && h <= 0xd3)
        n = 1u + wide[h - 0xcc];
    else if (h == 0xd9 && left >= 2)
        n = 2u + c->p[1];
    else if (h == WORD_HEAD && left >= 3 && c->p[1] == WORD_TYPE && c->p[2] < WORDS)
        n = 3;
    else
        return false;
    if (n > left)
        return false;
    c->p += n;
    return true;
}

int mp_skip(struct mp_cursor *c)
{
    if (step_over(c))
        return 0;
    size_t left[MP_DEPTH_MAX]; /* values still to step over, per level */
    int depth = 0;
    left[0] = 1;
    while (depth >= 0) {
        if (left[depth] == 0) {
            depth--;
            continue;
        }
        left[depth]--;
        if (step_over(c))
            continue;
        struct mp_val v;
        int r = mp_next(c, &v);
        if (r < 0)
            return r;
        if (v.type == MP_ARRAY || v.type == MP_MAP) {
            if (++depth == MP_DEPTH_MAX)
                return -ERR_INVALID;
            left[depth] = v.type == MP_MAP ? v.n * 2 : v.n;
        }
    }
    return 0;
}

int mp_span(struct mp_cursor *c, struct str *ret)
{
    const uint8_t *start = c->p;
    int r = mp_skip(c);
    if (r == 0)
        *ret = (struct str){ (const char *)start, (size_t)(c->p - start) };
    return r;
}

bool mp_valid(struct str span)
{
    struct mp_cursor c = mp_cursor(span);
    return mp_skip(&c) == 0 && c.p == c.end;
}

static bool find_key(struct str map, struct str key, struct str *ret)
{
    struct mp_cursor c = mp_cursor(map);
    struct mp_val v, k;
    if (mp_next(&c, &v) < 0 || v.type != MP_MAP)
        return false;
    for (size_t i = 0; i < v.n; i++) {
        if (mp_next(&c, &k) < 0 || k.type != MP_STR)
            return false;
        if (str_eq(k.s, key))
            return mp_span(&c, ret) == 0;
        if (mp_skip(&c) < 0)
            return false;
    }
    return false;
}

bool mp_find(struct str map, const char *key, struct str *ret)
{
    return find_key(map, str_from(key), ret);
}

bool mp_path(struct str map, const char *path, struct str *ret)
{
    for (;;) {
        const char *dot = strchr(path, '.');
        struct str key = dot ? (struct str){ path, (size_t)(dot - path) } : str_from(path);
        if (!find_key(map, key, &map))
            return false;
        if (!dot) {
            *ret = map;
            return true;
        }
        path = dot + 1;
    }
}

static bool one(struct str span, struct mp_val *v)
{
    struct mp_cursor c = mp_cursor(span);
    return mp_next(&c, v) == 0;
}

bool mp_as_u64(struct str span, uint64_t *ret)
{
    struct mp_val v;
    if (!one(span, &v) || v.type != MP_UINT)
        return false;
    *ret = v.u;
    return true;
}

bool mp_as_i64(struct str span, int64_t *ret)
{
    struct mp_val v;
    if (!one(span, &v) || (v.type == MP_UINT && v.u > INT64_MAX) || (v.type != MP_UINT && v.type != MP_INT))
        return false;
    *ret = v.type == MP_INT ? v.i : (int64_t)v.u;
    return true;
}

bool mp_as_bool(struct str span, bool *ret)
{
    struct mp_val v;
    if (!one(span, &v) || v.type != MP_BOOL)
        return false;
    *ret = v.b;
    return true;
}

bool mp_as_str(struct str span, struct str *ret)
{
    struct mp_val v;
    if (!one(span, &v) || v.type != MP_STR)
        return false;
    *ret = v.s;
    return true;
}

bool mp_get_u64(struct str map, const char *path, uint64_t *ret)
{
    struct str s;
    return mp_path(map, path, &s) && mp_as_u64(s, ret);
}

bool mp_get_i64(struct str map, const char *path, int64_t *ret)
{
    struct str s;
    return mp_path(map, path, &s) && mp_as_i64(s, ret);
}

bool mp_get_bool(struct str map, const char *path, bool *ret)
{
    struct str s;
    return mp_path(map, path, &s) && mp_as_bool(s, ret);
}

bool mp_get_str(struct str map, const char *path, struct str *ret)
{
    struct str s;
    return mp_path(map, path, &s) && mp_as_str(s, ret);
}

/* A map taken apart. Most have few fields. */
#define PAIRS_FEW 48u
struct pair {
    struct str key, val;
    bool seen; /* of a patch: a field of the base was replaced by it */
};
struct pairs {
    struct pair few[PAIRS_FEW], *v;
    size_t n;
};

static void pairs_done(struct pairs *p)
{
    if (p->v != p->few)
        free(p->v);
}

/* pairs_read - an error when the span is not a map with text keys. */
static int pairs_read(struct pairs *p, struct str map, struct err *e)
{
    struct mp_cursor c = mp_cursor(map);
    struct mp_val v, k;
    p->v = p->few;
    p->n = 0;
    if (mp_next(&c, &v) < 0 || v.type != MP_MAP)
        return -ERR_INVALID;
    if (v.n > PAIRS_FEW && !(p->v = reallocarray(NULL, v.n, sizeof *p->v))) { /* n is no more than half the bytes */
        p->v = p->few;
        return err_set(e, ERR_NOMEM, "out of memory");
    }
    for (; p->n < v.n; p->n++) {
        struct pair *q = &p->v[p->n];
        q->seen = false;
        if (mp_next(&c, &k) < 0 || k.type != MP_STR || mp_span(&c, &q->val) < 0)
            return -ERR_INVALID;
        q->key = k.s;
    }
    return c.p == c.end ? 0 : -ERR_INVALID;
}

static bool is_nil(struct str span)
{
    return span.n == 1 && (uint8_t)span.p[0] == 0xc0; /* NOLINT: a span that was read has its bytes */
}

static void emit(struct buf *out, const struct pair *p)
{
    mp_str(out, p->key);
    mp_raw(out, p->val);
}

/* lay_over - puts the patch's values into the base's fields (nil where one goes); returns how many fields there will
 * be. Of keys that stand twice in the patch the first counts. */
static size_t lay_over(struct pairs *base, struct pairs *patch)
{
    size_t n = 0;
    for (size_t i = 0; i < base->n; i++) {
        struct pair *b = &base->v[i];
        for (size_t k = 0; k < patch->n; k++)
            if (str_eq(b->key, patch->v[k].key)) {
                b->val = patch->v[k].val;
                b->seen = true;
                break;
            }
        n += !(b->seen && is_nil(b->val));
    }
    for (size_t k = 0; k < patch->n; k++) {
        struct pair *q = &patch->v[k];
        for (size_t i = 0; i < base->n && !q->seen; i++)
            q->seen = base->v[i].seen && str_eq(base->v[i].key, q->key);
        n += !q->seen && !is_nil(q->val);
    }
    return n;
}

static int merge(struct buf *out, struct pairs *base, struct pairs *patch, struct str base_doc, struct str patch_doc,
                 struct err *e)
{
    int r = pairs_read(base, base_doc, e);
    if (r < 0)
        return r == -ERR_NOMEM ? r : err_set(e, ERR_INVALID, "document is not a map with text keys");
    r = pairs_read(patch, patch_doc, e);
    if (r < 0)
        return r == -ERR_NOMEM ? r : err_set(e, ERR_INVALID, "change is not a map with text keys");
    mp_map(out, lay_over(base, patch));
    for (size_t i = 0; i < base->n; i++)
        if (!(base->v[i].seen && is_nil(base->v[i].val)))
            emit(out, &base->v[i]);
    for (size_t k = 0; k < patch->n; k++)
        if (!patch->v[k].seen && !is_nil(patch->v[k].val))
            emit(out, &patch->v[k]);
    return out->failed ? err_set(e, ERR_NOMEM, "out of memory") : 0;
}

int mp_merge(struct buf *out, struct str base, struct str patch, struct err *e)
{
    struct pairs b, p;
    b.v = b.few;
    p.v = p.few;
    int r = merge(out, &b, &p, base, patch, e);
    pairs_done(&b);
    pairs_done(&p);
    return r;
}

static int json_value(struct buf *out, struct mp_cursor *c, int depth)
{
    struct mp_val v;
    if (depth > MP_DEPTH_MAX || mp_next(c, &v) < 0)
        return -ERR_INVALID;
    switch (v.type) {
    case MP_NIL:
        buf_puts(out, "null");
        return 0;
    case MP_BOOL:
        buf_puts(out, v.b ? "true" : "false");
        return 0;
    case MP_UINT:
        buf_printf(out, "%llu", (unsigned long long)v.u);
        return 0;
    case MP_INT:
        buf_printf(out, "%lld", (long long)v.i);
        return 0;
    case MP_F64:
        if (v.f != v.f || v.f - v.f != 0) /* NaN and infinities have no JSON */
            buf_puts(out, "null");
        else
            buf_printf(out, "%.17g", v.f);
        return 0;
    case MP_STR:
        buf_json_str(out, v.s);
        return 0;
    case MP_BIN:
        buf_putc(out, '"');
        base64_put(out, v.s);
        buf_putc(out, '"');
        return 0;
    case MP_ARRAY:
    case MP_MAP:
        break;
    }
    bool map = v.type == MP_MAP;
    buf_putc(out, map ? '{' : '[');
    for (size_t i = 0; i < v.n; i++) {
        if (i > 0)
            buf_putc(out, ',');
        if (map) {
            struct mp_val k;
            if (mp_next(c, &k) < 0 || k.type != MP_STR)
                return -ERR_INVALID;
            buf_json_str(out, k.s);
            buf_putc(out, ':');
        }
        if (json_value(out, c, depth + 1) < 0)
            return -ERR_INVALID;
    }
    buf_putc(out, map ? '}' : ']');
    return 0;
}

/* pack_value - one value, every text in it that is a word replaced. */
static int pack_value(struct buf *out, struct mp_cursor *c, int depth)
{
    const uint8_t *start = c->p;
    struct mp_val v;
    if (mp_next(c, &v) < 0 || ((v.type == MP_MAP || v.type == MP_ARRAY) && depth + 1 >= MP_DEPTH_MAX))
        return -ERR_INVALID; /* as mp_skip() */
    int word = v.type == MP_STR && v.s.n > 2 ? word_of(v.s) : -1;
    if (word >= 0) {
        const uint8_t b[] = { WORD_HEAD, WORD_TYPE, (uint8_t)word };
        buf_put(out, b, sizeof b);
        return 0;
    }
    buf_put(out, start, (size_t)(c->p - start));
    for (size_t i = v.type == MP_MAP ? 2 * v.n : v.type == MP_ARRAY ? v.n : 0; i > 0; i--)
        if (pack_value(out, c, depth + 1) < 0)
            return -ERR_INVALID;
    return 0;
}

int mp_pack(struct buf *out, struct str span)
{
    struct mp_cursor c = mp_cursor(span);
    return pack_value(out, &c, 0) == 0 && c.p == c.end ? 0 : -ERR_INVALID;
}

void mp_to_json(struct buf *out, struct str span)
{
    struct mp_cursor c = mp_cursor(span);
    size_t start = out->n;
    if (json_value(out, &c, 0) < 0 && !out->failed) {
        out->n = start; /* half a value would be no JSON at all */
        buf_puts(out, "null");
    }
}
