/*
 * dns_server_test.c - the nameserver with real sockets: this process is the host, in a network namespace of its own;
 * sandboxes are namespaces beside it. One event loop plays the server, the outside's nameservers and the clients.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/util/cleanup.h"
#include "common/util/clock.h"
#include "meshd/dns/dns_server.h"
#include "meshd/netlink/mesh_ns.h"

#define WAIT_MS 10000u

static char dir[] = "/tmp/dns-test-XXXXXX";
static int home = -1;
static bool have_root;
static sd_event *loop;
static struct netmap map;
static struct dns_server *server;
static const char networks[][ID_SIZE] = { "n1" };

/* ---- the stage ---- */

static void run(const char *cmd)
{
    if (system(cmd) != 0)
        fail_msg("failed: %s", cmd);
}

static const char *pin(const char *name)
{
    static char path[2][100];
    static unsigned at;
    at = !at;
    snprintf(path[at], sizeof path[at], "%s/%s", dir, name);
    return path[at];
}

static void sandbox_make(const char *name)
{
    struct err e = ERR_INIT;
    if (mesh_ns_make(pin(name), &e) < 0)
        fail_msg("%s", e.msg);
    run("ip link set lo up");
    mesh_ns_back(home);
}

static int stage(void **state)
{
    struct err e = ERR_INIT;
    (void)state;
    have_root = geteuid() == 0;
    if (!have_root)
        return 0;
    if (!mkdtemp(dir) || unshare(CLONE_NEWNET | CLONE_NEWNS) != 0)
        return -1;
    run("mount --make-rprivate /");
    run("ip link set lo up");
    home = mesh_ns_self();
    assert_int_equal(mesh_ns_dir(dir, &e), 0);
    sandbox_make("t1");
    sandbox_make("t2");
    return 0;
}

static int strike(void **state)
{
    struct err e = ERR_INIT;
    (void)state;
    if (!have_root)
        return 0;
    (void)mesh_ns_unpin(pin("t1"), &e);
    (void)mesh_ns_unpin(pin("t2"), &e);
    (void)umount2(dir, MNT_DETACH);
    (void)rmdir(dir);
    return 0;
}

/* ---- the outside: answers every question with its own number as an address ---- */

enum manner { ANSWERS, IS_SILENT, FAILS, LIES };

struct outside {
    enum manner manner;
    uint8_t number;
    int udp, tcp;
    unsigned asked;
    sd_event_source *io[2];
};
static struct outside out[2];

static size_t outside_answer(struct outside *o, char *m, size_t n)
{
    static const char rr[] = "\xc0\x0c\0\1\0\1\0\0\0\5\0\4\x09\x09\x09";
    o->asked++;
    m[2] = (char)0x81;
    m[3] = (char)(o->manner == FAILS ? 0x82 : 0x80);
    if (o->manner == FAILS)
        return n;
    m[7] = 1;
    memcpy(m + n, rr, sizeof rr - 1);
    m[n + sizeof rr - 1] = (char)o->number;
    return n + sizeof rr;
}

static int on_outside(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
    struct outside *o = arg;
    char m[2000];
    struct sockaddr_in from;
    socklen_t len = sizeof from;
    ssize_t n = recvfrom(fd, m, 1000, MSG_DONTWAIT, (struct sockaddr *)&from, &len);
    (void)s, (void)revents;
    if (n < 12)
        return 0;
    size_t size = outside_answer(o, m, (size_t)n);
    if (o->manner == IS_SILENT)
        return 0;
    if (o->manner == LIES) { /* first somebody's guess: a wrong id; then the wrong question */
        m[0]++;
        (void)sendto(fd, m, size, 0, (struct sockaddr *)&from, len);
        m[0]--;
        m[13]++;
        (void)sendto(fd, m, size, 0, (struct sockaddr *)&from, len);
        m[13]--;
    }
    (void)sendto(fd, m, size, 0, (struct sockaddr *)&from, len);
    return 0;
}

static int on_outside_conn(sd_event_source *s, int c, uint32_t revents, void *arg)
{
    char m[2000];
    ssize_t n = recv(c, m, 1000, 0);
    (void)revents;
    if (n > 14) {
        size_t size = outside_answer(arg, m + 2, (size_t)n - 2);
        m[0] = (char)(size >> 8);
        m[1] = (char)size;
        assert_int_equal(send(c, m, size + 2, MSG_NOSIGNAL), size + 2);
    }
    (void)sd_event_source_disable_unref(s);
    close(c);
    return 0;
}

static int on_outside_tcp(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
    sd_event_source *conn;
    int c = accept(fd, NULL, NULL);
    (void)s, (void)revents;
    assert_true(c >= 0);
    assert_true(sd_event_add_io(loop, &conn, c, EPOLLIN, on_outside_conn, arg) >= 0);
    return 0;
}

static int bound(const char *addr, int type)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(53) };
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0), on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    assert_int_equal(inet_pton(AF_INET, addr, &at.sin_addr), 1);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    if (type == SOCK_STREAM)
        assert_int_equal(listen(fd, 8), 0);
    return fd;
}

/* @where: NULL for the host's network */
static void outside_open(unsigned i, const char *addr, const char *where, enum manner manner)
{
    struct outside *o = &out[i];
    struct err e = ERR_INIT;
    *o = (struct outside){ .manner = manner, .number = (uint8_t)(i + 1) };
    if (where)
        assert_int_equal(mesh_ns_enter(pin(where), &e), 0);
    o->udp = bound(addr, SOCK_DGRAM);
    o->tcp = bound(addr, SOCK_STREAM);
    mesh_ns_back(home);
    assert_true(sd_event_add_io(loop, &o->io[0], o->udp, EPOLLIN, on_outside, o) >= 0);
    assert_true(sd_event_add_io(loop, &o->io[1], o->tcp, EPOLLIN, on_outside_tcp, o) >= 0);
}

static int setup(void **state)
{
    static struct net_network n = { .ID = STR("n1"), .Name = STR("net") };
    static struct str vip = STR("10.0.1.2");
    static struct net_service s = {
        .ID = STR("s1"), .NetworkID = STR("n1"), .Name = STR("web"), .Mode = STR("vip"), .VIPs = { &vip, 1 }
    };
    struct err e = ERR_INIT;
    (void)state;
    if (!have_root)
        return 0;
    assert_true(sd_event_new(&loop) >= 0);
    netmap_init(&map);
    assert_int_equal(
        netmap_apply(&map, &(struct disp_network_reply){ .Seq = 1, .Networks = { &n, 1 }, .Services = { &s, 1 } }, &e),
        0);
    if (dns_server_open(&server, loop, &map, &e) < 0)
        fail_msg("%s", e.msg);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (!have_root)
        return 0;
    server = dns_server_free(server);
    for (unsigned i = 0; i < 2; i++) {
        if (!out[i].io[0])
            continue;
        for (unsigned k = 0; k < 2; k++)
            out[i].io[k] = sd_event_source_disable_unref(out[i].io[k]);
        close(out[i].udp);
        close(out[i].tcp);
    }
    netmap_done(&map);
    loop = sd_event_unref(loop);
    return 0;
}

#define NEED_ROOT()                                                                                                    \
    if (!have_root)                                                                                                    \
    skip()

static void serve(const char *task, const char *own_server)
{
    struct err e = ERR_INIT;
    struct str own = str_from(own_server);
    struct dns_sandbox sb = { .task = task,
                              .netns = pin(task),
                              .hostname = "box",
                              .nnetworks = 1,
                              .networks = networks,
                              .nameservers = { &own, own_server ? 1 : 0 },
                              .outside = true };
    if (dns_server_add(server, &sb, &e) < 0)
        fail_msg("%s", e.msg);
}

static void host_servers(const char *a, const char *b)
{
    struct str v[2] = { str_from(a), str_from(b) };
    dns_server_host(server, &(struct strs){ v, b ? 2 : 1 });
}

/* ---- clients ---- */

static int client(const char *task, int type)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(DNS_PORT) };
    struct err e = ERR_INIT;
    assert_int_equal(mesh_ns_enter(pin(task), &e), 0);
    int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    mesh_ns_back(home);
    assert_int_equal(inet_pton(AF_INET, DNS_ADDRESS, &to.sin_addr), 1);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
        assert_int_equal(errno, EINPROGRESS);
    return fd;
}

static size_t question(char *m, uint16_t id, const char *name)
{
    static const char head[] = "\0\0\1\0\0\1\0\0\0\0\0\0";
    size_t n = 12;
    memcpy(m, head, 12); /* NOLINT(bugprone-not-null-terminated-result) */
    m[0] = (char)(id >> 8);
    m[1] = (char)id;
    while (*name) {
        size_t len = strcspn(name, ".");
        m[n++] = (char)len;
        memcpy(m + n, name, len);
        n += len;
        name += len + (name[len] == '.');
    }
    memcpy(m + n, "\0\0\1\0\1", 5); /* NOLINT(bugprone-not-null-terminated-result) */
    return n + 5;
}

static void spin(void)
{
    assert_true(sd_event_run(loop, 10000) >= 0);
}

/* hear - the answer's last byte when it is an address, else minus its result code; -100 when none comes in time */
static int judge(const char *m, size_t n, uint16_t id)
{
    assert_true(n >= 12);
    assert_int_equal((uint8_t)m[0] << 8 | (uint8_t)m[1], id);
    assert_true((uint8_t)m[2] & 0x80);
    return m[7] ? (uint8_t)m[n - 1] : -(m[3] & 0xf);
}

static int hear(int fd, uint16_t id, uint64_t wait_ms)
{
    char m[70000];
    for (uint64_t end = clock_mono().ms + wait_ms; clock_mono().ms < end;) {
        ssize_t n = recv(fd, m, sizeof m, MSG_DONTWAIT);
        if (n >= 0)
            return judge(m, (size_t)n, id);
        spin();
    }
    return -100;
}

static int ask(const char *task, const char *name)
{
    static uint16_t id;
    _cleanup_(closep) int fd = client(task, SOCK_DGRAM);
    char m[600];
    size_t n = question(m, ++id, name);
    assert_int_equal(send(fd, m, n, 0), n);
    return hear(fd, id, WAIT_MS);
}

static void send_all(int fd, const char *m, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t w = send(fd, m + at, n - at, MSG_NOSIGNAL);
        if (w > 0)
            at += (size_t)w;
        else
            spin();
    }
}

static int hear_tcp(int fd, uint16_t id)
{
    char m[3000];
    size_t n = 0;
    for (uint64_t end = clock_mono().ms + WAIT_MS; clock_mono().ms < end;) {
        size_t want = n < 2 ? 2 - n : 2 + (size_t)((uint8_t)m[0] << 8 | (uint8_t)m[1]) - n;
        if (want == 0)
            return judge(m + 2, n - 2, id);
        ssize_t r = recv(fd, m + n, want, MSG_DONTWAIT);
        if (r == 0)
            return -101;
        if (r > 0)
            n += (size_t)r;
        else
            spin();
    }
    return -100;
}

static size_t question_tcp(char *m, uint16_t id, const char *name)
{
    size_t n = question(m + 2, id, name);
    m[0] = (char)(n >> 8);
    m[1] = (char)n;
    return n + 2;
}

/* ---- tests ---- */

static void test_inside_and_outside(void **state)
{
    (void)state;
    NEED_ROOT();
    outside_open(0, "127.0.0.1", NULL, ANSWERS);
    host_servers("127.0.0.1", NULL);
    serve("t1", NULL);
    serve("t2", NULL);
    assert_int_equal(ask("t1", "web"), 2);
    assert_int_equal(ask("t2", "WEB"), 2);
    assert_int_equal(out[0].asked, 0);
    assert_int_equal(ask("t1", "debian.org"), 1);
    assert_int_equal(out[0].asked, 1);
    dns_server_del(server, STR("t2"));
    dns_server_del(server, STR("t2"));
    struct dns_counts c;
    dns_server_counts(server, &c);
    assert_int_equal(c.sandboxes, 1);
    assert_int_equal(c.asks, 0);
    assert_int_equal(c.questions, 3);
}

static void test_next_server(void **state)
{
    (void)state;
    NEED_ROOT();
    outside_open(0, "127.0.0.1", NULL, FAILS);
    outside_open(1, "127.0.0.2", NULL, ANSWERS);
    host_servers("127.0.0.1", "127.0.0.2");
    serve("t1", NULL);
    assert_int_equal(ask("t1", "debian.org"), 2);
    host_servers("127.0.0.3", "127.0.0.2"); /* nobody there: refused at once */
    assert_int_equal(ask("t1", "debian.org"), 2);
    out[0].manner = IS_SILENT;
    host_servers("127.0.0.1", "127.0.0.2");
    assert_int_equal(ask("t1", "debian.org"), 2); /* after DNS_ASK_MS */
    host_servers("127.0.0.1", NULL);
    assert_int_equal(ask("t1", "debian.org"), -2); /* SERVFAIL */
    host_servers("not an address", NULL);
    assert_int_equal(ask("t1", "debian.org"), -2);
}

static void test_liars(void **state)
{
    (void)state;
    NEED_ROOT();
    outside_open(0, "127.0.0.1", NULL, LIES);
    host_servers("127.0.0.1", NULL);
    serve("t1", NULL);
    assert_int_equal(ask("t1", "debian.org"), 1);
}

/* The service's own nameservers are asked from inside: only there is this one to be reached. */
static void test_own_server(void **state)
{
    (void)state;
    NEED_ROOT();
    outside_open(1, "127.0.0.5", "t1", ANSWERS);
    host_servers("127.0.0.9", NULL);
    serve("t1", "127.0.0.5");
    serve("t2", "127.0.0.5");
    assert_int_equal(ask("t1", "debian.org"), 2);
    assert_int_equal(ask("t2", "debian.org"), -2);
}

static void test_tcp(void **state)
{
    char m[1300];
    size_t n = 0;
    (void)state;
    NEED_ROOT();
    outside_open(0, "127.0.0.1", NULL, ANSWERS);
    host_servers("127.0.0.1", NULL);
    serve("t1", NULL);
    _cleanup_(closep) int fd = client("t1", SOCK_STREAM);
    n = question_tcp(m, 7, "web");
    n += question_tcp(m + n, 8, "debian.org"); /* one behind the other */
    n += question_tcp(m + n, 9, "web");
    for (size_t i = 0; i < n; i += 5) /* in pieces */
        send_all(fd, m + i, n - i < 5 ? n - i : 5);
    assert_int_equal(hear_tcp(fd, 7), 2);
    assert_int_equal(hear_tcp(fd, 8), 1);
    assert_int_equal(hear_tcp(fd, 9), 2);
    _cleanup_(closep) int big = client("t1", SOCK_STREAM);
    send_all(big, "\xff\xff", 2); /* more than any question has */
    assert_int_equal(hear_tcp(big, 0), -101);
    _cleanup_(closep) int junk = client("t1", SOCK_STREAM);
    send_all(junk, "\0\3abc", 5); /* no question: nothing to wait for */
    assert_int_equal(hear_tcp(junk, 0), -101);
}

static void test_connections_are_bounded(void **state)
{
    int fd[DNS_CONNS_EACH + 4];
    char m[600];
    size_t n = question_tcp(m, 3, "web");
    (void)state;
    NEED_ROOT();
    serve("t1", NULL);
    for (unsigned i = 0; i < DNS_CONNS_EACH + 4; i++) {
        fd[i] = client("t1", SOCK_STREAM);
        spin();
    }
    struct dns_counts c;
    for (uint64_t end = clock_mono().ms + WAIT_MS; clock_mono().ms < end;) {
        dns_server_counts(server, &c);
        if (c.connections + c.dropped == DNS_CONNS_EACH + 4)
            break;
        spin();
    }
    assert_int_equal(c.connections, DNS_CONNS_EACH);
    assert_int_equal(c.dropped, 4);
    send_all(fd[0], m, n);
    assert_int_equal(hear_tcp(fd[0], 3), 2);
    for (unsigned i = 0; i < DNS_CONNS_EACH + 4; i++)
        close(fd[i]);
    serve("t1", NULL); /* anew: what is left of it is let go */
    assert_int_equal(ask("t1", "web"), 2);
}

/* A flood from one container: it gets its share and no more, and the other one is served. */
static void test_flood(void **state)
{
    char m[600];
    (void)state;
    NEED_ROOT();
    outside_open(0, "127.0.0.1", NULL, IS_SILENT);
    host_servers("127.0.0.1", NULL);
    serve("t1", NULL);
    serve("t2", NULL);
    _cleanup_(closep) int fd = client("t1", SOCK_DGRAM);
    struct dns_counts before, after;
    dns_server_counts(server, &before);
    uint64_t t0 = clock_mono().ms;
    for (unsigned i = 0; i < 20000; i++) {
        (void)send(fd, m, question(m, (uint16_t)i, i % 2 ? "flood.org" : "web"), MSG_DONTWAIT);
        if (i % 50 == 0)
            spin();
    }
    assert_int_equal(ask("t2", "web"), 2);
    uint64_t tenths = (clock_mono().ms - t0) / 100 + 2;
    dns_server_counts(server, &after);
    assert_true(after.questions - before.questions <= tenths * (DNS_RATE / 10) + 1);
    assert_true(after.asks <= DNS_ASKS_EACH);
    assert_true(after.questions - before.questions > 100);
    char rest[70000];
    while (recv(fd, rest, sizeof rest, MSG_DONTWAIT) > 0)
        ;
    for (uint64_t end = clock_mono().ms + WAIT_MS; clock_mono().ms < end && after.asks > 0;) {
        spin();
        dns_server_counts(server, &after);
    }
    assert_int_equal(after.asks, 0); /* all given up in time */
    while (recv(fd, rest, sizeof rest, MSG_DONTWAIT) > 0)
        ;
    assert_int_equal(ask("t1", "web"), 2); /* and it is served again */
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_inside_and_outside),      T(test_next_server), T(test_liars), T(test_own_server), T(test_tcp),
        T(test_connections_are_bounded), T(test_flood),
    };
    return cmocka_run_group_tests(tests, stage, strike);
}
