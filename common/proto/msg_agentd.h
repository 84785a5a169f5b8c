/* msg_agentd.h - what agentd answers (to apid on its own node; to other nodes through gatewayd later). */
#pragma once

#include "common/proto/fields.h"

struct agent_empty {
    char unused_;
};

#define AGENT_LOG_BYTES_MAX (1u << 20)
/* A page of one task's log. Lines come in order; a follower asks again with the Cursor it got. */
struct agent_logs {
    struct str TaskID;
    bool Stdout, Stderr;
    int64_t Since;     /* wall ns; 0: from the start */
    int64_t Until;     /* wall ns; 0: no end */
    int64_t Tail;      /* the last N lines; negative: all. Only looked at when Cursor is empty */
    struct str Cursor; /* opaque; empty: start */
    uint64_t WaitMs;   /* with nothing new, answer after this (long poll); 0: at once */
};
struct agent_log_line {
    uint64_t Stream; /* 1 stdout, 2 stderr */
    int64_t Time;    /* wall ns */
    struct str Data; /* bytes, with the newline when the line had one */
};
struct agent_logs_reply {
    struct list Lines; /* struct agent_log_line, at most AGENT_LOG_BYTES_MAX of data */
    struct str Cursor;
    bool End; /* the task will write no more and everything was delivered */
};

/* An archive arrives in order, in pieces of at most 1 MiB; the first piece has Offset 0. */
struct agent_image_load {
    struct str UploadID; /* chosen by the caller */
    uint64_t Offset;
    struct str Data;
    bool Last; /* then the reply comes when the image is in the store */
};
struct agent_image_load_reply {
    struct strs Loaded; /* "busybox:latest", or "sha256:..." for an image without a name */
};

struct agent_image_ref {
    struct str Image;        /* name[:tag][@digest], or an id or unique id prefix */
    struct str RegistryAuth; /* JSON text {username,password,...}; secret; may be empty */
    bool Force;
};
struct agent_image_pull_reply {
    struct str Image, Digest;
    bool UpToDate; /* nothing was fetched */
};
struct agent_image {
    struct str ID; /* sha256:... */
    struct strs RepoTags, RepoDigests;
    int64_t Created; /* unix seconds */
    uint64_t Size, Containers;
    struct strmap Labels;
    struct str Config; /* raw map: the OCI image configuration; only in image_inspect */
};
struct agent_image_list_reply {
    struct list Images; /* struct agent_image */
};
struct agent_image_remove_reply {
    struct strs Untagged, Deleted;
};
struct agent_image_tag {
    struct str Image, Repo, Tag;
};
struct agent_image_resolve_reply {
    struct str MediaType, Digest;
    uint64_t Size;
    struct str Architecture, OS;
};

struct agent_info {
    uint64_t Containers, ContainersRunning, Images;
    struct str Runtime, CgroupDriver, CgroupVersion, StorageDriver;
    struct str Description; /* raw map, Node.Description */
};

/* What docker ps and inspect want to know beyond the store; by task id or unique container id prefix, or all. */
struct agent_containers {
    struct str ID;
};
struct agent_container_mount {
    struct str Type, Name, Source, Destination; /* Name: of a volume */
    bool RW;
};
struct agent_health_result {
    int64_t Start, End; /* wall ns */
    int64_t ExitCode;   /* -1: it took too long, or could not be run */
    struct str Output;  /* bytes; at most 4 KiB and "..." */
};
struct agent_health {
    struct str Status; /* "none", "starting", "healthy", "unhealthy" */
    uint64_t FailingStreak;
    struct list Log; /* struct agent_health_result: the last ones; only of a container that was asked for by ID */
    /* What is run, and when. */
    struct strs Test;
    int64_t Interval, Timeout, StartPeriod, StartInterval; /* ns */
    uint64_t Retries;
};
struct agent_container {
    struct str TaskID, ID, ImageID;
    struct str State; /* "created", "running", "exited" */
    int64_t Since;    /* wall ns: when it entered its state */
    uint64_t PID;     /* 0 when it does not run */
    int64_t ExitCode;
    struct strs Argv; /* what runs, as image and service together want it */
    struct strs Addresses;
    struct list Mounts; /* struct agent_container_mount */
    struct agent_health Health;
    /* As assigned: on a worker nobody else knows. */
    struct str ServiceID, ServiceName, NodeID;
    uint64_t Slot;   /* 0: of a global service */
    struct str Spec; /* raw map: the task template */
};
struct agent_containers_reply {
    struct list Containers; /* struct agent_container */
};

/* What happened to containers after Seq (long poll). Seq grows, also over restarts of agentd. */
struct agent_events {
    uint64_t Seq, WaitMs;
};
struct agent_event_item {
    int64_t Time;      /* wall ns */
    struct str Action; /* "start", "die", "health_status: healthy", "health_status: unhealthy" */
    struct str TaskID, ContainerID, Image, Name, ServiceID, ServiceName, NodeID;
    int64_t ExitCode;
};
struct agent_events_reply {
    uint64_t Seq;
    struct list Events; /* struct agent_event_item: those that are still known */
};

struct agent_volumes {
    struct str Name; /* empty: all */
};
struct agent_volume {
    struct str Name, Mountpoint;
    int64_t CreatedAt; /* wall ns */
    struct strmap Labels;
};
struct agent_volumes_reply {
    struct list Volumes; /* struct agent_volume, by name */
};

extern const struct op op_agent_logs, op_agent_image_load, op_agent_image_pull, op_agent_image_list,
    op_agent_image_inspect, op_agent_image_remove, op_agent_image_tag, op_agent_image_resolve, op_agent_info,
    op_agent_containers, op_agent_volumes, op_agent_events,
    op_agent_leave; /* leave: stop and remove every task; the node is leaving its swarm */
