/* gw_wire.h - the messages on a link, as msgpack maps. Fields that this version does not know are skipped. */
#pragma once

#include "common/daemon/rpc.h"
#include "common/proto/msg_gatewayd.h"

struct gw_hello {
    uint64_t Version;      /* the newest that the sender speaks; the link uses the lower one */
    struct str Node, Addr; /* its ID; where it can be dialled (managers) */
    struct str Software;
    struct str Instance; /* of the process: another one means that older links are dead */
    uint64_t Turn;       /* of its certificate among those that the process has had: grows */
};

/* Who asked first, when a manager passes a request on. */
struct gw_request_msg {
    struct str To, Svc, Op; /* To: a node's ID or "leader" */
    struct str By;          /* the daemon that asks */
    uint64_t Ttl;           /* ms */
    struct rpc_from *From;  /* only from managers, for what they pass on: it is not passed on again */
    struct str Body;        /* one msgpack value */
};

struct gw_reply_msg {
    uint64_t Code;
    struct str Msg, Body;
};

/* Kinds:
 * "bye"     Code and Text say why the link is closed;
 * "swarm"   Managers and Trust are what a manager knows at store revision Rev;
 * "renew"   ask for a new certificate: Text says why; Code 1: at once, 0: every node is told so, take your time;
 * "redial"  open a new link in place of this one;
 * "done"    the sender uses another link now and waits for no more replies on this one; after both said so it is
 * closed.
 */
struct gw_control {
    struct str Kind, Text;
    uint64_t Code, Rev;
    struct list Managers; /* struct gw_manager */
    struct str Trust;     /* PEM */
};

extern const struct field gw_hello_fields[], gw_request_fields[], gw_reply_fields[], gw_control_fields[];

/* gw_wire_decode - a view, checked against the table's ranges. */
int gw_wire_decode(void *out, const struct field *table, size_t size, struct str in, struct arena *a, struct err *e);
