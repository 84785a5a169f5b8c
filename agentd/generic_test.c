/* generic_test.c - what nodes declare and what containers are told. */
#include "agentd/generic.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_declared(void **state)
{
    static const struct {
        const char *text, *error; /* NULL: accepted */
        size_t n;
    } cases[] = {
        { "", NULL, 0 },
        { "  ", NULL, 0 },
        { "gpu=2", NULL, 1 },
        { "gpu=a gpu=b ssd=3", NULL, 3 },
        { " gpu=a\tgpu=b ", NULL, 2 },
        { "gpu=a=b", NULL, 1 },
        { "gpu", "generic resource \"gpu\": must be KIND=AMOUNT or KIND=NAME", 0 },
        { "gpu=", "generic resource \"gpu=\": must be KIND=AMOUNT or KIND=NAME", 0 },
        { "=1", "generic resource \"=1\": must be KIND=AMOUNT or KIND=NAME", 0 },
        { "gpu=1 gpu=a", "generic resource gpu: mixed discrete and named resources", 0 },
        { "gpu=1 gpu=1", "generic resource gpu=1: declared twice", 0 },
        { "gpu=a gpu=a", "generic resource gpu=a: declared twice", 0 },
        { "gpu=9223372036854775808", "generic resource gpu=9223372036854775808: too many", 0 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct generic_list l;
        struct arena a;
        struct err e;
        arena_init(&a, 1 << 20);
        int r = generic_parse(str_from(cases[i].text), &l, &a, &e);
        if (cases[i].error) {
            assert_int_equal(r, -ERR_INVALID);
            assert_string_equal(e.msg, cases[i].error);
        } else {
            assert_int_equal(r, 0);
            assert_int_equal(l.n, cases[i].n);
        }
        arena_done(&a);
    }
}

static void test_environment(void **state)
{
    struct generic_list l, back;
    struct buf doc = BUF_INIT, text = BUF_INIT;
    struct arena a;
    struct err e;
    (void)state;
    arena_init(&a, 1 << 20);
    assert_int_equal(generic_parse(STR("gpu=uuid1 ssd=3 gpu=uuid2"), &l, &a, &e), 0);
    generic_put(&l, &doc);
    assert_int_equal(generic_decode(buf_str(&doc), &back, &a), 0);
    assert_int_equal(back.n, 3);
    assert_true(generic_env_text(&back, 0, &text));
    assert_string_equal(buf_cstr(&text), "DOCKER_RESOURCE_GPU=uuid1,uuid2");
    assert_true(generic_env_text(&back, 1, &text));
    assert_string_equal(buf_cstr(&text), "DOCKER_RESOURCE_SSD=3");
    assert_false(generic_env_text(&back, 2, &text));
    assert_int_equal(generic_decode(STR("\x81"), &back, &a), -ERR_INVALID);
    assert_int_equal(generic_decode(STR("\xdd\x7f\xff\xff\xff"), &back, &a), -ERR_INVALID);
    buf_done(&doc);
    buf_done(&text);
    arena_done(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_declared), cmocka_unit_test(test_environment) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
