#include "raftd/peer_msg.h"

#include "common/proto/mp.h"
#include "raftd/members.h"

enum { FLAG_REJECT = 1, FLAG_TRANSFER = 2 };

void peer_begin(struct buf *out)
{
    buf_clear(out);
    mp_u64(out, PEER_VERSION);
}

void peer_put_entry(struct buf *out, const struct raft_log_entry *en)
{
    mp_array(out, 3);
    mp_u64(out, en->term);
    mp_u64(out, en->type);
    mp_bin(out, en->data);
}

void peer_put_raft(struct buf *out, const struct raft_msg *m, struct str entries, size_t n)
{
    mp_array(out, 13);
    mp_u64(out, PEER_RAFT);
    mp_u64(out, m->type);
    mp_u64(out, m->from);
    mp_u64(out, m->to);
    mp_u64(out, m->term);
    mp_u64(out, m->index);
    mp_u64(out, m->index_term);
    mp_u64(out, m->commit);
    mp_u64(out, m->read_id);
    mp_u64(out, m->hint_index);
    mp_u64(out, m->hint_term);
    mp_u64(out, (m->reject ? FLAG_REJECT : 0u) | (m->transfer ? FLAG_TRANSFER : 0u));
    mp_array(out, n);
    buf_put(out, entries.p, entries.n);
}

void peer_put_chunk(struct buf *out, const struct peer_chunk *c)
{
    mp_array(out, 10);
    mp_u64(out, PEER_CHUNK);
    mp_u64(out, c->from);
    mp_u64(out, c->to);
    mp_u64(out, c->id);
    mp_u64(out, c->kind);
    mp_u64(out, c->index);
    mp_u64(out, c->term);
    mp_u64(out, c->part);
    mp_bool(out, c->last);
    mp_bin(out, c->data);
}

void peer_put_ack(struct buf *out, const struct peer_ack *a)
{
    mp_array(out, 6);
    mp_u64(out, PEER_ACK);
    mp_u64(out, a->from);
    mp_u64(out, a->to);
    mp_u64(out, a->id);
    mp_u64(out, a->next);
    mp_u64(out, a->state);
}

bool peer_open(struct str in, struct str *ret_rest)
{
    struct mp_cursor c = mp_cursor(in);
    struct mp_val v;
    if (mp_next(&c, &v) != 0 || v.type != MP_UINT || v.u != PEER_VERSION)
        return false;
    *ret_rest = (struct str){ (const char *)c.p, (size_t)(c.end - c.p) };
    return true;
}

/* ---- decoding: each takes one value off the cursor; false when it is something else ---- */

static bool take_u64(struct mp_cursor *c, uint64_t min, uint64_t max, uint64_t *ret)
{
    struct mp_val v;
    if (mp_next(c, &v) != 0 || v.type != MP_UINT || v.u < min || v.u > max)
        return false;
    *ret = v.u;
    return true;
}

static bool take_bin(struct mp_cursor *c, struct str *ret)
{
    struct mp_val v;
    if (mp_next(c, &v) != 0 || v.type != MP_BIN)
        return false;
    *ret = v.s;
    return true;
}

static bool take_array(struct mp_cursor *c, size_t max, size_t *ret)
{
    struct mp_val v;
    if (mp_next(c, &v) != 0 || v.type != MP_ARRAY || v.n > max)
        return false;
    *ret = v.n;
    return true;
}

static int malformed(struct err *e)
{
    return err_set(e, ERR_INVALID, "a message of another manager is malformed");
}

static int entry_members(struct raft_entry_meta *m, struct str data, struct arena *a, struct err *e)
{
    struct members list;
    struct raft_members *ids = arena_alloc(a, sizeof *ids);
    if (ids == NULL)
        return err_set(e, ERR_NOMEM, "a message of another manager has too many entries");
    if (members_decode(&list, data, e) < 0)
        return malformed(e);
    *ids = members_ids(&list);
    m->members = ids;
    return 0;
}

static int take_entries(struct mp_cursor *c, struct arena *a, struct peer_msg *ret, struct err *e)
{
    size_t n, three;
    uint64_t term, type;
    if (!take_array(c, PEER_ENTRIES_MAX, &n) || (n > 0 && ret->raft.type != RAFT_MSG_APPEND) ||
        ret->raft.index > UINT64_MAX - PEER_ENTRIES_MAX - 1)
        return malformed(e);
    struct raft_entry_meta *v = n ? arena_array(a, n, sizeof *v) : NULL;
    struct str *data = n ? arena_array(a, n, sizeof *data) : NULL;
    if (n > 0 && (v == NULL || data == NULL))
        return err_set(e, ERR_NOMEM, "a message of another manager has too many entries");
    for (size_t i = 0; i < n; i++) {
        if (!take_array(c, 3, &three) || three != 3 || !take_u64(c, 1, UINT64_MAX, &term) ||
            !take_u64(c, RAFT_ENTRY_NOOP, RAFT_ENTRY_MEMBERS, &type) || !take_bin(c, &data[i]))
            return malformed(e);
        v[i] = (struct raft_entry_meta){ ret->raft.index + 1 + i, term, (enum raft_entry_type)type, NULL };
        int r = type == RAFT_ENTRY_MEMBERS ? entry_members(&v[i], data[i], a, e) : 0;
        if (r < 0)
            return r;
    }
    ret->raft.entries = v;
    ret->raft.n_entries = n;
    ret->data = data;
    return 0;
}

static int take_raft(struct mp_cursor *c, struct arena *a, struct peer_msg *ret, struct err *e)
{
    struct raft_msg *m = &ret->raft;
    uint64_t type, flags;
    if (!take_u64(c, RAFT_MSG_PREVOTE, RAFT_MSG_TIMEOUT_NOW, &type) || !take_u64(c, 1, UINT64_MAX, &m->from) ||
        !take_u64(c, 1, UINT64_MAX, &m->to) || !take_u64(c, 0, UINT64_MAX, &m->term) ||
        !take_u64(c, 0, UINT64_MAX, &m->index) || !take_u64(c, 0, UINT64_MAX, &m->index_term) ||
        !take_u64(c, 0, UINT64_MAX, &m->commit) || !take_u64(c, 0, UINT64_MAX, &m->read_id) ||
        !take_u64(c, 0, UINT64_MAX, &m->hint_index) || !take_u64(c, 0, UINT64_MAX, &m->hint_term) ||
        !take_u64(c, 0, FLAG_REJECT | FLAG_TRANSFER, &flags))
        return malformed(e);
    m->type = (enum raft_msg_type)type;
    m->reject = flags & FLAG_REJECT;
    m->transfer = (flags & FLAG_TRANSFER) != 0;
    return take_entries(c, a, ret, e);
}

static int take_chunk(struct mp_cursor *c, struct peer_chunk *k, struct err *e)
{
    uint64_t kind, part;
    struct mp_val last;
    if (!take_u64(c, 1, UINT64_MAX, &k->from) || !take_u64(c, 1, UINT64_MAX, &k->to) ||
        !take_u64(c, 0, UINT64_MAX, &k->id) || !take_u64(c, STREAM_SNAPSHOT, STREAM_MESSAGE, &kind) ||
        !take_u64(c, 0, UINT64_MAX, &k->index) || !take_u64(c, 0, UINT64_MAX, &k->term) ||
        !take_u64(c, 0, UINT32_MAX - 1, &part) || mp_next(c, &last) != 0 || last.type != MP_BOOL ||
        !take_bin(c, &k->data))
        return malformed(e);
    k->kind = (enum stream_kind)kind;
    k->part = (uint32_t)part;
    k->last = last.b;
    return 0;
}

static int take_ack(struct mp_cursor *c, struct peer_ack *k, struct err *e)
{
    uint64_t next, state;
    if (!take_u64(c, 1, UINT64_MAX, &k->from) || !take_u64(c, 1, UINT64_MAX, &k->to) ||
        !take_u64(c, 0, UINT64_MAX, &k->id) || !take_u64(c, 0, UINT32_MAX, &next) ||
        !take_u64(c, STREAM_GOING, STREAM_REFUSED, &state))
        return malformed(e);
    k->next = (uint32_t)next;
    k->state = (enum stream_state)state;
    return 0;
}

int peer_next(struct str *rest, struct arena *a, struct peer_msg *ret, struct err *e)
{
    struct mp_cursor c = mp_cursor(*rest);
    size_t n;
    uint64_t kind;
    if (rest->n == 0)
        return 0;
    *ret = (struct peer_msg){ 0 };
    if (!take_array(&c, 13, &n) || n == 0 || !take_u64(&c, PEER_RAFT, PEER_ACK, &kind) ||
        n != (kind == PEER_RAFT    ? 13u
              : kind == PEER_CHUNK ? 10u
                                   : 6u))
        return malformed(e);
    ret->kind = (enum peer_kind)kind;
    int r = kind == PEER_RAFT    ? take_raft(&c, a, ret, e)
            : kind == PEER_CHUNK ? take_chunk(&c, &ret->chunk, e)
                                 : take_ack(&c, &ret->ack, e);
    if (r < 0)
        return r;
    *rest = (struct str){ (const char *)c.p, (size_t)(c.end - c.p) };
    return 1;
}
