/*
 * msg_cad.h - what cad answers: to nodes (through gatewayd), and to apid of its own host.
 */
#pragma once

#include "common/proto/fields.h"

struct cad_empty {
    char unused_;
};

struct cad_root_reply {
    struct str Cert; /* PEM: the swarm's root; the digest in a join token is of this text */
};

/*
 * A certificate for the key in CSR. Who asks decides what is issued (rpc_origin()):
 * - gatewayd of cad's own host, local: for this node, as it stands in the store (the first certificate of a new swarm);
 * - a node with a certificate: for the same node, with the role that it has in the store now;
 * - a node without one: by Token a new node; or by OldCert (expired or not, but issued by this swarm) and Proof, the
 *   signature (ECDSA, SHA-256, DER) of the CSR's text by that certificate's key.
 * Only the leader's cad issues.
 */
struct cad_issue {
    struct str CSR;   /* PEM */
    struct str Token; /* secret */
    struct str Availability;
    struct str OldCert; /* PEM */
    struct str Proof;
};
struct cad_issue_reply {
    struct str NodeID, ClusterID, Role; /* "worker", "manager" */
    struct str Chain;                   /* PEM: the node's certificate, then intermediates */
    struct str TrustRoot;               /* PEM: what to trust from now on, one or more certificates */
};

struct cad_tokens_reply {
    struct str Worker, Manager; /* secret */
};

/* Somebody else who signs: Docker's ExternalCA. */
struct cad_external_ca {
    struct str Protocol, URL, CACert;
};

/* A new root: the given one, or a fresh one when both are empty. Nodes go over to it by and by. A certificate without
 * its key needs an external CA that signs for it: one of the cluster's specification, or one that is about to stand
 * there. The root that is used now: a move to another one is called off. Specifications start no move, apid asks for it
 * here. */
struct cad_rotate {
    struct str SigningCACert, SigningCAKey; /* PEM; secret */
    struct list ExternalCAs;                /* struct cad_external_ca */
};

struct cad_unlock_key_reply {
    struct str Key; /* SWMKEY-1-...; empty: not locked; secret */
    uint64_t Epoch; /* Rev of its document; 0: not locked */
};

extern const struct op op_cad_root, /* cad_empty -> cad_root_reply (anybody) */
    op_cad_issue,                   /* cad_issue -> cad_issue_reply */
    op_cad_tokens,                  /* cad_empty -> cad_tokens_reply (apid; every manager's cad answers) */
    op_cad_rotate,                  /* cad_rotate -> cad_empty (apid, the leader's cad) */
    op_cad_unlock_key; /* cad_empty -> cad_unlock_key_reply (apid, gatewayd; every manager's cad answers) */
