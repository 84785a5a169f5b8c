/* /tasks. */
#include <stdio.h>

#include "apid/api_networks.h"
#include "apid/api_resources.h"
#include "common/object/stays.h"
#include "common/util/check.h"

void task_name(struct buf *out, struct store_snap *snap, struct str doc)
{
    struct str service, name = text_at(doc, "ServiceID");
    uint64_t slot = 0;

    if (store_get(snap, KIND_SERVICE, name, &service) == 0)
        name = text_at(service, "Spec.Name");
    buf_put(out, name.p, name.n);
    if (mp_get_u64(doc, "Slot", &slot) && slot > 0) {
        buf_printf(out, ".%llu", (unsigned long long)slot);
    } else {
        struct str node = text_at(doc, "NodeID");
        buf_printf(out, "." STR_FMT, STR_ARG(node));
    }
    struct str id = text_at(doc, "ID");
    buf_printf(out, "." STR_FMT, STR_ARG(id));
}

/* ---- as clients see a task ---- */

static const char *const task_ours[] = { "Rev",      "TaskSpecID", "StartNotBefore", "ReplacesID",
                                         "Restarts", "Attempts",   "Evict",          "Ports" };
#define NTASK_OURS (sizeof task_ours / sizeof *task_ours)

/* The spec comes from the taskspec, and Docker's clients crash without a ContainerSpec in it. */
static void put_spec(struct buf *b, struct store_snap *snap, struct str task)
{
    struct str taskspec, spec;

    mp_cstr(b, "Spec");
    if (store_get(snap, KIND_TASKSPEC, text_at(task, "TaskSpecID"), &taskspec) == 0 &&
        mp_find(taskspec, "Spec", &spec)) {
        mp_raw(b, spec);
        return;
    }
    mp_map(b, 1);
    mp_cstr(b, "ContainerSpec");
    mp_map(b, 0);
}

#define QUICK_RESTARTS 5u /* so many in a row wait only for the delay that the service asks for: orchestratord */

#define WHY_MAX 256u

/* back_off - why a task that is to replace one that keeps ending does nothing. */
static bool back_off(struct str doc, char why[WHY_MAX])
{
    char until[WALL_TEXT_MAX];
    uint64_t restarts = 0;
    int64_t at = 0;

    if (!mp_get_u64(doc, "Restarts", &restarts) || restarts <= QUICK_RESTARTS ||
        !str_is(text_at(doc, "DesiredState"), "ready") || !mp_get_i64(doc, "StartNotBefore", &at) ||
        at <= clock_wall().ns)
        return false;
    wall_format((struct wall_ns){ at }, until);
    (void)snprintf(why, WHY_MAX, "task ended %llu times in a row: the next one starts at %s",
                   (unsigned long long)restarts, until);
    return true;
}

/* put_reason - what is not the node's to say, in the status, where `docker service ps` shows it. */
static bool put_reason(struct buf *b, struct str doc)
{
    char why[WHY_MAX];
    struct buf patch = BUF_INIT;
    struct err e = ERR_INIT;
    struct str status, reason, said;

    if (mp_get_str(doc, "Status.Err", &said) || !mp_find(doc, "Status", &status))
        return false;
    if (mp_get_str(doc, "Evict.Reason", &reason)) /* schedulerd wanted it elsewhere */
        (void)snprintf(why, sizeof why, STR_FMT, STR_ARG(reason));
    else if (!back_off(doc, why))
        return false;
    mp_map(&patch, 1);
    mp_kv_cstr(&patch, "Err", why);
    mp_cstr(b, "Status");
    bool ok = mp_merge(b, status, buf_str(&patch), &e) == 0;
    buf_done(&patch);
    return ok;
}

static int emit_task(struct req *r, struct store_snap *snap, struct str doc, struct buf *patch)
{
    struct str attached;
    bool on_networks = mp_find(doc, "NetworksAttachments", &attached);

    struct buf status = BUF_INIT;
    bool reason = put_reason(&status, doc);

    buf_clear(patch);
    mp_map(patch, NTASK_OURS + 1 + on_networks + reason);
    if (reason)
        buf_put(patch, status.p, status.n);
    buf_done(&status);
    for (size_t i = 0; i < NTASK_OURS; i++) {
        mp_cstr(patch, task_ours[i]);
        mp_nil(patch);
    }
    put_spec(patch, snap, doc);
    if (on_networks) {
        mp_cstr(patch, "NetworksAttachments");
        if (!network_attachments(patch, snap, doc))
            mp_nil(patch);
    }
    return api_emit(r, &obj_task, doc, buf_str(patch));
}

/* ---- filters ---- */

struct task_query {
    struct filters f;
    struct store_snap *snap;
    struct str *services, *nodes; /* resolved */
    size_t nservices, nnodes;
    bool up_to_date, want_fresh;
};

static int resolve_all(struct req *r, struct task_query *q, const char *key, enum kind kind, struct str **ret,
                       size_t *ret_n)
{
    const struct filter *x = filters_get(&q->f, key);

    *ret_n = x ? x->n : 0;
    *ret = x ? arena_array(&r->arena, x->n, sizeof **ret) : NULL;
    for (size_t i = 0; i < *ret_n; i++) {
        struct str id;
        if (!*ret || api_find(r, q->snap, kind, x->vals[i], &id, NULL) < 0)
            return -1;
        (*ret)[i] = arena_str(&r->arena, id);
    }
    return 0;
}

static int check_states(struct req *r, struct task_query *q)
{
    static const char *const states[] = { "new",      "allocated", "pending",  "assigned", "accepted", "preparing",
                                          "ready",    "starting",  "running",  "complete", "shutdown", "failed",
                                          "rejected", "remove",    "orphaned", NULL };
    const struct filter *x = filters_get(&q->f, "desired-state");

    for (size_t i = 0; x && i < x->n; i++) {
        size_t k = 0;
        while (states[k] && !str_is(x->vals[i], states[k]))
            k++;
        if (!states[k])
            return api_refuse(r, 500, "Invalid desired-state filter: '" STR_FMT "'", STR_ARG(x->vals[i]));
    }
    x = filters_get(&q->f, "_up-to-date");
    q->up_to_date = x != NULL;
    q->want_fresh = x && (str_is(x->vals[0], "true") || str_is(x->vals[0], "1"));
    return 0;
}

static bool in_set(struct str v, const struct str *set, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(v, set[i]))
            return true;
    return n == 0;
}

/* is_fresh - as orchestratord sees it: an update does not replace it. */
static bool is_fresh(const struct task_query *q, struct str task, struct str service)
{
    struct str was = { NULL, 0 }, now = { NULL, 0 }, node = { NULL, 0 };
    struct view_service s;
    struct view_task t;
    struct view_node n;
    struct arena a;
    struct err e;
    bool stays = false;

    if (str_eq(text_at(task, "TaskSpecID"), text_at(service, "TaskSpecID")))
        return true;
    if (store_get(q->snap, KIND_TASKSPEC, text_at(task, "TaskSpecID"), &was) < 0 ||
        store_get(q->snap, KIND_TASKSPEC, text_at(service, "TaskSpecID"), &now) < 0)
        return false;
    struct spec_change c = spec_change(was, now);
    if (c.tasks)
        return false;
    arena_init(&a, 4u << 20);
    if (view_service(service, &s, &a, &e) == 0 && view_task(task, &t, &a, &e) == 0) {
        bool there =
            t.NodeID.n > 0 && store_get(q->snap, KIND_NODE, t.NodeID, &node) == 0 && view_node(node, &n, &a, &e) == 0;
        stays = task_stays(&c, task_state_parse(t.Status.State), task_state_parse(t.DesiredState),
                           &s.Spec.TaskTemplate.Placement, there ? &n : NULL);
    }
    arena_done(&a);
    return stays;
}

static bool service_allows(const struct task_query *q, struct str task)
{
    bool labels = filters_get(&q->f, "label") != NULL;
    struct str service = { NULL, 0 }, map = { NULL, 0 };

    if (!labels && !q->up_to_date)
        return true;
    if (store_get(q->snap, KIND_SERVICE, text_at(task, "ServiceID"), &service) < 0)
        return false;
    (void)mp_path(service, "Spec.Labels", &map);
    if (!filters_labels(&q->f, "label", map))
        return false;
    return !q->up_to_date || is_fresh(q, task, service) == q->want_fresh;
}

static bool task_matches(const struct task_query *q, struct str id, struct str doc, struct buf *scratch)
{
    if (!filters_prefix(&q->f, "id", id) || !filters_exact(&q->f, "desired-state", text_at(doc, "DesiredState")) ||
        !in_set(text_at(doc, "ServiceID"), q->services, q->nservices) ||
        !in_set(text_at(doc, "NodeID"), q->nodes, q->nnodes) || !filters_exact(&q->f, "runtime", STR("container")) ||
        !service_allows(q, doc))
        return false;
    if (!filters_get(&q->f, "name"))
        return true;
    buf_clear(scratch);
    task_name(scratch, q->snap, doc);
    return filters_prefix(&q->f, "name", buf_str(scratch));
}

/* ---- handlers ---- */

struct task_out {
    struct buf patch, scratch;
    bool any;
};

static bool list_some(struct req *r, struct task_query *q, struct store_iter *it, struct task_out *out)
{
    while (store_next(it)) {
        if (!task_matches(q, it->id, it->doc, &out->scratch))
            continue;
        if (out->any)
            buf_putc(&r->out, ',');
        out->any = true;
        if (emit_task(r, q->snap, it->doc, &out->patch) < 0) {
            store_iter_done(it);
            return false;
        }
    }
    return true;
}

/* The narrowest index first: by service, by node, or everything. */
static bool list_tasks(struct req *r, struct task_query *q, struct task_out *out)
{
    bool by_service = q->nservices > 0;
    size_t n = by_service ? q->nservices : q->nnodes;
    struct store_iter it;

    if (n == 0) {
        store_each(q->snap, KIND_TASK, &it);
        return list_some(r, q, &it, out);
    }
    for (size_t i = 0; i < n; i++) {
        struct str key = by_service ? q->services[i] : q->nodes[i];
        if (in_set(key, by_service ? q->services : q->nodes, i) && i > 0)
            continue; /* two values named the same object */
        store_each_index(q->snap, by_service ? IX_TASK_SERVICE : IX_TASK_NODE, key, &it);
        if (!list_some(r, q, &it, out))
            return false;
    }
    return true;
}

void tasks_list(struct req *r)
{
    static const char *const known[] = { "id",          "name",    "label", "service", "node", "desired-state",
                                         "_up-to-date", "runtime", NULL };
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct task_query *q = arena_alloc(&r->arena, sizeof *q);
    struct task_out out = { .patch = BUF_INIT, .scratch = BUF_INIT };

    CHECK(q);
    if (api_snap(r, &snap, NULL) < 0)
        return;
    q->snap = snap;
    if (api_filters(r, &q->f, known) < 0 || check_states(r, q) < 0 ||
        resolve_all(r, q, "service", KIND_SERVICE, &q->services, &q->nservices) < 0 ||
        resolve_all(r, q, "node", KIND_NODE, &q->nodes, &q->nnodes) < 0)
        return;
    buf_putc(&r->out, '[');
    bool ok = list_tasks(r, q, &out);
    buf_done(&out.patch);
    buf_done(&out.scratch);
    if (!ok)
        return;
    buf_puts(&r->out, "]\n");
    api_reply(r, 200);
}

void tasks_inspect(struct req *r)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct buf patch = BUF_INIT;
    struct str doc;

    if (api_snap(r, &snap, NULL) < 0 || api_find(r, snap, KIND_TASK, r->params[0], NULL, &doc) < 0)
        return;
    if (emit_task(r, snap, doc, &patch) == 0) {
        buf_putc(&r->out, '\n');
        api_reply(r, 200);
    }
    buf_done(&patch);
}
