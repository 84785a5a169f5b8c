/*
 * load.c - closed-loop clients for benchmarks: each has one durable write under way and begins the next when it is
 * answered. Prints one line: {"rate": a second, "p50_ms", "p99_ms", "max_ms", "n", "errors", "first_error"}.
 *
 *   load txn RUN_DIR CLIENTS SECONDS        transactions of one 300-byte document to a raftd (as apid's user)
 *   load http SOCKET CLIENTS SECONDS        POST /services/create over kept connections, no tasks
 *   load etcd HOST:PORT CLIENTS SECONDS     etcd v3 Put of 300 bytes: gRPC over one HTTP/2 connection, as its own
 * client does
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/store/txn.h"
#include "common/util/check.h"
#include "common/util/id.h"

#define CLIENTS_MAX 512
#define SAMPLES_MAX 4000000u
#define VALUE_BYTES 300

static double *samples, until;
static size_t nsamples;
static unsigned long errors;
static char first_error[256];
static bool counting;

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

_Noreturn static void die(const char *what, const char *why)
{
    fprintf(stderr, "load: %s: %s\n", what, why);
    exit(1);
}

static void answered(double began, const char *error)
{
    if (error) {
        if (errors++ == 0)
            snprintf(first_error, sizeof first_error, "%s", error);
    } else if (counting && nsamples < SAMPLES_MAX) {
        samples[nsamples++] = now_s() - began;
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void report(double took)
{
    qsort(samples, nsamples, sizeof *samples, by_value);
    for (char *p = first_error; *p; p++)
        if (*p == '"' || *p == '\\' || (unsigned char)*p < 0x20)
            *p = '\'';
    double p50 = nsamples ? samples[nsamples / 2] : 0, p99 = nsamples ? samples[nsamples * 99 / 100] : 0;
    printf("{\"rate\": %.1f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f, \"n\": %zu, \"errors\": %lu, "
           "\"first_error\": \"%s\"}\n",
           (double)nsamples / took, p50 * 1e3, p99 * 1e3, nsamples ? samples[nsamples - 1] * 1e3 : 0, nsamples, errors,
           first_error);
}

/* ---- raftd ---- */

/* All on one connection and in one process, as etcd's own client does it, and as a daemon of ours does. */
static struct rpc_client *raft_rpc;

struct raft_client {
    struct txn txn;
    struct buf doc;
    double began;
};

static struct raft_client raft[CLIENTS_MAX];
static unsigned in_flight;

static void raft_send(struct raft_client *c);

static void raft_done(void *arg, const void *rep, const struct err *e)
{
    struct raft_client *c = arg;
    answered(c->began, rep ? NULL : e->msg);
    in_flight--;
    if (now_s() < until)
        raft_send(c);
}

static void raft_send(struct raft_client *c)
{
    static char data[VALUE_BYTES - 60];
    char id[ID_SIZE];
    id_new(id);
    if (!data[0])
        memset(data, 'x', sizeof data);
    buf_clear(&c->doc);
    mp_map(&c->doc, 1);
    mp_cstr(&c->doc, "Spec");
    mp_map(&c->doc, 2);
    mp_kv_cstr(&c->doc, "Name", id);
    mp_cstr(&c->doc, "Data");
    mp_str(&c->doc, (struct str){ data, sizeof data });
    txn_reset(&c->txn);
    txn_create(&c->txn, KIND_CONFIG, str_from(id), buf_str(&c->doc));
    in_flight++;
    c->began = now_s();
    txn_send(&c->txn, raft_rpc, 30000, raft_done, c);
}

static void raft_run(sd_event *loop, unsigned n, double seconds)
{
    until = now_s() + seconds;
    for (unsigned i = 0; i < n; i++)
        raft_send(&raft[i]);
    while (in_flight > 0)
        CHECK(sd_event_run(loop, UINT64_MAX) >= 0);
}

static double load_txn(const char *run_dir, unsigned n, double seconds)
{
    struct err e = ERR_INIT;
    sd_event *loop;
    CHECK(sd_event_default(&loop) >= 0);
    if (rpc_client_open(&raft_rpc, loop, run_dir, "raftd", &e) < 0)
        die("connect", e.msg);
    rpc_client_share(raft_rpc, &op_raftd_txn);
    for (unsigned i = 0; i < n; i++)
        txn_init(&raft[i].txn);
    raft_run(loop, n, 0.3); /* connections come up with the first requests: these are not counted */
    counting = true;
    double t0 = now_s();
    raft_run(loop, n, seconds);
    return now_s() - t0;
}

/* ---- Docker's API ---- */

struct http_client {
    int fd;
    double began;
    char in[8192];
    size_t n;
};

static struct http_client http[CLIENTS_MAX];

static void http_connect(struct http_client *c, const char *path)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    snprintf(sa.sun_path, sizeof sa.sun_path, "%s", path);
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&sa, sizeof sa) < 0)
        die(path, strerror(errno));
    c->n = 0;
}

static void http_send(struct http_client *c)
{
    char id[ID_SIZE], body[512], msg[1024];
    id_new(id);
    int len = snprintf(body, sizeof body,
                       "{\"Name\":\"b%s\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"pause:latest\"}},\"Mode\":{"
                       "\"Replicated\":{\"Replicas\":0}}}",
                       id);
    int n = snprintf(msg, sizeof msg,
                     "POST /v1.41/services/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                     "Content-Length: %d\r\n\r\n%s",
                     len, body);
    c->n = 0;
    c->began = now_s();
    if (send(c->fd, msg, (size_t)n, MSG_NOSIGNAL) != n)
        die("send", strerror(errno));
}

/* True when a whole answer is there. */
static bool http_read(struct http_client *c)
{
    ssize_t n = recv(c->fd, c->in + c->n, sizeof c->in - 1 - c->n, 0);
    if (n <= 0)
        die("connection", n < 0 ? strerror(errno) : "closed");
    c->n += (size_t)n;
    c->in[c->n] = '\0';
    char *end = strstr(c->in, "\r\n\r\n"), *len = strcasestr(c->in, "\r\nContent-Length:");
    if (!end)
        return false;
    if (!len || len > end)
        die("answer without a length", c->in);
    return c->n >= (size_t)(end + 4 - c->in) + strtoul(len + 17, NULL, 10);
}

static void http_run(unsigned n, double seconds)
{
    struct pollfd p[CLIENTS_MAX];
    unsigned busy = n;
    until = now_s() + seconds;
    for (unsigned i = 0; i < n; i++) {
        p[i] = (struct pollfd){ http[i].fd, POLLIN, 0 };
        http_send(&http[i]);
    }
    while (busy > 0) {
        if (poll(p, n, 30000) <= 0)
            die("poll", "no answer for 30 s");
        for (unsigned i = 0; i < n; i++) {
            if (!p[i].revents || !http_read(&http[i]))
                continue;
            answered(http[i].began, strncmp(http[i].in, "HTTP/1.1 201", 12) == 0 ? NULL : http[i].in);
            if (now_s() < until)
                http_send(&http[i]);
            else
                p[i].fd = -1, busy--;
        }
    }
}

static double load_http(const char *path, unsigned n, double seconds)
{
    for (unsigned i = 0; i < n; i++)
        http_connect(&http[i], path);
    http_run(n, 0.3);
    counting = true;
    double t0 = now_s();
    http_run(n, seconds);
    return now_s() - t0;
}

/* ---- etcd ---- */

/*
 * gRPC over HTTP/2 by hand (RFC 9113), since libcurl 7.88 fails on the second request of a kept clear-text connection.
 * Header blocks are literals without indexing (RFC 7541 §6.2.2); answers are told apart by their shape alone: a message
 * (a DATA frame) before the end of the stream is a success, trailers alone are an error.
 */
enum { H2_DATA = 0, H2_HEADERS = 1, H2_RESET = 3, H2_SETTINGS = 4, H2_PING = 6, H2_GOAWAY = 7, H2_WINDOW = 8 };
enum { H2_END_STREAM = 1, H2_ACK = 1, H2_END_HEADERS = 4 };

struct h2_slot {
    double began;
    uint32_t stream; /* 0: idle */
    bool data;
};

static struct h2_slot h2[CLIENTS_MAX];
static int h2_fd;
static uint32_t h2_next = 1, h2_received;
static struct buf h2_block, h2_out, h2_in;
static int64_t h2_window = 65535;

static void h2_frame(uint8_t type, uint8_t flags, uint32_t stream, const void *p, size_t n)
{
    uint8_t h[9] = {
        (uint8_t)(n >> 16),      (uint8_t)(n >> 8),      (uint8_t)n,     type, flags, (uint8_t)(stream >> 24),
        (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream
    };
    buf_put(&h2_out, h, sizeof h);
    buf_put(&h2_out, p, n);
}

static void h2_header(const char *name, const char *value)
{
    uint8_t nn = (uint8_t)strlen(name), vn = (uint8_t)strlen(value), zero = 0;
    buf_put(&h2_block, &zero, 1);
    buf_put(&h2_block, &nn, 1);
    buf_put(&h2_block, name, nn);
    buf_put(&h2_block, &vn, 1);
    buf_put(&h2_block, value, vn);
}

/* gRPC frame (0, length) around PutRequest{key = 1, value = 2}. */
static size_t etcd_message(unsigned char *m)
{
    char id[ID_SIZE];
    id_new(id);
    size_t key = strlen(id), at = 5;
    m[at++] = 0x0a;
    m[at++] = (unsigned char)key;
    memcpy(m + at, id, key);
    at += key;
    m[at++] = 0x12;
    m[at++] = (unsigned char)(VALUE_BYTES % 128 | 0x80);
    m[at++] = VALUE_BYTES / 128;
    memset(m + at, 'x', VALUE_BYTES);
    at += VALUE_BYTES;
    m[0] = m[1] = m[2] = 0;
    m[3] = (unsigned char)((at - 5) >> 8);
    m[4] = (unsigned char)(at - 5);
    return at;
}

static void etcd_send(struct h2_slot *c)
{
    unsigned char msg[VALUE_BYTES + 64];
    size_t n = etcd_message(msg);
    *c = (struct h2_slot){ .stream = h2_next, .began = now_s() };
    h2_next += 2;
    h2_window -= (int64_t)n;
    CHECK(h2_window >= 0); /* the server opens it again after a quarter; all clients together fit into half of it */
    h2_frame(H2_HEADERS, H2_END_HEADERS, c->stream, h2_block.p, h2_block.n);
    h2_frame(H2_DATA, H2_END_STREAM, c->stream, msg, n);
}

static void h2_flush(void)
{
    for (size_t at = 0; at < h2_out.n;) {
        ssize_t n = send(h2_fd, h2_out.p + at, h2_out.n - at, MSG_NOSIGNAL);
        if (n < 0)
            die("send", strerror(errno));
        at += (size_t)n;
    }
    buf_clear(&h2_out);
}

static void h2_answer(unsigned n, uint32_t stream, uint8_t type, uint8_t flags, unsigned *busy)
{
    for (unsigned i = 0; i < n; i++) {
        if (h2[i].stream != stream)
            continue;
        h2[i].data |= type == H2_DATA;
        if (type != H2_RESET && !(flags & H2_END_STREAM))
            return;
        answered(h2[i].began, type == H2_RESET ? "stream reset" : h2[i].data ? NULL : "answered with an error");
        h2[i].stream = 0;
        if (now_s() < until)
            etcd_send(&h2[i]);
        else
            --*busy;
        return;
    }
}

static void h2_take(unsigned n, const uint8_t *f, size_t len, unsigned *busy)
{
    uint8_t type = f[3], flags = f[4];
    uint32_t stream = ((uint32_t)f[5] << 24 | (uint32_t)f[6] << 16 | (uint32_t)f[7] << 8 | f[8]) & 0x7fffffff;
    if (type == H2_SETTINGS && !(flags & H2_ACK)) {
        h2_frame(H2_SETTINGS, H2_ACK, 0, NULL, 0);
    } else if (type == H2_PING && !(flags & H2_ACK)) {
        h2_frame(H2_PING, H2_ACK, 0, f + 9, len);
    } else if (type == H2_WINDOW && stream == 0 && len == 4) {
        h2_window += (f[9] & 0x7f) << 24 | f[10] << 16 | f[11] << 8 | f[12];
    } else if (type == H2_GOAWAY) {
        die("etcd", "hangs up");
    } else if (type == H2_DATA || type == H2_HEADERS || type == H2_RESET) {
        h2_received += type == H2_DATA ? (uint32_t)len : 0;
        if (h2_received > 16384) {
            uint8_t w[4] = { 0, 0, (uint8_t)(h2_received >> 8), (uint8_t)h2_received };
            h2_frame(H2_WINDOW, 0, 0, w, sizeof w);
            h2_received = 0;
        }
        h2_answer(n, stream, type, flags, busy);
    }
}

static void etcd_run(unsigned n, double seconds)
{
    unsigned busy = n;
    until = now_s() + seconds;
    for (unsigned i = 0; i < n; i++)
        etcd_send(&h2[i]);
    while (busy > 0) {
        char piece[65536];
        h2_flush();
        ssize_t got = recv(h2_fd, piece, sizeof piece, 0);
        if (got <= 0)
            die("etcd", got < 0 ? strerror(errno) : "closed the connection");
        buf_put(&h2_in, piece, (size_t)got);
        size_t at = 0;
        while (h2_in.n - at >= 9) {
            const uint8_t *f = (const uint8_t *)h2_in.p + at;
            size_t len = (size_t)f[0] << 16 | (size_t)f[1] << 8 | f[2];
            if (h2_in.n - at < 9 + len)
                break;
            h2_take(n, f, len, &busy);
            at += 9 + len;
        }
        memmove(h2_in.p, h2_in.p + at, h2_in.n - at);
        h2_in.n -= at;
    }
    h2_flush();
}

static double load_etcd(const char *addr, unsigned n, double seconds)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const char *colon = strrchr(addr, ':');
    char host[64];
    if (!colon || n > 64)
        die(addr, "HOST:PORT and at most 64 clients are wanted");
    snprintf(host, sizeof host, "%.*s", (int)(colon - addr), addr);
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10)) };
    int one = 1;
    h2_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (inet_pton(AF_INET, host, &sa.sin_addr) != 1 || connect(h2_fd, (struct sockaddr *)&sa, sizeof sa) < 0)
        die(addr, strerror(errno));
    setsockopt(h2_fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    h2_header(":method", "POST");
    h2_header(":scheme", "http");
    h2_header(":path", "/etcdserverpb.KV/Put");
    h2_header(":authority", addr);
    h2_header("content-type", "application/grpc");
    h2_header("te", "trailers");
    buf_put(&h2_out, preface, sizeof preface - 1);
    h2_frame(H2_SETTINGS, 0, 0, NULL, 0);
    etcd_run(n, 0.3);
    counting = true;
    double t0 = now_s();
    etcd_run(n, seconds);
    return now_s() - t0;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: load txn|http|etcd WHERE CLIENTS SECONDS\n");
        return 2;
    }
    unsigned n = (unsigned)strtoul(argv[3], NULL, 10);
    double seconds = strtod(argv[4], NULL);
    if (n < 1 || n > CLIENTS_MAX || seconds <= 0)
        die("clients, seconds", "out of range");
    samples = malloc(SAMPLES_MAX * sizeof *samples);
    CHECK(samples != NULL);
    if (strcmp(argv[1], "txn") == 0)
        report(load_txn(argv[2], n, seconds));
    else if (strcmp(argv[1], "http") == 0)
        report(load_http(argv[2], n, seconds));
    else if (strcmp(argv[1], "etcd") == 0)
        report(load_etcd(argv[2], n, seconds));
    else
        die(argv[1], "txn, http or etcd is wanted");
    return 0;
}
