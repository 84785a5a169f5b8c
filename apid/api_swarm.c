/* /swarm: init, inspect, update, leave; and what `docker info` says of the swarm. */
#include <arpa/inet.h>
#include <stdio.h>
#include <strings.h>

#include "apid/api_addr.h"
#include "apid/api_resources.h"
#include "common/proto/msg_agentd.h"
#include "common/util/check.h"
#include "common/util/id.h"

#define CERT_EXPIRY_MIN_NS 3600000000000ll
#define CERT_EXPIRY_DEFAULT_NS 7776000000000000ll
#define HEARTBEAT_DEFAULT_NS 5000000000ll
#define LEAVE_TIMEOUT_MS 60000u

static const char already[] =
    "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and "
    "join another one.";

/* ---- as clients see the cluster ---- */

static void put_tokens(struct buf *b, struct str cluster)
{
    mp_cstr(b, "JoinTokens");
    mp_map(b, 2);
    mp_kv_str(b, "Worker", text_at(cluster, "JoinTokens.Worker"));
    mp_kv_str(b, "Manager", text_at(cluster, "JoinTokens.Manager"));
}

static void cluster_patch(struct buf *b, struct str cluster, bool tokens)
{
    static const char *const ours[] = { "Rev", "RootCA", "TokenEpoch" };

    mp_map(b, 5);
    for (size_t i = 0; i < 3; i++) {
        mp_cstr(b, ours[i]);
        mp_nil(b);
    }
    mp_kv_bool(b, "RootRotationInProgress", false);
    if (tokens) {
        put_tokens(b, cluster);
    } else {
        mp_cstr(b, "JoinTokens");
        mp_nil(b);
    }
}

void swarm_inspect(struct req *r)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct buf patch = BUF_INIT;
    struct store_meta meta;
    struct str doc;

    if (api_snap(r, &snap, &meta) < 0)
        return;
    if (store_get(snap, KIND_CLUSTER, meta.cluster_id, &doc) < 0) {
        api_error(r, 500, "the store holds no cluster object");
        return;
    }
    cluster_patch(&patch, doc, true);
    if (api_emit(r, &obj_cluster, doc, buf_str(&patch)) == 0) {
        buf_putc(&r->out, '\n');
        api_reply(r, 200);
    }
    buf_done(&patch);
}

static void info_cluster(struct buf *out, struct str doc)
{
    struct buf patch = BUF_INIT, merged = BUF_INIT;
    struct err e = ERR_INIT;
    size_t mark = out->n;

    cluster_patch(&patch, doc, false);
    buf_puts(out, ",\"Cluster\":");
    if (mp_merge(&merged, doc, buf_str(&patch), &e) < 0 ||
        obj_write_json(&obj_cluster, buf_str(&merged), out, &e) < 0) {
        log_error("info: %s", e.msg);
        out->n = mark;
    }
    buf_done(&patch);
    buf_done(&merged);
}

static void info_managers(struct buf *out, struct store_snap *snap, uint64_t *ret_nodes, uint64_t *ret_managers)
{
    struct store_iter it;
    bool any = false;

    *ret_nodes = *ret_managers = 0;
    buf_puts(out, ",\"RemoteManagers\":[");
    for (store_each(snap, KIND_NODE, &it); store_next(&it);) {
        ++*ret_nodes;
        if (!str_is(text_at(it.doc, "Spec.Role"), "manager"))
            continue;
        ++*ret_managers;
        buf_puts(out, any ? ",{\"NodeID\":" : "{\"NodeID\":");
        buf_json_str(out, it.id);
        buf_puts(out, ",\"Addr\":");
        buf_json_str(out, text_at(it.doc, "ManagerAddr"));
        buf_putc(out, '}');
        any = true;
    }
    buf_putc(out, ']');
}

static const char inactive[] =
    "{\"NodeID\":\"\",\"NodeAddr\":\"\",\"LocalNodeState\":\"inactive\",\"ControlAvailable\":"
    "false,\"Error\":\"\",\"RemoteManagers\":null}";

void swarm_info(struct buf *out)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct err e = ERR_INIT;
    struct store_meta meta;
    struct str node = { NULL, 0 }, cluster, addr;
    uint64_t nodes, managers;

    if (store_begin(api.store, &snap, &e) < 0 || store_meta(snap, &meta, &e) < 0 || !meta.initialized) {
        buf_puts(out, inactive);
        return;
    }
    (void)store_get(snap, KIND_NODE, meta.node_id, &node);
    addr = text_at(node, "ManagerAddr");
    while (addr.n > 0 && addr.p[addr.n - 1] != ':')
        addr.n--;
    addr.n -= addr.n > 0;
    buf_puts(out, "{\"NodeID\":");
    buf_json_str(out, meta.node_id);
    buf_puts(out, ",\"NodeAddr\":");
    buf_json_str(out, addr);
    buf_puts(out, ",\"LocalNodeState\":\"active\",\"ControlAvailable\":true,\"Error\":\"\"");
    info_managers(out, snap, &nodes, &managers);
    buf_printf(out, ",\"Nodes\":%llu,\"Managers\":%llu", (unsigned long long)nodes, (unsigned long long)managers);
    if (store_get(snap, KIND_CLUSTER, meta.cluster_id, &cluster) == 0)
        info_cluster(out, cluster);
    buf_putc(out, '}');
}

const char *swarm_header(void)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct err e = ERR_INIT;
    struct store_meta meta;

    if (store_begin(api.store, &snap, &e) < 0 || store_meta(snap, &meta, &e) < 0 || !meta.initialized)
        return "inactive";
    return "active/manager";
}

/* ---- the cluster's spec ---- */

static json_t *sub(json_t *o, const char *key)
{
    json_t *v = json_object_get(o, key);

    if (!json_is_object(v)) {
        v = json_object();
        json_object_set_new(o, key, v);
    }
    return v;
}

static void fill(json_t *o, const char *key, int64_t v)
{
    if (json_integer_value(json_object_get(o, key)) == 0)
        json_object_set_new(o, key, json_integer(v));
}

/* Zero means "the default", as the CLI sends it; an explicit history limit of 0 is meant. */
static void fill_defaults(json_t *spec)
{
    json_t *raft = sub(spec, "Raft"), *orch = sub(spec, "Orchestration");

    json_object_set_new(spec, "Name", json_string("default"));
    (void)sub(spec, "Labels");
    if (!json_object_get(orch, "TaskHistoryRetentionLimit"))
        json_object_set_new(orch, "TaskHistoryRetentionLimit", json_integer(5));
    fill(raft, "SnapshotInterval", 10000);
    if (!json_object_get(raft, "KeepOldSnapshots"))
        json_object_set_new(raft, "KeepOldSnapshots", json_integer(0));
    fill(raft, "LogEntriesForSlowFollowers", 500);
    fill(raft, "ElectionTick", 10);
    fill(raft, "HeartbeatTick", 1);
    fill(sub(spec, "Dispatcher"), "HeartbeatPeriod", HEARTBEAT_DEFAULT_NS);
    fill(sub(spec, "CAConfig"), "NodeCertExpiry", CERT_EXPIRY_DEFAULT_NS);
    (void)sub(spec, "TaskDefaults");
    if (!json_object_get(sub(spec, "EncryptionConfig"), "AutoLockManagers"))
        json_object_set_new(sub(spec, "EncryptionConfig"), "AutoLockManagers", json_false());
}

/* An update keeps what it leaves at zero (docker-api.md §3.2). Labels are replaced. */
static void keep_unset(json_t *spec, json_t *old)
{
    const char *key;
    json_t *v;

    json_object_foreach (old, key, v) {
        json_t *have = json_object_get(spec, key);
        bool zero = !have || (json_is_integer(have) && json_integer_value(have) == 0 &&
                              strcmp(key, "TaskHistoryRetentionLimit") != 0 && strcmp(key, "KeepOldSnapshots") != 0);
        if (zero)
            json_object_set(spec, key, v);
        else if (json_is_object(have) && json_is_object(v) && strcmp(key, "Labels") != 0)
            keep_unset(have, v);
    }
}

static int check_swarm_spec(struct req *r, json_t *spec)
{
    const char *name = json_string_value(json_object_get(spec, "Name")) ?: "";
    json_t *ca = json_object_get(spec, "CAConfig"), *x;
    int64_t expiry = json_integer_value(json_object_get(ca, "NodeCertExpiry"));
    size_t i;

    if (*name && strcmp(name, "default") != 0)
        return api_refuse(r, 400, "swarm spec must be named \"default\"");
    json_array_foreach (json_object_get(ca, "ExternalCAs"), i, x) {
        const char *protocol = json_string_value(json_object_get(x, "Protocol")) ?: "";
        if (*protocol && strcasecmp(protocol, "cfssl") != 0)
            return api_refuse(r, 400, "invalid protocol: \"%s\"", protocol);
    }
    if (expiry != 0 && expiry < CERT_EXPIRY_MIN_NS)
        return api_rpc_refuse(r, RPC_INVALID, "minimum certificate expiry time is: 1h0m0s");
    if (json_integer_value(json_object_get(json_object_get(spec, "Dispatcher"), "HeartbeatPeriod")) < 0)
        return api_rpc_refuse(r, RPC_INVALID, "heartbeat time period cannot be a negative duration");
    if (json_is_true(json_object_get(json_object_get(spec, "EncryptionConfig"), "AutoLockManagers")))
        return api_rpc_refuse(r, RPC_UNIMPLEMENTED, "autolock is not supported by this version of microswarm");
    if (json_integer_value(json_object_get(ca, "ForceRotate")) != 0 || json_object_get(ca, "SigningCACert"))
        return api_rpc_refuse(r, RPC_UNIMPLEMENTED, "root rotation is not supported by this version of microswarm");
    return 0;
}

/* ---- init ---- */

struct init {
    json_t *body;
    char cluster_id[ID_SIZE], node_id[ID_SIZE];
    char manager_addr[ADDR_TEXT_MAX + 10], ip[ADDR_TEXT_MAX];
    struct buf cluster, node;
    bool sent;
};

static void init_free(void *p)
{
    struct init *i = p;

    json_decref(i->body);
    buf_done(&i->cluster);
    buf_done(&i->node);
    free(i);
}

static const char *body_text(json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key)) ?: "";
}

/* An address as the user gave it, to an IP address; the error is Docker's for this kind of address. */
static int resolve_host(struct req *r, const struct ifaddrs *all, struct host_port *a, const char *what,
                        bool any_allowed)
{
    struct err e = ERR_INIT;

    if (!addr_is_ip(a->host) && addr_of_interface(all, a->host, a->host, &e) < 0) {
        if (e.code == ERR_NOT_FOUND)
            return api_refuse(r, 400, "%s", what);
        api_fail(r, &e);
        return -1;
    }
    return any_allowed || !addr_is_any(a->host) ? 0 : api_refuse(r, 400, "%s", what);
}

static int resolve_addrs(struct req *r, struct init *i, const struct ifaddrs *all)
{
    const char *listen = body_text(i->body, "ListenAddr"), *advertise = body_text(i->body, "AdvertiseAddr"),
               *data = body_text(i->body, "DataPathAddr");
    struct host_port l, a, d;
    struct err e = ERR_INIT;

    if (addr_parse(str_from(listen), SWARM_PORT_DEFAULT, &l, &e) < 0)
        return api_refuse(r, 400, "invalid ListenAddr \"%s\": %s", listen, e.msg);
    if (resolve_host(r, all, &l,
                     "listen address must be an IP address or network interface (with optional port number)", true) < 0)
        return -1;
    if (*advertise) {
        const char *what = "advertise address must be a non-zero IP address or network interface (with optional port "
                           "number)";
        if (addr_parse(str_from(advertise), l.port, &a, &e) < 0)
            return api_refuse(r, 400, "%s", what);
        if (resolve_host(r, all, &a, what, false) < 0)
            return -1;
    } else if (!addr_is_any(l.host)) {
        a = l;
    } else {
        a.port = l.port;
        if (addr_of_system(all, a.host, &e) < 0) {
            api_fail(r, &e);
            return -1;
        }
    }
    if (*data) {
        const char *what =
            "data path address must be a non-zero IP address or network interface (without a port number)";
        if (addr_parse(str_from(data), 0, &d, &e) < 0 || d.port != 0)
            return api_refuse(r, 400, "%s", what);
        if (resolve_host(r, all, &d, what, false) < 0)
            return -1;
    }
    addr_join(&a, i->manager_addr);
    (void)str_copy(i->ip, sizeof i->ip, str_from(a.host));
    return 0;
}

static int check_pools(struct req *r, json_t *pools, uint64_t size)
{
    json_t *p;
    size_t k;

    if (size > 29)
        return api_refuse(r, 400, "subnet size is out of range: %llu", (unsigned long long)size);
    json_array_foreach (pools, k, p) {
        const char *text = json_string_value(p) ?: "";
        const char *slash = strchr(text, '/');
        char host[ADDR_TEXT_MAX];
        unsigned char b[16];
        uint64_t bits;
        if (!slash || !str_copy(host, sizeof host, (struct str){ text, (size_t)(slash - text) }) ||
            inet_pton(AF_INET, host, b) != 1 || !str_u64(str_from(slash + 1), &bits) || bits > 32)
            return api_refuse(r, 400, "invalid CIDR address: %s", text);
        if (bits > size)
            return api_refuse(r, 400, "invalid CIDR: \"%s\". Subnet size is too small for pool: %llu", text,
                              (unsigned long long)size);
    }
    return 0;
}

static int pack_cluster(struct req *r, struct init *i)
{
    json_t *spec = sub(i->body, "Spec"), *pools = json_object_get(i->body, "DefaultAddrPool"), *p;
    int64_t size = json_integer_value(json_object_get(i->body, "SubnetSize"));
    int64_t port = json_integer_value(json_object_get(i->body, "DataPathPort"));
    struct buf packed = BUF_INIT, *b = &i->cluster;
    struct err e = ERR_INIT;
    size_t k, npools = pools ? json_array_size(pools) : 1;

    size = size ? size : 24;
    if (size < 0 || check_pools(r, pools, (uint64_t)size) < 0)
        return size < 0 ? api_refuse(r, 400, "subnet size is out of range: %lld", (long long)size) : -1;
    if (port != 0 && (port < 1024 || port > 49151))
        return api_refuse(r, 400, "Datapath port number is not in valid range (1024-49151) : %lld", (long long)port);
    fill_defaults(spec);
    if (obj_check(&obj_cluster_spec, spec, &e) < 0 || obj_pack(&obj_cluster_spec, spec, &packed, &e) < 0) {
        buf_done(&packed);
        api_fail(r, &e);
        return -1;
    }
    mp_map(b, 5u + (npools > 0));
    mp_kv_cstr(b, "ID", i->cluster_id);
    mp_kv_raw(b, "Spec", buf_str(&packed));
    mp_kv_u64(b, "SubnetSize", (uint64_t)size);
    mp_kv_u64(b, "DataPathPort", port ? (uint64_t)port : 4789);
    mp_cstr(b, "TokenEpoch");
    mp_map(b, 2);
    mp_kv_u64(b, "Worker", 1);
    mp_kv_u64(b, "Manager", 1);
    if (npools > 0) {
        mp_cstr(b, "DefaultAddrPool");
        mp_array(b, npools);
        if (!pools)
            mp_cstr(b, "10.0.0.0/8");
        json_array_foreach (pools, k, p)
            mp_cstr(b, json_string_value(p));
    }
    buf_done(&packed);
    return 0;
}

static int pack_node(struct req *r, struct init *i)
{
    const char *avail = body_text(i->body, "Availability");
    struct buf *b = &i->node;

    if (!*avail)
        avail = "active";
    if (strcmp(avail, "active") != 0 && strcmp(avail, "pause") != 0 && strcmp(avail, "drain") != 0)
        return api_refuse(r, 400, "invalid Availability: \"%s\"", avail);
    mp_map(b, 4);
    mp_kv_cstr(b, "ID", i->node_id);
    mp_cstr(b, "Spec");
    mp_map(b, 3);
    mp_kv_cstr(b, "Role", "manager");
    mp_kv_cstr(b, "Availability", avail);
    mp_cstr(b, "Labels");
    mp_map(b, 0);
    mp_cstr(b, "Status");
    mp_map(b, 2);
    mp_kv_cstr(b, "State", "unknown");
    mp_kv_cstr(b, "Addr", i->ip);
    mp_kv_cstr(b, "ManagerAddr", i->manager_addr);
    return 0;
}

/* Done when cad has made the join tokens: the CLI prints one next. */
static bool tokens_ready(void)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct err e = ERR_INIT;
    struct store_meta meta;
    struct str doc;
    uint64_t want[2] = { 0, 0 }, have[2] = { 0, 0 };

    if (store_begin(api.store, &snap, &e) < 0 || store_meta(snap, &meta, &e) < 0 || !meta.initialized ||
        store_get(snap, KIND_CLUSTER, meta.cluster_id, &doc) < 0)
        return false;
    (void)mp_get_u64(doc, "TokenEpoch.Worker", &want[0]);
    (void)mp_get_u64(doc, "TokenEpoch.Manager", &want[1]);
    (void)mp_get_u64(doc, "RootCA.TokenEpoch.Worker", &have[0]);
    (void)mp_get_u64(doc, "RootCA.TokenEpoch.Manager", &have[1]);
    return want[0] == have[0] && want[1] == have[1] && text_at(doc, "JoinTokens.Worker").n > 0 &&
           text_at(doc, "JoinTokens.Manager").n > 0;
}

static void reply_init(struct req *r)
{
    struct init *i = r->data;

    buf_printf(&r->out, "\"%s\"\n", i->node_id);
    api_reply(r, 200);
}

static void init_wait(struct req *r, bool timed_out)
{
    if (tokens_ready()) {
        api_unwait(r);
        reply_init(r);
    } else if (timed_out) {
        api_error(r, 500, "the swarm was started, but cad has not made its certificates and join tokens within 20 s");
    }
}

static void bootstrapped(struct req *r, const void *rep, const struct err *e)
{
    (void)rep;
    if (e->code != 0) {
        log_error("swarm init: %s", e->msg);
        if (e->code == ERR_CONFLICT || e->code == ERR_PRECONDITION)
            api_error(r, 503, "%s", already);
        else
            api_fail(r, e);
        return;
    }
    api_wait(r, init_wait, clock_mono().ms + API_WRITE_DEADLINE_MS);
    if (tokens_ready()) {
        api_unwait(r);
        reply_init(r);
    }
}

static bool in_swarm(void)
{
    return strcmp(swarm_header(), "inactive") != 0;
}

void swarm_init(struct req *r)
{
    struct init *i = calloc(1, sizeof *i);
    struct ifaddrs *all = NULL;

    CHECK(i);
    r->data = i;
    r->free_data = init_free;
    i->body = api_body(r, &obj_swarm_init);
    if (!i->body)
        return;
    if (json_is_true(json_object_get(i->body, "ForceNewCluster"))) {
        api_error(r, 501, "--force-new-cluster is not supported by this version of microswarm");
        return;
    }
    if (in_swarm()) {
        api_error(r, 503, "%s", already);
        return;
    }
    if (json_is_true(json_object_get(i->body, "AutoLockManagers"))) {
        api_rpc_error(r, RPC_UNIMPLEMENTED, "autolock is not supported by this version of microswarm");
        return;
    }
    id_new(i->cluster_id);
    id_new(i->node_id);
    (void)getifaddrs(&all);
    int rc = resolve_addrs(r, i, all);
    freeifaddrs(all);
    if (rc < 0 || check_swarm_spec(r, sub(i->body, "Spec")) < 0 || pack_cluster(r, i) < 0 || pack_node(r, i) < 0)
        return;
    struct txn_change changes[] = {
        { .Op = STR("create"), .Kind = STR("cluster"), .ID = str_from(i->cluster_id), .Doc = buf_str(&i->cluster) },
        { .Op = STR("create"), .Kind = STR("node"), .ID = str_from(i->node_id), .Doc = buf_str(&i->node) },
    };
    struct raftd_bootstrap in = { .ClusterID = str_from(i->cluster_id),
                                  .NodeID = str_from(i->node_id),
                                  .Changes = { changes, 2 } };
    api_call(r, api.raftd, &op_raftd_bootstrap, &in, API_WRITE_DEADLINE_MS, bootstrapped);
}

/* ---- update ---- */

struct swarm_change {
    json_t *spec;
    uint64_t version;
    bool rotate_worker, rotate_manager;
    uint64_t worker, manager; /* token epochs after the change */
};

static void swarm_change_free(void *p)
{
    struct swarm_change *c = p;

    json_decref(c->spec);
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
    keep_unset(c->spec, before);
    fill_defaults(c->spec);
    if (obj_check(&obj_cluster_spec, c->spec, &e) < 0 || obj_pack(&obj_cluster_spec, c->spec, &packed, &e) < 0)
        goto out;
    mp_map(b, 2);
    mp_kv_raw(b, "Spec", buf_str(&packed));
    mp_cstr(b, "TokenEpoch");
    mp_map(b, 2);
    mp_kv_u64(b, "Worker", c->worker);
    mp_kv_u64(b, "Manager", c->manager);
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
    uint64_t version = 0, worker = 1, manager = 1;
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
    if (version != c->version) {
        if (r->write.uncertain && worker == c->worker && manager == c->manager)
            return 0;
        return api_rpc_refuse(r, RPC_UNKNOWN, "update out of sequence");
    }
    c->worker = worker + c->rotate_worker;
    c->manager = manager + c->rotate_manager;
    if (pack_update(r, c, doc, &b) < 0) {
        buf_done(&b);
        return -1;
    }
    txn_require_version(t, KIND_CLUSTER, meta.cluster_id, version);
    txn_update(t, KIND_CLUSTER, arena_str(&t->arena, meta.cluster_id), txn_doc(t, &b));
    buf_done(&b);
    return 1;
}

static void update_wait(struct req *r, bool timed_out)
{
    if (tokens_ready()) {
        api_unwait(r);
        api_reply_empty(r, 200);
    } else if (timed_out) {
        api_error(r, 500, "the change is stored, but cad has not made the new join tokens within 20 s");
    }
}

static void swarm_updated(struct req *r, uint64_t revision)
{
    (void)revision;
    if (tokens_ready())
        api_reply_empty(r, 200);
    else
        api_wait(r, update_wait, clock_mono().ms + API_WRITE_DEADLINE_MS);
}

void swarm_update(struct req *r)
{
    struct swarm_change *c = calloc(1, sizeof *c);
    struct store_snap *snap;
    struct err e = ERR_INIT;
    bool unlock_key;

    CHECK(c);
    r->data = c;
    r->free_data = swarm_change_free;
    if (query_version(&r->query, "swarm", &c->version, &e) < 0 ||
        query_rotate(&r->query, "rotateWorkerToken", &c->rotate_worker, &e) < 0 ||
        query_rotate(&r->query, "rotateManagerToken", &c->rotate_manager, &e) < 0 ||
        query_rotate(&r->query, "rotateManagerUnlockKey", &unlock_key, &e) < 0) {
        api_fail(r, &e);
        return;
    }
    if (api_snap(r, &snap, NULL) < 0)
        return;
    store_end(snap);
    c->spec = api_body(r, &obj_cluster_spec);
    if (!c->spec || check_swarm_spec(r, c->spec) < 0)
        return;
    api_write(r, attempt_swarm_update, swarm_updated);
}

/* ---- leave, and what later versions bring ---- */

static void left(struct req *r, const void *rep, const struct err *e)
{
    (void)rep;
    if (e->code != 0) {
        log_error("swarm leave: %s", e->msg);
        api_fail(r, e);
        return;
    }
    api_reply_empty(r, 200);
}

/* Tasks first: once the store is gone nobody would tell the agent to stop them. */
static void tasks_gone(struct req *r, const void *rep, const struct err *e)
{
    static const struct raftd_empty none;

    (void)rep;
    if (e->code != 0)
        log_warn("swarm leave: agentd: %s; its tasks are left to it", e->msg);
    api_call(r, api.raftd, &op_raftd_reset, &none, LEAVE_TIMEOUT_MS, left);
}

void swarm_leave(struct req *r)
{
    static const struct agent_empty none;

    if (!in_swarm()) {
        api_error(r, 503, "This node is not part of a swarm");
        return;
    }
    if (!query_loose(&r->query, "force")) {
        api_error(
            r, 503,
            "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last "
            "manager erases all current state of the swarm. Use `--force` to ignore this message. ");
        return;
    }
    api_call(r, api.agentd, &op_agent_leave, &none, LEAVE_TIMEOUT_MS, tasks_gone);
}

void swarm_join(struct req *r)
{
    if (in_swarm())
        api_error(r, 503, "%s", already);
    else
        api_error(r, 501, "joining a swarm is not supported by this version of microswarm");
}

void swarm_unlock(struct req *r)
{
    if (in_swarm())
        api_error(r, 409, "swarm is not locked");
    else
        api_error(r, 503, "%s", api_not_in_swarm);
}

void swarm_unlockkey(struct req *r)
{
    struct store_snap *snap;

    if (api_snap(r, &snap, NULL) < 0)
        return;
    store_end(snap);
    buf_puts(&r->out, "{\"UnlockKey\":\"\"}\n");
    api_reply(r, 200);
}
