/* gossip.c - memory, the step, and what can be asked. */
#include <stdlib.h>
#include <string.h>

#include "common/util/check.h"
#include "meshd/gossip/gossip_priv.h"

#define QUIET_MS 3000u

/* splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014) */
uint64_t rnd(struct gossip *g, uint64_t below)
{
    uint64_t z = (g->rng += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return below == 0 ? 0 : (z ^ z >> 31) % below;
}

uint32_t log10_x100(uint64_t n)
{
    unsigned bits = 0;
    while (n >> bits > 1)
        bits++;
    uint64_t frac =
        bits == 0 ? 0 : ((n - (1ull << bits)) * 1000) >> bits; /* log2 between two powers: a straight line */
    return (uint32_t)((bits * 1000ull + frac) * 30103 / 1000000);
}

/* ---- map ---- */

static size_t map_home(const struct map *m, uint64_t key)
{
    return (size_t)(key * 0x9e3779b97f4a7c15u >> 32) & m->mask;
}

bool map_init(struct map *m, size_t max)
{
    size_t cap = 16;
    while (cap < 2 * max)
        cap *= 2;
    m->mask = cap - 1;
    m->keys = calloc(cap, sizeof *m->keys);
    m->values = calloc(cap, sizeof *m->values);
    return m->keys != NULL && m->values != NULL;
}

static size_t map_place(const struct map *m, uint64_t key)
{
    size_t i = map_home(m, key);
    while (m->keys[i] != 0 && m->keys[i] != key)
        i = (i + 1) & m->mask;
    return i;
}

uint32_t map_get(const struct map *m, uint64_t key)
{
    size_t i = map_place(m, key);
    return m->keys[i] == key && key != 0 ? m->values[i] : NONE;
}

void map_put(struct map *m, uint64_t key, uint32_t value)
{
    size_t i = map_place(m, key);
    CHECK(key != 0 && 2 * m->n <= m->mask + 1);
    m->n += m->keys[i] == 0;
    m->keys[i] = key;
    m->values[i] = value;
}

void map_del(struct map *m, uint64_t key)
{
    size_t hole = map_place(m, key);
    if (m->keys[hole] == 0)
        return;
    m->n--;
    m->keys[hole] = 0;
    for (size_t i = (hole + 1) & m->mask; m->keys[i] != 0; i = (i + 1) & m->mask) /* Knuth, TAOCP 6.4, algorithm R */
        if (((i - map_home(m, m->keys[i])) & m->mask) >= ((i - hole) & m->mask)) {
            m->keys[hole] = m->keys[i];
            m->values[hole] = m->values[i];
            m->keys[i] = 0;
            hole = i;
        }
}

static void map_done(struct map *m)
{
    free(m->keys);
    free(m->values);
}

/* ---- life ---- */

static void defaults(struct gossip_config *c)
{
#define DEFAULT(field, value) c->field = c->field == 0 ? (value) : c->field
    DEFAULT(members_max, 16384);
    DEFAULT(entries_max, 65536);
    DEFAULT(suspects_max, 4096);
    DEFAULT(queue_max, 8192);
    DEFAULT(key_max, GOSSIP_KEY_MAX);
    DEFAULT(value_max, GOSSIP_VALUE_MAX);
    DEFAULT(packet_max, GOSSIP_PACKET_MAX);
    DEFAULT(probe_ms, 1000);
    DEFAULT(probe_reply_ms, 400);
    DEFAULT(news_ms, 200);
    DEFAULT(fanout, 3);
    DEFAULT(relays, 3);
    DEFAULT(suspicion_mult, 4);
    DEFAULT(transmit_mult, 3);
    DEFAULT(sync_ms, 15000);
    DEFAULT(settle_ms, 1500);
    DEFAULT(deleted_ms, 60000);
    DEFAULT(tx_per_s, 262144);
#undef DEFAULT
}

int gossip_new(struct gossip **ret, const struct gossip_config *conf, struct err *e)
{
    struct gossip_config c = *conf;
    defaults(&c);
    if (c.id == 0 || c.incarnation == 0 || c.incarnation >> 55 != 0 || c.key_max > GOSSIP_KEY_MAX ||
        c.value_max > GOSSIP_VALUE_MAX || c.packet_max > GOSSIP_PACKET_MAX || c.packet_max < 700 ||
        c.members_max > 1u << 20 || c.entries_max > 1u << 20 || c.suspects_max > 1u << 20 || c.queue_max > 1u << 20 ||
        c.fanout > 8 || c.relays > 8 || c.probe_reply_ms * 2 > c.probe_ms || c.suspicion_mult > 100 ||
        c.transmit_mult > 8)
        return err_set(e, ERR_INVALID, "gossip: a setting is out of range");
    struct gossip *g = calloc(1, sizeof *g);
    if (g == NULL)
        return err_set(e, ERR_NOMEM, "gossip: out of memory");
    g->conf = c;
    g->rng = c.seed;
    g->incarnation = c.incarnation;
    g->own_seq = c.incarnation;
    g->entry_size = (sizeof(struct entry) + c.key_max + c.value_max + 7) & ~(size_t)7;
    g->owners_mask = 15;
    while (g->owners_mask < c.entries_max / 4)
        g->owners_mask = 2 * g->owners_mask + 1;
    g->members = calloc(c.members_max, sizeof *g->members);
    g->suspects = calloc(c.suspects_max, sizeof *g->suspects);
    g->slab = calloc(c.entries_max, g->entry_size);
    g->owners = malloc((g->owners_mask + 1) * sizeof *g->owners);
    g->queue = calloc(c.queue_max, sizeof *g->queue);
    if (g->members == NULL || g->suspects == NULL || g->slab == NULL || g->owners == NULL || g->queue == NULL ||
        !map_init(&g->suspect_of, c.suspects_max) || !map_init(&g->entry_of, c.entries_max) ||
        !map_init(&g->news_of, c.queue_max)) {
        gossip_free(g);
        return err_set(e, ERR_NOMEM, "gossip: out of memory");
    }
    memset(g->owners, 0xff, (g->owners_mask + 1) * sizeof *g->owners);
    g->entry_free = g->dirty_head = g->dirty_tail = NONE;
    g->suspect_next = UINT64_MAX;
    g->deleted_at = UINT64_MAX;
    news_init(g);
    *ret = g;
    return 0;
}

struct gossip *gossip_free(struct gossip *g)
{
    if (g == NULL)
        return NULL;
    map_done(&g->suspect_of);
    map_done(&g->entry_of);
    map_done(&g->news_of);
    free(g->members);
    free(g->suspects);
    free(g->slab);
    free(g->owners);
    free(g->queue);
    free(g);
    return NULL;
}

/* ---- the step ---- */

static void start(struct gossip *g)
{
    g->started = true;
    g->quiet_until = g->now + QUIET_MS;
    g->probe_at = g->now + rnd(g, g->conf.probe_ms);
    g->sync_at = g->now + rnd(g, 200);
    g->tokens_at = g->now;
    g->tokens = (int64_t)g->conf.tx_per_s * 500;
}

static void answer_ping(struct gossip *g, const struct gossip_head *h, bool known)
{
    struct gossip_head ack = { .type = GOSSIP_ACK, .seq = h->seq };
    send_head(g, h->from, &ack, known);
}

/* Whoever sends is alive. Those held for dead or suspect hear of it with the next packet to them, and refute it. */
static void hear(struct gossip *g, const struct gossip_head *h, uint32_t slot)
{
    enum gossip_state before = state_at(g, slot);
    if (before == GOSSIP_UNKNOWN || h->incarnation > incarnation_at(g, slot)) {
        struct gossip_member_update m = { .id = h->from, .state = GOSSIP_ALIVE, .incarnation = h->incarnation };
        if (before != GOSSIP_LEFT || h->incarnation > incarnation_at(g, slot))
            member_update(g, &m);
    }
    if (before == GOSSIP_DEAD) /* a partition has healed, or a node is back: what else is new there? */
        (void)sync_with(g, h->from);
}

static int step_packet(struct gossip *g, const struct gossip_event *ev, struct err *e)
{
    struct gossip_head h;
    struct gossip_update u;
    struct str updates;
    int r = gossip_packet_decode(ev->packet, &h, &updates, e);
    if (r < 0) {
        g->counts.malformed++;
        return r;
    }
    if ((ev->sender != 0 && ev->sender != h.from) || h.from == g->conf.id) {
        g->counts.malformed++;
        return err_set(e, ERR_DENIED, "gossip packet in another node's name");
    }
    g->counts.packets_in++;
    g->counts.bytes_in += ev->packet.n;
    uint32_t slot = slot_of(g, h.from);
    if (slot == NONE) { /* not in the roster, or not yet: it need not think that this node is dead, and that is all */
        g->counts.strangers++;
        if (h.type == GOSSIP_PING)
            answer_ping(g, &h, false);
        return 0;
    }
    hear(g, &h, slot);
    while (gossip_update_next(&updates, &u)) {
        if (u.is_entry)
            entry_update(g, &u.entry, h.from);
        else
            member_update(g, &u.member);
    }
    digest_heard(g, &h.digest, h.from);
    if (h.type == GOSSIP_PING)
        answer_ping(g, &h, true);
    else if (h.type == GOSSIP_PING_REQ)
        probe_relay(g, &h);
    else if (h.type == GOSSIP_ACK || h.type == GOSSIP_NACK)
        probe_answered(g, &h);
    else if (h.type == GOSSIP_SYNC)
        sync_compare(g, &h);
    else if (h.type == GOSSIP_WANT)
        sync_wanted(g, &h);
    return 0;
}

static int step_roster(struct gossip *g, const struct gossip_roster *r, struct err *e)
{
    if (r == NULL || (g->roster.ids != NULL && r->revision < g->roster.revision))
        return err_set(e, ERR_PRECONDITION, "an older list of nodes than is known");
    if (r->n > g->conf.members_max)
        return err_set(e, ERR_TOO_BIG, "%zu nodes; there is room for %u", r->n, g->conf.members_max);
    for (size_t i = 0; i < r->n; i++)
        if (r->ids[i] == 0 || (i > 0 && r->ids[i] <= r->ids[i - 1]))
            return err_set(e, ERR_INVALID, "the list of nodes is not in order");
    member_roster(g, r);
    return 0;
}

static int step_event(struct gossip *g, const struct gossip_event *ev, struct err *e)
{
    switch (ev->type) {
    case GOSSIP_EV_TICK:
        return 0;
    case GOSSIP_EV_PACKET:
        return step_packet(g, ev, e);
    case GOSSIP_EV_ROSTER:
        return step_roster(g, ev->roster, e);
    case GOSSIP_EV_DIGEST:
        digest_heard(g, &ev->digest, 0);
        return 0;
    case GOSSIP_EV_RECORDS:
        return entry_records(g, ev, e);
    case GOSSIP_EV_SET:
        return entry_set(g, ev, e);
    case GOSSIP_EV_UNSET:
        return entry_unset(g, ev, e);
    case GOSSIP_EV_LEAVE:
        g->leaving = true;
        announce_self(g);
        return 0;
    }
    return err_set(e, ERR_INVALID, "gossip: no such event");
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t wake_at(const struct gossip *g)
{
    uint64_t at = earlier(g->probe_at, g->sync_at);
    at = earlier(at, g->suspect_next);
    at = earlier(at, g->deleted_at);
    at = earlier(at, news_wake(g));
    if (g->probing != 0)
        at = earlier(at, g->indirect_at);
    for (size_t i = 0; i < RELAYS_MAX; i++)
        if (g->relays[i].from != 0)
            at = earlier(at, g->relays[i].nack_at);
    if (g->unsettled_since != 0)
        at = earlier(at, earlier(g->fetch_at, g->resync_at));
    return at <= g->now ? g->now + 1 : at;
}

int gossip_step(struct gossip *g, const struct gossip_event *ev, struct gossip_effects *out, struct err *e)
{
    CHECK(ev->now.ms >= g->now);
    g->now = ev->now.ms;
    g->out = out;
    out->n_packets = 0;
    out->want_records = out->members_changed = out->entries_changed = false;
    if (!g->started)
        start(g);
    int r = step_event(g, ev, e);
    if (r == 0) {
        member_timers(g);
        probe_timers(g);
        entry_timers(g);
        news_timers(g);
    }
    out->entries_changed = g->dirty_head != NONE;
    out->wake_at.ms = wake_at(g);
    g->out = NULL;
    return r;
}

/* ---- questions ---- */

enum gossip_state gossip_member(const struct gossip *g, gossip_id id, uint64_t *ret_incarnation)
{
    uint32_t slot = slot_of(g, id);
    if (ret_incarnation != NULL)
        *ret_incarnation = slot == NONE ? 0 : incarnation_at(g, slot);
    return slot == NONE ? GOSSIP_UNKNOWN : state_at(g, slot);
}

bool gossip_lookup(const struct gossip *g, struct str key, struct gossip_entry *ret)
{
    uint32_t i = entry_find(g, key);
    if (i == NONE || !entry_visible(g, entry_at(g, i)))
        return false;
    entry_describe(entry_at(g, i), ret);
    return true;
}

bool gossip_next(const struct gossip *g, size_t *pos, struct gossip_entry *ret, bool *ret_visible)
{
    for (; *pos < g->entries_used; (*pos)++) {
        const struct entry *x = entry_at(g, (uint32_t)*pos);
        if (x->hash == 0)
            continue;
        entry_describe(x, ret);
        *ret_visible = entry_visible(g, x);
        (*pos)++;
        return true;
    }
    return false;
}

void gossip_status(const struct gossip *g, struct gossip_status *ret)
{
    *ret = (struct gossip_status){
        .id = g->conf.id,
        .incarnation = g->incarnation,
        .roster = (uint32_t)g->roster.n,
        .alive = g->n_state[GOSSIP_ALIVE],
        .suspect = g->n_state[GOSSIP_SUSPECT],
        .dead = g->n_state[GOSSIP_DEAD] + g->n_state[GOSSIP_LEFT],
        .unknown = g->n_state[GOSSIP_UNKNOWN],
        .entries = g->n_live,
        .remembered = g->n_kept,
        .queued = g->n_news,
        .health = g->health,
        .digest = g->digest,
        .floor = g->floor,
        .settled = g->digest.revision != 0 && g->floor >= g->digest.revision,
        .counts = g->counts,
    };
}

static void check_entries(const struct gossip *g)
{
    uint32_t hash[GOSSIP_BUCKETS] = { 0 }, live = 0, kept = 0;
    for (uint32_t i = 0; i < g->entries_used; i++) {
        const struct entry *x = entry_at(g, i);
        if (x->hash == 0)
            continue;
        CHECK(map_get(&g->entry_of, x->hash) == i);
        CHECK(x->news == NONE || g->queue[x->news].entry == i);
        CHECK(slot_of(g, x->owner) != NONE || x->state == GOSSIP_ENTRY_DELETED || x->owner == g->conf.id);
        live += x->state == GOSSIP_ENTRY_LIVE;
        kept += x->state != GOSSIP_ENTRY_LIVE;
        if (x->state != GOSSIP_ENTRY_DELETED)
            hash[x->hash % GOSSIP_BUCKETS] +=
                (uint32_t)gossip_hash(x->seq, &(uint64_t[]){ x->hash, x->owner, x->revision }, 24);
    }
    CHECK(live == g->n_live && kept == g->n_kept && g->entry_of.n == live + kept);
    CHECK(memcmp(hash, g->entry_hash, sizeof hash) == 0);
}

void gossip_check(const struct gossip *g)
{
    uint32_t n[5] = { 0 }, queued = 0;
    for (uint32_t i = 0; i < g->roster.n; i++) {
        n[state_at(g, i)]++;
        CHECK((state_at(g, i) == GOSSIP_SUSPECT) == (map_get(&g->suspect_of, g->roster.ids[i]) != NONE));
    }
    CHECK(memcmp(n, g->n_state, sizeof n) == 0);
    CHECK(g->n_suspects == n[GOSSIP_SUSPECT] && g->suspect_of.n == g->n_suspects);
    for (uint32_t t = 0; t < TRANSMITS_MAX; t++)
        for (uint32_t i = g->news_head[t]; i != NONE; i = g->queue[i].next, queued++)
            CHECK(g->queue[i].sent == t);
    CHECK(queued == g->n_news && queued <= g->conf.queue_max);
    CHECK(g->floor <= g->digest.revision);
    check_entries(g);
}
