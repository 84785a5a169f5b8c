/* gw_addr.h - addresses for sockets, and the three that a person gives. */
#pragma once

#include <sys/socket.h>

#include "common/daemon/addr.h"

/* gw_addr_sockaddr - a literal address and port; -ERR_INVALID for names. */
int gw_addr_sockaddr(const struct host_port *a, struct sockaddr_storage *ret, socklen_t *ret_len, struct err *e);
void gw_addr_host_of(const struct sockaddr_storage *sa, char ret[ADDR_HOST_MAX]); /* v4-mapped ones as IPv4 */

/* The three addresses that a person gives, checked and completed against this host's interfaces, with Docker's errors.
 * advertise.host stays empty when @may_wait and it can only be known later (from the connection to a manager). */
struct gw_addrs {
    struct host_port listen, advertise;
    char data_path[ADDR_HOST_MAX];
};
int gw_addrs_resolve(struct gw_addrs *ret, struct str listen, struct str advertise, struct str data_path,
                     const struct ifaddrs *all, bool may_wait, struct err *e);
