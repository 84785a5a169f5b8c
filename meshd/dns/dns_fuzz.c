/* dns_fuzz.c - any bytes as a question, and as a nameserver's answer to it: [1 byte: options][question]. */
#include "common/util/check.h"
#include "meshd/dns/dns_core.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct netmap *world(void)
{
    static struct netmap map;
    struct err e = ERR_INIT;
    static struct net_subnet sub = { STR("10.0.1.0/24"), STR("10.0.1.1") };
    static struct net_network n = { .ID = STR("n1"), .Name = STR("net"), .Subnets = { &sub, 1 } };
    static struct str vip = STR("10.0.1.2"), ip = STR("10.0.1.11"), alias = STR("shop");
    static struct net_service s = { .ID = STR("s1"),
                                    .NetworkID = STR("n1"),
                                    .Name = STR("web"),
                                    .Mode = STR("vip"),
                                    .VIPs = { &vip, 1 },
                                    .Aliases = { &alias, 1 } };
    static struct net_endpoint ep = { STR("t1"),       STR("n1"),    STR("s1"), STR("a"),
                                      STR("web.1.t1"), STR("ready"), { &ip, 1 } };

    if (map.seq > 0)
        return &map;
    netmap_init(&map);
    CHECK(netmap_apply(&map,
                       &(struct disp_network_reply){
                           .Seq = 1, .Networks = { &n, 1 }, .Services = { &s, 1 }, .Endpoints = { &ep, 1 } },
                       &e) == 0);
    return &map;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char networks[][ID_SIZE] = { "n1" };
    static struct arena a;
    struct buf out = BUF_INIT;

    if (size < 1)
        return 0;
    if (!a.limit_bytes)
        arena_init(&a, 1 << 20);
    arena_reset(&a);
    struct dns_zone z = { world(), "t1", "box", 1, networks, data[0] & 1, data[0] & 2 };
    struct str q = { (const char *)data + 1, size - 1 };
    if (dns_answer(&z, q, data[0] & 4, data[0], &a, &out) == DNS_REPLY) {
        CHECK(out.n >= 12 && out.n <= DNS_MESSAGE_MAX && out.p[0] == q.p[0] && out.p[1] == q.p[1]);
        CHECK((uint8_t)out.p[2] & 0x80);
        CHECK(data[0] & 4 || out.n <= DNS_UDP_MAX || out.n <= q.n);
    }
    (void)dns_is_answer(q, buf_str(&out));
    (void)dns_is_answer(buf_str(&out), q);
    (void)dns_try_next(q);
    buf_done(&out);
    return 0;
}
