/* /networks: create, remove, prune, and what services ask of them. */
#include <ctype.h>
#include <stdio.h>

#include "apid/api_networks.h"
#include "apid/api_resources.h"
#include "apid/api_state.h"
#include "common/util/check.h"
#include "common/util/cidr.h"
#include "common/util/id.h"

#define ALLOCATE_WAIT_MS 1000u
#define NAME_MAX_CHARS 63u
#define MTU_OPTION "com.docker.network.driver.mtu"
#define VXLAN_OPTION "com.docker.network.driver.overlay.vxlanid_list"
#define VIEW_BYTES (8u << 20)

static const char *text(json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key)) ?: "";
}

static bool yes(json_t *o, const char *key)
{
    return json_is_true(json_object_get(o, key));
}

/* ---- create: what needs no store ---- */

struct creation {
    json_t *spec;
    struct buf packed;
    char id[ID_SIZE];
};

static void creation_free(void *p)
{
    struct creation *c = p;

    json_decref(c->spec);
    buf_done(&c->packed);
    free(c);
}

/* swarmkit's rule for names of services and networks: ^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$ */
static int check_name(struct req *r, const char *name)
{
    const char *local = network_predefined(str_from(name), true);
    size_t n = strlen(name);
    bool ok = n > 0 && isalnum((unsigned char)name[0]) && isalnum((unsigned char)name[n - 1]);

    if (n == 0)
        return api_refuse(r, 400, "invalid name: ");
    for (size_t i = 0; ok && i < n; i++)
        ok = isalnum((unsigned char)name[i]) || name[i] == '-' || name[i] == '_';
    if (local && strcmp(local, name) == 0)
        return api_refuse(r, 403, "operation is not permitted on predefined %s network ", name);
    if (!ok)
        return api_rpc_refuse(r, RPC_INVALID, "name must be valid as a DNS name component");
    if (n > NAME_MAX_CHARS)
        return api_rpc_refuse(r, RPC_INVALID, "name must be 63 characters or fewer");
    return 0;
}

/* check_driver - only overlay networks are made here; the others are refused in Docker's words, or our own. */
static int check_driver(struct req *r, json_t *spec)
{
    static const char *const node_only[] = { "bridge", "macvlan", "ipvlan", NULL };
    const char *driver = text(spec, "Driver"), *scope = text(spec, "Scope");
    bool overlay = strcmp(driver, "overlay") == 0 || yes(spec, "Ingress");

    if (*scope && strcmp(scope, "swarm") != 0 && strcmp(scope, "local") != 0 && strcmp(scope, "global") != 0)
        return api_refuse(r, 400, "invalid scope \"%s\"", scope);
    if (yes(spec, "ConfigOnly") || *text(json_object_get(spec, "ConfigFrom"), "Network"))
        return api_refuse(r, 501, "config-only networks are not supported by this version of microswarm");
    if (strcmp(driver, "host") == 0 || strcmp(driver, "null") == 0)
        return api_refuse(r, 403, "only one instance of \"%s\" network is allowed", driver);
    if (!*driver && (strcmp(scope, "swarm") == 0 || yes(spec, "Ingress")))
        overlay = true;
    if (overlay && *scope && strcmp(scope, "swarm") != 0)
        return api_refuse(r, 400, "invalid network scope: an overlay network spans the swarm, not only this node");
    if (overlay)
        return 0;
    for (size_t i = 0; node_only[i]; i++)
        if (strcmp(*driver ? driver : "bridge", node_only[i]) == 0)
            return api_refuse(r, 501,
                              "networks with driver \"%s\" are not supported by this version of microswarm: use "
                              "--driver overlay",
                              node_only[i]);
    return api_refuse(r, 404, "plugin \"%s\" not found", driver);
}

/* check_place - an overlay network is made on a manager. */
static int check_place(struct req *r, json_t *spec)
{
    enum swarm_state s = state_now();

    if (s == SWARM_WORKER)
        return api_refuse(r, 403,
                          "Cannot create a multi-host network from a worker node. Please create the network "
                          "from a manager node.");
    if (s == SWARM_INACTIVE && strcmp(text(spec, "Scope"), "swarm") == 0)
        return api_refuse(r, 403, "cannot create a swarm scoped network when swarm is not active");
    if (s != SWARM_MANAGER) {
        api_not_manager(r);
        return -1;
    }
    return 0;
}

static int check_options(struct req *r, json_t *spec)
{
    const char *mtu = json_string_value(json_object_get(json_object_get(spec, "Options"), MTU_OPTION));
    const char *vni = json_string_value(json_object_get(json_object_get(spec, "Options"), VXLAN_OPTION));
    const char *ipam = text(json_object_get(spec, "IPAM"), "Driver");
    uint64_t n;

    if (mtu && (!str_u64(str_from(mtu), &n) || n < 68 || n > 65535))
        return api_refuse(r, 400, "failed to parse \"%s\" as an MTU of 68 to 65535", mtu);
    if (vni && (!str_u64((struct str){ vni, strcspn(vni, ",") }, &n) || n == 0 || n > 0xffffff))
        return api_refuse(r, 400, "failed to parse vxlan id value \"%s\"", vni);
    if (*ipam && strcmp(ipam, "default") != 0)
        return api_refuse(r, 400,
                          "failed to retrieve ipam driver \"%s\": IPAM plugins are not supported by this "
                          "version of microswarm",
                          ipam);
    json_t *four = json_object_get(spec, "EnableIPv4");
    if (r->version >= 148 && json_is_false(four))
        return api_refuse(r, 400, "IPv4 cannot be disabled in a Swarm scoped network");
    return 0;
}

/* check_aux - addresses that nobody gets must be some that somebody could get. */
static int check_aux(struct req *r, json_t *config, struct cidr subnet)
{
    const char *name;
    json_t *v;

    json_object_foreach (json_object_get(config, "AuxiliaryAddresses"), name, v) {
        struct ip ip;
        if (!ip_parse(str_from(json_string_value(v)), &ip))
            return api_refuse(r, 400, "invalid network config:\ninvalid auxiliary address %s: invalid address",
                              json_string_value(v) ?: "");
        if (!cidr_has(subnet, ip))
            return api_refuse(r, 400, "invalid network config:\ninvalid auxiliary address %s: not in subnet %s",
                              json_string_value(v), text(config, "Subnet"));
    }
    return 0;
}

/* not_for_networks - the special prefix that this one would take something of; NULL: none. (RFC 6890) */
static const char *not_for_networks(struct cidr net)
{
    static const char *const special[] = {
        "0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::1/128", "fe80::/10", "ff00::/8"
    };
    struct cidr other;

    for (size_t i = 0; i < sizeof special / sizeof *special; i++)
        if (cidr_parse(str_from(special[i]), &other) && cidr_overlap(net, other))
            return special[i];
    return NULL;
}

/* check_subnets - as Docker's ValidateIPAM: IPv6 is looked at only where it is used. */
static int check_subnets(struct req *r, json_t *spec)
{
    json_t *c;
    size_t i;

    json_array_foreach (json_object_get(json_object_get(spec, "IPAM"), "Config"), i, c) {
        const char *subnet = text(c, "Subnet");
        char right[CIDR_TEXT_MAX];
        struct cidr net;
        if (!*subnet && !*text(c, "Gateway") && !*text(c, "IPRange"))
            continue;
        if (!*subnet)
            return api_refuse(r, 400, "invalid network config:\ninvalid subnet : invalid CIDR block notation");
        if (!cidr_parse(str_from(subnet), &net)) /* the object's own rules say so, in older words */
            continue;
        if (net.ip.family == 6 && !yes(spec, "EnableIPv6"))
            continue;
        if (!ip_eq(net.ip, cidr_first(net)))
            return api_refuse(r, 400, "invalid network config:\ninvalid subnet %s: it should be %s", subnet,
                              cidr_text(cidr_masked(net), right));
        if (not_for_networks(net))
            return api_refuse(r, 400, "invalid network config:\ninvalid subnet %s: %s is not for networks", subnet,
                              not_for_networks(net));
        if (check_aux(r, c, net) < 0)
            return -1;
    }
    return 0;
}

static struct creation *read_creation(struct req *r)
{
    json_t *spec = api_body(r, &obj_network_spec);
    struct err e = ERR_INIT;

    if (!spec)
        return NULL;
    struct creation *c = calloc(1, sizeof *c);
    CHECK(c);
    c->spec = spec;
    r->data = c;
    r->free_data = creation_free;
    json_object_del(spec, "CheckDuplicate");
    if (check_name(r, text(spec, "Name")) < 0 || check_driver(r, spec) < 0 || check_place(r, spec) < 0 ||
        check_options(r, spec) < 0 || check_subnets(r, spec) < 0)
        return NULL;
    if (yes(spec, "Ingress") && yes(spec, "Attachable")) {
        api_rpc_error(r, RPC_INVALID, "ingress network cannot be attachable");
        return NULL;
    }
    json_object_set_new(spec, "Driver", json_string("overlay"));
    json_object_set_new(spec, "Scope", json_string("swarm"));
    json_object_del(spec, "EnableIPv4");
    json_object_del(spec, "ConfigFrom");
    json_object_del(spec, "ConfigOnly");
    if (!json_object_get(spec, "Labels"))
        json_object_set_new(spec, "Labels", json_object());
    if (obj_check(&obj_network_spec, spec, &e) < 0 || obj_pack(&obj_network_spec, spec, &c->packed, &e) < 0) {
        api_fail(r, &e);
        return NULL;
    }
    id_new(c->id);
    return c;
}

/* ---- create: what other networks have ---- */

static int refuse_overlap(struct req *r)
{
    return api_refuse(r, 403, "invalid pool request: Pool overlaps with other one on this address space");
}

/* own_subnets - those that were asked for by number; how many, or -1 when two of them overlap. */
static int own_subnets(struct req *r, struct creation *c, struct cidr **ret)
{
    json_t *config = json_object_get(json_object_get(c->spec, "IPAM"), "Config"), *o;
    struct cidr *v = arena_array(&r->arena, json_array_size(config) + 1, sizeof *v), net;
    bool six = yes(c->spec, "EnableIPv6");
    size_t i;
    int n = 0;

    CHECK(v);
    json_array_foreach (config, i, o) {
        if (!cidr_parse(str_from(text(o, "Subnet")), &net) || (net.ip.family == 6 && !six))
            continue;
        for (int k = 0; k < n; k++)
            if (cidr_overlap(v[k], net))
                return refuse_overlap(r);
        v[n++] = net;
    }
    *ret = v;
    return n;
}

static int check_overlap(struct req *r, struct store_snap *snap, struct creation *c)
{
    struct cidr *own, theirs;
    struct store_iter it;
    int n = own_subnets(r, c, &own);

    if (n <= 0)
        return n;
    for (store_each_prefix(snap, KIND_RESERVATION, STR("subnet/"), &it); store_next(&it);)
        for (int i = 0; i < n; i++)
            if (cidr_parse((struct str){ it.id.p + 7, it.id.n - 7 }, &theirs) && cidr_overlap(own[i], theirs)) {
                store_iter_done(&it);
                return refuse_overlap(r);
            }
    return 0;
}

static int attempt_create(struct req *r, struct txn *t, struct err *e)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct creation *c = r->data;
    struct buf b = BUF_INIT;
    struct str other, doc;

    (void)e;
    if (api_snap(r, &snap, NULL) < 0)
        return -1;
    if (r->write.uncertain && store_get(snap, KIND_NETWORK, str_from(c->id), &doc) == 0)
        return 0;
    if (store_find_name(snap, IX_NETWORK_NAME, str_from(text(c->spec, "Name")), &other) == 0)
        return api_refuse(r, 409, "network with name %s already exists", text(c->spec, "Name"));
    if (yes(c->spec, "Ingress") && network_find_ingress(snap, &other))
        return api_rpc_refuse(r, RPC_EXISTS, "ingress network (" STR_FMT ") is already present", STR_ARG(other));
    if (check_overlap(r, snap, c) < 0)
        return -1;
    mp_map(&b, 2);
    mp_kv_cstr(&b, "ID", c->id);
    mp_kv_raw(&b, "Spec", buf_str(&c->packed));
    txn_create(t, KIND_NETWORK, str_from(c->id), txn_doc(t, &b));
    buf_done(&b);
    return 1;
}

/* It is there; a moment later it has its subnet, which clients like to see at once. Why it got none is a warning. */
static void created_wait(struct req *r, bool timed_out)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct creation *c = r->data;
    struct err e = ERR_INIT;
    struct str doc, warning = STR(""), state;

    if (r->answered)
        return;
    if (store_begin(api.store, &snap, &e) == 0 && store_get(snap, KIND_NETWORK, str_from(c->id), &doc) == 0) {
        if (!timed_out && !mp_find(doc, "State", &state))
            return;
        warning = text_at(doc, "State.Error");
    }
    api_unwait(r);
    buf_clear(&r->out);
    buf_printf(&r->out, "{\"Id\":\"%s\",\"Warning\":", c->id);
    buf_json_str(&r->out, warning);
    buf_puts(&r->out, "}\n");
    api_reply(r, 201);
}

static void created(struct req *r, uint64_t revision)
{
    (void)revision;
    api_wait(r, created_wait, clock_mono().ms + ALLOCATE_WAIT_MS);
    created_wait(r, false);
}

void networks_create(struct req *r)
{
    if (read_creation(r))
        api_write(r, attempt_create, created);
}

/* ---- remove ---- */

static bool publishes(struct str service)
{
    struct view_service s;
    struct err e = ERR_INIT;
    struct arena a;
    bool found = false;

    arena_init(&a, VIEW_BYTES);
    if (view_service(service, &s, &a, &e) == 0) {
        const struct view_port *p = s.Spec.EndpointSpec.Ports.v;
        for (size_t i = 0; i < s.Spec.EndpointSpec.Ports.n; i++)
            found |= !str_is(p[i].PublishMode, "host");
    }
    arena_done(&a);
    return found;
}

/* refuse_ingress - while a service publishes ports through it. */
static int refuse_ingress(struct req *r, struct store_snap *snap)
{
    struct store_iter it;

    for (store_each(snap, KIND_SERVICE, &it); store_next(&it);)
        if (publishes(it.doc)) {
            int rc = api_rpc_refuse(r, RPC_PRECONDITION,
                                    "ingress network cannot be removed because service " STR_FMT " depends on it",
                                    STR_ARG(it.id));
            store_iter_done(&it);
            return rc;
        }
    return 0;
}

static bool is_ingress(struct str doc)
{
    bool v = false;
    return mp_get_bool(doc, "Spec.Ingress", &v) && v;
}

static void remove_one(struct txn *t, struct str id)
{
    id = arena_str(&t->arena, id);
    txn_require_unreferenced(t, KIND_NETWORK, id);
    txn_delete(t, KIND_NETWORK, id);
}

static int attempt_remove(struct req *r, struct txn *t, struct err *e)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct str id = str_from(r->data), doc, user;
    bool service;

    (void)e;
    if (api_snap(r, &snap, NULL) < 0)
        return -1;
    if (store_get(snap, KIND_NETWORK, id, &doc) < 0) {
        if (r->write.uncertain)
            return 0;
        return api_refuse(r, 404, "network " STR_FMT " not found", STR_ARG(r->params[0]));
    }
    if (is_ingress(doc) && refuse_ingress(r, snap) < 0)
        return -1;
    if (!is_ingress(doc) && network_user(snap, id, &service, &user))
        return api_rpc_refuse(r, RPC_PRECONDITION, "network " STR_FMT " is in use by %s " STR_FMT, STR_ARG(id),
                              service ? "service" : "task", STR_ARG(user));
    remove_one(t, id);
    return 1;
}

static void removed(struct req *r, uint64_t revision)
{
    (void)revision;
    api_reply_empty(r, 204);
}

void networks_remove(struct req *r)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    enum swarm_state s = state_now();
    const char *local = network_predefined(r->params[0], s != SWARM_INACTIVE);
    struct str id;

    if (local) {
        api_error(r, 403, "%s is a pre-defined network and cannot be removed", local);
        return;
    }
    if (s == SWARM_INACTIVE) {
        api_error(r, 404, "network " STR_FMT " not found", STR_ARG(r->params[0]));
        return;
    }
    if (api_snap(r, &snap, NULL) < 0 || api_find(r, snap, KIND_NETWORK, r->params[0], &id, NULL) < 0)
        return;
    r->data = str_dup(id);
    r->free_data = free;
    snap = store_end(snap);
    api_write(r, attempt_remove, removed);
}

/* ---- prune ---- */

struct prune {
    struct filters *f;
    int64_t until_ns; /* created before; 0: whenever */
    struct buf names;
};

static void prune_free(void *p)
{
    struct prune *u = p;

    buf_done(&u->names);
    free(u);
}

/* read_until - a time, or how long ago. */
static int read_until(struct req *r, struct prune *p)
{
    const struct filter *x = filters_get(p->f, "until");
    struct wall_ns at;
    int64_t ago;
    uint64_t sec;

    if (!x)
        return 0;
    if (x->n > 1)
        return api_refuse(r, 400, "more than one until filter specified");
    if (duration_parse(x->vals[0], &ago))
        p->until_ns = clock_wall().ns - ago;
    else if (str_u64(x->vals[0], &sec) && sec < INT64_MAX / 1000000000)
        p->until_ns = (int64_t)sec * 1000000000;
    else if (wall_parse(x->vals[0], &at))
        p->until_ns = at.ns;
    else
        return api_refuse(r, 400, "invalid value for until filter: \"" STR_FMT "\"", STR_ARG(x->vals[0]));
    return 0;
}

static bool prunable(const struct prune *p, struct store_snap *snap, struct str id, struct str doc)
{
    const struct filter *not = filters_get(p->f, "label!");
    struct str labels = { NULL, 0 }, user;
    int64_t at = 0;
    bool service;

    (void)mp_path(doc, "Spec.Labels", &labels);
    (void)mp_get_i64(doc, "CreatedAt", &at);
    if (is_ingress(doc) || (p->until_ns && at >= p->until_ns) || !filters_labels(p->f, "label", labels) ||
        (not &&filters_labels(p->f, "label!", labels)))
        return false;
    return !network_user(snap, id, &service, &user);
}

static int attempt_prune(struct req *r, struct txn *t, struct err *e)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct prune *p = r->data;
    struct store_iter it;
    bool any = false;

    (void)e;
    if (api_snap(r, &snap, NULL) < 0)
        return -1;
    if (!r->write.uncertain) /* else what an earlier try removed is told as well */
        buf_clear(&p->names);
    for (store_each(snap, KIND_NETWORK, &it); store_next(&it);) {
        if (!prunable(p, snap, it.id, it.doc))
            continue;
        if (p->names.n)
            buf_putc(&p->names, ',');
        buf_json_str(&p->names, text_at(it.doc, "Spec.Name"));
        remove_one(t, it.id);
        any = true;
    }
    return any;
}

static void pruned(struct req *r, uint64_t revision)
{
    struct prune *p = r->data;

    (void)revision;
    buf_clear(&r->out);
    if (p->names.n)
        buf_printf(&r->out, "{\"NetworksDeleted\":[%s]}\n", buf_cstr(&p->names));
    else
        buf_puts(&r->out, "{\"NetworksDeleted\":null}\n");
    api_reply(r, 200);
}

void networks_prune(struct req *r)
{
    static const char *const known[] = { "until", "label", "label!", NULL };
    struct prune *p = calloc(1, sizeof *p);

    CHECK(p);
    r->data = p;
    r->free_data = prune_free;
    p->f = arena_alloc(&r->arena, sizeof *p->f);
    CHECK(p->f);
    if (api_filters(r, p->f, known) < 0 || read_until(r, p) < 0)
        return;
    if (state_now() == SWARM_MANAGER)
        api_write(r, attempt_prune, pruned);
    else
        pruned(r, 0); /* nothing here is anybody's to remove */
}

/* ---- connect, disconnect ---- */

void networks_attach(struct req *r)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    const char *local = network_predefined(r->params[0], state_now() != SWARM_INACTIVE);
    struct str doc;
    bool attachable = false;

    if (local) {
        api_error(r, 501, "containers can't be connected to network %s by this version of microswarm", local);
        return;
    }
    if (state_now() != SWARM_MANAGER) {
        api_error(r, 404, "network " STR_FMT " not found", STR_ARG(r->params[0]));
        return;
    }
    if (api_snap(r, &snap, NULL) < 0 || api_find(r, snap, KIND_NETWORK, r->params[0], NULL, &doc) < 0)
        return;
    if (mp_get_bool(doc, "Spec.Attachable", &attachable) && attachable)
        api_error(r, 501,
                  "containers outside of services can't be connected to networks by this version of "
                  "microswarm");
    else
        api_error(r, 403,
                  "Could not attach to network " STR_FMT ": rpc error: code = PermissionDenied desc = network " STR_FMT
                  " not manually attachable",
                  STR_ARG(r->params[0]), STR_ARG(r->params[0]));
}

/* ---- networks of services ---- */

static json_t *networks_in(json_t *spec)
{
    return json_object_get(json_object_get(spec, "TaskTemplate"), "Networks");
}

/* resolve_one - "host" stays a name: every node has its own. */
static int resolve_one(struct req *r, struct store_snap *snap, const char *target, struct str *ret)
{
    struct str id, doc;
    struct err e = ERR_INIT;
    int rc = store_resolve(snap, KIND_NETWORK, IX_NETWORK_NAME, str_from(target), &id, &doc, &e);

    if (*target && rc == 0) {
        if (is_ingress(doc)) {
            struct str name = text_at(doc, "Spec.Name");
            return api_rpc_refuse(r, RPC_INVALID,
                                  "Service cannot be explicitly attached to the ingress network \"" STR_FMT "\"",
                                  STR_ARG(name));
        }
        *ret = id;
        return 0;
    }
    const char *local = network_predefined(str_from(target), true);
    if (local && network_of_service(local)) {
        *ret = str_from(local);
        return 0;
    }
    if (local && strcmp(local, "none") == 0)
        return api_refuse(r, 404, "could not find the corresponding predefined swarm network: network none not found");
    if (local)
        return api_refuse(r, 500,
                          "The network %s cannot be used with services. Only networks scoped to the swarm can be used, "
                          "such as those created with the overlay driver.",
                          local);
    if (rc < 0 && rc != -ERR_NOT_FOUND)
        return api_refuse(r, 400, "%s", e.msg);
    return api_refuse(r, 500, "network %s not found", target);
}

int networks_resolve(struct req *r, struct store_snap *snap, json_t *spec)
{
    json_t *n;
    size_t i;

    json_array_foreach (networks_in(spec), i, n) {
        struct str id;
        if (resolve_one(r, snap, text(n, "Target"), &id) < 0)
            return -1;
        json_object_set_new(n, "Target", json_stringn(id.p, id.n));
    }
    return 0;
}

static bool publishes_in_mesh(json_t *spec)
{
    json_t *p;
    size_t i;

    json_array_foreach (json_object_get(json_object_get(spec, "EndpointSpec"), "Ports"), i, p)
        if (strcmp(text(p, "PublishMode"), "host") != 0)
            return true;
    return false;
}

int networks_require(struct req *r, struct store_snap *snap, struct txn *t, json_t *spec)
{
    json_t *n;
    size_t i;
    struct str id, doc;

    json_array_foreach (networks_in(spec), i, n) {
        id = arena_str(&t->arena, str_from(text(n, "Target")));
        if (network_predefined(id, true))
            continue;
        if (store_get(snap, KIND_NETWORK, id, &doc) < 0)
            return api_refuse(r, 500, "network " STR_FMT " not found", STR_ARG(id));
        txn_require_exists(t, KIND_NETWORK, id);
    }
    if (!publishes_in_mesh(spec))
        return 0;
    if (!network_find_ingress(snap, &id))
        return api_rpc_refuse(r, RPC_PRECONDITION, "service needs ingress network, but no ingress network is present");
    txn_require_exists(t, KIND_NETWORK, arena_str(&t->arena, id));
    return 0;
}
