#include "common/util/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void test_table_holds(void **state)
{
    struct table t;
    char key[32];
    bool fresh;
    (void)state;
    table_init(&t, sizeof(unsigned));
    assert_null(table_get(&t, STR("none")));
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(key, sizeof key, "key-%u", i);
        unsigned *v = table_put(&t, str_from(key), &fresh);
        assert_true(fresh);
        assert_int_equal(*v, 0);
        *v = i;
        assert_true(str_is(table_key(&t, v), key));
    }
    unsigned *first = table_get(&t, STR("key-7"));
    assert_int_equal(*first, 7);
    assert_ptr_equal(table_put(&t, STR("key-7"), &fresh), first);
    assert_false(fresh);
    assert_true(table_del(&t, STR("key-7")));
    assert_false(table_del(&t, STR("key-7")));
    assert_int_equal(t.count, 999);
    table_done(&t);
}

static void test_table_iteration_survives_deleting_the_current(void **state)
{
    struct table t;
    char key[32];
    (void)state;
    table_init(&t, 0);
    for (unsigned i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "%u", i);
        table_put(&t, str_from(key), NULL);
    }
    struct str k;
    unsigned n = 0;
    for (struct table_pos p = { 0 }; table_next(&t, &p, &k, NULL); n++) {
        snprintf(key, sizeof key, STR_FMT, STR_ARG(k));
        assert_true(table_del(&t, str_from(key)));
    }
    assert_int_equal(n, 100);
    assert_int_equal(t.count, 0);
    table_done(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_holds),
        cmocka_unit_test(test_table_iteration_survives_deleting_the_current),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
