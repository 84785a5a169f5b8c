/*
 * sm_snap.c - snapshots out of a read transaction, restoring them, and what probes ask.
 *
 * A snapshot is the documents, not LMDB's pages: indexes are made again, the change log starts empty (readers then get
 * -ERR_GONE and read everything), and the file does not depend on page size or layout.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/daemon/daemon.h"
#include "common/proto/mp.h"
#include "common/util/check.h"
#include "raftd/members.h"
#include "raftd/sm_priv.h"
#include "raftd/snapshot.h"

#define SNAPSHOT_FORMAT 2u /* 2: with the membership */
#define RESTORE_BATCH 20000u

struct sm_snap {
    struct sm *sm;
    MDB_txn *state, *secret;
    uint64_t index, term, revision;
    atomic_bool cancelled;
    bool counted;
    bool head; /* the first record is out; then come all kinds, and the cursor is in one of them */
    enum kind kind;
    MDB_cursor *cursor;
};

int sm_snap_begin(struct sm *sm, struct sm_snap **ret, struct err *e)
{
    struct sm_snap *s = calloc(1, sizeof *s);
    if (s == NULL)
        return err_set(e, ERR_NOMEM, "snapshot: out of memory");
    s->sm = sm;
    s->index = sm->done_applied;
    s->term = sm->done_term;
    s->revision = sm->done_revision;
    /* A batch that is open shows in neither map: both are at one index. */
    int rc = mdb_txn_begin(sm->state.env, NULL, MDB_RDONLY, &s->state);
    if (rc == 0)
        rc = mdb_txn_begin(sm->secret.env, NULL, MDB_RDONLY, &s->secret);
    if (rc != 0) {
        sm_snap_end(s);
        return map_failed(&sm->state, rc, "open snapshot", e);
    }
    sm->snaps++;
    s->counted = true;
    *ret = s;
    return 0;
}

struct sm_snap *sm_snap_end(struct sm_snap *s)
{
    if (s == NULL)
        return NULL;
    if (s->counted)
        s->sm->snaps--;
    if (s->cursor != NULL)
        mdb_cursor_close(s->cursor);
    if (s->state != NULL)
        mdb_txn_abort(s->state);
    if (s->secret != NULL)
        mdb_txn_abort(s->secret);
    free(s);
    return NULL;
}

uint64_t sm_snap_index(const struct sm_snap *s)
{
    return s->index;
}

void sm_snap_cancel(struct sm_snap *s)
{
    atomic_store(&s->cancelled, true);
}

uint64_t sm_snap_term(const struct sm_snap *s)
{
    return s->term;
}

void sm_snap_head(uint64_t revision, struct str members, struct buf *b)
{
    mp_map(b, members.n > 0 ? 3 : 2);
    mp_kv_u64(b, "format", SNAPSHOT_FORMAT);
    mp_kv_u64(b, "revision", revision);
    if (members.n > 0)
        mp_kv_raw(b, "members", members);
}

static void head_record(struct sm_snap *s, struct buf *b)
{
    struct str members = { NULL, 0 };
    (void)map_get(&s->sm->state, s->state, s->sm->state.meta, STR(META_MEMBERS), &members);
    sm_snap_head(s->revision, members, b);
    s->head = true;
}

/* doc_next - 1: there is one; 0: no more; negative: LMDB failed. */
static int doc_next(struct sm_snap *s, MDB_val *key, MDB_val *val, struct err *e)
{
    for (; s->kind < KIND_COUNT; s->kind++) {
        const struct map *m = sm_map(s->sm, s->kind);
        int rc = 0;
        if (s->cursor == NULL)
            rc = mdb_cursor_open(m->secret ? s->secret : s->state, m->kind[s->kind], &s->cursor);
        if (rc == 0)
            rc = mdb_cursor_get(s->cursor, key, val, MDB_NEXT);
        if (rc == 0)
            return 1;
        if (rc != MDB_NOTFOUND)
            return map_failed(m, rc, "read for the snapshot", e);
        mdb_cursor_close(s->cursor);
        s->cursor = NULL;
    }
    return 0;
}

bool sm_snap_next(struct sm_snap *s, struct buf *b, struct err *e)
{
    MDB_val key = { 0, NULL }, val = { 0, NULL };
    buf_clear(b);
    if (atomic_load(&s->cancelled)) {
        err_set(e, ERR_UNAVAILABLE, "snapshot: cancelled");
        return false;
    }
    if (!s->head) {
        head_record(s, b);
    } else {
        if (doc_next(s, &key, &val, e) != 1)
            return false;
        mp_array(b, 3);
        mp_cstr(b, kind_info[s->kind].name);
        mp_str(b, (struct str){ key.mv_data, key.mv_size });
        mp_raw(b, (struct str){ val.mv_data, val.mv_size });
    }
    if (b->failed)
        err_set(e, ERR_NOMEM, "snapshot: out of memory");
    return !b->failed;
}

int sm_snap_write(struct sm_snap *s, const char *dir, const struct seal_key *key, struct err *e)
{
    _cleanup_(snapshot_closep) struct snapshot_writer *w = NULL;
    struct buf b = BUF_INIT;
    struct err why = ERR_INIT;
    int r = snapshot_create(&w, dir, key, s->index, s->term, e);
    while (r == 0 && sm_snap_next(s, &b, &why))
        r = snapshot_put(w, buf_str(&b), e);
    buf_done(&b);
    if (r == 0 && why.code != 0)
        r = err_set(e, why.code, "%s", why.msg);
    return r < 0 ? r : snapshot_finish(w, e);
}

/* ---- restoring ---- */

struct restore {
    struct sm *sm;
    bool head;
    uint64_t revision;
    unsigned n;
};

static int restore_batch(struct restore *rs, struct err *e)
{
    struct sm *sm = rs->sm;
    int r = 0;
    daemon_busy();
    if (sm->state.txn != NULL)
        r = map_commit(&sm->state, e);
    if (r == 0 && sm->secret.txn != NULL)
        r = map_commit(&sm->secret, e);
    return r < 0 ? r : map_begin(&sm->state, e);
}

static int restore_head(struct restore *rs, struct str rec, struct err *e)
{
    uint64_t format = 0;
    if (!mp_get_u64(rec, "format", &format) || !mp_get_u64(rec, "revision", &rs->revision))
        return err_set(e, ERR_CORRUPT, "snapshot: the first record is malformed");
    if (format != SNAPSHOT_FORMAT)
        return err_set(e, ERR_CORRUPT, "snapshot: of format %llu, which this version does not know",
                       (unsigned long long)format);
    rs->head = true;
    struct str members = { NULL, 0 };
    struct members m;
    if (!mp_find(rec, "members", &members))
        return 0;
    if (members_decode(&m, members, e) < 0)
        return err_wrap(e, "snapshot");
    return map_put(&rs->sm->state, rs->sm->state.meta, STR(META_MEMBERS), members, e);
}

static int restore_record(void *arg, struct str rec, struct err *e)
{
    struct restore *rs = arg;
    struct mp_cursor c = mp_cursor(rec);
    struct mp_val head, kind, id;
    struct str doc;
    if (!rs->head)
        return restore_head(rs, rec, e);
    if (mp_next(&c, &head) != 0 || head.type != MP_ARRAY || head.n != 3 || mp_next(&c, &kind) != 0 ||
        kind.type != MP_STR || mp_next(&c, &id) != 0 || id.type != MP_STR || mp_span(&c, &doc) != 0 ||
        !store_id_ok(id.s))
        return err_set(e, ERR_CORRUPT, "snapshot: a record is malformed");
    enum kind k = kind_by_name(kind.s.p, kind.s.n);
    if (k == KIND_COUNT)
        return err_set(e, ERR_CORRUPT, "snapshot: there is no kind \"" STR_FMT "\"", STR_ARG(kind.s));
    if (++rs->n % RESTORE_BATCH == 0) {
        int r = restore_batch(rs, e);
        if (r < 0)
            return r;
    }
    return sm_doc_write(rs->sm, k, id.s, NULL, &doc, NULL, e);
}

int sm_restore(struct sm *sm, const char *dir, const struct seal_key *key, uint64_t index, uint64_t term, struct err *e)
{
    struct restore rs = { .sm = sm };
    CHECK(sm->applied == 0 && !sm->state.published);
    int r = sm_begin(sm, e);
    if (r == 0)
        r = snapshot_read(dir, key, index, term, restore_record, &rs, e);
    if (r == 0)
        r = sm_restored(sm, index, term, rs.revision, e);
    if (r < 0)
        sm_abort(sm);
    return r;
}

/* ---- probes ---- */

int sm_get(struct sm *sm, enum kind k, struct str id, struct buf *out, struct err *e)
{
    struct map *m = sm_map(sm, k);
    MDB_txn *txn;
    struct str doc;
    int rc = mdb_txn_begin(m->env, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        return map_failed(m, rc, "read", e);
    int r = map_get(m, txn, m->kind[k], id, &doc);
    if (r == 0)
        buf_put(out, doc.p, doc.n);
    else
        err_set(e, ERR_NOT_FOUND, "%s " STR_FMT " not found", kind_info[k].name, STR_ARG(id));
    mdb_txn_abort(txn);
    return r;
}

int sm_list(struct sm *sm, enum kind k, sm_list_fn *fn, void *arg, struct err *e)
{
    struct map *m = sm_map(sm, k);
    MDB_txn *txn;
    MDB_cursor *c;
    MDB_val key, val;
    int rc = mdb_txn_begin(m->env, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        return map_failed(m, rc, "read", e);
    rc = mdb_cursor_open(txn, m->kind[k], &c);
    if (rc == 0) {
        while (mdb_cursor_get(c, &key, &val, MDB_NEXT) == 0)
            if (!fn(arg, (struct str){ key.mv_data, key.mv_size }, (struct str){ val.mv_data, val.mv_size }))
                break;
        mdb_cursor_close(c);
    }
    mdb_txn_abort(txn);
    return rc == 0 ? 0 : map_failed(m, rc, "read", e);
}

uint64_t sm_count(struct sm *sm, enum kind k)
{
    struct map *m = sm_map(sm, k);
    MDB_txn *txn;
    MDB_stat st = { 0 };
    if (mdb_txn_begin(m->env, NULL, MDB_RDONLY, &txn) != 0)
        return 0;
    (void)mdb_stat(txn, m->kind[k], &st);
    mdb_txn_abort(txn);
    return st.ms_entries;
}

uint64_t sm_used_bytes(const struct sm *sm)
{
    return map_used_bytes(&sm->state) + map_used_bytes(&sm->secret);
}

/* ---- readers ---- */

void sm_tick(struct sm *sm, uint64_t now_ms)
{
    MDB_envinfo info;
    size_t last = (sm->n_commits + SM_COMMITS - 1) % SM_COMMITS;
    if (sm->n_commits > 0 && now_ms - sm->commits[last].at_ms < 100)
        return;
    mdb_env_info(sm->state.env, &info);
    sm->commits[sm->n_commits % SM_COMMITS].txnid = info.me_last_txnid;
    sm->commits[sm->n_commits % SM_COMMITS].at_ms = now_ms;
    sm->n_commits++;
}

struct listing {
    struct sm *sm;
    struct sm_reader *v;
    size_t n, max;
    uint64_t now_ms, last_txnid;
};

static uint64_t age_of(const struct sm *sm, uint64_t txnid, uint64_t now_ms)
{
    size_t n = sm->n_commits < SM_COMMITS ? sm->n_commits : SM_COMMITS;
    uint64_t age = 0;
    for (size_t i = 0; i < n; i++)
        if (sm->commits[i].txnid > txnid && now_ms - sm->commits[i].at_ms > age)
            age = now_ms - sm->commits[i].at_ms;
    return age;
}

/* LMDB lists its readers as text: "pid thread txnid", txnid "-" when the slot is idle. */
static int on_reader(const char *line, void *arg)
{
    struct listing *l = arg;
    char *end;
    long pid = strtol(line, &end, 10);
    while (*end == ' ')
        end++;
    end += strcspn(end, " "); /* the thread */
    while (*end == ' ')
        end++;
    if (l->n == l->max || pid <= 0 || *end < '0' || *end > '9')
        return 0;
    uint64_t txnid = strtoull(end, NULL, 10);
    uint64_t lag = l->last_txnid > txnid ? l->last_txnid - txnid : 0;
    l->v[l->n++] = (struct sm_reader){ (int)pid, lag, lag ? age_of(l->sm, txnid, l->now_ms) : 0 };
    return 0;
}

size_t sm_readers(struct sm *sm, uint64_t now_ms, struct sm_reader *v, size_t max)
{
    MDB_envinfo info;
    mdb_env_info(sm->state.env, &info);
    struct listing l = { .sm = sm, .v = v, .max = max, .now_ms = now_ms, .last_txnid = info.me_last_txnid };
    mdb_reader_list(sm->state.env, on_reader, &l);
    return l.n;
}

unsigned sm_clear_readers(struct sm *sm)
{
    int a = 0, b = 0;
    mdb_reader_check(sm->state.env, &a);
    mdb_reader_check(sm->secret.env, &b);
    return (unsigned)(a + b);
}
