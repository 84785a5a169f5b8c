/* Prefixes and addresses in text: what is accepted comes back as the same text, and its bounds lie in it. */
#include "common/util/check.h"
#include "common/util/cidr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = { (const char *)data, size };
    char buf[CIDR_TEXT_MAX];
    struct cidr c, again;
    struct ip ip, same;

    if (ip_parse(text, &ip))
        CHECK(ip_parse(str_from(ip_text(ip, buf)), &same) && ip_eq(ip, same));
    if (!cidr_parse(text, &c))
        return 0;
    CHECK(cidr_parse(str_from(cidr_text(c, buf)), &again));
    CHECK(ip_eq(c.ip, again.ip) && c.len == again.len);
    CHECK(cidr_has(c, cidr_first(c)) && cidr_has(c, cidr_last(c)) && cidr_has(c, c.ip));
    CHECK(cidr_overlap(c, cidr_masked(c)) && cidr_holds(c, again) && cidr_cmp(c, cidr_masked(c)) == 0);
    return 0;
}
