/* Texts of users: refused, or due at times that grow. */
#include "common/util/check.h"
#include "common/util/cron.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cron c;
    struct err e;
    if (cron_parse((struct str){ (const char *)data, size }, &c, &e) != 0)
        return 0;
    int64_t t = 1763700000000000000, first = cron_next(&c, t), second = cron_next(&c, first);
    CHECK(first > t && first != CRON_NEVER && second > first);
    CHECK(cron_last(&c, t, first) == first && cron_last(&c, t, second - 1) == first);
    CHECK(cron_last(&c, t, first - 1) == CRON_NEVER);
    return 0;
}
