#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/template/tmpl_ast.h"
#include "common/util/check.h"

/* Reads the source once, left to right; `p` is inside an action whenever a token is asked for. */
struct parser {
    struct tmpl *t;
    const char *p, *end, *start;
    unsigned depth, ranges, parts;
    const char *what;    /* the pipeline is of: if, range, with, command */
    struct str vars[32]; /* in scope */
    unsigned var_count;
    struct err *e;
};

static unsigned line_of(const struct parser *ps, const char *p)
{
    unsigned line = 1;
    for (const char *q = ps->start; q < p; q++)
        line += *q == '\n';
    return line;
}

#define FAIL(ps, ...) fail((ps), __VA_ARGS__)
static int fail(struct parser *ps, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int fail(struct parser *ps, const char *fmt, ...)
{
    char why[300];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap); /* NOLINT(clang-analyzer-valist.Uninitialized): it was just started */
    va_end(ap);
    return err_set(ps->e, ERR_INVALID, "template: %s:%u: %s", ps->t->lang->name, line_of(ps, ps->p), why);
}

static void *node_alloc(struct parser *ps, size_t size)
{
    void *p = arena_alloc(&ps->t->arena, size);
    CHECK(p); /* the limit is far above what TMPL_PARTS_MAX need */
    ps->parts++;
    return p;
}

static void skip_blanks(struct parser *ps)
{
    while (ps->p < ps->end && isspace((unsigned char)*ps->p))
        ps->p++;
}

static bool at_close(const struct parser *ps)
{
    return ps->p + 1 < ps->end && ps->p[0] == '}' && ps->p[1] == '}';
}

/* "-}}" behind a blank: trims what follows. */
static bool at_trim_close(const struct parser *ps)
{
    return ps->p > ps->start && isspace((unsigned char)ps->p[-1]) && ps->p + 2 < ps->end && ps->p[0] == '-' &&
           ps->p[1] == '}' && ps->p[2] == '}';
}

static bool is_word(char c)
{
    return c == '_' || isalnum((unsigned char)c) || (unsigned char)c >= 0x80;
}

static struct str word(struct parser *ps)
{
    const char *from = ps->p;
    while (ps->p < ps->end && is_word(*ps->p))
        ps->p++;
    return (struct str){ from, (size_t)(ps->p - from) };
}

static bool take_char(struct parser *ps, char c)
{
    if (ps->p >= ps->end || *ps->p != c)
        return false;
    ps->p++;
    return true;
}

/* Ends the action; with a trim marker the blanks behind it are gone too. */
static int close_action(struct parser *ps)
{
    skip_blanks(ps);
    if (at_trim_close(ps)) {
        ps->p += 3;
        skip_blanks(ps);
        return 0;
    }
    if (at_close(ps)) {
        ps->p += 2;
        return 0;
    }
    if (ps->p >= ps->end)
        return FAIL(ps, "unclosed action");
    return FAIL(ps, "unexpected %.*s in command", (int)(ps->end - ps->p < 12 ? ps->end - ps->p : 12), ps->p);
}

static int put_escape(struct parser *ps, struct buf *b)
{
    char c = *ps->p++;
    static const char from[] = "abfnrtv\\\"'", to[] = "\a\b\f\n\r\t\v\\\"'";
    const char *hit = c ? strchr(from, c) : NULL;

    if (hit) {
        buf_putc(b, to[hit - from]);
        return 0;
    }
    unsigned digits = c == 'x' ? 2 : c == 'u' ? 4 : 0, v = 0;
    if (digits == 0 || ps->end - ps->p < (long)digits)
        return FAIL(ps, "invalid syntax");
    for (unsigned i = 0; i < digits; i++, ps->p++) {
        if (!isxdigit((unsigned char)*ps->p))
            return FAIL(ps, "invalid syntax");
        v = v * 16 + (unsigned)(isdigit((unsigned char)*ps->p) ? *ps->p - '0' : (*ps->p | 32) - 'a' + 10);
    }
    if (c == 'x' || v < 0x80) {
        buf_putc(b, (char)v);
    } else if (v < 0x800) {
        buf_putc(b, (char)(0xc0 | v >> 6));
        buf_putc(b, (char)(0x80 | (v & 0x3f)));
    } else {
        buf_putc(b, (char)(0xe0 | v >> 12));
        buf_putc(b, (char)(0x80 | (v >> 6 & 0x3f)));
        buf_putc(b, (char)(0x80 | (v & 0x3f)));
    }
    return 0;
}

static int quoted(struct parser *ps, char quote, struct str *ret)
{
    struct buf b = BUF_INIT;
    int r = 0;

    for (;;) {
        if (ps->p >= ps->end || (*ps->p == '\n' && quote != '`')) {
            r = FAIL(ps, quote == '`' ? "unterminated raw quoted string" : "unterminated quoted string");
            break;
        }
        char c = *ps->p++;
        if (c == quote)
            break;
        if (c == '\\' && quote != '`') {
            if (ps->p >= ps->end)
                continue;
            if ((r = put_escape(ps, &b)) < 0)
                break;
        } else {
            buf_putc(&b, c);
        }
    }
    *ret = arena_str(&ps->t->arena, buf_str(&b));
    buf_done(&b);
    return r;
}

static int number(struct parser *ps, struct operand *op)
{
    char text[64];
    size_t n = 0;
    char *end;

    while (ps->p < ps->end && n + 1 < sizeof text &&
           (isalnum((unsigned char)*ps->p) || *ps->p == '.' || *ps->p == '_' ||
            ((*ps->p == '+' || *ps->p == '-') && (n == 0 || text[n - 1] == 'e' || text[n - 1] == 'E'))))
        text[n++] = *ps->p++;
    text[n] = '\0';
    op->kind = OP_INT;
    op->i = strtoll(text, &end, 0);
    if (*end == '\0' && end != text)
        return 0;
    op->kind = OP_FLOAT;
    op->f = strtod(text, &end);
    if (*end == '\0' && end != text)
        return 0;
    return FAIL(ps, "bad number syntax: \"%s\"", text);
}

static int parse_pipeline(struct parser *ps, bool is_range, struct pipeline **ret);

static bool known_var(const struct parser *ps, struct str name)
{
    for (unsigned i = 0; i < ps->var_count; i++)
        if (str_eq(ps->vars[i], name))
            return true;
    return str_is(name, "$");
}

static int name_operand(struct parser *ps, struct operand *op)
{
    op->name = word(ps);
    op->kind = OP_FUNC;
    if (str_is(op->name, "true") || str_is(op->name, "false")) {
        op->kind = OP_BOOL;
        op->i = str_is(op->name, "true");
    } else if (str_is(op->name, "nil")) {
        op->kind = OP_NIL;
    } else if (!tmpl_fn_find(ps->t->lang, op->name)) {
        return FAIL(ps, "function \"" STR_FMT "\" not defined", STR_ARG(op->name));
    }
    return 0;
}

static int operand_start(struct parser *ps, struct operand *op)
{
    char c = ps->p < ps->end ? *ps->p : '\0';

    if (c == '"' || c == '`') {
        ps->p++;
        op->kind = OP_TEXT;
        return quoted(ps, c, &op->name);
    }
    if (c == '\'') {
        ps->p++;
        op->kind = OP_INT;
        int r = quoted(ps, c, &op->name);
        if (r == 0 && op->name.n != 1)
            return FAIL(ps, "malformed character constant");
        op->i = r == 0 ? (unsigned char)op->name.p[0] : 0;
        return r;
    }
    if (isdigit((unsigned char)c) ||
        ((c == '-' || c == '+') && ps->p + 1 < ps->end && isdigit((unsigned char)ps->p[1])))
        return number(ps, op);
    if (c == '$') {
        const char *from = ps->p++;
        word(ps);
        op->kind = OP_VAR;
        op->name = (struct str){ from, (size_t)(ps->p - from) };
        if (!known_var(ps, op->name))
            return FAIL(ps, "undefined variable \"" STR_FMT "\"", STR_ARG(op->name));
        return 0;
    }
    if (c == '(') {
        ps->p++;
        op->kind = OP_PIPE;
        if (++ps->depth > TMPL_DEPTH_MAX)
            return FAIL(ps, "max expression depth exceeded");
        ps->what = "parenthesized pipeline";
        int r = parse_pipeline(ps, false, &op->pipe);
        ps->depth--;
        skip_blanks(ps);
        if (r == 0 && !take_char(ps, ')'))
            return FAIL(ps, "unclosed left paren");
        return r;
    }
    if (c == '.') {
        op->kind = OP_DOT;
        return 0;
    }
    if (is_word(c) && !isdigit((unsigned char)c))
        return name_operand(ps, op);
    if (c == '\0')
        return FAIL(ps, "unclosed action");
    return FAIL(ps, "unexpected \"%c\" in operand", c);
}

static int operand(struct parser *ps, struct operand **ret)
{
    struct operand *op = node_alloc(ps, sizeof *op);
    struct str fields[32];
    const char *from = ps->p;

    op->at = (unsigned)(ps->p - ps->start);
    if (ps->parts > TMPL_PARTS_MAX)
        return FAIL(ps, "too many actions");
    int r = operand_start(ps, op);
    if (r < 0)
        return r;
    while (ps->p < ps->end && *ps->p == '.') {
        bool word_follows = ps->p + 1 < ps->end && is_word(ps->p[1]) && !isdigit((unsigned char)ps->p[1]);
        if (!word_follows) {
            if (op->kind == OP_DOT && op->field_count == 0) {
                ps->p++;
                break;
            }
            return FAIL(ps, "unexpected . after term");
        }
        if (op->kind == OP_TEXT || op->kind == OP_INT || op->kind == OP_FLOAT || op->kind == OP_BOOL ||
            op->kind == OP_NIL)
            return FAIL(ps, "unexpected . after term");
        ps->p++;
        if (op->field_count == sizeof fields / sizeof fields[0])
            return FAIL(ps, "too many fields");
        if (op->field_count == (op->kind == OP_DOT))
            op->at = (unsigned)(ps->p - ps->start) - 1;
        fields[op->field_count++] = word(ps);
    }
    op->source = (struct str){ from, (size_t)(ps->p - from) };
    op->fields = arena_array(&ps->t->arena, op->field_count + 1, sizeof *fields);
    CHECK(op->fields);
    memcpy(op->fields, fields, op->field_count * sizeof *fields);
    *ret = op;
    return 0;
}

static bool pipeline_ends(const struct parser *ps)
{
    return ps->p >= ps->end || *ps->p == ')' || at_close(ps) || at_trim_close(ps);
}

static int parse_command(struct parser *ps, struct command **ret)
{
    struct command *c = node_alloc(ps, sizeof *c);
    struct operand **tail = &c->args;

    for (;;) {
        skip_blanks(ps);
        if (pipeline_ends(ps) || *ps->p == '|')
            break;
        if (c->count > 0 && !isspace((unsigned char)ps->p[-1]))
            return FAIL(ps, "unexpected \"%c\" in operand", *ps->p);
        int r = operand(ps, tail);
        if (r < 0)
            return r;
        tail = &(*tail)->next;
        if (++c->count > 32)
            return FAIL(ps, "too many arguments");
    }
    if (c->count == 0)
        return ps->p >= ps->end ? FAIL(ps, "unclosed action") : FAIL(ps, "missing value for %s", ps->what);
    *ret = c;
    return 0;
}

/* "$k, $v := " or "$x = " in front of a pipeline; leaves p alone when there is none. */
static int declaration(struct parser *ps, bool is_range, struct pipeline *pl)
{
    const char *from = ps->p;
    struct str names[2];
    unsigned n = 0;

    while (n < 2 && take_char(ps, '$')) {
        const char *start = ps->p - 1;
        word(ps);
        names[n++] = (struct str){ start, (size_t)(ps->p - start) };
        skip_blanks(ps);
        if (n == 1 && is_range && take_char(ps, ','))
            skip_blanks(ps);
        else
            break;
    }
    bool declare = n > 0 && ps->p + 1 < ps->end && ps->p[0] == ':' && ps->p[1] == '=';
    bool assign = n > 0 && ps->p < ps->end && *ps->p == '=';
    if (!declare && !assign) {
        ps->p = from;
        return 0;
    }
    ps->p += declare ? 2 : 1;
    pl->assign = assign;
    pl->decl_count = n;
    for (unsigned i = 0; i < n; i++) {
        pl->decl[i] = names[i];
        if (assign && !known_var(ps, names[i]))
            return FAIL(ps, "undefined variable \"" STR_FMT "\"", STR_ARG(names[i]));
    }
    return 0;
}

static int parse_pipeline(struct parser *ps, bool is_range, struct pipeline **ret)
{
    struct pipeline *pl = node_alloc(ps, sizeof *pl);
    struct command **tail = &pl->commands;
    int r;

    skip_blanks(ps);
    if ((r = declaration(ps, is_range, pl)) < 0)
        return r;
    do {
        if ((r = parse_command(ps, tail)) < 0)
            return r;
        const struct operand *first = (*tail)->args;
        if (tail != &pl->commands && first->kind != OP_FUNC && first->kind != OP_PIPE)
            return FAIL(ps, "non executable command in pipeline stage 2");
        tail = &(*tail)->next;
    } while (take_char(ps, '|'));
    for (unsigned i = 0; !pl->assign && i < pl->decl_count; i++) {
        if (ps->var_count == sizeof ps->vars / sizeof ps->vars[0])
            return FAIL(ps, "too many variables");
        ps->vars[ps->var_count++] = pl->decl[i];
    }
    *ret = pl;
    return 0;
}

/* What ended a list of nodes. */
enum ender { END_EOF, END_END, END_ELSE, END_ELSE_IF, END_ELSE_WITH };

static int parse_list(struct parser *ps, struct node **ret, enum ender *ret_end);

/* if, range, with: pipeline, body, and what follows {{else}}. */
static int parse_block(struct parser *ps, enum node_kind kind, struct node *n)
{
    unsigned vars = ps->var_count;
    enum ender end;
    int r;

    n->kind = kind;
    if (++ps->depth > TMPL_DEPTH_MAX)
        return FAIL(ps, "max nesting depth exceeded");
    ps->what = kind == NODE_IF ? "if" : kind == NODE_RANGE ? "range" : "with";
    if ((r = parse_pipeline(ps, kind == NODE_RANGE, &n->pipe)) < 0 || (r = close_action(ps)) < 0)
        return r;
    ps->ranges += kind == NODE_RANGE;
    r = parse_list(ps, &n->body, &end);
    ps->ranges -= kind == NODE_RANGE;
    if (r < 0)
        return r;
    if (end == END_ELSE_IF || end == END_ELSE_WITH) {
        struct node *inner = node_alloc(ps, sizeof *inner);
        inner->at = (unsigned)(ps->p - ps->start);
        n->otherwise = inner;
        r = parse_block(ps, end == END_ELSE_IF ? NODE_IF : NODE_WITH, inner);
    } else {
        if (end == END_ELSE)
            r = parse_list(ps, &n->otherwise, &end);
        if (r == 0 && end == END_EOF)
            r = FAIL(ps, "unexpected EOF");
        else if (r == 0 && end != END_END)
            r = FAIL(ps, "expected end; found {{else}}");
    }
    ps->var_count = vars;
    ps->depth--;
    return r;
}

static bool keyword(struct parser *ps, const char *kw)
{
    size_t n = strlen(kw);
    if ((size_t)(ps->end - ps->p) < n || memcmp(ps->p, kw, n) != 0 || (ps->p + n < ps->end && is_word(ps->p[n])))
        return false;
    ps->p += n;
    return true;
}

static int parse_else(struct parser *ps, enum ender *end)
{
    skip_blanks(ps);
    *end = keyword(ps, "if") ? END_ELSE_IF : keyword(ps, "with") ? END_ELSE_WITH : END_ELSE;
    return *end == END_ELSE ? close_action(ps) : 0;
}

/* One action, p behind "{{"; a node, or in *end what finished the list, or neither for a comment. */
static int parse_action(struct parser *ps, struct node **ret, bool *ended, enum ender *end)
{
    struct node *n = node_alloc(ps, sizeof *n);

    *ended = false;
    *ret = NULL;
    if (ps->parts > TMPL_PARTS_MAX)
        return FAIL(ps, "too many actions");
    skip_blanks(ps);
    n->at = (unsigned)(ps->p - ps->start);
    if (ps->end - ps->p >= 2 && ps->p[0] == '/' && ps->p[1] == '*') {
        const char *close = memmem(ps->p, (size_t)(ps->end - ps->p), "*/", 2);
        if (!close)
            return FAIL(ps, "unclosed comment");
        ps->p = close + 2;
        return close_action(ps);
    }
    if (keyword(ps, "end")) {
        *ended = true;
        *end = END_END;
        return close_action(ps);
    }
    if (keyword(ps, "else")) {
        *ended = true;
        return parse_else(ps, end);
    }
    *ret = n;
    if (keyword(ps, "if"))
        return parse_block(ps, NODE_IF, n);
    if (keyword(ps, "range"))
        return parse_block(ps, NODE_RANGE, n);
    if (keyword(ps, "with"))
        return parse_block(ps, NODE_WITH, n);
    if (keyword(ps, "break") || keyword(ps, "continue")) {
        n->kind = ps->p[-1] == 'k' ? NODE_BREAK : NODE_CONTINUE;
        if (ps->ranges == 0)
            return FAIL(ps, "{{%s}} outside {{range}}", n->kind == NODE_BREAK ? "break" : "continue");
        return close_action(ps);
    }
    if (keyword(ps, "define") || keyword(ps, "template") || keyword(ps, "block"))
        return FAIL(ps, "named templates are not supported");
    n->kind = NODE_ACTION;
    ps->what = "command";
    int r = parse_pipeline(ps, false, &n->pipe);
    return r < 0 ? r : close_action(ps);
}

/* Literal text up to the next action, without the blanks a "{{- " takes away; NULL when nothing is left of it. */
static struct node *parse_text(struct parser *ps)
{
    const char *from = ps->p, *open = memmem(from, (size_t)(ps->end - from), "{{", 2), *stop = open ? open : ps->end;

    ps->p = stop;
    if (open) {
        ps->p = open + 2;
        if (ps->end - ps->p >= 2 && ps->p[0] == '-' && isspace((unsigned char)ps->p[1])) {
            ps->p += 2;
            while (stop > from && isspace((unsigned char)stop[-1]))
                stop--;
        }
    }
    if (stop == from)
        return NULL;
    struct node *n = node_alloc(ps, sizeof *n);
    n->kind = NODE_TEXT;
    n->text = (struct str){ from, (size_t)(stop - from) };
    return n;
}

static int parse_list(struct parser *ps, struct node **ret, enum ender *ret_end)
{
    struct node **tail = ret;

    for (;;) {
        bool more = memmem(ps->p, (size_t)(ps->end - ps->p), "{{", 2) != NULL, ended;
        struct node *n = parse_text(ps);
        if (n) {
            *tail = n;
            tail = &n->next;
        }
        if (!more) {
            *ret_end = END_EOF;
            return 0;
        }
        int r = parse_action(ps, &n, &ended, ret_end);
        if (r < 0 || ended)
            return r;
        if (n) {
            *tail = n;
            tail = &n->next;
        }
    }
}

int tmpl_parse(struct tmpl **ret, const struct tmpl_lang *lang, struct str text, struct err *e)
{
    struct tmpl *t = calloc(1, sizeof *t);
    enum ender end;

    CHECK(t);
    if (text.n > TMPL_SOURCE_MAX) {
        free(t);
        return err_set(e, ERR_TOO_BIG, "template: longer than %u KiB", TMPL_SOURCE_MAX >> 10);
    }
    t->lang = lang;
    arena_init(&t->arena, 512u << 20);
    t->source = arena_str(&t->arena, text);
    CHECK(t->source.p);
    struct parser ps = { .t = t, .p = t->source.p, .start = t->source.p, .end = t->source.p + t->source.n, .e = e };
    int r = parse_list(&ps, &t->root, &end);
    if (r == 0 && end != END_EOF)
        r = FAIL(&ps, end == END_END ? "unexpected {{end}}" : "unexpected {{else}}");
    if (r < 0) {
        tmpl_free(t);
        return r;
    }
    *ret = t;
    return 0;
}

struct tmpl *tmpl_free(struct tmpl *t)
{
    if (t) {
        arena_wipe(&t->arena);
        arena_done(&t->arena);
        free(t);
    }
    return NULL;
}
