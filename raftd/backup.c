/* backup.c - sealed backups (backup.h): made out of a snapshot of the maps, restored as a new log behind a snapshot. */
#include "raftd/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/proto/mp.h"
#include "common/util/check.h"
#include "common/util/clock.h"
#include "common/util/crypto.h"
#include "common/util/id.h"
#include "raftd/members.h"
#include "raftd/snapshot.h"

#define MAGIC "MSBACKUP"
#define MAGIC_SIZE 8u
#define VERSION 1u
#define SALT_AT 16u
#define SALT_SIZE 16u
#define LOG_N 15u /* scrypt: 32 MiB */
#define LOG_N_MAX 20u
#define SCRYPT_R 8u
#define SCRYPT_P 1u
#define SCRYPT_MAX (2ull << 30)
#define CHUNK (128u << 10)
#define RECORD_MAX (96u << 20)
#define SPOOL "restore.tmp"
#define PATH_SIZE 512

_Static_assert(SALT_AT + SALT_SIZE == BACKUP_HEADER, "backup format");

static void put_be(uint8_t *p, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> (8 * (n - 1 - i)));
}

static uint64_t get_be(const void *from, unsigned n)
{
    const uint8_t *p = from;
    uint64_t v = 0;
    for (unsigned i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

/* ---- the key ---- */

static int key_of(struct str passphrase, const uint8_t header[BACKUP_HEADER], struct seal_key *ret, struct err *e)
{
    const struct str salt = { (const char *)header + SALT_AT, SALT_SIZE };
    uint8_t secret[CRYPTO_KEY];
    if (passphrase.n == 0)
        return err_set(e, ERR_INVALID, "backup: a passphrase is needed");
    if (!crypto_scrypt(passphrase, salt, header[10], secret))
        return err_set(e, ERR_NOMEM, "backup: not enough memory to derive the key");
    crypto_hkdf((struct str){ (const char *)secret, sizeof secret }, salt,
                (struct str){ (const char *)header, BACKUP_HEADER }, ret->b);
    crypto_wipe(secret, sizeof secret);
    return 0;
}

/* ---- making one ---- */

struct backup {
    struct sm_snap *snap;
    struct seal *seal;
    struct seal_header h;
    struct buf plain, record, page;
    uint64_t page_at;
    bool ended;
};

static void record_put(struct buf *b, struct str rec)
{
    uint8_t len[4];
    put_be(len, rec.n, 4);
    buf_put(b, len, 4);
    buf_put(b, rec.p, rec.n);
}

static int header_make(struct backup *b, struct str passphrase, struct err *e)
{
    uint8_t h[BACKUP_HEADER] = { 0 };
    struct seal_key key;
    for (unsigned i = 0; i < MAGIC_SIZE; i++)
        h[i] = (uint8_t)MAGIC[i];
    put_be(h + 8, VERSION, 2);
    h[10] = LOG_N;
    h[11] = SCRYPT_R;
    h[12] = SCRYPT_P;
    random_bytes(h + SALT_AT, SALT_SIZE);
    int r = key_of(passphrase, h, &key, e);
    if (r == 0)
        r = seal_new(&b->seal, &key, e);
    crypto_wipe(&key, sizeof key);
    buf_put(&b->page, h, sizeof h);
    return r;
}

int backup_begin(struct backup **ret, struct sm *sm, const struct raft_log_identity *id, struct str passphrase,
                 struct err *e)
{
    _cleanup_(backup_freep) struct backup *b = calloc(1, sizeof *b);
    if (b == NULL)
        return err_set(e, ERR_NOMEM, "backup: out of memory");
    int r = header_make(b, passphrase, e);
    if (r == 0)
        r = sm_snap_begin(sm, &b->snap, e);
    if (r < 0)
        return r;
    b->h = (struct seal_header){ .type = 'b', .index = sm_snap_index(b->snap), .term = sm_snap_term(b->snap) };
    mp_map(&b->record, 4);
    mp_kv_cstr(&b->record, "cluster", id->cluster_id);
    mp_kv_u64(&b->record, "index", b->h.index);
    mp_kv_u64(&b->record, "term", b->h.term);
    mp_kv_i64(&b->record, "At", clock_wall().ns);
    record_put(&b->plain, buf_str(&b->record));
    *ret = TAKE(b);
    return 0;
}

static int chunk_put(struct backup *b, bool last, struct err *e)
{
    size_t n = b->plain.n < CHUNK ? b->plain.n : CHUNK;
    uint8_t len[4];
    put_be(len, n + SEAL_OVERHEAD, 4);
    buf_put(&b->page, len, 4);
    b->h.parts = last ? b->h.part + 1 : 0;
    int r = seal_put(b->seal, &b->h, (struct str){ b->plain.p, n }, &b->page, e);
    b->h.part++;
    memmove(b->plain.p, b->plain.p + n, b->plain.n - n);
    b->plain.n -= n;
    return r;
}

static int page_fill(struct backup *b, struct err *e)
{
    struct err why = ERR_INIT;
    int r = 0;
    while (r == 0 && !b->ended && b->page.n < BACKUP_PAGE) {
        if (b->plain.n > CHUNK) {
            r = chunk_put(b, false, e);
            continue;
        }
        if (sm_snap_next(b->snap, &b->record, &why)) {
            record_put(&b->plain, buf_str(&b->record));
            continue;
        }
        if (why.code != 0)
            return err_set(e, why.code, "backup: %s", why.msg);
        r = chunk_put(b, true, e);
        b->ended = true;
        b->snap = sm_snap_end(b->snap);
    }
    if (r == 0 && (b->page.failed || b->plain.failed))
        r = err_set(e, ERR_NOMEM, "backup: out of memory");
    return r;
}

int backup_page(struct backup *b, uint64_t offset, struct str *ret, bool *ret_last, struct err *e)
{
    bool next = offset == b->page_at + b->page.n && !b->ended;
    bool first = offset == 0 && b->page_at == 0 && b->page.n == BACKUP_HEADER;
    if (!next && !first && offset != b->page_at)
        return err_set(e, ERR_INVALID, "backup: offset %llu is not the one that is due", (unsigned long long)offset);
    if (next) {
        b->page_at = offset;
        buf_clear(&b->page);
    }
    if (next || first) {
        int r = page_fill(b, e);
        if (r < 0)
            return r;
    }
    *ret = buf_str(&b->page);
    *ret_last = b->ended;
    return 0;
}

struct backup *backup_free(struct backup *b)
{
    if (b == NULL)
        return NULL;
    sm_snap_end(b->snap);
    seal_free(b->seal);
    if (b->plain.p != NULL)
        crypto_wipe(b->plain.p, b->plain.cap);
    if (b->record.p != NULL)
        crypto_wipe(b->record.p, b->record.cap);
    buf_done(&b->plain);
    buf_done(&b->record);
    buf_done(&b->page);
    free(b);
    return NULL;
}

/* ---- reading one, as it comes ---- */

typedef int record_fn(void *arg, struct str record, struct err *e);

struct reader {
    struct seal *seal;
    struct seal_header want;
    uint32_t part;
    struct buf in, plain; /* not a whole chunk yet; not a whole record yet */
    bool header, last;
    record_fn *fn;
    void *arg;
};

static void reader_done(struct reader *rd)
{
    seal_free(rd->seal);
    if (rd->plain.p != NULL)
        crypto_wipe(rd->plain.p, rd->plain.cap);
    buf_done(&rd->in);
    buf_done(&rd->plain);
}

static int header_take(struct reader *rd, struct str passphrase, struct err *e)
{
    const uint8_t *h = (const uint8_t *)rd->in.p;
    struct seal_key key;
    if (memcmp(h, MAGIC, MAGIC_SIZE) != 0)
        return err_set(e, ERR_INVALID, "restore: this is not a backup");
    if (get_be(h + 8, 2) != VERSION)
        return err_set(e, ERR_INVALID, "restore: a backup of version %u, which this version does not know",
                       (unsigned)get_be(h + 8, 2));
    if (h[10] < 10 || h[10] > LOG_N_MAX || h[11] != SCRYPT_R || h[12] != SCRYPT_P || h[13] || h[14] || h[15])
        return err_set(e, ERR_CORRUPT, "restore: the header of the backup was altered");
    int r = key_of(passphrase, h, &key, e);
    if (r == 0)
        r = seal_new(&rd->seal, &key, e);
    crypto_wipe(&key, sizeof key);
    rd->header = r == 0;
    return r;
}

static int records_pass(struct reader *rd, struct err *e)
{
    size_t at = 0;
    int r = 0;
    while (r == 0 && rd->plain.n - at >= 4) {
        size_t n = get_be(rd->plain.p + at, 4);
        if (n > RECORD_MAX)
            return err_set(e, ERR_CORRUPT, "restore: chunk %u holds a malformed record", rd->part);
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

static int chunk_take(struct reader *rd, struct str sealed, struct err *e)
{
    struct seal_header h;
    if (seal_take(rd->seal, sealed, &h, &rd->plain, e) < 0) {
        if (rd->part == 0)
            return err_set(e, ERR_DENIED, "restore: the passphrase is wrong, or the backup was altered");
        return err_set(e, ERR_CORRUPT, "restore: chunk %u of the backup was altered", rd->part);
    }
    if (rd->part == 0)
        rd->want = h;
    if (h.type != 'b' || h.part != rd->part || h.index != rd->want.index || h.term != rd->want.term ||
        (h.parts != 0 && h.parts != h.part + 1))
        return err_set(e, ERR_CORRUPT, "restore: chunk %u of the backup belongs elsewhere", rd->part);
    int r = records_pass(rd, e);
    rd->part++;
    rd->last = h.parts != 0;
    if (r == 0 && rd->last && rd->plain.n != 0)
        r = err_set(e, ERR_CORRUPT, "restore: the last record of the backup is not whole");
    return r;
}

/* reader_feed - all chunks that are whole now. */
static int reader_feed(struct reader *rd, struct str data, struct str passphrase, struct err *e)
{
    size_t at = 0;
    int r = 0;
    buf_put(&rd->in, data.p, data.n);
    if (rd->in.failed)
        return err_set(e, ERR_NOMEM, "restore: out of memory");
    if (!rd->header) {
        if (rd->in.n < BACKUP_HEADER)
            return 0;
        r = header_take(rd, passphrase, e);
        at = BACKUP_HEADER;
    }
    while (r == 0 && rd->in.n - at >= 4) {
        size_t n = get_be(rd->in.p + at, 4);
        if (rd->last || n < SEAL_OVERHEAD || n > CHUNK + SEAL_OVERHEAD)
            return err_set(e, ERR_CORRUPT, "restore: chunk %u of the backup was altered", rd->part);
        if (rd->in.n - at - 4 < n)
            break;
        r = chunk_take(rd, (struct str){ rd->in.p + at + 4, n }, e);
        at += 4 + n;
    }
    if (r == 0 && rd->last && at < rd->in.n)
        r = err_set(e, ERR_CORRUPT, "restore: there is something behind the end of the backup");
    memmove(rd->in.p, rd->in.p + at, rd->in.n - at);
    rd->in.n -= at;
    return r;
}

/* ---- restoring ---- */

struct restore {
    char dir[PATH_SIZE], path[PATH_SIZE];
    int fd;
    struct buf passphrase; /* the spool is read once more in the end */
    struct reader rd;
    uint64_t at, page_at;
    bool failed;
    struct raft_log_identity id; /* cluster: from the first record */
    uint64_t index, term, revision;
    unsigned records;
    struct buf members;
};

static int first_record(struct restore *r, struct str rec, struct err *e)
{
    struct str cluster;
    if (!mp_get_str(rec, "cluster", &cluster) || !str_copy(r->id.cluster_id, sizeof r->id.cluster_id, cluster) ||
        !mp_get_u64(rec, "index", &r->index) || !mp_get_u64(rec, "term", &r->term) || r->index == 0 || r->term == 0)
        return err_set(e, ERR_CORRUPT, "restore: the first record of the backup is malformed");
    return 0;
}

static int on_record(void *arg, struct str rec, struct err *e)
{
    struct restore *r = arg;
    if (r->records++ == 0)
        return first_record(r, rec, e);
    if (r->records == 2 && !mp_get_u64(rec, "revision", &r->revision))
        return err_set(e, ERR_CORRUPT, "restore: the second record of the backup is malformed");
    return 0;
}

void restore_clean(const char *dir)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/" SPOOL, dir);
    unlink(path);
}

int restore_begin(struct restore **ret, const char *dir, struct str passphrase, struct err *e)
{
    if (raft_log_exists(dir))
        return err_set(e, ERR_PRECONDITION, "this node is already part of a swarm");
    _cleanup_(restore_freep) struct restore *r = calloc(1, sizeof *r);
    if (r == NULL)
        return err_set(e, ERR_NOMEM, "restore: out of memory");
    r->fd = -1;
    snprintf(r->dir, sizeof r->dir, "%s", dir);
    snprintf(r->path, sizeof r->path, "%s/" SPOOL, dir);
    buf_put(&r->passphrase, passphrase.p, passphrase.n);
    r->rd.fn = on_record;
    r->rd.arg = r;
    unlink(r->path);
    r->fd = open(r->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (r->fd < 0)
        return err_errno(e, errno, "create %s", r->path);
    *ret = TAKE(r);
    return 0;
}

static int spool(struct restore *r, struct str data, struct err *e)
{
    for (size_t done = 0; done < data.n;) {
        ssize_t n = pwrite(r->fd, data.p + done, data.n - done, (off_t)(r->at + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_errno(e, n < 0 ? errno : ENOSPC, "write %s", r->path);
        done += (size_t)n;
    }
    return 0;
}

int restore_put(struct restore *r, uint64_t offset, struct str data, struct err *e)
{
    if (r->failed)
        return err_set(e, ERR_INVALID, "restore: an earlier page was refused");
    if (r->at > 0 && offset == r->page_at && offset + data.n == r->at)
        return 0; /* once more; it has been taken */
    if (offset != r->at)
        return err_set(e, ERR_INVALID, "restore: offset %llu is not the one that is due, %llu",
                       (unsigned long long)offset, (unsigned long long)r->at);
    int rc = spool(r, data, e);
    if (rc == 0)
        rc = reader_feed(&r->rd, data, buf_str(&r->passphrase), e);
    r->failed = rc < 0;
    r->page_at = r->at;
    r->at += data.n;
    return rc;
}

/* The snapshot's records, as the backup has them, but for the membership. */
struct filling {
    struct restore *r;
    struct snapshot_writer *w;
    unsigned n;
};

static int fill_record(void *arg, struct str rec, struct err *e)
{
    struct filling *f = arg;
    struct buf head = BUF_INIT;
    if (f->n++ == 0)
        return 0;
    if (f->n != 2)
        return snapshot_put(f->w, rec, e);
    sm_snap_head(f->r->revision, buf_str(&f->r->members), &head);
    int r = head.failed ? err_set(e, ERR_NOMEM, "restore: out of memory") : snapshot_put(f->w, buf_str(&head), e);
    buf_done(&head);
    return r;
}

static int fill(void *arg, struct snapshot_writer *w, struct err *e)
{
    struct restore *r = arg;
    struct filling f = { .r = r, .w = w };
    struct reader rd = { .fn = fill_record, .arg = &f };
    static const size_t step = 256u << 10;
    char *p = malloc(step);
    int rc = p == NULL ? err_set(e, ERR_NOMEM, "restore: out of memory") : 0;
    for (uint64_t at = 0; rc == 0 && at < r->at;) {
        ssize_t n = pread(r->fd, p, step, (off_t)at);
        if (n <= 0)
            rc = err_errno(e, n < 0 ? errno : EIO, "read %s", r->path);
        else
            rc = reader_feed(&rd, (struct str){ p, (size_t)n }, buf_str(&r->passphrase), e);
        at += n > 0 ? (uint64_t)n : 0;
    }
    if (rc == 0 && !rd.last)
        rc = err_set(e, ERR_CORRUPT, "restore: %s has changed", r->path);
    free(p);
    reader_done(&rd);
    return rc;
}

static int identity_make(struct restore *r, struct str node_id, struct str addr, struct err *e)
{
    struct members m = { .n = 1 };
    if (node_id.n == 0 || !str_copy(r->id.node_id, sizeof r->id.node_id, node_id) ||
        !str_copy(m.v[0].node, sizeof m.v[0].node, node_id) || !str_copy(m.v[0].addr, sizeof m.v[0].addr, addr))
        return err_set(e, ERR_INVALID, "NodeID, Addr: missing or too long");
    while (r->id.id == 0)
        random_bytes(&r->id.id, sizeof r->id.id);
    m.v[0].id = r->id.id;
    buf_clear(&r->members);
    members_encode(&m, &r->members);
    return r->members.failed ? err_set(e, ERR_NOMEM, "restore: out of memory") : 0;
}

int restore_finish(struct restore *r, struct str node_id, struct str addr, struct err *e)
{
    if (r->failed || !r->rd.last || r->records < 2)
        return err_set(e, ERR_CORRUPT, "restore: the backup is cut short behind chunk %u", r->rd.part);
    int rc = identity_make(r, node_id, addr, e);
    if (rc < 0)
        return rc;
    struct raft_hard_state hs = { .term = r->term + 1 };
    return raft_log_create_snapshot(r->dir, &r->id, &hs, r->index, r->term, fill, r, e);
}

struct restore *restore_free(struct restore *r)
{
    if (r == NULL)
        return NULL;
    if (r->fd >= 0) {
        unlink(r->path);
        close(r->fd);
    }
    if (r->passphrase.p != NULL)
        crypto_wipe(r->passphrase.p, r->passphrase.cap);
    buf_done(&r->passphrase);
    buf_done(&r->members);
    reader_done(&r->rd);
    free(r);
    return NULL;
}
