/* mesh_resolv.h - the text of a container's /etc/resolv.conf, made from the host's and the task's DNSConfig. Pure. */
#pragma once

#include "common/proto/fields.h"

struct mesh_resolv {
    struct str host;                          /* the host's resolv.conf, any bytes */
    struct strs nameservers, search, options; /* the task's: each that is not empty replaces the host's */
    struct str fallback; /* blank-separated addresses for when no nameserver is left; may be empty */
    bool own_net;        /* false: shares the host's network, where the host's text holds as it is */
};

/*
 * mesh_resolv_text - appends the text to out.
 *
 * In a namespace of its own the host's nameservers on loopback are out of reach and are left out, as are those on IPv6,
 * which a sandbox does not have. A task's search list of only "." means none at all. As Docker does.
 */
void mesh_resolv_text(const struct mesh_resolv *r, struct buf *out);

/* mesh_resolv_check - what could break out of its line is refused: -ERR_INVALID names the field. */
int mesh_resolv_check(const struct mesh_resolv *r, struct err *e);

/* mesh_resolv_servers - the nameservers that a resolv.conf names, all of them; at most cap. mesh_resolv_words - the
 * words of a line. Both borrow from the text. */
size_t mesh_resolv_servers(struct str text, struct str *ret, size_t cap);
size_t mesh_resolv_words(struct str line, struct str *ret, size_t cap);

/* mesh_resolv_only_stub - does the text name systemd-resolved's stub (127.0.0.53) and no other server? Then the real
 * servers are in /run/systemd/resolve/resolv.conf. */
bool mesh_resolv_only_stub(struct str host);
