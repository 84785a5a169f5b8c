/*
 * storage_crash_test.c - log and keys, killed before and in the middle of each of their writes: what was done is there,
 * what was not is there as a whole or not at all, and some key opens it.
 *
 * The work is done in a child process that dies at the n-th change of a file (test_fault.h). Memory that both share
 * says how far it got. Then the next n, until the child gets through.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "raftd/raft_log.h"
#include "raftd/snapshot.h"
#include "raftd/test_dir.h"
#include "raftd/test_fault.h"

static struct err e;
static const struct raft_log_identity id = { "cluster1", "node1", 42 };
static struct progress {
    uint64_t last, first, term; /* acknowledged */
    uint64_t trying_last, trying_first, trying_term;
    unsigned key; /* number of the rewrap that is done */
} * shared;

static void must(int r)
{
    if (r == 0)
        return;
    fprintf(stderr, "storage_crash_test: fault %ld: %s\n", fault_at, e.msg);
    abort();
}

static void create(void)
{
    struct raft_hard_state hs = { 1, 42 };
    must(raft_log_create(test_dir, &id, &hs, STR("first"), &e));
    *shared =
        (struct progress){ .last = 1, .first = 1, .term = 1, .trying_last = 1, .trying_first = 1, .trying_term = 1 };
}

/* in_child - false when it got to its end. */
static bool in_child(void (*work)(void), long n, bool torn)
{
    int st;
    pid_t pid = fork();
    if (pid == 0) {
        fault_at = n;
        fault_torn = torn;
        fault_armed = true;
        work();
        _exit(0);
    }
    fault_at = n;
    assert_int_equal(waitpid(pid, &st, 0), pid);
    if (WIFEXITED(st) && WEXITSTATUS(st) == 0)
        return false;
    assert_true(WIFSIGNALED(st) && WTERMSIG(st) == SIGKILL);
    return true;
}

static void fresh(void)
{
    test_tree_remove(test_dir);
    mkdir(test_dir, 0700);
    create();
}

/* ---- the log ---- */

static char data[5000];

static void append(struct raft_log *l, uint64_t truncate_from, uint64_t from, uint64_t to, uint64_t term)
{
    struct raft_log_entry en[8];
    struct raft_hard_state hs = { term, 0 };
    struct raft_log_write w = { .truncate_from = truncate_from, .entries = en, .hard_state = &hs };
    for (uint64_t i = from; i <= to; i++)
        en[w.n_entries++] = (struct raft_log_entry){ i, term, RAFT_ENTRY_DATA, { data, 4000 + i } };
    shared->trying_last = to;
    shared->trying_term = term;
    must(raft_log_write(l, &w, &e));
    shared->last = to;
    shared->term = term;
}

static void snapshot(struct raft_log *l, uint64_t index, uint64_t term)
{
    struct snapshot_writer *w = NULL;
    must(snapshot_create(&w, raft_log_dir(l), raft_log_key(l), index, term, &e));
    must(snapshot_put(w, (struct str){ data, 3000 }, &e));
    must(snapshot_finish(w, &e));
    snapshot_close(w);
}

static void log_work(void)
{
    struct raft_log *l = NULL;
    bool more;
    must(raft_log_open(&l, test_dir, &e));
    for (uint64_t i = 2; i <= 40; i += 3) /* over two ends of segments */
        append(l, 0, i, i + 2, 2);
    append(l, 35, 35, 38, 3);
    snapshot(l, 36, 3);
    shared->trying_first = 30;
    must(raft_log_compact(l, 36, 30, 1000, &more, &e));
    shared->first = 30;
    append(l, 0, 39, 41, 4);
    raft_log_close(l);
    must(raft_log_open(&l, test_dir, &e));
    append(l, 0, 42, 44, 9);
    /* a snapshot from the leader that this log does not lead up to */
    snapshot(l, 100, 8);
    shared->trying_last = 100;
    shared->trying_first = 101;
    must(raft_log_install(l, 100, 8, &e));
    shared->last = 100;
    shared->first = 101;
    append(l, 0, 101, 104, 9);
    snapshot(l, 103, 9);
    shared->trying_first = 104;
    must(raft_log_install(l, 103, 9, &e));
    shared->first = 104;
    append(l, 104, 104, 110, 10);
    raft_log_close(l);
}

static void log_check(void)
{
    struct raft_log *l = NULL;
    struct raft_log_state st;
    struct buf b = BUF_INIT;
    must(raft_log_open(&l, test_dir, &e));
    raft_log_state(l, &st);
    assert_true(st.last_index == shared->last || st.last_index == shared->trying_last);
    assert_true(st.first_index == shared->first || st.first_index == shared->trying_first);
    assert_true(st.hard_state.term == shared->term || st.hard_state.term == shared->trying_term);
    for (uint64_t i = st.first_index; i <= st.last_index; i++) {
        struct raft_log_entry en;
        must(raft_log_read(l, i, &b, &en, &e));
        assert_true(str_eq(en.data, i == 1 ? STR("first") : (struct str){ data, 4000 + i }));
    }
    /* and it goes on from there */
    append(l, 0, st.last_index + 1, st.last_index + 2, 20);
    raft_log_close(l);
    must(raft_log_open(&l, test_dir, &e));
    raft_log_state(l, &st);
    assert_int_equal(st.last_index, shared->last);
    raft_log_close(l);
    buf_done(&b);
}

static void test_log(void **state)
{
    (void)state;
    for (int torn = 0; torn < 2; torn++) {
        long n = 1;
        bool died = true;
        for (; died; n++) {
            fresh();
            died = in_child(log_work, n, torn == 1);
            log_check();
        }
        print_message("%ld places to die at\n", n);
        assert_true(n > 80);
    }
}

/* ---- the keys ---- */

static const struct seal_key keys[3] = { { { 1 } }, { { 2 } }, { { 3 } } };

/* What opens the log after so many rewraps: a key, or the kek on the disk. */
#define REWRAPS 6u
static const struct seal_key *const by[REWRAPS] = { NULL, &keys[0], &keys[1], NULL, NULL, &keys[2] };

static void key_work(void)
{
    struct raft_log *l = NULL;
    must(raft_log_open(&l, test_dir, &e));
    for (unsigned i = 1; i < REWRAPS; i++) {
        must(seal_keys_rewrap(raft_log_dir(l), raft_log_key(l), by[i], &e));
        shared->key = i;
    }
    raft_log_close(l);
}

static bool opens(const struct seal_key *kek)
{
    struct raft_log *l = NULL;
    bool ok = (kek != NULL || !raft_log_locked(test_dir)) && raft_log_open_with(&l, test_dir, kek, &e) == 0;
    raft_log_close(l);
    return ok;
}

static void key_check(void)
{
    unsigned done = shared->key, next = done + 1 < REWRAPS ? done + 1 : done;
    struct raft_log *l = NULL;
    bool old = opens(by[done]), new = opens(by[next]);
    assert_true(old || new);
    /* it is done once more, as after a restart, and then nothing else opens it */
    must(raft_log_open_with(&l, test_dir, old ? by[done] : by[next], &e));
    must(seal_keys_rewrap(raft_log_dir(l), raft_log_key(l), by[next], &e));
    raft_log_close(l);
    assert_true(opens(by[next]));
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(opens(&keys[i]), by[next] == &keys[i]);
    assert_int_equal(opens(NULL), by[next] == NULL);
}

static void test_keys(void **state)
{
    (void)state;
    for (int torn = 0; torn < 2; torn++) {
        long n = 1;
        bool died = true;
        for (; died; n++) {
            fresh();
            died = in_child(key_work, n, torn == 1);
            key_check();
        }
        print_message("%ld places to die at\n", n);
        assert_true(n > 30);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, test_dir_make, test_dir_remove)
    const struct CMUnitTest tests[] = { T(test_log), T(test_keys) };
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    memset(data, 'd', sizeof data);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
