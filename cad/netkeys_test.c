/* The ring of the data plane's keys: made when missing, one new each interval, three kept, epochs only grow. */
#include "cad/cad_netkeys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/util/check.h"

#define HOUR 3600000000000ll
#define EVERY (12 * HOUR)

static uint8_t next_byte;
static void counting(void *p, size_t n)
{
    memset(p, ++next_byte, n);
}

static void made_when_missing(void **state)
{
    struct netkeys k = { .rotated_ns = 0 };
    int64_t next = 0;
    (void)state;
    assert_true(netkeys_due(&k, EVERY, 5 * HOUR, &next));
    netkeys_rotate(&k, 5 * HOUR, counting);
    assert_int_equal(k.ring[0].n, 1);
    assert_int_equal(k.ring[1].n, 1);
    assert_int_equal(k.ring[0].keys[0].epoch, 1);
    assert_memory_not_equal(k.ring[0].keys[0].key, k.ring[1].keys[0].key, NETKEY_BYTES);
    assert_false(netkeys_due(&k, EVERY, 5 * HOUR, &next));
    assert_int_equal(next, 17 * HOUR);
    k.ring[1].n = 0; /* a purpose that a newer version knows */
    assert_true(netkeys_due(&k, EVERY, 5 * HOUR, &next));
}

static void three_are_kept(void **state)
{
    struct netkeys k = { .rotated_ns = 0 };
    int64_t next;
    uint8_t second[NETKEY_BYTES];
    (void)state;
    for (int i = 1; i <= 5; i++) {
        assert_true(netkeys_due(&k, EVERY, i * EVERY, &next));
        if (i > 1)
            memcpy(second, k.ring[0].keys[0].key, NETKEY_BYTES);
        netkeys_rotate(&k, i * EVERY, counting);
        assert_false(netkeys_due(&k, EVERY, (i + 1) * EVERY - 1, &next));
        assert_int_equal(k.ring[0].n, i < 3 ? i : 3);
        for (size_t j = 0; j < k.ring[0].n; j++)
            assert_int_equal(k.ring[0].keys[j].epoch, (unsigned)i - j);
        if (i > 1) /* what was the newest is what seals now */
            assert_memory_equal(k.ring[0].keys[1].key, second, NETKEY_BYTES);
    }
}

static void clocks_that_disagree(void **state)
{
    struct netkeys k = { .rotated_ns = 0 };
    int64_t next;
    (void)state;
    netkeys_rotate(&k, 100 * HOUR, counting);
    assert_false(netkeys_due(&k, EVERY, 99 * HOUR, &next)); /* a little behind: the same as in time */
    assert_true(netkeys_due(&k, EVERY, 50 * HOUR, &next));  /* far behind: not for 50 hours the same key */
    netkeys_rotate(&k, 50 * HOUR, counting);
    assert_int_equal(k.ring[0].keys[0].epoch, 2);
    assert_false(netkeys_due(&k, EVERY, 50 * HOUR, &next));
    assert_true(netkeys_due(&k, EVERY, 100 * HOUR, &next));
}

static void documents(void **state)
{
    struct netkeys k = { .rotated_ns = 0 }, back;
    struct buf b = BUF_INIT;
    struct arena a;
    struct err e = ERR_INIT;
    (void)state;
    arena_init(&a, 1 << 20);
    for (int i = 1; i <= 4; i++)
        netkeys_rotate(&k, i * EVERY, counting);
    netkeys_put(&b, "network-keys", &k);
    assert_false(b.failed);
    assert_int_equal(netkeys_read(buf_str(&b), &back, &a, &e), 0);
    assert_memory_equal(&k, &back, sizeof k);
    assert_int_equal(netkeys_read(STR("\xc1"), &back, &a, &e), -ERR_CORRUPT);
    buf_clear(&b); /* an unknown purpose, a short key, an epoch that is not older: left out */
    mp_map(&b, 1);
    mp_cstr(&b, "Keys");
    mp_array(&b, 4);
    static const struct {
        const char *purpose;
        uint64_t epoch;
        size_t n;
    } keys[] = { { "dns", 1, 32 }, { "esp", 9, 31 }, { "esp", 7, 32 }, { "esp", 7, 32 } };
    for (size_t i = 0; i < 4; i++) {
        uint8_t key[32] = { 7 };
        mp_map(&b, 3);
        mp_kv_cstr(&b, "Purpose", keys[i].purpose);
        mp_kv_u64(&b, "Epoch", keys[i].epoch);
        mp_cstr(&b, "Key");
        mp_bin(&b, (struct str){ (char *)key, keys[i].n });
    }
    assert_int_equal(netkeys_read(buf_str(&b), &back, &a, &e), 0);
    assert_int_equal(back.ring[0].n, 0);
    assert_int_equal(back.ring[1].n, 1);
    assert_int_equal(back.ring[1].keys[0].epoch, 7);
    netkeys_wipe(&back);
    assert_int_equal(back.ring[1].n, 0);
    buf_done(&b);
    arena_done(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(made_when_missing),
        cmocka_unit_test(three_are_kept),
        cmocka_unit_test(clocks_that_disagree),
        cmocka_unit_test(documents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
