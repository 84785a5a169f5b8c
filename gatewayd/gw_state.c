#include "gatewayd/gw_state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util/dir.h"

#define NODE_FILE "node"
#define CERT_FILE "swarm-node.crt"
#define KEY_FILE "swarm-node.key"
#define NEXT_KEY_FILE "swarm-node.key.next"
#define TRUST_FILE "swarm-root-ca.crt"
#define FILE_MAX (1u << 20)
#define PATH_SIZE 400

static const struct field manager_fields[] = {
    FIELD_STR(struct gw_manager, NodeID, 0, 64),
    FIELD_STR(struct gw_manager, Addr, 1, 300),
    FIELD_END,
};
static const struct field known_key_fields[] = {
    FIELD_STR(struct gw_known_key, NodeID, 1, 64),
    FIELD_BIN(struct gw_known_key, Digest, GW_DIGEST_BYTES, GW_DIGEST_BYTES),
    FIELD_END,
};
const struct field gw_node_file_fields[] = {
    FIELD_STR(struct gw_node_file, ListenAddr, 0, 300),
    FIELD_STR(struct gw_node_file, AdvertiseAddr, 0, 300),
    FIELD_STR(struct gw_node_file, DataPathAddr, 0, 300),
    FIELD_U64(struct gw_node_file, DataPathPort, 0, 65535),
    FIELD_STR(struct gw_node_file, NodeID, 0, 64),
    FIELD_STR(struct gw_node_file, ClusterID, 0, 64),
    FIELD_LIST(struct gw_node_file, Managers, manager_fields, struct gw_manager, GW_MANAGERS_MAX),
    FIELD_LIST(struct gw_node_file, Keys, known_key_fields, struct gw_known_key, GW_MANAGERS_MAX),
    FIELD_END,
};

int gw_node_file_read(struct gw_node_file *ret, struct str bytes, struct arena *a, struct err *e)
{
    struct err why = ERR_INIT;
    if (fields_decode(ret, gw_node_file_fields, sizeof *ret, bytes, FIELDS_VIEW, a, &why) < 0 ||
        fields_check(ret, gw_node_file_fields, &why) < 0)
        return err_set(e, ERR_CORRUPT, "gateway/node: %s", why.msg);
    return 0;
}

/* ---- files ---- */

static int read_file(const char *dir, const char *name, struct buf *out, struct err *e)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return err_set(e, ERR_NOT_FOUND, "%s does not exist", path);
    if (fd < 0)
        return err_errno(e, errno, "open %s", path);
    for (;;) {
        char *p = buf_reserve(out, 8192);
        ssize_t n = p ? read(fd, p, 8192) : -1;
        if (!p || out->n > FILE_MAX)
            return err_set(e, ERR_TOO_BIG, "%s: too long", path);
        if (n < 0)
            return err_errno(e, errno, "read %s", path);
        if (n == 0)
            return 0;
        out->n += (size_t)n;
    }
}

static int sync_dir(const char *dir, struct err *e)
{
    _cleanup_(closep) int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? err_errno(e, errno, "sync %s", dir) : 0;
}

static int write_file(const char *dir, const char *name, mode_t mode, struct str text, struct err *e)
{
    char path[PATH_SIZE], tmp[PATH_SIZE + 8];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    snprintf(tmp, sizeof tmp, "%s.new", path);
    if (unlink(tmp) < 0 && errno != ENOENT)
        return err_errno(e, errno, "remove %s", tmp);
    _cleanup_(closep) int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0 || fchmod(fd, mode) < 0)
        return err_errno(e, errno, "make %s", tmp);
    for (size_t off = 0; off < text.n;) {
        ssize_t n = write(fd, text.p + off, text.n - off);
        if (n < 0)
            return err_errno(e, errno, "write %s", tmp);
        off += (size_t)n;
    }
    if (fsync(fd) < 0 || rename(tmp, path) < 0)
        return err_errno(e, errno, "store %s", path);
    return sync_dir(dir, e);
}

static int remove_file(const char *dir, const char *name, struct err *e)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return unlink(path) < 0 && errno != ENOENT ? err_errno(e, errno, "remove %s", path) : 0;
}

int gw_state_open(struct gw_state *s, const char *state_dir, struct err *e)
{
    snprintf(s->gateway_dir, sizeof s->gateway_dir, "%s/gateway", state_dir);
    snprintf(s->cert_dir, sizeof s->cert_dir, "%s/certificates", state_dir);
    int r = dir_own(s->gateway_dir, 0700, e);
    if (r == 0)
        r = dir_own(s->cert_dir, 0755, e);
    if (r == 0)
        r = remove_file(s->cert_dir, KEY_FILE ".new", e); /* what a crash left of a write: a key, perhaps */
    return r < 0 ? r : remove_file(s->cert_dir, NEXT_KEY_FILE ".new", e);
}

/* ---- the node file ---- */

int gw_state_load_node(const struct gw_state *s, struct buf *ret, struct err *e)
{
    return read_file(s->gateway_dir, NODE_FILE, ret, e);
}

int gw_state_save_node(const struct gw_state *s, const struct gw_node_file *f, struct err *e)
{
    struct buf b = { .limit = GW_NODE_FILE_MAX };
    fields_encode(f, gw_node_file_fields, &b);
    int r = b.failed ? err_set(e, ERR_TOO_BIG, "gateway/node: too long")
                     : write_file(s->gateway_dir, NODE_FILE, 0600, buf_str(&b), e);
    buf_done(&b);
    return r;
}

/* ---- credentials ---- */

void gw_credentials_done(struct gw_credentials *c)
{
    buf_done(&c->chain);
    buf_done(&c->trust);
    EVP_PKEY_free(c->key);
    X509_free(c->cert);
    gw_cert_chain_free(c->rest);
    *c = (struct gw_credentials){ .key = NULL };
}

int gw_credentials_make(struct gw_credentials *ret, struct str chain, struct str trust, EVP_PKEY *key, struct err *e)
{
    struct gw_credentials c = { .key = NULL };
    int r = gw_cert_chain(&c.rest, chain, e);
    if (r < 0)
        return err_wrap(e, "certificate");
    c.cert = sk_X509_shift(c.rest);
    r = gw_cert_info(&c.info, c.cert, e);
    if (r == 0 && X509_check_private_key(c.cert, key) != 1) {
        (void)gw_ssl_error(NULL, "");
        r = err_set(e, ERR_CORRUPT, "the key does not belong to the certificate");
    }
    if (r == 0) { /* an expired one is still good for being renewed */
        r = gw_cert_verify(c.cert, c.rest, trust, GW_CERT_ANY_TIME, e);
        if (r < 0)
            (void)err_wrap(e, "certificate");
    }
    if (r < 0) {
        gw_credentials_done(&c);
        return r;
    }
    EVP_PKEY_up_ref(key);
    c.key = key;
    buf_put(&c.chain, chain.p, chain.n);
    buf_put(&c.trust, trust.p, trust.n);
    *ret = c;
    return 0;
}

static int load_key(const struct gw_state *s, const char *name, const struct gw_seal *seal, EVP_PKEY **ret,
                    bool *ret_sealed, struct err *e)
{
    struct buf pem = BUF_INIT;
    int r = read_file(s->cert_dir, name, &pem, e);
    if (r == 0)
        r = gw_key_parse(ret, buf_str(&pem), seal, ret_sealed, e);
    gw_secret_done(&pem);
    return r;
}

static int save_key(const struct gw_state *s, const char *name, EVP_PKEY *key, const struct gw_seal *seal,
                    struct err *e)
{
    struct buf pem = BUF_INIT;
    int r = gw_key_pem(key, seal, &pem, e);
    if (r == 0)
        r = write_file(s->cert_dir, name, 0600, buf_str(&pem), e);
    gw_secret_done(&pem);
    return r;
}

static int promote_key(const struct gw_state *s, struct err *e)
{
    char from[PATH_SIZE], to[PATH_SIZE];
    snprintf(from, sizeof from, "%s/" NEXT_KEY_FILE, s->cert_dir);
    snprintf(to, sizeof to, "%s/" KEY_FILE, s->cert_dir);
    return rename(from, to) < 0 ? err_errno(e, errno, "store %s", to) : sync_dir(s->cert_dir, e);
}

int gw_state_load_credentials(const struct gw_state *s, const struct gw_seal *seal, struct gw_credentials *ret,
                              bool *ret_sealed, struct err *e)
{
    _cleanup_(EVP_PKEY_freep) EVP_PKEY *key = NULL, *next = NULL;
    struct buf chain = BUF_INIT, trust = BUF_INIT;
    struct err e2 = ERR_INIT;
    int r = read_file(s->cert_dir, CERT_FILE, &chain, e);
    if (r == 0)
        r = read_file(s->cert_dir, TRUST_FILE, &trust, e);
    *ret_sealed = false;
    if (r == 0 && load_key(s, NEXT_KEY_FILE, seal, &next, ret_sealed, &e2) == 0 &&
        gw_credentials_make(ret, buf_str(&chain), buf_str(&trust), next, &e2) == 0) {
        r = promote_key(s, e); /* a crash came between the two */
        if (r < 0)
            gw_credentials_done(ret);
    } else if (r == 0) {
        bool next_sealed = *ret_sealed && !next;
        r = load_key(s, KEY_FILE, seal, &key, ret_sealed, e);
        if (r == 0)
            r = gw_credentials_make(ret, buf_str(&chain), buf_str(&trust), key, e);
        if (r == -ERR_CORRUPT && next_sealed) /* the key that fits may be the one that can't be read */
            r = err_set(e, ERR_DENIED, "the node's key is sealed: the swarm's unlock key is needed");
    }
    buf_done(&chain);
    buf_done(&trust);
    return r;
}

int gw_state_save_key(const struct gw_state *s, EVP_PKEY *key, const struct gw_seal *seal, struct err *e)
{
    return save_key(s, NEXT_KEY_FILE, key, seal, e);
}

int gw_state_reseal(const struct gw_state *s, EVP_PKEY *key, EVP_PKEY *next, const struct gw_seal *seal, struct err *e)
{
    int r = save_key(s, KEY_FILE, key, seal, e);
    if (r == 0)
        r = next ? save_key(s, NEXT_KEY_FILE, next, seal, e) : remove_file(s->cert_dir, NEXT_KEY_FILE, e);
    return r < 0 || next ? r : sync_dir(s->cert_dir, e);
}

int gw_state_save_credentials(const struct gw_state *s, struct str chain, struct str trust, struct err *e)
{
    int r = gw_state_save_trust(s, trust, e);
    if (r == 0)
        r = write_file(s->cert_dir, CERT_FILE, 0644, chain, e);
    return r < 0 ? r : promote_key(s, e);
}

int gw_state_save_trust(const struct gw_state *s, struct str trust, struct err *e)
{
    return write_file(s->cert_dir, TRUST_FILE, 0644, trust, e);
}

int gw_state_forget(const struct gw_state *s, struct err *e)
{
    static const char *const files[] = { CERT_FILE, KEY_FILE, NEXT_KEY_FILE, TRUST_FILE };
    int r = 0;
    for (size_t i = 0; r == 0 && i < sizeof files / sizeof *files; i++)
        r = remove_file(s->cert_dir, files[i], e);
    if (r == 0)
        r = remove_file(s->gateway_dir, NODE_FILE, e);
    if (r == 0)
        r = sync_dir(s->cert_dir, e);
    return r < 0 ? r : sync_dir(s->gateway_dir, e);
}
