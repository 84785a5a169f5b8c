/*
 * /services/{id}/logs and /tasks/{id}/logs: one stream out of the logs of many tasks.
 *
 * Each task is polled at the agent of its node, page by page; a follower polls long. Lines of one task keep their
 * order, those of several come as they arrive, as with Docker. When the client reads slowly, polling pauses. A node
 * that cannot be reached costs a bounded time, once, and none of the others': what is missing is said at the end. A
 * follower keeps trying.
 */
#include <stdio.h>

#include "apid/api_frame.h"
#include "apid/api_resources.h"
#include "common/proto/msg_agentd.h"
#include "common/util/check.h"
#include "common/util/id.h"
#include "common/util/table.h"

#define POLLS_MAX 32u /* at agentd for one stream */
#define POLL_WAIT_MS 20000u
#define POLL_WAIT_CROWDED_MS 300u /* more tasks than polls: take turns */
#define POLL_GRACE_MS 10000u
#define RETRY_MS 200u
#define RETRY_FAR_MS 1000u
#define NODE_POLLS_MAX 8u /* of POLLS_MAX, at one node, when nobody follows */
#define SCAN_TASKS_MS 20u /* so many tasks are worth a millisecond's pause between two looks at the store */
#define MISSING_MAX 4096u /* bytes of reasons */

struct log_task {
    char id[ID_SIZE], node[ID_SIZE];
    struct buf cursor, details;
    uint64_t rev; /* of the task when it was last polled */
    bool polling, ended, here;
    bool asked; /* where its log ended when the client came is known, or on its way */
    bool late;  /* it came after the client did */
    bool over;  /* by the store */
    bool idle;  /* nothing there yet: look again when the task changes */
    struct log_node *at;
    uint64_t scan; /* when it was last seen in the store */
};

struct log_node {
    size_t polling;
    bool away;              /* it was out of reach: one poll at a time finds out whether it still is */
    uint64_t not_before_ms; /* when to try again */
};

struct logs {
    struct log_style style;
    struct agent_logs want; /* what every poll asks for */
    bool follow;
    bool local;                           /* a container of this node: the store is not looked at, workers have none */
    struct buf missing;                   /* why some lines are not there, as Docker lists it */
    char service[ID_SIZE], task[ID_SIZE]; /* one of them */
    struct log_task *tasks;
    size_t n, cap, polling, turn;
    struct table index; /* task ID -> size_t, its place */
    struct table nodes; /* node ID -> struct log_node */
    uint64_t revision, scan, scan_ms;
    bool alive; /* as of the last look at the store */
};

static void logs_free(void *p)
{
    struct logs *l = p;

    for (size_t i = 0; i < l->n; i++) {
        buf_done(&l->tasks[i].cursor);
        buf_done(&l->tasks[i].details);
    }
    free(l->tasks);
    table_done(&l->index);
    table_done(&l->nodes);
    buf_done(&l->missing);
    free(l);
}

static struct log_task *find_task(struct logs *l, struct str id)
{
    const size_t *at = table_get(&l->index, id);

    return at ? &l->tasks[*at] : NULL;
}

/* add_task - one more; its id and node are copied. */
static struct log_task *add_task(struct logs *l, struct str id, struct str node, bool here)
{
    struct log_task t = { .here = here };

    if (!str_copy(t.id, sizeof t.id, id) || !str_copy(t.node, sizeof t.node, node))
        return NULL;
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 8;
        l->tasks = reallocarray(l->tasks, l->cap, sizeof *l->tasks);
        CHECK(l->tasks);
    }
    t.at = table_put(&l->nodes, node, NULL);
    l->tasks[l->n] = t;
    *(size_t *)table_put(&l->index, id, NULL) = l->n;
    return &l->tasks[l->n++];
}

static bool is_over(struct str doc)
{
    return task_state_parse(text_at(doc, "Status.State")) >= TASK_COMPLETE;
}

/* ---- which tasks ---- */

/* Docker's words, each once. */
static void note_missing(struct logs *l, const char *what, const char *id, const char *why)
{
    char text[ID_SIZE + 64];

    (void)snprintf(text, sizeof text, "%s %s %s", what, id, why);
    if (l->missing.n > MISSING_MAX || (l->missing.n > 0 && strstr(buf_cstr(&l->missing), text)))
        return;
    buf_puts(&l->missing, l->missing.n ? ", " : "");
    buf_puts(&l->missing, text);
}

static bool node_is_down(struct store_snap *snap, struct str id)
{
    struct str doc;

    return store_get(snap, KIND_NODE, id, &doc) < 0 || str_is(text_at(doc, "Status.State"), "down");
}

static void note_node(struct logs *l, const struct log_task *t)
{
    note_missing(l, "node", t->node, "is not available");
}

static void see_task(struct logs *l, struct store_snap *snap, struct str id, struct str doc, struct str this_node)
{
    struct log_task *t = find_task(l, id);
    struct str node = text_at(doc, "NodeID");
    uint64_t rev = 0;

    (void)mp_get_u64(doc, "Rev", &rev);
    if (t) {
        t->idle = t->idle && t->rev == rev;
        t->rev = rev;
        t->over = is_over(doc);
        t->scan = l->scan;
        return;
    }
    if (node.n == 0) { /* not placed yet */
        char name[ID_SIZE];
        if (!l->follow && task_state_parse(text_at(doc, "DesiredState")) <= TASK_COMPLETE &&
            str_copy(name, sizeof name, id))
            note_missing(l, "task", name, "has not been scheduled");
        return;
    }
    if (!(t = add_task(l, id, node, str_eq(node, this_node))))
        return;
    t->late = l->scan > 1;
    t->rev = rev;
    t->over = is_over(doc);
    t->scan = l->scan;
    if (l->style.details) {
        struct str spec = { NULL, 0 }, template;
        if (store_get(snap, KIND_TASKSPEC, text_at(doc, "TaskSpecID"), &template) == 0)
            (void)mp_find(template, "Spec", &spec);
        log_details(&t->details, spec, node, text_at(doc, "ServiceID"), id);
    }
    if (!l->follow && !t->here && node_is_down(snap, node)) {
        note_node(l, t);
        t->ended = true;
    }
}

/* Those that the store has no more: what is left of their logs is read, and that is all. */
static void forget_gone(struct logs *l)
{
    for (size_t i = 0; i < l->n; i++) {
        struct log_task *t = &l->tasks[i];
        if (t->scan == l->scan)
            continue;
        t->over = true;
        t->ended |= t->idle && !t->polling;
    }
}

/* look - false when what is asked for is not there. */
static bool look(struct logs *l, struct store_snap *snap, struct str this_node)
{
    struct store_iter it;
    struct str doc;

    if (l->task[0]) {
        if (store_get(snap, KIND_TASK, str_from(l->task), &doc) < 0)
            return false;
        see_task(l, snap, str_from(l->task), doc, this_node);
        return !is_over(doc) || l->n > 0;
    }
    for (store_each_index(snap, IX_TASK_SERVICE, str_from(l->service), &it); store_next(&it);)
        see_task(l, snap, it.id, it.doc, this_node);
    return store_get(snap, KIND_SERVICE, str_from(l->service), &doc) == 0;
}

/*
 * Looks at the store, where something has changed since the last time; false when what is followed is gone.
 *
 * @ret_again_ms  too early for that: then
 */
static bool rescan(struct logs *l, uint64_t now_ms, uint64_t *ret_again_ms)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct err e = ERR_INIT;
    struct store_meta meta;

    if (l->local)
        return true;
    if (store_begin(api.store, &snap, &e) < 0 || store_meta(snap, &meta, &e) < 0)
        return true; /* raftd restarts: later */
    if (l->scan > 0 && (!l->follow || l->revision == meta.revision))
        return l->alive;
    if (l->scan > 0 && now_ms < l->scan_ms + l->n / SCAN_TASKS_MS) {
        *ret_again_ms = l->scan_ms + l->n / SCAN_TASKS_MS;
        return l->alive;
    }
    l->revision = meta.revision;
    l->scan_ms = now_ms;
    l->scan++;
    l->alive = look(l, snap, meta.node_id);
    forget_gone(l);
    return l->alive;
}

/* ---- polling ---- */

struct poll {
    struct req *r;
    char task[ID_SIZE];
};

static void pump(struct req *r);

static void take_lines(struct req *r, struct log_task *t, const struct agent_logs_reply *x)
{
    struct logs *l = r->data;

    for (size_t i = 0; i < x->Lines.n; i++) {
        const struct agent_log_line *line = &((const struct agent_log_line *)x->Lines.v)[i];
        struct log_line out = { .stream = line->Stream == 2 ? 2 : 1,
                                .time_ns = line->Time,
                                .data = line->Data,
                                .details = buf_str(&t->details) };
        log_frame_put(&r->out, &l->style, &out);
    }
    buf_clear(&t->cursor);
    buf_put(&t->cursor, x->Cursor.p, x->Cursor.n);
    if (x->End || (!l->follow && x->Lines.n == 0))
        t->ended = true;
    if (x->Lines.n > 0)
        api_stream_push(r);
}

static void pump_timer(void *arg)
{
    pump(arg);
}

static void take_error(struct req *r, struct log_task *t, const struct err *e)
{
    struct logs *l = r->data;
    bool away = e->code == ERR_UNAVAILABLE || e->code == ERR_TIMEOUT;

    if (away) {
        t->at->away = true;
        t->at->not_before_ms = clock_mono().ms + (t->here ? RETRY_MS : RETRY_FAR_MS);
    }
    if (e->code == ERR_NOT_FOUND) {
        t->ended = !l->follow || l->local || t->over;
        t->idle = !t->ended;
    } else if (l->follow && away && !t->over) { /* agentd restarts, or its node is cut off */
        /* later */
    } else if (l->follow) {
        t->ended = true;
    } else {
        if (!away)
            log_warn("logs of task=%s node=%s: %s", t->id, t->node, e->msg);
        note_node(l, t);
        t->ended = true;
    }
}

static void polled(void *arg, const void *rep, const struct err *e)
{
    struct poll p = *(struct poll *)arg;
    struct req *r = p.r;

    free(arg);
    if (!r->gone && !r->answered) {
        struct logs *l = r->data;
        struct log_task *t = find_task(l, str_from(p.task));
        CHECK(t && t->polling);
        t->polling = false;
        t->at->polling--;
        l->polling--;
        t->at->away &= e->code == ERR_UNAVAILABLE || e->code == ERR_TIMEOUT;
        if (e->code == 0)
            take_lines(r, t, rep);
        else
            take_error(r, t, e);
        pump(r);
    }
    req_unref(r);
}

static void poll_task(struct req *r, struct log_task *t, bool crowded)
{
    struct logs *l = r->data;
    struct agent_logs in = l->want;
    struct poll *p = calloc(1, sizeof *p);

    CHECK(p);
    p->r = req_ref(r);
    memcpy(p->task, t->id, sizeof p->task);
    in.TaskID = str_from(t->id);
    in.Cursor = buf_str(&t->cursor);
    in.WaitMs = !l->follow || (crowded && !t->asked) ? 0 : crowded ? POLL_WAIT_CROWDED_MS : POLL_WAIT_MS;
    if (t->late) /* it began while somebody followed: there is no "last lines" of before */
        in.Tail = -1;
    t->asked = true;
    if (l->follow && l->want.Until) {
        int64_t left = (l->want.Until - clock_wall().ns) / 1000000 + 1;
        in.WaitMs = left < 1 ? 1 : (uint64_t)left < in.WaitMs ? (uint64_t)left : in.WaitMs;
    }
    t->polling = true;
    t->at->polling++;
    l->polling++;
    if (t->here)
        rpc_send(api.agentd, &op_agent_logs, &in, (unsigned)in.WaitMs + POLL_GRACE_MS, polled, p);
    else
        rpc_send_via(api.gatewayd, str_from(t->node), "agentd", &op_agent_logs, &in,
                     (unsigned)in.WaitMs + API_AGENT_DEADLINE_MS, polled, p);
}

static size_t open_tasks(const struct logs *l)
{
    size_t n = 0;

    for (size_t i = 0; i < l->n; i++)
        n += !l->tasks[i].ended;
    return n;
}

static void end_stream(struct req *r)
{
    static const char head[] = "Error grabbing logs: rpc error: code = Unknown desc = warning: incomplete log stream. "
                               "some logs could not be retrieved for the following reasons: ";
    struct logs *l = r->data;
    struct log_style plain = { .tty = l->style.tty };
    struct buf text = BUF_INIT;

    if (l->missing.n > 0) {
        buf_puts(&text, head);
        buf_put(&text, l->missing.p, l->missing.n);
        buf_putc(&text, '\n');
        struct log_line out = { .stream = 3, .time_ns = clock_wall().ns, .data = buf_str(&text) };
        log_frame_put(&r->out, &plain, &out);
        buf_done(&text);
    }
    api_stream_end(r);
}

/* may_poll - not_before_ms of a node that is out of reach goes to *again. */
static bool may_poll(struct logs *l, struct log_task *t, uint64_t now, uint64_t *again)
{
    struct log_node *at = t->at;

    if (t->ended || t->polling || t->idle)
        return false;
    if (!l->follow && at->away) { /* it was asked, and waited for, once */
        note_node(l, t);
        t->ended = true;
        return false;
    }
    if (at->away && (at->polling > 0 || at->not_before_ms > now)) {
        if (at->polling == 0 && at->not_before_ms < *again)
            *again = at->not_before_ms;
        return false;
    }
    return l->follow || at->polling < NODE_POLLS_MAX;
}

/* follow_until - a follower's time may be over, too: then what is there is read, and no more. */
static void follow_until(struct logs *l, uint64_t now, uint64_t *again)
{
    int64_t left = l->want.Until - clock_wall().ns;

    if (!l->follow || l->want.Until == 0)
        return;
    if (left <= 0)
        l->follow = false;
    else if (now + (uint64_t)left / 1000000 + 1 < *again)
        *again = now + (uint64_t)left / 1000000 + 1;
}

static void pump(struct req *r)
{
    struct logs *l = r->data;
    uint64_t now = clock_mono().ms, again = UINT64_MAX;

    if (r->answered)
        return;
    follow_until(l, now, &again);
    bool alive = rescan(l, now, &again);
    size_t left = open_tasks(l);
    for (size_t i = 0; i < l->n && l->polling < POLLS_MAX; i++) {
        struct log_task *t = &l->tasks[(l->turn + i) % l->n];
        if (api_stream_waiting(r) >= API_STREAM_WINDOW)
            break;
        if (may_poll(l, t, now, &again))
            poll_task(r, t, left > POLLS_MAX);
    }
    l->turn = l->n ? (l->turn + 1) % l->n : 0;
    left = open_tasks(l);
    if (left == 0 && (!l->follow || !alive || (l->task[0] && l->n > 0))) {
        end_stream(r);
        return;
    }
    api_timer(r, again, pump_timer);
}

static void on_store(struct req *r, bool timed_out)
{
    (void)timed_out;
    pump(r);
}

/* ---- handlers ---- */

static bool is_tty(struct store_snap *snap, struct str taskspec_id)
{
    struct str doc;
    bool tty = false;

    if (store_get(snap, KIND_TASKSPEC, taskspec_id, &doc) == 0)
        (void)mp_get_bool(doc, "Spec.ContainerSpec.TTY", &tty);
    return tty;
}

static int read_query(struct req *r, struct logs *l)
{
    const struct query *q = &r->query;
    struct err e = ERR_INIT;
    bool set;

    l->want.Stdout = query_loose(q, "stdout");
    l->want.Stderr = query_loose(q, "stderr");
    l->follow = query_loose(q, "follow");
    l->style.timestamps = query_loose(q, "timestamps");
    l->style.details = query_loose(q, "details");
    if (!l->want.Stdout && !l->want.Stderr)
        return api_refuse(r, 400, "must specify at least one of 'stdout' or 'stderr'");
    if (query_tail(q, &l->want.Tail, &e) < 0)
        return api_refuse(r, 400, "%s", e.msg);
    if (query_time(q, "since", &l->want.Since, &set, &e) < 0 || query_time(q, "until", &l->want.Until, &set, &e) < 0) {
        api_fail(r, &e);
        return -1;
    }
    return 0;
}

static struct logs *logs_new(struct req *r)
{
    struct logs *l = calloc(1, sizeof *l);

    CHECK(l);
    table_init(&l->index, sizeof(size_t));
    table_init(&l->nodes, sizeof(struct log_node));
    r->data = l;
    r->free_data = logs_free;
    return read_query(r, l) < 0 ? NULL : l;
}

static void start(struct req *r)
{
    struct logs *l = r->data;
    const char *type = l->style.tty || r->version < 142 ? "application/vnd.docker.raw-stream"
                                                        : "application/vnd.docker.multiplexed-stream";

    api_stream(r, 200, type);
    r->on_drain = pump;
    if (l->follow)
        api_wait(r, on_store, UINT64_MAX);
    pump(r);
}

void service_logs(struct req *r)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct logs *l;
    struct str id, doc;

    if (api_snap(r, &snap, NULL) < 0 || !(l = logs_new(r)) ||
        api_find(r, snap, KIND_SERVICE, r->params[0], &id, &doc) < 0)
        return;
    if (!str_copy(l->service, sizeof l->service, id)) {
        api_error(r, 500, "service id is too long");
        return;
    }
    l->style.tty = is_tty(snap, text_at(doc, "TaskSpecID"));
    snap = store_end(snap);
    start(r);
}

void task_logs(struct req *r)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct logs *l;
    struct str id, doc;

    if (api_snap(r, &snap, NULL) < 0 || !(l = logs_new(r)) || api_find(r, snap, KIND_TASK, r->params[0], &id, &doc) < 0)
        return;
    if (!str_copy(l->task, sizeof l->task, id)) {
        api_error(r, 500, "task id is too long");
        return;
    }
    l->style.tty = is_tty(snap, text_at(doc, "TaskSpecID"));
    snap = store_end(snap);
    start(r);
}

void container_logs(struct req *r, struct str task, bool tty)
{
    struct logs *l;

    if (!(l = logs_new(r)) || !str_copy(l->task, sizeof l->task, task) || !add_task(l, task, STR(""), true))
        return;
    l->local = true;
    l->style.tty = tty;
    start(r);
}
