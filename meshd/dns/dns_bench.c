/*
 * dns_bench.c - questions a second, their time and their price through the nameservers of 32 sandboxes, on a network of
 * 10 and of 1,000 services with ten tasks each; one JSON line a figure. Root only.
 *
 * The reference is a process that sends each packet back from the same sandboxes, measured in the same run: what the
 * kernel and the scheduler cost without any name.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/util/arena.h"
#include "common/util/check.h"
#include "meshd/dns/dns_server.h"
#include "meshd/netlink/mesh_ns.h"

#define SANDBOXES 32u /* DNS_RATE of each is more than one process can answer */
#define TASKS 10u
#define SERVICES_MAX 1000u
#define ROUNDS 20000u
#define ECHO_PORT 4054u
#define PATIENCE_MS 5000

static char dir[] = "/tmp/dns-bench-XXXXXX";
static int home = -1, socks[SANDBOXES];
static double took[ROUNDS];

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static double cpu_us(pid_t pid) /* of another process, so far */
{
    struct timespec t;
    clockid_t id;
    CHECK(clock_getcpuclockid(pid, &id) == 0 && clock_gettime(id, &t) == 0);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int cmp(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static const char *pin(unsigned i)
{
    static char path[100];
    snprintf(path, sizeof path, "%s/t%u", dir, i);
    return path;
}

static void fail(const char *what, const struct err *e)
{
    fprintf(stderr, "dns_bench: %s: %s\n", what, e ? e->msg : strerror(errno));
    exit(1);
}

static void enter(unsigned i)
{
    struct err e = ERR_INIT;
    if (mesh_ns_enter(pin(i), &e) < 0)
        fail("sandbox", &e);
}

static int at_port(unsigned i, uint16_t port, bool serve)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port) };
    enter(i);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    mesh_ns_back(home);
    CHECK(fd >= 0 && inet_pton(AF_INET, DNS_ADDRESS, &at.sin_addr) == 1);
    if ((serve ? bind : connect)(fd, (struct sockaddr *)&at, sizeof at) < 0)
        fail("socket", NULL);
    return fd;
}

/* ---- the servers, each a process ---- */

static pid_t child(int *ready)
{
    int p[2];
    CHECK(pipe(p) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(p[0]);
        *ready = p[1];
        return 0;
    }
    char c;
    close(p[1]);
    if (read(p[0], &c, 1) != 1)
        fail("a server does not start", NULL);
    close(p[0]);
    return pid;
}

static void is_ready(int fd)
{
    CHECK(write(fd, "", 1) == 1);
    close(fd);
}

static pid_t echo_start(void)
{
    int ready = -1, ep, fds[SANDBOXES];
    pid_t pid = child(&ready);
    if (pid)
        return pid;
    ep = epoll_create1(EPOLL_CLOEXEC);
    for (unsigned i = 0; i < SANDBOXES; i++) {
        fds[i] = at_port(i, ECHO_PORT, true);
        CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, fds[i], &(struct epoll_event){ .events = EPOLLIN, .data.u32 = i }) == 0);
    }
    is_ready(ready);
    for (;;) {
        struct epoll_event ev;
        struct sockaddr_in from;
        socklen_t len = sizeof from;
        char m[2000];
        if (epoll_wait(ep, &ev, 1, -1) != 1)
            continue;
        ssize_t n = recvfrom(fds[ev.data.u32], m, sizeof m, MSG_DONTWAIT, (struct sockaddr *)&from, &len);
        if (n >= 0)
            (void)sendto(fds[ev.data.u32], m, (size_t)n, 0, (struct sockaddr *)&from, len);
    }
}

static struct str named(struct arena *a, const char *kind, unsigned x)
{
    char *t = arena_printf(a, "%s%u", kind, x);
    CHECK(t != NULL);
    return str_from(t);
}

static struct str address(struct arena *a, unsigned net, unsigned x)
{
    char *t = arena_printf(a, "10.%u.%u.%u", net, x / 250, 1 + x % 250);
    CHECK(t != NULL);
    return str_from(t);
}

static struct strs one(struct arena *a, struct str s)
{
    struct strs l = { arena_array(a, 1, sizeof s), 1 };
    CHECK(l.v != NULL);
    l.v[0] = s;
    return l;
}

static void fill(struct netmap *map, unsigned services)
{
    struct arena a;
    struct err e = ERR_INIT;
    struct net_network n = { .ID = STR("n1"), .Name = STR("net") };

    arena_init(&a, 64u << 20);
    struct net_service *s = arena_array(&a, services, sizeof *s);
    struct net_endpoint *ep = arena_array(&a, (size_t)services * TASKS, sizeof *ep);
    CHECK(s && ep);
    for (unsigned i = 0; i < services; i++) {
        s[i] = (struct net_service){ .ID = named(&a, "s", i),
                                     .NetworkID = n.ID,
                                     .Name = named(&a, "service", i),
                                     .Mode = STR("vip"),
                                     .VIPs = one(&a, address(&a, 1, i)) };
        for (unsigned k = 0; k < TASKS; k++) {
            unsigned x = i * TASKS + k;
            ep[x] = (struct net_endpoint){ .ID = named(&a, "t", x),
                                           .NetworkID = n.ID,
                                           .ServiceID = s[i].ID,
                                           .NodeID = STR("a"),
                                           .Name = named(&a, "task", x),
                                           .State = STR("ready"),
                                           .Addresses = one(&a, address(&a, 2, x)) };
        }
    }
    struct disp_network_reply r = { .Seq = 1,
                                    .Full = true,
                                    .Networks = { &n, 1 },
                                    .Services = { s, services },
                                    .Endpoints = { ep, (size_t)services * TASKS } };
    if (netmap_apply(map, &r, &e) < 0)
        fail("map", &e);
    arena_done(&a);
}

static pid_t dns_start(unsigned services)
{
    static const char networks[][ID_SIZE] = { "n1" };
    int ready = -1;
    pid_t pid = child(&ready);
    sd_event *loop;
    struct netmap map;
    struct dns_server *server;
    struct err e = ERR_INIT;

    if (pid)
        return pid;
    netmap_init(&map);
    fill(&map, services);
    CHECK(sd_event_new(&loop) >= 0);
    if (dns_server_open(&server, loop, &map, &e) < 0)
        fail("nameserver", &e);
    for (unsigned i = 0; i < SANDBOXES; i++) {
        char task[16];
        snprintf(task, sizeof task, "t%u", i);
        struct dns_sandbox sb = {
            .task = task, .netns = pin(i), .hostname = "box", .nnetworks = 1, .networks = networks
        };
        if (dns_server_add(server, &sb, &e) < 0)
            fail("nameserver", &e);
    }
    is_ready(ready);
    (void)sd_event_loop(loop);
    exit(1);
}

/* ---- the clients ---- */

static size_t question(char *m, uint16_t id, const char *name)
{
    static const char head[12] = "\0\0\1\0\0\1\0\0\0\0\0", tail[5] = "\0\0\1\0\1";
    size_t n = 12;
    memcpy(m, head, sizeof head);
    m[0] = (char)(id >> 8);
    m[1] = (char)id;
    while (*name) {
        size_t len = strcspn(name, ".");
        m[n++] = (char)len;
        memcpy(m + n, name, len);
        n += len;
        name += len + (name[len] == '.');
    }
    memcpy(m + n, tail, sizeof tail);
    return n + sizeof tail;
}

static void send_one(unsigned sock, unsigned i, unsigned services, const char *prefix)
{
    char m[300], name[100];
    snprintf(name, sizeof name, "%sservice%u", prefix, i * 7919 % services);
    size_t n = question(m, (uint16_t)i, name);
    if (send(socks[sock], m, n, 0) != (ssize_t)n)
        fail("question", NULL);
}

static void receive_one(unsigned sock, uint16_t id, unsigned addresses)
{
    char m[2000];
    ssize_t n = recv(socks[sock], m, sizeof m, 0);
    if (n < 12 || (uint16_t)((uint8_t)m[0] << 8 | (uint8_t)m[1]) != id)
        fail("answer", NULL);
    if (addresses && ((m[3] & 15) || m[7] != (char)addresses)) {
        fprintf(stderr, "dns_bench: code %d, %d addresses\n", m[3] & 15, m[7]);
        exit(1);
    }
}

struct figures {
    double median_us, p99_us, per_s, busy_p99_us, cpu_us;
};

/* One question after the other; then one of each sandbox on the way at any time. */
static void measure(pid_t server, uint16_t port, unsigned services, const char *prefix, unsigned addresses,
                    struct figures *ret)
{
    static double began[SANDBOXES];
    static uint16_t ids[SANDBOXES];
    int ep = epoll_create1(EPOLL_CLOEXEC);
    unsigned sent = 0, done = 0;

    for (unsigned i = 0; i < SANDBOXES; i++) {
        socks[i] = at_port(i, port, false);
        CHECK(setsockopt(socks[i], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ .tv_sec = PATIENCE_MS / 1000 },
                         sizeof(struct timeval)) == 0);
        CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, socks[i], &(struct epoll_event){ .events = EPOLLIN, .data.u32 = i }) == 0);
    }
    for (unsigned i = 0; i < ROUNDS; i++) {
        double t = now_us();
        send_one(i % SANDBOXES, i, services, prefix);
        receive_one(i % SANDBOXES, (uint16_t)i, addresses);
        took[i] = now_us() - t;
    }
    qsort(took, ROUNDS, sizeof *took, cmp);
    ret->median_us = took[ROUNDS / 2];
    ret->p99_us = took[ROUNDS / 100 * 99];
    double t0 = now_us(), cpu = cpu_us(server);
    for (unsigned i = 0; i < SANDBOXES; i++, sent++) {
        began[i] = now_us();
        send_one(i, ids[i] = (uint16_t)sent, services, prefix);
    }
    while (done < ROUNDS) {
        struct epoll_event ev;
        if (epoll_wait(ep, &ev, 1, PATIENCE_MS) != 1)
            fail("no answer", NULL);
        unsigned i = ev.data.u32;
        receive_one(i, ids[i], addresses);
        took[done++] = now_us() - began[i];
        if (sent < ROUNDS) {
            began[i] = now_us();
            send_one(i, ids[i] = (uint16_t)sent, services, prefix);
            sent++;
        }
    }
    ret->per_s = ROUNDS / ((now_us() - t0) / 1e6);
    ret->cpu_us = (cpu_us(server) - cpu) / ROUNDS;
    qsort(took, ROUNDS, sizeof *took, cmp);
    ret->busy_p99_us = took[ROUNDS / 100 * 99];
    for (unsigned i = 0; i < SANDBOXES; i++)
        close(socks[i]);
    close(ep);
}

static void end(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
}

static void print(const char *name, const char *what, double v, const char *unit, double ref, double ratio)
{
    printf("{\"name\":\"dns_%s_%s\",\"value\":%.1f,\"unit\":\"%s\",\"reference\":\"the packet sent back\","
           "\"reference_value\":%.1f,\"ratio\":%.3f}\n",
           name, what, v, unit, ref, ratio);
    fflush(stdout);
}

static void report(const char *name, const struct figures *f, const struct figures *ref)
{
    print(name, "median", f->median_us, "us", ref->median_us, ref->median_us / f->median_us);
    print(name, "p99", f->p99_us, "us", ref->p99_us, ref->p99_us / f->p99_us);
    print(name, "per_second", f->per_s, "1/s", ref->per_s, f->per_s / ref->per_s);
    print(name, "busy_p99", f->busy_p99_us, "us", ref->busy_p99_us, ref->busy_p99_us / f->busy_p99_us);
    print(name, "cpu", f->cpu_us, "us", ref->cpu_us, ref->cpu_us / f->cpu_us);
}

int main(void)
{
    static const unsigned sizes[] = { 10, SERVICES_MAX };
    struct err e = ERR_INIT;
    struct figures ref, f;
    char name[60];

    if (geteuid() != 0) {
        fprintf(stderr, "dns_bench: needs root\n");
        return 1;
    }
    CHECK(unshare(CLONE_NEWNET | CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    CHECK(mkdtemp(dir) && mount("tmpfs", dir, "tmpfs", 0, "mode=700") == 0);
    home = mesh_ns_self();
    if (mesh_ns_dir(dir, &e) < 0)
        fail("folder", &e);
    for (unsigned i = 0; i < SANDBOXES; i++) {
        if (mesh_ns_make(pin(i), &e) < 0)
            fail("sandbox", &e);
        CHECK(system("ip link set lo up") == 0);
        mesh_ns_back(home);
    }
    pid_t pid = echo_start();
    measure(pid, ECHO_PORT, 10, "", 0, &ref);
    end(pid);
    for (unsigned i = 0; i < 2; i++) {
        pid = dns_start(sizes[i]);
        measure(pid, DNS_PORT, sizes[i], "", 1, &f);
        snprintf(name, sizeof name, "service_of_%u", sizes[i]);
        report(name, &f, &ref);
        measure(pid, DNS_PORT, sizes[i], "tasks.", TASKS, &f);
        snprintf(name, sizeof name, "ten_tasks_of_%u", sizes[i]);
        report(name, &f, &ref);
        end(pid);
    }
    (void)umount2(dir, MNT_DETACH);
    (void)umount2(dir, MNT_DETACH);
    (void)rmdir(dir);
    return 0;
}
