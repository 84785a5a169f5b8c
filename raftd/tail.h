/*
 * tail.h - the newest entries of the log in memory: those on their way to the disk, and some before them, so that
 * sending and applying need not read and open what was written a moment ago.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/util/str.h"
#include "raftd/raft_log.h"

/* Bytes that several entries share. */
struct block;
struct block *block_new(size_t n, char **ret_bytes); /* one reference, the caller's */
struct block *block_take(struct buf *b);             /* the buffer's memory; the buffer is empty afterwards */
void block_drop(struct block *b);

struct tail {
    struct tail_slot *v; /* a ring */
    size_t cap, n, head;
    uint64_t first; /* index of the oldest; with n = 0: meaningless */
    size_t bytes;
};

/* tail_add - the entry after the last one (any, when it is empty); its data lies in @b, which gets a reference. */
void tail_add(struct tail *t, const struct raft_log_entry *en, struct block *b);
bool tail_get(const struct tail *t, uint64_t index, struct raft_log_entry *ret);
void tail_truncate(struct tail *t, uint64_t from);
void tail_evict(struct tail *t, uint64_t upto, size_t keep_bytes, size_t keep_entries); /* oldest first */
void tail_clear(struct tail *t);
