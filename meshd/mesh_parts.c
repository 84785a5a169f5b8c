#include "meshd/mesh_parts.h"

#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "common/daemon/log.h"

#define FLUSH_SANDBOXES 4u /* at a time: each may take some milliseconds */
#define SWEEP_MS 500u

static bool pin_ino(const struct mesh_parts *p, const char *task, ino_t *ret)
{
    char path[512];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", p->overlay.sandboxes, task);
    if (stat(path, &st) < 0)
        return false;
    *ret = st.st_ino;
    return true;
}

/* drop_gone - tasks whose sandbox is not there any more: after a restart of the host, or a crash in the middle. */
static void drop_gone(struct mesh_parts *p, const char *run_dir)
{
    struct attach **a, *gone;
    for (struct table_pos pos = { 0 }; table_next(&p->tasks.tasks, &pos, NULL, &a);) {
        char path[512];
        snprintf(path, sizeof path, "%s/netns/%s", run_dir, (*a)->task);
        if (!mesh_ns_pinned(path) && attach_forget(&p->tasks, str_from((*a)->task), &gone, NULL) == 0)
            attach_free(gone);
    }
}

/* many_files - each sandbox takes a few descriptors, and each network. */
static void many_files(void)
{
    struct rlimit rl;
    if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
        rl.rlim_cur = rl.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &rl);
    }
}

int mesh_parts_open(struct mesh_parts *p, sd_event *loop, const char *run_dir, const struct mesh_conf *conf,
                    const struct netmap *view, const char *self, attach_note_fn *note, void *arg, struct err *e)
{
    struct attach **a;
    char dir[300];
    *p = (struct mesh_parts){ .open = true, .overlay = { .host = { .ns = -1 } }, .vip = { .host_ns = -1 } };
    table_init(&p->sandboxes, sizeof(ino_t));
    many_files();
    p->view = view;
    (void)str_copy(p->self, sizeof p->self, str_from(self));
    if (snprintf(dir, sizeof dir, "%s/attach", run_dir) >= (int)sizeof dir)
        return err_set(e, ERR_INVALID, "run folder: name too long");
    int r = attach_set_open(&p->tasks, dir, note, arg, e);
    if (r == 0)
        drop_gone(p, run_dir);
    if (r == 0)
        r = overlay_open(&p->overlay, run_dir, &p->tasks, view, note, arg, e);
    if (r == 0)
        r = esp_open(&p->esp, e);
    if (r == 0)
        r = mesh_names_open(&p->names, loop, run_dir, conf->resolv_conf, conf->fallback_dns, view, e);
    if (r < 0)
        return r;
    overlay_self(&p->overlay, self);
    for (struct table_pos pos = { 0 }; table_next(&p->tasks.tasks, &pos, NULL, &a);) {
        ino_t ino;
        if (pin_ino(p, (*a)->task, &ino))
            *(ino_t *)table_put(&p->sandboxes, str_from((*a)->task), NULL) = ino;
        struct err why = ERR_INIT;
        if (mesh_names_add(&p->names, *a, &why) < 0)
            note(arg, why.msg);
    }
    return vip_open(&p->vip, run_dir, &p->tasks, view, note, arg, e);
}

void mesh_parts_close(struct mesh_parts *p)
{
    if (!p->open)
        return;
    mesh_names_close(&p->names);
    vip_close(&p->vip);
    esp_close(&p->esp);
    overlay_close(&p->overlay);
    attach_set_close(&p->tasks);
    table_done(&p->sandboxes);
    p->open = false;
}

int mesh_parts_check(struct mesh_parts *p, const struct mesh_up *up, struct err *e)
{
    struct attach *a;
    int r = attach_new(up, &a, e);
    if (r == 0 && a && (str_is(up->Mode, "host") || str_is(up->Mode, "none")))
        r = err_set(e, ERR_INVALID, "Networks: not with mode " STR_FMT, STR_ARG(up->Mode));
    if (r == 0 && a)
        r = overlay_check(&p->overlay, a, e);
    attach_free(a);
    return r;
}

/* add_addresses - as CIDR, behind those that are there. */
static int add_addresses(const struct attach *at, struct arena *a, struct mesh_up_reply *ret, struct err *e)
{
    size_t n = ret->Addresses.n;
    for (size_t i = 0; i < at->nnets; i++)
        n += at->nets[i].nips;
    struct str *v = arena_array(a, n + 1, sizeof *v);
    if (!v)
        return err_set(e, ERR_NOMEM, "reply does not fit");
    for (size_t i = 0; i < ret->Addresses.n; i++)
        v[i] = ret->Addresses.v[i];
    for (size_t i = 0; i < at->nnets; i++)
        for (size_t k = 0; k < at->nets[i].nips; k++) {
            char ip[NETMAP_IP_TEXT];
            char *text = arena_printf(a, "%s/%u", netmap_ip_text(&at->nets[i].ips[k], ip), at->nets[i].ips[k].prefix);
            if (!text)
                return err_set(e, ERR_NOMEM, "reply does not fit");
            v[ret->Addresses.n++] = str_from(text);
        }
    ret->Addresses.v = v;
    return 0;
}

/* guard - nothing of an encrypted network may come or go in clear, not for a moment: also while the map does not have
 * it yet. No device is made before the port is known. */
static int guard(struct mesh_parts *p, struct err *e)
{
    struct overlay_net **n;
    for (struct table_pos pos = { 0 }; p->view->data_path_port && table_next(&p->overlay.nets, &pos, NULL, &n);)
        if ((*n)->encrypted)
            return esp_guard(&p->esp, (uint16_t)(p->view->data_path_port + 1), e);
    return 0;
}

static int guard_for(struct mesh_parts *p, const struct attach *at, struct err *e)
{
    for (size_t i = 0; p->view->data_path_port && i < at->nnets; i++)
        if (at->nets[i].encrypted)
            return esp_guard(&p->esp, (uint16_t)(p->view->data_path_port + 1), e);
    return 0;
}

/* make - all of it, or nothing. The file comes last: what no file names is left over from a crash. */
static int make(struct mesh_parts *p, struct attach *at, struct err *e)
{
    int r = guard_for(p, at, e);
    if (r == 0)
        r = overlay_up(&p->overlay, at, e);
    if (r < 0)
        return r;
    r = vip_up(&p->vip, at, e);
    if (r == 0)
        r = mesh_names_add(&p->names, at, e);
    if (r == 0)
        r = attach_save(&p->tasks, at, e);
    if (r < 0) {
        mesh_names_del(&p->names, str_from(at->task));
        vip_down(&p->vip, str_from(at->task));
        overlay_undo(&p->overlay, at);
    }
    return r;
}

int mesh_parts_up(struct mesh_parts *p, const struct mesh_up *up, struct arena *a, struct mesh_up_reply *ret,
                  struct err *e)
{
    struct attach *at = attach_get(&p->tasks, up->TaskID);
    ino_t now = 0, *had = table_get(&p->sandboxes, up->TaskID);
    int r = 0;
    if (at && had && pin_ino(p, at->task, &now) && now == *had)
        return add_addresses(at, a, ret, e);
    if (at) { /* its namespace was replaced */
        r = mesh_parts_down(p, up->TaskID, 0, e);
        at = NULL;
    }
    if (r == 0)
        r = attach_new(up, &at, e);
    if (r < 0 || !at)
        return r;
    r = make(p, at, e);
    if (r < 0) {
        attach_free(at);
        return r;
    }
    if (pin_ino(p, at->task, &now))
        *(ino_t *)table_put(&p->sandboxes, up->TaskID, NULL) = now;
    return add_addresses(at, a, ret, e);
}

int mesh_parts_down(struct mesh_parts *p, struct str task, uint64_t now_ms, struct err *e)
{
    struct attach *at;
    int r = attach_forget(&p->tasks, task, &at, e);
    if (r < 0 || !at)
        return r;
    mesh_names_del(&p->names, task);
    vip_down(&p->vip, task);
    overlay_down(&p->overlay, at, now_ms);
    table_del(&p->sandboxes, task);
    attach_free(at);
    return 0;
}

void mesh_parts_change(struct mesh_parts *p, const struct netmap_change *c)
{
    overlay_change(&p->overlay, c);
    vip_change(&p->vip, c);
}

static bool encrypt(struct mesh_parts *p, int (*sync)(struct esp *, const struct netmap *, struct str, struct err *))
{
    struct err e = ERR_INIT;
    bool ok = guard(p, &e) == 0 && sync(&p->esp, p->view, str_from(p->self), &e) == 0;
    if (!ok && strcmp(e.msg, p->esp_failure.msg) != 0)
        log_error("encrypted networks: %s; trying again", e.msg);
    p->esp_failure = ok ? (struct err)ERR_INIT : e;
    return ok;
}

/* What is in reach first, then what leads there. */
bool mesh_parts_settle(struct mesh_parts *p, const char *self)
{
    (void)str_copy(p->self, sizeof p->self, str_from(self));
    bool encrypted = encrypt(p, esp_sync);
    overlay_self(&p->overlay, self);
    bool all = overlay_sync(&p->overlay);
    return vip_sync(&p->vip) && all && encrypted;
}

uint64_t mesh_parts_later(struct mesh_parts *p, uint64_t now_ms)
{
    bool flushed = vip_flush(&p->vip, FLUSH_SANDBOXES), swept = overlay_sweep(&p->overlay, now_ms);
    uint64_t drain = flushed ? vip_drain(&p->vip, now_ms) : 0, sweep = swept ? UINT64_MAX : SWEEP_MS;
    if (drain == 0)
        return 1;
    return drain < sweep ? drain : sweep;
}

bool mesh_parts_reconcile(struct mesh_parts *p)
{
    mesh_names_host(&p->names);
    bool all = encrypt(p, esp_reconcile);
    all = overlay_reconcile(&p->overlay) && all;
    return vip_reconcile(&p->vip) && all;
}
