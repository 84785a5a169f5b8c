#include "common/proto/msg_agentd.h"

#define REF_MAX 512
#define WAIT_MAX_MS 600000

static const struct field empty_fields[] = { FIELD_END };
static const struct field logs_fields[] = {
    FIELD_STR(struct agent_logs, TaskID, 1, 64),
    FIELD_BOOL(struct agent_logs, Stdout),
    FIELD_BOOL(struct agent_logs, Stderr),
    FIELD_I64(struct agent_logs, Since, 0, INT64_MAX),
    FIELD_I64(struct agent_logs, Until, 0, INT64_MAX),
    FIELD_I64(struct agent_logs, Tail, INT64_MIN, INT64_MAX),
    FIELD_STR(struct agent_logs, Cursor, 0, 256),
    FIELD_U64(struct agent_logs, WaitMs, 0, WAIT_MAX_MS),
    FIELD_END,
};
static const struct field log_line_fields[] = {
    FIELD_U64(struct agent_log_line, Stream, 1, 2),
    FIELD_I64(struct agent_log_line, Time, INT64_MIN, INT64_MAX),
    FIELD_BIN(struct agent_log_line, Data, 0, AGENT_LOG_BYTES_MAX),
    FIELD_END,
};
static const struct field logs_reply_fields[] = {
    FIELD_LIST(struct agent_logs_reply, Lines, log_line_fields, struct agent_log_line, FIELD_LIST_MAX),
    FIELD_STR(struct agent_logs_reply, Cursor, 0, 256),
    FIELD_BOOL(struct agent_logs_reply, End),
    FIELD_END,
};
static const struct field image_load_fields[] = {
    FIELD_STR(struct agent_image_load, UploadID, 1, 64),
    FIELD_U64(struct agent_image_load, Offset, 0, UINT64_MAX),
    FIELD_BIN(struct agent_image_load, Data, 0, 1u << 20),
    FIELD_BOOL(struct agent_image_load, Last),
    FIELD_END,
};
static const struct field image_load_reply_fields[] = {
    FIELD_STRS(struct agent_image_load_reply, Loaded, 10000),
    FIELD_END,
};
static const struct field image_ref_fields[] = {
    FIELD_STR(struct agent_image_ref, Image, 1, REF_MAX),
    FIELD_STR(struct agent_image_ref, RegistryAuth, 0, FIELD_TEXT_MAX),
    FIELD_BOOL(struct agent_image_ref, Force),
    FIELD_END,
};
static const struct field image_pull_reply_fields[] = {
    FIELD_STR(struct agent_image_pull_reply, Image, 0, REF_MAX),
    FIELD_STR(struct agent_image_pull_reply, Digest, 0, 128),
    FIELD_BOOL(struct agent_image_pull_reply, UpToDate),
    FIELD_END,
};
static const struct field image_fields[] = {
    FIELD_STR(struct agent_image, ID, 1, 128),
    FIELD_STRS(struct agent_image, RepoTags, 10000),
    FIELD_STRS(struct agent_image, RepoDigests, 10000),
    FIELD_I64(struct agent_image, Created, INT64_MIN, INT64_MAX),
    FIELD_U64(struct agent_image, Size, 0, UINT64_MAX),
    FIELD_U64(struct agent_image, Containers, 0, UINT64_MAX),
    FIELD_STRMAP(struct agent_image, Labels, 10000),
    FIELD_RAW(struct agent_image, Config),
    FIELD_END,
};
static const struct field image_list_reply_fields[] = {
    FIELD_LIST(struct agent_image_list_reply, Images, image_fields, struct agent_image, 100000),
    FIELD_END,
};
static const struct field image_remove_reply_fields[] = {
    FIELD_STRS(struct agent_image_remove_reply, Untagged, 10000),
    FIELD_STRS(struct agent_image_remove_reply, Deleted, 10000),
    FIELD_END,
};
static const struct field image_tag_fields[] = {
    FIELD_STR(struct agent_image_tag, Image, 1, REF_MAX),
    FIELD_STR(struct agent_image_tag, Repo, 1, REF_MAX),
    FIELD_STR(struct agent_image_tag, Tag, 0, 128),
    FIELD_END,
};
static const struct field image_resolve_reply_fields[] = {
    FIELD_STR(struct agent_image_resolve_reply, MediaType, 0, 256),
    FIELD_STR(struct agent_image_resolve_reply, Digest, 0, 128),
    FIELD_U64(struct agent_image_resolve_reply, Size, 0, UINT64_MAX),
    FIELD_STR(struct agent_image_resolve_reply, Architecture, 0, 64),
    FIELD_STR(struct agent_image_resolve_reply, OS, 0, 64),
    FIELD_END,
};
static const struct field info_fields[] = {
    FIELD_U64(struct agent_info, Containers, 0, UINT64_MAX),
    FIELD_U64(struct agent_info, ContainersRunning, 0, UINT64_MAX),
    FIELD_U64(struct agent_info, Images, 0, UINT64_MAX),
    FIELD_STR(struct agent_info, Runtime, 0, 64),
    FIELD_STR(struct agent_info, CgroupDriver, 0, 64),
    FIELD_STR(struct agent_info, CgroupVersion, 0, 8),
    FIELD_STR(struct agent_info, StorageDriver, 0, 64),
    FIELD_RAW(struct agent_info, Description),
    FIELD_END,
};

#define EMPTY empty_fields, sizeof(struct agent_empty)
static const struct field containers_fields[] = {
    FIELD_STR(struct agent_containers, ID, 0, 64),
    FIELD_END,
};
static const struct field container_mount_fields[] = {
    FIELD_STR(struct agent_container_mount, Type, 0, 64),
    FIELD_STR(struct agent_container_mount, Name, 0, 256),
    FIELD_STR(struct agent_container_mount, Source, 0, FIELD_TEXT_MAX),
    FIELD_STR(struct agent_container_mount, Destination, 0, FIELD_TEXT_MAX),
    FIELD_BOOL(struct agent_container_mount, RW),
    FIELD_END,
};
static const struct field health_result_fields[] = {
    FIELD_I64(struct agent_health_result, Start, INT64_MIN, INT64_MAX),
    FIELD_I64(struct agent_health_result, End, INT64_MIN, INT64_MAX),
    FIELD_I64(struct agent_health_result, ExitCode, INT64_MIN, INT64_MAX),
    FIELD_BIN(struct agent_health_result, Output, 0, 8192),
    FIELD_END,
};
static const struct field health_fields[] = {
    FIELD_STR(struct agent_health, Status, 0, 16),
    FIELD_U64(struct agent_health, FailingStreak, 0, UINT64_MAX),
    FIELD_LIST(struct agent_health, Log, health_result_fields, struct agent_health_result, 100),
    FIELD_STRS(struct agent_health, Test, 100000),
    FIELD_I64(struct agent_health, Interval, 0, INT64_MAX),
    FIELD_I64(struct agent_health, Timeout, 0, INT64_MAX),
    FIELD_I64(struct agent_health, StartPeriod, 0, INT64_MAX),
    FIELD_I64(struct agent_health, StartInterval, 0, INT64_MAX),
    FIELD_U64(struct agent_health, Retries, 0, UINT64_MAX),
    FIELD_END,
};
static const struct field event_item_fields[] = {
    FIELD_I64(struct agent_event_item, Time, INT64_MIN, INT64_MAX),
    FIELD_STR(struct agent_event_item, Action, 1, 64),
    FIELD_STR(struct agent_event_item, TaskID, 1, 128),
    FIELD_STR(struct agent_event_item, ContainerID, 0, 128),
    FIELD_STR(struct agent_event_item, Image, 0, 4096),
    FIELD_STR(struct agent_event_item, Name, 0, 1024),
    FIELD_STR(struct agent_event_item, ServiceID, 0, 64),
    FIELD_STR(struct agent_event_item, ServiceName, 0, 256),
    FIELD_STR(struct agent_event_item, NodeID, 0, 64),
    FIELD_I64(struct agent_event_item, ExitCode, INT64_MIN, INT64_MAX),
    FIELD_END,
};
static const struct field events_fields[] = {
    FIELD_U64(struct agent_events, Seq, 0, UINT64_MAX),
    FIELD_U64(struct agent_events, WaitMs, 0, WAIT_MAX_MS),
    FIELD_END,
};
static const struct field events_reply_fields[] = {
    FIELD_U64(struct agent_events_reply, Seq, 0, UINT64_MAX),
    FIELD_LIST(struct agent_events_reply, Events, event_item_fields, struct agent_event_item, 1000),
    FIELD_END,
};
static const struct field container_fields[] = {
    FIELD_STR(struct agent_container, TaskID, 1, 64),
    FIELD_STR(struct agent_container, ID, 1, 64),
    FIELD_STR(struct agent_container, ImageID, 0, 128),
    FIELD_STR(struct agent_container, State, 1, 16),
    FIELD_I64(struct agent_container, Since, INT64_MIN, INT64_MAX),
    FIELD_U64(struct agent_container, PID, 0, UINT64_MAX),
    FIELD_I64(struct agent_container, ExitCode, INT64_MIN, INT64_MAX),
    FIELD_STRS(struct agent_container, Argv, 100000),
    FIELD_STRS(struct agent_container, Addresses, 100),
    FIELD_LIST(struct agent_container, Mounts, container_mount_fields, struct agent_container_mount, 10000),
    FIELD_OBJ(struct agent_container, Health, health_fields, struct agent_health),
    FIELD_STR(struct agent_container, ServiceID, 0, 64),
    FIELD_STR(struct agent_container, ServiceName, 0, 256),
    FIELD_STR(struct agent_container, NodeID, 0, 64),
    FIELD_U64(struct agent_container, Slot, 0, UINT64_MAX),
    FIELD_RAW(struct agent_container, Spec),
    FIELD_END,
};
static const struct field containers_reply_fields[] = {
    FIELD_LIST(struct agent_containers_reply, Containers, container_fields, struct agent_container, FIELD_LIST_MAX),
    FIELD_END,
};
static const struct field volumes_fields[] = {
    FIELD_STR(struct agent_volumes, Name, 0, 256),
    FIELD_END,
};
static const struct field volume_fields[] = {
    FIELD_STR(struct agent_volume, Name, 1, 256),
    FIELD_STR(struct agent_volume, Mountpoint, 0, 4096),
    FIELD_I64(struct agent_volume, CreatedAt, INT64_MIN, INT64_MAX),
    FIELD_STRMAP(struct agent_volume, Labels, 10000),
    FIELD_END,
};
static const struct field volumes_reply_fields[] = {
    FIELD_LIST(struct agent_volumes_reply, Volumes, volume_fields, struct agent_volume, FIELD_LIST_MAX),
    FIELD_END,
};

#define REF image_ref_fields, sizeof(struct agent_image_ref)

const struct op op_agent_logs = { "logs",
                                  "A page of a task's log (long poll).",
                                  logs_fields,
                                  sizeof(struct agent_logs),
                                  logs_reply_fields,
                                  sizeof(struct agent_logs_reply) };
const struct op op_agent_image_load = { "image_load",
                                        "A piece of an image archive; the last one loads it.",
                                        image_load_fields,
                                        sizeof(struct agent_image_load),
                                        image_load_reply_fields,
                                        sizeof(struct agent_image_load_reply) };
const struct op op_agent_image_pull = { "image_pull", "Fetches an image from its registry.", REF,
                                        image_pull_reply_fields, sizeof(struct agent_image_pull_reply) };
const struct op op_agent_image_list = { "image_list", "All images of this node.", EMPTY, image_list_reply_fields,
                                        sizeof(struct agent_image_list_reply) };
const struct op op_agent_image_inspect = { "image_inspect", "One image with its configuration.", REF, image_fields,
                                           sizeof(struct agent_image) };
const struct op op_agent_image_remove = { "image_remove", "Removes a name, and the image with its last name.", REF,
                                          image_remove_reply_fields, sizeof(struct agent_image_remove_reply) };
const struct op op_agent_image_tag = { "image_tag", "Gives an image another name.", image_tag_fields,
                                       sizeof(struct agent_image_tag), EMPTY };
const struct op op_agent_image_resolve = { "image_resolve", "Asks the registry for the digest behind a name.", REF,
                                           image_resolve_reply_fields, sizeof(struct agent_image_resolve_reply) };
const struct op op_agent_info = { "info", "What the executor has and runs.", EMPTY, info_fields,
                                  sizeof(struct agent_info) };
const struct op op_agent_containers = { "containers",
                                        "The containers of this node's tasks.",
                                        containers_fields,
                                        sizeof(struct agent_containers),
                                        containers_reply_fields,
                                        sizeof(struct agent_containers_reply) };
const struct op op_agent_volumes = { "volumes",
                                     "The local volumes of this node.",
                                     volumes_fields,
                                     sizeof(struct agent_volumes),
                                     volumes_reply_fields,
                                     sizeof(struct agent_volumes_reply) };
const struct op op_agent_events = { "events",
                                    "What happened to containers (long poll).",
                                    events_fields,
                                    sizeof(struct agent_events),
                                    events_reply_fields,
                                    sizeof(struct agent_events_reply) };
const struct op op_agent_leave = { "leave", "Stops and removes every task: the node leaves its swarm.", EMPTY, EMPTY };
