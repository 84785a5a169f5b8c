#include "swarmctl/flags.h"

#include <stdlib.h>

#include "common/util/check.h"
#include "swarmctl/human.h"

void flagset_init(struct flagset *fs, const struct flag *const *tables)
{
    fs->tables = tables;
    fs->values = json_object();
    CHECK(fs->values);
}

void flagset_done(struct flagset *fs)
{
    json_decref(fs->values);
    fs->values = NULL;
}

const struct flag *flag_find(const struct flag *const *tables, const char *name)
{
    for (; tables && *tables; tables++)
        for (const struct flag *f = *tables; f->name; f++)
            if (strcmp(f->name, name) == 0)
                return f;
    return NULL;
}

static const struct flag *find_shorthand(const struct flag *const *tables, char c)
{
    for (; tables && *tables; tables++)
        for (const struct flag *f = *tables; f->name; f++)
            if (f->shorthand == c)
                return f;
    return NULL;
}

/* Stores one occurrence; the message of a bad value names the flag as --help does: "-d, --detach". */
static int take(struct flagset *fs, const struct flag *f, const char *text, struct err *e)
{
    json_t *v = NULL;
    struct err why = ERR_INIT;

    if (f->type->parse(text, &v, &why) < 0) {
        struct buf q = BUF_INIT;
        char shorthand[8] = "";
        go_quote(&q, str_from(text));
        if (f->shorthand)
            snprintf(shorthand, sizeof shorthand, "-%c, ", f->shorthand);
        err_set(e, ERR_INVALID, "invalid argument %s for \"%s--%s\" flag: %s", buf_cstr(&q), shorthand, f->name,
                why.msg);
        buf_done(&q);
        return -ERR_INVALID;
    }
    if (!f->type->list) {
        json_object_set_new(fs->values, f->name, v);
        return 0;
    }
    json_t *list = json_object_get(fs->values, f->name);
    if (!list) {
        list = json_array();
        json_object_set_new(fs->values, f->name, list);
    }
    if (json_is_array(v)) {
        json_array_extend(list, v);
        json_decref(v);
    } else if (v) {
        json_array_append_new(list, v);
    }
    return 0;
}

static int parse_long(struct flagset *fs, const char *arg, char ***next, char **end, struct err *e)
{
    char name[64];
    size_t n = strcspn(arg, "=");

    snprintf(name, sizeof name, "%.*s", (int)n, arg);
    const struct flag *f = n < sizeof name ? flag_find(fs->tables, name) : NULL;
    if (!f && strcmp(name, "help") == 0)
        return -ERR_GONE;
    if (!f)
        return err_set(e, ERR_INVALID, "unknown flag: --%s", name);
    if (arg[n] == '=')
        return take(fs, f, arg + n + 1, e);
    if (f->type->no_value)
        return take(fs, f, "true", e);
    if (*next == end)
        return err_set(e, ERR_INVALID, "flag needs an argument: --%s", name);
    return take(fs, f, *(*next)++, e);
}

static int parse_short(struct flagset *fs, const char *arg, char ***next, char **end, struct err *e)
{
    for (const char *p = arg; *p; p++) {
        const struct flag *f = find_shorthand(fs->tables, *p);
        if (!f && *p == 'h')
            return -ERR_GONE;
        if (!f)
            return err_set(e, ERR_INVALID, "unknown shorthand flag: '%c' in -%s", *p, p);
        if (p[1] == '=')
            return take(fs, f, p + 2, e);
        if (f->type->no_value) {
            int r = take(fs, f, "true", e);
            if (r < 0)
                return r;
            continue;
        }
        if (p[1])
            return take(fs, f, p + 1, e);
        if (*next == end)
            return err_set(e, ERR_INVALID, "flag needs an argument: '%c' in -%s", *p, p);
        return take(fs, f, *(*next)++, e);
    }
    return 0;
}

int flags_parse(struct flagset *fs, int argc, char **argv, bool interspersed, char **rest, struct err *e)
{
    char **next = argv, **end = argv + argc;
    int n = 0;

    while (next < end) {
        char *arg = *next++;
        int r = 0;
        if (arg[0] != '-' || arg[1] == '\0') {
            rest[n++] = arg;
            if (!interspersed)
                break;
        } else if (strcmp(arg, "--") == 0) {
            break;
        } else if (arg[1] == '-') {
            if (arg[2] == '-' || arg[2] == '=')
                r = err_set(e, ERR_INVALID, "bad flag syntax: %s", arg);
            else
                r = parse_long(fs, arg + 2, &next, end, e);
        } else {
            r = parse_short(fs, arg + 1, &next, end, e);
        }
        if (r < 0)
            return r;
    }
    while (next < end)
        rest[n++] = *next++;
    return n;
}

json_t *flag_json(const struct flagset *fs, const char *name)
{
    return json_object_get(fs->values, name);
}

bool flag_changed(const struct flagset *fs, const char *name)
{
    return flag_json(fs, name) != NULL;
}

size_t flag_count(const struct flagset *fs)
{
    return json_object_size(fs->values);
}

bool flag_bool(const struct flagset *fs, const char *name)
{
    return json_is_true(flag_json(fs, name));
}

const char *flag_str(const struct flagset *fs, const char *name)
{
    json_t *v = flag_json(fs, name);
    if (json_is_string(v))
        return json_string_value(v);
    const struct flag *f = flag_find(fs->tables, name);
    return f && f->def ? f->def : "";
}

int64_t flag_int(const struct flagset *fs, const char *name)
{
    return json_integer_value(flag_json(fs, name));
}

struct row {
    const struct flag *f;
};

static int cmp_rows(const void *a, const void *b)
{
    return strcmp(((const struct row *)a)->f->name, ((const struct row *)b)->f->name);
}

void flags_each(const struct flag *const *tables, void (*fn)(const struct flag *f, void *arg), void *arg)
{
    size_t n = 0;

    for (const struct flag *const *t = tables; t && *t; t++)
        for (const struct flag *f = *t; f->name; f++)
            n++;
    struct row *all = calloc(n + 1, sizeof *all);
    CHECK(all);
    n = 0;
    for (const struct flag *const *t = tables; t && *t; t++)
        for (const struct flag *f = *t; f->name; f++)
            all[n++].f = f;
    qsort(all, n, sizeof *all, cmp_rows);
    for (size_t i = 0; i < n; i++)
        fn(all[i].f, arg);
    free(all);
}

/* Where to break: the last blank in the first `width` bytes, unless the text ends within `slop` more. */
static size_t break_at(const char *s, size_t width, size_t slop, size_t *ret_skip)
{
    size_t len = strlen(s), cut = 0;

    *ret_skip = 0;
    if (width + slop > len)
        return len;
    for (size_t i = 0; i < width; i++) {
        if (s[i] == '\n' && i > 0) {
            cut = i;
            break;
        }
        if (s[i] == ' ' || s[i] == '\t')
            cut = i;
    }
    if (cut == 0)
        return len;
    *ret_skip = 1;
    return cut;
}

static void put_indented(struct buf *b, int indent, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        buf_putc(b, s[i]);
        if (s[i] == '\n')
            buf_printf(b, "%*s", indent, "");
    }
}

void wrap_help(struct buf *b, int indent, int cols, const char *s)
{
    enum { SLOP = 5, NARROW = 24 };
    int width = cols - indent;

    if (width < NARROW) {
        indent = 16;
        width = cols - indent;
        buf_printf(b, "\n%*s", indent, "");
        if (width < NARROW) {
            put_indented(b, indent, s, strlen(s));
            return;
        }
    }
    for (bool first = true; first || *s; first = false) {
        size_t skip, n = break_at(s, (size_t)width - SLOP, SLOP, &skip);
        if (!first)
            buf_printf(b, "\n%*s", indent, "");
        put_indented(b, indent, s, n);
        s += n + skip;
    }
}

static void head_of(const struct flag *f, char head[96])
{
    char shorthand[8] = "    ";
    if (f->shorthand)
        snprintf(shorthand, sizeof shorthand, "-%c, ", f->shorthand);
    snprintf(head, 96, "  %s--%s%s%s", shorthand, f->name, *f->type->name ? " " : "", f->type->name);
}

static void widest_head(const struct flag *f, void *arg)
{
    char head[96];
    size_t *widest = arg, n;

    head_of(f, head);
    n = strlen(head);
    if (n > *widest)
        *widest = n;
}

struct help_arg {
    struct buf *b;
    size_t widest;
    int cols;
};

static void put_flag(const struct flag *f, void *arg)
{
    struct help_arg *h = arg;
    struct buf text = BUF_INIT;
    char head[96];

    head_of(f, head);
    buf_puts(&text, f->help);
    if (f->def && strcmp(f->type->name, "string") == 0)
        buf_printf(&text, " (default \"%s\")", f->def);
    else if (f->def)
        buf_printf(&text, " (default %s)", f->def);
    buf_printf(h->b, "%-*s   ", (int)h->widest, head);
    wrap_help(h->b, (int)h->widest + 3, h->cols, buf_cstr(&text));
    buf_putc(h->b, '\n');
    buf_done(&text);
}

void flags_help(struct buf *b, const struct flag *const *tables, int cols)
{
    struct help_arg h = { .b = b, .cols = cols - 1 };

    flags_each(tables, widest_head, &h.widest);
    flags_each(tables, put_flag, &h);
}
