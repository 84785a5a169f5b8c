/*
 * ca_token.h - what people type: join tokens, as Docker prints them: SWMTKN-1-<50 digits: root certificate's
 * digest>-<25 digits: secret>, both in base 36; and the key of locked managers, SWMKEY-1-<base64>. Pure.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/util/err.h"
#include "common/util/str.h"

#define CA_DIGEST_DIGITS 50 /* 36^50 > 2^256 */
#define CA_SECRET_BYTES 16
#define CA_SECRET_DIGITS 25 /* 36^25 > 2^128 */
#define CA_TOKEN_SIZE (9 + CA_DIGEST_DIGITS + 1 + CA_SECRET_DIGITS + 1)

/* ca_base36 - big-endian @bytes (at most 32) as exactly @digits digits, zeros in front; NUL-terminated. */
void ca_base36(const uint8_t *bytes, size_t n, char *ret, size_t digits);

/* ca_digest - of the root certificate's PEM text: what a joining node compares. */
void ca_digest(struct str pem, char ret[CA_DIGEST_DIGITS + 1]);

void ca_token(const char *digest, const uint8_t secret[CA_SECRET_BYTES], char ret[CA_TOKEN_SIZE]);

/* ca_token_ok - has it a token's form? */
bool ca_token_ok(struct str token);

/* ca_token_judge - which of the swarm's tokens is it? Takes the same time for each wrong secret. 0, or ERR_INVALID: not
 * a token, of another swarm (or a root that was replaced), no longer valid. */
int ca_token_judge(struct str token, struct str worker, struct str manager, bool *ret_manager, struct err *e);

#define CA_UNLOCK_BYTES 32
#define CA_UNLOCK_SIZE (9 + 43 + 1)
/* ca_unlock_text - the key as people type it: base64 without padding. */
void ca_unlock_text(const uint8_t key[CA_UNLOCK_BYTES], char ret[CA_UNLOCK_SIZE]);
