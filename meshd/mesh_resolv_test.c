
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "meshd/mesh_resolv.h"

#define HOST                                                                                                           \
    "# by dhcp\ndomain example.org\nsearch example.org corp\nnameserver 127.0.0.53\nnameserver ::1\n"                  \
    "nameserver 2001:db8::1\n nameserver\t10.1.1.1 \noptions edns0 trust-ad\nsortlist 10.0.0.0"

static void expect(struct mesh_resolv r, const char *want)
{
    struct buf out = BUF_INIT;
    mesh_resolv_text(&r, &out);
    assert_string_equal(buf_cstr(&out), want);
    buf_done(&out);
}

static void test_host(void **state)
{
    (void)state;
    expect((struct mesh_resolv){ .host = STR(HOST), .own_net = true, .fallback = STR("8.8.8.8") },
           "domain example.org\nsearch example.org corp\nnameserver 10.1.1.1\noptions edns0 trust-ad\n"
           "sortlist 10.0.0.0\n");
    expect((struct mesh_resolv){ .host = STR("nameserver 127.0.0.1\n"),
                                 .own_net = true,
                                 .fallback = STR("8.8.8.8 1.1.1.1") },
           "nameserver 8.8.8.8\nnameserver 1.1.1.1\n");
    expect((struct mesh_resolv){ .own_net = true }, "");
    expect((struct mesh_resolv){ .host = STR("nameserver 127.0.0.1\nnameserver ::1\n"), .fallback = STR("8.8.8.8") },
           "nameserver 127.0.0.1\nnameserver ::1\n"); /* the host's network: all of it holds */
}

static void test_task(void **state)
{
    struct str ns[] = { STR("9.9.9.9"), STR("2001:db8::9") }, search[] = { STR("a.b"), STR("c") }, dot[] = { STR(".") };
    struct str opt[] = { STR("ndots:2"), STR("rotate") };
    (void)state;
    expect((struct mesh_resolv){ .host = STR(HOST), .own_net = true, .nameservers = { ns, 2 } },
           "nameserver 9.9.9.9\nnameserver 2001:db8::9\ndomain example.org\nsearch example.org corp\n"
           "options edns0 trust-ad\nsortlist 10.0.0.0\n");
    expect((struct mesh_resolv){ .host = STR(HOST), .own_net = true, .search = { search, 2 }, .options = { opt, 2 } },
           "search a.b c\noptions ndots:2 rotate\nnameserver 10.1.1.1\nsortlist 10.0.0.0\n");
    expect((struct mesh_resolv){ .host = STR(HOST), .own_net = true, .search = { dot, 1 } },
           "nameserver 10.1.1.1\noptions edns0 trust-ad\nsortlist 10.0.0.0\n");
}

static void test_check(void **state)
{
    struct str bad_ns[] = { STR("dns.example") }, bad_word[] = { STR("a\nnameserver 6.6.6.6") }, empty[] = { STR("") };
    struct str good[] = { STR("fe80::1%eth0"), STR("10.0.0.1") };
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(mesh_resolv_check(&(struct mesh_resolv){ .nameservers = { bad_ns, 1 } }, &e), -ERR_INVALID);
    assert_string_equal(e.msg, "DNSConfig.Nameservers[0]: must be an IP address");
    assert_int_equal(mesh_resolv_check(&(struct mesh_resolv){ .search = { bad_word, 1 } }, &e), -ERR_INVALID);
    assert_int_equal(mesh_resolv_check(&(struct mesh_resolv){ .options = { empty, 1 } }, &e), -ERR_INVALID);
    assert_int_equal(mesh_resolv_check(&(struct mesh_resolv){ .nameservers = { good, 2 } }, &e), 0);
}

static void test_stub(void **state)
{
    (void)state;
    assert_true(mesh_resolv_only_stub(STR("options edns0\nnameserver 127.0.0.53\n")));
    assert_false(mesh_resolv_only_stub(STR("nameserver 127.0.0.53\nnameserver 10.0.0.1\n")));
    assert_false(mesh_resolv_only_stub(STR("")));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_host),
        cmocka_unit_test(test_task),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_stub),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
