/* agent_prepare.c - what a task needs before it may start: a specification that this node can honour, and its image. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "agentd/agent_files.h"
#include "agentd/agent_run.h"
#include "agentd/fsutil.h"
#include "agentd/generic.h"
#include "agentd/log_opts.h"
#include "agentd/volumes.h"

#define MEMORY_MIN (6ll << 20) /* Docker's: with less, the runtime itself is killed while it makes the container */

/* ---- templates ---- */

void run_expand_ctx(struct atask *t, struct arena *a, struct expand_ctx *ret)
{
    const struct assignment *as = &t->a;
    char *slot = arena_printf(a, "%" PRIu64, as->Slot);
    struct str s = as->Slot ? str_from(slot) : as->NodeID;
    char *name = arena_printf(a, STR_FMT "." STR_FMT ".%s", STR_ARG(as->ServiceName), STR_ARG(s), t->id);
    *ret = (struct expand_ctx){
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

/* generic_env - DOCKER_RESOURCE_GPU=uuid1,uuid2, or the amount: what the scheduler gave the task, as Docker says it. */
static void generic_env(struct atask *t)
{
    struct strs *env = &t->spec.ContainerSpec->Env;
    struct generic_list l;
    struct buf b = BUF_INIT;
    if (t->a.GenericResources.n == 0 || generic_decode(t->a.GenericResources, &l, &t->arena) != 0)
        return;
    struct str *v = arena_array(&t->arena, env->n + l.n, sizeof *v);
    if (!v)
        return;
    if (env->n)
        memcpy(v, env->v, env->n * sizeof *v);
    *env = (struct strs){ v, env->n };
    for (size_t i = 0; i < l.n; i++) {
        if (!generic_env_text(&l, i, &b))
            continue;
        struct str one = arena_str(&t->arena, buf_str(&b));
        if (one.p)
            v[env->n++] = one;
    }
    buf_done(&b);
}

/* the spec with its templates filled in, once; mounts and env change in place */
static int expand(struct atask *t, struct err *e)
{
    struct tspec_container *c = t->spec.ContainerSpec;
    struct expand_ctx ctx;
    run_expand_ctx(t, &t->arena, &ctx);
    if (expand_text(&ctx, c->Hostname, &t->arena, &c->Hostname, e) < 0)
        return err_wrap(e, "expanding hostname failed");
    for (size_t i = 0; i < c->Env.n; i++)
        if (expand_env(&ctx, c->Env.v[i], &t->arena, &c->Env.v[i], e) < 0)
            return err_wrap(e, "expanding env failed");
    generic_env(t);
    for (size_t i = 0; i < c->Mounts.n; i++) {
        struct tspec_mount *m = &((struct tspec_mount *)c->Mounts.v)[i];
        if (expand_mount(&ctx, "mount source", m->Source, &t->arena, &m->Source, e) < 0 ||
            expand_mount(&ctx, "mount target", m->Target, &t->arena, &m->Target, e) < 0)
            return err_wrap(e, "expanding mounts failed");
    }
    return 0;
}

/* ---- prepare ---- */

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

int run_bad_dir(struct str dir, struct err *e)
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
    int r = expand(t, e);
    if (r == 0 && c->Dir.n && c->Dir.p[0] != '/')
        r = run_bad_dir(c->Dir, e);
    if (r == 0 && t->spec.Resources.Limits.MemoryBytes > 0 && t->spec.Resources.Limits.MemoryBytes < MEMORY_MIN)
        r = err_set(e, ERR_INVALID, "Minimum memory limit allowed is 6MB");
    if (r == 0)
        r = oci_caps(c, &caps, e);
    if (r == 0)
        r = log_opts_known(run_log_driver(t, &t->arena), e);
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

int run_image_conf(struct atask *t, struct arena *a, struct image_conf *ret, struct err *e)
{
    json_t *conf = t->img ? images_config(t->ag->images, t->img, e) : NULL;
    if (!conf)
        return e->code ? -e->code
                       : err_set(e, ERR_NOT_FOUND, "No such image: " STR_FMT, STR_ARG(t->spec.ContainerSpec->Image));
    return image_conf_read(conf, ret, a, e);
}

static void prepared(struct atask *t, const struct err *e)
{
    if (e)
        prepare_failed(t, e->msg);
    else
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
    if (run_image_conf(t, &t->arena, &ic, &e) < 0 || oci_argv(t->spec.ContainerSpec, &ic, &t->arena, &argv, &e) < 0) {
        prepare_failed(t, e.msg);
        return;
    }
    if (!str_copy(t->command, sizeof t->command, argv.v[0]))
        t->command[0] = '\0';
    if (files_prepare(t, prepared) == 0)
        prepared(t, NULL);
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
    if (!t->want && !t->await_auth && !files_cancel(t))
        return;
    t->await_auth = false;
    images_unwant(t->want);
    t->want = NULL;
    prepare_failed(t, "cancelled");
}
