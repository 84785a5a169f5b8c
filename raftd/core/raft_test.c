/* raft_test.c - what the core decides and refuses, step by step; raft_scenario_test.c has whole groups. */
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

/* ---- several members ---- */

static const struct raft_config three = { .id = 7, .members = { 3, { { 7, false }, { 8, false }, { 9, false } } } };

static struct raft *member(const struct raft_config *c, const struct raft_log_state *l, uint64_t *terms)
{
    struct raft *r = NULL;
    assert_int_equal(raft_new(&r, c, l, terms ? listed_terms : no_terms, terms, &e), 0);
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_TICK }), 0);
    return r;
}

static int receive(struct raft *r, struct raft_msg m)
{
    m.to = 7;
    return step(r, (struct raft_event){ .type = RAFT_EV_MESSAGE, .msg = &m });
}

static void settle(struct raft *r)
{
    while (out.write != 0)
        assert_int_equal(persisted(r), 0);
}

/* of three, with the help of member 8 */
static struct raft *leader(const struct raft_config *c)
{
    struct raft_log_state l = { .first_index = 1 };
    struct raft *r = member(c, &l, NULL);
    assert_int_equal(receive(r, (struct raft_msg){ .type = RAFT_MSG_TIMEOUT_NOW, .from = 8, .term = 1 }), 0);
    assert_int_equal(status(r).term, 2);
    settle(r);
    assert_int_equal(receive(r, (struct raft_msg){ .type = RAFT_MSG_VOTE_REPLY, .from = 8, .term = 2 }), 0);
    assert_int_equal(status(r).role, RAFT_LEADER);
    settle(r);
    assert_int_equal(
        receive(r, (struct raft_msg){ .type = RAFT_MSG_APPEND_REPLY, .from = 8, .term = 2, .index = 1, .read_id = 0 }),
        0);
    assert_int_equal(status(r).committed, 1);
    return r;
}

static const struct raft_msg *sent_to(raft_id to, enum raft_msg_type type)
{
    for (size_t i = 0; i < out.n_msgs; i++)
        if (out.msgs[i].to == to && out.msgs[i].type == type)
            return &out.msgs[i];
    return NULL;
}

static void test_messages_that_cannot_be(void **state)
{
    (void)state;
    struct raft_log_state l = { .hard_state = { 4, 0 }, .first_index = 1, .last_index = 3, .applied = 2 };
    uint64_t terms[] = { 1, 2, 4 };
    struct raft *r = member(&three, &l, terms);
    struct raft_members none = { 0 }, two_of_one = { 2, { { 8, false }, { 8, false } } };
    struct raft_entry_meta en[2] = { { 4, 4, RAFT_ENTRY_DATA, NULL }, { 5, 4, RAFT_ENTRY_DATA, NULL } };
    struct raft_msg m = { .type = RAFT_MSG_APPEND, .from = 8, .term = 4, .index = 3, .index_term = 4 };
    m.entries = en;
    m.n_entries = 2;
    struct raft_msg bad = m;
    bad.from = 0;
    assert_int_equal(receive(r, bad), -ERR_INVALID);
    bad.from = 7;
    assert_int_equal(receive(r, bad), -ERR_INVALID);
    bad = m;
    bad.term = 0;
    assert_int_equal(receive(r, bad), -ERR_INVALID);
    bad.term = UINT64_MAX;
    assert_int_equal(receive(r, bad), -ERR_INVALID);
    bad = m;
    bad.index_term = 5; /* later than its own */
    assert_int_equal(receive(r, bad), -ERR_INVALID);
    bad = m;
    bad.type = RAFT_MSG_SNAPSHOT;
    assert_int_equal(receive(r, bad), -ERR_INVALID);
    en[1].index = 6; /* a hole */
    assert_int_equal(receive(r, m), -ERR_INVALID);
    en[1].index = 5;
    en[1].term = 3; /* backwards */
    assert_int_equal(receive(r, m), -ERR_INVALID);
    en[1].term = 9;
    assert_int_equal(receive(r, m), -ERR_INVALID);
    en[1] = (struct raft_entry_meta){ 5, 4, RAFT_ENTRY_MEMBERS, NULL };
    assert_int_equal(receive(r, m), -ERR_INVALID);
    en[1].members = &none;
    assert_int_equal(receive(r, m), -ERR_INVALID);
    en[1].members = &two_of_one;
    assert_int_equal(receive(r, m), -ERR_INVALID);
    assert_int_equal(status(r).last_index, 3); /* nothing of it was taken */
    assert_int_equal(status(r).leader, 0);
    struct raft_msg to_other = m;
    to_other.to = 9;
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_MESSAGE, .msg = &to_other }), -ERR_INVALID);
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_MESSAGE }), -ERR_INVALID);
    raft_free(r);
}

static void test_contradictions(void **state)
{
    (void)state;
    struct raft_log_state l = { .hard_state = { 4, 0 }, .first_index = 1, .last_index = 3, .applied = 2 };
    uint64_t terms[] = { 1, 2, 4 };
    struct raft *r = member(&three, &l, terms);
    struct raft_entry_meta en[1] = { { 2, 4, RAFT_ENTRY_DATA, NULL } };
    struct raft_msg m = { .type = RAFT_MSG_APPEND, .from = 8, .term = 5, .index = 1, .index_term = 1 };
    m.entries = en;
    m.n_entries = 1;
    assert_int_equal(receive(r, m), -ERR_CORRUPT); /* entry 2 is committed, with term 2 */
    assert_int_equal(status(r).term, 4);
    m.n_entries = 0;
    m.index = 2;
    assert_int_equal(receive(r, m), -ERR_CORRUPT);
    m.index_term = 2;
    assert_int_equal(receive(r, m), 0);
    assert_int_equal(status(r).leader, 8);
    m.from = 9; /* a second leader of the same term */
    assert_int_equal(receive(r, m), -ERR_CORRUPT);
    raft_free(r);
}

static void test_window(void **state)
{
    (void)state;
    struct raft_config c = three;
    c.inflight_msgs_max = 2;
    c.inflight_bytes_max = 1000;
    struct raft *r = leader(&c);
    assert_int_equal(step(r, propose(1, 10)), 0);
    assert_non_null(sent_to(8, RAFT_MSG_APPEND));
    assert_null(sent_to(9, RAFT_MSG_APPEND)); /* its probe is under way */
    assert_int_equal(step(r, propose(1, 10)), 0);
    assert_non_null(sent_to(8, RAFT_MSG_APPEND));
    assert_int_equal(step(r, propose(1, 10)), 0);
    assert_null(sent_to(8, RAFT_MSG_APPEND)); /* two are under way */
    struct raft_msg ack = { .type = RAFT_MSG_APPEND_REPLY, .from = 8, .term = 2, .index = 2 };
    assert_int_equal(receive(r, ack), 0);
    assert_int_equal(sent_to(8, RAFT_MSG_APPEND)->entries_from, 4);
    assert_false(raft_sent(r, 8, 4, 2000)); /* more bytes than the window has */
    ack.index = 3;
    assert_int_equal(receive(r, ack), 0);
    assert_int_equal(step(r, propose(1, 10)), 0);
    assert_null(sent_to(8, RAFT_MSG_APPEND));
    ack.index = 4;
    assert_int_equal(receive(r, ack), 0);
    assert_int_equal(sent_to(8, RAFT_MSG_APPEND)->entries_from, 5);
    raft_free(r);
}

static void test_cut_appends(void **state)
{
    (void)state;
    struct raft *r = leader(&three);
    assert_int_equal(step(r, propose(10, 100)), 0);
    assert_int_equal(sent_to(8, RAFT_MSG_APPEND)->entries_from, 2);
    assert_int_equal(sent_to(8, RAFT_MSG_APPEND)->entries_to, 11);
    assert_true(raft_sent(r, 8, 5, 40)); /* too large: there is more */
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_TICK }), 0);
    assert_int_equal(sent_to(8, RAFT_MSG_APPEND)->entries_from, 6);
    assert_false(raft_sent(r, 8, 5, 0)); /* its queue is full: not now */
    assert_int_equal(step(r, propose(1, 10)), 0);
    assert_null(sent_to(8, RAFT_MSG_APPEND));
    assert_int_equal(receive(r, (struct raft_msg){ .type = RAFT_MSG_HEARTBEAT_REPLY, .from = 8, .term = 2 }), 0);
    assert_null(sent_to(8, RAFT_MSG_APPEND)); /* it was only just tried */
    struct raft_msg beat = { .type = RAFT_MSG_HEARTBEAT_REPLY, .from = 8, .to = 7, .term = 2 };
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_MESSAGE, .now = { 100 }, .msg = &beat }), 0);
    assert_int_equal(sent_to(8, RAFT_MSG_APPEND)->entries_from, 6);
    raft_free(r);
}

static void test_many_writes(void **state)
{
    (void)state;
    struct raft *r = leader(&three);
    uint64_t first = 0;
    for (unsigned i = 0; i < 200; i++) {
        assert_int_equal(step(r, propose(1, 1)), 0);
        if (i == 0)
            first = out.write;
    }
    uint64_t last = out.write;
    assert_int_equal(last, first + 199);
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_PERSISTED, .write = first + 9 }), 0);
    assert_int_equal(status(r).stable, 11);
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_PERSISTED, .write = first + 3 }), 0); /* old news */
    assert_int_equal(status(r).stable, 11);
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_PERSISTED, .write = last }), 0);
    assert_int_equal(status(r).stable, 201);
    assert_int_equal(status(r).committed, 1); /* nobody else has them */
    raft_free(r);
}

/* The write that was to replace entries of an old term fails: they are still on the disk, and go with the next one. */
static void test_failed_replacement(void **state)
{
    (void)state;
    struct raft_log_state l = { .hard_state = { 2, 0 }, .first_index = 1, .last_index = 3, .applied = 1 };
    uint64_t terms[] = { 1, 2, 2 };
    struct raft *r = member(&three, &l, terms);
    struct raft_entry_meta en[1] = { { 2, 3, RAFT_ENTRY_DATA, NULL } };
    struct raft_msg m = { .type = RAFT_MSG_APPEND, .from = 8, .term = 3, .index = 1, .index_term = 1 };
    m.entries = en;
    m.n_entries = 1;
    assert_int_equal(receive(r, m), 0);
    assert_int_equal(out.truncate_from, 2);
    assert_int_equal(out.append_from, 2);
    assert_int_equal(out.append_to, 2);
    assert_true(out.append_of_msg);
    assert_int_equal(out.hard_state.term, 3);
    assert_int_equal(out.n_msgs, 0); /* it answers when that is on disk */
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_WRITE_FAILED, .write = out.write }), 0);
    assert_int_equal(status(r).last_index, 1);
    assert_int_equal(receive(r, m), 0);
    assert_true(out.append_from > out.append_to); /* the disk gets a rest */
    assert_int_equal(out.n_msgs, 0);
    m.to = 7;
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_MESSAGE, .now = { 100 }, .msg = &m }), 0);
    assert_int_equal(out.truncate_from, 2);
    assert_int_equal(out.append_to, 2);
    assert_true(out.hard_state_changed);
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_PERSISTED, .now = { 100 }, .write = out.write }), 0);
    assert_int_equal(sent_to(8, RAFT_MSG_APPEND_REPLY)->index, 2);
    assert_false(sent_to(8, RAFT_MSG_APPEND_REPLY)->reject);
    raft_free(r);
}

static void test_install(void **state)
{
    (void)state;
    struct raft_log_state l = { .hard_state = { 2, 0 }, .first_index = 1, .last_index = 3, .applied = 1 };
    uint64_t terms[] = { 1, 2, 2 };
    struct raft *r = member(&three, &l, terms);
    struct raft_members four = { 4, { { 7, false }, { 8, false }, { 9, false }, { 10, true } } };
    struct raft_event ev = { .type = RAFT_EV_SNAPSHOT_RECEIVED, .index = 20, .term = 5 };
    assert_int_equal(step(r, ev), -ERR_INVALID); /* without members */
    ev.members = &four;
    assert_int_equal(step(r, ev), 0);
    assert_int_equal(out.install_index, 20);
    assert_true(out.install_drops_log);
    assert_int_equal(out.hard_state.term, 5);
    assert_int_equal(status(r).committed, 1); /* not before it is on disk */
    uint64_t write = out.write;
    struct raft_msg m = { .type = RAFT_MSG_APPEND, .from = 8, .term = 5, .index = 3, .index_term = 2 };
    assert_int_equal(receive(r, m), 0);
    assert_int_equal(out.n_msgs, 0);
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_PERSISTED, .write = write }), 0);
    assert_int_equal(status(r).committed, 20);
    assert_int_equal(status(r).applied, 20);
    assert_int_equal(status(r).first_index, 21);
    assert_int_equal(status(r).members.n, 4);
    assert_int_equal(sent_to(8, RAFT_MSG_APPEND_REPLY)->index, 20);
    assert_int_equal(step(r, ev), 0); /* again: nothing new */
    assert_int_equal(out.install_index, 0);
    raft_free(r);
}

static void test_install_fails(void **state)
{
    (void)state;
    struct raft_log_state l = { .hard_state = { 2, 0 }, .first_index = 1, .last_index = 3, .applied = 1 };
    uint64_t terms[] = { 1, 2, 2 };
    struct raft *r = member(&three, &l, terms);
    struct raft_event ev = { .type = RAFT_EV_SNAPSHOT_RECEIVED, .index = 20, .term = 2, .members = &three.members };
    assert_int_equal(step(r, ev), 0);
    assert_int_equal(step(r, (struct raft_event){ .type = RAFT_EV_WRITE_FAILED, .write = out.write }), 0);
    assert_int_equal(status(r).last_index, 3);
    assert_int_equal(status(r).committed, 1);
    assert_int_equal(step(r, ev), 0); /* it may come again */
    assert_int_equal(out.install_index, 20);
    raft_free(r);
}

static void test_members_of_the_log(void **state)
{
    (void)state;
    struct raft_members_at changes[] = { { 2, { 2, { { 7, false }, { 8, true } } } },
                                         { 3, { 2, { { 7, false }, { 8, false } } } } };
    struct raft_log_state l = { .hard_state = { 1, 7 }, .first_index = 1, .last_index = 3 };
    uint64_t terms[] = { 1, 1, 1 };
    l.members = changes;
    l.n_members = 2;
    struct raft *r = NULL;
    assert_int_equal(raft_new(&r, &one, &l, listed_terms, terms, &e), 0);
    assert_int_equal(status(r).members.n, 2);
    assert_int_equal(status(r).members_index, 3);
    assert_false(status(r).members.v[1].learner);
    raft_free(r);
    changes[1].index = 2; /* two in one entry */
    assert_int_equal(raft_new(&r, &one, &l, listed_terms, terms, &e), -ERR_CORRUPT);
    changes[1].index = 4; /* behind the log */
    assert_int_equal(raft_new(&r, &one, &l, listed_terms, terms, &e), -ERR_CORRUPT);
}

static void test_voters_limit(void **state)
{
    (void)state;
    struct raft_config c = { .id = 7, .members = { 1, { { 7, false } } } };
    for (raft_id id = 20; id < 20 + RAFT_MEMBERS_MAX - 1; id++)
        c.members.v[c.members.n++] = (struct raft_member){ id, true };
    struct raft_log_state l = { .first_index = 1 };
    struct raft *r = NULL;
    assert_int_equal(raft_new(&r, &c, &l, no_terms, NULL, &e), 0);
    elect(r);
    struct raft_event add = { .type = RAFT_EV_MEMBERS, .change = RAFT_ADD_LEARNER, .member = 99 };
    assert_int_equal(step(r, add), -ERR_PRECONDITION);
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
        cmocka_unit_test(test_messages_that_cannot_be),
        cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_cut_appends),
        cmocka_unit_test(test_many_writes),
        cmocka_unit_test(test_failed_replacement),
        cmocka_unit_test(test_install),
        cmocka_unit_test(test_install_fails),
        cmocka_unit_test(test_members_of_the_log),
        cmocka_unit_test(test_voters_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
