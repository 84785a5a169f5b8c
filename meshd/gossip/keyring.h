/*
 * keyring.h - gossip packets are sealed with AES-256-GCM under one of a few keys that the managers hand out.
 *
 * The primary key seals; every key of the ring opens. Rotation without loss: install the new key everywhere, then use
 * it everywhere, then remove the old one everywhere.
 *
 * Sealed: version 1, key id 4, sender 8, boot 8, counter 8, ciphertext, tag 16. The key of a sender's packets is
 * derived from the ring's key, the sender and its boot, and the nonce is the counter: no nonce repeats under a key, as
 * long as `boot` is greater at each start of a node. The header and the receiver's id are authenticated: a packet can
 * be sent neither in another's name nor to another receiver.
 *
 * Replays: per sender the greatest boot, and which of the last 256 counters were seen; what is older is refused. Only
 * authentic packets touch that memory. A receiver that starts anew has forgotten them: what is replayed to it
 * then is old news, which incarnations, revisions and sequence numbers make harmless.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/util/cleanup.h"
#include "common/util/err.h"
#include "common/util/str.h"

#define KEYRING_KEY_SIZE 32u
#define KEYRING_KEYS_MAX 4u
#define KEYRING_OVERHEAD (29u + 16u)
#define KEYRING_SEALED_MAX 1472u /* UDP over IPv4 in 1500 bytes */

struct keyring_config {
    uint64_t self;        /* this node's gossip_id */
    uint64_t boot;        /* greater at each start of this node; never 0 */
    uint32_t senders_max; /* 0: 16384 */
};

struct keyring_counts {
    uint64_t sealed, opened;
    uint64_t malformed;   /* too short, too long, of another version */
    uint64_t unknown_key; /* never installed, or removed */
    uint64_t forged;      /* a bit is wrong, or meant for another receiver */
    uint64_t replayed;    /* seen before, too old to tell, or of an earlier boot */
    uint64_t strangers;   /* authentic, but there is no room to remember one more sender */
};

struct keyring;
int keyring_new(struct keyring **ret, const struct keyring_config *conf, struct err *e);
struct keyring *keyring_free(struct keyring *k);
DEFINE_CLEANUP(struct keyring *, keyring_free)

/*
 * keyring_install - from now on packets under this key are opened. The first key becomes the primary one.
 *
 * @id   the managers' number of the key; never 0, never used again for another key
 *
 * Returns 0 (also when it is there already), -ERR_CONFLICT when the id is there with another key, or -ERR_TOO_BIG.
 */
int keyring_install(struct keyring *k, uint32_t id, const uint8_t key[KEYRING_KEY_SIZE], struct err *e);

/* keyring_use - seal with this one; -ERR_NOT_FOUND. */
int keyring_use(struct keyring *k, uint32_t id, struct err *e);

/* keyring_remove - open nothing under this one any more; -ERR_NOT_FOUND, or -ERR_PRECONDITION: it is the primary. */
int keyring_remove(struct keyring *k, uint32_t id, struct err *e);

uint32_t keyring_primary(const struct keyring *k); /* 0: there is none */

/* keyring_forget - a node that was removed for good makes room for another. */
void keyring_forget(struct keyring *k, uint64_t sender);

/* keyring_seal - appends a sealed packet for `to`. -ERR_UNAVAILABLE without a key, -ERR_TOO_BIG, -ERR_NOMEM: `out` is
 * full. */
int keyring_seal(struct keyring *k, uint64_t to, struct str plain, struct buf *out, struct err *e);

/* keyring_open - appends the content to `plain`. -ERR_INVALID: malformed; -ERR_DENIED: all else. Counted either way. */
int keyring_open(struct keyring *k, struct str sealed, uint64_t *ret_sender, struct buf *plain, struct err *e);

void keyring_counts(const struct keyring *k, struct keyring_counts *ret);
