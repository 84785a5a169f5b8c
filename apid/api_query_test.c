/* Query strings, paths and filters, as clients send them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "apid/api_filter.h"
#include "apid/api_query.h"
#include "apid/api_route.h"

static struct arena arena;
static struct err err;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena, 1u << 20);
    err = (struct err)ERR_INIT;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_done(&arena);
    return 0;
}

static struct query parse(const char *text)
{
    static struct query q;

    assert_int_equal(query_parse(&q, str_from(text), &arena, &err), 0);
    return q;
}

static void test_pairs(void **state)
{
    (void)state;
    struct query q = parse("a=1&b=x%20y+z&&c&a=2&d==");

    assert_int_equal(q.n, 5);
    assert_string_equal(query_get(&q, "a").p, "1");
    assert_string_equal(query_get(&q, "b").p, "x y z");
    assert_int_equal(query_get(&q, "c").n, 0);
    assert_non_null(query_get(&q, "c").p);
    assert_string_equal(query_get(&q, "d").p, "=");
    assert_null(query_get(&q, "e").p);
}

static void test_bad_escapes(void **state)
{
    static const char *const bad[] = { "a=%", "a=%2", "a=%zz", "%00=1", "a=b%0", NULL };
    static struct query q;

    (void)state;
    for (size_t i = 0; bad[i]; i++)
        assert_int_equal(query_parse(&q, str_from(bad[i]), &arena, &err), -ERR_INVALID);
}

static void test_too_many(void **state)
{
    static struct query q;
    char text[QUERY_PAIRS_MAX * 4 + 8] = "";

    (void)state;
    for (int i = 0; i < QUERY_PAIRS_MAX + 1; i++)
        memcpy(text + (size_t)4 * (size_t)i, "a=1&", 5);
    assert_int_equal(query_parse(&q, str_from(text), &arena, &err), -ERR_INVALID);
}

static void test_loose_bools(void **state)
{
    (void)state;
    struct query q = parse("a=0&b=no&c=False&d=NONE&e=&f=1&g=yes&h=maybe&i");
    static const char *const no[] = { "a", "b", "c", "d", "e", "i", "missing", NULL };
    static const char *const yes[] = { "f", "g", "h", NULL };

    for (size_t i = 0; no[i]; i++)
        assert_false(query_loose(&q, no[i]));
    for (size_t i = 0; yes[i]; i++)
        assert_true(query_loose(&q, yes[i]));
}

static void test_strict_bools(void **state)
{
    (void)state;
    struct query q = parse("a=True&b=f&c=maybe&d=");
    bool v;

    assert_int_equal(query_strict(&q, "a", &v, &err), 0);
    assert_true(v);
    assert_int_equal(query_strict(&q, "b", &v, &err), 0);
    assert_false(v);
    assert_int_equal(query_strict(&q, "d", &v, &err), 0);
    assert_int_equal(query_strict(&q, "c", &v, &err), -ERR_INVALID);
    assert_string_equal(err.msg, "invalid value for c: maybe: strconv.ParseBool: parsing \"maybe\": invalid syntax");
    assert_int_equal(query_rotate(&q, "c", &v, &err), -ERR_INVALID);
    assert_string_equal(err.msg, "invalid value for c: maybe");
}

static void test_versions(void **state)
{
    (void)state;
    struct query q = parse("version=12");
    uint64_t v;

    assert_int_equal(query_version(&q, "service", &v, &err), 0);
    assert_int_equal(v, 12);
    q = parse("");
    assert_int_equal(query_version(&q, "service", &v, &err), -ERR_INVALID);
    assert_string_equal(err.msg, "invalid service version '': strconv.ParseUint: parsing \"\": invalid syntax");
    q = parse("version=99999999999999999999");
    assert_int_equal(query_version(&q, "node", &v, &err), -ERR_INVALID);
    assert_non_null(strstr(err.msg, "value out of range"));
    q = parse("version=-1");
    assert_int_equal(query_version(&q, "node", &v, &err), -ERR_INVALID);
}

static void test_times(void **state)
{
    (void)state;
    struct query q = parse("a=12&b=12.5&c=12.000000001&d=2026-11-20T15:45:37Z&e=abc&f=&g=1.&h=12.1234567899&i=-5");
    int64_t t;
    bool set;

    assert_int_equal(query_time(&q, "a", &t, &set, &err), 0);
    assert_true(set && t == 12000000000);
    assert_int_equal(query_time(&q, "b", &t, &set, &err), 0);
    assert_true(t == 12500000000);
    assert_int_equal(query_time(&q, "c", &t, &set, &err), 0);
    assert_true(t == 12000000001);
    assert_int_equal(query_time(&q, "d", &t, &set, &err), 0);
    assert_true(t == 1795189537000000000);
    assert_int_equal(query_time(&q, "e", &t, &set, &err), -ERR_INVALID);
    assert_int_equal(query_time(&q, "f", &t, &set, &err), 0);
    assert_false(set);
    assert_int_equal(query_time(&q, "g", &t, &set, &err), 0);
    assert_int_equal(query_time(&q, "h", &t, &set, &err), 0);
    assert_true(t == 12123456789);
    assert_int_equal(query_time(&q, "i", &t, &set, &err), 0);
    assert_true(t == -5000000000);
}

static void test_tail(void **state)
{
    (void)state;
    struct query q = parse("tail=5");
    int64_t n;

    assert_int_equal(query_tail(&q, &n, &err), 0);
    assert_int_equal(n, 5);
    q = parse("tail=all");
    assert_int_equal(query_tail(&q, &n, &err), 0);
    assert_int_equal(n, -1);
    q = parse("tail=-3");
    assert_int_equal(query_tail(&q, &n, &err), -ERR_INVALID);
    assert_string_equal(err.msg, "negative tail values not supported");
    q = parse("tail=abc");
    assert_int_equal(query_tail(&q, &n, &err), -ERR_INVALID);
    assert_string_equal(err.msg, "tail value must be a positive integer or \"all\"");
}

/* ---- filters ---- */

static struct filters filters(const char *json)
{
    static struct filters f;

    assert_int_equal(filters_parse(&f, str_from(json), &arena, &err), 0);
    return f;
}

static void test_both_encodings(void **state)
{
    (void)state;
    struct filters a = filters("{\"id\":{\"x\":true,\"y\":true}}"), b = filters("{\"id\":[\"x\",\"y\"]}");

    assert_int_equal(filters_get(&a, "id")->n, 2);
    assert_int_equal(filters_get(&b, "id")->n, 2);
    assert_true(filters_exact(&b, "id", STR("y")));
    assert_false(filters_exact(&b, "id", STR("z")));
    assert_true(filters_exact(&b, "name", STR("z")));
    assert_true(filters_prefix(&a, "id", STR("xylophone")));
    assert_false(filters_prefix(&a, "id", STR("")));
    assert_true(filters_substr(&a, "id", STR("proxy")));
    struct filters none = filters("");
    assert_int_equal(none.n, 0);
    none = filters("{\"id\":[]}");
    assert_true(filters_exact(&none, "id", STR("z")));
}

static void test_bad_filters(void **state)
{
    static const char *const bad[] = { "xx", "[]", "\"a\"", "{\"id\":1}", "{\"id\":[1]}", "{\"id\":{\"a\":1}}",
                                       "{",  NULL };
    static const char *const known[] = { "id", NULL };
    static struct filters f;

    (void)state;
    for (size_t i = 0; bad[i]; i++)
        assert_int_equal(filters_parse(&f, str_from(bad[i]), &arena, &err), -ERR_INVALID);
    f = filters("{\"bogus\":[\"x\"]}");
    assert_int_equal(filters_known(&f, known, &err), -ERR_INVALID);
    assert_string_equal(err.msg, "invalid filter 'bogus'");
}

static void test_labels(void **state)
{
    (void)state;
    struct buf b = BUF_INIT;

    mp_map(&b, 2);
    mp_kv_cstr(&b, "com.example.a", "1");
    mp_kv_cstr(&b, "b", "");
    struct filters f = filters("{\"label\":[\"com.example.a=1\",\"b\"]}");
    assert_true(filters_labels(&f, "label", buf_str(&b)));
    f = filters("{\"label\":[\"com.example.a=1\",\"c\"]}");
    assert_false(filters_labels(&f, "label", buf_str(&b)));
    f = filters("{\"label\":[\"com.example.a=2\"]}");
    assert_false(filters_labels(&f, "label", buf_str(&b)));
    f = filters("{\"label\":[\"b=\"]}");
    assert_true(filters_labels(&f, "label", buf_str(&b)));
    assert_false(filters_labels(&f, "label", (struct str){ NULL, 0 }));
    buf_done(&b);
}

/* ---- routes ---- */

static void nothing(struct req *r)
{
    (void)r;
}

static const struct api_route table[] = {
    { "GET", "/services", nothing, 0, 0 },
    { "POST", "/services/create", nothing, 0, 0 },
    { "GET", "/services/{}", nothing, 0, 0 },
    { "GET", "/services/{}/logs", nothing, 0, 0 },
    { "GET", "/images/{*}/json", nothing, 0, 0 },
    { "DELETE", "/images/{*}", nothing, 0, 0 },
    { .pattern = NULL },
};

static const char *find(const char *method, const char *path, struct str params[ROUTE_PARAMS_MAX])
{
    const struct api_route *t = route_find(table, str_from(method), str_from(path), params);
    return t ? t->pattern : NULL;
}

static void test_routes(void **state)
{
    struct str p[ROUTE_PARAMS_MAX];

    (void)state;
    assert_string_equal(find("GET", "/services", p), "/services");
    assert_string_equal(find("HEAD", "/services", p), "/services");
    assert_null(find("GET", "/services/", p));
    assert_null(find("POST", "/services", p));
    assert_null(find("PUT", "/services/create", p));
    assert_string_equal(find("GET", "/services/web/logs", p), "/services/{}/logs");
    assert_true(str_is(p[0], "web"));
    assert_string_equal(find("GET", "/images/a:5000/b/c:1/json", p), "/images/{*}/json");
    assert_true(str_is(p[0], "a:5000/b/c:1"));
    assert_string_equal(find("DELETE", "/images/x/y@sha256:00", p), "/images/{*}");
    assert_null(find("GET", "/images/json", p));
}

static void test_versions_in_paths(void **state)
{
    static const struct {
        const char *in, *out;
        int version;
    } cases[] = { { "/v1.41/nodes", "/nodes", 141 },
                  { "/nodes", "/nodes", 0 },
                  { "/v1/nodes", "/v1/nodes", -1 },
                  { "/v1.99/x", "/x", 199 },
                  { "/v1.", "/v1.", -1 },
                  { "/volumes", "/volumes", 0 },
                  { "/v2.0/x", "/x", 200 },
                  { "/v1.41", "/v1.41", -1 },
                  { "/v1.100/x", "/v1.100/x", -1 },
                  { "/v", "/v", 0 } };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct str path = str_from(cases[i].in);
        assert_int_equal(route_version(&path), cases[i].version);
        assert_true(str_is(path, cases[i].out));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pairs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_escapes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_many, setup, teardown),
        cmocka_unit_test_setup_teardown(test_loose_bools, setup, teardown),
        cmocka_unit_test_setup_teardown(test_strict_bools, setup, teardown),
        cmocka_unit_test_setup_teardown(test_versions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_times, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tail, setup, teardown),
        cmocka_unit_test_setup_teardown(test_both_encodings, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_filters, setup, teardown),
        cmocka_unit_test_setup_teardown(test_labels, setup, teardown),
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_versions_in_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
