#include "raftd/pub.h"

#include <nng/nng.h>
#include <nng/protocol/pubsub0/pub.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define EVENTS_QUEUE 4096 /* messages per listener; memory is taken when one connects */

struct pub {
    nng_socket wake, events;
    bool wake_open, events_open;
    atomic_int listeners; /* of events; counted on nng's threads */
};

DEFINE_CLEANUP(struct pub *, pub_close)

static void on_pipe(nng_pipe pipe, nng_pipe_ev ev, void *arg)
{
    struct pub *p = arg;
    (void)pipe;
    atomic_fetch_add(&p->listeners, ev == NNG_PIPE_EV_ADD_POST ? 1 : -1);
}

static int listen_on(nng_socket s, const char *run_dir, const char *name, struct err *e)
{
    char url[512];
    nng_listener l;
    if ((size_t)snprintf(url, sizeof url, "ipc://%s/%s", run_dir, name) >= sizeof url)
        return err_set(e, ERR_INVALID, "run folder: path is too long");
    int r = nng_listener_create(&l, s, url);
    if (r == 0)
        r = nng_listener_set_int(l, NNG_OPT_IPC_PERMISSIONS, 0660);
    if (r == 0)
        r = nng_listener_set_size(l, NNG_OPT_RECVMAXSZ, 4096);
    if (r == 0) {
        mode_t old = umask(0007);
        r = nng_listener_start(l, 0);
        umask(old);
    }
    return r == 0 ? 0 : err_set(e, ERR_IO, "listen on %s: %s", url, nng_strerror(r));
}

int pub_open(struct pub **ret, const char *run_dir, struct err *e)
{
    _cleanup_(pub_closep) struct pub *p = calloc(1, sizeof *p);
    if (p == NULL)
        return err_set(e, ERR_NOMEM, "publish: out of memory");
    int r = nng_pub0_open(&p->wake);
    p->wake_open = r == 0;
    if (r == 0) {
        r = nng_pub0_open(&p->events);
        p->events_open = r == 0;
    }
    if (r != 0)
        return err_set(e, ERR_IO, "publish: %s", nng_strerror(r));
    (void)nng_socket_set_int(p->wake, NNG_OPT_SENDBUF, 2);
    (void)nng_socket_set_int(p->events, NNG_OPT_SENDBUF, EVENTS_QUEUE);
    if ((r = nng_pipe_notify(p->events, NNG_PIPE_EV_ADD_POST, on_pipe, p)) != 0 ||
        (r = nng_pipe_notify(p->events, NNG_PIPE_EV_REM_POST, on_pipe, p)) != 0)
        return err_set(e, ERR_IO, "publish: %s", nng_strerror(r));
    r = listen_on(p->wake, run_dir, STORE_WAKE_SOCKET, e);
    if (r == 0)
        r = listen_on(p->events, run_dir, "raftd.events", e);
    if (r < 0)
        return r;
    *ret = TAKE(p);
    return 0;
}

struct pub *pub_close(struct pub *p)
{
    if (p == NULL)
        return NULL;
    if (p->events_open)
        nng_close(p->events);
    if (p->wake_open)
        nng_close(p->wake);
    free(p);
    return NULL;
}

/* Never blocks: a full queue drops. */
static void send_text(nng_socket s, const char *p, size_t n)
{
    (void)nng_send(s, (void *)p, n, NNG_FLAG_NONBLOCK);
}

void pub_wake(struct pub *p, uint64_t revision)
{
    char text[48];
    int n = snprintf(text, sizeof text, "revision %llu", (unsigned long long)revision);
    send_text(p->wake, text, (size_t)n);
}

void pub_event(struct pub *p, enum kind kind, struct str id, char op, uint64_t revision)
{
    struct buf b = BUF_INIT;
    if (atomic_load(&p->listeners) <= 0)
        return;
    buf_printf(&b, "{\"kind\":\"%s\",\"id\":", kind_info[kind].name);
    buf_json_str(&b, id);
    buf_printf(&b, ",\"op\":\"%s\",\"revision\":%llu}\n",
               op == 'c'   ? "create"
               : op == 'd' ? "delete"
                           : "update",
               (unsigned long long)revision);
    if (!b.failed)
        send_text(p->events, b.p, b.n);
    buf_done(&b);
}

void pub_role(struct pub *p, const char *role, uint64_t term)
{
    char text[96];
    if (atomic_load(&p->listeners) <= 0)
        return;
    int n = snprintf(text, sizeof text, "{\"role\":\"%s\",\"term\":%llu}\n", role, (unsigned long long)term);
    send_text(p->events, text, (size_t)n);
}
