/*
 * msg_gatewayd.h - what gatewayd answers to the daemons of its own host: who this node is, joining, leaving. Requests
 * to other nodes go through the same socket (rpc_send_via()), Raft's traffic through <run>/raftd.peers.
 */
#pragma once

#include "common/proto/fields.h"

struct gw_empty {
    char unused_;
};

struct gw_manager {
    struct str NodeID, Addr; /* host:port; NodeID may be empty (an address given by a person) */
};

/* Long poll: answers when the identity is newer than Seq (it starts at 1), or after WaitMs with what there is. */
struct gw_identity {
    uint64_t Seq, WaitMs;
};
struct gw_identity_reply {
    uint64_t Seq;
    struct str State; /* "inactive": in no swarm; "pending": addresses are set up or a join is going on;
                         "active": has a certificate; "error": Error says why joining failed; */
    struct str Error;
    struct str NodeID, ClusterID;
    struct str Role;                                   /* "worker", "manager": the certificate's */
    struct str ListenAddr, AdvertiseAddr;              /* host:port */
    struct str DataPathAddr;                           /* host; empty: that of AdvertiseAddr */
    struct list Managers;                              /* struct gw_manager: known ones */
    struct str TrustRoot;                              /* PEM */
    struct str CertIssuerSubject, CertIssuerPublicKey; /* DER */
    int64_t CertNotAfter;                              /* wall ns */
};

/* For a new swarm: where this manager listens. Checked (the address must be this host's, the port free) and kept; the
 * node is "pending" until raftd is bootstrapped and cad has issued the certificate. */
struct gw_setup {
    struct str ListenAddr, AdvertiseAddr, DataPathAddr; /* empty Listen: 0.0.0.0:2377; Advertise may lack the port */
    uint64_t DataPathPort;
};
struct gw_setup_reply {
    struct str ListenAddr, AdvertiseAddr, DataPathAddr; /* as resolved */
};

/* Answered when the certificate is stored (State "active"), or with the reason of the refusal. Gone on with in the
 * background when the asker does not wait. */
struct gw_join {
    struct str Token; /* secret */
    struct strs RemoteAddrs;
    struct str ListenAddr, AdvertiseAddr, DataPathAddr;
    struct str Availability; /* "", "active", "pause", "drain" */
};
struct gw_join_reply {
    struct str NodeID, ClusterID, Role;
};

struct gw_unlock {
    struct str Key; /* SWMKEY-1-...; secret */
};

extern const struct op op_gw_identity, /* gw_identity -> gw_identity_reply */
    op_gw_setup,                       /* gw_setup -> gw_setup_reply (apid) */
    op_gw_join,                        /* gw_join -> gw_join_reply (apid) */
    op_gw_leave,  /* gw_empty -> gw_empty (apid): forget key, certificate, addresses; links close */
    op_gw_unlock; /* gw_unlock -> gw_empty (apid): opens the node's key when it is locked */

/* Datagrams on <run>/raftd.peers. raftd -> gatewayd: kind "msg" with the node to send to. gatewayd -> raftd: "msg" with
 * the node it came from (a manager, by its certificate), "up" and "down" when a link to a manager came or went. */
#define GW_PEERS_SOCKET "raftd.peers"
struct gw_peer_frame {
    struct str Kind, Node;
    struct str Body; /* raftd's own; at most GW_PEER_BODY_MAX */
};
#define GW_PEER_BODY_MAX (2u << 20)
extern const struct field gw_peer_frame_fields[];
