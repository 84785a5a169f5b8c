/* What nodes and users hand in as PEM may be any bytes: requests, certificates, roots, keys, proofs. */
#include <sys/types.h>

#include "cad/ca_cert.h"
#include "common/util/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str in = { (const char *)data, size };
    uint8_t a[CA_KEY_DIGEST], b[CA_KEY_DIGEST];
    struct ca_info i = { .cn = "" }, j = { .cn = "" };
    struct err e = ERR_INIT;
    const char *cut = memchr(data, 0, size);
    struct str first = in, rest = { "", 0 };

    if (cut) {
        first.n = (size_t)(cut - in.p);
        rest = (struct str){ cut + 1, size - first.n - 1 };
    }
    if (ca_csr_check(first, a, &e) == 0)
        CHECK(ca_csr_check(first, b, &e) == 0 && memcmp(a, b, sizeof a) == 0);
    if (ca_info(first, &i, &e) == 0)
        CHECK(i.public_key.n > 0 && strlen(i.cn) < sizeof i.cn);
    (void)ca_root_check(first, rest, 1795189537, &e);
    if (ca_proof_check(first, &rest, 1, first, rest, &j, &e) == 0)
        CHECK(j.public_key.n > 0);
    ca_info_done(&i);
    ca_info_done(&j);
    return 0;
}
