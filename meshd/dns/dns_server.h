/*
 * dns_server.h - the nameserver in each container: 127.0.0.11 by way of port 4053, UDP and TCP.
 *
 * Sockets are opened inside the sandbox's namespace and served from here. What dns_core does not know goes to the
 * outside's nameservers: those that its service names are asked from inside the sandbox, the host's from the host.
 * Each is given DNS_ASK_MS, then the next is tried. Sources are random ports of connected sockets, ids are random, and
 * the question must come back as it was (RFC 5452 §9).
 *
 * One container cannot take the others' share: its questions are served in small portions, at most DNS_RATE a second,
 * with at most DNS_ASKS_EACH of them outside and DNS_CONNS_EACH connections; beyond that they are not answered.
 */
#pragma once

#include <systemd/sd-event.h>

#include "meshd/dns/dns_core.h"

#define DNS_ADDRESS "127.0.0.11"
#define DNS_PORT 4053 /* port 53 of the address is redirected to it: the container may bind 0.0.0.0:53 itself */
#define DNS_ASK_MS 2000u
#define DNS_RATE 5000u /* questions a second of one container, in tenths of a second */
#define DNS_ASKS_EACH 128u
#define DNS_ASKS_MAX 2048u
#define DNS_CONNS_EACH 16u
#define DNS_IDLE_MS 10000u /* of a connection */
#define DNS_SERVERS_MAX 6u

struct dns_sandbox {
    const char *task, *netns; /* ID; path of the namespace */
    const char *hostname;
    size_t nnetworks;
    const char (*networks)[ID_SIZE]; /* those with names: not the ingress network */
    struct strs nameservers;         /* its service's own; none: the host's */
    bool single_inside, outside;     /* as in struct dns_zone */
};

struct dns_counts {
    uint64_t questions, answered, forwarded, failed, dropped, connections;
    unsigned sandboxes, asks;
};

struct dns_server;

int dns_server_open(struct dns_server **ret, sd_event *loop, const struct netmap *map, struct err *e);
struct dns_server *dns_server_free(struct dns_server *s);

/* dns_server_add - starts serving a sandbox; one that is served already is served anew. All texts are copied. */
int dns_server_add(struct dns_server *s, const struct dns_sandbox *sb, struct err *e);
void dns_server_del(struct dns_server *s, struct str task); /* before its namespace is unpinned; unknown: fine */

/* dns_server_host - the host's nameservers: "8.8.8.8", "fd00::1", at most DNS_SERVERS_MAX are taken. */
void dns_server_host(struct dns_server *s, const struct strs *nameservers);

void dns_server_counts(const struct dns_server *s, struct dns_counts *ret);
