#include "swarmctl/output.h"

#include <ctype.h>

#include "swarmctl/format.h"
#include "swarmctl/jpath.h"
#include "swarmctl/tabw.h"

void row_text(json_t *row, const char *field, struct buf *b)
{
    json_t *s = json_stringn(b->p ? b->p : "", b->n);
    json_object_set_new(row, field, s ? s : json_string("?"));
    buf_clear(b);
}

/* "\t" and "\n" as they are typed in a shell; blanks around are cut. */
static void unescape(struct buf *b, const char *format)
{
    while (*format == ' ')
        format++;
    size_t n = strlen(format);
    while (n > 0 && format[n - 1] == ' ')
        n--;
    for (size_t i = 0; i < n; i++) {
        if (format[i] == '\\' && i + 1 < n && (format[i + 1] == 't' || format[i + 1] == 'n'))
            buf_putc(b, format[++i] == 't' ? '\t' : '\n');
        else
            buf_putc(b, format[i]);
    }
}

static int write_rows(struct cli *c, const struct tmpl *t, json_t *rows, struct buf *out)
{
    struct err e = ERR_INIT;
    json_t *row;
    size_t i;

    for_each (rows, i, row) {
        if (format_exec(t, row, TMPL_ROW, out, &e) < 0)
            return cli_fail(c, "template parsing error: %s", e.msg);
        buf_putc(out, '\n');
    }
    return 0;
}

static void write_header(const struct listing *l, const struct tmpl *t, struct buf *out)
{
    json_t *titles = json_object();
    struct err ignored = ERR_INIT;

    for (const char *const(*p)[2] = l->titles; (*p)[0]; p++)
        json_object_set_new(titles, (*p)[0], json_string((*p)[1]));
    format_exec(t, titles, TMPL_HEADER, out, &ignored);
    buf_putc(out, '\n');
    json_decref(titles);
}

static const char *pick_format(const struct listing *l, const char *format, bool quiet)
{
    if (!*format || strcmp(format, "table") == 0)
        return quiet ? (l->quiet ? l->quiet : "{{.ID}}") : l->table;
    if (strcmp(format, "raw") == 0)
        return quiet ? "id: {{.ID}}" : l->raw;
    if (strcmp(format, "json") == 0)
        return "{{json .}}";
    return format;
}

int listing_print(struct cli *c, const struct listing *l, json_t *rows, const char *format, bool quiet)
{
    struct buf text = BUF_INIT, body = BUF_INIT, out = BUF_INIT;
    struct tmpl *t = NULL;
    struct err e = ERR_INIT;
    int r = 0;

    format = pick_format(l, format, quiet);
    bool table = strncmp(format, "table", 5) == 0;
    unescape(&text, format + (table ? 5 : 0));
    if (format_parse(&t, buf_cstr(&text), &e) < 0)
        r = cli_fail(c, "template parsing error: %s", e.msg);
    else if (table)
        write_header(l, t, &body);
    if (r == 0)
        r = write_rows(c, t, rows, &body);
    if (r == 0 && table) {
        tabw_format(&out, buf_str(&body), 10, 3);
        fwrite(out.p, 1, out.n, c->out);
    } else if (r == 0 && body.n > 0) {
        fwrite(body.p, 1, body.n, c->out);
    }
    tmpl_free(t);
    buf_done(&text);
    buf_done(&body);
    buf_done(&out);
    return r;
}

/* Copies one string literal; at is on its opening quote. Returns what follows it. */
static size_t copy_string(struct buf *out, struct str s, size_t at)
{
    size_t from = at++;

    while (at < s.n && s.p[at] != '"')
        at += s.p[at] == '\\' ? 2 : 1;
    at = at < s.n ? at + 1 : s.n;
    buf_put(out, s.p + from, at - from);
    return at;
}

static void newline(struct buf *out, const char *unit, unsigned depth)
{
    buf_putc(out, '\n');
    for (unsigned i = 0; i < depth && i < 64; i++)
        buf_puts(out, unit);
}

void json_indent(struct buf *out, struct str s, const char *unit)
{
    unsigned depth = 0;

    for (size_t i = 0; i < s.n;) {
        char ch = s.p[i];
        if (isspace((unsigned char)ch)) {
            i++;
        } else if (ch == '"') {
            i = copy_string(out, s, i);
        } else if (ch == '{' || ch == '[') {
            size_t next = i + 1;
            while (next < s.n && isspace((unsigned char)s.p[next]))
                next++;
            buf_putc(out, ch);
            if (next < s.n && s.p[next] == ch + 2) { /* '{' and '}', '[' and ']' are two apart */
                buf_putc(out, s.p[next]);
                i = next + 1;
            } else {
                newline(out, unit, ++depth);
                i++;
            }
        } else if (ch == '}' || ch == ']') {
            depth -= depth > 0;
            newline(out, unit, depth);
            buf_putc(out, ch);
            i++;
        } else {
            buf_putc(out, ch);
            if (ch == ',')
                newline(out, unit, depth);
            else if (ch == ':')
                buf_putc(out, ' ');
            i++;
        }
    }
}

void json_squeeze(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n;) {
        if (s.p[i] == '"')
            i = copy_string(out, s, i);
        else if (isspace((unsigned char)s.p[i]))
            i++;
        else
            buf_putc(out, s.p[i++]);
    }
}

static void put_object(struct buf *all, const struct buf *one)
{
    struct str s = buf_str(one);

    while (s.n > 0 && isspace((unsigned char)s.p[s.n - 1]))
        s.n--;
    buf_puts(all, all->n ? "," : "[");
    buf_put(all, s.p, s.n);
}

/* One object through the template, as the API sent it. */
static int put_formatted(struct cli *c, const struct tmpl *t, const struct buf *one, struct buf *out)
{
    json_t *j = json_loadb(one->p ? one->p : "", one->n, JSON_DECODE_ANY, NULL);
    struct buf text = BUF_INIT;
    struct err e = ERR_INIT;
    int r = 0;

    if (!j)
        r = cli_fail(c, "unable to read inspect data");
    else if (format_exec(t, j, TMPL_API, &text, &e) < 0)
        r = cli_fail(c, "template parsing error: %s", e.msg);
    else {
        buf_put(out, text.p, text.n);
        buf_putc(out, '\n');
    }
    buf_done(&text);
    json_decref(j);
    return r;
}

static void write_inspected(struct cli *c, const struct buf *all, bool templated, const char *format)
{
    struct buf out = BUF_INIT;

    if (templated && all->n > 0)
        buf_put(&out, all->p, all->n);
    else if (templated)
        buf_putc(&out, '\n');
    else if (all->n == 0)
        buf_puts(&out, "[]\n");
    else {
        struct buf closed = BUF_INIT;
        buf_put(&closed, all->p, all->n);
        buf_putc(&closed, ']');
        if (*format)
            json_squeeze(&out, buf_str(&closed));
        else
            json_indent(&out, buf_str(&closed), "    ");
        buf_putc(&out, '\n');
        buf_done(&closed);
    }
    fwrite(out.p, 1, out.n, c->out);
    buf_done(&out);
}

int inspect_print(struct cli *c, char **refs, int n, const char *format, inspect_get *get, void *arg)
{
    bool templated = *format && strcmp(format, "json") != 0;
    struct tmpl *t = NULL;
    struct err e = ERR_INIT;
    struct buf all = BUF_INIT;
    int r = 0;

    if (templated && format_parse(&t, format, &e) < 0) {
        cli_fail(c, "template parsing error: %s", e.msg);
        return cli_exit(c, EXIT_TEMPLATE);
    }
    for (int i = 0; i < n; i++) {
        struct buf one = BUF_INIT;
        if (get(c, refs[i], arg, &one) != 0)
            r = 1;
        else if (templated)
            r |= put_formatted(c, t, &one, &all);
        else
            put_object(&all, &one);
        buf_done(&one);
    }
    write_inspected(c, &all, templated, format);
    buf_done(&all);
    tmpl_free(t);
    return r;
}
