#include "raftd/peers.h"

#include <stdlib.h>

#include "common/daemon/daemon.h"
#include "common/daemon/oneway.h"
#include "common/proto/msg_gatewayd.h"
#include "common/util/check.h"
#include "raftd/peer_msg.h"

#define LINKS_MAX 32u
#define KEEP_BYTES (64u << 10) /* of an idle outbox */
#define CORK_BYTES (64u << 10)

/* One other manager. */
struct link {
    char node[65];
    bool down;
    struct buf out; /* the datagram of this turn */
};

static struct {
    struct oneway *gate;
    const struct peers_ops *ops;
    struct link v[LINKS_MAX];
    size_t n, next; /* next: to be used again when all are taken */
    bool up;
} peers;

struct peers_counts peers_counts;

static struct link *find(struct str node)
{
    for (size_t i = 0; i < peers.n; i++)
        if (str_is(node, peers.v[i].node))
            return &peers.v[i];
    return NULL;
}

static struct link *get(struct str node)
{
    struct link *l = find(node);
    if (l != NULL)
        return l;
    l = peers.n < LINKS_MAX ? &peers.v[peers.n] : &peers.v[peers.next++ % LINKS_MAX];
    if (!str_copy(l->node, sizeof l->node, node))
        return NULL;
    peers.n += peers.n < LINKS_MAX;
    l->down = false;
    buf_done(&l->out);
    return l;
}

static void on_frame(void *arg, struct str msg)
{
    struct gw_peer_frame f;
    struct arena a;
    struct err e = ERR_INIT;
    (void)arg;
    arena_init(&a, 4096);
    int r = fields_decode(&f, gw_peer_frame_fields, sizeof f, msg, FIELDS_STRICT, &a, &e);
    struct link *l = r == 0 ? get(f.Node) : NULL;
    if (l == NULL) {
        peers_counts.dropped++;
    } else if (str_is(f.Kind, "msg")) {
        l->down = false;
        peers_counts.received++;
        peers_counts.received_bytes += f.Body.n;
        if (f.Body.n > 0)
            peers.ops->datagram(f.Node, f.Body);
        else
            peers.ops->link(f.Node, false); /* its raftd is gone, says its gatewayd; the link itself is not */
    } else if (str_is(f.Kind, "up") || str_is(f.Kind, "down")) {
        l->down = str_is(f.Kind, "down");
        peers.ops->link(f.Node, !l->down);
    }
    arena_done(&a);
}

static void on_gateway(void *arg, bool up)
{
    (void)arg;
    peers.up = up;
    for (size_t i = 0; i < peers.n; i++) {
        peers.v[i].down = false; /* it tells us again */
        buf_clear(&peers.v[i].out);
    }
    peers.ops->gateway(up);
}

int peers_open(const struct peers_ops *ops, struct err *e)
{
    peers.ops = ops;
    return oneway_listen(&peers.gate, daemon_loop(), daemon_run_dir(), GW_PEERS_SOCKET, daemon_user("gatewayd"),
                         on_frame, on_gateway, NULL, e);
}

void peers_close(void)
{
    peers.gate = oneway_free(peers.gate);
    for (size_t i = 0; i < peers.n; i++)
        buf_done(&peers.v[i].out);
    peers.n = 0;
}

static void frame_head(struct buf *head, const char *node, size_t body)
{
    uint8_t bin[5] = { 0xc6, (uint8_t)(body >> 24), (uint8_t)(body >> 16), (uint8_t)(body >> 8), (uint8_t)body };
    mp_map(head, 3);
    mp_kv_cstr(head, "Kind", "msg");
    mp_kv_cstr(head, "Node", node);
    mp_cstr(head, "Body");
    buf_put(head, bin, sizeof bin); /* bin 32: the body follows, uncopied */
}

static void flush_one(struct link *l)
{
    char bytes[160];
    struct buf head = { .p = bytes, .cap = sizeof bytes, .limit = sizeof bytes };
    if (l->out.n == 0)
        return;
    frame_head(&head, l->node, l->out.n);
    if (!l->out.failed && !head.failed && oneway_send(peers.gate, buf_str(&head), buf_str(&l->out))) {
        peers_counts.sent++;
        peers_counts.sent_bytes += l->out.n;
    } else {
        peers_counts.dropped++;
    }
    if (l->out.cap > KEEP_BYTES)
        buf_done(&l->out);
    else
        buf_clear(&l->out);
}

struct buf *peers_out(const char *node, size_t bytes)
{
    if (!peers.up || bytes > GW_PEER_BODY_MAX - 16)
        return NULL;
    struct link *l = get(str_from(node));
    if (l == NULL)
        return NULL;
    if (l->out.n + bytes > GW_PEER_BODY_MAX)
        flush_one(l);
    if (l->out.n == 0)
        peer_begin(&l->out);
    return &l->out;
}

bool peers_link(const char *node)
{
    struct link *l = find(str_from(node));
    return peers.up && (l == NULL || !l->down);
}

/* Small ones go in one write: gatewayd is woken once. */
void peers_flush(void)
{
    size_t waiting = 0, bytes = 0;
    for (size_t i = 0; i < peers.n; i++) {
        waiting += peers.v[i].out.n > 0;
        bytes += peers.v[i].out.n;
    }
    bool together = waiting > 1 && bytes <= CORK_BYTES;
    if (together)
        oneway_cork(peers.gate);
    for (size_t i = 0; i < peers.n && waiting > 0; i++)
        flush_one(&peers.v[i]);
    if (together)
        oneway_uncork(peers.gate);
}
