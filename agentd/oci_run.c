/* oci_run.c - see oci_run.h. */
#include "agentd/oci_run.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/magic.h>

#include "agentd/fsutil.h"
#include "agentd/proc.h"
#include "common/daemon/log.h"
#include "common/util/cleanup.h"

struct oci_env {
    sd_event *loop;
    struct oci_conf conf;
    char crun_root[300], exit_dir[300];
    int inotify_fd;
    sd_event_source *inotify_source;
    bool cgroup2, swap_limit;
    char monitor_procs[8][300]; /* cgroup.procs files that a monitor is moved to; "" ends the list */
    struct ctr *all;
};

enum ctr_state { CS_CREATING, CS_STARTING, CS_RUNNING, CS_ENDED, CS_DELETING };

struct ctr {
    struct ctr *next;
    struct oci_env *env;
    char id[80], task_id[80], bundle[400], command[128];
    struct ctr_ops ops;
    void *arg;
    enum ctr_state state;
    pid_t pid, monitor;
    int pidfd, monitor_fd, sync_fd;
    sd_event_source *sync_source, *monitor_source, *late_source;
    struct proc *forker; /* conmon's first half */
    struct proc *proc;   /* crun start or delete */
    struct buf sync;
    bool exit_seen, exit_known, exit_oom;
    int exit_code;
    struct err why; /* of a failed start */
};

/* ---- pure parts ---- */

bool exit_file_parse(struct str text, int *ret)
{
    uint64_t v;
    while (text.n && isspace((unsigned char)text.p[text.n - 1]))
        text.n--;
    if (!str_u64(text, &v) || v > 255)
        return false;
    *ret = (int)v;
    return true;
}

static const char *find(struct str s, const char *needle)
{
    return s.n ? memmem(s.p, s.n, needle, strlen(needle)) : NULL;
}

#define START_FAILED "starting container failed: failed to create task for container: OCI runtime create failed: "

/* the name in crun's "executable file `name` not found in $PATH" */
static struct str missing_name(struct str crun)
{
    static const char before[] = "executable file `";
    const char *p = find(crun, before), *end;
    if (!p)
        return (struct str){ 0, 0 };
    p += strlen(before);
    size_t left = (size_t)(crun.p + crun.n - p);
    end = memchr(p, '\'', left);
    if (!end)
        end = memchr(p, '`', left);
    return (struct str){ p, end ? (size_t)(end - p) : left };
}

void oci_error_text(struct str crun, const char *command, char *out, size_t cap)
{
    struct str name = missing_name(crun);
    while (crun.n && isspace((unsigned char)crun.p[crun.n - 1]))
        crun.n--;
    bool missing = name.p != NULL, denied = find(crun, "ermission denied") || find(crun, "not permitted");
    if (!missing && !find(crun, "open executable")) {
        snprintf(out, cap, START_FAILED STR_FMT, STR_ARG(crun));
        return;
    }
    if (!missing)
        name = str_from(command);
    if (!name.n || !memchr(name.p, '/', name.n)) /* looked for in PATH, where what cannot be executed does not count */
        snprintf(out, cap, START_FAILED "exec: \"" STR_FMT "\": executable file not found in $PATH", STR_ARG(name));
    else if (denied)
        snprintf(out, cap, START_FAILED "exec: \"" STR_FMT "\": permission denied", STR_ARG(name));
    else
        snprintf(out, cap, START_FAILED "exec: \"" STR_FMT "\": stat " STR_FMT ": no such file or directory",
                 STR_ARG(name), STR_ARG(name));
}

/* ---- cgroups ---- */

static bool is_cgroup2_root(void)
{
    struct statfs sf;
    return statfs("/sys/fs/cgroup", &sf) == 0 && sf.f_type == CGROUP2_SUPER_MAGIC;
}

/*
 * A monitor must not share a control group with agentd: systemd kills by group, and limits count by group. Only the
 * hierarchies where agentd is not in the root group matter; in a plain namespace there are none, and starts stay fast.
 */
static void find_monitor_groups(struct oci_env *env)
{
    _cleanup_(buf_done) struct buf text = BUF_INIT;
    char *line, *save = NULL;
    size_t n = 0;
    if (fs_read("/proc/self/cgroup", 1u << 16, &text, NULL) < 0)
        return;
    for (line = strtok_r((char *)(uintptr_t)buf_cstr(&text), "\n", &save); line && n < 7;
         line = strtok_r(NULL, "\n", &save)) {
        char dir[200];
        char *ctl = strchr(line, ':'), *path = ctl ? strchr(ctl + 1, ':') : NULL;
        if (!path || strcmp(path, ":/") == 0)
            continue;
        *path = '\0';
        ctl++;
        if (strncmp(ctl, "name=", 5) == 0)
            ctl += 5;
        if (*ctl == '\0')
            snprintf(dir, sizeof dir, "/sys/fs/cgroup%s/monitors", env->conf.cgroup_root);
        else
            snprintf(dir, sizeof dir, "/sys/fs/cgroup/%.60s%s/monitors", ctl, env->conf.cgroup_root);
        if (*ctl == '\0' && !env->cgroup2)
            continue;
        if (fs_mkdirs(dir, 0755, NULL) < 0)
            continue;
        snprintf(env->monitor_procs[n++], sizeof env->monitor_procs[0], "%s/cgroup.procs", dir);
    }
}

static void move_monitor(const struct oci_env *env, pid_t pid)
{
    char text[24];
    struct err e = ERR_INIT;
    snprintf(text, sizeof text, "%d", (int)pid);
    for (size_t i = 0; env->monitor_procs[i][0]; i++)
        if (fs_write(env->monitor_procs[i], str_from(text), 0, &e) < 0)
            log_warn("monitor: own control group: %s", e.msg);
}

static bool oom_killed(const struct ctr *c)
{
    char path[400];
    _cleanup_(buf_done) struct buf text = BUF_INIT;
    snprintf(path, sizeof path,
             c->env->cgroup2 ? "/sys/fs/cgroup%s/%s/memory.events" : "/sys/fs/cgroup/memory%s/%s/memory.oom_control",
             c->env->conf.cgroup_root, c->task_id);
    if (fs_read(path, 4096, &text, NULL) < 0)
        return false;
    const char *p = strstr(buf_cstr(&text), "\noom_kill ");
    return p && strtoul(p + strlen("\noom_kill "), NULL, 10) > 0;
}

/* ---- the environment ---- */

static void ctr_on_exit_file(struct ctr *c);

static struct ctr *by_id(struct oci_env *env, const char *id)
{
    struct ctr *c = env->all;
    while (c && strcmp(c->id, id) != 0)
        c = c->next;
    return c;
}

static void exit_file(void *arg, const struct inotify_event *ev)
{
    struct oci_env *env = arg;
    struct ctr *c = ev->len ? by_id(env, ev->name) : NULL;
    if (ev->mask & IN_Q_OVERFLOW)
        for (struct ctr *x = env->all, *next; x; x = next) {
            next = x->next;
            ctr_on_exit_file(x);
        }
    if (c)
        ctr_on_exit_file(c);
}

static int on_inotify(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
    (void)s;
    (void)revents;
    fs_watch_read(fd, exit_file, userdata);
    return 0;
}

int oci_env_open(struct oci_env **ret, sd_event *loop, const struct oci_conf *conf, struct err *e)
{
    struct oci_env *env = calloc(1, sizeof *env);
    if (!env)
        return err_set(e, ERR_NOMEM, "containers: out of memory");
    env->loop = loop;
    env->conf = *conf;
    env->inotify_fd = -1;
    snprintf(env->crun_root, sizeof env->crun_root, "%s/crun", conf->run_dir);
    snprintf(env->exit_dir, sizeof env->exit_dir, "%s/exits", conf->run_dir);
    env->cgroup2 = is_cgroup2_root();
    env->swap_limit = env->cgroup2 || access("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", F_OK) == 0;
    find_monitor_groups(env);
    int r = fs_mkdirs(env->crun_root, 0700, e);
    if (r == 0)
        r = fs_mkdirs(env->exit_dir, 0700, e);
    if (r == 0 && (env->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) < 0)
        r = err_errno(e, errno, "inotify");
    if (r == 0 && inotify_add_watch(env->inotify_fd, env->exit_dir, IN_MOVED_TO | IN_CLOSE_WRITE) < 0)
        r = err_errno(e, errno, "watch %s", env->exit_dir);
    if (r == 0 && (r = sd_event_add_io(loop, &env->inotify_source, env->inotify_fd, EPOLLIN, on_inotify, env)) < 0)
        r = err_errno(e, -r, "watch %s", env->exit_dir);
    if (r < 0) {
        oci_env_close(env);
        return r;
    }
    *ret = env;
    return 0;
}

struct oci_env *oci_env_close(struct oci_env *env)
{
    if (!env)
        return NULL;
    while (env->all)
        ctr_free(env->all);
    sd_event_source_disable_unref(env->inotify_source);
    closep(&env->inotify_fd);
    free(env);
    return NULL;
}

bool oci_cgroup2(const struct oci_env *env)
{
    return env->cgroup2;
}

const struct oci_conf *oci_conf_of(const struct oci_env *env)
{
    return &env->conf;
}

const char *oci_crun_root(const struct oci_env *env)
{
    return env->crun_root;
}

sd_event *oci_loop(const struct oci_env *env)
{
    return env->loop;
}

bool oci_swap_limit(const struct oci_env *env)
{
    return env->swap_limit;
}

/* ---- one container ---- */

static struct ctr *ctr_new(struct oci_env *env, const struct ctr_spec *spec, const struct ctr_ops *ops, void *arg)
{
    struct ctr *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->env = env;
    c->ops = *ops;
    c->arg = arg;
    c->pidfd = c->monitor_fd = c->sync_fd = -1;
    snprintf(c->id, sizeof c->id, "%s", spec->id);
    snprintf(c->task_id, sizeof c->task_id, "%s", spec->task_id);
    snprintf(c->bundle, sizeof c->bundle, "%s", spec->bundle);
    snprintf(c->command, sizeof c->command, "%s", spec->command ? spec->command : "");
    c->next = env->all;
    env->all = c;
    return c;
}

struct ctr *ctr_free(struct ctr *c)
{
    struct ctr **pp;
    if (!c)
        return NULL;
    for (pp = &c->env->all; *pp && *pp != c; pp = &(*pp)->next)
        ;
    if (*pp)
        *pp = c->next;
    sd_event_source_disable_unref(c->sync_source);
    sd_event_source_disable_unref(c->monitor_source);
    sd_event_source_disable_unref(c->late_source);
    proc_free(c->proc);
    proc_free(c->forker);
    buf_done(&c->sync);
    closep(&c->pidfd);
    closep(&c->monitor_fd);
    closep(&c->sync_fd);
    free(c);
    return NULL;
}

pid_t ctr_pid(const struct ctr *c)
{
    return c->pid;
}

pid_t ctr_monitor(const struct ctr *c)
{
    return c->monitor;
}

int ctr_signal(struct ctr *c, int sig)
{
    if (c->pidfd < 0)
        return -ESRCH;
    return syscall(SYS_pidfd_send_signal, c->pidfd, sig, NULL, 0) < 0 ? -errno : 0;
}

/* tells the owner; c may be freed by it */
static int on_late(sd_event_source *s, void *userdata)
{
    struct ctr *c = userdata;
    (void)s;
    c->late_source = sd_event_source_disable_unref(c->late_source);
    if (c->why.code) {
        c->state = CS_ENDED;
        c->ops.started(c->arg, &c->why);
    } else if (c->exit_seen && c->state == CS_RUNNING) {
        c->state = CS_ENDED;
        c->ops.exited(c->arg, c->exit_known, c->exit_code, c->exit_oom);
    }
    return 0;
}

static void later(struct ctr *c)
{
    if (!c->late_source && sd_event_add_defer(c->env->loop, &c->late_source, on_late, c) < 0)
        log_error("container %.12s: event loop is out of memory", c->id);
}

static void ctr_ended(struct ctr *c, bool known, int code)
{
    if (c->exit_seen)
        return;
    c->exit_seen = true;
    c->exit_known = known;
    c->exit_code = code;
    c->exit_oom = known && code == 128 + SIGKILL && oom_killed(c);
    c->monitor_source = sd_event_source_disable_unref(c->monitor_source);
    if (c->state == CS_RUNNING)
        later(c);
}

static bool read_exit_file(const struct ctr *c, int *ret)
{
    char path[500];
    _cleanup_(buf_done) struct buf text = BUF_INIT;
    snprintf(path, sizeof path, "%s/%s", c->env->exit_dir, c->id);
    return fs_read(path, 64, &text, NULL) == 0 && exit_file_parse(buf_str(&text), ret);
}

static void ctr_on_exit_file(struct ctr *c)
{
    int code;
    if (!c->exit_seen && read_exit_file(c, &code))
        ctr_ended(c, true, code);
}

static int on_monitor_gone(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
    struct ctr *c = userdata;
    int code;
    (void)s;
    (void)fd;
    (void)revents;
    bool known = read_exit_file(c, &code);
    if (!known) { /* somebody killed the monitor: nobody reads the container's output any more */
        log_warn("container %.12s: its monitor is gone, pid=%d", c->id, (int)c->monitor);
        (void)ctr_signal(c, SIGKILL);
        code = 128 + SIGKILL;
    }
    ctr_ended(c, known, code);
    return 0;
}

static int watch_monitor(struct ctr *c)
{
    c->monitor_fd = c->monitor > 0 ? pidfd_of(c->monitor) : -ESRCH;
    if (c->monitor_fd < 0)
        return -ESRCH;
    return sd_event_add_io(c->env->loop, &c->monitor_source, c->monitor_fd, EPOLLIN, on_monitor_gone, c);
}

static void start_failed(struct ctr *c, int code, const char *text)
{
    err_set(&c->why, code, "%s", text);
    later(c);
}

static void running(struct ctr *c)
{
    c->state = CS_RUNNING;
    c->ops.started(c->arg, NULL); /* may not free c */
    ctr_on_exit_file(c);
    if (c->exit_seen)
        later(c);
}

static void on_start_done(void *arg, int status, struct str out, struct str errtext)
{
    struct ctr *c = arg;
    char text[400];
    (void)out;
    c->proc = NULL;
    if (status == 0) {
        running(c);
        return;
    }
    oci_error_text(errtext, c->command, text, sizeof text);
    start_failed(c, ERR_IO, text);
}

static void crun_start(struct ctr *c)
{
    struct err e = ERR_INIT;
    const char *const argv[] = {
        c->env->conf.crun, "--cgroup-manager=cgroupfs", "--root", c->env->crun_root, "start", c->id, NULL
    };
    c->state = CS_STARTING;
    if (proc_start(&c->proc, c->env->loop, &(struct proc_spec){ .argv = argv }, on_start_done, c, &e) < 0)
        start_failed(c, e.code, e.msg);
}

static pid_t read_pid(const struct ctr *c, const char *name)
{
    char path[500];
    _cleanup_(buf_done) struct buf text = BUF_INIT;
    snprintf(path, sizeof path, "%s/%s", c->bundle, name);
    return fs_read(path, 64, &text, NULL) == 0 ? (pid_t)strtol(buf_cstr(&text), NULL, 10) : 0;
}

/* conmon's one message: {"data": pid} or {"data": -1, "message": "..."} */
static void on_created(struct ctr *c)
{
    json_error_t je;
    char text[400];
    json_t *msg = json_loadb(c->sync.p ? c->sync.p : "", c->sync.n, JSON_DISABLE_EOF_CHECK, &je);
    json_int_t pid = json_integer_value(json_object_get(msg, "data"));
    const char *why = json_string_value(json_object_get(msg, "message"));
    if (!msg || pid <= 0) {
        oci_error_text(str_from(why ? why : "the monitor ended before the container was created"), c->command, text,
                       sizeof text);
        start_failed(c, ERR_IO, text);
    } else {
        c->pid = (pid_t)pid;
        c->pidfd = pidfd_of(c->pid);
        c->monitor = read_pid(c, "conmon.pid");
        (void)watch_monitor(c);
        crun_start(c);
    }
    json_decref(msg);
}

static int on_sync(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
    struct ctr *c = userdata;
    char chunk[4096];
    (void)s;
    (void)revents;
    ssize_t n = read(fd, chunk, sizeof chunk);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n > 0 && c->sync.n < 1u << 16) {
        buf_put(&c->sync, chunk, (size_t)n);
        if (!memchr(c->sync.p, '\n', c->sync.n))
            return 0;
    }
    c->sync_source = sd_event_source_disable_unref(c->sync_source);
    close(TAKE_FD(c->sync_fd));
    if (c->state == CS_CREATING)
        on_created(c);
    return 0;
}

/* conmon's first half forks the monitor and ends; the second half goes on in a session of its own */
static void on_conmon_forked(void *arg, int status, struct str out, struct str errtext)
{
    struct ctr *c = arg;
    (void)out;
    c->forker = NULL;
    if (status != 0)
        log_warn("container %.12s: conmon ended with status %d: " STR_FMT, c->id, status,
                 STR_ARG(((struct str){ errtext.p, errtext.n > 300 ? 300 : errtext.n })));
}

static int spawn_conmon(struct ctr *c, const struct ctr_spec *spec, struct err *e)
{
    const struct oci_env *env = c->env;
    static const char *const envp[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "_OCI_SYNCPIPE=3", "_OCI_STARTPIPE=4",
                                        NULL };
    char pidfile[500], monfile[500], log[600], size[32];
    int sync[2] = { -1, -1 }, go[2] = { -1, -1 };
    const char *argv[48];
    size_t n = 0;
    snprintf(pidfile, sizeof pidfile, "%s/pid", c->bundle);
    snprintf(monfile, sizeof monfile, "%s/conmon.pid", c->bundle);
    if (spec->log_path)
        snprintf(log, sizeof log, "k8s-file:%s", spec->log_path);
    else
        snprintf(log, sizeof log, "off");
    snprintf(size, sizeof size, "%" PRIu64, spec->log_size_max);
    const char *const fixed[] = { env->conf.conmon,
                                  "--api-version",
                                  "1",
                                  "-c",
                                  c->id,
                                  "-u",
                                  c->id,
                                  "-n",
                                  c->id,
                                  "-r",
                                  env->conf.crun,
                                  "-b",
                                  c->bundle,
                                  "-p",
                                  pidfile,
                                  "-P",
                                  monfile,
                                  "-l",
                                  log,
                                  "--exit-dir",
                                  env->exit_dir,
                                  "--log-level",
                                  "error",
                                  "--no-sync-log",
                                  "--full-attach",
                                  "--runtime-arg",
                                  "--cgroup-manager=cgroupfs",
                                  "--runtime-arg",
                                  "--root",
                                  "--runtime-arg",
                                  env->crun_root };
    for (; n < sizeof fixed / sizeof fixed[0]; n++)
        argv[n] = fixed[n];
    if (spec->log_path && spec->log_size_max > 0) {
        argv[n++] = "--log-size-max";
        argv[n++] = size;
    }
    if (spec->tty)
        argv[n++] = "-t";
    if (spec->stdin_open)
        argv[n++] = "-i";
    argv[n] = NULL;
    if (pipe2(sync, O_CLOEXEC) < 0 || pipe2(go, O_CLOEXEC) < 0)
        return err_errno(e, errno, "container: pipe");
    fcntl(sync[0], F_SETFL, O_NONBLOCK);
    /* conmon leaves a file "oom" in its working folder */
    struct proc_spec ps = { .argv = argv, .env = envp, .dir = c->bundle, .keep_fds = { sync[1], go[0], -1, -1 } };
    int r = proc_start(&c->forker, env->loop, &ps, on_conmon_forked, c, e);
    close(sync[1]);
    close(go[0]);
    c->sync_fd = sync[0];
    if (r == 0) {
        move_monitor(env, proc_pid(c->forker)); /* before it forks: it waits for one byte */
        if (write(go[1], "", 1) != 1)
            log_warn("container %.12s: start pipe: %s", c->id, strerror(errno));
        r = sd_event_add_io(env->loop, &c->sync_source, c->sync_fd, EPOLLIN, on_sync, c);
        if (r < 0)
            r = err_errno(e, -r, "container: watch");
    }
    close(go[1]);
    return r;
}

int ctr_run(struct ctr **ret, struct oci_env *env, const struct ctr_spec *spec, const struct ctr_ops *ops, void *arg,
            struct err *e)
{
    struct ctr *c = ctr_new(env, spec, ops, arg);
    if (!c)
        return err_set(e, ERR_NOMEM, "container: out of memory");
    int r = spawn_conmon(c, spec, e);
    if (r < 0) {
        ctr_free(c);
        return r;
    }
    *ret = c;
    return 0;
}

/* ---- coming back to one ---- */

/* a pid may have been used again: only believe it if the process carries the container's name */
static bool proc_mentions(pid_t pid, const char *file, const char *text)
{
    char path[64];
    _cleanup_(buf_done) struct buf b = BUF_INIT;
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    return pid > 1 && fs_read(path, 1u << 16, &b, NULL) == 0 && b.n && memmem(b.p, b.n, text, strlen(text));
}

int ctr_adopt(struct ctr **ret, struct oci_env *env, const struct ctr_spec *spec, pid_t pid, pid_t monitor,
              const struct ctr_ops *ops, void *arg, enum ctr_found *ret_found, struct err *e)
{
    struct ctr *c = ctr_new(env, spec, ops, arg);
    char path[600];
    int code;
    if (!c)
        return err_set(e, ERR_NOMEM, "container: out of memory");
    *ret = c;
    c->pid = pid > 0 ? pid : read_pid(c, "pid");
    c->monitor = monitor > 0 ? monitor : read_pid(c, "conmon.pid");
    snprintf(path, sizeof path, "%s/%s/exec.fifo", env->crun_root, c->id);
    bool waiting = access(path, F_OK) == 0;
    snprintf(path, sizeof path, "%s/%s/status", env->crun_root, c->id);
    bool exists = access(path, F_OK) == 0;
    bool alive = proc_mentions(c->monitor, "cmdline", c->id);
    if (exists && proc_mentions(c->pid, "cgroup", c->task_id))
        c->pidfd = pidfd_of(c->pid);
    c->state = CS_ENDED;
    *ret_found = CTR_GONE;
    if (read_exit_file(c, &code)) {
        c->state = CS_RUNNING;
        ctr_ended(c, true, code);
        *ret_found = CTR_EXITED;
    } else if (alive && exists && waiting) {
        *ret_found = CTR_CREATED;
    } else if (alive && exists && watch_monitor(c) >= 0) {
        c->state = CS_RUNNING;
        *ret_found = CTR_RUNNING;
    }
    return 0;
}

/* ---- removing ---- */

#define TASK_ID_LEN 25 /* what else somebody keeps in our group is not ours to judge */

void oci_cgroups_each(const struct oci_env *env, void (*fn)(void *arg, const char *task_id), void *arg)
{
    char path[300];
    struct dirent *d;
    snprintf(path, sizeof path, "/sys/fs/cgroup%s%.200s", env->cgroup2 ? "" : "/pids", env->conf.cgroup_root);
    DIR *dp = opendir(path);
    while (dp && (d = readdir(dp)))
        if (d->d_type == DT_DIR && strlen(d->d_name) == TASK_ID_LEN && isalnum((unsigned char)d->d_name[0]))
            fn(arg, d->d_name);
    if (dp)
        closedir(dp);
}

void oci_cgroups_remove(const struct oci_env *env, const char *task_id)
{
    char path[600];
    struct dirent *d;
    snprintf(path, sizeof path, "/sys/fs/cgroup%.200s/%s", env->conf.cgroup_root, task_id);
    if (env->cgroup2) {
        (void)rmdir(path);
        return;
    }
    DIR *dp = opendir("/sys/fs/cgroup");
    while (dp && (d = readdir(dp))) {
        if (d->d_type != DT_DIR || d->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s%.200s/%s", d->d_name, env->conf.cgroup_root, task_id);
        (void)rmdir(path);
    }
    if (dp)
        closedir(dp);
}

static void on_deleted(void *arg, int status, struct str out, struct str errtext)
{
    struct ctr *c = arg;
    char path[500];
    (void)out;
    c->proc = NULL;
    if (status != 0 && !find(errtext, "does not exist"))
        log_warn("container %.12s: delete: " STR_FMT, c->id, STR_ARG(errtext));
    snprintf(path, sizeof path, "%s/%s", c->env->exit_dir, c->id);
    (void)unlink(path);
    if (status != 0) /* killed between making the groups and writing down that it did, crun knows nothing of them */
        oci_cgroups_remove(c->env, c->task_id);
    if (!c->env->cgroup2) { /* crun makes a folder with a file there even where nothing is mounted, and forgets it */
        snprintf(path, sizeof path, "/sys/fs/cgroup/unified%s/%s/cgroup.procs", c->env->conf.cgroup_root, c->task_id);
        (void)unlink(path);
        snprintf(path, sizeof path, "/sys/fs/cgroup/unified%s/%s", c->env->conf.cgroup_root, c->task_id);
        (void)rmdir(path);
    }
    c->ops.deleted(c->arg);
}

void ctr_delete(struct ctr *c)
{
    struct err e = ERR_INIT;
    const char *const argv[] = {
        c->env->conf.crun, "--cgroup-manager=cgroupfs", "--root", c->env->crun_root, "delete", "--force", c->id, NULL
    };
    c->state = CS_DELETING;
    c->monitor_source = sd_event_source_disable_unref(c->monitor_source);
    c->sync_source = sd_event_source_disable_unref(c->sync_source);
    c->late_source = sd_event_source_disable_unref(c->late_source);
    c->proc = proc_free(c->proc);
    c->forker = proc_free(c->forker);
    if (!c->exit_seen && c->monitor > 1 && proc_mentions(c->monitor, "cmdline", c->id))
        kill(c->monitor, SIGKILL); /* of a start that went wrong, or a leftover */
    if (proc_start(&c->proc, c->env->loop, &(struct proc_spec){ .argv = argv }, on_deleted, c, &e) < 0) {
        log_error("container %.12s: delete: %s", c->id, e.msg);
        c->ops.deleted(c->arg);
    }
}
