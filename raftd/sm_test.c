/* sm_test.c - what a transaction does to the maps, and what it does not do when it does not hold. */
#include "raftd/sm.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "common/store/store.h"
#include "raftd/entry.h"
#include "raftd/sm_priv.h"
#include "raftd/test_dir.h"

static struct sm *sm;
static struct err e, result;
static uint64_t index_, revision;
static const struct raft_log_identity id = { "c1", "n1", 77 };
static uint64_t log_keep, log_bytes, map_bytes;

static struct sm_conf conf(void)
{
    return (struct sm_conf){ .run_dir = test_dir,
                             .secret_private = true,
                             .secret_gid = (gid_t)-1,
                             .log_keep = log_keep,
                             .log_bytes_max = log_bytes,
                             .map_bytes = map_bytes };
}

static bool open_maps(uint64_t last)
{
    struct sm_conf c = conf();
    struct err why;
    bool fresh;
    assert_int_equal(sm_open(&sm, &c, &id, 1, last, &fresh, &why, &e), 0);
    if (!sm_published(sm))
        assert_int_equal(sm_publish(sm, &e), 0);
    index_ = sm_applied(sm);
    return fresh;
}

static int setup(void **state)
{
    log_keep = log_bytes = map_bytes = 0;
    return test_dir_make(state) < 0 ? -1 : (open_maps(0), 0);
}

static int teardown(void **state)
{
    sm = sm_close(sm);
    return test_dir_remove(state);
}

/* ---- building transactions ---- */

static struct txn_require req[16];
#define CHANGES_MAX 1000
static struct txn_change chg[CHANGES_MAX];
static size_t nreq, nchg;
static struct buf docs[CHANGES_MAX];

static void require(const char *test, const char *kind, const char *oid, uint64_t value)
{
    req[nreq++] = (struct txn_require){ str_from(kind), str_from(oid), str_from(test), value };
}

static struct buf *change(const char *op, const char *kind, const char *oid)
{
    struct buf *b = &docs[nchg];
    buf_clear(b);
    chg[nchg++] = (struct txn_change){ str_from(op), str_from(kind), str_from(oid), { NULL, 0 } };
    return b;
}

static void named(const char *op, const char *kind, const char *oid, const char *name)
{
    struct buf *b = change(op, kind, oid);
    mp_map(b, 1);
    mp_cstr(b, "Spec");
    mp_map(b, 1);
    mp_kv_cstr(b, "Name", name);
    chg[nchg - 1].Doc = buf_str(b);
}

static void field(const char *op, const char *kind, const char *oid, const char *name, const char *val)
{
    struct buf *b = change(op, kind, oid);
    mp_map(b, 1);
    mp_kv_cstr(b, name, val);
    chg[nchg - 1].Doc = buf_str(b);
}

static int64_t now = 1000;

static int commit_term(uint64_t fence, uint64_t term)
{
    struct entry en = {
        .At = now, .By = STR("apid"), .Term = fence, .Requires = { req, nreq }, .Changes = { chg, nchg }
    };
    struct buf b = BUF_INIT;
    entry_encode(&en, &b);
    struct raft_log_entry le = { ++index_, term, RAFT_ENTRY_DATA, buf_str(&b) };
    assert_int_equal(sm_begin(sm, &e), 0);
    assert_int_equal(sm_apply(sm, &le, &result, &revision, &e), 0);
    assert_int_equal(sm_commit(sm, &e), 0);
    buf_done(&b);
    nreq = nchg = 0;
    return -result.code;
}

static int commit(void)
{
    return commit_term(0, 1);
}

static struct buf got = BUF_INIT;

static struct str doc(const char *kind, const char *oid)
{
    buf_clear(&got);
    assert_int_equal(sm_get(sm, kind_by_name(kind, strlen(kind)), str_from(oid), &got, &e), 0);
    return buf_str(&got);
}

static bool missing(const char *kind, const char *oid)
{
    buf_clear(&got);
    return sm_get(sm, kind_by_name(kind, strlen(kind)), str_from(oid), &got, &e) == -ERR_NOT_FOUND;
}

static uint64_t number(const char *kind, const char *oid, const char *path)
{
    uint64_t v = 0;
    assert_true(mp_get_u64(doc(kind, oid), path, &v));
    return v;
}

static void assert_text(const char *kind, const char *oid, const char *path, const char *want)
{
    struct str s;
    assert_true(mp_get_str(doc(kind, oid), path, &s));
    assert_true(str_is(s, want));
}

/* ---- tests ---- */

static void test_stamps(void **state)
{
    (void)state;
    now = 1000;
    named("create", "service", "s1", "web");
    assert_int_equal(commit(), 0);
    assert_int_equal(revision, 1);
    assert_text("service", "s1", "ID", "s1");
    assert_int_equal(number("service", "s1", "Version.Index"), 1);
    assert_int_equal(number("service", "s1", "Rev"), 1);
    assert_int_equal(number("service", "s1", "CreatedAt"), 1000);
    now = 2000;
    field("update", "service", "s1", "UpdateStatus", "x"); /* not the spec */
    assert_int_equal(commit(), 0);
    assert_int_equal(number("service", "s1", "Version.Index"), 1);
    assert_int_equal(number("service", "s1", "Rev"), 2);
    assert_int_equal(number("service", "s1", "CreatedAt"), 1000);
    assert_int_equal(number("service", "s1", "UpdatedAt"), 2000);
    named("update", "service", "s1", "web2");
    assert_int_equal(commit(), 0);
    assert_int_equal(number("service", "s1", "Version.Index"), 3);
    assert_text("service", "s1", "UpdateStatus", "x"); /* others' fields stay */
}

static void test_stamps_are_not_for_writers(void **state)
{
    (void)state;
    named("create", "service", "s1", "web");
    struct buf *b = change("create", "config", "k1");
    mp_map(b, 4);
    mp_kv_cstr(b, "ID", "forged");
    mp_kv_u64(b, "Rev", 999);
    mp_kv_u64(b, "CreatedAt", 999);
    mp_kv_cstr(b, "Other", "kept");
    chg[1].Doc = buf_str(b);
    assert_int_equal(commit(), 0);
    assert_text("config", "k1", "ID", "k1");
    assert_text("config", "k1", "Other", "kept");
    assert_int_equal(number("config", "k1", "Rev"), 1);
    b = change("update", "service", "s1");
    mp_map(b, 2);
    mp_kv_u64(b, "Rev", 999);
    mp_kv_cstr(b, "ID", "forged");
    chg[0].Doc = buf_str(b);
    assert_int_equal(commit(), 0);
    assert_text("service", "s1", "ID", "s1");
    assert_int_equal(number("service", "s1", "Rev"), 2);
}

static void test_nil_removes_a_field(void **state)
{
    (void)state;
    field("create", "task", "t1", "NodeID", "n1");
    assert_int_equal(commit(), 0);
    struct buf *b = change("update", "task", "t1");
    mp_map(b, 1);
    mp_cstr(b, "NodeID");
    mp_nil(b);
    chg[0].Doc = buf_str(b);
    assert_int_equal(commit(), 0);
    struct str s;
    assert_false(mp_get_str(doc("task", "t1"), "NodeID", &s));
}

static void test_existence(void **state)
{
    (void)state;
    field("merge", "task", "t1", "NodeID", "n1");
    change("purge", "task", "t1");
    assert_int_equal(commit(), 0);
    assert_true(missing("task", "t1"));
    assert_int_equal(sm_revision(sm), 0); /* nothing changed */
    field("update", "task", "t1", "NodeID", "n1");
    assert_int_equal(commit(), -ERR_CONFLICT);
    assert_string_equal(result.msg, "task t1 does not exist any more");
    change("delete", "task", "t1");
    assert_int_equal(commit(), -ERR_NOT_FOUND);
    field("create", "task", "t1", "NodeID", "n1");
    assert_int_equal(commit(), 0);
    field("create", "task", "t1", "NodeID", "n2");
    assert_int_equal(commit(), -ERR_CONFLICT);
    assert_string_equal(result.msg, "task t1 already exists");
    assert_text("task", "t1", "NodeID", "n1");
    field("merge", "task", "t1", "NodeID", "n3");
    assert_int_equal(commit(), 0);
    assert_text("task", "t1", "NodeID", "n3");
    change("delete", "task", "t1");
    assert_int_equal(commit(), 0);
    assert_true(missing("task", "t1"));
}

static void test_requires(void **state)
{
    (void)state;
    named("create", "service", "s1", "web");
    assert_int_equal(commit(), 0);
    require("version", "service", "s1", 1);
    require("rev", "service", "s1", 1);
    require("exists", "service", "s1", 0);
    require("absent", "service", "s2", 0);
    named("update", "service", "s1", "web2");
    assert_int_equal(commit(), 0);
    require("version", "service", "s1", 1);
    named("update", "service", "s1", "web3");
    assert_int_equal(commit(), -ERR_CONFLICT);
    assert_string_equal(result.msg, "update out of sequence");
    require("rev", "service", "s1", 1);
    assert_int_equal(commit(), -ERR_CONFLICT);
    require("exists", "service", "s2", 0);
    assert_int_equal(commit(), -ERR_NOT_FOUND);
    assert_string_equal(result.msg, "service s2 not found");
    require("absent", "service", "s1", 0);
    assert_int_equal(commit(), -ERR_CONFLICT);
    assert_text("service", "s1", "Spec.Name", "web2");
}

static void test_unique_names(void **state)
{
    (void)state;
    named("create", "service", "s1", "web");
    assert_int_equal(commit(), 0);
    named("create", "service", "s2", "WEB");
    assert_int_equal(commit(), -ERR_CONFLICT);
    assert_string_equal(result.msg, "name conflicts with an existing object: service WEB already exists");
    named("create", "service", "s2", "web");
    assert_int_equal(commit(), -ERR_CONFLICT);
    assert_string_equal(result.msg, "name conflicts with an existing object: service web already exists");
    named("update", "service", "s1", "Web"); /* its own name */
    assert_int_equal(commit(), 0);
    named("create", "service", "s2", "web1"); /* a prefix is another name */
    named("create", "network", "x1", "web");  /* so is another kind */
    assert_int_equal(commit(), 0);
    named("update", "service", "s2", "web");
    assert_int_equal(commit(), -ERR_CONFLICT);
    change("delete", "service", "s1");
    named("update", "service", "s2", "web"); /* free within the same transaction */
    assert_int_equal(commit(), 0);
    named("create", "service", "s3", "a");
    named("create", "service", "s4", "A"); /* taken within the same transaction */
    assert_int_equal(commit(), -ERR_CONFLICT);
    assert_true(missing("service", "s3"));
}

static void test_reservation(void **state)
{
    (void)state;
    field("create", "reservation", "port/tcp/8080", "OwnerID", "s1");
    assert_int_equal(commit(), 0);
    field("create", "reservation", "port/tcp/8080", "OwnerID", "s2");
    assert_int_equal(commit(), -ERR_CONFLICT);
    assert_string_equal(result.msg, "reservation port/tcp/8080 is already taken by s1");
}

static void service_with_secret(const char *oid, const char *name, const char *secret)
{
    struct buf *b = change("create", "service", oid);
    mp_map(b, 1);
    mp_cstr(b, "Spec");
    mp_map(b, 2);
    mp_kv_cstr(b, "Name", name);
    mp_cstr(b, "TaskTemplate");
    mp_map(b, 1);
    mp_cstr(b, "ContainerSpec");
    mp_map(b, 1);
    mp_cstr(b, "Secrets");
    mp_array(b, 2);
    for (int i = 0; i < 2; i++) { /* the same one twice is one reference */
        mp_map(b, 1);
        mp_kv_cstr(b, "SecretID", secret);
    }
    chg[nchg - 1].Doc = buf_str(b);
}

static void test_references(void **state)
{
    (void)state;
    named("create", "secret", "x1", "key");
    service_with_secret("s1", "web", "x1");
    assert_int_equal(commit(), 0);
    require("unreferenced", "secret", "x1", 0);
    change("delete", "secret", "x1");
    assert_int_equal(commit(), -ERR_PRECONDITION);
    assert_string_equal(result.msg, "secret 'key' is in use by the following service: web");
    service_with_secret("s2", "db", "x1");
    assert_int_equal(commit(), 0);
    require("unreferenced", "secret", "x1", 0);
    assert_int_equal(commit(), -ERR_PRECONDITION);
    assert_string_equal(result.msg, "secret 'key' is in use by the following services: web, db");
    change("delete", "service", "s1");
    change("delete", "service", "s2");
    assert_int_equal(commit(), 0);
    require("unreferenced", "secret", "x1", 0);
    change("delete", "secret", "x1");
    assert_int_equal(commit(), 0);
}

/* A change that does not hold takes back all before it: documents, indexes, both maps, no trace in the change log. */
static void test_all_or_nothing(void **state)
{
    (void)state;
    named("create", "service", "s1", "web");
    field("create", "task", "t1", "ServiceID", "s1");
    field("create", "credential", "k1", "Data", "old");
    assert_int_equal(commit(), 0);
    named("update", "service", "s1", "other");
    field("update", "task", "t1", "ServiceID", "s2");
    field("update", "credential", "k1", "Data", "new");
    field("create", "credential", "k2", "Data", "new");
    change("delete", "task", "t1");
    field("create", "task", "t1", "ServiceID", "s3");
    named("create", "config", "g1", "conf");
    field("update", "task", "nowhere", "NodeID", "n");
    assert_int_equal(commit(), -ERR_CONFLICT);
    assert_int_equal(sm_revision(sm), 1);
    assert_text("service", "s1", "Spec.Name", "web");
    assert_text("task", "t1", "ServiceID", "s1");
    assert_text("credential", "k1", "Data", "old");
    assert_true(missing("credential", "k2"));
    assert_true(missing("config", "g1"));
    assert_int_equal(number("task", "t1", "Rev"), 1);
    named("create", "service", "s2", "other"); /* the name in the index went, too */
    named("create", "config", "g2", "conf");
    assert_int_equal(commit(), 0);
    named("create", "service", "s3", "web"); /* and the old one came back */
    assert_int_equal(commit(), -ERR_CONFLICT);
}

static void test_fence(void **state)
{
    (void)state;
    named("create", "service", "s1", "web");
    assert_int_equal(commit_term(4, 5), -ERR_CONFLICT);
    assert_string_equal(result.msg, "the leader has changed: term 4 is over");
    named("create", "service", "s1", "web");
    assert_int_equal(commit_term(5, 5), 0);
}

static void test_malformed_entries(void **state)
{
    (void)state;
    static const char *const bad[] = { "", "\xc1", "\x80\x80", "\x81\xa2\x41\x74\xcb", "nonsense" };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct raft_log_entry le = { index_ + 1, 1, RAFT_ENTRY_DATA, str_from(bad[i]) };
        assert_int_equal(sm_begin(sm, &e), 0);
        assert_true(sm_apply(sm, &le, &result, &revision, &e) < 0);
        sm_abort(sm);
        assert_int_equal(sm_applied(sm), index_);
    }
    struct raft_log_entry other = { index_ + 1, 1, RAFT_ENTRY_MEMBERS, { NULL, 0 } };
    assert_int_equal(sm_begin(sm, &e), 0);
    assert_int_equal(sm_apply(sm, &other, &result, &revision, &e), -ERR_CORRUPT);
    sm_abort(sm);
    other.type = 9;
    assert_int_equal(sm_begin(sm, &e), 0);
    assert_int_equal(sm_apply(sm, &other, &result, &revision, &e), -ERR_UNIMPLEMENTED);
    sm_abort(sm);
}

static void test_batch_abort(void **state)
{
    (void)state;
    named("create", "service", "s1", "web");
    assert_int_equal(commit(), 0);
    struct raft_log_entry noop = { index_ + 1, 2, RAFT_ENTRY_NOOP, { NULL, 0 } };
    assert_int_equal(sm_begin(sm, &e), 0);
    assert_int_equal(sm_apply(sm, &noop, &result, &revision, &e), 0);
    sm_abort(sm);
    assert_int_equal(sm_applied(sm), index_);
    assert_int_equal(sm_begin(sm, &e), 0);
    assert_int_equal(sm_apply(sm, &noop, &result, &revision, &e), 0);
    assert_int_equal(sm_commit(sm, &e), 0);
    assert_int_equal(sm_applied(sm), ++index_);
    assert_int_equal(sm_applied_term(sm), 2);
    assert_int_equal(revision, 1);
}

static void test_reopen(void **state)
{
    (void)state;
    named("create", "service", "s1", "web");
    field("create", "credential", "k1", "Data", "x");
    assert_int_equal(commit(), 0);
    assert_int_equal(sm_set_role(sm, 9, true, "n1", &e), 0);
    sm_close(sm);
    assert_false(open_maps(1)); /* kept */
    assert_int_equal(sm_applied(sm), 1);
    assert_int_equal(sm_revision(sm), 1);
    assert_text("credential", "k1", "Data", "x");
    sm_close(sm);
    assert_true(open_maps(0)); /* the log never had entry 1: not the state of this log */
    assert_true(missing("service", "s1"));
}

/* What other processes see: through the library, in a process of its own. */
static int in_reader(int (*fn)(struct store *))
{
    pid_t pid = fork();
    if (pid == 0) {
        struct store *s = NULL;
        int r = store_open(&s, test_dir, true, &e) < 0 ? 100 : fn(s);
        store_close(s);
        _exit(r);
    }
    int st;
    waitpid(pid, &st, 0);
    return WIFEXITED(st) ? WEXITSTATUS(st) : 101;
}

static unsigned seen[3];

static void on_change(void *arg, uint64_t rev, enum kind k, struct str oid, char op)
{
    (void)arg, (void)rev, (void)k, (void)oid;
    seen[op == 'c' ? 0 : op == 'u' ? 1 : 2]++;
}

static int reader_all(struct store *s)
{
    struct store_snap *snap;
    struct store_meta m;
    struct store_iter it;
    struct str oid, d;
    unsigned n = 0;
    if (store_begin(s, &snap, &e) < 0 || store_meta(snap, &m, &e) < 0)
        return 1;
    if (m.revision != 2 || m.term != 9 || !m.leader || !m.initialized || !str_is(m.node_id, "n1") ||
        !str_is(m.cluster_id, "c1") || !str_is(m.leader_id, "n1"))
        return 2;
    if (store_find_name(snap, IX_SERVICE_NAME, STR("WEB"), &oid) < 0 || !str_is(oid, "s1"))
        return 3;
    for (store_each_index(snap, IX_TASK_SERVICE, STR("s1"), &it); store_next(&it);)
        n++;
    if (n != 2)
        return 4;
    if (store_get(snap, KIND_CREDENTIAL, STR("k1"), &d) < 0)
        return 5;
    if (store_changes(snap, 0, on_change, NULL, &e) < 0 || seen[0] != 5 || seen[1] != 1 || seen[2] != 1)
        return 6;
    store_end(snap);
    return 0;
}

static void test_readers(void **state)
{
    (void)state;
    named("create", "service", "s1", "web");
    field("create", "task", "t1", "ServiceID", "s1");
    field("create", "task", "t2", "ServiceID", "s1");
    field("create", "credential", "k1", "Data", "x");
    named("create", "config", "g1", "x");
    assert_int_equal(commit(), 0);
    field("update", "task", "t1", "NodeID", "n1");
    change("delete", "config", "g1");
    assert_int_equal(commit(), 0);
    assert_int_equal(sm_set_role(sm, 9, true, "n1", &e), 0);
    assert_int_equal(in_reader(reader_all), 0);
}

static int reader_gone(struct store *s)
{
    struct store_snap *snap;
    if (store_begin(s, &snap, &e) < 0)
        return 1;
    if (store_changes(snap, 1, on_change, NULL, &e) != -ERR_GONE)
        return 2;
    memset(seen, 0, sizeof seen);
    if (store_changes(snap, 40, on_change, NULL, &e) != 0 || seen[1] != 9)
        return 3;
    store_end(snap);
    return 0;
}

static void test_change_log_is_bounded(void **state)
{
    (void)state;
    sm_close(sm);
    log_keep = 20;
    open_maps(0);
    field("create", "task", "t1", "NodeID", "n");
    assert_int_equal(commit(), 0);
    for (int i = 0; i < 48; i++) {
        field("update", "task", "t1", "NodeID", "m");
        assert_int_equal(commit(), 0);
    }
    assert_int_equal(in_reader(reader_gone), 0);
}

/* In pages: of large transactions, few revisions are kept; a reader is told all of each, in order. */
static int reader_of_many(struct store *s)
{
    struct store_snap *snap;
    struct store_meta m;
    if (store_begin(s, &snap, &e) < 0 || store_meta(snap, &m, &e) < 0)
        return 1;
    if (store_changes(snap, m.revision - 20, on_change, NULL, &e) != -ERR_GONE)
        return 2;
    memset(seen, 0, sizeof seen);
    if (store_changes(snap, m.revision - 1, on_change, NULL, &e) != 0 || seen[0] + seen[1] != CHANGES_MAX)
        return 3;
    store_end(snap);
    return 0;
}

static void test_change_log_is_bounded_in_pages(void **state)
{
    static char names[CHANGES_MAX][16];
    (void)state;
    sm_close(sm);
    log_bytes = 128 << 10;
    open_maps(0);
    for (int i = 0; i < 30; i++) {
        for (int k = 0; k < CHANGES_MAX; k++) {
            snprintf(names[k], sizeof names[k], "t%d", k);
            field(i ? "update" : "create", "task", names[k], "NodeID", i % 2 ? "n" : "m");
        }
        assert_int_equal(commit(), 0);
    }
    assert_int_equal(in_reader(reader_of_many), 0);
}

static void test_stale_readers_are_cleared(void **state)
{
    (void)state;
    int ready[2];
    struct sm_reader r[4];
    named("create", "service", "s1", "web");
    assert_int_equal(commit(), 0);
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct store *s;
        struct store_snap *snap;
        if (store_open(&s, test_dir, false, &e) < 0 || store_begin(s, &snap, &e) < 0)
            _exit(1);
        if (write(ready[1], "x", 1) != 1)
            _exit(2);
        pause();
        _exit(0);
    }
    char c;
    assert_int_equal(read(ready[0], &c, 1), 1);
    sm_tick(sm, 1000);
    named("create", "service", "s2", "db");
    assert_int_equal(commit(), 0);
    sm_tick(sm, 2000);
    assert_int_equal(sm_readers(sm, 7000, r, 4), 1);
    assert_int_equal(r[0].pid, pid);
    assert_true(r[0].lag > 0);
    assert_int_equal(r[0].age_ms, 5000);
    assert_int_equal(sm_clear_readers(sm), 0);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(sm_clear_readers(sm), 1);
    assert_int_equal(sm_readers(sm, 7000, r, 4), 0);
    close(ready[0]);
    close(ready[1]);
}

static void test_full_map(void **state)
{
    (void)state;
    sm_close(sm);
    map_bytes = 4u << 20;
    open_maps(0);
    assert_true(sm_room(sm, 100000, 1000, &e));
    assert_false(sm_room(sm, 8u << 20, 1000, &e));
    assert_non_null(strstr(e.msg, "the store is full"));
    static char big[700000];
    int r = 0;
    for (int i = 0; r == 0 && i < 20; i++) {
        char oid[16];
        snprintf(oid, sizeof oid, "g%d", i);
        struct buf *b = change("create", "config", oid);
        mp_map(b, 1);
        mp_cstr(b, "Data");
        mp_bin(b, (struct str){ big, sizeof big });
        chg[0].Doc = buf_str(b);
        struct entry en = { .At = 1, .By = STR("apid"), .Changes = { chg, 1 } };
        struct buf enc = BUF_INIT;
        entry_encode(&en, &enc);
        struct raft_log_entry le = { index_ + 1, 1, RAFT_ENTRY_DATA, buf_str(&enc) };
        assert_int_equal(sm_begin(sm, &e), 0);
        r = sm_apply(sm, &le, &result, &revision, &e);
        if (r == 0)
            r = sm_commit(sm, &e);
        else
            sm_abort(sm);
        index_ += r == 0;
        nchg = 0;
        buf_done(&enc);
    }
    assert_int_equal(r, -ERR_IO); /* and the state is that of before */
    assert_int_equal(sm_applied(sm), index_);
    assert_false(sm_torn(sm));
    named("create", "service", "s1", "web");
    assert_int_equal(commit(), 0);
}

static void test_snapshot(void **state)
{
    (void)state;
    struct seal_key key = { { 1, 2, 3 } };
    struct sm_snap *snap;
    char path[512];
    named("create", "service", "s1", "web");
    field("create", "credential", "k1", "Data", "x");
    for (int i = 0; i < 10; i++) {
        static char oid[10][8];
        snprintf(oid[i], sizeof oid[i], "t%d", i);
        field("create", "task", oid[i], "ServiceID", "s1");
    }
    assert_int_equal(commit(), 0);
    assert_int_equal(sm_snap_begin(sm, &snap, &e), 0);
    change("delete", "service", "s1"); /* later than the snapshot */
    assert_int_equal(commit(), 0);
    test_path(path, "");
    assert_int_equal(sm_snap_write(snap, path, &key, &e), 0);
    assert_int_equal(sm_snap_index(snap), 1);
    sm_snap_end(snap);
    sm_close(sm);
    struct sm_conf c = conf();
    struct err why;
    bool fresh;
    assert_int_equal(sm_open(&sm, &c, &id, 5, 5, &fresh, &why, &e), 0); /* the maps are too old for this log */
    assert_true(fresh);
    assert_non_null(strstr(why.msg, "the maps are at entry 2"));
    assert_int_equal(sm_restore(sm, path, &key, 1, 1, &e), 0);
    assert_int_equal(sm_applied(sm), 1);
    assert_int_equal(sm_revision(sm), 1);
    assert_int_equal(sm_count(sm, KIND_TASK), 10);
    assert_text("service", "s1", "Spec.Name", "web");
    assert_text("credential", "k1", "Data", "x");
    assert_int_equal(sm_publish(sm, &e), 0);
    index_ = 1;
    named("create", "service", "s2", "web"); /* indexes are there again */
    assert_int_equal(commit(), -ERR_CONFLICT);
}

static void members_write(struct buf *b, const char *node, bool twice)
{
    mp_array(b, twice ? 2 : 1);
    for (int i = 0; i < (twice ? 2 : 1); i++) {
        mp_map(b, 4);
        mp_kv_u64(b, "RaftID", 7);
        mp_kv_cstr(b, "NodeID", node);
        mp_kv_cstr(b, "Addr", "10.0.0.1:2377");
        mp_kv_bool(b, "Learner", false);
    }
}

static int apply_members(struct str data)
{
    struct raft_log_entry le = { index_ + 1, 1, RAFT_ENTRY_MEMBERS, data };
    assert_int_equal(sm_begin(sm, &e), 0);
    int r = sm_apply(sm, &le, &result, &revision, &e);
    if (r < 0) {
        sm_abort(sm);
        return r;
    }
    index_++;
    return sm_commit(sm, &e);
}

/* The membership is in the map, for all to read, and comes back out of a snapshot. */
static void test_members(void **state)
{
    (void)state;
    struct seal_key key = { { 1 } };
    struct sm_snap *snap;
    struct sm_conf c = conf();
    struct err why;
    struct buf b = BUF_INIT, have = BUF_INIT;
    bool fresh;
    sm_members(sm, &have);
    assert_int_equal(have.n, 0);
    members_write(&b, "n1", false);
    assert_int_equal(apply_members(buf_str(&b)), 0);
    sm_members(sm, &have);
    assert_true(str_eq(buf_str(&have), buf_str(&b)));
    assert_int_equal(sm_snap_begin(sm, &snap, &e), 0);
    assert_int_equal(sm_snap_write(snap, test_dir, &key, &e), 0);
    sm_snap_end(snap);
    sm_close(sm);
    assert_int_equal(sm_open(&sm, &c, &id, 5, 5, &fresh, &why, &e), 0);
    assert_true(fresh);
    assert_int_equal(sm_restore(sm, test_dir, &key, 1, 1, &e), 0);
    assert_int_equal(sm_publish(sm, &e), 0);
    buf_clear(&have);
    sm_members(sm, &have);
    assert_true(str_eq(buf_str(&have), buf_str(&b)));
    struct store *s = NULL;
    struct store_snap *sn;
    struct store_member m[STORE_MEMBERS_MAX];
    assert_int_equal(store_open(&s, test_dir, false, &e), 0);
    assert_int_equal(store_begin(s, &sn, &e), 0);
    assert_int_equal(store_members(sn, m), 1);
    assert_int_equal(m[0].raft_id, 7);
    store_end(sn);
    store_close(s);
    buf_clear(&b);
    members_write(&b, "n2", true);
    index_ = sm_applied(sm);
    assert_int_equal(apply_members(buf_str(&b)), -ERR_CORRUPT);
    assert_int_equal(apply_members(STR("garbage")), -ERR_CORRUPT);
    buf_done(&b);
    buf_done(&have);
}

/* fill - tasks first..last-1 of about 4 kB each are made, or removed. */
static void fill(const char *op, int first, int last)
{
    static char big[3900], ids[16][16];
    for (int i = first; i < last; i += 16) {
        for (int j = 0; j < 16; j++) {
            snprintf(ids[j], sizeof ids[j], "t%06d", i + j);
            struct buf *b = change(op, "task", ids[j]);
            if (op[0] != 'c')
                continue;
            mp_map(b, 1);
            mp_cstr(b, "Data");
            mp_bin(b, (struct str){ big, sizeof big });
            chg[nchg - 1].Doc = buf_str(b);
        }
        assert_int_equal(commit(), 0);
    }
}

/* After many deletions the files get small again, for a reader that has them open, too. */
static void test_shrink(void **state)
{
    (void)state;
    struct store *s = NULL;
    struct store_snap *sn;
    struct sm_snap *held;
    struct str d;
    bool shrunk;
    fill("create", 0, 8000);
    named("create", "service", "s1", "web");
    assert_int_equal(commit(), 0);
    uint64_t full = sm_used_bytes(sm);
    assert_true(full > 30 << 20);
    assert_int_equal(sm_shrink(sm, &shrunk, &e), 0);
    assert_false(shrunk);
    assert_int_equal(store_open(&s, test_dir, false, &e), 0);
    assert_int_equal(store_begin(s, &sn, &e), 0);
    assert_int_equal(store_count(sn, KIND_TASK), 8000);
    store_end(sn);
    fill("delete", 0, 7984);
    assert_true(sm_used_bytes(sm) >= full);
    assert_int_equal(sm_snap_begin(sm, &held, &e), 0);
    assert_int_equal(sm_shrink(sm, &shrunk, &e), 0);
    assert_false(shrunk); /* somebody reads */
    sm_snap_end(held);
    uint64_t rev = sm_revision(sm);
    assert_int_equal(sm_shrink(sm, &shrunk, &e), 0);
    assert_true(shrunk);
    assert_true(sm_used_bytes(sm) < full / 5);
    char path[512];
    struct stat st;
    test_path(path, "state/data.mdb");
    assert_int_equal(stat(path, &st), 0);
    assert_true((uint64_t)st.st_size < full / 5);
    assert_int_equal(sm_revision(sm), rev);
    assert_int_equal(store_begin(s, &sn, &e), 0);
    assert_int_equal(store_count(sn, KIND_TASK), 16);
    assert_int_equal(store_get(sn, KIND_SERVICE, STR("s1"), &d), 0);
    store_end(sn);
    named("create", "service", "s2", "web");
    assert_int_equal(commit(), -ERR_CONFLICT);
    named("create", "service", "s2", "other");
    assert_int_equal(commit(), 0);
    sm_close(sm);
    assert_false(open_maps(index_)); /* and it is a map that can be opened again */
    assert_int_equal(sm_count(sm, KIND_TASK), 16);
    store_close(s);
}

/* A reader at work all the time finds a map, and a whole one, at every moment. */
static void test_readers_while_maps_change(void **state)
{
    (void)state;
    int p[2], st;
    char c;
    fill("create", 0, 320);
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct store *s = NULL;
        struct store_snap *sn;
        close(p[0]);
        if (store_open(&s, test_dir, true, &e) < 0)
            _exit(2);
        for (unsigned n = 0;; n++) {
            if (store_begin(s, &sn, &e) < 0 || store_count(sn, KIND_TASK) != 320)
                _exit(3);
            store_end(sn);
            if (n % 7 == 0) { /* and one that comes anew */
                store_close(s);
                if (store_open(&s, test_dir, true, &e) < 0)
                    _exit(4);
            }
            if (n == 100 && write(p[1], "x", 1) != 1)
                _exit(5);
        }
    }
    close(p[1]);
    assert_int_equal(read(p[0], &c, 1), 1); /* it is at work */
    for (int i = 0; i < 300; i++) {
        assert_int_equal(map_compact(&sm->secret, 1u << 30, &e), 0);
        assert_int_equal(map_compact(&sm->state, 1u << 30, &e), 0);
    }
    assert_int_equal(waitpid(pid, &st, WNOHANG), 0);
    kill(pid, SIGKILL);
    waitpid(pid, &st, 0);
    close(p[0]);
}

static void test_snapshot_cancelled(void **state)
{
    (void)state;
    struct seal_key key = { { 1 } };
    struct sm_snap *snap;
    named("create", "service", "s1", "web");
    assert_int_equal(commit(), 0);
    assert_int_equal(sm_snap_begin(sm, &snap, &e), 0);
    sm_snap_cancel(snap);
    assert_int_equal(sm_snap_write(snap, test_dir, &key, &e), -ERR_UNAVAILABLE);
    sm_snap_end(snap);
}

/* Two state machines, the same entries, other batches: the same documents, byte for byte. */
static void test_deterministic(void **state)
{
    (void)state;
    struct buf a = BUF_INIT;
    for (int round = 0; round < 2; round++) {
        now = 1000;
        named("create", "service", "s1", "web");
        assert_int_equal(commit_term(0, 1), 0);
        named("create", "service", "s2", "web");
        assert_int_equal(commit_term(0, 1), -ERR_CONFLICT);
        now = 5000;
        named("update", "service", "s1", "web2");
        assert_int_equal(commit_term(0, 3), 0);
        struct str d = doc("service", "s1");
        if (round == 0)
            buf_put(&a, d.p, d.n);
        else
            assert_true(str_eq(d, buf_str(&a)));
        sm_close(sm);
        test_tree_remove(test_dir);
        mkdir(test_dir, 0700);
        open_maps(0);
    }
    buf_done(&a);
}

static int done(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 16; i++)
        buf_done(&docs[i]);
    buf_done(&got);
    return 0;
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_stamps),
        T(test_stamps_are_not_for_writers),
        T(test_nil_removes_a_field),
        T(test_existence),
        T(test_requires),
        T(test_unique_names),
        T(test_reservation),
        T(test_references),
        T(test_all_or_nothing),
        T(test_fence),
        T(test_malformed_entries),
        T(test_batch_abort),
        T(test_reopen),
        T(test_readers),
        T(test_change_log_is_bounded),
        T(test_change_log_is_bounded_in_pages),
        T(test_stale_readers_are_cleared),
        T(test_full_map),
        T(test_snapshot),
        T(test_snapshot_cancelled),
        T(test_members),
        T(test_shrink),
        T(test_readers_while_maps_change),
        T(test_deterministic),
    };
    return cmocka_run_group_tests(tests, NULL, done);
}
