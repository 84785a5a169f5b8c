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

static void print(const char *name, double *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += v[i];
    qsort(v, n, sizeof *v, cmp);
    printf("{\"bench\":\"meshd.%s\",\"n\":%zu,\"per_second\":%.0f,\"mean_us\":%.0f,\"p50_us\":%.0f,\"p99_us\":%.0f,"
           "\"max_us\":%.0f}\n",
           name, n, 1e6 * (double)n / sum, sum / (double)n, v[n / 2], v[n * 99 / 100], v[n - 1]);
}

static struct mesh_node node;
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
    snprintf(name, sizeof name, "sandbox_up.%s", suffix);
    print(name, t_up, TASKS);
    snprintf(name, sizeof name, "port_ready.%s", suffix);
    print(name, t_ready, TASKS);
    snprintf(name, sizeof name, "port_drain.%s", suffix);
    print(name, t_drain, TASKS);
    snprintf(name, sizeof name, "sandbox_down.%s", suffix);
    print(name, t_down, TASKS);
}

int main(void)
{
    char dir[] = "/tmp/mesh-bench-XXXXXX", cmd[300];
    struct err e = ERR_INIT;
    struct mesh_conf conf = { .bridge = "msbr0",
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
    CHECK(mkdtemp(dir) && mount("tmpfs", dir, "tmpfs", 0, NULL) == 0); /* as <run> is */
    if (mesh_node_open(&node, &conf, dir, NULL, NULL, &e) < 0)
        fail("open", &e);
    round_of(1, "one_service");
    round_of(PORTS, "100_services");
    double t = now_us();
    bool rebuilt;
    if (mesh_node_sync_rules(&node, &rebuilt, &e) < 0)
        fail("sync", &e);
    t_up[0] = now_us() - t;
    print("rules_read_back", t_up, 1);
    mesh_node_close(&node);
    snprintf(cmd, sizeof cmd, "umount -R -l %s; rmdir %s", dir, dir);
    return system(cmd);
}
