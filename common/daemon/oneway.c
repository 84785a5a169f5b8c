/*
 * oneway.c - nng's PAIR0 over IPC, read and written by the loop itself.
 *
 * What goes over the socket is the scalability protocol that nng speaks (a header of eight bytes each way, then one
 * byte 1 and the length before each message), so any nng PAIR can be at the other end. But not nng's library: there a
 * message wakes three threads on its way in and one on its way out, and Raft's are small, many, and waited for.
 */
#include "common/daemon/oneway.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/util/check.h"
#include "common/util/cleanup.h"
#include "common/util/clock.h"

#define RECONNECT_MIN_MS 2u
#define RECONNECT_MAX_MS 1000u
#define HELLO "\0SP\0\0\x10\0\0" /* PAIR, version 0 */
#define HELLO_BYTES 8u
#define HEAD 9u /* 1, and the length of the message, big endian */
#define READ_BYTES (64u << 10)
#define KEEP_BYTES (256u << 10)

struct oneway {
    sd_event *loop;
    char path[108];
    uid_t only;
    oneway_fn *fn;
    oneway_link_fn *link;
    void *arg;
    bool dials;
    int listen_fd, fd;
    sd_event_source *listening, *io, *redial;
    uint64_t backoff_ms;
    struct buf in, out; /* the unread rest; what the socket did not take, from out_at on */
    size_t out_at;
    bool hello; /* the peer's header has come: the link is up */
    bool corked;
};

static void link_close(struct oneway *o);
static void dial(struct oneway *o);

/* ---- what comes in ---- */

static bool peer_ok(const struct oneway *o, int fd)
{
    struct ucred c;
    socklen_t n = sizeof c;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &n) < 0)
        return false;
    return c.uid == 0 || (o->only != (uid_t)-1 && c.uid == o->only);
}

/* head - the length in a message's head; false: it is none, or too long. */
static bool head(const char *p, size_t *ret)
{
    uint64_t n = 0;
    for (size_t i = 1; i < HEAD; i++)
        n = n << 8 | (uint8_t)p[i];
    *ret = (size_t)n;
    return p[0] == 1 && n <= ONEWAY_MSG_MAX;
}

static void set_head(uint8_t p[HEAD], uint64_t n)
{
    p[0] = 1;
    for (size_t i = HEAD - 1; i > 0; i--, n >>= 8)
        p[i] = (uint8_t)n;
}

/* shake - false: the peer is no PAIR. */
static bool shake(struct oneway *o, size_t *at)
{
    if (o->hello || o->in.n < HELLO_BYTES)
        return true;
    if (memcmp(o->in.p, HELLO, HELLO_BYTES) != 0)
        return false;
    *at = HELLO_BYTES;
    o->hello = true;
    o->backoff_ms = 0;
    if (o->link)
        o->link(o->arg, true);
    return true;
}

/* deliver - every whole message; false: the peer talks nonsense. */
static bool deliver(struct oneway *o)
{
    size_t at = 0, n;
    if (!shake(o, &at))
        return false;
    while (o->hello && o->in.n - at >= HEAD) {
        if (!head(o->in.p + at, &n))
            return false;
        if (o->in.n - at - HEAD < n)
            break;
        o->fn(o->arg, (struct str){ o->in.p + at + HEAD, n });
        at += HEAD + n;
    }
    if (at == 0)
        return true;
    o->in.n -= at;
    memmove(o->in.p, o->in.p + at, o->in.n);
    if (o->in.cap > KEEP_BYTES && o->in.n == 0)
        buf_done(&o->in);
    return true;
}

/* take - false: the link is over. */
static bool take(struct oneway *o)
{
    size_t want = READ_BYTES, n_msg;
    if (o->hello && o->in.n >= HEAD && head(o->in.p, &n_msg) && n_msg + HEAD > o->in.n + want)
        want = n_msg + HEAD - o->in.n;
    char *p = buf_reserve(&o->in, want);
    CHECK(p != NULL);
    ssize_t n = recv(o->fd, p, want, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    o->in.n += (size_t)n;
    return n > 0 && deliver(o);
}

/* ---- what goes out ---- */

static void watch(struct oneway *o)
{
    sd_event_source_set_io_events(o->io, EPOLLIN | (o->out.n > o->out_at ? EPOLLOUT : 0));
}

static bool out_flush(struct oneway *o)
{
    while (o->out.n > o->out_at) {
        ssize_t n = send(o->fd, o->out.p + o->out_at, o->out.n - o->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        o->out_at += (size_t)n;
    }
    o->out_at = 0;
    buf_clear(&o->out);
    if (o->out.cap > KEEP_BYTES)
        buf_done(&o->out);
    watch(o);
    return true;
}

static bool keep(struct oneway *o, const struct iovec v[3], size_t sent)
{
    if (o->out_at > KEEP_BYTES) {
        o->out.n -= o->out_at;
        memmove(o->out.p, o->out.p + o->out_at, o->out.n);
        o->out_at = 0;
    }
    for (int i = 0; i < 3; i++) {
        size_t skip = sent < v[i].iov_len ? sent : v[i].iov_len;
        buf_put(&o->out, (char *)v[i].iov_base + skip, v[i].iov_len - skip);
        sent -= skip;
    }
    CHECK(!o->out.failed);
    if (!o->corked)
        watch(o);
    return true;
}

void oneway_cork(struct oneway *o)
{
    o->corked = true;
}

void oneway_uncork(struct oneway *o)
{
    o->corked = false;
    if (o->fd >= 0 && o->out.n > o->out_at && out_flush(o))
        watch(o); /* of a broken link the loop will notice */
}

bool oneway_send(struct oneway *o, struct str front, struct str body)
{
    size_t n = front.n + body.n, waits = o->out.n - o->out_at;
    uint8_t first[HEAD];
    struct iovec v[3] = { { first, HEAD }, { (void *)front.p, front.n }, { (void *)body.p, body.n } };
    struct msghdr m = { .msg_iov = v, .msg_iovlen = 3 };
    set_head(first, n);
    if (o->fd < 0 || !o->hello || n > ONEWAY_MSG_MAX || waits + n > ONEWAY_QUEUE_BYTES)
        return false;
    if (waits > 0 || o->corked)
        return keep(o, v, 0);
    ssize_t sent = sendmsg(o->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR)
        return false; /* the loop will notice */
    return sent == (ssize_t)(HEAD + n) || keep(o, v, sent < 0 ? 0 : (size_t)sent);
}

/* ---- the link ---- */

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
    struct oneway *o = arg;
    (void)s, (void)fd;
    bool ok = true;
    if (revents & EPOLLOUT)
        ok = out_flush(o);
    if (ok && (revents & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        ok = take(o);
    if (!ok)
        link_close(o);
    return 0;
}

static void link_open(struct oneway *o, int fd)
{
    if (!peer_ok(o, fd) || send(fd, HELLO, HELLO_BYTES, MSG_DONTWAIT | MSG_NOSIGNAL) != HELLO_BYTES ||
        sd_event_add_io(o->loop, &o->io, fd, EPOLLIN, on_io, o) < 0) {
        close(fd);
        return;
    }
    o->fd = fd;
    o->hello = false;
}

/* retry - at once after a link that was up, then ever later. */
static void retry(struct oneway *o)
{
    o->backoff_ms = o->backoff_ms == 0 ? RECONNECT_MIN_MS : 2 * o->backoff_ms;
    if (o->backoff_ms > RECONNECT_MAX_MS)
        o->backoff_ms = RECONNECT_MAX_MS;
    sd_event_source_set_time(o->redial, (clock_mono().ms + o->backoff_ms) * 1000u);
    sd_event_source_set_enabled(o->redial, SD_EVENT_ONESHOT);
}

static void link_close(struct oneway *o)
{
    o->io = sd_event_source_disable_unref(o->io);
    closep(&o->fd);
    o->fd = -1;
    o->out_at = 0;
    buf_done(&o->in);
    buf_done(&o->out);
    if (o->hello && o->link)
        o->link(o->arg, false);
    o->hello = false;
    if (o->dials)
        retry(o);
}

static void address(const struct oneway *o, struct sockaddr_un *ret)
{
    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    memcpy(ret->sun_path, o->path, sizeof ret->sun_path);
}

static int on_connection(sd_event_source *s, int listen_fd, uint32_t revents, void *arg)
{
    struct oneway *o = arg;
    (void)s, (void)revents;
    int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return 0;
    if (o->fd >= 0 && peer_ok(o, fd))
        link_close(o); /* it has started again */
    if (o->fd < 0)
        link_open(o, fd);
    else
        close(fd);
    return 0;
}

static int on_retry(sd_event_source *s, uint64_t usec, void *arg)
{
    (void)s, (void)usec;
    dial(arg);
    return 0;
}

/* Connecting to a socket of this host takes no time, or fails. */
static void dial(struct oneway *o)
{
    struct sockaddr_un sa;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    address(o, &sa);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0)
        link_open(o, fd);
    else if (fd >= 0)
        close(fd);
    if (o->fd < 0)
        retry(o);
}

static int start_listening(struct oneway *o, struct err *e)
{
    struct sockaddr_un sa;
    o->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (o->listen_fd < 0)
        return err_errno(e, errno, "socket");
    address(o, &sa);
    if (unlink(o->path) < 0 && errno != ENOENT) /* one instance per run folder: it is of one that is gone */
        return err_errno(e, errno, "remove the old %s", o->path);
    mode_t old = umask(0007);
    int r = bind(o->listen_fd, (struct sockaddr *)&sa, sizeof sa);
    umask(old);
    if (r < 0 || listen(o->listen_fd, 4) < 0)
        return err_errno(e, errno, "listen on %s", o->path);
    r = sd_event_add_io(o->loop, &o->listening, o->listen_fd, EPOLLIN, on_connection, o);
    return r < 0 ? err_errno(e, -r, "watch %s", o->path) : 0;
}

static int start_dialing(struct oneway *o, struct err *e)
{
    int r = sd_event_add_time(o->loop, &o->redial, CLOCK_MONOTONIC, 0, 1000, on_retry, o);
    return r < 0 ? err_errno(e, -r, "add timer") : 0; /* first from the loop: `link` must not be called before */
}

static int oneway_open(struct oneway **ret, sd_event *loop, const char *run_dir, const char *name, uid_t only,
                       oneway_fn *fn, oneway_link_fn *link, void *arg, bool dials, struct err *e)
{
    struct oneway *o = calloc(1, sizeof *o);
    CHECK(o != NULL);
    *o = (struct oneway){
        .loop = loop, .only = only, .fn = fn, .link = link, .arg = arg, .dials = dials, .listen_fd = -1, .fd = -1
    };
    o->in.limit = (size_t)2 * ONEWAY_MSG_MAX;
    o->out.limit = (size_t)2 * ONEWAY_QUEUE_BYTES + ONEWAY_MSG_MAX;
    int r = snprintf(o->path, sizeof o->path, "%s/%s", run_dir, name) >= (int)sizeof o->path
                ? err_set(e, ERR_INVALID, "run folder: name too long")
            : dials ? start_dialing(o, e)
                    : start_listening(o, e);
    if (r < 0) {
        oneway_free(o);
        return r;
    }
    *ret = o;
    return 0;
}

int oneway_listen(struct oneway **ret, sd_event *loop, const char *run_dir, const char *name, uid_t only, oneway_fn *fn,
                  oneway_link_fn *link, void *arg, struct err *e)
{
    return oneway_open(ret, loop, run_dir, name, only, fn, link, arg, false, e);
}

int oneway_dial(struct oneway **ret, sd_event *loop, const char *run_dir, const char *name, uid_t only, oneway_fn *fn,
                oneway_link_fn *link, void *arg, struct err *e)
{
    return oneway_open(ret, loop, run_dir, name, only, fn, link, arg, true, e);
}

struct oneway *oneway_free(struct oneway *o)
{
    if (!o)
        return NULL;
    o->io = sd_event_source_disable_unref(o->io);
    o->listening = sd_event_source_disable_unref(o->listening);
    o->redial = sd_event_source_disable_unref(o->redial);
    closep(&o->fd);
    closep(&o->listen_fd);
    buf_done(&o->in);
    buf_done(&o->out);
    free(o);
    return NULL;
}
