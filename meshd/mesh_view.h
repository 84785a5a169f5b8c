/*
 * mesh_view.h - keeps this node's view of the swarm's networks (netmap.h) up to date: asks the leader's dispatcherd
 * through gatewayd, takes the answers in, and asks on once all of them is in the kernel.
 *
 * The view is also kept in the run folder, without the keys: a meshd that starts again while no manager can be reached
 * goes on with it. Nothing here runs periodically: outside of a swarm one long poll of gatewayd is waiting, in a swarm
 * one more of the leader.
 */
#pragma once

#include "meshd/netmap/netmap.h"

/* mesh_view_fn - the view has changed (netmap_next() says how) or was not carried out when last tried. Returns whether
 * the kernel now has all of it; when not, it is called again a little later. */
typedef bool mesh_view_fn(void *arg);

/* mesh_view_open - empty, or what the run folder has: to be known before anything in the kernel is put right. */
int mesh_view_open(struct err *e);
/* mesh_view_start - begins to ask. carry_out is called from the loop only, and once soon for what was loaded. */
int mesh_view_start(mesh_view_fn *carry_out, void *arg, struct err *e);
void mesh_view_stop(void);

struct netmap *mesh_view(void);
const char *mesh_view_self(void); /* this node's ID; empty: in no swarm */
bool mesh_view_linked(void);      /* a manager has answered since the start, and the last question did not fail */
void mesh_view_again(void);       /* calls carry_out soon: gossip has changed the view, or a part has something to do */

/* mesh_view_save / _load - all of the view but its keys as bytes, for tests and for the file. Loading makes a change of
 * everything; the next question then asks for everything. */
void mesh_view_save(const struct netmap *m, struct buf *out);
int mesh_view_load(struct netmap *m, struct str in, struct err *e);

/* For the probes: the view as JSON. */
void mesh_view_probe_networks(const char *args, struct buf *out);
void mesh_view_probe_endpoints(const char *args, struct buf *out); /* args: a network's name or ID, or empty */
