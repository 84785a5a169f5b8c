/*
 * map.h - one of the two LMDB environments on tmpfs that raftd writes and the others read (common/store/layout.h).
 *
 * They are not synced: what they hold comes out of the log again. LMDB writes its meta page last, so a process killed
 * at any point leaves the previous commit in place. Not MDB_WRITEMAP: pages go out by pwrite(), so a full tmpfs is an
 * error and not a SIGBUS, and a stray pointer can't reach what other processes read.
 */
#pragma once

#include <lmdb.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/store/layout.h"
#include "common/util/err.h"
#include "common/util/str.h"

#define MAP_PATH_MAX 256

struct map {
    char dir[MAP_PATH_MAX]; /* <run>/state or <run>/secret */
    bool secret;
    bool published; /* at its path; else still in the folder "new" below it */
    gid_t gid;      /* of folder and files; -1: the process's own */
    bool private;   /* nobody but us */
    MDB_env *env;
    MDB_dbi kind[KIND_COUNT], index[IX_COUNT], log, meta;
    MDB_txn *txn; /* the open write transaction; NULL: none */
};

/* map_open - what is at the path. -ERR_NOT_FOUND when there is nothing, -ERR_CORRUPT when it can't be used. */
int map_open(struct map *m, uint64_t size, struct err *e);

/* map_create - an empty one, not yet visible. Its databases exist only once the first transaction is committed: begun
 * here and left open, for the caller to write meta in it. */
int map_create(struct map *m, uint64_t size, struct err *e);

/* map_publish - puts it at the path, in place of what is there. */
int map_publish(struct map *m, struct err *e);
void map_close(struct map *m);

int map_begin(struct map *m, struct err *e);
int map_commit(struct map *m, struct err *e);
void map_abort(struct map *m);
int map_failed(const struct map *m, int rc, const char *what, struct err *e);

/* Reads and writes within a transaction. map_get: -ERR_NOT_FOUND when it isn't there. */
int map_get(const struct map *m, MDB_txn *txn, MDB_dbi dbi, struct str key, struct str *ret);
int map_put(struct map *m, MDB_dbi dbi, struct str key, struct str val, struct err *e);
/* map_append - @key is behind all others: the pages get full. */
int map_append(struct map *m, MDB_dbi dbi, struct str key, struct str val, struct err *e);
int map_del(struct map *m, MDB_dbi dbi, struct str key, struct err *e); /* absent is fine */

uint64_t map_meta_u64(const struct map *m, MDB_txn *txn, const char *name); /* 0 when absent */
int map_meta_put_u64(struct map *m, const char *name, uint64_t v, struct err *e);
int map_meta_put_bool(struct map *m, const char *name, bool v, struct err *e);
int map_meta_put_str(struct map *m, const char *name, const char *v, struct err *e);

/* map_room - false when neither the file system nor the map's size has room for `bytes` more. */
bool map_room(const struct map *m, uint64_t bytes, struct err *e);

/* map_sparse - large, and more than half of it unused. map_compact - a copy without that takes its place; on failure
 * the map is as it was, or closed (env NULL) when it could not be opened again. */
bool map_sparse(const struct map *m);
int map_compact(struct map *m, uint64_t size, struct err *e);
uint64_t map_used_bytes(const struct map *m);
