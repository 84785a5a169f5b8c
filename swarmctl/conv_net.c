/* --network, --publish, and the addresses of swarm init and join. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "swarmctl/conv.h"
#include "swarmctl/jpath.h"

/* Long syntax is told from short by a key=value somewhere in it. */
static bool has_key_value(const char *text)
{
    for (const char *p = strchr(text, '='); p; p = strchr(p + 1, '='))
        if (p > text && (isalnum((unsigned char)p[-1]) || p[-1] == '_') &&
            (isalnum((unsigned char)p[1]) || p[1] == '_'))
            return true;
    return false;
}

static void lower(char *p)
{
    for (; *p; p++)
        *p = (char)tolower((unsigned char)*p);
}

static char *trim(char *p)
{
    p += strspn(p, " \t");
    size_t n = strlen(p);
    while (n > 0 && (p[n - 1] == ' ' || p[n - 1] == '\t'))
        p[--n] = '\0';
    return p;
}

static int driver_opt(json_t *net, char *value, struct err *e)
{
    char *eq = strchr(value, '=');

    if (!eq || eq == value)
        return err_set(e, ERR_INVALID, "invalid key value pair format in driver options");
    *eq = '\0';
    json_t *opts = jget(net, "DriverOpts");
    if (!opts) {
        opts = json_object();
        json_object_set_new(net, "DriverOpts", opts);
    }
    json_object_set_new(opts, trim(value), json_string(trim(eq + 1)));
    return 0;
}

static int network_field(json_t *net, char *field, struct err *e)
{
    char *eq = strchr(field, '=');

    lower(field);
    if (!eq || eq == field)
        return err_set(e, ERR_INVALID, "invalid field %s", field);
    *eq = '\0';
    char *key = trim(field), *value = trim(eq + 1);
    if (strcmp(key, "name") == 0) {
        json_object_set_new(net, "Target", json_string(value));
    } else if (strcmp(key, "alias") == 0) {
        json_t *aliases = jget(net, "Aliases");
        if (!aliases) {
            aliases = json_array();
            json_object_set_new(net, "Aliases", aliases);
        }
        json_array_append_new(aliases, json_string(value));
    } else if (strcmp(key, "driver-opt") == 0) {
        return driver_opt(net, value, e);
    } else if (strcmp(key, "ip") != 0 && strcmp(key, "ip6") != 0 && strcmp(key, "mac-address") != 0 &&
               strcmp(key, "link-local-ip") != 0 && strcmp(key, "gw-priority") != 0) {
        return err_set(e, ERR_INVALID, "invalid field key %s", key);
    }
    return 0;
}

static int parse_network(const char *text, json_t **ret, struct err *e)
{
    json_t *net = json_pack("{s:n,s:n,s:n}", "Target", "Aliases", "DriverOpts"), *field;
    int r = 0;

    if (has_key_value(text)) {
        json_t *fields = csv_fields(text, e);
        size_t i;
        r = fields ? 0 : -ERR_INVALID;
        for_each (fields, i, field) {
            char *copy = strdup(json_string_value(field));
            if (r == 0)
                r = network_field(net, copy, e);
            free(copy);
        }
        json_decref(fields);
        if (r == 0 && !*jstr(net, "Target"))
            r = err_set(e, ERR_INVALID, "network name/id is not specified");
    } else {
        json_t *s = json_string(text);
        if (!s)
            r = err_set(e, ERR_INVALID, "not valid UTF-8");
        json_object_set_new(net, "Target", s);
    }
    if (r < 0) {
        json_decref(net);
        return r;
    }
    jprune_null(net);
    *ret = net;
    return 0;
}

static json_t *port_config(const char *proto, unsigned target, unsigned published, const char *mode)
{
    json_t *p = json_pack("{s:s,s:i}", "Protocol", proto, "TargetPort", (int)target);
    if (published)
        json_object_set_new(p, "PublishedPort", json_integer(published));
    json_object_set_new(p, "PublishMode", json_string(mode));
    return p;
}

struct port_long {
    char protocol[8], mode[8];
    unsigned target, published;
};

static int port_number(const char *what, const char *value, unsigned *ret, struct err *e)
{
    struct err why = ERR_INIT;
    uint64_t v;

    if (parse_go_uint(value, 10, 16, &v, &why) < 0)
        return err_set(e, ERR_INVALID, "invalid %s port (%s): value must be an integer: %s", what, value,
                       strstr(why.msg, "out of range") ? "value out of range" : "invalid syntax");
    *ret = (unsigned)v;
    return 0;
}

static int port_field(struct port_long *p, char *field, struct err *e)
{
    char *eq = strchr(field, '=');

    lower(field);
    if (!eq || eq == field)
        return err_set(e, ERR_INVALID, "invalid field: %s", field);
    *eq = '\0';
    const char *value = eq + 1;
    if (strcmp(field, "protocol") == 0) {
        if (strcmp(value, "tcp") != 0 && strcmp(value, "udp") != 0 && strcmp(value, "sctp") != 0)
            return err_set(e, ERR_INVALID, "invalid protocol value '%s'", value);
        snprintf(p->protocol, sizeof p->protocol, "%s", value);
        return 0;
    }
    if (strcmp(field, "mode") == 0) {
        if (strcmp(value, "ingress") != 0 && strcmp(value, "host") != 0)
            return err_set(e, ERR_INVALID, "invalid publish mode value (%s): must be either 'ingress' or 'host'",
                           value);
        snprintf(p->mode, sizeof p->mode, "%s", value);
        return 0;
    }
    if (strcmp(field, "target") == 0)
        return port_number("target", value, &p->target, e);
    if (strcmp(field, "published") == 0)
        return port_number("published", value, &p->published, e);
    return err_set(e, ERR_INVALID, "invalid field key: %s", field);
}

static int parse_port_long(const char *text, json_t **ret, struct err *e)
{
    struct port_long p = { .protocol = "tcp", .mode = "ingress" };
    json_t *fields = csv_fields(text, e), *field;
    size_t i;
    int r = fields ? 0 : -ERR_INVALID;

    for_each (fields, i, field) {
        char *copy = strdup(json_string_value(field));
        if (r == 0)
            r = port_field(&p, copy, e);
        free(copy);
    }
    json_decref(fields);
    if (r == 0 && p.target == 0)
        r = err_set(e, ERR_INVALID, "missing mandatory field 'target'");
    if (r == 0)
        *ret = port_config(p.protocol, p.target, p.published, p.mode);
    return r;
}

int port_range(struct str s, unsigned *ret_first, unsigned *ret_last)
{
    const char *dash = memchr(s.p, '-', s.n);
    struct str a = s, b = s;
    uint64_t first, last;

    if (dash) {
        a.n = (size_t)(dash - s.p);
        b = (struct str){ dash + 1, s.n - a.n - 1 };
    }
    if (!str_u64(a, &first) || !str_u64(b, &last) || first > 65535 || last > 65535 || last < first)
        return -ERR_INVALID;
    *ret_first = (unsigned)first;
    *ret_last = (unsigned)last;
    return 0;
}

/* [published:]target[/protocol], each a port or a range; equal ranges pair up, one target takes a whole published
 * range. */
static int parse_port_short(const char *text, json_t **ret, struct err *e)
{
    char proto[16] = "tcp";
    const char *slash = strrchr(text, '/'), *colon;
    struct str rest = { text, slash ? (size_t)(slash - text) : strlen(text) }, target = rest, pub = { text, 0 };
    unsigned t0, t1, p0 = 0, p1 = 0;

    if (slash && slash[1])
        snprintf(proto, sizeof proto, "%s", slash + 1);
    lower(proto);
    colon = memrchr(rest.p, ':', rest.n);
    if (colon) {
        target = (struct str){ colon + 1, (size_t)(rest.p + rest.n - colon - 1) };
        pub = (struct str){ rest.p, (size_t)(colon - rest.p) };
        if (memchr(pub.p, ':', pub.n))
            return err_set(e, ERR_INVALID, "hostip is not supported");
    }
    if (target.n == 0)
        return err_set(e, ERR_INVALID, "no port specified: %s<empty>", text);
    if (port_range(target, &t0, &t1) < 0)
        return err_set(e, ERR_INVALID, "invalid containerPort: " STR_FMT, STR_ARG(target));
    if (pub.n > 0 && port_range(pub, &p0, &p1) < 0)
        return err_set(e, ERR_INVALID, "invalid hostPort: " STR_FMT, STR_ARG(pub));
    if (pub.n > 0 && t1 - t0 != p1 - p0 && t1 != t0)
        return err_set(e, ERR_INVALID,
                       "invalid ranges specified for container and host Ports: " STR_FMT " and " STR_FMT,
                       STR_ARG(target), STR_ARG(pub));
    if (strcmp(proto, "tcp") != 0 && strcmp(proto, "udp") != 0 && strcmp(proto, "sctp") != 0)
        return err_set(e, ERR_INVALID, "invalid proto: %s", proto);
    *ret = json_array();
    for (unsigned i = 0; i <= (t1 - t0 > p1 - p0 ? t1 - t0 : p1 - p0); i++)
        json_array_append_new(*ret, port_config(proto, t0 == t1 ? t0 : t0 + i, pub.n ? p0 + i : 0, "ingress"));
    return 0;
}

static int parse_port(const char *text, json_t **ret, struct err *e)
{
    return has_key_value(text) ? parse_port_long(text, ret, e) : parse_port_short(text, ret, e);
}

/* An interface or address, ":2377" added when there is no port. */
static int parse_node_addr(const char *text, json_t **ret, struct err *e)
{
    const char *host = strncmp(text, "tcp://", 6) == 0 ? text + 6 : text, *colon = strrchr(host, ':');
    uint64_t port;

    if (!*host) {
        *ret = json_string("0.0.0.0:2377");
        return 0;
    }
    if (strstr(host, "://"))
        return err_set(e, ERR_INVALID, "invalid proto, expected tcp: %s", text);
    bool bare = !colon || (*host == '[' && colon < strchr(host, ']')) || (*host != '[' && strchr(host, ':') != colon);
    if (bare)
        *ret = *host != '[' && colon ? json_sprintf("[%s]:2377", host) : json_sprintf("%s:2377", host);
    else if (colon[1] == '\0')
        *ret = json_sprintf("%s2377", host);
    else if (!str_u64(str_from(colon + 1), &port) || port > 65535)
        return err_set(e, ERR_INVALID, "invalid bind address format: %s", text);
    else
        *ret = json_sprintf("%s%s", colon == host ? "0.0.0.0" : "", host);
    return *ret ? 0 : err_set(e, ERR_INVALID, "not valid UTF-8");
}

/* A subnet in CIDR form, masked to its network address. */
static int parse_pool(const char *text, json_t **ret, struct err *e)
{
    char addr[64], out[INET6_ADDRSTRLEN];
    unsigned char a[16] = { 0 };
    const char *slash = strchr(text, '/');
    uint64_t bits = 0;

    text += strspn(text, " ");
    snprintf(addr, sizeof addr, "%.*s", slash ? (int)(slash - text) : 0, text);
    int family = strchr(addr, ':') ? AF_INET6 : AF_INET;
    if (!slash || inet_pton(family, addr, a) != 1 || !str_u64(str_from(slash + 1), &bits) ||
        bits > (family == AF_INET ? 32 : 128))
        return err_set(e, ERR_INVALID, "invalid string being converted to CIDR: %s", text);
    for (size_t i = 0; i < 128; i++)
        if (i >= bits)
            a[i / 8] = (unsigned char)(a[i / 8] & ~(0x80 >> i % 8));
    inet_ntop(family, a, out, sizeof out);
    *ret = json_sprintf("%s/%u", out, (unsigned)bits);
    return 0;
}

const struct flag_type T_NETWORK = { .name = "network", .list = true, .parse = parse_network };
const struct flag_type T_PORT = { .name = "port", .list = true, .parse = parse_port };
const struct flag_type T_NODE_ADDR = { .name = "node-addr", .parse = parse_node_addr };
const struct flag_type T_POOL = { .name = "ipNetSlice", .list = true, .parse = parse_pool };
