/* /networks: the swarm's own, and the few that every node has. */
#include "apid/api_networks.h"

#include "apid/api_resources.h"

void network_ingress(struct buf *b, const char *id)
{
    mp_map(b, 2);
    mp_kv_cstr(b, "ID", id);
    mp_cstr(b, "Spec");
    mp_map(b, 5);
    mp_kv_cstr(b, "Name", "ingress");
    mp_kv_cstr(b, "Driver", "overlay");
    mp_kv_cstr(b, "Scope", "swarm");
    mp_kv_bool(b, "Ingress", true);
    mp_cstr(b, "Labels");
    mp_map(b, 0);
}
