/* The envelopes of requests and replies, as they come off a socket. */
#include "common/daemon/rpc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a;
    struct err e = ERR_INIT;
    struct rpc_request rq;
    struct rpc_response rs;
    struct str in = { (const char *)data, size };
    arena_init(&a, 1u << 20);
    fields_decode(&rq, rpc_request_fields, sizeof rq, in, FIELDS_STRICT, &a, &e);
    fields_decode(&rs, rpc_response_fields, sizeof rs, in, FIELDS_STRICT, &a, &e);
    struct rpc_list l;
    struct rpc_part part;
    struct str one;
    if (rpc_list_open(&l, in, RPC_BATCH_MAX))
        while (rpc_list_next(&l, &one))
            fields_decode(&part, rpc_part_fields, sizeof part, one, FIELDS_STRICT, &a, &e);
    arena_done(&a);
    return 0;
}
