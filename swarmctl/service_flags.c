/* The flags of "service create" and "service update": what they are called, what they take, where in the spec it goes.
 */
#include "swarmctl/service_flags.h"

#include "swarmctl/cmds.h"
#include "swarmctl/conv.h"
#include "swarmctl/spec.h"

#define TT "TaskTemplate."
#define CS TT "ContainerSpec."
#define LIM TT "Resources.Limits."
#define RES TT "Resources.Reservations."
#define RP TT "RestartPolicy."

#define SET(p) .apply = APPLY_SET, .path = (p)
#define GIVEN(p) .apply = APPLY_GIVEN, .path = (p)
#define ALWAYS(p) .apply = APPLY_ALWAYS, .path = (p)
#define MAP(p, rm) .apply = APPLY_MAP, .path = (p), .pair = (rm)
#define LIST(p, rm) .apply = APPLY_LIST, .path = (p), .pair = (rm)
#define CALL(f) .apply = APPLY_FN, .fn = (f)

/* Rows are in the order in which they are carried out: what is checked without the daemon comes before lookups. */
const struct flag service_common_flags[] = {
    { .name = "cap-add",
      .type = &T_LIST,
      .help = "Add Linux capabilities",
      .since = 41,
      .choices = "@capability",
      CALL(spec_caps) },
    { .name = "cap-drop",
      .type = &T_LIST,
      .help = "Drop Linux capabilities",
      .since = 41,
      .choices = "@capability",
      CALL(spec_caps) },
    { .name = "entrypoint",
      .type = &T_WORDS,
      .help = "Overwrite the default ENTRYPOINT of the image",
      SET(CS "Command") },
    { .name = "health-cmd", .type = &T_STRING, .help = "Command to run to check health", CALL(spec_health) },
    { .name = "health-interval",
      .type = &T_POSITIVE_DURATION,
      .help = "Time between running the check (ms|s|m|h)",
      CALL(spec_health) },
    { .name = "health-retries",
      .type = &T_INT,
      .help = "Consecutive failures needed to report unhealthy",
      CALL(spec_health) },
    { .name = "health-start-interval",
      .type = &T_POSITIVE_DURATION,
      .since = 44,
      .help = "Time between running the check during the start period (ms|s|m|h)",
      CALL(spec_health) },
    { .name = "health-start-period",
      .type = &T_POSITIVE_DURATION,
      .help = "Start period for the container to initialize before counting retries towards unstable (ms|s|m|h)",
      CALL(spec_health) },
    { .name = "health-timeout",
      .type = &T_POSITIVE_DURATION,
      .help = "Maximum time to allow one check to run (ms|s|m|h)",
      CALL(spec_health) },
    { .name = "no-healthcheck",
      .type = &T_BOOL,
      .help = "Disable any container-specified HEALTHCHECK",
      CALL(spec_health) },
    { .name = "hostname", .type = &T_STRING, .help = "Container hostname", SET(CS "Hostname") },
    { .name = "isolation", .type = &T_STRING, .help = "Service container isolation mode", SET(CS "Isolation") },
    { .name = "limit-cpu", .type = &T_CPUS, .help = "Limit CPUs", SET(LIM "NanoCPUs") },
    { .name = "limit-memory", .type = &T_BYTES, .help = "Limit Memory", SET(LIM "MemoryBytes") },
    { .name = "limit-pids",
      .type = &T_INT,
      .help = "Limit maximum number of processes (default 0 = unlimited)",
      .since = 41,
      SET(LIM "Pids") },
    { .name = "log-driver", .type = &T_STRING, .help = "Logging driver for service", CALL(spec_log) },
    { .name = "log-opt", .type = &T_ENVS, .help = "Logging driver options", CALL(spec_log) },
    { .name = "max-concurrent",
      .type = &T_UINT,
      .help = "Number of job tasks to run concurrently (default equal to --replicas)",
      .since = 41 },
    { .name = "no-resolve-image",
      .type = &T_BOOL,
      .help = "Do not query the registry to resolve image digest and supported platforms" },
    { .name = "oom-score-adj",
      .type = &T_INT,
      .help = "Tune host's OOM preferences (-1000 to 1000)",
      .since = 46,
      SET(CS "OomScoreAdj") },
    { .name = "read-only",
      .type = &T_BOOL,
      .help = "Mount the container's root filesystem as read only",
      SET(CS "ReadOnly") },
    { .name = "replicas-max-per-node",
      .type = &T_UINT,
      .help = "Maximum number of tasks per node (default 0 = unlimited)",
      SET(TT "Placement.MaxReplicas") },
    { .name = "reserve-cpu", .type = &T_CPUS, .help = "Reserve CPUs", SET(RES "NanoCPUs") },
    { .name = "reserve-memory", .type = &T_BYTES, .help = "Reserve Memory", SET(RES "MemoryBytes") },
    { .name = "stop-signal",
      .type = &T_STRING,
      .help = "Signal to stop the container",
      SET(CS "StopSignal"),
      .choices = "@signal" },
    { .name = "tty", .shorthand = 't', .type = &T_BOOL, .help = "Allocate a pseudo-TTY", SET(CS "TTY") },
    { .name = "user",
      .shorthand = 'u',
      .type = &T_STRING,
      .help = "Username or UID (format: <name|uid>[:<group|gid>])",
      SET(CS "User") },
    { .name = "with-registry-auth", .type = &T_BOOL, .help = "Send registry authentication details to swarm agents" },
    { .name = "workdir",
      .shorthand = 'w',
      .type = &T_STRING,
      .help = "Working directory inside the container",
      SET(CS "Dir") },
    FLAGS_END,
};

/* Those of both commands whose help shows a default on create only. D(x) is .def = x there. */
#define POLICY_FLAGS(D)                                                                                                \
    { .name = "restart-condition",                                                                                     \
      .type = &T_STRING,                                                                                               \
      .help = "Restart when condition is met (\"none\", \"on-failure\", \"any\")",                                     \
      D("any").choices = "none,on-failure,any",                                                                        \
      GIVEN(RP "Condition") },                                                                                         \
        { .name = "restart-delay",                                                                                     \
          .type = &T_DURATION,                                                                                         \
          .help = "Delay between restart attempts (ns|us|ms|s|m|h)",                                                   \
          D("5s") GIVEN(RP "Delay") },                                                                                 \
        { .name = "restart-max-attempts",                                                                              \
          .type = &T_UINT,                                                                                             \
          .help = "Maximum number of restarts before giving up",                                                       \
          GIVEN(RP "MaxAttempts") },                                                                                   \
        { .name = "restart-window",                                                                                    \
          .type = &T_DURATION,                                                                                         \
          .help = "Window used to evaluate the restart policy (ns|us|ms|s|m|h)",                                       \
          GIVEN(RP "Window") },                                                                                        \
        { .name = "update-parallelism",                                                                                \
          .type = &T_UINT,                                                                                             \
          .help = "Maximum number of tasks updated simultaneously (0 to update all at once)",                          \
          D("1") GIVEN("UpdateConfig.Parallelism") },                                                                  \
        { .name = "update-delay",                                                                                      \
          .type = &T_DURATION,                                                                                         \
          .help = "Delay between updates (ns|us|ms|s|m|h)",                                                            \
          D("0s") GIVEN("UpdateConfig.Delay") },                                                                       \
        { .name = "update-failure-action",                                                                             \
          .type = &T_STRING,                                                                                           \
          .help = "Action on update failure (\"pause\", \"continue\", \"rollback\")",                                  \
          D("pause").choices = "pause,continue,rollback",                                                              \
          GIVEN("UpdateConfig.FailureAction") },                                                                       \
        { .name = "update-monitor",                                                                                    \
          .type = &T_DURATION,                                                                                         \
          .help = "Duration after each task update to monitor for failure (ns|us|ms|s|m|h)",                           \
          D("5s") GIVEN("UpdateConfig.Monitor") },                                                                     \
        { .name = "update-max-failure-ratio",                                                                          \
          .type = &T_FLOAT,                                                                                            \
          .help = "Failure rate to tolerate during an update",                                                         \
          D("0") GIVEN("UpdateConfig.MaxFailureRatio") },                                                              \
        { .name = "update-order",                                                                                      \
          .type = &T_STRING,                                                                                           \
          .help = "Update order (\"start-first\", \"stop-first\")",                                                    \
          D("stop-first").choices = "start-first,stop-first",                                                          \
          GIVEN("UpdateConfig.Order") },                                                                               \
        { .name = "rollback-parallelism",                                                                              \
          .type = &T_UINT,                                                                                             \
          .help = "Maximum number of tasks rolled back simultaneously (0 to roll back all at once)",                   \
          D("1") GIVEN("RollbackConfig.Parallelism") },                                                                \
        { .name = "rollback-delay",                                                                                    \
          .type = &T_DURATION,                                                                                         \
          .help = "Delay between task rollbacks (ns|us|ms|s|m|h)",                                                     \
          D("0s") GIVEN("RollbackConfig.Delay") },                                                                     \
        { .name = "rollback-failure-action",                                                                           \
          .type = &T_STRING,                                                                                           \
          .help = "Action on rollback failure (\"pause\", \"continue\")",                                              \
          D("pause").choices = "pause,continue",                                                                       \
          GIVEN("RollbackConfig.FailureAction") },                                                                     \
        { .name = "rollback-monitor",                                                                                  \
          .type = &T_DURATION,                                                                                         \
          .help = "Duration after each task rollback to monitor for failure (ns|us|ms|s|m|h)",                         \
          D("5s") GIVEN("RollbackConfig.Monitor") },                                                                   \
        { .name = "rollback-max-failure-ratio",                                                                        \
          .type = &T_FLOAT,                                                                                            \
          .help = "Failure rate to tolerate during a rollback",                                                        \
          D("0") GIVEN("RollbackConfig.MaxFailureRatio") },                                                            \
        { .name = "rollback-order",                                                                                    \
          .type = &T_STRING,                                                                                           \
          .help = "Rollback order (\"start-first\", \"stop-first\")",                                                  \
          D("stop-first").choices = "start-first,stop-first",                                                          \
          GIVEN("RollbackConfig.Order") },                                                                             \
    {                                                                                                                  \
        .name = "stop-grace-period", .type = &T_DURATION,                                                              \
        .help = "Time to wait before force killing a container (ns|us|ms|s|m|h)", D("10s") GIVEN(CS "StopGracePeriod") \
    }

#define SHOWN(x) .def = (x),
#define NOT_SHOWN(x)

const struct flag service_create_flags[] = {
    { .name = "name", .type = &T_STRING, .help = "Service name", SET("Name") },
    { .name = "mode",
      .type = &T_STRING,
      .def = "replicated",
      .choices = "replicated,global,replicated-job,global-job",
      .help = "Service mode (\"replicated\", \"global\", \"replicated-job\", \"global-job\")",
      CALL(spec_mode) },
    { .name = "replicas", .type = &T_UINT, .help = "Number of tasks" },
    { .name = "label", .shorthand = 'l', .type = &T_LABELS, .help = "Service labels", MAP("Labels", NULL) },
    { .name = "container-label", .type = &T_LABELS, .help = "Container labels", MAP(CS "Labels", NULL) },
    { .name = "env", .shorthand = 'e', .type = &T_ENVS, .help = "Set environment variables", CALL(spec_env) },
    { .name = "env-file",
      .type = &T_LIST,
      .help = "Read in a file of environment variables",
      .choices = "@file",
      CALL(spec_env) },
    { .name = "group",
      .type = &T_LIST,
      .help = "Set one or more supplementary user groups for the container",
      SET(CS "Groups") },
    { .name = "init",
      .type = &T_BOOL,
      .help = "Use an init inside each service container to forward signals and reap processes",
      ALWAYS(CS "Init") },
    { .name = "mount", .type = &T_MOUNT, .help = "Attach a filesystem mount to the service", SET(CS "Mounts") },
    { .name = "host",
      .type = &T_HOSTS,
      .help = "Set one or more custom host-to-IP mappings (host:ip)",
      CALL(spec_hosts) },
    { .name = "dns", .type = &T_IPS, .help = "Set custom DNS servers", SET(CS "DNSConfig.Nameservers") },
    { .name = "dns-option", .type = &T_LIST, .help = "Set DNS options", SET(CS "DNSConfig.Options") },
    { .name = "dns-search", .type = &T_DOMAINS, .help = "Set custom DNS search domains", SET(CS "DNSConfig.Search") },
    { .name = "sysctl", .type = &T_LIST, .help = "Sysctl options", MAP(CS "Sysctls", NULL) },
    { .name = "ulimit", .type = &T_ULIMIT, .def = "[]", .help = "Ulimit options", .since = 41, CALL(spec_ulimits) },
    { .name = "generic-resource", .type = &T_GENERIC, .help = "User defined resources", SET(RES "GenericResources") },
    { .name = "constraint", .type = &T_LIST, .help = "Placement constraints", SET(TT "Placement.Constraints") },
    { .name = "placement-pref",
      .type = &T_PREF,
      .help = "Add a placement preference",
      SET(TT "Placement.Preferences") },
    { .name = "publish",
      .shorthand = 'p',
      .type = &T_PORT,
      .help = "Publish a port as a node port",
      SET("EndpointSpec.Ports") },
    { .name = "endpoint-mode",
      .type = &T_STRING,
      .def = "vip",
      .choices = "vip,dnsrr",
      .help = "Endpoint mode (vip or dnsrr)",
      ALWAYS("EndpointSpec.Mode") },
    POLICY_FLAGS(SHOWN),
    { .name = "network",
      .type = &T_NETWORK,
      .help = "Network attachments",
      .choices = "@network",
      CALL(spec_networks) },
    { .name = "secret",
      .type = &T_SECRET,
      .help = "Specify secrets to expose to the service",
      .choices = "@secret",
      CALL(spec_secrets) },
    { .name = "config",
      .type = &T_CONFIG,
      .help = "Specify configurations to expose to the service",
      .choices = "@config",
      CALL(spec_configs) },
    FLAGS_END,
};

const struct flag service_update_flags[] = {
    { .name = "image", .type = &T_STRING, .help = "Service image tag", .choices = "@image", SET(CS "Image") },
    { .name = "args", .type = &T_WORDS, .help = "Service command args", SET(CS "Args") },
    { .name = "force", .type = &T_BOOL, .help = "Force update even if no changes require it", CALL(spec_force) },
    { .name = "rollback", .type = &T_BOOL, .help = "Rollback to previous specification" },
    { .name = "replicas", .type = &T_UINT, .help = "Number of tasks", CALL(spec_replicas) },
    { .name = "label-add", .type = &T_LABELS, .help = "Add or update a service label", MAP("Labels", "label-rm") },
    { .name = "label-rm", .type = &T_LIST, .help = "Remove a label by its key" },
    { .name = "container-label-add",
      .type = &T_LABELS,
      .help = "Add or update a container label",
      MAP(CS "Labels", "container-label-rm") },
    { .name = "container-label-rm", .type = &T_LIST, .help = "Remove a container label by its key" },
    { .name = "env-add", .type = &T_ENVS, .help = "Add or update an environment variable", CALL(spec_env) },
    { .name = "env-rm", .type = &T_LIST, .help = "Remove an environment variable", CALL(spec_env) },
    { .name = "group-add",
      .type = &T_LIST,
      .help = "Add an additional supplementary user group to the container",
      LIST(CS "Groups", "group-rm") },
    { .name = "group-rm",
      .type = &T_LIST,
      .help = "Remove a previously added supplementary user group from the container" },
    { .name = "init",
      .type = &T_BOOL,
      .help = "Use an init inside each service container to forward signals and reap processes",
      GIVEN(CS "Init") },
    { .name = "mount-add", .type = &T_MOUNT, .help = "Add or update a mount on a service", CALL(spec_mounts) },
    { .name = "mount-rm", .type = &T_LIST, .help = "Remove a mount by its target path", CALL(spec_mounts) },
    { .name = "host-add", .type = &T_HOSTS, .help = "Add a custom host-to-IP mapping (\"host:ip\")", CALL(spec_hosts) },
    { .name = "host-rm",
      .type = &T_LIST,
      .help = "Remove a custom host-to-IP mapping (\"host:ip\")",
      CALL(spec_hosts) },
    { .name = "dns-add",
      .type = &T_IPS,
      .help = "Add or update a custom DNS server",
      LIST(CS "DNSConfig.Nameservers", "dns-rm") },
    { .name = "dns-rm", .type = &T_LIST, .help = "Remove a custom DNS server" },
    { .name = "dns-option-add",
      .type = &T_LIST,
      .help = "Add or update a DNS option",
      LIST(CS "DNSConfig.Options", "dns-option-rm") },
    { .name = "dns-option-rm", .type = &T_LIST, .help = "Remove a DNS option" },
    { .name = "dns-search-add",
      .type = &T_DOMAINS,
      .help = "Add or update a custom DNS search domain",
      LIST(CS "DNSConfig.Search", "dns-search-rm") },
    { .name = "dns-search-rm", .type = &T_LIST, .help = "Remove a DNS search domain" },
    { .name = "sysctl-add", .type = &T_LIST, .help = "Add or update a Sysctl option", MAP(CS "Sysctls", "sysctl-rm") },
    { .name = "sysctl-rm", .type = &T_LIST, .help = "Remove a Sysctl option" },
    { .name = "ulimit-add",
      .type = &T_ULIMIT,
      .def = "[]",
      .help = "Add or update a ulimit option",
      .since = 41,
      CALL(spec_ulimits) },
    { .name = "ulimit-rm", .type = &T_LIST, .help = "Remove a ulimit option", .since = 41, CALL(spec_ulimits) },
    { .name = "generic-resource-add", .type = &T_GENERIC, .help = "Add a Generic resource", CALL(spec_generic) },
    { .name = "generic-resource-rm", .type = &T_LIST, .help = "Remove a Generic resource", CALL(spec_generic) },
    { .name = "constraint-add",
      .type = &T_LIST,
      .help = "Add or update a placement constraint",
      LIST(TT "Placement.Constraints", "constraint-rm") },
    { .name = "constraint-rm", .type = &T_LIST, .help = "Remove a constraint" },
    { .name = "placement-pref-add", .type = &T_PREF, .help = "Add a placement preference", CALL(spec_prefs) },
    { .name = "placement-pref-rm", .type = &T_PREF, .help = "Remove a placement preference", CALL(spec_prefs) },
    { .name = "publish-add", .type = &T_PORT, .help = "Add or update a published port", CALL(spec_ports) },
    { .name = "publish-rm", .type = &T_PORT, .help = "Remove a published port by its target port", CALL(spec_ports) },
    { .name = "endpoint-mode",
      .type = &T_STRING,
      .choices = "vip,dnsrr",
      .help = "Endpoint mode (vip or dnsrr)",
      GIVEN("EndpointSpec.Mode") },
    POLICY_FLAGS(NOT_SHOWN),
    { .name = "network-add", .type = &T_NETWORK, .help = "Add a network", .choices = "@network", CALL(spec_networks) },
    { .name = "network-rm", .type = &T_LIST, .help = "Remove a network", .choices = "@network", CALL(spec_networks) },
    { .name = "secret-add",
      .type = &T_SECRET,
      .help = "Add or update a secret on a service",
      .choices = "@secret",
      CALL(spec_secrets) },
    { .name = "secret-rm", .type = &T_LIST, .help = "Remove a secret", .choices = "@secret", CALL(spec_secrets) },
    { .name = "config-add",
      .type = &T_CONFIG,
      .help = "Add or update a config file on a service",
      .choices = "@config",
      CALL(spec_configs) },
    { .name = "config-rm",
      .type = &T_LIST,
      .help = "Remove a configuration file",
      .choices = "@config",
      CALL(spec_configs) },
    FLAGS_END,
};

/* Carried out with the configs, before what both commands have in common. */
static const struct flag credential_flags[] = {
    { .name = "credential-spec",
      .type = &T_CREDENTIAL,
      .help = "Credential spec for managed service account (Windows only)",
      CALL(spec_configs) },
    FLAGS_END,
};
const struct flag service_wait_flags[] = {
    { .name = "detach",
      .shorthand = 'd',
      .type = &T_BOOL,
      .help = "Exit immediately instead of waiting for the service to converge" },
    FLAGS_END,
};

const struct flag *const service_create_tables[] = { service_create_flags, credential_flags, service_common_flags,
                                                     service_wait_flags,   progress_flags,   NULL };
const struct flag *const service_update_tables[] = { service_update_flags, credential_flags, service_common_flags,
                                                     service_wait_flags,   progress_flags,   NULL };
