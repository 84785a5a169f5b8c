/*
 * object_tables.c - Docker's swarm objects (Engine API 1.41 and later), field by field.
 *
 * OBJ_KEEP marks what is a pointer in Docker's Go types: there an empty object, false or 0 is not the same as nothing.
 * OBJ_ALWAYS marks what has no omitempty there, or what the engine fills in by turning text into an enum and back.
 */
#include "common/object/object_priv.h"

/* clang-format off */ /* NOLINTBEGIN(bugprone-macro-parentheses): initializers, not expressions */
#define F(n, t, fl, ...) { .name = n, .type = t, .flags = (fl), __VA_ARGS__ }
#define END { .name = NULL }
#define VALUES(...) .values = (const char *const[]){ __VA_ARGS__, NULL }
#define SUB(t) .sub = &(t)
#define TYPE(var, text, ...) \
    static const struct obj_type var = { .name = text, .fields = var##_f, __VA_ARGS__ }
/* NOLINTEND(bugprone-macro-parentheses) */ /* clang-format on */
#define PORT_MAX 65535
#define A OBJ_ALWAYS
#define K OBJ_KEEP

#define UPDATE_DEFAULT                                                                                                 \
    "{\"Parallelism\":1,\"FailureAction\":\"pause\",\"Monitor\":5000000000,\"MaxFailureRatio\":0,"                     \
    "\"Order\":\"stop-first\"}"

/* ---- parts that several objects share ---- */

static const struct obj_field version_f[] = { F("Index", OT_UINT, 0, .doc = "store revision of the last change"), END };
TYPE(version, "Version");

#define META_FIELDS                                                                                                    \
    F("ID", OT_STR, A, .doc = "identifier"),                                                                           \
        F("Version", OT_OBJ, A, SUB(version), .doc = "an update must name the current one"),                           \
        F("Rev", OT_UINT, OBJ_INTERNAL, .doc = NULL), F("CreatedAt", OT_TIME, A, .doc = "when it was made"),           \
        F("UpdatedAt", OT_TIME, A, .doc = "when it was changed last")

static const struct obj_field driver_f[] = {
    F("Name", OT_STR, 0, .doc = "driver"),
    F("Options", OT_STRMAP, 0, .doc = "driver's options"),
    END,
};
TYPE(driver, "Driver");

static const struct obj_field platform_f[] = {
    F("Architecture", OT_STR, 0, .doc = "`amd64`, `x86_64`, `arm64`, …"),
    F("OS", OT_STR, 0, .doc = "`linux`"),
    END,
};
TYPE(platform, "Platform");

static const struct obj_field discrete_f[] = {
    F("Kind", OT_STR, 0, .doc = "name of the resource"),
    F("Value", OT_INT, 0, .doc = "how many"),
    END,
};
TYPE(discrete, "DiscreteGenericResource");
static const struct obj_field named_f[] = {
    F("Kind", OT_STR, 0, .doc = "name of the resource"),
    F("Value", OT_STR, 0, .doc = "which one"),
    END,
};
TYPE(named, "NamedGenericResource");
static const struct obj_field generic_f[] = {
    F("NamedResourceSpec", OT_OBJ, K, SUB(named), .doc = "a particular one"),
    F("DiscreteResourceSpec", OT_OBJ, K, SUB(discrete), .doc = "an amount"),
    END,
};
TYPE(generic, "GenericResource", .check = obj_rules_generic);

static const struct obj_field templating_f[] = {
    F("Name", OT_STR, A, .doc = "`golang` or nothing"),
    F("Options", OT_STRMAP, 0, .doc = "none are known"),
    END,
};
TYPE(templating, "Driver");

static const struct obj_field tls_info_f[] = {
    F("TrustRoot", OT_STR, 0, .doc = "root certificate, PEM"),
    F("CertIssuerSubject", OT_BYTES, 0, .doc = "DER"),
    F("CertIssuerPublicKey", OT_BYTES, 0, .doc = "DER"),
    END,
};
TYPE(tls_info, "TLSInfo");

/* ---- container ---- */

static const struct obj_field credential_f[] = {
    F("Config", OT_STR, 0, .doc = "ID of a config (Windows)"),
    F("File", OT_STR, 0, .doc = "file (Windows)"),
    F("Registry", OT_STR, 0, .doc = "registry value (Windows)"),
    END,
};
TYPE(credential, "CredentialSpec", .check = obj_rules_credential);
static const struct obj_field selinux_f[] = {
    F("Disable", OT_BOOL, A, .doc = "no SELinux label"), F("User", OT_STR, A, .doc = "SELinux user"),
    F("Role", OT_STR, A, .doc = "SELinux role"),         F("Type", OT_STR, A, .doc = "SELinux type"),
    F("Level", OT_STR, A, .doc = "SELinux level"),       END,
};
TYPE(selinux, "SELinuxContext");
static const struct obj_field seccomp_f[] = {
    F("Mode", OT_ENUM, 0, VALUES("default", "unconfined", "custom"), .doc = "which filter of system calls"),
    F("Profile", OT_BYTES, 0, .doc = "the filter of mode `custom`"),
    END,
};
TYPE(seccomp, "SeccompOpts");
static const struct obj_field apparmor_f[] = {
    F("Mode", OT_ENUM, 0, VALUES("default", "disabled"), .doc = "AppArmor profile"),
    END,
};
TYPE(apparmor, "AppArmorOpts");
static const struct obj_field privileges_f[] = {
    F("CredentialSpec", OT_OBJ, A | K, SUB(credential), .def = "null", .doc = "Windows only"),
    F("SELinuxContext", OT_OBJ, A | K, SUB(selinux), .def = "null", .doc = "SELinux labels"),
    F("Seccomp", OT_OBJ, K, SUB(seccomp), .doc = "system call filter"),
    F("AppArmor", OT_OBJ, K, SUB(apparmor), .doc = "AppArmor"),
    F("NoNewPrivileges", OT_BOOL, K, .doc = "no gain of privileges by set-uid programs"),
    END,
};
TYPE(privileges, "Privileges");

static const struct obj_field bind_options_f[] = {
    F("Propagation", OT_ENUM, 0, VALUES("private", "rprivate", "shared", "rshared", "slave", "rslave"),
      .doc = "of mounts inside it"),
    F("NonRecursive", OT_BOOL, 0, .doc = "without the mounts below the source"),
    F("CreateMountpoint", OT_BOOL, 0, .doc = "make the source if missing"),
    F("ReadOnlyNonRecursive", OT_BOOL, 0, .doc = "mounts below stay writable"),
    F("ReadOnlyForceRecursive", OT_BOOL, 0, .doc = "fail when mounts below cannot be made read-only"),
    END,
};
TYPE(bind_options, "BindOptions");
static const struct obj_field volume_options_f[] = {
    F("NoCopy", OT_BOOL, 0, .doc = "don't fill a new volume from the image"),
    F("Labels", OT_STRMAP, 0, .doc = "of a volume that is made for this"),
    F("Subpath", OT_STR, 0, .doc = "a folder of the volume"),
    F("DriverConfig", OT_OBJ, K, SUB(driver), .doc = "of a volume that is made for this"),
    END,
};
TYPE(volume_options, "VolumeOptions");
static const struct obj_field tmpfs_options_f[] = {
    F("SizeBytes", OT_INT, 0, .min = 0, .max = INT64_MAX, .doc = "limit; 0: none"),
    F("Mode", OT_UINT, 0, .min = 0, .max = 07777, .doc = "permissions (decimal)"),
    F("Options", OT_ANY, 0, .doc = "list of [name] or [name, value]"),
    END,
};
TYPE(tmpfs_options, "TmpfsOptions");
static const struct obj_field mount_f[] = {
    F("Type", OT_STR, 0, .check = obj_rule_mount_type, .doc = "`volume` (also if empty), `bind` or `tmpfs`"),
    F("Source", OT_STR, 0, .max = 4096, .doc = "folder on the node, or name of a volume"),
    F("Target", OT_STR, 0, .max = 4096, .doc = "where the container sees it"),
    F("ReadOnly", OT_BOOL, 0, .doc = "no writing"),
    F("Consistency", OT_STR, 0, .doc = "kept, no effect"),
    F("BindOptions", OT_OBJ, K, SUB(bind_options), .doc = "of a bind mount"),
    F("VolumeOptions", OT_OBJ, K, SUB(volume_options), .doc = "of a volume"),
    F("ImageOptions", OT_ANY, 0, .doc = "kept, no effect"),
    F("TmpfsOptions", OT_OBJ, K, SUB(tmpfs_options), .doc = "of a tmpfs"),
    F("ClusterOptions", OT_ANY, 0, .doc = "kept, no effect"),
    END,
};
TYPE(mount, "Mount", .check = obj_rules_mount);

static const struct obj_field health_f[] = {
    F("Test", OT_STRS, 0, .doc = "[`CMD`, argument…], [`CMD-SHELL`, text] or [`NONE`]"),
    F("Interval", OT_DUR, 0, .doc = "between two checks; 0: 30 s"),
    F("Timeout", OT_DUR, 0, .doc = "of one check; 0: 30 s"),
    F("StartPeriod", OT_DUR, 0, .doc = "failures do not count yet"),
    F("StartInterval", OT_DUR, 0, .doc = "between checks in the start period"),
    F("Retries", OT_INT, 0, .doc = "failures in a row that make it unhealthy; 0: 3"),
    END,
};
TYPE(health, "HealthConfig", .check = obj_rules_health);
static const struct obj_field dns_f[] = {
    F("Nameservers", OT_STRS, 0, .max = 100, .doc = "addresses of resolvers"),
    F("Search", OT_STRS, 0, .max = 100, .doc = "search domains"),
    F("Options", OT_STRS, 0, .max = 100, .doc = "as in resolv.conf(5)"),
    END,
};
TYPE(dns, "DNSConfig");
static const struct obj_field ref_file_f[] = {
    F("Name", OT_STR, A, .max = 4096, .doc = "path in the container"),
    F("UID", OT_STR, A, .doc = "owner, a number"),
    F("GID", OT_STR, A, .doc = "group, a number"),
    F("Mode", OT_UINT, A, .min = 0, .max = UINT32_MAX, .doc = "permissions (decimal)"),
    END,
};
TYPE(ref_file, "ReferenceFileTarget");
static const struct obj_field secret_ref_f[] = {
    F("File", OT_OBJ, K, SUB(ref_file), .doc = "relative to /run/secrets"),
    F("SecretID", OT_STR, A, .doc = "which secret"),
    F("SecretName", OT_STR, A, .doc = "its name, for people"),
    END,
};
TYPE(secret_ref, "SecretReference", .check = obj_rules_secret_ref);
static const struct obj_field empty_f[] = { END };
TYPE(empty, "empty");
static const struct obj_field config_ref_f[] = {
    F("File", OT_OBJ, K, SUB(ref_file), .doc = "relative to /"),
    F("Runtime", OT_OBJ, K, SUB(empty), .doc = "for a credential spec, not a file"),
    F("ConfigID", OT_STR, A, .doc = "which config"),
    F("ConfigName", OT_STR, A, .doc = "its name, for people"),
    END,
};
TYPE(config_ref, "ConfigReference", .check = obj_rules_config_ref);
static const struct obj_field ulimit_f[] = {
    F("Name", OT_STR, A | OBJ_REQUIRED, .max = 32, .doc = "`nofile`, `nproc`, …"),
    F("Hard", OT_INT, A, .doc = "hard limit; -1: none"),
    F("Soft", OT_INT, A, .doc = "soft limit; -1: none"),
    END,
};
TYPE(ulimit, "Ulimit");

static const struct obj_field container_f[] = {
    F("Image", OT_STR, 0, .check = obj_rule_image, .doc = "`[domain/]path[:tag][@digest]`"),
    F("Labels", OT_STRMAP, 0, .doc = "of the container"),
    F("Command", OT_STRS, 0, .doc = "instead of the image's entry point"),
    F("Args", OT_STRS, 0, .doc = "instead of the image's command"),
    F("Hostname", OT_STR, 0, .check = obj_rule_hostname, .doc = "may hold a template"),
    F("Env", OT_STRS, 0, .doc = "`NAME=value`, may hold templates"),
    F("Dir", OT_STR, 0, .max = 4096, .doc = "working folder"),
    F("User", OT_STR, 0, .max = 256, .doc = "`name|uid[:group|gid]`"),
    F("Groups", OT_STRS, 0, .max = 1000, .doc = "more groups"),
    F("Privileges", OT_OBJ, K, SUB(privileges), .doc = "what it may do"),
    F("Init", OT_BOOL, K, .doc = "an init process that reaps children"),
    F("StopSignal", OT_STR, 0, .max = 32, .doc = "instead of the image's"),
    F("TTY", OT_BOOL, 0, .doc = "a terminal"),
    F("OpenStdin", OT_BOOL, 0, .doc = "keep standard input open"),
    F("ReadOnly", OT_BOOL, 0, .doc = "read-only root"),
    F("Mounts", OT_LIST, 0, SUB(mount), .max = 1000, .doc = "what is mounted in it"),
    F("StopGracePeriod", OT_DUR, K, .min = 0, .max = INT64_MAX, .def = "10000000000",
      .doc = "from the stop signal to SIGKILL"),
    F("Healthcheck", OT_OBJ, K, SUB(health), .doc = "instead of the image's"),
    F("Hosts", OT_STRS, 0, .max = 1000, .doc = "`address name [alias…]` for /etc/hosts"),
    F("DNSConfig", OT_OBJ, K, SUB(dns), .def = "{}", .doc = "for /etc/resolv.conf"),
    F("Secrets", OT_LIST, 0, SUB(secret_ref), .max = 1000, .doc = "files in a tmpfs"),
    F("Configs", OT_LIST, 0, SUB(config_ref), .max = 1000, .doc = "read-only files"),
    F("Isolation", OT_STR, 0, .def = "\"default\"", .doc = "Windows only"),
    F("Sysctls", OT_STRMAP, 0, .max = 1000, .doc = "namespaced kernel settings"),
    F("CapabilityAdd", OT_STRS, 0, .max = 200, .doc = "beyond the default set"),
    F("CapabilityDrop", OT_STRS, 0, .max = 200, .doc = "taken from the default set"),
    F("Ulimits", OT_LIST, 0, SUB(ulimit), .max = 100, .doc = "resource limits, setrlimit(2)"),
    F("OomScoreAdj", OT_INT, 0, .min = -1000, .max = 1000, .doc = "who goes first when memory runs out"),
    END,
};
const struct obj_type obj_container_spec = { "ContainerSpec", container_f, obj_rules_container };

/* ---- task template ---- */

static const struct obj_field limit_f[] = {
    F("NanoCPUs", OT_INT, 0, .doc = "CPU time, 10⁻⁹ CPUs"),
    F("MemoryBytes", OT_INT, 0, .doc = "memory"),
    F("Pids", OT_INT, 0, .min = -1, .max = INT64_MAX, .doc = "processes; 0 or -1: no limit"),
    END,
};
TYPE(limit, "Limit", .check = obj_rules_resource);
static const struct obj_field reservation_f[] = {
    F("NanoCPUs", OT_INT, 0, .doc = "CPU time, 10⁻⁹ CPUs"),
    F("MemoryBytes", OT_INT, 0, .doc = "memory"),
    F("GenericResources", OT_LIST, 0, SUB(generic), .max = 1000, .doc = "what nodes declare"),
    END,
};
TYPE(reservation, "Resources", .check = obj_rules_resource);
static const struct obj_field resources_f[] = {
    F("Limits", OT_OBJ, K, SUB(limit), .def = "{}", .doc = "at most"),
    F("Reservations", OT_OBJ, K, SUB(reservation), .def = "{}", .doc = "the node must have free"),
    F("SwapBytes", OT_INT, K, .min = -1, .max = INT64_MAX, .doc = "swap beyond memory; -1: no limit"),
    F("MemorySwappiness", OT_INT, K, .min = -1, .max = 100, .doc = "0…100"),
    END,
};
TYPE(resources, "ResourceRequirements", .check = obj_rules_resources);
static const struct obj_field restart_f[] = {
    F("Condition", OT_STR, A, .def = "\"any\"", .check = obj_rule_restart_condition,
      .doc = "`none`, `on-failure` or `any`"),
    F("Delay", OT_DUR, K, .def = "5000000000", .doc = "before a restart"),
    F("MaxAttempts", OT_UINT, A | K, .def = "0", .doc = "0: no limit"),
    F("Window", OT_DUR, K, .doc = "attempts count within this; 0: always"),
    END,
};
TYPE(restart, "RestartPolicy", .check = obj_rules_restart);
static const struct obj_field spread_f[] = {
    F("SpreadDescriptor", OT_STR, A, .doc = "`node.labels.K` or `engine.labels.K`"),
    END,
};
TYPE(spread, "SpreadOver");
static const struct obj_field preference_f[] = {
    F("Spread", OT_OBJ, K, SUB(spread), .doc = "evenly over this label's values"),
    END,
};
TYPE(preference, "PlacementPreference");
static const struct obj_field placement_f[] = {
    F("Constraints", OT_STRS, 0, .max = 1000, .check = obj_rule_constraint_list, .doc = "`node.role==worker`, …"),
    F("Preferences", OT_LIST, 0, SUB(preference), .max = 100, .doc = "in order"),
    F("MaxReplicas", OT_UINT, 0, .doc = "on one node; 0: no limit"),
    F("Platforms", OT_LIST, 0, SUB(platform), .max = 1000, .doc = "the image has these"),
    END,
};
TYPE(placement, "Placement");
static const struct obj_field attachment_f[] = {
    F("Target", OT_STR, 0, .doc = "network, ID or name; stored as ID"),
    F("Aliases", OT_STRS, 0, .max = 1000, .doc = "more names in DNS"),
    F("DriverOpts", OT_STRMAP, 0, .doc = "for the driver"),
    END,
};
TYPE(attachment, "NetworkAttachmentConfig");
static const struct obj_field attachment_spec_f[] = {
    F("ContainerID", OT_STR, A, .doc = "attachments only"),
    END,
};
TYPE(attachment_spec, "NetworkAttachmentSpec");

static const struct obj_field task_template_f[] = {
    F("ContainerSpec", OT_OBJ, K, SUB(obj_container_spec), .doc = "what runs"),
    F("PluginSpec", OT_ANY, K, .doc = "not supported"),
    F("NetworkAttachmentSpec", OT_OBJ, K, SUB(attachment_spec), .doc = "not in services"),
    F("Resources", OT_OBJ, K, SUB(resources), .def = "{\"Limits\":{},\"Reservations\":{}}",
      .doc = "limits and reservations"),
    F("RestartPolicy", OT_OBJ, K, SUB(restart), .def = "{\"Condition\":\"any\",\"Delay\":5000000000,\"MaxAttempts\":0}",
      .doc = "when a task ends"),
    F("Placement", OT_OBJ, K, SUB(placement), .def = "{}", .doc = "which nodes"),
    F("Networks", OT_LIST, 0, SUB(attachment), .max = 1000, .doc = "overlay networks"),
    F("LogDriver", OT_OBJ, K, SUB(driver), .doc = "else the cluster's"),
    F("ForceUpdate", OT_UINT, A, .doc = "a change replaces the tasks"),
    F("Runtime", OT_STR, 0, .def = "\"container\"", .doc = "`container`"),
    END,
};
const struct obj_type obj_task_template = { "TaskSpec", task_template_f, obj_rules_task_template };

/* ---- service ---- */

#define PORT_FIELDS                                                                                                    \
    F("Name", OT_STR, 0, .doc = "kept"),                                                                               \
        F("Protocol", OT_ENUM, A, VALUES("tcp", "udp", "sctp"), .def = "\"tcp\"", .doc = "transport"),                 \
        F("TargetPort", OT_UINT, 0, .min = 1, .max = PORT_MAX, .doc = "in the container"),                             \
        F("PublishedPort", OT_UINT, 0, .min = 0, .max = PORT_MAX, .doc = "on the nodes; 0: automatic"),                \
        F("PublishMode", OT_ENUM, A, VALUES("ingress", "host"), .def = "\"ingress\"",                                  \
          .doc = "every node, or the task's")

static const struct obj_field port_f[] = { PORT_FIELDS, END };
TYPE(port, "PortConfig");
static const struct obj_field endpoint_f[] = {
    F("Mode", OT_STR, A, .def = "\"vip\"", .check = obj_rule_endpoint_mode, .doc = "`vip` or `dnsrr`"),
    F("Ports", OT_LIST, 0, SUB(port), .doc = "published ports"),
    END,
};
const struct obj_type obj_endpoint_spec = { "EndpointSpec", endpoint_f, obj_rules_endpoint };

static const struct obj_field update_f[] = {
    F("Parallelism", OT_UINT, A, .doc = "tasks at a time; 0: all"),
    F("Delay", OT_DUR, 0, .doc = "between batches"),
    F("FailureAction", OT_STR, A, .def = "\"pause\"", .check = obj_rule_failure_action,
      .doc = "`pause`, `continue` or `rollback`"),
    F("Monitor", OT_DUR, 0, .def = "5000000000", .doc = "a task that ends within this has failed"),
    F("MaxFailureRatio", OT_F64, A, .doc = "of failed tasks, that is still fine"),
    F("Order", OT_STR, A, .def = "\"stop-first\"", .check = obj_rule_update_order,
      .doc = "`stop-first` or `start-first`"),
    END,
};
TYPE(update, "UpdateConfig", .check = obj_rules_update);
static const struct obj_field replicated_f[] = {
    F("Replicas", OT_UINT, A | K, .min = 0, .max = 1000000, .def = "1", .doc = "how many tasks"),
    END,
};
TYPE(replicated, "ReplicatedService");
static const struct obj_field replicated_job_f[] = {
    F("MaxConcurrent", OT_UINT, A | K, .min = 0, .max = 1000000, .def = "1", .doc = "at a time"),
    F("TotalCompletions", OT_UINT, A | K, .min = 0, .max = 1000000, .def = "1", .def_from = "MaxConcurrent",
      .doc = "how many in all"),
    END,
};
TYPE(replicated_job, "ReplicatedJob");
static const struct obj_field mode_f[] = {
    F("Replicated", OT_OBJ, K, SUB(replicated), .doc = "a number of tasks"),
    F("Global", OT_OBJ, K, SUB(empty), .doc = "one task on each node"),
    F("ReplicatedJob", OT_OBJ, K, SUB(replicated_job), .doc = "tasks that end"),
    F("GlobalJob", OT_OBJ, K, SUB(empty), .doc = "one task on each node, that ends"),
    END,
};
TYPE(mode, "ServiceMode", .check = obj_rules_mode);

static const struct obj_field service_spec_f[] = {
    F("Name", OT_STR, 0, .check = obj_rule_service_name, .doc = "unique; cannot be changed"),
    F("Labels", OT_STRMAP, A, .doc = "for people and filters"),
    F("TaskTemplate", OT_OBJ, A, SUB(obj_task_template), .doc = "what a task runs, and where"),
    F("Mode", OT_OBJ, A, SUB(mode), .def = "{\"Replicated\":{\"Replicas\":1}}", .doc = "how many tasks"),
    F("UpdateConfig", OT_OBJ, K, SUB(update), .def = UPDATE_DEFAULT, .doc = "how tasks are replaced"),
    F("RollbackConfig", OT_OBJ, K, SUB(update), .def = UPDATE_DEFAULT, .doc = "the same when going back"),
    F("Networks", OT_LIST, 0, SUB(attachment), .max = 1000, .doc = "of old clients; use TaskTemplate's"),
    F("EndpointSpec", OT_OBJ, K, SUB(obj_endpoint_spec), .def = "{\"Mode\":\"vip\"}", .doc = "how it is reached"),
    END,
};
const struct obj_type obj_service_spec = { "ServiceSpec", service_spec_f, obj_rules_service };

/* The spec as last allocated: nothing is filled in before that. */
static const struct obj_field allocated_spec_f[] = {
    F("Mode", OT_STR, 0, .doc = "`vip` or `dnsrr`"),
    F("Ports", OT_LIST, 0, SUB(port), .doc = "as they were asked for"),
    END,
};
TYPE(allocated_spec, "EndpointSpec");
static const struct obj_field vip_f[] = {
    F("NetworkID", OT_STR, 0, .doc = "network"),
    F("Addr", OT_STR, 0, .doc = "address with prefix length"),
    END,
};
TYPE(vip, "EndpointVirtualIP");
static const struct obj_field service_endpoint_f[] = {
    F("Spec", OT_OBJ, A, SUB(allocated_spec), .doc = "what was asked for when it was allocated"),
    F("Ports", OT_LIST, 0, SUB(port), .doc = "with the chosen published ports"),
    F("VirtualIPs", OT_LIST, 0, SUB(vip), .doc = "one for each network"),
    F("Error", OT_STR, 0, .doc = "why it does not have everything; not in Docker"),
    END,
};
TYPE(service_endpoint, "Endpoint");
static const struct obj_field update_status_f[] = {
    F("State", OT_STR, 0, .doc = "`updating`, `paused`, `completed`, `rollback_started`, …"),
    F("StartedAt", OT_TIME, 0, .doc = "when"),
    F("CompletedAt", OT_TIME, 0, .doc = "when"),
    F("Message", OT_STR, 0, .doc = "for people"),
    F("Slots", OT_UINT, OBJ_INTERNAL, .doc = NULL),
    F("Failures", OT_UINT, OBJ_INTERNAL, .doc = NULL),
    END,
};
TYPE(update_status, "UpdateStatus");
static const struct obj_field service_status_f[] = {
    F("RunningTasks", OT_UINT, A, .doc = "in state running"),
    F("DesiredTasks", OT_UINT, A, .doc = "should run"),
    F("CompletedTasks", OT_UINT, A, .doc = "of a job"),
    END,
};
TYPE(service_status, "ServiceStatus");
static const struct obj_field job_status_f[] = {
    F("JobIteration", OT_OBJ, A, SUB(version), .doc = "grows with each run"),
    F("LastExecution", OT_TIME, 0, .doc = "when the job was started last"),
    F("ScheduledFrom", OT_TIME, OBJ_INTERNAL, .doc = NULL),
    F("Skipped", OT_UINT, 0, .doc = "times at which the job was due while it was still running; not in Docker"),
    END,
};
TYPE(job_status, "JobStatus");
static const struct obj_field autoscale_state_f[] = {
    F("Replicas", OT_UINT, A, .doc = "by the labels `microswarm.autoscale.*`"),
    F("ChangedAt", OT_TIME, 0, .doc = "when it became so many"),
    F("Reason", OT_STR, 0, .doc = "why, or why there is no decision"),
    END,
};
TYPE(autoscale_state, "Autoscale");

static const struct obj_field service_f[] = {
    META_FIELDS,
    F("Spec", OT_OBJ, A, SUB(obj_service_spec), .doc = "what was asked for"),
    F("PreviousSpec", OT_OBJ, K, SUB(obj_service_spec), .doc = "before the last update"),
    F("Endpoint", OT_OBJ, A, SUB(service_endpoint), .doc = "how it is reached"),
    F("UpdateStatus", OT_OBJ, 0, SUB(update_status), .doc = "of the last update"),
    F("ServiceStatus", OT_OBJ, K, SUB(service_status), .doc = "when asked for"),
    F("JobStatus", OT_OBJ, K, SUB(job_status), .doc = "of a job"),
    F("Autoscale", OT_OBJ, 0, SUB(autoscale_state), .doc = "how many replicas are wanted instead; not in Docker"),
    F("Usage", OT_ANY, OBJ_INTERNAL, .doc = NULL),
    F("TaskSpecID", OT_STR, OBJ_INTERNAL, .doc = NULL),
    F("PreviousTaskSpecID", OT_STR, OBJ_INTERNAL, .doc = NULL),
    END,
};
const struct obj_type obj_service = { "Service", service_f, NULL };

static const struct obj_field taskspec_f[] = {
    META_FIELDS,
    F("ServiceID", OT_STR, 0, .doc = "service"),
    F("Spec", OT_OBJ, K, SUB(obj_task_template), .doc = "task template"),
    F("EndpointSpec", OT_OBJ, K, SUB(obj_endpoint_spec), .doc = "published ports"),
    F("CredentialID", OT_STR, OBJ_INTERNAL, .doc = NULL),
    END,
};
const struct obj_type obj_taskspec = { "TaskSpecVersion", taskspec_f, NULL };

/* ---- task ---- */

static const struct obj_field container_status_f[] = {
    F("ContainerID", OT_STR, A, .doc = "on its node"),
    F("PID", OT_INT, A, .doc = "0 when it doesn't run"),
    F("ExitCode", OT_INT, A, .doc = "of the first process"),
    END,
};
TYPE(container_status, "ContainerStatus");
static const struct obj_field port_status_f[] = {
    F("Ports", OT_LIST, 0, SUB(port), .doc = "published by this task itself"),
    END,
};
TYPE(port_status, "PortStatus");
static const struct obj_field task_status_f[] = {
    F("Timestamp", OT_TIME, 0, .doc = "the node's clock"),
    F("State", OT_STR, 0, .doc = "`new` … `running` … `orphaned`"),
    F("Message", OT_STR, 0, .doc = "for people"),
    F("Err", OT_STR, 0, .doc = "what went wrong"),
    F("ContainerStatus", OT_OBJ, K, SUB(container_status), .doc = "once there is one"),
    F("PortStatus", OT_OBJ, A, SUB(port_status), .doc = "host-mode ports"),
    F("AppliedAt", OT_TIME, OBJ_INTERNAL, .doc = NULL),
    F("RunningAt", OT_TIME, OBJ_INTERNAL, .doc = NULL),
    END,
};
TYPE(task_status, "TaskStatus");
static const struct obj_field network_attachment_f[] = {
    F("NetworkID", OT_STR, OBJ_INTERNAL, .doc = NULL),
    F("Network", OT_ANY, 0, .doc = "the network as it is"),
    F("Addresses", OT_STRS, 0, .doc = "with prefix length"),
    F("Aliases", OT_ANY, OBJ_INTERNAL, .doc = NULL),
    END,
};
TYPE(network_attachment, "NetworkAttachment");

static const struct obj_field task_f[] = {
    META_FIELDS,
    F("Name", OT_STR, 0, .doc = "usually none"),
    F("Labels", OT_STRMAP, A, .doc = "usually none"),
    F("Spec", OT_OBJ, A, SUB(obj_task_template), .doc = "the template it was made from"),
    F("ServiceID", OT_STR, 0, .doc = "service"),
    F("Slot", OT_UINT, 0, .doc = "number within the service"),
    F("NodeID", OT_STR, 0, .doc = "where it runs"),
    F("Status", OT_OBJ, A, SUB(task_status), .doc = "what the node says"),
    F("DesiredState", OT_STR, 0, .doc = "where it should get to"),
    F("NetworksAttachments", OT_LIST, 0, SUB(network_attachment), .doc = "networks and addresses"),
    F("GenericResources", OT_LIST, 0, SUB(generic), .doc = "what it was given"),
    F("JobIteration", OT_OBJ, K, SUB(version), .doc = "of the job"),
    F("Volumes", OT_ANY, 0, .doc = "not supported"),
    F("TaskSpecID", OT_STR, OBJ_INTERNAL, .doc = NULL),
    F("StartNotBefore", OT_TIME, OBJ_INTERNAL, .doc = NULL),
    F("ReplacesID", OT_STR, OBJ_INTERNAL, .doc = NULL),
    F("Evict", OT_ANY, OBJ_INTERNAL, .doc = NULL),
    F("Ports", OT_LIST, OBJ_INTERNAL, SUB(port), .doc = NULL),
    END,
};
const struct obj_type obj_task = { "Task", task_f, NULL };

/* ---- node ---- */

static const struct obj_field node_spec_f[] = {
    F("Name", OT_STR, 0, .max = 255, .doc = "usually none"),
    F("Labels", OT_STRMAP, A, .doc = "for constraints"),
    F("Role", OT_STR, A, .check = obj_rule_role, .doc = "`worker` or `manager`: the wanted one"),
    F("Availability", OT_STR, A, .check = obj_rule_availability, .doc = "`active`, `pause` or `drain`"),
    END,
};
static int node_spec_check(json_t *obj, const char *path, struct err *e)
{
    (void)path;
    if (json_object_get(obj, "Role") == NULL)
        return err_set(e, ERR_INVALID, "invalid Role: \"\"");
    if (json_object_get(obj, "Availability") == NULL)
        return err_set(e, ERR_INVALID, "invalid Availability: \"\"");
    return 0;
}
const struct obj_type obj_node_spec = { "NodeSpec", node_spec_f, node_spec_check };

static const struct obj_field plugin_f[] = {
    F("Type", OT_STR, 0, .doc = "`Network`, `Volume`, `Log`"),
    F("Name", OT_STR, 0, .doc = "`overlay`, `local`, `json-file`, …"),
    END,
};
TYPE(plugin, "PluginDescription");
static const struct obj_field engine_f[] = {
    F("EngineVersion", OT_STR, 0, .doc = "version"),
    F("Labels", OT_STRMAP, 0, .doc = "for `engine.labels.*`"),
    F("Plugins", OT_LIST, 0, SUB(plugin), .doc = "drivers it has"),
    END,
};
TYPE(engine, "EngineDescription");
static const struct obj_field node_resources_f[] = {
    F("NanoCPUs", OT_INT, 0, .doc = "CPU time, 10⁻⁹ CPUs"),
    F("MemoryBytes", OT_INT, 0, .doc = "memory"),
    F("GenericResources", OT_LIST, 0, SUB(generic), .doc = "declared resources"),
    END,
};
TYPE(node_resources, "Resources");
static const struct obj_field description_f[] = {
    F("Hostname", OT_STR, 0, .doc = "host name"),
    F("Platform", OT_OBJ, A, SUB(platform), .doc = "architecture and system"),
    F("Resources", OT_OBJ, A, SUB(node_resources), .doc = "what it has"),
    F("Engine", OT_OBJ, A, SUB(engine), .doc = "what runs the containers"),
    F("TLSInfo", OT_OBJ, A, SUB(tls_info), .doc = "whom it trusts"),
    F("CSIInfo", OT_ANY, 0, .doc = "not supported"),
    END,
};
TYPE(description, "NodeDescription");
static const struct obj_field node_status_f[] = {
    F("State", OT_STR, 0, .doc = "`unknown`, `down`, `ready` or `disconnected`"),
    F("Message", OT_STR, 0, .doc = "for people"),
    F("Addr", OT_STR, 0, .doc = "address, no port"),
    END,
};
TYPE(node_status, "NodeStatus");
static const struct obj_field manager_status_f[] = {
    F("Leader", OT_BOOL, 0, .doc = "leads"),
    F("Reachability", OT_STR, 0, .doc = "`unknown`, `unreachable` or `reachable`"),
    F("Addr", OT_STR, 0, .doc = "address and port"),
    END,
};
TYPE(manager_status, "ManagerStatus");
static const struct obj_field node_f[] = {
    META_FIELDS,
    F("Spec", OT_OBJ, A, SUB(obj_node_spec), .doc = "what was asked for"),
    F("Description", OT_OBJ, A, SUB(description), .doc = "what the node says of itself"),
    F("Status", OT_OBJ, A, SUB(node_status), .doc = "how it is"),
    F("ManagerStatus", OT_OBJ, K, SUB(manager_status), .doc = "managers only"),
    F("Certificate", OT_ANY, OBJ_INTERNAL, .doc = NULL),
    F("Role", OT_ANY, OBJ_INTERNAL, .doc = NULL),
    F("Liveness", OT_ANY, OBJ_INTERNAL, .doc = NULL),
    F("DataPathAddr", OT_ANY, OBJ_INTERNAL, .doc = NULL),
    F("BootID", OT_ANY, OBJ_INTERNAL, .doc = NULL),
    END,
};
const struct obj_type obj_node = { "Node", node_f, NULL };

/* ---- cluster ---- */

static const struct obj_field orchestration_f[] = {
    F("TaskHistoryRetentionLimit", OT_INT, K, .def = "5", .doc = "ended tasks kept for each slot; negative: all"),
    END,
};
TYPE(orchestration, "OrchestrationConfig");
static const struct obj_field raft_f[] = {
    F("SnapshotInterval", OT_UINT, 0, .def = "10000", .doc = "log entries between snapshots"),
    F("KeepOldSnapshots", OT_UINT, A | K, .def = "0", .doc = "besides the current one"),
    F("LogEntriesForSlowFollowers", OT_UINT, 0, .def = "500", .doc = "kept behind a snapshot"),
    F("ElectionTick", OT_INT, A, .min = 0, .max = INT32_MAX, .def = "10", .doc = "ticks without a leader"),
    F("HeartbeatTick", OT_INT, A, .min = 0, .max = INT32_MAX, .def = "1", .doc = "ticks between heartbeats"),
    END,
};
TYPE(raft, "RaftConfig");
static const struct obj_field dispatcher_f[] = {
    F("HeartbeatPeriod", OT_DUR, 0, .def = "5000000000", .doc = "of nodes; three missed: down"),
    END,
};
TYPE(dispatcher, "DispatcherConfig", .check = obj_rules_dispatcher);
static const struct obj_field external_ca_f[] = {
    F("Protocol", OT_STR, A, .check = obj_rule_ca_protocol, .doc = "`cfssl`"),
    F("URL", OT_STR, A, .doc = "where CSRs go"),
    F("Options", OT_STRMAP, 0, .doc = "for the protocol"),
    F("CACert", OT_STR, A, .doc = "root certificate it signs with, PEM"),
    END,
};
TYPE(external_ca, "ExternalCA");
static const struct obj_field ca_f[] = {
    F("NodeCertExpiry", OT_DUR, 0, .def = "7776000000000000", .doc = "life of a node's certificate"),
    F("ExternalCAs", OT_LIST, 0, SUB(external_ca), .max = 100, .doc = "who signs instead"),
    F("SigningCACert", OT_STR, OBJ_INPUT_ONLY, .doc = "root to rotate to, PEM"),
    F("SigningCAKey", OT_STR, OBJ_INPUT_ONLY | OBJ_SECRET, .doc = "its key, PEM"),
    F("ForceRotate", OT_UINT, 0, .doc = "a change rotates the root"),
    END,
};
TYPE(ca, "CAConfig", .check = obj_rules_ca);
static const struct obj_field task_defaults_f[] = {
    F("LogDriver", OT_OBJ, K, SUB(driver), .doc = "for tasks that name none"),
    END,
};
TYPE(task_defaults, "TaskDefaults");
static const struct obj_field encryption_f[] = {
    F("AutoLockManagers", OT_BOOL, A, .doc = "managers need a key after a restart"),
    END,
};
TYPE(encryption, "EncryptionConfig");
static const struct obj_field cluster_spec_f[] = {
    F("Name", OT_STR, A, .def = "\"default\"", .check = obj_rule_cluster_name, .doc = "`default`"),
    F("Labels", OT_STRMAP, A, .doc = "for people"),
    F("Orchestration", OT_OBJ, A, SUB(orchestration), .def = "{\"TaskHistoryRetentionLimit\":5}", .doc = "tasks"),
    F("Raft", OT_OBJ, A, SUB(raft),
      .def = "{\"SnapshotInterval\":10000,\"KeepOldSnapshots\":0,\"LogEntriesForSlowFollowers\":500,"
             "\"ElectionTick\":10,\"HeartbeatTick\":1}",
      .doc = "managers"),
    F("Dispatcher", OT_OBJ, A, SUB(dispatcher), .def = "{\"HeartbeatPeriod\":5000000000}", .doc = "nodes"),
    F("CAConfig", OT_OBJ, A, SUB(ca), .def = "{\"NodeCertExpiry\":7776000000000000}", .doc = "certificates"),
    F("TaskDefaults", OT_OBJ, A, SUB(task_defaults), .doc = "for all tasks"),
    F("EncryptionConfig", OT_OBJ, A, SUB(encryption), .doc = "keys at rest"),
    END,
};
const struct obj_type obj_cluster_spec = { "SwarmSpec", cluster_spec_f, NULL };

static const struct obj_field join_tokens_f[] = {
    F("Worker", OT_STR, 0, .doc = "`SWMTKN-1-…`"),
    F("Manager", OT_STR, 0, .doc = "`SWMTKN-1-…`"),
    END,
};
TYPE(join_tokens, "JoinTokens");
static const struct obj_field cluster_f[] = {
    META_FIELDS,
    F("Spec", OT_OBJ, A, SUB(obj_cluster_spec), .doc = "what was asked for"),
    F("TLSInfo", OT_OBJ, A, SUB(tls_info), .doc = "root certificate"),
    F("RootRotationInProgress", OT_BOOL, A, .doc = "nodes are moving to a new root"),
    F("DefaultAddrPool", OT_STRS, A, .def = "null", .doc = "subnets of new networks come from here"),
    F("SubnetSize", OT_UINT, A, .def = "24", .doc = "prefix length of new subnets"),
    F("DataPathPort", OT_UINT, A, .def = "4789", .doc = "VXLAN"),
    F("JoinTokens", OT_OBJ, 0, SUB(join_tokens), .doc = "what a new node must bring"),
    F("RootCA", OT_ANY, OBJ_INTERNAL, .doc = NULL),
    END,
};
const struct obj_type obj_cluster = { "Swarm", cluster_f, NULL };

static const struct obj_field swarm_init_f[] = {
    F("ListenAddr", OT_STR, 0, .max = 300, .doc = "address, interface or address:port"),
    F("AdvertiseAddr", OT_STR, 0, .max = 300, .doc = "what other nodes dial"),
    F("DataPathAddr", OT_STR, 0, .max = 300, .doc = "for VXLAN"),
    F("DataPathPort", OT_UINT, 0, .check = obj_rule_data_path_port, .doc = "VXLAN; 0: 4789"),
    F("DefaultAddrPool", OT_STRS, 0, .max = 100, .check = obj_rule_cidr_list, .doc = "subnets of new networks"),
    F("SubnetSize", OT_UINT, 0, .min = 0, .max = 32, .doc = "0: 24"),
    F("ForceNewCluster", OT_BOOL, 0, .doc = "from this manager's state, alone"),
    F("Spec", OT_OBJ, 0, SUB(obj_cluster_spec), .doc = "settings"),
    F("AutoLockManagers", OT_BOOL, 0, .doc = "as in Spec.EncryptionConfig"),
    F("Availability", OT_ENUM, 0, VALUES("active", "pause", "drain"), .doc = "of this node"),
    END,
};
const struct obj_type obj_swarm_init = { "InitRequest", swarm_init_f, NULL };
static const struct obj_field swarm_join_f[] = {
    F("ListenAddr", OT_STR, 0, .max = 300, .doc = "address, interface or address:port"),
    F("AdvertiseAddr", OT_STR, 0, .max = 300, .doc = "what other nodes dial"),
    F("DataPathAddr", OT_STR, 0, .max = 300, .doc = "for VXLAN"),
    F("RemoteAddrs", OT_STRS, 0, .max = 100, .doc = "managers to ask"),
    F("JoinToken", OT_STR, OBJ_SECRET, .max = 300, .doc = "`SWMTKN-1-…`"),
    F("Availability", OT_ENUM, 0, VALUES("active", "pause", "drain"), .doc = "of this node"),
    END,
};
const struct obj_type obj_swarm_join = { "JoinRequest", swarm_join_f, NULL };
static const struct obj_field swarm_unlock_f[] = {
    F("UnlockKey", OT_STR, OBJ_SECRET, .max = 300, .doc = "`SWMKEY-1-…`"),
    END,
};
const struct obj_type obj_swarm_unlock = { "UnlockRequest", swarm_unlock_f, NULL };

/* ---- network ---- */

static const struct obj_field ipam_config_f[] = {
    F("Subnet", OT_STR, 0, .doc = "CIDR"),
    F("IPRange", OT_STR, 0, .doc = "CIDR within the subnet"),
    F("Gateway", OT_STR, 0, .doc = "address within the subnet"),
    F("AuxiliaryAddresses", OT_STRMAP, 0, .doc = "never given out"),
    END,
};
TYPE(ipam_config, "IPAMConfig", .check = obj_rules_ipam_config);
static const struct obj_field ipam_f[] = {
    F("Driver", OT_STR, A, .doc = "`default`"),
    F("Options", OT_STRMAP, A | K, .def = "null", .doc = "for the driver"),
    F("Config", OT_LIST, A, SUB(ipam_config), .max = 100, .doc = "subnets"),
    END,
};
TYPE(ipam, "IPAM");
static const struct obj_field config_from_f[] = { F("Network", OT_STR, A, .doc = "a config-only network"), END };
TYPE(config_from, "ConfigReference");
static const struct obj_field network_spec_f[] = {
    F("Name", OT_STR, A | OBJ_REQUIRED, .max = 255, .doc = "unique"),
    F("CheckDuplicate", OT_BOOL, OBJ_INPUT_ONLY, .doc = "of old clients; always so"),
    F("Driver", OT_STR, 0, .doc = "`overlay`"),
    F("Scope", OT_STR, 0, .doc = "`swarm`"),
    F("EnableIPv4", OT_BOOL, K, .doc = "always in a swarm"),
    F("EnableIPv6", OT_BOOL, 0, .doc = "IPv6 as well"),
    F("IPAM", OT_OBJ, K, SUB(ipam), .doc = "subnets"),
    F("Internal", OT_BOOL, 0, .doc = "no way out"),
    F("Attachable", OT_BOOL, 0, .doc = "for containers outside of services"),
    F("Ingress", OT_BOOL, 0, .doc = "the routing mesh's"),
    F("ConfigOnly", OT_BOOL, 0, .doc = "a template for others"),
    F("ConfigFrom", OT_OBJ, K, SUB(config_from), .doc = "the template"),
    F("Options", OT_STRMAP, 0, .doc = "for the driver"),
    F("Labels", OT_STRMAP, A, .doc = "for people and filters"),
    END,
};
const struct obj_type obj_network_spec = { "NetworkCreate", network_spec_f, obj_rules_network };
static const struct obj_field network_f[] = {
    META_FIELDS,
    F("Spec", OT_OBJ, A, SUB(obj_network_spec), .doc = "what was asked for"),
    F("DriverState", OT_OBJ, K, SUB(driver), .doc = "what the allocator chose"),
    F("IPAM", OT_OBJ, K, SUB(ipam), .doc = "subnets in use"),
    END,
};
const struct obj_type obj_network = { "Network", network_f, NULL };

/* ---- secret, config ---- */

static const struct obj_field secret_spec_f[] = {
    F("Name", OT_STR, A, .check = obj_rule_object_name, .doc = "unique"),
    F("Labels", OT_STRMAP, A, .doc = "for people and filters"),
    F("Data", OT_BYTES, OBJ_SECRET | OBJ_INPUT_ONLY, .check = obj_rule_secret_data, .doc = "1…511999 bytes"),
    F("Driver", OT_OBJ, K, SUB(driver), .doc = "where the payload comes from"),
    F("Templating", OT_OBJ, K, SUB(templating), .doc = "the payload is a template"),
    END,
};
const struct obj_type obj_secret_spec = { "SecretSpec", secret_spec_f, obj_rules_secret };
static const struct obj_field secret_f[] = {
    META_FIELDS,
    F("Spec", OT_OBJ, A, SUB(obj_secret_spec), .doc = "what was asked for"),
    END,
};
const struct obj_type obj_secret = { "Secret", secret_f, NULL };

static const struct obj_field config_spec_f[] = {
    F("Name", OT_STR, A, .check = obj_rule_object_name, .doc = "unique"),
    F("Labels", OT_STRMAP, A, .doc = "for people and filters"),
    F("Data", OT_BYTES, 0, .check = obj_rule_config_data, .doc = "1…1023999 bytes"),
    F("Templating", OT_OBJ, K, SUB(templating), .doc = "the content is a template"),
    END,
};
const struct obj_type obj_config_spec = { "ConfigSpec", config_spec_f, obj_rules_secret };
static const struct obj_field config_f[] = {
    META_FIELDS,
    F("Spec", OT_OBJ, A, SUB(obj_config_spec), .doc = "what was asked for"),
    END,
};
const struct obj_type obj_config = { "Config", config_f, NULL };
