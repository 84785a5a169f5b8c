#include "common/daemon/addr.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

int addr_parse(struct str text, unsigned port, struct host_port *ret, struct err *e)
{
    struct str host = text, tail = { NULL, 0 };
    const char *colon = text.n ? memchr(text.p, ':', text.n) : NULL;
    uint64_t n;
    if (text.n > 0 && text.p[0] == '[') {
        const char *close = memchr(text.p, ']', text.n);
        if (!close)
            return err_set(e, ERR_INVALID, "missing ']' in address");
        host = (struct str){ text.p + 1, (size_t)(close - text.p - 1) };
        tail = (struct str){ close + 1, text.n - host.n - 2 };
    } else if (colon && !memchr(colon + 1, ':', text.n - (size_t)(colon + 1 - text.p))) {
        host.n = (size_t)(colon - text.p);
        tail = (struct str){ colon, text.n - host.n };
    }
    ret->port = port;
    if (tail.n > 0) {
        if (tail.p[0] != ':' || !str_u64((struct str){ tail.p + 1, tail.n - 1 }, &n) || n > 65535)
            return err_set(e, ERR_INVALID, "invalid port in address");
        ret->port = (unsigned)n;
    }
    if (host.n == 0 || memchr(host.p, 0, host.n) || !str_copy(ret->host, sizeof ret->host, host))
        return err_set(e, ERR_INVALID, "invalid address");
    return 0;
}

bool addr_is_ip(const char *host)
{
    unsigned char b[16];
    return inet_pton(AF_INET, host, b) == 1 || inet_pton(AF_INET6, host, b) == 1;
}

bool addr_is_any(const char *host)
{
    static const unsigned char zero[16];
    unsigned char b[16];
    if (inet_pton(AF_INET, host, b) == 1)
        return memcmp(b, zero, 4) == 0;
    return inet_pton(AF_INET6, host, b) == 1 && memcmp(b, zero, 16) == 0;
}

/* Text of a usable address; link-local ones are none. */
static bool address_text(const struct ifaddrs *i, int family, char ret[ADDR_HOST_MAX])
{
    if (!i->ifa_addr || i->ifa_addr->sa_family != family)
        return false;
    if (family == AF_INET) {
        const struct sockaddr_in *a = (const void *)i->ifa_addr;
        return inet_ntop(AF_INET, &a->sin_addr, ret, ADDR_HOST_MAX) != NULL;
    }
    const struct sockaddr_in6 *a = (const void *)i->ifa_addr;
    return !IN6_IS_ADDR_LINKLOCAL(&a->sin6_addr) && inet_ntop(AF_INET6, &a->sin6_addr, ret, ADDR_HOST_MAX) != NULL;
}

bool addr_is_ours(const struct ifaddrs *all, const char *host)
{
    char text[ADDR_HOST_MAX];
    unsigned char want[16], have[16];
    int family = strchr(host, ':') ? AF_INET6 : AF_INET;
    if (inet_pton(family, host, want) != 1)
        return false;
    for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
        if (address_text(i, family, text) && inet_pton(family, text, have) == 1 &&
            memcmp(want, have, family == AF_INET ? 4 : 16) == 0)
            return true;
    }
    return family == AF_INET && want[0] == 127;
}

int addr_of_interface(const struct ifaddrs *all, const char *name, char ret[ADDR_HOST_MAX], struct err *e)
{
    static const int families[] = { AF_INET, AF_INET6 };
    char text[ADDR_HOST_MAX], found[ADDR_HOST_MAX] = "";
    bool exists = false;
    for (size_t f = 0; f < 2 && !found[0]; f++)
        for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
            if (strcmp(i->ifa_name, name) != 0)
                continue;
            exists = true;
            if (!address_text(i, families[f], text))
                continue;
            if (found[0])
                return err_set(e, ERR_INVALID, "interface %s has more than one IPv%d address (%s and %s)", name,
                               f == 0 ? 4 : 6, found, text);
            (void)str_copy(found, sizeof found, str_from(text));
        }
    if (!exists)
        return err_set(e, ERR_NOT_FOUND, "no such interface");
    if (!found[0])
        return err_set(e, ERR_INVALID, "interface %s has no usable IPv4 or IPv6 address", name);
    (void)str_copy(ret, ADDR_HOST_MAX, str_from(found));
    return 0;
}

/* Bridges of container engines carry no traffic between hosts. */
static bool skip_interface(const struct ifaddrs *i)
{
    return (i->ifa_flags & IFF_LOOPBACK) || !(i->ifa_flags & IFF_UP) || strncmp(i->ifa_name, "docker", 6) == 0 ||
           strncmp(i->ifa_name, "veth", 4) == 0 || strncmp(i->ifa_name, "ms-", 3) == 0 ||
           strncmp(i->ifa_name, "msw", 3) == 0 || strncmp(i->ifa_name, "msbr", 4) == 0;
}

int addr_of_system(const struct ifaddrs *all, char ret[ADDR_HOST_MAX], struct err *e)
{
    static const int families[] = { AF_INET, AF_INET6 };
    char text[ADDR_HOST_MAX], found[ADDR_HOST_MAX] = "";
    const char *on = "";
    for (size_t f = 0; f < 2 && !found[0]; f++)
        for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
            if (skip_interface(i) || !address_text(i, families[f], text))
                continue;
            if (found[0] && strcmp(on, i->ifa_name) == 0)
                return err_set(e, ERR_INVALID,
                               "could not choose an IP address to advertise since this system has "
                               "multiple addresses on interface %s (%s and %s)",
                               on, found, text);
            if (found[0])
                return err_set(e, ERR_INVALID,
                               "could not choose an IP address to advertise since this system has "
                               "multiple addresses on different interfaces (%s on %s and %s on %s)",
                               found, on, text, i->ifa_name);
            (void)str_copy(found, sizeof found, str_from(text));
            on = i->ifa_name;
        }
    if (!found[0])
        return err_set(e, ERR_INVALID, "could not find the system's IP address");
    (void)str_copy(ret, ADDR_HOST_MAX, str_from(found));
    return 0;
}

void addr_text(const struct host_port *a, char ret[ADDR_TEXT_MAX])
{
    bool v6 = strchr(a->host, ':') != NULL;
    (void)snprintf(ret, ADDR_TEXT_MAX, v6 ? "[%s]:%u" : "%s:%u", a->host, a->port);
}
