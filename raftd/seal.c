/* seal.c - AES-256-GCM, HMAC, and the key files. */
#include "raftd/seal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util/base64.h"
#include "common/util/check.h"
#include "common/util/crypto.h"
#include "common/util/id.h"

#define SEAL_VERSION 1
#define SALT_SIZE 16u
#define NONCE_SIZE CRYPTO_NONCE

/* On disk: version 1, type 1, entry type 1, zero 1, index 8, term 8, part 4, parts 4, salt 16, counter 8; big endian.
 */
_Static_assert(4 + 8 + 8 + 4 + 4 + SALT_SIZE + 8 == SEAL_HEADER_SIZE, "on-disk format");

struct seal {
    struct seal_key data_key;
    uint8_t salt[SALT_SIZE];
    uint64_t counter;
    struct crypto_aead *enc, *dec;
    uint8_t dec_salt[SALT_SIZE]; /* of the key that `dec` has: records of one process come in a row */
    bool dec_ready;
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

static int crypto_failed(struct err *e, const char *what)
{
    return err_set(e, ERR_INTERNAL, "%s: the cipher failed", what);
}

/* ---- records ---- */

static struct str key_str(const struct seal_key *k)
{
    return (struct str){ (const char *)k->b, SEAL_KEY_SIZE };
}

static bool set_key(struct crypto_aead *a, const struct seal_key *data_key, const uint8_t salt[SALT_SIZE])
{
    static const char label[] = "microswarm record key";
    char in[sizeof label + SALT_SIZE];
    uint8_t key[CRYPTO_KEY];
    memcpy(in, label, sizeof label);
    memcpy(in + sizeof label, salt, SALT_SIZE);
    crypto_hmac_sha256(key_str(data_key), (struct str){ in, sizeof in }, key);
    bool ok = crypto_aead_key(a, key);
    crypto_wipe(key, sizeof key);
    return ok;
}

int seal_new(struct seal **ret, const struct seal_key *data_key, struct err *e)
{
    struct seal *s = calloc(1, sizeof *s);
    if (s == NULL)
        return err_set(e, ERR_NOMEM, "seal: out of memory");
    s->data_key = *data_key;
    random_bytes(s->salt, sizeof s->salt);
    s->enc = crypto_aead_new();
    s->dec = crypto_aead_new();
    if (!set_key(s->enc, data_key, s->salt)) {
        seal_free(s);
        return crypto_failed(e, "seal");
    }
    *ret = s;
    return 0;
}

struct seal *seal_free(struct seal *s)
{
    if (s == NULL)
        return NULL;
    crypto_aead_free(s->enc);
    crypto_aead_free(s->dec);
    crypto_wipe(s, sizeof *s);
    free(s);
    return NULL;
}

static void header_encode(const struct seal *s, const struct seal_header *h, uint8_t p[SEAL_HEADER_SIZE])
{
    p[0] = SEAL_VERSION;
    p[1] = (uint8_t)h->type;
    p[2] = h->entry_type;
    p[3] = 0;
    put_be(p + 4, h->index, 8);
    put_be(p + 12, h->term, 8);
    put_be(p + 20, h->part, 4);
    put_be(p + 24, h->parts, 4);
    memcpy(p + 28, s->salt, SALT_SIZE);
    put_be(p + 44, s->counter, 8);
}

bool seal_header(struct str sealed, struct seal_header *ret)
{
    const uint8_t *p = (const uint8_t *)sealed.p;
    if (sealed.n < SEAL_OVERHEAD || p[0] != SEAL_VERSION)
        return false;
    *ret = (struct seal_header){
        .type = (char)p[1],
        .entry_type = p[2],
        .index = get_be(p + 4, 8),
        .term = get_be(p + 12, 8),
        .part = (uint32_t)get_be(p + 20, 4),
        .parts = (uint32_t)get_be(p + 24, 4),
    };
    return true;
}

int seal_put(struct seal *s, const struct seal_header *h, struct str plain, struct buf *out, struct err *e)
{
    uint8_t nonce[NONCE_SIZE] = { 0 };
    CHECK(plain.n < (1u << 30));
    char *at = buf_reserve(out, plain.n + SEAL_OVERHEAD);
    if (at == NULL)
        return err_set(e, ERR_NOMEM, "seal: out of memory");
    uint8_t *p = (uint8_t *)at;
    s->counter++;
    header_encode(s, h, p);
    memcpy(nonce + 4, p + 44, 8);
    if (!crypto_aead_seal(s->enc, nonce, (struct str){ at, SEAL_HEADER_SIZE }, plain, p + SEAL_HEADER_SIZE))
        return crypto_failed(e, "seal");
    out->n += plain.n + SEAL_OVERHEAD;
    return 0;
}

static bool dec_key(struct seal *s, const uint8_t salt[SALT_SIZE])
{
    if (s->dec_ready && memcmp(s->dec_salt, salt, SALT_SIZE) == 0)
        return true;
    s->dec_ready = set_key(s->dec, &s->data_key, salt);
    memcpy(s->dec_salt, salt, SALT_SIZE);
    return s->dec_ready;
}

int seal_take(struct seal *s, struct str sealed, struct seal_header *ret, struct buf *plain, struct err *e)
{
    struct seal_header h;
    uint8_t nonce[NONCE_SIZE] = { 0 };
    if (!seal_header(sealed, &h) || sealed.n > (1u << 30))
        return err_set(e, ERR_CORRUPT, "the record is cut short or of an unknown version");
    const uint8_t *p = (const uint8_t *)sealed.p;
    size_t len = sealed.n - SEAL_OVERHEAD;
    uint8_t *to = (uint8_t *)buf_reserve(plain, len + 1);
    if (to == NULL)
        return err_set(e, ERR_NOMEM, "out of memory for a record of %zu bytes", len);
    if (!dec_key(s, p + 28))
        return crypto_failed(e, "unseal");
    memcpy(nonce + 4, p + 44, 8);
    if (!crypto_aead_open(s->dec, nonce, (struct str){ sealed.p, SEAL_HEADER_SIZE },
                          (struct str){ sealed.p + SEAL_HEADER_SIZE, sealed.n - SEAL_HEADER_SIZE }, to))
        return err_set(e, ERR_CORRUPT, "the record was altered");
    plain->n += len;
    *ret = h;
    return 0;
}

void seal_key_id(const struct seal_key *k, uint8_t id[SEAL_ID_SIZE])
{
    static const char label[] = "microswarm data key id";
    uint8_t mac[CRYPTO_HASH];
    crypto_hmac_sha256(key_str(k), (struct str){ label, sizeof label }, mac);
    memcpy(id, mac, SEAL_ID_SIZE);
}

void seal_node_key(const struct seal_key *data_key, char text[SEAL_NODE_KEY_SIZE])
{
    static const char label[] = "microswarm node key";
    uint8_t mac[CRYPTO_HASH];
    crypto_hmac_sha256(key_str(data_key), (struct str){ label, sizeof label }, mac);
    crypto_hex(mac, text);
    crypto_wipe(mac, sizeof mac);
}

/* ---- key files ----
 *
 * data.key: magic 7, 'o' (the kek is on the disk) or 'l' (it is not), number of wraps 1, (nonce 12, key 32, tag 16)*.
 * There is more than one wrap only while the kek is being changed, or when that was cut short: each of them opens it.
 */

#define WRAP_MAGIC "MSKEY2\n"
#define WRAP_MAGIC_SIZE 7u
#define WRAP_HEAD (WRAP_MAGIC_SIZE + 2u)
#define WRAP_SIZE (NONCE_SIZE + SEAL_KEY_SIZE + SEAL_TAG_SIZE)
#define WRAPS_MAX 8u
#define PATH_SIZE 512

struct wraps {
    uint8_t b[WRAP_HEAD + WRAPS_MAX * WRAP_SIZE];
    size_t n; /* bytes */
};

static unsigned wraps_count(const struct wraps *w)
{
    return w->b[WRAP_HEAD - 1];
}

static void wraps_init(struct wraps *w)
{
    memset(w, 0, sizeof *w);
    for (unsigned i = 0; i < WRAP_MAGIC_SIZE; i++)
        w->b[i] = (uint8_t)WRAP_MAGIC[i];
    w->b[WRAP_HEAD - 2] = 'o';
    w->n = WRAP_HEAD;
}

static struct str wraps_magic(const struct wraps *w)
{
    return (struct str){ (const char *)w->b, WRAP_MAGIC_SIZE };
}

static int wraps_add(struct wraps *w, const struct seal_key *kek, const struct seal_key *key, struct err *e)
{
    uint8_t *nonce = w->b + w->n;
    CHECK(wraps_count(w) < WRAPS_MAX);
    struct crypto_aead *a = crypto_aead_new();
    random_bytes(nonce, NONCE_SIZE);
    bool ok =
        crypto_aead_key(a, kek->b) && crypto_aead_seal(a, nonce, wraps_magic(w), key_str(key), nonce + NONCE_SIZE);
    crypto_aead_free(a);
    if (!ok)
        return crypto_failed(e, "wrap the data key");
    w->b[WRAP_HEAD - 1]++;
    w->n += WRAP_SIZE;
    return 0;
}

static bool wraps_open(struct wraps *w, const struct seal_key *kek, struct seal_key *ret)
{
    struct crypto_aead *a = crypto_aead_new();
    bool ready = crypto_aead_key(a, kek->b), ok = false;
    for (unsigned i = 0; ready && !ok && i < wraps_count(w); i++) {
        const uint8_t *nonce = w->b + WRAP_HEAD + (size_t)i * WRAP_SIZE;
        ok = crypto_aead_open(a, nonce, wraps_magic(w),
                              (struct str){ (const char *)nonce + NONCE_SIZE, SEAL_KEY_SIZE + SEAL_TAG_SIZE }, ret->b);
    }
    crypto_aead_free(a);
    return ok;
}

static int dir_fsync(const char *dir, struct err *e)
{
    _cleanup_(closep) int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? err_errno(e, errno, "sync %s", dir) : 0;
}

static int tmp_write(const char *path, const void *p, size_t n, struct err *e)
{
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_errno(e, errno, "create %s", path);
    ssize_t w = write(fd, p, n);
    if (w != (ssize_t)n)
        return err_errno(e, w < 0 ? errno : ENOSPC, "write %s", path);
    return fsync(fd) < 0 ? err_errno(e, errno, "sync %s", path) : 0;
}

/* file_create - in a folder that has no name yet, and is synced before it gets one. */
static int file_create(const char *dir, const char *name, const void *p, size_t n, struct err *e)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return tmp_write(path, p, n, e);
}

/* file_replace - the old content or the new one, never something between. */
static int file_replace(const char *dir, const char *name, const void *p, size_t n, struct err *e)
{
    char tmp[PATH_SIZE], path[PATH_SIZE];
    snprintf(tmp, sizeof tmp, "%s/%s.tmp", dir, name);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int r = tmp_write(tmp, p, n, e);
    if (r == 0 && rename(tmp, path) < 0)
        r = err_errno(e, errno, "rename %s", tmp);
    if (r == 0)
        return dir_fsync(dir, e);
    unlink(tmp);
    return r;
}

static int file_read(const char *dir, const char *name, void *p, size_t cap, size_t *ret_n, struct err *e)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return err_set(e, ERR_CORRUPT, "%s is missing: the log can't be read without it", path);
    if (fd < 0)
        return err_errno(e, errno, "open %s", path);
    ssize_t got = read(fd, p, cap);
    if (got < 0)
        return err_errno(e, errno, "read %s", path);
    *ret_n = (size_t)got;
    return 0;
}

static int wraps_read(const char *dir, struct wraps *w, struct err *e)
{
    uint8_t more[sizeof w->b + 1];
    size_t n = 0;
    int r = file_read(dir, SEAL_DATA_KEY_FILE, more, sizeof more, &n, e);
    if (r < 0)
        return r;
    if (n < WRAP_HEAD || memcmp(more, WRAP_MAGIC, WRAP_MAGIC_SIZE) != 0 ||
        (more[WRAP_HEAD - 2] != 'o' && more[WRAP_HEAD - 2] != 'l') || more[WRAP_HEAD - 1] < 1 ||
        more[WRAP_HEAD - 1] > WRAPS_MAX || n != WRAP_HEAD + more[WRAP_HEAD - 1] * WRAP_SIZE)
        return err_set(e, ERR_CORRUPT, "%s/%s: altered, or cut short", dir, SEAL_DATA_KEY_FILE);
    memcpy(w->b, more, n);
    w->n = n;
    return 0;
}

static bool kek_there(const char *dir)
{
    char path[PATH_SIZE];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", dir, SEAL_KEK_FILE);
    return lstat(path, &st) == 0;
}

static int wraps_write(const char *dir, struct wraps *w, char mode, struct err *e)
{
    w->b[WRAP_HEAD - 2] = (uint8_t)mode;
    return file_replace(dir, SEAL_DATA_KEY_FILE, w->b, w->n, e);
}

int seal_keys_create(const char *dir, struct seal_key *ret, struct err *e)
{
    struct seal_key kek;
    struct wraps w = { .n = 0 };
    random_bytes(&kek, sizeof kek);
    random_bytes(ret, sizeof *ret);
    wraps_init(&w);
    int r = wraps_add(&w, &kek, ret, e);
    if (r == 0)
        r = file_create(dir, SEAL_KEK_FILE, kek.b, sizeof kek.b, e);
    if (r == 0)
        r = file_create(dir, SEAL_DATA_KEY_FILE, w.b, w.n, e);
    crypto_wipe(&kek, sizeof kek);
    return r;
}

int seal_keys_read(const char *dir, struct seal_key *ret, struct err *e)
{
    uint8_t kek[SEAL_KEY_SIZE + 1];
    struct seal_key k;
    struct wraps w = { .n = 0 };
    size_t n = 0;
    if (seal_keys_locked(dir))
        return err_set(e, ERR_PRECONDITION, "the store is locked: it takes the swarm's unlock key");
    int r = file_read(dir, SEAL_KEK_FILE, kek, sizeof kek, &n, e);
    if (r == 0 && n != SEAL_KEY_SIZE)
        r = err_set(e, ERR_CORRUPT, "%s/%s: not %u bytes: cut short or altered", dir, SEAL_KEK_FILE, SEAL_KEY_SIZE);
    if (r == 0)
        r = wraps_read(dir, &w, e);
    memcpy(k.b, kek, sizeof k.b);
    if (r == 0 && !wraps_open(&w, &k, ret))
        r = err_set(e, ERR_CORRUPT, "%s/%s: altered, or %s is not the key that it was wrapped with", dir,
                    SEAL_DATA_KEY_FILE, SEAL_KEK_FILE);
    crypto_wipe(&k, sizeof k);
    crypto_wipe(kek, sizeof kek);
    return r;
}

bool seal_keys_locked(const char *dir)
{
    struct wraps w = { .n = 0 };
    return !kek_there(dir) && wraps_read(dir, &w, NULL) == 0 && w.b[WRAP_HEAD - 2] == 'l';
}

int seal_keys_unlock(const char *dir, const struct seal_key *kek, struct seal_key *ret, struct err *e)
{
    struct wraps w = { .n = 0 };
    int r = wraps_read(dir, &w, e);
    if (r == 0 && !wraps_open(&w, kek, ret))
        r = err_set(e, ERR_DENIED, "invalid key");
    return r;
}

static int kek_remove(const char *dir, struct err *e)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/%s", dir, SEAL_KEK_FILE);
    if (unlink(path) < 0 && errno != ENOENT)
        return err_errno(e, errno, "remove %s", path);
    return dir_fsync(dir, e);
}

/* rewrap - with both wraps on the disk, the kek comes or goes; then the old wrap goes. */
static int rewrap(const char *dir, struct wraps *both, struct wraps *one, const struct seal_key *kek, bool on_disk,
                  struct err *e)
{
    int r = wraps_write(dir, both, 'l', e);
    if (r == 0)
        r = on_disk ? file_replace(dir, SEAL_KEK_FILE, kek->b, sizeof kek->b, e) : kek_remove(dir, e);
    return r < 0 ? r : wraps_write(dir, one, on_disk ? 'o' : 'l', e);
}

int seal_keys_rewrap(const char *dir, const struct seal_key *data_key, const struct seal_key *kek, struct err *e)
{
    struct wraps both = { .n = 0 }, one;
    struct seal_key k;
    bool on_disk = kek == NULL;
    if (on_disk)
        random_bytes(&k, sizeof k);
    else
        k = *kek;
    wraps_init(&one);
    int r = wraps_add(&one, &k, data_key, e);
    if (r == 0)
        r = wraps_read(dir, &both, e);
    if (r == 0 && wraps_count(&both) == WRAPS_MAX) { /* seven crashes in a row: of their leftovers, the first goes */
        memmove(both.b + WRAP_HEAD + WRAP_SIZE, both.b + WRAP_HEAD + 2 * (size_t)WRAP_SIZE,
                (WRAPS_MAX - 2) * (size_t)WRAP_SIZE);
        both.b[WRAP_HEAD - 1]--;
        both.n -= WRAP_SIZE;
    }
    if (r == 0)
        r = wraps_add(&both, &k, data_key, e);
    if (r == 0)
        r = rewrap(dir, &both, &one, &k, on_disk, e);
    crypto_wipe(&k, sizeof k);
    return r;
}

bool seal_keys_wrapped_by(const char *dir, const struct seal_key *kek)
{
    struct wraps w = { .n = 0 };
    struct seal_key key;
    bool ok = !kek_there(dir) && wraps_read(dir, &w, NULL) == 0 && wraps_count(&w) == 1 && wraps_open(&w, kek, &key);
    crypto_wipe(&key, sizeof key);
    return ok;
}

bool seal_keys_open(const char *dir)
{
    struct wraps w = { .n = 0 };
    return kek_there(dir) && wraps_read(dir, &w, NULL) == 0 && wraps_count(&w) == 1 && w.b[WRAP_HEAD - 2] == 'o';
}

/* ---- the unlock key as text ---- */

#define UNLOCK_PREFIX "SWMKEY-1-"
#define UNLOCK_PREFIX_SIZE (sizeof UNLOCK_PREFIX - 1)
#define UNLOCK_B64 43u /* of 32 bytes, without "=" */

_Static_assert(UNLOCK_PREFIX_SIZE + UNLOCK_B64 + 2 <= SEAL_UNLOCK_TEXT_SIZE, "text of the unlock key");

void seal_unlock_text(const struct seal_key *k, char text[SEAL_UNLOCK_TEXT_SIZE])
{
    struct buf b = BUF_INIT;
    base64_put(&b, key_str(k));
    CHECK(!b.failed && b.n == UNLOCK_B64 + 1);
    memcpy(text, UNLOCK_PREFIX, UNLOCK_PREFIX_SIZE);
    memcpy(text + UNLOCK_PREFIX_SIZE, b.p, UNLOCK_B64);
    text[UNLOCK_PREFIX_SIZE + UNLOCK_B64] = 0;
    crypto_wipe(b.p, b.n);
    buf_done(&b);
}

bool seal_unlock_parse(struct str text, struct seal_key *ret)
{
    char in[UNLOCK_B64 + 1], again[SEAL_UNLOCK_TEXT_SIZE];
    struct buf out = BUF_INIT;
    if (text.n != UNLOCK_PREFIX_SIZE + UNLOCK_B64 || memcmp(text.p, UNLOCK_PREFIX, UNLOCK_PREFIX_SIZE) != 0)
        return false;
    memcpy(in, text.p + UNLOCK_PREFIX_SIZE, UNLOCK_B64);
    in[UNLOCK_B64] = '=';
    bool ok = base64_take((struct str){ in, sizeof in }, &out) && out.n == SEAL_KEY_SIZE;
    if (ok) { /* stray bits in the last digit are no key of ours */
        memcpy(ret->b, out.p, sizeof ret->b);
        seal_unlock_text(ret, again);
        ok = str_eq(text, str_from(again));
    }
    crypto_wipe(in, sizeof in);
    crypto_wipe(out.p, out.n);
    crypto_wipe(again, sizeof again);
    buf_done(&out);
    return ok;
}
