/* raft_log_test.c - the log on disk: what was written is there again, and what was tampered with is refused by name. */
#include "raftd/raft_log.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

#define SEG "log/seg-0000000001"
#define SEG_HEAD 512u
#define GROUP_HEAD 24u
#define STATE_RECORD (4u + 36u + SEAL_OVERHEAD)
#define UNIT 64u

static char whole[1 << 20];

static size_t be32(const char *p)
{
    const uint8_t *u = (const uint8_t *)p;
    return (size_t)u[0] << 24 | (size_t)u[1] << 16 | (size_t)u[2] << 8 | u[3];
}

/* group - where in the segment the n-th write is; ten_entries() makes one for each entry. */
static size_t group(unsigned n, size_t *ret_len)
{
    size_t at = SEG_HEAD;
    for (; n > 1; n--)
        at += be32(whole + at + 4);
    *ret_len = be32(whole + at + 4);
    return at;
}

static size_t record(unsigned n, size_t *ret_len) /* of the entry in it */
{
    size_t len, at = group(n, &len) + GROUP_HEAD + STATE_RECORD;
    *ret_len = be32(whole + at);
    return at + 4;
}

static void swap(size_t a, size_t b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char c = whole[a + i];
        whole[a + i] = whole[b + i];
        whole[b + i] = c;
    }
}

static void test_swapped_records(void **state)
{
    (void)state;
    size_t la, lb;
    ten_entries(false);
    size_t n = test_read(SEG, whole, sizeof whole);
    size_t a = record(4, &la), b = record(5, &lb);
    assert_int_equal(la, lb);
    swap(a, b, la);
    test_write(SEG, whole, n);
    assert_int_equal(reopen(), -ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "entry 4 part 0: the record belongs elsewhere"));
    swap(a, b, la);
    a = group(4, &la);
    b = group(5, &lb);
    swap(a, b, la);
    test_write(SEG, whole, n);
    assert_int_equal(reopen(), -ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "entry 4 is missing: write 5 is where 4 belongs"));
    swap(a, b, la);
    /* a write that pretends to be another */
    memmove(whole + b + GROUP_HEAD, whole + a + GROUP_HEAD, lb - GROUP_HEAD);
    test_write(SEG, whole, n);
    assert_int_equal(reopen(), -ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "the state record of write 5: the record belongs elsewhere"));
}

static void test_altered_record(void **state)
{
    static const unsigned which[] = { 1, 7, 10 };
    (void)state;
    ten_entries(false);
    size_t n = test_read(SEG, whole, sizeof whole), len, group_len;
    for (unsigned i = 0; i < 3; i++) {
        char want[32];
        size_t at = record(which[i], &len);
        snprintf(want, sizeof want, "entry %u", which[i]);
        for (size_t j = 0; j < len; j++) {
            whole[at + j] ^= 0x40;
            test_write(SEG, whole, n);
            assert_int_equal(reopen(), -ERR_CORRUPT);
            assert_non_null(strstr(e.msg, want));
            whole[at + j] ^= 0x40;
        }
        at = group(which[i], &group_len); /* its header, state and end as well */
        for (size_t j = 0; j < group_len; j++) {
            whole[at + j] ^= 0x01;
            test_write(SEG, whole, n);
            assert_int_equal(reopen(), -ERR_CORRUPT);
            assert_non_null(strstr(e.msg, "seg-0000000001"));
            whole[at + j] ^= 0x01;
        }
    }
    test_write(SEG, whole, n);
    assert_int_equal(reopen(), 0);
}

static void test_cut_record(void **state)
{
    (void)state;
    size_t len;
    ten_entries(false);
    size_t n = test_read(SEG, whole, sizeof whole), at = record(3, &len);
    whole[at - 1]--;
    test_write(SEG, whole, n);
    assert_int_equal(reopen(), -ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "entry 3"));
}

static void test_missing_records(void **state)
{
    static const char *const files[] = { SEG, "log/anchor", "log/tail" };
    (void)state;
    size_t len;
    ten_entries(false);
    size_t n = test_read(SEG, whole, sizeof whole);
    for (unsigned which = 1; which <= 10; which++) {
        char want[64], copy[1024];
        size_t at = group(which, &len);
        memcpy(copy, whole + at, len);
        memset(whole + at, 0, len);
        test_write(SEG, whole, n);
        memcpy(whole + at, copy, len);
        assert_int_equal(reopen(), -ERR_CORRUPT);
        snprintf(want, sizeof want, which < 10 ? "entry %u part 0 is missing" : "entry %u is missing", which);
        assert_non_null(strstr(e.msg, want));
    }
    /* all from the fourth on, as if the file were an older copy of itself */
    size_t at = group(4, &len);
    memset(whole + at, 0, n - at);
    test_write(SEG, whole, n);
    assert_int_equal(reopen(), -ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "entry 4 is missing: the log ends at write 3 of 10"));
    for (unsigned i = 0; i < 3; i++) {
        n = test_read(files[i], whole, sizeof whole);
        test_remove(files[i]);
        assert_int_equal(reopen(), -ERR_CORRUPT);
        assert_non_null(strstr(e.msg, files[i] + 4));
        assert_non_null(strstr(e.msg, "is missing"));
        test_write(files[i], whole, n);
    }
}

/* 0 intact, 1 refused. */
static int open_and_read(void)
{
    struct raft_log *l = NULL;
    struct buf b = BUF_INIT;
    struct raft_log_entry en;
    int r = raft_log_open(&l, test_dir, &e);
    for (uint64_t i = 2; r == 0 && i <= 10; i++) {
        assert_int_equal(raft_log_read(l, i, &b, &en, &e), 0);
        assert_true(str_eq(en.data, STR("what an entry says")));
    }
    raft_log_close(l);
    buf_done(&b);
    assert_true(r == 0 || r == -ERR_CORRUPT);
    return r == 0 ? 0 : 1;
}

/* Any byte of the files: refused, or of no importance. */
static void test_damaged_file(void **state)
{
    static const char *const files[] = { SEG, "log/anchor", "log/tail" };
    static char copy[1 << 20];
    (void)state;
    ten_entries(false);
    for (unsigned i = 0; i < 3; i++) {
        size_t n = test_read(files[i], copy, sizeof copy), refused = 0;
        for (size_t at = 0; at < n; at += i == 0 ? 61 : 1) {
            copy[at] ^= (char)0xa5;
            test_write(files[i], copy, n);
            copy[at] ^= (char)0xa5;
            refused += open_and_read() == 1;
        }
        assert_true(i == 2 || refused > 10);
        test_write(files[i], copy, n);
    }
    /* both slots of the tail */
    size_t n = test_read("log/tail", copy, sizeof copy);
    copy[20] ^= 1;
    copy[512 + 20] ^= 1;
    test_write("log/tail", copy, n);
    assert_int_equal(reopen(), -ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "tail: the record was altered"));
    copy[20] ^= 1;
    copy[512 + 20] ^= 1;
    test_write("log/tail", copy, n);
    assert_int_equal(reopen(), 0);
}

static void test_cut_file(void **state)
{
    static const char *const files[] = { SEG, "log/anchor", "log/tail" };
    static const size_t lens[] = { 0, 1, 100, 511, 512, 4096, 8192, 12288 };
    (void)state;
    ten_entries(false);
    for (unsigned f = 0; f < 3; f++) {
        size_t n = test_read(files[f], whole, sizeof whole);
        for (unsigned i = 0; i < sizeof lens / sizeof *lens && lens[i] < n; i++) {
            test_write(files[f], whole, lens[i]);
            assert_int_equal(reopen(), -ERR_CORRUPT);
            assert_non_null(strstr(e.msg, files[f] + 4));
        }
        whole[n] = 0;
        test_write(files[f], whole, n + 1);
        if (f < 2)
            assert_int_equal(reopen(), -ERR_CORRUPT);
        test_write(files[f], whole, n);
        assert_int_equal(reopen(), 0);
    }
}

static void assert_ten(void)
{
    struct raft_log *l = NULL;
    struct raft_log_state st;
    if (raft_log_open(&l, test_dir, &e) < 0)
        fail_msg("%s", e.msg);
    raft_log_state(l, &st);
    assert_int_equal(st.last_index, 10);
    assert_int_equal(st.hard_state.term, 1);
    assert_entry(l, 10, 1, STR("what an entry says"));
    assert_int_equal(append(l, 11, 2, STR("again")), 0);
    raft_log_close(l);
    assert_int_equal(raft_log_open(&l, test_dir, &e), 0);
    assert_entry(l, 11, 2, STR("again"));
    raft_log_close(l);
}

/* A write that the power cut short is dropped, whichever parts of it reached the disk. Once it was synced, it counts.
 */
static void test_unfinished_write(void **state)
{
    (void)state;
    static char before[1 << 20], tail[2048];
    struct raft_log *l = NULL;
    struct raft_hard_state hs = { 3, 42 };
    size_t len;
    ten_entries(false);
    size_t n = test_read(SEG, before, sizeof before), n_tail = test_read("log/tail", tail, sizeof tail);
    assert_int_equal(raft_log_open(&l, test_dir, &e), 0);
    struct raft_log_entry en[2] = { { 8, 3, RAFT_ENTRY_DATA, STR("eight") }, { 9, 3, RAFT_ENTRY_DATA, STR("nine") } };
    struct raft_log_write w = { .truncate_from = 8, .entries = en, .n_entries = 2, .hard_state = &hs };
    assert_int_equal(raft_log_write(l, &w, &e), 0);
    raft_log_close(l);
    test_read(SEG, whole, sizeof whole);
    size_t at = group(11, &len), units = len / UNIT;
    assert_true(units >= 5 && be32(before + at) == 0);
    for (unsigned how = 0; how < 3; how++)
        for (size_t u = 0; u < units; u++) {
            static char torn[1 << 20];
            memcpy(torn, before, n);
            for (size_t i = 0; i < units; i++) /* only the first ones; all but one; only one */
                if (how == 0 ? i < u : how == 1 ? i != u : i == u)
                    memcpy(torn + at + i * UNIT, whole + at + i * UNIT, UNIT);
            test_write(SEG, torn, n);
            test_write("log/tail", tail, n_tail);
            assert_ten();
        }
    /* cut in the middle of a unit, behind the header: that lies in one sector */
    for (size_t i = GROUP_HEAD; i < len - UNIT; i += 13) {
        memcpy(before + at, whole + at, i);
        test_write(SEG, before, n);
        test_write("log/tail", tail, n_tail);
        assert_ten();
    }
}

static void test_unfinished_but_synced(void **state)
{
    (void)state;
    size_t len;
    ten_entries(false);
    size_t n = test_read(SEG, whole, sizeof whole), at = group(10, &len);
    memset(whole + at + len - UNIT, 0, UNIT);
    test_write(SEG, whole, n);
    assert_int_equal(reopen(), -ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "entry 10 is missing"));
}

static void test_altered_snapshot(void **state)
{
    (void)state;
    static const char name[] = "log/snap-00000000000000000008";
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

/* Whatever is in the folder, and whatever file it will have one day. */
static void test_nothing_in_the_clear(void **state)
{
    (void)state;
    char dir[512];
    unsigned files = 0;
    ten_entries(true);
    test_path(dir, "log");
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *f; (f = readdir(d)) != NULL;) {
        char name[300];
        if (f->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "log/%s", f->d_name);
        size_t n = test_read(name, whole, sizeof whole);
        assert_null(memmem(whole, n, "what an entry says", 10));
        assert_null(memmem(whole, n, "cluster1", 8));
        assert_null(memmem(whole, n, "node1", 5));
        for (char c = 1; c < 20; c++) { /* the snapshot's records */
            char run[24];
            memset(run, c, sizeof run);
            assert_null(memmem(whole, n, run, sizeof run));
        }
        files++;
    }
    closedir(d);
    assert_true(files >= 6);
}

/* Many segments: read again from all of them, and given back whole when what they hold is in a snapshot. */
static void test_segments(void **state)
{
    (void)state;
    static char data[3000];
    struct raft_log *l = create();
    struct raft_log_counts c;
    bool more;
    for (uint64_t i = 2; i <= 2000; i++) {
        memset(data, (int)i, sizeof data);
        assert_int_equal(append(l, i, 1 + i / 100, (struct str){ data, sizeof data - i % 7 }), 0);
    }
    raft_log_counts(l, &c);
    assert_true(c.file_bytes > 6 << 20);
    for (int round = 0; round < 2; round++) {
        for (uint64_t i = 2; i <= 2000; i += 37) {
            memset(data, (int)i, sizeof data);
            assert_entry(l, i, 1 + i / 100, (struct str){ data, sizeof data - i % 7 });
        }
        raft_log_close(l);
        assert_int_equal(raft_log_open(&l, test_dir, &e), 0);
    }
    write_snapshot(l, 1990, 20, 1);
    uint64_t before = c.file_bytes;
    assert_int_equal(raft_log_compact(l, 1990, 1950, 100000, &more, &e), 0);
    assert_false(more);
    raft_log_counts(l, &c);
    assert_true(c.file_bytes < before);
    assert_true(test_missing(SEG));
    raft_log_close(l);
    assert_int_equal(raft_log_open(&l, test_dir, &e), 0);
    struct raft_log_state st;
    raft_log_state(l, &st);
    assert_int_equal(st.first_index, 1950);
    assert_int_equal(st.last_index, 2000);
    memset(data, (int)1950, sizeof data);
    assert_entry(l, 1950, 20, (struct str){ data, sizeof data - 1950 % 7 });
    assert_int_equal(append(l, 2001, 21, STR("on")), 0);
    raft_log_close(l);
    assert_int_equal(reopen(), 0);
    /* one from the middle */
    test_remove("log/seg-0000000007");
    assert_int_equal(reopen(), -ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "seg-0000000007 is missing"));
}

/* A follower's tail that never was committed reaches into the next segment, is cut off there, and the log then begins
 * at the cut: what was cut off still lies before it in that segment. */
static void test_compaction_at_a_cut(void **state)
{
    (void)state;
    static char data[3000];
    struct raft_log *l = create();
    struct raft_log_state st;
    bool more;
    uint64_t i = 2;
    for (; test_missing("log/seg-0000000002") || i < 40; i++)
        assert_int_equal(append(l, i, 1, (struct str){ data, sizeof data }), 0);
    struct raft_log_entry en = { 10, 2, RAFT_ENTRY_DATA, STR("ten") };
    struct raft_log_write w = { .truncate_from = 35, .entries = &en, .n_entries = 1 };
    en.index = 35; /* once in between */
    assert_int_equal(raft_log_write(l, &w, &e), 0);
    w.truncate_from = en.index = 10;
    en.term = 3;
    assert_int_equal(raft_log_write(l, &w, &e), 0);
    assert_int_equal(append(l, 11, 3, STR("eleven")), 0);
    write_snapshot(l, 10, 3, 1);
    assert_int_equal(raft_log_compact(l, 10, 10, 1000, &more, &e), 0);
    assert_true(test_missing(SEG));
    for (int round = 0; round < 2; round++) {
        raft_log_close(l);
        assert_int_equal(raft_log_open(&l, test_dir, &e), 0);
        raft_log_state(l, &st);
        assert_int_equal(st.first_index, 10);
        assert_entry(l, 10, 3, STR("ten"));
        assert_entry(l, 11, 3, STR("eleven"));
        assert_int_equal(append(l, st.last_index + 1, 4, STR("on")), 0);
    }
    raft_log_close(l);
}

/* ---- any history, against a model of it ---- */

static uint64_t rnd_state;

static uint64_t rnd(uint64_t n)
{
    rnd_state = rnd_state * 6364136223846793005u + 1442695040888963407u;
    return (rnd_state >> 33) % n;
}

static struct {
    uint64_t first, last, snap, snap_term, term;
    uint64_t terms[4096]; /* by index */
    struct raft_log *l;
} mo;

static struct str model_data(uint64_t index, uint64_t term)
{
    static char data[9000];
    memset(data, (int)(index * 31 + term), sizeof data);
    return (struct str){ data, (index * 7919 + term * 104729) % 9000 };
}

static void model_write(void)
{
    struct raft_log_entry en[6];
    struct raft_hard_state hs = { mo.term + (rnd(4) == 0), rnd(3) };
    struct raft_log_write w = { .entries = en,
                                .n_entries = rnd(6),
                                .hard_state = rnd(2) || hs.term > mo.term ? &hs : NULL };
    char copy[6][9000];
    uint64_t low = mo.snap + 1 > mo.first ? mo.snap + 1 : mo.first;
    low = low < 2 ? 2 : low; /* the first one is what create() wrote */
    if (rnd(5) == 0 && mo.last >= low) {
        w.truncate_from = low + rnd(mo.last - low + 1);
        mo.last = w.truncate_from - 1;
    }
    mo.term = hs.term;
    for (size_t i = 0; i < w.n_entries; i++) {
        struct str d = model_data(++mo.last, mo.term);
        memcpy(copy[i], d.p, d.n);
        en[i] = (struct raft_log_entry){
            mo.last, mo.term, rnd(9) ? RAFT_ENTRY_DATA : RAFT_ENTRY_MEMBERS, { copy[i], d.n }
        };
        mo.terms[mo.last] = mo.term;
    }
    assert_int_equal(raft_log_write(mo.l, &w, &e), 0);
}

static void model_compact(void)
{
    bool more = true;
    if (mo.last <= mo.snap)
        return;
    uint64_t index = mo.snap + 1 + rnd(mo.last - mo.snap), keep = index + 1 - rnd(5);
    if (keep < 1 || keep > index + 1)
        keep = 1;
    write_snapshot(mo.l, index, mo.terms[index], 1);
    while (more)
        assert_int_equal(raft_log_compact(mo.l, index, keep, 1 + (unsigned)rnd(50), &more, &e), 0);
    mo.snap = index;
    mo.snap_term = mo.terms[index];
    mo.first = keep > mo.first ? keep : mo.first;
}

static void model_install(void)
{
    uint64_t index = mo.snap + 1 + rnd(12);
    bool same = index <= mo.last && rnd(2);
    uint64_t term = same ? mo.terms[index] : mo.term;
    same = index >= mo.first && index <= mo.last && mo.terms[index] == term;
    if (term < mo.snap_term)
        return;
    write_snapshot(mo.l, index, term, 1);
    assert_int_equal(raft_log_install(mo.l, index, term, &e), 0);
    if (!same)
        mo.last = index;
    mo.terms[index] = term;
    mo.snap = index;
    mo.snap_term = term;
    mo.first = index + 1;
}

static void model_check(void)
{
    struct raft_log_state st;
    raft_log_state(mo.l, &st);
    assert_int_equal(st.first_index, mo.first);
    assert_int_equal(st.last_index, mo.last);
    assert_int_equal(st.snapshot_index, mo.snap);
    assert_int_equal(st.snapshot_term, mo.snap_term);
    assert_int_equal(st.hard_state.term, mo.term);
    for (uint64_t i = mo.first; i <= mo.last; i++)
        assert_entry(mo.l, i, mo.terms[i], i == 1 ? STR("first") : model_data(i, mo.terms[i]));
}

static void test_any_history(void **state)
{
    (void)state;
    const char *many = getenv("SEEDS"); /* more of them, for a long run */
    uint64_t seeds = many ? strtoull(many, NULL, 10) : 60;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        rnd_state = seed * 77;
        test_tree_remove(test_dir);
        mkdir(test_dir, 0700);
        memset(&mo, 0, sizeof mo);
        mo.l = create();
        mo.first = mo.last = mo.term = mo.terms[1] = 1;
        mo.term = 1;
        for (unsigned i = 0; i < 80; i++) {
            uint64_t what = rnd(20);
            if (what < 15)
                model_write();
            else if (what < 16)
                model_compact();
            else if (what < 17)
                model_install();
            if (what >= 17 || i == 79) {
                raft_log_close(mo.l);
                if (raft_log_open(&mo.l, test_dir, &e) < 0)
                    fail_msg("seed %llu, step %u: %s", (unsigned long long)seed, i, e.msg);
                model_check();
            }
        }
        raft_log_close(mo.l);
    }
}

static void test_set_id(void **state)
{
    (void)state;
    struct raft_log *l = create();
    assert_int_equal(append(l, 2, 1, STR("two")), 0);
    assert_int_equal(raft_log_set_id(l, 4711, &e), 0);
    raft_log_close(l);
    assert_int_equal(raft_log_open(&l, test_dir, &e), 0);
    assert_int_equal(raft_log_identity(l)->id, 4711);
    assert_string_equal(raft_log_identity(l)->node_id, "node1");
    assert_entry(l, 2, 1, STR("two"));
    raft_log_close(l);
}

static void test_steps_of_a_write(void **state)
{
    (void)state;
    struct raft_log *l = create();
    struct raft_log_entry en = { 2, 1, RAFT_ENTRY_DATA, STR("two") };
    struct raft_log_write w = { .entries = &en, .n_entries = 1 };
    assert_int_equal(raft_log_begin_write(l, &w, &e), 0);
    assert_entry(l, 2, 1, STR("two"));
    assert_int_equal(raft_log_sync(l), 0);
    assert_int_equal(raft_log_end_write(l, 0, &e), 0);
    en = (struct raft_log_entry){ 3, 1, RAFT_ENTRY_DATA, STR("three") };
    assert_int_equal(raft_log_begin_write(l, &w, &e), 0);
    assert_int_equal(raft_log_end_write(l, -EIO, &e), -ERR_IO);
    assert_true(raft_log_broken(l));
    assert_int_equal(append(l, 4, 1, STR("four")), -ERR_IO);
    raft_log_close(l);
    assert_int_equal(raft_log_open(&l, test_dir, &e), 0);
    assert_entry(l, 2, 1, STR("two"));
    raft_log_close(l);
}

static void test_members(void **state)
{
    (void)state;
    struct raft_log *l = NULL;
    struct raft_hard_state hs = { 1, 42 };
    struct raft_log_entry en[2] = { { 1, 1, RAFT_ENTRY_MEMBERS, STR("m") }, { 2, 1, RAFT_ENTRY_DATA, STR("d") } };
    assert_int_equal(raft_log_create_with(test_dir, &id, &hs, en, 2, &e), 0);
    assert_int_equal(raft_log_open(&l, test_dir, &e), 0);
    assert_int_equal(raft_log_members_at(l, 2), 1);
    struct raft_log_entry more[2] = { { 3, 1, RAFT_ENTRY_MEMBERS, STR("m3") },
                                      { 4, 1, RAFT_ENTRY_MEMBERS, STR("m4") } };
    struct raft_log_write w = { .entries = more, .n_entries = 2 };
    assert_int_equal(raft_log_write(l, &w, &e), 0);
    assert_int_equal(raft_log_members_at(l, UINT64_MAX), 4);
    w = (struct raft_log_write){ .truncate_from = 4 };
    assert_int_equal(raft_log_write(l, &w, &e), 0);
    raft_log_close(l);
    assert_int_equal(raft_log_open(&l, test_dir, &e), 0);
    assert_int_equal(raft_log_members_at(l, UINT64_MAX), 3);
    assert_int_equal(raft_log_members_at(l, 2), 1);
    assert_entry(l, 3, 1, STR("m3"));
    raft_log_close(l);
}

/* A member that joins: nothing, then a snapshot from the leader, then entries behind it. */
static void test_join_and_install(void **state)
{
    (void)state;
    struct raft_log *l = NULL;
    struct raft_log_state st;
    struct raft_hard_state none = { 0 }, hs = { 7, 0 };
    bool more;
    assert_int_equal(raft_log_create_with(test_dir, &id, &none, NULL, 0, &e), 0);
    assert_int_equal(raft_log_open(&l, test_dir, &e), 0);
    raft_log_state(l, &st);
    assert_int_equal(st.first_index, 1);
    assert_int_equal(st.last_index, 0);
    assert_int_equal(st.hard_state.term, 0);
    struct raft_log_write w = { .hard_state = &hs };
    assert_int_equal(raft_log_write(l, &w, &e), 0);
    write_snapshot(l, 500, 6, 10);
    assert_int_equal(raft_log_install(l, 500, 8, &e), -ERR_INVALID); /* a term that has not been */
    assert_int_equal(raft_log_install(l, 501, 6, &e), -ERR_CORRUPT);
    assert_int_equal(raft_log_install(l, 500, 6, &e), 0);
    for (int i = 0; i < 2; i++) {
        raft_log_state(l, &st);
        assert_int_equal(st.first_index, 501);
        assert_int_equal(st.last_index, 500);
        assert_int_equal(st.snapshot_term, 6);
        assert_int_equal(st.hard_state.term, 7);
        raft_log_close(l);
        assert_int_equal(raft_log_open(&l, test_dir, &e), 0);
    }
    assert_int_equal(append(l, 501, 6, STR("a")), 0);
    assert_int_equal(append(l, 502, 7, STR("b")), 0);
    assert_int_equal(append(l, 503, 7, STR("c")), 0);
    write_snapshot(l, 502, 7, 10);
    assert_int_equal(raft_log_install(l, 502, 7, &e), 0); /* has it: keeps what follows */
    raft_log_close(l);
    assert_int_equal(raft_log_open(&l, test_dir, &e), 0);
    raft_log_state(l, &st);
    assert_int_equal(st.first_index, 503);
    assert_entry(l, 503, 7, STR("c"));
    hs.term = 9;
    assert_int_equal(raft_log_write(l, &w, &e), 0);
    write_snapshot(l, 503, 8, 10);
    assert_int_equal(raft_log_install(l, 503, 8, &e), 0); /* has another one there: drops it */
    raft_log_close(l);
    assert_int_equal(raft_log_open(&l, test_dir, &e), 0);
    raft_log_state(l, &st);
    assert_int_equal(st.last_index, 503);
    assert_int_equal(st.snapshot_term, 8);
    assert_int_equal(st.hard_state.term, 9);
    assert_int_equal(append(l, 504, 9, STR("d")), 0);
    write_snapshot(l, 504, 9, 1);
    assert_int_equal(raft_log_compact(l, 504, 505, 10, &more, &e), 0);
    raft_log_close(l);
    assert_int_equal(reopen(), 0);
}

static int fill(void *arg, struct snapshot_writer *w, struct err *err)
{
    (void)arg;
    return snapshot_put(w, STR("a record"), err);
}

static void test_create_from_snapshot(void **state)
{
    (void)state;
    struct raft_log *l = NULL;
    struct raft_log_state st;
    struct raft_hard_state hs = { 5, 42 };
    assert_int_equal(raft_log_create_snapshot(test_dir, &id, &hs, 77, 4, fill, NULL, &e), 0);
    assert_int_equal(raft_log_open(&l, test_dir, &e), 0);
    raft_log_state(l, &st);
    assert_int_equal(st.snapshot_index, 77);
    assert_int_equal(st.snapshot_term, 4);
    assert_int_equal(st.first_index, 78);
    assert_int_equal(st.hard_state.term, 5);
    assert_int_equal(append(l, 78, 5, STR("x")), 0);
    raft_log_close(l);
    assert_int_equal(reopen(), 0);
}

static void test_snapshot_travels(void **state)
{
    (void)state;
    struct raft_log *l = create();
    struct snapshot_reader *rd = NULL;
    struct snapshot_writer *w = NULL;
    struct buf b = BUF_INIT;
    struct raft_hard_state hs = { 9, 0 };
    struct raft_log_write hw = { .hard_state = &hs };
    bool last = false;
    assert_int_equal(raft_log_write(l, &hw, &e), 0);
    write_snapshot(l, 400, 9, 700);
    assert_int_equal(snapshot_open(&rd, raft_log_dir(l), raft_log_key(l), 400, 9, &e), 0);
    assert_int_equal(snapshot_size(rd), 700 * 1004);
    assert_int_equal(snapshot_receive(&w, raft_log_dir(l), raft_log_key(l), 410, 9, &e), 0);
    for (uint32_t part = 0; !last; part++) {
        buf_clear(&b);
        assert_int_equal(snapshot_chunk(rd, part, &b, &last, &e), 0);
        assert_int_equal(snapshot_next_part(w), part);
        assert_int_equal(snapshot_put_chunk(w, part + 1, buf_str(&b), last, &e), -ERR_INVALID);
        if (!last)
            assert_int_equal(snapshot_put_chunk(w, part, (struct str){ b.p, b.n - 1 }, last, &e), -ERR_INVALID);
        assert_int_equal(snapshot_put_chunk(w, part, buf_str(&b), last, &e), 0);
        if (part == 1) { /* behind a gap, and before */
            struct buf c = BUF_INIT;
            assert_int_equal(snapshot_chunk(rd, 0, &c, &last, &e), 0);
            assert_int_equal(c.n, SNAPSHOT_CHUNK);
            buf_done(&c);
        }
    }
    buf_clear(&b);
    assert_int_equal(snapshot_chunk(rd, snapshot_next_part(w), &b, &last, &e), -ERR_INVALID);
    assert_int_equal(snapshot_finish(w, &e), 0);
    snapshot_close(w);
    snapshot_reader_close(rd);
    assert_int_equal(raft_log_install(l, 410, 9, &e), 0);
    raft_log_close(l);
    assert_int_equal(reopen(), 0);
    buf_done(&b);
}

/* What arrived is not a snapshot: refused, and the log is as it was. */
static void test_install_garbage(void **state)
{
    (void)state;
    struct raft_log *l = create();
    struct snapshot_writer *w = NULL;
    struct raft_hard_state hs = { 9, 0 };
    struct raft_log_write hw = { .hard_state = &hs };
    assert_int_equal(raft_log_write(l, &hw, &e), 0);
    assert_int_equal(snapshot_receive(&w, raft_log_dir(l), raft_log_key(l), 400, 9, &e), 0);
    assert_int_equal(snapshot_finish(w, &e), -ERR_INVALID); /* the last part is not there yet */
    assert_int_equal(snapshot_put_chunk(w, 0, STR("\0\0\0\7abc"), true, &e), 0);
    assert_int_equal(snapshot_finish(w, &e), 0);
    snapshot_close(w);
    assert_int_equal(raft_log_install(l, 400, 9, &e), -ERR_CORRUPT);
    assert_int_equal(append(l, 2, 9, STR("two")), 0);
    raft_log_close(l);
    assert_int_equal(raft_log_open(&l, test_dir, &e), 0);
    assert_entry(l, 1, 1, STR("first"));
    assert_entry(l, 2, 9, STR("two"));
    raft_log_close(l);
    assert_true(test_missing("log/snap-00000000000000000400"));
}

static int reopen_with(const struct seal_key *kek)
{
    struct raft_log *l = NULL;
    int r = raft_log_open_with(&l, test_dir, kek, &e);
    raft_log_close(l);
    return r;
}

static void test_autolock(void **state)
{
    (void)state;
    struct seal_key k1 = { { 1 } }, k2 = { { 2 } }, data;
    char dir[600];
    struct raft_log *l = NULL;
    ten_entries(false);
    snprintf(dir, sizeof dir, "%s/log", test_dir);
    assert_int_equal(raft_log_open(&l, test_dir, &e), 0);
    data = *raft_log_key(l);
    raft_log_close(l);
    assert_false(raft_log_locked(test_dir));
    assert_int_equal(seal_keys_rewrap(dir, &data, &k1, &e), 0);
    assert_true(raft_log_locked(test_dir));
    assert_true(test_missing("log/kek"));
    assert_int_equal(reopen(), -ERR_PRECONDITION);
    assert_int_equal(reopen_with(&k2), -ERR_DENIED);
    assert_string_equal(e.msg, "invalid key");
    assert_int_equal(reopen_with(&k1), 0);
    assert_true(seal_keys_wrapped_by(dir, &k1));
    assert_false(seal_keys_wrapped_by(dir, &k2));
    assert_int_equal(seal_keys_rewrap(dir, &data, &k2, &e), 0);
    assert_int_equal(reopen_with(&k1), -ERR_DENIED);
    assert_int_equal(reopen_with(&k2), 0);
    assert_int_equal(seal_keys_rewrap(dir, &data, NULL, &e), 0);
    assert_false(raft_log_locked(test_dir));
    assert_int_equal(reopen_with(&k2), -ERR_DENIED);
    assert_int_equal(reopen(), 0);
}

static void test_unlock_text(void **state)
{
    (void)state;
    struct seal_key k, back;
    char text[SEAL_UNLOCK_TEXT_SIZE];
    for (unsigned i = 0; i < sizeof k.b; i++)
        k.b[i] = (uint8_t)(i * 37 + 200);
    seal_unlock_text(&k, text);
    assert_int_equal(strlen(text), 52);
    assert_memory_equal(text, "SWMKEY-1-", 9);
    assert_true(seal_unlock_parse(str_from(text), &back));
    assert_memory_equal(&back, &k, sizeof k);
    for (unsigned i = 0; i < 52; i++) { /* one letter changed: refused, or another key */
        char c = text[i];
        text[i] = '*';
        assert_false(seal_unlock_parse(str_from(text), &back));
        text[i] = i < 51 ? ' ' : 'B';
        assert_false(seal_unlock_parse(str_from(text), &back));
        text[i] = c;
        assert_false(seal_unlock_parse((struct str){ text, i }, &back));
    }
    assert_false(seal_unlock_parse(STR(""), &back));
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
        T(test_unfinished_write),
        T(test_unfinished_but_synced),
        T(test_altered_snapshot),
        T(test_erase),
        T(test_nothing_in_the_clear),
        T(test_segments),
        T(test_compaction_at_a_cut),
        T(test_any_history),
        T(test_set_id),
        T(test_steps_of_a_write),
        T(test_members),
        T(test_join_and_install),
        T(test_create_from_snapshot),
        T(test_snapshot_travels),
        T(test_install_garbage),
        T(test_autolock),
        T(test_unlock_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
