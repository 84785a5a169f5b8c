/*
 * raft_log.c - the log in LMDB.
 *
 * All records are in one database, so that a small write dirties as few pages as can be. Keys, in this order:
 *   01                    identity
 *   02                    id of the data key, in the clear
 *   03                    anchor: where the log starts and which snapshot precedes it
 *   10 index(8) part(4)   entries
 *   20                    state: term, vote and the last index; written with every append, so that entries cut off the
 *                         end are missed. It sorts behind the entries, and so lies on the page that an append writes
 *                         anyway.
 * MDB_NOMEMINIT is not used: it would write whatever was in the heap to the disk.
 */
#include "raftd/raft_log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "common/proto/mp.h"
#include "common/util/check.h"
#include "raftd/snapshot.h"

#define LOG_MAP_BYTES (16ull << 30) /* address space; the file is as large as its content has been */
#define NEW_DIR "new"
#define OLD_DIR "old"
#define PATH_SIZE 512
#define FULL_BYTES (1u << 20)

#define K_IDENTITY 0x01
#define K_KEY_ID 0x02
#define K_ANCHOR 0x03
#define K_ENTRY 0x10
#define K_STATE 0x20
#define ENTRY_KEY 13u

struct raft_log {
    char dir[PATH_SIZE];
    MDB_env *env;
    MDB_dbi dbi;
    struct seal *seal;
    struct seal_key key;
    struct raft_log_identity id;
    struct raft_hard_state hs;
    uint64_t first, last, last_term;
    uint64_t snapshot_index, snapshot_term;
    struct buf sealed; /* scratch */
    bool broken;
    struct raft_log_counts counts;
};

/* ---- errors and small things ---- */

static int lmdb_failed(int rc, struct err *e, const char *path, const char *what)
{
    if (rc == MDB_MAP_FULL)
        return err_set(e, ERR_IO, "%s/data.mdb: %s: the log is at its size limit", path, what);
    if (rc == MDB_CORRUPTED || rc == MDB_PAGE_NOTFOUND || rc == MDB_INVALID || rc == MDB_VERSION_MISMATCH)
        return err_set(e, ERR_CORRUPT, "%s/data.mdb: %s: %s", path, what, mdb_strerror(rc));
    if (rc == ENOMEM)
        return err_set(e, ERR_NOMEM, "%s/data.mdb: %s: out of memory", path, what);
    return err_set(e, ERR_IO, "%s/data.mdb: %s: %s", path, what, mdb_strerror(rc));
}

static void path_of(char path[PATH_SIZE], const char *dir, const char *name)
{
    snprintf(path, PATH_SIZE, "%s/%s", dir, name);
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

static size_t key_entry(uint8_t key[ENTRY_KEY], uint64_t index, uint32_t part)
{
    key[0] = K_ENTRY;
    for (unsigned i = 0; i < 8; i++)
        key[1 + i] = (uint8_t)(index >> (56 - 8 * i));
    for (unsigned i = 0; i < 4; i++)
        key[9 + i] = (uint8_t)(part >> (24 - 8 * i));
    return ENTRY_KEY;
}

static uint64_t key_index(const MDB_val *k)
{
    const uint8_t *p = k->mv_data;
    uint64_t v = 0;
    for (unsigned i = 1; i < 9; i++)
        v = v << 8 | p[i];
    return v;
}

/* ---- records ---- */

static int record_put(struct raft_log *l, MDB_txn *txn, void *key, size_t key_len, const struct seal_header *h,
                      struct str plain, struct err *e)
{
    MDB_val k = { key_len, key };
    buf_clear(&l->sealed);
    int r = seal_put(l->seal, h, plain, &l->sealed, e);
    if (r < 0)
        return r;
    MDB_val v = { l->sealed.n, l->sealed.p };
    r = mdb_put(txn, l->dbi, &k, &v, 0);
    return r == 0 ? 0 : lmdb_failed(r, e, l->dir, "write");
}

/* record_take - unseals one record; it must be the one that its key promises. */
static int record_take(struct raft_log *l, const MDB_val *v, char type, struct seal_header *h, struct buf *plain,
                       const char *what, struct err *e)
{
    struct str sealed = { v->mv_data, v->mv_size };
    int r = seal_take(l->seal, sealed, h, plain, e);
    if (r == 0 && h->type != type)
        r = err_set(e, ERR_CORRUPT, "the record is of another kind");
    if (r < 0)
        err_wrap(e, "%s/data.mdb: %s", l->dir, what);
    return r;
}

static int single_get(struct raft_log *l, MDB_txn *txn, uint8_t key, char type, struct buf *plain,
                      struct seal_header *h, const char *what, struct err *e)
{
    MDB_val k = { 1, &key }, v;
    int r = mdb_get(txn, l->dbi, &k, &v);
    if (r == MDB_NOTFOUND)
        return err_set(e, ERR_CORRUPT, "%s/data.mdb: %s is missing", l->dir, what);
    if (r != 0)
        return lmdb_failed(r, e, l->dir, what);
    buf_clear(plain);
    return record_take(l, &v, type, h, plain, what, e);
}

static int state_put(struct raft_log *l, MDB_txn *txn, const struct raft_hard_state *hs, uint64_t last,
                     uint64_t last_term, struct err *e)
{
    uint8_t key = K_STATE;
    struct buf b = BUF_INIT;
    mp_map(&b, 2);
    mp_kv_u64(&b, "vote", hs->vote);
    mp_kv_u64(&b, "last_term", last_term);
    struct seal_header h = { .type = 'h', .index = last, .term = hs->term, .part = 0, .parts = 1 };
    int r = record_put(l, txn, &key, 1, &h, buf_str(&b), e);
    buf_done(&b);
    return r;
}

static int anchor_put(struct raft_log *l, MDB_txn *txn, uint64_t first, uint64_t snap_index, uint64_t snap_term,
                      struct err *e)
{
    uint8_t key = K_ANCHOR;
    struct buf b = BUF_INIT;
    mp_map(&b, 1);
    mp_kv_u64(&b, "first", first);
    struct seal_header h = { .type = 'a', .index = snap_index, .term = snap_term, .part = 0, .parts = 1 };
    int r = record_put(l, txn, &key, 1, &h, buf_str(&b), e);
    buf_done(&b);
    return r;
}

static int entry_put(struct raft_log *l, MDB_txn *txn, const struct raft_log_entry *en, struct err *e)
{
    uint64_t n = en->data.n == 0 ? 1 : (en->data.n + RAFT_LOG_CHUNK - 1) / RAFT_LOG_CHUNK;
    struct seal_header h = {
        .type = 'e', .entry_type = (uint8_t)en->type, .index = en->index, .term = en->term, .parts = (uint32_t)n
    };
    CHECK(n < UINT32_MAX);
    int r = 0;
    for (h.part = 0; r == 0 && h.part < h.parts; h.part++) {
        uint8_t key[ENTRY_KEY];
        size_t off = (size_t)h.part * RAFT_LOG_CHUNK, left = en->data.n - off;
        struct str part = { en->data.p ? en->data.p + off : NULL, left < RAFT_LOG_CHUNK ? left : RAFT_LOG_CHUNK };
        r = record_put(l, txn, key, key_entry(key, en->index, h.part), &h, part, e);
    }
    return r;
}

/* ---- writing ---- */

/* LMDB makes EIO of a short write, which is how a file system runs full in the middle of one. */
static bool disk_full(const struct raft_log *l, int rc)
{
    struct statvfs fs;
    if (rc == ENOSPC || rc == EDQUOT || rc == EFBIG)
        return true;
    return rc == EIO && statvfs(l->dir, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < FULL_BYTES;
}

/* A failed commit leaves the previous state on disk. But when even LMDB can't tell (its meta page, a sync that failed:
 * the kernel then forgets dirty pages), nothing may be built upon it. */
static int commit(struct raft_log *l, MDB_txn *txn, struct err *e)
{
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    int rc = mdb_txn_commit(txn);
    clock_gettime(CLOCK_MONOTONIC, &b);
    if (rc == 0) {
        uint64_t ns = (uint64_t)((b.tv_sec - a.tv_sec) * 1000000000LL + (b.tv_nsec - a.tv_nsec));
        l->counts.writes++;
        l->counts.write_ns_sum += ns;
        if (ns > l->counts.write_ns_max)
            l->counts.write_ns_max = ns;
        return 0;
    }
    MDB_txn *probe = NULL;
    bool full = disk_full(l, rc);
    if ((!full && rc != ENOMEM && rc != MDB_MAP_FULL && rc != MDB_TXN_FULL) ||
        mdb_txn_begin(l->env, NULL, 0, &probe) != 0)
        l->broken = true;
    else
        mdb_txn_abort(probe);
    return lmdb_failed(full && rc == EIO ? ENOSPC : rc, e, l->dir, "write");
}

static int begin(struct raft_log *l, unsigned flags, MDB_txn **ret, struct err *e)
{
    if (l->broken)
        return err_set(e, ERR_IO, "%s/data.mdb: an earlier write failed", l->dir);
    int rc = mdb_txn_begin(l->env, NULL, flags, ret);
    return rc == 0 ? 0 : lmdb_failed(rc, e, l->dir, "open transaction");
}

static int entries_delete(struct raft_log *l, MDB_txn *txn, uint64_t from, uint64_t before, struct err *e)
{
    uint8_t key[ENTRY_KEY];
    MDB_val k = { key_entry(key, from, 0), key }, v;
    MDB_cursor *c;
    int rc = mdb_cursor_open(txn, l->dbi, &c);
    if (rc != 0)
        return lmdb_failed(rc, e, l->dir, "remove entries");
    rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE);
    while (rc == 0 && k.mv_size == ENTRY_KEY && *(uint8_t *)k.mv_data == K_ENTRY && key_index(&k) < before) {
        rc = mdb_cursor_del(c, 0);
        if (rc == 0)
            rc = mdb_cursor_get(c, &k, &v, MDB_NEXT); /* the one that moved up */
    }
    mdb_cursor_close(c);
    return rc == 0 || rc == MDB_NOTFOUND ? 0 : lmdb_failed(rc, e, l->dir, "remove entries");
}

static int write_in_txn(struct raft_log *l, MDB_txn *txn, const struct raft_log_write *w,
                        const struct raft_hard_state *hs, uint64_t *last, uint64_t *last_term, struct err *e)
{
    int r = 0;
    if (w->truncate_from != 0 && w->truncate_from <= *last) {
        CHECK(w->truncate_from >= l->first);
        r = entries_delete(l, txn, w->truncate_from, UINT64_MAX, e);
        *last = w->truncate_from - 1;
        *last_term = *last == l->snapshot_index ? l->snapshot_term : raft_log_term(l, *last);
    }
    for (size_t i = 0; r == 0 && i < w->n_entries; i++) {
        CHECK(w->entries[i].index == *last + 1); /* Log Matching, Raft §5.3: no holes */
        CHECK(w->entries[i].term >= *last_term);
        r = entry_put(l, txn, &w->entries[i], e);
        *last = w->entries[i].index;
        *last_term = w->entries[i].term;
    }
    return r < 0 ? r : state_put(l, txn, hs, *last, *last_term, e);
}

int raft_log_write(struct raft_log *l, const struct raft_log_write *w, struct err *e)
{
    MDB_txn *txn = NULL;
    uint64_t last = l->last, last_term = l->last_term;
    const struct raft_hard_state *hs = w->hard_state ? w->hard_state : &l->hs;
    int r = begin(l, 0, &txn, e);
    if (r < 0)
        return r;
    r = write_in_txn(l, txn, w, hs, &last, &last_term, e);
    if (r < 0) {
        mdb_txn_abort(txn);
        return r;
    }
    r = commit(l, txn, e);
    if (r < 0)
        return r;
    l->hs = *hs;
    l->last = last;
    l->last_term = last_term;
    for (size_t i = 0; i < w->n_entries; i++)
        l->counts.bytes += w->entries[i].data.n;
    return 0;
}

int raft_log_compact(struct raft_log *l, uint64_t index, uint64_t keep_from, unsigned max, bool *ret_more,
                     struct err *e)
{
    MDB_txn *txn = NULL;
    uint64_t term = index == l->snapshot_index ? l->snapshot_term : raft_log_term(l, index);
    uint64_t first = keep_from < l->first ? l->first : keep_from;
    if (term == 0 || index < l->snapshot_index || first > index + 1)
        return err_set(e, ERR_INVALID, "%s: no snapshot can end at entry %llu", l->dir, (unsigned long long)index);
    *ret_more = first > l->first + max;
    if (*ret_more)
        first = l->first + max;
    int r = begin(l, 0, &txn, e);
    if (r < 0)
        return r;
    r = entries_delete(l, txn, l->first, first, e);
    if (r == 0)
        r = anchor_put(l, txn, first, index, term, e);
    if (r < 0) {
        mdb_txn_abort(txn);
        return r;
    }
    r = commit(l, txn, e);
    if (r < 0)
        return r;
    uint64_t old = l->snapshot_index;
    l->first = first;
    l->snapshot_index = index;
    l->snapshot_term = term;
    if (old != index)
        snapshot_clean(l->dir, index);
    return 0;
}

/* ---- reading ---- */

uint64_t raft_log_term(struct raft_log *l, uint64_t index)
{
    MDB_txn *txn = NULL;
    uint8_t key[ENTRY_KEY];
    MDB_val k = { key_entry(key, index, 0), key }, v;
    struct seal_header h;
    uint64_t term = 0;
    if (mdb_txn_begin(l->env, NULL, MDB_RDONLY, &txn) != 0)
        return 0;
    if (mdb_get(txn, l->dbi, &k, &v) == 0 && seal_header((struct str){ v.mv_data, v.mv_size }, &h))
        term = h.term;
    mdb_txn_abort(txn);
    return term;
}

/* part_take - the part at the cursor; checks that it is what key and entry say. */
static int part_take(struct raft_log *l, const MDB_val *k, const MDB_val *v, uint64_t index, uint32_t part,
                     struct seal_header *h, struct buf *plain, struct err *e)
{
    char what[64];
    uint8_t want[ENTRY_KEY] = { 0 };
    uint32_t parts = h->parts;
    uint64_t term = h->term;
    snprintf(what, sizeof what, "entry %llu part %u", (unsigned long long)index, part);
    key_entry(want, index, part);
    if (k->mv_size != ENTRY_KEY || memcmp(k->mv_data, want, ENTRY_KEY) != 0)
        return err_set(e, ERR_CORRUPT, "%s/data.mdb: %s is missing", l->dir, what);
    int r = record_take(l, v, 'e', h, plain, what, e);
    if (r < 0)
        return r;
    if (h->index != index || h->part != part || h->parts == 0 || (part > 0 && (h->parts != parts || h->term != term)))
        return err_set(e, ERR_CORRUPT, "%s/data.mdb: %s: the record belongs elsewhere", l->dir, what);
    return 0;
}

static int entry_take(struct raft_log *l, MDB_cursor *c, uint64_t index, struct buf *plain, struct seal_header *h,
                      struct err *e)
{
    uint8_t key[ENTRY_KEY];
    MDB_val k = { key_entry(key, index, 0), key }, v;
    int rc = mdb_cursor_get(c, &k, &v, MDB_SET_KEY);
    *h = (struct seal_header){ .parts = 1 };
    for (uint32_t part = 0; part < h->parts; part++) {
        if (part > 0)
            rc = mdb_cursor_get(c, &k, &v, MDB_NEXT);
        if (rc == MDB_NOTFOUND)
            return err_set(e, ERR_CORRUPT, "%s/data.mdb: entry %llu part %u is missing", l->dir,
                           (unsigned long long)index, part);
        if (rc != 0)
            return lmdb_failed(rc, e, l->dir, "read entry");
        int r = part_take(l, &k, &v, index, part, h, plain, e);
        if (r < 0)
            return r;
    }
    return 0;
}

int raft_log_read(struct raft_log *l, uint64_t index, struct buf *scratch, struct raft_log_entry *ret, struct err *e)
{
    MDB_txn *txn = NULL;
    MDB_cursor *c;
    struct seal_header h;
    int r = begin(l, MDB_RDONLY, &txn, e);
    if (r < 0)
        return r;
    int rc = mdb_cursor_open(txn, l->dbi, &c);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return lmdb_failed(rc, e, l->dir, "read entry");
    }
    buf_clear(scratch);
    r = entry_take(l, c, index, scratch, &h, e);
    mdb_cursor_close(c);
    mdb_txn_abort(txn);
    if (r < 0)
        return r;
    *ret = (struct raft_log_entry){
        .index = index, .term = h.term, .type = (enum raft_entry_type)h.entry_type, .data = buf_str(scratch)
    };
    return 0;
}

/* ---- opening ---- */

static int env_open(struct raft_log *l, struct err *e)
{
    MDB_txn *txn = NULL;
    int rc = mdb_env_create(&l->env);
    if (rc == 0)
        rc = mdb_env_set_mapsize(l->env, LOG_MAP_BYTES);
    if (rc == 0)
        rc = mdb_env_open(l->env, l->dir, MDB_NORDAHEAD | MDB_NOTLS, 0600);
    if (rc == 0)
        rc = mdb_txn_begin(l->env, NULL, 0, &txn);
    if (rc != 0)
        return lmdb_failed(rc, e, l->dir, "open");
    rc = mdb_dbi_open(txn, NULL, 0, &l->dbi);
    if (rc == 0)
        rc = mdb_txn_commit(txn);
    else
        mdb_txn_abort(txn);
    return rc == 0 ? 0 : lmdb_failed(rc, e, l->dir, "open");
}

/* LMDB believes its file: a missing end would be a SIGBUS later, and an empty file a new database. */
static int file_check(const struct raft_log *l, bool opened, struct err *e)
{
    char path[PATH_SIZE];
    struct stat st;
    uint64_t need = 8192; /* two meta pages */
    path_of(path, l->dir, "data.mdb");
    if (stat(path, &st) < 0)
        return errno == ENOENT ? err_set(e, ERR_CORRUPT, "%s is missing", path) : err_errno(e, errno, "open %s", path);
    if (opened) {
        MDB_envinfo info;
        MDB_stat ms;
        mdb_env_info(l->env, &info);
        mdb_env_stat(l->env, &ms);
        need = (info.me_last_pgno + 1) * (uint64_t)ms.ms_psize;
    }
    if ((uint64_t)st.st_size < need)
        return err_set(e, ERR_CORRUPT, "%s: cut short: %llu of at least %llu bytes", path,
                       (unsigned long long)st.st_size, (unsigned long long)need);
    return 0;
}

static int key_id_check(struct raft_log *l, MDB_txn *txn, struct err *e)
{
    uint8_t key = K_KEY_ID, id[SEAL_ID_SIZE];
    MDB_val k = { 1, &key }, v;
    seal_key_id(&l->key, id);
    if (mdb_get(txn, l->dbi, &k, &v) != 0 || v.mv_size != sizeof id)
        return err_set(e, ERR_CORRUPT, "%s/data.mdb: the id of the data key is missing", l->dir);
    if (memcmp(v.mv_data, id, sizeof id) != 0)
        return err_set(e, ERR_CORRUPT, "%s/%s is not the key that this log was sealed with", l->dir,
                       SEAL_DATA_KEY_FILE);
    return 0;
}

static int identity_read(struct raft_log *l, MDB_txn *txn, struct buf *b, struct err *e)
{
    struct seal_header h;
    struct str cluster, node;
    int r = single_get(l, txn, K_IDENTITY, 'i', b, &h, "the identity record", e);
    if (r < 0)
        return r;
    if (!mp_get_str(buf_str(b), "cluster", &cluster) || !mp_get_str(buf_str(b), "node", &node) ||
        !str_copy(l->id.cluster_id, sizeof l->id.cluster_id, cluster) ||
        !str_copy(l->id.node_id, sizeof l->id.node_id, node) || !mp_get_u64(buf_str(b), "raft_id", &l->id.id))
        return err_set(e, ERR_CORRUPT, "%s/data.mdb: the identity record is malformed", l->dir);
    return 0;
}

static int heads_read(struct raft_log *l, MDB_txn *txn, struct buf *b, struct err *e)
{
    struct seal_header h = { 0 };
    int r = key_id_check(l, txn, e);
    if (r == 0)
        r = identity_read(l, txn, b, e);
    if (r == 0)
        r = single_get(l, txn, K_ANCHOR, 'a', b, &h, "the anchor record", e);
    if (r < 0)
        return r;
    l->snapshot_index = h.index;
    l->snapshot_term = h.term;
    if (!mp_get_u64(buf_str(b), "first", &l->first) || l->first == 0 || l->first > h.index + 1)
        return err_set(e, ERR_CORRUPT, "%s/data.mdb: the anchor record is malformed", l->dir);
    r = single_get(l, txn, K_STATE, 'h', b, &h, "the state record", e);
    if (r < 0)
        return r;
    l->hs.term = h.term;
    l->last = h.index;
    if (!mp_get_u64(buf_str(b), "vote", &l->hs.vote) || !mp_get_u64(buf_str(b), "last_term", &l->last_term) ||
        l->last + 1 < l->first || l->last < l->snapshot_index)
        return err_set(e, ERR_CORRUPT, "%s/data.mdb: the state record is malformed", l->dir);
    return 0;
}

static int entries_check(struct raft_log *l, MDB_txn *txn, struct buf *b, struct err *e)
{
    MDB_cursor *c;
    struct seal_header h = { 0 };
    int rc = mdb_cursor_open(txn, l->dbi, &c), r = 0;
    if (rc != 0)
        return lmdb_failed(rc, e, l->dir, "read");
    for (uint64_t i = l->first; r == 0 && i <= l->last; i++) {
        buf_clear(b);
        r = entry_take(l, c, i, b, &h, e);
    }
    if (r == 0 && l->last >= l->first && h.term != l->last_term)
        r = err_set(e, ERR_CORRUPT, "%s/data.mdb: entry %llu is not the last one written", l->dir,
                    (unsigned long long)l->last);
    /* Nothing but the state record comes after the last entry. */
    uint8_t key[ENTRY_KEY];
    MDB_val k = { key_entry(key, l->last, UINT32_MAX), key }, v;
    if (r == 0 && mdb_cursor_get(c, &k, &v, MDB_SET_RANGE) == 0 && *(uint8_t *)k.mv_data == K_ENTRY)
        r = err_set(e, ERR_CORRUPT, "%s/data.mdb: there is an entry %llu behind the last one", l->dir,
                    (unsigned long long)key_index(&k));
    mdb_cursor_close(c);
    return r;
}

static int verify(struct raft_log *l, struct err *e)
{
    MDB_txn *txn = NULL;
    struct buf b = BUF_INIT;
    int r = begin(l, MDB_RDONLY, &txn, e);
    if (r < 0)
        return r;
    r = heads_read(l, txn, &b, e);
    if (r == 0)
        r = entries_check(l, txn, &b, e);
    mdb_txn_abort(txn);
    buf_done(&b);
    if (r == 0 && l->snapshot_index != 0)
        r = snapshot_verify(l->dir, &l->key, l->snapshot_index, l->snapshot_term, e);
    return r;
}

/* LMDB follows offsets of a damaged page into nothing, or asserts. While the log is verified, that is a finding about
 * the file and not the end of the process; the environment is abandoned then. */
static sigjmp_buf guard_jump;
static volatile sig_atomic_t guard_on;

static void guard_fault(int sig)
{
    if (guard_on)
        siglongjmp(guard_jump, 1);
    signal(sig, SIG_DFL);
    raise(sig);
}

static int guarded_verify(struct raft_log *l, struct err *e)
{
    static const int sigs[] = { SIGBUS, SIGSEGV, SIGABRT };
    struct sigaction sa = { .sa_handler = guard_fault, .sa_flags = SA_NODEFER }, old[3];
    volatile int r = 0;
    for (unsigned i = 0; i < 3; i++)
        sigaction(sigs[i], &sa, &old[i]);
    if (sigsetjmp(guard_jump, 1) == 0) {
        guard_on = 1;
        r = env_open(l, e);
        if (r == 0)
            r = file_check(l, true, e);
        if (r == 0)
            r = verify(l, e);
    } else {
        r = err_set(e, ERR_CORRUPT, "%s/data.mdb: the file is damaged", l->dir);
        l->env = NULL; /* leaked: its state is unknown */
    }
    guard_on = 0;
    for (unsigned i = 0; i < 3; i++)
        sigaction(sigs[i], &old[i], NULL);
    return r;
}

static struct raft_log *log_new(const char *dir, const char *name, struct err *e)
{
    struct raft_log *l = calloc(1, sizeof *l);
    if (l == NULL || strlen(dir) + 64 > PATH_SIZE) {
        free(l);
        err_set(e, ERR_NOMEM, "open log %.200s: out of memory", dir);
        return NULL;
    }
    path_of(l->dir, dir, name);
    return l;
}

int raft_log_open(struct raft_log **ret, const char *dir, struct err *e)
{
    _cleanup_(raft_log_closep) struct raft_log *l = log_new(dir, RAFT_LOG_DIR, e);
    if (l == NULL)
        return -ERR_NOMEM;
    int r = seal_keys_read(l->dir, &l->key, e);
    if (r == 0)
        r = seal_new(&l->seal, &l->key, e);
    if (r == 0)
        r = file_check(l, false, e);
    if (r == 0)
        r = guarded_verify(l, e);
    if (r < 0)
        return r;
    snapshot_clean(l->dir, l->snapshot_index);
    *ret = TAKE(l);
    return 0;
}

struct raft_log *raft_log_close(struct raft_log *l)
{
    if (l == NULL)
        return NULL;
    if (l->env != NULL)
        mdb_env_close(l->env);
    seal_free(l->seal);
    buf_done(&l->sealed);
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

static int create_in_txn(struct raft_log *l, MDB_txn *txn, const struct raft_log_identity *id,
                         const struct raft_hard_state *hs, struct str first_entry, struct err *e)
{
    uint8_t key = K_KEY_ID, key_id[SEAL_ID_SIZE];
    MDB_val k = { 1, &key }, v = { sizeof key_id, key_id };
    struct buf b = BUF_INIT;
    seal_key_id(&l->key, key_id);
    int rc = mdb_put(txn, l->dbi, &k, &v, 0);
    if (rc != 0)
        return lmdb_failed(rc, e, l->dir, "write");
    mp_map(&b, 3);
    mp_kv_cstr(&b, "cluster", id->cluster_id);
    mp_kv_cstr(&b, "node", id->node_id);
    mp_kv_u64(&b, "raft_id", id->id);
    key = K_IDENTITY;
    struct seal_header h = { .type = 'i', .parts = 1 };
    int r = record_put(l, txn, &key, 1, &h, buf_str(&b), e);
    buf_done(&b);
    struct raft_log_entry en = { .index = 1, .term = hs->term, .type = RAFT_ENTRY_DATA, .data = first_entry };
    if (r == 0)
        r = anchor_put(l, txn, 1, 0, 0, e);
    if (r == 0)
        r = entry_put(l, txn, &en, e);
    return r < 0 ? r : state_put(l, txn, hs, 1, hs->term, e);
}

static int create_unnamed(struct raft_log *l, const struct raft_log_identity *id, const struct raft_hard_state *hs,
                          struct str first_entry, struct err *e)
{
    MDB_txn *txn = NULL;
    int r = seal_keys_create(l->dir, &l->key, e);
    if (r == 0)
        r = seal_new(&l->seal, &l->key, e);
    if (r == 0)
        r = env_open(l, e);
    if (r == 0)
        r = begin(l, 0, &txn, e);
    if (r < 0)
        return r;
    r = create_in_txn(l, txn, id, hs, first_entry, e);
    if (r < 0) {
        mdb_txn_abort(txn);
        return r;
    }
    r = commit(l, txn, e);
    return r < 0 ? r : dir_sync(l->dir, e);
}

int raft_log_create(const char *dir, const struct raft_log_identity *id, const struct raft_hard_state *hs,
                    struct str first_entry, struct err *e)
{
    char path[PATH_SIZE];
    if (raft_log_exists(dir))
        return err_set(e, ERR_PRECONDITION, "%s: there is a log already", dir);
    struct raft_log *l = log_new(dir, NEW_DIR, e);
    if (l == NULL)
        return -ERR_NOMEM;
    int r = mkdir(l->dir, 0700) < 0 ? err_errno(e, errno, "create %s", l->dir) : 0;
    if (r == 0)
        r = create_unnamed(l, id, hs, first_entry, e);
    char from[PATH_SIZE];
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
    MDB_envinfo info;
    MDB_stat ms;
    *ret = l->counts;
    mdb_env_info(l->env, &info);
    mdb_env_stat(l->env, &ms);
    ret->file_bytes = (info.me_last_pgno + 1) * (uint64_t)ms.ms_psize;
}

const char *raft_log_dir(const struct raft_log *l)
{
    return l->dir;
}

const struct seal_key *raft_log_key(const struct raft_log *l)
{
    return &l->key;
}
