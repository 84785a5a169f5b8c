/*
 * node_write.c - what the core wants durable: kept here until the disk is free, then written in one go.
 *
 * A thread waits for the disk, so that heartbeats, answers and the next proposals go on. But a follower or a single
 * voter whose disk has been fast lately waits for it in place: it takes less than waking a thread and being woken by
 * it, and what arrives meanwhile goes into the next write together. So does a single voter until it leads: until then
 * it has nothing else to do.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>

#include "raftd/node_priv.h"
#include "raftd/peers.h"

#define KEEP_ENTRIES 256u
/* A disk is fast when it takes no longer than this on the average of some writes, and did not the last time. */
#define FAST_MEAN_US 500u
#define FAST_LAST_US 2000u
#define TAIL_MS 500u /* so long after a write, how far the log goes is made durable, too */
#define TAIL_AGAIN_MS 5u

/* All that a write may consist of. */
struct job {
    uint64_t first, last; /* the core's numbers of the writes in it; last 0: none */
    uint64_t truncate_from;
    bool hard_state_changed;
    struct raft_hard_state hard_state;
    uint64_t install_index, install_term;
};

static struct {
    struct job next, now; /* waits; is under way */
    struct raft_log_entry *v;
    size_t cap;

    pthread_t thread;
    bool thread_up;
    atomic_bool quit;
    atomic_int result;
    int go, done;
    sd_event_source *source;
    bool failing; /* one line in the log when it begins, one when it is over */
    uint64_t began_us, mean_us, last_us;
    struct timer *tail;
    bool tail_due;
} wr = { .go = -1, .done = -1, .mean_us = (uint64_t)2 * FAST_MEAN_US };

/* ---- the thread ---- */

static bool signal_fd(int fd)
{
    uint64_t one = 1;
    return write(fd, &one, sizeof one) == sizeof one;
}

static bool wait_fd(int fd)
{
    uint64_t n;
    while (read(fd, &n, sizeof n) < 0)
        if (errno != EINTR)
            return false;
    return true;
}

static void *sync_main(void *arg)
{
    (void)arg;
    while (wait_fd(wr.go) && !atomic_load(&wr.quit)) {
        atomic_store(&wr.result, raft_log_sync(node.log));
        CHECK(signal_fd(wr.done));
    }
    return NULL;
}

static void write_end(int synced);

static int on_done(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
    (void)s, (void)revents, (void)arg;
    CHECK(wait_fd(fd));
    node.writing = false;
    write_end(atomic_load(&wr.result));
    node_turn();
    return 0;
}

static bool thread_start(void)
{
    pthread_attr_t attr;
    if (wr.thread_up)
        return true;
    wr.go = eventfd(0, EFD_CLOEXEC);
    wr.done = eventfd(0, EFD_CLOEXEC);
    atomic_store(&wr.quit, false);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 64 << 10);
    wr.thread_up = wr.go >= 0 && wr.done >= 0 && pthread_create(&wr.thread, &attr, sync_main, NULL) == 0;
    pthread_attr_destroy(&attr);
    if (wr.thread_up)
        CHECK(sd_event_add_io(daemon_loop(), &wr.source, wr.done, 1 /* EPOLLIN */, on_done, NULL) >= 0);
    return wr.thread_up;
}

static void thread_stop(void)
{
    struct err e = ERR_INIT;
    if (wr.thread_up && node.writing) {
        CHECK(wait_fd(wr.done));
        node.writing = false;
        if (raft_log_end_write(node.log, atomic_load(&wr.result), &e) < 0)
            log_warn("the last write: %s", e.msg);
    }
    wr.source = sd_event_source_disable_unref(wr.source);
    if (wr.thread_up) {
        atomic_store(&wr.quit, true);
        CHECK(signal_fd(wr.go));
        pthread_join(wr.thread, NULL);
    }
    closep(&wr.go);
    closep(&wr.done);
    wr.go = wr.done = -1;
    wr.thread_up = false;
}

/* ---- the tail ---- */

static bool disk_is_fast(void)
{
    return wr.mean_us < FAST_MEAN_US && wr.last_us < FAST_LAST_US;
}

/* Between two writes; a slow disk is not waited for. */
static void on_tail(void *arg)
{
    (void)arg;
    if (node.log == NULL || !wr.tail_due)
        return;
    if (node.writing) {
        timer_arm(wr.tail, clock_mono().ms + TAIL_AGAIN_MS);
        return;
    }
    wr.tail_due = false;
    raft_log_tail_sync(node.log, disk_is_fast());
}

static void tail_later(void)
{
    struct err e = ERR_INIT;
    if (wr.tail_due || (wr.tail == NULL && timer_open(&wr.tail, on_tail, NULL, &e) < 0))
        return;
    wr.tail_due = true;
    timer_arm(wr.tail, clock_mono().ms + TAIL_MS);
}

/* ---- collecting ---- */

static void truncate_note(uint64_t from)
{
    tail_truncate(&node.tail, from);
    if (from > node.handed)
        return;
    node.handed = from - 1;
    if (wr.next.truncate_from == 0 || from < wr.next.truncate_from)
        wr.next.truncate_from = from;
}

static void append_of_msg(const struct raft_effects *fx)
{
    const struct raft_msg *m = &node.msg->raft;
    size_t off = 0, total = 0, at = fx->append_from - m->index - 1, n = fx->append_to - fx->append_from + 1;
    char *p;
    CHECK(fx->append_from > m->index && at + n <= m->n_entries);
    for (size_t i = 0; i < n; i++)
        total += node.msg->data[at + i].n;
    struct block *b = block_new(total, &p);
    for (size_t i = 0; i < n; i++) {
        const struct raft_entry_meta *meta = &m->entries[at + i];
        struct str d = node.msg->data[at + i];
        memcpy(p + off, d.p, d.n);
        tail_add(&node.tail, &(struct raft_log_entry){ meta->index, meta->term, meta->type, { p + off, d.n } }, b);
        off += d.n;
    }
    block_drop(b);
}

static void append_members(const struct raft_effects *fx)
{
    struct buf b = BUF_INIT;
    struct members m;
    CHECK(members_join(&m, &fx->append_members, &node.members, node.newcomer.id ? &node.newcomer : NULL));
    members_encode(&m, &b);
    CHECK(!b.failed);
    struct raft_log_entry en = { fx->append_from, fx->append_term, RAFT_ENTRY_MEMBERS, buf_str(&b) };
    struct block *block = block_take(&b);
    tail_add(&node.tail, &en, block);
    block_drop(block);
}

void write_note(const struct raft_effects *fx)
{
    if (fx->write == 0)
        return;
    if (wr.next.last == 0)
        wr.next.first = fx->write;
    wr.next.last = fx->write;
    if (fx->install_index != 0) {
        wr.next.install_index = fx->install_index;
        wr.next.install_term = fx->install_term;
    }
    if (fx->truncate_from != 0)
        truncate_note(fx->truncate_from);
    if (fx->append_from <= fx->append_to && fx->append_of_msg)
        append_of_msg(fx);
    else if (fx->append_from <= fx->append_to && fx->append_type == RAFT_ENTRY_DATA)
        requests_appended(fx);
    else if (fx->append_from <= fx->append_to && fx->append_type == RAFT_ENTRY_MEMBERS)
        append_members(fx);
    else if (fx->append_from <= fx->append_to)
        tail_add(&node.tail, &(struct raft_log_entry){ fx->append_from, fx->append_term, fx->append_type, { "", 0 } },
                 NULL);
    if (fx->hard_state_changed) {
        wr.next.hard_state_changed = true;
        wr.next.hard_state = fx->hard_state;
    }
}

/* ---- writing ---- */

static size_t entries_fill(void)
{
    size_t n = 0;
    for (uint64_t i = node.handed + 1; node.tail.n > 0 && i < node.tail.first + node.tail.n; i++, n++) {
        if (n == wr.cap) {
            wr.cap = wr.cap ? 2 * wr.cap : KEEP_ENTRIES;
            wr.v = realloc(wr.v, wr.cap * sizeof *wr.v);
            CHECK(wr.v != NULL);
        }
        CHECK(tail_get(&node.tail, i, &wr.v[n]));
    }
    return n;
}

static uint64_t log_last(void)
{
    struct raft_log_state st;
    raft_log_state(node.log, &st);
    return st.last_index;
}

/* The disk kept nothing of it: neither does anything here, and what was to follow goes with it. */
static void write_failed(const struct err *why)
{
    struct err e = ERR_INIT;
    struct raft_event ev = { .type = RAFT_EV_WRITE_FAILED, .write = wr.now.first };
    struct raft_status s;
    if (raft_log_broken(node.log)) {
        give_up("write log", why);
        return;
    }
    if (!wr.failing)
        log_error("cannot write: %s; changes are refused until it works again", why->msg);
    wr.failing = true;
    wr.now = wr.next = (struct job){ 0 };
    apply_give_back();
    node.handed = log_last();
    tail_truncate(&node.tail, node.handed + 1);
    if (node_step(&ev, &e) < 0) {
        give_up("write log", &e);
        return;
    }
    raft_status(node.core, &s);
    if (s.members.n == 1) /* nobody else has seen it */
        requests_lost(node.handed + 1, why->code, why->msg);
    if (s.role != RAFT_LEADER)
        snprintf(node.stalled, sizeof node.stalled, "%.190s", why->msg);
}

static void write_done(void)
{
    struct err e = ERR_INIT;
    if (wr.failing)
        log_info("writing works again");
    wr.failing = false;
    tail_later();
    struct raft_event ev = { .type = RAFT_EV_PERSISTED, .write = wr.now.last };
    wr.now = (struct job){ 0 };
    node.stalled[0] = 0;
    if (node_step(&ev, &e) < 0)
        give_up("write log", &e);
    peers_flush(); /* the leader waits for this; applying can wait */
}

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void write_end(int synced)
{
    struct err e = ERR_INIT;
    wr.last_us = now_us() - wr.began_us;
    wr.mean_us = (7 * wr.mean_us + wr.last_us) / 8;
    if (raft_log_end_write(node.log, synced, &e) < 0)
        write_failed(&e);
    else
        write_done();
}

static int begin(struct err *e)
{
    struct job *j = &wr.now;
    size_t n = entries_fill();
    struct raft_log_write w = {
        .truncate_from = j->truncate_from,
        .entries = wr.v,
        .n_entries = n,
        .hard_state = j->hard_state_changed ? &j->hard_state : NULL,
    };
    int r = raft_log_begin_write(node.log, &w, e);
    if (r == 0)
        node.handed += n;
    if (wr.cap > (size_t)16 * KEEP_ENTRIES) {
        free(wr.v);
        wr.v = NULL;
        wr.cap = 0;
    }
    return r;
}

/* A snapshot of the leader takes the place of the log and the maps. Rare: everything waits for it. */
static void install(void)
{
    struct err e = ERR_INIT;
    struct job *j = &wr.now;
    int r = begin(&e); /* what came before it */
    if (r == 0)
        r = raft_log_end_write(node.log, raft_log_sync(node.log), &e);
    if (r == 0)
        r = raft_log_install(node.log, j->install_index, j->install_term, &e);
    if (r < 0) {
        write_failed(&e);
        return;
    }
    node.handed = log_last();
    tail_clear(&node.tail);
    log_info("installed the leader's snapshot index=%llu", (unsigned long long)j->install_index);
    if (node_maps_replace(&e) < 0) {
        give_up("make the maps from the leader's snapshot", &e);
        return;
    }
    requests_snapshot(j->install_index);
    write_done();
}

bool write_pending(void)
{
    return node.writing || wr.next.last != 0;
}

bool write_go(void)
{
    struct err e = ERR_INIT;
    struct raft_status s;
    if (node.writing || wr.next.last == 0)
        return false;
    peers_flush(); /* the others write at the same time */
    wr.now = wr.next;
    wr.next = (struct job){ 0 };
    if (wr.now.install_index != 0) {
        install();
        return true;
    }
    if (begin(&e) < 0) {
        write_failed(&e);
        return true;
    }
    raft_status(node.core, &s);
    wr.began_us = now_us();
    bool alone = s.members.n == 1, starting = alone && !s.ready;
    bool here = starting || ((alone || s.role == RAFT_FOLLOWER) && disk_is_fast());
    if (!here && thread_start()) {
        node.writing = true;
        CHECK(signal_fd(wr.go));
        return false;
    }
    write_end(raft_log_sync(node.log));
    return true;
}

int log_entry_at(uint64_t index, struct raft_log_entry *ret, struct err *e)
{
    return tail_get(&node.tail, index, ret) ? 0 : raft_log_read(node.log, index, &node.scratch, ret, e);
}

void write_open(void)
{
    node.handed = log_last();
}

void write_close(void)
{
    thread_stop();
    wr.tail = timer_free(wr.tail);
    wr.tail_due = false;
    wr.now = wr.next = (struct job){ 0 };
    free(wr.v);
    wr.v = NULL;
    wr.cap = 0;
    tail_clear(&node.tail);
    node.handed = 0;
}
