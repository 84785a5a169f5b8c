/* agent_recover.c - agentd has restarted: what is there of its tasks, and of tasks that nobody knows? */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <unistd.h>

#include "agentd/agent_files.h"
#include "agentd/agent_health.h"
#include "agentd/agent_run.h"
#include "agentd/fsutil.h"
#include "agentd/log_opts.h"

static void lost(struct atask *t)
{
    task_event(t, (struct task_event){ .type = TE_LOST, .text = "container lost: it ended while nobody watched" });
}

void run_recover(struct atask *t)
{
    struct err e = ERR_INIT;
    struct ctr_spec spec = { 0 };
    char bundle[512], log[512];
    enum ctr_found found = CTR_GONE;
    enum task_phase ph = t->core.phase;
    bool had = t->container_id[0] && ph >= TP_STARTING && ph <= TP_CLEANING;
    if (had) {
        run_path(t, NULL, bundle);
        run_state_path(t, "log", log);
        spec = (struct ctr_spec){ .id = t->container_id, .task_id = t->id, .bundle = bundle, .log_path = log };
        if (ctr_adopt(&t->ctr, t->ag->oci, &spec, (pid_t)t->core.pid, t->monitor, &run_ctr_ops, t, &found, &e) < 0)
            log_error("task=%s: %s", t->id, e.msg);
        t->mesh_asked = true;
    }
    bool there = found == CTR_RUNNING || found == CTR_EXITED;
    if (there && ph < TP_CLEANING) {
        t->monitor = ctr_monitor(t->ctr);
        struct log_opts lo;
        (void)run_log_opts(t, &lo, &e);
        if (agent_logs_begin(t->ag->logs, t->id, lo.files, &e) < 0)
            log_warn("task=%s: %s", t->id, e.msg);
        bool checked = agent_health_begin(t, true);
        task_event(t, (struct task_event){ .type = TE_ADOPTED, .pid = (uint64_t)ctr_pid(t->ctr), .checked = checked });
        if (t->core.phase != TP_RUNNING)
            agent_health_end(t);
    } else if (ph == TP_RUNNING || ph == TP_STOPPING) {
        lost(t);
    } else if (had && ph == TP_STARTING) {
        t->redo = true;
        run_clean(t);
    } else if (t->has_auth && ph < TP_STARTING && !task_stop_wanted(t)) {
        t->core.phase = TP_PREPARING; /* the credentials come with the next session */
        t->await_auth = true;
    } else {
        task_event(t, (struct task_event){ .type = TE_RESUME });
    }
}

/* ---- leftovers ---- */

static void on_leftover_gone(void *arg, int status, struct str out, struct str errtext)
{
    (void)arg;
    (void)out;
    if (status != 0)
        log_warn("leftover: " STR_FMT, STR_ARG(errtext));
}

static void leftover_container(struct agent *ag, const char *id)
{
    char root[512];
    struct proc *p;
    struct err e = ERR_INIT;
    snprintf(root, sizeof root, "%s/crun", ag->run_dir);
    const char *const argv[] = {
        agent_conf.crun, "--cgroup-manager=cgroupfs", "--root", root, "delete", "--force", id, NULL
    };
    log_warn("leftover container %.12s: removed", id);
    if (proc_start(&p, ag->loop, &(struct proc_spec){ .argv = argv }, on_leftover_gone, NULL, &e) < 0)
        log_error("%s", e.msg);
}

static bool container_known(struct agent *ag, const char *id)
{
    for (struct atask *t = ag->tasks; t; t = t->next)
        if (strcmp(t->container_id, id) == 0 && t->core.phase != TP_DONE)
            return true;
    return false;
}

static void leftover_task(struct agent *ag, const char *id)
{
    struct atask gone = { .ag = ag };
    char path[512];
    snprintf(gone.id, sizeof gone.id, "%s", id);
    log_warn("leftover task=%s: removed", id);
    run_path(&gone, "rootfs", path);
    while (umount2(path, MNT_DETACH) == 0)
        ;
    run_path(&gone, NULL, path);
    if (run_unbind_subpaths(&gone))
        fs_remove_tree(path);
    run_state_path(&gone, NULL, path);
    fs_remove_tree(path);
}

static void each_entry(struct agent *ag, const char *dir, void (*fn)(struct agent *, const char *))
{
    struct dirent *d;
    DIR *dp = opendir(dir);
    while (dp && (d = readdir(dp)))
        if (d->d_name[0] != '.' && strlen(d->d_name) < 80)
            fn(ag, d->d_name);
    if (dp)
        closedir(dp);
}

static void look_container(struct agent *ag, const char *id)
{
    if (!container_known(ag, id))
        leftover_container(ag, id);
}

static void look_task(struct agent *ag, const char *id)
{
    if (!task_find(ag, str_from(id)))
        leftover_task(ag, id);
}

static void look_cgroup(void *arg, const char *id)
{
    struct agent *ag = arg;
    if (!task_find(ag, str_from(id)))
        oci_cgroups_remove(ag->oci, id);
}

static void look_exit(struct agent *ag, const char *id)
{
    char path[512];
    if (container_known(ag, id))
        return;
    snprintf(path, sizeof path, "%s/exits/%s", ag->run_dir, id);
    (void)unlink(path);
}

static void on_leftover_down(void *arg, const void *rep, const struct err *e)
{
    (void)arg;
    if (!rep)
        log_warn("leftover network: %s", e->msg);
}

static void on_mesh_list(void *arg, const void *rep, const struct err *e)
{
    struct agent *ag = arg;
    const struct mesh_list_reply *r = rep;
    (void)e;
    for (size_t i = 0; r && i < r->TaskIDs.n; i++) {
        struct mesh_task req = { .TaskID = r->TaskIDs.v[i] };
        if (!task_find(ag, req.TaskID))
            rpc_send(ag->mesh, &op_mesh_down, &req, MESH_TIMEOUT_MS, on_leftover_down, NULL);
    }
}

void run_leftovers(struct agent *ag)
{
    char dir[512];
    struct mesh_empty none = { 0 };
    snprintf(dir, sizeof dir, "%s/crun", ag->run_dir);
    each_entry(ag, dir, look_container);
    snprintf(dir, sizeof dir, "%s/tasks", ag->run_dir);
    each_entry(ag, dir, look_task);
    snprintf(dir, sizeof dir, "%s/tasks", ag->state_dir);
    each_entry(ag, dir, look_task);
    snprintf(dir, sizeof dir, "%s/exits", ag->run_dir);
    each_entry(ag, dir, look_exit);
    files_leftovers(ag);
    oci_cgroups_each(ag->oci, look_cgroup, ag);
    rpc_send(ag->mesh, &op_mesh_list, &none, MESH_TIMEOUT_MS, on_mesh_list, ag);
}
