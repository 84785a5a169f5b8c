#include "common/daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "common/daemon/probe.h"
#include "common/util/check.h"
#include "common/util/cleanup.h"
#include "common/util/clock.h"

#define CONF_FILE_MAX (1u << 20)
#define STOP_PATIENCE_US 500000 /* for releasing things, after the last request */
DEFINE_CLEANUP(FILE *, fclose)

#define TIDY_BYTES (256u << 10) /* of free memory in the heap: not worth a call below */
#define TIDY_FIRST_MS 10000u
#define TIDY_EVERY_MS 300000u
#define TIDY_BURST_MS 5000u

static struct {
    const struct daemon_spec *spec;
    sd_event *loop;
    struct rpc_server *server;
    struct probe_server *probe;
    struct timer *tidy;
    char run_dir[CONF_TEXT_MAX], state_dir[CONF_TEXT_MAX], log_level[CONF_TEXT_MAX];
    bool stopping;
} self;

/* Who the daemons of a host run as: that is how they know each other. */
enum {
    D_AGENTD,
    D_ALLOCATORD,
    D_APID,
    D_CAD,
    D_DISPATCHERD,
    D_GATEWAYD,
    D_MESHD,
    D_ORCHESTRATORD,
    D_RAFTD,
    D_SCHEDULERD
};
static uid_t user[D_SCHEDULERD + 1];

#define USER(i, name, who)                                                                                             \
    CONF_UID("user_" name, &user[i], who, "the user that " name " runs as: so the other daemons know it")

static const struct conf_item common_conf[] = {
    CONF_TEXT("run_dir", self.run_dir, RUN_DIR_DEFAULT, "sockets, probes and the state map"),
    CONF_TEXT("state_dir", self.state_dir, STATE_DIR_DEFAULT, "what survives a reboot"),
    CONF_TEXT("log_level", self.log_level, "info", "debug, info, warn or error"),
    USER(D_AGENTD, "agentd", "root"),
    USER(D_ALLOCATORD, "allocatord", "microswarm-allocatord"),
    USER(D_APID, "apid", "microswarm-apid"),
    USER(D_CAD, "cad", "microswarm-cad"),
    USER(D_DISPATCHERD, "dispatcherd", "microswarm-dispatcherd"),
    USER(D_GATEWAYD, "gatewayd", "microswarm-gatewayd"),
    USER(D_MESHD, "meshd", "root"),
    USER(D_ORCHESTRATORD, "orchestratord", "microswarm-orchestratord"),
    USER(D_RAFTD, "raftd", "microswarm-raftd"),
    USER(D_SCHEDULERD, "schedulerd", "microswarm-schedulerd"),
    CONF_END,
};

sd_event *daemon_loop(void)
{
    return self.loop;
}

const char *daemon_run_dir(void)
{
    return self.run_dir;
}

uid_t daemon_user(const char *daemon)
{
    for (const struct conf_item *it = common_conf; it->name; it++) {
        if (it->type == CONF_T_UID && strcmp(it->name + strlen("user_"), daemon) == 0)
            return *(const uid_t *)it->target;
    }
    return (uid_t)-1;
}

const char *daemon_state_dir(void)
{
    return self.state_dir;
}

void daemon_exit(int code)
{
    sd_event_exit(self.loop, code);
}

void daemon_busy(void)
{
    static uint64_t told_ms;
    uint64_t now = clock_mono().ms;
    if (now - told_ms < 1000)
        return;
    told_ms = now;
    sd_notify(0, "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=60000000");
}

static int on_terminate(sd_event_source *s, const struct signalfd_siginfo *si, void *arg)
{
    (void)s;
    (void)arg;
    bool again = self.stopping;
    self.stopping = true;
    if (!again) {
        log_info("stopping signal=%u", si->ssi_signo);
        sd_notify(0, "STOPPING=1");
    }
    if (again || !self.spec->drain || !self.spec->drain())
        sd_event_exit(self.loop, 0);
    return 0;
}

struct timer {
    sd_event_source *source;
    timer_fn *fn;
    void *arg;
};

static int on_timer(sd_event_source *s, uint64_t usec, void *arg)
{
    struct timer *t = arg;
    (void)s;
    (void)usec;
    t->fn(t->arg); /* one-shot: sd-event has switched the source off; fn may arm it again or free it */
    return 0;
}

int timer_open(struct timer **ret, timer_fn *fn, void *arg, struct err *e)
{
    struct timer *t = calloc(1, sizeof *t);
    CHECK(t != NULL);
    t->fn = fn;
    t->arg = arg;
    int r = sd_event_add_time(self.loop, &t->source, CLOCK_MONOTONIC, UINT64_MAX, 1, on_timer, t);
    if (r >= 0)
        r = sd_event_source_set_enabled(t->source, SD_EVENT_OFF);
    if (r < 0) {
        timer_free(t);
        return err_errno(e, -r, "add timer");
    }
    *ret = t;
    return 0;
}

void timer_arm(struct timer *t, uint64_t at_mono_ms)
{
    if (at_mono_ms == UINT64_MAX) {
        sd_event_source_set_enabled(t->source, SD_EVENT_OFF);
        return;
    }
    sd_event_source_set_time(t->source, at_mono_ms * 1000u);
    sd_event_source_set_enabled(t->source, SD_EVENT_ONESHOT);
}

struct timer *timer_free(struct timer *t)
{
    if (t) {
        sd_event_source_disable_unref(t->source);
        free(t);
    }
    return NULL;
}

/* ---- starting ---- */

static void print_help(const struct daemon_spec *spec)
{
    printf("Usage: %s [-c FILE] [-r RUN_DIR] [-s STATE_DIR] [-o NAME=VALUE]... [-n] [-V] [-h]\n\nSettings:\n",
           spec->name);
    for (int k = 0; k < 2; k++) {
        for (const struct conf_item *it = k ? spec->conf : common_conf; it && it->name; it++)
            printf("  %-28s %s (default: %s)\n", it->name, it->help ? it->help : "", it->def);
    }
    printf("\nProbe commands (nngcat --req0 --dial ipc://%s/%s.probe --data COMMAND --ascii):\n", RUN_DIR_DEFAULT,
           spec->name);
    printf("  help, version, status, metrics, log LEVEL\n");
    for (const struct probe *p = spec->probes; p && p->name; p++)
        printf("  %s %s: %s\n", p->name, p->args_help ? p->args_help : "", p->help);
}

static int read_conf_file(const char *path, bool must_exist, struct err *e)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT && !must_exist ? 0 : err_errno(e, errno, "open %s", path);
    _cleanup_(freep) char *text = malloc(CONF_FILE_MAX);
    CHECK(text != NULL);
    ssize_t n = read(fd, text, CONF_FILE_MAX);
    if (n < 0)
        return err_errno(e, errno, "read %s", path);
    if (n == CONF_FILE_MAX)
        return err_set(e, ERR_TOO_BIG, "%s: larger than 1 MiB", path);
    int r = conf_parse(self.spec->conf, common_conf, text, (size_t)n, e);
    return r < 0 ? err_wrap(e, "%s", path) : 0;
}

static int set_option(const char *arg, struct err *e)
{
    return conf_parse(self.spec->conf, common_conf, arg, strlen(arg), e) < 0 ? err_wrap(e, "-o") : 0;
}

struct flags {
    const char *conf_file, *run_dir, *state_dir, *options[64];
    size_t noptions;
    bool check_only;
};

/* 0 to go on, 1 to leave with success, negative for a usage error. */
static int parse_flags(int argc, char **argv, struct flags *f)
{
    int c;
    while ((c = getopt(argc, argv, "c:r:s:o:nVh")) != -1) {
        switch (c) {
        case 'c':
            f->conf_file = optarg;
            break;
        case 'r':
            f->run_dir = optarg;
            break;
        case 's':
            f->state_dir = optarg;
            break;
        case 'o':
            if (f->noptions == sizeof f->options / sizeof *f->options)
                return -1;
            CHECK(optarg != NULL); /* the ":" says so */
            f->options[f->noptions++] = optarg;
            break;
        case 'n':
            f->check_only = true;
            break;
        case 'V':
            printf("%s %s\n", self.spec->name, MICROSWARM_VERSION);
            return 1;
        case 'h':
            print_help(self.spec);
            return 1;
        default:
            return -1;
        }
    }
    return optind == argc ? 0 : -1;
}

static int configure(const struct flags *f, struct err *e)
{
    char path[256];
    int r = 0;
    conf_defaults(common_conf);
    conf_defaults(self.spec->conf);
    snprintf(path, sizeof path, CONF_DIR_DEFAULT "/%s.conf", self.spec->name);
    r = read_conf_file(f->conf_file ? f->conf_file : path, f->conf_file != NULL, e);
    if (r == 0 && f->run_dir)
        r = conf_set(common_conf, "run_dir", f->run_dir, e);
    if (r == 0 && f->state_dir)
        r = conf_set(common_conf, "state_dir", f->state_dir, e);
    for (size_t i = 0; r == 0 && i < f->noptions; i++)
        r = set_option(f->options[i], e);
    if (r == 0 && log_set_level(self.log_level) < 0)
        r = err_set(e, ERR_INVALID, "log_level: \"%s\": must be debug, info, warn or error", self.log_level);
    return r;
}

/*
 * One instance per run folder. The lock is the process's own (fcntl): it ends with it, even while a child between fork
 * and exec still holds our old sockets open. So whoever has the lock may remove the sockets of the one before, instead
 * of asking them whether somebody listens.
 */
static int take_over(struct err *e)
{
    static const char *const ours[] = { "sock", "probe", "wake", "events", "peers" };
    struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    char path[CONF_TEXT_MAX + 64];
    snprintf(path, sizeof path, "%s/%s.lock", self.run_dir, self.spec->name);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600); /* stays open as long as we live */
    if (fd < 0)
        return err_errno(e, errno, "open %s", path);
    if (fcntl(fd, F_SETLK, &fl) < 0) {
        int saved = errno;
        close(fd);
        return err_set(e, ERR_CONFLICT, "%s: %s", path,
                       saved == EACCES || saved == EAGAIN ? "another instance is running" : strerror(saved));
    }
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
        snprintf(path, sizeof path, "%s/%s.%s", self.run_dir, self.spec->name, ours[i]);
        if (unlink(path) < 0 && errno != ENOENT)
            return err_errno(e, errno, "remove the old %s", path);
    }
    return 0;
}

static int open_loop(struct err *e)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL); /* before nng makes its threads, which inherit it */
    signal(SIGPIPE, SIG_IGN);
    int r = sd_event_default(&self.loop);
    if (r >= 0)
        r = sd_event_add_signal(self.loop, NULL, SIGTERM, on_terminate, NULL);
    if (r >= 0)
        r = sd_event_add_signal(self.loop, NULL, SIGINT, on_terminate, NULL);
    if (r >= 0)
        r = sd_event_set_watchdog(self.loop, true);
    return r < 0 ? err_errno(e, -r, "make event loop") : 0;
}

/*
 * nng 1.5.2's nng_close() now and then waits for ever for a task of its own that nobody runs any more (its reaper
 * thread then sits in nni_task_wait). By then nothing is left to be kept: what was acknowledged is durable.
 */
static void leave_now(int sig)
{
    static const char text[] = "<4>leaving without closing everything: it took too long\n";
    (void)sig;
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
        _exit(0);
    _exit(0);
}

/*
 * Code and constants that only starting needed: they stay in the page cache as they were, but no longer count as this
 * process's, and what is called is mapped again. Not the parts of files that were written to (relocations).
 */
static void unmap_unused(void)
{
    _cleanup_(fclosep) FILE *f = fopen("/proc/self/smaps", "re");
    unsigned long start, end, kb, from = 0, to = 0;
    char line[512], perms[5];
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "%lx-%lx %4s", &start, &end, perms) == 3) {
            bool file = strchr(line, '/') && (strcmp(perms, "r-xp") == 0 || strcmp(perms, "r--p") == 0);
            from = file ? start : 0;
            to = end;
        } else if (from && sscanf(line, "Anonymous: %lu kB", &kb) == 1) {
            if (kb == 0)
                (void)madvise((void *)from, to - from, MADV_DONTNEED); // NOLINT(performance-no-int-to-ptr)
            from = 0;
        }
    }
}

static void tidy(void *arg)
{
    static bool started;
    (void)arg;
    struct mallinfo2 m = mallinfo2();
    if (m.fordblks > TIDY_BYTES)
        malloc_trim(0);
    if (!started)
        unmap_unused();
    started = true;
    timer_arm(self.tidy, clock_mono().ms + TIDY_EVERY_MS);
}

void daemon_burst(void)
{
    if (self.tidy)
        timer_arm(self.tidy, clock_mono().ms + TIDY_BURST_MS);
}

/* What starting needed, and later a burst, lies in holes of the heap until the system has it again. */
static void keep_tidy(void)
{
    struct err e = ERR_INIT;
    malloc_trim(0);
    if (timer_open(&self.tidy, tidy, NULL, &e) < 0)
        log_warn("%s", e.msg);
    else
        timer_arm(self.tidy, clock_mono().ms + TIDY_FIRST_MS);
}

static int run(struct err *e)
{
    const struct daemon_spec *spec = self.spec;
    int r = take_over(e);
    rpc_client_users(daemon_user);
    if (r == 0)
        r = open_loop(e);
    if (r == 0)
        r = probe_open(&self.probe, self.loop, self.run_dir, spec, e);
    if (r == 0 && spec->start)
        r = spec->start(e);
    if (r == 0 && spec->routes)
        r = rpc_server_open(&self.server, self.loop, self.run_dir, spec->name, spec->routes, spec->max_calls, e);
    if (r < 0)
        return err_wrap(e, "start %s", spec->name);
    if (self.server) {
        rpc_server_gateway(self.server, daemon_user("gatewayd"));
        rpc_server_relay(self.server, spec->relay);
    }
    log_info("ready version=%s pid=%d", MICROSWARM_VERSION, (int)getpid());
    sd_notify(0, "READY=1");
    keep_tidy();
    r = sd_event_loop(self.loop);
    sd_notify(0, "STOPPING=1");
    signal(SIGALRM, leave_now);
    setitimer(ITIMER_REAL, &(struct itimerval){ .it_value.tv_usec = STOP_PATIENCE_US }, NULL);
    self.server = rpc_server_free(self.server);
    if (spec->stop)
        spec->stop();
    self.probe = probe_close(self.probe);
    self.tidy = timer_free(self.tidy);
    setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, NULL);
    self.loop = sd_event_unref(self.loop);
    return r < 0 ? err_errno(e, -r, "event loop") : r;
}

/*
 * First of all: the C library raises its limit for large blocks with each one that is freed, and what then lies among
 * the small ones is never given back; nor are their pages left untouched until they are used.
 */
static void thrifty(void)
{
    mallopt(M_ARENA_MAX, 1); /* nng's threads allocate little: one heap instead of one each */
    mallopt(M_TRIM_THRESHOLD, 256 << 10);
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
}

int daemon_main(int argc, char **argv, const struct daemon_spec *spec)
{
    struct flags f = { 0 };
    struct err e = ERR_INIT;
    self.spec = spec;
    thrifty();
    log_init(spec->name);
    int r = parse_flags(argc, argv, &f);
    if (r != 0) {
        if (r < 0)
            fprintf(stderr, "%s: try %s -h\n", spec->name, spec->name);
        return r < 0 ? 2 : 0;
    }
    if (configure(&f, &e) < 0) {
        log_msg(LOG_L_FATAL, "%s", e.msg);
        return 2;
    }
    if (f.check_only)
        return 0;
#ifndef __SANITIZE_ADDRESS__
    prctl(PR_SET_DUMPABLE, 0); /* keys and secrets stay out of core files and of other processes' reach */
#endif
    r = run(&e);
    if (r < 0) {
        log_msg(LOG_L_FATAL, "%s", e.msg);
        sd_notifyf(0, "STATUS=%s\nERRNO=%d", e.msg, EIO);
        return 1;
    }
    log_info("stopped");
    return r;
}
