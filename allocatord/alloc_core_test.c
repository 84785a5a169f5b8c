#include "allocatord/alloc_core.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static bool taken_by_bits(void *arg, enum alloc_proto proto, uint64_t port)
{
    const bool(*taken)[65536] = arg;
    return taken[proto][port];
}

static bool held[ALLOC_PROTO_COUNT][65536];

static int ask(const struct alloc_port *spec, size_t n, const struct alloc_port *had, size_t nhad,
               struct alloc_port *out, unsigned *cursor)
{
    const struct alloc_port *bad = NULL;
    return alloc_ports(spec, n, had, nhad, taken_by_bits, held, cursor, out, &bad);
}

static int clear(void **state)
{
    (void)state;
    memset(held, 0, sizeof held);
    return 0;
}

static void test_explicit_port_is_given_or_refused(void **state)
{
    unsigned cursor[ALLOC_PROTO_COUNT] = { 0 };
    struct alloc_port out[1], spec[1] = { { .target = 80, .published = 8080 } };
    (void)state;
    assert_int_equal(ask(spec, 1, NULL, 0, out, cursor), 0);
    assert_int_equal(out[0].published, 8080);
    held[ALLOC_TCP][8080] = true;
    assert_int_equal(ask(spec, 1, NULL, 0, out, cursor), -ERR_CONFLICT);
    spec[0].proto = ALLOC_UDP; /* a space of its own */
    assert_int_equal(ask(spec, 1, NULL, 0, out, cursor), 0);
}

static void test_the_same_port_twice_in_one_service_is_refused(void **state)
{
    unsigned cursor[ALLOC_PROTO_COUNT] = { 0 };
    struct alloc_port out[2], spec[2] = { { .target = 80, .published = 8080 }, { .target = 81, .published = 8080 } };
    (void)state;
    assert_int_equal(ask(spec, 2, NULL, 0, out, cursor), -ERR_CONFLICT);
}

static void test_automatic_ports_come_in_series(void **state)
{
    unsigned cursor[ALLOC_PROTO_COUNT] = { 0 };
    struct alloc_port out[2], spec[2] = { { .target = 80 }, { .target = 81 } };
    (void)state;
    held[ALLOC_TCP][30000] = true;
    assert_int_equal(ask(spec, 2, NULL, 0, out, cursor), 0);
    assert_int_equal(out[0].published, 30001);
    assert_int_equal(out[1].published, 30002);
    assert_int_equal(ask(spec, 1, NULL, 0, out, cursor), 0); /* not the one just freed */
    assert_int_equal(out[0].published, 30003);
}

static void test_an_automatic_port_stays_with_its_target(void **state)
{
    unsigned cursor[ALLOC_PROTO_COUNT] = { 0 };
    struct alloc_port out[2], spec[2] = { { .target = 81 }, { .target = 80 } };
    const struct alloc_port had[1] = { { .target = 80, .published = 30500 } };
    (void)state;
    assert_int_equal(ask(spec, 2, had, 1, out, cursor), 0);
    assert_int_equal(out[0].published, 30000);
    assert_int_equal(out[1].published, 30500);
}

static void test_an_explicit_port_wins_over_a_sticky_one(void **state)
{
    unsigned cursor[ALLOC_PROTO_COUNT] = { 0 };
    struct alloc_port out[2], spec[2] = { { .target = 80 }, { .target = 81, .published = 30000 } };
    const struct alloc_port had[1] = { { .target = 80, .published = 30000 } };
    (void)state;
    assert_int_equal(ask(spec, 2, had, 1, out, cursor), 0);
    assert_int_equal(out[0].published, 30001);
    assert_int_equal(out[1].published, 30000);
}

static void test_host_ports_are_only_copied(void **state)
{
    unsigned cursor[ALLOC_PROTO_COUNT] = { 0 };
    struct alloc_port out[2],
        spec[2] = { { .target = 80, .published = 8080, .host = true }, { .target = 81, .host = true } };
    (void)state;
    held[ALLOC_TCP][8080] = true;
    assert_int_equal(ask(spec, 2, NULL, 0, out, cursor), 0);
    assert_int_equal(out[0].published, 8080);
    assert_int_equal(out[1].published, 0); /* the node chooses */
}

static void test_the_pool_runs_out(void **state)
{
    unsigned cursor[ALLOC_PROTO_COUNT] = { 0 };
    struct alloc_port out[1], spec[1] = { { .target = 80 } };
    (void)state;
    for (unsigned p = ALLOC_AUTO_FIRST; p <= ALLOC_AUTO_LAST; p++)
        held[ALLOC_TCP][p] = true;
    assert_int_equal(ask(spec, 1, NULL, 0, out, cursor), -ERR_CONFLICT);
    held[ALLOC_TCP][31000] = false;
    assert_int_equal(ask(spec, 1, NULL, 0, out, cursor), 0);
    assert_int_equal(out[0].published, 31000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_explicit_port_is_given_or_refused, clear),
        cmocka_unit_test_setup(test_the_same_port_twice_in_one_service_is_refused, clear),
        cmocka_unit_test_setup(test_automatic_ports_come_in_series, clear),
        cmocka_unit_test_setup(test_an_automatic_port_stays_with_its_target, clear),
        cmocka_unit_test_setup(test_an_explicit_port_wins_over_a_sticky_one, clear),
        cmocka_unit_test_setup(test_host_ports_are_only_copied, clear),
        cmocka_unit_test_setup(test_the_pool_runs_out, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
