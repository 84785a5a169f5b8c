/* raft_checks.c - what must be true of a Raft group, seen from outside (Raft, Figure 3), and of what clients saw. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util/check.h"
#include "tests/sim/raft_world.h"

#define VALUES_MAX (1u << 16)
#define TERMS_MAX (sizeof((struct checks *)0)->leaders / sizeof(raft_id))

void checks_init(struct checks *c, char *what, size_t size)
{
    memset(c, 0, sizeof *c);
    c->used = calloc(VALUES_MAX, 1);
    CHECK(c->used != NULL);
    c->what = what;
    c->what_size = size;
}

void checks_done(struct checks *c)
{
    for (uint64_t i = 0; i <= INDEX_MAX; i++)
        for (struct seen *s = c->seen[i], *next; s != NULL; s = next) {
            next = s->next;
            free(s);
        }
    free(c->used);
}

void checks_fail(struct checks *c, const char *fmt, ...)
{
    va_list ap;
    if (c->what[0] != 0)
        return;
    va_start(ap, fmt);
    vsnprintf(c->what, c->what_size, fmt, ap);
    va_end(ap);
}

static bool same(const struct entry *a, const struct entry *b)
{
    return a->term == b->term && a->value == b->value && a->type == b->type && a->members == b->members;
}

/* Election Safety: at most one leader in a term. Leader Completeness: what was committed in an earlier term is in the
 * logs of the leaders of all later ones. */
void checks_leader(struct checks *c, raft_id id, uint64_t term, const struct entry *log, uint64_t first, uint64_t last)
{
    if (term < TERMS_MAX && c->leaders[term] != 0 && c->leaders[term] != id)
        checks_fail(c, "election safety: both %" PRIu64 " and %" PRIu64 " lead term %" PRIu64, c->leaders[term], id,
                    term);
    if (term < TERMS_MAX)
        c->leaders[term] = id;
    for (uint64_t i = first; i <= c->n_committed; i++)
        if (c->committed_term[i] < term && (i > last || !same(&log[i], &c->committed[i]))) {
            checks_fail(c,
                        "leader completeness: %" PRIu64 " leads term %" PRIu64 " without entry %" PRIu64
                        ", committed in term %" PRIu64,
                        id, term, i, c->committed_term[i]);
            return;
        }
}

/* Log Matching: entries with the same index and term are the same, and so are those before them. */
void checks_logged(struct checks *c, uint64_t index, const struct entry *e, uint64_t before)
{
    for (struct seen *s = c->seen[index]; s != NULL; s = s->next) {
        if (s->e.term != e->term)
            continue;
        if (!same(&s->e, e) || (before != UINT64_MAX && s->before != UINT64_MAX && s->before != before))
            checks_fail(c,
                        "log matching: two entries %" PRIu64 " of term %" PRIu64 ": values %" PRIu64 " and %" PRIu64
                        ", behind terms %" PRIu64 " and %" PRIu64,
                        index, e->term, s->e.value, e->value, s->before, before);
        if (s->before == UINT64_MAX)
            s->before = before;
        return;
    }
    struct seen *s = malloc(sizeof *s);
    CHECK(s != NULL);
    *s = (struct seen){ c->seen[index], *e, before };
    c->seen[index] = s;
}

/* State Machine Safety: nobody ever applies something else at that index. */
void checks_committed(struct checks *c, raft_id by, uint64_t index, const struct entry *e, uint64_t term)
{
    if (index <= c->n_committed) {
        if (!same(&c->committed[index], e))
            checks_fail(c,
                        "state machine safety: at %" PRIu64 " entry %" PRIu64 " has term %" PRIu64 ", value %" PRIu64
                        ", but term %" PRIu64 ", value %" PRIu64 " was committed",
                        by, index, e->term, e->value, c->committed[index].term, c->committed[index].value);
        return;
    }
    if (index != c->n_committed + 1) {
        checks_fail(c, "%" PRIu64 " commits entry %" PRIu64 ", and nobody has committed entry %" PRIu64, by, index,
                    c->n_committed + 1);
        return;
    }
    c->n_committed = index;
    c->committed[index] = *e;
    c->committed_term[index] = term;
    if (e->value == 0)
        return;
    if (c->used[e->value % VALUES_MAX]++ != 0)
        checks_fail(c, "value %" PRIu64 " was committed twice", e->value);
}

/*
 * Linearizability. Every write has a place in one list, its index; a read returns a prefix of the list, up to its
 * index. So the order is given, and all that is left to check is that it never contradicts time: whoever begins after
 * another one finished comes behind it. With unique values this decides it (Gibbons and Korach: Testing Shared
 * Memories, SIAM J. Comput. 1997), and one number is enough: the latest index that anybody finished with.
 */
uint64_t checks_began(const struct checks *c)
{
    return c->floor;
}

void checks_wrote(struct checks *c, uint64_t floor, uint64_t value, uint64_t index)
{
    if (index > c->n_committed || c->committed[index].value != value)
        checks_fail(c, "linearizability: the write of %" PRIu64 " was acknowledged at %" PRIu64 ", where it is not",
                    value, index);
    if (index <= floor)
        checks_fail(c,
                    "linearizability: the write of %" PRIu64 " went to %" PRIu64 ", but %" PRIu64
                    " had been seen before it began",
                    value, index, floor);
    if (index > c->floor)
        c->floor = index;
}

void checks_read(struct checks *c, uint64_t floor, uint64_t index)
{
    if (index < floor)
        checks_fail(c,
                    "linearizability: a read returned the state at %" PRIu64 ", but %" PRIu64
                    " had been seen before it began",
                    index, floor);
    if (index > c->floor)
        c->floor = index;
}
