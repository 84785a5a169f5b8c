#include "raftd/members.h"

#include "common/proto/fields.h"
#include "common/util/arena.h"

struct wire {
    uint64_t RaftID;
    struct str NodeID, Addr;
    bool Learner;
};

static const struct field wire_fields[] = {
    FIELD_U64(struct wire, RaftID, 1, UINT64_MAX),
    FIELD_STR(struct wire, NodeID, 1, 64),
    FIELD_STR(struct wire, Addr, 0, 300),
    FIELD_BOOL(struct wire, Learner),
    FIELD_END,
};

void members_encode(const struct members *m, struct buf *out)
{
    mp_array(out, m->n);
    for (size_t i = 0; i < m->n; i++) {
        struct wire w = { m->v[i].id, str_from(m->v[i].node), str_from(m->v[i].addr), m->v[i].learner };
        fields_encode(&w, wire_fields, out);
    }
}

static int one(struct members *ret, struct str in, struct arena *a, struct err *e)
{
    struct wire w;
    if (fields_decode(&w, wire_fields, sizeof w, in, FIELDS_VIEW, a, e) < 0)
        return err_set(e, ERR_CORRUPT, "members: one is malformed");
    struct member *m = &ret->v[ret->n];
    *m = (struct member){ .id = w.RaftID, .learner = w.Learner };
    if (w.RaftID == 0 || w.NodeID.n == 0 || !str_copy(m->node, sizeof m->node, w.NodeID) ||
        !str_copy(m->addr, sizeof m->addr, w.Addr))
        return err_set(e, ERR_CORRUPT, "members: one is malformed");
    if (members_by_id(ret, w.RaftID) != NULL || members_by_node(ret, w.NodeID) != NULL)
        return err_set(e, ERR_CORRUPT, "members: " STR_FMT " is there twice", STR_ARG(w.NodeID));
    ret->n++;
    return 0;
}

int members_decode(struct members *ret, struct str in, struct err *e)
{
    struct mp_cursor c = mp_cursor(in);
    struct mp_val head;
    struct str span;
    struct arena a;
    int r = 0;
    ret->n = 0;
    if (in.n == 0)
        return 0;
    if (mp_next(&c, &head) != 0 || head.type != MP_ARRAY || head.n > RAFT_MEMBERS_MAX)
        return err_set(e, ERR_CORRUPT, "members: no list, or too many");
    arena_init(&a, 65536);
    for (size_t i = 0; r == 0 && i < head.n; i++)
        r = mp_span(&c, &span) == 0 ? one(ret, span, &a, e) : err_set(e, ERR_CORRUPT, "members: cut short");
    arena_done(&a);
    if (r == 0 && c.p != c.end)
        r = err_set(e, ERR_CORRUPT, "members: something follows the list");
    return r;
}

struct raft_members members_ids(const struct members *m)
{
    struct raft_members ids = { .n = m->n };
    for (size_t i = 0; i < m->n; i++)
        ids.v[i] = (struct raft_member){ m->v[i].id, m->v[i].learner };
    return ids;
}

struct member *members_by_id(struct members *m, raft_id id)
{
    for (size_t i = 0; i < m->n; i++)
        if (m->v[i].id == id)
            return &m->v[i];
    return NULL;
}

struct member *members_by_node(struct members *m, struct str node)
{
    for (size_t i = 0; i < m->n; i++)
        if (str_is(node, m->v[i].node))
            return &m->v[i];
    return NULL;
}

bool members_join(struct members *ret, const struct raft_members *ids, struct members *known,
                  const struct member *extra)
{
    struct members out = { .n = ids->n };
    for (size_t i = 0; i < ids->n; i++) {
        const struct member *m =
            extra != NULL && extra->id == ids->v[i].id ? extra : members_by_id(known, ids->v[i].id);
        if (m == NULL)
            return false;
        out.v[i] = *m;
        out.v[i].learner = ids->v[i].learner;
    }
    *ret = out;
    return true;
}
