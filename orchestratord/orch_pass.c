/* orch_pass.c - see orch_pass.h. */
#include "orchestratord/orch_pass.h"

#include <stdlib.h>

#include "common/daemon/log.h"
#include "common/object/stays.h"
#include "common/util/check.h"
#include "orchestratord/orch_explain.h"

#define SCRATCH_BYTES (64u << 20)
#define PASS_TASKS 200000u /* read in one pass, at most: what is left follows in the next */
#define TOGETHER 32u       /* so many new tasks of a service get IDs of which this many characters are the same: */
#define ALIKE 3u
#define REST_FROM 2000u /* tasks that were read; less needs no rest, and each of more this: */
#define REST_NS 3000    /* about what reading it takes */
#define REST_MAX_NS 2000000000ll
#define EXPLAIN_BYTES (1u << 30) /* at most; a million tasks */

static void random_id(void *arg, char id[ID_SIZE])
{
    (void)arg;
    id_new(id);
}

void orch_init(struct orch *o)
{
    *o = (struct orch){ .history_limit = 5, .new_id = random_id };
    marks_init(&o->services);
    table_init(&o->watch, sizeof(struct orch_watch));
    table_init(&o->globals, 0);
    orch_nodes_init(&o->nodes);
    table_init(&o->waiting, 0);
    arena_init(&o->scratch, SCRATCH_BYTES);
}

void orch_done(struct orch *o)
{
    marks_done(&o->services);
    table_done(&o->watch);
    table_done(&o->globals);
    orch_nodes_done(&o->nodes);
    table_done(&o->waiting);
    arena_done(&o->scratch);
    buf_done(&o->doc);
}

/* ---- what changed ---- */

/* learn_node - what its change matters to (orch_nodes.h). */
static unsigned learn_node(struct orch *o, struct str id, struct str doc)
{
    struct view_node n;
    struct err e;
    int64_t down_ns = 0;
    arena_reset(&o->scratch);
    if (view_node(doc, &n, &o->scratch, &e) != 0) {
        log_error("node=" STR_FMT ": %s", STR_ARG(id), e.msg);
        return ORCH_NODE_SAME;
    }
    (void)mp_get_i64(doc, "Liveness.DownAt", &down_ns);
    return orch_node_learn(&o->nodes, id, &n, down_ns);
}

static void learn_service(struct orch *o, struct str id, struct str doc)
{
    struct str mode;
    if (mp_path(doc, "Spec.Mode.Global", &mode) || mp_path(doc, "Spec.Mode.GlobalJob", &mode))
        table_put(&o->globals, id, NULL);
}

static void learn_cluster(struct orch *o, struct str doc)
{
    struct view_cluster c;
    struct err e;
    arena_reset(&o->scratch);
    if (view_cluster(doc, &c, &o->scratch, &e) == 0)
        o->history_limit = view_history_limit(&c);
    else
        log_error("%s", e.msg);
}

static void mark_all(struct orch *o, struct store_snap *snap)
{
    struct store_iter it;
    struct str service;
    for (store_each(snap, KIND_SERVICE, &it); store_next(&it);) {
        learn_service(o, it.id, it.doc);
        marks_add(&o->services, it.id);
    }
    for (store_each(snap, KIND_TASK, &it); store_next(&it);) /* also of services that are gone */
        if (mp_get_str(it.doc, "ServiceID", &service) && service.n)
            marks_add(&o->services, service);
    for (store_each(snap, KIND_TASKSPEC, &it); store_next(&it);)
        if (mp_get_str(it.doc, "ServiceID", &service) && service.n)
            marks_add(&o->services, service);
}

static void on_reload(void *arg, struct store_snap *snap, const struct store_meta *meta)
{
    struct orch *o = arg;
    struct store_iter it;
    (void)meta;
    o->urgent = true;
    marks_clear(&o->services);
    table_clear(&o->watch);
    table_clear(&o->globals);
    orch_nodes_clear(&o->nodes);
    table_clear(&o->waiting);
    o->reloaded_ns = 0;
    for (store_each(snap, KIND_NODE, &it); store_next(&it);)
        learn_node(o, it.id, it.doc);
    orch_nodes_review(&o->nodes);
    for (store_each(snap, KIND_CLUSTER, &it); store_next(&it);)
        learn_cluster(o, it.doc);
    mark_all(o, snap);
}

/* task_matters - most reports (pending, preparing, running) change no decision: 10,000 starting tasks must not cause a
 * decision about 10,000 tasks each. */
static bool task_matters(struct orch *o, const struct view_task *t, char op)
{
    enum task_state state = task_state_parse(t->Status.State), desired = task_state_parse(t->DesiredState);
    const struct orch_watch *w = table_get(&o->watch, t->ServiceID);
    const struct orch_node *node = t->NodeID.n ? orch_node_get(&o->nodes, t->NodeID) : NULL;
    if (state > TASK_RUNNING || (state < TASK_ASSIGNED && desired > TASK_COMPLETE) || t->Evict)
        return true;
    if (op == 'c') /* may be the last transaction of a predecessor, which this one's decisions did not know */
        return true;
    if (t->NodeID.n && (!node || node->down || node->drain))
        return true;
    return state == TASK_RUNNING && w && w->updating;
}

static void on_task(struct orch *o, struct store_snap *snap, struct str id, char op)
{
    struct view_task t;
    struct str doc;
    struct err e;
    if (op == 'd' || store_get(snap, KIND_TASK, id, &doc) != 0)
        return; /* only this daemon deletes tasks */
    arena_reset(&o->scratch);
    if (view_task(doc, &t, &o->scratch, &e) != 0)
        log_error("task=" STR_FMT ": %s", STR_ARG(id), e.msg);
    else if (t.ServiceID.n && task_matters(o, &t, op))
        marks_add(&o->services, t.ServiceID);
}

static void on_node(struct orch *o, struct store_snap *snap, struct str id)
{
    struct str doc, service;
    struct store_iter it;
    unsigned matters =
        store_get(snap, KIND_NODE, id, &doc) != 0 ? orch_node_forget(&o->nodes, id) : learn_node(o, id, doc);
    if (matters & ORCH_NODE_TASKS)
        for (store_each_index(snap, IX_TASK_NODE, id, &it); store_next(&it);)
            if (mp_get_str(it.doc, "ServiceID", &service) && service.n)
                marks_add(&o->services, service);
    if (matters & ORCH_NODE_PLACES)
        for (struct table_pos pos = { 0 }; table_next(&o->globals, &pos, &service, NULL);)
            marks_add(&o->services, service);
}

static void on_service(struct orch *o, struct store_snap *snap, struct str id)
{
    struct str doc;
    if (store_get(snap, KIND_SERVICE, id, &doc) == 0)
        learn_service(o, id, doc);
    else
        table_del(&o->globals, id);
    marks_add(&o->services, id);
}

static void on_cluster(struct orch *o, struct store_snap *snap, struct str id)
{
    int64_t before = o->history_limit;
    struct str doc;
    if (store_get(snap, KIND_CLUSTER, id, &doc) != 0)
        return;
    learn_cluster(o, doc);
    if (o->history_limit != before)
        mark_all(o, snap);
}

static void on_change(void *arg, struct store_snap *snap, enum kind kind, struct str id, char op)
{
    struct orch *o = arg;
    switch (kind) {
    case KIND_SERVICE:
        o->urgent = true;
        on_service(o, snap, id);
        break;
    case KIND_TASK:
        on_task(o, snap, id, op);
        break;
    case KIND_NODE:
        on_node(o, snap, id);
        break;
    case KIND_CLUSTER:
        on_cluster(o, snap, id);
        break;
    default:
        break;
    }
}

/* ---- one service: from documents to the core's input ---- */

/* What is known of one taskspec during a decision. */
struct spec {
    struct str id;
    unsigned number;
    struct orch_restart restart;
    int64_t grace_ns;
    struct spec_change change; /* to the service's current one */
    bool in_use;
    struct spec *next;
};

struct decision {
    struct orch *o;
    struct controller_pass *p;
    struct str id, doc; /* the service */
    struct view_service view;
    struct orch_service svc;
    uint64_t iteration; /* of a job: its current run */
    struct orch_task *tasks;
    size_t n;
    struct spec *specs;
    unsigned nspecs;
    struct str spec_now; /* the document of the service's taskspec */
    bool damaged;        /* a task could not be read: its taskspec is not known */
    bool dry;            /* only to explain: nothing is used up */
    bool scales;         /* by its labels */
    struct scale_out scale;
    bool waits; /* some of its tasks on held nodes may not be moved yet */
};

static struct orch_restart restart_policy(const struct view_restart *r)
{
    return (struct orch_restart){ .condition = str_is(r->Condition, "none")         ? ORCH_NONE
                                               : str_is(r->Condition, "on-failure") ? ORCH_ON_FAILURE
                                                                                    : ORCH_ANY,
                                  .delay_ns = view_restart_delay_ns(r),
                                  .window_ns = r->Window,
                                  .max_attempts = r->MaxAttempts };
}

/* spec_of - taskspecs are numbered in the order of their appearance. */
static struct spec *spec_of(struct decision *d, struct str id)
{
    struct view_taskspec v;
    struct str doc;
    struct err e;
    for (struct spec *s = d->specs; s; s = s->next)
        if (str_eq(s->id, id))
            return s;
    struct spec *s = arena_alloc(d->p->arena, sizeof *s);
    CHECK(s != NULL);
    *s = (struct spec){ .id = id, .number = d->nspecs++, .next = d->specs };
    if (store_get(d->p->snap, KIND_TASKSPEC, id, &doc) == 0 && view_taskspec(doc, &v, d->p->arena, &e) == 0) {
        s->restart = restart_policy(&v.Spec.RestartPolicy);
        s->grace_ns = view_stop_grace_ns(v.Spec.ContainerSpec);
        s->change = spec_change(doc, d->spec_now);
    } else { /* a task without its spec cannot run; let it be replaced as the service says */
        s->restart = d->svc.restart;
        s->change.tasks = true;
    }
    d->specs = s;
    return s;
}

/* wait_turn - too many nodes are down at once: this task stays on its own until it may be moved. */
static void wait_turn(struct decision *d, struct orch_task *t)
{
    if (!d->dry && orch_may_move(&d->o->nodes, d->p->now.ns))
        return;
    d->waits = true;
    t->held = true;
    t->node_down = false;
}

/* is_current - it needs not be replaced: it has the service's taskspec, or one that differs in nothing that matters. */
static bool is_current(struct decision *d, const struct view_task *v, const struct spec *spec,
                       const struct orch_node *node)
{
    if (orch_is_job(&d->svc))
        return v->JobIteration.Index == d->iteration;
    return str_eq(v->TaskSpecID, d->view.TaskSpecID) ||
           task_stays(&spec->change, task_state_parse(v->Status.State), task_state_parse(v->DesiredState),
                      &d->view.Spec.TaskTemplate.Placement, node ? node->view : NULL);
}

static void fill_task(struct decision *d, const struct view_task *v, struct str doc, struct orch_task *t)
{
    const struct orch_node *node = v->NodeID.n ? orch_node_get(&d->o->nodes, v->NodeID) : NULL;
    const struct spec *spec = spec_of(d, v->TaskSpecID);
    *t = (struct orch_task){ .id = v->ID,
                             .node_id = v->NodeID,
                             .replaces = v->ReplacesID,
                             .slot = v->Slot,
                             .state = task_state_parse(v->Status.State),
                             .desired = task_state_parse(v->DesiredState),
                             .current = is_current(d, v, spec, node),
                             .node_drain = node && node->drain,
                             .created_ns = v->CreatedAt,
                             .start_ns = v->StartNotBefore };
    t->spec = spec->number;
    t->restart = spec->restart;
    t->grace_ns = spec->grace_ns;
    t->running_ns = view_running_since(&v->Status);
    t->status_ns = v->Status.AppliedAt ? v->Status.AppliedAt : v->Status.Timestamp;
    t->evict = v->Evict != NULL;
    (void)mp_get_u64(doc, "Restarts", &t->restarts);
    (void)mp_get_u64(doc, "Attempts", &t->attempts);
    t->node_gone = v->NodeID.n && !node;
    t->node_down = t->node_gone || (node && node->down);
    if (node && node->down && node->held && t->desired <= TASK_COMPLETE && t->state <= TASK_RUNNING)
        wait_turn(d, t);
}

static void read_tasks(struct decision *d)
{
    struct store_iter it;
    struct view_task v;
    struct err e;
    size_t cap = 0;
    for (store_each_index(d->p->snap, IX_TASK_SERVICE, d->id, &it); store_next(&it);) {
        arena_reset(&d->o->scratch); /* what is kept of a view is text of the snapshot */
        if (view_task(it.doc, &v, &d->o->scratch, &e) != 0) {
            log_error("service=" STR_FMT ": %s", STR_ARG(d->id), e.msg);
            d->damaged = true;
            continue;
        }
        if (d->n == cap) {
            size_t more = cap ? cap * 2 : 32;
            struct orch_task *t = arena_array(d->p->arena, more, sizeof *t);
            CHECK(t != NULL);
            if (d->n)
                memcpy(t, d->tasks, d->n * sizeof *t);
            d->tasks = t;
            cap = more;
        }
        fill_task(d, &v, it.doc, &d->tasks[d->n++]);
    }
}

static enum orch_mode mode_of(const struct view_mode *m)
{
    return m->Global          ? ORCH_GLOBAL
           : m->ReplicatedJob ? ORCH_REPLICATED_JOB
           : m->GlobalJob     ? ORCH_GLOBAL_JOB
                              : ORCH_REPLICATED;
}

static struct str label_of(const struct view_service *v, const char *name)
{
    for (size_t i = 0; i < v->Spec.Labels.n; i++)
        if (str_is(v->Spec.Labels.v[i].key, name))
            return v->Spec.Labels.v[i].val;
    return STR("");
}

/* fill_mode - what only some modes have. A label that apid would refuse is as good as none. */
static void fill_mode(struct decision *d)
{
    const struct view_service *v = &d->view;
    const struct view_replicated_job *job = v->Spec.Mode.ReplicatedJob;
    struct orch_schedule *s = &d->svc.schedule;
    struct str when = label_of(v, VIEW_SCHEDULE_LABEL);
    struct err e;
    if (v->Spec.Mode.Global || v->Spec.Mode.GlobalJob)
        d->svc.places = orch_nodes_places(&d->o->nodes, &v->Spec.TaskTemplate.Placement, d->p->arena, &d->svc.nplaces);
    d->svc.completions = job ? job->TotalCompletions : 0;
    d->svc.concurrent = job ? job->MaxConcurrent : 0;
    d->iteration = v->JobStatus ? v->JobStatus->JobIteration.Index : 0;
    d->svc.begun = orch_is_job(&d->svc);
    if (!d->svc.begun || when.n == 0 || cron_parse(when, &s->cron, &e) != 0)
        return;
    s->given = true;
    s->from_ns = v->JobStatus && v->JobStatus->ScheduledFrom ? v->JobStatus->ScheduledFrom : v->CreatedAt;
    (void)view_overlap(label_of(v, VIEW_OVERLAP_LABEL), &s->replace);
    d->svc.begun = v->JobStatus && v->JobStatus->LastExecution != 0;
}

static int64_t progress_deadline(const struct view_service *v)
{
    int64_t ns = VIEW_PROGRESS_NS;
    for (size_t i = 0; i < v->Spec.Labels.n; i++)
        if (str_is(v->Spec.Labels.v[i].key, VIEW_PROGRESS_LABEL))
            (void)view_progress_deadline(v->Spec.Labels.v[i].val, &ns);
    return ns;
}

/* can_roll_back - with the taskspec too: it has the credentials, and raftd goes by it. */
static bool can_roll_back(struct decision *d)
{
    struct str doc;
    return view_has_previous(&d->view) && d->view.PreviousTaskSpecID.n &&
           store_get(d->p->snap, KIND_TASKSPEC, d->view.PreviousTaskSpecID, &doc) == 0;
}

/* fill_scale - how many replicas a service that scales itself has, and is to have from now on. */
static void fill_scale(struct decision *d)
{
    const struct view_service *v = &d->view;
    const struct view_resource *limits = &v->Spec.TaskTemplate.Resources.Limits;
    const char *label;
    struct err e;
    struct scale_in in = { .cpu_limit_ns = limits->NanoCPUs,
                           .memory_limit = limits->MemoryBytes,
                           .usage = v->Usage,
                           .before = v->Autoscale,
                           .now_ns = d->p->now.ns };
    /* labels that apid would refuse are as good as none */
    if (d->svc.mode != ORCH_REPLICATED || autoscale_parse(&v->Spec.Labels, &in.conf, &label, &e) < 0 || !in.conf.given)
        return;
    in.replicas = autoscale_replicas(&in.conf, v->Autoscale ? v->Autoscale->Replicas : 0, view_replicas(v));
    scale_decide(&in, &d->scale);
    d->scales = true;
    d->svc.replicas = d->scale.replicas;
}

static void fill_service(struct decision *d)
{
    const struct view_service *v = &d->view;
    enum orch_update u = orch_update_parse(v->UpdateStatus.State);
    (void)store_get(d->p->snap, KIND_TASKSPEC, v->TaskSpecID, &d->spec_now);
    const struct view_update_config *c = u == ORCH_UPDATE_ROLLBACK ? v->Spec.RollbackConfig : v->Spec.UpdateConfig;
    d->svc = (struct orch_service){ .exists = true,
                                    .mode = mode_of(&v->Spec.Mode),
                                    .replicas = view_replicas(v),
                                    .update = u,
                                    .parallelism = 1,
                                    .monitor_ns = ORCH_MONITOR_NS,
                                    .history_limit = d->o->history_limit,
                                    .progress_ns = progress_deadline(v),
                                    .reports_ns = d->o->reloaded_ns,
                                    .slots = v->UpdateStatus.Slots,
                                    .failures = v->UpdateStatus.Failures,
                                    .can_roll_back = can_roll_back(d),
                                    .restart = restart_policy(&v->Spec.TaskTemplate.RestartPolicy) };
    fill_mode(d);
    fill_scale(d);
    if (c) {
        d->svc.parallelism = c->ParallelismRaw.n ? c->Parallelism : 1;
        d->svc.update_delay_ns = c->Delay;
        if (c->Monitor > 0)
            d->svc.monitor_ns = c->Monitor;
        d->svc.start_first = str_is(c->Order, "start-first");
        d->svc.max_failure_ratio = c->MaxFailureRatio;
        d->svc.on_failure = str_is(c->FailureAction, "continue")   ? ORCH_CONTINUE
                            : str_is(c->FailureAction, "rollback") ? ORCH_ROLLBACK
                                                                   : ORCH_PAUSE;
    }
}

/* ---- from the core's answer to changes ---- */

static struct str finish(struct decision *d)
{
    struct str doc = txn_doc(d->p->txn, &d->o->doc);
    buf_clear(&d->o->doc);
    return doc;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* new_ids - of many tasks that are made together the IDs begin alike and come in order: so their documents stand side
 * by side in the store, in pages that are filled up later on as the documents grow, and whoever changes or reads a
 * service's tasks deals with few pages. */
static char (*new_ids(struct decision *d, size_t n))[ID_SIZE]
{
    char(*ids)[ID_SIZE] = arena_array(d->p->arena, n + 1, sizeof *ids);
    CHECK(ids != NULL);
    for (size_t i = 0; i < n; i++) {
        d->o->new_id(d->o->new_id_arg, ids[i]);
        if (n >= TOGETHER)
            memcpy(ids[i], ids[0], ALIKE);
    }
    if (n >= TOGETHER)
        qsort(ids, n, sizeof *ids, by_text);
    return ids;
}

static void write_create(struct decision *d, const struct orch_create *c, const char *id)
{
    struct buf *b = &d->o->doc;
    struct str key = arena_str(&d->p->txn->arena, str_from(id));
    buf_clear(b);
    bool job = orch_is_job(&d->svc);
    mp_map(b, 6 + (c->start_ns != 0) + (c->replaces.n != 0) + (c->restarts != 0) + (c->attempts != 0) +
                  (c->node_id.n != 0) + job);
    mp_kv_cstr(b, "ID", id);
    mp_kv_str(b, "ServiceID", d->id);
    mp_kv_u64(b, "Slot", c->slot);
    mp_kv_str(b, "TaskSpecID", d->view.TaskSpecID);
    mp_kv_cstr(b, "DesiredState", task_state_name(c->desired));
    if (c->start_ns)
        mp_kv_i64(b, "StartNotBefore", c->start_ns);
    if (c->replaces.n)
        mp_kv_str(b, "ReplacesID", c->replaces);
    if (c->restarts)
        mp_kv_u64(b, "Restarts", c->restarts);
    if (c->attempts)
        mp_kv_u64(b, "Attempts", c->attempts);
    if (c->node_id.n)
        mp_kv_str(b, "NodeID", c->node_id);
    if (job) {
        mp_cstr(b, "JobIteration");
        mp_map(b, 1);
        mp_kv_u64(b, "Index", d->iteration);
    }
    mp_cstr(b, "Status");
    mp_map(b, 3);
    mp_kv_cstr(b, "State", "new");
    mp_kv_cstr(b, "Message", "created");
    mp_kv_i64(b, "Timestamp", d->p->now.ns);
    txn_create(d->p->txn, KIND_TASK, key, finish(d));
    d->o->created++;
    d->o->restarted += c->restarts > 0;
}

/* write_desired - what is stopped before it was placed needs not be waited for: if it has been placed since, the
 * decision has to be made again. */
static void write_desired(struct decision *d, const struct orch_task *t)
{
    struct buf *b = &d->o->doc;
    struct str doc;
    uint64_t rev;
    if (t->state < TASK_ASSIGNED && t->want > TASK_COMPLETE && store_get(d->p->snap, KIND_TASK, t->id, &doc) == 0 &&
        mp_get_u64(doc, "Rev", &rev))
        txn_require_rev(d->p->txn, KIND_TASK, t->id, rev);
    buf_clear(b);
    mp_map(b, 1);
    mp_kv_cstr(b, "DesiredState", task_state_name(t->want));
    txn_merge(d->p->txn, KIND_TASK, t->id, finish(d));
}

/* put_update_status - a rollback by itself is the end of an update: it began when that did, as with Docker. */
static void put_update_status(struct decision *d, enum orch_update u, struct str message, uint64_t slots,
                              uint64_t failures)
{
    struct buf *b = &d->o->doc;
    bool ended = u == ORCH_UPDATE_COMPLETED || u == ORCH_UPDATE_ROLLBACK_COMPLETED;
    bool begins = u == ORCH_UPDATE_UPDATING && d->svc.update != u;
    int64_t started = d->view.UpdateStatus.StartedAt;
    if (begins || !started)
        started = d->p->now.ns;
    mp_cstr(b, "UpdateStatus");
    mp_map(b, 3 + ended + (slots != 0) + (failures != 0));
    mp_kv_cstr(b, "State", orch_update_name(u));
    mp_kv_str(b, "Message", message);
    mp_kv_i64(b, "StartedAt", started);
    if (ended)
        mp_kv_i64(b, "CompletedAt", d->p->now.ns);
    if (slots)
        mp_kv_u64(b, "Slots", slots);
    if (failures)
        mp_kv_u64(b, "Failures", failures);
}

static void write_update_status(struct decision *d, enum orch_update u, struct str message, uint64_t slots,
                                uint64_t failures)
{
    buf_clear(&d->o->doc);
    mp_map(&d->o->doc, 1);
    put_update_status(d, u, message, slots, failures);
    txn_merge(d->p->txn, KIND_SERVICE, d->id, finish(d));
}

/* write_rollback - what was before, in one change; raftd allows this daemon exactly that (authority.c). */
static void write_rollback(struct decision *d, struct str message)
{
    struct buf *b = &d->o->doc;
    buf_clear(b);
    mp_map(b, 5);
    mp_kv_raw(b, "Spec", d->view.PreviousSpec);
    mp_kv_str(b, "TaskSpecID", d->view.PreviousTaskSpecID);
    mp_cstr(b, "PreviousSpec");
    mp_nil(b);
    mp_cstr(b, "PreviousTaskSpecID");
    mp_nil(b);
    put_update_status(d, ORCH_UPDATE_ROLLBACK, message, 0, 0);
    txn_update(d->p->txn, KIND_SERVICE, d->id, finish(d));
}

static void write_update(struct decision *d, const struct orch_out *out)
{
    struct buf text = BUF_INIT;
    if (out->update == d->svc.update && out->slots == d->svc.slots && out->failures == d->svc.failures)
        return;
    if (out->update == d->svc.update)
        buf_put(&text, d->view.UpdateStatus.Message.p, d->view.UpdateStatus.Message.n);
    else
        orch_update_message(&d->svc, out, &text);
    struct str message = arena_str(&d->p->txn->arena, buf_str(&text));
    if (out->update == ORCH_UPDATE_ROLLBACK && d->svc.update != ORCH_UPDATE_ROLLBACK)
        write_rollback(d, message);
    else
        write_update_status(d, out->update, message, out->slots, out->failures);
    if (out->culprit.n)
        log_info("service=" STR_FMT " task=" STR_FMT ": %s", STR_ARG(d->id), STR_ARG(out->culprit), buf_cstr(&text));
    buf_done(&text);
}

/* credential_shared - another taskspec that stays uses the same credential. */
static bool credential_shared(struct decision *d, struct str taskspec, struct str credential)
{
    struct store_iter it;
    struct str other;
    for (store_each_index(d->p->snap, IX_TASKSPEC_SERVICE, d->id, &it); store_next(&it);)
        if (!str_eq(it.id, taskspec) && mp_get_str(it.doc, "CredentialID", &other) && str_eq(other, credential)) {
            store_iter_done(&it);
            return true;
        }
    return false;
}

/* purge_specs - taskspecs that neither the service nor a task refers to any more, with their credentials. */
static void purge_specs(struct decision *d)
{
    struct store_iter it;
    struct str credential;
    if (d->damaged)
        return;
    for (struct spec *s = d->specs; s; s = s->next)
        for (size_t i = 0; i < d->n && !s->in_use; i++)
            s->in_use = !d->tasks[i].drop && d->tasks[i].spec == s->number;
    for (store_each_index(d->p->snap, IX_TASKSPEC_SERVICE, d->id, &it); store_next(&it);) {
        bool used = d->svc.exists && (str_eq(it.id, d->view.TaskSpecID) || str_eq(it.id, d->view.PreviousTaskSpecID));
        for (struct spec *s = d->specs; s && !used; s = s->next)
            used = s->in_use && str_eq(s->id, it.id);
        if (used)
            continue;
        if (mp_get_str(it.doc, "CredentialID", &credential) && credential.n &&
            (!d->svc.exists || !credential_shared(d, it.id, credential)))
            txn_purge(d->p->txn, KIND_CREDENTIAL, credential);
        txn_purge(d->p->txn, KIND_TASKSPEC, it.id);
    }
}

/* write_run - the next run of a job with a schedule, or that its time was passed over. Only once: the service must be
 * as it was seen. */
static void write_run(struct decision *d, const struct orch_out *out)
{
    const struct view_job_status none = { 0 }, *was = d->view.JobStatus ? d->view.JobStatus : &none;
    struct buf *b = &d->o->doc;
    bool start = out->run == ORCH_RUN_START;
    int64_t began = start ? d->p->now.ns : was->LastExecution;
    buf_clear(b);
    mp_map(b, 1 + start);
    mp_cstr(b, "JobStatus");
    mp_map(b, 3 + (began != 0));
    mp_cstr(b, "JobIteration");
    mp_map(b, 1);
    mp_kv_u64(b, "Index", was->JobIteration.Index + start);
    if (began)
        mp_kv_i64(b, "LastExecution", began);
    mp_kv_i64(b, "ScheduledFrom", out->due_ns);
    mp_kv_u64(b, "Skipped", was->Skipped + !start);
    if (start) { /* what became of the last run is past */
        mp_cstr(b, "UpdateStatus");
        mp_nil(b);
    }
    txn_require_rev(d->p->txn, KIND_SERVICE, d->id, d->view.Rev);
    txn_update(d->p->txn, KIND_SERVICE, d->id, finish(d));
    d->o->runs += start;
    d->o->skipped += !start;
}

/* write_rest - a job that has come to rest without being complete says so where Docker's clients look, and those that
 * wait for it end. */
static void write_rest(struct decision *d, const struct orch_out *out)
{
    const struct orch_job *job = &out->job;
    const struct orch_task *t = job->failed;
    bool stuck = job->rest && job->complete < job->slots;
    struct str was = d->view.UpdateStatus.Message;
    struct buf text = BUF_INIT, *b = &d->o->doc;
    if (stuck && !t)
        buf_puts(&text, "job paused: none of its tasks may run, since MaxConcurrent is 0");
    else if (stuck)
        buf_printf(&text,
                   "job paused: %llu of %llu tasks are complete, %llu will not be tried again: task " STR_FMT " %s",
                   (unsigned long long)job->complete, (unsigned long long)job->slots, (unsigned long long)job->given_up,
                   STR_ARG(t->id), t->why ? t->why : "failed");
    if (str_eq(was, buf_str(&text))) {
        buf_done(&text);
        return;
    }
    buf_clear(b);
    mp_map(b, 1);
    if (stuck) {
        put_update_status(d, ORCH_UPDATE_PAUSED, buf_str(&text), 0, 0);
    } else {
        mp_cstr(b, "UpdateStatus");
        mp_nil(b);
    }
    txn_merge(d->p->txn, KIND_SERVICE, d->id, finish(d));
    buf_done(&text);
}

static void write_job(struct decision *d, const struct orch_out *out)
{
    if (out->run != ORCH_RUN_NOTHING)
        write_run(d, out);
    else
        write_rest(d, out);
}

/* write_scale - the new number of replicas, or why there is none; nothing any more when the labels are gone. */
static void write_scale(struct decision *d)
{
    const struct view_autoscale none = { 0 }, *was = d->view.Autoscale ? d->view.Autoscale : &none;
    struct buf *b = &d->o->doc;
    bool changed = d->scales && d->scale.replicas != (was->Replicas ? was->Replicas : view_replicas(&d->view));
    struct str reason = str_from(d->scale.reason);
    bool news = reason.n ? !str_eq(reason, was->Reason)
                         : d->scale.measured && str_starts(was->Reason, STR(SCALE_BLIND)); /* it can see again */
    if (d->scales ? !changed && !news : !d->view.Autoscale)
        return;
    buf_clear(b);
    mp_map(b, 1);
    mp_cstr(b, "Autoscale");
    if (!d->scales) {
        mp_nil(b);
    } else {
        mp_map(b, 2 + (changed || was->ChangedAt));
        mp_kv_u64(b, "Replicas", d->scale.replicas);
        if (changed || was->ChangedAt)
            mp_kv_i64(b, "ChangedAt", changed ? d->p->now.ns : was->ChangedAt);
        mp_kv_str(b, "Reason", reason.n || !changed ? reason : STR("within its bounds"));
    }
    txn_merge(d->p->txn, KIND_SERVICE, d->id, finish(d));
    if (changed)
        log_info("service=" STR_FMT " replicas=%llu was=%llu: %s", STR_ARG(d->id),
                 (unsigned long long)d->scale.replicas, (unsigned long long)was->Replicas, d->scale.reason);
    d->o->scaled += changed;
}

static void write_answer(struct decision *d, const struct orch_out *out)
{
    size_t before = d->p->txn->nchg;
    if (d->svc.exists)
        write_scale(d);
    for (size_t i = 0; i < d->n; i++) {
        if (d->tasks[i].drop) {
            txn_purge(d->p->txn, KIND_TASK, d->tasks[i].id);
            d->o->deleted++;
        } else if (d->tasks[i].want != d->tasks[i].desired) {
            write_desired(d, &d->tasks[i]);
        }
    }
    char(*ids)[ID_SIZE] = new_ids(d, out->ncreate);
    for (size_t i = 0; i < out->ncreate; i++)
        write_create(d, &out->create[i], ids[i]);
    if (orch_is_job(&d->svc))
        write_job(d, out);
    else
        write_update(d, out);
    purge_specs(d);
    if (d->svc.exists && d->p->txn->nchg != before) /* decided on this spec, not on one that came since */
        txn_require_version(d->p->txn, KIND_SERVICE, d->id, d->view.Version.Index);
}

static void watch(struct decision *d, const struct orch_out *out)
{
    int64_t due = out->next_ns;
    if (d->waits)
        table_put(&d->o->waiting, d->id, NULL);
    else
        table_del(&d->o->waiting, d->id);
    if (d->scales && d->scale.next_ns < due)
        due = d->scale.next_ns;
    if (due == ORCH_NEVER && !out->updating)
        return;
    struct orch_watch *w = table_put(&d->o->watch, d->id, NULL);
    *w = (struct orch_watch){ .due_ns = due, .updating = out->updating };
}

static void decide(struct orch *o, struct controller_pass *p, struct str id)
{
    struct decision d = { .o = o, .p = p, .id = id };
    struct orch_out out;
    struct err e;
    table_del(&o->watch, id);
    if (store_get(p->snap, KIND_SERVICE, id, &d.doc) == 0) {
        if (view_service(d.doc, &d.view, p->arena, &e) != 0) {
            log_error("service=" STR_FMT ": %s", STR_ARG(id), e.msg);
            return;
        }
        fill_service(&d);
    }
    read_tasks(&d);
    o->read += d.n;
    orch_reconcile(&d.svc, d.tasks, d.n, p->now.ns, p->arena, &out);
    watch(&d, &out);
    write_answer(&d, &out);
    if (out.more) {
        marks_add(&o->services, id);
        p->more = true;
    }
}

/* ---- the explain probe ---- */

/* find - a service by ID, name or unique beginning; or a task, with its service. */
static bool find_service(struct store_snap *snap, struct str what, struct str *ret_service, struct str *ret_task,
                         struct err *e)
{
    struct str doc;
    *ret_task = STR("");
    if (store_resolve(snap, KIND_SERVICE, IX_SERVICE_NAME, what, ret_service, &doc, e) == 0)
        return true;
    return store_resolve(snap, KIND_TASK, IX_COUNT, what, ret_task, &doc, e) == 0 &&
           mp_get_str(doc, "ServiceID", ret_service) && ret_service->n;
}

void orch_pass_explain(struct orch *o, struct store_snap *snap, int64_t now_ns, struct str what, struct buf *out)
{
    struct arena arena;
    struct controller_pass p = { .snap = snap, .now = { now_ns }, .arena = &arena };
    struct decision d = { .o = o, .p = &p, .dry = true };
    struct orch_out answer;
    struct str task;
    struct err e = ERR_INIT;
    arena_init(&arena, EXPLAIN_BYTES);
    if (!find_service(snap, what, &d.id, &task, &e)) {
        buf_puts(out, "{\"error\":\"no such service or task\"}");
    } else if (store_get(snap, KIND_SERVICE, d.id, &d.doc) == 0 && view_service(d.doc, &d.view, &arena, &e) != 0) {
        buf_puts(out, "{\"error\":");
        buf_json_str(out, str_from(e.msg));
        buf_puts(out, "}");
    } else {
        if (d.doc.n)
            fill_service(&d);
        read_tasks(&d);
        orch_reconcile(&d.svc, d.tasks, d.n, now_ns, &arena, &answer);
        orch_explain(&(struct orch_account){ .service = d.id,
                                             .name = d.view.Spec.Name,
                                             .update_message = d.view.UpdateStatus.Message,
                                             .iteration = d.iteration,
                                             .svc = &d.svc,
                                             .tasks = d.tasks,
                                             .n = d.n,
                                             .out = &answer,
                                             .nodes = &o->nodes,
                                             .task = task },
                     out);
    }
    arena_done(&arena);
}

/*
 * rests - tasks of large services come up by the hundred, and each report may matter to a decision that reads all of
 * the service's tasks: so the more was read, the longer until it is read again, unless a user wants something.
 */
static bool rests(const struct orch *o, const struct controller_pass *p)
{
    return !o->urgent && p->now.ns >= o->rested_ns && p->now.ns < o->rest_until_ns;
}

static void rest(struct orch *o, const struct controller_pass *p)
{
    int64_t ns = o->read < REST_FROM ? 0 : (int64_t)o->read * REST_NS;
    o->rested_ns = p->now.ns;
    o->rest_until_ns = p->now.ns + (ns < REST_MAX_NS ? ns : REST_MAX_NS);
    o->read = 0;
    o->urgent = false;
}

/* take_waiting - as many services as tasks may be moved: at most. However many there are, a pass looks at few. */
static void take_waiting(struct orch *o, const struct controller_pass *p)
{
    struct str id;
    size_t left = o->waiting.count ? orch_moves_left(&o->nodes, p->now.ns) : 0;
    for (struct table_pos pos = { 0 }; left > 0 && table_next(&o->waiting, &pos, &id, NULL); left--)
        marks_add(&o->services, id);
}

static void on_pass(void *arg, struct controller_pass *p)
{
    struct orch *o = arg;
    struct orch_watch *w;
    struct str id;
    size_t before = o->read;
    if (!o->reloaded_ns)
        o->reloaded_ns = p->now.ns;
    take_waiting(o, p);
    for (struct table_pos pos = { 0 }; table_next(&o->watch, &pos, &id, &w);)
        if (w->due_ns <= p->now.ns)
            marks_add(&o->services, id);
    bool resting = rests(o, p);
    while (!resting && !p->more && marks_pop(&o->services, &id)) {
        decide(o, p, id);
        if ((p->txn->nchg >= CONTROLLER_CHANGES_SOFT || o->read - before >= PASS_TASKS) && o->services.pending.count)
            p->more = true;
    }
    for (struct table_pos pos = { 0 }; table_next(&o->watch, &pos, NULL, &w);)
        if (w->due_ns < p->next_ns)
            p->next_ns = w->due_ns;
    if (resting && (o->services.pending.count || p->next_ns < o->rest_until_ns))
        p->next_ns = o->rest_until_ns;
    else if (!resting && !p->more)
        rest(o, p);
    if (o->waiting.count && p->next_ns > p->now.ns + orch_moves_wait_ns(&o->nodes))
        p->next_ns = p->now.ns + orch_moves_wait_ns(&o->nodes);
}

static void on_done(void *arg, const struct err *e)
{
    struct orch *o = arg;
    marks_settle(&o->services, e->code == 0);
}

const struct controller_ops orch_ops = {
    .name = "orchestratord",
    .reload = on_reload,
    .change = on_change,
    .pass = on_pass,
    .done = on_done,
};
