/*
 * mesh_host.h - the one nftables table that is ours in the host's namespace, and what it knows of published ports.
 *
 *   table ip microswarm {
 *     set published { type inet_proto . inet_service }
 *     set nodes { type ipv4_addr }                # other nodes of the swarm, where their VXLAN comes from
 *     set vnis { type mark }                      # ids of our networks
 *     chain guard { nothing for 127/8 from the gateway; our VXLAN ids from our nodes only }
 *     chain pre  { type nat hook prerouting;  fib daddr type local, @published: dnat to the gateway }
 *     chain out  { type nat hook output;      the same }
 *     chain post { type nat hook postrouting; what a neighbour could not answer gets our end's address; masquerade }
 *     chain forward, icmp: from outside published ports only; no redirects
 *   }
 *
 * All of the choosing is done in the gateway (mesh_nft.h): the cost here does not grow with anything, and a change is
 * one element.
 */
#pragma once

#include "meshd/mesh_core.h"
#include "meshd/netlink/mesh_nfx.h"

struct mesh_keys { /* a set's elements, sorted */
    uint8_t *v;
    size_t n, len; /* of one */
};
void mesh_keys_done(struct mesh_keys *k);
void mesh_keys_add(struct mesh_keys *k, const void *key); /* anywhere; mesh_keys_sort() before use */
void mesh_keys_sort(struct mesh_keys *k);                 /* and takes out what is there twice */

enum mesh_host_set { MESH_HOST_PORTS, MESH_HOST_NODES, MESH_HOST_VNIS, MESH_HOST_SETS };
struct mesh_port_key {
    uint8_t proto, pad0[3];
    uint16_t port_be, pad1;
};

struct mesh_host {
    struct mesh_msg req, watch;
    struct nfx t;
    char link[16];
    uint16_t vxlan_port;
    struct mesh_keys want[MESH_HOST_SETS], have[MESH_HOST_SETS];
    uint64_t transactions, rebuilds;
};

int mesh_host_open(struct mesh_host *h, const char *link, struct err *e);
void mesh_host_close(struct mesh_host *h); /* leaves the table alone */

/* mesh_host_want - what a set should have from now on; takes the keys (sorted). */
void mesh_host_want(struct mesh_host *h, enum mesh_host_set set, struct mesh_keys *keys);

/* mesh_host_apply - carries out what has changed since, in one transaction. */
int mesh_host_apply(struct mesh_host *h, struct err *e);

/* mesh_host_sync - reads the table back and puts right what differs. */
int mesh_host_sync(struct mesh_host *h, bool *ret_rebuilt, struct err *e);

/* mesh_host_watch_read - true when someone else changed our table, or events were lost. */
bool mesh_host_watch_read(struct mesh_host *h);

/* mesh_host_drops - appends the names of other tables' forward chains that drop by default, as a JSON array. Whether a
 * rule of theirs lets our link through is not looked at. */
int mesh_host_drops(struct mesh_host *h, struct buf *out, unsigned *ret_count, struct err *e);
