/* What an external CA answers may be any bytes. */
#include <sys/types.h>

#include "cad/outside_text.h"
#include "common/util/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf cert = BUF_INIT;
    struct err e = ERR_INIT;

    if (outside_answer((struct str){ (const char *)data, size }, &cert, &e) == 0)
        CHECK(cert.n > 0);
    else
        CHECK(cert.n == 0 && e.msg[0] != 0);
    buf_done(&cert);
    return 0;
}
