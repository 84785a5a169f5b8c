/* Durations, sizes, columns, names of images, log frames, JSON layout. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "swarmctl/display.h"
#include "swarmctl/human.h"
#include "swarmctl/imageref.h"
#include "swarmctl/jpath.h"
#include "swarmctl/output.h"
#include "swarmctl/service_logs.h"
#include "swarmctl/tabw.h"

#define S INT64_C(1000000000)
#define HOUR_NS (3600 * S)

static void expect(struct buf *b, const char *want)
{
    assert_string_equal(buf_cstr(b), want);
    buf_clear(b);
}

static void test_human(void **state)
{
    static const struct {
        int64_t ns;
        const char *text;
    } ago[] = { { -5 * S, "Less than a second" }, { S, "1 second" },          { 59 * S, "59 seconds" },
                { 60 * S, "About a minute" },     { 120 * S, "2 minutes" },   { 3600 * S, "About an hour" },
                { 5400 * S, "2 hours" },          { 48 * HOUR_NS, "2 days" }, { 360 * HOUR_NS, "2 weeks" },
                { 2160 * HOUR_NS, "3 months" },   { INT64_MAX, "292 years" } };
    struct buf b = BUF_INIT;

    (void)state;
    for (size_t i = 0; i < sizeof ago / sizeof ago[0]; i++) {
        human_duration(&b, ago[i].ns);
        expect(&b, ago[i].text);
    }
    human_bytes(&b, 16.0 * 1024 * 1024);
    expect(&b, "16MiB");
    human_bytes(&b, 25275998208.0);
    expect(&b, "23.54GiB");
    human_size(&b, 3968000, 4);
    expect(&b, "3.968MB");
    human_size(&b, 0, 3);
    expect(&b, "0B");
    go_duration(&b, 0);
    expect(&b, "0s");
    go_duration(&b, 5400 * S);
    expect(&b, "1h30m0s");
    go_duration(&b, -1500000);
    expect(&b, "-1.5ms");
    go_duration(&b, INT64_MIN);
    expect(&b, "-2562047h47m16.854775808s");
    ellipsis(&b, STR("no suitable node (insufficient resources)"), 30);
    expect(&b, "no suitable node (insufficien…");
    ellipsis(&b, STR("ééééé"), 3);
    expect(&b, "éé…");
    buf_done(&b);
}

static void test_natural(void **state)
{
    (void)state;
    assert_true(natural_cmp("web2", "web10") < 0);
    assert_true(natural_cmp("web.9", "web.10") < 0);
    assert_true(natural_cmp("a", "b") < 0);
    assert_true(natural_cmp("a1b", "a1") > 0);
    assert_int_equal(natural_cmp("a01", "a01"), 0);
    assert_true(natural_cmp("a1", "a01") != 0);
    assert_int_equal(edit_distance("servce", "service"), 1);
    assert_int_equal(edit_distance("", "abc"), 3);
}

static void test_columns(void **state)
{
    struct buf b = BUF_INIT;

    (void)state;
    tabw_format(&b, STR("ID\tNAME\tX\nabcdefghijkl\té\tlast\n"), 10, 3);
    expect(&b, "ID             NAME      X\nabcdefghijkl   é         last\n");
    tabw_format(&b, STR("no tabs\na\tb\n\nlonger cell\tc\n"), 5, 1);
    expect(&b, "no tabs\na    b\n\nlonger cell c\n");
    tabw_format(&b, STR("a\tb\tc\nd\te\nf\tg\th"), 3, 1);
    expect(&b, "a  b  c\nd  e\nf  g  h");
    tabw_format(&b, STR(""), 10, 3);
    expect(&b, "");
    buf_done(&b);
}

static void test_images(void **state)
{
    static const char *const cases[][3] = {
        /* as written, as listings show it, as it is sent */
        { "busybox", "busybox", "busybox:latest" },
        { "docker.io/library/busybox:1", "busybox:1", "busybox:1" },
        { "docker.io/a/b", "docker.io/a/b", "a/b:latest" },
        { "127.0.0.1:5000/a:1@sha256:00", "127.0.0.1:5000/a:1", "127.0.0.1:5000/a:1@sha256:00" },
        { "localhost/a", "localhost/a", "localhost/a:latest" },
        { "a@sha256:00", "a@sha256:00", "a@sha256:00" },
        { "Bad:Name", "Bad:Name", "Bad:Name" },
        { "", "", "" },
        { "/", "/", "/" },
        { "a:", "a:", "a:" },
    };
    struct buf b = BUF_INIT;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        imageref_shown(&b, cases[i][0]);
        expect(&b, cases[i][1]);
        imageref_tagged(&b, cases[i][0]);
        expect(&b, cases[i][2]);
    }
    imageref_registry(&b, "a/b");
    expect(&b, "docker.io");
    imageref_registry(&b, "r.example:5/b");
    expect(&b, "r.example:5");
    buf_done(&b);
}

static bool collect(void *arg, int stream, struct str payload)
{
    buf_printf(arg, "%d:" STR_FMT, stream, STR_ARG(payload));
    return true;
}

static void test_frames(void **state)
{
    static const char stream[] = "\1\0\0\0\0\0\0\3ab\n\2\0\0\0\0\0\0\2c\n\1\0\0\0\0\0\0\0";
    struct buf got = BUF_INIT;

    (void)state;
    for (size_t cut = 1; cut < sizeof stream - 1; cut++) { /* however it is cut */
        struct frames f = { .line = collect, .arg = &got };
        for (size_t at = 0; at < sizeof stream - 1; at += cut)
            assert_true(frames_feed(&f, stream + at, at + cut < sizeof stream - 1 ? cut : sizeof stream - 1 - at));
        expect(&got, "1:ab\n2:c\n1:");
        buf_done(&f.pending);
    }
    struct frames f = { .line = collect, .arg = &got };
    assert_false(frames_feed(&f, "plain text", 10));
    buf_done(&f.pending);
    buf_done(&got);
    json_t *d = details_parse(STR("a=1,b%2Cc=x%20y+z"));
    assert_string_equal(json_string_value(json_object_get(d, "b,c")), "x y z");
    json_decref(d);
    assert_null(details_parse(STR("novalue")));
    assert_null(details_parse(STR("a=%zz")));
}

static void test_layout(void **state)
{
    struct buf b = BUF_INIT;

    (void)state;
    json_indent(&b, STR("{\"a\":[1, {}],\"b\":\"x,\\\"{y\",\"c\":[ ] ,\"d\":{\"e\":null}}"), "  ");
    expect(&b, "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": \"x,\\\"{y\",\n  \"c\": [],\n  \"d\": {\n    \"e\": "
               "null\n  }\n}");
    json_squeeze(&b, STR(" { \"a b\" : [ 1 ] } \n"));
    expect(&b, "{\"a b\":[1]}");
    buf_done(&b);
}

static void test_messages(void **state)
{
    static const char stream[] =
        "{\"status\":\"Pulling\",\"id\":\"1\"}\r\n{\"status\":\"Down\",\"progressDetail\":{\"current\":1,"
        "\"total\":2},\"id\":\"a\"}\n{\"stream\":\"Loaded\\n\"}{\"error\":\"no\"}";
    char *out;
    size_t len;

    (void)state;
    for (size_t cut = 1; cut < 40; cut++) {
        struct display d = { .out = open_memstream(&out, &len), .columns = 80 };
        struct message_stream s = { .display = &d };
        for (size_t at = 0; at < sizeof stream - 1; at += cut)
            assert_true(message_feed(stream + at, at + cut < sizeof stream - 1 ? cut : sizeof stream - 1 - at, &s));
        fclose(d.out);
        assert_string_equal(out, "1: Pulling\nLoaded\n");
        assert_string_equal(buf_cstr(&s.error), "no");
        message_done(&s);
        display_done(&d);
        free(out);
    }
}

/* On a terminal a line is found again and rewritten. */
static void test_redraw(void **state)
{
    char *out;
    size_t len;
    struct display d = { .out = open_memstream(&out, &len), .tty = true, .columns = 120 };

    (void)state;
    display_progress(&d, &(struct progress){ .id = "a", .text = "x" });
    display_progress(&d, &(struct progress){ .id = "b", .text = "y", .current = 9, .total = 9 });
    display_progress(&d, &(struct progress){ .id = "a", .text = "z" });
    display_progress(&d, &(struct progress){ .id = "", .text = "end", .message = true });
    display_done(&d);
    fclose(d.out);
    assert_string_equal(out, "\n\x1b[1A\x1b[2K\ra: x \r\x1b[1B"
                             "\n\x1b[1A\x1b[2K\rb: y [==================================================>] \r\x1b[1B"
                             "\x1b[2A\x1b[2K\ra: z \r\x1b[2B"
                             "end\n");
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_human),    cmocka_unit_test(test_natural), cmocka_unit_test(test_columns),
        cmocka_unit_test(test_images),   cmocka_unit_test(test_frames),  cmocka_unit_test(test_layout),
        cmocka_unit_test(test_messages), cmocka_unit_test(test_redraw),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
