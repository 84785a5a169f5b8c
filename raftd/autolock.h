/*
 * autolock.h - keeps the keys on this node's disk as the swarm wants them.
 *
 * With autolock on, the credential STORE_UNLOCK_KEY_ID holds the unlock key ({"Key": "SWMKEY-1-..."}; cad makes it,
 * rotates and removes it): the data key is wrapped with that, and the kek leaves the disk. Without the credential the
 * kek is on the disk.
 */
#pragma once

#include "raftd/sm.h"

struct autolock {
    bool due;       /* something may have changed */
    uint64_t from;  /* nothing is believed before this much of the log is applied: the map may be older than the keys */
    uint64_t epoch; /* Rev of the unlock key that wraps the data key now; 0: none, the kek is on the disk */
    bool known;     /* epoch is */
};

/* autolock_open - after raft_log_open(). */
void autolock_open(struct autolock *a, const struct raft_log *l);

/* autolock_touch - for sm_on_touch(). */
void autolock_touch(struct autolock *a, enum kind kind, struct str id);

/*
 * autolock_follow - after each round of applying; costs nothing unless the credential was touched.
 *
 * A crash in between leaves the old or the new key good, and it is done again after the next start. On failure it
 * is still due (no space: call it again later), unless the credential holds no key (-ERR_INVALID).
 */
int autolock_follow(struct autolock *a, struct sm *sm, const struct raft_log *l, struct err *e);

/* autolock_unlock - opens a locked log with what somebody typed in; -ERR_DENIED "invalid key". */
int autolock_unlock(struct raft_log **ret, const char *dir, struct str text, struct err *e);
