/* Certificates: what is signed and what is refused, checked with OpenSSL's own strict verification. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>

#include "cad/ca_cert.h"
#include "cad/ca_root.h"
#include "common/util/check.h"

#define NOW 1795189537ll
#define DAY 86400ll

static struct ca_root root, other;
static EVP_PKEY *node;
static struct buf csr;

static void put_bio(BIO *b, struct buf *ret)
{
    char *p;
    long n = BIO_get_mem_data(b, &p);
    buf_put(ret, p, (size_t)n);
    BIO_free(b);
}

static void make_csr(EVP_PKEY *key, EVP_PKEY *signer, struct buf *ret)
{
    X509_REQ *q = X509_REQ_new();
    BIO *b = BIO_new(BIO_s_mem());
    X509_NAME *name = X509_REQ_get_subject_name(q);
    /* names that a node would like to have, none of which it gets */
    assert_int_equal(
        X509_NAME_add_entry_by_txt(name, "OU", MBSTRING_ASC, (const unsigned char *)"swarm-manager", -1, -1, 0), 1);
    assert_true(X509_REQ_set_pubkey(q, key) == 1 && X509_REQ_sign(q, signer, EVP_sha256()) > 0 &&
                PEM_write_bio_X509_REQ(b, q) == 1);
    put_bio(b, ret);
    X509_REQ_free(q);
}

static int setup(void **state)
{
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(ca_root_make(&root, NOW, &e), 0);
    assert_int_equal(ca_root_make(&other, NOW, &e), 0);
    node = EVP_EC_gen("P-256");
    make_csr(node, node, &csr);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ca_root_done(&root);
    ca_root_done(&other);
    EVP_PKEY_free(node);
    buf_done(&csr);
    return 0;
}

static struct str cert_of(const struct ca_root *r)
{
    return buf_str(&r->cert_pem);
}

static struct str key_of(const struct ca_root *r)
{
    return buf_str(&r->key_pem);
}

static X509 *read_cert(struct str pem)
{
    BIO *b = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509 *x = PEM_read_bio_X509(b, NULL, NULL, NULL);
    BIO_free(b);
    assert_non_null(x);
    return x;
}

static struct ca_leaf leaf(const char *id, bool manager, int64_t life_s)
{
    return (struct ca_leaf){ str_from(id), STR("swarm7"), manager, NOW, life_s };
}

/* verify - as `openssl verify -x509_strict -CAfile trust -untrusted middle`. */
static int verify(struct str trust, struct str middle, struct str cert, int purpose, int64_t now)
{
    X509_STORE *s = X509_STORE_new();
    X509_STORE_CTX *c = X509_STORE_CTX_new();
    STACK_OF(X509) *more = sk_X509_new_null();
    X509 *x = read_cert(cert), *r = read_cert(trust);
    if (middle.n > 0)
        sk_X509_push(more, read_cert(middle));
    X509_STORE_add_cert(s, r);
    X509_STORE_CTX_init(c, s, x, more);
    X509_VERIFY_PARAM_set_time(X509_STORE_CTX_get0_param(c), now);
    X509_STORE_CTX_set_flags(c, X509_V_FLAG_X509_STRICT | X509_V_FLAG_CHECK_SS_SIGNATURE | X509_V_FLAG_POLICY_CHECK);
    X509_STORE_CTX_set_purpose(c, purpose);
    int result = X509_verify_cert(c) == 1 ? X509_V_OK : X509_STORE_CTX_get_error(c);
    X509_STORE_CTX_free(c);
    X509_STORE_free(s);
    sk_X509_pop_free(more, X509_free);
    X509_free(x);
    X509_free(r);
    ERR_clear_error();
    return result;
}

static void test_leaf(void **state)
{
    struct ca_leaf l = leaf("node1", true, 30 * DAY);
    struct ca_info i = { .cn = "" };
    struct buf cert = BUF_INIT;
    struct err e = ERR_INIT;
    uint8_t key[CA_KEY_DIGEST];
    (void)state;
    assert_int_equal(ca_sign(cert_of(&root), key_of(&root), buf_str(&csr), &l, &cert, &e), 0);
    assert_int_equal(verify(cert_of(&root), STR(""), buf_str(&cert), X509_PURPOSE_SSL_SERVER, NOW), X509_V_OK);
    assert_int_equal(verify(cert_of(&root), STR(""), buf_str(&cert), X509_PURPOSE_SSL_CLIENT, NOW), X509_V_OK);
    assert_int_not_equal(verify(cert_of(&other), STR(""), buf_str(&cert), X509_PURPOSE_SSL_CLIENT, NOW), X509_V_OK);
    assert_int_equal(verify(cert_of(&root), STR(""), buf_str(&cert), X509_PURPOSE_SSL_CLIENT, NOW + 31 * DAY),
                     X509_V_ERR_CERT_HAS_EXPIRED);
    assert_int_equal(verify(cert_of(&root), STR(""), buf_str(&cert), X509_PURPOSE_SSL_CLIENT, NOW - 3000), X509_V_OK);
    assert_int_equal(verify(cert_of(&root), STR(""), buf_str(&cert), X509_PURPOSE_SSL_CLIENT, NOW - 4000),
                     X509_V_ERR_CERT_NOT_YET_VALID);
    assert_int_equal(ca_info(buf_str(&cert), &i, &e), 0);
    assert_string_equal(i.cn, "node1");
    assert_string_equal(i.org, "swarm7");
    assert_string_equal(i.unit, "swarm-manager");
    assert_int_equal(i.not_before_s, NOW - 3600);
    assert_int_equal(i.not_after_s, NOW + 30 * DAY);
    assert_int_equal(ca_csr_check(buf_str(&csr), key, &e), 0);
    assert_memory_equal(i.key, key, sizeof key);
    ca_info_done(&i);
    X509 *x = read_cert(buf_str(&cert));
    char name[100];
    X509_NAME_oneline(X509_get_subject_name(x), name, sizeof name);
    assert_string_equal(name, "/O=swarm7/OU=swarm-manager/CN=node1");
    assert_int_equal(X509_get_key_usage(x), KU_DIGITAL_SIGNATURE | KU_KEY_ENCIPHERMENT);
    assert_int_equal(X509_get_extended_key_usage(x), XKU_SSL_SERVER | XKU_SSL_CLIENT);
    assert_int_equal(X509_check_ca(x), 0);
    static const char *const hosts[] = { "swarm-manager", "node1", "swarm-ca" };
    for (unsigned k = 0; k < 3; k++)
        assert_int_equal(X509_check_host(x, hosts[k], 0, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, NULL), 1);
    assert_int_equal(X509_check_host(x, "swarm-worker", 0, 0, NULL), 0);
    X509_free(x);
    /* a worker has fewer names, whatever its request says */
    l = leaf("node2", false, 30 * DAY);
    buf_clear(&cert);
    assert_int_equal(ca_sign(cert_of(&root), key_of(&root), buf_str(&csr), &l, &cert, &e), 0);
    x = read_cert(buf_str(&cert));
    X509_NAME_oneline(X509_get_subject_name(x), name, sizeof name);
    assert_string_equal(name, "/O=swarm7/OU=swarm-worker/CN=node2");
    assert_int_equal(X509_check_host(x, "swarm-worker", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(x, "swarm-ca", 0, 0, NULL), 0);
    assert_int_equal(X509_check_host(x, "swarm-manager", 0, 0, NULL), 0);
    X509_free(x);
    buf_done(&cert);
}

static int64_t life(int64_t wanted_s, int64_t now_s)
{
    struct ca_leaf l = leaf("node1", false, wanted_s);
    struct ca_info i = { .cn = "" };
    struct buf cert = BUF_INIT;
    struct err e = ERR_INIT;
    l.now_s = now_s;
    assert_int_equal(ca_sign(cert_of(&root), key_of(&root), buf_str(&csr), &l, &cert, &e), 0);
    assert_int_equal(ca_info(buf_str(&cert), &i, &e), 0);
    ca_info_done(&i);
    buf_done(&cert);
    return i.not_after_s - now_s;
}

static void test_life(void **state)
{
    (void)state;
    assert_int_equal(life(3600, NOW), 3600);
    assert_int_equal(life(3599, NOW), 90 * DAY);
    assert_int_equal(life(0, NOW), 90 * DAY);
    assert_int_equal(life(10000 * DAY, NOW), 20ll * 365 * DAY); /* not beyond the root */
    assert_int_equal(life(90 * DAY, NOW + 20ll * 365 * DAY - 100), 100);
    /* nor from before it: a root that somebody has made just now is not backdated */
    struct ca_leaf l = leaf("node1", false, DAY);
    struct ca_info i = { .cn = "" };
    struct buf cert = BUF_INIT;
    struct err e = ERR_INIT;
    l.now_s = NOW - 1800;
    assert_int_equal(ca_sign(cert_of(&root), key_of(&root), buf_str(&csr), &l, &cert, &e), 0);
    assert_int_equal(ca_info(buf_str(&cert), &i, &e), 0);
    assert_int_equal(i.not_before_s, NOW - 3600);
    ca_info_done(&i);
    buf_done(&cert);
}

static EVP_PKEY *make_key(const char *type, const char *curve, bool spelled_out)
{
    EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    EVP_PKEY *key = NULL;
    assert_int_equal(EVP_PKEY_keygen_init(c), 1);
    if (curve)
        assert_int_equal(EVP_PKEY_CTX_set_group_name(c, curve), 1);
    if (spelled_out)
        assert_int_equal(EVP_PKEY_CTX_set_ec_param_enc(c, OPENSSL_EC_EXPLICIT_CURVE), 1);
    assert_int_equal(EVP_PKEY_keygen(c, &key), 1);
    EVP_PKEY_CTX_free(c);
    return key;
}

static void test_keys(void **state)
{
    static const struct {
        const char *type, *curve;
        bool spelled_out, ok;
    } all[] = { { "EC", "P-256", false, true },      { "EC", "P-384", false, true },  { "EC", "P-521", false, true },
                { "EC", "secp256k1", false, false }, { "EC", "P-224", false, false }, { "EC", "P-256", true, false },
                { "RSA", NULL, false, false } };
    uint8_t digest[CA_KEY_DIGEST];
    struct err e = ERR_INIT;
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        EVP_PKEY *key = make_key(all[i].type, all[i].curve, all[i].spelled_out);
        struct buf q = BUF_INIT;
        make_csr(key, key, &q);
        assert_int_equal(ca_csr_check(buf_str(&q), digest, &e), all[i].ok ? 0 : -ERR_INVALID);
        if (!all[i].ok)
            assert_non_null(strstr(e.msg, "P-256, P-384 or P-521"));
        buf_done(&q);
        EVP_PKEY_free(key);
    }
}

static void test_bad_requests(void **state)
{
    uint8_t digest[CA_KEY_DIGEST];
    struct err e = ERR_INIT;
    struct buf q = BUF_INIT;
    EVP_PKEY *stranger = EVP_EC_gen("P-256");
    (void)state;
    make_csr(node, stranger, &q); /* somebody else's key in the request */
    assert_int_equal(ca_csr_check(buf_str(&q), digest, &e), -ERR_INVALID);
    assert_non_null(strstr(e.msg, "not signed with its own key"));
    buf_clear(&q);
    buf_put(&q, csr.p, csr.n);
    buf_puts(&q, "\n \n");
    assert_int_equal(ca_csr_check(buf_str(&q), digest, &e), 0);
    buf_puts(&q, "x");
    assert_int_equal(ca_csr_check(buf_str(&q), digest, &e), -ERR_INVALID);
    assert_int_equal(ca_csr_check(STR(""), digest, &e), -ERR_INVALID);
    assert_int_equal(ca_csr_check(cert_of(&root), digest, &e), -ERR_INVALID);
    for (size_t n = 0; n < csr.n - 30; n += 7) /* cut short anywhere */
        assert_int_equal(ca_csr_check((struct str){ csr.p, n }, digest, &e), -ERR_INVALID);
    /* encrypted: OpenSSL would ask at the terminal */
    assert_int_equal(ca_csr_check(STR("-----BEGIN CERTIFICATE REQUEST-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: "
                                      "AES-256-CBC,00112233445566778899AABBCCDDEEFF\n\nAAAA\n-----END CERTIFICATE "
                                      "REQUEST-----\n"),
                                  digest, &e),
                     -ERR_INVALID);
    buf_done(&q);
    EVP_PKEY_free(stranger);
}

/* Who trusts the old root believes what the new one signs, and the other way round nothing changes. */
static void test_cross(void **state)
{
    struct ca_leaf l = leaf("node1", false, DAY);
    struct buf cross = BUF_INIT, cert = BUF_INIT;
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(ca_cross_sign(cert_of(&root), key_of(&root), cert_of(&other), NOW, &cross, &e), 0);
    assert_int_equal(ca_cross_check(buf_str(&cross), cert_of(&root), cert_of(&other), &e), 0);
    assert_int_equal(ca_cross_check(buf_str(&cross), cert_of(&other), cert_of(&root), &e), -ERR_INVALID);
    assert_int_equal(ca_cross_check(cert_of(&other), cert_of(&root), cert_of(&other), &e), -ERR_INVALID);
    assert_int_equal(ca_sign(cert_of(&other), key_of(&other), buf_str(&csr), &l, &cert, &e), 0);
    assert_int_equal(verify(cert_of(&root), buf_str(&cross), buf_str(&cert), X509_PURPOSE_SSL_SERVER, NOW), X509_V_OK);
    assert_int_equal(verify(cert_of(&other), buf_str(&cross), buf_str(&cert), X509_PURPOSE_SSL_SERVER, NOW), X509_V_OK);
    assert_int_equal(verify(cert_of(&other), STR(""), buf_str(&cert), X509_PURPOSE_SSL_SERVER, NOW), X509_V_OK);
    assert_int_not_equal(verify(cert_of(&root), STR(""), buf_str(&cert), X509_PURPOSE_SSL_SERVER, NOW), X509_V_OK);
    /* a key that does not belong to the root signs nothing */
    assert_true(ca_cross_sign(cert_of(&root), key_of(&other), cert_of(&other), NOW, &cross, &e) < 0);
    assert_true(ca_sign(cert_of(&root), key_of(&other), buf_str(&csr), &l, &cert, &e) < 0);
    buf_done(&cross);
    buf_done(&cert);
}

/* The program itself is of the same opinion. */
static void test_openssl_verify(void **state)
{
    struct ca_leaf l = leaf("node1", true, DAY);
    struct buf cross = BUF_INIT, cert = BUF_INIT;
    struct err e = ERR_INIT;
    char dir[] = "/tmp/cad-cert-XXXXXX", cmd[600];
    const struct {
        const char *name;
        const struct buf *text;
    } files[] = { { "old", &root.cert_pem }, { "new", &other.cert_pem }, { "cross", &cross }, { "leaf", &cert } };
    (void)state;
    assert_int_equal(ca_cross_sign(cert_of(&root), key_of(&root), cert_of(&other), NOW, &cross, &e), 0);
    assert_int_equal(ca_sign(cert_of(&other), key_of(&other), buf_str(&csr), &l, &cert, &e), 0);
    assert_non_null(mkdtemp(dir));
    for (unsigned i = 0; i < 4; i++) {
        snprintf(cmd, sizeof cmd, "%s/%s", dir, files[i].name);
        FILE *f = fopen(cmd, "w");
        assert_non_null(f);
        assert_int_equal(fwrite(files[i].text->p, 1, files[i].text->n, f), files[i].text->n);
        fclose(f);
    }
    snprintf(
        cmd, sizeof cmd,
        "cd %s && openssl verify -x509_strict -attime %lld -CAfile old old >/dev/null && "
        "openssl verify -x509_strict -attime %lld -purpose sslserver -CAfile new leaf >/dev/null && "
        "openssl verify -x509_strict -attime %lld -purpose sslserver -CAfile old -untrusted cross leaf >/dev/null && "
        "! openssl verify -x509_strict -attime %lld -CAfile old leaf >/dev/null 2>&1",
        dir, NOW, NOW, NOW, NOW);
    assert_int_equal(system(cmd), 0);
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    assert_int_equal(system(cmd), 0);
    buf_done(&cross);
    buf_done(&cert);
}

static void test_root_check(void **state)
{
    struct ca_leaf l = leaf("node1", true, 400 * DAY);
    struct buf two = BUF_INIT, cert = BUF_INIT;
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(ca_root_check(cert_of(&other), key_of(&other), NOW, &e), 0);
    assert_int_equal(ca_root_check(cert_of(&other), STR(""), NOW, &e), 0);
    assert_int_equal(ca_root_check(cert_of(&other), key_of(&root), NOW, &e), -ERR_INVALID);
    assert_int_equal(ca_root_check(cert_of(&other), STR("x"), NOW, &e), -ERR_INVALID);
    assert_int_equal(ca_root_check(STR(""), key_of(&root), NOW, &e), -ERR_INVALID);
    assert_int_equal(ca_root_check(cert_of(&other), STR(""), NOW + 19ll * 365 * DAY + DAY, &e), -ERR_INVALID);
    assert_string_equal(e.msg, "CA certificate expires too soon");
    assert_int_equal(ca_root_check(cert_of(&other), STR(""), NOW - 2 * DAY, &e), -ERR_INVALID);
    buf_put(&two, other.cert_pem.p, other.cert_pem.n);
    buf_put(&two, root.cert_pem.p, root.cert_pem.n);
    assert_int_equal(ca_root_check(buf_str(&two), STR(""), NOW, &e), -ERR_INVALID);
    assert_non_null(strstr(e.msg, "more than one certificate"));
    assert_int_equal(ca_sign(cert_of(&root), key_of(&root), buf_str(&csr), &l, &cert, &e), 0);
    assert_int_equal(ca_root_check(buf_str(&cert), STR(""), NOW, &e), -ERR_INVALID);
    buf_clear(&cert);
    assert_int_equal(ca_cross_sign(cert_of(&root), key_of(&root), cert_of(&other), NOW, &cert, &e), 0);
    assert_int_equal(ca_root_check(buf_str(&cert), STR(""), NOW, &e), -ERR_INVALID);
    assert_non_null(strstr(e.msg, "not self-signed"));
    buf_done(&two);
    buf_done(&cert);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_leaf),         cmocka_unit_test(test_life),  cmocka_unit_test(test_keys),
        cmocka_unit_test(test_bad_requests), cmocka_unit_test(test_cross), cmocka_unit_test(test_openssl_verify),
        cmocka_unit_test(test_root_check),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
