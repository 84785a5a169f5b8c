/* esp_plan_test.c - what two nodes plan without a word to each other fits together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "meshd/esp/esp_plan.h"

static struct netmap map;

struct world {
    bool encrypted;
    unsigned keys; /* how many, the newest with this number */
    const char *boot_b;
};

/* a, b and c are nodes; t1 on a and t2 on b share n1, which may be encrypted; t3 on c is on n2, which is not. */
static void tell(const struct world *w)
{
    struct net_network n[] = { { .ID = STR("n1"), .Name = STR("n1"), .Encrypted = w->encrypted },
                               { .ID = STR("n2"), .Name = STR("n2") } };
    struct str ip[] = { STR("10.0.1.1"), STR("10.0.1.2"), STR("10.0.2.1") };
    struct net_endpoint ep[] = {
        { STR("t1"), STR("n1"), STR("s"), STR("a"), STR(""), STR("ready"), { &ip[0], 1 } },
        { STR("t2"), STR("n1"), STR("s"), STR("b"), STR(""), STR("ready"), { &ip[1], 1 } },
        { STR("t3"), STR("n2"), STR("s"), STR("c"), STR(""), STR("ready"), { &ip[2], 1 } },
    };
    struct net_node nodes[] = { { .ID = STR("a"), .Addr = STR("192.0.2.1"), .BootID = STR("1") },
                                { .ID = STR("b"), .Addr = STR("192.0.2.2"), .BootID = str_from(w->boot_b) },
                                { .ID = STR("c"), .Addr = STR("192.0.2.3"), .BootID = STR("1") } };
    struct net_key keys[4];
    static const char text[] = "0123456789abcdef0123456789abcdefWXYZ";
    struct err e = ERR_INIT;
    for (unsigned i = 0; i < w->keys; i++)
        keys[i] = (struct net_key){ STR("esp"), w->keys - i, { text + (w->keys - i), 32 } };
    netmap_done(&map);
    netmap_init(&map);
    struct disp_network_reply r = { .Seq = 1,
                                    .DataPathPort = 4789,
                                    .Networks = { n, 2 },
                                    .Endpoints = { ep, 3 },
                                    .Nodes = { nodes, 3 },
                                    .Keys = { keys, w->keys } };
    if (netmap_apply(&map, &r, &e) < 0)
        fail_msg("%s", e.msg);
}

static int setup(void **state)
{
    (void)state;
    netmap_init(&map);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    netmap_done(&map);
    return 0;
}

static const struct esp_sa *find(const struct esp_want *w, uint32_t spi)
{
    for (size_t i = 0; i < w->nsas; i++)
        if (w->sas[i].spi == spi)
            return &w->sas[i];
    return NULL;
}

static void test_two_ends(void **state)
{
    struct esp_want a, b;
    (void)state;
    tell(&(struct world){ true, 3, "1" });
    esp_plan(&map, STR("a"), &a);
    esp_plan(&map, STR("b"), &b);
    assert_int_equal(a.port, 4790);
    assert_int_equal(a.npeers, 1);
    assert_int_equal(a.nsas, 4); /* three to take, one to send */
    assert_int_equal(b.nsas, 4);
    const struct esp_sa *out = find(&a, a.peers[0].spi_out), *in = find(&b, a.peers[0].spi_out);
    assert_non_null(out);
    assert_non_null(in);
    assert_memory_equal(out->key, in->key, ESP_KEY_SIZE);
    assert_true(netmap_ip_eq(&out->dst, &b.self) && netmap_ip_eq(&in->src, &a.self));
    const struct esp_sa *back = find(&a, b.peers[0].spi_out);
    assert_non_null(back);
    assert_memory_not_equal(out->key, back->key, ESP_KEY_SIZE); /* each direction its own */
    for (size_t i = 0; i < a.nsas; i++)
        assert_true(a.sas[i].spi >= 0x80000000u);
    esp_want_done(&a);
    esp_want_done(&b);
}

/* A node that has the newer keys and one that has not yet: what either sends the other can open. */
static void test_rotation(void **state)
{
    struct esp_want before, after;
    (void)state;
    for (unsigned keys = 1; keys < 4; keys++) {
        tell(&(struct world){ true, keys, "1" });
        esp_plan(&map, STR("a"), &before);
        tell(&(struct world){ true, keys + 1, "1" });
        esp_plan(&map, STR("b"), &after);
        assert_non_null(find(&after, before.peers[0].spi_out));
        assert_non_null(find(&before, after.peers[0].spi_out));
        esp_want_done(&before);
        esp_want_done(&after);
    }
}

static void test_boot(void **state)
{
    struct esp_want before, after;
    (void)state;
    tell(&(struct world){ true, 1, "1" });
    esp_plan(&map, STR("a"), &before);
    tell(&(struct world){ true, 1, "1" });
    esp_plan(&map, STR("a"), &after);
    assert_true(esp_want_same(&before, &after));
    esp_want_done(&after);
    tell(&(struct world){ true, 1, "2" });
    esp_plan(&map, STR("a"), &after);
    assert_false(esp_want_same(&before, &after));
    for (size_t i = 0; i < before.nsas; i++)
        assert_null(find(&after, before.sas[i].spi));
    esp_want_done(&before);
    esp_want_done(&after);
}

static void test_nothing_encrypted(void **state)
{
    struct esp_want w;
    (void)state;
    tell(&(struct world){ false, 1, "1" });
    esp_plan(&map, STR("a"), &w);
    assert_int_equal(w.port, 0);
    assert_int_equal(w.nsas + w.npeers, 0);
    esp_want_done(&w);
    tell(&(struct world){ true, 0, "1" }); /* no keys yet: blocked, not clear */
    esp_plan(&map, STR("a"), &w);
    assert_int_equal(w.port, 4790);
    assert_int_equal(w.peers[0].spi_out, 0);
    esp_want_done(&w);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = { T(test_two_ends), T(test_rotation), T(test_boot), T(test_nothing_encrypted) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
