/* OpenSSL's signs turned into ours: 1 is success there. */
#include "gatewayd/gw_cert.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#define CHAIN_MAX 16
#define KEY_TEXT_MAX 16384u
#define KEY_COPIES_MAX 4
#define ROUNDS_MAX 10000
#define TOKEN_PREFIX "SWMTKN-1-"
#define DIGEST_DIGITS 50
#define SECRET_DIGITS 25

int gw_ssl_error(struct err *e, const char *what)
{
    unsigned long code = ERR_get_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    ERR_clear_error();
    return err_set(e, ERR_INTERNAL, "%s: %s", what, reason ? reason : "no reason given");
}

static bool name_part(X509_NAME *name, int nid, char ret[GW_ID_MAX])
{
    int at = X509_NAME_get_index_by_NID(name, nid, -1);
    if (at < 0 || X509_NAME_get_index_by_NID(name, nid, at) >= 0) /* exactly one */
        return false;
    ASN1_STRING *s = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at));
    struct str text = { (const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s) };
    return id_ok(text) && str_copy(ret, GW_ID_MAX, text);
}

static int64_t unix_seconds(const ASN1_TIME *t)
{
    struct tm tm;
    return ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

int gw_cert_info(struct gw_cert_info *ret, X509 *cert, struct err *e)
{
    X509_NAME *name = X509_get_subject_name(cert);
    char role[GW_ID_MAX];
    *ret = (struct gw_cert_info){ .role = RPC_NOBODY };
    if (!name_part(name, NID_commonName, ret->node))
        return err_set(e, ERR_UNAUTHORIZED, "the certificate names no node (CN)");
    if (!name_part(name, NID_organizationName, ret->cluster))
        return err_set(e, ERR_UNAUTHORIZED, "the certificate of node %s names no swarm (O)", ret->node);
    if (!name_part(name, NID_organizationalUnitName, role))
        return err_set(e, ERR_UNAUTHORIZED, "the certificate of node %s names no role (OU)", ret->node);
    if (strcmp(role, "swarm-manager") == 0)
        ret->role = RPC_MANAGER;
    else if (strcmp(role, "swarm-worker") == 0)
        ret->role = RPC_WORKER;
    else
        return err_set(e, ERR_UNAUTHORIZED, "the certificate of node %s has the role %s", ret->node, role);
    ret->not_before = unix_seconds(X509_get0_notBefore(cert));
    ret->not_after = unix_seconds(X509_get0_notAfter(cert));
    return 0;
}

void gw_cert_chain_free(STACK_OF(X509) * chain)
{
    sk_X509_pop_free(chain, X509_free);
}

int gw_cert_chain(STACK_OF(X509) * *ret, struct str pem, struct err *e)
{
    if (pem.n > 1u << 20)
        return err_set(e, ERR_TOO_BIG, "certificates: text too long");
    _cleanup_(BIO_freep) BIO *in = BIO_new_mem_buf(pem.p ? pem.p : "", (int)pem.n);
    _cleanup_(gw_cert_chain_freep) STACK_OF(X509) *chain = sk_X509_new_null();
    if (!in || !chain)
        return gw_ssl_error(e, "certificates");
    for (;;) {
        X509 *x = PEM_read_bio_X509(in, NULL, NULL, NULL);
        if (!x)
            break;
        if (sk_X509_num(chain) >= CHAIN_MAX || !sk_X509_push(chain, x)) {
            X509_free(x);
            return err_set(e, ERR_INVALID, "more than %d certificates", CHAIN_MAX);
        }
    }
    if (sk_X509_num(chain) == 0) {
        ERR_clear_error();
        return err_set(e, ERR_INVALID, "no PEM certificate");
    }
    if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
        return gw_ssl_error(e, "certificate");
    ERR_clear_error();
    *ret = TAKE(chain);
    return 0;
}

static int trust_store(X509_STORE **ret, struct str trust, struct err *e)
{
    _cleanup_(gw_cert_chain_freep) STACK_OF(X509) *roots = NULL;
    _cleanup_(X509_STORE_freep) X509_STORE *store = X509_STORE_new();
    int r = gw_cert_chain(&roots, trust, e);
    if (r < 0)
        return err_wrap(e, "root certificates");
    for (int i = 0; store && i < sk_X509_num(roots); i++) {
        if (X509_STORE_add_cert(store, sk_X509_value(roots, i)) != 1)
            return gw_ssl_error(e, "root certificates");
    }
    if (!store)
        return err_set(e, ERR_NOMEM, "out of memory");
    *ret = TAKE(store);
    return 0;
}

int gw_cert_verify(X509 *leaf, STACK_OF(X509) * chain, struct str trust, int64_t now_s, struct err *e)
{
    _cleanup_(X509_STORE_freep) X509_STORE *store = NULL;
    int r = trust_store(&store, trust, e);
    if (r < 0)
        return r;
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    if (!ctx || X509_STORE_CTX_init(ctx, store, leaf, chain) != 1) {
        X509_STORE_CTX_free(ctx);
        return gw_ssl_error(e, "verify");
    }
    if (now_s == GW_CERT_ANY_TIME)
        X509_VERIFY_PARAM_set_flags(X509_STORE_CTX_get0_param(ctx), X509_V_FLAG_NO_CHECK_TIME);
    else
        X509_VERIFY_PARAM_set_time(X509_STORE_CTX_get0_param(ctx), (time_t)now_s);
    if (X509_verify_cert(ctx) != 1)
        r = err_set(e, ERR_UNAUTHORIZED, "%s", X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx)));
    X509_STORE_CTX_free(ctx);
    ERR_clear_error();
    return r;
}

static X509 *find_issuer(X509 *leaf, STACK_OF(X509) * in)
{
    for (int i = 0; i < sk_X509_num(in); i++) {
        X509 *x = sk_X509_value(in, i);
        if (X509_cmp(x, leaf) != 0 && X509_NAME_cmp(X509_get_subject_name(x), X509_get_issuer_name(leaf)) == 0 &&
            X509_verify(leaf, X509_get0_pubkey(x)) == 1)
            return x;
    }
    ERR_clear_error();
    return NULL;
}

bool gw_cert_issuer(X509 *leaf, STACK_OF(X509) * chain, struct str trust, struct buf *subject, struct buf *key)
{
    _cleanup_(gw_cert_chain_freep) STACK_OF(X509) *roots = NULL;
    unsigned char *p = NULL;
    X509 *x = chain ? find_issuer(leaf, chain) : NULL;
    if (!x && gw_cert_chain(&roots, trust, NULL) == 0)
        x = find_issuer(leaf, roots);
    if (!x)
        return false;
    int n = i2d_X509_NAME(X509_get_subject_name(x), &p);
    if (n > 0)
        buf_put(subject, p, (size_t)n);
    OPENSSL_free(p);
    p = NULL;
    n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &p);
    if (n > 0)
        buf_put(key, p, (size_t)n);
    OPENSSL_free(p);
    return subject->n > 0 && key->n > 0;
}

/* ---- keys ---- */

int gw_key_new(EVP_PKEY **ret, struct err *e)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    if (!key)
        return gw_ssl_error(e, "make a key");
    *ret = key;
    return 0;
}

static int take_bio(BIO *b, struct buf *out, struct err *e)
{
    char *p = NULL;
    long n = BIO_get_mem_data(b, &p);
    if (n <= 0)
        return err_set(e, ERR_INTERNAL, "empty PEM text");
    buf_put(out, p, (size_t)n);
    return out->failed ? err_set(e, ERR_NOMEM, "out of memory") : 0;
}

void gw_seal_done(struct gw_seal *s)
{
    OPENSSL_cleanse(s, sizeof *s);
}

/* The passphrases have 256 random bits: stretching them with many rounds would gain nothing. */
static bool put_sealed(BIO *b, EVP_PKEY *key, const char *pass)
{
    return !pass[0] ||
           PEM_write_bio_PKCS8PrivateKey(b, key, EVP_aes_256_cbc(), pass, (int)strlen(pass), NULL, NULL) == 1;
}

int gw_key_pem(EVP_PKEY *key, const struct gw_seal *seal, struct buf *out, struct err *e)
{
    _cleanup_(BIO_freep) BIO *b = BIO_new(BIO_s_secmem());
    bool ok = b != NULL;
    if (ok && seal && !gw_seal_none(seal))
        ok = put_sealed(b, key, seal->unlock) && put_sealed(b, key, seal->store);
    else if (ok)
        ok = PEM_write_bio_PKCS8PrivateKey(b, key, NULL, NULL, 0, NULL, NULL) == 1;
    return ok ? take_bio(b, out, e) : gw_ssl_error(e, "write the key");
}

/* rounds - of PBKDF2: what a file says costs this much time. */
static long rounds(const X509_SIG *sig)
{
    const X509_ALGOR *alg;
    const ASN1_OBJECT *oid;
    const void *param;
    int type;
    long n = -1;
    X509_SIG_get0(sig, &alg, NULL);
    X509_ALGOR_get0(&oid, &type, &param, alg);
    PBE2PARAM *pbe = OBJ_obj2nid(oid) == NID_pbes2 && type == V_ASN1_SEQUENCE
                         ? ASN1_item_unpack(param, ASN1_ITEM_rptr(PBE2PARAM))
                         : NULL;
    PBKDF2PARAM *kdf = NULL;
    if (pbe) {
        X509_ALGOR_get0(&oid, &type, &param, pbe->keyfunc);
        if (OBJ_obj2nid(oid) == NID_id_pbkdf2 && type == V_ASN1_SEQUENCE)
            kdf = ASN1_item_unpack(param, ASN1_ITEM_rptr(PBKDF2PARAM));
    }
    if (kdf)
        n = ASN1_INTEGER_get(kdf->iter);
    PBKDF2PARAM_free(kdf);
    PBE2PARAM_free(pbe);
    return n;
}

static EVP_PKEY *unseal(const X509_SIG *sig, const char *pass)
{
    PKCS8_PRIV_KEY_INFO *info = pass[0] ? PKCS8_decrypt(sig, pass, (int)strlen(pass)) : NULL;
    EVP_PKEY *key = info ? EVP_PKCS82PKEY(info) : NULL;
    PKCS8_PRIV_KEY_INFO_free(info);
    return key;
}

/* key_of - the key in one PEM block; NULL. */
static EVP_PKEY *key_of(const char *name, const unsigned char *der, long n, const struct gw_seal *seal, bool *sealed)
{
    const unsigned char *p = der;
    EVP_PKEY *key = NULL;
    *sealed = strcmp(name, PEM_STRING_PKCS8) == 0;
    if (!*sealed)
        return strcmp(name, PEM_STRING_PKCS8INF) == 0 || strcmp(name, PEM_STRING_ECPRIVATEKEY) == 0
                   ? d2i_AutoPrivateKey(NULL, &p, n)
                   : NULL;
    X509_SIG *sig = seal ? d2i_X509_SIG(NULL, &p, n) : NULL;
    long work = sig ? rounds(sig) : -1;
    if (work > 0 && work <= ROUNDS_MAX) {
        key = unseal(sig, seal->unlock);
        if (!key)
            key = unseal(sig, seal->store);
    }
    X509_SIG_free(sig);
    return key;
}

int gw_key_parse(EVP_PKEY **ret, struct str pem, const struct gw_seal *seal, bool *ret_sealed, struct err *e)
{
    if (pem.n > KEY_TEXT_MAX)
        return err_set(e, ERR_CORRUPT, "the key: text too long");
    _cleanup_(BIO_freep) BIO *b = BIO_new_mem_buf(pem.p ? pem.p : "", (int)pem.n);
    EVP_PKEY *key = NULL;
    bool any = false;
    for (int i = 0; b && !key && i < KEY_COPIES_MAX; i++) {
        char *name, *header;
        unsigned char *der;
        bool sealed = false;
        long n;
        if (PEM_read_bio(b, &name, &header, &der, &n) != 1)
            break;
        key = header[0] ? NULL : key_of(name, der, n, seal, &sealed);
        any = any || sealed;
        OPENSSL_clear_free(der, (size_t)n);
        OPENSSL_free(name);
        OPENSSL_free(header);
    }
    if (ret_sealed)
        *ret_sealed = any;
    ERR_clear_error();
    if (key && !EVP_PKEY_is_a(key, "EC")) {
        EVP_PKEY_free(key);
        return err_set(e, ERR_CORRUPT, "the key: not an elliptic curve's");
    }
    if (!key)
        return any ? err_set(e, ERR_DENIED, "the node's key is sealed: the swarm's unlock key is needed")
                   : err_set(e, ERR_CORRUPT, "the key: no PEM private key");
    *ret = key;
    return 0;
}

void gw_secret_done(struct buf *b)
{
    if (b->p)
        OPENSSL_cleanse(b->p, b->cap);
    buf_done(b);
}

int gw_csr(EVP_PKEY *key, struct buf *out, struct err *e)
{
    _cleanup_(BIO_freep) BIO *b = BIO_new(BIO_s_mem());
    X509_REQ *q = X509_REQ_new();
    bool ok = b && q && X509_REQ_set_version(q, X509_REQ_VERSION_1) == 1 && X509_REQ_set_pubkey(q, key) == 1 &&
              X509_REQ_sign(q, key, EVP_sha256()) > 0 && PEM_write_bio_X509_REQ(b, q) == 1;
    X509_REQ_free(q);
    return ok ? take_bio(b, out, e) : gw_ssl_error(e, "make a certificate request");
}

int gw_proof(EVP_PKEY *key, struct str text, struct buf *out, struct err *e)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    unsigned char sig[256];
    size_t n = sizeof sig;
    bool ok = ctx && EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
              EVP_DigestSign(ctx, sig, &n, (const unsigned char *)text.p, text.n) == 1;
    EVP_MD_CTX_free(ctx);
    if (!ok)
        return gw_ssl_error(e, "sign with the old key");
    buf_put(out, sig, n);
    return 0;
}

int64_t gw_renew_at(const struct gw_cert_info *c, uint64_t random)
{
    int64_t life = c->not_after - c->not_before;
    if (life < 10)
        return c->not_after;
    return c->not_before + life / 2 + (int64_t)(random % (uint64_t)(life * 3 / 10));
}

/* ---- join tokens ---- */

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'z' ? c - 'a' + 10 : -1;
}

/* Base 36 into a big-endian number of n bytes; false on another character or overflow. */
static bool from_base36(struct str text, uint8_t *ret, size_t n)
{
    memset(ret, 0, n);
    for (size_t i = 0; i < text.n; i++) {
        int carry = digit(text.p[i]);
        if (carry < 0)
            return false;
        for (size_t k = n; k-- > 0;) {
            carry += ret[k] * 36;
            ret[k] = (uint8_t)carry;
            carry >>= 8;
        }
        if (carry != 0)
            return false;
    }
    return true;
}

bool gw_token_digest(struct str token, uint8_t ret[GW_DIGEST_BYTES])
{
    uint8_t secret[17];
    const size_t prefix = sizeof TOKEN_PREFIX - 1;
    if (token.n != prefix + DIGEST_DIGITS + 1 + SECRET_DIGITS || !str_starts(token, STR(TOKEN_PREFIX)) ||
        token.p[prefix + DIGEST_DIGITS] != '-')
        return false;
    bool ok = from_base36((struct str){ token.p + prefix + DIGEST_DIGITS + 1, SECRET_DIGITS }, secret, sizeof secret);
    OPENSSL_cleanse(secret, sizeof secret);
    return ok && from_base36((struct str){ token.p + prefix, DIGEST_DIGITS }, ret, GW_DIGEST_BYTES);
}

void gw_digest(struct str pem, uint8_t ret[GW_DIGEST_BYTES])
{
    unsigned n = GW_DIGEST_BYTES;
    if (EVP_Digest(pem.p, pem.n, ret, &n, EVP_sha256(), NULL) != 1)
        memset(ret, 0, GW_DIGEST_BYTES);
}
