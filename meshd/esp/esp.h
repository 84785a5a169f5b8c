/*
 * esp.h - the kernel's IPsec (XFRM) of this node, kept as the plan says (esp_plan.h).
 *
 * Ours is what bears ESP_REQID or, the two blocking policies of each family, our priority and a port only. Everything
 * is in the host's namespace, where VXLAN's sockets are. A change adds what packets may be taken with first, then
 * switches what is sent, and takes away last: no packet is lost by it. esp_close() takes nothing away.
 */
#pragma once

#include "meshd/esp/esp_plan.h"
#include "meshd/netlink/mesh_msg.h"

struct esp {
    struct mesh_msg xfrm;
    bool open;            /* the kernel has XFRM; else nothing is ever wanted (overlay_check() refuses the tasks) */
    struct esp_want done; /* what was carried out last */
    bool stale;           /* the kernel may have something else */
    uint64_t changes, failures;
};

/* esp_open - fine without XFRM in the kernel. */
int esp_open(struct esp *x, struct err *e);
void esp_close(struct esp *x);

/* esp_guard - blocks what is not ESP on this port: before the first device of an encrypted network is made, which may
 * be before the map has the network. */
int esp_guard(struct esp *x, uint16_t port, struct err *e);

/* esp_sync - carries out what the map says now; nothing when that has not changed since. */
int esp_sync(struct esp *x, const struct netmap *map, struct str self, struct err *e);

/* esp_reconcile - esp_sync(), comparing with what the kernel really has. */
int esp_reconcile(struct esp *x, const struct netmap *map, struct str self, struct err *e);

void esp_probe(const struct esp *x, struct buf *out); /* JSON, without keys */
