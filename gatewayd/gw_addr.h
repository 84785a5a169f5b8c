/* gw_addr.h - addresses of nodes: "host", "host:port", "[v6]:port", or an interface's name for the host. */
#pragma once

#include <ifaddrs.h>
#include <sys/socket.h>

#include "common/util/err.h"
#include "common/util/str.h"

#define GW_HOST_MAX 256
#define GW_ADDR_MAX (GW_HOST_MAX + 10)
#define GW_PORT 2377u

struct gw_addr {
    char host[GW_HOST_MAX]; /* without brackets */
    unsigned port;
};

/* gw_addr_parse - pure; a missing port becomes @port. -ERR_INVALID when malformed. */
int gw_addr_parse(struct str text, unsigned port, struct gw_addr *ret, struct err *e);

/* gw_addr_is_ip, gw_addr_is_any - is host a literal address; is it 0.0.0.0 or ::. */
bool gw_addr_is_ip(const char *host);
bool gw_addr_is_any(const char *host);
bool gw_addr_is_ours(const struct ifaddrs *all, const char *host);

/* gw_addr_of_interface - its only IPv4 address (else its only IPv6 one). -ERR_NOT_FOUND: no such interface. */
int gw_addr_of_interface(const struct ifaddrs *all, const char *name, char ret[GW_HOST_MAX], struct err *e);

/* gw_addr_of_system - what to advertise when nobody said: exactly one address, or Docker's error. */
int gw_addr_of_system(const struct ifaddrs *all, char ret[GW_HOST_MAX], struct err *e);

void gw_addr_text(const struct gw_addr *a, char ret[GW_ADDR_MAX]); /* "1.2.3.4:2377", "[::1]:2377" */

/* gw_addr_sockaddr - a literal address and port; -ERR_INVALID for names. */
int gw_addr_sockaddr(const struct gw_addr *a, struct sockaddr_storage *ret, socklen_t *ret_len, struct err *e);
void gw_addr_host_of(const struct sockaddr_storage *sa, char ret[GW_HOST_MAX]); /* v4-mapped ones as IPv4 */

/* The three addresses that a person gives, checked and completed against this host's interfaces, with Docker's errors.
 * advertise.host stays empty when @may_wait and it can only be known later (from the connection to a manager). */
struct gw_addrs {
    struct gw_addr listen, advertise;
    char data_path[GW_HOST_MAX];
};
int gw_addrs_resolve(struct gw_addrs *ret, struct str listen, struct str advertise, struct str data_path,
                     const struct ifaddrs *all, bool may_wait, struct err *e);
