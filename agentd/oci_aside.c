/* oci_aside.c - see oci_aside.h. */
#include "agentd/oci_aside.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agentd/fsutil.h"
#include "common/daemon/daemon.h"
#include "common/util/cleanup.h"

#define GROUP "aside"
#define PIDS_MAX "1024" /* a fork bomb ends before it is the node's problem, also where the service sets no limit */
#define KILL_ROUNDS 64

static void group_path(const struct oci_env *env, const char *hierarchy, const char *task_id, const char *file,
                       char out[600])
{
    snprintf(out, 600, "/sys/fs/cgroup%s%.60s%.200s/%s/" GROUP "%s%s", hierarchy ? "/" : "", hierarchy ? hierarchy : "",
             oci_conf_of(env)->cgroup_root, task_id, file ? "/" : "", file ? file : "");
}

static int make(const char *path, struct err *e)
{
    return mkdir(path, 0755) < 0 && errno != EEXIST ? err_errno(e, errno, "make control group %s", path) : 0;
}

/*
 * In v1, one in each hierarchy where the container has a group; crun passes over those where there is none. cpuset
 * stays out: a new group there lets nobody in before it has been filled in, and services do not set it.
 */
int ctr_aside_make(const struct oci_env *env, const char *task_id, struct err *e)
{
    char path[600], parent[600];
    struct dirent *d;
    int r = 0;
    if (oci_cgroup2(env)) {
        group_path(env, NULL, task_id, NULL, path);
        return make(path, e);
    }
    DIR *dp = opendir("/sys/fs/cgroup");
    if (!dp)
        return err_errno(e, errno, "/sys/fs/cgroup");
    while (r == 0 && (d = readdir(dp))) {
        if (d->d_type != DT_DIR || d->d_name[0] == '.' || strcmp(d->d_name, "cpuset") == 0 ||
            strcmp(d->d_name, "unified") == 0)
            continue;
        snprintf(parent, sizeof parent, "/sys/fs/cgroup/%.60s%.200s/%s", d->d_name, oci_conf_of(env)->cgroup_root,
                 task_id);
        if (access(parent, F_OK) < 0)
            continue;
        group_path(env, d->d_name, task_id, NULL, path);
        r = make(path, e);
    }
    closedir(dp);
    group_path(env, "pids", task_id, "pids.max", path);
    if (r == 0 && access(path, F_OK) == 0)
        r = fs_write(path, STR(PIDS_MAX), 0, e);
    return r;
}

int ctr_aside_exec(struct proc **ret, const struct oci_env *env, const char *container_id, const char *process,
                   int out_fd, proc_done_fn *done, void *arg, struct err *e)
{
    const struct oci_conf *conf = oci_conf_of(env);
    const char *const argv[] = { conf->crun, "--cgroup-manager=cgroupfs",
                                 "--root",   oci_crun_root(env),
                                 "exec",     "--cgroup",
                                 GROUP,      "--process",
                                 process,    container_id,
                                 NULL };
    return proc_start(ret, oci_loop(env), &(struct proc_spec){ .argv = argv, .out_fd = out_fd }, done, arg, e);
}

/* kill_listed - how many there were. */
static size_t kill_listed(const char *procs)
{
    _cleanup_(buf_done) struct buf text = BUF_INIT;
    size_t n = 0;
    char *line, *save = NULL;
    if (fs_read(procs, 1u << 20, &text, NULL) < 0)
        return 0;
    for (line = strtok_r((char *)(uintptr_t)buf_cstr(&text), "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        long pid = strtol(line, NULL, 10);
        if (pid > 1) {
            kill((pid_t)pid, SIGKILL);
            n++;
        }
    }
    return n;
}

static bool frozen(const char *state)
{
    _cleanup_(buf_done) struct buf text = BUF_INIT;
    return fs_read(state, 64, &text, NULL) == 0 && strncmp(buf_cstr(&text), "FROZEN", 6) == 0;
}

/* What forks faster than it is killed is frozen first. */
static void kill_frozen(const struct oci_env *env, const char *task_id)
{
    char procs[600], state[600];
    group_path(env, "freezer", task_id, "cgroup.procs", procs);
    group_path(env, "freezer", task_id, "freezer.state", state);
    if (kill_listed(procs) == 0)
        return;
    for (unsigned i = 0; i < KILL_ROUNDS && kill_listed(procs) > 0; i++) {
        bool all = frozen(state);
        if (!all)
            (void)fs_write(state, STR("FROZEN"), 0, NULL);
        kill_listed(procs);
        if (all)
            break;
    }
    (void)fs_write(state, STR("THAWED"), 0, NULL);
}

void ctr_aside_kill(const struct oci_env *env, const char *task_id)
{
    char path[600];
    if (!oci_cgroup2(env)) {
        kill_frozen(env, task_id);
        return;
    }
    group_path(env, NULL, task_id, "cgroup.procs", path);
    if (kill_listed(path) == 0)
        return;
    char all[600];
    group_path(env, NULL, task_id, "cgroup.kill", all);
    if (fs_write(all, STR("1"), 0, NULL) == 0)
        return;
    for (unsigned i = 0; i < KILL_ROUNDS && kill_listed(path) > 0; i++)
        ;
}
