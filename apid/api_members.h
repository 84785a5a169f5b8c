/* api_members.h - the managers as one look at Raft's membership shows them. */
#pragma once

#include "apid/api.h"

struct manager {
    char node[72], addr[304];
    bool leader, reachable, learner;
};
struct managers {
    struct manager v[STORE_MEMBERS_MAX];
    size_t n, voters, reachable; /* voters that are reachable */
};

/* managers_ask - asks the leader (through the local raftd) and goes on with fn; e->code tells when nobody knows: then
 * the members are those of the map, with unknown reachability. */
typedef void managers_fn(struct req *r, const struct managers *m, const struct err *e);
void managers_ask(struct req *r, managers_fn *fn);

/* managers_tell - the same for who is no request. */
typedef void managers_told_fn(void *arg, const struct managers *m, const struct err *e);
void managers_tell(managers_told_fn *fn, void *arg);

/* managers_of_map - what the map says: nobody is reachable but its leader. */
void managers_of_map(struct store_snap *snap, const struct store_meta *meta, struct managers *ret);

const struct manager *managers_find(const struct managers *m, struct str node);

/* managers_can_lose - would the rest without this node still have a quorum that is reachable? Pure. */
bool managers_can_lose(const struct managers *m, struct str node);

/* managers_warning - what is to be said of that many managers: Docker's words for two, ours for other even numbers (in
 * buf); NULL for nothing. */
const char *managers_warning(size_t managers, char *buf, size_t cap);
