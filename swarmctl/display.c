#include "swarmctl/display.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/util/check.h"
#include "swarmctl/human.h"
#include "swarmctl/jpath.h"

#define CLEAR_LINE "\x1b[2K"

/* "[=====>    ] " as wide as there is room for, and the counts. */
static void put_bar(struct buf *b, const struct progress *p, int columns)
{
    int room = columns > 110 ? 50 : columns - 60;

    if (p->total > 0 && room >= 10) {
        int64_t filled = p->current * room / p->total;
        if (filled > room)
            filled = room;
        if (filled < 0)
            filled = 0;
        buf_putc(b, '[');
        for (int i = 0; i < room; i++)
            buf_putc(b, i < filled ? '=' : i == filled ? '>' : ' ');
        buf_puts(b, filled == room ? ">] " : " ] ");
    }
    if (!p->units || (p->current <= 0 && p->total <= 0))
        return;
    if (*p->units) {
        buf_printf(b, "%" PRId64 "/%" PRId64 " %s", p->current, p->total, p->units);
        return;
    }
    struct buf size = BUF_INIT;
    human_size(&size, (double)p->current, 4);
    buf_printf(b, "%8s", buf_cstr(&size));
    if (p->total > 0 && p->current <= p->total) {
        buf_putc(b, '/');
        human_size(b, (double)p->total, 4);
    }
    buf_done(&size);
}

static size_t line_of(struct display *d, const char *id, bool *ret_new)
{
    for (size_t i = 0; i < d->count; i++)
        if (strcmp(d->ids[i], id) == 0) {
            *ret_new = false;
            return i;
        }
    d->ids = realloc(d->ids, (d->count + 1) * sizeof *d->ids);
    d->last = realloc(d->last, (d->count + 1) * sizeof *d->last);
    CHECK(d->ids && d->last);
    d->ids[d->count] = strdup(id);
    d->last[d->count] = NULL;
    *ret_new = true;
    return d->count++;
}

static void forget_lines(struct display *d)
{
    for (size_t i = 0; i < d->count; i++) {
        free(d->ids[i]);
        free(d->last[i]);
    }
    d->count = 0;
}

void display_done(struct display *d)
{
    forget_lines(d);
    free(d->ids);
    free(d->last);
}

static void put_plain(struct display *d, const struct progress *p)
{
    if (*p->id)
        fprintf(d->out, "%s: ", p->id);
    fprintf(d->out, "%s\n", p->text);
    fflush(d->out);
    forget_lines(d);
}

/* Not a terminal: bars are left out, and a line is printed again only when it has changed. */
static void put_once(struct display *d, const struct progress *p)
{
    bool fresh;

    if (p->current > 0 || p->total > 0)
        return;
    size_t i = line_of(d, p->id, &fresh);
    if (d->last[i] && strcmp(d->last[i], p->text) == 0)
        return;
    free(d->last[i]);
    d->last[i] = strdup(p->text);
    fprintf(d->out, "%s: %s\n", p->id, p->text);
    fflush(d->out);
}

void display_progress(struct display *d, const struct progress *p)
{
    struct buf b = BUF_INIT;
    bool fresh;

    if (p->message || !*p->id) {
        put_plain(d, p);
        return;
    }
    if (!d->tty) {
        put_once(d, p);
        return;
    }
    size_t line = line_of(d, p->id, &fresh), up = d->count - line;
    buf_printf(&b, "%s\x1b[%zuA" CLEAR_LINE "\r%s: %s ", fresh ? "\n" : "", up, p->id, p->text);
    put_bar(&b, p, d->columns);
    buf_printf(&b, "\r\x1b[%zuB", up);
    fwrite(b.p, 1, b.n, d->out);
    fflush(d->out);
    buf_done(&b);
}

/* One message of a stream: {"stream":..}, {"status":..,"id":..,"progressDetail":{..}}, {"error":..}. */
static void show_message(struct message_stream *s, json_t *m)
{
    const char *error = jstr(m, "errorDetail.message"), *text = jstr(m, "stream");

    if (!*error)
        error = jstr(m, "error");
    if (*error) {
        buf_clear(&s->error);
        buf_puts(&s->error, error);
        return;
    }
    if (s->quiet)
        return;
    if (*text) {
        fputs(text, s->display->out);
        forget_lines(s->display);
        return;
    }
    struct progress p = { .id = jstr(m, "id"),
                          .text = jstr(m, "status"),
                          .current = jint(m, "progressDetail.current"),
                          .total = jint(m, "progressDetail.total"),
                          .units = "",
                          .message = !jget(m, "progressDetail") };
    if (jget(m, "status"))
        display_progress(s->display, &p);
}

bool message_feed(const char *p, size_t n, void *arg)
{
    struct message_stream *s = arg;

    buf_put(&s->pending, p, n);
    for (;;) {
        struct str rest = buf_str(&s->pending);
        json_error_t je;
        json_t *m = rest.n ? json_loadb(rest.p, rest.n, JSON_DISABLE_EOF_CHECK, &je) : NULL;
        if (!m)
            return !s->pending.failed;
        show_message(s, m);
        json_decref(m);
        size_t used = (size_t)je.position;
        while (used < rest.n && (rest.p[used] == '\n' || rest.p[used] == '\r'))
            used++;
        memmove(s->pending.p, s->pending.p + used, rest.n - used);
        s->pending.n = rest.n - used;
    }
}

void message_done(struct message_stream *s)
{
    buf_done(&s->pending);
    buf_done(&s->error);
}
