/* Image references, X-Registry-Auth, and addresses of swarm init. What is accepted must be accepted again when printed.
 */
#include "apid/api_ref.h"
#include "common/daemon/addr.h"
#include "common/util/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = { (const char *)data, size }, json;
    char joined[ADDR_TEXT_MAX];
    struct image_ref r, again;
    struct host_port h, h2;
    struct err e = ERR_INIT;
    struct arena a;

    arena_init(&a, 1u << 20);
    if (image_ref_parse(text, &r, &e) == 0) {
        char *full = image_ref_familiar(&r, &a);
        CHECK(full && image_ref_path(&r, &a));
        CHECK(image_ref_parse(str_from(full), &again, &e) == 0);
        CHECK(r.digest.n == 0 || str_eq(again.digest, r.digest));
    }
    if (auth_decode(text, &a, &json, &e) == 0 && json.n > 0)
        CHECK(json.n <= size);
    if (!memchr(data, 0, size) && addr_parse(text, 2377, &h, &e) == 0) {
        addr_text(&h, joined);
        if (addr_is_ip(h.host))
            CHECK(addr_parse(str_from(joined), 1, &h2, &e) == 0 && strcmp(h.host, h2.host) == 0 && h.port == h2.port);
    }
    arena_done(&a);
    return 0;
}
