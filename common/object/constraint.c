/* constraint.c - see constraint.h. */
#include "common/object/constraint.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdlib.h>
#include <strings.h>

static struct str trim(struct str s)
{
    while (s.n && isspace((unsigned char)s.p[0]))
        s.p++, s.n--;
    while (s.n && isspace((unsigned char)s.p[s.n - 1]))
        s.n--;
    return s;
}

/* swarmkit: ^(?i)[a-z_][a-z0-9\-_.]+$ */
bool constraint_key_ok(struct str key)
{
    for (size_t i = 0; i < key.n; i++) {
        unsigned char c = (unsigned char)key.p[i];
        if (!(isalpha(c) || c == '_' || (i > 0 && (isdigit(c) || c == '-' || c == '.'))))
            return false;
    }
    return key.n >= 2;
}

/* swarmkit: ^(?i)[a-z0-9:\-_\s\.\*\(\)\?\+\[\]\\\^\$\|\/]+$ */
bool constraint_value_ok(struct str value)
{
    for (size_t i = 0; i < value.n; i++) {
        unsigned char c = (unsigned char)value.p[i];
        if (!isalnum(c) && (c == 0 || !strchr(":-_ \t\n\r\f.*()?+[]\\^$|/", c)))
            return false;
    }
    return value.n > 0;
}

bool constraint_split(struct str text, struct constraint *ret)
{
    const char *equal = text.n ? memmem(text.p, text.n, "==", 2) : NULL,
               *op = equal || text.n == 0 ? equal : memmem(text.p, text.n, "!=", 2);
    if (!op)
        return false;
    size_t at = (size_t)(op - text.p);
    *ret = (struct constraint){ .key = trim((struct str){ text.p, at }),
                                .value = trim((struct str){ op + 2, text.n - at - 2 }),
                                .equal = equal != NULL };
    return true;
}

bool constraint_parse(struct str text, struct constraint *ret)
{
    struct constraint c;
    if (!constraint_split(text, &c) || !constraint_key_ok(c.key) || !constraint_value_ok(c.value))
        return false;
    *ret = c;
    return true;
}

static bool same(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || strncasecmp(a.p, b.p, a.n) == 0);
}

static struct str map_get(const struct strmap *m, struct str key)
{
    for (size_t i = 0; i < m->n; i++)
        if (str_eq(m->v[i].key, key))
            return m->v[i].val;
    return STR("");
}

/* below - the rest of a key that starts with `prefix` in any case, "X" of "node.labels.X". */
static bool below(struct str key, const char *prefix, struct str *ret)
{
    size_t n = strlen(prefix);
    if (key.n <= n || strncasecmp(key.p, prefix, n) != 0)
        return false;
    *ret = (struct str){ key.p + n, key.n - n };
    return true;
}

bool constraint_label(struct str key, const struct view_node *n, struct str *ret_value)
{
    struct str label;
    if (below(key, "node.labels.", &label))
        *ret_value = map_get(&n->Spec.Labels, label);
    else if (below(key, "engine.labels.", &label))
        *ret_value = map_get(&n->Description.Engine.Labels, label);
    else
        return false;
    return true;
}

static bool parse_address(const char *text, int *ret_family, unsigned char bytes[16])
{
    for (unsigned i = 0; i < 2; i++)
        if (inet_pton(i ? AF_INET6 : AF_INET, text, bytes) == 1) {
            *ret_family = i ? AF_INET6 : AF_INET;
            return true;
        }
    return false;
}

static bool bits_equal(const unsigned char *a, const unsigned char *b, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;
    return memcmp(a, b, whole) == 0 && (rest == 0 || (a[whole] ^ b[whole]) >> (8 - rest) == 0);
}

/* match_ip - the value is an address or a CIDR; anything else rejects every node, whatever the operator. */
static bool match_ip(const struct constraint *c, struct str addr)
{
    char text[64], node[64], *slash, *end;
    unsigned char want[16] = { 0 }, have[16] = { 0 };
    int family, node_family;
    if (!str_copy(text, sizeof text, c->value))
        return false;
    if ((slash = strchr(text, '/')))
        *slash++ = 0;
    if (!parse_address(text, &family, want))
        return false;
    unsigned long most = family == AF_INET ? 32 : 128, bits = most;
    if (slash && ((bits = strtoul(slash, &end, 10)) > most || *end || end == slash))
        return false;
    bool in = str_copy(node, sizeof node, addr) && parse_address(node, &node_family, have) && node_family == family &&
              bits_equal(want, have, (unsigned)bits);
    return in == c->equal;
}

bool constraint_value(const struct constraint *c, const struct view_node *n, struct str *ret_value)
{
    if (same(c->key, STR("node.id")))
        *ret_value = n->ID;
    else if (same(c->key, STR("node.hostname")))
        *ret_value = n->Description.Hostname;
    else if (same(c->key, STR("node.role")))
        *ret_value = n->Role.n ? n->Role : n->Spec.Role; /* what it is, not what it is to become */
    else if (same(c->key, STR("node.platform.os")))
        *ret_value = n->Description.Platform.OS;
    else if (same(c->key, STR("node.platform.arch")))
        *ret_value = n->Description.Platform.Architecture;
    else
        return constraint_label(c->key, n, ret_value);
    return true;
}

bool constraint_match(const struct constraint *c, const struct view_node *n)
{
    struct str have;
    if (same(c->key, STR("node.ip")))
        return match_ip(c, n->Status.Addr);
    return constraint_value(c, n, &have) && same(have, c->value) == c->equal;
}

static struct str architecture(struct str s)
{
    return str_is(s, "x86_64") ? STR("amd64") : str_is(s, "aarch64") ? STR("arm64") : s;
}

bool platform_match(const struct list *platforms, const struct view_node *n)
{
    const struct view_platform *have = &n->Description.Platform, *p = platforms->v;
    for (size_t i = 0; i < platforms->n; i++)
        if ((p[i].OS.n == 0 || same(p[i].OS, have->OS)) &&
            (p[i].Architecture.n == 0 || same(architecture(p[i].Architecture), architecture(have->Architecture))))
            return true;
    return platforms->n == 0;
}
