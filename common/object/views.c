/* views.c - the field tables of the controllers' views, and Docker's defaults for what a spec leaves out. */
#include "common/object/views.h"

#include "common/util/clock.h"

#define TEXT_MAX 65536u
#define MANY FIELD_LIST_MAX

/* XXRaw members stand for presence: the same field, read a second time as raw bytes. */
#define FIELD_PRESENT(st, m, raw)                                                                                      \
    {                                                                                                                  \
        .name = #m, .name_n = sizeof #m - 1, .type = F_RAW, .off = offsetof(st, raw)                                   \
    }
#define I64(st, m) FIELD_I64(st, m, INT64_MIN, INT64_MAX)
#define U64(st, m) FIELD_U64(st, m, 0, UINT64_MAX)
#define TEXT(st, m) FIELD_STR(st, m, 0, TEXT_MAX)

static const struct field version_fields[] = {
    U64(struct view_version, Index),
    FIELD_END,
};
#define FIELD_VERSION(st) FIELD_OBJ(st, Version, version_fields, struct view_version)

const struct field view_port_fields[] = {
    TEXT(struct view_port, Name),      TEXT(struct view_port, Protocol),     TEXT(struct view_port, PublishMode),
    U64(struct view_port, TargetPort), U64(struct view_port, PublishedPort), FIELD_END,
};

/* ---- service ---- */

static const struct field nothing_fields[] = { FIELD_END };
static const struct field replicated_fields[] = {
    U64(struct view_replicated, Replicas),
    FIELD_PRESENT(struct view_replicated, Replicas, ReplicasRaw),
    FIELD_END,
};
static const struct field replicated_job_fields[] = {
    U64(struct view_replicated_job, MaxConcurrent),
    U64(struct view_replicated_job, TotalCompletions),
    FIELD_END,
};
static const struct field mode_fields[] = {
    FIELD_PTR(struct view_mode, Replicated, replicated_fields, struct view_replicated),
    FIELD_PTR(struct view_mode, Global, nothing_fields, struct view_nothing),
    FIELD_PTR(struct view_mode, GlobalJob, nothing_fields, struct view_nothing),
    FIELD_PTR(struct view_mode, ReplicatedJob, replicated_job_fields, struct view_replicated_job),
    FIELD_END,
};
static const struct field update_config_fields[] = {
    FIELD_PRESENT(struct view_update_config, Parallelism, ParallelismRaw),
    U64(struct view_update_config, Parallelism),
    I64(struct view_update_config, Delay),
    I64(struct view_update_config, Monitor),
    TEXT(struct view_update_config, FailureAction),
    TEXT(struct view_update_config, Order),
    FIELD_F64(struct view_update_config, MaxFailureRatio),
    FIELD_END,
};
static const struct field restart_fields[] = {
    TEXT(struct view_restart, Condition),  FIELD_PRESENT(struct view_restart, Delay, DelayRaw),
    I64(struct view_restart, Delay),       I64(struct view_restart, Window),
    U64(struct view_restart, MaxAttempts), FIELD_END,
};
static const struct field spread_fields[] = {
    TEXT(struct view_spread, SpreadDescriptor),
    FIELD_END,
};
static const struct field preference_fields[] = {
    FIELD_PTR(struct view_preference, Spread, spread_fields, struct view_spread),
    FIELD_END,
};
static const struct field platform_fields[] = {
    TEXT(struct view_platform, Architecture),
    TEXT(struct view_platform, OS),
    FIELD_END,
};
static const struct field placement_fields[] = {
    FIELD_STRS(struct view_placement, Constraints, MANY),
    FIELD_LIST(struct view_placement, Preferences, preference_fields, struct view_preference, MANY),
    FIELD_LIST(struct view_placement, Platforms, platform_fields, struct view_platform, MANY),
    U64(struct view_placement, MaxReplicas),
    FIELD_END,
};
static const struct field discrete_fields[] = {
    TEXT(struct view_discrete, Kind),
    I64(struct view_discrete, Value),
    FIELD_END,
};
static const struct field named_fields[] = {
    TEXT(struct view_named, Kind),
    TEXT(struct view_named, Value),
    FIELD_END,
};
static const struct field generic_fields[] = {
    FIELD_PTR(struct view_generic, DiscreteResourceSpec, discrete_fields, struct view_discrete),
    FIELD_PTR(struct view_generic, NamedResourceSpec, named_fields, struct view_named),
    FIELD_END,
};
static const struct field resource_fields[] = {
    I64(struct view_resource, NanoCPUs),
    I64(struct view_resource, MemoryBytes),
    I64(struct view_resource, Pids),
    FIELD_LIST(struct view_resource, GenericResources, generic_fields, struct view_generic, MANY),
    FIELD_END,
};
static const struct field resources_fields[] = {
    FIELD_OBJ(struct view_resources, Limits, resource_fields, struct view_resource),
    FIELD_OBJ(struct view_resources, Reservations, resource_fields, struct view_resource),
    FIELD_END,
};
static const struct field endpoint_spec_fields[] = {
    TEXT(struct view_endpoint_spec, Mode),
    FIELD_LIST(struct view_endpoint_spec, Ports, view_port_fields, struct view_port, MANY),
    FIELD_END,
};
static const struct field container_fields[] = {
    TEXT(struct view_container, Image),
    I64(struct view_container, StopGracePeriod),
    FIELD_PRESENT(struct view_container, StopGracePeriod, StopGracePeriodRaw),
    FIELD_END,
};
static const struct field driver_fields[] = {
    TEXT(struct view_driver, Name),
    FIELD_STRMAP(struct view_driver, Options, MANY),
    FIELD_END,
};
static const struct field attachment_config_fields[] = {
    TEXT(struct view_attachment_config, Target),
    FIELD_STRS(struct view_attachment_config, Aliases, MANY),
    FIELD_STRMAP(struct view_attachment_config, DriverOpts, MANY),
    FIELD_END,
};
const struct field view_task_template_fields[] = {
    FIELD_LIST(struct view_task_template, Networks, attachment_config_fields, struct view_attachment_config, MANY),
    FIELD_PTR(struct view_task_template, ContainerSpec, container_fields, struct view_container),
    FIELD_OBJ(struct view_task_template, Resources, resources_fields, struct view_resources),
    FIELD_OBJ(struct view_task_template, RestartPolicy, restart_fields, struct view_restart),
    FIELD_OBJ(struct view_task_template, Placement, placement_fields, struct view_placement),
    FIELD_PTR(struct view_task_template, LogDriver, driver_fields, struct view_driver),
    U64(struct view_task_template, ForceUpdate),
    FIELD_END,
};
static const struct field service_spec_fields[] = {
    TEXT(struct view_service_spec, Name),
    FIELD_STRMAP(struct view_service_spec, Labels, MANY),
    FIELD_OBJ(struct view_service_spec, TaskTemplate, view_task_template_fields, struct view_task_template),
    FIELD_OBJ(struct view_service_spec, Mode, mode_fields, struct view_mode),
    FIELD_PTR(struct view_service_spec, UpdateConfig, update_config_fields, struct view_update_config),
    FIELD_PTR(struct view_service_spec, RollbackConfig, update_config_fields, struct view_update_config),
    FIELD_OBJ(struct view_service_spec, EndpointSpec, endpoint_spec_fields, struct view_endpoint_spec),
    FIELD_END,
};
static const struct field vip_fields[] = {
    TEXT(struct view_vip, NetworkID),
    TEXT(struct view_vip, Addr),
    FIELD_END,
};
static const struct field endpoint_fields[] = {
    FIELD_LIST(struct view_endpoint, VirtualIPs, vip_fields, struct view_vip, MANY),
    FIELD_LIST(struct view_endpoint, Ports, view_port_fields, struct view_port, MANY),
    FIELD_END,
};
static const struct field update_status_fields[] = {
    TEXT(struct view_update_status, State),
    TEXT(struct view_update_status, Message),
    I64(struct view_update_status, StartedAt),
    I64(struct view_update_status, CompletedAt),
    U64(struct view_update_status, Slots),
    U64(struct view_update_status, Failures),
    FIELD_END,
};
static const struct field job_status_fields[] = {
    FIELD_OBJ(struct view_job_status, JobIteration, version_fields, struct view_version),
    I64(struct view_job_status, LastExecution),
    I64(struct view_job_status, ScheduledFrom),
    U64(struct view_job_status, Skipped),
    FIELD_END,
};
static const struct field autoscale_fields[] = {
    U64(struct view_autoscale, Replicas),
    I64(struct view_autoscale, ChangedAt),
    TEXT(struct view_autoscale, Reason),
    FIELD_END,
};
static const struct field usage_fields[] = {
    U64(struct view_usage, Tasks),        U64(struct view_usage, NanoCPUs),
    U64(struct view_usage, MemoryBytes),  FIELD_BOOL(struct view_usage, HasMetric),
    FIELD_F64(struct view_usage, Metric), TEXT(struct view_usage, Error),
    I64(struct view_usage, At),           FIELD_END,
};
const struct field view_service_fields[] = {
    TEXT(struct view_service, ID),
    FIELD_VERSION(struct view_service),
    U64(struct view_service, Rev),
    I64(struct view_service, CreatedAt),
    I64(struct view_service, UpdatedAt),
    FIELD_OBJ(struct view_service, Spec, service_spec_fields, struct view_service_spec),
    TEXT(struct view_service, TaskSpecID),
    FIELD_RAW(struct view_service, PreviousSpec),
    TEXT(struct view_service, PreviousTaskSpecID),
    FIELD_OBJ(struct view_service, Endpoint, endpoint_fields, struct view_endpoint),
    FIELD_OBJ(struct view_service, UpdateStatus, update_status_fields, struct view_update_status),
    FIELD_PTR(struct view_service, JobStatus, job_status_fields, struct view_job_status),
    FIELD_PTR(struct view_service, Autoscale, autoscale_fields, struct view_autoscale),
    FIELD_PTR(struct view_service, Usage, usage_fields, struct view_usage),
    FIELD_END,
};

const struct field view_taskspec_fields[] = {
    TEXT(struct view_taskspec, ID),
    TEXT(struct view_taskspec, ServiceID),
    FIELD_PRESENT(struct view_taskspec, Spec, SpecRaw),
    FIELD_OBJ(struct view_taskspec, Spec, view_task_template_fields, struct view_task_template),
    FIELD_OBJ(struct view_taskspec, EndpointSpec, endpoint_spec_fields, struct view_endpoint_spec),
    TEXT(struct view_taskspec, CredentialID),
    I64(struct view_taskspec, CreatedAt),
    FIELD_END,
};

/* ---- task ---- */

static const struct field container_status_fields[] = {
    TEXT(struct view_container_status, ContainerID),
    U64(struct view_container_status, PID),
    I64(struct view_container_status, ExitCode),
    FIELD_END,
};
static const struct field task_status_view_fields[] = {
    TEXT(struct view_task_status, State),
    TEXT(struct view_task_status, Message),
    TEXT(struct view_task_status, Err),
    I64(struct view_task_status, Timestamp),
    I64(struct view_task_status, AppliedAt),
    I64(struct view_task_status, RunningAt),
    FIELD_PTR(struct view_task_status, ContainerStatus, container_status_fields, struct view_container_status),
    FIELD_END,
};
static const struct field task_network_fields[] = {
    TEXT(struct view_task_network, NetworkID),
    FIELD_STRS(struct view_task_network, Addresses, MANY),
    FIELD_STRS(struct view_task_network, Aliases, MANY),
    FIELD_END,
};
static const struct field evict_fields[] = {
    TEXT(struct view_evict, Reason),
    I64(struct view_evict, At),
    FIELD_END,
};
const struct field view_task_fields[] = {
    FIELD_LIST(struct view_task, NetworksAttachments, task_network_fields, struct view_task_network, MANY),
    TEXT(struct view_task, ID),
    FIELD_VERSION(struct view_task),
    U64(struct view_task, Rev),
    I64(struct view_task, CreatedAt),
    I64(struct view_task, UpdatedAt),
    TEXT(struct view_task, ServiceID),
    TEXT(struct view_task, TaskSpecID),
    TEXT(struct view_task, NodeID),
    U64(struct view_task, Slot),
    TEXT(struct view_task, DesiredState),
    FIELD_OBJ(struct view_task, Status, task_status_view_fields, struct view_task_status),
    I64(struct view_task, StartNotBefore),
    TEXT(struct view_task, ReplacesID),
    FIELD_LIST(struct view_task, Ports, view_port_fields, struct view_port, MANY),
    FIELD_OBJ(struct view_task, JobIteration, version_fields, struct view_version),
    FIELD_PTR(struct view_task, Evict, evict_fields, struct view_evict),
    FIELD_LIST(struct view_task, GenericResources, generic_fields, struct view_generic, MANY),
    FIELD_END,
};

static const struct {
    enum task_state state;
    const char *name;
} task_states[] = {
    { TASK_NEW, "new" },           { TASK_PENDING, "pending" },     { TASK_ASSIGNED, "assigned" },
    { TASK_ACCEPTED, "accepted" }, { TASK_PREPARING, "preparing" }, { TASK_READY, "ready" },
    { TASK_STARTING, "starting" }, { TASK_RUNNING, "running" },     { TASK_COMPLETE, "complete" },
    { TASK_SHUTDOWN, "shutdown" }, { TASK_FAILED, "failed" },       { TASK_REJECTED, "rejected" },
    { TASK_REMOVE, "remove" },     { TASK_ORPHANED, "orphaned" },
};
#define TASK_STATES (sizeof task_states / sizeof *task_states)

enum task_state task_state_parse(struct str name)
{
    for (size_t i = 0; i < TASK_STATES; i++)
        if (str_is(name, task_states[i].name))
            return task_states[i].state;
    return TASK_NEW;
}

const char *task_state_name(enum task_state s)
{
    for (size_t i = 0; i < TASK_STATES; i++)
        if (task_states[i].state == s)
            return task_states[i].name;
    return "new";
}

/* ---- node, cluster ---- */

static const struct field node_resources_fields[] = {
    I64(struct view_node_resources, NanoCPUs),
    I64(struct view_node_resources, MemoryBytes),
    FIELD_LIST(struct view_node_resources, GenericResources, generic_fields, struct view_generic, MANY),
    FIELD_END,
};
static const struct field plugin_fields[] = {
    TEXT(struct view_plugin, Type),
    TEXT(struct view_plugin, Name),
    FIELD_END,
};
static const struct field engine_fields[] = {
    TEXT(struct view_engine, EngineVersion),
    FIELD_STRMAP(struct view_engine, Labels, MANY),
    FIELD_LIST(struct view_engine, Plugins, plugin_fields, struct view_plugin, MANY),
    FIELD_END,
};
static const struct field node_description_fields[] = {
    TEXT(struct view_node_description, Hostname),
    FIELD_OBJ(struct view_node_description, Platform, platform_fields, struct view_platform),
    FIELD_OBJ(struct view_node_description, Resources, node_resources_fields, struct view_node_resources),
    FIELD_OBJ(struct view_node_description, Engine, engine_fields, struct view_engine),
    FIELD_END,
};
static const struct field node_spec_fields[] = {
    TEXT(struct view_node_spec, Name),
    TEXT(struct view_node_spec, Role),
    TEXT(struct view_node_spec, Availability),
    FIELD_STRMAP(struct view_node_spec, Labels, MANY),
    FIELD_END,
};
static const struct field node_status_fields[] = {
    TEXT(struct view_node_status, State),
    TEXT(struct view_node_status, Message),
    TEXT(struct view_node_status, Addr),
    FIELD_END,
};
const struct field view_node_fields[] = {
    TEXT(struct view_node, ID),
    FIELD_VERSION(struct view_node),
    U64(struct view_node, Rev),
    FIELD_OBJ(struct view_node, Spec, node_spec_fields, struct view_node_spec),
    TEXT(struct view_node, Role),
    FIELD_OBJ(struct view_node, Description, node_description_fields, struct view_node_description),
    FIELD_OBJ(struct view_node, Status, node_status_fields, struct view_node_status),
    TEXT(struct view_node, DataPathAddr),
    FIELD_END,
};

static const struct field orchestration_fields[] = {
    FIELD_PRESENT(struct view_orchestration, TaskHistoryRetentionLimit, TaskHistoryRetentionLimitRaw),
    I64(struct view_orchestration, TaskHistoryRetentionLimit),
    FIELD_END,
};
static const struct field dispatcher_fields[] = {
    I64(struct view_dispatcher, HeartbeatPeriod),
    FIELD_END,
};
static const struct field task_defaults_fields[] = {
    FIELD_PTR(struct view_task_defaults, LogDriver, driver_fields, struct view_driver),
    FIELD_END,
};
static const struct field cluster_spec_fields[] = {
    TEXT(struct view_cluster_spec, Name),
    FIELD_OBJ(struct view_cluster_spec, Orchestration, orchestration_fields, struct view_orchestration),
    FIELD_OBJ(struct view_cluster_spec, Dispatcher, dispatcher_fields, struct view_dispatcher),
    FIELD_OBJ(struct view_cluster_spec, TaskDefaults, task_defaults_fields, struct view_task_defaults),
    FIELD_END,
};
const struct field view_cluster_fields[] = {
    TEXT(struct view_cluster, ID),
    FIELD_VERSION(struct view_cluster),
    FIELD_OBJ(struct view_cluster, Spec, cluster_spec_fields, struct view_cluster_spec),
    FIELD_STRS(struct view_cluster, DefaultAddrPool, MANY),
    U64(struct view_cluster, SubnetSize),
    U64(struct view_cluster, DataPathPort),
    FIELD_END,
};

/* ---- network ---- */

static const struct field ipam_config_fields[] = {
    TEXT(struct view_ipam_config, Subnet),
    TEXT(struct view_ipam_config, IPRange),
    TEXT(struct view_ipam_config, Gateway),
    FIELD_STRMAP(struct view_ipam_config, AuxiliaryAddresses, MANY),
    FIELD_END,
};
static const struct field ipam_fields[] = {
    TEXT(struct view_ipam, Driver),
    FIELD_LIST(struct view_ipam, Config, ipam_config_fields, struct view_ipam_config, MANY),
    FIELD_END,
};
static const struct field network_spec_fields[] = {
    TEXT(struct view_network_spec, Name),
    TEXT(struct view_network_spec, Driver),
    TEXT(struct view_network_spec, Scope),
    FIELD_BOOL(struct view_network_spec, EnableIPv6),
    FIELD_BOOL(struct view_network_spec, Internal),
    FIELD_BOOL(struct view_network_spec, Attachable),
    FIELD_BOOL(struct view_network_spec, Ingress),
    FIELD_OBJ(struct view_network_spec, IPAM, ipam_fields, struct view_ipam),
    FIELD_STRMAP(struct view_network_spec, Options, MANY),
    FIELD_STRMAP(struct view_network_spec, Labels, MANY),
    FIELD_END,
};
static const struct field network_state_fields[] = {
    U64(struct view_network_state, VNI),
    TEXT(struct view_network_state, Error),
    FIELD_END,
};
const struct field view_network_fields[] = {
    TEXT(struct view_network, ID),
    FIELD_VERSION(struct view_network),
    U64(struct view_network, Rev),
    I64(struct view_network, CreatedAt),
    I64(struct view_network, UpdatedAt),
    FIELD_OBJ(struct view_network, Spec, network_spec_fields, struct view_network_spec),
    FIELD_OBJ(struct view_network, IPAM, ipam_fields, struct view_ipam),
    FIELD_OBJ(struct view_network, State, network_state_fields, struct view_network_state),
    FIELD_END,
};

/* ---- decoding ---- */

static int view_decode(void *ret, const char *kind, const struct field *table, size_t size, struct str doc,
                       struct arena *a, struct err *e)
{
    struct err why = ERR_INIT;
    struct str id = { "?", 1 };
    int r = fields_decode(ret, table, size, doc, FIELDS_VIEW, a, &why);
    if (r == 0)
        return 0;
    if (r == -ERR_NOMEM) /* the pass is too big for its arena, the document may be fine */
        return err_set(e, ERR_NOMEM, "%s: %s", kind, why.msg);
    (void)mp_get_str(doc, "ID", &id);
    return err_set(e, ERR_CORRUPT, "%s " STR_FMT ": %s", kind, STR_ARG(id), why.msg);
}

#define DEFINE_VIEW(name)                                                                                              \
    int view_##name(struct str doc, struct view_##name *ret, struct arena *a, struct err *e)                           \
    {                                                                                                                  \
        return view_decode(ret, #name, view_##name##_fields, sizeof *ret, doc, a, e);                                  \
    }
DEFINE_VIEW(service)
DEFINE_VIEW(taskspec)
DEFINE_VIEW(task)
DEFINE_VIEW(node)
DEFINE_VIEW(cluster)
DEFINE_VIEW(network)

/* ---- defaults ---- */

/* present - an explicit value is there, not nothing and not nil. */
static bool present(struct str raw)
{
    return raw.n > 0 && (unsigned char)raw.p[0] != 0xc0;
}

uint64_t view_replicas(const struct view_service *s)
{
    const struct view_replicated *r = s->Spec.Mode.Replicated;
    return r != NULL && present(r->ReplicasRaw) ? r->Replicas : 1;
}

int64_t view_restart_delay_ns(const struct view_restart *r)
{
    return present(r->DelayRaw) ? r->Delay : 5000000000;
}

int64_t view_stop_grace_ns(const struct view_container *c)
{
    return c != NULL && present(c->StopGracePeriodRaw) ? c->StopGracePeriod : 10000000000;
}

int64_t view_history_limit(const struct view_cluster *c)
{
    const struct view_orchestration *o = &c->Spec.Orchestration;
    return present(o->TaskHistoryRetentionLimitRaw) ? o->TaskHistoryRetentionLimit : 5;
}

int64_t view_running_since(const struct view_task_status *s)
{
    if (s->RunningAt)
        return s->RunningAt;
    return str_is(s->State, "running") ? s->AppliedAt ? s->AppliedAt : s->Timestamp : 0;
}

bool view_has_previous(const struct view_service *s)
{
    return present(s->PreviousSpec);
}

bool view_progress_deadline(struct str text, int64_t *ret_ns)
{
    int64_t ns = 0;
    if (!duration_parse(text, &ns) || ns < 1000000000 || ns > 168 * 3600 * 1000000000ll)
        return false;
    *ret_ns = ns;
    return true;
}

bool view_priority(struct str text, int *ret)
{
    uint64_t n;
    bool minus = text.n > 1 && text.p[0] == '-';
    if (!str_u64((struct str){ text.p + minus, text.n - minus }, &n) || n > VIEW_PRIORITY_MAX)
        return false;
    *ret = minus ? -(int)n : (int)n;
    return true;
}

bool view_rebalance(struct str text, struct view_budget *ret)
{
    uint64_t n;
    bool percent = text.n > 1 && text.p[text.n - 1] == '%';
    if (!str_u64((struct str){ text.p, text.n - percent }, &n) || n == 0 || n > (percent ? 100 : 10000))
        return false;
    *ret = percent ? (struct view_budget){ .percent = (unsigned)n } : (struct view_budget){ .tasks = (unsigned)n };
    return true;
}

bool view_drain_period(struct str text, uint64_t *ret_ms)
{
    int64_t ns = 0;
    if (!duration_parse(text, &ns) || ns > (int64_t)VIEW_DRAIN_MAX_MS * 1000000)
        return false;
    *ret_ms = (uint64_t)((ns + 999999) / 1000000);
    return true;
}

bool view_overlap(struct str text, bool *ret_replace)
{
    *ret_replace = str_is(text, "replace");
    return *ret_replace || str_is(text, "skip");
}
