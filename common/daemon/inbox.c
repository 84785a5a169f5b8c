#include "common/daemon/inbox.h"

#include <errno.h>
#include <nng/nng.h>
#include <nng/supplemental/util/platform.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/util/check.h"

static struct {
    pthread_mutex_t lock;
    struct inbox_item *head, **tail;
    int fd;
    unsigned refs;
    sd_event_source *source;
} inbox = { .lock = PTHREAD_MUTEX_INITIALIZER, .tail = &inbox.head, .fd = -1 };

static struct inbox_item *take_all(void)
{
    pthread_mutex_lock(&inbox.lock);
    struct inbox_item *list = inbox.head;
    inbox.head = NULL;
    inbox.tail = &inbox.head;
    pthread_mutex_unlock(&inbox.lock);
    return list;
}

/* Items are put back one by one, so that an item's fn may forget a later one. */
static struct inbox_item *take_one(void)
{
    pthread_mutex_lock(&inbox.lock);
    struct inbox_item *item = inbox.head;
    if (item) {
        inbox.head = item->next;
        if (!inbox.head)
            inbox.tail = &inbox.head;
        item->next = NULL;
    }
    pthread_mutex_unlock(&inbox.lock);
    return item;
}

#define BATCH_MAX 256 /* then the loop looks at its other sources */

static int on_event(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
    uint64_t n;
    struct inbox_item *item;
    (void)s;
    (void)revents;
    (void)arg;
    if (read(fd, &n, sizeof n) < 0 && errno != EAGAIN)
        return -errno;
    for (int i = 0; i < BATCH_MAX; i++) {
        item = take_one();
        if (!item)
            return 0;
        item->fn(item);
    }
    n = 1;
    return write(fd, &n, sizeof n) < 0 ? -errno : 0;
}

/*
 * nng 1.5.2 keeps two threads a processor for its callbacks. A message comes in three steps, each of which wakes
 * another of them, although the one that is awake goes on with it; and the woken one meets a lock that is held. That is
 * most of what a message costs. One thread is enough for a daemon, since callbacks only post to the inbox: the others
 * get one that does not return. Should there be fewer threads than we think, one is let go again.
 */
#define PARKED_MAX 15u
#define PARK_WAIT_S 1

static struct {
    nng_aio *aio[PARKED_MAX], *probe;
    sem_t parked, probed, leave;
} park;

static void park_thread(void *arg)
{
    (void)arg;
    sem_post(&park.parked);
    while (sem_wait(&park.leave) < 0)
        CHECK(errno == EINTR);
}

static void park_probe(void *arg)
{
    (void)arg;
    sem_post(&park.probed);
}

static bool park_wait(sem_t *s)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += PARK_WAIT_S;
    while (sem_timedwait(s, &t) < 0)
        if (errno != EINTR)
            return false;
    return true;
}

static void park_threads(void)
{
    long n = 2 * sysconf(_SC_NPROCESSORS_ONLN) - 1;
    if (park.probe != NULL)
        return;
    if (n > (long)PARKED_MAX)
        n = PARKED_MAX;
    CHECK(sem_init(&park.parked, 0, 0) == 0 && sem_init(&park.probed, 0, 0) == 0 && sem_init(&park.leave, 0, 0) == 0);
    CHECK(nng_aio_alloc(&park.probe, park_probe, NULL) == 0);
    for (long i = 0; i < n; i++) {
        CHECK(nng_aio_alloc(&park.aio[i], park_thread, NULL) == 0);
        nng_sleep_aio(0, park.aio[i]);
    }
    for (long i = 0; i < n && park_wait(&park.parked); i++)
        ;
    nng_sleep_aio(0, park.probe);
    while (n-- > 0 && !park_wait(&park.probed))
        sem_post(&park.leave);
}

int inbox_ref(sd_event *loop, struct err *e)
{
    if (inbox.refs++ > 0)
        return 0;
    park_threads();
    inbox.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (inbox.fd < 0)
        return err_errno(e, errno, "eventfd");
    int r = sd_event_add_io(loop, &inbox.source, inbox.fd, 1 /* EPOLLIN */, on_event, NULL);
    return r < 0 ? err_errno(e, -r, "watch inbox") : 0;
}

void inbox_unref(void)
{
    CHECK(inbox.refs > 0);
    if (--inbox.refs > 0)
        return;
    take_all();
    inbox.source = sd_event_source_unref(inbox.source);
    close(inbox.fd);
    inbox.fd = -1;
}

void inbox_post(struct inbox_item *item)
{
    pthread_mutex_lock(&inbox.lock);
    int was_empty = inbox.head == NULL;
    item->next = NULL;
    *inbox.tail = item;
    inbox.tail = &item->next;
    int fd = inbox.fd;
    pthread_mutex_unlock(&inbox.lock);
    uint64_t one = 1;
    if (was_empty && fd >= 0 && write(fd, &one, sizeof one) < 0)
        CHECK(errno == EAGAIN); /* a full counter is readable, which is all we want */
}

void inbox_forget(struct inbox_item *item)
{
    pthread_mutex_lock(&inbox.lock);
    for (struct inbox_item **p = &inbox.head; *p; p = &(*p)->next) {
        if (*p != item)
            continue;
        *p = item->next;
        if (!*p)
            inbox.tail = p;
        break;
    }
    pthread_mutex_unlock(&inbox.lock);
}

/*
 * Who writes to a peer that is gone is not told: reading tells it, a moment later. nng 1.5.2 does not cope with hearing
 * of it twice. It takes EPIPE in a handshake for "this endpoint was closed by its owner": a listener stops accepting
 * and a dialer stops dialing, for good (nanomsg/nng issue 1518, fixed after 1.5.2), so that one connect() and close()
 * made a daemon deaf. And a pipe that closes for a failed reply while the body of a request comes in loses that
 * receive: its reaper waits for it for ever, and with it every later connection (ipc_pipe_recv_cb() starts on an aio
 * that has been stopped, and nothing calls back). This definition comes before libc's for every library of the process;
 * it lies here because whatever uses nng links this file.
 */
ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    ssize_t n = syscall(SYS_sendmsg, fd, msg, flags);
    if (n >= 0 || errno != EPIPE)
        return n;
    n = 0;
    for (size_t i = 0; i < msg->msg_iovlen; i++)
        n += (ssize_t)msg->msg_iov[i].iov_len;
    return n;
}
