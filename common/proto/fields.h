/*
 * fields.h - one table per C struct, from which encoding, decoding, validation and printing come.
 *
 * Two ways of decoding: FIELDS_STRICT for messages between daemons (missing, repeated, unknown and out-of-range fields
 * are refused and named), FIELDS_VIEW for stored documents (only the listed fields are read; absent ones stay zero,
 * unknown ones are skipped). Decoded text and lists point into the input or into the arena, so both must outlive the
 * struct. Encoding writes optional fields only when they are not zero/empty.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/proto/mp.h"
#include "common/util/arena.h"
#include "common/util/err.h"
#include "common/util/str.h"

enum field_type {
    F_U64,    /* uint64_t */
    F_I64,    /* int64_t */
    F_BOOL,   /* bool */
    F_F64,    /* double */
    F_STR,    /* struct str: text */
    F_BIN,    /* struct str: bytes */
    F_RAW,    /* struct str: one encoded value of any type */
    F_OBJ,    /* an embedded struct with a table of its own */
    F_PTR,    /* a pointer to such a struct in the arena; NULL when absent */
    F_LIST,   /* struct list of such structs */
    F_STRS,   /* struct strs */
    F_STRMAP, /* struct strmap */
};

struct list {
    void *v; /* n structs of the table's size */
    size_t n;
};
struct strs {
    struct str *v;
    size_t n;
};
struct strpair {
    struct str key, val;
};
struct strmap {
    struct strpair *v;
    size_t n;
};

struct field {
    const char *name; /* as on the wire; NULL ends the table */
    size_t name_n;
    enum field_type type;
    bool required; /* FIELDS_STRICT refuses its absence */
    size_t off;
    uint64_t min, max;       /* F_U64: value; F_STR, F_BIN: length in bytes; F_LIST, F_STRS, F_STRMAP: count */
    int64_t imin, imax;      /* F_I64 */
    const struct field *sub; /* F_OBJ, F_PTR, F_LIST */
    size_t sub_size;
};

#define FIELD_TEXT_MAX 65536u
#define FIELD_LIST_MAX 1000000u

/* Names of the wire come from the struct's members: write members as they are spelled on the wire. */
#define FIELD_STR(st, m, minlen, maxlen)                                                                               \
    {                                                                                                                  \
        .name = #m, .name_n = sizeof #m - 1, .type = F_STR, .required = (minlen) > 0, .off = offsetof(st, m),          \
        .min = (minlen), .max = (maxlen)                                                                               \
    }
#define FIELD_BIN(st, m, minlen, maxlen)                                                                               \
    {                                                                                                                  \
        .name = #m, .name_n = sizeof #m - 1, .type = F_BIN, .required = (minlen) > 0, .off = offsetof(st, m),          \
        .min = (minlen), .max = (maxlen)                                                                               \
    }
#define FIELD_U64(st, m, lo, hi)                                                                                       \
    {                                                                                                                  \
        .name = #m, .name_n = sizeof #m - 1, .type = F_U64, .required = (lo) > 0, .off = offsetof(st, m), .min = (lo), \
        .max = (hi)                                                                                                    \
    }
#define FIELD_I64(st, m, lo, hi)                                                                                       \
    {                                                                                                                  \
        .name = #m, .name_n = sizeof #m - 1, .type = F_I64, .off = offsetof(st, m), .imin = (lo), .imax = (hi)         \
    }
#define FIELD_BOOL(st, m)                                                                                              \
    {                                                                                                                  \
        .name = #m, .name_n = sizeof #m - 1, .type = F_BOOL, .off = offsetof(st, m)                                    \
    }
#define FIELD_F64(st, m)                                                                                               \
    {                                                                                                                  \
        .name = #m, .name_n = sizeof #m - 1, .type = F_F64, .off = offsetof(st, m)                                     \
    }
#define FIELD_RAW(st, m)                                                                                               \
    {                                                                                                                  \
        .name = #m, .name_n = sizeof #m - 1, .type = F_RAW, .off = offsetof(st, m)                                     \
    }
#define FIELD_RAW_REQ(st, m)                                                                                           \
    {                                                                                                                  \
        .name = #m, .name_n = sizeof #m - 1, .type = F_RAW, .required = true, .off = offsetof(st, m)                   \
    }
#define FIELD_OBJ(st, m, table, subst)                                                                                 \
    {                                                                                                                  \
        .name = #m, .name_n = sizeof #m - 1, .type = F_OBJ, .off = offsetof(st, m), .sub = (table),                    \
        .sub_size = sizeof(subst)                                                                                      \
    }
#define FIELD_PTR(st, m, table, subst)                                                                                 \
    {                                                                                                                  \
        .name = #m, .name_n = sizeof #m - 1, .type = F_PTR, .off = offsetof(st, m), .sub = (table),                    \
        .sub_size = sizeof(subst)                                                                                      \
    }
#define FIELD_LIST(st, m, table, subst, maxn)                                                                          \
    {                                                                                                                  \
        .name = #m, .name_n = sizeof #m - 1, .type = F_LIST, .off = offsetof(st, m), .max = (maxn), .sub = (table),    \
        .sub_size = sizeof(subst)                                                                                      \
    }
#define FIELD_STRS(st, m, maxn)                                                                                        \
    {                                                                                                                  \
        .name = #m, .name_n = sizeof #m - 1, .type = F_STRS, .off = offsetof(st, m), .max = (maxn)                     \
    }
#define FIELD_STRMAP(st, m, maxn)                                                                                      \
    {                                                                                                                  \
        .name = #m, .name_n = sizeof #m - 1, .type = F_STRMAP, .off = offsetof(st, m), .max = (maxn)                   \
    }
#define FIELD_END                                                                                                      \
    {                                                                                                                  \
        .name = NULL                                                                                                   \
    }

enum fields_mode { FIELDS_STRICT, FIELDS_VIEW };

/*
 * fields_decode - reads the map `in` into the struct at `out` (zeroed first).
 *
 * @in   borrowed; the struct points into it
 * @a    borrowed; lists and F_PTR structs are allocated here
 *
 * Returns 0, -ERR_INVALID (the message names the field by path), or -ERR_NOMEM.
 */
int fields_decode(void *out, const struct field *table, size_t size, struct str in, enum fields_mode mode,
                  struct arena *a, struct err *e);

/* fields_encode - appends the struct as a map. Fails only through out->failed. */
void fields_encode(const void *in, const struct field *table, struct buf *out);

/* fields_check - the ranges of a struct that was filled by hand; 0 or -ERR_INVALID naming the field. */
int fields_check(const void *in, const struct field *table, struct err *e);

/* An operation of a daemon: what it is called, what goes in, what comes out. The tables live in msg_<daemon>.c. */
struct op {
    const char *name;
    const char *doc; /* one sentence for the reference page */
    const struct field *req;
    size_t req_size;
    const struct field *rep;
    size_t rep_size;
};
