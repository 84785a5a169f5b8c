#include "raftd/tail.h"

#include <stdlib.h>

#include "common/util/check.h"

struct block {
    uint32_t refs;
    char *p;
};

struct tail_slot {
    uint64_t term;
    enum raft_entry_type type;
    struct str data;
    struct block *block;
};

struct block *block_new(size_t n, char **ret_bytes)
{
    struct block *b = malloc(sizeof *b + n);
    CHECK(b != NULL);
    b->refs = 1;
    b->p = NULL;
    *ret_bytes = (char *)(b + 1);
    return b;
}

struct block *block_take(struct buf *from)
{
    struct block *b = malloc(sizeof *b);
    CHECK(b != NULL);
    *b = (struct block){ 1, from->p };
    from->p = NULL;
    from->n = from->cap = 0;
    return b;
}

void block_drop(struct block *b)
{
    if (b == NULL || --b->refs > 0)
        return;
    free(b->p);
    free(b);
}

static struct tail_slot *slot(const struct tail *t, size_t i)
{
    return &t->v[(t->head + i) % t->cap];
}

static void grow(struct tail *t)
{
    size_t cap = t->cap ? 2 * t->cap : 64;
    struct tail_slot *v = malloc(cap * sizeof *v);
    CHECK(v != NULL);
    for (size_t i = 0; i < t->n; i++)
        v[i] = *slot(t, i);
    free(t->v);
    t->v = v;
    t->cap = cap;
    t->head = 0;
}

void tail_add(struct tail *t, const struct raft_log_entry *en, struct block *b)
{
    CHECK(t->n == 0 || en->index == t->first + t->n);
    if (t->n == t->cap)
        grow(t);
    if (t->n == 0)
        t->first = en->index;
    *slot(t, t->n++) = (struct tail_slot){ en->term, en->type, en->data, b };
    t->bytes += en->data.n;
    if (b != NULL)
        b->refs++;
}

bool tail_get(const struct tail *t, uint64_t index, struct raft_log_entry *ret)
{
    if (t->n == 0 || index < t->first || index - t->first >= t->n)
        return false;
    const struct tail_slot *s = slot(t, index - t->first);
    *ret = (struct raft_log_entry){ index, s->term, s->type, s->data };
    return true;
}

void tail_truncate(struct tail *t, uint64_t from)
{
    while (t->n > 0 && t->first + t->n > from) {
        struct tail_slot *s = slot(t, --t->n);
        t->bytes -= s->data.n;
        block_drop(s->block);
    }
}

void tail_evict(struct tail *t, uint64_t upto, size_t keep_bytes, size_t keep_entries)
{
    while (t->n > 0 && t->first <= upto && (t->bytes > keep_bytes || t->n > keep_entries)) {
        struct tail_slot *s = slot(t, 0);
        t->bytes -= s->data.n;
        block_drop(s->block);
        t->head = (t->head + 1) % t->cap;
        t->first++;
        t->n--;
    }
}

void tail_clear(struct tail *t)
{
    tail_truncate(t, 0);
    free(t->v);
    *t = (struct tail){ 0 };
}
