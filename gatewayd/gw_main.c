/* gw_main.c - gatewayd: the only process that talks to other nodes. See gatewayd.8. */
#include "gatewayd/gw_route.h"
#include "gatewayd/gw_shell.h"

int main(int argc, char **argv)
{
    static const struct probe probes[] = {
        { "links", "", "each link: peer, role, age, what is queued, round trip time", gw_probe_links },
        { "identity", "", "who this node is, its certificate, the managers it knows", gw_probe_identity },
        { "requests", "", "requests that wait for an answer", gw_probe_requests },
        { "rules", "", "which role may ask what of which daemon", gw_probe_rules },
        { 0 },
    };
    static const struct daemon_spec spec = { .name = "gatewayd",
                                             .routes = gw_routes,
                                             .relay = gw_route_relay,
                                             .probes = probes,
                                             .max_calls =
                                                 40000, /* as dispatcherd: a poll of each node, and what they report */
                                             .start = gw_shell_start,
                                             .stop = gw_shell_stop,
                                             .status = gw_shell_status,
                                             .metrics = gw_shell_metrics };
    return daemon_main(argc, argv, &spec);
}
