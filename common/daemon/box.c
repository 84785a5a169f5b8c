#include "common/daemon/box.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "common/util/cleanup.h"

#define TAG 16u

DEFINE_CLEANUP(EVP_PKEY *, EVP_PKEY_free)
DEFINE_CLEANUP(EVP_PKEY_CTX *, EVP_PKEY_CTX_free)
DEFINE_CLEANUP(EVP_CIPHER_CTX *, EVP_CIPHER_CTX_free)

_Static_assert(BOX_OVERHEAD == BOX_KEY + TAG, "format");

static int failed(struct err *e, const char *what)
{
    return err_set(e, ERR_INTERNAL, "box: %s: OpenSSL failed", what);
}

void box_wipe(void *p, size_t n)
{
    if (p)
        OPENSSL_cleanse(p, n);
}

int box_key_new(struct box_key *ret, struct err *e)
{
    _cleanup_(EVP_PKEY_freep) EVP_PKEY *k = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
    size_t n = BOX_KEY, m = BOX_KEY;

    if (!k || EVP_PKEY_get_raw_public_key(k, ret->pub, &n) != 1 || n != BOX_KEY ||
        EVP_PKEY_get_raw_private_key(k, ret->priv, &m) != 1 || m != BOX_KEY)
        return failed(e, "key");
    return 0;
}

/* agree - the key of a box: from what both sides can compute, bound to both public keys. */
static int agree(const uint8_t priv[BOX_KEY], const uint8_t other[BOX_KEY], const uint8_t sender[BOX_KEY],
                 const uint8_t owner[BOX_KEY], uint8_t ret[32], struct err *e)
{
    static const char label[] = "microswarm box 1";
    _cleanup_(EVP_PKEY_freep) EVP_PKEY *mine = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, priv, BOX_KEY);
    _cleanup_(EVP_PKEY_freep) EVP_PKEY *theirs = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, other, BOX_KEY);
    _cleanup_(EVP_PKEY_CTX_freep) EVP_PKEY_CTX *c = mine ? EVP_PKEY_CTX_new(mine, NULL) : NULL;
    uint8_t shared[32], in[sizeof label + 2 * BOX_KEY];
    size_t n = sizeof shared;
    unsigned m = 32;

    memcpy(in, label, sizeof label);
    memcpy(in + sizeof label, sender, BOX_KEY);
    memcpy(in + sizeof label + BOX_KEY, owner, BOX_KEY);
    bool ok = c && theirs && EVP_PKEY_derive_init(c) == 1 && EVP_PKEY_derive_set_peer(c, theirs) == 1 &&
              EVP_PKEY_derive(c, shared, &n) == 1 && n == sizeof shared &&
              HMAC(EVP_sha256(), shared, (int)n, in, sizeof in, ret, &m) != NULL && m == 32;
    OPENSSL_cleanse(shared, sizeof shared);
    return ok ? 0 : failed(e, "key agreement");
}

static const uint8_t no_nonce[12];

int box_seal(struct str content, struct str to, struct buf *out, struct err *e)
{
    _cleanup_(EVP_CIPHER_CTX_freep) EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    struct box_key own = { 0 };
    uint8_t key[32];
    int n, tail;

    if (to.n != BOX_KEY || content.n > INT32_MAX / 2)
        return err_set(e, ERR_INVALID, "box: bad key or size");
    uint8_t *p = (uint8_t *)buf_reserve(out, content.n + BOX_OVERHEAD);
    int r = !p || !c ? err_set(e, ERR_NOMEM, "box: out of memory") : box_key_new(&own, e);
    if (r == 0)
        r = agree(own.priv, (const uint8_t *)to.p, own.pub, (const uint8_t *)to.p, key, e);
    if (r == 0) {
        memcpy(p, own.pub, BOX_KEY);
        if (EVP_EncryptInit_ex(c, EVP_aes_256_gcm(), NULL, key, no_nonce) != 1 ||
            EVP_EncryptUpdate(c, p + BOX_KEY, &n, (const uint8_t *)(content.p ? content.p : ""), (int)content.n) != 1 ||
            EVP_EncryptFinal_ex(c, p + BOX_KEY + n, &tail) != 1 ||
            EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, TAG, p + BOX_KEY + content.n) != 1)
            r = failed(e, "seal");
    }
    if (r == 0)
        out->n += content.n + BOX_OVERHEAD;
    OPENSSL_cleanse(key, sizeof key);
    OPENSSL_cleanse(&own, sizeof own);
    return r;
}

int box_open(const struct box_key *k, struct str box, uint8_t *ret, struct err *e)
{
    _cleanup_(EVP_CIPHER_CTX_freep) EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    const uint8_t *p = (const uint8_t *)box.p;
    uint8_t key[32], tag[TAG];
    int n = 0, tail = 0;

    if (box.n < BOX_OVERHEAD || box.n > INT32_MAX / 2)
        return err_set(e, ERR_CORRUPT, "box: cut short");
    int r = agree(k->priv, p, p, k->pub, key, e);
    size_t size = box.n - BOX_OVERHEAD;
    if (r == 0) {
        memcpy(tag, p + BOX_KEY + size, TAG);
        if (!c || EVP_DecryptInit_ex(c, EVP_aes_256_gcm(), NULL, key, no_nonce) != 1 ||
            EVP_DecryptUpdate(c, ret, &n, p + BOX_KEY, (int)size) != 1 ||
            EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, TAG, tag) != 1 ||
            EVP_DecryptFinal_ex(c, ret + n, &tail) != 1) {
            OPENSSL_cleanse(ret, size);
            r = err_set(e, ERR_CORRUPT, "box: not for this key, or damaged");
        }
    }
    OPENSSL_cleanse(key, sizeof key);
    return r;
}
