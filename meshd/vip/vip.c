#include "meshd/vip/vip.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "common/util/check.h"
#include "common/util/cleanup.h"
#include "meshd/vip/vip_nft.h"

#define DRAIN_MS 100u
#define DRAIN_MS_MAX 5000u
#define GONE_MAX 100000u /* more at a time: the rest goes by the kernel's own timeouts */

static void note(struct vip *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void note(struct vip *v, const char *fmt, ...)
{
    char text[900];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap); /* NOLINT(clang-analyzer-valist.Uninitialized): it was just started */
    va_end(ap);
    if (v->note)
        v->note(v->arg, text);
}

/* ---- a sandbox's socket ---- */

static void pin_path(const struct vip *v, const char *task, char path[512])
{
    snprintf(path, 512, "%s/%s", v->sandboxes, task);
}

/* reach - the sandbox's socket; leave_it() when done. */
static int reach(struct vip *v, const struct vip_sandbox *sb, struct mesh_msg **ret, struct err *e)
{
    struct mesh_msg fresh;
    char pin[512];
    *ret = table_get(&v->sockets, str_from(sb->task));
    if (*ret)
        return 0;
    pin_path(v, sb->task, pin);
    int r = mesh_ns_enter(pin, e);
    if (r == 0)
        r = mesh_msg_open(&fresh, NETLINK_NETFILTER, e);
    mesh_ns_back(v->host_ns);
    if (r < 0)
        return err_wrap(e, "task %s", sb->task);
    *ret = table_put(&v->sockets, str_from(sb->task), NULL);
    **ret = fresh;
    return 0;
}

static void leave_it(struct mesh_msg *m)
{
    mesh_msg_trim(m);
}

static void hang_up(struct vip *v, struct str task)
{
    struct mesh_msg *m = table_get(&v->sockets, task);
    if (m)
        mesh_msg_close(m);
    table_del(&v->sockets, task);
}

static bool is_there(const struct vip *v, const struct vip_sandbox *sb)
{
    char pin[512];
    pin_path(v, sb->task, pin);
    return mesh_ns_pinned(pin);
}

/* ---- carrying out ---- */

static int make(struct vip *v, struct vip_sandbox *sb, struct mesh_msg *m, struct err *e)
{
    struct vip_plan p = { 0 };
    vip_core_forget(sb);
    vip_core_plan_all(sb, &p);
    int r = vip_nft_make(m, sb->ipv6, &p.now, e);
    vip_plan_done(&p);
    v->transactions++;
    v->made++;
    return r;
}

static int apply(struct vip *v, struct mesh_msg *m, const struct vip_edits *es, struct err *e)
{
    v->transactions += es->n > 0;
    return vip_nft_apply(m, es, e);
}

static int apply_plan(struct vip *v, struct mesh_msg *m, const struct vip_plan *p, struct err *e)
{
    int r = apply(v, m, &p->now, e);
    return r < 0 ? r : apply(v, m, &p->later, e);
}

/* resync - what the kernel has is read, adopted if it is as we would have made it, and brought to what it should be. */
static int resync(struct vip *v, struct vip_sandbox *sb, struct mesh_msg *m, struct err *e)
{
    struct vip_dump d = { 0 };
    struct vip_plan p = { 0 };
    struct vip_edits strays = { 0 };
    bool intact = false;
    int r = vip_nft_read(m, sb->ipv6, &d, &intact, e);
    if (r == 0 && intact && vip_core_load(sb, &d, &strays)) {
        r = apply(v, m, &strays, e); /* first: a stray's key may be needed */
        vip_core_plan_all(sb, &p);
        if (r == 0)
            r = apply_plan(v, m, &p, e);
        if (r < 0)
            r = make(v, sb, m, e);
    } else if (r == 0) {
        r = make(v, sb, m, e);
    }
    vip_plan_done(&p);
    free(strays.v);
    vip_dump_done(&d);
    return r;
}

static int settle(struct vip *v, struct vip_sandbox *sb, struct mesh_msg *m, struct err *e)
{
    struct vip_plan p = { 0 };
    int r = 0;
    if (!sb->stale) {
        vip_core_plan(sb, &p);
        r = apply_plan(v, m, &p, e);
        vip_plan_done(&p);
    }
    if (r < 0 || sb->stale) {
        v->failures += r < 0;
        r = resync(v, sb, m, e);
    }
    if (r == 0)
        r = vip_nft_gen(m, &sb->gen, e);
    sb->stale = r < 0;
    return r;
}

static bool concerned(const struct vip_sandbox *sb)
{
    for (size_t i = 0; i < sb->nnets; i++)
        if (sb->nets[i]->dirty.count)
            return true;
    return sb->stale;
}

static int sandbox_sync(struct vip *v, struct vip_sandbox *sb, struct err *e)
{
    struct mesh_msg *m;
    int r = reach(v, sb, &m, e);
    if (r == 0) {
        r = settle(v, sb, m, e);
        leave_it(m);
        if (r < 0)
            err_wrap(e, "task %s", sb->task);
    }
    sb->stale = r < 0;
    return r;
}

bool vip_sync(struct vip *v)
{
    struct vip_sandbox **sb;
    struct err last = ERR_INIT;
    bool all = true;
    if (!v->map_known)
        return true;
    for (struct table_pos pos = { 0 }; table_next(&v->core.sandboxes, &pos, NULL, &sb);) {
        struct err e = ERR_INIT;
        if (!concerned(*sb) || sandbox_sync(v, *sb, &e) == 0 || !is_there(v, *sb))
            continue; /* on its way out, perhaps */
        all = false;
        last = e;
    }
    vip_core_settled(&v->core);
    if (last.code && strcmp(last.msg, v->failure.msg) != 0)
        note(v, "service addresses: %s", last.msg);
    v->failure = last;
    return all;
}

/* ---- sandboxes ---- */

static struct vip_sandbox *add(struct vip *v, const struct attach *a)
{
    char(*nets)[ID_SIZE] = calloc(a->nnets + 1, ID_SIZE);
    bool ipv6 = false;
    CHECK(nets != NULL);
    for (size_t i = 0; i < a->nnets; i++) {
        memcpy(nets[i], a->nets[i].id, ID_SIZE);
        for (size_t k = 0; k < a->nets[i].nips; k++)
            ipv6 |= a->nets[i].ips[k].family == AF_INET6;
    }
    struct vip_sandbox *sb =
        vip_core_add(&v->core, v->map, str_from(a->task), (const char(*)[ID_SIZE])nets, a->nnets, ipv6);
    free(nets);
    return sb;
}

int vip_up(struct vip *v, const struct attach *a, struct err *e)
{
    struct mesh_msg *m;
    vip_down(v, str_from(a->task));
    struct vip_sandbox *sb = add(v, a);
    int r = reach(v, sb, &m, e);
    if (r == 0) {
        r = make(v, sb, m, e);
        if (r == 0)
            r = vip_nft_gen(m, &sb->gen, e);
        leave_it(m);
    }
    sb->stale = false;
    if (r < 0)
        vip_down(v, str_from(a->task));
    return r;
}

void vip_down(struct vip *v, struct str task)
{
    hang_up(v, task);
    vip_core_del(&v->core, task);
}

int vip_open(struct vip *v, const char *run_dir, const struct attach_set *tasks, const struct netmap *map,
             attach_note_fn *fn, void *arg, struct err *e)
{
    struct attach **a;
    *v = (struct vip){ .map = map, .note = fn, .arg = arg, .host_ns = mesh_ns_self() };
    vip_core_init(&v->core);
    table_init(&v->flushed, 1);
    table_init(&v->sockets, sizeof(struct mesh_msg));
    table_init(&v->draining, sizeof(struct vip_gone));
    if (v->host_ns < 0)
        return err_set(e, ERR_IO, "open /proc/thread-self/ns/net");
    if (snprintf(v->sandboxes, sizeof v->sandboxes, "%s/netns", run_dir) >= (int)sizeof v->sandboxes)
        return err_set(e, ERR_INVALID, "run folder: name too long");
    for (struct table_pos pos = { 0 }; table_next(&tasks->tasks, &pos, NULL, &a);)
        (void)add(v, *a);
    return 0;
}

void vip_close(struct vip *v)
{
    struct mesh_msg *m;
    for (struct table_pos pos = { 0 }; table_next(&v->sockets, &pos, NULL, &m);)
        mesh_msg_close(m);
    table_done(&v->sockets);
    vip_core_done(&v->core);
    table_done(&v->flushed);
    table_done(&v->draining);
    free(v->gone);
    free(v->going);
    closep(&v->host_ns);
}

/* ---- the map ---- */

static void queue(struct vip *v, const char *network, const struct netmap_ip *backend, enum vip_ct which)
{
    if (v->ngone == GONE_MAX)
        return;
    if (v->ngone == v->cgone) {
        v->cgone = v->cgone * 2 + 16;
        v->gone = realloc(v->gone, v->cgone * sizeof *v->gone);
        CHECK(v->gone != NULL);
    }
    struct vip_gone *g = &v->gone[v->ngone++];
    *g = (struct vip_gone){ .what = { *backend, which } };
    str_copy(g->network, sizeof g->network, str_from(network));
}

/* endpoint_at - the task that has the address now; NULL: none. */
static const struct netmap_endpoint *endpoint_at(const struct vip *v, const char *network, const struct netmap_ip *ip)
{
    const struct netmap_network *n = netmap_network(v->map, str_from(network));
    struct netmap_service *s = NULL;
    struct netmap_endpoint *ep = NULL;
    return n && netmap_by_address(n, ip, &s, &ep) ? ep : NULL;
}

static struct str draining_key(const char *network, const struct netmap_ip *ip, char buf[ID_SIZE + 20])
{
    size_t n = strnlen(network, ID_SIZE - 1), size = ip->family == AF_INET6 ? 16 : 4;
    buf[0] = (char)ip->family;
    memcpy(buf + 1, ip->b, size);
    memcpy(buf + 1 + size, network, n);
    return (struct str){ buf, n + 1 + size };
}

/* on_gone - nothing new for it. While its task lives on, what is open may finish; UDP moves at once. */
static void on_gone(void *arg, const char *network, const struct netmap_ip *backend)
{
    struct vip *v = arg;
    char buf[ID_SIZE + 20];
    bool lives = endpoint_at(v, network, backend) != NULL;
    queue(v, network, backend, lives ? VIP_CT_FLOWS : VIP_CT_ALL);
    if (!lives)
        return;
    struct vip_gone *g = table_put(&v->draining, draining_key(network, backend, buf), NULL);
    *g = (struct vip_gone){ .what = { *backend, VIP_CT_CLOSED } };
    str_copy(g->network, sizeof g->network, str_from(network));
    v->drain_ms = DRAIN_MS;
    v->drain_at_ms = 0;
}

/* look_at_draining - whose task has gone meanwhile: now everything that still goes there is let go of. */
static void look_at_draining(struct vip *v)
{
    struct vip_gone *g;
    struct str key;
    for (struct table_pos pos = { 0 }; table_next(&v->draining, &pos, &key, &g);) {
        const struct netmap_endpoint *ep = endpoint_at(v, g->network, &g->what.backend);
        if (ep && !netmap_usable(v->map, ep))
            continue;
        if (!ep)
            queue(v, g->network, &g->what.backend, VIP_CT_ALL);
        table_del(&v->draining, key);
    }
}

uint64_t vip_drain(struct vip *v, uint64_t now_ms)
{
    struct vip_gone *g;
    if (v->draining.count == 0)
        return UINT64_MAX;
    if (v->drain_at_ms == 0)
        v->drain_at_ms = now_ms + v->drain_ms;
    if (now_ms < v->drain_at_ms)
        return v->drain_at_ms - now_ms;
    for (struct table_pos pos = { 0 }; table_next(&v->draining, &pos, NULL, &g);)
        queue(v, g->network, &g->what.backend, VIP_CT_CLOSED);
    v->drain_ms = v->drain_ms * 2 < DRAIN_MS_MAX ? v->drain_ms * 2 : DRAIN_MS_MAX;
    v->drain_at_ms = now_ms + v->drain_ms;
    return 0;
}

void vip_change(struct vip *v, const struct netmap_change *c)
{
    struct vip_net **net;
    v->map_known = true;
    if (c->kind == NETMAP_SERVICE)
        vip_core_service(&v->core, v->map, c->network, c->id, on_gone, v);
    else if (c->kind == NETMAP_NETWORK)
        vip_core_network(&v->core, v->map, c->network, on_gone, v);
    else if (c->kind == NETMAP_ALL)
        for (struct table_pos pos = { 0 }; table_next(&v->core.nets, &pos, NULL, &net);)
            vip_core_network(&v->core, v->map, (*net)->id, on_gone, v);
    if (v->draining.count)
        look_at_draining(v);
}

/* ---- connections ---- */

static size_t stale_of(const struct vip *v, const struct vip_sandbox *sb, struct vip_stale *out)
{
    size_t n = 0;
    for (size_t i = 0; i < v->ngoing; i++)
        for (size_t k = 0; k < sb->nnets; k++)
            if (strcmp(sb->nets[k]->id, v->going[i].network) == 0) {
                out[n++] = v->going[i].what;
                break;
            }
    return n;
}

/* flush_one - false when there was nothing to do. */
static bool flush_one(struct vip *v, struct vip_sandbox *sb, struct vip_stale *buf)
{
    struct mesh_msg *m;
    struct err e = ERR_INIT;
    size_t n = stale_of(v, sb, buf);
    uint32_t entries = 0;
    unsigned count = 0;
    if (n == 0 || reach(v, sb, &m, &e) < 0)
        return false;
    int r = vip_ct_count(m, &entries, &e);
    if (r < 0 || entries > 0)
        r = vip_ct_forget(m, buf, n, &count, &e);
    leave_it(m);
    if (r < 0)
        note(v, "task %s: connections to backends that are gone: %s", sb->task, e.msg);
    v->forgotten += count;
    return true;
}

bool vip_flush(struct vip *v, unsigned sandboxes)
{
    struct vip_sandbox **sb;
    struct str task;
    if (v->ngoing == 0) { /* a new round */
        free(v->going);
        v->going = v->gone;
        v->ngoing = v->ngone;
        v->gone = NULL;
        v->ngone = v->cgone = 0;
        table_clear(&v->flushed);
    }
    if (v->ngoing == 0)
        return true;
    struct vip_stale *buf = calloc(v->ngoing, sizeof *buf);
    CHECK(buf != NULL);
    for (struct table_pos pos = { 0 }; sandboxes > 0 && table_next(&v->core.sandboxes, &pos, &task, &sb);) {
        bool fresh;
        table_put(&v->flushed, task, &fresh);
        if (fresh && flush_one(v, *sb, buf))
            sandboxes--;
    }
    free(buf);
    if (sandboxes > 0)
        v->ngoing = 0;
    return v->ngoing == 0 && v->ngone == 0;
}

/* ---- putting right ---- */

static int reconcile_one(struct vip *v, struct vip_sandbox *sb, struct err *e)
{
    struct vip_edits idle = { 0 };
    struct mesh_msg *m;
    uint32_t gen = 0;
    int r = reach(v, sb, &m, e);
    if (r < 0)
        return r;
    r = vip_nft_gen(m, &gen, e);
    if (r == 0 && (gen != sb->gen || sb->stale)) {
        uint64_t before = v->transactions;
        sb->stale = true;
        r = settle(v, sb, m, e);
        if (v->transactions != before) {
            note(v, "task %s: its table of service addresses was changed by someone else: %s", sb->task,
                 r < 0 ? e->msg : "put right");
            v->repaired++;
        }
    }
    if (r == 0 && sb->gen == sb->quiet_gen) /* nothing has changed since the last time: nobody is on the way there */
        vip_core_idle(sb, &idle);
    sb->quiet_gen = sb->gen;
    if (idle.n) {
        sb->stale = (r = apply(v, m, &idle, e)) < 0;
        if (r == 0)
            r = vip_nft_gen(m, &sb->gen, e);
    }
    free(idle.v);
    leave_it(m);
    return r;
}

bool vip_reconcile(struct vip *v)
{
    struct vip_sandbox **sb;
    bool all = true;
    if (!v->map_known)
        return true;
    for (struct table_pos pos = { 0 }; table_next(&v->core.sandboxes, &pos, NULL, &sb);) {
        struct err e = ERR_INIT;
        if (reconcile_one(v, *sb, &e) < 0 && is_there(v, *sb)) {
            note(v, "service addresses: %s", e.msg);
            (*sb)->stale = true;
            all = false;
        }
    }
    return all;
}

/* ---- looking ---- */

static void put_list(struct buf *out, const struct vip_list *l)
{
    for (uint32_t i = 0; i < l->n; i++) {
        struct netmap_ip ip = { .family = l->family };
        char text[NETMAP_IP_TEXT];
        size_t size = l->family == AF_INET6 ? 16 : 4;
        memcpy(ip.b, l->addrs + i * size, size);
        buf_printf(out, "%s\"%s\"", i ? "," : "", netmap_ip_text(&ip, text));
    }
}

static void put_seen(struct buf *out, const struct vip_sandbox *seen, bool whole)
{
    struct netmap_ip vips[100];
    struct vip_have *h;
    char text[NETMAP_IP_TEXT];
    bool first = true;
    size_t n = vip_core_differences(seen, vips, 100);
    buf_printf(out, ",\"intact\":%s,\"vips\":{", whole ? "true" : "false");
    for (struct table_pos pos = { 0 }; table_next(&seen->vips, &pos, NULL, &h); first = false) {
        buf_printf(out, "%s\"%s\":[", first ? "" : ",", netmap_ip_text(&h->vip, text));
        put_list(out, h->list);
        buf_putc(out, ']');
    }
    buf_puts(out, "},\"differences\":[");
    for (size_t i = 0; i < n && i < 100; i++)
        buf_printf(out, "%s\"%s\"", i ? "," : "", netmap_ip_text(&vips[i], text));
    buf_putc(out, ']');
}

static void put_sandbox(struct vip *v, const struct vip_sandbox *sb, struct buf *out)
{
    struct vip_sandbox seen = { .ipv6 = sb->ipv6, .nnets = sb->nnets, .nets = sb->nets };
    struct vip_dump d = { 0 };
    struct vip_edits strays = { 0 };
    struct mesh_msg *m;
    struct err e = ERR_INIT;
    bool intact = false;
    table_init(&seen.vips, sizeof(struct vip_have));
    table_init(&seen.chains, sizeof(struct vip_chain));
    buf_puts(out, "{\"task\":");
    buf_json_str(out, str_from(sb->task));
    int r = reach(v, sb, &m, &e);
    if (r == 0) {
        r = vip_nft_read(m, sb->ipv6, &d, &intact, &e);
        leave_it(m);
    }
    intact = r == 0 && intact && vip_core_load(&seen, &d, &strays) && strays.n == 0;
    put_seen(out, &seen, intact);
    if (r < 0) {
        buf_puts(out, ",\"error\":");
        buf_json_str(out, str_from(e.msg));
    }
    buf_putc(out, '}');
    vip_core_forget(&seen);
    table_done(&seen.vips);
    table_done(&seen.chains);
    free(strays.v);
    vip_dump_done(&d);
}

void vip_probe(struct vip *v, const char *args, struct buf *out)
{
    struct vip_sandbox **sb;
    bool first = true;
    buf_putc(out, '[');
    for (struct table_pos pos = { 0 }; table_next(&v->core.sandboxes, &pos, NULL, &sb);) {
        if (args[0] && strncmp((*sb)->task, args, strlen(args)) != 0)
            continue;
        buf_puts(out, first ? "" : ",\n ");
        put_sandbox(v, *sb, out);
        first = false;
    }
    buf_putc(out, ']');
}
