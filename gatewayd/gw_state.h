/*
 * gw_state.h - what gatewayd keeps on disk.
 *
 *   <state>/gateway/node                      addresses, IDs, known managers: a msgpack map
 *   <state>/certificates/swarm-node.crt       the node's certificate, then intermediates (PEM)
 *   <state>/certificates/swarm-node.key       its key (PEM, PKCS #8), mode 0600; sealed while managers lock themselves
 *   <state>/certificates/swarm-node.key.next  the key of a certificate that is being asked for
 *   <state>/certificates/swarm-root-ca.crt    the roots that are trusted (PEM)
 *
 * Each file is replaced as a whole (write, fsync, rename, fsync of the folder). A new certificate is stored before its
 * key takes its place, and the key that fits is looked for when reading, so a crash between the two loses nothing.
 */
#pragma once

#include <openssl/evp.h>

#include "common/proto/msg_gatewayd.h"
#include "gatewayd/gw_addr.h"
#include "gatewayd/gw_cert.h"

#define GW_MANAGERS_MAX 64u
#define GW_NODE_FILE_MAX (64u << 10)

struct gw_node_file {
    struct str ListenAddr, AdvertiseAddr, DataPathAddr;
    uint64_t DataPathPort;
    struct str NodeID, ClusterID; /* empty until there is a certificate */
    struct list Managers;         /* struct gw_manager */
    struct list Keys;             /* struct gw_known_key */
};
/* A manager's public key, when it was last seen with a valid certificate. */
struct gw_known_key {
    struct str NodeID, Digest; /* SHA-256 */
};
extern const struct field gw_node_file_fields[];

/* gw_node_file_read - a view of the file's bytes; @a holds lists. Unknown fields are skipped. */
int gw_node_file_read(struct gw_node_file *ret, struct str bytes, struct arena *a, struct err *e);

struct gw_state {
    char gateway_dir[300], cert_dir[300];
};

/* gw_state_open - makes the folders. */
int gw_state_open(struct gw_state *s, const char *state_dir, struct err *e);

/* Each _load gives -ERR_NOT_FOUND when there is nothing. */
int gw_state_load_node(const struct gw_state *s, struct buf *ret, struct err *e);
int gw_state_save_node(const struct gw_state *s, const struct gw_node_file *f, struct err *e);

/* The certificate and the key that fits it. */
struct gw_credentials {
    struct buf chain, trust; /* PEM */
    EVP_PKEY *key;
    X509 *cert;
    STACK_OF(X509) * rest; /* intermediates */
    struct gw_cert_info info;
};
/* gw_state_load_credentials - -ERR_DENIED: the key is sealed, and @seal (NULL: nothing) does not open it. */
int gw_state_load_credentials(const struct gw_state *s, const struct gw_seal *seal, struct gw_credentials *ret,
                              bool *ret_sealed, struct err *e);
void gw_credentials_done(struct gw_credentials *c);

/* gw_credentials_make - checks that chain, key and trust fit together. @key: its reference is counted up. */
int gw_credentials_make(struct gw_credentials *ret, struct str chain, struct str trust, EVP_PKEY *key, struct err *e);

/* gw_state_save_key - the key of a certificate that is about to be asked for. @seal: as gw_key_pem()'s. */
int gw_state_save_key(const struct gw_state *s, EVP_PKEY *key, const struct gw_seal *seal, struct err *e);
/* gw_state_reseal - the key in use (and the one of a certificate that is being asked for, or NULL: none is left behind)
 * sealed otherwise. A crash leaves the old file or the new one. */
int gw_state_reseal(const struct gw_state *s, EVP_PKEY *key, EVP_PKEY *next, const struct gw_seal *seal, struct err *e);
/* gw_state_save_credentials - the key was saved by gw_state_save_key() before. */
int gw_state_save_credentials(const struct gw_state *s, struct str chain, struct str trust, struct err *e);
int gw_state_save_trust(const struct gw_state *s, struct str trust, struct err *e);

/* gw_state_forget - leaves nothing of the swarm. The certificate goes first. */
int gw_state_forget(const struct gw_state *s, struct err *e);
