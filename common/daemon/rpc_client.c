#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/daemon/log.h"
#include "common/daemon/rpc.h"
#include "common/daemon/sp.h"
#include "common/util/check.h"
#include "common/util/cleanup.h"
#include "common/util/clock.h"

#define REPLY_ARENA_BYTES (512u << 20)
#define RECONNECT_MIN_MS 2
#define RECONNECT_MAX_MS 100

/* Requests that share a message. */
#define BATCH_BYTES (256u << 10) /* more is sent at once */
#define BATCH_PART_BYTES (64u << 10)
#define BATCH_HOLD_MS 2u
#define BATCH_DEADLINE_MS 100u /* their deadlines are that close together */

struct part {
    const struct op *op; /* NULL: answered */
    rpc_done_fn *done;
    void *arg;
};

struct batch {
    struct part *v;
    unsigned n, cap;
    uint64_t first_id; /* of n that follow each other */
    struct buf bytes;  /* the list of requests; room for its head is left */
    size_t body;       /* where the first one's begins */
    struct mono_ms first_deadline, deadline;
};
#define BATCH_HEAD 5u

/* On the wire a request begins with a number of 32 bits, the highest of them set, and so does its reply: whose place in
 * the client's table it is, and the how manieth request of that place. */
#define ID_BYTES 4u
#define WIRE_MAX (RPC_MSG_MAX + ID_BYTES)
#define PLACE_BITS 16u
#define PLACES_MAX (1u << PLACE_BITS)

enum req_state { REQ_IDLE, REQ_UNSENT, REQ_SENT, REQ_FAILED_EARLY };

struct rpc_req {
    struct rpc_client *client;
    struct rpc_req *next; /* idle, or unsent */
    enum req_state state;
    uint32_t place, turn;
    struct buf unsent;   /* REQ_UNSENT: the message */
    struct batch *batch; /* NULL: one request */
    unsigned flying;     /* as many as count in the client's */
    const struct op *op; /* NULL: passed on undecoded, or a batch */
    union {
        rpc_done_fn *done;
        rpc_raw_fn *raw;
    } fn;
    void *arg;
    uint64_t id;
    struct mono_ms deadline;
    struct err early; /* REQ_FAILED_EARLY: why */
};

struct rpc_client {
    char daemon[32];
    uid_t server;  /* who must be at the other end; -1: anybody */
    bool stranger; /* somebody else was */
    bool check;
    struct sp *sp;
    struct sp_pipe *pipe; /* NULL: not connected */
    struct rpc_req **v, *idle, *unsent, **unsent_tail;
    size_t n, cap;
    uint64_t next_id;
    uint64_t due_ms; /* the timer is set to that; UINT64_MAX: to nothing */
    sd_event_source *timer, *early;
    const struct op *shared;       /* whose requests go together; NULL: none */
    struct batch *queue;           /* to be sent together; NULL: none */
    unsigned flying;               /* parts of batches that were sent */
    sd_event_source *flush, *hold; /* at the end of the turn; when the queue has waited for long enough */
    bool *gone;                    /* set when the client is freed in a callback */
};

/* encode_envelope - appends the whole request. */
static int encode_envelope(struct buf *b, const struct rpc_request *rq, struct err *e)
{
    fields_encode(rq, rpc_request_fields, b);
    return b->failed ? err_set(e, ERR_TOO_BIG, STR_FMT ": the request exceeds %u bytes", STR_ARG(rq->op), RPC_MSG_MAX)
                     : 0;
}

/* encode_request - @rq says where to; the body is made of @req. */
static int encode_request(struct buf *b, const struct op *op, const void *req, struct rpc_request *rq, struct err *e)
{
    struct buf body = { .limit = RPC_MSG_MAX };
    fields_encode(req, op->req, &body);
    rq->v = RPC_VERSION;
    rq->op = str_from(op->name);
    rq->body = buf_str(&body);
    int r = body.failed ? err_set(e, ERR_TOO_BIG, "%s: the request exceeds %u bytes", op->name, RPC_MSG_MAX)
                        : encode_envelope(b, rq, e);
    buf_done(&body);
    return r;
}

static int decode_response(struct str in, const char *what, uint64_t id, struct rpc_response *rs, struct arena *a,
                           struct err *e)
{
    if (fields_decode(rs, rpc_response_fields, sizeof *rs, in, FIELDS_STRICT, a, e) < 0)
        return err_set(e, ERR_INTERNAL, "%s: malformed reply", what);
    if (rs->id != id)
        return err_set(e, ERR_INTERNAL, "%s: reply to another request", what);
    return 0;
}

static int reply_body(const struct rpc_response *rs, const struct op *op, void *rep, struct arena *a, struct err *e)
{
    static const char empty_map[] = "\x80";
    if (rs->code != ERR_OK)
        return err_set(e, (int)rs->code, STR_FMT, STR_ARG(rs->msg));
    struct str body = rs->body.n ? rs->body : (struct str){ empty_map, 1 };
    if (fields_decode(rep, op->rep, op->rep_size, body, FIELDS_VIEW, a, e) < 0)
        return err_wrap(e, "%s: reply", op->name);
    return 0;
}

/* decode_reply - 0 and the reply struct in the arena, or the daemon's error, or ours about its bytes. */
static int decode_reply(struct str in, const struct op *op, uint64_t id, void *rep, struct arena *a, struct err *e)
{
    struct rpc_response rs;
    int r = decode_response(in, op->name, id, &rs, a, e);
    return r < 0 ? r : reply_body(&rs, op, rep, a, e);
}

static void batch_schedule(struct rpc_client *c);

static void release(struct rpc_req *q)
{
    q->client->flying -= q->flying;
    if (q->flying > 0 && q->client->queue)
        batch_schedule(q->client);
    q->flying = 0;
    q->state = REQ_IDLE;
    q->turn++;
    q->next = q->client->idle;
    q->client->idle = q;
}

static struct batch *batch_free(struct batch *b)
{
    if (b) {
        buf_done(&b->bytes);
        free(b->v);
    }
    free(b);
    return NULL;
}

/* part_reply - whose reply it is, and what it says; NULL: nobody's. */
static struct part *part_reply(struct batch *b, struct str in, void **ret_rep, struct arena *a, struct err *e)
{
    struct rpc_response rs;
    if (fields_decode(&rs, rpc_response_fields, sizeof rs, in, FIELDS_STRICT, a, e) < 0 || rs.id < b->first_id ||
        rs.id - b->first_id >= b->n || b->v[rs.id - b->first_id].op == NULL)
        return NULL;
    struct part *p = &b->v[rs.id - b->first_id];
    *ret_rep = arena_alloc(a, p->op->rep_size);
    if (!*ret_rep)
        err_set(e, ERR_NOMEM, "out of memory");
    else if (reply_body(&rs, p->op, *ret_rep, a, e) < 0)
        *ret_rep = NULL;
    return p;
}

/* batch_end - each part hears of its reply in @list, or of @e when there is none. The callbacks may do anything. */
static void batch_end(struct rpc_req *q, struct rpc_list *list, const struct err *e)
{
    struct rpc_client *c = q->client;
    struct batch *b = q->batch;
    struct arena a;
    struct str one;
    struct err none = *e;
    bool gone = false, *outer = c->gone;
    q->batch = NULL;
    release(q);
    c->gone = &gone;
    arena_init(&a, REPLY_ARENA_BYTES);
    while (!gone && list && rpc_list_next(list, &one)) {
        struct err own = ERR_INIT;
        void *rep = NULL;
        struct part *p = part_reply(b, one, &rep, &a, &own);
        if (p) {
            p->op = NULL;
            p->done(p->arg, rep, &own);
        }
        arena_reset(&a);
    }
    if (list)
        err_set(&none, ERR_INTERNAL, "malformed reply");
    for (unsigned i = 0; !gone && i < b->n; i++)
        if (b->v[i].op)
            b->v[i].done(b->v[i].arg, NULL, &none);
    arena_done(&a);
    batch_free(b);
    if (!gone)
        c->gone = outer;
    else if (outer)
        *outer = true;
}

static void finish(struct rpc_req *q, const void *rep, const struct err *e)
{
    if (q->batch) {
        batch_end(q, NULL, e);
        return;
    }
    rpc_done_fn *done = q->fn.done;
    rpc_raw_fn *raw = q->op ? NULL : q->fn.raw;
    void *arg = q->arg;
    release(q);
    /* these may start new requests, or free the client */
    if (raw)
        raw(arg, e->code, str_from(e->msg), (struct str){ NULL, 0 });
    else
        done(arg, rep, e);
}

static const char *what(const struct rpc_req *q)
{
    return q->op ? q->op->name : q->batch ? q->batch->v[0].op->name : "the request";
}

static void fail_unsent(struct rpc_req *q)
{
    struct err e = ERR_INIT;
    err_set(&e, ERR_UNAVAILABLE, "%s does not answer: %s", q->client->daemon,
            q->client->stranger ? "another user's process listens in its place" : "timed out");
    finish(q, NULL, &e);
}

static void fail_sent(struct rpc_req *q, bool lost)
{
    struct err e = ERR_INIT;
    if (lost)
        err_set(&e, ERR_TIMEOUT, "connection to %s was lost; %s: outcome unknown", q->client->daemon, what(q));
    else
        err_set(&e, ERR_TIMEOUT, "%s did not answer %s in time: outcome unknown", q->client->daemon, what(q));
    finish(q, NULL, &e);
}

static void on_raw_reply(struct rpc_req *q, struct str in, struct arena *a)
{
    struct rpc_response rs;
    struct err e = ERR_INIT;
    rpc_raw_fn *raw = q->fn.raw;
    void *arg = q->arg;
    if (decode_response(in, what(q), q->id, &rs, a, &e) < 0) {
        finish(q, NULL, &e);
        return;
    }
    release(q);
    raw(arg, (int)rs.code, rs.msg, rs.body);
}

static void on_batch_reply(struct rpc_req *q, struct str in, struct arena *a)
{
    struct rpc_response rs;
    struct rpc_list list;
    struct err e = ERR_INIT;
    int r = decode_response(in, what(q), q->id, &rs, a, &e);
    if (r == 0 && rs.code != ERR_OK)
        r = err_set(&e, (int)rs.code, STR_FMT, STR_ARG(rs.msg));
    if (r == 0 && !rpc_list_open(&list, rs.body, RPC_BATCH_MAX))
        r = err_set(&e, ERR_INTERNAL, "%s: malformed reply", what(q));
    batch_end(q, r == 0 ? &list : NULL, &e);
}

static void on_reply(struct rpc_req *q, struct str in)
{
    struct err e = ERR_INIT;
    struct arena a;
    arena_init(&a, REPLY_ARENA_BYTES);
    if (q->batch) {
        on_batch_reply(q, in, &a);
    } else if (!q->op) {
        on_raw_reply(q, in, &a);
    } else {
        void *rep = arena_alloc(&a, q->op->rep_size);
        int r = rep ? decode_reply(in, q->op, q->id, rep, &a, &e) : err_set(&e, ERR_NOMEM, "out of memory");
        finish(q, r == 0 ? rep : NULL, &e);
    }
    arena_done(&a);
}

/* ---- the connection ---- */

static uint32_t wire_id(const struct rpc_req *q)
{
    return 1u << 31 | (q->turn << PLACE_BITS & ~(1u << 31)) | q->place;
}

static void on_msg(void *arg, struct sp_pipe *p, struct str msg)
{
    struct rpc_client *c = arg;
    const uint8_t *b = (const uint8_t *)msg.p;
    (void)p;
    if (msg.n < ID_BYTES)
        return;
    uint32_t id = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
    struct rpc_req *q = (id & (PLACES_MAX - 1)) < c->n ? c->v[id & (PLACES_MAX - 1)] : NULL;
    if (q && q->state == REQ_SENT && wire_id(q) == id) /* else nobody waits for it any more */
        on_reply(q, (struct str){ msg.p + ID_BYTES, msg.n - ID_BYTES });
}

static void req_write(struct rpc_req *q, struct str msg)
{
    uint32_t id = wire_id(q);
    const char head[ID_BYTES] = { (char)(id >> 24), (char)(id >> 16), (char)(id >> 8), (char)id };
    q->state = REQ_SENT;
    sp_send(q->client->pipe, (struct str){ head, sizeof head }, msg);
}

static void on_up(void *arg, struct sp_pipe *p)
{
    struct rpc_client *c = arg;
    c->pipe = p;
    while (c->unsent) {
        struct rpc_req *q = c->unsent;
        c->unsent = q->next;
        req_write(q, buf_str(&q->unsent));
        buf_done(&q->unsent);
    }
    c->unsent_tail = &c->unsent;
}

/* each_req - those in this state (whose deadline is over; 0: all of them), unless the client is freed meanwhile. */
static void each_req(struct rpc_client *c, enum req_state state, uint64_t now, void (*fn)(struct rpc_req *q))
{
    bool gone = false, *outer = c->gone;
    c->gone = &gone;
    for (size_t i = 0; !gone && i < c->n; i++)
        if (c->v[i]->state == state && (now == 0 || c->v[i]->deadline.ms <= now))
            fn(c->v[i]);
    if (!gone)
        c->gone = outer;
    else if (outer)
        *outer = true;
}

static void lost(struct rpc_req *q)
{
    fail_sent(q, true);
}

static void on_down(void *arg, struct sp_pipe *p)
{
    struct rpc_client *c = arg;
    (void)p;
    c->pipe = NULL; /* what is asked from now on is not sent */
    each_req(c, REQ_SENT, 0, lost);
}

static bool on_admit(void *arg, uid_t uid)
{
    struct rpc_client *c = arg;
    c->stranger = c->check && uid != 0 && uid != getuid() && (c->server == (uid_t)-1 || uid != c->server);
    return !c->stranger;
}

/* ---- time ---- */

static void unsent_remove(struct rpc_req *q)
{
    struct rpc_client *c = q->client;
    struct rpc_req **p = &c->unsent;
    while (*p != q)
        p = &(*p)->next;
    *p = q->next;
    if (c->unsent_tail == &q->next)
        c->unsent_tail = p;
    buf_done(&q->unsent);
}

static void too_late(struct rpc_req *q)
{
    if (q->state == REQ_SENT) {
        fail_sent(q, false);
        return;
    }
    unsent_remove(q);
    fail_unsent(q);
}

static void due(struct rpc_client *c, uint64_t at_ms)
{
    if (at_ms >= c->due_ms)
        return;
    c->due_ms = at_ms;
    (void)sd_event_source_set_time(c->timer, at_ms * 1000u);
    (void)sd_event_source_set_enabled(c->timer, SD_EVENT_ONESHOT);
}

static int on_timer(sd_event_source *s, uint64_t usec, void *arg)
{
    struct rpc_client *c = arg;
    uint64_t now = clock_mono().ms;
    bool gone = false, *outer = c->gone;
    (void)s, (void)usec;
    c->due_ms = UINT64_MAX;
    c->gone = &gone;
    each_req(c, REQ_UNSENT, now, too_late);
    if (!gone)
        each_req(c, REQ_SENT, now, too_late);
    if (gone) {
        if (outer)
            *outer = true;
        return 0;
    }
    c->gone = outer;
    for (size_t i = 0; i < c->n; i++)
        if (c->v[i]->state == REQ_UNSENT || c->v[i]->state == REQ_SENT)
            due(c, c->v[i]->deadline.ms);
    return 0;
}

static void early(struct rpc_req *q)
{
    struct err e = q->early;
    finish(q, NULL, &e);
}

static int on_early(sd_event_source *s, void *arg)
{
    (void)s;
    each_req(arg, REQ_FAILED_EARLY, 0, early);
    return 0;
}

/* ---- requests ---- */

static struct rpc_req *take_req(struct rpc_client *c)
{
    struct rpc_req *q = c->idle;
    if (q) {
        c->idle = q->next;
        return q;
    }
    CHECK(c->n < PLACES_MAX);
    if (c->n == c->cap) {
        c->cap = c->cap ? 2 * c->cap : 8;
        c->v = realloc(c->v, c->cap * sizeof(*c->v));
        CHECK(c->v != NULL);
    }
    q = calloc(1, sizeof *q);
    CHECK(q != NULL);
    q->client = c;
    q->place = (uint32_t)c->n;
    c->v[c->n++] = q;
    return q;
}

static struct rpc_req *new_req(struct rpc_client *c, const struct op *op, unsigned timeout_ms, void *arg)
{
    struct rpc_req *q = take_req(c);
    q->op = op;
    q->arg = arg;
    q->id = ++c->next_id;
    q->deadline = (struct mono_ms){ clock_mono().ms + timeout_ms };
    return q;
}

/* start - @r is what became of encoding into @m; its error is told from the loop, like every other. */
static void start(struct rpc_req *q, struct buf *m, int r)
{
    struct rpc_client *c = q->client;
    if (r < 0) {
        q->state = REQ_FAILED_EARLY;
        buf_done(m);
        (void)sd_event_source_set_enabled(c->early, SD_EVENT_ONESHOT);
        return;
    }
    due(c, q->deadline.ms);
    if (c->pipe) {
        req_write(q, buf_str(m));
        buf_done(m);
        return;
    }
    q->state = REQ_UNSENT;
    q->unsent = *m;
    q->next = NULL;
    *c->unsent_tail = q;
    c->unsent_tail = &q->next;
}

void rpc_send_via(struct rpc_client *gateway, struct str to, const char *svc, const struct op *op, const void *req,
                  unsigned timeout_ms, rpc_done_fn *done, void *arg)
{
    struct rpc_req *q = new_req(gateway, op, timeout_ms, arg);
    struct rpc_request rq = { .id = q->id, .to = to, .svc = str_from(svc), .ttl = to.n > 0 ? timeout_ms : 0 };
    struct buf m = { .limit = RPC_MSG_MAX };
    q->fn.done = done;
    int r = encode_request(&m, op, req, &rq, &q->early);
    start(q, &m, r);
}

/* ---- requests that share a message ---- */

static int encode_batch(struct buf *ret, struct batch *b, uint64_t id, struct err *e)
{
    const uint8_t head[BATCH_HEAD] = { 0xdd, 0, 0, (uint8_t)(b->n >> 8), (uint8_t)b->n }; /* array 32 */
    memcpy(b->bytes.p, head, sizeof head);
    return encode_envelope(
        ret, &(struct rpc_request){ .v = RPC_VERSION, .id = id, .op = STR(RPC_BATCH_OP), .body = buf_str(&b->bytes) },
        e);
}

/* A single one goes as if there were no batches. */
static int encode_single(struct buf *ret, const struct batch *b, struct err *e)
{
    struct str body = { b->bytes.p + b->body, b->bytes.n - b->body };
    return encode_envelope(
        ret,
        &(struct rpc_request){ .v = RPC_VERSION, .id = b->first_id, .op = str_from(b->v[0].op->name), .body = body },
        e);
}

static void batch_send(struct rpc_client *c)
{
    struct batch *b = TAKE(c->queue);
    struct rpc_req *q = take_req(c);
    struct buf m = { .limit = RPC_MSG_MAX };
    int r;
    (void)sd_event_source_set_enabled(c->flush, SD_EVENT_OFF);
    (void)sd_event_source_set_enabled(c->hold, SD_EVENT_OFF);
    c->flying += b->n;
    q->flying = b->n;
    q->deadline = b->deadline;
    if (b->n > 1) {
        q->op = NULL;
        q->id = ++c->next_id;
        r = encode_batch(&m, b, q->id, &q->early);
        buf_done(&b->bytes);
        q->batch = b;
    } else {
        q->op = b->v[0].op;
        q->fn.done = b->v[0].done;
        q->arg = b->v[0].arg;
        q->id = b->first_id;
        r = encode_single(&m, b, &q->early);
        batch_free(b);
    }
    start(q, &m, r);
}

static int on_flush(sd_event_source *s, void *arg)
{
    struct rpc_client *c = arg;
    (void)s;
    if (!c->queue)
        return 0;
    if (c->queue->n >= c->flying) {
        batch_send(c);
        return 0;
    }
    int on = SD_EVENT_OFF;
    if (sd_event_source_get_enabled(c->hold, &on) >= 0 && on != SD_EVENT_OFF)
        return 0; /* it has been waiting for some time */
    (void)sd_event_source_set_time_relative(c->hold, BATCH_HOLD_MS * 1000ull);
    (void)sd_event_source_set_enabled(c->hold, SD_EVENT_ONESHOT);
    return 0;
}

static int on_hold(sd_event_source *s, uint64_t usec, void *arg)
{
    struct rpc_client *c = arg;
    (void)s, (void)usec;
    if (c->queue)
        batch_send(c);
    return 0;
}

static void batch_schedule(struct rpc_client *c)
{
    (void)sd_event_source_set_enabled(c->flush, SD_EVENT_ONESHOT);
}

static struct batch *batch_new(struct rpc_client *c, struct mono_ms deadline)
{
    static const char room[BATCH_HEAD];
    struct batch *b = calloc(1, sizeof *b);
    CHECK(b != NULL);
    b->first_id = c->next_id + 1;
    b->first_deadline = deadline;
    b->bytes.limit = RPC_MSG_MAX;
    buf_put(&b->bytes, room, sizeof room);
    return b;
}

/* batch_add - false: it is no part of a batch (too large), and goes alone. */
static bool batch_add(struct rpc_client *c, const struct op *op, const void *req, unsigned timeout_ms,
                      rpc_done_fn *done, void *arg)
{
    struct mono_ms deadline = { clock_mono().ms + timeout_ms };
    struct batch *b = c->queue;
    if (b && (deadline.ms > b->first_deadline.ms + BATCH_DEADLINE_MS || deadline.ms < b->first_deadline.ms)) {
        batch_send(c);
        b = NULL;
    }
    if (!b)
        b = c->queue = batch_new(c, deadline);
    size_t before = b->bytes.n;
    mp_map(&b->bytes, 3);
    mp_kv_u64(&b->bytes, "id", b->first_id + b->n);
    mp_kv_cstr(&b->bytes, "op", op->name);
    mp_cstr(&b->bytes, "body");
    size_t body = b->bytes.n;
    fields_encode(req, op->req, &b->bytes);
    if (b->bytes.failed || b->bytes.n - before > BATCH_PART_BYTES) {
        b->bytes.failed = false;
        b->bytes.n = before;
        if (b->n == 0)
            c->queue = batch_free(b);
        return false;
    }
    if (b->n == b->cap) {
        b->cap = b->cap ? 2 * b->cap : 4;
        b->v = realloc(b->v, b->cap * sizeof *b->v);
        CHECK(b->v != NULL);
    }
    if (b->n == 0)
        b->body = body;
    b->v[b->n++] = (struct part){ op, done, arg };
    c->next_id++;
    b->deadline = deadline;
    if (b->n == RPC_BATCH_MAX || b->bytes.n > BATCH_BYTES)
        batch_send(c);
    else
        batch_schedule(c);
    return true;
}

void rpc_client_share(struct rpc_client *c, const struct op *op)
{
    c->shared = op;
}

void rpc_send(struct rpc_client *c, const struct op *op, const void *req, unsigned timeout_ms, rpc_done_fn *done,
              void *arg)
{
    if (op != c->shared || !batch_add(c, op, req, timeout_ms, done, arg))
        rpc_send_via(c, (struct str){ NULL, 0 }, "", op, req, timeout_ms, done, arg);
}

static const char *const role_name[] = { [RPC_NOBODY] = "none", [RPC_WORKER] = "worker", [RPC_MANAGER] = "manager" };

void rpc_send_raw(struct rpc_client *c, struct str op, struct str body, const struct rpc_origin *from,
                  unsigned timeout_ms, rpc_raw_fn *done, void *arg)
{
    struct rpc_req *q = new_req(c, NULL, timeout_ms, arg);
    CHECK(from->role != RPC_LOCAL);
    struct rpc_from f = { from->node, str_from(role_name[from->role]), from->svc, from->addr };
    struct rpc_request rq = { .v = RPC_VERSION, .id = q->id, .op = op, .body = body, .from = &f };
    struct buf m = { .limit = RPC_MSG_MAX };
    q->fn.raw = done;
    int r = encode_envelope(&m, &rq, &q->early);
    start(q, &m, r);
}

static uid_t (*user_of)(const char *daemon);

void rpc_client_users(uid_t (*fn)(const char *daemon))
{
    user_of = fn;
}

static void sources_free(struct rpc_client *c)
{
    c->flush = sd_event_source_disable_unref(c->flush);
    c->hold = sd_event_source_disable_unref(c->hold);
    c->timer = sd_event_source_disable_unref(c->timer);
    c->early = sd_event_source_disable_unref(c->early);
}

static int sources_add(struct rpc_client *c, sd_event *loop, struct err *e)
{
    int r = sd_event_add_defer(loop, &c->flush, on_flush, c);
    if (r >= 0)
        r = sd_event_add_defer(loop, &c->early, on_early, c);
    if (r >= 0)
        r = sd_event_add_time(loop, &c->hold, CLOCK_MONOTONIC, 0, 100, on_hold, c);
    if (r >= 0)
        r = sd_event_add_time(loop, &c->timer, CLOCK_MONOTONIC, 0, 1000, on_timer, c);
    sd_event_source *const all[] = { c->flush, c->early, c->hold, c->timer };
    for (size_t i = 0; r >= 0 && i < sizeof all / sizeof *all; i++)
        r = sd_event_source_set_enabled(all[i], SD_EVENT_OFF);
    return r < 0 ? err_errno(e, -r, "event loop") : 0;
}

int rpc_client_open(struct rpc_client **ret, sd_event *loop, const char *run_dir, const char *daemon, struct err *e)
{
    static const struct sp_ops ops = { .admit = on_admit, .up = on_up, .msg = on_msg, .down = on_down };
    char path[256];
    struct rpc_client *c = calloc(1, sizeof *c);
    CHECK(c != NULL);
    snprintf(c->daemon, sizeof c->daemon, "%s", daemon);
    snprintf(path, sizeof path, "%s/%s.sock", run_dir, daemon);
    c->server = user_of ? user_of(daemon) : (uid_t)-1;
    c->check = user_of != NULL;
    c->unsent_tail = &c->unsent;
    c->due_ms = UINT64_MAX;
    struct sp_conf conf = { .loop = loop,
                            .path = path,
                            .own = SP_REQ,
                            .msg_max = WIRE_MAX,
                            .retry_min_ms = RECONNECT_MIN_MS,
                            .retry_max_ms = RECONNECT_MAX_MS,
                            .ops = &ops,
                            .arg = c };
    int r = sources_add(c, loop, e);
    if (r == 0)
        r = sp_dial(&c->sp, &conf, e);
    if (r < 0) {
        sources_free(c);
        free(c);
        return r;
    }
    *ret = c;
    return 0;
}

struct rpc_client *rpc_client_free(struct rpc_client *c)
{
    if (!c)
        return NULL;
    if (c->gone)
        *c->gone = true;
    sources_free(c);
    sp_free(c->sp);
    batch_free(c->queue);
    for (size_t i = 0; i < c->n; i++) {
        buf_done(&c->v[i]->unsent);
        batch_free(c->v[i]->batch);
        free(c->v[i]);
    }
    free(c->v);
    free(c);
    return NULL;
}

/* ---- without a loop ---- */

static int left_ms(struct mono_ms deadline)
{
    uint64_t now = clock_mono().ms;
    return deadline.ms > now ? (int)(deadline.ms - now) : 0;
}

/* sync_connect - waits for somebody to listen, too; -1: nobody did in time. */
static int sync_connect(const char *path, struct mono_ms deadline)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    if (!str_copy(sa.sun_path, sizeof sa.sun_path, str_from(path)))
        return -1;
    for (int wait = RECONNECT_MIN_MS;; wait = wait < RECONNECT_MAX_MS ? 2 * wait : RECONNECT_MAX_MS) {
        _cleanup_(closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        int left = left_ms(deadline);
        if (fd >= 0 && connect(fd, (const struct sockaddr *)&sa, sizeof sa) == 0)
            return TAKE_FD(fd);
        if (left == 0)
            return -1;
        (void)poll(NULL, 0, wait < left ? wait : left);
    }
}

/* sync_io - all of it; false: the peer is gone, or it is too late (*ret_late). */
static bool sync_io(int fd, short what, char *p, size_t n, struct mono_ms deadline, bool *ret_late)
{
    *ret_late = false;
    while (n > 0) {
        ssize_t k = what == POLLIN ? recv(fd, p, n, 0) : send(fd, p, n, MSG_NOSIGNAL);
        struct pollfd pf = { fd, what, 0 };
        if (k == 0 || (k < 0 && errno != EAGAIN && errno != EINTR))
            return false;
        if (k > 0) {
            p += k;
            n -= (size_t)k;
        } else if (poll(&pf, 1, left_ms(deadline)) == 0) {
            *ret_late = true;
            return false;
        }
    }
    return true;
}

#define SYNC_ID 0x80000001u

/* sync_exchange - @m is the request, with room for what stands before it; then what the peer says, likewise. */
static int sync_exchange(int fd, const char *daemon, struct buf *m, struct mono_ms deadline, struct err *e)
{
    static const char id[ID_BYTES] = { (char)(SYNC_ID >> 24), 0, 0, (char)(SYNC_ID & 0xff) };
    char hello[SP_HELLO_BYTES], head[SP_HEAD_BYTES];
    size_t n;
    bool late;
    sp_hello(hello, SP_REQ);
    sp_head(m->p, m->n - SP_HEAD_BYTES);
    memcpy(m->p + SP_HEAD_BYTES, id, sizeof id);
    if (!sync_io(fd, POLLOUT, hello, sizeof hello, deadline, &late) ||
        !sync_io(fd, POLLIN, hello, sizeof hello, deadline, &late))
        return err_set(e, ERR_UNAVAILABLE, "%s does not answer", daemon);
    if (!sync_io(fd, POLLOUT, m->p, m->n, deadline, &late) || !sync_io(fd, POLLIN, head, sizeof head, deadline, &late))
        return err_set(e, ERR_TIMEOUT, "%s: %s: outcome unknown", daemon,
                       late ? "timed out" : "the connection was lost");
    if (!sp_head_read(head, WIRE_MAX, &n) || n < ID_BYTES)
        return err_set(e, ERR_INTERNAL, "%s: malformed reply", daemon);
    buf_clear(m);
    m->limit = WIRE_MAX;
    char *p = buf_reserve(m, n);
    if (!p)
        return err_set(e, ERR_NOMEM, "%s: reply too large", daemon);
    if (!sync_io(fd, POLLIN, p, n, deadline, &late))
        return err_set(e, ERR_TIMEOUT, "%s: %s: outcome unknown", daemon,
                       late ? "timed out" : "the connection was lost");
    m->n = n;
    return 0;
}

int rpc_call_sync(const char *run_dir, const char *daemon, const struct op *op, const void *req, unsigned timeout_ms,
                  void *rep, struct arena *a, struct err *e)
{
    static const char room[SP_HEAD_BYTES + ID_BYTES];
    char path[256];
    struct mono_ms deadline = { clock_mono().ms + timeout_ms };
    struct rpc_request rq = { .id = 1 };
    struct buf m = { .limit = RPC_MSG_MAX };
    snprintf(path, sizeof path, "%s/%s.sock", run_dir, daemon);
    buf_put(&m, room, sizeof room);
    int r = encode_request(&m, op, req, &rq, e);
    _cleanup_(closep) int fd = r == 0 ? sync_connect(path, deadline) : -1;
    if (r == 0 && fd < 0)
        r = err_set(e, ERR_UNAVAILABLE, "%s does not answer: nobody listens at %s", daemon, path);
    if (r == 0)
        r = sync_exchange(fd, daemon, &m, deadline, e);
    if (r == 0) { /* the struct points into the message, which goes now: decode from a copy in the arena */
        struct str copy = arena_str(a, (struct str){ m.p + ID_BYTES, m.n - ID_BYTES });
        r = copy.p ? decode_reply(copy, op, 1, rep, a, e) : err_set(e, ERR_NOMEM, "%s: reply too large", daemon);
    }
    buf_done(&m);
    return r;
}
