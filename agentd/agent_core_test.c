/* Scenarios in testdata/core: one event a line; out come the effects and the state. Also every short run of events. */
#include "agentd/agent_core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/util/check.h"
#include "common/util/scenario.h"

static const char *const event_names[] = { "assign",     "removed",      "prepared", "prepare-failed",
                                           "started",    "start-failed", "exited",   "lost",
                                           "grace-over", "cleaned",      "resume",   "adopted",
                                           "drain-over", "quiet",        "healthy",  "unhealthy" };
static const char *const effect_names[] = { "store",  "prepare", "start",  "stop",  "kill",
                                            "cancel", "clean",   "forget", "drain", "quiet" };
static const char *const phase_names[] = { "new",     "preparing", "ready",    "starting",
                                           "running", "stopping",  "cleaning", "done" };

static void *begin(void)
{
    struct task_core *t = malloc(sizeof *t);
    CHECK(t);
    task_init(t);
    return t;
}

static void line(void *arg, char **words, unsigned n, struct buf *out)
{
    struct task_core *t = arg;
    struct task_event ev = { .now = { 1 }, .text = "reason" };
    size_t i = 0, count = sizeof event_names / sizeof *event_names;
    while (i < count && strcmp(words[0], event_names[i]) != 0)
        i++;
    if (i == count) {
        buf_printf(out, "unknown event %s\n", words[0]);
        return;
    }
    ev.type = (enum task_event_type)i;
    for (unsigned k = 1; k < n; k++) {
        char *v = scenario_value(words[k]);
        if (strcmp(words[k], "code") == 0)
            ev.exit_code = strtol(v, NULL, 10);
        else if (strcmp(words[k], "pid") == 0)
            ev.pid = strtoull(v, NULL, 10);
        else if (strcmp(words[k], "oom") == 0)
            ev.oom = true;
        else if (strcmp(words[k], "drains") == 0)
            ev.drains = true;
        else if (strcmp(words[k], "drained") == 0)
            ev.drains = ev.drained = true;
        else if (strcmp(words[k], "checked") == 0)
            ev.checked = true;
        else if (strcmp(words[k], "reject") == 0)
            ev.reject = true;
        else
            ev.desired = task_state_parse(str_from(words[k]));
    }
    unsigned todo = task_step(t, &ev);
    task_check(t);
    buf_printf(out, "%s:", event_names[i]);
    for (unsigned k = 0; k < sizeof effect_names / sizeof *effect_names; k++)
        if (todo & (1u << k))
            buf_printf(out, " %s", effect_names[k]);
    buf_printf(out, " -> %s %s \"%s\"%s%s\n", phase_names[t->phase], task_state_name(t->state), t->message,
               t->err[0] ? " err=" : "", t->err);
}

static void end(void *arg, struct buf *out)
{
    (void)out;
    free(arg);
}

static void test_scenarios(void **state)
{
    static const struct scenario_ops ops = { begin, line, end };
    (void)state;
    assert_true(scenario_run("agentd/testdata/core/*.txt", &ops));
}

/* every sequence of up to five events keeps the invariants, never goes back, and asks for one thing at a time */
static void walk(const struct task_core *from, unsigned depth, unsigned *pending)
{
    static const enum task_state desired[] = { TASK_READY, TASK_RUNNING, TASK_SHUTDOWN, TASK_RUNNING, TASK_SHUTDOWN };
    for (int type = TE_ASSIGN; type <= TE_UNHEALTHY; type++) {
        for (size_t d = 0; d < (type == TE_ASSIGN ? 5 : type == TE_STARTED ? 2 : 1); d++) {
            struct task_core t = *from;
            struct task_event ev = { .type = (enum task_event_type)type,
                                     .now = { 2 },
                                     .desired = desired[d],
                                     .drains = d >= 3,
                                     .drained = d == 4 && depth % 2,
                                     .checked = d == 1,
                                     .text = "x",
                                     .exit_code = 1,
                                     .pid = 5 };
            if (type == TE_ADOPTED && t.phase != TP_STARTING && t.phase != TP_RUNNING && t.phase != TP_STOPPING)
                continue;
            unsigned todo = task_step(&t, &ev);
            task_check(&t);
            CHECK(t.state >= from->state);
            CHECK(t.desired >= from->desired || from->phase == TP_NEW);
            CHECK(!((todo & DO_PREPARE) && (todo & DO_START)));
            CHECK(!(todo & DO_FORGET) || t.removed);
            CHECK(!!(todo & DO_STOP) + !!(todo & DO_DRAIN) + !!(todo & DO_QUIET) <= 1);
            CHECK(!(todo & DO_QUIET) || from->drain != DRAIN_QUIET || type == TE_ADOPTED);
            ++*pending;
            if (depth > 1)
                walk(&t, depth - 1, pending);
        }
    }
}

static void test_every_short_run(void **state)
{
    struct task_core t;
    unsigned n = 0;
    (void)state;
    task_init(&t);
    walk(&t, 5, &n);
    assert_true(n > 100000);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_scenarios), cmocka_unit_test(test_every_short_run) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
