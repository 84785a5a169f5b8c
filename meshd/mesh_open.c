#include "meshd/mesh_node.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "common/util/check.h"
#include "common/util/cleanup.h"
#include "common/util/dir.h"
#include "meshd/mesh_file.h"

#define OLD_BRIDGE "msbr0"

struct opening {
    struct mesh_node *n;
    mesh_note_fn *note;
    void *arg;
    struct mesh_sandbox *v; /* from the files */
    size_t count, cap;
    struct mesh_subnet subnet; /* of their addresses; prefix 0: none */
    struct mesh_link *links;   /* of the form of a sandbox's */
    size_t nlinks, clinks;
    bool old_bridge; /* of the layout before the gateway */
};

static void note(struct opening *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void note(struct opening *o, const char *fmt, ...)
{
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap); /* NOLINT(clang-analyzer-valist.Uninitialized): it was just started */
    va_end(ap);
    if (o->note)
        o->note(o->arg, text);
}

static void open_file(void *arg, const char *name, struct mesh_sandbox *sb, struct mesh_subnet subnet,
                      const struct err *e)
{
    struct opening *o = arg;
    if (!sb) {
        note(o, "sandbox file %s: %s; removed with its sandbox", name, e->msg);
        (void)mesh_file_remove(o->n->files, name, NULL);
        return;
    }
    if (o->count == o->cap) {
        o->cap = o->cap * 2 + 16;
        o->v = realloc(o->v, o->cap * sizeof *o->v);
        CHECK(o->v != NULL);
    }
    o->v[o->count++] = *sb;
    if (subnet.prefix)
        o->subnet = subnet;
}

static void open_link(const struct mesh_link *l, void *arg)
{
    struct opening *o = arg;
    if (mesh_nl_veth_addr(l->name) == 0)
        return;
    if (o->nlinks == o->clinks) {
        o->clinks = o->clinks * 2 + 16;
        o->links = realloc(o->links, o->clinks * sizeof *o->links);
        CHECK(o->links != NULL);
    }
    o->links[o->nlinks++] = *l;
}

/* first_free - the first of the private subnets that no route of the host overlaps. */
static int first_free(struct mesh_node *n, struct mesh_subnet *ret, struct err *e)
{
    for (unsigned i = 18; i < 32 + 16; i++) {
        struct mesh_subnet s = { 172u << 24 | i << 16, 16 };
        bool clash;
        if (i >= 32)
            s = (struct mesh_subnet){ 192u << 24 | 168u << 16 | (i - 32) << 12, 20 };
        int r = mesh_nl_route_clash(&n->nl, s, 0, &clash, e);
        if (r < 0)
            return r;
        if (!clash) {
            *ret = s;
            return 0;
        }
    }
    return err_set(e, ERR_PRECONDITION, "no free subnet for the sandboxes' bridge: choose one with the setting subnet");
}

static int configured_subnet(struct mesh_node *n, struct mesh_subnet *ret, struct err *e)
{
    bool clash = false;
    int r = mesh_subnet_parse(n->conf.subnet, ret, e);
    if (r == 0)
        r = mesh_nl_route_clash(&n->nl, *ret, 0, &clash, e);
    if (r == 0 && clash)
        r = err_set(e, ERR_PRECONDITION, "subnet %s overlaps with a route of this host", n->conf.subnet);
    return r;
}

/* open_subnet - what running sandboxes use stays; else the setting; else the first free one. */
static int open_subnet(struct opening *o, struct err *e)
{
    struct mesh_node *n = o->n;
    struct mesh_subnet want;
    bool automatic = strcmp(n->conf.subnet, "auto") == 0;
    if (!automatic && mesh_subnet_parse(n->conf.subnet, &want, e) < 0)
        return -e->code;
    if (o->subnet.prefix) {
        n->subnet = o->subnet;
        if (!automatic && want.base != n->subnet.base)
            note(o, "setting subnet = %s waits until no sandbox uses the old one", n->conf.subnet);
        return 0;
    }
    return automatic ? first_free(n, &n->subnet, e) : configured_subnet(n, &n->subnet, e);
}

/* ---- the layout before the gateway: sandboxes on a bridge of the host ---- */

static void old_link(const struct mesh_link *l, void *arg)
{
    struct opening *o = arg;
    if (strcmp(l->name, OLD_BRIDGE) == 0 && l->bridge)
        o->old_bridge = true;
    open_link(l, o);
}

/* open_old - its links go, and with them those in the sandboxes; each gets a new one like any that lost its own. */
static int open_old(struct opening *o, struct err *e)
{
    int r = mesh_nl_links(&o->n->nl.rt, old_link, o, e);
    if (r < 0)
        return r;
    if (o->old_bridge) {
        note(o, "bridge " OLD_BRIDGE " of an older version: removed, %zu sandboxes are moved to the gateway",
             o->nlinks);
        for (size_t i = 0; i < o->nlinks; i++)
            if (o->links[i].master)
                (void)mesh_nl_link_del(&o->n->nl.rt, o->links[i].name, NULL);
        r = mesh_nl_link_del(&o->n->nl.rt, OLD_BRIDGE, e);
    }
    o->nlinks = 0;
    return r;
}

/* ---- the gateway ---- */

static int open_gateway(struct opening *o, struct err *e)
{
    struct mesh_node *n = o->n;
    char path[MESH_TEXT_MAX + 64];
    bool made, linked;
    if (n->nl.gate_ns >= 0 && mesh_ns_pinned(n->gate))
        made = false;
    else if (mesh_nl_gateway(&n->nl, n->gate, &made, e) < 0)
        return -e->code;
    int r = mesh_nl_uplink(&n->nl, n->conf.link, n->subnet, (unsigned)n->conf.mtu, &linked, e);
    if (r < 0)
        return r;
    if (linked && !made)
        note(o, "link %s between host and gateway: made anew", n->conf.link);
    r = mesh_ns_sysctl("net/ipv4/ip_forward", "1", e);
    /* localhost:PORT goes to the gateway with a 127/8 source until it is translated; the table guards the way back. */
    snprintf(path, sizeof path, "net/ipv4/conf/%s/route_localnet", n->conf.link);
    return r < 0 ? r : mesh_ns_sysctl(path, "1", e);
}

/* ---- sandboxes ---- */

/* leaving - its sandbox went a moment ago, and the kernel is taking it apart. */
static bool leaving(const struct mesh_node *n, uint32_t addr)
{
    for (size_t i = 0; i < n->nleaving; i++)
        if (n->leaving[i] == addr)
            return true;
    return false;
}

static void open_links(struct opening *o)
{
    struct mesh_node *n = o->n;
    for (size_t i = 0; i < o->nlinks; i++) {
        struct mesh_link *l = &o->links[i];
        struct mesh_sandbox *sb = mesh_core_get(&n->core, str_from(l->alias));
        struct err e = ERR_INIT;
        if (sb && sb->addr == mesh_nl_veth_addr(l->name)) {
            if (mesh_nl_adopt(&n->nl, l, &e) < 0)
                note(o, "task %s: %s", sb->task, e.msg);
            continue;
        }
        if (leaving(n, mesh_nl_veth_addr(l->name)))
            continue;
        note(o, "link %s belongs to no sandbox: removed", l->name);
        (void)mesh_nl_link_del(&n->nl.gt, l->name, NULL);
        mesh_ct_addr(&n->stale, mesh_nl_veth_addr(l->name), MESH_CT_ALL);
        l->name[0] = '\0';
        n->dropped++;
    }
}

static bool has_link(const struct opening *o, uint32_t addr)
{
    for (size_t i = 0; i < o->nlinks; i++)
        if (mesh_nl_veth_addr(o->links[i].name) == addr)
            return true;
    return false;
}

/* open_repair - a sandbox that lives on, but has lost its link. */
static void open_repair(struct opening *o)
{
    struct mesh_sandbox *sb;
    for (struct table_pos pos = { 0 }; table_next(&o->n->core.sandboxes, &pos, NULL, &sb);) {
        struct err e = ERR_INIT;
        if (!sb->addr || has_link(o, sb->addr))
            continue;
        int r = mesh_node_plug(o->n, sb, NULL, false, &e);
        note(o, "task %s had lost its link: %s", sb->task, r < 0 ? e.msg : "made anew");
    }
}

static void open_pins(struct opening *o)
{
    DIR *d = opendir(o->n->pins);
    struct dirent *de;
    char pin[512];
    while (d && (de = readdir(d)))
        if (de->d_name[0] != '.' && strlen(de->d_name) < MESH_ID_SIZE &&
            !mesh_core_get(&o->n->core, str_from(de->d_name))) {
            mesh_node_pin_path(o->n, de->d_name, pin);
            (void)mesh_ns_unpin(pin, NULL);
            note(o, "network namespace %s belongs to no sandbox: removed", de->d_name);
            o->n->dropped++;
        }
    if (d)
        closedir(d);
}

/* open_sandboxes - those from the files whose namespace is still there (it is not after a restart of the host). */
static void open_sandboxes(struct opening *o)
{
    for (size_t i = 0; i < o->count; i++) {
        struct mesh_sandbox *sb = &o->v[i];
        char pin[512];
        mesh_node_pin_path(o->n, sb->task, pin);
        if (!mesh_core_get(&o->n->core, str_from(sb->task)) && (sb->mode == MESH_HOST || mesh_ns_pinned(pin))) {
            mesh_core_add(&o->n->core, sb);
            continue;
        }
        note(o, "task %s: its network namespace is gone", sb->task);
        (void)mesh_file_remove(o->n->files, sb->task, NULL);
        free(sb->ports);
        o->n->dropped++;
    }
}

/* open_nft - also when the gateway was taken away under a running daemon: the old sockets are of a namespace that is
 * gone. */
static int open_nft(struct mesh_node *n, struct err *e)
{
    mesh_nft_close(&n->nft);
    if (setns(n->nl.gate_ns, CLONE_NEWNET) < 0)
        return err_errno(e, errno, "enter the gateway's namespace");
    int r = mesh_nft_open(&n->nft, mesh_node_source(n), e);
    mesh_ns_back(n->nl.host_ns);
    n->gateways++;
    return r;
}

int mesh_node_repair(struct mesh_node *n, bool *ret_rebuilt, mesh_note_fn *fn, void *arg, struct err *e)
{
    struct opening o = { .n = n, .note = fn, .arg = arg };
    bool lost = !mesh_ns_pinned(n->gate);
    *ret_rebuilt = false;
    if (lost)
        note(&o, "the gateway's namespace was gone: made anew");
    int r = open_gateway(&o, e);
    if (r == 0 && lost)
        r = open_nft(n, e);
    if (r == 0)
        r = mesh_nl_links(&n->nl.gt, open_link, &o, e);
    if (r == 0) {
        open_links(&o);
        open_repair(&o);
        n->todo_all = true;
        r = mesh_node_settle_open(n, e);
    }
    if (r == 0)
        r = mesh_node_sync_rules(n, ret_rebuilt, e);
    free(o.links);
    return r;
}

static int open_kernel(struct opening *o, struct err *e)
{
    struct mesh_node *n = o->n;
    bool rebuilt = false;
    int r = mesh_nl_open(&n->nl, e);
    if (r == 0)
        r = open_subnet(o, e);
    if (r == 0)
        r = open_old(o, e);
    if (r == 0)
        r = open_gateway(o, e);
    if (r == 0)
        r = mesh_nl_links(&n->nl.gt, open_link, o, e);
    if (r == 0)
        r = mesh_host_open(&n->host, n->conf.link, e);
    if (r == 0)
        r = open_nft(n, e);
    if (r < 0)
        return r;
    mesh_core_set_subnet(&n->core, n->subnet);
    open_sandboxes(o);
    open_links(o);
    open_repair(o);
    open_pins(o);
    n->todo_all = true;
    if (mesh_node_settle_open(n, e) < 0)
        note(o, "%s; trying again later", e->msg);
    r = mesh_node_sync_rules(n, &rebuilt, e);
    bool again;
    if (r == 0)
        mesh_node_sync_holds(n);
    return r < 0 ? r : mesh_node_forget(n, &again, e);
}

static int open_dirs(struct mesh_node *n, const char *run_dir, struct err *e)
{
    if (snprintf(n->files, sizeof n->files, "%s/mesh", run_dir) >= (int)sizeof n->files ||
        snprintf(n->pins, sizeof n->pins, "%s/netns", run_dir) >= (int)sizeof n->pins ||
        snprintf(n->gate, sizeof n->gate, "%s/.gateway", n->pins) >= (int)sizeof n->gate)
        return err_set(e, ERR_INVALID, "run folder: name too long");
    int r = dir_own(n->files, 0700, e);
    if (r == 0)
        r = mesh_proxy_open(&n->proxy, run_dir, e);
    return r < 0 ? r : mesh_ns_dir(n->pins, e);
}

int mesh_node_open(struct mesh_node *n, const struct mesh_conf *conf, const char *run_dir, const struct netmap *view,
                   const char *self, mesh_note_fn *fn, void *arg, struct err *e)
{
    struct opening o = { .n = n, .note = fn, .arg = arg };
    *n = (struct mesh_node){
        .conf = *conf, .nl = { .host_ns = -1, .gate_ns = -1 }, .proxy = { .fd = -1 }, .view = view
    };
    snprintf(n->self, sizeof n->self, "%s", self);
    mesh_core_init(&n->core);
    n->core.local_weight = conf->local_weight ? (unsigned)conf->local_weight : 1;
    n->stale_host.gate = MESH_UP_GATE;
    table_init(&n->holds, sizeof(struct mesh_hold));
    table_init(&n->draining, sizeof(unsigned));
    table_init(&n->todo_services, 0);
    table_init(&n->todo_far, 0);
    table_init(&n->peers, sizeof(struct mesh_peer));
    table_init(&n->far, sizeof(unsigned));
    int r = strlen(conf->link) < IFNAMSIZ && conf->link[0] && !strpbrk(conf->link, "/. ")
                ? open_dirs(n, run_dir, e)
                : err_set(e, ERR_INVALID, "setting link: must be a link's name of at most 15 characters");
    if (r == 0)
        r = mesh_file_each(n->files, open_file, &o, e);
    if (r == 0)
        r = open_kernel(&o, e);
    free(o.v);
    free(o.links);
    return r;
}

void mesh_node_close(struct mesh_node *n)
{
    struct mesh_hold *h;
    for (struct table_pos pos = { 0 }; table_next(&n->holds, &pos, NULL, &h);)
        closep(&h->fd);
    table_done(&n->holds);
    mesh_proxy_close(&n->proxy);
    table_done(&n->draining);
    table_done(&n->todo_services);
    table_done(&n->todo_far);
    table_done(&n->peers);
    table_done(&n->far);
    free(n->leaving);
    mesh_ct_done(&n->stale);
    mesh_ct_done(&n->stale_host);
    mesh_host_close(&n->host);
    mesh_nft_close(&n->nft);
    mesh_nl_close(&n->nl);
    mesh_core_done(&n->core);
}

void mesh_node_watch_fds(const struct mesh_node *n, int fds[2])
{
    fds[0] = mnl_socket_get_fd(n->host.watch.sock);
    fds[1] = mnl_socket_get_fd(n->nft.watch.sock);
}

bool mesh_node_watch(struct mesh_node *n)
{
    bool host = mesh_host_watch_read(&n->host), gate = mesh_nft_watch_read(&n->nft);
    return host || gate;
}
