/* orch_pass.c - see orch_pass.h. */
#include "orchestratord/orch_pass.h"

#include "common/daemon/log.h"
#include "common/util/check.h"

#define SCRATCH_BYTES (64u << 20)

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
    table_init(&o->bad_nodes, sizeof(struct orch_node));
    arena_init(&o->scratch, SCRATCH_BYTES);
}

void orch_done(struct orch *o)
{
    marks_done(&o->services);
    table_done(&o->watch);
    table_done(&o->bad_nodes);
    arena_done(&o->scratch);
    buf_done(&o->doc);
}

/* ---- what changed ---- */

static struct orch_node node_condition(const struct view_node *n)
{
    return (struct orch_node){ .down = str_is(n->Status.State, "down"),
                               .drain = str_is(n->Spec.Availability, "drain") };
}

/* learn_node - true when what matters about it has changed. */
static bool learn_node(struct orch *o, struct str id, struct str doc)
{
    struct view_node n;
    struct err e;
    struct orch_node now = { 0 }, *known = table_get(&o->bad_nodes, id), was = known ? *known : now;
    arena_reset(&o->scratch);
    if (view_node(doc, &n, &o->scratch, &e) != 0) {
        log_error("node=" STR_FMT ": %s", STR_ARG(id), e.msg);
        return false;
    }
    now = node_condition(&n);
    if (now.down || now.drain)
        *(struct orch_node *)table_put(&o->bad_nodes, id, NULL) = now;
    else
        table_del(&o->bad_nodes, id);
    return was.down != now.down || was.drain != now.drain;
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
    for (store_each(snap, KIND_SERVICE, &it); store_next(&it);)
        marks_add(&o->services, it.id);
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
    marks_clear(&o->services);
    table_clear(&o->watch);
    table_clear(&o->bad_nodes);
    for (store_each(snap, KIND_NODE, &it); store_next(&it);)
        learn_node(o, it.id, it.doc);
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
    if (state > TASK_RUNNING || (state < TASK_ASSIGNED && desired > TASK_RUNNING))
        return true;
    if (op == 'c') /* may be the last transaction of a predecessor, which this one's decisions did not know */
        return true;
    if (t->NodeID.n && table_get(&o->bad_nodes, t->NodeID))
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
    if (store_get(snap, KIND_NODE, id, &doc) != 0)
        table_del(&o->bad_nodes, id);
    else if (!learn_node(o, id, doc))
        return;
    for (store_each_index(snap, IX_TASK_NODE, id, &it); store_next(&it);)
        if (mp_get_str(it.doc, "ServiceID", &service) && service.n)
            marks_add(&o->services, service);
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
        marks_add(&o->services, id);
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
    bool in_use;
    struct spec *next;
};

struct decision {
    struct orch *o;
    struct controller_pass *p;
    struct str id, doc; /* the service */
    struct view_service view;
    struct orch_service svc;
    struct orch_task *tasks;
    size_t n;
    struct spec *specs;
    unsigned nspecs;
    bool damaged;            /* a task could not be read: its taskspec is not known */
    const char *unsupported; /* a mode that this daemon does not serve */
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
    if (store_get(d->p->snap, KIND_TASKSPEC, id, &doc) == 0 && view_taskspec(doc, &v, d->p->arena, &e) == 0)
        s->restart = restart_policy(&v.Spec.RestartPolicy);
    else /* a task without its spec cannot run; let it be replaced as the service says */
        s->restart = d->svc.restart;
    d->specs = s;
    return s;
}

static void fill_task(struct decision *d, const struct view_task *v, struct str doc, struct orch_task *t)
{
    const struct orch_node *node = v->NodeID.n ? table_get(&d->o->bad_nodes, v->NodeID) : NULL;
    struct str node_doc;
    *t = (struct orch_task){ .id = v->ID,
                             .node_id = v->NodeID,
                             .replaces = v->ReplacesID,
                             .slot = v->Slot,
                             .state = task_state_parse(v->Status.State),
                             .desired = task_state_parse(v->DesiredState),
                             .current = str_eq(v->TaskSpecID, d->view.TaskSpecID),
                             .node_down = node && node->down,
                             .node_drain = node && node->drain,
                             .created_ns = v->CreatedAt,
                             .start_ns = v->StartNotBefore };
    const struct spec *spec = spec_of(d, v->TaskSpecID);
    t->spec = spec->number;
    t->restart = spec->restart;
    t->status_ns = v->Status.AppliedAt ? v->Status.AppliedAt : v->Status.Timestamp;
    (void)mp_get_u64(doc, "Restarts", &t->restarts);
    if (v->NodeID.n && store_get(d->p->snap, KIND_NODE, v->NodeID, &node_doc) != 0)
        t->node_gone = t->node_down = true;
}

static void read_tasks(struct decision *d)
{
    struct store_iter it;
    struct view_task v;
    struct err e;
    size_t cap = 0;
    for (store_each_index(d->p->snap, IX_TASK_SERVICE, d->id, &it); store_next(&it);) {
        if (view_task(it.doc, &v, d->p->arena, &e) != 0) {
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

static const char *unsupported_mode(const struct view_mode *m)
{
    return m->Global          ? "global services are not supported by this version"
           : m->ReplicatedJob ? "replicated jobs are not supported by this version"
           : m->GlobalJob     ? "global jobs are not supported by this version"
                              : NULL;
}

static void fill_service(struct decision *d)
{
    const struct view_service *v = &d->view;
    enum orch_update u = orch_update_parse(v->UpdateStatus.State);
    const struct view_update_config *c = u == ORCH_UPDATE_ROLLBACK ? v->Spec.RollbackConfig : v->Spec.UpdateConfig;
    d->unsupported = unsupported_mode(&v->Spec.Mode);
    d->svc = (struct orch_service){ .exists = true,
                                    .replicas = view_replicas(v),
                                    .update = u,
                                    .parallelism = 1,
                                    .monitor_ns = ORCH_MONITOR_NS,
                                    .history_limit = d->o->history_limit,
                                    .restart = restart_policy(&v->Spec.TaskTemplate.RestartPolicy) };
    if (c) {
        d->svc.parallelism = c->ParallelismRaw.n ? c->Parallelism : 1;
        d->svc.update_delay_ns = c->Delay;
        if (c->Monitor > 0)
            d->svc.monitor_ns = c->Monitor;
        d->svc.start_first = str_is(c->Order, "start-first");
    }
}

/* ---- from the core's answer to changes ---- */

static struct str finish(struct decision *d)
{
    struct str doc = txn_doc(d->p->txn, &d->o->doc);
    buf_clear(&d->o->doc);
    return doc;
}

static void write_create(struct decision *d, const struct orch_create *c)
{
    struct buf *b = &d->o->doc;
    char id[ID_SIZE];
    d->o->new_id(d->o->new_id_arg, id);
    struct str key = arena_str(&d->p->txn->arena, str_from(id));
    buf_clear(b);
    mp_map(b, 6 + (c->start_ns != 0) + (c->replaces.n != 0) + (c->restarts != 0));
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
    mp_cstr(b, "Status");
    mp_map(b, 3);
    mp_kv_cstr(b, "State", "new");
    mp_kv_cstr(b, "Message", "created");
    mp_kv_i64(b, "Timestamp", d->p->now.ns);
    txn_create(d->p->txn, KIND_TASK, key, finish(d));
    d->o->created++;
    d->o->restarted += c->restarts > 0;
}

static void write_desired(struct decision *d, const struct orch_task *t)
{
    struct buf *b = &d->o->doc;
    buf_clear(b);
    mp_map(b, 1);
    mp_kv_cstr(b, "DesiredState", task_state_name(t->want));
    txn_merge(d->p->txn, KIND_TASK, t->id, finish(d));
}

static void write_update_status(struct decision *d, enum orch_update u, const char *message)
{
    struct buf *b = &d->o->doc;
    bool ended = u == ORCH_UPDATE_COMPLETED || u == ORCH_UPDATE_ROLLBACK_COMPLETED;
    int64_t started = d->view.UpdateStatus.StartedAt;
    if (!ended || !started)
        started = d->p->now.ns;
    buf_clear(b);
    mp_map(b, 1);
    mp_cstr(b, "UpdateStatus");
    mp_map(b, 3 + ended);
    mp_kv_cstr(b, "State", orch_update_name(u));
    mp_kv_cstr(b, "Message", message);
    mp_kv_i64(b, "StartedAt", started);
    if (ended)
        mp_kv_i64(b, "CompletedAt", d->p->now.ns);
    txn_merge(d->p->txn, KIND_SERVICE, d->id, finish(d));
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

/* can_roll_back_to - the taskspec of the service's previous spec: a rollback needs it, or its credential. */
static bool can_roll_back_to(struct decision *d, struct str taskspec)
{
    struct str before, spec;
    return d->svc.exists && mp_path(d->doc, "PreviousSpec.TaskTemplate", &before) && mp_find(taskspec, "Spec", &spec) &&
           str_eq(before, spec);
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
        bool used = (d->svc.exists && str_eq(it.id, d->view.TaskSpecID)) || can_roll_back_to(d, it.doc);
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

static void write_answer(struct decision *d, const struct orch_out *out)
{
    size_t before = d->p->txn->nchg;
    for (size_t i = 0; i < d->n; i++) {
        if (d->tasks[i].drop) {
            txn_purge(d->p->txn, KIND_TASK, d->tasks[i].id);
            d->o->deleted++;
        } else if (d->tasks[i].want != d->tasks[i].desired) {
            write_desired(d, &d->tasks[i]);
        }
    }
    for (size_t i = 0; i < out->ncreate; i++)
        write_create(d, &out->create[i]);
    if (out->update != d->svc.update)
        write_update_status(d, out->update, orch_update_message(out->update));
    purge_specs(d);
    if (d->svc.exists && d->p->txn->nchg != before) /* decided on this spec, not on one that came since */
        txn_require_version(d->p->txn, KIND_SERVICE, d->id, d->view.Version.Index);
}

static void watch(struct decision *d, const struct orch_out *out)
{
    if (out->next_ns == ORCH_NEVER && !out->updating)
        return;
    struct orch_watch *w = table_put(&d->o->watch, d->id, NULL);
    *w = (struct orch_watch){ .due_ns = out->next_ns, .updating = out->updating };
}

/* refuse_mode - says where a user looks why nothing happens; the client in the foreground ends with this message. */
static void refuse_mode(struct decision *d)
{
    if (str_is(d->view.UpdateStatus.Message, d->unsupported))
        return;
    write_update_status(d, ORCH_UPDATE_PAUSED, d->unsupported);
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
    if (d.unsupported) {
        refuse_mode(&d);
        return;
    }
    read_tasks(&d);
    orch_reconcile(&d.svc, d.tasks, d.n, p->now.ns, p->arena, &out);
    watch(&d, &out);
    write_answer(&d, &out);
    if (out.more) {
        marks_add(&o->services, id);
        p->more = true;
    }
}

static void on_pass(void *arg, struct controller_pass *p)
{
    struct orch *o = arg;
    struct orch_watch *w;
    struct str id;
    for (struct table_pos pos = { 0 }; table_next(&o->watch, &pos, &id, &w);)
        if (w->due_ns <= p->now.ns)
            marks_add(&o->services, id);
    while (!p->more && marks_pop(&o->services, &id)) {
        decide(o, p, id);
        if (p->txn->nchg >= CONTROLLER_CHANGES_SOFT && o->services.pending.count)
            p->more = true;
    }
    for (struct table_pos pos = { 0 }; table_next(&o->watch, &pos, NULL, &w);)
        if (w->due_ns < p->next_ns)
            p->next_ns = w->due_ns;
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
