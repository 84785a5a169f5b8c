/*
 * gw_cert.h - keys, certificates and join tokens: OpenSSL's X.509 with our errors. No I/O; the clock is given.
 *
 * A node's certificate: ECDSA P-256; CN the node's ID, OU swarm-manager or swarm-worker, O the swarm's ID; names in SAN
 * as Docker's (swarmkit.md §8.2).
 */
#pragma once

#include <openssl/x509.h>

#include "common/daemon/rpc.h"
#include "common/util/cleanup.h"
#include "common/util/id.h"

DEFINE_CLEANUP(X509 *, X509_free)
DEFINE_CLEANUP(EVP_PKEY *, EVP_PKEY_free)
DEFINE_CLEANUP(BIO *, BIO_free)
DEFINE_CLEANUP(X509_STORE *, X509_STORE_free)
DEFINE_CLEANUP(STACK_OF(X509) *, sk_X509_free)

#define GW_ID_MAX 65
#define GW_KEY_SPKI_MAX 256

/* What a certificate says of its node. */
struct gw_cert_info {
    char node[GW_ID_MAX], cluster[GW_ID_MAX];
    enum rpc_role role;            /* RPC_WORKER or RPC_MANAGER */
    int64_t not_before, not_after; /* unix seconds */
};

/* gw_ssl_error - takes what OpenSSL last complained of into e: "<what>: <reason>". */
int gw_ssl_error(struct err *e, const char *what);

/* gw_cert_info - -ERR_UNAUTHORIZED when it is no certificate of a node: the text names what is missing. */
int gw_cert_info(struct gw_cert_info *ret, X509 *cert, struct err *e);

/* gw_cert_chain - the PEM certificates of a text, 1..16 of them, given. */
int gw_cert_chain(STACK_OF(X509) * *ret, struct str pem, struct err *e);
void gw_cert_chain_free(STACK_OF(X509) * chain);
static inline void gw_cert_chain_freep(STACK_OF(X509) * *p)
{
    gw_cert_chain_free(*p);
}

/* gw_cert_verify - leaf and intermediates against the roots in @trust (PEM) at @now_s. -ERR_UNAUTHORIZED. */
#define GW_CERT_ANY_TIME INT64_MIN /* expired or not: the certificates of a chain need not share any moment */
int gw_cert_verify(X509 *leaf, STACK_OF(X509) * chain, struct str trust, int64_t now_s, struct err *e);

/* gw_cert_issuer - subject and public key (DER) of who signed the leaf: the next certificate in its chain, or the root
 * in @trust that it names. false: neither is there. */
bool gw_cert_issuer(X509 *leaf, STACK_OF(X509) * chain, struct str trust, struct buf *subject, struct buf *key);

/*
 * What a key is sealed with on the disk; an empty text: not with that one. Each seals a copy of its own (PEM, PKCS #8,
 * PBES2: `openssl pkey -passin pass:SWMKEY-1-... -in swarm-node.key` opens the first), and one of them is enough.
 */
#define GW_SEAL_MAX 80u
struct gw_seal {
    char unlock[GW_SEAL_MAX]; /* the swarm's unlock key, as people have it */
    char store[GW_SEAL_MAX];  /* what raftd has as long as its store is open */
};
static inline bool gw_seal_none(const struct gw_seal *s)
{
    return !s->unlock[0] && !s->store[0];
}
void gw_seal_done(struct gw_seal *s); /* cleanses */

/* Keys: ECDSA P-256. PEM text in a struct buf: secret, see gw_secret_done(). */
int gw_key_new(EVP_PKEY **ret, struct err *e);
/* gw_key_pem - @seal: NULL or none: in plain text. */
int gw_key_pem(EVP_PKEY *key, const struct gw_seal *seal, struct buf *out, struct err *e);
/* gw_key_parse - -ERR_DENIED: it is sealed, and nothing in @seal (or NULL) opens it. @ret_sealed may be NULL. */
int gw_key_parse(EVP_PKEY **ret, struct str pem, const struct gw_seal *seal, bool *ret_sealed, struct err *e);
void gw_secret_done(struct buf *b); /* cleanses and frees */

/* gw_csr - a request for a certificate for @key, PEM; who it is for is decided by who asks. */
int gw_csr(EVP_PKEY *key, struct buf *out, struct err *e);
/* gw_proof - the signature of @text by the (old) key: ECDSA, SHA-256, DER. */
int gw_proof(EVP_PKEY *key, struct str text, struct buf *out, struct err *e);

/* gw_renew_at - when to renew: a random moment between 50 and 80 % of the life, unix seconds; @random: any number. */
int64_t gw_renew_at(const struct gw_cert_info *c, uint64_t random);

/* Join tokens: SWMTKN-1-<digest: 50 base-36 digits>-<secret: 25>. */
#define GW_DIGEST_BYTES 32
/* gw_token_digest - the digest in the token; false when the text is no token. */
bool gw_token_digest(struct str token, uint8_t ret[GW_DIGEST_BYTES]);
/* gw_digest - of a root certificate's PEM text. */
void gw_digest(struct str pem, uint8_t ret[GW_DIGEST_BYTES]);
