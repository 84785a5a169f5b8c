/*
 * gw_frame.h - what goes over a link between two gatewayds: frames of at most 64 KiB, and how messages become frames
 * and frames messages again. Pure: bytes in, bytes out.
 *
 * Frame: length of the payload (4 bytes, big endian), type, flags, 2 bytes of zero, stream (4), total (4), payload.
 * A message is cut into chunks with the same type and stream; the first has FIRST and the message's length in `total`,
 * the last has LAST. Chunks of different messages may be mixed. Messages without an answer use stream 0, except that
 * two of them are never mixed: each type's own come one after the other. A request's stream is the number its reply
 * comes back with; each side numbers its own.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/util/err.h"
#include "common/util/str.h"

#define GW_WIRE_VERSION 1u
#define GW_HEADER_BYTES 16u
#define GW_CHUNK_BYTES (64u << 10)
#define GW_MESSAGE_MAX (84u << 20) /* RPC_MSG_MAX and what goes around it */

enum gw_type { GW_HELLO = 1, GW_REQUEST, GW_REPLY, GW_RAFT, GW_CONTROL, GW_TYPE_COUNT };
enum gw_flag { GW_FIRST = 1, GW_LAST = 2 };

struct gw_header {
    uint32_t len, stream, total;
    uint8_t type, flags;
};

void gw_header_encode(const struct gw_header *h, uint8_t p[GW_HEADER_BYTES]);
/* gw_header_decode - -ERR_INVALID, naming what is wrong: length, type, flags, total. */
int gw_header_decode(struct gw_header *h, const uint8_t p[GW_HEADER_BYTES], struct err *e);

/* Memory for unfinished incoming messages, shared by all links of the process. */
struct gw_budget {
    size_t used, max;
};

struct gw_limits {
    size_t message_max;      /* a longer one ends the link */
    size_t bytes_max;        /* of all unfinished messages; what does not fit is thrown away, and said so */
    unsigned unfinished_max; /* more ends the link */
};

/* ---- incoming ---- */
struct gw_part; /* an unfinished message */
struct gw_in {
    struct gw_limits limits;
    struct gw_budget *budget; /* may be NULL */
    struct gw_part *parts;
    unsigned nparts;
    size_t bytes;   /* reserved from the budget */
    struct buf acc; /* the beginning of a frame */
    uint64_t frames;
    bool busy;
};
void gw_in_init(struct gw_in *in, const struct gw_limits *limits, struct gw_budget *budget);
void gw_in_done(struct gw_in *in);

/* gw_msg_fn - one whole message; body lives during the call. body.p NULL: it was thrown away for lack of room. Negative
 * ends gw_in_feed() with that value. Must not call gw_in_done(). */
typedef int gw_msg_fn(void *arg, enum gw_type type, uint32_t stream, struct str body, struct err *e);
int gw_in_feed(struct gw_in *in, const void *p, size_t n, gw_msg_fn *fn, void *arg, struct err *e);

/* ---- outgoing ---- */
enum gw_prio { GW_PRIO_RAFT, GW_PRIO_CONTROL, GW_PRIO_BULK, GW_PRIO_COUNT };
#define GW_SMALL_BYTES GW_CHUNK_BYTES /* longer requests and replies are bulk */
#define GW_RAFT_QUEUE_MAX (16u << 20) /* bytes; beyond, the oldest datagrams that have not been started are dropped */
#define GW_BULK_MIXED 16u             /* bulk messages that are under way at a time */
#define GW_BULK_EVERY 16u             /* a bulk chunk goes after so many others at the latest */

struct gw_msg;
struct gw_out {
    struct {
        struct gw_msg *head, *tail;
        size_t count, bytes;
    } q[GW_PRIO_COUNT];
    size_t bytes;     /* waiting, all queues */
    unsigned since;   /* frames since the last bulk chunk */
    uint64_t dropped; /* datagrams */
    uint64_t frames;
};
void gw_out_init(struct gw_out *o);
void gw_out_done(struct gw_out *o);

/* gw_out_push - @body is taken (and emptied). */
void gw_out_push(struct gw_out *o, enum gw_prio prio, enum gw_type type, uint32_t stream, struct buf *body);
bool gw_out_empty(const struct gw_out *o);
/* gw_out_fill - appends frames to @to until it holds @want bytes or more, or nothing is left. Returns frames. */
size_t gw_out_fill(struct gw_out *o, struct buf *to, size_t want);
/* gw_out_forget - takes out a request that has not been started; false: (partly) gone already. */
bool gw_out_forget(struct gw_out *o, enum gw_type type, uint32_t stream);
