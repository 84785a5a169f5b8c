/*
 * rpc.h - requests between daemons of one host: msgpack over nng REQ/REP on ipc://<run>/<daemon>.sock.
 *
 * Request: {"v": 1, "id": u64, "op": text, "body": map}. Reply: {"id": u64, "code": u64, "msg": text, "body": map}.
 * A request to gatewayd that is for another node also has "to", "svc" and "ttl"; one that gatewayd hands to a daemon of
 * its host on behalf of another node has "from". Daemons take "from" only from gatewayd's user.
 * Everything here runs on the daemon's event loop; nng's own threads only fill an inbox.
 *
 * Several requests may share a message: its op is "batch", its body a list of maps {"id", "op", "body"}, the body of
 * the reply a list of replies, sent when the last of them is there. A message costs both ends more
 * than what a small request says.
 *
 * A lost connection fails the request with ERR_UNAVAILABLE, or ERR_TIMEOUT if it had been sent; nothing is resent.
 */
#pragma once

#include <sys/types.h>
#include <systemd/sd-event.h>

#include "common/proto/fields.h"

#define RPC_VERSION 1u
#define RPC_MSG_MAX (80u << 20)

/* ---- server side ---- */
struct rpc_call; /* one request that waits for its answer; may be answered later (long polls) */

typedef void rpc_handler(struct rpc_call *c, const void *req);

struct route {
    const struct op *op;
    rpc_handler *fn;
};

/* Each call must be answered exactly once, with one of these; c is gone afterwards. `req` lives until then. */
void rpc_reply(struct rpc_call *c, const void *rep); /* the op's reply struct; NULL when its table is empty */
void rpc_fail(struct rpc_call *c, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void rpc_fail_err(struct rpc_call *c, const struct err *e);

struct arena *rpc_arena(struct rpc_call *c); /* freed with the call */
uid_t rpc_peer_uid(const struct rpc_call *c);
pid_t rpc_peer_pid(const struct rpc_call *c);
/* rpc_permit - is the peer root or @uid? If not, the call is answered with ERR_DENIED: "only <who> may <what>". The
 * socket itself is open to the group of all daemons. */
bool rpc_permit(struct rpc_call *c, uid_t uid, const char *only_who);

/* Where a request comes from. Texts live as long as the call. */
enum rpc_role { RPC_LOCAL, RPC_NOBODY, RPC_WORKER, RPC_MANAGER }; /* nobody: a node without a certificate */
struct rpc_origin {
    enum rpc_role role;
    struct str node; /* by its certificate; empty for RPC_LOCAL (a daemon of this host) and RPC_NOBODY */
    struct str svc;  /* the daemon that asks, as its node's gatewayd says; empty for RPC_LOCAL */
    struct str addr; /* the address its node is seen at, without port; may be empty */
};
struct rpc_origin rpc_origin(const struct rpc_call *c);

struct rpc_server;
/* rpc_server_open - listens on ipc://<run>/<name>.sock, mode 0660. At most max_calls in flight; more wait in nng. */
int rpc_server_open(struct rpc_server **ret, sd_event *loop, const char *run_dir, const char *name,
                    const struct route *routes, unsigned max_calls, struct err *e);
struct rpc_server *rpc_server_free(struct rpc_server *s); /* unanswered calls are dropped */

/* rpc_server_gateway - requests with "from" are taken from this user (and root) only; nobody before this is called. */
void rpc_server_gateway(struct rpc_server *s, uid_t uid);

/* For gatewayd: requests with "to" go to `relay`, undecoded, to be answered with rpc_reply_raw() or rpc_fail(). */
struct rpc_request;
typedef void rpc_relay_fn(struct rpc_call *c, const struct rpc_request *rq);
void rpc_server_relay(struct rpc_server *s, rpc_relay_fn *relay);
void rpc_reply_raw(struct rpc_call *c, int code, struct str msg, struct str body);

/* ---- client side ---- */
struct rpc_client;

/* rpc_done_fn - called once per request. On success e->code is 0 and rep the decoded reply, else rep is NULL. Both live
 * only during the call. Never called from inside rpc_send(). */
typedef void rpc_done_fn(void *arg, const void *rep, const struct err *e);

/* rpc_client_open - a client of ipc://<run>/<daemon>.sock; dials in the background and again after each loss. */
int rpc_client_open(struct rpc_client **ret, sd_event *loop, const char *run_dir, const char *daemon, struct err *e);
struct rpc_client *rpc_client_free(struct rpc_client *c); /* outstanding requests end without their callback */

/* rpc_client_users - from now on clients talk only to a daemon that runs as the user it should run as (or as root, or
 * as ourselves): the run folder is shared, and whoever comes first could listen in another one's name. */
void rpc_client_users(uid_t (*user_of)(const char *daemon));

/* rpc_client_share - from now on requests of this operation that rpc_send() has not sent yet share a message: they are
 * held back until they are as many as those under way, or for 2 ms. The busier, the fewer messages. For small requests
 * of which none is answered much later than the others, since they are answered together. */
void rpc_client_share(struct rpc_client *c, const struct op *op);

/* rpc_send - starts a request. timeout_ms covers waiting for the daemon to come up, too. Any number may be in flight.
 */
void rpc_send(struct rpc_client *c, const struct op *op, const void *req, unsigned timeout_ms, rpc_done_fn *done,
              void *arg);

/* rpc_send_via - as rpc_send(), to a daemon of another node: @gateway is a client of "gatewayd", @to a node's ID or
 * "leader", @svc the daemon there ("dispatcherd"). This node is fine, too. ERR_UNAVAILABLE when there is no way. */
void rpc_send_via(struct rpc_client *gateway, struct str to, const char *svc, const struct op *op, const void *req,
                  unsigned timeout_ms, rpc_done_fn *done, void *arg);

/* rpc_send_raw - for gatewayd: passes on what another node asked, undecoded. @op and @body are copied. `done` gets the
 * daemon's code, text and body, or ours with an empty body; they live only during the call. */
typedef void rpc_raw_fn(void *arg, int code, struct str msg, struct str body);
void rpc_send_raw(struct rpc_client *c, struct str op, struct str body, const struct rpc_origin *from,
                  unsigned timeout_ms, rpc_raw_fn *done, void *arg);

/* rpc_call_sync - for tools and tests without a loop of their own: one request on a socket of its own.
 * The reply struct is decoded into *rep with the given arena. */
int rpc_call_sync(const char *run_dir, const char *daemon, const struct op *op, const void *req, unsigned timeout_ms,
                  void *rep, struct arena *a, struct err *e);

/* Decoding and encoding of the envelope, shared with the fuzz targets. */
struct rpc_from {
    struct str node, role, svc, addr; /* role: "none", "worker", "manager" */
};
struct rpc_request {
    uint64_t v, id;
    struct str op, body;
    struct str to, svc; /* empty: for the daemon that listens */
    uint64_t ttl;       /* ms that the asker waits; with `to` */
    struct rpc_from *from;
};
struct rpc_response {
    uint64_t id, code;
    struct str msg, body;
};
/* One request of a batch; its reply is a struct rpc_response. */
struct rpc_part {
    uint64_t id;
    struct str op, body;
};
#define RPC_BATCH_OP "batch"
#define RPC_BATCH_MAX 256u
extern const struct field rpc_request_fields[], rpc_response_fields[], rpc_part_fields[];

/* rpc_list_open - a msgpack array of 1 to @max entries; rpc_list_next - its next one as a span. True: there it is. */
struct rpc_list {
    struct mp_cursor c;
    size_t left;
};
bool rpc_list_open(struct rpc_list *l, struct str array, size_t max);
bool rpc_list_next(struct rpc_list *l, struct str *ret);
