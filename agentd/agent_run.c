/*
 * agent_run.c - carries out what a task's core decides: prepare, start, stop, clean, recover.
 *
 * A start goes through these stages, each a callback of the event loop:
 *   slot -> mesh_up sent, root file system mounted, volumes made -> (image content copied) -> mesh_up answered
 *        -> config.json written -> conmon: crun create -> crun start -> mesh_ready -> TE_STARTED
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agentd/agent_task.h"
#include "agentd/fsutil.h"
#include "agentd/image_index.h"
#include "agentd/log_opts.h"
#include "agentd/oci_seccomp.h"
#include "agentd/oci_spec.h"
#include "agentd/volumes.h"
#include "common/util/check.h"
#include "common/util/cleanup.h"
#include "common/util/id.h"

#define SUBPATHS_MAX 256u /* of volumes, for one task */
#define MESH_TIMEOUT_MS 10000u
#define MESH_DRAIN_MS 300u
#define MESH_QUIET_MS 1000u /* more than what meshd was given to wait */
#define MESH_PAUSE_MIN_MS 20
#define MESH_PAUSE_MAX_MS 1000
#define MEMORY_MIN (6ll << 20) /* Docker's: with less, the runtime itself is killed while it makes the container */
#define SMALL_TREE 256         /* so many files are removed in place, more by a program */

static void slots_run(struct agent *ag);
static void start_go_on(struct atask *t);
static void mesh_up_send(struct atask *t);
static void mesh_down_send(struct atask *t);
static void clean_part_done(struct atask *t);

static void run_path(const struct atask *t, const char *name, char out[512])
{
    snprintf(out, 512, "%s/tasks/%s%s%s", t->ag->run_dir, t->id, name ? "/" : "", name ? name : "");
}

static void state_path(const struct atask *t, const char *name, char out[512])
{
    snprintf(out, 512, "%s/tasks/%s%s%s", t->ag->state_dir, t->id, name ? "/" : "", name ? name : "");
}

/* ---- templates ---- */

static void tmpl_context(struct atask *t, struct arena *a, struct tmpl_ctx *ret)
{
    const struct assignment *as = &t->a;
    char *slot = arena_printf(a, "%" PRIu64, as->Slot);
    struct str s = as->Slot ? str_from(slot) : as->NodeID;
    char *name = arena_printf(a, STR_FMT "." STR_FMT ".%s", STR_ARG(as->ServiceName), STR_ARG(s), t->id);
    *ret = (struct tmpl_ctx){
        .service_id = as->ServiceID,
        .service_name = as->ServiceName,
        .service_labels = as->ServiceLabels,
        .node_id = as->NodeID,
        .node_hostname = as->NodeHostname.n ? as->NodeHostname : str_from(t->ag->host.hostname),
        .node_arch = str_from(t->ag->host.arch),
        .node_os = str_from(t->ag->host.os),
        .task_id = str_from(t->id),
        .task_name = str_from(name),
        .task_slot = s,
    };
}

/* the spec with its templates filled in, once; mounts and env change in place */
static int expand(struct atask *t, struct err *e)
{
    struct tspec_container *c = t->spec.ContainerSpec;
    struct tmpl_ctx ctx;
    tmpl_context(t, &t->arena, &ctx);
    if (tmpl_expand(&ctx, c->Hostname, &t->arena, &c->Hostname, e) < 0)
        return err_wrap(e, "expanding hostname failed");
    for (size_t i = 0; i < c->Env.n; i++)
        if (tmpl_expand(&ctx, c->Env.v[i], &t->arena, &c->Env.v[i], e) < 0)
            return err_wrap(e, "expanding env failed");
    for (size_t i = 0; i < c->Mounts.n; i++) {
        struct tspec_mount *m = &((struct tspec_mount *)c->Mounts.v)[i];
        if (tmpl_expand(&ctx, m->Source, &t->arena, &m->Source, e) < 0 ||
            tmpl_expand(&ctx, m->Target, &t->arena, &m->Target, e) < 0)
            return err_wrap(e, "expanding mounts failed");
    }
    return 0;
}

/* ---- prepare ---- */

static const struct tspec_driver *log_driver(struct atask *t, struct arena *a);

static int check_bind(const struct tspec_mount *m, struct err *e)
{
    char src[4097];
    if (!str_copy(src, sizeof src, m->Source) || src[0] != '/')
        return err_set(e, ERR_INVALID,
                       "invalid mount config for type \"bind\": invalid mount path: '" STR_FMT
                       "' mount path must be absolute",
                       STR_ARG(m->Source));
    if (access(src, F_OK) == 0)
        return 0;
    if (errno == ENOENT && m->BindOptions && m->BindOptions->CreateMountpoint)
        return fs_mkdirs(src, 0755, e);
    return err_set(e, ERR_INVALID, "invalid mount config for type \"bind\": bind source path does not exist: %.300s",
                   src);
}

static int check_mount(const struct tspec_mount *m, struct arena *a, struct err *e)
{
    struct str opts, target;
    if (oci_path_clean(m->Target, a, &target, e) < 0)
        return -e->code;
    if (str_is(target, "/"))
        return err_set(e, ERR_INVALID,
                       "invalid mount config for type \"" STR_FMT "\": invalid specification: destination can't be '/'",
                       STR_ARG(m->Type.n ? m->Type : STR("volume")));
    if (str_is(m->Type, "bind"))
        return check_bind(m, e) < 0 ? -e->code : oci_mount_options(m, a, &opts, e);
    if (str_is(m->Type, "tmpfs"))
        return oci_mount_options(m, a, &opts, e);
    if (m->Type.n && !str_is(m->Type, "volume"))
        return err_set(e, ERR_INVALID, "invalid mount config for type \"" STR_FMT "\": mount type unknown",
                       STR_ARG(m->Type));
    if (m->Source.n && volume_name_check(m->Source, e) < 0)
        return -e->code;
    const struct tspec_driver *d = m->VolumeOptions ? m->VolumeOptions->DriverConfig : NULL;
    if (d && d->Name.n && !str_is(d->Name, "local"))
        return err_set(e, ERR_INVALID, "error looking up volume plugin " STR_FMT ": plugin \"" STR_FMT "\" not found",
                       STR_ARG(d->Name), STR_ARG(d->Name));
    return 0;
}

static int bad_dir(struct str dir, struct err *e)
{
    return err_set(e, ERR_INVALID, "the working directory '" STR_FMT "' is invalid, it needs to be an absolute path",
                   STR_ARG(dir));
}

static int check_spec(struct atask *t, struct err *e)
{
    const struct tspec_container *c = t->spec.ContainerSpec;
    uint64_t caps;
    if (!c)
        return err_set(e, t->spec_err.code ? t->spec_err.code : ERR_INVALID, "%s",
                       t->spec_err.code ? t->spec_err.msg : "no container in the task template");
    if (c->Secrets.n || c->Configs.n)
        return err_set(e, ERR_UNIMPLEMENTED, "secrets and configs are not supported yet");
    int r = expand(t, e);
    if (r == 0 && c->Dir.n && c->Dir.p[0] != '/')
        r = bad_dir(c->Dir, e);
    if (r == 0 && t->spec.Resources.Limits.MemoryBytes > 0 && t->spec.Resources.Limits.MemoryBytes < MEMORY_MIN)
        r = err_set(e, ERR_INVALID, "Minimum memory limit allowed is 6MB");
    if (r == 0)
        r = oci_caps(c, &caps, e);
    if (r == 0)
        r = log_opts_known(log_driver(t, &t->arena), e);
    for (size_t i = 0; r == 0 && i < c->Mounts.n; i++)
        r = check_mount(&((const struct tspec_mount *)c->Mounts.v)[i], &t->arena, e);
    if (r == 0 && c->StopSignal.n && oci_signal(c->StopSignal) == 0)
        r = err_set(e, ERR_INVALID, "Invalid signal: " STR_FMT, STR_ARG(c->StopSignal));
    return r;
}

static void prepare_failed(struct atask *t, const char *text)
{
    task_event(t, (struct task_event){ .type = TE_PREPARE_FAILED, .text = text });
}

static int image_conf_of(struct atask *t, struct arena *a, struct image_conf *ret, struct err *e)
{
    json_t *conf = t->img ? images_config(t->ag->images, t->img, e) : NULL;
    if (!conf)
        return e->code ? -e->code
                       : err_set(e, ERR_NOT_FOUND, "No such image: " STR_FMT, STR_ARG(t->spec.ContainerSpec->Image));
    return image_conf_read(conf, ret, a, e);
}

static void prepared(struct atask *t, struct str command)
{
    if (!str_copy(t->command, sizeof t->command, command))
        t->command[0] = '\0';
    task_event(t, (struct task_event){ .type = TE_PREPARED });
}

/* @img is taken */
static void image_ready(struct atask *t, json_t *img)
{
    struct err e = ERR_INIT;
    struct image_conf ic = { 0 };
    struct strs argv;
    json_decref(t->img);
    t->img = img;
    if (image_conf_of(t, &t->arena, &ic, &e) < 0 || oci_argv(t->spec.ContainerSpec, &ic, &t->arena, &argv, &e) < 0)
        prepare_failed(t, e.msg);
    else
        prepared(t, argv.v[0]);
}

static void on_image(void *arg, json_t *img, const struct err *e)
{
    struct atask *t = arg;
    t->want = NULL;
    if (img)
        image_ready(t, img);
    else
        prepare_failed(t, e->msg);
}

void run_prepare(struct atask *t)
{
    struct err e = ERR_INIT;
    json_t *img = NULL;
    if (check_spec(t, &e) < 0) {
        prepare_failed(t, e.msg);
        return;
    }
    struct str ref = t->spec.ContainerSpec->Image;
    int r = images_want(t->ag->images, ref, str_from(t->auth), on_image, t, &img, &t->want);
    if (r == 0) {
        image_ready(t, img);
    } else if (r < 0) {
        err_set(&e, ERR_NOT_FOUND, "No such image: " STR_FMT, STR_ARG(ref));
        prepare_failed(t, e.msg);
    }
}

void run_cancel(struct atask *t)
{
    if (!t->want && !t->await_auth)
        return;
    t->await_auth = false;
    images_unwant(t->want);
    t->want = NULL;
    prepare_failed(t, "cancelled");
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

/* rejected - no other try on this node can do better, so the text is the reason as it is */
static void rejected(struct atask *t, const struct err *e)
{
    t->run_no++;
    task_event(t, (struct task_event){ .type = TE_START_FAILED, .text = e->msg, .reject = true });
    slot_release(t);
}

static void start_failed(struct atask *t, const struct err *e, int exit_code)
{
    char text[TASK_ERR_MAX];
    bool worded = strncmp(e->msg, "starting container failed", 25) == 0;
    snprintf(text, sizeof text, "%s%s", worded ? "" : "starting container failed: ", e->msg);
    t->run_no++;
    task_event(t,
               (struct task_event){ .type = TE_START_FAILED, .text = text, .exit_code = exit_code ? exit_code : 128 });
    slot_release(t);
}

/* ---- start: the root file system and volumes ---- */

static int mount_root(struct atask *t, struct err *e)
{
    char bundle[512], rootfs[512], upper[512], work[512], opts[4096];
    _cleanup_(buf_done) struct buf lower = BUF_INIT;
    run_path(t, NULL, bundle);
    run_path(t, "rootfs", rootfs);
    state_path(t, "upper", upper);
    state_path(t, "work", work);
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

/* unbind_subpaths - false when one is still mounted: then nothing below the task's folder may be removed. */
static bool unbind_subpaths(struct atask *t)
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

static int make_mounts(struct atask *t, const struct image_conf *ic, struct err *e)
{
    char rootfs[512];
    const struct tspec_container *c = t->spec.ContainerSpec;
    size_t n = c->Mounts.n + ic->Volumes.n;
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
    if (r == 0 && t->nmounts > 1)
        sort_mounts(t->mounts, t->nmounts);
    return r;
}

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
        start_failed(t, &e, 0);
        return;
    }
    start_go_on(t);
}

static int copy_next(struct atask *t, struct err *e)
{
    const struct copy *c = &t->copies[t->copied];
    const char *const argv[] = { "/bin/cp", "-a", "--reflink=auto", "/proc/self/fd/3/.", c->to, NULL };
    struct proc_spec ps = { .argv = argv, .keep_fds = { c->from_fd, -1, -1, -1 } };
    return proc_start(&t->proc, t->ag->loop, &ps, on_copied, t, e);
}

/* ---- start: the network ---- */

struct mesh_call {
    struct mesh_call *next;
    struct atask *t;
    unsigned run_no;
};
static struct mesh_call *mesh_calls; /* under way */

static struct mesh_call *mesh_call_new(struct atask *t)
{
    struct mesh_call *m = malloc(sizeof *m);
    if (!m)
        abort();
    *m = (struct mesh_call){ mesh_calls, t, t->run_no };
    mesh_calls = m;
    t->calls++;
    return m;
}

/* mesh_call_end - the task, or NULL when the answer came too late to matter */
static struct atask *mesh_call_end(void *arg)
{
    struct mesh_call m = *(struct mesh_call *)arg, **pp = &mesh_calls;
    while (*pp != arg)
        pp = &(*pp)->next;
    *pp = m.next;
    free(arg);
    m.t->calls--;
    if (m.t->forget && m.t->calls == 0)
        task_dirty(m.t); /* it can be dropped now */
    return m.run_no == m.t->run_no ? m.t : NULL;
}

static bool passing(const struct err *e)
{
    return e->code == ERR_UNAVAILABLE || e->code == ERR_TIMEOUT;
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
        mesh_up_send(t);
    else if (what == TIMER_MESH_DOWN)
        mesh_down_send(t);
}

static void timer_set(struct atask *t, int what, uint64_t after_ms)
{
    struct err e = ERR_INIT;
    if (!t->timer && timer_open(&t->timer, on_timer, t, &e) < 0) {
        log_error("task=%s: %s", t->id, e.msg);
        return;
    }
    t->timer_for = what;
    timer_arm(t->timer, what == TIMER_NONE ? UINT64_MAX : clock_mono().ms + after_ms);
}

static void mesh_again(struct atask *t, int what, const struct err *e)
{
    if (t->mesh_pause_ms == 0) {
        log_warn("task=%s: meshd: %s: trying again", t->id, e->msg);
        t->mesh_pause_ms = MESH_PAUSE_MIN_MS;
    }
    timer_set(t, what, t->mesh_pause_ms);
    t->mesh_pause_ms = t->mesh_pause_ms * 2 > MESH_PAUSE_MAX_MS ? MESH_PAUSE_MAX_MS : t->mesh_pause_ms * 2;
}

static int take_mesh(struct atask *t, const struct mesh_up_reply *r)
{
    const struct mesh_port *from = r->Ports.v;
    struct task_port *p = arena_array(&t->run, r->Ports.n + 1, sizeof *p);
    struct str *addr = arena_array(&t->run, r->Addresses.n + 1, sizeof *addr);
    size_t n = 0;
    if (!p || !addr)
        return -1;
    for (size_t i = 0; i < r->Ports.n; i++)
        if (str_is(from[i].PublishMode, "host")) {
            p[n] = (struct task_port){ .Protocol = arena_str(&t->run, from[i].Protocol),
                                       .PublishMode = STR("host"),
                                       .TargetPort = from[i].TargetPort,
                                       .PublishedPort = from[i].PublishedPort };
            n++;
        }
    for (size_t i = 0; i < r->Addresses.n; i++)
        addr[i] = arena_str(&t->run, r->Addresses.v[i]);
    t->ports = (struct list){ p, n };
    t->addresses = (struct strs){ addr, r->Addresses.n };
    t->netns = arena_str(&t->run, r->Netns);
    t->resolv_conf = arena_str(&t->run, r->ResolvConf);
    return 0;
}

static void on_mesh_up(void *arg, const void *rep, const struct err *e)
{
    struct atask *t = mesh_call_end(arg);
    struct err cancelled = { ERR_UNAVAILABLE, "cancelled" };
    if (!t)
        return;
    if (rep && take_mesh(t, rep) == 0) {
        t->mesh_pause_ms = 0;
        t->mesh_there = true;
        start_go_on(t);
    } else if (task_stop_wanted(t)) {
        start_failed(t, &cancelled, 0);
    } else if (!rep && (e->code == ERR_UNIMPLEMENTED || e->code == ERR_PRECONDITION)) {
        /* such as encryption that this kernel lacks */
        rejected(t, e);
    } else if (rep || !passing(e)) {
        struct err nomem = { ERR_NOMEM, "network: out of memory" };
        start_failed(t, rep ? &nomem : e, 0);
    } else {
        mesh_again(t, TIMER_MESH_UP, e);
    }
}

static struct str net_mode(const struct atask *t)
{
    const struct tspec_network *n = t->spec.Networks.v;
    for (size_t i = 0; i < t->spec.Networks.n; i++)
        if (str_is(n[i].Target, "host") || str_is(n[i].Target, "none"))
            return n[i].Target;
    return STR("bridge");
}

static const struct field port_config_fields[] = {
    FIELD_STR(struct mesh_port, Protocol, 0, 16),
    FIELD_STR(struct mesh_port, PublishMode, 0, 16),
    FIELD_U64(struct mesh_port, TargetPort, 0, 65535),
    FIELD_U64(struct mesh_port, PublishedPort, 0, 65535),
    FIELD_END,
};

static struct list port_list(struct str raw, struct arena *a)
{
    struct mp_cursor c = mp_cursor(raw);
    struct mp_val v;
    struct list ret = { NULL, 0 };
    struct err e = ERR_INIT;
    if (raw.n == 0 || mp_next(&c, &v) < 0 || v.type != MP_ARRAY)
        return ret;
    struct mesh_port *p = arena_array(a, v.n + 1, sizeof *p);
    for (size_t i = 0; p && i < v.n; i++) {
        struct str span;
        struct mesh_port *o = &p[ret.n];
        if (mp_span(&c, &span) < 0 || fields_decode(o, port_config_fields, sizeof *o, span, FIELDS_VIEW, a, &e) < 0)
            break;
        if (o->Protocol.n == 0)
            o->Protocol = STR("tcp");
        if (o->PublishMode.n == 0)
            o->PublishMode = STR("ingress");
        ret.n++;
    }
    ret.v = p;
    return ret;
}

static struct str hostname_of(const struct atask *t)
{
    const struct tspec_container *c = t->spec.ContainerSpec;
    if (c->Hostname.n)
        return c->Hostname;
    return str_is(net_mode(t), "host") ? str_from(t->ag->host.hostname) : (struct str){ t->container_id, 12 };
}

static void mesh_up_send(struct atask *t)
{
    const struct tspec_container *c = t->spec.ContainerSpec;
    struct err cancelled = { ERR_UNAVAILABLE, "cancelled" };
    struct strpair *sysctls;
    struct tmpl_ctx ctx;
    if (task_stop_wanted(t) && t->mesh_pause_ms) {
        start_failed(t, &cancelled, 0);
        return;
    }
    tmpl_context(t, &t->run, &ctx);
    struct mesh_up req = { .TaskID = str_from(t->id),
                           .ServiceID = t->a.ServiceID,
                           .Mode = net_mode(t),
                           .Networks = t->a.Networks,
                           .ServiceName = t->a.ServiceName,
                           .TaskName = ctx.task_name,
                           .Hostname = hostname_of(t) };
    req.Ports = port_list(t->a.Ports, &t->run);
    if (c->DNSConfig) {
        req.Nameservers = c->DNSConfig->Nameservers;
        req.Search = c->DNSConfig->Search;
        req.Options = c->DNSConfig->Options;
    }
    sysctls = arena_array(&t->run, c->Sysctls.n + 1, sizeof *sysctls);
    for (size_t i = 0; sysctls && i < c->Sysctls.n; i++)
        if (str_starts(c->Sysctls.v[i].key, STR("net.")))
            sysctls[req.Sysctls.n++] = c->Sysctls.v[i];
    req.Sysctls.v = sysctls;
    t->mesh_asked = true;
    rpc_send(t->ag->mesh, &op_mesh_up, &req, MESH_TIMEOUT_MS, on_mesh_up, mesh_call_new(t));
}

/* ---- start: the configuration ---- */

static int mkdir_inside(int root, const char *path, struct err *e)
{
    struct open_how how = { .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                            .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
    char part[4097];
    for (size_t i = 1;; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        if (i >= sizeof part)
            return err_set(e, ERR_INVALID, "working directory is too long");
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
        if (path[i] == '\0')
            return 0;
    }
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

static int write_config(struct atask *t, struct err *e)
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
    in.hostname = hostname_of(t);
    in.init_path = wants_init(c) ? agent_conf.init : NULL;
    int r = image_conf_of(t, &t->run, &ic, e);
    _cleanup_(closep) int root = open(rootfs, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r == 0)
        r = resolve_user(t, root, &ic, &user, e);
    struct str cwd = c->Dir.n ? c->Dir : ic.WorkingDir;
    if (r == 0 && cwd.n && !str_is(cwd, "/")) {
        if (cwd.p[0] != '/')
            return bad_dir(cwd, e);
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
    task_event(t, (struct task_event){ .type = TE_STARTED, .pid = (uint64_t)ctr_pid(t->ctr) });
    slot_release(t);
}

static void on_mesh_ready(void *arg, const void *rep, const struct err *e)
{
    struct atask *t = mesh_call_end(arg);
    if (!rep && t)
        log_warn("task=%s: meshd: ready: %s", t->id, e->msg);
    if (t && t->core.phase == TP_STARTING)
        started(t);
}

static void on_ctr_started(void *arg, const struct err *e)
{
    struct atask *t = arg;
    if (e) {
        start_failed(t, e, exit_code_of(e->msg));
        return;
    }
    struct mesh_ready req = { .TaskID = str_from(t->id), .Ready = true };
    /* who sees "running" may connect at once */
    bool wait = t->a.Networks.n > 0 || port_list(t->a.Ports, &t->run).n > 0;
    t->taken_out = false;
    rpc_send(t->ag->mesh, &op_mesh_ready, &req, MESH_TIMEOUT_MS, on_mesh_ready, mesh_call_new(t));
    if (!wait)
        started(t);
}

static void on_ctr_exited(void *arg, bool known, int code, bool oom)
{
    struct atask *t = arg;
    timer_set(t, TIMER_NONE, 0);
    if (t->core.phase == TP_STARTING) /* it ended before meshd had answered */
        started(t);
    if (known)
        task_event(t, (struct task_event){ .type = TE_EXITED, .exit_code = code, .oom = oom });
    else
        task_event(t, (struct task_event){ .type = TE_LOST, .text = "container lost: its monitor is gone" });
}

static void unmount_and_remove(struct atask *t);

static void on_ctr_deleted(void *arg)
{
    struct atask *t = arg;
    t->ctr = ctr_free(t->ctr);
    unmount_and_remove(t);
}

static const struct ctr_ops ctr_ops = { on_ctr_started, on_ctr_exited, on_ctr_deleted };

/* the task's log driver, or the cluster's default; NULL: neither says */
static const struct tspec_driver *log_driver(struct atask *t, struct arena *a)
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

static int log_opts_of(struct atask *t, struct log_opts *ret, struct err *e)
{
    struct log_opts dflt = { .size_max = agent_conf.log_size_max, .files = (unsigned)agent_conf.log_files };
    *ret = dflt;
    return log_opts_read(log_driver(t, &t->run), &dflt, ret, e);
}

static void ctr_spec_of(struct atask *t, const struct log_opts *lo, struct ctr_spec *ret, char bundle[512],
                        char log[512])
{
    const struct tspec_container *c = t->spec.ContainerSpec;
    run_path(t, NULL, bundle);
    state_path(t, "log", log);
    *ret = (struct ctr_spec){ .id = t->container_id,
                              .task_id = t->id,
                              .bundle = bundle,
                              .command = t->command,
                              .log_size_max = lo->size_max,
                              .log_path = lo->none ? NULL : log,
                              .tty = c && c->TTY,
                              .stdin_open = c && c->OpenStdin };
}

/* start_go_on - called whenever one of the things a container needs is there */
static void start_go_on(struct atask *t)
{
    struct err e = ERR_INIT;
    struct ctr_spec spec;
    struct log_opts lo;
    char bundle[512], log[512];
    if (t->copied < t->ncopies) {
        if (!t->proc && copy_next(t, &e) < 0)
            start_failed(t, &e, 0);
        return;
    }
    if (!t->mesh_there || !t->rootfs_there)
        return;
    int r = write_config(t, &e);
    if (r == 0)
        r = log_opts_of(t, &lo, &e);
    if (r == 0)
        r = agent_logs_begin(t->ag->logs, t->id, lo.files, &e);
    if (r == 0) {
        ctr_spec_of(t, &lo, &spec, bundle, log);
        r = ctr_run(&t->ctr, t->ag->oci, &spec, &ctr_ops, t, &e);
    }
    if (r < 0)
        start_failed(t, &e, 0);
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
    mesh_up_send(t); /* meshd works while the root is mounted here */
    if (mount_root(t, &e) < 0 || image_conf_of(t, &t->run, &ic, &e) < 0 || make_mounts(t, &ic, &e) < 0) {
        start_failed(t, &e, 0);
        return;
    }
    t->rootfs_there = true;
    task_dirty(t); /* the container's id is on disk before the container is */
    start_go_on(t);
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
            start_failed(t, &cancelled, 0);
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
    if (sig == 0 && c && image_conf_of(t, &t->run, &ic, &e) == 0 && ic.StopSignal.n)
        sig = oci_signal(ic.StopSignal);
    return sig ? sig : SIGTERM;
}

static void signal_stop(struct atask *t)
{
    int64_t grace = t->spec.ContainerSpec ? tspec_grace_ns(t->spec.ContainerSpec) : TSPEC_GRACE_DEFAULT_NS;
    int r = ctr_signal(t->ctr, grace == 0 ? SIGKILL : stop_signal(t));
    if (r < 0 && r != -ESRCH)
        log_warn("task=%s: stop signal: %s", t->id, strerror(-r));
    timer_set(t, TIMER_GRACE, (uint64_t)(grace / 1000000));
}

static void on_out_then_stop(void *arg, const void *rep, const struct err *e)
{
    struct atask *t = mesh_call_end(arg);
    (void)rep;
    (void)e;
    if (t && t->ctr && t->core.phase == TP_STOPPING)
        signal_stop(t);
}

static void on_out(void *arg, const void *rep, const struct err *e)
{
    struct atask *t = mesh_call_end(arg);
    if (t && !rep)
        log_warn("task=%s: meshd: no new connections: %s", t->id, e->msg);
}

static void take_out(struct atask *t, rpc_done_fn *done)
{
    struct mesh_ready req = { .TaskID = str_from(t->id), .Ready = false };
    t->taken_out = true;
    rpc_send(t->ag->mesh, &op_mesh_ready, &req, MESH_DRAIN_MS, done, mesh_call_new(t));
}

void run_stop(struct atask *t)
{
    timer_set(t, TIMER_NONE, 0);
    if (!t->taken_out)
        take_out(t, on_out_then_stop);
    else if (t->ctr)
        signal_stop(t);
}

void run_drain(struct atask *t)
{
    if (!t->taken_out)
        take_out(t, on_out);
    timer_set(t, TIMER_DRAIN, agent_conf.drain_wait_ms);
}

static void on_quiet(void *arg, const void *rep, const struct err *e)
{
    struct atask *t = mesh_call_end(arg);
    const struct mesh_quiet_reply *r = rep;
    if (!t)
        return;
    if (!r)
        log_warn("task=%s: meshd: quiet: %s", t->id, e->msg);
    else if (!r->Quiet)
        log_info("task=%s: its drain period is over with %" PRIu64 " connections open", t->id, r->Connections);
    task_event(t, (struct task_event){ .type = TE_QUIET });
}

void run_quiet(struct atask *t)
{
    struct mesh_quiet req = { .TaskID = str_from(t->id), .WaitMs = t->a.DrainMs };
    uint64_t timeout = t->a.DrainMs + MESH_QUIET_MS;
    timer_set(t, TIMER_NONE, 0);
    if (!t->taken_out)
        take_out(t, on_out);
    rpc_send(t->ag->mesh, &op_mesh_quiet, &req, (unsigned)timeout, on_quiet, mesh_call_new(t));
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
    clean_part_done(t);
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
    state_path(t, "upper", upper);
    state_path(t, "work", work);
    while (umount2(rootfs, MNT_DETACH) == 0)
        ;
    t->root_mounted = false;
    if (unbind_subpaths(t))
        fs_remove_tree(bundle);
    else
        log_error("task=%s: a part of a volume is still mounted below %s", t->id, bundle);
    remove_anonymous(t);
    if (access(upper, F_OK) < 0 && access(work, F_OK) < 0) {
        clean_part_done(t);
        return;
    }
    if (fs_count_entries(upper, SMALL_TREE) < SMALL_TREE) {
        fs_remove_tree(upper);
        fs_remove_tree(work);
        clean_part_done(t);
        return;
    }
    const char *const argv[] = { "/bin/rm", "-rf", "--one-file-system", "--", upper, work, NULL };
    if (proc_start(&t->proc, t->ag->loop, &(struct proc_spec){ .argv = argv }, on_removed, t, &e) < 0) {
        log_warn("task=%s: %s", t->id, e.msg);
        clean_part_done(t);
    }
}

static void on_mesh_down(void *arg, const void *rep, const struct err *e)
{
    struct atask *t = mesh_call_end(arg);
    if (!t)
        return;
    if (!rep && passing(e)) {
        mesh_again(t, TIMER_MESH_DOWN, e);
        return;
    }
    if (!rep && e->code != ERR_NOT_FOUND)
        log_warn("task=%s: meshd: down: %s", t->id, e->msg);
    t->mesh_pause_ms = 0;
    clean_part_done(t);
}

static void mesh_down_send(struct atask *t)
{
    struct mesh_task req = { .TaskID = str_from(t->id) };
    rpc_send(t->ag->mesh, &op_mesh_down, &req, MESH_TIMEOUT_MS, on_mesh_down, mesh_call_new(t));
}

static void clean_part_done(struct atask *t)
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
    timer_set(t, TIMER_NONE, 0);
    t->proc = proc_free(t->proc);
    for (; t->copied < t->ncopies; t->copied++)
        close(t->copies[t->copied].from_fd);
    if (!t->container_id[0]) { /* nothing was ever made for it */
        t->clean_left = 1;
        clean_part_done(t);
        return;
    }
    t->clean_left = 2;
    mesh_down_send(t);
    if (t->ctr)
        ctr_delete(t->ctr);
    else
        unmount_and_remove(t);
}

/* ---- after a restart of agentd ---- */

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
        state_path(t, "log", log);
        spec = (struct ctr_spec){ .id = t->container_id, .task_id = t->id, .bundle = bundle, .log_path = log };
        if (ctr_adopt(&t->ctr, t->ag->oci, &spec, (pid_t)t->core.pid, t->monitor, &ctr_ops, t, &found, &e) < 0)
            log_error("task=%s: %s", t->id, e.msg);
        t->mesh_asked = true;
    }
    bool there = found == CTR_RUNNING || found == CTR_EXITED;
    if (there && ph < TP_CLEANING) {
        t->monitor = ctr_monitor(t->ctr);
        struct log_opts lo;
        (void)log_opts_of(t, &lo, &e);
        if (agent_logs_begin(t->ag->logs, t->id, lo.files, &e) < 0)
            log_warn("task=%s: %s", t->id, e.msg);
        task_event(t, (struct task_event){ .type = TE_ADOPTED, .pid = (uint64_t)ctr_pid(t->ctr) });
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

void run_release(struct atask *t)
{
    images_unwant(t->want);
    t->want = NULL;
    t->ctr = ctr_free(t->ctr);
    t->proc = proc_free(t->proc);
    for (; t->copied < t->ncopies; t->copied++)
        close(t->copies[t->copied].from_fd);
    t->timer = timer_free(t->timer);
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
    if (unbind_subpaths(&gone))
        fs_remove_tree(path);
    state_path(&gone, NULL, path);
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

void run_close(void)
{
    while (mesh_calls) { /* their client is gone, so no answer will come */
        struct mesh_call *m = mesh_calls;
        mesh_calls = m->next;
        free(m);
    }
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
    oci_cgroups_each(ag->oci, look_cgroup, ag);
    rpc_send(ag->mesh, &op_mesh_list, &none, MESH_TIMEOUT_MS, on_mesh_list, ag);
}
