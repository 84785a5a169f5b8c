/*
 * api_state.h - what this node is: outside of a swarm, joining one, a worker, a manager, a locked manager.
 *
 * gatewayd knows the node's identity, raftd whether its log is open, the map whether there is a store to read. apid
 * follows the three and answers from what it has seen last, so that asking costs nothing.
 */
#pragma once

#include <stdbool.h>

#include "common/proto/msg_gatewayd.h"
#include "common/store/store.h"
#include "common/util/err.h"

enum swarm_state {
    SWARM_INACTIVE,
    SWARM_PENDING, /* joining, or a first manager that has no certificate yet */
    SWARM_ERROR,   /* joining failed; gatewayd says why */
    SWARM_LOCKED,
    SWARM_WORKER,
    SWARM_BOOTING,  /* not known yet: gatewayd has not answered, or a manager's raftd has not said what it is */
    SWARM_STARTING, /* a manager by its certificate that has no store yet: it joins, or was promoted or demoted */
    SWARM_MANAGER,
};

/* What state_of() decides from; pure, for the tests. */
struct state_facts {
    bool initialized;         /* store_meta */
    bool known;               /* gatewayd has answered */
    struct str gateway, role; /* its State and Role */
    struct str raftd;         /* raftd's State; empty: it has not answered */
};
enum swarm_state state_of(const struct state_facts *f);

int state_open(struct err *e);
void state_close(void);
void state_turn(void); /* after each wake-up of the store */

enum swarm_state state_now(void);
bool state_locked(void);
const char *state_name(enum swarm_state s); /* LocalNodeState: "inactive", "pending", "error", "locked", "active" */

/* state_identity - what gatewayd said last; zeroed when it has not answered yet. Valid until the loop's next turn. */
const struct gw_identity_reply *state_identity(void);

/* state_settled - false while apid has only just started and gatewayd or raftd has not yet said what this node is. */
bool state_settled(void);

/* state_leaderless - for more than five seconds raftd has known nobody who leads: there is nothing to wait for. */
bool state_leaderless(void);

/* state_ask_raftd - looks again whether raftd is locked: who waits in api_wait() is woken when that changed. */
void state_ask_raftd(void);
