/* Nodes that go down one by one and together, and how fast their tasks may be moved; where global services may be. */
#include "orchestratord/orch_nodes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/util/check.h"

#define S 1000000000ll

static struct view_node node(const char *id, const char *state)
{
    return (struct view_node){ .ID = str_from(id),
                               .Spec = { .Role = STR("worker"), .Availability = STR("active") },
                               .Description = { .Hostname = str_from(id),
                                                .Platform = { .Architecture = STR("x86_64"), .OS = STR("linux") } },
                               .Status = { .State = str_from(state), .Addr = STR("10.0.0.1") } };
}

static unsigned learn(struct orch_nodes *m, unsigned i, const char *state, int64_t down_ns)
{
    char id[16];
    snprintf(id, sizeof id, "n%02u", i);
    struct view_node v = node(id, state);
    return orch_node_learn(m, str_from(id), &v, down_ns);
}

static bool held(const struct orch_nodes *m, unsigned i)
{
    char id[16];
    snprintf(id, sizeof id, "n%02u", i);
    return orch_node_get(m, str_from(id))->held;
}

static void make(struct orch_nodes *m, unsigned n)
{
    orch_nodes_init(m);
    for (unsigned i = 0; i < n; i++)
        learn(m, i, "ready", 0);
    orch_nodes_review(m);
}

static void test_one_node_of_a_small_swarm_is_not_many(void **state)
{
    struct orch_nodes m;
    (void)state;
    for (unsigned n = 1; n <= 3; n++) {
        make(&m, n);
        assert_int_equal(learn(&m, 0, "down", 100 * S), ORCH_NODE_TASKS | ORCH_NODE_PLACES);
        assert_false(held(&m, 0));
        orch_nodes_done(&m);
    }
}

static void test_more_than_a_third_at_once_are_held(void **state)
{
    struct orch_nodes m;
    (void)state;
    make(&m, 9);
    for (unsigned i = 0; i < 3; i++) /* a third is not more than a third of a hundred percent, rounded down to 33 */
        learn(&m, i, i < 2 ? "down" : "ready", (100 + i) * S);
    assert_int_equal(m.nheld, 0);
    learn(&m, 2, "down", 102 * S);
    assert_int_equal(m.nheld, 3); /* 33.3 % is more than 33 */
    assert_true(held(&m, 0));     /* the first ones, too, as far as they have not been moved */
    learn(&m, 0, "ready", 0);
    assert_false(held(&m, 0));
    assert_int_equal(m.nheld, 2);
    assert_int_equal(m.ndown, 2);
    orch_node_forget(&m, STR("n01"));
    assert_int_equal(m.nheld, 1);
    orch_nodes_done(&m);
}

static void test_one_after_the_other_is_not_at_once(void **state)
{
    struct orch_nodes m;
    (void)state;
    make(&m, 6);
    for (unsigned i = 0; i < 6; i++)
        learn(&m, i, "down", (100 + 60 * (int64_t)i) * S);
    assert_int_equal(m.nheld, 0);
    orch_nodes_done(&m);
}

/* A new leader comes to the same view from what is stored. */
static void test_it_is_found_again_in_any_order(void **state)
{
    struct orch_nodes m;
    (void)state;
    for (unsigned way = 0; way < 2; way++) {
        orch_nodes_init(&m);
        for (unsigned k = 0; k < 10; k++) {
            unsigned i = way ? 9 - k : k;
            learn(&m, i, i < 5 ? "down" : "ready", i == 0 ? 1 * S : 1000 * S + i);
        }
        assert_int_equal(m.nheld, 0); /* shares can't be told before all are known */
        orch_nodes_review(&m);
        assert_int_equal(m.nheld, 4);
        assert_false(held(&m, 0)); /* that one was down long before */
        orch_nodes_done(&m);
    }
}

static void test_100_percent_is_never(void **state)
{
    struct orch_nodes m;
    (void)state;
    make(&m, 4);
    m.mass_percent = 100;
    for (unsigned i = 0; i < 4; i++)
        learn(&m, i, "down", 100 * S);
    assert_int_equal(m.nheld, 0);
    orch_nodes_done(&m);
}

static void test_moves_are_limited(void **state)
{
    struct orch_nodes m;
    unsigned moved = 0;
    int64_t now = 1000 * S;
    (void)state;
    orch_nodes_init(&m);
    m.mass_rate = 20;
    while (orch_may_move(&m, now))
        moved++;
    assert_int_equal(moved, 20); /* those of one second at once */
    for (; now < 1010 * S; now += orch_moves_wait_ns(&m))
        while (orch_may_move(&m, now))
            moved++;
    assert_in_range(moved, 215, 221);
    moved = 0; /* what was not used is not kept for longer than a second */
    while (orch_may_move(&m, 5000 * S))
        moved++;
    assert_int_equal(moved, 20);
    moved = 0; /* the clock was put back by a day */
    while (orch_may_move(&m, 5000 * S - 86400 * S))
        moved++;
    assert_int_equal(moved, 20);
    orch_nodes_done(&m);
}

static void test_places(void **state)
{
    struct str texts[] = { STR("node.labels.disk==ssd") };
    struct strmap labels = { 0 };
    struct view_platform arm = { STR("arm64"), STR("linux") }, amd = { STR("amd64"), STR("linux") };
    struct view_placement p = { .Constraints = { .v = texts, .n = 1 } };
    struct orch_nodes m;
    struct arena a;
    size_t n;
    (void)state;
    arena_init(&a, 1 << 20);
    labels.v = arena_array(&a, 1, sizeof *labels.v);
    labels.n = 1;
    labels.v[0].key = STR("disk");
    labels.v[0].val = STR("SSD");
    orch_nodes_init(&m);
    struct view_node b = node("b", "ready"), c = node("c", "ready"), d = node("a", "down");
    b.Spec.Labels = d.Spec.Labels = labels;
    assert_int_equal(orch_node_learn(&m, b.ID, &b, 0), ORCH_NODE_PLACES);
    orch_node_learn(&m, c.ID, &c, 0);
    orch_node_learn(&m, d.ID, &d, 5 * S);
    struct orch_place *v = orch_nodes_places(&m, &p, &a, &n);
    assert_int_equal(n, 2);
    assert_true(str_is(v[0].id, "a") && !v[0].open);
    assert_true(str_is(v[1].id, "b") && v[1].open);
    assert_int_equal(orch_node_learn(&m, b.ID, &b, 0), ORCH_NODE_SAME);
    b.Spec.Labels.n = 0;
    assert_int_equal(orch_node_learn(&m, b.ID, &b, 0), ORCH_NODE_PLACES);
    c.Spec.Availability = STR("pause");
    assert_int_equal(orch_node_learn(&m, c.ID, &c, 0), ORCH_NODE_PLACES);
    (void)orch_nodes_places(&m, &p, &a, &n);
    assert_int_equal(n, 1);
    texts[0] = STR("nonsense"); /* turns the constraints off */
    v = orch_nodes_places(&m, &p, &a, &n);
    assert_int_equal(n, 3);
    assert_false(v[2].open);
    p.Platforms = (struct list){ .v = &arm, .n = 1 };
    (void)orch_nodes_places(&m, &p, &a, &n);
    assert_int_equal(n, 0);
    p.Platforms.v = &amd;
    assert_int_equal(orch_node_forget(&m, c.ID), ORCH_NODE_TASKS | ORCH_NODE_PLACES);
    (void)orch_nodes_places(&m, &p, &a, &n);
    assert_int_equal(n, 2);
    orch_nodes_done(&m);
    arena_done(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_node_of_a_small_swarm_is_not_many),
        cmocka_unit_test(test_more_than_a_third_at_once_are_held),
        cmocka_unit_test(test_one_after_the_other_is_not_at_once),
        cmocka_unit_test(test_it_is_found_again_in_any_order),
        cmocka_unit_test(test_100_percent_is_never),
        cmocka_unit_test(test_moves_are_limited),
        cmocka_unit_test(test_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
