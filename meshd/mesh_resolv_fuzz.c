/* The host's resolv.conf may be any bytes: no nameserver on loopback comes through, and no line is made up. */
#include <string.h>

#include "common/util/check.h"
#include "meshd/mesh_resolv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf out = BUF_INIT, again = BUF_INIT;
    struct mesh_resolv r = { .host = { (const char *)data, size }, .own_net = true };
    (void)mesh_resolv_only_stub(r.host);
    mesh_resolv_text(&r, &out);
    CHECK(out.n <= 2 * size + 32 && strstr(buf_cstr(&out), "\nnameserver 127.") == NULL);
    r.host = buf_str(&out);
    mesh_resolv_text(&r, &again);
    CHECK(str_eq(buf_str(&out), buf_str(&again)));
    buf_done(&out);
    buf_done(&again);
    return 0;
}
