/*
 * What service addresses and networks cost, in namespaces of the benchmark's own: one JSON line a figure. CPU seconds
 * of this thread where it says so, since wall clocks mean little on a machine that others use, too. Ratios are of
 * rounds that take turns in one run, best round of each.
 *
 *   vip_bench [SERVICES [BACKENDS]]     (1000, 10)
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/util/check.h"
#include "meshd/overlay/overlay.h"
#include "meshd/vip/vip.h"

#define ROUNDS 7
#define SLICE_MS 150 /* of one design's turn */
#define CHANGES 2000
#define PLUGS 100
#define SANDBOXES 10

struct host {
    int ns;
    char id[8], addr[20], run[64];
    struct attach_set tasks;
    struct netmap map;
    struct overlay ov;
    struct vip vip;
};
static struct host hosts[2];
static char dir[] = "/tmp/vip-bench-XXXXXX";
static unsigned nservices = 1000, nbackends = 10;

static void must(int r, struct err *e, const char *what)
{
    if (r < 0) {
        fprintf(stderr, "%s: %s\n", what, e->msg);
        exit(1);
    }
}

static void sh(const char *cmd)
{
    if (system(cmd) != 0) {
        fprintf(stderr, "failed: %s\n", cmd);
        exit(1);
    }
}

static void enter(int ns)
{
    CHECK(setns(ns, CLONE_NEWNET) == 0);
}

static double now_s(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static double cpu_s(void)
{
    return now_s(CLOCK_THREAD_CPUTIME_ID);
}

/* ---- the stage: two hosts on a wire ---- */

static void on_note(void *arg, const char *text)
{
    (void)arg;
    fprintf(stderr, "note: %s\n", text);
}

static void stage(void)
{
    char cmd[300], path[100];
    struct err e = ERR_INIT;
    CHECK(mkdtemp(dir) && unshare(CLONE_NEWNS) == 0);
    sh("mount --make-rprivate /");
    CHECK(mount("tmpfs", dir, "tmpfs", 0, NULL) == 0);
    for (int i = 0; i < 2; i++) {
        struct host *h = &hosts[i];
        CHECK(unshare(CLONE_NEWNET) == 0);
        h->ns = mesh_ns_self();
        sh("ip link set lo up");
        snprintf(h->id, sizeof h->id, "h%d", i);
        snprintf(h->addr, sizeof h->addr, "10.250.0.%d", i + 1);
        snprintf(h->run, sizeof h->run, "%s/h%d", dir, i);
        mkdir(h->run, 0755);
    }
    snprintf(cmd, sizeof cmd, "ip link add eth0 type veth peer name eth0 netns /proc/%d/fd/%d", getpid(), hosts[0].ns);
    sh(cmd);
    for (int i = 0; i < 2; i++) {
        struct host *h = &hosts[i];
        enter(h->ns);
        snprintf(cmd, sizeof cmd, "ip addr add %s/24 dev eth0 && ip link set eth0 up", h->addr);
        sh(cmd);
        snprintf(path, sizeof path, "%s/netns", h->run);
        must(mesh_ns_dir(path, &e), &e, "pins");
        snprintf(path, sizeof path, "%s/attach", h->run);
        netmap_init(&h->map);
        must(attach_set_open(&h->tasks, path, on_note, NULL, &e), &e, "attachments");
        must(overlay_open(&h->ov, h->run, &h->tasks, &h->map, on_note, NULL, &e), &e, "overlay");
        must(vip_open(&h->vip, h->run, &h->tasks, &h->map, on_note, NULL, &e), &e, "vips");
        overlay_self(&h->ov, h->id);
    }
}

/* ---- the map: service 0 is the one that is asked, its only real backend on the other host ---- */

static uint64_t seq;

static void tell(struct host *h, unsigned services)
{
    struct net_subnet subnet = { .Subnet = STR("10.0.0.0/8") };
    struct net_network net = {
        .ID = STR("net"), .Name = STR("net"), .VNI = 4097, .MTU = 1450, .Subnets = { &subnet, 1 }
    };
    struct net_node nodes[2];
    struct net_service *sv = calloc(services, sizeof *sv);
    struct net_endpoint *ep = calloc((size_t)services * nbackends + 2, sizeof *ep);
    struct netmap_change c;
    struct err e = ERR_INIT;
    struct arena a;
    size_t ne = 0;
    CHECK(sv && ep);
    arena_init(&a, 1u << 30);
    for (int i = 0; i < 2; i++)
        nodes[i] =
            (struct net_node){ .ID = str_from(hosts[i].id), .Addr = str_from(hosts[i].addr), .Hostname = STR("h") };
    for (unsigned s = 0; s < services; s++) {
        struct str *vip = arena_array(&a, 1, sizeof *vip);
        *vip = str_from(arena_printf(&a, "10.100.%u.%u", s / 250, s % 250 + 1));
        sv[s] = (struct net_service){ .ID = str_from(arena_printf(&a, "s%u", s)),
                                      .NetworkID = STR("net"),
                                      .Name = str_from(arena_printf(&a, "name%u", s)),
                                      .Mode = STR("vip"),
                                      .VIPs = { vip, 1 } };
        for (unsigned b = 0; b < (s ? nbackends : 1); b++) {
            struct str *addr = arena_array(&a, 1, sizeof *addr);
            unsigned x = s * nbackends + b;
            *addr = s ? str_from(arena_printf(&a, "10.150.%u.%u", x / 250, x % 250 + 1)) : STR("10.0.1.12");
            ep[ne++] = (struct net_endpoint){ .ID = str_from(arena_printf(&a, "t%u_%u", s, b)),
                                              .NetworkID = STR("net"),
                                              .ServiceID = sv[s].ID,
                                              .NodeID = str_from(hosts[1].id),
                                              .State = STR("ready"),
                                              .Addresses = { addr, 1 } };
        }
    }
    struct str client = STR("10.0.1.11");
    ep[ne++] = (struct net_endpoint){ .ID = STR("client"),
                                      .NetworkID = STR("net"),
                                      .NodeID = str_from(hosts[0].id),
                                      .State = STR("ready"),
                                      .Addresses = { &client, 1 } };
    struct disp_network_reply rep = { .Seq = ++seq,
                                      .Full = true,
                                      .DataPathPort = 4789,
                                      .Networks = { &net, 1 },
                                      .Services = { sv, services },
                                      .Endpoints = { ep, ne },
                                      .Nodes = { nodes, 2 } };
    must(netmap_apply(&h->map, &rep, &e), &e, "map");
    enter(h->ns);
    while (netmap_next(&h->map, &c)) {
        overlay_change(&h->ov, &c);
        vip_change(&h->vip, &c);
    }
    CHECK(overlay_sync(&h->ov) && vip_sync(&h->vip));
    arena_done(&a);
    free(sv);
    free(ep);
}

static void pin_of(const struct host *h, const char *task, char path[200])
{
    snprintf(path, 200, "%s/netns/%s", h->run, task);
}

static struct attach *attach_of(const char *task, const char *addr)
{
    char cidr[40];
    struct err e = ERR_INIT;
    struct attach *a;
    snprintf(cidr, sizeof cidr, "%s/8", addr);
    struct str text = str_from(cidr);
    struct net_attachment in = { .Network = { .ID = STR("net"), .Name = STR("net"), .VNI = 4097, .MTU = 1450 },
                                 .Addresses = { &text, 1 } };
    struct mesh_up up = { .TaskID = str_from(task), .Networks = { &in, 1 } };
    must(attach_new(&up, &a, &e), &e, "attachment");
    return a;
}

static void task_up(struct host *h, const char *task, const char *addr)
{
    struct attach *a = attach_of(task, addr);
    struct err e = ERR_INIT;
    char pin[200];
    pin_of(h, task, pin);
    enter(h->ns);
    must(mesh_ns_make(pin, &e), &e, "namespace");
    sh("ip link set lo up");
    mesh_ns_back(h->ns);
    must(overlay_up(&h->ov, a, &e), &e, "interface");
    must(vip_up(&h->vip, a, &e), &e, "service addresses");
    must(attach_save(&h->tasks, a, &e), &e, "file");
}

static int task_ns(struct host *h, const char *task)
{
    char pin[200];
    pin_of(h, task, pin);
    int fd = open(pin, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

/* ---- traffic: one server thread and one client, on one core ---- */

static atomic_bool stop;
static int listen_fd;

static void *server(void *arg)
{
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev[32];
    char buf[256];
    (void)arg;
    epoll_ctl(ep, EPOLL_CTL_ADD, listen_fd, &(struct epoll_event){ EPOLLIN, { .fd = listen_fd } });
    while (!atomic_load(&stop)) {
        int n = epoll_wait(ep, ev, 32, 100);
        for (int i = 0; i < n; i++) {
            int fd = ev[i].data.fd;
            if (fd == listen_fd) {
                int c = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
                if (c >= 0)
                    epoll_ctl(ep, EPOLL_CTL_ADD, c, &(struct epoll_event){ EPOLLIN, { .fd = c } });
            } else {
                ssize_t len = recv(fd, buf, sizeof buf, 0);
                if (len <= 0)
                    close(fd);
                else
                    (void)!send(fd, buf, (size_t)len, MSG_NOSIGNAL);
            }
        }
    }
    close(ep);
    return NULL;
}

static int connect_to(const char *addr)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(80) };
    struct linger hard = { .l_onoff = 1 };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    CHECK(fd >= 0 && inet_pton(AF_INET, addr, &to.sin_addr) == 1);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
        fprintf(stderr, "connect %s: %s\n", addr, strerror(errno));
        exit(1);
    }
    return fd;
}

static void echo(int fd)
{
    char b[64] = "x";
    CHECK(send(fd, b, sizeof b, MSG_NOSIGNAL) == sizeof b && recv(fd, b, sizeof b, MSG_WAITALL) == sizeof b);
}

/* Process CPU a request: client and server are one process, and the packets are handled on their account. */
struct figure {
    double keep, fresh; /* best requests a CPU second: on one connection, a connection each */
};

static double slice(const char *addr, bool keep)
{
    double start = now_s(CLOCK_PROCESS_CPUTIME_ID), end = now_s(CLOCK_MONOTONIC) + SLICE_MS * 1e-3;
    int fd = keep ? connect_to(addr) : -1;
    unsigned long n = 0;
    while (now_s(CLOCK_MONOTONIC) < end || n < 50) {
        if (!keep)
            fd = connect_to(addr);
        echo(fd);
        n++;
        if (!keep)
            close(fd);
    }
    if (keep)
        close(fd);
    return (double)n / (now_s(CLOCK_PROCESS_CPUTIME_ID) - start);
}

static void measure(const char *addr, struct figure *f)
{
    double k = slice(addr, true), c = slice(addr, false);
    f->keep = k > f->keep ? k : f->keep;
    f->fresh = c > f->fresh ? c : f->fresh;
}

static void traffic(void)
{
    static struct figure bare, one, many;
    pthread_t th;
    struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(80) };
    int ns1 = task_ns(&hosts[1], "t0_0"), client = task_ns(&hosts[0], "client");
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(0, &set);
    (void)sched_setaffinity(0, sizeof set, &set);
    enter(ns1);
    listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(listen_fd, (struct sockaddr *)&any, sizeof any) == 0 && listen(listen_fd, 128) == 0);
    CHECK(pthread_create(&th, NULL, server, NULL) == 0);
    for (int r = 0; r < ROUNDS; r++) {
        tell(&hosts[0], 1);
        enter(client);
        measure("10.0.1.12", &bare);
        measure("10.100.0.1", &one);
        tell(&hosts[0], nservices);
        enter(client);
        measure("10.100.0.1", &many);
    }
    atomic_store(&stop, true);
    pthread_join(th, NULL);
    printf("{\"bench\":\"vip_keepalive\",\"requests_per_cpu_s\":%.0f,\"bare_overlay\":%.0f,\"ratio_1\":%.3f,"
           "\"ratio_%u\":%.3f,\"target\":0.92}\n",
           one.keep, bare.keep, one.keep / bare.keep, nservices, many.keep / bare.keep);
    printf("{\"bench\":\"vip_new_connections\",\"connections_per_cpu_s\":%.0f,\"bare_overlay\":%.0f,\"ratio_1\":%.3f,"
           "\"ratio_%u\":%.3f,\"ratio_%u_to_1\":%.3f,\"target\":0.82}\n",
           one.fresh, bare.fresh, one.fresh / bare.fresh, nservices, many.fresh / bare.fresh, nservices,
           many.fresh / one.fresh);
    close(ns1);
    close(client);
    close(listen_fd);
    enter(hosts[0].ns);
    for (int i = 0; i < 64; i++)
        CPU_SET(i, &set);
    (void)sched_setaffinity(0, sizeof set, &set);
}

/* ---- programming ---- */

/* from_nothing - all services into a namespace that has none. */
static void from_nothing(void)
{
    struct host *h = &hosts[0];
    struct err e = ERR_INIT;
    double best = 1e9, best_cpu = 1e9;
    tell(h, nservices);
    for (int r = 0; r < ROUNDS; r++) {
        char task[20], pin[200];
        snprintf(task, sizeof task, "fresh%d", r);
        pin_of(h, task, pin);
        must(mesh_ns_make(pin, &e), &e, "namespace");
        mesh_ns_back(h->ns);
        struct attach *a = attach_of(task, "10.0.1.20");
        double w = now_s(CLOCK_MONOTONIC), c = cpu_s();
        must(vip_up(&h->vip, a, &e), &e, "service addresses");
        w = now_s(CLOCK_MONOTONIC) - w;
        c = cpu_s() - c;
        best = w < best ? w : best;
        best_cpu = c < best_cpu ? c : best_cpu;
        vip_down(&h->vip, str_from(task));
        attach_free(a);
        must(mesh_ns_unpin(pin, &e), &e, "namespace");
    }
    printf(
        "{\"bench\":\"vip_from_nothing\",\"services\":%u,\"backends\":%u,\"ms\":%.2f,\"cpu_ms\":%.2f,\"target\":20}\n",
        nservices, nbackends, best * 1e3, best_cpu * 1e3);
}

/* memory - of this process, for the map and for each sandbox that has all services. */
static void memory(void)
{
    struct host *h = &hosts[0];
    struct err e = ERR_INIT;
    size_t before, map;
    char task[20], pin[200];
    netmap_done(&h->map);
    netmap_init(&h->map);
    before = mallinfo2().uordblks;
    tell(h, nservices);
    map = mallinfo2().uordblks - before;
    before = mallinfo2().uordblks;
    for (int i = 0; i < SANDBOXES; i++) {
        snprintf(task, sizeof task, "more%d", i);
        pin_of(h, task, pin);
        must(mesh_ns_make(pin, &e), &e, "namespace");
        mesh_ns_back(h->ns);
        struct attach *a = attach_of(task, "10.0.1.20");
        must(vip_up(&h->vip, a, &e), &e, "service addresses");
        attach_free(a);
    }
    size_t each = (mallinfo2().uordblks - before) / SANDBOXES;
    for (int i = 0; i < SANDBOXES; i++) {
        snprintf(task, sizeof task, "more%d", i);
        pin_of(h, task, pin);
        vip_down(&h->vip, str_from(task));
        must(mesh_ns_unpin(pin, &e), &e, "namespace");
    }
    printf("{\"bench\":\"meshd_memory\",\"services\":%u,\"backends\":%u,\"map_and_wants_kib\":%zu,\"each_sandbox_kib\":"
           "%zu}\n",
           nservices, nbackends, map / 1024, each / 1024);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* one_change - one backend of a service drains, and comes back. */
static void one_change(void)
{
    static double t[CHANGES];
    struct host *h = &hosts[0];
    struct netmap_network *net = netmap_network(&h->map, str_from("net"));
    struct netmap_endpoint *ep = netmap_endpoint(net, STR("t7_3"));
    struct netmap_change c = { .kind = NETMAP_SERVICE, .network = "net", .id = "s7" };
    double cpu = cpu_s();
    CHECK(ep != NULL);
    for (int i = 0; i < CHANGES; i++) {
        double w = now_s(CLOCK_MONOTONIC);
        ep->state = i & 1 ? NETMAP_READY : NETMAP_DRAINING;
        vip_change(&h->vip, &c);
        CHECK(vip_sync(&h->vip));
        t[i] = now_s(CLOCK_MONOTONIC) - w;
        h->vip.ngone = 0;
    }
    cpu = cpu_s() - cpu;
    qsort(t, CHANGES, sizeof *t, by_size);
    printf("{\"bench\":\"vip_change\",\"services\":%u,\"backends\":%u,\"cpu_ms\":%.4f,\"p50_ms\":%.4f,\"p99_ms\":%.4f,"
           "\"target\":0.2}\n",
           nservices, nbackends, cpu * 1e3 / CHANGES, t[CHANGES / 2] * 1e3, t[CHANGES * 99 / 100] * 1e3);
}

/* ---- plumbing ---- */

static void plumbing(void)
{
    static double t[PLUGS];
    struct host *h = &hosts[1];
    double cpu = cpu_s();
    tell(h, 1);
    enter(h->ns);
    for (int i = 0; i < PLUGS; i++) {
        struct err e = ERR_INIT;
        char task[20], addr[20], pin[200];
        snprintf(task, sizeof task, "plug%d", i);
        snprintf(addr, sizeof addr, "10.0.2.%d", i + 1);
        struct attach *a = attach_of(task, addr);
        pin_of(h, task, pin);
        double w = now_s(CLOCK_MONOTONIC);
        must(mesh_ns_make(pin, &e), &e, "namespace");
        mesh_ns_back(h->ns);
        must(overlay_up(&h->ov, a, &e), &e, "interface");
        must(vip_up(&h->vip, a, &e), &e, "service addresses");
        must(attach_save(&h->tasks, a, &e), &e, "file");
        t[i] = now_s(CLOCK_MONOTONIC) - w;
    }
    cpu = cpu_s() - cpu;
    qsort(t, PLUGS, sizeof *t, by_size);
    printf("{\"bench\":\"task_plumbing\",\"tasks\":%d,\"cpu_ms\":%.3f,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"target\":5}\n",
           PLUGS, cpu * 1e3 / PLUGS, t[PLUGS / 2] * 1e3, t[PLUGS * 99 / 100] * 1e3);
}

int main(int argc, char **argv)
{
    if (geteuid() != 0) {
        fprintf(stderr, "vip_bench: not run as root: no figures\n");
        return 0;
    }
    if (argc > 1)
        nservices = (unsigned)strtoul(argv[1], NULL, 10);
    if (argc > 2)
        nbackends = (unsigned)strtoul(argv[2], NULL, 10);
    CHECK(nservices >= 8 && nservices <= 10000 && nbackends >= 4 && nbackends <= 100);
    signal(SIGPIPE, SIG_IGN);
    stage();
    task_up(&hosts[0], "client", "10.0.1.11");
    task_up(&hosts[1], "t0_0", "10.0.1.12");
    tell(&hosts[1], 1);
    traffic();
    from_nothing();
    one_change();
    memory();
    plumbing();
    for (int i = 0; i < 2; i++) {
        enter(hosts[i].ns);
        vip_close(&hosts[i].vip);
        overlay_close(&hosts[i].ov);
        attach_set_close(&hosts[i].tasks);
        netmap_done(&hosts[i].map);
    }
    umount2(dir, MNT_DETACH);
    rmdir(dir);
    return 0;
}
