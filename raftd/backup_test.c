/* backup_test.c - a backup made while writes go on is the store of one moment, and nothing else opens or alters it. */
#include "raftd/backup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/proto/mp.h"
#include "raftd/entry.h"
#include "raftd/members.h"
#include "raftd/test_dir.h"

static struct sm *sm;
static struct err e;
static uint64_t index_;
static const struct raft_log_identity id = { "cluster1", "node1", 77 };
static struct buf made = BUF_INIT;

static struct sm *open_maps(const char *sub, const struct raft_log_identity *who, uint64_t first, uint64_t last)
{
    static char dir[512];
    struct sm *ret = NULL;
    struct err why;
    bool fresh;
    test_path(dir, sub);
    mkdir(dir, 0700);
    struct sm_conf c = { .run_dir = dir, .secret_private = true, .secret_gid = (gid_t)-1 };
    assert_int_equal(sm_open(&ret, &c, who, first, last, &fresh, &why, &e), 0);
    assert_true(fresh);
    return ret;
}

static int setup(void **state)
{
    if (test_dir_make(state) < 0)
        return -1;
    index_ = 0;
    sm = open_maps("run", &id, 1, 0);
    return sm_publish(sm, &e);
}

static int teardown(void **state)
{
    sm = sm_close(sm);
    buf_done(&made);
    return test_dir_remove(state);
}

static void put(const char *kind, unsigned n, size_t bytes)
{
    char oid[32];
    char *big = calloc(1, bytes + 1);
    struct buf doc = BUF_INIT, enc = BUF_INIT;
    struct err result;
    uint64_t revision;
    snprintf(oid, sizeof oid, "id%05u", n);
    memset(big, 'a' + (int)(n % 26), bytes);
    mp_map(&doc, 1);
    mp_cstr(&doc, "Data");
    mp_bin(&doc, (struct str){ big, bytes });
    struct txn_change ch = { STR("create"), str_from(kind), str_from(oid), buf_str(&doc) };
    struct entry en = { .At = 1, .By = STR("apid"), .Changes = { &ch, 1 } };
    entry_encode(&en, &enc);
    struct raft_log_entry le = { ++index_, 3, RAFT_ENTRY_DATA, buf_str(&enc) };
    assert_int_equal(sm_begin(sm, &e), 0);
    assert_int_equal(sm_apply(sm, &le, &result, &revision, &e), 0);
    assert_int_equal(result.code, 0);
    assert_int_equal(sm_commit(sm, &e), 0);
    buf_done(&doc);
    buf_done(&enc);
    free(big);
}

static void fill(void)
{
    for (unsigned i = 0; i < 2000; i++)
        put("task", i, 100 + i % 400);
    put("credential", 1, 2000);
    put("secret", 1, 700000); /* over several chunks */
}

static void make(const char *pass)
{
    struct backup *b = NULL;
    struct str page;
    bool last = false;
    unsigned pages = 0;
    buf_clear(&made);
    assert_int_equal(backup_begin(&b, sm, &id, str_from(pass), &e), 0);
    while (!last) {
        assert_int_equal(backup_page(b, made.n, &page, &last, &e), 0);
        struct str again;
        bool l;
        assert_int_equal(backup_page(b, made.n, &again, &l, &e), 0); /* the answer was lost */
        assert_true(str_eq(page, again) && l == last);
        assert_int_equal(backup_page(b, made.n + 1, &again, &l, &e), -ERR_INVALID);
        buf_put(&made, page.p, page.n);
        put("task", 100000 + pages++, 3000); /* writes go on */
    }
    assert_true(pages > 2);
    backup_free(b);
}

static void raft_dir(char path[512])
{
    test_path(path, "raft");
    mkdir(path, 0700);
}

/* restore - in pages of `step` bytes. */
static int restore(const char *pass, size_t step)
{
    char dir[512];
    struct restore *r = NULL;
    int rc = 0;
    raft_dir(dir);
    assert_int_equal(restore_begin(&r, dir, str_from(pass), &e), 0);
    for (size_t at = 0; rc == 0 && at < made.n; at += step) {
        struct str page = { made.p + at, made.n - at < step ? made.n - at : step };
        rc = restore_put(r, at, page, &e);
        if (rc == 0 && at % 3 == 0)
            assert_int_equal(restore_put(r, at, page, &e), 0);
        if (rc == 0)
            assert_int_equal(restore_put(r, at + page.n + 1, page, &e), -ERR_INVALID);
    }
    if (rc == 0)
        rc = restore_finish(r, STR("node9"), STR("10.0.0.9:2377"), &e);
    restore_free(r);
    assert_true(test_missing("raft/restore.tmp"));
    return rc;
}

static void test_there_and_back(void **state)
{
    (void)state;
    static const size_t steps[] = { 1u << 20, 100000, 4093 };
    char dir[512];
    fill();
    make("correct horse");
    raft_dir(dir);
    for (unsigned i = 0; i < 3; i++) {
        struct raft_log *l = NULL;
        struct raft_log_state st;
        struct members m;
        struct buf b = BUF_INIT;
        assert_int_equal(restore("correct horse", steps[i]), 0);
        assert_int_equal(raft_log_open(&l, dir, &e), 0);
        raft_log_state(l, &st);
        assert_int_equal(st.snapshot_index, 2002);
        assert_int_equal(st.snapshot_term, 3);
        assert_int_equal(st.hard_state.term, 4);
        assert_string_equal(raft_log_identity(l)->cluster_id, "cluster1");
        assert_string_equal(raft_log_identity(l)->node_id, "node9");
        struct sm *copy = open_maps("run2", raft_log_identity(l), st.first_index, st.last_index);
        assert_int_equal(sm_restore(copy, raft_log_dir(l), raft_log_key(l), 2002, 3, &e), 0);
        assert_int_equal(sm_count(copy, KIND_TASK), 2000); /* none of those written meanwhile */
        assert_int_equal(sm_revision(copy), 2002);
        assert_int_equal(sm_get(copy, KIND_SECRET, STR("id00001"), &b, &e), 0);
        assert_true(b.n > 700000);
        buf_clear(&b);
        assert_int_equal(sm_get(copy, KIND_CREDENTIAL, STR("id00001"), &b, &e), 0);
        buf_clear(&b);
        sm_members(copy, &b);
        assert_int_equal(members_decode(&m, buf_str(&b), &e), 0);
        assert_int_equal(m.n, 1);
        assert_string_equal(m.v[0].node, "node9");
        assert_int_equal(m.v[0].id, raft_log_identity(l)->id);
        buf_done(&b);
        sm_close(copy);
        raft_log_close(l);
        struct restore *r = NULL;
        assert_int_equal(restore_begin(&r, dir, STR("x"), &e), -ERR_PRECONDITION);
        assert_int_equal(raft_log_erase(dir, &e), 0);
        char run[512];
        test_path(run, "run2");
        test_tree_remove(run);
    }
}

static void test_empty_store(void **state)
{
    (void)state;
    put("cluster", 1, 10);
    struct backup *b = NULL;
    struct str page;
    bool last;
    assert_int_equal(backup_begin(&b, sm, &id, STR(""), &e), -ERR_INVALID);
    assert_int_equal(backup_begin(&b, sm, &id, STR("p"), &e), 0);
    assert_int_equal(backup_page(b, 0, &page, &last, &e), 0);
    assert_true(last);
    buf_put(&made, page.p, page.n);
    backup_free(b);
    assert_int_equal(restore("p", 100), 0);
}

static void test_wrong_passphrase(void **state)
{
    (void)state;
    fill();
    make("one");
    assert_int_equal(restore("two", 1u << 20), -ERR_DENIED);
    assert_non_null(strstr(e.msg, "passphrase is wrong"));
    assert_true(test_missing("raft/log"));
}

static void test_sealed(void **state)
{
    (void)state;
    fill();
    make("one");
    assert_null(memmem(made.p, made.n, "aaaaaaaaaaaa", 12));
    assert_null(memmem(made.p, made.n, "cluster1", 8));
    assert_null(memmem(made.p, made.n, "revision", 8));
}

/* Any byte altered, any cut, chunks swapped: refused, and nothing is left. */
static void test_altered(void **state)
{
    (void)state;
    fill();
    make("one");
    size_t n = made.n;
    for (size_t at = 0; at < n; at += at < 40 ? 3 : n / 29) {
        made.p[at] ^= 0x20;
        int r = restore("one", 1u << 20);
        assert_true(r == -ERR_CORRUPT || r == -ERR_DENIED || r == -ERR_INVALID);
        assert_true(test_missing("raft/log"));
        made.p[at] ^= 0x20;
    }
    for (size_t len = 0; len < n; len += n / 13) {
        made.n = len;
        assert_int_equal(restore("one", 1u << 20), -ERR_CORRUPT);
        assert_non_null(strstr(e.msg, "cut short"));
    }
    made.n = 32 + 4 + (128u << 10) + SEAL_OVERHEAD; /* exactly behind the first chunk */
    assert_int_equal(restore("one", 1u << 20), -ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "cut short behind chunk 1"));
    made.n = n;
    buf_putc(&made, 0);
    assert_int_equal(restore("one", 7u << 20), -ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "behind the end"));
    made.n = n;
    size_t c = 4 + (128u << 10) + SEAL_OVERHEAD; /* chunks 1 and 2 */
    for (size_t i = 0; i < c; i++) {
        char t = made.p[32 + c + i];
        made.p[32 + c + i] = made.p[32 + 2 * c + i];
        made.p[32 + 2 * c + i] = t;
    }
    assert_int_equal(restore("one", 1u << 20), -ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "chunk 1 of the backup belongs elsewhere"));
}

static void test_not_a_backup(void **state)
{
    (void)state;
    buf_puts(&made, "this is just some text that is longer than the header of a backup");
    assert_int_equal(restore("one", 10), -ERR_INVALID);
    assert_non_null(strstr(e.msg, "not a backup"));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_there_and_back), T(test_empty_store), T(test_wrong_passphrase),
        T(test_sealed),         T(test_altered),     T(test_not_a_backup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
