/* api_addr.h - addresses of swarm init: "host", "host:port", "[v6]:port", or an interface's name for the host. */
#pragma once

#include <ifaddrs.h>

#include "common/util/err.h"
#include "common/util/str.h"

#define ADDR_TEXT_MAX 64
#define SWARM_PORT_DEFAULT 2377u

struct host_port {
    char host[ADDR_TEXT_MAX]; /* without brackets */
    unsigned port;
};

/* addr_parse - pure; a missing port becomes @port. -ERR_INVALID when malformed. */
int addr_parse(struct str text, unsigned port, struct host_port *ret, struct err *e);

/* addr_is_ip, addr_is_any - is host a literal address; is it 0.0.0.0 or ::. */
bool addr_is_ip(const char *host);
bool addr_is_any(const char *host);

/* addr_of_interface - its only IPv4 address (else its only IPv6 one). -ERR_NOT_FOUND: no such interface. */
int addr_of_interface(const struct ifaddrs *all, const char *name, char ret[ADDR_TEXT_MAX], struct err *e);

/* addr_of_system - the address to advertise when the user gave none, in Docker's rules: exactly one, or an error. */
int addr_of_system(const struct ifaddrs *all, char ret[ADDR_TEXT_MAX], struct err *e);

/* addr_join - "1.2.3.4:2377", "[::1]:2377". */
void addr_join(const struct host_port *a, char ret[ADDR_TEXT_MAX + 10]);
