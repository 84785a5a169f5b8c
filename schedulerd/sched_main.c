/* sched_main.c - picks a node for each task. */
#include "schedulerd/sched_shell.h"

int main(int argc, char **argv)
{
    static const struct probe probes[] = {
        { "explain", "TASK", "why a task is where it is, or nowhere", sched_shell_explain },
        { 0 },
    };
    static const struct daemon_spec spec = { .name = "schedulerd",
                                             .probes = probes,
                                             .start = sched_shell_start,
                                             .stop = sched_shell_stop,
                                             .status = sched_shell_status,
                                             .metrics = sched_shell_metrics };
    return daemon_main(argc, argv, &spec);
}
