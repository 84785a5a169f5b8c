#include "common/daemon/box.h"

#include <string.h>

#include "common/util/crypto.h"
#include "common/util/id.h"

_Static_assert(BOX_OVERHEAD == BOX_KEY + CRYPTO_TAG, "format");
_Static_assert(BOX_KEY == CRYPTO_KEY, "X25519");

int box_key_new(struct box_key *ret, struct err *e)
{
    random_bytes(ret->priv, sizeof ret->priv);
    return crypto_x25519(ret->priv, NULL, ret->pub) ? 0 : err_set(e, ERR_INTERNAL, "box: no key can be made");
}

/* agree - the key of a box: from what both sides can compute, bound to both public keys. */
static int agree(const uint8_t priv[BOX_KEY], const uint8_t other[BOX_KEY], const uint8_t sender[BOX_KEY],
                 const uint8_t owner[BOX_KEY], struct crypto_aead *ret, struct err *e)
{
    static const char label[] = "microswarm box 1";
    uint8_t shared[CRYPTO_KEY], key[CRYPTO_KEY];
    char in[sizeof label + (size_t)2 * BOX_KEY];

    memcpy(in, label, sizeof label);
    memcpy(in + sizeof label, sender, BOX_KEY);
    memcpy(in + sizeof label + BOX_KEY, owner, BOX_KEY);
    bool ok = crypto_x25519(priv, other, shared);
    if (ok) {
        crypto_hmac_sha256((struct str){ (char *)shared, sizeof shared }, (struct str){ in, sizeof in }, key);
        ok = crypto_aead_key(ret, key);
    }
    crypto_wipe(shared, sizeof shared);
    crypto_wipe(key, sizeof key);
    return ok ? 0 : err_set(e, ERR_CORRUPT, "box: no key can be agreed on");
}

static const uint8_t no_nonce[CRYPTO_NONCE];

int box_seal(struct str content, struct str to, struct buf *out, struct err *e)
{
    struct box_key own = { 0 };

    if (to.n != BOX_KEY || content.n > INT32_MAX / 2)
        return err_set(e, ERR_INVALID, "box: bad key or size");
    uint8_t *p = (uint8_t *)buf_reserve(out, content.n + BOX_OVERHEAD);
    if (!p)
        return err_set(e, ERR_NOMEM, "box: out of memory");
    struct crypto_aead *a = crypto_aead_new();
    int r = box_key_new(&own, e);
    if (r == 0)
        r = agree(own.priv, (const uint8_t *)to.p, own.pub, (const uint8_t *)to.p, a, e);
    if (r == 0) {
        memcpy(p, own.pub, BOX_KEY);
        if (crypto_aead_seal(a, no_nonce, (struct str){ 0 }, content, p + BOX_KEY))
            out->n += content.n + BOX_OVERHEAD;
        else
            r = err_set(e, ERR_INTERNAL, "box: the cipher failed");
    }
    crypto_aead_free(a);
    crypto_wipe(&own, sizeof own);
    return r;
}

int box_open(const struct box_key *k, struct str box, uint8_t *ret, struct err *e)
{
    const uint8_t *p = (const uint8_t *)box.p;

    if (box.n < BOX_OVERHEAD || box.n > INT32_MAX / 2)
        return err_set(e, ERR_CORRUPT, "box: cut short");
    struct crypto_aead *a = crypto_aead_new();
    int r = agree(k->priv, p, p, k->pub, a, e);
    if (r == 0 &&
        !crypto_aead_open(a, no_nonce, (struct str){ 0 }, (struct str){ box.p + BOX_KEY, box.n - BOX_KEY }, ret))
        r = err_set(e, ERR_CORRUPT, "box: not for this key, or damaged");
    crypto_aead_free(a);
    return r;
}
