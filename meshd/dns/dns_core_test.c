/* dns_core_test.c - what a container on two networks is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <ldns/ldns.h>

#include "meshd/dns/dns_core.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static struct netmap map;
static struct arena arena;
static const char networks[][ID_SIZE] = { "n1", "n2", "not-there-yet" };
static struct dns_zone zone = { &map, "t1", "box", 3, networks, false, true };
static struct buf out;

static struct strs strs(const char *text) /* blank-separated */
{
    struct strs s = { arena_array(&arena, 16, sizeof(struct str)), 0 };
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, " ");
        s.v[s.n++] = (struct str){ p, n };
        p += n + (p[n] == ' ');
    }
    return s;
}

static int setup(void **state)
{
    static struct net_subnet sub[2] = { { STR("10.0.1.0/24"), STR("10.0.1.1") }, { STR("10.0.2.0/24"), STR("") } };
    struct net_network n[] = { { .ID = STR("n1"), .Name = STR("front.net"), .Subnets = { &sub[0], 1 } },
                               { .ID = STR("n2"), .Name = STR("back"), .Subnets = { &sub[1], 1 } } };
    struct err e = ERR_INIT;
    (void)state;
    arena_init(&arena, 64 << 20);
    netmap_init(&map);
    struct net_service s[] = {
        { .ID = STR("s1"),
          .NetworkID = STR("n1"),
          .Name = STR("Web"),
          .Mode = STR("vip"),
          .VIPs = strs("10.0.1.2"),
          .Aliases = strs("shop") },
        { .ID = STR("s2"), .NetworkID = STR("n1"), .Name = STR("db"), .Mode = STR("dnsrr") },
        { .ID = STR("s3"),
          .NetworkID = STR("n2"),
          .Name = STR("web"),
          .Mode = STR("vip"),
          .VIPs = strs("10.0.2.2 fd00::2") },
    };
    struct net_endpoint ep[] = {
        { STR("t1"), STR("n1"), STR("s1"), STR("a"), STR("Web.1.t1"), STR("ready"), strs("10.0.1.11") },
        { STR("t2"), STR("n1"), STR("s1"), STR("a"), STR("Web.2.t2"), STR("ready"), strs("10.0.1.12") },
        { STR("t3"), STR("n1"), STR("s1"), STR("a"), STR("Web.3.t3"), STR("draining"), strs("10.0.1.13") },
        { STR("t4"), STR("n1"), STR("s2"), STR("a"), STR("db.1.t4"), STR("ready"), strs("10.0.1.14") },
        { STR("t5"), STR("n1"), STR("s2"), STR("a"), STR("db.2.t5"), STR("ready"), strs("10.0.1.15") },
        { STR("t1"), STR("n2"), STR("s3"), STR("a"), STR("Web.1.t1"), STR("ready"), strs("10.0.2.11 fd00::11") },
    };
    struct disp_network_reply r = {
        .Seq = 1, .Full = true, .Networks = { n, COUNT(n) }, .Services = { s, COUNT(s) }, .Endpoints = { ep, COUNT(ep) }
    };
    if (netmap_apply(&map, &r, &e) < 0)
        fail_msg("%s", e.msg);
    zone.outside = true;
    zone.single_inside = false;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    netmap_done(&map);
    arena_done(&arena);
    buf_done(&out);
    return 0;
}

static struct str question(const char *name, ldns_rr_type type, uint16_t edns)
{
    ldns_pkt *q = ldns_pkt_query_new(ldns_dname_new_frm_str(name), type, LDNS_RR_CLASS_IN, LDNS_RD);
    uint8_t *wire;
    size_t n;
    ldns_pkt_set_id(q, 0x1234);
    if (edns)
        ldns_pkt_set_edns_udp_size(q, edns);
    assert_int_equal(ldns_pkt2wire(&wire, q, &n), LDNS_STATUS_OK);
    struct str s = arena_str(&arena, (struct str){ (char *)wire, n });
    free(wire);
    ldns_pkt_free(q);
    return s;
}

static int cmp(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* the answer as text: "NOERROR 10.0.1.2 ", addresses sorted; "outside"; "nothing" */
static const char *ask_raw(struct str q, bool tcp)
{
    static char text[70000];
    ldns_pkt *r = NULL;
    buf_clear(&out);
    enum dns_verdict v = dns_answer(&zone, q, tcp, 42, &arena, &out);
    if (v != DNS_REPLY)
        return v == DNS_FORWARD ? "outside" : "nothing";
    assert_int_equal(ldns_wire2pkt(&r, (uint8_t *)out.p, out.n), LDNS_STATUS_OK);
    assert_int_equal(ldns_pkt_id(r), (uint8_t)q.p[0] << 8 | (uint8_t)q.p[1]);
    assert_true(ldns_pkt_qr(r));
    ldns_rr_list *l = ldns_pkt_answer(r);
    char *v_[4000], *rcode = ldns_pkt_rcode2str(ldns_pkt_get_rcode(r));
    size_t n = 0;
    for (size_t i = 0; i < ldns_rr_list_rr_count(l) && n < COUNT(v_); i++) {
        assert_int_equal(ldns_rr_ttl(ldns_rr_list_rr(l, i)), DNS_TTL_S);
        v_[n++] = ldns_rdf2str(ldns_rr_rdf(ldns_rr_list_rr(l, i), 0));
    }
    if (n)
        qsort(v_, n, sizeof *v_, cmp);
    size_t at = (size_t)snprintf(text, sizeof text, "%s%s", rcode, ldns_pkt_tc(r) ? " TC" : "");
    for (size_t i = 0; i < n; i++) {
        at += (size_t)snprintf(text + at, sizeof text - at, " %s", v_[i]);
        free(v_[i]);
    }
    free(rcode);
    ldns_pkt_free(r);
    return text;
}

static const char *ask(const char *name, ldns_rr_type type)
{
    return ask_raw(question(name, type, 0), false);
}
#define A(name) ask(name, LDNS_RR_TYPE_A)

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(A("web"), "NOERROR 10.0.1.2"); /* the first network that knows it */
    assert_string_equal(A("WEB"), "NOERROR 10.0.1.2");
    assert_string_equal(A("shop"), "NOERROR 10.0.1.2");
    assert_string_equal(A("tasks.web"), "NOERROR 10.0.1.11 10.0.1.12"); /* not the draining one */
    assert_string_equal(A("tasks.shop"), "NOERROR 10.0.1.11 10.0.1.12");
    assert_string_equal(A("db"), "NOERROR 10.0.1.14 10.0.1.15");
    assert_string_equal(A("web.2.t2"), "NOERROR 10.0.1.12");
    assert_string_equal(A("web.9.t2"), "outside");
    assert_string_equal(A("box"), "NOERROR 10.0.1.11");
    assert_string_equal(A("web.back"), "NOERROR 10.0.2.2");
    assert_string_equal(A("web.front.net"), "NOERROR 10.0.1.2");
    assert_string_equal(A("tasks.web.back"), "NOERROR 10.0.2.11");
    assert_string_equal(A("debian.org"), "outside");
    assert_string_equal(A("nobody"), "outside");
}

static void test_types(void **state)
{
    (void)state;
    assert_string_equal(ask("web", LDNS_RR_TYPE_AAAA), "NOERROR"); /* known, but not so */
    assert_string_equal(ask("web.back", LDNS_RR_TYPE_AAAA), "NOERROR fd00::2");
    assert_string_equal(ask("web.back", LDNS_RR_TYPE_ANY), "NOERROR 10.0.2.2 fd00::2");
    assert_string_equal(ask("web", LDNS_RR_TYPE_MX), "NOERROR");
    assert_string_equal(ask("debian.org", LDNS_RR_TYPE_MX), "outside");
}

static void test_backwards(void **state)
{
    (void)state;
    assert_string_equal(ask("2.1.0.10.in-addr.arpa", LDNS_RR_TYPE_PTR), "NOERROR Web.front.net.");
    assert_string_equal(ask("12.1.0.10.in-addr.arpa", LDNS_RR_TYPE_PTR), "NOERROR Web.2.t2.front.net.");
    assert_string_equal(ask("99.1.0.10.in-addr.arpa", LDNS_RR_TYPE_PTR), "NXDOMAIN"); /* ours, and nobody's */
    assert_string_equal(ask("8.8.8.8.in-addr.arpa", LDNS_RR_TYPE_PTR), "outside");
    assert_string_equal(ask("8.8.8.in-addr.arpa", LDNS_RR_TYPE_PTR), "outside");
    assert_string_equal(
        ask("1.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", LDNS_RR_TYPE_PTR),
        "NOERROR Web.1.t1.back.");
}

static void test_inside(void **state)
{
    (void)state;
    zone.single_inside = true;
    assert_string_equal(A("nobody"), "NXDOMAIN");
    assert_string_equal(A("debian.org"), "outside");
    zone.outside = false;
    assert_string_equal(A("debian.org"), "NXDOMAIN");
    assert_string_equal(ask("8.8.8.8.in-addr.arpa", LDNS_RR_TYPE_PTR), "NXDOMAIN");
    assert_string_equal(A("web"), "NOERROR 10.0.1.2");
}

/* 2,000 tasks: over UDP as many as fit, with TC; over TCP all; each in a fair place. */
static void test_many(void **state)
{
    struct net_endpoint *ep = arena_array(&arena, 2000, sizeof *ep);
    struct err e = ERR_INIT;
    (void)state;
    for (unsigned i = 0; i < 2000; i++) {
        char *ip = arena_printf(&arena, "10.0.%u.%u", 100 + i / 200, i % 200 + 1);
        ep[i] = (struct net_endpoint){
            str_from(arena_printf(&arena, "m%u", i)), STR("n1"), STR("s2"), STR("a"), STR("x"), STR("ready"), strs(ip)
        };
    }
    assert_int_equal(netmap_apply(&map, &(struct disp_network_reply){ .Seq = 2, .Endpoints = { ep, 2000 } }, &e), 0);
    assert_non_null(strstr(A("db"), "NOERROR TC "));
    assert_true(out.n > 400 && out.n <= DNS_UDP_MIN);
    assert_non_null(strstr(ask_raw(question("db", LDNS_RR_TYPE_A, 4096), false), "NOERROR TC "));
    assert_true(out.n > 1000 && out.n <= DNS_UDP_MAX);
    assert_null(strstr(ask_raw(question("db", LDNS_RR_TYPE_A, 0), true), "TC"));
    assert_int_equal(out.n, 12 + 8 + 2002 * 16);
}

static void test_shuffled(void **state)
{
    unsigned first = 0;
    (void)state;
    for (uint32_t seed = 1; seed <= 1000; seed++) {
        buf_clear(&out);
        assert_int_equal(dns_answer(&zone, question("db", LDNS_RR_TYPE_A, 0), false, seed * 2654435761u, &arena, &out),
                         DNS_REPLY);
        first += out.p[12 + 8 + 15] == 14;
    }
    assert_in_range(first, 400, 600);
}

static void test_nonsense(void **state)
{
    static const char loop[] = "\0\1\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1";
    static const char none[] = "\0\1\1\0\0\0\0\0\0\0\0\0";
    static const char two[] = "\0\1\1\0\0\2\0\0\0\0\0\0\1a\0\0\1\0\1\1b\0\0\1\0\1";
    static const char notify[] = "\0\1\x20\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1";
    static const char cut[] = "\0\1\1\0\0\1\0\0\0\0\0\0\7abc";
    static const char dotted[] = "\0\1\1\0\0\1\0\0\0\0\0\0\7a.b\0web\0\0\1\0\1";
    (void)state;
#define RAW(x) ask_raw((struct str){ (x), sizeof(x) - 1 }, false)
    assert_string_equal(RAW(loop), "FORMERR");
    assert_string_equal(RAW(none), "FORMERR");
    assert_string_equal(RAW(two), "FORMERR");
    assert_string_equal(RAW(cut), "FORMERR");
    assert_string_equal(RAW(notify), "NOTIMPL");
    assert_string_equal(RAW(dotted), "outside");
    struct str q = question("web", LDNS_RR_TYPE_A, 0);
    ((char *)q.p)[2] |= (char)0x80; /* an answer is no question: else two servers could talk for ever */
    assert_string_equal(ask_raw(q, false), "nothing");
    assert_string_equal(ask_raw((struct str){ q.p, 11 }, false), "nothing");
}

static void test_answers_of_others(void **state)
{
    struct str q = question("Debian.org", LDNS_RR_TYPE_A, 0), other = question("debian.net", LDNS_RR_TYPE_A, 0),
               same = question("debian.ORG", LDNS_RR_TYPE_A, 0), aaaa = question("debian.org", LDNS_RR_TYPE_AAAA, 0);
    (void)state;
    assert_false(dns_is_answer(q, same)); /* a question */
    ((char *)same.p)[2] |= (char)0x80;
    ((char *)other.p)[2] |= (char)0x80;
    ((char *)aaaa.p)[2] |= (char)0x80;
    assert_true(dns_is_answer(q, same));
    assert_false(dns_is_answer(q, other));
    assert_false(dns_is_answer(q, aaaa));
    assert_false(dns_is_answer(q, (struct str){ same.p, same.n - 1 }));
    assert_false(dns_try_next(same));
    buf_clear(&out);
    dns_failure(q, DNS_SERVFAIL, &out);
    assert_true(dns_is_answer(q, buf_str(&out)));
    assert_true(dns_try_next(buf_str(&out)));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_names), T(test_types),    T(test_backwards), T(test_inside),
        T(test_many),  T(test_shuffled), T(test_nonsense),  T(test_answers_of_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
