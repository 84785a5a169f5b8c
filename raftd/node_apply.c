/* node_apply.c - committed entries into the maps, and what others are told about it. */
#include <stdio.h>

#include "raftd/node_priv.h"

#define APPLY_ENTRIES 2048u
#define APPLY_SLICE_MS 50u /* then messages and heartbeats have a turn */
#define READERS_CHECK_MS 1000u
#define PUBLISH_WAIT_MS 3000u
/* A wake-up costs each daemon of the host about as much as a transaction costs raftd. A chain of them follows each
 * change at once; in a long run of writes several share one. */
#define WAKE_BURST 10u
#define WAKE_EACH_MS 8u
#define WAKE_EACH_STANDBY_MS 40u /* where nobody acts on it */
/* A commit of the map costs as much as a dozen of small transactions in it. */
#define LAZY_MS 10u
#define LAZY_ENTRIES 512u
#define TAIL_BYTES (1u << 20)
#define TAIL_ENTRIES 4096u
#define AHEAD_ENTRIES 512u /* a turn's */

static struct {
    uint64_t readers_checked_ms, opened_ms, opened_last;
    uint64_t woken; /* applied, as was told last */
    uint64_t wake_credit, wake_filled_ms;
    struct timer *wake, *lazy;
    bool wake_due;
    uint64_t applied_ms;
    uint64_t ahead_to, ahead_term; /* applied in the open batch, up to this entry of that term; 0: nothing */
    /* as META_* say it */
    bool told, leader;
    uint64_t term;
    char leader_id[65];
} ap;

static void readers_check(uint64_t now_ms)
{
    sm_tick(node.sm, now_ms);
    if (now_ms - ap.readers_checked_ms < READERS_CHECK_MS)
        return;
    ap.readers_checked_ms = now_ms;
    node_counts.stale_readers += sm_clear_readers(node.sm);
}

static void wake_now(void)
{
    ap.wake_due = false;
    ap.woken = sm_applied(node.sm);
    pub_wake(node.pub, sm_revision(node.sm));
    readers_check(clock_mono().ms);
}

static void on_wake(void *arg)
{
    (void)arg;
    if (ap.wake_due && node.sm != NULL)
        wake_now();
}

static void wake(void)
{
    uint64_t each = ap.leader ? WAKE_EACH_MS : WAKE_EACH_STANDBY_MS;
    uint64_t now = clock_mono().ms, n = (now - ap.wake_filled_ms) / each;
    ap.wake_filled_ms += n * each;
    ap.wake_credit = ap.wake_credit + n > WAKE_BURST ? WAKE_BURST : ap.wake_credit + n;
    if (ap.wake_credit > 0) {
        ap.wake_credit--;
        wake_now();
    } else if (!ap.wake_due) {
        ap.wake_due = true;
        timer_arm(ap.wake, ap.wake_filled_ms + each);
    }
}

static void on_lazy(void *arg)
{
    (void)arg;
    node_turn();
}

int apply_init(struct err *e)
{
    int r = timer_open(&ap.wake, on_wake, NULL, e);
    return r == 0 ? timer_open(&ap.lazy, on_lazy, NULL, e) : r;
}

void apply_close(void)
{
    ap.wake_due = false;
    ap.wake = timer_free(ap.wake);
    ap.lazy = timer_free(ap.lazy);
}

void apply_open(void)
{
    struct raft_status s;
    raft_status(node.core, &s);
    ap.opened_ms = clock_mono().ms;
    ap.opened_last = s.last_index;
    ap.told = false;
    ap.ahead_to = 0;
}

/* apply_range - into the open batch. */
static int apply_range(uint64_t from, uint64_t to, uint64_t *ret_term, struct err *e)
{
    struct raft_log_entry en;
    struct err result;
    uint64_t revision = 0;
    int r = 0;
    for (uint64_t i = from; r == 0 && i <= to; i++) {
        r = log_entry_at(i, &en, e);
        if (r == 0)
            r = sm_apply(node.sm, &en, &result, &revision, e);
        if (r == 0)
            requests_applied(i, en.term, &result, revision);
        if (r == 0 && (node.away.head != NULL || node.limbo.head != NULL))
            requests_seen(&en, &result, revision);
        if (r == 0 && result.code != 0)
            node_counts.conflicts++;
        if (r == 0)
            *ret_term = en.term;
    }
    return r;
}

/*
 * A leader applies what it has sent out while the disks are busy with it: when most managers have it, what is left is
 * to commit the maps. Until then no reader sees anything of it, nobody is answered (request.c goes by sm_applied()),
 * and it can be given back.
 */
void apply_give_back(void)
{
    if (ap.ahead_to == 0)
        return;
    ap.ahead_to = 0;
    sm_abort(node.sm);
    requests_apply_undo();
}

/* The log may have other entries by now. Up to one of the same index and term it is the same (Raft §5.3). */
static bool ahead_holds(void)
{
    struct raft_log_entry en;
    struct err e = ERR_INIT;
    return ap.ahead_to <= node.commit && log_entry_at(ap.ahead_to, &en, &e) == 0 && en.term == ap.ahead_term;
}

void apply_ahead(void)
{
    struct raft_status s;
    struct err e = ERR_INIT;
    uint64_t from = sm_applied(node.sm) + 1, to = node.handed;
    raft_status(node.core, &s);
    if (ap.ahead_to != 0 || from > to || node.commit >= from || s.role != RAFT_LEADER || !s.ready ||
        node.role_changed || node.stalled[0] != 0 || node.away.head != NULL || node.limbo.head != NULL)
        return;
    if (to - from >= AHEAD_ENTRIES)
        to = from + AHEAD_ENTRIES - 1;
    if (sm_begin(node.sm, &e) < 0)
        return;
    ap.ahead_to = to;
    if (apply_range(from, to, &ap.ahead_term, &e) < 0)
        apply_give_back(); /* when it is committed, it is tried again, and told */
}

static int apply_some(uint64_t to, struct err *e)
{
    uint64_t from = sm_applied(node.sm) + 1, term = 0;
    int r = 0;
    if (ap.ahead_to != 0 && !ahead_holds())
        apply_give_back();
    if (ap.ahead_to != 0)
        from = ap.ahead_to + 1;
    else
        r = sm_begin(node.sm, e);
    ap.ahead_to = 0;
    if (r == 0)
        r = apply_range(from, to, &term, e);
    if (r == 0)
        r = sm_commit(node.sm, e);
    else
        sm_abort(node.sm);
    if (r < 0)
        requests_apply_undo();
    return r;
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

static bool apply_round(void)
{
    struct err e = ERR_INIT;
    uint64_t from = sm_applied(node.sm), to = node.commit;
    if (to - from > APPLY_ENTRIES)
        to = from + APPLY_ENTRIES;
    if (apply_some(to, &e) < 0) {
        stall(&e);
        return false;
    }
    node.stalled[0] = 0;
    struct raft_event ev = { .type = RAFT_EV_APPLIED, .index = to };
    CHECK(node_step(&ev, &e) == 0);
    return true;
}

/* A follower of whose requests none waits gathers what is committed: for a first change after a while not at all, in a
 * run of them for some milliseconds. Who wants to read more than this asks for a barrier. */
static bool may_gather(uint64_t now)
{
    struct raft_status s;
    if (now - ap.applied_ms >= LAZY_MS || node.commit - sm_applied(node.sm) >= LAZY_ENTRIES || node.role_changed ||
        !sm_published(node.sm) || !requests_idle())
        return false;
    raft_status(node.core, &s);
    return s.role == RAFT_FOLLOWER;
}

bool apply_some_rounds(void)
{
    uint64_t now = clock_mono().ms, until = now + APPLY_SLICE_MS;
    if (sm_applied(node.sm) == node.commit)
        return false;
    if (may_gather(now)) {
        timer_arm(ap.lazy, ap.applied_ms + LAZY_MS);
        return false;
    }
    ap.applied_ms = now;
    while (sm_applied(node.sm) < node.commit) {
        if (clock_mono().ms >= until)
            return true;
        if (!apply_round())
            return false;
    }
    return false;
}

/* ---- what is told ---- */

static void role_publish(const struct raft_status *s)
{
    struct err e = ERR_INIT;
    const char *leader = node_leader(s);
    node.role_changed = false;
    if (ap.told && ap.leader == s->ready && ap.term == s->term && strcmp(ap.leader_id, leader) == 0)
        return;
    apply_give_back();
    if (sm_set_role(node.sm, s->term, s->ready, leader, &e) < 0) {
        node.role_changed = true;
        stall(&e);
        return;
    }
    ap.told = true;
    ap.leader = s->ready;
    ap.term = s->term;
    snprintf(ap.leader_id, sizeof ap.leader_id, "%s", leader);
    log_info("role=%s term=%llu leader=%s applied=%llu revision=%llu", node_role_text(s), (unsigned long long)s->term,
             leader[0] ? leader : "-", (unsigned long long)s->applied, (unsigned long long)sm_revision(node.sm));
    pub_role(node.pub, node_role_text(s), s->term);
    pub_wake(node.pub, sm_revision(node.sm));
}

/* A map that is made anew is shown when it is about as new as what this node knew before, or as the swarm is. */
static bool may_publish(const struct raft_status *s)
{
    uint64_t want = ap.opened_last < s->last_index ? ap.opened_last : s->last_index;
    if (s->ready)
        return true;
    if (!s->voter || sm_revision(node.sm) == 0)
        return false;
    if (s->leader != 0 && s->applied >= s->committed && s->applied >= want)
        return true;
    return clock_mono().ms - ap.opened_ms >= PUBLISH_WAIT_MS;
}

void apply_after(void)
{
    struct err e = ERR_INIT;
    struct raft_status s;
    raft_status(node.core, &s);
    if (node.role_changed)
        role_publish(&s);
    if (!sm_published(node.sm) && may_publish(&s)) {
        if (sm_publish(node.sm, &e) < 0) {
            give_up("publish the map", &e);
            return;
        }
        ap.woken = UINT64_MAX;
    }
    requests_answer();
    if (sm_published(node.sm) && sm_applied(node.sm) != ap.woken)
        wake();
    if (node.cluster_changed)
        cluster_read();
    if (node.autolock.due && autolock_follow(&node.autolock, node.sm, node.log, &e) < 0) {
        log_warn("autolock: %s; trying again", e.msg);
        timer_arm(node.retry, clock_mono().ms + RETRY_MS);
    }
    uint64_t done = s.applied < node.handed ? s.applied : node.handed;
    tail_evict(&node.tail, done, TAIL_BYTES, TAIL_ENTRIES);
}
