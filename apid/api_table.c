/* Every route, in the order they are tried. */
#include "apid/api_resources.h"

#define SPEC API_SPEC_BYTES_MAX
#define SMALL (64u << 10)

const struct api_route api_routes[] = {
    { "GET", "/_ping", system_ping, 0, 0 },
    { "GET", "/version", system_version, 0, 0 },
    { "GET", "/info", system_info, 0, ROUTE_STATE },
    { "GET", "/events", events_stream, 0, 0 },

    { "POST", "/swarm/init", swarm_init, SPEC, ROUTE_STATE },
    { "POST", "/swarm/join", swarm_join, SPEC, ROUTE_STATE },
    { "POST", "/swarm/leave", swarm_leave, 0, ROUTE_STATE },
    { "POST", "/swarm/update", swarm_update, SPEC, ROUTE_READS },
    { "POST", "/swarm/unlock", swarm_unlock, SMALL, ROUTE_STATE },
    { "GET", "/swarm/unlockkey", swarm_unlockkey, 0, ROUTE_READS },
    { "POST", "/swarm/backup", swarm_backup, 0, ROUTE_READS },
    { "POST", "/swarm/restore", swarm_restore, 0, ROUTE_STREAMS },
    { "GET", "/swarm", swarm_inspect, 0, ROUTE_READS },

    { "GET", "/nodes", nodes_list, 0, ROUTE_READS },
    { "GET", "/nodes/{}", nodes_inspect, 0, ROUTE_READS },
    { "DELETE", "/nodes/{}", nodes_remove, 0, ROUTE_READS },
    { "POST", "/nodes/{}/update", nodes_update, SPEC, ROUTE_READS },

    { "GET", "/services", services_list, 0, ROUTE_READS },
    { "POST", "/services/create", services_create, SPEC, ROUTE_WRITES },
    { "GET", "/services/{}", services_inspect, 0, ROUTE_READS },
    { "DELETE", "/services/{}", services_remove, 0, ROUTE_WRITES },
    { "POST", "/services/{}/update", services_update, SPEC, ROUTE_WRITES },
    { "GET", "/services/{}/logs", service_logs, 0, ROUTE_READS },

    { "GET", "/tasks", tasks_list, 0, ROUTE_READS },
    { "GET", "/tasks/{}", tasks_inspect, 0, ROUTE_READS },
    { "GET", "/tasks/{}/logs", task_logs, 0, ROUTE_READS },

    { "GET", "/images/json", images_list, 0, 0 },
    { "POST", "/images/create", images_create, 0, 0 },
    { "POST", "/images/load", images_load, 0, ROUTE_STREAMS },
    { "GET", "/images/{*}/json", images_inspect, 0, 0 },
    { "POST", "/images/{*}/tag", images_tag, 0, 0 },
    { "DELETE", "/images/{*}", images_remove, 0, 0 },
    { "GET", "/distribution/{*}/json", distribution_inspect, 0, 0 },

    { "GET", "/images/search", not_built, 0, 0 },
    { "GET", "/images/get", not_built, 0, 0 },
    { "GET", "/images/{*}/get", not_built, 0, 0 },
    { "GET", "/images/{*}/history", not_built, 0, 0 },
    { "POST", "/images/{*}/push", not_built, 0, 0 },
    { "POST", "/images/prune", not_built, 0, 0 },

    { "GET", "/containers/json", containers_list, 0, 0 },
    { "POST", "/containers/create", not_built, SPEC, 0 },
    { "POST", "/containers/prune", not_built, 0, 0 },
    { "GET", "/containers/{}/json", containers_inspect, 0, 0 },
    { "GET", "/containers/{}/logs", containers_logs, 0, 0 },
    { "GET", "/containers/{}/{}", containers_other, 0, 0 },
    { "POST", "/containers/{}/{}", containers_other, SMALL, 0 },
    { "PUT", "/containers/{}/{}", containers_other, SMALL, 0 },
    { "DELETE", "/containers/{}", containers_other, 0, 0 },
    { "POST", "/commit", not_built, SMALL, 0 },

    { "GET", "/networks", networks_list, 0, 0 },
    { "GET", "/networks/", networks_list, 0, 0 },
    { "GET", "/networks/{}", networks_inspect, 0, 0 },
    { "POST", "/networks/create", not_built, SPEC, 0 },
    { "POST", "/networks/prune", not_built, 0, 0 },
    { "DELETE", "/networks/{}", networks_remove, 0, 0 },

    { "GET", "/secrets", secrets_list, 0, ROUTE_READS },
    { "POST", "/secrets/create", not_built, SPEC, 0 },
    { "GET", "/secrets/{}", secrets_inspect, 0, ROUTE_READS },
    { "DELETE", "/secrets/{}", secrets_other, 0, ROUTE_READS },
    { "POST", "/secrets/{}/update", secrets_other, SPEC, ROUTE_READS },
    { "GET", "/configs", configs_list, 0, ROUTE_READS },
    { "POST", "/configs/create", not_built, SPEC, 0 },
    { "GET", "/configs/{}", configs_inspect, 0, ROUTE_READS },
    { "DELETE", "/configs/{}", configs_other, 0, ROUTE_READS },
    { "POST", "/configs/{}/update", configs_other, SPEC, ROUTE_READS },

    { "GET", "/volumes", volumes_list, 0, 0 },
    { "POST", "/volumes/create", not_built, SPEC, 0 },
    { "POST", "/volumes/prune", not_built, 0, 0 },
    { "GET", "/volumes/{}", volumes_inspect, 0, 0 },
    { "DELETE", "/volumes/{}", volumes_other, 0, 0 },
    { "PUT", "/volumes/{}", volumes_other, SMALL, 0 },
    { "GET", "/plugins", plugins_list, 0, 0 },
    { "GET", "/system/df", not_built, 0, 0 },
    { "POST", "/auth", not_built, SMALL, 0 },
    { "POST", "/build", not_built, 0, 0 },
    { .pattern = NULL },
};
