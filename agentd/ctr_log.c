/* ctr_log.c - see ctr_log.h. */
#include "agentd/ctr_log.h"

static bool token(struct str *s, struct str *ret)
{
    const char *sp = s->n ? memchr(s->p, ' ', s->n) : NULL;
    if (!sp)
        return false;
    *ret = (struct str){ s->p, (size_t)(sp - s->p) };
    *s = (struct str){ sp + 1, s->n - ret->n - 1 };
    return true;
}

static bool parse_line(struct str line, struct log_rec *ret)
{
    struct str time, stream, tag;
    if (!token(&line, &time) || !token(&line, &stream) || !token(&line, &tag) || !wall_parse(time, &ret->time))
        return false;
    if (str_is(stream, "stdout"))
        ret->stream = 1;
    else if (str_is(stream, "stderr"))
        ret->stream = 2;
    else
        return false;
    if (!str_is(tag, "F") && !str_is(tag, "P"))
        return false;
    ret->partial = tag.p[0] == 'P';
    ret->text = line;
    return true;
}

int log_next(struct str *s, struct log_rec *ret)
{
    const char *nl;
    while (s->n && (nl = memchr(s->p, '\n', s->n))) {
        struct str line = { s->p, (size_t)(nl - s->p) };
        *s = (struct str){ nl + 1, s->n - line.n - 1 };
        if (parse_line(line, ret))
            return 1;
    }
    return 0;
}

size_t log_tail(struct str s, unsigned streams, bool ended, uint64_t *n)
{
    unsigned open_end = ended ? streams : 0; /* streams whose last record may be the end of a line without newline */
    size_t end = s.n, begin;
    while (end > 0 && s.p[end - 1] != '\n')
        end--; /* the record being written */
    begin = end;
    while (end > 0) {
        const char *nl = memrchr(s.p, '\n', end - 1);
        size_t start = nl ? (size_t)(nl - s.p) + 1 : 0;
        struct log_rec r;
        bool ok = parse_line((struct str){ s.p + start, end - 1 - start }, &r) && (streams & (1u << (r.stream - 1)));
        if (ok && (!r.partial || (open_end & (1u << (r.stream - 1))))) { /* the end of a line: one more, if it may be */
            if (*n == 0)
                return begin;
            --*n;
        }
        if (ok) {
            begin = start;
            open_end &= ~(1u << (r.stream - 1));
        }
        end = start;
    }
    return *n == 0 ? begin : 0;
}

static bool number(struct str *s, char end, uint64_t *ret)
{
    const char *c = end ? (s->n ? memchr(s->p, end, s->n) : NULL) : s->p + s->n;
    if (!c)
        return false;
    struct str t = { s->p, (size_t)(c - s->p) };
    *s = (struct str){ c + (end != 0), s->n - t.n - (end != 0) };
    return str_u64(t, ret);
}

bool log_cursor_parse(struct str text, struct log_cursor *ret)
{
    uint64_t first;
    if (text.n == 0 || !number(&text, ':', &ret->inode) || !number(&text, ':', &ret->offset) ||
        !number(&text, text.n && memchr(text.p, ':', text.n) ? ':' : 0, &first) || first > INT64_MAX)
        return false;
    ret->done = ret->offset;
    if (text.n && !number(&text, 0, &ret->done))
        return false;
    ret->first_ns = (int64_t)first;
    return true;
}
