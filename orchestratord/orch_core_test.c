/* Scenarios in testdata/core: `service`, `task` and `now` lines, then what the core decides. Times are seconds. */
#include "orchestratord/orch_core.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/util/check.h"
#include "common/util/scenario.h"

#define TASKS_MAX 64
#define PLACES_MAX 16

struct scenario {
    struct arena arena;
    struct orch_service svc;
    struct orch_task tasks[TASKS_MAX];
    struct orch_place places[PLACES_MAX];
    size_t n;
    int64_t now;
    bool explain;
};

static int64_t seconds(const char *v)
{
    return (int64_t)(strtod(v, NULL) * 1e9 + (v[0] == '-' ? -0.5 : 0.5));
}

static enum orch_condition condition(const char *v)
{
    return strcmp(v, "none") == 0 ? ORCH_NONE : strcmp(v, "on-failure") == 0 ? ORCH_ON_FAILURE : ORCH_ANY;
}

static bool set_restart(struct orch_restart *r, const char *k, const char *v)
{
    if (strcmp(k, "restart") == 0)
        r->condition = condition(v);
    else if (strcmp(k, "restart-delay") == 0)
        r->delay_ns = seconds(v);
    else if (strcmp(k, "attempts") == 0)
        r->max_attempts = strtoull(v, NULL, 10);
    else if (strcmp(k, "window") == 0)
        r->window_ns = seconds(v);
    else
        return false;
    return true;
}

static enum orch_mode mode(const char *v)
{
    static const char *const names[] = { "replicated", "global", "replicated-job", "global-job" };
    unsigned i = 0;
    while (strcmp(v, names[i]) != 0)
        CHECK(++i < sizeof names / sizeof names[0]);
    return (enum orch_mode)i;
}

static void set_service(struct orch_service *s, const char *k, const char *v)
{
    if (strcmp(k, "gone") == 0)
        s->exists = false;
    else if (strcmp(k, "mode") == 0)
        s->mode = mode(v);
    else if (strcmp(k, "completions") == 0)
        s->completions = strtoull(v, NULL, 10);
    else if (strcmp(k, "concurrent") == 0)
        s->concurrent = strtoull(v, NULL, 10);
    else if (strcmp(k, "not-begun") == 0)
        s->begun = false;
    else if (strcmp(k, "replicas") == 0)
        s->replicas = strtoull(v, NULL, 10);
    else if (strcmp(k, "history") == 0)
        s->history_limit = strtoll(v, NULL, 10);
    else if (strcmp(k, "update") == 0)
        s->update = orch_update_parse(str_from(v));
    else if (strcmp(k, "parallelism") == 0)
        s->parallelism = strtoull(v, NULL, 10);
    else if (strcmp(k, "update-delay") == 0)
        s->update_delay_ns = seconds(v);
    else if (strcmp(k, "monitor") == 0)
        s->monitor_ns = seconds(v);
    else if (strcmp(k, "order") == 0)
        s->start_first = strcmp(v, "start-first") == 0;
    else if (strcmp(k, "action") == 0)
        s->on_failure = strcmp(v, "continue") == 0 ? ORCH_CONTINUE : strcmp(v, "rollback") == 0 ? ORCH_ROLLBACK : 0;
    else if (strcmp(k, "ratio") == 0)
        s->max_failure_ratio = strtod(v, NULL);
    else if (strcmp(k, "progress") == 0)
        s->progress_ns = seconds(v);
    else if (strcmp(k, "reports") == 0)
        s->reports_ns = seconds(v);
    else if (strcmp(k, "previous") == 0)
        s->can_roll_back = true;
    else if (strcmp(k, "slots") == 0)
        s->slots = strtoull(v, NULL, 10);
    else if (strcmp(k, "failures") == 0)
        s->failures = strtoull(v, NULL, 10);
    else
        CHECK(set_restart(&s->restart, k, v));
}

static void set_task(struct scenario *sc, struct orch_task *t, const char *k, const char *v)
{
    if (strcmp(k, "slot") == 0)
        t->slot = strtoull(v, NULL, 10);
    else if (strcmp(k, "state") == 0)
        t->state = task_state_parse(str_from(v));
    else if (strcmp(k, "desired") == 0)
        t->desired = task_state_parse(str_from(v));
    else if (strcmp(k, "node") == 0)
        t->node_id = arena_str(&sc->arena, str_from(v));
    else if (strcmp(k, "replaces") == 0)
        t->replaces = arena_str(&sc->arena, str_from(v));
    else if (strcmp(k, "created") == 0)
        t->created_ns = seconds(v);
    else if (strcmp(k, "at") == 0)
        t->status_ns = seconds(v);
    else if (strcmp(k, "start") == 0)
        t->start_ns = seconds(v);
    else if (strcmp(k, "ran") == 0) /* it began to run then; without it, a task that runs has since its status */
        t->running_ns = seconds(v);
    else if (strcmp(k, "grace") == 0)
        t->grace_ns = seconds(v);
    else if (strcmp(k, "restarts") == 0)
        t->restarts = strtoull(v, NULL, 10);
    else if (strcmp(k, "attempted") == 0)
        t->attempts = strtoull(v, NULL, 10);
    else if (strcmp(k, "evict") == 0)
        t->evict = true;
    else if (strcmp(k, "old") == 0)
        t->current = false, t->spec = 1;
    else if (strcmp(k, "down") == 0)
        t->node_down = true;
    else if (strcmp(k, "gone") == 0)
        t->node_down = t->node_gone = true;
    else if (strcmp(k, "drain") == 0)
        t->node_drain = true;
    else
        CHECK(set_restart(&t->restart, k, v));
}

static void *begin(void)
{
    struct scenario *sc = calloc(1, sizeof *sc);
    CHECK(sc != NULL);
    arena_init(&sc->arena, 16 << 20);
    sc->svc = (struct orch_service){ .exists = true,
                                     .replicas = 1,
                                     .begun = true,
                                     .history_limit = 5,
                                     .parallelism = 1,
                                     .monitor_ns = ORCH_MONITOR_NS,
                                     .reports_ns = -ORCH_HEAR_NS,
                                     .restart = { .delay_ns = 5000000000ll } };
    sc->now = 100 * 1000000000ll;
    return sc;
}

/* set_schedule - schedule FROM skip|replace FIVE FIELDS */
static void set_schedule(struct scenario *sc, char **words, unsigned n)
{
    struct buf text = BUF_INIT;
    struct err e;
    CHECK(n > 3);
    for (unsigned i = 3; i < n; i++)
        buf_printf(&text, "%s ", words[i]);
    sc->svc.schedule = (struct orch_schedule){ .given = true,
                                               .from_ns = seconds(words[1]),
                                               .replace = strcmp(words[2], "replace") == 0 };
    CHECK(cron_parse(buf_str(&text), &sc->svc.schedule.cron, &e) == 0);
    buf_done(&text);
}

static void read_line(void *arg, char **words, unsigned n, struct buf *out)
{
    struct scenario *sc = arg;
    struct orch_task *t = NULL;
    unsigned i = 1;
    (void)out;
    if (strcmp(words[0], "now") == 0) {
        sc->now = seconds(words[1]);
        return;
    }
    if (strcmp(words[0], "explain") == 0) {
        sc->explain = true;
        return;
    }
    if (strcmp(words[0], "schedule") == 0) { /* seconds since 1970: now 100 is 00:01:40 */
        set_schedule(sc, words, n);
        return;
    }
    if (strcmp(words[0], "place") == 0) { /* in the order of their names */
        CHECK(sc->svc.nplaces < PLACES_MAX);
        sc->places[sc->svc.nplaces++] =
            (struct orch_place){ arena_str(&sc->arena, str_from(words[1])), n < 3 || strcmp(words[2], "closed") != 0 };
        return;
    }
    if (strcmp(words[0], "task") == 0) {
        CHECK(sc->n < TASKS_MAX && n > 1);
        t = &sc->tasks[sc->n++];
        *t = (struct orch_task){ .id = arena_str(&sc->arena, str_from(words[i++])),
                                 .slot = 1,
                                 .state = TASK_RUNNING,
                                 .desired = sc->svc.mode >= ORCH_REPLICATED_JOB ? TASK_COMPLETE : TASK_RUNNING,
                                 .current = true,
                                 .restart = sc->svc.restart };
    } else {
        CHECK(strcmp(words[0], "service") == 0);
    }
    for (; i < n; i++) {
        char *v = scenario_value(words[i]);
        if (t)
            set_task(sc, t, words[i], v);
        else
            set_service(&sc->svc, words[i], v);
    }
    if (t && t->state == TASK_RUNNING && t->running_ns == 0)
        t->running_ns = t->status_ns ? t->status_ns : 1;
}

static void print_time(struct buf *b, const char *what, int64_t ns)
{
    buf_printf(b, " %s=%.9g", what, (double)ns / 1e9);
}

static void print_update(const struct orch_service *svc, const struct orch_out *out, struct buf *b)
{
    if (out->update != svc->update) {
        buf_printf(b, "update %s", orch_update_name(out->update));
        if (out->culprit.n) {
            buf_puts(b, ": ");
            orch_update_message(svc, out, b);
        } else if (out->update == ORCH_UPDATE_UPDATING) {
            buf_printf(b, " slots=%" PRIu64, out->slots);
        }
        buf_putc(b, '\n');
    }
    if (out->failures != svc->failures)
        buf_printf(b, "failures %" PRIu64 " of %" PRIu64 "\n", out->failures, out->slots);
}

static void decide(void *arg, struct buf *b)
{
    struct scenario *sc = arg;
    struct orch_out out;
    sc->svc.places = sc->places;
    orch_reconcile(&sc->svc, sc->tasks, sc->n, sc->now, &sc->arena, &out);
    for (size_t i = 0; i < sc->n; i++) {
        struct orch_task *t = &sc->tasks[i];
        CHECK(t->want >= t->desired);
        if (t->drop)
            buf_printf(b, "delete " STR_FMT "\n", STR_ARG(t->id));
        else if (t->want != t->desired)
            buf_printf(b, "desire " STR_FMT " %s\n", STR_ARG(t->id), task_state_name(t->want));
        if (sc->explain && t->why)
            buf_printf(b, "why " STR_FMT ": %s\n", STR_ARG(t->id), t->why);
    }
    for (size_t i = 0; i < out.ncreate; i++) {
        struct orch_create *c = &out.create[i];
        if (c->node_id.n)
            buf_printf(b, "create node=" STR_FMT " %s", STR_ARG(c->node_id), task_state_name(c->desired));
        else
            buf_printf(b, "create slot=%" PRIu64 " %s", c->slot, task_state_name(c->desired));
        if (c->start_ns)
            print_time(b, "start", c->start_ns);
        if (c->replaces.n)
            buf_printf(b, " replaces=" STR_FMT, STR_ARG(c->replaces));
        if (c->restarts)
            buf_printf(b, " restarts=%" PRIu64, c->restarts);
        if (c->attempts > 1 && c->attempts != c->restarts)
            buf_printf(b, " attempted=%" PRIu64, c->attempts);
        buf_putc(b, '\n');
    }
    print_update(&sc->svc, &out, b);
    if (sc->svc.mode >= ORCH_REPLICATED_JOB)
        buf_printf(b, "job slots=%" PRIu64 " complete=%" PRIu64 " active=%" PRIu64 " given-up=%" PRIu64 "%s\n",
                   out.job.slots, out.job.complete, out.job.active, out.job.given_up, out.job.rest ? " rest" : "");
    if (out.run != ORCH_RUN_NOTHING) {
        buf_puts(b, out.run == ORCH_RUN_START ? "run" : "skip");
        print_time(b, "due", out.due_ns);
        buf_putc(b, '\n');
    }
    if (out.next_ns != ORCH_NEVER) {
        buf_puts(b, "again");
        print_time(b, "at", out.next_ns);
        buf_putc(b, '\n');
    }
    arena_done(&sc->arena);
    free(sc);
}

static void test_scenarios(void **state)
{
    static const struct scenario_ops ops = { begin, read_line, decide };
    (void)state;
    assert_true(scenario_run("orchestratord/testdata/core/*.txt", &ops));
}

static void test_absurd_replica_count_comes_in_portions(void **state)
{
    struct arena a;
    struct orch_out out;
    struct orch_service svc = { .exists = true, .replicas = UINT64_MAX };
    (void)state;
    arena_init(&a, 64 << 20);
    orch_reconcile(&svc, NULL, 0, 1, &a, &out);
    assert_int_equal(out.ncreate, ORCH_CREATE_MAX);
    assert_true(out.more);
    arena_done(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scenarios),
        cmocka_unit_test(test_absurd_replica_count_comes_in_portions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
