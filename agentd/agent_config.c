/* agent_config.c - the files that a container starts from: config.json, hosts, hostname, resolv.conf. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agentd/agent_run.h"
#include "agentd/fsutil.h"
#include "agentd/oci_seccomp.h"
#include "agentd/oci_spec.h"
#include "common/util/cleanup.h"

static int mkdir_inside(int root, const char *path, struct err *e)
{
    struct open_how how = { .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                            .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
    char part[4097];
    size_t len = strlen(path);
    if (len >= sizeof part)
        return err_set(e, ERR_INVALID, "working directory is too long");
    for (size_t i = 1; i <= len; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        int fd = (int)syscall(SYS_openat2, root, part, &how, sizeof how);
        if (fd >= 0) {
            close(fd);
        } else if (errno == ENOENT) {
            char *slash = strrchr(part, '/');
            *slash = '\0';
            fd = (int)syscall(SYS_openat2, root, slash == part ? "/" : part, &how, sizeof how);
            int r = fd < 0 ? -errno : mkdirat(fd, slash + 1, 0755) < 0 && errno != EEXIST ? -errno : 0;
            closep(&fd);
            if (r < 0)
                return err_errno(e, -r, "make working directory %.200s", path);
        } else {
            return err_errno(e, errno, "working directory %.200s", path);
        }
    }
    return 0;
}

/* What Docker puts into every container's own layer: programs know a container by /.dockerenv, and df needs mtab. */
static int docker_files(int root, struct err *e)
{
    struct open_how how = { .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                            .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
    int r = mkdir_inside(root, "/etc", e);
    if (r < 0)
        return r;
    _cleanup_(closep) int env = openat(root, ".dockerenv", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0755);
    if (env < 0 && errno != EEXIST)
        return err_errno(e, errno, "make /.dockerenv");
    _cleanup_(closep) int etc = (int)syscall(SYS_openat2, root, "/etc", &how, sizeof how);
    if (etc < 0 || (symlinkat("/proc/mounts", etc, "mtab") < 0 && errno != EEXIST))
        return err_errno(e, errno, "make /etc/mtab");
    return 0;
}

static void hosts_text(struct atask *t, struct str hostname, struct buf *b)
{
    const struct tspec_container *c = t->spec.ContainerSpec;
    buf_puts(b, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n"
                "ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n");
    for (size_t i = 0; i < c->Hosts.n; i++) { /* "IP host [alias...]" */
        const char *sp = c->Hosts.v[i].n ? memchr(c->Hosts.v[i].p, ' ', c->Hosts.v[i].n) : NULL;
        size_t n = sp ? (size_t)(sp - c->Hosts.v[i].p) : 0;
        if (sp && !memchr(c->Hosts.v[i].p, '\n', c->Hosts.v[i].n))
            buf_printf(b, "%.*s\t%.*s\n", (int)n, c->Hosts.v[i].p, (int)(c->Hosts.v[i].n - n - 1), sp + 1);
    }
    for (size_t i = 0; i < t->addresses.n; i++) {
        struct str a = t->addresses.v[i];
        const char *slash = a.n ? memchr(a.p, '/', a.n) : NULL;
        const char *dot = memchr(hostname.p, '.', hostname.n);
        buf_printf(b, "%.*s\t" STR_FMT, (int)(slash ? slash - a.p : (ptrdiff_t)a.n), a.p, STR_ARG(hostname));
        if (dot > hostname.p) /* of a full name, the first part is one, too */
            buf_printf(b, " %.*s", (int)(dot - hostname.p), hostname.p);
        buf_putc(b, '\n');
    }
}

static int seccomp_of(struct atask *t, uint64_t caps, struct str *ret, struct err *e)
{
    const struct tspec_privileges *p = t->spec.ContainerSpec->Privileges;
    struct str mode = p && p->Seccomp ? p->Seccomp->Mode : (struct str){ 0, 0 }, json;
    if (str_is(mode, "unconfined")) {
        *ret = (struct str){ 0, 0 };
        return 0;
    }
    if (!p || !p->Seccomp || !str_is(mode, "custom"))
        return seccomp_default(caps, ret, e);
    struct mp_cursor c = mp_cursor(p->Seccomp->Profile);
    struct mp_val v;
    if (mp_next(&c, &v) < 0 || (v.type != MP_BIN && v.type != MP_STR))
        return err_set(e, ERR_INVALID, "custom seccomp mode needs a profile");
    json = v.s;
    _cleanup_(buf_done) struct buf b64 = BUF_INIT;
    int r = seccomp_custom(json, caps, &b64, e);
    if (r == 0)
        *ret = arena_str(&t->run, buf_str(&b64));
    return r;
}

static int write_files(struct atask *t, struct oci_in *in, struct err *e)
{
    static const char *const names[] = { "hosts", "hostname", "resolv.conf" };
    _cleanup_(buf_done) struct buf hosts = BUF_INIT, name = BUF_INIT;
    const char **paths[] = { &in->hosts_file, &in->hostname_file, &in->resolv_file };
    hosts_text(t, in->hostname, &hosts);
    buf_printf(&name, STR_FMT "\n", STR_ARG(in->hostname));
    struct str texts[] = { buf_str(&hosts), buf_str(&name), t->resolv_conf };
    for (size_t i = 0; i < 3; i++) {
        char path[512];
        run_path(t, names[i], path);
        if (fs_write(path, texts[i], 0644, e) < 0)
            return -e->code;
        *paths[i] = arena_str(&t->run, str_from(path)).p;
    }
    return 0;
}

static int resolve_user(struct atask *t, int root, const struct image_conf *ic, struct oci_user *ret, struct err *e)
{
    _cleanup_(buf_done) struct buf passwd = BUF_INIT, group = BUF_INIT;
    const struct tspec_container *c = t->spec.ContainerSpec;
    (void)fs_read_at(root, "/etc/passwd", 4u << 20, &passwd);
    (void)fs_read_at(root, "/etc/group", 4u << 20, &group);
    return oci_user_resolve(c->User.n ? c->User : ic->User, &c->Groups, buf_str(&passwd), buf_str(&group), ret, e);
}

static bool wants_init(const struct tspec_container *c)
{
    bool b;
    return c->Init.n && mp_as_bool(c->Init, &b) ? b : agent_conf.default_init;
}

int run_write_config(struct atask *t, struct err *e)
{
    const struct tspec_container *c = t->spec.ContainerSpec;
    struct image_conf ic;
    struct oci_user user;
    char rootfs[512], path[512], cgroup[400], netns[512];
    uint64_t caps;
    json_t *config = NULL;
    run_path(t, "rootfs", rootfs);
    snprintf(cgroup, sizeof cgroup, "%s/%s", agent_conf.cgroup_root, t->id);
    struct oci_in in = { .spec = &t->spec,
                         .image = &ic,
                         .user = &user,
                         .rootfs = rootfs,
                         .cgroup_path = cgroup,
                         .env = c->Env,
                         .mounts = t->mounts,
                         .nmounts = t->nmounts,
                         .cgroup2 = oci_cgroup2(t->ag->oci),
                         .swap_limit = oci_swap_limit(t->ag->oci) };
    in.netns = t->netns.n && str_copy(netns, sizeof netns, t->netns) ? netns : NULL;
    in.hostname = run_hostname(t);
    in.init_path = wants_init(c) ? agent_conf.init : NULL;
    int r = run_image_conf(t, &t->run, &ic, e);
    _cleanup_(closep) int root = open(rootfs, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r == 0)
        r = resolve_user(t, root, &ic, &user, e);
    struct str cwd = c->Dir.n ? c->Dir : ic.WorkingDir;
    if (r == 0 && cwd.n && !str_is(cwd, "/")) {
        if (cwd.p[0] != '/')
            return run_bad_dir(cwd, e);
        r = mkdir_inside(root, arena_str(&t->run, cwd).p, e);
    }
    if (r == 0)
        r = docker_files(root, e);
    if (r == 0)
        r = write_files(t, &in, e);
    if (r == 0)
        r = oci_caps(c, &caps, e);
    if (r == 0)
        r = seccomp_of(t, caps, &in.seccomp_b64, e);
    if (r == 0)
        r = oci_spec_build(&in, &t->run, &config, e);
    if (r < 0)
        return r;
    char *text = json_dumps(config, JSON_COMPACT);
    json_decref(config);
    run_path(t, "config.json", path);
    r = text ? fs_write(path, str_from(text), 0600, e) : err_set(e, ERR_NOMEM, "config.json: out of memory");
    free(text);
    return r;
}
