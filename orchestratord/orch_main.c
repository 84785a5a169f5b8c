/* orch_main.c - desired tasks: which tasks should there be, and in which state. */
#include "orchestratord/orch_shell.h"

int main(int argc, char **argv)
{
    static const struct daemon_spec spec = { .name = "orchestratord",
                                             .start = orch_shell_start,
                                             .stop = orch_shell_stop,
                                             .status = orch_shell_status,
                                             .metrics = orch_shell_metrics };
    return daemon_main(argc, argv, &spec);
}
