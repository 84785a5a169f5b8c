#include "common/proto/msg_gatewayd.h"

#define ID_MAX 64
#define ADDR_MAX 300
#define PEM_MAX 65536

static const struct field empty_fields[] = { FIELD_END };
static const struct field manager_fields[] = {
    FIELD_STR(struct gw_manager, NodeID, 0, ID_MAX),
    FIELD_STR(struct gw_manager, Addr, 1, ADDR_MAX),
    FIELD_END,
};
static const struct field identity_fields[] = {
    FIELD_U64(struct gw_identity, Seq, 0, UINT64_MAX),
    FIELD_U64(struct gw_identity, WaitMs, 0, 86400000),
    FIELD_END,
};
static const struct field identity_reply_fields[] = {
    FIELD_U64(struct gw_identity_reply, Seq, 0, UINT64_MAX),
    FIELD_STR(struct gw_identity_reply, State, 1, 16),
    FIELD_STR(struct gw_identity_reply, Error, 0, 4096),
    FIELD_STR(struct gw_identity_reply, NodeID, 0, ID_MAX),
    FIELD_STR(struct gw_identity_reply, ClusterID, 0, ID_MAX),
    FIELD_STR(struct gw_identity_reply, Role, 0, 16),
    FIELD_STR(struct gw_identity_reply, ListenAddr, 0, ADDR_MAX),
    FIELD_STR(struct gw_identity_reply, AdvertiseAddr, 0, ADDR_MAX),
    FIELD_STR(struct gw_identity_reply, DataPathAddr, 0, ADDR_MAX),
    FIELD_LIST(struct gw_identity_reply, Managers, manager_fields, struct gw_manager, 64),
    FIELD_STR(struct gw_identity_reply, TrustRoot, 0, PEM_MAX),
    FIELD_BIN(struct gw_identity_reply, CertIssuerSubject, 0, 4096),
    FIELD_BIN(struct gw_identity_reply, CertIssuerPublicKey, 0, 4096),
    FIELD_I64(struct gw_identity_reply, CertNotAfter, INT64_MIN, INT64_MAX),
    FIELD_END,
};
static const struct field setup_fields[] = {
    FIELD_STR(struct gw_setup, ListenAddr, 0, ADDR_MAX),
    FIELD_STR(struct gw_setup, AdvertiseAddr, 0, ADDR_MAX),
    FIELD_STR(struct gw_setup, DataPathAddr, 0, ADDR_MAX),
    FIELD_U64(struct gw_setup, DataPathPort, 0, 65535),
    FIELD_END,
};
static const struct field setup_reply_fields[] = {
    FIELD_STR(struct gw_setup_reply, ListenAddr, 0, ADDR_MAX),
    FIELD_STR(struct gw_setup_reply, AdvertiseAddr, 0, ADDR_MAX),
    FIELD_STR(struct gw_setup_reply, DataPathAddr, 0, ADDR_MAX),
    FIELD_END,
};
static const struct field join_fields[] = {
    FIELD_STR(struct gw_join, Token, 1, 512),
    FIELD_STRS(struct gw_join, RemoteAddrs, 64),
    FIELD_STR(struct gw_join, ListenAddr, 0, ADDR_MAX),
    FIELD_STR(struct gw_join, AdvertiseAddr, 0, ADDR_MAX),
    FIELD_STR(struct gw_join, DataPathAddr, 0, ADDR_MAX),
    FIELD_STR(struct gw_join, Availability, 0, 16),
    FIELD_END,
};
static const struct field join_reply_fields[] = {
    FIELD_STR(struct gw_join_reply, NodeID, 0, ID_MAX),
    FIELD_STR(struct gw_join_reply, ClusterID, 0, ID_MAX),
    FIELD_STR(struct gw_join_reply, Role, 0, 16),
    FIELD_END,
};
static const struct field unlock_fields[] = {
    FIELD_STR(struct gw_unlock, Key, 1, 256),
    FIELD_END,
};
const struct field gw_peer_frame_fields[] = {
    FIELD_STR(struct gw_peer_frame, Kind, 1, 8),
    FIELD_STR(struct gw_peer_frame, Node, 1, ID_MAX),
    FIELD_BIN(struct gw_peer_frame, Body, 0, GW_PEER_BODY_MAX),
    FIELD_END,
};

#define EMPTY empty_fields, sizeof(struct gw_empty)

const struct op op_gw_identity = { "identity",
                                   "Who this node is in its swarm, when that is newer than Seq (long poll).",
                                   identity_fields,
                                   sizeof(struct gw_identity),
                                   identity_reply_fields,
                                   sizeof(struct gw_identity_reply) };
const struct op op_gw_setup = { "setup",
                                "Checks and keeps the addresses of the first manager of a new swarm.",
                                setup_fields,
                                sizeof(struct gw_setup),
                                setup_reply_fields,
                                sizeof(struct gw_setup_reply) };
const struct op op_gw_join = { "join",
                               "Joins a swarm with a token; answered when the node has its certificate.",
                               join_fields,
                               sizeof(struct gw_join),
                               join_reply_fields,
                               sizeof(struct gw_join_reply) };
const struct op op_gw_leave = { "leave", "Forgets key, certificate and addresses, and closes every link.", EMPTY,
                                EMPTY };
const struct op op_gw_unlock = { "unlock", "Opens the node's key with the swarm's unlock key.", unlock_fields,
                                 sizeof(struct gw_unlock), EMPTY };
