/* tmpl_fn.h - for those who give a template functions and types of their own. */
#pragma once

#include "common/template/tmpl.h"

/* How a field reads in Go: what an absent one is and how a present one prints. */
enum hint {
    HINT_NONE,
    HINT_STRING,
    HINT_INT,
    HINT_BOOL,
    HINT_LIST,
    HINT_MAP,
    HINT_STRUCT,
    HINT_NIL,
    HINT_DURATION,
    HINT_TIME
};

/* A value while executing; j is borrowed from the data or the pool. NULL j is nil; `none` is a key a map doesn't have.
 */
struct val {
    json_t *j;
    enum hint hint;
    bool none;
};

struct exec;

struct tmpl_fn {
    const char *name;
    unsigned min, max; /* arguments */
    int (*fn)(struct exec *ex, const struct val *args, unsigned n, struct val *ret);
};

struct tmpl_lang {
    const char *name; /* of templates, in errors */
    const struct tmpl_fn *fns;
    size_t fn_count;
    enum hint (*hint)(struct str field);                           /* TMPL_API: of fields, by name; may be NULL */
    const char *(*type_name)(const json_t *root, const json_t *v); /* Go's name of an object's type; NULL: a map */
    bool (*is_map)(const json_t *root, const json_t *v);           /* TMPL_ROW: a map, not a struct; NULL: none is */
    bool needs_keys;                                               /* of maps: one that is not there is an error */
};

void *exec_arg(const struct exec *ex);
enum tmpl_mode exec_mode(const struct exec *ex);
int exec_fail(struct exec *ex, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

struct val val_new(struct exec *ex, json_t *made);   /* taken into the pool; a text is wiped in the end */
struct val val_text(struct exec *ex, struct buf *b); /* made of b, which is emptied */
void val_drop(struct buf *b);                        /* a text on the way: wiped, as it may be part of a secret */
struct str val_str(struct val v);
int val_want_text(struct exec *ex, struct val v);
int val_want_int(struct exec *ex, struct val v);
bool val_true(struct val v);
void val_print(struct buf *b, struct val v);

#define TMPL_TEXT_MAX (4u << 20) /* of one value */
#define TMPL_BUF                                                                                                       \
    {                                                                                                                  \
        .limit = TMPL_TEXT_MAX                                                                                         \
    }
