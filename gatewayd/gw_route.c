#include "gatewayd/gw_route.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/util/check.h"
#include "gatewayd/gw_authz.h"
#include "gatewayd/gw_shell.h"

#define SLOTS_MAX 65536u /* requests that wait for one peer: as many as a stream's number can tell apart */
#define CALLS_MAX                                                                                                      \
    65536u /* all that this process knows of, under a KiB each: a poll of each of 20,000 nodes, and more */
#define WAITING_BYTES (96u << 20)
#define ASK_MAX_MS 86400000u

static const char too_many[] = "too many requests at a time";
static const unsigned in_calls_max[] = { [RPC_NOBODY] = 2, [RPC_WORKER] = 256, [RPC_MANAGER] = 40000 };

/* One request that we answer for, or that is ours. */
struct gw_call {
    struct gw_call *next, **prev;       /* all */
    struct gw_call *in_next, **in_prev; /* src_link's */
    enum { SRC_LOCAL, SRC_LINK, SRC_SELF } src;
    enum { WAITING, ON_LINK, AT_DAEMON } state;
    struct rpc_call *local;
    struct gw_link *src_link; /* NULL: it is gone, nobody wants the answer */
    uint32_t src_stream;
    rpc_raw_fn *done;
    void *arg;
    struct gw_link *only; /* may go over this link alone */
    struct gw_link *via;
    uint32_t via_stream;
    bool hop; /* was passed on already */
    bool to_leader;
    char to[GW_ID_MAX], svc[40], op[72];
    struct str body; /* while WAITING: in `copy`, or the local call's */
    struct buf copy;
    struct rpc_origin from; /* texts in the arrays below */
    char from_node[GW_ID_MAX], from_svc[40], from_addr[72];
    uint64_t deadline_ms, wait_until_ms;
};

_Static_assert(sizeof(struct gw_call) < 1024, "CALLS_MAX of them");

struct answer;
static struct {
    sd_event *loop;
    struct answer *answers;
    sd_event_source *timer, *defer;
    uint64_t timer_at;
    struct gw_call *calls;
    size_t waiting_bytes;
    struct gw_route_stats n;
} route;

/* ---- the peer's reply finds its request by the stream number: 16 bits of slot, 16 of generation ---- */

static bool take_slot(struct gw_link *l, struct gw_call *c)
{
    if (l->slots_used == l->nslots) {
        unsigned n = l->nslots ? l->nslots * 2 : 16;
        if (n > SLOTS_MAX)
            return false;
        const size_t each = sizeof(void *);
        l->slots = realloc(l->slots, n * each);
        l->slot_gen = realloc(l->slot_gen, n * sizeof *l->slot_gen);
        CHECK(l->slots && l->slot_gen);
        memset(l->slots + l->nslots, 0, (n - l->nslots) * each);
        memset(l->slot_gen + l->nslots, 0, (n - l->nslots) * sizeof *l->slot_gen);
        l->slot_hint = l->nslots;
        l->nslots = n;
    }
    unsigned i = l->slot_hint;
    while (l->slots[i % l->nslots])
        i++;
    i %= l->nslots;
    l->slot_hint = i + 1;
    l->slots[i] = c;
    l->slots_used++;
    c->via = l;
    c->via_stream = (uint32_t)++l->slot_gen[i] << 16 | i;
    return true;
}

static void release_slot(struct gw_call *c)
{
    struct gw_link *l = c->via;
    if (!l)
        return;
    CHECK(l->slots[c->via_stream & 0xffff] == c);
    l->slots[c->via_stream & 0xffff] = NULL;
    l->slots_used--;
    c->via = NULL;
}

static struct gw_call *find_slot(const struct gw_link *l, uint32_t stream)
{
    unsigned i = stream & 0xffff;
    struct gw_call *c = i < l->nslots ? l->slots[i] : NULL;
    return c && c->via_stream == stream ? c : NULL;
}

/* ---- the life of a call ---- */

static void arm(uint64_t at_ms)
{
    if (at_ms >= route.timer_at)
        return;
    route.timer_at = at_ms;
    (void)sd_event_source_set_time(route.timer, at_ms * 1000);
    (void)sd_event_source_set_enabled(route.timer, SD_EVENT_ONESHOT);
}

static struct gw_call *call_new(uint64_t ttl_ms)
{
    struct gw_call *c = calloc(1, sizeof *c);
    CHECK(c != NULL);
    c->deadline_ms = gw_now_ms() + (ttl_ms && ttl_ms < ASK_MAX_MS ? ttl_ms : ASK_MAX_MS);
    c->next = route.calls;
    c->prev = &route.calls;
    if (c->next)
        c->next->prev = &c->next;
    route.calls = c;
    route.n.outstanding++;
    return c;
}

static void stop_waiting(struct gw_call *c)
{
    if (c->state == WAITING && c->copy.n > 0)
        route.waiting_bytes -= c->copy.n;
    if (c->copy.p)
        OPENSSL_cleanse(c->copy.p, c->copy.n); /* may hold a join token */
    buf_done(&c->copy);
}

static void leave_source(struct gw_call *c)
{
    if (!c->src_link)
        return;
    *c->in_prev = c->in_next;
    if (c->in_next)
        c->in_next->in_prev = c->in_prev;
    c->src_link->n_in_calls--;
    c->src_link = NULL;
}

static void call_free(struct gw_call *c)
{
    stop_waiting(c);
    leave_source(c);
    release_slot(c);
    *c->prev = c->next;
    if (c->next)
        c->next->prev = c->prev;
    route.n.outstanding--;
    free(c);
}

static void reply_over(struct gw_link *l, uint32_t stream, int code, struct str msg, struct str body)
{
    struct buf b = { .limit = GW_MESSAGE_MAX };
    struct gw_reply_msg r = { .Code = (uint64_t)code, .Msg = msg, .Body = body };
    fields_encode(&r, gw_reply_fields, &b);
    if (gw_link_send(l, GW_REPLY, stream, &b) || l->state != GW_UP)
        return;
    r = (struct gw_reply_msg){ .Code = ERR_TIMEOUT,
                               .Msg = STR("the answer found no room on the link: outcome unknown") };
    fields_encode(&r, gw_reply_fields, &b);
    if (!gw_link_send(l, GW_REPLY, stream, &b))
        gw_link_doom(l);
}

/* Our own requests' answers are given from the loop: whoever gets them may close links. */
struct answer {
    struct answer *next;
    rpc_raw_fn *done;
    void *arg;
    int code;
    struct buf msg, body;
};

static void answer_later(rpc_raw_fn *done, void *arg, int code, struct str msg, struct str body)
{
    struct answer *a = calloc(1, sizeof *a), **at = &route.answers;
    CHECK(a != NULL);
    *a = (struct answer){ .done = done, .arg = arg, .code = code };
    buf_put(&a->msg, msg.p, msg.n);
    buf_put(&a->body, body.p, body.n);
    CHECK(!a->msg.failed && !a->body.failed);
    while (*at)
        at = &(*at)->next;
    *at = a;
    gw_route_retry();
}

static void answer_free(struct answer *a)
{
    buf_done(&a->msg);
    buf_done(&a->body);
    free(a);
}

static void give_answers(void)
{
    while (route.answers) {
        struct answer *a = route.answers;
        route.answers = a->next;
        a->done(a->arg, a->code, buf_str(&a->msg), buf_str(&a->body));
        answer_free(a);
    }
}

/* Answers and forgets c. */
static void finish(struct gw_call *c, int code, struct str msg, struct str body)
{
    rpc_raw_fn *done = c->done;
    void *arg = c->arg;
    struct rpc_call *local = c->local;
    struct gw_link *l = c->src_link;
    uint32_t stream = c->src_stream;
    int src = c->src;
    if (code != ERR_OK)
        route.n.failed++;
    leave_source(c);
    call_free(c);
    if (src == SRC_LOCAL) {
        rpc_reply_raw(local, code, msg, body);
    } else if (src == SRC_LINK && l) {
        reply_over(l, stream, code, msg, body);
        gw_link_idle(l);
    } else if (src == SRC_SELF) {
        answer_later(done, arg, code, msg, body);
    }
}

static void fail(struct gw_call *c, const struct err *e)
{
    finish(c, e->code ? e->code : ERR_INTERNAL, str_from(e->msg), (struct str){ NULL, 0 });
}

static void failf(struct gw_call *c, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void failf(struct gw_call *c, int code, const char *fmt, ...)
{
    struct err e = { .code = code };
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e.msg, sizeof e.msg, fmt, ap);
    va_end(ap);
    fail(c, &e);
}

/* ---- where to ---- */

static void on_daemon_reply(void *arg, int code, struct str msg, struct str body)
{
    finish(arg, code, msg, body);
}

static void to_daemon(struct gw_call *c)
{
    struct rpc_client *client = gw_client(str_from(c->svc));
    uint64_t now = gw_now_ms();
    if (!client) {
        failf(c, ERR_UNIMPLEMENTED, "%s: not known here", c->svc);
        return;
    }
    unsigned ms = c->deadline_ms > now ? (unsigned)(c->deadline_ms - now) : 1;
    struct str body = c->body;
    rpc_send_raw(client, str_from(c->op), body, &c->from, ms, on_daemon_reply, c);
    stop_waiting(c);
    c->state = AT_DAEMON;
}

static void over_link(struct gw_call *c, struct gw_link *l)
{
    uint64_t now = gw_now_ms();
    struct buf b = { .limit = GW_MESSAGE_MAX };
    struct rpc_from from = { c->from.node, str_from(gw_role_name(c->from.role)), c->from.svc, c->from.addr };
    struct gw_request_msg m = { .To = str_from(c->to),
                                .Svc = str_from(c->svc),
                                .Op = str_from(c->op),
                                .By = c->from.svc,
                                .Ttl = c->deadline_ms > now ? c->deadline_ms - now : 1,
                                .From = c->src == SRC_LINK ? &from : NULL,
                                .Body = c->body };
    fields_encode(&m, gw_request_fields, &b);
    if (b.failed || b.n > gw_link_message_max(l)) {
        buf_done(&b);
        failf(c, ERR_TOO_BIG, "%s.%s: the request is longer than the %zu bytes that a link takes", c->svc, c->op,
              gw_link_message_max(l));
        return;
    }
    if (!take_slot(l, c)) {
        buf_done(&b);
        failf(c, ERR_UNAVAILABLE, "%s.%s: too many requests to node %s at a time", c->svc, c->op, l->peer.node);
        return;
    }
    if (!gw_link_send(l, GW_REQUEST, c->via_stream, &b)) {
        failf(c, ERR_UNAVAILABLE, "%s.%s: the link to node %s has no room", c->svc, c->op, l->peer.node);
        return;
    }
    if (c->src == SRC_LINK)
        route.n.forwarded++;
    stop_waiting(c);
    c->state = ON_LINK;
}

/* usable - for requests. */
static struct gw_link *usable(struct gw_link *l)
{
    return l && !l->grace ? l : NULL;
}

/* Where c must go now. NULL and *ret_local: here. NULL and an empty e: nowhere yet. */
static struct gw_link *goal(const struct gw_call *c, bool *ret_local, struct err *e)
{
    const struct gw_swarm_view *sw = gw_swarm();
    const char *me = gw_ident()->cred.info.node;
    *ret_local = false;
    if (c->only)
        return c->only;
    if (!c->to_leader) {
        if (strcmp(c->to, me) == 0) {
            *ret_local = true;
            return NULL;
        }
        struct gw_link *l = c->hop ? NULL : usable(gw_hub_link(str_from(c->to)));
        if (!l)
            err_set(e, ERR_UNAVAILABLE, "node %s is not connected", c->to);
        return l;
    }
    if (sw->initialized && sw->leader) {
        *ret_local = true;
        return NULL;
    }
    if (gw_ident_role() == RPC_NOBODY)
        err_set(e, ERR_UNAVAILABLE, "this node is in no swarm");
    if (c->src == SRC_LINK && gw_ident_role() != RPC_MANAGER)
        err_set(e, ERR_UNAVAILABLE, "this node is not a manager (any more)");
    if (e->code)
        return NULL;
    if (gw_ident_role() == RPC_WORKER || !sw->initialized)
        return c->hop ? NULL : gw_hub_any_manager();
    if (c->hop || !sw->leader_id[0] || strcmp(sw->leader_id, me) == 0)
        return NULL;
    return usable(gw_hub_link(str_from(sw->leader_id)));
}

static void wait_for_goal(struct gw_call *c)
{
    if (c->state == WAITING && c->wait_until_ms != 0)
        return;
    if (c->src == SRC_LINK && !c->copy.p) {
        if (route.waiting_bytes + c->body.n > WAITING_BYTES) {
            failf(c, ERR_UNAVAILABLE, "%s.%s: too much waits for a leader", c->svc, c->op);
            return;
        }
        buf_put(&c->copy, c->body.p, c->body.n);
        CHECK(!c->copy.failed);
        c->body = buf_str(&c->copy);
        route.waiting_bytes += c->copy.n;
    }
    c->wait_until_ms = gw_now_ms() + (c->hop ? GW_ROUTE_HOP_MS : GW_ROUTE_WAIT_MS);
    if (c->wait_until_ms > c->deadline_ms)
        c->wait_until_ms = c->deadline_ms;
    arm(c->wait_until_ms);
}

/* Sends a waiting call on its way, if there is one. May free it. */
static void go(struct gw_call *c)
{
    struct err e = ERR_INIT;
    bool local;
    struct gw_link *l = goal(c, &local, &e);
    if (local)
        to_daemon(c);
    else if (l)
        over_link(c, l);
    else if (e.code)
        fail(c, &e);
    else
        wait_for_goal(c);
}

void gw_route_retry(void)
{
    (void)sd_event_source_set_enabled(route.defer, SD_EVENT_ONESHOT);
}

static int on_retry(sd_event_source *s, void *arg)
{
    struct gw_call *next;
    (void)s, (void)arg;
    for (struct gw_call *c = route.calls; c; c = next) {
        next = c->next; /* go() frees c at most; replies come from the loop */
        if (c->state == WAITING)
            go(c);
    }
    give_answers();
    return 0;
}

static void give_up_waiting(struct gw_call *c)
{
    const struct gw_swarm_view *sw = gw_swarm();
    if (c->hop)
        failf(c, ERR_UNAVAILABLE, "%s.%s: this manager is not the leader", c->svc, c->op);
    else if (gw_ident_role() != RPC_MANAGER || !sw->initialized)
        failf(c, ERR_UNAVAILABLE, "%s.%s: no manager can be reached", c->svc, c->op);
    else if (sw->leader_id[0])
        failf(c, ERR_UNAVAILABLE, "%s.%s: the leader, node %s, is not connected", c->svc, c->op, sw->leader_id);
    else
        failf(c, ERR_UNAVAILABLE,
              "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than "
              "half of the managers are online.");
}

static int on_timer(sd_event_source *s, uint64_t usec, void *arg)
{
    uint64_t now = gw_now_ms(), at = UINT64_MAX;
    struct gw_call *next;
    (void)s, (void)usec, (void)arg;
    route.timer_at = UINT64_MAX;
    for (struct gw_call *c = route.calls; c; c = next) {
        next = c->next;
        if (c->state == WAITING && c->wait_until_ms <= now) {
            give_up_waiting(c);
        } else if (c->state == ON_LINK && c->deadline_ms <= now) {
            failf(c, ERR_TIMEOUT, "node %s did not answer %s.%s in time: outcome unknown", c->via->peer.node, c->svc,
                  c->op);
        } else if (c->state != AT_DAEMON) { /* there, the client keeps the time */
            uint64_t due = c->state == WAITING ? c->wait_until_ms : c->deadline_ms;
            at = due < at ? due : at;
        }
    }
    if (at != UINT64_MAX) /* whole seconds: one sweep for many */
        arm(at < now + 1000 ? at : (at + 999) / 1000 * 1000);
    return 0;
}

/* ---- from a daemon of this host ---- */

static void set_from(struct gw_call *c, enum rpc_role role, struct str node, struct str svc, struct str addr)
{
    (void)str_copy(c->from_node, sizeof c->from_node, node);
    (void)str_copy(c->from_svc, sizeof c->from_svc, svc);
    (void)str_copy(c->from_addr, sizeof c->from_addr, addr);
    c->from = (struct rpc_origin){
        .role = role, .node = str_from(c->from_node), .svc = str_from(c->from_svc), .addr = str_from(c->from_addr)
    };
}

static bool set_goal(struct gw_call *c, struct str to, struct str svc, struct str op, struct str body)
{
    c->to_leader = str_is(to, "leader");
    c->body = body;
    return str_copy(c->to, sizeof c->to, to) && str_copy(c->svc, sizeof c->svc, svc) &&
           str_copy(c->op, sizeof c->op, op);
}

static int permit(const struct gw_call *c, struct err *e)
{
    int r = gw_authz(&c->from, str_from(c->svc), str_from(c->op), c->body, e);
    if (r == -ERR_DENIED) {
        route.n.refused++;
        gw_shell_refused(&c->from, e);
    }
    return r;
}

/* The host part of where we can be reached: what a handler sees as the address of a request that stays here. */
static struct str own_host(char host[ADDR_HOST_MAX])
{
    struct host_port a;
    host[0] = '\0';
    if (addr_parse(str_from(gw_ident()->advertise), 0, &a, NULL) == 0)
        (void)str_copy(host, ADDR_HOST_MAX, str_from(a.host));
    return str_from(host);
}

void gw_route_relay(struct rpc_call *rc, const struct rpc_request *rq)
{
    char host[ADDR_HOST_MAX];
    struct err e = ERR_INIT;
    struct str by = str_from(gw_daemon_of(rpc_peer_uid(rc)));
    if (by.n == 0) {
        rpc_fail(rc, ERR_DENIED, "only daemons of this swarm may ask other nodes");
        return;
    }
    if (gw_ident_role() == RPC_NOBODY) {
        rpc_fail(rc, ERR_UNAVAILABLE, "this node has no certificate (yet): other nodes can't be asked");
        return;
    }
    if (str_is(by, "root"))
        by = gw_authz_root(rq->svc, rq->op);
    if (route.n.outstanding >= CALLS_MAX) {
        rpc_fail(rc, ERR_UNAVAILABLE, "%s", too_many);
        return;
    }
    struct gw_call *c = call_new(rq->ttl);
    c->src = SRC_LOCAL;
    c->local = rc;
    set_from(c, gw_ident_role(), str_from(gw_ident()->cred.info.node), by, own_host(host));
    if (!set_goal(c, rq->to, rq->svc, rq->op, rq->body)) {
        failf(c, ERR_INVALID, "request: to, svc or op is too long");
        return;
    }
    if (permit(c, &e) < 0) {
        fail(c, &e);
        return;
    }
    route.n.relayed++;
    arm(c->deadline_ms);
    go(c);
}

void gw_route_ask(struct gw_link *l, const char *to, const char *svc, const struct op *op, const void *req,
                  unsigned timeout_ms, rpc_raw_fn *done, void *arg)
{
    struct gw_call *c = call_new(timeout_ms);
    c->src = SRC_SELF;
    c->done = done;
    c->arg = arg;
    c->only = l;
    set_from(c, l ? l->own : gw_ident_role(), str_from(l && l->own == RPC_NOBODY ? "" : gw_ident()->cred.info.node),
             STR("gatewayd"), STR(""));
    fields_encode(req, op->req, &c->copy);
    CHECK(!c->copy.failed);
    route.waiting_bytes += c->copy.n;
    CHECK(set_goal(c, str_from(to), str_from(svc), str_from(op->name), buf_str(&c->copy)));
    c->wait_until_ms =
        c->deadline_ms < gw_now_ms() + GW_ROUTE_WAIT_MS ? c->deadline_ms : gw_now_ms() + GW_ROUTE_WAIT_MS;
    arm(c->wait_until_ms);
    gw_route_retry(); /* from the loop: `done` is never called from inside */
}

/* ---- from another node ---- */

static void refuse(struct gw_link *l, uint32_t stream, int code, const char *text)
{
    route.n.failed++;
    reply_over(l, stream, code, str_from(text), (struct str){ NULL, 0 });
}

static void accept_call(struct gw_link *l, uint32_t stream, const struct gw_request_msg *m)
{
    struct err e = ERR_INIT;
    struct gw_call *c = call_new(m->Ttl);
    c->src = SRC_LINK;
    c->src_stream = stream;
    c->src_link = l;
    c->in_next = l->in_calls;
    c->in_prev = &l->in_calls;
    if (c->in_next)
        c->in_next->in_prev = &c->in_next;
    l->in_calls = c;
    l->n_in_calls++;
    if (m->From && l->role == RPC_MANAGER) {
        c->hop = true;
        set_from(c, gw_role_by_name(m->From->role), m->From->node, m->From->svc, m->From->addr);
    } else {
        set_from(c, l->role, str_from(l->peer.node), m->By, str_from(l->host));
    }
    if (!set_goal(c, m->To, m->Svc, m->Op, m->Body)) {
        failf(c, ERR_INVALID, "request: to, svc or op is too long");
        return;
    }
    if (!c->hop && m->From && l->peer.role == RPC_MANAGER) { /* it is being demoted; who asked it may ask another one */
        failf(c, ERR_UNAVAILABLE, "%s.%s: node %s is not a manager any more", c->svc, c->op, l->peer.node);
        return;
    }
    if (!c->hop && m->From) {
        err_set(&e, ERR_DENIED, "%s.%s: only managers may pass requests on", c->svc, c->op);
        route.n.refused++;
        gw_shell_refused(&c->from, &e);
        fail(c, &e);
        return;
    }
    if (permit(c, &e) < 0) {
        fail(c, &e);
        return;
    }
    if (!c->to_leader && strcmp(c->to, gw_ident()->cred.info.node) != 0) {
        failf(c, ERR_UNAVAILABLE, "%s.%s: node %s is reached directly or not at all", c->svc, c->op, c->to);
        return;
    }
    arm(c->deadline_ms);
    go(c);
}

void gw_route_on_request(struct gw_link *l, uint32_t stream, struct str body)
{
    struct gw_request_msg m;
    struct arena a;
    struct err e = ERR_INIT;
    route.n.received++;
    if (!body.p) {
        refuse(l, stream, ERR_UNAVAILABLE, "too many large requests at a time");
        return;
    }
    if (l->grace) {
        refuse(l, stream, ERR_UNAVAILABLE, "the link was made with an expired certificate: it is for Raft alone");
        return;
    }
    arena_init(&a, 64 << 10);
    if (gw_wire_decode(&m, gw_request_fields, sizeof m, body, &a, &e) < 0 || m.Body.n == 0)
        refuse(l, stream, ERR_INVALID, e.code ? e.msg : "request: Body: is missing");
    else if (l->n_in_calls >= in_calls_max[l->role] || route.n.outstanding >= CALLS_MAX)
        refuse(l, stream, ERR_UNAVAILABLE, too_many);
    else
        accept_call(l, stream, &m);
    arena_done(&a);
}

void gw_route_on_reply(struct gw_link *l, uint32_t stream, struct str body)
{
    struct gw_call *c = find_slot(l, stream);
    struct gw_reply_msg m;
    struct arena a;
    struct err e = ERR_INIT;
    if (!c)
        return; /* it timed out */
    release_slot(c);
    arena_init(&a, 64 << 10);
    if (!body.p) {
        failf(c, ERR_TIMEOUT, "%s.%s: no room for the answer: outcome unknown", c->svc, c->op);
    } else if (gw_wire_decode(&m, gw_reply_fields, sizeof m, body, &a, &e) < 0) {
        failf(c, ERR_INTERNAL, "%s.%s: malformed reply of node %s", c->svc, c->op, l->peer.node);
    } else {
        if (c->to_leader && !gw_swarm()->initialized && m.Code == ERR_UNAVAILABLE)
            gw_hub_failed(l);
        else if (c->to_leader)
            gw_hub_worked(l);
        finish(c, (int)m.Code, m.Msg, m.Body);
    }
    arena_done(&a);
    gw_link_idle(l);
}

void gw_route_on_down(struct gw_link *l, const struct err *why)
{
    struct gw_call *next;
    while (l->in_calls) {
        struct gw_call *c = l->in_calls;
        leave_source(c); /* the answer, when it comes, is thrown away */
        if (c->state == WAITING)
            failf(c, ERR_UNAVAILABLE, "the asker is gone");
    }
    for (unsigned i = 0; i < l->nslots; i++) {
        struct gw_call *c = l->slots[i];
        if (c)
            failf(c, ERR_TIMEOUT, "the link to node %s was lost (%s); %s.%s: outcome unknown",
                  l->peer.node[0] ? l->peer.node : l->host, why->msg, c->svc, c->op);
    }
    for (struct gw_call *c = route.calls; c; c = next) {
        next = c->next;
        if (c->only == l)
            failf(c, ERR_UNAVAILABLE, "the link to %s was lost: %s", l->host, why->msg);
    }
}

/* ---- */

void gw_route_stats(struct gw_route_stats *ret)
{
    *ret = route.n;
    ret->waiting = 0;
    for (const struct gw_call *c = route.calls; c; c = c->next)
        ret->waiting += c->state == WAITING;
}

void gw_route_list(struct buf *out)
{
    static const char *const states[] = { "waiting", "sent", "at daemon" };
    uint64_t now = gw_now_ms();
    buf_putc(out, '[');
    for (const struct gw_call *c = route.calls; c; c = c->next) {
        buf_puts(out, c == route.calls ? "{\"from\":" : ",{\"from\":");
        buf_json_str(out, c->from.node);
        buf_puts(out, ",\"by\":");
        buf_json_str(out, c->from.svc);
        buf_printf(out, ",\"to\":\"%s\",\"op\":\"%s.%s\",\"state\":\"%s\",\"left_ms\":%" PRIu64 "}", c->to, c->svc,
                   c->op, states[c->state], c->deadline_ms > now ? c->deadline_ms - now : 0);
    }
    buf_putc(out, ']');
}

int gw_route_init(sd_event *loop, struct err *e)
{
    route.loop = loop;
    route.timer_at = UINT64_MAX;
    int r = sd_event_add_time(loop, &route.timer, CLOCK_MONOTONIC, UINT64_MAX, 1000, on_timer, NULL);
    if (r >= 0)
        r = sd_event_source_set_enabled(route.timer, SD_EVENT_OFF);
    if (r >= 0)
        r = sd_event_add_defer(loop, &route.defer, on_retry, NULL);
    if (r >= 0)
        r = sd_event_source_set_enabled(route.defer, SD_EVENT_OFF);
    return r < 0 ? err_errno(e, -r, "event sources") : 0;
}

void gw_route_done(void)
{
    while (route.calls)
        call_free(route.calls);
    while (route.answers) {
        struct answer *a = route.answers;
        route.answers = a->next;
        answer_free(a);
    }
    route.timer = sd_event_source_disable_unref(route.timer);
    route.defer = sd_event_source_disable_unref(route.defer);
}
