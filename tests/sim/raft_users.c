/* raft_users.c - see raft_world.h: clients that read and write, operators that change members, and what breaks. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/raft_world_priv.h"

/* ---- clients ---- */

static struct node *random_node(void)
{
    unsigned at = (unsigned)world_rnd(SLOTS);
    for (unsigned i = 0; i < SLOTS; i++) {
        struct node *n = &w.nodes[(at + i) % SLOTS];
        if (n->id != 0 && n->up && n->paused_until <= w.now)
            return n;
    }
    return NULL;
}

/* A node that thinks it leads; not always the newest one. */
struct node *users_leader(void)
{
    struct node *best = NULL;
    for (unsigned i = 0; i < SLOTS; i++) {
        struct node *n = &w.nodes[i];
        if (n->id == 0 || !n->up || n->st.role != RAFT_LEADER || n->paused_until > w.now)
            continue;
        if (best == NULL || world_chance(500))
            best = n;
    }
    return best;
}

static void client_write(struct node *n)
{
    uint64_t values[5];
    unsigned want = 1 + (unsigned)world_rnd(5), got = 0;
    for (unsigned k = 0; k < OPS && got < want; k++) {
        struct op *o = &w.ops[k];
        if (o->busy && o->deadline > w.now)
            continue;
        values[got++] = ++w.next_value;
        *o = (struct op){ .busy = true,
                          .value = w.next_value,
                          .floor = checks_began(&w.checks),
                          .deadline = w.now + 5 * w.election_ms * MS,
                          .slot = world_slot(n),
                          .life = n->life };
    }
    if (got == 0)
        return;
    struct raft_event ev = { .type = RAFT_EV_PROPOSE, .n_entries = got, .bytes = 100ull * got };
    int rc = 0;
    world_step_values(n, &ev, values, &rc);
    for (unsigned k = 0; rc < 0 && k < OPS; k++)
        if (w.ops[k].busy && !w.ops[k].reads && w.ops[k].value > w.next_value - got)
            w.ops[k].busy = false;
}

static void client_read(struct node *n)
{
    for (unsigned k = 0; k < OPS; k++) {
        struct op *o = &w.ops[k];
        if (o->busy && o->deadline > w.now)
            continue;
        *o = (struct op){ .busy = true,
                          .reads = true,
                          .cookie = ++w.next_cookie,
                          .floor = checks_began(&w.checks),
                          .deadline = w.now + 5 * w.election_ms * MS,
                          .slot = world_slot(n),
                          .life = n->life };
        struct raft_event ev = { .type = RAFT_EV_READ, .cookie = o->cookie };
        int rc = 0;
        world_step_values(n, &ev, NULL, &rc);
        if (rc < 0)
            o->busy = false;
        return;
    }
}

void users_client(void)
{
    struct node *n = world_chance(850) ? users_leader() : random_node();
    world_put((struct event){ .at = w.now + world_rnd(2 * w.client_us) + 1, .type = E_CLIENT });
    if (n == NULL)
        return;
    bool room = n->st.last_index < INDEX_MAX - 600;
    if (world_chance(600) && room)
        client_write(n);
    else
        client_read(n);
}

/* ---- operators ---- */

/* committed_members - what the whole group agreed on last. */
const struct raft_members *users_members(void)
{
    for (uint64_t i = w.checks.n_committed; i > 0; i--)
        if (w.checks.committed[i].type == RAFT_ENTRY_MEMBERS)
            return &w.pool[w.checks.committed[i].members];
    return &w.pool[1];
}

int users_propose(struct node *leader, enum raft_change change, raft_id id)
{
    struct raft_event ev = { .type = RAFT_EV_MEMBERS, .change = change, .member = id };
    int rc = 0;
    if (leader->st.last_index > INDEX_MAX - 300)
        return -1;
    world_step_values(leader, &ev, NULL, &rc);
    world_trace("%" PRIu64 " change %d of %" PRIu64 ": %d", leader->id, (int)change, id, rc);
    if (rc == 0)
        w.res->changes++;
    return rc;
}

static enum { NO_MEMBER, VOTER, LEARNER } kind_in(const struct raft_members *m, raft_id id)
{
    for (size_t i = 0; i < m->n; i++)
        if (m->v[i].id == id)
            return m->v[i].learner ? LEARNER : VOTER;
    return NO_MEMBER;
}

static void operator_add(struct node *leader)
{
    struct node *n = NULL;
    for (unsigned i = 0; i < SLOTS; i++)
        if (w.nodes[i].id != 0 && w.nodes[i].fresh && w.nodes[i].up)
            n = &w.nodes[i];
    if (n == NULL) {
        n = world_node_make(0, true);
        if (n == NULL)
            return;
        world_node_start(n, true);
    }
    (void)users_propose(leader, RAFT_ADD_LEARNER, n->id);
}

/* What was removed, and everybody knows it, is switched off at some time; until then it may disturb. */
static void wipe_removed(void)
{
    const struct raft_members *m = users_members();
    for (unsigned i = 0; i < SLOTS; i++) {
        struct node *n = &w.nodes[i];
        if (n->id == 0)
            continue;
        if (kind_in(m, n->id) != NO_MEMBER)
            n->fresh = false;
        else if (!n->fresh && world_chance(100))
            world_node_wipe(n);
    }
}

void users_operate(struct node *leader)
{
    const struct raft_members *m = &leader->st.members;
    if (m->n == 0)
        return;
    const struct raft_member *one = &m->v[world_rnd(m->n)];
    size_t voters = 0;
    for (size_t i = 0; i < m->n; i++)
        voters += !m->v[i].learner;
    struct raft_event transfer = { .type = RAFT_EV_TRANSFER, .member = world_chance(300) ? 0 : one->id };
    switch (world_rnd(6)) {
    case 0:
        if (m->n < SLOTS - 1)
            operator_add(leader);
        break;
    case 1:
    case 2:
        for (size_t i = 0; i < m->n; i++)
            if (m->v[i].learner && users_propose(leader, RAFT_PROMOTE, m->v[i].id) == 0)
                break;
        break;
    case 3:
        if (voters > 2 || (voters == 2 && world_chance(200)) || one->learner)
            (void)users_propose(leader, RAFT_REMOVE, one->id);
        break;
    case 4:
        (void)users_propose(leader, RAFT_SAME_MEMBERS, 0);
        break;
    default:
        w.res->transfers++;
        world_step_values(leader, &transfer, NULL, &(int){ 0 });
    }
}

void users_operator(void)
{
    world_put((struct event){ .at = w.now + world_rnd(2 * w.operator_us) + 1, .type = E_OPERATOR });
    wipe_removed();
    struct node *leader = users_leader();
    if (leader != NULL && w.chaos)
        users_operate(leader);
}

/* ---- chaos ---- */

void users_crash(struct node *n)
{
    bool told = world_chance(600);
    world_node_stop(n);
    if (told)
        world_hints(n->id, 30 * MS);
    world_put(
        (struct event){ .at = w.now + world_rnd(w.down_us), .type = E_START, .slot = world_slot(n), .life = n->life });
}

static void chaos_crash(void)
{
    struct node *n = world_chance(400) ? users_leader() : random_node();
    if (n != NULL)
        users_crash(n);
}

static void chaos_cut(void)
{
    unsigned kind = (unsigned)world_rnd(4), mask = (unsigned)world_rnd(1u << SLOTS);
    bool one_way = world_chance(300);
    for (unsigned a = 0; a < SLOTS; a++)
        for (unsigned b = 0; b < SLOTS; b++) {
            bool split = (mask >> a & 1) != (mask >> b & 1);
            if (kind == 0)
                w.cut[a][b] = false;
            else if (kind == 1 && a != b && world_chance(150))
                w.cut[a][b] = true;
            else if (kind >= 2 && split)
                w.cut[a][b] = !(one_way && (mask >> a & 1));
        }
    world_trace("cut: kind %u mask %x%s", kind, mask, one_way ? " one way" : "");
}

static void chaos_isolate_leader(void)
{
    struct node *n = users_leader();
    for (unsigned b = 0; n != NULL && b < SLOTS; b++)
        w.cut[world_slot(n)][b] = w.cut[b][world_slot(n)] = b != world_slot(n);
    if (n == NULL)
        return;
    world_trace("%" PRIu64 " is cut off", n->id);
    if (world_chance(600))
        world_hints(n->id, 30 * MS);
}

void users_heal_links(void)
{
    memset(w.cut, 0, sizeof w.cut);
}

/*
 * A leader cut off in the middle of a change of members; its successor is told to remove it at once; then the first one
 * comes back, with a majority of its own configuration if it can have one (the bug of July 2015 in Raft thesis §4.1).
 */
static void chaos_feud(void)
{
    struct node *n = w.feud_id != 0 ? world_node_of(w.feud_id) : NULL;
    if (n == NULL) {
        n = users_leader();
        if (n == NULL)
            return;
        w.feud_id = n->id;
        chaos_isolate_leader();
        const struct raft_members *m = &n->st.members;
        (void)users_propose(n, RAFT_REMOVE, m->v[world_rnd(m->n)].id);
        return;
    }
    unsigned with = 1u << world_slot(n) | 1u << world_rnd(SLOTS);
    for (unsigned a = 0; a < SLOTS; a++)
        for (unsigned b = 0; b < SLOTS; b++)
            w.cut[a][b] = (with >> a & 1) != (with >> b & 1);
    world_hints(w.feud_id, 30 * MS);
    w.feud_id = 0;
}

void users_chaos(void)
{
    world_put((struct event){ .at = w.now + world_rnd(2 * w.chaos_us) + 1, .type = E_CHAOS });
    struct node *n = random_node();
    if (!w.chaos || n == NULL)
        return;
    if (w.feud && world_chance(800)) {
        chaos_feud();
        return;
    }
    switch (world_rnd(13)) {
    case 0:
    case 1:
    case 2:
        chaos_crash();
        break;
    case 3:
    case 4:
        chaos_cut();
        break;
    case 5:
        chaos_isolate_leader();
        break;
    case 6:
    case 7:
        users_heal_links();
        break;
    case 8:
        n->disk_broken = world_chance(300);
        break;
    case 9:
        world_hints(n->id, 20 * MS);
        break;
    case 10:
        if (world_chance(400))
            n = users_leader();
        if (n != NULL) {
            n->paused_until = w.now + world_rnd(3 * w.election_ms * MS);
            world_trace("%" PRIu64 " stands still", n->id);
        }
        break;
    default:
        world_compact(n);
    }
}
