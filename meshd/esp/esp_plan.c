#include "meshd/esp/esp_plan.h"

#include <stdlib.h>

#include "common/util/check.h"
#include "common/util/crypto.h"

static int ip_cmp(const struct netmap_ip *a, const struct netmap_ip *b)
{
    return a->family != b->family ? (a->family < b->family ? -1 : 1) : memcmp(a->b, b->b, sizeof a->b);
}

int esp_sa_cmp(const void *a, const void *b)
{
    const struct esp_sa *x = a, *y = b;
    int c = ip_cmp(&x->dst, &y->dst);
    return c != 0 ? c : x->spi < y->spi ? -1 : x->spi > y->spi;
}

int esp_peer_cmp(const void *a, const void *b)
{
    return ip_cmp(&((const struct esp_peer *)a)->addr, &((const struct esp_peer *)b)->addr);
}

static void put_str(struct buf *b, const char *s) /* its end is part of it: no two lists of texts look the same */
{
    buf_put(b, s, strlen(s) + 1);
}

static void put_ip(struct buf *b, const struct netmap_ip *ip)
{
    buf_put(b, &ip->family, 1);
    buf_put(b, ip->b, sizeof ip->b);
}

void esp_derive(const struct netmap_key *key, const struct netmap_ip *src, const char *src_boot,
                const struct netmap_ip *dst, const char *dst_boot, struct esp_sa *ret)
{
    struct buf b = BUF_INIT;
    uint8_t mac[CRYPTO_HASH];

    put_str(&b, "microswarm esp 1");
    put_ip(&b, src);
    put_ip(&b, dst);
    put_str(&b, src_boot);
    put_str(&b, dst_boot);
    for (int i = 56; i >= 0; i -= 8)
        buf_putc(&b, (char)(key->epoch >> i));
    CHECK(!b.failed);
    crypto_hmac_sha256((struct str){ (const char *)key->key, key->n }, buf_str(&b), mac);
    buf_done(&b);
    *ret = (struct esp_sa){ .src = *src, .dst = *dst };
    memcpy(ret->key, mac, ESP_KEY_SIZE);
    ret->spi = 0x80000000u | (uint32_t)mac[20] << 24 | (uint32_t)mac[21] << 16 | (uint32_t)mac[22] << 8 | mac[23];
    crypto_wipe(mac, sizeof mac);
}

/* The nodes that share an encrypted network with this one: *ret_any also when there is one and nobody else is on it. */
static void find_peers(const struct netmap *map, struct str self, struct table *nodes, bool *ret_any)
{
    struct netmap_network **n;
    struct netmap_endpoint **ep;

    for (struct table_pos p = { 0 }; table_next(&map->networks, &p, NULL, &n);) {
        if (!(*n)->encrypted)
            continue;
        *ret_any = true;
        for (struct table_pos q = { 0 }; table_next(&(*n)->endpoints, &q, NULL, &ep);)
            if (!str_is(self, (*ep)->node))
                table_put(nodes, str_from((*ep)->node), NULL);
    }
}

static void plan_peer(const struct netmap *map, const struct netmap_node *me, const struct netmap_node *peer,
                      struct esp_want *w)
{
    const struct netmap_key *use = netmap_key_use(map, "esp");
    struct esp_peer *out = &w->peers[w->npeers++];

    *out = (struct esp_peer){ .addr = peer->addr };
    out->addr.prefix = 0;
    for (size_t i = 0; i < map->nkeys; i++) {
        const struct netmap_key *k = &map->keys[i];
        if (strcmp(k->purpose, "esp") != 0)
            continue;
        esp_derive(k, &peer->addr, peer->boot, &me->addr, me->boot, &w->sas[w->nsas++]);
        if (k != use)
            continue;
        esp_derive(k, &me->addr, me->boot, &peer->addr, peer->boot, &w->sas[w->nsas]);
        out->spi_out = w->sas[w->nsas++].spi;
    }
}

void esp_plan(const struct netmap *map, struct str self, struct esp_want *ret)
{
    const struct netmap_node *me = netmap_node(map, self), *peer;
    struct table nodes;
    struct str id;
    bool any = false;

    *ret = (struct esp_want){ 0 };
    table_init(&nodes, 0);
    find_peers(map, self, &nodes, &any);
    if (any && map->data_path_port) {
        ret->port = (uint16_t)(map->data_path_port + 1);
        ret->sas = calloc(nodes.count * (map->nkeys + 1) + 1, sizeof *ret->sas);
        ret->peers = calloc(nodes.count + 1, sizeof *ret->peers);
        CHECK(ret->sas && ret->peers);
        if (me)
            ret->self = me->addr;
        for (struct table_pos p = { 0 }; me && me->addr.family && table_next(&nodes, &p, &id, NULL);) {
            peer = netmap_node(map, id);
            if (peer && peer->addr.family == me->addr.family)
                plan_peer(map, me, peer, ret);
        }
        qsort(ret->sas, ret->nsas, sizeof *ret->sas, esp_sa_cmp);
        qsort(ret->peers, ret->npeers, sizeof *ret->peers, esp_peer_cmp);
    }
    table_done(&nodes);
}

void esp_want_done(struct esp_want *w)
{
    if (w->sas)
        crypto_wipe(w->sas, w->nsas * sizeof *w->sas);
    free(w->sas);
    free(w->peers);
    *w = (struct esp_want){ 0 };
}

bool esp_want_same(const struct esp_want *a, const struct esp_want *b)
{
    if (a->port != b->port || a->nsas != b->nsas || a->npeers != b->npeers || ip_cmp(&a->self, &b->self) != 0)
        return false;
    for (size_t i = 0; i < a->nsas; i++)
        if (esp_sa_cmp(&a->sas[i], &b->sas[i]) != 0 || memcmp(a->sas[i].key, b->sas[i].key, ESP_KEY_SIZE) != 0)
            return false;
    for (size_t i = 0; i < a->npeers; i++)
        if (esp_peer_cmp(&a->peers[i], &b->peers[i]) != 0 || a->peers[i].spi_out != b->peers[i].spi_out)
            return false;
    return true;
}
