/*
 * The HTTP shell: libmicrohttpd inside the event loop. Its epoll descriptor is one source of the loop; a connection
 * whose answer is not ready is suspended, and while it is, its socket is watched for the client going away.
 */
#include <errno.h>
#include <microhttpd.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "apid/api.h"
#include "common/util/check.h"

#define POOL_BYTES (64u << 10) /* request line and headers of one connection */
#define IDLE_TIMEOUT_S 120u    /* keep-alive connections and slow senders */
#define IGNORED_BODY_MAX (64u << 10)
#define STREAM_BLOCK_BYTES (32u << 10)

/* A client's connection, over all its requests. */
struct api_sock {
    struct api_conn *now;
    sd_event_source *hup; /* while there is a request that may have to wait */
    bool lost;            /* the client has gone */
    bool asked, daemon;   /* known who it is; one of the daemons */
};

/* The transport's side of a request. */
struct api_conn {
    struct req *r;
    struct api_sock *sock;
    struct MHD_Connection *mhd;
    struct api_conn *next, **pprev; /* all that are open */
    char *uri;
    char method[16];
    bool begun, dispatched, queued, suspended, lost;
    bool paused; /* on_body took less than it was offered */
    size_t body_seen, sent;
    uint64_t body_got, body_want; /* handed to us; announced, UINT64_MAX: not said */
};

static struct {
    struct MHD_Daemon *mhd;
    sd_event_source *io, *kick, *timeout;
    struct api_conn *open;
    int fd;
    char path[108];
    bool closing; /* no request begins any more */
} http = { .fd = -1 };

/* ---- suspend, resume ---- */

static void kick(void)
{
    if (http.kick)
        (void)sd_event_source_set_enabled(http.kick, SD_EVENT_ONESHOT);
}

static void resume(struct api_conn *c)
{
    if (!c->suspended)
        return;
    c->suspended = false;
    MHD_resume_connection(c->mhd);
    kick();
}

static void suspend(struct api_conn *c)
{
    MHD_suspend_connection(c->mhd);
    c->suspended = true;
    if (c->sock->lost) {
        c->lost = true;
        resume(c);
    }
}

/* HUP only: a client may close its sending side and still read the answer. What has not come to waiting yet is done all
 * the same. */
static int on_hup(sd_event_source *s, int fd, uint32_t events, void *arg)
{
    struct api_sock *k = arg;
    struct api_conn *c = k->now;

    (void)s, (void)fd, (void)events;
    k->lost = true;
    if (c && (c->suspended || c->r->streaming)) {
        c->lost = true;
        resume(c);
    }
    return 0;
}

static int fd_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *i = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    return i ? i->connect_fd : -1;
}

/* Edge-triggered: it is told once, and costs nothing until then. */
static struct api_sock *sock_new(struct MHD_Connection *mhd)
{
    struct api_sock *k = calloc(1, sizeof *k);

    CHECK(k);
    (void)sd_event_add_io(daemon_loop(), &k->hup, fd_of(mhd), EPOLLHUP | EPOLLET, on_hup, k);
    return k;
}

static void sock_free(struct api_sock *k)
{
    sd_event_source_disable_unref(k->hup);
    free(k);
}

/* ---- requests ---- */

static struct req *requests; /* all there are */

struct req *req_new(void)
{
    struct req *r = calloc(1, sizeof *r);

    CHECK(r);
    if ((r->next = requests))
        r->next->pprev = &r->next;
    r->pprev = &requests;
    requests = r;
    r->refs = 1;
    r->version = API_VERSION_MAX;
    arena_init(&r->arena, 64u << 20);
    return r;
}

struct req *req_ref(struct req *r)
{
    r->refs++;
    return r;
}

void req_unref(struct req *r)
{
    if (--r->refs > 0)
        return;
    if (r->free_data)
        r->free_data(r->data);
    timer_free(r->timer);
    if (r->body_is_secret && r->body.p)
        explicit_bzero(r->body.p, r->body.cap);
    buf_done(&r->body);
    buf_done(&r->out);
    arena_done(&r->arena);
    if ((*r->pprev = r->next))
        r->next->pprev = r->pprev;
    free(r);
}

/* A call without its callback, which is how calls end when their client is freed, leaves its request behind. */
void req_free_all(void)
{
    while (requests) {
        requests->refs = 1;
        req_unref(requests);
    }
}

static void conn_free(struct api_conn *c)
{
    struct req *r = c->r;

    if (c->sock->now == c)
        c->sock->now = NULL;
    if ((*c->pprev = c->next))
        c->next->pprev = c->pprev;
    free(c->uri);
    r->gone = true;
    r->conn = NULL;
    api_unwait(r);
    if (r->timer)
        timer_arm(r->timer, UINT64_MAX);
    free(c);
    req_unref(r);
}

/* MHD calls this first, with the request target as it came; what it returns is the request's context. */
static void *on_uri(void *cls, const char *uri, struct MHD_Connection *mhd)
{
    struct api_conn *c = calloc(1, sizeof *c);
    const union MHD_ConnectionInfo *i = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    (void)cls;
    CHECK(c && i && i->socket_context);
    c->sock = i->socket_context;
    c->sock->now = c;
    c->r = req_new();
    c->r->conn = c;
    c->mhd = mhd;
    c->uri = strdup(uri);
    CHECK(c->uri);
    if ((c->next = http.open))
        c->next->pprev = &c->next;
    http.open = c;
    c->pprev = &http.open;
    api.count.requests++;
    return c;
}

static void on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls, enum MHD_RequestTerminationCode code)
{
    (void)cls, (void)mhd, (void)code;
    if (*con_cls)
        conn_free(*con_cls);
    *con_cls = NULL;
}

/* "http://host/path" is legal in a request line; only the path counts. */
static struct str origin_form(const char *uri)
{
    struct str s = str_from(uri);

    if (str_starts(s, STR("http://"))) {
        const char *slash = strchr(uri + 7, '/');
        s = slash ? str_from(slash) : STR("/");
    }
    return s;
}

/*
 * The run folder's group may use the API: people are added to it. The daemons have it as their own group, to reach each
 * other, and what is refused to them elsewhere they must not get here: root's rights on every node, by way of a
 * service.
 */
static bool is_daemon(struct api_conn *c)
{
    struct api_sock *k = c->sock;
    struct ucred peer;
    socklen_t n = sizeof peer;

    if (k->asked)
        return k->daemon;
    k->asked = true;
    k->daemon = getsockopt(fd_of(c->mhd), SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0 || /* nobody we know */
                (peer.uid != 0 && peer.uid != geteuid() && peer.gid == getegid());
    return k->daemon;
}

/* Path, query, version and route out of the request line; on error the request is answered. */
static void begin(struct api_conn *c, const char *method)
{
    struct req *r = c->r;
    struct err e = ERR_INIT;
    struct str uri = origin_form(c->uri), path;
    const char *q = memchr(uri.p, '?', uri.n);
    struct str raw_path = { uri.p, q ? (size_t)(q - uri.p) : uri.n };
    struct str raw_query = { q ? q + 1 : NULL, q ? uri.n - raw_path.n - 1 : 0 };

    r->head = strcmp(method, "HEAD") == 0;
    if (is_daemon(c)) {
        api_error(r, 403, "the API is for people, not for daemons");
        return;
    }
    if (percent_decode(raw_path, false, &r->arena, &path, &e) < 0 ||
        query_parse(&r->query, raw_query, &r->arena, &e) < 0) {
        api_fail(r, &e);
        return;
    }
    int v = route_version(&path);
    if (v < 0) {
        api_error(r, 404, "page not found");
        return;
    }
    if (v > API_VERSION_MAX) {
        api_error(r, 400, "client version %d.%d is too new. Maximum supported API version is %s", v / 100, v % 100,
                  API_VERSION_MAX_TEXT);
        return;
    }
    if (v > 0 && v < API_VERSION_MIN) {
        api_error(
            r, 400,
            "client version %d.%d is too old. Minimum supported API version is %s, please upgrade your client to a "
            "newer version",
            v / 100, v % 100, API_VERSION_MIN_TEXT);
        return;
    }
    if (v > 0)
        r->version = (unsigned)v;
    r->route = route_find(api_routes, str_from(method), path, r->params);
    if (!r->route)
        api_error(r, 404, "page not found");
    else if ((r->route->flags & ROUTE_STREAMS))
        r->route->handler(r);
}

/* Takes what it can of @n body bytes; false: hang up (the client does not stop sending what nobody asked for). */
static bool take_body(struct api_conn *c, const char *p, size_t *n)
{
    struct req *r = c->r;
    size_t limit = r->route && r->route->body_max ? r->route->body_max : IGNORED_BODY_MAX;

    if (r->on_body && !r->answered) {
        size_t took = r->on_body(r, p, *n);
        *n -= took;
        c->paused = *n > 0;
        return true;
    }
    c->paused = false;
    if (r->route &&
        (r->route->flags & ROUTE_STREAMS)) { /* refused half way: read on, so that the client gets to the answer */
        *n = 0;
        return true;
    }
    c->body_seen += *n;
    if (c->body_seen > 4 * limit)
        return false;
    if (c->body_seen > limit && !r->answered)
        api_error(r, 413, "request body is larger than %zu bytes", limit);
    if (!r->answered && r->route && r->route->body_max)
        buf_put(&r->body, p, *n);
    *n = 0;
    return true;
}

/* ---- answers ---- */

void api_header(struct req *r, const char *name, const char *value)
{
    CHECK(r->nheaders < API_HEADERS_MAX);
    r->headers[r->nheaders++] = (struct api_header){ name, value };
}

const char *api_request_header(struct req *r, const char *name)
{
    return r->conn ? MHD_lookup_connection_value(r->conn->mhd, MHD_HEADER_KIND, name) : NULL;
}

static ssize_t stream_read(void *cls, uint64_t pos, char *out, size_t max)
{
    struct req *r = cls;
    struct api_conn *c = r->conn;

    (void)pos;
    if (!c || c->lost)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (c->sent == r->out.n && !r->answered && r->on_drain)
        r->on_drain(r);
    size_t n = r->out.n - c->sent;
    if (n > 0) {
        if (n > max)
            n = max;
        memcpy(out, r->out.p + c->sent, n);
        c->sent += n;
        if (c->sent == r->out.n) {
            buf_clear(&r->out);
            c->sent = 0;
        }
        return (ssize_t)n;
    }
    if (r->answered)
        return MHD_CONTENT_READER_END_OF_STREAM;
    suspend(c);
    return 0;
}

static void stream_free(void *cls)
{
    req_unref(cls);
}

static struct MHD_Response *build_response(struct req *r)
{
    if (r->streaming)
        return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, stream_read, req_ref(r),
                                                 stream_free);
    struct buf b = r->out;
    r->out = (struct buf)BUF_INIT;
    struct MHD_Response *m = MHD_create_response_from_buffer(b.n, b.p, MHD_RESPMEM_MUST_FREE);
    if (!m)
        free(b.p);
    return m;
}

static enum MHD_Result queue(struct api_conn *c)
{
    struct req *r = c->r;
    struct MHD_Response *m = build_response(r);

    if (!m)
        return MHD_NO;
    (void)MHD_add_response_header(m, "Api-Version", API_VERSION_MAX_TEXT);
    (void)MHD_add_response_header(m, "Docker-Experimental", "false");
    (void)MHD_add_response_header(m, "Ostype", "linux");
    (void)MHD_add_response_header(m, "Server", "Microswarm/" MICROSWARM_VERSION " (linux)");
    if (r->out_type)
        (void)MHD_add_response_header(m, "Content-Type", r->out_type);
    for (size_t i = 0; i < r->nheaders; i++)
        (void)MHD_add_response_header(m, r->headers[i].name, r->headers[i].value);
    c->queued = true;
    if (r->streaming) {
        (void)MHD_set_connection_option(c->mhd, MHD_CONNECTION_OPTION_TIMEOUT, 0u); /* a reader may pause */
        c->lost |= c->sock->lost;
    }
    enum MHD_Result ok = MHD_queue_response(c->mhd, r->status, m);
    MHD_destroy_response(m);
    return ok;
}

void api_reply(struct req *r, unsigned status)
{
    if (r->gone)
        return;
    CHECK(!r->answered && !r->streaming);
    if (r->fresh.tentative && api_refusal_may_be_stale(status)) {
        r->fresh.refused = true;
        return;
    }
    r->status = status;
    r->answered = true;
    if (!r->out_type && r->out.n > 0)
        r->out_type = "application/json";
    if (status >= 400)
        api.count.errors++;
    api_unwait(r);
    if (r->conn)
        resume(r->conn);
}

void api_stream(struct req *r, unsigned status, const char *type)
{
    if (r->gone)
        return;
    CHECK(!r->answered && !r->streaming);
    r->status = status;
    r->out_type = type;
    r->streaming = true;
    if (r->conn)
        resume(r->conn);
}

void api_stream_push(struct req *r)
{
    if (r->conn && r->conn->queued && r->out.n > r->conn->sent)
        resume(r->conn);
}

void api_stream_end(struct req *r)
{
    r->answered = true;
    api_unwait(r);
    if (r->conn)
        resume(r->conn);
}

void api_stream_abort(struct req *r)
{
    r->answered = true;
    api_unwait(r);
    if (r->conn) {
        r->conn->lost = true;
        resume(r->conn);
    }
}

size_t api_stream_waiting(const struct req *r)
{
    return r->out.n - (r->conn ? r->conn->sent : 0);
}

void api_body_more(struct req *r)
{
    if (r->conn && r->conn->paused)
        resume(r->conn);
}

/*
 * libmicrohttpd takes a short read for "nothing more to come" until epoll's next edge. When the client's end of sending
 * came together with these bytes there is no next edge, and a body that was cut short would wait for the idle timeout.
 * A resumed connection is read again.
 */
static void read_again_at_end(struct api_conn *c)
{
    char byte;

    if (c->body_got < c->body_want && recv(fd_of(c->mhd), &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) {
        suspend(c);
        resume(c);
    }
}

/* MHD's access handler: once with the headers, then with each piece of the body, then without one; and again each time
 * a suspended connection is resumed. */
static enum MHD_Result on_request(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
                                  const char *version, const char *data, size_t *size, void **con_cls)
{
    struct api_conn *c = *con_cls;

    (void)cls, (void)url, (void)version, (void)mhd;
    if (!c || c->lost || http.closing)
        return MHD_NO;
    if (!c->begun) {
        const char *length = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
        if (!length || !str_u64(str_from(length), &c->body_want))
            c->body_want = UINT64_MAX;
        c->begun = true;
        begin(c, method);
        return MHD_YES;
    }
    struct req *r = c->r;
    if (*size > 0) {
        size_t offered = *size;
        if (!take_body(c, data, size))
            return MHD_NO;
        c->body_got += offered - *size;
        if (c->paused)
            suspend(c);
        else
            read_again_at_end(c);
        return MHD_YES;
    }
    if (!c->dispatched) {
        c->dispatched = true;
        c->paused = false;
        if (r->on_body_end && !r->answered)
            r->on_body_end(r);
        else if (!r->answered && r->route)
            api_dispatch(r);
    }
    if (c->queued)
        return MHD_YES;
    if (r->answered || r->streaming)
        return queue(c);
    suspend(c);
    return MHD_YES;
}

/* ---- the loop ---- */

/* At its limit libmicrohttpd stops listening, and listens again in the MHD_run() after one that closed a connection:
 * nothing else may happen that makes us call it. */
static void on_connection(void *cls, struct MHD_Connection *mhd, void **ctx, enum MHD_ConnectionNotificationCode code)
{
    (void)cls;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *ctx = sock_new(mhd);
        return;
    }
    if (*ctx)
        sock_free(*ctx);
    *ctx = NULL;
    kick();
}

static void run(void)
{
    MHD_UNSIGNED_LONG_LONG ms;

    (void)MHD_run(http.mhd);
    if (MHD_get_timeout(http.mhd, &ms) != MHD_YES) {
        (void)sd_event_source_set_enabled(http.timeout, SD_EVENT_OFF);
    } else if (ms == 0) {
        kick();
    } else {
        (void)sd_event_source_set_time_relative(http.timeout, ms * 1000);
        (void)sd_event_source_set_enabled(http.timeout, SD_EVENT_ONESHOT);
    }
}

static int on_io(sd_event_source *s, int fd, uint32_t events, void *arg)
{
    (void)s, (void)fd, (void)events, (void)arg;
    run();
    return 0;
}

static int on_kick(sd_event_source *s, void *arg)
{
    (void)s, (void)arg;
    run();
    return 0;
}

static int on_timeout(sd_event_source *s, uint64_t usec, void *arg)
{
    (void)s, (void)usec, (void)arg;
    run();
    return 0;
}

static int listen_unix(const char *path, struct err *e)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    _cleanup_(closep) int fd = -1;

    if (!str_copy(sa.sun_path, sizeof sa.sun_path, str_from(path)))
        return err_set(e, ERR_INVALID, "socket path %s is longer than %zu bytes", path, sizeof sa.sun_path - 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(e, errno, "socket");
    if (unlink(path) < 0 && errno != ENOENT)
        return err_errno(e, errno, "remove old socket %s", path);
    mode_t old = umask(0117); /* 0660: the group may use it */
    int r = bind(fd, (struct sockaddr *)&sa, sizeof sa);
    umask(old);
    if (r < 0)
        return err_errno(e, errno, "bind %s", path);
    if (listen(fd, SOMAXCONN) < 0)
        return err_errno(e, errno, "listen on %s", path);
    return TAKE_FD(fd);
}

static void mhd_log(void *cls, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
static void mhd_log(void *cls, const char *fmt, va_list ap)
{
    char text[256];

    (void)cls;
    (void)vsnprintf(text, sizeof text, fmt, ap);
    text[strcspn(text, "\n")] = '\0';
    log_debug("http: %s", text);
}

int api_http_open(const char *path, unsigned connections_max, struct err *e)
{
    int r = listen_unix(path, e);

    if (r < 0)
        return r;
    http.fd = r;
    (void)str_copy(http.path, sizeof http.path, str_from(path));
    http.mhd = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request,
                                NULL, MHD_OPTION_EXTERNAL_LOGGER, mhd_log, NULL, MHD_OPTION_LISTEN_SOCKET, http.fd,
                                MHD_OPTION_URI_LOG_CALLBACK, on_uri, NULL, MHD_OPTION_NOTIFY_COMPLETED, on_completed,
                                NULL, MHD_OPTION_NOTIFY_CONNECTION, on_connection, NULL,
                                MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)POOL_BYTES, MHD_OPTION_CONNECTION_LIMIT,
                                connections_max, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_TIMEOUT_S, MHD_OPTION_END);
    if (!http.mhd)
        return err_set(e, ERR_INTERNAL, "libmicrohttpd does not start on %s", path);
    const union MHD_DaemonInfo *i = MHD_get_daemon_info(http.mhd, MHD_DAEMON_INFO_EPOLL_FD);
    if (!i)
        return err_set(e, ERR_INTERNAL, "libmicrohttpd has no epoll descriptor");
    sd_event *loop = daemon_loop();
    if ((r = sd_event_add_io(loop, &http.io, i->epoll_fd, EPOLLIN, on_io, NULL)) < 0 ||
        (r = sd_event_add_defer(loop, &http.kick, on_kick, NULL)) < 0 ||
        (r = sd_event_add_time_relative(loop, &http.timeout, CLOCK_MONOTONIC, 0, 0, on_timeout, NULL)) < 0 ||
        (r = sd_event_source_set_enabled(http.timeout, SD_EVENT_OFF)) < 0)
        return err_errno(e, -r, "event loop");
    kick();
    return 0;
}

void api_http_close(void)
{
    if (!http.mhd)
        return;
    http.closing = true; /* else MHD_run() lets clients in that wait, and one more is suspended: MHD aborts over that */
    for (struct api_conn *c = http.open; c; c = c->next) {
        c->lost = true;
        resume(c);
    }
    (void)MHD_run(http.mhd);
    MHD_stop_daemon(http.mhd); /* closes the listening socket */
    http.mhd = NULL;
    sd_event_source_disable_unref(http.io);
    sd_event_source_disable_unref(http.kick);
    sd_event_source_disable_unref(http.timeout);
    http.io = http.kick = http.timeout = NULL;
    (void)unlink(http.path);
}
