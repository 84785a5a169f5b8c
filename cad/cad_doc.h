/*
 * cad_doc.h - what cad keeps in documents: RootCA of the cluster, Certificate of a node, and its credentials.
 *
 * The secret map: "ca-key" and "ca-key-next" {ID, Data: PEM}, "join-tokens" {ID, Worker, Manager}, "unlock-key"
 * {ID, Key: SWMKEY-1-...}, "network-keys" (cad_netkeys.h).
 */
#pragma once

#include "cad/ca_cert.h"
#include "common/proto/fields.h"
#include "common/store/store.h"

#define CAD_PREVIOUS_MAX 4u /* roots that are remembered after their replacement */
#define CAD_KEYS_MAX 4u     /* public keys of a node that are remembered */
#define CAD_KEYS_BYTES ((size_t)CAD_KEYS_MAX * CA_KEY_DIGEST)

struct cad_epochs {
    uint64_t Worker, Manager;
};

/* A root that was replaced. Nodes that still trust only it believe its successor by CrossSigned; what it has issued is
 * renewed for whoever proves to have the key. */
struct cad_previous {
    struct str Cert, CrossSigned; /* PEM; CrossSigned may be empty */
};

/* The move to another root, going on. Certificates are issued by NewCert's key and carry CrossSigned, so that nobody
 * has to trust NewCert before the end. */
struct cad_rotation {
    struct str NewCert, CrossSigned; /* PEM */
    int64_t StartedAt, Deadline;     /* wall ns */
};

struct cad_root_doc {
    struct str Cert, Digest;      /* the root that is trusted now, and the digest of its text in join tokens */
    struct cad_epochs TokenEpoch; /* handled: of the cluster's TokenEpoch */
    uint64_t UnlockKeyEpoch;      /* handled */
    struct cad_rotation *Rotation;
    struct list Previous; /* struct cad_previous, newest first */
};
int cad_root_doc(struct str cluster, struct cad_root_doc *ret, struct arena *a, struct err *e);
void cad_put_root_doc(struct buf *b, const struct cad_root_doc *d); /* the value of "RootCA" */

/* cad_signing_root - whose key signs now. */
struct str cad_signing_root(const struct cad_root_doc *d);

/* cad_put_chain - the intermediates behind a certificate: cross-signed roots, newest first. */
void cad_put_chain(struct buf *b, const struct cad_root_doc *d);

struct cad_cert_doc {
    struct str Role, Status; /* "issued"; "renew": role or issuer is about to change */
    struct str Issuer;       /* digest of the issuer's key */
    struct str Keys;         /* digests of the node's public keys, newest first */
    int64_t IssuedAt, NotAfter;
    struct str RoleErr; /* why the wanted role can't be had yet */
};
int cad_cert_doc(struct str node, struct cad_cert_doc *ret, struct arena *a, struct err *e);
void cad_put_cert_doc(struct buf *b, const struct cad_cert_doc *d); /* "Certificate" and its value */

/* cad_knows_key - is it one of the node's? */
bool cad_knows_key(const struct cad_cert_doc *d, const uint8_t key[CA_KEY_DIGEST]);

/* cad_add_key - the list with this key in front. */
struct str cad_add_key(struct arena *a, struct str keys, const uint8_t key[CA_KEY_DIGEST]);

struct str cad_text_at(struct str doc, const char *path);
