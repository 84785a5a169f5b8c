/*
 * gw_route.h - requests on their way: from a daemon of this host to another node, from another node to a daemon of this
 * host, and through a manager that isn't the leader.
 *
 * A request is refused (gw_authz.h) before anything else looks at it, here and at its goal. It is sent once: when its
 * link is lost the outcome is unknown, and the asker is told so. "leader" waits a moment while there is none.
 */
#pragma once

#include "gatewayd/gw_link.h"

#define GW_ROUTE_WAIT_MS 5000u /* for a leader, or for the link to it */
#define GW_ROUTE_HOP_MS 1000u  /* the same, for what another manager passed on to us */

int gw_route_init(sd_event *loop, struct err *e);
void gw_route_done(void);

/* gw_route_relay - a daemon of this host asks (rpc_server_relay()). */
void gw_route_relay(struct rpc_call *c, const struct rpc_request *rq);

/* gw_route_ask - gatewayd asks for itself. @done once, never from inside. @l: over this link (a node that joins); NULL:
 * wherever @to is. */
void gw_route_ask(struct gw_link *l, const char *to, const char *svc, const struct op *op, const void *req,
                  unsigned timeout_ms, rpc_raw_fn *done, void *arg);

void gw_route_on_request(struct gw_link *l, uint32_t stream, struct str body);
void gw_route_on_reply(struct gw_link *l, uint32_t stream, struct str body);
void gw_route_on_down(struct gw_link *l, const struct err *why);
/* gw_route_retry - a link came up, or there is another leader. */
void gw_route_retry(void);

struct gw_route_stats {
    uint64_t relayed, received, forwarded, refused, failed, waiting, outstanding;
};
void gw_route_stats(struct gw_route_stats *ret);
void gw_route_list(struct buf *out); /* JSON array: what is outstanding */
