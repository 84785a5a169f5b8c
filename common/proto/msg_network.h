/*
 * msg_network.h - what the messages of dispatcherd, agentd and meshd say about networks, in the same structs.
 *
 * Addresses are text: "10.0.1.5/24" where it says CIDR, else without a length. A network, an endpoint (one task on one
 * network) and a service on a network are told apart by the store's IDs.
 */
#pragma once

#include "common/proto/fields.h"

struct net_subnet {
    struct str Subnet;  /* CIDR */
    struct str Gateway; /* address; kept free: nothing answers there yet */
};

struct net_network {
    struct str ID, Name;
    uint64_t VNI;
    uint64_t MTU;   /* 0: what the underlay leaves */
    bool Encrypted; /* ESP between nodes; a node that cannot do so refuses the task */
    bool Internal;  /* its tasks have no way out when they have no other network */
    bool Ingress;   /* the routing mesh's own: routed between the nodes' gateways, not bridged */
    bool Attachable;
    struct list Subnets; /* struct net_subnet: IPv4 first */
};

/* One task on one network. */
struct net_attachment {
    struct net_network Network;
    struct strs Addresses; /* CIDR */
    struct strs Aliases;   /* of its service on this network */
};

struct net_port {
    struct str Protocol; /* tcp, udp, sctp */
    uint64_t TargetPort, PublishedPort;
};

/* A service on one network. On the ingress network it has Ports and no VIPs. */
struct net_service {
    struct str ID, NetworkID;
    struct str Name;
    struct str Mode;     /* "vip", "dnsrr" */
    struct strs VIPs;    /* addresses */
    struct strs Aliases; /* more names for it */
    struct list Ports;   /* struct net_port: published in ingress mode; on the ingress network only */
};

/* A task on one network, wherever it runs. */
struct net_endpoint {
    struct str ID; /* the task's */
    struct str NetworkID, ServiceID, NodeID;
    struct str Name;       /* "web.1.<task id>" */
    struct str State;      /* "starting": no traffic yet; "ready"; "draining": no new connections */
    struct strs Addresses; /* addresses */
};

struct net_node {
    struct str ID;
    struct str Addr; /* of the data path: where its VXLAN packets come from and go to */
    struct str Hostname;
    struct str BootID; /* as in struct disp_session; keys of its encrypted packets follow from it; may be empty */
};

/* Shared keys of the data plane, newest first; made and rotated by cad. Secret. All open; the second newest seals (the
 * newest may still be on its way to somebody), or the only one. */
struct net_key {
    struct str Purpose; /* "gossip", "esp" */
    uint64_t Epoch;     /* grows with each rotation */
    struct str Key;     /* 32 bytes */
};

extern const struct field net_subnet_fields[], net_network_fields[], net_attachment_fields[], net_port_fields[],
    net_service_fields[], net_endpoint_fields[], net_node_fields[], net_key_fields[];

#define NET_PER_TASK_MAX 1000u /* networks of one task */
#define NET_SUBNETS_MAX 100u
#define NET_BOOT_ID_MAX 64u
#define NET_NAMES_MAX 1000u /* aliases */
