/* keyring.c - AES-256-GCM and HMAC, and the windows against replays. */
#include "meshd/gossip/keyring.h"

#include <stdlib.h>
#include <string.h>

#include "common/util/check.h"
#include "common/util/crypto.h"

#define VERSION 1u
#define HEAD_SIZE 29u
#define TAG_SIZE CRYPTO_TAG
#define NONCE_SIZE CRYPTO_NONCE
#define WINDOW 256u
#define SENDERS 16384u

/* version, key id, sender, boot, counter */
_Static_assert(1 + 4 + 8 + 8 + 8 == HEAD_SIZE, "wire format"); // NOLINT(misc-redundant-expression)

struct key {
    uint32_t id; /* 0: free */
    uint8_t b[KEYRING_KEY_SIZE];
};

struct sender {
    uint64_t id; /* 0: free */
    uint64_t boot, top;
    uint64_t seen[WINDOW / 64]; /* of counter c: bit c % WINDOW, for top - WINDOW < c <= top */
};

struct keyring {
    struct keyring_config conf;
    struct key keys[KEYRING_KEYS_MAX];
    uint32_t primary;
    uint64_t counter;
    struct crypto_aead *enc, *dec;
    uint32_t enc_key; /* that `enc` is set up for; 0: none */
    struct sender *senders;
    size_t mask, n_senders; /* open addressing; at most half full */
    struct keyring_counts counts;
};

static void put_be(uint8_t *p, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> (8 * (n - 1 - i)));
}

static uint64_t get_be(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

static struct key *find_key(struct keyring *k, uint32_t id)
{
    for (size_t i = 0; i < KEYRING_KEYS_MAX; i++)
        if (id != 0 && k->keys[i].id == id)
            return &k->keys[i];
    return NULL;
}

/* ---- the ring ---- */

int keyring_new(struct keyring **ret, const struct keyring_config *conf, struct err *e)
{
    if (conf->self == 0 || conf->boot == 0 || conf->senders_max > 1u << 24)
        return err_set(e, ERR_INVALID, "keyring: no id, no boot, or too many senders");
    struct keyring *k = calloc(1, sizeof *k);
    if (k == NULL)
        return err_set(e, ERR_NOMEM, "keyring: out of memory");
    k->conf = *conf;
    if (k->conf.senders_max == 0)
        k->conf.senders_max = SENDERS;
    size_t cap = 16;
    while (cap < 2 * (size_t)k->conf.senders_max)
        cap *= 2;
    k->mask = cap - 1;
    k->senders = calloc(cap, sizeof *k->senders);
    k->enc = crypto_aead_new();
    k->dec = crypto_aead_new();
    if (k->senders == NULL) {
        keyring_free(k);
        return err_set(e, ERR_NOMEM, "keyring: out of memory");
    }
    *ret = k;
    return 0;
}

struct keyring *keyring_free(struct keyring *k)
{
    if (k == NULL)
        return NULL;
    crypto_aead_free(k->enc);
    crypto_aead_free(k->dec);
    free(k->senders);
    crypto_wipe(k, sizeof *k);
    free(k);
    return NULL;
}

int keyring_install(struct keyring *k, uint32_t id, const uint8_t key[KEYRING_KEY_SIZE], struct err *e)
{
    struct key *there = find_key(k, id);
    if (id == 0)
        return err_set(e, ERR_INVALID, "gossip key without a number");
    if (there != NULL)
        return crypto_same(there->b, key, KEYRING_KEY_SIZE)
                   ? 0
                   : err_set(e, ERR_CONFLICT, "gossip key %u is there already, and it is another one", id);
    for (size_t i = 0; i < KEYRING_KEYS_MAX; i++)
        if (k->keys[i].id == 0) {
            k->keys[i].id = id;
            memcpy(k->keys[i].b, key, KEYRING_KEY_SIZE);
            if (k->primary == 0)
                k->primary = id;
            return 0;
        }
    return err_set(e, ERR_TOO_BIG, "gossip key %u: there are %u keys already; remove one first", id, KEYRING_KEYS_MAX);
}

int keyring_use(struct keyring *k, uint32_t id, struct err *e)
{
    if (find_key(k, id) == NULL)
        return err_set(e, ERR_NOT_FOUND, "gossip key %u is not installed", id);
    k->primary = id;
    return 0;
}

int keyring_remove(struct keyring *k, uint32_t id, struct err *e)
{
    struct key *key = find_key(k, id);
    if (key == NULL)
        return err_set(e, ERR_NOT_FOUND, "gossip key %u is not installed", id);
    if (k->primary == id)
        return err_set(e, ERR_PRECONDITION, "gossip key %u is in use: use another one first", id);
    crypto_wipe(key, sizeof *key);
    return 0;
}

uint32_t keyring_primary(const struct keyring *k)
{
    return k->primary;
}

void keyring_counts(const struct keyring *k, struct keyring_counts *ret)
{
    *ret = k->counts;
}

/* ---- senders ---- */

static size_t home(const struct keyring *k, uint64_t id)
{
    return (size_t)(id * 0x9e3779b97f4a7c15u >> 32) & k->mask;
}

static struct sender *find_sender(const struct keyring *k, uint64_t id)
{
    size_t i = home(k, id);
    while (k->senders[i].id != 0 && k->senders[i].id != id)
        i = (i + 1) & k->mask;
    return &k->senders[i];
}

void keyring_forget(struct keyring *k, uint64_t id)
{
    struct sender *s = id != 0 ? find_sender(k, id) : NULL;
    if (s == NULL || s->id == 0)
        return;
    k->n_senders--;
    size_t hole = (size_t)(s - k->senders);
    k->senders[hole].id = 0;
    /* Knuth, TAOCP 6.4, algorithm R: move up what the hole cuts off from its home */
    for (size_t i = (hole + 1) & k->mask; k->senders[i].id != 0; i = (i + 1) & k->mask)
        if (((i - home(k, k->senders[i].id)) & k->mask) >= ((i - hole) & k->mask)) {
            k->senders[hole] = k->senders[i];
            k->senders[i].id = 0;
            hole = i;
        }
}

static bool replayed(const struct sender *s, uint64_t boot, uint64_t c)
{
    if (s->id == 0 || boot > s->boot)
        return false;
    if (boot < s->boot || (c <= s->top && s->top - c >= WINDOW))
        return true;
    return c <= s->top && (s->seen[c % WINDOW / 64] >> (c % 64) & 1) != 0;
}

static void remember(struct sender *s, uint64_t id, uint64_t boot, uint64_t c)
{
    if (s->id == 0 || boot != s->boot)
        *s = (struct sender){ .id = id, .boot = boot, .top = c };
    if (c > s->top && c - s->top >= WINDOW)
        memset(s->seen, 0, sizeof s->seen);
    else
        for (uint64_t i = s->top + 1; i <= c; i++)
            s->seen[i % WINDOW / 64] &= ~(1ull << (i % 64));
    if (c > s->top)
        s->top = c;
    s->seen[c % WINDOW / 64] |= 1ull << (c % 64);
}

/* ---- packets ---- */

static bool set_key(struct crypto_aead *a, const struct key *key, const uint8_t head[HEAD_SIZE])
{
    static const char label[] = "microswarm gossip key";
    char in[sizeof label + 16];
    uint8_t derived[CRYPTO_KEY];
    memcpy(in, label, sizeof label);
    memcpy(in + sizeof label, head + 5, 16); /* sender and boot */
    crypto_hmac_sha256((struct str){ (const char *)key->b, KEYRING_KEY_SIZE }, (struct str){ in, sizeof in }, derived);
    bool ok = crypto_aead_key(a, derived);
    crypto_wipe(derived, sizeof derived);
    return ok;
}

/* What a packet is bound to besides its content: its head, and whom it is for. */
static struct str bound(char to[HEAD_SIZE + 8], const uint8_t *head, uint64_t receiver)
{
    memcpy(to, head, HEAD_SIZE);
    put_be((uint8_t *)to + HEAD_SIZE, receiver, 8);
    return (struct str){ to, HEAD_SIZE + 8 };
}

int keyring_seal(struct keyring *k, uint64_t to, struct str plain, struct buf *out, struct err *e)
{
    uint8_t nonce[NONCE_SIZE] = { 0 };
    char also[HEAD_SIZE + 8];
    const struct key *key = find_key(k, k->primary);
    if (key == NULL)
        return err_set(e, ERR_UNAVAILABLE, "no gossip key yet");
    if (plain.n > KEYRING_SEALED_MAX - KEYRING_OVERHEAD)
        return err_set(e, ERR_TOO_BIG, "gossip packet of %zu bytes", plain.n);
    char *at = buf_reserve(out, plain.n + KEYRING_OVERHEAD);
    if (at == NULL)
        return err_set(e, ERR_NOMEM, "gossip keys: out of memory");
    uint8_t *p = (uint8_t *)at;
    p[0] = VERSION;
    put_be(p + 1, key->id, 4);
    put_be(p + 5, k->conf.self, 8);
    put_be(p + 13, k->conf.boot, 8);
    put_be(p + 21, ++k->counter, 8);
    put_be(nonce + 4, k->counter, 8);
    if (k->enc_key != key->id)
        k->enc_key = set_key(k->enc, key, p) ? key->id : 0;
    if (k->enc_key == 0 || !crypto_aead_seal(k->enc, nonce, bound(also, p, to), plain, p + HEAD_SIZE))
        return err_set(e, ERR_INTERNAL, "gossip keys: a packet can't be sealed");
    out->n += plain.n + KEYRING_OVERHEAD;
    k->counts.sealed++;
    return 0;
}

static bool unseal(struct keyring *k, const struct key *key, struct str sealed, uint8_t *to)
{
    const uint8_t *p = (const uint8_t *)sealed.p;
    uint8_t nonce[NONCE_SIZE] = { 0 };
    char also[HEAD_SIZE + 8];
    memcpy(nonce + 4, p + 21, 8);
    return set_key(k->dec, key, p) && crypto_aead_open(k->dec, nonce, bound(also, p, k->conf.self),
                                                       (struct str){ sealed.p + HEAD_SIZE, sealed.n - HEAD_SIZE }, to);
}

int keyring_open(struct keyring *k, struct str sealed, uint64_t *ret_sender, struct buf *plain, struct err *e)
{
    const uint8_t *p = (const uint8_t *)sealed.p;
    if (sealed.n < KEYRING_OVERHEAD || sealed.n > KEYRING_SEALED_MAX || p[0] != VERSION || get_be(p + 5, 8) == 0) {
        k->counts.malformed++;
        return err_set(e, ERR_INVALID, "gossip packet of %zu bytes: not one of ours", sealed.n);
    }
    uint32_t id = (uint32_t)get_be(p + 1, 4);
    uint64_t sender = get_be(p + 5, 8), boot = get_be(p + 13, 8), counter = get_be(p + 21, 8);
    const struct key *key = find_key(k, id);
    if (key == NULL) {
        k->counts.unknown_key++;
        return err_set(e, ERR_DENIED, "gossip packet under key %u, which is not installed", id);
    }
    char *at = buf_reserve(plain, sealed.n);
    if (at == NULL)
        return err_set(e, ERR_NOMEM, "gossip keys: out of memory");
    if (!unseal(k, key, sealed, (uint8_t *)at)) {
        k->counts.forged++;
        return err_set(e, ERR_DENIED, "gossip packet is forged or damaged");
    }
    struct sender *s = find_sender(k, sender);
    if (replayed(s, boot, counter)) {
        k->counts.replayed++;
        return err_set(e, ERR_DENIED, "gossip packet was seen before");
    }
    if (s->id == 0 && k->n_senders == k->conf.senders_max) {
        k->counts.strangers++;
        return err_set(e, ERR_DENIED, "gossip packet of one sender more than there is room for");
    }
    if (s->id == 0)
        k->n_senders++;
    remember(s, sender, boot, counter);
    plain->n += sealed.n - KEYRING_OVERHEAD;
    k->counts.opened++;
    *ret_sender = sender;
    return 0;
}
