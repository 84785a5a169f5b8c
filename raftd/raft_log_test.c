/* raft_log_test.c - the log on disk: what was written is there again, and what was tampered with is refused by name. */
#include "raftd/raft_log.h"

#include <fcntl.h>
#include <lmdb.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "raftd/snapshot.h"
#include "raftd/test_dir.h"

static struct err e;
static const struct raft_log_identity id = { "cluster1", "node1", 42 };

static struct raft_log *create(void)
{
    struct raft_hard_state hs = { 1, 42 };
    struct raft_log *l = NULL;
    assert_false(raft_log_exists(test_dir));
    assert_int_equal(raft_log_create(test_dir, &id, &hs, STR("first"), &e), 0);
    assert_true(raft_log_exists(test_dir));
    assert_int_equal(raft_log_open(&l, test_dir, &e), 0);
    return l;
}

static int append(struct raft_log *l, uint64_t index, uint64_t term, struct str data)
{
    struct raft_log_entry en = { index, term, RAFT_ENTRY_DATA, data };
    struct raft_log_write w = { .entries = &en, .n_entries = 1 };
    return raft_log_write(l, &w, &e);
}

static void assert_entry(struct raft_log *l, uint64_t index, uint64_t term, struct str data)
{
    struct buf b = BUF_INIT;
    struct raft_log_entry en;
    assert_int_equal(raft_log_read(l, index, &b, &en, &e), 0);
    assert_int_equal(en.term, term);
    assert_true(str_eq(en.data, data));
    buf_done(&b);
}

static void test_write_and_reopen(void **state)
{
    (void)state;
    struct raft_log *l = create();
    struct raft_log_state st;
    struct raft_hard_state hs = { 3, 42 };
    struct raft_log_entry en[2] = { { 2, 2, RAFT_ENTRY_NOOP, { NULL, 0 } }, { 3, 3, RAFT_ENTRY_DATA, STR("third") } };
    struct raft_log_write w = { .entries = en, .n_entries = 2, .hard_state = &hs };
    assert_int_equal(raft_log_write(l, &w, &e), 0);
    raft_log_close(l);
    assert_int_equal(raft_log_open(&l, test_dir, &e), 0);
    raft_log_state(l, &st);
    assert_int_equal(st.hard_state.term, 3);
    assert_int_equal(st.hard_state.vote, 42);
    assert_int_equal(st.first_index, 1);
    assert_int_equal(st.last_index, 3);
    assert_string_equal(raft_log_identity(l)->node_id, "node1");
    assert_entry(l, 1, 1, STR("first"));
    assert_entry(l, 2, 2, STR(""));
    assert_entry(l, 3, 3, STR("third"));
    assert_int_equal(raft_log_term(l, 3), 3);
    assert_int_equal(raft_log_term(l, 4), 0);
    raft_log_close(l);
}

static void test_truncate_tail(void **state)
{
    (void)state;
    struct raft_log *l = create();
    for (uint64_t i = 2; i <= 20; i++)
        assert_int_equal(append(l, i, 1, STR("x")), 0);
    struct raft_log_entry en = { 6, 2, RAFT_ENTRY_DATA, STR("other") };
    struct raft_log_write w = { .truncate_from = 6, .entries = &en, .n_entries = 1 };
    assert_int_equal(raft_log_write(l, &w, &e), 0);
    raft_log_close(l);
    assert_int_equal(raft_log_open(&l, test_dir, &e), 0);
    struct raft_log_state st;
    raft_log_state(l, &st);
    assert_int_equal(st.last_index, 6);
    assert_entry(l, 5, 1, STR("x"));
    assert_entry(l, 6, 2, STR("other"));
    raft_log_close(l);
}

static void test_large_entry(void **state)
{
    (void)state;
    struct raft_log *l = create();
    size_t n = 3 * RAFT_LOG_CHUNK + 17;
    char *big = malloc(n);
    for (size_t i = 0; i < n; i++)
        big[i] = (char)(i * 7 + i / 251);
    assert_int_equal(append(l, 2, 1, (struct str){ big, n }), 0);
    assert_int_equal(append(l, 3, 1, (struct str){ big, RAFT_LOG_CHUNK }), 0);
    assert_int_equal(append(l, 4, 1, STR("small")), 0);
    raft_log_close(l);
    assert_int_equal(raft_log_open(&l, test_dir, &e), 0);
    assert_entry(l, 2, 1, (struct str){ big, n });
    assert_entry(l, 3, 1, (struct str){ big, RAFT_LOG_CHUNK });
    assert_entry(l, 4, 1, STR("small"));
    raft_log_close(l);
    free(big);
}

static void write_snapshot(struct raft_log *l, uint64_t index, uint64_t term, size_t records)
{
    struct snapshot_writer *w = NULL;
    char rec[1000];
    assert_int_equal(snapshot_create(&w, raft_log_dir(l), raft_log_key(l), index, term, &e), 0);
    for (size_t i = 0; i < records; i++) {
        memset(rec, (int)i, sizeof rec);
        assert_int_equal(snapshot_put(w, (struct str){ rec, sizeof rec }, &e), 0);
    }
    assert_int_equal(snapshot_finish(w, &e), 0);
    snapshot_close(w);
}

static void test_compaction(void **state)
{
    (void)state;
    struct raft_log *l = create();
    struct raft_log_state st;
    bool more;
    for (uint64_t i = 2; i <= 100; i++)
        assert_int_equal(append(l, i, 1, STR("x")), 0);
    write_snapshot(l, 90, 1, 300);
    assert_int_equal(raft_log_compact(l, 90, 81, 50, &more, &e), 0);
    assert_true(more);
    raft_log_state(l, &st);
    assert_int_equal(st.first_index, 51);
    assert_int_equal(raft_log_compact(l, 90, 81, 50, &more, &e), 0);
    assert_false(more);
    assert_int_equal(raft_log_compact(l, 101, 81, 50, &more, &e), -ERR_INVALID);
    raft_log_close(l);
    assert_int_equal(raft_log_open(&l, test_dir, &e), 0);
    raft_log_state(l, &st);
    assert_int_equal(st.snapshot_index, 90);
    assert_int_equal(st.snapshot_term, 1);
    assert_int_equal(st.first_index, 81);
    assert_entry(l, 81, 1, STR("x"));
    write_snapshot(l, 100, 1, 1);
    assert_int_equal(raft_log_compact(l, 100, 101, 50, &more, &e), 0);
    assert_int_equal(append(l, 101, 1, STR("y")), 0);
    raft_log_close(l);
    assert_int_equal(raft_log_open(&l, test_dir, &e), 0);
    assert_entry(l, 101, 1, STR("y"));
    raft_log_close(l);
    assert_true(test_missing("log/snap-00000000000000000090")); /* only one is kept */
}

static int reopen(void)
{
    struct raft_log *l = NULL;
    int r = raft_log_open(&l, test_dir, &e);
    raft_log_close(l);
    return r;
}

static void ten_entries(bool with_snapshot)
{
    struct raft_log *l = create();
    bool more;
    for (uint64_t i = 2; i <= 10; i++)
        assert_int_equal(append(l, i, 1, STR("what an entry says")), 0);
    if (with_snapshot) {
        write_snapshot(l, 8, 1, 300);
        assert_int_equal(raft_log_compact(l, 8, 5, 1000, &more, &e), 0);
    }
    raft_log_close(l);
}

static void test_keys(void **state)
{
    (void)state;
    char saved[128], other[128];
    ten_entries(false);
    size_t n = test_read("log/data.key", saved, sizeof saved);
    memcpy(other, saved, n);
    other[n / 2] ^= 1;
    test_write("log/data.key", other, n);
    assert_int_equal(reopen(), -ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "data.key: altered"));
    test_write("log/data.key", saved, n - 1);
    assert_int_equal(reopen(), -ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "cut short"));
    test_remove("log/data.key");
    assert_int_equal(reopen(), -ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "data.key is missing"));
    test_write("log/data.key", saved, n);
    assert_int_equal(reopen(), 0);
    test_remove("log/kek");
    assert_int_equal(reopen(), -ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "kek is missing"));
    /* a sound pair of keys, but of another log */
    struct seal_key k;
    char dir[600];
    snprintf(dir, sizeof dir, "%s/log", test_dir);
    assert_int_equal(seal_keys_create(dir, &k, &e), 0);
    assert_int_equal(reopen(), -ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "not the key that this log was sealed with"));
}

/* raw - the records as LMDB has them. */
struct raw {
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
};

static void raw_open(struct raw *r)
{
    char dir[600];
    snprintf(dir, sizeof dir, "%s/log", test_dir);
    assert_int_equal(mdb_env_create(&r->env), 0);
    assert_int_equal(mdb_env_set_mapsize(r->env, 1u << 30), 0);
    assert_int_equal(mdb_env_open(r->env, dir, 0, 0600), 0);
    assert_int_equal(mdb_txn_begin(r->env, NULL, 0, &r->txn), 0);
    assert_int_equal(mdb_dbi_open(r->txn, NULL, 0, &r->dbi), 0);
}

static void raw_close(struct raw *r)
{
    assert_int_equal(mdb_txn_commit(r->txn), 0);
    mdb_env_close(r->env);
}

static MDB_val raw_key(uint8_t key[13], uint8_t index)
{
    memset(key, 0, 13);
    key[0] = 0x10;
    key[8] = index;
    return (MDB_val){ 13, key };
}

static void test_swapped_records(void **state)
{
    (void)state;
    struct raw r;
    uint8_t ka[13], kb[13];
    char a[512], b[512];
    ten_entries(false);
    raw_open(&r);
    MDB_val k = raw_key(ka, 4), k2 = raw_key(kb, 5), v;
    assert_int_equal(mdb_get(r.txn, r.dbi, &k, &v), 0);
    size_t na = v.mv_size;
    memcpy(a, v.mv_data, na);
    assert_int_equal(mdb_get(r.txn, r.dbi, &k2, &v), 0);
    size_t nb = v.mv_size;
    memcpy(b, v.mv_data, nb);
    MDB_val va = { na, a }, vb = { nb, b };
    assert_int_equal(mdb_put(r.txn, r.dbi, &k, &vb, 0), 0);
    assert_int_equal(mdb_put(r.txn, r.dbi, &k2, &va, 0), 0);
    raw_close(&r);
    assert_int_equal(reopen(), -ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "entry 4 part 0: the record belongs elsewhere"));
}

static void test_altered_record(void **state)
{
    (void)state;
    struct raw r;
    uint8_t key[13];
    char copy[512];
    ten_entries(false);
    for (size_t at = 0; at < 84; at += 7) {
        raw_open(&r);
        MDB_val k = raw_key(key, 7), v;
        assert_int_equal(mdb_get(r.txn, r.dbi, &k, &v), 0);
        memcpy(copy, v.mv_data, v.mv_size);
        copy[at] ^= 0x40;
        MDB_val w = { v.mv_size, copy };
        assert_int_equal(mdb_put(r.txn, r.dbi, &k, &w, 0), 0);
        raw_close(&r);
        assert_int_equal(reopen(), -ERR_CORRUPT);
        assert_non_null(strstr(e.msg, "entry 7"));
        raw_open(&r);
        copy[at] ^= 0x40;
        assert_int_equal(mdb_put(r.txn, r.dbi, &k, &w, 0), 0);
        raw_close(&r);
        assert_int_equal(reopen(), 0);
    }
}

static void test_cut_record(void **state)
{
    (void)state;
    struct raw r;
    uint8_t key[13];
    char copy[512];
    ten_entries(false);
    raw_open(&r);
    MDB_val k = raw_key(key, 3), v;
    assert_int_equal(mdb_get(r.txn, r.dbi, &k, &v), 0);
    memcpy(copy, v.mv_data, v.mv_size);
    MDB_val w = { v.mv_size - 1, copy };
    assert_int_equal(mdb_put(r.txn, r.dbi, &k, &w, 0), 0);
    raw_close(&r);
    assert_int_equal(reopen(), -ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "entry 3"));
}

static void test_missing_records(void **state)
{
    static const uint8_t which[] = { 10, 5, 1 };
    (void)state;
    ten_entries(false);
    for (unsigned i = 0; i < 3; i++) {
        struct raw r;
        uint8_t key[13];
        char want[64], copy[512];
        raw_open(&r);
        MDB_val k = raw_key(key, which[i]), v;
        assert_int_equal(mdb_get(r.txn, r.dbi, &k, &v), 0);
        size_t n = v.mv_size;
        memcpy(copy, v.mv_data, n);
        assert_int_equal(mdb_del(r.txn, r.dbi, &k, NULL), 0);
        raw_close(&r);
        assert_int_equal(reopen(), -ERR_CORRUPT);
        snprintf(want, sizeof want, "entry %u part 0 is missing", which[i]);
        assert_non_null(strstr(e.msg, want));
        raw_open(&r);
        MDB_val w = { n, copy };
        assert_int_equal(mdb_put(r.txn, r.dbi, &k, &w, 0), 0);
        raw_close(&r);
    }
    assert_int_equal(reopen(), 0);
    for (uint8_t key = 1; key <= 3; key++) {
        struct raw r;
        char copy[512];
        raw_open(&r);
        MDB_val k = { 1, &key }, v;
        assert_int_equal(mdb_get(r.txn, r.dbi, &k, &v), 0);
        size_t n = v.mv_size;
        memcpy(copy, v.mv_data, n);
        assert_int_equal(mdb_del(r.txn, r.dbi, &k, NULL), 0);
        raw_close(&r);
        assert_int_equal(reopen(), -ERR_CORRUPT);
        assert_non_null(strstr(e.msg, "is missing"));
        raw_open(&r);
        MDB_val w = { n, copy };
        assert_int_equal(mdb_put(r.txn, r.dbi, &k, &w, 0), 0);
        raw_close(&r);
    }
}

/* In a process of its own: an environment that broke under LMDB is abandoned, with what it holds. 0 intact, 1 refused.
 */
static int open_in_child(void)
{
    int st;
    pid_t pid = fork();
    if (pid == 0) {
        struct raft_log *l = NULL;
        struct buf b = BUF_INIT;
        struct raft_log_entry en;
        int r = raft_log_open(&l, test_dir, &e);
        for (uint64_t i = 2; r == 0 && i <= 10; i++)
            if (raft_log_read(l, i, &b, &en, &e) < 0 || !str_eq(en.data, STR("what an entry says")))
                _exit(3);
        _exit(r == 0 ? 0 : r == -ERR_CORRUPT ? 1 : 2);
    }
    assert_int_equal(waitpid(pid, &st, 0), pid);
    assert_true(WIFEXITED(st));
    return WEXITSTATUS(st);
}

/* Any byte of the file: refused, or of no importance. Never a crash. */
static void test_damaged_file(void **state)
{
    (void)state;
    ten_entries(false);
    static char whole[1 << 20];
    size_t n = test_read("log/data.mdb", whole, sizeof whole), refused = 0;
    for (size_t at = 5; at < n; at += 61) {
        char c = whole[at];
        whole[at] ^= (char)0xa5;
        test_write("log/data.mdb", whole, n);
        whole[at] = c;
        int r = open_in_child();
        assert_in_range(r, 0, 1);
        refused += r == 1;
    }
    assert_true(refused > 10);
    test_write("log/data.mdb", whole, n);
    assert_int_equal(reopen(), 0);
}

static void test_cut_file(void **state)
{
    (void)state;
    ten_entries(false);
    static char whole[1 << 20];
    size_t n = test_read("log/data.mdb", whole, sizeof whole);
    static const size_t lens[] = { 0, 1, 100, 4096, 8192, 12288 };
    for (unsigned i = 0; i < sizeof lens / sizeof *lens; i++) {
        assert_true(lens[i] < n);
        test_write("log/data.mdb", whole, lens[i]);
        assert_int_equal(reopen(), -ERR_CORRUPT);
        assert_non_null(strstr(e.msg, "data.mdb"));
    }
    test_remove("log/data.mdb");
    assert_int_equal(reopen(), -ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "data.mdb is missing"));
    test_write("log/data.mdb", whole, n);
    assert_int_equal(reopen(), 0);
}

static void test_altered_snapshot(void **state)
{
    (void)state;
    static const char name[] = "log/snap-00000000000000000008";
    static char whole[1 << 20];
    ten_entries(true);
    assert_int_equal(reopen(), 0);
    size_t n = test_read(name, whole, sizeof whole);
    assert_true(n / 2 > SNAPSHOT_CHUNK);
    for (size_t at = 0; at < n; at += n / 23) {
        char c = whole[at];
        whole[at] ^= 1;
        test_write(name, whole, n);
        whole[at] = c;
        assert_int_equal(reopen(), -ERR_CORRUPT);
        assert_non_null(strstr(e.msg, "snap-00000000000000000008"));
    }
    for (size_t len = 0; len < n; len += n / 7) {
        test_write(name, whole, len);
        assert_int_equal(reopen(), -ERR_CORRUPT);
        assert_non_null(strstr(e.msg, "chunk"));
    }
    /* cut exactly behind the first chunk */
    test_write(name, whole, 4 + SNAPSHOT_CHUNK + SEAL_OVERHEAD);
    assert_int_equal(reopen(), -ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "chunk 1 is missing"));
    whole[n] = 0;
    test_write(name, whole, n + 1);
    assert_int_equal(reopen(), -ERR_CORRUPT);
    test_remove(name);
    assert_int_equal(reopen(), -ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "is missing"));
    test_write(name, whole, n);
    assert_int_equal(reopen(), 0);
}

static void test_erase(void **state)
{
    (void)state;
    ten_entries(true);
    assert_int_equal(raft_log_erase(test_dir, &e), 0);
    assert_false(raft_log_exists(test_dir));
    assert_int_equal(raft_log_erase(test_dir, &e), 0);
    raft_log_close(create());
    struct raft_hard_state hs = { 1, 42 };
    assert_int_equal(raft_log_create(test_dir, &id, &hs, STR("first"), &e), -ERR_PRECONDITION);
    assert_int_equal(reopen(), 0);
}

static void test_nothing_in_the_clear(void **state)
{
    (void)state;
    static char whole[1 << 20];
    ten_entries(false);
    size_t n = test_read("log/data.mdb", whole, sizeof whole);
    assert_null(memmem(whole, n, "what an entry says", 10));
    assert_null(memmem(whole, n, "cluster1", 8));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, test_dir_make, test_dir_remove)
    const struct CMUnitTest tests[] = {
        T(test_write_and_reopen),
        T(test_truncate_tail),
        T(test_large_entry),
        T(test_compaction),
        T(test_keys),
        T(test_swapped_records),
        T(test_altered_record),
        T(test_cut_record),
        T(test_missing_records),
        T(test_damaged_file),
        T(test_cut_file),
        T(test_altered_snapshot),
        T(test_erase),
        T(test_nothing_in_the_clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
