/*
 * agent_run.c - carries out what a task's core decides: start, stop, clean.
 *
 * A start goes through these stages, each a callback of the event loop:
 *   slot -> mesh_up sent, root file system mounted, volumes made -> (image content copied) -> mesh_up answered
 *        -> config.json written -> conmon: crun create -> crun start -> mesh_ready -> TE_STARTED
 * With a health check: TE_STARTED, its first success -> mesh_ready -> TE_HEALTHY
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

#include "agentd/agent_events.h"
#include "agentd/agent_files.h"
#include "agentd/agent_health.h"
#include "agentd/agent_run.h"
#include "agentd/fsutil.h"
#include "agentd/log_opts.h"
#include "agentd/oci_spec.h"
#include "agentd/volumes.h"
#include "common/util/check.h"
#include "common/util/id.h"

#define SMALL_TREE 256 /* so many files are removed in place, more by a program */

static void slots_run(struct agent *ag);

void run_path(const struct atask *t, const char *name, char out[512])
{
    snprintf(out, 512, "%s/tasks/%s%s%s", t->ag->run_dir, t->id, name ? "/" : "", name ? name : "");
}

void run_state_path(const struct atask *t, const char *name, char out[512])
{
    snprintf(out, 512, "%s/tasks/%s%s%s", t->ag->state_dir, t->id, name ? "/" : "", name ? name : "");
}

static void on_timer(void *arg)
{
    struct atask *t = arg;
    int what = t->timer_for;
    t->timer_for = TIMER_NONE;
    if (what == TIMER_GRACE)
        task_event(t, (struct task_event){ .type = TE_GRACE_OVER });
    else if (what == TIMER_DRAIN)
        task_event(t, (struct task_event){ .type = TE_DRAIN_OVER });
    else if (what == TIMER_MESH_UP)
        run_mesh_up(t);
    else if (what == TIMER_MESH_DOWN)
        run_mesh_down(t);
}

void run_timer(struct atask *t, int what, uint64_t after_ms)
{
    struct err e = ERR_INIT;
    if (!t->timer && timer_open(&t->timer, on_timer, t, &e) < 0) {
        log_error("task=%s: %s", t->id, e.msg);
        return;
    }
    t->timer_for = what;
    timer_arm(t->timer, what == TIMER_NONE ? UINT64_MAX : clock_mono().ms + after_ms);
}

/* ---- start: slots ---- */

static void slot_release(struct atask *t)
{
    if (!t->has_slot)
        return;
    t->has_slot = false;
    CHECK(t->ag->starting > 0);
    t->ag->starting--;
    slots_run(t->ag);
}

/* run_rejected - no other try on this node can do better, so the text is the reason as it is */
void run_rejected(struct atask *t, const struct err *e)
{
    t->run_no++;
    task_event(t, (struct task_event){ .type = TE_START_FAILED, .text = e->msg, .reject = true });
    slot_release(t);
}

void run_start_failed(struct atask *t, const struct err *e, int exit_code)
{
    char text[TASK_ERR_MAX];
    bool worded = strncmp(e->msg, "starting container failed", 25) == 0;
    snprintf(text, sizeof text, "%s%s", worded ? "" : "starting container failed: ", e->msg);
    t->run_no++;
    task_event(t,
               (struct task_event){ .type = TE_START_FAILED, .text = text, .exit_code = exit_code ? exit_code : 128 });
    slot_release(t);
}

/* ---- start: image content into fresh volumes ---- */

static void on_copied(void *arg, int status, struct str out, struct str errtext)
{
    struct atask *t = arg;
    struct err e = ERR_INIT;
    (void)out;
    t->proc = NULL;
    close(t->copies[t->copied].from_fd);
    if (status == 0)
        volume_fill_done(t->copies[t->copied].to);
    t->copied++;
    if (status != 0) {
        size_t n = errtext.n > 200 ? 200 : errtext.n;
        while (n && errtext.p[n - 1] == '\n')
            n--;
        err_set(&e, ERR_IO, "copy image content to volume: %.*s", (int)n, n ? errtext.p : "");
        run_start_failed(t, &e, 0);
        return;
    }
    run_go_on(t);
}

static int copy_next(struct atask *t, struct err *e)
{
    const struct copy *c = &t->copies[t->copied];
    const char *const argv[] = { "/bin/cp", "-a", "--reflink=auto", "/proc/self/fd/3/.", c->to, NULL };
    struct proc_spec ps = { .argv = argv, .keep_fds = { c->from_fd, -1, -1, -1 } };
    return proc_start(&t->proc, t->ag->loop, &ps, on_copied, t, e);
}

/* ---- start: the container ---- */

static int exit_code_of(const char *text)
{
    if (strstr(text, "permission denied"))
        return 126;
    return strstr(text, "executable file not found") || strstr(text, "no such file or directory") ? 127 : 128;
}

static void started(struct atask *t)
{
    t->monitor = ctr_monitor(t->ctr);
    task_event(
        t, (struct task_event){ .type = TE_STARTED, .pid = (uint64_t)ctr_pid(t->ctr), .checked = t->checked != NULL });
    slot_release(t);
}

static void started_late(struct atask *t)
{
    if (t->core.phase == TP_STARTING)
        started(t);
}

static void on_ctr_started(void *arg, const struct err *e)
{
    struct atask *t = arg;
    if (e) {
        run_start_failed(t, e, exit_code_of(e->msg));
        return;
    }
    agent_event(t, "start", "");
    if (agent_health_begin(t, false)) {
        started(t);
        return;
    }
    /* who sees "running" may connect at once */
    bool wait = t->a.Networks.n > 0 || run_port_list(t->a.Ports, &t->run).n > 0;
    run_mesh_ready(t, started_late);
    if (!wait)
        started(t);
}

static void on_ctr_exited(void *arg, bool known, int code, bool oom)
{
    struct atask *t = arg;
    run_timer(t, TIMER_NONE, 0);
    agent_health_end(t);
    if (t->core.phase == TP_STARTING) /* it ended before meshd had answered */
        started(t);
    if (known)
        task_event(t, (struct task_event){ .type = TE_EXITED, .exit_code = code, .oom = oom });
    else
        task_event(t, (struct task_event){ .type = TE_LOST, .text = "container lost: its monitor is gone" });
    agent_event(t, "die", "");
}

static void unmount_and_remove(struct atask *t);

static void on_ctr_deleted(void *arg)
{
    struct atask *t = arg;
    t->ctr = ctr_free(t->ctr);
    unmount_and_remove(t);
}

const struct ctr_ops run_ctr_ops = { on_ctr_started, on_ctr_exited, on_ctr_deleted };

/* the task's log driver, or the cluster's default; NULL: neither says */
const struct tspec_driver *run_log_driver(struct atask *t, struct arena *a)
{
    static const struct field fields[] = {
        FIELD_STR(struct tspec_driver, Name, 0, 256),
        FIELD_STRMAP(struct tspec_driver, Options, 1000),
        FIELD_END,
    };
    struct err e = ERR_INIT;
    struct tspec_driver *d;
    if (t->spec.LogDriver)
        return t->spec.LogDriver;
    d = t->a.LogDriver.n ? arena_array(a, 1, sizeof *d) : NULL;
    return d && fields_decode(d, fields, sizeof *d, t->a.LogDriver, FIELDS_VIEW, a, &e) == 0 ? d : NULL;
}

int run_log_opts(struct atask *t, struct log_opts *ret, struct err *e)
{
    struct log_opts dflt = { .size_max = agent_conf.log_size_max, .files = (unsigned)agent_conf.log_files };
    *ret = dflt;
    return log_opts_read(run_log_driver(t, &t->run), &dflt, ret, e);
}

static void ctr_spec_of(struct atask *t, const struct log_opts *lo, struct ctr_spec *ret, char bundle[512],
                        char log[512])
{
    const struct tspec_container *c = t->spec.ContainerSpec;
    run_path(t, NULL, bundle);
    run_state_path(t, "log", log);
    *ret = (struct ctr_spec){ .id = t->container_id,
                              .task_id = t->id,
                              .bundle = bundle,
                              .command = t->command,
                              .log_size_max = lo->size_max,
                              .log_path = lo->none ? NULL : log,
                              .tty = c && c->TTY,
                              .stdin_open = c && c->OpenStdin };
}

/* run_go_on - called whenever one of the things a container needs is there */
void run_go_on(struct atask *t)
{
    struct err e = ERR_INIT;
    struct ctr_spec spec;
    struct log_opts lo;
    char bundle[512], log[512];
    if (t->copied < t->ncopies) {
        if (!t->proc && copy_next(t, &e) < 0)
            run_start_failed(t, &e, 0);
        return;
    }
    if (!t->mesh_there || !t->rootfs_there)
        return;
    int r = run_write_config(t, &e);
    if (r == 0)
        r = run_log_opts(t, &lo, &e);
    if (r == 0)
        r = agent_logs_begin(t->ag->logs, t->id, lo.files, &e);
    if (r == 0) {
        ctr_spec_of(t, &lo, &spec, bundle, log);
        r = ctr_run(&t->ctr, t->ag->oci, &spec, &run_ctr_ops, t, &e);
    }
    if (r < 0)
        run_start_failed(t, &e, 0);
}

static void new_container_id(char id[65])
{
    uint8_t b[32];
    random_bytes(b, sizeof b);
    for (size_t i = 0; i < sizeof b; i++)
        snprintf(id + 2 * i, 3, "%02x", b[i]);
}

static void start_begin(struct atask *t)
{
    struct err e = ERR_INIT;
    struct image_conf ic = { 0 };
    arena_reset(&t->run);
    t->volumes = t->addresses = (struct strs){ 0, 0 };
    t->ports = (struct list){ 0, 0 };
    t->ncopies = t->copied = t->nmounts = 0;
    t->mesh_there = t->rootfs_there = false;
    t->mesh_pause_ms = 0;
    t->run_no++;
    new_container_id(t->container_id);
    run_mesh_up(t); /* meshd works while the root is mounted here */
    if (run_mount_root(t, &e) < 0 || run_image_conf(t, &t->run, &ic, &e) < 0 || run_make_mounts(t, &ic, &e) < 0) {
        run_start_failed(t, &e, 0);
        return;
    }
    t->rootfs_there = true;
    task_dirty(t); /* the container's id is on disk before the container is */
    run_go_on(t);
}

static void slots_run(struct agent *ag)
{
    while (ag->queue_head && ag->starting < agent_conf.starts_max) {
        struct atask *t = ag->queue_head;
        ag->queue_head = t->queue_next;
        if (!ag->queue_head)
            ag->queue_tail = NULL;
        t->queue_next = NULL;
        t->in_queue = false;
        ag->nqueue--;
        ag->starting++;
        t->has_slot = true;
        if (task_stop_wanted(t)) {
            struct err cancelled = { ERR_UNAVAILABLE, "cancelled" };
            run_start_failed(t, &cancelled, 0);
            return; /* the rest was done by slot_release() */
        }
        start_begin(t);
    }
}

void run_start(struct atask *t)
{
    struct agent *ag = t->ag;
    t->in_queue = true;
    if (ag->queue_tail)
        ag->queue_tail->queue_next = t;
    else
        ag->queue_head = t;
    ag->queue_tail = t;
    ag->nqueue++;
    slots_run(ag);
}

/* ---- stop ---- */

static int stop_signal(struct atask *t)
{
    struct err e = ERR_INIT;
    struct image_conf ic = { 0 };
    const struct tspec_container *c = t->spec.ContainerSpec;
    int sig = c && c->StopSignal.n ? oci_signal(c->StopSignal) : 0;
    if (sig == 0 && c && run_image_conf(t, &t->run, &ic, &e) == 0 && ic.StopSignal.n)
        sig = oci_signal(ic.StopSignal);
    return sig ? sig : SIGTERM;
}

void run_signal_stop(struct atask *t)
{
    int64_t grace = t->spec.ContainerSpec ? tspec_grace_ns(t->spec.ContainerSpec) : TSPEC_GRACE_DEFAULT_NS;
    int r = ctr_signal(t->ctr, grace == 0 ? SIGKILL : stop_signal(t));
    if (r < 0 && r != -ESRCH)
        log_warn("task=%s: stop signal: %s", t->id, strerror(-r));
    run_timer(t, TIMER_GRACE, (uint64_t)(grace / 1000000));
}

void run_kill(struct atask *t)
{
    int r = t->ctr ? ctr_signal(t->ctr, SIGKILL) : 0;
    if (r < 0 && r != -ESRCH)
        log_warn("task=%s: kill: %s", t->id, strerror(-r));
}

/* ---- clean ---- */

static void on_removed(void *arg, int status, struct str out, struct str errtext)
{
    struct atask *t = arg;
    (void)out;
    t->proc = NULL;
    if (status != 0)
        log_warn("task=%s: remove: " STR_FMT, t->id, STR_ARG(errtext));
    run_clean_part_done(t);
}

static void remove_anonymous(struct atask *t)
{
    for (size_t i = 0; i < t->volumes.n; i++) {
        char name[80];
        if (str_copy(name, sizeof name, t->volumes.v[i]))
            volume_remove(t->ag->state_dir, name);
    }
}

static void unmount_and_remove(struct atask *t)
{
    char rootfs[512], bundle[512], upper[512], work[512];
    struct err e = ERR_INIT;
    run_path(t, "rootfs", rootfs);
    run_path(t, NULL, bundle);
    run_state_path(t, "upper", upper);
    run_state_path(t, "work", work);
    while (umount2(rootfs, MNT_DETACH) == 0)
        ;
    t->root_mounted = false;
    if (run_unbind_subpaths(t))
        fs_remove_tree(bundle);
    else
        log_error("task=%s: a part of a volume is still mounted below %s", t->id, bundle);
    remove_anonymous(t);
    if (access(upper, F_OK) < 0 && access(work, F_OK) < 0) {
        run_clean_part_done(t);
        return;
    }
    if (fs_count_entries(upper, SMALL_TREE) < SMALL_TREE) {
        fs_remove_tree(upper);
        fs_remove_tree(work);
        run_clean_part_done(t);
        return;
    }
    const char *const argv[] = { "/bin/rm", "-rf", "--one-file-system", "--", upper, work, NULL };
    if (proc_start(&t->proc, t->ag->loop, &(struct proc_spec){ .argv = argv }, on_removed, t, &e) < 0) {
        log_warn("task=%s: %s", t->id, e.msg);
        run_clean_part_done(t);
    }
}

void run_clean_part_done(struct atask *t)
{
    CHECK(t->clean_left > 0);
    if (--t->clean_left > 0)
        return;
    t->mesh_asked = false;
    if (t->redo) { /* a start that was interrupted by our own restart: from the beginning */
        t->redo = false;
        t->container_id[0] = '\0';
        task_event(t, (struct task_event){ .type = TE_RESUME });
        return;
    }
    json_decref(t->img);
    t->img = NULL;
    task_event(t, (struct task_event){ .type = TE_CLEANED });
}

void run_clean(struct atask *t)
{
    t->run_no++;
    run_timer(t, TIMER_NONE, 0);
    agent_health_gone(t);
    t->proc = proc_free(t->proc);
    for (; t->copied < t->ncopies; t->copied++)
        close(t->copies[t->copied].from_fd);
    if (!t->container_id[0]) { /* nothing was ever made for it */
        t->clean_left = 1;
        run_clean_part_done(t);
        return;
    }
    t->clean_left = 2;
    run_mesh_down(t);
    if (t->ctr)
        ctr_delete(t->ctr);
    else
        unmount_and_remove(t);
}

void run_release(struct atask *t)
{
    (void)files_cancel(t);
    images_unwant(t->want);
    t->want = NULL;
    agent_health_free(t);
    t->ctr = ctr_free(t->ctr);
    t->proc = proc_free(t->proc);
    for (; t->copied < t->ncopies; t->copied++)
        close(t->copies[t->copied].from_fd);
    t->timer = timer_free(t->timer);
}
