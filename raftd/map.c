/* map.c - LMDB's calls for the state and secret maps. */
#include "raftd/map.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/proto/mp.h"
#include "common/util/check.h"
#include "common/util/dir.h"

#define NEW_DIR "new"
#define LOCK_FILE "lock.mdb"
#define PATH_SIZE (MAP_PATH_MAX + 32)
#define RESERVE_BYTES (1u << 20) /* left alone, so that deletions still work */
#define SPARSE_BYTES (16u << 20) /* smaller ones may be as empty as they like */

int map_failed(const struct map *m, int rc, const char *what, struct err *e)
{
    if (rc == MDB_CORRUPTED || rc == MDB_PAGE_NOTFOUND || rc == MDB_INVALID || rc == MDB_VERSION_MISMATCH)
        return err_set(e, ERR_CORRUPT, "map %s: %s: %s", m->dir, what, mdb_strerror(rc));
    if (rc == ENOMEM)
        return err_set(e, ERR_NOMEM, "map %s: %s: out of memory", m->dir, what);
    return err_set(e, ERR_IO, "map %s: %s: %s", m->dir, what, mdb_strerror(rc));
}

static void path_of(const struct map *m, const char *sub, const char *name, char path[PATH_SIZE])
{
    snprintf(path, PATH_SIZE, "%s%s%s/%s", m->dir, *sub ? "/" : "", sub, name);
}

/* ---- files ---- */

static int own(const struct map *m, const char *path, mode_t mode, struct err *e)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return err_errno(e, errno, "map %s", path);
    if (!m->private && m->gid != (gid_t)-1 && st.st_gid != m->gid && chown(path, (uid_t)-1, m->gid) < 0)
        return err_errno(e, errno, "give %s to group %u", path, m->gid);
    if (chmod(path, m->private ? mode & 0700 : mode) < 0)
        return err_errno(e, errno, "change mode of %s", path);
    return 0;
}

static int dir_make(const struct map *m, struct err *e)
{
    char path[PATH_SIZE];
    int r = dir_own(m->dir, 0700, e);
    if (r == 0)
        r = own(m, m->dir, 0750, e);
    if (r < 0)
        return r;
    path_of(m, NEW_DIR, STORE_DATA_FILE, path);
    unlink(path);
    path_of(m, NEW_DIR, LOCK_FILE, path);
    unlink(path);
    path_of(m, "", NEW_DIR, path);
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return err_errno(e, errno, "create %s", path);
    return 0;
}

static int files_own(const struct map *m, const char *sub, struct err *e)
{
    char path[PATH_SIZE];
    path_of(m, sub, STORE_DATA_FILE, path);
    int r = own(m, path, 0640, e);
    if (r == 0) {
        path_of(m, sub, LOCK_FILE, path);
        r = own(m, path, 0660, e);
    }
    return r;
}

/* Readers know a new map by its data file's inode, and always find one. Who comes between the two gets the old data
 * with the new lock table: nobody writes to the former any more, and it is given up at the next look. */
int map_publish(struct map *m, struct err *e)
{
    static const char *const names[] = { LOCK_FILE, STORE_DATA_FILE };
    char from[PATH_SIZE], to[PATH_SIZE];
    for (unsigned i = 0; i < 2; i++) {
        path_of(m, NEW_DIR, names[i], from);
        path_of(m, "", names[i], to);
        if (rename(from, to) < 0)
            return err_errno(e, errno, "rename %s", from);
    }
    path_of(m, "", NEW_DIR, from);
    rmdir(from);
    m->published = true;
    return 0;
}

/* ---- opening ---- */

static int dbi_open(struct map *m, const char *name, unsigned flags, MDB_dbi *ret)
{
    return mdb_dbi_open(m->txn, name, flags, ret);
}

static int dbis_open(struct map *m, unsigned flags)
{
    char name[STORE_DB_NAME_MAX];
    int rc = 0;
    for (enum kind k = 0; k < KIND_COUNT && rc == 0; k++)
        if (kind_info[k].secret == m->secret)
            rc = dbi_open(m, kind_info[k].name, flags, &m->kind[k]);
    for (enum index ix = 0; ix < IX_COUNT && rc == 0; ix++)
        if (kind_info[index_info[ix].kind].secret == m->secret)
            rc = dbi_open(m, index_db_name(ix, name), flags, &m->index[ix]);
    if (rc == 0 && !m->secret)
        rc = dbi_open(m, STORE_DB_LOG, flags, &m->log);
    if (rc == 0)
        rc = dbi_open(m, STORE_DB_META, flags, &m->meta);
    return rc;
}

static int env_open(struct map *m, const char *sub, uint64_t size, struct err *e)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s%s%s", m->dir, *sub ? "/" : "", sub);
    int rc = mdb_env_create(&m->env);
    if (rc == 0)
        rc = mdb_env_set_mapsize(m->env, size);
    if (rc == 0)
        rc = mdb_env_set_maxdbs(m->env, STORE_DBS_MAX);
    if (rc == 0) {
        mode_t old = umask(0117); /* 0660 at most; files_own() does the rest */
        rc = mdb_env_open(m->env, path, MDB_NOSYNC | MDB_NOTLS | MDB_NORDAHEAD, 0660);
        umask(old);
    }
    if (rc != 0) {
        map_close(m);
        return map_failed(m, rc, "open", e);
    }
    return files_own(m, sub, e);
}

int map_create(struct map *m, uint64_t size, struct err *e)
{
    m->published = false;
    int r = dir_make(m, e);
    if (r == 0)
        r = env_open(m, NEW_DIR, size, e);
    if (r == 0)
        r = map_begin(m, e);
    if (r < 0) {
        map_close(m);
        return r;
    }
    int rc = dbis_open(m, MDB_CREATE);
    if (rc != 0) {
        map_close(m);
        return map_failed(m, rc, "create", e);
    }
    return 0;
}

int map_open(struct map *m, uint64_t size, struct err *e)
{
    char path[PATH_SIZE];
    struct stat st;
    path_of(m, "", STORE_DATA_FILE, path);
    if (stat(path, &st) < 0)
        return err_set(e, ERR_NOT_FOUND, "there is no %s", path);
    if (st.st_size < 8192)
        return err_set(e, ERR_CORRUPT, "%s is cut short", path);
    m->published = true;
    int r = env_open(m, "", size, e);
    if (r == 0)
        r = map_begin(m, e);
    if (r < 0) {
        map_close(m);
        return r;
    }
    int rc = dbis_open(m, 0);
    if (rc == 0) {
        rc = mdb_txn_commit(m->txn);
        m->txn = NULL;
    }
    if (rc != 0) {
        map_close(m);
        return err_set(e, ERR_CORRUPT, "map %s: %s", m->dir, mdb_strerror(rc));
    }
    return 0;
}

void map_close(struct map *m)
{
    map_abort(m);
    if (m->env != NULL)
        mdb_env_close(m->env);
    m->env = NULL;
}

/* ---- transactions ---- */

int map_begin(struct map *m, struct err *e)
{
    CHECK(m->txn == NULL);
    int rc = mdb_txn_begin(m->env, NULL, 0, &m->txn);
    return rc == 0 ? 0 : map_failed(m, rc, "open transaction", e);
}

int map_commit(struct map *m, struct err *e)
{
    int rc = mdb_txn_commit(m->txn);
    m->txn = NULL;
    return rc == 0 ? 0 : map_failed(m, rc, "commit", e);
}

void map_abort(struct map *m)
{
    if (m->txn != NULL)
        mdb_txn_abort(m->txn);
    m->txn = NULL;
}

int map_get(const struct map *m, MDB_txn *txn, MDB_dbi dbi, struct str key, struct str *ret)
{
    MDB_val k = { key.n, (void *)key.p }, v;
    (void)m;
    if (mdb_get(txn, dbi, &k, &v) != 0)
        return -ERR_NOT_FOUND;
    *ret = (struct str){ v.mv_data, v.mv_size };
    return 0;
}

int map_put(struct map *m, MDB_dbi dbi, struct str key, struct str val, struct err *e)
{
    MDB_val k = { key.n, (void *)key.p }, v = { val.n, (void *)val.p };
    int rc = mdb_put(m->txn, dbi, &k, &v, 0);
    return rc == 0 ? 0 : map_failed(m, rc, "write", e);
}

int map_append(struct map *m, MDB_dbi dbi, struct str key, struct str val, struct err *e)
{
    MDB_val k = { key.n, (void *)key.p }, v = { val.n, (void *)val.p };
    int rc = mdb_put(m->txn, dbi, &k, &v, MDB_APPEND);
    return rc == 0 ? 0 : map_failed(m, rc, "append", e);
}

int map_del(struct map *m, MDB_dbi dbi, struct str key, struct err *e)
{
    MDB_val k = { key.n, (void *)key.p };
    int rc = mdb_del(m->txn, dbi, &k, NULL);
    return rc == 0 || rc == MDB_NOTFOUND ? 0 : map_failed(m, rc, "delete", e);
}

/* ---- meta ---- */

uint64_t map_meta_u64(const struct map *m, MDB_txn *txn, const char *name)
{
    struct str v;
    uint64_t n = 0;
    if (map_get(m, txn, m->meta, str_from(name), &v) == 0)
        (void)mp_as_u64(v, &n);
    return n;
}

static int meta_put(struct map *m, const char *name, struct buf *b, struct err *e)
{
    int r = map_put(m, m->meta, str_from(name), buf_str(b), e);
    buf_done(b);
    return r;
}

int map_meta_put_u64(struct map *m, const char *name, uint64_t v, struct err *e)
{
    struct buf b = BUF_INIT;
    mp_u64(&b, v);
    return meta_put(m, name, &b, e);
}

int map_meta_put_bool(struct map *m, const char *name, bool v, struct err *e)
{
    struct buf b = BUF_INIT;
    mp_bool(&b, v);
    return meta_put(m, name, &b, e);
}

int map_meta_put_str(struct map *m, const char *name, const char *v, struct err *e)
{
    struct buf b = BUF_INIT;
    mp_cstr(&b, v);
    return meta_put(m, name, &b, e);
}

/* ---- room ---- */

uint64_t map_used_bytes(const struct map *m)
{
    MDB_envinfo info;
    MDB_stat st;
    mdb_env_info(m->env, &info);
    mdb_env_stat(m->env, &st);
    return (info.me_last_pgno + 1) * (uint64_t)st.ms_psize;
}

/* Pages that LMDB may use again; database 0 is its list of them. */
static uint64_t free_bytes(const struct map *m)
{
    MDB_txn *txn;
    MDB_cursor *c;
    MDB_val k, v;
    uint64_t pages = 0;
    if (mdb_txn_begin(m->env, NULL, MDB_RDONLY, &txn) != 0)
        return 0;
    if (mdb_cursor_open(txn, 0, &c) == 0) {
        while (mdb_cursor_get(c, &k, &v, MDB_NEXT) == 0 && v.mv_size >= sizeof(size_t))
            pages += *(size_t *)v.mv_data;
        mdb_cursor_close(c);
    }
    mdb_txn_abort(txn);
    return pages * 4096;
}

bool map_room(const struct map *m, uint64_t bytes, struct err *e)
{
    MDB_envinfo info;
    struct statvfs fs;
    uint64_t need = bytes + RESERVE_BYTES;
    mdb_env_info(m->env, &info);
    if (map_used_bytes(m) + need > info.me_mapsize && free_bytes(m) < need) {
        err_set(e, ERR_IO, "the store is full: map %s is at its limit of %zu bytes", m->dir, info.me_mapsize);
        return false;
    }
    if (statvfs(m->dir, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < need && free_bytes(m) < need) {
        err_set(e, ERR_IO, "the store is full: no space left on the file system of %s", m->dir);
        return false;
    }
    return true;
}

/* ---- shrinking ---- */

bool map_sparse(const struct map *m)
{
    uint64_t used = map_used_bytes(m);
    return used >= SPARSE_BYTES && free_bytes(m) > used / 2;
}

static int copy(struct map *m, struct err *e)
{
    char path[PATH_SIZE];
    path_of(m, "", NEW_DIR, path);
    mode_t old = umask(0177);
    int rc = mdb_env_copy2(m->env, path, MDB_CP_COMPACT);
    umask(old);
    return rc == 0 ? 0 : map_failed(m, rc, "copy", e);
}

static int dbis_open_again(struct map *m, struct err *e)
{
    int r = map_begin(m, e);
    if (r < 0)
        return r;
    int rc = dbis_open(m, 0);
    if (rc != 0) {
        map_abort(m);
        return map_failed(m, rc, "open", e);
    }
    return map_commit(m, e);
}

int map_compact(struct map *m, uint64_t size, struct err *e)
{
    struct map fresh = *m;
    CHECK(m->txn == NULL && m->published);
    int r = dir_make(m, e);
    if (r == 0)
        r = copy(m, e);
    if (r < 0)
        return r;
    fresh.env = NULL;
    fresh.published = false;
    r = env_open(&fresh, NEW_DIR, size, e);
    if (r == 0)
        r = dbis_open_again(&fresh, e);
    if (r == 0)
        r = map_publish(&fresh, e);
    if (r < 0) {
        map_close(&fresh);
        return r;
    }
    map_close(m);
    *m = fresh;
    return 0;
}
