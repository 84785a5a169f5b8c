/* sm.c - applying transactions to the maps. */
#include "raftd/sm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/proto/mp.h"
#include "common/util/check.h"
#include "raftd/entry.h"
#include "raftd/members.h"
#include "raftd/sm_priv.h"

/* Meta of raftd's own, beside those of layout.h. */
#define META_APPLIED "applied"
#define META_APPLIED_TERM "applied_term"
#define META_RAFT_ID "raft_id"
#define META_FORMAT "format"
#define MAP_FORMAT 2u

#define LOG_PART 16u /* of the map may be change log */

#define ENTRY_ARENA_MAX ((size_t)1 << 30)
#define IN_USE_NAMES_MAX 5u
#define ROOM_BYTES (64u << 20)
#define ROOM_MS 20u

struct map *sm_map(struct sm *sm, enum kind k)
{
    return kind_info[k].secret ? &sm->secret : &sm->state;
}

/* sm_txn - the write transaction for this kind; the secret map's is begun only when something needs it. */
static int sm_txn(struct sm *sm, enum kind k, struct map **ret, struct err *e)
{
    *ret = sm_map(sm, k);
    return (*ret)->txn != NULL ? 0 : map_begin(*ret, e);
}

static int doc_get(struct sm *sm, enum kind k, struct str id, struct str *ret, bool *ret_found, struct err *e)
{
    struct map *m;
    int r = sm_txn(sm, k, &m, e);
    if (r < 0)
        return r;
    *ret_found = map_get(m, m->txn, m->kind[k], id, ret) == 0;
    return 0;
}

/* ---- index keys of a document: (index 1, length 2, key)* ---- */

struct keyset {
    struct buf *b;
    enum index ix;
};

static void keyset_add(void *arg, struct str key)
{
    struct keyset *ks = arg;
    uint8_t head[3] = { (uint8_t)ks->ix, (uint8_t)(key.n >> 8), (uint8_t)key.n };
    buf_put(ks->b, head, 3);
    buf_put(ks->b, key.p, key.n);
}

static int keys_collect(enum kind k, const struct str *doc, struct buf *b, struct err *e)
{
    buf_clear(b);
    if (doc == NULL)
        return 0;
    for (enum index ix = 0; ix < IX_COUNT; ix++) {
        struct keyset ks = { b, ix };
        if (index_info[ix].kind == k)
            index_keys(ix, *doc, keyset_add, &ks);
    }
    return b->failed ? err_set(e, ERR_NOMEM, "index keys: out of memory") : 0;
}

static bool keys_next(const struct buf *b, size_t *pos, enum index *ix, struct str *key, struct str *whole)
{
    if (*pos >= b->n)
        return false;
    const uint8_t *p = (const uint8_t *)b->p + *pos;
    size_t n = (size_t)p[1] << 8 | p[2];
    *ix = p[0];
    *key = (struct str){ b->p + *pos + 3, n };
    *whole = (struct str){ b->p + *pos, n + 3 };
    *pos += n + 3;
    return true;
}

static bool keys_have(const struct buf *b, struct str whole)
{
    size_t pos = 0;
    enum index ix;
    struct str key, w;
    while (keys_next(b, &pos, &ix, &key, &w))
        if (str_eq(w, whole))
            return true;
    return false;
}

/* index_owner - the first object under this key other than `id`. */
static bool index_owner(struct map *m, enum index ix, struct str key, struct str id, char ret_id[STORE_ID_MAX + 1])
{
    char buf[STORE_ENTRY_MAX];
    struct str from = index_entry(key, (struct str){ NULL, 0 }, buf), other;
    MDB_cursor *c;
    MDB_val k = { from.n, buf }, v;
    bool found = false;
    if (mdb_cursor_open(m->txn, m->index[ix], &c) != 0)
        return false;
    int rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE);
    for (; rc == 0 && !found; rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) {
        struct str entry = { k.mv_data, k.mv_size };
        if (!str_starts(entry, from))
            break;
        other = index_entry_id(entry);
        found = !str_eq(other, id) && str_copy(ret_id, STORE_ID_MAX + 1, other);
    }
    mdb_cursor_close(c);
    return found;
}

/* unique_check - 1 and *result when a new key is taken by another object. */
static int unique_check(struct sm *sm, struct map *m, enum kind k, struct str id, struct str doc, struct err *result)
{
    size_t pos = 0;
    enum index ix;
    struct str key, whole, name = { NULL, 0 };
    char owner[STORE_ID_MAX + 1];
    while (keys_next(&sm->keys_new, &pos, &ix, &key, &whole)) {
        if (!index_info[ix].unique || keys_have(&sm->keys_old, whole) || !index_owner(m, ix, key, id, owner))
            continue;
        if (!mp_get_str(doc, index_info[ix].path, &name))
            name = key;
        err_set(result, ERR_CONFLICT, "name conflicts with an existing object: %s " STR_FMT " already exists",
                kind_info[k].name, STR_ARG(name));
        return 1;
    }
    return 0;
}

static int index_change(struct map *m, const struct buf *keys, const struct buf *but, struct str id, bool add,
                        struct err *e)
{
    size_t pos = 0;
    enum index ix;
    struct str key, whole;
    int r = 0;
    while (r == 0 && keys_next(keys, &pos, &ix, &key, &whole)) {
        char buf[STORE_ENTRY_MAX];
        if (keys_have(but, whole))
            continue;
        struct str entry = index_entry(key, id, buf);
        r = add ? map_put(m, m->index[ix], entry, (struct str){ "", 0 }, e) : map_del(m, m->index[ix], entry, e);
    }
    return r;
}

/*
 * sm_doc_write - a document and its index entries; doc NULL removes it. `old` NULL: there was none.
 *
 * Returns 0, 1 when a unique key is taken (only with `result`), or an error of the map.
 */
int sm_doc_write(struct sm *sm, enum kind k, struct str id, const struct str *old, const struct str *doc,
                 struct err *result, struct err *e)
{
    struct map *m;
    int r = sm_txn(sm, k, &m, e);
    if (r == 0)
        r = keys_collect(k, old, &sm->keys_old, e);
    if (r == 0)
        r = keys_collect(k, doc, &sm->keys_new, e);
    if (r == 0 && result != NULL && doc != NULL)
        r = unique_check(sm, m, k, id, *doc, result);
    if (r != 0)
        return r;
    /* `old` points into the map and ends here */
    r = doc != NULL ? map_put(m, m->kind[k], id, *doc, e) : map_del(m, m->kind[k], id, e);
    if (r == 0)
        r = index_change(m, &sm->keys_old, &sm->keys_new, id, false, e);
    if (r == 0)
        r = index_change(m, &sm->keys_new, &sm->keys_old, id, true, e);
    if (kind_info[k].secret)
        sm->secret_touched = true;
    return r;
}

/* ---- one transaction ---- */

/* What a transaction did so far, so that it can be undone when a later part does not hold, and logged when it does. */
struct touch {
    struct touch *prev;
    enum kind kind;
    struct str id, old; /* the document before; p NULL: none */
    char op;
};

static int touch_add(struct sm *sm, enum kind k, struct str id, const struct str *old, char op, struct err *e)
{
    struct touch *t = arena_alloc(&sm->arena, sizeof *t);
    if (t == NULL)
        return err_set(e, ERR_NOMEM, "apply: the transaction is too large");
    t->kind = k;
    t->id = id; /* points into the entry */
    t->op = op;
    if (old != NULL) {
        t->old = arena_str(&sm->arena, *old);
        if (t->old.p == NULL)
            return err_set(e, ERR_NOMEM, "apply: the transaction is too large");
    }
    t->prev = sm->touched;
    sm->touched = t;
    sm->n_touched++;
    return 0;
}

static int undo(struct sm *sm, struct err *e)
{
    int r = 0;
    for (struct touch *t = sm->touched; r == 0 && t != NULL; t = t->prev) {
        struct str now;
        bool found;
        r = doc_get(sm, t->kind, t->id, &now, &found, e);
        if (r == 0)
            r = sm_doc_write(sm, t->kind, t->id, found ? &now : NULL, t->old.p ? &t->old : NULL, NULL, e);
    }
    sm->touched = NULL;
    sm->n_touched = 0;
    return r;
}

static bool is_stamp(struct str key)
{
    return str_is(key, "ID") || str_is(key, "Version") || str_is(key, "Rev") || str_is(key, "CreatedAt") ||
           str_is(key, "UpdatedAt");
}

static size_t patch_fields(struct str patch, struct buf *out, const char *spec_field, bool *ret_spec)
{
    struct mp_cursor c = mp_cursor(patch);
    struct mp_val head, key;
    struct str val;
    size_t n = 0;
    if (mp_next(&c, &head) != 0 || head.type != MP_MAP)
        return 0;
    for (size_t i = 0; i < head.n; i++) {
        if (mp_next(&c, &key) != 0 || mp_span(&c, &val) != 0)
            break;
        if (key.type != MP_STR || is_stamp(key.s))
            continue;
        if (spec_field != NULL && str_is(key.s, spec_field))
            *ret_spec = true;
        if (out != NULL) {
            mp_str(out, key.s);
            mp_raw(out, val);
        }
        n++;
    }
    return n;
}

static void put_version(struct buf *b, uint64_t revision)
{
    mp_cstr(b, "Version");
    mp_map(b, 1);
    mp_kv_u64(b, "Index", revision);
}

/* doc_create, doc_patch - the document as it will be, in sm->doc. */
static int doc_create(struct sm *sm, struct str id, struct str doc, int64_t at, struct err *e)
{
    buf_clear(&sm->patch);
    buf_clear(&sm->doc);
    mp_map(&sm->patch, 5);
    mp_kv_str(&sm->patch, "ID", id);
    put_version(&sm->patch, sm->revision + 1);
    mp_kv_u64(&sm->patch, "Rev", sm->revision + 1);
    mp_kv_i64(&sm->patch, "CreatedAt", at);
    mp_kv_i64(&sm->patch, "UpdatedAt", at);
    return mp_merge(&sm->doc, doc, buf_str(&sm->patch), e);
}

static int doc_patch(struct sm *sm, enum kind k, struct str old, struct str patch, int64_t at, struct err *e)
{
    bool spec = false;
    size_t n = patch_fields(patch, NULL, kind_info[k].spec_field, &spec);
    buf_clear(&sm->patch);
    buf_clear(&sm->doc);
    mp_map(&sm->patch, n + (spec ? 3 : 2));
    patch_fields(patch, &sm->patch, NULL, &spec);
    if (spec)
        put_version(&sm->patch, sm->revision + 1);
    mp_kv_u64(&sm->patch, "Rev", sm->revision + 1);
    mp_kv_i64(&sm->patch, "UpdatedAt", at);
    return mp_merge(&sm->doc, old, buf_str(&sm->patch), e);
}

static int exists_conflict(enum kind k, struct str id, struct str old, struct err *result)
{
    struct str owner;
    if (k == KIND_RESERVATION && mp_get_str(old, "OwnerID", &owner))
        err_set(result, ERR_CONFLICT, "reservation " STR_FMT " is already taken by " STR_FMT, STR_ARG(id),
                STR_ARG(owner));
    else
        err_set(result, ERR_CONFLICT, "%s " STR_FMT " already exists", kind_info[k].name, STR_ARG(id));
    return 1;
}

/* change_apply - 0 done, 1 does not hold (*result says why), negative: the map failed. */
static int change_apply(struct sm *sm, const struct txn_change *ch, int64_t at, struct err *result, struct err *e)
{
    enum kind k = kind_by_name(ch->Kind.p, ch->Kind.n);
    struct str old = { NULL, 0 }, doc;
    bool found;
    char op = ch->Op.p[0]; /* create, update, merge, delete, purge: entry_check() has seen them */
    int r = doc_get(sm, k, ch->ID, &old, &found, e);
    if (r < 0)
        return r;
    if (found && op == 'c')
        return exists_conflict(k, ch->ID, old, result);
    if (!found && op == 'u')
        return err_set(result, ERR_CONFLICT, "%s " STR_FMT " does not exist any more", kind_info[k].name,
                       STR_ARG(ch->ID)),
               1;
    if (!found && op == 'd')
        return err_set(result, ERR_NOT_FOUND, "%s " STR_FMT " not found", kind_info[k].name, STR_ARG(ch->ID)), 1;
    if (!found && (op == 'm' || op == 'p'))
        return 0;
    r = touch_add(sm, k, ch->ID, found ? &old : NULL, op == 'm' ? 'u' : op == 'p' ? 'd' : op, e);
    if (r < 0)
        return r;
    if (op == 'd' || op == 'p')
        return sm_doc_write(sm, k, ch->ID, &old, NULL, result, e);
    r = op == 'c' ? doc_create(sm, ch->ID, ch->Doc, at, e) : doc_patch(sm, k, old, ch->Doc, at, e);
    if (r < 0 || sm->doc.failed || sm->patch.failed)
        return r == -ERR_INVALID
               ? err_set(result, ERR_INVALID, "%s " STR_FMT ": malformed document", kind_info[k].name, STR_ARG(ch->ID)),
               1 : err_set(e, ERR_NOMEM, "apply: a document is too large");
    doc = buf_str(&sm->doc);
    if (k == KIND_TASK || k == KIND_RESERVATION) { /* there may be a million */
        buf_clear(&sm->patch);
        if (mp_pack(&sm->patch, doc) != 0 || sm->patch.failed)
            return err_set(e, ERR_NOMEM, "apply: a document is too large");
        doc = buf_str(&sm->patch);
    }
    return sm_doc_write(sm, k, ch->ID, found ? &old : NULL, &doc, result, e);
}

/* ---- preconditions ---- */

static void object_name(struct sm *sm, enum kind k, struct str id, struct buf *out)
{
    struct str doc, name;
    bool found = false;
    if (doc_get(sm, k, id, &doc, &found, NULL) == 0 && found && mp_get_str(doc, "Spec.Name", &name))
        buf_put(out, name.p, name.n);
    else
        buf_put(out, id.p, id.n);
}

/* referrers - names of the objects that refer to this one, as far as they fit into a message; returns how many. */
static unsigned referrers(struct sm *sm, enum index ix, struct str id, struct buf *out)
{
    char key[STORE_KEY_MAX], buf[STORE_ENTRY_MAX], other[STORE_ID_MAX + 1];
    struct str from = index_entry(index_key(ix, id, key), (struct str){ NULL, 0 }, buf);
    MDB_cursor *c;
    MDB_val k = { from.n, buf }, v;
    unsigned n = 0;
    if (mdb_cursor_open(sm->state.txn, sm->state.index[ix], &c) != 0)
        return 0;
    for (int rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE); rc == 0; rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) {
        struct str entry = { k.mv_data, k.mv_size };
        if (!str_starts(entry, from))
            break;
        if (n++ >= IN_USE_NAMES_MAX || !str_copy(other, sizeof other, index_entry_id(entry)))
            continue;
        buf_puts(out, n > 1 ? ", " : "");
        object_name(sm, index_info[ix].kind, str_from(other), out);
    }
    mdb_cursor_close(c);
    if (n > IN_USE_NAMES_MAX)
        buf_puts(out, ", ...");
    return n;
}

static int unreferenced(struct sm *sm, enum kind k, struct str id, struct err *result)
{
    int r = 0;
    for (enum index ix = 0; r == 0 && ix < IX_COUNT; ix++) {
        struct buf users = BUF_INIT, name = BUF_INIT;
        unsigned n = index_info[ix].refers_to == k ? referrers(sm, ix, id, &users) : 0;
        if (n > 0) {
            object_name(sm, k, id, &name);
            err_set(result, ERR_PRECONDITION, "%s '%s' is in use by the following service%s: %s", kind_info[k].name,
                    buf_cstr(&name), n > 1 ? "s" : "", buf_cstr(&users));
            r = 1;
        }
        buf_done(&users);
        buf_done(&name);
    }
    return r;
}

static int numbers_check(const struct txn_require *q, enum kind k, struct str doc, struct err *result)
{
    uint64_t have = 0;
    bool version = str_is(q->Test, "version");
    (void)mp_get_u64(doc, version ? "Version.Index" : "Rev", &have);
    if (have == q->Value)
        return 0;
    if (version)
        err_set(result, ERR_CONFLICT, "update out of sequence");
    else
        err_set(result, ERR_CONFLICT, "%s " STR_FMT " has changed: revision %llu, not %llu", kind_info[k].name,
                STR_ARG(q->ID), (unsigned long long)have, (unsigned long long)q->Value);
    return 1;
}

static int require_check(struct sm *sm, const struct txn_require *q, struct err *result, struct err *e)
{
    enum kind k = kind_by_name(q->Kind.p, q->Kind.n);
    struct str doc;
    bool found;
    int r = doc_get(sm, k, q->ID, &doc, &found, e);
    if (r < 0)
        return r;
    if (str_is(q->Test, "unreferenced"))
        return unreferenced(sm, k, q->ID, result);
    if (str_is(q->Test, "absent"))
        return found ? exists_conflict(k, q->ID, doc, result) : 0;
    if (!found) {
        err_set(result, ERR_NOT_FOUND, "%s " STR_FMT " not found", kind_info[k].name, STR_ARG(q->ID));
        return 1;
    }
    return str_is(q->Test, "exists") ? 0 : numbers_check(q, k, doc, result);
}

/* ---- change log ---- */

/* log_write - the changes in the order in which they were made; returns how many records that took, or an error. */
static int log_write(struct sm *sm, struct err *e)
{
    struct touch **v = arena_array(&sm->arena, sm->n_touched + 1, sizeof(struct touch *));
    struct buf *b = &sm->patch;
    size_t n = sm->n_touched;
    uint32_t seq = 0;
    int r = 0;
    if (v == NULL)
        return err_set(e, ERR_NOMEM, "apply: the transaction is too large");
    for (struct touch *t = sm->touched; t != NULL; t = t->prev)
        v[--n] = t;
    for (size_t i = 0; r == 0 && i < sm->n_touched; seq++) {
        uint8_t key[STORE_LOG_KEY];
        buf_clear(b);
        for (; i < sm->n_touched && b->n <= STORE_LOG_RECORD - 3 - STORE_ID_MAX; i++)
            log_put(b, v[i]->kind, v[i]->id, v[i]->op);
        if (b->failed)
            return err_set(e, ERR_NOMEM, "change log: out of memory");
        log_key(sm->revision, seq, key);
        r = map_append(&sm->state, sm->state.log, (struct str){ (char *)key, sizeof key }, buf_str(b), e);
    }
    return r < 0 ? r : (int)seq;
}

/* log_full - what is counted is pages. The larger the map, the more: to read all of it again takes a controller as long
 * as to read that many changes, and much more happens meanwhile. */
static bool log_full(struct sm *sm)
{
    uint64_t part = map_used_bytes(&sm->state) / LOG_PART;
    MDB_stat st;
    if (mdb_stat(sm->state.txn, sm->state.log, &st) != 0)
        return false;
    return (st.ms_branch_pages + st.ms_leaf_pages) * (uint64_t)st.ms_psize >
           (part > sm->conf.log_bytes_max ? part : sm->conf.log_bytes_max);
}

/* log_trim - whole revisions, oldest first, a little more than came in. */
static int log_trim(struct sm *sm, size_t added, struct err *e)
{
    MDB_cursor *c;
    MDB_val k, v;
    uint64_t cutting = 0;
    int rc = mdb_cursor_open(sm->state.txn, sm->state.log, &c);
    if (rc != 0)
        return map_failed(&sm->state, rc, "trim the change log", e);
    size_t quota = 2 * added + 16;
    rc = mdb_cursor_get(c, &k, &v, MDB_FIRST);
    while (rc == 0) {
        uint64_t rev = log_key_revision(k.mv_data);
        if (rev != cutting &&
            (quota == 0 || rev == sm->revision || (rev + sm->conf.log_keep > sm->revision && !log_full(sm))))
            break;
        cutting = rev;
        quota -= quota > 0;
        rc = mdb_cursor_del(c, 0);
        if (rc == 0)
            rc = mdb_cursor_get(c, &k, &v, MDB_NEXT);
    }
    mdb_cursor_close(c);
    return rc == 0 || rc == MDB_NOTFOUND ? 0 : map_failed(&sm->state, rc, "trim the change log", e);
}

/* For the event feed: (kind 1, op 1, length 2, revision 8, id)*, told when the batch is committed. */
static void events_note(struct sm *sm)
{
    size_t at = sm->events.n, n = 0;
    if (sm->touch_fn == NULL)
        return;
    for (struct touch *t = sm->touched; t != NULL; t = t->prev)
        n += 12 + t->id.n;
    char *p = buf_reserve(&sm->events, n);
    if (p == NULL)
        return; /* the feed may drop; the maps never do */
    sm->events.n = at + n;
    p += n;
    for (struct touch *t = sm->touched; t != NULL; t = t->prev) { /* newest first: fill from the end */
        p -= 12 + t->id.n;
        p[0] = (char)t->kind;
        p[1] = t->op;
        p[2] = (char)(t->id.n >> 8);
        p[3] = (char)t->id.n;
        memcpy(p + 4, &sm->revision, 8);
        memcpy(p + 12, t->id.p, t->id.n);
    }
}

static void events_tell(struct sm *sm)
{
    for (size_t at = 0; at < sm->events.n;) {
        const uint8_t *p = (const uint8_t *)sm->events.p + at;
        uint64_t revision;
        size_t n = (size_t)p[2] << 8 | p[3];
        memcpy(&revision, p + 4, 8);
        sm->touch_fn(sm->touch_arg, p[0], (struct str){ (const char *)p + 12, n }, (char)p[1], revision);
        at += 12 + n;
    }
    buf_clear(&sm->events);
    if (sm->events.cap > 65536)
        buf_done(&sm->events);
}

/* ---- entries ---- */

static int txn_apply(struct sm *sm, const struct entry *en, uint64_t term, struct err *result, struct err *e)
{
    const struct txn_require *q = en->Requires.v;
    const struct txn_change *ch = en->Changes.v;
    int r = 0;
    if (en->Term != 0 && en->Term != term) {
        err_set(result, ERR_CONFLICT, "the leader has changed: term %llu is over", (unsigned long long)en->Term);
        return 1;
    }
    for (size_t i = 0; r == 0 && i < en->Requires.n; i++)
        r = require_check(sm, &q[i], result, e);
    for (size_t i = 0; r == 0 && i < en->Changes.n; i++)
        r = change_apply(sm, &ch[i], en->At, result, e);
    if (r == 1) {
        int u = undo(sm, e);
        return u < 0 ? u : 1;
    }
    return r;
}

static int data_apply(struct sm *sm, const struct raft_log_entry *le, struct err *result, struct err *e)
{
    struct entry en;
    int r = entry_decode(&en, le->data, &sm->arena, e);
    if (r == 0)
        r = entry_check(&en, e);
    if (r < 0)
        return err_wrap(e, "entry %llu", (unsigned long long)le->index);
    r = txn_apply(sm, &en, le->term, result, e);
    if (r != 0 || sm->touched == NULL)
        return r < 0 ? r : 0;
    sm->revision++;
    events_note(sm);
    r = log_write(sm, e);
    return r < 0 ? r : log_trim(sm, (size_t)r, e);
}

static int members_apply(struct sm *sm, const struct raft_log_entry *le, struct err *e)
{
    struct members m;
    int r = members_decode(&m, le->data, e);
    if (r == 0 && m.n == 0)
        r = err_set(e, ERR_CORRUPT, "members: there are none");
    if (r < 0)
        return err_wrap(e, "entry %llu", (unsigned long long)le->index);
    return map_put(&sm->state, sm->state.meta, STR(META_MEMBERS), le->data, e);
}

int sm_begin(struct sm *sm, struct err *e)
{
    buf_clear(&sm->events);
    sm->secret_touched = false;
    return map_begin(&sm->state, e);
}

int sm_apply(struct sm *sm, const struct raft_log_entry *en, struct err *result, uint64_t *ret_revision, struct err *e)
{
    CHECK(en->index == sm->applied + 1); /* each once, in order (Raft §5.3) */
    *result = (struct err)ERR_INIT;
    sm->touched = NULL;
    sm->n_touched = 0;
    int r = 0;
    if (en->type == RAFT_ENTRY_DATA)
        r = data_apply(sm, en, result, e);
    else if (en->type == RAFT_ENTRY_MEMBERS)
        r = members_apply(sm, en, e);
    else if (en->type != RAFT_ENTRY_NOOP)
        r = err_set(e, ERR_UNIMPLEMENTED, "entry %llu: of type %d, which this version does not know",
                    (unsigned long long)en->index, (int)en->type);
    arena_reset(&sm->arena);
    if (r < 0)
        return r;
    sm->applied = en->index;
    sm->applied_term = en->term;
    *ret_revision = sm->revision;
    return 0;
}

static int meta_write(struct sm *sm, struct map *m, struct err *e)
{
    int r = map_meta_put_u64(m, META_APPLIED, sm->applied, e);
    if (r == 0)
        r = map_meta_put_u64(m, META_APPLIED_TERM, sm->applied_term, e);
    if (r == 0)
        r = map_meta_put_u64(m, META_REVISION, sm->revision, e);
    return r;
}

int sm_commit(struct sm *sm, struct err *e)
{
    int r = meta_write(sm, &sm->state, e);
    bool secret = sm->secret_touched;
    if (r == 0 && secret)
        r = meta_write(sm, &sm->secret, e);
    if (r == 0 && secret)
        r = map_commit(&sm->secret, e);
    if (r == 0) {
        r = map_commit(&sm->state, e);
        sm->torn = r < 0 && secret;
    }
    if (r < 0) {
        sm_abort(sm);
        return r;
    }
    map_abort(&sm->secret); /* read only, if at all */
    sm->done_applied = sm->applied;
    sm->done_term = sm->applied_term;
    sm->done_revision = sm->revision;
    if (sm->touch_fn != NULL)
        events_tell(sm);
    return 0;
}

void sm_abort(struct sm *sm)
{
    map_abort(&sm->state);
    map_abort(&sm->secret);
    sm->applied = sm->done_applied;
    sm->applied_term = sm->done_term;
    sm->revision = sm->done_revision;
    sm->secret_touched = false;
    buf_clear(&sm->events);
}

bool sm_torn(const struct sm *sm)
{
    return sm->torn;
}

int sm_set_role(struct sm *sm, uint64_t term, bool leader, const char *leader_id, struct err *e)
{
    int r = map_begin(&sm->state, e);
    if (r < 0)
        return r;
    r = map_meta_put_u64(&sm->state, META_TERM, term, e);
    if (r == 0)
        r = map_meta_put_bool(&sm->state, META_LEADER, leader, e);
    if (r == 0)
        r = map_meta_put_str(&sm->state, META_LEADER_ID, leader_id, e);
    if (r == 0)
        r = map_commit(&sm->state, e);
    map_abort(&sm->state);
    return r;
}

/* ---- opening ---- */

static int fresh_meta(struct sm *sm, const struct raft_log_identity *id, struct err *e)
{
    struct map *m = &sm->state;
    int r = map_meta_put_u64(m, META_FORMAT, MAP_FORMAT, e);
    if (r == 0)
        r = map_meta_put_u64(m, META_RAFT_ID, id ? id->id : 0, e);
    if (r == 0)
        r = map_meta_put_bool(m, META_INITIALIZED, id != NULL, e);
    if (r == 0)
        r = map_meta_put_bool(m, META_LEADER, false, e);
    if (r == 0)
        r = map_meta_put_u64(m, META_TERM, 0, e);
    if (r == 0)
        r = map_meta_put_str(m, META_NODE_ID, id ? id->node_id : "", e);
    if (r == 0)
        r = map_meta_put_str(m, META_CLUSTER_ID, id ? id->cluster_id : "", e);
    if (r == 0)
        r = map_meta_put_str(m, META_LEADER_ID, "", e);
    if (r == 0)
        r = map_meta_put_u64(&sm->secret, META_RAFT_ID, id ? id->id : 0, e);
    return r;
}

static int fresh(struct sm *sm, const struct raft_log_identity *id, struct err *e)
{
    int r = map_create(&sm->state, sm->conf.map_bytes, e);
    if (r == 0)
        r = map_create(&sm->secret, sm->conf.map_bytes, e);
    if (r == 0)
        r = fresh_meta(sm, id, e);
    if (r == 0)
        r = meta_write(sm, &sm->state, e);
    if (r == 0)
        r = meta_write(sm, &sm->secret, e);
    if (r == 0)
        r = map_commit(&sm->secret, e);
    if (r == 0)
        r = map_commit(&sm->state, e);
    return r;
}

struct facts {
    uint64_t format, raft_id, secret_raft_id, applied, secret_applied;
};

static int facts_read(struct sm *sm, struct facts *f, struct err *e)
{
    int r = map_begin(&sm->state, e);
    if (r == 0)
        r = map_begin(&sm->secret, e);
    if (r == 0) {
        f->format = map_meta_u64(&sm->state, sm->state.txn, META_FORMAT);
        f->raft_id = map_meta_u64(&sm->state, sm->state.txn, META_RAFT_ID);
        f->secret_raft_id = map_meta_u64(&sm->secret, sm->secret.txn, META_RAFT_ID);
        f->applied = map_meta_u64(&sm->state, sm->state.txn, META_APPLIED);
        f->secret_applied = map_meta_u64(&sm->secret, sm->secret.txn, META_APPLIED);
        sm->applied = sm->done_applied = f->applied;
        sm->applied_term = sm->done_term = map_meta_u64(&sm->state, sm->state.txn, META_APPLIED_TERM);
        sm->revision = sm->done_revision = map_meta_u64(&sm->state, sm->state.txn, META_REVISION);
    }
    map_abort(&sm->state);
    map_abort(&sm->secret);
    return r;
}

/* reopen - 0 when what is there is the state of this log after some entry of it. */
static int reopen(struct sm *sm, const struct raft_log_identity *id, uint64_t first, uint64_t last, struct err *e)
{
    struct facts f = { 0 };
    uint64_t want = id ? id->id : 0;
    int r = map_open(&sm->state, sm->conf.map_bytes, e);
    if (r == 0)
        r = map_open(&sm->secret, sm->conf.map_bytes, e);
    if (r == 0)
        r = facts_read(sm, &f, e);
    if (r < 0)
        return r;
    if (f.format != MAP_FORMAT)
        return err_set(e, ERR_CORRUPT, "the maps are of format %llu", (unsigned long long)f.format);
    if (f.raft_id != want || f.secret_raft_id != want)
        return err_set(e, ERR_CORRUPT, "the maps belong to another log");
    if (f.secret_applied > f.applied)
        return err_set(e, ERR_CORRUPT, "the secret map is at entry %llu, the state map at %llu",
                       (unsigned long long)f.secret_applied, (unsigned long long)f.applied);
    if (id != NULL && (f.applied > last || f.applied + 1 < first))
        return err_set(e, ERR_CORRUPT, "the maps are at entry %llu, the log is %llu..%llu",
                       (unsigned long long)f.applied, (unsigned long long)first, (unsigned long long)last);
    uint64_t term = 0;
    MDB_txn *txn;
    if (mdb_txn_begin(sm->state.env, NULL, MDB_RDONLY, &txn) == 0) {
        term = map_meta_u64(&sm->state, txn, META_TERM);
        mdb_txn_abort(txn);
    }
    return sm_set_role(sm, term, false, "", e); /* whoever led before this process started */
}

static void conf_fill(struct sm *sm, const struct sm_conf *conf)
{
    sm->conf = *conf;
    if (sm->conf.map_bytes == 0)
        sm->conf.map_bytes = STORE_MAP_BYTES;
    if (sm->conf.log_keep == 0)
        sm->conf.log_keep = STORE_LOG_KEEP;
    if (sm->conf.log_bytes_max == 0)
        sm->conf.log_bytes_max = STORE_LOG_BYTES;
    sm->conf.run_dir = NULL; /* borrowed: not kept */
    snprintf(sm->state.dir, sizeof sm->state.dir, "%s/%s", conf->run_dir, STORE_STATE_DIR);
    snprintf(sm->secret.dir, sizeof sm->secret.dir, "%s/%s", conf->run_dir, STORE_SECRET_DIR);
    sm->state.gid = (gid_t)-1;
    sm->secret.gid = conf->secret_gid;
    sm->secret.private = conf->secret_private;
    sm->secret.secret = true;
    arena_init(&sm->arena, ENTRY_ARENA_MAX);
}

int sm_open(struct sm **ret, const struct sm_conf *conf, const struct raft_log_identity *id, uint64_t first,
            uint64_t last, bool *ret_fresh, struct err *ret_why, struct err *e)
{
    *ret_why = (struct err)ERR_INIT;
    if (strlen(conf->run_dir) + 16 > MAP_PATH_MAX)
        return err_set(e, ERR_INVALID, "run folder: path is too long");
    _cleanup_(sm_closep) struct sm *sm = calloc(1, sizeof *sm);
    if (sm == NULL)
        return err_set(e, ERR_NOMEM, "state machine: out of memory");
    conf_fill(sm, conf);
    int r = reopen(sm, id, first, last, ret_why);
    *ret_fresh = r < 0;
    if (r < 0) {
        if (r == -ERR_NOT_FOUND)
            *ret_why = (struct err)ERR_INIT;
        map_close(&sm->state);
        map_close(&sm->secret);
        sm->applied = sm->applied_term = sm->revision = 0;
        r = fresh(sm, id, e);
        if (r < 0)
            return r;
        sm->done_applied = sm->done_term = sm->done_revision = 0;
    }
    *ret = TAKE(sm);
    return 0;
}

int sm_publish(struct sm *sm, struct err *e)
{
    if (sm->state.published)
        return 0;
    int r = map_publish(&sm->secret, e);
    return r < 0 ? r : map_publish(&sm->state, e);
}

bool sm_published(const struct sm *sm)
{
    return sm->state.published;
}

struct sm *sm_close(struct sm *sm)
{
    if (sm == NULL)
        return NULL;
    map_close(&sm->state);
    map_close(&sm->secret);
    arena_done(&sm->arena);
    buf_done(&sm->keys_old);
    buf_done(&sm->keys_new);
    buf_done(&sm->patch);
    buf_done(&sm->doc);
    buf_done(&sm->events);
    free(sm);
    return NULL;
}

void sm_on_touch(struct sm *sm, sm_touch_fn *fn, void *arg)
{
    sm->touch_fn = fn;
    sm->touch_arg = arg;
}

uint64_t sm_applied(const struct sm *sm)
{
    return sm->done_applied;
}

uint64_t sm_applied_term(const struct sm *sm)
{
    return sm->done_term;
}

uint64_t sm_revision(const struct sm *sm)
{
    return sm->done_revision;
}

void sm_members(struct sm *sm, struct buf *out)
{
    MDB_txn *txn;
    struct str v;
    if (mdb_txn_begin(sm->state.env, NULL, MDB_RDONLY, &txn) != 0)
        return;
    if (map_get(&sm->state, txn, sm->state.meta, STR(META_MEMBERS), &v) == 0)
        buf_put(out, v.p, v.n);
    mdb_txn_abort(txn);
}

int sm_shrink(struct sm *sm, bool *ret_done, struct err *e)
{
    struct map *const maps[] = { &sm->state, &sm->secret };
    int r = 0;
    *ret_done = false;
    CHECK(sm->state.txn == NULL && sm->secret.txn == NULL);
    if (sm->snaps > 0 || !sm->state.published)
        return 0;
    for (unsigned i = 0; r == 0 && i < 2; i++) {
        if (!map_sparse(maps[i]))
            continue;
        r = map_compact(maps[i], sm->conf.map_bytes, e);
        *ret_done |= r == 0;
    }
    if (*ret_done)
        sm->n_commits = 0; /* LMDB counts its transactions anew */
    return r;
}

/* When there was room for a great deal a moment ago, there is for a little now. */
bool sm_room(struct sm *sm, uint64_t bytes, uint64_t now_ms, struct err *e)
{
    if (bytes <= ROOM_BYTES / 4 && now_ms - sm->roomy_ms < ROOM_MS)
        return true;
    if (!map_room(&sm->state, bytes, e))
        return false;
    if (map_room(&sm->state, ROOM_BYTES, NULL))
        sm->roomy_ms = now_ms;
    return true;
}

int sm_restored(struct sm *sm, uint64_t index, uint64_t term, uint64_t revision, struct err *e)
{
    sm->applied = index;
    sm->applied_term = term;
    sm->revision = revision;
    sm->secret_touched = true;
    if (sm->secret.txn == NULL && map_begin(&sm->secret, e) < 0)
        return -e->code;
    return sm_commit(sm, e);
}
