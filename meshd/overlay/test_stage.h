/*
 * test_stage.h - hosts for tests: network namespaces on one wire, each with an overlay part of its own, sandboxes and a
 * map of what all of them run. For the tests of overlay/ and vip/ only.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "meshd/overlay/overlay.h"

#define STAGE_HOSTS 3
#define WAIT_MS 20000
#define UNUSED __attribute__((unused))

struct stage_host {
    int ns;
    char id[ID_SIZE], addr[32], run[300];
    struct attach_set tasks;
    struct netmap map;
    struct overlay ov;
};
struct stage_net {
    char id[ID_SIZE], subnet[32], subnet6[64];
    unsigned vni, mtu;
    bool encrypted;
};
struct stage_task {
    char id[ID_SIZE], service[ID_SIZE];
    int host;
    const char *state; /* NULL: gone */
    size_t nnets;
    const struct stage_net *net[4];
    char addr[4][32], addr6[4][64];
};
struct stage_service {
    char id[ID_SIZE];
    const struct stage_net *net;
    char vip[32], vip6[64];
    bool dnsrr, gone;
};

static struct {
    bool root;
    char dir[32];
    int wire, home;
    struct stage_host hosts[STAGE_HOSTS];
    struct stage_task tasks[64];
    size_t ntasks;
    struct stage_service services[16];
    size_t nservices;
    const struct stage_net *nets[8];
    size_t nnets;
    uint64_t seq;
    unsigned port;
    void (*changed)(struct stage_host *h, const struct netmap_change *c); /* for parts beside the overlay */
    void (*synced)(struct stage_host *h);
} stage = { .port = 4789 };

static void UNUSED sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void UNUSED sh(const char *fmt, ...)
{
    char cmd[1000];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(cmd, sizeof cmd, fmt, ap);
    va_end(ap);
    if (system(cmd) != 0)
        fail_msg("failed: %s", cmd);
}

static bool UNUSED sh_ok(const char *cmd)
{
    return system(cmd) == 0;
}

static void UNUSED enter(int ns)
{
    if (setns(ns, CLONE_NEWNET) != 0)
        abort();
}

static int UNUSED new_ns(void)
{
    if (unshare(CLONE_NEWNET) != 0)
        abort();
    int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(system("ip link set lo up"), 0);
    return fd;
}

static void UNUSED on_note(void *arg, const char *text)
{
    struct stage_host *h = arg;
    print_message("note %s: %s\n", h->id, text);
}

/* stage_make - once a process; false without root. */
static bool UNUSED stage_make(void)
{
    stage.root = geteuid() == 0;
    if (!stage.root || unshare(CLONE_NEWNS) != 0)
        return stage.root = false;
    snprintf(stage.dir, sizeof stage.dir, "/tmp/overlay-test-XXXXXX");
    if (!mkdtemp(stage.dir) || system("mount --make-rprivate /") != 0)
        abort();
    if (mount("tmpfs", stage.dir, "tmpfs", 0, NULL) != 0)
        abort();
    stage.home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    stage.wire = new_ns();
    if (system("ip link add br0 type bridge && ip link set br0 up") != 0)
        abort();
    for (int i = 0; i < STAGE_HOSTS; i++) {
        struct stage_host *h = &stage.hosts[i];
        h->ns = new_ns();
        snprintf(h->id, sizeof h->id, "host%d", i);
        snprintf(h->addr, sizeof h->addr, "10.250.0.%d", i + 1);
        snprintf(h->run, sizeof h->run, "%s/h%d", stage.dir, i);
        mkdir(h->run, 0755);
        enter(stage.wire);
        sh("ip link add w%d type veth peer name eth0 netns /proc/%d/fd/%d && ip link set w%d master br0 up", i,
           getpid(), h->ns, i);
        enter(h->ns);
        sh("echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip addr add %s/24 dev eth0 && ip link set eth0 up",
           h->addr);
    }
    enter(stage.hosts[0].ns);
    return true;
}

static void UNUSED stage_unmake(void)
{
    if (!stage.root)
        return;
    enter(stage.home);
    umount2(stage.dir, MNT_DETACH);
    rmdir(stage.dir);
}

static void UNUSED host_open(struct stage_host *h)
{
    char dir[400];
    struct err e = ERR_INIT;
    enter(h->ns);
    snprintf(dir, sizeof dir, "%s/netns", h->run);
    if (mesh_ns_dir(dir, &e) < 0)
        fail_msg("%s", e.msg);
    snprintf(dir, sizeof dir, "%s/attach", h->run);
    netmap_init(&h->map);
    if (attach_set_open(&h->tasks, dir, on_note, h, &e) < 0 ||
        overlay_open(&h->ov, h->run, &h->tasks, &h->map, on_note, h, &e) < 0)
        fail_msg("%s", e.msg);
    overlay_self(&h->ov, h->id);
}

static void UNUSED host_close(struct stage_host *h)
{
    enter(h->ns);
    overlay_close(&h->ov);
    attach_set_close(&h->tasks);
    netmap_done(&h->map);
}

/* host_tell - the map as it is now, in full; what changed is carried out. */
static bool UNUSED host_tell(struct stage_host *h)
{
    struct net_network nets[8];
    struct net_subnet subnets[8][2];
    struct net_service services[16];
    struct net_endpoint eps[256];
    struct net_node nodes[STAGE_HOSTS];
    struct str vips[16][2], addrs[256][2];
    struct netmap_change c;
    struct err e = ERR_INIT;
    size_t ns = 0, ne = 0;
    for (size_t i = 0; i < stage.nnets; i++) {
        const struct stage_net *n = stage.nets[i];
        subnets[i][0] = (struct net_subnet){ .Subnet = str_from(n->subnet) };
        subnets[i][1] = (struct net_subnet){ .Subnet = str_from(n->subnet6) };
        nets[i] = (struct net_network){ .ID = str_from(n->id),
                                        .Name = str_from(n->id),
                                        .VNI = n->vni,
                                        .MTU = n->mtu,
                                        .Encrypted = n->encrypted,
                                        .Subnets = { subnets[i], n->subnet6[0] ? 2 : 1 } };
    }
    for (size_t i = 0; i < stage.nservices; i++) {
        const struct stage_service *s = &stage.services[i];
        if (s->gone)
            continue;
        vips[ns][0] = str_from(s->vip);
        vips[ns][1] = str_from(s->vip6);
        services[ns] = (struct net_service){ .ID = str_from(s->id),
                                             .NetworkID = str_from(s->net->id),
                                             .Name = str_from(s->id),
                                             .Mode = s->dnsrr ? STR("dnsrr") : STR("vip"),
                                             .VIPs = { vips[ns], s->dnsrr     ? 0
                                                                 : s->vip6[0] ? 2
                                                                              : 1 } };
        ns++;
    }
    for (size_t i = 0; i < stage.ntasks; i++)
        for (size_t k = 0; k < stage.tasks[i].nnets; k++) {
            const struct stage_task *t = &stage.tasks[i];
            if (!t->state)
                continue;
            addrs[ne][0] = str_from(t->addr[k]);
            addrs[ne][1] = str_from(t->addr6[k]);
            eps[ne] = (struct net_endpoint){ .ID = str_from(t->id),
                                             .NetworkID = str_from(t->net[k]->id),
                                             .ServiceID = str_from(t->service),
                                             .NodeID = str_from(stage.hosts[t->host].id),
                                             .Name = str_from(t->id),
                                             .State = str_from(t->state),
                                             .Addresses = { addrs[ne], t->addr6[k][0] ? 2 : 1 } };
            ne++;
        }
    for (int i = 0; i < STAGE_HOSTS; i++)
        nodes[i] = (struct net_node){ .ID = str_from(stage.hosts[i].id),
                                      .Addr = str_from(stage.hosts[i].addr),
                                      .Hostname = str_from(stage.hosts[i].id) };
    struct disp_network_reply rep = { .Seq = ++stage.seq,
                                      .Full = true,
                                      .DataPathPort = stage.port,
                                      .Networks = { nets, stage.nnets },
                                      .Services = { services, ns },
                                      .Endpoints = { eps, ne },
                                      .Nodes = { nodes, STAGE_HOSTS } };
    enter(h->ns);
    if (netmap_apply(&h->map, &rep, &e) < 0)
        fail_msg("map: %s", e.msg);
    while (netmap_next(&h->map, &c)) {
        overlay_change(&h->ov, &c);
        if (stage.changed)
            stage.changed(h, &c);
    }
    bool all = overlay_sync(&h->ov);
    if (stage.synced)
        stage.synced(h);
    return all;
}

static void UNUSED tell_all(void)
{
    for (int i = 0; i < STAGE_HOSTS; i++)
        assert_true(host_tell(&stage.hosts[i]));
}

/* ---- tasks ---- */

static void UNUSED task_pin(const struct stage_host *h, const char *task, char path[512])
{
    snprintf(path, 512, "%s/netns/%s", h->run, task);
}

static struct stage_task *UNUSED task_add(const char *id, const char *service, int host)
{
    struct stage_task *t = &stage.tasks[stage.ntasks++];
    *t = (struct stage_task){ .host = host, .state = "ready" };
    snprintf(t->id, sizeof t->id, "%s", id);
    snprintf(t->service, sizeof t->service, "%s", service);
    return t;
}

static void UNUSED task_net(struct stage_task *t, const struct stage_net *n, const char *addr, const char *addr6)
{
    t->net[t->nnets] = n;
    snprintf(t->addr[t->nnets], sizeof t->addr[0], "%s", addr);
    snprintf(t->addr6[t->nnets], sizeof t->addr6[0], "%s", addr6 ? addr6 : "");
    t->nnets++;
}

static struct attach *UNUSED task_attach(const struct stage_task *t, struct err *e)
{
    struct net_attachment in[4];
    struct str addrs[4][2];
    char text[4][2][80];
    struct attach *a = NULL;
    for (size_t i = 0; i < t->nnets; i++) {
        const struct stage_net *n = t->net[i];
        snprintf(text[i][0], 80, "%s%s", t->addr[i], strchr(n->subnet, '/'));
        snprintf(text[i][1], 80, "%s%s", t->addr6[i], n->subnet6[0] ? strchr(n->subnet6, '/') : "");
        addrs[i][0] = str_from(text[i][0]);
        addrs[i][1] = str_from(text[i][1]);
        in[i] = (struct net_attachment){ .Network = { .ID = str_from(n->id),
                                                      .Name = str_from(n->id),
                                                      .VNI = n->vni,
                                                      .MTU = n->mtu,
                                                      .Encrypted = n->encrypted },
                                         .Addresses = { addrs[i], t->addr6[i][0] ? 2 : 1 } };
    }
    struct mesh_up up = { .TaskID = str_from(t->id), .ServiceID = str_from(t->service), .Networks = { in, t->nnets } };
    if (attach_new(&up, &a, e) < 0)
        return NULL;
    return a;
}

/* task_try_up - a sandbox with its interfaces on its host. */
static int UNUSED task_try_up(const struct stage_task *t, struct err *e)
{
    struct stage_host *h = &stage.hosts[t->host];
    char pin[512];
    struct attach *a = task_attach(t, e);
    if (!a)
        return -e->code;
    task_pin(h, t->id, pin);
    enter(h->ns);
    if (mesh_ns_make(pin, e) < 0)
        fail_msg("%s", e->msg);
    sh("ip link set lo up; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6");
    mesh_ns_back(h->ns);
    int r = overlay_up(&h->ov, a, e);
    if (r == 0)
        r = attach_save(&h->tasks, a, e);
    if (r < 0) {
        attach_free(a);
        (void)mesh_ns_unpin(pin, NULL);
    }
    return r;
}

static void UNUSED task_up(const struct stage_task *t)
{
    struct err e = ERR_INIT;
    if (task_try_up(t, &e) < 0)
        fail_msg("%s: %s", t->id, e.msg);
}

static void UNUSED task_down(const struct stage_task *t, uint64_t now_ms)
{
    struct stage_host *h = &stage.hosts[t->host];
    struct err e = ERR_INIT;
    struct attach *a;
    char pin[512];
    enter(h->ns);
    task_pin(h, t->id, pin);
    if (attach_forget(&h->tasks, str_from(t->id), &a, &e) < 0)
        fail_msg("%s", e.msg);
    assert_non_null(a);
    overlay_down(&h->ov, a, now_ms);
    attach_free(a);
    (void)mesh_ns_unpin(pin, NULL);
}

static int UNUSED task_ns(const struct stage_task *t)
{
    char pin[512];
    task_pin(&stage.hosts[t->host], t->id, pin);
    int fd = open(pin, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

/* in_task - a command in a task's namespace: whether it succeeds. */
static bool UNUSED in_task(const struct stage_task *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool UNUSED in_task(const struct stage_task *t, const char *fmt, ...)
{
    char cmd[1000];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(cmd, sizeof cmd, fmt, ap);
    va_end(ap);
    int ns = task_ns(t);
    enter(ns);
    bool ok = sh_ok(cmd);
    enter(stage.hosts[t->host].ns);
    close(ns);
    return ok;
}

/* tx_packets - of an interface of the namespace the thread is in. */
static unsigned long UNUSED tx_packets(const char *name)
{
    FILE *f = fopen("/proc/thread-self/net/dev", "re");
    char line[500], key[20];
    unsigned long tx = 0;
    assert_non_null(f);
    snprintf(key, sizeof key, "%s:", name);
    while (fgets(line, sizeof line, f)) {
        char *p = strstr(line, key);
        if (p)
            (void)sscanf(p + strlen(key), "%*s %*s %*s %*s %*s %*s %*s %*s %*s %lu", &tx);
    }
    fclose(f);
    return tx;
}

/* ---- sockets ---- */

static int UNUSED make_addr(const char *addr, unsigned port, struct sockaddr_storage *ret, socklen_t *len)
{
    struct sockaddr_in *s4 = (struct sockaddr_in *)ret;
    struct sockaddr_in6 *s6 = (struct sockaddr_in6 *)ret;
    memset(ret, 0, sizeof *ret);
    if (inet_pton(AF_INET, addr, &s4->sin_addr) == 1) {
        s4->sin_family = AF_INET;
        s4->sin_port = htons((uint16_t)port);
        *len = sizeof *s4;
        return AF_INET;
    }
    assert_int_equal(inet_pton(AF_INET6, addr, &s6->sin6_addr), 1);
    s6->sin6_family = AF_INET6;
    s6->sin6_port = htons((uint16_t)port);
    *len = sizeof *s6;
    return AF_INET6;
}

static int UNUSED sock_in(const struct stage_task *t, int family, int type)
{
    int ns = task_ns(t);
    enter(ns);
    int fd = socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    enter(stage.hosts[t->host].ns);
    close(ns);
    assert_true(fd >= 0);
    return fd;
}

static int UNUSED serve(const struct stage_task *t, int type, const char *addr, unsigned port)
{
    struct sockaddr_storage s;
    socklen_t len;
    int one = 1, fd = sock_in(t, make_addr(addr, port, &s, &len), type);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&s, len) != 0 || (type == SOCK_STREAM && listen(fd, 1024) != 0))
        fail_msg("serve %s:%u: %s", addr, port, strerror(errno));
    return fd;
}

/* dial - 0 and a connected socket, or the errno. */
static int UNUSED dial(const struct stage_task *t, const char *addr, unsigned port, int timeout_ms, int *ret_fd)
{
    struct sockaddr_storage s;
    socklen_t len;
    int fd = sock_in(t, make_addr(addr, port, &s, &len), SOCK_STREAM), soerr = 0;
    struct pollfd p = { .fd = fd, .events = POLLOUT };
    socklen_t elen = sizeof soerr;
    if (connect(fd, (struct sockaddr *)&s, len) != 0 && errno != EINPROGRESS)
        soerr = errno;
    else if (poll(&p, 1, timeout_ms) != 1)
        soerr = ETIMEDOUT;
    else
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &soerr, &elen);
    if (soerr) {
        close(fd);
        return soerr;
    }
    *ret_fd = fd;
    return 0;
}

/* accept_any - which of the servers got the connection. */
static int UNUSED accept_any(const int *servers, int n, int *ret_fd)
{
    struct pollfd p[16];
    for (int i = 0; i < n; i++)
        p[i] = (struct pollfd){ .fd = servers[i], .events = POLLIN };
    assert_true(poll(p, (nfds_t)n, WAIT_MS) > 0);
    for (int i = 0; i < n; i++)
        if (p[i].revents) {
            *ret_fd = accept4(servers[i], NULL, NULL, SOCK_CLOEXEC);
            assert_true(*ret_fd >= 0);
            return i;
        }
    return -1;
}

static void UNUSED talk(int a, int b)
{
    struct pollfd pa = { .fd = a, .events = POLLIN }, pb = { .fd = b, .events = POLLIN };
    char ch = 0;
    assert_int_equal(send(a, "x", 1, MSG_NOSIGNAL), 1);
    assert_int_equal(poll(&pb, 1, WAIT_MS), 1);
    assert_int_equal(recv(b, &ch, 1, 0), 1);
    assert_int_equal(send(b, "y", 1, MSG_NOSIGNAL), 1);
    assert_int_equal(poll(&pa, 1, WAIT_MS), 1);
    assert_int_equal(recv(a, &ch, 1, 0), 1);
    assert_int_equal(ch, 'y');
}

static void UNUSED hang_up(int fd)
{
    struct linger hard = { .l_onoff = 1 };
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(fd);
}

/* once - connects, talks, closes with RST (no TIME_WAIT); which server it was. */
static int UNUSED once(const struct stage_task *from, const char *addr, unsigned port, const int *servers, int n)
{
    int c = -1, s = -1, r = dial(from, addr, port, WAIT_MS, &c);
    if (r)
        fail_msg("dial %s:%u from %s: %s", addr, port, from->id, strerror(r));
    int i = accept_any(servers, n, &s);
    talk(c, s);
    hang_up(c);
    close(s);
    return i;
}

static int UNUSED udp_client(const struct stage_task *t, const char *addr, unsigned port)
{
    struct sockaddr_storage s;
    socklen_t len;
    int fd = sock_in(t, make_addr(addr, port, &s, &len), SOCK_DGRAM);
    assert_int_equal(connect(fd, (struct sockaddr *)&s, len), 0);
    return fd;
}

/* ask - one datagram from fd and its answer; which server it was, -1 when nobody answered in time. */
static int UNUSED ask(int fd, const int *servers, int n, int timeout_ms)
{
    struct pollfd p[16];
    struct sockaddr_storage s;
    socklen_t len = sizeof s;
    char b[4];
    if (send(fd, "q", 1, 0) != 1)
        return -1;
    for (int i = 0; i < n; i++)
        p[i] = (struct pollfd){ .fd = servers[i], .events = POLLIN };
    if (poll(p, (nfds_t)n, timeout_ms) <= 0)
        return -1;
    for (int i = 0; i < n; i++)
        if (p[i].revents) {
            assert_int_equal(recvfrom(servers[i], b, 1, 0, (struct sockaddr *)&s, &len), 1);
            assert_int_equal(sendto(servers[i], "a", 1, 0, (struct sockaddr *)&s, len), 1);
            struct pollfd pc = { .fd = fd, .events = POLLIN };
            assert_int_equal(poll(&pc, 1, WAIT_MS), 1);
            assert_int_equal(recv(fd, b, 1, 0), 1);
            return i;
        }
    return -1;
}

/* ---- ICMP ---- */

/* echo - one echo request of so many bytes of payload, not to be fragmented; whether the answer came. */
static bool UNUSED echo(const struct stage_task *t, const char *addr, size_t payload, int timeout_ms)
{
    struct sockaddr_storage s;
    socklen_t len;
    uint8_t out[2048] = { 0 }, in[2048];
    static uint16_t id;
    int family = make_addr(addr, 0, &s, &len), df = IP_PMTUDISC_DO;
    int ns = task_ns(t);
    enter(ns);
    int fd = socket(family, SOCK_RAW | SOCK_CLOEXEC, family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6);
    enter(stage.hosts[t->host].ns);
    close(ns);
    assert_true(fd >= 0);
    if (family == AF_INET)
        setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &df, sizeof df);
    id++;
    out[0] = family == AF_INET ? 8 : 128;
    memcpy(out + 4, &id, sizeof id);
    uint32_t sum = 0; /* the kernel does it for ICMPv6 */
    for (size_t i = 0; i < payload + 8; i += 2)
        sum += (uint32_t)(out[i] << 8 | out[i + 1]);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = ~((sum >> 16) + sum);
    out[2] = (uint8_t)(sum >> 8);
    out[3] = (uint8_t)sum;
    bool answered = false;
    if (sendto(fd, out, payload + 8, 0, (struct sockaddr *)&s, len) == (ssize_t)payload + 8) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        while (!answered && poll(&p, 1, timeout_ms) == 1) {
            ssize_t n = recv(fd, in, sizeof in, 0);
            size_t off = family == AF_INET ? 20 : 0;
            answered = n >= (ssize_t)off + 8 && in[off] == (family == AF_INET ? 0 : 129) &&
                       memcmp(in + off + 4, &id, sizeof id) == 0;
        }
    }
    close(fd);
    return answered;
}

/* ping - asks again: a link that has just come up loses what is sent before the kernel has looked at it. */
static bool UNUSED ping(const struct stage_task *t, const char *addr)
{
    for (int i = 0; i < WAIT_MS / 100; i++)
        if (echo(t, addr, 56, 100))
            return true;
    return false;
}

static bool UNUSED silent(const struct stage_task *t, const char *addr) /* for as long as may count as that */
{
    return !echo(t, addr, 56, 600);
}

#define NEEDS_ROOT()                                                                                                   \
    do {                                                                                                               \
        if (!stage.root) {                                                                                             \
            print_error("SKIPPED: network namespaces need root: run this as root\n");                                  \
            skip();                                                                                                    \
        }                                                                                                              \
    } while (0)

/* stage_setup, stage_clean - between tests: no tasks, nothing of ours in any host. */
static void UNUSED stage_setup(void)
{
    stage.ntasks = stage.nservices = stage.nnets = 0;
    stage.port = 4789;
    for (int i = 0; i < STAGE_HOSTS; i++) {
        snprintf(stage.hosts[i].addr, sizeof stage.hosts[i].addr, "10.250.0.%d", i + 1);
        host_open(&stage.hosts[i]);
    }
}

static void UNUSED stage_clean(void)
{
    for (int i = 0; i < STAGE_HOSTS; i++) {
        struct stage_host *h = &stage.hosts[i];
        struct overlay_net **n;
        enter(h->ns);
        for (struct table_pos pos = { 0 }; table_next(&h->ov.nets, &pos, NULL, &n);)
            (*n)->tasks = 0;
        assert_true(overlay_sweep(&h->ov, UINT64_MAX / 2));
        host_close(h);
        sh("for f in %s/netns/* %s/overlay/*; do umount -l $f 2>/dev/null; rm -f $f; done; rm -f %s/attach/*; true",
           h->run, h->run, h->run);
    }
}
