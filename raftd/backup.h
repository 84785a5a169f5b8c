/*
 * backup.h - the whole store as one sealed file, made while writes go on, and a swarm started from one.
 *
 * A backup is read and written in pages, in order, by offset; the page before may be asked for or sent once more. It
 * holds documents, secrets included, the membership and the revision, as of one applied entry. Everything behind the
 * header is sealed in chunks (seal.h), each bound to its place and the last one marked; the key comes from a passphrase
 * (scrypt, RFC 7914, then HKDF, RFC 5869, over the header), so an altered header opens nothing either.
 *
 * On disk, big endian:  "MSBACKUP" 8, version 2, log2 of scrypt's N 1, r 1, p 1, zero 3, salt 16
 *                       (length 4, sealed chunk)*     chunks hold (length 4, record)*: first about the backup itself
 *                                                     {"cluster", "index", "term", "At"}, then as in a snapshot
 */
#pragma once

#include "raftd/sm.h"

#define BACKUP_HEADER 32u
#define BACKUP_PAGE (512u << 10) /* about as much comes at a time */

struct backup;

/* backup_begin - of what is applied now. Takes about 0.1 s of one CPU for the key. -ERR_INVALID: no passphrase. */
int backup_begin(struct backup **ret, struct sm *sm, const struct raft_log_identity *id, struct str passphrase,
                 struct err *e);
/* backup_page - the page at `offset`, borrowed until the next call. -ERR_INVALID for any but the next one and the last.
 */
int backup_page(struct backup *b, uint64_t offset, struct str *ret, bool *ret_last, struct err *e);
struct backup *backup_free(struct backup *b); /* before sm_close() */
DEFINE_CLEANUP(struct backup *, backup_free)

struct restore;

/* restore_begin - `dir` is <state>/raft of a node without a log; what arrives is kept there, sealed as it comes. */
int restore_begin(struct restore **ret, const char *dir, struct str passphrase, struct err *e);
/* restore_put - verified chunk by chunk: -ERR_DENIED when the passphrase is not the one, -ERR_CORRUPT naming the chunk
 * that is altered, -ERR_INVALID when this is no backup, of a version not known, or not the page that is due. */
int restore_put(struct restore *r, uint64_t offset, struct str data, struct err *e);
/* restore_finish - after the last page: a log that begins with the backup, and this node as its only member. */
int restore_finish(struct restore *r, struct str node_id, struct str addr, struct err *e);
struct restore *restore_free(struct restore *r); /* removes what was kept */
DEFINE_CLEANUP(struct restore *, restore_free)

/* restore_clean - what a crash in the middle left behind. */
void restore_clean(const char *dir);
