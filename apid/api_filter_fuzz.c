/* The filters parameter; the first byte chooses where the labels that are matched end. */
#include "apid/api_filter.h"
#include "common/util/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const known[] = { "id", "label", NULL };
    static struct filters f;
    struct err e = ERR_INIT;
    struct arena a;

    if (size == 0)
        return 0;
    size_t cut = 1 + data[0] % size;
    struct str labels = { (const char *)data + 1, cut - 1 }, json = { (const char *)data + cut, size - cut };
    arena_init(&a, 1u << 20);
    if (filters_parse(&f, json, &a, &e) == 0) {
        CHECK(f.n <= FILTER_KEYS_MAX);
        (void)filters_known(&f, known, &e);
        (void)filters_exact(&f, "id", labels);
        (void)filters_prefix(&f, "id", labels);
        (void)filters_substr(&f, "id", labels);
        (void)filters_labels(&f, "label", labels);
    }
    arena_done(&a);
    return 0;
}
