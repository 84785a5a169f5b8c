/*
 * esp_net_test.c - two nodes in network namespaces of their own, a VXLAN between them as on an encrypted network, and
 * somebody who listens on the wire. Needs a kernel with ESP; `make check-vm` runs it in a virtual machine that has one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "meshd/esp/esp.h"
#include "meshd/netlink/mesh_ns.h"

#define SECRET "SECRETPAYLOAD"
#define WAIT_MS 10000
#define SILENCE_MS 400 /* how long nothing must come to count as dropped */

static char dir[] = "/tmp/esp-test-XXXXXX";
static int home = -1, wire = -1, udp[2];
static bool able;
static struct {
    struct netmap map;
    struct esp esp;
} nodes[2];

/* ---- the stage ---- */

static void run(const char *cmd)
{
    if (system(cmd) != 0)
        fail_msg("failed: %s", cmd);
}

static const char *pin(int i)
{
    static char path[100];
    snprintf(path, sizeof path, "%s/n%d", dir, i);
    return path;
}

static void enter(int i)
{
    struct err e = ERR_INIT;
    if (mesh_ns_enter(pin(i), &e) < 0)
        fail_msg("%s", e.msg);
}

static void inside(int i, const char *cmd)
{
    enter(i);
    run(cmd);
    mesh_ns_back(home);
}

/* kernel_has_esp - by trying, in the namespace of the test */
static bool kernel_has_esp(void)
{
    return system("ip xfrm state add src 192.0.2.8 dst 192.0.2.9 proto esp spi 0x9 reqid 9 mode transport "
                  "aead 'rfc4106(gcm(aes))' 0x0123456789abcdef0123456789abcdef01234567 128 2>/dev/null") == 0;
}

static void node_make(int i)
{
    struct err e = ERR_INIT;
    if (mesh_ns_make(pin(i), &e) < 0)
        fail_msg("%s", e.msg);
    run("ip link set lo up");
    mesh_ns_back(home);
}

static void node_wire(int i)
{
    char cmd[500];
    snprintf(cmd, sizeof cmd,
             "ip addr add 192.0.2.%d/24 dev eth0 && ip link set eth0 up && "
             "ip link add vx0 type vxlan id 4097 dstport 4790 local 192.0.2.%d remote 192.0.2.%d && "
             "ip addr add 10.9.0.%d/24 dev vx0 && ip link set vx0 mtu 1390 up",
             i + 1, i + 1, 2 - i, i + 1);
    inside(i, cmd);
}

static int udp_socket(int i)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(7000) };
    char text[20];
    enter(i);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(text, sizeof text, "10.9.0.%d", i + 1);
    assert_int_equal(inet_pton(AF_INET, text, &at.sin_addr), 1);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    mesh_ns_back(home);
    return fd;
}

static int stage(void **state)
{
    char cmd[300];
    struct err e = ERR_INIT;
    (void)state;
    if (geteuid() != 0 || !mkdtemp(dir) || unshare(CLONE_NEWNET | CLONE_NEWNS) != 0)
        return 0;
    able = kernel_has_esp();
    if (!able) {
        print_message("this kernel has no ESP with rfc4106(gcm(aes))\n");
        return 0;
    }
    run("mount --make-rprivate /");
    home = mesh_ns_self();
    assert_int_equal(mesh_ns_dir(dir, &e), 0);
    node_make(0);
    node_make(1);
    enter(0);
    int ns0 = mesh_ns_self();
    mesh_ns_back(home);
    enter(1);
    snprintf(cmd, sizeof cmd, "ip link add eth0 type veth peer name eth0 netns /proc/%d/fd/%d", getpid(), ns0);
    run(cmd);
    mesh_ns_back(home);
    close(ns0);
    node_wire(0);
    node_wire(1);
    enter(1);
    struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
    at.sll_ifindex = (int)if_nametoindex("eth0");
    wire = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(ETH_P_ALL));
    assert_int_equal(bind(wire, (struct sockaddr *)&at, sizeof at), 0);
    mesh_ns_back(home);
    udp[0] = udp_socket(0);
    udp[1] = udp_socket(1);
    return 0;
}

static int strike(void **state)
{
    struct err e = ERR_INIT;
    (void)state;
    if (home < 0)
        return 0;
    (void)mesh_ns_unpin(pin(0), &e);
    (void)mesh_ns_unpin(pin(1), &e);
    (void)umount2(dir, MNT_DETACH);
    (void)rmdir(dir);
    return 0;
}

/* ---- what the nodes know ---- */

struct world {
    bool encrypted;
    unsigned newest, keys;
    const char *boot;
};

static void tell(int i, const struct world *w)
{
    static uint64_t seq;
    struct net_network n = { .ID = STR("n1"), .Name = STR("n1"), .Encrypted = w->encrypted };
    struct str ip[] = { STR("10.9.0.1"), STR("10.9.0.2") };
    struct net_endpoint ep[] = {
        { STR("t0"), STR("n1"), STR("s"), STR("node0"), STR(""), STR("ready"), { &ip[0], 1 } },
        { STR("t1"), STR("n1"), STR("s"), STR("node1"), STR(""), STR("ready"), { &ip[1], 1 } },
    };
    struct net_node v[] = { { .ID = STR("node0"), .Addr = STR("192.0.2.1"), .BootID = str_from(w->boot) },
                            { .ID = STR("node1"), .Addr = STR("192.0.2.2"), .BootID = STR("1") } };
    struct net_key keys[4];
    char text[4][33];
    struct err e = ERR_INIT;
    for (unsigned k = 0; k < w->keys; k++) {
        snprintf(text[k], sizeof text[k], "%032u", w->newest - k);
        keys[k] = (struct net_key){ STR("esp"), w->newest - k, { text[k], 32 } };
    }
    struct disp_network_reply r = { .Seq = ++seq,
                                    .Full = true,
                                    .DataPathPort = 4789,
                                    .Networks = { &n, 1 },
                                    .Endpoints = { ep, 2 },
                                    .Nodes = { v, 2 },
                                    .Keys = { keys, w->keys } };
    if (netmap_apply(&nodes[i].map, &r, &e) < 0 ||
        esp_sync(&nodes[i].esp, &nodes[i].map, i ? STR("node1") : STR("node0"), &e) < 0)
        fail_msg("%s", e.msg);
}

static void esp_start(int i)
{
    struct err e = ERR_INIT;
    enter(i);
    assert_int_equal(esp_open(&nodes[i].esp, &e), 0);
    mesh_ns_back(home);
    assert_true(nodes[i].esp.open);
}

static int setup(void **state)
{
    (void)state;
    for (int i = 0; able && i < 2; i++) {
        netmap_init(&nodes[i].map);
        esp_start(i);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; able && i < 2; i++) {
        tell(i, &(struct world){ false, 1, 1, "1" });
        esp_close(&nodes[i].esp);
        netmap_done(&nodes[i].map);
    }
    return 0;
}

/* ---- traffic ---- */

static bool arrives(int from, const char *text, int wait_ms)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(7000) };
    char addr[20], got[2000];
    struct pollfd p = { .fd = udp[!from], .events = POLLIN };

    while (recv(udp[!from], got, sizeof got, MSG_DONTWAIT) >= 0)
        ;
    snprintf(addr, sizeof addr, "10.9.0.%d", 2 - from);
    assert_int_equal(inet_pton(AF_INET, addr, &to.sin_addr), 1);
    if (sendto(udp[from], text, strlen(text), 0, (struct sockaddr *)&to, sizeof to) < 0)
        return false;
    if (poll(&p, 1, wait_ms) != 1)
        return false;
    ssize_t n = recv(udp[!from], got, sizeof got, 0);
    return n == (ssize_t)strlen(text) && memcmp(got, text, (size_t)n) == 0;
}

/* until_it_does - ARP of the first packets may take its time */
static void until_it_does(int from)
{
    for (uint64_t end = clock_mono().ms + WAIT_MS; clock_mono().ms < end;)
        if (arrives(from, SECRET, 500))
            return;
    fail_msg("nothing arrives from node %d", from);
}

/* wire_heard - since the last time: packets with the secret in clear, and ESP packets */
static void wire_heard(unsigned *ret_clear, unsigned *ret_esp)
{
    uint8_t m[2000];
    ssize_t n;
    *ret_clear = *ret_esp = 0;
    while ((n = recv(wire, m, sizeof m, MSG_DONTWAIT)) > 0) {
        *ret_clear += memmem(m, (size_t)n, SECRET, sizeof SECRET - 1) != NULL;
        *ret_esp += n > 34 && m[12] == 0x08 && m[13] == 0 && m[23] == IPPROTO_ESP;
    }
}

#define NEED_ESP()                                                                                                     \
    if (!able)                                                                                                         \
    skip()

static void both(const struct world *w)
{
    tell(0, w);
    tell(1, w);
}

static void test_nothing_in_clear(void **state)
{
    unsigned clear, esp;
    (void)state;
    NEED_ESP();
    both(&(struct world){ false, 1, 1, "1" });
    until_it_does(0);
    wire_heard(&clear, &esp);
    assert_true(clear > 0 && esp == 0); /* the listener would hear it */
    both(&(struct world){ true, 1, 1, "1" });
    wire_heard(&clear, &esp);
    until_it_does(0);
    until_it_does(1);
    for (int i = 0; i < 100; i++)
        assert_true(arrives(i % 2, SECRET, WAIT_MS));
    wire_heard(&clear, &esp);
    assert_int_equal(clear, 0);
    assert_true(esp >= 100);
}

/* One side does not encrypt: nothing goes out in clear, and what comes in clear is not taken. */
static void test_no_clear_fallback(void **state)
{
    unsigned clear, esp;
    (void)state;
    NEED_ESP();
    both(&(struct world){ true, 1, 1, "1" });
    until_it_does(0);
    tell(0, &(struct world){ false, 1, 1, "1" });
    assert_false(arrives(0, SECRET, SILENCE_MS)); /* sent in clear, refused there */
    wire_heard(&clear, &esp);
    assert_true(clear > 0);
    assert_false(arrives(1, SECRET, SILENCE_MS));
    wire_heard(&clear, &esp);
    assert_int_equal(clear, 0);
    tell(0, &(struct world){ true, 1, 0, "1" }); /* no key */
    assert_false(arrives(0, SECRET, SILENCE_MS));
    wire_heard(&clear, &esp);
    assert_int_equal(clear, 0);
    tell(0, &(struct world){ true, 1, 1, "1" });
    until_it_does(0);
}

/* A device of an encrypted network is made before the map has the network. */
static void test_guard(void **state)
{
    unsigned clear, esp;
    struct err e = ERR_INIT;
    (void)state;
    NEED_ESP();
    both(&(struct world){ false, 1, 1, "1" });
    until_it_does(0);
    assert_int_equal(esp_guard(&nodes[0].esp, 4790, &e), 0);
    assert_int_equal(esp_guard(&nodes[0].esp, 4790, &e), 0);
    wire_heard(&clear, &esp);
    assert_false(arrives(0, SECRET, SILENCE_MS));
    wire_heard(&clear, &esp);
    assert_int_equal(clear, 0);
    assert_false(arrives(1, SECRET, SILENCE_MS)); /* sent in clear, not taken */
    both(&(struct world){ true, 1, 1, "1" });
    until_it_does(0);
    until_it_does(1);
}

/* Keys are rotated on one node, then on the other, with packets in between: every single one arrives. */
static void test_rotation(void **state)
{
    unsigned clear, esp;
    (void)state;
    NEED_ESP();
    both(&(struct world){ true, 1, 1, "1" });
    until_it_does(0);
    until_it_does(1);
    wire_heard(&clear, &esp);
    for (unsigned k = 2; k < 8; k++)
        for (int i = 0; i < 2; i++) {
            tell(i, &(struct world){ true, k, k < 3 ? k : 3, "1" });
            for (int n = 0; n < 20; n++)
                assert_true(arrives(n % 2, SECRET, WAIT_MS));
        }
    wire_heard(&clear, &esp);
    assert_int_equal(clear, 0);
    assert_true(esp >= 240);
    assert_int_equal(nodes[0].esp.failures + nodes[1].esp.failures, 0);
}

/* A node comes back from a reboot and counts from 1 again: with its new boot it is heard, in its old name it is not. */
static void test_reboot(void **state)
{
    (void)state;
    NEED_ESP();
    both(&(struct world){ true, 1, 1, "1" });
    until_it_does(0);
    for (int n = 0; n < 1200; n++) /* more than the window */
        assert_true(arrives(0, "x", WAIT_MS));
    inside(0, "ip xfrm state flush && ip xfrm policy flush");
    nodes[0].esp.stale = true;
    tell(0, &(struct world){ true, 1, 1, "1" });
    assert_false(arrives(0, SECRET, SILENCE_MS)); /* replays, for node 1 */
    both(&(struct world){ true, 1, 1, "2" });
    until_it_does(0);
    until_it_does(1);
}

static void test_reconcile(void **state)
{
    struct err e = ERR_INIT;
    (void)state;
    NEED_ESP();
    both(&(struct world){ true, 3, 3, "1" });
    until_it_does(0);
    uint64_t before = nodes[0].esp.changes;
    tell(0, &(struct world){ true, 3, 3, "1" });
    assert_int_equal(nodes[0].esp.changes, before); /* nothing new: the kernel is left alone */
    inside(0, "ip xfrm policy flush");
    inside(0, "ip xfrm state add src 192.0.2.8 dst 192.0.2.9 proto esp spi 0x9 reqid 9 mode transport "
              "aead 'rfc4106(gcm(aes))' 0x0123456789abcdef0123456789abcdef01234567 128");
    assert_int_equal(esp_reconcile(&nodes[0].esp, &nodes[0].map, STR("node0"), &e), 0);
    assert_true(arrives(0, SECRET, WAIT_MS));
    inside(0, "ip xfrm state | grep -q 'reqid 9 '"); /* what is not ours stays */
    esp_close(&nodes[0].esp);                        /* a restart: what is there is adopted, no packet is lost */
    assert_true(arrives(0, SECRET, WAIT_MS));
    esp_start(0);
    assert_int_equal(esp_sync(&nodes[0].esp, &nodes[0].map, STR("node0"), &e), 0);
    assert_true(arrives(0, SECRET, WAIT_MS) && arrives(1, SECRET, WAIT_MS));
    tell(0, &(struct world){ false, 3, 3, "1" });
    inside(0, "[ $(ip xfrm state | grep -c 'reqid 1836275539') = 0 ] && [ -z \"$(ip xfrm policy)\" ]");
    inside(0, "ip xfrm state deleteall reqid 9");
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_nothing_in_clear), T(test_no_clear_fallback), T(test_guard), T(test_rotation),
        T(test_reboot),           T(test_reconcile),
    };
    return cmocka_run_group_tests(tests, stage, strike);
}
