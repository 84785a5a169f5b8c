#include "common/util/crypto.h"

#include <gcrypt.h>
#include <pthread.h>
#include <string.h>

#include "common/util/check.h"

/* Secrets stay in our own memory, which is wiped: no locked pool of the library's. */
static void init_once(void)
{
    if (gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P))
        return;
    CHECK(gcry_check_version(GCRYPT_VERSION) != NULL);
    gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
    gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
}

static void init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    CHECK(pthread_once(&once, init_once) == 0);
}

void crypto_wipe(void *p, size_t n)
{
    if (p)
        explicit_bzero(p, n);
}

bool crypto_same(const void *a, const void *b, size_t n)
{
    const volatile uint8_t *p = a, *q = b;
    uint8_t differ = 0;
    for (size_t i = 0; i < n; i++)
        differ |= p[i] ^ q[i];
    return differ == 0;
}

/* ---- SHA-256 ---- */

void crypto_sha256(struct str s, uint8_t ret[CRYPTO_HASH])
{
    init();
    gcry_md_hash_buffer(GCRY_MD_SHA256, ret, s.p ? s.p : "", s.n);
}

void crypto_hmac_sha256(struct str key, struct str s, uint8_t ret[CRYPTO_HASH])
{
    const gcry_buffer_t in[] = { { .data = (void *)(key.p ? key.p : ""), .len = key.n },
                                 { .data = (void *)(s.p ? s.p : ""), .len = s.n } };
    init();
    CHECK(gcry_md_hash_buffers(GCRY_MD_SHA256, GCRY_MD_FLAG_HMAC, ret, in, 2) == 0);
}

void crypto_hex(const uint8_t hash[CRYPTO_HASH], char hex[CRYPTO_HEX])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < CRYPTO_HASH; i++) {
        hex[2 * i] = digits[hash[i] >> 4];
        hex[2 * i + 1] = digits[hash[i] & 15];
    }
    hex[2 * CRYPTO_HASH] = '\0';
}

struct crypto_sha256 *crypto_sha256_new(void)
{
    gcry_md_hd_t h;
    init();
    CHECK(gcry_md_open(&h, GCRY_MD_SHA256, 0) == 0);
    return (struct crypto_sha256 *)h;
}

void crypto_sha256_add(struct crypto_sha256 *h, const void *p, size_t n)
{
    gcry_md_write((gcry_md_hd_t)h, p, n);
}

void crypto_sha256_end(struct crypto_sha256 *h, uint8_t ret[CRYPTO_HASH])
{
    memcpy(ret, gcry_md_read((gcry_md_hd_t)h, GCRY_MD_SHA256), CRYPTO_HASH);
    gcry_md_close((gcry_md_hd_t)h);
}

/* ---- AES-256-GCM ---- */

struct crypto_aead *crypto_aead_new(void)
{
    gcry_cipher_hd_t h;
    init();
    CHECK(gcry_cipher_open(&h, GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_GCM, 0) == 0);
    return (struct crypto_aead *)h;
}

struct crypto_aead *crypto_aead_free(struct crypto_aead *a)
{
    gcry_cipher_close((gcry_cipher_hd_t)a); /* wipes it */
    return NULL;
}

bool crypto_aead_key(struct crypto_aead *a, const uint8_t key[CRYPTO_KEY])
{
    return gcry_cipher_setkey((gcry_cipher_hd_t)a, key, CRYPTO_KEY) == 0;
}

static bool start(gcry_cipher_hd_t h, const uint8_t nonce[CRYPTO_NONCE], struct str also)
{
    return gcry_cipher_setiv(h, nonce, CRYPTO_NONCE) == 0 &&
           (also.n == 0 || gcry_cipher_authenticate(h, also.p, also.n) == 0);
}

bool crypto_aead_seal(struct crypto_aead *a, const uint8_t nonce[CRYPTO_NONCE], struct str also, struct str plain,
                      uint8_t *to)
{
    gcry_cipher_hd_t h = (gcry_cipher_hd_t)a;
    return start(h, nonce, also) && (plain.n == 0 || gcry_cipher_encrypt(h, to, plain.n, plain.p, plain.n) == 0) &&
           gcry_cipher_gettag(h, to + plain.n, CRYPTO_TAG) == 0;
}

bool crypto_aead_open(struct crypto_aead *a, const uint8_t nonce[CRYPTO_NONCE], struct str also, struct str sealed,
                      uint8_t *to)
{
    gcry_cipher_hd_t h = (gcry_cipher_hd_t)a;
    if (sealed.n < CRYPTO_TAG)
        return false;
    size_t n = sealed.n - CRYPTO_TAG;
    if (start(h, nonce, also) && (n == 0 || gcry_cipher_decrypt(h, to, n, sealed.p, n) == 0) &&
        gcry_cipher_checktag(h, sealed.p + n, CRYPTO_TAG) == 0)
        return true;
    crypto_wipe(to, n);
    return false;
}

/* ---- keys ---- */

bool crypto_x25519(const uint8_t priv[CRYPTO_KEY], const uint8_t *pub, uint8_t ret[CRYPTO_KEY])
{
    static const uint8_t base[CRYPTO_KEY] = { 9 }, zero[CRYPTO_KEY];
    init();
    return gcry_ecc_mul_point(GCRY_ECC_CURVE25519, ret, priv, pub ? pub : base) == 0 &&
           !crypto_same(ret, zero, CRYPTO_KEY);
}

void crypto_hkdf(struct str secret, struct str salt, struct str info, uint8_t ret[CRYPTO_KEY])
{
    uint8_t key[CRYPTO_HASH];
    struct buf b = BUF_INIT;
    crypto_hmac_sha256(salt, secret, key);
    buf_put(&b, info.p, info.n);
    buf_putc(&b, 1);
    CHECK(!b.failed);
    crypto_hmac_sha256((struct str){ (const char *)key, sizeof key }, buf_str(&b), ret);
    crypto_wipe(key, sizeof key);
    buf_done(&b);
}

bool crypto_scrypt(struct str passphrase, struct str salt, unsigned log2_n, uint8_t ret[CRYPTO_KEY])
{
    init();
    return gcry_kdf_derive(passphrase.p, passphrase.n, GCRY_KDF_SCRYPT, 1 << log2_n, salt.p, salt.n, 1, CRYPTO_KEY,
                           ret) == 0;
}
