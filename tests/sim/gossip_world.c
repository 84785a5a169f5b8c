/* gossip_world.c - see gossip_world.h. */
#include "tests/sim/gossip_world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util/check.h"

#define NOBODY UINT32_MAX
#define MANAGERS 3u
#define KEY_SIZE 12

enum what { TICK, PACKET, ROSTER, DIGEST, RECORDS, TOLD, RING };

struct letter {
    uint64_t at, order;
    uint32_t to, life;
    enum what what;
    uint32_t from;
    size_t n;
    uint8_t *bytes; /* PACKET */
};

struct key_state {
    uint32_t owner; /* NOBODY: it does not exist */
    uint64_t revision;
    char text[KEY_SIZE];
};

struct node {
    bool up, listed, away, left;
    uint32_t life, ring_stage;
    int64_t skew;
    uint32_t permille; /* of the clock's speed */
    uint64_t wake, incarnation, local;
    struct gossip *core;
    struct keyring *ring;
    uint64_t *view; /* what gossip_changed() told: the revision of each visible key, or 0 */
};

struct world {
    struct world_options o;
    struct world_net net;
    uint64_t now, rng, order, hash, events;
    bool cut;
    struct node *nodes;
    struct letter *heap;
    size_t n_heap, cap_heap;
    struct gossip_roster *roster, **rosters; /* all of them: cores may still borrow an old one */
    size_t n_rosters;
    struct key_state keys[WORLD_KEYS_MAX];
    struct gossip_record records[WORLD_KEYS_MAX];
    struct gossip_digest digest;
    uint32_t stage; /* of the key rotation: 3 for each key */
    struct gossip_effects out;
    struct buf plain, sealed;
    char wrong[160];
};

uint64_t world_rnd(struct world *w, uint64_t below)
{
    uint64_t z = (w->rng += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return below == 0 ? 0 : (z ^ z >> 31) % below;
}

static gossip_id id_of(uint32_t node)
{
    return (node + 1) * 1000003ull;
}

static uint32_t node_of(gossip_id id)
{
    return (uint32_t)(id / 1000003) - 1;
}

/* ---- letters: a binary heap by time, then by order ---- */

static bool before(const struct letter *a, const struct letter *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void post(struct world *w, struct letter l)
{
    if (w->n_heap == w->cap_heap) {
        w->cap_heap = w->cap_heap == 0 ? 1024 : 2 * w->cap_heap;
        w->heap = realloc(w->heap, w->cap_heap * sizeof *w->heap);
        CHECK(w->heap != NULL);
    }
    l.order = w->order++;
    size_t i = w->n_heap++;
    for (; i > 0 && before(&l, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = l;
}

static struct letter next_letter(struct world *w)
{
    struct letter first = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0;
    for (size_t c; (c = 2 * i + 1) < w->n_heap; i = c) {
        if (c + 1 < w->n_heap && before(&w->heap[c + 1], &w->heap[c]))
            c++;
        if (!before(&w->heap[c], &last))
            break;
        w->heap[i] = w->heap[c];
    }
    w->heap[i] = last;
    return first;
}

static void post_packet(struct world *w, uint64_t at, uint32_t from, uint32_t to, struct str p, bool altered)
{
    struct letter l = { .at = at, .to = to, .what = PACKET, .from = from, .n = p.n, .bytes = malloc(p.n) };
    CHECK(l.bytes != NULL);
    memcpy(l.bytes, p.p, p.n);
    if (altered)
        l.bytes[world_rnd(w, p.n)] ^= (uint8_t)(1u << world_rnd(w, 8));
    post(w, l);
}

static uint64_t delay(struct world *w)
{
    return w->net.delay_min + world_rnd(w, w->net.delay_max - w->net.delay_min + 1);
}

static void transmit(struct world *w, uint32_t from, const struct gossip_packet *p)
{
    uint32_t to = node_of(p->to);
    struct str bytes = { (const char *)p->b, p->n };
    CHECK(to < w->o.nodes && p->n <= GOSSIP_PACKET_MAX);
    if (w->o.sealed) {
        buf_clear(&w->sealed);
        CHECK(keyring_seal(w->nodes[from].ring, p->to, bytes, &w->sealed, NULL) == 0);
        bytes = buf_str(&w->sealed);
    }
    if (world_rnd(w, 1000) < w->net.loss)
        return;
    bool altered = w->o.sealed && world_rnd(w, 1000) < w->net.altered;
    post_packet(w, w->now + delay(w), from, to, bytes, altered);
    if (world_rnd(w, 1000) < w->net.twice)
        post_packet(w, w->now + delay(w), from, to, bytes, false);
    if (w->o.sealed && world_rnd(w, 1000) < w->net.repeated)
        post_packet(w, w->now + 2000 + world_rnd(w, 20000), from, to, bytes, false);
}

/* ---- one step of one core ---- */

static uint64_t local_time(const struct world *w, const struct node *k)
{
    return (uint64_t)((int64_t)(w->now * k->permille / 1000) + k->skew);
}

static void follow_changes(struct world *w, struct node *k)
{
    struct gossip_entry x;
    bool visible;
    while (gossip_changed(k->core, &x, &visible)) {
        uint64_t key;
        CHECK(str_u64((struct str){ x.key.p + 1, x.key.n - 1 }, &key) && key < w->o.keys);
        k->view[key] = visible ? x.revision : 0;
    }
}

static int step(struct world *w, uint32_t i, struct gossip_event *ev)
{
    struct node *k = &w->nodes[i];
    struct err e = ERR_INIT;
    ev->now.ms = local_time(w, k);
    CHECK(ev->now.ms >= k->local);
    k->local = ev->now.ms;
    int r = gossip_step(k->core, ev, &w->out, &e);
    w->events++;
    w->hash = gossip_hash(w->hash, &(uint64_t[]){ w->now, i, (uint64_t)ev->type, w->out.n_packets }, 32);
    if (r < 0)
        CHECK(w->out.n_packets == 0);
    for (size_t p = 0; p < w->out.n_packets; p++)
        transmit(w, i, &w->out.packets[p]);
    if (w->out.entries_changed)
        follow_changes(w, k);
    if (w->out.want_records && !k->away)
        post(w, (struct letter){ .at = w->now + 20 + world_rnd(w, 100), .to = i, .life = k->life, .what = RECORDS });
    uint64_t wait = (w->out.wake_at.ms - k->local) * 1000 / k->permille + 1, at = w->now + wait;
    if (k->wake <= w->now || at < k->wake) {
        k->wake = at;
        post(w, (struct letter){ .at = at, .to = i, .life = k->life, .what = TICK });
    }
    if (w->o.checked && world_rnd(w, 200) == 0)
        gossip_check(k->core);
    return r;
}

static void give_records(struct world *w, uint32_t i)
{
    size_t n = 0;
    for (uint32_t k = 0; k < w->o.keys; k++)
        if (w->keys[k].owner != NOBODY) {
            w->records[n] = (struct gossip_record){ .owner = id_of(w->keys[k].owner),
                                                    .revision = w->keys[k].revision,
                                                    .key = str_from(w->keys[k].text),
                                                    .value = STR("10.0.0.1") };
            n++;
        }
    struct gossip_event ev = { .type = GOSSIP_EV_RECORDS, .records = w->records, .n_records = n, .digest = w->digest };
    CHECK(step(w, i, &ev) == 0);
}

/* tell - what node i must do with a key: set what is its own, take back what is not any more. */
static void tell(struct world *w, uint32_t i, uint32_t key)
{
    struct key_state *s = &w->keys[key];
    struct gossip_entry x;
    struct gossip_event ev = { .type = GOSSIP_EV_SET, .key = str_from(s->text), .revision = s->revision };
    bool own = gossip_lookup(w->nodes[i].core, ev.key, &x) && x.owner == id_of(i);
    if (s->owner == i && (!own || x.revision < s->revision || x.seq == 0)) {
        ev.value = STR("10.0.0.1");
        (void)step(w, i, &ev);
    } else if (s->owner != i && own) {
        ev.type = GOSSIP_EV_UNSET;
        (void)step(w, i, &ev);
    }
}

static void install(struct node *k, uint32_t stage)
{
    uint8_t key[KEYRING_KEY_SIZE];
    uint32_t current = stage / 3 + 1;
    memset(key, (int)current, sizeof key);
    CHECK(keyring_install(k->ring, current, key, NULL) == 0);
    if (stage % 3 > 0) {
        memset(key, (int)current + 1, sizeof key);
        CHECK(keyring_install(k->ring, current + 1, key, NULL) == 0);
    }
    CHECK(keyring_use(k->ring, current + (stage % 3 == 2), NULL) == 0);
    if (stage % 3 == 0 && current > 1)
        (void)keyring_remove(k->ring, current - 1, NULL);
    k->ring_stage = stage;
}

static void receive(struct world *w, struct letter *l)
{
    struct node *k = &w->nodes[l->to];
    struct gossip_event ev = { .type = GOSSIP_EV_PACKET,
                               .packet = { (const char *)l->bytes, l->n },
                               .sender = id_of(l->from) };
    if (w->o.sealed) {
        buf_clear(&w->plain);
        if (keyring_open(k->ring, ev.packet, &ev.sender, &w->plain, NULL) < 0)
            return;
        CHECK(ev.sender == id_of(l->from));
        ev.packet = buf_str(&w->plain);
    }
    CHECK(step(w, l->to, &ev) == 0);
}

static void deliver(struct world *w, struct letter *l)
{
    struct node *k = &w->nodes[l->to];
    struct gossip_event ev = { .type = GOSSIP_EV_TICK };
    if (!k->up || (l->what != PACKET && l->life != k->life))
        return;
    if (l->what == PACKET) {
        if (w->nodes[l->from].away == k->away)
            receive(w, l);
        return;
    }
    if (l->what == TICK) {
        if (l->at == k->wake)
            (void)step(w, l->to, &ev);
        return;
    }
    if (k->away)
        return; /* the managers can't be reached; told after the cut is healed */
    if (l->what == ROSTER) {
        ev.type = GOSSIP_EV_ROSTER;
        ev.roster = w->roster;
        CHECK(step(w, l->to, &ev) == 0);
    } else if (l->what == DIGEST) {
        ev.type = GOSSIP_EV_DIGEST;
        ev.digest = w->digest;
        CHECK(step(w, l->to, &ev) == 0);
    } else if (l->what == RECORDS) {
        give_records(w, l->to);
    } else if (l->what == RING) {
        install(k, w->stage);
    } else {
        tell(w, l->to, l->from);
    }
}

void world_run(struct world *w, uint64_t ms)
{
    uint64_t until = w->now + ms;
    while (w->n_heap > 0 && w->heap[0].at <= until) {
        struct letter l = next_letter(w);
        w->now = l.at > w->now ? l.at : w->now;
        deliver(w, &l);
        free(l.bytes); // NOLINT(clang-analyzer-unix.Malloc): a letter is in the heap once
    }
    w->now = until;
}

/* ---- the managers ---- */

static void say(struct world *w, uint32_t i, enum what what, uint32_t from, uint64_t within)
{
    post(w,
         (struct letter){
             .at = w->now + 1 + world_rnd(w, within), .to = i, .life = w->nodes[i].life, .what = what, .from = from });
}

static void say_all(struct world *w, uint32_t i)
{
    say(w, i, ROSTER, 0, 200);
    if (i < MANAGERS)
        say(w, i, DIGEST, 0, 200);
    for (uint32_t k = 0; k < w->o.keys; k++)
        say(w, i, TOLD, k, 400);
}

static void store_changed(struct world *w)
{
    w->digest.hash = 0;
    for (uint32_t k = 0; k < w->o.keys; k++)
        if (w->keys[k].owner != NOBODY)
            w->digest.hash +=
                gossip_entry_hash(str_from(w->keys[k].text), id_of(w->keys[k].owner), w->keys[k].revision);
    for (uint32_t i = 0; i < MANAGERS; i++)
        say(w, i, DIGEST, 0, 200);
}

void world_assign(struct world *w, uint32_t key, uint32_t owner)
{
    uint32_t was = w->keys[key].owner;
    w->digest.revision++;
    w->keys[key].owner = owner;
    w->keys[key].revision = w->digest.revision;
    if (owner != NOBODY)
        say(w, owner, TOLD, key, 300);
    if (was != NOBODY && was != owner)
        say(w, was, TOLD, key, 300);
    store_changed(w);
}

static void new_roster(struct world *w)
{
    size_t n = 0;
    struct gossip_roster *r = calloc(1, sizeof *r + (w->o.nodes + MANAGERS) * sizeof(gossip_id));
    CHECK(r != NULL);
    gossip_id *ids = (gossip_id *)(r + 1);
    for (uint32_t i = 0; i < w->o.nodes; i++)
        if (w->nodes[i].listed)
            ids[n++] = id_of(i);
    for (uint32_t i = 0; i < MANAGERS; i++)
        ids[w->o.nodes + i] = id_of(i);
    *r = (struct gossip_roster){ .revision = w->roster == NULL ? 1 : w->roster->revision + 1,
                                 .n = n,
                                 .ids = ids,
                                 .n_seeds = MANAGERS,
                                 .seeds = ids + w->o.nodes };
    w->rosters = realloc(w->rosters, (w->n_rosters + 1) * sizeof(struct gossip_roster *));
    CHECK(w->rosters != NULL);
    w->rosters[w->n_rosters++] = r;
    w->roster = r;
}

void world_list(struct world *w, uint32_t node, bool in)
{
    if (w->nodes[node].listed == in)
        return;
    w->nodes[node].listed = in;
    for (uint32_t k = 0; k < w->o.keys && !in; k++)
        if (w->keys[k].owner == node)
            world_assign(w, k, NOBODY);
    new_roster(w);
    for (uint32_t i = 0; i < w->o.nodes; i++)
        say(w, i, ROSTER, 0, 1000);
}

void world_rotate(struct world *w)
{
    if (w->cut || !w->o.sealed)
        return;
    for (uint32_t i = 0; i < w->o.nodes; i++)
        if (w->nodes[i].up && w->nodes[i].ring_stage != w->stage)
            return; /* somebody is not there yet */
    w->stage++;
    for (uint32_t i = 0; i < w->o.nodes; i++)
        say(w, i, RING, 0, 1000);
}

/* ---- nodes ---- */

void world_start(struct world *w, uint32_t i)
{
    struct node *k = &w->nodes[i];
    if (k->up)
        return;
    struct gossip_config conf = w->o.conf;
    k->life++;
    k->incarnation += 1 + world_rnd(w, 5000);
    k->up = true;
    k->left = false;
    k->permille = w->o.skewed ? 950 + (uint32_t)world_rnd(w, 101) : 1000;
    k->skew = w->o.skewed ? (int64_t)world_rnd(w, 100000000) + 10000000 : 0;
    k->wake = k->local = 0;
    conf.id = id_of(i);
    conf.seed = world_rnd(w, UINT64_MAX);
    conf.incarnation = 1000 + k->incarnation - (w->o.skewed && world_rnd(w, 4) == 0 ? world_rnd(w, 900) : 0);
    memset(k->view, 0, w->o.keys * sizeof *k->view);
    CHECK(gossip_new(&k->core, &conf, NULL) == 0);
    if (w->o.sealed) {
        struct keyring_config kc = { .self = conf.id, .boot = k->life, .senders_max = 64 };
        CHECK(keyring_new(&k->ring, &kc, NULL) == 0);
        install(k, w->stage);
    }
    struct gossip_event ev = { .type = GOSSIP_EV_ROSTER, .roster = w->roster };
    CHECK(step(w, i, &ev) == 0);
    say_all(w, i);
}

void world_crash(struct world *w, uint32_t i)
{
    struct node *k = &w->nodes[i];
    k->core = gossip_free(k->core);
    k->ring = keyring_free(k->ring);
    k->up = false;
}

void world_leave(struct world *w, uint32_t i)
{
    struct gossip_event ev = { .type = GOSSIP_EV_LEAVE };
    CHECK(step(w, i, &ev) == 0);
    w->nodes[i].left = true;
}

bool world_up(const struct world *w, uint32_t i)
{
    return w->nodes[i].up && !w->nodes[i].left;
}

bool world_listed(const struct world *w, uint32_t i)
{
    return w->nodes[i].listed;
}

void world_cut(struct world *w, uint32_t i, bool away)
{
    w->cut = true;
    w->nodes[i].away = away;
}

void world_heal(struct world *w)
{
    w->cut = false;
    for (uint32_t i = 0; i < w->o.nodes; i++)
        if (w->nodes[i].away) {
            w->nodes[i].away = false;
            if (w->nodes[i].up)
                say_all(w, i);
        }
}

void world_warm(struct world *w)
{
    uint8_t b[GOSSIP_PACKET_MAX] = { 0 };
    for (uint32_t i = 0; i < w->o.nodes; i++)
        for (uint32_t from = 0; from < w->o.nodes;) {
            struct gossip_writer p = { b, 0, sizeof b };
            struct gossip_head h = { .type = GOSSIP_NEWS,
                                     .from = id_of(i == 0 ? 1 : 0),
                                     .incarnation = 1000 + w->nodes[i == 0 ? 1 : 0].incarnation };
            CHECK(gossip_put_head(&p, &h));
            for (; from < w->o.nodes; from++) {
                struct gossip_member_update m = { .id = id_of(from),
                                                  .state = GOSSIP_ALIVE,
                                                  .incarnation = 1000 + w->nodes[from].incarnation };
                if (!gossip_put_member(&p, &m))
                    break;
            }
            struct gossip_event ev = { .type = GOSSIP_EV_PACKET, .packet = { (const char *)b, p.n } };
            CHECK(step(w, i, &ev) == 0);
        }
}

/* ---- life ---- */

struct world *world_new(const struct world_options *o)
{
    struct world *w = calloc(1, sizeof *w);
    CHECK(w != NULL && o->nodes >= MANAGERS && o->keys <= WORLD_KEYS_MAX);
    w->o = *o;
    w->rng = o->seed;
    w->net = (struct world_net){ .delay_min = 1, .delay_max = 5 };
    w->nodes = calloc(o->nodes, sizeof *w->nodes);
    CHECK(w->nodes != NULL);
    w->digest.revision = 1;
    for (uint32_t k = 0; k < o->keys; k++) {
        w->keys[k].owner = NOBODY;
        snprintf(w->keys[k].text, KEY_SIZE, "k%u", k);
    }
    for (uint32_t i = 0; i < o->nodes; i++) {
        w->nodes[i].listed = true;
        w->nodes[i].view = calloc(o->keys + 1, sizeof(uint64_t));
        CHECK(w->nodes[i].view != NULL);
    }
    new_roster(w);
    for (uint32_t i = 0; i < o->nodes; i++)
        world_start(w, i);
    return w;
}

struct world *world_free(struct world *w)
{
    for (uint32_t i = 0; i < w->o.nodes; i++) {
        world_crash(w, i);
        free(w->nodes[i].view);
    }
    for (size_t i = 0; i < w->n_heap; i++)
        free(w->heap[i].bytes);
    free(w->heap);
    free(w->nodes);
    for (size_t i = 0; i < w->n_rosters; i++)
        free(w->rosters[i]);
    free(w->rosters);
    buf_done(&w->plain);
    buf_done(&w->sealed);
    free(w);
    return NULL;
}

uint64_t world_now(const struct world *w)
{
    return w->now;
}

uint64_t world_hash(const struct world *w)
{
    return w->hash;
}

uint64_t world_events(const struct world *w)
{
    return w->events;
}

void world_net(struct world *w, const struct world_net *net)
{
    w->net = *net;
}

/* ---- judging ---- */

static bool sees(const struct world *w, uint32_t i, uint32_t key)
{
    const struct key_state *s = &w->keys[key];
    bool should = s->owner != NOBODY && world_up(w, s->owner);
    return w->nodes[i].view[key] == (should ? s->revision : 0);
}

uint32_t world_blind(const struct world *w, uint32_t key)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->o.nodes; i++)
        n += world_up(w, i) && !sees(w, i, key);
    return n;
}

const char *world_entries(const struct world *w, bool absent_too)
{
    struct world *out = (struct world *)w;
    for (uint32_t i = 0; i < w->o.nodes; i++)
        for (uint32_t k = 0; k < w->o.keys && world_up(w, i) && world_listed(w, i); k++) {
            const struct key_state *s = &w->keys[k];
            uint64_t has = w->nodes[i].view[k];
            struct gossip_entry x;
            CHECK(gossip_lookup(w->nodes[i].core, str_from(s->text), &x) == (has != 0));
            CHECK(has == 0 || x.revision == has);
            bool is_stale = has != 0 && (s->owner == NOBODY || has != s->revision);
            is_stale |= has != 0 && absent_too && !world_up(w, s->owner); /* by then it is known to be dead */
            bool absent = has == 0 && s->owner != NOBODY && world_up(w, s->owner);
            if (!is_stale && (!absent || !absent_too))
                continue;
            snprintf(out->wrong, sizeof out->wrong,
                     "node %u has %s %s: revision %" PRIu64 ", the store %" PRIu64 " of node %d", i,
                     is_stale ? "a stale" : "no", s->text, has, s->revision, (int)s->owner);
            return w->wrong;
        }
    return "";
}

static bool right(const struct world *w, uint32_t i, uint32_t of)
{
    enum gossip_state s = gossip_member(w->nodes[i].core, id_of(of), NULL);
    if (!world_listed(w, of))
        return s == GOSSIP_UNKNOWN;
    return world_up(w, of) ? s == GOSSIP_ALIVE : s >= GOSSIP_DEAD;
}

const char *world_members(const struct world *w)
{
    struct world *out = (struct world *)w;
    for (uint32_t i = 0; i < w->o.nodes; i++)
        for (uint32_t k = 0; k < w->o.nodes && world_up(w, i) && world_listed(w, i); k++)
            if (!right(w, i, k)) {
                snprintf(out->wrong, sizeof out->wrong, "node %u holds node %u (%s, %s) for %d", i, k,
                         world_up(w, k) ? "up" : "down", world_listed(w, k) ? "listed" : "removed",
                         (int)gossip_member(w->nodes[i].core, id_of(k), NULL));
                return w->wrong;
            }
    return "";
}

uint32_t world_disagree(const struct world *w, uint32_t node)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->o.nodes; i++)
        n += i != node && world_up(w, i) && world_listed(w, i) && !right(w, i, node);
    return n;
}

void world_sums(const struct world *w, struct world_sums *ret)
{
    *ret = (struct world_sums){ 0 };
    for (uint32_t i = 0; i < w->o.nodes; i++) {
        struct gossip_status s;
        struct keyring_counts c = { 0 };
        if (!w->nodes[i].up)
            continue;
        gossip_status(w->nodes[i].core, &s);
        if (w->nodes[i].ring != NULL)
            keyring_counts(w->nodes[i].ring, &c);
        ret->bytes += s.counts.bytes_out;
        ret->packets += s.counts.packets_out;
        ret->died += s.counts.died;
        ret->fetches += s.counts.fetches;
        ret->corrected += s.counts.corrected;
        ret->limited += s.counts.limited;
        ret->refused += c.malformed + c.unknown_key + c.forged;
        ret->replayed += c.replayed;
        ret->queued = s.queued > ret->queued ? s.queued : ret->queued;
    }
}
