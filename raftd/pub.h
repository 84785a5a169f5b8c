/*
 * pub.h - what raftd tells everybody: that there is something new (<run>/raftd.wake), and what (<run>/raftd.events).
 *
 * Both are PUB sockets and may drop: readers go by the map. Events are made only while somebody listens, one line of
 * JSON per message, without content.
 */
#pragma once

#include <stdint.h>

#include "common/store/layout.h"
#include "common/util/cleanup.h"
#include "common/util/err.h"
#include "common/util/str.h"

struct pub;
int pub_open(struct pub **ret, const char *run_dir, struct err *e);
struct pub *pub_close(struct pub *p);
void pub_wake(struct pub *p, uint64_t revision);
void pub_event(struct pub *p, enum kind kind, struct str id, char op, uint64_t revision);
void pub_role(struct pub *p, const char *role, uint64_t term);
