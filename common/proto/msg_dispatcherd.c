#include "common/proto/msg_dispatcherd.h"

#define ID_MAX 64
#define TASKS_MAX 100000
#define NETWORKS_MAX 100000

const struct field task_port_fields[] = {
    FIELD_STR(struct task_port, Protocol, 0, 8),
    FIELD_STR(struct task_port, PublishMode, 0, 16),
    FIELD_U64(struct task_port, TargetPort, 0, 65535),
    FIELD_U64(struct task_port, PublishedPort, 0, 65535),
    FIELD_END,
};
const struct field assignment_fields[] = {
    FIELD_STR(struct assignment, ID, 1, ID_MAX),
    FIELD_U64(struct assignment, Rev, 0, UINT64_MAX),
    FIELD_STR(struct assignment, ServiceID, 0, ID_MAX),
    FIELD_STR(struct assignment, ServiceName, 0, 256),
    FIELD_STRMAP(struct assignment, ServiceLabels, 10000),
    FIELD_U64(struct assignment, Slot, 0, UINT64_MAX),
    FIELD_STR(struct assignment, NodeID, 0, ID_MAX),
    FIELD_STR(struct assignment, NodeHostname, 0, 256),
    FIELD_STR(struct assignment, DesiredState, 1, 16),
    FIELD_RAW(struct assignment, Spec),
    FIELD_RAW(struct assignment, Ports),
    FIELD_RAW(struct assignment, GenericResources),
    FIELD_RAW(struct assignment, LogDriver),
    FIELD_STR(struct assignment, RegistryAuth, 0, FIELD_TEXT_MAX),
    FIELD_LIST(struct assignment, Networks, net_attachment_fields, struct net_attachment, NET_PER_TASK_MAX),
    FIELD_BOOL(struct assignment, Drained),
    FIELD_U64(struct assignment, DrainMs, 0, 86400000),
    FIELD_END,
};
static const struct field session_fields[] = {
    FIELD_STR(struct disp_session, Hostname, 1, 256),
    FIELD_RAW_REQ(struct disp_session, Description),
    FIELD_STR(struct disp_session, Addr, 0, 128),
    FIELD_STR(struct disp_session, DataPathAddr, 0, 128),
    FIELD_STR(struct disp_session, BootID, 0, NET_BOOT_ID_MAX),
    FIELD_END,
};
static const struct field session_reply_fields[] = {
    FIELD_STR(struct disp_session_reply, NodeID, 1, ID_MAX),
    FIELD_STR(struct disp_session_reply, SessionID, 1, ID_MAX),
    FIELD_U64(struct disp_session_reply, HeartbeatMs, 1, 86400000),
    FIELD_END,
};
static const struct field assignments_fields[] = {
    FIELD_STR(struct disp_assignments, SessionID, 1, ID_MAX),
    FIELD_U64(struct disp_assignments, Seq, 0, UINT64_MAX),
    FIELD_U64(struct disp_assignments, WaitMs, 0, 86400000),
    FIELD_END,
};
static const struct field assignments_reply_fields[] = {
    FIELD_U64(struct disp_assignments_reply, Seq, 0, UINT64_MAX),
    FIELD_BOOL(struct disp_assignments_reply, Full),
    FIELD_LIST(struct disp_assignments_reply, Tasks, assignment_fields, struct assignment, TASKS_MAX),
    FIELD_STRS(struct disp_assignments_reply, Removed, TASKS_MAX),
    FIELD_END,
};
const struct field task_status_fields[] = {
    FIELD_STR(struct task_status, TaskID, 1, ID_MAX),
    FIELD_STR(struct task_status, State, 1, 16),
    FIELD_STR(struct task_status, Message, 0, 4096),
    FIELD_STR(struct task_status, Err, 0, 4096),
    FIELD_I64(struct task_status, Timestamp, INT64_MIN, INT64_MAX),
    FIELD_STR(struct task_status, ContainerID, 0, 128),
    FIELD_U64(struct task_status, PID, 0, UINT32_MAX),
    FIELD_I64(struct task_status, ExitCode, INT32_MIN, INT32_MAX),
    FIELD_BOOL(struct task_status, HasContainer),
    FIELD_LIST(struct task_status, Ports, task_port_fields, struct task_port, 65536),
    FIELD_STRS(struct task_status, Addresses, 256),
    FIELD_END,
};
static const struct field status_fields[] = {
    FIELD_STR(struct disp_status, SessionID, 1, ID_MAX),
    FIELD_LIST(struct disp_status, Statuses, task_status_fields, struct task_status, TASKS_MAX),
    FIELD_END,
};
static const struct field status_reply_fields[] = {
    FIELD_STRS(struct disp_status_reply, Unknown, TASKS_MAX),
    FIELD_END,
};
static const struct field network_fields[] = {
    FIELD_U64(struct disp_network, Seq, 0, UINT64_MAX),
    FIELD_U64(struct disp_network, WaitMs, 0, 86400000),
    FIELD_STRS(struct disp_network, Networks, NETWORKS_MAX),
    FIELD_END,
};
static const struct field network_reply_fields[] = {
    FIELD_U64(struct disp_network_reply, Seq, 0, UINT64_MAX),
    FIELD_BOOL(struct disp_network_reply, Full),
    FIELD_U64(struct disp_network_reply, DataPathPort, 0, 65535),
    FIELD_LIST(struct disp_network_reply, Networks, net_network_fields, struct net_network, NETWORKS_MAX),
    FIELD_LIST(struct disp_network_reply, Services, net_service_fields, struct net_service, FIELD_LIST_MAX),
    FIELD_LIST(struct disp_network_reply, Endpoints, net_endpoint_fields, struct net_endpoint, FIELD_LIST_MAX),
    FIELD_LIST(struct disp_network_reply, Nodes, net_node_fields, struct net_node, FIELD_LIST_MAX),
    FIELD_LIST(struct disp_network_reply, Keys, net_key_fields, struct net_key, 64),
    FIELD_STRS(struct disp_network_reply, GoneNetworks, NETWORKS_MAX),
    FIELD_STRS(struct disp_network_reply, GoneNodes, FIELD_LIST_MAX),
    FIELD_STRS(struct disp_network_reply, GoneServices, FIELD_LIST_MAX),
    FIELD_STRS(struct disp_network_reply, GoneEndpoints, FIELD_LIST_MAX),
    FIELD_END,
};
static const struct field payload_fields[] = {
    FIELD_STR(struct disp_payload, SessionID, 1, ID_MAX), FIELD_STR(struct disp_payload, TaskID, 1, ID_MAX),
    FIELD_STR(struct disp_payload, Kind, 1, 16),          FIELD_STR(struct disp_payload, ID, 1, ID_MAX),
    FIELD_BIN(struct disp_payload, Key, 32, 32),          FIELD_END,
};
static const struct field payload_reply_fields[] = {
    FIELD_STR(struct disp_payload_reply, Name, 0, 256),
    FIELD_STRMAP(struct disp_payload_reply, Labels, 10000),
    FIELD_BIN(struct disp_payload_reply, Box, 0, 1024000 + 64),
    FIELD_STR(struct disp_payload_reply, Templating, 0, 64),
    FIELD_END,
};
static const struct field secret_is_fields[] = {
    FIELD_STR(struct disp_secret_is, ID, 1, ID_MAX),
    FIELD_BIN(struct disp_secret_is, Nonce, 32, 32),
    FIELD_BIN(struct disp_secret_is, Digest, 32, 32),
    FIELD_END,
};
static const struct field secret_is_reply_fields[] = {
    FIELD_BOOL(struct disp_secret_is_reply, Same),
    FIELD_END,
};
static const struct field task_usage_fields[] = {
    FIELD_STR(struct task_usage, TaskID, 1, ID_MAX),
    FIELD_U64(struct task_usage, NanoCPUs, 0, INT64_MAX),
    FIELD_U64(struct task_usage, MemoryBytes, 0, INT64_MAX),
    FIELD_BOOL(struct task_usage, HasMetric),
    FIELD_F64(struct task_usage, Metric),
    FIELD_STR(struct task_usage, Error, 0, 1024),
    FIELD_END,
};
static const struct field usage_fields[] = {
    FIELD_STR(struct disp_usage, SessionID, 1, ID_MAX),
    FIELD_LIST(struct disp_usage, Usages, task_usage_fields, struct task_usage, TASKS_MAX),
    FIELD_END,
};
static const struct field usage_reply_fields[] = { FIELD_END };
static const struct field link_fields[] = {
    FIELD_STR(struct disp_link, NodeID, 1, ID_MAX),
    FIELD_BOOL(struct disp_link, Up),
    FIELD_END,
};
static const struct field link_reply_fields[] = { FIELD_END };

const struct op op_disp_session = { "session",
                                    "Opens an agent's session and stores the node's description.",
                                    session_fields,
                                    sizeof(struct disp_session),
                                    session_reply_fields,
                                    sizeof(struct disp_session_reply) };
const struct op op_disp_assignments = { "assignments",
                                        "What this node must run that is newer than Seq (long poll).",
                                        assignments_fields,
                                        sizeof(struct disp_assignments),
                                        assignments_reply_fields,
                                        sizeof(struct disp_assignments_reply) };
const struct op op_disp_status = { "status",
                                   "Reports task states; answered when they are stored.",
                                   status_fields,
                                   sizeof(struct disp_status),
                                   status_reply_fields,
                                   sizeof(struct disp_status_reply) };
const struct op op_disp_network = { "network",
                                    "What a node must know of its tasks' networks that is newer than Seq (long poll); "
                                    "asking says that all up to Seq is in place.",
                                    network_fields,
                                    sizeof(struct disp_network),
                                    network_reply_fields,
                                    sizeof(struct disp_network_reply) };
const struct op op_disp_payload = { "payload",
                                    "The content of a secret or config, for a task on the caller's node that uses it.",
                                    payload_fields,
                                    sizeof(struct disp_payload),
                                    payload_reply_fields,
                                    sizeof(struct disp_payload_reply) };
const struct op op_disp_secret_is = { "secret_is",
                                      "For the local apid: is this what a secret holds?",
                                      secret_is_fields,
                                      sizeof(struct disp_secret_is),
                                      secret_is_reply_fields,
                                      sizeof(struct disp_secret_is_reply) };
const struct op op_disp_usage = { "usage",
                                  "What tasks use, of services that are scaled by it.",
                                  usage_fields,
                                  sizeof(struct disp_usage),
                                  usage_reply_fields,
                                  sizeof(struct disp_usage_reply) };
const struct op op_disp_link = { "link",
                                 "Hint: the link to a node came or went.",
                                 link_fields,
                                 sizeof(struct disp_link),
                                 link_reply_fields,
                                 sizeof(struct disp_link_reply) };
