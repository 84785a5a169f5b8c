/* cad - the swarm's identities: root certificate, join tokens, node certificates and roles. See cad.8. */
#include "cad/cad_shell.h"

int main(int argc, char **argv)
{
    static const struct conf_item conf[] = {
        CONF_MS("rotation_deadline", &cad_conf.rotation_ms, "24h", 1000, 365ull * 86400000,
                "a move to another root ends after this time, whoever is still behind"),
        CONF_MS("network_key_rotation", &cad_conf.network_keys_ms, "12h", 1000, 365ull * 86400000,
                "between two rotations of the keys that nodes seal with what they say to each other"),
        CONF_COUNT("join_rate", &cad_conf.unnamed_per_s, "100", 1, 10000,
                   "requests a second that are looked at, of nodes without a certificate"),
        CONF_MS("external_ca_timeout", &cad_conf.external_ms, "5s", 100, 60000, "for one question to an external CA"),
        CONF_TEXT("external_ca_cert", cad_conf.external_cert, "",
                  "what to show to an external CA; empty: the node's own certificate, when it can be read"),
        CONF_TEXT("external_ca_key", cad_conf.external_key, "", "its key"),
        CONF_END,
    };
    static const struct probe probes[] = {
        { "roles", "", "nodes on the way to another role", cad_probe_roles },
        { "rotation", "", "how far the nodes are on the way to another root", cad_probe_rotation },
        { 0 },
    };
    static const struct daemon_spec spec = { .name = "cad",
                                             .conf = conf,
                                             .probes = probes,
                                             .routes = cad_routes,
                                             .max_calls = 300,
                                             .start = cad_start,
                                             .stop = cad_stop,
                                             .status = cad_status,
                                             .metrics = cad_metrics };
    return daemon_main(argc, argv, &spec);
}
