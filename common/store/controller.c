/* controller.c - the controllers' shared loop; see controller.h. */
#include "common/store/controller.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/daemon/daemon.h"
#include "common/util/check.h"

#define TXN_TIMEOUT_MS 30000u
#define PASS_ARENA_BYTES (2u << 30) /* a service of a million tasks takes a third of it */
#define BURST_CHANGES 2000u      /* told in one turn */
#define RETRY_FIRST_NS 2000000ll /* 2 ms after a lost race: what won it is already visible */
#define RETRY_LONGEST_NS 2000000000ll

struct controller {
    const struct controller_ops *ops;
    void *arg;
    struct controller_io io;
    struct store *store;
    struct txn txn;
    struct arena arena;

    bool active, inflight, want_pass, failing, turning;
    bool fenced; /* what a predecessor may have left on its way to raftd is shut out */
    char turn_id[64];
    uint64_t term, since;      /* changes up to here were told */
    uint64_t floor;            /* our own last transaction: a snapshot before it is too old to decide on */
    int64_t next_ns, retry_ns; /* when a pass is due without a change; not before when after a failure */
    unsigned failures;         /* in a row */

    uint64_t passes, txns, conflicts, errors, changes, reloads;
    struct err last_error;

    /* with a process around it */
    struct store_wake *wake;
    struct rpc_client *raftd;
    struct timer *timer;
    sd_event_source *defer;
};

/* ---- marks ---- */

void marks_init(struct marks *m)
{
    *m = (struct marks){ 0 };
    table_init(&m->pending, 0);
    table_init(&m->taken, 0);
}

void marks_done(struct marks *m)
{
    table_done(&m->pending);
    table_done(&m->taken);
}

void marks_clear(struct marks *m)
{
    table_clear(&m->pending);
    table_clear(&m->taken);
    m->from = 0;
}

void marks_add(struct marks *m, struct str id)
{
    bool fresh;
    table_put(&m->pending, id, &fresh);
    if (fresh)
        m->from = 0;
}

bool marks_pop(struct marks *m, struct str *ret_id)
{
    struct str id;
    struct table_pos p = { .bucket = m->from };
    if (m->pending.count == 0 || !table_next(&m->pending, &p, &id, NULL))
        return false;
    m->from = p.bucket - 1; /* this bucket may hold more; else popping all of many would look through all each time */
    void *v = table_put(&m->taken, id, NULL);
    table_del(&m->pending, id);
    *ret_id = table_key(&m->taken, v);
    return true;
}

void marks_settle(struct marks *m, bool ok)
{
    struct str id;
    for (struct table_pos p = { 0 }; !ok && table_next(&m->taken, &p, &id, NULL);)
        marks_add(m, id);
    table_clear(&m->taken);
}

/* ---- the loop ---- */

static int64_t now_ns(struct controller *c)
{
    return c->io.now(c->io.arg).ns;
}

static void tell_change(void *arg, uint64_t revision, enum kind kind, struct str id, char op)
{
    (void)revision;
    struct {
        struct controller *c;
        struct store_snap *snap;
    } *t = arg;
    t->c->changes++;
    t->c->ops->change(t->c->arg, t->snap, kind, id, op);
}

static void reload(struct controller *c, struct store_snap *snap, const struct store_meta *m)
{
    c->reloads++;
    daemon_burst();
    c->ops->reload(c->arg, snap, m);
    c->want_pass = true;
}

/* catch_up - tells the ops everything up to this snapshot. */
static void catch_up(struct controller *c, struct store_snap *snap, const struct store_meta *m)
{
    if (!c->active || m->term != c->term || m->revision < c->since) {
        c->active = true;
        c->term = m->term;
        c->floor = 0;
        c->fenced = false;
        reload(c, snap, m);
    } else if (m->revision > c->since) {
        struct {
            struct controller *c;
            struct store_snap *snap;
        } t = { c, snap };
        struct err e = ERR_INIT;
        uint64_t before = c->changes;
        c->want_pass = true;
        if (store_changes(snap, c->since, tell_change, &t, &e) != 0)
            reload(c, snap, m);
        if (c->changes - before > BURST_CHANGES)
            daemon_burst();
    }
    c->since = m->revision;
    if (c->ops->seen)
        c->ops->seen(c->arg, snap, m);
}

/* lost_race - what the pass relied on has changed since its snapshot: a precondition, or the object itself. */
static bool lost_race(const struct err *e)
{
    return e->code == ERR_CONFLICT || e->code == ERR_NOT_FOUND || e->code == ERR_PRECONDITION;
}

static void note_outcome(struct controller *c, const struct err *e)
{
    if (e->code == 0) {
        c->failures = 0;
        c->retry_ns = 0;
        c->failing = false;
    } else {
        int64_t wait = RETRY_FIRST_NS << (c->failures < 10 ? c->failures : 10);
        if (lost_race(e))
            c->conflicts++;
        else
            c->errors++;
        if (c->failures++ == 0 && lost_race(e))
            wait = 0;
        c->retry_ns = now_ns(c) + (wait < RETRY_LONGEST_NS ? wait : RETRY_LONGEST_NS);
        c->last_error = *e;
        c->failing = true;
        c->want_pass = true;
    }
}

static void settle(struct controller *c, const struct err *e)
{
    note_outcome(c, e);
    c->ops->done(c->arg, e);
}

/*
 * A daemon that was killed may have left a transaction on its way to raftd. Decided on an older snapshot, it would undo
 * what its successor has decided since: a task placed twice, a state reported by a node set back. So the first
 * transaction of each life makes the reservation "turn/<daemon>" anew, and all later ones require it to be that one.
 */
static void on_turn_reply(void *arg, const void *rep, const struct err *e)
{
    struct controller *c = arg;
    const struct raftd_txn_reply *r = rep;
    c->inflight = false;
    if (e->code == 0 && r) {
        c->fenced = true;
        c->floor = r->Revision;
    }
    note_outcome(c, e);
    c->want_pass = true;
    controller_turn(c);
}

static void take_turn(struct controller *c, const struct store_meta *m)
{
    struct buf doc = BUF_INIT;
    struct str id = str_from(c->turn_id);
    txn_reset(&c->txn);
    mp_map(&doc, 1);
    mp_kv_str(&doc, "ID", id);
    txn_purge(&c->txn, KIND_RESERVATION, id);
    txn_create(&c->txn, KIND_RESERVATION, id, txn_doc(&c->txn, &doc));
    buf_done(&doc);
    c->txn.term = m->term;
    c->inflight = true;
    c->txns++;
    c->io.send(c->io.arg, &c->txn, on_turn_reply, c);
}

/* our_turn - the revision of our turn's document; false: it is not there, take the turn (again). */
static bool our_turn(struct controller *c, struct store_snap *snap, uint64_t *ret_rev)
{
    struct str doc;
    return c->fenced && store_get(snap, KIND_RESERVATION, str_from(c->turn_id), &doc) == 0 &&
           mp_get_u64(doc, "Rev", ret_rev);
}

static void on_reply(void *arg, const void *rep, const struct err *e)
{
    struct controller *c = arg;
    const struct raftd_txn_reply *r = rep;
    c->inflight = false;
    if (e->code == 0 && r)
        c->floor = r->Revision;
    if (e->code != 0 && !lost_race(e) && c->failures == 0)
        log_warn("transaction failed, trying again: %s", e->msg);
    settle(c, e);
    controller_turn(c);
}

static void pass(struct controller *c, struct store_snap *snap, const struct store_meta *m)
{
    uint64_t turn = 0;
    struct controller_pass p = {
        .snap = snap, .meta = m, .now = { now_ns(c) }, .txn = &c->txn, .arena = &c->arena, .next_ns = CONTROLLER_NEVER
    };
    if (!our_turn(c, snap, &turn)) {
        take_turn(c, m);
        return;
    }
    txn_reset(&c->txn);
    arena_reset(&c->arena);
    c->want_pass = false;
    c->passes++;
    c->ops->pass(c->arg, &p);
    c->next_ns = p.next_ns;
    if (p.more)
        c->want_pass = true;
    if (txn_empty(&c->txn) && !c->txn.failed) {
        struct err ok = ERR_INIT;
        settle(c, &ok);
        return;
    }
    txn_require_rev(&c->txn, KIND_RESERVATION, str_from(c->turn_id), turn);
    c->txn.term = m->term;
    c->inflight = true;
    c->txns++;
    c->io.send(c->io.arg, &c->txn, on_reply, c);
}

static void stand_by(struct controller *c)
{
    if (c->active && c->ops->standby)
        c->ops->standby(c->arg);
    c->active = false;
    c->want_pass = false;
    c->next_ns = CONTROLLER_NEVER;
}

static void arm(struct controller *c)
{
    int64_t at = c->next_ns;
    if (c->want_pass) /* what stops a wanted pass is a failure before, or a snapshot that is too old */
        at = c->failing ? c->retry_ns : CONTROLLER_NEVER;
    c->io.arm(c->io.arg, c->active && !c->inflight ? at : CONTROLLER_NEVER);
}

void controller_turn(struct controller *c)
{
    struct store_snap *snap = NULL;
    struct store_meta m = { 0 };
    struct err e = ERR_INIT;
    if (c->turning) /* a callback of a turn that wants another one */
        return controller_kick(c);
    c->turning = true;
    if (store_begin(c->store, &snap, &e) != 0 || store_meta(snap, &m, &e) != 0 || !m.leader || !m.initialized) {
        stand_by(c);
    } else {
        catch_up(c, snap, &m);
        int64_t now = now_ns(c);
        if (now >= c->next_ns)
            c->want_pass = true;
        while (c->want_pass && !c->inflight && now >= c->retry_ns && m.revision >= c->floor) {
            pass(c, snap, &m);
            now = now_ns(c);
            if (c->failing)
                break;
        }
    }
    store_end(snap);
    c->turning = false;
    arm(c);
}

void controller_due(struct controller *c)
{
    controller_turn(c);
}

void controller_kick(struct controller *c)
{
    c->want_pass = true;
    c->io.kick(c->io.arg);
}

struct store *controller_store(struct controller *c)
{
    return c->store;
}

/* ---- with a process around it ---- */

static struct wall_ns process_now(void *arg)
{
    (void)arg;
    return clock_wall();
}

static void process_send(void *arg, struct txn *txn, rpc_done_fn *done, void *done_arg)
{
    struct controller *c = arg;
    txn_send(txn, c->raftd, TXN_TIMEOUT_MS, done, done_arg);
}

static void process_arm(void *arg, int64_t at_ns)
{
    struct controller *c = arg;
    int64_t left = at_ns == CONTROLLER_NEVER ? 0 : at_ns - clock_wall().ns;
    if (at_ns == CONTROLLER_NEVER)
        timer_arm(c->timer, UINT64_MAX);
    else /* rounded up, so that it is due when it fires */
        timer_arm(c->timer, clock_mono().ms + (left > 0 ? (uint64_t)(left / 1000000) + 1 : 1));
}

static int process_defer(sd_event_source *s, void *arg)
{
    (void)s;
    controller_turn(arg);
    return 0;
}

static void process_kick(void *arg)
{
    struct controller *c = arg;
    sd_event_source_set_enabled(c->defer, SD_EVENT_ONESHOT);
}

static void process_timer(void *arg)
{
    controller_due(arg);
}

static void process_wake(void *arg)
{
    controller_turn(arg);
}

struct controller *controller_new(struct store *store, const struct controller_io *io, const struct controller_ops *ops,
                                  void *arg)
{
    struct controller *c = calloc(1, sizeof *c);
    CHECK(c != NULL);
    c->ops = ops;
    c->arg = arg;
    c->io = *io;
    c->store = store;
    c->next_ns = CONTROLLER_NEVER;
    snprintf(c->turn_id, sizeof c->turn_id, STORE_TURN_PREFIX "%s", ops->name);
    txn_init(&c->txn);
    arena_init(&c->arena, PASS_ARENA_BYTES);
    return c;
}

int controller_open(struct controller **ret, sd_event *loop, const char *run_dir, const struct controller_ops *ops,
                    void *arg, struct err *e)
{
    struct controller *c = controller_new(NULL, &(struct controller_io){ 0 }, ops, arg);
    c->io = (struct controller_io){ c, process_now, process_send, process_arm, process_kick };
    int r = store_open(&c->store, run_dir, ops->secrets, e);
    if (r == 0)
        r = rpc_client_open(&c->raftd, loop, run_dir, "raftd", e);
    if (r == 0)
        r = timer_open(&c->timer, process_timer, c, e);
    if (r == 0 && (r = sd_event_add_defer(loop, &c->defer, process_defer, c)) < 0)
        r = err_errno(e, -r, "add to the event loop");
    if (r == 0)
        r = store_wake_open(&c->wake, loop, run_dir, process_wake, c, e);
    if (r != 0) {
        controller_free(c);
        return err_wrap(e, "start controller");
    }
    *ret = c;
    return 0;
}

struct controller *controller_free(struct controller *c)
{
    if (!c)
        return NULL;
    bool process = c->io.arg == c;
    store_wake_free(c->wake);
    sd_event_source_disable_unref(c->defer);
    timer_free(c->timer);
    rpc_client_free(c->raftd);
    if (process && c->store)
        store_close(c->store);
    txn_done(&c->txn);
    arena_done(&c->arena);
    free(c);
    return NULL;
}

void controller_status(const struct controller *c, struct buf *out)
{
    buf_printf(out, ",\"active\":%s,\"in_flight\":%s,\"revision\":%llu,\"term\":%llu,\"failures\":%u,\"last_error\":",
               c->active ? "true" : "false", c->inflight ? "true" : "false", (unsigned long long)c->since,
               (unsigned long long)c->term, c->failures);
    buf_json_str(out, str_from(c->last_error.msg));
}

void controller_metrics(const struct controller *c, struct buf *out)
{
    const struct {
        const char *name;
        uint64_t value;
    } all[] = { { "passes", c->passes },     { "transactions", c->txns }, { "conflicts", c->conflicts },
                { "txn_errors", c->errors }, { "changes", c->changes },   { "reloads", c->reloads } };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        buf_printf(out, "# TYPE microswarm_%s_%s_total counter\nmicroswarm_%s_%s_total %llu\n", c->ops->name,
                   all[i].name, c->ops->name, all[i].name, (unsigned long long)all[i].value);
}
