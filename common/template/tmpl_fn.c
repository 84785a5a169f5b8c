/* The functions a template may call. */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/template/gotext.h"
#include "common/template/tmpl_ast.h"

#define FN(name) static int fn_##name(struct exec *ex, const struct val *a, unsigned n, struct val *ret)

FN(not )
{
    (void)n;
    (void)ex;
    *ret = (struct val){ .j = val_true(a[0]) ? json_false() : json_true() };
    return 0;
}

FN(logic) /* and, or: the executor decides before it comes here */
{
    (void)ex;
    *ret = a[n - 1];
    return 0;
}

FN(len)
{
    (void)n;
    json_t *j = a[0].j;
    if (!json_is_string(j) && !json_is_array(j) && !json_is_object(j))
        return exec_fail(ex, "error calling len: len of %s", j ? "type number or bool" : "nil pointer");
    size_t len = json_is_string(j)  ? json_string_length(j)
                 : json_is_array(j) ? json_array_size(j)
                                    : json_object_size(j);
    *ret = val_new(ex, json_integer((json_int_t)len));
    return 0;
}

FN(index)
{
    struct val v = a[0];

    for (unsigned i = 1; i < n; i++) {
        if (json_is_array(v.j)) {
            if (val_want_int(ex, a[i]) < 0)
                return -ERR_INVALID;
            json_int_t at = json_integer_value(a[i].j);
            if (at < 0 || (size_t)at >= json_array_size(v.j))
                return exec_fail(ex, "error calling index: reflect: slice index out of range");
            v = (struct val){ .j = json_array_get(v.j, (size_t)at) };
        } else if (json_is_object(v.j)) {
            if (val_want_text(ex, a[i]) < 0)
                return -ERR_INVALID;
            json_t *item = json_object_get(v.j, json_string_value(a[i].j));
            if (item)
                v = (struct val){ .j = item };
            else if (v.hint == HINT_MAP)
                v = val_new(ex, json_string(""));
            else
                v = (struct val){ .none = true };
        } else if (json_is_string(v.j) && json_is_integer(a[i].j)) {
            json_int_t at = json_integer_value(a[i].j);
            if (at < 0 || (size_t)at >= json_string_length(v.j))
                return exec_fail(ex, "error calling index: index out of range: %" JSON_INTEGER_FORMAT, at);
            v = val_new(ex, json_integer((unsigned char)json_string_value(v.j)[at]));
        } else {
            return exec_fail(ex, "error calling index: %s",
                             v.j ? "can't index item of this type" : "index of untyped nil");
        }
    }
    *ret = v;
    return 0;
}

FN(slice)
{
    json_int_t from = 0, to;
    size_t len;

    if (!json_is_string(a[0].j) && !json_is_array(a[0].j))
        return exec_fail(ex, "error calling slice: can't slice item of this type");
    len = json_is_string(a[0].j) ? json_string_length(a[0].j) : json_array_size(a[0].j);
    to = (json_int_t)len;
    if (n > 1 && val_want_int(ex, a[1]) < 0)
        return -ERR_INVALID;
    if (n > 2 && val_want_int(ex, a[2]) < 0)
        return -ERR_INVALID;
    if (n > 1)
        from = json_integer_value(a[1].j);
    if (n > 2)
        to = json_integer_value(a[2].j);
    if (from < 0 || to < from || to > (json_int_t)len)
        return exec_fail(ex, "error calling slice: index out of range: %" JSON_INTEGER_FORMAT,
                         to > (json_int_t)len ? to : from);
    if (json_is_string(a[0].j)) {
        *ret = val_new(ex, json_stringn_nocheck(json_string_value(a[0].j) + from, (size_t)(to - from)));
        return 0;
    }
    json_t *list = json_array();
    for (json_int_t i = from; i < to; i++)
        json_array_append(list, json_array_get(a[0].j, (size_t)i));
    *ret = val_new(ex, list);
    return 0;
}

FN(print)
{
    struct buf b = TMPL_BUF;
    for (unsigned i = 0; i < n; i++) {
        if (i && !json_is_string(a[i].j) && !json_is_string(a[i - 1].j))
            buf_putc(&b, ' ');
        val_print(&b, a[i]);
    }
    *ret = val_text(ex, &b);
    return 0;
}

FN(println)
{
    struct buf b = TMPL_BUF;
    for (unsigned i = 0; i < n; i++) {
        if (i)
            buf_putc(&b, ' ');
        val_print(&b, a[i]);
    }
    buf_putc(&b, '\n');
    *ret = val_text(ex, &b);
    return 0;
}

static int order(struct exec *ex, struct val x, struct val y, int *ret)
{
    if (json_is_string(x.j) && json_is_string(y.j)) {
        *ret = str_cmp(val_str(x), val_str(y));
    } else if (json_is_integer(x.j) && json_is_integer(y.j)) {
        json_int_t l = json_integer_value(x.j), r = json_integer_value(y.j);
        *ret = (l > r) - (l < r);
    } else if (json_is_number(x.j) && json_is_number(y.j)) {
        double l = json_number_value(x.j), r = json_number_value(y.j);
        *ret = (l > r) - (l < r);
    } else {
        return exec_fail(ex, "error calling comparison: incompatible types for comparison");
    }
    return 0;
}

static int equal(struct exec *ex, struct val x, struct val y, bool *ret)
{
    int c = 0;

    if (!x.j || !y.j) {
        *ret = !x.j && !y.j;
        return 0;
    }
    if (json_is_boolean(x.j) && json_is_boolean(y.j)) {
        *ret = json_is_true(x.j) == json_is_true(y.j);
        return 0;
    }
    if (order(ex, x, y, &c) < 0)
        return -ERR_INVALID;
    *ret = c == 0;
    return 0;
}

static struct val truth(bool b)
{
    return (struct val){ .j = b ? json_true() : json_false() };
}

FN(eq)
{
    bool same = false;
    for (unsigned i = 1; i < n && !same; i++)
        if (equal(ex, a[0], a[i], &same) < 0)
            return -ERR_INVALID;
    *ret = truth(same);
    return 0;
}

FN(ne)
{
    bool same = false;
    (void)n;
    if (equal(ex, a[0], a[1], &same) < 0)
        return -ERR_INVALID;
    *ret = truth(!same);
    return 0;
}

#define ORDER_FN(name, test)                                                                                           \
    FN(name)                                                                                                           \
    {                                                                                                                  \
        int c = 0;                                                                                                     \
        (void)n;                                                                                                       \
        if (order(ex, a[0], a[1], &c) < 0)                                                                             \
            return -ERR_INVALID;                                                                                       \
        *ret = truth(c test 0);                                                                                        \
        return 0;                                                                                                      \
    }
ORDER_FN(lt, <)
ORDER_FN(le, <=)
ORDER_FN(gt, >)
ORDER_FN(ge, >=)

static void print_all(struct buf *b, const struct val *a, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        val_print(b, a[i]);
}

FN(html)
{
    struct buf in = TMPL_BUF, b = TMPL_BUF;

    print_all(&in, a, n);
    for (size_t i = 0; i < in.n; i++) {
        switch (in.p[i]) {
        case '<':
            buf_puts(&b, "&lt;");
            break;
        case '>':
            buf_puts(&b, "&gt;");
            break;
        case '&':
            buf_puts(&b, "&amp;");
            break;
        case '"':
            buf_puts(&b, "&#34;");
            break;
        case '\'':
            buf_puts(&b, "&#39;");
            break;
        default:
            buf_putc(&b, in.p[i]);
        }
    }
    val_drop(&in);
    *ret = val_text(ex, &b);
    return 0;
}

FN(js)
{
    struct buf in = TMPL_BUF, b = TMPL_BUF;

    print_all(&in, a, n);
    for (size_t i = 0; i < in.n; i++) {
        unsigned char c = (unsigned char)in.p[i];
        if (c == '\\' || c == '\'' || c == '"')
            buf_printf(&b, "\\%c", c);
        else if (c < 0x20 || strchr("<>&=", c))
            buf_printf(&b, "\\u%04X", c);
        else
            buf_putc(&b, (char)c);
    }
    val_drop(&in);
    *ret = val_text(ex, &b);
    return 0;
}

FN(urlquery)
{
    struct buf in = TMPL_BUF, b = TMPL_BUF;

    print_all(&in, a, n);
    for (size_t i = 0; i < in.n; i++) {
        unsigned char c = (unsigned char)in.p[i];
        if (isalnum(c) || (c && strchr("-_.~", c)))
            buf_putc(&b, (char)c);
        else if (c == ' ')
            buf_putc(&b, '+');
        else
            buf_printf(&b, "%%%02X", c);
    }
    val_drop(&in);
    *ret = val_text(ex, &b);
    return 0;
}

/* One verb of printf: flags, width and precision go to the C library once they are known to be small. */
struct verb {
    char flags[8];
    int width, precision;
    char verb;
};

static const char *read_verb(const char *p, const char *end, struct verb *v)
{
    size_t n = 0;

    *v = (struct verb){ .precision = -1 };
    while (p < end && strchr("-+ #0", *p) && *p) {
        if (n + 1 < sizeof v->flags && !strchr(v->flags, *p))
            v->flags[n++] = *p;
        p++;
    }
    for (; p < end && isdigit((unsigned char)*p); p++)
        v->width = v->width > 1000 ? 1000 : v->width * 10 + (*p - '0');
    if (p < end && *p == '.')
        for (v->precision = 0, p++; p < end && isdigit((unsigned char)*p); p++)
            v->precision = v->precision > 1000 ? 1000 : v->precision * 10 + (*p - '0');
    if (p < end)
        v->verb = *p++;
    return p;
}

static void put_padded(struct buf *b, const struct verb *v, struct str s)
{
    size_t cols = text_columns(s), fill = (size_t)v->width > cols ? (size_t)v->width - cols : 0;
    bool left = strchr(v->flags, '-') != NULL;

    for (size_t i = 0; !left && i < fill; i++)
        buf_putc(b, ' ');
    buf_put(b, s.p, s.n);
    for (size_t i = 0; left && i < fill; i++)
        buf_putc(b, ' ');
}

static void put_number(struct buf *b, const struct verb *v, struct val a, bool *ret_ok)
{
    char fmt[24], text[1200];
    char type = v->verb;

    *ret_ok = true;
    if (json_is_integer(a.j) && strchr("dxXoc", type)) {
        snprintf(fmt, sizeof fmt, "%%%s*%s", v->flags,
                 type == 'c'   ? "c"
                 : type == 'd' ? "lld"
                 : type == 'o' ? "llo"
                 : type == 'x' ? "llx"
                               : "llX");
        if (type == 'c')
            snprintf(text, sizeof text, "%c", (int)json_integer_value(a.j));
        else {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(text, sizeof text, fmt, v->width, json_integer_value(a.j));
#pragma GCC diagnostic pop
        }
    } else if (json_is_number(a.j) && strchr("feEgG", type)) {
        snprintf(fmt, sizeof fmt, "%%%s*.*%c", v->flags, type);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(text, sizeof text, fmt, v->width, v->precision < 0 ? 6 : v->precision, json_number_value(a.j));
#pragma GCC diagnostic pop
    } else {
        *ret_ok = false;
        return;
    }
    buf_puts(b, text);
}

/* first_columns - at most so many characters of a text. */
static struct str first_columns(struct str s, size_t most)
{
    size_t n = 0;

    for (; n < s.n && most > 0; most--)
        n += text_char_len(s, n);
    return (struct str){ s.p, n };
}

/* put_verb - what is printed is work even if a precision cuts it off. */
static void put_verb(struct exec *ex, struct buf *b, const struct verb *v, struct val a)
{
    struct buf text = TMPL_BUF;
    bool ok = true;

    val_print(&text, a);
    ex->steps += (unsigned)(text.n / TMPL_STEP_BYTES);
    if (v->verb == 'v' || (v->verb == 's' && !json_is_number(a.j) && !json_is_boolean(a.j)) ||
        (v->verb == 't' && json_is_boolean(a.j))) {
        struct str s = buf_str(&text);
        if (v->verb == 's' && v->precision >= 0)
            s = first_columns(s, (size_t)v->precision);
        put_padded(b, v, s);
    } else if (v->verb == 'q' && json_is_string(a.j)) {
        struct buf q = TMPL_BUF;
        go_quote(&q, buf_str(&text));
        put_padded(b, v, buf_str(&q));
        val_drop(&q);
    } else {
        put_number(b, v, a, &ok);
        if (!ok)
            buf_printf(b, "%%!%c(%s=%s)", v->verb,
                       json_is_string(a.j)    ? "string"
                       : json_is_integer(a.j) ? "int"
                       : json_is_real(a.j)    ? "float64"
                       : json_is_boolean(a.j) ? "bool"
                                              : "value",
                       buf_cstr(&text));
    }
    val_drop(&text);
}

FN(printf)
{
    struct buf b = TMPL_BUF;
    unsigned next = 1;

    if (val_want_text(ex, a[0]) < 0)
        return -ERR_INVALID;
    struct str f = val_str(a[0]);
    for (const char *p = f.p, *end = f.p + f.n; p < end;) {
        if (*p != '%') {
            buf_putc(&b, *p++);
            continue;
        }
        struct verb v;
        p = read_verb(p + 1, end, &v);
        if (v.verb == '%')
            buf_putc(&b, '%');
        else if (v.verb == '\0')
            buf_puts(&b, "%!(NOVERB)");
        else if (next >= n)
            buf_printf(&b, "%%!%c(MISSING)", v.verb);
        else
            put_verb(ex, &b, &v, a[next++]);
    }
    for (unsigned i = next; i < n; i++) {
        buf_puts(&b, i == next ? "%!(EXTRA " : ", ");
        val_print(&b, a[i]);
        if (i + 1 == n)
            buf_putc(&b, ')');
    }
    *ret = val_text(ex, &b);
    return 0;
}

static const struct tmpl_fn functions[] = {
    { "and", 1, 32, fn_logic },     { "eq", 2, 32, fn_eq },
    { "ge", 2, 2, fn_ge },          { "gt", 2, 2, fn_gt },
    { "html", 1, 32, fn_html },     { "index", 1, 32, fn_index },
    { "js", 1, 32, fn_js },         { "le", 2, 2, fn_le },
    { "len", 1, 1, fn_len },        { "lt", 2, 2, fn_lt },
    { "ne", 2, 2, fn_ne },          { "not", 1, 1, fn_not },
    { "or", 1, 32, fn_logic },      { "print", 0, 32, fn_print },
    { "printf", 1, 32, fn_printf }, { "println", 0, 32, fn_println },
    { "slice", 1, 3, fn_slice },    { "urlquery", 1, 32, fn_urlquery },
};

const struct tmpl_fn *tmpl_fn_find(const struct tmpl_lang *lang, struct str name)
{
    for (size_t i = 0; i < lang->fn_count; i++)
        if (str_is(name, lang->fns[i].name))
            return &lang->fns[i];
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++)
        if (str_is(name, functions[i].name))
            return &functions[i];
    return NULL;
}
