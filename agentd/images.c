/* images.c - see images.h. */
#include "agentd/images.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agentd/fsutil.h"
#include "agentd/image_index.h"
#include "agentd/image_ref.h"
#include "agentd/image_worker.h"
#include "agentd/proc.h"
#include "common/daemon/daemon.h"
#include "common/util/cleanup.h"
#include "common/util/clock.h"

#define JOBS_AT_ONCE 2
#define UPLOADS_MAX 8
#define UPLOAD_IDLE_MS 120000

struct job;
struct image_want {
    struct image_want *next;
    struct job *job;
    image_ready_fn *fn;
    void *arg;
};

/* One piece of work for a worker process. */
struct job {
    struct job *next;
    struct images *im;
    struct buf input;
    struct proc *proc;        /* NULL while it waits for its turn */
    char ref[IMAGE_REF_MAX];  /* a task's or client's pull; "" otherwise */
    struct image_want *wants; /* tasks that wait */
    struct rpc_call *call;    /* a client that waits; or NULL */
    enum { JOB_LOAD, JOB_PULL, JOB_RESOLVE } kind;
    char file[600]; /* JOB_LOAD: the upload, removed at the end */
};

struct upload {
    char id[80];
    char path[600];
    int fd;
    uint64_t size, last_ms;
};

struct images {
    sd_event *loop;
    struct images_conf conf;
    char dir[400];
    json_t *index;
    json_t *configs; /* image id -> parsed configuration */
    int layers_fd;
    struct job *jobs; /* oldest first */
    unsigned running;
    struct proc *trash;
    struct upload uploads[UPLOADS_MAX];
    struct timer *upload_timer;
    uint64_t upload_seq, trash_seq;
};

static void jobs_run(struct images *im);

/* ---- the index on disk ---- */

static int save(struct images *im, struct err *e)
{
    char path[500];
    snprintf(path, sizeof path, "%s/index.json", im->dir);
    char *text = json_dumps(im->index, JSON_INDENT(1));
    if (!text)
        return err_set(e, ERR_NOMEM, "image index: out of memory");
    int r = fs_write_atomic(path, str_from(text), 0600, e);
    free(text);
    return r;
}

static int load(struct images *im, struct err *e)
{
    char path[500];
    _cleanup_(buf_done) struct buf text = BUF_INIT;
    snprintf(path, sizeof path, "%s/index.json", im->dir);
    int r = fs_read(path, 64u << 20, &text, e);
    if (r == -ERR_NOT_FOUND) {
        im->index = json_array();
        return 0;
    }
    if (r == 0 && (r = image_index_parse(buf_str(&text), &im->index, e)) < 0)
        err_wrap(e, "%s", path);
    return r;
}

/* ---- removing what nothing refers to ---- */

static void on_trash_gone(void *arg, int status, struct str out, struct str errtext)
{
    struct images *im = arg;
    (void)out;
    (void)errtext;
    im->trash = NULL;
    if (status != 0)
        log_warn("removing unused layers ended with status %d", status);
}

static void trash_empty(struct images *im)
{
    char path[500];
    struct err e = ERR_INIT;
    if (im->trash)
        return;
    snprintf(path, sizeof path, "%s/tmp/trash", im->dir);
    const char *const argv[] = { "/bin/rm", "-rf", "--one-file-system", "--", path, NULL };
    if (access(path, F_OK) == 0 &&
        proc_start(&im->trash, im->loop, &(struct proc_spec){ .argv = argv }, on_trash_gone, im, &e) < 0)
        log_warn("%s", e.msg);
}

static bool layer_referenced(struct images *im, const char *name)
{
    size_t i, k;
    json_t *img, *l;
    json_array_foreach (im->index, i, img)
        json_array_foreach (json_object_get(img, "Layers"), k, l) {
            if (strncmp(json_string_value(l), name, LAYER_NAME_LEN) == 0)
                return true;
        }
    return false;
}

static bool config_referenced(struct images *im, const char *hex)
{
    size_t i;
    json_t *img;
    json_array_foreach (im->index, i, img)
        if (strcmp(image_id(img) + 7, hex) == 0)
            return true;
    return false;
}

static void sweep(struct images *im, const char *folder, bool (*keep)(struct images *, const char *))
{
    char path[500], from[900], to[900];
    struct dirent *d;
    snprintf(path, sizeof path, "%s/%s", im->dir, folder);
    DIR *dir = opendir(path);
    while (dir && (d = readdir(dir))) {
        if (d->d_name[0] == '.' || keep(im, d->d_name))
            continue;
        snprintf(from, sizeof from, "%s/%.255s", path, d->d_name);
        snprintf(to, sizeof to, "%s/tmp/trash", im->dir);
        fs_mkdirs(to, 0700, NULL);
        snprintf(to, sizeof to, "%s/tmp/trash/%" PRIu64 "-%.255s", im->dir, ++im->trash_seq, d->d_name);
        if (rename(from, to) < 0)
            log_warn("unused %s: rename: %s", from, strerror(errno));
    }
    if (dir)
        closedir(dir);
}

/* only while no worker runs: a worker's fresh layers are not referenced yet */
static void collect(struct images *im)
{
    if (im->running > 0)
        return;
    sweep(im, "layers", layer_referenced);
    sweep(im, "sizes", layer_referenced);
    sweep(im, "configs", config_referenced);
    trash_empty(im);
}

/* ---- opening ---- */

static bool keep_trash(struct images *im, const char *name)
{
    (void)im;
    return strcmp(name, "trash") == 0;
}

static void on_upload_timer(void *arg);

int images_open(struct images **ret, sd_event *loop, const struct images_conf *conf, struct err *e)
{
    static const char *const folders[] = { "configs", "layers", "sizes", "tmp", "layers/.none" };
    char path[500];
    struct images *im = calloc(1, sizeof *im);
    if (!im)
        return err_set(e, ERR_NOMEM, "images: out of memory");
    im->loop = loop;
    im->conf = *conf;
    im->layers_fd = -1;
    im->configs = json_object();
    for (size_t i = 0; i < UPLOADS_MAX; i++)
        im->uploads[i].fd = -1;
    snprintf(im->dir, sizeof im->dir, "%s/images", conf->state_dir);
    int r = fs_mkdirs(im->dir, 0700, e);
    for (size_t i = 0; r == 0 && i < sizeof folders / sizeof folders[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", im->dir, folders[i]);
        r = fs_mkdirs(path, 0755, e);
    }
    if (r == 0)
        r = load(im, e);
    if (r == 0)
        r = timer_open(&im->upload_timer, on_upload_timer, im, e);
    snprintf(path, sizeof path, "%s/layers", im->dir);
    if (r == 0 && (im->layers_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        r = err_errno(e, errno, "open %s", path);
    if (r < 0) {
        images_close(im);
        return err_wrap(e, "images");
    }
    sweep(im, "tmp", keep_trash); /* uploads and scratch folders of an earlier run */
    collect(im);
    *ret = im;
    return 0;
}

static void upload_drop(struct upload *u)
{
    if (u->fd < 0)
        return;
    close(u->fd);
    u->fd = -1;
    if (u->path[0])
        unlink(u->path);
    u->path[0] = u->id[0] = '\0';
}

static struct job *job_free(struct job *j)
{
    if (j->file[0])
        unlink(j->file);
    while (j->wants) {
        struct image_want *w = j->wants;
        j->wants = w->next;
        free(w);
    }
    proc_free(j->proc);
    if (j->input.p)
        explicit_bzero(j->input.p, j->input.n);
    buf_done(&j->input);
    free(j);
    return NULL;
}

struct images *images_close(struct images *im)
{
    if (!im)
        return NULL;
    while (im->jobs) {
        struct job *j = im->jobs;
        im->jobs = j->next;
        job_free(j);
    }
    for (size_t i = 0; i < UPLOADS_MAX; i++)
        upload_drop(&im->uploads[i]);
    timer_free(im->upload_timer);
    proc_free(im->trash);
    json_decref(im->index);
    json_decref(im->configs);
    closep(&im->layers_fd);
    free(im);
    return NULL;
}

/* ---- reading ---- */

size_t images_count(const struct images *im)
{
    return json_array_size(im->index);
}

int images_layer_dirfd(const struct images *im)
{
    return im->layers_fd;
}

void images_lowerdir(struct images *im, json_t *img, struct buf *out)
{
    json_t *layers = json_object_get(img, "Layers");
    (void)im;
    for (size_t i = json_array_size(layers); i > 0; i--) {
        if (out->n)
            buf_putc(out, ':');
        buf_put(out, json_string_value(json_array_get(layers, i - 1)), LAYER_NAME_LEN);
    }
    if (!out->n)
        buf_puts(out, ".none"); /* an image without layers */
}

json_t *images_by_id(struct images *im, const char *id)
{
    size_t i;
    json_t *img;
    json_array_foreach (im->index, i, img)
        if (strcmp(image_id(img), id) == 0)
            return json_incref(img);
    return NULL;
}

json_t *images_config(struct images *im, json_t *img, struct err *e)
{
    char path[600];
    _cleanup_(buf_done) struct buf text = BUF_INIT;
    json_error_t je;
    json_t *conf = json_object_get(im->configs, image_id(img));
    if (conf)
        return conf;
    snprintf(path, sizeof path, "%s/configs/%s", im->dir, image_id(img) + 7);
    if (fs_read(path, 8u << 20, &text, e) < 0)
        return NULL;
    conf = json_loadb(text.p ? text.p : "", text.n, 0, &je);
    if (!conf) {
        err_set(e, ERR_CORRUPT, "image configuration %s: %s", path, je.text);
        return NULL;
    }
    json_object_del(conf, "history"); /* long, and never looked at */
    json_object_set_new(im->configs, image_id(img), conf);
    return conf;
}

/* ---- jobs ---- */

static json_t *job_base(struct images *im, const char *op)
{
    char store[500], tmp[500];
    snprintf(store, sizeof store, "%s", im->dir);
    snprintf(tmp, sizeof tmp, "%s/tmp", im->dir);
    return json_pack("{s:s,s:s,s:s,s:s,s:I}", "Op", op, "Store", store, "Tmp", tmp, "Run", im->conf.run_dir, "LayerMax",
                     (json_int_t)im->conf.layer_max);
}

static struct job *job_new(struct images *im, int kind, json_t *input)
{
    struct job *j = calloc(1, sizeof *j), **tail = &im->jobs;
    char *text = json_dumps(input, JSON_COMPACT);
    json_decref(input);
    if (!j || !text) {
        free(j);
        free(text);
        return NULL;
    }
    j->im = im;
    j->kind = kind;
    buf_puts(&j->input, text);
    explicit_bzero(text, strlen(text));
    free(text);
    while (*tail)
        tail = &(*tail)->next;
    *tail = j;
    return j;
}

static bool insecure(const struct images *im, const struct image_ref *r)
{
    const char *p = im->conf.insecure_registries ? im->conf.insecure_registries : "";
    size_t n;
    if (image_ref_loopback(r))
        return true;
    for (; *p; p += n + (p[n] == ' ')) {
        n = strcspn(p, " ");
        if (n == strlen(r->domain) && strncmp(p, r->domain, n) == 0)
            return true;
    }
    return false;
}

static struct job *job_registry(struct images *im, int kind, struct str ref, const struct image_ref *r, struct str auth,
                                json_t *known)
{
    json_error_t je;
    json_t *in = job_base(im, kind == JOB_PULL ? "pull" : "resolve");
    json_t *a = auth.n ? json_loadb(auth.p, auth.n, 0, &je) : NULL;
    json_object_set_new(in, "Image", json_stringn(ref.p, ref.n));
    json_object_set_new(in, "Insecure", json_boolean(insecure(im, r)));
    if (a)
        json_object_set_new(in, "Auth", a);
    if (known)
        json_object_set(in, "Known", known);
    struct job *j = job_new(im, kind, in);
    if (j && kind == JOB_PULL)
        str_copy(j->ref, sizeof j->ref, ref);
    return j;
}

static void reply_loaded(struct rpc_call *c, json_t *images)
{
    struct agent_image_load_reply rep = { 0 };
    struct arena *a = rpc_arena(c);
    size_t i, k, n = 0;
    json_t *img, *t;
    json_array_foreach (images, i, img)
        n += 1 + json_array_size(json_object_get(img, "RepoTags"));
    rep.Loaded.v = arena_array(a, n + 1, sizeof(struct str));
    json_array_foreach (images, i, img) {
        json_t *tags = json_object_get(img, "RepoTags");
        if (json_array_size(tags) == 0)
            rep.Loaded.v[rep.Loaded.n++] = str_from(image_id(img));
        json_array_foreach (tags, k, t)
            rep.Loaded.v[rep.Loaded.n++] = str_from(json_string_value(t));
    }
    rpc_reply(c, &rep);
}

static void reply_pulled(struct job *j, json_t *res)
{
    struct agent_image_pull_reply rep = { 0 };
    struct image_ref r;
    struct err e = ERR_INIT;
    char name[IMAGE_REF_MAX + 130] = "";
    if (image_ref_parse(str_from(j->ref), &r, &e) == 0) {
        if (r.digest[0])
            image_ref_familiar_digest(&r, r.digest, name);
        else
            image_ref_familiar_tag(&r, name);
    }
    rep.Image = str_from(name);
    rep.Digest = str_from(json_string_value(json_object_get(res, "Digest")));
    rep.UpToDate = json_is_true(json_object_get(res, "UpToDate"));
    rpc_reply(j->call, &rep);
}

static void reply_resolved(struct rpc_call *c, json_t *res)
{
    struct agent_image_resolve_reply rep = {
        .MediaType = str_from(json_string_value(json_object_get(res, "MediaType"))),
        .Digest = str_from(json_string_value(json_object_get(res, "Digest"))),
        .Size = (uint64_t)json_integer_value(json_object_get(res, "Size")),
        .Architecture = str_from(json_string_value(json_object_get(res, "Architecture"))),
        .OS = str_from(json_string_value(json_object_get(res, "OS"))),
    };
    rpc_reply(c, &rep);
}

/* the worker's result into the index; 0 or an error for whoever waits */
static int take_result(struct images *im, json_t *res, struct err *e)
{
    size_t i;
    json_t *img, *images = json_object_get(res, "Images");
    const char *error = json_string_value(json_object_get(res, "Error"));
    if (error) {
        json_int_t code = json_integer_value(json_object_get(res, "Code"));
        return err_set(e, code > 0 && code < ERR_CODE_COUNT ? (int)code : ERR_INTERNAL, "%s", error);
    }
    if (!images)
        return 0;
    json_array_foreach (images, i, img)
        if (image_index_check_one(img, e) < 0)
            return err_wrap(e, "image worker");
    json_t *old = json_deep_copy(im->index);
    json_array_foreach (images, i, img)
        image_index_add(im->index, img);
    int r = save(im, e);
    if (r < 0) { /* the disk is full: as if it had not happened */
        json_decref(im->index);
        im->index = old;
        return r;
    }
    json_decref(old);
    return 0;
}

static void wake_wants(struct job *j, const struct err *failed)
{
    struct images *im = j->im;
    struct err e = ERR_INIT;
    json_t *img = NULL;
    if (!j->wants)
        return;
    int r = image_index_find(im->index, str_from(j->ref), &img, &e);
    if (r == 0 && failed)
        log_warn("image %s: using the local one: %s", j->ref, failed->msg);
    if (r < 0 && failed) {
        if (failed->code == ERR_UNAUTHORIZED || failed->code == ERR_DENIED)
            e = *failed; /* Docker names the repository here */
        else
            log_warn("image %s: %s", j->ref, failed->msg);
    }
    while (j->wants) {
        struct image_want *w = j->wants;
        image_ready_fn *fn = w->fn;
        void *arg = w->arg;
        j->wants = w->next;
        free(w);
        fn(arg, r == 0 ? json_incref(img) : NULL, r == 0 ? NULL : &e);
    }
}

static void on_job_done(void *arg, int status, struct str out, struct str errtext)
{
    struct job *j = arg, **pp;
    struct images *im = j->im;
    struct err e = ERR_INIT;
    json_error_t je;
    j->proc = NULL;
    im->running--;
    for (pp = &im->jobs; *pp != j; pp = &(*pp)->next)
        ;
    *pp = j->next;
    json_t *res = status == 0 ? json_loadb(out.p, out.n, 0, &je) : NULL;
    int r = res ? take_result(im, res, &e)
                : err_set(&e, ERR_INTERNAL, "image worker ended with status %d: %.200s", status,
                          errtext.n ? errtext.p : "no message");
    wake_wants(j, r < 0 ? &e : NULL);
    if (j->call && r < 0)
        rpc_fail_err(j->call, &e);
    else if (j->call && j->kind == JOB_LOAD)
        reply_loaded(j->call, json_object_get(res, "Images"));
    else if (j->call && j->kind == JOB_PULL)
        reply_pulled(j, res);
    else if (j->call)
        reply_resolved(j->call, res);
    json_decref(res);
    job_free(j);
    if (r < 0)
        collect(im); /* what it unpacked before it failed */
    jobs_run(im);
}

static void jobs_run(struct images *im)
{
    for (struct job *j = im->jobs, *next; j && im->running < JOBS_AT_ONCE; j = next) {
        struct err e = ERR_INIT;
        const char *const argv[] = { im->conf.self, "image-worker", NULL };
        next = j->next;
        if (j->proc)
            continue;
        im->running++;
        if (proc_start(&j->proc, im->loop, &(struct proc_spec){ .argv = argv, .input = buf_str(&j->input) },
                       on_job_done, j, &e) < 0) {
            log_error("%s", e.msg);
            on_job_done(j, 256, (struct str){ "", 0 }, str_from(e.msg));
            return;
        }
        explicit_bzero(j->input.p, j->input.n);
        buf_done(&j->input);
    }
}

/* ---- what tasks want ---- */

static struct job *pull_under_way(struct images *im, struct str ref)
{
    for (struct job *j = im->jobs; j; j = j->next)
        if (j->kind == JOB_PULL && !j->call && str_is(ref, j->ref))
            return j;
    return NULL;
}

int images_want(struct images *im, struct str ref, struct str auth, image_ready_fn *fn, void *arg, json_t **ret_img,
                struct image_want **ret_want)
{
    struct image_ref r;
    struct err e = ERR_INIT;
    json_t *img = NULL;
    *ret_want = NULL;
    bool local = image_index_find(im->index, ref, &img, &e) == 0;
    bool named = image_ref_parse(ref, &r, &e) == 0;
    struct image_want *w = calloc(1, sizeof *w);
    struct str hex;
    bool by_id = local && image_ref_is_id(ref, &hex) && strncmp(image_id(img) + 7, hex.p, hex.n) == 0;
    if (local && (!named || r.digest[0] || by_id || !image_from_registry(img))) {
        free(w);
        *ret_img = json_incref(img);
        return 0;
    }
    struct job *j = named && w ? pull_under_way(im, ref) : NULL;
    if (!j && named && w)
        j = job_registry(im, JOB_PULL, ref, &r, auth, local ? json_object_get(img, "RepoDigests") : NULL);
    if (!j) {
        free(w);
        *ret_img = NULL;
        return err_set(&e, ERR_NOT_FOUND, "No such image: " STR_FMT, STR_ARG(ref));
    }
    *w = (struct image_want){ .next = j->wants, .job = j, .fn = fn, .arg = arg };
    j->wants = w;
    *ret_want = w;
    jobs_run(im);
    return 1;
}

void images_unwant(struct image_want *w)
{
    struct image_want **pp;
    if (!w)
        return;
    for (pp = &w->job->wants; *pp != w; pp = &(*pp)->next)
        ;
    *pp = w->next;
    if (!w->job->wants && !w->job->call && w->job->proc)
        proc_kill(w->job->proc); /* nobody waits for it any more */
    free(w);
}

/* ---- operations ---- */

static struct upload *upload_find(struct images *im, struct str id)
{
    for (size_t i = 0; i < UPLOADS_MAX; i++)
        if (im->uploads[i].fd >= 0 && str_is(id, im->uploads[i].id))
            return &im->uploads[i];
    return NULL;
}

static void on_upload_timer(void *arg)
{
    struct images *im = arg;
    uint64_t now = clock_mono().ms, next = UINT64_MAX;
    for (size_t i = 0; i < UPLOADS_MAX; i++) {
        struct upload *u = &im->uploads[i];
        if (u->fd < 0)
            continue;
        if (u->last_ms + UPLOAD_IDLE_MS <= now)
            upload_drop(u); /* its client has gone */
        else if (u->last_ms + UPLOAD_IDLE_MS < next)
            next = u->last_ms + UPLOAD_IDLE_MS;
    }
    timer_arm(im->upload_timer, next);
}

static struct upload *upload_begin(struct images *im, struct str id, struct err *e)
{
    struct upload *u = upload_find(im, id);
    if (u)
        upload_drop(u); /* the same client starts again */
    for (size_t i = 0; !u && i < UPLOADS_MAX; i++)
        if (im->uploads[i].fd < 0)
            u = &im->uploads[i];
    if (!u || !str_copy(u->id, sizeof u->id, id)) {
        err_set(e, ERR_UNAVAILABLE, u ? "load image: the upload's name is too long" : "load image: too many uploads");
        return NULL;
    }
    snprintf(u->path, sizeof u->path, "%s/tmp/upload-%" PRIu64, im->dir, ++im->upload_seq);
    u->fd = open(u->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    u->size = 0;
    if (u->fd < 0) {
        err_errno(e, errno, "load image: %s", u->path);
        return NULL;
    }
    return u;
}

static int upload_append(struct upload *u, const struct agent_image_load *req, struct err *e)
{
    struct str d = req->Data;
    if (req->Offset != u->size)
        return err_set(e, ERR_INVALID, "load image: piece at %" PRIu64 " does not follow %" PRIu64, req->Offset,
                       u->size);
    while (d.n > 0) {
        ssize_t n = write(u->fd, d.p, d.n);
        if (n <= 0)
            return err_errno(e, n < 0 ? errno : EIO, "load image");
        d = (struct str){ d.p + n, d.n - (size_t)n };
    }
    u->size += req->Data.n;
    u->last_ms = clock_mono().ms;
    return 0;
}

void images_op_load(struct images *im, struct rpc_call *c, const struct agent_image_load *req)
{
    struct err e = ERR_INIT;
    struct upload *u = req->Offset == 0 ? upload_begin(im, req->UploadID, &e) : upload_find(im, req->UploadID);
    if (!u) {
        rpc_fail(c, e.code ? e.code : ERR_NOT_FOUND, "%s", e.code ? e.msg : "load image: no such upload");
        return;
    }
    if (upload_append(u, req, &e) < 0) {
        upload_drop(u);
        rpc_fail_err(c, &e);
        return;
    }
    if (!req->Last) {
        on_upload_timer(im);
        rpc_reply(c, &(struct agent_image_load_reply){ { 0, 0 } });
        return;
    }
    json_t *in = job_base(im, "load");
    json_object_set_new(in, "File", json_string(u->path));
    struct job *j = job_new(im, JOB_LOAD, in);
    if (!j) {
        upload_drop(u);
        rpc_fail(c, ERR_NOMEM, "load image: out of memory");
        return;
    }
    snprintf(j->file, sizeof j->file, "%s", u->path);
    u->path[0] = '\0'; /* the job removes it now */
    upload_drop(u);
    j->call = c;
    jobs_run(im);
}

static void registry_op(struct images *im, struct rpc_call *c, const struct agent_image_ref *req, int kind)
{
    struct image_ref r;
    struct err e = ERR_INIT;
    json_t *img = NULL;
    if (image_ref_parse(req->Image, &r, &e) < 0) {
        rpc_fail_err(c, &e);
        return;
    }
    bool local = kind == JOB_PULL && image_index_find(im->index, req->Image, &img, &e) == 0;
    struct job *j =
        job_registry(im, kind, req->Image, &r, req->RegistryAuth, local ? json_object_get(img, "RepoDigests") : NULL);
    if (!j) {
        rpc_fail(c, ERR_NOMEM, "image: out of memory");
        return;
    }
    j->call = c;
    jobs_run(im);
}

void images_op_pull(struct images *im, struct rpc_call *c, const struct agent_image_ref *req)
{
    registry_op(im, c, req, JOB_PULL);
}

void images_op_resolve(struct images *im, struct rpc_call *c, const struct agent_image_ref *req)
{
    registry_op(im, c, req, JOB_RESOLVE);
}

static struct strs strs_of(json_t *arr, struct arena *a)
{
    struct strs r = { arena_array(a, json_array_size(arr) + 1, sizeof(struct str)), 0 };
    size_t i;
    json_t *v;
    json_array_foreach (arr, i, v)
        if (r.v && json_is_string(v))
            r.v[r.n++] = arena_str(a, str_from(json_string_value(v)));
    return r;
}

static struct strmap map_of(json_t *obj, struct arena *a)
{
    struct strmap r = { arena_array(a, json_object_size(obj) + 1, sizeof(struct strpair)), 0 };
    const char *k;
    json_t *v;
    json_object_foreach (obj, k, v)
        if (r.v && json_is_string(v))
            r.v[r.n++] = (struct strpair){ arena_str(a, str_from(k)), arena_str(a, str_from(json_string_value(v))) };
    return r;
}

static void describe(struct images *im, json_t *img, struct arena *a, struct agent_image *ret)
{
    struct err e = ERR_INIT;
    json_t *conf = images_config(im, img, &e);
    *ret = (struct agent_image){
        .ID = arena_str(a, str_from(image_id(img))),
        .RepoTags = strs_of(json_object_get(img, "RepoTags"), a),
        .RepoDigests = strs_of(json_object_get(img, "RepoDigests"), a),
        .Created = json_integer_value(json_object_get(img, "Created")),
        .Size = (uint64_t)json_integer_value(json_object_get(img, "Size")),
        .Containers = im->conf.in_use(im->conf.arg, image_id(img)) ? 1 : 0,
        .Labels = map_of(json_object_get(json_object_get(conf, "config"), "Labels"), a),
    };
}

void images_op_list(struct images *im, struct rpc_call *c)
{
    struct agent_image_list_reply rep = { 0 };
    struct arena *a = rpc_arena(c);
    struct agent_image *v = arena_array(a, json_array_size(im->index) + 1, sizeof *v);
    size_t i;
    json_t *img;
    if (!v) {
        rpc_fail(c, ERR_NOMEM, "images: out of memory");
        return;
    }
    json_array_foreach (im->index, i, img)
        describe(im, img, a, &v[i]);
    rep.Images = (struct list){ v, json_array_size(im->index) };
    rpc_reply(c, &rep);
}

static void pack_json(struct buf *b, json_t *j)
{
    size_t i;
    json_t *v;
    const char *k;
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        mp_map(b, json_object_size(j));
        json_object_foreach (j, k, v) {
            mp_cstr(b, k);
            pack_json(b, v);
        }
        break;
    case JSON_ARRAY:
        mp_array(b, json_array_size(j));
        json_array_foreach (j, i, v)
            pack_json(b, v);
        break;
    case JSON_STRING:
        mp_str(b, (struct str){ json_string_value(j), json_string_length(j) });
        break;
    case JSON_INTEGER:
        mp_i64(b, json_integer_value(j));
        break;
    case JSON_REAL:
        mp_f64(b, json_real_value(j));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        mp_bool(b, json_is_true(j));
        break;
    default:
        mp_nil(b);
    }
}

void images_op_inspect(struct images *im, struct rpc_call *c, const struct agent_image_ref *req)
{
    struct agent_image rep;
    struct err e = ERR_INIT;
    json_t *img, *conf;
    _cleanup_(buf_done) struct buf raw = BUF_INIT;
    if (image_index_find(im->index, req->Image, &img, &e) < 0 || !(conf = images_config(im, img, &e))) {
        rpc_fail_err(c, &e);
        return;
    }
    describe(im, img, rpc_arena(c), &rep);
    pack_json(&raw, conf);
    rep.Config = arena_str(rpc_arena(c), buf_str(&raw));
    rpc_reply(c, &rep);
}

void images_op_remove(struct images *im, struct rpc_call *c, const struct agent_image_ref *req)
{
    struct agent_image_remove_reply rep = { 0 };
    struct err e = ERR_INIT;
    struct arena *a = rpc_arena(c);
    json_t *img, *deleted = NULL, *untagged = json_array(), *gone = json_array(), *old = json_deep_copy(im->index);
    size_t i;
    json_t *l;
    int r = image_index_find(im->index, req->Image, &img, &e);
    if (r == 0)
        r = image_index_remove(im->index, req->Image, req->Force, im->conf.in_use(im->conf.arg, image_id(img)),
                               untagged, &deleted, &e);
    if (r == 0 && (r = save(im, &e)) < 0) {
        json_decref(im->index);
        im->index = json_incref(old);
    }
    if (r == 0 && deleted) {
        json_array_append_new(gone, json_string(image_id(deleted)));
        json_array_foreach (json_object_get(deleted, "Layers"), i, l)
            if (!image_index_uses_layer(im->index, json_string_value(l)))
                json_array_append_new(gone, json_sprintf("sha256:%s", json_string_value(l)));
        json_object_del(im->configs, image_id(deleted));
    }
    if (r == 0) {
        rep.Untagged = strs_of(untagged, a);
        rep.Deleted = strs_of(gone, a);
        rpc_reply(c, &rep);
        if (deleted)
            collect(im);
    } else {
        rpc_fail_err(c, &e);
    }
    json_decref(deleted);
    json_decref(untagged);
    json_decref(gone);
    json_decref(old);
}

void images_op_tag(struct images *im, struct rpc_call *c, const struct agent_image_tag *req)
{
    struct err e = ERR_INIT;
    json_t *img;
    if (image_index_find(im->index, req->Image, &img, &e) < 0 ||
        image_index_tag(im->index, img, req->Repo, req->Tag, &e) < 0 || save(im, &e) < 0)
        rpc_fail_err(c, &e);
    else
        rpc_reply(c, NULL);
}
