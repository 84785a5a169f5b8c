/* store.c - the reader's side of the state map: LMDB opened read-only, one snapshot at a time. */
#include "common/store/store.h"

#include <errno.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/proto/mp.h"
#include "common/util/check.h"

#define PATH_MAX_ 512
#define NO_DBI ((MDB_dbi)-1)

/* One environment: the state map or the secret map. A process must never have the same one open twice (LMDB's locks).
 */
struct part {
    char dir[PATH_MAX_];
    bool secret;
    MDB_env *env; /* NULL: not open */
    bool opened;  /* once, at least */
    MDB_txn *txn; /* kept between snapshots (mdb_txn_reset), so that the reader slot stays ours */
    MDB_dbi kind[KIND_COUNT], index[IX_COUNT], log, meta;
    bool missing; /* some database isn't there yet: a newer raftd may make it */
};

struct store_snap {
    struct store *s;
};

struct store {
    struct part state, secret;
    bool with_secrets, busy;
    uint64_t floor; /* the map was replaced at this revision: earlier ones are another history, perhaps */
    struct store_snap snap;
};

/* ---- opening ---- */

static void part_close(struct part *p)
{
    if (p->txn != NULL)
        mdb_txn_abort(p->txn);
    if (p->env != NULL)
        mdb_env_close(p->env);
    p->txn = NULL;
    p->env = NULL;
}

static int part_failed(struct part *p, int r, const char *what, struct err *e)
{
    return err_set(e, ERR_UNAVAILABLE, "%s %s: %s", what, p->dir, mdb_strerror(r));
}

static int txn_begin(struct part *p, MDB_txn **ret)
{
    int r = mdb_txn_begin(p->env, NULL, MDB_RDONLY, ret);
    if (r == MDB_MAP_RESIZED && mdb_env_set_mapsize(p->env, 0) == 0)
        r = mdb_txn_begin(p->env, NULL, MDB_RDONLY, ret);
    if (r == MDB_READERS_FULL) { /* dead readers may hold the slots; raftd clears them too, but we are first */
        int dead;
        mdb_reader_check(p->env, &dead);
        r = mdb_txn_begin(p->env, NULL, MDB_RDONLY, ret);
    }
    return r;
}

static int dbi_open(struct part *p, MDB_txn *txn, const char *name, MDB_dbi *ret)
{
    *ret = NO_DBI;
    int r = mdb_dbi_open(txn, name, 0, ret);
    if (r == MDB_NOTFOUND) {
        *ret = NO_DBI;
        p->missing = true;
        return 0;
    }
    return r;
}

/* dbis_open - handles become usable by other transactions only when the opening one is committed. */
static int dbis_open(struct part *p)
{
    MDB_txn *txn;
    char name[STORE_DB_NAME_MAX];
    int r = txn_begin(p, &txn);
    if (r != 0)
        return r;
    p->missing = false;
    for (enum kind k = 0; k < KIND_COUNT && r == 0; k++)
        if (kind_info[k].secret == p->secret)
            r = dbi_open(p, txn, kind_info[k].name, &p->kind[k]);
    for (enum index ix = 0; ix < IX_COUNT && r == 0; ix++)
        if (kind_info[index_info[ix].kind].secret == p->secret)
            r = dbi_open(p, txn, index_db_name(ix, name), &p->index[ix]);
    if (r == 0 && !p->secret)
        r = dbi_open(p, txn, STORE_DB_LOG, &p->log);
    if (r == 0)
        r = dbi_open(p, txn, STORE_DB_META, &p->meta);
    if (r != 0) {
        mdb_txn_abort(txn);
        return r;
    }
    return mdb_txn_commit(txn);
}

static void dbis_forget(struct part *p)
{
    for (enum kind k = 0; k < KIND_COUNT; k++)
        p->kind[k] = NO_DBI;
    for (enum index ix = 0; ix < IX_COUNT; ix++)
        p->index[ix] = NO_DBI;
    p->log = p->meta = NO_DBI;
}

static int part_open(struct part *p, struct err *e)
{
    dbis_forget(p);
    int r = mdb_env_create(&p->env);
    if (r != 0)
        return part_failed(p, r, "create environment for", e);
    mdb_env_set_maxdbs(p->env, STORE_DBS_MAX);
    r = mdb_env_open(p->env, p->dir, MDB_RDONLY | MDB_NOTLS, 0);
    if (r == 0)
        r = dbis_open(p);
    if (r != 0) {
        part_close(p);
        return part_failed(p, r, "open state map", e);
    }
    return 0;
}

/* in_place - is the map that is open still the one at the path? One that was replaced or removed has lost its name,
 * which takes no walk along the path to see. */
static bool in_place(const struct part *p)
{
    struct stat st;
    int fd;
    return p->env != NULL && mdb_env_get_fd(p->env, &fd) == 0 && fstat(fd, &st) == 0 && st.st_nlink > 0;
}

/* part_follow - opens the map that is at the path now; *ret_replaced when another one was open before. */
static int part_follow(struct part *p, bool *ret_replaced, struct err *e)
{
    char path[PATH_MAX_ + sizeof STORE_DATA_FILE + 1];
    struct stat st;
    if (in_place(p))
        return 0;
    snprintf(path, sizeof path, "%s/%s", p->dir, STORE_DATA_FILE);
    if (stat(path, &st) < 0) {
        int saved = errno;
        part_close(p); /* it may be gone for good: don't pin its memory */
        return err_set(e, ERR_UNAVAILABLE, "no state map: %s: %s", path, strerror(saved));
    }
    *ret_replaced = p->opened;
    part_close(p);
    int r = part_open(p, e);
    p->opened |= r == 0;
    return r;
}

static int part_get(struct part *p, MDB_dbi dbi, struct str key, struct str *ret)
{
    if (dbi == NO_DBI || key.n == 0 || key.n > 511)
        return -ERR_NOT_FOUND;
    MDB_val k = { key.n, (void *)key.p }, v;
    if (mdb_get(p->txn, dbi, &k, &v) != 0)
        return -ERR_NOT_FOUND;
    *ret = (struct str){ v.mv_data, v.mv_size };
    return 0;
}

static int part_begin(struct part *p, bool *ret_replaced, struct err *e)
{
    int r = part_follow(p, ret_replaced, e);
    if (r < 0)
        return r;
    if (p->missing) {
        r = dbis_open(p);
        if (r != 0)
            return part_failed(p, r, "open state map", e);
    }
    if (p->txn != NULL) {
        r = mdb_txn_renew(p->txn);
        if (r != 0) {
            mdb_txn_abort(p->txn);
            p->txn = NULL;
        }
    }
    if (p->txn == NULL)
        r = txn_begin(p, &p->txn);
    if (r != 0) {
        part_close(p);
        return part_failed(p, r, "read state map", e);
    }
    struct str revision;
    if (part_get(p, p->meta, STR(META_REVISION), &revision) < 0) {
        mdb_txn_reset(p->txn);
        return err_set(e, ERR_UNAVAILABLE, "state map %s is still empty", p->dir);
    }
    return 0;
}

static void part_init(struct part *p, const char *run_dir, const char *name, bool secret)
{
    snprintf(p->dir, sizeof p->dir, "%s/%s", run_dir, name);
    p->secret = secret;
    dbis_forget(p);
}

int store_open(struct store **ret, const char *run_dir, bool secrets, struct err *e)
{
    if (strlen(run_dir) + 16 > PATH_MAX_)
        return err_set(e, ERR_INVALID, "run folder: path is too long");
    struct store *s = calloc(1, sizeof *s);
    if (s == NULL)
        return err_set(e, ERR_NOMEM, "open store: out of memory");
    part_init(&s->state, run_dir, STORE_STATE_DIR, false);
    part_init(&s->secret, run_dir, STORE_SECRET_DIR, true);
    s->with_secrets = secrets;
    s->snap.s = s;
    *ret = s;
    return 0;
}

struct store *store_close(struct store *s)
{
    if (s == NULL)
        return NULL;
    part_close(&s->state);
    part_close(&s->secret);
    free(s);
    return NULL;
}

/* ---- snapshots ---- */

static uint64_t snap_revision(struct store_snap *snap)
{
    struct store *s = snap->s;
    struct str v;
    uint64_t revision = 0;
    if (part_get(&s->state, s->state.meta, STR(META_REVISION), &v) == 0)
        (void)mp_as_u64(v, &revision);
    return revision;
}

int store_begin(struct store *s, struct store_snap **ret, struct err *e)
{
    CHECK(!s->busy);
    bool replaced = false, ignore = false;
    int r = part_begin(&s->state, &replaced, e);
    if (r < 0)
        return r;
    if (s->with_secrets) {
        r = part_begin(&s->secret, &ignore, e);
        if (r < 0) {
            mdb_txn_reset(s->state.txn);
            return r;
        }
    }
    s->busy = true;
    if (replaced)
        s->floor = snap_revision(&s->snap);
    *ret = &s->snap;
    return 0;
}

struct store_snap *store_end(struct store_snap *snap)
{
    if (snap == NULL)
        return NULL;
    CHECK(snap->s->busy);
    mdb_txn_reset(snap->s->state.txn);
    if (snap->s->with_secrets)
        mdb_txn_reset(snap->s->secret.txn);
    snap->s->busy = false;
    return NULL;
}

static struct str meta_value(struct store_snap *snap, const char *name)
{
    struct str v = { NULL, 0 };
    (void)part_get(&snap->s->state, snap->s->state.meta, str_from(name), &v);
    return v;
}

int store_meta(struct store_snap *snap, struct store_meta *ret, struct err *e)
{
    struct store_meta m = { 0 };
    if (!mp_as_u64(meta_value(snap, META_REVISION), &m.revision))
        return err_set(e, ERR_CORRUPT, "state map: meta %s is not a number", META_REVISION);
    (void)mp_as_u64(meta_value(snap, META_TERM), &m.term);
    (void)mp_as_bool(meta_value(snap, META_INITIALIZED), &m.initialized);
    (void)mp_as_bool(meta_value(snap, META_LEADER), &m.leader);
    (void)mp_as_str(meta_value(snap, META_NODE_ID), &m.node_id);
    (void)mp_as_str(meta_value(snap, META_CLUSTER_ID), &m.cluster_id);
    (void)mp_as_str(meta_value(snap, META_LEADER_ID), &m.leader_id);
    *ret = m;
    return 0;
}

size_t store_members(struct store_snap *snap, struct store_member ret[STORE_MEMBERS_MAX])
{
    struct mp_cursor c = mp_cursor(meta_value(snap, META_MEMBERS));
    struct mp_val head;
    size_t n = 0;
    if (mp_next(&c, &head) != 0 || head.type != MP_ARRAY)
        return 0;
    for (size_t i = 0; i < head.n && n < STORE_MEMBERS_MAX; i++) {
        struct str doc;
        struct store_member m = { 0 };
        if (mp_span(&c, &doc) != 0 || !mp_get_u64(doc, "RaftID", &m.raft_id) || !mp_get_str(doc, "NodeID", &m.node_id))
            return 0; /* raftd alone writes it, whole */
        (void)mp_get_str(doc, "Addr", &m.addr);
        (void)mp_get_bool(doc, "Learner", &m.learner);
        ret[n++] = m;
    }
    return n;
}

/* part_of - where a kind lives; the secret map when it is open, else nowhere. */
static struct part *part_of(struct store_snap *snap, enum kind kind)
{
    struct store *s = snap->s;
    CHECK((unsigned)kind < KIND_COUNT);
    if (!kind_info[kind].secret)
        return &s->state;
    return s->with_secrets ? &s->secret : NULL;
}

int store_get(struct store_snap *snap, enum kind kind, struct str id, struct str *ret_doc)
{
    struct part *p = part_of(snap, kind);
    if (p == NULL || id.n > STORE_ID_MAX)
        return -ERR_NOT_FOUND;
    return part_get(p, p->kind[kind], id, ret_doc);
}

/* ---- iteration ---- */

static void iter_start(struct store_iter *it, struct store_snap *snap, enum kind kind, MDB_dbi dbi)
{
    struct part *p = part_of(snap, kind);
    MDB_cursor *c = NULL;
    memset(it, 0, offsetof(struct store_iter, keybuf));
    it->snap = snap;
    it->kind = kind;
    if (p != NULL && dbi != NO_DBI && mdb_cursor_open(p->txn, dbi, &c) == 0)
        it->cursor = c;
}

void store_each(struct store_snap *snap, enum kind kind, struct store_iter *it)
{
    struct part *p = part_of(snap, kind);
    iter_start(it, snap, kind, p ? p->kind[kind] : NO_DBI);
}

void store_each_prefix(struct store_snap *snap, enum kind kind, struct str id_prefix, struct store_iter *it)
{
    struct part *p = part_of(snap, kind);
    bool possible = p != NULL && id_prefix.n <= STORE_ID_MAX;
    iter_start(it, snap, kind, possible ? p->kind[kind] : NO_DBI);
    if (!possible)
        return;
    if (id_prefix.n)
        memcpy(it->keybuf, id_prefix.p, id_prefix.n);
    it->key.n = id_prefix.n;
    it->prefix = id_prefix.n > 0;
}

void store_each_index(struct store_snap *snap, enum index ix, struct str key, struct store_iter *it)
{
    _Static_assert(sizeof it->keybuf >= STORE_ENTRY_MAX, "room for an index entry");
    CHECK((unsigned)ix < IX_COUNT);
    struct part *p = part_of(snap, index_info[ix].kind);
    iter_start(it, snap, index_info[ix].kind, p ? p->index[ix] : NO_DBI);
    it->by_index = true;
    it->prefix = true;
    it->key.n = index_entry(index_key(ix, key, it->keybuf), (struct str){ NULL, 0 }, it->keybuf).n;
}

void store_iter_done(struct store_iter *it)
{
    if (it->cursor != NULL)
        mdb_cursor_close(it->cursor);
    it->cursor = NULL;
    it->id = it->doc = (struct str){ NULL, 0 };
}

/* iter_step - the next raw entry within the prefix. */
static bool iter_step(struct store_iter *it, MDB_val *k, MDB_val *v)
{
    MDB_cursor_op op = MDB_NEXT;
    if (!it->started) {
        it->started = true;
        op = it->key.n ? MDB_SET_RANGE : MDB_FIRST;
        *k = (MDB_val){ it->key.n, it->keybuf };
    }
    if (mdb_cursor_get(it->cursor, k, v, op) != 0)
        return false;
    return !it->prefix || (k->mv_size >= it->key.n && memcmp(k->mv_data, it->keybuf, it->key.n) == 0);
}

bool store_next(struct store_iter *it)
{
    MDB_val k, v;
    while (it->cursor != NULL && iter_step(it, &k, &v)) {
        if (!it->by_index) {
            it->id = (struct str){ k.mv_data, k.mv_size };
            it->doc = (struct str){ v.mv_data, v.mv_size };
            return true;
        }
        it->id = index_entry_id((struct str){ k.mv_data, k.mv_size });
        if (store_get(it->snap, it->kind, it->id, &it->doc) == 0)
            return true; /* an entry without its document would be raftd's bug: step over it */
    }
    store_iter_done(it);
    return false;
}

uint64_t store_count(struct store_snap *snap, enum kind kind)
{
    struct part *p = part_of(snap, kind);
    MDB_stat st;
    if (p == NULL || p->kind[kind] == NO_DBI || mdb_stat(p->txn, p->kind[kind], &st) != 0)
        return 0;
    return st.ms_entries;
}

/* ---- looking up ---- */

int store_find_name(struct store_snap *snap, enum index ix, struct str name, struct str *ret_id)
{
    struct store_iter it;
    store_each_index(snap, ix, name, &it);
    if (name.n == 0 || !store_next(&it)) {
        store_iter_done(&it);
        return -ERR_NOT_FOUND;
    }
    *ret_id = it.id;
    store_iter_done(&it);
    return 0;
}

/* first_and_count - how many the iteration finds, and the first of them. */
static uint64_t first_and_count(struct store_iter *it, struct str *ret_id, struct str *ret_doc)
{
    uint64_t n = 0;
    while (store_next(it)) {
        if (n++ == 0) {
            *ret_id = it->id;
            *ret_doc = it->doc;
        }
    }
    return n;
}

int store_resolve(struct store_snap *snap, enum kind kind, enum index ix, struct str ref, struct str *ret_id,
                  struct str *ret_doc, struct err *e)
{
    struct str id = { NULL, 0 }, doc = { NULL, 0 };
    struct store_iter it;
    uint64_t n = 0;

    if (ref.n > 0 && store_get(snap, kind, ref, ret_doc) == 0) {
        *ret_id = ref;
        return 0;
    }
    if (ref.n > 0 && ix != IX_COUNT) {
        store_each_index(snap, ix, ref, &it);
        n = first_and_count(&it, &id, &doc);
    }
    if (n == 0 && ref.n > 0) {
        store_each_prefix(snap, kind, ref, &it);
        n = first_and_count(&it, &id, &doc);
    }
    if (n == 0)
        return err_set(e, ERR_NOT_FOUND, "%s " STR_FMT " not found", kind_info[kind].name, STR_ARG(ref));
    if (n > 1)
        return err_set(e, ERR_INVALID, "%s " STR_FMT " is ambiguous (%llu matches found)", kind_info[kind].name,
                       STR_ARG(ref), (unsigned long long)n);
    *ret_id = id;
    *ret_doc = doc;
    return 0;
}

/* ---- what changed ---- */

static int change_report(MDB_val *k, MDB_val *v, store_change_fn *fn, void *arg, struct err *e)
{
    struct str record = { v->mv_data, v->mv_size }, id;
    enum kind kind;
    char op;
    uint64_t revision = k->mv_size == STORE_LOG_KEY ? log_key_revision(k->mv_data) : 0;
    while (revision && log_next(&record, &kind, &id, &op))
        if (kind < KIND_COUNT) /* a newer raftd may have kinds that we don't know */
            fn(arg, revision, kind, id, op);
    if (record.n)
        return err_set(e, ERR_CORRUPT, "state map: malformed entry in the change log");
    return 0;
}

static int gone(struct err *e, uint64_t since)
{
    return err_set(e, ERR_GONE, "the change log does not reach back to revision %llu", (unsigned long long)since);
}

int store_changes(struct store_snap *snap, uint64_t since, store_change_fn *fn, void *arg, struct err *e)
{
    struct part *p = &snap->s->state;
    uint64_t revision = snap_revision(snap);
    MDB_cursor *c = NULL;
    MDB_val k, v;
    uint8_t from[STORE_LOG_KEY];
    int r = 0;

    if (since > revision || since < snap->s->floor)
        return gone(e, since);
    if (since == revision)
        return 0;
    if (p->log == NO_DBI || mdb_cursor_open(p->txn, p->log, &c) != 0)
        return gone(e, since);
    if (mdb_cursor_get(c, &k, &v, MDB_FIRST) != 0 || k.mv_size != STORE_LOG_KEY ||
        log_key_revision(k.mv_data) > since + 1) {
        mdb_cursor_close(c);
        return gone(e, since);
    }
    log_key(since + 1, 0, from);
    k = (MDB_val){ sizeof from, from };
    for (int f = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE); f == 0 && r == 0; f = mdb_cursor_get(c, &k, &v, MDB_NEXT))
        r = change_report(&k, &v, fn, arg, e);
    mdb_cursor_close(c);
    return r;
}

uint64_t store_log_start(struct store_snap *snap)
{
    struct part *p = &snap->s->state;
    uint64_t start = snap_revision(snap);
    MDB_cursor *c = NULL;
    MDB_val k, v;
    if (p->log == NO_DBI || mdb_cursor_open(p->txn, p->log, &c) != 0)
        return start;
    if (mdb_cursor_get(c, &k, &v, MDB_FIRST) == 0 && k.mv_size == STORE_LOG_KEY && log_key_revision(k.mv_data) <= start)
        start = log_key_revision(k.mv_data) - 1;
    mdb_cursor_close(c);
    return start > snap->s->floor ? start : snap->s->floor;
}
