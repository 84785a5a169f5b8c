/* disp_main.c - the managers' side of the agents: sessions, heartbeats, assignments, task states. */
#include "dispatcherd/disp_shell.h"

int main(int argc, char **argv)
{
    static const struct conf_item conf[] = {
        CONF_UID("user_agentd", &disp_conf.user_agentd, "root", "who may speak for this node, besides root"),
        CONF_END,
    };
    static const struct probe probes[] = {
        { "sessions", "", "each node, and what it was told", disp_shell_sessions },
        { 0 },
    };
    static const struct daemon_spec spec = { .name = "dispatcherd",
                                             .conf = conf,
                                             .routes = disp_routes,
                                             .probes = probes,
                                             .max_calls = 256,
                                             .start = disp_shell_start,
                                             .stop = disp_shell_stop,
                                             .status = disp_shell_status,
                                             .metrics = disp_shell_metrics };
    return daemon_main(argc, argv, &spec);
}
