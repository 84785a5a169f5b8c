/* agent_dispatch.c - see agent_dispatch.h. */
#include "agentd/agent_dispatch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/daemon/daemon.h"
#include "common/util/cleanup.h"
#include "common/util/clock.h"
#include "common/util/id.h"

#define CALL_TIMEOUT_MS 30000u
#define BATCH_MAX 512
#define BACKOFF_MIN_MS 10

struct agent_dispatch {
    struct dispatch_conf conf;
    struct dispatch_ops ops;
    void *arg;
    struct rpc_client *client;
    struct timer *retry;
    char session[128];       /* "" while there is none */
    char node[64], left[64]; /* the session's node; the one whose swarm this host has left */
    uint64_t heartbeat_ms, seq, backoff_ms;
    unsigned generation; /* of the session: answers to an older one are ignored */
    bool opening, sending;
    struct flight *flights;
};

struct flight { /* what an answer belongs to */
    struct flight *next;
    struct agent_dispatch *d;
    unsigned generation;
};

static void session_open(struct agent_dispatch *d);
static void poll_assignments(struct agent_dispatch *d);

static struct flight *flight_new(struct agent_dispatch *d)
{
    struct flight *f = malloc(sizeof *f);
    if (!f)
        abort();
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

/* session_lost - starts over: at once after a lost connection, else after a pause */
static void session_lost(struct agent_dispatch *d, const struct err *e)
{
    uint64_t r;
    d->session[0] = '\0';
    d->generation++;
    d->opening = false;
    if (e->code == ERR_GONE)
        d->backoff_ms = 0;
    random_bytes(&r, sizeof r);
    uint64_t pause = d->backoff_ms ? d->backoff_ms / 2 + r % (d->backoff_ms / 2 + 1) : 0;
    d->backoff_ms = d->backoff_ms ? d->backoff_ms * 2 : BACKOFF_MIN_MS;
    if (d->backoff_ms > d->conf.backoff_max_ms)
        d->backoff_ms = d->conf.backoff_max_ms;
    log_debug("session: %s: again in %" PRIu64 " ms", e->msg, pause);
    timer_arm(d->retry, clock_mono().ms + pause);
}

static void on_retry(void *arg)
{
    struct agent_dispatch *d = arg;
    if (!d->opening && !d->session[0])
        session_open(d);
}

/* ---- assignments ---- */

static void on_assignments(void *arg, const void *rep, const struct err *e)
{
    struct agent_dispatch *d = ((struct flight *)arg)->d;
    const struct disp_assignments_reply *r = rep;
    if (!flight_land(arg))
        return;
    if (!r) {
        session_lost(d, e);
        return;
    }
    d->backoff_ms = 0;
    d->seq = r->Seq;
    if (r->Full || r->Tasks.n || r->Removed.n)
        d->ops.assignments(d->arg, r);
    poll_assignments(d);
}

static void poll_assignments(struct agent_dispatch *d)
{
    struct disp_assignments req = { .SessionID = str_from(d->session), .Seq = d->seq, .WaitMs = d->heartbeat_ms };
    rpc_send(d->client, &op_disp_assignments, &req, (unsigned)(d->heartbeat_ms + CALL_TIMEOUT_MS), on_assignments,
             flight_new(d));
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
        session_lost(d, e);
    else /* also after an answer to an earlier session: what it held back goes out now */
        agent_dispatch_kick(d);
}

void agent_dispatch_kick(struct agent_dispatch *d)
{
    struct task_status *v;
    struct arena a;
    if (d->sending || !d->session[0])
        return;
    arena_init(&a, 8u << 20);
    v = arena_array(&a, BATCH_MAX, sizeof *v);
    size_t n = v ? d->ops.collect(d->arg, v, BATCH_MAX, &a) : 0;
    if (n > 0) {
        struct disp_status req = { .SessionID = str_from(d->session), .Statuses = { v, n } };
        d->sending = true;
        rpc_send(d->client, &op_disp_status, &req, CALL_TIMEOUT_MS, on_status, flight_new(d));
    }
    arena_done(&a);
}

/* ---- session ---- */

static void on_session(void *arg, const void *rep, const struct err *e)
{
    struct agent_dispatch *d = ((struct flight *)arg)->d;
    const struct disp_session_reply *r = rep;
    if (!flight_land(arg))
        return;
    d->opening = false;
    if (r && d->left[0] && str_eq(r->NodeID, str_from(d->left))) {
        struct err left = { ERR_UNAVAILABLE, "the node has left this swarm" };
        session_lost(d, &left); /* whose store goes at any moment: whatever it assigns is not for us */
        return;
    }
    if (r && !str_copy(d->node, sizeof d->node, r->NodeID))
        d->node[0] = '\0';
    if (!r || !str_copy(d->session, sizeof d->session, r->SessionID) || !d->session[0]) {
        struct err none = { ERR_INTERNAL, "session without an id" };
        session_lost(d, r ? &none : e);
        return;
    }
    d->heartbeat_ms = r->HeartbeatMs ? r->HeartbeatMs : 5000;
    d->seq = 0;
    d->backoff_ms = 0;
    log_info("session node=" STR_FMT " heartbeat=%" PRIu64 "ms", STR_ARG(r->NodeID), d->heartbeat_ms);
    d->ops.session(d->arg, r->NodeID);
    poll_assignments(d);
    agent_dispatch_kick(d);
}

static void session_open(struct agent_dispatch *d)
{
    struct disp_session req = { .Hostname = str_from(d->conf.hostname), .Description = d->conf.description };
    d->opening = true;
    rpc_send(d->client, &op_disp_session, &req, CALL_TIMEOUT_MS, on_session, flight_new(d));
}

void agent_dispatch_leave(struct agent_dispatch *d)
{
    struct err e = { ERR_UNAVAILABLE, "leaving" };
    memcpy(d->left, d->node, sizeof d->left);
    session_lost(d, &e);
}

bool agent_dispatch_connected(const struct agent_dispatch *d)
{
    return d->session[0] != '\0';
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
    int r = rpc_client_open(&d->client, loop, conf->run_dir, conf->daemon, e);
    if (r == 0)
        r = timer_open(&d->retry, on_retry, d, e);
    if (r < 0) {
        agent_dispatch_close(d);
        return r;
    }
    session_open(d);
    *ret = d;
    return 0;
}

struct agent_dispatch *agent_dispatch_close(struct agent_dispatch *d)
{
    if (!d)
        return NULL;
    rpc_client_free(d->client);
    timer_free(d->retry);
    while (d->flights) {
        struct flight *f = d->flights;
        d->flights = f->next;
        free(f);
    }
    free(d);
    return NULL;
}
