/*
 * stream.c - what is too large for one datagram: snapshots, and entries of megabytes. In chunks that are acknowledged,
 * a few at a time, so that heartbeats never wait behind more than those.
 *
 * The receiver says which part is due. It keeps an unfinished snapshot: a leader that starts over goes on from there.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/util/id.h"
#include "raftd/node_priv.h"
#include "raftd/peers.h"
#include "raftd/snapshot.h"

#define WINDOW 8u /* chunks under way */
#define TICK_MS 100u
#define REPEAT_MS 500u /* without an answer: send again from the part that was due last */
#define GIVE_UP_MS 15000u
#define MESSAGE_MAX (ENTRY_BYTES_MAX + (1u << 20))

struct out {
    raft_id to;
    char node[65];
    uint64_t id; /* 0: this place is free */
    enum stream_kind kind;
    uint64_t index, term;
    struct snapshot_reader *reader;
    struct buf msg;
    uint32_t next, due; /* to send; to be acknowledged */
    bool all_sent, failed;
    uint64_t progress_ms, sent_ms;
};

static struct {
    struct out out[RAFT_MEMBERS_MAX];
    struct timer *tick;
    bool ticking;
    struct {
        raft_id from;
        uint64_t id; /* 0: none */
        enum stream_kind kind;
        uint64_t index, term;
        struct snapshot_writer *writer;
        struct buf msg;
        uint32_t next;
    } in;
    struct buf scratch;
} st;

/* ---- sending ---- */

static void ticking(void)
{
    if (st.ticking)
        return;
    st.ticking = true;
    timer_arm(st.tick, clock_mono().ms + TICK_MS);
}

static void out_close(struct out *o)
{
    o->reader = snapshot_reader_close(o->reader);
    buf_done(&o->msg);
    *o = (struct out){ 0 };
}

static struct out *out_get(raft_id to)
{
    struct out *empty = NULL;
    for (size_t i = 0; i < RAFT_MEMBERS_MAX; i++) {
        if (st.out[i].id != 0 && st.out[i].to == to)
            return &st.out[i];
        if (st.out[i].id == 0 && empty == NULL)
            empty = &st.out[i];
    }
    return empty;
}

static bool chunk_of(struct out *o, uint32_t part, struct str *ret, bool *ret_last)
{
    struct err e = ERR_INIT;
    if (o->kind == STREAM_MESSAGE) {
        size_t off = (size_t)part * SNAPSHOT_CHUNK, left = o->msg.n > off ? o->msg.n - off : 0;
        *ret = (struct str){ o->msg.p + off, left < SNAPSHOT_CHUNK ? left : SNAPSHOT_CHUNK };
        *ret_last = left <= SNAPSHOT_CHUNK;
        return off <= o->msg.n;
    }
    buf_clear(&st.scratch);
    if (snapshot_chunk(o->reader, part, &st.scratch, ret_last, &e) < 0) {
        log_warn("send snapshot index=%llu: %s", (unsigned long long)o->index, e.msg);
        return false;
    }
    *ret = buf_str(&st.scratch);
    return true;
}

static void out_send(struct out *o)
{
    while (!o->all_sent && !o->failed && o->next < o->due + WINDOW) {
        struct peer_chunk c = { .from = raft_log_identity(node.log)->id,
                                .to = o->to,
                                .id = o->id,
                                .kind = o->kind,
                                .index = o->index,
                                .term = o->term,
                                .part = o->next };
        if (!chunk_of(o, o->next, &c.data, &c.last)) {
            o->failed = true;
            return;
        }
        struct buf *out = peers_out(o->node, c.data.n + PEER_OVERHEAD);
        if (out == NULL)
            return;
        peer_put_chunk(out, &c);
        o->sent_ms = clock_mono().ms;
        o->next++;
        o->all_sent = c.last;
    }
}

static struct out *out_start(raft_id to, const char *to_node, enum stream_kind kind)
{
    struct out *o = out_get(to);
    if (o == NULL)
        return NULL;
    out_close(o);
    *o = (struct out){ .to = to, .kind = kind, .progress_ms = clock_mono().ms };
    random_bytes(&o->id, sizeof o->id);
    o->id |= 1;
    snprintf(o->node, sizeof o->node, "%s", to_node ? to_node : "");
    ticking();
    return o;
}

void stream_snapshot(raft_id to, const char *to_node)
{
    struct raft_log_state ls;
    struct err e = ERR_INIT;
    struct out *o = out_get(to);
    raft_log_state(node.log, &ls);
    if (o != NULL && o->id != 0 && o->kind == STREAM_SNAPSHOT && o->index == ls.snapshot_index)
        return; /* it is under way */
    o = out_start(to, to_node, STREAM_SNAPSHOT);
    if (o == NULL)
        return;
    o->index = ls.snapshot_index;
    o->term = ls.snapshot_term;
    o->failed = to_node == NULL ||
                snapshot_open(&o->reader, raft_log_dir(node.log), raft_log_key(node.log), o->index, o->term, &e) < 0;
    log_info("sending a snapshot node=%s index=%llu%s%s", o->node, (unsigned long long)o->index,
             o->failed ? " failed: " : "", e.msg);
    out_send(o);
}

bool stream_entry(const struct raft_msg *m, const char *to_node, uint64_t *ret_bytes)
{
    struct raft_log_entry en;
    struct err e = ERR_INIT;
    struct buf entry = BUF_INIT;
    struct out *o = out_get(m->to);
    if (o != NULL && o->id != 0 && o->kind == STREAM_MESSAGE && o->index == m->entries_from && o->term == m->term) {
        *ret_bytes = o->msg.n;
        return true; /* it is under way */
    }
    if (log_entry_at(m->entries_from, &en, &e) < 0 || (o = out_start(m->to, to_node, STREAM_MESSAGE)) == NULL)
        return false;
    o->index = m->entries_from;
    o->term = m->term;
    peer_put_entry(&entry, &en);
    peer_begin(&o->msg);
    peer_put_raft(&o->msg, m, buf_str(&entry), 1);
    bool ok = !entry.failed && !o->msg.failed;
    buf_done(&entry);
    *ret_bytes = o->msg.n;
    if (ok)
        out_send(o);
    else
        out_close(o);
    return ok;
}

/* out_over - not from within a step of the core. */
static void out_over(struct out *o, bool ok)
{
    struct err e = ERR_INIT;
    struct raft_event ev = { .type = ok ? RAFT_EV_SNAPSHOT_SENT : RAFT_EV_SNAPSHOT_FAILED, .member = o->to };
    bool snapshot = o->kind == STREAM_SNAPSHOT;
    if (snapshot)
        log_info("snapshot %s node=%s index=%llu", ok ? "sent" : "not sent", o->node, (unsigned long long)o->index);
    out_close(o);
    if (!snapshot)
        return;
    node_counts.snapshots_sent += ok;
    if (node.core != NULL && node_step(&ev, &e) < 0)
        log_warn("snapshot sent: %s", e.msg);
    node_turn_soon();
}

void stream_on_ack(const struct peer_ack *a)
{
    struct out *o = out_get(a->from);
    if (o == NULL || o->id == 0 || o->id != a->id)
        return;
    if (a->state != STREAM_GOING) {
        out_over(o, a->state == STREAM_DONE);
        return;
    }
    if (a->next > o->due) {
        o->due = a->next;
        o->progress_ms = clock_mono().ms;
        if (o->next < o->due) { /* it has those parts from an earlier attempt */
            o->next = o->due;
            o->all_sent = false;
        }
    }
    out_send(o);
}

static void on_tick(void *arg)
{
    uint64_t now = clock_mono().ms;
    bool any = false;
    (void)arg;
    st.ticking = false;
    for (size_t i = 0; i < RAFT_MEMBERS_MAX; i++) {
        struct out *o = &st.out[i];
        if (o->id == 0)
            continue;
        if (o->failed || now - o->progress_ms > GIVE_UP_MS) {
            out_over(o, false);
            continue;
        }
        if (now - o->progress_ms > REPEAT_MS && now - o->sent_ms > REPEAT_MS) {
            o->next = o->due;
            o->all_sent = false;
        }
        out_send(o);
        any = true;
    }
    if (any)
        ticking();
    peers_flush();
}

void streams_stop(void)
{
    for (size_t i = 0; i < RAFT_MEMBERS_MAX; i++)
        out_close(&st.out[i]);
}

/* ---- receiving ---- */

static void in_close(void)
{
    st.in.writer = snapshot_close(st.in.writer);
    buf_done(&st.in.msg);
    st.in.id = 0;
}

static void ack(const struct peer_chunk *c, const char *to_node, enum stream_state state)
{
    struct peer_ack a = { .from = c->to, .to = c->from, .id = c->id, .next = st.in.next, .state = state };
    struct buf *out = peers_out(to_node, PEER_OVERHEAD);
    if (out != NULL)
        peer_put_ack(out, &a);
}

static int in_start(const struct peer_chunk *c, struct err *e)
{
    bool same = st.in.writer != NULL && st.in.from == c->from && st.in.kind == c->kind && st.in.index == c->index &&
                st.in.term == c->term;
    if (!same || c->kind == STREAM_MESSAGE) {
        in_close();
        st.in.next = 0;
    }
    st.in.from = c->from;
    st.in.id = c->id;
    st.in.kind = c->kind;
    st.in.index = c->index;
    st.in.term = c->term;
    if (c->kind == STREAM_MESSAGE || st.in.writer != NULL)
        return 0;
    return snapshot_receive(&st.in.writer, raft_log_dir(node.log), raft_log_key(node.log), c->index, c->term, e);
}

static int in_put(const struct peer_chunk *c, struct err *e)
{
    int r = 0;
    if (c->kind == STREAM_SNAPSHOT) {
        r = snapshot_put_chunk(st.in.writer, c->part, c->data, c->last, e);
    } else {
        st.in.msg.limit = MESSAGE_MAX;
        buf_put(&st.in.msg, c->data.p, c->data.n);
        if (st.in.msg.failed)
            r = err_set(e, ERR_TOO_BIG, "a message of another manager is over %u bytes", MESSAGE_MAX);
    }
    if (r == 0)
        st.in.next = c->part + 1;
    return r;
}

/* The configuration at the snapshot's end is in its first record. */
static int head_members(void *arg, struct str record, struct err *e)
{
    struct str list = { NULL, 0 };
    if (!mp_find(record, "members", &list))
        return err_set(e, ERR_CORRUPT, "the snapshot does not say who the members are");
    int r = members_decode(arg, list, e);
    return r < 0 ? r : err_set(e, ERR_GONE, "that is all"); /* no need to read on */
}

static int snapshot_arrived(struct err *e)
{
    struct members m;
    uint64_t index = st.in.index, term = st.in.term;
    int r = snapshot_finish(st.in.writer, e);
    st.in.writer = snapshot_close(st.in.writer);
    if (r == 0)
        r = snapshot_read(raft_log_dir(node.log), raft_log_key(node.log), index, term, head_members, &m, e);
    if (r != -ERR_GONE)
        return r < 0 ? r : err_set(e, ERR_CORRUPT, "the snapshot is empty");
    struct raft_members ids = members_ids(&m);
    struct raft_event ev = { .type = RAFT_EV_SNAPSHOT_RECEIVED, .index = index, .term = term, .members = &ids };
    node_counts.snapshots_received++;
    log_info("received a snapshot index=%llu", (unsigned long long)index);
    return node_step(&ev, e);
}

static int in_finish(struct str from_node, struct err *e)
{
    struct arena a;
    struct peer_msg m;
    struct str rest;
    int r = 0;
    if (st.in.kind == STREAM_SNAPSHOT)
        return snapshot_arrived(e);
    struct buf msg = st.in.msg;
    st.in.msg = (struct buf)BUF_INIT;
    arena_init(&a, 1u << 20);
    if (peer_open(buf_str(&msg), &rest) && (r = peer_next(&rest, &a, &m, e)) > 0 && m.kind == PEER_RAFT)
        node_message(&m, from_node);
    arena_done(&a);
    buf_done(&msg);
    return r < 0 ? r : 0;
}

void stream_on_chunk(const struct peer_chunk *c, struct str from)
{
    struct err e = ERR_INIT;
    char from_node[65];
    int r = 0;
    if (!str_copy(from_node, sizeof from_node, from))
        return;
    if (st.in.id != c->id) {
        if (c->kind == STREAM_SNAPSHOT && c->index <= node.commit) { /* known here */
            ack(c, from_node, STREAM_DONE);
            return;
        }
        r = in_start(c, &e);
    }
    if (r == 0 && c->part == st.in.next)
        r = in_put(c, &e);
    else if (r == 0) {
        ack(c, from_node, STREAM_GOING); /* says what is due */
        return;
    }
    bool over = r == 0 && c->last && st.in.next == c->part + 1;
    if (over)
        r = in_finish(from, &e);
    if (r < 0)
        log_warn("a transfer of node=%s: %s", from_node, e.msg);
    ack(c, from_node, r < 0 ? STREAM_REFUSED : over ? STREAM_DONE : STREAM_GOING);
    if (r < 0 || over)
        in_close();
    node_turn_soon();
}

int streams_open(struct err *e)
{
    return timer_open(&st.tick, on_tick, NULL, e);
}

void streams_reset(void)
{
    streams_stop();
    in_close();
    st.in.next = 0;
    buf_done(&st.scratch);
}

void streams_close(void)
{
    streams_reset();
    st.ticking = false;
    st.tick = timer_free(st.tick);
}
