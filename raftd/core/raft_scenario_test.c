/*
 * raft_scenario_test.c - groups of cores as text (testdata/): the situations of the Raft paper and of the thesis.
 *
 * Every node has a clock, a disk and a log of its own; messages wait until `run` delivers them. Commands:
 *
 *   voters ID...            a group with these members         learners ID...   (before the first other command)
 *   log ID term=T [vote=ID] [commit=N] TERM...     what is on its disk: an entry for each TERM
 *   start [ID...]           all that are down, or these        new ID           a node that knows of no group yet
 *   timeout ID              its election timeout passes, for it alone           wait MS   time passes for everybody
 *   run                     messages flow until none is left   drop             what is under way is lost
 *   lose ID                 what is under way to this one is lost
 *   deliver N               the first N messages only          batch N          entries in one message, before `start`
 *   cut ID...               these hear only each other         heal
 *   hold ID / sync ID / fail ID      its disk stops, and then goes on, or refuses
 *   crash ID                what its disk has not done is lost
 *   propose ID [N]          read ID COOKIE   lost ID PEER      transfer ID [TO]
 *   add|promote|remove ID MEMBER     same ID                   (ID is the one that is asked)
 *   compact ID INDEX KEEP   the log from KEEP on stays         snapshot FROM TO [failed]   its transfer ends
 *   show [ID...]            role, term, log: |: committed up to here
 *   members ID              flow ID: what the leader knows of the others
 *   messages                those under way
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/util/check.h"
#include "common/util/scenario.h"
#include "raftd/core/raft.h"

#define NODES 10u
#define LOG 128u
#define QUEUE 512u

struct entry {
    uint64_t term;
    enum raft_entry_type type;
    struct raft_members members;
};

struct write {
    uint64_t id, truncate_from, from, to, install_index, install_term;
    bool install_drops, hs_changed;
    struct raft_hard_state hs;
    struct raft_members install_members;
};

struct node {
    bool known, up, held;
    struct raft *core;
    uint64_t now, wake, applied, first, last, snap_index, snap_term;
    struct raft_members snap_members;
    struct raft_hard_state hs;
    struct entry disk[LOG], log[LOG];
    struct write writes[64];
    unsigned n_writes;
    struct raft_members received;
    bool leads;
};

struct letter {
    struct raft_msg msg;
    struct raft_entry_meta metas[32];
    struct entry entries[32];
};

struct group {
    struct node nodes[NODES];
    struct letter queue[QUEUE];
    unsigned n_queue;
    uint32_t batch;
    uint64_t cut; /* bit set: on the other side */
    struct raft_members members;
    struct buf *out;
};

static void step(struct group *g, struct node *n, struct raft_event ev);

static uint64_t id_of(const struct group *g, const struct node *n)
{
    return (uint64_t)(n - g->nodes);
}

static struct node *node_at(struct group *g, const char *word)
{
    uint64_t id = strtoull(word, NULL, 10);
    CHECK(id > 0 && id < NODES);
    return &g->nodes[id];
}

/* ---- disks ---- */

static void write_done(struct node *n, const struct write *w)
{
    if (w->install_index != 0) {
        n->snap_index = w->install_index;
        n->snap_term = w->install_term;
        n->snap_members = w->install_members;
        n->applied = w->install_index;
        if (w->install_drops) {
            n->first = w->install_index + 1;
            n->last = w->install_index;
        }
    }
    if (w->truncate_from != 0)
        n->last = w->truncate_from - 1;
    for (uint64_t i = w->from; i <= w->to; i++) {
        CHECK(i == n->last + 1);
        n->disk[i] = n->log[i];
        n->last = i;
    }
    if (w->hs_changed)
        n->hs = w->hs;
}

static void disk_sync(struct group *g, struct node *n)
{
    n->held = false;
    if (n->n_writes == 0)
        return;
    uint64_t id = n->writes[n->n_writes - 1].id;
    for (unsigned i = 0; i < n->n_writes; i++)
        write_done(n, &n->writes[i]);
    n->n_writes = 0;
    step(g, n, (struct raft_event){ .type = RAFT_EV_PERSISTED, .write = id });
}

static void disk_fail(struct group *g, struct node *n)
{
    n->held = false;
    if (n->n_writes == 0)
        return;
    n->n_writes = 0;
    step(g, n, (struct raft_event){ .type = RAFT_EV_WRITE_FAILED, .write = n->writes[0].id });
}

/* ---- steps ---- */

static bool reachable(const struct group *g, uint64_t a, uint64_t b)
{
    return (g->cut >> a & 1) == (g->cut >> b & 1);
}

static void mail(struct group *g, struct node *n, const struct raft_msg *m)
{
    if (m->to >= NODES || !reachable(g, m->from, m->to) || !g->nodes[m->to].known)
        return;
    CHECK(g->n_queue < QUEUE);
    struct letter *l = &g->queue[g->n_queue++];
    *l = (struct letter){ .msg = *m };
    for (uint64_t i = m->entries_from; m->type == RAFT_MSG_APPEND && i <= m->entries_to; i++) {
        CHECK(l->msg.n_entries < 32);
        l->entries[l->msg.n_entries++] = n->log[i];
    }
}

static void take_over(struct node *n, const struct raft_event *ev, const struct raft_effects *fx)
{
    for (uint64_t i = fx->append_from; i <= fx->append_to; i++) {
        CHECK(i < LOG);
        n->log[i] = (struct entry){ fx->append_term, fx->append_type, fx->append_members };
        CHECK(!fx->append_of_msg || ev->msg != NULL);
        if (fx->append_of_msg)
            n->log[i] = ((const struct letter *)ev->msg)->entries[i - ev->msg->index - 1];
    }
    if (fx->write == 0)
        return;
    CHECK(n->n_writes < 64);
    n->writes[n->n_writes++] = (struct write){
        fx->write,        fx->truncate_from,     fx->append_from,        fx->append_to,  fx->install_index,
        fx->install_term, fx->install_drops_log, fx->hard_state_changed, fx->hard_state, n->received,
    };
}

static void tell(struct group *g, struct node *n, const struct raft_effects *fx)
{
    struct raft_status s;
    raft_status(n->core, &s);
    if ((s.role == RAFT_LEADER) != n->leads)
        buf_printf(g->out,
                   s.role == RAFT_LEADER ? "%" PRIu64 " leads term %" PRIu64 "\n"
                                         : "%" PRIu64 " leads no more: term %" PRIu64 "\n",
                   s.id, s.term);
    n->leads = s.role == RAFT_LEADER;
    for (size_t i = 0; i < fx->n_reads; i++)
        buf_printf(g->out, "read %" PRIu64 ": %s %" PRIu64 "\n", fx->reads[i].cookie,
                   fx->reads[i].index ? "at" : "refused", fx->reads[i].index);
    if (fx->transfer_failed)
        buf_printf(g->out, "%" PRIu64 " gave up handing over\n", s.id);
}

static void step(struct group *g, struct node *n, struct raft_event ev)
{
    struct raft_effects *fx = calloc(1, sizeof *fx);
    struct err e = ERR_INIT;
    CHECK(fx != NULL && n->up);
    ev.now.ms = n->now;
    int rc = raft_step(n->core, &ev, fx, &e);
    if (rc < 0) {
        buf_printf(g->out, "%s: %s\n", err_name(-rc), e.msg);
        free(fx);
        return;
    }
    take_over(n, &ev, fx);
    tell(g, n, fx);
    n->wake = fx->wake_at.ms;
    for (size_t i = 0; i < fx->n_msgs; i++)
        mail(g, n, &fx->msgs[i]);
    uint64_t apply_to = fx->apply_to;
    free(fx);
    if (apply_to > n->applied) {
        n->applied = apply_to;
        step(g, n, (struct raft_event){ .type = RAFT_EV_APPLIED, .index = apply_to });
    }
    if (!n->held)
        disk_sync(g, n);
}

static uint64_t term_of(void *arg, uint64_t index)
{
    return ((struct node *)arg)->disk[index].term;
}

static void start(struct group *g, struct node *n)
{
    struct raft_members_at changes[LOG];
    struct err e = ERR_INIT;
    size_t n_changes = 0;
    struct raft_config c = {
        .id = id_of(g, n), .members = n->snap_members, .seed = id_of(g, n), .append_entries_max = g->batch
    };
    for (uint64_t i = n->snap_index + 1; i <= n->last; i++)
        if (n->disk[i].type == RAFT_ENTRY_MEMBERS)
            changes[n_changes++] = (struct raft_members_at){ i, n->disk[i].members };
    struct raft_log_state l = { n->hs, n->snap_index, n->snap_term, n->applied, n->first, n->last, changes, n_changes };
    memcpy(n->log, n->disk, sizeof n->log);
    n->up = true;
    if (raft_new(&n->core, &c, &l, term_of, n, &e) < 0) {
        buf_printf(g->out, "%s\n", e.msg);
        n->up = false;
        return;
    }
    step(g, n, (struct raft_event){ .type = RAFT_EV_TICK });
}

static void crash(struct node *n)
{
    n->core = raft_free(n->core);
    n->up = n->held = n->leads = false;
    n->n_writes = 0;
}

/* ---- commands ---- */

static void deliver(struct group *g, struct letter *l)
{
    struct node *n = &g->nodes[l->msg.to];
    struct raft_event ev = { .type = RAFT_EV_MESSAGE, .msg = &l->msg };
    if (!n->up || l->msg.type == RAFT_MSG_SNAPSHOT)
        return;
    for (size_t i = 0; i < l->msg.n_entries; i++)
        l->metas[i] = (struct raft_entry_meta){
            l->msg.index + 1 + i,
            l->entries[i].term,
            l->entries[i].type,
            l->entries[i].type == RAFT_ENTRY_MEMBERS ? &l->entries[i].members : NULL,
        };
    l->msg.entries = l->metas;
    step(g, n, ev);
}

static void do_deliver(struct group *g, unsigned count)
{
    unsigned done = 0;
    while (done < count && done < g->n_queue) {
        CHECK(g->n_queue < QUEUE - 64);
        deliver(g, &g->queue[done++]);
    }
    g->n_queue -= done;
    memmove(g->queue, g->queue + done, g->n_queue * sizeof *g->queue);
}

static void do_lose(struct group *g, uint64_t to)
{
    unsigned left = 0;
    for (unsigned i = 0; i < g->n_queue; i++)
        if (g->queue[i].msg.to != to)
            g->queue[left++] = g->queue[i];
    g->n_queue = left;
}

static void do_run(struct group *g)
{
    do_deliver(g, UINT32_MAX);
}

static void do_wait(struct group *g, uint64_t ms)
{
    for (uint64_t i = 0; i < ms; i++) {
        for (unsigned k = 1; k < NODES; k++) {
            struct node *n = &g->nodes[k];
            n->now++;
            if (n->up && n->now >= n->wake)
                step(g, n, (struct raft_event){ .type = RAFT_EV_TICK });
        }
        do_run(g);
    }
}

static void do_log(struct group *g, char **words, unsigned n_words)
{
    struct node *n = node_at(g, words[1]);
    for (unsigned i = 2; i < n_words; i++) {
        char *v = scenario_value(words[i]);
        uint64_t x = strtoull(v, NULL, 10);
        if (strcmp(words[i], "term") == 0)
            n->hs.term = x;
        else if (strcmp(words[i], "vote") == 0)
            n->hs.vote = x;
        else if (strcmp(words[i], "commit") == 0)
            n->applied = x;
        else
            n->disk[++n->last] = (struct entry){ strtoull(words[i], NULL, 10), RAFT_ENTRY_DATA, { 0 } };
    }
}

static void do_group(struct group *g, char **words, unsigned n_words, bool learner)
{
    for (unsigned i = 1; i < n_words; i++) {
        struct node *n = node_at(g, words[i]);
        n->known = true;
        g->members.v[g->members.n++] = (struct raft_member){ id_of(g, n), learner };
    }
    for (unsigned k = 1; k < NODES; k++)
        if (g->nodes[k].known)
            g->nodes[k].snap_members = g->members;
}

static void do_start(struct group *g, char **words, unsigned n_words)
{
    for (unsigned k = 1; n_words == 1 && k < NODES; k++)
        if (g->nodes[k].known && !g->nodes[k].up)
            start(g, &g->nodes[k]);
    for (unsigned i = 1; i < n_words; i++)
        start(g, node_at(g, words[i]));
}

static void do_cut(struct group *g, char **words, unsigned n_words)
{
    g->cut = 0;
    for (unsigned i = 1; i < n_words; i++)
        g->cut |= 1u << id_of(g, node_at(g, words[i]));
}

static void show(struct group *g, struct node *n)
{
    struct raft_status s;
    if (!n->up) {
        buf_printf(g->out, "%" PRIu64 " down\n", id_of(g, n));
        return;
    }
    raft_status(n->core, &s);
    buf_printf(g->out, "%" PRIu64 " %s term=%" PRIu64 " log", s.id, raft_role_name(s.role), s.term);
    for (uint64_t i = s.first_index; i <= s.last_index; i++)
        buf_printf(g->out, " %" PRIu64 "%s%s", raft_term_at(n->core, i),
                   n->log[i].type == RAFT_ENTRY_MEMBERS ? "m" : "", i == s.committed ? " |" : "");
    buf_printf(g->out, "\n");
}

static void do_show(struct group *g, char **words, unsigned n_words)
{
    for (unsigned k = 1; n_words == 1 && k < NODES; k++)
        if (g->nodes[k].known)
            show(g, &g->nodes[k]);
    for (unsigned i = 1; i < n_words; i++)
        show(g, node_at(g, words[i]));
}

static void do_members(struct group *g, struct node *n)
{
    struct raft_status s;
    raft_status(n->core, &s);
    buf_printf(g->out, "%" PRIu64 " knows of", s.id);
    for (size_t i = 0; i < s.members.n; i++)
        buf_printf(g->out, " %" PRIu64 "%s", s.members.v[i].id, s.members.v[i].learner ? " (learner)" : "");
    buf_printf(g->out, "\n");
}

static void do_flow(struct group *g, struct node *n)
{
    struct raft_member_status m;
    for (size_t i = 0; raft_member_status(n->core, i, &m); i++)
        buf_printf(g->out, "%" PRIu64 "%s %s match=%" PRIu64 " next=%" PRIu64 "%s%s\n", m.id,
                   m.learner ? " (learner)" : "", m.state[0] ? m.state : "itself", m.match, m.next,
                   m.active ? "" : " silent", m.caught_up && m.learner ? " caught-up" : "");
}

static void do_messages(struct group *g)
{
    static const char *const names[] = {
        "",          "prevote",         "prevote-reply", "vote",    "vote-reply", "append", "append-reply",
        "heartbeat", "heartbeat-reply", "timeout-now",   "snapshot"
    };
    for (unsigned i = 0; i < g->n_queue; i++) {
        const struct raft_msg *m = &g->queue[i].msg;
        buf_printf(g->out, "%" PRIu64 " -> %" PRIu64 " %s term=%" PRIu64 " index=%" PRIu64, m->from, m->to,
                   names[m->type], m->term, m->index);
        if (m->n_entries > 0)
            buf_printf(g->out, " entries=%" PRIu64 "..%" PRIu64, m->entries_from, m->entries_to);
        if (m->reject)
            buf_printf(g->out, " refused hint=%" PRIu64 "/%" PRIu64, m->hint_index, m->hint_term);
        buf_printf(g->out, "\n");
    }
}

static void do_change(struct group *g, char **words, enum raft_change change)
{
    step(g, node_at(g, words[1]),
         (struct raft_event){ .type = RAFT_EV_MEMBERS,
                              .change = change,
                              .member = words[2] != NULL ? strtoull(words[2], NULL, 10) : 0 });
}

static void do_compact(struct group *g, char **words)
{
    struct node *n = node_at(g, words[1]);
    n->snap_index = strtoull(words[2], NULL, 10);
    n->first = strtoull(words[3], NULL, 10);
    n->snap_term = n->disk[n->snap_index].term;
    for (uint64_t i = 1; i <= n->snap_index; i++)
        if (n->disk[i].type == RAFT_ENTRY_MEMBERS)
            n->snap_members = n->disk[i].members;
    step(g, n, (struct raft_event){ .type = RAFT_EV_COMPACTED, .index = n->snap_index, .first_kept = n->first });
}

static void do_snapshot(struct group *g, char **words, unsigned n_words)
{
    struct node *from = node_at(g, words[1]), *to = node_at(g, words[2]);
    if (n_words > 3) {
        step(g, from, (struct raft_event){ .type = RAFT_EV_SNAPSHOT_FAILED, .member = id_of(g, to) });
        return;
    }
    to->received = from->snap_members;
    step(g, to,
         (struct raft_event){ .type = RAFT_EV_SNAPSHOT_RECEIVED,
                              .index = from->snap_index,
                              .term = from->snap_term,
                              .members = &to->received });
    step(g, from, (struct raft_event){ .type = RAFT_EV_SNAPSHOT_SENT, .member = id_of(g, to) });
}

static void do_timeout(struct group *g, struct node *n)
{
    if (n->wake != UINT64_MAX)
        n->now = n->wake;
    step(g, n, (struct raft_event){ .type = RAFT_EV_TICK });
}

static void node_command(struct group *g, char **words, unsigned n_words)
{
    struct node *n = node_at(g, words[1]);
    uint64_t arg = n_words > 2 ? strtoull(words[2], NULL, 10) : 0;
    const char *c = words[0];
    if (strcmp(c, "timeout") == 0)
        do_timeout(g, n);
    else if (strcmp(c, "hold") == 0)
        n->held = true;
    else if (strcmp(c, "sync") == 0)
        disk_sync(g, n);
    else if (strcmp(c, "fail") == 0)
        disk_fail(g, n);
    else if (strcmp(c, "crash") == 0)
        crash(n);
    else if (strcmp(c, "propose") == 0)
        step(g, n, (struct raft_event){ .type = RAFT_EV_PROPOSE, .n_entries = arg ? (uint32_t)arg : 1, .bytes = 1 });
    else if (strcmp(c, "read") == 0)
        step(g, n, (struct raft_event){ .type = RAFT_EV_READ, .cookie = arg });
    else if (strcmp(c, "lost") == 0)
        step(g, n, (struct raft_event){ .type = RAFT_EV_LINK_LOST, .member = arg });
    else if (strcmp(c, "transfer") == 0)
        step(g, n, (struct raft_event){ .type = RAFT_EV_TRANSFER, .member = arg });
    else if (strcmp(c, "members") == 0)
        do_members(g, n);
    else if (strcmp(c, "flow") == 0)
        do_flow(g, n);
    else
        buf_printf(g->out, "what is \"%s\"?\n", c);
}

static void on_line(void *arg, char **words, unsigned n_words, struct buf *out)
{
    struct group *g = arg;
    const char *c = words[0];
    g->out = out;
    if (strcmp(c, "voters") == 0)
        do_group(g, words, n_words, false);
    else if (strcmp(c, "learners") == 0)
        do_group(g, words, n_words, true);
    else if (strcmp(c, "new") == 0)
        node_at(g, words[1])->known = true;
    else if (strcmp(c, "log") == 0)
        do_log(g, words, n_words);
    else if (strcmp(c, "start") == 0)
        do_start(g, words, n_words);
    else if (strcmp(c, "wait") == 0)
        do_wait(g, strtoull(words[1], NULL, 10));
    else if (strcmp(c, "run") == 0)
        do_run(g);
    else if (strcmp(c, "deliver") == 0)
        do_deliver(g, (unsigned)strtoul(words[1], NULL, 10));
    else if (strcmp(c, "lose") == 0)
        do_lose(g, strtoull(words[1], NULL, 10));
    else if (strcmp(c, "batch") == 0)
        g->batch = (uint32_t)strtoul(words[1], NULL, 10);
    else if (strcmp(c, "drop") == 0)
        g->n_queue = 0;
    else if (strcmp(c, "cut") == 0)
        do_cut(g, words, n_words);
    else if (strcmp(c, "heal") == 0)
        g->cut = 0;
    else if (strcmp(c, "show") == 0)
        do_show(g, words, n_words);
    else if (strcmp(c, "messages") == 0)
        do_messages(g);
    else if (strcmp(c, "add") == 0)
        do_change(g, words, RAFT_ADD_LEARNER);
    else if (strcmp(c, "promote") == 0)
        do_change(g, words, RAFT_PROMOTE);
    else if (strcmp(c, "remove") == 0)
        do_change(g, words, RAFT_REMOVE);
    else if (strcmp(c, "same") == 0)
        do_change(g, words, RAFT_SAME_MEMBERS);
    else if (strcmp(c, "compact") == 0)
        do_compact(g, words);
    else if (strcmp(c, "snapshot") == 0)
        do_snapshot(g, words, n_words);
    else
        node_command(g, words, n_words);
}

static void *begin(void)
{
    struct group *g = calloc(1, sizeof *g);
    CHECK(g != NULL);
    for (unsigned k = 0; k < NODES; k++)
        g->nodes[k].first = 1;
    return g;
}

static void end(void *arg, struct buf *out)
{
    struct group *g = arg;
    (void)out;
    for (unsigned k = 0; k < NODES; k++)
        raft_free(g->nodes[k].core);
    free(g);
}

static void test_scenarios(void **state)
{
    static const struct scenario_ops ops = { begin, on_line, end };
    (void)state;
    assert_true(scenario_run("raftd/core/testdata/*.txt", &ops));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_scenarios) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
