/*
 * members.h - the Raft group with what the core does not know: which node a member is, and where it listens.
 *
 * An entry of type RAFT_ENTRY_MEMBERS holds the whole list, in the form of META_MEMBERS (common/store/layout.h).
 */
#pragma once

#include <stdbool.h>

#include "common/util/err.h"
#include "common/util/str.h"
#include "raftd/core/raft.h"

struct member {
    raft_id id;
    bool learner;
    char node[65];
    char addr[301]; /* host:port; may be empty */
};

struct members {
    size_t n;
    struct member v[RAFT_MEMBERS_MAX];
};

void members_encode(const struct members *m, struct buf *out);

/* members_decode - empty input is an empty group. -ERR_CORRUPT when the list is malformed or names a member twice. */
int members_decode(struct members *ret, struct str in, struct err *e);

struct raft_members members_ids(const struct members *m);

/* NULL when there is none. */
struct member *members_by_id(struct members *m, raft_id id);
struct member *members_by_node(struct members *m, struct str node);

/* members_join - @ids as the core has decided them, with nodes and addresses of @known; @extra (may be NULL) is a
 * member that is new, or whose address is. False when an id is known nowhere. */
bool members_join(struct members *ret, const struct raft_members *ids, struct members *known,
                  const struct member *extra);
