/* agent_logs.c - see agent_logs.h. */
#include "agentd/agent_logs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agentd/ctr_log.h"
#include "agentd/fsutil.h"
#include "common/daemon/daemon.h"
#include "common/util/cleanup.h"

#define GENERATIONS_MAX (AGENT_LOG_FILES_MAX + 1) /* one may be between two names */
#define FOLLOWERS_MAX 1024

struct watch { /* of one task's folder, for rotation */
    struct watch *next;
    int wd;
    unsigned keep; /* files, the current one included */
    char task[80];
};

struct follower { /* a call that waits for more */
    struct follower *next;
    struct agent_logs_ctx *l;
    struct rpc_call *call;
    struct agent_logs req; /* text lives as long as the call */
    char task[80];
    int wd;
    struct timer *timer;
};

struct agent_logs_ctx {
    sd_event *loop;
    char dir[500];
    logs_state_fn *state;
    void *arg;
    int rotate_fd, follow_fd; /* inotify: renames; writes (-1 until somebody follows) */
    sd_event_source *rotate_source, *follow_source;
    struct watch *watches;
    struct follower *followers;
    unsigned nfollowers;
};

static void path_of(const struct agent_logs_ctx *l, const char *task, const char *name, char out[700])
{
    snprintf(out, 700, "%s/%.80s%s%s", l->dir, task, name ? "/" : "", name ? name : "");
}

static uint64_t inode_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_ino : 0;
}

/* ---- rotation ---- */

static void rotate(struct agent_logs_ctx *l, const char *task, unsigned files)
{
    char cur[700], keep[700], from[700], to[700], name[32];
    path_of(l, task, "log", cur);
    path_of(l, task, "log.keep", keep);
    if (inode_of(cur) == 0 || inode_of(cur) == inode_of(keep))
        return;
    for (unsigned i = files > 1 ? files - 1 : 0; i > 0 && inode_of(keep) != 0; i--) {
        snprintf(name, sizeof name, "log.%u", i);
        path_of(l, task, name, to);
        if (i > 1) {
            snprintf(name, sizeof name, "log.%u", i - 1);
            path_of(l, task, name, from);
        }
        (void)rename(i > 1 ? from : keep, to);
    }
    (void)unlink(keep);
    if (link(cur, keep) < 0)
        log_warn("task=%s: keep log: %s", task, strerror(errno));
}

static struct watch *find_watch(struct agent_logs_ctx *l, int wd, const char *task)
{
    struct watch *w = l->watches;
    while (w && (task ? strcmp(w->task, task) != 0 : w->wd != wd))
        w = w->next;
    return w;
}

static void rotated(void *arg, const struct inotify_event *ev)
{
    struct agent_logs_ctx *l = arg;
    struct watch *w = find_watch(l, ev->wd, NULL);
    if (w && ev->len && strcmp(ev->name, "log") == 0)
        rotate(l, w->task, w->keep);
}

static int on_rotate(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
    (void)s;
    (void)revents;
    fs_watch_read(fd, rotated, userdata);
    return 0;
}

int agent_logs_begin(struct agent_logs_ctx *l, const char *task_id, unsigned keep_files, struct err *e)
{
    char dir[700], cur[700];
    path_of(l, task_id, NULL, dir);
    path_of(l, task_id, "log", cur);
    int r = fs_mkdirs(dir, 0700, e);
    if (r < 0)
        return r;
    _cleanup_(closep) int fd = open(cur, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(e, errno, "make %s", cur);
    if (keep_files > AGENT_LOG_FILES_MAX)
        keep_files = AGENT_LOG_FILES_MAX;
    rotate(l, task_id, keep_files);
    if (find_watch(l, -1, task_id))
        return 0;
    struct watch *w = calloc(1, sizeof *w);
    int wd = w ? inotify_add_watch(l->rotate_fd, dir, IN_MOVED_TO | IN_ONLYDIR) : -1;
    if (wd < 0) {
        free(w);
        log_warn("task=%s: watch log: %s", task_id, strerror(errno));
        return 0; /* only rotated files are lost */
    }
    w->wd = wd;
    w->keep = keep_files;
    snprintf(w->task, sizeof w->task, "%s", task_id);
    w->next = l->watches;
    l->watches = w;
    return 0;
}

static void unwatch(struct agent_logs_ctx *l, const char *task_id)
{
    struct watch **pp = &l->watches;
    while (*pp && strcmp((*pp)->task, task_id) != 0)
        pp = &(*pp)->next;
    if (*pp) {
        struct watch *w = *pp;
        *pp = w->next;
        inotify_rm_watch(l->rotate_fd, w->wd);
        free(w);
    }
}

/* ---- reading ---- */

struct gen { /* one file, mapped */
    uint64_t inode;
    struct str text;
    int64_t first_ns;
};

struct page { /* a reply being built */
    struct agent_log_line *v;
    size_t n, cap;
    size_t bytes;
    bool full;
};

static bool gen_map(const char *path, struct gen *g)
{
    struct stat st;
    struct log_rec r;
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return false;
    *g = (struct gen){ .inode = (uint64_t)st.st_ino };
    if (st.st_size == 0)
        return true;
    void *m = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (m == MAP_FAILED)
        return false;
    g->text = (struct str){ m, (size_t)st.st_size };
    struct str s = g->text;
    if (log_next(&s, &r) == 1)
        g->first_ns = r.time.ns;
    return true;
}

/* newest first */
static size_t gens_open(const struct agent_logs_ctx *l, const char *task, struct gen g[GENERATIONS_MAX])
{
    char path[700], name[32];
    size_t n = 0;
    path_of(l, task, "log", path);
    if (gen_map(path, &g[n]))
        n++;
    path_of(l, task, "log.keep", path);
    if (n < 2 && gen_map(path, &g[n])) {
        if (n == 1 && g[0].inode == g[1].inode) {
            if (g[1].text.n)
                munmap((void *)(uintptr_t)g[1].text.p, g[1].text.n);
        } else {
            n++;
        }
    }
    for (unsigned i = 1; i < GENERATIONS_MAX && n < GENERATIONS_MAX; i++) {
        snprintf(name, sizeof name, "log.%u", i);
        path_of(l, task, name, path);
        if (gen_map(path, &g[n]))
            n++;
    }
    return n;
}

static void gens_close(struct gen *g, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (g[i].text.n)
            munmap((void *)(uintptr_t)g[i].text.p, g[i].text.n);
}

static unsigned streams_of(const struct agent_logs *req)
{
    return (req->Stdout ? 1u : 0) | (req->Stderr ? 2u : 0);
}

/* where reading begins: *ret_gen and the offset in it */
static size_t start_at(const struct agent_logs *req, const struct gen *g, size_t n, bool ended, size_t *ret_gen,
                       size_t *ret_done)
{
    struct log_cursor c;
    *ret_done = 0;
    *ret_gen = n - 1;
    if (log_cursor_parse(req->Cursor, &c)) {
        for (size_t i = 0; i < n; i++) {
            if (g[i].inode != c.inode)
                continue;
            *ret_gen = i;
            /* an inode may be used again for a new file: then its first record differs */
            if (c.offset > g[i].text.n || (c.first_ns != g[i].first_ns && c.done != 0))
                return 0;
            *ret_done = c.done;
            return c.offset;
        }
        return 0; /* rotated away meanwhile: from the oldest that is left */
    }
    if (req->Tail < 0)
        return 0;
    uint64_t left = (uint64_t)req->Tail;
    for (size_t i = 0; i < n; i++) {
        size_t off = log_tail(g[i].text, streams_of(req), i == 0 && ended, &left);
        *ret_gen = i;
        if (left == 0)
            return off;
    }
    return 0;
}

static bool page_add(struct page *p, struct arena *a, const struct log_rec *r)
{
    if (p->n == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 64;
        struct agent_log_line *v = arena_array(a, cap, sizeof *v);
        if (!v)
            return false;
        if (p->n)
            memcpy(v, p->v, p->n * sizeof *v);
        p->v = v;
        p->cap = cap;
    }
    struct str data = r->text;
    if (!r->partial) {
        char *t = arena_alloc(a, data.n + 2);
        if (!t)
            return false;
        if (data.n)
            memcpy(t, data.p, data.n);
        t[data.n] = '\n';
        data = (struct str){ t, data.n + 1 };
    } else {
        data = arena_str(a, data);
    }
    p->v[p->n++] = (struct agent_log_line){ .Stream = (uint64_t)r->stream, .Time = r->time.ns, .Data = data };
    p->bytes += data.n;
    return true;
}

/* The beginning of a line whose end has not come yet. The writer's pieces are put together again, as Docker does: what
 * a program writes bit by bit is one line, with one time and one name in front. */
struct unfinished {
    struct buf text;
    size_t start; /* offset of its first record */
    struct log_rec last;
};

#define LINE_MAX_BYTES 16384 /* longer lines come in pieces of about this size */

struct reading {
    const struct agent_logs *req;
    struct page *page;
    struct arena *a;
    struct unfinished open[2]; /* stdout, stderr */
    size_t done;               /* lines that end up to here were given out before */
};

/* false: no memory for more */
static bool give_line(struct reading *rd, struct unfinished *u, const struct log_rec *last, size_t end)
{
    struct log_rec r = *last;
    bool wanted = (streams_of(rd->req) & (1u << (r.stream - 1))) && (!rd->req->Since || r.time.ns >= rd->req->Since);
    if (u->text.n)
        r.text = buf_str(&u->text);
    bool ok = end <= rd->done || !wanted || page_add(rd->page, rd->a, &r);
    buf_clear(&u->text);
    return ok;
}

static bool take_record(struct reading *rd, const struct log_rec *r, size_t start, size_t end)
{
    struct unfinished *u = &rd->open[r->stream - 1];
    if (!r->partial && u->text.n == 0)
        return give_line(rd, u, r, end);
    if (u->text.n == 0)
        u->start = start;
    u->last = *r;
    buf_put(&u->text, r->text.p, r->text.n);
    return (r->partial && u->text.n < LINE_MAX_BYTES) || give_line(rd, u, r, end);
}

static struct log_cursor position(const struct reading *rd, const struct gen *f, size_t at)
{
    struct log_cursor c = {
        .inode = f->inode, .offset = at, .first_ns = f->first_ns, .done = at > rd->done ? at : rd->done
    };
    for (size_t i = 0; i < 2; i++)
        if (rd->open[i].text.n && rd->open[i].start < c.offset)
            c.offset = rd->open[i].start;
    return c;
}

/* one file, from off; false: the page is full or time is up, *ret tells where to go on */
static bool read_gen(struct reading *rd, const struct gen *f, size_t off, bool flush, struct log_cursor *ret,
                     bool *ret_past)
{
    struct str s = { f->text.p ? f->text.p + off : NULL, f->text.n - off };
    struct log_rec r;
    for (;;) {
        size_t at = f->text.n - s.n;
        *ret = position(rd, f, at);
        rd->page->full = rd->page->bytes >= AGENT_LOG_BYTES_MAX / 2 || rd->page->n >= 20000;
        if (rd->page->full)
            return false;
        if (log_next(&s, &r) == 0)
            break;
        *ret_past = rd->req->Until && r.time.ns > rd->req->Until;
        if (*ret_past)
            return false;
        if (!take_record(rd, &r, at, f->text.n - s.n)) {
            rd->page->full = true;
            return false;
        }
    }
    for (size_t i = 0; flush && i < 2; i++) /* no more comes into this file */
        if (rd->open[i].text.n && !give_line(rd, &rd->open[i], &rd->open[i].last, f->text.n + 1))
            rd->page->full = true;
    *ret = position(rd, f, f->text.n - s.n);
    return !rd->page->full;
}

/* reads forward from (gen, off); returns the cursor after the last line */
static struct log_cursor fill(struct reading *rd, const struct gen *g, size_t gen, size_t off, bool ended,
                              bool *ret_past_until)
{
    struct log_cursor cur = { 0 };
    *ret_past_until = false;
    for (size_t i = gen + 1; i > 0; i--) {
        if (!read_gen(rd, &g[i - 1], off, i > 1 || ended, &cur, ret_past_until))
            break;
        off = rd->done = 0;
    }
    buf_done(&rd->open[0].text);
    buf_done(&rd->open[1].text);
    return cur;
}

/* answer - true when the call was answered (or failed) */
static bool answer(struct agent_logs_ctx *l, struct rpc_call *c, const struct agent_logs *req, const char *task,
                   bool must)
{
    struct gen g[GENERATIONS_MAX];
    struct agent_logs_reply rep = { 0 };
    struct page p = { 0 };
    struct arena *a = rpc_arena(c);
    bool ended = false, past = false;
    char cursor[120] = "";
    if (!l->state(l->arg, req->TaskID, &ended)) {
        rpc_fail(c, ERR_NOT_FOUND, "task " STR_FMT " not found", STR_ARG(req->TaskID));
        return true;
    }
    size_t n = gens_open(l, task, g);
    if (n > 0) {
        struct reading rd = { .req = req, .page = &p, .a = a, .open = { { .text = BUF_INIT }, { .text = BUF_INIT } } };
        size_t gen, off = start_at(req, g, n, ended, &gen, &rd.done);
        struct log_cursor cur = fill(&rd, g, gen, off, ended, &past);
        if (cur.inode)
            snprintf(cursor, sizeof cursor, "%" PRIu64 ":%" PRIu64 ":%" PRId64 ":%" PRIu64, cur.inode, cur.offset,
                     cur.first_ns, cur.done);
    }
    rep.Lines = (struct list){ p.v, p.n };
    rep.Cursor = arena_str(a, cursor[0] ? str_from(cursor) : req->Cursor);
    rep.End = past || (ended && !p.full);
    bool now = must || p.n > 0 || rep.End;
    if (now)
        rpc_reply(c, &rep);
    gens_close(g, n);
    return now;
}

/* ---- followers ---- */

static void follower_drop(struct follower *f)
{
    struct follower **pp = &f->l->followers;
    bool shared = false;
    while (*pp != f)
        pp = &(*pp)->next;
    *pp = f->next;
    f->l->nfollowers--;
    for (struct follower *o = f->l->followers; o; o = o->next)
        shared = shared || o->wd == f->wd;
    if (!shared && f->wd >= 0)
        inotify_rm_watch(f->l->follow_fd, f->wd);
    timer_free(f->timer);
    free(f);
}

static void on_follow_timeout(void *arg)
{
    struct follower *f = arg;
    (void)answer(f->l, f->call, &f->req, f->task, true);
    follower_drop(f);
}

static void wake(struct agent_logs_ctx *l, int wd, const char *task, bool must)
{
    for (struct follower *f = l->followers, *next; f; f = next) {
        next = f->next;
        if ((task ? strcmp(f->task, task) == 0 : f->wd == wd) && answer(l, f->call, &f->req, f->task, must))
            follower_drop(f);
    }
}

static void written(void *arg, const struct inotify_event *ev)
{
    wake(arg, ev->wd, NULL, false);
}

static int on_follow(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
    (void)s;
    (void)revents;
    fs_watch_read(fd, written, userdata);
    return 0;
}

/* Opened by the first who follows a log: the kernel gives a user 128 of these, for everything that runs as root.
 * Without one a follower is answered when its time is up. */
static void follow_open(struct agent_logs_ctx *l)
{
    if (l->follow_fd >= 0)
        return;
    l->follow_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (l->follow_fd >= 0 && sd_event_add_io(l->loop, &l->follow_source, l->follow_fd, EPOLLIN, on_follow, l) >= 0)
        return;
    log_warn("logs: followers are not told at once: inotify: %s", strerror(errno));
    closep(&l->follow_fd);
    l->follow_fd = -1;
}

void agent_logs_op(struct agent_logs_ctx *l, struct rpc_call *c, const struct agent_logs *req)
{
    struct err e = ERR_INIT;
    struct follower *f;
    char task[80], dir[700];
    if (!str_copy(task, sizeof task, req->TaskID) || strchr(task, '/') || task[0] == '.') {
        rpc_fail(c, ERR_INVALID, "bad task id");
        return;
    }
    if (answer(l, c, req, task, req->WaitMs == 0 || l->nfollowers >= FOLLOWERS_MAX))
        return;
    f = calloc(1, sizeof *f);
    if (!f || timer_open(&f->timer, on_follow_timeout, f, &e) < 0) {
        free(f);
        rpc_fail(c, ERR_NOMEM, "logs: out of memory");
        return;
    }
    f->l = l;
    f->call = c;
    f->req = *req;
    snprintf(f->task, sizeof f->task, "%s", task);
    path_of(l, task, NULL, dir);
    follow_open(l);
    f->wd = inotify_add_watch(l->follow_fd, dir, IN_MODIFY | IN_MOVED_TO | IN_ONLYDIR);
    f->next = l->followers;
    l->followers = f;
    l->nfollowers++;
    timer_arm(f->timer, clock_mono().ms + req->WaitMs);
    if (answer(l, c, &f->req, task, false)) /* what came between the look and the watch */
        follower_drop(f);
}

void agent_logs_end(struct agent_logs_ctx *l, const char *task_id)
{
    unwatch(l, task_id);
    wake(l, -1, task_id, false);
}

void agent_logs_remove(struct agent_logs_ctx *l, const char *task_id)
{
    char dir[700];
    unwatch(l, task_id);
    wake(l, -1, task_id, true);
    path_of(l, task_id, NULL, dir);
    fs_remove_tree(dir);
}

/* ---- opening ---- */

int agent_logs_open(struct agent_logs_ctx **ret, sd_event *loop, const char *state_dir, logs_state_fn *state, void *arg,
                    struct err *e)
{
    struct agent_logs_ctx *l = calloc(1, sizeof *l);
    if (!l)
        return err_set(e, ERR_NOMEM, "logs: out of memory");
    l->loop = loop;
    l->state = state;
    l->arg = arg;
    snprintf(l->dir, sizeof l->dir, "%s/tasks", state_dir);
    l->rotate_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    l->follow_fd = -1;
    int r = l->rotate_fd < 0 ? err_errno(e, errno, "logs: inotify") : 0;
    if (r == 0 && (r = sd_event_add_io(loop, &l->rotate_source, l->rotate_fd, EPOLLIN, on_rotate, l)) < 0)
        r = err_errno(e, -r, "logs: watch");
    if (r < 0) {
        agent_logs_close(l);
        return r;
    }
    *ret = l;
    return 0;
}

struct agent_logs_ctx *agent_logs_close(struct agent_logs_ctx *l)
{
    if (!l)
        return NULL;
    while (l->followers)
        follower_drop(l->followers); /* NOLINT(clang-analyzer-unix.Malloc): it takes itself off the list */
    while (l->watches) {
        struct watch *w = l->watches;
        l->watches = w->next;
        free(w);
    }
    sd_event_source_disable_unref(l->rotate_source);
    sd_event_source_disable_unref(l->follow_source);
    closep(&l->rotate_fd);
    closep(&l->follow_fd);
    free(l);
    return NULL;
}
