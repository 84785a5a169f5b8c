/* raft_log_seg.c - segments: making, writing, reading and verifying them (raft_log_priv.h). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util/check.h"
#include "raftd/raft_log_priv.h"

#define GROUP_MAGIC 0x4d53676cu /* "MSgl" */
#define WINDOW_BYTES (64u << 10)
#define ZERO_STEP (256u << 10)
#define TAIL_FILE "tail"
#define TAIL_SLOT 512u
#define AHEAD_STACK (64u << 10)

static char zeros[64 << 10]; /* .bss, never written: the kernel's one page of zeros */

static void put_be(uint8_t *p, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> (8 * (n - 1 - i)));
}

static uint64_t get_be(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

static bool is_zero(const void *p, size_t n)
{
    const char *c = p;
    return n == 0 || (c[0] == 0 && memcmp(c, c + 1, n - 1) == 0);
}

void log_seg_name(char name[32], uint64_t no, const char *suffix)
{
    snprintf(name, 32, "seg-%010llu%s", (unsigned long long)no, suffix);
}

static int seg_failed(const struct raft_log *l, uint64_t no, int code, const char *what, struct err *e)
{
    char name[32];
    log_seg_name(name, no, "");
    return err_set(e, code, "%s/%s: %s", l->dir, name, what);
}

int log_dir_sync(const struct raft_log *l, struct err *e)
{
    return !l->unnamed && fsync(l->dir_fd) < 0 ? err_errno(e, errno, "sync %s", l->dir) : 0;
}

/* ---- making segments ---- */

static int pwrite_all(int fd, const char *p, size_t n, size_t at)
{
    while (n > 0) {
        ssize_t w = pwrite(fd, p, n, (off_t)at);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return w < 0 ? -errno : -ENOSPC;
        p += w;
        n -= (size_t)w;
        at += (size_t)w;
    }
    return 0;
}

static int zero_fill(int fd, size_t from, size_t to)
{
    int r = 0;
    for (size_t at = from; r == 0 && at < to;) {
        size_t n = to - at < sizeof zeros ? to - at : sizeof zeros;
        r = pwrite_all(fd, zeros, n, at);
        at += n;
        /* Little at a time: the writes of the moment wait behind it. */
        if (r == 0 && at % ZERO_STEP == 0 && fdatasync(fd) < 0)
            r = -errno;
    }
    return r;
}

/* prep_file - in the thread: the file under its name, or an error and no file. */
static int prep_file(struct log_prep *p)
{
    char tmp[32], name[32];
    log_seg_name(tmp, p->no, ".tmp");
    log_seg_name(name, p->no, "");
    p->fd = openat(p->dir_fd, tmp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (p->fd < 0)
        return -errno;
    /* Says at once that there is no space. Blocks that were only reserved would each cost a journal commit later. */
    int r = fallocate(p->fd, 0, 0, (off_t)p->size) < 0 && errno != EOPNOTSUPP ? -errno : 0;
    if (r == 0)
        r = zero_fill(p->fd, LOG_SEG_HEAD, p->size);
    if (r == 0)
        r = pwrite_all(p->fd, p->head, sizeof p->head, 0);
    if (r == 0 && fsync(p->fd) < 0)
        r = -errno;
    if (r == 0 && renameat(p->dir_fd, tmp, p->dir_fd, name) < 0)
        r = -errno;
    if (r == 0 && !p->unnamed && fsync(p->dir_fd) < 0)
        r = -errno;
    if (r < 0) {
        unlinkat(p->dir_fd, tmp, 0);
        close(p->fd);
        p->fd = -1;
    }
    return r;
}

static void *prep_thread(void *arg)
{
    struct log_prep *p = arg;
    p->result = prep_file(p);
    return NULL;
}

static int prep_begin(struct raft_log *l, size_t need, struct err *e)
{
    struct log_prep *p = &l->prep;
    const struct log_seg *cur = l->n_segs > 0 ? log_current(l) : NULL;
    struct buf head = BUF_INIT;
    uint8_t content[8], len[4];
    size_t size = cur == NULL ? LOG_SEG_FIRST : cur->size * 2;
    if (size > LOG_SEG_MAX)
        size = LOG_SEG_MAX;
    if (size < need + LOG_SEG_HEAD) /* a group larger than that gets one of its own */
        size = (need + LOG_SEG_HEAD + LOG_SEG_FIRST - 1) / LOG_SEG_FIRST * LOG_SEG_FIRST;
    p->no = cur == NULL ? 1 : cur->no + 1;
    p->size = size;
    p->dir_fd = l->dir_fd;
    p->unnamed = l->unnamed;
    put_be(content, size, 8);
    struct seal_header h = { .type = 'g', .index = p->no, .parts = 1 };
    int r = seal_put(l->seal, &h, (struct str){ (char *)content, sizeof content }, &head, e);
    memset(p->head, 0xff, sizeof p->head);
    if (r == 0) {
        CHECK(head.n + 4 <= sizeof p->head);
        put_be(len, head.n, 4);
        memcpy(p->head, len, 4);
        memcpy(p->head + 4, head.p, head.n);
    }
    buf_done(&head);
    return r;
}

static void prep_join(struct raft_log *l)
{
    struct log_prep *p = &l->prep;
    if (!p->running)
        return;
    pthread_join(p->thread, NULL);
    p->running = false;
    p->made = p->result == 0;
}

void log_seg_ahead(struct raft_log *l)
{
    struct log_prep *p = &l->prep;
    const struct log_seg *cur = log_current(l);
    struct err e = ERR_INIT;
    pthread_attr_t attr;
    if (p->running || p->made || cur->used < cur->size / 2 || prep_begin(l, 0, &e) < 0)
        return;
    p->unnamed = false; /* it may get done later than the folder's sync */
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, AHEAD_STACK);
    p->running = pthread_create(&p->thread, &attr, prep_thread, p) == 0; /* if not: made when it is needed */
    pthread_attr_destroy(&attr);
}

static int seg_push(struct raft_log *l, const struct log_seg *s, struct err *e)
{
    struct log_seg *v = realloc(l->segs, (l->n_segs + 1) * sizeof *v);
    if (v == NULL)
        return err_set(e, ERR_NOMEM, "%s: out of memory", l->dir);
    l->segs = v;
    v[l->n_segs++] = *s;
    return 0;
}

int log_seg_add(struct raft_log *l, size_t n, struct err *e)
{
    struct log_prep *p = &l->prep;
    prep_join(l);
    if (p->made && p->size < LOG_SEG_HEAD + n) {
        close(p->fd);
        p->made = false; /* the larger one takes its name */
    }
    if (!p->made) {
        int r = prep_begin(l, n, e);
        if (r < 0)
            return r;
        p->result = prep_file(p);
        if (p->result < 0) {
            char name[32];
            log_seg_name(name, p->no, "");
            return err_errno(e, -p->result, "create %s/%s", l->dir, name);
        }
    }
    struct log_seg s = { .no = p->no,
                         .fd = p->fd,
                         .size = p->size,
                         .used = LOG_SEG_HEAD,
                         .base = { l->seq, l->hs, l->last, l->last_term } };
    int r = seg_push(l, &s, e);
    p->made = r < 0;
    return r;
}

void log_segs_drop(struct raft_log *l, uint64_t before_no)
{
    size_t n = 0;
    while (n + 1 < l->n_segs && l->segs[n].no < before_no) {
        char name[32];
        log_seg_name(name, l->segs[n].no, "");
        unlinkat(l->dir_fd, name, 0); /* what stays is removed when the log is opened */
        close(l->segs[n].fd);
        n++;
    }
    memmove(l->segs, l->segs + n, (l->n_segs - n) * sizeof *l->segs);
    l->n_segs -= n;
}

void log_segs_close(struct raft_log *l)
{
    prep_join(l);
    if (l->prep.made)
        close(l->prep.fd);
    l->prep.made = false;
    for (size_t i = 0; i < l->n_segs; i++)
        close(l->segs[i].fd);
    free(l->segs);
    free(l->slots);
    l->segs = NULL;
    l->slots = NULL;
    l->n_segs = l->n_slots = l->cap_slots = 0;
}

/* ---- entries by index ---- */

int log_slots_reserve(struct raft_log *l, size_t n, struct err *e)
{
    if (l->n_slots + n <= l->cap_slots)
        return 0;
    size_t cap = l->n_slots + n + l->n_slots / 2 + 64;
    struct log_slot *v = realloc(l->slots, cap * sizeof *v);
    if (v == NULL)
        return err_set(e, ERR_NOMEM, "%s: out of memory", l->dir);
    l->slots = v;
    l->cap_slots = cap;
    return 0;
}

int log_slot_add(struct raft_log *l, uint64_t index, uint64_t term, unsigned type, const struct log_seg *s, size_t at,
                 struct err *e)
{
    if (index < l->first)
        return 0;
    CHECK(index == l->first + l->n_slots && at <= UINT32_MAX && s->no <= UINT32_MAX);
    int r = log_slots_reserve(l, 1, e);
    if (r == 0)
        l->slots[l->n_slots++] = (struct log_slot){ (uint32_t)s->no, (uint32_t)at, term, (uint8_t)type };
    return r;
}

void log_slots_shrink(struct raft_log *l)
{
    size_t cap = l->n_slots + l->n_slots / 4 + 64;
    struct log_slot *v = cap < l->cap_slots / 2 ? realloc(l->slots, cap * sizeof *v) : NULL;
    if (v == NULL)
        return;
    l->slots = v;
    l->cap_slots = cap;
}

void log_slots_cut(struct raft_log *l, uint64_t from)
{
    uint64_t n = from > l->first ? from - l->first : 0;
    if (n < l->n_slots)
        l->n_slots = n;
}

const struct log_slot *log_slot_at(const struct raft_log *l, uint64_t index)
{
    return index < l->first || index - l->first >= l->n_slots ? NULL : &l->slots[index - l->first];
}

/* ---- groups ---- */

static uint64_t check_of(const uint8_t *p) /* FNV-1a; against accidents only, what matters is sealed */
{
    uint64_t h = 0xcbf29ce484222325u;
    for (unsigned i = 0; i < 16; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

static int record_put(struct raft_log *l, const struct seal_header *h, struct str plain, struct err *e)
{
    uint8_t len[4];
    put_be(len, plain.n + SEAL_OVERHEAD, 4);
    buf_put(&l->group, len, 4);
    return seal_put(l->seal, h, plain, &l->group, e);
}

uint32_t log_parts(const struct raft_log_entry *en)
{
    size_t n = en->data.n == 0 ? 1 : (en->data.n + RAFT_LOG_CHUNK - 1) / RAFT_LOG_CHUNK;
    return (uint32_t)n;
}

static int entry_put(struct raft_log *l, const struct raft_log_entry *en, struct err *e)
{
    struct seal_header h = {
        .type = 'e', .entry_type = (uint8_t)en->type, .index = en->index, .term = en->term, .parts = log_parts(en)
    };
    int r = 0;
    for (h.part = 0; r == 0 && h.part < h.parts; h.part++) {
        size_t off = (size_t)h.part * RAFT_LOG_CHUNK, left = en->data.n - off;
        struct str part = { en->data.p ? en->data.p + off : NULL, left < RAFT_LOG_CHUNK ? left : RAFT_LOG_CHUNK };
        r = record_put(l, &h, part, e);
    }
    return r;
}

static int state_put(struct raft_log *l, const struct log_group *g, struct err *e)
{
    uint8_t p[LOG_STATE_SIZE];
    struct seal_header h = { .type = 'h', .index = g->last, .term = g->term, .parts = 1 };
    put_be(p, g->seq, 8);
    put_be(p + 8, g->vote, 8);
    put_be(p + 16, g->last_term, 8);
    put_be(p + 24, g->truncate_from, 8);
    put_be(p + 32, g->records, 4);
    return record_put(l, &h, (struct str){ (char *)p, sizeof p }, e);
}

int log_group_build(struct raft_log *l, const struct raft_log_write *w, const struct log_group *g, struct err *e)
{
    struct log_group with = *g;
    with.records = 0;
    for (size_t i = 0; i < w->n_entries; i++)
        with.records += log_parts(&w->entries[i]);
    buf_clear(&l->group);
    if (buf_reserve(&l->group, LOG_GROUP_HEAD) == NULL)
        return err_set(e, ERR_NOMEM, "%s: out of memory", l->dir);
    l->group.n = LOG_GROUP_HEAD;
    int r = state_put(l, &with, e);
    for (size_t i = 0; r == 0 && i < w->n_entries; i++)
        r = entry_put(l, &w->entries[i], e);
    while (r == 0 && l->group.n % LOG_UNIT != 0)
        buf_putc(&l->group, (char)0xff);
    if (r < 0 || l->group.failed || l->group.n > LOG_GROUP_MAX)
        return r < 0 ? r : err_set(e, ERR_NOMEM, "%s: a write of %zu bytes is too large", l->dir, l->group.n);
    uint8_t *p = (uint8_t *)l->group.p;
    put_be(p, GROUP_MAGIC, 4);
    put_be(p + 4, l->group.n, 4);
    put_be(p + 8, g->seq, 8);
    put_be(p + 16, check_of(p), 8);
    return 0;
}

int log_group_put(struct raft_log *l, struct err *e)
{
    struct log_seg *s = log_current(l);
    if (s->used + l->group.n > s->size) {
        int r = log_seg_add(l, l->group.n, e);
        if (r < 0)
            return r;
        s = log_current(l);
    }
    int r = pwrite_all(s->fd, l->group.p, l->group.n, s->used);
    if (r == 0)
        return 0;
    if (zero_fill(s->fd, s->used, s->used + l->group.n) < 0)
        l->broken = true;
    return seg_failed(l, s->no, r == -ENOMEM ? ERR_NOMEM : ERR_IO, strerror(-r), e);
}

/* ---- the tail ---- */

int log_tail_write(struct raft_log *l)
{
    struct seal_header h = { .type = 't', .index = l->seq - 1, .term = l->last, .parts = 1 };
    struct err ignored = ERR_INIT;
    uint8_t len[4];
    put_be(len, SEAL_OVERHEAD, 4);
    buf_clear(&l->small);
    buf_put(&l->small, len, 4);
    if (seal_put(l->seal, &h, (struct str){ NULL, 0 }, &l->small, &ignored) < 0)
        return -ERR_INTERNAL;
    return pwrite_all(l->tail_fd, l->small.p, l->small.n, (size_t)(h.index % 2) * TAIL_SLOT);
}

int log_tail_open(struct raft_log *l, bool create, uint64_t *ret_seq, struct err *e)
{
    char p[2 * TAIL_SLOT];
    struct buf none = BUF_INIT;
    bool found = false;
    l->tail_fd = openat(l->dir_fd, TAIL_FILE, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT : 0), 0600);
    if (l->tail_fd < 0 && errno == ENOENT)
        return err_set(e, ERR_CORRUPT, "%s/" TAIL_FILE " is missing", l->dir);
    if (l->tail_fd < 0)
        return err_errno(e, errno, "open %s/" TAIL_FILE, l->dir);
    if (create) {
        int r = pwrite_all(l->tail_fd, zeros, sizeof p, 0);
        return r < 0 ? err_errno(e, -r, "write %s/" TAIL_FILE, l->dir) : 0;
    }
    ssize_t n = pread(l->tail_fd, p, sizeof p, 0);
    if (n < 0)
        return err_errno(e, errno, "read %s/" TAIL_FILE, l->dir);
    if (n != sizeof p)
        return err_set(e, ERR_CORRUPT, "%s/" TAIL_FILE ": cut short", l->dir);
    for (unsigned i = 0; i < 2; i++) { /* one of them may have been half written */
        struct seal_header h;
        struct str rec = { p + (size_t)i * TAIL_SLOT + 4, SEAL_OVERHEAD };
        if (get_be((uint8_t *)p + (size_t)i * TAIL_SLOT, 4) != SEAL_OVERHEAD ||
            seal_take(l->seal, rec, &h, &none, NULL) < 0 || h.type != 't' || h.index % 2 != i)
            continue;
        if (!found || h.index > *ret_seq)
            *ret_seq = h.index;
        found = true;
    }
    buf_done(&none);
    return found ? 0 : err_set(e, ERR_CORRUPT, "%s/" TAIL_FILE ": the record was altered", l->dir);
}

/* ---- reading ---- */

/* seg_view - n bytes of the file at `at`, until the next call; NULL and *e when they can't be read. */
static const uint8_t *seg_view(struct raft_log *l, const struct log_seg *s, size_t at, size_t n, struct err *e)
{
    if (l->window_seg == s->no && at >= l->window_at && at + n <= l->window_at + l->window.n)
        return (uint8_t *)l->window.p + (at - l->window_at);
    size_t want = n > WINDOW_BYTES ? n : WINDOW_BYTES, got = 0;
    if (want > s->size - at)
        want = s->size - at;
    buf_clear(&l->window);
    l->window_seg = 0;
    char *p = buf_reserve(&l->window, want);
    if (p == NULL) {
        seg_failed(l, s->no, ERR_NOMEM, "out of memory", e);
        return NULL;
    }
    while (got < want) {
        ssize_t r = pread(s->fd, p + got, want - got, (off_t)(at + got));
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            break;
        got += (size_t)r;
    }
    if (got < n) {
        seg_failed(l, s->no, ERR_CORRUPT, "cut short", e);
        return NULL;
    }
    l->window.n = got;
    l->window_seg = s->no;
    l->window_at = at;
    return (uint8_t *)l->window.p;
}

/* record_at - one record, unsealed; *at moves behind it. `end`: where the group ends. */
static int record_at(struct raft_log *l, const struct log_seg *s, size_t *at, size_t end, struct seal_header *h,
                     struct buf *plain, struct err *e)
{
    const uint8_t *p = *at + 4 <= end ? seg_view(l, s, *at, 4, e) : NULL;
    size_t n = p != NULL ? get_be(p, 4) : 0;
    if (n < SEAL_OVERHEAD || n > end - *at - 4)
        return err_set(e, ERR_CORRUPT, "the record is cut short or altered");
    p = seg_view(l, s, *at + 4, n, e);
    if (p == NULL)
        return -e->code;
    *at += 4 + n;
    return seal_take(l->seal, (struct str){ (const char *)p, n }, h, plain, e);
}

/* part_at - one part of an entry; it must be the one that is due. */
static int part_at(struct raft_log *l, const struct log_seg *s, size_t *at, size_t end, uint64_t index, uint32_t part,
                   struct seal_header *h, struct buf *plain, struct err *e)
{
    uint32_t parts = h->parts;
    uint64_t term = h->term;
    int r = record_at(l, s, at, end, h, plain, e);
    if (r == 0 && (h->type != 'e' || h->index != index || h->part != part || h->parts == 0 ||
                   (part > 0 && (h->parts != parts || h->term != term))))
        r = err_set(e, ERR_CORRUPT, "the record belongs elsewhere");
    if (r < 0) {
        char name[32];
        log_seg_name(name, s->no, "");
        err_wrap(e, "%s/%s: entry %llu part %u", l->dir, name, (unsigned long long)index, part);
    }
    return r;
}

int log_entry_read(struct raft_log *l, const struct log_seg *s, size_t at, uint64_t index, struct buf *plain,
                   struct seal_header *h, struct err *e)
{
    struct log_seg filled = *s;
    int r = 0;
    filled.size = s->used; /* the rest of the window would go out of date */
    *h = (struct seal_header){ .parts = 1 };
    for (uint32_t part = 0; r == 0 && part < h->parts; part++)
        r = part_at(l, &filled, &at, filled.size, index, part, h, plain, e);
    if (l->window.cap > 2ul * WINDOW_BYTES) {
        buf_done(&l->window);
        l->window_seg = 0;
    }
    return r;
}

/* ---- verifying ---- */

static int state_at(struct raft_log *l, const struct log_seg *s, size_t *at, size_t end, struct log_group *g,
                    struct err *e)
{
    struct buf b = BUF_INIT;
    struct seal_header h;
    uint64_t seq = g->seq;
    int r = record_at(l, s, at, end, &h, &b, e);
    if (r == 0 && (h.type != 'h' || b.p == NULL || b.n != LOG_STATE_SIZE || get_be((uint8_t *)b.p, 8) != seq))
        r = err_set(e, ERR_CORRUPT, "the record belongs elsewhere");
    if (r == 0) {
        const uint8_t *p = (uint8_t *)b.p;
        *g = (struct log_group){ .seq = seq,
                                 .vote = get_be(p + 8, 8),
                                 .last = h.index,
                                 .last_term = get_be(p + 16, 8),
                                 .term = h.term,
                                 .truncate_from = get_be(p + 24, 8),
                                 .records = (uint32_t)get_be(p + 32, 4) };
    }
    buf_done(&b);
    if (r < 0) {
        char name[32];
        log_seg_name(name, s->no, "");
        err_wrap(e, "%s/%s: the state record of write %llu", l->dir, name, (unsigned long long)seq);
    }
    return r;
}

struct replay {
    uint64_t last, last_term;
};

static int entries_at(struct raft_log *l, const struct log_seg *s, size_t *at, size_t end, const struct log_group *g,
                      struct replay *rp, struct err *e)
{
    struct buf b = BUF_INIT;
    struct seal_header h = { .parts = 1 };
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < g->records;) {
        size_t from = *at;
        for (uint32_t part = 0; r == 0 && part < h.parts && i < g->records; part++, i++) {
            buf_clear(&b);
            if (part == 0)
                h.parts = 1;
            r = part_at(l, s, at, end, rp->last + 1, part, &h, &b, e);
        }
        if (r == 0 && h.term < rp->last_term)
            r = seg_failed(l, s->no, ERR_CORRUPT, "an entry's term is lower than the one before", e);
        /* With entries missing before it, a later write cuts it off: the log begins behind that cut. */
        if (r == 0 && rp->last + 1 <= l->first + l->n_slots)
            r = log_slot_add(l, rp->last + 1, h.term, h.entry_type, s, from, e);
        rp->last++;
        rp->last_term = h.term;
        h.parts = 1;
    }
    buf_done(&b);
    return r;
}

/* group_at - verifies a group and takes it over. */
static int group_at(struct raft_log *l, const struct log_seg *s, size_t at, size_t len, struct err *e)
{
    struct log_group g = { .seq = l->seq };
    struct replay rp = { l->last, l->last_term };
    size_t pos = at + LOG_GROUP_HEAD, end = at + len;
    int r = state_at(l, s, &pos, end, &g, e);
    if (r < 0)
        return r;
    if (g.truncate_from != 0 && g.truncate_from <= rp.last) {
        rp.last = g.truncate_from - 1;
        const struct log_slot *sl = log_slot_at(l, rp.last);
        rp.last_term = sl ? sl->term : 0; /* not known of what is compacted; the snapshot's is of a later time */
        log_slots_cut(l, g.truncate_from);
    }
    r = entries_at(l, s, &pos, end, &g, &rp, e);
    if (r < 0)
        return r;
    if (rp.last != g.last || (rp.last_term != 0 && rp.last_term != g.last_term) || g.term < l->hs.term)
        return seg_failed(l, s->no, ERR_CORRUPT, "a state record does not fit its entries", e);
    for (; pos < end; pos++) {
        const uint8_t *p = seg_view(l, s, pos, 1, e);
        if (p == NULL || *p != 0xff)
            return seg_failed(l, s->no, ERR_CORRUPT, "the end of a record was altered", e);
    }
    log_group_apply(l, &g);
    return 0;
}

void log_group_apply(struct raft_log *l, const struct log_group *g)
{
    l->hs.term = g->term;
    l->hs.vote = g->vote;
    l->last = g->last;
    l->last_term = g->last_term;
    l->seq = g->seq + 1;
}

/* group_head - 1 for a group's header, 0 for zeros, negative for anything else. */
static int group_head(const uint8_t *p, size_t *len, uint64_t *seq)
{
    if (is_zero(p, LOG_GROUP_HEAD))
        return 0;
    if (get_be(p, 4) != GROUP_MAGIC || get_be(p + 16, 8) != check_of(p))
        return -ERR_CORRUPT;
    *len = get_be(p + 4, 4);
    *seq = get_be(p + 8, 8);
    return 1;
}

/* A unit of zeros, which sealed bytes never are: this write did not get to its end. */
static int group_unfinished(struct raft_log *l, const struct log_seg *s, size_t at, size_t len, bool *ret,
                            struct err *e)
{
    *ret = false;
    for (size_t end = at + len; at < end && !*ret; at += LOG_UNIT) {
        const uint8_t *p = seg_view(l, s, at, LOG_UNIT, e);
        if (p == NULL)
            return -e->code;
        *ret = is_zero(p, LOG_UNIT);
    }
    return 0;
}

/* rest_check - what is behind the last whole group: zeros, or what is left of an unfinished one; never a later group.
 * *ret_end: behind the last byte that is not zero. */
static int rest_check(struct raft_log *l, const struct log_seg *s, size_t at, size_t *ret_end, struct err *e)
{
    *ret_end = at;
    for (; at + LOG_UNIT <= s->size; at += LOG_UNIT) {
        size_t len;
        uint64_t seq;
        const uint8_t *p = seg_view(l, s, at, LOG_UNIT, e);
        if (p == NULL)
            return -e->code;
        if (is_zero(p, LOG_UNIT))
            continue;
        if (group_head(p, &len, &seq) == 1 && seq > l->seq)
            return err_set(e, ERR_CORRUPT, "entry %llu part 0 is missing: a later write is there",
                           (unsigned long long)l->last + 1);
        *ret_end = at + LOG_UNIT;
    }
    return 0;
}

static int wipe(struct raft_log *l, const struct log_seg *s, size_t end, struct err *e)
{
    if (end == s->used)
        return 0;
    int r = zero_fill(s->fd, s->used, end);
    if (r == 0 && fdatasync(s->fd) < 0)
        r = -errno;
    l->window_seg = 0;
    return r == 0 ? 0 : seg_failed(l, s->no, ERR_IO, strerror(-r), e);
}

/* group_next - 1: there was one, and it was taken over; 0: there is none, or an unfinished one. */
static int group_next(struct raft_log *l, struct log_seg *s, struct err *e)
{
    size_t len = 0;
    uint64_t seq = 0;
    bool unfinished;
    if (s->used + LOG_UNIT > s->size)
        return 0;
    const uint8_t *p = seg_view(l, s, s->used, LOG_UNIT, e);
    int r = p == NULL ? -e->code : group_head(p, &len, &seq);
    if (p == NULL || r == 0)
        return r;
    if (r < 0 || len < LOG_GROUP_HEAD || len % LOG_UNIT != 0 || len > s->size - s->used)
        return err_set(e, ERR_CORRUPT, "entry %llu: the record was altered", (unsigned long long)l->last + 1);
    if (seq != l->seq)
        return err_set(e, ERR_CORRUPT, "entry %llu is missing: write %llu is where %llu belongs",
                       (unsigned long long)l->last + 1, (unsigned long long)seq, (unsigned long long)l->seq);
    r = group_unfinished(l, s, s->used, len, &unfinished, e);
    if (r < 0 || unfinished)
        return r;
    r = group_at(l, s, s->used, len, e);
    s->used += len;
    return r < 0 ? r : 1;
}

static int groups_read(struct raft_log *l, struct log_seg *s, struct err *e)
{
    size_t end = 0;
    int r;
    do
        r = group_next(l, s, e);
    while (r == 1);
    if (r == 0)
        r = rest_check(l, s, s->used, &end, e);
    return r < 0 ? r : wipe(l, s, end, e);
}

static int seg_head_check(struct raft_log *l, struct log_seg *s, struct err *e)
{
    struct buf b = BUF_INIT;
    struct seal_header h = { 0 };
    struct stat st;
    size_t at = 0;
    if (fstat(s->fd, &st) < 0)
        return err_errno(e, errno, "stat");
    if (st.st_size < (off_t)LOG_SEG_HEAD)
        return err_set(e, ERR_CORRUPT, "cut short: %lld bytes", (long long)st.st_size);
    s->size = (size_t)st.st_size;
    int r = record_at(l, s, &at, LOG_SEG_HEAD, &h, &b, e);
    if (r == 0 && (h.type != 'g' || h.index != s->no || b.p == NULL || b.n != 8))
        r = err_set(e, ERR_CORRUPT, "this is another segment");
    if (r == 0 && b.p != NULL && get_be((uint8_t *)b.p, 8) != s->size)
        r = err_set(e, ERR_CORRUPT, "cut short: %zu of %llu bytes", s->size,
                    (unsigned long long)get_be((uint8_t *)b.p, 8));
    for (; r == 0 && at < LOG_SEG_HEAD; at++) {
        const uint8_t *p = seg_view(l, s, at, 1, e);
        if (p == NULL || *p != 0xff)
            r = err_set(e, ERR_CORRUPT, "the first record was altered");
    }
    buf_done(&b);
    return r;
}

static int seg_read(struct raft_log *l, uint64_t no, struct err *e)
{
    char name[32];
    log_seg_name(name, no, "");
    struct log_seg s = { .no = no, .used = LOG_SEG_HEAD, .base = { l->seq, l->hs, l->last, l->last_term } };
    s.fd = openat(l->dir_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (s.fd < 0 && errno == ENOENT)
        return err_set(e, ERR_CORRUPT, "%s/%s is missing", l->dir, name);
    if (s.fd < 0)
        return err_errno(e, errno, "open %s/%s", l->dir, name);
    int r = seg_head_check(l, &s, e);
    if (r == 0)
        r = seg_push(l, &s, e);
    if (r < 0)
        close(s.fd);
    else
        r = groups_read(l, log_current(l), e);
    if (r < 0 && strstr(e->msg, name) == NULL)
        err_wrap(e, "%s/%s", l->dir, name);
    return r;
}

/* dir_read - the highest number that is there; clears away what is older, or was never finished. */
static int dir_read(struct raft_log *l, uint64_t first_no, uint64_t *ret_last, struct err *e)
{
    int fd = openat(l->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (d == NULL) {
        closep(&fd);
        return err_errno(e, errno, "read %s", l->dir);
    }
    *ret_last = first_no;
    for (struct dirent *f; (f = readdir(d)) != NULL;) {
        unsigned long long no;
        char *end;
        if (strncmp(f->d_name, "seg-", 4) != 0 || strspn(f->d_name + 4, "0123456789") != 10)
            continue;
        no = strtoull(f->d_name + 4, &end, 10);
        if (*end != 0 || no < first_no)
            unlinkat(l->dir_fd, f->d_name, 0);
        else if (no > *ret_last)
            *ret_last = no;
    }
    closedir(d);
    return 0;
}

int log_segs_open(struct raft_log *l, uint64_t first_no, const struct log_base *base, struct err *e)
{
    uint64_t last_no = first_no;
    l->seq = base->seq;
    l->hs = base->hs;
    l->last = base->last;
    l->last_term = base->last_term;
    int r = dir_read(l, first_no, &last_no, e);
    for (uint64_t no = first_no; r == 0 && no <= last_no; no++)
        r = seg_read(l, no, e);
    if (r == 0 && l->n_segs > 1 && log_current(l)->used == LOG_SEG_HEAD) { /* made ahead of its time */
        struct log_seg *s = log_current(l);
        l->prep = (struct log_prep){ .made = true, .no = s->no, .size = s->size, .fd = s->fd, .dir_fd = l->dir_fd };
        l->n_segs--;
    }
    buf_done(&l->window);
    l->window_seg = 0;
    return r;
}
