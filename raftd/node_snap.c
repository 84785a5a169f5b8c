/* node_snap.c - snapshots of the maps, made in a thread of their own, and what the log then no longer needs. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "raftd/node_priv.h"

#define COMPACT_SLICE 2000u
/* A snapshot writes the whole store. The larger that is, the more entries are waited for, so that snapshots cost no
 * more than a few times what the log does; within bounds, since a restart replays them. */
#define SMALL_STORE_BYTES (16u << 20)
#define LOG_SHARE 2u
#define INTERVALS_MAX 16u

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
    struct snapshot_job *job;
    sd_event_source *job_done;
    bool compact_due;
    uint64_t compact_index, compact_keep, next_snapshot, log_bytes_at_snapshot;
} sn;

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

void cluster_read(void)
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

/* snapshots_turn - cuts the log, some entries at a time. Not while something is written to it. */
void snapshots_turn(void)
{
    struct err e = ERR_INIT;
    struct raft_log_state st;
    if (!sn.compact_due || node.writing)
        return;
    if (raft_log_compact(node.log, sn.compact_index, sn.compact_keep, COMPACT_SLICE, &sn.compact_due, &e) < 0) {
        sn.compact_due = false;
        if (raft_log_broken(node.log))
            give_up("truncate log", &e);
        else
            log_warn("cannot truncate the log: %s", e.msg);
        return;
    }
    raft_log_state(node.log, &st);
    struct raft_event ev = { .type = RAFT_EV_COMPACTED, .index = st.snapshot_index, .first_kept = st.first_index };
    CHECK(node_step(&ev, &e) == 0);
    if (sn.compact_due)
        node_turn_soon();
}

/* Now and then is enough, and at this moment nobody else holds a snapshot of ours. */
static void maps_shrink(void)
{
    struct err e = ERR_INIT;
    uint64_t before = sm_used_bytes(node.sm);
    bool done;
    apply_give_back();
    int r = sm_shrink(node.sm, &done, &e);
    if (r < 0)
        log_warn("cannot make the maps smaller: %s", e.msg);
    else if (done)
        log_info("maps made smaller: %llu bytes, before %llu", (unsigned long long)sm_used_bytes(node.sm),
                 (unsigned long long)before);
}

static int on_job_done(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
    struct snapshot_job *j = sn.job;
    uint64_t now = clock_mono().ms, index = sm_snap_index(j->snap);
    (void)s, (void)fd, (void)revents, (void)arg;
    pthread_join(j->thread, NULL);
    sn.job_done = sd_event_source_disable_unref(sn.job_done);
    sn.job = NULL;
    if (j->err.code != 0) {
        node_counts.snapshot_failures++;
        sn.next_snapshot = sm_applied(node.sm) + node.interval / 10 + 1;
        log_warn("snapshot failed, trying again later: %s", j->err.msg);
        job_free(j);
        return 0;
    }
    node_counts.snapshots++;
    node_counts.snapshot_ms = now - j->started_ms;
    sn.compact_index = index;
    sn.compact_keep = index > node.keep ? index - node.keep + 1 : 1;
    log_info("snapshot index=%llu ms=%llu", (unsigned long long)index, (unsigned long long)(now - j->started_ms));
    job_free(j);
    maps_shrink();
    sn.compact_due = true;
    node_turn_soon();
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
    r = sd_event_add_io(daemon_loop(), &sn.job_done, j->event_fd, 1 /* EPOLLIN */, on_job_done, NULL);
    if (r < 0)
        return err_errno(e, -r, "watch the snapshot");
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 256 << 10);
    r = pthread_create(&j->thread, &attr, snapshot_thread, j);
    pthread_attr_destroy(&attr);
    if (r != 0)
        sn.job_done = sd_event_source_disable_unref(sn.job_done);
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
    sn.log_bytes_at_snapshot = lc.bytes;
    node.want_snapshot = false;
    if (job_start(j, &e) < 0) {
        sn.next_snapshot = sm_applied(node.sm) + node.interval / 10 + 1;
        log_warn("cannot take a snapshot: %s", e.msg);
        job_free(j);
        return;
    }
    sn.job = j;
}

static bool interval_over(uint64_t entries, uint64_t bytes)
{
    if (entries < node.interval)
        return false;
    uint64_t used = sm_used_bytes(node.sm);
    return used < SMALL_STORE_BYTES || bytes >= used / LOG_SHARE || entries / INTERVALS_MAX >= node.interval;
}

void snapshot_consider(void)
{
    struct raft_log_state st;
    struct raft_log_counts lc;
    uint64_t applied = sm_applied(node.sm);
    if (sn.job != NULL || sn.compact_due || applied < sn.next_snapshot)
        return;
    raft_log_state(node.log, &st);
    raft_log_counts(node.log, &lc);
    if (applied == st.snapshot_index)
        return;
    uint64_t bytes = lc.bytes - sn.log_bytes_at_snapshot;
    if (node.want_snapshot || bytes >= node_conf.snapshot_bytes || interval_over(applied - st.snapshot_index, bytes))
        snapshot_start();
}

void snapshot_abandon(void)
{
    if (sn.job == NULL)
        return;
    sm_snap_cancel(sn.job->snap);
    pthread_join(sn.job->thread, NULL);
    sn.job_done = sd_event_source_disable_unref(sn.job_done);
    job_free(sn.job);
    sn.job = NULL;
}

void snapshots_reset(void)
{
    snapshot_abandon();
    sn.compact_due = false;
    sn.next_snapshot = sn.log_bytes_at_snapshot = 0;
    node.want_snapshot = false;
}

bool snapshot_running(void)
{
    return sn.job != NULL;
}
