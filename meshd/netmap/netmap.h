/*
 * netmap.h - all that this node knows of the swarm's networks: which there are, who is on them, and who may get
 * traffic.
 *
 * The managers' word (msg_dispatcherd.h, disp_network_reply) makes it; gossip only takes away: an endpoint whose node
 * is dead, or whose own node has withdrawn it, gets nothing new until the managers' word says so as well, or takes it
 * back. What the kernel and the DNS server do follows from this alone; they are told what changed, and look it up.
 * No I/O, no clock.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/proto/msg_dispatcherd.h"
#include "common/util/arena.h"
#include "common/util/id.h"
#include "common/util/table.h"

struct netmap_ip {
    uint8_t family; /* AF_INET, AF_INET6; 0: none */
    uint8_t prefix; /* 32 or 128 for a single address */
    uint8_t b[16];  /* network byte order; IPv4 in the first four */
};
/* netmap_ip_parse - "10.0.1.5", "10.0.1.5/24", "fd00::5/64"; false for anything else. */
bool netmap_ip_parse(struct str text, struct netmap_ip *ret);
bool netmap_ip_eq(const struct netmap_ip *a, const struct netmap_ip *b); /* addresses; the prefix does not count */
#define NETMAP_IP_TEXT 50
const char *netmap_ip_text(const struct netmap_ip *ip, char text[NETMAP_IP_TEXT]); /* without the prefix */

/* netmap_mac - the Ethernet address that every node gives an address, so that none has to be told: 02:42 and the four
 * bytes of IPv4; of IPv6, a hash. */
void netmap_mac(const struct netmap_ip *ip, uint8_t mac[6]);

#define NETMAP_IPS_MAX 4u /* addresses of one endpoint on one network */

enum netmap_state { NETMAP_STARTING, NETMAP_READY, NETMAP_DRAINING };

struct netmap_subnet {
    struct netmap_ip net, gateway; /* gateway.family 0: none */
};
struct netmap_node {
    char id[ID_SIZE];
    char hostname[256];
    char boot[NET_BOOT_ID_MAX + 1];
    struct netmap_ip addr;
};
struct netmap_endpoint {
    char id[ID_SIZE]; /* the task's */
    char service[ID_SIZE], node[ID_SIZE];
    struct str name; /* owned */
    enum netmap_state state;
    size_t nips;
    struct netmap_ip ips[NETMAP_IPS_MAX];
};
struct netmap_port {
    uint8_t proto;
    uint16_t target, published;
};
struct netmap_service {
    char id[ID_SIZE];
    struct str name;
    bool dnsrr;
    size_t nvips, naliases, nports;
    struct netmap_ip *vips;
    struct str *aliases;
    struct netmap_port *ports;
};
struct netmap_owner { /* of an address */
    bool service;
    char id[ID_SIZE];
};
struct netmap_network {
    char id[ID_SIZE];
    struct str name;
    uint32_t vni, mtu;
    bool encrypted, internal, ingress;
    size_t nsubnets;
    struct netmap_subnet *subnets;
    struct table services;  /* ID -> struct netmap_service * */
    struct table endpoints; /* ID -> struct netmap_endpoint * */
    struct table members;   /* service ID -> struct table, a set of endpoint IDs; also before the service is known */
    struct table names;     /* lower-case service name or alias -> struct table, a set of service IDs */
    struct table addresses; /* family and bytes -> struct netmap_owner */
};

/* What the consumers (overlay, service addresses, ingress, DNS, keys) have to look at again. */
enum netmap_kind {
    NETMAP_ALL,      /* everything was forgotten: compare whatever is there with the map */
    NETMAP_NETWORK,  /* new, changed or gone (then netmap_network() is NULL) */
    NETMAP_SERVICE,  /* it, its addresses or ports, or who is behind it */
    NETMAP_ENDPOINT, /* new, moved, gone (not its state: that is its service's) */
    NETMAP_NODE,
    NETMAP_KEYS,
};
struct netmap_change {
    enum netmap_kind kind;
    char network[ID_SIZE]; /* NETMAP_NETWORK, _SERVICE, _ENDPOINT */
    char id[ID_SIZE];      /* of the service, endpoint, node */
    /* NETMAP_ENDPOINT, _NODE: where it was before, for taking that away; nips 0: it is new */
    char node[ID_SIZE];
    size_t nips;
    struct netmap_ip ips[NETMAP_IPS_MAX];
};

struct netmap_key {
    char purpose[17];
    uint64_t epoch;
    uint8_t n, key[64];
};

struct netmap {
    uint64_t seq; /* 0: nothing known */
    uint16_t data_path_port;
    struct table networks; /* ID -> struct netmap_network * */
    struct table nodes;    /* ID -> struct netmap_node */
    size_t nkeys;
    struct netmap_key keys[64];
    struct table dead;      /* node ID -> nothing; by gossip, kept through netmap_apply() */
    struct table withdrawn; /* task ID -> nothing; by gossip: its own node says that it takes nothing new */
    struct netmap_change *changes;
    size_t nchanges, cchanges, taken;
    struct table queued; /* services whose change is queued already */
};

void netmap_init(struct netmap *m);
void netmap_done(struct netmap *m); /* wipes the keys */

/* netmap_apply - takes an answer of dispatcherd in. -ERR_INVALID names what makes no sense; then the map stays as it
 * was, but the next question asks for everything (seq 0). */
int netmap_apply(struct netmap *m, const struct disp_network_reply *r, struct err *e);

/* netmap_ask - fills in Seq and Networks of the next question. The texts live as long as the map is not changed. */
void netmap_ask(const struct netmap *m, struct arena *a, struct disp_network *ret);

/* What gossip says. */
void netmap_node_dead(struct netmap *m, struct str node, bool dead);
void netmap_withdraw(struct netmap *m, struct str task, bool withdrawn);

/* netmap_next - the next thing that changed, oldest first; false when there is no more. */
bool netmap_next(struct netmap *m, struct netmap_change *ret);

struct netmap_network *netmap_network(const struct netmap *m, struct str id); /* NULL: not known */
struct netmap_network *netmap_ingress(const struct netmap *m);                /* NULL: there is none */
struct netmap_service *netmap_service(const struct netmap_network *n, struct str id);
struct netmap_endpoint *netmap_endpoint(const struct netmap_network *n, struct str id);
struct netmap_node *netmap_node(const struct netmap *m, struct str id);

/* netmap_usable - does it get new connections? */
bool netmap_usable(const struct netmap *m, const struct netmap_endpoint *ep);

/* netmap_backends - the usable endpoints of a service, ordered by ID, into an array of the arena; their number. */
size_t netmap_backends(const struct netmap *m, const struct netmap_network *n, const struct netmap_service *s,
                       struct arena *a, struct netmap_endpoint ***ret);

/* netmap_key_use - the key to seal with: the second newest of its purpose, which every node has by now; the only one
 * when there is one. All of them open. NULL: there is none. */
const struct netmap_key *netmap_key_use(const struct netmap *m, const char *purpose);

/* netmap_by_name - the services of a network that go by this name or alias (compared without case), by ID. */
size_t netmap_by_name(const struct netmap_network *n, struct str name, struct arena *a, struct netmap_service ***ret);

/* netmap_by_address - whose address it is on this network: a service's or an endpoint's; false: nobody's. */
bool netmap_by_address(const struct netmap_network *n, const struct netmap_ip *ip, struct netmap_service **ret_service,
                       struct netmap_endpoint **ret_endpoint);
