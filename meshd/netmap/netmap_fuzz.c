/* netmap_fuzz.c - answers of dispatcherd, one after the other: [2 bytes length][answer]... */
#include "common/util/check.h"
#include "meshd/netmap/netmap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look_around(struct netmap *m, struct arena *a)
{
    struct netmap_network **n;
    struct netmap_service **s, **named;
    struct netmap_endpoint **ep;
    struct netmap_change c;

    for (struct table_pos p = { 0 }; table_next(&m->networks, &p, NULL, &n);)
        for (struct table_pos q = { 0 }; table_next(&(*n)->services, &q, NULL, &s);) {
            size_t count = netmap_backends(m, *n, *s, a, &ep);
            for (size_t i = 0; i < count; i++)
                CHECK(netmap_usable(m, ep[i]) && netmap_endpoint(*n, str_from(ep[i]->id)) == ep[i]);
            (void)netmap_by_name(*n, (*s)->name, a, &named);
        }
    while (netmap_next(m, &c))
        CHECK(c.kind != NETMAP_ENDPOINT || c.nips <= NETMAP_IPS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct netmap m;
    struct arena a;
    struct err e = ERR_INIT;

    netmap_init(&m);
    arena_init(&a, 16 << 20);
    while (size > 2) {
        size_t n = (size_t)(data[0] << 8 | data[1]);
        struct disp_network_reply r;
        data += 2;
        size -= 2;
        n = n < size ? n : size;
        if (fields_decode(&r, op_disp_network.rep, op_disp_network.rep_size, (struct str){ (const char *)data, n },
                          FIELDS_STRICT, &a, &e) == 0)
            (void)netmap_apply(&m, &r, &e);
        look_around(&m, &a);
        data += n;
        size -= n;
    }
    netmap_done(&m);
    arena_done(&a);
    return 0;
}
