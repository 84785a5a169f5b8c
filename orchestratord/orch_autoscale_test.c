/* Scenarios in testdata/autoscale: what is declared, what is measured, and how many replicas there shall be. */
#include "orchestratord/orch_autoscale.h"

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/util/check.h"
#include "common/util/scenario.h"

#define SECOND 1000000000ll

struct scenario {
    struct scale_in in;
    struct view_usage usage;
    struct view_autoscale before;
    char error[80];
};

static void *begin(void)
{
    struct scenario *sc = calloc(1, sizeof *sc);
    CHECK(sc != NULL);
    sc->in.conf = (struct autoscale){ .given = true, .min = 1, .max = 10, .cooldown_ns = 30 * SECOND };
    sc->in.replicas = 2;
    sc->in.now_ns = 1000 * SECOND;
    return sc;
}

static void set_service(struct scenario *sc, const char *k, const char *v)
{
    struct autoscale *c = &sc->in.conf;
    double x = strtod(v, NULL);
    if (strcmp(k, "replicas") == 0)
        sc->in.replicas = (uint64_t)x;
    else if (strcmp(k, "min") == 0)
        c->min = (uint64_t)x;
    else if (strcmp(k, "max") == 0)
        c->max = (uint64_t)x;
    else if (strcmp(k, "cpu") == 0)
        c->cpu = (uint64_t)x;
    else if (strcmp(k, "memory") == 0)
        c->memory = (uint64_t)x;
    else if (strcmp(k, "target") == 0) {
        c->has_metric = true;
        c->target = x;
    } else if (strcmp(k, "cooldown") == 0)
        c->cooldown_ns = (int64_t)x * SECOND;
    else if (strcmp(k, "cpu-limit") == 0)
        sc->in.cpu_limit_ns = (int64_t)(x * 1e9);
    else if (strcmp(k, "memory-limit") == 0)
        sc->in.memory_limit = (int64_t)(x * (1 << 20));
    else
        CHECK(!"a word that means nothing");
}

static void set_usage(struct scenario *sc, const char *k, const char *v)
{
    struct view_usage *u = &sc->usage;
    double x = strtod(v, NULL);
    if (strcmp(k, "tasks") == 0)
        u->Tasks = (uint64_t)x;
    else if (strcmp(k, "cpu") == 0) /* CPUs */
        u->NanoCPUs = (uint64_t)(x * 1e9);
    else if (strcmp(k, "memory") == 0) /* MiB */
        u->MemoryBytes = (uint64_t)(x * (1 << 20));
    else if (strcmp(k, "metric") == 0) {
        u->HasMetric = true;
        u->Metric = x;
    } else if (strcmp(k, "error") == 0) {
        snprintf(sc->error, sizeof sc->error, "%s", v);
        u->Error = str_from(sc->error);
    } else if (strcmp(k, "age") == 0)
        u->At = sc->in.now_ns - (int64_t)x * SECOND;
    else
        CHECK(!"a word that means nothing");
}

static void line(void *arg, char **words, unsigned n, struct buf *out)
{
    struct scenario *sc = arg;
    bool usage = strcmp(words[0], "usage") == 0, changed = strcmp(words[0], "changed") == 0;
    (void)out;
    if (usage) {
        sc->in.usage = &sc->usage;
        sc->usage = (struct view_usage){ .Tasks = sc->in.replicas, .At = sc->in.now_ns };
    }
    if (changed) { /* so many seconds ago */
        sc->in.before = &sc->before;
        sc->before.ChangedAt = sc->in.now_ns - strtoll(words[1], NULL, 10) * SECOND;
        return;
    }
    for (unsigned i = 1; i < n; i++) {
        char *v = scenario_value(words[i]);
        if (usage)
            set_usage(sc, words[i], v);
        else
            set_service(sc, words[i], v);
    }
}

static void end(void *arg, struct buf *b)
{
    struct scenario *sc = arg;
    struct scale_out out;
    scale_decide(&sc->in, &out);
    buf_printf(b, "%" PRIu64, out.replicas);
    if (out.reason[0])
        buf_printf(b, " (%s)", out.reason);
    if (out.next_ns != INT64_MAX)
        buf_printf(b, " again in %lld s", (long long)((out.next_ns - sc->in.now_ns) / SECOND));
    buf_putc(b, '\n');
    free(sc);
}

static void test_scenarios(void **state)
{
    static const struct scenario_ops ops = { begin, line, end };
    (void)state;
    assert_true(scenario_run("orchestratord/testdata/autoscale/*.txt", &ops));
}

/* Whatever is measured: within the bounds, and within one step. */
static void test_any_numbers(void **state)
{
    static const double odd[] = { 0, -1, 1e-300, 0.9, 1.1, 5, 1e9, 1e300, -1e300, INFINITY, -INFINITY, NAN };
    const size_t nodd = sizeof odd / sizeof *odd;
    (void)state;
    srand(1);
    for (unsigned i = 0; i < 200000; i++) {
        struct view_usage u = { .Tasks = (uint64_t)(rand() % 50),
                                .NanoCPUs = rand() % 3 ? (uint64_t)rand() * 5 : UINT64_MAX,
                                .MemoryBytes = rand() % 3 ? (uint64_t)rand() : UINT64_MAX,
                                .HasMetric = rand() % 4 != 0,
                                .Metric = odd[(size_t)rand() % nodd],
                                .At = 1000 };
        struct scale_in in = { .conf = { .given = true,
                                         .min = 1 + (uint64_t)(rand() % 10),
                                         .cpu = (uint64_t)(rand() % 3) * 50,
                                         .memory = (uint64_t)(rand() % 3) * 30,
                                         .has_metric = rand() % 2 != 0,
                                         .target = 1 + rand() % 5 },
                               .cpu_limit_ns = rand() % 2 ? 500000000 : 0,
                               .memory_limit = rand() % 2 ? 100 << 20 : 0,
                               .usage = &u,
                               .now_ns = 2000 };
        struct scale_out out;
        in.conf.max = in.conf.min + (uint64_t)(rand() % 100);
        in.replicas = in.conf.min + (uint64_t)rand() % (in.conf.max - in.conf.min + 1);
        scale_decide(&in, &out);
        assert_true(out.replicas >= in.conf.min && out.replicas <= in.conf.max);
        assert_true(out.replicas <= in.replicas * 2 || out.replicas <= in.replicas + SCALE_STEP);
        assert_true(out.replicas * 2 >= in.replicas);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_scenarios), cmocka_unit_test(test_any_numbers) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
