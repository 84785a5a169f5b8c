/* proc.c - see proc.h. */
#include "agentd/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/util/cleanup.h"

struct proc {
    pid_t pid;
    int pidfd, out_fd, err_fd;
    sd_event_source *source;
    proc_done_fn *done;
    void *arg;
};

int pidfd_of(pid_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? -errno : fd;
}

pid_t proc_pid(const struct proc *p)
{
    return p->pid;
}

struct proc *proc_free(struct proc *p)
{
    if (!p)
        return NULL;
    if (p->pid > 0) {
        kill(p->pid, SIGKILL);
        waitpid(p->pid, NULL, 0);
    }
    sd_event_source_disable_unref(p->source);
    closep(&p->pidfd);
    closep(&p->out_fd);
    closep(&p->err_fd);
    free(p);
    return NULL;
}
DEFINE_CLEANUP(struct proc *, proc_free)

void proc_kill(struct proc *p)
{
    if (p->pid > 0)
        kill(p->pid, SIGKILL);
}

static struct str map_output(int fd, void **ret_map, size_t *ret_len)
{
    struct stat st;
    *ret_map = NULL;
    *ret_len = 0;
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size == 0)
        return (struct str){ "", 0 };
    size_t n = st.st_size > (off_t)PROC_OUT_MAX ? PROC_OUT_MAX : (size_t)st.st_size;
    void *m = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);
    if (m == MAP_FAILED)
        return (struct str){ "", 0 };
    *ret_map = m;
    *ret_len = n;
    return (struct str){ m, n };
}

static int on_exit_event(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
    struct proc *p = userdata;
    int status = 0;
    void *m1, *m2;
    size_t n1, n2;
    (void)s;
    (void)fd;
    (void)revents;
    if (waitpid(p->pid, &status, WNOHANG) == 0)
        return 0;
    p->pid = 0;
    struct str out = map_output(p->out_fd, &m1, &n1), err = map_output(p->err_fd, &m2, &n2);
    proc_done_fn *done = p->done;
    void *arg = p->arg;
    proc_free(p);
    done(arg, status, out, err);
    if (m1)
        munmap(m1, n1);
    if (m2)
        munmap(m2, n2);
    return 0;
}

static int input_fd(struct str input)
{
    if (input.n == 0)
        return open("/dev/null", O_RDONLY | O_CLOEXEC);
    int fd = memfd_create("stdin", MFD_CLOEXEC);
    for (size_t off = 0; fd >= 0 && off < input.n;) {
        ssize_t n = write(fd, input.p + off, input.n - off);
        if (n <= 0) {
            close(fd);
            return -1;
        }
        off += (size_t)n;
    }
    if (fd >= 0)
        lseek(fd, 0, SEEK_SET);
    return fd;
}

static int spawn(struct proc *p, const struct proc_spec *spec, int in_fd)
{
    static const char *const path_env[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL };
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t at;
    sigset_t none, all;
    int spare[4];
    size_t n = 0;
    posix_spawn_file_actions_init(&fa);
    posix_spawnattr_init(&at);
    sigemptyset(&none);
    /* not sigfillset(): it leaves out the C library's own 32 and 33, and posix_spawn() then has the program, and so
     * every container, ignore them */
    memset(&all, 0xff, sizeof all);
    posix_spawnattr_setsigmask(&at, &none);
    posix_spawnattr_setsigdefault(&at, &all);
    posix_spawnattr_setflags(&at, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    if (spec->dir)
        posix_spawn_file_actions_addchdir_np(&fa, spec->dir);
    posix_spawn_file_actions_adddup2(&fa, in_fd, 0);
    posix_spawn_file_actions_adddup2(&fa, p->out_fd, 1);
    posix_spawn_file_actions_adddup2(&fa, p->err_fd, 2);
    /* a copy above all targets first: the targets 3.. may be in use by one of the sources */
    for (; n < 4 && spec->keep_fds[n] > 0; n++) {
        spare[n] = fcntl(spec->keep_fds[n], F_DUPFD_CLOEXEC, 64);
        posix_spawn_file_actions_adddup2(&fa, spare[n], 3 + (int)n);
    }
    int r = posix_spawn(&p->pid, spec->argv[0], &fa, &at, (char *const *)(uintptr_t)spec->argv,
                        (char *const *)(uintptr_t)(spec->env ? spec->env : path_env));
    while (n > 0)
        close(spare[--n]);
    posix_spawnattr_destroy(&at);
    posix_spawn_file_actions_destroy(&fa);
    return r;
}

int proc_start(struct proc **ret, sd_event *loop, const struct proc_spec *spec, proc_done_fn *done, void *arg,
               struct err *e)
{
    _cleanup_(proc_freep) struct proc *p = calloc(1, sizeof *p);
    if (!p)
        return err_set(e, ERR_NOMEM, "run %s: out of memory", spec->argv[0]);
    p->pidfd = p->out_fd = p->err_fd = -1;
    p->done = done;
    p->arg = arg;
    p->out_fd = spec->out_fd > 0 ? fcntl(spec->out_fd, F_DUPFD_CLOEXEC, 3) : memfd_create("stdout", MFD_CLOEXEC);
    p->err_fd = spec->out_fd > 0 ? fcntl(spec->out_fd, F_DUPFD_CLOEXEC, 3) : memfd_create("stderr", MFD_CLOEXEC);
    _cleanup_(closep) int in_fd = input_fd(spec->input);
    if (p->out_fd < 0 || p->err_fd < 0 || in_fd < 0)
        /* cppcheck-suppress memleak */
        /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): p is freed */
        return err_errno(e, errno, "run %s: memory file", spec->argv[0]);
    int r = spawn(p, spec, in_fd);
    if (r != 0) {
        p->pid = 0;
        return err_errno(e, r, "run %s", spec->argv[0]);
    }
    if (spec->out_fd > 0) {
        close(TAKE_FD(p->out_fd));
        close(TAKE_FD(p->err_fd));
    }
    p->pidfd = pidfd_of(p->pid);
    if (p->pidfd < 0)
        return err_errno(e, -p->pidfd, "run %s: pidfd", spec->argv[0]);
    r = sd_event_add_io(loop, &p->source, p->pidfd, EPOLLIN, on_exit_event, p);
    if (r < 0)
        return err_errno(e, -r, "run %s: watch", spec->argv[0]);
    *ret = TAKE(p);
    return 0;
}
