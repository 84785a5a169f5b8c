/*
 * mesh_gossip.h - gossip between the nodes' meshds, on UDP 7946: who is gone, and which tasks take nothing new, sooner
 * than the managers can say it, and also while there are none to say it.
 *
 * The pure core is gossip/; this is its socket, its keys and its roster (both from the netmap: nobody whom the managers
 * do not list is listened to), and what follows from it: netmap_node_dead() and netmap_withdraw().
 *
 * Gossip only takes away, and not for ever: the managers hear of a node through its agentd. When they can be asked and
 * still say, MESH_GOSSIP_TRUST_MS after a node fell silent here, that its tasks are ready, then only its meshd is down,
 * and its containers go on getting traffic. And a node that hears of less than half of the others takes itself for the
 * one that is cut off, and nobody for dead.
 */
#pragma once

#include <systemd/sd-event.h>

#include "meshd/netmap/netmap.h"

#define MESH_GOSSIP_PORT 7946
#define MESH_GOSSIP_TRUST_MS 10000u

struct mesh_gossip;

struct mesh_gossip_ops {
    void (*changed)(void *arg);  /* the netmap has changes: walk netmap_next() */
    bool (*managers)(void *arg); /* could they be asked just now? */
};

int mesh_gossip_open(struct mesh_gossip **ret, sd_event *loop, struct netmap *map, uint16_t port,
                     const struct mesh_gossip_ops *ops, void *arg, struct err *e);
struct mesh_gossip *mesh_gossip_free(struct mesh_gossip *g);

/* mesh_gossip_self - which node this is; "": in no swarm, then nothing is sent or heard. */
void mesh_gossip_self(struct mesh_gossip *g, struct str node);

/* mesh_gossip_roster - nodes, their addresses or keys in the netmap changed. */
void mesh_gossip_roster(struct mesh_gossip *g);

/* mesh_gossip_withdraw - a task of this node takes nothing new (or does again). It stays withdrawn when it is gone, for
 * those who still have it in their maps; mesh_gossip_tidy() takes that back once the map has no such task any more. */
void mesh_gossip_withdraw(struct mesh_gossip *g, struct str task, bool withdrawn);
void mesh_gossip_tidy(struct mesh_gossip *g, bool (*here)(void *arg, struct str task), void *arg);

/* mesh_gossip_members - JSON, for the probe. mesh_gossip_metrics - Prometheus lines. */
void mesh_gossip_members(const struct mesh_gossip *g, struct buf *out);
void mesh_gossip_metrics(const struct mesh_gossip *g, struct buf *out);
