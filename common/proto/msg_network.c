#include "common/proto/msg_network.h"

#define ID_MAX 64
#define ADDRESS_MAX 64u
#define NAME_MAX_ 512

const struct field net_subnet_fields[] = {
    FIELD_STR(struct net_subnet, Subnet, 1, ADDRESS_MAX),
    FIELD_STR(struct net_subnet, Gateway, 0, ADDRESS_MAX),
    FIELD_END,
};
const struct field net_network_fields[] = {
    FIELD_STR(struct net_network, ID, 1, ID_MAX),
    FIELD_STR(struct net_network, Name, 1, NAME_MAX_),
    FIELD_U64(struct net_network, VNI, 0, (1u << 24) - 1),
    FIELD_U64(struct net_network, MTU, 0, 65535),
    FIELD_BOOL(struct net_network, Encrypted),
    FIELD_BOOL(struct net_network, Internal),
    FIELD_BOOL(struct net_network, Ingress),
    FIELD_BOOL(struct net_network, Attachable),
    FIELD_LIST(struct net_network, Subnets, net_subnet_fields, struct net_subnet, NET_SUBNETS_MAX),
    FIELD_END,
};
const struct field net_attachment_fields[] = {
    FIELD_OBJ(struct net_attachment, Network, net_network_fields, struct net_network),
    FIELD_STRS(struct net_attachment, Addresses, NET_SUBNETS_MAX),
    FIELD_STRS(struct net_attachment, Aliases, NET_NAMES_MAX),
    FIELD_END,
};
const struct field net_port_fields[] = {
    FIELD_STR(struct net_port, Protocol, 1, 8),
    FIELD_U64(struct net_port, TargetPort, 1, 65535),
    FIELD_U64(struct net_port, PublishedPort, 1, 65535),
    FIELD_END,
};
const struct field net_service_fields[] = {
    FIELD_STR(struct net_service, ID, 1, ID_MAX),
    FIELD_STR(struct net_service, NetworkID, 1, ID_MAX),
    FIELD_STR(struct net_service, Name, 1, NAME_MAX_),
    FIELD_STR(struct net_service, Mode, 1, 8),
    FIELD_STRS(struct net_service, VIPs, NET_SUBNETS_MAX),
    FIELD_STRS(struct net_service, Aliases, NET_NAMES_MAX),
    FIELD_LIST(struct net_service, Ports, net_port_fields, struct net_port, 65536),
    FIELD_END,
};
const struct field net_endpoint_fields[] = {
    FIELD_STR(struct net_endpoint, ID, 1, ID_MAX),
    FIELD_STR(struct net_endpoint, NetworkID, 1, ID_MAX),
    FIELD_STR(struct net_endpoint, ServiceID, 0, ID_MAX),
    FIELD_STR(struct net_endpoint, NodeID, 1, ID_MAX),
    FIELD_STR(struct net_endpoint, Name, 0, NAME_MAX_),
    FIELD_STR(struct net_endpoint, State, 1, 16),
    FIELD_STRS(struct net_endpoint, Addresses, NET_SUBNETS_MAX),
    FIELD_END,
};
const struct field net_node_fields[] = {
    FIELD_STR(struct net_node, ID, 1, ID_MAX),
    FIELD_STR(struct net_node, Addr, 0, ADDRESS_MAX),
    FIELD_STR(struct net_node, Hostname, 0, NAME_MAX_),
    FIELD_STR(struct net_node, BootID, 0, NET_BOOT_ID_MAX),
    FIELD_END,
};
const struct field net_key_fields[] = {
    FIELD_STR(struct net_key, Purpose, 1, 16),
    FIELD_U64(struct net_key, Epoch, 0, UINT64_MAX),
    FIELD_BIN(struct net_key, Key, 16, 64),
    FIELD_END,
};
