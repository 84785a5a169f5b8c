/*
 * gossip_world.h - many gossip cores in one process: their clocks, their network and the managers' store are replaced.
 *
 * The network loses, delays, doubles, reorders, alters and repeats packets, and may be cut in two. The managers' store
 * has entries with owners and revisions; nodes 0..2 hear its digest, and nodes on their side of a cut may fetch
 * records. The owner of an entry is told to set it, when it is there and can be told.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "meshd/gossip/gossip.h"
#include "meshd/gossip/keyring.h"

#define WORLD_KEYS_MAX 4096u

struct world_options {
    uint32_t nodes, keys;
    uint64_t seed;
    bool sealed;  /* packets go through key rings */
    bool skewed;  /* clocks run up to 5 % fast or slow, and are off by hours */
    bool checked; /* gossip_check() now and then */
    struct gossip_config conf;
};

struct world_net {
    uint32_t loss, twice, altered, repeated; /* of 1000 packets */
    uint64_t delay_min, delay_max;           /* ms */
};

struct world_sums { /* over all nodes that are up */
    uint64_t bytes, packets, died, refused, replayed, fetches, corrected, limited;
    uint32_t queued;
};

struct world;
struct world *world_new(const struct world_options *o);
struct world *world_free(struct world *w);
uint64_t world_rnd(struct world *w, uint64_t below);
uint64_t world_now(const struct world *w);
uint64_t world_hash(const struct world *w); /* of all that happened: the same for the same seed */
uint64_t world_events(const struct world *w);
void world_net(struct world *w, const struct world_net *net);
void world_run(struct world *w, uint64_t ms);

bool world_up(const struct world *w, uint32_t node);
bool world_listed(const struct world *w, uint32_t node); /* in the roster */
void world_crash(struct world *w, uint32_t node);
void world_start(struct world *w, uint32_t node);
void world_leave(struct world *w, uint32_t node);
void world_cut(struct world *w, uint32_t node, bool away); /* away from the managers' side */
void world_heal(struct world *w);
void world_list(struct world *w, uint32_t node, bool in); /* the managers add or remove it, with its entries */
void world_warm(struct world *w);   /* everybody knows that everybody is alive, without a packet */
void world_rotate(struct world *w); /* the next stage of a key rotation; not while the network is cut */

/* The store: key now belongs to owner (a new revision), or to nobody: UINT32_MAX. */
void world_assign(struct world *w, uint32_t key, uint32_t owner);

/* How many of the nodes that are up don't see a key as the store has it. */
uint32_t world_blind(const struct world *w, uint32_t key);
/* What is wrong with entries anywhere: "" when no node that is up sees what is not in the store. `absent_too`: when
 * they see exactly the store's entries of the nodes that are up. */
const char *world_entries(const struct world *w, bool absent_too);
/* The same of members. */
const char *world_members(const struct world *w);
uint32_t world_disagree(const struct world *w, uint32_t node); /* how many have a wrong opinion of it */
void world_sums(const struct world *w, struct world_sums *ret);
