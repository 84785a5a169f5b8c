/*
 * raft_log.c - the log as a whole: its folder, the anchor that says where it begins, writing, compaction, opening.
 *
 * The anchor is a small file, replaced as a whole: magic, id of the data key, then sealed records of who this node is
 * ('i') and of the first entry, the snapshot before it, and the oldest segment with what was true before that ('a').
 */
#include "raftd/raft_log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/proto/mp.h"
#include "common/util/check.h"
#include "raftd/raft_log_priv.h"
#include "raftd/snapshot.h"

#define NEW_DIR "new"
#define OLD_DIR "old"
#define PATH_SIZE LOG_PATH_SIZE
#define ANCHOR_FILE "anchor"
#define ANCHOR_TMP "anchor.tmp"
#define ANCHOR_MAGIC "MSLOG2\n"
#define ANCHOR_MAGIC_SIZE 7u
#define ANCHOR_MAX 4096u
#define KEEP_BUFFER_BYTES (256u << 10) /* idle memory */

/* ---- small things ---- */

static void path_of(char path[PATH_SIZE], const char *dir, const char *name)
{
    snprintf(path, PATH_SIZE, "%s/%s", dir, name);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int dir_sync(const char *dir, struct err *e)
{
    _cleanup_(closep) int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return err_errno(e, errno, "sync %s", dir);
    return 0;
}

/* dir_remove - a folder of plain files. */
static int dir_remove(const char *path, struct err *e)
{
    DIR *d = opendir(path);
    if (d == NULL)
        return errno == ENOENT ? 0 : err_errno(e, errno, "open %s", path);
    int r = 0;
    for (struct dirent *f; r == 0 && (f = readdir(d)) != NULL;) {
        if (strcmp(f->d_name, ".") == 0 || strcmp(f->d_name, "..") == 0)
            continue;
        if (unlinkat(dirfd(d), f->d_name, 0) < 0 && errno != ENOENT)
            r = err_errno(e, errno, "remove %s/%s", path, f->d_name);
    }
    closedir(d);
    if (r == 0 && rmdir(path) < 0 && errno != ENOENT)
        r = err_errno(e, errno, "remove %s", path);
    return r;
}

/* ---- the anchor ---- */

struct anchor {
    uint64_t first, snapshot_index, snapshot_term, seg;
    struct log_base base; /* before segment `seg` */
};

static int anchor_record(struct raft_log *l, struct buf *out, const struct seal_header *h, struct buf *plain,
                         struct err *e)
{
    size_t n = plain->n + SEAL_OVERHEAD;
    uint8_t len[2] = { (uint8_t)(n >> 8), (uint8_t)n };
    buf_put(out, len, 2);
    int r = plain->failed ? err_set(e, ERR_NOMEM, "%s: out of memory", l->dir)
                          : seal_put(l->seal, h, buf_str(plain), out, e);
    buf_done(plain);
    return r;
}

static int anchor_encode(struct raft_log *l, const struct anchor *a, struct buf *out, struct err *e)
{
    uint8_t key_id[SEAL_ID_SIZE];
    struct seal_header h = { .type = 'i', .parts = 1 };
    struct buf b = BUF_INIT;
    seal_key_id(&l->key, key_id);
    buf_put(out, ANCHOR_MAGIC, ANCHOR_MAGIC_SIZE);
    buf_put(out, key_id, sizeof key_id);
    mp_map(&b, 3);
    mp_kv_cstr(&b, "cluster", l->id.cluster_id);
    mp_kv_cstr(&b, "node", l->id.node_id);
    mp_kv_u64(&b, "raft_id", l->id.id);
    int r = anchor_record(l, out, &h, &b, e);
    if (r < 0)
        return r;
    mp_map(&b, 7);
    mp_kv_u64(&b, "first", a->first);
    mp_kv_u64(&b, "seg", a->seg);
    mp_kv_u64(&b, "seq", a->base.seq);
    mp_kv_u64(&b, "term", a->base.hs.term);
    mp_kv_u64(&b, "vote", a->base.hs.vote);
    mp_kv_u64(&b, "last", a->base.last);
    mp_kv_u64(&b, "last_term", a->base.last_term);
    h = (struct seal_header){ .type = 'a', .index = a->snapshot_index, .term = a->snapshot_term, .parts = 1 };
    r = anchor_record(l, out, &h, &b, e);
    if (r == 0 && out->failed)
        r = err_set(e, ERR_NOMEM, "%s: out of memory", l->dir);
    return r;
}

static int anchor_file(struct raft_log *l, struct str bytes, struct err *e)
{
    _cleanup_(closep) int fd =
        openat(l->dir_fd, ANCHOR_TMP, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_errno(e, errno, "create %s/" ANCHOR_TMP, l->dir);
    ssize_t n = write(fd, bytes.p, bytes.n);
    if (n != (ssize_t)bytes.n)
        return err_errno(e, n < 0 ? errno : ENOSPC, "write %s/" ANCHOR_TMP, l->dir);
    if (fsync(fd) < 0 || renameat(l->dir_fd, ANCHOR_TMP, l->dir_fd, ANCHOR_FILE) < 0)
        return err_errno(e, errno, "write %s/" ANCHOR_FILE, l->dir);
    return 0;
}

/* On failure the old one or the new one is there, and both are true as long as no segment is removed. */
static int anchor_write(struct raft_log *l, const struct anchor *a, struct err *e)
{
    struct buf b = BUF_INIT;
    int r = anchor_encode(l, a, &b, e);
    if (r == 0)
        r = anchor_file(l, buf_str(&b), e);
    buf_done(&b);
    if (r == 0)
        return log_dir_sync(l, e);
    unlinkat(l->dir_fd, ANCHOR_TMP, 0);
    return r;
}

static int anchor_take(struct raft_log *l, struct str *in, char type, const char *what, struct seal_header *h,
                       struct buf *plain, struct err *e)
{
    const uint8_t *p = (const uint8_t *)in->p;
    size_t n = in->n >= 2 ? (size_t)p[0] << 8 | p[1] : 0;
    if (n == 0 || n > in->n - 2)
        return err_set(e, ERR_CORRUPT, "%s/" ANCHOR_FILE ": the %s record is missing or cut short", l->dir, what);
    buf_clear(plain);
    int r = seal_take(l->seal, (struct str){ in->p + 2, n }, h, plain, e);
    if (r == 0 && h->type != type)
        r = err_set(e, ERR_CORRUPT, "the record is of another kind");
    if (r < 0)
        return err_wrap(e, "%s/" ANCHOR_FILE ": the %s record", l->dir, what);
    *in = (struct str){ in->p + 2 + n, in->n - 2 - n };
    return 0;
}

static int identity_take(struct raft_log *l, struct str *in, struct buf *b, struct err *e)
{
    struct seal_header h;
    struct str cluster, node;
    int r = anchor_take(l, in, 'i', "identity", &h, b, e);
    if (r < 0)
        return r;
    if (!mp_get_str(buf_str(b), "cluster", &cluster) || !mp_get_str(buf_str(b), "node", &node) ||
        !str_copy(l->id.cluster_id, sizeof l->id.cluster_id, cluster) ||
        !str_copy(l->id.node_id, sizeof l->id.node_id, node) || !mp_get_u64(buf_str(b), "raft_id", &l->id.id))
        return err_set(e, ERR_CORRUPT, "%s/" ANCHOR_FILE ": the identity record is malformed", l->dir);
    return 0;
}

static int anchor_decode(struct raft_log *l, struct str in, struct buf *b, struct anchor *a, struct err *e)
{
    uint8_t key_id[SEAL_ID_SIZE];
    struct seal_header h = { 0 };
    if (in.n < ANCHOR_MAGIC_SIZE + SEAL_ID_SIZE || memcmp(in.p, ANCHOR_MAGIC, ANCHOR_MAGIC_SIZE) != 0)
        return err_set(e, ERR_CORRUPT, "%s/" ANCHOR_FILE ": cut short or altered", l->dir);
    seal_key_id(&l->key, key_id);
    if (memcmp(in.p + ANCHOR_MAGIC_SIZE, key_id, sizeof key_id) != 0)
        return err_set(e, ERR_CORRUPT,
                       "%s/%s is not the key that this log was sealed with, or " ANCHOR_FILE " was altered", l->dir,
                       SEAL_DATA_KEY_FILE);
    in = (struct str){ in.p + ANCHOR_MAGIC_SIZE + SEAL_ID_SIZE, in.n - ANCHOR_MAGIC_SIZE - SEAL_ID_SIZE };
    int r = identity_take(l, &in, b, e);
    if (r == 0)
        r = anchor_take(l, &in, 'a', "anchor", &h, b, e);
    if (r < 0)
        return r;
    struct str m = buf_str(b);
    a->snapshot_index = h.index;
    a->snapshot_term = h.term;
    if (in.n != 0 || !mp_get_u64(m, "first", &a->first) || !mp_get_u64(m, "seg", &a->seg) ||
        !mp_get_u64(m, "seq", &a->base.seq) || !mp_get_u64(m, "term", &a->base.hs.term) ||
        !mp_get_u64(m, "vote", &a->base.hs.vote) || !mp_get_u64(m, "last", &a->base.last) ||
        !mp_get_u64(m, "last_term", &a->base.last_term) || a->first == 0 || a->first > h.index + 1 || a->seg == 0)
        return err_set(e, ERR_CORRUPT, "%s/" ANCHOR_FILE ": the anchor record is malformed", l->dir);
    return 0;
}

static int anchor_read(struct raft_log *l, struct anchor *a, struct err *e)
{
    char p[ANCHOR_MAX];
    struct buf b = BUF_INIT;
    _cleanup_(closep) int fd = openat(l->dir_fd, ANCHOR_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return err_set(e, ERR_CORRUPT, "%s/" ANCHOR_FILE " is missing", l->dir);
    ssize_t n = fd < 0 ? -1 : read(fd, p, sizeof p);
    if (n < 0)
        return err_errno(e, errno, "read %s/" ANCHOR_FILE, l->dir);
    int r = anchor_decode(l, (struct str){ p, (size_t)n }, &b, a, e);
    buf_done(&b);
    return r;
}

/* ---- writing ---- */

static int write_check(const struct raft_log *l, struct err *e)
{
    CHECK(!l->writing);
    return l->broken ? err_set(e, ERR_IO, "%s: an earlier write failed", l->dir) : 0;
}

static struct log_group group_of(const struct raft_log *l, const struct raft_log_write *w)
{
    const struct raft_hard_state *hs = w->hard_state ? w->hard_state : &l->hs;
    struct log_group g = {
        .seq = l->seq, .term = hs->term, .vote = hs->vote, .last = l->last, .last_term = l->last_term
    };
    if (w->truncate_from != 0 && w->truncate_from <= l->last) {
        CHECK(w->truncate_from >= l->first && w->truncate_from > l->snapshot_index);
        g.truncate_from = w->truncate_from;
        g.last = w->truncate_from - 1;
        const struct log_slot *s = log_slot_at(l, g.last);
        g.last_term = g.last == l->snapshot_index ? l->snapshot_term : s ? s->term : 0;
    }
    for (size_t i = 0; i < w->n_entries; i++) {
        CHECK(w->entries[i].index == g.last + 1); /* Log Matching, Raft §5.3: no holes */
        CHECK(w->entries[i].term >= g.last_term);
        g.last = w->entries[i].index;
        g.last_term = w->entries[i].term;
    }
    return g;
}

/* slots_fill - where the entries of the group are that has just been written at the segment's end. */
static void slots_fill(struct raft_log *l, const struct raft_log_write *w)
{
    const struct log_seg *s = log_current(l);
    size_t at = s->used + LOG_GROUP_HEAD + 4 + LOG_STATE_SIZE + SEAL_OVERHEAD;
    for (size_t i = 0; i < w->n_entries; i++) {
        const struct raft_log_entry *en = &w->entries[i];
        CHECK(log_slot_add(l, en->index, en->term, en->type, s, at, NULL) == 0); /* reserved */
        at += log_parts(en) * (size_t)(4 + SEAL_OVERHEAD) + en->data.n;
    }
    CHECK(at <= s->used + l->group.n);
}

int raft_log_begin_write(struct raft_log *l, const struct raft_log_write *w, struct err *e)
{
    int r = write_check(l, e);
    if (r < 0)
        return r;
    struct log_group g = group_of(l, w);
    l->write_ns = now_ns();
    r = log_slots_reserve(l, w->n_entries, e);
    if (r == 0)
        r = log_group_build(l, w, &g, e);
    if (r == 0)
        r = log_group_put(l, e);
    if (r < 0)
        return r;
    if (g.truncate_from != 0)
        log_slots_cut(l, g.truncate_from);
    slots_fill(l, w);
    log_group_apply(l, &g);
    log_current(l)->used += l->group.n;
    l->writing = true;
    for (size_t i = 0; i < w->n_entries; i++)
        l->counts.bytes += w->entries[i].data.n;
    if (l->group.cap > KEEP_BUFFER_BYTES)
        buf_done(&l->group);
    return 0;
}

int raft_log_sync(const struct raft_log *l)
{
    CHECK(l->writing);
    return fdatasync(log_current(l)->fd) < 0 ? -errno : 0;
}

/* Failing, it tells less, and the next time it may not. */
void raft_log_tail_sync(const struct raft_log *l, bool wait)
{
    CHECK(!l->writing);
    if (wait)
        (void)fdatasync(l->tail_fd);
    else
        (void)sync_file_range(l->tail_fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

/* A sync that failed: the kernel then forgets dirty pages, and nothing may be built upon what is left. */
int raft_log_end_write(struct raft_log *l, int sync_result, struct err *e)
{
    CHECK(l->writing);
    l->writing = false;
    if (sync_result < 0) {
        l->broken = true;
        return err_errno(e, -sync_result, "sync %s", l->dir);
    }
    uint64_t ns = now_ns() - l->write_ns;
    l->counts.writes++;
    l->counts.write_ns_sum += ns;
    if (ns > l->counts.write_ns_max)
        l->counts.write_ns_max = ns;
    (void)log_tail_write(l); /* only ever tells of more than there is: too old a one does no harm */
    log_seg_ahead(l);
    return 0;
}

int raft_log_write(struct raft_log *l, const struct raft_log_write *w, struct err *e)
{
    int r = raft_log_begin_write(l, w, e);
    return r < 0 ? r : raft_log_end_write(l, raft_log_sync(l), e);
}

/* ---- compaction ---- */

static const struct log_seg *seg_by_no(const struct raft_log *l, uint64_t no)
{
    for (size_t i = l->n_segs; i-- > 0;)
        if (l->segs[i].no == no)
            return &l->segs[i];
    return NULL;
}

/* anchor_move - a new beginning: first durable, then remembered, then what is before it is removed. */
static int anchor_move(struct raft_log *l, uint64_t first, uint64_t index, uint64_t term, struct err *e)
{
    const struct log_slot *slot = log_slot_at(l, first);
    const struct log_seg *s = slot ? seg_by_no(l, slot->seg) : log_current(l);
    CHECK(s != NULL);
    struct anchor a = { first, index, term, s->no, s->base };
    int r = anchor_write(l, &a, e);
    if (r < 0)
        return r;
    size_t gone = first - l->first;
    gone = gone < l->n_slots ? gone : l->n_slots;
    memmove(l->slots, l->slots + gone, (l->n_slots - gone) * sizeof *l->slots);
    l->n_slots -= gone;
    log_slots_shrink(l);
    l->first = first;
    l->snapshot_index = index;
    l->snapshot_term = term;
    log_segs_drop(l, a.seg);
    return 0;
}

int raft_log_set_id(struct raft_log *l, raft_id id, struct err *e)
{
    raft_id before = l->id.id;
    CHECK(!l->writing && id != 0);
    l->id.id = id;
    int r = anchor_move(l, l->first, l->snapshot_index, l->snapshot_term, e);
    if (r < 0)
        l->id.id = before;
    return r;
}

int raft_log_compact(struct raft_log *l, uint64_t index, uint64_t keep_from, unsigned max, bool *ret_more,
                     struct err *e)
{
    uint64_t term = index == l->snapshot_index ? l->snapshot_term : raft_log_term(l, index);
    uint64_t first = keep_from < l->first ? l->first : keep_from;
    int r = write_check(l, e);
    if (r < 0)
        return r;
    if (term == 0 || index < l->snapshot_index || first > index + 1)
        return err_set(e, ERR_INVALID, "%s: no snapshot can end at entry %llu", l->dir, (unsigned long long)index);
    *ret_more = first > l->first + max;
    if (*ret_more)
        first = l->first + max;
    r = anchor_move(l, first, index, term, e);
    if (r == 0)
        snapshot_clean_older(l->dir, index);
    return r;
}

/* restart - the log is empty behind the snapshot, in a segment of its own. */
static int restart(struct raft_log *l, uint64_t index, uint64_t term, struct err *e)
{
    int r = log_seg_add(l, 0, e);
    if (r < 0)
        return r;
    struct log_seg *s = log_current(l);
    s->base = (struct log_base){ l->seq, l->hs, index, term };
    struct anchor a = { index + 1, index, term, s->no, s->base };
    r = anchor_write(l, &a, e);
    if (r < 0)
        return r;
    l->n_slots = 0;
    l->first = index + 1;
    l->last = l->snapshot_index = index;
    l->last_term = l->snapshot_term = term;
    log_segs_drop(l, a.seg);
    return 0;
}

int raft_log_install(struct raft_log *l, uint64_t index, uint64_t term, struct err *e)
{
    int r = write_check(l, e);
    if (r < 0)
        return r;
    if (index <= l->snapshot_index || term < l->snapshot_term || term > l->hs.term)
        return err_set(e, ERR_INVALID, "%s: a snapshot at entry %llu of term %llu does not fit", l->dir,
                       (unsigned long long)index, (unsigned long long)term);
    r = snapshot_verify(l->dir, &l->key, index, term, e);
    if (r < 0) {
        snapshot_remove(l->dir, index);
        return r;
    }
    r = raft_log_term(l, index) == term ? anchor_move(l, index + 1, index, term, e) : restart(l, index, term, e);
    if (r == 0)
        snapshot_clean_older(l->dir, index);
    return r;
}

/* ---- reading ---- */

uint64_t raft_log_term(struct raft_log *l, uint64_t index)
{
    const struct log_slot *s = log_slot_at(l, index);
    return s ? s->term : 0;
}

uint64_t raft_log_members_at(const struct raft_log *l, uint64_t index)
{
    uint64_t i = index < l->last ? index : l->last;
    for (; i >= l->first; i--)
        if (log_slot_at(l, i)->type == RAFT_ENTRY_MEMBERS)
            return i;
    return 0;
}

int raft_log_read(struct raft_log *l, uint64_t index, struct buf *scratch, struct raft_log_entry *ret, struct err *e)
{
    struct seal_header h;
    const struct log_slot *slot = log_slot_at(l, index);
    const struct log_seg *s = slot ? seg_by_no(l, slot->seg) : NULL;
    if (s == NULL)
        return err_set(e, ERR_CORRUPT, "%s: entry %llu part 0 is missing", l->dir, (unsigned long long)index);
    buf_clear(scratch);
    int r = log_entry_read(l, s, slot->at, index, scratch, &h, e);
    if (r < 0)
        return r;
    *ret = (struct raft_log_entry){
        .index = index, .term = h.term, .type = (enum raft_entry_type)h.entry_type, .data = buf_str(scratch)
    };
    return 0;
}

/* ---- opening ---- */

static struct raft_log *log_new(const char *dir, const char *name, struct err *e)
{
    struct raft_log *l = calloc(1, sizeof *l);
    if (l == NULL || strlen(dir) + 64 > PATH_SIZE) {
        free(l);
        err_set(e, ERR_NOMEM, "open log %.200s: out of memory", dir);
        return NULL;
    }
    path_of(l->dir, dir, name);
    l->dir_fd = l->tail_fd = -1;
    return l;
}

static int dir_open(struct raft_log *l, struct err *e)
{
    l->dir_fd = open(l->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return l->dir_fd < 0 ? err_errno(e, errno, "open %s", l->dir) : 0;
}

static int verify(struct raft_log *l, struct err *e)
{
    struct anchor a = { 0 };
    uint64_t synced = 0, missing;
    int r = anchor_read(l, &a, e);
    if (r < 0)
        return r;
    l->first = a.first;
    l->snapshot_index = a.snapshot_index;
    l->snapshot_term = a.snapshot_term;
    r = log_tail_open(l, false, &synced, e);
    if (r == 0)
        r = log_segs_open(l, a.seg, &a.base, e);
    if (r < 0)
        return r;
    if (synced >= l->seq)
        return err_set(e, ERR_CORRUPT, "%s: entry %llu is missing: the log ends at write %llu of %llu", l->dir,
                       (unsigned long long)l->last + 1, (unsigned long long)l->seq - 1, (unsigned long long)synced);
    missing = l->first + l->n_slots;
    if (l->last + 1 != missing || l->last < l->snapshot_index)
        return err_set(e, ERR_CORRUPT, "%s: entry %llu is missing", l->dir, (unsigned long long)missing);
    return l->snapshot_index == 0 ? 0 : snapshot_verify(l->dir, &l->key, l->snapshot_index, l->snapshot_term, e);
}

int raft_log_open_with(struct raft_log **ret, const char *dir, const struct seal_key *kek, struct err *e)
{
    _cleanup_(raft_log_closep) struct raft_log *l = log_new(dir, RAFT_LOG_DIR, e);
    if (l == NULL)
        return -ERR_NOMEM;
    int r = dir_open(l, e);
    if (r == 0)
        r = kek ? seal_keys_unlock(l->dir, kek, &l->key, e) : seal_keys_read(l->dir, &l->key, e);
    if (r == 0)
        r = seal_new(&l->seal, &l->key, e);
    if (r == 0)
        r = verify(l, e);
    if (r < 0)
        return r;
    snapshot_clean(l->dir, l->snapshot_index);
    unlinkat(l->dir_fd, ANCHOR_TMP, 0);
    *ret = TAKE(l);
    return 0;
}

int raft_log_open(struct raft_log **ret, const char *dir, struct err *e)
{
    return raft_log_open_with(ret, dir, NULL, e);
}

bool raft_log_locked(const char *dir)
{
    char path[PATH_SIZE];
    path_of(path, dir, RAFT_LOG_DIR);
    return seal_keys_locked(path);
}

struct raft_log *raft_log_close(struct raft_log *l)
{
    if (l == NULL)
        return NULL;
    log_segs_close(l);
    if (l->tail_fd >= 0) {
        (void)fdatasync(l->tail_fd);
        close(l->tail_fd);
    }
    if (l->dir_fd >= 0)
        close(l->dir_fd);
    seal_free(l->seal);
    buf_done(&l->group);
    buf_done(&l->small);
    buf_done(&l->window);
    explicit_bzero(&l->key, sizeof l->key);
    free(l);
    return NULL;
}

/* ---- creating and erasing ---- */

bool raft_log_exists(const char *dir)
{
    char path[PATH_SIZE];
    struct stat st;
    path_of(path, dir, NEW_DIR);
    (void)dir_remove(path, NULL);
    path_of(path, dir, OLD_DIR);
    (void)dir_remove(path, NULL);
    path_of(path, dir, RAFT_LOG_DIR);
    return lstat(path, &st) == 0;
}

/* What a new log starts with: entries, or a snapshot. */
struct start {
    const struct raft_log_entry *entries;
    size_t n_entries;
    uint64_t index, term; /* of the snapshot; 0: none */
    raft_log_fill_fn *fill;
    void *arg;
};

static int start_snapshot(struct raft_log *l, const struct start *st, struct err *e)
{
    _cleanup_(snapshot_closep) struct snapshot_writer *w = NULL;
    int r = snapshot_create(&w, l->dir, &l->key, st->index, st->term, e);
    if (r == 0)
        r = st->fill(st->arg, w, e);
    return r < 0 ? r : snapshot_finish(w, e);
}

static int create_unnamed(struct raft_log *l, const struct raft_hard_state *hs, const struct start *st, struct err *e)
{
    int r = dir_open(l, e);
    if (r == 0)
        r = seal_keys_create(l->dir, &l->key, e);
    if (r == 0)
        r = seal_new(&l->seal, &l->key, e);
    if (r == 0 && st->index != 0)
        r = start_snapshot(l, st, e);
    l->first = st->index + 1;
    l->last = l->snapshot_index = st->index;
    l->last_term = l->snapshot_term = st->term;
    l->seq = 1;
    l->unnamed = true;
    if (r == 0)
        r = log_seg_add(l, 0, e);
    if (r < 0)
        return r;
    struct anchor a = { l->first, st->index, st->term, log_current(l)->no, log_current(l)->base };
    r = anchor_write(l, &a, e);
    if (r == 0)
        r = log_tail_open(l, true, NULL, e);
    struct raft_log_write w = { .entries = st->entries, .n_entries = st->n_entries, .hard_state = hs };
    if (r == 0)
        r = raft_log_write(l, &w, e);
    if (r == 0 && fsync(l->tail_fd) < 0)
        r = err_errno(e, errno, "sync %s", l->dir);
    l->unnamed = false;
    return r < 0 ? r : log_dir_sync(l, e);
}

static int create(const char *dir, const struct raft_log_identity *id, const struct raft_hard_state *hs,
                  const struct start *st, struct err *e)
{
    char path[PATH_SIZE], from[PATH_SIZE];
    if (raft_log_exists(dir))
        return err_set(e, ERR_PRECONDITION, "%s: there is a log already", dir);
    struct raft_log *l = log_new(dir, NEW_DIR, e);
    if (l == NULL)
        return -ERR_NOMEM;
    l->id = *id;
    int r = mkdir(l->dir, 0700) < 0 ? err_errno(e, errno, "create %s", l->dir) : 0;
    if (r == 0)
        r = create_unnamed(l, hs, st, e);
    memcpy(from, l->dir, sizeof from);
    raft_log_close(l);
    path_of(path, dir, RAFT_LOG_DIR);
    if (r == 0 && rename(from, path) < 0)
        r = err_errno(e, errno, "rename %s", from);
    if (r == 0)
        return dir_sync(dir, e);
    (void)dir_remove(from, NULL);
    return r;
}

int raft_log_create_with(const char *dir, const struct raft_log_identity *id, const struct raft_hard_state *hs,
                         const struct raft_log_entry *entries, size_t n_entries, struct err *e)
{
    struct start st = { .entries = entries, .n_entries = n_entries };
    return create(dir, id, hs, &st, e);
}

int raft_log_create(const char *dir, const struct raft_log_identity *id, const struct raft_hard_state *hs,
                    struct str first_entry, struct err *e)
{
    struct raft_log_entry en = { .index = 1, .term = hs->term, .type = RAFT_ENTRY_DATA, .data = first_entry };
    return raft_log_create_with(dir, id, hs, &en, 1, e);
}

int raft_log_create_snapshot(const char *dir, const struct raft_log_identity *id, const struct raft_hard_state *hs,
                             uint64_t index, uint64_t term, raft_log_fill_fn *fill, void *arg, struct err *e)
{
    struct start st = { .index = index, .term = term, .fill = fill, .arg = arg };
    return create(dir, id, hs, &st, e);
}

int raft_log_erase(const char *dir, struct err *e)
{
    char from[PATH_SIZE], to[PATH_SIZE];
    path_of(from, dir, RAFT_LOG_DIR);
    path_of(to, dir, OLD_DIR);
    int r = dir_remove(to, e);
    if (r == 0 && rename(from, to) < 0 && errno != ENOENT)
        r = err_errno(e, errno, "rename %s", from);
    if (r == 0)
        r = dir_sync(dir, e);
    return r < 0 ? r : dir_remove(to, e);
}

/* ---- what others ask ---- */

const struct raft_log_identity *raft_log_identity(const struct raft_log *l)
{
    return &l->id;
}

void raft_log_state(const struct raft_log *l, struct raft_log_state *ret)
{
    *ret = (struct raft_log_state){
        .hard_state = l->hs,
        .snapshot_index = l->snapshot_index,
        .snapshot_term = l->snapshot_term,
        .first_index = l->first,
        .last_index = l->last,
    };
}

bool raft_log_broken(const struct raft_log *l)
{
    return l->broken;
}

void raft_log_counts(const struct raft_log *l, struct raft_log_counts *ret)
{
    *ret = l->counts;
    ret->file_bytes = 0;
    for (size_t i = 0; i < l->n_segs; i++)
        ret->file_bytes += l->segs[i].size;
}

const char *raft_log_dir(const struct raft_log *l)
{
    return l->dir;
}

const struct seal_key *raft_log_key(const struct raft_log *l)
{
    return &l->key;
}
