/* Switches, numbers, durations, sizes and plain lists. */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/util/cleanup.h"
#include "swarmctl/conv.h"
#include "swarmctl/human.h"

/* "strconv.ParseUint: parsing "abc": invalid syntax", which scripts and users know. */
static int number_error(struct err *e, const char *fn, const char *text, const char *why)
{
    struct buf q = BUF_INIT;
    go_quote(&q, str_from(text));
    err_set(e, ERR_INVALID, "strconv.%s: parsing %s: %s", fn, buf_cstr(&q), why);
    buf_done(&q);
    return -ERR_INVALID;
}

int parse_go_bool(const char *text, bool *ret, struct err *e)
{
    static const char *const yes[] = { "1", "t", "T", "TRUE", "true", "True" };
    static const char *const no[] = { "0", "f", "F", "FALSE", "false", "False" };

    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *ret = strcmp(text, yes[i]) == 0;
            return 0;
        }
    }
    return number_error(e, "ParseBool", text, "invalid syntax");
}

/* The digits of text in the given base (0: by prefix); false when there is anything else. */
static bool digits(const char *text, int base, uint64_t max, uint64_t *ret, bool *ret_overflow)
{
    uint64_t v = 0;

    *ret_overflow = false;
    if (base == 0) {
        base = 10;
        if (text[0] == '0' && text[1]) {
            char c = (char)tolower((unsigned char)text[1]);
            base = c == 'x' ? 16 : c == 'b' ? 2 : 8;
            text += c == 'x' || c == 'b' || c == 'o' ? 2 : 1;
        }
    }
    if (!*text)
        return false;
    for (; *text; text++) {
        int d = isdigit((unsigned char)*text)   ? *text - '0'
                : isalpha((unsigned char)*text) ? tolower((unsigned char)*text) - 'a' + 10
                                                : 99;
        if (d >= base)
            return false;
        if (v > (max - (unsigned)d) / (unsigned)base)
            *ret_overflow = true;
        v = v * (unsigned)base + (unsigned)d;
    }
    *ret = v;
    return true;
}

int parse_go_uint(const char *text, int base, unsigned bits, uint64_t *ret, struct err *e)
{
    bool overflow;
    uint64_t max = bits >= 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;

    if (!digits(text, base, max, ret, &overflow))
        return number_error(e, "ParseUint", text, "invalid syntax");
    if (overflow)
        return number_error(e, "ParseUint", text, "value out of range");
    return 0;
}

static int parse_bool(const char *text, json_t **ret, struct err *e)
{
    bool v;
    int r = parse_go_bool(text, &v, e);
    if (r == 0)
        *ret = json_boolean(v);
    return r;
}

static int parse_text(const char *text, json_t **ret, struct err *e)
{
    *ret = json_string(text);
    if (!*ret)
        return err_set(e, ERR_INVALID, "not valid UTF-8");
    return 0;
}

static int parse_uint_bits(const char *text, unsigned bits, json_t **ret, struct err *e)
{
    uint64_t v;
    int r = parse_go_uint(text, 0, bits, &v, e);
    if (r < 0)
        return r;
    if (v > INT64_MAX)
        return number_error(e, "ParseUint", text, "value out of range");
    *ret = json_integer((json_int_t)v);
    return 0;
}

static int parse_uint(const char *text, json_t **ret, struct err *e)
{
    return parse_uint_bits(text, 64, ret, e);
}

static int parse_uint32(const char *text, json_t **ret, struct err *e)
{
    return parse_uint_bits(text, 32, ret, e);
}

static int parse_int(const char *text, json_t **ret, struct err *e)
{
    bool neg = *text == '-', overflow;
    uint64_t v;

    if (!digits(text + (neg || *text == '+'), 0, (uint64_t)INT64_MAX + neg, &v, &overflow))
        return number_error(e, "ParseInt", text, "invalid syntax");
    if (overflow)
        return number_error(e, "ParseInt", text, "value out of range");
    *ret = json_integer((json_int_t)(neg ? -v : v));
    return 0;
}

static int parse_float(const char *text, json_t **ret, struct err *e)
{
    char *end;
    double v = strtod(text, &end);

    if (end == text || *end || isspace((unsigned char)*text) || !isfinite(v))
        return number_error(e, "ParseFloat", text, "invalid syntax");
    *ret = v == 0 ? json_integer(0) : json_real(v);
    return 0;
}

static int parse_duration(const char *text, json_t **ret, struct err *e)
{
    int64_t ns;
    int r = go_duration_parse(text, &ns, e);
    if (r == 0)
        *ret = json_integer(ns);
    return r;
}

static int parse_positive_duration(const char *text, json_t **ret, struct err *e)
{
    int64_t ns;
    int r = go_duration_parse(text, &ns, e);
    if (r == 0 && ns < 0)
        return err_set(e, ERR_INVALID, "duration cannot be negative");
    if (r == 0)
        *ret = json_integer(ns);
    return r;
}

int parse_bytes(const char *text, int64_t *ret, struct err *e)
{
    static const char units[] = "kmgtp";
    size_t n = strlen(text), at = n;
    char num[64], *end;

    while (at > 0 && !strchr("0123456789. ", text[at - 1]))
        at--;
    if (at == 0)
        return err_set(e, ERR_INVALID, "invalid size: '%s'", text);
    const char *suffix = text + at;
    snprintf(num, sizeof num, "%.*s", (int)(at < 63 ? at : 63), text);
    if (num[strlen(num) - 1] == ' ')
        num[strlen(num) - 1] = '\0';
    double v = strtod(num, &end);
    if (end == num || *end || isspace((unsigned char)num[0]))
        return number_error(e, "ParseFloat", num, "invalid syntax");
    if (v < 0 || !isfinite(v))
        return err_set(e, ERR_INVALID, "invalid size: '%s'", text);
    if (*suffix && tolower((unsigned char)*suffix) == 'b') {
        if (suffix[1])
            return err_set(e, ERR_INVALID, "invalid suffix: '%s'", suffix);
    } else if (*suffix) {
        const char *u = strchr(units, tolower((unsigned char)*suffix));
        const char *tail = suffix + 1;
        if (!u || (*tail && strcasecmp(tail, "b") != 0 && strcasecmp(tail, "ib") != 0))
            return err_set(e, ERR_INVALID, "invalid suffix: '%s'", suffix);
        for (const char *p = units; p <= u; p++)
            v *= 1024;
    }
    if (v >= 9.2e18)
        return err_set(e, ERR_INVALID, "invalid size: '%s'", text);
    *ret = (int64_t)v;
    return 0;
}

static int parse_size(const char *text, json_t **ret, struct err *e)
{
    int64_t v = 0;
    int r = parse_bytes(text, &v, e);
    if (r == 0)
        *ret = json_integer(v);
    return r;
}

/* A decimal or a fraction ("1/2") in billionths, without a rounding error. */
static int parse_cpus(const char *text, json_t **ret, struct err *e)
{
    const char *p = text;
    bool neg = *p == '-', any = false;
    unsigned __int128 num = 0, den = 1;

    p += *p == '-' || *p == '+';
    for (bool point = false; isdigit((unsigned char)*p) || (*p == '.' && !point); p++) {
        if (*p == '.') {
            point = true;
            continue;
        }
        any = true;
        if (num > UINT64_MAX || den > UINT64_C(1000000000000000000))
            return err_set(e, ERR_INVALID, "value is too precise");
        num = num * 10 + (unsigned)(*p - '0');
        if (point)
            den *= 10;
    }
    if (any && *p == '/' && den == 1) {
        uint64_t d;
        if (str_u64(str_from(p + 1), &d) && d != 0) {
            den = d;
            p += strlen(p);
        }
    }
    if (!any || *p)
        return err_set(e, ERR_INVALID, "failed to parse %s as a rational number", text);
    if (num * 1000000000 % den != 0)
        return err_set(e, ERR_INVALID, "value is too precise");
    num = num * 1000000000 / den;
    if (num > INT64_MAX)
        return err_set(e, ERR_INVALID, "value is too big");
    *ret = json_integer(neg ? -(json_int_t)num : (json_int_t)num);
    return 0;
}

static int parse_label(const char *text, json_t **ret, struct err *e)
{
    const char *key = text + strspn(text, " \t");
    size_t n = strcspn(key, "=");

    if (n == 0)
        return err_set(e, ERR_INVALID, "invalid label '%s': empty name", text);
    if (strcspn(key, " \t") < n)
        return err_set(e, ERR_INVALID, "label '%.*s' contains whitespaces", (int)n, key);
    return parse_text(text, ret, e);
}

static int parse_env(const char *text, json_t **ret, struct err *e)
{
    if (*text == '\0' || *text == '=')
        return err_set(e, ERR_INVALID, "invalid environment variable: %s", text);
    const char *value = strchr(text, '=') ? NULL : getenv(text);
    if (!value)
        return parse_text(text, ret, e);
    struct buf b = BUF_INIT;
    buf_printf(&b, "%s=%s", text, value);
    int r = parse_text(buf_cstr(&b), ret, e);
    buf_done(&b);
    return r;
}

/* An address without surrounding blanks, in its shortest spelling. */
static bool ip_text(const char *text, char out[INET6_ADDRSTRLEN])
{
    unsigned char addr[16];
    char trimmed[64];
    size_t n;

    text += strspn(text, " \t");
    n = strcspn(text, " \t");
    if (n >= sizeof trimmed || text[n + strspn(text + n, " \t")])
        return false;
    memcpy(trimmed, text, n);
    trimmed[n] = '\0';
    int family = strchr(trimmed, ':') ? AF_INET6 : AF_INET;
    return inet_pton(family, trimmed, addr) == 1 && inet_ntop(family, addr, out, INET6_ADDRSTRLEN);
}

static int parse_ip(const char *text, json_t **ret, struct err *e)
{
    char out[INET6_ADDRSTRLEN];
    if (!ip_text(text, out))
        return err_set(e, ERR_INVALID, "IP address is not correctly formatted: %s", text);
    *ret = json_string(out);
    return 0;
}

/* Labels of letters, digits and inner hyphens between dots, with at least one letter. */
static int parse_domain(const char *text, json_t **ret, struct err *e)
{
    char name[260];
    bool letter = false, ok = true;

    text += strspn(text, " ");
    snprintf(name, sizeof name, "%s", text);
    for (size_t n = strlen(name); n > 0 && name[n - 1] == ' ';)
        name[--n] = '\0';
    if (strcmp(name, ".") == 0) {
        *ret = json_string(".");
        return 0;
    }
    size_t n = strlen(name);
    if (n > 0 && name[n - 1] == '.')
        name[--n] = '\0';
    for (size_t i = 0; i < n; i++) {
        char c = name[i], prev = i ? name[i - 1] : '.', next = i + 1 < n ? name[i + 1] : '.';
        letter = letter || isalpha((unsigned char)c);
        if (c == '.')
            ok = ok && prev != '.';
        else if (c == '-')
            ok = ok && prev != '.' && next != '.';
        else
            ok = ok && isalnum((unsigned char)c);
    }
    if (n == 0 || n >= 255 || !letter || !ok || name[0] == '.')
        return err_set(e, ERR_INVALID, "%s is not a valid domain", text);
    *ret = json_string(name);
    return 0;
}

/* name:ip or name=ip, the address perhaps in brackets; comes out as "name:ip". */
static int parse_host(const char *text, json_t **ret, struct err *e)
{
    const char *sep = strchr(text, '=');
    char addr[INET6_ADDRSTRLEN + 4], out[INET6_ADDRSTRLEN];
    struct buf q = BUF_INIT;
    int r = 0;

    if (!sep)
        sep = strchr(text, ':');
    if (!sep || sep == text || memchr(text, ':', (size_t)(sep - text))) {
        go_quote(&q, str_from(text));
        r = err_set(e, ERR_INVALID, "bad format for add-host: %s", buf_cstr(&q));
        buf_done(&q);
        return r;
    }
    snprintf(addr, sizeof addr, "%s", sep + 1);
    size_t n = strlen(addr);
    if (n > 2 && addr[0] == '[' && addr[n - 1] == ']') {
        memmove(addr, addr + 1, n - 2);
        addr[n - 2] = '\0';
    }
    if (strcmp(addr, "host-gateway") != 0 && !ip_text(addr, out)) {
        go_quote(&q, str_from(addr));
        r = err_set(e, ERR_INVALID, "invalid IP address in add-host: %s", buf_cstr(&q));
        buf_done(&q);
        return r;
    }
    *ret = json_sprintf("%.*s:%s", (int)(sep - text), text, addr);
    return *ret ? 0 : err_set(e, ERR_INVALID, "not valid UTF-8");
}

/* "gpu=2": only counted resources can be asked for; a named one is the node's to offer. */
static int parse_generic(const char *text, json_t **ret, struct err *e)
{
    const char *eq = strchr(text, '=');
    struct err ignored = ERR_INIT;
    uint64_t v;

    if (!eq || eq == text || !eq[1])
        return err_set(e, ERR_INVALID, "invalid generic-resource format `%s` expected `name=value`", text);
    if (parse_go_uint(eq + 1, 10, 63, &v, &ignored) < 0)
        return err_set(e, ERR_INVALID,
                       "invalid generic-resource request `%s`, Named Generic Resources is not supported for "
                       "service create or update",
                       text);
    *ret =
        json_pack("{s:{s:s%,s:I}}", "DiscreteResourceSpec", "Kind", text, (size_t)(eq - text), "Value", (json_int_t)v);
    return *ret ? 0 : err_set(e, ERR_INVALID, "not valid UTF-8");
}

/* The caller's key is lower-cased, as docker does. */
static int parse_filter(const char *text, json_t **ret, struct err *e)
{
    const char *eq = strchr(text, '=');

    *ret = NULL;
    if (!*text)
        return 0;
    if (!eq)
        return err_set(e, ERR_INVALID, "bad format of filter (expected name=value)");
    char *key = strndup(text, (size_t)(eq - text));
    const char *value = eq + 1 + strspn(eq + 1, " \t");
    size_t n = strlen(value);
    while (n > 0 && isspace((unsigned char)value[n - 1]))
        n--;
    char *name = key + strspn(key, " \t");
    name[strcspn(name, " \t")] = '\0';
    for (char *p = name; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    *ret = json_pack("{s:s,s:s%}", "key", name, "value", value, n);
    free(key);
    return *ret ? 0 : err_set(e, ERR_INVALID, "not valid UTF-8");
}

static int parse_strings(const char *text, json_t **ret, struct err *e)
{
    *ret = csv_fields(text, e);
    return *ret ? 0 : -e->code;
}

const struct flag_type T_BOOL = { .name = "", .no_value = true, .parse = parse_bool };
const struct flag_type T_STRING = { .name = "string", .parse = parse_text };
const struct flag_type T_STRINGS = { .name = "strings", .list = true, .parse = parse_strings };
const struct flag_type T_UINT = { .name = "uint", .parse = parse_uint };
const struct flag_type T_UINT32 = { .name = "uint32", .parse = parse_uint32 };
const struct flag_type T_INT = { .name = "int", .parse = parse_int };
const struct flag_type T_FLOAT = { .name = "float", .parse = parse_float };
const struct flag_type T_DURATION = { .name = "duration", .parse = parse_duration };
const struct flag_type T_POSITIVE_DURATION = { .name = "duration", .parse = parse_positive_duration };
const struct flag_type T_BYTES = { .name = "bytes", .parse = parse_size };
const struct flag_type T_CPUS = { .name = "decimal", .parse = parse_cpus };
const struct flag_type T_LIST = { .name = "list", .list = true, .parse = parse_text };
const struct flag_type T_LABELS = { .name = "list", .list = true, .parse = parse_label };
const struct flag_type T_ENVS = { .name = "list", .list = true, .parse = parse_env };
const struct flag_type T_IPS = { .name = "list", .list = true, .parse = parse_ip };
const struct flag_type T_DOMAINS = { .name = "list", .list = true, .parse = parse_domain };
const struct flag_type T_HOSTS = { .name = "list", .list = true, .parse = parse_host };
const struct flag_type T_GENERIC = { .name = "list", .list = true, .parse = parse_generic };
const struct flag_type T_FILTER = { .name = "filter", .list = true, .parse = parse_filter };
