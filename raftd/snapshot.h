/*
 * snapshot.h - a snapshot as a file: records in sealed chunks, each chunk bound to its place, the last one marked.
 *
 * A file gets its name only when it is whole and durable; which one counts is for the log to say
 * (raft_log_compact()). What the records mean is the state machine's business.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/util/cleanup.h"
#include "common/util/err.h"
#include "common/util/str.h"
#include "raftd/seal.h"

#define SNAPSHOT_CHUNK (128u << 10)

struct snapshot_writer;

/* May be used from one other thread: it shares nothing. */
int snapshot_create(struct snapshot_writer **ret, const char *dir, const struct seal_key *key, uint64_t index,
                    uint64_t term, struct err *e);
int snapshot_put(struct snapshot_writer *w, struct str record, struct err *e);
int snapshot_finish(struct snapshot_writer *w, struct err *e);     /* syncs and names the file */
struct snapshot_writer *snapshot_close(struct snapshot_writer *w); /* removes an unfinished file */
DEFINE_CLEANUP(struct snapshot_writer *, snapshot_close)

/* snapshot_read - each record in order. -ERR_CORRUPT names file and chunk; fn's error ends it. */
typedef int snapshot_record_fn(void *arg, struct str record, struct err *e);
int snapshot_read(const char *dir, const struct seal_key *key, uint64_t index, uint64_t term, snapshot_record_fn *fn,
                  void *arg, struct err *e);
int snapshot_verify(const char *dir, const struct seal_key *key, uint64_t index, uint64_t term, struct err *e);

/*
 * Between managers a snapshot travels as chunks of its content (the link is encrypted), and each node seals its own
 * file with its own key. The parts count from 0, all but the last have SNAPSHOT_CHUNK bytes.
 */
struct snapshot_reader;
/* snapshot_open - stays readable until it is closed, also when a newer snapshot has replaced it. */
int snapshot_open(struct snapshot_reader **ret, const char *dir, const struct seal_key *key, uint64_t index,
                  uint64_t term, struct err *e);
int snapshot_chunk(struct snapshot_reader *r, uint32_t part, struct buf *plain, bool *ret_last, struct err *e);
uint64_t snapshot_size(const struct snapshot_reader *r); /* content in bytes */
struct snapshot_reader *snapshot_reader_close(struct snapshot_reader *r);
DEFINE_CLEANUP(struct snapshot_reader *, snapshot_reader_close)

/* snapshot_receive - the writer for what arrives; snapshot_finish() when it is whole, then raft_log_install(). */
int snapshot_receive(struct snapshot_writer **ret, const char *dir, const struct seal_key *key, uint64_t index,
                     uint64_t term, struct err *e);
/* snapshot_put_chunk - the next part; -ERR_INVALID when it is not the one that is due, or of the wrong size. */
int snapshot_put_chunk(struct snapshot_writer *w, uint32_t part, struct str plain, bool last, struct err *e);
uint32_t snapshot_next_part(const struct snapshot_writer *w);

/* snapshot_clean - removes every snapshot, whole or not, but the one that ends at `keep`. */
void snapshot_clean(const char *dir, uint64_t keep);
/* snapshot_clean_older - whole ones before `keep` only: others may be on their way. */
void snapshot_clean_older(const char *dir, uint64_t keep);
void snapshot_remove(const char *dir, uint64_t index);
