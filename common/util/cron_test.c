/* Scenarios in testdata/cron: `cron TEXT`, `after TIME [COUNT]`, `last TIME TIME`. */
#include "common/util/cron.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/util/check.h"
#include "common/util/clock.h"
#include "common/util/scenario.h"

struct scenario {
    struct cron c;
    bool ok;
};

static void *begin(void)
{
    struct scenario *sc = calloc(1, sizeof *sc);
    CHECK(sc != NULL);
    return sc;
}

static void print_time(struct buf *out, int64_t ns)
{
    char text[WALL_TEXT_MAX];
    wall_format((struct wall_ns){ ns }, text);
    buf_printf(out, "%s\n", ns == CRON_NEVER ? "never" : text);
}

static int64_t parse_time(const char *text)
{
    struct wall_ns t;
    CHECK(wall_parse(str_from(text), &t));
    return t.ns;
}

static void read_line(void *arg, char **words, unsigned n, struct buf *out)
{
    struct scenario *sc = arg;
    if (strcmp(words[0], "cron") == 0) {
        struct buf text = BUF_INIT;
        struct err e = ERR_INIT;
        for (unsigned i = 1; i < n; i++)
            buf_printf(&text, "%s%s", i > 1 ? " " : "", words[i]);
        sc->ok = cron_parse(buf_str(&text), &sc->c, &e) == 0;
        if (!sc->ok)
            buf_printf(out, "refused: %s\n", e.msg);
        buf_done(&text);
    } else if (!sc->ok) {
        return;
    } else if (strcmp(words[0], "after") == 0) {
        int64_t t = parse_time(words[1]);
        for (int i = n > 2 ? atoi(words[2]) : 1; i > 0; i--)
            print_time(out, t = cron_next(&sc->c, t));
    } else {
        CHECK(strcmp(words[0], "last") == 0 && n == 3);
        print_time(out, cron_last(&sc->c, parse_time(words[1]), parse_time(words[2])));
    }
}

static void end(void *arg, struct buf *out)
{
    (void)out;
    free(arg);
}

static void test_scenarios(void **state)
{
    static const struct scenario_ops ops = { begin, read_line, end };
    (void)state;
    assert_true(scenario_run("common/util/testdata/cron/*.txt", &ops));
}

static void test_times_at_the_ends_of_the_clock(void **state)
{
    struct cron c;
    struct err e;
    (void)state;
    assert_int_equal(cron_parse(STR("* * * * *"), &c, &e), 0);
    assert_int_equal(cron_next(&c, INT64_MIN), 0);
    assert_int_equal(cron_next(&c, -1), 0);
    assert_int_equal(cron_next(&c, 0), 60000000000ll);
    assert_int_equal(cron_next(&c, INT64_MAX), CRON_NEVER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scenarios),
        cmocka_unit_test(test_times_at_the_ends_of_the_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
