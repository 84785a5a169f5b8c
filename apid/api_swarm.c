/* /swarm: inspect, update, the unlock key; and what `docker info` says of the swarm. */
#include <stdio.h>

#include "apid/api_members.h"
#include "apid/api_resources.h"
#include "apid/api_state.h"
#include "apid/api_swarm_spec.h"
#include "common/proto/msg_cad.h"
#include "common/util/check.h"

#define CAD_TIMEOUT_MS 5000u
#define ROTATE_TIMEOUT_MS 20000u

/* ---- as clients see the cluster ---- */

/* Everything in the document that is the daemons' own is hidden. */
static void cluster_patch(struct buf *b, struct str doc, const struct cad_tokens_reply *tokens)
{
    static const char *const shown[] = {
        "ID",         "Version",         "CreatedAt",    "UpdatedAt", "Spec", "TLSInfo", "RootRotationInProgress",
        "SubnetSize", "DefaultAddrPool", "DataPathPort", NULL
    };
    struct buf hidden = BUF_INIT;
    size_t n = doc_hide(&hidden, doc, shown);

    mp_map(b, n + (tokens != NULL));
    buf_put(b, hidden.p, hidden.n);
    buf_done(&hidden);
    if (tokens) {
        mp_cstr(b, "JoinTokens");
        mp_map(b, 2);
        mp_kv_str(b, "Worker", tokens->Worker);
        mp_kv_str(b, "Manager", tokens->Manager);
    }
}

size_t doc_hide(struct buf *pairs, struct str doc, const char *const *shown)
{
    struct mp_cursor c = mp_cursor(doc);
    struct mp_val head, key;
    size_t hidden = 0;

    if (mp_next(&c, &head) < 0 || head.type != MP_MAP)
        return 0;
    for (size_t i = 0; i < head.n && mp_next(&c, &key) == 0 && key.type == MP_STR && mp_skip(&c) == 0; i++) {
        size_t k = 0;
        while (shown[k] && !str_is(key.s, shown[k]))
            k++;
        if (!shown[k]) {
            mp_str(pairs, key.s);
            mp_nil(pairs);
            hidden++;
        }
    }
    return hidden;
}

static void inspect_with_tokens(struct req *r, const void *rep, const struct err *e)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct buf patch = BUF_INIT;
    struct store_meta meta;
    struct str doc;

    if (e->code != 0) {
        api_fail(r, e);
        return;
    }
    if (api_snap(r, &snap, &meta) < 0)
        return;
    if (store_get(snap, KIND_CLUSTER, meta.cluster_id, &doc) < 0) {
        api_error(r, 500, "the store holds no cluster object");
        return;
    }
    cluster_patch(&patch, doc, rep);
    if (api_emit(r, &obj_cluster, doc, buf_str(&patch)) == 0) {
        buf_putc(&r->out, '\n');
        api_reply(r, 200);
    }
    buf_done(&patch);
}

/* The tokens are secret: not in the map, but asked of this manager's cad. */
void swarm_inspect(struct req *r)
{
    static const struct cad_empty none;
    struct store_snap *snap;

    if (api_snap(r, &snap, NULL) < 0)
        return;
    store_end(snap);
    api_call(r, api.cad, &op_cad_tokens, &none, CAD_TIMEOUT_MS, inspect_with_tokens);
}

/* ---- info ---- */

static void info_cluster(struct buf *out, struct str doc)
{
    struct buf patch = BUF_INIT, merged = BUF_INIT;
    struct err e = ERR_INIT;
    size_t mark = out->n;

    cluster_patch(&patch, doc, NULL);
    buf_puts(out, ",\"Cluster\":");
    if (mp_merge(&merged, doc, buf_str(&patch), &e) < 0 ||
        obj_write_json(&obj_cluster, buf_str(&merged), out, &e) < 0) {
        log_error("info: %s", e.msg);
        out->n = mark;
    }
    buf_done(&patch);
    buf_done(&merged);
}

static void put_manager(struct buf *out, bool *any, struct str node, struct str addr)
{
    buf_puts(out, *any ? ",{\"NodeID\":" : "{\"NodeID\":");
    buf_json_str(out, node);
    buf_puts(out, ",\"Addr\":");
    buf_json_str(out, addr);
    buf_putc(out, '}');
    *any = true;
}

/* Those that gatewayd knows on every kind of node; the members of the group on a manager. */
static void info_managers(struct buf *out, const struct managers *m)
{
    const struct gw_identity_reply *id = state_identity();
    bool any = false;

    buf_puts(out, ",\"RemoteManagers\":[");
    for (size_t i = 0; i < m->n; i++)
        put_manager(out, &any, str_from(m->v[i].node), str_from(m->v[i].addr));
    for (size_t i = 0; m->n == 0 && i < id->Managers.n; i++) {
        const struct gw_manager *x = &((const struct gw_manager *)id->Managers.v)[i];
        put_manager(out, &any, x->NodeID, x->Addr);
    }
    buf_putc(out, ']');
}

struct str addr_host(struct str addr)
{
    while (addr.n > 0 && addr.p[addr.n - 1] != ':')
        addr.n--;
    addr.n -= addr.n > 0;
    if (addr.n > 1 && addr.p[0] == '[' && addr.p[addr.n - 1] == ']')
        addr = (struct str){ addr.p + 1, addr.n - 2 };
    return addr;
}

static void info_head(struct buf *out, struct str node, struct str addr, enum swarm_state s, struct str error)
{
    buf_puts(out, "{\"NodeID\":");
    buf_json_str(out, node);
    buf_puts(out, ",\"NodeAddr\":");
    buf_json_str(out, addr_host(addr));
    buf_printf(out, ",\"LocalNodeState\":\"%s\",\"ControlAvailable\":%s,\"Error\":", state_name(s),
               s == SWARM_MANAGER ? "true" : "false");
    buf_json_str(out, error);
}

static void info_of_manager(struct buf *out, struct store_snap *snap, const struct store_meta *meta,
                            struct buf *warning)
{
    struct managers m;
    struct str cluster, own = state_identity()->AdvertiseAddr;
    char text[300];

    managers_of_map(snap, meta, &m);
    const struct manager *self = managers_find(&m, meta->node_id);
    if (own.n == 0 && self)
        own = str_from(self->addr);
    info_head(out, meta->node_id, own, SWARM_MANAGER, str_from(meta->leader_id.n ? "" : api_no_leader));
    info_managers(out, &m);
    if (meta->leader_id.n > 0) {
        buf_printf(out, ",\"Nodes\":%llu,\"Managers\":%zu", (unsigned long long)store_count(snap, KIND_NODE), m.voters);
        if (store_get(snap, KIND_CLUSTER, meta->cluster_id, &cluster) == 0)
            info_cluster(out, cluster);
    }
    const char *w = managers_warning(m.voters, text, sizeof text);
    if (w) {
        buf_puts(warning, w);
        buf_puts(out, ",\"Warnings\":[");
        buf_json_str(out, str_from(w));
        buf_putc(out, ']');
    }
    buf_putc(out, '}');
}

void swarm_info(struct buf *out, struct buf *warning)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    const struct gw_identity_reply *id = state_identity();
    enum swarm_state s = state_now();
    struct managers none = { .n = 0 };
    struct err e = ERR_INIT;
    struct store_meta meta;

    if (s == SWARM_MANAGER && store_begin(api.store, &snap, &e) == 0 && store_meta(snap, &meta, &e) == 0 &&
        meta.initialized) {
        info_of_manager(out, snap, &meta, warning);
        return;
    }
    if (s == SWARM_INACTIVE || s == SWARM_LOCKED || id->NodeID.n == 0) {
        info_head(out, STR(""), STR(""), s, s == SWARM_ERROR || s == SWARM_PENDING ? id->Error : STR(""));
        buf_puts(out, ",\"RemoteManagers\":null}");
        return;
    }
    info_head(out, id->NodeID, id->AdvertiseAddr, s, s == SWARM_ERROR || s == SWARM_PENDING ? id->Error : STR(""));
    info_managers(out, &none);
    buf_putc(out, '}');
}

const char *swarm_header(void)
{
    enum swarm_state s = state_now();

    if (s == SWARM_MANAGER)
        return "active/manager";
    return s == SWARM_WORKER || s == SWARM_STARTING ? (state_identity()->NodeID.n ? "active/worker" : "inactive")
                                                    : state_name(s);
}

/* ---- update ---- */

struct swarm_change {
    json_t *spec;
    uint64_t version;
    bool rotate_worker, rotate_manager, rotate_key;
    bool checked, rotated; /* steps that are behind us */
    bool new_root;
    bool watch_key, autolock, was_locked;        /* the unlock key will change */
    uint64_t worker, manager, key;               /* epochs after the change */
    struct buf old_worker, old_manager, old_key; /* what must not be shown any more when we answer; secret */
    bool have_tokens, have_key, asking, again;
    char *cert, *cert_key; /* of the new root; secret */
};

static void wipe(struct buf *b)
{
    if (b->p)
        explicit_bzero(b->p, b->cap);
    buf_done(b);
}

static void swarm_change_free(void *p)
{
    struct swarm_change *c = p;

    json_decref(c->spec);
    wipe(&c->old_worker);
    wipe(&c->old_manager);
    wipe(&c->old_key);
    if (c->cert_key)
        explicit_bzero(c->cert_key, strlen(c->cert_key));
    free(c->cert_key);
    free(c->cert);
    free(c);
}

static int pack_update(struct req *r, struct swarm_change *c, struct str doc, struct buf *b)
{
    struct str old = { NULL, 0 };
    struct buf packed = BUF_INIT;
    struct err e = ERR_INIT;
    json_t *before = NULL;
    int rc = -1;

    (void)mp_find(doc, "Spec", &old);
    if (old.n > 0 && obj_unpack(&obj_cluster_spec, old, &before, &e) < 0)
        goto out;
    swarm_spec_keep(c->spec, before);
    swarm_spec_defaults(c->spec);
    if (obj_check(&obj_cluster_spec, c->spec, &e) < 0 || obj_pack(&obj_cluster_spec, c->spec, &packed, &e) < 0)
        goto out;
    mp_map(b, 3);
    mp_kv_raw(b, "Spec", buf_str(&packed));
    mp_cstr(b, "TokenEpoch");
    mp_map(b, 2);
    mp_kv_u64(b, "Worker", c->worker);
    mp_kv_u64(b, "Manager", c->manager);
    mp_kv_u64(b, "UnlockKeyEpoch", c->key);
    rc = 0;
out:
    if (rc < 0)
        api_fail(r, &e);
    buf_done(&packed);
    json_decref(before);
    return rc;
}

static int attempt_swarm_update(struct req *r, struct txn *t, struct err *e)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct swarm_change *c = r->data;
    uint64_t version = 0, worker = 1, manager = 1, key = 0;
    struct buf b = BUF_INIT;
    struct store_meta meta;
    struct str doc;

    (void)e;
    if (api_snap(r, &snap, &meta) < 0)
        return -1;
    if (store_get(snap, KIND_CLUSTER, meta.cluster_id, &doc) < 0)
        return api_refuse(r, 500, "the store holds no cluster object");
    (void)mp_get_u64(doc, "Version.Index", &version);
    (void)mp_get_u64(doc, "TokenEpoch.Worker", &worker);
    (void)mp_get_u64(doc, "TokenEpoch.Manager", &manager);
    (void)mp_get_u64(doc, "UnlockKeyEpoch", &key);
    if (version != c->version) {
        if (r->write.uncertain && worker == c->worker && manager == c->manager && key == c->key)
            return 0;
        return api_out_of_sequence(r);
    }
    c->worker = worker + c->rotate_worker;
    c->manager = manager + c->rotate_manager;
    c->key = key + c->rotate_key;
    if (pack_update(r, c, doc, &b) < 0) {
        buf_done(&b);
        return -1;
    }
    txn_require_version(t, KIND_CLUSTER, meta.cluster_id, version);
    txn_update(t, KIND_CLUSTER, arena_str(&t->arena, meta.cluster_id), txn_doc(t, &b));
    buf_done(&b);
    return 1;
}

/* -- afterwards: what cad makes of the change is there when we answer, since the client asks for it next -- */

static bool same_text(const struct buf *old, struct str now)
{
    return old->n == now.n && (now.n == 0 || memcmp(old->p, now.p, now.n) == 0);
}

static void look_again(struct req *r);

static void on_new_key(struct req *r, const void *rep, const struct err *e)
{
    struct swarm_change *c = r->data;

    c->asking = false;
    if (e->code == 0) {
        struct str key = ((const struct cad_unlock_key_reply *)rep)->Key;
        bool settled = c->autolock ? key.n > 0 && (!c->rotate_key || !same_text(&c->old_key, key)) : key.n == 0;
        if (settled)
            c->watch_key = false;
    }
    if (c->again || (e->code == 0 && !c->watch_key))
        look_again(r);
}

static void on_new_tokens(struct req *r, const void *rep, const struct err *e)
{
    struct swarm_change *c = r->data;
    const struct cad_tokens_reply *t = rep;

    c->asking = false;
    if (e->code == 0) {
        c->rotate_worker = c->rotate_worker && same_text(&c->old_worker, t->Worker);
        c->rotate_manager = c->rotate_manager && same_text(&c->old_manager, t->Manager);
    }
    if (c->again || (e->code == 0 && !c->rotate_worker && !c->rotate_manager))
        look_again(r);
}

static void look_again(struct req *r)
{
    static const struct cad_empty none;
    struct swarm_change *c = r->data;

    if (r->answered)
        return;
    c->again = c->asking;
    if (c->asking)
        return;
    if (c->rotate_worker || c->rotate_manager) {
        c->asking = true;
        api_call(r, api.cad, &op_cad_tokens, &none, CAD_TIMEOUT_MS, on_new_tokens);
    } else if (c->watch_key) {
        c->asking = true;
        api_call(r, api.cad, &op_cad_unlock_key, &none, CAD_TIMEOUT_MS, on_new_key);
    } else {
        api_unwait(r);
        api_reply_empty(r, 200);
    }
}

static void update_wait(struct req *r, bool timed_out)
{
    struct swarm_change *c = r->data;

    if (timed_out)
        api_error(r, 500, "the change is stored, but cad has not made the new %s within 20 s",
                  c->watch_key ? "unlock key" : "join tokens");
    else
        look_again(r);
}

static void swarm_updated(struct req *r, uint64_t revision)
{
    struct swarm_change *c = r->data;

    (void)revision;
    if (c->rotate_worker || c->rotate_manager || c->watch_key)
        api_wait(r, update_wait, clock_mono().ms + API_WRITE_DEADLINE_MS);
    look_again(r);
}

/* -- before: a new root first, which cad may refuse -- */

static void prepare(struct req *r);

static void on_old_tokens(struct req *r, const void *rep, const struct err *e)
{
    struct swarm_change *c = r->data;
    const struct cad_tokens_reply *t = rep;

    if (e->code != 0) {
        api_fail(r, e);
        return;
    }
    buf_put(&c->old_worker, t->Worker.p, t->Worker.n);
    buf_put(&c->old_manager, t->Manager.p, t->Manager.n);
    c->have_tokens = true;
    prepare(r);
}

static void on_old_key(struct req *r, const void *rep, const struct err *e)
{
    struct swarm_change *c = r->data;
    const struct cad_unlock_key_reply *k = rep;

    if (e->code != 0) {
        api_fail(r, e);
        return;
    }
    buf_put(&c->old_key, k->Key.p, k->Key.n);
    c->have_key = true;
    prepare(r);
}

static void on_rotated(struct req *r, const void *rep, const struct err *e)
{
    struct swarm_change *c = r->data;

    (void)rep;
    if (e->code == ERR_INVALID || e->code == ERR_PRECONDITION) {
        api_rpc_error(r, e->code == ERR_INVALID ? RPC_INVALID : RPC_PRECONDITION, "%s", e->msg);
    } else if (e->code != 0) {
        log_error("swarm ca: %s", e->msg);
        api_fail(r, e);
    } else {
        c->rotated = true;
        prepare(r);
    }
}

static struct str json_str(json_t *o, const char *key)
{
    return str_from(json_string_value(json_object_get(o, key)) ?: "");
}

/* As they will stand in the spec: one of them may be who signs for the new root. */
static struct list external_cas(struct req *r, json_t *spec)
{
    json_t *all = json_object_get(json_object_get(spec, "CAConfig"), "ExternalCAs"), *x;
    struct cad_external_ca *v = arena_array(&r->arena, json_array_size(all) + 1, sizeof *v);
    size_t i;

    CHECK(v);
    json_array_foreach (all, i, x)
        v[i] = (struct cad_external_ca){ json_str(x, "Protocol"), json_str(x, "URL"), json_str(x, "CACert") };
    return (struct list){ v, json_array_size(all) };
}

static void prepare(struct req *r)
{
    static const struct cad_empty none;
    struct swarm_change *c = r->data;

    if ((c->rotate_worker || c->rotate_manager) && !c->have_tokens) {
        api_call(r, api.cad, &op_cad_tokens, &none, CAD_TIMEOUT_MS, on_old_tokens);
    } else if (c->watch_key && !c->have_key) {
        api_call(r, api.cad, &op_cad_unlock_key, &none, CAD_TIMEOUT_MS, on_old_key);
    } else if (c->new_root && !c->rotated) {
        struct cad_rotate in = { .SigningCACert = str_from(c->cert ?: ""),
                                 .SigningCAKey = str_from(c->cert_key ?: ""),
                                 .ExternalCAs = external_cas(r, c->spec) };
        api_call_node(r, STR("leader"), "cad", &op_cad_rotate, &in, ROTATE_TIMEOUT_MS, on_rotated);
    } else {
        api_write(r, attempt_swarm_update, swarm_updated);
    }
}

static char *take_text(json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    char *copy = text && *text ? strdup(text) : NULL;

    json_object_del(o, key);
    return copy;
}

/* What this update asks for besides a new spec, against the spec there is. */
static int compare(struct req *r, struct swarm_change *c)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    json_t *ca = json_object_get(c->spec, "CAConfig"), *lock, *force;
    struct store_meta meta;
    struct str doc;
    uint64_t version = 0, forced = 0;

    if (api_snap(r, &snap, &meta) < 0)
        return -1;
    if (store_get(snap, KIND_CLUSTER, meta.cluster_id, &doc) < 0)
        return api_refuse(r, 500, "the store holds no cluster object");
    (void)mp_get_u64(doc, "Version.Index", &version);
    (void)mp_get_u64(doc, "Spec.CAConfig.ForceRotate", &forced);
    (void)mp_get_bool(doc, "Spec.EncryptionConfig.AutoLockManagers", &c->was_locked);
    if (version != c->version)
        return api_out_of_sequence(r);
    c->cert = take_text(ca, "SigningCACert");
    c->cert_key = take_text(ca, "SigningCAKey");
    force = json_object_get(ca, "ForceRotate");
    c->new_root = c->cert || c->cert_key || (force && (uint64_t)json_integer_value(force) != forced);
    lock = json_object_get(json_object_get(c->spec, "EncryptionConfig"), "AutoLockManagers");
    c->autolock = lock ? json_is_true(lock) : c->was_locked;
    c->rotate_key = c->rotate_key && c->autolock;
    c->watch_key = c->autolock != c->was_locked || c->rotate_key;
    return 0;
}

void swarm_update(struct req *r)
{
    struct swarm_change *c = calloc(1, sizeof *c);
    struct store_snap *snap;
    struct err e = ERR_INIT;

    CHECK(c);
    r->data = c;
    r->free_data = swarm_change_free;
    if (query_version(&r->query, "swarm", &c->version, &e) < 0 ||
        query_rotate(&r->query, "rotateWorkerToken", &c->rotate_worker, &e) < 0 ||
        query_rotate(&r->query, "rotateManagerToken", &c->rotate_manager, &e) < 0 ||
        query_rotate(&r->query, "rotateManagerUnlockKey", &c->rotate_key, &e) < 0) {
        api_fail(r, &e);
        return;
    }
    if (api_snap(r, &snap, NULL) < 0)
        return;
    store_end(snap);
    c->spec = api_body(r, &obj_cluster_spec);
    if (!c->spec || swarm_spec_check(r, c->spec) < 0 || compare(r, c) < 0)
        return;
    prepare(r);
}

/* ---- the unlock key ---- */

static void on_unlock_key(struct req *r, const void *rep, const struct err *e)
{
    if (e->code != 0) {
        api_fail(r, e);
        return;
    }
    buf_puts(&r->out, "{\"UnlockKey\":");
    buf_json_str(&r->out, ((const struct cad_unlock_key_reply *)rep)->Key);
    buf_puts(&r->out, "}\n");
    api_reply(r, 200);
}

void swarm_unlockkey(struct req *r)
{
    static const struct cad_empty none;
    struct store_snap *snap;

    if (api_snap(r, &snap, NULL) < 0)
        return;
    store_end(snap);
    api_call(r, api.cad, &op_cad_unlock_key, &none, CAD_TIMEOUT_MS, on_unlock_key);
}
