#include "meshd/dns/dns_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/util/check.h"
#include "common/util/cleanup.h"
#include "common/util/clock.h"
#include "meshd/netlink/mesh_ns.h"

#define PORTION 32u /* questions of one container before the others get their turn */
#define TENTH_MS 100u
#define TCP_MESSAGE_MAX 4096u /* of a question */

struct ask;
struct sandbox;

/* A client's connection. */
struct conn {
    struct conn *next;
    struct sandbox *sb;
    int fd;
    sd_event_source *io;
    uint64_t until_ms;
    size_t nin;
    uint8_t in[2 + TCP_MESSAGE_MAX];
    struct buf out;
    size_t sent;
    struct ask *ask; /* its question is outside */
};

struct sandbox {
    struct dns_server *s;
    char task[ID_SIZE], hostname[256];
    char *netns;
    size_t nnetworks;
    char (*networks)[ID_SIZE];
    size_t nservers;
    struct netmap_ip servers[DNS_SERVERS_MAX];
    bool single_inside, outside;
    int udp, tcp;
    sd_event_source *udp_io, *tcp_io;
    uint64_t tenth; /* the tenth of a second that `asked` counts in */
    unsigned asked, nasks, nconns;
    bool resting;
    struct conn *conns;
};

/* A question that is outside. */
struct ask {
    struct ask *next, *prev; /* in the order of their deadlines: all wait equally long */
    struct sandbox *sb;
    struct conn *conn;         /* over TCP; else: */
    struct sockaddr_in client; /* who asked */
    uint16_t id;               /* of the client */
    struct str query;          /* owned; with our id */
    size_t server;             /* number of the one that is asked */
    uint64_t until_ms;
    int fd;
    sd_event_source *io;
    bool own; /* the servers are the sandbox's, asked from inside */
    size_t sent;
    struct buf in; /* TCP: the answer with its length in front */
};

struct dns_server {
    sd_event *loop;
    const struct netmap *map;
    int home;               /* the host's namespace */
    struct table sandboxes; /* task ID -> struct sandbox * */
    size_t nhost;
    struct netmap_ip host[DNS_SERVERS_MAX];
    struct ask *first, *last;
    sd_event_source *timer;
    struct arena arena; /* of one question */
    struct buf out;
    struct dns_counts counts;
    unsigned resting; /* sandboxes */
    unsigned nconns;
};

/* ---- small things ---- */

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static uint32_t random32(void)
{
    uint32_t x;
    random_bytes(&x, sizeof x);
    return x;
}

static struct dns_zone zone_of(const struct sandbox *sb)
{
    return (struct dns_zone){
        sb->s->map,        sb->task,   sb->hostname, sb->nnetworks, (const char(*)[ID_SIZE])sb->networks,
        sb->single_inside, sb->outside
    };
}

static size_t servers_of(const struct ask *q, const struct netmap_ip **ret)
{
    *ret = q->own ? q->sb->servers : q->sb->s->host;
    return q->own ? q->sb->nservers : q->sb->s->nhost;
}

/* arm - the timer, for the next thing that is due */
static void arm(struct dns_server *s)
{
    uint64_t at = s->first ? s->first->until_ms : UINT64_MAX;
    struct sandbox **sb;

    if (s->resting > 0) {
        uint64_t next = (clock_mono().ms / TENTH_MS + 1) * TENTH_MS;
        at = next < at ? next : at;
    }
    for (struct table_pos p = { 0 }; s->nconns > 0 && table_next(&s->sandboxes, &p, NULL, &sb);)
        for (struct conn *c = (*sb)->conns; c; c = c->next)
            at = c->until_ms < at ? c->until_ms : at;
    if (at == UINT64_MAX) {
        (void)sd_event_source_set_enabled(s->timer, SD_EVENT_OFF);
        return;
    }
    (void)sd_event_source_set_time(s->timer, at * 1000);
    (void)sd_event_source_set_enabled(s->timer, SD_EVENT_ONESHOT);
}

/* ---- answers ---- */

static void conn_send(struct conn *c, struct str message);

static void conn_reply(struct conn *c, struct str message)
{
    c->ask = NULL;
    conn_send(c, message);
}

/* give - the answer with the client's own id */
static void give(struct ask *q, struct str message)
{
    char *m = (char *)message.p;
    m[0] = (char)(q->id >> 8);
    m[1] = (char)q->id;
    if (q->conn)
        conn_reply(q->conn, message);
    else
        (void)sendto(q->sb->udp, message.p, message.n, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&q->client,
                     sizeof q->client);
}

static void ask_close(struct ask *q)
{
    q->io = sd_event_source_disable_unref(q->io);
    close_fd(&q->fd);
}

static void ask_free(struct ask *q)
{
    struct dns_server *s = q->sb->s;

    ask_close(q);
    *(q->prev ? &q->prev->next : &s->first) = q->next;
    *(q->next ? &q->next->prev : &s->last) = q->prev;
    if (q->conn)
        q->conn->ask = NULL;
    q->sb->nasks--;
    s->counts.asks--;
    buf_done(&q->in);
    free((char *)q->query.p);
    free(q);
}

static void ask_append(struct dns_server *s, struct ask *q)
{
    q->next = NULL;
    q->prev = s->last;
    *(s->last ? &s->last->next : &s->first) = q;
    s->last = q;
}

/* ---- asking outside ---- */

static void ask_next(struct ask *q);

static void ask_end(struct ask *q, struct str answer)
{
    q->sb->s->counts.forwarded++;
    give(q, answer);
    ask_free(q);
}

static void ask_fail(struct ask *q)
{
    struct buf *out = &q->sb->s->out;
    q->sb->s->counts.failed++;
    buf_clear(out);
    dns_failure(q->query, DNS_SERVFAIL, out);
    if (!out->failed)
        give(q, buf_str(out));
    ask_free(q);
}

static void take_answer(struct ask *q, struct str answer)
{
    const struct netmap_ip *servers;
    if (answer.n < 12 || memcmp(answer.p, q->query.p, 2) != 0 || !dns_is_answer(q->query, answer))
        return; /* somebody's guess: the true one may still come */
    if (dns_try_next(answer) && q->server + 1 < servers_of(q, &servers))
        ask_next(q);
    else
        ask_end(q, answer);
}

static int on_udp_answer(sd_event_source *io, int fd, uint32_t revents, void *arg)
{
    static char m[DNS_MESSAGE_MAX];
    struct ask *q = arg;
    ssize_t n = recv(fd, m, sizeof m, MSG_DONTWAIT);
    (void)io, (void)revents;
    if (n >= 0)
        take_answer(q, (struct str){ m, (size_t)n });
    else if (errno != EAGAIN && errno != EINTR)
        ask_next(q);
    return 0;
}

static bool tcp_send_question(struct ask *q)
{
    char m[2 + TCP_MESSAGE_MAX];
    size_t n = q->query.n + 2;

    m[0] = (char)(q->query.n >> 8);
    m[1] = (char)q->query.n;
    memcpy(m + 2, q->query.p, q->query.n);
    ssize_t w = send(q->fd, m + q->sent, n - q->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (w < 0)
        return errno == EAGAIN || errno == EINTR;
    q->sent += (size_t)w;
    if (q->sent == n)
        (void)sd_event_source_set_io_events(q->io, EPOLLIN);
    return true;
}

static int on_tcp_answer(sd_event_source *io, int fd, uint32_t revents, void *arg)
{
    struct ask *q = arg;
    char *p;
    ssize_t n;

    (void)io;
    if (revents & EPOLLOUT && !(revents & (EPOLLERR | EPOLLHUP)) && q->sent < q->query.n + 2) {
        if (!tcp_send_question(q))
            ask_next(q);
        return 0;
    }
    p = buf_reserve(&q->in, 16384);
    n = p ? recv(fd, p, 16384, MSG_DONTWAIT) : 0;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0) {
        ask_next(q);
        return 0;
    }
    q->in.n += (size_t)n;
    if (q->in.n < 2)
        return 0;
    size_t len = (size_t)((uint8_t)q->in.p[0] << 8 | (uint8_t)q->in.p[1]);
    if (q->in.n >= len + 2) {
        struct str answer = { q->in.p + 2, len };
        if (len < 12 || memcmp(answer.p, q->query.p, 2) != 0 || !dns_is_answer(q->query, answer))
            ask_next(q);
        else
            take_answer(q, answer);
    }
    return 0;
}

static int connect_to(const struct netmap_ip *ip, int type)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } to = { 0 };
    socklen_t len;
    int fd = socket(ip->family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    if (ip->family == AF_INET) {
        to.v4 = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(53) };
        memcpy(&to.v4.sin_addr, ip->b, 4);
        len = sizeof to.v4;
    } else {
        to.v6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(53) };
        memcpy(&to.v6.sin6_addr, ip->b, 16);
        len = sizeof to.v6;
    }
    if (connect(fd, &to.any, len) < 0 && errno != EINPROGRESS)
        close_fd(&fd);
    return fd;
}

/* ask_server - false when this one cannot be asked at all */
static bool ask_server(struct ask *q, const struct netmap_ip *ip)
{
    struct dns_server *s = q->sb->s;
    struct err e = ERR_INIT;

    ask_close(q);
    if (q->own && mesh_ns_enter(q->sb->netns, &e) < 0)
        return false;
    q->fd = connect_to(ip, q->conn ? SOCK_STREAM : SOCK_DGRAM);
    if (q->own)
        mesh_ns_back(s->home);
    if (q->fd < 0)
        return false;
    random_bytes((char *)q->query.p, 2);
    q->sent = 0;
    buf_clear(&q->in);
    if (sd_event_add_io(s->loop, &q->io, q->fd, q->conn ? EPOLLOUT : EPOLLIN, q->conn ? on_tcp_answer : on_udp_answer,
                        q) < 0)
        return false;
    return q->conn || send(q->fd, q->query.p, q->query.n, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)q->query.n;
}

/* ask_from - the first server from `q->server` on that can be asked; a failure when there is none */
static void ask_from(struct ask *q)
{
    const struct netmap_ip *servers;
    size_t n = servers_of(q, &servers);

    while (q->server < n && !ask_server(q, &servers[q->server]))
        q->server++;
    if (q->server >= n) {
        ask_fail(q);
        return;
    }
    struct dns_server *s = q->sb->s; /* to the end of the line */
    *(q->prev ? &q->prev->next : &s->first) = q->next;
    *(q->next ? &q->next->prev : &s->last) = q->prev;
    q->until_ms = clock_mono().ms + DNS_ASK_MS;
    ask_append(s, q);
    arm(s);
}

static void ask_next(struct ask *q)
{
    q->server++;
    ask_from(q);
}

static bool ask_outside(struct sandbox *sb, struct str query, struct conn *c, const struct sockaddr_in *client)
{
    struct dns_server *s = sb->s;
    struct ask *q;

    if (sb->nasks >= DNS_ASKS_EACH || s->counts.asks >= DNS_ASKS_MAX || query.n > TCP_MESSAGE_MAX ||
        (q = calloc(1, sizeof *q)) == NULL) {
        s->counts.dropped++;
        return false;
    }
    q->sb = sb;
    q->fd = -1;
    q->conn = c;
    if (client)
        q->client = *client;
    q->id = (uint16_t)((uint8_t)query.p[0] << 8 | (uint8_t)query.p[1]);
    q->query = (struct str){ malloc(query.n), query.n };
    CHECK(q->query.p != NULL);
    memcpy((char *)q->query.p, query.p, query.n);
    q->in.limit = 2 + DNS_MESSAGE_MAX + 16384;
    q->own = sb->nservers > 0;
    sb->nasks++;
    s->counts.asks++;
    if (c)
        c->ask = q;
    ask_append(s, q);
    ask_from(q);
    return true;
}

/* ---- questions ---- */

/* serve - `out` has the answer when it is true; else it comes later, or never */
static bool serve(struct sandbox *sb, struct str query, struct conn *c, const struct sockaddr_in *client)
{
    struct dns_server *s = sb->s;
    struct dns_zone z = zone_of(sb);

    s->counts.questions++;
    arena_reset(&s->arena);
    buf_clear(&s->out);
    switch (dns_answer(&z, query, c != NULL, random32(), &s->arena, &s->out)) {
    case DNS_REPLY:
        s->counts.answered++;
        return !s->out.failed;
    case DNS_FORWARD:
        if (!ask_outside(sb, query, c, client) && c) {
            dns_failure(query, DNS_SERVFAIL, &s->out);
            return !s->out.failed;
        }
        return false;
    case DNS_IGNORE:
        break;
    }
    return false;
}

/* may_ask - or has it had its share of this tenth of a second? */
static bool may_ask(struct sandbox *sb)
{
    uint64_t tenth = clock_mono().ms / TENTH_MS;

    if (sb->tenth != tenth) {
        sb->tenth = tenth;
        sb->asked = 0;
    }
    if (sb->asked++ < DNS_RATE / 10)
        return true;
    if (!sb->resting) { /* what waits in its socket's buffer is served later, what does not fit is dropped there */
        sb->resting = true;
        sb->s->resting++;
        (void)sd_event_source_set_enabled(sb->udp_io, SD_EVENT_OFF);
        arm(sb->s);
    }
    return false;
}

static int on_udp(sd_event_source *io, int fd, uint32_t revents, void *arg)
{
    static char m[DNS_MESSAGE_MAX];
    struct sandbox *sb = arg;
    (void)io, (void)revents;

    for (unsigned i = 0; i < PORTION && may_ask(sb); i++) {
        struct sockaddr_in from;
        socklen_t len = sizeof from;
        ssize_t n = recvfrom(fd, m, sizeof m, MSG_DONTWAIT, (struct sockaddr *)&from, &len);
        if (n < 0)
            break;
        if (serve(sb, (struct str){ m, (size_t)n }, NULL, &from))
            (void)sendto(fd, sb->s->out.p, sb->s->out.n, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&from, len);
    }
    return 0;
}

/* ---- connections ---- */

static void conn_free(struct conn *c)
{
    struct conn **pp = &c->sb->conns;
    while (*pp != c)
        pp = &(*pp)->next;
    *pp = c->next;
    c->sb->nconns--;
    c->sb->s->nconns--;
    if (c->ask)
        ask_free(c->ask);
    c->io = sd_event_source_disable_unref(c->io);
    close_fd(&c->fd);
    buf_done(&c->out);
    free(c);
}

/* conn_flush - false: the connection is gone */
static bool conn_flush(struct conn *c)
{
    while (c->sent < c->out.n) {
        ssize_t n = send(c->fd, c->out.p + c->sent, c->out.n - c->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n < 0) {
            conn_free(c);
            return false;
        }
        c->sent += (size_t)n;
    }
    bool all = c->sent == c->out.n;
    if (all) {
        buf_clear(&c->out);
        c->sent = 0;
    }
    (void)sd_event_source_set_io_events(c->io, all ? (c->ask ? 0 : EPOLLIN) : EPOLLOUT);
    return true;
}

/* conn_next - the question that is there whole, one at a time; false: the connection is gone */
static bool conn_next(struct conn *c)
{
    while (!c->ask && c->out.n == 0 && c->nin >= 2) {
        size_t len = (size_t)(c->in[0] << 8 | c->in[1]);
        if (len > TCP_MESSAGE_MAX) {
            conn_free(c);
            return false;
        }
        if (c->nin < len + 2)
            break;
        char query[TCP_MESSAGE_MAX];
        memcpy(query, c->in + 2, len);
        c->nin -= len + 2;
        memmove(c->in, c->in + len + 2, c->nin);
        if (serve(c->sb, (struct str){ query, len }, c, NULL)) {
            struct buf *out = &c->sb->s->out;
            uint8_t head[2] = { (uint8_t)(out->n >> 8), (uint8_t)out->n };
            buf_put(&c->out, head, 2);
            buf_put(&c->out, out->p, out->n);
        } else if (!c->ask && c->out.n == 0) { /* nothing will ever come */
            conn_free(c);
            return false;
        }
        if (!conn_flush(c))
            return false;
    }
    return true;
}

/* conn_send - an answer from outside */
static void conn_send(struct conn *c, struct str message)
{
    uint8_t head[2] = { (uint8_t)(message.n >> 8), (uint8_t)message.n };
    buf_put(&c->out, head, 2);
    buf_put(&c->out, message.p, message.n);
    c->until_ms = clock_mono().ms + DNS_IDLE_MS;
    (void)sd_event_source_set_io_events(c->io, EPOLLOUT); /* goes on from the loop: an ask is being ended here */
}

static int on_conn(sd_event_source *io, int fd, uint32_t revents, void *arg)
{
    struct conn *c = arg;
    (void)io;

    if (revents & (EPOLLERR | EPOLLHUP) && !(revents & EPOLLIN)) {
        conn_free(c);
        return 0;
    }
    if (revents & EPOLLOUT && !conn_flush(c))
        return 0;
    if (revents & EPOLLIN && c->nin < sizeof c->in) {
        ssize_t n = recv(fd, c->in + c->nin, sizeof c->in - c->nin, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            conn_free(c);
            return 0;
        }
        if (n > 0) {
            c->nin += (size_t)n;
            c->until_ms = clock_mono().ms + DNS_IDLE_MS;
        }
    }
    if (conn_next(c))
        arm(c->sb->s);
    return 0;
}

static int on_tcp(sd_event_source *io, int fd, uint32_t revents, void *arg)
{
    struct sandbox *sb = arg;
    int got = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct conn *c;
    (void)io, (void)revents;

    if (got < 0)
        return 0;
    if (sb->nconns >= DNS_CONNS_EACH || (c = calloc(1, sizeof *c)) == NULL) {
        sb->s->counts.dropped++;
        close(got);
        return 0;
    }
    c->sb = sb;
    c->fd = got;
    c->until_ms = clock_mono().ms + DNS_IDLE_MS;
    c->next = sb->conns;
    sb->conns = c;
    sb->nconns++;
    sb->s->nconns++;
    sb->s->counts.connections++;
    if (sd_event_add_io(sb->s->loop, &c->io, got, EPOLLIN, on_conn, c) < 0)
        conn_free(c);
    arm(sb->s);
    return 0;
}

/* ---- time ---- */

static int on_time(sd_event_source *t, uint64_t usec, void *arg)
{
    struct dns_server *s = arg;
    uint64_t now = clock_mono().ms;
    struct sandbox **sb;
    (void)t, (void)usec;

    while (s->first &&
           s->first->until_ms <= now) /* NOLINT(clang-analyzer-unix.Malloc): it is moved or taken off the list */
        ask_next(s->first);
    for (struct table_pos p = { 0 }; table_next(&s->sandboxes, &p, NULL, &sb);) {
        for (struct conn *c = (*sb)->conns, *next; c; c = next) {
            next = c->next;
            if (c->until_ms <= now && !c->ask)
                conn_free(c);
        }
        if ((*sb)->resting && (*sb)->tenth != now / TENTH_MS) {
            (*sb)->resting = false;
            s->resting--;
            (void)sd_event_source_set_enabled((*sb)->udp_io, SD_EVENT_ON);
        }
    }
    arm(s);
    return 0;
}

/* ---- sandboxes ---- */

static int listen_here(int type, int *ret, struct err *e)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(DNS_PORT) };
    int on = 1, fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return err_errno(e, errno, "nameserver's socket");
    *ret = fd;
    (void)inet_pton(AF_INET, DNS_ADDRESS, &at.sin_addr);
    if (type == SOCK_STREAM) /* else connections that just ended keep a restarted meshd out */
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0)
        return err_errno(e, errno, "nameserver on %s:%d", DNS_ADDRESS, DNS_PORT);
    if (type == SOCK_STREAM && listen(fd, 64) < 0)
        return err_errno(e, errno, "nameserver on %s:%d", DNS_ADDRESS, DNS_PORT);
    return 0;
}

static void sandbox_free(struct sandbox *sb)
{
    struct dns_server *s = sb->s;

    while (sb->conns)
        conn_free(sb->conns); /* NOLINT(clang-analyzer-unix.Malloc): it takes itself off the list */
    for (struct ask *q = s->first, *next; q; q = next) {
        next = q->next;
        if (q->sb == sb)
            ask_free(q);
    }
    s->resting -= sb->resting;
    sb->udp_io = sd_event_source_disable_unref(sb->udp_io);
    sb->tcp_io = sd_event_source_disable_unref(sb->tcp_io);
    close_fd(&sb->udp);
    close_fd(&sb->tcp);
    free(sb->netns);
    free(sb->networks);
    free(sb);
}

static size_t take_servers(const struct strs *l, struct netmap_ip *ret)
{
    size_t n = 0;
    for (size_t i = 0; i < l->n && n < DNS_SERVERS_MAX; i++)
        n += netmap_ip_parse(l->v[i], &ret[n]);
    return n;
}

static int open_inside(struct sandbox *sb, struct err *e)
{
    int r = mesh_ns_enter(sb->netns, e);
    if (r < 0)
        return r;
    r = listen_here(SOCK_DGRAM, &sb->udp, e);
    if (r == 0)
        r = listen_here(SOCK_STREAM, &sb->tcp, e);
    mesh_ns_back(sb->s->home);
    return r;
}

int dns_server_add(struct dns_server *s, const struct dns_sandbox *conf, struct err *e)
{
    struct sandbox *sb = calloc(1, sizeof *sb), **slot;
    int r;

    CHECK(sb != NULL);
    dns_server_del(s, str_from(conf->task)); /* before its port is bound anew */
    sb->s = s;
    sb->udp = sb->tcp = -1;
    sb->single_inside = conf->single_inside;
    sb->outside = conf->outside;
    sb->netns = str_dup(str_from(conf->netns));
    sb->networks = calloc(conf->nnetworks + 1, sizeof *sb->networks);
    CHECK(sb->networks != NULL);
    sb->nnetworks = conf->nnetworks;
    memcpy(sb->networks, conf->networks, conf->nnetworks * sizeof *sb->networks);
    sb->nservers = take_servers(&conf->nameservers, sb->servers);
    if (!str_copy(sb->task, sizeof sb->task, str_from(conf->task))) {
        sandbox_free(sb);
        return err_set(e, ERR_INVALID, "TaskID: \"%s\" is too long for a nameserver", conf->task);
    }
    (void)str_copy(sb->hostname, sizeof sb->hostname, str_from(conf->hostname));
    r = open_inside(sb, e);
    if (r == 0 && (sd_event_add_io(s->loop, &sb->udp_io, sb->udp, EPOLLIN, on_udp, sb) < 0 ||
                   sd_event_add_io(s->loop, &sb->tcp_io, sb->tcp, EPOLLIN, on_tcp, sb) < 0))
        r = err_set(e, ERR_NOMEM, "nameserver of task %s: no room in the event loop", conf->task);
    if (r < 0) {
        sandbox_free(sb);
        return r;
    }
    /* containers' questions come after the work of the node itself */
    (void)sd_event_source_set_priority(sb->udp_io, SD_EVENT_PRIORITY_IDLE);
    (void)sd_event_source_set_priority(sb->tcp_io, SD_EVENT_PRIORITY_IDLE);
    slot = table_put(&s->sandboxes, str_from(sb->task), NULL);
    *slot = sb;
    return 0;
}

void dns_server_del(struct dns_server *s, struct str task)
{
    struct sandbox **sb = table_get(&s->sandboxes, task), *gone = sb ? *sb : NULL;
    if (!gone)
        return;
    table_del(&s->sandboxes, task);
    sandbox_free(gone);
}

void dns_server_host(struct dns_server *s, const struct strs *nameservers)
{
    s->nhost = take_servers(nameservers, s->host);
}

/* ---- life ---- */

int dns_server_open(struct dns_server **ret, sd_event *loop, const struct netmap *map, struct err *e)
{
    struct dns_server *s = calloc(1, sizeof *s);
    int r;

    CHECK(s != NULL);
    s->loop = loop;
    s->map = map;
    table_init(&s->sandboxes, sizeof(struct sandbox *));
    arena_init(&s->arena, 16u << 20);
    s->out.limit = DNS_MESSAGE_MAX;
    s->home = mesh_ns_self();
    if (s->home < 0) {
        r = err_errno(e, errno, "nameserver: this network namespace");
        (void)dns_server_free(s);
        return r;
    }
    r = sd_event_add_time(loop, &s->timer, CLOCK_MONOTONIC, 0, 1000, on_time, s);
    if (r < 0) {
        (void)dns_server_free(s);
        return err_errno(e, -r, "nameserver's timer");
    }
    (void)sd_event_source_set_enabled(s->timer, SD_EVENT_OFF);
    *ret = s;
    return 0;
}

struct dns_server *dns_server_free(struct dns_server *s)
{
    struct sandbox **sb;
    if (!s)
        return NULL;
    for (struct table_pos p = { 0 }; table_next(&s->sandboxes, &p, NULL, &sb);)
        sandbox_free(*sb);
    table_done(&s->sandboxes);
    s->timer = sd_event_source_disable_unref(s->timer);
    close_fd(&s->home);
    arena_done(&s->arena);
    buf_done(&s->out);
    free(s);
    return NULL;
}

void dns_server_counts(const struct dns_server *s, struct dns_counts *ret)
{
    *ret = s->counts;
    ret->sandboxes = (unsigned)s->sandboxes.count;
}
