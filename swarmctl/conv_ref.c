/* --secret, --config, --ulimit, --placement-pref, --credential-spec, --entrypoint and --args, --cap-add, the CA's
 * files. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "swarmctl/conv.h"
#include "swarmctl/jpath.h"

/* Reference kinds differ only in their words: the id is filled in when the name has been looked up. */
struct ref_kind {
    const char *what, *id, *name;
};

static int ref_field(const struct ref_kind *k, json_t *ref, const char *field, struct err *e)
{
    size_t n = strcspn(field, "=");
    char key[32];
    uint64_t mode;
    struct err why = ERR_INIT;

    snprintf(key, sizeof key, "%.*s", (int)(n < 31 ? n : 31), field);
    for (char *p = key; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    if (!field[n])
        return err_set(e, ERR_INVALID, "invalid field '%s' must be a key=value pair", field);
    const char *value = field + n + 1;
    if (strcmp(key, "source") == 0 || strcmp(key, "src") == 0) {
        json_object_set_new(ref, k->name, json_string(value));
    } else if (strcmp(key, "target") == 0) {
        jset(ref, "File.Name", json_string(value));
    } else if (strcmp(key, "uid") == 0) {
        jset(ref, "File.UID", json_string(value));
    } else if (strcmp(key, "gid") == 0) {
        jset(ref, "File.GID", json_string(value));
    } else if (strcmp(key, "mode") == 0) {
        if (parse_go_uint(value, 0, 32, &mode, &why) < 0)
            return err_set(e, ERR_INVALID, "invalid mode specified: %s",
                           strstr(why.msg, "out of range") ? "value out of range" : "invalid syntax");
        jset(ref, "File.Mode", json_integer((json_int_t)mode));
    } else {
        return err_set(e, ERR_INVALID, "invalid field in %s request: %s", k->what, key);
    }
    return 0;
}

static int parse_ref(const struct ref_kind *k, const char *text, json_t **ret, struct err *e)
{
    json_t *fields = csv_fields(text, e), *field;
    json_t *ref = json_pack("{s:{s:n,s:s,s:s,s:i},s:n,s:n}", "File", "Name", "UID", "0", "GID", "0", "Mode", 0444,
                            k->id, k->name);
    size_t i;
    int r = fields ? 0 : -ERR_INVALID;

    if (fields && json_array_size(fields) == 1 && !strchr(json_string_value(json_array_get(fields, 0)), '=')) {
        json_object_set(ref, k->name, json_array_get(fields, 0));
    } else {
        for_each (fields, i, field)
            if (r == 0)
                r = ref_field(k, ref, json_string_value(field), e);
    }
    json_decref(fields);
    if (r == 0 && !*jstr(ref, k->name))
        r = err_set(e, ERR_INVALID, "source is required");
    if (r < 0) {
        json_decref(ref);
        return r;
    }
    if (!*jstr(ref, "File.Name"))
        json_object_set(jget(ref, "File"), "Name", json_object_get(ref, k->name));
    *ret = ref;
    return 0;
}

static int parse_secret(const char *text, json_t **ret, struct err *e)
{
    static const struct ref_kind kind = { "secret", "SecretID", "SecretName" };
    return parse_ref(&kind, text, ret, e);
}

static int parse_config(const char *text, json_t **ret, struct err *e)
{
    static const struct ref_kind kind = { "config", "ConfigID", "ConfigName" };
    return parse_ref(&kind, text, ret, e);
}

static const char *const ulimit_names[] = { "core",    "cpu",      "data",   "fsize",      "locks",
                                            "memlock", "msgqueue", "nice",   "nofile",     "nproc",
                                            "rss",     "rtprio",   "rttime", "sigpending", "stack" };

static int ulimit_value(const char *text, size_t n, int64_t *ret, struct err *e)
{
    char num[32], *end;

    snprintf(num, sizeof num, "%.*s", (int)(n < 31 ? n : 31), text);
    errno = 0;
    *ret = strtoll(num, &end, 10);
    if (errno || end == num || *end || isspace((unsigned char)num[0]))
        return err_set(e, ERR_INVALID, "strconv.ParseInt: parsing \"%s\": %s", num,
                       errno == ERANGE ? "value out of range" : "invalid syntax");
    return 0;
}

/* name=soft[:hard]; -1 is "unlimited" */
static int parse_ulimit(const char *text, json_t **ret, struct err *e)
{
    size_t n = strcspn(text, "=");
    bool known = false;
    int64_t soft, hard;
    int r;

    if (!text[n])
        return err_set(e, ERR_INVALID, "invalid ulimit argument: %s", text);
    for (size_t i = 0; i < sizeof ulimit_names / sizeof ulimit_names[0]; i++)
        known = known || (strlen(ulimit_names[i]) == n && memcmp(ulimit_names[i], text, n) == 0);
    if (!known)
        return err_set(e, ERR_INVALID, "invalid ulimit type: %.*s", (int)n, text);
    const char *value = text + n + 1;
    size_t colon = strcspn(value, ":");
    if (value[colon] && strchr(value + colon + 1, ':'))
        return err_set(e, ERR_INVALID, "too many limit value arguments - %s, can only have up to two, `soft[:hard]`",
                       value);
    r = ulimit_value(value, colon, &soft, e);
    hard = soft;
    if (r == 0 && value[colon])
        r = ulimit_value(value + colon + 1, strlen(value + colon + 1), &hard, e);
    if (r < 0)
        return r;
    if (hard != -1 && soft == -1)
        return err_set(e, ERR_INVALID,
                       "ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), "
                       "hard: %lld",
                       (long long)hard);
    if (hard != -1 && soft > hard)
        return err_set(e, ERR_INVALID, "ulimit soft limit must be less than or equal to hard limit: %lld > %lld",
                       (long long)soft, (long long)hard);
    *ret = json_pack("{s:s%,s:I,s:I}", "Name", text, n, "Hard", (json_int_t)hard, "Soft", (json_int_t)soft);
    return 0;
}

static int parse_pref(const char *text, json_t **ret, struct err *e)
{
    size_t n = strcspn(text, "=");

    if (n == 0 || !text[n])
        return err_set(e, ERR_INVALID, "placement preference must be of the format \"<strategy>=<arg>\"");
    if (n != 6 || memcmp(text, "spread", 6) != 0)
        return err_set(e, ERR_INVALID, "unsupported placement preference %.*s (only spread is supported)", (int)n,
                       text);
    *ret = json_pack("{s:{s:s}}", "Spread", "SpreadDescriptor", text + n + 1);
    return *ret ? 0 : err_set(e, ERR_INVALID, "not valid UTF-8");
}

static int parse_credential(const char *text, json_t **ret, struct err *e)
{
    static const char *const kinds[][2] = { { "config://", "Config" },
                                            { "file://", "File" },
                                            { "registry://", "Registry" } };

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strncmp(text, kinds[i][0], strlen(kinds[i][0])) == 0) {
            *ret = json_pack("{s:s}", kinds[i][1], text + strlen(kinds[i][0]));
            return *ret ? 0 : err_set(e, ERR_INVALID, "not valid UTF-8");
        }
    if (*text)
        return err_set(e, ERR_INVALID,
                       "invalid credential spec: value must be prefixed with \"config://\", \"file://\", or "
                       "\"registry://\"");
    *ret = json_object();
    return 0;
}

static int parse_words(const char *text, json_t **ret, struct err *e)
{
    *ret = shell_words(text, e);
    return *ret ? 0 : -ERR_INVALID;
}

void cap_name(struct buf *b, const char *text)
{
    char name[64] = "";
    size_t n = 0;

    while (isspace((unsigned char)*text))
        text++;
    for (; *text && n + 1 < sizeof name; text++)
        name[n++] = (char)toupper((unsigned char)*text);
    while (n > 0 && isspace((unsigned char)name[n - 1]))
        n--;
    name[n] = '\0';
    if (strcmp(name, "ALL") != 0 && strcmp(name, "RESET") != 0 && strncmp(name, "CAP_", 4) != 0)
        buf_puts(b, "CAP_");
    buf_puts(b, name);
}

/* The whole of a file that must hold a PEM block. */
static json_t *pem_file(const char *path, const char *not_pem, struct err *e)
{
    static char text[65536];
    FILE *f = fopen(path, "re");

    if (!f) {
        err_set(e, ERR_NOT_FOUND, "open %s: %s", path, errno == ENOENT ? "no such file or directory" : strerror(errno));
        return NULL;
    }
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    const char *begin = strstr(text, "-----BEGIN "), *end = begin ? strstr(begin, "-----END ") : NULL;
    json_t *s = end ? json_stringn(text, n) : NULL;
    if (!s)
        err_set(e, ERR_INVALID, "%s", not_pem);
    return s;
}

static int parse_pem(const char *text, json_t **ret, struct err *e)
{
    *ret = pem_file(text, "file contents must be in PEM format", e);
    return *ret ? 0 : -e->code;
}

static int ca_field(json_t *ca, const char *field, struct err *e)
{
    size_t n = strcspn(field, "=");
    const char *value = field + n + 1;

    if (!field[n])
        return err_set(e, ERR_INVALID, "invalid field '%s' must be a key=value pair", field);
    if (strncasecmp(field, "protocol", n) == 0 && n == 8) {
        if (strcasecmp(value, "cfssl") != 0)
            return err_set(e, ERR_INVALID, "unrecognized external CA protocol %s", value);
        json_object_set_new(ca, "Protocol", json_string("cfssl"));
    } else if (strncasecmp(field, "url", n) == 0 && n == 3) {
        json_object_set_new(ca, "URL", json_string(value));
    } else if (strncasecmp(field, "cacert", n) == 0 && n == 6) {
        json_t *pem = pem_file(value, "CA cert for external CA must be in PEM format", e);
        if (!pem)
            return -e->code;
        json_object_set_new(ca, "CACert", pem);
    } else {
        char *key = strndup(field, n);
        json_object_set_new(jenter(ca, "Options"), key, json_string(value));
        free(key);
    }
    return 0;
}

static int parse_external_ca(const char *text, json_t **ret, struct err *e)
{
    json_t *fields = csv_fields(text, e), *field, *ca = json_object();
    size_t i;
    int r = fields ? 0 : -ERR_INVALID;

    for_each (fields, i, field)
        if (r == 0)
            r = ca_field(ca, json_string_value(field), e);
    json_decref(fields);
    if (r == 0 && !jget(ca, "Protocol"))
        r = err_set(e, ERR_INVALID, "the external-ca option needs a protocol= parameter");
    if (r == 0 && !jget(ca, "URL"))
        r = err_set(e, ERR_INVALID, "the external-ca option needs a url= parameter");
    if (r < 0)
        json_decref(ca);
    else
        *ret = ca;
    return r;
}

const struct flag_type T_SECRET = { .name = "secret", .list = true, .parse = parse_secret };
const struct flag_type T_CONFIG = { .name = "config", .list = true, .parse = parse_config };
const struct flag_type T_ULIMIT = { .name = "ulimit", .list = true, .parse = parse_ulimit };
const struct flag_type T_PREF = { .name = "pref", .list = true, .parse = parse_pref };
const struct flag_type T_CREDENTIAL = { .name = "credential-spec", .parse = parse_credential };
const struct flag_type T_WORDS = { .name = "command", .parse = parse_words };
const struct flag_type T_EXTERNAL_CA = { .name = "external-ca", .list = true, .parse = parse_external_ca };
const struct flag_type T_PEM = { .name = "pem-file", .parse = parse_pem };
