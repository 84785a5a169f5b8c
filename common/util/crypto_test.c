/* crypto_test.c - against the vectors of the standards. */
#include "common/util/crypto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/util/base64.h"

static void unhex(const char *hex, uint8_t *to)
{
    for (unsigned v; *hex; hex += 2) {
        assert_int_equal(sscanf(hex, "%2x", &v), 1);
        *to++ = (uint8_t)v;
    }
}

static void is_hex(const uint8_t *p, size_t n, const char *hex)
{
    char text[512];
    assert_true(2 * n < sizeof text);
    for (size_t i = 0; i < n; i++)
        (void)snprintf(text + 2 * i, 3, "%02x", p[i]);
    assert_string_equal(text, hex);
}

static struct str bytes(const uint8_t *p, size_t n)
{
    return (struct str){ (const char *)p, n };
}

static void test_digests(void **state)
{
    char hex[CRYPTO_HEX];
    uint8_t md[CRYPTO_HASH], key[20];
    (void)state;
    crypto_sha256(STR("abc"), md); /* FIPS 180-2 B.1 */
    is_hex(md, sizeof md, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    crypto_hex(md, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    crypto_sha256((struct str){ 0 }, md);
    is_hex(md, sizeof md, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    struct crypto_sha256 *h = crypto_sha256_new();
    crypto_sha256_add(h, "a", 1);
    crypto_sha256_add(h, "bc", 2);
    crypto_sha256_end(h, md);
    is_hex(md, sizeof md, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    memset(key, 0x0b, sizeof key); /* RFC 4231 §4.2 and §4.3 */
    crypto_hmac_sha256(bytes(key, sizeof key), STR("Hi There"), md);
    is_hex(md, sizeof md, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    crypto_hmac_sha256(STR("Jefe"), STR("what do ya want for nothing?"), md);
    is_hex(md, sizeof md, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

/* "The Galois/Counter Mode of Operation", test case 16: with data that is only authenticated */
static void test_aead(void **state)
{
    uint8_t key[CRYPTO_KEY], nonce[CRYPTO_NONCE], plain[60], also[20], sealed[76], back[60], zero[60] = { 0 };
    (void)state;
    unhex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", key);
    unhex("cafebabefacedbaddecaf888", nonce);
    unhex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0d"
          "e657"
          "ba637b39",
          plain);
    unhex("feedfacedeadbeeffeedfacedeadbeefabaddad2", also);
    struct crypto_aead *a = crypto_aead_new();
    assert_true(crypto_aead_key(a, key));
    for (int round = 0; round < 2; round++) { /* one handle serves many messages */
        assert_true(crypto_aead_seal(a, nonce, bytes(also, 20), bytes(plain, 60), sealed));
        is_hex(sealed, sizeof sealed,
               "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6"
               "393ba"
               "7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b");
        assert_true(crypto_aead_open(a, nonce, bytes(also, 20), bytes(sealed, 76), back));
        assert_memory_equal(back, plain, sizeof plain);
    }
    for (size_t i = 0; i < sizeof sealed; i++) {
        sealed[i] ^= 1;
        assert_false(crypto_aead_open(a, nonce, bytes(also, 20), bytes(sealed, 76), back));
        assert_memory_equal(back, zero, sizeof zero);
        sealed[i] ^= 1;
    }
    also[3] ^= 1;
    assert_false(crypto_aead_open(a, nonce, bytes(also, 20), bytes(sealed, 76), back));
    assert_false(crypto_aead_open(a, nonce, bytes(also, 20), bytes(sealed, CRYPTO_TAG - 1), back));
    memset(key, 0, sizeof key); /* test case 13: nothing at all */
    memset(nonce, 0, sizeof nonce);
    assert_true(crypto_aead_key(a, key));
    assert_true(crypto_aead_seal(a, nonce, (struct str){ 0 }, (struct str){ 0 }, sealed));
    is_hex(sealed, CRYPTO_TAG, "530f8afbc74536b9a963b4f1c4cb738b");
    assert_true(crypto_aead_open(a, nonce, (struct str){ 0 }, bytes(sealed, CRYPTO_TAG), back));
    crypto_aead_free(a);
}

static void test_keys(void **state)
{
    uint8_t a[CRYPTO_KEY], b[CRYPTO_KEY], pub[CRYPTO_KEY], k[CRYPTO_KEY], salt[13], info[10], ikm[22];
    (void)state;
    unhex("77076d0a7318a57d3c16c17251b26645df4ed92b5d2b5e3d8f3a0e3e0d3a4c2a", a);
    unhex("77076d0a7318a57d3c16c17251b26645c6c2bf6d3e3b6b6e2c4b0e3e0d3a4c2a", b); /* two keys agree */
    assert_true(crypto_x25519(a, NULL, pub));
    assert_true(crypto_x25519(b, pub, k));
    assert_true(crypto_x25519(b, NULL, pub));
    assert_true(crypto_x25519(a, pub, b));
    assert_memory_equal(k, b, sizeof k);
    unhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4", a); /* RFC 7748 §5.2 */
    unhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c", pub);
    assert_true(crypto_x25519(a, pub, k));
    is_hex(k, sizeof k, "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552");
    memset(pub, 0, sizeof pub);
    assert_false(crypto_x25519(a, pub, k)); /* of small order */

    memset(ikm, 0x0b, sizeof ikm); /* RFC 5869 A.1, its first block */
    unhex("000102030405060708090a0b0c", salt);
    unhex("f0f1f2f3f4f5f6f7f8f9", info);
    crypto_hkdf(bytes(ikm, sizeof ikm), bytes(salt, sizeof salt), bytes(info, sizeof info), k);
    is_hex(k, sizeof k, "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf");
    assert_true(crypto_scrypt(STR("pleaseletmein"), STR("SodiumChloride"), 14, k)); /* RFC 7914 §12, with p = 1 */
    is_hex(k, sizeof k, "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2");
}

static void test_same_and_wipe(void **state)
{
    char a[] = "secret", b[] = "secreT";
    (void)state;
    assert_true(crypto_same(a, "secret", 6));
    assert_false(crypto_same(a, b, 6));
    assert_true(crypto_same(a, b, 5));
    crypto_wipe(a, sizeof a);
    assert_memory_equal(a, "\0\0\0\0\0\0\0", 7);
    crypto_wipe(NULL, 7);
}

static void test_base64(void **state)
{
    static const char *const pairs[][2] = { { "", "" },
                                            { "f", "Zg==" },
                                            { "fo", "Zm8=" },
                                            { "foo", "Zm9v" },
                                            { "foob", "Zm9vYg==" },
                                            { "fooba", "Zm9vYmE=" },
                                            { "\xff\xfe", "//4=" } }; /* RFC 4648 §10 */
    static const char *const bad[] = { "Z", "Zg", "Zg=", "Z===", "====", "Zg==Zg==", "Zm 9", "Zm-_", "Zm9v\n" };
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct buf b = BUF_INIT;
        base64_put(&b, str_from(pairs[i][0]));
        assert_string_equal(buf_cstr(&b), pairs[i][1]);
        buf_clear(&b);
        assert_true(base64_take(str_from(pairs[i][1]), &b));
        assert_string_equal(buf_cstr(&b), pairs[i][0]);
        buf_done(&b);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct buf b = BUF_INIT;
        assert_false(base64_take(str_from(bad[i]), &b));
        buf_done(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digests),       cmocka_unit_test(test_aead),   cmocka_unit_test(test_keys),
        cmocka_unit_test(test_same_and_wipe), cmocka_unit_test(test_base64),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
