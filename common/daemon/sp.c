#include "common/daemon/sp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/util/check.h"
#include "common/util/cleanup.h"
#include "common/util/clock.h"

#define READ_BYTES (64u << 10)
#define KEEP_BYTES (64u << 10) /* of idle buffers */
#define BACKLOG 128
#define ACCEPT_AGAIN_MS 100u /* when there are too many descriptors */

struct sp_pipe {
    struct sp *sp; /* NULL: closed; freed when nobody looks at it any more */
    struct sp_pipe *next, **prev;
    int fd;
    uint32_t events;
    sd_event_source *io, *again; /* again: what was read while the pipe was paused */
    struct buf in, out;          /* the unread rest; what the socket did not take, from out_at on */
    size_t out_at;
    bool up, paused, broken;
    unsigned busy; /* calls that go on with it */
    struct ucred peer;
    void *data;
};

struct sp {
    struct sp_conf c;
    char path[108];
    struct sp_pipe *pipes;
    int listen_fd;
    sd_event_source *listening, *redial;
    bool dials;
    uint64_t backoff_ms;
};

static void dial(struct sp *s);

/* ---- what stands before messages ---- */

static enum sp_proto peer_of(enum sp_proto own)
{
    switch (own) {
    case SP_PUB:
        return SP_SUB;
    case SP_SUB:
        return SP_PUB;
    case SP_REQ:
        return SP_REP;
    case SP_REP:
        return SP_REQ;
    default:
        return own;
    }
}

void sp_hello(char ret[SP_HELLO_BYTES], enum sp_proto own)
{
    const char h[SP_HELLO_BYTES] = { 0, 'S', 'P', 0, 0, (char)own, 0, 0 };
    memcpy(ret, h, sizeof h);
}

void sp_head(char ret[SP_HEAD_BYTES], size_t n)
{
    ret[0] = 1;
    for (size_t i = SP_HEAD_BYTES - 1; i > 0; i--, n >>= 8)
        ret[i] = (char)(n & 0xff);
}

bool sp_head_read(const char head[SP_HEAD_BYTES], size_t max, size_t *ret_n)
{
    uint64_t n = 0;
    for (size_t i = 1; i < SP_HEAD_BYTES; i++)
        n = n << 8 | (uint8_t)head[i];
    *ret_n = (size_t)n;
    return head[0] == 1 && n <= max;
}

/* ---- the end of a pipe ---- */

static void pipe_unref(struct sp_pipe *p)
{
    if (--p->busy > 0 || p->sp != NULL)
        return;
    buf_done(&p->in);
    buf_done(&p->out);
    free(p);
}

/* retry - soon after a pipe that was up, then ever later. */
static void retry(struct sp *s)
{
    s->backoff_ms = s->backoff_ms == 0 ? s->c.retry_min_ms : 2 * s->backoff_ms;
    if (s->backoff_ms > s->c.retry_max_ms)
        s->backoff_ms = s->c.retry_max_ms;
    (void)sd_event_source_set_time(s->redial, (clock_mono().ms + s->backoff_ms) * 1000u);
    (void)sd_event_source_set_enabled(s->redial, SD_EVENT_ONESHOT);
}

static void pipe_close(struct sp_pipe *p)
{
    struct sp *s = p->sp;
    if (s == NULL)
        return;
    p->busy++;
    *p->prev = p->next;
    if (p->next)
        p->next->prev = p->prev;
    p->sp = NULL;
    p->io = sd_event_source_disable_unref(p->io);
    p->again = sd_event_source_disable_unref(p->again);
    closep(&p->fd);
    p->fd = -1;
    if (p->up)
        s->backoff_ms = 0;
    if (s->dials)
        retry(s);
    if (p->up && s->c.ops->down)
        s->c.ops->down(s->c.arg, p); /* may free s */
    pipe_unref(p);
}

void sp_hang_up(struct sp_pipe *p)
{
    pipe_close(p);
}

/* ---- what comes in ---- */

/* shake - false: it is no peer of ours. */
static bool shake(struct sp_pipe *p)
{
    const struct sp *s = p->sp;
    char want[SP_HELLO_BYTES];
    if (p->up || p->in.n < SP_HELLO_BYTES)
        return true;
    sp_hello(want, peer_of(s->c.own));
    if (memcmp(p->in.p, want, SP_HELLO_BYTES) != 0 || (s->c.ops->admit && !s->c.ops->admit(s->c.arg, p->peer.uid)))
        return false;
    p->in.n -= SP_HELLO_BYTES;
    memmove(p->in.p, p->in.p + SP_HELLO_BYTES, p->in.n);
    p->up = true;
    if (s->c.ops->up)
        s->c.ops->up(s->c.arg, p);
    return true;
}

static void cut(struct buf *b, size_t at)
{
    if (at == 0)
        return;
    b->n -= at;
    memmove(b->p, b->p + at, b->n);
    if (b->n == 0 && b->cap > KEEP_BYTES)
        buf_done(b);
}

/* deliver - every whole message; false: the peer talks nonsense. */
static bool deliver(struct sp_pipe *p)
{
    size_t at = 0, n;
    if (!shake(p))
        return false;
    while (p->sp && p->up && !p->paused && p->in.n - at >= SP_HEAD_BYTES) {
        if (!sp_head_read(p->in.p + at, p->sp->c.msg_max, &n))
            return false;
        if (p->in.n - at - SP_HEAD_BYTES < n)
            break;
        struct str msg = { p->in.p + at + SP_HEAD_BYTES, n };
        at += SP_HEAD_BYTES + n;
        p->sp->c.ops->msg(p->sp->c.arg, p, msg);
    }
    cut(&p->in, at);
    return true;
}

/* take - false: the pipe is over. */
static bool take(struct sp_pipe *p)
{
    size_t want = READ_BYTES, n_msg;
    if (p->up && p->in.n >= SP_HEAD_BYTES && sp_head_read(p->in.p, p->sp->c.msg_max, &n_msg) &&
        n_msg + SP_HEAD_BYTES > p->in.n + want)
        want = n_msg + SP_HEAD_BYTES - p->in.n;
    char *to = buf_reserve(&p->in, want);
    if (to == NULL)
        return false;
    ssize_t n = recv(p->fd, to, want, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    p->in.n += (size_t)n;
    return n > 0 && deliver(p);
}

/* ---- what goes out ---- */

static void watch(struct sp_pipe *p)
{
    uint32_t events = (p->paused ? 0 : EPOLLIN) | (p->out.n > p->out_at ? EPOLLOUT : 0);
    if (p->io && events != p->events && sd_event_source_set_io_events(p->io, events) >= 0)
        p->events = events;
}

static bool out_flush(struct sp_pipe *p)
{
    bool any = p->out.n > p->out_at;
    while (p->out.n > p->out_at) {
        ssize_t n = send(p->fd, p->out.p + p->out_at, p->out.n - p->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        p->out_at += (size_t)n;
    }
    p->out_at = 0;
    buf_clear(&p->out);
    if (p->out.cap > KEEP_BYTES)
        buf_done(&p->out);
    watch(p);
    if (any && p->sp->c.ops->drained)
        p->sp->c.ops->drained(p->sp->c.arg, p);
    return true;
}

static void keep(struct sp_pipe *p, const struct iovec v[3], size_t sent)
{
    if (p->out_at > KEEP_BYTES) {
        cut(&p->out, p->out_at);
        p->out_at = 0;
    }
    for (int i = 0; i < 3; i++) {
        size_t skip = sent < v[i].iov_len ? sent : v[i].iov_len;
        buf_put(&p->out, (char *)v[i].iov_base + skip, v[i].iov_len - skip);
        sent -= skip;
    }
    p->broken |= p->out.failed; /* cut in the middle of a message: the pipe is no good any more */
    watch(p);
}

void sp_send(struct sp_pipe *p, struct str head, struct str body)
{
    char first[SP_HEAD_BYTES];
    struct iovec v[3] = { { first, sizeof first }, { (void *)head.p, head.n }, { (void *)body.p, body.n } };
    struct msghdr m = { .msg_iov = v, .msg_iovlen = 3 };
    size_t n = sizeof first + head.n + body.n;
    sp_head(first, head.n + body.n);
    if (p->sp == NULL || p->broken)
        return;
    if (p->out.n > p->out_at) {
        keep(p, v, 0);
    } else {
        ssize_t sent = sendmsg(p->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            p->broken = true; /* what it had sent before comes first; then reading tells that it is gone */
        else if (sent != (ssize_t)n)
            keep(p, v, sent < 0 ? 0 : (size_t)sent);
    }
    if (p->broken && p->out.failed)
        (void)shutdown(p->fd, SHUT_RDWR);
}

size_t sp_unsent(const struct sp_pipe *p)
{
    return p->out.n - p->out_at;
}

/* ---- a pipe ---- */

static void go_on(struct sp_pipe *p, bool ok)
{
    if (!ok && p->sp != NULL)
        pipe_close(p);
    pipe_unref(p);
}

static int on_io(sd_event_source *src, int fd, uint32_t revents, void *arg)
{
    struct sp_pipe *p = arg;
    bool ok = true;
    (void)src, (void)fd;
    p->busy++;
    if (revents & EPOLLOUT)
        ok = out_flush(p);
    if (ok && p->sp && (revents & EPOLLIN))
        ok = take(p);
    else if (ok && p->sp && (revents & (EPOLLHUP | EPOLLERR)))
        ok = false;
    go_on(p, ok);
    return 0;
}

static int on_again(sd_event_source *src, void *arg)
{
    struct sp_pipe *p = arg;
    (void)src;
    p->busy++;
    go_on(p, deliver(p));
    return 0;
}

void sp_pause(struct sp_pipe *p, bool pause)
{
    if (p->sp == NULL || p->paused == pause)
        return;
    p->paused = pause;
    watch(p);
    if (pause || p->in.n == 0)
        return;
    if (p->again == NULL && sd_event_add_defer(p->sp->c.loop, &p->again, on_again, p) < 0)
        return; /* with what comes next */
    (void)sd_event_source_set_enabled(p->again, SD_EVENT_ONESHOT);
}

/* pipe_open - takes the descriptor. */
static void pipe_open(struct sp *s, int fd)
{
    char hello[SP_HELLO_BYTES];
    struct sp_pipe *p = calloc(1, sizeof *p);
    socklen_t n = sizeof p->peer;
    CHECK(p != NULL);
    sp_hello(hello, s->c.own);
    p->fd = fd;
    p->in.limit = s->c.msg_max + 2u * READ_BYTES;
    p->out.limit = (size_t)1 << 30;
    p->events = EPOLLIN;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &p->peer, &n) < 0 ||
        send(fd, hello, sizeof hello, MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof hello ||
        sd_event_add_io(s->c.loop, &p->io, fd, EPOLLIN, on_io, p) < 0) {
        close(fd);
        free(p);
        return;
    }
    p->sp = s;
    p->next = s->pipes;
    p->prev = &s->pipes;
    if (p->next)
        p->next->prev = &p->next;
    s->pipes = p;
}

uid_t sp_uid(const struct sp_pipe *p)
{
    return p->peer.uid;
}

pid_t sp_pid(const struct sp_pipe *p)
{
    return p->peer.pid;
}

void sp_set(struct sp_pipe *p, void *data)
{
    p->data = data;
}

void *sp_get(const struct sp_pipe *p)
{
    return p->data;
}

struct sp_pipe *sp_each(const struct sp *s, const struct sp_pipe *before)
{
    struct sp_pipe *p = before ? before->next : s->pipes;
    while (p && !p->up)
        p = p->next;
    return p;
}

/* ---- sockets ---- */

static void address(const struct sp *s, struct sockaddr_un *ret)
{
    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    memcpy(ret->sun_path, s->path, sizeof ret->sun_path);
}

static int on_connection(sd_event_source *src, int listen_fd, uint32_t revents, void *arg)
{
    struct sp *s = arg;
    (void)src, (void)revents;
    int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        pipe_open(s, fd);
    } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        (void)sd_event_source_set_enabled(s->listening, SD_EVENT_OFF);
        (void)sd_event_source_set_time(s->redial, (clock_mono().ms + ACCEPT_AGAIN_MS) * 1000u);
        (void)sd_event_source_set_enabled(s->redial, SD_EVENT_ONESHOT);
    }
    return 0;
}

static int on_accept_again(sd_event_source *src, uint64_t usec, void *arg)
{
    struct sp *s = arg;
    (void)src, (void)usec;
    (void)sd_event_source_set_enabled(s->listening, SD_EVENT_ON);
    return 0;
}

static int on_redial(sd_event_source *src, uint64_t usec, void *arg)
{
    (void)src, (void)usec;
    dial(arg);
    return 0;
}

/* Connecting to a socket of this host takes no time, or fails. */
static void dial(struct sp *s)
{
    struct sockaddr_un sa;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    address(s, &sa);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0)
        pipe_open(s, fd);
    else if (fd >= 0)
        close(fd);
    if (s->pipes == NULL)
        retry(s);
}

static int start_listening(struct sp *s, struct err *e)
{
    struct sockaddr_un sa;
    s->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->listen_fd < 0)
        return err_errno(e, errno, "socket");
    address(s, &sa);
    if (unlink(s->path) < 0 && errno != ENOENT) /* one instance per run folder: it is of one that is gone */
        return err_errno(e, errno, "remove the old %s", s->path);
    mode_t old = umask(0117);
    int r = bind(s->listen_fd, (struct sockaddr *)&sa, sizeof sa);
    umask(old);
    if (r < 0 || listen(s->listen_fd, BACKLOG) < 0)
        return err_errno(e, errno, "listen on %s", s->path);
    r = sd_event_add_io(s->c.loop, &s->listening, s->listen_fd, EPOLLIN, on_connection, s);
    if (r >= 0)
        r = sd_event_add_time(s->c.loop, &s->redial, CLOCK_MONOTONIC, UINT64_MAX, 1000, on_accept_again, s);
    return r < 0 ? err_errno(e, -r, "watch %s", s->path) : 0;
}

static int start_dialing(struct sp *s, struct err *e)
{
    /* First from the loop: nothing is called before sp_dial() has returned. */
    int r = sd_event_add_time(s->c.loop, &s->redial, CLOCK_MONOTONIC, 0, 1000, on_redial, s);
    return r < 0 ? err_errno(e, -r, "add timer") : 0;
}

static int sp_open(struct sp **ret, const struct sp_conf *c, bool dials, struct err *e)
{
    struct sp *s = calloc(1, sizeof *s);
    CHECK(s != NULL);
    s->c = *c;
    s->listen_fd = -1;
    s->dials = dials;
    int r = !str_copy(s->path, sizeof s->path, str_from(c->path)) ? err_set(e, ERR_INVALID, "run folder: name too long")
            : dials                                               ? start_dialing(s, e)
                                                                  : start_listening(s, e);
    s->c.path = NULL; /* borrowed: not kept */
    if (r < 0) {
        sp_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

int sp_listen(struct sp **ret, const struct sp_conf *c, struct err *e)
{
    return sp_open(ret, c, false, e);
}

int sp_dial(struct sp **ret, const struct sp_conf *c, struct err *e)
{
    return sp_open(ret, c, true, e);
}

struct sp *sp_free(struct sp *s)
{
    if (s == NULL)
        return NULL;
    s->dials = false;
    while (s->pipes) {
        s->pipes->up = false; /* nobody is told */
        pipe_close(s->pipes);
    }
    s->listening = sd_event_source_disable_unref(s->listening);
    s->redial = sd_event_source_disable_unref(s->redial);
    if (s->listen_fd >= 0) {
        close(s->listen_fd);
        (void)unlink(s->path);
    }
    free(s);
    return NULL;
}
