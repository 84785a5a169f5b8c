/* Links over loopback with real TLS: who is let in, what misbehaving peers get, and what goes first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <poll.h>
#include <signal.h>

#include "gatewayd/gw_link.h"
#include "gatewayd/test_ca.h"

#define WAIT_MS 15000u

/* One end: a net, and what happened to its links. */
struct end {
    struct gw_net net;
    struct gw_tls_ctx *ctx;
    struct gw_credentials cred;
    struct gw_link *link; /* the newest that came up */
    unsigned ups, downs, refused, messages;
    char why[480];
    struct {
        enum gw_type type;
        uint32_t stream;
        size_t n;
        bool lost;
    } got[512];
    const char *refuse; /* what admit says */
};

static struct {
    sd_event *loop;
    struct test_ca ca, foreign;
    unsigned port;
} world;

static int admit(void *arg, struct gw_link *l, struct err *e)
{
    struct end *d = arg;
    (void)l;
    return d->refuse ? err_set(e, ERR_DENIED, "%s", d->refuse) : 0;
}

static void up(void *arg, struct gw_link *l, const struct gw_hello *hello)
{
    struct end *d = arg;
    (void)hello;
    d->link = l;
    d->ups++;
}

static void down(void *arg, struct gw_link *l, bool was_up, const struct err *why)
{
    struct end *d = arg;
    if (d->link == l)
        d->link = NULL;
    d->downs++;
    d->refused += !was_up;
    (void)str_copy(d->why, sizeof d->why, str_from(why->msg));
}

static void message(void *arg, struct gw_link *l, enum gw_type type, uint32_t stream, struct str body)
{
    struct end *d = arg;
    (void)l;
    size_t i = d->messages++ % 512;
    d->got[i].type = type;
    d->got[i].stream = stream;
    d->got[i].n = body.n;
    d->got[i].lost = body.p == NULL;
}

static const struct gw_net_ops ops = { admit, up, down, message };

/* ---- setting up ---- */

static void turn(void)
{
    assert_true(sd_event_run(world.loop, 20000) >= 0);
}

#define UNTIL(cond)                                                                                                    \
    do {                                                                                                               \
        uint64_t end_ms_ = gw_now_ms() + WAIT_MS;                                                                      \
        while (!(cond)) {                                                                                              \
            turn();                                                                                                    \
            if (gw_now_ms() > end_ms_)                                                                                 \
                fail_msg("not so in time: %s", #cond);                                                                 \
        }                                                                                                              \
    } while (0)

static void end_open(struct end *d, const struct test_ca *ca, const char *node, const char *ou, long from_s, long to_s)
{
    struct err e = ERR_INIT;
    struct buf pem = BUF_INIT;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    *d = (struct end){ .link = NULL };
    assert_int_equal(gw_net_init(&d->net, world.loop, &ops, d, &e), 0);
    if (node) {
        test_issue(ca, key, node, ou, "c1", from_s, to_s, &pem);
        if (gw_credentials_make(&d->cred, buf_str(&pem), buf_str(&ca->pem), key, &e) < 0)
            fail_msg("%s", e.msg);
        if (ca != &world.ca) { /* it knows the swarm's root as everybody does; its own certificate isn't of it */
            buf_clear(&d->cred.trust);
            buf_put(&d->cred.trust, world.ca.pem.p, world.ca.pem.n);
        }
        assert_int_equal(gw_tls_ctx_new(&d->ctx, &d->cred, &e), 0);
        gw_net_identity(&d->net, d->ctx, d->cred.info.role);
    } else {
        assert_int_equal(gw_tls_ctx_new(&d->ctx, NULL, &e), 0);
    }
    buf_done(&pem);
    EVP_PKEY_free(key);
}

static void end_close(struct end *d)
{
    gw_net_done(&d->net);
    gw_tls_ctx_unref(d->ctx);
    gw_credentials_done(&d->cred);
}

static void manager_open(struct end *m)
{
    struct host_port a = { "127.0.0.1", 0 };
    struct sockaddr_in sa = { .sin_family = AF_INET };
    socklen_t len = sizeof sa;
    struct err e = ERR_INIT;
    int fd = -1;
    end_open(m, &world.ca, "m1", "swarm-manager", -100, 1000);
    assert_int_equal(gw_net_bind(&a, &fd, &e), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    world.port = ntohs(sa.sin_port);
    assert_int_equal(gw_net_listen(&m->net, fd, &e), 0);
}

static struct gw_link *dial(struct end *d)
{
    struct host_port a = { "127.0.0.1", world.port };
    struct gw_link *l;
    struct err e = ERR_INIT;
    assert_int_equal(gw_net_dial(&d->net, d->ctx, d->cred.cert ? d->cred.info.role : RPC_NOBODY, &a, NULL, &l, &e), 0);
    return l;
}

static int dial_raw(void)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons((uint16_t)world.port) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    return fd;
}

static bool send_bytes(struct gw_link *l, enum gw_type type, uint32_t stream, size_t n)
{
    struct buf b = BUF_INIT;
    char *p = buf_reserve(&b, n + 1);
    memset(p, 'x', n);
    b.n = n;
    return gw_link_send(l, type, stream, &b);
}

/* ---- the tests ---- */

static void test_both_ways(void **state)
{
    struct end m, w;
    (void)state;
    manager_open(&m);
    end_open(&w, &world.ca, "w1", "swarm-worker", -100, 1000);
    dial(&w);
    UNTIL(m.link && w.link);
    assert_string_equal(m.link->peer.node, "w1");
    assert_int_equal(m.link->role, RPC_WORKER);
    assert_string_equal(w.link->peer.node, "m1");
    assert_int_equal(w.link->role, RPC_MANAGER);
    assert_string_equal(m.link->host, "127.0.0.1");
    assert_true(send_bytes(w.link, GW_REQUEST, 7, 100));
    assert_true(send_bytes(m.link, GW_REQUEST, 8, 5u << 20));
    UNTIL(m.messages == 1 && w.messages == 1);
    assert_int_equal(m.got[0].stream, 7);
    assert_int_equal(w.got[0].n, 5u << 20);
    assert_false(send_bytes(w.link, GW_REQUEST, 9, (16u << 20) + 1)); /* longer than a worker may send */
    assert_int_equal(m.net.out_bytes, 0);
    end_close(&w);
    UNTIL(!m.link);
    assert_int_equal(m.net.in_budget.used, 0);
    end_close(&m);
}

static void test_nobody_is_nobody(void **state)
{
    struct end m, n;
    (void)state;
    manager_open(&m);
    end_open(&n, &world.ca, NULL, NULL, 0, 0); /* no name: no certificate */
    dial(&n);
    UNTIL(m.link && n.link);
    assert_int_equal(m.link->role, RPC_NOBODY);
    assert_null(m.link->cert);
    assert_int_equal(n.link->role, RPC_MANAGER); /* to be checked by who joins */
    assert_false(send_bytes(n.link, GW_REQUEST, 1, 65 << 10));
    assert_true(send_bytes(n.link, GW_REQUEST, 1, 60 << 10));
    UNTIL(m.messages == 1);
    end_close(&n);
    end_close(&m);
}

static void refused(const struct test_ca *ca, const char *ou, long from_s, long to_s, const char *manager_says,
                    const char *node_hears)
{
    struct end m, w;
    manager_open(&m);
    end_open(&w, ca, "w1", ou, from_s, to_s);
    dial(&w);
    UNTIL(m.downs == 1 && w.downs == 1);
    assert_int_equal(m.ups + w.ups, 0);
    if (!strstr(m.why, manager_says) || !strstr(w.why, node_hears))
        fail_msg("the manager says \"%s\", the node hears \"%s\"", m.why, w.why);
    end_close(&w);
    end_close(&m);
}

static void test_refused_certificates(void **state)
{
    struct end m, w;
    (void)state;
    refused(&world.ca, "swarm-worker", -1000, -10, "CN = w1: certificate has expired", "expired");
    refused(&world.ca, "swarm-worker", 1000, 2000, "CN = w1: certificate is not yet valid", "bad certificate");
    refused(&world.foreign, "swarm-worker", -100, 1000, "CN = w1", "");
    /* what the store says of it */
    manager_open(&m);
    m.refuse = "node w1 is not part of this swarm (any more)";
    end_open(&w, &world.ca, "w1", "swarm-worker", -100, 1000);
    dial(&w);
    UNTIL(m.downs == 1 && w.downs == 1);
    assert_string_equal(w.why, "the peer says: node w1 is not part of this swarm (any more)");
    end_close(&w);
    end_close(&m);
}

/* A node that was given a manager's certificate of another root is not talked to, either. */
static void test_false_manager(void **state)
{
    struct end m, w;
    (void)state;
    manager_open(&m);
    end_open(&w, &world.foreign, "w1", "swarm-worker", -100, 1000);
    buf_clear(&w.cred.trust);
    buf_put(&w.cred.trust, world.foreign.pem.p, world.foreign.pem.n);
    gw_tls_ctx_unref(w.ctx);
    assert_int_equal(gw_tls_ctx_new(&w.ctx, &w.cred, &(struct err)ERR_INIT), 0);
    dial(&w);
    UNTIL(w.downs == 1);
    assert_non_null(strstr(w.why, "CN = m1"));
    assert_int_equal(m.ups, 0);
    end_close(&w);
    end_close(&m);
}

static void test_certificate_expires_on_a_link(void **state)
{
    struct end m, w;
    (void)state;
    manager_open(&m);
    end_open(&w, &world.ca, "w1", "swarm-worker", -100, 2);
    dial(&w);
    UNTIL(m.link && w.link);
    UNTIL(m.downs == 1);
    assert_string_equal(m.why, "the certificate of node w1 has expired");
    UNTIL(w.downs == 1);
    end_close(&w);
    end_close(&m);
}

/* ---- peers that aren't ours ---- */

static void test_garbage(void **state)
{
    static const char bytes[] = "GET / HTTP/1.1\r\nHost: swarm\r\n\r\n";
    struct end m;
    char buf[64];
    (void)state;
    manager_open(&m);
    int fd = dial_raw();
    assert_int_equal(write(fd, bytes, sizeof bytes), sizeof bytes);
    UNTIL(m.downs == 1);
    assert_true(read(fd, buf, sizeof buf) <= (ssize_t)sizeof buf);
    close(fd);
    end_close(&m);
}

static void test_half_open(void **state)
{
    struct end m;
    int fd[GW_YOUNG_MAX + 10];
    (void)state;
    manager_open(&m);
    uint64_t begin = gw_now_ms();
    for (size_t i = 0; i < GW_YOUNG_MAX + 10; i++)
        fd[i] = dial_raw();
    UNTIL(m.net.n.accepted == GW_YOUNG_MAX + 10);
    assert_int_equal(m.net.nyoung, GW_YOUNG_MAX); /* the oldest have gone */
    assert_int_equal(m.net.n.evicted, 10);
    UNTIL(m.net.nyoung == 0); /* the others are given up after a while */
    assert_in_range(gw_now_ms() - begin, GW_HELLO_MS - 500, GW_HELLO_MS + 3000);
    for (size_t i = 0; i < GW_YOUNG_MAX + 10; i++)
        close(fd[i]);
    end_close(&m);
}

/* A real client with OpenSSL's own loop, for what our own code would never send. */
static SSL *client(int fd, int version, struct end *with)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_max_proto_version(ctx, version);
    if (with) {
        SSL_CTX_use_certificate(ctx, with->cred.cert);
        SSL_CTX_use_PrivateKey(ctx, with->cred.key);
    }
    SSL *ssl = SSL_new(ctx);
    SSL_CTX_free(ctx);
    SSL_set_fd(ssl, fd);
    assert_true(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    return ssl;
}

static int shake(SSL *ssl)
{
    uint64_t end = gw_now_ms() + WAIT_MS;
    while (gw_now_ms() < end) {
        int r = SSL_connect(ssl);
        if (r == 1)
            return 1;
        int why = SSL_get_error(ssl, r);
        if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
            return -1;
        turn();
    }
    return 0;
}

static void test_tls_1_2_is_refused(void **state)
{
    struct end m;
    (void)state;
    manager_open(&m);
    int fd = dial_raw();
    SSL *ssl = client(fd, TLS1_2_VERSION, NULL);
    assert_int_equal(shake(ssl), -1);
    assert_non_null(strstr(ERR_reason_error_string(ERR_peek_error()) ?: "", "protocol version"));
    ERR_clear_error();
    UNTIL(m.downs == 1);
    assert_int_equal(m.ups, 0);
    SSL_free(ssl);
    close(fd);
    end_close(&m);
}

static void write_frame(SSL *ssl, struct gw_header h, const void *p)
{
    uint8_t head[GW_HEADER_BYTES];
    gw_header_encode(&h, head);
    assert_int_equal(SSL_write(ssl, head, sizeof head), sizeof head);
    if (h.len > 0 && p)
        assert_int_equal(SSL_write(ssl, p, (int)h.len), (int)h.len);
}

static void test_bad_frames_close_the_link(void **state)
{
    static const struct gw_header bad[] = {
        { 8, 0, 8, GW_REQUEST, 3 },              /* before the greeting */
        { 1u << 30, 0, 1u << 30, GW_HELLO, 3 },  /* oversized */
        { 8, 0, 8, 99, 3 },                      /* unknown */
        { 8, 0, 8, GW_HELLO, 3 },                /* a greeting that isn't one */
        { 8, 0, GW_MESSAGE_MAX, GW_REQUEST, 1 }, /* more than a node without a certificate may send */
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct end m;
        manager_open(&m);
        int fd = dial_raw();
        SSL *ssl = client(fd, TLS1_3_VERSION, NULL);
        assert_int_equal(shake(ssl), 1);
        write_frame(ssl, bad[i], bad[i].len <= 8 ? "12345678" : NULL);
        UNTIL(m.downs == 1);
        assert_int_equal(m.ups + m.messages, 0);
        SSL_free(ssl);
        close(fd);
        end_close(&m);
    }
}

/* Connected, but it never says hello: gone after the same time as one that does not even shake hands. */
static void test_silent_after_handshake(void **state)
{
    struct end m;
    (void)state;
    manager_open(&m);
    int fd = dial_raw();
    SSL *ssl = client(fd, TLS1_3_VERSION, NULL);
    assert_int_equal(shake(ssl), 1);
    UNTIL(m.downs == 1);
    assert_string_equal(m.why, "did not finish its greeting in time");
    SSL_free(ssl);
    close(fd);
    end_close(&m);
}

/* ---- priorities and back-pressure ---- */

static void test_raft_overtakes_bulk(void **state)
{
    struct end m, w;
    unsigned at = 0;
    (void)state;
    manager_open(&m);
    end_open(&w, &world.ca, "m2", "swarm-manager", -100, 1000);
    dial(&w);
    UNTIL(m.link && w.link);
    for (uint32_t i = 0; i < 4; i++)
        assert_true(send_bytes(w.link, GW_REPLY, 100 + i, 20u << 20));
    UNTIL(m.net.n.rx_bytes > 1u << 20);
    assert_true(send_bytes(w.link, GW_REQUEST, 5, 500));
    assert_true(send_bytes(w.link, GW_RAFT, 0, 500));
    UNTIL(m.messages == 6);
    assert_int_equal(m.got[0].type, GW_RAFT);
    assert_int_equal(m.got[1].type, GW_REQUEST);
    for (at = 2; at < 6; at++)
        assert_true(m.got[at].type == GW_REPLY && m.got[at].n == 20u << 20 && !m.got[at].lost);
    end_close(&w);
    end_close(&m);
}

/* A peer that reads nothing: its queue has an end, Raft's datagrams are dropped, other links don't notice. */
static void test_slow_reader(void **state)
{
    struct end m, slow, other;
    (void)state;
    manager_open(&m);
    end_open(&slow, &world.ca, "m2", "swarm-manager", -100, 1000);
    end_open(&other, &world.ca, "m3", "swarm-manager", -100, 1000);
    dial(&slow);
    UNTIL(m.link && slow.link);
    struct gw_link *stuck = m.link;
    sd_event_source_set_enabled(slow.link->io, SD_EVENT_OFF);
    dial(&other);
    UNTIL(other.link && m.link != stuck);
    unsigned sent = 0;
    while (send_bytes(stuck, GW_REPLY, sent, 16u << 20))
        sent++;
    assert_in_range(sent, 14, 16); /* 256 MiB to a manager */
    for (int i = 0; i < 100; i++)
        assert_true(send_bytes(stuck, GW_RAFT, 0, 1u << 20));
    assert_true(stuck->out.dropped >= 80);
    assert_true(send_bytes(stuck, GW_REQUEST, 1, 100)); /* there is some room for what is small */
    assert_true(send_bytes(m.link, GW_REQUEST, 2, 100));
    UNTIL(other.messages == 1);
    assert_int_equal(slow.messages, 0);
    struct err e = ERR_INIT;
    err_set(&e, ERR_UNAVAILABLE, "enough");
    gw_link_close(stuck, &e);
    UNTIL(m.net.nlinks == 1);
    assert_int_equal(m.net.out_bytes, 0);
    end_close(&slow);
    end_close(&other);
    end_close(&m);
}

/* What a peer leaves unfinished is bounded in number and in bytes. */
static void test_unfinished_messages(void **state)
{
    struct end m, w;
    (void)state;
    manager_open(&m);
    end_open(&w, &world.ca, "w1", "swarm-worker", -100, 1000);
    int fd = dial_raw();
    SSL *ssl = client(fd, TLS1_3_VERSION, &w);
    assert_int_equal(shake(ssl), 1);
    struct buf b = BUF_INIT;
    struct gw_hello h = { .Version = 1, .Node = STR("w1") };
    fields_encode(&h, gw_hello_fields, &b);
    write_frame(ssl, (struct gw_header){ (uint32_t)b.n, 0, (uint32_t)b.n, GW_HELLO, 3 }, b.p);
    UNTIL(m.ups == 1);
    for (uint32_t i = 0; i < 64; i++)
        write_frame(ssl, (struct gw_header){ 1, i, 4u << 20, GW_REQUEST, 1 }, "x");
    UNTIL(m.net.in_budget.used == 32u << 20); /* eight have room, the others are thrown away */
    write_frame(ssl, (struct gw_header){ 1, 64, 100, GW_REQUEST, 1 }, "x");
    UNTIL(m.downs == 1);
    assert_string_equal(m.why, "more than 64 unfinished messages");
    UNTIL(m.net.nlinks == 0);
    assert_int_equal(m.net.in_budget.used, 0);
    buf_done(&b);
    SSL_free(ssl);
    close(fd);
    end_close(&w);
    end_close(&m);
}

/* A newer link takes over; the older one ends when both sides have their answers. */
static void test_drain(void **state)
{
    struct end m, w;
    (void)state;
    manager_open(&m);
    end_open(&w, &world.ca, "w1", "swarm-worker", -100, 1000);
    dial(&w);
    UNTIL(m.link && w.link);
    struct gw_link *m_old = m.link, *w_old = w.link;
    w_old->slots_used = 1; /* the worker waits for a reply */
    dial(&w);
    UNTIL(m.link != m_old && w.link != w_old);
    gw_link_drain(m_old);
    gw_link_drain(w_old);
    UNTIL(w_old->done_got);
    for (int i = 0; i < 20; i++)
        turn();
    assert_int_equal(m.downs + w.downs, 0);
    w_old->slots_used = 0;
    gw_link_idle(w_old);
    UNTIL(m.downs == 1 && w.downs == 1);
    assert_true(m.link && w.link);
    end_close(&w);
    end_close(&m);
}

static void test_address_in_use(void **state)
{
    struct end m;
    struct err e = ERR_INIT;
    int fd;
    (void)state;
    manager_open(&m);
    assert_int_equal(gw_net_bind(&(struct host_port){ "127.0.0.1", world.port }, &fd, &e), -ERR_PRECONDITION);
    assert_non_null(strstr(e.msg, "address already in use"));
    assert_int_equal(gw_net_bind(&(struct host_port){ "203.0.113.7", 2377 }, &fd, &e), -ERR_PRECONDITION);
    assert_non_null(strstr(e.msg, "cannot assign requested address"));
    end_close(&m);
}

static int setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    test_ca_make(&world.ca);
    test_ca_make(&world.foreign);
    return sd_event_new(&world.loop) < 0;
}

static int teardown(void **state)
{
    (void)state;
    test_ca_done(&world.ca);
    test_ca_done(&world.foreign);
    sd_event_unref(world.loop);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways),
        cmocka_unit_test(test_nobody_is_nobody),
        cmocka_unit_test(test_refused_certificates),
        cmocka_unit_test(test_false_manager),
        cmocka_unit_test(test_certificate_expires_on_a_link),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_half_open),
        cmocka_unit_test(test_tls_1_2_is_refused),
        cmocka_unit_test(test_bad_frames_close_the_link),
        cmocka_unit_test(test_silent_after_handshake),
        cmocka_unit_test(test_raft_overtakes_bulk),
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_unfinished_messages),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_address_in_use),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
