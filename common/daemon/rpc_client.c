#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/daemon/inbox.h"
#include "common/daemon/log.h"
#include "common/daemon/rpc.h"
#include "common/util/check.h"
#include "common/util/cleanup.h"
#include "common/util/clock.h"

#define REPLY_ARENA_BYTES (512u << 20)
#define RECONNECT_MIN_MS 2
#define RECONNECT_MAX_MS 100
#define DEAF_AFTER_MS 15000 /* far longer than any reconnect takes */

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

/* A request owns an nng context; finished ones wait in a free list for the next request. The step from sending to
 * receiving is done on nng's thread, which saves waking the loop for it. */
enum req_state { REQ_IDLE, REQ_SENDING, REQ_RECEIVING, REQ_FAILED_EARLY };

struct rpc_req {
    struct inbox_item item;
    struct rpc_client *client;
    struct rpc_req *next_all, *next_idle;
    _Atomic enum req_state state;
    nng_ctx ctx;
    nng_aio *aio;
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
    uid_t server;                     /* who must be at the other end */
    atomic_bool stranger;             /* somebody else was */
    char path[108];                   /* of the peer's socket */
    _Atomic uint64_t unsent_since_ms; /* the first request that could not be sent since one was; 0: none */
    nng_socket sock;
    pthread_mutex_t close_lock; /* nng does not bear one thread to begin something while another closes the socket */
    bool closing;
    struct rpc_req *all, *idle;
    uint64_t next_id;
    const struct op *shared;       /* whose requests go together; NULL: none */
    struct batch *queue;           /* to be sent together; NULL: none */
    unsigned flying;               /* parts of batches that were sent */
    sd_event_source *flush, *hold; /* at the end of the turn; when the queue has waited for long enough */
    bool *gone;                    /* set when the client is freed in a callback */
};

/* encode_envelope - the whole request as an nng message, given. */
static int encode_envelope(nng_msg **ret, const struct rpc_request *rq, struct err *e)
{
    struct buf b = { .limit = RPC_MSG_MAX };
    nng_msg *m = NULL;
    fields_encode(rq, rpc_request_fields, &b);
    int r = 0;
    if (b.failed)
        r = err_set(e, ERR_TOO_BIG, STR_FMT ": the request exceeds %u bytes", STR_ARG(rq->op), RPC_MSG_MAX);
    else if (nng_msg_alloc(&m, 0) != 0 || nng_msg_append(m, b.p, b.n) != 0)
        r = err_set(e, ERR_NOMEM, STR_FMT ": out of memory", STR_ARG(rq->op));
    buf_done(&b);
    if (r < 0 && m)
        nng_msg_free(m);
    else
        *ret = m;
    return r;
}

/* encode_request - @rq says where to; the body is made of @req. */
static int encode_request(nng_msg **ret, const struct op *op, const void *req, struct rpc_request *rq, struct err *e)
{
    struct buf body = { .limit = RPC_MSG_MAX };
    fields_encode(req, op->req, &body);
    rq->v = RPC_VERSION;
    rq->op = str_from(op->name);
    rq->body = buf_str(&body);
    int r = body.failed ? err_set(e, ERR_TOO_BIG, "%s: the request exceeds %u bytes", op->name, RPC_MSG_MAX)
                        : encode_envelope(ret, rq, e);
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

static void set_timeout(struct rpc_req *q)
{
    uint64_t now = clock_mono().ms;
    uint64_t left = q->deadline.ms > now ? q->deadline.ms - now : 1;
    nng_aio_set_timeout(q->aio, left > INT32_MAX ? INT32_MAX : (nng_duration)left);
}

static void batch_schedule(struct rpc_client *c);

static void release(struct rpc_req *q)
{
    q->client->flying -= q->flying;
    if (q->flying > 0 && q->client->queue)
        batch_schedule(q->client);
    q->flying = 0;
    q->state = REQ_IDLE;
    q->next_idle = q->client->idle;
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

/* peer_listens - somebody accepts connections at the address, so a dialer in good order would be connected. */
static bool peer_listens(const char *path)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    _cleanup_(closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd >= 0 && str_copy(sa.sun_path, sizeof sa.sun_path, str_from(path)) &&
           connect(fd, (const struct sockaddr *)&sa, sizeof sa) == 0;
}

/*
 * When a pipe closes between the header and the body of an incoming message, nng 1.5.2 can lose track of the receive:
 * its reaper thread then waits for ever, and with it every later reconnect (ipc_pipe_recv_cb() in its transport gets no
 * callback from a stopped aio). Nothing in this process can mend that. A daemon may be killed at any instruction, so
 * the cure is to be started again.
 */
static void leave_when_deaf(struct rpc_client *c)
{
    uint64_t now = clock_mono().ms;
    uint64_t never = 0, since = now;
    if (!atomic_compare_exchange_strong(&c->unsent_since_ms, &never, now))
        since = never;
    if (now - since < DEAF_AFTER_MS || !peer_listens(c->path))
        return;
    log_msg(LOG_L_FATAL, "%s listens, but no connection came about for %d ms: starting over", c->daemon, DEAF_AFTER_MS);
    _exit(1);
}

static void fail_nng(struct rpc_req *q, int r, bool sent)
{
    struct err e = ERR_INIT;
    const char *name = q->client->daemon;
    if (!sent && r == NNG_ETIMEDOUT)
        leave_when_deaf(q->client);
    if (!sent)
        err_set(&e, ERR_UNAVAILABLE, "%s does not answer: %s", name,
                atomic_load(&q->client->stranger) ? "another user's process listens in its place" : nng_strerror(r));
    else if (r == NNG_ETIMEDOUT)
        err_set(&e, ERR_TIMEOUT, "%s did not answer %s in time: outcome unknown", name, what(q));
    else
        err_set(&e, ERR_TIMEOUT, "connection to %s was lost (%s); %s: outcome unknown", name, nng_strerror(r), what(q));
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

static void on_reply(struct rpc_req *q)
{
    struct err e = ERR_INIT;
    struct arena a;
    nng_msg *m = nng_aio_get_msg(q->aio);
    nng_aio_set_msg(q->aio, NULL);
    arena_init(&a, REPLY_ARENA_BYTES);
    struct str in = { nng_msg_body(m), nng_msg_len(m) };
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
    nng_msg_free(m);
}

static void on_inbox(struct inbox_item *item)
{
    struct rpc_req *q = (struct rpc_req *)item;
    if (q->state == REQ_FAILED_EARLY) {
        struct err e = q->early;
        finish(q, NULL, &e);
        return;
    }
    int r = nng_aio_result(q->aio);
    if (q->state == REQ_SENDING && r != 0) {
        nng_msg *m = nng_aio_get_msg(q->aio);
        if (m)
            nng_msg_free(m);
        nng_aio_set_msg(q->aio, NULL);
        fail_nng(q, r, false);
    } else if (r != 0) {
        fail_nng(q, r, true);
    } else {
        on_reply(q);
    }
}

/* On nng's threads. */
static void on_aio(void *arg)
{
    struct rpc_req *q = arg;
    if (q->state != REQ_SENDING || nng_aio_result(q->aio) != 0) {
        inbox_post(&q->item);
        return;
    }
    atomic_store(&q->client->unsent_since_ms, 0);
    pthread_mutex_lock(&q->client->close_lock);
    if (!q->client->closing) {
        q->state = REQ_RECEIVING;
        set_timeout(q);
        nng_ctx_recv(q->ctx, q->aio);
    }
    pthread_mutex_unlock(&q->client->close_lock);
}

static struct rpc_req *take_req(struct rpc_client *c)
{
    struct rpc_req *q = c->idle;
    if (q) {
        c->idle = q->next_idle;
        return q;
    }
    q = calloc(1, sizeof *q);
    CHECK(q != NULL);
    q->client = c;
    q->item.fn = on_inbox;
    CHECK(nng_aio_alloc(&q->aio, on_aio, q) == 0);
    CHECK(nng_ctx_open(&q->ctx, c->sock) == 0);
    q->next_all = c->all;
    c->all = q;
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

/* start - @r is what became of encoding; its error is told from the loop, like every other. */
static void start(struct rpc_req *q, nng_msg *m, int r)
{
    if (r < 0) {
        q->state = REQ_FAILED_EARLY;
        inbox_post(&q->item);
        return;
    }
    q->state = REQ_SENDING;
    set_timeout(q);
    nng_aio_set_msg(q->aio, m);
    nng_ctx_send(q->ctx, q->aio);
}

void rpc_send_via(struct rpc_client *gateway, struct str to, const char *svc, const struct op *op, const void *req,
                  unsigned timeout_ms, rpc_done_fn *done, void *arg)
{
    struct rpc_req *q = new_req(gateway, op, timeout_ms, arg);
    struct rpc_request rq = { .id = q->id, .to = to, .svc = str_from(svc), .ttl = to.n > 0 ? timeout_ms : 0 };
    nng_msg *m = NULL;
    q->fn.done = done;
    int r = encode_request(&m, op, req, &rq, &q->early);
    start(q, m, r);
}

/* ---- requests that share a message ---- */

static int encode_batch(nng_msg **ret, struct batch *b, uint64_t id, struct err *e)
{
    const uint8_t head[BATCH_HEAD] = { 0xdd, 0, 0, (uint8_t)(b->n >> 8), (uint8_t)b->n }; /* array 32 */
    memcpy(b->bytes.p, head, sizeof head);
    return encode_envelope(
        ret, &(struct rpc_request){ .v = RPC_VERSION, .id = id, .op = STR(RPC_BATCH_OP), .body = buf_str(&b->bytes) },
        e);
}

/* A single one goes as if there were no batches. */
static int encode_single(nng_msg **ret, const struct batch *b, struct err *e)
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
    nng_msg *m = NULL;
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
    start(q, m, r);
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
    nng_msg *m = NULL;
    q->fn.raw = done;
    int r = encode_envelope(&m, &rq, &q->early);
    start(q, m, r);
}

static uid_t (*user_of)(const char *daemon);

void rpc_client_users(uid_t (*fn)(const char *daemon))
{
    user_of = fn;
}

/* On nng's threads, before the connection is used. */
static void check_server(nng_pipe p, nng_pipe_ev ev, void *arg)
{
    struct rpc_client *c = arg;
    uint64_t uid = (uint64_t)-1;
    (void)ev;
    bool ok = nng_pipe_get_uint64(p, NNG_OPT_IPC_PEER_UID, &uid) == 0 &&
              (uid == 0 || uid == getuid() || (c->server != (uid_t)-1 && uid == c->server));
    atomic_store(&c->stranger, !ok);
    if (!ok)
        nng_pipe_close(p);
}

/* A REQ socket that never resends (@check: only to whom check_server() accepts): a lost connection ends the request
 * with an error instead (its outcome is unknown).
 */
static int open_req(nng_socket *sock, const char *run_dir, const char *daemon, struct rpc_client *check, struct err *e)
{
    char url[256];
    nng_dialer d;
    int r;
    if (snprintf(url, sizeof url, "ipc://%s/%s.sock", run_dir, daemon) >= (int)sizeof url)
        return err_set(e, ERR_INVALID, "run folder: name too long");
    if ((r = nng_req0_open(sock)) != 0)
        return err_set(e, ERR_INTERNAL, "open socket: %s", nng_strerror(r));
    if ((r = nng_socket_set_ms(*sock, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE)) != 0 ||
        (r = nng_socket_set_ms(*sock, NNG_OPT_RECONNMINT, RECONNECT_MIN_MS)) != 0 ||
        (r = nng_socket_set_ms(*sock, NNG_OPT_RECONNMAXT, RECONNECT_MAX_MS)) != 0 ||
        (r = nng_socket_set_size(*sock, NNG_OPT_RECVMAXSZ, RPC_MSG_MAX)) != 0 ||
        (check && (r = nng_pipe_notify(*sock, NNG_PIPE_EV_ADD_PRE, check_server, check)) != 0) ||
        (r = nng_dialer_create(&d, *sock, url)) != 0 || (r = nng_dialer_start(d, NNG_FLAG_NONBLOCK)) != 0) {
        nng_close(*sock);
        return err_set(e, ERR_IO, "dial %s: %s", url, nng_strerror(r));
    }
    return 0;
}

static void sources_free(struct rpc_client *c)
{
    c->flush = sd_event_source_disable_unref(c->flush);
    c->hold = sd_event_source_disable_unref(c->hold);
}

int rpc_client_open(struct rpc_client **ret, sd_event *loop, const char *run_dir, const char *daemon, struct err *e)
{
    int r = inbox_ref(loop, e);
    if (r < 0)
        return r;
    struct rpc_client *c = calloc(1, sizeof *c);
    CHECK(c != NULL);
    pthread_mutex_init(&c->close_lock, NULL);
    snprintf(c->daemon, sizeof c->daemon, "%s", daemon);
    snprintf(c->path, sizeof c->path, "%s/%s.sock", run_dir, daemon);
    c->server = user_of ? user_of(daemon) : (uid_t)-1;
    r = sd_event_add_defer(loop, &c->flush, on_flush, c);
    if (r >= 0)
        r = sd_event_add_time(loop, &c->hold, CLOCK_MONOTONIC, 0, 100, on_hold, c);
    if (r >= 0)
        r = sd_event_source_set_enabled(c->flush, SD_EVENT_OFF);
    if (r >= 0)
        r = sd_event_source_set_enabled(c->hold, SD_EVENT_OFF);
    r = r < 0 ? err_errno(e, -r, "event loop") : open_req(&c->sock, run_dir, daemon, user_of ? c : NULL, e);
    if (r < 0) {
        sources_free(c);
        free(c);
        inbox_unref();
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
    batch_free(c->queue);
    pthread_mutex_lock(&c->close_lock);
    c->closing = true;
    pthread_mutex_unlock(&c->close_lock);
    nng_close(c->sock);
    while (c->all) {
        struct rpc_req *q = c->all;
        c->all = q->next_all;
        nng_aio_stop(q->aio);
        inbox_forget(&q->item);
        bool holds = q->state == REQ_SENDING ? nng_aio_result(q->aio) != 0
                                             : q->state == REQ_RECEIVING && nng_aio_result(q->aio) == 0;
        if (holds && nng_aio_get_msg(q->aio))
            nng_msg_free(nng_aio_get_msg(q->aio));
        nng_aio_free(q->aio);
        batch_free(q->batch);
        free(q);
    }
    inbox_unref();
    free(c);
    return NULL;
}

int rpc_call_sync(const char *run_dir, const char *daemon, const struct op *op, const void *req, unsigned timeout_ms,
                  void *rep, struct arena *a, struct err *e)
{
    nng_socket sock = NNG_SOCKET_INITIALIZER;
    nng_msg *m = NULL;
    int r = open_req(&sock, run_dir, daemon, NULL, e);
    if (r < 0)
        return r;
    nng_socket_set_ms(sock, NNG_OPT_SENDTIMEO, (nng_duration)timeout_ms);
    nng_socket_set_ms(sock, NNG_OPT_RECVTIMEO, (nng_duration)timeout_ms);
    struct rpc_request rq = { .id = 1 };
    r = encode_request(&m, op, req, &rq, e);
    if (r < 0)
        goto out;
    int n = nng_sendmsg(sock, m, 0);
    if (n != 0) {
        nng_msg_free(m);
        r = err_set(e, ERR_UNAVAILABLE, "%s does not answer: %s", daemon, nng_strerror(n));
        goto out;
    }
    n = nng_recvmsg(sock, &m, 0);
    if (n != 0) {
        r = err_set(e, n == NNG_ETIMEDOUT ? ERR_TIMEOUT : ERR_UNAVAILABLE, "%s: %s", daemon, nng_strerror(n));
        goto out;
    }
    /* The struct points into the message, which goes now: decode from a copy in the arena. */
    struct str copy = arena_str(a, (struct str){ nng_msg_body(m), nng_msg_len(m) });
    nng_msg_free(m);
    r = copy.p ? decode_reply(copy, op, 1, rep, a, e) : err_set(e, ERR_NOMEM, "%s: reply too large", daemon);
out:
    nng_close(sock);
    return r;
}
