/* entry_fuzz.c - a transaction as it comes out of the log: decode, check, authority, and the round trip. */
#include <string.h>

#include "common/util/check.h"
#include "raftd/authority.h"
#include "raftd/entry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a, b;
    struct entry en, again;
    struct err e;
    struct buf first = BUF_INIT, second = BUF_INIT;
    arena_init(&a, 16u << 20);
    arena_init(&b, 16u << 20);
    if (entry_decode(&en, (struct str){ (const char *)data, size }, &a, &e) == 0) {
        const struct txn_change *ch = en.Changes.v;
        if (entry_check(&en, &e) == 0)
            for (size_t i = 0; i < en.Changes.n; i++)
                for (unsigned who = 0; who < 1u << WHO_COUNT; who++)
                    (void)authority_check(who, &ch[i], &e);
        entry_encode(&en, &first);
        CHECK(!first.failed);
        CHECK(entry_decode(&again, buf_str(&first), &b, &e) == 0);
        entry_encode(&again, &second);
        CHECK(str_eq(buf_str(&first), buf_str(&second)));
    }
    arena_done(&a);
    arena_done(&b);
    buf_done(&first);
    buf_done(&second);
    return 0;
}
