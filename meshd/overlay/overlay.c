#include "meshd/overlay/overlay.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/util/check.h"

static void note(struct overlay *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void note(struct overlay *o, const char *fmt, ...)
{
    char text[900];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap); /* NOLINT(clang-analyzer-valist.Uninitialized): it was just started */
    va_end(ap);
    if (o->note)
        o->note(o->arg, text);
}

static struct overlay_net *net_get(const struct overlay *o, const char *id)
{
    struct overlay_net **n = table_get(&o->nets, str_from(id));
    return n ? *n : NULL;
}

static void sandbox_pin(const struct overlay *o, const char *task, char path[512])
{
    snprintf(path, 512, "%s/%s", o->sandboxes, task);
}

static struct netmap_ip local_addr(const struct overlay *o)
{
    const struct netmap_node *n = o->map_known && o->self[0] ? netmap_node(o->map, str_from(o->self)) : NULL;
    return n ? n->addr : (struct netmap_ip){ 0 };
}

static struct overlay_plug plug_of(const struct attach *a, const struct attach_net *an, const struct overlay_net *n,
                                   const char *pin)
{
    return (struct overlay_plug){
        .task = a->task, .sandbox = pin, .eth = an->eth, .mtu = n->mtu, .nips = an->nips, .ips = an->ips
    };
}

/* port_owner - the attachment that a link of this name belongs to. */
static const struct attach *port_owner(const struct overlay *o, const char *net, const char *name,
                                       const struct attach_net **ret)
{
    struct attach **a;
    char own[IFNAMSIZ];
    for (struct table_pos pos = { 0 }; table_next(&o->tasks->tasks, &pos, NULL, &a);) {
        const struct attach_net *an = attach_net_of(*a, str_from(net));
        if (!an)
            continue;
        overlay_port_name(&an->ips[0], own);
        if (strcmp(own, name) == 0) {
            *ret = an;
            return *a;
        }
    }
    return NULL;
}

/* ---- the VXLAN device ---- */

static bool vni_taken(const struct overlay *o, const struct overlay_net *n, const struct overlay_vxlan *want)
{
    struct overlay_net **other;
    for (struct table_pos pos = { 0 }; table_next(&o->nets, &pos, NULL, &other);)
        if (*other != n && (*other)->vx.vni == want->vni && (*other)->vx.port == want->port)
            return true;
    return false;
}

static int vxlan_make(struct overlay *o, struct overlay_net *n, const struct overlay_vxlan *want, struct err *e)
{
    char what[OVERLAY_WHAT];
    bool freed = false;
    int errnum = 0;
    if (vni_taken(o, n, want))
        return err_set(e, ERR_CONFLICT, "VXLAN id %u is another network's on this node", want->vni);
    int r = overlay_ns_vxlan(&o->host, &n->ns, n->pin, want, n->mtu, &errnum, e);
    if (r < 0 && errnum == EEXIST) {
        r = overlay_free_vni(&o->host, o->pins, want, &freed, what, e);
        if (r < 0)
            return r;
        if (!freed)
            return err_set(e, ERR_CONFLICT, "VXLAN id %u on port %u is in use on this host by %s", want->vni,
                           want->port, what);
        note(o, "network %s: an old VXLAN device with its id was in the way and is removed: %s", n->id, what);
        o->repaired++;
        r = overlay_ns_vxlan(&o->host, &n->ns, n->pin, want, n->mtu, &errnum, e);
    }
    if (r < 0)
        return r;
    n->vx = *want;
    overlay_have_clear(&n->have);
    n->edits.n = 0;
    n->replan = true;
    return 0;
}

/* vxlan_sync - as the map says, once it does. */
static int vxlan_sync(struct overlay *o, struct overlay_net *n, struct err *e)
{
    struct overlay_vxlan want = { .vni = n->vni, .port = o->map->data_path_port, .local = local_addr(o) };
    if (!want.local.family || !want.port)
        return 0;
    want.port = (uint16_t)(want.port + n->encrypted);
    if (n->vx.vni && overlay_vxlan_fits(&want, &n->vx))
        return 0;
    if (n->vx.vni) {
        note(o, "network %s: its VXLAN device has another id, port or address now: made anew", n->id);
        int r = overlay_ns_del(&n->ns, "vx0", e);
        if (r < 0)
            return r;
        n->vx = (struct overlay_vxlan){ 0 };
    }
    return vxlan_make(o, n, &want, e);
}

/* ---- a network ---- */

static void net_free(struct overlay_net *n)
{
    overlay_ns_close(&n->ns);
    overlay_have_done(&n->have);
    overlay_edits_done(&n->edits);
    free(n);
}

/* bridge_seen, vxlan_seen - what is there is kept if it is right, set right if it can be, and else made way for. */
static int bridge_seen(struct overlay *o, struct overlay_net *n, const struct overlay_seen *s, struct err *e)
{
    int r = 0;
    if (s->br_alien) {
        note(o, "network %s: a link br0 that is not a bridge: removed", n->id);
        r = overlay_ns_del(&n->ns, "br0", e);
        n->ns.br = 0;
    }
    if (r == 0 && (!s->br_ok || s->br_mtu != n->mtu))
        r = overlay_ns_bridge(&o->host, &n->ns, n->vni, n->mtu, e);
    return r;
}

static int vxlan_seen(struct overlay *o, struct overlay_net *n, const struct overlay_seen *s, struct err *e)
{
    int r = 0;
    if (n->vx.vni && !n->ns.vx) {
        note(o, "network %s: its VXLAN device was taken away: made anew", n->id);
        o->repaired++;
    }
    n->vx = (struct overlay_vxlan){ 0 };
    if (s->vx_alien) {
        note(o, "network %s: a link vx0 that is not a VXLAN device: removed", n->id);
        r = overlay_ns_del(&n->ns, "vx0", e);
        n->ns.vx = 0;
    } else if (n->ns.vx) {
        n->vx = s->vxlan;
        if (!s->vx_ok || s->vx_mtu != n->mtu || s->vx_master != n->ns.br)
            r = overlay_ns_vxlan_set(&o->host, &n->ns, n->pin, n->mtu, e);
    }
    return r;
}

static bool port_there(const struct overlay_seen *s, const char *name, bool *ret_ok)
{
    for (size_t i = 0; i < s->nports; i++)
        if (strcmp(s->ports[i].name, name) == 0) {
            *ret_ok = s->ports[i].up && s->ports[i].enslaved;
            return true;
        }
    return false;
}

/* port_sync - the interface of one task: put right, or made anew when it was taken away. */
static int port_sync(struct overlay *o, struct overlay_net *n, const struct attach *a, const struct attach_net *an,
                     const struct overlay_seen *s, struct err *e)
{
    char pin[512], name[IFNAMSIZ];
    bool ok = false;
    sandbox_pin(o, a->task, pin);
    overlay_port_name(&an->ips[0], name);
    struct overlay_plug p = plug_of(a, an, n, pin);
    if (port_there(s, name, &ok)) {
        if (!ok) {
            note(o, "network %s: the link of task %s was down or out of the bridge: put right", n->id, a->task);
            o->repaired++;
        }
        return overlay_ns_port_set(&o->host, &n->ns, &p, e);
    }
    if (!mesh_ns_pinned(pin))
        return 0; /* on its way out */
    int r = overlay_ns_plug(&o->host, &n->ns, &p, e);
    note(o, "network %s: task %s had lost its interface: %s", n->id, a->task, r < 0 ? e->msg : "made anew");
    o->repaired++;
    return r;
}

static int ports_sync(struct overlay *o, struct overlay_net *n, const struct overlay_seen *s, struct err *e)
{
    struct attach **a;
    const struct attach_net *an;
    int r = 0;
    for (size_t i = 0; r == 0 && i < s->nports; i++)
        if (strncmp(s->ports[i].name, "ms", 2) == 0 && !port_owner(o, n->id, s->ports[i].name, &an)) {
            note(o, "network %s: link %s belongs to no task: removed", n->id, s->ports[i].name);
            r = overlay_ns_del(&n->ns, s->ports[i].name, e);
        }
    for (struct table_pos pos = { 0 }; r == 0 && table_next(&o->tasks->tasks, &pos, NULL, &a);)
        if ((an = attach_net_of(*a, str_from(n->id))))
            r = port_sync(o, n, *a, an, s, e);
    return r;
}

/* net_look - the kernel's side of a network is what it is; from now on it is known, and right as far as links go. */
static int net_look(struct overlay *o, struct overlay_net *n, bool ports, struct err *e)
{
    struct overlay_seen s = { 0 };
    int r = overlay_ns_look(&n->ns, &s, e);
    if (r == 0 && !n->looked && s.br_ok && s.br_mtu)
        n->mtu = s.br_mtu; /* what the interfaces have */
    n->looked = true;
    if (r == 0)
        r = bridge_seen(o, n, &s, e);
    if (r == 0)
        r = vxlan_seen(o, n, &s, e);
    if (r == 0 && ports)
        r = ports_sync(o, n, &s, e);
    overlay_seen_done(&s);
    if (r == 0)
        r = overlay_ns_read(&n->ns, &n->have, e);
    n->edits.n = 0;
    n->replan = true;
    n->stale = r < 0;
    return r;
}

static int net_params(struct overlay *o, struct overlay_net *n, const struct attach_net *an, struct err *e)
{
    const struct netmap_network *m = netmap_network(o->map, str_from(n->id));
    struct netmap_ip local = local_addr(o);
    unsigned underlay = 0;
    n->vni = m && m->vni ? m->vni : an->vni;
    n->mtu_option = m && m->mtu ? m->mtu : an->mtu;
    n->encrypted = m ? m->encrypted : an->encrypted;
    int r = local.family ? overlay_host_mtu(&o->host, &local, &underlay, e) : 0;
    n->mtu = overlay_mtu(n->mtu_option, underlay, local.family, n->encrypted);
    return r;
}

static int net_open(struct overlay *o, const struct attach_net *an, struct overlay_net **ret, struct err *e)
{
    struct overlay_net *n = calloc(1, sizeof *n);
    bool made = false;
    CHECK(n != NULL);
    str_copy(n->id, sizeof n->id, str_from(an->id));
    snprintf(n->pin, sizeof n->pin, "%s/%s", o->pins, n->id);
    overlay_have_init(&n->have);
    int r = net_params(o, n, an, e);
    if (r == 0)
        r = overlay_ns_open(&o->host, n->pin, &n->ns, &made, e);
    if (r == 0)
        r = net_look(o, n, false, e);
    if (r == 0)
        r = vxlan_sync(o, n, e);
    if (r < 0) {
        overlay_ns_close(&n->ns);
        if (made)
            (void)mesh_ns_unpin(n->pin, NULL);
        net_free(n);
        return r;
    }
    *(struct overlay_net **)table_put(&o->nets, str_from(n->id), NULL) = n;
    o->made += made;
    *ret = n;
    return 0;
}

static void net_remove(struct overlay *o, struct overlay_net *n)
{
    char pin[sizeof n->pin];
    memcpy(pin, n->pin, sizeof pin);
    (void)overlay_ns_del(&n->ns, "vx0",
                         NULL); /* at once: the kernel takes its time with namespaces, and the id must be free */
    table_del(&o->nets, str_from(n->id));
    net_free(n);
    (void)mesh_ns_unpin(pin, NULL);
    o->removed++;
}

/* ---- tasks ---- */

int overlay_check(struct overlay *o, const struct attach *a, struct err *e)
{
    for (size_t i = 0; i < a->nnets; i++) {
        const struct netmap_network *m = netmap_network(o->map, str_from(a->nets[i].id));
        if (!a->nets[i].encrypted && !(m && m->encrypted))
            continue;
        if (!o->esp_asked)
            o->esp = overlay_esp(&o->host);
        o->esp_asked = true;
        if (!o->esp)
            return err_set(e, ERR_PRECONDITION,
                           "network %s is encrypted, and this node can't take part: its kernel has no IPsec (ESP with "
                           "AES-GCM)",
                           m ? m->name.p : a->nets[i].id);
    }
    return 0;
}

/* plug - an outer end that is there already is a dead sandbox's that the kernel has not taken apart yet, or it belongs
 * to somebody. */
static int plug(struct overlay *o, struct overlay_net *n, const struct attach *a, const struct attach_net *an,
                struct err *e)
{
    char pin[512], name[IFNAMSIZ];
    const struct attach_net *other_net;
    sandbox_pin(o, a->task, pin);
    struct overlay_plug p = plug_of(a, an, n, pin);
    int r = overlay_ns_plug(&o->host, &n->ns, &p, e);
    if (r != -ERR_CONFLICT)
        return r;
    overlay_port_name(&an->ips[0], name);
    const struct attach *other = port_owner(o, n->id, name, &other_net);
    if (other && strcmp(other->task, a->task) != 0) {
        char text[NETMAP_IP_TEXT];
        return err_set(e, ERR_CONFLICT, "address %s is in use by task %s", netmap_ip_text(&an->ips[0], text),
                       other->task);
    }
    r = overlay_ns_del(&n->ns, name, e);
    return r < 0 ? r : overlay_ns_plug(&o->host, &n->ns, &p, e);
}

static void unplug(struct overlay *o, const struct attach *a, size_t upto)
{
    char name[IFNAMSIZ];
    for (size_t i = 0; i < upto; i++) {
        struct overlay_net *n = net_get(o, a->nets[i].id);
        overlay_port_name(&a->nets[i].ips[0], name);
        if (n)
            (void)overlay_ns_del(&n->ns, name, NULL);
        if (n && n->tasks > 0)
            n->tasks--;
    }
}

int overlay_up(struct overlay *o, const struct attach *a, struct err *e)
{
    size_t i = 0;
    int r = overlay_check(o, a, e);
    for (; r == 0 && i < a->nnets; i++) {
        struct overlay_net *n = net_get(o, a->nets[i].id);
        if (!n)
            r = net_open(o, &a->nets[i], &n, e);
        if (r == 0)
            r = plug(o, n, a, &a->nets[i], e);
        if (r < 0) {
            err_wrap(e, "network %s", a->nets[i].id);
            break;
        }
        n->tasks++;
    }
    if (r < 0)
        unplug(o, a, i);
    else
        (void)overlay_sync(o); /* what the map has of a new network; what is left is tried again */
    return r;
}

void overlay_undo(struct overlay *o, const struct attach *a)
{
    unplug(o, a, a->nnets);
}

void overlay_down(struct overlay *o, const struct attach *a, uint64_t now_ms)
{
    for (size_t i = 0; i < a->nnets; i++) {
        struct overlay_net *n = net_get(o, a->nets[i].id);
        if (n && n->tasks > 0 && --n->tasks == 0)
            n->idle_ms = now_ms;
    }
}

bool overlay_sweep(struct overlay *o, uint64_t now_ms)
{
    struct overlay_net **n;
    bool all = true;
    for (struct table_pos pos = { 0 }; table_next(&o->nets, &pos, NULL, &n);) {
        if ((*n)->tasks > 0)
            continue;
        if (now_ms < (*n)->idle_ms + OVERLAY_LINGER_MS)
            all = false;
        else
            net_remove(o, *n);
    }
    return all;
}

/* ---- the map ---- */

static void changed_network(struct overlay *o, struct overlay_net *n)
{
    const struct netmap_network *m = netmap_network(o->map, str_from(n->id));
    if (m && m->vni) {
        n->vni = m->vni;
        n->encrypted = m->encrypted;
    }
    n->replan = true;
}

static void plan_endpoint(struct overlay *o, struct overlay_net *n, const struct netmap_change *c)
{
    const struct netmap_network *m = netmap_network(o->map, str_from(n->id));
    const struct netmap_endpoint *ep = m ? netmap_endpoint(m, str_from(c->id)) : NULL;
    struct overlay_self self = { str_from(o->self), n->vx.local.family };
    if (n->replan || n->stale || !n->vx.vni)
        return; /* all of it will be looked at */
    overlay_plan_addrs(&n->have, o->map, m, &self, c->ips, c->nips, &n->edits);
    if (ep)
        overlay_plan_addrs(&n->have, o->map, m, &self, ep->ips, ep->nips, &n->edits);
}

static bool node_moved(const struct overlay *o, const struct netmap_change *c)
{
    const struct netmap_node *n = netmap_node(o->map, str_from(c->id));
    return !n || c->nips == 0 || !netmap_ip_eq(&n->addr, &c->ips[0]);
}

void overlay_change(struct overlay *o, const struct netmap_change *c)
{
    struct overlay_net **n;
    o->map_known = true;
    if (c->kind == NETMAP_ENDPOINT || c->kind == NETMAP_NETWORK) {
        struct overlay_net *one = net_get(o, c->network);
        if (one && c->kind == NETMAP_NETWORK)
            changed_network(o, one);
        else if (one)
            plan_endpoint(o, one, c);
    } else if (c->kind == NETMAP_ALL || (c->kind == NETMAP_NODE && node_moved(o, c))) {
        for (struct table_pos pos = { 0 }; table_next(&o->nets, &pos, NULL, &n);)
            changed_network(o, *n);
    }
}

void overlay_self(struct overlay *o, const char *node)
{
    struct overlay_net **n;
    if (strcmp(o->self, node) == 0)
        return;
    str_copy(o->self, sizeof o->self, str_from(node));
    for (struct table_pos pos = { 0 }; table_next(&o->nets, &pos, NULL, &n);)
        (*n)->replan = true;
}

static int net_sync(struct overlay *o, struct overlay_net *n, struct err *e)
{
    struct overlay_self self = { str_from(o->self), 0 };
    int r = n->stale ? net_look(o, n, true, e) : 0;
    if (r == 0 && n->replan)
        r = vxlan_sync(o, n, e);
    if (r < 0 || !n->vx.vni || !o->map_known)
        return r;
    self.family = n->vx.local.family;
    if (n->replan)
        overlay_plan_all(&n->have, o->map, netmap_network(o->map, str_from(n->id)), &self, &n->edits);
    n->replan = false;
    r = n->edits.n ? overlay_ns_apply(&n->ns, &n->edits, e) : 0;
    overlay_edits_done(&n->edits);
    n->stale = r < 0;
    return r;
}

bool overlay_sync(struct overlay *o)
{
    struct overlay_net **n;
    bool all = true;
    for (struct table_pos pos = { 0 }; table_next(&o->nets, &pos, NULL, &n);) {
        struct err e = ERR_INIT;
        if (net_sync(o, *n, &e) < 0) {
            if (strcmp(e.msg, (*n)->failure.msg) != 0) /* once, not at every try */
                note(o, "network %s: %s", (*n)->id, e.msg);
            o->failures++;
            (*n)->stale = true;
            all = false;
        }
        (*n)->failure = e;
    }
    return all;
}

bool overlay_reconcile(struct overlay *o)
{
    struct overlay_net **n;
    for (struct table_pos pos = { 0 }; table_next(&o->nets, &pos, NULL, &n);) {
        struct overlay_self self = { str_from(o->self), (*n)->vx.local.family };
        struct err e = ERR_INIT;
        if (net_look(o, *n, true, &e) < 0) {
            note(o, "network %s: %s", (*n)->id, e.msg);
            continue;
        }
        if (!o->map_known || !(*n)->vx.vni)
            continue;
        overlay_plan_all(&(*n)->have, o->map, netmap_network(o->map, str_from((*n)->id)), &self, &(*n)->edits);
        if ((*n)->edits.n) {
            note(o, "network %s: %zu forwarding entries or neighbours were not as they should be: put right", (*n)->id,
                 (*n)->edits.n);
            o->repaired++;
        }
    }
    return overlay_sync(o);
}

/* ---- opening ---- */

static bool wanted(const struct overlay *o, const char *net)
{
    struct attach **a;
    for (struct table_pos pos = { 0 }; table_next(&o->tasks->tasks, &pos, NULL, &a);)
        if (attach_net_of(*a, str_from(net)))
            return true;
    return false;
}

static void open_strays(struct overlay *o)
{
    DIR *d = opendir(o->pins);
    struct dirent *de;
    while (d && (de = readdir(d))) {
        char pin[600];
        struct overlay_ns ns;
        bool made;
        if (de->d_name[0] == '.' || wanted(o, de->d_name))
            continue;
        snprintf(pin, sizeof pin, "%s/%s", o->pins, de->d_name);
        if (mesh_ns_pinned(pin) && overlay_ns_open(&o->host, pin, &ns, &made, NULL) == 0) {
            (void)overlay_ns_del(&ns, "vx0", NULL);
            overlay_ns_close(&ns);
        }
        (void)mesh_ns_unpin(pin, NULL);
        note(o, "overlay network %s has no task here: removed", de->d_name);
        o->removed++;
    }
    if (d)
        closedir(d);
}

static void open_task(struct overlay *o, const struct attach *a)
{
    for (size_t i = 0; i < a->nnets; i++) {
        struct overlay_net *n = net_get(o, a->nets[i].id);
        struct err e = ERR_INIT;
        if (!n && net_open(o, &a->nets[i], &n, &e) < 0) {
            note(o, "network %s of task %s: %s", a->nets[i].id, a->task, e.msg);
            continue;
        }
        n->tasks++;
        n->stale = true; /* its links have not been looked at yet */
    }
}

int overlay_open(struct overlay *o, const char *run_dir, struct attach_set *tasks, const struct netmap *map,
                 attach_note_fn *fn, void *arg, struct err *e)
{
    struct attach **a;
    *o = (struct overlay){ .tasks = tasks, .map = map, .note = fn, .arg = arg, .host = { .ns = -1 } };
    table_init(&o->nets, sizeof(struct overlay_net *));
    if (snprintf(o->pins, sizeof o->pins, "%s/overlay", run_dir) >= (int)sizeof o->pins ||
        snprintf(o->sandboxes, sizeof o->sandboxes, "%s/netns", run_dir) >= (int)sizeof o->sandboxes)
        return err_set(e, ERR_INVALID, "run folder: name too long");
    int r = mesh_ns_dir(o->pins, e);
    if (r == 0)
        r = overlay_host_open(&o->host, e);
    if (r < 0)
        return r;
    open_strays(o);
    for (struct table_pos pos = { 0 }; table_next(&tasks->tasks, &pos, NULL, &a);)
        open_task(o, *a);
    (void)overlay_sync(o);
    return 0;
}

void overlay_close(struct overlay *o)
{
    struct overlay_net **n;
    for (struct table_pos pos = { 0 }; table_next(&o->nets, &pos, NULL, &n);)
        net_free(*n);
    table_done(&o->nets);
    overlay_host_close(&o->host);
}

/* ---- looking ---- */

static void put_text(struct buf *out, const char *key, const char *val)
{
    buf_printf(out, "\"%s\":", key);
    buf_json_str(out, str_from(val));
}

static void put_differences(struct overlay *o, struct overlay_net *n, struct buf *out)
{
    static const char *const names[] = { "forwarding entry missing", "forwarding entry too many", "neighbour missing",
                                         "neighbour too many" };
    struct overlay_self self = { str_from(o->self), n->vx.local.family };
    struct overlay_have have;
    struct overlay_edits es = { 0 };
    struct err e = ERR_INIT;
    overlay_have_init(&have);
    int r = overlay_ns_read(&n->ns, &have, &e);
    buf_printf(out, ",\"forwarding\":%zu,\"neighbours\":%zu,", have.fdb.count, have.neigh.count);
    if (r == 0 && o->map_known)
        overlay_plan_all(&have, o->map, netmap_network(o->map, str_from(n->id)), &self, &es);
    buf_puts(out, "\"differences\":[");
    if (r < 0)
        buf_json_str(out, str_from(e.msg));
    for (size_t i = 0; i < es.n && i < 100; i++) {
        const uint8_t *m = es.v[i].mac.b;
        char ip[NETMAP_IP_TEXT];
        buf_printf(out, "%s\"%s: %02x:%02x:%02x:%02x:%02x:%02x %s\"", i ? "," : "", names[es.v[i].type], m[0], m[1],
                   m[2], m[3], m[4], m[5], netmap_ip_text(&es.v[i].ip, ip));
    }
    buf_putc(out, ']');
    overlay_edits_done(&es);
    overlay_have_done(&have);
}

static void put_net(struct overlay *o, struct overlay_net *n, struct buf *out)
{
    const struct netmap_network *m = netmap_network(o->map, str_from(n->id));
    char local[NETMAP_IP_TEXT];
    buf_putc(out, '{');
    put_text(out, "network", n->id);
    buf_putc(out, ',');
    put_text(out, "name", m ? m->name.p : "");
    buf_putc(out, ',');
    put_text(out, "namespace", n->pin);
    buf_printf(out, ",\"vni\":%u,\"port\":%u,\"local\":\"%s\",\"mtu\":%u,\"tasks\":%u,\"encrypted\":%s", n->vx.vni,
               n->vx.port, n->vx.vni ? netmap_ip_text(&n->vx.local, local) : "", n->mtu, n->tasks,
               n->encrypted ? "true" : "false");
    put_differences(o, n, out);
    if (n->failure.code) {
        buf_putc(out, ',');
        put_text(out, "error", n->failure.msg);
    }
    buf_putc(out, '}');
}

void overlay_probe(struct overlay *o, struct buf *out)
{
    struct overlay_net **n;
    bool first = true;
    buf_putc(out, '[');
    for (struct table_pos pos = { 0 }; table_next(&o->nets, &pos, NULL, &n);) {
        buf_puts(out, first ? "" : ",\n ");
        put_net(o, *n, out);
        first = false;
    }
    buf_putc(out, ']');
}
