#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "common/proto/fields.h"
#include "common/proto/msg_dispatcherd.h"
#include "common/proto/msg_raftd.h"

static struct str bytes(const char *p, size_t n)
{
    return (struct str){ p, n };
}
#define B(lit) bytes(lit, sizeof(lit) - 1)

static void counts_beyond_the_input_are_refused(void **state)
{
    (void)state;
    assert_false(mp_valid(B("\xdd\x07\xff\xff\xff")));
    assert_false(mp_valid(B("\xdf\xff\xff\xff\xff")));
    assert_false(mp_valid(B("\xdb\xff\xff\xff\xff"
                            "abc")));
    assert_false(mp_valid(B("\xc6\x7f\xff\xff\xff")));
    assert_false(mp_valid(B("\x92\x01")));
    assert_false(mp_valid(B("\x82\x01\x02\x03")));
}

static void odd_bytes_are_refused(void **state)
{
    (void)state;
    assert_false(mp_valid(B("")));
    assert_false(mp_valid(B("\xc1")));         /* reserved */
    assert_false(mp_valid(B("\xd4\x01\x02"))); /* extension */
    assert_false(mp_valid(B("\x01\x01")));     /* two values */
    assert_true(mp_valid(B("\x82\xa1"
                           "a\x01\xa1"
                           "b\x93\xc0\xc2\xc3")));
}

static void nesting_has_a_limit(void **state)
{
    char deep[200];
    (void)state;
    memset(deep, '\x91', sizeof deep);
    assert_false(mp_valid(bytes(deep, sizeof deep)));
    memset(deep, '\x91', 30);
    deep[30] = '\x01';
    assert_true(mp_valid(bytes(deep, 31)));
}

static void every_number_survives(void **state)
{
    static const int64_t v[] = { 0,  1,   127, 128,  255,  256,    65535,  65536,     INT32_MAX, INT64_MAX,
                                 -1, -32, -33, -128, -129, -32768, -32769, INT32_MIN, INT64_MIN };
    (void)state;
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        struct buf b = BUF_INIT;
        int64_t back;
        mp_i64(&b, v[i]);
        assert_true(mp_as_i64(buf_str(&b), &back));
        assert_true(back == v[i]);
        buf_done(&b);
    }
    struct buf b = BUF_INIT;
    uint64_t u;
    mp_u64(&b, UINT64_MAX);
    assert_true(mp_as_u64(buf_str(&b), &u) && u == UINT64_MAX);
    buf_done(&b);
}

static void json_is(struct str span, const char *want)
{
    struct buf b = BUF_INIT;
    mp_to_json(&b, span);
    assert_string_equal(buf_cstr(&b), want);
    buf_done(&b);
}

static void packed_values_read_the_same(void **state)
{
    struct buf b = BUF_INIT, p = BUF_INIT, twice = BUF_INIT, j1 = BUF_INIT, j2 = BUF_INIT;
    struct str s;
    uint64_t u;
    (void)state;
    mp_map(&b, 4);
    mp_kv_cstr(&b, "DesiredState", "running");
    mp_kv_u64(&b, "Slot", 70000);
    mp_kv_cstr(&b, "Unknown", "Slot");
    mp_cstr(&b, "Status");
    mp_map(&b, 2);
    mp_kv_cstr(&b, "State", "shutdown");
    mp_kv_cstr(&b, "Err", "no such thing");
    assert_int_equal(mp_pack(&p, buf_str(&b)), 0);
    assert_true(p.n < b.n && mp_valid(buf_str(&p)));
    assert_true(mp_get_str(buf_str(&p), "Status.State", &s) && str_is(s, "shutdown"));
    assert_true(mp_get_str(buf_str(&p), "Status.Err", &s) && str_is(s, "no such thing"));
    assert_true(mp_get_str(buf_str(&p), "Unknown", &s) && str_is(s, "Slot"));
    assert_true(mp_get_u64(buf_str(&p), "Slot", &u) && u == 70000);
    mp_to_json(&j1, buf_str(&b));
    mp_to_json(&j2, buf_str(&p));
    assert_string_equal(buf_cstr(&j1), buf_cstr(&j2));
    assert_int_equal(mp_pack(&twice, buf_str(&p)), 0);
    assert_true(str_eq(buf_str(&p), buf_str(&twice)));
    for (size_t n = 0; n < p.n; n++) { /* cut anywhere */
        assert_false(mp_valid((struct str){ p.p, n }));
        assert_int_equal(mp_pack(&twice, (struct str){ p.p, n }), -ERR_INVALID);
    }
    assert_false(mp_valid(STR("\xd4x\x01")));     /* another extension type, */
    assert_false(mp_valid(STR("\xd4w\xff")));     /* a word of a newer version */
    assert_false(mp_valid(STR("\xc7\x01w\x01"))); /* in another size */
    buf_done(&b);
    buf_done(&p);
    buf_done(&twice);
    buf_done(&j1);
    buf_done(&j2);
}

/* What stands for a word is stored: it may never stand for another one. */
static void words_keep_their_numbers(void **state)
{
    struct str s;
    (void)state;
    assert_true(mp_as_str(STR("\xd4w\x00"), &s) && str_is(s, "ServiceID"));
    assert_true(mp_as_str(STR("\xd4w\x05"), &s) && str_is(s, "Status"));
    assert_true(mp_as_str(STR("\xd4w\x2e"), &s) && str_is(s, "running"));
    assert_true(mp_as_str(STR("\xd4w\x41"), &s) && str_is(s, "udp"));
}

static void paths_and_json(void **state)
{
    struct str doc = B("\x81\xa4Spec\x82\xa4Name\xa3web\xa1n\x05"), s;
    uint64_t n;
    (void)state;
    assert_true(mp_get_str(doc, "Spec.Name", &s) && str_is(s, "web"));
    assert_true(mp_get_u64(doc, "Spec.n", &n) && n == 5);
    assert_false(mp_get_u64(doc, "Spec.Name", &n));
    assert_false(mp_path(doc, "Spec.Nope", &s));
    assert_false(mp_path(doc, "Spec.Name.x", &s));
    json_is(doc, "{\"Spec\":{\"Name\":\"web\",\"n\":5}}");
    json_is(B("\x93\xc4\x04"
              "abcd\xc0\xff"),
            "[\"YWJjZA==\",null,-1]");
    json_is(B("\x93\x01"), "null");
}

static void merge_keeps_what_it_does_not_touch(void **state)
{
    struct buf out = BUF_INIT;
    struct err e = ERR_INIT;
    (void)state;
    /* {a:1,b:2,x:[9]} + {b:nil,a:7,c:3} = {a:7,x:[9],c:3} */
    assert_int_equal(mp_merge(&out,
                              B("\x83\xa1"
                                "a\x01\xa1"
                                "b\x02\xa1x\x91\x09"),
                              B("\x83\xa1"
                                "b\xc0\xa1"
                                "a\x07\xa1"
                                "c\x03"),
                              &e),
                     0);
    json_is(buf_str(&out), "{\"a\":7,\"x\":[9],\"c\":3}");
    assert_int_equal(mp_merge(&out, B("\x01"), B("\x80"), &e), -ERR_INVALID);
    buf_done(&out);
}

static void expect_refusal(struct str in, const char *want)
{
    struct raftd_txn t;
    struct arena a;
    struct err e = ERR_INIT;
    arena_init(&a, 1 << 20);
    assert_true(fields_decode(&t, op_raftd_txn.req, sizeof t, in, FIELDS_STRICT, &a, &e) < 0);
    assert_string_equal(e.msg, want);
    arena_done(&a);
}

static void strict_decoding_names_the_field(void **state)
{
    (void)state;
    expect_refusal(B("\x91\x01"), "message: must be a map");
    expect_refusal(B("\x81\xa4Term\xff"), "Term: must not be negative");
    expect_refusal(B("\x82\xa4Term\x01\xa4Term\x01"), "Term: given twice");
    expect_refusal(B("\x81\xa4Trem\x01"), "Trem: unknown field");
    expect_refusal(B("\x81\xa7"
                     "Changes\x91\x81\xa2Op\xa6"
                     "create"),
                   "Changes[0].Kind: is missing");
    expect_refusal(B("\x80\x01"), "message: bytes left over");
    expect_refusal(B("\x81\xa7"
                     "Changes\x05"),
                   "Changes: must be a list");
}

static void views_skip_what_they_do_not_know(void **state)
{
    struct raftd_txn t;
    struct arena a;
    struct err e = ERR_INIT;
    (void)state;
    arena_init(&a, 1 << 20);
    struct str in = B("\x83\xa3New\x81\xa1x\x01\xa4Term\x09\xa7"
                      "Changes\xc0");
    assert_int_equal(fields_decode(&t, op_raftd_txn.req, sizeof t, in, FIELDS_VIEW, &a, &e), 0);
    assert_int_equal(t.Term, 9);
    assert_int_equal(t.Changes.n, 0);
    arena_done(&a);
}

static void structs_make_the_round_trip(void **state)
{
    struct str names[] = { STR("a"), STR("") };
    struct strpair pairs[] = { { STR("k"), STR("v") } };
    struct assignment as[] = { { .ID = STR("t1"),
                                 .Rev = 5,
                                 .DesiredState = STR("running"),
                                 .Slot = 3,
                                 .ServiceLabels = { pairs, 1 },
                                 .Spec = B("\x81\xa1x\x01") } };
    struct disp_assignments_reply in = { .Seq = 7, .Full = true, .Tasks = { as, 1 }, .Removed = { names, 2 } }, out;
    struct buf b = BUF_INIT, b2 = BUF_INIT;
    struct arena a;
    struct err e = ERR_INIT;
    (void)state;
    arena_init(&a, 1 << 20);
    fields_encode(&in, op_disp_assignments.rep, &b);
    assert_int_equal(fields_decode(&out, op_disp_assignments.rep, sizeof out, buf_str(&b), FIELDS_STRICT, &a, &e), 0);
    assert_true(out.Full);
    assert_int_equal(out.Tasks.n, 1);
    const struct assignment *t = out.Tasks.v;
    assert_true(str_is(t->ID, "t1") && t->Slot == 3 && str_is(t->ServiceLabels.v[0].val, "v"));
    json_is(t->Spec, "{\"x\":1}");
    fields_encode(&out, op_disp_assignments.rep, &b2);
    assert_true(str_eq(buf_str(&b), buf_str(&b2)));
    buf_done(&b);
    buf_done(&b2);
    arena_done(&a);
}

static void a_full_arena_refuses_the_message(void **state)
{
    struct raftd_txn t;
    struct arena a;
    struct err e = ERR_INIT;
    char in[3000];
    size_t n = 0;
    (void)state;
    static const char head[12] = { '\x81', '\xa7', 'C', 'h', 'a', 'n', 'g', 'e', 's', '\xdc', '\x03', '\xe8' };
    memcpy(in, head, sizeof head);
    n = 12;
    memset(in + n, '\x80', 1000);
    arena_init(&a, 1000);
    assert_int_equal(fields_decode(&t, op_raftd_txn.req, sizeof t, bytes(in, n + 1000), FIELDS_STRICT, &a, &e),
                     -ERR_NOMEM);
    arena_done(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_beyond_the_input_are_refused),
        cmocka_unit_test(odd_bytes_are_refused),
        cmocka_unit_test(nesting_has_a_limit),
        cmocka_unit_test(every_number_survives),
        cmocka_unit_test(paths_and_json),
        cmocka_unit_test(packed_values_read_the_same),
        cmocka_unit_test(words_keep_their_numbers),
        cmocka_unit_test(merge_keeps_what_it_does_not_touch),
        cmocka_unit_test(strict_decoding_names_the_field),
        cmocka_unit_test(views_skip_what_they_do_not_know),
        cmocka_unit_test(structs_make_the_round_trip),
        cmocka_unit_test(a_full_arena_refuses_the_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
