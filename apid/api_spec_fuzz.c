/* Any JSON may be posted as a service spec. Filling in must be idempotent. */
#include "apid/api_spec.h"
#include "common/util/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *spec = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    struct spec_port ports[8];
    struct spec_fault f;

    if (json_is_object(spec)) {
        (void)spec_check(spec, &f);
        spec_normalise(spec, 143);
        json_t *copy = json_deep_copy(spec);
        spec_normalise(spec, 143);
        CHECK(json_equal(copy, spec));
        json_decref(copy);
        size_t n = spec_ports(spec, ports, 8);
        for (size_t i = 0; i < n; i++)
            (void)spec_port_clash(ports, n, &ports[i]);
    }
    json_decref(spec);
    return 0;
}
