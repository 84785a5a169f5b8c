/* alloc_main.c - published ports, subnets, VXLAN ids, addresses: what must be unique in the swarm. */
#include "allocatord/alloc_shell.h"

int main(int argc, char **argv)
{
    static const struct daemon_spec spec = { .name = "allocatord",
                                             .start = alloc_shell_start,
                                             .stop = alloc_shell_stop,
                                             .status = alloc_shell_status,
                                             .metrics = alloc_shell_metrics };
    return daemon_main(argc, argv, &spec);
}
