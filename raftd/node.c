/* node.c - the shell around core, log and maps. */
#include "raftd/node.h"

#include <errno.h>
#include <grp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/daemon/daemon.h"
#include "common/util/check.h"
#include "common/util/clock.h"
#include "common/util/dir.h"
#include "common/util/id.h"
#include "raftd/pub.h"

#define BATCH_ENTRIES 1024u
#define BATCH_BYTES (8u << 20)
#define APPLY_ENTRIES 2048u
#define RETRY_MS 500u
#define COMPACT_SLICE 2000u
#define READERS_CHECK_MS 1000u
#define KEEP_BUFFER_BYTES (256u << 10) /* idle memory */

/* A request that waits for its entry to be applied. */
struct waiter {
    struct waiter *next;
    struct rpc_call *call;
    uint64_t index;  /* 0: not in the log yet */
    size_t off, len; /* its entry in node.batch */
    struct err result;
    uint64_t revision;
};

struct snapshot_job {
    pthread_t thread;
    struct sm_snap *snap;
    char dir[512];
    struct seal_key key;
    struct err err;
    int event_fd;
    uint64_t started_ms;
};

static struct {
    char dir[512], run_dir[CONF_TEXT_MAX];
    struct raft *core;
    struct raft_log *log;
    struct sm *sm;
    struct pub *pub;
    struct raft_effects effects;

    struct buf batch; /* entries of the proposals that wait for the next write */
    struct waiter *queued, **queued_tail;
    size_t n_queued;
    struct waiter *waiting, **waiting_tail;       /* written, not applied yet; in order of index */
    struct raft_log_entry entries[BATCH_ENTRIES]; /* of the write at hand */
    sd_event_source *flush;

    struct rpc_call *reads[RAFT_READS_MAX]; /* by cookie */
    uint64_t commit;                        /* as the core said last */
    char stalled[200];
    struct timer *retry;

    struct snapshot_job *job;
    sd_event_source *job_done, *compact;
    uint64_t compact_index, compact_keep, next_snapshot, log_bytes_at_snapshot;
    uint64_t interval, keep;
    bool want_snapshot, cluster_changed, role_changed;
    uint64_t readers_checked_ms;
    struct buf scratch;
} node;

struct node_conf node_conf;
struct node_counts node_counts;

static int step(struct raft_event *ev, struct err *e);
static void apply_committed(void);

static const char *role_text(const struct raft_status *s)
{
    return s->role == RAFT_LEADER && !s->ready ? "candidate" : raft_role_name(s->role);
}

/* A finding that nothing may be built upon: systemd starts us again, and opening verifies everything. */
static void give_up(const char *what, const struct err *e)
{
    log_msg(LOG_L_FATAL, "%s: %s", what, e->msg);
    daemon_exit(1);
}

/* ---- waiters ---- */

static void waiters_init(void)
{
    node.queued_tail = &node.queued;
    node.waiting_tail = &node.waiting;
}

static struct waiter *pop(struct waiter **head, struct waiter ***tail)
{
    struct waiter *w = *head;
    if (w == NULL)
        return NULL;
    *head = w->next;
    if (*head == NULL)
        *tail = head;
    w->next = NULL;
    return w;
}

static void push(struct waiter *w, struct waiter ***tail)
{
    w->next = NULL;
    **tail = w;
    *tail = &w->next;
}

static void answer(struct waiter *w)
{
    struct raftd_txn_reply rep = { .Revision = w->revision };
    if (w->result.code != 0)
        rpc_fail_err(w->call, &w->result);
    else
        rpc_reply(w->call, &rep);
    free(w);
}

static void refuse_queued(const struct err *e)
{
    for (struct waiter *w; (w = pop(&node.queued, &node.queued_tail)) != NULL;) {
        w->result = *e;
        node_counts.refused++;
        answer(w);
    }
    node.n_queued = 0;
    node.entries[0].index = 0;
    buf_clear(&node.batch);
}

/* ---- writing what the core wants durable ---- */

static size_t entries_fill(const struct raft_effects *fx)
{
    size_t n = 0;
    struct waiter *w = node.queued;
    for (uint64_t i = fx->append_from; i <= fx->append_to; i++, n++) {
        CHECK(n < BATCH_ENTRIES);
        node.entries[n] = (struct raft_log_entry){ .index = i, .term = fx->append_term, .type = fx->append_type };
        if (fx->append_type != RAFT_ENTRY_DATA)
            continue;
        CHECK(w != NULL);
        node.entries[n].data = (struct str){ node.batch.p + w->off, w->len };
        w->index = i;
        w = w->next;
    }
    return n;
}

static int persist(const struct raft_effects *fx, struct err *e)
{
    struct raft_hard_state hs = fx->hard_state;
    struct raft_log_write w = {
        .truncate_from = fx->truncate_from,
        .entries = node.entries,
        .n_entries = entries_fill(fx),
        .hard_state = fx->hard_state_changed ? &hs : NULL,
    };
    struct raft_event ev = { .now = clock_mono(), .type = RAFT_EV_PERSISTED, .write = fx->write };
    int r = raft_log_write(node.log, &w, e);
    if (r == 0)
        return step(&ev, e);
    if (raft_log_broken(node.log)) {
        give_up("write log", e);
        return r;
    }
    struct err ignored = ERR_INIT;
    ev = (struct raft_event){ .now = clock_mono(), .type = RAFT_EV_WRITE_FAILED, .write = ev.write };
    (void)step(&ev, &ignored);
    return r;
}

static void release_reads(const struct raft_effects *fx)
{
    struct raftd_txn_reply rep = { .Revision = sm_revision(node.sm) };
    for (size_t i = 0; i < fx->n_reads; i++) {
        struct rpc_call *c = node.reads[fx->reads[i].cookie];
        node.reads[fx->reads[i].cookie] = NULL;
        /* Everything acknowledged was applied before: nothing to wait for. */
        if (fx->reads[i].index == 0 || sm_applied(node.sm) < fx->reads[i].index)
            rpc_fail(c, ERR_UNAVAILABLE, "%s", node.stalled[0] ? node.stalled : "this node is not the leader any more");
        else
            rpc_reply(c, &rep);
    }
}

/* step - one event into the core, and its effects in the order that core/raft.h asks for. */
static int step(struct raft_event *ev, struct err *e)
{
    int r = raft_step(node.core, ev, &node.effects, e);
    if (r < 0)
        return r;
    struct raft_effects *fx = &node.effects;
    CHECK(fx->n_msgs == 0); /* nobody to send to */
    node.role_changed |= fx->role_changed;
    node.want_snapshot |= fx->want_snapshot;
    if (fx->apply_to > node.commit)
        node.commit = fx->apply_to;
    release_reads(fx);
    if (fx->append_from <= fx->append_to || fx->hard_state_changed)
        return persist(fx, e);
    return 0;
}

/* ---- applying ---- */

static int entry_at(uint64_t index, struct raft_log_entry *ret, struct err *e)
{
    uint64_t first = node.entries[0].index;
    if (node.batch.n > 0 && first != 0 && index >= first && index - first < BATCH_ENTRIES &&
        node.entries[index - first].index == index) {
        *ret = node.entries[index - first];
        return 0;
    }
    return raft_log_read(node.log, index, &node.scratch, ret, e);
}

static void waiter_result(uint64_t index, const struct err *result, uint64_t revision)
{
    struct waiter *w = node.waiting;
    while (w != NULL && w->index < index)
        w = w->next;
    if (w == NULL || w->index != index)
        return;
    w->result = *result;
    w->revision = revision;
}

static int apply_some(uint64_t to, struct err *e)
{
    struct raft_log_entry en;
    struct err result;
    uint64_t revision = 0, from = sm_applied(node.sm) + 1;
    int r = sm_begin(node.sm, e);
    for (uint64_t i = from; r == 0 && i <= to; i++) {
        r = entry_at(i, &en, e);
        if (r == 0)
            r = sm_apply(node.sm, &en, &result, &revision, e);
        if (r == 0)
            waiter_result(i, &result, revision);
        if (r == 0 && result.code != 0)
            node_counts.conflicts++;
    }
    if (r == 0)
        r = sm_commit(node.sm, e);
    else
        sm_abort(node.sm);
    return r;
}

static void answer_applied(uint64_t applied)
{
    while (node.waiting != NULL && node.waiting->index <= applied)
        answer(pop(&node.waiting, &node.waiting_tail));
}

static void on_retry(void *arg)
{
    struct err e = ERR_INIT;
    (void)arg;
    if (node.core == NULL)
        return;
    struct raft_event ev = { .now = clock_mono(), .type = RAFT_EV_TICK };
    if (step(&ev, &e) < 0) {
        snprintf(node.stalled, sizeof node.stalled, "%.190s", e.msg);
        timer_arm(node.retry, clock_mono().ms + RETRY_MS);
        return;
    }
    apply_committed();
}

/* The entries are committed and can't be taken back: wait for space, and refuse new ones meanwhile. */
static void stall(const struct err *e)
{
    if (sm_torn(node.sm) || (e->code != ERR_IO && e->code != ERR_NOMEM)) {
        give_up("apply", e);
        return;
    }
    if (node.stalled[0] == 0)
        log_error("cannot apply: %s; trying again", e->msg);
    snprintf(node.stalled, sizeof node.stalled, "%.190s", e->msg);
    timer_arm(node.retry, clock_mono().ms + RETRY_MS);
}

static void role_publish(void)
{
    struct raft_status s;
    struct err e = ERR_INIT;
    raft_status(node.core, &s);
    node.role_changed = false;
    if (s.role == RAFT_LEADER && !s.ready)
        return; /* a moment later */
    const char *leader = s.ready ? raft_log_identity(node.log)->node_id : "";
    if (sm_set_role(node.sm, s.term, s.ready, leader, &e) < 0) {
        node.role_changed = true;
        stall(&e);
        return;
    }
    node.stalled[0] = 0;
    log_info("role=%s term=%llu applied=%llu revision=%llu", role_text(&s), (unsigned long long)s.term,
             (unsigned long long)s.applied, (unsigned long long)sm_revision(node.sm));
    pub_role(node.pub, role_text(&s), s.term);
}

static void cluster_read(void);
static void snapshot_consider(void);

static void readers_check(uint64_t now_ms)
{
    sm_tick(node.sm, now_ms);
    if (now_ms - node.readers_checked_ms < READERS_CHECK_MS)
        return;
    node.readers_checked_ms = now_ms;
    node_counts.stale_readers += sm_clear_readers(node.sm);
}

static bool apply_round(void)
{
    struct err e = ERR_INIT;
    uint64_t from = sm_applied(node.sm), to = node.commit;
    if (to <= from)
        return true;
    if (to - from > APPLY_ENTRIES)
        to = from + APPLY_ENTRIES;
    if (apply_some(to, &e) < 0) {
        stall(&e);
        return false;
    }
    node.stalled[0] = 0;
    struct raft_event ev = { .now = clock_mono(), .type = RAFT_EV_APPLIED, .index = to };
    CHECK(step(&ev, &e) == 0);
    return true;
}

static void apply_committed(void)
{
    struct err e = ERR_INIT;
    struct raft_status s;
    uint64_t before = sm_applied(node.sm), t0 = clock_mono().ms;
    bool done = false;
    while (sm_applied(node.sm) < node.commit)
        if (!apply_round())
            break;
    raft_status(node.core, &s);
    done = s.applied >= s.committed;
    if (node.role_changed && done)
        role_publish();
    if (s.ready && !sm_published(node.sm) && sm_publish(node.sm, &e) < 0) {
        give_up("publish the map", &e);
        return;
    }
    answer_applied(sm_applied(node.sm));
    if (sm_applied(node.sm) != before || node.role_changed)
        pub_wake(node.pub, sm_revision(node.sm));
    if (node.cluster_changed)
        cluster_read();
    readers_check(t0);
    snapshot_consider();
}

/* ---- proposals ---- */

static void flush(void)
{
    struct err e = ERR_INIT;
    uint64_t bytes = node.batch.n;
    if (node.n_queued == 0)
        return;
    node_counts.batches++;
    node_counts.txns += node.n_queued;
    if (node.n_queued > node_counts.batch_max)
        node_counts.batch_max = node.n_queued;
    struct raft_event ev = {
        .now = clock_mono(),
        .type = RAFT_EV_PROPOSE,
        .n_entries = (uint32_t)node.n_queued,
        .bytes = bytes,
    };
    if (step(&ev, &e) < 0) {
        refuse_queued(&e);
        return;
    }
    *node.waiting_tail = node.queued;
    node.waiting_tail = node.queued_tail;
    node.queued = NULL;
    node.queued_tail = &node.queued;
    node.n_queued = 0;
    apply_committed();
    buf_clear(&node.batch);
    node.entries[0].index = 0;
    if (node.batch.cap > KEEP_BUFFER_BYTES)
        buf_done(&node.batch);
    if (node.scratch.cap > KEEP_BUFFER_BYTES)
        buf_done(&node.scratch);
}

static int on_flush(sd_event_source *s, void *arg)
{
    (void)s, (void)arg;
    flush();
    return 0;
}

static bool may_propose(struct rpc_call *c)
{
    struct raft_status s;
    if (node.core == NULL) {
        rpc_fail(c, ERR_UNAVAILABLE, "this node is not part of a swarm");
        return false;
    }
    raft_status(node.core, &s);
    if (node.stalled[0] != 0) {
        rpc_fail(c, ERR_IO, "%s", node.stalled);
        return false;
    }
    if (s.role != RAFT_LEADER) {
        rpc_fail(c, ERR_UNAVAILABLE, "the swarm has no leader just now");
        return false;
    }
    return true;
}

/* Removing needs little space, and makes some: it goes on when the store is full. */
static bool grows(const struct entry *en)
{
    const struct txn_change *ch = en->Changes.v;
    for (size_t i = 0; i < en->Changes.n; i++)
        if (ch[i].Doc.n > 0)
            return true;
    return false;
}

void node_propose(struct rpc_call *c, const struct entry *en)
{
    struct err e = ERR_INIT;
    if (!may_propose(c))
        return;
    size_t off = node.batch.n;
    entry_encode(en, &node.batch);
    if (node.batch.failed || node.batch.n - off > TXN_BYTES_MAX) {
        bool big = !node.batch.failed;
        node.batch.failed = false;
        node.batch.n = off;
        rpc_fail(c, big ? ERR_TOO_BIG : ERR_NOMEM, big ? "the transaction is over %u bytes" : "out of memory",
                 TXN_BYTES_MAX);
        return;
    }
    /* Twice its size: documents, and index entries with their pages. */
    if (grows(en) && !sm_room(node.sm, 2 * node.batch.n, &e)) {
        node.batch.n = off;
        node_counts.refused++;
        rpc_fail_err(c, &e);
        return;
    }
    struct waiter *w = calloc(1, sizeof *w);
    CHECK(w != NULL);
    *w = (struct waiter){ .call = c, .off = off, .len = node.batch.n - off };
    push(w, &node.queued_tail);
    node.n_queued++;
    if (node.n_queued == BATCH_ENTRIES || node.batch.n >= BATCH_BYTES)
        flush();
    else
        sd_event_source_set_enabled(node.flush, SD_EVENT_ONESHOT);
}

void node_barrier(struct rpc_call *c)
{
    struct err e = ERR_INIT;
    uint64_t cookie = 0;
    if (!may_propose(c))
        return;
    while (cookie < RAFT_READS_MAX && node.reads[cookie] != NULL)
        cookie++;
    if (cookie == RAFT_READS_MAX) {
        rpc_fail(c, ERR_UNAVAILABLE, "too many barriers wait already");
        return;
    }
    struct raft_event ev = { .now = clock_mono(), .type = RAFT_EV_READ, .cookie = cookie };
    node.reads[cookie] = c;
    if (step(&ev, &e) < 0) {
        node.reads[cookie] = NULL;
        rpc_fail_err(c, &e);
    }
}

/* ---- snapshots ---- */

static bool cluster_doc(void *arg, struct str id, struct str doc)
{
    uint64_t v;
    (void)arg, (void)id;
    if (mp_get_u64(doc, "Spec.Raft.SnapshotInterval", &v) && v > 0)
        node.interval = v;
    if (mp_get_u64(doc, "Spec.Raft.LogEntriesForSlowFollowers", &v) && v > 0)
        node.keep = v;
    return false;
}

static void cluster_read(void)
{
    node.cluster_changed = false;
    node.interval = node_conf.snapshot_interval;
    node.keep = node_conf.snapshot_keep;
    (void)sm_list(node.sm, KIND_CLUSTER, cluster_doc, NULL, NULL);
}

static void *snapshot_thread(void *arg)
{
    struct snapshot_job *j = arg;
    uint64_t one = 1;
    j->err = (struct err)ERR_INIT;
    (void)sm_snap_write(j->snap, j->dir, &j->key, &j->err);
    if (write(j->event_fd, &one, sizeof one) < 0)
        CHECK(errno == EAGAIN);
    return NULL;
}

static void job_free(struct snapshot_job *j)
{
    sm_snap_end(j->snap);
    if (j->event_fd >= 0)
        close(j->event_fd);
    explicit_bzero(&j->key, sizeof j->key);
    free(j);
}

static int on_compact(sd_event_source *s, void *arg)
{
    struct err e = ERR_INIT;
    struct raft_log_state st;
    bool more = false;
    (void)s, (void)arg;
    if (node.log == NULL ||
        raft_log_compact(node.log, node.compact_index, node.compact_keep, COMPACT_SLICE, &more, &e) < 0) {
        if (node.log != NULL && raft_log_broken(node.log))
            give_up("truncate log", &e);
        else if (node.log != NULL)
            log_warn("cannot truncate the log: %s", e.msg);
        return 0;
    }
    raft_log_state(node.log, &st);
    struct raft_event ev = {
        .now = clock_mono(), .type = RAFT_EV_COMPACTED, .index = st.snapshot_index, .first_kept = st.first_index
    };
    CHECK(step(&ev, &e) == 0);
    if (more)
        sd_event_source_set_enabled(node.compact, SD_EVENT_ONESHOT);
    return 0;
}

static int on_job_done(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
    struct snapshot_job *j = node.job;
    uint64_t now = clock_mono().ms, index = sm_snap_index(j->snap);
    (void)s, (void)fd, (void)revents, (void)arg;
    pthread_join(j->thread, NULL);
    node.job_done = sd_event_source_disable_unref(node.job_done);
    node.job = NULL;
    if (j->err.code != 0) {
        node_counts.snapshot_failures++;
        node.next_snapshot = sm_applied(node.sm) + node.interval / 10 + 1;
        log_warn("snapshot failed, trying again later: %s", j->err.msg);
        job_free(j);
        return 0;
    }
    node_counts.snapshots++;
    node_counts.snapshot_ms = now - j->started_ms;
    node.compact_index = index;
    node.compact_keep = index > node.keep ? index - node.keep + 1 : 1;
    log_info("snapshot index=%llu ms=%llu", (unsigned long long)index, (unsigned long long)(now - j->started_ms));
    job_free(j);
    sd_event_source_set_enabled(node.compact, SD_EVENT_ONESHOT);
    return 0;
}

static int job_start(struct snapshot_job *j, struct err *e)
{
    pthread_attr_t attr;
    int r = sm_snap_begin(node.sm, &j->snap, e);
    if (r < 0)
        return r;
    j->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (j->event_fd < 0)
        return err_errno(e, errno, "eventfd");
    r = sd_event_add_io(daemon_loop(), &node.job_done, j->event_fd, 1 /* EPOLLIN */, on_job_done, NULL);
    if (r < 0)
        return err_errno(e, -r, "watch the snapshot");
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 256 << 10);
    r = pthread_create(&j->thread, &attr, snapshot_thread, j);
    pthread_attr_destroy(&attr);
    if (r != 0)
        node.job_done = sd_event_source_disable_unref(node.job_done);
    return r == 0 ? 0 : err_errno(e, r, "start the snapshot's thread");
}

static void snapshot_start(void)
{
    struct err e = ERR_INIT;
    struct raft_log_counts lc;
    struct snapshot_job *j = calloc(1, sizeof *j);
    CHECK(j != NULL);
    j->event_fd = -1;
    j->started_ms = clock_mono().ms;
    j->key = *raft_log_key(node.log);
    snprintf(j->dir, sizeof j->dir, "%s", raft_log_dir(node.log));
    raft_log_counts(node.log, &lc);
    node.log_bytes_at_snapshot = lc.bytes;
    node.want_snapshot = false;
    if (job_start(j, &e) < 0) {
        node.next_snapshot = sm_applied(node.sm) + node.interval / 10 + 1;
        log_warn("cannot take a snapshot: %s", e.msg);
        job_free(j);
        return;
    }
    node.job = j;
}

static void snapshot_consider(void)
{
    struct raft_log_state st;
    struct raft_log_counts lc;
    uint64_t applied = sm_applied(node.sm);
    if (node.job != NULL || applied < node.next_snapshot)
        return;
    raft_log_state(node.log, &st);
    raft_log_counts(node.log, &lc);
    if (applied == st.snapshot_index)
        return;
    if (applied - st.snapshot_index >= node.interval || node.want_snapshot ||
        lc.bytes - node.log_bytes_at_snapshot >= node_conf.snapshot_bytes)
        snapshot_start();
}

static void snapshot_abandon(void)
{
    if (node.job == NULL)
        return;
    sm_snap_cancel(node.job->snap);
    pthread_join(node.job->thread, NULL);
    node.job_done = sd_event_source_disable_unref(node.job_done);
    job_free(node.job);
    node.job = NULL;
}

/* ---- starting and leaving ---- */

static void on_touch(void *arg, enum kind kind, struct str id, char op, uint64_t revision)
{
    (void)arg;
    if (kind == KIND_CLUSTER)
        node.cluster_changed = true;
    pub_event(node.pub, kind, id, op, revision);
}

static int secret_group(struct sm_conf *c, struct err *e)
{
    struct group *g;
    uint64_t n;
    c->secret_gid = (gid_t)-1;
    if (node_conf.secret_group[0] == 0) {
        c->secret_private = true;
        return 0;
    }
    if (str_u64(str_from(node_conf.secret_group), &n) && n < UINT32_MAX) {
        c->secret_gid = (gid_t)n;
        return 0;
    }
    errno = 0;
    g = getgrnam(node_conf.secret_group);
    if (g == NULL && errno != 0 && errno != ENOENT)
        return err_errno(e, errno, "secret_group %s", node_conf.secret_group);
    if (g == NULL)
        c->secret_private = true; /* no such group: nobody else */
    else
        c->secret_gid = g->gr_gid;
    return 0;
}

static int maps_open(const struct raft_log_identity *id, const struct raft_log_state *st, struct err *e)
{
    struct sm_conf c = { .run_dir = node.run_dir };
    struct err why = ERR_INIT;
    bool fresh = false;
    int r = secret_group(&c, e);
    if (r == 0)
        r = sm_open(&node.sm, &c, id, st->first_index, st->last_index, &fresh, &why, e);
    if (r < 0)
        return r;
    sm_on_touch(node.sm, on_touch, NULL);
    if (why.code != 0)
        log_info("making the maps anew: %s", why.msg);
    if (!fresh)
        return 0;
    if (id == NULL)
        return sm_publish(node.sm, e);
    if (st->snapshot_index == 0)
        return 0;
    return sm_restore(node.sm, raft_log_dir(node.log), raft_log_key(node.log), st->snapshot_index, st->snapshot_term,
                      e);
}

static uint64_t term_of(void *arg, uint64_t index)
{
    return raft_log_term(arg, index);
}

static int core_open(const struct raft_log_identity *id, struct raft_log_state *st, struct err *e)
{
    struct raft_config c = {
        .id = id->id, .members = { 1, { { id->id, false } } }, .heartbeat_ms = 100, .election_ms = 1000
    };
    random_bytes(&c.seed, sizeof c.seed);
    st->applied = sm_applied(node.sm);
    node.commit = st->applied;
    return raft_new(&node.core, &c, st, term_of, node.log, e);
}

static void swarm_close(void)
{
    snapshot_abandon();
    node.core = raft_free(node.core);
    node.log = raft_log_close(node.log);
    node.sm = sm_close(node.sm);
    node.stalled[0] = 0;
    node.commit = node.next_snapshot = node.log_bytes_at_snapshot = 0;
    node.want_snapshot = node.role_changed = node.cluster_changed = false;
}

static int alone_open(struct err *e)
{
    struct raft_log_state none = { .first_index = 1 };
    return maps_open(NULL, &none, e);
}

/* swarm_open - this node's log, maps as of it, and the election, which a single voter wins by writing it down. */
static int swarm_open(struct err *e)
{
    struct raft_log_state st;
    int r = raft_log_open(&node.log, node.dir, e);
    if (r < 0)
        return r;
    const struct raft_log_identity *id = raft_log_identity(node.log);
    raft_log_state(node.log, &st);
    r = maps_open(id, &st, e);
    if (r == 0)
        r = core_open(id, &st, e);
    if (r < 0)
        return r;
    cluster_read();
    node.role_changed = true;
    on_retry(NULL);
    return 0;
}

static int dir_make(struct err *e)
{
    snprintf(node.run_dir, sizeof node.run_dir, "%s", daemon_run_dir());
    if ((size_t)snprintf(node.dir, sizeof node.dir, "%s/raft", daemon_state_dir()) > 300)
        return err_set(e, ERR_INVALID, "state folder: path is too long");
    return dir_own(node.dir, 0700, e);
}

int node_start(struct err *e)
{
    waiters_init();
    int r = dir_make(e);
    if (r == 0)
        r = sd_event_add_defer(daemon_loop(), &node.flush, on_flush, NULL);
    if (r >= 0)
        r = sd_event_add_defer(daemon_loop(), &node.compact, on_compact, NULL);
    if (r < 0)
        return e->code ? r : err_errno(e, -r, "event loop");
    sd_event_source_set_enabled(node.flush, SD_EVENT_OFF);
    /* After everything that has arrived meanwhile: it all goes into one write. node_propose() bounds how much. */
    sd_event_source_set_priority(node.flush, SD_EVENT_PRIORITY_NORMAL + 10);
    sd_event_source_set_enabled(node.compact, SD_EVENT_OFF);
    r = timer_open(&node.retry, on_retry, NULL, e);
    if (r == 0)
        r = pub_open(&node.pub, node.run_dir, e);
    if (r == 0)
        r = raft_log_exists(node.dir) ? swarm_open(e) : alone_open(e);
    return r;
}

void node_stop(void)
{
    swarm_close();
    node.pub = pub_close(node.pub);
    node.retry = timer_free(node.retry);
    node.flush = sd_event_source_disable_unref(node.flush);
    node.compact = sd_event_source_disable_unref(node.compact);
    for (struct waiter *w;
         (w = pop(&node.waiting, &node.waiting_tail)) != NULL || (w = pop(&node.queued, &node.queued_tail)) != NULL;)
        free(w);
    buf_done(&node.batch);
    buf_done(&node.scratch);
}

/* The maps of before stay until the new ones are there. */
static int bootstrap(struct str cluster_id, struct str node_id, const struct entry *en, struct err *e)
{
    struct raft_log_identity id = { .id = 0 };
    struct buf first = BUF_INIT;
    if (!str_copy(id.cluster_id, sizeof id.cluster_id, cluster_id) || !str_copy(id.node_id, sizeof id.node_id, node_id))
        return err_set(e, ERR_INVALID, "ClusterID, NodeID: too long");
    while (id.id == 0)
        random_bytes(&id.id, sizeof id.id);
    struct raft_hard_state hs = { .term = 1, .vote = id.id };
    entry_encode(en, &first);
    int r =
        first.failed ? err_set(e, ERR_NOMEM, "out of memory") : raft_log_create(node.dir, &id, &hs, buf_str(&first), e);
    buf_done(&first);
    return r;
}

static void bootstrap_undo(void)
{
    struct err e = ERR_INIT;
    if (node_reset(&e) < 0)
        give_up("undo the start of a swarm", &e);
}

void node_bootstrap(struct rpc_call *c, struct str cluster_id, struct str node_id, const struct entry *en)
{
    struct err e = ERR_INIT;
    struct waiter w = { .index = 1 };
    if (node.core != NULL) {
        rpc_fail(c, ERR_PRECONDITION, "this node is already part of a swarm");
        return;
    }
    if (bootstrap(cluster_id, node_id, en, &e) < 0) {
        rpc_fail_err(c, &e);
        return;
    }
    swarm_close();
    /* A waiter of our own, not answered but looked at: entry 1 is applied within swarm_open(). */
    struct waiter *h = calloc(1, sizeof *h);
    CHECK(h != NULL);
    *h = w;
    h->call = c;
    h->result.code = ERR_UNAVAILABLE;
    snprintf(h->result.msg, sizeof h->result.msg, "the swarm is not up yet");
    push(h, &node.waiting_tail);
    if (swarm_open(&e) < 0) {
        (void)pop(&node.waiting, &node.waiting_tail);
        free(h);
        rpc_fail_err(c, &e);
        bootstrap_undo();
        return;
    }
    struct raft_status s;
    raft_status(node.core, &s);
    if (s.applied >= 1 && sm_revision(node.sm) == 0) /* its first transaction did not hold; the caller knows */
        bootstrap_undo();
}

static void fail_all(const char *why)
{
    for (struct waiter *w; (w = pop(&node.waiting, &node.waiting_tail)) != NULL;) {
        err_set(&w->result, ERR_UNAVAILABLE, "%s", why);
        answer(w);
    }
    for (unsigned i = 0; i < RAFT_READS_MAX; i++) {
        if (node.reads[i] != NULL)
            rpc_fail(node.reads[i], ERR_UNAVAILABLE, "%s", why);
        node.reads[i] = NULL;
    }
}

int node_reset(struct err *e)
{
    struct err gone = { ERR_UNAVAILABLE, "this node leaves the swarm" };
    refuse_queued(&gone);
    fail_all(gone.msg);
    swarm_close();
    int r = raft_log_erase(node.dir, e);
    if (r == 0)
        r = alone_open(e);
    if (r == 0)
        pub_wake(node.pub, 0);
    return r;
}

/* ---- what is told to others ---- */

void node_status(struct node_status *ret)
{
    struct raft_log_state st;
    *ret = (struct node_status){ .initialized = node.core != NULL, .snapshotting = node.job != NULL };
    if (node.sm != NULL) {
        ret->revision = sm_revision(node.sm);
        ret->map_bytes = sm_used_bytes(node.sm);
    }
    if (node.core == NULL)
        return;
    raft_status(node.core, &ret->raft);
    raft_log_state(node.log, &st);
    ret->snapshot_index = st.snapshot_index;
    ret->id = *raft_log_identity(node.log);
    snprintf(ret->stalled, sizeof ret->stalled, "%s", node.stalled);
}

void node_log_counts(struct raft_log_counts *ret)
{
    *ret = (struct raft_log_counts){ 0 };
    if (node.log != NULL)
        raft_log_counts(node.log, ret);
}

struct sm *node_sm(void)
{
    return node.sm;
}
