#include <string.h>

#include "meshd/mesh_proxy.h"
#include "meshd/mesh_shell.h"

int main(int argc, char **argv)
{
    static const struct daemon_spec spec = {
        .name = "meshd",
        .conf = mesh_shell_conf_items,
        .routes = mesh_shell_routes,
        .probes = mesh_shell_probes,
        .start = mesh_shell_start,
        .stop = mesh_shell_stop,
        .status = mesh_shell_status,
        .metrics = mesh_shell_metrics,
    };
    if (argc == 2 && strcmp(argv[1], MESH_PROXY_FLAG) == 0)
        return mesh_proxy_main(3);
    return daemon_main(argc, argv, &spec);
}
