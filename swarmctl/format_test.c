#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "swarmctl/format.h"

static const char data[] =
    "{\"ID\":\"abc\",\"N\":7,\"F\":0.25,\"Yes\":true,\"No\":false,\"Null\":null,\"List\":[\"a\",\"b\",\"c\"],\"Empty\":"
    "[],"
    "\"Labels\":{\"x\":\"1\",\"a\":\"2\"},\"CreatedAt\":\"2026-11-20T15:45:37.185869818Z\",\"Delay\":90000000000,"
    "\"Spec\":{\"Name\":\"web\",\"Mode\":{\"Replicated\":{\"Replicas\":2}}},\"Ports\":[{\"P\":80},{\"P\":81}]}";

static const struct {
    const char *text, *want; /* what is written, or "error: ..." */
} cases[] = {
    { "", "" },
    { "plain { } text", "plain { } text" },
    { "{{.ID}}", "abc" },
    { "{{ .ID }} {{.N}} {{.F}} {{.Yes}} {{.No}}", "abc 7 0.25 true false" },
    { "{{.Spec.Name}}/{{.Spec.Mode.Replicated.Replicas}}", "web/2" },
    { "{{.List}} {{.Labels}} {{.Ports}}", "[a b c] map[a:2 x:1] [map[P:80] map[P:81]]" },
    { "{{json .List}} {{json .Labels}} {{json .Null}}", "[\"a\",\"b\",\"c\"] {\"x\":\"1\",\"a\":\"2\"} null" },
    { "{{.CreatedAt}} {{.Delay}} {{json .Delay}}", "2026-11-20 15:45:37.185869818 +0000 UTC 1m30s 90000000000" },
    { "{{.Labels.x}}{{.Labels.nope}}", "1<no value>" },
    /* what the API may leave out reads as zero */
    { "{{.Status.State}}|{{.Spec.Labels}}|{{.Spec.TaskTemplate.Networks}}|{{.UpdateStatus}}", "|map[]|[]|<nil>" },
    { "{{if .UpdateStatus}}a{{else}}b{{end}}", "b" },
    { "{{if .Yes}}y{{end}}{{if .No}}n{{else}}N{{end}}", "yN" },
    { "{{if .No}}1{{else if .N}}2{{else}}3{{end}}", "2" },
    { "{{if and .Yes .N}}both{{end}} {{if or .No .Empty}}x{{else}}none{{end}} {{not .Yes}}", "both none false" },
    { "{{or .No .ID}} {{and .ID .N}}", "abc 7" },
    { "{{with .Spec}}{{.Name}} {{$.ID}}{{end}}{{with .Empty}}x{{else}}-{{end}}", "web abc-" },
    { "{{range .List}}<{{.}}>{{end}}", "<a><b><c>" },
    { "{{range $i, $v := .List}}{{if $i}}, {{end}}{{$i}}={{$v}}{{end}}", "0=a, 1=b, 2=c" },
    { "{{range $k, $v := .Labels}}{{$k}}:{{$v}};{{end}}", "a:2;x:1;" },
    { "{{range .Empty}}x{{else}}nothing{{end}}", "nothing" },
    { "{{range .List}}{{if eq . \"b\"}}{{continue}}{{end}}{{.}}{{if eq . \"c\"}}{{break}}{{end}}{{end}}", "ac" },
    { "{{range .Ports}}{{.P}} {{end}}", "80 81 " },
    { "{{$x := .N}}{{$x}}{{$x = 9}}{{$x}}", "79" },
    { "{{$x := 1}}{{range .List}}{{$x = .}}{{end}}{{$x}}", "c" },
    { "a {{- .ID -}} b", "aabcb" },
    { "a {{/* no */}}b {{- /* no */ -}} c", "a bc" },
    { "{{len .List}} {{len .ID}} {{len .Labels}}", "3 3 2" },
    { "{{index .List 1}} {{index .Labels \"a\"}} {{index .Ports 0 \"P\"}}", "b 2 80" },
    { "{{(index .Ports 1).P}}", "81" },
    { "{{slice .ID 1}} {{slice .ID 0 2}} {{slice .List 1 3}}", "bc ab [b c]" },
    { "{{join .List \", \"}} {{upper .ID}} {{lower \"ABC\"}} {{title \"two words\"}}", "a, b, c ABC abc Two Words" },
    { "{{split \"a,b\" \",\"}} {{pad .ID 1 2}}| {{truncate .ID 2}}", "[a b]  abc  | ab" },
    { "{{.ID | upper | printf \"%s!\"}}", "ABC!" },
    { "{{printf \"%d %5d|%-5d|%05d %x %q %v %t %.2f %s\" 7 7 7 7 255 \"q\\\"\" .List true 1.5 .ID}}",
      "7     7|7    |00007 ff \"q\\\"\" [a b c] true 1.50 abc" },
    { "{{printf \"%s %d\" 1}}", "%!s(int=1) %!d(MISSING)" },
    { "{{printf \"%%\" 1}}", "%%!(EXTRA 1)" },
    { "{{print 1 2 \"a\" \"b\" 3}}|{{println \"x\"}}", "1 2ab3|x\n" },
    { "{{eq .N 7}} {{eq .ID \"x\" \"abc\"}} {{ne .N 7}} {{lt 1 2}} {{ge 2.5 2}} {{gt \"b\" \"a\"}}",
      "true true false true true true" },
    { "{{html \"<a&b>\"}} {{urlquery \"a b&\"}} {{js \"it's\"}}", "&lt;a&amp;b&gt; a+b%26 it\\'s" },
    { "{{`raw\\n`}} {{'a'}} {{\"\\t\\u00e9\\x41\"}} {{1.5e3}} {{0x10}} {{-3}}", "raw\\n 97 \téA 1500 16 -3" },
    { "{{true}} {{nil | printf \"%v\"}}", "true <nil>" },
    { "{{.Id}}", "error: template: :1:2: executing \"\" at <.Id>: map has no entry for key \"Id\"" },
    { "\n{{.Nope}}", "error: template: :2:2: executing \"\" at <.Nope>: map has no entry for key \"Nope\"" },
    { "{{.ID.x}}", "error: template: :1:5: executing \"\" at <.ID.x>: can't evaluate field x in type string" },
    { "{{.UpdateStatus.State}}",
      "error: template: :1:15: executing \"\" at <.UpdateStatus.State>: nil pointer evaluating interface {}.State" },
    { "{{index .List 9}}",
      "error: template: :1:2: executing \"\" at <index>: error calling index: reflect: slice index out of range" },
    { "{{.ID 1}}", "error: template: :1:2: executing \"\" at <.ID>: can't give argument to non-function .ID" },
    { "{{len 1 2}}", "error: template: :1:2: executing \"\" at <len>: wrong number of args for len: want 1 got 2" },
    { "{{eq 1 \"a\"}}",
      "error: template: :1:2: executing \"\" at <eq>: error calling comparison: incompatible types for comparison" },
    { "{{.ID", "error: template: :1: unclosed action" },
    { "{{foo .ID}}", "error: template: :1: function \"foo\" not defined" },
    { "{{if .ID}}", "error: template: :1: unexpected EOF" },
    { "{{end}}", "error: template: :1: unexpected {{end}}" },
    { "{{else}}", "error: template: :1: unexpected {{else}}" },
    { "{{}}", "error: template: :1: missing value for command" },
    { "{{$x}}", "error: template: :1: undefined variable \"$x\"" },
    { "{{break}}", "error: template: :1: {{break}} outside {{range}}" },
    { "{{\"abc}}", "error: template: :1: unterminated quoted string" },
    { "{{(1}}", "error: template: :1: unclosed left paren" },
    { "{{/* x}}", "error: template: :1: unclosed comment" },
    { "{{1 | 2}}", "error: template: :1: non executable command in pipeline stage 2" },
    { "{{define \"x\"}}{{end}}", "error: template: :1: named templates are not supported" },
};

static char *render(const char *text, const char *json, enum tmpl_mode mode)
{
    json_t *j = json_loads(json, 0, NULL);
    struct tmpl *t = NULL;
    struct err e = ERR_INIT;
    struct buf out = BUF_INIT;
    char *ret = NULL;

    assert_non_null(j);
    if (format_parse(&t, text, &e) < 0 || format_exec(t, j, mode, &out, &e) < 0)
        assert_true(asprintf(&ret, "error: %s", e.msg) > 0);
    else
        ret = strdup(buf_cstr(&out));
    tmpl_free(t);
    json_decref(j);
    buf_done(&out);
    return ret;
}

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *got = render(cases[i].text, data, TMPL_API);
        if (strcmp(got, cases[i].want) != 0)
            print_error("%s\n", cases[i].text);
        assert_string_equal(got, cases[i].want);
        free(got);
    }
}

static void test_rows(void **state)
{
    char *got = render("{{.Name}}", "{\"ID\":\"x\"}", TMPL_ROW);

    (void)state;
    assert_string_equal(
        got, "error: template: :1:2: executing \"\" at <.Name>: can't evaluate field Name in type *formatter.row");
    free(got);
    got = render("{{upper .ID}} {{json .ID}} {{.Nope}} {{truncate .ID 1}}", "{\"ID\":\"Id\"}", TMPL_HEADER);
    assert_string_equal(got, "Id Id <no value> Id");
    free(got);
}

/* Nesting and work have ends. */
static void test_bounds(void **state)
{
    struct buf b = BUF_INIT;
    char *got;

    (void)state;
    for (int i = 0; i < 200; i++)
        buf_puts(&b, "{{if 1}}");
    got = render(buf_cstr(&b), data, TMPL_API);
    assert_non_null(strstr(got, "max nesting depth"));
    free(got);
    buf_clear(&b);
    buf_puts(&b, "{{");
    for (int i = 0; i < 200; i++)
        buf_putc(&b, '(');
    got = render(buf_cstr(&b), data, TMPL_API);
    assert_non_null(strstr(got, "max expression depth"));
    free(got);
    buf_clear(&b);
    buf_puts(&b, "{\"L\":[");
    for (int i = 0; i < 200; i++)
        buf_printf(&b, "%s%d", i ? "," : "", i);
    buf_puts(&b, "]}");
    got = render("{{range .L}}{{range $.L}}{{range $.L}}{{end}}{{range $.L}}{{end}}{{range $.L}}x{{end}}{{end}}{{end}}",
                 buf_cstr(&b), TMPL_API);
    assert_non_null(strstr(got, "too much work"));
    free(got);
    buf_done(&b);
}

static void test_uses(void **state)
{
    struct tmpl *t = NULL;
    struct err e = ERR_INIT;

    (void)state;
    assert_int_equal(format_parse(&t, "{{if .A}}{{range .B}}{{(index .C.D 1).E}}{{end}}{{else}}{{$.F}}{{end}}", &e), 0);
    for (const char *p = "ABCDEF"; *p; p++)
        assert_true(tmpl_uses(t, (char[]){ *p, 0 }));
    assert_false(tmpl_uses(t, "G"));
    tmpl_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_uses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
