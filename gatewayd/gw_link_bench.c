/* What a link adds: the way of a Raft datagram between two gatewayds over TLS, alone and beside bulk, and bulk itself.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/util/clock.h"
#include "gatewayd/gw_link.h"
#include "gatewayd/test_ca.h"

#define ROUNDS 5000u
#define ROUNDS_BULK 200u
#define BULK_BYTES (16u << 20)
#define DATAGRAM 300u

struct end {
    struct gw_net net;
    struct gw_tls_ctx *ctx;
    struct gw_credentials cred;
    struct gw_link *link;
    uint64_t raft, bulk;
    bool echo;
};

static void send_bytes(struct gw_link *l, enum gw_type type, size_t n)
{
    static uint32_t stream;
    struct buf b = BUF_INIT;
    CHECK(buf_reserve(&b, n) != NULL);
    memset(b.p, 'x', n);
    b.n = n;
    (void)gw_link_send(l, type, type == GW_RAFT ? 0 : ++stream, &b);
}

static int admit(void *arg, struct gw_link *l, struct err *e)
{
    (void)arg, (void)l, (void)e;
    return 0;
}
static void up(void *arg, struct gw_link *l, const struct gw_hello *hello)
{
    (void)hello;
    ((struct end *)arg)->link = l;
}
static void down(void *arg, struct gw_link *l, bool was_up, const struct err *why)
{
    (void)arg, (void)l, (void)was_up;
    if (strcmp(why->msg, "stopping") != 0 && strcmp(why->msg, "the peer closed the link") != 0)
        fprintf(stderr, "link down: %s\n", why->msg);
}
static void message(void *arg, struct gw_link *l, enum gw_type type, uint32_t stream, struct str body)
{
    struct end *d = arg;
    (void)stream, (void)body;
    d->raft += type == GW_RAFT;
    d->bulk += type == GW_REPLY;
    if (d->echo && type == GW_RAFT)
        send_bytes(l, GW_RAFT, DATAGRAM);
}
static const struct gw_net_ops ops = { admit, up, down, message };

static void end_open(struct end *d, sd_event *loop, const struct test_ca *ca, const char *node)
{
    struct err e = ERR_INIT;
    struct buf pem = BUF_INIT;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    *d = (struct end){ .link = NULL };
    test_issue(ca, key, node, "swarm-manager", "c1", -100, 1000, &pem);
    CHECK(gw_net_init(&d->net, loop, &ops, d, &e) == 0);
    CHECK(gw_credentials_make(&d->cred, buf_str(&pem), buf_str(&ca->pem), key, &e) == 0);
    CHECK(gw_tls_ctx_new(&d->ctx, &d->cred, &e) == 0);
    gw_net_identity(&d->net, d->ctx, RPC_MANAGER);
    EVP_PKEY_free(key);
    buf_done(&pem);
}

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void figure(const char *name, double value, const char *unit)
{
    printf("{\"name\":\"%s\",\"value\":%.1f,\"unit\":\"%s\"}\n", name, value, unit);
}

static void round_trips(sd_event *loop, struct end *a, const char *name, bool bulk)
{
    static uint64_t took[ROUNDS];
    char text[80];
    unsigned rounds = bulk ? ROUNDS_BULK : ROUNDS;
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t t = now_ns(), want = a->raft + 1;
        if (bulk && a->link->out.bytes < BULK_BYTES)
            send_bytes(a->link, GW_REPLY, BULK_BYTES);
        send_bytes(a->link, GW_RAFT, DATAGRAM);
        while (a->raft < want)
            CHECK(sd_event_run(loop, UINT64_MAX) >= 0);
        took[i] = now_ns() - t;
    }
    const unsigned p50 = rounds / 2, p99 = rounds * 99 / 100;
    qsort(took, rounds, sizeof *took, by_value);
    snprintf(text, sizeof text, "gatewayd_%s_one_way_p50", name);
    figure(text, (double)took[p50] / 2000, "us");
    snprintf(text, sizeof text, "gatewayd_%s_one_way_p99", name);
    figure(text, (double)took[p99] / 2000, "us");
}

int main(void)
{
    sd_event *loop;
    struct test_ca ca;
    struct end a, b;
    struct err e = ERR_INIT;
    struct host_port at = { "127.0.0.1", 0 };
    struct sockaddr_in sa = { .sin_family = AF_INET };
    socklen_t len = sizeof sa;
    struct gw_link *l;
    int fd = -1;
    signal(SIGPIPE, SIG_IGN);
    CHECK(sd_event_new(&loop) >= 0);
    test_ca_make(&ca);
    end_open(&a, loop, &ca, "m1");
    end_open(&b, loop, &ca, "m2");
    b.echo = true;
    CHECK(gw_net_bind(&at, &fd, &e) == 0 && getsockname(fd, (struct sockaddr *)&sa, &len) == 0);
    at.port = ntohs(sa.sin_port);
    CHECK(gw_net_listen(&b.net, fd, &e) == 0);
    uint64_t t = now_ns();
    CHECK(gw_net_dial(&a.net, a.ctx, RPC_MANAGER, &at, NULL, &l, &e) == 0);
    while (!a.link || !b.link)
        CHECK(sd_event_run(loop, UINT64_MAX) >= 0);
    figure("gatewayd_link_up", (double)(now_ns() - t) / 1000, "us");
    round_trips(loop, &a, "raft_datagram", false);
    round_trips(loop, &a, "raft_datagram_beside_bulk", true);
    while (a.link->out.bytes > 0)
        CHECK(sd_event_run(loop, UINT64_MAX) >= 0);
    t = now_ns();
    uint64_t want = b.bulk + 16;
    for (int i = 0; i < 15; i++)
        send_bytes(a.link, GW_REPLY, BULK_BYTES);
    while (b.bulk + 1 < want)
        CHECK(sd_event_run(loop, UINT64_MAX) >= 0);
    figure("gatewayd_bulk", 15.0 * BULK_BYTES / ((double)(now_ns() - t) / 1e9) / 1e6, "MB/s, both ends in one thread");
    gw_net_done(&a.net);
    gw_net_done(&b.net);
    gw_tls_ctx_unref(a.ctx);
    gw_tls_ctx_unref(b.ctx);
    gw_credentials_done(&a.cred);
    gw_credentials_done(&b.cred);
    test_ca_done(&ca);
    sd_event_unref(loop);
    return 0;
}
