/* /nodes: list, inspect, update, remove. */
#include <stdio.h>

#include "apid/api_members.h"
#include "apid/api_resources.h"
#include "common/util/check.h"

static bool is_manager(struct str doc)
{
    return str_is(text_at(doc, "Spec.Role"), "manager");
}

/* ---- as clients see a node ---- */

/* A field of the document, which is a map, with some of its own fields laid over it. */
static void put_over(struct buf *b, struct str doc, const char *field, struct str over)
{
    struct str old = { NULL, 0 };
    struct err e = ERR_INIT;
    size_t mark;

    mp_cstr(b, field);
    mark = b->n;
    if (!mp_find(doc, field, &old))
        old = STR("\x80"); /* an empty map */
    if (mp_merge(b, old, over, &e) < 0) {
        b->n = mark;
        mp_map(b, 0);
    }
}

static void put_manager(struct buf *b, const struct manager *m, bool known)
{
    mp_cstr(b, "ManagerStatus");
    mp_map(b, m->leader ? 3 : 2);
    if (m->leader)
        mp_kv_bool(b, "Leader", true);
    mp_kv_cstr(b, "Reachability", m->reachable ? "reachable" : known && !m->learner ? "unreachable" : "unknown");
    mp_kv_cstr(b, "Addr", m->addr);
}

/* Nodes as one answer shows them. */
struct look {
    struct store_snap *snap;
    const struct managers *m;
    bool known; /* m is the leader's own view */
    bool alone; /* one node with one certificate: what it trusts is what the swarm has */
    struct str tls;
};

static int emit_node(struct req *r, const struct look *k, struct str id, struct str doc)
{
    static const char *const shown[] = { "ID",   "Version",     "CreatedAt", "UpdatedAt",
                                         "Spec", "Description", "Status",    NULL };
    const struct manager *m = managers_find(k->m, id);
    struct buf patch = BUF_INIT, hidden = BUF_INIT, over = BUF_INIT;
    struct str own;
    bool fill = k->alone && k->tls.n > 0 && !mp_path(doc, "Description.TLSInfo", &own);
    struct str why = text_at(doc, "Certificate.RoleErr"); /* why it can't have the role that is wanted, says cad */
    bool addr = m && text_at(doc, "Status.Addr").n == 0, status = addr || why.n > 0;
    size_t n = doc_hide(&hidden, doc, shown);

    mp_map(&patch, n + fill + status + (m != NULL));
    buf_put(&patch, hidden.p, hidden.n);
    if (fill) {
        mp_map(&over, 1);
        mp_kv_raw(&over, "TLSInfo", k->tls);
        put_over(&patch, doc, "Description", buf_str(&over));
    }
    if (status) {
        buf_clear(&over);
        mp_map(&over, (size_t)addr + (why.n > 0));
        if (addr) /* the agent may not know it; the manager's own is as good */
            mp_kv_str(&over, "Addr", addr_host(str_from(m->addr)));
        if (why.n > 0)
            mp_kv_str(&over, "Message", why);
        put_over(&patch, doc, "Status", buf_str(&over));
    }
    if (m)
        put_manager(&patch, m, k->known);
    int rc = api_emit(r, &obj_node, doc, buf_str(&patch));
    buf_done(&patch);
    buf_done(&hidden);
    buf_done(&over);
    return rc;
}

static void look_init(struct look *k, struct store_snap *snap, const struct store_meta *meta, const struct managers *m,
                      const struct err *e)
{
    struct str cluster;

    *k = (struct look){ .snap = snap, .m = m, .known = e->code == 0, .alone = store_count(snap, KIND_NODE) == 1 };
    if (store_get(snap, KIND_CLUSTER, meta->cluster_id, &cluster) == 0)
        (void)mp_find(cluster, "TLSInfo", &k->tls);
}

/* Who is reachable only the leader knows; a manager that is alone is. */
static void with_managers(struct req *r, managers_fn *fn)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    static const struct err fine = ERR_INIT;
    struct store_meta meta;
    struct managers m;

    if (api_snap(r, &snap, &meta) < 0)
        return;
    managers_of_map(snap, &meta, &m);
    snap = store_end(snap);
    if (m.n > 1)
        managers_ask(r, fn);
    else
        fn(r, &m, &fine);
}

/* ---- list, inspect ---- */

static int check_words(struct req *r, const struct filters *f)
{
    static const struct {
        const char *key, *a, *b;
    } words[] = { { "role", "manager", "worker" }, { "membership", "accepted", "pending" } };

    for (size_t k = 0; k < 2; k++) {
        const struct filter *x = filters_get(f, words[k].key);
        for (size_t i = 0; x && i < x->n; i++)
            if (!str_is(x->vals[i], words[k].a) && !str_is(x->vals[i], words[k].b))
                return api_refuse(r, 500, "Invalid %s filter: '" STR_FMT "'", words[k].key, STR_ARG(x->vals[i]));
    }
    return 0;
}

static bool node_matches(const struct filters *f, struct str id, struct str doc)
{
    struct str engine = { NULL, 0 }, labels = { NULL, 0 };

    (void)mp_path(doc, "Description.Engine.Labels", &engine);
    (void)mp_path(doc, "Spec.Labels", &labels);
    return filters_prefix(f, "id", id) && filters_prefix(f, "name", text_at(doc, "Description.Hostname")) &&
           filters_exact(f, "role", text_at(doc, "Spec.Role")) && filters_exact(f, "membership", STR("accepted")) &&
           filters_labels(f, "label", engine) && filters_labels(f, "node.label", labels);
}

static void list_with(struct req *r, const struct managers *m, const struct err *e)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct filters *f = r->data;
    struct store_meta meta;
    struct store_iter it;
    struct look k;
    bool any = false;

    if (api_snap(r, &snap, &meta) < 0)
        return;
    look_init(&k, snap, &meta, m, e);
    buf_putc(&r->out, '[');
    for (store_each(snap, KIND_NODE, &it); store_next(&it);) {
        if (!node_matches(f, it.id, it.doc))
            continue;
        buf_puts(&r->out, any ? "," : "");
        any = true;
        if (emit_node(r, &k, it.id, it.doc) < 0) {
            store_iter_done(&it);
            return;
        }
    }
    buf_puts(&r->out, "]\n");
    api_reply(r, 200);
}

void nodes_list(struct req *r)
{
    static const char *const known[] = { "id", "name", "label", "node.label", "role", "membership", NULL };
    struct filters *f = arena_alloc(&r->arena, sizeof *f);

    CHECK(f);
    r->data = f;
    if (api_filters(r, f, known) == 0 && check_words(r, f) == 0)
        with_managers(r, list_with);
}

static void inspect_with(struct req *r, const struct managers *m, const struct err *e)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct store_meta meta;
    struct str id, doc;
    struct look k;

    if (api_snap(r, &snap, &meta) < 0)
        return;
    look_init(&k, snap, &meta, m, e);
    if (str_is(r->params[0], "self"))
        r->params[0] = arena_str(&r->arena, meta.node_id);
    if (api_find(r, snap, KIND_NODE, r->params[0], &id, &doc) < 0 || emit_node(r, &k, id, doc) < 0)
        return;
    buf_putc(&r->out, '\n');
    api_reply(r, 200);
}

void nodes_inspect(struct req *r)
{
    with_managers(r, inspect_with);
}

/* ---- update ---- */

struct node_change {
    struct str id; /* in the request's arena */
    uint64_t version;
    json_t *spec;
    struct buf packed;
    bool would_lose_quorum;
};

static void node_change_free(void *p)
{
    struct node_change *c = p;

    json_decref(c->spec);
    buf_done(&c->packed);
    free(c);
}

static size_t managers(struct store_snap *snap)
{
    struct store_iter it;
    size_t n = 0;

    for (store_each(snap, KIND_NODE, &it); store_next(&it);)
        n += is_manager(it.doc);
    return n;
}

/* A change of role is a wish; cad carries it out. What could not go well is refused here, in Docker's words. */
static int check_role(struct req *r, struct store_snap *snap, const struct node_change *c, struct str doc,
                      const char *role)
{
    if (strcmp(role, "manager") == 0 || !is_manager(doc))
        return 0;
    if (managers(snap) == 1)
        return api_rpc_refuse(r, RPC_PRECONDITION, "attempting to demote the last manager of the swarm");
    if (c->would_lose_quorum)
        return api_rpc_refuse(r, RPC_PRECONDITION,
                              "can't remove member from the raft: this would result in a loss of quorum");
    return 0;
}

static int attempt_node_update(struct req *r, struct txn *t, struct err *e)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct node_change *c = r->data;
    struct buf b = BUF_INIT;
    uint64_t version = 0;
    struct str doc, spec = { NULL, 0 };

    if (api_snap(r, &snap, NULL) < 0)
        return -1;
    if (store_get(snap, KIND_NODE, c->id, &doc) < 0)
        return api_refuse(r, 404, "node " STR_FMT " not found", STR_ARG(r->params[0]));
    (void)mp_get_u64(doc, "Version.Index", &version);
    if (version != c->version) {
        (void)mp_find(doc, "Spec", &spec);
        if (r->write.uncertain && str_eq(spec, buf_str(&c->packed)))
            return 0;
        return api_out_of_sequence(r);
    }
    if (check_role(r, snap, c, doc, json_string_value(json_object_get(c->spec, "Role"))) < 0)
        return -1;
    (void)e;
    mp_map(&b, 1);
    mp_kv_raw(&b, "Spec", buf_str(&c->packed));
    txn_require_version(t, KIND_NODE, c->id, version);
    txn_update(t, KIND_NODE, c->id, txn_doc(t, &b));
    buf_done(&b);
    return 1;
}

static void done_empty(struct req *r, uint64_t revision)
{
    (void)revision;
    api_reply_empty(r, 200);
}

static int check_node_words(struct req *r, json_t *spec)
{
    const char *role = json_string_value(json_object_get(spec, "Role")) ?: "";
    const char *avail = json_string_value(json_object_get(spec, "Availability")) ?: "";

    if (strcmp(role, "worker") != 0 && strcmp(role, "manager") != 0)
        return api_refuse(r, 400, "invalid Role: \"%s\"", role);
    if (strcmp(avail, "active") != 0 && strcmp(avail, "pause") != 0 && strcmp(avail, "drain") != 0)
        return api_refuse(r, 400, "invalid Availability: \"%s\"", avail);
    return 0;
}

static void update_with(struct req *r, const struct managers *m, const struct err *e)
{
    struct node_change *c = r->data;

    c->would_lose_quorum = e->code == 0 && !managers_can_lose(m, c->id);
    api_write(r, attempt_node_update, done_empty);
}

void nodes_update(struct req *r)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct node_change *c = calloc(1, sizeof *c);
    struct err e = ERR_INIT;
    struct str id;

    CHECK(c);
    r->data = c;
    r->free_data = node_change_free;
    if (query_version(&r->query, "node", &c->version, &e) < 0) {
        api_fail(r, &e);
        return;
    }
    if (api_snap(r, &snap, NULL) < 0 || !(c->spec = api_body(r, &obj_node_spec)) || check_node_words(r, c->spec) < 0 ||
        api_find(r, snap, KIND_NODE, r->params[0], &id, NULL) < 0)
        return;
    c->id = arena_str(&r->arena, id);
    if (!json_object_get(c->spec, "Labels"))
        json_object_set_new(c->spec, "Labels", json_object());
    if (obj_check(&obj_node_spec, c->spec, &e) < 0 || obj_pack(&obj_node_spec, c->spec, &c->packed, &e) < 0) {
        api_fail(r, &e);
        return;
    }
    snap = store_end(snap);
    if (strcmp(json_string_value(json_object_get(c->spec, "Role")), "worker") == 0)
        with_managers(r, update_with);
    else
        api_write(r, attempt_node_update, done_empty);
}

/* ---- remove ---- */

#define DEMOTION_WAIT_MS 10000u

static bool is_member(struct store_snap *snap, struct str id)
{
    struct store_member v[STORE_MEMBERS_MAX];

    for (size_t i = 0, n = store_members(snap, v); i < n; i++)
        if (str_eq(v[i].node_id, id))
            return true;
    return false;
}

static int refuse_member(struct req *r, struct str id)
{
    return api_rpc_refuse(r, RPC_PRECONDITION,
                          "node " STR_FMT " is a cluster manager and is a member of the raft cluster. It must be "
                          "demoted to worker before removal",
                          STR_ARG(id));
}

static int attempt_node_remove(struct req *r, struct txn *t, struct err *e)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct str *id = r->data, doc;
    uint64_t rev = 0;

    (void)e;
    if (api_snap(r, &snap, NULL) < 0)
        return -1;
    if (store_get(snap, KIND_NODE, *id, &doc) < 0)
        return r->write.uncertain ? 0 : api_refuse(r, 404, "node " STR_FMT " not found", STR_ARG(r->params[0]));
    if (is_member(snap, *id))
        return refuse_member(r, *id);
    if (!query_loose(&r->query, "force") && str_is(text_at(doc, "Status.State"), "ready"))
        return api_rpc_refuse(r, RPC_PRECONDITION, "node " STR_FMT " is not down and can't be removed", STR_ARG(*id));
    (void)mp_get_u64(doc, "Rev", &rev);
    txn_require_rev(t, KIND_NODE, *id, rev);
    txn_delete(t, KIND_NODE, *id);
    return 1;
}

/* Demoted a moment ago, and not yet out of the group: soon it will be. */
static bool on_its_way_out(struct str id)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct err e = ERR_INIT;
    struct str doc;

    return store_begin(api.store, &snap, &e) == 0 && store_get(snap, KIND_NODE, id, &doc) == 0 && !is_manager(doc) &&
           is_member(snap, id);
}

static void remove_wait(struct req *r, bool timed_out)
{
    struct str *id = r->data;

    if (!timed_out && on_its_way_out(*id))
        return;
    api_unwait(r);
    api_write(r, attempt_node_remove, done_empty);
}

void nodes_remove(struct req *r)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct str *id = arena_alloc(&r->arena, sizeof *id);

    CHECK(id);
    if (api_snap(r, &snap, NULL) < 0 || api_find(r, snap, KIND_NODE, r->params[0], id, NULL) < 0)
        return;
    *id = arena_str(&r->arena, *id);
    r->data = id;
    snap = store_end(snap);
    if (on_its_way_out(*id))
        api_wait(r, remove_wait, clock_mono().ms + DEMOTION_WAIT_MS);
    else
        api_write(r, attempt_node_remove, done_empty);
}
