/* ca_priv.h - what the files around OpenSSL share: its signs turned into ours (1 is success there). */
#pragma once

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include "common/util/cleanup.h"
#include "common/util/err.h"
#include "common/util/str.h"

#define CA_BACKDATE_S 3600ll /* nodes' clocks may be behind */

DEFINE_CLEANUP(X509 *, X509_free)
DEFINE_CLEANUP(X509_REQ *, X509_REQ_free)
DEFINE_CLEANUP(EVP_PKEY *, EVP_PKEY_free)
DEFINE_CLEANUP(BIO *, BIO_free)
DEFINE_CLEANUP(X509_EXTENSION *, X509_EXTENSION_free)
DEFINE_CLEANUP(EVP_MD_CTX *, EVP_MD_CTX_free)

/* ca_ssl_err - ERR_INTERNAL with OpenSSL's first complaint; its queue is empty afterwards. */
int ca_ssl_err(struct err *e, const char *what);

/* ca_add_extension - from OpenSSL's own notation; only for text of ours. */
int ca_add_extension(X509 *x, int nid, const char *value, struct err *e);

/* ca_add_issuer_key - the authority key identifier: the issuer's, or one made of its key when it has none. */
int ca_add_issuer_key(X509 *x, X509 *issuer, struct err *e);
int ca_set_serial(X509 *x, struct err *e);
int ca_put_cert(X509 *x, struct buf *ret_pem, struct err *e);

/* Exactly one object in the text, nothing else behind it; encrypted ones are refused (and nobody is asked). */
int ca_read_cert(struct str pem, X509 **ret, struct err *e);
int ca_read_key(struct str pem, EVP_PKEY **ret, struct err *e);
int ca_read_csr(struct str pem, X509_REQ **ret, struct err *e);
