/* layout_fuzz.c - index keys out of any bytes: within LMDB's limit, free of 0x00, and found again by the reader. */
#include "common/proto/mp.h"
#include "common/store/layout.h"
#include "common/util/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_key(void *arg, struct str key)
{
    char buf[STORE_ENTRY_MAX], again[STORE_KEY_MAX];
    CHECK(key.n > 0 && key.n <= STORE_KEY_MAX && memchr(key.p, 0, key.n) == NULL);
    struct str entry = index_entry(key, STR("id"), buf);
    CHECK(entry.n <= 511 && str_is(index_entry_id(entry), "id"));
    CHECK(str_eq(index_key(*(enum index *)arg, key, again), key)); /* a key is its own key */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str doc = { (const char *)data, size };
    char key[STORE_KEY_MAX];
    for (enum index ix = 0; ix < IX_COUNT; ix++) {
        (void)index_keys(ix, doc, check_key, &ix);
        CHECK(index_key(ix, doc, key).n <= STORE_KEY_MAX);
    }
    (void)kind_by_name(doc.p, doc.n);
    struct str record = doc, id;
    enum kind kind;
    for (char op; log_next(&record, &kind, &id, &op);)
        CHECK(id.p >= doc.p && id.p + id.n == record.p && record.p + record.n == doc.p + doc.n);
    return 0;
}
