#include "gatewayd/gw_tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>

#include "common/util/check.h"

bool (*gw_tls_expired_ok)(void);

struct gw_tls_ctx {
    unsigned refs;
    bool shows; /* a certificate of ours */
    SSL_CTX *ssl;
    struct gw_cert_info info;
    uint64_t turn;
};

struct gw_tls {
    SSL *ssl;
    struct gw_tls_ctx *ctx;
    bool established;
    int verify_error;  /* X509_V_ERR_*, when the peer's certificate was refused */
    char refused[200]; /* its subject */
};

static int on_verify(int ok, X509_STORE_CTX *sc)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(sc, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct gw_tls *t = SSL_get_app_data(ssl);
    if (ok || t->verify_error != 0)
        return ok;
    if (X509_STORE_CTX_get_error(sc) == X509_V_ERR_CERT_HAS_EXPIRED && X509_STORE_CTX_get_error_depth(sc) == 0 &&
        t->ctx->shows && gw_tls_expired_ok && gw_tls_expired_ok()) {
        X509_STORE_CTX_set_error(sc, X509_V_OK);
        return 1;
    }
    X509 *leaf = X509_STORE_CTX_get0_cert(sc);
    t->verify_error = X509_STORE_CTX_get_error(sc);
    BIO *b = BIO_new(BIO_s_mem());
    char *text;
    long n = 0;
    if (leaf && b && X509_NAME_print_ex(b, X509_get_subject_name(leaf), 0, XN_FLAG_ONELINE) >= 0 &&
        (n = BIO_get_mem_data(b, &text)) > 0)
        memcpy(t->refused, text, (size_t)n < sizeof t->refused ? (size_t)n : sizeof t->refused - 1);
    BIO_free(b);
    return 0;
}

static int set_credentials(SSL_CTX *ssl, const struct gw_credentials *c, struct err *e)
{
    if (SSL_CTX_use_certificate(ssl, c->cert) != 1 || SSL_CTX_use_PrivateKey(ssl, c->key) != 1)
        return gw_ssl_error(e, "use the certificate");
    for (int i = 0; c->rest && i < sk_X509_num(c->rest); i++) {
        if (SSL_CTX_add1_chain_cert(ssl, sk_X509_value(c->rest, i)) != 1)
            return gw_ssl_error(e, "use the certificate");
    }
    return 0;
}

static int set_trust(SSL_CTX *ssl, struct str trust, struct err *e)
{
    _cleanup_(gw_cert_chain_freep) STACK_OF(X509) *roots = NULL;
    int r = gw_cert_chain(&roots, trust, e);
    for (int i = 0; r == 0 && i < sk_X509_num(roots); i++) {
        if (X509_STORE_add_cert(SSL_CTX_get_cert_store(ssl), sk_X509_value(roots, i)) != 1)
            r = gw_ssl_error(e, "use the root certificates");
    }
    return r;
}

static int ctx_new(struct gw_tls_ctx **ret, const struct gw_credentials *c, bool certificate, struct err *e)
{
    static uint64_t turns;
    struct gw_tls_ctx *x = calloc(1, sizeof *x);
    int r = 0;
    CHECK(x != NULL);
    x->refs = 1;
    x->turn = ++turns;
    x->info.role = RPC_NOBODY;
    x->ssl = SSL_CTX_new(TLS_method());
    if (!x->ssl) {
        free(x);
        return gw_ssl_error(e, "TLS");
    }
    SSL_CTX_set_options(x->ssl, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_session_cache_mode(x->ssl, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(x->ssl,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(x->ssl, 1);
    if (SSL_CTX_set_min_proto_version(x->ssl, TLS1_3_VERSION) != 1 || SSL_CTX_set_num_tickets(x->ssl, 0) != 1 ||
        SSL_CTX_set_max_cert_list(x->ssl, 64 << 10) < 0)
        r = gw_ssl_error(e, "TLS");
    if (r == 0 && c && certificate) {
        x->info = c->info;
        x->shows = true;
        r = set_credentials(x->ssl, c, e);
    }
    if (r == 0 && c)
        r = set_trust(x->ssl, buf_str(&c->trust), e);
    if (r == 0 && c) {
        SSL_CTX_set_verify(x->ssl, SSL_VERIFY_PEER, on_verify);
    }
    if (r < 0) {
        gw_tls_ctx_unref(x);
        return r;
    }
    *ret = x;
    return 0;
}

int gw_tls_ctx_new(struct gw_tls_ctx **ret, const struct gw_credentials *c, struct err *e)
{
    return ctx_new(ret, c, true, e);
}

int gw_tls_ctx_anonymous(struct gw_tls_ctx **ret, const struct gw_credentials *c, struct err *e)
{
    return ctx_new(ret, c, false, e);
}

const struct gw_cert_info *gw_tls_ctx_info(const struct gw_tls_ctx *c)
{
    return &c->info;
}

uint64_t gw_tls_ctx_turn(const struct gw_tls_ctx *c)
{
    return c->turn;
}

struct gw_tls_ctx *gw_tls_ctx_ref(struct gw_tls_ctx *c)
{
    c->refs++;
    return c;
}

struct gw_tls_ctx *gw_tls_ctx_unref(struct gw_tls_ctx *c)
{
    if (c && --c->refs == 0) {
        SSL_CTX_free(c->ssl);
        free(c);
    }
    return NULL;
}

int gw_tls_new(struct gw_tls **ret, struct gw_tls_ctx *ctx, int fd, bool server, struct err *e)
{
    struct gw_tls *t = calloc(1, sizeof *t);
    CHECK(t != NULL);
    t->ssl = SSL_new(ctx->ssl);
    if (!t->ssl || SSL_set_fd(t->ssl, fd) != 1) {
        SSL_free(t->ssl);
        free(t);
        return gw_ssl_error(e, "TLS");
    }
    t->ctx = gw_tls_ctx_ref(ctx);
    SSL_set_app_data(t->ssl, t);
    if (server)
        SSL_set_accept_state(t->ssl);
    else
        SSL_set_connect_state(t->ssl);
    *ret = t;
    return 0;
}

struct gw_tls *gw_tls_free(struct gw_tls *t)
{
    if (t) {
        if (t->established)
            (void)SSL_shutdown(t->ssl);
        ERR_clear_error();
        SSL_free(t->ssl);
        gw_tls_ctx_unref(t->ctx);
        free(t);
    }
    return NULL;
}

/* Alerts about a certificate that came from the peer (RFC 8446 §6.2). */
static bool refused_ours(int reason)
{
    int alert = reason - SSL_AD_REASON_OFFSET;
    return (alert >= SSL_AD_BAD_CERTIFICATE && alert <= SSL_AD_CERTIFICATE_UNKNOWN) || alert == SSL_AD_UNKNOWN_CA;
}

static enum gw_tls_want failed(struct gw_tls *t, int r, struct err *e)
{
    int saved = errno;
    switch (SSL_get_error(t->ssl, r)) {
    case SSL_ERROR_WANT_READ:
        return GW_TLS_WANT_READ;
    case SSL_ERROR_WANT_WRITE:
        return GW_TLS_WANT_WRITE;
    case SSL_ERROR_ZERO_RETURN:
        return GW_TLS_CLOSED;
    case SSL_ERROR_SYSCALL:
        t->established = false; /* no close_notify after a fatal error */
        ERR_clear_error();
        if (saved == 0 || saved == EAGAIN)
            return GW_TLS_CLOSED;
        err_errno(e, saved, "connection");
        return GW_TLS_FAILED;
    default:
        t->established = false;
        if (t->verify_error != 0) {
            ERR_clear_error();
            err_set(e, ERR_UNAUTHORIZED, "certificate %s: %s", t->refused,
                    X509_verify_cert_error_string(t->verify_error));
        } else if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
            ERR_clear_error();
            return GW_TLS_CLOSED;
        } else if (refused_ours(ERR_GET_REASON(ERR_peek_error()))) {
            err_set(e, ERR_UNAUTHORIZED, "the peer refused our certificate: %s",
                    ERR_reason_error_string(ERR_peek_error()));
            ERR_clear_error();
        } else {
            gw_ssl_error(e, "TLS");
        }
        return GW_TLS_FAILED;
    }
}

enum gw_tls_want gw_tls_handshake(struct gw_tls *t, struct err *e)
{
    ERR_clear_error();
    errno = 0;
    int r = SSL_do_handshake(t->ssl);
    if (r == 1) {
        t->established = true;
        return GW_TLS_DONE;
    }
    return failed(t, r, e);
}

enum gw_tls_want gw_tls_read(struct gw_tls *t, void *p, size_t n, size_t *ret_n, struct err *e)
{
    ERR_clear_error();
    errno = 0;
    int r = SSL_read_ex(t->ssl, p, n, ret_n);
    return r == 1 ? GW_TLS_DONE : failed(t, r, e);
}

bool gw_tls_buffered(const struct gw_tls *t)
{
    return SSL_has_pending(t->ssl) == 1;
}

enum gw_tls_want gw_tls_write(struct gw_tls *t, const void *p, size_t n, size_t *ret_n, struct err *e)
{
    ERR_clear_error();
    errno = 0;
    int r = SSL_write_ex(t->ssl, p, n, ret_n);
    return r == 1 ? GW_TLS_DONE : failed(t, r, e);
}

X509 *gw_tls_peer(const struct gw_tls *t)
{
    return SSL_get1_peer_certificate(t->ssl);
}

STACK_OF(X509) * gw_tls_peer_chain(const struct gw_tls *t)
{
    return SSL_get_peer_cert_chain(t->ssl);
}
