/*
 * raft_log_priv.h - what raft_log.c and raft_log_seg.c share.
 *
 * A segment is a file of fixed size, written full of zeros and synced before it gets its name: a write into it changes
 * no metadata, so that fdatasync() is one write to the disk and not two (a third of the time of an LMDB commit, which
 * syncs data and then its meta page). It starts with a sealed record that says which segment it is. Then come groups,
 * each aligned to LOG_UNIT:
 *
 *   magic 4, length of the whole group 4, number 8, check 8
 *   (length 4, sealed record)*   first the state ('h'), then the parts of entries ('e')
 *   0xff up to the next unit
 *
 * A group is one raft_log_write(). It is synced before the next one is written, so only the last one can be unfinished:
 * parts of it are still zero then, which nothing sealed ever is for a whole unit (etcd's WAL goes by the same).
 * Anything else that does not verify is damage. `tail` holds the number of the last group that was synced, in two
 * slots, and is synced half a second after it changed (raft_log_tail_sync()): after a power cut it may be that old;
 * otherwise it tells when groups are gone from the end.
 */
#pragma once

#include <pthread.h>

#include "raftd/raft_log.h"

#define LOG_PATH_SIZE 512
#define LOG_UNIT 64u
#define LOG_SEG_HEAD 512u /* bytes before the first group */
#define LOG_GROUP_HEAD 24u
#define LOG_SEG_FIRST (64u << 10) /* each segment is twice as large as the one before, up to: */
#define LOG_SEG_MAX (8u << 20)
#define LOG_GROUP_MAX (240u << 20)
#define LOG_STATE_SIZE 36u

/* What was true before the first group of a segment. */
struct log_base {
    uint64_t seq; /* number of that group */
    struct raft_hard_state hs;
    uint64_t last, last_term;
};

struct log_seg {
    uint64_t no;
    int fd;
    size_t size, used;
    struct log_base base;
};

/* Where an entry is. */
struct log_slot {
    uint32_t seg, at; /* segment's number, offset of the first part's length */
    uint64_t term : 56, type : 8;
};

/* The next segment, made by a thread of its own while the current one fills up. */
struct log_prep {
    pthread_t thread;
    bool running, made; /* made: the file is there, empty */
    uint64_t no;
    size_t size;
    bool unnamed;
    int dir_fd, fd;
    int result; /* 0 or -errno */
    char head[LOG_SEG_HEAD];
};

struct raft_log {
    char dir[LOG_PATH_SIZE];
    int dir_fd, tail_fd;
    struct seal *seal;
    struct seal_key key;
    struct raft_log_identity id;
    struct raft_hard_state hs;
    uint64_t first, last, last_term;
    uint64_t snapshot_index, snapshot_term;
    uint64_t seq; /* of the next group */

    struct log_seg *segs; /* oldest first; the last one is written to */
    size_t n_segs;
    struct log_prep prep;
    struct log_slot *slots; /* entries first..last */
    size_t n_slots, cap_slots;

    struct buf group, small; /* the write at hand; the tail's record */
    struct buf window;       /* of a segment that is read */
    uint64_t window_seg;
    size_t window_at;
    bool broken, writing;
    bool unnamed;      /* being created: its folder is synced once, before it gets its name */
    uint64_t write_ns; /* when it began */
    struct raft_log_counts counts;
};

/* The fixed part of a group's state record, all big endian: seq 8, vote 8, last term 8, truncate from 8, records 4. */
struct log_group {
    uint64_t seq, vote, last, last_term, term, truncate_from;
    uint32_t records;
};

static inline struct log_seg *log_current(const struct raft_log *l)
{
    return &l->segs[l->n_segs - 1];
}

void log_seg_name(char name[32], uint64_t no, const char *suffix);
int log_dir_sync(const struct raft_log *l, struct err *e);

/* log_seg_add - the next segment becomes the current one; it has room for a group of n bytes. */
int log_seg_add(struct raft_log *l, size_t n, struct err *e);
/* log_seg_ahead - starts making the next one when it is time. */
void log_seg_ahead(struct raft_log *l);
void log_segs_drop(struct raft_log *l, uint64_t before_no); /* removes older ones */
void log_segs_close(struct raft_log *l);

/* log_group_build - l->group is the write's bytes, and *g what it says. */
int log_group_build(struct raft_log *l, const struct raft_log_write *w, const struct log_group *g, struct err *e);
/* log_group_put - into the current segment. On failure nothing of it is left there, or l->broken is set. */
int log_group_put(struct raft_log *l, struct err *e);
void log_group_apply(struct raft_log *l, const struct log_group *g);

uint32_t log_parts(const struct raft_log_entry *en);

int log_slots_reserve(struct raft_log *l, size_t n, struct err *e);
void log_slots_shrink(struct raft_log *l);
int log_slot_add(struct raft_log *l, uint64_t index, uint64_t term, unsigned type, const struct log_seg *s, size_t at,
                 struct err *e);
void log_slots_cut(struct raft_log *l, uint64_t from);
const struct log_slot *log_slot_at(const struct raft_log *l, uint64_t index);

/* log_segs_open - reads and verifies all segments from number `first_no` on, which `base` was true before. */
int log_segs_open(struct raft_log *l, uint64_t first_no, const struct log_base *base, struct err *e);

int log_tail_write(struct raft_log *l);
int log_tail_open(struct raft_log *l, bool create, uint64_t *ret_seq, struct err *e);

/* log_entry_read - appends the content of the entry at `at`. */
int log_entry_read(struct raft_log *l, const struct log_seg *s, size_t at, uint64_t index, struct buf *plain,
                   struct seal_header *ret, struct err *e);
