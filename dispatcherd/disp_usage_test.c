/* Means of what tasks report, and when they are worth writing. */
#include "dispatcherd/disp_usage.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define SERVICE STR("s1")

static bool take(struct usages *u, const char *task, uint64_t cpu, double metric, const char *error, uint64_t now_ms)
{
    struct task_usage t = { .TaskID = str_from(task),
                            .NanoCPUs = cpu,
                            .MemoryBytes = 100 << 20,
                            .HasMetric = !error,
                            .Metric = metric,
                            .Error = str_from(error) };
    return usages_take(u, SERVICE, &t, now_ms);
}

static bool due(struct usages *u, uint64_t now_ms, struct view_usage *ret)
{
    struct table_pos pos = { 0 };
    struct str service;
    bool yes = usages_due(u, &pos, now_ms, &service, ret);
    if (yes)
        assert_true(str_eq(service, SERVICE));
    return yes;
}

static void test_means(void **state)
{
    struct usages u;
    struct view_usage m;
    uint64_t now = 1000000;
    (void)state;
    usages_init(&u);
    assert_false(due(&u, now, &m));

    /* the first report is written at once, the next ones together */
    assert_true(take(&u, "a", 400000000, 10, NULL, now));
    assert_true(due(&u, now, &m));
    assert_int_equal(m.Tasks, 1);
    assert_false(take(&u, "b", 200000000, 20, NULL, now + 10));
    assert_false(due(&u, now + 10, &m));
    assert_true(take(&u, "a", 400000000, 10, NULL, now += 5000));
    assert_true(due(&u, now, &m));
    assert_int_equal(m.Tasks, 2);
    assert_int_equal(m.NanoCPUs, 300000000);
    assert_int_equal(m.MemoryBytes, 100 << 20);
    assert_true(m.HasMetric && m.Metric == 15);

    /* little has moved; after a minute it is written all the same */
    (void)take(&u, "a", 401000000, 10, NULL, now += 5000);
    (void)take(&u, "b", 200000000, 20, NULL, now);
    assert_false(due(&u, now, &m));
    for (unsigned i = 0; i < 11; i++) {
        now += 5000;
        (void)take(&u, "a", 401000000, 10, NULL, now);
        (void)take(&u, "b", 200000000, 20, NULL, now);
        assert_int_equal(due(&u, now, &m), i == 10);
    }

    /* a metric that is not there, or no number */
    (void)take(&u, "a", 401000000, 0, "connection refused", now += 5000);
    (void)take(&u, "b", 200000000, NAN, NULL, now);
    assert_true(due(&u, now, &m));
    assert_false(m.HasMetric);
    assert_true(str_is(m.Error, "connection refused") || str_is(m.Error, "not a number"));

    /* one does not report any more: forgotten */
    for (unsigned i = 0; i < 4; i++)
        (void)take(&u, "b", 200000000, 30, NULL, now += 5000);
    assert_true(due(&u, now, &m));
    assert_int_equal(m.Tasks, 1);
    assert_true(m.Metric == 30 && m.Error.n == 0);
    assert_int_equal(u.tasks.count, 1);

    /* it stops: at once */
    (void)take(&u, "d", 200000000, 40, NULL, now += 5000);
    (void)take(&u, "b", 200000000, 30, NULL, now);
    assert_true(due(&u, now, &m));
    assert_int_equal(m.Tasks, 2);
    usages_drop(&u, STR("d"));
    usages_drop(&u, STR("d"));
    assert_true(due(&u, now += 5000, &m));
    assert_int_equal(m.Tasks, 1);

    /* huge numbers do not overflow */
    (void)take(&u, "b", INT64_MAX, 1e308, NULL, now += 5000);
    (void)take(&u, "c", INT64_MAX, 1e308, NULL, now);
    assert_true(due(&u, now, &m));
    assert_false(m.HasMetric);
    usages_forget(&u, SERVICE);
    assert_int_equal(u.tasks.count + u.services.count, 0);
    usages_done(&u);
}

static uint64_t print(const char *const *labels)
{
    struct buf b = BUF_INIT;
    size_t n = 0;
    while (labels[2 * n])
        n++;
    mp_map(&b, 1);
    mp_cstr(&b, "Spec");
    mp_map(&b, 1);
    mp_cstr(&b, "Labels");
    mp_map(&b, n);
    for (size_t i = 0; i < n; i++)
        mp_kv_cstr(&b, labels[2 * i], labels[2 * i + 1]);
    uint64_t h = usages_print(buf_str(&b));
    buf_done(&b);
    return h;
}

static void test_print(void **state)
{
    const char *const none[] = { "a", "b", NULL }, *const one[] = { "microswarm.autoscale.max", "5", NULL },
                      *const two[] = { "x", "y", "microswarm.autoscale.max", "5", NULL },
                      *const three[] = { "microswarm.autoscale.max", "6", NULL };
    (void)state;
    assert_int_equal(print(none), 0);
    assert_int_not_equal(print(one), 0);
    assert_int_equal(print(one), print(two));
    assert_int_not_equal(print(one), print(three));
    assert_int_equal(usages_print(STR("")), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_means), cmocka_unit_test(test_print) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
