/* ca_root.h - making the swarm's root certificate: ECDSA P-256, self-signed, twenty years, as Docker's. */
#pragma once

#include <stdint.h>

#include "common/util/cleanup.h"
#include "common/util/err.h"
#include "common/util/str.h"

struct ca_root {
    struct buf key_pem, cert_pem;   /* key_pem is secret */
    struct buf subject, public_key; /* DER, for TLSInfo */
};

/* ca_root_make - @now_s: unix seconds. Fills in *ret, which must be zero; ca_root_done() in any case. */
int ca_root_make(struct ca_root *ret, int64_t now_s, struct err *e);
void ca_root_done(struct ca_root *c);
