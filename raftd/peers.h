/*
 * peers.h - the way to the other managers: datagrams through this host's gatewayd (GW_PEERS_SOCKET).
 *
 * What is to be said to one node in one turn of the loop goes out as one datagram. Anything may get lost.
 */
#pragma once

#include <stdbool.h>

#include "common/util/err.h"
#include "common/util/str.h"

struct peers_ops {
    void (*datagram)(struct str node, struct str body); /* of this manager, by its certificate; body: peer_msg.h */
    void (*link)(struct str node, bool up);             /* the link to a manager came or went; a hint */
    void (*gateway)(bool up);                           /* gatewayd itself */
};

int peers_open(const struct peers_ops *ops, struct err *e);
void peers_close(void);

/* peers_out - where to append a message of at most `bytes` to; NULL when there is no way to the node. */
struct buf *peers_out(const char *node, size_t bytes);

/* peers_link - false when the link is known to be down. */
bool peers_link(const char *node);

void peers_flush(void);

struct peers_counts {
    uint64_t sent, sent_bytes, received, received_bytes, dropped;
};
extern struct peers_counts peers_counts;
