/*
 * esp_plan.h - which security associations and policies this node's encrypted networks need. Pure.
 *
 * VXLAN packets of encrypted networks have a UDP port of their own (data path port + 1). Between each two nodes that
 * share such a network they travel in ESP (RFC 4303), transport mode, AES-128-GCM (RFC 4106) with extended sequence
 * numbers; whatever else comes or would go on that port is blocked: nothing leaves in clear, nothing clear is taken.
 *
 * Keys follow from the swarm's shared keys (msg_network.h), so that no node has to be told any: of each direction and
 * epoch, HMAC-SHA256(shared key, "microswarm esp 1" | source | destination | boot of each | epoch) gives key, salt and
 * SPI. A node that was rebooted counts from 1 again, and has lost its window: with another boot the keys differ, and
 * neither is noticed. Of every epoch packets are taken; the one that seals (netmap_key_use()) is the one that is sent
 * with. Two directions towards one node with the same SPI (31 bits) cannot be told apart: the second is refused by the
 * kernel and reported; the next rotation has other numbers.
 */
#pragma once

#include "meshd/netmap/netmap.h"

#define ESP_KEY_SIZE 20u /* AES-128 and 4 bytes of salt */
#define ESP_REQID 0x6d735753u

struct esp_sa {
    struct netmap_ip src, dst;
    uint32_t spi; /* host byte order; never below 0x80000000 */
    uint8_t key[ESP_KEY_SIZE];
};
struct esp_peer { /* two policies: out with this SPI, in with any */
    struct netmap_ip addr;
    uint32_t spi_out; /* 0: there is no key to send with; blocked */
};
struct esp_want {
    uint16_t port; /* 0: no encrypted network here, nothing at all is wanted */
    struct netmap_ip self;
    size_t nsas, npeers;
    struct esp_sa *sas;     /* by destination and SPI */
    struct esp_peer *peers; /* by address */
};

/* esp_plan - @self is this node. *ret is freed with esp_want_done(), which wipes the keys. */
void esp_plan(const struct netmap *map, struct str self, struct esp_want *ret);
void esp_want_done(struct esp_want *w);
bool esp_want_same(const struct esp_want *a, const struct esp_want *b);

/* esp_derive - one direction's association; the boots as in struct netmap_node. */
void esp_derive(const struct netmap_key *key, const struct netmap_ip *src, const char *src_boot,
                const struct netmap_ip *dst, const char *dst_boot, struct esp_sa *ret);

int esp_sa_cmp(const void *a, const void *b);   /* by destination, SPI */
int esp_peer_cmp(const void *a, const void *b); /* by address */
