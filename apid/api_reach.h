/*
 * api_reach.h - which managers the leader reaches, as events.
 *
 * The store does not have it: only the leader's raftd knows. So it is asked every other second, and only while somebody
 * listens to events of nodes; without a listener this costs nothing.
 */
#pragma once

#include <stdbool.h>

#include "apid/api_members.h"

/* reach_watch - somebody listens, or nobody any more. */
void reach_watch(bool wanted);

/* reach_soon - a node has changed: looks now, if anybody listens. */
void reach_soon(void);

void reach_close(void);

/* reach_compare - tells of each voter of both whose reachability is another now. Pure. */
typedef void reach_tell_fn(void *arg, const struct manager *now);
void reach_compare(const struct managers *old, const struct managers *now, reach_tell_fn *tell, void *arg);
