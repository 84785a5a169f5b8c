#include "meshd/netlink/mesh_msg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "common/util/check.h"

#define RECV_BYTES (64u << 10)
#define SEND_BUF_BYTES (32 << 20) /* a limit, not memory: the largest batch */

int mesh_msg_open(struct mesh_msg *m, int bus, struct err *e)
{
    int size = SEND_BUF_BYTES, one = 1;
    *m = (struct mesh_msg){ .seq = (uint32_t)time(NULL) };
    m->sock = mnl_socket_open2(bus, SOCK_CLOEXEC);
    if (!m->sock || mnl_socket_bind(m->sock, 0, MNL_SOCKET_AUTOPID) < 0) {
        int r = err_errno(e, errno, "open netlink socket %d", bus);
        mesh_msg_close(m);
        return r;
    }
    m->portid = mnl_socket_get_portid(m->sock);
    (void)setsockopt(mnl_socket_get_fd(m->sock), SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    (void)mnl_socket_setsockopt(m->sock, NETLINK_EXT_ACK, &one, sizeof one);
    (void)mnl_socket_setsockopt(m->sock, NETLINK_CAP_ACK, &one, sizeof one);
    return 0;
}

void mesh_msg_close(struct mesh_msg *m)
{
    if (m->sock)
        mnl_socket_close(m->sock);
    free(m->buf);
    *m = (struct mesh_msg){ 0 };
}

/* finish - closes the message being built: its length is final only now. */
static void finish(struct mesh_msg *m)
{
    if (!m->cur)
        return;
    m->n += NLMSG_ALIGN(m->cur->nlmsg_len);
    m->acks += (m->cur->nlmsg_flags & NLM_F_ACK) != 0;
    CHECK(m->n <= m->cap);
    m->cur = NULL;
}

struct nlmsghdr *mesh_msg_put(struct mesh_msg *m, uint16_t type, uint16_t flags, size_t extra, size_t room)
{
    finish(m);
    if (m->cap - m->n < room) {
        m->cap = m->cap * 2 > m->n + room ? m->cap * 2 : m->n + room;
        m->buf = realloc(m->buf, m->cap);
        CHECK(m->buf != NULL);
    }
    m->cur = mnl_nlmsg_put_header(m->buf + m->n);
    m->cur->nlmsg_type = type;
    m->cur->nlmsg_flags = NLM_F_REQUEST | flags;
    m->cur->nlmsg_seq = ++m->seq;
    if (extra)
        mnl_nlmsg_put_extra_header(m->cur, extra);
    return m->cur;
}

void mesh_msg_drop(struct mesh_msg *m)
{
    m->cur = NULL;
    m->n = 0;
    m->acks = 0;
    if (m->cap > RECV_BYTES) { /* a batch of everything is rare: don't keep its memory */
        free(m->buf);
        m->buf = NULL;
        m->cap = 0;
    }
}

void mesh_msg_trim(struct mesh_msg *m)
{
    mesh_msg_drop(m);
    free(m->buf);
    m->buf = NULL;
    m->cap = 0;
}

struct mesh_attrs mesh_attrs_of(const struct nlmsghdr *h, size_t extra)
{
    size_t head = MNL_ALIGN(extra), len = mnl_nlmsg_get_payload_len(h);
    return (struct mesh_attrs){ (const char *)mnl_nlmsg_get_payload(h) + head, len > head ? (int)(len - head) : 0 };
}

struct mesh_attrs mesh_attrs_in(const struct nlattr *nest)
{
    return (struct mesh_attrs){ mnl_attr_get_payload(nest), mnl_attr_get_payload_len(nest) };
}

bool mesh_attrs_next(struct mesh_attrs *it, const struct nlattr **ret)
{
    const struct nlattr *a = (const struct nlattr *)it->p;
    if (!mnl_attr_ok(a, it->n))
        return false;
    int len = MNL_ALIGN(a->nla_len);
    it->p += len;
    it->n -= len;
    *ret = a;
    return true;
}

static const char *kernel_words(const struct nlmsghdr *h)
{
    const struct nlattr *a;
    if (!(h->nlmsg_flags & NLM_F_ACK_TLVS))
        return NULL;
    size_t off = sizeof(struct nlmsgerr);
    const struct nlmsgerr *er = mnl_nlmsg_get_payload(h);
    if (!(h->nlmsg_flags & NLM_F_CAPPED))
        off += mnl_nlmsg_get_payload_len(&er->msg);
    for (struct mesh_attrs it = mesh_attrs_of(h, off); mesh_attrs_next(&it, &a);)
        if (mnl_attr_get_type(a) == NLMSGERR_ATTR_MSG && mnl_attr_validate(a, MNL_TYPE_NUL_STRING) >= 0)
            return mnl_attr_get_str(a);
    return NULL;
}

static int refused(const struct nlmsghdr *h, const char *what, int *ret_errno, struct err *e)
{
    const struct nlmsgerr *er = mnl_nlmsg_get_payload(h);
    const char *words = kernel_words(h);
    if (ret_errno)
        *ret_errno = -er->error;
    return words ? err_errno(e, -er->error, "%s (%s)", what, words) : err_errno(e, -er->error, "%s", what);
}

int mesh_msg_send(struct mesh_msg *m, const char *what, int *ret_errno, struct err *e)
{
    char in[8192] __attribute__((aligned(8)));
    uint32_t acks;
    int r = 0;
    finish(m);
    acks = m->acks;
    if (mnl_socket_sendto(m->sock, m->buf, m->n) < 0) {
        r = err_errno(e, errno, "%s: send", what);
        acks = 0;
    }
    mesh_msg_drop(m);
    for (;;) {
        ssize_t len = recv(mnl_socket_get_fd(m->sock), in, sizeof in, MSG_DONTWAIT);
        if (len < 0 && errno == EINTR)
            continue;
        if (len < 0)
            break;
        int left = (int)len;
        for (struct nlmsghdr *h = (struct nlmsghdr *)in; mnl_nlmsg_ok(h, left); h = mnl_nlmsg_next(h, &left)) {
            if (h->nlmsg_type != NLMSG_ERROR || mnl_nlmsg_get_payload_len(h) < sizeof(struct nlmsgerr))
                continue;
            acks -= acks > 0;
            if (((struct nlmsgerr *)mnl_nlmsg_get_payload(h))->error && r == 0)
                r = refused(h, what, ret_errno, e);
        }
    }
    if (r == 0 && acks > 0)
        r = err_set(e, ERR_IO, "%s: the kernel did not answer", what);
    return r;
}

struct dump {
    mesh_msg_fn *fn;
    void *arg;
};

static int dump_one(const struct nlmsghdr *h, void *arg)
{
    struct dump *d = arg;
    d->fn(h, d->arg);
    return MNL_CB_OK;
}

int mesh_msg_dump(struct mesh_msg *m, const char *what, mesh_msg_fn *fn, void *arg, int *ret_errno, struct err *e)
{
    struct dump d = { fn, arg };
    finish(m);
    uint32_t seq = m->seq;
    int rc = (int)mnl_socket_sendto(m->sock, m->buf, m->n);
    mesh_msg_drop(m);
    char *in = malloc(RECV_BYTES);
    CHECK(in != NULL);
    while (rc >= 0) {
        rc = (int)mnl_socket_recvfrom(m->sock, in, RECV_BYTES);
        if (rc < 0 && errno == EINTR) {
            rc = 0;
            continue;
        }
        if (rc >= 0)
            rc = mnl_cb_run(in, (size_t)rc, seq, m->portid, dump_one, &d);
        if (rc == MNL_CB_STOP)
            break;
    }
    int errnum = errno;
    free(in);
    if (rc < 0 && ret_errno)
        *ret_errno = errnum;
    return rc < 0 ? err_errno(e, errnum, "%s", what) : 0;
}
