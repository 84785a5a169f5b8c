/* A file of a task on networks: refused, or what is written back is read the same. */
#include <stdlib.h>
#include <string.h>

#include "common/util/check.h"
#include "meshd/overlay/attach.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct attach *a = NULL, *b = NULL;
    struct buf out = BUF_INIT;
    struct err e = ERR_INIT;
    if (attach_decode((struct str){ (const char *)data, size }, &a, &e) < 0)
        return 0;
    fields_encode(&a->up, op_mesh_up.req, &out);
    CHECK(!out.failed);
    CHECK(attach_decode(buf_str(&out), &b, &e) == 0);
    CHECK(strcmp(a->task, b->task) == 0 && a->nnets == b->nnets);
    CHECK(a->nnets == 0 || memcmp(a->nets, b->nets, a->nnets * sizeof *a->nets) == 0);
    attach_free(a);
    attach_free(b);
    buf_done(&out);
    return 0;
}
