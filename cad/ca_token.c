#include "cad/ca_token.h"

#include <openssl/sha.h>
#include <stdio.h>

#include "common/util/check.h"

void ca_base36(const uint8_t *bytes, size_t n, char *ret, size_t digits)
{
    uint8_t number[32];

    CHECK(n <= sizeof number);
    memcpy(number, bytes, n);
    ret[digits] = '\0';
    for (size_t d = digits; d-- > 0;) {
        unsigned rest = 0;
        for (size_t i = 0; i < n; i++) { /* number, rest = divmod(number, 36) */
            unsigned v = rest << 8 | number[i];
            number[i] = (uint8_t)(v / 36);
            rest = v % 36;
        }
        ret[d] = "0123456789abcdefghijklmnopqrstuvwxyz"[rest];
    }
}

void ca_digest(struct str pem, char ret[CA_DIGEST_DIGITS + 1])
{
    uint8_t md[SHA256_DIGEST_LENGTH];

    SHA256((const uint8_t *)pem.p, pem.n, md);
    ca_base36(md, sizeof md, ret, CA_DIGEST_DIGITS);
}

void ca_token(const char *digest, const uint8_t secret[CA_SECRET_BYTES], char ret[CA_TOKEN_SIZE])
{
    char digits[CA_SECRET_DIGITS + 1];

    ca_base36(secret, CA_SECRET_BYTES, digits, CA_SECRET_DIGITS);
    (void)snprintf(ret, CA_TOKEN_SIZE, "SWMTKN-1-%.50s-%s", digest, digits);
}
