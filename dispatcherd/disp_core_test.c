#include "dispatcherd/disp_core.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const struct str n1 = { "n1", 2 };
#define S1 "0123456789abcdefghijklmno"
#define S2 "1123456789abcdefghijklmno"

static int setup(void **state)
{
    static struct disp d;
    disp_init(&d);
    *state = &d;
    return 0;
}

static int teardown(void **state)
{
    disp_done(*state);
    return 0;
}

static void test_a_silent_node_expires_once(void **state)
{
    struct disp *d = *state;
    struct str node;
    disp_open(d, n1, S1, 1000);
    assert_int_equal(disp_next_ms(d), 16000);
    assert_false(disp_expire(d, 15999, &node));
    assert_true(disp_expire(d, 16000, &node));
    assert_true(str_eq(node, n1));
    assert_false(disp_expire(d, 99999, &node));
    assert_null(disp_find(d, STR(S1), 16001, &node));
    assert_int_equal(disp_next_ms(d), DISP_NEVER);
}

static void test_every_call_keeps_a_node_alive(void **state)
{
    struct disp *d = *state;
    struct str node;
    disp_open(d, n1, S1, 0);
    assert_non_null(disp_find(d, STR(S1), 14000, &node));
    assert_false(disp_expire(d, 28999, &node));
    assert_true(disp_expire(d, 29000, &node));
}

static void test_a_node_without_session_has_the_grace_period(void **state)
{
    struct disp *d = *state;
    struct str node;
    disp_watch(d, n1, 100);
    disp_watch(d, n1, 5000); /* told again: no new time */
    assert_true(disp_expire(d, 15100, &node));
}

static void test_a_new_session_ends_the_old_one(void **state)
{
    struct disp *d = *state;
    struct str node;
    disp_open(d, n1, S1, 0);
    disp_open(d, n1, S2, 0);
    assert_null(disp_find(d, STR(S1), 1, &node));
    assert_non_null(disp_find(d, STR(S2), 1, &node));
    disp_forget(d, n1);
    assert_null(disp_find(d, STR(S2), 1, &node));
}

static void test_only_news_are_told(void **state)
{
    struct disp *d = *state;
    struct disp_peer *p = disp_open(d, n1, S1, 0);
    uint64_t print = disp_print(STR("running"), STR("spec"), STR(""));
    assert_int_equal(disp_plan(p, 0), DISP_FULL);
    p->seq = 10;
    assert_int_equal(disp_plan(p, 9), DISP_FULL); /* an answer was lost */
    assert_int_equal(disp_plan(p, 10), DISP_NOTHING);
    disp_task(d, n1, STR("t1"), print);
    assert_int_equal(disp_plan(p, 10), DISP_CHANGES);
    uint64_t *told = table_put(&p->sent, STR("t1"), NULL);
    *told = print;
    table_clear(&p->dirty);
    disp_task(d, n1, STR("t1"), print); /* a status report: nothing new for the node */
    assert_int_equal(disp_plan(p, 10), DISP_NOTHING);
    disp_task(d, n1, STR("t1"), disp_print(STR("shutdown"), STR("spec"), STR("")));
    assert_int_equal(disp_plan(p, 10), DISP_CHANGES);
    table_clear(&p->dirty);
    disp_task_gone(d, STR("t2"));
    assert_int_equal(disp_plan(p, 10), DISP_NOTHING);
    disp_task_gone(d, STR("t1"));
    assert_int_equal(disp_plan(p, 10), DISP_CHANGES);
}

static void test_reports_only_go_forward(void **state)
{
    struct view_container_status c = { .ContainerID = STR("c"), .PID = 7 };
    struct view_task_status now = { .State = STR("running"), .Message = STR("started"), .ContainerStatus = &c };
    (void)state;
    assert_false(disp_report_counts(&now, TASK_STARTING, STR("starting"), STR(""), STR("c"), 7, 0));
    assert_false(disp_report_counts(&now, TASK_RUNNING, STR("started"), STR(""), STR("c"), 7, 0));
    assert_true(disp_report_counts(&now, TASK_RUNNING, STR("started"), STR("slow"), STR("c"), 7, 0));
    assert_true(disp_report_counts(&now, TASK_RUNNING, STR("started"), STR(""), STR("c"), 8, 0));
    assert_true(disp_report_counts(&now, TASK_FAILED, STR("started"), STR(""), STR("c"), 0, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_silent_node_expires_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_call_keeps_a_node_alive, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_node_without_session_has_the_grace_period, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_new_session_ends_the_old_one, setup, teardown),
        cmocka_unit_test_setup_teardown(test_only_news_are_told, setup, teardown),
        cmocka_unit_test(test_reports_only_go_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
