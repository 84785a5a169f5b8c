/* Image references, registry credentials, log frames, addresses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "apid/api_frame.h"
#include "apid/api_ref.h"
#include "common/daemon/addr.h"
#include "common/proto/mp.h"

#define HEX64 "93f006b322ef9a48ce50f9c3dab0872eda3bc62c26f74aaf8693d75d38f352d5"

static struct arena arena;
static struct err err;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena, 1u << 20);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_done(&arena);
    return 0;
}

static void test_references(void **state)
{
    static const struct {
        const char *in, *name, *tag, *digest, *familiar, *path;
    } ok[] = {
        { "busybox", "busybox", "", "", "busybox:latest", "library/busybox" },
        { "busybox:1.0", "busybox", "1.0", "", "busybox:1.0", "library/busybox" },
        { "127.0.0.1:5000/busybox", "127.0.0.1:5000/busybox", "", "", "127.0.0.1:5000/busybox:latest", "busybox" },
        { "127.0.0.1:5000/a/b:x@sha256:" HEX64, "127.0.0.1:5000/a/b", "x", "sha256:" HEX64,
          "127.0.0.1:5000/a/b@sha256:" HEX64, "a/b" },
        { "docker.io/library/busybox", "docker.io/library/busybox", "", "", "busybox:latest", "library/busybox" },
        { "user/app", "user/app", "", "", "user/app:latest", "user/app" },
        { "localhost/app", "localhost/app", "", "", "localhost/app:latest", "app" },
        { "a__b/c-d.e", "a__b/c-d.e", "", "", "a__b/c-d.e:latest", "a__b/c-d.e" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof ok / sizeof *ok; i++) {
        struct image_ref r;
        assert_int_equal(image_ref_parse(str_from(ok[i].in), &r, &err), 0);
        assert_true(str_is(r.name, ok[i].name));
        assert_true(str_is(r.tag, ok[i].tag));
        assert_true(str_is(r.digest, ok[i].digest));
        assert_string_equal(image_ref_familiar(&r, &arena), ok[i].familiar);
        assert_string_equal(image_ref_path(&r, &arena), ok[i].path);
    }
}

static void test_bad_references(void **state)
{
    static const char *const bad[] = { "",      ":",  "a:", "a@",    "a@sha256:12", "UPPER:::", "a//b", "/a",
                                       "a/",    "-a", "a-", "a:b c", "a b",         "a___b",    "a..b", "x:5000:5000/b",
                                       "a@md5", NULL };
    struct image_ref r;

    (void)state;
    for (size_t i = 0; bad[i]; i++)
        if (image_ref_parse(str_from(bad[i]), &r, &err) != -ERR_INVALID)
            fail_msg("accepted: %s", bad[i]);
    assert_int_equal(image_ref_parse(STR("Busybox"), &r, &err), -ERR_INVALID);
    assert_non_null(strstr(err.msg, "must be lowercase"));
}

static void test_auth(void **state)
{
    struct str json;

    (void)state;
    assert_int_equal(auth_decode(STR(""), &arena, &json, &err), 0);
    assert_int_equal(json.n, 0);
    assert_int_equal(auth_decode(STR("e30="), &arena, &json, &err), 0);
    assert_int_equal(json.n, 0);
    assert_int_equal(auth_decode(STR("eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ=="), &arena, &json, &err), 0);
    assert_string_equal(json.p, "{\"username\":\"u\",\"password\":\"p\"}");
    assert_int_equal(auth_decode(STR("eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ"), &arena, &json, &err), 0);
    assert_true(json.n > 0);
    assert_int_equal(auth_decode(STR("!!"), &arena, &json, &err), -ERR_INVALID);
    assert_int_equal(auth_decode(STR("W10="), &arena, &json, &err), -ERR_INVALID); /* [] */
    assert_int_equal(auth_decode(STR("eyJ1"), &arena, &json, &err), -ERR_INVALID); /* {"u */
}

static void test_frames(void **state)
{
    struct log_line l = { .stream = 2, .time_ns = 1795189537000000007, .data = STR("hello\n") };
    struct log_style plain = { 0 }, full = { .timestamps = true, .details = true }, tty = { .tty = true };
    struct buf b = BUF_INIT, details = BUF_INIT;

    (void)state;
    log_details(&details, (struct str){ NULL, 0 }, STR("n,1"), STR("s"), STR("t"));
    l.details = buf_str(&details);
    log_frame_put(&b, &plain, &l);
    assert_int_equal(b.n, 14);
    assert_memory_equal(b.p, "\2\0\0\0\0\0\0\6hello\n", 14);
    buf_clear(&b);
    log_frame_put(&b, &full, &l);
    assert_int_equal(b.p[7], (char)(b.n - 8));
    assert_string_equal(buf_cstr(&b) + 8,
                        "2026-11-20T15:45:37.000000007Z com.docker.swarm.node.id=n%2C1,com.docker.swarm.service.id=s,"
                        "com.docker.swarm.task.id=t hello\n");
    buf_clear(&b);
    log_frame_put(&b, &tty, &l);
    assert_string_equal(buf_cstr(&b), "hello\n");
    buf_done(&b);
    buf_done(&details);
}

/* What a log driver was told to add comes with each line, by name or by pattern. */
static void test_log_details(void **state)
{
    struct buf spec = BUF_INIT, out = BUF_INIT;

    (void)state;
    mp_map(&spec, 2);
    mp_cstr(&spec, "ContainerSpec");
    mp_map(&spec, 2);
    mp_cstr(&spec, "Env");
    mp_array(&spec, 3);
    mp_cstr(&spec, "STAGE=a b");
    mp_cstr(&spec, "SECRET=x");
    mp_cstr(&spec, "NAKED");
    mp_cstr(&spec, "Labels");
    mp_map(&spec, 3);
    mp_kv_cstr(&spec, "team", "blue");
    mp_kv_cstr(&spec, "zone.a", "1");
    mp_kv_cstr(&spec, "other", "2");
    mp_cstr(&spec, "LogDriver");
    mp_map(&spec, 1);
    mp_cstr(&spec, "Options");
    mp_map(&spec, 4);
    mp_kv_cstr(&spec, "labels", "nosuch,team");
    mp_kv_cstr(&spec, "labels-regex", "^zone");
    mp_kv_cstr(&spec, "env", "STAGE,NAKED");
    mp_kv_cstr(&spec, "tag", "v1");
    log_details(&out, buf_str(&spec), STR("n"), STR("s"), STR("t"));
    assert_string_equal(buf_cstr(&out),
                        "STAGE=a+b,com.docker.swarm.node.id=n,com.docker.swarm.service.id=s,com.docker.swarm.task.id=t,"
                        "tag=v1,team=blue,zone.a=1");
    buf_done(&spec);
    buf_done(&out);
}

static void test_addresses(void **state)
{
    static const struct {
        const char *in, *host;
        unsigned port;
        const char *joined;
    } ok[] = { { "0.0.0.0:2377", "0.0.0.0", 2377, "0.0.0.0:2377" },
               { "eth0", "eth0", 9, "eth0:9" },
               { "eth0:80", "eth0", 80, "eth0:80" },
               { "[::1]:7", "::1", 7, "[::1]:7" },
               { "::1", "::1", 9, "[::1]:9" },
               { "[fe80::1]", "fe80::1", 9, "[fe80::1]:9" } };
    static const char *const bad[] = { "", ":80", "[::1", "[]:1", "a:x", "a:70000", "a:", "[::1]x", NULL };
    char text[ADDR_TEXT_MAX];
    struct host_port a;

    (void)state;
    for (size_t i = 0; i < sizeof ok / sizeof *ok; i++) {
        assert_int_equal(addr_parse(str_from(ok[i].in), 9, &a, &err), 0);
        assert_string_equal(a.host, ok[i].host);
        assert_int_equal(a.port, ok[i].port);
        addr_text(&a, text);
        assert_string_equal(text, ok[i].joined);
    }
    for (size_t i = 0; bad[i]; i++)
        if (addr_parse(str_from(bad[i]), 9, &a, &err) != -ERR_INVALID)
            fail_msg("accepted: %s", bad[i]);
    assert_true(addr_is_any("0.0.0.0") && addr_is_any("::") && !addr_is_any("1.2.3.4") && !addr_is_any("eth0"));
    assert_true(addr_is_ip("::1") && !addr_is_ip("eth0"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_references, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_references, setup, teardown),
        cmocka_unit_test_setup_teardown(test_auth, setup, teardown),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_log_details),
        cmocka_unit_test(test_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
