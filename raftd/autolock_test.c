/* autolock_test.c - the keys on the disk follow the credential, and not too early. */
#include "raftd/autolock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/proto/mp.h"
#include "raftd/entry.h"
#include "raftd/test_dir.h"

static struct sm *sm;
static struct raft_log *l;
static struct autolock a;
static struct err e;
static uint64_t index_;
static char raft_path[512], run_path[512], text[2][SEAL_UNLOCK_TEXT_SIZE];
static const struct raft_log_identity id = { "cluster1", "node1", 77 };

static void on_touch(void *arg, enum kind kind, struct str oid, char op, uint64_t revision)
{
    (void)arg, (void)op, (void)revision;
    autolock_touch(&a, kind, oid);
}

static void open_maps(void)
{
    struct sm_conf c = { .run_dir = run_path, .secret_private = true, .secret_gid = (gid_t)-1 };
    struct err why;
    bool fresh;
    assert_int_equal(sm_open(&sm, &c, &id, 1, index_, &fresh, &why, &e), 0);
    sm_on_touch(sm, on_touch, NULL);
    if (fresh)
        assert_int_equal(sm_publish(sm, &e), 0);
}

static int setup(void **state)
{
    struct raft_hard_state hs = { 1, 77 };
    struct raft_log_entry en = { 1, 1, RAFT_ENTRY_NOOP, { NULL, 0 } };
    struct seal_key k[2] = { { { 1 } }, { { 2 } } };
    if (test_dir_make(state) < 0)
        return -1;
    index_ = 0;
    test_path(raft_path, "raft");
    test_path(run_path, "run");
    mkdir(raft_path, 0700);
    mkdir(run_path, 0700);
    for (int i = 0; i < 2; i++)
        seal_unlock_text(&k[i], text[i]);
    open_maps();
    if (raft_log_create_with(raft_path, &id, &hs, &en, 1, &e) < 0 || raft_log_open(&l, raft_path, &e) < 0)
        return -1;
    autolock_open(&a, l);
    return 0;
}

static int teardown(void **state)
{
    sm = sm_close(sm);
    l = raft_log_close(l);
    return test_dir_remove(state);
}

static void apply(enum raft_entry_type type, struct str data)
{
    struct raft_log_entry le = { ++index_, 1, type, data };
    struct err result;
    uint64_t revision;
    assert_int_equal(sm_begin(sm, &e), 0);
    assert_int_equal(sm_apply(sm, &le, &result, &revision, &e), 0);
    assert_int_equal(result.code, 0);
    assert_int_equal(sm_commit(sm, &e), 0);
}

static void credential(const char *op, const char *key)
{
    struct buf doc = BUF_INIT, enc = BUF_INIT;
    mp_map(&doc, 1);
    mp_kv_cstr(&doc, "Key", key ? key : "");
    struct txn_change ch = { str_from(op), STR("credential"), STR(STORE_UNLOCK_KEY_ID), { NULL, 0 } };
    if (key != NULL)
        ch.Doc = buf_str(&doc);
    struct entry en = { .At = 1, .By = STR("cad"), .Changes = { &ch, 1 } };
    entry_encode(&en, &enc);
    apply(RAFT_ENTRY_DATA, buf_str(&enc));
    buf_done(&doc);
    buf_done(&enc);
}

static int unlock(const char *key)
{
    struct raft_log *again = NULL;
    int r = autolock_unlock(&again, raft_path, str_from(key), &e);
    raft_log_close(again);
    return r;
}

static void test_follows(void **state)
{
    (void)state;
    apply(RAFT_ENTRY_NOOP, (struct str){ NULL, 0 });
    assert_int_equal(autolock_follow(&a, sm, l, &e), 0);
    assert_false(raft_log_locked(raft_path));
    assert_int_equal(a.epoch, 0);
    credential("create", text[0]);
    assert_true(a.due);
    assert_int_equal(autolock_follow(&a, sm, l, &e), 0);
    assert_true(raft_log_locked(raft_path));
    assert_int_equal(a.epoch, 1);
    assert_int_equal(unlock(text[1]), -ERR_DENIED);
    assert_string_equal(e.msg, "invalid key");
    assert_int_equal(unlock("nonsense"), -ERR_DENIED);
    assert_int_equal(unlock(text[0]), 0);
    credential("update", text[1]);
    assert_int_equal(autolock_follow(&a, sm, l, &e), 0);
    assert_int_equal(a.epoch, 2);
    assert_int_equal(unlock(text[0]), -ERR_DENIED);
    assert_int_equal(unlock(text[1]), 0);
    credential("delete", NULL);
    assert_int_equal(autolock_follow(&a, sm, l, &e), 0);
    assert_int_equal(a.epoch, 0);
    assert_false(raft_log_locked(raft_path));
    assert_int_equal(unlock(text[1]), -ERR_DENIED);
}

/* Entries of the log that are not applied yet may hold the key: an older map must not unlock what is locked. */
static void test_not_before_all_is_applied(void **state)
{
    (void)state;
    apply(RAFT_ENTRY_NOOP, (struct str){ NULL, 0 });
    credential("create", text[0]);
    assert_int_equal(autolock_follow(&a, sm, l, &e), 0);
    assert_true(raft_log_locked(raft_path));
    struct raft_log_entry more = { 2, 1, RAFT_ENTRY_NOOP, { NULL, 0 } };
    struct raft_log_write w = { .entries = &more, .n_entries = 1 };
    assert_int_equal(raft_log_write(l, &w, &e), 0);
    sm_close(sm);
    test_tree_remove(run_path);
    mkdir(run_path, 0700);
    index_ = 0;
    open_maps();
    autolock_open(&a, l);
    apply(RAFT_ENTRY_NOOP, (struct str){ NULL, 0 });
    assert_int_equal(autolock_follow(&a, sm, l, &e), 0);
    assert_true(raft_log_locked(raft_path)); /* entry 2 is still to come */
    assert_true(a.due);
    credential("create", text[0]);
    assert_int_equal(autolock_follow(&a, sm, l, &e), 0);
    assert_false(a.due);
    assert_int_equal(unlock(text[0]), 0);
}

/* What the node's TLS key is sealed with stays the same, whichever unlock key opens the store. */
static void test_node_key_stays(void **state)
{
    char before[SEAL_NODE_KEY_SIZE], after[SEAL_NODE_KEY_SIZE];
    struct raft_log *again = NULL;
    struct seal_key other;
    (void)state;
    seal_node_key(raft_log_key(l), before);
    assert_int_equal(strlen(before), SEAL_NODE_KEY_SIZE - 1);
    apply(RAFT_ENTRY_NOOP, (struct str){ NULL, 0 });
    credential("create", text[0]);
    assert_int_equal(autolock_follow(&a, sm, l, &e), 0);
    credential("update", text[1]);
    assert_int_equal(autolock_follow(&a, sm, l, &e), 0);
    l = raft_log_close(l);
    assert_int_equal(autolock_unlock(&again, raft_path, str_from(text[1]), &e), 0);
    l = again;
    seal_node_key(raft_log_key(l), after);
    assert_string_equal(before, after);
    other = *raft_log_key(l);
    other.b[0] ^= 1;
    seal_node_key(&other, after);
    assert_string_not_equal(before, after);
    assert_null(memmem(before, sizeof before, raft_log_key(l)->b, sizeof other.b));
}

static void test_no_key_in_it(void **state)
{
    (void)state;
    credential("create", "SWMKEY-1-not");
    assert_int_equal(autolock_follow(&a, sm, l, &e), -ERR_INVALID);
    assert_false(a.due);                      /* trying again would not help */
    assert_false(raft_log_locked(raft_path)); /* as it was */
    credential("update", text[0]);
    assert_int_equal(autolock_follow(&a, sm, l, &e), 0);
    assert_int_equal(unlock(text[0]), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_follows),
        T(test_not_before_all_is_applied),
        T(test_node_key_stays),
        T(test_no_key_in_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
