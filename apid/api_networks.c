/* /networks: what there is: the swarm's own, and the few that every node has. */
#include "apid/api_networks.h"

#include <stdio.h>

#include "apid/api_resources.h"
#include "apid/api_state.h"
#include "common/proto/msg_meshd.h"
#include "common/util/check.h"
#include "common/util/cidr.h"
#include "common/util/crypto.h"
#include "common/util/table.h"

#define VIEW_BYTES (8u << 20)
#define VXLAN_OPTION "com.docker.network.driver.overlay.vxlanid_list"

static const struct mesh_empty nothing;

/* ---- those that every node has ---- */

static const struct predefined {
    const char *name, *driver;
    bool swarm_only, service;
} predefined[] = {
    { "bridge", "bridge", false, true },
    { "host", "host", false, true },
    { "none", "null", false, false },
    { "docker_gwbridge", "bridge", true, false }, /* how containers of overlay networks get out */
};
#define NPREDEFINED (sizeof predefined / sizeof *predefined)

static bool in_swarm(void)
{
    enum swarm_state s = state_now();
    return s == SWARM_WORKER || s == SWARM_MANAGER || s == SWARM_STARTING;
}

static void hash_id(const char *text, char hex[65])
{
    uint8_t hash[CRYPTO_HASH];

    crypto_sha256(str_from(text), hash);
    crypto_hex(hash, hex);
}

static const struct predefined *find_predefined(struct str ref, bool swarm)
{
    char hex[65];

    for (const struct predefined *p = predefined; p < predefined + NPREDEFINED; p++) {
        hash_id(p->name, hex);
        if ((swarm || !p->swarm_only) && (str_is(ref, p->name) || (ref.n >= 12 && str_starts(str_from(hex), ref))))
            return p;
    }
    return NULL;
}

const char *network_predefined(struct str ref, bool swarm)
{
    const struct predefined *p = find_predefined(ref, swarm);
    return p ? p->name : NULL;
}

const char *network_driver(const char *name)
{
    const struct predefined *p = find_predefined(str_from(name), true);
    return p ? p->driver : "";
}

bool network_of_service(const char *name)
{
    const struct predefined *p = find_predefined(str_from(name), true);
    return p && p->service;
}

/* put_predefined - as a network for services it has its name for an ID, since that is what services are told to keep.
 */
static void put_predefined(struct buf *b, const struct predefined *p, const char *scope, bool containers)
{
    char hex[65];

    hash_id(p->name, hex);
    if (strcmp(scope, "swarm") == 0)
        (void)snprintf(hex, sizeof hex, "%s", p->name);
    buf_printf(
        b,
        "{\"Name\":\"%s\",\"Id\":\"%s\",\"Created\":\"0001-01-01T00:00:00Z\",\"Scope\":\"%s\",\"Driver\":\"%s\","
        "\"EnableIPv4\":true,\"EnableIPv6\":false,\"IPAM\":{\"Driver\":\"default\",\"Options\":null,\"Config\":[]},"
        "\"Internal\":false,\"Attachable\":false,\"Ingress\":false,\"ConfigFrom\":{\"Network\":\"\"},"
        "\"ConfigOnly\":false,%s\"Options\":{},\"Labels\":{}}",
        p->name, hex, scope, p->driver, containers ? "\"Containers\":{}," : "");
}

/* ---- the swarm's ---- */

void network_ingress(struct buf *b, const char *id)
{
    mp_map(b, 2);
    mp_kv_cstr(b, "ID", id);
    mp_cstr(b, "Spec");
    mp_map(b, 5);
    mp_kv_cstr(b, "Name", "ingress");
    mp_kv_cstr(b, "Driver", "overlay");
    mp_kv_cstr(b, "Scope", "swarm");
    mp_kv_bool(b, "Ingress", true);
    mp_cstr(b, "Labels");
    mp_map(b, 0);
}

bool network_find_ingress(struct store_snap *snap, struct str *ret_id)
{
    struct store_iter it;
    struct str doc;
    bool ingress = false;

    if (store_find_name(snap, IX_NETWORK_NAME, STR("ingress"), ret_id) == 0 &&
        store_get(snap, KIND_NETWORK, *ret_id, &doc) == 0 && mp_get_bool(doc, "Spec.Ingress", &ingress) && ingress)
        return true;
    for (store_each(snap, KIND_NETWORK, &it); store_next(&it);)
        if (mp_get_bool(it.doc, "Spec.Ingress", &ingress) && ingress) {
            *ret_id = it.id;
            store_iter_done(&it);
            return true;
        }
    return false;
}

/* is_live - such a task counts for its network: one that is to stop does not keep it from being removed. */
static bool is_live(struct str task)
{
    return task_state_parse(text_at(task, "Status.State")) <= TASK_RUNNING &&
           task_state_parse(text_at(task, "DesiredState")) <= TASK_RUNNING;
}

/* The tasks of a service that was removed are to stop, although orchestratord may not have come to it yet: `stack rm`
 * removes the networks right after the services. */
bool network_user(struct store_snap *snap, struct str id, bool *ret_service, struct str *ret_user)
{
    struct store_iter it;
    struct str service;

    for (store_each_index(snap, IX_SERVICE_NETWORK, id, &it); store_next(&it);) {
        *ret_user = it.id;
        *ret_service = true;
        store_iter_done(&it);
        return true;
    }
    for (store_each_index(snap, IX_TASK_NETWORK, id, &it); store_next(&it);)
        if (is_live(it.doc) && store_get(snap, KIND_SERVICE, text_at(it.doc, "ServiceID"), &service) == 0) {
            *ret_user = it.id;
            *ret_service = false;
            store_iter_done(&it);
            return true;
        }
    return false;
}

/* ---- as JSON ---- */

static void put(struct buf *b, const char *key, struct str v)
{
    buf_printf(b, ",\"%s\":", key);
    buf_json_str(b, v);
}

static void put_map(struct buf *b, const struct strmap *m)
{
    buf_putc(b, '{');
    for (size_t i = 0; i < m->n; i++) {
        buf_puts(b, i ? "," : "");
        buf_json_str(b, m->v[i].key);
        buf_putc(b, ':');
        buf_json_str(b, m->v[i].val);
    }
    buf_putc(b, '}');
}

static void put_subnets(struct buf *b, const struct list *l)
{
    const struct view_ipam_config *c = l->v;

    buf_putc(b, '[');
    for (size_t i = 0; i < l->n; i++) {
        buf_puts(b, i ? ",{\"Subnet\":" : "{\"Subnet\":");
        buf_json_str(b, c[i].Subnet);
        if (c[i].IPRange.n)
            put(b, "IPRange", c[i].IPRange);
        if (c[i].Gateway.n)
            put(b, "Gateway", c[i].Gateway);
        if (c[i].AuxiliaryAddresses.n) {
            buf_puts(b, ",\"AuxiliaryAddresses\":");
            put_map(b, &c[i].AuxiliaryAddresses);
        }
        buf_putc(b, '}');
    }
    buf_putc(b, ']');
}

/* put_options - as posted, and the VXLAN id that allocatord chose. */
static void put_options(struct buf *b, const struct view_network *n)
{
    bool any = false;

    buf_puts(b, ",\"Options\":{");
    if (n->State.VNI) {
        buf_printf(b, "\"" VXLAN_OPTION "\":\"%llu\"", (unsigned long long)n->State.VNI);
        any = true;
    }
    for (size_t i = 0; i < n->Spec.Options.n; i++) {
        const struct strpair *o = &n->Spec.Options.v[i];
        if (n->State.VNI && str_is(o->key, VXLAN_OPTION))
            continue;
        buf_puts(b, any ? "," : "");
        any = true;
        buf_json_str(b, o->key);
        buf_putc(b, ':');
        buf_json_str(b, o->val);
    }
    buf_putc(b, '}');
}

static const char *truth(bool v)
{
    return v ? "true" : "false";
}

/* put_network - all but the closing brace and what only an inspect shows. */
static void put_network(struct buf *b, const struct view_network *n, unsigned version)
{
    const struct list *subnets = n->State.VNI ? &n->IPAM.Config : &n->Spec.IPAM.Config;
    char created[WALL_TEXT_MAX];

    wall_format((struct wall_ns){ n->CreatedAt }, created);
    buf_puts(b, "{\"Name\":");
    buf_json_str(b, n->Spec.Name);
    put(b, "Id", n->ID);
    buf_printf(b, ",\"Created\":\"%s\",\"Scope\":\"swarm\"", created);
    put(b, "Driver", n->Spec.Driver.n ? n->Spec.Driver : STR("overlay"));
    if (version >= 148)
        buf_puts(b, ",\"EnableIPv4\":true");
    buf_printf(b, ",\"EnableIPv6\":%s,\"IPAM\":{\"Driver\":", truth(n->Spec.EnableIPv6));
    buf_json_str(b, n->Spec.IPAM.Driver.n ? n->Spec.IPAM.Driver : STR("default"));
    buf_puts(b, ",\"Options\":null,\"Config\":");
    put_subnets(b, subnets);
    buf_printf(b,
               "},\"Internal\":%s,\"Attachable\":%s,\"Ingress\":%s,\"ConfigFrom\":{\"Network\":\"\"},"
               "\"ConfigOnly\":false",
               truth(n->Spec.Internal), truth(n->Spec.Attachable), truth(n->Spec.Ingress));
    put_options(b, n);
    buf_puts(b, ",\"Labels\":");
    put_map(b, &n->Spec.Labels);
    if (n->State.Error.n) { /* Docker has no word for it */
        buf_puts(b, ",\"Status\":{\"Error\":");
        buf_json_str(b, n->State.Error);
        buf_putc(b, '}');
    }
}

/* ---- who is on it ---- */

struct on_network {
    struct store_snap *snap;
    struct str net;
};

/* runs - its container is there, as far as is known. */
static bool runs(const struct view_task *t)
{
    enum task_state s = task_state_parse(t->Status.State);
    return s >= TASK_STARTING && s <= TASK_RUNNING;
}

static const struct view_task_network *attached(const struct view_task *t, struct str net)
{
    const struct view_task_network *n = t->NetworksAttachments.v;

    for (size_t i = 0; i < t->NetworksAttachments.n; i++)
        if (str_eq(n[i].NetworkID, net))
            return &n[i];
    return NULL;
}

static struct str address(const struct view_task_network *n, uint8_t family)
{
    struct cidr c;

    for (size_t i = 0; n && i < n->Addresses.n; i++)
        if (cidr_parse(n->Addresses.v[i], &c) && c.ip.family == family)
            return n->Addresses.v[i];
    return STR("");
}

static struct str without_length(struct str cidr)
{
    const char *slash = cidr.n ? memchr(cidr.p, '/', cidr.n) : NULL;
    return slash ? (struct str){ cidr.p, (size_t)(slash - cidr.p) } : cidr;
}

/* put_endpoint - no endpoint of ours has an ID; one is made of what tells them apart. */
static void put_endpoint(struct buf *b, struct str task, struct str net)
{
    char text[300], hex[65];

    (void)snprintf(text, sizeof text, STR_FMT "/" STR_FMT, STR_ARG(task), STR_ARG(net));
    hash_id(text, hex);
    put(b, "EndpointID", str_from(hex));
}

/* put_containers - of the tasks of this node. */
static void put_containers(struct req *r, const struct on_network *on, struct str node)
{
    struct buf *b = &r->out, name = BUF_INIT;
    struct store_iter it;
    struct arena a;
    struct err e = ERR_INIT;
    bool any = false;

    arena_init(&a, VIEW_BYTES);
    buf_puts(b, ",\"Containers\":");
    for (store_each_index(on->snap, IX_TASK_NETWORK, on->net, &it); store_next(&it); arena_reset(&a)) {
        struct view_task t;
        struct cidr c = { 0 };
        if (!str_eq(text_at(it.doc, "NodeID"), node) || view_task(it.doc, &t, &a, &e) < 0 || !runs(&t))
            continue;
        struct str four = address(attached(&t, on->net), 4);
        struct str id = t.Status.ContainerStatus ? t.Status.ContainerStatus->ContainerID : t.ID;
        buf_clear(&name);
        task_name(&name, on->snap, it.doc);
        buf_putc(b, any ? ',' : '{');
        any = true;
        buf_json_str(b, id);
        buf_puts(b, ":{\"Name\":");
        buf_json_str(b, buf_str(&name));
        put_endpoint(b, t.ID, on->net);
        (void)cidr_parse(four, &c);
        uint32_t v = (uint32_t)c.ip.v;
        buf_printf(b, ",\"MacAddress\":\"02:42:%02x:%02x:%02x:%02x\"", v >> 24, v >> 16 & 255, v >> 8 & 255, v & 255);
        put(b, "IPv4Address", four);
        put(b, "IPv6Address", address(attached(&t, on->net), 6));
        buf_putc(b, '}');
    }
    buf_puts(b, any ? "}" : "null");
    buf_done(&name);
    arena_done(&a);
}

/* put_peers - the nodes that have a part of it: of the ingress network all, of others those with a task on it. */
static void put_peers(struct req *r, const struct on_network *on, bool all)
{
    struct buf *b = &r->out;
    struct table nodes;
    struct store_iter it, tasks;
    bool any = false;

    table_init(&nodes, 0);
    if (!all)
        for (store_each_index(on->snap, IX_TASK_NETWORK, on->net, &tasks); store_next(&tasks);) {
            struct str node = text_at(tasks.doc, "NodeID");
            if (is_live(tasks.doc) && node.n)
                table_put(&nodes, node, NULL);
        }
    for (store_each(on->snap, KIND_NODE, &it); store_next(&it);) {
        struct str addr = text_at(it.doc, "DataPathAddr");
        if (!all && !table_get(&nodes, it.id))
            continue;
        if (addr.n == 0)
            addr = text_at(it.doc, "Status.Addr");
        buf_puts(b, any ? ",{\"Name\":" : ",\"Peers\":[{\"Name\":");
        any = true;
        buf_json_str(b, (struct str){ it.id.p, it.id.n < 12 ? it.id.n : 12 });
        put(b, "IP", addr);
        buf_putc(b, '}');
    }
    buf_puts(b, any ? "]" : "");
    table_done(&nodes);
}

static void put_service_tasks(struct buf *b, const struct on_network *on, struct str service)
{
    struct buf name = BUF_INIT;
    struct store_iter it;
    struct arena a;
    struct err e = ERR_INIT;
    bool any = false;

    arena_init(&a, VIEW_BYTES);
    buf_puts(b, ",\"Tasks\":[");
    for (store_each_index(on->snap, IX_TASK_SERVICE, service, &it); store_next(&it); arena_reset(&a)) {
        struct view_task t;
        struct str node, addr = STR("");
        if (view_task(it.doc, &t, &a, &e) < 0 || !runs(&t) || !attached(&t, on->net))
            continue;
        if (store_get(on->snap, KIND_NODE, t.NodeID, &node) == 0) {
            addr = text_at(node, "DataPathAddr");
            addr = addr.n ? addr : text_at(node, "Status.Addr");
        }
        buf_clear(&name);
        task_name(&name, on->snap, it.doc);
        buf_puts(b, any ? ",{\"Name\":" : "{\"Name\":");
        any = true;
        buf_json_str(b, buf_str(&name));
        put_endpoint(b, t.ID, on->net);
        put(b, "EndpointIP", without_length(address(attached(&t, on->net), 4)));
        buf_puts(b, ",\"Info\":{\"Host IP\":");
        buf_json_str(b, addr);
        buf_puts(b, "}}");
    }
    buf_putc(b, ']');
    buf_done(&name);
    arena_done(&a);
}

static void put_service(struct buf *b, const struct on_network *on, const struct view_service *s, struct str vip,
                        bool ports)
{
    const struct view_port *p = s->Endpoint.Ports.v;
    bool any = false;

    buf_json_str(b, s->Spec.Name);
    buf_puts(b, ":{\"VIP\":");
    buf_json_str(b, without_length(vip));
    buf_puts(b, ",\"Ports\":[");
    for (size_t i = 0; ports && i < s->Endpoint.Ports.n; i++) {
        if (str_is(p[i].PublishMode, "host"))
            continue;
        buf_printf(b, "%s\"Target: %llu, Publish: %llu\"", any ? "," : "", (unsigned long long)p[i].TargetPort,
                   (unsigned long long)p[i].PublishedPort);
        any = true;
    }
    buf_puts(b, "],\"LocalLBIndex\":0");
    put_service_tasks(b, on, s->ID);
    buf_putc(b, '}');
}

/* put_services - those that are on it: they want it, or have (still) an address on it. */
static void put_services(struct req *r, const struct on_network *on, bool ingress)
{
    struct buf *b = &r->out;
    struct store_iter it;
    struct arena a;
    struct err e = ERR_INIT;
    bool any = false;

    arena_init(&a, VIEW_BYTES);
    buf_puts(b, ",\"Services\":{");
    for (store_each(on->snap, KIND_SERVICE, &it); store_next(&it); arena_reset(&a)) {
        struct view_service s;
        struct str vip = STR("");
        bool wants = false;
        if (view_service(it.doc, &s, &a, &e) < 0)
            continue;
        const struct view_vip *v = s.Endpoint.VirtualIPs.v;
        const struct view_attachment_config *n = s.Spec.TaskTemplate.Networks.v;
        for (size_t i = 0; i < s.Spec.TaskTemplate.Networks.n; i++)
            wants |= str_eq(n[i].Target, on->net);
        for (size_t i = s.Endpoint.VirtualIPs.n; i-- > 0;)
            if (str_eq(v[i].NetworkID, on->net))
                vip = v[i].Addr;
        if (!wants && vip.n == 0)
            continue;
        buf_puts(b, any ? "," : "");
        any = true;
        put_service(b, on, &s, vip, ingress);
    }
    buf_putc(b, '}');
    arena_done(&a);
}

/* ---- list ---- */

static bool truthy(struct str s)
{
    return str_is(s, "true") || str_is(s, "1");
}

/* Docker refuses values that mean nothing. */
static int check_filters(struct req *r, const struct filters *f)
{
    const struct filter *x = filters_get(f, "dangling"), *type = filters_get(f, "type");

    if (x && (x->n > 1 || !(truthy(x->vals[0]) || str_is(x->vals[0], "false") || str_is(x->vals[0], "0"))))
        return api_refuse(r, 400, "invalid value for \"dangling\" filter: \"" STR_FMT "\"", STR_ARG(x->vals[0]));
    for (size_t i = 0; type && i < type->n; i++)
        if (!str_is(type->vals[i], "custom") && !str_is(type->vals[i], "builtin"))
            return api_refuse(r, 400, "invalid filter: 'type'='" STR_FMT "'", STR_ARG(type->vals[i]));
    return 0;
}

static bool dangling_matches(const struct filters *f, bool dangling)
{
    const struct filter *x = filters_get(f, "dangling");
    return !x || truthy(x->vals[0]) == dangling;
}

static bool predefined_matches(const struct filters *f, const struct predefined *p)
{
    char hex[65];

    hash_id(p->name, hex);
    return filters_substr(f, "name", str_from(p->name)) && filters_prefix(f, "id", str_from(hex)) &&
           filters_exact(f, "driver", str_from(p->driver)) &&
           filters_exact(f, "type", p->swarm_only ? STR("custom") : STR("builtin")) &&
           filters_exact(f, "scope", STR("local")) && filters_labels(f, "label", (struct str){ NULL, 0 }) &&
           dangling_matches(f, false);
}

static bool swarm_matches(const struct filters *f, const struct view_network *n)
{
    return filters_substr(f, "name", n->Spec.Name) && filters_prefix(f, "id", n->ID) &&
           filters_exact(f, "driver", n->Spec.Driver.n ? n->Spec.Driver : STR("overlay")) &&
           filters_exact(f, "type", STR("custom")) && filters_exact(f, "scope", STR("swarm")) &&
           filters_label_map(f, "label", &n->Spec.Labels);
}

static bool network_matches(const struct filters *f, struct store_snap *snap, const struct view_network *n)
{
    struct str user;
    bool service;

    return swarm_matches(f, n) &&
           (!filters_get(f, "dangling") ||
            dangling_matches(f, !n->Spec.Ingress && !network_user(snap, n->ID, &service, &user)));
}

static int list_swarm(struct req *r, const struct filters *f, bool any)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct err e = ERR_INIT;
    struct store_iter it;
    struct arena a;

    if (api_snap(r, &snap, NULL) < 0)
        return -1;
    arena_init(&a, VIEW_BYTES);
    for (store_each(snap, KIND_NETWORK, &it); store_next(&it); arena_reset(&a)) {
        struct view_network n;
        if (view_network(it.doc, &n, &a, &e) < 0 || !network_matches(f, snap, &n))
            continue;
        buf_puts(&r->out, any ? "," : "");
        any = true;
        put_network(&r->out, &n, r->version);
        buf_puts(&r->out, ",\"Containers\":null}");
    }
    arena_done(&a);
    return 0;
}

/* ---- on a worker: what its meshd knows ---- */

/* of_node - as if it had come from the store. */
static struct view_network of_node(struct req *r, const struct net_network *n)
{
    const struct net_subnet *s = n->Subnets.v;
    struct view_ipam_config *c = arena_array(&r->arena, n->Subnets.n + 1, sizeof *c);

    CHECK(c);
    for (size_t i = 0; i < n->Subnets.n; i++)
        c[i] = (struct view_ipam_config){ .Subnet = s[i].Subnet, .Gateway = s[i].Gateway };
    return (struct view_network){ .ID = n->ID,
                                  .Spec = { .Name = n->Name, .Internal = n->Internal, .Ingress = n->Ingress },
                                  .IPAM.Config = { c, n->Subnets.n },
                                  .State.VNI = n->VNI };
}

/* In the middle of the list; without meshd there are only the node's own. */
static void list_node(struct req *r, const void *rep, const struct err *e)
{
    const struct mesh_networks_reply *l = rep;
    const struct filters *f = r->data;

    for (size_t i = 0; e->code == 0 && i < l->Networks.n; i++) {
        struct view_network n = of_node(r, &((const struct net_network *)l->Networks.v)[i]);
        if (!swarm_matches(f, &n) || !dangling_matches(f, false))
            continue;
        buf_puts(&r->out, r->out.n > 1 ? "," : "");
        put_network(&r->out, &n, r->version);
        buf_puts(&r->out, ",\"Containers\":null}");
    }
    buf_puts(&r->out, "]\n");
    api_reply(r, 200);
}

static void inspect_node(struct req *r, const void *rep, const struct err *e)
{
    const struct mesh_networks_reply *l = rep;
    const struct net_network *v = e->code == 0 ? l->Networks.v : NULL, *found = NULL;
    struct str ref = r->params[0];
    size_t n = e->code == 0 ? l->Networks.n : 0, prefixes = 0;

    for (size_t i = 0; i < n && !found; i++)
        found = str_eq(v[i].ID, ref) || str_eq(v[i].Name, ref) ? &v[i] : NULL;
    for (size_t i = 0; i < n && !found; i++)
        prefixes += ref.n > 0 && str_starts(v[i].ID, ref);
    for (size_t i = 0; i < n && !found && prefixes == 1; i++)
        found = str_starts(v[i].ID, ref) ? &v[i] : NULL;
    if (!found) {
        api_error(r, 404, "network " STR_FMT " not found", STR_ARG(ref));
        return;
    }
    struct view_network one = of_node(r, found);
    put_network(&r->out, &one, r->version);
    buf_puts(&r->out, ",\"Containers\":null}\n");
    api_reply(r, 200);
}

void networks_list(struct req *r)
{
    static const char *const known[] = { "id", "name", "driver", "type", "scope", "label", "dangling", NULL };
    struct filters *f = arena_alloc(&r->arena, sizeof *f);
    bool any = false;

    CHECK(f);
    if (api_filters(r, f, known) < 0 || check_filters(r, f) < 0)
        return;
    buf_putc(&r->out, '[');
    for (const struct predefined *p = predefined; p < predefined + NPREDEFINED; p++)
        if ((in_swarm() || !p->swarm_only) && predefined_matches(f, p)) {
            buf_puts(&r->out, any ? "," : "");
            put_predefined(&r->out, p, "local", false);
            any = true;
        }
    if (state_now() == SWARM_WORKER) {
        r->data = f;
        api_call(r, api.meshd, &op_mesh_networks, &nothing, API_AGENT_DEADLINE_MS, list_node);
        return;
    }
    if (state_now() == SWARM_MANAGER && list_swarm(r, f, any) < 0)
        return;
    buf_puts(&r->out, "]\n");
    api_reply(r, 200);
}

/* ---- inspect ---- */

static int inspect_swarm(struct req *r, bool verbose)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct on_network on;
    struct store_meta meta;
    struct err e = ERR_INIT;
    struct view_network n;
    struct str id, doc;

    if (api_snap(r, &snap, &meta) < 0)
        return -1;
    int rc = store_resolve(snap, KIND_NETWORK, IX_NETWORK_NAME, r->params[0], &id, &doc, &e);
    if (rc == -ERR_NOT_FOUND)
        return api_refuse(r, 404, "network " STR_FMT " not found", STR_ARG(r->params[0]));
    if (rc < 0 || view_network(doc, &n, &r->arena, &e) < 0) {
        api_fail(r, &e);
        return -1;
    }
    on = (struct on_network){ snap, id };
    put_network(&r->out, &n, r->version);
    put_containers(r, &on, meta.node_id);
    put_peers(r, &on, n.Spec.Ingress);
    if (verbose)
        put_services(r, &on, n.Spec.Ingress);
    buf_puts(&r->out, "}\n");
    return 0;
}

void networks_inspect(struct req *r)
{
    struct str ref = r->params[0], scope = query_get(&r->query, "scope");
    const struct predefined *p = find_predefined(ref, in_swarm());
    bool verbose, swarm = state_now() == SWARM_MANAGER;
    struct err e = ERR_INIT;

    if (query_strict(&r->query, "verbose", &verbose, &e) < 0) {
        api_fail(r, &e);
        return;
    }
    /* Docker has "host" and "bridge" a second time, as networks for services. */
    if (p && str_is(scope, "swarm") && !(swarm && p->service))
        p = NULL;
    if (p && (scope.n == 0 || str_is(scope, "local") || str_is(scope, "swarm"))) {
        put_predefined(&r->out, p, scope.n ? str_is(scope, "swarm") ? "swarm" : "local" : "local", true);
        buf_putc(&r->out, '\n');
        api_reply(r, 200);
    } else if (state_now() == SWARM_WORKER && (scope.n == 0 || str_is(scope, "swarm"))) {
        api_call(r, api.meshd, &op_mesh_networks, &nothing, API_AGENT_DEADLINE_MS, inspect_node);
    } else if (!swarm || (scope.n > 0 && !str_is(scope, "swarm"))) {
        api_error(r, 404, "network " STR_FMT " not found", STR_ARG(ref));
    } else if (inspect_swarm(r, verbose) == 0) {
        api_reply(r, 200);
    }
}

/* ---- in tasks ---- */

static void put_times(struct buf *b, const struct view_network *n)
{
    char text[WALL_TEXT_MAX];

    wall_format((struct wall_ns){ n->CreatedAt }, text);
    mp_kv_cstr(b, "CreatedAt", text);
    wall_format((struct wall_ns){ n->UpdatedAt }, text);
    mp_kv_cstr(b, "UpdatedAt", text);
}

static void put_strmap(struct buf *b, const char *key, const struct strmap *m)
{
    mp_cstr(b, key);
    mp_map(b, m->n);
    for (size_t i = 0; i < m->n; i++) {
        mp_str(b, m->v[i].key);
        mp_str(b, m->v[i].val);
    }
}

/* put_ipam - swarmkit's names differ from the API's: Range, not IPRange. */
static void put_ipam(struct buf *b, const struct view_ipam *i, bool name)
{
    const struct view_ipam_config *c = i->Config.v;

    mp_cstr(b, "IPAMOptions");
    mp_map(b, 1 + (i->Config.n != 0));
    mp_cstr(b, "Driver");
    mp_map(b, name || i->Driver.n);
    if (name || i->Driver.n)
        mp_kv_str(b, "Name", i->Driver.n ? i->Driver : STR("default"));
    if (i->Config.n == 0)
        return;
    mp_cstr(b, "Configs");
    mp_array(b, i->Config.n);
    for (size_t k = 0; k < i->Config.n; k++) {
        mp_map(b, (c[k].Subnet.n != 0) + (c[k].IPRange.n != 0) + (c[k].Gateway.n != 0));
        if (c[k].Subnet.n)
            mp_kv_str(b, "Subnet", c[k].Subnet);
        if (c[k].IPRange.n)
            mp_kv_str(b, "Range", c[k].IPRange);
        if (c[k].Gateway.n)
            mp_kv_str(b, "Gateway", c[k].Gateway);
    }
}

static void put_spec(struct buf *b, const struct view_network_spec *s)
{
    mp_cstr(b, "Spec");
    mp_map(b, 5u + s->EnableIPv6 + s->Internal + s->Attachable + s->Ingress);
    mp_kv_str(b, "Name", s->Name);
    put_strmap(b, "Labels", &s->Labels);
    mp_cstr(b, "DriverConfiguration");
    mp_map(b, (s->Driver.n != 0) + (s->Options.n != 0));
    if (s->Driver.n)
        mp_kv_str(b, "Name", s->Driver);
    if (s->Options.n)
        put_strmap(b, "Options", &s->Options);
    if (s->EnableIPv6)
        mp_kv_bool(b, "IPv6Enabled", true);
    if (s->Internal)
        mp_kv_bool(b, "Internal", true);
    if (s->Attachable)
        mp_kv_bool(b, "Attachable", true);
    if (s->Ingress)
        mp_kv_bool(b, "Ingress", true);
    put_ipam(b, &s->IPAM, false);
    mp_kv_cstr(b, "Scope", "swarm");
}

/* put_object - a network as it stands in a task. One that was removed since has only its ID. */
static void put_object(struct buf *b, struct store_snap *snap, struct str id, struct arena *a)
{
    struct view_network n = { .ID = id };
    struct err e = ERR_INIT;
    struct str doc;
    char vni[24];

    if (store_get(snap, KIND_NETWORK, id, &doc) == 0 && view_network(doc, &n, a, &e) < 0)
        n = (struct view_network){ .ID = id };
    mp_map(b, 7);
    mp_kv_str(b, "ID", n.ID);
    mp_cstr(b, "Version");
    mp_map(b, 1);
    mp_kv_u64(b, "Index", n.Version.Index);
    put_times(b, &n);
    put_spec(b, &n.Spec);
    mp_cstr(b, "DriverState");
    mp_map(b, n.State.VNI ? 2 : 0);
    if (n.State.VNI) {
        (void)snprintf(vni, sizeof vni, "%llu", (unsigned long long)n.State.VNI);
        mp_kv_cstr(b, "Name", "overlay");
        mp_cstr(b, "Options");
        mp_map(b, 1);
        mp_kv_cstr(b, VXLAN_OPTION, vni);
    }
    put_ipam(b, &n.IPAM, true);
}

bool network_attachments(struct buf *b, struct store_snap *snap, struct str task)
{
    struct mp_cursor c;
    struct mp_val head;
    struct arena a;
    struct str list, one, v;

    if (!mp_find(task, "NetworksAttachments", &list))
        return false;
    c = mp_cursor(list);
    if (mp_next(&c, &head) < 0 || head.type != MP_ARRAY || head.n == 0)
        return false;
    arena_init(&a, VIEW_BYTES);
    mp_array(b, head.n);
    for (size_t i = 0; i < head.n; i++) {
        if (mp_span(&c, &one) < 0)
            one = (struct str){ NULL, 0 };
        mp_map(b, 2);
        mp_cstr(b, "Network");
        put_object(b, snap, text_at(one, "NetworkID"), &a);
        mp_cstr(b, "Addresses");
        if (mp_find(one, "Addresses", &v))
            mp_raw(b, v);
        else
            mp_array(b, 0);
        arena_reset(&a);
    }
    arena_done(&a);
    return true;
}
