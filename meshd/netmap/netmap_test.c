/* netmap_test.c - the managers' word and gossip become one map, and every change of it is told once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "meshd/netmap/netmap.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static struct netmap map;
static struct arena arena;

static int setup(void **state)
{
    (void)state;
    netmap_init(&map);
    arena_init(&arena, 1 << 20);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    netmap_done(&map);
    arena_done(&arena);
    return 0;
}

static struct strs strs(const char *a, const char *b)
{
    struct strs s = { arena_array(&arena, 2, sizeof(struct str)), 0 };
    if (a)
        s.v[s.n++] = str_from(a);
    if (b)
        s.v[s.n++] = str_from(b);
    return s;
}

static struct net_subnet subnet = { STR("10.0.1.0/24"), STR("10.0.1.1") };

static struct net_network network(const char *id)
{
    return (struct net_network){
        .ID = str_from(id), .Name = str_from(id), .VNI = 4097, .Subnets = { &subnet, 1 }, .Ingress = id[0] == 'i'
    };
}

static struct net_service service(const char *id, const char *net, const char *name, const char *vip)
{
    return (struct net_service){ .ID = str_from(id),
                                 .NetworkID = str_from(net),
                                 .Name = str_from(name),
                                 .Mode = STR("vip"),
                                 .VIPs = strs(vip, NULL) };
}

static struct net_endpoint endpoint(const char *id, const char *net, const char *svc, const char *node,
                                    const char *state, const char *ip)
{
    return (struct net_endpoint){ .ID = str_from(id),
                                  .NetworkID = str_from(net),
                                  .ServiceID = str_from(svc),
                                  .NodeID = str_from(node),
                                  .Name = str_from(id),
                                  .State = str_from(state),
                                  .Addresses = strs(ip, NULL) };
}

static struct net_node node(const char *id, const char *addr)
{
    return (
        struct net_node){ .ID = str_from(id), .Addr = str_from(addr), .Hostname = str_from(id), .BootID = STR("b1") };
}

static void apply(const struct disp_network_reply *r)
{
    struct err e = ERR_INIT;
    if (netmap_apply(&map, r, &e) < 0)
        fail_msg("%s", e.msg);
}

/* The usual world: network n1 with service web of t1 (node a, ready) and t2 (node b, starting). */
static void usual(void)
{
    struct net_network n = network("n1");
    struct net_service s = service("web", "n1", "Web", "10.0.1.2");
    struct net_endpoint ep[] = { endpoint("t1", "n1", "web", "a", "ready", "10.0.1.5"),
                                 endpoint("t2", "n1", "web", "b", "starting", "10.0.1.6") };
    struct net_node nodes[] = { node("a", "10.77.0.1"), node("b", "10.77.0.2") };
    apply(&(struct disp_network_reply){ .Seq = 7,
                                        .Full = true,
                                        .DataPathPort = 4789,
                                        .Networks = { &n, 1 },
                                        .Services = { &s, 1 },
                                        .Endpoints = { ep, 2 },
                                        .Nodes = { nodes, 2 } });
}

/* "kind:id " of each change, in order */
static const char *told(void)
{
    static const char *const kinds[] = { "all", "net", "svc", "ep", "node", "keys" };
    static char text[1000];
    struct netmap_change c;
    text[0] = 0;
    while (netmap_next(&map, &c))
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s%s ", kinds[c.kind], c.kind ? ":" : "",
                 c.kind == NETMAP_NETWORK ? c.network : c.id);
    return text;
}

static const char *backends(const char *net, const char *svc)
{
    static char text[200];
    struct netmap_endpoint **v;
    const struct netmap_network *n = netmap_network(&map, str_from(net));
    size_t count = netmap_backends(&map, n, netmap_service(n, str_from(svc)), &arena, &v);
    text[0] = 0;
    for (size_t i = 0; i < count; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s ", v[i]->id);
    return text;
}

static void test_first_answer(void **state)
{
    (void)state;
    usual();
    assert_string_equal(told(), "all node:a node:b net:n1 ep:t1 svc:web ep:t2 ");
    assert_string_equal(told(), "");
    assert_string_equal(backends("n1", "web"), "t1 ");
    assert_int_equal(map.seq, 7);
    struct disp_network q = { 0 };
    netmap_ask(&map, &arena, &q);
    assert_int_equal(q.Seq, 7);
    assert_int_equal(q.Networks.n, 1);
    assert_true(str_is(q.Networks.v[0], "n1"));
}

static void test_state_moves(void **state)
{
    (void)state;
    usual();
    (void)told();
    struct net_endpoint ep = endpoint("t2", "n1", "web", "b", "ready", "10.0.1.6");
    apply(&(struct disp_network_reply){ .Seq = 8, .Endpoints = { &ep, 1 } });
    assert_string_equal(told(), "svc:web "); /* nothing to do for the overlay */
    assert_string_equal(backends("n1", "web"), "t1 t2 ");
    ep = endpoint("t2", "n1", "web", "c", "ready", "10.0.1.6");
    apply(&(struct disp_network_reply){ .Seq = 9, .Endpoints = { &ep, 1 } });
    struct netmap_change c;
    assert_true(netmap_next(&map, &c));
    assert_int_equal(c.kind, NETMAP_ENDPOINT);
    assert_string_equal(c.node, "b"); /* where it was */
    assert_int_equal(c.nips, 1);
    assert_string_equal(told(), "svc:web ");
    struct strs gone = strs("n1/t1", "n1/never-heard-of");
    apply(&(struct disp_network_reply){ .Seq = 10, .GoneEndpoints = gone });
    assert_string_equal(told(), "ep:t1 svc:web ");
    assert_string_equal(backends("n1", "web"), "t2 ");
}

static void test_gossip_takes_away(void **state)
{
    (void)state;
    usual();
    (void)told();
    netmap_node_dead(&map, STR("a"), true);
    assert_string_equal(told(), "svc:web ");
    assert_string_equal(backends("n1", "web"), "");
    netmap_node_dead(&map, STR("a"), true);
    assert_string_equal(told(), "");
    usual(); /* an answer does not raise the dead */
    (void)told();
    assert_string_equal(backends("n1", "web"), "");
    netmap_node_dead(&map, STR("a"), false);
    assert_string_equal(backends("n1", "web"), "t1 ");
    netmap_withdraw(&map, STR("t1"), true);
    assert_string_equal(told(), "svc:web ");
    assert_string_equal(backends("n1", "web"), "");
    netmap_withdraw(&map, STR("t1"), false);
    assert_string_equal(backends("n1", "web"), "t1 ");
}

static size_t named(const char *name)
{
    struct netmap_service **v;
    return netmap_by_name(netmap_network(&map, STR("n1")), str_from(name), &arena, &v);
}

static void test_names_and_addresses(void **state)
{
    struct netmap_service *s;
    struct netmap_endpoint *ep;
    struct netmap_ip ip;
    struct netmap_network *net;
    (void)state;
    usual();
    net = netmap_network(&map, STR("n1"));
    assert_int_equal(named("web"), 1);
    assert_int_equal(named("WEB"), 1);
    assert_int_equal(named("nobody"), 0);
    assert_true(netmap_ip_parse(STR("10.0.1.2"), &ip));
    assert_true(netmap_by_address(net, &ip, &s, &ep));
    assert_string_equal(s->id, "web");
    assert_null(ep);
    assert_true(netmap_ip_parse(STR("10.0.1.6"), &ip));
    assert_true(netmap_by_address(net, &ip, &s, &ep));
    assert_string_equal(ep->id, "t2");
    struct net_service again = service("web", "n1", "web2", "10.0.1.3");
    again.Aliases = strs("shop", NULL);
    apply(&(struct disp_network_reply){ .Seq = 8, .Services = { &again, 1 } });
    assert_int_equal(named("web"), 0);
    assert_int_equal(named("web2"), 1);
    assert_int_equal(named("shop"), 1);
    assert_true(netmap_ip_parse(STR("10.0.1.2"), &ip));
    assert_false(netmap_by_address(net, &ip, &s, &ep));
    assert_string_equal(backends("n1", "web"), "t1 "); /* who belongs to it is not forgotten with it */
    apply(&(struct disp_network_reply){ .Seq = 9, .GoneServices = strs("n1/web", NULL) });
    assert_int_equal(named("shop"), 0);
}

/* An address goes over from one task to another: the one that goes does not take it along. */
static void test_address_changes_hands(void **state)
{
    struct netmap_service *s;
    struct netmap_endpoint *ep;
    struct netmap_ip ip;
    (void)state;
    usual();
    struct net_endpoint t3 = endpoint("t3", "n1", "web", "b", "ready", "10.0.1.5");
    apply(&(struct disp_network_reply){ .Seq = 8, .Endpoints = { &t3, 1 } });
    apply(&(struct disp_network_reply){ .Seq = 9, .GoneEndpoints = strs("n1/t1", NULL) });
    assert_true(netmap_ip_parse(STR("10.0.1.5"), &ip));
    assert_true(netmap_by_address(netmap_network(&map, STR("n1")), &ip, &s, &ep));
    assert_string_equal(ep->id, "t3");
}

static void test_networks_go(void **state)
{
    (void)state;
    usual();
    (void)told();
    apply(&(struct disp_network_reply){ .Seq = 8, .GoneNetworks = strs("n1", "n9") });
    assert_string_equal(told(), "net:n1 ");
    assert_null(netmap_network(&map, STR("n1")));
    struct net_network n = network("ing");
    apply(&(struct disp_network_reply){ .Seq = 9, .Networks = { &n, 1 } });
    assert_string_equal(netmap_ingress(&map)->id, "ing");
    apply(&(struct disp_network_reply){ .Seq = 10, .GoneNodes = strs("a", NULL) });
    assert_string_equal(told(), "net:ing node:a ");
    assert_null(netmap_node(&map, STR("a")));
}

static void test_node_moves(void **state)
{
    (void)state;
    usual();
    (void)told();
    struct net_node n = node("a", "10.77.0.1");
    apply(&(struct disp_network_reply){ .Seq = 8, .Nodes = { &n, 1 } });
    assert_string_equal(told(), "");
    n = node("a", "10.77.0.9");
    apply(&(struct disp_network_reply){ .Seq = 9, .Nodes = { &n, 1 } });
    struct netmap_change c;
    char text[NETMAP_IP_TEXT];
    assert_true(netmap_next(&map, &c));
    assert_int_equal(c.kind, NETMAP_NODE);
    assert_string_equal(netmap_ip_text(&c.ips[0], text), "10.77.0.1");
    n.BootID = STR("b2"); /* it was rebooted */
    apply(&(struct disp_network_reply){ .Seq = 10, .Nodes = { &n, 1 } });
    assert_string_equal(told(), "node:a ");
    assert_string_equal(netmap_node(&map, STR("a"))->boot, "b2");
}

static void test_keys(void **state)
{
    struct net_key k[] = { { STR("gossip"), 2, STR("0123456789abcdef") }, { STR("esp"), 1, STR("fedcba9876543210") } };
    (void)state;
    apply(&(struct disp_network_reply){ .Seq = 1, .Keys = { k, 2 } });
    assert_string_equal(told(), "all keys: ");
    assert_int_equal(map.nkeys, 2);
    apply(&(struct disp_network_reply){ .Seq = 2 });
    assert_int_equal(map.nkeys, 2); /* none: as before */
}

/* What makes no sense changes nothing, and everything is asked for again. */
static void test_nonsense(void **state)
{
    struct err e = ERR_INIT;
    (void)state;
    usual();
    (void)told();
    struct net_endpoint ep[] = {
        endpoint("t9", "n1", "web", "a", "sleeping", "10.0.1.5"), endpoint("t9", "n2", "web", "a", "ready", "10.0.1.5"),
        endpoint("t9", "n1", "web", "a", "ready", "10.0.1.500"),  endpoint("t9", "n1", "web", "", "ready", "10.0.1.5"),
        endpoint("../t", "n1", "web", "a", "ready", "10.0.1.5"),
    };
    for (size_t i = 0; i < COUNT(ep); i++) {
        map.seq = 7;
        assert_true(netmap_apply(&map, &(struct disp_network_reply){ .Seq = 8, .Endpoints = { &ep[i], 1 } }, &e) < 0);
        assert_int_equal(e.code, ERR_INVALID);
        assert_int_equal(map.seq, 0);
        assert_string_equal(told(), "");
        assert_string_equal(backends("n1", "web"), "t1 ");
    }
    assert_non_null(strstr(e.msg, "Endpoints[0].ID"));
    map.seq = 7; /* on a network that goes in the same answer */
    struct net_endpoint late = endpoint("t9", "n1", "web", "a", "ready", "10.0.1.9");
    assert_true(
        netmap_apply(
            &map, &(struct disp_network_reply){ .Seq = 8, .GoneNetworks = strs("n1", NULL), .Endpoints = { &late, 1 } },
            &e) < 0);
    struct disp_network q = { 0 };
    netmap_ask(&map, &arena, &q);
    assert_int_equal(q.Networks.n, 0);
    usual(); /* the answer to it starts anew */
    assert_string_equal(backends("n1", "web"), "t1 ");
}

static void test_ip_text(void **state)
{
    static const char *const bad[] = { "", "10.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/x", "::1/129", "1.2.3.4 " };
    struct netmap_ip ip;
    uint8_t mac[6];
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_false(netmap_ip_parse(str_from(bad[i]), &ip));
    assert_true(netmap_ip_parse(STR("10.0.1.12/24"), &ip));
    assert_int_equal(ip.prefix, 24);
    netmap_mac(&ip, mac);
    assert_memory_equal(mac, ((uint8_t[]){ 2, 0x42, 10, 0, 1, 12 }), 6);
    assert_true(netmap_ip_parse(STR("fd00::5"), &ip));
    assert_int_equal(ip.family, AF_INET6);
    assert_int_equal(ip.prefix, 128);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_first_answer),
        T(test_state_moves),
        T(test_gossip_takes_away),
        T(test_names_and_addresses),
        T(test_address_changes_hands),
        T(test_networks_go),
        T(test_node_moves),
        T(test_keys),
        T(test_nonsense),
        T(test_ip_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
