/* The key's file: any bytes; what is read is written, and read again. */
#include "common/util/check.h"
#include "gatewayd/gw_cert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct gw_seal seal = { "SWMKEY-1-fuzz", "00ff" };
    struct str in = { (const char *)data, size };
    struct buf pem = BUF_INIT;
    EVP_PKEY *key = NULL, *again = NULL;
    bool sealed = false;
    struct err e = ERR_INIT;
    if (gw_key_parse(&key, in, &seal, &sealed, &e) < 0)
        return 0;
    if (gw_key_pem(key, sealed ? &seal : NULL, &pem, &e) == 0) {
        CHECK(gw_key_parse(&again, buf_str(&pem), &seal, NULL, &e) == 0);
        CHECK(EVP_PKEY_eq(key, again) == 1);
    }
    gw_secret_done(&pem);
    EVP_PKEY_free(key);
    EVP_PKEY_free(again);
    return 0;
}
