/* stays_test.c - which changes of a service leave its tasks alone. */
#include "common/object/stays.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct spec {
    const char *image, *constraint, *port, *credential;
};

static void put_taskspec(struct buf *b, const struct spec *s)
{
    mp_map(b, 3u + (s->port != NULL));
    mp_kv_cstr(b, "ID", s->image);
    mp_cstr(b, "Spec");
    mp_map(b, 1u + (s->constraint != NULL));
    mp_kv_cstr(b, "Image", s->image);
    if (s->constraint) {
        mp_cstr(b, "Placement");
        mp_map(b, 1);
        mp_cstr(b, "Constraints");
        mp_array(b, 1);
        mp_cstr(b, s->constraint);
    }
    if (s->port)
        mp_kv_cstr(b, "EndpointSpec", s->port);
    mp_kv_cstr(b, "CredentialID", s->credential ? s->credential : "");
}

static struct spec_change change(const struct spec *from, const struct spec *to)
{
    struct buf a = BUF_INIT, b = BUF_INIT;
    put_taskspec(&a, from);
    put_taskspec(&b, to);
    struct spec_change c = spec_change(buf_str(&a), buf_str(&b));
    buf_done(&a);
    buf_done(&b);
    return c;
}

static bool stays(const struct spec *to, enum task_state state, enum task_state desired)
{
    static const struct spec from = { .image = "a" };
    struct str constraint = str_from(to->constraint ? to->constraint : "");
    struct view_placement p = { .Constraints = { &constraint, to->constraint != NULL } };
    struct view_node n = { .ID = STR("n1") };
    struct spec_change c = change(&from, to);
    return task_stays(&c, state, desired, &p, &n);
}

static void what_matters(void **state)
{
    (void)state;
    assert_true(stays(&(struct spec){ .image = "a" }, TASK_RUNNING, TASK_RUNNING));
    assert_false(stays(&(struct spec){ .image = "b" }, TASK_RUNNING, TASK_RUNNING));
    assert_false(stays(&(struct spec){ .image = "a", .port = "80" }, TASK_RUNNING, TASK_RUNNING));
}

static void placement(void **state)
{
    struct spec here = { .image = "a", .constraint = "node.id==n1" },
                there = { .image = "a", .constraint = "node.id==n2" },
                broken = { .image = "a", .constraint = "node.id" };
    struct spec_change c = change(&(struct spec){ .image = "a" }, &here);
    struct str constraint = STR("node.id==n1");
    struct view_placement p = { .Constraints = { &constraint, 1 } };
    (void)state;
    assert_true(stays(&here, TASK_RUNNING, TASK_RUNNING));
    assert_false(stays(&there, TASK_RUNNING, TASK_RUNNING));
    assert_false(stays(&broken, TASK_RUNNING, TASK_RUNNING));
    assert_false(task_stays(&c, TASK_PENDING, TASK_RUNNING, &p, NULL)); /* it is to look for a node anew */
}

static void credentials(void **state)
{
    struct spec to = { .image = "a", .credential = "c1" };
    (void)state;
    assert_true(stays(&to, TASK_RUNNING, TASK_RUNNING));
    assert_true(stays(&to, TASK_READY, TASK_READY));
    assert_false(stays(&to, TASK_PREPARING, TASK_RUNNING)); /* it fetches its image, perhaps with the wrong ones */
    assert_false(stays(&to, TASK_FAILED, TASK_RUNNING));
    assert_false(stays(&to, TASK_RUNNING, TASK_SHUTDOWN));
}

static void what_cannot_be_read_differs(void **state)
{
    struct buf b = BUF_INIT;
    (void)state;
    put_taskspec(&b, &(struct spec){ .image = "a" });
    assert_true(spec_change(STR(""), buf_str(&b)).tasks);
    assert_true(spec_change(buf_str(&b), STR("\xc1")).tasks);
    assert_true(spec_change(STR(""), STR("")).tasks);
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(what_matters), cmocka_unit_test(placement),
                                        cmocka_unit_test(credentials), cmocka_unit_test(what_cannot_be_read_differs) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
