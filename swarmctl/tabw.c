#include "swarmctl/tabw.h"

#include <stdlib.h>

#include "common/util/check.h"
#include "swarmctl/human.h"

struct cell {
    struct str text;
    size_t cols;
};

struct line {
    size_t first, count; /* of cells */
    bool newline;
};

struct tabw {
    struct buf *out;
    struct cell *cells;
    struct line *lines;
    size_t *widths, depth;
    size_t min_width, padding;
};

static size_t count_char(struct str s, char c)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += s.p[i] == c;
    return n;
}

static void split(struct tabw *t, struct str s, size_t *ret_lines)
{
    size_t cells = 0, lines = 0;

    for (size_t i = 0; i < s.n;) {
        struct line *l = &t->lines[lines++];
        *l = (struct line){ .first = cells };
        bool end = false;
        while (!end) {
            size_t from = i;
            while (i < s.n && s.p[i] != '\t' && s.p[i] != '\n')
                i++;
            struct str text = { s.p + from, i - from };
            t->cells[cells++] = (struct cell){ text, text_columns(text) };
            l->count++;
            end = i >= s.n || s.p[i] == '\n';
            l->newline = i < s.n && s.p[i] == '\n';
            i++;
        }
    }
    *ret_lines = lines;
}

static void write_line(struct tabw *t, const struct line *l)
{
    for (size_t j = 0; j < l->count; j++) {
        const struct cell *c = &t->cells[l->first + j];
        buf_put(t->out, c->text.p, c->text.n);
        for (size_t i = c->cols; j < t->depth && i < t->widths[j]; i++)
            buf_putc(t->out, ' ');
    }
    if (l->newline)
        buf_putc(t->out, '\n');
}

/* Lines [from, to) with the columns left of `column` already measured. */
static void format(struct tabw *t, size_t from, size_t to, size_t column)
{
    size_t done = from;

    for (size_t i = from; i < to; i++) {
        if (column + 1 >= t->lines[i].count)
            continue;
        for (; done < i; done++)
            write_line(t, &t->lines[done]);
        size_t width = t->min_width;
        for (; i < to && column + 1 < t->lines[i].count; i++) {
            size_t cols = t->cells[t->lines[i].first + column].cols + t->padding;
            if (cols > width)
                width = cols;
        }
        t->widths[t->depth++] = width;
        format(t, done, i, column + 1);
        t->depth--;
        done = i;
    }
    for (; done < to; done++) /* NOLINT(clang-analyzer-unix.Malloc): tabw_format() frees it all */
        write_line(t, &t->lines[done]);
}

static void *need(size_t n, size_t size)
{
    void *p = calloc(n, size);
    CHECK(p);
    return p;
}

void tabw_format(struct buf *out, struct str s, unsigned min_width, unsigned padding)
{
    size_t tabs = count_char(s, '\t'), newlines = count_char(s, '\n'), lines;
    struct tabw t = { .out = out, .min_width = min_width, .padding = padding };

    t.cells = need(tabs + newlines + 2, sizeof *t.cells);
    t.lines = need(newlines + 2, sizeof *t.lines);
    t.widths = need(tabs + 1, sizeof *t.widths);
    split(&t, s, &lines);
    format(&t, 0, lines, 0);
    free(t.cells);
    free(t.lines);
    free(t.widths);
}
