#include "common/daemon/oneway.h"

#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/daemon/inbox.h"
#include "common/daemon/log.h"
#include "common/util/check.h"

#define RECONNECT_MIN_MS 2
#define RECONNECT_MAX_MS 100

/* nng calls on_pipe() on its own threads: the atomics are all that it touches. */
struct oneway {
    struct inbox_item item, link_item; /* a message came; the peer came or went */
    nng_socket sock;
    nng_aio *aio;
    uid_t only;
    oneway_fn *fn;
    oneway_link_fn *link;
    void *arg;
    atomic_int pipe; /* the peer's; 0: none */
    atomic_bool link_posted;
    int up; /* the pipe that the owner knows of */
    bool closed, sock_open;
};

#define OF_LINK(it) ((struct oneway *)((char *)(it)-offsetof(struct oneway, link_item)))

static bool peer_ok(const struct oneway *o, nng_msg *m)
{
    uint64_t uid = (uint64_t)-1;
    if (nng_pipe_get_uint64(nng_msg_get_pipe(m), NNG_OPT_IPC_PEER_UID, &uid) != 0)
        return false; /* it is gone, and so is the proof of who it was */
    return uid == 0 || (o->only != (uid_t)-1 && uid == o->only);
}

static void on_message(struct inbox_item *item)
{
    struct oneway *o = (struct oneway *)item;
    int r = nng_aio_result(o->aio);
    if (r == NNG_ECLOSED || o->closed) {
        o->closed = true;
        return;
    }
    if (r == 0) {
        nng_msg *m = nng_aio_get_msg(o->aio);
        nng_aio_set_msg(o->aio, NULL);
        if (peer_ok(o, m))
            o->fn(o->arg, (struct str){ nng_msg_body(m), nng_msg_len(m) });
        nng_msg_free(m);
    }
    nng_recv_aio(o->sock, o->aio);
}

static void on_link(struct inbox_item *item)
{
    struct oneway *o = OF_LINK(item);
    atomic_store(&o->link_posted, false);
    int now = atomic_load(&o->pipe), before = o->up;
    if (now == before)
        return;
    o->up = now;
    if (o->link && before != 0) /* another peer may have come already: both are told */
        o->link(o->arg, false);
    if (o->link && now != 0)
        o->link(o->arg, true);
}

static void on_aio(void *arg)
{
    inbox_post(&((struct oneway *)arg)->item);
}

static void on_pipe(nng_pipe p, nng_pipe_ev ev, void *arg)
{
    struct oneway *o = arg;
    int id = nng_pipe_id(p);
    if (ev == NNG_PIPE_EV_ADD_POST)
        atomic_store(&o->pipe, id);
    else if (!atomic_compare_exchange_strong(&o->pipe, &id, 0))
        return; /* a second one, that was turned away */
    if (!atomic_exchange(&o->link_posted, true))
        inbox_post(&o->link_item);
}

static int open_pair(struct oneway *o, const char *url, bool listen, struct err *e)
{
    nng_listener l;
    nng_dialer d;
    int r = nng_pair0_open(&o->sock);
    if (r != 0)
        return err_set(e, ERR_INTERNAL, "open socket: %s", nng_strerror(r));
    o->sock_open = true;
    if ((r = nng_socket_set_size(o->sock, NNG_OPT_RECVMAXSZ, ONEWAY_MSG_MAX)) != 0 ||
        (r = nng_socket_set_int(o->sock, NNG_OPT_SENDBUF, ONEWAY_QUEUE)) != 0 ||
        (r = nng_socket_set_int(o->sock, NNG_OPT_RECVBUF, ONEWAY_QUEUE)) != 0 ||
        (r = nng_socket_set_ms(o->sock, NNG_OPT_RECONNMINT, RECONNECT_MIN_MS)) != 0 ||
        (r = nng_socket_set_ms(o->sock, NNG_OPT_RECONNMAXT, RECONNECT_MAX_MS)) != 0 ||
        (r = nng_pipe_notify(o->sock, NNG_PIPE_EV_ADD_POST, on_pipe, o)) != 0 ||
        (r = nng_pipe_notify(o->sock, NNG_PIPE_EV_REM_POST, on_pipe, o)) != 0)
        return err_set(e, ERR_INTERNAL, "set up %s: %s", url, nng_strerror(r));
    if (listen) {
        mode_t old = umask(0007);
        if ((r = nng_listener_create(&l, o->sock, url)) == 0 &&
            (r = nng_listener_set_int(l, NNG_OPT_IPC_PERMISSIONS, 0660)) == 0)
            r = nng_listener_start(l, 0);
        umask(old);
    } else if ((r = nng_dialer_create(&d, o->sock, url)) == 0) {
        r = nng_dialer_start(d, NNG_FLAG_NONBLOCK);
    }
    return r != 0 ? err_set(e, ERR_IO, "%s %s: %s", listen ? "listen on" : "dial", url, nng_strerror(r)) : 0;
}

static int oneway_open(struct oneway **ret, sd_event *loop, const char *run_dir, const char *name, uid_t only,
                       oneway_fn *fn, oneway_link_fn *link, void *arg, bool listen, struct err *e)
{
    char url[256];
    if (snprintf(url, sizeof url, "ipc://%s/%s", run_dir, name) >= (int)sizeof url)
        return err_set(e, ERR_INVALID, "run folder: name too long");
    int r = inbox_ref(loop, e);
    if (r < 0)
        return r;
    struct oneway *o = calloc(1, sizeof *o);
    CHECK(o != NULL);
    *o = (struct oneway){ .only = only, .fn = fn, .link = link, .arg = arg };
    o->item.fn = on_message;
    o->link_item.fn = on_link;
    CHECK(nng_aio_alloc(&o->aio, on_aio, o) == 0);
    r = open_pair(o, url, listen, e);
    if (r < 0) {
        oneway_free(o);
        return r;
    }
    nng_recv_aio(o->sock, o->aio);
    *ret = o;
    return 0;
}

int oneway_listen(struct oneway **ret, sd_event *loop, const char *run_dir, const char *name, uid_t only, oneway_fn *fn,
                  oneway_link_fn *link, void *arg, struct err *e)
{
    return oneway_open(ret, loop, run_dir, name, only, fn, link, arg, true, e);
}

int oneway_dial(struct oneway **ret, sd_event *loop, const char *run_dir, const char *name, uid_t only, oneway_fn *fn,
                oneway_link_fn *link, void *arg, struct err *e)
{
    return oneway_open(ret, loop, run_dir, name, only, fn, link, arg, false, e);
}

bool oneway_send(struct oneway *o, struct str head, struct str body)
{
    nng_msg *m;
    if (o->up == 0 || head.n + body.n > ONEWAY_MSG_MAX || nng_msg_alloc(&m, 0) != 0)
        return false;
    if (nng_msg_reserve(m, head.n + body.n) == 0 && nng_msg_append(m, head.p, head.n) == 0 &&
        (body.n == 0 || nng_msg_append(m, body.p, body.n) == 0) && nng_sendmsg(o->sock, m, NNG_FLAG_NONBLOCK) == 0)
        return true;
    nng_msg_free(m);
    return false;
}

struct oneway *oneway_free(struct oneway *o)
{
    if (!o)
        return NULL;
    if (o->sock_open)
        nng_close(o->sock);
    nng_aio_stop(o->aio); /* its callback has run when this returns */
    inbox_forget(&o->item);
    inbox_forget(&o->link_item);
    if (nng_aio_result(o->aio) == 0 && nng_aio_get_msg(o->aio))
        nng_msg_free(nng_aio_get_msg(o->aio));
    nng_aio_free(o->aio);
    inbox_unref();
    free(o);
    return NULL;
}
