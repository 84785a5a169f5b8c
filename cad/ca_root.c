/* ca_root.c - see ca_root.h. */
#include "cad/ca_root.h"

#include "cad/ca_priv.h"

#define ROOT_LIFE_S (20ll * 365 * 24 * 3600)

static int build(X509 *x, EVP_PKEY *key, int64_t now_s, struct err *e)
{
    X509_NAME *name = X509_get_subject_name(x);

    if (X509_set_version(x, X509_VERSION_3) != 1 || ca_set_serial(x, e) < 0)
        return ca_ssl_err(e, "certificate");
    if (!ASN1_TIME_set(X509_getm_notBefore(x), now_s - CA_BACKDATE_S) ||
        !ASN1_TIME_set(X509_getm_notAfter(x), now_s + ROOT_LIFE_S) ||
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"swarm-ca", -1, -1, 0) != 1 ||
        X509_set_issuer_name(x, name) != 1 || X509_set_pubkey(x, key) != 1)
        return ca_ssl_err(e, "certificate");
    int r = ca_add_extension(x, NID_key_usage, "critical,keyCertSign,cRLSign", e);
    if (r == 0)
        r = ca_add_extension(x, NID_basic_constraints, "critical,CA:TRUE", e);
    if (r == 0)
        r = ca_add_extension(x, NID_subject_key_identifier, "hash", e);
    if (r == 0 && X509_sign(x, key, EVP_sha256()) <= 0)
        r = ca_ssl_err(e, "sign the root certificate");
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
        return ca_ssl_err(e, "write PEM");
    int r = take_bio(cert, &ret->cert_pem, e);
    return r < 0 ? r : take_bio(secret, &ret->key_pem, e);
}

static int export_der(X509 *x, struct ca_root *ret, struct err *e)
{
    unsigned char *p = NULL;
    int n = i2d_X509_NAME(X509_get_subject_name(x), &p);

    if (n <= 0)
        return ca_ssl_err(e, "subject");
    buf_put(&ret->subject, p, (size_t)n);
    OPENSSL_free(p);
    p = NULL;
    n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &p);
    if (n <= 0)
        return ca_ssl_err(e, "public key");
    buf_put(&ret->public_key, p, (size_t)n);
    OPENSSL_free(p);
    return 0;
}

int ca_root_make(struct ca_root *ret, int64_t now_s, struct err *e)
{
    _cleanup_(EVP_PKEY_freep) EVP_PKEY *key = EVP_EC_gen("P-256");
    _cleanup_(X509_freep) X509 *x = X509_new();

    if (!key || !x)
        return ca_ssl_err(e, "make the root key");
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
