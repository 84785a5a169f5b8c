/*
 * seal.h - what raftd writes to disk is sealed: nobody can read it, and nobody can change, cut, move or swap a record
 * unnoticed.
 *
 * A record is a header in the clear, bound to its content by AES-256-GCM (the header is the associated data), so that a
 * record is only good under its own type, index, term and part. The key of a record is derived from the data key and a
 * salt that each process draws when it starts; the nonce counts up. So no nonce repeats under a key, without any state
 * that would have to survive a crash.
 *
 * The data key is kept wrapped by a key-encryption key (kek). Both are files beside the log; autolock takes the latter
 * off the disk: then the swarm's unlock key is the kek, and nothing on the disk opens the log.
 */
#pragma once

#include <stdint.h>

#include "common/util/cleanup.h"
#include "common/util/err.h"
#include "common/util/str.h"

#define SEAL_KEY_SIZE 32u
#define SEAL_ID_SIZE 16u
#define SEAL_HEADER_SIZE 52u
#define SEAL_TAG_SIZE 16u
#define SEAL_OVERHEAD (SEAL_HEADER_SIZE + SEAL_TAG_SIZE)

struct seal_key {
    uint8_t b[SEAL_KEY_SIZE];
};

/* The last part of something in several parts says so: cutting parts off the end does not go unnoticed. */
struct seal_header {
    char type;
    uint8_t entry_type;
    uint64_t index, term;
    uint32_t part, parts; /* parts 0: more follow, the number isn't known yet */
};

struct seal;
int seal_new(struct seal **ret, const struct seal_key *data_key, struct err *e);
struct seal *seal_free(struct seal *s);
DEFINE_CLEANUP(struct seal *, seal_free)

/* seal_put - appends one sealed record to `out`; -ERR_NOMEM when that is full. */
int seal_put(struct seal *s, const struct seal_header *h, struct str plain, struct buf *out, struct err *e);

/* seal_header - the header alone, not authenticated yet; false when the bytes are too few or of another version. */
bool seal_header(struct str sealed, struct seal_header *ret);

/* seal_take - appends the content to `plain`. -ERR_CORRUPT when a single bit is wrong. */
int seal_take(struct seal *s, struct str sealed, struct seal_header *ret, struct buf *plain, struct err *e);

/* seal_key_id - tells a wrong data key from an altered record; says nothing about the key itself. */
void seal_key_id(const struct seal_key *k, uint8_t id[SEAL_ID_SIZE]);

#define SEAL_KEK_FILE "kek"
#define SEAL_DATA_KEY_FILE "data.key"

/* seal_keys_create - draws both keys and writes them into `dir`, a new folder: the caller syncs that. */
int seal_keys_create(const char *dir, struct seal_key *ret, struct err *e);

/* seal_keys_read - -ERR_CORRUPT when one is missing, cut, altered or does not belong to the other; names the file. */
int seal_keys_read(const char *dir, struct seal_key *ret, struct err *e);

/* seal_keys_locked - the kek is not on the disk, and is not meant to be. */
bool seal_keys_locked(const char *dir);

/* seal_keys_unlock - with a kek that somebody typed in; -ERR_DENIED "invalid key" when it is not the one. */
int seal_keys_unlock(const char *dir, const struct seal_key *kek, struct seal_key *ret, struct err *e);

/*
 * seal_keys_rewrap - from now on the data key is wrapped by `kek`, which is not on the disk; NULL: by a new one that
 * is.
 *
 * While it is under way data.key is wrapped twice: a crash leaves the old or the new kek good, or both.
 */
int seal_keys_rewrap(const char *dir, const struct seal_key *data_key, const struct seal_key *kek, struct err *e);

/* seal_keys_wrapped_by - is this kek, and no other, what opens the data key now? */
bool seal_keys_wrapped_by(const char *dir, const struct seal_key *kek);
bool seal_keys_open(const char *dir); /* the same of the kek on the disk */

/*
 * seal_node_key - what seals the node's TLS key, as text: it can be had whenever the log is open, and stays the same
 * whatever wraps the data key. So a crash between this daemon's rewrapping and gatewayd's locks nobody out.
 */
#define SEAL_NODE_KEY_SIZE (2u * SEAL_KEY_SIZE + 1u)
void seal_node_key(const struct seal_key *data_key, char text[SEAL_NODE_KEY_SIZE]);

/* The unlock key as people see it: "SWMKEY-1-" and base64 without padding, as Docker's. */
#define SEAL_UNLOCK_TEXT_SIZE 64u
void seal_unlock_text(const struct seal_key *k, char text[SEAL_UNLOCK_TEXT_SIZE]);
bool seal_unlock_parse(struct str text, struct seal_key *ret);
