#include "raftd/entry.h"

#include "common/store/layout.h"

static const struct field entry_fields[] = {
    FIELD_I64(struct entry, At, INT64_MIN, INT64_MAX),
    FIELD_STR(struct entry, By, 0, 64),
    FIELD_U64(struct entry, Req, 0, UINT64_MAX),
    FIELD_U64(struct entry, Term, 0, UINT64_MAX),
    FIELD_LIST(struct entry, Requires, txn_require_fields, struct txn_require, TXN_CHANGES_MAX),
    FIELD_LIST(struct entry, Changes, txn_change_fields, struct txn_change, TXN_CHANGES_MAX),
    FIELD_END,
};

void entry_encode(const struct entry *en, struct buf *out)
{
    fields_encode(en, entry_fields, out);
}

int entry_decode(struct entry *ret, struct str data, struct arena *a, struct err *e)
{
    return fields_decode(ret, entry_fields, sizeof *ret, data, FIELDS_STRICT, a, e);
}

uint64_t entry_req(struct str data)
{
    uint64_t req = 0;
    return mp_get_u64(data, "Req", &req) ? req : 0;
}

static int target_check(struct str kind, struct str id, const char *what, size_t i, struct err *e)
{
    if (kind_by_name(kind.p, kind.n) == KIND_COUNT)
        return err_set(e, ERR_INVALID, "%s[%zu].Kind: there is no kind \"" STR_FMT "\"", what, i, STR_ARG(kind));
    if (!store_id_ok(id))
        return err_set(e, ERR_INVALID, "%s[%zu].ID: must be 1 to %u bytes without NUL", what, i, STORE_ID_MAX);
    return 0;
}

static bool one_of(struct str s, const char *const *names)
{
    for (; *names != NULL; names++)
        if (str_is(s, *names))
            return true;
    return false;
}

static int require_check(const struct txn_require *q, size_t i, struct err *e)
{
    static const char *const tests[] = { "version", "rev", "exists", "absent", "unreferenced", NULL };
    if (!one_of(q->Test, tests))
        return err_set(e, ERR_INVALID, "Requires[%zu].Test: there is no test \"" STR_FMT "\"", i, STR_ARG(q->Test));
    return target_check(q->Kind, q->ID, "Requires", i, e);
}

static bool is_map(struct str doc)
{
    struct mp_cursor c = mp_cursor(doc);
    struct mp_val v;
    return doc.n > 0 && mp_next(&c, &v) == 0 && v.type == MP_MAP && mp_valid(doc);
}

static int change_check(const struct txn_change *ch, size_t i, struct err *e)
{
    static const char *const with_doc[] = { "create", "update", "merge", NULL };
    static const char *const without[] = { "delete", "purge", NULL };
    bool doc = one_of(ch->Op, with_doc);
    if (!doc && !one_of(ch->Op, without))
        return err_set(e, ERR_INVALID, "Changes[%zu].Op: there is no operation \"" STR_FMT "\"", i, STR_ARG(ch->Op));
    if (doc && !is_map(ch->Doc))
        return err_set(e, ERR_INVALID, "Changes[%zu].Doc: must be a map", i);
    if (!doc && ch->Doc.n != 0)
        return err_set(e, ERR_INVALID, "Changes[%zu].Doc: a " STR_FMT " has none", i, STR_ARG(ch->Op));
    return target_check(ch->Kind, ch->ID, "Changes", i, e);
}

int entry_check(const struct entry *en, struct err *e)
{
    const struct txn_require *q = en->Requires.v;
    const struct txn_change *ch = en->Changes.v;
    int r = 0;
    for (size_t i = 0; r == 0 && i < en->Requires.n; i++)
        r = require_check(&q[i], i, e);
    for (size_t i = 0; r == 0 && i < en->Changes.n; i++)
        r = change_check(&ch[i], i, e);
    return r;
}
