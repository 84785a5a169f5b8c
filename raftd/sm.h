/*
 * sm.h - the state machine: applies committed entries to the two maps, in the same way on every node.
 *
 * Whether a transaction holds is decided here, when it is applied, from nothing but the map and the entry. Documents
 * get ID, Version, Rev, CreatedAt and UpdatedAt; indexes, change log and meta are kept in the same LMDB transaction as
 * the applied index, so that a map is always the state after exactly so many entries.
 *
 * The two maps commit one after the other, the secret one first. If raftd dies between, the secret map is ahead:
 * sm_open() sees that, discards both, and they are made anew from snapshot and log.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/store/layout.h"
#include "common/util/cleanup.h"
#include "common/util/err.h"
#include "common/util/str.h"
#include "raftd/raft_log.h"

struct sm;

struct sm_conf {
    const char *run_dir;
    bool secret_private;    /* nobody else may open the secret map */
    gid_t secret_gid;       /* who may; -1: the process's group */
    uint64_t map_bytes;     /* 0: STORE_MAP_BYTES */
    uint64_t log_keep;      /* revisions in the change log; 0: STORE_LOG_KEEP */
    uint64_t log_bytes_max; /* pages of it, or 1/16 of the map; 0: STORE_LOG_BYTES */
};

/* Called for each object a transaction changed, once it is certain; op is 'c', 'u' or 'd'. */
typedef void sm_touch_fn(void *arg, enum kind kind, struct str id, char op, uint64_t revision);

/*
 * sm_open - reopens the maps of this log (@id; NULL: this node is in no swarm), or makes empty ones.
 *
 * @first, @last  what the log and snapshot can still replay: maps at an applied index outside of first-1..last are of
 * no use
 * @ret_fresh     the maps are empty, and invisible to readers until sm_publish(); restore the snapshot now
 * @ret_why       why older maps were discarded, for the log; "" otherwise
 */
int sm_open(struct sm **ret, const struct sm_conf *conf, const struct raft_log_identity *id, uint64_t first,
            uint64_t last, bool *ret_fresh, struct err *ret_why, struct err *e);
struct sm *sm_close(struct sm *sm);
DEFINE_CLEANUP(struct sm *, sm_close)
int sm_publish(struct sm *sm, struct err *e);
bool sm_published(const struct sm *sm);

void sm_on_touch(struct sm *sm, sm_touch_fn *fn, void *arg);

uint64_t sm_applied(const struct sm *sm); /* as committed to the maps */
uint64_t sm_applied_term(const struct sm *sm);
uint64_t sm_revision(const struct sm *sm);

/*
 * sm_apply - one entry, in order, within sm_begin() .. sm_commit().
 *
 * *result is what the one who asked is told: code 0 or why the transaction did not hold (then it changed nothing).
 * Returns 0, or an error that the entry has nothing to do with (no space, damage): call sm_abort() then, and nothing of
 * the batch has happened.
 */
int sm_begin(struct sm *sm, struct err *e);
int sm_apply(struct sm *sm, const struct raft_log_entry *en, struct err *result, uint64_t *ret_revision, struct err *e);
int sm_commit(struct sm *sm, struct err *e); /* on error the batch is gone, see sm_torn() */
void sm_abort(struct sm *sm);
bool sm_torn(const struct sm *sm); /* one map has the batch and the other hasn't: start again */

/* sm_set_role - what controllers go by. leader_id "" when unknown. */
int sm_set_role(struct sm *sm, uint64_t term, bool leader, const char *leader_id, struct err *e);

/* sm_members - appends the newest applied membership (META_MEMBERS); nothing when there is none. An entry of type
 * RAFT_ENTRY_MEMBERS holds the whole new membership in that form; snapshots carry it. */
void sm_members(struct sm *sm, struct buf *out);

bool sm_room(struct sm *sm, uint64_t bytes, uint64_t now_ms, struct err *e);

/* ---- snapshots ---- */
struct sm_snap; /* both maps at one applied index; may be used by one other thread */
int sm_snap_begin(struct sm *sm, struct sm_snap **ret, struct err *e);
struct sm_snap *sm_snap_end(struct sm_snap *snap);
uint64_t sm_snap_index(const struct sm_snap *snap);
void sm_snap_cancel(struct sm_snap *snap); /* from another thread: sm_snap_write() ends soon, with an error */
int sm_snap_write(struct sm_snap *snap, const char *dir, const struct seal_key *key, struct err *e);

/* sm_snap_next - record after record, as sm_snap_write() writes them; false: that was all, or *e says why not. */
bool sm_snap_next(struct sm_snap *snap, struct buf *record, struct err *e);
uint64_t sm_snap_term(const struct sm_snap *snap);
/* sm_snap_head - the first record, with another membership in it. */
void sm_snap_head(uint64_t revision, struct str members, struct buf *record);

/* sm_shrink - LMDB's file never gets smaller by itself: when more than half of a large map is unused, a compact copy
 * takes its place (readers notice, as they do with any new map). Not while a snapshot is held. */
int sm_shrink(struct sm *sm, bool *ret_done, struct err *e);

/* sm_restore - fills fresh maps from the snapshot that ends at index. */
int sm_restore(struct sm *sm, const char *dir, const struct seal_key *key, uint64_t index, uint64_t term,
               struct err *e);

/* ---- for probes ---- */
int sm_get(struct sm *sm, enum kind kind, struct str id, struct buf *out, struct err *e); /* appends the document */
typedef bool sm_list_fn(void *arg, struct str id, struct str doc);                        /* false: enough */
int sm_list(struct sm *sm, enum kind kind, sm_list_fn *fn, void *arg, struct err *e);
uint64_t sm_count(struct sm *sm, enum kind kind);

struct sm_reader {
    int pid;
    uint64_t lag;    /* commits since its snapshot */
    uint64_t age_ms; /* since the first of them; 0 when it is current */
};
/* sm_readers - processes that hold a snapshot now; returns how many there were, at most max. */
size_t sm_readers(struct sm *sm, uint64_t now_ms, struct sm_reader *v, size_t max);
unsigned sm_clear_readers(struct sm *sm);     /* slots of dead processes */
void sm_tick(struct sm *sm, uint64_t now_ms); /* after commits: remembers when which commit was, for age_ms */
uint64_t sm_used_bytes(const struct sm *sm);
