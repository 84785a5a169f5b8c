/* cidr.c - see cidr.h. */
#include "common/util/cidr.h"

#include <arpa/inet.h>
#include <stdio.h>

unsigned ip_bits(uint8_t family)
{
    return family == 6 ? 128 : 32;
}

bool ip_parse(struct str text, struct ip *ret)
{
    char s[IP_TEXT_MAX];
    uint8_t b[16];
    if (text.n == 0 || memchr(text.p, 0, text.n) != NULL || !str_copy(s, sizeof s, text))
        return false;
    bool six = strchr(s, ':') != NULL;
    if (inet_pton(six ? AF_INET6 : AF_INET, s, b) != 1)
        return false;
    *ret = (struct ip){ .family = six ? 6 : 4 };
    for (unsigned i = 0; i < (six ? 16u : 4u); i++)
        ret->v = ret->v << 8 | b[i];
    return true;
}

bool cidr_parse(struct str text, struct cidr *ret)
{
    const char *slash = text.n ? memchr(text.p, '/', text.n) : NULL;
    struct cidr c;
    uint64_t len;
    if (slash == NULL || !ip_parse((struct str){ text.p, (size_t)(slash - text.p) }, &c.ip))
        return false;
    struct str tail = { slash + 1, text.n - (size_t)(slash - text.p) - 1 };
    if (tail.n > 3 || (tail.n > 1 && tail.p[0] == '0') || !str_u64(tail, &len) || len > ip_bits(c.ip.family))
        return false;
    c.len = (uint8_t)len;
    *ret = c;
    return true;
}

const char *ip_text(struct ip ip, char buf[IP_TEXT_MAX])
{
    uint8_t b[16];
    unsigned n = ip_bits(ip.family) / 8;
    for (unsigned i = 0; i < n; i++)
        b[n - 1 - i] = (uint8_t)(ip.v >> 8 * i);
    if (ip.family == 0 || inet_ntop(ip.family == 6 ? AF_INET6 : AF_INET, b, buf, IP_TEXT_MAX) == NULL)
        buf[0] = 0;
    return buf;
}

const char *cidr_text(struct cidr c, char buf[CIDR_TEXT_MAX])
{
    char ip[IP_TEXT_MAX];
    (void)snprintf(buf, CIDR_TEXT_MAX, "%s/%u", ip_text(c.ip, ip), c.len);
    return buf;
}

bool ip_eq(struct ip a, struct ip b)
{
    return a.family == b.family && a.v == b.v;
}

/* host_bits - ones where a prefix of this length says nothing. */
static ip_num host_bits(uint8_t family, uint8_t len)
{
    unsigned n = ip_bits(family) - len;
    return n >= 128 ? ~(ip_num)0 : ((ip_num)1 << n) - 1;
}

struct cidr cidr_masked(struct cidr c)
{
    c.ip.v &= ~host_bits(c.ip.family, c.len);
    return c;
}

struct ip cidr_first(struct cidr c)
{
    return cidr_masked(c).ip;
}

struct ip cidr_last(struct cidr c)
{
    c.ip.v |= host_bits(c.ip.family, c.len);
    return c.ip;
}

bool cidr_has(struct cidr net, struct ip ip)
{
    return net.ip.family == ip.family && ((net.ip.v ^ ip.v) & ~host_bits(ip.family, net.len)) == 0;
}

bool cidr_holds(struct cidr net, struct cidr inner)
{
    return inner.len >= net.len && cidr_has(net, inner.ip);
}

bool cidr_overlap(struct cidr a, struct cidr b)
{
    return a.len <= b.len ? cidr_has(a, b.ip) : cidr_has(b, a.ip);
}

int cidr_cmp(struct cidr a, struct cidr b)
{
    struct ip x = cidr_first(a), y = cidr_first(b);
    if (x.family != y.family)
        return x.family < y.family ? -1 : 1;
    if (x.v != y.v)
        return x.v < y.v ? -1 : 1;
    return a.len < b.len ? -1 : a.len > b.len;
}
