/* cad - the swarm's identities. So far: the root certificate and the join tokens. See cad.8. */
#include "cad/cad_shell.h"
#include "common/daemon/daemon.h"

int main(int argc, char **argv)
{
    static const struct daemon_spec spec = {
        .name = "cad", .start = cad_start, .stop = cad_stop, .status = cad_status, .metrics = cad_metrics
    };
    return daemon_main(argc, argv, &spec);
}
