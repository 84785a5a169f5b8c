#include "apid/api_pieces.h"

static void send_piece(struct req *r, bool last)
{
    struct pieces *p = r->data;
    uint64_t at = p->offset;

    p->sending = true;
    p->offset += r->body.n;
    p->send(r, buf_str(&r->body), at, last);
    buf_clear(&r->body);
}

static size_t on_body(struct req *r, const char *bytes, size_t n)
{
    struct pieces *p = r->data;
    size_t room = PIECE_BYTES - r->body.n;

    if (p->failed)
        return n;
    if (n > room)
        n = room;
    buf_put(&r->body, bytes, n);
    if (r->body.failed) {
        p->failed = true;
        api_error(r, 500, "out of memory");
        return n;
    }
    if (r->body.n == PIECE_BYTES && !p->sending)
        send_piece(r, false);
    return n;
}

static void on_end(struct req *r)
{
    struct pieces *p = r->data;

    p->body_done = true;
    if (!p->sending && !p->failed)
        send_piece(r, true);
}

void pieces_open(struct req *r, struct pieces *p,
                 void (*send)(struct req *r, struct str piece, uint64_t offset, bool last), bool wait)
{
    *p = (struct pieces){ .send = send, .sending = wait };
    r->on_body = on_body;
    r->on_body_end = on_end;
}

void pieces_stored(struct req *r)
{
    struct pieces *p = r->data;

    p->sending = false;
    if (p->body_done)
        send_piece(r, true);
    else if (r->body.n == PIECE_BYTES)
        send_piece(r, false);
    api_body_more(r);
}

void pieces_failed(struct req *r)
{
    struct pieces *p = r->data;

    p->sending = false;
    p->failed = true;
    buf_clear(&r->body);
    api_body_more(r);
}
