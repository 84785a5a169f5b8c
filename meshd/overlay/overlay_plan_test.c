/* What a network's VXLAN device should know, and the attachments' files: no kernel. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "meshd/overlay/attach.h"
#include "meshd/overlay/overlay_plan.h"

static struct netmap map;
static uint64_t seq;

struct ep {
    const char *id, *node, *addr, *addr6;
};

/* tell - network "n" with these endpoints; nodes a, b at 192.0.2.1, .2, c with an IPv6 address. */
static void tell(const struct ep *eps, size_t n, const char *addr_b)
{
    struct net_subnet subnet = { .Subnet = STR("10.0.1.0/24") };
    struct net_network net = { .ID = STR("n"), .Name = STR("n"), .VNI = 5000, .Subnets = { &subnet, 1 } };
    struct net_node nodes[] = { { .ID = STR("a"), .Addr = STR("192.0.2.1"), .Hostname = STR("a") },
                                { .ID = STR("b"), .Addr = str_from(addr_b), .Hostname = STR("b") },
                                { .ID = STR("c"), .Addr = STR("2001:db8::3"), .Hostname = STR("c") } };
    struct net_endpoint in[8];
    struct str addrs[8][2];
    struct netmap_change c;
    struct err e = ERR_INIT;
    for (size_t i = 0; i < n; i++) {
        addrs[i][0] = str_from(eps[i].addr);
        addrs[i][1] = str_from(eps[i].addr6);
        in[i] = (struct net_endpoint){ .ID = str_from(eps[i].id),
                                       .NetworkID = STR("n"),
                                       .NodeID = str_from(eps[i].node),
                                       .State = STR("ready"),
                                       .Addresses = { addrs[i], eps[i].addr6 ? 2 : 1 } };
    }
    struct disp_network_reply rep = { .Seq = ++seq,
                                      .Full = true,
                                      .DataPathPort = 4789,
                                      .Networks = { &net, 1 },
                                      .Endpoints = { in, n },
                                      .Nodes = { nodes, 3 } };
    if (netmap_apply(&map, &rep, &e) < 0)
        fail_msg("%s", e.msg);
    while (netmap_next(&map, &c))
        ;
}

static struct overlay_have have;
static struct overlay_edits edits;
static const struct overlay_self self = { { "a", 1 }, AF_INET };

static int setup(void **state)
{
    (void)state;
    netmap_init(&map);
    overlay_have_init(&have);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    netmap_done(&map);
    overlay_have_done(&have);
    overlay_edits_done(&edits);
    return 0;
}

static char text[2000];
static const char *plan(void)
{
    static const char *const names[] = { "+fdb", "-fdb", "+neigh", "-neigh" };
    size_t n = 0;
    edits.n = 0;
    overlay_plan_all(&have, &map, netmap_network(&map, STR("n")), &self, &edits);
    text[0] = '\0';
    for (size_t i = 0; i < edits.n; i++) {
        char ip[NETMAP_IP_TEXT];
        const uint8_t *m = edits.v[i].mac.b;
        n += (size_t)snprintf(text + n, sizeof text - n, "%s %02x%02x%02x%02x%02x%02x %s\n", names[edits.v[i].type],
                              m[0], m[1], m[2], m[3], m[4], m[5], netmap_ip_text(&edits.v[i].ip, ip));
    }
    return text;
}

static void test_all(void **state)
{
    (void)state;
    const struct ep eps[] = { { "t1", "a", "10.0.1.1", NULL }, { "t2", "b", "10.0.1.2", NULL } };
    tell(eps, 2, "192.0.2.2");
    assert_string_equal(plan(), "+fdb 02420a000102 192.0.2.2\n+neigh 02420a000102 10.0.1.2\n"); /* ours is none of it */
    assert_string_equal(plan(), "");
    tell(eps, 2, "192.0.2.77"); /* the node has moved */
    assert_string_equal(plan(), "+fdb 02420a000102 192.0.2.77\n");
    tell(eps, 1, "192.0.2.77");
    assert_string_equal(plan(), "-neigh 02420a000102 10.0.1.2\n-fdb 02420a000102 192.0.2.77\n");
    assert_int_equal(have.fdb.count + have.neigh.count, 0);
}

static void test_unreachable_node(void **state)
{
    (void)state;
    const struct ep eps[] = { { "t1", "c", "10.0.1.1", NULL }, { "t2", "nobody", "10.0.1.2", NULL } };
    tell(eps, 2, "192.0.2.2"); /* c speaks IPv6, and of the other one nothing is known */
    assert_string_equal(plan(), "");
}

static void test_two_addresses(void **state)
{
    (void)state;
    const struct ep eps[] = { { "t2", "b", "10.0.1.2", "fd00::2" } };
    tell(eps, 1, "192.0.2.2"); /* one interface, so one Ethernet address for both */
    assert_string_equal(plan(), "+fdb 02420a000102 192.0.2.2\n+neigh 02420a000102 10.0.1.2\n"
                                "+neigh 02420a000102 fd00::2\n");
}

static void test_strangers_go(void **state)
{
    (void)state;
    const struct ep eps[] = { { "t2", "b", "10.0.1.2", NULL } };
    struct netmap_ip node, ip;
    tell(eps, 1, "192.0.2.2");
    assert_true(netmap_ip_parse(STR("192.0.2.9"), &node) && netmap_ip_parse(STR("10.0.1.2"), &ip));
    overlay_have_fdb(&have, (const uint8_t[]){ 2, 1, 1, 1, 1, 1 }, &node);
    overlay_have_neigh(&have, &ip, (const uint8_t[]){ 2, 1, 1, 1, 1, 1 });
    assert_string_equal(plan(), "-fdb 020101010101 192.0.2.9\n+fdb 02420a000102 192.0.2.2\n"
                                "+neigh 02420a000102 10.0.1.2\n");
}

static void test_one_address(void **state)
{
    (void)state;
    const struct ep eps[] = { { "t2", "b", "10.0.1.2", NULL }, { "t3", "b", "10.0.1.3", NULL } };
    struct netmap_ip ip;
    tell(eps, 2, "192.0.2.2");
    assert_true(netmap_ip_parse(STR("10.0.1.3"), &ip));
    overlay_plan_addrs(&have, &map, netmap_network(&map, STR("n")), &self, &ip, 1, &edits);
    assert_int_equal(edits.n, 2);
    assert_int_equal(have.neigh.count, 1);
    edits.n = 0;
    overlay_plan_addrs(&have, &map, NULL, &self, &ip, 1, &edits); /* the network is gone */
    assert_int_equal(edits.n, 2);
    assert_int_equal(have.neigh.count + have.fdb.count, 0);
}

/* Random maps: what is planned step by step is what is planned at once, and nothing is left to do afterwards. */
static void test_random(void **state)
{
    (void)state;
    unsigned r = 1;
    for (int round = 0; round < 300; round++) {
        struct ep eps[8];
        char addrs[8][20];
        static const char *const nodes[] = { "a", "b", "c", "b" }, *const ids[] = { "0", "1", "2", "3",
                                                                                    "4", "5", "6", "7" };
        size_t n = 0;
        for (int i = 0; i < 8; i++) {
            r = r * 1103515245u + 12345u;
            if (r >> 16 & 1)
                continue;
            snprintf(addrs[i], sizeof addrs[i], "10.0.1.%d", i + 1);
            eps[n++] = (struct ep){ ids[i], nodes[r >> 18 & 3], addrs[i], NULL };
        }
        tell(eps, n, r >> 20 & 1 ? "192.0.2.2" : "192.0.2.3");
        plan();
        struct overlay_have fresh;
        struct overlay_edits es = { 0 };
        overlay_have_init(&fresh);
        overlay_plan_all(&fresh, &map, netmap_network(&map, STR("n")), &self, &es);
        assert_int_equal(fresh.fdb.count, have.fdb.count);
        assert_int_equal(fresh.neigh.count, have.neigh.count);
        assert_int_equal(es.n, have.fdb.count + have.neigh.count);
        overlay_have_done(&fresh);
        overlay_edits_done(&es);
        assert_string_equal(plan(), "");
    }
}

static void test_mtu(void **state)
{
    (void)state;
    assert_int_equal(overlay_mtu(0, 1500, AF_INET, false), 1450);
    assert_int_equal(overlay_mtu(0, 1500, AF_INET6, false), 1430);
    assert_int_equal(overlay_mtu(0, 9000, AF_INET, false), 8950);
    assert_true(overlay_mtu(0, 1500, AF_INET, true) < 1450);
    assert_int_equal(overlay_mtu(0, 0, AF_INET, false), 1450);
    assert_int_equal(overlay_mtu(0, 500, AF_INET, false), 576);
    assert_int_equal(overlay_mtu(1400, 1500, AF_INET, false), 1400);
}

/* ---- attachments ---- */

static struct mesh_up request(struct net_attachment *nets, struct str *addrs)
{
    addrs[0] = STR("10.0.1.5/24");
    addrs[1] = STR("10.0.2.5/24");
    nets[0] =
        (struct net_attachment){ .Network = { .ID = STR("ing"), .Name = STR("ingress"), .VNI = 4096, .Ingress = true },
                                 .Addresses = { addrs, 1 } };
    nets[1] = (struct net_attachment){ .Network = { .ID = STR("n1"), .Name = STR("n1"), .VNI = 4097 },
                                       .Addresses = { addrs, 1 } };
    nets[2] =
        (struct net_attachment){ .Network = { .ID = STR("n2"), .Name = STR("n2"), .VNI = 4098, .Encrypted = true },
                                 .Addresses = { addrs + 1, 1 } };
    return (struct mesh_up){ .TaskID = STR("t1"), .Hostname = STR("box"), .Networks = { nets, 3 } };
}

static void test_attach(void **state)
{
    (void)state;
    struct net_attachment nets[3];
    struct str addrs[2];
    struct mesh_up up = request(nets, addrs);
    struct attach *a = NULL;
    struct err e = ERR_INIT;
    assert_int_equal(attach_new(&up, &a, &e), 0);
    assert_non_null(a);
    assert_int_equal(a->nnets, 2); /* the ingress network is none of ours */
    assert_string_equal(a->nets[0].id, "n1");
    assert_int_equal(a->nets[0].eth, 1);
    assert_int_equal(a->nets[1].eth, 2);
    assert_true(a->nets[1].encrypted);
    assert_int_equal(a->nets[1].ips[0].prefix, 24);
    assert_true(str_is(a->up.Hostname, "box"));
    attach_free(a);
    up.Networks.n = 1;
    assert_int_equal(attach_new(&up, &a, &e), 0);
    assert_null(a);
}

static void refused(const struct mesh_up *up, const char *why)
{
    struct attach *a = NULL;
    struct err e = ERR_INIT;
    assert_true(attach_new(up, &a, &e) < 0);
    if (!strstr(e.msg, why))
        fail_msg("\"%s\" is not about %s", e.msg, why);
}

static void test_attach_refused(void **state)
{
    (void)state;
    struct net_attachment nets[3];
    struct str addrs[2];
    struct mesh_up up = request(nets, addrs);
    nets[1].Network.VNI = 1u << 24;
    refused(&up, "VNI");
    up = request(nets, addrs);
    nets[1].Network.ID = STR("../x");
    refused(&up, "identifier");
    up = request(nets, addrs);
    nets[1].Network.MTU = 100;
    refused(&up, "MTU");
    up = request(nets, addrs);
    addrs[0] = STR("10.0.1.500/24");
    refused(&up, "malformed");
    up = request(nets, addrs);
    nets[1].Addresses.n = 0;
    refused(&up, "addresses");
    up = request(nets, addrs);
    nets[2].Network.ID = STR("n1");
    refused(&up, "twice");
}

static void on_note(void *arg, const char *note)
{
    (void)note;
    ++*(int *)arg;
}

static void test_attach_files(void **state)
{
    (void)state;
    char dir[] = "/tmp/attach-test-XXXXXX", path[100];
    struct net_attachment nets[3];
    struct str addrs[2];
    struct mesh_up up = request(nets, addrs);
    struct attach_set s;
    struct attach *a = NULL;
    struct err e = ERR_INIT;
    int notes = 0;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(attach_set_open(&s, dir, on_note, &notes, &e), 0);
    assert_int_equal(attach_new(&up, &a, &e), 0);
    assert_int_equal(attach_save(&s, a, &e), 0);
    attach_set_close(&s);
    snprintf(path, sizeof path, "%s/broken", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("\xc1nothing", f);
    fclose(f);
    assert_int_equal(attach_set_open(&s, dir, on_note, &notes, &e), 0);
    assert_int_equal(notes, 1);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(s.tasks.count, 1);
    a = attach_get(&s, STR("t1"));
    assert_non_null(a);
    assert_int_equal(a->nnets, 2);
    assert_int_equal(attach_forget(&s, STR("t1"), &a, &e), 0);
    attach_free(a);
    assert_int_equal(attach_forget(&s, STR("t1"), &a, &e), 0);
    assert_null(a);
    attach_set_close(&s);
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(test_all),          T(test_unreachable_node), T(test_two_addresses),
        T(test_strangers_go), T(test_one_address),      T(test_random),
        T(test_mtu),          T(test_attach),           T(test_attach_refused),
        T(test_attach_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
