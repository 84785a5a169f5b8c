/* Scenarios of pools and subnets, and both against models that look at everything each time. */
#include "allocatord/alloc_pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "allocatord/alloc_subnet.h"
#include "common/util/check.h"
#include "common/util/scenario.h"

static uint64_t rng;

static uint64_t below(uint64_t n)
{
    uint64_t z = (rng += 0x9e3779b97f4a7c15ull);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return (z ^ z >> 31) % n;
}

/* ---- scenarios ---- */

#define POOLS_MAX 8

struct scenario {
    struct alloc_pool pool;
    struct subnets taken;
    struct cidr pools[POOLS_MAX];
    size_t npools, navoid;
    struct ip avoid[POOLS_MAX];
    struct ip cursor;
};

static void *begin(void)
{
    struct scenario *sc = calloc(1, sizeof *sc);
    CHECK(sc != NULL);
    return sc;
}

static struct cidr cidr(const char *text)
{
    struct cidr c;
    CHECK(cidr_parse(str_from(text), &c));
    return c;
}

/* subnet NET [range=NET] [gateway=IP] [aux=IP]... */
static void make_pool(struct scenario *sc, char **words, unsigned n, struct buf *out)
{
    struct view_ipam_config v = { .Subnet = str_from(words[1]) };
    struct strpair aux[16];
    struct subnet s;
    struct err e;
    char text[IP_TEXT_MAX];
    for (unsigned i = 2; i < n; i++) {
        char *val = scenario_value(words[i]);
        if (strcmp(words[i], "range") == 0)
            v.IPRange = str_from(val);
        else if (strcmp(words[i], "gateway") == 0)
            v.Gateway = str_from(val);
        else
            aux[v.AuxiliaryAddresses.n++] = (struct strpair){ STR("aux"), str_from(val) };
    }
    v.AuxiliaryAddresses.v = aux;
    pool_done(&sc->pool);
    if (subnet_read(&v, &s, &e) != 0) {
        buf_printf(out, "%s\n", e.msg);
        return;
    }
    subnet_gateway(&s);
    subnet_pool(&s, &sc->pool);
    buf_printf(out, "gateway %s, %u free\n", ip_text(s.gateway, text), pool_free(&sc->pool));
}

static void take(struct scenario *sc, unsigned n, struct buf *out)
{
    char text[IP_TEXT_MAX];
    struct ip ip;
    for (unsigned i = 0; i < n; i++)
        buf_printf(out, "%s%s", i ? " " : "", pool_take(&sc->pool, &ip) ? ip_text(ip, text) : "none");
    buf_putc(out, '\n');
}

static void next(struct scenario *sc, unsigned len, unsigned n, struct buf *out)
{
    char text[CIDR_TEXT_MAX];
    for (unsigned i = 0; i < n; i++) {
        struct cidr c;
        if (!subnets_away(&sc->taken, sc->pools, sc->npools, (uint8_t)len, sc->cursor, sc->avoid, sc->navoid, &c)) {
            buf_puts(out, i ? " none" : "none");
            continue;
        }
        CHECK(subnets_add(&sc->taken, c));
        sc->cursor = cidr_last(c);
        sc->cursor.v++;
        buf_printf(out, "%s%s", i ? " " : "", cidr_text(c, text));
    }
    buf_putc(out, '\n');
}

static unsigned number(const char *text)
{
    return (unsigned)strtoul(text, NULL, 10);
}

static void read_line(void *arg, char **words, unsigned n, struct buf *out)
{
    struct scenario *sc = arg;
    const char *w = words[0];
    char text[CIDR_TEXT_MAX];
    struct ip ip;
    if (strcmp(w, "subnet") == 0) {
        make_pool(sc, words, n, out);
    } else if (strcmp(w, "take") == 0) {
        take(sc, n > 1 ? number(words[1]) : 1, out);
    } else if (strcmp(w, "free") == 0 || strcmp(w, "use") == 0) {
        CHECK(ip_parse(str_from(words[1]), &ip));
        pool_set(&sc->pool, ip, w[0] == 'u');
    } else if (strcmp(w, "past") == 0) {
        CHECK(ip_parse(str_from(words[1]), &ip));
        pool_past(&sc->pool, ip);
    } else if (strcmp(w, "left") == 0) {
        buf_printf(out, "%u\n", pool_free(&sc->pool));
    } else if (strcmp(w, "pools") == 0) {
        sc->npools = 0;
        for (unsigned i = 1; i < n && sc->npools < POOLS_MAX; i++)
            sc->pools[sc->npools++] = cidr(words[i]);
    } else if (strcmp(w, "avoid") == 0) {
        for (unsigned i = 1; i < n && sc->navoid < POOLS_MAX; i++)
            CHECK(ip_parse(str_from(words[i]), &sc->avoid[sc->navoid++]));
    } else if (strcmp(w, "add") == 0) {
        const struct cidr *other = subnets_overlap(&sc->taken, cidr(words[1]));
        if (other)
            buf_printf(out, "overlaps %s\n", cidr_text(*other, text));
        CHECK(subnets_add(&sc->taken, cidr(words[1])) == (other == NULL));
    } else if (strcmp(w, "del") == 0) {
        subnets_del(&sc->taken, cidr(words[1]));
    } else if (strcmp(w, "next") == 0) {
        next(sc, number(words[1]), n > 2 ? number(words[2]) : 1, out);
    } else {
        CHECK(!"a known line");
    }
}

static void end(void *arg, struct buf *out)
{
    struct scenario *sc = arg;
    (void)out;
    pool_done(&sc->pool);
    subnets_done(&sc->taken);
    free(sc);
}

static void test_scenarios(void **state)
{
    static const struct scenario_ops ops = { begin, read_line, end };
    (void)state;
    assert_true(scenario_run("allocatord/testdata/core/*.txt", &ops));
}

/* ---- against models ---- */

/* A pool of 3 pages; every address is given before one is given twice, and none that is in use. */
static void test_pool_against_a_model(void **state)
{
    static bool used[3u << 12];
    const uint32_t n = 3u << 12;
    struct cidr net = cidr("10.0.0.0/18"), range = cidr("10.0.0.0/18");
    struct alloc_pool p;
    uint32_t have = 0;
    (void)state;
    pool_init(&p, net, range);
    for (uint32_t i = 0; i < p.size; i++) /* shrink to n */
        if (i >= n)
            pool_set(&p, (struct ip){ cidr_first(net).v + i, 4 }, true);
    memset(used, 0, sizeof used);
    used[0] = true;
    have = 1;
    rng = 7;
    for (unsigned step = 0; step < 200000; step++) {
        uint32_t at = (uint32_t)below(n);
        struct ip ip = { cidr_first(net).v + at, 4 };
        bool emptying = step / 20000 % 2;
        assert_int_equal(pool_has(&p, ip), used[at]);
        if (below(100) < (emptying ? 30 : 70)) {
            struct ip got;
            assert_int_equal(pool_take(&p, &got), have < n);
            if (have < n) {
                uint32_t g = (uint32_t)(got.v - cidr_first(net).v);
                assert_true(g < n && !used[g]);
                used[g] = true;
                have++;
            }
        } else if (used[at] && at) {
            pool_set(&p, ip, false);
            used[at] = false;
            have--;
        }
        assert_int_equal(pool_free(&p), n - have);
    }
    pool_done(&p);
}

static void test_addresses_are_not_reused_at_once(void **state)
{
    struct alloc_pool p;
    struct ip last = { 0 }, ip;
    (void)state;
    pool_init(&p, cidr("10.0.0.0/24"), cidr("10.0.0.0/24"));
    for (unsigned i = 0; i < 254 * 3; i++) {
        assert_true(pool_take(&p, &ip));
        if (i)
            assert_true(ip.v == last.v + 1 || (last.v & 255) == 254);
        last = ip;
        pool_set(&p, ip, false);
    }
    assert_int_equal(p.used, 2);
    pool_done(&p);
}

static void test_subnets_against_a_model(void **state)
{
    struct cidr pool = cidr("10.0.0.0/16"), all[512];
    struct subnets s = { 0 };
    size_t n = 0;
    (void)state;
    rng = 3;
    for (unsigned step = 0; step < 20000; step++) {
        uint8_t len = (uint8_t)(20 + below(8));
        struct cidr c = { { cidr_first(pool).v + below(1 << 16), 4 }, len };
        bool overlap = false;
        c = cidr_masked(c);
        for (size_t i = 0; i < n; i++)
            overlap |= cidr_overlap(all[i], c);
        assert_int_equal(subnets_overlap(&s, c) != NULL, overlap);
        if (below(2) && n > 0) {
            size_t i = below(n);
            subnets_del(&s, all[i]);
            all[i] = all[--n];
        } else if (below(2) && n < 500) {
            assert_int_equal(subnets_add(&s, c), !overlap);
            if (!overlap)
                all[n++] = c;
        } else if (n < 500 && subnets_next(&s, &pool, 1, len, c.ip, &c)) {
            for (size_t i = 0; i < n; i++)
                assert_false(cidr_overlap(all[i], c));
            assert_true(cidr_holds(pool, c) && cidr_first(c).v == c.ip.v);
            assert_true(subnets_add(&s, c));
            all[n++] = c;
        } else if (n < 500) { /* none is free: so it is */
            for (ip_num at = cidr_first(pool).v; at < cidr_last(pool).v; at += (ip_num)1 << (32 - len)) {
                struct cidr try = { { at, 4 }, len };
                bool free_one = true;
                for (size_t i = 0; i < n; i++)
                    free_one &= !cidr_overlap(all[i], try);
                assert_false(free_one);
            }
        }
        assert_int_equal(s.n, n);
    }
    subnets_done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scenarios),
        cmocka_unit_test(test_pool_against_a_model),
        cmocka_unit_test(test_addresses_are_not_reused_at_once),
        cmocka_unit_test(test_subnets_against_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
