/* api_networks.h - networks as others of apid's files need them. */
#pragma once

#include "apid/api.h"
#include "common/object/views.h"

/* network_ingress - the document of the network that carries published ports, which every swarm begins with; appended.
 * allocatord gives it its subnet. */
void network_ingress(struct buf *out, const char *id);

/* network_predefined - one of the networks that every node has, by name, ID or the first 12 or more characters of its
 * ID: its name, else NULL. @swarm: this node is in one, which brings another. */
const char *network_predefined(struct str ref, bool swarm);
const char *network_driver(const char *predefined);

/* network_of_service - a predefined network that the tasks of a service may have: "host", "bridge". */
bool network_of_service(const char *predefined);

/* network_attachments - the value of a task's NetworksAttachments as clients know it, with each network in full;
 * appended, encoded. False when the task has none (nothing is appended then). */
bool network_attachments(struct buf *out, struct store_snap *snap, struct str task);

/* networks_resolve - names and IDs in TaskTemplate.Networks of a service's spec become IDs; answers and returns -1 for
 * those that there are not, or that no service may be on. */
int networks_resolve(struct req *r, struct store_snap *snap, json_t *spec);

/* networks_require - every network of the spec is still there, and the ingress network if it publishes ports; else as
 * networks_resolve(). The transaction fails if one is removed meanwhile. */
int networks_require(struct req *r, struct store_snap *snap, struct txn *t, json_t *spec);

/* network_find_ingress - its ID; false: there is none. */
bool network_find_ingress(struct store_snap *snap, struct str *ret_id);

/* network_user - who keeps it from being removed: a service, or a task that is to run on; false: nobody. */
bool network_user(struct store_snap *snap, struct str id, bool *ret_service, struct str *ret_user);
