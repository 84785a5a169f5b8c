/*
 * api.h - what apid's handlers share: the request, ways to answer it, and the daemon's connections to others.
 *
 * A request lives from its first header to its last byte. Handlers run on the event loop, once the whole body is here
 * (or, with on_body, as it comes). A handler either answers at once, or starts something (a transaction, a call to
 * agentd, a wait for the store) and answers from the callback; the connection is suspended meanwhile. Whoever keeps a
 * request across the loop holds a reference and looks at `gone` before touching the client again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "apid/api_filter.h"
#include "apid/api_query.h"
#include "apid/api_route.h"
#include "common/daemon/daemon.h"
#include "common/daemon/rpc.h"
#include "common/object/object.h"
#include "common/store/store.h"
#include "common/store/txn.h"
#include "common/util/arena.h"
#include "common/util/cleanup.h"
#include "common/util/clock.h"
#include "common/util/err.h"

#define API_VERSION_MAX 150 /* 1.50 */
#define API_VERSION_MIN 124 /* tools that pin an old version are common: 1.24 is what they pin */
#define API_VERSION_MAX_TEXT "1.50"
#define API_VERSION_MIN_TEXT "1.24"
#define API_SPEC_BYTES_MAX (16u << 20)
#define API_WRITE_DEADLINE_MS 20000u /* Docker bounds every manager request by 20 s */
#define API_AGENT_DEADLINE_MS 5000u
#define API_HEADERS_MAX 8
#define API_STREAM_WINDOW (1u << 20) /* a producer pauses when this much waits for the client */

struct api {
    struct store *store;
    struct rpc_client *raftd, *agentd, *meshd, *gatewayd, *cad, *dispatcherd;
    uint64_t registry_timeout_ms;
    struct {
        uint64_t requests, errors, writes, retries;
    } count;
};
extern struct api api;

struct req;
typedef void api_wait_fn(struct req *r, bool timed_out);
typedef void api_drain_fn(struct req *r);
typedef void api_rpc_fn(struct req *r, const void *rep, const struct err *e);

/* How one write goes: see api_write(). */
struct api_write {
    int (*attempt)(struct req *r, struct txn *t, struct err *e);
    void (*done)(struct req *r, uint64_t revision);
    uint64_t deadline_ms;
    unsigned tries;
    bool uncertain; /* an earlier try may have been applied: attempt() must look first */
    bool pending;
};

struct req {
    struct req *next, **pprev; /* of all */
    unsigned refs;
    bool gone; /* the client hung up or the answer is complete */
    bool head;
    unsigned version; /* 1.41 is 141 */
    const struct api_route *route;
    struct str params[ROUTE_PARAMS_MAX];
    struct query query;
    struct arena arena;
    struct buf body;
    bool body_is_secret; /* wiped at the end */

    unsigned status;
    struct buf out; /* the answer, or the part of a stream that is not yet sent */
    bool answered;  /* complete; no more will come */
    bool streaming; /* the status line is out, `out` is a window */
    const char *out_type;
    api_drain_fn *on_drain; /* streams: the window is empty, more can come */
    struct api_header {
        const char *name, *value; /* static, or in the arena */
    } headers[API_HEADERS_MAX];
    size_t nheaders;

    /* Routes with streams_body: takes some of @n bytes; taking fewer pauses until api_body_more(). */
    size_t (*on_body)(struct req *r, const char *p, size_t n);
    void (*on_body_end)(struct req *r);

    /* How current its reads are: api_fresh.c's. */
    struct {
        struct req *next;
        uint64_t deadline_ms;
        unsigned tries;
        bool tentative, refused;
        void (*then)(struct req *r);
    } fresh;

    void *data; /* the handler's own state */
    void (*free_data)(void *data);
    struct api_write write;
    struct timer *timer;
    timer_fn *timer_fn;

    struct api_waiter {
        struct req *next, **pprev;
        api_wait_fn *fn;
        uint64_t deadline_ms;
    } wait;

    struct api_conn *conn; /* api_http.c's */
};

/* ---- the server (api_http.c) ---- */
int api_http_open(const char *path, unsigned connections_max, struct err *e);
void api_http_close(void);
extern const struct api_route api_routes[]; /* api_table.c */

/* api_dispatch - the route's handler, now or behind a barrier. */
void api_dispatch(struct req *r);
/* api_barrier - goes on with `then` when the map here holds all that was acknowledged before; answers for itself when
 * there is no leader until the deadline. */
void api_barrier(struct req *r, uint64_t deadline_ms, void (*then)(struct req *r));
bool api_refusal_may_be_stale(unsigned status);

struct req *req_new(void); /* one reference; for the server and for tests */
struct req *req_ref(struct req *r);
void req_unref(struct req *r);
void req_free_all(void); /* at the end */

/* ---- answers (api_http.c, api_reply.c) ---- */
/* api_reply - what is in r->out, as JSON unless r->out_type says otherwise. Exactly once. */
void api_reply(struct req *r, unsigned status);
void api_reply_empty(struct req *r, unsigned status);
void api_reply_json(struct req *r, unsigned status, json_t *doc); /* doc is taken */
/* api_error - {"message": ...}. */
void api_error(struct req *r, unsigned status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* api_fail - an error by its code, text as it is. */
void api_fail(struct req *r, const struct err *e);
unsigned api_status_of(int err_code);

/* The manager's own errors carry the prefix that Docker's do: "rpc error: code = X desc = ". */
enum rpc_class { RPC_INVALID, RPC_NOT_FOUND, RPC_EXISTS, RPC_PRECONDITION, RPC_UNIMPLEMENTED, RPC_UNKNOWN };
void api_rpc_error(struct req *r, enum rpc_class c, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Handlers that validate return -1 after answering; this is the common form: `return api_refuse(...)`. */
#define api_refuse(...) (api_error(__VA_ARGS__), -1)
#define api_rpc_refuse(...) (api_rpc_error(__VA_ARGS__), -1)

/* ---- streams ---- */
/* api_stream - sends the status line and headers now; then append to r->out and call api_stream_push(). */
void api_stream(struct req *r, unsigned status, const char *type);
void api_stream_push(struct req *r);
void api_stream_end(struct req *r);             /* after what is in r->out */
void api_stream_abort(struct req *r);           /* hangs up in the middle: the client sees that it is cut short */
size_t api_stream_waiting(const struct req *r); /* bytes the client has yet to take */

void api_header(struct req *r, const char *name, const char *value);
const char *api_request_header(struct req *r, const char *name); /* NULL when absent; valid while r is not gone */
void api_body_more(struct req *r);

/* ---- waiting ---- */
/* api_call - a request to another daemon on behalf of r; fn is not called when r is gone by then. */
void api_call(struct req *r, struct rpc_client *c, const struct op *op, const void *in, unsigned timeout_ms,
              api_rpc_fn *fn);

/* api_call_node - the same to daemon @svc of another node (its ID, or "leader"). */
void api_call_node(struct req *r, struct str node, const char *svc, const struct op *op, const void *in,
                   unsigned timeout_ms, api_rpc_fn *fn);

/* api_wait - fn is called at each change of the store, and once with timed_out at the deadline, until api_unwait(). */
void api_wait(struct req *r, api_wait_fn *fn, uint64_t deadline_ms);
void api_unwait(struct req *r);
void api_wake_all(void);

/* api_timer - one timer per request; UINT64_MAX disarms. */
void api_timer(struct req *r, uint64_t at_mono_ms, timer_fn *fn);

/*
 * api_write - one transaction, tried again after lost races and while the outcome of a try is unknown.
 *
 * attempt() looks at the store afresh and fills in the transaction. It returns 1 to send it, 0 when there is nothing to
 * write (an earlier try turned out to be applied, or nothing changes: done() is called), -1 after answering.
 */
void api_write(struct req *r, int (*attempt)(struct req *r, struct txn *t, struct err *e),
               void (*done)(struct req *r, uint64_t revision));
/* api_out_of_sequence - answers an update onto a version that is no more. It is not said to be refused when an earlier
 * try of it may have been what changed the object. Returns -1. */
int api_out_of_sequence(struct req *r);

/* ---- the store ---- */
/* api_snap - a snapshot for a request that only a manager can answer; answers with 503 and returns -1 otherwise.
 * End it with store_end(). */
int api_snap(struct req *r, struct store_snap **ret, struct store_meta *meta);
DEFINE_CLEANUP(struct store_snap *, store_end)

/* api_not_manager - why this node cannot answer for the swarm: 503 in Docker's words for each state. */
void api_not_manager(struct req *r);

/* api_find - Docker's look-up with its errors: 404 "<kind> X not found", 400 "... is ambiguous". */
int api_find(struct req *r, struct store_snap *snap, enum kind kind, struct str ref, struct str *ret_id,
             struct str *ret_doc);

/* api_filters - parses and checks `filters`; answers 400 and returns -1. */
int api_filters(struct req *r, struct filters *f, const char *const *known);

/* api_emit - one document as clients see it, appended to r->out: `patch` (may be empty) is laid over it first. */
int api_emit(struct req *r, const struct obj_type *t, struct str doc, struct str patch);

/* api_body - the body as JSON; answers 400 and returns -1. Given. Names are folded to the table's spelling. */
json_t *api_body(struct req *r, const struct obj_type *fold);

/* text_at - a text within a stored document; empty when it is not there. */
static inline struct str text_at(struct str doc, const char *path)
{
    struct str s = { NULL, 0 };

    (void)mp_get_str(doc, path, &s);
    return s;
}

static inline void json_freep(json_t **j)
{
    json_decref(*j);
}

extern const char api_not_in_swarm[], api_no_leader[], api_locked[];
