#include "common/daemon/inbox.h"

#include <errno.h>
#include <pthread.h>
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

int inbox_ref(sd_event *loop, struct err *e)
{
    if (inbox.refs++ > 0)
        return 0;
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
 * nng 1.5.2 takes EPIPE for "this endpoint was closed by its owner": when a peer has gone before the handshake was
 * written to it, a listener stops accepting and a dialer stops dialing, for good (nanomsg/nng issue 1518, fixed after
 * 1.5.2). So one connect() and close() made a daemon deaf. Any other error is handled well, and ECONNRESET at once.
 * This definition comes before libc's for every library of the process; it lies here because whatever uses nng links
 * this file.
 */
ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    ssize_t n = syscall(SYS_sendmsg, fd, msg, flags);
    if (n < 0 && errno == EPIPE)
        errno = ECONNRESET;
    return n;
}
