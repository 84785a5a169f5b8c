#include "tests/sim/mesh_model.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/object/views.h"
#include "common/util/check.h"

#define KEY_SIZE 160

void model_init(struct mesh_model *m)
{
    m->seq = 0;
    table_init(&m->lines, MODEL_TEXT);
}

void model_clear(struct mesh_model *m)
{
    m->seq = 0;
    table_clear(&m->lines);
}

void model_done(struct mesh_model *m)
{
    table_done(&m->lines);
}

static char *line(struct mesh_model *m, const char *kind, struct str a, struct str b)
{
    char key[KEY_SIZE];
    CHECK(snprintf(key, sizeof key, "%s/" STR_FMT "%s" STR_FMT, kind, STR_ARG(a), b.n ? "/" : "", STR_ARG(b)) <
          KEY_SIZE);
    return table_put(&m->lines, str_from(key), NULL);
}

static bool there(const struct mesh_model *m, const char *kind, struct str id)
{
    char key[KEY_SIZE];
    CHECK(snprintf(key, sizeof key, "%s/" STR_FMT, kind, STR_ARG(id)) < KEY_SIZE);
    return table_get(&m->lines, str_from(key)) != NULL;
}

static void drop(struct mesh_model *m, const char *kind, struct str id)
{
    char key[KEY_SIZE];
    CHECK(snprintf(key, sizeof key, "%s/" STR_FMT, kind, STR_ARG(id)) < KEY_SIZE);
    table_del(&m->lines, str_from(key));
}

static void add(char *text, const char *word, struct str s)
{
    size_t n = strlen(text);
    CHECK(snprintf(text + n, MODEL_TEXT - n, " %s=" STR_FMT, word, STR_ARG(s)) < (int)(MODEL_TEXT - n));
}

static void add_all(char *text, const char *word, const struct strs *s)
{
    for (size_t i = 0; i < s->n; i++)
        add(text, word, s->v[i]);
}

static void add_u64(char *text, const char *word, uint64_t v)
{
    char number[24];
    snprintf(number, sizeof number, "%" PRIu64, v);
    add(text, word, str_from(number));
}

/* ---- from answers ---- */

void model_ask(const struct mesh_model *m, struct arena *a, struct disp_network *ret)
{
    struct str key;
    ret->Seq = m->seq;
    ret->Networks.v = arena_array(a, m->lines.count + 1, sizeof(struct str));
    CHECK(ret->Networks.v != NULL);
    for (struct table_pos p = { 0 }; m->seq && table_next(&m->lines, &p, &key, NULL);)
        if (str_starts(key, STR("n/")))
            ret->Networks.v[ret->Networks.n++] = arena_str(a, (struct str){ key.p + 2, key.n - 2 });
}

static void drop_network(struct mesh_model *m, struct str id)
{
    char prefix[2][KEY_SIZE];
    struct str key;
    drop(m, "n", id);
    for (int i = 0; i < 2; i++)
        CHECK(snprintf(prefix[i], KEY_SIZE, "%c/" STR_FMT "/", "se"[i], STR_ARG(id)) < KEY_SIZE);
    for (struct table_pos p = { 0 }; table_next(&m->lines, &p, &key, NULL);)
        if (str_starts(key, str_from(prefix[0])) || str_starts(key, str_from(prefix[1])))
            table_del(&m->lines, key);
}

static void network_text(char *text, const struct net_network *n)
{
    const struct net_subnet *s = n->Subnets.v;
    text[0] = 0;
    add(text, "name", n->Name);
    add_u64(text, "vni", n->VNI);
    add_u64(text, "flags", n->Encrypted + 2u * n->Internal + 4u * n->Ingress + 8u * n->Attachable);
    for (size_t i = 0; i < n->Subnets.n; i++) {
        add(text, "subnet", s[i].Subnet);
        add(text, "gateway", s[i].Gateway);
    }
}

static void service_text(char *text, const struct net_service *s)
{
    const struct net_port *p = s->Ports.v;
    text[0] = 0;
    add(text, "name", s->Name);
    add(text, "mode", s->Mode);
    add_all(text, "vip", &s->VIPs);
    add_all(text, "alias", &s->Aliases);
    for (size_t i = 0; i < s->Ports.n; i++) {
        add(text, "port", p[i].Protocol);
        add_u64(text, "published", p[i].PublishedPort);
        add_u64(text, "target", p[i].TargetPort);
    }
}

static void endpoint_text(char *text, const struct net_endpoint *e)
{
    text[0] = 0;
    add(text, "service", e->ServiceID);
    add(text, "node", e->NodeID);
    add(text, "name", e->Name);
    add(text, "state", e->State);
    add_all(text, "address", &e->Addresses);
}

static void node_text(char *text, const struct net_node *n)
{
    text[0] = 0;
    add(text, "address", n->Addr);
    add(text, "host", n->Hostname);
}

static void key_text(char *text, const struct net_key *k)
{
    text[0] = 0;
    add(text, "bytes", k->Key);
}

static void keys(struct mesh_model *m, const struct list *l)
{
    const struct net_key *k = l->v;
    struct str key;
    char epoch[24];
    for (struct table_pos p = { 0 }; l->n && table_next(&m->lines, &p, &key, NULL);)
        if (str_starts(key, STR("key/")))
            table_del(&m->lines, key);
    for (size_t i = 0; i < l->n; i++) {
        snprintf(epoch, sizeof epoch, "%" PRIu64, k[i].Epoch);
        key_text(line(m, "key", k[i].Purpose, str_from(epoch)), &k[i]);
    }
}

/* separate - nothing is named as gone and as there in one answer: so the order of taking it in cannot matter. */
static void separate(const struct disp_network_reply *r)
{
    const struct net_endpoint *e = r->Endpoints.v;
    const struct net_service *s = r->Services.v;
    char text[KEY_SIZE];
    for (size_t i = 0; i < r->Endpoints.n; i++) {
        snprintf(text, sizeof text, STR_FMT "/" STR_FMT, STR_ARG(e[i].NetworkID), STR_ARG(e[i].ID));
        for (size_t k = 0; k < r->GoneEndpoints.n; k++)
            CHECK(!str_is(r->GoneEndpoints.v[k], text));
    }
    for (size_t i = 0; i < r->Services.n; i++) {
        snprintf(text, sizeof text, STR_FMT "/" STR_FMT, STR_ARG(s[i].NetworkID), STR_ARG(s[i].ID));
        for (size_t k = 0; k < r->GoneServices.n; k++)
            CHECK(!str_is(r->GoneServices.v[k], text));
    }
    for (size_t i = 0; i < r->Networks.n; i++)
        for (size_t k = 0; k < r->GoneNetworks.n; k++)
            CHECK(!str_eq(r->GoneNetworks.v[k], ((const struct net_network *)r->Networks.v)[i].ID));
    for (size_t i = 0; i < r->Nodes.n; i++)
        for (size_t k = 0; k < r->GoneNodes.n; k++)
            CHECK(!str_eq(r->GoneNodes.v[k], ((const struct net_node *)r->Nodes.v)[i].ID));
}

void model_apply(struct mesh_model *m, const struct disp_network_reply *r)
{
    const struct net_network *n = r->Networks.v;
    const struct net_service *s = r->Services.v;
    const struct net_endpoint *e = r->Endpoints.v;
    const struct net_node *o = r->Nodes.v;
    separate(r);
    CHECK(r->Full || r->Seq >= m->seq);
    if (r->Full)
        model_clear(m);
    for (size_t i = 0; i < r->GoneNetworks.n; i++)
        drop_network(m, r->GoneNetworks.v[i]);
    for (size_t i = 0; i < r->GoneServices.n; i++)
        drop(m, "s", r->GoneServices.v[i]);
    for (size_t i = 0; i < r->GoneEndpoints.n; i++)
        drop(m, "e", r->GoneEndpoints.v[i]);
    for (size_t i = 0; i < r->GoneNodes.n; i++)
        drop(m, "node", r->GoneNodes.v[i]);
    for (size_t i = 0; i < r->Networks.n; i++)
        network_text(line(m, "n", n[i].ID, STR("")), &n[i]);
    for (size_t i = 0; i < r->Services.n; i++) {
        CHECK(there(m, "n", s[i].NetworkID));
        service_text(line(m, "s", s[i].NetworkID, s[i].ID), &s[i]);
    }
    for (size_t i = 0; i < r->Endpoints.n; i++) {
        CHECK(there(m, "n", e[i].NetworkID));
        endpoint_text(line(m, "e", e[i].NetworkID, e[i].ID), &e[i]);
    }
    for (size_t i = 0; i < r->Nodes.n; i++)
        node_text(line(m, "node", o[i].ID, STR("")), &o[i]);
    keys(m, &r->Keys);
    m->seq = r->Seq;
}

bool model_sends(const struct mesh_model *m, struct str task)
{
    const char *text;
    struct str key;
    for (struct table_pos p = { 0 }; table_next(&m->lines, &p, &key, &text);)
        if (str_starts(key, STR("e/")) && key.n > task.n && memcmp(key.p + key.n - task.n, task.p, task.n) == 0 &&
            strstr(text, " state=ready"))
            return true;
    return false;
}

/* ---- from the store ---- */

static struct str bare(struct str cidr)
{
    const char *slash = cidr.n ? memchr(cidr.p, '/', cidr.n) : NULL;
    return slash ? (struct str){ cidr.p, (size_t)(slash - cidr.p) } : cidr;
}

static struct strs bare_all(const struct strs *s, struct arena *a)
{
    struct strs r = { arena_array(a, s->n + 1, sizeof(struct str)), s->n };
    CHECK(r.v != NULL);
    for (size_t i = 0; i < s->n; i++)
        r.v[i] = bare(s->v[i]);
    return r;
}

static bool on_the_way(const struct view_task *t)
{
    enum task_state s = task_state_parse(t->Status.State);
    return t->NodeID.n && s >= TASK_ASSIGNED && s <= TASK_RUNNING;
}

static bool relevant(struct store_snap *snap, const struct view_network *n, struct str node, struct arena *a)
{
    struct store_iter it;
    struct view_task t;
    struct err e;
    bool found = n->Spec.Ingress;
    for (store_each_index(snap, IX_TASK_NETWORK, n->ID, &it); store_next(&it);) {
        CHECK(view_task(it.doc, &t, a, &e) == 0);
        found |= str_eq(t.NodeID, node) && on_the_way(&t);
    }
    return found && n->State.VNI != 0;
}

static void expect_network(struct mesh_model *m, const struct view_network *n, struct arena *a)
{
    struct net_network out = { .Name = n->Spec.Name,
                               .VNI = n->State.VNI,
                               .Internal = n->Spec.Internal,
                               .Ingress = n->Spec.Ingress,
                               .Attachable = n->Spec.Attachable };
    const struct view_ipam_config *c = n->IPAM.Config.v;
    struct net_subnet *s = arena_array(a, n->IPAM.Config.n + 1, sizeof *s);
    CHECK(s != NULL);
    for (size_t i = 0; i < n->Spec.Options.n; i++)
        out.Encrypted |= str_is(n->Spec.Options.v[i].key, "encrypted");
    for (size_t i = 0; i < n->IPAM.Config.n; i++)
        if (!memchr(c[i].Subnet.p, ':', c[i].Subnet.n))
            s[out.Subnets.n++] = (struct net_subnet){ c[i].Subnet, bare(c[i].Gateway) };
    for (size_t i = 0; i < n->IPAM.Config.n; i++)
        if (memchr(c[i].Subnet.p, ':', c[i].Subnet.n))
            s[out.Subnets.n++] = (struct net_subnet){ c[i].Subnet, bare(c[i].Gateway) };
    out.Subnets.v = s;
    network_text(line(m, "n", n->ID, STR("")), &out);
}

static void expect_service(struct mesh_model *m, const struct view_service *v, const struct view_network *n,
                           struct arena *a)
{
    struct net_service out = { .Name = v->Spec.Name, .Mode = STR("vip") };
    const struct view_attachment_config *c = v->Spec.TaskTemplate.Networks.v;
    const struct view_vip *vip = v->Endpoint.VirtualIPs.v;
    const struct view_port *p = v->Endpoint.Ports.v;
    struct net_port *ports = arena_array(a, v->Endpoint.Ports.n + 1, sizeof *ports);
    bool on = false;
    out.VIPs.v = arena_array(a, v->Endpoint.VirtualIPs.n + 1, sizeof(struct str));
    CHECK(ports && out.VIPs.v);
    if (v->Spec.EndpointSpec.Mode.n)
        out.Mode = v->Spec.EndpointSpec.Mode;
    for (size_t i = 0; i < v->Spec.TaskTemplate.Networks.n; i++)
        if (str_eq(c[i].Target, n->ID)) {
            on = true;
            out.Aliases = c[i].Aliases;
        }
    for (size_t i = 0; i < v->Endpoint.VirtualIPs.n && !n->Spec.Ingress; i++)
        if (str_eq(vip[i].NetworkID, n->ID)) {
            on = true;
            out.VIPs.v[out.VIPs.n++] = bare(vip[i].Addr);
        }
    for (size_t i = 0; i < v->Endpoint.Ports.n && n->Spec.Ingress; i++)
        if (!str_is(p[i].PublishMode, "host")) {
            on = true;
            ports[out.Ports.n++] =
                (struct net_port){ p[i].Protocol.n ? p[i].Protocol : STR("tcp"), p[i].TargetPort, p[i].PublishedPort };
        }
    out.Ports.v = ports;
    if (on)
        service_text(line(m, "s", n->ID, v->ID), &out);
}

static struct str name_of(struct store_snap *snap, const struct view_task *t, struct arena *a)
{
    struct str doc, name;
    char *text;
    if (store_get(snap, KIND_SERVICE, t->ServiceID, &doc) != 0 || !mp_get_str(doc, "Spec.Name", &name))
        return STR("?"); /* it may be remembered, or not */
    if (t->Slot)
        text = arena_printf(a, STR_FMT ".%" PRIu64 "." STR_FMT, STR_ARG(name), t->Slot, STR_ARG(t->ID));
    else
        text = arena_printf(a, STR_FMT "." STR_FMT "." STR_FMT, STR_ARG(name), STR_ARG(t->NodeID), STR_ARG(t->ID));
    return str_from(text);
}

static void expect_endpoint(struct mesh_model *m, struct store_snap *snap, const struct view_task *t,
                            const struct view_network *n, struct arena *a)
{
    const struct view_task_network *v = t->NetworksAttachments.v;
    enum task_state desired = task_state_parse(t->DesiredState);
    bool running = str_is(t->Status.State, "running");
    struct str doc;
    struct net_endpoint out = { .ServiceID = t->ServiceID, .NodeID = t->NodeID, .Name = name_of(snap, t, a) };
    out.State = !running || desired < TASK_RUNNING ? STR("starting")
                : desired >= TASK_SHUTDOWN         ? STR("draining")
                                                   : STR("ready");
    if (!on_the_way(t) || store_get(snap, KIND_NODE, t->NodeID, &doc) != 0)
        return;
    for (size_t i = 0; i < t->NetworksAttachments.n; i++)
        if (str_eq(v[i].NetworkID, n->ID))
            out.Addresses = bare_all(&v[i].Addresses, a);
    endpoint_text(line(m, "e", n->ID, t->ID), &out);
}

static void expect_on(struct mesh_model *m, struct store_snap *snap, const struct view_network *n, struct arena *a)
{
    struct store_iter it;
    struct view_service s;
    struct view_task t;
    struct err e;
    expect_network(m, n, a);
    for (store_each(snap, KIND_SERVICE, &it); store_next(&it);) {
        CHECK(view_service(it.doc, &s, a, &e) == 0);
        expect_service(m, &s, n, a);
    }
    for (store_each_index(snap, IX_TASK_NETWORK, n->ID, &it); store_next(&it);) {
        CHECK(view_task(it.doc, &t, a, &e) == 0);
        expect_endpoint(m, snap, &t, n, a);
    }
}

void model_from_store(struct mesh_model *m, struct store_snap *snap, struct str node)
{
    struct store_iter it;
    struct view_network n;
    struct view_node o;
    struct arena a;
    struct err e;
    arena_init(&a, 256u << 20);
    model_clear(m);
    for (store_each(snap, KIND_NETWORK, &it); store_next(&it);) {
        CHECK(view_network(it.doc, &n, &a, &e) == 0);
        if (relevant(snap, &n, node, &a))
            expect_on(m, snap, &n, &a);
    }
    for (store_each(snap, KIND_NODE, &it); store_next(&it);) {
        CHECK(view_node(it.doc, &o, &a, &e) == 0);
        struct net_node out = { .Addr = o.DataPathAddr.n ? o.DataPathAddr : o.Status.Addr,
                                .Hostname = o.Description.Hostname };
        node_text(line(m, "node", o.ID, STR("")), &out);
    }
    arena_done(&a);
}

const char *model_differs(const struct mesh_model *is, const struct mesh_model *should)
{
    static char out[3 * MODEL_TEXT];
    const char *a, *b;
    struct str key;
    for (struct table_pos p = { 0 }; table_next(&should->lines, &p, &key, &b);) {
        a = table_get(&is->lines, key);
        const char *unknown = strstr(b, " name=? ");
        if (a && unknown && strncmp(a, b, (size_t)(unknown - b)) == 0)
            continue;
        if (a && strcmp(a, b) == 0)
            continue;
        snprintf(out, sizeof out, STR_FMT ":%s instead of%s", STR_ARG(key), a ? a : " nothing", b);
        return out;
    }
    for (struct table_pos p = { 0 }; table_next(&is->lines, &p, &key, &a);)
        if (!str_starts(key, STR("key/")) && !table_get(&should->lines, key)) {
            snprintf(out, sizeof out, STR_FMT ":%s is left", STR_ARG(key), a);
            return out;
        }
    return NULL;
}
