/* What apid decides about a swarm of several nodes, without one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "apid/api_members.h"
#include "apid/api_reach.h"
#include "apid/api_resources.h"
#include "apid/api_state.h"
#include "apid/api_swarm_spec.h"

static enum swarm_state facts(bool initialized, const char *gateway, const char *role, const char *raftd)
{
    struct state_facts f = { .initialized = initialized,
                             .known = gateway != NULL,
                             .gateway = str_from(gateway),
                             .role = str_from(role),
                             .raftd = str_from(raftd) };
    return state_of(&f);
}

static void test_state(void **state)
{
    (void)state;
    /* While gatewayd has not answered: the map tells of a manager only. */
    assert_int_equal(facts(false, NULL, NULL, ""), SWARM_BOOTING);
    assert_int_equal(facts(true, NULL, NULL, ""), SWARM_MANAGER);
    /* raftd need not run where no manager ever was. */
    assert_int_equal(facts(false, "inactive", "", ""), SWARM_INACTIVE);
    assert_int_equal(facts(false, "active", "worker", ""), SWARM_WORKER);
    assert_int_equal(facts(false, "pending", "", "uninitialized"), SWARM_PENDING);
    assert_int_equal(facts(false, "error", "", "uninitialized"), SWARM_ERROR);
    /* A manager that joins has its certificate before its store. */
    assert_int_equal(facts(false, "active", "manager", "joining"), SWARM_STARTING);
    assert_int_equal(facts(false, "active", "manager", "uninitialized"), SWARM_STARTING);
    /* One that starts again may be locked: that it is active nobody can know before raftd has said so. */
    assert_int_equal(facts(false, "active", "manager", ""), SWARM_BOOTING);
    assert_int_equal(facts(false, "active", "manager", "follower"), SWARM_BOOTING);
    assert_int_equal(facts(true, "active", "manager", "follower"), SWARM_MANAGER);
    /* Demoted: the certificate may be behind, what counts is that it still reads the store. */
    assert_int_equal(facts(true, "active", "worker", "follower"), SWARM_MANAGER);
    /* Locked, whatever is left of the map of before. */
    assert_int_equal(facts(true, "active", "manager", "locked"), SWARM_LOCKED);
    assert_int_equal(facts(false, NULL, NULL, "locked"), SWARM_LOCKED);
    assert_string_equal(state_name(SWARM_STARTING), "active");
    assert_string_equal(state_name(SWARM_BOOTING), "pending");
    assert_string_equal(state_name(SWARM_LOCKED), "locked");
}

/* "LRU": leader, reachable, unreachable; "l": a learner */
static struct managers group(const char *text)
{
    struct managers m = { .n = strlen(text) };

    for (size_t i = 0; i < m.n; i++) {
        struct manager *x = &m.v[i];
        x->node[0] = (char)('a' + i);
        x->leader = text[i] == 'L';
        x->learner = text[i] == 'l';
        x->reachable = text[i] != 'U';
        m.voters += !x->learner;
        m.reachable += !x->learner && x->reachable;
    }
    return m;
}

static bool can_lose(const char *text, const char *node)
{
    struct managers m = group(text);
    return managers_can_lose(&m, str_from(node));
}

static void test_quorum(void **state)
{
    (void)state;
    assert_false(can_lose("L", "a"));
    assert_true(can_lose("LR", "b"));
    assert_true(can_lose("LU", "b"));  /* the dead one: what stays is a quorum */
    assert_false(can_lose("LU", "a")); /* the other way round */
    assert_true(can_lose("LRR", "c"));
    assert_false(can_lose("LRU", "b")); /* one of two would be left */
    assert_true(can_lose("LRU", "c"));
    assert_true(can_lose("LRRUU", "e"));
    assert_false(can_lose("LRRUU", "b"));
    assert_true(can_lose("LRl", "c")); /* a learner has no vote */
    assert_true(can_lose("LR", "z"));  /* no member */
}

static void test_warnings(void **state)
{
    char buf[300];

    (void)state;
    assert_null(managers_warning(0, buf, sizeof buf));
    assert_null(managers_warning(1, buf, sizeof buf));
    assert_null(managers_warning(5, buf, sizeof buf));
    assert_non_null(strstr(managers_warning(2, buf, sizeof buf), "in a two-manager configuration."));
    assert_non_null(strstr(managers_warning(4, buf, sizeof buf), "4 managers"));
    assert_non_null(strstr(managers_warning(4, buf, sizeof buf), "than 3 managers"));
}

static void test_words(void **state)
{
    (void)state;
    assert_true(
        swarm_token_ok(STR("SWMTKN-1-0exkxmvbro48um11dj6lz80efdezkuxxs5ibkjw29x1dmib0jg-ebtqwe8egh30uzb9tb91fix1z")));
    assert_false(swarm_token_ok(STR("abc")));
    assert_false(swarm_token_ok(STR("")));
    assert_false(
        swarm_token_ok(STR("SWMTKN-1-0exkxmvbro48um11dj6lz80efdezkuxxs5ibkjw29x1dmib0jg-ebtqwe8egh30uzb9tb91fix1")));
    assert_false(
        swarm_token_ok(STR("SWMTKN-1-0exkxmvbro48um11dj6lz80efdezkuxxs5ibkjw29x1dmib0jgxebtqwe8egh30uzb9tb91fix1z")));
    assert_true(swarm_key_ok(STR("SWMKEY-1-xVKmKt+WIaz0dWjI2R7BzXb5o+DZfnOo9AS6E7RJuyk")));
    assert_false(swarm_key_ok(STR("wrongkey")));
    assert_false(swarm_key_ok(STR("SWMKEY-1-xVKmKt+WIaz0dWjI2R7BzXb5o+DZfnOo9AS6E7RJuyk=")));
    assert_true(str_is(addr_host(STR("10.0.0.1:2377")), "10.0.0.1"));
    assert_true(str_is(addr_host(STR("[fd00::1]:2377")), "fd00::1"));
    assert_int_equal(addr_host(STR("")).n, 0);
}

/* What the daemons keep in a document for themselves is not shown. */
static void test_hide(void **state)
{
    static const char *const shown[] = { "ID", "Spec", NULL };
    struct buf doc = BUF_INIT, pairs = BUF_INIT;

    (void)state;
    mp_map(&doc, 4);
    mp_kv_cstr(&doc, "ID", "x");
    mp_kv_cstr(&doc, "RootCA", "secret");
    mp_cstr(&doc, "Spec");
    mp_map(&doc, 0);
    mp_kv_u64(&doc, "Rev", 3);
    assert_int_equal(doc_hide(&pairs, buf_str(&doc), shown), 2);
    assert_int_equal(pairs.n, 1 + 6 + 1 + 1 + 3 + 1);
    assert_int_equal(doc_hide(&pairs, STR("\xc0"), shown), 0);
    buf_done(&doc);
    buf_done(&pairs);
}

static void note(void *arg, const struct manager *now)
{
    char *text = arg;

    (void)snprintf(text + strlen(text), 64 - strlen(text), "%s%c ", now->node, now->reachable ? '+' : '-');
}

static const char *compared(const char *before, const char *after)
{
    static char text[64];
    struct managers a = group(before), b = group(after);

    text[0] = '\0';
    reach_compare(&a, &b, note, text);
    return text;
}

static void test_reachability(void **state)
{
    (void)state;
    assert_string_equal(compared("LRR", "LRR"), "");
    assert_string_equal(compared("LRR", "LUR"), "b- ");
    assert_string_equal(compared("LRU", "ULR"), "a- c+ ");
    assert_string_equal(compared("LR", "LRU"), "");    /* new here: nothing was known of it */
    assert_string_equal(compared("LUR", "LR"), "b+ "); /* the third is gone, which is another event */
    assert_string_equal(compared("Ll", "LU"), "");     /* a learner is neither */
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_state),    cmocka_unit_test(test_quorum),
                                        cmocka_unit_test(test_warnings), cmocka_unit_test(test_words),
                                        cmocka_unit_test(test_hide),     cmocka_unit_test(test_reachability) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
