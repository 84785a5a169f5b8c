/* gossip_packet_fuzz.c - any bytes: refused, or a packet that comes out the same when it is written again. */
#include <string.h>

#include "common/util/check.h"
#include "meshd/gossip/gossip_packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gossip_head h;
    struct str updates;
    struct gossip_update u;
    uint8_t again[GOSSIP_PACKET_MAX];
    struct gossip_writer w = { again, 0, sizeof again };
    if (gossip_packet_decode((struct str){ (const char *)data, size }, &h, &updates, NULL) < 0)
        return 0;
    CHECK(gossip_put_head(&w, &h));
    while (gossip_update_next(&updates, &u))
        CHECK(u.is_entry ? gossip_put_entry(&w, &u.entry) : gossip_put_member(&w, &u.member));
    CHECK(updates.n == 0 && w.n == size && memcmp(again, data, size) == 0);
    return 0;
}
