#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/util/arena.h"
#include "common/util/clock.h"
#include "common/util/dir.h"
#include "common/util/err.h"
#include "common/util/id.h"
#include "common/util/str.h"

static void errors_gather_context(void **state)
{
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(err_set(&e, ERR_NOT_FOUND, "open %s", "x"), -ERR_NOT_FOUND);
    assert_int_equal(err_wrap(&e, "recover term %d", 7), -ERR_NOT_FOUND);
    assert_string_equal(e.msg, "recover term 7: open x");
    assert_string_equal(err_name(ERR_CONFLICT), "conflict");
    assert_string_equal(err_name(-3), "unknown");
    assert_string_equal(err_name(ERR_CODE_COUNT), "unknown");
}

static void long_errors_are_cut_not_overrun(void **state)
{
    struct err e = ERR_INIT;
    char text[2000];
    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    err_set(&e, ERR_IO, "%s", text);
    err_wrap(&e, "%s", text);
    assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
}

static void buffers_stop_at_their_limit(void **state)
{
    struct buf b = { .limit = 10 };
    (void)state;
    buf_puts(&b, "12345");
    buf_puts(&b, "678901");
    assert_true(b.failed);
    assert_int_equal(b.n, 5);
    buf_clear(&b);
    buf_puts(&b, "ok");
    assert_false(b.failed);
    assert_string_equal(buf_cstr(&b), "ok");
    buf_done(&b);
}

static void json_strings_are_always_valid(void **state)
{
    struct buf b = BUF_INIT;
    (void)state;
    buf_json_str(&b, (struct str){ "a\"\\\n\x01\x7f\xc3\xa4\xff\xed\xa0\x80z", 13 });
    assert_string_equal(buf_cstr(&b), "\"a\\\"\\\\\\n\\u0001\x7f\xc3\xa4\\ufffd\\ufffd\\ufffd\\ufffdz\"");
    buf_done(&b);
}

static void numbers_are_whole_or_nothing(void **state)
{
    uint64_t v = 9;
    (void)state;
    assert_true(str_u64(STR("18446744073709551615"), &v));
    assert_true(v == UINT64_MAX);
    assert_false(str_u64(STR("18446744073709551616"), &v));
    assert_false(str_u64(STR(""), &v));
    assert_false(str_u64(STR("1x"), &v));
    assert_false(str_u64(STR("-1"), &v));
}

static void arenas_refuse_beyond_their_limit(void **state)
{
    struct arena a;
    (void)state;
    arena_init(&a, 10000);
    assert_non_null(arena_alloc(&a, 9000));
    assert_null(arena_alloc(&a, 2000));
    assert_null(arena_array(&a, SIZE_MAX / 2, 4));
    arena_reset(&a);
    char *p = arena_alloc(&a, 5000);
    assert_non_null(p);
    for (int i = 0; i < 5000; i++)
        assert_int_equal(p[i], 0);
    arena_done(&a);
}

static void wall_is(int64_t ns, const char *want)
{
    char text[WALL_TEXT_MAX];
    struct wall_ns back;
    wall_format((struct wall_ns){ ns }, text);
    assert_string_equal(text, want);
    assert_true(wall_parse(str_from(text), &back));
    assert_true(back.ns == ns);
}

static void times_are_written_as_go_does(void **state)
{
    struct wall_ns t;
    (void)state;
    wall_is(0, "0001-01-01T00:00:00Z");
    wall_is(1, "1970-01-01T00:00:00.000000001Z");
    wall_is(1795190234270760250, "2026-11-20T15:57:14.27076025Z");
    wall_is(-1000000000, "1969-12-31T23:59:59Z");
    assert_true(wall_parse(STR("2026-11-20T16:37:14+02:00"), &t));
    assert_true(t.ns == 1795185434000000000);
    assert_false(wall_parse(STR("2026-11-20"), &t));
    assert_false(wall_parse(STR("2026-13-20T16:37:14Z"), &t));
    assert_false(wall_parse(STR("2026-11-20T16:37:14"), &t));
    assert_false(wall_parse(STR("2026-11-20T16:37:14.Z"), &t));
    assert_false(wall_parse(STR("9999-11-20T16:37:14Z"), &t));
}

static void durations_are_written_as_go_does(void **state)
{
    int64_t ns;
    (void)state;
    assert_true(duration_parse(STR("1h30m"), &ns) && ns == 5400000000000);
    assert_true(duration_parse(STR("1.5s"), &ns) && ns == 1500000000);
    assert_true(duration_parse(STR("50ms"), &ns) && ns == 50000000);
    assert_true(duration_parse(STR("0"), &ns) && ns == 0);
    assert_false(duration_parse(STR(""), &ns));
    assert_false(duration_parse(STR("5"), &ns));
    assert_false(duration_parse(STR("-5s"), &ns));
    assert_false(duration_parse(STR("99999999999h"), &ns));
    assert_false(duration_parse(STR("s"), &ns));
}

static void ids_look_like_dockers(void **state)
{
    char a[ID_SIZE], b[ID_SIZE];
    uint8_t zero[17] = { 0 };
    (void)state;
    id_new(a);
    id_new(b);
    assert_int_equal(strlen(a), ID_LEN);
    assert_string_not_equal(a, b);
    assert_int_equal(strspn(a, "0123456789abcdefghijklmnopqrstuvwxyz"), ID_LEN);
    id_from_bytes(zero, a);
    id_from_bytes(zero, b);
    assert_string_equal(a, b);
}

static void ids_are_safe_as_file_names(void **state)
{
    char text[66];
    (void)state;
    memset(text, 'a', sizeof text);
    assert_true(id_ok(STR("abc-1_.x")) && id_ok((struct str){ text, 64 }));
    assert_false(id_ok(STR("")) || id_ok(STR(".x")) || id_ok(STR("..")) || id_ok((struct str){ text, 65 }));
    assert_false(id_ok(STR("a/b")) || id_ok(STR("a,lowerdir=b")) || id_ok(STR("a:b")) || id_ok(STR("a\nb")) ||
                 id_ok(STR("a\0b")));
}

static void own_folders_are_nobody_elses(void **state)
{
    char base[] = "/tmp/util_test.XXXXXX", path[64], link[64];
    struct err e = ERR_INIT;
    (void)state;
    assert_non_null(mkdtemp(base));
    snprintf(path, sizeof path, "%s/a", base);
    snprintf(link, sizeof link, "%s/b", base);
    assert_int_equal(dir_own(path, 0700, &e), 0);
    assert_int_equal(dir_own(path, 0700, &e), 0);
    assert_int_equal(symlink(path, link), 0);
    assert_int_equal(dir_own(link, 0700, &e), -ERR_DENIED);
    assert_int_equal(chmod(path, 0770), 0);
    assert_int_equal(dir_own(path, 0700, &e), -ERR_DENIED);
    assert_int_equal(chmod(path, 0750), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(path, 61999, (gid_t)-1), 0);
        assert_int_equal(dir_own(path, 0700, &e), -ERR_DENIED);
    }
    assert_int_equal(unlink(link), 0);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(dir_own(base, 0700, &e), 0);
    assert_int_equal(rmdir(base), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_gather_context),        cmocka_unit_test(long_errors_are_cut_not_overrun),
        cmocka_unit_test(buffers_stop_at_their_limit),  cmocka_unit_test(json_strings_are_always_valid),
        cmocka_unit_test(numbers_are_whole_or_nothing), cmocka_unit_test(arenas_refuse_beyond_their_limit),
        cmocka_unit_test(times_are_written_as_go_does), cmocka_unit_test(durations_are_written_as_go_does),
        cmocka_unit_test(ids_look_like_dockers),        cmocka_unit_test(ids_are_safe_as_file_names),
        cmocka_unit_test(own_folders_are_nobody_elses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
