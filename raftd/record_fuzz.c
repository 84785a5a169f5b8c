/* record_fuzz.c - sealed records: nothing that was not sealed by us opens, and what was does, unless it was changed. */
#include <string.h>

#include "common/util/check.h"
#include "raftd/seal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct seal_key key = { { 7 } };
    static struct seal *s;
    struct err e;
    struct seal_header h, want = { .type = 'e', .entry_type = 2, .index = size, .term = 3, .part = 0, .parts = 1 };
    struct buf plain = BUF_INIT, sealed = BUF_INIT;
    struct str in = { (const char *)data, size };
    if (s == NULL)
        CHECK(seal_new(&s, &key, &e) == 0);
    CHECK(seal_take(s, in, &h, &plain, &e) < 0);
    CHECK(plain.n == 0);
    CHECK(seal_put(s, &want, in, &sealed, &e) == 0);
    CHECK(seal_take(s, buf_str(&sealed), &h, &plain, &e) == 0);
    CHECK(str_eq(buf_str(&plain), in) && h.index == size && h.term == 3 && h.type == 'e');
    if (size >= 2) { /* one bit somewhere */
        size_t at = (data[0] | (size_t)data[1] << 8) % sealed.n;
        buf_clear(&plain);
        sealed.p[at] ^= (char)(1 << (data[0] & 7));
        CHECK(seal_take(s, buf_str(&sealed), &h, &plain, &e) < 0);
    }
    buf_done(&plain);
    buf_done(&sealed);
    return 0;
}
