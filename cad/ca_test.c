/* The root certificate and join tokens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "cad/ca_root.h"
#include "cad/ca_token.h"

static void test_base36(void **state)
{
    static const uint8_t zero[2], one[] = { 0, 1 }, big[] = { 0x01, 0x00 };
    uint8_t all[32];
    char text[60];

    (void)state;
    ca_base36(zero, 2, text, 4);
    assert_string_equal(text, "0000");
    ca_base36(one, 2, text, 4);
    assert_string_equal(text, "0001");
    ca_base36(big, 2, text, 3); /* 256 = 7*36 + 4 */
    assert_string_equal(text, "074");
    memset(all, 0xff, sizeof all);
    ca_base36(all, 32, text, CA_DIGEST_DIGITS); /* 2^256 - 1 */
    assert_string_equal(text, "6dp5qcb22im238nr3wvp0ic7q99w035jmy2iw7i6n43d37jtof");
    ca_base36(all, 16, text, CA_SECRET_DIGITS); /* 2^128 - 1 */
    assert_string_equal(text, "f5lxx1zz5pnorynqglhzmsp33");
}

static void test_token(void **state)
{
    static const uint8_t secret[CA_SECRET_BYTES] = { 1, 2, 3 };
    char digest[CA_DIGEST_DIGITS + 1], token[CA_TOKEN_SIZE];

    (void)state;
    ca_digest(STR("x"), digest);
    assert_int_equal(strlen(digest), 50);
    ca_token(digest, secret, token);
    assert_int_equal(strlen(token), CA_TOKEN_SIZE - 1);
    assert_memory_equal(token, "SWMTKN-1-", 9);
    assert_memory_equal(token + 9, digest, 50);
    assert_int_equal(token[59], '-');
}

static void test_root(void **state)
{
    struct ca_root root = { .key_pem = BUF_INIT };
    struct err e = ERR_INIT;

    (void)state;
    assert_int_equal(ca_root_make(&root, 1795189537, &e), 0);
    BIO *b = BIO_new_mem_buf(root.cert_pem.p, (int)root.cert_pem.n),
        *k = BIO_new_mem_buf(root.key_pem.p, (int)root.key_pem.n);
    X509 *x = PEM_read_bio_X509(b, NULL, NULL, NULL);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(k, NULL, NULL, NULL);
    assert_non_null(x);
    assert_non_null(key);
    assert_int_equal(X509_verify(x, key), 1);
    assert_int_equal(X509_check_private_key(x, key), 1);
    assert_true(X509_check_ca(x) >= 1);
    assert_int_equal(X509_get_key_usage(x), KU_KEY_CERT_SIGN | KU_CRL_SIGN);
    char name[64];
    X509_NAME_oneline(X509_get_subject_name(x), name, sizeof name);
    assert_string_equal(name, "/CN=swarm-ca");
    unsigned char *spki = NULL;
    int n = i2d_PUBKEY(key, &spki);
    assert_int_equal(n, root.public_key.n);
    assert_memory_equal(spki, root.public_key.p, root.public_key.n);
    OPENSSL_free(spki);
    X509_free(x);
    EVP_PKEY_free(key);
    BIO_free(b);
    BIO_free(k);
    ca_root_done(&root);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_base36), cmocka_unit_test(test_token),
                                        cmocka_unit_test(test_root) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
