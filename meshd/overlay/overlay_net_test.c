/* Overlay networks with real packets: three hosts made of namespaces, each with a part of its own. */

#include "meshd/overlay/test_stage.h"

static const struct stage_net n1 = { .id = "net1", .subnet = "10.0.1.0/24", .vni = 4097 };
static const struct stage_net n2 = { .id = "net2", .subnet = "10.0.1.0/24", .vni = 4098 }; /* the same addresses */
static const struct stage_net n6 = { .id = "net6", .subnet = "10.0.6.0/24", .subnet6 = "fd00:6::/64", .vni = 4099 };

static int setup(void **state)
{
    (void)state;
    if (stage.root)
        stage_setup();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (stage.root)
        stage_clean();
    return 0;
}

static void use(const struct stage_net *n)
{
    stage.nets[stage.nnets++] = n;
}

/* three - a task on each host */
static struct stage_task *three(const struct stage_net *n, const char *prefix, const char *net6)
{
    struct stage_task *first = &stage.tasks[stage.ntasks];
    use(n);
    for (int i = 0; i < STAGE_HOSTS; i++) {
        char id[20], addr[32], addr6[64];
        snprintf(id, sizeof id, "%s%d", prefix, i);
        snprintf(addr, sizeof addr, "%.*s%d", (int)(strlen(n->subnet) - 4), n->subnet, 11 + i);
        snprintf(addr6, sizeof addr6, "%s%d", net6 ? net6 : "", 11 + i);
        struct stage_task *t = task_add(id, "", i);
        task_net(t, n, addr, net6 ? addr6 : NULL);
        task_up(t);
    }
    return first;
}

static void test_ping_all_pairs(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct stage_task *t = three(&n1, "a", NULL);
    tell_all();
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 3; k++)
            if (i != k)
                assert_true(ping(&t[i], t[k].addr[0]));
    assert_true(echo(&t[0], "10.0.1.12", 1422, WAIT_MS)); /* 1450 with headers */
    assert_false(echo(&t[0], "10.0.1.12", 1424, 600));
    int s = serve(&t[2], SOCK_STREAM, "0.0.0.0", 80);
    assert_int_equal(once(&t[0], "10.0.1.13", 80, &s, 1), 0);
    close(s);
    /* two on one host, and a task that comes late */
    struct stage_task *late = task_add("late", "", 1);
    task_net(late, &n1, "10.0.1.77", NULL);
    task_up(late);
    tell_all();
    assert_true(ping(&t[1], "10.0.1.77"));
    assert_true(ping(&t[0], "10.0.1.77"));
    assert_true(ping(late, "10.0.1.13"));
}

static void test_no_flooding(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct stage_task *t = three(&n1, "a", NULL);
    tell_all();
    assert_true(ping(&t[0], "10.0.1.12"));
    enter(stage.hosts[0].ns);
    unsigned long before = tx_packets("eth0");
    assert_true(silent(&t[0], "10.0.1.200")); /* nobody: ARP stays here */
    enter(stage.hosts[0].ns);
    unsigned long after = tx_packets("eth0");
    assert_true(after - before <= 2);                       /* the hosts' own ARP, at most */
    assert_true(in_task(&t[0], "ip neigh flush dev eth1")); /* ARP for one that is known is answered here, too */
    enter(stage.hosts[0].ns);
    before = tx_packets("eth0");
    assert_true(echo(&t[0], "10.0.1.12", 56, WAIT_MS));
    enter(stage.hosts[0].ns);
    after = tx_packets("eth0");
    assert_true(after - before >= 1 && after - before <= 3);
}

static void test_ipv6(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct stage_task *t = three(&n6, "s", "fd00:6::");
    tell_all();
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 3; k++)
            if (i != k) {
                assert_true(ping(&t[i], t[k].addr[0]));
                assert_true(ping(&t[i], t[k].addr6[0]));
            }
    int s = serve(&t[1], SOCK_STREAM, "fd00:6::12", 80);
    assert_int_equal(once(&t[0], "fd00:6::12", 80, &s, 1), 0);
    close(s);
}

static void test_overlapping_networks(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct stage_task *a = three(&n1, "a", NULL), *b = three(&n2, "b", NULL);
    tell_all();
    int sa = serve(&a[1], SOCK_STREAM, "0.0.0.0", 80), sb = serve(&b[1], SOCK_STREAM, "0.0.0.0", 80);
    int both[2] = { sa, sb };
    for (int i = 0; i < 5; i++) {
        assert_int_equal(once(&a[0], "10.0.1.12", 80, both, 2), 0);
        assert_int_equal(once(&b[0], "10.0.1.12", 80, both, 2), 1);
    }
    close(sa), close(sb);
    /* an address that only one network has is not reached from the other */
    struct stage_task *only = task_add("only", "", 2);
    task_net(only, &n2, "10.0.1.99", NULL);
    task_up(only);
    tell_all();
    assert_true(ping(&b[0], "10.0.1.99"));
    assert_true(silent(&a[0], "10.0.1.99"));
}

static void test_several_networks(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct stage_task *a = three(&n1, "a", NULL), *s = three(&n6, "s", "fd00:6::");
    struct stage_task *both = task_add("both", "", 0);
    task_net(both, &n6, "10.0.6.50", "fd00:6::50");
    task_net(both, &n1, "10.0.1.50", NULL);
    task_up(both);
    tell_all();
    assert_true(ping(both, "10.0.1.13") && ping(both, "10.0.6.13") && ping(both, "fd00:6::13"));
    assert_true(ping(&a[2], "10.0.1.50") && ping(&s[2], "10.0.6.50"));
    assert_true(in_task(both, "ip -o -4 addr show eth1 | grep -q 10.0.6.50/24 && "
                              "ip -o -4 addr show eth2 | grep -q 10.0.1.50/24"));
}

static size_t entries(struct stage_host *h, const char *net)
{
    struct overlay_net **n = table_get(&h->ov.nets, str_from(net));
    struct overlay_have have;
    struct err e = ERR_INIT;
    assert_non_null(n);
    overlay_have_init(&have);
    if (overlay_ns_read(&(*n)->ns, &have, &e) < 0)
        fail_msg("%s", e.msg);
    size_t sum = have.fdb.count + have.neigh.count;
    overlay_have_done(&have);
    return sum;
}

static void test_tasks_come_and_go(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct stage_task *t = three(&n1, "a", NULL);
    tell_all();
    assert_int_equal(entries(&stage.hosts[0], "net1"), 4);
    task_down(&t[1], 1000);
    t[1].state = NULL;
    tell_all();
    assert_int_equal(entries(&stage.hosts[0], "net1"), 2);
    assert_true(silent(&t[0], "10.0.1.12"));
    /* its address again on another host, at once, and again on its own */
    struct stage_task *u = task_add("u", "", 2);
    task_net(u, &n1, "10.0.1.12", NULL);
    task_up(u);
    tell_all();
    assert_true(ping(&t[0], "10.0.1.12"));
    task_down(u, 1000);
    u->state = NULL;
    struct stage_task *v = task_add("v", "", 2);
    task_net(v, &n1, "10.0.1.12", NULL);
    task_up(v); /* though the kernel may not have taken the other's link apart yet */
    tell_all();
    assert_true(ping(&t[0], "10.0.1.12"));
    /* the last one on host 1 went: its network goes, after a while */
    enter(stage.hosts[1].ns);
    assert_false(overlay_sweep(&stage.hosts[1].ov, 1000 + OVERLAY_LINGER_MS - 1));
    assert_int_equal(stage.hosts[1].ov.nets.count, 1);
    assert_true(overlay_sweep(&stage.hosts[1].ov, 1000 + OVERLAY_LINGER_MS));
    assert_int_equal(stage.hosts[1].ov.nets.count, 0);
    sh("test -z \"$(ls %s/overlay)\"", stage.hosts[1].run);
    /* and comes again at once, with the same id */
    struct stage_task *w = task_add("w", "", 1);
    task_net(w, &n1, "10.0.1.60", NULL);
    task_up(w);
    tell_all();
    assert_true(ping(&t[0], "10.0.1.60"));
}

static void test_address_in_use(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct err e = ERR_INIT;
    struct stage_task *t = three(&n1, "a", NULL);
    struct stage_task *u = task_add("u", "", 0);
    task_net(u, &n1, t[0].addr[0], NULL);
    assert_int_equal(task_try_up(u, &e), -ERR_CONFLICT);
    assert_non_null(strstr(e.msg, "a0"));
    u->state = NULL;
    tell_all();
    assert_true(ping(&t[0], "10.0.1.12"));
}

static void test_node_moves(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct stage_task *t = three(&n1, "a", NULL);
    tell_all();
    assert_true(ping(&t[0], "10.0.1.13"));
    enter(stage.hosts[2].ns);
    sh("ip addr flush dev eth0 && ip addr add 10.250.0.99/24 dev eth0");
    snprintf(stage.hosts[2].addr, sizeof stage.hosts[2].addr, "10.250.0.99");
    tell_all();
    assert_true(ping(&t[0], "10.0.1.13") && ping(&t[2], "10.0.1.12"));
    enter(stage.hosts[2].ns);
    sh("ip addr flush dev eth0 && ip addr add 10.250.0.3/24 dev eth0");
}

static void test_other_port(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct stage_task *t = three(&n1, "a", NULL);
    tell_all();
    stage.port = 7789;
    tell_all();
    assert_true(ping(&t[0], "10.0.1.13"));
    struct overlay_net **net = table_get(&stage.hosts[0].ov.nets, STR("net1"));
    assert_int_equal((*net)->vx.port, 7789);
}

/* ---- crashes and interference ---- */

/* A restarted meshd without any manager: nothing changes, and nothing is missed. */
static void test_restart(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct stage_task *t = three(&n1, "a", NULL);
    tell_all();
    struct stage_host *h = &stage.hosts[0];
    host_close(h);
    assert_true(ping(&t[0], "10.0.1.13"));
    host_open(h);
    assert_int_equal(h->ov.repaired, 0);
    assert_int_equal(entries(h, "net1"), 4);
    assert_true(ping(&t[0], "10.0.1.13"));
    assert_true(host_tell(h));
    assert_int_equal(h->ov.repaired, 0);
    assert_true(ping(&t[0], "10.0.1.12"));
}

static void test_reconcile(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct stage_task *t = three(&n1, "a", NULL);
    struct stage_host *h = &stage.hosts[0];
    struct buf b = BUF_INIT;
    char pin[512];
    tell_all();
    enter(h->ns);
    overlay_probe(&h->ov, &b);
    assert_non_null(strstr(buf_cstr(&b), "\"differences\":[]"));
    snprintf(pin, sizeof pin, "nsenter --net=%s/overlay/net1", h->run);
    sh("%s bridge fdb del 02:42:0a:00:01:0c dev vx0 dst 10.250.0.2 self", pin);
    sh("%s ip neigh replace 10.0.1.13 lladdr 02:42:00:00:00:01 dev vx0 nud permanent", pin);
    sh("%s ip neigh add 10.0.1.66 lladdr 02:42:00:00:00:02 dev vx0 nud permanent", pin);
    sh("%s ip link set ms0a00010b nomaster", pin);
    buf_clear(&b);
    overlay_probe(&h->ov, &b);
    assert_non_null(strstr(buf_cstr(&b), "forwarding entry missing"));
    assert_non_null(strstr(buf_cstr(&b), "neighbour too many"));
    assert_true(silent(&t[0], "10.0.1.12"));
    assert_true(overlay_reconcile(&h->ov));
    assert_true(in_task(&t[0], "ip neigh flush dev eth1"));
    assert_true(ping(&t[0], "10.0.1.12") && ping(&t[0], "10.0.1.13"));
    assert_int_equal(entries(h, "net1"), 4);
    /* all of it taken away, and replaced by what isn't ours */
    sh("%s ip link del vx0 && %s ip link add vx0 type bridge", pin, pin);
    sh("%s ip link del br0 && %s ip link add br0 type veth peer name peer0", pin, pin);
    assert_true(overlay_reconcile(&h->ov));
    assert_true(ping(&t[0], "10.0.1.12"));
    sh("%s ip link del ms0a00010b", pin); /* the task's own interface */
    assert_true(overlay_reconcile(&h->ov));
    assert_true(ping(&t[0], "10.0.1.12") && ping(&t[1], "10.0.1.11"));
    buf_done(&b);
}

/* Its file is gone but the namespace is alive: the id is taken. */
static void test_leftover_device(void **state)
{
    (void)state;
    NEEDS_ROOT();
    use(&n1);
    tell_all();
    enter(stage.hosts[0].ns);
    sh("mkdir -p %s/old && touch %s/old/ns && unshare --net=%s/old/ns true", stage.hosts[0].run, stage.hosts[0].run,
       stage.hosts[0].run);
    sh("ip link add vx77 type vxlan id 4097 dstport 4789 local 10.250.0.1 && ip link set vx77 netns %s/old/ns",
       stage.hosts[0].run);
    struct stage_task *t = task_add("a0", "", 0);
    struct err e = ERR_INIT;
    task_net(t, &n1, "10.0.1.11", NULL);
    assert_int_equal(task_try_up(t, &e), -ERR_CONFLICT); /* somebody else's: a clear word, and it stays */
    assert_non_null(strstr(e.msg, "vx77"));
    sh("nsenter --net=%s/old/ns ip link set vx77 alias %s/overlay/net1", stage.hosts[0].run, stage.hosts[0].run);
    task_up(t);
    assert_int_equal(stage.hosts[0].ov.repaired, 1);
    sh("umount %s/old/ns", stage.hosts[0].run);
}

static void test_stray_namespace(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct stage_task *t = three(&n1, "a", NULL);
    struct stage_host *h = &stage.hosts[0];
    char path[400], pin[512];
    tell_all();
    host_close(h);
    snprintf(path, sizeof path, "%s/attach/a0",
             h->run); /* as after a crash between taking a task off and its network */
    assert_int_equal(unlink(path), 0);
    host_open(h);
    assert_int_equal(h->ov.nets.count, 0);
    sh("test -z \"$(ls %s/overlay)\"", h->run);
    task_pin(h, "a0", pin);
    (void)mesh_ns_unpin(pin, NULL);
    task_up(&t[0]);
    assert_true(host_tell(h));
    assert_true(ping(&t[0], "10.0.1.12"));
}

static void test_encrypted(void **state)
{
    (void)state;
    NEEDS_ROOT();
    static const struct stage_net enc = { .id = "enc", .subnet = "10.0.9.0/24", .vni = 4200, .encrypted = true };
    struct stage_task *t = task_add("e", "", 0);
    struct err e = ERR_INIT;
    use(&enc);
    task_net(t, &enc, "10.0.9.2", NULL);
    tell_all();
    enter(stage.hosts[0].ns);
    if (overlay_esp(&stage.hosts[0].ov.host)) {
        task_up(t);
        struct overlay_net **net = table_get(&stage.hosts[0].ov.nets, STR("enc"));
        assert_int_equal((*net)->vx.port, 4790);
        return;
    }
    assert_int_equal(task_try_up(t, &e), -ERR_PRECONDITION);
    assert_non_null(strstr(e.msg, "ESP"));
    assert_int_equal(stage.hosts[0].ov.nets.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(test_ping_all_pairs),   T(test_no_flooding),       T(test_ipv6),           T(test_overlapping_networks),
        T(test_several_networks), T(test_tasks_come_and_go), T(test_address_in_use), T(test_node_moves),
        T(test_other_port),       T(test_restart),           T(test_reconcile),      T(test_leftover_device),
        T(test_stray_namespace),  T(test_encrypted),
    };
    stage_make();
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    stage_unmake();
    return r;
}
