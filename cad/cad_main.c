/* cad - the swarm's identities: root certificate, join tokens, node certificates and roles. See cad.8. */
#include "cad/cad_shell.h"

int main(int argc, char **argv)
{
    static const struct daemon_spec spec = { .name = "cad",
                                             .routes = cad_routes,
                                             .max_calls = 300,
                                             .start = cad_start,
                                             .stop = cad_stop,
                                             .status = cad_status,
                                             .metrics = cad_metrics };
    return daemon_main(argc, argv, &spec);
}
