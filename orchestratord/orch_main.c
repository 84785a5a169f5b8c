/* orch_main.c - desired tasks: which tasks should there be, and in which state. */
#include "orchestratord/orch_shell.h"

int main(int argc, char **argv)
{
    static const struct conf_item conf[] = {
        CONF_COUNT("mass_down_percent", &orch_conf.mass_percent, "33", 1, 100,
                   "when more than this share of the nodes, and more than one, goes down within a minute, their tasks "
                   "are moved little by little; 100: never"),
        CONF_COUNT("mass_move_rate", &orch_conf.mass_rate, "50", 1, 1000000,
                   "how many tasks of such nodes are moved in a second; as many are moved at once"),
        CONF_END,
    };
    static const struct probe probes[] = {
        { "explain", "SERVICE|TASK", "why tasks are as they are, and what comes next (the leader knows)",
          orch_shell_explain },
        { 0 },
    };
    static const struct daemon_spec spec = { .name = "orchestratord",
                                             .conf = conf,
                                             .probes = probes,
                                             .start = orch_shell_start,
                                             .stop = orch_shell_stop,
                                             .status = orch_shell_status,
                                             .metrics = orch_shell_metrics };
    return daemon_main(argc, argv, &spec);
}
