/*
 * node_init.c - process 1 of a test node: makes its mounts, starts the daemons, restarts those that die, reaps the
 * rest.
 *
 * `node_init DIR` reads DIR/node.conf, leaves for namespaces of its own (mount, pid, net, uts, ipc, cgroup), prints the
 * host's pid of the new process 1 once it listens on DIR/ctl, and returns; process 1 stays. It does what systemd does
 * for a real node (order, readiness by sd_notify, restart at once) and nothing else, so that tests see the same
 * failures.
 *
 * node.conf, one thing a line:
 *   hostname NAME
 *   run DIR        becomes /run/microswarm       state DIR   becomes /var/lib/microswarm
 *   etc DIR        laid over /etc; its microswarm/ becomes /etc/microswarm
 *   env NAME=VALUE for the daemons
 *   daemon NAME UID GID GROUPS|- LOGFILE PROGRAM ARGS...      in the order of starting
 *
 * Commands on DIR/ctl (stream socket, one line, answer, close): go, ls, ready, kill NAME SIGNO, hold NAME [SIGNO],
 * release NAME, halt. NAME may be "all": kill and hold then signal every daemon within one turn of the loop.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DAEMONS_MAX 16
#define ARGS_MAX 32
#define CONNS_MAX 16
#define NOTIFY_PATH "/run/node/notify"
#define STABLE_MS 1000     /* a daemon that lived so long is restarted at once, however often that happens */
#define QUICK_DEATHS_MAX 5 /* after so many quick deaths in a row, wait a little before each start */
#define STOP_DEADLINE_MS 10000

struct daemon {
    char *name, *log;
    char *argv[ARGS_MAX];
    uint64_t started_ms, start_at_ms; /* start_at_ms 0: not due */
    uid_t uid;
    gid_t gid, groups[8];
    int ngroups;
    pid_t pid; /* 0: not running */
    unsigned starts, quick;
    int last_status; /* as waitpid() gave it; -1: never died */
    bool ready, held;
};

struct conn {
    int fd;
    bool waits_ready;
    char hold[64]; /* waits for this daemon's end */
};

static struct daemon daemons[DAEMONS_MAX];
static int ndaemons;
static struct conn conns[CONNS_MAX];
static char *hostname, *run_dir, *state_dir, *etc_dir;
static bool going, halting;
static uint64_t halt_deadline_ms;

static uint64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

_Noreturn static void die(const char *what)
{
    fprintf(stderr, "node_init: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- node.conf ---- */

static void parse_daemon(char *rest)
{
    char *save = NULL;
    struct daemon *d = &daemons[ndaemons];
    if (ndaemons == DAEMONS_MAX) {
        errno = E2BIG;
        die("node.conf: daemons");
    }
    d->name = strtok_r(rest, " ", &save);
    char *uid = strtok_r(NULL, " ", &save), *gid = strtok_r(NULL, " ", &save), *groups = strtok_r(NULL, " ", &save);
    d->log = strtok_r(NULL, " ", &save);
    int n = 0;
    for (char *a; n < ARGS_MAX - 1 && (a = strtok_r(NULL, " ", &save)) != NULL;)
        d->argv[n++] = a;
    if (n == 0) {
        errno = EINVAL;
        die("node.conf: daemon line");
    }
    d->uid = (uid_t)strtoul(uid, NULL, 10);
    d->gid = (gid_t)strtoul(gid, NULL, 10);
    for (char *s2 = NULL, *g = strtok_r(groups, ",", &s2); g && *g != '-' && d->ngroups < 8;
         g = strtok_r(NULL, ",", &s2))
        d->groups[d->ngroups++] = (gid_t)strtoul(g, NULL, 10);
    d->last_status = -1;
    ndaemons++;
}

static void read_conf(void)
{
    static char text[65536]; /* everything that is kept points into it */
    FILE *f = fopen("node.conf", "re");
    if (!f)
        die("node.conf");
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    for (char *save = NULL, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *rest = strchr(line, ' ');
        if (!rest)
            continue;
        *rest++ = '\0';
        if (strcmp(line, "hostname") == 0)
            hostname = rest;
        else if (strcmp(line, "run") == 0)
            run_dir = rest;
        else if (strcmp(line, "state") == 0)
            state_dir = rest;
        else if (strcmp(line, "etc") == 0)
            etc_dir = rest;
        else if (strcmp(line, "env") == 0)
            putenv(rest);
        else if (strcmp(line, "daemon") == 0)
            parse_daemon(rest);
    }
    if (!hostname || !run_dir || !state_dir || !etc_dir) {
        errno = EINVAL;
        die("node.conf: hostname, run, state and etc are needed");
    }
}

/* ---- mounts ---- */

static void must_mount(const char *src, const char *dst, const char *type, unsigned long flags, const char *opts)
{
    if (mount(src, dst, type, flags, opts) < 0)
        die(dst);
}

static void must_mkdir(const char *path, mode_t mode)
{
    if (mkdir(path, mode) < 0 && errno != EEXIST)
        die(path);
}

static void overlay(const char *name, const char *extra_lower, const char *dst)
{
    char up[64], work[64], opts[4096];
    snprintf(up, sizeof up, "/run/node/%s-up", name);
    snprintf(work, sizeof work, "/run/node/%s-work", name);
    must_mkdir(up, 0755);
    must_mkdir(work, 0755);
    snprintf(opts, sizeof opts, "lowerdir=%s%s%s,upperdir=%s,workdir=%s", extra_lower ? extra_lower : "",
             extra_lower ? ":" : "", dst, up, work);
    must_mount("overlay", dst, "overlay", 0, opts);
}

/*
 * The node's own view of cgroups: the caller has put us into a group of ours in each hierarchy, and the cgroup
 * namespace makes those the roots. On a hybrid host only the v1 hierarchies are mounted: crun 1.8 refuses a `unified`
 * that carries controllers.
 */
static void mount_cgroups(bool v2)
{
    must_mount("tmpfs", "/sys/fs/cgroup", "tmpfs", 0, "mode=755");
    if (v2) {
        must_mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
        /* A group with members can't hand controllers on: move aside first. */
        must_mkdir("/sys/fs/cgroup/init", 0755);
        FILE *f = fopen("/sys/fs/cgroup/init/cgroup.procs", "we");
        if (!f || fputs("0", f) < 0 || fclose(f) != 0)
            die("/sys/fs/cgroup/init");
        static const char *const want[] = { "+cpu", "+cpuset", "+memory", "+pids", "+io", "+hugetlb" };
        for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
            int fd = open("/sys/fs/cgroup/cgroup.subtree_control", O_WRONLY | O_CLOEXEC);
            if (fd >= 0) {
                if (write(fd, want[i], strlen(want[i])) < 0)
                    fprintf(stderr, "node_init: no cgroup controller %s\n", want[i] + 1);
                close(fd);
            }
        }
        return;
    }
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (!f)
        die("/proc/self/cgroup");
    char line[512];
    while (fgets(line, sizeof line, f)) {
        char *ctrl = strchr(line, ':'), *end = ctrl ? strchr(ctrl + 1, ':') : NULL;
        if (!end || end == ctrl + 1)
            continue; /* "0::/": the unified one */
        *end = '\0';
        ctrl++;
        char dst[300], opts[300];
        bool named = strncmp(ctrl, "name=", 5) == 0;
        snprintf(dst, sizeof dst, "/sys/fs/cgroup/%s", named ? ctrl + 5 : ctrl);
        snprintf(opts, sizeof opts, "%s%s", named ? "none," : "", ctrl);
        must_mkdir(dst, 0755);
        if (mount("cgroup", dst, "cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, opts) < 0)
            fprintf(stderr, "node_init: cgroup %s: %s\n", ctrl, strerror(errno));
    }
    fclose(f);
}

static void make_mounts(const char *dir)
{
    struct statfs sfs;
    bool v2 = statfs("/sys/fs/cgroup", &sfs) == 0 && sfs.f_type == 0x63677270; /* CGROUP2_SUPER_MAGIC */
    must_mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    /* Bind mounts are made from descriptors, since /run and /proc are about to be covered. */
    int run_fd = open(run_dir, O_PATH | O_DIRECTORY | O_CLOEXEC),
        state_fd = open(state_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (run_fd < 0 || state_fd < 0)
        die("run or state folder");
    /* Not only covered: what reads mountinfo must not find the host's cgroups under ours. */
    umount2("/sys", MNT_DETACH);
    must_mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    must_mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_cgroups(v2);
    must_mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
    must_mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755");
    must_mkdir("/run/node", 0755);
    must_mkdir("/run/lock", 01777);
    overlay("etc", etc_dir, "/etc");
    overlay("lib", NULL, "/var/lib");
    static const char *const dirs[] = { "/run/microswarm", "/var/lib/microswarm", "/etc/microswarm" };
    for (size_t i = 0; i < 3; i++)
        must_mkdir(dirs[i], 0755);
    char src[4200];
    snprintf(src, sizeof src, "/proc/self/fd/%d", run_fd);
    must_mount(src, "/run/microswarm", NULL, MS_BIND, NULL);
    snprintf(src, sizeof src, "/proc/self/fd/%d", state_fd);
    must_mount(src, "/var/lib/microswarm", NULL, MS_BIND, NULL);
    snprintf(src, sizeof src, "%s/microswarm", etc_dir);
    must_mount(src, "/etc/microswarm", NULL, MS_BIND, NULL);
    close(run_fd);
    close(state_fd);
    if (chdir(dir) < 0)
        die(dir);
}

static void loopback_up(void)
{
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
    if (s < 0 || ioctl(s, SIOCSIFFLAGS, &ifr) < 0)
        die("lo");
    close(s);
}

/* ---- daemons ---- */

static void start_daemon(struct daemon *d)
{
    d->start_at_ms = 0;
    d->ready = false;
    pid_t pid = fork();
    if (pid < 0) {
        d->start_at_ms = now_ms() + 100;
        return;
    }
    if (pid > 0) {
        d->pid = pid;
        d->starts++;
        d->started_ms = now_ms();
        return;
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    int log = open(d->log, O_WRONLY | O_CREAT | O_APPEND, 0644), null = open("/dev/null", O_RDONLY);
    if (log < 0 || null < 0)
        _exit(126);
    dup2(null, 0);
    dup2(log, 1);
    dup2(log, 2);
    close(log);
    close(null);
    setenv("NOTIFY_SOCKET", NOTIFY_PATH, 1);
    umask(0027);
    if (chdir("/") < 0 || setgroups((size_t)d->ngroups, d->groups) < 0 || setresgid(d->gid, d->gid, d->gid) < 0 ||
        setresuid(d->uid, d->uid, d->uid) < 0)
        _exit(126);
    execv(d->argv[0], d->argv);
    fprintf(stderr, "node_init: %s: %s\n", d->argv[0], strerror(errno));
    _exit(127);
}

static struct daemon *find_daemon(const char *name)
{
    for (int i = 0; i < ndaemons; i++)
        if (strcmp(daemons[i].name, name) == 0)
            return &daemons[i];
    return NULL;
}

static bool all_ready(void)
{
    for (int i = 0; i < ndaemons; i++)
        if (!daemons[i].held && !daemons[i].ready)
            return false;
    return going;
}

static void answer(struct conn *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void answer(struct conn *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vdprintf(c->fd, fmt, ap);
    va_end(ap);
}

static void hang_up(struct conn *c)
{
    close(c->fd);
    *c = (struct conn){ .fd = -1 };
}

static void tell_ready(void)
{
    for (int i = 0; all_ready() && i < CONNS_MAX; i++)
        if (conns[i].fd >= 0 && conns[i].waits_ready) {
            answer(&conns[i], "ok\n");
            hang_up(&conns[i]);
        }
}

/* The last one first; the next is told when the one before it is gone. */
static void halt_step(void)
{
    for (int i = ndaemons - 1; i >= 0; i--)
        if (daemons[i].pid > 0) {
            if (!daemons[i].held) {
                daemons[i].held = true;
                halt_deadline_ms = now_ms() + STOP_DEADLINE_MS;
                kill(daemons[i].pid, SIGTERM);
            } else if (now_ms() >= halt_deadline_ms) {
                fprintf(stderr, "node_init: %s did not stop in time\n", daemons[i].name);
                kill(daemons[i].pid, SIGKILL);
                halt_deadline_ms = now_ms() + 1000;
            }
            return;
        }
    exit(0);
}

static bool any_held_runs(void)
{
    for (int i = 0; i < ndaemons; i++)
        if (daemons[i].held && daemons[i].pid > 0)
            return true;
    return false;
}

static void daemon_died(struct daemon *d, int status)
{
    uint64_t now = now_ms();
    d->pid = 0;
    d->ready = false;
    d->last_status = status;
    if (!(halting || d->held) || WIFSIGNALED(status))
        fprintf(stderr, "node_init: %s ended: %s %d\n", d->name, WIFSIGNALED(status) ? "signal" : "exit code",
                WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    bool last = d->held && !any_held_runs();
    for (int i = 0; i < CONNS_MAX; i++)
        if (conns[i].fd >= 0 && (strcmp(conns[i].hold, d->name) == 0 || (last && strcmp(conns[i].hold, "all") == 0))) {
            answer(&conns[i], "ok\n");
            hang_up(&conns[i]);
        }
    if (halting || d->held)
        return;
    d->quick = now - d->started_ms < STABLE_MS ? d->quick + 1 : 0;
    if (d->quick > QUICK_DEATHS_MAX)
        d->start_at_ms = now + (d->quick > 10 ? 1000 : 100);
    else
        start_daemon(d);
}

static void reap(void)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        for (int i = 0; i < ndaemons; i++)
            if (daemons[i].pid == pid)
                daemon_died(&daemons[i], status);
    if (halting)
        halt_step();
}

static void on_notify(int fd)
{
    char text[4096], ctl[CMSG_SPACE(sizeof(struct ucred))];
    struct iovec iov = { text, sizeof text - 1 };
    struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = sizeof ctl };
    ssize_t n = recvmsg(fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n <= 0)
        return;
    text[n] = '\0';
    struct cmsghdr *cm = CMSG_FIRSTHDR(&mh);
    if (!cm || cm->cmsg_type != SCM_CREDENTIALS)
        return;
    struct ucred cred;
    memcpy(&cred, CMSG_DATA(cm), sizeof cred);
    for (int i = 0; i < ndaemons; i++)
        if (daemons[i].pid == cred.pid && (strncmp(text, "READY=1", 7) == 0 || strstr(text, "\nREADY=1")))
            daemons[i].ready = true;
    tell_ready();
}

/* ---- commands ---- */

static void cmd_ls(struct conn *c)
{
    for (int i = 0; i < ndaemons; i++) {
        const struct daemon *d = &daemons[i];
        answer(c, "%s %d %s %u %d\n", d->name, d->pid,
               d->held    ? "held"
               : d->ready ? "ready"
               : d->pid   ? "starting"
                          : "down",
               d->starts, d->last_status);
    }
}

static bool deadly(int sig)
{
    return sig != 0 && sig != SIGSTOP && sig != SIGCONT && sig != SIGHUP && sig != SIGUSR1 && sig != SIGUSR2 &&
           sig != SIGCHLD && sig != SIGWINCH;
}

static bool kill_daemon(struct daemon *d, int sig)
{
    if (d->pid <= 0 || kill(d->pid, sig) < 0)
        return false;
    if (deadly(sig))
        d->ready = false;
    return true;
}

/* True when it is still on its way out. */
static bool hold_daemon(struct daemon *d, int sig)
{
    d->held = true;
    d->start_at_ms = 0;
    return d->pid > 0 && kill(d->pid, sig) == 0;
}

static void release_daemon(struct daemon *d)
{
    if (d->held && d->pid == 0)
        start_daemon(d);
    d->held = false;
}

/* The commands that mean every daemon. False: not one of them. True when the connection is done with, in *ret_done. */
static bool command_all(struct conn *c, const char *cmd, const char *arg, bool *ret_done)
{
    int sig = arg ? atoi(arg) : SIGKILL, killed = 0; /* NOLINT(cert-err34-c): 0 is a fine answer to nonsense */
    bool leaving = false;
    if (strcmp(cmd, "kill") == 0) {
        for (int i = 0; i < ndaemons; i++)
            killed += kill_daemon(&daemons[i], sig);
        answer(c, "ok %d\n", killed);
    } else if (strcmp(cmd, "hold") == 0) {
        for (int i = 0; i < ndaemons; i++)
            leaving |= hold_daemon(&daemons[i], sig);
        if (leaving)
            snprintf(c->hold, sizeof c->hold, "all");
        else
            answer(c, "ok\n");
    } else if (strcmp(cmd, "release") == 0) {
        for (int i = 0; i < ndaemons; i++)
            release_daemon(&daemons[i]);
        answer(c, "ok\n");
    } else {
        return false;
    }
    *ret_done = !leaving;
    return true;
}

/* True when the connection is done with. */
static bool command(struct conn *c, char *line)
{
    char *save = NULL, *cmd = strtok_r(line, " \n", &save), *name = strtok_r(NULL, " \n", &save);
    char *arg = strtok_r(NULL, " \n", &save);
    struct daemon *d = name ? find_daemon(name) : NULL;
    bool done;
    if (!cmd)
        return true;
    if (name && strcmp(name, "all") == 0 && command_all(c, cmd, arg, &done))
        return done;
    if (strcmp(cmd, "go") == 0) {
        for (int i = 0; !going && i < ndaemons; i++)
            start_daemon(&daemons[i]);
        going = true;
        answer(c, "ok\n");
    } else if (strcmp(cmd, "ls") == 0) {
        cmd_ls(c);
    } else if (strcmp(cmd, "ready") == 0) {
        c->waits_ready = true;
        tell_ready();
        return false;
    } else if (strcmp(cmd, "halt") == 0) {
        halting = true;
        halt_step();
        return false;
    } else if (!d) {
        answer(c, "error no daemon \"%s\" here\n", name ? name : "");
    } else if (strcmp(cmd, "kill") == 0) {
        int sig = arg ? atoi(arg) : SIGKILL; /* NOLINT(cert-err34-c): 0 is a fine answer to nonsense */
        if (kill_daemon(d, sig))
            answer(c, "ok %d\n", d->pid);
        else
            answer(c, "error %s is not running\n", d->name);
    } else if (strcmp(cmd, "hold") == 0) {
        if (hold_daemon(d, arg ? atoi(arg) : SIGTERM)) { /* NOLINT(cert-err34-c) */
            snprintf(c->hold, sizeof c->hold, "%s", d->name);
            return false;
        }
        answer(c, "ok\n");
    } else if (strcmp(cmd, "release") == 0) {
        release_daemon(d);
        answer(c, "ok\n");
    } else {
        answer(c, "error unknown command\n");
    }
    return true;
}

static void on_conn(struct conn *c)
{
    char line[256];
    ssize_t n = read(c->fd, line, sizeof line - 1);
    if (n <= 0) {
        hang_up(c);
        return;
    }
    line[n] = '\0';
    if (command(c, line))
        hang_up(c);
}

static void on_accept(int lfd)
{
    int fd = accept4(lfd, NULL, NULL, SOCK_CLOEXEC);
    for (int i = 0; fd >= 0 && i < CONNS_MAX; i++)
        if (conns[i].fd < 0) {
            conns[i].fd = fd;
            return;
        }
    if (fd >= 0)
        close(fd);
}

static int listen_at(int type, const char *path, mode_t mode)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    snprintf(sa.sun_path, sizeof sa.sun_path, "%s", path);
    unlink(path);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 || chmod(path, mode) < 0)
        die(path);
    if (type == SOCK_STREAM && listen(fd, 16) < 0)
        die(path);
    return fd;
}

static int next_timeout(void)
{
    uint64_t now = now_ms(), at = halting ? halt_deadline_ms : UINT64_MAX;
    for (int i = 0; i < ndaemons; i++)
        if (daemons[i].start_at_ms && daemons[i].start_at_ms < at)
            at = daemons[i].start_at_ms;
    return at == UINT64_MAX ? -1 : at <= now ? 0 : (int)(at - now);
}

_Noreturn static void serve(int sig_fd, int ctl_fd, int notify_fd)
{
    for (int i = 0; i < CONNS_MAX; i++)
        conns[i].fd = -1;
    for (;;) {
        struct pollfd p[3 + CONNS_MAX] = { { sig_fd, POLLIN, 0 }, { ctl_fd, POLLIN, 0 }, { notify_fd, POLLIN, 0 } };
        for (int i = 0; i < CONNS_MAX; i++)
            p[3 + i] = (struct pollfd){ conns[i].fd, POLLIN, 0 };
        if (poll(p, 3 + CONNS_MAX, next_timeout()) < 0 && errno != EINTR)
            die("poll");
        struct signalfd_siginfo si;
        while (p[0].revents && read(sig_fd, &si, sizeof si) == sizeof si)
            if (si.ssi_signo == SIGTERM || si.ssi_signo == SIGINT)
                halting = true;
        /* Readiness first: a daemon may say READY and die before we look. */
        if (p[2].revents)
            on_notify(notify_fd);
        if (p[0].revents)
            reap();
        else if (halting && next_timeout() == 0)
            halt_step();
        for (int i = 0; !halting && i < ndaemons; i++)
            if (daemons[i].start_at_ms && daemons[i].start_at_ms <= now_ms())
                start_daemon(&daemons[i]);
        for (int i = 0; i < CONNS_MAX; i++)
            if (conns[i].fd >= 0 && conns[i].fd == p[3 + i].fd && p[3 + i].revents)
                on_conn(&conns[i]);
        if (p[1].revents)
            on_accept(ctl_fd);
    }
}

_Noreturn static void be_init(const char *dir, int up_fd)
{
    setsid();
    int log = open("log/init.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (log < 0 || null < 0)
        die("log/init.log");
    dup2(null, 0);
    dup2(log, 1);
    dup2(log, 2);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    make_mounts(dir);
    if (sethostname(hostname, strlen(hostname)) < 0)
        die("sethostname");
    loopback_up();
    int notify_fd = listen_at(SOCK_DGRAM, NOTIFY_PATH, 0666), one = 1;
    if (setsockopt(notify_fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof one) < 0)
        die("SO_PASSCRED");
    int sig_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (sig_fd < 0)
        die("signalfd");
    int ctl_fd = listen_at(SOCK_STREAM, "ctl", 0600);
    if (write(up_fd, "up", 2) != 2)
        die("tell the starter");
    close(up_fd);
    serve(sig_fd, ctl_fd, notify_fd);
}

int main(int argc, char **argv)
{
    if (argc != 2 || chdir(argv[1]) < 0) {
        fprintf(stderr, "usage: node_init DIR (started by tests/cluster)\n");
        return 2;
    }
    read_conf();
    unlink("ctl");
    if (unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP) < 0)
        die("unshare");
    int up[2];
    if (pipe2(up, O_CLOEXEC) < 0)
        die("pipe");
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0)
        be_init(argv[1], up[1]);
    close(up[1]);
    char word[2];
    if (read(up[0], word, 2) != 2) {
        fprintf(stderr, "node_init: the node did not come up: see %s/log/init.log\n", argv[1]);
        return 1;
    }
    printf("%d\n", pid);
    return 0;
}
