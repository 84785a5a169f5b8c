/* raftd - the replicated store: Raft log, state machine, leadership. */
#include "common/daemon/daemon.h"
#include "common/proto/msg_raftd.h"
#include "raftd/node.h"
#include "raftd/ops.h"
#include "raftd/probes.h"

static const struct conf_item conf[] = {
    CONF_TEXT("secret_group", node_conf.secret_group, "microswarm-secrets",
              "group that may open the secret map; none: nobody may"),
    CONF_COUNT("snapshot_interval", &node_conf.snapshot_interval, "10000", 10, 1000000000,
               "entries between snapshots, unless the swarm's spec says otherwise"),
    CONF_COUNT("snapshot_keep", &node_conf.snapshot_keep, "500", 0, 1000000000,
               "entries kept before a snapshot, likewise"),
    CONF_BYTES("snapshot_bytes", &node_conf.snapshot_bytes, "128m", 1u << 16, 1ull << 40,
               "a snapshot is also taken after this much in the log"),
    CONF_MS("slow_reader", &node_conf.slow_reader_ms, "2s", 10, 3600000, "snapshots held longer are counted as slow"),
    CONF_MS("leader_wait", &node_conf.leader_wait_ms, "5s", 0, 60000, "a request waits this long for somebody to lead"),
    CONF_END,
};

static const struct route routes[] = { OPS_ROUTES, { 0 } };

static int start(struct err *e)
{
    for (unsigned i = 0; i < WHO_COUNT; i++)
        node_conf.authority.uid[i] = daemon_user(who_name[i]);
    return node_start(e);
}

int main(int argc, char **argv)
{
    static const struct daemon_spec spec = {
        .name = "raftd",
        .conf = conf,
        .routes = routes,
        .probes = probes,
        .max_calls = 256,
        .start = start,
        .drain = node_drain,
        .stop = node_stop,
        .status = probes_status,
        .metrics = probes_metrics,
    };
    return daemon_main(argc, argv, &spec);
}
