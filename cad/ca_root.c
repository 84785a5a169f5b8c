/* OpenSSL's signs turned into ours: 1 is success there. */
#include "cad/ca_root.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#define ROOT_LIFE_S (20ll * 365 * 24 * 3600)
#define ROOT_BACKDATE_S 3600ll /* nodes' clocks may be behind */
#define SERIAL_BYTES 20

DEFINE_CLEANUP(X509 *, X509_free)
DEFINE_CLEANUP(EVP_PKEY *, EVP_PKEY_free)
DEFINE_CLEANUP(BIO *, BIO_free)
DEFINE_CLEANUP(X509_EXTENSION *, X509_EXTENSION_free)

static int ssl_err(struct err *e, const char *what)
{
    char text[200];

    ERR_error_string_n(ERR_get_error(), text, sizeof text);
    ERR_clear_error();
    return err_set(e, ERR_INTERNAL, "%s: %s", what, text);
}

static int add_extension(X509 *x, int nid, const char *value, struct err *e)
{
    X509V3_CTX ctx;

    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, x, x, NULL, NULL, 0);
    _cleanup_(X509_EXTENSION_freep) X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    if (!ext || X509_add_ext(x, ext, -1) != 1)
        return ssl_err(e, "certificate extension");
    return 0;
}

static int set_serial(X509 *x, struct err *e)
{
    unsigned char bytes[SERIAL_BYTES];
    BIGNUM *n;

    if (RAND_bytes(bytes, sizeof bytes) != 1)
        return ssl_err(e, "serial number");
    bytes[0] &= 0x7f; /* positive in 20 bytes, RFC 5280 §4.1.2.2 */
    n = BN_bin2bn(bytes, sizeof bytes, NULL);
    bool ok = n && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x));
    BN_free(n);
    return ok ? 0 : ssl_err(e, "serial number");
}

static int build(X509 *x, EVP_PKEY *key, int64_t now_s, struct err *e)
{
    X509_NAME *name = X509_get_subject_name(x);

    if (X509_set_version(x, X509_VERSION_3) != 1 || set_serial(x, e) < 0)
        return ssl_err(e, "certificate");
    if (!ASN1_TIME_set(X509_getm_notBefore(x), now_s - ROOT_BACKDATE_S) ||
        !ASN1_TIME_set(X509_getm_notAfter(x), now_s + ROOT_LIFE_S) ||
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"swarm-ca", -1, -1, 0) != 1 ||
        X509_set_issuer_name(x, name) != 1 || X509_set_pubkey(x, key) != 1)
        return ssl_err(e, "certificate");
    int r = add_extension(x, NID_key_usage, "critical,keyCertSign,cRLSign", e);
    if (r == 0)
        r = add_extension(x, NID_basic_constraints, "critical,CA:TRUE", e);
    if (r == 0)
        r = add_extension(x, NID_subject_key_identifier, "hash", e);
    if (r == 0 && X509_sign(x, key, EVP_sha256()) <= 0)
        r = ssl_err(e, "sign the root certificate");
    return r;
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

static int export_pem(X509 *x, EVP_PKEY *key, struct ca_root *ret, struct err *e)
{
    _cleanup_(BIO_freep) BIO *cert = BIO_new(BIO_s_mem());
    _cleanup_(BIO_freep) BIO *secret = BIO_new(BIO_s_secmem());

    if (!cert || !secret || PEM_write_bio_X509(cert, x) != 1 ||
        PEM_write_bio_PrivateKey(secret, key, NULL, NULL, 0, NULL, NULL) != 1)
        return ssl_err(e, "write PEM");
    int r = take_bio(cert, &ret->cert_pem, e);
    return r < 0 ? r : take_bio(secret, &ret->key_pem, e);
}

static int export_der(X509 *x, struct ca_root *ret, struct err *e)
{
    unsigned char *p = NULL;
    int n = i2d_X509_NAME(X509_get_subject_name(x), &p);

    if (n <= 0)
        return ssl_err(e, "subject");
    buf_put(&ret->subject, p, (size_t)n);
    OPENSSL_free(p);
    p = NULL;
    n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &p);
    if (n <= 0)
        return ssl_err(e, "public key");
    buf_put(&ret->public_key, p, (size_t)n);
    OPENSSL_free(p);
    return 0;
}

int ca_root_make(struct ca_root *ret, int64_t now_s, struct err *e)
{
    _cleanup_(EVP_PKEY_freep) EVP_PKEY *key = EVP_EC_gen("P-256");
    _cleanup_(X509_freep) X509 *x = X509_new();

    if (!key || !x)
        return ssl_err(e, "make the root key");
    int r = build(x, key, now_s, e);
    if (r == 0)
        r = export_pem(x, key, ret, e);
    return r < 0 ? r : export_der(x, ret, e);
}

void ca_root_done(struct ca_root *c)
{
    if (c->key_pem.p)
        OPENSSL_cleanse(c->key_pem.p, c->key_pem.cap);
    buf_done(&c->key_pem);
    buf_done(&c->cert_pem);
    buf_done(&c->subject);
    buf_done(&c->public_key);
}
