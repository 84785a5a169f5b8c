/* agent_files.c - see agent_files.h. */
#include "agentd/agent_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agentd/agent_run.h"
#include "agentd/fsutil.h"
#include "common/daemon/box.h"
#include "common/util/check.h"
#include "common/util/cleanup.h"
#include "common/util/crypto.h"

#define CALL_TIMEOUT_MS 5000u
#define PAUSE_MIN_MS 20u
#define PAUSE_MAX_MS 1000u
#define PAGE 4096u
#define TASK_BYTES_MAX (64u << 20) /* of all files of a task, each counted once more when it is a template */

/* Memory that is neither swapped nor dumped, and wiped before it goes. */
struct safe {
    char *p;
    size_t n, cap;
};

/* One payload; several references may name it. */
struct payload {
    bool secret;
    struct str id, name; /* in the task's arena */
    bool there, golang;
    struct safe data;
};

struct job {
    struct atask *t;
    files_done_fn *done;
    struct payload *v;
    size_t n, at; /* at: the first that is not there yet */
    size_t bytes;
    struct box_key key;
    struct timer *timer;
    uint64_t pause_ms;
    struct call *call; /* under way */
};

struct call {
    struct call *next;
    struct job *job; /* NULL: cancelled */
};
static struct call *calls;

static void ask(struct job *j);

/* ---- memory ---- */

static bool safe_new(struct safe *s, size_t cap)
{
    size_t size = (cap / PAGE + 1) * PAGE;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return false;
    (void)mlock(p, size); /* where the limits allow */
    (void)madvise(p, size, MADV_DONTDUMP);
    *s = (struct safe){ p, 0, size };
    return true;
}

static void safe_done(struct safe *s)
{
    if (s->p) {
        explicit_bzero(s->p, s->cap);
        munmap(s->p, s->cap);
    }
    *s = (struct safe){ NULL, 0, 0 };
}

/* What a template reads and makes goes through jansson, which allocates as it is told to. */
static void wiping_free(void *p)
{
    if (p)
        explicit_bzero(p, malloc_usable_size(p));
    free(p);
}

/* ---- references ---- */

struct ref {
    bool secret;
    const struct tspec_fileref *r;
};

static size_t ref_count(const struct tspec_container *c)
{
    return c->Secrets.n + c->Configs.n;
}

/* ref_at - false: a config that is no file. */
static bool ref_at(const struct tspec_container *c, size_t i, struct ref *ret)
{
    bool secret = i < c->Secrets.n;
    const struct tspec_fileref *v = secret ? c->Secrets.v : c->Configs.v;
    *ret = (struct ref){ secret, &v[secret ? i : i - c->Secrets.n] };
    return ret->r->File != NULL;
}

static struct str ref_id(const struct ref *r)
{
    return r->secret ? r->r->SecretID : r->r->ConfigID;
}

static struct str ref_name(const struct ref *r)
{
    return r->secret ? r->r->SecretName : r->r->ConfigName;
}

static const char *word(bool secret)
{
    return secret ? "secret" : "config";
}

static struct payload *payload_of(struct job *j, const struct ref *r)
{
    for (size_t i = 0; i < j->n; i++)
        if (j->v[i].secret == r->secret && str_eq(j->v[i].id, ref_id(r)))
            return &j->v[i];
    return NULL;
}

/* ---- paths ---- */

static void files_path(const struct agent *ag, const char *task, char out[512])
{
    snprintf(out, 512, "%s/files%s%s", ag->run_dir, *task ? "/" : "", task);
}

static void drop_path(const char *path)
{
    while (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
        ;
    if (rmdir(path) < 0 && errno != ENOENT && errno != ENOTDIR)
        log_warn("remove %s: %s", path, strerror(errno));
}

void files_drop(struct atask *t)
{
    char path[512];
    const struct tspec_container *c = t->spec.ContainerSpec;
    if (c && ref_count(c) == 0)
        return;
    files_path(t->ag, t->id, path);
    drop_path(path);
}

static int mount_tmpfs(const struct atask *t, size_t bytes, size_t files, char path[512], struct err *e)
{
    char opts[200];
    files_path(t->ag, "", path);
    if (fs_mkdirs(path, 0700, e) < 0)
        return -e->code;
    files_path(t->ag, t->id, path);
    drop_path(path);
    if (mkdir(path, 0700) < 0)
        return err_errno(e, errno, "make %s", path);
    const char *const first[] = { ",noswap", "" };
    for (size_t i = 0; i < 2; i++) {
        snprintf(opts, sizeof opts, "mode=0700,size=%zu,nr_inodes=%zu%s", bytes, files + 8, first[i]);
        if (mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, opts) == 0)
            return 0;
    }
    return err_errno(e, errno, "mount tmpfs %s", path);
}

/* ---- writing ---- */

static int number(struct str s, const char *what, const struct ref *r, uint64_t *ret, struct err *e)
{
    *ret = 0;
    if (s.n == 0 || (str_u64(s, ret) && *ret < UINT32_MAX))
        return 0;
    return err_set(e, ERR_INVALID, "%s " STR_FMT ": invalid %s " STR_FMT, word(r->secret), STR_ARG(ref_name(r)), what,
                   STR_ARG(s));
}

static int write_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t w = write(fd, p, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return -errno;
        p += w;
        n -= (size_t)w;
    }
    return 0;
}

static int write_file(int dir, size_t i, const struct ref *r, struct str content, struct err *e)
{
    uint64_t uid, gid;
    char name[24];
    if (number(r->r->File->UID, "UID", r, &uid, e) < 0 || number(r->r->File->GID, "GID", r, &gid, e) < 0)
        return -e->code;
    snprintf(name, sizeof name, "%zu", i);
    _cleanup_(closep) int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int err = fd < 0 ? -errno : write_all(fd, content.p, content.n);
    if (err == 0 && (fchown(fd, (uid_t)uid, (gid_t)gid) < 0 || fchmod(fd, (mode_t)(r->r->File->Mode & 0777)) < 0))
        err = -errno;
    return err < 0 ? err_errno(e, -err, "write %s " STR_FMT, word(r->secret), STR_ARG(ref_name(r))) : 0;
}

/* ---- templates ---- */

static bool find(struct job *j, bool secret, struct str target, struct str *ret)
{
    const struct tspec_container *c = j->t->spec.ContainerSpec;
    for (size_t i = 0; i < ref_count(c); i++) {
        struct ref r;
        if (!ref_at(c, i, &r) || r.secret != secret || !str_eq(r.r->File->Name, target))
            continue;
        const struct payload *p = payload_of(j, &r);
        *ret = (struct str){ p->data.p, p->data.n };
        return true;
    }
    return false;
}

static bool find_secret(void *arg, struct str target, struct str *ret)
{
    return find(arg, true, target, ret);
}

static bool find_config(void *arg, struct str target, struct str *ret)
{
    return find(arg, false, target, ret);
}

/* missing_target - "error calling secret: secret target X not found", when X stands in the template: one that was made
 * of another secret's content is not to be repeated. */
static const char *missing_target(const struct payload *p, const struct err *e)
{
    static const char tail[] = " not found";
    const char *why = strstr(e->msg, ": error calling "), *x = why ? strstr(why, " target ") : NULL;
    size_t n = x ? strlen(x += strlen(" target ")) : 0;
    if (n < sizeof tail - 1 || strcmp(x + n - (sizeof tail - 1), tail) != 0)
        return NULL;
    return memmem(p->data.p, p->data.n, x, n - (sizeof tail - 1)) ? why : NULL;
}

/* tell_less - what is wrong with a secret's template, without a word of it: it is a secret, and the text goes into the
 * task's status. That a target does not exist, and where, may be said. */
static void tell_less(const struct payload *p, struct err *e)
{
    static const char head[] = "template: expansion:"; /* then LINE: or LINE:COLUMN: */
    const char *at = strncmp(e->msg, head, sizeof head - 1) == 0 ? e->msg + sizeof head - 1 : "";
    const char *missing = missing_target(p, e), *why = ": it cannot be parsed";
    size_t n = strspn(at, "0123456789:");
    char text[300];
    while (n > 0 && at[n - 1] == ':')
        n--;
    if (missing)
        why = missing;
    else if (memchr(at, ':', n))
        why = ": this action cannot be evaluated";
    snprintf(text, sizeof text, "%s%.*s%s", head, (int)n, at, why);
    err_set(e, ERR_INVALID, "%s", text);
}

static int expand_one(struct job *j, const struct payload *p, struct safe *ret, struct err *e)
{
    struct expand_refs refs = {
        .arg = j, .env = j->t->spec.ContainerSpec->Env, .secret = find_secret, .config = find_config
    };
    struct expand_ctx ctx;
    if (!safe_new(ret, EXPAND_TEXT_MAX))
        return err_set(e, ERR_NOMEM, "out of memory");
    struct buf out = { .p = ret->p, .cap = ret->cap, .limit = EXPAND_TEXT_MAX }; /* never moved */
    run_expand_ctx(j->t, &j->t->arena, &ctx);
    json_set_alloc_funcs(malloc, wiping_free);
    int r = expand_payload(&ctx, &refs, (struct str){ p->data.p, p->data.n }, &out, e);
    json_set_alloc_funcs(malloc, free);
    CHECK(out.p == ret->p);
    ret->n = out.n;
    if (r == 0)
        return 0;
    if (p->secret || (strstr(e->msg, " target ") && !missing_target(p, e)))
        tell_less(p, e);
    safe_done(ret);
    return err_wrap(e, "failed to expand templated %s " STR_FMT, word(p->secret), STR_ARG(p->name));
}

/* ---- all of them ---- */

struct content {
    struct safe own; /* expanded */
    struct str text;
};

static int fill(struct job *j, struct content *v, size_t n, size_t *ret_bytes, struct err *e)
{
    const struct tspec_container *c = j->t->spec.ContainerSpec;
    *ret_bytes = 16 * (size_t)PAGE;
    for (size_t i = 0; i < n; i++) {
        struct ref r;
        if (!ref_at(c, i, &r))
            continue;
        const struct payload *p = payload_of(j, &r);
        v[i].text = (struct str){ p->data.p, p->data.n };
        if (p->golang) {
            if (expand_one(j, p, &v[i].own, e) < 0)
                return -e->code;
            v[i].text = (struct str){ v[i].own.p, v[i].own.n };
            j->bytes += v[i].own.n;
            if (j->bytes > TASK_BYTES_MAX)
                return err_set(e, ERR_TOO_BIG, "the expanded secrets and configs of a task may have %u MiB at most",
                               TASK_BYTES_MAX >> 20);
        }
        *ret_bytes += (v[i].text.n / PAGE + 2) * PAGE;
    }
    return 0;
}

static int write_files(struct job *j, const struct content *v, size_t n, size_t bytes, struct err *e)
{
    char path[512];
    int r = mount_tmpfs(j->t, bytes, n, path, e);
    if (r < 0)
        return r;
    _cleanup_(closep) int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (dir < 0)
        return err_errno(e, errno, "open %s", path);
    for (size_t i = 0; r == 0 && i < n; i++) {
        struct ref ref;
        if (ref_at(j->t->spec.ContainerSpec, i, &ref))
            r = write_file(dir, i, &ref, v[i].text, e);
    }
    if (r == 0 && mount(NULL, path, NULL, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) < 0)
        r = err_errno(e, errno, "make %s read-only", path);
    return r;
}

static int write_out(struct job *j, struct err *e)
{
    size_t n = ref_count(j->t->spec.ContainerSpec), bytes;
    struct content *v = calloc(n + 1, sizeof *v);
    CHECK(v);
    int r = fill(j, v, n, &bytes, e);
    if (r == 0)
        r = write_files(j, v, n, bytes, e);
    for (size_t i = 0; i < n; i++)
        safe_done(&v[i].own);
    free(v);
    if (r < 0)
        files_drop(j->t);
    return r;
}

/* ---- asking ---- */

static struct job *job_free(struct job *j)
{
    if (j->call)
        j->call->job = NULL;
    for (size_t i = 0; i < j->n; i++)
        safe_done(&j->v[i].data);
    free(j->v);
    timer_free(j->timer);
    crypto_wipe(&j->key, sizeof j->key);
    free(j);
    return NULL;
}

static void finish(struct job *j, const struct err *e)
{
    struct atask *t = j->t;
    files_done_fn *done = j->done;
    struct err copy = e ? *e : (struct err)ERR_INIT;
    t->files = job_free(j);
    done(t, e ? &copy : NULL);
}

static void go_on(struct job *j)
{
    struct err e = ERR_INIT;
    while (j->at < j->n && j->v[j->at].there)
        j->at++;
    if (j->at < j->n)
        ask(j);
    else
        finish(j, write_out(j, &e) < 0 ? &e : NULL);
}

static void again(struct job *j)
{
    j->pause_ms = j->pause_ms == 0 ? PAUSE_MIN_MS : j->pause_ms * 2 > PAUSE_MAX_MS ? PAUSE_MAX_MS : j->pause_ms * 2;
    timer_arm(j->timer, clock_mono().ms + j->pause_ms);
}

static int take(struct job *j, const struct disp_payload_reply *rep, struct err *e)
{
    struct payload *p = &j->v[j->at];
    j->bytes += rep->Box.n;
    if (j->bytes > TASK_BYTES_MAX)
        return err_set(e, ERR_TOO_BIG, "the secrets and configs of a task may have %u MiB at most",
                       TASK_BYTES_MAX >> 20);
    if (rep->Box.n < BOX_OVERHEAD || !safe_new(&p->data, rep->Box.n))
        return err_set(e, ERR_NOMEM, "out of memory");
    if (box_open(&j->key, rep->Box, (uint8_t *)p->data.p, e) < 0) {
        safe_done(&p->data);
        return -e->code;
    }
    p->data.n = rep->Box.n - BOX_OVERHEAD;
    p->golang = str_is(rep->Templating, "golang");
    p->there = true;
    return 0;
}

/* No answer, or one from a leader that is none any more: asked again. Whatever else it says is final. */
static bool passing(const struct err *e)
{
    return e->code == ERR_UNAVAILABLE || e->code == ERR_TIMEOUT || e->code == ERR_GONE;
}

static void on_payload(void *arg, const void *rep, const struct err *why)
{
    struct call **pp = &calls, *c = arg;
    struct job *j = c->job;
    struct err e = *why;
    while (*pp != c)
        pp = &(*pp)->next;
    *pp = c->next;
    free(c);
    if (!j)
        return;
    j->call = NULL;
    const struct payload *p = &j->v[j->at];
    if (rep && take(j, rep, &e) == 0) {
        j->pause_ms = 0;
        go_on(j);
    } else if (!rep && passing(why)) {
        if (j->pause_ms == 0)
            log_warn("task=%s: %s " STR_FMT ": %s: trying again", j->t->id, word(p->secret), STR_ARG(p->name),
                     why->msg);
        again(j);
    } else {
        err_wrap(&e, "%s " STR_FMT, word(p->secret), STR_ARG(p->name));
        finish(j, &e);
    }
}

static void ask(struct job *j)
{
    const struct payload *p = &j->v[j->at];
    struct agent_dispatch *d = j->t->ag->dispatch;
    struct err e = ERR_INIT;
    struct str session = d ? agent_dispatch_session(d) : STR("");
    if (session.n == 0) { /* files_kick() when there is one */
        again(j);
        return;
    }
    if (box_key_new(&j->key, &e) < 0) {
        finish(j, &e);
        return;
    }
    struct disp_payload q = { .SessionID = session,
                              .TaskID = str_from(j->t->id),
                              .Kind = str_from(word(p->secret)),
                              .ID = p->id,
                              .Key = { (char *)j->key.pub, BOX_KEY } };
    struct call *c = malloc(sizeof *c);
    CHECK(c);
    *c = (struct call){ calls, j };
    calls = j->call = c;
    rpc_send_via(agent_dispatch_gateway(d), STR("leader"), "dispatcherd", &op_disp_payload, &q, CALL_TIMEOUT_MS,
                 on_payload, c);
}

static void on_timer(void *arg)
{
    struct job *j = arg;
    if (!j->call)
        ask(j);
}

void files_kick(struct agent *ag)
{
    for (struct atask *t = ag->tasks, *next; t; t = next) {
        next = t->next;
        if (t->files && !t->files->call) {
            t->files->pause_ms = 0;
            timer_arm(t->files->timer, clock_mono().ms);
        }
    }
}

static void collect(struct job *j, const struct tspec_container *c)
{
    for (size_t i = 0; i < ref_count(c); i++) {
        struct ref r;
        if (ref_at(c, i, &r) && !payload_of(j, &r))
            j->v[j->n++] = (struct payload){ .secret = r.secret, .id = ref_id(&r), .name = ref_name(&r) };
    }
}

int files_prepare(struct atask *t, files_done_fn *done)
{
    const struct tspec_container *c = t->spec.ContainerSpec;
    struct err e = ERR_INIT;
    if (ref_count(c) == 0)
        return 0;
    (void)files_cancel(t);
    struct job *j = calloc(1, sizeof *j);
    CHECK(j);
    j->v = calloc(ref_count(c) + 1, sizeof *j->v);
    CHECK(j->v);
    j->t = t;
    j->done = done;
    t->files = j;
    collect(j, c);
    if (j->n == 0) { /* credential specs only */
        t->files = job_free(j);
        return 0;
    }
    if (timer_open(&j->timer, on_timer, j, &e) < 0)
        finish(j, &e);
    else
        go_on(j);
    return 1;
}

bool files_cancel(struct atask *t)
{
    if (!t->files)
        return false;
    t->files = job_free(t->files);
    return true;
}

/* ---- in the container ---- */

int files_mount(struct atask *t, struct err *e)
{
    const struct tspec_container *c = t->spec.ContainerSpec;
    char dir[512];
    files_path(t->ag, t->id, dir);
    for (size_t i = 0; i < ref_count(c); i++) {
        struct ref r;
        if (!ref_at(c, i, &r))
            continue;
        struct str name = r.r->File->Name;
        const char *base = name.n && name.p[0] == '/' ? "" : r.secret ? "/run/secrets/" : "/";
        char *target = arena_printf(&t->run, "%s" STR_FMT, base, STR_ARG(name));
        char *source = arena_printf(&t->run, "%s/%zu", dir, i);
        if (!target || !source)
            return err_set(e, ERR_NOMEM, "mounts: out of memory");
        if (run_add_bind(t, str_from(source), str_from(target), STR("bind,ro,nosuid,nodev,rprivate"), e) < 0)
            return -e->code;
    }
    return 0;
}

/* ---- leftovers ---- */

void files_leftovers(struct agent *ag)
{
    char dir[512], path[600];
    struct dirent *d;
    files_path(ag, "", dir);
    DIR *dp = opendir(dir);
    while (dp && (d = readdir(dp))) {
        if (d->d_name[0] == '.' || strlen(d->d_name) >= 80)
            continue;
        const struct atask *t = task_find(ag, str_from(d->d_name));
        if (t && t->core.phase < TP_CLEANING)
            continue; /* its container has them; or it is prepared anew, which replaces them */
        log_warn("leftover files of task=%s: removed", d->d_name);
        snprintf(path, sizeof path, "%s/%s", dir, d->d_name);
        drop_path(path);
    }
    if (dp)
        closedir(dp);
}

void files_close(void)
{
    while (calls) { /* their client is gone, so no answer will come */
        struct call *c = calls;
        calls = c->next;
        free(c);
    }
}
