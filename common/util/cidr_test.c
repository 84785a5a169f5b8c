#include "common/util/cidr.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct cidr net(const char *text)
{
    struct cidr c = { 0 };
    assert_true(cidr_parse(str_from(text), &c));
    return c;
}

static struct ip addr(const char *text)
{
    struct ip ip = { 0 };
    assert_true(ip_parse(str_from(text), &ip));
    return ip;
}

static void test_text(void **state)
{
    static const char *const good[][2] = { { "10.0.1.5/24", "10.0.1.5/24" },       { "0.0.0.0/0", "0.0.0.0/0" },
                                           { "255.255.255.255/32", NULL },         { "fd00::5/64", "fd00::5/64" },
                                           { "FD00:0:0:0::1/128", "fd00::1/128" }, { "::/0", "::/0" } };
    static const char *const bad[] = {
        "",          "10.0.0.1",     "10.0.0.1/",    "10.0.0.1/33",   "10.0.0.1/-1", "/24",
        "10.0.0/8",  "fd00::/129",   "10.0.0.1/024", "10.0.0.1/1000", "10.0.0.1/8 ", " 10.0.0.1/8",
        "::1%lo/64", "10.0.0.1/8/8", "bad"
    };
    char buf[CIDR_TEXT_MAX];
    struct cidr c;
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_string_equal(cidr_text(net(good[i][0]), buf), good[i][1] ? good[i][1] : good[i][0]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(cidr_parse(str_from(bad[i]), &c));
    assert_false(cidr_parse((struct str){ "10.0.0.1\0/24", 12 }, &c));
    assert_false(cidr_parse((struct str){ NULL, 0 }, &c));
}

static void test_bounds(void **state)
{
    char buf[IP_TEXT_MAX];
    (void)state;
    assert_string_equal(ip_text(cidr_first(net("10.1.2.3/22")), buf), "10.1.0.0");
    assert_string_equal(ip_text(cidr_last(net("10.1.2.3/22")), buf), "10.1.3.255");
    assert_string_equal(ip_text(cidr_last(net("0.0.0.0/0")), buf), "255.255.255.255");
    assert_string_equal(ip_text(cidr_last(net("::/0")), buf), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    assert_string_equal(ip_text(cidr_first(net("fd00::ffff/120")), buf), "fd00::ff00");
    assert_string_equal(ip_text(cidr_first(net("10.1.2.3/32")), buf), "10.1.2.3");
}

static void test_holding(void **state)
{
    (void)state;
    assert_true(cidr_has(net("10.0.0.0/8"), addr("10.255.255.255")));
    assert_false(cidr_has(net("10.0.0.0/8"), addr("11.0.0.0")));
    assert_false(cidr_has(net("::/0"), addr("10.0.0.0")));
    assert_true(cidr_has(net("::/0"), addr("fd00::1")));
    assert_true(cidr_has(net("10.0.0.7/32"), addr("10.0.0.7")));
    assert_false(cidr_has(net("10.0.0.7/32"), addr("10.0.0.6")));
    assert_true(cidr_holds(net("10.0.0.0/8"), net("10.3.0.0/16")));
    assert_false(cidr_holds(net("10.3.0.0/16"), net("10.0.0.0/8")));
    assert_true(cidr_overlap(net("10.3.0.0/16"), net("10.0.0.0/8")));
    assert_true(cidr_overlap(net("10.0.0.0/8"), net("10.3.0.0/16")));
    assert_false(cidr_overlap(net("10.3.0.0/16"), net("10.4.0.0/16")));
    assert_false(cidr_overlap(net("0.0.0.0/0"), net("::/0")));
    assert_int_equal(cidr_cmp(net("10.0.0.9/24"), net("10.0.0.0/24")), 0);
    assert_true(cidr_cmp(net("10.0.0.0/24"), net("10.0.1.0/24")) < 0);
    assert_true(cidr_cmp(net("::/0"), net("10.0.1.0/24")) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_text), cmocka_unit_test(test_bounds),
                                        cmocka_unit_test(test_holding) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
