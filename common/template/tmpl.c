#include "common/template/tmpl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/template/gotext.h"
#include "common/template/tmpl_ast.h"
#include "common/util/check.h"

const struct tmpl_lang tmpl_go = { .name = "" };

static enum hint hint_of(const struct exec *ex, struct str field)
{
    return ex->mode == TMPL_API && ex->t->lang->hint ? ex->t->lang->hint(field) : HINT_NONE;
}

void *exec_arg(const struct exec *ex)
{
    return ex->arg;
}

enum tmpl_mode exec_mode(const struct exec *ex)
{
    return ex->mode;
}

struct val val_new(struct exec *ex, json_t *made)
{
    ex->made_bytes += 32 + (json_is_string(made) ? json_string_length(made) : 8 * json_array_size(made));
    ex->overflow |= ex->made_bytes > TMPL_MADE_MAX;
    if (made)
        json_array_append_new(ex->pool, made);
    return (struct val){ .j = made };
}

void val_drop(struct buf *b)
{
    if (b->p)
        explicit_bzero(b->p, b->cap);
    buf_done(b);
}

struct val val_text(struct exec *ex, struct buf *b)
{
    ex->overflow |= b->failed;
    json_t *s = json_stringn_nocheck(b->p ? b->p : "", b->n);
    val_drop(b);
    return val_new(ex, s);
}

struct str val_str(struct val v)
{
    return (struct str){ json_string_value(v.j), json_string_length(v.j) };
}

int val_want_text(struct exec *ex, struct val v)
{
    return json_is_string(v.j) ? 0 : exec_fail(ex, "wrong type for value; expected string");
}

int val_want_int(struct exec *ex, struct val v)
{
    return json_is_integer(v.j) ? 0 : exec_fail(ex, "wrong type for value; expected int");
}

int exec_fail(struct exec *ex, const char *fmt, ...)
{
    const char *start = ex->t->source.p;
    unsigned line = 1, at = ex->where ? ex->where->at : 0, line_start = 0;
    char why[300];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap); /* NOLINT(clang-analyzer-valist.Uninitialized): it was just started */
    va_end(ap);
    for (unsigned i = 0; i < at; i++)
        if (start[i] == '\n') {
            line++;
            line_start = i + 1;
        }
    const char *name = ex->t->lang->name;
    return err_set(ex->e, ERR_INVALID, "template: %s:%u:%u: executing \"%s\" at <%.*s>: %s", name, line,
                   at - line_start, name, ex->where ? (int)(ex->where->source.n < 80 ? ex->where->source.n : 80) : 0,
                   ex->where ? ex->where->source.p : "", why);
}

bool val_true(struct val v)
{
    return v.hint == HINT_STRUCT ? v.j != NULL : !jempty(v.j);
}

static void print_real(struct buf *b, double d)
{
    char text[40];

    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, d);
        if (strtod(text, NULL) == d)
            break;
    }
    buf_puts(b, text);
}

/* How members of objects print; of the template that is executed (one at a time, and they do not nest). */
static enum hint (*printing)(struct str field);

static void print_object(struct buf *b, json_t *obj)
{
    size_t n;
    const char **keys = jkeys_sorted(obj, &n);

    buf_puts(b, "map[");
    for (size_t i = 0; i < n; i++) {
        buf_printf(b, "%s%s:", i ? " " : "", keys[i]);
        val_print(b, (struct val){ .j = json_object_get(obj, keys[i]),
                                   .hint = printing ? printing(str_from(keys[i])) : HINT_NONE });
    }
    buf_putc(b, ']');
    free(keys);
}

void val_print(struct buf *b, struct val v)
{
    json_t *child;
    size_t i;

    switch (v.j ? json_typeof(v.j) : JSON_NULL) {
    case JSON_NULL:
        buf_puts(b, v.none ? "<no value>" : "<nil>");
        break;
    case JSON_STRING:
        if (v.hint == HINT_TIME)
            go_time(b, (struct str){ json_string_value(v.j), json_string_length(v.j) });
        else
            buf_put(b, json_string_value(v.j), json_string_length(v.j));
        break;
    case JSON_INTEGER:
        if (v.hint == HINT_DURATION)
            go_duration(b, json_integer_value(v.j));
        else
            buf_printf(b, "%" JSON_INTEGER_FORMAT, json_integer_value(v.j));
        break;
    case JSON_REAL:
        print_real(b, json_real_value(v.j));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        buf_puts(b, json_is_true(v.j) ? "true" : "false");
        break;
    case JSON_ARRAY:
        buf_putc(b, '[');
        for_each (v.j, i, child) {
            if (i)
                buf_putc(b, ' ');
            val_print(b, (struct val){ .j = child });
        }
        buf_putc(b, ']');
        break;
    case JSON_OBJECT:
        print_object(b, v.j);
        break;
    }
}

static const char *type_name(const struct exec *ex, struct val v)
{
    const char *own = json_is_object(v.j) && ex->t->lang->type_name ? ex->t->lang->type_name(ex->root, v.j) : NULL;

    if (own)
        return own;
    switch (v.j ? json_typeof(v.j) : JSON_NULL) {
    case JSON_STRING:
        return "string";
    case JSON_INTEGER:
        return "int64";
    case JSON_REAL:
        return "float64";
    case JSON_TRUE:
    case JSON_FALSE:
        return "bool";
    case JSON_ARRAY:
        return "[]interface {}";
    case JSON_OBJECT:
        return "map[string]interface {}";
    default:
        return "nil";
    }
}

static struct val zero_value(struct exec *ex, enum hint h)
{
    struct val v = { .hint = h };

    switch (h) {
    case HINT_STRING:
        v = val_new(ex, json_string(""));
        break;
    case HINT_TIME:
        v = val_new(ex, json_string("0001-01-01T00:00:00Z"));
        break;
    case HINT_INT:
    case HINT_DURATION:
        v = val_new(ex, json_integer(0));
        break;
    case HINT_BOOL:
        v.j = json_false();
        break;
    case HINT_LIST:
        v = val_new(ex, json_array());
        break;
    case HINT_MAP:
    case HINT_STRUCT:
        v = val_new(ex, json_object());
        break;
    default:
        break;
    }
    v.hint = h;
    return v;
}

/* The hint says what a value is only if the value can be that: "Plugins" is a list in a node, an object in info. */
static enum hint fitting(enum hint h, json_t *j)
{
    if (json_is_object(j))
        return h == HINT_MAP ? HINT_MAP : HINT_NONE;
    return h;
}

int tmpl_field(struct exec *ex, struct val v, struct str name, struct val *ret)
{
    char key[128];
    enum hint h = hint_of(ex, name);
    bool map = v.hint == HINT_MAP;

    if (!str_copy(key, sizeof key, name))
        return exec_fail(ex, "field name too long");
    if (!v.j || json_is_null(v.j))
        return exec_fail(ex, "nil pointer evaluating interface {}.%s", key);
    if (!json_is_object(v.j))
        return exec_fail(ex, "can't evaluate field %s in type %s", key, type_name(ex, v));
    if (ex->mode == TMPL_ROW && ex->t->lang->is_map)
        map = ex->t->lang->is_map(ex->root, v.j);
    json_t *member = json_object_get(v.j, key);
    if (!member && ex->mode == TMPL_API) /* where Go's name for a field isn't the API's */
        member = strcmp(key, "ID") == 0           ? json_object_get(v.j, "Id")
                 : strcmp(key, "APIVersion") == 0 ? json_object_get(v.j, "ApiVersion")
                                                  : NULL;
    if (member) {
        *ret = (struct val){ .j = json_is_null(member) ? NULL : member, .hint = fitting(h, member) };
        if (ex->t->lang->is_map && json_is_object(member) && ex->t->lang->is_map(ex->root, member))
            ret->hint = HINT_MAP;
        return 0;
    }
    if (map && ex->t->lang->needs_keys)
        return exec_fail(ex, "map has no entry for key \"%s\"", key);
    if (ex->mode == TMPL_HEADER || map) {
        *ret = (struct val){ .none = true };
        return 0;
    }
    if (h != HINT_NONE) {
        *ret = zero_value(ex, h);
        return 0;
    }
    if (ex->mode == TMPL_API)
        return exec_fail(ex, "map has no entry for key \"%s\"", key);
    const char *type = type_name(ex, v);
    return exec_fail(ex, "can't evaluate field %s in type %s", key,
                     strncmp(type, "map[", 4) == 0 ? "*formatter.row" : type);
}

static struct var *find_var(struct exec *ex, struct str name)
{
    for (unsigned i = ex->var_count; i > 0; i--)
        if (str_eq(ex->vars[i - 1].name, name))
            return &ex->vars[i - 1];
    return NULL;
}

static int eval_pipeline(struct exec *ex, const struct pipeline *pl, struct val dot, struct val *ret);

static int eval_operand(struct exec *ex, const struct operand *op, struct val dot, struct val *ret)
{
    struct var *var;
    struct val v = { .j = NULL };
    int r = 0;

    switch (op->kind) {
    case OP_DOT:
        v = dot;
        break;
    case OP_VAR:
        var = find_var(ex, op->name);
        ex->where = op;
        if (!var)
            return exec_fail(ex, "undefined variable");
        v = var->v;
        break;
    case OP_NIL:
        break;
    case OP_BOOL:
        v.j = op->i ? json_true() : json_false();
        break;
    case OP_INT:
        v = val_new(ex, json_integer(op->i));
        break;
    case OP_FLOAT:
        v = val_new(ex, json_real(op->f));
        break;
    case OP_TEXT:
        v = val_new(ex, json_stringn(op->name.p ? op->name.p : "", op->name.n));
        break;
    case OP_PIPE:
        r = eval_pipeline(ex, op->pipe, dot, &v);
        break;
    case OP_FUNC: {
        const struct tmpl_fn *f = tmpl_fn_find(ex->t->lang, op->name);
        ex->where = op;
        if (f->min > 0)
            return exec_fail(ex, "wrong number of args for %s: want at least %u got 0", f->name, f->min);
        r = f->fn(ex, NULL, 0, &v);
        break;
    }
    }
    ex->where = op;
    for (unsigned i = 0; r == 0 && i < op->field_count; i++)
        r = tmpl_field(ex, v, op->fields[i], &v);
    *ret = v;
    return r;
}

/* and, or: the first argument that decides; the rest isn't evaluated. */
static int eval_logic(struct exec *ex, const struct command *c, bool want, struct val dot, const struct val *final,
                      struct val *ret)
{
    for (const struct operand *a = c->args->next; a; a = a->next) {
        int r = eval_operand(ex, a, dot, ret);
        if (r < 0 || val_true(*ret) == want)
            return r;
    }
    if (final)
        *ret = *final;
    return 0;
}

static int eval_call(struct exec *ex, const struct command *c, struct val dot, const struct val *final, struct val *ret)
{
    const struct tmpl_fn *f = tmpl_fn_find(ex->t->lang, c->args->name);
    struct val args[34] = { { .j = NULL } };
    unsigned n = 0;

    ex->where = c->args;
    if (c->count - 1 + (final != NULL) < f->min || c->count - 1 + (final != NULL) > f->max)
        return exec_fail(ex, "wrong number of args for %s: want %s%u got %u", f->name, f->max > 9 ? "at least " : "",
                         f->min, c->count - 1 + (final != NULL));
    if (strcmp(f->name, "and") == 0 || strcmp(f->name, "or") == 0)
        return eval_logic(ex, c, f->name[0] == 'o', dot, final, ret);
    for (const struct operand *a = c->args->next; a; a = a->next) {
        int r = eval_operand(ex, a, dot, &args[n++]);
        if (r < 0)
            return r;
    }
    if (final)
        args[n++] = *final;
    ex->where = c->args;
    for (unsigned i = 0; i < n; i++) /* what it reads is work, too */
        ex->steps += (unsigned)(json_is_string(args[i].j)  ? json_string_length(args[i].j) / TMPL_STEP_BYTES
                                : json_is_array(args[i].j) ? json_array_size(args[i].j) / 8
                                                           : 1);
    if (ex->steps > TMPL_STEPS_MAX)
        return exec_fail(ex, "too much work");
    int r = f->fn(ex, args, n, ret);
    return r == 0 && ex->overflow ? exec_fail(ex, "it makes too much text") : r;
}

static int eval_pipeline(struct exec *ex, const struct pipeline *pl, struct val dot, struct val *ret)
{
    struct val v = { .j = NULL };
    bool first = true;
    int r = 0;

    if (++ex->depth > 4 * TMPL_DEPTH_MAX)
        return exec_fail(ex, "nested too deeply");
    for (const struct command *c = pl->commands; r == 0 && c; c = c->next, first = false) {
        struct val in = v;
        if (c->args->kind == OP_FUNC && c->args->field_count == 0) {
            r = eval_call(ex, c, dot, first ? NULL : &in, &v);
        } else {
            ex->where = c->args;
            if (c->count > 1 || !first)
                r = exec_fail(ex, "can't give argument to non-function " STR_FMT, STR_ARG(c->args->source));
            else
                r = eval_operand(ex, c->args, dot, &v);
        }
    }
    ex->depth--;
    *ret = v;
    return r;
}

static int set_vars(struct exec *ex, const struct pipeline *pl, const struct val *v, unsigned n)
{
    /* With one variable a range gives it the element, not the index. */
    unsigned skip = n > pl->decl_count ? n - pl->decl_count : 0;

    for (unsigned i = 0; i < pl->decl_count; i++) {
        struct val value = v[skip + i];
        struct var *var = pl->assign ? find_var(ex, pl->decl[i]) : NULL;
        if (!var) {
            if (ex->var_count == sizeof ex->vars / sizeof ex->vars[0])
                return exec_fail(ex, "too many variables");
            var = &ex->vars[ex->var_count++];
            var->name = pl->decl[i];
        }
        var->v = value;
    }
    return 0;
}

enum flow { FLOW_ON = 0, FLOW_BREAK = 1, FLOW_CONTINUE = 2 };

static int exec_list(struct exec *ex, const struct node *n, struct val dot);

static int range_step(struct exec *ex, const struct node *n, struct val key, struct val item)
{
    unsigned vars = ex->var_count;

    if (++ex->steps > TMPL_STEPS_MAX || ex->overflow)
        return exec_fail(ex, "too much work");
    int r = set_vars(ex, n->pipe, (struct val[]){ key, item }, 2);

    if (r == 0)
        r = exec_list(ex, n->body, item);
    ex->var_count = vars;
    return r;
}

static int exec_range(struct exec *ex, const struct node *n, struct val dot)
{
    struct val v = { .j = NULL };
    json_t *child;
    size_t i, count;
    unsigned vars = ex->var_count;
    int r = 0;
    struct pipeline plain = *n->pipe;

    plain.decl_count = 0;
    if ((r = eval_pipeline(ex, &plain, dot, &v)) < 0)
        return r;
    if (jempty(v.j) && (!v.j || json_is_array(v.j) || json_is_object(v.j)))
        r = exec_list(ex, n->otherwise, dot);
    else if (json_is_array(v.j)) {
        for_each (v.j, i, child) {
            r = range_step(ex, n, val_new(ex, json_integer((json_int_t)i)), (struct val){ .j = child });
            if (r < 0 || r == FLOW_BREAK)
                break;
        }
    } else if (json_is_object(v.j)) {
        const char **keys = jkeys_sorted(v.j, &count);
        ex->steps += (unsigned)(count / 8); /* sorting them */
        for (i = 0; i < count; i++) {
            struct val item = { .j = json_object_get(v.j, keys[i]) };
            r = range_step(ex, n, val_new(ex, json_string(keys[i])), item);
            if (r < 0 || r == FLOW_BREAK)
                break;
        }
        free(keys);
    } else {
        struct buf b = BUF_INIT;
        if (ex->t->lang->hint) /* else it may be part of a secret */
            val_print(&b, v);
        r = exec_fail(ex, "range can't iterate over %.100s", b.n ? buf_cstr(&b) : type_name(ex, v));
        buf_done(&b);
    }
    ex->var_count = vars;
    return r < 0 ? r : FLOW_ON;
}

static int exec_branch(struct exec *ex, const struct node *n, struct val dot)
{
    unsigned vars = ex->var_count;
    struct val v;
    int r = eval_pipeline(ex, n->pipe, dot, &v);

    if (r == 0)
        r = set_vars(ex, n->pipe, &v, 1);
    if (r == 0) {
        if (val_true(v))
            r = exec_list(ex, n->body, n->kind == NODE_WITH ? v : dot);
        else
            r = exec_list(ex, n->otherwise, dot);
    }
    ex->var_count = vars;
    return r;
}

static int exec_node(struct exec *ex, const struct node *n, struct val dot)
{
    struct val v;
    int r;

    if (++ex->steps > TMPL_STEPS_MAX)
        return exec_fail(ex, "too much work");
    switch (n->kind) {
    case NODE_TEXT:
        buf_put(ex->out, n->text.p, n->text.n);
        return ex->out->failed ? exec_fail(ex, "the expanded text is too long") : 0;
    case NODE_ACTION:
        r = eval_pipeline(ex, n->pipe, dot, &v);
        if (r == 0)
            r = set_vars(ex, n->pipe, &v, 1);
        if (r == 0 && n->pipe->decl_count == 0)
            val_print(ex->out, v);
        if (r == 0 && ex->out->failed)
            return exec_fail(ex, "the expanded text is too long");
        return r;
    case NODE_IF:
    case NODE_WITH:
        return exec_branch(ex, n, dot);
    case NODE_RANGE:
        return exec_range(ex, n, dot);
    case NODE_BREAK:
        return FLOW_BREAK;
    case NODE_CONTINUE:
        return FLOW_CONTINUE;
    }
    return 0;
}

/* 0, or -code, or how a range goes on. */
static int exec_list(struct exec *ex, const struct node *n, struct val dot)
{
    for (; n; n = n->next) {
        int r = exec_node(ex, n, dot);
        if (r != 0)
            return r;
    }
    return 0;
}

/* drop_pool - its texts are nobody else's, and may be parts of secrets. */
static void drop_pool(json_t *pool)
{
    json_t *made;
    size_t i;

    for_each (pool, i, made)
        if (json_is_string(made))
            explicit_bzero((char *)(uintptr_t)json_string_value(made), json_string_length(made));
    json_decref(pool);
}

int tmpl_exec(const struct tmpl *t, json_t *data, enum tmpl_mode mode, void *arg, struct buf *out, struct err *e)
{
    struct exec ex = { .t = t, .mode = mode, .arg = arg, .root = data, .out = out, .e = e, .pool = json_array() };
    struct val dot = { .j = data };

    CHECK(ex.pool);
    ex.vars[ex.var_count++] = (struct var){ STR("$"), dot };
    printing = t->lang->hint;
    int r = exec_list(&ex, t->root, dot);
    drop_pool(ex.pool);
    return r < 0 ? r : 0;
}

static bool pipe_uses(const struct pipeline *pl, const char *field)
{
    for (const struct command *c = pl ? pl->commands : NULL; c; c = c->next)
        for (const struct operand *a = c->args; a; a = a->next) {
            for (unsigned i = 0; i < a->field_count; i++)
                if (str_is(a->fields[i], field))
                    return true;
            if (pipe_uses(a->pipe, field))
                return true;
        }
    return false;
}

static bool list_uses(const struct node *n, const char *field)
{
    for (; n; n = n->next)
        if (pipe_uses(n->pipe, field) || list_uses(n->body, field) || list_uses(n->otherwise, field))
            return true;
    return false;
}

bool tmpl_uses(const struct tmpl *t, const char *field)
{
    return list_uses(t->root, field);
}
