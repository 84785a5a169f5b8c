/*
 * api_pieces.h - a body that goes on to another daemon in pieces, one at a time: while a piece is on its way the next
 * is gathered, and when that is full the client waits.
 */
#pragma once

#include "apid/api.h"

#define PIECE_BYTES (1u << 20)

/* The first member of what r->data points to. */
struct pieces {
    void (*send)(struct req *r, struct str piece, uint64_t offset,
                 bool last); /* its answer: pieces_stored() or _failed() */
    uint64_t offset;
    bool sending, body_done, failed;
};

/* pieces_open - the body of this request goes through @send. It waits until pieces_stored() when @wait. */
void pieces_open(struct req *r, struct pieces *p,
                 void (*send)(struct req *r, struct str piece, uint64_t offset, bool last), bool wait);

/* pieces_stored - the last one has arrived (or what was waited for has): go on. */
void pieces_stored(struct req *r);

/* pieces_failed - nothing more is sent; what is still coming is read and dropped, so that the client reads the answer.
 */
void pieces_failed(struct req *r);
