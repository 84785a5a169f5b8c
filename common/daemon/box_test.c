#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>

#include "common/daemon/box.h"

static void test_round_trip(void **state)
{
    (void)state;
    static const size_t sizes[] = { 0, 1, 31, 4096, 1024000 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i];
        char *text = malloc(n + 1), *back = malloc(n + 1);
        struct box_key k;
        struct buf b = BUF_INIT;
        struct err e = ERR_INIT;
        memset(text, 'x', n + 1);
        assert_int_equal(box_key_new(&k, &e), 0);
        assert_int_equal(box_seal((struct str){ text, n }, (struct str){ (char *)k.pub, BOX_KEY }, &b, &e), 0);
        assert_int_equal(b.n, n + BOX_OVERHEAD);
        assert_int_equal(box_open(&k, buf_str(&b), (uint8_t *)back, &e), 0);
        assert_memory_equal(text, back, n);
        assert_true(n < 31 || memmem(b.p, b.n, "xxxxxxxxxxxx", 12) == NULL);
        buf_done(&b);
        free(text);
        free(back);
    }
}

static void test_refused(void **state)
{
    (void)state;
    struct box_key k, other;
    struct buf b = BUF_INIT;
    struct err e = ERR_INIT;
    uint8_t back[64];
    assert_int_equal(box_key_new(&k, &e), 0);
    assert_int_equal(box_key_new(&other, &e), 0);
    assert_int_equal(box_seal(STR("hunter2"), (struct str){ (char *)k.pub, BOX_KEY }, &b, &e), 0);
    assert_int_equal(box_open(&other, buf_str(&b), back, &e), -ERR_CORRUPT);
    for (size_t i = 0; i < b.n; i++) { /* any bit */
        b.p[i] ^= 1;
        assert_int_not_equal(box_open(&k, buf_str(&b), back, &e), 0);
        b.p[i] ^= 1;
    }
    for (size_t n = 0; n < b.n; n++)
        assert_int_not_equal(box_open(&k, (struct str){ b.p, n }, back, &e), 0);
    assert_int_equal(box_open(&k, buf_str(&b), back, &e), 0);
    assert_int_equal(box_seal(STR("x"), STR("short key"), &b, &e), -ERR_INVALID);
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_round_trip), cmocka_unit_test(test_refused) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
