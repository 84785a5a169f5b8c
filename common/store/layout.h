/*
 * layout.h - what is in the state map: kinds, indexes, and how their keys are made.
 *
 * The map is an LMDB environment at <run>/state/ that raftd alone writes. Databases:
 *   <kind>            ID -> document (msgpack map)
 *   ix:<index>        key 0x00 ID -> empty            (key and ID hold no 0x00)
 *   log               revision (8 bytes, big endian) seq (4 bytes, big endian) -> changes (log_put()); bounded
 *   meta              name -> msgpack value (struct store_meta)
 * Secret kinds live in a second environment of the same form at <run>/secret/, which only cad and dispatcherd may open.
 *
 * Every document has ID, Version {Index}, Rev, CreatedAt, UpdatedAt (wall ns), kept by raftd: Version.Index is the
 * revision of the last change of the kind's spec field, Rev that of the last change of anything.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/util/str.h"

enum kind {
    KIND_CLUSTER,
    KIND_NODE,
    KIND_SERVICE,
    KIND_TASKSPEC, /* an immutable TaskTemplate that tasks and one service refer to */
    KIND_TASK,
    KIND_NETWORK,
    KIND_SECRET, /* without Data */
    KIND_CONFIG,
    KIND_RESERVATION, /* a unique thing in use: "port/tcp/8080" -> owner */
    KIND_SECRET_DATA, /* secret: payload of a secret, by its ID */
    KIND_CREDENTIAL,  /* secret: registry credentials, join-token and CA keys */
    KIND_COUNT
};

struct kind_info {
    const char *name;
    bool secret;
    const char *spec_field; /* the field whose change moves Version.Index; NULL: creation only */
    bool unique_name;       /* Spec.Name, compared without case, may occur once */
};
extern const struct kind_info kind_info[KIND_COUNT];

/* kind_by_name - KIND_COUNT when unknown. Not NUL-terminated input is fine. */
enum kind kind_by_name(const char *name, size_t len);

enum index {
    IX_SERVICE_NAME,  /* lower-cased Spec.Name */
    IX_NODE_HOSTNAME, /* Description.Hostname; not unique */
    IX_NETWORK_NAME,
    IX_SECRET_NAME,
    IX_CONFIG_NAME,
    IX_TASK_SERVICE,      /* ServiceID */
    IX_TASK_NODE,         /* NodeID */
    IX_TASK_NETWORK,      /* NetworksAttachments[].NetworkID */
    IX_TASKSPEC_SERVICE,  /* ServiceID */
    IX_RESERVATION_OWNER, /* OwnerID */
    IX_SERVICE_NETWORK,   /* reference: Spec.TaskTemplate.Networks[].Target */
    IX_SERVICE_SECRET,    /* reference: Spec.TaskTemplate.ContainerSpec.Secrets[].SecretID */
    IX_SERVICE_CONFIG,    /* reference: Spec.TaskTemplate.ContainerSpec.Configs[].ConfigID */
    IX_COUNT
};

struct index_info {
    const char *name;
    enum kind kind;
    const char *path; /* of the value(s) in the document; "[]" steps into an array */
    bool fold_case;
    bool unique;
    enum kind refers_to; /* KIND_COUNT: not a reference */
};
extern const struct index_info index_info[IX_COUNT];

/*
 * Keys. LMDB takes at most 511 bytes, and an index entry is `key 0x00 ID`:
 * - an ID has 1..STORE_ID_MAX bytes without 0x00 (store_id_ok); raftd refuses others;
 * - an index key longer than STORE_KEY_MAX is cut to STORE_KEY_MAX - 17 bytes and "~" and 16 hex digits of the FNV-1a
 *   hash of the whole follow. Readers shorten what they look for in the same way, so long values are found like short
 *   ones; two that share 303 bytes and the hash count as equal;
 * - a 0x00 inside a value becomes 0x01; fold_case lowers A-Z; an empty or absent value is not indexed.
 */
#define STORE_CA_KEY_ID "ca-key"             /* the credential that holds the key of the swarm's root: cad's alone */
#define STORE_CA_NEXT_ID "ca-key-next"       /* the key of the root that the swarm is moving to */
#define STORE_TOKENS_ID "join-tokens"        /* {Worker, Manager} */
#define STORE_UNLOCK_KEY_ID "unlock-key"     /* the credential that raftd wraps its data key with; cad makes it */
#define STORE_NETWORK_KEYS_ID "network-keys" /* what the data plane is sealed with; cad makes and rotates them */
#define STORE_TURN_PREFIX "turn/" /* "turn/<daemon>": a reservation that each life of a controller makes anew */
#define STORE_ID_MAX 128u
#define STORE_KEY_MAX 320u
#define STORE_ENTRY_MAX (STORE_KEY_MAX + 1 + STORE_ID_MAX)
_Static_assert(STORE_ENTRY_MAX <= 511, "LMDB's mdb_env_get_maxkeysize()");

bool store_id_ok(struct str id);

/* store_is_cads - is this one of the credentials above, which are cad's alone? Others come and go with services. */
bool store_is_cads(struct str credential_id);

/* index_keys - calls fn for each key under which `doc` belongs into the index; the same key may come more than once.
 * The key lives only during the call. Returns how many there were. For raftd (writing) and for tests. */
typedef void index_key_fn(void *arg, struct str key);
size_t index_keys(enum index ix, struct str doc, index_key_fn *fn, void *arg);

/* index_key - the key for looking up `value`. */
struct str index_key(enum index ix, struct str value, char buf[STORE_KEY_MAX]);

/* index_entry - `key 0x00 ID` as it is in the database. index_entry_id - the ID behind the 0x00; {NULL,0} if none. */
struct str index_entry(struct str key, struct str id, char buf[STORE_ENTRY_MAX]);
struct str index_entry_id(struct str entry);

/* index_db_name - "ix:" and the index's name. */
#define STORE_DB_NAME_MAX 48u
const char *index_db_name(enum index ix, char buf[STORE_DB_NAME_MAX]);

/*
 * The change log. Its keys grow, so its pages are full; a record has up to STORE_LOG_RECORD bytes of changes of one
 * revision, each: kind (1 byte, enum kind), op ('c', 'u', 'd'), length of the ID (1 byte), ID.
 */
#define STORE_LOG_KEY 12u
#define STORE_LOG_RECORD 1800u /* LMDB keeps longer values in pages of their own */
void log_key(uint64_t revision, uint32_t seq, uint8_t key[STORE_LOG_KEY]);
uint64_t log_key_revision(const uint8_t key[STORE_LOG_KEY]);

void log_put(struct buf *b, enum kind kind, struct str id, char op);

/* log_next - takes the first change off `record`. False: there is none, or it is malformed (then record->n is not 0).
 * The kind may be one that this version does not know (>= KIND_COUNT). */
bool log_next(struct str *record, enum kind *ret_kind, struct str *ret_id, char *ret_op);

/*
 * Where things are, and who may open them. raftd makes every database of a map in one write transaction, together with
 * meta "revision": a map without that is not there yet. data.mdb gets mode 0640 and lock.mdb 0660 (LMDB's readers write
 * the lock table), group microswarm, or microswarm-secrets for the secret map. To replace a map, raftd builds the new
 * one under another name and renames its folder, or removes the files first: readers go by data.mdb's inode. The log
 * loses whole revisions only, oldest first.
 */
#define STORE_STATE_DIR "state"
#define STORE_SECRET_DIR "secret"
#define STORE_DATA_FILE "data.mdb"
#define STORE_DB_LOG "log"
#define STORE_DB_META "meta"
#define STORE_DBS_MAX 64u      /* for mdb_env_set_maxdbs() on both sides */
#define STORE_READERS_MAX 126u /* LMDB's default */

/* Names in meta; values are msgpack. The secret map has META_REVISION only. */
#define META_REVISION "revision"
#define META_TERM "term"
#define META_INITIALIZED "initialized"
#define META_LEADER "leader"
#define META_NODE_ID "node_id"
#define META_CLUSTER_ID "cluster_id"
#define META_LEADER_ID "leader_id"
#define META_MEMBERS "members" /* array of {"RaftID": u64, "NodeID", "Addr": text, "Learner": bool} */

/* Wake-ups: ipc://<run>/raftd.wake, any message. */
#define STORE_WAKE_SOCKET "raftd.wake"

#define STORE_LOG_KEEP 100000u       /* revisions kept in the change log, */
#define STORE_LOG_BYTES (16u << 20)  /* and pages: of large transactions, about half a million changes */
#define STORE_MAP_BYTES (8ull << 30) /* address space, not memory */
