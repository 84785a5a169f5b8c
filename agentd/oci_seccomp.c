/*
 * oci_seccomp.c - the policy, and its compilation by libseccomp.
 *
 * The policy is the one that Docker documents as its default: an allow list; calls that only make sense with a
 * capability are allowed when the container has that capability; everything else gets EPERM, and clone3 gets ENOSYS
 * so that C libraries fall back to clone, whose flags can be looked at.
 */
#include "agentd/oci_seccomp.h"

#include <errno.h>
#include <jansson.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/util/base64.h"
#include "common/util/cleanup.h"

static const char *const cap_names[CAPABILITY_COUNT] = {
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
};

int capability_by_name(struct str name)
{
    for (int i = 0; i < CAPABILITY_COUNT; i++) {
        const char *n = cap_names[i];
        if ((name.n == strlen(n) && strncasecmp(name.p, n, name.n) == 0) ||
            (name.n == strlen(n) - 4 && strncasecmp(name.p, n + 4, name.n) == 0))
            return i;
    }
    return -1;
}

const char *capability_name(int cap)
{
    return cap >= 0 && cap < CAPABILITY_COUNT ? cap_names[cap] : NULL;
}

/* ---- the default policy: names by what they are for, separated by blanks ---- */

static const char *const allow_always[] = {
    /* files: open, read, write, position */
    "open openat openat2 creat close close_range read readv pread64 preadv preadv2 write writev pwrite64 pwritev "
    "pwritev2 lseek _llseek dup dup2 dup3 fcntl fcntl64 flock ioctl readahead sendfile sendfile64 copy_file_range "
    "splice tee vmsplice pipe pipe2 truncate truncate64 ftruncate ftruncate64 fallocate fadvise64 fadvise64_64 sync "
    "syncfs fsync fdatasync sync_file_range name_to_handle_at cachestat",
    /* files: names and attributes */
    "access faccessat faccessat2 stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx statfs statfs64 "
    "fstatfs fstatfs64 getdents getdents64 getcwd chdir fchdir mkdir mkdirat mknod mknodat rmdir link linkat unlink "
    "unlinkat symlink symlinkat readlink readlinkat rename renameat renameat2 chmod fchmod fchmodat fchmodat2 chown "
    "chown32 fchown fchown32 fchownat lchown lchown32 umask utime utimes futimesat utimensat utimensat_time64 getxattr "
    "lgetxattr fgetxattr setxattr lsetxattr fsetxattr listxattr llistxattr flistxattr removexattr lremovexattr "
    "fremovexattr inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark",
    /* waiting for descriptors, and asynchronous I/O */
    "select _newselect pselect6 pselect6_time64 poll ppoll ppoll_time64 epoll_create epoll_create1 epoll_ctl "
    "epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4 "
    "timerfd_create timerfd_settime timerfd_settime64 timerfd_gettime timerfd_gettime64 io_setup io_destroy io_submit "
    "io_cancel io_getevents io_pgetevents io_pgetevents_time64",
    /* memory */
    "brk mmap mmap2 munmap mremap mprotect madvise mincore msync mlock mlock2 mlockall munlock munlockall membarrier "
    "memfd_create memfd_secret remap_file_pages pkey_alloc pkey_free pkey_mprotect map_shadow_stack process_mrelease",
    /* processes, threads, identity */
    "fork vfork execve execveat exit exit_group wait4 waitid waitpid kill tkill tgkill pidfd_open pidfd_send_signal "
    "getpid getppid gettid getpgid setpgid getpgrp getsid setsid getuid getuid32 geteuid geteuid32 getgid getgid32 "
    "getegid getegid32 getresuid getresuid32 getresgid getresgid32 setuid setuid32 setgid setgid32 setreuid setreuid32 "
    "setregid setregid32 setresuid setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 getgroups "
    "getgroups32 setgroups setgroups32 capget capset prctl seccomp set_tid_address set_thread_area get_thread_area "
    "set_robust_list get_robust_list rseq landlock_create_ruleset landlock_add_rule landlock_restrict_self",
    /* signals */
    "rt_sigaction rt_sigprocmask rt_sigpending rt_sigqueueinfo rt_tgsigqueueinfo rt_sigreturn rt_sigsuspend "
    "rt_sigtimedwait rt_sigtimedwait_time64 sigaltstack sigprocmask sigreturn pause restart_syscall",
    /* scheduling, limits, accounting */
    "sched_yield sched_setaffinity sched_getaffinity sched_setparam sched_getparam sched_setscheduler "
    "sched_getscheduler sched_setattr sched_getattr sched_get_priority_max sched_get_priority_min "
    "sched_rr_get_interval sched_rr_get_interval_time64 getpriority setpriority ioprio_get ioprio_set getcpu getrlimit "
    "setrlimit ugetrlimit prlimit64 getrusage times sysinfo uname getrandom",
    /* time */
    "time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 clock_nanosleep "
    "clock_nanosleep_time64 clock_adjtime clock_adjtime64 adjtimex nanosleep alarm getitimer setitimer timer_create "
    "timer_delete timer_settime timer_settime64 timer_gettime timer_gettime64 timer_getoverrun",
    /* synchronisation and System V / POSIX inter-process communication */
    "futex futex_time64 futex_waitv futex_wake futex_wait futex_requeue ipc semget semop semctl semtimedop "
    "semtimedop_time64 shmget shmat shmdt shmctl msgget msgsnd msgrcv msgctl mq_open mq_unlink mq_getsetattr mq_notify "
    "mq_timedsend mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64",
    /* sockets; socket() itself has a rule of its own */
    "socketcall socketpair bind listen accept accept4 connect getsockname getpeername getsockopt setsockopt send "
    "sendto "
    "sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64 shutdown",
    /* tracing one's own children; safe since Linux 4.8 */
    "ptrace process_vm_readv process_vm_writev",
};

static const struct {
    int cap; /* bit number */
    const char *names;
} allow_with_cap[] = {
    { 2, "open_by_handle_at" },
    { 21,
      "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount "
      "open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare" },
    { 22, "reboot" },
    { 18, "chroot" },
    { 16, "delete_module init_module finit_module" },
    { 20, "acct" },
    { 19, "kcmp pidfd_getfd process_madvise" },
    { 17, "iopl ioperm" },
    { 25, "settimeofday stime clock_settime clock_settime64" },
    { 26, "vhangup" },
    { 23, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node" },
    { 34, "syslog" },
    { 39, "bpf" },
    { 38, "perf_event_open" },
};
#define CAP_SYS_ADMIN_BIT 21

/* new time, mount, uts, ipc, user, pid, net and cgroup namespaces */
#define CLONE_NAMESPACES 0x7E020000u

static void allow_names(scmp_filter_ctx ctx, const char *names)
{
    char name[64];
    for (const char *p = names; *p;) {
        size_t n = strcspn(p, " ");
        if (n > 0 && n < sizeof name) {
            memcpy(name, p, n);
            name[n] = '\0';
            int nr = seccomp_syscall_resolve_name(name);
            if (nr != __NR_SCMP_ERROR) /* older than the call: not known, so not allowed */
                (void)seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 0);
        }
        p += n + (p[n] == ' ');
    }
}

static void add_arches(scmp_filter_ctx ctx)
{
#if defined(__x86_64__)
    (void)seccomp_arch_add(ctx, SCMP_ARCH_X86);
    (void)seccomp_arch_add(ctx, SCMP_ARCH_X32);
#elif defined(__aarch64__)
    (void)seccomp_arch_add(ctx, SCMP_ARCH_ARM);
#endif
}

static int default_rules(scmp_filter_ctx ctx, uint64_t caps)
{
    static const unsigned long personalities[] = { 0x0, 0x8, 0x20000, 0x20008, 0xffffffff };
    for (size_t i = 0; i < sizeof allow_always / sizeof allow_always[0]; i++)
        allow_names(ctx, allow_always[i]);
    for (size_t i = 0; i < sizeof allow_with_cap / sizeof allow_with_cap[0]; i++)
        if (caps & (1ull << allow_with_cap[i].cap))
            allow_names(ctx, allow_with_cap[i].names);
#if defined(__x86_64__)
    allow_names(ctx, "arch_prctl modify_ldt");
#elif defined(__aarch64__)
    allow_names(ctx, "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls");
#endif
    int r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_NE, AF_VSOCK));
    for (size_t i = 0; r == 0 && i < sizeof personalities / sizeof personalities[0]; i++)
        r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(personality), 1, SCMP_A0(SCMP_CMP_EQ, personalities[i]));
    if (r == 0 && !(caps & (1ull << CAP_SYS_ADMIN_BIT))) {
        r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_NAMESPACES, 0));
        if (r == 0)
            r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    }
    return r;
}

/* the compiled program as base64, appended */
static int export_b64(scmp_filter_ctx ctx, struct buf *b64, struct err *e)
{
    _cleanup_(closep) int fd = memfd_create("seccomp", MFD_CLOEXEC);
    if (fd < 0)
        return err_errno(e, errno, "seccomp: memfd");
    (void)seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a binary tree: fewer steps in each call */
    int r = seccomp_export_bpf(ctx, fd);
    if (r < 0)
        return err_errno(e, -r, "seccomp: compile");
    off_t n = lseek(fd, 0, SEEK_END);
    if (n <= 0 || n > 1 << 20)
        return err_set(e, ERR_INTERNAL, "seccomp: program of %lld bytes", (long long)n);
    _cleanup_(freep) unsigned char *p = malloc((size_t)n);
    if (!p || pread(fd, p, (size_t)n, 0) != n)
        return err_set(e, ERR_IO, "seccomp: read program");
    base64_put(b64, (struct str){ (const char *)p, (size_t)n });
    return b64->failed ? err_set(e, ERR_NOMEM, "seccomp: out of memory") : 0;
}

static struct {
    uint64_t caps;
    struct buf b64;
} cache[16];
static size_t ncache;

int seccomp_default(uint64_t caps, struct str *ret, struct err *e)
{
    uint64_t relevant = 0;
    for (size_t i = 0; i < sizeof allow_with_cap / sizeof allow_with_cap[0]; i++)
        relevant |= 1ull << allow_with_cap[i].cap;
    caps &= relevant;
    for (size_t i = 0; i < ncache; i++) {
        if (cache[i].caps == caps) {
            *ret = buf_str(&cache[i].b64);
            return 0;
        }
    }
    size_t slot = ncache < sizeof cache / sizeof cache[0] ? ncache : ncache - 1; /* full: the newest makes room */
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (!ctx)
        return err_set(e, ERR_NOMEM, "seccomp: out of memory");
    add_arches(ctx);
    buf_clear(&cache[slot].b64);
    int r = default_rules(ctx, caps);
    r = r < 0 ? err_errno(e, -r, "seccomp: default policy") : export_b64(ctx, &cache[slot].b64, e);
    seccomp_release(ctx);
    if (r < 0)
        return r;
    cache[slot].caps = caps;
    ncache = slot + 1;
    *ret = buf_str(&cache[slot].b64);
    return 0;
}

void seccomp_forget(void)
{
    for (size_t i = 0; i < ncache; i++)
        buf_done(&cache[i].b64);
    ncache = 0;
}

/* ---- custom policies ---- */

static int action_of(const char *name, int err_ret, uint32_t *ret)
{
    const struct {
        const char *name;
        uint32_t act;
    } t[] = {
        { "SCMP_ACT_ALLOW", SCMP_ACT_ALLOW },
        { "SCMP_ACT_ERRNO", SCMP_ACT_ERRNO((uint16_t)err_ret) },
        { "SCMP_ACT_KILL", SCMP_ACT_KILL_THREAD },
        { "SCMP_ACT_KILL_THREAD", SCMP_ACT_KILL_THREAD },
        { "SCMP_ACT_KILL_PROCESS", SCMP_ACT_KILL_PROCESS },
        { "SCMP_ACT_TRAP", SCMP_ACT_TRAP },
        { "SCMP_ACT_LOG", SCMP_ACT_LOG },
        { "SCMP_ACT_TRACE", SCMP_ACT_TRACE((uint16_t)err_ret) },
    };
    for (size_t i = 0; name && i < sizeof t / sizeof t[0]; i++) {
        if (strcmp(name, t[i].name) == 0) {
            *ret = t[i].act;
            return 0;
        }
    }
    return -1;
}

static int compare_of(const char *name)
{
    static const struct {
        const char *name;
        int op;
    } t[] = {
        { "SCMP_CMP_NE", SCMP_CMP_NE },
        { "SCMP_CMP_LT", SCMP_CMP_LT },
        { "SCMP_CMP_LE", SCMP_CMP_LE },
        { "SCMP_CMP_EQ", SCMP_CMP_EQ },
        { "SCMP_CMP_GE", SCMP_CMP_GE },
        { "SCMP_CMP_GT", SCMP_CMP_GT },
        { "SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ },
    };
    for (size_t i = 0; name && i < sizeof t / sizeof t[0]; i++)
        if (strcmp(name, t[i].name) == 0)
            return t[i].op;
    return -1;
}

/* whether a filter {"caps": [...], "arches": [...]} holds; @all: every capability listed, else any one */
static bool names_hold(json_t *filter, uint64_t caps, bool all)
{
    static const char *const arch =
#if defined(__aarch64__)
        "arm64";
#else
        "amd64";
#endif
    size_t i;
    json_t *v, *arches = json_object_get(filter, "arches");
    bool arch_hit = false, cap_hit = false;
    json_array_foreach (arches, i, v)
        arch_hit |= json_is_string(v) && strcmp(json_string_value(v), arch) == 0;
    json_array_foreach (json_object_get(filter, "caps"), i, v) {
        int c = json_is_string(v) ? capability_by_name(str_from(json_string_value(v))) : -1;
        bool have = c >= 0 && (caps & (1ull << c));
        if (all && !have)
            return false;
        cap_hit |= have;
    }
    return all ? json_array_size(arches) == 0 || arch_hit : arch_hit || cap_hit;
}

static int custom_args(json_t *args, struct scmp_arg_cmp out[6], unsigned *ret_n, struct err *e)
{
    size_t i;
    json_t *a;
    *ret_n = 0;
    json_array_foreach (args, i, a) {
        int op = compare_of(json_string_value(json_object_get(a, "op")));
        json_int_t idx = json_integer_value(json_object_get(a, "index"));
        if (op < 0 || idx < 0 || idx > 5 || *ret_n == 6)
            return err_set(e, ERR_INVALID, "seccomp profile: bad argument condition %zu", i);
        uint64_t v = (uint64_t)json_integer_value(json_object_get(a, "value"));
        uint64_t v2 = (uint64_t)json_integer_value(json_object_get(a, "valueTwo"));
        out[(*ret_n)++] =
            (struct scmp_arg_cmp){ .arg = (unsigned)idx, .op = (enum scmp_compare)op, .datum_a = v, .datum_b = v2 };
    }
    return 0;
}

static int custom_rule(scmp_filter_ctx ctx, json_t *rule, uint64_t caps, uint32_t def, struct err *e)
{
    struct scmp_arg_cmp args[6];
    unsigned nargs;
    uint32_t act;
    json_t *er = json_object_get(rule, "errnoRet"), *v, *names = json_object_get(rule, "names");
    json_t *inc = json_object_get(rule, "includes"), *exc = json_object_get(rule, "excludes");
    if ((json_object_size(inc) && !names_hold(inc, caps, true)) ||
        (json_object_size(exc) && names_hold(exc, caps, false)))
        return 0;
    const char *action = json_string_value(json_object_get(rule, "action"));
    if (action_of(action, json_is_integer(er) ? (int)json_integer_value(er) : EPERM, &act) < 0)
        return err_set(e, ERR_INVALID, "seccomp profile: unknown action \"%s\"", action ? action : "");
    int r = custom_args(json_object_get(rule, "args"), args, &nargs, e);
    size_t i;
    if (r < 0 || act == def)
        return r;
    json_array_foreach (names, i, v) {
        int nr = json_is_string(v) ? seccomp_syscall_resolve_name(json_string_value(v)) : __NR_SCMP_ERROR;
        if (nr != __NR_SCMP_ERROR && (r = seccomp_rule_add_array(ctx, act, nr, nargs, args)) < 0)
            return err_errno(e, -r, "seccomp profile: rule for %s", json_string_value(v));
    }
    return 0;
}

int seccomp_custom(struct str json, uint64_t caps, struct buf *b64, struct err *e)
{
    json_error_t je;
    uint32_t def = 0;
    json_t *root = json_loadb(json.p, json.n, JSON_REJECT_DUPLICATES, &je);
    if (!root)
        return err_set(e, ERR_INVALID, "decoding seccomp profile failed: %s (line %d)", je.text, je.line);
    json_t *er = json_object_get(root, "defaultErrnoRet"), *rule;
    const char *action = json_string_value(json_object_get(root, "defaultAction"));
    scmp_filter_ctx ctx = NULL;
    size_t i;
    int r = 0;
    if (action_of(action, json_is_integer(er) ? (int)json_integer_value(er) : EPERM, &def) < 0)
        r = err_set(e, ERR_INVALID, "seccomp profile: unknown default action \"%s\"", action ? action : "");
    else if (!(ctx = seccomp_init(def)))
        r = err_set(e, ERR_NOMEM, "seccomp: out of memory");
    if (r == 0) {
        add_arches(ctx);
        json_array_foreach (json_object_get(root, "syscalls"), i, rule) {
            if ((r = custom_rule(ctx, rule, caps, def, e)) < 0)
                break;
        }
        if (r == 0)
            r = export_b64(ctx, b64, e);
    }
    if (ctx)
        seccomp_release(ctx);
    json_decref(root);
    return r;
}
