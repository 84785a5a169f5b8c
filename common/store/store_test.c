/*
 * store_test.c - the reader against a map that the test writes in the layout's format.
 *
 * A process must not have an LMDB environment open twice, so everything is written by a child.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>
#include <lmdb.h>
#include <nng/nng.h>
#include <nng/protocol/pubsub0/pub.h>

#include "common/proto/mp.h"
#include "common/store/store.h"
#include "common/store/txn.h"
#include "common/util/check.h"

/* ---- a writer, as raftd's but with no mercy ---- */

struct writer {
    MDB_env *env;
    MDB_txn *txn;
    uint64_t revision;
    uint32_t seq;
    bool secret;
};

#define DO(call) CHECK((call) == 0)

static MDB_dbi db(struct writer *w, const char *name)
{
    MDB_dbi d;
    DO(mdb_dbi_open(w->txn, name, MDB_CREATE, &d));
    return d;
}

static void put(struct writer *w, const char *name, struct str key, struct str val)
{
    MDB_val k = { key.n, (void *)key.p }, v = { val.n, (void *)val.p };
    DO(mdb_put(w->txn, db(w, name), &k, &v, 0));
}

static void put_meta_u64(struct writer *w, const char *name, uint64_t value)
{
    struct buf b = BUF_INIT;
    mp_u64(&b, value);
    put(w, STORE_DB_META, str_from(name), buf_str(&b));
    buf_done(&b);
}

static void writer_begin(struct writer *w, const char *run_dir, bool secret, uint64_t revision)
{
    char dir[300];
    snprintf(dir, sizeof dir, "%s/%s", run_dir, secret ? STORE_SECRET_DIR : STORE_STATE_DIR);
    mkdir(dir, 0700);
    *w = (struct writer){ .revision = revision, .secret = secret };
    DO(mdb_env_create(&w->env));
    DO(mdb_env_set_maxdbs(w->env, STORE_DBS_MAX));
    DO(mdb_env_set_mapsize(w->env, 16 << 20));
    DO(mdb_env_open(w->env, dir, MDB_NOSYNC, 0600));
    DO(mdb_txn_begin(w->env, NULL, 0, &w->txn));
    put_meta_u64(w, META_REVISION, revision);
    char name[STORE_DB_NAME_MAX];
    for (enum kind k = 0; k < KIND_COUNT; k++)
        if (kind_info[k].secret == secret)
            db(w, kind_info[k].name);
    for (enum index ix = 0; ix < IX_COUNT && !secret; ix++)
        db(w, index_db_name(ix, name));
    db(w, STORE_DB_LOG);
}

static void writer_end(struct writer *w)
{
    DO(mdb_txn_commit(w->txn));
    mdb_env_close(w->env);
}

static void log_change(struct writer *w, enum kind kind, const char *id, const char *op)
{
    struct buf b = BUF_INIT;
    uint8_t key[STORE_LOG_KEY];
    log_key(w->revision, w->seq++, key);
    log_put(&b, kind, str_from(id), *op);
    put(w, STORE_DB_LOG, (struct str){ (char *)key, sizeof key }, buf_str(&b));
    buf_done(&b);
}

struct entry_arg {
    struct writer *w;
    enum index ix;
    struct str id;
};

static void put_entry(void *arg, struct str key)
{
    struct entry_arg *a = arg;
    char buf[STORE_ENTRY_MAX], name[STORE_DB_NAME_MAX];
    put(a->w, index_db_name(a->ix, name), index_entry(key, a->id, buf), STR(""));
}

static void put_doc(struct writer *w, enum kind kind, const char *id, struct buf *doc)
{
    put(w, kind_info[kind].name, str_from(id), buf_str(doc));
    for (enum index ix = 0; ix < IX_COUNT; ix++) {
        struct entry_arg a = { w, ix, str_from(id) };
        if (index_info[ix].kind == kind)
            index_keys(ix, buf_str(doc), put_entry, &a);
    }
    log_change(w, kind, id, "c");
    buf_done(doc);
}

static void put_service(struct writer *w, const char *id, const char *name)
{
    struct buf b = BUF_INIT;
    mp_map(&b, 2);
    mp_kv_cstr(&b, "ID", id);
    mp_cstr(&b, "Spec");
    mp_map(&b, 2);
    mp_kv_cstr(&b, "Name", name);
    mp_cstr(&b, "TaskTemplate");
    mp_map(&b, 1);
    mp_cstr(&b, "Networks");
    mp_array(&b, 2);
    for (int i = 0; i < 2; i++) {
        mp_map(&b, 1);
        mp_kv_cstr(&b, "Target", i ? "net2" : "net1");
    }
    put_doc(w, KIND_SERVICE, id, &b);
}

static void put_task(struct writer *w, const char *id, const char *service, uint64_t slot, const char *node)
{
    struct buf b = BUF_INIT;
    mp_map(&b, 4);
    mp_kv_cstr(&b, "ID", id);
    mp_kv_cstr(&b, "ServiceID", service);
    mp_kv_u64(&b, "Slot", slot);
    mp_kv_cstr(&b, "NodeID", node);
    put_doc(w, KIND_TASK, id, &b);
}

static void put_node(struct writer *w, const char *id, const char *hostname)
{
    struct buf b = BUF_INIT;
    mp_map(&b, 2);
    mp_kv_cstr(&b, "ID", id);
    mp_cstr(&b, "Description");
    mp_map(&b, 1);
    mp_kv_cstr(&b, "Hostname", hostname);
    put_doc(w, KIND_NODE, id, &b);
}

static char run_dir[200];
static char long_name[400];

static void in_child(void (*fn)(void))
{
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        fn();
        _exit(0);
    }
    assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
    assert_int_equal(status, 0);
}

static void write_first(void)
{
    struct writer w;
    struct buf b = BUF_INIT;
    writer_begin(&w, run_dir, false, 7);
    put_meta_u64(&w, META_TERM, 3);
    mp_bool(&b, true);
    put(&w, STORE_DB_META, STR(META_LEADER), buf_str(&b));
    put(&w, STORE_DB_META, STR(META_INITIALIZED), buf_str(&b));
    buf_clear(&b);
    mp_cstr(&b, "node1");
    put(&w, STORE_DB_META, STR(META_NODE_ID), buf_str(&b));
    buf_done(&b);
    put_service(&w, "svc1", "Web");
    put_service(&w, "svc2", "web2");
    put_service(&w, "xyz", "svc1"); /* a name that is another's ID */
    put_service(&w, "lng", long_name);
    put_task(&w, "t1", "svc1", 1, "node1");
    put_task(&w, "t2", "svc1", 2, "");
    put_task(&w, "t3", "svc2", 1, "node1");
    put_task(&w, "t4", "svc1", 12, "node2");
    put_node(&w, "n1", "host");
    put_node(&w, "n2", "Host");
    writer_end(&w);
}

static void write_second(void)
{
    struct writer w;
    writer_begin(&w, run_dir, false, 8);
    put_task(&w, "t5", "svc1", 3, "node1");
    log_change(&w, KIND_SERVICE, "gone", "d");
    writer_end(&w);
}

static void write_replaced(void)
{
    struct writer w;
    char path[300];
    snprintf(path, sizeof path, "%s/state/data.mdb", run_dir);
    CHECK(unlink(path) == 0);
    snprintf(path, sizeof path, "%s/state/lock.mdb", run_dir);
    CHECK(unlink(path) == 0);
    writer_begin(&w, run_dir, false, 40);
    put_service(&w, "other", "other");
    writer_end(&w);
}

static void write_secret(void)
{
    struct writer w;
    struct buf b = BUF_INIT;
    writer_begin(&w, run_dir, true, 7);
    mp_map(&b, 1);
    mp_kv_cstr(&b, "ID", "sec1");
    put_doc(&w, KIND_SECRET_DATA, "sec1", &b);
    writer_end(&w);
}

/* ---- reading ---- */

static struct store *opened(bool secrets)
{
    struct err e = ERR_INIT;
    struct store *s = NULL;
    assert_int_equal(store_open(&s, run_dir, secrets, &e), 0);
    return s;
}

static struct store_snap *begun(struct store *s)
{
    struct err e = ERR_INIT;
    struct store_snap *snap = NULL;
    if (store_begin(s, &snap, &e) < 0)
        fail_msg("%s", e.msg);
    return snap;
}

static const char *ids(struct store_iter *it)
{
    static char text[500];
    size_t n = 0;
    text[0] = 0;
    while (store_next(it)) {
        struct str id;
        assert_true(mp_get_str(it->doc, "ID", &id) && str_eq(id, it->id));
        n += (size_t)snprintf(text + n, sizeof text - n, STR_FMT " ", STR_ARG(it->id));
    }
    return text;
}

static int setup(void **state)
{
    (void)state;
    snprintf(run_dir, sizeof run_dir, "/tmp/store_test.XXXXXX");
    memset(long_name, 'n', sizeof long_name - 1);
    return mkdtemp(run_dir) ? 0 : -1;
}

static int teardown(void **state)
{
    char cmd[300];
    (void)state;
    snprintf(cmd, sizeof cmd, "rm -rf %s", run_dir);
    return system(cmd);
}

static void no_map_yet(void **state)
{
    struct err e = ERR_INIT;
    struct store_snap *snap = NULL;
    struct store *s = opened(false);
    (void)state;
    assert_int_equal(store_begin(s, &snap, &e), -ERR_UNAVAILABLE);
    assert_null(store_end(NULL));
    in_child(write_first);
    store_end(begun(s));
    store_close(s);
}

static void meta_and_documents(void **state)
{
    struct err e = ERR_INIT;
    struct store_meta m;
    struct str doc;
    struct store_iter it;
    in_child(write_first);
    struct store *s = opened(false);
    struct store_snap *snap = begun(s);
    (void)state;
    assert_int_equal(store_meta(snap, &m, &e), 0);
    assert_true(m.revision == 7 && m.term == 3 && m.leader && m.initialized);
    assert_true(str_is(m.node_id, "node1") && m.leader_id.n == 0);
    assert_int_equal(store_get(snap, KIND_SERVICE, STR("svc1"), &doc), 0);
    assert_int_equal(store_get(snap, KIND_SERVICE, STR("svc"), &doc), -ERR_NOT_FOUND);
    assert_int_equal(store_get(snap, KIND_SERVICE, STR(""), &doc), -ERR_NOT_FOUND);
    assert_int_equal(store_get(snap, KIND_CREDENTIAL, STR("x"), &doc), -ERR_NOT_FOUND);
    assert_true(store_count(snap, KIND_TASK) == 4 && store_count(snap, KIND_SECRET) == 0);
    store_each(snap, KIND_TASK, &it);
    assert_string_equal(ids(&it), "t1 t2 t3 t4 ");
    store_each_prefix(snap, KIND_SERVICE, STR("svc"), &it);
    assert_string_equal(ids(&it), "svc1 svc2 ");
    store_each(snap, KIND_SECRET, &it);
    assert_string_equal(ids(&it), "");
    store_each(snap, KIND_TASK, &it);
    assert_true(store_next(&it));
    store_iter_done(&it);
    store_end(snap);
    store_close(s);
}

static void indexes(void **state)
{
    struct store_iter it;
    struct str id;
    in_child(write_first);
    struct store *s = opened(false);
    struct store_snap *snap = begun(s);
    (void)state;
    store_each_index(snap, IX_TASK_SERVICE, STR("svc1"), &it);
    assert_string_equal(ids(&it), "t1 t2 t4 ");
    store_each_index(snap, IX_TASK_SERVICE, STR("svc"), &it);
    assert_string_equal(ids(&it), "");
    store_each_index(snap, IX_TASK_NODE, STR("node1"), &it);
    assert_string_equal(ids(&it), "t1 t3 ");
    store_each_index(snap, IX_TASK_NODE, STR(""), &it); /* empty values are not indexed */
    assert_string_equal(ids(&it), "");
    store_each_index(snap, IX_SERVICE_NETWORK, STR("net2"), &it);
    assert_string_equal(ids(&it), "lng svc1 svc2 xyz ");
    assert_int_equal(store_find_name(snap, IX_SERVICE_NAME, STR("WEB"), &id), 0);
    assert_true(str_is(id, "svc1"));
    assert_int_equal(store_find_name(snap, IX_SERVICE_NAME, str_from(long_name), &id), 0);
    assert_true(str_is(id, "lng"));
    struct str shorter = { long_name, sizeof long_name - 2 };
    assert_int_equal(store_find_name(snap, IX_SERVICE_NAME, shorter, &id), -ERR_NOT_FOUND);
    store_end(snap);
    store_close(s);
}

static void resolving(void **state)
{
    struct err e = ERR_INIT;
    struct str id, doc;
    in_child(write_first);
    struct store *s = opened(false);
    struct store_snap *snap = begun(s);
    (void)state;
    static const struct {
        const char *ref, *id, *error;
    } cases[] = {
        { "svc1", "svc1", NULL }, /* an ID wins over another's name */
        { "web", "svc1", NULL },
        { "xy", "xyz", NULL },
        { "svc", NULL, "service svc is ambiguous (2 matches found)" },
        { "nosuch", NULL, "service nosuch not found" },
        { "", NULL, "service  not found" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int r = store_resolve(snap, KIND_SERVICE, IX_SERVICE_NAME, str_from(cases[i].ref), &id, &doc, &e);
        if (cases[i].id != NULL)
            assert_true(r == 0 && str_is(id, cases[i].id) && doc.n > 0);
        else
            assert_string_equal(e.msg, cases[i].error);
    }
    assert_int_equal(store_resolve(snap, KIND_NODE, IX_NODE_HOSTNAME, STR("host"), &id, &doc, &e), -ERR_INVALID);
    assert_string_equal(e.msg, "node host is ambiguous (2 matches found)");
    assert_int_equal(store_resolve(snap, KIND_TASK, IX_COUNT, STR("t3"), &id, &doc, &e), 0);
    store_end(snap);
    store_close(s);
}

static void collect(void *arg, uint64_t revision, enum kind kind, struct str id, char op)
{
    buf_printf(arg, "%llu %c %s/" STR_FMT "\n", (unsigned long long)revision, op, kind_info[kind].name, STR_ARG(id));
}

static void changes(void **state)
{
    struct err e = ERR_INIT;
    struct buf got = BUF_INIT;
    struct store_meta m;
    in_child(write_first);
    struct store *s = opened(false);
    struct store_snap *snap = begun(s);
    (void)state;
    assert_int_equal(store_changes(snap, 5, collect, &got, &e), -ERR_GONE); /* revision 6 is not in the log */
    assert_int_equal(store_changes(snap, 8, collect, &got, &e), -ERR_GONE); /* of another history */
    assert_int_equal(store_changes(snap, 7, collect, &got, &e), 0);
    assert_int_equal(got.n, 0);
    in_child(write_second);
    assert_int_equal(store_meta(snap, &m, &e), 0); /* the old snapshot stands still */
    assert_true(m.revision == 7 && store_count(snap, KIND_TASK) == 4);
    store_end(snap);
    snap = begun(s);
    assert_int_equal(store_changes(snap, 7, collect, &got, &e), 0);
    assert_string_equal(buf_cstr(&got), "8 c task/t5\n8 d service/gone\n");
    assert_int_equal(store_count(snap, KIND_TASK), 5);
    buf_clear(&got);
    assert_int_equal(store_changes(snap, 6, collect, &got, &e), 0);
    assert_non_null(strstr(buf_cstr(&got), "7 c service/svc1\n"));
    store_end(snap);
    buf_done(&got);
    store_close(s);
}

static void map_is_replaced(void **state)
{
    struct err e = ERR_INIT;
    struct buf got = BUF_INIT;
    struct str id;
    in_child(write_first);
    struct store *s = opened(false);
    struct store_snap *snap = begun(s);
    (void)state;
    in_child(write_replaced);
    assert_int_equal(store_find_name(snap, IX_SERVICE_NAME, STR("web"), &id), 0);
    store_end(snap);
    snap = begun(s);
    assert_int_equal(store_find_name(snap, IX_SERVICE_NAME, STR("web"), &id), -ERR_NOT_FOUND);
    assert_int_equal(store_find_name(snap, IX_SERVICE_NAME, STR("other"), &id), 0);
    /* The log would reach back to 39, but what this reader knew was another map's. */
    assert_int_equal(store_changes(snap, 39, collect, &got, &e), -ERR_GONE);
    assert_int_equal(store_changes(snap, 40, collect, &got, &e), 0);
    store_end(snap);
    store_close(s);
}

static void secret_map(void **state)
{
    struct err e = ERR_INIT;
    struct store_snap *snap = NULL;
    struct str doc;
    in_child(write_first);
    struct store *s = opened(true);
    (void)state;
    assert_int_equal(store_begin(s, &snap, &e), -ERR_UNAVAILABLE);
    in_child(write_secret);
    snap = begun(s);
    assert_int_equal(store_get(snap, KIND_SECRET_DATA, STR("sec1"), &doc), 0);
    assert_int_equal(store_get(snap, KIND_SERVICE, STR("svc1"), &doc), 0);
    store_end(snap);
    store_close(s);
    s = opened(false);
    snap = begun(s);
    assert_int_equal(store_get(snap, KIND_SECRET_DATA, STR("sec1"), &doc), -ERR_NOT_FOUND);
    store_end(snap);
    store_close(s);
}

/* ---- keys ---- */

static void log_records(void **state)
{
    struct buf b = BUF_INIT;
    struct str r, id;
    enum kind kind;
    char op;
    (void)state;
    log_put(&b, KIND_TASK, STR("t1"), 'c');
    log_put(&b, KIND_NODE, STR("node2"), 'd');
    r = buf_str(&b);
    assert_true(log_next(&r, &kind, &id, &op) && kind == KIND_TASK && op == 'c' && str_is(id, "t1"));
    assert_true(log_next(&r, &kind, &id, &op) && kind == KIND_NODE && op == 'd' && str_is(id, "node2"));
    assert_true(r.n == 0 && !log_next(&r, &kind, &id, &op));
    r = (struct str){ b.p, b.n - 1 }; /* cut */
    assert_true(log_next(&r, &kind, &id, &op) && !log_next(&r, &kind, &id, &op) && r.n != 0);
    buf_done(&b);
}

static void keys(void **state)
{
    char a[STORE_KEY_MAX], b[STORE_KEY_MAX], entry[STORE_ENTRY_MAX];
    char text[2][400];
    (void)state;
    assert_true(str_is(index_key(IX_SERVICE_NAME, STR("WeB-1"), a), "web-1"));
    assert_true(str_is(index_key(IX_TASK_NODE, STR("WeB-1"), a), "WeB-1"));
    assert_true(str_is(index_key(IX_TASK_NODE, STR("a\0b"), a), "a\1b"));
    memset(text, 'x', sizeof text);
    text[1][399] = 'y'; /* differ only behind the cut: the hash keeps them apart */
    struct str ka = index_key(IX_NETWORK_NAME, (struct str){ text[0], 400 }, a);
    struct str kb = index_key(IX_NETWORK_NAME, (struct str){ text[1], 400 }, b);
    assert_true(ka.n == STORE_KEY_MAX && kb.n == STORE_KEY_MAX && !str_eq(ka, kb));
    assert_int_equal(index_key(IX_NETWORK_NAME, (struct str){ text[0], STORE_KEY_MAX }, a).n, STORE_KEY_MAX);
    struct str e = index_entry(STR("key"), STR("id"), entry);
    assert_true(str_eq(e, STR("key\0id")) && str_is(index_entry_id(e), "id"));
    assert_int_equal(index_entry_id(STR("none")).n, 0);
    assert_true(store_id_ok(STR("port/tcp/80")) && !store_id_ok(STR("")) && !store_id_ok(STR("a\0b")));
    assert_false(store_id_ok((struct str){ text[0], STORE_ID_MAX + 1 }));
    uint8_t k1[STORE_LOG_KEY], k2[STORE_LOG_KEY];
    log_key(255, 7, k1);
    log_key(256, 0, k2);
    assert_true(memcmp(k1, k2, sizeof k1) < 0 && log_key_revision(k1) == 255);
    for (enum kind k = 0; k < KIND_COUNT; k++)
        assert_int_equal(kind_by_name(kind_info[k].name, strlen(kind_info[k].name)), k);
    assert_int_equal(kind_by_name("tasks", 5), KIND_COUNT);
}

/* ---- wake-ups ---- */

struct waker {
    unsigned wakes;
};

static void on_wake(void *arg)
{
    ((struct waker *)arg)->wakes++;
}

/* run_until - turns the loop until there were more than n wakes, at most 5 s. */
static void run_until(sd_event *loop, const struct waker *w, unsigned n)
{
    for (int i = 0; i < 500 && w->wakes <= n; i++)
        assert_true(sd_event_run(loop, 10000) >= 0);
    assert_true(w->wakes > n);
}

static void wake_ups(void **state)
{
    struct err e = ERR_INIT;
    struct waker w = { 0 };
    struct store_wake *wake = NULL;
    sd_event *loop = NULL;
    nng_socket pub;
    char url[300];
    (void)state;
    snprintf(url, sizeof url, "ipc://%s/%s", run_dir, STORE_WAKE_SOCKET);
    assert_true(sd_event_new(&loop) >= 0);
    assert_int_equal(store_wake_open(&wake, loop, run_dir, on_wake, &w, &e), 0);
    run_until(loop, &w, 0); /* by itself, with nobody there */
    for (int round = 0; round < 2; round++) {
        unsigned before = w.wakes;
        assert_int_equal(nng_pub0_open(&pub), 0);
        assert_int_equal(nng_listen(pub, url, NULL, 0), 0);
        run_until(loop, &w, before); /* the connection */
        before = w.wakes;
        run_until(loop, &w, before); /* once more, when it has settled */
        before = w.wakes;
        for (int i = 0; i < 20; i++)
            assert_int_equal(nng_send(pub, "x", 1, 0), 0);
        run_until(loop, &w, before);
        nng_close(pub);
    }
    store_wake_free(wake);
    sd_event_unref(loop);
}

/* ---- transactions ---- */

static void transactions(void **state)
{
    struct txn t;
    struct buf b = BUF_INIT;
    (void)state;
    txn_init(&t);
    assert_true(txn_empty(&t));
    mp_map(&b, 1);
    mp_kv_cstr(&b, "State", "running");
    struct str doc = txn_doc(&t, &b);
    buf_clear(&b);
    txn_require_version(&t, KIND_SERVICE, STR("s"), 9);
    txn_require_unreferenced(&t, KIND_NETWORK, STR("n"));
    for (int i = 0; i < 100; i++)
        txn_merge(&t, KIND_TASK, STR("t"), doc);
    txn_purge(&t, KIND_RESERVATION, STR("port/tcp/80"));
    assert_false(txn_empty(&t) || t.failed);
    assert_true(t.nreq == 2 && str_is(t.req[0].Test, "version") && t.req[0].Value == 9);
    assert_true(t.nchg == 101 && str_is(t.chg[99].Kind, "task") && t.chg[99].Doc.n == doc.n);
    assert_true(str_is(t.chg[100].Op, "purge") && t.chg[100].Doc.n == 0);
    txn_reset(&t);
    assert_true(txn_empty(&t));
    b.failed = true;
    txn_doc(&t, &b);
    assert_true(t.failed);
    b.failed = false;
    buf_done(&b);
    txn_done(&t);
}

#define WITH_DIR(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DIR(no_map_yet),
        WITH_DIR(meta_and_documents),
        WITH_DIR(indexes),
        WITH_DIR(resolving),
        WITH_DIR(changes),
        WITH_DIR(map_is_replaced),
        WITH_DIR(secret_map),
        cmocka_unit_test(keys),
        cmocka_unit_test(log_records),
        WITH_DIR(wake_ups),
        cmocka_unit_test(transactions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
