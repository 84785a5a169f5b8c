/*
 * group.c - the Raft group: who is in it, changes of it at the leader, and this node's own coming and going.
 *
 * Everything here follows from what is: gatewayd says whether this node is to be a manager, the log says whether it is
 * a member. A manager that has no log asks the leader to be added; one whose address moved tells it; one that hears of
 * no leader asks whether it is still a member; one that isn't, or is a worker by its certificate, erases its log.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/proto/msg_gatewayd.h"
#include "common/util/id.h"
#include "raftd/node_priv.h"
#include "raftd/peers.h"

#define STRANGERS_MAX 16u
#define IDENTITY_WAIT_MS 55000u
#define ASK_MS 10000u
#define BACKOFF_MIN_MS 100u
#define BACKOFF_MAX_MS 5000u
#define DOUBT_MS 3000u /* without a leader: is this node still a member? */

static struct {
    /* What gatewayd says. */
    bool polling, active, manager;
    uint64_t seq;
    char node[65], cluster[65], addr[301];

    struct timer *again, *poll;
    bool asking; /* the leader; one thing at a time */
    uint64_t backoff_ms, poll_backoff_ms, no_leader_since;
    char left[65]; /* this node left the swarm with this identity: it does not go back by itself */
    char refused[200];

    struct { /* members that the log does not know yet, or not any more */
        raft_id id;
        char node[65];
    } strangers[STRANGERS_MAX];
    size_t n_strangers;
    bool membership_changed;
} gr;

static void act(void);

/* ---- who is who ---- */

void group_refresh(void)
{
    struct raft_status s;
    struct raft_log_entry en;
    struct err e = ERR_INIT;
    struct buf b = BUF_INIT;
    struct members m;
    raft_status(node.core, &s);
    gr.membership_changed = true;
    bool in_log = s.members_index >= s.first_index && s.members_index <= s.last_index &&
                  log_entry_at(s.members_index, &en, &e) == 0 && en.type == RAFT_ENTRY_MEMBERS;
    if (!in_log)
        sm_members(node.sm, &b);
    if (members_decode(&m, in_log ? en.data : buf_str(&b), &e) < 0)
        log_error("members: %s", e.msg);
    else
        node.members = m;
    buf_done(&b);
    if (node.members.n == 0 && s.members.n == 1 && s.member) { /* a log of a version that had no such entries */
        struct member *self = &node.members.v[0];
        *self = (struct member){ .id = s.id };
        snprintf(self->node, sizeof self->node, "%s", raft_log_identity(node.log)->node_id);
        node.members.n = 1;
    }
}

const char *group_node_of(raft_id id)
{
    struct member *m = members_by_id(&node.members, id);
    if (m != NULL)
        return m->node;
    for (size_t i = 0; i < gr.n_strangers && i < STRANGERS_MAX; i++)
        if (gr.strangers[i].id == id)
            return gr.strangers[i].node;
    return NULL;
}

/* A number belongs to one node. One that is not known here may be that of a newer member: gatewayd has seen that it is
 * a manager. */
bool group_heard(raft_id from, struct str node_id)
{
    const char *known = group_node_of(from);
    if (known != NULL)
        return str_is(node_id, known);
    size_t i = gr.n_strangers++ % STRANGERS_MAX;
    gr.strangers[i].id = from;
    return str_copy(gr.strangers[i].node, sizeof gr.strangers[i].node, node_id);
}

size_t node_member_list(struct node_member v[RAFT_MEMBERS_MAX])
{
    struct raft_status s;
    size_t n = 0;
    if (node.core == NULL)
        return 0;
    raft_status(node.core, &s);
    for (size_t i = 0; i < RAFT_MEMBERS_MAX; i++) {
        struct raft_member_status ms;
        const struct member *m = NULL;
        if (!raft_member_status(node.core, i, &ms) || (m = members_by_id(&node.members, ms.id)) == NULL)
            continue;
        v[n] = (struct node_member){ .m = *m, .self = ms.id == s.id, .leader = ms.id == s.leader, .raft = ms };
        v[n].reachable = v[n].self || (s.role == RAFT_LEADER || v[n].leader ? ms.active : peers_link(m->node));
        n++;
    }
    return n;
}

/* ---- changes, at the leader ---- */

static int propose(enum raft_change change, raft_id id, const struct member *newcomer, struct request *q, struct err *e)
{
    struct raft_event ev = { .type = RAFT_EV_MEMBERS, .change = change, .member = id };
    struct raft_status before, s;
    raft_status(node.core, &before);
    node.newcomer = newcomer ? *newcomer : (struct member){ 0 };
    int r = node_step(&ev, e);
    node.newcomer.id = 0;
    if (r < 0)
        return r;
    raft_status(node.core, &s);
    if (q != NULL) {
        q->index = s.members_index;
        q->term = s.term;
        q->deadline_ms = 0;
        request_push(&node.waiting, q);
    }
    node_turn_soon();
    return 0;
}

static void request_fail(struct request *q, const struct err *e)
{
    q->result = *e;
    request_answer(q);
}

static bool leads(struct rpc_call *c)
{
    struct raft_status s;
    if (node.core != NULL) {
        raft_status(node.core, &s);
        if (s.role == RAFT_LEADER && s.ready)
            return true;
    }
    rpc_fail(c, ERR_UNAVAILABLE, "this node is not the leader");
    return false;
}

/* The node must be meant to be a manager: one that was just demoted still has its certificate for a moment. */
static int may_join(struct str node_id, struct err *e)
{
    struct buf doc = BUF_INIT;
    struct str role = { NULL, 0 };
    int r = sm_get(node.sm, KIND_NODE, node_id, &doc, e);
    if (r == 0 && (!mp_get_str(buf_str(&doc), "Spec.Role", &role) || !str_is(role, "manager")))
        r = err_set(e, ERR_DENIED, "node " STR_FMT " is not to be a manager", STR_ARG(node_id));
    buf_done(&doc);
    return r < 0 ? err_set(e, ERR_DENIED, "%.300s", e->msg) : 0;
}

static int address_change(const struct member *old, struct str addr, struct request *q, struct err *e)
{
    struct member m = *old;
    if (!str_copy(m.addr, sizeof m.addr, addr))
        return err_set(e, ERR_INVALID, "Addr: too long");
    log_info("member node=%s has a new address", m.node);
    return propose(RAFT_SAME_MEMBERS, 0, &m, q, e);
}

static int add_new(const struct raftd_member_add *in, struct request *q, struct err *e)
{
    struct member m = { .learner = true };
    int r = may_join(in->NodeID, e);
    if (r < 0)
        return r;
    if (!str_copy(m.node, sizeof m.node, in->NodeID) || !str_copy(m.addr, sizeof m.addr, in->Addr))
        return err_set(e, ERR_INVALID, "NodeID, Addr: too long");
    while (m.id == 0)
        random_bytes(&m.id, sizeof m.id);
    q->member = m.id;
    log_info("adding a member node=%s", m.node);
    return propose(RAFT_ADD_LEARNER, m.id, &m, q, e);
}

/* A node asks without a number when it has no log. What the group has under its name then is a member that lost its
 * log: it goes first, since a number is good for one log only. */
static int add(const struct raftd_member_add *in, struct request *q, struct err *e)
{
    struct member *old = members_by_node(&node.members, in->NodeID);
    if (in->RaftID != 0 && (old == NULL || old->id != in->RaftID))
        return err_set(e, ERR_NOT_FOUND, "node " STR_FMT " is not a member any more", STR_ARG(in->NodeID));
    if (old == NULL)
        return add_new(in, q, e);
    if (in->RaftID == 0) {
        int r = propose(RAFT_REMOVE, old->id, NULL, NULL, e);
        return r < 0 ? r : err_set(e, ERR_UNAVAILABLE, "the member that this node was before is being removed");
    }
    q->member = old->id;
    return address_change(old, in->Addr, q, e);
}

void node_member_add(struct rpc_call *c, const struct raftd_member_add *in)
{
    struct err e = ERR_INIT;
    if (!leads(c))
        return;
    struct request *q = request_new(c, REQ_ADD);
    if (add(in, q, &e) < 0)
        request_fail(q, &e);
}

static int remove_member(struct member *m, struct request *q, struct err *e)
{
    struct raft_event ev = { .type = RAFT_EV_TRANSFER };
    struct raft_status s;
    raft_status(node.core, &s);
    bool alone = members_ids(&node.members).n == 1;
    if (m->id == s.id && !alone) {
        int r = s.transferee != 0 ? 0 : node_step(&ev, e);
        node_turn_soon();
        return r < 0 ? r : err_set(e, ERR_UNAVAILABLE, "the leader hands over before it is removed: ask again");
    }
    log_info("removing a member node=%s", m->node);
    int r = propose(RAFT_REMOVE, m->id, NULL, q, e);
    if (r == -ERR_PRECONDITION)
        err_set(e, ERR_PRECONDITION, "can't remove member from the raft: this would result in a loss of quorum");
    return r;
}

void node_member_remove(struct rpc_call *c, struct str node_id)
{
    struct err e = ERR_INIT;
    if (!leads(c))
        return;
    struct member *m = members_by_node(&node.members, node_id);
    struct request *q = request_new(c, REQ_REMOVE);
    if (m == NULL)
        request_answer(q);
    else if (remove_member(m, q, &e) < 0)
        request_fail(q, &e);
}

int node_transfer(struct str node_id, struct err *e)
{
    struct member *m = members_by_node(&node.members, node_id);
    struct raft_event ev = { .type = RAFT_EV_TRANSFER, .member = m ? m->id : 0 };
    if (node.core == NULL)
        return err_set(e, ERR_UNAVAILABLE, "this node is not part of a swarm");
    if (m == NULL && node_id.n > 0)
        return err_set(e, ERR_NOT_FOUND, "node " STR_FMT " is not a member", STR_ARG(node_id));
    node_turn_soon();
    return node_step(&ev, e);
}

static void promote(void)
{
    struct raft_member_status ms;
    struct err e = ERR_INIT;
    for (size_t i = 0; i < RAFT_MEMBERS_MAX && raft_member_status(node.core, i, &ms); i++) {
        if (!ms.learner || !ms.caught_up)
            continue;
        if (propose(RAFT_PROMOTE, ms.id, NULL, NULL, &e) == 0)
            log_info("member node=%s has caught up: it votes now", group_node_of(ms.id));
        return;
    }
}

void group_turn(void)
{
    struct raft_status s;
    bool learners = false;
    if (gr.membership_changed) {
        gr.membership_changed = false;
        group_role();
    }
    for (size_t i = 0; i < node.members.n; i++)
        learners |= node.members.v[i].learner;
    if (!learners)
        return;
    raft_status(node.core, &s);
    if (s.role == RAFT_LEADER && s.ready && s.members_index <= s.committed)
        promote();
}

/* ---- this node's own coming and going ---- */

static void again_in(uint64_t ms)
{
    timer_arm(gr.again, clock_mono().ms + ms);
}

static void back_off(void)
{
    gr.backoff_ms = gr.backoff_ms == 0 ? BACKOFF_MIN_MS : 2 * gr.backoff_ms;
    if (gr.backoff_ms > BACKOFF_MAX_MS)
        gr.backoff_ms = BACKOFF_MAX_MS;
    again_in(gr.backoff_ms);
}

static void refused(const char *what, const struct err *e)
{
    if (strncmp(gr.refused, e->msg, sizeof gr.refused - 1) != 0)
        log_warn("%s: %s; trying again", what, e->msg);
    snprintf(gr.refused, sizeof gr.refused, "%.199s", e->msg);
    back_off();
}

static void leave(const char *why)
{
    struct err e = ERR_INIT;
    log_info("leaving the group: %s", why);
    if (node_reset(&e) < 0)
        give_up("leave the group", &e);
}

static void on_added(void *arg, const void *rep, const struct err *e)
{
    const struct raftd_member_add_reply *a = rep;
    struct raft_log_identity id = { .id = a ? a->RaftID : 0 };
    struct err why = ERR_INIT;
    (void)arg;
    gr.asking = false;
    if (node.core != NULL || node.locked)
        return;
    if (e->code != 0 || a == NULL) {
        refused("join the group", e);
        return;
    }
    if (!str_copy(id.cluster_id, sizeof id.cluster_id, a->ClusterID) ||
        !str_copy(id.node_id, sizeof id.node_id, str_from(gr.node)) || node_create(&id, &why) < 0) {
        refused("join the group", &why);
        return;
    }
    log_info("joining cluster=%s node=%s", id.cluster_id, id.node_id);
    gr.backoff_ms = 0;
    gr.refused[0] = 0;
    group_role();
}

static void on_announced(void *arg, const void *rep, const struct err *e)
{
    (void)arg, (void)rep;
    gr.asking = false;
    if (e->code == ERR_NOT_FOUND && node.core != NULL)
        leave("the leader does not know this node");
    else if (e->code != 0)
        refused("announce this node's address", e);
    else
        gr.backoff_ms = 0;
}

static void on_doubt(void *arg, const void *rep, const struct err *e)
{
    const struct raftd_members_reply *r = rep;
    const struct raftd_member *m = r ? r->Members.v : NULL;
    bool there = false;
    (void)arg;
    gr.asking = false;
    if (node.core == NULL)
        return;
    for (size_t i = 0; r != NULL && i < r->Members.n; i++)
        there |= m[i].RaftID == raft_log_identity(node.log)->id;
    if (e->code == 0 && r != NULL && r->Members.n > 0 && !there)
        leave("this node is not a member any more");
    else
        back_off();
}

static void ask_add(raft_id id, rpc_done_fn *done)
{
    struct raftd_member_add in = { .NodeID = str_from(gr.node), .Addr = str_from(gr.addr), .RaftID = id };
    gr.asking = true;
    rpc_send_via(node.gateway, STR("leader"), "raftd", &op_raftd_member_add, &in, ASK_MS, done, NULL);
}

/* The address as it is now, in the entry that all can read. */
static void announce(const struct raft_status *s)
{
    struct member *self = members_by_id(&node.members, s->id);
    struct err e = ERR_INIT;
    if (self == NULL || gr.addr[0] == 0 || strcmp(self->addr, gr.addr) == 0 ||
        strcmp(gr.node, raft_log_identity(node.log)->node_id) != 0)
        return;
    if (s->role != RAFT_LEADER)
        ask_add(s->id, on_announced);
    else if (address_change(self, str_from(gr.addr), NULL, &e) < 0)
        back_off();
}

/* Who votes notices by itself that nobody leads. Who doesn't has to look how long the leader has been silent. */
static bool leader_silent(const struct raft_status *s)
{
    struct raft_member_status ms;
    for (size_t i = 0; raft_member_status(node.core, i, &ms); i++)
        if (ms.id == s->leader)
            return ms.heard_ms >= DOUBT_MS && ms.id != s->id;
    return s->members.n > 0;
}

/* in_doubt - whether this node still belongs to the group. It does not go by what its own log says: the entry that
 * removes it may not be committed. */
static bool in_doubt(const struct raft_status *s, uint64_t *ret_wait_ms)
{
    uint64_t now = clock_mono().ms, at = gr.no_leader_since + DOUBT_MS;
    *ret_wait_ms = 0;
    if (s->members.n == 1 && s->member)
        return false;
    if (s->leader != 0 && s->voter)
        return false;
    if (s->leader != 0) {
        *ret_wait_ms = s->member || s->members.n == 0 ? DOUBT_MS : 0;
        return (!s->member && s->members.n > 0) || leader_silent(s);
    }
    if (gr.no_leader_since == 0 || now >= at)
        return gr.no_leader_since != 0;
    *ret_wait_ms = at - now;
    return false;
}

static void act_member(void)
{
    static const struct raftd_empty none;
    struct raft_status s;
    uint64_t wait_ms;
    raft_status(node.core, &s);
    if (gr.active && !gr.manager && strcmp(gr.cluster, raft_log_identity(node.log)->cluster_id) == 0) {
        leave("this node is a worker now");
        return;
    }
    if (!gr.active)
        return;
    bool doubt = in_doubt(&s, &wait_ms);
    if (wait_ms > 0 && !doubt)
        again_in(wait_ms);
    if (s.leader != 0 && !doubt && (s.role != RAFT_LEADER || s.ready))
        announce(&s);
    if (!doubt || gr.asking)
        return;
    gr.asking = true;
    rpc_send_via(node.gateway, STR("leader"), "raftd", &op_raftd_members, &none, ASK_MS, on_doubt, NULL);
}

static void act(void)
{
    if (gr.asking || node.locked || node.draining)
        return;
    if (node.core != NULL)
        act_member();
    else if (gr.active && gr.manager && strcmp(gr.left, gr.node) != 0)
        ask_add(0, on_added);
}

static void on_again(void *arg)
{
    (void)arg;
    act();
}

void group_role(void)
{
    struct raft_status s;
    if (node.core == NULL || gr.again == NULL)
        return;
    raft_status(node.core, &s);
    if (s.leader != 0)
        gr.no_leader_since = 0;
    else if (gr.no_leader_since == 0)
        gr.no_leader_since = clock_mono().ms;
    gr.backoff_ms = 0;
    again_in(0); /* not within a step of the core */
}

void group_started(void)
{
    gr.left[0] = 0;
    group_role();
}

void group_left(void)
{
    gr.no_leader_since = 0;
    gr.backoff_ms = 0;
    gr.n_strangers = 0;
    again_in(0);
}

/* group_stay_out - apid has asked to leave: gatewayd forgets who this node is a moment later. */
void group_stay_out(void)
{
    snprintf(gr.left, sizeof gr.left, "%s", gr.node);
}

/* ---- what gatewayd says ---- */

static void identity_ask(void);

static void on_identity(void *arg, const void *rep, const struct err *e)
{
    const struct gw_identity_reply *r = rep;
    (void)arg;
    gr.polling = false;
    if (e->code != 0) {
        gr.poll_backoff_ms = gr.poll_backoff_ms == 0 ? BACKOFF_MIN_MS : 2 * gr.poll_backoff_ms;
        if (gr.poll_backoff_ms > BACKOFF_MAX_MS)
            gr.poll_backoff_ms = BACKOFF_MAX_MS;
        gr.seq = 0; /* it may have started again */
        timer_arm(gr.poll, clock_mono().ms + gr.poll_backoff_ms);
        return;
    }
    gr.poll_backoff_ms = 0;
    gr.seq = r->Seq;
    gr.active = str_is(r->State, "active");
    gr.manager = str_is(r->Role, "manager");
    if (!gr.active || !str_copy(gr.node, sizeof gr.node, r->NodeID) ||
        !str_copy(gr.cluster, sizeof gr.cluster, r->ClusterID) ||
        !str_copy(gr.addr, sizeof gr.addr, r->AdvertiseAddr)) {
        gr.active = false;
        gr.left[0] = 0;
    }
    act();
    identity_ask();
}

static void identity_ask(void)
{
    struct gw_identity in = { .Seq = gr.seq, .WaitMs = IDENTITY_WAIT_MS };
    if (gr.polling)
        return;
    gr.polling = true;
    rpc_send(node.gateway, &op_gw_identity, &in, IDENTITY_WAIT_MS + 10000, on_identity, NULL);
}

static void on_poll(void *arg)
{
    (void)arg;
    identity_ask();
}

int group_open(struct err *e)
{
    int r = timer_open(&gr.again, on_again, NULL, e);
    if (r == 0)
        r = timer_open(&gr.poll, on_poll, NULL, e);
    if (r == 0)
        identity_ask();
    return r;
}

void group_close(void)
{
    gr.again = timer_free(gr.again);
    gr.poll = timer_free(gr.poll);
}
