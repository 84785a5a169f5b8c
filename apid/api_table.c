/* Every route, in the order they are tried. */
#include "apid/api_resources.h"

#define SPEC API_SPEC_BYTES_MAX
#define SMALL (64u << 10)

const struct api_route api_routes[] = {
    { "GET", "/_ping", system_ping, 0, false },
    { "GET", "/version", system_version, 0, false },
    { "GET", "/info", system_info, 0, false },
    { "GET", "/events", events_stream, 0, false },

    { "POST", "/swarm/init", swarm_init, SPEC, false },
    { "POST", "/swarm/join", swarm_join, SPEC, false },
    { "POST", "/swarm/leave", swarm_leave, 0, false },
    { "POST", "/swarm/update", swarm_update, SPEC, false },
    { "POST", "/swarm/unlock", swarm_unlock, SMALL, false },
    { "GET", "/swarm/unlockkey", swarm_unlockkey, 0, false },
    { "GET", "/swarm", swarm_inspect, 0, false },

    { "GET", "/nodes", nodes_list, 0, false },
    { "GET", "/nodes/{}", nodes_inspect, 0, false },
    { "DELETE", "/nodes/{}", nodes_remove, 0, false },
    { "POST", "/nodes/{}/update", nodes_update, SPEC, false },

    { "GET", "/services", services_list, 0, false },
    { "POST", "/services/create", services_create, SPEC, false },
    { "GET", "/services/{}", services_inspect, 0, false },
    { "DELETE", "/services/{}", services_remove, 0, false },
    { "POST", "/services/{}/update", services_update, SPEC, false },
    { "GET", "/services/{}/logs", service_logs, 0, false },

    { "GET", "/tasks", tasks_list, 0, false },
    { "GET", "/tasks/{}", tasks_inspect, 0, false },
    { "GET", "/tasks/{}/logs", task_logs, 0, false },

    { "GET", "/images/json", images_list, 0, false },
    { "POST", "/images/create", images_create, 0, false },
    { "POST", "/images/load", images_load, 0, true },
    { "GET", "/images/{*}/json", images_inspect, 0, false },
    { "POST", "/images/{*}/tag", images_tag, 0, false },
    { "DELETE", "/images/{*}", images_remove, 0, false },
    { "GET", "/distribution/{*}/json", distribution_inspect, 0, false },

    { "GET", "/images/search", not_built, 0, false },
    { "GET", "/images/get", not_built, 0, false },
    { "GET", "/images/{*}/get", not_built, 0, false },
    { "GET", "/images/{*}/history", not_built, 0, false },
    { "POST", "/images/{*}/push", not_built, 0, false },
    { "POST", "/images/prune", not_built, 0, false },

    { "GET", "/containers/json", containers_list, 0, false },
    { "POST", "/containers/create", not_built, SPEC, false },
    { "POST", "/containers/prune", not_built, 0, false },
    { "GET", "/containers/{}/json", containers_inspect, 0, false },
    { "GET", "/containers/{}/logs", containers_logs, 0, false },
    { "GET", "/containers/{}/{}", containers_other, 0, false },
    { "POST", "/containers/{}/{}", containers_other, SMALL, false },
    { "PUT", "/containers/{}/{}", containers_other, SMALL, false },
    { "DELETE", "/containers/{}", containers_other, 0, false },
    { "POST", "/commit", not_built, SMALL, false },

    { "GET", "/networks", networks_list, 0, false },
    { "GET", "/networks/", networks_list, 0, false },
    { "GET", "/networks/{}", networks_inspect, 0, false },
    { "POST", "/networks/create", not_built, SPEC, false },
    { "POST", "/networks/prune", not_built, 0, false },
    { "DELETE", "/networks/{}", networks_remove, 0, false },

    { "GET", "/secrets", secrets_list, 0, false },
    { "POST", "/secrets/create", not_built, SPEC, false },
    { "GET", "/secrets/{}", secrets_inspect, 0, false },
    { "DELETE", "/secrets/{}", secrets_other, 0, false },
    { "POST", "/secrets/{}/update", secrets_other, SPEC, false },
    { "GET", "/configs", configs_list, 0, false },
    { "POST", "/configs/create", not_built, SPEC, false },
    { "GET", "/configs/{}", configs_inspect, 0, false },
    { "DELETE", "/configs/{}", configs_other, 0, false },
    { "POST", "/configs/{}/update", configs_other, SPEC, false },

    { "GET", "/volumes", volumes_list, 0, false },
    { "POST", "/volumes/create", not_built, SPEC, false },
    { "POST", "/volumes/prune", not_built, 0, false },
    { "GET", "/volumes/{}", volumes_inspect, 0, false },
    { "DELETE", "/volumes/{}", volumes_other, 0, false },
    { "PUT", "/volumes/{}", volumes_other, SMALL, false },
    { "GET", "/plugins", plugins_list, 0, false },
    { "GET", "/system/df", not_built, 0, false },
    { "POST", "/auth", not_built, SMALL, false },
    { "POST", "/build", not_built, 0, false },
    { .pattern = NULL },
};
