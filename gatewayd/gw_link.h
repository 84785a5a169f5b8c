/*
 * gw_link.h - links: TCP, TLS and frames between this gatewayd and others, on the event loop.
 *
 * A link begins as a connection dialled or accepted; after the handshake `admit` decides about the peer by its
 * certificate, both say hello, and the link is up. Nothing but the joining operations is expected of a peer without a
 * certificate; that is the caller's business, who sees l->role.
 *
 * Bounded: connections that are not up yet (the oldest goes when there are too many) and the time they may take; what
 * is queued to a peer and what it may leave unfinished; the bytes read in one turn.
 */
#pragma once

#include <sys/socket.h>
#include <systemd/sd-event.h>

#include "gatewayd/gw_addr.h"
#include "gatewayd/gw_frame.h"
#include "gatewayd/gw_tls.h"
#include "gatewayd/gw_wire.h"

#define GW_YOUNG_MAX 64u /* connections that are not up, and those without a certificate */
#define GW_LINKS_MAX 20000u
#define GW_HELLO_MS 5000u   /* from connecting to being up */
#define GW_NOBODY_MS 60000u /* the life of a link without a certificate */
#define GW_DRAIN_MS 60000u  /* longer than any long poll */
#define GW_GRACE_MS 300000u /* the life of a link that was made with an expired certificate */

enum gw_link_state { GW_CONNECTING, GW_HANDSHAKE, GW_GREETING, GW_UP, GW_DEAD };

struct gw_call;
struct gw_net;

struct gw_link {
    struct gw_link *next, **prev; /* all links of the net */
    struct gw_net *net;
    uint64_t id;
    enum gw_link_state state;
    bool dialled;
    bool draining, done_sent, done_got;
    void *cookie;             /* of whoever dialled */
    enum rpc_role own;        /* what we are to the peer: our certificate's role */
    enum rpc_role role;       /* the peer's, as admitted */
    struct gw_cert_info peer; /* node is empty without a certificate */
    X509 *cert;               /* the peer's; NULL: none */
    char host[ADDR_HOST_MAX], instance[GW_ID_MAX];
    uint64_t turn; /* the peer's: gw_hello */
    unsigned port;
    char dial_addr[ADDR_TEXT_MAX];
    uint64_t opened_ms, deadline_ms, drain_ms, expire_ms; /* expire_ms: of the peer's certificate */
    uint64_t rx_bytes, tx_bytes;

    /* of gw_route.c: requests that wait for this peer's reply, and its requests that wait for ours */
    struct gw_call **slots;
    uint16_t *slot_gen;
    unsigned nslots, slots_used, slot_hint;
    struct gw_call *in_calls;
    unsigned n_in_calls;
    /* of gw_hub.c */
    uint64_t told_swarm; /* the version of managers and roots that it was told */
    bool told_renew, raft_refused;
    bool grace; /* made with a certificate that has expired: for Raft's messages alone, and not for long */

    int fd;
    struct gw_tls *tls;
    struct gw_tls_ctx *ctx;
    sd_event_source *io;
    uint32_t io_events;
    struct gw_in in;
    struct gw_out out;
    struct buf stage; /* frames on their way into TLS */
    size_t stage_off;
    bool dirty, reading_more, doomed;
    struct gw_link *next_dirty;
};

struct gw_net_ops {
    /* The handshake is done. May lower l->role. Refuse with an error: the peer is told its text. */
    int (*admit)(void *arg, struct gw_link *l, struct err *e);
    void (*up)(void *arg, struct gw_link *l, const struct gw_hello *hello);
    void (*down)(void *arg, struct gw_link *l, bool was_up, const struct err *why);
    /* GW_REQUEST, GW_REPLY, GW_RAFT, GW_CONTROL that isn't the link's own. body.p NULL: lost for lack of room. */
    void (*message)(void *arg, struct gw_link *l, enum gw_type type, uint32_t stream, struct str body);
};

struct gw_net {
    sd_event *loop;
    const struct gw_net_ops *ops;
    void *arg;
    struct gw_hello hello; /* what we say; texts borrowed from the owner */
    struct gw_link *links, *dirty, *dirty_tail;
    unsigned nlinks, nyoung;
    struct gw_budget in_budget;
    size_t out_bytes; /* queued, all links */
    uint64_t next_id;
    sd_event_source *defer, *timer, *listen_io, *listen_retry;
    struct gw_tls_ctx *server_ctx;
    enum rpc_role own;
    int listen_fd;
    struct {
        uint64_t handshakes, handshakes_failed, accepted, evicted, timeouts, refused, rx_frames, tx_frames, rx_bytes,
            tx_bytes, raft_dropped;
    } n;
};

int gw_net_init(struct gw_net *n, sd_event *loop, const struct gw_net_ops *ops, void *arg, struct err *e);
void gw_net_done(struct gw_net *n);

/* gw_net_identity - the certificate for new connections and our role. NULL: accepted connections are closed. */
void gw_net_identity(struct gw_net *n, struct gw_tls_ctx *ctx, enum rpc_role own);

/* gw_net_bind - a listening socket, given; says clearly when the address is in use or not ours. */
int gw_net_bind(const struct host_port *a, int *ret_fd, struct err *e);
/* gw_net_listen - @fd is taken; -1: listen no more. */
int gw_net_listen(struct gw_net *n, int fd, struct err *e);

/* gw_net_dial - `down` reports failure. @own: what the certificate in ctx says (RPC_NOBODY: none is shown). */
int gw_net_dial(struct gw_net *n, struct gw_tls_ctx *ctx, enum rpc_role own, const struct host_port *to, void *cookie,
                struct gw_link **ret, struct err *e);

/* gw_link_connect_within - less time than GW_HELLO_MS for the TCP connection: after a lost SYN the kernel waits a
 * second and more, a new attempt does not. */
void gw_link_connect_within(struct gw_link *l, uint64_t ms);

/* gw_link_send - body is taken. false: no room, the link isn't up, or the message is too long for this peer. */
bool gw_link_send(struct gw_link *l, enum gw_type type, uint32_t stream, struct buf *body);
size_t gw_link_message_max(const struct gw_link *l);

/* gw_link_close - at once; @why is logged by the owner. gw_link_refuse - tells the peer first. Both call `down`. */
void gw_link_close(struct gw_link *l, const struct err *why);
void gw_link_refuse(struct gw_link *l, const struct err *why);

/* gw_link_doom - the same as gw_link_close() a little later, from the loop. */
void gw_link_doom(struct gw_link *l);

/* gw_link_drain - no new requests go over it, from either side; it ends when all have been answered. gw_link_idle - has
 * that come about? To be asked whenever a reply came in (l may be dead afterwards). */
void gw_link_drain(struct gw_link *l);
void gw_link_idle(struct gw_link *l);
bool gw_link_control(struct gw_link *l, const struct gw_control *c); /* as gw_link_send() */

struct gw_rtt {
    uint32_t rtt_us, rttvar_us;
};
bool gw_link_rtt(const struct gw_link *l, struct gw_rtt *ret);
uint64_t gw_now_ms(void);
