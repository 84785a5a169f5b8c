/* Answers, waiting, and the write loop: what every handler uses. */
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#include "apid/api.h"
#include "apid/api_state.h"
#include "common/util/check.h"

struct api api;

const char api_not_in_swarm[] =
    "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to "
    "connect this node to swarm and try again.";
static const char not_ready[] =
    "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.";
static const char is_worker[] =
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this "
    "command on a manager node or promote the current node to a manager.";
const char api_locked[] =
    "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm "
    "unlock\" to unlock it.";
const char api_no_leader[] =
    "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too "
    "few managers are online. Make sure more than half of the managers are online.";

/* ---- answers ---- */

static void put_error(struct req *r, unsigned status, const char *prefix, const char *fmt, va_list ap)
    __attribute__((format(printf, 4, 0)));
static void put_error(struct req *r, unsigned status, const char *prefix, const char *fmt, va_list ap)
{
    char text[1024];
    size_t n = strlen(prefix);

    if (r->gone || r->answered)
        return;
    (void)snprintf(text, sizeof text, "%s", prefix);
    (void)vsnprintf(text + n, sizeof text - n, fmt, ap);
    buf_clear(&r->out);
    buf_puts(&r->out, "{\"message\":");
    buf_json_str(&r->out, str_from(text));
    buf_puts(&r->out, "}\n");
    r->out_type = "application/json";
    api_reply(r, status);
}

void api_error(struct req *r, unsigned status, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    put_error(r, status, "", fmt, ap);
    va_end(ap);
}

void api_rpc_error(struct req *r, enum rpc_class c, const char *fmt, ...)
{
    static const struct {
        unsigned status;
        const char *prefix;
    } class[] = {
        [RPC_INVALID] = { 400, "rpc error: code = InvalidArgument desc = " },
        [RPC_NOT_FOUND] = { 404, "rpc error: code = NotFound desc = " },
        [RPC_EXISTS] = { 409, "rpc error: code = AlreadyExists desc = " },
        [RPC_PRECONDITION] = { 400, "rpc error: code = FailedPrecondition desc = " },
        [RPC_UNIMPLEMENTED] = { 501, "rpc error: code = Unimplemented desc = " },
        [RPC_UNKNOWN] = { 500, "rpc error: code = Unknown desc = " },
    };
    va_list ap;

    va_start(ap, fmt);
    put_error(r, class[c].status, class[c].prefix, fmt, ap);
    va_end(ap);
}

unsigned api_status_of(int code)
{
    switch (code < 0 ? -code : code) {
    case ERR_INVALID:
    case ERR_PRECONDITION:
        return 400;
    case ERR_UNAUTHORIZED:
        return 401;
    case ERR_DENIED:
        return 403;
    case ERR_NOT_FOUND:
        return 404;
    case ERR_CONFLICT:
        return 409;
    case ERR_TOO_BIG:
        return 413;
    case ERR_UNIMPLEMENTED:
        return 501;
    case ERR_UNAVAILABLE:
        return 503;
    case ERR_TIMEOUT:
        return 504;
    default:
        return 500;
    }
}

void api_fail(struct req *r, const struct err *e)
{
    api_error(r, api_status_of(e->code), "%s", e->msg);
}

void api_reply_empty(struct req *r, unsigned status)
{
    buf_clear(&r->out);
    api_reply(r, status);
}

void api_reply_json(struct req *r, unsigned status, json_t *doc)
{
    char *text = doc ? json_dumps(doc, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;

    json_decref(doc);
    if (!text) {
        api_error(r, 500, "the answer can't be put into JSON");
        return;
    }
    buf_clear(&r->out);
    buf_puts(&r->out, text);
    buf_putc(&r->out, '\n');
    free(text);
    api_reply(r, status);
}

/* ---- calls ---- */

struct call {
    struct req *r;
    api_rpc_fn *fn;
};

static void call_done(void *arg, const void *rep, const struct err *e)
{
    struct call c = *(struct call *)arg;

    free(arg);
    if (!c.r->gone)
        c.fn(c.r, rep, e);
    req_unref(c.r);
}

void api_call(struct req *r, struct rpc_client *client, const struct op *op, const void *in, unsigned timeout_ms,
              api_rpc_fn *fn)
{
    struct call *c = malloc(sizeof *c);

    CHECK(c);
    *c = (struct call){ req_ref(r), fn };
    rpc_send(client, op, in, timeout_ms, call_done, c);
}

/* One timer for all uses, since its own callback may arm it again. */
static void timer_fired(void *arg)
{
    struct req *r = arg;
    timer_fn *fn = r->timer_fn;

    r->timer_fn = NULL;
    if (fn && !r->gone)
        fn(r);
}

void api_timer(struct req *r, uint64_t at_mono_ms, timer_fn *fn)
{
    struct err e = ERR_INIT;

    r->timer_fn = fn;
    if (!r->timer && at_mono_ms != UINT64_MAX)
        CHECK(timer_open(&r->timer, timer_fired, r, &e) == 0);
    if (r->timer)
        timer_arm(r->timer, at_mono_ms);
}

void api_call_node(struct req *r, struct str node, const char *svc, const struct op *op, const void *in,
                   unsigned timeout_ms, api_rpc_fn *fn)
{
    struct call *c = malloc(sizeof *c);

    CHECK(c);
    *c = (struct call){ req_ref(r), fn };
    rpc_send_via(api.gatewayd, node, svc, op, in, timeout_ms, call_done, c);
}

/* ---- waits ---- */

static struct req *waiting;

static void wait_timeout(void *arg)
{
    struct req *r = arg;
    api_wait_fn *fn = r->wait.fn;

    if (!fn)
        return;
    api_unwait(r);
    fn(r, true);
}

void api_wait(struct req *r, api_wait_fn *fn, uint64_t deadline_ms)
{
    if (r->gone)
        return;
    api_unwait(r);
    r->wait.fn = fn;
    if ((r->wait.next = waiting))
        waiting->wait.pprev = &r->wait.next;
    waiting = r;
    r->wait.pprev = &waiting;
    if (deadline_ms != UINT64_MAX)
        api_timer(r, deadline_ms, wait_timeout);
}

void api_unwait(struct req *r)
{
    if (!r->wait.fn)
        return;
    if ((*r->wait.pprev = r->wait.next))
        r->wait.next->wait.pprev = r->wait.pprev;
    r->wait.fn = NULL;
}

void api_wake_all(void)
{
    struct req *next;

    /* A callback may take its own request off the list, no other. */
    for (struct req *r = waiting; r; r = next) {
        next = r->wait.next;
        r->wait.fn(r, false);
    }
}

/* ---- writes ---- */

static void write_try(struct req *r);

/* What the local map says may be older than what the leader refused, or applied without our knowing. */
static void write_again(void *arg)
{
    struct req *r = arg;
    api_barrier(r, r->write.deadline_ms, write_try);
}

/* look_again - something that the transaction needs went, or came into use, after attempt() had looked: it knows the
 * words for that. */
static bool look_again(const struct err *e)
{
    return e->code == ERR_NOT_FOUND || e->code == ERR_PRECONDITION;
}

static void write_done(void *arg, const void *rep, const struct err *e)
{
    struct req *r = arg;
    struct api_write *w = &r->write;
    uint64_t now = clock_mono().ms;

    w->pending = false;
    if (r->gone) {
        /* nobody to tell */
    } else if (e->code == 0) {
        w->done(r, ((const struct raftd_txn_reply *)rep)->Revision);
    } else if ((e->code == ERR_CONFLICT && w->tries < 64) || (look_again(e) && w->tries < 4)) {
        api.count.retries++;
        write_again(r);
    } else if ((e->code == ERR_UNAVAILABLE || e->code == ERR_TIMEOUT) && now < w->deadline_ms && !state_leaderless()) {
        api.count.retries++;
        w->uncertain = true;
        api_timer(r, now + (w->tries < 8 ? 5u << w->tries : 1000u), write_again);
    } else if (e->code == ERR_UNAVAILABLE || e->code == ERR_TIMEOUT) {
        log_warn("write: gave up: %s", e->msg);
        api_error(r, 500, "%s", api_no_leader);
    } else if (e->code == ERR_CONFLICT) {
        (void)api_out_of_sequence(r);
    } else {
        log_error("write: %s", e->msg);
        api_fail(r, e);
    }
    req_unref(r);
}

int api_out_of_sequence(struct req *r)
{
    if (r->write.uncertain)
        return api_refuse(r, 500,
                          "outcome unknown: the object has changed, by this update and another one or without it");
    return api_rpc_refuse(r, RPC_UNKNOWN, "update out of sequence");
}

static void write_try(struct req *r)
{
    struct api_write *w = &r->write;
    struct err e = ERR_INIT;
    struct txn t;

    txn_init(&t);
    int rc = w->attempt(r, &t, &e);
    if (rc > 0) {
        uint64_t now = clock_mono().ms;
        uint64_t left = now < w->deadline_ms ? w->deadline_ms - now : 1;
        w->pending = true;
        w->tries++;
        api.count.writes++;
        txn_send(&t, api.raftd, (unsigned)left, write_done, req_ref(r));
    }
    txn_done(&t);
    if (rc == 0)
        w->done(r, 0);
}

void api_write(struct req *r, int (*attempt)(struct req *r, struct txn *t, struct err *e),
               void (*done)(struct req *r, uint64_t revision))
{
    r->write =
        (struct api_write){ .attempt = attempt, .done = done, .deadline_ms = clock_mono().ms + API_WRITE_DEADLINE_MS };
    write_try(r);
}

/* ---- the store ---- */

void api_not_manager(struct req *r)
{
    switch (state_now()) {
    case SWARM_LOCKED:
        api_error(r, 503, "%s", api_locked);
        break;
    case SWARM_WORKER:
        api_error(r, 503, "%s", is_worker);
        break;
    case SWARM_PENDING:
    case SWARM_BOOTING:
    case SWARM_STARTING:
    case SWARM_MANAGER:
        api_error(r, 503, "%s", not_ready);
        break;
    default:
        api_error(r, 503, "%s", api_not_in_swarm);
        break;
    }
}

int api_snap(struct req *r, struct store_snap **ret, struct store_meta *meta)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct store_meta local;
    struct err e = ERR_INIT;

    if (!meta)
        meta = &local;
    if (state_locked()) { /* a map of before may still be there */
        api_not_manager(r);
        return -1;
    }
    if (store_begin(api.store, &snap, &e) < 0) {
        if (e.code != ERR_UNAVAILABLE)
            log_error("snapshot: %s", e.msg);
        api_not_manager(r);
        return -1;
    }
    if (store_meta(snap, meta, &e) < 0) {
        api_fail(r, &e);
        return -1;
    }
    if (!meta->initialized) {
        snap = store_end(snap); /* one at a time: why not is another look */
        api_not_manager(r);
        return -1;
    }
    *ret = TAKE(snap);
    return 0;
}

static enum index name_index(enum kind kind)
{
    switch (kind) {
    case KIND_SERVICE:
        return IX_SERVICE_NAME;
    case KIND_NODE:
        return IX_NODE_HOSTNAME;
    case KIND_NETWORK:
        return IX_NETWORK_NAME;
    case KIND_SECRET:
        return IX_SECRET_NAME;
    case KIND_CONFIG:
        return IX_CONFIG_NAME;
    default:
        return IX_COUNT;
    }
}

int api_find(struct req *r, struct store_snap *snap, enum kind kind, struct str ref, struct str *ret_id,
             struct str *ret_doc)
{
    struct err e = ERR_INIT;
    struct str id, doc;
    int rc = store_resolve(snap, kind, name_index(kind), ref, &id, &doc, &e);

    if (rc == -ERR_NOT_FOUND)
        return api_refuse(r, 404, "%s " STR_FMT " not found", kind_info[kind].name, STR_ARG(ref));
    if (rc < 0) {
        api_fail(r, &e);
        return -1;
    }
    if (ret_id)
        *ret_id = id;
    if (ret_doc)
        *ret_doc = doc;
    return 0;
}

int api_filters(struct req *r, struct filters *f, const char *const *known)
{
    struct err e = ERR_INIT;

    if (filters_parse(f, query_get(&r->query, "filters"), &r->arena, &e) == 0 &&
        (!known || filters_known(f, known, &e) == 0))
        return 0;
    api_fail(r, &e);
    return -1;
}

int api_emit(struct req *r, const struct obj_type *t, struct str doc, struct str patch)
{
    static struct buf merged; /* kept between calls: lists emit thousands */
    struct err e = ERR_INIT;

    if (patch.n > 0) {
        buf_clear(&merged);
        if (mp_merge(&merged, doc, patch, &e) < 0) {
            api_fail(r, &e);
            return -1;
        }
        doc = buf_str(&merged);
    }
    if (obj_write_json(t, doc, &r->out, &e) < 0) {
        log_error("%s: %s", t->name, e.msg);
        api_fail(r, &e);
        return -1;
    }
    return 0;
}

/* ---- bodies ---- */

static const struct obj_field no_fields[] = { { .name = NULL } };
static const struct obj_type anything = { .name = "body", .fields = no_fields };

json_t *api_body(struct req *r, const struct obj_type *type)
{
    const char *ct = api_request_header(r, "Content-Type");
    struct err e = ERR_INIT;
    json_t *doc = NULL;

    if (ct && strncasecmp(ct, "application/json", 16) != 0) {
        api_error(r, 400, "unsupported Content-Type header (%s): must be 'application/json'", ct);
        return NULL;
    }
    if (r->body.failed) {
        api_error(r, 500, "out of memory");
        return NULL;
    }
    if (r->body.n == 0) {
        api_error(r, 400, "invalid JSON: got EOF while reading request body");
        return NULL;
    }
    if (obj_parse(&anything, buf_str(&r->body), &doc, &e) < 0) {
        api_fail(r, &e);
        return NULL;
    }
    if (!json_is_object(doc)) {
        json_decref(doc);
        api_error(r, 400, "invalid JSON: must be an object");
        return NULL;
    }
    if (type) /* Go matches names without case, and clients rely on it ("replicated" from docker-py) */
        obj_fold(type, doc);
    return doc;
}
