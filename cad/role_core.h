/*
 * role_core.h - from the roles that are wanted to the roles that nodes have, one safe step at a time. Pure.
 *
 * A node becomes a manager by its role alone: its certificate follows, then it joins the Raft group by itself. It stops
 * being one in the other order: out of the group first (raftd refuses what would lose quorum), then the role. Whoever
 * is in the group without being wanted there (its record is gone, or it slipped in again with an old certificate) is
 * taken out. Every step is decided from the store as it is, so it does not matter where a leader before us stopped.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/util/err.h"
#include "common/util/table.h"

#define ROLE_NEVER INT64_MAX

struct role_view {
    struct str id;
    bool known;        /* has a record */
    bool want_manager; /* Spec.Role */
    bool has_role, is_manager;
    bool member, learner; /* of the Raft group */
    bool self;            /* this node, the leader */
};

enum role_do {
    ROLE_NOTHING,
    ROLE_SET_MANAGER,
    ROLE_SET_WORKER,
    ROLE_REMOVE, /* ask raftd to take it out of the group; answer with role_answer() */
    ROLE_REFUSE, /* it is the last manager */
};

struct role_core {
    struct table tries;  /* node ID -> struct role_try */
    struct str removing; /* NULL: no removal under way. Borrowed from `tries` */
};

void role_init(struct role_core *c);
void role_done(struct role_core *c);
void role_clear(struct role_core *c); /* not leader any more: what is under way is not ours */

/* role_step - the next step for one node. `managers` says how many members are voters. *next_ns becomes smaller when
 * this node is to be looked at again without a change. */
enum role_do role_step(struct role_core *c, const struct role_view *v, unsigned voters, int64_t now_ns,
                       int64_t *next_ns);

/* role_started, role_answer - the removal is under way; what came of it. */
void role_started(struct role_core *c, struct str id);
void role_answer(struct role_core *c, struct str id, bool ok, int64_t now_ns);

/* role_again - what was wanted of the node has changed: no waiting. */
void role_again(struct role_core *c, struct str id);

/* role_tries - how often its removal has failed in a row. */
unsigned role_tries(const struct role_core *c, struct str id);
