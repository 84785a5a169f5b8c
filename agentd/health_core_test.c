/* What a container's health follows from. */
#include "agentd/health_core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define SECOND 1000000000ll

static struct strs strs(const char *a, const char *b, const char *c)
{
    static struct str pool[64];
    static size_t used;
    const char *v[] = { a, b, c };
    struct strs r = { &pool[used = used > 60 ? 0 : used], 0 };
    for (size_t i = 0; i < 3 && v[i]; i++, used++)
        r.v[r.n++] = str_from(v[i]);
    return r;
}

static const struct strs no_shell;

static void test_configuration(void **state)
{
    struct arena a;
    struct health_conf c;
    struct health_spec image = { .Test = strs("CMD", "/check", "x"), .Interval = 7 * SECOND, .Retries = 5 },
                       service = { 0 };
    (void)state;
    arena_init(&a, 1 << 16);

    assert_true(health_conf_of(NULL, &image, &no_shell, &a, &c));
    assert_int_equal(c.argv.n, 2);
    assert_true(str_is(c.argv.v[0], "/check") && str_is(c.argv.v[1], "x"));
    assert_int_equal(c.interval_ns, 7 * SECOND);
    assert_int_equal(c.timeout_ns, 30 * SECOND);
    assert_int_equal(c.start_period_ns, 0);
    assert_int_equal(c.start_interval_ns, 5 * SECOND);
    assert_int_equal(c.retries, 5);

    /* a part of it from the service */
    service.Interval = 2 * SECOND;
    assert_true(health_conf_of(&service, &image, &no_shell, &a, &c));
    assert_int_equal(c.interval_ns, 2 * SECOND);
    assert_true(str_is(c.test.v[0], "CMD"));

    /* a shell; the image's own */
    service.Test = strs("CMD-SHELL", "exit 1", NULL);
    assert_true(health_conf_of(&service, &image, &no_shell, &a, &c));
    assert_true(str_is(c.argv.v[0], "/bin/sh") && str_is(c.argv.v[1], "-c") && str_is(c.argv.v[2], "exit 1"));
    struct strs shell = strs("/bin/ash", "-ec", NULL);
    assert_true(health_conf_of(&service, &image, &shell, &a, &c));
    assert_true(str_is(c.argv.v[0], "/bin/ash") && str_is(c.argv.v[1], "-ec"));

    /* none: NONE, nothing to run, a word that means nothing, nobody says anything */
    service.Test = strs("NONE", NULL, NULL);
    assert_false(health_conf_of(&service, &image, &no_shell, &a, &c));
    service.Test = strs("CMD", NULL, NULL);
    assert_false(health_conf_of(&service, &image, &no_shell, &a, &c));
    service.Test = strs("COMMAND", "x", NULL);
    assert_false(health_conf_of(&service, &image, &no_shell, &a, &c));
    assert_false(health_conf_of(NULL, &(struct health_spec){ .Interval = 1 }, &no_shell, &a, &c));

    /* numbers that an image may contain, too */
    image.Retries = INT64_MAX;
    image.Interval = -1;
    assert_true(health_conf_of(NULL, &image, &no_shell, &a, &c));
    assert_int_equal(c.interval_ns, 30 * SECOND);
    assert_int_equal(c.retries, 1000000);
    arena_done(&a);
}

static bool take(struct health *h, const struct health_conf *c, int64_t code, int64_t age_ns)
{
    struct health_result r = { .exit_code = code, .output = malloc(1), .output_n = 1 };
    return health_take(h, c, &r, age_ns);
}

static void test_states(void **state)
{
    struct health_conf c = {
        .interval_ns = 10 * SECOND, .start_interval_ns = SECOND, .start_period_ns = 5 * SECOND, .retries = 2
    };
    struct health h = { .state = HEALTH_STARTING };
    (void)state;

    /* in the start period failures do not count, and checks come faster */
    assert_int_equal(health_pause_ns(&h, &c, 0), SECOND);
    for (int i = 0; i < 9; i++)
        assert_false(take(&h, &c, 1, SECOND));
    assert_int_equal(h.streak, 0);
    assert_int_equal(h.nlog, HEALTH_LOG);
    assert_int_equal(health_pause_ns(&h, &c, 5 * SECOND), 10 * SECOND);

    /* behind it they do, also for one that never was healthy */
    assert_false(take(&h, &c, HEALTH_TIMED_OUT, 5 * SECOND));
    assert_true(take(&h, &c, 1, 6 * SECOND));
    assert_int_equal(h.state, HEALTH_UNHEALTHY);
    assert_false(take(&h, &c, 1, 6 * SECOND));
    assert_true(take(&h, &c, 0, 6 * SECOND));
    assert_int_equal(h.state, HEALTH_HEALTHY);
    assert_int_equal(h.streak, 0);

    /* a success begins anew; once healthy, the start period is over */
    assert_false(take(&h, &c, 1, SECOND));
    assert_int_equal(h.streak, 1);
    assert_false(take(&h, &c, 0, SECOND));
    assert_int_equal(h.streak, 0);
    assert_int_equal(health_pause_ns(&h, &c, SECOND), 10 * SECOND);
    assert_false(take(&h, &c, 1, SECOND));
    assert_true(take(&h, &c, 1, SECOND));
    assert_int_equal(h.state, HEALTH_UNHEALTHY);
    health_done(&h);
    assert_int_equal(h.nlog, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_configuration), cmocka_unit_test(test_states) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
