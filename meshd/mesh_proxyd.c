/* mesh_proxyd.c - the process of mesh_proxy.h: one epoll loop, no threads. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/util/check.h"
#include "meshd/mesh_proxy.h"

#define CHUNK 65536u
#define FLOW_MS 60000u   /* a UDP client that has been silent for so long is forgotten */
#define FLOWS_MAX 16384u /* of UDP; then the oldest goes */
#define CONTROL_MAX (1u << 20)

enum kind { CONTROL_LISTENER, CONTROL, TCP_LISTENER, UDP_LISTENER, TCP_SIDE, UDP_FLOW };

struct thing {
    enum kind kind;
    int fd;
};
struct listener {
    struct thing t;
    struct mesh_proxy_port port;
    struct listener *next;
    bool keep;
};
struct side { /* one of a connection's two */
    struct thing t;
    struct pair *pair;
    char *buf; /* read from here, not yet written to the other */
    size_t off, n;
    bool in_end, out_end; /* read to the end; told the other end of it */
    uint32_t events;
};
struct pair {
    struct side side[2]; /* client, mesh */
    bool connected;
};
struct flow { /* a UDP client at a port */
    struct thing t;
    struct listener *l;
    struct sockaddr_in6 client;
    struct in6_pktinfo to; /* which of our addresses it asked */
    uint64_t last_ms;
    struct flow *next;
};

static struct {
    int epoll, control_listener, control;
    int spare; /* a descriptor to give up when there are no others, so that who waits can be told no */
    struct thing listener_thing, control_thing;
    struct listener *listeners;
    struct flow *flows;
    size_t nflows, npairs;
    char *chunk;
    void **dead; /* freed after the round: an event for it may still be in it */
    size_t ndead, cdead;
} self;

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void watch(struct thing *t, uint32_t events, int op)
{
    struct epoll_event ev = { .events = events, .data.ptr = t };
    (void)epoll_ctl(self.epoll, op, t->fd, &ev);
}

static void drop(void *p)
{
    if (self.ndead == self.cdead) {
        self.cdead = self.cdead * 2 + 64;
        self.dead = realloc(self.dead, self.cdead * sizeof *self.dead);
        CHECK(self.dead != NULL);
    }
    self.dead[self.ndead++] = p;
}

static struct sockaddr_in mesh_at(uint16_t port)
{
    return (struct sockaddr_in){ .sin_family = AF_INET,
                                 .sin_port = htons(port),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

/* ---- TCP ---- */

static void pair_end(struct pair *p, bool hard)
{
    struct linger reset = { .l_onoff = 1 };
    for (int i = 0; i < 2; i++) {
        struct side *s = &p->side[i];
        if (hard && s->t.fd >= 0)
            (void)setsockopt(s->t.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        if (s->t.fd >= 0)
            close(s->t.fd);
        s->t.fd = -1;
        free(s->buf);
        s->buf = NULL;
    }
    self.npairs--;
    drop(p);
}

static void want_events(struct side *s)
{
    const struct side *other = &s->pair->side[s == &s->pair->side[0]];
    uint32_t events = (s->n == 0 && !s->in_end && s->pair->connected ? EPOLLIN : 0) |
                      (other->n || (!s->pair->connected && s == &s->pair->side[1]) ? EPOLLOUT : 0);
    if (events != s->events)
        watch(&s->t, events, EPOLL_CTL_MOD);
    s->events = events;
}

/* flush - what s has read goes out at the other. False: the connection is over. */
static bool flush_side(struct side *s)
{
    struct side *other = &s->pair->side[s == &s->pair->side[0]];
    while (s->n) {
        ssize_t w = send(other->t.fd, s->buf + s->off, s->n, MSG_NOSIGNAL);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return errno == EAGAIN;
        s->off += (size_t)w;
        s->n -= (size_t)w;
    }
    free(s->buf);
    s->buf = NULL;
    if (s->in_end && !s->out_end) {
        s->out_end = true;
        (void)shutdown(other->t.fd, SHUT_WR);
    }
    return true;
}

static bool read_side(struct side *s)
{
    struct side *other = &s->pair->side[s == &s->pair->side[0]];
    ssize_t r = recv(s->t.fd, self.chunk, CHUNK, 0);
    if (r < 0)
        return errno == EAGAIN || errno == EINTR;
    if (r == 0) {
        s->in_end = true;
        return flush_side(s);
    }
    ssize_t w = send(other->t.fd, self.chunk, (size_t)r, MSG_NOSIGNAL);
    if (w < 0 && errno != EAGAIN && errno != EINTR)
        return false;
    w = w < 0 ? 0 : w;
    if (w == r)
        return true;
    s->n = (size_t)(r - w);
    s->off = 0;
    s->buf = malloc(s->n);
    CHECK(s->buf != NULL);
    memcpy(s->buf, self.chunk + w, s->n);
    return true;
}

static void on_side(struct side *s, uint32_t events)
{
    struct pair *p = s->pair;
    struct side *other = &p->side[s == &p->side[0]];
    bool ok = true;
    if (!p->connected) {
        int error = 0;
        socklen_t len = sizeof error;
        if (s == &p->side[1])
            (void)getsockopt(s->t.fd, SOL_SOCKET, SO_ERROR, &error, &len);
        ok = !error && s == &p->side[1];
        p->connected = ok;
    } else if (events & EPOLLERR) {
        ok = false;
    } else {
        if (events & EPOLLOUT)
            ok = flush_side(other);
        if (ok && events & (EPOLLIN | EPOLLHUP) && s->n == 0 && !s->in_end)
            ok = read_side(s);
    }
    if (!ok || (p->side[0].out_end && p->side[1].out_end)) {
        pair_end(p, !ok);
        return;
    }
    if (events & EPOLLHUP && s->in_end) /* it would be told of that for ever */
        watch(&s->t, 0, EPOLL_CTL_DEL);
    want_events(s);
    want_events(other);
}

static void side_add(struct pair *p, int i, int fd)
{
    p->side[i] = (struct side){ .t = { TCP_SIDE, fd }, .pair = p };
    watch(&p->side[i].t, 0, EPOLL_CTL_ADD);
}

static void on_tcp(struct listener *l)
{
    struct sockaddr_in to = mesh_at(l->port.port);
    int fd = accept4(l->t.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE) && self.spare >= 0) {
        close(self.spare);
        fd = accept4(l->t.fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0)
            close(fd);
        self.spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
        return;
    }
    if (fd < 0)
        return;
    struct pair *p = calloc(1, sizeof *p);
    int out = p ? socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) : -1;
    if (out < 0 || (connect(out, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)) {
        struct linger reset = { .l_onoff = 1 };
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(fd);
        if (out >= 0)
            close(out);
        free(p);
        return;
    }
    self.npairs++;
    side_add(p, 0, fd);
    side_add(p, 1, out);
    want_events(&p->side[1]);
}

/* ---- UDP ---- */

static void flow_end(struct flow **at)
{
    struct flow *f = *at;
    *at = f->next;
    close(f->t.fd);
    f->t.fd = -1;
    self.nflows--;
    drop(f);
}

static void flows_of(const struct listener *l, uint64_t older_than)
{
    for (struct flow **at = &self.flows; *at;)
        if ((!l || (*at)->l == l) && (*at)->last_ms < older_than)
            flow_end(at);
        else
            at = &(*at)->next;
}

static struct flow *flow_for(struct listener *l, const struct sockaddr_in6 *client)
{
    for (struct flow *f = self.flows; f; f = f->next)
        if (f->l == l && f->client.sin6_port == client->sin6_port && f->client.sin6_scope_id == client->sin6_scope_id &&
            memcmp(&f->client.sin6_addr, &client->sin6_addr, sizeof client->sin6_addr) == 0)
            return f;
    struct sockaddr_in to = mesh_at(l->port.port);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct flow *f = fd >= 0 && self.nflows < FLOWS_MAX ? calloc(1, sizeof *f) : NULL;
    if (!f || connect(fd, (struct sockaddr *)&to, sizeof to) < 0) {
        if (fd >= 0)
            close(fd);
        free(f);
        return NULL;
    }
    *f = (struct flow){ .t = { UDP_FLOW, fd }, .l = l, .client = *client, .next = self.flows };
    self.flows = f;
    self.nflows++;
    watch(&f->t, EPOLLIN, EPOLL_CTL_ADD);
    return f;
}

static void on_udp(struct listener *l)
{
    struct sockaddr_in6 client;
    char control[CMSG_SPACE(sizeof(struct in6_pktinfo))] __attribute__((aligned(8)));
    struct iovec iov = { self.chunk, CHUNK };
    struct msghdr m = { .msg_name = &client,
                        .msg_namelen = sizeof client,
                        .msg_iov = &iov,
                        .msg_iovlen = 1,
                        .msg_control = control,
                        .msg_controllen = sizeof control };
    ssize_t n = recvmsg(l->t.fd, &m, 0);
    struct flow *f = n >= 0 ? flow_for(l, &client) : NULL;
    if (!f)
        return;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO)
            memcpy(&f->to, CMSG_DATA(c), sizeof f->to);
    f->last_ms = now_ms();
    (void)send(f->t.fd, self.chunk, (size_t)n, 0);
}

/* on_flow - an answer, sent from the address that was asked. */
static void on_flow(struct flow *f)
{
    char control[CMSG_SPACE(sizeof(struct in6_pktinfo))] __attribute__((aligned(8))) = { 0 };
    ssize_t n = recv(f->t.fd, self.chunk, CHUNK, 0);
    if (n < 0) /* nobody there: says nothing to the client */
        return;
    struct iovec iov = { self.chunk, (size_t)n };
    struct msghdr m = { .msg_name = &f->client,
                        .msg_namelen = sizeof f->client,
                        .msg_iov = &iov,
                        .msg_iovlen = 1,
                        .msg_control = control,
                        .msg_controllen = sizeof control };
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    *c = (struct cmsghdr){ .cmsg_level = IPPROTO_IPV6, .cmsg_type = IPV6_PKTINFO, .cmsg_len = CMSG_LEN(sizeof f->to) };
    memcpy(CMSG_DATA(c), &f->to, sizeof f->to);
    f->last_ms = now_ms();
    (void)sendmsg(f->l->t.fd, &m, 0);
}

/* ---- ports ---- */

static int listen_on(struct mesh_proxy_port *port)
{
    struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(port->port) };
    bool udp = port->proto == IPPROTO_UDP;
    int one = 1;
    if (!udp && port->proto != IPPROTO_TCP) {
        port->errnum = EPROTONOSUPPORT;
        return -1;
    }
    int fd = socket(AF_INET6, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) == 0 &&
        (udp ? setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof one)
             : setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one)) == 0 &&
        bind(fd, (struct sockaddr *)&any, sizeof any) == 0 && (udp || listen(fd, 4096) == 0))
        return fd;
    port->errnum = errno;
    if (fd >= 0)
        close(fd);
    return -1;
}

static void port_want(struct mesh_proxy_port *port)
{
    port->errnum = 0;
    for (struct listener *l = self.listeners; l; l = l->next)
        if (l->port.proto == port->proto && l->port.port == port->port) {
            l->keep = true;
            return;
        }
    int fd = listen_on(port);
    struct listener *l = fd >= 0 ? calloc(1, sizeof *l) : NULL;
    if (!l)
        return;
    *l = (struct listener){ .t = { port->proto == IPPROTO_UDP ? UDP_LISTENER : TCP_LISTENER, fd },
                            .port = *port,
                            .next = self.listeners,
                            .keep = true };
    self.listeners = l;
    watch(&l->t, EPOLLIN, EPOLL_CTL_ADD);
}

static void on_control(void)
{
    static char in[CONTROL_MAX] __attribute__((aligned(8)));
    ssize_t n = recv(self.control, in, sizeof in, MSG_DONTWAIT);
    if (n <= 0) { /* meshd went; what it said holds */
        close(self.control);
        self.control = -1;
        return;
    }
    struct mesh_proxy_port *ports = (struct mesh_proxy_port *)in;
    size_t count = (size_t)n / sizeof *ports;
    for (struct listener *l = self.listeners; l; l = l->next)
        l->keep = false;
    for (size_t i = 0; i < count; i++)
        port_want(&ports[i]);
    for (struct listener **at = &self.listeners; *at;) {
        struct listener *l = *at;
        if (l->keep) {
            at = &l->next;
            continue;
        }
        *at = l->next;
        flows_of(l, UINT64_MAX);
        close(l->t.fd);
        l->t.fd = -1;
        drop(l);
    }
    int size = (int)(count * sizeof *ports * 2) + 65536;
    (void)setsockopt(self.control, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    (void)send(self.control, in, count * sizeof *ports + !count, MSG_NOSIGNAL);
}

static void on_control_listener(void)
{
    int fd = accept4(self.control_listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (self.control >= 0) /* another meshd */
        close(self.control);
    self.control = fd;
    self.control_thing = (struct thing){ CONTROL, fd };
    watch(&self.control_thing, EPOLLIN, EPOLL_CTL_ADD);
}

static void dispatch(struct thing *t, uint32_t events)
{
    if (t->fd < 0) /* ended earlier in this round */
        return;
    switch (t->kind) {
    case CONTROL_LISTENER:
        on_control_listener();
        break;
    case CONTROL:
        if (t->fd == self.control)
            on_control();
        break;
    case TCP_LISTENER:
        on_tcp((struct listener *)t);
        break;
    case UDP_LISTENER:
        on_udp((struct listener *)t);
        break;
    case TCP_SIDE:
        on_side((struct side *)t, events);
        break;
    case UDP_FLOW:
        on_flow((struct flow *)t);
        break;
    }
}

static void limits(void)
{
    struct rlimit rl;
    if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
        rl.rlim_cur = rl.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &rl);
    }
}

int mesh_proxy_main(int control_fd)
{
    struct epoll_event evs[256];
    uint64_t aged = now_ms();
    signal(SIGPIPE, SIG_IGN);
    (void)prctl(PR_SET_NAME, "meshd-proxy");
    limits();
    self.epoll = epoll_create1(EPOLL_CLOEXEC);
    self.control_listener = control_fd;
    self.control = -1;
    self.spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    self.chunk = malloc(CHUNK);
    CHECK(self.chunk && self.epoll >= 0);
    (void)fcntl(control_fd, F_SETFL, O_NONBLOCK);
    self.listener_thing = (struct thing){ CONTROL_LISTENER, control_fd };
    watch(&self.listener_thing, EPOLLIN, EPOLL_CTL_ADD);
    bool told = false;
    for (;;) {
        int n = epoll_wait(self.epoll, evs, sizeof evs / sizeof *evs, self.nflows ? (int)FLOW_MS : -1);
        for (int i = 0; i < n; i++)
            dispatch(evs[i].data.ptr, evs[i].events);
        while (self.ndead)
            free(self.dead[--self.ndead]);
        if (self.nflows && now_ms() > aged + FLOW_MS / 4) {
            aged = now_ms();
            flows_of(NULL, aged - FLOW_MS);
            while (self.ndead)
                free(self.dead[--self.ndead]);
        }
        told |= self.listeners != NULL;
        if (told && !self.listeners && !self.npairs)
            return 0;
    }
}
