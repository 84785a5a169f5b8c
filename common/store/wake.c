/*
 * wake.c - wake-ups from raftd: an nng SUB socket in the event loop.
 *
 * PUB may drop, so a message means only "look again", and every new connection counts as one. nng tells of connections
 * on a thread of its own: that callback does nothing but write an eventfd.
 */
#include <errno.h>
#include <nng/nng.h>
#include <nng/protocol/pubsub0/sub.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/store/store.h"

#define RECONNECT_MIN_MS 10
#define RECONNECT_MAX_MS 500
#define SETTLE_USEC 100000u /* the publisher may know of a connection a little later than we do: look once more */

struct store_wake {
    nng_socket sock;
    bool sock_open;
    int event_fd;
    sd_event *loop;
    sd_event_source *on_msg, *on_connect, *on_settled;
    store_wake_fn *fn;
    void *arg;
};

static int wake_on_msg(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
    struct store_wake *w = arg;
    nng_msg *m;
    bool any = false;
    (void)s, (void)fd, (void)revents;
    while (nng_recvmsg(w->sock, &m, NNG_FLAG_NONBLOCK) == 0) {
        nng_msg_free(m);
        any = true;
    }
    if (any)
        w->fn(w->arg);
    return 0;
}

static int wake_on_connect(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
    struct store_wake *w = arg;
    uint64_t n;
    (void)s, (void)revents;
    if (read(fd, &n, sizeof n) != (ssize_t)sizeof n)
        return 0;
    (void)sd_event_source_set_time_relative(w->on_settled, SETTLE_USEC);
    (void)sd_event_source_set_enabled(w->on_settled, SD_EVENT_ONESHOT);
    w->fn(w->arg);
    return 0;
}

static int wake_on_settled(sd_event_source *s, uint64_t usec, void *arg)
{
    struct store_wake *w = arg;
    (void)s, (void)usec;
    w->fn(w->arg);
    return 0;
}

/* On a thread of nng's. */
static void wake_on_pipe(nng_pipe p, nng_pipe_ev ev, void *arg)
{
    struct store_wake *w = arg;
    uint64_t one = 1;
    (void)p, (void)ev;
    if (write(w->event_fd, &one, sizeof one) < 0)
        return; /* EAGAIN only: the counter is full, so the loop will wake anyway */
}

static int nng_failed(int r, struct err *e)
{
    return err_set(e, ERR_UNAVAILABLE, "listen for wake-ups: %s", nng_strerror(r));
}

static int wake_dial(struct store_wake *w, const char *run_dir, int *ret_fd, struct err *e)
{
    char url[512];
    if ((size_t)snprintf(url, sizeof url, "ipc://%s/%s", run_dir, STORE_WAKE_SOCKET) >= sizeof url)
        return err_set(e, ERR_INVALID, "run folder: path is too long");
    int r = nng_sub0_open(&w->sock);
    if (r != 0)
        return nng_failed(r, e);
    w->sock_open = true;
    (void)nng_socket_set_ms(w->sock, NNG_OPT_RECONNMINT, RECONNECT_MIN_MS);
    (void)nng_socket_set_ms(w->sock, NNG_OPT_RECONNMAXT, RECONNECT_MAX_MS);
    (void)nng_socket_set_size(w->sock, NNG_OPT_RECVMAXSZ, 4096);
    if ((r = nng_socket_set(w->sock, NNG_OPT_SUB_SUBSCRIBE, "", 0)) != 0 ||
        (r = nng_pipe_notify(w->sock, NNG_PIPE_EV_ADD_POST, wake_on_pipe, w)) != 0 ||
        (r = nng_socket_get_int(w->sock, NNG_OPT_RECVFD, ret_fd)) != 0 ||
        (r = nng_dial(w->sock, url, NULL, NNG_FLAG_NONBLOCK)) != 0)
        return nng_failed(r, e);
    return 0;
}

static int wake_attach(struct store_wake *w, int fd, struct err *e)
{
    int r = sd_event_add_io(w->loop, &w->on_msg, fd, EPOLLIN, wake_on_msg, w);
    if (r >= 0)
        r = sd_event_add_io(w->loop, &w->on_connect, w->event_fd, EPOLLIN, wake_on_connect, w);
    if (r >= 0)
        r = sd_event_add_time_relative(w->loop, &w->on_settled, CLOCK_MONOTONIC, 0, 1000, wake_on_settled, w);
    if (r >= 0)
        r = sd_event_source_set_enabled(w->on_settled, SD_EVENT_OFF);
    if (r < 0)
        return err_errno(e, -r, "listen for wake-ups");
    return 0;
}

static int wake_start(struct store_wake *w, const char *run_dir, struct err *e)
{
    int fd = -1;
    w->event_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK); /* 1: the first wake comes by itself */
    if (w->event_fd < 0)
        return err_errno(e, errno, "eventfd");
    int r = wake_dial(w, run_dir, &fd, e);
    return r < 0 ? r : wake_attach(w, fd, e);
}

int store_wake_open(struct store_wake **ret, sd_event *loop, const char *run_dir, store_wake_fn *fn, void *arg,
                    struct err *e)
{
    struct store_wake *w = calloc(1, sizeof *w);
    if (w == NULL)
        return err_set(e, ERR_NOMEM, "listen for wake-ups: out of memory");
    w->loop = loop;
    w->fn = fn;
    w->arg = arg;
    int r = wake_start(w, run_dir, e);
    if (r < 0)
        (void)store_wake_free(w);
    else
        *ret = w;
    return r;
}

struct store_wake *store_wake_free(struct store_wake *w)
{
    if (w == NULL)
        return NULL;
    sd_event_source_disable_unref(w->on_msg);
    sd_event_source_disable_unref(w->on_connect);
    sd_event_source_disable_unref(w->on_settled);
    if (w->sock_open)
        nng_close(w->sock); /* returns when no callback runs any more */
    if (w->event_fd >= 0)
        close(w->event_fd);
    free(w);
    return NULL;
}
