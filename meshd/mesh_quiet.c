#include "meshd/mesh_quiet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "common/util/check.h"
#include "meshd/netlink/mesh_msg.h"
#include "meshd/netlink/mesh_ns.h"

#define TCP_SYN_SENT_BIT (1u << TCP_SYN_SENT)
#define LISTENING (1u << TCP_LISTEN)
/* Not: it asked itself; its last word is said and acknowledged; nothing is left but the port's rest. */
#define OPEN (0xfffu & ~(LISTENING | TCP_SYN_SENT_BIT | 1u << TCP_TIME_WAIT | 1u << TCP_CLOSE | 1u << TCP_FIN_WAIT2))
#define NEW_SYN_RECV (1u << 12)

struct looking {
    uint8_t ports[65536 / 8]; /* listened on */
    uint64_t open;
};

static bool loopback(const struct inet_diag_msg *d)
{
    static const uint8_t one6[16] = { [15] = 1 }, mapped[12] = { [10] = 0xff, [11] = 0xff };
    const uint8_t *a = (const uint8_t *)d->id.idiag_dst;
    if (d->idiag_family == AF_INET)
        return a[0] == 127;
    return memcmp(a, one6, 16) == 0 || (memcmp(a, mapped, 12) == 0 && a[12] == 127);
}

static void see(const struct nlmsghdr *h, void *arg)
{
    struct looking *l = arg;
    const struct inet_diag_msg *d = mnl_nlmsg_get_payload(h);
    if (h->nlmsg_type != SOCK_DIAG_BY_FAMILY || mnl_nlmsg_get_payload_len(h) < sizeof *d)
        return;
    unsigned port = ntohs(d->id.idiag_sport);
    if (d->idiag_state == TCP_LISTEN)
        l->ports[port / 8] |= (uint8_t)(1u << port % 8);
    else if ((l->ports[port / 8] >> port % 8 & 1) && !loopback(d))
        l->open++;
}

static int list(struct mesh_msg *m, uint8_t family, uint8_t proto, uint32_t states, struct looking *l, struct err *e)
{
    int errnum = 0;
    struct nlmsghdr *h = mesh_msg_put(m, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, sizeof(struct inet_diag_req_v2), 256);
    struct inet_diag_req_v2 *rq = mnl_nlmsg_get_payload(h);
    *rq = (struct inet_diag_req_v2){ .sdiag_family = family, .sdiag_protocol = proto, .idiag_states = states };
    int r = mesh_msg_dump(m, "list sockets", see, l, &errnum, e);
    return r < 0 && (errnum == ENOENT || errnum == EINVAL) ? 0 : r; /* no such protocol or family in this kernel */
}

int mesh_quiet_look(const char *pin, int back_ns, uint64_t *ret_connections, struct err *e)
{
    static const uint8_t families[] = { AF_INET, AF_INET6 }, protos[] = { IPPROTO_TCP, IPPROTO_SCTP };
    static const uint32_t states[] = { LISTENING, OPEN | NEW_SYN_RECV };
    struct mesh_msg m;
    uint64_t open = 0;
    int r = mesh_ns_enter(pin, e);
    if (r < 0)
        return r;
    r = mesh_msg_open(&m, NETLINK_SOCK_DIAG, e);
    mesh_ns_back(back_ns);
    for (size_t p = 0; r == 0 && p < 2; p++) {
        struct looking l = { .open = 0 };
        for (size_t i = 0; r == 0 && i < 4; i++)
            r = list(&m, families[i % 2], protos[p], states[i / 2], &l, e);
        open += l.open;
    }
    mesh_msg_close(&m);
    if (r == 0)
        *ret_connections = open;
    return r;
}

int mesh_quiet_listening(const char *pin, int back_ns, uint8_t ret[65536 / 8], struct err *e)
{
    struct looking l = { .open = 0 };
    struct mesh_msg m;
    int r = mesh_ns_enter(pin, e);
    if (r < 0)
        return r;
    r = mesh_msg_open(&m, NETLINK_SOCK_DIAG, e);
    mesh_ns_back(back_ns);
    if (r == 0)
        r = list(&m, AF_INET, IPPROTO_TCP, LISTENING, &l, e);
    if (r == 0)
        r = list(&m, AF_INET6, IPPROTO_TCP, LISTENING, &l, e);
    mesh_msg_close(&m);
    memcpy(ret, l.ports, sizeof l.ports);
    return r;
}
