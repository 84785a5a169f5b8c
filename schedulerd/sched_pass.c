/* sched_pass.c - see sched_pass.h. */
#include "schedulerd/sched_pass.h"

#include "common/daemon/log.h"

#define SCRATCH_BYTES (16u << 20)
#define BATCH_MIN 64u
#define MOVES_MAX 1000u /* tasks of services that are not level, in one pass */

void sched_keeper_init(struct sched_keeper *k)
{
    *k = (struct sched_keeper){ .batch = CONTROLLER_CHANGES_SOFT };
    table_init(&k->nodes, 0);
    sched_init(&k->core);
    marks_init(&k->written);
    arena_init(&k->scratch, SCRATCH_BYTES);
}

void sched_keeper_done(struct sched_keeper *k)
{
    sched_done(&k->core);
    marks_done(&k->written);
    table_done(&k->nodes);
    arena_done(&k->scratch);
    buf_done(&k->doc);
}

/* ---- what changed ---- */

static void put_node(struct sched_keeper *k, struct str doc)
{
    struct err e;
    if (sched_put_node(&k->core, doc, &e) != 0)
        log_error("%s", e.msg);
}

/* put_service - only its labels matter here. */
static void put_service(struct sched_keeper *k, struct str id, struct str doc)
{
    struct sched_policy p = { 0 };
    struct str labels, key;
    struct mp_val head, name, value;
    if (mp_path(doc, "Spec.Labels", &labels)) {
        struct mp_cursor c = mp_cursor(labels);
        if (mp_next(&c, &head) != 0 || head.type != MP_MAP)
            head.n = 0;
        for (size_t i = 0; i < head.n && mp_next(&c, &name) == 0 && mp_next(&c, &value) == 0; i++) {
            if (name.type != MP_STR || value.type != MP_STR)
                continue;
            key = name.s;
            if (str_is(key, VIEW_PRIORITY_LABEL))
                (void)view_priority(value.s, &p.priority);
            else if (str_is(key, VIEW_REBALANCE_LABEL))
                (void)view_rebalance(value.s, &p.rebalance);
        }
    }
    sched_put_service(&k->core, id, &p);
}

static bool network_of(void *arg, struct str id, struct str *ret_driver, bool *ret_encrypted)
{
    struct str doc, option;
    if (store_get(arg, KIND_NETWORK, id, &doc) != 0)
        return false;
    if (!mp_get_str(doc, "Spec.Driver", ret_driver) || ret_driver->n == 0)
        *ret_driver = STR("overlay");
    *ret_encrypted = mp_get_str(doc, "Spec.Options.encrypted", &option) && !str_is(option, "false");
    return true;
}

static void need_spec(struct sched_keeper *k, struct store_snap *snap, struct str id)
{
    struct str doc;
    struct err e;
    if (sched_has_spec(&k->core, id))
        return;
    if (store_get(snap, KIND_TASKSPEC, id, &doc) == 0 && sched_put_spec(&k->core, id, doc, network_of, snap, &e) != 0)
        log_error("taskspec=" STR_FMT ": %s", STR_ARG(id), e.msg);
}

static bool view_of(struct sched_keeper *k, struct str id, struct str doc, struct view_task *ret)
{
    struct err e;
    arena_reset(&k->scratch);
    if (view_task(doc, ret, &k->scratch, &e) == 0)
        return true;
    log_error("task=" STR_FMT ": %s", STR_ARG(id), e.msg);
    return false;
}

static void put_task(struct sched_keeper *k, struct store_snap *snap, struct str id)
{
    struct view_task v;
    struct str doc;
    if (store_get(snap, KIND_TASK, id, &doc) != 0 || !view_of(k, id, doc, &v)) {
        sched_del_task(&k->core, id);
        return;
    }
    enum task_state state = task_state_parse(v.Status.State);
    if (state >= TASK_PENDING && state <= TASK_RUNNING)
        need_spec(k, snap, v.TaskSpecID);
    sched_put_task(&k->core, &v, k->now_ns);
}

static void on_reload(void *arg, struct store_snap *snap, const struct store_meta *meta)
{
    struct sched_keeper *k = arg;
    struct store_iter it;
    (void)meta;
    sched_clear(&k->core);
    marks_clear(&k->written);
    k->read_failures = true;
    for (store_each(snap, KIND_NODE, &it); store_next(&it);)
        put_node(k, it.doc);
    for (store_each(snap, KIND_SERVICE, &it); store_next(&it);)
        put_service(k, it.id, it.doc);
    for (store_each(snap, KIND_TASK, &it); store_next(&it);)
        put_task(k, snap, it.id);
}

/* read_failures - what failed before this mirror was made, as far as the task history remembers. */
static void read_failures(struct sched_keeper *k, struct store_snap *snap)
{
    struct store_iter it;
    struct view_task v;
    k->read_failures = false;
    for (store_each(snap, KIND_TASK, &it); store_next(&it);)
        if (view_of(k, it.id, it.doc, &v))
            sched_put_failure(&k->core, &v, k->now_ns);
}

static void on_change(void *arg, struct store_snap *snap, enum kind kind, struct str id, char op)
{
    struct sched_keeper *k = arg;
    struct str doc;
    (void)op;
    if (kind == KIND_TASK)
        put_task(k, snap, id);
    else if (kind == KIND_NODE && store_get(snap, KIND_NODE, id, &doc) == 0)
        put_node(k, doc);
    else if (kind == KIND_NODE)
        sched_del_node(&k->core, id);
    else if (kind == KIND_SERVICE && store_get(snap, KIND_SERVICE, id, &doc) == 0)
        put_service(k, id, doc);
    else if (kind == KIND_SERVICE)
        sched_del_service(&k->core, id);
}

/* ---- decisions ---- */

/* known_reason - the store has this explanation already: nothing to write. */
static bool known_reason(struct str doc, const struct sched_decision *d)
{
    struct str err;
    return d->reason && mp_get_str(doc, "Status.Err", &err) && str_is(err, d->reason);
}

/*
 * require - the decision holds only for the task as it was seen, on a node that still exists.
 *
 * A predecessor that was killed may have left a transaction on its way to raftd: whichever comes second fails, so that
 * no task is placed twice and none goes back to waiting after it was placed.
 */
static void require(struct sched_keeper *k, struct controller_pass *p, const struct sched_decision *d, struct str id,
                    struct str doc)
{
    uint64_t rev = 0;
    bool fresh;
    (void)mp_get_u64(doc, "Rev", &rev);
    txn_require_rev(p->txn, KIND_TASK, id, rev);
    if (d->node.n == 0)
        return;
    table_put(&k->nodes, d->node, &fresh);
    if (fresh)
        txn_require_exists(p->txn, KIND_NODE, arena_str(&p->txn->arena, d->node));
}

static void put_generic(struct buf *b, const struct list *l)
{
    const struct view_generic *g = l->v;
    mp_cstr(b, "GenericResources");
    mp_array(b, l->n);
    for (size_t i = 0; i < l->n; i++) {
        const struct view_named *named = g[i].NamedResourceSpec;
        mp_map(b, 1);
        mp_cstr(b, named ? "NamedResourceSpec" : "DiscreteResourceSpec");
        mp_map(b, 2);
        mp_kv_str(b, "Kind", named ? named->Kind : g[i].DiscreteResourceSpec->Kind);
        if (named)
            mp_kv_str(b, "Value", named->Value);
        else
            mp_kv_i64(b, "Value", g[i].DiscreteResourceSpec->Value);
    }
}

/* write_eviction - orchestratord replaces the task; only the task as it was seen. */
static void write_eviction(struct sched_keeper *k, struct controller_pass *p, const struct sched_eviction *v)
{
    struct buf *b = &k->doc;
    struct str doc;
    uint64_t rev = 0;
    marks_add(&k->written, v->task); /* even if it is not there: the mirror says that it was evicted */
    if (store_get(p->snap, KIND_TASK, v->task, &doc) != 0 || !mp_get_u64(doc, "Rev", &rev))
        return;
    buf_clear(b);
    mp_map(b, 1);
    mp_cstr(b, "Evict");
    mp_map(b, 2);
    mp_kv_cstr(b, "Reason", v->reason);
    mp_kv_i64(b, "At", p->now.ns);
    struct str id = arena_str(&p->txn->arena, v->task);
    txn_merge(p->txn, KIND_TASK, id, txn_doc(p->txn, b));
    txn_require_rev(p->txn, KIND_TASK, id, rev);
    k->evicted++;
    log_info("task=" STR_FMT ": %s", STR_ARG(id), v->reason);
}

static void write_decision(struct sched_keeper *k, struct controller_pass *p, const struct sched_decision *d,
                           struct str doc)
{
    struct buf *b = &k->doc;
    bool placed = d->node.n != 0;
    buf_clear(b);
    mp_map(b, 1 + placed + (d->generic.n != 0));
    if (placed)
        mp_kv_str(b, "NodeID", d->node);
    if (d->generic.n)
        put_generic(b, &d->generic);
    mp_cstr(b, "Status");
    mp_map(b, d->reason ? 4 : 3);
    mp_kv_cstr(b, "State", placed ? "assigned" : d->obsolete ? "shutdown" : "pending");
    mp_kv_cstr(b, "Message",
               d->preassigned ? "scheduler confirmed task can run on preassigned node"
               : placed       ? "scheduler assigned task to node"
               : d->obsolete  ? "shutdown"
                              : "pending task scheduling");
    if (d->reason)
        mp_kv_cstr(b, "Err", d->reason);
    mp_kv_i64(b, "Timestamp", p->now.ns);
    struct str id = arena_str(&p->txn->arena, d->task);
    txn_merge(p->txn, KIND_TASK, id, txn_doc(p->txn, b));
    require(k, p, d, id, doc);
    k->placed += placed;
    k->refused += d->reason != NULL;
}

/* enforce - what runs where it may not run any more has to go. Docker writes "rejected" over what the node says of the
 * task: then the address of a container that still runs is given to another one, and nobody drains it. */
static void enforce(struct sched_keeper *k, struct controller_pass *p)
{
    struct str doc, before;
    size_t n;
    struct str *v = sched_enforce(&k->core, p->arena, &n);
    for (size_t i = 0; i < n; i++)
        if (store_get(p->snap, KIND_TASK, v[i], &doc) == 0 && !mp_find(doc, "Evict", &before))
            write_eviction(k, p, &(struct sched_eviction){ v[i], "assigned node no longer meets constraints" });
}

/* read_again - what a failed transaction was about: back to what the store says. */
static void read_again(struct sched_keeper *k, struct store_snap *snap)
{
    struct str id;
    while (marks_pop(&k->written, &id)) {
        put_task(k, snap, id);
        sched_again(&k->core, id);
    }
    marks_settle(&k->written, true);
}

static void on_pass(void *arg, struct controller_pass *p)
{
    struct sched_keeper *k = arg;
    struct sched_decisions out;
    struct sched_eviction *moved;
    struct str id, doc;
    size_t nmoved;
    k->now_ns = p->now.ns;
    table_clear(&k->nodes);
    if (k->read_failures)
        read_failures(k, p->snap);
    read_again(k, p->snap);
    enforce(k, p);
    p->more = sched_pass(&k->core, p->now.ns, k->batch, p->arena, &out);
    for (size_t i = 0; i < out.n; i++) {
        if (store_get(p->snap, KIND_TASK, out.v[i].task, &doc) != 0 || known_reason(doc, &out.v[i]))
            continue;
        write_decision(k, p, &out.v[i], doc);
        marks_add(&k->written, out.v[i].task);
    }
    for (size_t i = 0; i < out.nevict; i++)
        write_eviction(k, p, &out.evict[i]);
    moved = sched_rebalance(&k->core, p->now.ns, MOVES_MAX, p->arena, &nmoved);
    for (size_t i = 0; i < nmoved; i++)
        write_eviction(k, p, &moved[i]);
    while (marks_pop(&k->written, &id))
        ; /* all of them are in flight now */
}

static void on_done(void *arg, const struct err *e)
{
    struct sched_keeper *k = arg;
    marks_settle(&k->written, e->code == 0);
    /* one task that changed meanwhile spoils the whole transaction: where that happens often, smaller ones get through
     */
    if (e->code == 0)
        k->batch = k->batch * 2 < CONTROLLER_CHANGES_SOFT ? k->batch * 2 : CONTROLLER_CHANGES_SOFT;
    else if (k->batch > BATCH_MIN)
        k->batch /= 2;
    if (e->code != 0)
        sched_enforce_again(&k->core);
}

const struct controller_ops sched_ops = {
    .name = "schedulerd",
    .reload = on_reload,
    .change = on_change,
    .pass = on_pass,
    .done = on_done,
};
