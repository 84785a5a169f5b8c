#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/template/expand.h"

static struct strpair labels[] = { { { "tier", 4 }, { "gold", 4 } }, { { "a-b", 3 }, { "x", 1 } } };
static const struct expand_ctx ctx = { .service_id = { "sid", 3 },
                                       .service_name = { "web", 3 },
                                       .service_labels = { labels, 2 },
                                       .node_id = { "nid", 3 },
                                       .node_hostname = { "host-1", 6 },
                                       .node_arch = { "x86_64", 6 },
                                       .node_os = { "linux", 5 },
                                       .task_id = { "tid", 3 },
                                       .task_name = { "web.2.tid", 9 },
                                       .task_slot = { "2", 1 } };

/* What is written, or the error. */
static const struct {
    const char *in, *want;
} texts[] = {
    { "", "" },
    { "plain } text {", "plain } text {" },
    { "{{.Service.ID}} {{.Service.Name}}", "sid web" },
    { "{{.Node.ID}} {{.Node.Hostname}} {{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}",
      "nid host-1 linux/x86_64" },
    { "{{.Task.ID}} {{.Task.Name}} {{.Task.Slot}}", "tid web.2.tid 2" },
    { "{{.Service.Labels.tier}} {{index .Service.Labels \"a-b\"}}", "gold x" },
    { "{{index .Service.Labels \"none\"}}|", "|" },
    { "{{.Service.Labels.none}}",
      "template: expansion:1:10: executing \"expansion\" at <.Service.Labels.none>: map has no "
      "entry for key \"none\"" },
    { "{{if}}", "template: expansion:1: missing value for if" },
    { "{{}}", "template: expansion:1: missing value for command" },
    { "{{if eq .Task.Slot \"2\"}}two{{else}}other{{end}}", "two" },
    { "{{range $k, $v := .Service.Labels}}{{$k}}={{$v}};{{end}}", "a-b=x;tier=gold;" },
    { "{{with .Service.Labels.tier}}[{{.}}]{{end}}", "[gold]" },
    { "{{join \"-\" .Service.Name .Task.Slot}} {{printf \"%s\" .Task.Slot}}", "web-2 2" },
    { "{{printf \"%.2s|%.0s|%.9s|%4.1s\" \"äöü\" .Service.Name .Node.ID \"é!\"}}", "äö||nid|   é" },
    { "{{.Bogus}}", "template: expansion:1:2: executing \"expansion\" at <.Bogus>: can't evaluate field Bogus in type "
                    "*template.Context" },
    { "a{{.Service.Bogus}}", "template: expansion:1:11: executing \"expansion\" at <.Service.Bogus>: can't evaluate "
                             "field Bogus in type struct "
                             "{ ID string; Name string; Labels map[string]string }" },
    { "{{.Node.Platform.Bogus}}",
      "template: expansion:1:7: executing \"expansion\" at <.Node.Platform.Bogus>: can't evaluate field Bogus in type "
      "template.Platform" },
    { "{{.Task.Slot.X}}", "template: expansion:1:7: executing \"expansion\" at <.Task.Slot.X>: can't evaluate field X "
                          "in type string" },
    { "{{.Service", "template: expansion:1: unclosed action" },
    { "{{env \"X\"}}", "template: expansion:1: function \"env\" not defined" },
    { "{{secret \"x\"}}", "template: expansion:1: function \"secret\" not defined" },
};

static void test_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct arena a;
        struct str out = { "", 0 };
        struct err e = ERR_INIT;
        arena_init(&a, 1 << 20);
        int r = expand_text(&ctx, str_from(texts[i].in), &a, &out, &e);
        char *got = r < 0 ? str_dup(str_from(e.msg)) : str_dup(out);
        assert_string_equal(got, texts[i].want);
        free(got);
        arena_done(&a);
    }
}

static bool find_secret(void *arg, struct str target, struct str *ret)
{
    (void)arg;
    *ret = (struct str){ "p\0w", 3 };
    return str_is(target, "db");
}

static bool find_config(void *arg, struct str target, struct str *ret)
{
    (void)arg;
    *ret = STR("{{.Never.Expanded}}");
    return str_is(target, "/etc/c");
}

static void test_payload(void **state)
{
    (void)state;
    struct str env[] = { STR("PATH=/bin"), STR("Mode=prod=1") };
    const struct expand_refs refs = { .env = { env, 2 }, .secret = find_secret, .config = find_config };
    static const struct {
        const char *in, *want;
        size_t n;
    } good[] = {
        { "pw={{secret \"db\"}}.", "pw=p\0w.", 7 },
        { "{{config \"/etc/c\"}}", "{{.Never.Expanded}}", 19 },
        { "{{env \"MODE\"}},{{env \"NONE\"}},{{env \"PAT\"}}", "prod=1,,", 8 },
        { "{{.Service.Name}}", "web", 3 },
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct buf out = BUF_INIT;
        struct err e = ERR_INIT;
        assert_int_equal(expand_payload(&ctx, &refs, str_from(good[i].in), &out, &e), 0);
        assert_int_equal(out.n, good[i].n);
        assert_memory_equal(out.p, good[i].want, out.n);
        buf_done(&out);
    }
    static const char *const bad[][2] = {
        { "{{secret \"nope\"}}", "template: expansion:1:2: executing \"expansion\" at <secret>: error calling secret: "
                                 "secret target nope not found" },
        { "{{.Foo}}", "template: expansion:1:2: executing \"expansion\" at <.Foo>: can't evaluate field Foo in type "
                      "*template.PayloadContext" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct buf out = BUF_INIT;
        struct err e = ERR_INIT;
        assert_true(expand_payload(&ctx, &refs, str_from(bad[i][0]), &out, &e) < 0);
        assert_string_equal(e.msg, bad[i][1]);
        buf_done(&out);
    }
}

/* Texts that ask for more than they may have, of memory or of time, are ended. */
static void test_bounds(void **state)
{
    (void)state;
    static struct strpair many[2000];
    static char keys[2000][8];
    for (size_t i = 0; i < 2000; i++) {
        snprintf(keys[i], sizeof keys[i], "k%zu", i);
        many[i] = (struct strpair){ str_from(keys[i]), STR("some text that is not short") };
    }
    struct expand_ctx big = ctx;
    big.service_labels = (struct strmap){ many, 2000 };
    static const char *const bad[] = {
        "{{$x := \"aaaaaaaa\"}}{{range .Service.Labels}}{{$x = print $x $x}}{{end}}",
        "{{range .Service.Labels}}{{range $.Service.Labels}}{{range $.Service.Labels}}{{end}}{{end}}{{end}}",
        "{{range .Service.Labels}}{{range $.Service.Labels}}{{$.Service.Labels}}{{end}}{{end}}",
        "{{range .Service.Labels}}{{range $.Service.Labels}}{{printf \"%.0s\" $.Service.Labels}}{{end}}{{end}}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct arena a;
        struct str out;
        struct err e = ERR_INIT;
        arena_init(&a, 4 << 20);
        assert_true(expand_text(&big, str_from(bad[i]), &a, &out, &e) < 0);
        arena_done(&a);
    }
    struct buf long_text = BUF_INIT;
    struct err e = ERR_INIT;
    for (int i = 0; i < 200000; i++)
        buf_puts(&long_text, "{{.}}");
    assert_true(expand_check(buf_str(&long_text), &e) < 0); /* too many actions */
    buf_clear(&long_text);
    buf_puts(&long_text, "{{printf `%.1s` `");
    for (int i = 0; i < 900000; i++)
        buf_putc(&long_text, 'a');
    buf_puts(&long_text, "`}}");
    assert_int_equal(expand_check(buf_str(&long_text), &e), 0); /* at once */
    buf_done(&long_text);
}

static void test_check(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    assert_int_equal(expand_check(STR("{{.Service.Name}}-{{.Task.Slot}}"), &e), 0);
    assert_int_equal(expand_check(STR("{{slice .Service.Name 0 3}}"), &e), 0);
    assert_true(expand_check(STR("{{.Service.Nme}}"), &e) < 0);
    assert_int_equal(expand_check(STR("{{.Service.Labels.any}}"), &e), 0);
    assert_true(expand_env_check(STR("A={{.X \"q\"}}"), &e) < 0);
    assert_string_equal(
        e.msg, "expanding env \"A={{.X \\\"q\\\"}}\": template: expansion:1:2: executing \"expansion\" at <.X>: "
               "can't give argument to non-function .X");
    assert_int_equal(expand_env_check(STR("A{{.X}}"), &e), 0);
    assert_true(expand_mount_check("mount source", STR("{{.X}}"), &e) < 0);
    assert_string_equal(
        e.msg, "expanding mount source \"{{.X}}\": template: expansion:1:2: executing \"expansion\" at <.X>: can't "
               "evaluate field X in type *template.Context");
    struct arena a;
    struct str out;
    arena_init(&a, 1 << 16);
    assert_int_equal(expand_env(&ctx, STR("K={{.Task.Slot}}={{.Task.Slot}}"), &a, &out, &e), 0);
    assert_true(str_is(out, "K=2=2"));
    arena_done(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_text), cmocka_unit_test(test_payload),
                                        cmocka_unit_test(test_bounds), cmocka_unit_test(test_check) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
