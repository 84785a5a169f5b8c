/*
 * box.h - content that only one process can open, for payloads that pass through others (gatewayd, several times).
 *
 * X25519 with a fresh key on both sides, HMAC-SHA256 to a key, AES-256-GCM (the key is used once, so the nonce is
 * zero). It keeps content out of the memory and the logs of those who pass it on; who asked is theirs to vouch for.
 */
#pragma once

#include <stdint.h>

#include "common/util/err.h"
#include "common/util/str.h"

#define BOX_KEY 32u
#define BOX_OVERHEAD 48u /* the sender's public key, and the tag */

struct box_key {
    uint8_t pub[BOX_KEY], priv[BOX_KEY]; /* crypto_wipe() it after use */
};

int box_key_new(struct box_key *ret, struct err *e);

/* box_seal - for the owner of the public key @to; appended to out. */
int box_seal(struct str content, struct str to, struct buf *out, struct err *e);

/* box_open - @ret has room for box.n - BOX_OVERHEAD bytes. -ERR_CORRUPT when it is not for this key or was changed. */
int box_open(const struct box_key *key, struct str box, uint8_t *ret, struct err *e);
