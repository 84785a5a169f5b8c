/* An HTTP answer of a container. */
#include <math.h>
#include <stdint.h>

#include "agentd/prom_text.h"
#include "common/util/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str answer = { (const char *)data, size };
    struct err e = ERR_INIT;
    double v;
    (void)prom_complete(answer);
    if (prom_answer(answer, STR("queue_length"), &v, &e) == 0)
        CHECK(isfinite(v));
    else
        CHECK(e.code != 0 && e.msg[0] != '\0');
    return 0;
}
