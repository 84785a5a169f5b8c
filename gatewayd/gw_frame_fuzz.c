/* Bytes of a peer: whatever they are, no more is kept than the limits say. And frames of ours come out as they went in.
 */
#include <stdlib.h>

#include "common/util/check.h"
#include "gatewayd/gw_frame.h"
#include "gatewayd/gw_wire.h"

static struct buf seen;

static int on_msg(void *arg, enum gw_type type, uint32_t stream, struct str body, struct err *e)
{
    struct arena a;
    union {
        struct gw_hello hello;
        struct gw_request_msg request;
        struct gw_reply_msg reply;
        struct gw_control control;
    } u;
    (void)arg;
    buf_printf(&seen, "%d %u %zu;", type, stream, body.n);
    buf_put(&seen, body.p, body.n);
    if (!body.p)
        return 0;
    arena_init(&a, 1u << 20);
    (void)gw_wire_decode(&u.hello, gw_hello_fields, sizeof u.hello, body, &a, e);
    (void)gw_wire_decode(&u.request, gw_request_fields, sizeof u.request, body, &a, e);
    (void)gw_wire_decode(&u.reply, gw_reply_fields, sizeof u.reply, body, &a, e);
    (void)gw_wire_decode(&u.control, gw_control_fields, sizeof u.control, body, &a, e);
    arena_done(&a);
    return 0;
}

static void round_trip(const uint8_t *data, size_t size)
{
    struct gw_out o;
    struct gw_in in;
    struct gw_limits wide = { GW_MESSAGE_MAX, GW_MESSAGE_MAX, 64 };
    struct buf wire = BUF_INIT, body = BUF_INIT;
    struct err e = ERR_INIT;
    gw_out_init(&o);
    gw_in_init(&in, &wide, NULL);
    buf_put(&body, data, size);
    gw_out_push(&o, GW_PRIO_CONTROL, GW_REPLY, 7, &body);
    gw_out_fill(&o, &wire, SIZE_MAX);
    buf_clear(&seen);
    CHECK(gw_in_feed(&in, wire.p, wire.n, on_msg, NULL, &e) == 0);
    CHECK(seen.n >= size && (size == 0 || memcmp(seen.p + seen.n - size, data, size) == 0));
    gw_in_done(&in);
    gw_out_done(&o);
    buf_done(&wire);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct gw_limits limits = { 4096, 8192, 4 };
    struct gw_budget budget = { 0, 6000 };
    struct gw_in whole, bytewise;
    struct err e = ERR_INIT;
    struct buf first = BUF_INIT;
    gw_in_init(&whole, &limits, &budget);
    buf_clear(&seen);
    int r = gw_in_feed(&whole, data, size, on_msg, NULL, &e);
    CHECK(whole.nparts <= 4 && whole.bytes <= 8192 && budget.used <= 6000 && budget.used == whole.bytes);
    gw_in_done(&whole);
    CHECK(budget.used == 0);
    buf_put(&first, seen.p, seen.n);
    gw_in_init(&bytewise, &limits, &budget);
    buf_clear(&seen);
    int r2 = 0;
    for (size_t i = 0; i < size && r2 == 0; i++)
        r2 = gw_in_feed(&bytewise, data + i, 1, on_msg, NULL, &e);
    CHECK((r < 0) == (r2 < 0) || size < GW_HEADER_BYTES);
    CHECK(str_eq(buf_str(&first), buf_str(&seen))); /* however the bytes are cut */
    gw_in_done(&bytewise);
    buf_done(&first);
    round_trip(data, size);
    return 0;
}
