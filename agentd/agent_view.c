/* agent_view.c - see agent_view.h. */
#include "agentd/agent_view.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agentd/agent_health.h"
#include "agentd/agent_task.h"
#include "agentd/image_index.h"
#include "agentd/oci_spec.h"
#include "agentd/volumes.h"
#include "common/util/cleanup.h"

#define VIEW_BYTES_MAX (256u << 20)
#define LABELS_BYTES_MAX (1u << 20)

/* ---- containers ---- */

static const char *container_state(const struct atask *t)
{
    if (t->core.phase < TP_RUNNING)
        return "created";
    return t->core.phase <= TP_STOPPING ? "running" : "exited";
}

/* Borrowed from the assignment and the image's configuration, as it was put together for the start. */
static struct strs argv_of(const struct atask *t, struct arena *a)
{
    struct err e = ERR_INIT;
    struct image_conf conf;
    struct strs argv = { 0 };
    json_t *image = t->img ? images_config(t->ag->images, t->img, &e) : NULL;

    if (!image || image_conf_read(image, &conf, a, &e) < 0)
        conf = (struct image_conf){ 0 };
    if (!t->spec.ContainerSpec || oci_argv(t->spec.ContainerSpec, &conf, a, &argv, &e) < 0)
        argv.n = 0;
    return argv;
}

static struct list mounts_of(const struct atask *t, struct arena *a)
{
    const struct list *spec = t->spec.ContainerSpec ? &t->spec.ContainerSpec->Mounts : NULL;
    struct list out = { .v = arena_array(a, spec ? spec->n + 1 : 1, sizeof(struct agent_container_mount)) };
    struct agent_container_mount *v = out.v;

    for (size_t i = 0; v && spec && i < spec->n; i++) {
        const struct tspec_mount *m = &((const struct tspec_mount *)spec->v)[i];
        bool volume = m->Type.n == 0 || str_is(m->Type, "volume");
        struct str source = m->Source;
        if (volume && source.n > 0) {
            char *path = arena_printf(a, "%s/volumes/" STR_FMT "/_data", t->ag->state_dir, STR_ARG(source));
            source = str_from(path ? path : "");
        }
        v[out.n++] = (struct agent_container_mount){ .Type = volume ? STR("volume") : m->Type,
                                                     .Name = volume ? m->Source : STR(""),
                                                     .Source = source,
                                                     .Destination = m->Target,
                                                     .RW = !m->ReadOnly };
    }
    return out;
}

static bool wanted(const struct atask *t, struct str id)
{
    if (!t->container_id[0] || !t->core.has_container)
        return false;
    return id.n == 0 || str_eq(str_from(t->id), id) || str_starts(str_from(t->container_id), id);
}

void view_op_containers(struct agent *ag, struct rpc_call *c, const struct agent_containers *req)
{
    struct agent_containers_reply rep = { 0 };
    struct agent_container *v;
    struct arena a;

    arena_init(&a, VIEW_BYTES_MAX);
    v = arena_array(&a, ag->ntasks + 1, sizeof *v);
    for (struct atask *t = ag->tasks; v && t && rep.Containers.n < ag->ntasks; t = t->next) {
        if (!wanted(t, req->ID))
            continue;
        bool runs = t->core.phase == TP_RUNNING || t->core.phase == TP_STOPPING;
        v[rep.Containers.n++] = (struct agent_container){ .TaskID = str_from(t->id),
                                                          .ID = str_from(t->container_id),
                                                          .ImageID = str_from(t->img ? image_id(t->img) : ""),
                                                          .State = str_from(container_state(t)),
                                                          .Since = t->core.since.ns,
                                                          .PID = runs ? t->core.pid : 0,
                                                          .ExitCode = t->core.exit_code,
                                                          .Argv = argv_of(t, &a),
                                                          .Addresses = runs ? t->addresses : (struct strs){ 0 },
                                                          .Mounts = mounts_of(t, &a),
                                                          .ServiceID = t->a.ServiceID,
                                                          .ServiceName = t->a.ServiceName,
                                                          .NodeID = t->a.NodeID,
                                                          .Slot = t->a.Slot,
                                                          .Spec = t->a.Spec };
        agent_health_view(t, &a, &v[rep.Containers.n - 1].Health);
        if (req->ID.n == 0) /* 20 KiB each: a list of thousands would be larger than any answer may be */
            v[rep.Containers.n - 1].Health.Log = (struct list){ 0 };
    }
    rep.Containers.v = v;
    if (v)
        rpc_reply(c, &rep);
    else
        rpc_fail(c, ERR_NOMEM, "containers: out of memory");
    arena_done(&a);
}

/* ---- volumes ---- */

static void read_labels(int dir_fd, struct strmap *ret, struct arena *a)
{
    _cleanup_(closep) int fd = openat(dir_fd, "labels.json", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    const char *key;
    json_t *o, *v;

    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > (off_t)LABELS_BYTES_MAX)
        return;
    o = json_loadfd(fd, 0, NULL);
    ret->v = arena_array(a, json_object_size(o) + 1, sizeof *ret->v);
    json_object_foreach (o, key, v) {
        if (!ret->v || !json_is_string(v))
            continue;
        ret->v[ret->n++] =
            (struct strpair){ arena_str(a, str_from(key)), arena_str(a, str_from(json_string_value(v))) };
    }
    json_decref(o);
}

static bool read_volume(struct agent *ag, int volumes_fd, const char *name, struct agent_volume *ret, struct arena *a)
{
    struct stat st;
    _cleanup_(closep) int fd = -1;
    char *path;

    if (!volume_name_ok(str_from(name)))
        return false;
    fd = openat(volumes_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstatat(fd, "labels.json", &st, AT_SYMLINK_NOFOLLOW) < 0 ||
        !(path = arena_printf(a, "%s/volumes/%s/_data", ag->state_dir, name)))
        return false;
    *ret = (struct agent_volume){ .Name = arena_str(a, str_from(name)),
                                  .Mountpoint = str_from(path),
                                  .CreatedAt = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec };
    read_labels(fd, &ret->Labels, a);
    return true;
}

static int by_name(const void *x, const void *y)
{
    const struct agent_volume *a = x, *b = y;
    return strcmp(a->Name.p, b->Name.p);
}

/* Volumes are few: the list grows by doubling in the arena. */
static bool room(struct list *l, size_t *cap, struct arena *a)
{
    if (l->n < *cap)
        return true;
    size_t more = *cap ? *cap * 2 : 64;
    struct agent_volume *v = arena_array(a, more, sizeof *v);
    if (!v)
        return false;
    if (l->n > 0)
        memcpy(v, l->v, l->n * sizeof *v);
    l->v = v;
    *cap = more;
    return true;
}

void view_op_volumes(struct agent *ag, struct rpc_call *c, const struct agent_volumes *req)
{
    struct agent_volumes_reply rep = { 0 };
    struct agent_volume one;
    struct arena a;
    char path[400];
    size_t cap = 0;
    DIR *d;

    arena_init(&a, VIEW_BYTES_MAX);
    (void)snprintf(path, sizeof path, "%s/volumes", ag->state_dir);
    d = opendir(path); /* it comes with the first volume */
    for (struct dirent *de; d && (de = readdir(d));)
        if ((req->Name.n == 0 || str_is(req->Name, de->d_name)) && read_volume(ag, dirfd(d), de->d_name, &one, &a) &&
            room(&rep.Volumes, &cap, &a))
            ((struct agent_volume *)rep.Volumes.v)[rep.Volumes.n++] = one;
    if (d)
        closedir(d);
    if (rep.Volumes.n > 1)
        qsort(rep.Volumes.v, rep.Volumes.n, sizeof one, by_name);
    rpc_reply(c, &rep);
    arena_done(&a);
}
