#include "gatewayd/gw_frame.h"

#include <stdlib.h>

#include "common/util/check.h"

/* ---- headers ---- */

static void put_u32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

void gw_header_encode(const struct gw_header *h, uint8_t p[GW_HEADER_BYTES])
{
    put_u32(p, h->len);
    p[4] = h->type;
    p[5] = h->flags;
    p[6] = p[7] = 0;
    put_u32(p + 8, h->stream);
    put_u32(p + 12, h->total);
}

int gw_header_decode(struct gw_header *h, const uint8_t p[GW_HEADER_BYTES], struct err *e)
{
    h->len = get_u32(p);
    h->type = p[4];
    h->flags = p[5];
    h->stream = get_u32(p + 8);
    h->total = get_u32(p + 12);
    if (h->len > GW_CHUNK_BYTES)
        return err_set(e, ERR_INVALID, "frame: %u bytes: at most %u", h->len, GW_CHUNK_BYTES);
    if (h->type < GW_HELLO || h->type >= GW_TYPE_COUNT)
        return err_set(e, ERR_INVALID, "frame: type %u is not known", h->type);
    if (h->flags & ~(GW_FIRST | GW_LAST) || p[6] || p[7])
        return err_set(e, ERR_INVALID, "frame: flags that are not known");
    if (h->flags & GW_FIRST ? h->total > GW_MESSAGE_MAX || h->total < h->len : h->total != 0)
        return err_set(e, ERR_INVALID, "frame: message of %u bytes: out of range", h->total);
    if (h->len == 0 && h->flags != (GW_FIRST | GW_LAST))
        return err_set(e, ERR_INVALID, "frame: empty chunk");
    return 0;
}

/* ---- incoming ---- */

struct gw_part {
    struct gw_part *next;
    enum gw_type type;
    uint32_t stream;
    size_t total, seen;
    bool thrown_away;
    struct buf data;
};

void gw_in_init(struct gw_in *in, const struct gw_limits *limits, struct gw_budget *budget)
{
    *in = (struct gw_in){ .limits = *limits, .budget = budget };
    in->acc.limit = GW_HEADER_BYTES + GW_CHUNK_BYTES;
}

static void give_back(struct gw_in *in, struct gw_part *p)
{
    if (p->thrown_away)
        return;
    in->bytes -= p->total;
    if (in->budget)
        in->budget->used -= p->total;
}

static void part_free(struct gw_in *in, struct gw_part **at)
{
    struct gw_part *p = *at;
    *at = p->next;
    in->nparts--;
    give_back(in, p);
    buf_done(&p->data);
    free(p);
}

void gw_in_done(struct gw_in *in)
{
    CHECK(!in->busy);
    while (in->parts)
        part_free(in, &in->parts);
    buf_done(&in->acc);
}

static struct gw_part **find_part(struct gw_in *in, const struct gw_header *h)
{
    struct gw_part **at = &in->parts;
    while (*at && ((*at)->type != h->type || (*at)->stream != h->stream))
        at = &(*at)->next;
    return at;
}

/* NULL: *e says why. */
static struct gw_part *part_new(struct gw_in *in, const struct gw_header *h, struct err *e)
{
    struct gw_part *p = in->nparts < in->limits.unfinished_max ? calloc(1, sizeof *p) : NULL;
    if (!p && in->nparts >= in->limits.unfinished_max)
        err_set(e, ERR_TOO_BIG, "more than %u unfinished messages", in->limits.unfinished_max);
    else if (!p)
        err_set(e, ERR_NOMEM, "out of memory");
    if (!p)
        return NULL;
    p->type = h->type;
    p->stream = h->stream;
    p->total = h->total;
    p->data.limit = h->total;
    p->thrown_away =
        in->bytes + p->total > in->limits.bytes_max || (in->budget && in->budget->used + p->total > in->budget->max);
    if (!p->thrown_away) {
        in->bytes += p->total;
        if (in->budget)
            in->budget->used += p->total;
    }
    p->next = in->parts;
    in->parts = p;
    in->nparts++;
    return p;
}

static int on_chunk(struct gw_in *in, const struct gw_header *h, struct str chunk, gw_msg_fn *fn, void *arg,
                    struct err *e)
{
    struct gw_part **at = find_part(in, h);
    if (!*at && !(h->flags & GW_FIRST))
        return err_set(e, ERR_INVALID, "frame: a chunk without a beginning");
    if (*at && (h->flags & GW_FIRST))
        return err_set(e, ERR_INVALID, "frame: the message began already");
    struct gw_part *p = *at ? *at : part_new(in, h, e);
    if (!p)
        return -e->code;
    p->seen += chunk.n;
    bool last = (h->flags & GW_LAST) != 0;
    if (p->seen > p->total || last != (p->seen == p->total))
        return err_set(e, ERR_INVALID, "frame: the message's length is not what was announced");
    if (!p->thrown_away)
        buf_put(&p->data, chunk.p, chunk.n);
    if (p->data.failed)
        return err_set(e, ERR_NOMEM, "out of memory");
    if (!last)
        return 0;
    int r = fn(arg, p->type, p->stream, p->thrown_away ? (struct str){ NULL, 0 } : buf_str(&p->data), e);
    at = find_part(in, h);
    CHECK(*at == p);
    part_free(in, at);
    return r;
}

/* One frame: whole messages, which most are, are passed on from where they are. */
static int on_frame(struct gw_in *in, const struct gw_header *h, struct str payload, gw_msg_fn *fn, void *arg,
                    struct err *e)
{
    in->frames++;
    if (h->total > in->limits.message_max)
        return err_set(e, ERR_TOO_BIG, "a message of %u bytes: at most %zu", h->total, in->limits.message_max);
    if (h->flags != (GW_FIRST | GW_LAST))
        return on_chunk(in, h, payload, fn, arg, e);
    if (h->total != h->len)
        return err_set(e, ERR_INVALID, "frame: the message's length is not what was announced");
    if (*find_part(in, h))
        return err_set(e, ERR_INVALID, "frame: the message began already");
    return fn(arg, h->type, h->stream, (struct str){ payload.p ? payload.p : "", payload.n }, e);
}

/* Completes what waits in acc with as little of the input as needed. Sets *ret_used; 1: a frame is whole. */
static int complete_acc(struct gw_in *in, const char *p, size_t n, struct gw_header *h, size_t *ret_used, struct err *e)
{
    size_t used = 0;
    for (int step = 0; step < 2; step++) {
        size_t want = GW_HEADER_BYTES;
        if (in->acc.n >= GW_HEADER_BYTES) {
            int r = gw_header_decode(h, (const uint8_t *)in->acc.p, e);
            if (r < 0)
                return r;
            want += h->len;
        }
        size_t take = want - in->acc.n < n - used ? want - in->acc.n : n - used;
        buf_put(&in->acc, p + used, take);
        if (in->acc.failed)
            return err_set(e, ERR_NOMEM, "out of memory");
        used += take;
        if (in->acc.n >= GW_HEADER_BYTES && gw_header_decode(h, (const uint8_t *)in->acc.p, e) < 0)
            return -e->code;
    }
    *ret_used = used;
    return in->acc.n >= GW_HEADER_BYTES && in->acc.n == GW_HEADER_BYTES + h->len;
}

static int feed(struct gw_in *in, const char *p, size_t n, gw_msg_fn *fn, void *arg, struct err *e)
{
    struct gw_header h = { .len = 0 };
    while (n > 0) {
        size_t used = 0;
        int r;
        if (in->acc.n > 0) {
            r = complete_acc(in, p, n, &h, &used, e);
            if (r == 1) {
                struct buf whole = in->acc; /* the callback sees it while acc is empty again */
                in->acc = (struct buf){ .limit = whole.limit };
                r = on_frame(in, &h, (struct str){ whole.p + GW_HEADER_BYTES, h.len }, fn, arg, e);
                buf_clear(&whole);
                if (whole.cap <= 4096)
                    in->acc = whole;
                else
                    buf_done(&whole);
            }
            if (r < 0)
                return r;
        } else if (n < GW_HEADER_BYTES) {
            buf_put(&in->acc, p, used = n);
        } else {
            r = gw_header_decode(&h, (const uint8_t *)p, e);
            if (r < 0)
                return r;
            if (n < GW_HEADER_BYTES + h.len) {
                buf_put(&in->acc, p, used = n);
            } else {
                used = GW_HEADER_BYTES + h.len;
                r = on_frame(in, &h, (struct str){ p + GW_HEADER_BYTES, h.len }, fn, arg, e);
                if (r < 0)
                    return r;
            }
        }
        if (in->acc.failed)
            return err_set(e, ERR_NOMEM, "out of memory");
        p += used;
        n -= used;
    }
    return 0;
}

int gw_in_feed(struct gw_in *in, const void *p, size_t n, gw_msg_fn *fn, void *arg, struct err *e)
{
    CHECK(!in->busy);
    in->busy = true;
    int r = feed(in, p, n, fn, arg, e);
    in->busy = false;
    return r;
}

/* ---- outgoing ---- */

struct gw_msg {
    struct gw_msg *next;
    enum gw_type type;
    uint32_t stream;
    size_t off;
    struct buf data;
};

void gw_out_init(struct gw_out *o)
{
    *o = (struct gw_out){ 0 };
}

static struct gw_msg *unlink_at(struct gw_out *o, enum gw_prio prio, struct gw_msg **at, struct gw_msg *before)
{
    struct gw_msg *m = *at;
    *at = m->next;
    if (o->q[prio].tail == m)
        o->q[prio].tail = before;
    o->q[prio].count--;
    o->q[prio].bytes -= m->data.n - m->off;
    o->bytes -= m->data.n - m->off;
    m->next = NULL;
    return m;
}

static void msg_free(struct gw_msg *m)
{
    buf_done(&m->data);
    free(m);
}

void gw_out_done(struct gw_out *o)
{
    for (int i = 0; i < GW_PRIO_COUNT; i++) {
        while (o->q[i].head)
            msg_free(unlink_at(o, i, &o->q[i].head, NULL));
    }
}

static void append(struct gw_out *o, enum gw_prio prio, struct gw_msg *m)
{
    m->next = NULL;
    if (o->q[prio].tail)
        o->q[prio].tail->next = m;
    else
        o->q[prio].head = m;
    o->q[prio].tail = m;
    o->q[prio].count++;
    o->q[prio].bytes += m->data.n - m->off;
    o->bytes += m->data.n - m->off;
}

/* The oldest datagram, but not one whose first chunk is gone: the peer waits for the rest of it. */
static void drop_oldest(struct gw_out *o)
{
    struct gw_msg **at = &o->q[GW_PRIO_RAFT].head, *before = NULL;
    if (*at && (*at)->off > 0) {
        before = *at;
        at = &(*at)->next;
    }
    if (!*at)
        return;
    msg_free(unlink_at(o, GW_PRIO_RAFT, at, before));
    o->dropped++;
}

void gw_out_push(struct gw_out *o, enum gw_prio prio, enum gw_type type, uint32_t stream, struct buf *body)
{
    CHECK(body->n <= GW_MESSAGE_MAX && !body->failed);
    struct gw_msg *m = calloc(1, sizeof *m);
    CHECK(m != NULL);
    m->type = type;
    m->stream = stream;
    m->data = *body;
    *body = (struct buf)BUF_INIT;
    append(o, prio, m);
    while (prio == GW_PRIO_RAFT && o->q[prio].bytes > GW_RAFT_QUEUE_MAX && o->q[prio].count > 1 &&
           !(o->q[prio].count == 2 && o->q[prio].head->off > 0))
        drop_oldest(o);
}

bool gw_out_empty(const struct gw_out *o)
{
    return !o->q[GW_PRIO_RAFT].head && !o->q[GW_PRIO_CONTROL].head && !o->q[GW_PRIO_BULK].head;
}

static int pick(const struct gw_out *o)
{
    if (o->q[GW_PRIO_BULK].head && o->since >= GW_BULK_EVERY)
        return GW_PRIO_BULK;
    for (int i = 0; i < GW_PRIO_COUNT; i++) {
        if (o->q[i].head)
            return i;
    }
    return -1;
}

/* After its chunk a bulk message goes behind the others that are under way, but not behind those that are not. */
static void rotate(struct gw_out *o)
{
    struct gw_msg *m = o->q[GW_PRIO_BULK].head, *at = m->next;
    if (!at)
        return;
    (void)unlink_at(o, GW_PRIO_BULK, &o->q[GW_PRIO_BULK].head, NULL);
    if (!o->q[GW_PRIO_BULK].head)
        o->q[GW_PRIO_BULK].tail = NULL;
    unsigned passed = 1;
    while (passed < GW_BULK_MIXED - 1 && at->next) {
        at = at->next;
        passed++;
    }
    m->next = at->next;
    at->next = m;
    if (o->q[GW_PRIO_BULK].tail == at)
        o->q[GW_PRIO_BULK].tail = m;
    o->q[GW_PRIO_BULK].count++;
    o->q[GW_PRIO_BULK].bytes += m->data.n - m->off;
    o->bytes += m->data.n - m->off;
}

static void put_chunk(struct gw_out *o, enum gw_prio prio, struct buf *to)
{
    struct gw_msg *m = o->q[prio].head;
    size_t left = m->data.n - m->off, n = left < GW_CHUNK_BYTES ? left : GW_CHUNK_BYTES;
    struct gw_header h = { .len = (uint32_t)n, .type = (uint8_t)m->type, .stream = m->stream };
    uint8_t head[GW_HEADER_BYTES];
    if (m->off == 0) {
        h.flags |= GW_FIRST;
        h.total = (uint32_t)m->data.n;
    }
    if (n == left)
        h.flags |= GW_LAST;
    gw_header_encode(&h, head);
    buf_put(to, head, sizeof head);
    if (n > 0)
        buf_put(to, m->data.p + m->off, n);
    o->q[prio].bytes -= n;
    o->bytes -= n;
    m->off += n;
    o->since = prio == GW_PRIO_BULK ? 0 : o->since + 1;
    o->frames++;
    if (n == left)
        msg_free(unlink_at(o, prio, &o->q[prio].head, NULL));
    else if (prio == GW_PRIO_BULK)
        rotate(o);
}

size_t gw_out_fill(struct gw_out *o, struct buf *to, size_t want)
{
    size_t frames = 0;
    int prio;
    while (to->n < want && (prio = pick(o)) >= 0) {
        put_chunk(o, (enum gw_prio)prio, to);
        frames++;
    }
    return frames;
}

bool gw_out_forget(struct gw_out *o, enum gw_type type, uint32_t stream)
{
    for (int i = GW_PRIO_CONTROL; i < GW_PRIO_COUNT; i++) {
        struct gw_msg **at = &o->q[i].head, *before = NULL;
        for (; *at; before = *at, at = &(*at)->next) {
            if ((*at)->type != type || (*at)->stream != stream)
                continue;
            if ((*at)->off > 0)
                return false;
            msg_free(unlink_at(o, (enum gw_prio)i, at, before));
            return true;
        }
    }
    return false;
}
