/* agent_mounts.c - a container's root file system, its volumes and other mounts. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agentd/agent_files.h"
#include "agentd/agent_run.h"
#include "agentd/fsutil.h"
#include "agentd/volumes.h"
#include "common/util/cleanup.h"

#define SUBPATHS_MAX 256u /* of volumes, for one task */

int run_mount_root(struct atask *t, struct err *e)
{
    char bundle[512], rootfs[512], upper[512], work[512], opts[4096];
    _cleanup_(buf_done) struct buf lower = BUF_INIT;
    run_path(t, NULL, bundle);
    run_path(t, "rootfs", rootfs);
    run_state_path(t, "upper", upper);
    run_state_path(t, "work", work);
    if (fs_mkdirs(bundle, 0700, e) < 0 || fs_mkdirs(rootfs, 0755, e) < 0 || fs_mkdirs(upper, 0755, e) < 0 ||
        fs_mkdirs(work, 0700, e) < 0)
        return -e->code;
    images_lowerdir(t->ag->images, t->img, &lower);
    if (snprintf(opts, sizeof opts, "lowerdir=%s,upperdir=%s,workdir=%s", buf_cstr(&lower), upper, work) >=
        (int)sizeof opts)
        return err_set(e, ERR_TOO_BIG, "image has too many layers");
    /* layers are named relative to their folder, because all options must fit in one page */
    _cleanup_(closep) int cwd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (cwd < 0 || fchdir(images_layer_dirfd(t->ag->images)) < 0)
        return err_errno(e, errno, "root file system: layers");
    int r = mount("overlay", rootfs, "overlay", 0, opts) < 0 ? -errno : 0;
    if (fchdir(cwd) < 0)
        log_warn("chdir back: %s", strerror(errno));
    if (r < 0)
        return err_errno(e, -r, "mount root file system %s", rootfs);
    t->root_mounted = true;
    return 0;
}

static struct str local_option(const struct tspec_driver *d, const char *key)
{
    for (size_t i = 0; d && i < d->Options.n; i++)
        if (str_is(d->Options.v[i].key, key))
            return d->Options.v[i].val;
    return (struct str){ 0, 0 };
}

static void remember_volume(struct atask *t, const char *name)
{
    struct str *v = arena_array(&t->run, t->volumes.n + 1, sizeof *v);
    if (!v)
        return;
    if (t->volumes.n)
        memcpy(v, t->volumes.v, t->volumes.n * sizeof *v);
    v[t->volumes.n] = arena_str(&t->run, str_from(name));
    t->volumes = (struct strs){ v, t->volumes.n + 1 };
}

static int plan_copy(struct atask *t, int rootfs_fd, struct str target, const char *path, struct err *e)
{
    char tgt[4097];
    int fd = -1;
    if (!str_copy(tgt, sizeof tgt, target))
        return err_set(e, ERR_INVALID, "mount target is too long");
    int r = volume_copy_plan(rootfs_fd, tgt, path, &fd, e);
    if (r <= 0)
        return r;
    if (volume_fill_begin(path, e) < 0) {
        close(fd);
        return -e->code;
    }
    t->copies[t->ncopies].from_fd = fd;
    snprintf(t->copies[t->ncopies].to, sizeof t->copies[0].to, "%s/", path);
    t->ncopies++;
    return 0;
}

bool run_unbind_subpaths(struct atask *t)
{
    char name[16], path[512];
    for (unsigned i = 0; i < SUBPATHS_MAX; i++) {
        snprintf(name, sizeof name, "sub%u", i);
        run_path(t, name, path);
        if (access(path, F_OK) < 0)
            continue;
        while (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
            ;
        if (unlink(path) < 0 && errno == EISDIR && rmdir(path) < 0 && errno != ENOENT)
            return false;
        if (access(path, F_OK) == 0)
            return false;
    }
    return true;
}

/*
 * bind_subpath - containers write to a volume, so a link in it may lead anywhere on the host, and one may come at any
 * moment. So what was looked at is held open and mounted to a place of ours, where crun finds it.
 */
static int bind_subpath(struct atask *t, const char *volume, struct str subpath, struct str *ret_path, struct err *e)
{
    char sub[4097] = "", name[16], place[512], from[64];
    struct stat st;
    if (t->nmounts >= SUBPATHS_MAX)
        return err_set(e, ERR_INVALID, "more than %u mounts", SUBPATHS_MAX);
    _cleanup_(closep) int dir = open(volume, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return err_errno(e, errno, "open volume %s", volume);
    _cleanup_(closep) int fd = str_copy(sub, sizeof sub, subpath) ? fs_open_beneath(dir, sub) : -ENAMETOOLONG;
    if (fd == -ENOENT)
        return err_set(e, ERR_INVALID, "cannot access path in the volume: %.300s: no such file or directory", sub);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_set(e, ERR_INVALID, "volume subpath %.300s must stay inside the volume, without links", sub);
    snprintf(name, sizeof name, "sub%zu", t->nmounts);
    run_path(t, name, place);
    while (umount2(place, MNT_DETACH | UMOUNT_NOFOLLOW) == 0) /* of a start before */
        ;
    int made = S_ISDIR(st.st_mode) ? mkdir(place, 0700) : mknod(place, S_IFREG | 0600, 0);
    if (made < 0 && errno != EEXIST)
        return err_errno(e, errno, "make %s", place);
    snprintf(from, sizeof from, "/proc/self/fd/%d", fd);
    if (mount(from, place, NULL, MS_BIND, NULL) < 0)
        return err_errno(e, errno, "mount volume subpath %.300s", sub);
    *ret_path = arena_str(&t->run, str_from(place));
    return 0;
}

/* one volume mount; @name empty: anonymous */
static int add_volume(struct atask *t, int rootfs_fd, const struct tspec_mount *m, struct str target,
                      struct oci_mount *out, struct err *e)
{
    char path[VOLUME_PATH_MAX], anon[65];
    const struct tspec_volume *v = m->VolumeOptions;
    const struct tspec_driver *d = v ? v->DriverConfig : NULL;
    struct str type = local_option(d, "type"), device = local_option(d, "device"), o = local_option(d, "o");
    struct str name = m->Source;
    bool empty;
    if (name.n == 0) {
        volume_anonymous_name(anon);
        remember_volume(t, anon);
        name = str_from(anon);
    }
    int r = volume_ensure(t->ag->state_dir, name, v ? &v->Labels : NULL, path, &empty, e);
    if (r < 0)
        return r;
    out->target = target;
    if (device.n) { /* the local driver's own mounts: nfs, tmpfs, a folder */
        out->type = type.n ? type : STR("none");
        out->source = device;
        out->options = o.n || !m->ReadOnly ? o : STR("ro");
        return 0;
    }
    struct tspec_mount plain = { .Type = STR("bind"), .ReadOnly = m->ReadOnly };
    out->type = STR("bind");
    if (v && v->Subpath.n) {
        r = bind_subpath(t, path, v->Subpath, &out->source, e);
        if (r < 0)
            return r;
    } else {
        out->source = arena_str(&t->run, str_from(path));
    }
    r = oci_mount_options(&plain, &t->run, &out->options, e);
    if (r == 0 && empty && !(v && (v->NoCopy || v->Subpath.n)))
        r = plan_copy(t, rootfs_fd, target, path, e);
    return r;
}

/* As Docker does: what the source's mount on the host does not take part in cannot be shared with a container. */
static int check_propagation(const struct tspec_mount *m, struct err *e)
{
    struct str prop = m->BindOptions ? m->BindOptions->Propagation : (struct str){ 0, 0 };
    bool shared = str_is(prop, "shared") || str_is(prop, "rshared"),
         slave = str_is(prop, "slave") || str_is(prop, "rslave");
    char src[4097], real[4097], point[4097], kind[64];
    if (!shared && !slave)
        return 0;
    if (!str_copy(src, sizeof src, m->Source) || !realpath(src, real))
        return err_errno(e, errno, "bind source " STR_FMT, STR_ARG(m->Source));
    int r = fs_mount_of(real, point, kind, e);
    if (r < 0 || strcmp(kind, "shared") == 0 || (slave && strcmp(kind, "slave") == 0))
        return r;
    return err_set(e, ERR_INVALID, "path %.300s is mounted on %.300s but it is not a shared%s mount", real, point,
                   slave ? " or slave" : "");
}

/* a tmpfs over a folder of the image has that folder's mode, as with Docker, unless the service says otherwise */
static void keep_mode(int rootfs_fd, struct str target, struct str *options, struct arena *a)
{
    struct open_how how = { .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                            .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
    struct stat st;
    char *text;
    _cleanup_(closep) int fd = (int)syscall(SYS_openat2, rootfs_fd, target.p, &how, sizeof how);
    if (fd < 0 || fstat(fd, &st) < 0)
        return;
    text = arena_printf(a, STR_FMT ",mode=%o", STR_ARG(*options), (unsigned)st.st_mode & 07777);
    if (text)
        *options = str_from(text);
}

static bool target_taken(const struct atask *t, struct str target)
{
    for (size_t i = 0; i < t->nmounts; i++)
        if (str_eq(t->mounts[i].target, target))
            return true;
    return false;
}

static int add_mount(struct atask *t, int rootfs_fd, const struct tspec_mount *m, struct err *e)
{
    struct oci_mount *out = &t->mounts[t->nmounts];
    struct str target;
    int r = oci_path_clean(m->Target, &t->run, &target, e);
    if (r < 0)
        return r;
    if (target_taken(t, target))
        return err_set(e, ERR_INVALID, "Duplicate mount point: " STR_FMT, STR_ARG(target));
    if (str_is(m->Type, "bind") || str_is(m->Type, "tmpfs")) {
        out->type = m->Type;
        out->source = str_is(m->Type, "bind") ? m->Source : STR("tmpfs");
        out->target = target;
        r = oci_mount_options(m, &t->run, &out->options, e);
        if (r == 0 && str_is(m->Type, "bind"))
            r = check_propagation(m, e);
        else if (r == 0 && !(m->TmpfsOptions && m->TmpfsOptions->Mode))
            keep_mode(rootfs_fd, target, &out->options, &t->run);
    } else {
        r = add_volume(t, rootfs_fd, m, target, out, e);
    }
    if (r == 0)
        t->nmounts++;
    return r;
}

static size_t depth(struct str path)
{
    size_t n = 0;
    for (size_t i = 0; i < path.n; i++)
        n += path.p[i] == '/';
    return n;
}

/* what lies deeper comes later, so that a mount does not hide another; else in the order of the spec */
static void sort_mounts(struct oci_mount *m, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        struct oci_mount x = m[i];
        size_t k = i;
        for (; k > 0 && depth(m[k - 1].target) > depth(x.target); k--)
            m[k] = m[k - 1];
        m[k] = x;
    }
}

int run_add_bind(struct atask *t, struct str source, struct str target, struct str options, struct err *e)
{
    struct oci_mount *out = &t->mounts[t->nmounts];
    int r = oci_path_clean(target, &t->run, &target, e);
    if (r < 0)
        return r;
    if (str_is(target, "/") || target_taken(t, target))
        return err_set(e, ERR_INVALID, "Duplicate mount point: " STR_FMT, STR_ARG(target));
    *out = (struct oci_mount){ .type = STR("bind"), .source = source, .target = target, .options = options };
    t->nmounts++;
    return 0;
}

int run_make_mounts(struct atask *t, const struct image_conf *ic, struct err *e)
{
    char rootfs[512];
    const struct tspec_container *c = t->spec.ContainerSpec;
    size_t n = c->Mounts.n + ic->Volumes.n + c->Secrets.n + c->Configs.n;
    t->mounts = arena_array(&t->run, n + 1, sizeof *t->mounts);
    t->copies = arena_array(&t->run, n + 1, sizeof *t->copies);
    t->nmounts = t->ncopies = t->copied = 0;
    if (!t->mounts || !t->copies)
        return err_set(e, ERR_NOMEM, "mounts: out of memory");
    run_path(t, "rootfs", rootfs);
    _cleanup_(closep) int fd = open(rootfs, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = fd < 0 ? err_errno(e, errno, "open %s", rootfs) : 0;
    for (size_t i = 0; r == 0 && i < c->Mounts.n; i++)
        r = add_mount(t, fd, &((const struct tspec_mount *)c->Mounts.v)[i], e);
    for (size_t i = 0; r == 0 && i < ic->Volumes.n; i++) {
        struct tspec_mount m = { .Target = ic->Volumes.v[i] };
        struct str target;
        r = oci_path_clean(m.Target, &t->run, &target, e);
        if (r == 0 && !target_taken(t, target))
            r = add_mount(t, fd, &m, e);
    }
    if (r == 0)
        r = files_mount(t, e);
    if (r == 0 && t->nmounts > 1)
        sort_mounts(t->mounts, t->nmounts);
    return r;
}
