/* What lies under <run>/mesh may be any bytes; what is taken must come out again as it went in. */
#include <stdlib.h>
#include <string.h>

#include "common/util/check.h"
#include "meshd/mesh_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mesh_sandbox a, b;
    struct mesh_subnet s, t;
    struct err e = ERR_INIT;
    struct buf out = BUF_INIT;
    struct arena ar;
    arena_init(&ar, 4 << 20);
    if (mesh_record_decode((struct str){ (const char *)data, size }, &ar, &a, &s, &e) == 0) {
        mesh_record_encode(&a, s, &ar, &out);
        CHECK(!out.failed && mesh_record_decode(buf_str(&out), &ar, &b, &t, &e) == 0);
        CHECK(strcmp(a.task, b.task) == 0 && a.addr == b.addr && a.mode == b.mode && a.state == b.state);
        CHECK(a.nports == b.nports && memcmp(a.ports, b.ports, a.nports * sizeof *a.ports) == 0);
        free(a.ports);
        free(b.ports);
    }
    buf_done(&out);
    arena_done(&ar);
    return 0;
}
