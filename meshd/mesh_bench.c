/* mesh_bench.c - sandboxes a second and how long a change of the port table takes; one JSON line a figure. Root only.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

#include "common/util/check.h"
#include "meshd/mesh_node.h"

#define TASKS 200
#define PORTS 100

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int cmp(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, size_t n)
{
    qsort(v, n, sizeof *v, cmp);
    return v[n / 2];
}

/* print - medians in microseconds, and how many of ours fit into one of the reference's. */
static void print(const char *name, double us, const char *reference, double ref_us)
{
    printf("{\"name\":\"meshd_%s\",\"value\":%.1f,\"unit\":\"us\"", name, us);
    if (reference)
        printf(",\"reference\":\"%s\",\"reference_value\":%.1f,\"ratio\":%.3f", reference, ref_us, ref_us / us);
    printf("}\n");
    fflush(stdout);
}

static void run(const char *cmd)
{
    if (system(cmd) != 0) {
        fprintf(stderr, "mesh_bench: failed: %s\n", cmd);
        exit(1);
    }
}

static struct mesh_node node;
static struct netmap view;
static double t_up[TASKS], t_ready[TASKS], t_drain[TASKS], t_down[TASKS];

static void fail(const char *what, const struct err *e)
{
    fprintf(stderr, "%s: %s\n", what, e->msg);
    exit(1);
}

static struct str id(int i, char buf[32])
{
    int n = snprintf(buf, 32, "task%021d", i);
    return (struct str){ buf, (size_t)n };
}

#define HAND_ROUNDS 15

/* by_hand_sandbox - what a shell script does for a sandbox, in its own namespaces ("ip netns" wants /run). */
static double by_hand_sandbox(void)
{
    double v[HAND_ROUNDS];
    run("ip link add hbr0 type bridge 2>/dev/null && ip link set hbr0 up; true");
    for (int i = 0; i < HAND_ROUNDS; i++) {
        double t = now_us();
        run("ip netns add hand && ip link add hand0 type veth peer name eth0 netns hand && "
            "ip link set hand0 master hbr0 up && ip -n hand link set lo up && "
            "ip -n hand addr add 172.18.250.2/16 dev eth0 && ip -n hand link set eth0 up && "
            "ip -n hand route add default via 172.18.0.1");
        v[i] = now_us() - t;
        run("ip netns del hand; ip link del hand0 2>/dev/null; true");
    }
    return median(v, HAND_ROUNDS);
}

static double by_hand_port(void)
{
    double v[HAND_ROUNDS];
    CHECK(setns(node.nl.gate_ns, CLONE_NEWNET) == 0);
    for (int i = 0; i < HAND_ROUNDS; i++) {
        double t = now_us();
        run("nft add element ip microswarm slots '{ tcp . 1 . 0x7fff : 10.0.0.1 . 1 }'");
        v[i] = now_us() - t;
        run("nft delete element ip microswarm slots '{ tcp . 1 . 0x7fff }'");
    }
    CHECK(setns(node.nl.host_ns, CLONE_NEWNET) == 0);
    return median(v, HAND_ROUNDS);
}

/* round_of - TASKS tasks of `services` services, each with one ingress port, through their lives. */
static void round_of(int services, const char *suffix)
{
    struct err e = ERR_INIT;
    char tid[32], sid[32], name[64];
    for (int i = 0; i < TASKS; i++) {
        struct arena a;
        struct mesh_up_reply rep;
        struct mesh_port p = { STR("tcp"), STR("ingress"), 80, (uint64_t)(20000 + i % services) };
        struct mesh_up req = { .TaskID = id(i, tid), .ServiceID = id(i % services, sid), .Ports = { &p, 1 } };
        arena_init(&a, 1 << 20);
        double t = now_us();
        if (mesh_node_up(&node, &req, &a, &rep, &e) < 0)
            fail("up", &e);
        t_up[i] = now_us() - t;
        arena_done(&a);
    }
    for (int i = 0; i < TASKS; i++) {
        double t = now_us();
        if (mesh_node_ready(&node, id(i, tid), true, &e) < 0)
            fail("ready", &e);
        t_ready[i] = now_us() - t;
    }
    for (int i = 0; i < TASKS; i++) {
        double t = now_us();
        if (mesh_node_ready(&node, id(i, tid), false, &e) < 0)
            fail("drain", &e);
        t_drain[i] = now_us() - t;
    }
    for (int i = 0; i < TASKS; i++) {
        double t = now_us();
        if (mesh_node_down(&node, id(i, tid), &e) < 0)
            fail("down", &e);
        t_down[i] = now_us() - t;
    }
    double up = median(t_up, TASKS), ready = median(t_ready, TASKS), drain = median(t_drain, TASKS);
    double ip = by_hand_sandbox(), nft = by_hand_port();
    snprintf(name, sizeof name, "sandbox_up_%s", suffix);
    print(name, up, "the same links and addresses by ip(8)", ip);
    snprintf(name, sizeof name, "port_ready_%s", suffix);
    print(name, ready, "one map element by nft(8)", nft);
    snprintf(name, sizeof name, "port_drain_%s", suffix);
    print(name, drain, "one map element by nft(8)", nft);
    snprintf(name, sizeof name, "sandbox_down_%s", suffix);
    print(name, median(t_down, TASKS), NULL, 0);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], MESH_PROXY_FLAG) == 0)
        return mesh_proxy_main(3);
    char dir[] = "/tmp/mesh-bench-XXXXXX", cmd[300];
    struct err e = ERR_INIT;
    struct mesh_conf conf = { .link = "msgw0",
                              .subnet = "auto",
                              .resolv_conf = "/etc/resolv.conf",
                              .mtu = 1500,
                              .port_first = 32768,
                              .port_last = 60999 };
    if (geteuid() != 0) {
        fprintf(stderr, "mesh_bench: needs root\n");
        return 1;
    }
    CHECK(unshare(CLONE_NEWNET | CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    run("mount -t tmpfs tmpfs /run");
    CHECK(mkdtemp(dir) && mount("tmpfs", dir, "tmpfs", 0, NULL) == 0); /* as <run> is */
    if (mesh_node_open(&node, &conf, dir, &view, "", NULL, NULL, &e) < 0)
        fail("open", &e);
    round_of(1, "one_service");
    round_of(PORTS, "100_services");
    (void)mesh_proxy_want(&node.proxy, NULL, 0, NULL); /* ends it */
    double t = now_us();
    bool rebuilt;
    if (mesh_node_sync_rules(&node, &rebuilt, &e) < 0)
        fail("sync", &e);
    print("rules_read_back", now_us() - t, NULL, 0);
    mesh_node_close(&node);
    snprintf(cmd, sizeof cmd, "umount -R -l %s; rmdir %s", dir, dir);
    run(cmd);
    return 0;
}
