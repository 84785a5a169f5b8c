/*
 * mp.h - msgpack on the wire and in the store.
 *
 * Writing goes through msgpack-c into a struct buf. Reading goes through our own cursor, because a decoder must never
 * believe a count larger than the bytes that are left (msgpack-c 4.0 reserves 4 GB for "dd 07 ff ff ff").
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/util/err.h"
#include "common/util/str.h"

#define MP_DEPTH_MAX 32

void mp_nil(struct buf *b);
void mp_bool(struct buf *b, bool v);
void mp_u64(struct buf *b, uint64_t v);
void mp_i64(struct buf *b, int64_t v);
void mp_f64(struct buf *b, double v);
void mp_str(struct buf *b, struct str s);
void mp_cstr(struct buf *b, const char *s);
void mp_bin(struct buf *b, struct str s);
void mp_array(struct buf *b, size_t n);
void mp_map(struct buf *b, size_t n);
void mp_raw(struct buf *b, struct str span); /* one already encoded value */

/* Key-value shorthands for building maps. */
void mp_kv_str(struct buf *b, const char *key, struct str v);
void mp_kv_cstr(struct buf *b, const char *key, const char *v);
void mp_kv_u64(struct buf *b, const char *key, uint64_t v);
void mp_kv_i64(struct buf *b, const char *key, int64_t v);
void mp_kv_bool(struct buf *b, const char *key, bool v);
void mp_kv_raw(struct buf *b, const char *key, struct str span);

enum mp_type { MP_NIL, MP_BOOL, MP_UINT, MP_INT, MP_F64, MP_STR, MP_BIN, MP_ARRAY, MP_MAP };

/* One decoded head. For MP_ARRAY and MP_MAP, n says how many values (pairs) follow in the cursor. */
struct mp_val {
    enum mp_type type;
    union {
        bool b;
        uint64_t u; /* MP_UINT */
        int64_t i;  /* MP_INT: always negative */
        double f;
        struct str s; /* MP_STR, MP_BIN: borrowed from the input */
        size_t n;
    };
};

struct mp_cursor {
    const uint8_t *p, *end;
};

struct mp_cursor mp_cursor(struct str span);

/* mp_next - reads one head. 0, or -ERR_INVALID when the bytes are cut, reserved (0xc1), an extension type other than
 * mp_pack()'s, or a count exceeds the bytes left. */
int mp_next(struct mp_cursor *c, struct mp_val *ret);

/* mp_skip - steps over one whole value, at most MP_DEPTH_MAX deep. */
int mp_skip(struct mp_cursor *c);

/* mp_span - the bytes of the next whole value, borrowed; steps over it. */
int mp_span(struct mp_cursor *c, struct str *ret);

/* mp_valid - the input is exactly one well-formed value. */
bool mp_valid(struct str span);

/* mp_find - the value under `key` in an encoded map; false when the span is no map or has no such key. */
bool mp_find(struct str map, const char *key, struct str *ret);

/* mp_path - the same along "Spec.Mode.Replicated"; keys that contain dots cannot be reached. */
bool mp_path(struct str map, const char *path, struct str *ret);

/* Typed reads of an encoded scalar; false when it is something else. mp_get_* follow mp_path first. */
bool mp_as_u64(struct str span, uint64_t *ret);
bool mp_as_i64(struct str span, int64_t *ret);
bool mp_as_bool(struct str span, bool *ret);
bool mp_as_str(struct str span, struct str *ret);
bool mp_get_u64(struct str map, const char *path, uint64_t *ret);
bool mp_get_i64(struct str map, const char *path, int64_t *ret);
bool mp_get_bool(struct str map, const char *path, bool *ret);
bool mp_get_str(struct str map, const char *path, struct str *ret);

/* mp_merge - writes `base` with the top-level fields of `patch` laid over it: a field in `patch` replaces the one in
 * `base`, a nil removes it, everything else stays byte for byte. Both must be maps. */
int mp_merge(struct buf *out, struct str base, struct str patch, struct err *e);

/*
 * mp_pack - the same value in fewer bytes: field names and states that every task has become an extension type with the
 * word's number, three bytes. Whatever reads msgpack through this file sees the text; so packed and other values mix.
 * Only their bytes differ: what compares spans must compare like with like. -ERR_INVALID: not one whole value.
 */
int mp_pack(struct buf *out, struct str span);

/* mp_to_json - any encoded value as JSON text (binary as base64), for probes and logs. */
void mp_to_json(struct buf *out, struct str span);
