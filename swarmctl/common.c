/* What the commands of several nouns use. */
#include <ctype.h>
#include <stdlib.h>

#include "common/util/clock.h"
#include "swarmctl/cmds.h"
#include "swarmctl/conv.h"
#include "swarmctl/human.h"
#include "swarmctl/imageref.h"
#include "swarmctl/jpath.h"

const struct flag filter_flags[] = {
    { .name = "filter", .shorthand = 'f', .type = &T_FILTER, .help = "Filter output based on conditions provided" },
    FLAGS_END,
};
const struct flag format_flags[] = {
    { .name = "format", .type = &T_STRING, .help = FORMAT_LIST_HELP },
    FLAGS_END,
};
const struct flag no_trunc_flags[] = {
    { .name = "no-trunc", .type = &T_BOOL, .help = "Do not truncate output" },
    FLAGS_END,
};
const struct flag progress_flags[] = {
    { .name = "quiet", .shorthand = 'q', .type = &T_BOOL, .help = "Suppress progress output" },
    FLAGS_END,
};
const struct flag quiet_id_flags[] = {
    { .name = "quiet", .shorthand = 'q', .type = &T_BOOL, .help = "Only display IDs" },
    FLAGS_END,
};
const struct flag inspect_flags[] = {
    { .name = "format", .shorthand = 'f', .type = &T_STRING, .help = FORMAT_INSPECT_HELP },
    FLAGS_END,
};
const struct flag pretty_flags[] = {
    { .name = "pretty", .type = &T_BOOL, .help = "Print the information in a human friendly format" },
    FLAGS_END,
};

int get_object(struct cli *c, const char *prefix, const char *ref, const char *suffix, const char *missing,
               struct buf *ret)
{
    struct buf path = BUF_INIT;
    int r;

    buf_puts(&path, prefix);
    url_path(&path, ref);
    buf_puts(&path, suffix);
    r = api_raw(c, "GET", buf_cstr(&path), NULL, NULL, ret);
    if (r != 0 && c->status == 404 && missing)
        cli_fail(c, "Error: no such %s: %s", missing, ref);
    else if (r != 0)
        cli_fail_api(c);
    buf_done(&path);
    return r;
}

int since_text(struct cli *c, const char *text, struct buf *ret)
{
    struct err e = ERR_INIT;
    struct wall_ns t;
    int64_t ago;
    char date[64];

    if (go_duration_parse(text, &ago, &e) == 0) {
        int64_t ns = c->now_ns() - ago;
        buf_printf(ret, "%lld.%09lld", (long long)(ns / 1000000000), (long long)(ns % 1000000000));
        return 0;
    }
    if (*text && strspn(text, "0123456789.") == strlen(text)) {
        buf_puts(ret, text);
        return 0;
    }
    /* A date, perhaps without its time or its zone: what is missing is midnight UTC. */
    size_t n = strlen(text);
    snprintf(date, sizeof date, "%.40s%s", text, n == 10 ? "T00:00:00Z" : n == 16 ? ":00Z" : n == 19 ? "Z" : "");
    if (!wall_parse(str_from(date), &t))
        return cli_fail(c, "invalid value for \"since\": \"%s\" is neither a duration, a date nor a number of seconds",
                        text);
    buf_printf(ret, "%lld.%09lld", (long long)(t.ns / 1000000000), (long long)(t.ns % 1000000000));
    return 0;
}

static void base64_url(struct buf *b, struct str s)
{
    static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    for (size_t i = 0; i < s.n; i += 3) {
        unsigned v = (unsigned char)s.p[i] << 16;
        v |= i + 1 < s.n ? (unsigned)(unsigned char)s.p[i + 1] << 8 : 0;
        v |= i + 2 < s.n ? (unsigned char)s.p[i + 2] : 0;
        buf_putc(b, set[v >> 18]);
        buf_putc(b, set[v >> 12 & 63]);
        buf_putc(b, i + 1 < s.n ? set[v >> 6 & 63] : '=');
        buf_putc(b, i + 2 < s.n ? set[v & 63] : '=');
    }
}

static bool base64_decode(const char *text, struct buf *b)
{
    unsigned v = 0, bits = 0;

    for (; *text && *text != '='; text++) {
        int d = isupper((unsigned char)*text)   ? *text - 'A'
                : islower((unsigned char)*text) ? *text - 'a' + 26
                : isdigit((unsigned char)*text) ? *text - '0' + 52
                : *text == '+' || *text == '-'  ? 62
                : *text == '/' || *text == '_'  ? 63
                                                : -1;
        if (d < 0)
            return false;
        v = v << 6 | (unsigned)d;
        if ((bits += 6) >= 8) {
            bits -= 8;
            buf_putc(b, (char)(v >> bits & 0xff));
        }
    }
    return true;
}

/* The entry of config.json's "auths" for a registry; Docker Hub goes by its old address. */
static json_t *auth_entry(json_t *config, const char *registry)
{
    const char *names[] = { registry, NULL, NULL };
    char url[300];

    snprintf(url, sizeof url, "https://%s", registry);
    names[1] = url;
    if (strcmp(registry, "docker.io") == 0)
        names[2] = "https://index.docker.io/v1/";
    for (size_t i = 0; i < 3; i++) {
        json_t *auths = jget(config, "auths"), *e = names[i] ? json_object_get(auths, names[i]) : NULL;
        if (e)
            return e;
    }
    return NULL;
}

void registry_auth(struct cli *c, const char *image, struct buf *header)
{
    struct buf path = BUF_INIT, registry = BUF_INIT, pair = BUF_INIT, text = BUF_INIT;
    json_t *config, *entry, *auth = json_object();

    imageref_registry(&registry, image);
    buf_printf(&path, "%s/config.json", c->config_dir ? c->config_dir : "");
    config = json_load_file(buf_cstr(&path), 0, NULL);
    entry = auth_entry(config, buf_cstr(&registry));
    if (entry) {
        if (base64_decode(jstr(entry, "auth"), &pair) && strchr(buf_cstr(&pair), ':')) {
            size_t n = strcspn(pair.p, ":");
            json_object_set_new(auth, "username", json_stringn(pair.p, n));
            json_object_set_new(auth, "password", json_string(pair.p + n + 1));
        } else {
            json_object_set_new(auth, "username", json_string(jstr(entry, "username")));
            json_object_set_new(auth, "password", json_string(jstr(entry, "password")));
        }
        if (*jstr(entry, "identitytoken"))
            json_object_set_new(auth, "identitytoken", json_string(jstr(entry, "identitytoken")));
        json_object_set_new(auth, "serveraddress", json_string(buf_cstr(&registry)));
    }
    jdump(&text, auth);
    buf_puts(header, "X-Registry-Auth: ");
    base64_url(header, buf_str(&text));
    if (text.n)
        explicit_bzero(text.p, text.n);
    if (pair.n)
        explicit_bzero(pair.p, pair.n);
    json_decref(config);
    json_decref(auth);
    buf_done(&path);
    buf_done(&registry);
    buf_done(&pair);
    buf_done(&text);
}
