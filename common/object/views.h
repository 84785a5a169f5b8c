/*
 * views.h - what the controllers read of a document, as C structs (FIELDS_VIEW decoding: unknown fields are skipped).
 *
 * All text borrows from the snapshot. Zero means absent; view_replicas() and its like apply Docker's defaults, since
 * specs are stored as they were posted.
 */
#pragma once

#include "common/proto/fields.h"

struct view_version {
    uint64_t Index;
};

struct view_port {
    struct str Name, Protocol, PublishMode; /* "": tcp, ingress */
    uint64_t TargetPort, PublishedPort;
};

/* ---- service ---- */
struct view_replicated {
    uint64_t Replicas;
    struct str ReplicasRaw; /* present or not: absence means 1 (raw span of Replicas; empty when absent) */
};
struct view_replicated_job {
    uint64_t MaxConcurrent, TotalCompletions;
};
struct view_nothing {
    char unused_;
};
struct view_mode {
    struct view_replicated *Replicated;
    struct view_nothing *Global, *GlobalJob;
    struct view_replicated_job *ReplicatedJob;
};
struct view_update_config {
    struct str ParallelismRaw; /* absent: 1 */
    uint64_t Parallelism;
    int64_t Delay, Monitor;
    struct str FailureAction, Order;
    double MaxFailureRatio;
};
struct view_restart {
    struct str Condition; /* "none", "on-failure", "any"; "": any */
    struct str DelayRaw;  /* absent: 5 s */
    int64_t Delay, Window;
    uint64_t MaxAttempts;
};
struct view_spread {
    struct str SpreadDescriptor;
};
struct view_preference {
    struct view_spread *Spread;
};
struct view_platform {
    struct str Architecture, OS;
};
struct view_placement {
    struct strs Constraints;
    struct list Preferences; /* view_preference */
    struct list Platforms;   /* view_platform */
    uint64_t MaxReplicas;
};
struct view_discrete {
    struct str Kind;
    int64_t Value;
};
struct view_named {
    struct str Kind, Value;
};
struct view_generic {
    struct view_discrete *DiscreteResourceSpec;
    struct view_named *NamedResourceSpec;
};
struct view_resource {
    int64_t NanoCPUs, MemoryBytes, Pids;
    struct list GenericResources; /* view_generic */
};
struct view_resources {
    struct view_resource Limits, Reservations;
};
struct view_endpoint_spec {
    struct str Mode;
    struct list Ports; /* view_port */
};
struct view_container {
    struct str Image;
    int64_t StopGracePeriod;
    struct str StopGracePeriodRaw;
};
struct view_driver {
    struct str Name;
    struct strmap Options;
};
struct view_attachment_config { /* a network that a service asks for */
    struct str Target;          /* ID */
    struct strs Aliases;
    struct strmap DriverOpts;
};
struct view_task_template {
    struct view_container *ContainerSpec;
    struct list Networks; /* view_attachment_config */
    struct view_resources Resources;
    struct view_restart RestartPolicy;
    struct view_placement Placement;
    struct view_driver *LogDriver;
    uint64_t ForceUpdate;
};
struct view_service_spec {
    struct str Name;
    struct strmap Labels;
    struct view_task_template TaskTemplate;
    struct view_mode Mode;
    struct view_update_config *UpdateConfig, *RollbackConfig;
    struct view_endpoint_spec EndpointSpec;
};
struct view_vip {
    struct str NetworkID, Addr; /* CIDR */
};
struct view_endpoint {
    struct list Ports;      /* view_port: what is allocated */
    struct list VirtualIPs; /* view_vip */
};
struct view_update_status {
    struct str State, Message;
    int64_t StartedAt, CompletedAt;
    uint64_t Slots, Failures; /* orchestratord's count, of this phase: slots to replace when it began, failed tasks */
};
struct view_job_status {
    struct view_version JobIteration; /* a run of the job; apid counts up when the service changes, orchestratord when
                                         its schedule says so */
    int64_t LastExecution;            /* when that run began; 0: it has a schedule, and has not begun */
    int64_t ScheduledFrom;            /* jobs with a schedule: what was due until then has been dealt with */
    uint64_t Skipped;                 /* due times at which a run was still going */
};
/* Services that scale themselves (labels microswarm.autoscale.*). */
struct view_autoscale { /* written by orchestratord */
    uint64_t Replicas;  /* wanted instead of what the spec says; 0: not yet decided */
    int64_t ChangedAt;
    struct str Reason;
};
struct view_usage {                 /* written by dispatcherd: the mean over the service's running tasks */
    uint64_t Tasks;                 /* that reported */
    uint64_t NanoCPUs, MemoryBytes; /* of one task */
    bool HasMetric;
    double Metric; /* of one task */
    struct str Error;
    int64_t At; /* wall ns */
};
struct view_service {
    struct str ID;
    struct view_version Version;
    uint64_t Rev;
    int64_t CreatedAt, UpdatedAt;
    struct view_service_spec Spec;
    struct str TaskSpecID;         /* the taskspec that new tasks get; changes with TaskTemplate or EndpointSpec */
    struct str PreviousSpec;       /* raw map; absent or nil when there is none */
    struct str PreviousTaskSpecID; /* the taskspec of PreviousSpec */
    struct view_endpoint Endpoint;
    struct view_update_status UpdateStatus;
    struct view_job_status *JobStatus;
    struct view_autoscale *Autoscale;
    struct view_usage *Usage;
};

/* ---- taskspec: immutable; written by apid with the service, deleted by orchestratord when unused ---- */
struct view_taskspec {
    struct str ID, ServiceID;
    struct str SpecRaw; /* "Spec": raw map, the TaskTemplate */
    struct view_task_template Spec;
    struct view_endpoint_spec EndpointSpec;
    struct str CredentialID; /* kind credential: registry auth of this spec; "" none */
    int64_t CreatedAt;
};

/* ---- task ---- */
/* Numbers are swarmkit's; the order matters (swarmkit.md §2.1). */
enum task_state {
    TASK_NEW = 0,
    TASK_PENDING = 64,
    TASK_ASSIGNED = 192,
    TASK_ACCEPTED = 256,
    TASK_PREPARING = 320,
    TASK_READY = 384,
    TASK_STARTING = 448,
    TASK_RUNNING = 512,
    TASK_COMPLETE = 576,
    TASK_SHUTDOWN = 640,
    TASK_FAILED = 704,
    TASK_REJECTED = 768,
    TASK_REMOVE = 800,
    TASK_ORPHANED = 832,
};
/* task_state_parse - Docker's lower-case name; TASK_NEW for "" and unknown names. */
enum task_state task_state_parse(struct str name);
const char *task_state_name(enum task_state s);

struct view_container_status {
    struct str ContainerID;
    uint64_t PID;
    int64_t ExitCode;
};
struct view_task_status {
    struct str State, Message, Err;
    int64_t Timestamp; /* the node's clock */
    int64_t AppliedAt; /* the leader's clock when it was stored */
    int64_t RunningAt; /* AppliedAt of the first status "running", in those after it; see view_running_since() */
    struct view_container_status *ContainerStatus;
};
struct view_evict { /* schedulerd wants it elsewhere; orchestratord replaces it as it would on a drained node */
    struct str Reason;
    int64_t At; /* wall ns */
};
struct view_task_network { /* what a task got on one network; the ingress network too */
    struct str NetworkID;
    struct strs Addresses; /* CIDR */
    struct strs Aliases;
};
struct view_task {
    struct str ID;
    struct view_version Version;
    uint64_t Rev;
    int64_t CreatedAt, UpdatedAt;
    struct str ServiceID, TaskSpecID, NodeID;
    uint64_t Slot;
    struct str DesiredState; /* "ready", "running", "complete", "shutdown", "remove" */
    struct view_task_status Status;
    int64_t StartNotBefore;           /* wall ns: a restarted task waits in "ready" until then; 0 none */
    struct str ReplacesID;            /* the task it waits for to have stopped; "" none */
    struct list Ports;                /* view_port: from the service's endpoint, fixed when allocated */
    struct list NetworksAttachments;  /* view_task_network: fixed when allocated */
    struct view_version JobIteration; /* of the job's run that it belongs to */
    struct view_evict *Evict;
    struct list GenericResources; /* view_generic: what schedulerd gave it */
};

/* ---- node, cluster ---- */
struct view_node_resources {
    int64_t NanoCPUs, MemoryBytes;
    struct list GenericResources;
};
struct view_plugin {
    struct str Type, Name;
};
struct view_engine {
    struct str EngineVersion;
    struct strmap Labels;
    struct list Plugins; /* view_plugin */
};
struct view_node_description {
    struct str Hostname;
    struct view_platform Platform;
    struct view_node_resources Resources;
    struct view_engine Engine;
};
struct view_node_spec {
    struct str Name, Role, Availability;
    struct strmap Labels;
};
struct view_node_status {
    struct str State, Message, Addr;
};
struct view_node {
    struct str ID;
    struct view_version Version;
    uint64_t Rev;
    struct view_node_spec Spec;
    struct str Role; /* observed: what its certificate says; "" until then */
    struct view_node_description Description;
    struct view_node_status Status;
    struct str DataPathAddr; /* "": Status.Addr */
};
struct view_orchestration {
    struct str TaskHistoryRetentionLimitRaw; /* absent: 5 */
    int64_t TaskHistoryRetentionLimit;
};
struct view_dispatcher {
    int64_t HeartbeatPeriod; /* 0: 5 s */
};
struct view_task_defaults {
    struct view_driver *LogDriver;
};
struct view_cluster_spec {
    struct str Name;
    struct view_orchestration Orchestration;
    struct view_dispatcher Dispatcher;
    struct view_task_defaults TaskDefaults;
};
struct view_cluster {
    struct str ID;
    struct view_version Version;
    struct view_cluster_spec Spec;
    struct strs DefaultAddrPool; /* CIDR; none: 10.0.0.0/8 */
    uint64_t SubnetSize;         /* 0: 24 */
    uint64_t DataPathPort;       /* 0: 4789 */
};

/* ---- network ---- */
struct view_ipam_config {
    struct str Subnet, IPRange, Gateway;
    struct strmap AuxiliaryAddresses;
};
struct view_ipam {
    struct str Driver;
    struct list Config; /* view_ipam_config */
};
struct view_network_spec {
    struct str Name, Driver, Scope;
    bool EnableIPv6, Internal, Attachable, Ingress;
    struct view_ipam IPAM;
    struct strmap Options, Labels;
};
struct view_network_state {
    uint64_t VNI;     /* 0: not allocated */
    struct str Error; /* why it could not be; goes away by itself */
};
struct view_network {
    struct str ID;
    struct view_version Version;
    uint64_t Rev;
    int64_t CreatedAt, UpdatedAt;
    struct view_network_spec Spec;
    struct view_ipam IPAM; /* what the allocator chose */
    struct view_network_state State;
};

extern const struct field view_service_fields[], view_taskspec_fields[], view_task_fields[], view_node_fields[],
    view_cluster_fields[], view_network_fields[], view_port_fields[], view_task_template_fields[];

/* view_* - decode one document; 0 or -ERR_CORRUPT naming kind and id. */
int view_service(struct str doc, struct view_service *ret, struct arena *a, struct err *e);
int view_taskspec(struct str doc, struct view_taskspec *ret, struct arena *a, struct err *e);
int view_task(struct str doc, struct view_task *ret, struct arena *a, struct err *e);
int view_node(struct str doc, struct view_node *ret, struct arena *a, struct err *e);
int view_cluster(struct str doc, struct view_cluster *ret, struct arena *a, struct err *e);
int view_network(struct str doc, struct view_network *ret, struct arena *a, struct err *e);

uint64_t view_replicas(const struct view_service *s);         /* 1 when absent */
int64_t view_restart_delay_ns(const struct view_restart *r);  /* 5 s when absent */
int64_t view_stop_grace_ns(const struct view_container *c);   /* 10 s when absent */
int64_t view_history_limit(const struct view_cluster *c);     /* 5 when absent */
int64_t view_running_since(const struct view_task_status *s); /* leader's clock; 0: it never ran */
bool view_has_previous(const struct view_service *s);

/* How important a service's tasks are: less important ones make room for them. */
#define VIEW_PRIORITY_LABEL "microswarm.priority"
#define VIEW_PRIORITY_MAX 1000000
/* view_priority - its value: a whole number from -1000000 to 1000000; false for anything else. */
bool view_priority(struct str text, int *ret);

/* That a service's tasks are moved when nodes came, and how many at a time. */
#define VIEW_REBALANCE_LABEL "microswarm.rebalance"
struct view_budget { /* one of the two */
    unsigned tasks, percent;
};
/* view_rebalance - its value: "1" to "10000" tasks, or "1%" to "100%" of them; false for anything else. */
bool view_rebalance(struct str text, struct view_budget *ret);

/* How long the open connections of a stopping task may take to end: a label of its service. */
#define VIEW_DRAIN_LABEL "microswarm.drain-period"
#define VIEW_DRAIN_MAX_MS 86400000u
/* view_drain_period - its value: "0", or a Go duration up to 24h; false for anything else. Rounded up. */
bool view_drain_period(struct str text, uint64_t *ret_ms);

/* When a job runs: cron's syntax (common/util/cron.h), and what happens when it is due while a run is still going. */
#define VIEW_SCHEDULE_LABEL "microswarm.schedule"
#define VIEW_OVERLAP_LABEL "microswarm.schedule.overlap"
/* view_overlap - "skip" (also when there is none) or "replace"; false for anything else. */
bool view_overlap(struct str text, bool *ret_replace);

/* How long an update waits for a new task to run before it counts as failed: a label of its service. */
#define VIEW_PROGRESS_LABEL "microswarm.update.progress-deadline"
#define VIEW_PROGRESS_NS 600000000000ll /* without the label */
/* view_progress_deadline - its value: a Go duration from 1s to 168h; false for anything else. */
bool view_progress_deadline(struct str text, int64_t *ret_ns);
