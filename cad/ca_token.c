#include "cad/ca_token.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
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

static bool digits_ok(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'z')))
            return false;
    return true;
}

#define DIGEST_AT 9
#define SECRET_AT (DIGEST_AT + CA_DIGEST_DIGITS + 1)

static struct str digest_of(struct str token)
{
    return (struct str){ token.p + DIGEST_AT, CA_DIGEST_DIGITS };
}

bool ca_token_ok(struct str token)
{
    return token.n == CA_TOKEN_SIZE - 1 && str_starts(token, STR("SWMTKN-1-")) && digits_ok(digest_of(token)) &&
           token.p[SECRET_AT - 1] == '-' && digits_ok((struct str){ token.p + SECRET_AT, CA_SECRET_DIGITS });
}

int ca_token_judge(struct str token, struct str worker, struct str manager, bool *ret_manager, struct err *e)
{
    CHECK(ca_token_ok(worker) && ca_token_ok(manager));
    if (!ca_token_ok(token))
        return err_set(e, ERR_INVALID, "invalid join token");
    if (!str_eq(digest_of(token), digest_of(worker)))
        return err_set(e, ERR_INVALID,
                       "A valid join token is necessary to join this cluster: this one is of another swarm, or of a "
                       "root certificate that has been replaced");
    bool w = CRYPTO_memcmp(token.p, worker.p, CA_TOKEN_SIZE - 1) == 0;
    bool m = CRYPTO_memcmp(token.p, manager.p, CA_TOKEN_SIZE - 1) == 0;
    if (!w && !m)
        return err_set(e, ERR_INVALID,
                       "A valid join token is necessary to join this cluster: this one is not valid, or not any more");
    *ret_manager = m;
    return 0;
}

void ca_unlock_text(const uint8_t key[CA_UNLOCK_BYTES], char ret[CA_UNLOCK_SIZE])
{
    unsigned char b64[48];

    EVP_EncodeBlock(b64, key, CA_UNLOCK_BYTES); /* 44 characters, the last one "=" */
    (void)snprintf(ret, CA_UNLOCK_SIZE, "SWMKEY-1-%.43s", (const char *)b64);
    OPENSSL_cleanse(b64, sizeof b64);
}
