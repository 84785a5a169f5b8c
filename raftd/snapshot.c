/* snapshot.c - on disk: (length 4, sealed chunk)*; in the chunks, one after the other: (length 4, record)*. */
#include "raftd/snapshot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/util/check.h"

#define PATH_SIZE 512
#define RECORD_MAX (96u << 20) /* more than the largest transaction */

struct snapshot_writer {
    char dir[PATH_SIZE], tmp[PATH_SIZE], path[PATH_SIZE];
    int fd;
    struct seal *seal;
    struct seal_header h;
    struct buf plain, sealed;
    bool received, whole; /* the parts come as they are; the last one has come */
};

static void file_path(char path[PATH_SIZE], const char *dir, uint64_t index, const char *suffix)
{
    snprintf(path, PATH_SIZE, "%s/snap-%020llu%s", dir, (unsigned long long)index, suffix);
}

static void put_len(struct buf *b, size_t n)
{
    uint8_t p[4] = { (uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n };
    buf_put(b, p, 4);
}

static size_t get_len(const char *p)
{
    const uint8_t *u = (const uint8_t *)p;
    return (size_t)u[0] << 24 | (size_t)u[1] << 16 | (size_t)u[2] << 8 | u[3];
}

/* ---- writing ---- */

static int writer_new(struct snapshot_writer **ret, const char *dir, const struct seal_key *key, uint64_t index,
                      uint64_t term, const char *suffix, struct err *e)
{
    _cleanup_(snapshot_closep) struct snapshot_writer *w = calloc(1, sizeof *w);
    if (w == NULL)
        return err_set(e, ERR_NOMEM, "snapshot: out of memory");
    w->fd = -1;
    w->h = (struct seal_header){ .type = 's', .index = index, .term = term };
    snprintf(w->dir, sizeof w->dir, "%s", dir);
    file_path(w->path, dir, index, "");
    file_path(w->tmp, dir, index, suffix);
    int r = seal_new(&w->seal, key, e);
    if (r < 0)
        return r;
    w->fd = open(w->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (w->fd < 0)
        return err_errno(e, errno, "create %s", w->tmp);
    *ret = TAKE(w);
    return 0;
}

int snapshot_create(struct snapshot_writer **ret, const char *dir, const struct seal_key *key, uint64_t index,
                    uint64_t term, struct err *e)
{
    return writer_new(ret, dir, key, index, term, ".tmp", e);
}

int snapshot_receive(struct snapshot_writer **ret, const char *dir, const struct seal_key *key, uint64_t index,
                     uint64_t term, struct err *e)
{
    int r = writer_new(ret, dir, key, index, term, ".recv", e);
    if (r == 0)
        (*ret)->received = true;
    return r;
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

static int chunk_write(struct snapshot_writer *w, struct str plain, bool last, struct err *e)
{
    w->h.parts = last ? w->h.part + 1 : 0;
    buf_clear(&w->sealed);
    put_len(&w->sealed, plain.n + SEAL_OVERHEAD);
    int r = seal_put(w->seal, &w->h, plain, &w->sealed, e);
    if (r < 0)
        return r;
    w->h.part++;
    r = write_all(w->fd, w->sealed.p, w->sealed.n);
    return r == 0 ? 0 : err_errno(e, -r, "write %s", w->tmp);
}

int snapshot_put(struct snapshot_writer *w, struct str record, struct err *e)
{
    put_len(&w->plain, record.n);
    buf_put(&w->plain, record.p, record.n);
    if (w->plain.failed || record.n > RECORD_MAX)
        return err_set(e, ERR_NOMEM, "snapshot: a record of %zu bytes is too large", record.n);
    size_t done = 0;
    int r = 0;
    while (r == 0 && w->plain.n - done > SNAPSHOT_CHUNK) {
        r = chunk_write(w, (struct str){ w->plain.p + done, SNAPSHOT_CHUNK }, false, e);
        done += SNAPSHOT_CHUNK;
    }
    memmove(w->plain.p, w->plain.p + done, w->plain.n - done);
    w->plain.n -= done;
    return r;
}

int snapshot_put_chunk(struct snapshot_writer *w, uint32_t part, struct str plain, bool last, struct err *e)
{
    CHECK(w->received);
    if (w->whole || part != w->h.part)
        return err_set(e, ERR_INVALID, "snapshot: part %u is not the one that is due", part);
    if (plain.n > SNAPSHOT_CHUNK || (!last && plain.n != SNAPSHOT_CHUNK))
        return err_set(e, ERR_INVALID, "snapshot: part %u has %zu bytes", part, plain.n);
    int r = chunk_write(w, plain, last, e);
    w->whole = r == 0 && last;
    return r;
}

uint32_t snapshot_next_part(const struct snapshot_writer *w)
{
    return w->h.part;
}

int snapshot_finish(struct snapshot_writer *w, struct err *e)
{
    if (w->received && !w->whole)
        return err_set(e, ERR_INVALID, "snapshot: part %u has not come", w->h.part);
    int r = w->received ? 0 : chunk_write(w, buf_str(&w->plain), true, e);
    if (r < 0)
        return r;
    if (fsync(w->fd) < 0)
        return err_errno(e, errno, "sync %s", w->tmp);
    if (rename(w->tmp, w->path) < 0)
        return err_errno(e, errno, "rename %s", w->tmp);
    w->tmp[0] = 0;
    _cleanup_(closep) int fd = open(w->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return err_errno(e, errno, "sync %s", w->dir);
    return 0;
}

struct snapshot_writer *snapshot_close(struct snapshot_writer *w)
{
    if (w == NULL)
        return NULL;
    if (w->fd >= 0)
        close(w->fd);
    if (w->fd >= 0 && w->tmp[0] != 0)
        unlink(w->tmp);
    seal_free(w->seal);
    buf_done(&w->plain);
    buf_done(&w->sealed);
    free(w);
    return NULL;
}

/* ---- reading ---- */

struct reader {
    char path[PATH_SIZE];
    FILE *f;
    struct seal *seal;
    struct seal_header want;
    struct buf sealed, plain;
    snapshot_record_fn *fn;
    void *arg;
};

static int damaged(const struct reader *rd, const char *what, struct err *e)
{
    return err_set(e, ERR_CORRUPT, "%s: chunk %u %s", rd->path, rd->want.part, what);
}

static int chunk_read(struct reader *rd, bool *ret_last, struct err *e)
{
    char len[4];
    struct seal_header h;
    if (fread(len, 1, 4, rd->f) != 4)
        return damaged(rd, "is missing: the file is cut short", e);
    size_t n = get_len(len);
    if (n < SEAL_OVERHEAD || n > SNAPSHOT_CHUNK + SEAL_OVERHEAD)
        return damaged(rd, "was altered", e);
    buf_clear(&rd->sealed);
    char *p = buf_reserve(&rd->sealed, n);
    if (p == NULL)
        return err_set(e, ERR_NOMEM, "%s: out of memory", rd->path);
    if (fread(p, 1, n, rd->f) != n)
        return damaged(rd, "is cut short", e);
    if (seal_take(rd->seal, (struct str){ p, n }, &h, &rd->plain, NULL) < 0)
        return damaged(rd, "was altered", e);
    if (h.type != 's' || h.index != rd->want.index || h.term != rd->want.term || h.part != rd->want.part ||
        (h.parts != 0 && h.parts != h.part + 1))
        return damaged(rd, "belongs elsewhere", e);
    *ret_last = h.parts != 0;
    return 0;
}

/* records_pass - hands on the whole records that are in `plain`, and keeps the rest. */
static int records_pass(struct reader *rd, struct err *e)
{
    size_t at = 0;
    int r = 0;
    while (r == 0 && rd->plain.n - at >= 4) {
        size_t n = get_len(rd->plain.p + at);
        if (n > RECORD_MAX)
            return damaged(rd, "holds a malformed record", e);
        if (rd->plain.n - at - 4 < n)
            break;
        if (rd->fn != NULL)
            r = rd->fn(rd->arg, (struct str){ rd->plain.p + at + 4, n }, e);
        at += 4 + n;
    }
    memmove(rd->plain.p, rd->plain.p + at, rd->plain.n - at);
    rd->plain.n -= at;
    return r;
}

static int read_chunks(struct reader *rd, struct err *e)
{
    bool last = false;
    for (; !last; rd->want.part++) {
        int r = chunk_read(rd, &last, e);
        if (r == 0)
            r = records_pass(rd, e);
        if (r < 0)
            return r;
    }
    if (rd->plain.n != 0)
        return damaged(rd, "is missing: a record is not whole", e);
    if (fgetc(rd->f) != EOF)
        return damaged(rd, "should not be there: bytes behind the end", e);
    return 0;
}

int snapshot_read(const char *dir, const struct seal_key *key, uint64_t index, uint64_t term, snapshot_record_fn *fn,
                  void *arg, struct err *e)
{
    struct reader rd = { .want = { .index = index, .term = term }, .fn = fn, .arg = arg };
    file_path(rd.path, dir, index, "");
    int r = seal_new(&rd.seal, key, e);
    if (r < 0)
        return r;
    rd.f = fopen(rd.path, "re");
    if (rd.f == NULL)
        r = errno == ENOENT ? err_set(e, ERR_CORRUPT, "%s is missing", rd.path)
                            : err_errno(e, errno, "open %s", rd.path);
    else
        r = read_chunks(&rd, e);
    if (rd.f != NULL)
        fclose(rd.f);
    seal_free(rd.seal);
    buf_done(&rd.sealed);
    buf_done(&rd.plain);
    return r;
}

int snapshot_verify(const char *dir, const struct seal_key *key, uint64_t index, uint64_t term, struct err *e)
{
    return snapshot_read(dir, key, index, term, NULL, NULL, e);
}

/* ---- sending ---- */

struct snapshot_reader {
    struct reader rd;
    uint32_t parts;
    uint64_t size;
};

#define CHUNK_ON_DISK (4u + SNAPSHOT_CHUNK + SEAL_OVERHEAD)

int snapshot_open(struct snapshot_reader **ret, const char *dir, const struct seal_key *key, uint64_t index,
                  uint64_t term, struct err *e)
{
    _cleanup_(snapshot_reader_closep) struct snapshot_reader *r = calloc(1, sizeof *r);
    if (r == NULL)
        return err_set(e, ERR_NOMEM, "snapshot: out of memory");
    file_path(r->rd.path, dir, index, "");
    r->rd.want = (struct seal_header){ .index = index, .term = term };
    int rc = seal_new(&r->rd.seal, key, e);
    if (rc < 0)
        return rc;
    r->rd.f = fopen(r->rd.path, "re");
    if (r->rd.f == NULL)
        return errno == ENOENT ? err_set(e, ERR_CORRUPT, "%s is missing", r->rd.path)
                               : err_errno(e, errno, "open %s", r->rd.path);
    if (fseeko(r->rd.f, 0, SEEK_END) < 0)
        return err_errno(e, errno, "read %s", r->rd.path);
    uint64_t bytes = (uint64_t)ftello(r->rd.f);
    r->parts = (uint32_t)((bytes + CHUNK_ON_DISK - 1) / CHUNK_ON_DISK);
    if (bytes < (uint64_t)r->parts * (4 + SEAL_OVERHEAD) || r->parts == 0)
        return damaged(&r->rd, "is missing: the file is cut short", e);
    r->size = bytes - (uint64_t)r->parts * (4 + SEAL_OVERHEAD);
    *ret = TAKE(r);
    return 0;
}

int snapshot_chunk(struct snapshot_reader *r, uint32_t part, struct buf *plain, bool *ret_last, struct err *e)
{
    if (part >= r->parts)
        return err_set(e, ERR_INVALID, "snapshot: there is no part %u", part);
    r->rd.want.part = part;
    if (fseeko(r->rd.f, (off_t)part * CHUNK_ON_DISK, SEEK_SET) < 0)
        return err_errno(e, errno, "read %s", r->rd.path);
    buf_clear(&r->rd.plain);
    int rc = chunk_read(&r->rd, ret_last, e);
    if (rc == 0 && (*ret_last != (part + 1 == r->parts) || (!*ret_last && r->rd.plain.n != SNAPSHOT_CHUNK)))
        rc = damaged(&r->rd, "belongs elsewhere", e);
    if (rc == 0)
        buf_put(plain, r->rd.plain.p, r->rd.plain.n);
    return rc == 0 && plain->failed ? err_set(e, ERR_NOMEM, "%s: out of memory", r->rd.path) : rc;
}

uint64_t snapshot_size(const struct snapshot_reader *r)
{
    return r->size;
}

struct snapshot_reader *snapshot_reader_close(struct snapshot_reader *r)
{
    if (r == NULL)
        return NULL;
    if (r->rd.f != NULL)
        fclose(r->rd.f);
    seal_free(r->rd.seal);
    buf_done(&r->rd.sealed);
    buf_done(&r->rd.plain);
    free(r);
    return NULL;
}

void snapshot_clean(const char *dir, uint64_t keep)
{
    char name[64];
    DIR *d = opendir(dir);
    if (d == NULL)
        return;
    snprintf(name, sizeof name, "snap-%020llu", (unsigned long long)keep);
    for (struct dirent *f; (f = readdir(d)) != NULL;)
        if (strncmp(f->d_name, "snap-", 5) == 0 && (keep == 0 || strcmp(f->d_name, name) != 0))
            unlinkat(dirfd(d), f->d_name, 0);
    closedir(d);
}

void snapshot_clean_older(const char *dir, uint64_t keep)
{
    DIR *d = opendir(dir);
    if (d == NULL)
        return;
    for (struct dirent *f; (f = readdir(d)) != NULL;) {
        char *end;
        if (strncmp(f->d_name, "snap-", 5) != 0)
            continue;
        uint64_t index = strtoull(f->d_name + 5, &end, 10);
        if (*end == 0 && index < keep)
            unlinkat(dirfd(d), f->d_name, 0);
    }
    closedir(d);
}

void snapshot_remove(const char *dir, uint64_t index)
{
    char path[PATH_SIZE];
    file_path(path, dir, index, "");
    unlink(path);
}
