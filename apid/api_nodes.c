/* /nodes: list, inspect, update, remove. */
#include <stdio.h>

#include "apid/api_resources.h"
#include "common/util/check.h"

static bool is_manager(struct str doc)
{
    return str_is(text_at(doc, "Spec.Role"), "manager");
}

/* ---- as clients see a node ---- */

/* Docker shows the cluster's trust in each node's description; ours is the same for all until roots rotate. */
static void put_description(struct buf *b, struct str node, struct str tls)
{
    struct buf add = BUF_INIT;
    struct str description = { NULL, 0 };
    struct err e = ERR_INIT;

    mp_cstr(b, "Description");
    if (!mp_find(node, "Description", &description))
        description = STR("\x80"); /* an empty map */
    mp_map(&add, tls.n > 0);
    if (tls.n > 0)
        mp_kv_raw(&add, "TLSInfo", tls);
    if (mp_merge(b, description, buf_str(&add), &e) < 0)
        mp_map(b, 0);
    buf_done(&add);
}

static void put_manager(struct buf *b, struct str id, struct str node, const struct store_meta *meta)
{
    bool leader = str_eq(id, meta->leader_id);

    mp_cstr(b, "ManagerStatus");
    mp_map(b, leader ? 3 : 2);
    if (leader)
        mp_kv_bool(b, "Leader", true);
    mp_kv_cstr(b, "Reachability", "reachable");
    mp_kv_str(b, "Addr", text_at(node, "ManagerAddr"));
}

/* dispatcherd learns the address from the agent, which may not know it; the manager's own is as good. */
static void put_status(struct buf *b, struct str node)
{
    struct str status = { NULL, 0 }, addr = text_at(node, "Status.Addr"), own = text_at(node, "ManagerAddr");
    struct buf add = BUF_INIT;
    struct err e = ERR_INIT;

    mp_cstr(b, "Status");
    if (!mp_find(node, "Status", &status))
        status = STR("\x80");
    while (own.n > 0 && own.p[own.n - 1] != ':')
        own.n--;
    own.n -= own.n > 0;
    bool fill = addr.n == 0 && own.n > 0;
    mp_map(&add, fill);
    if (fill)
        mp_kv_str(&add, "Addr", own);
    if (mp_merge(b, status, buf_str(&add), &e) < 0)
        mp_map(b, 0);
    buf_done(&add);
}

static int emit_node(struct req *r, struct store_snap *snap, const struct store_meta *meta, struct str id,
                     struct str doc)
{
    static const char *const ours[] = { "Rev", "ManagerAddr", "Certificate", "Role" };
    struct str cluster, tls = { NULL, 0 };
    struct buf patch = BUF_INIT;
    bool manager = is_manager(doc);

    if (store_get(snap, KIND_CLUSTER, meta->cluster_id, &cluster) == 0)
        (void)mp_find(cluster, "TLSInfo", &tls);
    mp_map(&patch, 6u + manager);
    for (size_t i = 0; i < 4; i++) {
        mp_cstr(&patch, ours[i]);
        mp_nil(&patch);
    }
    put_description(&patch, doc, tls);
    put_status(&patch, doc);
    if (manager)
        put_manager(&patch, id, doc, meta);
    int rc = api_emit(r, &obj_node, doc, buf_str(&patch));
    buf_done(&patch);
    return rc;
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

void nodes_list(struct req *r)
{
    static const char *const known[] = { "id", "name", "label", "node.label", "role", "membership", NULL };
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct filters *f = arena_alloc(&r->arena, sizeof *f);
    struct store_meta meta;
    struct store_iter it;
    bool any = false;

    CHECK(f);
    if (api_snap(r, &snap, &meta) < 0 || api_filters(r, f, known) < 0 || check_words(r, f) < 0)
        return;
    buf_putc(&r->out, '[');
    for (store_each(snap, KIND_NODE, &it); store_next(&it);) {
        if (!node_matches(f, it.id, it.doc))
            continue;
        buf_puts(&r->out, any ? "," : "");
        any = true;
        if (emit_node(r, snap, &meta, it.id, it.doc) < 0) {
            store_iter_done(&it);
            return;
        }
    }
    buf_puts(&r->out, "]\n");
    api_reply(r, 200);
}

void nodes_inspect(struct req *r)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct store_meta meta;
    struct str id, doc;

    if (api_snap(r, &snap, &meta) < 0)
        return;
    if (str_is(r->params[0], "self"))
        r->params[0] = meta.node_id;
    if (api_find(r, snap, KIND_NODE, r->params[0], &id, &doc) < 0 || emit_node(r, snap, &meta, id, doc) < 0)
        return;
    buf_putc(&r->out, '\n');
    api_reply(r, 200);
}

/* ---- update ---- */

struct node_change {
    struct str id; /* in the request's arena */
    uint64_t version;
    json_t *spec;
    struct buf packed;
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

static int check_role(struct req *r, struct store_snap *snap, struct str doc, const char *role)
{
    bool to_manager = strcmp(role, "manager") == 0;

    if (to_manager == is_manager(doc))
        return 0;
    if (!to_manager && managers(snap) == 1)
        return api_rpc_refuse(r, RPC_PRECONDITION, "attempting to demote the last manager of the swarm");
    return api_rpc_refuse(r, RPC_UNIMPLEMENTED,
                          "changing a node's role is not supported by this version of microswarm");
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
        return api_rpc_refuse(r, RPC_UNKNOWN, "update out of sequence");
    }
    if (check_role(r, snap, doc, json_string_value(json_object_get(c->spec, "Role"))) < 0)
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
    api_write(r, attempt_node_update, done_empty);
}

/* ---- remove ---- */

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
    if (is_manager(doc))
        return api_rpc_refuse(r, RPC_PRECONDITION,
                              "node " STR_FMT " is a cluster manager and is a member of the raft cluster. It must be "
                              "demoted to worker before removal",
                              STR_ARG(*id));
    if (!query_loose(&r->query, "force") && str_is(text_at(doc, "Status.State"), "ready"))
        return api_rpc_refuse(r, RPC_PRECONDITION, "node " STR_FMT " is not down and can't be removed", STR_ARG(*id));
    (void)mp_get_u64(doc, "Rev", &rev);
    txn_require_rev(t, KIND_NODE, *id, rev);
    txn_delete(t, KIND_NODE, *id);
    return 1;
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
    api_write(r, attempt_node_remove, done_empty);
}
