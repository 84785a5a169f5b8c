#include "gatewayd/gw_addr.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>

int gw_addr_sockaddr(const struct host_port *a, struct sockaddr_storage *ret, socklen_t *ret_len, struct err *e)
{
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons((uint16_t)a->port) };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)a->port) };
    memset(ret, 0, sizeof *ret);
    if (inet_pton(AF_INET, a->host, &v4.sin_addr) == 1) {
        memcpy(ret, &v4, *ret_len = sizeof v4);
        return 0;
    }
    if (inet_pton(AF_INET6, a->host, &v6.sin6_addr) == 1) {
        memcpy(ret, &v6, *ret_len = sizeof v6);
        return 0;
    }
    return err_set(e, ERR_INVALID, "%s: not an IP address", a->host);
}

void gw_addr_host_of(const struct sockaddr_storage *sa, char ret[ADDR_HOST_MAX])
{
    ret[0] = '\0';
    if (sa->ss_family == AF_INET) {
        (void)inet_ntop(AF_INET, &((const struct sockaddr_in *)sa)->sin_addr, ret, ADDR_HOST_MAX);
    } else if (sa->ss_family == AF_INET6) {
        const struct in6_addr *a = &((const struct sockaddr_in6 *)sa)->sin6_addr;
        if (IN6_IS_ADDR_V4MAPPED(a))
            (void)inet_ntop(AF_INET, a->s6_addr + 12, ret, ADDR_HOST_MAX);
        else
            (void)inet_ntop(AF_INET6, a, ret, ADDR_HOST_MAX);
    }
}

/* A name becomes its interface's address; @what is Docker's complaint. */
static int resolve_host(const struct ifaddrs *all, char host[ADDR_HOST_MAX], const char *what, bool any_allowed,
                        struct err *e)
{
    if (!addr_is_ip(host)) {
        char name[ADDR_HOST_MAX];
        (void)str_copy(name, sizeof name, str_from(host));
        int r = addr_of_interface(all, name, host, e);
        if (r == -ERR_NOT_FOUND)
            return err_set(e, ERR_INVALID, "%s", what);
        if (r < 0)
            return r;
    }
    return any_allowed || !addr_is_any(host) ? 0 : err_set(e, ERR_INVALID, "%s", what);
}

int gw_addrs_resolve(struct gw_addrs *ret, struct str listen, struct str advertise, struct str data_path,
                     const struct ifaddrs *all, bool may_wait, struct err *e)
{
    static const char what_listen[] =
        "listen address must be an IP address or network interface (with optional port number)";
    static const char what_advertise[] =
        "advertise address must be a non-zero IP address or network interface (with optional port number)";
    static const char what_data[] =
        "data path address must be a non-zero IP address or network interface (without a port number)";
    struct gw_addrs x = { .data_path = "" };
    struct host_port d = { .port = 0 };
    int r;
    if (listen.n == 0)
        listen = STR("0.0.0.0");
    struct err why = ERR_INIT;
    if (addr_parse(listen, SWARM_PORT, &x.listen, &why) < 0 || x.listen.port == 0)
        return err_set(e, ERR_INVALID, "invalid ListenAddr \"" STR_FMT "\": %s", STR_ARG(listen),
                       why.code ? why.msg : "port 0");
    r = resolve_host(all, x.listen.host, what_listen, true, e);
    if (r < 0)
        return r;
    if (advertise.n > 0) {
        if (addr_parse(advertise, x.listen.port, &x.advertise, e) < 0 || x.advertise.port == 0)
            return err_set(e, ERR_INVALID, "%s", what_advertise);
        r = resolve_host(all, x.advertise.host, what_advertise, false, e);
    } else if (!addr_is_any(x.listen.host)) {
        x.advertise = x.listen;
    } else {
        x.advertise.port = x.listen.port;
        if (!may_wait)
            r = addr_of_system(all, x.advertise.host, e);
    }
    if (r == 0 && data_path.n > 0) {
        if (addr_parse(data_path, 0, &d, e) < 0 || d.port != 0)
            return err_set(e, ERR_INVALID, "%s", what_data);
        r = resolve_host(all, d.host, what_data, false, e);
        (void)str_copy(x.data_path, sizeof x.data_path, str_from(d.host));
    }
    if (r == 0)
        *ret = x;
    return r;
}
