/*
 * gw_tls.h - TLS 1.3 over a non-blocking socket: OpenSSL with our errors. A context holds one certificate and one set
 * of roots; connections keep the context that they were made with.
 */
#pragma once

#include <openssl/ssl.h>

#include "gatewayd/gw_state.h"

struct gw_tls_ctx; /* counted */

/* gw_tls_expired_ok - asked when a peer's own certificate has expired and nothing else is wrong with it: true lets the
 * handshake go on, and whoever admits the peer has to look at the date again. NULL (and without a certificate of ours):
 * never. */
extern bool (*gw_tls_expired_ok)(void);

/* gw_tls_ctx_new - @c NULL: neither a certificate nor roots (a node that joins: whom it talks to is checked later). */
int gw_tls_ctx_new(struct gw_tls_ctx **ret, const struct gw_credentials *c, struct err *e);
/* gw_tls_ctx_anonymous - roots, but no certificate: for renewing an expired one. */
int gw_tls_ctx_anonymous(struct gw_tls_ctx **ret, const struct gw_credentials *c, struct err *e);
struct gw_tls_ctx *gw_tls_ctx_ref(struct gw_tls_ctx *c);
struct gw_tls_ctx *gw_tls_ctx_unref(struct gw_tls_ctx *c);
/* gw_tls_ctx_info - of the certificate that is shown; its node is empty when none is. */
const struct gw_cert_info *gw_tls_ctx_info(const struct gw_tls_ctx *c);
/* gw_tls_ctx_turn - grows with each context that this process makes. */
uint64_t gw_tls_ctx_turn(const struct gw_tls_ctx *c);

struct gw_tls;
enum gw_tls_want { GW_TLS_DONE, GW_TLS_WANT_READ, GW_TLS_WANT_WRITE, GW_TLS_CLOSED, GW_TLS_FAILED };

int gw_tls_new(struct gw_tls **ret, struct gw_tls_ctx *ctx, int fd, bool server, struct err *e);
struct gw_tls *gw_tls_free(struct gw_tls *t); /* sends close_notify when the handshake was done; leaves fd open */

/* Each sets *e on GW_TLS_FAILED. */
enum gw_tls_want gw_tls_handshake(struct gw_tls *t, struct err *e);
enum gw_tls_want gw_tls_read(struct gw_tls *t, void *p, size_t n, size_t *ret_n, struct err *e);
/* gw_tls_buffered - has it read more off the socket than it gave away? Else the socket itself says when to read. */
bool gw_tls_buffered(const struct gw_tls *t);
/* gw_tls_write - what was not written must be offered again, first. */
enum gw_tls_want gw_tls_write(struct gw_tls *t, const void *p, size_t n, size_t *ret_n, struct err *e);

/* The peer's certificate (given; NULL: it has none) and what came with it (borrowed). After the handshake. */
X509 *gw_tls_peer(const struct gw_tls *t);
STACK_OF(X509) * gw_tls_peer_chain(const struct gw_tls *t);
