/* agent_dispatch.c - see agent_dispatch.h. */
#include "agentd/agent_dispatch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/daemon/daemon.h"
#include "common/proto/msg_gatewayd.h"
#include "common/util/check.h"
#include "common/util/cleanup.h"
#include "common/util/clock.h"
#include "common/util/id.h"

#define CALL_TIMEOUT_MS 10000u /* with a heartbeat less than a node has until it is down: asked again in time */
#define IDENTITY_WAIT_MS 30000u
#define BATCH_MAX 512
#define BACKOFF_MIN_MS 10

struct agent_dispatch {
    struct dispatch_conf conf;
    struct dispatch_ops ops;
    void *arg;
    struct rpc_client *gateway;
    struct timer *retry, *retry_identity;
    struct { /* as gatewayd says */
        uint64_t seq;
        bool active;
        char node[64], addr[128], data_addr[128];
        struct buf description; /* conf.description with TLSInfo */
    } self;
    char session[128]; /* "" while there is none */
    char left[64];     /* the node whose swarm this host has left */
    uint64_t heartbeat_ms, seq, backoff_ms;
    unsigned generation; /* of the session: answers to an older one are ignored */
    bool opening, polling, sending;
    bool pausing; /* until the timer fires */
    struct flight *flights;
};

struct flight { /* what an answer belongs to */
    struct flight *next;
    struct agent_dispatch *d;
    unsigned generation;
};

static void go_on(struct agent_dispatch *d);

static struct flight *flight_new(struct agent_dispatch *d)
{
    struct flight *f = malloc(sizeof *f);
    CHECK(f != NULL);
    *f = (struct flight){ d->flights, d, d->generation };
    d->flights = f;
    return f;
}

/* flight_land - whether the answer is of the present session */
static bool flight_land(struct flight *f)
{
    struct flight **pp = &f->d->flights;
    bool current = f->generation == f->d->generation;
    while (*pp != f)
        pp = &(*pp)->next;
    *pp = f->next;
    free(f);
    return current;
}

/* again - at once the first time, then after growing pauses. */
static void again(struct agent_dispatch *d, const char *what, const struct err *e)
{
    uint64_t r;
    random_bytes(&r, sizeof r);
    uint64_t pause = d->backoff_ms ? d->backoff_ms / 2 + r % (d->backoff_ms / 2 + 1) : 0;
    d->backoff_ms = d->backoff_ms ? d->backoff_ms * 2 : BACKOFF_MIN_MS;
    if (d->backoff_ms > d->conf.backoff_max_ms)
        d->backoff_ms = d->conf.backoff_max_ms;
    log_debug("%s: %s: again in %" PRIu64 " ms", what, e->msg, pause);
    d->pausing = true;
    timer_arm(d->retry, clock_mono().ms + pause);
}

static void session_end(struct agent_dispatch *d)
{
    d->session[0] = '\0';
    d->generation++;
    d->opening = d->polling = false;
}

/* failed - a call of the session: when the leader does not know the session, a new one is opened at once; else it is
 * only the way there that is closed for now. */
static void failed(struct agent_dispatch *d, const char *what, const struct err *e)
{
    if (e->code == ERR_GONE)
        d->backoff_ms = 0;
    if (e->code != ERR_UNAVAILABLE && e->code != ERR_TIMEOUT)
        session_end(d);
    again(d, what, e);
}

static void on_retry(void *arg)
{
    struct agent_dispatch *d = arg;
    d->pausing = false;
    go_on(d);
}

static struct str leader(void)
{
    return STR("leader");
}

/* ---- assignments ---- */

static void on_assignments(void *arg, const void *rep, const struct err *e)
{
    struct agent_dispatch *d = ((struct flight *)arg)->d;
    const struct disp_assignments_reply *r = rep;
    if (!flight_land(arg))
        return;
    d->polling = false;
    if (!r) {
        failed(d, "assignments", e);
        return;
    }
    d->backoff_ms = 0;
    d->seq = r->Seq;
    if (r->Full || r->Tasks.n || r->Removed.n)
        d->ops.assignments(d->arg, r);
    go_on(d);
}

static void poll_assignments(struct agent_dispatch *d)
{
    struct disp_assignments req = { .SessionID = str_from(d->session), .Seq = d->seq, .WaitMs = d->heartbeat_ms };
    d->polling = true;
    rpc_send_via(d->gateway, leader(), "dispatcherd", &op_disp_assignments, &req,
                 (unsigned)d->heartbeat_ms + CALL_TIMEOUT_MS / 2, on_assignments, flight_new(d));
}

/* ---- status ---- */

static void on_status(void *arg, const void *rep, const struct err *e)
{
    struct agent_dispatch *d = ((struct flight *)arg)->d;
    const struct disp_status_reply *r = rep;
    bool current = flight_land(arg);
    d->sending = false;
    d->ops.sent(d->arg, r != NULL, r ? &r->Unknown : NULL);
    if (!r && current)
        failed(d, "status", e);
    else /* also after an answer to an earlier session: what it held back goes out now */
        agent_dispatch_kick(d);
}

void agent_dispatch_kick(struct agent_dispatch *d)
{
    struct task_status *v;
    struct arena a;
    if (d->sending || d->pausing || !d->session[0])
        return;
    arena_init(&a, 8u << 20);
    v = arena_array(&a, BATCH_MAX, sizeof *v);
    size_t n = v ? d->ops.collect(d->arg, v, BATCH_MAX, &a) : 0;
    if (n > 0) {
        struct disp_status req = { .SessionID = str_from(d->session), .Statuses = { v, n } };
        d->sending = true;
        rpc_send_via(d->gateway, leader(), "dispatcherd", &op_disp_status, &req, CALL_TIMEOUT_MS, on_status,
                     flight_new(d));
    }
    arena_done(&a);
}

/* ---- usage ---- */

static void on_usage(void *arg, const void *rep, const struct err *e)
{
    (void)arg;
    if (!rep)
        log_debug("usage: %s", e->msg);
}

void agent_dispatch_usage(struct agent_dispatch *d, const struct task_usage *v, size_t n)
{
    struct disp_usage req = { .SessionID = str_from(d->session), .Usages = { (void *)(uintptr_t)v, n } };
    if (d->session[0])
        rpc_send_via(d->gateway, leader(), "dispatcherd", &op_disp_usage, &req, CALL_TIMEOUT_MS, on_usage, d);
}

/* ---- session ---- */

static void on_session(void *arg, const void *rep, const struct err *e)
{
    struct agent_dispatch *d = ((struct flight *)arg)->d;
    const struct disp_session_reply *r = rep;
    if (!flight_land(arg))
        return;
    d->opening = false;
    if (!r && e->code == ERR_NOT_FOUND) {
        log_warn("session: %s", e->msg);
        d->ops.removed(d->arg);
    }
    if (!r || !str_copy(d->session, sizeof d->session, r->SessionID) || !d->session[0]) {
        struct err none = { ERR_INTERNAL, "session without an id" };
        d->session[0] = '\0';
        failed(d, "session", r ? &none : e);
        return;
    }
    d->heartbeat_ms = r->HeartbeatMs && r->HeartbeatMs < 3600000 ? r->HeartbeatMs : 5000;
    d->seq = 0;
    d->backoff_ms = 0;
    log_info("session node=" STR_FMT " heartbeat=%" PRIu64 "ms", STR_ARG(r->NodeID), d->heartbeat_ms);
    d->ops.session(d->arg, r->NodeID);
    go_on(d);
}

static void session_open(struct agent_dispatch *d)
{
    struct disp_session req = { .Hostname = str_from(d->conf.hostname),
                                .Description = buf_str(&d->self.description),
                                .Addr = str_from(d->self.addr),
                                .DataPathAddr = str_from(d->self.data_addr),
                                .BootID = str_from(d->conf.boot_id) };
    d->opening = true;
    rpc_send_via(d->gateway, leader(), "dispatcherd", &op_disp_session, &req, CALL_TIMEOUT_MS, on_session,
                 flight_new(d));
}

/* go_on - whatever should be under way and is not. */
static void go_on(struct agent_dispatch *d)
{
    if (d->pausing || !d->self.active || strcmp(d->self.node, d->left) == 0)
        return;
    if (!d->session[0]) {
        if (!d->opening)
            session_open(d);
        return;
    }
    if (!d->polling)
        poll_assignments(d);
    agent_dispatch_kick(d);
}

void agent_dispatch_leave(struct agent_dispatch *d)
{
    memcpy(d->left, d->self.node, sizeof d->left);
    session_end(d);
}

struct rpc_client *agent_dispatch_gateway(const struct agent_dispatch *d)
{
    return d->gateway;
}

struct str agent_dispatch_session(const struct agent_dispatch *d)
{
    return str_from(d->session);
}

bool agent_dispatch_connected(const struct agent_dispatch *d)
{
    return d->session[0] != '\0';
}

/* ---- who this node is ---- */

/* host_of - "10.0.0.1" of "10.0.0.1:2377", "::1" of "[::1]:2377". */
static struct str host_of(struct str addr)
{
    size_t n = addr.n;
    while (n > 0 && addr.p[n - 1] != ':')
        n--;
    if (n == 0)
        return addr;
    struct str host = { addr.p, n - 1 };
    if (host.n > 1 && host.p[0] == '[' && host.p[host.n - 1] == ']')
        return (struct str){ host.p + 1, host.n - 2 };
    return host;
}

/* describe - true when the description is another one than before. */
static bool describe(struct agent_dispatch *d, const struct gw_identity_reply *r)
{
    _cleanup_(buf_done) struct buf patch = BUF_INIT, full = BUF_INIT;
    struct err e = ERR_INIT;
    mp_map(&patch, r->TrustRoot.n != 0);
    if (r->TrustRoot.n) {
        mp_cstr(&patch, "TLSInfo");
        mp_map(&patch, 3);
        mp_kv_str(&patch, "TrustRoot", r->TrustRoot);
        mp_cstr(&patch, "CertIssuerSubject");
        mp_bin(&patch, r->CertIssuerSubject);
        mp_cstr(&patch, "CertIssuerPublicKey");
        mp_bin(&patch, r->CertIssuerPublicKey);
    }
    if (mp_merge(&full, d->conf.description, buf_str(&patch), &e) < 0 || full.failed) {
        log_error("description: %s", e.msg);
        return false;
    }
    if (str_eq(buf_str(&full), buf_str(&d->self.description)))
        return false;
    buf_clear(&d->self.description);
    buf_put(&d->self.description, full.p, full.n);
    return true;
}

static void ask_identity(struct agent_dispatch *d);

static void on_identity(void *arg, const void *rep, const struct err *e)
{
    struct agent_dispatch *d = arg;
    const struct gw_identity_reply *r = rep;
    char node[sizeof d->self.node], addr[sizeof d->self.addr], data_addr[sizeof d->self.data_addr];
    if (!r) {
        log_debug("identity: %s", e->msg);
        timer_arm(d->retry_identity, clock_mono().ms + BACKOFF_MIN_MS);
        return;
    }
    d->self.seq = r->Seq;
    bool active = str_is(r->State, "active") && r->NodeID.n != 0, changed = describe(d, r);
    if (!str_copy(node, sizeof node, r->NodeID))
        node[0] = '\0';
    if (!str_copy(addr, sizeof addr, host_of(r->AdvertiseAddr)))
        addr[0] = '\0';
    if (!str_copy(data_addr, sizeof data_addr, r->DataPathAddr))
        data_addr[0] = '\0';
    changed |=
        strcmp(node, d->self.node) != 0 || strcmp(addr, d->self.addr) != 0 || strcmp(data_addr, d->self.data_addr) != 0;
    if (!active || strcmp(node, d->left) != 0)
        d->left[0] = '\0'; /* it may join again, under any name */
    if (active != d->self.active || changed) {
        memcpy(d->self.node, node, sizeof node);
        memcpy(d->self.addr, addr, sizeof addr);
        memcpy(d->self.data_addr, data_addr, sizeof data_addr);
        d->self.active = active;
        log_info("node=%s: %s", node[0] ? node : "-", active ? "part of a swarm" : "in no swarm");
        session_end(d); /* the manager hears what has changed with a new one */
        d->backoff_ms = 0;
        go_on(d);
    }
    ask_identity(d);
}

static void ask_identity(struct agent_dispatch *d)
{
    struct gw_identity req = { .Seq = d->self.seq, .WaitMs = IDENTITY_WAIT_MS };
    rpc_send(d->gateway, &op_gw_identity, &req, IDENTITY_WAIT_MS + CALL_TIMEOUT_MS, on_identity, d);
}

static void on_retry_identity(void *arg)
{
    struct agent_dispatch *d = arg;
    d->self.seq = 0; /* another gatewayd counts anew */
    ask_identity(d);
}

int agent_dispatch_open(struct agent_dispatch **ret, sd_event *loop, const struct dispatch_conf *conf,
                        const struct dispatch_ops *ops, void *arg, struct err *e)
{
    struct agent_dispatch *d = calloc(1, sizeof *d);
    if (!d)
        return err_set(e, ERR_NOMEM, "dispatcher: out of memory");
    d->conf = *conf;
    d->ops = *ops;
    d->arg = arg;
    int r = rpc_client_open(&d->gateway, loop, conf->run_dir, "gatewayd", e);
    if (r == 0)
        r = timer_open(&d->retry, on_retry, d, e);
    if (r == 0)
        r = timer_open(&d->retry_identity, on_retry_identity, d, e);
    if (r < 0) {
        agent_dispatch_close(d);
        return r;
    }
    ask_identity(d);
    *ret = d;
    return 0;
}

struct agent_dispatch *agent_dispatch_close(struct agent_dispatch *d)
{
    if (!d)
        return NULL;
    rpc_client_free(d->gateway);
    timer_free(d->retry);
    timer_free(d->retry_identity);
    while (d->flights) {
        struct flight *f = d->flights;
        d->flights = f->next;
        free(f);
    }
    buf_done(&d->self.description);
    free(d);
    return NULL;
}
