/* api_networks.h - networks as others of apid's files need them. */
#pragma once

#include "apid/api.h"

/* network_ingress - the document of the network that carries published ports, which every swarm begins with; appended.
 * allocatord gives it its subnet. */
void network_ingress(struct buf *out, const char *id);
