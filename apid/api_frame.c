#include "apid/api_frame.h"

#include <ctype.h>

#include "common/util/clock.h"

void query_escape(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (isalnum(c) || c == '-' || c == '_' || c == '.' || c == '~')
            buf_putc(out, (char)c);
        else if (c == ' ')
            buf_putc(out, '+');
        else
            buf_printf(out, "%%%02X", c);
    }
}

static void put_detail(struct buf *out, const char *key, struct str value)
{
    buf_puts(out, key);
    query_escape(out, value);
}

/* Keys sorted, as the engine does. */
static void put_details(struct buf *out, const struct log_line *l)
{
    put_detail(out, "com.docker.swarm.node.id=", l->node_id);
    put_detail(out, ",com.docker.swarm.service.id=", l->service_id);
    put_detail(out, ",com.docker.swarm.task.id=", l->task_id);
    buf_putc(out, ' ');
}

/* The engine prints all nine digits here, so that lines stay aligned. */
static void put_time(struct buf *out, int64_t ns)
{
    char text[WALL_TEXT_MAX];
    struct wall_ns whole = { ns - ns % 1000000000 };

    wall_format(whole, text);
    text[strcspn(text, ".Z")] = '\0';
    buf_printf(out, "%s.%09dZ ", text, (int)(ns % 1000000000));
}

void log_frame_put(struct buf *out, const struct log_style *style, const struct log_line *l)
{
    static const char zero[8] = { 0 };
    size_t start = out->n;

    if (!style->tty)
        buf_put(out, zero, sizeof zero);
    if (style->timestamps)
        put_time(out, l->time_ns);
    if (style->details)
        put_details(out, l);
    if (l->data.n > 0)
        buf_put(out, l->data.p, l->data.n);
    if (style->tty || out->failed)
        return;
    size_t len = out->n - start - 8;
    unsigned char head[8] = { (unsigned char)l->stream,
                              0,
                              0,
                              0,
                              (unsigned char)(len >> 24),
                              (unsigned char)(len >> 16),
                              (unsigned char)(len >> 8),
                              (unsigned char)len };
    memcpy(out->p + start, head, sizeof head);
}
