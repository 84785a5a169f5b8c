/*
 * Requests meet the store here. What a client reads must include every write that was acknowledged before it asked, on
 * whichever manager: a barrier of raftd (read index) comes first. A write needs none, since its transaction is checked
 * where it is applied; only when it is refused for what the local map says, that is asked again behind a barrier.
 */
#include "apid/api.h"
#include "apid/api_state.h"

#define BARRIER_TRY_MS 5000u
#define SETTLE_MS 3000u /* after a start, for gatewayd and raftd to say what this node is */
#define BARRIERS_MAX 4u /* in flight; more requests share the next one */

struct batch {
    bool flying;
    struct req *first;
};

static struct {
    struct req *queue; /* want a barrier that starts from now on */
    struct batch batches[BARRIERS_MAX];
} fresh;

static void pump(void);

static void enqueue(struct req *r)
{
    r->fresh.next = fresh.queue;
    fresh.queue = r;
}

static void go_on(struct req *r)
{
    void (*then)(struct req *) = r->fresh.then;

    r->fresh.then = NULL;
    then(r);
}

static void try_again(void *arg)
{
    enqueue(req_ref(arg));
    pump();
}

/* Applied here as well? The answer says which revision to look for; raftd applies before it answers, so this is so at
 * once, but for a map that was just replaced. */
static bool readable(uint64_t revision)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct store_meta meta;
    struct err e = ERR_INIT;

    return store_begin(api.store, &snap, &e) == 0 && store_meta(snap, &meta, &e) == 0 && meta.revision >= revision;
}

static void one_done(struct req *r, const struct raftd_txn_reply *rep, const struct err *e)
{
    uint64_t now = clock_mono().ms;

    if (r->gone || r->answered)
        return;
    if (rep && readable(rep->Revision)) {
        go_on(r);
    } else if (state_now() != SWARM_MANAGER) {
        api_not_manager(r);
    } else if (rep || ((e->code == ERR_UNAVAILABLE || e->code == ERR_TIMEOUT) && now < r->fresh.deadline_ms &&
                       !state_leaderless())) {
        api_timer(r, now + (r->fresh.tries < 6 ? 2u << r->fresh.tries : 100u), try_again);
        r->fresh.tries++;
    } else if (e->code == ERR_UNAVAILABLE || e->code == ERR_TIMEOUT) {
        api_error(r, 500, "%s", api_no_leader);
    } else {
        api_fail(r, e);
    }
}

static void barrier_done(void *arg, const void *rep, const struct err *e)
{
    struct batch *b = arg;

    while (b->first) {
        struct req *r = b->first;
        b->first = r->fresh.next;
        one_done(r, rep, e);
        req_unref(r);
    }
    b->flying = false;
    pump();
}

static void pump(void)
{
    static const struct raftd_empty none;

    struct batch *b = fresh.batches, *end = b + BARRIERS_MAX;
    while (b < end && b->flying)
        b++;
    if (!fresh.queue || b == end)
        return;
    *b = (struct batch){ .flying = true, .first = fresh.queue };
    fresh.queue = NULL;
    rpc_send(api.raftd, &op_raftd_barrier, &none, BARRIER_TRY_MS, barrier_done, b);
}

void api_barrier(struct req *r, uint64_t deadline_ms, void (*then)(struct req *r))
{
    r->fresh.then = then;
    r->fresh.deadline_ms = deadline_ms;
    r->fresh.tries = 0;
    enqueue(req_ref(r));
    pump();
}

static void barrier(struct req *r)
{
    api_barrier(r, clock_mono().ms + API_WRITE_DEADLINE_MS, r->route->handler);
}

/* A refusal that may come from a map that is behind. The others would be the same anywhere. */
bool api_refusal_may_be_stale(unsigned status)
{
    return status == 400 || status == 404 || status == 409 || status == 500;
}

static void start_over(struct req *r)
{
    if (r->free_data)
        r->free_data(r->data);
    r->data = NULL;
    r->free_data = NULL;
    r->out_type = NULL;
    r->nheaders = 0;
    r->write = (struct api_write){ .pending = false };
    buf_clear(&r->out);
}

static void dispatch(struct req *r, enum swarm_state now)
{
    if (!(r->route->flags & (ROUTE_READS | ROUTE_WRITES)) || now != SWARM_MANAGER) {
        r->route->handler(r);
        return;
    }
    if (state_leaderless()) {
        api_error(r, 500, "%s", api_no_leader);
        return;
    }
    if (r->route->flags & ROUTE_READS) {
        barrier(r);
        return;
    }
    r->fresh.tentative = true;
    r->route->handler(r);
    r->fresh.tentative = false;
    if (r->fresh.refused) {
        r->fresh.refused = false;
        start_over(r);
        barrier(r);
    }
}

static void settle_wait(struct req *r, bool timed_out)
{
    if (!timed_out && !state_settled())
        return;
    api_unwait(r);
    api_timer(r, UINT64_MAX, NULL);
    dispatch(r, state_now());
}

void api_dispatch(struct req *r)
{
    bool asks = r->route->flags & (ROUTE_STATE | ROUTE_READS | ROUTE_WRITES);
    enum swarm_state now = asks ? state_now() : SWARM_INACTIVE;

    if (now != SWARM_BOOTING || state_settled()) {
        dispatch(r, now);
        return;
    }
    state_ask_raftd();
    api_wait(r, settle_wait, clock_mono().ms + SETTLE_MS);
}
