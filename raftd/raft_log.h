/*
 * raft_log.h - the Raft log, term, vote and snapshots of this node on disk, every record sealed (seal.h).
 *
 * One folder, <state>/raft/log/: segments (seg-<number>) with the entries, `anchor` and `tail` that say where they
 * begin and end, kek and data.key, snap-<index>. It appears under its name as a whole: a log that is there is complete,
 * and anything missing from it is damage. Nothing else in raftd knows how entries are stored, so that another format
 * can take its place.
 *
 * A write is one group in a preallocated file and one fdatasync(), and happens as a whole or not at all. Errors:
 * -ERR_IO or -ERR_NOMEM, and then nothing was kept; only when raft_log_broken() says so is the outcome unknown, and the
 * process must start again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/util/cleanup.h"
#include "common/util/err.h"
#include "common/util/str.h"
#include "raftd/core/raft.h"
#include "raftd/seal.h"

#define RAFT_LOG_CHUNK (128u << 10) /* a larger entry is stored in parts */
#define RAFT_LOG_DIR "log"

struct raft_log_identity {
    char cluster_id[65], node_id[65];
    raft_id id;
};

struct raft_log_entry {
    uint64_t index, term;
    enum raft_entry_type type;
    struct str data;
};

struct raft_log_write {
    uint64_t truncate_from;               /* 0: nothing to remove */
    const struct raft_log_entry *entries; /* in order, after what is there */
    size_t n_entries;
    const struct raft_hard_state *hard_state; /* NULL: unchanged */
};

struct raft_log_counts {
    uint64_t writes, bytes; /* commits, and content in them, since opening */
    uint64_t write_ns_max, write_ns_sum;
    uint64_t file_bytes; /* of all segments */
};

struct raft_log;

/* raft_log_exists - false also clears away what a crash while creating or erasing left behind. `dir` is <state>/raft.
 */
bool raft_log_exists(const char *dir);

/* raft_log_create - a new log with its first entry, in term `hs->term`, durable and under its name on success. */
int raft_log_create(const char *dir, const struct raft_log_identity *id, const struct raft_hard_state *hs,
                    struct str first_entry, struct err *e);

/* raft_log_create_with - the same with any entries, in order from 1; none for a member that joins: the leader sends
 * them. `hs->term` may be 0 then. */
int raft_log_create_with(const char *dir, const struct raft_log_identity *id, const struct raft_hard_state *hs,
                         const struct raft_log_entry *entries, size_t n_entries, struct err *e);

/* raft_log_create_snapshot - a new log that begins behind a snapshot at `index` and `term`, whose records `fill` puts.
 */
struct snapshot_writer;
typedef int raft_log_fill_fn(void *arg, struct snapshot_writer *w, struct err *e);
int raft_log_create_snapshot(const char *dir, const struct raft_log_identity *id, const struct raft_hard_state *hs,
                             uint64_t index, uint64_t term, raft_log_fill_fn *fill, void *arg, struct err *e);

/* raft_log_erase - the whole folder. A crash in the middle leaves either the log or what raft_log_exists() clears. */
int raft_log_erase(const char *dir, struct err *e);

/*
 * raft_log_open - reads and verifies all of it, snapshot included.
 *
 * Returns 0, or -ERR_CORRUPT naming the record or file that is missing, cut or altered, or -ERR_IO.
 */
int raft_log_open(struct raft_log **ret, const char *dir, struct err *e);

/* raft_log_locked - autolock has taken the key-encryption key off the disk: raft_log_open_with() needs the unlock key.
 */
bool raft_log_locked(const char *dir);
/* raft_log_open_with - also -ERR_DENIED when `kek` is not the key. NULL: the one on the disk. */
int raft_log_open_with(struct raft_log **ret, const char *dir, const struct seal_key *kek, struct err *e);
struct raft_log *raft_log_close(struct raft_log *l);
DEFINE_CLEANUP(struct raft_log *, raft_log_close)

const struct raft_log_identity *raft_log_identity(const struct raft_log *l);

/* raft_log_state - `applied` stays 0: that is for the state machine to say. */
void raft_log_state(const struct raft_log *l, struct raft_log_state *ret);
uint64_t raft_log_term(struct raft_log *l, uint64_t index); /* 0: no such entry */

/* raft_log_members_at - the newest RAFT_ENTRY_MEMBERS entry up to `index`; 0: none in the log, the snapshot has it. */
uint64_t raft_log_members_at(const struct raft_log *l, uint64_t index);

int raft_log_write(struct raft_log *l, const struct raft_log_write *w, struct err *e);

/*
 * The same in three steps, for a caller that does other things meanwhile. raft_log_begin_write() hands the bytes to the
 * kernel and counts the entries in: they can be read, but not yet relied upon. raft_log_sync() may run in another
 * thread, and touches nothing but the file. raft_log_end_write() gets what it returned. One write at a time.
 */
int raft_log_begin_write(struct raft_log *l, const struct raft_log_write *w, struct err *e);
int raft_log_sync(const struct raft_log *l);

/* raft_log_tail_sync - makes durable how far the log goes: damage that zeroes its end is noticed from then on. Without
 * @wait it is only begun. Not while something is written. */
void raft_log_tail_sync(const struct raft_log *l, bool wait);
int raft_log_end_write(struct raft_log *l, int sync_result, struct err *e);

/* raft_log_read - ret->data lies in `scratch`, which is emptied first. */
int raft_log_read(struct raft_log *l, uint64_t index, struct buf *scratch, struct raft_log_entry *ret, struct err *e);

/*
 * raft_log_compact - the snapshot file that ends at `index` is complete: remember it, drop the older one, and remove
 * entries before `keep_from`, at most `max` of them per call. *ret_more: call again. Space comes back in whole
 * segments.
 */
int raft_log_compact(struct raft_log *l, uint64_t index, uint64_t keep_from, unsigned max, bool *ret_more,
                     struct err *e);

/* raft_log_set_id - from now on this log is another member's (force-new-cluster). */
int raft_log_set_id(struct raft_log *l, raft_id id, struct err *e);

/*
 * raft_log_install - the snapshot file at `index` and `term` (snapshot_receive()) takes the place of what this log has.
 *
 * It is verified first. Entries behind it are kept when the log has the entry at `index` with that term, else the log
 * goes on empty after it (Raft §7). Either all of that has happened, or nothing.
 */
int raft_log_install(struct raft_log *l, uint64_t index, uint64_t term, struct err *e);

bool raft_log_broken(const struct raft_log *l);
void raft_log_counts(const struct raft_log *l, struct raft_log_counts *ret);

/* For snapshot.c: where the files are, and the key to seal them with. */
const char *raft_log_dir(const struct raft_log *l);
const struct seal_key *raft_log_key(const struct raft_log *l);
