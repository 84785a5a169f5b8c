/* /swarm: init, join, leave, unlock: how this node gets into a swarm and out of it. */
#include <arpa/inet.h>
#include <stdio.h>

#include "apid/api_members.h"
#include "apid/api_networks.h"
#include "apid/api_resources.h"
#include "apid/api_state.h"
#include "apid/api_swarm_spec.h"
#include "common/daemon/addr.h"
#include "common/proto/msg_agentd.h"
#include "common/proto/msg_cad.h"
#include "common/util/check.h"
#include "common/util/crypto.h"
#include "common/util/id.h"

#define LEAVE_TIMEOUT_MS 60000u
#define DEMOTE_TIMEOUT_MS 10000u
#define GATEWAY_TIMEOUT_MS 20000u
#define STATUS_TIMEOUT_MS 3000u
#define ROLE_TIMEOUT_MS 5000u
#define LEAVE_BARRIER_MS 2000u
#define UNLOCK_TIMEOUT_MS 3000u
#define DESCRIBE_TIMEOUT_MS 2000u

static const char already[] =
    "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and "
    "join another one.";
static const char join_timeout[] =
    "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the "
    "\"docker info\" command to see the current swarm status of your node.";

static bool in_swarm(void)
{
    enum swarm_state s = state_now();
    return s != SWARM_INACTIVE && s != SWARM_ERROR;
}

static bool comes_up(enum swarm_state s)
{
    return s == SWARM_BOOTING || s == SWARM_STARTING;
}

/* A manager that reads its own store, and knows who leads it. */
static bool manager_is_up(struct str *ret_node, char buf[ID_SIZE])
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct err e = ERR_INIT;
    struct store_meta meta;

    if (store_begin(api.store, &snap, &e) < 0 || store_meta(snap, &meta, &e) < 0 || !meta.initialized ||
        meta.leader_id.n == 0 || !str_copy(buf, ID_SIZE, meta.node_id))
        return false;
    *ret_node = str_from(buf);
    return true;
}

/* ---- addresses ---- */

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

static int resolve_advertise(struct req *r, const struct ifaddrs *all, const char *text, const struct host_port *listen,
                             struct host_port *ret, bool joining)
{
    static const char what[] =
        "advertise address must be a non-zero IP address or network interface (with optional port number)";
    struct err e = ERR_INIT;

    if (*text) {
        if (addr_parse(str_from(text), listen->port, ret, &e) < 0)
            return api_refuse(r, 400, "%s", what);
        return resolve_host(r, all, ret, what, false);
    }
    *ret = *listen;
    if (!addr_is_any(listen->host) || addr_of_system(all, ret->host, &e) == 0)
        return 0;
    ret->host[0] = '\0';
    if (joining) /* the manager that is joined sees where we come from */
        return 0;
    api_fail(r, &e);
    return -1;
}

static int resolve_data_path(struct req *r, const struct ifaddrs *all, const char *text, char ret[ADDR_HOST_MAX])
{
    static const char what[] =
        "data path address must be a non-zero IP address or network interface (without a port number)";
    struct host_port d;
    struct err e = ERR_INIT;

    if (!*text)
        return 0;
    if (addr_parse(str_from(text), 0, &d, &e) < 0 || d.port != 0)
        return api_refuse(r, 400, "%s", what);
    if (resolve_host(r, all, &d, what, false) < 0)
        return -1;
    (void)str_copy(ret, ADDR_HOST_MAX, str_from(d.host));
    return 0;
}

int swarm_resolve_addrs(struct req *r, const char *listen, const char *advertise, const char *data, bool joining,
                        struct swarm_addrs *ret)
{
    struct host_port l, a;
    struct err e = ERR_INIT;
    struct ifaddrs *all = NULL;
    int rc = -1;

    *ret = (struct swarm_addrs){ "", "", "" };
    (void)getifaddrs(&all);
    if (addr_parse(str_from(listen), SWARM_PORT, &l, &e) < 0)
        (void)api_refuse(r, 400, "invalid ListenAddr \"%s\": %s", listen, e.msg);
    else if (resolve_host(r, all, &l,
                          "listen address must be an IP address or network interface (with optional port number)",
                          true) == 0 &&
             resolve_advertise(r, all, advertise, &l, &a, joining) == 0)
        rc = resolve_data_path(r, all, data, ret->data);
    freeifaddrs(all);
    if (rc < 0)
        return rc;
    addr_text(&l, ret->listen);
    if (a.host[0])
        addr_text(&a, ret->advertise);
    return 0;
}

/* ---- init ---- */

struct init {
    json_t *body;
    char cluster_id[ID_SIZE], node_id[ID_SIZE];
    struct swarm_addrs addrs;
    struct buf cluster, node, ingress;
    bool have_tokens, asking, again;
};

static void init_free(void *p)
{
    struct init *i = p;

    json_decref(i->body);
    buf_done(&i->cluster);
    buf_done(&i->node);
    buf_done(&i->ingress);
    free(i);
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
        char host[ADDR_HOST_MAX];
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
    json_t *spec = json_sub(i->body, "Spec"), *pools = json_object_get(i->body, "DefaultAddrPool"), *p;
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
    if (json_is_true(json_object_get(i->body, "AutoLockManagers")))
        json_object_set_new(json_sub(spec, "EncryptionConfig"), "AutoLockManagers", json_true());
    swarm_spec_defaults(spec);
    if (obj_check(&obj_cluster_spec, spec, &e) < 0 || obj_pack(&obj_cluster_spec, spec, &packed, &e) < 0) {
        buf_done(&packed);
        api_fail(r, &e);
        return -1;
    }
    mp_map(b, 6u + (npools > 0));
    mp_kv_cstr(b, "ID", i->cluster_id);
    mp_kv_raw(b, "Spec", buf_str(&packed));
    mp_kv_u64(b, "SubnetSize", (uint64_t)size);
    mp_kv_u64(b, "DataPathPort", port ? (uint64_t)port : 4789);
    mp_cstr(b, "TokenEpoch");
    mp_map(b, 2);
    mp_kv_u64(b, "Worker", 1);
    mp_kv_u64(b, "Manager", 1);
    mp_kv_u64(b, "UnlockKeyEpoch", 1);
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

/* The word for it in the store; NULL after answering. */
static const char *availability(struct req *r, json_t *body)
{
    const char *avail = body_text(body, "Availability");

    if (!*avail)
        return "active";
    if (strcmp(avail, "active") == 0 || strcmp(avail, "pause") == 0 || strcmp(avail, "drain") == 0)
        return avail;
    api_error(r, 400, "invalid Availability: \"%s\"", avail);
    return NULL;
}

static void pack_node(struct init *i, const char *avail)
{
    struct buf *b = &i->node;

    buf_clear(b);
    mp_map(b, 4);
    mp_kv_cstr(b, "ID", i->node_id);
    mp_kv_cstr(b, "Role", "manager");
    mp_cstr(b, "Spec");
    mp_map(b, 3);
    mp_kv_cstr(b, "Role", "manager");
    mp_kv_cstr(b, "Availability", avail);
    mp_cstr(b, "Labels");
    mp_map(b, 0);
    mp_cstr(b, "Status");
    mp_map(b, 2);
    mp_kv_cstr(b, "State", "unknown");
    mp_kv_str(b, "Addr", addr_host(str_from(i->addrs.advertise)));
}

/* -- the end: when the tokens are made and this node has its certificate, since the CLI asks for one next -- */

/* Has this manager's agent told the swarm what this node is? `node ls` right afterwards shows it. */
static bool described(void)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct err e = ERR_INIT;
    struct store_meta meta;
    struct str doc;

    return store_begin(api.store, &snap, &e) == 0 && store_meta(snap, &meta, &e) == 0 &&
           store_get(snap, KIND_NODE, meta.node_id, &doc) == 0 && text_at(doc, "Description.Hostname").n > 0;
}

static void described_wait(struct req *r, bool timed_out)
{
    if (timed_out || described()) {
        api_unwait(r);
        api_reply(r, 200);
    }
}

/* reply_described - what is in r->out, a moment later when the agent has not spoken yet; without it, too. */
static void reply_described(struct req *r)
{
    api_wait(r, described_wait, clock_mono().ms + DESCRIBE_TIMEOUT_MS);
    described_wait(r, false);
}

static void init_look(struct req *r);

static void init_tokens(struct req *r, const void *rep, const struct err *e)
{
    struct init *i = r->data;

    (void)rep;
    i->asking = false;
    i->have_tokens = e->code == 0;
    if (i->have_tokens || i->again)
        init_look(r);
}

static void init_look(struct req *r)
{
    static const struct cad_empty none;
    struct init *i = r->data;
    struct str node;
    char buf[ID_SIZE];

    if (r->answered)
        return;
    if (!i->have_tokens) {
        i->again = i->asking;
        if (!i->asking) {
            i->asking = true;
            api_call(r, api.cad, &op_cad_tokens, &none, API_AGENT_DEADLINE_MS, init_tokens);
        }
        return;
    }
    if (manager_is_up(&node, buf) && str_is(state_identity()->State, "active")) {
        buf_printf(&r->out, "\"%s\"\n", buf);
        reply_described(r);
    }
}

static void init_wait(struct req *r, bool timed_out)
{
    struct init *i = r->data;

    if (timed_out)
        api_error(r, 500, "the swarm was started, but %s within 20 s",
                  i->have_tokens ? "this node did not get its certificate" : "cad has not made the join tokens");
    else
        init_look(r);
}

static void init_await(struct req *r)
{
    api_wait(r, init_wait, clock_mono().ms + API_WRITE_DEADLINE_MS);
    init_look(r);
}

void swarm_await_start(struct req *r)
{
    struct init *i = calloc(1, sizeof *i);

    CHECK(i);
    if (r->free_data)
        r->free_data(r->data);
    r->data = i;
    r->free_data = init_free;
    init_await(r);
}

static void undone(struct req *r, const void *rep, const struct err *e)
{
    (void)rep, (void)e;
    api_error(r, r->status, "%s", (const char *)r->data);
}

static void bootstrapped(struct req *r, const void *rep, const struct err *e)
{
    static const struct gw_empty none;

    (void)rep;
    if (e->code == 0) {
        init_await(r);
        return;
    }
    log_error("swarm init: %s", e->msg);
    bool late = e->code == ERR_CONFLICT || e->code == ERR_PRECONDITION;
    init_free(r->data);
    r->free_data = NULL;
    r->data = arena_printf(&r->arena, "%s", late ? already : e->msg);
    r->status = late ? 503 : api_status_of(e->code);
    CHECK(r->data);
    if (late)
        undone(r, NULL, e);
    else
        api_call(r, api.gatewayd, &op_gw_leave, &none, STATUS_TIMEOUT_MS, undone);
}

static void bootstrap(struct req *r)
{
    struct init *i = r->data;
    const char *avail = availability(r, i->body);
    char ingress[ID_SIZE];

    CHECK(avail);
    pack_node(i, avail);
    id_new(ingress);
    buf_clear(&i->ingress);
    network_ingress(&i->ingress, ingress);
    struct txn_change changes[] = {
        { .Op = STR("create"), .Kind = STR("cluster"), .ID = str_from(i->cluster_id), .Doc = buf_str(&i->cluster) },
        { .Op = STR("create"), .Kind = STR("node"), .ID = str_from(i->node_id), .Doc = buf_str(&i->node) },
        { .Op = STR("create"), .Kind = STR("network"), .ID = str_from(ingress), .Doc = buf_str(&i->ingress) },
    };
    struct raftd_bootstrap in = { .ClusterID = str_from(i->cluster_id),
                                  .NodeID = str_from(i->node_id),
                                  .Addr = str_from(i->addrs.advertise),
                                  .Changes = { changes, 3 } };
    api_call(r, api.raftd, &op_raftd_bootstrap, &in, API_WRITE_DEADLINE_MS, bootstrapped);
}

static void set_up(struct req *r, const void *rep, const struct err *e)
{
    const struct gw_setup_reply *a = rep;
    struct init *i = r->data;

    if (e->code != 0) {
        log_error("swarm init: %s", e->msg);
        if (e->code == ERR_PRECONDITION)
            api_error(r, 503, "%s", already);
        else
            api_fail(r, e);
        return;
    }
    if (!str_copy(i->addrs.advertise, sizeof i->addrs.advertise, a->AdvertiseAddr)) {
        api_error(r, 500, "advertise address is too long");
        return;
    }
    bootstrap(r);
}

static void init_new(struct req *r, struct init *i)
{
    struct gw_setup in = {
        .ListenAddr = str_from(i->addrs.listen),
        .AdvertiseAddr = str_from(i->addrs.advertise),
        .DataPathAddr = str_from(i->addrs.data),
        .DataPathPort = (uint64_t)json_integer_value(json_object_get(i->body, "DataPathPort")),
    };
    api_call(r, api.gatewayd, &op_gw_setup, &in, GATEWAY_TIMEOUT_MS, set_up);
}

static void forced(struct req *r, const void *rep, const struct err *e)
{
    struct init *i = r->data;

    (void)rep;
    if (e->code != 0) {
        log_error("swarm init --force-new-cluster: %s", e->msg);
        api_fail(r, e);
        return;
    }
    i->have_tokens = true; /* there were some before */
    init_await(r);
}

static void init_force(struct req *r)
{
    static const struct raftd_empty none;
    enum swarm_state s = state_now();

    if (s == SWARM_LOCKED)
        api_error(r, 503, "%s", api_locked);
    else if (s == SWARM_WORKER || s == SWARM_PENDING)
        api_error(r, 503, "This node is not a swarm manager. Only a manager's state can start a new cluster.");
    else
        api_call(r, api.raftd, &op_raftd_force_new, &none, API_WRITE_DEADLINE_MS, forced);
}

void swarm_init(struct req *r)
{
    struct init *i = calloc(1, sizeof *i);

    CHECK(i);
    r->data = i;
    r->free_data = init_free;
    i->body = api_body(r, &obj_swarm_init);
    if (!i->body)
        return;
    if (json_is_true(json_object_get(i->body, "ForceNewCluster")) && in_swarm()) {
        init_force(r);
        return;
    }
    if (in_swarm()) {
        api_error(r, 503, "%s", already);
        return;
    }
    id_new(i->cluster_id);
    id_new(i->node_id);
    json_t *spec = json_sub(i->body, "Spec"), *ca = json_object_get(spec, "CAConfig");
    if (swarm_resolve_addrs(r, body_text(i->body, "ListenAddr"), body_text(i->body, "AdvertiseAddr"),
                            body_text(i->body, "DataPathAddr"), false, &i->addrs) < 0 ||
        swarm_spec_check(r, spec) < 0 || !availability(r, i->body))
        return;
    json_object_del(ca, "SigningCACert"); /* a new swarm makes its own root */
    json_object_del(ca, "SigningCAKey");
    if (pack_cluster(r, i) == 0)
        init_new(r, i);
}

/* ---- join ---- */

struct join {
    json_t *body;
    struct swarm_addrs addrs;
    uint64_t deadline_ms;
    bool manager;
};

static void join_free(void *p)
{
    struct join *j = p;
    char *token = (char *)json_string_value(json_object_get(j->body, "JoinToken"));

    if (token)
        crypto_wipe(token, strlen(token));
    json_decref(j->body);
    free(j);
}

/* Has what was joined taken effect here, so that the client's next question shows it? */
static bool joined_here(bool manager)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct err e = ERR_INIT;
    struct store_meta meta;
    struct managers m;

    if (!manager)
        return str_is(state_identity()->State, "active");
    if (store_begin(api.store, &snap, &e) < 0 || store_meta(snap, &meta, &e) < 0 || !meta.initialized ||
        meta.leader_id.n == 0)
        return false;
    managers_of_map(snap, &meta, &m);
    return managers_find(&m, meta.node_id) != NULL;
}

static void join_wait(struct req *r, bool timed_out)
{
    struct join *j = r->data;

    if (joined_here(j->manager) && j->manager) {
        reply_described(r);
    } else if (joined_here(j->manager)) {
        api_unwait(r);
        api_reply_empty(r, 200);
    } else if (timed_out) {
        api_error(r, 503, "%s", join_timeout);
    }
}

static void joined(struct req *r, const void *rep, const struct err *e)
{
    const struct gw_join_reply *a = rep;
    struct join *j = r->data;

    if (e->code == ERR_TIMEOUT || e->code == ERR_UNAVAILABLE) {
        api_error(r, 503, "%s", e->code == ERR_TIMEOUT ? join_timeout : e->msg);
    } else if (e->code == ERR_PRECONDITION || e->code == ERR_CONFLICT) {
        api_error(r, 503, "%s", in_swarm() ? already : e->msg);
    } else if (e->code != 0) { /* Docker's: an address is a 400, the token and what the manager said a 500 */
        log_error("swarm join: %s", e->msg);
        api_error(r, 500, "%s", e->msg);
    } else {
        j->manager = str_is(a->Role, "manager");
        api_wait(r, join_wait, j->deadline_ms);
        if (!r->answered)
            join_wait(r, false);
    }
}

static int check_remotes(struct req *r, json_t *list, struct strs *ret)
{
    size_t n = json_array_size(list), i;
    struct str *v = arena_array(&r->arena, n + 1, sizeof *v);
    json_t *x;

    CHECK(v);
    if (n == 0)
        return api_refuse(r, 400, "at least 1 RemoteAddr is required to join");
    json_array_foreach (list, i, x) {
        const char *text = json_string_value(x) ?: "";
        struct host_port hp;
        struct err e = ERR_INIT;
        if (addr_parse(str_from(text), SWARM_PORT, &hp, &e) < 0)
            return api_refuse(r, 400, "invalid remote address \"%s\": %s", text, e.msg);
        v[i] = str_from(text);
    }
    *ret = (struct strs){ v, n };
    return 0;
}

/* SWMTKN-1-<50 base-36 digits>-<25>; what is behind the digits the manager judges. */
bool swarm_token_ok(struct str t)
{
    if (t.n != 9 + 50 + 1 + 25 || !str_starts(t, STR("SWMTKN-1-")) || t.p[59] != '-')
        return false;
    for (size_t i = 9; i < t.n; i++)
        if (i != 59 && !(t.p[i] >= '0' && t.p[i] <= '9') && !(t.p[i] >= 'a' && t.p[i] <= 'z'))
            return false;
    return true;
}

void swarm_join(struct req *r)
{
    struct join *j = calloc(1, sizeof *j);
    struct strs remotes;
    const char *avail;

    CHECK(j);
    r->data = j;
    r->free_data = join_free;
    j->body = api_body(r, &obj_swarm_join);
    if (!j->body)
        return;
    if (in_swarm()) {
        api_error(r, 503, "%s", already);
        return;
    }
    if (swarm_resolve_addrs(r, body_text(j->body, "ListenAddr"), body_text(j->body, "AdvertiseAddr"),
                            body_text(j->body, "DataPathAddr"), true, &j->addrs) < 0 ||
        check_remotes(r, json_object_get(j->body, "RemoteAddrs"), &remotes) < 0 || !(avail = availability(r, j->body)))
        return;
    if (!swarm_token_ok(str_from(body_text(j->body, "JoinToken")))) {
        api_error(r, 500, "invalid join token");
        return;
    }
    struct gw_join in = { .Token = str_from(body_text(j->body, "JoinToken")),
                          .RemoteAddrs = remotes,
                          .ListenAddr = str_from(j->addrs.listen),
                          .AdvertiseAddr = str_from(j->addrs.advertise),
                          .DataPathAddr = str_from(j->addrs.data),
                          .Availability = str_from(avail) };
    j->deadline_ms = clock_mono().ms + GATEWAY_TIMEOUT_MS;
    api_call(r, api.gatewayd, &op_gw_join, &in, GATEWAY_TIMEOUT_MS, joined);
}

/* ---- leave ---- */

struct leave {
    char node[ID_SIZE];
    bool store; /* raftd has a log to erase */
    bool again; /* what this node is was looked at twice */
};

static void leave_wait(struct req *r, bool timed_out)
{
    enum swarm_state s = state_now();

    if (s == SWARM_INACTIVE || timed_out) {
        api_unwait(r);
        api_reply_empty(r, 200);
    }
}

static void links_gone(struct req *r, const void *rep, const struct err *e)
{
    (void)rep;
    if (e->code != 0) {
        log_error("swarm leave: %s", e->msg);
        api_fail(r, e);
        return;
    }
    state_ask_raftd();
    api_wait(r, leave_wait, clock_mono().ms + STATUS_TIMEOUT_MS);
    if (!r->answered)
        leave_wait(r, false);
}

static void leave_links(struct req *r)
{
    static const struct gw_empty none;

    api_call(r, api.gatewayd, &op_gw_leave, &none, LEAVE_TIMEOUT_MS, links_gone);
}

static void store_gone(struct req *r, const void *rep, const struct err *e)
{
    (void)rep;
    if (e->code != 0 && e->code != ERR_PRECONDITION) {
        log_error("swarm leave: %s", e->msg);
        api_fail(r, e);
        return;
    }
    leave_links(r);
}

/* Tasks first: once the store is gone nobody would tell the agent to stop them. */
static void tasks_gone(struct req *r, const void *rep, const struct err *e)
{
    static const struct raftd_empty none;
    struct leave *l = r->data;

    (void)rep;
    if (e->code != 0)
        log_warn("swarm leave: agentd: %s; its tasks are left to it", e->msg);
    if (l->store)
        api_call(r, api.raftd, &op_raftd_reset, &none, LEAVE_TIMEOUT_MS, store_gone);
    else
        leave_links(r);
}

static void leave_now(struct req *r)
{
    static const struct agent_empty none;
    api_call(r, api.agentd, &op_agent_leave, &none, LEAVE_TIMEOUT_MS, tasks_gone);
}

/* A manager whose group can spare it gets out of the group first, so that the others do not count a dead voter. */
static int attempt_demote_self(struct req *r, struct txn *t, struct err *e)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct leave *l = r->data;
    struct buf b = BUF_INIT, patch = BUF_INIT;
    struct str doc, spec = STR("\x80");
    uint64_t rev = 0;

    if (store_begin(api.store, &snap, e) < 0 || store_get(snap, KIND_NODE, str_from(l->node), &doc) < 0 ||
        str_is(text_at(doc, "Spec.Role"), "worker"))
        return 0;
    (void)mp_find(doc, "Spec", &spec);
    (void)mp_get_u64(doc, "Rev", &rev);
    mp_map(&patch, 1);
    mp_kv_cstr(&patch, "Role", "worker");
    mp_map(&b, 1);
    mp_cstr(&b, "Spec");
    int rc = mp_merge(&b, spec, buf_str(&patch), e);
    if (rc == 0) {
        txn_require_rev(t, KIND_NODE, str_from(l->node), rev);
        txn_update(t, KIND_NODE, str_from(l->node), txn_doc(t, &b));
    }
    buf_done(&b);
    buf_done(&patch);
    return rc == 0;
}

static void demoted_wait(struct req *r, bool timed_out)
{
    struct leave *l = r->data;

    if (!timed_out && state_now() == SWARM_MANAGER)
        return;
    if (timed_out)
        log_warn("swarm leave: this manager was not taken out of the group in time, and leaves all the same");
    else
        l->store = false;
    api_unwait(r);
    leave_now(r);
}

static void demoting(struct req *r, uint64_t revision)
{
    (void)revision;
    api_wait(r, demoted_wait, clock_mono().ms + DEMOTE_TIMEOUT_MS);
    if (r->wait.fn)
        demoted_wait(r, false);
}

static void leave_refused(struct req *r, const struct managers *m, const struct err *e)
{
    static const char head[] = "You are attempting to leave the swarm on a node that is participating as a manager. ";
    static const char tail[] = "The only way to restore a swarm that has lost consensus is to reinitialize it with "
                               "`--force-new-cluster`. Use `--force` to suppress this message.";
    size_t lost = m->voters - m->reachable;
    char middle[200] = "";

    if (e->code == 0 && m->reachable > 0 &&
        m->reachable <= lost + 2) { /* Docker's rule: without this one there is no quorum */
        if (m->reachable == 1 && lost == 0) {
            api_error(r, 503,
                      "%sRemoving the last manager erases all current state of the swarm. Use `--force` to ignore this "
                      "message. ",
                      head);
            return;
        }
        (void)snprintf(middle, sizeof middle,
                       "Removing this node leaves %zu managers out of %zu. Without a Raft quorum your swarm will be "
                       "inaccessible. ",
                       m->reachable - 1, m->voters);
    }
    api_error(r, 503, "%s%s%s", head, middle, tail);
}

static void leave_when_demoted(struct req *r, unsigned patience_ms);

static void leave_as_manager(struct req *r, const struct managers *m, const struct err *e)
{
    struct leave *l = r->data;

    /* The map alone tells that there is no other manager: then no leader needs to be asked. */
    static const struct err fine = ERR_INIT;
    if (m->n == 1)
        e = &fine;
    bool force = query_loose(&r->query, "force");
    if (!managers_find(m, str_from(l->node)) && !l->again) /* it was taken out of the group a moment ago */
        leave_when_demoted(r, DEMOTE_TIMEOUT_MS);
    else if (!force && e->code != 0 && !l->again &&
             !state_leaderless()) /* perhaps just so, and is not talked to any more */
        leave_when_demoted(r, ROLE_TIMEOUT_MS);
    else if (!force)
        leave_refused(r, m, e);
    else if (e->code == 0 && m->n > 1 && managers_can_lose(m, str_from(l->node)))
        api_write(r, attempt_demote_self, demoting);
    else
        leave_now(r);
}

static void own_id(char ret[ID_SIZE])
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct store_meta meta;
    struct err e = ERR_INIT;

    if (store_begin(api.store, &snap, &e) == 0 && store_meta(snap, &meta, &e) == 0)
        (void)str_copy(ret, ID_SIZE, meta.node_id);
}

/* The role that is wanted for this node, in what the local map says. */
static bool shall_be_worker(const struct leave *l)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct err e = ERR_INIT;
    struct str doc;

    return store_begin(api.store, &snap, &e) == 0 && store_get(snap, KIND_NODE, str_from(l->node), &doc) == 0 &&
           str_is(text_at(doc, "Spec.Role"), "worker");
}

/* What was decided on another manager a moment ago is known here now, unless there is no quorum. */
static void leave_fresh(struct req *r, const void *rep, const struct err *e)
{
    struct leave *l = r->data;

    (void)rep;
    if (!l->again && (shall_be_worker(l) || e->code == ERR_DENIED))
        leave_when_demoted(r, DEMOTE_TIMEOUT_MS);
    else
        managers_ask(r, leave_as_manager);
}

static void leave_as(struct req *r, enum swarm_state s)
{
    static const struct raftd_empty none;
    bool force = query_loose(&r->query, "force");
    struct leave *l = r->data;

    l->store = s == SWARM_MANAGER || comes_up(s) || s == SWARM_LOCKED;
    if (s == SWARM_INACTIVE) {
        api_error(r, 503, "This node is not part of a swarm");
    } else if (s == SWARM_LOCKED && !force) {
        api_error(r, 503,
                  "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this "
                  "message.");
    } else if (comes_up(s) && !force) {
        api_error(r, 503,
                  "You are attempting to leave the swarm on a node that is participating as a manager. Doing so may "
                  "lose the consensus of your cluster. The only way to restore a swarm that has lost consensus is to "
                  "reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message.");
    } else if (s == SWARM_MANAGER) {
        own_id(l->node);
        if (force || l->again || state_leaderless())
            managers_ask(r, leave_as_manager);
        else
            api_call(r, api.raftd, &op_raftd_barrier, &none, LEAVE_BARRIER_MS, leave_fresh);
    } else {
        leave_now(r);
    }
}

/* A manager that is made a worker loses its store a moment before it has the new certificate; one that starts has the
 * certificate before the store. Which it is shows soon. */
static void role_wait(struct req *r, bool timed_out)
{
    if (!timed_out && comes_up(state_now()))
        return;
    api_unwait(r);
    leave_as(r, state_now());
}

static void demotion_wait(struct req *r, bool timed_out)
{
    enum swarm_state s = state_now();

    if (!timed_out && (s == SWARM_MANAGER || comes_up(s)))
        return;
    api_unwait(r);
    leave_as(r, s);
}

/* Demoted, and on its way out of the group: it leaves as the worker that it will be in a moment. */
static void leave_when_demoted(struct req *r, unsigned patience_ms)
{
    struct leave *l = r->data;

    l->again = true;
    api_wait(r, demotion_wait, clock_mono().ms + patience_ms);
    if (r->wait.fn)
        demotion_wait(r, false);
}

void swarm_leave(struct req *r)
{
    struct leave *l = calloc(1, sizeof *l);
    enum swarm_state s = state_now();

    CHECK(l);
    r->data = l;
    r->free_data = free;
    if (comes_up(s))
        api_wait(r, role_wait, clock_mono().ms + ROLE_TIMEOUT_MS);
    else
        leave_as(r, s);
}

/* ---- unlock ---- */

struct unlock {
    char key[64]; /* secret */
};

static void unlock_free(void *p)
{
    crypto_wipe(p, sizeof(struct unlock));
    free(p);
}

/* SWMKEY-1- and 32 bytes in base64 without padding. */
bool swarm_key_ok(struct str k)
{
    if (k.n != 9 + 43 || !str_starts(k, STR("SWMKEY-1-")))
        return false;
    for (size_t i = 9; i < k.n; i++)
        if (!k.p[i] || !strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", k.p[i]))
            return false;
    return true;
}

static void unlock_wait(struct req *r, bool timed_out)
{
    enum swarm_state s = state_now();

    if (s == SWARM_MANAGER || (timed_out && s != SWARM_LOCKED)) { /* without the others there is no leader yet */
        api_unwait(r);
        api_reply_empty(r, 200);
    } else if (timed_out) {
        api_error(r, 500, "the key fits, but the store is still locked after %u s", UNLOCK_TIMEOUT_MS / 1000);
    }
}

static void unlock_refused(struct req *r, const struct err *e)
{
    if (e->code == ERR_UNAUTHORIZED || e->code == ERR_DENIED || e->code == ERR_INVALID || e->code == ERR_CORRUPT)
        api_error(r, 401, "swarm could not be unlocked: invalid key provided");
    else
        api_fail(r, e);
}

static void gateway_unlocked(struct req *r, const void *rep, const struct err *e)
{
    (void)rep;
    if (e->code != 0 && e->code != ERR_PRECONDITION) { /* not locked: fine */
        unlock_refused(r, e);
        return;
    }
    state_ask_raftd();
    api_wait(r, unlock_wait, clock_mono().ms + UNLOCK_TIMEOUT_MS);
    if (!r->answered)
        unlock_wait(r, false);
}

static void raftd_unlocked(struct req *r, const void *rep, const struct err *e)
{
    struct unlock *u = r->data;
    struct gw_unlock in = { str_from(u->key) };

    (void)rep;
    if (e->code != 0 && e->code != ERR_PRECONDITION)
        unlock_refused(r, e);
    else
        api_call(r, api.gatewayd, &op_gw_unlock, &in, STATUS_TIMEOUT_MS, gateway_unlocked);
}

void swarm_unlock(struct req *r)
{
    enum swarm_state s = state_now();
    struct unlock *u;
    json_t *body;

    if (s == SWARM_MANAGER) {
        api_error(r, 409, "swarm is not locked");
        return;
    }
    if (s != SWARM_LOCKED) {
        api_not_manager(r);
        return;
    }
    if (!(body = api_body(r, &obj_swarm_unlock)))
        return;
    char *key = (char *)body_text(body, "UnlockKey");
    bool ok = swarm_key_ok(str_from(key));
    u = calloc(1, sizeof *u);
    CHECK(u);
    r->data = u;
    r->free_data = unlock_free;
    (void)str_copy(u->key, sizeof u->key, str_from(key));
    crypto_wipe(key, strlen(key));
    json_decref(body);
    struct raftd_unlock in = { str_from(u->key) };
    if (ok)
        api_call(r, api.raftd, &op_raftd_unlock, &in, API_WRITE_DEADLINE_MS, raftd_unlocked);
    else
        api_error(r, 400, "invalid key string");
}
