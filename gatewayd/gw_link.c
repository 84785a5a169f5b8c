#include "gatewayd/gw_link.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/daemon/daemon.h"
#include "common/util/check.h"
#include "common/util/clock.h"

#define READ_TURN_BYTES (256u << 10)
#define WRITE_TURN_BYTES (256u << 10)
#define READ_BYTES (64u << 10)
#define STAGE_BYTES (32u << 10)   /* what is lower in priority than Raft's waits behind at most this and one chunk */
#define NOTSENT_BYTES (64u << 10) /* of the kernel's own queue */
#define ACCEPT_RETRY_USEC 200000u
#define BACKLOG 512
#define KEEP_IDLE_S 1
#define KEEP_INTERVAL_S 1
#define KEEP_PROBES 2
#define USER_TIMEOUT_MS 3000
/* A link that was cut and healed speaks again with TCP's next retransmission. Without this it may come only after 1.6 s
 * more: the waits double. The smallest limit that the kernel takes. */
#ifndef TCP_RTO_MAX_MS
#define TCP_RTO_MAX_MS 44 /* since Linux 6.15; older ones refuse it */
#endif
#define RTO_MAX_MS 1000
#define IN_TOTAL_BYTES (768u << 20)
#define OUT_TOTAL_BYTES (768u << 20)

/* By the sender's role. Nobody's largest message is a certificate request with a token. */
static const struct gw_limits limits[] = {
    [RPC_NOBODY] = { 64u << 10, 64u << 10, 2 },
    [RPC_WORKER] = { 16u << 20, 32u << 20, 64 },
    [RPC_MANAGER] = { GW_MESSAGE_MAX, 256u << 20, 64 },
};
static const size_t out_max[] = { [RPC_NOBODY] = 1u << 20, [RPC_WORKER] = 96u << 20, [RPC_MANAGER] = 256u << 20 };

uint64_t gw_now_ms(void)
{
    return clock_mono().ms;
}

size_t gw_link_message_max(const struct gw_link *l)
{
    return limits[l->own].message_max;
}

static bool young(const struct gw_link *l)
{
    return l->state < GW_UP || (l->state == GW_UP && l->role == RPC_NOBODY);
}

/* ---- events ---- */

static void set_events(struct gw_link *l, uint32_t events)
{
    if (l->io && l->io_events != events && sd_event_source_set_io_events(l->io, events) >= 0)
        l->io_events = events;
}

static void make_dirty(struct gw_link *l)
{
    struct gw_net *n = l->net;
    if (l->dirty)
        return;
    l->dirty = true;
    l->next_dirty = NULL;
    if (n->dirty_tail)
        n->dirty_tail->next_dirty = l;
    else
        n->dirty = l;
    n->dirty_tail = l;
    (void)sd_event_source_set_enabled(n->defer, SD_EVENT_ONESHOT);
}

static void arm_timer(struct gw_net *n)
{
    uint64_t at = UINT64_MAX;
    for (struct gw_link *l = n->links; l; l = l->next) {
        if (young(l) && l->deadline_ms < at)
            at = l->deadline_ms;
        if (l->draining && l->state == GW_UP && l->drain_ms < at)
            at = l->drain_ms;
        if (l->cert && l->state == GW_UP && l->expire_ms < at)
            at = l->expire_ms;
    }
    if (at == UINT64_MAX) {
        (void)sd_event_source_set_enabled(n->timer, SD_EVENT_OFF);
        return;
    }
    (void)sd_event_source_set_time(n->timer, at * 1000);
    (void)sd_event_source_set_enabled(n->timer, SD_EVENT_ONESHOT);
}

static void arm_timer_for(struct gw_net *n, uint64_t at_ms)
{
    uint64_t now_at = UINT64_MAX;
    int on = SD_EVENT_OFF;
    (void)sd_event_source_get_enabled(n->timer, &on);
    if (on != SD_EVENT_OFF)
        (void)sd_event_source_get_time(n->timer, &now_at);
    if (on != SD_EVENT_OFF && now_at <= at_ms * 1000)
        return;
    (void)sd_event_source_set_time(n->timer, at_ms * 1000);
    (void)sd_event_source_set_enabled(n->timer, SD_EVENT_ONESHOT);
}

static int on_timer(sd_event_source *s, uint64_t usec, void *arg)
{
    struct gw_net *n = arg;
    struct err e = ERR_INIT;
    uint64_t now = gw_now_ms();
    (void)s, (void)usec;
    for (struct gw_link *l = n->links; l; l = l->next) {
        if (l->state != GW_DEAD && young(l) && l->deadline_ms <= now) {
            n->n.timeouts++;
            err_set(&e, ERR_TIMEOUT,
                    l->state == GW_CONNECTING ? "did not answer in time"
                    : l->state == GW_UP       ? "without a certificate for too long"
                                              : "did not finish its greeting in time");
            gw_link_close(l, &e);
        } else if (l->state == GW_UP && l->draining && l->drain_ms <= now) {
            err_set(&e, ERR_UNAVAILABLE, "replaced by a newer link");
            gw_link_close(l, &e);
        } else if (l->state == GW_UP && l->cert && l->expire_ms <= now) {
            err_set(&e, ERR_UNAUTHORIZED, "the certificate of node %s has expired", l->peer.node);
            gw_link_refuse(l, &e);
        }
    }
    arm_timer(n);
    return 0;
}

/* ---- the end of a link ---- */

static void link_free(struct gw_link *l)
{
    *l->prev = l->next;
    if (l->next)
        l->next->prev = l->prev;
    l->net->nlinks--;
    gw_in_done(&l->in);
    gw_out_done(&l->out);
    buf_done(&l->stage);
    X509_free(l->cert);
    gw_tls_ctx_unref(l->ctx);
    free(l->slots);
    free(l->slot_gen);
    free(l);
}

void gw_link_close(struct gw_link *l, const struct err *why)
{
    struct gw_net *n = l->net;
    if (l->state == GW_DEAD)
        return;
    bool was_up = l->state == GW_UP;
    if (young(l))
        n->nyoung--;
    n->n.rx_frames += l->in.frames;
    n->n.tx_frames += l->out.frames;
    n->n.raft_dropped += l->out.dropped;
    n->out_bytes -= l->out.bytes;
    l->in.frames = l->out.frames = l->out.dropped = 0;
    l->state = GW_DEAD;
    l->tls = gw_tls_free(l->tls);
    l->io = sd_event_source_disable_unref(l->io);
    if (l->fd >= 0)
        close(l->fd);
    l->fd = -1;
    gw_out_done(&l->out);
    n->ops->down(n->arg, l, was_up, why);
    make_dirty(l); /* freed there: callers may still be looking at it */
}

void gw_link_doom(struct gw_link *l)
{
    l->doomed = true;
    make_dirty(l);
}

static void flush(struct gw_link *l);

void gw_link_refuse(struct gw_link *l, const struct err *why)
{
    struct buf b = BUF_INIT;
    struct gw_control c = { .Kind = STR("bye"), .Text = str_from(why->msg), .Code = (uint64_t)why->code };
    if (l->state == GW_DEAD)
        return;
    if (l->state >= GW_GREETING) {
        fields_encode(&c, gw_control_fields, &b);
        l->net->out_bytes += b.n;
        gw_out_push(&l->out, GW_PRIO_CONTROL, GW_CONTROL, 0, &b);
        flush(l);
    }
    gw_link_close(l, why);
}

bool gw_link_control(struct gw_link *l, const struct gw_control *c)
{
    struct buf b = BUF_INIT;
    fields_encode(c, gw_control_fields, &b);
    return gw_link_send(l, GW_CONTROL, 0, &b);
}

void gw_link_drain(struct gw_link *l)
{
    if (l->draining || l->state != GW_UP)
        return;
    l->draining = true;
    l->drain_ms = gw_now_ms() + GW_DRAIN_MS;
    arm_timer_for(l->net, l->drain_ms);
    gw_link_idle(l);
}

void gw_link_idle(struct gw_link *l)
{
    struct err e = ERR_INIT;
    if (l->state != GW_UP || !l->draining || l->slots_used > 0)
        return;
    if (!l->done_sent)
        l->done_sent = gw_link_control(l, &(struct gw_control){ .Kind = STR("done") });
    if (!l->done_got || l->n_in_calls > 0 || !gw_out_empty(&l->out) || l->stage_off < l->stage.n)
        return;
    err_set(&e, ERR_OK, "replaced by a newer link");
    gw_link_close(l, &e);
}

/* ---- sending ---- */

static void flush(struct gw_link *l)
{
    struct err e = ERR_INIT;
    struct gw_net *n = l->net;
    size_t total = 0;
    while (l->state == GW_GREETING || l->state == GW_UP) {
        size_t done = 0;
        if (total >= WRITE_TURN_BYTES) { /* others have their turn first */
            set_events(l, EPOLLIN | EPOLLOUT);
            return;
        }
        if (l->stage_off == l->stage.n) {
            buf_clear(&l->stage);
            l->stage_off = 0;
            size_t before = l->out.bytes;
            if (gw_out_fill(&l->out, &l->stage, STAGE_BYTES) == 0) {
                if (l->stage.cap > 4096)
                    buf_done(&l->stage);
                set_events(l, EPOLLIN);
                gw_link_idle(l);
                return;
            }
            n->out_bytes -= before - l->out.bytes;
            if (l->stage.failed) {
                err_set(&e, ERR_NOMEM, "out of memory");
                gw_link_close(l, &e);
                return;
            }
        }
        switch (gw_tls_write(l->tls, l->stage.p + l->stage_off, l->stage.n - l->stage_off, &done, &e)) {
        case GW_TLS_DONE:
            l->stage_off += done;
            total += done;
            l->tx_bytes += done;
            n->n.tx_bytes += done;
            break;
        case GW_TLS_WANT_READ:
            set_events(l, EPOLLIN);
            return;
        case GW_TLS_WANT_WRITE:
            set_events(l, EPOLLIN | EPOLLOUT);
            return;
        case GW_TLS_CLOSED:
            err_set(&e, ERR_UNAVAILABLE, "the peer closed the link");
            gw_link_close(l, &e);
            return;
        default:
            gw_link_close(l, &e);
            return;
        }
    }
}

static enum gw_prio prio_of(enum gw_type type, size_t len)
{
    return type == GW_RAFT                               ? GW_PRIO_RAFT
           : len <= GW_SMALL_BYTES || type == GW_CONTROL ? GW_PRIO_CONTROL
                                                         : GW_PRIO_BULK;
}

static bool has_room(const struct gw_link *l, enum gw_type type, size_t len)
{
    enum rpc_role peer = l->role == RPC_LOCAL ? RPC_NOBODY : l->role;
    if (type == GW_RAFT)
        return true; /* its queue drops */
    size_t slack = len <= GW_SMALL_BYTES ? 8u << 20 : 0, queued = l->out.bytes - l->out.q[GW_PRIO_RAFT].bytes;
    return queued + len <= out_max[peer] + slack && l->net->out_bytes + len <= OUT_TOTAL_BYTES + slack;
}

bool gw_link_send(struct gw_link *l, enum gw_type type, uint32_t stream, struct buf *body)
{
    if (l->state != GW_UP || body->failed || body->n > gw_link_message_max(l) || !has_room(l, type, body->n)) {
        buf_done(body);
        return false;
    }
    size_t before = l->out.bytes;
    gw_out_push(&l->out, prio_of(type, body->n), type, stream, body);
    l->net->out_bytes += l->out.bytes - before; /* modulo 2^64: pushing may have dropped more */
    make_dirty(l);
    return true;
}

static void say_hello(struct gw_link *l)
{
    struct buf b = BUF_INIT;
    struct gw_hello h = l->net->hello;
    h.Turn = gw_tls_ctx_turn(l->ctx);
    fields_encode(&h, gw_hello_fields, &b);
    l->net->out_bytes += b.n;
    gw_out_push(&l->out, GW_PRIO_CONTROL, GW_HELLO, 0, &b);
    make_dirty(l);
}

/* ---- receiving ---- */

static int on_hello(struct gw_link *l, struct str body, struct err *e)
{
    struct gw_hello h;
    struct arena a;
    arena_init(&a, 64 << 10);
    int r = l->state == GW_GREETING ? 0 : err_set(e, ERR_INVALID, "hello: said twice");
    if (r == 0)
        r = gw_wire_decode(&h, gw_hello_fields, sizeof h, body, &a, e);
    if (r == 0) {
        bool was_young = young(l);
        (void)str_copy(l->instance, sizeof l->instance, h.Instance);
        l->turn = h.Turn;
        l->state = GW_UP;
        if (was_young && !young(l))
            l->net->nyoung--;
        l->deadline_ms = l->opened_ms + GW_NOBODY_MS;
        arm_timer_for(l->net, l->cert ? l->expire_ms : l->deadline_ms);
        l->net->ops->up(l->net->arg, l, &h);
    }
    arena_done(&a);
    return r;
}

/* What concerns the link itself; 1: it was that. */
static int on_control(struct gw_link *l, struct str body, struct err *e)
{
    struct gw_control c;
    struct arena a;
    arena_init(&a, 256 << 10);
    int r = gw_wire_decode(&c, gw_control_fields, sizeof c, body, &a, e);
    if (r == 0 && str_is(c.Kind, "bye")) {
        r = err_set(e, c.Code > ERR_OK && c.Code < ERR_CODE_COUNT ? (int)c.Code : ERR_UNAVAILABLE,
                    "the peer says: " STR_FMT, STR_ARG(c.Text));
    } else if (r == 0 && str_is(c.Kind, "done")) {
        l->done_got = true;
        gw_link_idle(l);
        r = 1;
    }
    arena_done(&a);
    return r;
}

static int on_message(void *arg, enum gw_type type, uint32_t stream, struct str body, struct err *e)
{
    struct gw_link *l = arg;
    if (type == GW_HELLO)
        return on_hello(l, body, e);
    if (type == GW_CONTROL && body.p) {
        int r = on_control(l, body, e);
        if (r != 0)
            return r < 0 ? r : l->state == GW_DEAD ? -ERR_UNAVAILABLE : 0;
    }
    if (l->state != GW_UP)
        return l->state == GW_DEAD ? -ERR_UNAVAILABLE : err_set(e, ERR_INVALID, "a message before the greeting");
    l->net->ops->message(l->net->arg, l, type, stream, body);
    return l->state == GW_DEAD ? -ERR_UNAVAILABLE : 0;
}

static void read_some(struct gw_link *l)
{
    static char bytes[READ_BYTES]; /* plain text of one turn; one thread */
    struct err e = ERR_INIT;
    size_t n, total = 0;
    l->reading_more = false;
    while (l->state == GW_GREETING || l->state == GW_UP) {
        if (total >= READ_TURN_BYTES) { /* TLS may hold more than epoll knows of */
            l->reading_more = true;
            make_dirty(l);
            return;
        }
        switch (gw_tls_read(l->tls, bytes, sizeof bytes, &n, &e)) {
        case GW_TLS_DONE:
            total += n;
            l->rx_bytes += n;
            l->net->n.rx_bytes += n;
            if (gw_in_feed(&l->in, bytes, n, on_message, l, &e) < 0 && l->state != GW_DEAD)
                gw_link_close(l, &e);
            if (l->state != GW_DEAD && !gw_tls_buffered(l->tls))
                return;
            break;
        case GW_TLS_WANT_READ:
        case GW_TLS_WANT_WRITE:
            return;
        case GW_TLS_CLOSED:
            err_set(&e, ERR_UNAVAILABLE, "the peer closed the link");
            gw_link_close(l, &e);
            return;
        default:
            gw_link_close(l, &e);
            return;
        }
    }
}

/* ---- from connecting to greeting ---- */

static void on_connected(struct gw_link *l)
{
    struct err e = ERR_INIT;
    l->net->n.handshakes++;
    l->cert = gw_tls_peer(l->tls);
    l->role = RPC_NOBODY;
    int r = 0;
    if (l->cert) {
        r = gw_cert_info(&l->peer, l->cert, &e);
        l->role = l->peer.role;
        int64_t left_s = l->peer.not_after - clock_wall().ns / 1000000000;
        l->expire_ms = gw_now_ms() + (left_s > 0 ? (uint64_t)left_s * 1000 : 0) + 1;
    } else if (l->dialled) {
        r = err_set(&e, ERR_UNAUTHORIZED, "showed no certificate");
    }
    l->state = GW_GREETING;
    if (r == 0)
        r = l->net->ops->admit(l->net->arg, l, &e);
    if (r < 0) {
        l->net->n.refused++;
        gw_link_refuse(l, &e);
        return;
    }
    l->in.limits = limits[l->role];
    say_hello(l);
    set_events(l, EPOLLIN);
    read_some(l);
}

static void shake_hands(struct gw_link *l)
{
    struct err e = ERR_INIT;
    switch (gw_tls_handshake(l->tls, &e)) {
    case GW_TLS_DONE:
        on_connected(l);
        return;
    case GW_TLS_WANT_READ:
        set_events(l, EPOLLIN);
        return;
    case GW_TLS_WANT_WRITE:
        set_events(l, EPOLLOUT);
        return;
    case GW_TLS_CLOSED:
        err_set(&e, ERR_UNAVAILABLE, "the peer closed the connection during the handshake");
        break;
    default:
        break;
    }
    l->net->n.handshakes_failed++;
    gw_link_close(l, &e);
}

static void start_tls(struct gw_link *l)
{
    struct err e = ERR_INIT;
    int error = 0;
    socklen_t len = sizeof error;
    if (l->dialled && (getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error != 0)) {
        err_set(&e, ERR_UNAVAILABLE, "%s", strerror(error ? error : errno));
        gw_link_close(l, &e);
        return;
    }
    if (gw_tls_new(&l->tls, l->ctx, l->fd, !l->dialled, &e) < 0) {
        gw_link_close(l, &e);
        return;
    }
    l->state = GW_HANDSHAKE;
    l->deadline_ms = l->opened_ms + GW_HELLO_MS;
    arm_timer_for(l->net, l->deadline_ms);
    shake_hands(l);
}

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
    struct gw_link *l = arg;
    (void)s, (void)fd;
    if (l->state == GW_CONNECTING) {
        start_tls(l);
    } else if (l->state == GW_HANDSHAKE) {
        shake_hands(l);
    } else {
        if (revents & (EPOLLIN | EPOLLHUP | EPOLLERR))
            read_some(l);
        if (revents & EPOLLOUT)
            flush(l);
    }
    return 0;
}

static int on_defer(sd_event_source *s, void *arg)
{
    struct gw_net *n = arg;
    struct gw_link *l = n->dirty;
    (void)s;
    n->dirty = n->dirty_tail = NULL;
    while (l) {
        struct gw_link *next = l->next_dirty;
        l->dirty = false;
        if (l->state == GW_DEAD) {
            link_free(l);
        } else if (l->doomed) {
            struct err e = ERR_INIT;
            err_set(&e, ERR_UNAVAILABLE, "the peer does not read what it is sent");
            gw_link_close(l, &e);
        } else {
            if (l->reading_more)
                read_some(l);
            flush(l);
        }
        l = next;
    }
    return 0;
}

static void set_options(int fd)
{
    const struct {
        int level, name, value;
    } o[] = { { IPPROTO_TCP, TCP_NODELAY, 1 },
              { SOL_SOCKET, SO_KEEPALIVE, 1 },
              { IPPROTO_TCP, TCP_KEEPIDLE, KEEP_IDLE_S },
              { IPPROTO_TCP, TCP_KEEPINTVL, KEEP_INTERVAL_S },
              { IPPROTO_TCP, TCP_KEEPCNT, KEEP_PROBES },
              { IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS },
              { IPPROTO_TCP, TCP_RTO_MAX_MS, RTO_MAX_MS },
              { IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOTSENT_BYTES } };
    for (size_t i = 0; i < sizeof o / sizeof *o; i++) /* none of them is needed to be correct */
        (void)setsockopt(fd, o[i].level, o[i].name, &o[i].value, sizeof o[i].value);
}

static void evict_oldest(struct gw_net *n)
{
    struct gw_link *oldest = NULL;
    struct err e = ERR_INIT;
    for (struct gw_link *l = n->links; l; l = l->next) {
        if (l->state != GW_DEAD && !l->dialled && young(l) && (!oldest || l->id < oldest->id))
            oldest = l;
    }
    if (!oldest)
        return;
    n->n.evicted++;
    err_set(&e, ERR_UNAVAILABLE, "too many connections without a certificate");
    gw_link_close(oldest, &e);
}

_Static_assert(offsetof(struct sockaddr_in, sin_port) == offsetof(struct sockaddr_in6, sin6_port),
               "as POSIX systems have it");

/* fd is taken. */
static int link_new(struct gw_net *n, int fd, struct gw_tls_ctx *ctx, bool dialled, uint32_t events,
                    struct gw_link **ret, struct err *e)
{
    struct gw_link *l = calloc(1, sizeof *l);
    CHECK(l != NULL);
    l->net = n;
    l->fd = fd;
    int r = sd_event_add_io(n->loop, &l->io, fd, events, on_io, l);
    if (r < 0) {
        close(fd);
        free(l);
        return err_errno(e, -r, "watch a connection");
    }
    l->io_events = events;
    l->id = ++n->next_id;
    l->dialled = dialled;
    l->state = GW_CONNECTING;
    l->ctx = gw_tls_ctx_ref(ctx);
    l->opened_ms = gw_now_ms();
    l->deadline_ms = l->opened_ms + GW_HELLO_MS;
    gw_in_init(&l->in, &limits[RPC_NOBODY], &n->in_budget);
    gw_out_init(&l->out);
    l->next = n->links;
    l->prev = &n->links;
    if (l->next)
        l->next->prev = &l->next;
    n->links = l;
    n->nlinks++;
    n->nyoung++;
    arm_timer_for(n, l->deadline_ms);
    set_options(fd);
    *ret = l;
    return 0;
}

void gw_link_connect_within(struct gw_link *l, uint64_t ms)
{
    l->deadline_ms = l->opened_ms + ms;
    arm_timer_for(l->net, l->deadline_ms);
}

/* ---- listening and dialling ---- */

static int on_accept_retry(sd_event_source *s, uint64_t usec, void *arg)
{
    struct gw_net *n = arg;
    (void)s, (void)usec;
    if (n->listen_io)
        (void)sd_event_source_set_enabled(n->listen_io, SD_EVENT_ON);
    return 0;
}

static void accept_one(struct gw_net *n, int fd, const struct sockaddr_storage *sa)
{
    struct err e = ERR_INIT;
    struct gw_link *l = NULL;
    if (!n->server_ctx || n->nlinks >= GW_LINKS_MAX) {
        close(fd);
        return;
    }
    n->n.accepted++;
    if (n->nyoung >= GW_YOUNG_MAX)
        evict_oldest(n);
    if (link_new(n, fd, n->server_ctx, false, EPOLLIN, &l, &e) < 0 || !l) {
        log_warn("accept: %s", e.msg);
        return;
    }
    l->own = n->own;
    gw_addr_host_of(sa, l->host);
    struct sockaddr_in6 in = { .sin6_port = 0 }; /* an IPv4 address has its port at the same place */
    memcpy(&in, sa, sizeof in);
    l->port = ntohs(in.sin6_port);
}

static int on_accept(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
    struct gw_net *n = arg;
    (void)revents;
    for (int i = 0; i < 64; i++) {
        struct sockaddr_storage sa = { .ss_family = AF_UNSPEC };
        socklen_t len = sizeof sa;
        int c = accept4(fd, (struct sockaddr *)&sa, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (c >= 0) {
            accept_one(n, c, &sa);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            log_warn("accept: %s", strerror(errno));
            (void)sd_event_source_set_enabled(s, SD_EVENT_OFF);
            (void)sd_event_source_set_time_relative(n->listen_retry, ACCEPT_RETRY_USEC);
            (void)sd_event_source_set_enabled(n->listen_retry, SD_EVENT_ONESHOT);
        }
        if (errno != EINTR && errno != ECONNABORTED)
            return 0;
    }
    return 0;
}

int gw_net_bind(const struct host_port *a, int *ret_fd, struct err *e)
{
    struct sockaddr_storage sa;
    socklen_t len;
    char text[ADDR_TEXT_MAX];
    int one = 1, r = gw_addr_sockaddr(a, &sa, &len, e);
    if (r < 0)
        return r;
    addr_text(a, text);
    _cleanup_(closep) int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(e, errno, "listen on %s", text);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (const struct sockaddr *)&sa, len) < 0 || listen(fd, BACKLOG) < 0)
        return err_set(e, ERR_PRECONDITION, "failed to listen on remote API address: listen tcp %s: %s", text,
                       errno == EADDRINUSE      ? "bind: address already in use"
                       : errno == EADDRNOTAVAIL ? "bind: cannot assign requested address"
                                                : strerror(errno));
    *ret_fd = TAKE_FD(fd);
    return 0;
}

int gw_net_listen(struct gw_net *n, int fd, struct err *e)
{
    n->listen_io = sd_event_source_disable_unref(n->listen_io);
    if (n->listen_fd >= 0)
        close(n->listen_fd);
    n->listen_fd = fd;
    if (fd < 0)
        return 0;
    int r = sd_event_add_io(n->loop, &n->listen_io, fd, EPOLLIN, on_accept, n);
    return r < 0 ? err_errno(e, -r, "watch the listening socket") : 0;
}

int gw_net_dial(struct gw_net *n, struct gw_tls_ctx *ctx, enum rpc_role own, const struct host_port *to, void *cookie,
                struct gw_link **ret, struct err *e)
{
    struct sockaddr_storage sa;
    socklen_t len;
    struct gw_link *l = NULL;
    int r = gw_addr_sockaddr(to, &sa, &len, e);
    if (r < 0)
        return r;
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(e, errno, "dial %s", to->host);
    if (connect(fd, (const struct sockaddr *)&sa, len) < 0 && errno != EINPROGRESS) {
        r = err_set(e, ERR_UNAVAILABLE, "%s", strerror(errno));
        close(fd);
        return r;
    }
    r = link_new(n, fd, ctx, true, EPOLLOUT, &l, e);
    if (r < 0 || !l)
        return r;
    l->own = own;
    l->cookie = cookie;
    (void)str_copy(l->host, sizeof l->host, str_from(to->host));
    l->port = to->port;
    addr_text(to, l->dial_addr);
    *ret = l;
    return 0;
}

/* ---- */

void gw_net_identity(struct gw_net *n, struct gw_tls_ctx *ctx, enum rpc_role own)
{
    gw_tls_ctx_unref(n->server_ctx);
    n->server_ctx = ctx ? gw_tls_ctx_ref(ctx) : NULL;
    n->own = own;
}

int gw_net_init(struct gw_net *n, sd_event *loop, const struct gw_net_ops *ops, void *arg, struct err *e)
{
    *n = (struct gw_net){ .loop = loop, .ops = ops, .arg = arg, .listen_fd = -1, .own = RPC_NOBODY };
    n->hello.Version = GW_WIRE_VERSION;
    n->hello.Software = STR(MICROSWARM_VERSION);
    n->in_budget.max = IN_TOTAL_BYTES;
    int r = sd_event_add_defer(loop, &n->defer, on_defer, n);
    if (r >= 0)
        r = sd_event_source_set_enabled(n->defer, SD_EVENT_OFF);
    if (r >= 0)
        r = sd_event_add_time(loop, &n->timer, CLOCK_MONOTONIC, UINT64_MAX, 1000, on_timer, n);
    if (r >= 0)
        r = sd_event_source_set_enabled(n->timer, SD_EVENT_OFF);
    if (r >= 0)
        r = sd_event_add_time(loop, &n->listen_retry, CLOCK_MONOTONIC, UINT64_MAX, 1000, on_accept_retry, n);
    if (r >= 0)
        r = sd_event_source_set_enabled(n->listen_retry, SD_EVENT_OFF);
    return r < 0 ? err_errno(e, -r, "event sources") : 0;
}

void gw_net_done(struct gw_net *n)
{
    struct err e = ERR_INIT;
    if (!n->loop)
        return;
    (void)gw_net_listen(n, -1, &e);
    err_set(&e, ERR_UNAVAILABLE, "stopping");
    for (struct gw_link *l = n->links; l; l = l->next)
        gw_link_close(l, &e);
    for (struct gw_link *l = n->links, *next; l; l = next) {
        next = l->next;
        link_free(l);
    }
    gw_net_identity(n, NULL, RPC_NOBODY);
    n->defer = sd_event_source_disable_unref(n->defer);
    n->timer = sd_event_source_disable_unref(n->timer);
    n->listen_retry = sd_event_source_disable_unref(n->listen_retry);
    n->dirty = n->dirty_tail = NULL;
    n->loop = NULL;
}

bool gw_link_rtt(const struct gw_link *l, struct gw_rtt *ret)
{
    struct tcp_info ti;
    socklen_t len = sizeof ti;
    if (l->fd < 0 || getsockopt(l->fd, IPPROTO_TCP, TCP_INFO, &ti, &len) < 0)
        return false;
    *ret = (struct gw_rtt){ ti.tcpi_rtt, ti.tcpi_rttvar };
    return true;
}
