/* Service addresses with real packets: three hosts made of namespaces, tasks on an overlay network, connections. */

#include "meshd/overlay/test_stage.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <time.h>

#include "common/util/clock.h"
#include "meshd/vip/vip.h"
#include "meshd/vip/vip_nft.h"

static const struct stage_net n1 = { .id = "net1", .subnet = "10.0.1.0/24", .subnet6 = "fd00:1::/64", .vni = 4097 };
static const struct stage_net n2 = { .id = "net2", .subnet = "10.0.1.0/24", .vni = 4098 }; /* the same addresses */
static struct vip vips[STAGE_HOSTS];

#define VIP "10.0.1.100"
#define VIP6 "fd00:1::100"

static struct vip *vip_of(const struct stage_host *h)
{
    return &vips[h - stage.hosts];
}

static void on_change(struct stage_host *h, const struct netmap_change *c)
{
    vip_change(vip_of(h), c);
}

static void on_synced(struct stage_host *h)
{
    assert_true(vip_sync(vip_of(h)));
    while (!vip_flush(vip_of(h), 1))
        ;
    vip_core_verify(&vip_of(h)->core);
}

static void vips_open(struct stage_host *h)
{
    struct err e = ERR_INIT;
    enter(h->ns);
    if (vip_open(vip_of(h), h->run, &h->tasks, &h->map, on_note, h, &e) < 0)
        fail_msg("%s", e.msg);
}

static int setup(void **state)
{
    (void)state;
    if (!stage.root)
        return 0;
    stage_setup();
    stage.changed = on_change;
    stage.synced = on_synced;
    for (int i = 0; i < STAGE_HOSTS; i++)
        vips_open(&stage.hosts[i]);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (!stage.root)
        return 0;
    for (int i = 0; i < STAGE_HOSTS; i++) {
        enter(stage.hosts[i].ns);
        vip_close(&vips[i]);
    }
    stage_clean();
    return 0;
}

static struct stage_task *add(const char *id, const char *service, int host, const struct stage_net *n,
                              const char *addr, const char *addr6)
{
    struct stage_task *t = task_add(id, service, host);
    struct err e = ERR_INIT;
    task_net(t, n, addr, addr6);
    task_up(t);
    enter(stage.hosts[host].ns);
    if (vip_up(&vips[host], attach_get(&stage.hosts[host].tasks, str_from(id)), &e) < 0)
        fail_msg("%s", e.msg);
    return t;
}

static void away(struct stage_task *t)
{
    vip_down(&vips[t->host], str_from(t->id));
    task_down(t, 0);
    t->state = NULL;
}

static struct stage_service *service(const char *id, const struct stage_net *n, const char *vip, const char *vip6)
{
    struct stage_service *s = &stage.services[stage.nservices++];
    *s = (struct stage_service){ .net = n };
    snprintf(s->id, sizeof s->id, "%s", id);
    snprintf(s->vip, sizeof s->vip, "%s", vip);
    snprintf(s->vip6, sizeof s->vip6, "%s", vip6 ? vip6 : "");
    return s;
}

/* web - a client on host 0, servers on all three hosts behind VIP. */
static struct stage_task *client, *servers[3];
static int tcp[3], udp[3];

static void web(void)
{
    stage.nets[stage.nnets++] = &n1;
    client = add("client", "", 0, &n1, "10.0.1.10", "fd00:1::10");
    service("web", &n1, VIP, VIP6);
    for (int i = 0; i < 3; i++) {
        char id[8], addr[20], addr6[20];
        snprintf(id, sizeof id, "web%d", i);
        snprintf(addr, sizeof addr, "10.0.1.1%d", i + 1);
        snprintf(addr6, sizeof addr6, "fd00:1::1%d", i + 1);
        servers[i] = add(id, "web", i, &n1, addr, addr6);
        tcp[i] = serve(servers[i], SOCK_STREAM, "::", 80); /* both families */
        udp[i] = serve(servers[i], SOCK_DGRAM, "::", 53);
    }
    tell_all();
    for (int i = 0; i < 3; i++)
        assert_true(ping(client, servers[i]->addr[0]));
}

static void web_done(void)
{
    for (int i = 0; i < 3; i++)
        close(tcp[i]), close(udp[i]);
}

/* ---- tests ---- */

static void test_spread(void **state)
{
    (void)state;
    NEEDS_ROOT();
    int hits[3] = { 0 }, hits6[3] = { 0 }, asked[3] = { 0 };
    web();
    for (int i = 0; i < 120; i++) {
        hits[once(client, VIP, 80, tcp, 3)]++;
        hits6[once(client, VIP6, 80, tcp, 3)]++;
        int c = udp_client(client, VIP, 53);
        int who = ask(c, udp, 3, WAIT_MS);
        assert_true(who >= 0);
        asked[who]++;
        close(c);
    }
    for (int i = 0; i < 3; i++) {
        assert_in_range(hits[i], 10, 80);
        assert_in_range(hits6[i], 10, 80);
        assert_in_range(asked[i], 10, 80);
    }
    assert_true(ping(client, VIP) && ping(client, VIP6)); /* ICMP is drawn, too */
    /* from the other hosts, and from a backend to the service that it is part of */
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < 20; i++)
            (void)once(servers[k], VIP, 80, tcp, 3);
    web_done();
}

/* The server sees who it is: the client's own address. The client sees who it asked: the VIP. */
static void test_addresses(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct sockaddr_in6 peer;
    struct sockaddr_in asked;
    socklen_t len = sizeof peer;
    char text[64];
    int c = -1, s = -1;
    web();
    assert_int_equal(dial(client, VIP, 80, WAIT_MS, &c), 0);
    (void)accept_any(tcp, 3, &s);
    assert_int_equal(getpeername(s, (struct sockaddr *)&peer, &len), 0);
    assert_string_equal(inet_ntop(AF_INET6, &peer.sin6_addr, text, sizeof text), "::ffff:10.0.1.10");
    len = sizeof asked;
    assert_int_equal(getpeername(c, (struct sockaddr *)&asked, &len), 0);
    assert_string_equal(inet_ntop(AF_INET, &asked.sin_addr, text, sizeof text), VIP);
    close(c), close(s);
    web_done();
}

static void test_hairpin(void **state)
{
    (void)state;
    NEEDS_ROOT();
    stage.nets[stage.nnets++] = &n1;
    struct stage_task *t = add("lonely", "self", 0, &n1, "10.0.1.11", NULL);
    service("self", &n1, VIP, NULL);
    tell_all();
    int s = serve(t, SOCK_STREAM, "0.0.0.0", 80), u = serve(t, SOCK_DGRAM, "0.0.0.0", 53);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(once(t, VIP, 80, &s, 1), 0);
        int c = udp_client(t, VIP, 53);
        assert_int_equal(ask(c, &u, 1, WAIT_MS), 0);
        close(c);
    }
    close(s), close(u);
}

static void test_no_backend(void **state)
{
    (void)state;
    NEEDS_ROOT();
    int c = -1;
    web();
    for (int i = 0; i < 3; i++)
        servers[i]->state = "starting";
    tell_all();
    uint64_t before = clock_mono().ms;
    assert_int_equal(dial(client, VIP, 80, WAIT_MS, &c), ECONNREFUSED);
    assert_int_equal(dial(client, VIP6, 80, WAIT_MS, &c), ECONNREFUSED);
    assert_true(clock_mono().ms - before < WAIT_MS / 2);
    int u = udp_client(client, VIP, 53);
    assert_int_equal(send(u, "q", 1, 0), -1); /* at once, too */
    assert_true(errno == EPERM || errno == ECONNREFUSED);
    close(u);
    servers[1]->state = "ready";
    tell_all();
    for (int i = 0; i < 5; i++)
        assert_int_equal(once(client, VIP, 80, tcp, 3), 1);
    web_done();
}

static void test_dnsrr_and_removed(void **state)
{
    (void)state;
    NEEDS_ROOT();
    int c = -1;
    web();
    stage.services[0].dnsrr = true; /* then the address is nobody's */
    tell_all();
    assert_true(dial(client, VIP, 80, 500, &c) != 0);
    stage.services[0].dnsrr = false;
    tell_all();
    (void)once(client, VIP, 80, tcp, 3);
    stage.services[0].gone = true;
    tell_all();
    assert_true(dial(client, VIP, 80, 500, &c) != 0);
    web_done();
}

/* A sandbox sees the services of its own networks only. */
static void test_other_network(void **state)
{
    (void)state;
    NEEDS_ROOT();
    int c = -1;
    web();
    stage.nets[stage.nnets++] = &n2;
    struct stage_task *stranger = add("stranger", "", 0, &n2, "10.0.1.10", NULL);
    struct stage_task *other = add("other", "web2", 1, &n2, "10.0.1.50", NULL);
    service("web2", &n2, "10.0.1.101", NULL);
    tell_all();
    int s = serve(other, SOCK_STREAM, "0.0.0.0", 80), all[4] = { tcp[0], tcp[1], tcp[2], s };
    assert_true(ping(stranger, "10.0.1.50"));
    assert_true(dial(stranger, VIP, 80, 500, &c) != 0);
    assert_true(dial(client, "10.0.1.101", 80, 500, &c) != 0);
    assert_int_equal(once(stranger, "10.0.1.101", 80, all, 4), 3);
    assert_true(once(client, VIP, 80, all, 4) < 3);
    /* on separate networks with one VIP each gets its own */
    snprintf(stage.services[1].vip, sizeof stage.services[1].vip, VIP);
    tell_all();
    for (int i = 0; i < 5; i++) {
        assert_int_equal(once(stranger, VIP, 80, all, 4), 3);
        assert_true(once(client, VIP, 80, all, 4) < 3);
    }
    close(s);
    web_done();
}

/* Established connections go on while their backend drains; new ones go elsewhere; UDP moves at the switch. */
static void test_drain(void **state)
{
    (void)state;
    NEEDS_ROOT();
    int c[30] = { 0 }, s[30] = { 0 }, who[30] = { 0 }, u = -1, first = -1;
    web();
    for (int i = 0; i < 30; i++) {
        assert_int_equal(dial(client, VIP, 80, WAIT_MS, &c[i]), 0);
        who[i] = accept_any(tcp, 3, &s[i]);
        talk(c[i], s[i]);
    }
    while (first != 2) { /* a flow to the one that will go */
        if (u >= 0)
            close(u);
        u = udp_client(client, VIP, 53);
        first = ask(u, udp, 3, WAIT_MS);
        assert_true(first >= 0);
    }
    assert_int_equal(ask(u, udp, 3, WAIT_MS), 2); /* it sticks */
    servers[2]->state = "draining";
    tell_all();
    for (int i = 0; i < 30; i++)
        talk(c[i], s[i]);
    for (int i = 0; i < 30; i++)
        assert_true(once(client, VIP, 80, tcp, 3) != 2);
    int moved = ask(u, udp, 3, WAIT_MS);
    assert_true(moved == 0 || moved == 1);
    close(u);
    /* it is gone without a word: whoever still talks to it hears of it, instead of waiting for minutes */
    away(servers[2]);
    tell_all();
    for (int i = 0; i < 30; i++) {
        if (who[i] != 2) {
            talk(c[i], s[i]);
        } else {
            struct pollfd p = { .fd = c[i], .events = POLLIN };
            assert_int_equal(send(c[i], "x", 1, MSG_NOSIGNAL), 1);
            assert_int_equal(poll(&p, 1, WAIT_MS), 1);
            assert_int_equal(recv(c[i], (char[4]){ 0 }, 4, 0), -1);
            assert_int_equal(errno, ECONNRESET);
        }
        close(c[i]), close(s[i]);
    }
    web_done();
}

/* ---- changes under load ---- */

struct load {
    int epfd, port;
    atomic_bool stop;
    atomic_ulong accepted;
};

static void *accept_all(void *arg)
{
    struct load *l = arg;
    struct epoll_event ev[16];
    while (!atomic_load(&l->stop)) {
        int n = epoll_wait(l->epfd, ev, 16, 50);
        for (int i = 0; i < n; i++) {
            int fd;
            while ((fd = accept4(ev[i].data.fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
                close(fd); /* no RST: it could overtake the client's look at its connect() */
                atomic_fetch_add(&l->accepted, 1);
            }
        }
    }
    return NULL;
}

/* A client that connects as fast as it can, and counts what fails. */
struct caller {
    int ns;
    atomic_bool *stop;
    atomic_ulong done, failed;
    atomic_int first_errno;
};

static void *call(void *arg)
{
    struct caller *c = arg;
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(80) };
    inet_pton(AF_INET, VIP, &to.sin_addr);
    enter(c->ns);
    while (!atomic_load(c->stop)) {
        struct timeval limit = { .tv_sec = 20 };
        struct linger hard = { .l_onoff = 1 };
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        int r = connect(fd, (struct sockaddr *)&to, sizeof to);
        if (r != 0) {
            atomic_fetch_add(&c->failed, 1);
            atomic_store(&c->first_errno, errno);
        }
        atomic_fetch_add(&c->done, 1);
        close(fd);
    }
    return NULL;
}

#define CHANGES 20000    /* on a machine that has the time for it */
#define CHANGES_MS 10000 /* else as many as fit; MICROSWARM_VIP_MS asks for more */
#define CHANGES_MIN 50

static void test_changes_under_load(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct vip *v = &vips[0];
    struct load l = { .epfd = epoll_create1(EPOLL_CLOEXEC) };
    pthread_t server, callers[2];
    const char *more = getenv("MICROSWARM_VIP_MS");
    uint64_t limit_ms = more ? strtoul(more, NULL, 10) : CHANGES_MS;
    unsigned long changes = 0;
    web();
    for (int i = 0; i < 3; i++)
        assert_int_equal(epoll_ctl(l.epfd, EPOLL_CTL_ADD, tcp[i], &(struct epoll_event){ EPOLLIN, { .fd = tcp[i] } }),
                         0);
    struct caller cs[2] = { { .ns = task_ns(client), .stop = &l.stop }, { .ns = task_ns(client), .stop = &l.stop } };
    assert_int_equal(pthread_create(&server, NULL, accept_all, &l), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&callers[i], NULL, call, &cs[i]), 0);
    /* the map is changed in place: what is measured is the kernel's side */
    struct netmap_network *net = netmap_network(&stage.hosts[0].map, str_from("net1"));
    struct netmap_endpoint *ep[3];
    for (int i = 0; i < 3; i++)
        ep[i] = netmap_endpoint(net, str_from(servers[i]->id));
    enter(stage.hosts[0].ns);
    struct netmap_change c = { .kind = NETMAP_SERVICE, .network = "net1", .id = "web" };
    uint64_t start = clock_mono().ms, transactions = v->transactions;
    while (clock_mono().ms - start < limit_ms && (more || changes < CHANGES)) {
        unsigned bits = (unsigned)(changes * 2654435761u >> 7) % 6 + 1; /* 1..6: never nobody */
        for (int i = 0; i < 3; i++)
            ep[i]->state = bits >> i & 1 ? NETMAP_READY : NETMAP_DRAINING;
        vip_change(v, &c);
        v->ngone = 0; /* TCP goes on: there is nothing to forget */
        assert_true(vip_sync(v));
        changes++;
    }
    uint64_t ms = clock_mono().ms - start;
    atomic_store(&l.stop, true);
    for (int i = 0; i < 2; i++)
        pthread_join(callers[i], NULL);
    pthread_join(server, NULL);
    unsigned long done = atomic_load(&cs[0].done) + atomic_load(&cs[1].done);
    unsigned long failed = atomic_load(&cs[0].failed) + atomic_load(&cs[1].failed);
    print_message("%lu changes, %llu transactions in %llu ms; %lu connections, %lu failed (%s)\n", changes,
                  (unsigned long long)(v->transactions - transactions), (unsigned long long)ms, done, failed,
                  failed ? strerror(atomic_load(&cs[0].first_errno)) : "none");
    assert_true(done >= CHANGES_MIN && changes >= CHANGES_MIN);
    assert_int_equal(failed, 0);
    for (int i = 0; i < 2; i++)
        close(cs[i].ns);
    close(l.epfd);
    web_done();
}

/* The order in which a task leaves: nothing new for it, closed connections forgotten, stopped, gone. Over and over,
 * with clients that connect as fast as they can: none of them hits a task that is not there. */
static void test_drain_under_load(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct vip *v = &vips[0];
    struct load l = { .epfd = epoll_create1(EPOLL_CLOEXEC) };
    pthread_t server, callers[2];
    web();
    for (int i = 0; i < 3; i++)
        assert_int_equal(epoll_ctl(l.epfd, EPOLL_CTL_ADD, tcp[i], &(struct epoll_event){ EPOLLIN, { .fd = tcp[i] } }),
                         0);
    struct caller cs[2] = { { .ns = task_ns(client), .stop = &l.stop }, { .ns = task_ns(client), .stop = &l.stop } };
    assert_int_equal(pthread_create(&server, NULL, accept_all, &l), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&callers[i], NULL, call, &cs[i]), 0);
    uint64_t start = clock_mono().ms;
    int rounds = 0;
    while (rounds < 3 || (clock_mono().ms - start < 5000 && rounds < 12)) {
        int i = 1 + rounds++ % 2;
        servers[i]->state = "draining";
        tell_all();
        for (int k = 0; k < 2; k++) /* what was under way is through when the next ones are */
            for (unsigned long before = atomic_load(&cs[k].done); atomic_load(&cs[k].done) < before + 5;)
                (void)poll(NULL, 0, 5);
        v->drain_at_ms = 1;
        assert_int_equal(vip_drain(v, clock_mono().ms), 0);
        while (!vip_flush(v, 8))
            ;
        assert_int_equal(epoll_ctl(l.epfd, EPOLL_CTL_DEL, tcp[i], NULL), 0);
        close(tcp[i]); /* stopped: whoever comes now is refused, or left without an answer */
        servers[i]->state = NULL;
        tell_all();
        (void)poll(NULL, 0, 50);
        tcp[i] = serve(servers[i], SOCK_STREAM, "::", 80); /* another one */
        assert_int_equal(epoll_ctl(l.epfd, EPOLL_CTL_ADD, tcp[i], &(struct epoll_event){ EPOLLIN, { .fd = tcp[i] } }),
                         0);
        servers[i]->state = "ready";
        tell_all();
    }
    atomic_store(&l.stop, true);
    for (int i = 0; i < 2; i++)
        pthread_join(callers[i], NULL);
    pthread_join(server, NULL);
    unsigned long done = atomic_load(&cs[0].done) + atomic_load(&cs[1].done);
    unsigned long failed = atomic_load(&cs[0].failed) + atomic_load(&cs[1].failed);
    print_message("%d backends left and came; %lu connections, %lu failed (%s); %llu forgotten\n", rounds, done, failed,
                  failed ? strerror(atomic_load(&cs[0].first_errno)) : "none", (unsigned long long)v->forgotten);
    assert_int_equal(failed, 0);
    for (int i = 0; i < 2; i++)
        close(cs[i].ns);
    close(l.epfd);
    web_done();
}

/* ---- restarts and interference ---- */

static bool probe_says(struct vip *v, const char *what)
{
    struct buf b = BUF_INIT;
    vip_probe(v, "", &b);
    bool said = strstr(buf_cstr(&b), what) != NULL;
    buf_done(&b);
    return said;
}

/* A restarted meshd changes nothing: not before it knows the map, and not when nothing is different. */
static void test_restart(void **state)
{
    (void)state;
    NEEDS_ROOT();
    web();
    struct stage_host *h = &stage.hosts[0];
    enter(h->ns);
    vip_close(&vips[0]);
    host_close(h);
    (void)once(client, VIP, 80, tcp, 3);
    host_open(h);
    vips_open(h);
    assert_true(vip_sync(&vips[0]) && vip_reconcile(&vips[0]));
    assert_int_equal(vips[0].transactions, 0);
    (void)once(client, VIP, 80, tcp, 3);
    assert_true(host_tell(h));
    assert_int_equal(vips[0].transactions, 0);
    assert_true(probe_says(&vips[0], "\"intact\":true") && !probe_says(&vips[0], "\"intact\":false"));
    servers[0]->state = "draining";
    assert_true(host_tell(h));
    assert_true(vips[0].transactions > 0);
    for (int i = 0; i < 20; i++)
        assert_true(once(client, VIP, 80, tcp, 3) != 0);
    web_done();
}

static void test_interference(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct vip *v = &vips[0];
    web();
    assert_true(vip_reconcile(v));
    assert_int_equal(v->repaired, 0);
    /* rules of the container's own are none of our business */
    assert_true(in_task(client, "nft add table ip mine && nft add chain ip mine c"));
    assert_true(vip_reconcile(v));
    assert_int_equal(v->repaired, 0);
    assert_true(in_task(client, "nft flush ruleset"));
    assert_true(probe_says(v, "\"intact\":false"));
    assert_true(vip_reconcile(v));
    assert_int_equal(v->repaired, 1);
    (void)once(client, VIP, 80, tcp, 3);
    assert_true(in_task(client, "nft delete element ip microswarm slots { " VIP " . 0x00000001 }"));
    assert_true(vip_reconcile(v));
    assert_int_equal(v->repaired, 2);
    assert_true(in_task(client, "nft add element ip microswarm slots { " VIP " . 0x00000077 : 10.0.1.99 }"));
    assert_true(in_task(client, "nft delete element ip6 microswarm vips { " VIP6 " }"));
    assert_true(vip_reconcile(v));
    assert_int_equal(v->repaired, 3);
    assert_true(probe_says(v, "\"differences\":[]"));
    for (int i = 0; i < 20; i++) {
        (void)once(client, VIP, 80, tcp, 3);
        (void)once(client, VIP6, 80, tcp, 3);
    }
    /* somebody has the table's elements when a change comes */
    assert_true(in_task(client, "nft delete table ip microswarm"));
    servers[0]->state = "draining";
    assert_true(host_tell(&stage.hosts[0]));
    for (int i = 0; i < 20; i++)
        assert_true(once(client, VIP, 80, tcp, 3) != 0);
    web_done();
}

static size_t chains_of(const char *task)
{
    struct vip_sandbox *sb = vip_core_get(&vips[0].core, str_from(task));
    assert_non_null(sb);
    return sb->chains.count;
}

/* Chains that nothing is drawn by any more go, but not while something is changing. */
static void test_idle_chains(void **state)
{
    (void)state;
    NEEDS_ROOT();
    struct vip *v = &vips[0];
    web();
    for (int i = 0; i < 30; i++) {
        char id[16], addr[20];
        snprintf(id, sizeof id, "more%d", i);
        snprintf(addr, sizeof addr, "10.0.1.%d", 130 + i);
        struct stage_task *t = task_add(id, "web", 2); /* nobody is there: it is about numbers */
        task_net(t, &n1, addr, NULL);
        assert_true(host_tell(&stage.hosts[0]));
    }
    size_t many = chains_of("client");
    assert_true(many > 30);
    assert_true(vip_reconcile(v));
    assert_int_equal(chains_of("client"), many); /* there were changes since the last look */
    assert_true(vip_reconcile(v));
    assert_true(chains_of("client") < 6);
    assert_true(probe_says(v, "\"intact\":true") && !probe_says(v, "\"intact\":false"));
    for (size_t i = 0; i < stage.ntasks; i++)
        if (strncmp(stage.tasks[i].id, "more", 4) == 0)
            stage.tasks[i].state = NULL;
    assert_true(host_tell(&stage.hosts[0]));
    for (int i = 0; i < 20; i++)
        (void)once(client, VIP, 80, tcp, 3);
    web_done();
}

static void test_dns_redirect(void **state)
{
    (void)state;
    NEEDS_ROOT();
    web();
    int own = serve(client, SOCK_DGRAM, "0.0.0.0", 53); /* the container's own nameserver */
    int u = serve(client, SOCK_DGRAM, "127.0.0.11", VIP_DNS_PORT),
        t = serve(client, SOCK_STREAM, "127.0.0.11", VIP_DNS_PORT);
    int both[2] = { u, own };
    int c = udp_client(client, "127.0.0.11", 53);
    assert_int_equal(ask(c, both, 2, WAIT_MS), 0);
    close(c);
    assert_int_equal(once(client, "127.0.0.11", 53, &t, 1), 0);
    c = udp_client(client, "127.0.0.1", 53);
    assert_int_equal(ask(c, both, 2, WAIT_MS), 1);
    close(c), close(own), close(u), close(t);
    web_done();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(test_spread),       T(test_addresses),          T(test_hairpin),
        T(test_no_backend),   T(test_dnsrr_and_removed),  T(test_other_network),
        T(test_drain),        T(test_changes_under_load), T(test_drain_under_load),
        T(test_restart),      T(test_interference),       T(test_idle_chains),
        T(test_dns_redirect),
    };
    if (getenv("TEST"))
        cmocka_set_test_filter(getenv("TEST"));
    stage_make();
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    stage_unmake();
    return r;
}
