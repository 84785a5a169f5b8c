/* Requests over a real nng socket, server and client on one loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/daemon/daemon.h"
#include "common/daemon/oneway.h"
#include "common/daemon/probe.h"
#include "common/proto/msg_raftd.h"

static char dir[] = "/tmp/rpc_test.XXXXXX";
static sd_event *loop;
static struct rpc_call *held[300];
static int nheld;

static void on_txn(struct rpc_call *c, const void *req)
{
    const struct raftd_txn *t = req;
    if (t->Term == 13) {
        rpc_fail(c, ERR_CONFLICT, "term %d is unlucky", 13);
        return;
    }
    assert_int_equal(rpc_peer_uid(c), getuid());
    assert_int_equal(rpc_peer_pid(c), getpid());
    rpc_reply(c, &(struct raftd_txn_reply){ .Revision = t->Term + t->Changes.n });
}

static void on_barrier(struct rpc_call *c, const void *req)
{
    (void)req;
    held[nheld++] = c; /* a long poll: answered later */
}

static const struct route routes[] = { { &op_raftd_txn, on_txn }, { &op_raftd_barrier, on_barrier }, { 0 } };

struct outcome {
    int done, code;
    uint64_t revision;
    char msg[200];
};

static void on_done(void *arg, const void *rep, const struct err *e)
{
    struct outcome *o = arg;
    o->done++;
    o->code = e->code;
    snprintf(o->msg, sizeof o->msg, "%s", e->msg);
    if (rep)
        o->revision = ((const struct raftd_txn_reply *)rep)->Revision;
}

/* Runs the loop until *flag reaches n; fails the test after 10 s without an event. */
static void run_until(const int *flag, int n)
{
    while (*flag < n)
        assert_true(sd_event_run(loop, 10000000) > 0);
}

static int setup(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_true(sd_event_new(&loop) >= 0);
    return 0;
}

static int teardown(void **state)
{
    char cmd[100];
    (void)state;
    sd_event_unref(loop);
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    return system(cmd);
}

static struct rpc_server *serve(unsigned max_calls)
{
    struct err e = ERR_INIT;
    struct rpc_server *s = NULL;
    nheld = 0;
    assert_int_equal(rpc_server_open(&s, loop, dir, "raftd", routes, max_calls, &e), 0);
    return s;
}

static struct rpc_client *dial(void)
{
    struct err e = ERR_INIT;
    struct rpc_client *c = NULL;
    assert_int_equal(rpc_client_open(&c, loop, dir, "raftd", &e), 0);
    return c;
}

static void answers_and_errors_come_back(void **state)
{
    (void)state;
    struct rpc_server *s = serve(4);
    struct rpc_client *c = dial();
    struct outcome ok = { 0 }, bad = { 0 };
    struct txn_change ch = { .Op = STR("delete"), .Kind = STR("task"), .ID = STR("t1") };
    rpc_send(c, &op_raftd_txn, &(struct raftd_txn){ .Term = 7, .Changes = { &ch, 1 } }, 5000, on_done, &ok);
    rpc_send(c, &op_raftd_txn, &(struct raftd_txn){ .Term = 13 }, 5000, on_done, &bad);
    run_until(&ok.done, 1);
    run_until(&bad.done, 1);
    assert_int_equal(ok.code, 0);
    assert_int_equal(ok.revision, 8);
    assert_int_equal(bad.code, ERR_CONFLICT);
    assert_string_equal(bad.msg, "term 13 is unlucky");
    rpc_client_free(c);
    rpc_server_free(s);
}

/* What gatewayd does: pass on what is for another node, and speak for it to a daemon. */
static struct rpc_client *relay_to;
static char relayed_to[64], relayed_svc[32];

static void on_relayed(void *arg, int code, struct str msg, struct str body)
{
    rpc_reply_raw(arg, code, msg, body);
}

static void relay(struct rpc_call *c, const struct rpc_request *rq)
{
    const struct rpc_origin o = { RPC_WORKER, STR("node1"), rq->svc, STR("10.0.0.9") };
    str_copy(relayed_to, sizeof relayed_to, rq->to);
    str_copy(relayed_svc, sizeof relayed_svc, rq->svc);
    rpc_send_raw(relay_to, rq->op, rq->body, &o, (unsigned)rq->ttl, on_relayed, c);
}

static void on_reset(struct rpc_call *c, const void *req)
{
    (void)req;
    struct rpc_origin o = rpc_origin(c);
    if (o.role == RPC_LOCAL) {
        rpc_fail(c, ERR_DENIED, "local");
        return;
    }
    assert_int_equal(o.role, RPC_WORKER);
    assert_true(str_is(o.node, "node1"));
    assert_true(str_is(o.addr, "10.0.0.9"));
    if (rpc_permit(c, 4711, "agentd")) /* by the name that gatewayd vouches for, not by its user */
        rpc_fail(c, ERR_GONE, "from " STR_FMT, STR_ARG(o.svc));
}

static void requests_go_to_other_nodes_through_the_gateway(void **state)
{
    static const struct route far_routes[] = { { &op_raftd_reset, on_reset }, { 0 } };
    struct rpc_server *gate = NULL, *far = NULL;
    struct rpc_client *c = NULL;
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(rpc_server_open(&gate, loop, dir, "gatewayd", routes, 4, &e), 0);
    assert_int_equal(rpc_server_open(&far, loop, dir, "far", far_routes, 4, &e), 0);
    assert_int_equal(rpc_client_open(&relay_to, loop, dir, "far", &e), 0);
    assert_int_equal(rpc_client_open(&c, loop, dir, "gatewayd", &e), 0);
    struct outcome none = { 0 }, unknown = { 0 }, ok = { 0 }, stranger = { 0 }, local = { 0 };
    rpc_send_via(c, STR("node2"), "far", &op_raftd_reset, &(struct raftd_empty){ 0 }, 5000, on_done, &none);
    run_until(&none.done, 1);
    assert_int_equal(none.code, ERR_INVALID); /* not a gateway */
    rpc_server_relay(gate, relay);
    rpc_send_via(c, STR("node2"), "agentd", &op_raftd_reset, &(struct raftd_empty){ 0 }, 5000, on_done, &unknown);
    run_until(&unknown.done, 1);
    assert_int_equal(unknown.code, ERR_DENIED); /* nobody may speak for other nodes yet */
    rpc_server_gateway(far, getuid());
    rpc_send_via(c, STR("node2"), "agentd", &op_raftd_reset, &(struct raftd_empty){ 0 }, 5000, on_done, &ok);
    rpc_send_via(c, STR("node2"), "apid", &op_raftd_reset, &(struct raftd_empty){ 0 }, 5000, on_done, &stranger);
    rpc_send(relay_to, &op_raftd_reset, &(struct raftd_empty){ 0 }, 5000, on_done, &local);
    run_until(&ok.done, 1);
    run_until(&stranger.done, 1);
    run_until(&local.done, 1);
    assert_int_equal(ok.code, ERR_GONE);
    assert_string_equal(ok.msg, "from agentd");
    assert_string_equal(relayed_to, "node2");
    assert_int_equal(stranger.code, ERR_DENIED);
    assert_string_equal(local.msg, "local");
    rpc_client_free(c);
    rpc_client_free(relay_to);
    rpc_server_free(gate);
    rpc_server_free(far);
}

static uid_t nobody_we_run_as(const char *daemon)
{
    (void)daemon;
    return 4711;
}

/* Another user's process: listens in raftd's name, shakes hands as nng's REP does, and goes when @end closes. */
static void pose_as_raftd(int up, int end)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    struct pollfd p[2] = { { .fd = end, .events = POLLIN } };
    snprintf(sa.sun_path, sizeof sa.sun_path, "%s/raftd.sock", dir);
    p[1].fd = socket(AF_UNIX, SOCK_STREAM, 0);
    p[1].events = POLLIN;
    bool listens = setgid(60001) == 0 && setuid(60001) == 0 && bind(p[1].fd, (struct sockaddr *)&sa, sizeof sa) == 0 &&
                   listen(p[1].fd, 5) == 0;
    if (write(up, listens ? "y" : "n", 1) != 1)
        _exit(1);
    while (poll(p, 2, -1) > 0 && p[0].revents == 0) {
        int fd = accept(p[1].fd, NULL, NULL);
        if (write(fd, "\0SP\0\0\x31\0\0", 8) != 8)
            _exit(1);
    }
    _exit(0);
}

static void whoever_is_not_the_daemon_gets_no_request(void **state)
{
    struct outcome o = { 0 }, ok = { 0 };
    int up[2], end[2];
    char c;
    (void)state;
    if (getuid() != 0)
        skip();
    assert_int_equal(pipe(up), 0);
    assert_int_equal(pipe(end), 0);
    assert_int_equal(chmod(dir, 0777), 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(end[1]);
        pose_as_raftd(up[1], end[0]);
    }
    close(end[0]);
    assert_int_equal(read(up[0], &c, 1), 1);
    assert_int_equal(c, 'y');
    rpc_client_users(nobody_we_run_as);
    struct rpc_client *cl = dial();
    rpc_send(cl, &op_raftd_txn, &(struct raftd_txn){ .Term = 1 }, 200, on_done, &o);
    run_until(&o.done, 1);
    assert_int_equal(o.code, ERR_UNAVAILABLE);
    assert_string_equal(o.msg, "raftd does not answer: another user's process listens in its place");
    close(end[1]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    char path[100];
    snprintf(path, sizeof path, "%s/raftd.sock", dir);
    unlink(path);
    struct rpc_server *s = serve(4);
    rpc_send(cl, &op_raftd_txn, &(struct raftd_txn){ .Term = 1 }, 5000, on_done, &ok);
    run_until(&ok.done, 1);
    assert_int_equal(ok.code, 0);
    rpc_client_users(NULL);
    rpc_client_free(cl);
    rpc_server_free(s);
}

struct mailbox {
    int got, ups;
    bool up;
    char last[32];
};

static void on_mail(void *arg, struct str msg)
{
    struct mailbox *m = arg;
    m->got++;
    str_copy(m->last, sizeof m->last, msg);
}

static void on_mail_link(void *arg, bool up)
{
    struct mailbox *m = arg;
    m->up = up;
    m->ups++;
}

static void datagrams_go_both_ways_until_the_peer_goes(void **state)
{
    struct oneway *a = NULL, *b = NULL;
    struct mailbox at_a = { 0 }, at_b = { 0 };
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(oneway_listen(&a, loop, dir, "x.peers", getuid(), on_mail, on_mail_link, &at_a, &e), 0);
    assert_false(oneway_send(a, STR("nobody"), STR("")));
    assert_int_equal(oneway_dial(&b, loop, dir, "x.peers", getuid(), on_mail, on_mail_link, &at_b, &e), 0);
    run_until(&at_a.ups, 1);
    run_until(&at_b.ups, 1);
    for (int i = 0; i < 100; i++)
        assert_true(oneway_send(b, STR("he"), STR("llo")));
    assert_true(oneway_send(a, STR("back"), STR("")));
    run_until(&at_a.got, 100);
    run_until(&at_b.got, 1);
    assert_string_equal(at_a.last, "hello");
    assert_string_equal(at_b.last, "back");
    b = oneway_free(b);
    run_until(&at_a.ups, 2);
    assert_false(at_a.up);
    assert_false(oneway_send(a, STR("gone"), STR("")));
    assert_int_equal(oneway_dial(&b, loop, dir, "x.peers", getuid(), on_mail, on_mail_link, &at_b, &e), 0);
    run_until(&at_a.ups, 3);
    assert_true(oneway_send(a, STR("again"), STR("")));
    run_until(&at_b.got, 2);
    oneway_free(a);
    oneway_free(b);
}

static void a_pair_of_nngs_own_talks_with_ours(void **state)
{
    struct oneway *a = NULL;
    struct mailbox at_a = { 0 };
    struct err e = ERR_INIT;
    char url[100], in[32];
    size_t n = sizeof in;
    nng_socket s;
    (void)state;
    snprintf(url, sizeof url, "ipc://%s/y.peers", dir);
    assert_int_equal(oneway_listen(&a, loop, dir, "y.peers", getuid(), on_mail, on_mail_link, &at_a, &e), 0);
    assert_int_equal(nng_pair0_open(&s), 0);
    assert_int_equal(nng_dial(s, url, NULL, NNG_FLAG_NONBLOCK), 0);
    run_until(&at_a.ups, 1);
    assert_int_equal(nng_send(s, (void *)(uintptr_t) "from nng", 8, 0), 0);
    run_until(&at_a.got, 1);
    assert_string_equal(at_a.last, "from nng");
    assert_true(oneway_send(a, STR("to "), STR("nng")));
    assert_int_equal(nng_recv(s, in, &n, 0), 0);
    assert_int_equal(n, 6);
    assert_memory_equal(in, "to nng", 6);
    nng_close(s);
    run_until(&at_a.ups, 2);
    oneway_free(a);
}

/* Garbage instead of the greeting, and after it: the link is closed, and the next peer is welcome. */
static void a_peer_that_is_no_pair_is_shown_out(void **state)
{
    static const char *const said[] = { "GET / HTTP/1.1\r\n\r\n", "\0SP\0\0\x30\0\0", "\0SP\0\0\x10\0\0\2rubbish.." };
    struct oneway *a = NULL;
    struct mailbox at_a = { 0 };
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(oneway_listen(&a, loop, dir, "z.peers", getuid(), on_mail, on_mail_link, &at_a, &e), 0);
    for (int i = 0; i < 3; i++) {
        struct sockaddr_un sa = { .sun_family = AF_UNIX };
        char in[64];
        size_t n = i == 0 ? strlen(said[0]) : i == 1 ? 8 : 18;
        snprintf(sa.sun_path, sizeof sa.sun_path, "%s/z.peers", dir);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
        assert_int_equal(send(fd, said[i], n, 0), n);
        ssize_t got;
        while ((got = recv(fd, in, sizeof in, MSG_DONTWAIT)) != 0 && (got > 0 || errno == EAGAIN))
            assert_true(sd_event_run(loop, 10000000) > 0);
        close(fd);
    }
    assert_int_equal(at_a.got, 0);
    assert_false(at_a.up);
    oneway_free(a);
}

static void bad_fields_are_named(void **state)
{
    (void)state;
    struct rpc_server *s = serve(4);
    struct rpc_client *c = dial();
    struct outcome o = { 0 };
    struct txn_change ch = { .Op = STR("delete"), .Kind = STR("task") };
    rpc_send(c, &op_raftd_txn, &(struct raftd_txn){ .Changes = { &ch, 1 } }, 5000, on_done, &o);
    run_until(&o.done, 1);
    assert_int_equal(o.code, ERR_INVALID);
    assert_non_null(strstr(o.msg, "Changes[0].ID: must have between 1 and 256 bytes"));
    rpc_client_free(c);
    rpc_server_free(s);
}

static void unknown_operations_are_refused(void **state)
{
    (void)state;
    struct rpc_server *s = serve(4);
    struct rpc_client *c = dial();
    struct outcome o = { 0 };
    rpc_send(c, &op_raftd_reset, &(struct raftd_empty){ 0 }, 5000, on_done, &o);
    run_until(&o.done, 1);
    assert_int_equal(o.code, ERR_UNIMPLEMENTED);
    rpc_client_free(c);
    rpc_server_free(s);
}

static void a_server_that_is_not_there_is_unavailable(void **state)
{
    (void)state;
    struct rpc_client *c = dial();
    struct outcome o = { 0 };
    rpc_send(c, &op_raftd_barrier, &(struct raftd_empty){ 0 }, 50, on_done, &o);
    run_until(&o.done, 1);
    assert_int_equal(o.code, ERR_UNAVAILABLE);
    rpc_client_free(c);
}

static void a_request_waits_for_its_server_to_come_up(void **state)
{
    (void)state;
    struct rpc_client *c = dial();
    struct outcome o = { 0 };
    rpc_send(c, &op_raftd_txn, &(struct raftd_txn){ .Term = 1 }, 10000, on_done, &o);
    struct rpc_server *s = serve(4);
    run_until(&o.done, 1);
    assert_int_equal(o.code, 0);
    rpc_client_free(c);
    rpc_server_free(s);
}

static void no_answer_in_time_is_a_timeout(void **state)
{
    (void)state;
    struct rpc_server *s = serve(4);
    struct rpc_client *c = dial();
    struct outcome o = { 0 };
    rpc_send(c, &op_raftd_barrier, &(struct raftd_empty){ 0 }, 100, on_done, &o);
    run_until(&o.done, 1);
    assert_int_equal(o.code, ERR_TIMEOUT);
    assert_int_equal(nheld, 1);
    rpc_client_free(c); /* before the late reply: one that arrives while nng closes may keep it from ever ending */
    rpc_reply(held[0], &(struct raftd_txn_reply){ 0 }); /* to nobody */
    rpc_server_free(s);
}

static void a_lost_connection_ends_the_request_without_resending(void **state)
{
    (void)state;
    struct rpc_server *s = serve(4);
    struct rpc_client *c = dial();
    struct outcome o = { 0 };
    rpc_send(c, &op_raftd_barrier, &(struct raftd_empty){ 0 }, 10000, on_done, &o);
    run_until(&nheld, 1);
    rpc_server_free(s);
    s = serve(4);
    run_until(&o.done, 1);
    assert_int_equal(o.code, ERR_TIMEOUT);
    assert_non_null(strstr(o.msg, "unknown"));
    assert_int_equal(nheld, 0);
    struct outcome again = { 0 };
    rpc_send(c, &op_raftd_txn, &(struct raftd_txn){ .Term = 2 }, 10000, on_done, &again);
    run_until(&again.done, 1);
    assert_int_equal(again.code, 0);
    rpc_client_free(c);
    rpc_server_free(s);
}

static void many_calls_are_in_flight_at_once(void **state)
{
    (void)state;
    struct rpc_server *s = serve(256);
    struct rpc_client *c = dial();
    struct outcome o = { 0 };
    for (int i = 0; i < 200; i++)
        rpc_send(c, &op_raftd_barrier, &(struct raftd_empty){ 0 }, 10000, on_done, &o);
    run_until(&nheld, 200);
    for (int i = 199; i >= 0; i--)
        rpc_reply(held[i], &(struct raftd_txn_reply){ .Revision = 5 });
    run_until(&o.done, 200);
    assert_int_equal(o.code, 0);
    rpc_client_free(c);
    rpc_server_free(s);
}

static void more_calls_than_slots_wait(void **state)
{
    (void)state;
    struct rpc_server *s = serve(2);
    struct rpc_client *c = dial();
    struct outcome o = { 0 };
    for (int i = 0; i < 20; i++)
        rpc_send(c, &op_raftd_barrier, &(struct raftd_empty){ 0 }, 10000, on_done, &o);
    for (int answered = 0; answered < 20; answered++) {
        run_until(&nheld, answered + 1);
        assert_true(nheld - answered <= 2);
        rpc_reply(held[answered], &(struct raftd_txn_reply){ 0 });
    }
    run_until(&o.done, 20);
    rpc_client_free(c);
    rpc_server_free(s);
}

static void a_client_may_go_with_requests_in_flight(void **state)
{
    (void)state;
    struct rpc_server *s = serve(4);
    struct rpc_client *c = dial();
    struct outcome o = { 0 };
    rpc_send(c, &op_raftd_barrier, &(struct raftd_empty){ 0 }, 10000, on_done, &o);
    run_until(&nheld, 1);
    rpc_client_free(c);
    assert_int_equal(o.done, 0);
    rpc_server_free(s);
}

/* Two slots, so that twenty requests can only be there together when they came together. */
static void requests_that_share_a_message(void **state)
{
    (void)state;
    struct rpc_server *s = serve(2);
    struct rpc_client *c = dial();
    struct outcome o[20] = { 0 };
    rpc_client_share(c, &op_raftd_barrier);
    for (int i = 0; i < 20; i++)
        rpc_send(c, &op_raftd_barrier, &(struct raftd_empty){ 0 }, 10000, on_done, &o[i]);
    run_until(&nheld, 20);
    for (int i = 19; i >= 0; i--) {
        assert_int_equal(o[i].done, 0);
        rpc_reply(held[i], &(struct raftd_txn_reply){ .Revision = (uint64_t)i });
    }
    run_until(&o[19].done, 1);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(o[i].done, 1);
        assert_int_equal(o[i].code, 0);
        assert_int_equal(o[i].revision, i);
    }
    rpc_client_free(c);
    rpc_server_free(s);
}

static void each_of_a_batch_has_its_own_outcome(void **state)
{
    (void)state;
    struct rpc_server *s = serve(2);
    struct rpc_client *c = dial();
    struct outcome ok = { 0 }, bad = { 0 }, fields = { 0 }, last = { 0 };
    struct txn_change ch = { .Op = STR("delete"), .Kind = STR("task"), .ID = STR("t1") },
                      no_id = { .Op = STR("delete"), .Kind = STR("task") };
    rpc_client_share(c, &op_raftd_txn);
    rpc_send(c, &op_raftd_txn, &(struct raftd_txn){ .Term = 7, .Changes = { &ch, 1 } }, 5000, on_done, &ok);
    rpc_send(c, &op_raftd_txn, &(struct raftd_txn){ .Term = 13 }, 5000, on_done, &bad);
    rpc_send(c, &op_raftd_txn, &(struct raftd_txn){ .Changes = { &no_id, 1 } }, 5000, on_done, &fields);
    rpc_send(c, &op_raftd_txn, &(struct raftd_txn){ .Term = 9 }, 5000, on_done, &last);
    run_until(&last.done, 1);
    assert_int_equal(ok.code, 0);
    assert_int_equal(ok.revision, 8);
    assert_int_equal(bad.code, ERR_CONFLICT);
    assert_string_equal(bad.msg, "term 13 is unlucky");
    assert_int_equal(fields.code, ERR_INVALID);
    assert_non_null(strstr(fields.msg, "Changes[0].ID: must have between 1 and 256 bytes"));
    assert_int_equal(last.revision, 9);
    rpc_client_free(c);
    rpc_server_free(s);
}

/* What follows one that waits does not wait for it; what is large goes alone; more than fits a message goes in two. */
static void a_batch_is_bounded(void **state)
{
    (void)state;
    static char big[100000];
    struct rpc_server *s = serve(8);
    struct rpc_client *c = dial();
    struct outcome o = { 0 }, first = { 0 };
    struct txn_change ch = { .Op = STR("create"), .Kind = STR("task"), .ID = STR("t1") };
    struct buf doc = BUF_INIT;
    mp_str(&doc, (struct str){ big, sizeof big });
    ch.Doc = buf_str(&doc);
    rpc_client_share(c, &op_raftd_barrier);
    for (int i = 0; i < 3; i++) {
        rpc_send(c, &op_raftd_barrier, &(struct raftd_empty){ 0 }, 10000, on_done, &first);
        run_until(&nheld, i + 1);
    }
    for (int i = 0; i < 3; i++)
        rpc_reply(held[i], &(struct raftd_txn_reply){ 0 });
    run_until(&first.done, 3);
    assert_int_equal(first.code, 0);
    rpc_client_share(c, &op_raftd_txn);
    for (int i = 0; i < 600; i++)
        rpc_send(c, &op_raftd_txn, &(struct raftd_txn){ .Term = 1, .Changes = { &ch, i % 100 == 50 } }, 10000, on_done,
                 &o);
    run_until(&o.done, 600);
    assert_int_equal(o.code, 0);
    buf_done(&doc);
    rpc_client_free(c);
    rpc_server_free(s);
}

static struct rpc_client *doomed;

static void on_done_free(void *arg, const void *rep, const struct err *e)
{
    on_done(arg, rep, e);
    doomed = rpc_client_free(doomed);
}

static void a_client_may_go_in_the_middle_of_a_batch(void **state)
{
    (void)state;
    struct rpc_server *s = serve(4);
    struct outcome one = { 0 }, other = { 0 };
    doomed = dial();
    rpc_client_share(doomed, &op_raftd_txn);
    rpc_send(doomed, &op_raftd_txn, &(struct raftd_txn){ .Term = 1 }, 5000, on_done, &one);
    rpc_send(doomed, &op_raftd_txn, &(struct raftd_txn){ .Term = 1 }, 5000, on_done_free, &one);
    rpc_send(doomed, &op_raftd_txn, &(struct raftd_txn){ .Term = 1 }, 5000, on_done, &other);
    run_until(&one.done, 2);
    assert_null(doomed);
    assert_int_equal(other.done, 0);
    /* and with a batch under way and one that waits */
    doomed = dial();
    rpc_client_share(doomed, &op_raftd_barrier);
    for (int i = 0; i < 3; i++)
        rpc_send(doomed, &op_raftd_barrier, &(struct raftd_empty){ 0 }, 5000, on_done, &other);
    run_until(&nheld, 3);
    rpc_send(doomed, &op_raftd_barrier, &(struct raftd_empty){ 0 }, 5000, on_done, &other);
    doomed = rpc_client_free(doomed);
    assert_int_equal(other.done, 0);
    rpc_server_free(s);
}

static void a_batch_without_a_server_is_unavailable(void **state)
{
    (void)state;
    struct rpc_client *c = dial();
    struct outcome o = { 0 };
    rpc_client_share(c, &op_raftd_txn);
    for (int i = 0; i < 3; i++)
        rpc_send(c, &op_raftd_txn, &(struct raftd_txn){ .Term = 1 }, 50, on_done, &o);
    run_until(&o.done, 3);
    assert_int_equal(o.code, ERR_UNAVAILABLE);
    struct rpc_server *s = serve(4);
    rpc_client_share(c, &op_raftd_barrier);
    for (int i = 0; i < 2; i++)
        rpc_send(c, &op_raftd_barrier, &(struct raftd_empty){ 0 }, 10000, on_done, &o);
    run_until(&nheld, 2);
    rpc_server_free(s);
    run_until(&o.done, 5);
    assert_int_equal(o.code, ERR_TIMEOUT); /* sent: nobody knows */
    rpc_client_free(c);
}

static void *call_sync(void *arg)
{
    struct outcome *o = arg;
    struct err e = ERR_INIT;
    struct arena a;
    struct raftd_txn_reply rep;
    arena_init(&a, 1 << 20);
    o->code = -rpc_call_sync(dir, "raftd", &op_raftd_barrier, &(struct raftd_empty){ 0 }, 10000, &rep, &a, &e);
    o->revision = rep.Revision;
    arena_done(&a);
    return NULL;
}

static void sync_calls_need_no_loop_of_their_own(void **state)
{
    (void)state;
    struct rpc_server *s = serve(4);
    struct outcome o = { 0 };
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, call_sync, &o), 0);
    run_until(&nheld, 1);
    rpc_reply(held[0], &(struct raftd_txn_reply){ .Revision = 42 });
    pthread_join(t, NULL);
    assert_int_equal(o.code, 0);
    assert_int_equal(o.revision, 42);
    rpc_server_free(s);
}

/* ---- probes ---- */

static void cmd_echo(const char *args, struct buf *out)
{
    buf_json_str(out, str_from(args));
}
static const struct probe probes[] = { { "echo", "<text>", "says it again", cmd_echo }, { 0 } };
static const struct daemon_spec spec = { .name = "testd", .probes = probes };

static void probe_is(const char *line, const char *want)
{
    struct buf out = BUF_INIT;
    probe_answer(&spec, str_from(line), &out);
    assert_string_equal(buf_cstr(&out), want);
    buf_done(&out);
}

static void probes_answer_one_line(void **state)
{
    (void)state;
    probe_is("echo  a b \n", "\"a b\"");
    probe_is("version", "{\"daemon\":\"testd\",\"version\":\"" MICROSWARM_VERSION "\"}");
    probe_is("nonsense", "{\"error\":\"unknown command, try help: \\\"nonsense\\\"\"}");
    probe_is("log loud", "{\"error\":\"log: level must be debug, info, warn or error, not \\\"loud\\\"\"}");
    probe_is("log info", "{\"log\":\"info\"}");
}

/* A peer that asks a lot at once and goes before it has an answer. */
static void ask_and_go(unsigned n)
{
    static const char hello[] = "\0SP\0\0\x30\0", ask[] = "\1\0\0\0\0\0\0\0\x0b\x80\0\0\1version";
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct buf b = BUF_INIT;
    buf_put(&b, hello, 8);
    for (unsigned i = 0; i < n; i++)
        buf_put(&b, ask, sizeof ask - 1);
    snprintf(sa.sun_path, sizeof sa.sun_path, "%s/testd.probe", dir);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(send(fd, b.p, b.n, MSG_NOSIGNAL), (ssize_t)b.n);
    close(fd);
    buf_done(&b);
}

static void a_probe_rests_when_its_peers_have_gone(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct probe_server *p = NULL;
    assert_int_equal(probe_open(&p, loop, dir, &spec, &e), 0);
    for (unsigned i = 0; i < 400; i++) {
        ask_and_go(51);
        if (i % 8 == 7)
            for (unsigned j = 0; j < 100; j++)
                (void)sd_event_run(loop, 0);
    }
    unsigned rounds = 0; /* with nothing left to do, the loop must wait: 300 ms in which nothing happens */
    while (rounds < 100000 && sd_event_run(loop, 300000) > 0)
        rounds++;
    assert_true(rounds < 100000);
    probe_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_and_errors_come_back),
        cmocka_unit_test(requests_go_to_other_nodes_through_the_gateway),
        cmocka_unit_test(whoever_is_not_the_daemon_gets_no_request),
        cmocka_unit_test(datagrams_go_both_ways_until_the_peer_goes),
        cmocka_unit_test(a_pair_of_nngs_own_talks_with_ours),
        cmocka_unit_test(a_peer_that_is_no_pair_is_shown_out),
        cmocka_unit_test(bad_fields_are_named),
        cmocka_unit_test(unknown_operations_are_refused),
        cmocka_unit_test(a_server_that_is_not_there_is_unavailable),
        cmocka_unit_test(a_request_waits_for_its_server_to_come_up),
        cmocka_unit_test(no_answer_in_time_is_a_timeout),
        cmocka_unit_test(a_lost_connection_ends_the_request_without_resending),
        cmocka_unit_test(many_calls_are_in_flight_at_once),
        cmocka_unit_test(more_calls_than_slots_wait),
        cmocka_unit_test(a_client_may_go_with_requests_in_flight),
        cmocka_unit_test(requests_that_share_a_message),
        cmocka_unit_test(each_of_a_batch_has_its_own_outcome),
        cmocka_unit_test(a_batch_is_bounded),
        cmocka_unit_test(a_client_may_go_in_the_middle_of_a_batch),
        cmocka_unit_test(a_batch_without_a_server_is_unavailable),
        cmocka_unit_test(sync_calls_need_no_loop_of_their_own),
        cmocka_unit_test(probes_answer_one_line),
        cmocka_unit_test(a_probe_rests_when_its_peers_have_gone),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
