/* peer_msg_fuzz.c - a datagram of another manager: decoded, put together again, decoded again, the same. */
#include "common/util/check.h"
#include "raftd/peer_msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void again(const struct peer_msg *m, struct buf *out)
{
    if (m->kind == PEER_CHUNK)
        peer_put_chunk(out, &m->chunk);
    else if (m->kind == PEER_ACK)
        peer_put_ack(out, &m->ack);
    if (m->kind != PEER_RAFT)
        return;
    struct buf entries = BUF_INIT;
    for (size_t i = 0; i < m->raft.n_entries; i++) {
        const struct raft_entry_meta *en = &m->raft.entries[i];
        peer_put_entry(&entries, &(struct raft_log_entry){ en->index, en->term, en->type, m->data[i] });
    }
    peer_put_raft(out, &m->raft, buf_str(&entries), m->raft.n_entries);
    buf_done(&entries);
}

static size_t read_all(struct str in, struct buf *out)
{
    struct arena a;
    struct peer_msg m;
    struct err e = ERR_INIT;
    struct str rest;
    size_t n = 0;
    arena_init(&a, 1u << 24);
    peer_begin(out);
    if (peer_open(in, &rest))
        while (peer_next(&rest, &a, &m, &e) > 0) {
            again(&m, out);
            n++;
            arena_reset(&a);
        }
    arena_done(&a);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf one = BUF_INIT, two = BUF_INIT;
    size_t n = read_all((struct str){ (const char *)data, size }, &one);
    CHECK(read_all(buf_str(&one), &two) == n);
    CHECK(one.n == two.n && memcmp(one.p, two.p, one.n) == 0);
    buf_done(&one);
    buf_done(&two);
    return 0;
}
