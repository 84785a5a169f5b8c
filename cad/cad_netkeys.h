/*
 * cad_netkeys.h - the keys that nodes seal what they say to each other with: one ring for each purpose.
 *
 * Kept in the credential "network-keys": {ID, Keys: [{Purpose, Epoch, Key, MadeAt}], RotatedAt}, newest first.
 * dispatcherd hands all of them to every node. The newest only opens; the one before it seals, and has been with the
 * nodes for a whole interval then (common/proto/msg_network.h). So nobody is lost who heard of the managers within an
 * interval, and who did not still opens what is sealed with the oldest.
 */
#pragma once

#include "common/proto/fields.h"

#define NETKEYS_KEPT 3u /* of each purpose */
#define NETKEYS_PURPOSES 2u
#define NETKEY_BYTES 32u

struct netkey {
    uint64_t epoch;
    int64_t made_ns; /* wall */
    uint8_t key[NETKEY_BYTES];
};
struct netkeys_ring {
    size_t n;
    struct netkey keys[NETKEYS_KEPT]; /* newest first */
};
struct netkeys {
    struct netkeys_ring ring[NETKEYS_PURPOSES]; /* in the order of netkeys_purposes */
    int64_t rotated_ns;
};
extern const char *const netkeys_purposes[NETKEYS_PURPOSES]; /* "gossip", "esp" */

/* netkeys_read - what is stored; purposes and keys that make no sense are left out. 0, or -ERR_CORRUPT. */
int netkeys_read(struct str doc, struct netkeys *ret, struct arena *a, struct err *e);
void netkeys_put(struct buf *b, const char *id, const struct netkeys *k); /* the whole document */

/* netkeys_due - is it time for new ones (or are some missing)? @ret_next_ns: when it will be. */
bool netkeys_due(const struct netkeys *k, int64_t interval_ns, int64_t now_ns, int64_t *ret_next_ns);

/* netkeys_rotate - one new key for each purpose, the oldest goes. */
void netkeys_rotate(struct netkeys *k, int64_t now_ns, void (*random)(void *p, size_t n));

void netkeys_wipe(struct netkeys *k);
