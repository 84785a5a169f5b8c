/*
 * peer_msg.h - what raftds of different managers send each other: several messages in one datagram.
 *
 * A datagram is [version, message, message, ...], each a msgpack array that begins with its kind:
 *   [1, type, from, to, term, index, index_term, commit, read_id, hint_index, hint_term, flags, [[term, type,
 * data]...]] a message of the core (core/raft.h); the list holds the entries after `index` [2, from, to, id, kind,
 * index, term, part, last, data]   one chunk of a stream (stream.h) [3, from, to, id, next, state] what has arrived of
 * it What comes in is bounded by the datagram's size; nothing in it is believed before the whole message is decoded.
 */
#pragma once

#include "common/util/arena.h"
#include "common/util/err.h"
#include "common/util/str.h"
#include "raftd/core/raft.h"
#include "raftd/raft_log.h"

#define PEER_VERSION 1u
#define PEER_ENTRIES_MAX 4096u

enum peer_kind { PEER_RAFT = 1, PEER_CHUNK = 2, PEER_ACK = 3 };

enum stream_kind { STREAM_SNAPSHOT = 1, STREAM_MESSAGE = 2 };
enum stream_state { STREAM_GOING = 1, STREAM_DONE = 2, STREAM_REFUSED = 3 };

struct peer_chunk {
    raft_id from, to;
    uint64_t id; /* of the stream: drawn by the sender */
    enum stream_kind kind;
    uint64_t index, term; /* STREAM_SNAPSHOT: where it ends */
    uint32_t part;
    bool last;
    struct str data;
};

struct peer_ack {
    raft_id from, to;
    uint64_t id;
    uint32_t next; /* the part that is due */
    enum stream_state state;
};

struct peer_msg {
    enum peer_kind kind;
    struct raft_msg raft;    /* PEER_RAFT; its entries are in the arena */
    const struct str *data;  /* PEER_RAFT: of each entry; borrowed from the datagram */
    struct peer_chunk chunk; /* PEER_CHUNK; data borrowed from the datagram */
    struct peer_ack ack;     /* PEER_ACK */
};

/* peer_begin - starts a datagram. */
void peer_begin(struct buf *out);

/* peer_put_entry - one more for peer_put_raft(), which takes them encoded: @n entries, those after m->index. */
void peer_put_entry(struct buf *out, const struct raft_log_entry *en);
void peer_put_raft(struct buf *out, const struct raft_msg *m, struct str entries, size_t n);
void peer_put_chunk(struct buf *out, const struct peer_chunk *c);
void peer_put_ack(struct buf *out, const struct peer_ack *a);

#define PEER_ENTRY_OVERHEAD 20u /* of each entry, at most */
#define PEER_OVERHEAD 160u      /* of each message, at most */

/* peer_open - false when it is no datagram of this version; then peer_next() until it returns 0. */
bool peer_open(struct str in, struct str *ret_rest);

/* peer_next - 1: a message; 0: no more; -ERR_INVALID: malformed, what follows is not looked at. */
int peer_next(struct str *rest, struct arena *a, struct peer_msg *ret, struct err *e);
