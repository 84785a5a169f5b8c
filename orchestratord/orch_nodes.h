/*
 * orch_nodes.h - what this daemon remembers of the nodes: whether they take tasks, what constraints can ask about them,
 * and whether the tasks of a dead one are moved at once or little by little. All of it can be read from the store
 * again.
 *
 * Limit on mass rescheduling: when more than a share of the nodes went down within a minute, it is more likely that
 * something between us and them is broken than that they all died, and starting everything anew on what is left would
 * make it worse. Those nodes are held: their tasks are moved at a limited rate, and stay when a node comes back first.
 */
#pragma once

#include "common/object/constraint.h"
#include "common/util/arena.h"
#include "common/util/table.h"
#include "orchestratord/orch_core.h"

#define ORCH_MASS_WINDOW_NS 60000000000ll /* nodes that went down within so long went down together */

struct orch_node {
    bool down, drain, open; /* open: active and ready */
    bool held;              /* down with too many others */
    int64_t down_ns;        /* wall: since when */
    uint64_t traits;        /* a print of all that constraints can be about */
    struct view_node *view; /* those traits only; one block */
};

struct orch_nodes {
    struct table all;         /* node ID -> struct orch_node */
    struct orch_node **order; /* by ID; rebuilt when nodes come and go */
    size_t norder;
    bool stale;     /* the order is */
    bool all_known; /* after a reload: shares can be told */

    uint64_t mass_percent, mass_rate; /* settings: more than this share; tasks a second */
    size_t ndown, nheld;
    int64_t mass_ns; /* when one of them went down and there were too many */
    double tokens;   /* moves that are allowed now; at most those of a second */
    int64_t tokens_ns;
};

void orch_nodes_init(struct orch_nodes *m);
void orch_nodes_clear(struct orch_nodes *m);
void orch_nodes_done(struct orch_nodes *m);

enum { ORCH_NODE_SAME = 0, ORCH_NODE_TASKS = 1, ORCH_NODE_PLACES = 2 }; /* what a change matters to; a set */

/* orch_node_learn - what has changed. @down_ns: if it is down, since when. */
unsigned orch_node_learn(struct orch_nodes *m, struct str id, const struct view_node *v, int64_t down_ns);
unsigned orch_node_forget(struct orch_nodes *m, struct str id);

/* orch_nodes_review - after all were learned: which of those that are down went down together. */
void orch_nodes_review(struct orch_nodes *m);

const struct orch_node *orch_node_get(const struct orch_nodes *m, struct str id);

/* orch_nodes_places - where a global service with this placement may be, sorted; in @a. */
struct orch_place *orch_nodes_places(struct orch_nodes *m, const struct view_placement *p, struct arena *a,
                                     size_t *ret_n);

/* orch_may_move - true when one more task of a held node may be moved now. */
bool orch_may_move(struct orch_nodes *m, int64_t now_ns);
/* orch_moves_left - how many may be moved now. */
size_t orch_moves_left(struct orch_nodes *m, int64_t now_ns);
/* orch_moves_wait_ns - when none may: how long until it is worth asking again. */
int64_t orch_moves_wait_ns(const struct orch_nodes *m);
