/*
 * ca_cert.h - certificates: signing nodes' requests, cross-signing roots, judging what others hand in (OpenSSL, no
 * I/O).
 *
 * All texts are PEM. A key's digest is the SHA-256 of its SubjectPublicKeyInfo in DER.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/util/err.h"
#include "common/util/str.h"

#define CA_KEY_DIGEST 32u
#define CA_LEAF_LIFE_MIN_S 3600ll
#define CA_LEAF_LIFE_DEFAULT_S (90ll * 24 * 3600)

/* What one wants to know of a certificate. */
struct ca_info {
    struct buf subject, public_key;    /* DER */
    uint8_t key[CA_KEY_DIGEST];        /* digest of public_key */
    int64_t not_before_s, not_after_s; /* unix seconds */
    char cn[65], org[65], unit[65];    /* "" when absent or longer */
};
int ca_info(struct str cert, struct ca_info *ret, struct err *e); /* *ret zeroed by the caller; ca_info_done() always */
void ca_info_done(struct ca_info *i);

/* ca_csr_check - one request, for a key on P-256, P-384 or P-521, signed with it. Nothing else in it counts. */
int ca_csr_check(struct str csr, uint8_t ret_key[CA_KEY_DIGEST], struct err *e);

/* What stands in a node's certificate. */
struct ca_leaf {
    struct str node_id, cluster_id;
    bool manager;
    int64_t now_s, life_s; /* life_s under CA_LEAF_LIFE_MIN_S gives CA_LEAF_LIFE_DEFAULT_S, as Docker's */
};
#define CA_HOSTS_MAX 3
/* ca_leaf_hosts - the names in the certificate: swarm-manager or swarm-worker, the node's ID, managers also swarm-ca.
 */
unsigned ca_leaf_hosts(const struct ca_leaf *l, struct str ret[CA_HOSTS_MAX]);

/*
 * ca_sign - the certificate for the key in `csr`, by the root and its key. Appended to *ret.
 * ca_leaf_check - is this (what an external CA sent) a certificate for that key and node, by that root, valid now?
 */
int ca_sign(struct str root, struct str root_key, struct str csr, const struct ca_leaf *l, struct buf *ret,
            struct err *e);
int ca_leaf_check(struct str cert, struct str root, const uint8_t key[CA_KEY_DIGEST], const struct ca_leaf *l,
                  struct err *e);

/* ca_cross_sign - `root`'s name and key, certified by `old`: who trusts `old` thereby trusts what `root` signs. */
int ca_cross_sign(struct str old, struct str old_key, struct str root, int64_t now_s, struct buf *ret, struct err *e);

/* ca_cross_check - is `cross` a certificate of `root`'s name and key by `old`? (what an external CA sent) */
int ca_cross_check(struct str cross, struct str old, struct str root, struct err *e);

/* ca_root_csr - a request for the root's own name, for an external CA that is to cross-sign it. */
int ca_root_csr(struct str root, struct str root_key, struct buf *ret, struct err *e);

/* ca_root_check - may this become the swarm's root? One certificate, a CA's, self-signed, good for another year; `key`
 * (may be empty) is its key. ERR_INVALID in Docker's words. */
int ca_root_check(struct str root, struct str key, int64_t now_s, struct err *e);

/* ca_proof_check - `old` was issued by one of the roots (whether it has expired does not matter), and `proof` is a
 * signature (SHA-256) of the text `csr` by its key. Fills in *ret, as ca_info(). */
int ca_proof_check(struct str old, const struct str *roots, size_t nroots, struct str csr, struct str proof,
                   struct ca_info *ret, struct err *e);
