/* Who is alive is told in scenarios (testdata/core): `at MS` moves the clock and prints what became due. */
#include "dispatcherd/disp_core.h"
#include "dispatcherd/disp_pass.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/util/check.h"
#include "common/util/scenario.h"

static const struct str n1 = { "n1", 2 }, n2 = { "n2", 2 };
#define S1 "0123456789abcdefghijklmno"
#define S2 "1123456789abcdefghijklmno"
#define SECOND ((int64_t)1000000000)

/* ---- scenarios ---- */

struct scenario {
    struct disp d;
    uint64_t now, sessions;
    struct disp_life life;
    struct disp_flap_conf flap;
};

static void *begin(void)
{
    struct scenario *sc = calloc(1, sizeof *sc);
    CHECK(sc != NULL);
    disp_init(&sc->d);
    sc->flap = (struct disp_flap_conf){ 3, 600 * SECOND, 30 * SECOND, 600 * SECOND };
    return sc;
}

static void end_polls(struct disp *d)
{
    struct disp_peer *p;
    for (struct table_pos pos = { 0 }; table_next(&d->peers, &pos, NULL, &p);)
        p->poll = NULL;
}

static void end(void *arg, struct buf *out)
{
    struct scenario *sc = arg;
    (void)out;
    end_polls(&sc->d);
    disp_done(&sc->d);
    free(sc);
}

static void pass_time(struct scenario *sc, uint64_t to, struct buf *out)
{
    static const char *const what[] = { "", "idle", "unknown", "down" };
    uint64_t silent;
    struct str node;
    enum disp_due due;
    for (uint64_t at; (at = disp_next_ms(&sc->d)) <= to;) {
        sc->now = at > sc->now ? at : sc->now;
        while ((due = disp_expire(&sc->d, sc->now, &node, &silent)) != DISP_DUE_NOTHING) {
            struct disp_peer *p = table_get(&sc->d.peers, node);
            buf_printf(out, "%" PRIu64 ": " STR_FMT " %s", sc->now, STR_ARG(node), what[due]);
            buf_printf(out, due == DISP_DUE_POLL ? "\n" : " after %" PRIu64 " ms\n", silent);
            if (due == DISP_DUE_POLL || due == DISP_DUE_DOWN)
                p->poll = NULL;
        }
    }
    sc->now = to;
}

static void call_of(struct scenario *sc, const char *node, struct buf *out)
{
    struct disp_peer *p = table_get(&sc->d.peers, str_from(node));
    struct str who;
    char session[ID_SIZE];
    if (!p || !p->session[0]) {
        buf_printf(out, "%" PRIu64 ": %s has no session\n", sc->now, node);
        return;
    }
    memcpy(session, p->session, sizeof session);
    CHECK(disp_find(&sc->d, str_from(session), sc->now, &who) == p && str_is(who, node));
}

static void line(void *arg, char **w, unsigned n, struct buf *out)
{
    struct scenario *sc = arg;
    struct str node = n > 1 ? str_from(w[1]) : STR("");
    char session[ID_SIZE];
    if (strcmp(w[0], "at") == 0) {
        pass_time(sc, strtoull(w[1], NULL, 10), out);
    } else if (strcmp(w[0], "watch") == 0) {
        disp_watch(&sc->d, node, sc->now);
    } else if (strcmp(w[0], "open") == 0) {
        snprintf(session, sizeof session, "session%018" PRIu64, ++sc->sessions);
        disp_open(&sc->d, node, session, sc->now, 0);
    } else if (strcmp(w[0], "call") == 0) {
        call_of(sc, w[1], out);
    } else if (strcmp(w[0], "poll") == 0) {
        call_of(sc, w[1], out);
        disp_poll_wait(&sc->d, table_get(&sc->d.peers, node), sc, 0, sc->now + strtoull(w[2], NULL, 10));
    } else if (strcmp(w[0], "link") == 0) {
        disp_link(&sc->d, node, strcmp(w[2], "up") == 0, sc->now);
    } else if (strcmp(w[0], "forget") == 0) {
        disp_forget(&sc->d, node);
    } else if (strcmp(w[0], "standby") == 0) {
        end_polls(&sc->d);
        disp_clear(&sc->d);
    } else if (strcmp(w[0], "down") == 0) { /* down SECONDS */
        int64_t at = strtoll(w[1], NULL, 10) * SECOND;
        disp_life_down(&sc->life, &sc->flap, 300 * SECOND, at);
        buf_printf(out, "%s s: %" PRIu64 " downs, held for %" PRId64 " s, given up after %" PRId64 " s\n", w[1],
                   sc->life.downs, sc->life.held_until_ns > at ? (sc->life.held_until_ns - at) / SECOND : 0,
                   (sc->life.orphan_at_ns - at) / SECOND);
    } else {
        CHECK(!"a line of a scenario");
    }
    disp_check(&sc->d);
}

static void test_scenarios(void **state)
{
    static const struct scenario_ops ops = { begin, line, end };
    (void)state;
    assert_true(scenario_run("dispatcherd/testdata/core/*.txt", &ops));
}

/* ---- the rest ---- */

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

static void test_a_new_session_ends_the_old_one(void **state)
{
    struct disp *d = *state;
    struct str node;
    disp_open(d, n1, S1, 0, 0);
    disp_open(d, n1, S2, 0, 0);
    assert_null(disp_find(d, STR(S1), 1, &node));
    assert_non_null(disp_find(d, STR(S2), 1, &node));
    disp_forget(d, n1);
    assert_null(disp_find(d, STR(S2), 1, &node));
    disp_check(d);
}

static void test_heartbeats_are_spread(void **state)
{
    struct disp *d = *state;
    uint64_t least = UINT64_MAX, most = 0;
    for (uint64_t i = 0; i < 5000; i++) {
        uint64_t ms = disp_open(d, n1, S1, 0, i * 7919)->heartbeat_ms;
        least = ms < least ? ms : least;
        most = ms > most ? ms : most;
    }
    assert_in_range(least, 4000, 4100);
    assert_in_range(most, 4900, 5000);
}

/* Thousands of nodes that come, speak, and fall silent at random: none is forgotten, none dies early. */
static void test_many_nodes(void **state)
{
    struct disp *d = *state;
    uint64_t rng = 42, heard[500] = { 0 }, silent, lost = 0;
    bool open[500] = { false };
    char id[8], session[ID_SIZE];
    struct str node;
    for (uint64_t now = 1; now < 200000; now += 7) {
        rng = rng * 6364136223846793005ull + 1442695040888963407ull;
        unsigned i = (unsigned)(rng >> 33) % 500;
        snprintf(id, sizeof id, "n%u", i);
        snprintf(session, sizeof session, "session%018u", i);
        if (i < 250 || now < 50000) {
            if (!open[i] || rng % 50 == 0)
                disp_open(d, str_from(id), session, now, rng);
            else
                assert_non_null(disp_find(d, str_from(session), now, &node));
            open[i] = true;
            heard[i] = now;
        }
        while (disp_expire(d, now, &node, &silent) == DISP_DUE_DOWN) {
            unsigned who = (unsigned)strtoul(node.p + 1, NULL, 10);
            assert_true(open[who]);
            assert_in_range(now, heard[who] + 15000, heard[who] + 15010);
            open[who] = false;
            lost++;
        }
        if (now % 1000 < 7)
            disp_check(d);
    }
    for (unsigned i = 250; i < 500; i++)
        assert_false(open[i]);
    assert_true(lost >= 250);
}

static void test_only_news_are_told(void **state)
{
    struct disp *d = *state;
    struct disp_peer *p = disp_open(d, n1, S1, 0, 0);
    uint64_t print = disp_print(STR("running"), STR("spec"), STR(""));
    assert_int_equal(disp_plan(p, 0), DISP_FULL);
    p->seq = 10;
    assert_int_equal(disp_plan(p, 9), DISP_FULL); /* an answer was lost */
    assert_int_equal(disp_plan(p, 10), DISP_NOTHING);
    assert_null(disp_hot(d));
    disp_task(d, n1, STR("t1"), print);
    assert_ptr_equal(disp_hot(d), p);
    assert_null(disp_hot(d));
    assert_int_equal(disp_plan(p, 10), DISP_CHANGES);
    disp_tell(d, p, STR("t1"), print);
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
    assert_true(disp_untell(d, p, STR("t1")));
    assert_false(disp_untell(d, p, STR("t1")));
}

/* A task that is placed anew is taken from the node that was told first. */
static void test_a_task_moves(void **state)
{
    struct disp *d = *state;
    struct disp_peer *a = disp_open(d, n1, S1, 0, 0), *b = disp_open(d, STR("n2"), S2, 0, 0);
    uint64_t print = disp_print(STR("running"), STR("spec"), STR(""));
    disp_tell(d, a, STR("t1"), print);
    disp_task(d, STR("n2"), STR("t1"), print);
    assert_int_equal(a->dirty.count, 1);
    assert_int_equal(b->dirty.count, 1);
    disp_tell(d, b, STR("t1"), print);
    assert_true(disp_untell(d, a, STR("t1"))); /* does not touch who has it now */
    table_clear(&b->dirty);
    disp_task_gone(d, STR("t1"));
    assert_int_equal(b->dirty.count, 1);
    disp_forget(d, STR("n2"));
    disp_task_gone(d, STR("t1"));
    disp_check(d);
}

/* This process stood still for 20 s: whoever spoke meanwhile is heard before anybody is given up. */
static void test_nobody_is_given_up_by_one_who_did_not_listen(void **state)
{
    struct disp *d = *state;
    struct str node;
    uint64_t silent;
    disp_open(d, n1, S1, 1000, 0);
    disp_open(d, n2, S2, 1000, 0);
    assert_int_equal(disp_expire(d, 1000 + 3 * d->period_ms + 20000, &node, &silent), DISP_DUE_NOTHING);
    assert_non_null(disp_find(d, STR(S1), 36100, &node));
    uint64_t due = disp_next_ms(d);
    assert_in_range(due, 36001, 36000 + 3 * d->period_ms);
    assert_int_equal(disp_expire(d, due, &node, &silent), DISP_DUE_DOWN);
    assert_true(str_eq(node, n2));
    assert_int_equal(disp_expire(d, due, &node, &silent), DISP_DUE_NOTHING);
    disp_check(d);
}

/* Many tasks come and go on some nodes, in any order. */
static void test_what_was_told_is_known(void **state)
{
    struct disp *d = *state;
    uint64_t rng = 7;
    bool told[300][2] = { { false } };
    struct disp_peer *p[2] = { disp_open(d, n1, S1, 0, 0), disp_open(d, n2, S2, 0, 0) };
    char id[16];
    for (unsigned i = 0; i < 20000; i++) {
        rng = rng * 6364136223846793005ull + 1442695040888963407ull;
        unsigned task = (unsigned)(rng >> 33) % 300, at = rng >> 60 & 1;
        snprintf(id, sizeof id, "t%u", task);
        if (rng >> 61 & 1) {
            disp_tell(d, p[at], str_from(id), rng);
            told[task][at] = true;
        } else {
            assert_int_equal(disp_untell(d, p[at], str_from(id)), told[task][at]);
            told[task][at] = false;
        }
    }
    disp_check(d);
    for (unsigned at = 0; at < 2; at++) {
        uint32_t n = 0;
        for (unsigned task = 0; task < 300; task++)
            n += told[task][at];
        assert_int_equal(p[at]->ntold, n);
        disp_told_none(d, p[at]);
        disp_check(d);
    }
    assert_int_equal(d->told.count, 0);
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

/* A node that was taken over says what it likes of itself; every controller has to read it. */
static void test_descriptions(void **state)
{
    struct arena a;
    struct err e = ERR_INIT;
    struct buf b = BUF_INIT, big = BUF_INIT;
    (void)state;
    arena_init(&a, 1u << 20);
    mp_map(&b, 1);
    mp_kv_cstr(&b, "Hostname", "n");
    assert_int_equal(disp_check_description(buf_str(&b), &a, &e), 0);
    buf_clear(&b);
    mp_map(&b, 1);
    mp_kv_u64(&b, "Hostname", 1);
    assert_int_equal(disp_check_description(buf_str(&b), &a, &e), -ERR_INVALID);
    assert_non_null(strstr(e.msg, "Hostname"));
    assert_int_equal(disp_check_description(STR("\xc0"), &a, &e), 0); /* nothing is known of it */
    mp_map(&big, 4096);
    for (unsigned i = 0; i < 4096; i++)
        mp_kv_cstr(&big, "Unknown", "0123456789");
    assert_int_equal(disp_check_description(buf_str(&big), &a, &e), -ERR_INVALID);
    buf_done(&b);
    buf_done(&big);
    arena_done(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_descriptions),
        cmocka_unit_test(test_scenarios),
        cmocka_unit_test_setup_teardown(test_a_new_session_ends_the_old_one, setup, teardown),
        cmocka_unit_test_setup_teardown(test_heartbeats_are_spread, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_nodes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_only_news_are_told, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_task_moves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody_is_given_up_by_one_who_did_not_listen, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_was_told_is_known, setup, teardown),
        cmocka_unit_test(test_reports_only_go_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
