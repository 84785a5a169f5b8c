/* raft_test.c - the core with a single voter: what it decides, and what it refuses. */
#include "raftd/core/raft.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct raft_effects out;
static struct err e;

static uint64_t no_terms(void *arg, uint64_t index)
{
    (void)arg, (void)index;
    return 0;
}

static uint64_t listed_terms(void *arg, uint64_t index)
{
    return ((const uint64_t *)arg)[index - 1];
}

static const struct raft_config one = { .id = 7, .members = { 1, { { 7, false } } } };

static struct raft *fresh(void)
{
    struct raft *r = NULL;
    struct raft_log_state l = { .first_index = 1 };
    assert_int_equal(raft_new(&r, &one, &l, no_terms, NULL, &e), 0);
    return r;
}

static int step(struct raft *r, struct raft_event ev)
{
    return raft_step(r, &ev, &out, &e);
}

static int persisted(struct raft *r)
{
    return step(r, (struct raft_event){ .type = RAFT_EV_PERSISTED, .write = out.write });
}

static struct raft_status status(struct raft *r)
{
    struct raft_status s;
    raft_status(r, &s);
    return s;
}

static void elect(struct raft *r)
{
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_TICK }), 0);
    assert_int_equal(persisted(r), 0); /* its vote */
    assert_int_equal(persisted(r), 0); /* its first entry */
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_APPLIED, .index = out.apply_to }), 0);
}

static void test_election(void **state)
{
    (void)state;
    struct raft *r = fresh();
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_TICK }), 0);
    assert_true(out.hard_state_changed);
    assert_int_equal(out.hard_state.term, 1);
    assert_int_equal(out.hard_state.vote, 7);
    assert_true(out.append_from > out.append_to);
    assert_int_equal(status(r).role, RAFT_CANDIDATE); /* not before the vote is on disk */
    assert_int_equal(persisted(r), 0);
    assert_true(out.role_changed);
    assert_int_equal(out.append_from, 1);
    assert_int_equal(out.append_to, 1);
    assert_int_equal(out.append_type, RAFT_ENTRY_NOOP);
    assert_int_equal(out.apply_to, 0);
    assert_int_equal(persisted(r), 0);
    assert_int_equal(out.apply_to, 1);
    assert_int_equal(status(r).role, RAFT_LEADER);
    assert_false(status(r).ready);
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_APPLIED, .index = 1 }), 0);
    assert_true(status(r).ready);
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_TICK }), 0);
    assert_false(out.hard_state_changed); /* a leader stays one */
    raft_free(r);
}

static struct raft_event propose(uint32_t n, uint64_t bytes)
{
    return (struct raft_event){ .type = RAFT_EV_PROPOSE, .n_entries = n, .bytes = bytes };
}

static void test_propose(void **state)
{
    (void)state;
    struct raft *r = fresh();
    assert_int_equal(step(r, propose(1, 10)), -ERR_UNAVAILABLE);
    elect(r);
    assert_int_equal(step(r, propose(3, 30)), 0);
    assert_int_equal(out.append_from, 2);
    assert_int_equal(out.append_to, 4);
    assert_int_equal(out.apply_to, 0); /* durable before visible */
    uint64_t write = out.write;
    assert_int_equal(persisted(r), 0);
    assert_int_equal(out.apply_to, 4);
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_APPLIED, .index = 5 }), -ERR_INVALID);
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_PERSISTED, .write = write + 1 }), -ERR_INVALID);
    assert_int_equal(step(r, propose(0, 0)), -ERR_INVALID);
    raft_free(r);
}

static void test_uncommitted_limit(void **state)
{
    (void)state;
    struct raft_config c = one;
    struct raft_log_state l = { .first_index = 1 };
    struct raft *r = NULL;
    c.uncommitted_bytes_max = 100;
    assert_int_equal(raft_new(&r, &c, &l, no_terms, NULL, &e), 0);
    elect(r);
    assert_int_equal(step(r, propose(1, 1000)), 0); /* one may always go alone */
    uint64_t write = out.write;
    assert_int_equal(step(r, propose(1, 1)), -ERR_TOO_BIG);
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_PERSISTED, .write = write }), 0);
    assert_int_equal(step(r, propose(1, 99)), 0);
    raft_free(r);
}

static void test_append_failed(void **state)
{
    (void)state;
    struct raft *r = fresh();
    elect(r);
    assert_int_equal(step(r, propose(2, 20)), 0);
    uint64_t write = out.write;
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_WRITE_FAILED, .write = write + 1 }), -ERR_INVALID);
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_WRITE_FAILED, .write = write }), 0);
    assert_int_equal(status(r).last_index, 1);
    assert_int_equal(status(r).role, RAFT_LEADER);
    assert_int_equal(step(r, propose(1, 10)), 0); /* the index is used again */
    assert_int_equal(out.append_from, 2);
    raft_free(r);
}

static void test_election_write_failed(void **state)
{
    (void)state;
    struct raft *r = fresh();
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_TICK }), 0);
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_WRITE_FAILED, .write = out.write }), 0);
    assert_int_equal(status(r).role, RAFT_FOLLOWER);
    assert_int_equal(out.wake_at.ms, 100);
    struct mono_ms later = { 100 };
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_TICK, .now = later }), 0);
    assert_int_equal(out.hard_state.term, 2);
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_PERSISTED, .now = later, .write = out.write }), 0);
    assert_int_equal(out.append_from, 1);
    raft_free(r);
}

static void test_reads(void **state)
{
    (void)state;
    struct raft *r = fresh();
    struct raft_event read = { .type = RAFT_EV_READ, .cookie = 42 };
    assert_int_equal(step(r, read), -ERR_UNAVAILABLE);
    elect(r);
    assert_int_equal(step(r, read), 0);
    assert_int_equal(out.n_reads, 1);
    assert_int_equal(out.reads[0].cookie, 42);
    assert_int_equal(out.reads[0].index, 1);
    assert_int_equal(step(r, propose(1, 1)), 0);
    assert_int_equal(step(r, read), 0);
    assert_int_equal(out.reads[0].index, 1); /* what isn't committed was not acknowledged */
    raft_free(r);
}

static void test_restart(void **state)
{
    (void)state;
    uint64_t terms[] = { 1, 1, 3, 3, 4 };
    struct raft_log_state l = { .hard_state = { 4, 7 }, .first_index = 1, .last_index = 5, .applied = 2 };
    struct raft *r = NULL;
    assert_int_equal(raft_new(&r, &one, &l, listed_terms, terms, &e), 0);
    assert_int_equal(raft_term_at(r, 2), 1);
    assert_int_equal(raft_term_at(r, 3), 3);
    assert_int_equal(raft_term_at(r, 5), 4);
    assert_int_equal(raft_term_at(r, 6), 0);
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_TICK }), 0);
    assert_int_equal(persisted(r), 0);
    assert_int_equal(out.append_from, 6);
    assert_int_equal(out.append_term, 5);
    assert_int_equal(out.apply_to, 0); /* older entries: only with our own (Raft §5.4.2) */
    assert_int_equal(persisted(r), 0);
    assert_int_equal(out.apply_to, 6);
    raft_free(r);
}

static void test_compaction(void **state)
{
    (void)state;
    uint64_t terms[] = { 1, 1, 3, 3, 4 };
    struct raft_log_state l = { .hard_state = { 4, 7 }, .first_index = 1, .last_index = 5, .applied = 4 };
    struct raft *r = NULL;
    assert_int_equal(raft_new(&r, &one, &l, listed_terms, terms, &e), 0);
    struct raft_event ev = { .type = RAFT_EV_COMPACTED, .index = 5, .first_kept = 4 };
    assert_int_equal(step(r, ev), -ERR_INVALID); /* not applied yet */
    ev.index = 4;
    assert_int_equal(step(r, ev), 0);
    assert_int_equal(raft_term_at(r, 3), 0);
    assert_int_equal(raft_term_at(r, 4), 3);
    ev.first_kept = 5;
    assert_int_equal(step(r, ev), 0);
    assert_int_equal(raft_term_at(r, 4), 3); /* the snapshot's end */
    assert_int_equal(raft_term_at(r, 5), 4);
    raft_free(r);
}

static void test_broken_logs(void **state)
{
    (void)state;
    struct raft *r = NULL;
    uint64_t back[] = { 2, 1 }, ahead[] = { 1, 9 };
    struct raft_log_state l = { .hard_state = { 4, 7 }, .first_index = 1, .last_index = 2 };
    assert_int_equal(raft_new(&r, &one, &l, listed_terms, back, &e), -ERR_CORRUPT);
    assert_int_equal(raft_new(&r, &one, &l, listed_terms, ahead, &e), -ERR_CORRUPT);
    l.first_index = 2;
    assert_int_equal(raft_new(&r, &one, &l, listed_terms, back, &e), -ERR_CORRUPT); /* entry 1 is nowhere */
    l.first_index = 1;
    l.applied = 3;
    assert_int_equal(raft_new(&r, &one, &l, listed_terms, back, &e), -ERR_CORRUPT);
    assert_null(r);
}

static void test_bad_members(void **state)
{
    (void)state;
    struct raft *r = NULL;
    struct raft_log_state l = { .first_index = 1 };
    struct raft_config c = { .id = 0, .members = { 1, { { 7, false } } } };
    assert_int_equal(raft_new(&r, &c, &l, no_terms, NULL, &e), -ERR_INVALID);
    c = (struct raft_config){ .id = 7, .members = { 1, { { 7, true } } } }; /* nobody to lead */
    assert_int_equal(raft_new(&r, &c, &l, no_terms, NULL, &e), -ERR_INVALID);
    c = (struct raft_config){ .id = 7, .members = { 2, { { 7, false }, { 7, false } } } };
    assert_int_equal(raft_new(&r, &c, &l, no_terms, NULL, &e), -ERR_INVALID);
    c = (struct raft_config){ .id = 7, .members = { 2, { { 7, false }, { 0, false } } } };
    assert_int_equal(raft_new(&r, &c, &l, no_terms, NULL, &e), -ERR_INVALID);
    c = (struct raft_config){ .id = 7, .members = { .n = 10 } };
    for (unsigned i = 0; i < 10; i++)
        c.members.v[i].id = i + 1;
    assert_int_equal(raft_new(&r, &c, &l, no_terms, NULL, &e), -ERR_INVALID); /* ten voters */
    c.members.n = RAFT_MEMBERS_MAX + 1;
    assert_int_equal(raft_new(&r, &c, &l, no_terms, NULL, &e), -ERR_INVALID);
    assert_null(r);
}

/* Many restarts without a snapshot: the core asks for one long before its table of terms is full. */
static void test_many_terms(void **state)
{
    (void)state;
    uint64_t terms[RAFT_RUNS_MAX];
    for (uint64_t i = 0; i < RAFT_RUNS_MAX; i++)
        terms[i] = i + 1;
    struct raft *r = NULL;
    struct raft_log_state l = { .hard_state = { RAFT_RUNS_MAX, 7 }, .first_index = 1, .last_index = RAFT_RUNS_COMPACT };
    assert_int_equal(raft_new(&r, &one, &l, listed_terms, terms, &e), 0);
    elect(r);
    assert_true(out.want_snapshot);
    raft_free(r);
    l.last_index = l.applied = RAFT_RUNS_MAX;
    assert_int_equal(raft_new(&r, &one, &l, listed_terms, terms, &e), 0);
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_TICK }), 0);
    assert_true(out.want_snapshot);
    assert_int_equal(status(r).role, RAFT_PRECANDIDATE);
    assert_int_equal(status(r).term, RAFT_RUNS_MAX);
    raft_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_election),
        cmocka_unit_test(test_propose),
        cmocka_unit_test(test_uncommitted_limit),
        cmocka_unit_test(test_append_failed),
        cmocka_unit_test(test_election_write_failed),
        cmocka_unit_test(test_reads),
        cmocka_unit_test(test_restart),
        cmocka_unit_test(test_compaction),
        cmocka_unit_test(test_broken_logs),
        cmocka_unit_test(test_bad_members),
        cmocka_unit_test(test_many_terms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
