#include "common/proto/msg_meshd.h"

#define PORTS_MAX 65536

static const struct field empty_fields[] = { FIELD_END };
static const struct field port_fields[] = {
    FIELD_STR(struct mesh_port, Protocol, 1, 8),
    FIELD_STR(struct mesh_port, PublishMode, 1, 16),
    FIELD_U64(struct mesh_port, TargetPort, 1, 65535),
    FIELD_U64(struct mesh_port, PublishedPort, 0, 65535),
    FIELD_END,
};
static const struct field up_fields[] = {
    FIELD_STR(struct mesh_up, TaskID, 1, 64),
    FIELD_STR(struct mesh_up, ServiceID, 0, 64),
    FIELD_STR(struct mesh_up, Mode, 0, 16),
    FIELD_LIST(struct mesh_up, Ports, port_fields, struct mesh_port, PORTS_MAX),
    FIELD_STRS(struct mesh_up, Nameservers, 64),
    FIELD_STRS(struct mesh_up, Search, 64),
    FIELD_STRS(struct mesh_up, Options, 64),
    FIELD_STRMAP(struct mesh_up, Sysctls, 1024),
    FIELD_LIST(struct mesh_up, Networks, net_attachment_fields, struct net_attachment, NET_PER_TASK_MAX),
    FIELD_STR(struct mesh_up, ServiceName, 0, 256),
    FIELD_STR(struct mesh_up, TaskName, 0, 512),
    FIELD_STR(struct mesh_up, Hostname, 0, 256),
    FIELD_END,
};
static const struct field up_reply_fields[] = {
    FIELD_STR(struct mesh_up_reply, Netns, 0, 512),
    FIELD_STRS(struct mesh_up_reply, Addresses, 64),
    FIELD_STR(struct mesh_up_reply, ResolvConf, 0, FIELD_TEXT_MAX),
    FIELD_LIST(struct mesh_up_reply, Ports, port_fields, struct mesh_port, PORTS_MAX),
    FIELD_END,
};
static const struct field ready_fields[] = {
    FIELD_STR(struct mesh_ready, TaskID, 1, 64),
    FIELD_BOOL(struct mesh_ready, Ready),
    FIELD_END,
};
static const struct field task_fields[] = {
    FIELD_STR(struct mesh_task, TaskID, 1, 64),
    FIELD_END,
};
static const struct field quiet_fields[] = {
    FIELD_STR(struct mesh_quiet, TaskID, 1, 64),
    FIELD_U64(struct mesh_quiet, WaitMs, 0, 86400000),
    FIELD_END,
};
static const struct field quiet_reply_fields[] = {
    FIELD_BOOL(struct mesh_quiet_reply, Quiet),
    FIELD_U64(struct mesh_quiet_reply, Connections, 0, UINT64_MAX),
    FIELD_END,
};
static const struct field list_reply_fields[] = {
    FIELD_STRS(struct mesh_list_reply, TaskIDs, 100000),
    FIELD_END,
};

static const struct field networks_reply_fields[] = {
    FIELD_LIST(struct mesh_networks_reply, Networks, net_network_fields, struct net_network, 100000),
    FIELD_END,
};

#define EMPTY empty_fields, sizeof(struct mesh_empty)

const struct op op_mesh_up = { "up",
                               "Makes the task's network namespace; asking again gives the same answer.",
                               up_fields,
                               sizeof(struct mesh_up),
                               up_reply_fields,
                               sizeof(struct mesh_up_reply) };
const struct op op_mesh_ready = { "ready", "Sends published ports' traffic to the task, or no new connections.",
                                  ready_fields, sizeof(struct mesh_ready), EMPTY };
const struct op op_mesh_quiet = { "quiet",
                                  "Waits until nobody is connected to a task that gets no new connections.",
                                  quiet_fields,
                                  sizeof(struct mesh_quiet),
                                  quiet_reply_fields,
                                  sizeof(struct mesh_quiet_reply) };
const struct op op_mesh_down = { "down", "Removes the task's network namespace and all that belongs to it.",
                                 task_fields, sizeof(struct mesh_task), EMPTY };
const struct op op_mesh_networks = { "networks", "The swarm's networks that this node has a part in.", EMPTY,
                                     networks_reply_fields, sizeof(struct mesh_networks_reply) };
const struct op op_mesh_list = { "list", "The tasks that have a sandbox.", EMPTY, list_reply_fields,
                                 sizeof(struct mesh_list_reply) };
