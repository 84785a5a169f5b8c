/* tail_test.c - entries in memory, the list of members, and what managers send each other. */
#include "raftd/members.h"
#include "raftd/peer_msg.h"
#include "raftd/tail.h"
#include "raftd/test_dir.h"

static void add(struct tail *t, uint64_t index, const char *text)
{
    struct buf bytes = BUF_INIT;
    buf_puts(&bytes, text);
    struct str data = buf_str(&bytes);
    struct block *b = block_take(&bytes);
    tail_add(t, &(struct raft_log_entry){ index, 1, RAFT_ENTRY_DATA, data }, b);
    block_drop(b);
}

static void test_tail(void **state)
{
    struct tail t = { 0 };
    struct raft_log_entry en;
    char text[16];
    (void)state;
    assert_false(tail_get(&t, 1, &en));
    for (uint64_t i = 5; i < 1005; i++) {
        snprintf(text, sizeof text, "e%llu", (unsigned long long)i);
        add(&t, i, text);
    }
    assert_true(tail_get(&t, 1004, &en) && str_is(en.data, "e1004") && en.index == 1004);
    assert_false(tail_get(&t, 4, &en) || tail_get(&t, 1005, &en));
    tail_truncate(&t, 1000);
    assert_false(tail_get(&t, 1000, &en));
    add(&t, 1000, "again");
    assert_true(tail_get(&t, 1000, &en) && str_is(en.data, "again"));
    tail_evict(&t, 500, 0, 0);
    assert_false(tail_get(&t, 500, &en));
    assert_true(tail_get(&t, 501, &en) && str_is(en.data, "e501"));
    tail_evict(&t, 1000, SIZE_MAX, 10); /* ten may stay */
    assert_int_equal(t.n, 10);
    tail_truncate(&t, 1);
    assert_int_equal(t.n, 0);
    assert_int_equal(t.bytes, 0);
    add(&t, 77, "elsewhere");
    assert_true(tail_get(&t, 77, &en));
    tail_clear(&t);
}

/* A block lives as long as one entry of it does. */
static void test_blocks(void **state)
{
    struct tail t = { 0 };
    struct raft_log_entry en;
    struct buf b = BUF_INIT;
    (void)state;
    buf_puts(&b, "onetwothree");
    const char *p = b.p;
    struct block *block = block_take(&b);
    assert_null(b.p);
    tail_add(&t, &(struct raft_log_entry){ 1, 1, RAFT_ENTRY_DATA, { p, 3 } }, block);
    tail_add(&t, &(struct raft_log_entry){ 2, 1, RAFT_ENTRY_DATA, { p + 3, 3 } }, block);
    tail_add(&t, &(struct raft_log_entry){ 3, 1, RAFT_ENTRY_DATA, { p + 6, 5 } }, block);
    block_drop(block);
    tail_evict(&t, 2, 0, 0);
    assert_true(tail_get(&t, 3, &en) && str_is(en.data, "three"));
    tail_clear(&t);
}

static void test_members(void **state)
{
    struct members m = { .n = 2 }, got;
    struct buf b = BUF_INIT;
    struct err e = ERR_INIT;
    (void)state;
    m.v[0] = (struct member){ .id = 7, .node = "a", .addr = "10.0.0.1:2377" };
    m.v[1] = (struct member){ .id = 8, .node = "b", .learner = true };
    members_encode(&m, &b);
    assert_int_equal(members_decode(&got, buf_str(&b), &e), 0);
    assert_int_equal(got.n, 2);
    assert_string_equal(got.v[0].addr, "10.0.0.1:2377");
    assert_true(got.v[1].learner && got.v[1].id == 8);
    for (size_t n = 1; n < b.n; n++)
        assert_int_equal(members_decode(&got, (struct str){ b.p, n }, &e), -ERR_CORRUPT);
    m.v[1].id = 7;
    buf_clear(&b);
    members_encode(&m, &b);
    assert_int_equal(members_decode(&got, buf_str(&b), &e), -ERR_CORRUPT); /* twice */
    m.v[1] = (struct member){ .id = 9, .node = "a" };
    buf_clear(&b);
    members_encode(&m, &b);
    assert_int_equal(members_decode(&got, buf_str(&b), &e), -ERR_CORRUPT);
    buf_done(&b);

    struct raft_members ids = { 2, { { 7, false }, { 9, true } } };
    struct member extra = { .id = 9, .node = "c", .addr = "x" };
    m = (struct members){ .n = 1 };
    m.v[0] = (struct member){ .id = 7, .node = "a", .learner = true };
    assert_false(members_join(&got, &ids, &m, NULL));
    assert_true(members_join(&got, &ids, &m, &extra));
    assert_true(!got.v[0].learner && got.v[1].learner);
    assert_string_equal(got.v[1].node, "c");
}

/* Three messages in one datagram; cut anywhere, what is whole comes out and the rest is refused. */
static void test_datagram(void **state)
{
    struct buf b = BUF_INIT, entries = BUF_INIT;
    struct arena a;
    struct peer_msg m = { 0 };
    struct err e = ERR_INIT;
    struct str rest;
    (void)state;
    arena_init(&a, 1 << 20);
    struct raft_msg app = {
        .type = RAFT_MSG_APPEND, .from = 1, .to = 2, .term = 9, .index = 4, .index_term = 8, .commit = 3
    };
    peer_put_entry(&entries, &(struct raft_log_entry){ 5, 9, RAFT_ENTRY_DATA, STR("five") });
    peer_put_entry(&entries, &(struct raft_log_entry){ 6, 9, RAFT_ENTRY_NOOP, STR("") });
    struct peer_chunk c = { .from = 1,
                            .to = 2,
                            .id = 3,
                            .kind = STREAM_SNAPSHOT,
                            .index = 10,
                            .term = 2,
                            .part = 7,
                            .last = true,
                            .data = STR("chunk") };
    struct peer_ack k = { .from = 1, .to = 2, .id = 3, .next = 8, .state = STREAM_DONE };
    peer_begin(&b);
    peer_put_raft(&b, &app, buf_str(&entries), 2);
    size_t one = b.n;
    peer_put_chunk(&b, &c);
    size_t two = b.n;
    peer_put_ack(&b, &k);
    for (size_t n = 0; n <= b.n; n++) {
        size_t got = 0;
        int r = -1;
        if (peer_open((struct str){ b.p, n }, &rest))
            while ((r = peer_next(&rest, &a, &m, &e)) > 0)
                got++;
        assert_int_equal(got, n == b.n ? 3 : n >= two ? 2 : n >= one ? 1 : 0);
        assert_true((r == 0) == (n == 1 || n == one || n == two || n == b.n));
        arena_reset(&a);
    }
    assert_true(peer_open(buf_str(&b), &rest) && peer_next(&rest, &a, &m, &e) == 1);
    assert_true(m.kind == PEER_RAFT && m.raft.n_entries == 2 && m.raft.entries[1].index == 6 && m.raft.commit == 3);
    assert_non_null(m.data);
    if (m.data != NULL)
        assert_true(str_is(m.data[0], "five"));
    assert_int_equal(peer_next(&rest, &a, &m, &e), 1);
    assert_true(m.kind == PEER_CHUNK && m.chunk.last && m.chunk.part == 7 && str_is(m.chunk.data, "chunk"));
    assert_int_equal(peer_next(&rest, &a, &m, &e), 1);
    assert_true(m.kind == PEER_ACK && m.ack.next == 8 && m.ack.state == STREAM_DONE);
    b.p[0] = 2; /* of another version */
    assert_false(peer_open(buf_str(&b), &rest));
    buf_done(&b);
    buf_done(&entries);
    arena_done(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tail),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_datagram),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
