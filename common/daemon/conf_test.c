#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include <sys/types.h>

#include "common/daemon/conf.h"

static uint64_t delay_ms, count, size;
static bool flag;
static char text[CONF_TEXT_MAX];
static uid_t user;

static const struct conf_item items[] = {
    CONF_MS("delay", &delay_ms, "50ms", 1, 10000, ""),
    CONF_COUNT("count", &count, "7", 1, 100, ""),
    CONF_BYTES("size", &size, "64k", 1, 1u << 30, ""),
    CONF_BOOL("flag", &flag, "no", ""),
    CONF_TEXT("text", text, "hello", ""),
    CONF_UID("user", &user, "root", ""),
    CONF_END,
};

static void parse_fails(const char *in, const char *want)
{
    struct err e = ERR_INIT;
    assert_true(conf_parse(items, NULL, in, strlen(in), &e) < 0);
    assert_string_equal(e.msg, want);
}

static void settings_have_defaults_and_forms(void **state)
{
    struct err e = ERR_INIT;
    const char *in = "# comment\n\n delay = 2s\nsize=10m\nflag = yes\ntext = a = b \r\nuser = 1234\n";
    (void)state;
    conf_defaults(items);
    assert_int_equal(delay_ms, 50);
    assert_int_equal(size, 65536);
    assert_int_equal(user, 0);
    assert_int_equal(conf_parse(items, NULL, in, strlen(in), &e), 0);
    assert_int_equal(delay_ms, 2000);
    assert_int_equal(size, 10 << 20);
    assert_true(flag);
    assert_string_equal(text, "a = b");
    assert_int_equal(user, 1234);
    assert_int_equal(conf_set(items, "user", "no-such-user-here", &e), 0);
    assert_int_equal(user, (uid_t)-1);
}

static void errors_name_line_setting_and_range(void **state)
{
    (void)state;
    conf_defaults(items);
    parse_fails("\ncolour = red\n", "line 2: colour: no such setting");
    parse_fails("delay = 20s", "line 1: delay: \"20s\": must be a duration between 1ms and 10000ms");
    parse_fails("count = 0", "line 1: count: \"0\": must be a number between 1 and 100");
    parse_fails("count = 12x", "line 1: count: \"12x\": must be a number between 1 and 100");
    parse_fails("flag = maybe", "line 1: flag: \"maybe\": must be yes or no");
    parse_fails("just words", "line 1: expected `name = value`");
    assert_int_equal(count, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_have_defaults_and_forms),
        cmocka_unit_test(errors_name_line_setting_and_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
