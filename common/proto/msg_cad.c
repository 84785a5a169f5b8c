#include "common/proto/msg_cad.h"

#define ID_MAX 64
#define PEM_MAX 65536

static const struct field empty_fields[] = { FIELD_END };
static const struct field root_reply_fields[] = {
    FIELD_STR(struct cad_root_reply, Cert, 1, PEM_MAX),
    FIELD_END,
};
static const struct field issue_fields[] = {
    FIELD_STR(struct cad_issue, CSR, 1, 16384),       FIELD_STR(struct cad_issue, Token, 0, 512),
    FIELD_STR(struct cad_issue, Availability, 0, 16), FIELD_STR(struct cad_issue, OldCert, 0, 16384),
    FIELD_BIN(struct cad_issue, Proof, 0, 1024),      FIELD_END,
};
static const struct field issue_reply_fields[] = {
    FIELD_STR(struct cad_issue_reply, NodeID, 1, ID_MAX),     FIELD_STR(struct cad_issue_reply, ClusterID, 1, ID_MAX),
    FIELD_STR(struct cad_issue_reply, Role, 1, 16),           FIELD_STR(struct cad_issue_reply, Chain, 1, PEM_MAX),
    FIELD_STR(struct cad_issue_reply, TrustRoot, 1, PEM_MAX), FIELD_END,
};
static const struct field tokens_reply_fields[] = {
    FIELD_STR(struct cad_tokens_reply, Worker, 1, 512),
    FIELD_STR(struct cad_tokens_reply, Manager, 1, 512),
    FIELD_END,
};
static const struct field external_ca_fields[] = {
    FIELD_STR(struct cad_external_ca, Protocol, 0, 64),
    FIELD_STR(struct cad_external_ca, URL, 0, 4096),
    FIELD_STR(struct cad_external_ca, CACert, 0, PEM_MAX),
    FIELD_END,
};
static const struct field rotate_fields[] = {
    FIELD_STR(struct cad_rotate, SigningCACert, 0, PEM_MAX),
    FIELD_STR(struct cad_rotate, SigningCAKey, 0, PEM_MAX),
    FIELD_LIST(struct cad_rotate, ExternalCAs, external_ca_fields, struct cad_external_ca, 100),
    FIELD_END,
};
static const struct field unlock_key_reply_fields[] = {
    FIELD_STR(struct cad_unlock_key_reply, Key, 0, 256),
    FIELD_U64(struct cad_unlock_key_reply, Epoch, 0, UINT64_MAX),
    FIELD_END,
};

#define EMPTY empty_fields, sizeof(struct cad_empty)

const struct op op_cad_root = { "root", "The swarm's root certificate.", EMPTY, root_reply_fields,
                                sizeof(struct cad_root_reply) };
const struct op op_cad_issue = { "issue",
                                 "Issues a node's certificate: by join token, by the certificate it has, or by proof "
                                 "that it holds the key of an expired one.",
                                 issue_fields,
                                 sizeof(struct cad_issue),
                                 issue_reply_fields,
                                 sizeof(struct cad_issue_reply) };
const struct op op_cad_tokens = { "tokens", "The join tokens.", EMPTY, tokens_reply_fields,
                                  sizeof(struct cad_tokens_reply) };
const struct op op_cad_rotate = { "rotate", "Starts the change to another root certificate.", rotate_fields,
                                  sizeof(struct cad_rotate), EMPTY };
const struct op op_cad_unlock_key = { "unlock_key", "The key that opens a locked manager.", EMPTY,
                                      unlock_key_reply_fields, sizeof(struct cad_unlock_key_reply) };
