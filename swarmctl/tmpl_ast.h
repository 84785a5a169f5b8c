/* tmpl_ast.h - a parsed template; shared by tmpl_parse.c, tmpl.c and tmpl_fn.c only. Everything lives in the arena. */
#pragma once

#include "common/util/arena.h"
#include "swarmctl/tmpl.h"

#define TMPL_DEPTH_MAX 64      /* nested blocks and parentheses */
#define TMPL_STEPS_MAX 2000000 /* nodes executed */

struct pipeline;

enum operand_kind { OP_DOT, OP_VAR, OP_NIL, OP_BOOL, OP_INT, OP_FLOAT, OP_TEXT, OP_FUNC, OP_PIPE };

/* One argument: a start and the fields taken from it, ".A.B" being OP_DOT with two. */
struct operand {
    enum operand_kind kind;
    struct str name; /* variable with its $, function, or text */
    int64_t i;
    double f;
    struct pipeline *pipe;
    struct str *fields;
    unsigned field_count;
    struct str source; /* as written, for errors */
    unsigned at;       /* byte offset */
    struct operand *next;
};

struct command {
    struct operand *args;
    unsigned count;
    struct command *next;
};

struct pipeline {
    struct str decl[2]; /* variables set, range may have two */
    unsigned decl_count;
    bool assign; /* "=" rather than ":=" */
    struct command *commands;
};

enum node_kind { NODE_TEXT, NODE_ACTION, NODE_IF, NODE_RANGE, NODE_WITH, NODE_BREAK, NODE_CONTINUE };

struct node {
    enum node_kind kind;
    struct str text;
    struct pipeline *pipe;
    struct node *body, *otherwise;
    unsigned at;
    struct node *next;
};

struct tmpl {
    struct arena arena;
    struct str source;
    struct node *root;
};

/* How a field of the API's types reads in Go, by its name: what an absent one is and how a present one prints. */
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
enum hint tmpl_hint(struct str field);

/* A value while executing; j is borrowed from the data or the pool. NULL j is nil; `none` is a key a map doesn't have.
 */
struct val {
    json_t *j;
    enum hint hint;
    bool none;
};

struct exec {
    const struct tmpl *t;
    enum tmpl_mode mode;
    struct buf *out;
    struct err *e;
    json_t *pool; /* owns what functions made */
    unsigned steps, depth;
    const struct operand *where; /* for errors */
    struct var {
        struct str name;
        struct val v;
    } vars[32];
    unsigned var_count;
};

struct val val_new(struct exec *ex, json_t *made); /* taken into the pool */
bool val_true(struct val v);
void val_print(struct buf *b, struct val v);
int exec_fail(struct exec *ex, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

struct tmpl_fn {
    const char *name;
    unsigned min, max;
    int (*fn)(struct exec *ex, const struct val *args, unsigned n, struct val *ret);
};
const struct tmpl_fn *tmpl_fn_find(struct str name);
int tmpl_field(struct exec *ex, struct val v, struct str name, struct val *ret);
