/*
 * gw_lock.h - autolock and this node's key: sealed on the disk while managers lock themselves, in plain text otherwise.
 *
 * raftd says what it made of its own keys (op_raftd_node_key), and this daemon follows it: the key is sealed once with
 * the unlock key, which cad knows, and once with a text that raftd derives from its data key. The second one opens it
 * without anybody's help as long as raftd's store is open, so a gatewayd that restarts needs no operator, and a crash
 * at any point between the two daemons' rewrapping leaves a key that opens with whatever opens the store. The first one
 * is for a node whose store is gone (demoted, and powered off before it had its new certificate).
 */
#pragma once

#include "common/daemon/rpc.h"
#include "gatewayd/gw_cert.h"

int gw_lock_init(struct err *e);
void gw_lock_done(void);

/* gw_lock_seal - what keys are to be sealed with when they are written; none: not. */
const struct gw_seal *gw_lock_seal(void);

/* gw_lock_found - the key that was read (or would have been) is sealed, or is not. */
void gw_lock_found(bool sealed);

/* gw_lock_look - role, store or unlock key may have changed. */
void gw_lock_look(void);

/* gw_lock_undecided - the node's key is sealed, and raftd has not said yet whether it can open it. */
bool gw_lock_undecided(void);

/* gw_lock_forget - the node has left: there is no key any more. */
void gw_lock_forget(void);

/* gw_lock_unlock - with what somebody typed in. Answers @c. */
void gw_lock_unlock(struct rpc_call *c, struct str key);

void gw_lock_json(struct buf *out);
