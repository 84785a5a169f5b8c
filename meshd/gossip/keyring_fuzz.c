/*
 * keyring_fuzz.c - packets that are altered, cut, repeated and late, and keys that come and go in any order: each
 * authentic packet is opened at most once, and nothing else ever.
 *
 * Input: commands of a byte and what it takes.
 */
#include <string.h>

#include "common/util/check.h"
#include "meshd/gossip/keyring.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PACKETS 32u

struct packet {
    uint8_t b[128];
    size_t n;
    bool sent, opened;
    uint8_t content;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct keyring_config a = { .self = 1, .boot = 7, .senders_max = 2 },
                          b = { .self = 2, .boot = 1, .senders_max = 2 };
    struct keyring *k[2] = { NULL, NULL };
    struct packet packets[PACKETS];
    unsigned n_sent = 0;
    uint8_t key[KEYRING_KEY_SIZE];
    memset(packets, 0, sizeof packets);
    CHECK(keyring_new(&k[0], &a, NULL) == 0 && keyring_new(&k[1], &b, NULL) == 0);
    for (size_t i = 0; i + 2 < size; i += 3) {
        uint8_t x = data[i + 1], y = data[i + 2];
        struct buf out = BUF_INIT;
        struct packet *p = &packets[x % PACKETS];
        uint64_t sender = 0;
        memset(key, x % 8, sizeof key);
        switch (data[i] % 6) {
        case 0:
            (void)keyring_install(k[y % 2], x % 8, key, NULL);
            break;
        case 1:
            (void)keyring_use(k[y % 2], x % 8, NULL);
            break;
        case 2:
            (void)keyring_remove(k[y % 2], x % 8, NULL);
            break;
        case 3:
            p = &packets[n_sent % PACKETS];
            if (keyring_seal(k[0], 2, (struct str){ (const char *)&y, 1 }, &out, NULL) == 0 && out.n <= sizeof p->b) {
                *p = (struct packet){ .n = out.n, .sent = true, .content = y };
                memcpy(p->b, out.p, out.n);
                n_sent++;
            }
            break;
        case 4: /* as it was sent */
            if (p->sent && keyring_open(k[1], (struct str){ (const char *)p->b, p->n }, &sender, &out, NULL) == 0) {
                CHECK(!p->opened && sender == 1 && out.n == 1 && (uint8_t)out.p[0] == p->content);
                p->opened = true;
            }
            break;
        default: { /* one byte changed, or cut */
            struct packet q = *p;
            if (y == 0 && q.n > 0)
                q.n--;
            else if (q.n > 0)
                q.b[y % q.n] ^= (uint8_t)(1u << (y % 8));
            CHECK(keyring_open(k[1], (struct str){ (const char *)q.b, q.n }, &sender, &out, NULL) < 0 && out.n == 0);
        }
        }
        buf_done(&out);
    }
    uint64_t sender;
    struct buf out = BUF_INIT;
    CHECK(keyring_open(k[1], (struct str){ (const char *)data, size }, &sender, &out, NULL) < 0 && out.n == 0);
    buf_done(&out);
    keyring_free(k[0]);
    keyring_free(k[1]);
    return 0;
}
