/* addr.h - addresses of nodes: "host", "host:port", "[v6]:port", or an interface's name for the host. */
#pragma once

#include <ifaddrs.h>

#include "common/util/err.h"
#include "common/util/str.h"

#define ADDR_HOST_MAX 256
#define ADDR_TEXT_MAX (ADDR_HOST_MAX + 10)
#define SWARM_PORT 2377u

struct host_port {
    char host[ADDR_HOST_MAX]; /* without brackets */
    unsigned port;
};

/* addr_parse - pure; a missing port becomes @port. -ERR_INVALID when malformed. */
int addr_parse(struct str text, unsigned port, struct host_port *ret, struct err *e);

/* addr_is_ip, addr_is_any - is host a literal address; is it 0.0.0.0 or ::. */
bool addr_is_ip(const char *host);
bool addr_is_any(const char *host);
bool addr_is_ours(const struct ifaddrs *all, const char *host);

/* addr_of_interface - its only IPv4 address (else its only IPv6 one). -ERR_NOT_FOUND: no such interface. */
int addr_of_interface(const struct ifaddrs *all, const char *name, char ret[ADDR_HOST_MAX], struct err *e);

/* addr_of_system - what to advertise when nobody said, by Docker's rules: exactly one address, or an error. */
int addr_of_system(const struct ifaddrs *all, char ret[ADDR_HOST_MAX], struct err *e);

void addr_text(const struct host_port *a, char ret[ADDR_TEXT_MAX]); /* "1.2.3.4:2377", "[::1]:2377" */
