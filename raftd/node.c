/* node.c - the shell around core, log and maps: starting, stepping, leaving. */
#include "raftd/node.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util/dir.h"
#include "common/util/id.h"
#include "raftd/backup.h"
#include "raftd/node_priv.h"
#include "raftd/ops.h"
#include "raftd/peers.h"

#define APPEND_BYTES (1u << 20) /* in one message; a larger entry goes as a stream */
#define UNSETTLED_MAX (1u << 20)
#define NEWS_MS 3u
#define DRAIN_MS 1000u

struct node node;
struct node_conf node_conf;
struct node_counts node_counts;

static void node_drained(void);

static uint64_t tick_at;
static struct timer *drain;

const char *node_role_text(const struct raft_status *s)
{
    return s->role == RAFT_LEADER && !s->ready ? "candidate" : raft_role_name(s->role);
}

/* A finding that nothing may be built upon: systemd starts us again, and opening verifies everything. */
void give_up(const char *what, const struct err *e)
{
    log_msg(LOG_L_FATAL, "%s: %s", what, e->msg);
    daemon_exit(1);
}

const char *node_leader(const struct raft_status *s)
{
    const char *n = s->leader == 0                       ? NULL
                    : s->leader != s->id                 ? group_node_of(s->leader)
                    : s->role == RAFT_LEADER && s->ready ? raft_log_identity(node.log)->node_id
                                                         : NULL;
    return n ? n : "";
}

/* ---- what the core wants said ---- */

static struct {
    uint64_t from, to; /* encoded in `bytes`; from 0: nothing */
    size_t n;
    struct buf bytes;
} sending;

/* entries_encode - as many of them as fit into one message; at least one, when that one fits. */
static void entries_encode(const struct raft_msg *m)
{
    struct raft_log_entry en;
    struct err e = ERR_INIT;
    if (sending.from == m->entries_from && sending.to == m->entries_to)
        return; /* as for the member before */
    sending.from = m->entries_from;
    sending.to = m->entries_to;
    sending.n = 0;
    buf_clear(&sending.bytes);
    for (uint64_t i = m->entries_from; i <= m->entries_to && sending.n < PEER_ENTRIES_MAX; i++) {
        if (log_entry_at(i, &en, &e) < 0) {
            log_warn("read entry %llu to send it: %s", (unsigned long long)i, e.msg);
            return;
        }
        if (sending.bytes.n + en.data.n + PEER_ENTRY_OVERHEAD > APPEND_BYTES)
            return;
        peer_put_entry(&sending.bytes, &en);
        sending.n++;
    }
}

static bool too_large(uint64_t index)
{
    struct raft_log_entry en;
    struct err e = ERR_INIT;
    return log_entry_at(index, &en, &e) == 0 && en.data.n + PEER_ENTRY_OVERHEAD > APPEND_BYTES;
}

static void send_plain(const struct raft_msg *m, const char *to)
{
    struct buf *out = to ? peers_out(to, PEER_OVERHEAD) : NULL;
    if (out != NULL)
        peer_put_raft(out, m, (struct str){ NULL, 0 }, 0);
}

/*
 * News of what is committed waits a moment: mostly entries follow, which bring it along. Unless a request of that node
 * waits for it.
 */
static struct {
    struct raft_msg m[RAFT_MEMBERS_MAX];
    size_t n;
    struct timer *due;
} news;

static void news_forget(raft_id to)
{
    for (size_t i = 0; i < news.n; i++)
        if (news.m[i].to == to)
            news.m[i--] = news.m[--news.n];
}

static void news_send(void)
{
    for (size_t i = 0; i < news.n; i++)
        send_plain(&news.m[i], group_node_of(news.m[i].to));
    news.n = 0;
}

static void on_news(void *arg)
{
    (void)arg;
    if (node.core == NULL)
        return;
    news_send();
    peers_flush();
}

static void send_news(const struct raft_msg *m, const char *to)
{
    news_forget(m->to);
    if (to == NULL || news.n == RAFT_MEMBERS_MAX || requests_of(str_from(to), m->commit)) {
        send_plain(m, to);
        return;
    }
    if (news.n == 0)
        timer_arm(news.due, clock_mono().ms + NEWS_MS);
    news.m[news.n++] = *m;
}

/* send_entries - true when the core has more for this member. */
static bool send_entries(const struct raft_msg *m, const char *to)
{
    uint64_t bytes = 0;
    if (to == NULL || !peers_link(to))
        return raft_sent(node.core, m->to, m->entries_from - 1, 0);
    entries_encode(m);
    if (sending.n == 0) {
        bool streamed = too_large(m->entries_from) && stream_entry(m, to, &bytes);
        return raft_sent(node.core, m->to, streamed ? m->entries_from : m->entries_from - 1, bytes);
    }
    struct buf *out = peers_out(to, sending.bytes.n + PEER_OVERHEAD);
    if (out == NULL)
        return raft_sent(node.core, m->to, m->entries_from - 1, 0);
    peer_put_raft(out, m, buf_str(&sending.bytes), sending.n);
    news_forget(m->to);
    return raft_sent(node.core, m->to, m->entries_from + sending.n - 1, sending.bytes.n);
}

static bool send_all(const struct raft_effects *fx)
{
    bool more = false;
    sending.from = 0;
    for (size_t i = 0; i < fx->n_msgs; i++) {
        const struct raft_msg *m = &fx->msgs[i];
        const char *to = group_node_of(m->to);
        if (m->type == RAFT_MSG_SNAPSHOT)
            stream_snapshot(m->to, to);
        else if (m->type == RAFT_MSG_APPEND && m->entries_from <= m->entries_to)
            more |= send_entries(m, to);
        else if (m->type == RAFT_MSG_APPEND)
            send_news(m, to);
        else
            send_plain(m, to);
    }
    if (sending.bytes.cap > KEEP_BUFFER_BYTES)
        buf_done(&sending.bytes);
    return more;
}

/* carry_out - true when the core has more to say at once. */
static bool carry_out(const struct raft_effects *fx)
{
    write_note(fx);
    if (fx->members_changed)
        group_refresh();
    bool more = send_all(fx);
    node.want_snapshot |= fx->want_snapshot;
    if (fx->apply_to > node.commit)
        node.commit = fx->apply_to;
    if (fx->n_reads > 0)
        requests_reads(fx);
    if (fx->role_changed || fx->transfer_failed) {
        node.role_changed = true;
        requests_role();
        group_role();
    }
    if (fx->wake_at.ms != tick_at) {
        tick_at = fx->wake_at.ms;
        timer_arm(node.tick, tick_at);
    }
    return more;
}

int node_step(struct raft_event *ev, struct err *e)
{
    ev->now = clock_mono();
    int r = raft_step(node.core, ev, &node.fx, e);
    if (r < 0)
        return r;
    while (carry_out(&node.fx)) {
        struct raft_event again = { .now = clock_mono(), .type = RAFT_EV_TICK };
        if (raft_step(node.core, &again, &node.fx, e) < 0)
            break;
    }
    return 0;
}

/* ---- turns: everything that has arrived is stepped first, then written, applied and answered together ---- */

void node_turn_soon(void)
{
    sd_event_source_set_enabled(node.turn, SD_EVENT_ONESHOT);
}

void node_turn(void)
{
    node.unsettled = 0;
    sd_event_source_set_enabled(node.turn, SD_EVENT_OFF);
    if (node.core != NULL) {
        requests_flush();
        snapshots_turn();
        bool more;
        do {
            more = write_go();
            if (apply_some_rounds())
                node_turn_soon();
        } while (more);
        apply_after();
        if (node.writing)
            apply_ahead();
        snapshot_consider();
        group_turn();
        if (write_pending() && !node.writing)
            node_turn_soon();
    }
    peers_flush();
    if (node.batch.n == 0 && node.batch.cap > KEEP_BUFFER_BYTES)
        buf_done(&node.batch);
    if (node.scratch.cap > KEEP_BUFFER_BYTES)
        buf_done(&node.scratch);
    if (node.draining)
        node_drained();
}

static int on_turn(sd_event_source *s, void *arg)
{
    (void)s, (void)arg;
    node_turn();
    return 0;
}

static void on_tick(void *arg)
{
    struct err e = ERR_INIT;
    struct raft_event ev = { .type = RAFT_EV_TICK };
    (void)arg;
    tick_at = UINT64_MAX;
    if (node.core == NULL)
        return;
    if (node_step(&ev, &e) < 0)
        log_warn("tick: %s", e.msg);
    node_turn();
}

static void on_retry(void *arg)
{
    (void)arg;
    node_turn();
}

/* ---- messages of other managers ---- */

void node_message(struct peer_msg *m, struct str from_node)
{
    struct err e = ERR_INIT;
    struct raft_event ev = { .type = RAFT_EV_MESSAGE, .msg = &m->raft };
    raft_id from = m->kind == PEER_RAFT ? m->raft.from : m->kind == PEER_CHUNK ? m->chunk.from : m->ack.from;
    raft_id to = m->kind == PEER_RAFT ? m->raft.to : m->kind == PEER_CHUNK ? m->chunk.to : m->ack.to;
    if (node.core == NULL || to != raft_log_identity(node.log)->id || !group_heard(from, from_node)) {
        node_counts.bad_messages++;
        return;
    }
    if (m->kind == PEER_CHUNK) {
        stream_on_chunk(&m->chunk, from_node);
        return;
    }
    if (m->kind == PEER_ACK) {
        stream_on_ack(&m->ack);
        return;
    }
    node.msg = m;
    int r = node_step(&ev, &e);
    node.msg = NULL;
    if (r == 0)
        return;
    node_counts.bad_messages++;
    log_warn("a message of node=" STR_FMT ": %s", STR_ARG(from_node), e.msg);
}

static void on_datagram(struct str from_node, struct str body)
{
    static struct arena a;
    struct peer_msg m;
    struct err e = ERR_INIT;
    struct str rest;
    int r = 0;
    if (a.limit_bytes == 0)
        arena_init(&a, 8u << 20);
    if (!peer_open(body, &rest)) {
        node_counts.bad_messages++;
        return;
    }
    while ((r = peer_next(&rest, &a, &m, &e)) > 0) {
        node_message(&m, from_node);
        arena_reset(&a);
    }
    if (r < 0) {
        node_counts.bad_messages++;
        log_warn("node=" STR_FMT ": %s", STR_ARG(from_node), e.msg);
    }
    if (body.n > KEEP_BUFFER_BYTES)
        arena_done(&a), a.limit_bytes = 0;
    node.unsettled += body.n + 4096;
    if (node.unsettled > UNSETTLED_MAX)
        node_turn();
    else
        node_turn_soon();
}

static void link_lost(raft_id id)
{
    struct err e = ERR_INIT;
    struct raft_event ev = { .type = RAFT_EV_LINK_LOST, .member = id };
    if (node_step(&ev, &e) < 0)
        log_warn("a link is gone: %s", e.msg);
}

static void on_link(struct str from_node, bool up)
{
    struct member *m = members_by_node(&node.members, from_node);
    log_debug("link node=" STR_FMT " %s", STR_ARG(from_node), up ? "up" : "down");
    if (node.core == NULL || m == NULL || up)
        return;
    link_lost(m->id);
    node_turn_soon();
}

static void on_gateway(bool up)
{
    for (size_t i = 0; !up && node.core != NULL && i < node.members.n; i++)
        if (node.members.v[i].id != raft_log_identity(node.log)->id)
            link_lost(node.members.v[i].id);
    node_turn_soon();
}

/* ---- opening and closing ---- */

static void on_touch(void *arg, enum kind kind, struct str id, char op, uint64_t revision)
{
    (void)arg;
    if (kind == KIND_CLUSTER)
        node.cluster_changed = true;
    autolock_touch(&node.autolock, kind, id);
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

/* The newest two configurations that the log holds; what lies before them can't come back (core/raft.h). */
static int members_load(struct raft_log_state *st, struct raft_members_at v[2], struct err *e)
{
    struct raft_log_entry en;
    struct members m;
    uint64_t at = raft_log_members_at(node.log, st->last_index);
    size_t n = 0;
    for (; n < 2 && at > st->snapshot_index; n++, at = at > 1 ? raft_log_members_at(node.log, at - 1) : 0) {
        int r = raft_log_read(node.log, at, &node.scratch, &en, e);
        if (r == 0)
            r = members_decode(&m, en.data, e);
        if (r < 0)
            return err_wrap(e, "entry %llu", (unsigned long long)at);
        v[1] = v[0];
        v[0] = (struct raft_members_at){ at, members_ids(&m) };
    }
    st->members = v;
    st->n_members = n;
    return 0;
}

static int members_applied(struct members *ret, struct err *e)
{
    struct buf b = BUF_INIT;
    sm_members(node.sm, &b);
    int r = members_decode(ret, buf_str(&b), e);
    buf_done(&b);
    return r;
}

static uint64_t term_of(void *arg, uint64_t index)
{
    return raft_log_term(arg, index);
}

static int core_open(const struct raft_log_identity *id, struct raft_log_state *st, struct err *e)
{
    struct raft_config c = { .id = id->id };
    struct raft_members_at changes[2];
    struct members m;
    int r = members_applied(&m, e);
    if (r == 0)
        r = members_load(st, changes, e);
    if (r < 0)
        return r;
    c.members = members_ids(&m);
    if (m.n == 0 && st->n_members == 0 && st->last_index > 0) /* begun by a version that knew one voter only */
        c.members = (struct raft_members){ 1, { { id->id, false } } };
    random_bytes(&c.seed, sizeof c.seed);
    st->applied = sm_applied(node.sm);
    node.commit = st->applied;
    return raft_new(&node.core, &c, st, term_of, node.log, e);
}

static void swarm_close(void)
{
    ops_backup_drop();
    streams_reset();
    snapshots_reset();
    write_close();
    node.core = raft_free(node.core);
    node.log = raft_log_close(node.log);
    node.sm = sm_close(node.sm);
    node.stalled[0] = 0;
    node.commit = 0;
    node.members.n = 0;
    news.n = 0;
    node.role_changed = node.cluster_changed = false;
    timer_arm(node.tick, tick_at = UINT64_MAX);
}

static int alone_open(struct err *e)
{
    struct raft_log_state none = { .first_index = 1 };
    return maps_open(NULL, &none, e);
}

/* swarm_open - this node's log (unless it is open already), maps as of it, and the election, which a single voter wins
 * by writing it down. */
static int swarm_open(struct err *e)
{
    struct raft_log_state st;
    struct raft_event ev = { .type = RAFT_EV_TICK };
    int r = node.log != NULL ? 0 : raft_log_open(&node.log, node.dir, e);
    if (r < 0)
        return r;
    autolock_open(&node.autolock, node.log);
    const struct raft_log_identity *id = raft_log_identity(node.log);
    raft_log_state(node.log, &st);
    r = maps_open(id, &st, e);
    if (r == 0)
        r = core_open(id, &st, e);
    if (r < 0)
        return r;
    write_open();
    apply_open();
    cluster_read();
    group_refresh();
    node.role_changed = true;
    r = node_step(&ev, e);
    if (r < 0)
        return r;
    node_turn();
    group_role();
    return 0;
}

int node_maps_replace(struct err *e)
{
    struct raft_log_state st;
    raft_log_state(node.log, &st);
    ops_backup_drop();
    snapshot_abandon();
    apply_give_back();
    node.sm = sm_close(node.sm);
    int r = maps_open(raft_log_identity(node.log), &st, e);
    if (r < 0)
        return r;
    node.commit = sm_applied(node.sm);
    node.cluster_changed = node.role_changed = true;
    apply_open();
    return 0;
}

static int dir_make(struct err *e)
{
    snprintf(node.run_dir, sizeof node.run_dir, "%s", daemon_run_dir());
    if ((size_t)snprintf(node.dir, sizeof node.dir, "%s/raft", daemon_state_dir()) > 300)
        return err_set(e, ERR_INVALID, "state folder: path is too long");
    return dir_own(node.dir, 0700, e);
}

static void on_drain(void *arg)
{
    (void)arg;
    daemon_exit(0);
}

static int loop_open(struct err *e)
{
    int r = sd_event_add_defer(daemon_loop(), &node.turn, on_turn, NULL);
    if (r < 0)
        return err_errno(e, -r, "event loop");
    sd_event_source_set_enabled(node.turn, SD_EVENT_OFF);
    /* After everything that has arrived meanwhile: it all goes into one write. The bounds on what is queued see to it
     * that its turn comes. */
    sd_event_source_set_priority(node.turn, SD_EVENT_PRIORITY_NORMAL + 10);
    r = timer_open(&node.retry, on_retry, NULL, e);
    if (r == 0)
        r = timer_open(&node.tick, on_tick, NULL, e);
    if (r == 0)
        r = timer_open(&news.due, on_news, NULL, e);
    if (r == 0)
        r = apply_init(e);
    return r == 0 ? timer_open(&drain, on_drain, NULL, e) : r;
}

int node_start(struct err *e)
{
    static const struct peers_ops ops = { on_datagram, on_link, on_gateway };
    int r = dir_make(e);
    if (r == 0)
        r = loop_open(e);
    if (r == 0)
        r = requests_open(e);
    if (r == 0)
        r = streams_open(e);
    if (r == 0)
        r = pub_open(&node.pub, node.run_dir, e);
    if (r == 0)
        r = rpc_client_open(&node.gateway, daemon_loop(), node.run_dir, "gatewayd", e);
    if (r == 0)
        r = peers_open(&ops, e);
    if (r == 0)
        r = ops_open(e);
    if (r == 0)
        r = group_open(e);
    if (r < 0)
        return r;
    restore_clean(node.dir);
    bool there = raft_log_exists(node.dir);
    node.locked = there && raft_log_locked(node.dir);
    if (node.locked)
        log_warn("the store is locked: the swarm's unlock key is needed");
    return there && !node.locked ? swarm_open(e) : alone_open(e);
}

int node_unlock(struct str key, struct err *e)
{
    struct raft_log *log;
    if (!node.locked)
        return err_set(e, ERR_PRECONDITION, "swarm is not locked");
    int r = autolock_unlock(&log, node.dir, key, e);
    if (r < 0)
        return r;
    swarm_close();
    node.locked = false;
    node.log = log;
    r = swarm_open(e);
    if (r < 0)
        give_up("open the unlocked store", e);
    return r;
}

int node_key(char text[SEAL_NODE_KEY_SIZE], bool *ret_known, uint64_t *ret_epoch, struct err *e)
{
    if (node.locked)
        return err_set(e, ERR_PRECONDITION, "the store is locked: the swarm's unlock key is needed");
    if (node.log == NULL)
        return err_set(e, ERR_PRECONDITION, "this node has no store");
    seal_node_key(raft_log_key(node.log), text);
    *ret_known = node.autolock.known && !node.autolock.due;
    *ret_epoch = node.autolock.epoch;
    return 0;
}

int node_may_restore(struct err *e)
{
    if (node.core != NULL || node.locked)
        return err_set(e, ERR_PRECONDITION, "this node is already part of a swarm");
    return 0;
}

const char *node_log_parent(void)
{
    return node.dir;
}

int node_restored(struct err *e)
{
    swarm_close();
    int r = swarm_open(e);
    if (r < 0)
        give_up("open the restored store", e);
    else
        group_started();
    return r;
}

/* Others go on at once when this node hands over before it goes. */
bool node_drain(void)
{
    struct err e = ERR_INIT;
    struct raft_status s;
    struct raft_event ev = { .type = RAFT_EV_TRANSFER };
    if (node.core == NULL)
        return false;
    raft_status(node.core, &s);
    if (s.role != RAFT_LEADER || node_step(&ev, &e) < 0)
        return false;
    log_info("handing over leadership before the stop");
    node.draining = true;
    timer_arm(drain, clock_mono().ms + DRAIN_MS);
    node_turn();
    return true;
}

static void node_drained(void)
{
    struct raft_status s;
    if (node.core != NULL) {
        raft_status(node.core, &s);
        if (s.role == RAFT_LEADER || !requests_idle() || write_pending())
            return;
    }
    daemon_exit(0);
}

void node_stop(void)
{
    group_close();
    peers_close();
    swarm_close();
    ops_close();
    requests_close();
    streams_close();
    node.gateway = rpc_client_free(node.gateway);
    node.pub = pub_close(node.pub);
    node.retry = timer_free(node.retry);
    node.tick = timer_free(node.tick);
    news.due = timer_free(news.due);
    apply_close();
    drain = timer_free(drain);
    node.turn = sd_event_source_disable_unref(node.turn);
    buf_done(&node.batch);
    buf_done(&node.scratch);
    buf_done(&sending.bytes);
}

/* ---- a new swarm, and leaving one ---- */

static raft_id new_id(void)
{
    raft_id id = 0;
    while (id == 0)
        random_bytes(&id, sizeof id);
    return id;
}

/* The first entry says who the members are, the second one is the transaction. The maps of before stay until the new
 * ones are there. */
static int bootstrap(const struct raftd_bootstrap *b, const struct entry *en, struct err *e)
{
    struct raft_log_identity id = { .id = new_id() };
    struct members m = { .n = 1, .v[0] = { .id = id.id } };
    struct buf list = BUF_INIT, first = BUF_INIT;
    if (!str_copy(id.cluster_id, sizeof id.cluster_id, b->ClusterID) ||
        !str_copy(id.node_id, sizeof id.node_id, b->NodeID) || !str_copy(m.v[0].node, sizeof m.v[0].node, b->NodeID) ||
        !str_copy(m.v[0].addr, sizeof m.v[0].addr, b->Addr))
        return err_set(e, ERR_INVALID, "ClusterID, NodeID, Addr: too long");
    struct raft_hard_state hs = { .term = 1, .vote = id.id };
    members_encode(&m, &list);
    entry_encode(en, &first);
    struct raft_log_entry v[2] = { { 1, 1, RAFT_ENTRY_MEMBERS, buf_str(&list) },
                                   { 2, 1, RAFT_ENTRY_DATA, buf_str(&first) } };
    int r = list.failed || first.failed ? err_set(e, ERR_NOMEM, "out of memory")
                                        : raft_log_create_with(node.dir, &id, &hs, v, 2, e);
    buf_done(&list);
    buf_done(&first);
    return r;
}

static void bootstrap_undo(void)
{
    struct err e = ERR_INIT;
    if (node_reset(&e) < 0)
        give_up("undo the start of a swarm", &e);
}

/* A request of our own, answered by what becomes of its entry: often within swarm_open(). */
static void wait_for(struct rpc_call *c, uint64_t index, uint64_t term)
{
    struct request *q = request_new(c, REQ_START);
    q->index = index;
    q->term = term;
    request_push(&node.waiting, q);
}

void node_bootstrap(struct rpc_call *c, const struct raftd_bootstrap *b, const struct entry *en)
{
    struct err e = ERR_INIT;
    if (node.core != NULL || node.locked) {
        rpc_fail(c, ERR_PRECONDITION, "this node is already part of a swarm");
        return;
    }
    if (bootstrap(b, en, &e) < 0) {
        rpc_fail_err(c, &e);
        return;
    }
    swarm_close();
    wait_for(c, 2, 1);
    if (swarm_open(&e) < 0) {
        requests_fail_all(e.msg);
        bootstrap_undo();
        return;
    }
    struct raft_status s;
    raft_status(node.core, &s);
    if (s.applied >= 2 && sm_revision(node.sm) == 0) /* its first transaction did not hold; the caller knows */
        bootstrap_undo();
    else
        group_started();
}

int node_create(const struct raft_log_identity *id, struct err *e)
{
    struct err ignored = ERR_INIT;
    struct raft_hard_state hs = { 0 };
    int r = raft_log_create_with(node.dir, id, &hs, NULL, 0, e);
    if (r < 0)
        return r;
    swarm_close();
    r = swarm_open(e);
    if (r < 0)
        (void)node_reset(&ignored);
    return r;
}

/*
 * The other members are gone: everything in this node's log counts as committed, and the next entry says that it is
 * alone. It takes a new number: should the others come back, what they send is for somebody who does not exist.
 */
static int force_new(uint64_t *ret_index, uint64_t *ret_term, struct err *e)
{
    struct raft_log_state st;
    const struct raft_log_identity *id = raft_log_identity(node.log);
    struct members m = { .n = 1 };
    struct member *self = members_by_id(&node.members, id->id);
    struct buf list = BUF_INIT;
    if (self != NULL)
        m.v[0] = *self;
    snprintf(m.v[0].node, sizeof m.v[0].node, "%s", id->node_id);
    m.v[0].id = new_id();
    m.v[0].learner = false;
    write_close();
    raft_log_state(node.log, &st);
    struct raft_hard_state hs = { st.hard_state.term + 1, m.v[0].id };
    members_encode(&m, &list);
    struct raft_log_entry en = { st.last_index + 1, hs.term, RAFT_ENTRY_MEMBERS, buf_str(&list) };
    struct raft_log_write w = { .entries = &en, .n_entries = 1, .hard_state = &hs };
    /* Interrupted between these, this node belongs to nobody; asked again, it does both. */
    int r = raft_log_set_id(node.log, m.v[0].id, e);
    if (r == 0)
        r = raft_log_write(node.log, &w, e);
    buf_done(&list);
    *ret_index = en.index;
    *ret_term = en.term;
    return r;
}

void node_force_new(struct rpc_call *c)
{
    struct err e = ERR_INIT;
    uint64_t index, term;
    if (node.core == NULL) {
        rpc_fail(c, ERR_PRECONDITION, node.locked ? "the store is locked" : "this node is not part of a swarm");
        return;
    }
    log_warn("a new group of this node alone, with what its log has");
    requests_fail_all("this node starts a group of its own");
    int r = force_new(&index, &term, &e);
    swarm_close();
    if (r < 0) {
        rpc_fail_err(c, &e);
        give_up("start a group of this node alone", &e);
        return;
    }
    wait_for(c, index, term);
    if (swarm_open(&e) < 0)
        give_up("start a group of this node alone", &e);
}

int node_reset(struct err *e)
{
    requests_fail_all("this node leaves the swarm");
    swarm_close();
    node.locked = false;
    int r = raft_log_erase(node.dir, e);
    if (r == 0)
        r = alone_open(e);
    if (r == 0) {
        group_left();
        pub_wake(node.pub, 0);
    }
    return r;
}

int node_leave(struct err *e)
{
    group_stay_out();
    return node_reset(e);
}

/* ---- what is told to others ---- */

void node_status(struct node_status *ret)
{
    struct raft_log_state st;
    *ret = (struct node_status){ .initialized = node.core != NULL,
                                 .snapshotting = snapshot_running(),
                                 .locked = node.locked,
                                 .waiting = requests_count() };
    if (node.sm != NULL) {
        ret->revision = sm_revision(node.sm);
        ret->map_bytes = sm_used_bytes(node.sm);
    }
    if (node.core == NULL)
        return;
    raft_status(node.core, &ret->raft);
    raft_log_state(node.log, &st);
    ret->snapshot_index = st.snapshot_index;
    ret->unlock_key_epoch = node.autolock.epoch;
    ret->id = *raft_log_identity(node.log);
    snprintf(ret->leader, sizeof ret->leader, "%s", node_leader(&ret->raft));
    snprintf(ret->stalled, sizeof ret->stalled, "%s", node.stalled);
}

const char *node_state(const struct node_status *s)
{
    if (s->locked)
        return "locked";
    if (!s->initialized)
        return "uninitialized";
    return s->raft.voter ? node_role_text(&s->raft) : "joining";
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
