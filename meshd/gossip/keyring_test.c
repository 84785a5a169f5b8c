/* keyring_test.c - sealing, rotation, and everything that must be refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "meshd/gossip/keyring.h"

static const uint8_t key_a[KEYRING_KEY_SIZE] = { 1 }, key_b[KEYRING_KEY_SIZE] = { 2 };

static struct keyring *ring(uint64_t self, uint64_t boot, uint32_t senders)
{
    struct keyring *k = NULL;
    struct keyring_config conf = { .self = self, .boot = boot, .senders_max = senders };
    assert_int_equal(keyring_new(&k, &conf, NULL), 0);
    assert_int_equal(keyring_install(k, 1, key_a, NULL), 0);
    return k;
}

static struct buf sealed(struct keyring *k, uint64_t to, const char *text)
{
    struct buf b = BUF_INIT;
    assert_int_equal(keyring_seal(k, to, str_from(text), &b, NULL), 0);
    return b;
}

static int opened(struct keyring *k, const struct buf *b, const char *text)
{
    struct buf out = BUF_INIT;
    uint64_t sender = 0;
    int r = keyring_open(k, buf_str(b), &sender, &out, NULL);
    if (r == 0)
        assert_string_equal(buf_cstr(&out), text);
    else
        assert_int_equal(out.n, 0);
    buf_done(&out);
    return r;
}

static void test_round_trip(void **state)
{
    (void)state;
    struct keyring *a = ring(1, 1, 0), *b = ring(2, 1, 0), *c = ring(3, 1, 0);
    struct buf p = sealed(a, 2, "hello");
    assert_int_equal(p.n, 5 + KEYRING_OVERHEAD);
    assert_null(memmem(p.p, p.n, "hello", 5));
    assert_int_equal(opened(c, &p, ""), -ERR_DENIED); /* sent on to another */
    assert_int_equal(opened(b, &p, "hello"), 0);
    assert_int_equal(opened(b, &p, ""), -ERR_DENIED);
    struct keyring_counts n;
    keyring_counts(b, &n);
    assert_int_equal(n.opened, 1);
    assert_int_equal(n.replayed, 1);
    keyring_counts(c, &n);
    assert_int_equal(n.forged, 1);
    buf_done(&p);
    keyring_free(a);
    keyring_free(b);
    keyring_free(c);
}

static void test_altered(void **state)
{
    (void)state;
    struct keyring *a = ring(1, 1, 0), *b = ring(2, 1, 0);
    struct buf p = sealed(a, 2, "hello");
    for (size_t i = 0; i < 8 * p.n; i++) {
        p.p[i / 8] = (char)(p.p[i / 8] ^ 1 << i % 8);
        assert_true(opened(b, &p, "") < 0);
        p.p[i / 8] = (char)(p.p[i / 8] ^ 1 << i % 8);
    }
    for (size_t n = p.n; p.n > 0;) {
        p.n--;
        assert_true(opened(b, &p, "") < 0);
        if (p.n == 0) {
            p.n = n;
            break;
        }
    }
    assert_int_equal(opened(b, &p, "hello"), 0);
    buf_done(&p);
    static const char big[KEYRING_SEALED_MAX + 1] = { 1 };
    struct buf out = BUF_INIT;
    uint64_t sender;
    assert_int_equal(keyring_open(b, (struct str){ big, sizeof big }, &sender, &out, NULL), -ERR_INVALID);
    assert_int_equal(keyring_seal(a, 2, (struct str){ big, sizeof big }, &out, NULL), -ERR_TOO_BIG);
    buf_done(&out);
    keyring_free(a);
    keyring_free(b);
}

static void test_rotation(void **state)
{
    (void)state;
    struct keyring *a = ring(1, 1, 0), *b = ring(2, 1, 0);
    struct keyring_counts n;
    struct buf old = sealed(a, 2, "old"), late = sealed(a, 2, "late");
    assert_int_equal(keyring_install(a, 1, key_b, NULL), -ERR_CONFLICT);
    assert_int_equal(keyring_use(a, 2, NULL), -ERR_NOT_FOUND);
    assert_int_equal(keyring_install(a, 2, key_b, NULL), 0);
    assert_int_equal(keyring_use(a, 2, NULL), 0);
    assert_int_equal(keyring_primary(a), 2);
    struct buf early = sealed(a, 2, "early");
    assert_int_equal(opened(b, &early, ""), -ERR_DENIED); /* not installed there yet */
    keyring_counts(b, &n);
    assert_int_equal(n.unknown_key, 1);
    assert_int_equal(keyring_install(b, 2, key_b, NULL), 0);
    assert_int_equal(opened(b, &early, "early"), 0);
    assert_int_equal(opened(b, &old, "old"), 0); /* the old one still opens */
    assert_int_equal(keyring_remove(b, 1, NULL), -ERR_PRECONDITION);
    assert_int_equal(keyring_use(b, 2, NULL), 0);
    assert_int_equal(keyring_remove(b, 1, NULL), 0);
    assert_int_equal(opened(b, &late, ""), -ERR_DENIED); /* and now no more */
    assert_int_equal(keyring_remove(b, 1, NULL), -ERR_NOT_FOUND);
    for (uint32_t i = 3; i < 6; i++)
        assert_int_equal(keyring_install(b, i, key_a, NULL), 0);
    assert_int_equal(keyring_install(b, 6, key_a, NULL), -ERR_TOO_BIG);
    buf_done(&old);
    buf_done(&late);
    buf_done(&early);
    keyring_free(a);
    keyring_free(b);
}

static void test_window(void **state)
{
    (void)state;
    struct keyring *a = ring(1, 5, 0), *b = ring(2, 1, 0);
    struct buf p[600];
    for (size_t i = 0; i < 600; i++)
        p[i] = sealed(a, 2, "x");
    assert_int_equal(opened(b, &p[10], "x"), 0);
    assert_int_equal(opened(b, &p[3], "x"), 0); /* late, and in the window */
    assert_int_equal(opened(b, &p[265], "x"), 0);
    assert_int_equal(opened(b, &p[10], "x"), -ERR_DENIED);
    assert_int_equal(opened(b, &p[9], "x"), -ERR_DENIED); /* too old to tell */
    for (size_t i = 11; i < 265; i++)
        assert_int_equal(opened(b, &p[i], "x"), 0);
    assert_int_equal(opened(b, &p[599], "x"), 0);
    for (size_t i = 0; i < 600; i++)
        assert_int_equal(opened(b, &p[i], "x"), i < 344 || i == 599 ? -ERR_DENIED : 0);
    keyring_free(a);
    a = ring(1, 6, 0); /* a new start counts from 1 again */
    struct buf q = sealed(a, 2, "x");
    assert_int_equal(opened(b, &q, "x"), 0);
    for (size_t i = 0; i < 600; i++) {
        assert_int_equal(opened(b, &p[i], "x"), -ERR_DENIED);
        buf_done(&p[i]);
    }
    buf_done(&q);
    keyring_free(a);
    keyring_free(b);
}

static void test_senders(void **state)
{
    (void)state;
    struct keyring *b = ring(2, 1, 100);
    struct keyring_counts n;
    for (uint64_t round = 0; round < 2; round++)
        for (uint64_t i = 10; i < 111; i++) {
            struct keyring *a = ring(i, round + 1, 16);
            struct buf p = sealed(a, 2, "x");
            assert_int_equal(opened(b, &p, "x"), i == 110 ? -ERR_DENIED : 0);
            buf_done(&p);
            keyring_free(a);
        }
    keyring_counts(b, &n);
    assert_int_equal(n.strangers, 2);
    for (uint64_t i = 10; i < 60; i++)
        keyring_forget(b, i);
    for (uint64_t i = 60; i < 110; i++) { /* the others are still known */
        struct keyring *a = ring(i, 1, 16);
        struct buf p = sealed(a, 2, "x");
        assert_int_equal(opened(b, &p, "x"), -ERR_DENIED);
        buf_done(&p);
        keyring_free(a);
    }
    keyring_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_altered), cmocka_unit_test(test_rotation),
        cmocka_unit_test(test_window),     cmocka_unit_test(test_senders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
