/* Roles and rotations: one node after the other, text in, text out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "cad/role_core.h"
#include "cad/rotate_core.h"
#include "common/util/check.h"
#include "common/util/scenario.h"

#define NODES_MAX 16u
#define MS 1000000ll

struct node {
    char id[16];
    struct role_view v;
};

struct world {
    struct role_core core;
    struct node nodes[NODES_MAX];
    unsigned n;
    int64_t now;
};

static void *begin(void)
{
    struct world *w = calloc(1, sizeof *w);
    CHECK(w != NULL);
    role_init(&w->core);
    return w;
}

static struct node *node_of(struct world *w, const char *id)
{
    for (unsigned i = 0; i < w->n; i++)
        if (strcmp(w->nodes[i].id, id) == 0)
            return &w->nodes[i];
    CHECK(w->n < NODES_MAX);
    struct node *n = &w->nodes[w->n++];
    snprintf(n->id, sizeof n->id, "%s", id);
    n->v = (struct role_view){ .id = str_from(n->id), .known = true };
    return n;
}

static void set(struct node *n, char *word)
{
    char *v = scenario_value(word);
    if (strcmp(word, "wants") == 0)
        n->v.want_manager = strcmp(v, "manager") == 0;
    else if (strcmp(word, "is") == 0)
        n->v.has_role = strcmp(v, "none") != 0, n->v.is_manager = strcmp(v, "manager") == 0;
    else if (strcmp(word, "group") == 0)
        n->v.member = strcmp(v, "no") != 0, n->v.learner = strcmp(v, "learner") == 0;
    else if (strcmp(word, "record") == 0)
        n->v.known = strcmp(v, "gone") != 0;
    else
        CHECK(!"a known word");
}

/* look - every node once, as a pass does; what is to be done is done, but for removals, which are answered later. */
static void look(struct world *w, struct buf *out)
{
    static const char *const name[] = { "nothing", "becomes manager", "becomes worker", "remove",
                                        "refused: last manager" };
    unsigned voters = 0;
    int64_t next = ROLE_NEVER;
    for (unsigned i = 0; i < w->n; i++)
        voters += w->nodes[i].v.member && !w->nodes[i].v.learner;
    for (unsigned i = 0; i < w->n; i++) {
        struct node *n = &w->nodes[i];
        enum role_do what = role_step(&w->core, &n->v, voters, w->now, &next);
        if (what == ROLE_NOTHING)
            continue;
        buf_printf(out, "%s %s\n", n->id, name[what]);
        if (what == ROLE_SET_MANAGER || what == ROLE_SET_WORKER)
            n->v.has_role = true, n->v.is_manager = what == ROLE_SET_MANAGER;
        if (what == ROLE_REMOVE)
            role_started(&w->core, n->v.id);
    }
    if (next != ROLE_NEVER)
        buf_printf(out, "again in %lld ms\n", (long long)((next - w->now) / MS));
}

static void line(void *arg, char **words, unsigned n, struct buf *out)
{
    struct world *w = arg;
    if (strcmp(words[0], "node") == 0) {
        struct node *x = node_of(w, words[1]);
        for (unsigned i = 2; i < n; i++)
            set(x, words[i]);
    } else if (strcmp(words[0], "look") == 0) {
        look(w, out);
    } else if (strcmp(words[0], "removed") == 0) {
        struct node *x = node_of(w, words[1]);
        x->v.member = false;
        role_answer(&w->core, x->v.id, true, w->now);
    } else if (strcmp(words[0], "failed") == 0) {
        role_answer(&w->core, node_of(w, words[1])->v.id, false, w->now);
        buf_printf(out, "%s has failed %u times\n", words[1], role_tries(&w->core, node_of(w, words[1])->v.id));
    } else if (strcmp(words[0], "wait") == 0) {
        w->now += strtoll(words[1], NULL, 10) * MS;
    } else if (strcmp(words[0], "changed") == 0) {
        role_again(&w->core, node_of(w, words[1])->v.id);
    } else if (strcmp(words[0], "new-leader") == 0) {
        role_clear(&w->core);
    } else {
        CHECK(!"a known line");
    }
}

static void end(void *arg, struct buf *out)
{
    struct world *w = arg;
    (void)out;
    role_done(&w->core);
    free(w);
}

static void test_scenarios(void **state)
{
    static const struct scenario_ops ops = { begin, line, end };
    (void)state;
    assert_true(scenario_run("cad/testdata/role_*.txt", &ops));
}

static void test_rotation(void **state)
{
    const int64_t s = 1000 * MS, now = 5000 * s;
    (void)state;
    struct rotate_view v = { .reports = true };
    assert_int_equal(rotate_node(&v, now), ROTATE_BEHIND);
    v.down = true; /* not waited for */
    assert_int_equal(rotate_node(&v, now), 0);
    v = (struct rotate_view){ .issued = true, .issued_ns = now - s };
    assert_int_equal(rotate_node(&v, now), 0); /* it says nothing: what was issued counts */
    v.reports = true;
    assert_int_equal(rotate_node(&v, now), now + 29 * s); /* it still says the old one */
    assert_int_equal(rotate_node(&v, now + 29 * s), 0);
    v.uses = true;
    assert_int_equal(rotate_node(&v, now), 0);
    v = (struct rotate_view){ .issued = true, .issued_ns = now + 999 * s, .reports = true }; /* a clock was set back */
    assert_int_equal(rotate_node(&v, now), now + 30 * s);
    v = (struct rotate_view){ .reports = true, .uses = true }; /* says so, but we know of no such certificate */
    assert_int_equal(rotate_node(&v, now), ROTATE_BEHIND);
    assert_false(rotate_over(1, now + 1, now));
    assert_true(rotate_over(1, now, now));
    assert_true(rotate_over(0, now + 1, now));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_scenarios), cmocka_unit_test(test_rotation) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
