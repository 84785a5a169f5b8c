/* gossip_members.c - who is alive: SWIM's probes and suspicions, Lifeguard's timeouts, the managers' roster. */
#include <string.h>

#include "common/util/check.h"
#include "meshd/gossip/gossip_priv.h"

#define CONFIRMATIONS 3u /* Lifeguard §IV.B: K */

uint32_t slot_of(const struct gossip *g, gossip_id id)
{
    size_t lo = 0, hi = g->roster.n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (g->roster.ids[mid] < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < g->roster.n && g->roster.ids[lo] == id ? (uint32_t)lo : NONE;
}

enum gossip_state state_at(const struct gossip *g, uint32_t slot)
{
    return (enum gossip_state)(g->members[slot] & 7);
}

uint64_t incarnation_at(const struct gossip *g, uint32_t slot)
{
    return g->members[slot] >> 3;
}

enum gossip_state state_of(const struct gossip *g, gossip_id id)
{
    uint32_t slot = slot_of(g, id);
    return slot == NONE ? GOSSIP_DEAD : state_at(g, slot);
}

/* A suspect counts as alive: suspicions come and go, and are no reason for anti-entropy. */
static uint32_t hash_of(gossip_id id, member m)
{
    uint64_t state = m & 7, v[2] = { id, m };
    if (state == GOSSIP_UNKNOWN)
        return 0;
    if (state == GOSSIP_SUSPECT)
        v[1] = (m & ~7ull) | GOSSIP_ALIVE;
    return (uint32_t)gossip_hash(0, v, sizeof v);
}

static void set_state(struct gossip *g, uint32_t slot, enum gossip_state state, uint64_t incarnation)
{
    gossip_id id = g->roster.ids[slot];
    enum gossip_state before = state_at(g, slot);
    g->member_hash[id % GOSSIP_BUCKETS] -= hash_of(id, g->members[slot]);
    g->n_state[before]--;
    g->members[slot] = incarnation << 3 | (unsigned)state;
    g->n_state[state]++;
    g->member_hash[id % GOSSIP_BUCKETS] += hash_of(id, g->members[slot]);
    if ((before >= GOSSIP_DEAD) != (state >= GOSSIP_DEAD))
        entries_of_owner(g, id, false);
    g->out->members_changed |= before != state;
}

bool member_describe(const struct gossip *g, uint32_t slot, struct gossip_member_update *ret)
{
    *ret = (struct gossip_member_update){ .id = g->roster.ids[slot],
                                          .state = state_at(g, slot),
                                          .incarnation = incarnation_at(g, slot) };
    if (ret->state == GOSSIP_SUSPECT)
        ret->by = g->suspects[map_get(&g->suspect_of, ret->id)].by[0];
    return ret->state != GOSSIP_UNKNOWN;
}

/* ---- suspicion ---- */

static uint64_t suspicion_ms(const struct gossip *g, uint32_t confirmations)
{
    static const uint32_t left[CONFIRMATIONS + 1] = { 1000, 500, 208, 0 }; /* 1 - log(c + 1) / log(K + 1) */
    uint32_t n = g->n_state[GOSSIP_ALIVE] + g->n_state[GOSSIP_SUSPECT], scale = log10_x100(n);
    uint64_t min = (uint64_t)g->conf.suspicion_mult * (scale < 100 ? 100 : scale) * g->conf.probe_ms / 100,
             max = 6 * min;
    if (n < CONFIRMATIONS + 2) /* nobody there to confirm it */
        return min;
    return min + (max - min) * left[confirmations < CONFIRMATIONS ? confirmations : CONFIRMATIONS] / 1000;
}

static void unsuspect(struct gossip *g, gossip_id id)
{
    uint32_t i = map_get(&g->suspect_of, id);
    if (i == NONE)
        return;
    map_del(&g->suspect_of, id);
    g->suspects[i].id = 0;
    g->n_suspects--;
    if (i < g->suspect_free)
        g->suspect_free = i;
}

/* confirm - one more who says so; true when that is news. */
static bool confirm(struct gossip *g, gossip_id id, gossip_id by)
{
    struct suspect *s = &g->suspects[map_get(&g->suspect_of, id)];
    for (uint32_t i = 0; i < s->n_by; i++)
        if (s->by[i] == by)
            return false;
    if (s->n_by > CONFIRMATIONS)
        return false;
    s->by[s->n_by++] = s->by[0];
    s->by[0] = by; /* what is passed on next is the newest */
    s->until = s->since + suspicion_ms(g, s->n_by - 1);
    if (s->until < g->suspect_next)
        g->suspect_next = s->until;
    return true;
}

static void suspect(struct gossip *g, uint32_t slot, const struct gossip_member_update *m)
{
    enum gossip_state state = state_at(g, slot);
    if (state >= GOSSIP_DEAD && m->incarnation <= incarnation_at(g, slot))
        return;
    if (state != GOSSIP_SUSPECT) {
        if (g->n_suspects == g->conf.suspects_max)
            return;
        while (g->suspects[g->suspect_free].id != 0)
            g->suspect_free++;
        g->suspects[g->suspect_free] = (struct suspect){ .id = m->id, .since = g->now };
        map_put(&g->suspect_of, m->id, g->suspect_free);
        g->n_suspects++;
        g->counts.suspected++;
    }
    bool newer = state != GOSSIP_SUSPECT || m->incarnation > incarnation_at(g, slot);
    if (newer) {
        struct suspect *s = &g->suspects[map_get(&g->suspect_of, m->id)];
        s->since = g->now;
        s->n_by = 0;
        set_state(g, slot, GOSSIP_SUSPECT, m->incarnation);
    }
    if (confirm(g, m->id, m->by) || newer)
        news_member(g, m->id);
}

static void bury(struct gossip *g, uint32_t slot, enum gossip_state state, uint64_t incarnation)
{
    unsuspect(g, g->roster.ids[slot]);
    g->counts.died += state_at(g, slot) < GOSSIP_DEAD;
    set_state(g, slot, state, incarnation);
    news_member(g, g->roster.ids[slot]);
}

void member_timers(struct gossip *g)
{
    if (g->now < g->suspect_next)
        return;
    g->suspect_next = UINT64_MAX;
    for (uint32_t i = 0, left = g->n_suspects; left > 0; i++) {
        struct suspect *s = &g->suspects[i];
        if (s->id == 0)
            continue;
        left--;
        if (s->until > g->now) {
            g->suspect_next = s->until < g->suspect_next ? s->until : g->suspect_next;
            continue;
        }
        uint32_t slot = slot_of(g, s->id);
        bury(g, slot, GOSSIP_DEAD, incarnation_at(g, slot));
    }
}

/* ---- what others say ---- */

void announce_self(struct gossip *g)
{
    uint32_t slot = slot_of(g, g->conf.id);
    if (slot == NONE)
        return;
    set_state(g, slot, g->leaving ? GOSSIP_LEFT : GOSSIP_ALIVE, g->incarnation);
    news_member(g, g->conf.id);
}

static void about_self(struct gossip *g, const struct gossip_member_update *m)
{
    bool newer = m->incarnation > g->incarnation;
    if (g->leaving || (m->state == GOSSIP_ALIVE && !newer) || m->incarnation < g->incarnation)
        return;
    g->incarnation = m->incarnation + 1; /* SWIM §4.2; also an earlier life of this node whose clock was ahead */
    if (m->state != GOSSIP_ALIVE) {
        g->counts.refuted++;
        g->health += m->state == GOSSIP_SUSPECT && g->health < HEALTH_MAX;
    }
    announce_self(g);
}

void member_update(struct gossip *g, const struct gossip_member_update *m)
{
    uint32_t slot = slot_of(g, m->id);
    if (slot == NONE)
        return; /* removed, or not heard of yet: the managers decide */
    if (m->id == g->conf.id) {
        about_self(g, m);
        return;
    }
    enum gossip_state state = state_at(g, slot);
    uint64_t known = incarnation_at(g, slot);
    if (m->incarnation < known)
        return;
    if (m->state == GOSSIP_ALIVE) {
        if (m->incarnation == known && state != GOSSIP_UNKNOWN)
            return;
        unsuspect(g, m->id);
        set_state(g, slot, GOSSIP_ALIVE, m->incarnation);
        if (state != GOSSIP_UNKNOWN || g->now >= g->quiet_until)
            news_member(g, m->id);
    } else if (m->state == GOSSIP_SUSPECT) {
        suspect(g, slot, m);
    } else if (state < GOSSIP_DEAD || m->incarnation > known || m->state > state) {
        bury(g, slot, m->state, m->incarnation);
    }
}

/* ---- the roster ---- */

static void forget(struct gossip *g, gossip_id id)
{
    unsuspect(g, id);
    news_forget_member(g, id);
    entries_of_owner(g, id, true);
    if (g->probing == id)
        g->probing = 0;
    for (size_t i = 0; i < STREAMS_MAX; i++)
        if (g->streams[i].to == id)
            g->streams[i].to = 0;
}

/* In place: those that stay move together at the front, and then, from the end, to where they belong. */
void member_roster(struct gossip *g, const struct gossip_roster *r)
{
    struct gossip_roster old = g->roster;
    size_t kept = 0;
    for (size_t i = 0, k = 0; i < old.n; i++) {
        while (k < r->n && r->ids[k] < old.ids[i])
            k++;
        if (k < r->n && r->ids[k] == old.ids[i])
            g->members[kept++] = g->members[i];
    }
    size_t i = old.n;
    for (size_t k = r->n; k-- > 0;) {
        while (i > 0 && old.ids[i - 1] > r->ids[k])
            i--;
        g->members[k] = i > 0 && old.ids[i - 1] == r->ids[k] ? g->members[--kept] : 0;
    }
    g->roster = *r;
    for (size_t k = 0, m = 0; k < old.n; k++) {
        while (m < r->n && r->ids[m] < old.ids[k])
            m++;
        if ((m == r->n || r->ids[m] != old.ids[k]) && old.ids[k] != g->conf.id)
            forget(g, old.ids[k]);
    }
    memset(g->n_state, 0, sizeof g->n_state);
    memset(g->member_hash, 0, sizeof g->member_hash);
    for (uint32_t k = 0; k < r->n; k++) {
        g->n_state[state_at(g, k)]++;
        g->member_hash[r->ids[k] % GOSSIP_BUCKETS] += hash_of(r->ids[k], g->members[k]);
    }
    g->walk_left = 0;
    g->out->members_changed = true;
    uint32_t self = slot_of(g, g->conf.id);
    if (self != NONE && state_at(g, self) == GOSSIP_UNKNOWN)
        announce_self(g);
    g->recheck = true;
}

/* member_random - alive: also those not heard of yet; else: one of the dead. 0: there is none. */
gossip_id member_random(struct gossip *g, bool alive, gossip_id but)
{
    uint32_t n = (uint32_t)g->roster.n;
    if (n == 0 || (!alive && g->n_state[GOSSIP_DEAD] == 0))
        return 0;
    for (uint32_t i = 0, at = 0; i < n + 32; i++) {
        at = i <= 32 ? (uint32_t)rnd(g, n) : (at + 1) % n; /* a few at random; then all in turn */
        gossip_id id = g->roster.ids[at];
        enum gossip_state s = state_at(g, at);
        if (id != g->conf.id && id != but && (alive ? s <= GOSSIP_SUSPECT : s == GOSSIP_DEAD))
            return id;
    }
    return 0;
}

/* ---- probes ---- */

static uint32_t gcd(uint32_t a, uint32_t b)
{
    while (b != 0) {
        uint32_t c = a % b;
        a = b;
        b = c;
    }
    return a;
}

/* SWIM §4.3: each member once, in random order; here: a random step that has no factor in common with their number. */
static gossip_id walk(struct gossip *g)
{
    uint32_t n = (uint32_t)g->roster.n;
    for (uint32_t tries = 0; tries < 2 * n; tries++) {
        if (g->walk_left == 0) {
            g->walk_left = n;
            g->walk_at = (uint32_t)rnd(g, n);
            do
                g->walk_step = 1 + (uint32_t)rnd(g, n);
            while (gcd(n, g->walk_step) != 1);
        }
        g->walk_left--;
        g->walk_at = (uint32_t)(((uint64_t)g->walk_at + g->walk_step) % n);
        if (state_at(g, g->walk_at) < GOSSIP_DEAD && g->roster.ids[g->walk_at] != g->conf.id)
            return g->roster.ids[g->walk_at];
    }
    return 0;
}

static void ping(struct gossip *g, gossip_id to, uint32_t seq)
{
    struct gossip_head h = { .type = GOSSIP_PING, .seq = seq };
    send_head(g, to, &h, true);
}

static uint32_t next_seq(struct gossip *g)
{
    if (++g->seq == 0)
        g->seq = 1;
    return g->seq;
}

/* About three pings an interval reach each of the dead, whoever sends them. */
static void ping_dead(struct gossip *g)
{
    uint64_t dead = g->n_state[GOSSIP_DEAD], alive = g->n_state[GOSSIP_ALIVE];
    if (dead > 0 && rnd(g, alive) < 3 * dead)
        ping(g, member_random(g, false, 0), 0);
    if (alive <= 1 && g->roster.n_seeds > 0) {
        gossip_id seed = g->roster.seeds[rnd(g, g->roster.n_seeds)];
        if (seed != g->conf.id)
            ping(g, seed, 0);
    }
}

static void probe_failed(struct gossip *g)
{
    uint32_t slot = slot_of(g, g->probing), worse = 1;
    if (g->nacks_due > 0)
        worse = g->nacks < g->nacks_due ? g->nacks_due - g->nacks : 0;
    g->health = g->health + worse > HEALTH_MAX ? HEALTH_MAX : g->health + worse;
    g->counts.probes_failed++;
    if (slot != NONE && state_at(g, slot) < GOSSIP_DEAD) {
        struct gossip_member_update m = {
            .id = g->probing, .state = GOSSIP_SUSPECT, .incarnation = incarnation_at(g, slot), .by = g->conf.id
        };
        suspect(g, slot, &m);
    }
    g->probing = 0;
}

static void probe_indirect(struct gossip *g)
{
    g->indirect_at = UINT64_MAX;
    for (uint32_t i = 0; i < g->conf.relays; i++) {
        struct gossip_head h = { .type = GOSSIP_PING_REQ, .seq = g->probe_seq, .target = g->probing };
        gossip_id by = member_random(g, true, g->probing);
        if (by == 0)
            return;
        send_head(g, by, &h, true);
        g->nacks_due++;
    }
}

void probe_timers(struct gossip *g)
{
    for (size_t i = 0; i < RELAYS_MAX; i++) {
        struct relay *r = &g->relays[i];
        if (r->from == 0 || r->nack_at > g->now)
            continue;
        struct gossip_head h = { .type = GOSSIP_NACK, .seq = r->from_seq, .target = r->target };
        send_head(g, r->from, &h, false);
        r->from = 0;
    }
    if (g->probing != 0 && g->now >= g->indirect_at && g->now < g->probe_at)
        probe_indirect(g);
    if (g->now < g->probe_at)
        return;
    if (g->probing != 0)
        probe_failed(g);
    g->probe_at = g->now + g->conf.probe_ms * (g->health + 1);
    if (g->leaving)
        return;
    g->probing = walk(g);
    if (g->probing != 0) {
        g->counts.probes++;
        g->probe_seq = next_seq(g);
        g->nacks = g->nacks_due = 0;
        g->indirect_at = g->now + g->conf.probe_reply_ms * (g->health + 1);
        ping(g, g->probing, g->probe_seq);
    }
    ping_dead(g);
}

void probe_relay(struct gossip *g, const struct gossip_head *h)
{
    if (h->target == g->conf.id || slot_of(g, h->target) == NONE)
        return;
    for (size_t i = 0; i < RELAYS_MAX; i++)
        if (g->relays[i].from == 0) {
            g->relays[i] = (struct relay){ .from = h->from,
                                           .from_seq = h->seq,
                                           .target = h->target,
                                           .seq = next_seq(g),
                                           .nack_at = g->now + g->conf.probe_reply_ms * 4 / 5 };
            ping(g, h->target, g->relays[i].seq);
            return;
        }
    g->counts.limited++;
}

void probe_answered(struct gossip *g, const struct gossip_head *h)
{
    for (size_t i = 0; i < RELAYS_MAX && h->type == GOSSIP_ACK && h->target == 0; i++) {
        struct relay *r = &g->relays[i];
        if (r->from == 0 || r->target != h->from || r->seq != h->seq)
            continue;
        struct gossip_head on = { .type = GOSSIP_ACK, .seq = r->from_seq, .target = r->target };
        send_head(g, r->from, &on, false);
        r->from = 0;
    }
    if (g->probing == 0 || h->seq != g->probe_seq || (h->target == 0 ? h->from : h->target) != g->probing)
        return;
    if (h->type == GOSSIP_NACK) {
        g->nacks++;
        return;
    }
    g->probing = 0;
    g->health -= g->health > 0;
}
