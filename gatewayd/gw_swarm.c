/*
 * gw_swarm.c - what this manager's store says: who the managers are, which nodes there are and with which role, which
 * roots are trusted and who should have signed a node's certificate. Looked at when the store changes; told to the
 * peers.
 */
#include <openssl/x509.h>

#include "common/store/store.h"
#include "common/util/check.h"
#include "gatewayd/gw_authz.h"
#include "gatewayd/gw_lock.h"
#include "gatewayd/gw_route.h"
#include "gatewayd/gw_shell.h"

static struct {
    struct store *store;
    struct store_wake *wake;
    struct gw_swarm_view view;
    uint64_t seen;    /* store revision that has been looked at */
    bool again;       /* everything is to be looked at: our identity is another */
    uint64_t version; /* of managers and roots, for gw_link.told_swarm */
    struct buf group; /* its members */
    struct buf known; /* managers and roots, to see a change */
    struct buf told;  /* the control message that says them; empty: nothing is known */
    struct buf issuer_key;
    uint64_t alone_ms; /* since when there has been no leader; 0: there is one */
} swarm;

uint64_t gw_swarm_alone_ms(void)
{
    return swarm.alone_ms;
}

static void note_leader(const struct gw_swarm_view *before)
{
    if (swarm.view.current)
        swarm.alone_ms = 0;
    else if (swarm.alone_ms == 0)
        swarm.alone_ms = gw_now_ms();
    if (before->current != swarm.view.current || before->leader != swarm.view.leader)
        gw_ident_leader();
}

const struct gw_swarm_view *gw_swarm(void)
{
    return &swarm.view;
}

static struct str text_at(struct str doc, const char *path)
{
    struct str s = { NULL, 0 };
    (void)mp_get_str(doc, path, &s);
    return s;
}

/* ---- what peers are told ---- */

void gw_swarm_tell(struct gw_link *l)
{
    struct buf b = BUF_INIT;
    if (l->grace || !swarm.view.initialized || swarm.told.n == 0 || l->told_swarm == swarm.version ||
        l->role == RPC_NOBODY)
        return;
    buf_put(&b, swarm.told.p, swarm.told.n);
    if (gw_link_send(l, GW_CONTROL, 0, &b))
        l->told_swarm = swarm.version;
}

static size_t list_managers(struct store_snap *snap, struct gw_manager ret[STORE_MEMBERS_MAX])
{
    struct store_member m[STORE_MEMBERS_MAX];
    size_t n = store_members(snap, m), k = 0;
    for (size_t i = 0; i < n; i++) {
        struct str doc, addr = m[i].addr;
        if (addr.n == 0 && store_get(snap, KIND_NODE, m[i].node_id, &doc) == 0)
            addr = text_at(doc, "Status.ManagerAddr");
        if (addr.n > 0)
            ret[k++] = (struct gw_manager){ m[i].node_id, addr };
    }
    return k;
}

/* The roots that nodes trust now: in the cluster's TLSInfo, which covers a rotation. */
static struct str trust_roots(struct str cluster)
{
    struct str t = text_at(cluster, "TLSInfo.TrustRoot");
    return t.n > 0 ? t : text_at(cluster, "RootCA.Cert");
}

/* Has the group changed? It does so without any document's change. */
static bool group_moved(struct store_snap *snap)
{
    struct store_member m[STORE_MEMBERS_MAX];
    struct buf now = BUF_INIT;
    size_t n = store_members(snap, m);
    for (size_t i = 0; i < n; i++)
        buf_printf(&now, STR_FMT " " STR_FMT "\n", STR_ARG(m[i].node_id), STR_ARG(m[i].addr));
    bool moved = !str_eq(buf_str(&now), buf_str(&swarm.group));
    buf_done(&swarm.group);
    swarm.group = now;
    return moved;
}

static void look_at_swarm(struct store_snap *snap)
{
    struct gw_manager m[STORE_MEMBERS_MAX];
    struct str cluster = { NULL, 0 }, key;
    struct buf told = BUF_INIT;
    size_t n = list_managers(snap, m);
    (void)store_get(snap, KIND_CLUSTER, str_from(swarm.view.cluster_id), &cluster);
    struct gw_control c = { .Kind = STR("swarm"), .Managers = { m, n }, .Trust = trust_roots(cluster) };
    buf_clear(&swarm.issuer_key);
    struct mp_val v;
    if (mp_path(cluster, "TLSInfo.CertIssuerPublicKey", &key)) {
        struct mp_cursor at = mp_cursor(key);
        if (mp_next(&at, &v) == 0 && v.type == MP_BIN)
            buf_put(&swarm.issuer_key, v.s.p, v.s.n);
    }
    fields_encode(&c, gw_control_fields, &told);
    if (!swarm.again && str_eq(buf_str(&told), buf_str(&swarm.known))) {
        buf_done(&told);
        return;
    }
    buf_done(&swarm.known);
    swarm.known = told;
    swarm.again = false;
    swarm.version++;
    c.Rev = swarm.view.revision;
    buf_clear(&swarm.told);
    fields_encode(&c, gw_control_fields, &swarm.told);
    if (gw_ident()->cred.cert && strcmp(gw_ident()->cred.info.cluster, swarm.view.cluster_id) == 0 && n > 0)
        gw_ident_swarm(m, n, c.Trust, c.Rev);
    for (struct gw_link *l = gw_net.links; l; l = l->next) {
        if (l->state == GW_UP && !l->draining)
            gw_swarm_tell(l);
    }
}

/* ---- peers, against the store ---- */

static bool issuer_is_old(const struct gw_link *l)
{
    struct buf subject = BUF_INIT, key = BUF_INIT;
    bool old = swarm.issuer_key.n > 0 &&
               gw_cert_issuer(l->cert, gw_tls_peer_chain(l->tls), buf_str(&gw_ident()->cred.trust), &subject, &key) &&
               !str_eq(buf_str(&key), buf_str(&swarm.issuer_key));
    buf_done(&subject);
    buf_done(&key);
    return old;
}

static enum rpc_role role_of(struct str doc)
{
    struct str role = text_at(doc, "Role");
    return gw_role_by_name(role.n > 0 ? role : text_at(doc, "Spec.Role"));
}

static int admit(struct store_snap *snap, const char *node, enum rpc_role *role, struct err *e)
{
    struct str doc;
    if (store_get(snap, KIND_NODE, str_from(node), &doc) < 0) {
        if (swarm.view.current)
            return err_set(e, ERR_DENIED, "node %s is not part of this swarm (any more)", node);
        return *role == RPC_MANAGER ? 0 : err_set(e, ERR_UNAVAILABLE, "this manager does not know node %s yet", node);
    }
    if (*role == RPC_MANAGER && role_of(doc) == RPC_WORKER && swarm.view.current)
        *role = RPC_WORKER;
    return 0;
}

int gw_swarm_admit(const char *node, enum rpc_role *role, struct err *e)
{
    struct store_snap *snap;
    struct err ignored = ERR_INIT;
    if (gw_ident_role() != RPC_MANAGER)
        return 0; /* workers have no store: they talk to managers only */
    if (!swarm.view.initialized || store_begin(swarm.store, &snap, &ignored) < 0)
        return *role == RPC_MANAGER
                   ? 0
                   : err_set(e, ERR_UNAVAILABLE, "this manager is being prepared: node %s must ask another one", node);
    int r = admit(snap, node, role, e);
    store_end(snap);
    return r;
}

/* A link against the node's document. */
static void check_link(struct store_snap *snap, struct gw_link *l)
{
    struct err e = ERR_INIT;
    struct str doc;
    enum rpc_role role = l->peer.role;
    if (l->state != GW_UP || l->grace || l->role == RPC_NOBODY || gw_ident_role() != RPC_MANAGER)
        return;
    if (admit(snap, l->peer.node, &role, &e) < 0) {
        if (e.code == ERR_DENIED)
            gw_link_refuse(l, &e);
        return;
    }
    if (role != l->role) {
        log_info("role changed node=%s role=%s certificate=%s", l->peer.node, gw_role_name(role),
                 gw_role_name(l->peer.role));
        l->role = role;
        gw_shell_raft_link(l, role == RPC_MANAGER);
    }
    if (l->told_renew || l->draining || !swarm.view.leader || /* whose map is never behind */

        store_get(snap, KIND_NODE, str_from(l->peer.node), &doc) < 0)
        return;
    bool other_role = role_of(doc) != l->peer.role;
    if (other_role || issuer_is_old(l)) {
        log_info("asking for a new certificate node=%s role=%s", l->peer.node, gw_role_name(role_of(doc)));
        l->told_renew = gw_link_control(
            l, &(struct gw_control){ .Kind = STR("renew"),
                                     .Text = other_role ? STR("its role changed") : STR("the swarm has another root"),
                                     .Code = other_role });
    }
}

void gw_swarm_check(struct gw_link *l)
{
    struct store_snap *snap;
    struct err e = ERR_INIT;
    if (!swarm.view.initialized || store_begin(swarm.store, &snap, &e) < 0)
        return;
    check_link(snap, l);
    store_end(snap);
}

/* Our own certificate, by the same measures. */
static void check_self(struct store_snap *snap)
{
    const struct gw_credentials *c = &gw_ident()->cred;
    struct buf subject = BUF_INIT, key = BUF_INIT;
    struct str doc;
    if (!c->cert || !swarm.view.leader || store_get(snap, KIND_NODE, str_from(c->info.node), &doc) < 0)
        return;
    if (role_of(doc) != c->info.role)
        gw_ident_renew("the node's role changed", false);
    else if (swarm.issuer_key.n > 0 && gw_cert_issuer(c->cert, c->rest, buf_str(&c->trust), &subject, &key) &&
             !str_eq(buf_str(&key), buf_str(&swarm.issuer_key)))
        gw_ident_renew("the swarm has another root", true);
    buf_done(&subject);
    buf_done(&key);
}

static void check_all(struct store_snap *snap)
{
    for (struct gw_link *l = gw_net.links; l; l = l->next)
        check_link(snap, l);
}

struct changes {
    struct store_snap *snap;
    bool swarm;
};

static void on_change(void *arg, uint64_t revision, enum kind kind, struct str id, char op)
{
    struct changes *c = arg;
    (void)revision, (void)op;
    if (kind == KIND_CLUSTER)
        c->swarm = true;
    if (kind == KIND_CREDENTIAL && str_is(id, STORE_UNLOCK_KEY_ID))
        gw_lock_look();
    if (kind != KIND_NODE)
        return;
    struct gw_link *l = gw_hub_link(id);
    if (l)
        check_link(c->snap, l);
    if (str_is(id, gw_ident()->cred.info.node))
        check_self(c->snap);
}

/* ---- */

static void copy_meta(struct gw_swarm_view *v, const struct store_meta *m)
{
    *v = (struct gw_swarm_view){ .initialized = m->initialized, .leader = m->leader, .revision = m->revision };
    (void)str_copy(v->node_id, sizeof v->node_id, m->node_id);
    (void)str_copy(v->cluster_id, sizeof v->cluster_id, m->cluster_id);
    (void)str_copy(v->leader_id, sizeof v->leader_id, m->leader_id);
    v->current = v->initialized && v->leader_id[0];
}

static void look(struct store_snap *snap)
{
    struct gw_swarm_view before = swarm.view;
    struct changes c = { .snap = snap };
    struct store_meta meta;
    struct err e = ERR_INIT;
    if (store_meta(snap, &meta, &e) < 0) {
        log_warn("state map: %s", e.msg);
        return;
    }
    copy_meta(&swarm.view, &meta);
    note_leader(&before);
    bool all = !before.initialized || before.current != swarm.view.current || before.leader != swarm.view.leader ||
               swarm.seen == 0 || store_changes(snap, swarm.seen, on_change, &c, &e) < 0;
    swarm.seen = swarm.view.revision;
    if (swarm.view.initialized && (group_moved(snap) || all || c.swarm || swarm.again))
        look_at_swarm(snap);
    if (all) /* the unlock key may have changed with it */
        gw_lock_look();
    if (all || c.swarm) {
        check_all(snap);
        check_self(snap);
    }
    if (before.initialized != swarm.view.initialized)
        gw_ident_store_changed();
    if (before.leader != swarm.view.leader || strcmp(before.leader_id, swarm.view.leader_id) != 0 ||
        before.initialized != swarm.view.initialized)
        gw_route_retry();
}

static void on_wake(void *arg)
{
    struct store_snap *snap;
    struct err e = ERR_INIT;
    (void)arg;
    if (store_begin(swarm.store, &snap, &e) < 0) {
        struct gw_swarm_view before = swarm.view;
        bool was = before.initialized;
        swarm.view = (struct gw_swarm_view){ .initialized = false };
        note_leader(&before);
        swarm.seen = 0;
        if (was)
            gw_ident_store_changed();
        return;
    }
    look(snap);
    store_end(snap);
}

void gw_swarm_again(void)
{
    swarm.again = true;
    swarm.seen = 0;
    on_wake(NULL);
}

int gw_swarm_init(struct err *e)
{
    swarm.alone_ms = gw_now_ms();
    int r = store_open(&swarm.store, daemon_run_dir(), false, e);
    return r < 0 ? r : store_wake_open(&swarm.wake, daemon_loop(), daemon_run_dir(), on_wake, NULL, e);
}

void gw_swarm_done(void)
{
    swarm.wake = store_wake_free(swarm.wake);
    swarm.store = store_close(swarm.store);
    buf_done(&swarm.group);
    buf_done(&swarm.known);
    buf_done(&swarm.told);
    buf_done(&swarm.issuer_key);
}
