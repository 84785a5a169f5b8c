/* /services: list, create, inspect, update (and rollback), remove. */
#include <stdio.h>

#include "apid/api_networks.h"
#include "apid/api_ref.h"
#include "apid/api_resources.h"
#include "apid/api_secrets.h"
#include "apid/api_spec.h"
#include "common/util/check.h"
#include "common/util/id.h"

/* ---- reading ---- */

static bool has(struct str doc, const char *path)
{
    struct str v;
    return mp_path(doc, path, &v);
}

static const char *mode_word(struct str doc)
{
    if (has(doc, "Spec.Mode.Global"))
        return "global";
    if (has(doc, "Spec.Mode.ReplicatedJob"))
        return "replicated-job";
    return has(doc, "Spec.Mode.GlobalJob") ? "global-job" : "replicated";
}

static bool service_matches(const struct filters *f, struct str id, struct str doc)
{
    struct str labels = { NULL, 0 }, runtime = text_at(doc, "Spec.TaskTemplate.Runtime");

    (void)mp_path(doc, "Spec.Labels", &labels);
    if (runtime.n == 0)
        runtime = STR("container");
    if (!filters_get(f, "runtime") && !str_is(runtime, "container"))
        return false;
    return filters_prefix(f, "id", id) && filters_prefix(f, "name", text_at(doc, "Spec.Name")) &&
           filters_exact(f, "mode", str_from(mode_word(doc))) && filters_exact(f, "runtime", runtime) &&
           filters_labels(f, "label", labels);
}

struct counts {
    uint64_t running, desired, completed;
};

static uint64_t iteration_of(struct str doc, const char *path)
{
    uint64_t n = 0;

    (void)mp_get_u64(doc, path, &n);
    return n;
}

/* lost - what was running on a node that is down, and is not wanted there any more: Docker counts it for a day. */
static bool lost(struct store_snap *snap, struct str task)
{
    struct str node;

    return task_state_parse(text_at(task, "DesiredState")) > TASK_COMPLETE &&
           (store_get(snap, KIND_NODE, text_at(task, "NodeID"), &node) != 0 ||
            str_is(text_at(node, "Status.State"), "down"));
}

/* As Docker counts (docker-api.md §3): of a job only the tasks of its current run. */
static struct counts count_tasks(struct store_snap *snap, struct str id, struct str doc)
{
    const char *mode = mode_word(doc);
    bool global = strcmp(mode, "global") == 0, job = strstr(mode, "job") != NULL;
    bool global_job = strcmp(mode, "global-job") == 0;
    uint64_t run = iteration_of(doc, "JobStatus.JobIteration.Index");
    struct counts c = { 0 };
    struct store_iter it;

    for (store_each_index(snap, IX_TASK_SERVICE, id, &it); store_next(&it);) {
        struct str state = text_at(it.doc, "Status.State"), want = text_at(it.doc, "DesiredState");
        bool complete = str_is(state, "complete");
        if (job && iteration_of(it.doc, "JobIteration.Index") != run)
            continue;
        c.running += str_is(state, "running") && !lost(snap, it.doc);
        c.completed += job && complete;
        c.desired += (global && str_is(want, "running")) || (global_job && str_is(want, "complete") && !complete);
    }
    if (strcmp(mode, "replicated") == 0 && !mp_get_u64(doc, "Autoscale.Replicas", &c.desired) &&
        !mp_get_u64(doc, "Spec.Mode.Replicated.Replicas", &c.desired))
        c.desired = 1;
    if (strcmp(mode, "replicated-job") == 0)
        (void)mp_get_u64(doc, "Spec.Mode.ReplicatedJob.MaxConcurrent", &c.desired);
    return c;
}

/* What is laid over a stored service: our own fields go, ServiceStatus comes when asked for. */
static void service_patch(struct buf *b, const struct counts *c)
{
    static const char *const ours[] = { "Rev", "TaskSpecID" };

    buf_clear(b);
    mp_map(b, 2 + (c ? 1 : 0));
    for (size_t i = 0; i < 2; i++) {
        mp_cstr(b, ours[i]);
        mp_nil(b);
    }
    if (!c)
        return;
    mp_cstr(b, "ServiceStatus");
    mp_map(b, 3);
    mp_kv_u64(b, "RunningTasks", c->running);
    mp_kv_u64(b, "DesiredTasks", c->desired);
    mp_kv_u64(b, "CompletedTasks", c->completed);
}

void services_list(struct req *r)
{
    static const char *const known[] = { "id", "name", "label", "mode", "runtime", NULL };
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct filters *f = arena_alloc(&r->arena, sizeof *f);
    struct err e = ERR_INIT;
    struct buf patch = BUF_INIT;
    struct store_iter it;
    bool status, first = true;

    CHECK(f);
    if (api_snap(r, &snap, NULL) < 0 || api_filters(r, f, known) < 0)
        return;
    if (query_strict(&r->query, "status", &status, &e) < 0) {
        api_fail(r, &e);
        return;
    }
    service_patch(&patch, NULL);
    buf_putc(&r->out, '[');
    for (store_each(snap, KIND_SERVICE, &it); store_next(&it);) {
        if (!service_matches(f, it.id, it.doc))
            continue;
        if (status) {
            struct counts c = count_tasks(snap, it.id, it.doc);
            service_patch(&patch, &c);
        }
        if (!first)
            buf_putc(&r->out, ',');
        first = false;
        if (api_emit(r, &obj_service, it.doc, buf_str(&patch)) < 0) {
            store_iter_done(&it);
            break;
        }
    }
    buf_done(&patch);
    if (r->answered)
        return;
    buf_puts(&r->out, "]\n");
    api_reply(r, 200);
}

/* With insertDefaults the document goes through a DOM, since defaults are filled in deep inside. */
static void reply_with_defaults(struct req *r, struct str doc, struct str patch)
{
    struct buf merged = BUF_INIT, packed = BUF_INIT;
    struct err e = ERR_INIT;
    json_t *o = NULL;

    /* Packed again, so that what was filled in stands where it belongs. */
    if (mp_merge(&merged, doc, patch, &e) < 0 || obj_unpack(&obj_service, buf_str(&merged), &o, &e) < 0 ||
        obj_defaults(&obj_service_spec, json_object_get(o, "Spec"), &e) < 0 ||
        obj_pack(&obj_service, o, &packed, &e) < 0 || obj_write_json(&obj_service, buf_str(&packed), &r->out, &e) < 0) {
        buf_clear(&r->out);
        api_fail(r, &e);
    } else {
        buf_putc(&r->out, '\n');
        api_reply(r, 200);
    }
    json_decref(o);
    buf_done(&merged);
    buf_done(&packed);
}

void services_inspect(struct req *r)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct buf patch = BUF_INIT;
    struct err e = ERR_INIT;
    struct str doc;
    bool defaults;

    if (query_strict(&r->query, "insertDefaults", &defaults, &e) < 0) {
        api_fail(r, &e);
        return;
    }
    if (api_snap(r, &snap, NULL) < 0 || api_find(r, snap, KIND_SERVICE, r->params[0], NULL, &doc) < 0)
        return;
    service_patch(&patch, NULL);
    if (defaults) {
        reply_with_defaults(r, doc, buf_str(&patch));
    } else if (api_emit(r, &obj_service, doc, buf_str(&patch)) == 0) {
        buf_putc(&r->out, '\n');
        api_reply(r, 200);
    }
    buf_done(&patch);
}

/* ---- writing ---- */

/* One create or update on its way. Identifiers are chosen before the first try, so a repeated try is recognised. */
struct change {
    json_t *spec;      /* as it will be stored */
    struct buf packed; /* the same in msgpack */
    char id[ID_SIZE], taskspec_id[ID_SIZE], credential_id[ID_SIZE];
    struct str auth;  /* registry credentials to store, or empty; in the request's arena */
    uint64_t version; /* updates: what the client saw */
    bool rollback, auth_previous;
    struct buf back_to; /* rollbacks: what the spec will be */
};

static void change_free(void *p)
{
    struct change *c = p;

    json_decref(c->spec);
    buf_done(&c->packed);
    buf_done(&c->back_to);
    free(c);
}

static int refuse_fault(struct req *r, const struct spec_fault *f)
{
    static const enum rpc_class class[] = { [FAULT_INVALID] = RPC_INVALID,
                                            [FAULT_UNKNOWN] = RPC_UNKNOWN,
                                            [FAULT_UNIMPLEMENTED] = RPC_UNIMPLEMENTED,
                                            [FAULT_EXISTS] = RPC_EXISTS,
                                            [FAULT_PRECONDITION] = RPC_PRECONDITION };
    if (f->class == FAULT_PLAIN)
        return api_refuse(r, f->status, "%s", f->msg);
    return api_rpc_refuse(r, class[f->class], "%s", f->msg);
}

/* The spec out of the body, checked and normalised; NULL when the request was refused. */
static struct change *read_change(struct req *r)
{
    json_t *spec = api_body(r, &obj_service_spec);
    struct spec_fault f;
    struct err e = ERR_INIT;
    const char *auth = api_request_header(r, "X-Registry-Auth");

    if (!spec)
        return NULL;
    if (spec_check(spec, &f) < 0) {
        json_decref(spec);
        (void)refuse_fault(r, &f);
        return NULL;
    }
    struct change *c = calloc(1, sizeof *c);
    CHECK(c);
    c->spec = spec;
    r->data = c;
    r->free_data = change_free;
    spec_normalise(spec, r->version);
    json_t *name = json_object_get(spec, "Name");
    if (json_is_string(name) && json_string_length(name) == 0)
        json_object_del(spec, "Name"); /* the same as none: filled in later */
    if (auth_decode(str_from(auth), &r->arena, &c->auth, &e) < 0) {
        api_fail(r, &e);
        return NULL;
    }
    id_new(c->taskspec_id);
    if (c->auth.n > 0)
        id_new(c->credential_id);
    return c;
}

static int pack_change(struct req *r, struct change *c)
{
    struct err e = ERR_INIT;

    if (obj_check(&obj_service_spec, c->spec, &e) == 0) {
        buf_clear(&c->packed);
        if (obj_pack(&obj_service_spec, c->spec, &c->packed, &e) == 0)
            return 0;
    }
    api_fail(r, &e);
    return -1;
}

/* The ports that are named, in the request's arena; most services have none. */
static struct spec_port *named_ports(struct req *r, struct change *c, size_t *ret_n)
{
    size_t max = json_array_size(json_object_get(json_object_get(c->spec, "EndpointSpec"), "Ports"));
    struct spec_port *v = max > 0 ? arena_array(&r->arena, max, sizeof *v) : NULL;

    *ret_n = v ? spec_ports(c->spec, v, max) : 0;
    return v;
}

/* Do others' published ports leave room for ours? Reservations decide in the end (allocatord); this is the early no. */
static int check_ports(struct req *r, struct store_snap *snap, struct change *c)
{
    size_t n;
    struct spec_port *ours = named_ports(r, c, &n);
    struct arena tmp;
    struct store_iter it;
    struct err e = ERR_INIT;
    int rc = 0;

    if (n == 0)
        return 0;
    arena_init(&tmp, 16u << 20);
    for (store_each(snap, KIND_SERVICE, &it); rc == 0 && store_next(&it);) {
        struct view_service s;
        if (str_is(it.id, c->id) || view_service(it.doc, &s, &tmp, &e) < 0)
            continue;
        const struct list *lists[] = { &s.Spec.EndpointSpec.Ports, &s.Endpoint.Ports };
        for (size_t k = 0; rc == 0 && k < 2; k++)
            for (size_t i = 0; rc == 0 && i < lists[k]->n; i++) {
                const struct view_port *p = &((struct view_port *)lists[k]->v)[i];
                struct spec_port theirs = { p->Protocol.n ? p->Protocol : STR("tcp"), p->PublishedPort,
                                            str_is(p->PublishMode, "host") };
                if (spec_port_clash(ours, n, &theirs))
                    rc = api_rpc_refuse(r, RPC_INVALID,
                                        "port '%llu' is already in use by service '" STR_FMT "' (" STR_FMT
                                        ") as %s port",
                                        (unsigned long long)theirs.published, STR_ARG(s.Spec.Name), STR_ARG(s.ID),
                                        theirs.host ? "a host-published" : "an ingress");
            }
        arena_reset(&tmp);
    }
    if (rc < 0)
        store_iter_done(&it);
    arena_done(&tmp);
    return rc;
}

/* What a spec refers to is there; the transaction requires that it still is. */
static int check_references(struct req *r, struct store_snap *snap, struct txn *t, json_t *spec)
{
    return secrets_require(r, snap, t, spec) < 0 ? -1 : networks_require(r, snap, t, spec);
}

static void put_credential(struct txn *t, struct change *c, struct buf *b)
{
    buf_clear(b);
    mp_map(b, 2);
    mp_kv_cstr(b, "ID", c->credential_id);
    mp_kv_str(b, "Data", c->auth);
    txn_create(t, KIND_CREDENTIAL, str_from(c->credential_id), txn_doc(t, b));
}

static void put_taskspec(struct txn *t, struct change *c, struct str spec, struct str service_id, struct str credential,
                         struct buf *b)
{
    struct str task = { NULL, 0 }, ep = { NULL, 0 };

    CHECK(mp_find(spec, "TaskTemplate", &task));
    bool has_ep = mp_find(spec, "EndpointSpec", &ep);
    buf_clear(b);
    mp_map(b, 4u + has_ep);
    mp_kv_cstr(b, "ID", c->taskspec_id);
    mp_kv_str(b, "ServiceID", service_id);
    mp_kv_raw(b, "Spec", task);
    if (has_ep)
        mp_kv_raw(b, "EndpointSpec", ep);
    mp_kv_str(b, "CredentialID", credential);
    txn_create(t, KIND_TASKSPEC, str_from(c->taskspec_id), txn_doc(t, b));
}

/*
 * Ports that are named are taken in the same transaction, so that of two services that want one at the same moment the
 * second gets its answer here (the look at the store after the conflict finds the first). One that is still held by a
 * service that is gone is left to allocatord, which frees it soon and gives it to whom the store says.
 */
static void take_ports(struct req *r, struct txn *t, struct store_snap *snap, struct change *c, struct buf *b)
{
    size_t n;
    struct spec_port *p = named_ports(r, c, &n);

    for (size_t i = 0; i < n; i++) {
        struct str doc, id = str_from(arena_printf(&t->arena, "port/" STR_FMT "/%llu", STR_ARG(p[i].protocol),
                                                   (unsigned long long)p[i].published));
        if (p[i].host || id.n == 0 || store_get(snap, KIND_RESERVATION, id, &doc) == 0)
            continue;
        buf_clear(b);
        mp_map(b, 4);
        mp_kv_str(b, "ID", id);
        mp_kv_cstr(b, "OwnerID", c->id);
        mp_kv_str(b, "Protocol", p[i].protocol);
        mp_kv_u64(b, "Port", p[i].published);
        txn_create(t, KIND_RESERVATION, id, txn_doc(t, b));
    }
}

static bool is_job(struct str spec)
{
    return has(spec, "Mode.ReplicatedJob") || has(spec, "Mode.GlobalJob");
}

/* put_job - a job that is declared, or changed in any way, runs; as with Docker. With a schedule it runs when it is due
 * the next time. */
static void put_job(struct buf *b, struct str spec, uint64_t iteration)
{
    struct str labels = { NULL, 0 }, when;
    bool scheduled = mp_find(spec, "Labels", &labels) && mp_find(labels, VIEW_SCHEDULE_LABEL, &when);

    mp_cstr(b, "JobStatus");
    mp_map(b, 2);
    mp_cstr(b, "JobIteration");
    mp_map(b, 1);
    mp_kv_u64(b, "Index", iteration);
    mp_kv_i64(b, scheduled ? "ScheduledFrom" : "LastExecution", clock_wall().ns);
}

static int attempt_create(struct req *r, struct txn *t, struct err *e)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct change *c = r->data;
    struct str name, other, doc;
    struct buf b = BUF_INIT;

    (void)e;
    if (api_snap(r, &snap, NULL) < 0)
        return -1;
    if (r->write.uncertain && store_get(snap, KIND_SERVICE, str_from(c->id), &doc) == 0)
        return 0;
    name = str_from(json_string_value(json_object_get(c->spec, "Name")));
    if (store_find_name(snap, IX_SERVICE_NAME, name, &other) == 0)
        return api_rpc_refuse(
            r, RPC_EXISTS, "name conflicts with an existing object: service " STR_FMT " already exists", STR_ARG(name));
    if (check_ports(r, snap, c) < 0 || check_references(r, snap, t, c->spec) < 0)
        return -1;
    take_ports(r, t, snap, c, &b);
    if (c->auth.n > 0)
        put_credential(t, c, &b);
    put_taskspec(t, c, buf_str(&c->packed), str_from(c->id), c->auth.n > 0 ? str_from(c->credential_id) : STR(""), &b);
    buf_clear(&b);
    mp_map(&b, 3 + is_job(buf_str(&c->packed)));
    mp_kv_cstr(&b, "ID", c->id);
    mp_kv_raw(&b, "Spec", buf_str(&c->packed));
    mp_kv_cstr(&b, "TaskSpecID", c->taskspec_id);
    if (is_job(buf_str(&c->packed)))
        put_job(&b, buf_str(&c->packed), 0);
    txn_create(t, KIND_SERVICE, str_from(c->id), txn_doc(t, &b));
    buf_done(&b);
    return 1;
}

static void created(struct req *r, uint64_t revision)
{
    struct change *c = r->data;

    (void)revision;
    buf_clear(&r->out);
    buf_printf(&r->out, "{\"ID\":\"%s\",\"Warnings\":null}\n", c->id);
    api_reply(r, 201);
}

void services_create(struct req *r)
{
    struct store_snap *snap;
    uint8_t seed[8];
    char name[40];

    if (api_snap(r, &snap, NULL) < 0)
        return;
    struct change *c = read_change(r);
    bool ok = c && networks_resolve(r, snap, c->spec) == 0;
    store_end(snap);
    if (!ok)
        return;
    if (!json_object_get(c->spec, "Name")) {
        random_bytes(seed, sizeof seed);
        spec_name_random(seed, name);
        json_object_set_new(c->spec, "Name", json_string(name));
    }
    id_new(c->id);
    if (pack_change(r, c) == 0)
        api_write(r, attempt_create, created);
}

/* ---- update ---- */

static bool same(const struct obj_type *t, struct str a, struct str b)
{
    struct err e = ERR_INIT;
    json_t *x = NULL, *y = NULL;
    bool differ = true;

    if (a.n == b.n && memcmp(a.p ? a.p : "", b.p ? b.p : "", a.n) == 0)
        return true;
    if ((a.n == 0 || obj_unpack(t, a, &x, &e) == 0) && (b.n == 0 || obj_unpack(t, b, &y, &e) == 0))
        differ = obj_diff(t, x, y, NULL, NULL);
    json_decref(x);
    json_decref(y);
    return !differ;
}

static struct str part(struct str map, const char *key)
{
    struct str v = { NULL, 0 };

    (void)mp_find(map, key, &v);
    return v;
}

/* Whether a taskspec says what `spec` (a service spec) wants of tasks, with these credentials. */
static bool taskspec_fits(struct str taskspec, struct str spec, struct str credential)
{
    return str_eq(text_at(taskspec, "CredentialID"), credential) &&
           same(&obj_task_template, part(taskspec, "Spec"), part(spec, "TaskTemplate")) &&
           same(&obj_endpoint_spec, part(taskspec, "EndpointSpec"), part(spec, "EndpointSpec"));
}

/* A taskspec that is still in the store and fits is used again: going back to an earlier spec then keeps those tasks
 * that already run it. */
static bool find_taskspec(struct store_snap *snap, struct str service_id, struct str current, struct str spec,
                          struct str credential, struct str *ret_id)
{
    struct store_iter it;
    struct str doc;

    if (store_get(snap, KIND_TASKSPEC, current, &doc) == 0 && taskspec_fits(doc, spec, credential)) {
        *ret_id = current;
        return true;
    }
    for (store_each_index(snap, IX_TASKSPEC_SERVICE, service_id, &it); store_next(&it);)
        if (taskspec_fits(it.doc, spec, credential)) {
            *ret_id = it.id;
            store_iter_done(&it);
            return true;
        }
    return false;
}

static struct str credential_of(struct store_snap *snap, struct str taskspec_id)
{
    struct str doc, found = { NULL, 0 };

    if (taskspec_id.n > 0 && store_get(snap, KIND_TASKSPEC, taskspec_id, &doc) == 0)
        found = text_at(doc, "CredentialID");
    return found.p ? found : STR("");
}

static void put_rollback_status(struct buf *b)
{
    mp_cstr(b, "UpdateStatus");
    mp_map(b, 3);
    mp_kv_cstr(b, "State", "rollback_started");
    mp_kv_i64(b, "StartedAt", clock_wall().ns);
    mp_kv_cstr(b, "Message", "manually requested rollback");
}

static json_t *unpack_spec(struct str spec)
{
    struct err e = ERR_INIT;
    json_t *o = NULL;

    return spec.n > 0 && obj_unpack(&obj_service_spec, spec, &o, &e) == 0 ? o : NULL;
}

static json_t *replicas_of(json_t *spec)
{
    return json_object_get(json_object_get(json_object_get(spec, "Mode"), "Replicated"), "Replicas");
}

static void set_replicas(json_t *spec, json_t *n)
{
    json_t *replicated = json_object_get(json_object_get(spec, "Mode"), "Replicated");

    if (replicated && n)
        json_object_set(replicated, "Replicas", n);
    else if (replicated)
        json_object_del(replicated, "Replicas");
}

/* same_but_replicas - two versions of a service that are the same one: to scale it makes no new one. */
static bool same_but_replicas(struct str a, struct str b)
{
    json_t *x = unpack_spec(a), *y = unpack_spec(b);
    bool is = false;

    if (x && y) {
        set_replicas(x, NULL);
        set_replicas(y, NULL);
        is = !obj_diff(&obj_service_spec, x, y, NULL, NULL);
    }
    json_decref(x);
    json_decref(y);
    return is;
}

/*
 * What a rollback will go back to. Docker keeps the spec before each update, so that to scale a service takes the way
 * back from it; here it goes on to be the version before, with as many replicas as the service has by now. Only where
 * there is no version before, the number of replicas is what can be taken back.
 */
static void put_previous(struct change *c, struct str doc, struct str spec, bool same_tasks, struct buf *b)
{
    struct str now = part(doc, "Spec"), previous = part(doc, "PreviousSpec");
    bool scaled = !c->rollback && same_tasks && same_but_replicas(spec, now);
    bool changed = scaled && !same(&obj_service_spec, spec, now);
    struct buf packed = BUF_INIT;
    struct err e = ERR_INIT;
    json_t *was = NULL, *is = NULL;

    if (scaled && previous.n > 0 && (!changed || !same_but_replicas(previous, now))) {
        was = unpack_spec(previous);
        is = unpack_spec(spec);
        set_replicas(was, replicas_of(is));
        bool ok = was && is && obj_pack(&obj_service_spec, was, &packed, &e) == 0;
        mp_kv_raw(b, "PreviousSpec", ok ? buf_str(&packed) : previous);
        mp_kv_str(b, "PreviousTaskSpecID", text_at(doc, "PreviousTaskSpecID"));
    } else {
        mp_kv_raw(b, "PreviousSpec", now);
        mp_kv_str(b, "PreviousTaskSpecID", text_at(doc, "TaskSpecID"));
    }
    json_decref(was);
    json_decref(is);
    buf_done(&packed);
}

/* keeps_status - an update begins anew, and so does one that was paused; to scale does not disturb one under way. */
static bool keeps_status(struct change *c, struct str doc, struct str spec, bool same_tasks)
{
    struct str state = text_at(doc, "UpdateStatus.State");

    return !c->rollback && same_tasks && (str_is(state, "updating") || str_is(state, "rollback_started")) &&
           same_but_replicas(spec, part(doc, "Spec"));
}

/* choose_taskspec - one that is there and says the same, or a new one. */
static struct str choose_taskspec(struct txn *t, struct store_snap *snap, struct change *c, struct str doc,
                                  struct str spec, struct buf *b)
{
    struct str id = str_from(c->id), now = text_at(doc, "TaskSpecID"), before = text_at(doc, "PreviousTaskSpecID");
    struct str credential = credential_of(snap, c->rollback || c->auth_previous ? before : now), found;

    if (c->auth.n > 0) {
        put_credential(t, c, b);
        credential = str_from(c->credential_id);
    }
    if (!find_taskspec(snap, id, c->rollback ? before : now, spec, credential, &found)) {
        put_taskspec(t, c, spec, id, credential, b);
        return str_from(c->taskspec_id);
    }
    found = arena_str(&t->arena, found);
    txn_require_exists(t, KIND_TASKSPEC, found);
    return found;
}

/* Writes the new spec, and a new taskspec when tasks must change. */
static void put_update(struct req *r, struct txn *t, struct store_snap *snap, struct str doc, struct str spec)
{
    struct change *c = r->data;
    struct str id = str_from(c->id);
    struct buf b = BUF_INIT;

    if (!c->rollback)
        take_ports(r, t, snap, c, &b);
    struct str taskspec = choose_taskspec(t, snap, c, doc, spec, &b);
    bool same_tasks = str_eq(taskspec, text_at(doc, "TaskSpecID"));
    bool keep_status = keeps_status(c, doc, spec, same_tasks);
    buf_clear(&b);
    mp_map(&b, 5 - keep_status + is_job(spec));
    mp_kv_raw(&b, "Spec", spec);
    put_previous(c, doc, spec, same_tasks, &b);
    if (is_job(spec))
        put_job(&b, spec, iteration_of(doc, "JobStatus.JobIteration.Index") + 1);
    mp_kv_str(&b, "TaskSpecID", taskspec);
    if (c->rollback && !is_job(spec)) {
        put_rollback_status(&b);
    } else if (!keep_status) {
        mp_cstr(&b, "UpdateStatus");
        mp_nil(&b);
    }
    txn_require_version(t, KIND_SERVICE, id, c->version);
    txn_update(t, KIND_SERVICE, id, txn_doc(t, &b));
    buf_done(&b);
}

/* check_previous - what a rollback goes back to may have used a network or a secret that is gone. */
static int check_previous(struct req *r, struct store_snap *snap, struct txn *t, struct str spec)
{
    struct err e = ERR_INIT;
    json_t *o = NULL;

    if (obj_unpack(&obj_service_spec, spec, &o, &e) < 0) {
        api_fail(r, &e);
        return -1;
    }
    int rc = check_references(r, snap, t, o);
    json_decref(o);
    return rc;
}

static int check_update(struct req *r, struct store_snap *snap, struct txn *t, struct str doc, struct change *c)
{
    const char *name = json_string_value(json_object_get(c->spec, "Name"));
    struct str mode = { NULL, 0 };
    char path[64];

    if (!str_is(text_at(doc, "Spec.Name"), name ? name : ""))
        return api_rpc_refuse(r, RPC_UNIMPLEMENTED, "renaming services is not supported");
    (void)snprintf(path, sizeof path, "Spec.Mode.%s", spec_mode(c->spec));
    if (!mp_path(doc, path, &mode))
        return api_rpc_refuse(r, RPC_UNIMPLEMENTED, "service mode change is not allowed");
    if ((c->rollback || c->auth_previous) && part(doc, "PreviousSpec").n == 0) {
        if (!c->rollback)
            return api_refuse(r, 500, "service does not have a previous spec");
        return api_rpc_refuse(r, RPC_PRECONDITION, "service %s does not have a previous spec", c->id);
    }
    if (c->rollback)
        return check_previous(r, snap, t, part(doc, "PreviousSpec"));
    return check_ports(r, snap, c) < 0 || check_references(r, snap, t, c->spec) < 0 ? -1 : 0;
}

static int attempt_update(struct req *r, struct txn *t, struct err *e)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct change *c = r->data;
    uint64_t version = 0;
    struct str doc;

    (void)e;
    if (api_snap(r, &snap, NULL) < 0)
        return -1;
    if (store_get(snap, KIND_SERVICE, str_from(c->id), &doc) < 0)
        return api_refuse(r, 404, "service " STR_FMT " not found", STR_ARG(r->params[0]));
    (void)mp_get_u64(doc, "Version.Index", &version);
    if (version != c->version) {
        /* An earlier try may have got through before its answer was lost. */
        if (r->write.uncertain &&
            same(&obj_service_spec, part(doc, "Spec"), buf_str(c->rollback ? &c->back_to : &c->packed)))
            return 0;
        return api_out_of_sequence(r);
    }
    if (check_update(r, snap, t, doc, c) < 0)
        return -1;
    struct str before = part(doc, "PreviousSpec");
    if (c->rollback) {
        buf_clear(&c->back_to);
        buf_put(&c->back_to, before.p, before.n);
    }
    put_update(r, t, snap, doc, c->rollback ? before : buf_str(&c->packed));
    return 1;
}

static void updated(struct req *r, uint64_t revision)
{
    (void)revision;
    buf_clear(&r->out);
    buf_puts(&r->out, "{\"Warnings\":null}\n");
    api_reply(r, 200);
}

static int read_update_query(struct req *r, struct change *c)
{
    struct str rollback = query_get(&r->query, "rollback"), from = query_get(&r->query, "registryAuthFrom");

    if (rollback.n > 0 && !str_is(rollback, "previous") && !str_is(rollback, "none"))
        return api_refuse(r, 500, "unrecognized rollback option " STR_FMT, STR_ARG(rollback));
    if (from.n > 0 && !str_is(from, "spec") && !str_is(from, "previous-spec"))
        return api_refuse(r, 500, "unsupported registryAuthFrom value");
    c->rollback = str_is(rollback, "previous");
    c->auth_previous = str_is(from, "previous-spec") && c->auth.n == 0;
    return 0;
}

void services_update(struct req *r)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct err e = ERR_INIT;
    uint64_t version;
    struct str id;

    if (query_version(&r->query, "service", &version, &e) < 0) {
        api_fail(r, &e);
        return;
    }
    if (api_snap(r, &snap, NULL) < 0)
        return;
    struct change *c = read_change(r);
    if (!c || read_update_query(r, c) < 0 || api_find(r, snap, KIND_SERVICE, r->params[0], &id, NULL) < 0)
        return;
    if (networks_resolve(r, snap, c->spec) < 0)
        return;
    c->version = version;
    if (!str_copy(c->id, sizeof c->id, id)) {
        api_error(r, 500, "service id is too long");
        return;
    }
    snap = store_end(snap);
    /* A missing name can only be a rename, which is refused below; obj_check must not speak first. */
    if (!json_object_get(c->spec, "Name")) {
        api_rpc_error(r, RPC_UNIMPLEMENTED, "renaming services is not supported");
        return;
    }
    if (pack_change(r, c) == 0)
        api_write(r, attempt_update, updated);
}

/* ---- remove ---- */

static int attempt_remove(struct req *r, struct txn *t, struct err *e)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    char *id = r->data;
    struct str doc;

    (void)e;
    if (api_snap(r, &snap, NULL) < 0)
        return -1;
    if (store_get(snap, KIND_SERVICE, str_from(id), &doc) < 0) {
        if (r->write.uncertain)
            return 0;
        return api_refuse(r, 404, "service " STR_FMT " not found", STR_ARG(r->params[0]));
    }
    txn_delete(t, KIND_SERVICE, str_from(id));
    return 1;
}

static void removed(struct req *r, uint64_t revision)
{
    (void)revision;
    api_reply_empty(r, 200);
}

void services_remove(struct req *r)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct str id;

    if (api_snap(r, &snap, NULL) < 0 || api_find(r, snap, KIND_SERVICE, r->params[0], &id, NULL) < 0)
        return;
    r->data = str_dup(id);
    r->free_data = free;
    snap = store_end(snap);
    api_write(r, attempt_remove, removed);
}
