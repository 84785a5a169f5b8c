/* ca_x509.c - see ca_priv.h. */
#include <ctype.h>
#include <stdio.h>

#include "cad/ca_priv.h"

#define SERIAL_BYTES 20

int ca_ssl_err(struct err *e, const char *what)
{
    char text[200];
    unsigned long first = ERR_get_error();

    ERR_error_string_n(first, text, sizeof text);
    ERR_clear_error();
    return err_set(e, ERR_INTERNAL, "%s: %s", what, first ? text : "failed");
}

int ca_add_extension(X509 *x, int nid, const char *value, struct err *e)
{
    X509V3_CTX ctx;

    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, x, x, NULL, NULL, 0);
    _cleanup_(X509_EXTENSION_freep) X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    if (!ext || X509_add_ext(x, ext, -1) != 1)
        return ca_ssl_err(e, "certificate extension");
    return 0;
}

/* Roots of a swarm all have the same name: without this, one can't tell by which of them a certificate was signed. */
int ca_add_issuer_key(X509 *x, X509 *issuer, struct err *e)
{
    const ASN1_OCTET_STRING *have = X509_get0_subject_key_id(issuer);
    AUTHORITY_KEYID *id = AUTHORITY_KEYID_new();
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    bool ok = id != NULL;

    if (ok && have)
        ok = (id->keyid = ASN1_OCTET_STRING_dup(have)) != NULL;
    else if (ok)
        ok = (id->keyid = ASN1_OCTET_STRING_new()) != NULL && X509_pubkey_digest(issuer, EVP_sha1(), md, &n) == 1 &&
             ASN1_OCTET_STRING_set(id->keyid, md, (int)n) == 1;
    if (ok)
        ok = X509_add1_ext_i2d(x, NID_authority_key_identifier, id, 0, X509V3_ADD_DEFAULT) == 1;
    AUTHORITY_KEYID_free(id);
    return ok ? 0 : ca_ssl_err(e, "authority key identifier");
}

int ca_set_serial(X509 *x, struct err *e)
{
    unsigned char bytes[SERIAL_BYTES];
    BIGNUM *n;

    if (RAND_bytes(bytes, sizeof bytes) != 1)
        return ca_ssl_err(e, "serial number");
    bytes[0] &= 0x7f; /* positive in 20 bytes, RFC 5280 §4.1.2.2 */
    n = BN_bin2bn(bytes, sizeof bytes, NULL);
    bool ok = n && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x));
    BN_free(n);
    return ok ? 0 : ca_ssl_err(e, "serial number");
}

int ca_put_cert(X509 *x, struct buf *ret_pem, struct err *e)
{
    _cleanup_(BIO_freep) BIO *b = BIO_new(BIO_s_mem());
    char *p = NULL;
    long n;

    if (!b || PEM_write_bio_X509(b, x) != 1 || (n = BIO_get_mem_data(b, &p)) <= 0)
        return ca_ssl_err(e, "write the certificate");
    buf_put(ret_pem, p, (size_t)n);
    return ret_pem->failed ? err_set(e, ERR_NOMEM, "out of memory") : 0;
}

/* OpenSSL would ask at the terminal for the password of an encrypted object. */
static int no_password(char *buf, int size, int rw, void *arg)
{
    (void)buf, (void)size, (void)rw, (void)arg;
    return -1;
}

static BIO *text_bio(struct str pem)
{
    return pem.n > 0 && pem.n < INT32_MAX ? BIO_new_mem_buf(pem.p, (int)pem.n) : NULL;
}

static bool only_blanks_left(BIO *b)
{
    char *p = NULL;
    long n = BIO_get_mem_data(b, &p);

    for (long i = 0; i < n; i++)
        if (!isspace((unsigned char)p[i]))
            return false;
    return true;
}

static int refused(struct err *e, const char *what)
{
    ERR_clear_error();
    return err_set(e, ERR_INVALID, "%s", what);
}

int ca_read_cert(struct str pem, X509 **ret, struct err *e)
{
    _cleanup_(BIO_freep) BIO *b = text_bio(pem);
    _cleanup_(X509_freep) X509 *x = b ? PEM_read_bio_X509(b, NULL, no_password, NULL) : NULL;

    if (!x)
        return refused(e, "not a certificate in PEM form");
    if (!only_blanks_left(b))
        return refused(e, "more than one certificate, or something else behind it");
    *ret = TAKE(x);
    return 0;
}

int ca_read_key(struct str pem, EVP_PKEY **ret, struct err *e)
{
    _cleanup_(BIO_freep) BIO *b = text_bio(pem);
    _cleanup_(EVP_PKEY_freep) EVP_PKEY *key = b ? PEM_read_bio_PrivateKey(b, NULL, no_password, NULL) : NULL;

    if (!key)
        return refused(e, "not a private key in PEM form without a password");
    *ret = TAKE(key);
    return 0;
}

int ca_read_csr(struct str pem, X509_REQ **ret, struct err *e)
{
    _cleanup_(BIO_freep) BIO *b = text_bio(pem);
    _cleanup_(X509_REQ_freep) X509_REQ *q = b ? PEM_read_bio_X509_REQ(b, NULL, no_password, NULL) : NULL;

    if (!q)
        return refused(e, "not a certificate request in PEM form");
    if (!only_blanks_left(b))
        return refused(e, "something is behind the certificate request");
    *ret = TAKE(q);
    return 0;
}
