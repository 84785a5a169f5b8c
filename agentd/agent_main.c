/* agent_main.c - agentd: runs the tasks that are assigned to this node. */
#include <string.h>
#include <sys/stat.h>

#include "agentd/agent_info.h"
#include "agentd/agent_shell.h"
#include "agentd/image_worker.h"

static const struct conf_item conf[] = {
    CONF_TEXT("conmon", agent_conf.conmon, "/usr/bin/conmon", "the container monitor"),
    CONF_TEXT("crun", agent_conf.crun, "/usr/bin/crun", "the OCI runtime"),
    CONF_TEXT("init", agent_conf.init, "/usr/bin/tini-static", "first process of containers with Init"),
    CONF_BOOL("default_init", &agent_conf.default_init, "no", "whether a service that does not say gets an init"),
    CONF_TEXT("cgroup_root", agent_conf.cgroup_root, "/microswarm", "control group of all containers"),
    CONF_TEXT("insecure_registries", agent_conf.insecure_registries, "",
              "registries (host:port) without TLS, blank-separated"),
    CONF_TEXT("labels", agent_conf.labels, "", "this node's engine labels, KEY=VALUE, blank-separated"),
    CONF_TEXT("node_generic_resources", agent_conf.node_generic_resources, "",
              "what this node has besides CPUs and memory, KIND=AMOUNT or KIND=NAME, blank-separated"),
    CONF_COUNT("starts_max", &agent_conf.starts_max, "3", 1, 64, "containers that are being started at the same time"),
    CONF_BYTES("layer_size_max", &agent_conf.layer_size_max, "64g", 0, 1ull << 50,
               "size of an image's layer when unpacked; 0: no limit"),
    CONF_BYTES("log_size_max", &agent_conf.log_size_max, "10m", 0, 1ull << 40, "size of a log file; 0: no limit"),
    CONF_COUNT("log_files", &agent_conf.log_files, "3", 2, 20, "log files kept for a task, the current one included"),
    CONF_MS("backoff_max", &agent_conf.backoff_max_ms, "250ms", 10, 60000,
            "longest pause between tries to reach the managers"),
    CONF_MS("drain_wait", &agent_conf.drain_wait_ms, "4s", 0, 60000,
            "how long a task that is to stop waits for the managers' word that nobody sends it anything new"),
    CONF_COUNT("health_starts_max", &agent_conf.health_starts_max, "16", 1, 1000,
               "health checks that begin at the same time; one that takes more than 5 s does not count"),
    CONF_MS("usage_period", &agent_conf.usage_period_ms, "5s", 100, 60000,
            "how often tasks of services that scale themselves are measured"),
    CONF_END,
};

static int start(struct err *e)
{
    int r = host_settings_check(e);
    return r < 0 ? r : agent_start(e);
}

int main(int argc, char **argv)
{
    static const struct daemon_spec spec = {
        .name = "agentd",
        .conf = conf,
        .routes = agent_routes,
        .probes = agent_probes,
        .max_calls = 256,
        .start = start,
        .stop = agent_stop,
        .status = agent_status,
        .metrics = agent_metrics,
    };
    if (argc == 2 && strcmp(argv[1], "image-worker") == 0)
        return image_worker_main();
    umask(022); /* what it makes for containers is for their users, whatever the caller's mask */
    return daemon_main(argc, argv, &spec);
}
