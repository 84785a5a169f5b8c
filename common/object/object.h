/*
 * object.h - the object model: one field table per object type (object_tables.c), in Docker's JSON names.
 *
 * From a table come: JSON <-> msgpack in both directions, validation with a path in the error, defaults and a diff.
 * In msgpack, times are wall ns (integers), bytes are bin; in JSON they are RFC 3339 and base64. Fields that a table
 * does not know are kept in both directions. Go's conventions hold: null equals absent; fields without OBJ_ALWAYS are
 * left out of JSON when they are zero ("", 0, false, empty list or map).
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "common/proto/mp.h"
#include "common/util/err.h"

enum obj_ftype {
    OT_STR,
    OT_INT, /* int64 */
    OT_UINT,
    OT_BOOL,
    OT_F64,
    OT_TIME,  /* wall ns <-> RFC 3339 */
    OT_DUR,   /* int64 nanoseconds; integer in JSON */
    OT_BYTES, /* bin <-> base64 */
    OT_ENUM,  /* text out of `values` */
    OT_OBJ,
    OT_LIST, /* of `item` objects */
    OT_STRS,
    OT_STRMAP,
    OT_ANY, /* taken as it is */
};

enum {
    OBJ_ALWAYS = 1,      /* in JSON even when zero; then with its default if it has one (Docker's enums) */
    OBJ_REQUIRED = 2,    /* validation refuses its absence or "" */
    OBJ_SECRET = 4,      /* never in output or in a diff's text */
    OBJ_KEEP = 8,        /* an empty object or explicit false/0 differs from absence: keep it (pointers in Go) */
    OBJ_INPUT_ONLY = 16, /* accepted from clients, never returned */
    OBJ_INTERNAL = 32,   /* the store's own: never shown to clients */
};

struct obj_type;
struct obj_field {
    const char *name;
    enum obj_ftype type;
    unsigned flags;
    int64_t min, max;          /* numbers; text: length; lists: count. max 0: type's own limit */
    const char *const *values; /* OT_ENUM: NULL-ended */
    const struct obj_type *sub;
    const char *def;      /* JSON text of the default that `insertDefaults` shows; NULL: none */
    const char *def_from; /* the default is this earlier field of the same object, if that is given */
    int (*check)(json_t *v, const char *path, struct err *e); /* more rules; may be NULL */
    const char *doc;                                          /* one line for the reference page */
};
struct obj_type {
    const char *name;
    const struct obj_field *fields;                             /* ends with name NULL */
    int (*check)(json_t *obj, const char *path, struct err *e); /* rules over several fields; may be NULL */
};

#define OBJ_FIELDS_MAX 64 /* of one table */
#define OBJ_JSON_MAX (16u << 20)
#define OBJ_DEPTH_MAX 32

extern const struct obj_type obj_service_spec, obj_task_template, obj_container_spec, obj_endpoint_spec, obj_node_spec,
    obj_cluster_spec, obj_network_spec, obj_secret_spec, obj_config_spec;
extern const struct obj_type obj_service, obj_task, obj_node, obj_cluster, obj_network, obj_secret, obj_config,
    obj_taskspec;                                                              /* stored documents */
extern const struct obj_type obj_swarm_init, obj_swarm_join, obj_swarm_unlock; /* request bodies */

/*
 * obj_check - validates; nulls are removed from `doc` and names that differ from a field's only in case get the field's
 * spelling (as in Go), nothing else changes. -ERR_INVALID; the message starts with the
 * path: "TaskTemplate.ContainerSpec.Mounts[2].Type: must be bind, volume or tmpfs".
 */
int obj_check(const struct obj_type *t, json_t *doc, struct err *e);

/* obj_fold - only that, without judging: for requests that are looked at before they are checked. What is there in both
 * spellings stays so, for obj_check() to refuse. */
void obj_fold(const struct obj_type *t, json_t *doc);

/* obj_parse - JSON text to a checked DOM (given). Limits: 16 MiB, depth 32, no repeated keys. Errors in Docker's words:
 * "invalid JSON: ...". */
int obj_parse(const struct obj_type *t, struct str text, json_t **ret, struct err *e);

/* obj_pack - DOM to msgpack (appended). The DOM must have passed obj_check. */
int obj_pack(const struct obj_type *t, json_t *doc, struct buf *out, struct err *e);

/* obj_unpack - msgpack to DOM (given), in the shape clients expect: OBJ_ALWAYS fields present, secrets left out. */
int obj_unpack(const struct obj_type *t, struct str doc, json_t **ret, struct err *e);

/* obj_write_json - the same straight to text, appended; the fast path for lists. */
int obj_write_json(const struct obj_type *t, struct str doc, struct buf *out, struct err *e);

/* The same with top-level fields laid over the document, for what isn't stored in it: a task's Spec, a node's
 * ManagerStatus, a service's ServiceStatus. `val` is one encoded value; an empty one hides the field. */
struct obj_overlay {
    const char *name;
    struct str val;
};
int obj_write_json_with(const struct obj_type *t, struct str doc, const struct obj_overlay *over, size_t n,
                        struct buf *out, struct err *e);

/* obj_defaults - fills in what is absent and has a default (deeply). */
int obj_defaults(const struct obj_type *t, json_t *doc, struct err *e);

/* obj_diff - calls fn for each leaf path that differs between two DOMs (either may be NULL); true if any did.
 * Zero and absent are equal unless OBJ_KEEP. fn may be NULL. Secret values come as NULL. */
typedef void obj_diff_fn(void *arg, const char *path, json_t *a, json_t *b);
bool obj_diff(const struct obj_type *t, json_t *a, json_t *b, obj_diff_fn *fn, void *arg);

/* obj_reference - the table as Markdown rows, for docs/reference. */
void obj_reference(const struct obj_type *t, struct buf *out);
