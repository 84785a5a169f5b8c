/*
 * crypto.h - digests, sealing and key agreement for daemons that speak no TLS.
 *
 * Over libgcrypt, which libsystemd brings into every process: so it costs nothing more, where OpenSSL's relocations and
 * tables cost each process about 1 MiB that nobody shares. OpenSSL is for TLS and certificates.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/util/str.h"

#define CRYPTO_HASH 32u
#define CRYPTO_KEY 32u
#define CRYPTO_NONCE 12u
#define CRYPTO_TAG 16u
#define CRYPTO_HEX (2u * CRYPTO_HASH + 1u)

/* crypto_wipe - zeroes that the compiler may not leave out. NULL is nothing. */
void crypto_wipe(void *p, size_t n);

/* crypto_same - the time it takes says nothing about where they differ. */
bool crypto_same(const void *a, const void *b, size_t n);

/* ---- SHA-256 ---- */

void crypto_sha256(struct str s, uint8_t ret[CRYPTO_HASH]);
void crypto_hmac_sha256(struct str key, struct str s, uint8_t ret[CRYPTO_HASH]);
void crypto_hex(const uint8_t hash[CRYPTO_HASH], char hex[CRYPTO_HEX]); /* lower case */

/* Of a stream: new (aborts when out of memory), add, end (which frees). */
struct crypto_sha256;
struct crypto_sha256 *crypto_sha256_new(void);
void crypto_sha256_add(struct crypto_sha256 *h, const void *p, size_t n);
void crypto_sha256_end(struct crypto_sha256 *h, uint8_t ret[CRYPTO_HASH]);

/* ---- AES-256-GCM (NIST SP 800-38D) ---- */

struct crypto_aead;
struct crypto_aead *crypto_aead_new(void); /* without a key; aborts when out of memory */
struct crypto_aead *crypto_aead_free(struct crypto_aead *a);
bool crypto_aead_key(struct crypto_aead *a, const uint8_t key[CRYPTO_KEY]);

/* crypto_aead_seal - writes plain.n + CRYPTO_TAG bytes. A nonce is never used twice with a key. False: the library
 * failed. */
bool crypto_aead_seal(struct crypto_aead *a, const uint8_t nonce[CRYPTO_NONCE], struct str also, struct str plain,
                      uint8_t *to);

/* crypto_aead_open - writes sealed.n - CRYPTO_TAG bytes. False when a byte of either was altered; then `to` holds
 * zeroes. */
bool crypto_aead_open(struct crypto_aead *a, const uint8_t nonce[CRYPTO_NONCE], struct str also, struct str sealed,
                      uint8_t *to);

/* ---- keys ---- */

/* crypto_x25519 - RFC 7748. @pub: the other side's, or NULL for the public key of priv. False for a point of small
 * order. */
bool crypto_x25519(const uint8_t priv[CRYPTO_KEY], const uint8_t *pub, uint8_t ret[CRYPTO_KEY]);

/* crypto_hkdf - RFC 5869 with SHA-256, one block. */
void crypto_hkdf(struct str secret, struct str salt, struct str info, uint8_t ret[CRYPTO_KEY]);

/* crypto_scrypt - RFC 7914 with r = 8, p = 1 and N = 2^log2_n, so 2^(log2_n + 10) bytes of memory; false without them.
 */
bool crypto_scrypt(struct str passphrase, struct str salt, unsigned log2_n, uint8_t ret[CRYPTO_KEY]);
