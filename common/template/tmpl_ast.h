/* tmpl_ast.h - a parsed template; shared by tmpl_parse.c, tmpl.c and tmpl_fn.c only. Everything lives in the arena. */
#pragma once

#include "common/template/tmpl_fn.h"
#include "common/util/arena.h"

#define TMPL_DEPTH_MAX 64      /* nested blocks and parentheses */
#define TMPL_STEPS_MAX 2000000 /* nodes executed, and what functions read, in parts of TMPL_STEP_BYTES */
#define TMPL_STEP_BYTES 256u
#define TMPL_MADE_MAX (16u << 20) /* bytes of text that functions make */
#define TMPL_PARTS_MAX 200000u    /* pieces that a source is parsed to */

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
    unsigned at;       /* byte offset: where Go says an error is, at the second of its parts */
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
    const struct tmpl_lang *lang;
    struct arena arena;
    struct str source;
    struct node *root;
};

struct exec {
    const struct tmpl *t;
    enum tmpl_mode mode;
    void *arg;
    json_t *root;
    struct buf *out;
    struct err *e;
    json_t *pool; /* owns what functions made */
    unsigned steps, depth;
    size_t made_bytes;
    bool overflow;               /* functions made more than they may */
    const struct operand *where; /* for errors */
    struct var {
        struct str name;
        struct val v;
    } vars[32];
    unsigned var_count;
};

const struct tmpl_fn *tmpl_fn_find(const struct tmpl_lang *lang, struct str name);
int tmpl_field(struct exec *ex, struct val v, struct str name, struct val *ret);
