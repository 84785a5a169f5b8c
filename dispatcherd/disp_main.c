/* disp_main.c - the managers' side of the agents: sessions, heartbeats, assignments, task states. */
#include "dispatcherd/disp_shell.h"

int main(int argc, char **argv)
{
    static const struct conf_item conf[] = {
        CONF_MS("suspect", &disp_conf.suspect_ms, "1s", 50, 600000,
                "how long a node whose link is lost may be silent before it is down"),
        CONF_MS("orphan_after", &disp_conf.orphan_ms, "5m", 1000, 31536000000,
                "when the tasks of a node that stays down are given up"),
        CONF_COUNT("flap_max", &disp_conf.flap_max, "3", 0, 1000,
                   "how often a node may go down in flap_window before it is held back; 0: never held"),
        CONF_MS("flap_window", &disp_conf.flap_window_ms, "10m", 1000, 86400000, "the time flap_max is for"),
        CONF_MS("flap_hold", &disp_conf.flap_hold_ms, "30s", 1000, 86400000,
                "how long a flapping node is not ready; doubled each time"),
        CONF_MS("flap_hold_max", &disp_conf.flap_hold_max_ms, "10m", 1000, 86400000, "the longest of these times"),
        CONF_MS("drain_wait", &disp_conf.drain_wait_ms, "2s", 0, 60000,
                "how long a stopping task waits for all nodes to confirm that they send it nothing new"),
        CONF_MS("drain_period", &disp_conf.drain_ms, "5s", 0, 86400000,
                "how long open connections to a stopping task may take to end, if its service does not say; 0: stop at "
                "once"),
        CONF_MS("usage_period", &disp_conf.usage_ms, "5s", 100, 60000,
                "how often the use of a self-scaling service is written at most; as agentd's"),
        CONF_END,
    };
    static const struct probe probes[] = {
        { "sessions", "", "each node, and what it was told", disp_shell_sessions },
        { "networks", "", "each node's meshd, and what it was told", disp_shell_networks },
        { 0 },
    };
    static const struct daemon_spec spec = { .name = "dispatcherd",
                                             .conf = conf,
                                             .routes = disp_routes,
                                             .probes = probes,
                                             .max_calls =
                                                 40000 /* a poll of each node, and what they report meanwhile */,
                                             .start = disp_shell_start,
                                             .stop = disp_shell_stop,
                                             .status = disp_shell_status,
                                             .metrics = disp_shell_metrics };
    return daemon_main(argc, argv, &spec);
}
