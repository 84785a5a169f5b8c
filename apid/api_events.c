/*
 * /events: what changed in the store, as Docker's managers tell it, and what happened to this node's images.
 *
 * The last 256 events are kept for `since`. A listener has a place in the sequence and takes its events from the ring
 * when its client reads; one that falls more than the ring behind loses the oldest. Changes are told against a small
 * mirror of what each object was, so several changes between two looks become one event.
 */
#include <stdio.h>
#include <strings.h>

#include "apid/api_local.h"
#include "apid/api_reach.h"
#include "apid/api_resources.h"
#include "common/proto/msg_agentd.h"
#include "common/util/check.h"
#include "common/util/table.h"

#define RING 256u

struct attr {
    char *key, *val;
};
#define ATTRS_MAX 10
struct event {
    uint64_t seq; /* from 1; 0: empty */
    const char *type, *scope;
    char action[64];
    char *id, *name, *text; /* text: one JSON line; NULL: without attributes, and nobody has asked for it yet */
    int64_t time_ns;
};

/* What an object was when it was last told about. */
struct mirror {
    char *v[5], *name; /* attributes that are compared, by mirror_keys[] */
};

struct listener {
    struct req *r;
    struct listener *next, **pprev;
    struct filters f;
    uint64_t next_seq;
    int64_t since_ns, until_ns;
    bool has_until;
};

static struct {
    struct event ring[RING];
    uint64_t last_seq, revision;
    bool primed; /* mirrors are filled in; before that nothing is an event */
    struct table services, nodes;
    char leader[72]; /* who led at the last look; empty: nobody known yet */
    struct listener *listeners;
    bool inited;
} ev;

static const struct watched {
    enum kind kind;
    const char *type;
    const char *keys[5], *paths[5];
} watched[] = {
    { KIND_SERVICE,
      "service",
      { "image", "replicas", "updatestate", NULL, NULL },
      { "Spec.TaskTemplate.ContainerSpec.Image", "Spec.Mode.Replicated.Replicas", "UpdateStatus.State", NULL, NULL } },
    { KIND_NODE,
      "node",
      { "availability", "role", "state", NULL, NULL },
      { "Spec.Availability", "Spec.Role", "Status.State", NULL, NULL } },
    { KIND_SECRET, "secret", { NULL }, { NULL } },
    { KIND_CONFIG, "config", { NULL }, { NULL } },
    { KIND_NETWORK, "network", { NULL }, { NULL } },
};
#define NWATCHED (sizeof watched / sizeof *watched)
static struct table mirrors[NWATCHED];

/* ---- the ring ---- */

static void event_clear(struct event *e)
{
    free(e->id);
    free(e->name);
    free(e->text);
    *e = (struct event){ 0 };
}

static void feed(struct listener *l);

static char *event_text(const struct event *e, const struct attr *attrs, size_t n)
{
    struct buf b = BUF_INIT;
    buf_putc(&b, '{');
    if (strcmp(e->scope, "local") == 0) { /* older clients read these */
        buf_printf(&b, "\"status\":\"%s\",\"id\":", e->action);
        buf_json_str(&b, str_from(e->id));
        if (n > 0 && strcmp(attrs[0].key, "image") == 0) {
            buf_puts(&b, ",\"from\":");
            buf_json_str(&b, str_from(attrs[0].val));
        }
        buf_putc(&b, ',');
    }
    buf_printf(&b, "\"Type\":\"%s\",\"Action\":\"%s\",\"Actor\":{\"ID\":", e->type, e->action);
    buf_json_str(&b, str_from(e->id));
    buf_puts(&b, ",\"Attributes\":{");
    for (size_t i = 0; i < n; i++) {
        buf_puts(&b, i ? "," : "");
        buf_json_str(&b, str_from(attrs[i].key));
        buf_putc(&b, ':');
        buf_json_str(&b, str_from(attrs[i].val));
    }
    buf_puts(&b, n ? ",\"name\":" : "\"name\":");
    buf_json_str(&b, str_from(e->name));
    buf_printf(&b, "}},\"scope\":\"%s\",\"time\":%lld,\"timeNano\":%lld}\n", e->scope,
               (long long)(e->time_ns / 1000000000), (long long)e->time_ns);
    char *text = str_dup(buf_str(&b));
    buf_done(&b);
    return text;
}

static void emit_at(int64_t time_ns, const char *type, const char *scope, const char *action, struct str id,
                    struct str name, const struct attr *attrs, size_t n)
{
    struct event *e = &ev.ring[(ev.last_seq + 1) % RING];

    event_clear(e);
    e->seq = ++ev.last_seq;
    e->type = type;
    e->scope = scope;
    (void)str_copy(e->action, sizeof e->action, str_from(action));
    e->id = str_dup(id);
    e->name = str_dup(name);
    e->time_ns = time_ns;
    if (n > 0)
        e->text = event_text(e, attrs, n);
}

static void emit(const char *type, const char *scope, const char *action, struct str id, struct str name,
                 const struct attr *attrs, size_t n)
{
    emit_at(clock_wall().ns, type, scope, action, id, name, attrs, n);
}

static void feed_all(void)
{
    struct listener *next;

    for (struct listener *l = ev.listeners; l; l = next) {
        next = l->next;
        feed(l);
    }
}

void events_image(const char *action, struct str id, struct str name)
{
    emit("image", "local", action, id, name, NULL, 0);
    feed_all();
}

void events_container(const struct agent_event_item *x)
{
    char code[24], action[64];
    char *own[] = { str_dup(x->Image),       str_dup(x->NodeID), str_dup(x->ServiceID),
                    str_dup(x->ServiceName), str_dup(x->TaskID), str_dup(x->Name) };
    struct attr attrs[ATTRS_MAX] = { { "image", own[0] },
                                     { "com.docker.swarm.node.id", own[1] },
                                     { "com.docker.swarm.service.id", own[2] },
                                     { "com.docker.swarm.service.name", own[3] },
                                     { "com.docker.swarm.task", "" },
                                     { "com.docker.swarm.task.id", own[4] },
                                     { "com.docker.swarm.task.name", own[5] },
                                     { "exitCode", code } };

    (void)snprintf(code, sizeof code, "%lld", (long long)x->ExitCode);
    if (str_copy(action, sizeof action, x->Action))
        emit_at(x->Time, "container", "local", action, x->ContainerID, x->Name, attrs, 7 + str_is(x->Action, "die"));
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        free(own[i]);
    feed_all();
}

/* ---- the mirrors ---- */

static void mirror_clear(struct mirror *m)
{
    for (size_t i = 0; i < 5; i++)
        free(m->v[i]);
    free(m->name);
    *m = (struct mirror){ 0 };
}

static char *scalar(struct str doc, const char *path)
{
    struct str s;
    uint64_t n;
    char text[24];

    if (!path)
        return NULL;
    if (mp_get_str(doc, path, &s))
        return s.n > 0 ? str_dup(s) : NULL;
    if (!mp_get_u64(doc, path, &n))
        return NULL;
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)n);
    return str_dup(str_from(text));
}

static void mirror_read(const struct watched *w, struct str doc, struct mirror *m)
{
    m->name = scalar(doc, w->kind == KIND_NODE ? "Description.Hostname" : "Spec.Name");
    if (!m->name)
        m->name = str_dup(STR(""));
    for (size_t i = 0; i < 5 && w->paths[i]; i++)
        m->v[i] = scalar(doc, w->paths[i]);
}

static bool differs(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") != 0;
}

static void tell_update(const struct watched *w, struct str id, const struct mirror *old, const struct mirror *new)
{
    char keys[ATTRS_MAX][32];
    struct attr attrs[ATTRS_MAX];
    size_t n = 0;

    for (size_t i = 0; i < 5 && w->keys[i]; i++) {
        if (!differs(old->v[i], new->v[i]) || !new->v[i])
            continue;
        (void)snprintf(keys[n], sizeof keys[n], "%s.new", w->keys[i]);
        attrs[n] = (struct attr){ keys[n], new->v[i] };
        n++;
        if (!old->v[i])
            continue;
        (void)snprintf(keys[n], sizeof keys[n], "%s.old", w->keys[i]);
        attrs[n] = (struct attr){ keys[n], old->v[i] };
        n++;
    }
    emit(w->type, "swarm", "update", id, str_from(new->name), attrs, n);
}

static void look(size_t k, struct store_snap *snap, struct str id, bool quiet)
{
    const struct watched *w = &watched[k];
    struct mirror *m = table_get(&mirrors[k], id), now = { 0 };
    struct str doc;
    bool is_new;

    if (store_get(snap, w->kind, id, &doc) < 0) {
        if (!m)
            return;
        if (!quiet)
            emit(w->type, "swarm", "remove", id, str_from(m->name), NULL, 0);
        mirror_clear(m);
        (void)table_del(&mirrors[k], id);
        return;
    }
    mirror_read(w, doc, &now);
    if (!quiet && !m)
        emit(w->type, "swarm", "create", id, str_from(now.name), NULL, 0);
    else if (!quiet)
        tell_update(w, id, m, &now);
    if (!m)
        m = table_put(&mirrors[k], id, &is_new);
    else
        mirror_clear(m);
    *m = now;
}

/* What was touched since the last look: each object once, in the order of its first change. */
struct turn {
    struct table seen; /* "<watched> <id>" */
    const char **order;
    size_t n, cap;
};

static void on_change(void *arg, uint64_t revision, enum kind kind, struct str id, char op)
{
    struct turn *t = arg;
    char key[160];
    bool is_new;
    size_t k = 0;

    (void)revision, (void)op;
    while (k < NWATCHED && watched[k].kind != kind)
        k++;
    if (k == NWATCHED) /* tasks are most of what changes */
        return;
    int n = snprintf(key, sizeof key, "%zu " STR_FMT, k, STR_ARG(id));
    if (n < 0 || (size_t)n >= sizeof key)
        return;
    struct str text = { key, (size_t)n };
    (void)table_put(&t->seen, text, &is_new);
    if (!is_new)
        return;
    if (t->n == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 16;
        t->order = reallocarray(t->order, t->cap, sizeof *t->order);
        CHECK(t->order);
    }
    t->order[t->n++] = str_dup(text);
}

static void tell_turn(struct turn *t, struct store_snap *snap, bool quiet)
{
    for (size_t i = 0; i < t->n; i++) {
        if (watched[t->order[i][0] - '0'].kind == KIND_NODE)
            reach_soon();
        if (!quiet)
            look((size_t)(t->order[i][0] - '0'), snap, str_from(t->order[i] + 2), false);
        free((void *)t->order[i]);
    }
    free(t->order);
    table_done(&t->seen);
}

static void forget(void)
{
    for (size_t k = 0; k < NWATCHED; k++) {
        struct table_pos p = { 0 };
        struct mirror *m;
        while (table_next(&mirrors[k], &p, NULL, &m))
            mirror_clear(m);
        table_clear(&mirrors[k]);
    }
}

static void prime(struct store_snap *snap)
{
    forget();
    for (size_t k = 0; k < NWATCHED; k++) {
        struct store_iter it;
        for (store_each(snap, watched[k].kind, &it); store_next(&it);)
            look(k, snap, it.id, true);
    }
    ev.primed = true;
}

static void init_once(void)
{
    if (ev.inited)
        return;
    for (size_t k = 0; k < NWATCHED; k++)
        table_init(&mirrors[k], sizeof(struct mirror));
    ev.inited = true;
}

static void tell_leader(struct store_snap *snap, struct str id, bool leads)
{
    struct attr attrs[] = { { "leader.new", leads ? "true" : "false" }, { "leader.old", leads ? "false" : "true" } };
    struct str doc;

    if (store_get(snap, KIND_NODE, id, &doc) == 0)
        emit("node", "swarm", "update", id, text_at(doc, "Description.Hostname"), attrs, 2);
}

void events_reachability(struct str node, bool reachable)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    const char *words[] = { "unreachable", "reachable" };
    struct attr attrs[] = { { "reachability.new", (char *)words[reachable] },
                            { "reachability.old", (char *)words[!reachable] } };
    struct err e = ERR_INIT;
    struct str doc;

    if (store_begin(api.store, &snap, &e) < 0 || store_get(snap, KIND_NODE, node, &doc) < 0)
        return;
    emit("node", "swarm", "update", node, text_at(doc, "Description.Hostname"), attrs, 2);
    feed_all();
}

/* While nobody leads, the last one is remembered: its return is no event. */
static void look_at_leader(struct store_snap *snap, struct str leader)
{
    if (leader.n == 0 || str_is(leader, ev.leader))
        return;
    if (ev.leader[0]) {
        tell_leader(snap, str_from(ev.leader), false);
        tell_leader(snap, leader, true);
    }
    if (!str_copy(ev.leader, sizeof ev.leader, leader))
        ev.leader[0] = '\0';
}

void events_turn(void)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct err e = ERR_INIT;
    struct store_meta meta;
    struct turn t = { .order = NULL };
    uint64_t before = ev.last_seq;

    init_once();
    if (store_begin(api.store, &snap, &e) < 0 || store_meta(snap, &meta, &e) < 0 || !meta.initialized) {
        forget();
        ev.primed = false;
        ev.revision = 0;
        ev.leader[0] = '\0';
        return;
    }
    look_at_leader(snap, meta.leader_id);
    if (meta.revision == ev.revision && ev.primed) {
        if (ev.last_seq != before)
            feed_all();
        return;
    }
    table_init(&t.seen, 0);
    bool gap = !ev.primed || meta.revision < ev.revision || store_changes(snap, ev.revision, on_change, &t, &e) < 0;
    if (gap)
        prime(snap);
    tell_turn(&t, snap, gap);
    ev.revision = meta.revision;
    if (ev.last_seq != before)
        feed_all();
}

void events_close(void)
{
    reach_close();
    local_close();
    if (!ev.inited)
        return;
    forget();
    for (size_t k = 0; k < NWATCHED; k++)
        table_done(&mirrors[k]);
    for (size_t i = 0; i < RING; i++)
        event_clear(&ev.ring[i]);
}

/* ---- listeners ---- */

/* A type's own filter ("service=web") takes an ID or a name. */
static bool object_filter(const struct filters *f, const struct event *e)
{
    static const char *const types[] = { "service",   "node",   "secret", "config", "network", "image",
                                         "container", "volume", "plugin", "daemon", NULL };
    bool asked = false;

    for (size_t i = 0; types[i]; i++) {
        if (!filters_get(f, types[i]))
            continue;
        asked = true;
        if (strcmp(types[i], e->type) == 0 &&
            (filters_exact(f, types[i], str_from(e->id)) || filters_exact(f, types[i], str_from(e->name))))
            return true;
    }
    return !asked;
}

/* "health_status" is any of them; "health_status: healthy" that one. */
static bool action_filter(const struct filters *f, struct str action)
{
    const char *colon = memchr(action.p, ':', action.n);

    return filters_exact(f, "event", action) ||
           (colon && filters_exact(f, "event", (struct str){ action.p, (size_t)(colon - action.p) }));
}

static bool wanted(const struct listener *l, const struct event *e)
{
    const struct filters *f = &l->f;

    return e->time_ns >= l->since_ns && (!l->has_until || e->time_ns <= l->until_ns) &&
           filters_exact(f, "type", str_from(e->type)) && action_filter(f, str_from(e->action)) &&
           filters_exact(f, "scope", str_from(e->scope)) && !filters_get(f, "label") && object_filter(f, e);
}

static void feed(struct listener *l)
{
    struct req *r = l->r;

    if (ev.last_seq >= RING && l->next_seq + RING <= ev.last_seq)
        l->next_seq = ev.last_seq - RING + 1;
    while (l->next_seq <= ev.last_seq && api_stream_waiting(r) < (64u << 10)) {
        struct event *e = &ev.ring[l->next_seq++ % RING];
        if (!wanted(l, e))
            continue;
        if (!e->text)
            e->text = event_text(e, NULL, 0);
        buf_puts(&r->out, e->text);
    }
    api_stream_push(r);
}

static void drain(struct req *r)
{
    struct listener *l = r->data;

    if (l->next_seq <= ev.last_seq)
        feed(l);
}

/* Some things are looked at only while somebody listens. */
static void watch_for_listeners(void)
{
    struct listener *l = ev.listeners;

    while (l && !filters_exact(&l->f, "type", STR("container")))
        l = l->next;
    local_watch(l != NULL);
    l = ev.listeners;

    while (l && !(filters_exact(&l->f, "type", STR("node")) && filters_exact(&l->f, "event", STR("update"))))
        l = l->next;
    reach_watch(l != NULL);
}

static void listener_free(void *p)
{
    struct listener *l = p;
    bool listed = l->pprev != NULL;

    if (listed && (*l->pprev = l->next))
        l->next->pprev = l->pprev;
    free(l);
    if (listed)
        watch_for_listeners();
}

static void until_reached(void *arg)
{
    struct req *r = arg;

    feed(r->data);
    api_stream_end(r);
}

static int read_times(struct req *r, struct listener *l)
{
    struct err e = ERR_INIT;
    bool has_since;

    if (query_time(&r->query, "since", &l->since_ns, &has_since, &e) < 0 ||
        query_time(&r->query, "until", &l->until_ns, &l->has_until, &e) < 0) {
        api_fail(r, &e);
        return -1;
    }
    if (!has_since) {
        l->since_ns = 0;
        l->next_seq = ev.last_seq + 1;
    }
    if (has_since && l->has_until && l->since_ns > l->until_ns)
        return api_refuse(r, 400, "`since` time (" STR_FMT ") cannot be after `until` time (" STR_FMT ")",
                          STR_ARG(query_get(&r->query, "since")), STR_ARG(query_get(&r->query, "until")));
    return 0;
}

void events_stream(struct req *r)
{
    struct listener *l = calloc(1, sizeof *l);

    CHECK(l);
    l->r = r;
    l->next_seq = ev.last_seq >= RING ? ev.last_seq - RING + 1 : 1;
    r->data = l;
    r->free_data = listener_free;
    if (api_filters(r, &l->f, NULL) < 0 || read_times(r, l) < 0)
        return;
    api_stream(r, 200, "application/json");
    r->on_drain = drain;
    feed(l);
    int64_t now = clock_wall().ns;
    if (l->has_until && l->until_ns <= now) {
        api_stream_end(r);
        return;
    }
    if (l->has_until)
        api_timer(r, clock_mono().ms + (uint64_t)(l->until_ns - now) / 1000000 + 1, until_reached);
    if ((l->next = ev.listeners))
        l->next->pprev = &l->next;
    ev.listeners = l;
    l->pprev = &ev.listeners;
    watch_for_listeners();
}
