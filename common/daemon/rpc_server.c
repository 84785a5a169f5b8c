#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/daemon/inbox.h"
#include "common/daemon/log.h"
#include "common/daemon/rpc.h"
#include "common/util/check.h"

/* What peers can make a daemon reserve: requests being answered together, and for each one the memory to decode it into
 * and to put the reply together. */
#define CALLS_BYTES (256u << 20)
#define CALL_ARENA_BYTES (128u << 20)
#define CALL_ARENA_PER_BYTE 4u

/* One slot is one nng context: it receives, has one call out, sends the answer, and receives again. The step from
 * sending to receiving is done on nng's thread, which saves waking the loop for it. */
enum slot_state { SLOT_RECEIVING, SLOT_CALLED, SLOT_SENDING, SLOT_DEAD };

struct rpc_call {
    struct inbox_item item;
    struct rpc_server *server;
    struct rpc_call *next; /* all slots of the server */
    _Atomic enum slot_state state;
    nng_ctx ctx;
    nng_aio *aio;
    nng_msg *msg; /* the request; texts point into it */
    struct arena arena;
    struct rpc_call *whole; /* of a batch: the call that brought it; it lies in that one's arena. Else NULL */
    size_t parts_left;      /* the whole: so many are not answered yet, and these are */
    struct buf replies;
    const struct op *op;
    uint64_t id;
    uid_t uid;
    pid_t pid;
    const struct rpc_from *from; /* NULL: of this host */
};

struct rpc_server {
    nng_socket sock;
    pthread_mutex_t close_lock; /* nng does not bear one thread to begin something while another closes the socket */
    const struct route *routes;
    struct rpc_call *slots;
    unsigned nslots, max_slots;
    atomic_uint nreceiving;
    size_t bytes; /* of all requests being answered */
    bool closing, has_gateway;
    uid_t gateway;
    rpc_relay_fn *relay;
};

static const struct field from_fields[] = {
    FIELD_STR(struct rpc_from, node, 0, 64),
    FIELD_STR(struct rpc_from, role, 1, 16),
    FIELD_STR(struct rpc_from, svc, 0, 32),
    FIELD_STR(struct rpc_from, addr, 0, 64),
    FIELD_END,
};
const struct field rpc_request_fields[] = {
    FIELD_U64(struct rpc_request, v, 1, UINT32_MAX),
    FIELD_U64(struct rpc_request, id, 0, UINT64_MAX),
    FIELD_STR(struct rpc_request, op, 1, 64),
    FIELD_RAW_REQ(struct rpc_request, body),
    FIELD_STR(struct rpc_request, to, 0, 64),
    FIELD_STR(struct rpc_request, svc, 0, 32),
    FIELD_U64(struct rpc_request, ttl, 0, 86400000),
    FIELD_PTR(struct rpc_request, from, from_fields, struct rpc_from),
    FIELD_END,
};
const struct field rpc_part_fields[] = {
    FIELD_U64(struct rpc_part, id, 0, UINT64_MAX),
    FIELD_STR(struct rpc_part, op, 1, 64),
    FIELD_RAW_REQ(struct rpc_part, body),
    FIELD_END,
};
const struct field rpc_response_fields[] = {
    FIELD_U64(struct rpc_response, id, 0, UINT64_MAX),
    FIELD_U64(struct rpc_response, code, 0, ERR_CODE_COUNT - 1),
    FIELD_STR(struct rpc_response, msg, 0, 4096),
    FIELD_RAW(struct rpc_response, body),
    FIELD_END,
};

bool rpc_list_open(struct rpc_list *l, struct str array, size_t max)
{
    struct mp_val v;
    l->c = mp_cursor(array);
    l->left = 0;
    if (mp_next(&l->c, &v) != 0 || v.type != MP_ARRAY || v.n == 0 || v.n > max)
        return false;
    l->left = v.n;
    return true;
}

bool rpc_list_next(struct rpc_list *l, struct str *ret)
{
    if (l->left == 0 || mp_span(&l->c, ret) < 0)
        return false;
    l->left--;
    return true;
}

/* Also on nng's thread. */
static void slot_receive(struct rpc_call *c)
{
    c->state = SLOT_RECEIVING;
    atomic_fetch_add(&c->server->nreceiving, 1);
    nng_ctx_recv(c->ctx, c->aio);
}

static void slot_clear(struct rpc_call *c)
{
    arena_done(&c->arena);
    buf_done(&c->replies);
    if (c->msg) {
        c->server->bytes -= nng_msg_len(c->msg);
        nng_msg_free(c->msg);
    }
    c->msg = NULL;
}

static void part_send(struct rpc_call *c, const struct rpc_response *r);

static void slot_send(struct rpc_call *c, int code, struct str text, struct str body)
{
    struct buf b = { .limit = RPC_MSG_MAX };
    struct rpc_response r = { .id = c->id, .code = (uint64_t)code, .msg = text, .body = body };
    if (c->whole) {
        part_send(c, &r);
        return;
    }
    fields_encode(&r, rpc_response_fields, &b);
    nng_msg *m;
    bool ok = !b.failed && nng_msg_alloc(&m, 0) == 0 && nng_msg_append(m, b.p, b.n) == 0;
    buf_done(&b);
    slot_clear(c);
    if (!ok) { /* out of memory: the caller's timeout has to tell it */
        log_error("reply dropped: out of memory op=%s", c->op ? c->op->name : "?");
        slot_receive(c);
        return;
    }
    c->state = SLOT_SENDING;
    nng_aio_set_msg(c->aio, m);
    nng_ctx_send(c->ctx, c->aio);
}

/* The last one answers for all. */
static void part_send(struct rpc_call *c, const struct rpc_response *r)
{
    struct rpc_call *w = c->whole;
    size_t before = w->replies.n;
    c->state = SLOT_SENDING;
    fields_encode(r, rpc_response_fields, &w->replies);
    if (w->replies.failed) { /* too much together: this one has to do without */
        struct rpc_response none = { .id = r->id, .code = ERR_TOO_BIG, .msg = STR("the reply exceeds the limit") };
        w->replies.failed = false;
        w->replies.n = before;
        fields_encode(&none, rpc_response_fields, &w->replies);
    }
    if (--w->parts_left > 0)
        return;
    struct buf all = w->replies;
    w->replies = (struct buf)BUF_INIT;
    slot_send(w, ERR_OK, STR(""), buf_str(&all));
    buf_done(&all);
}

void rpc_reply(struct rpc_call *c, const void *rep)
{
    struct buf body = { .limit = RPC_MSG_MAX - 1024 };
    CHECK(c->state == SLOT_CALLED);
    if (c->op->rep && rep)
        fields_encode(rep, c->op->rep, &body);
    if (body.failed)
        slot_send(c, ERR_TOO_BIG, STR("the reply exceeds the message limit"), (struct str){ NULL, 0 });
    else
        slot_send(c, ERR_OK, STR(""), buf_str(&body));
    buf_done(&body);
}

void rpc_reply_raw(struct rpc_call *c, int code, struct str msg, struct str body)
{
    CHECK(c->state == SLOT_CALLED);
    CHECK(code >= ERR_OK && code < ERR_CODE_COUNT);
    if (body.n > RPC_MSG_MAX - 8192)
        slot_send(c, ERR_TOO_BIG, STR("the reply exceeds the message limit"), (struct str){ NULL, 0 });
    else
        slot_send(c, code, msg, body);
}

void rpc_fail(struct rpc_call *c, int code, const char *fmt, ...)
{
    char text[sizeof((struct err *)0)->msg];
    va_list ap;
    CHECK(c->state == SLOT_CALLED);
    CHECK(code > ERR_OK && code < ERR_CODE_COUNT);
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    slot_send(c, code, str_from(text), (struct str){ NULL, 0 });
}

void rpc_fail_err(struct rpc_call *c, const struct err *e)
{
    rpc_fail(c, e->code ? e->code : ERR_INTERNAL, "%s", e->msg);
}

struct arena *rpc_arena(struct rpc_call *c)
{
    return c->whole ? &c->whole->arena : &c->arena;
}

uid_t rpc_peer_uid(const struct rpc_call *c)
{
    return c->uid;
}

pid_t rpc_peer_pid(const struct rpc_call *c)
{
    return c->pid;
}

bool rpc_permit(struct rpc_call *c, uid_t uid, const char *only_who)
{
    if (c->from ? str_is(c->from->svc, only_who) : c->uid == 0 || (uid != (uid_t)-1 && c->uid == uid))
        return true;
    if (c->from)
        log_warn("refused op=%s node=" STR_FMT " svc=" STR_FMT, c->op->name, STR_ARG(c->from->node),
                 STR_ARG(c->from->svc));
    else
        log_warn("refused op=%s pid=%d uid=%u", c->op->name, (int)c->pid, c->uid);
    rpc_fail(c, ERR_DENIED, "%s: only %s may ask for this", c->op->name, only_who);
    return false;
}

static const struct {
    const char *name;
    enum rpc_role role;
} roles[] = { { "none", RPC_NOBODY }, { "worker", RPC_WORKER }, { "manager", RPC_MANAGER } };

struct rpc_origin rpc_origin(const struct rpc_call *c)
{
    struct rpc_origin o = { .role = RPC_LOCAL };
    if (!c->from)
        return o;
    o = (struct rpc_origin){ RPC_NOBODY, c->from->node, c->from->svc, c->from->addr };
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        if (str_is(c->from->role, roles[i].name))
            o.role = roles[i].role;
    }
    return o;
}

/* from_ok - only gatewayd speaks for other nodes, and it says which. */
static bool from_ok(const struct rpc_call *c, const struct rpc_from *f)
{
    if (!c->server->has_gateway || (c->uid != 0 && c->uid != c->server->gateway))
        return false;
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        if (str_is(f->role, roles[i].name))
            return roles[i].role == RPC_NOBODY ? f->node.n == 0 : f->node.n > 0;
    }
    return false;
}

void rpc_server_gateway(struct rpc_server *s, uid_t uid)
{
    s->has_gateway = uid != (uid_t)-1;
    s->gateway = uid;
}

void rpc_server_relay(struct rpc_server *s, rpc_relay_fn *relay)
{
    s->relay = relay;
}

static const struct route *find_route(const struct rpc_server *s, struct str name)
{
    for (const struct route *r = s->routes; r && r->op; r++) {
        if (str_is(name, r->op->name))
            return r;
    }
    return NULL;
}

static void read_peer(struct rpc_call *c)
{
    uint64_t uid = (uint64_t)-1, pid = 0;
    nng_pipe p = nng_msg_get_pipe(c->msg);
    if (nng_pipe_get_uint64(p, NNG_OPT_IPC_PEER_UID, &uid) != 0)
        uid = (uint64_t)-1; /* the peer is gone: it is nobody */
    if (nng_pipe_get_uint64(p, NNG_OPT_IPC_PEER_PID, &pid) != 0)
        pid = 0;
    c->uid = (uid_t)uid;
    c->pid = (pid_t)pid;
}

static void dispatch_op(struct rpc_call *c, struct str op, struct str body)
{
    struct err e = ERR_INIT;
    const struct route *rt = find_route(c->server, op);
    if (!rt) {
        rpc_fail(c, ERR_UNIMPLEMENTED, "request: op: \"" STR_FMT "\" is not known here", STR_ARG(op));
        return;
    }
    c->op = rt->op;
    void *req = arena_alloc(rpc_arena(c), rt->op->req_size);
    if (!req)
        rpc_fail(c, ERR_NOMEM, "%s: out of memory", rt->op->name);
    else if (fields_decode(req, rt->op->req, rt->op->req_size, body, FIELDS_STRICT, rpc_arena(c), &e) < 0)
        rpc_fail(c, e.code, "%s: %s", rt->op->name, e.msg);
    else
        rt->fn(c, req);
}

/* parts_decode - all of them before anything is done; NULL: malformed, or too much. */
static struct rpc_part *parts_decode(struct rpc_call *c, struct str body, size_t *ret_n, struct err *e)
{
    struct rpc_list l;
    struct str one;
    if (!rpc_list_open(&l, body, RPC_BATCH_MAX)) {
        err_set(e, ERR_INVALID, "request: body: must be a list of 1 to %u requests", RPC_BATCH_MAX);
        return NULL;
    }
    struct rpc_part *v = arena_array(&c->arena, l.left, sizeof *v);
    if (!v)
        err_set(e, ERR_NOMEM, "request: out of memory");
    for (*ret_n = 0; v && l.left > 0; ++*ret_n) {
        if (!rpc_list_next(&l, &one))
            err_set(e, ERR_INVALID, "request: body: malformed");
        else if (fields_decode(&v[*ret_n], rpc_part_fields, sizeof *v, one, FIELDS_STRICT, &c->arena, e) == 0)
            continue;
        return NULL;
    }
    return v;
}

static void dispatch_batch(struct rpc_call *w, struct str body)
{
    struct err e = ERR_INIT;
    size_t n = 0;
    struct rpc_part *v = parts_decode(w, body, &n, &e);
    struct rpc_call *calls = v ? arena_array(&w->arena, n, sizeof *calls) : NULL;
    uint8_t head[5] = { 0xdd, 0, 0, (uint8_t)(n >> 8), (uint8_t)n }; /* array 32 */
    if (!calls) {
        rpc_fail(w, e.code ? e.code : ERR_NOMEM, "%s", e.code ? e.msg : "request: out of memory");
        return;
    }
    w->parts_left = n;
    w->replies = (struct buf){ .limit = RPC_MSG_MAX - (64u << 10) };
    buf_put(&w->replies, head, sizeof head);
    for (size_t i = 0; i < n; i++) { /* all of this is gone when the last one is answered */
        struct rpc_call *c = &calls[i];
        c->server = w->server;
        c->state = SLOT_CALLED;
        c->whole = w;
        c->id = v[i].id;
        c->uid = w->uid;
        c->pid = w->pid;
        dispatch_op(c, v[i].op, v[i].body);
    }
}

static void dispatch(struct rpc_call *c)
{
    struct err e = ERR_INIT;
    struct rpc_request rq;
    struct str in = { nng_msg_body(c->msg), nng_msg_len(c->msg) };
    c->op = NULL;
    c->from = NULL;
    c->id = 0;
    arena_init(&c->arena, CALL_ARENA_BYTES + CALL_ARENA_PER_BYTE * in.n);
    read_peer(c);
    if (fields_decode(&rq, rpc_request_fields, sizeof rq, in, FIELDS_STRICT, &c->arena, &e) < 0) {
        rpc_fail(c, ERR_INVALID, "request: %s", e.msg);
        return;
    }
    c->id = rq.id;
    if (c->server->bytes > CALLS_BYTES) {
        rpc_fail(c, ERR_UNAVAILABLE, "too many large requests at a time");
        return;
    }
    if (rq.v != RPC_VERSION) {
        rpc_fail(c, ERR_INVALID, "request: v: must be %u", RPC_VERSION);
        return;
    }
    if (rq.from && !from_ok(c, rq.from)) {
        log_warn("refused op=" STR_FMT " pid=%d uid=%u: it may not speak for other nodes", STR_ARG(rq.op), (int)c->pid,
                 c->uid);
        rpc_fail(c, ERR_DENIED, "request: from: only gatewayd may speak for other nodes");
        return;
    }
    c->from = rq.from;
    if (rq.to.n > 0) {
        if (c->server->relay && !rq.from)
            c->server->relay(c, &rq);
        else
            rpc_fail(c, ERR_INVALID, "request: to: nothing is passed on from here");
        return;
    }
    if (str_is(rq.op, RPC_BATCH_OP) && !rq.from)
        dispatch_batch(c, rq.body);
    else
        dispatch_op(c, rq.op, rq.body);
}

static int add_slot(struct rpc_server *s, struct err *e);

static void on_inbox(struct inbox_item *item)
{
    struct rpc_call *c = (struct rpc_call *)item;
    struct rpc_server *s = c->server;
    int r = nng_aio_result(c->aio);
    atomic_fetch_sub(&s->nreceiving, 1);
    if (r == NNG_ECLOSED || s->closing) {
        c->state = SLOT_DEAD;
        return;
    }
    if (r != 0) {
        slot_receive(c);
        return;
    }
    c->state = SLOT_CALLED;
    c->msg = nng_aio_get_msg(c->aio);
    s->bytes += nng_msg_len(c->msg);
    nng_aio_set_msg(c->aio, NULL);
    if (atomic_load(&s->nreceiving) == 0 && s->nslots < s->max_slots) {
        struct err e = ERR_INIT;
        if (add_slot(s, &e) < 0)
            log_warn("no more room for requests: %s", e.msg);
    }
    dispatch(c);
}

static void on_sent(struct rpc_call *c)
{
    nng_msg *m = nng_aio_result(c->aio) != 0 ? nng_aio_get_msg(c->aio) : NULL;
    if (m)
        nng_msg_free(m); /* the peer hung up: nobody wants it */
    nng_aio_set_msg(c->aio, NULL);
    pthread_mutex_lock(&c->server->close_lock);
    if (c->server->closing)
        c->state = SLOT_DEAD;
    else
        slot_receive(c);
    pthread_mutex_unlock(&c->server->close_lock);
}

/* On nng's threads. */
static void on_aio(void *arg)
{
    struct rpc_call *c = arg;
    if (c->state == SLOT_SENDING)
        on_sent(c);
    else
        inbox_post(&c->item);
}

static int add_slot(struct rpc_server *s, struct err *e)
{
    struct rpc_call *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(e, ERR_NOMEM, "out of memory");
    c->server = s;
    c->item.fn = on_inbox;
    int r = nng_aio_alloc(&c->aio, on_aio, c);
    if (r == 0)
        r = nng_ctx_open(&c->ctx, s->sock);
    if (r != 0) {
        if (c->aio)
            nng_aio_free(c->aio);
        free(c);
        return err_set(e, ERR_INTERNAL, "open context: %s", nng_strerror(r));
    }
    c->next = s->slots;
    s->slots = c;
    s->nslots++;
    slot_receive(c);
    return 0;
}

static int listen_on(nng_socket sock, const char *run_dir, const char *name, struct err *e)
{
    char url[256];
    nng_listener l;
    int r;
    if (snprintf(url, sizeof url, "ipc://%s/%s.sock", run_dir, name) >= (int)sizeof url)
        return err_set(e, ERR_INVALID, "run folder: name too long");
    if ((r = nng_listener_create(&l, sock, url)) != 0 ||
        (r = nng_listener_set_int(l, NNG_OPT_IPC_PERMISSIONS, 0660)) != 0 ||
        (r = nng_listener_set_size(l, NNG_OPT_RECVMAXSZ, RPC_MSG_MAX)) != 0)
        return err_set(e, ERR_IO, "listen on %s: %s", url, nng_strerror(r));
    mode_t old = umask(0007);
    r = nng_listener_start(l, 0);
    umask(old);
    return r != 0 ? err_set(e, ERR_IO, "listen on %s: %s", url, nng_strerror(r)) : 0;
}

int rpc_server_open(struct rpc_server **ret, sd_event *loop, const char *run_dir, const char *name,
                    const struct route *routes, unsigned max_calls, struct err *e)
{
    int r = inbox_ref(loop, e);
    if (r < 0)
        return r;
    struct rpc_server *s = calloc(1, sizeof *s);
    CHECK(s != NULL);
    pthread_mutex_init(&s->close_lock, NULL);
    s->routes = routes;
    s->max_slots = max_calls ? max_calls : 64;
    r = nng_rep0_open(&s->sock);
    if (r != 0) {
        free(s);
        inbox_unref();
        return err_set(e, ERR_INTERNAL, "open socket: %s", nng_strerror(r));
    }
    r = add_slot(s, e);
    if (r == 0)
        r = listen_on(s->sock, run_dir, name, e);
    if (r < 0) {
        rpc_server_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

struct rpc_server *rpc_server_free(struct rpc_server *s)
{
    if (!s)
        return NULL;
    pthread_mutex_lock(&s->close_lock);
    s->closing = true;
    pthread_mutex_unlock(&s->close_lock);
    nng_close(s->sock);
    while (s->slots) {
        struct rpc_call *c = s->slots;
        s->slots = c->next;
        nng_aio_stop(c->aio); /* its callback has run when this returns */
        inbox_forget(&c->item);
        if (c->state == SLOT_SENDING && nng_aio_result(c->aio) != 0 && nng_aio_get_msg(c->aio))
            nng_msg_free(nng_aio_get_msg(c->aio));
        if (c->state == SLOT_RECEIVING && nng_aio_result(c->aio) == 0 && nng_aio_get_msg(c->aio))
            nng_msg_free(nng_aio_get_msg(c->aio));
        nng_aio_free(c->aio);
        slot_clear(c);
        free(c);
    }
    inbox_unref();
    free(s);
    return NULL;
}
