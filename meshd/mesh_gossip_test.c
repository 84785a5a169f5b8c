/*
 * mesh_gossip_test.c - three nodes that gossip over real sockets, each in a network namespace of its own, in one event
 * loop.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "meshd/mesh_gossip.h"
#include "meshd/netlink/mesh_ns.h"

#define NODES 3
#define WAIT_MS 30000u

static char dir[] = "/tmp/gossip-test-XXXXXX";
static int home = -1;
static bool have_root;
static sd_event *loop;
static struct {
    struct netmap map;
    struct mesh_gossip *gossip;
    unsigned changes;
    bool managers;
} nodes[NODES];

static void __attribute__((format(printf, 1, 2))) run(const char *fmt, ...)
{
    char cmd[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(cmd, sizeof cmd, fmt, ap);
    va_end(ap);
    if (system(cmd) != 0)
        fail_msg("failed: %s", cmd);
}

static const char *pin(int i)
{
    static char path[100];
    snprintf(path, sizeof path, "%s/n%d", dir, i);
    return path;
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
    home = mesh_ns_self();
    assert_int_equal(mesh_ns_dir(dir, &e), 0);
    run("ip link add br0 type bridge && ip link set br0 up && ip link set lo up");
    for (int i = 0; i < NODES; i++) {
        assert_int_equal(mesh_ns_make(pin(i), &e), 0);
        run("ip link set lo up");
        char cmd[300];
        snprintf(cmd, sizeof cmd, "ip link add up%d type veth peer name e%d netns /proc/%d/fd/%d", i, i, getpid(),
                 home);
        run("%s", cmd);
        run("ip addr add 10.99.0.1%d/24 dev up%d && ip link set up%d up", i, i, i);
        mesh_ns_back(home);
        run("ip link set e%d master br0 up", i);
    }
    return 0;
}

static int strike(void **state)
{
    struct err e = ERR_INIT;
    (void)state;
    for (int i = 0; have_root && i < NODES; i++)
        (void)mesh_ns_unpin(pin(i), &e);
    if (have_root) {
        (void)umount2(dir, MNT_DETACH);
        (void)rmdir(dir);
    }
    return 0;
}

static void on_changed(void *arg)
{
    struct netmap_change c;
    int *i = arg;
    while (netmap_next(&nodes[*i].map, &c))
        nodes[*i].changes++;
}

static bool managers(void *arg)
{
    return nodes[*(int *)arg].managers;
}

static const struct mesh_gossip_ops ops = { on_changed, managers };

/* Everybody's map: three nodes, each with a task of one service; keys by number. */
static void tell(int i, uint64_t seq, unsigned key, unsigned nkeys)
{
    static struct net_network n = { .ID = STR("n1"), .Name = STR("net") };
    static struct str ip[NODES] = { STR("10.0.0.10"), STR("10.0.0.11"), STR("10.0.0.12") };
    struct net_node v[NODES] = { { .ID = STR("node0"), .Addr = STR("10.99.0.10") },
                                 { .ID = STR("node1"), .Addr = STR("10.99.0.11") },
                                 { .ID = STR("node2"), .Addr = STR("10.99.0.12") } };
    struct net_endpoint ep[NODES] = {
        { STR("t0"), STR("n1"), STR("s"), STR("node0"), STR(""), STR("ready"), { &ip[0], 1 } },
        { STR("t1"), STR("n1"), STR("s"), STR("node1"), STR(""), STR("ready"), { &ip[1], 1 } },
        { STR("t2"), STR("n1"), STR("s"), STR("node2"), STR(""), STR("ready"), { &ip[2], 1 } },
    };
    char text[4][33];
    struct net_key keys[4];
    struct err e = ERR_INIT;
    for (unsigned k = 0; k < nkeys; k++) { /* newest first */
        snprintf(text[k], sizeof text[k], "%032u", key - k);
        keys[k] = (struct net_key){ STR("gossip"), key - k, { text[k], 32 } };
    }
    if (netmap_apply(&nodes[i].map,
                     &(struct disp_network_reply){ .Seq = seq,
                                                   .Networks = { &n, 1 },
                                                   .Endpoints = { ep, NODES },
                                                   .Nodes = { v, NODES },
                                                   .Keys = { keys, nkeys } },
                     &e) < 0)
        fail_msg("%s", e.msg);
    mesh_gossip_roster(nodes[i].gossip);
}

static void start(int i)
{
    static int index[NODES] = { 0, 1, 2 };
    char name[16];
    struct err e = ERR_INIT;
    assert_int_equal(mesh_ns_enter(pin(i), &e), 0);
    if (mesh_gossip_open(&nodes[i].gossip, loop, &nodes[i].map, MESH_GOSSIP_PORT, &ops, &index[i], &e) < 0)
        fail_msg("%s", e.msg);
    mesh_ns_back(home);
    snprintf(name, sizeof name, "node%d", i);
    mesh_gossip_self(nodes[i].gossip, str_from(name));
}

static int setup(void **state)
{
    (void)state;
    if (!have_root)
        return 0;
    assert_true(sd_event_new(&loop) >= 0);
    for (int i = 0; i < NODES; i++) {
        netmap_init(&nodes[i].map);
        start(i);
        tell(i, 10, 1, 1);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (!have_root)
        return 0;
    for (int i = 0; i < NODES; i++) {
        nodes[i].gossip = mesh_gossip_free(nodes[i].gossip);
        netmap_done(&nodes[i].map);
    }
    loop = sd_event_unref(loop);
    return 0;
}

#define NEED_ROOT()                                                                                                    \
    if (!have_root)                                                                                                    \
    skip()

static bool usable(int i, const char *task)
{
    const struct netmap_network *n = netmap_network(&nodes[i].map, STR("n1"));
    return netmap_usable(&nodes[i].map, netmap_endpoint(n, str_from(task)));
}

static unsigned members(int i, const char *as)
{
    struct buf b = BUF_INIT;
    unsigned n = 0;
    char what[40];
    snprintf(what, sizeof what, "\"state\":\"%s\"", as);
    mesh_gossip_members(nodes[i].gossip, &b);
    for (const char *p = buf_cstr(&b); (p = strstr(p, what)) != NULL; p++)
        n++;
    buf_done(&b);
    return n;
}

#define UNTIL(cond)                                                                                                    \
    do {                                                                                                               \
        for (uint64_t end_ = clock_mono().ms + WAIT_MS; !(cond);) {                                                    \
            if (clock_mono().ms >= end_)                                                                               \
                fail_msg("not within %u ms: %s", WAIT_MS, #cond);                                                      \
            assert_true(sd_event_run(loop, 100000) >= 0);                                                              \
        }                                                                                                              \
    } while (0)

static void all_alive(void)
{
    for (int i = 0; i < NODES; i++)
        UNTIL(members(i, "alive") == NODES - 1);
}

static void test_a_node_goes(void **state)
{
    (void)state;
    NEED_ROOT();
    all_alive();
    nodes[2].gossip = mesh_gossip_free(nodes[2].gossip);
    UNTIL(!usable(0, "t2") && !usable(1, "t2"));
    assert_true(usable(0, "t1") && usable(1, "t0"));
    assert_true(nodes[0].changes > 0);
    start(2);
    tell(2, 10, 1, 1);
    UNTIL(usable(0, "t2") && usable(1, "t2"));
}

/* The managers hear of it all the same: its tasks come back after a while. */
static void test_only_its_meshd_is_down(void **state)
{
    (void)state;
    NEED_ROOT();
    all_alive();
    for (int i = 0; i < 2; i++)
        nodes[i].managers = true;
    nodes[2].gossip = mesh_gossip_free(nodes[2].gossip);
    UNTIL(!usable(0, "t2") && !usable(1, "t2"));
    UNTIL(usable(0, "t2") && usable(1, "t2"));
    nodes[0].managers = false; /* nobody to ask any more: gossip's word counts again */
    UNTIL(!usable(0, "t2"));
    nodes[1].managers = false;
}

/* Who hears of nobody is the one that is cut off. */
static void test_cut_off(void **state)
{
    (void)state;
    NEED_ROOT();
    all_alive();
    nodes[1].gossip = mesh_gossip_free(nodes[1].gossip);
    nodes[2].gossip = mesh_gossip_free(nodes[2].gossip);
    UNTIL(members(0, "dead") == 2);
    assert_true(usable(0, "t1") && usable(0, "t2"));
}

static bool not_here(void *arg, struct str task)
{
    (void)arg, (void)task;
    return false;
}

static void test_withdrawn(void **state)
{
    (void)state;
    NEED_ROOT();
    all_alive();
    mesh_gossip_withdraw(nodes[0].gossip, STR("t0"), true);
    UNTIL(!usable(1, "t0") && !usable(2, "t0"));
    nodes[0].gossip = mesh_gossip_free(nodes[0].gossip); /* a restart of its meshd: the others hold on to it */
    start(0);
    tell(0, 10, 1, 1);
    mesh_gossip_withdraw(nodes[0].gossip, STR("t0"), true);
    all_alive();
    assert_true(!usable(1, "t0") && !usable(2, "t0"));
    mesh_gossip_tidy(nodes[0].gossip, not_here, NULL); /* still in the map */
    mesh_gossip_withdraw(nodes[0].gossip, STR("never-there"), true);
    mesh_gossip_tidy(nodes[0].gossip, not_here, NULL);
    mesh_gossip_withdraw(nodes[0].gossip, STR("t0"), false);
    UNTIL(usable(1, "t0") && usable(2, "t0"));
}

/* One after the other gets new keys, and nobody is lost on the way; without them, nobody is heard. */
static void test_keys(void **state)
{
    (void)state;
    NEED_ROOT();
    all_alive();
    for (unsigned key = 2; key < 7; key++)
        for (int i = 0; i < NODES; i++) {
            tell(i, 10 + key, key, key < 3 ? key : 3);
            mesh_gossip_withdraw(nodes[i].gossip, i == 0 ? STR("t0") : i == 1 ? STR("t1") : STR("t2"), key % 2);
            for (int k = 0; k < NODES; k++)
                if (k != i)
                    UNTIL(usable(k, i == 0 ? "t0" : i == 1 ? "t1" : "t2") == !(key % 2));
        }
    for (int i = 0; i < NODES; i++)
        assert_int_equal(members(i, "alive"), NODES - 1);
    tell(2, 30, 90, 3); /* another swarm's */
    UNTIL(members(0, "dead") == 1 && members(1, "dead") == 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_withdrawn), T(test_keys), T(test_a_node_goes), T(test_only_its_meshd_is_down), T(test_cut_off),
    };
    return cmocka_run_group_tests(tests, stage, strike);
}
