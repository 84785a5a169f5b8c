/* test_ca.h - a certificate authority for tests: roots, and node certificates with whatever is wrong about them. */
#pragma once

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <time.h>

#include "common/util/check.h"
#include "gatewayd/gw_cert.h"

struct test_ca {
    EVP_PKEY *key;
    X509 *cert;
    struct buf pem;
};

static inline void test_ext(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    CHECK(e && X509_add_ext(x, e, -1) == 1);
    X509_EXTENSION_free(e);
}

static inline void test_name(X509_NAME *n, const char *field, const char *value)
{
    CHECK(!value || X509_NAME_add_entry_by_txt(n, field, MBSTRING_ASC, (const unsigned char *)value, -1, -1, 0) == 1);
}

static inline X509 *test_cert(EVP_PKEY *key, long from_s, long to_s)
{
    static long serial = 1;
    X509 *x = X509_new();
    CHECK(x && X509_set_version(x, X509_VERSION_3) == 1 && X509_set_pubkey(x, key) == 1);
    CHECK(ASN1_INTEGER_set(X509_get_serialNumber(x), serial++) == 1);
    CHECK(X509_gmtime_adj(X509_getm_notBefore(x), from_s) && X509_gmtime_adj(X509_getm_notAfter(x), to_s));
    return x;
}

static inline void test_pem(X509 *x, struct buf *out)
{
    BIO *b = BIO_new(BIO_s_mem());
    char *p;
    CHECK(b && PEM_write_bio_X509(b, x) == 1);
    long n = BIO_get_mem_data(b, &p);
    buf_put(out, p, (size_t)n);
    BIO_free(b);
}

static inline void test_ca_make(struct test_ca *ca)
{
    *ca = (struct test_ca){ .key = EVP_EC_gen("P-256") };
    ca->cert = test_cert(ca->key, -3600, 86400);
    test_name(X509_get_subject_name(ca->cert), "CN", "swarm-ca");
    CHECK(X509_set_issuer_name(ca->cert, X509_get_subject_name(ca->cert)) == 1);
    test_ext(ca->cert, ca->cert, NID_basic_constraints, "critical,CA:TRUE");
    test_ext(ca->cert, ca->cert, NID_key_usage, "critical,keyCertSign,cRLSign");
    CHECK(X509_sign(ca->cert, ca->key, EVP_sha256()) > 0);
    test_pem(ca->cert, &ca->pem);
}

static inline void test_ca_done(struct test_ca *ca)
{
    EVP_PKEY_free(ca->key);
    X509_free(ca->cert);
    buf_done(&ca->pem);
}

/* A node's certificate for @key as PEM; any of the names may be NULL. */
static inline void test_issue(const struct test_ca *ca, EVP_PKEY *key, const char *cn, const char *ou, const char *o,
                              long from_s, long to_s, struct buf *out)
{
    X509 *x = test_cert(key, from_s, to_s);
    X509_NAME *n = X509_get_subject_name(x);
    test_name(n, "O", o);
    test_name(n, "OU", ou);
    test_name(n, "CN", cn);
    CHECK(X509_set_issuer_name(x, X509_get_subject_name(ca->cert)) == 1);
    test_ext(x, ca->cert, NID_key_usage, "critical,digitalSignature,keyEncipherment");
    test_ext(x, ca->cert, NID_ext_key_usage, "serverAuth,clientAuth");
    CHECK(X509_sign(x, ca->key, EVP_sha256()) > 0);
    test_pem(x, out);
    X509_free(x);
}
