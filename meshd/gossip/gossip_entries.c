/* gossip_entries.c - entries, whose they are, and whether they are what the managers have. */
#include <string.h>

#include "common/util/check.h"
#include "meshd/gossip/gossip_priv.h"

#define FETCH_MAX_MS 30000u
#define DIGEST_ROUNDS 2u

struct entry *entry_at(const struct gossip *g, uint32_t i)
{
    return (struct entry *)(void *)(g->slab + i * g->entry_size);
}

static struct str key_of(const struct entry *x)
{
    return (struct str){ x->text, x->key_n };
}

void entry_describe(const struct entry *x, struct gossip_entry *ret)
{
    *ret = (struct gossip_entry){ .state = (enum gossip_entry_state)x->state,
                                  .owner = x->owner,
                                  .revision = x->revision,
                                  .seq = x->seq,
                                  .key = key_of(x),
                                  .value = { x->text + x->key_n, x->value_n } };
}

bool entry_visible(const struct gossip *g, const struct entry *x)
{
    return x->state == GOSSIP_ENTRY_LIVE && (x->owner == g->conf.id || state_of(g, x->owner) < GOSSIP_DEAD);
}

static uint64_t hash_key(struct str key)
{
    uint64_t h = gossip_hash(0, key.p, key.n);
    return h == 0 ? 1 : h;
}

uint32_t entry_find(const struct gossip *g, struct str key)
{
    uint32_t i = map_get(&g->entry_of, hash_key(key));
    return i != NONE && str_eq(key_of(entry_at(g, i)), key) ? i : NONE;
}

/* ---- slots ---- */

static uint32_t *owner_list(struct gossip *g, gossip_id owner)
{
    return &g->owners[(owner * 0x9e3779b97f4a7c15u >> 32) & g->owners_mask];
}

static void owner_link(struct gossip *g, uint32_t i)
{
    struct entry *x = entry_at(g, i);
    uint32_t *head = owner_list(g, x->owner);
    x->owner_prev = NONE;
    x->owner_next = *head;
    if (*head != NONE)
        entry_at(g, *head)->owner_prev = i;
    *head = i;
}

static void owner_unlink(struct gossip *g, uint32_t i)
{
    struct entry *x = entry_at(g, i);
    if (x->owner_prev == NONE)
        *owner_list(g, x->owner) = x->owner_next;
    else
        entry_at(g, x->owner_prev)->owner_next = x->owner_next;
    if (x->owner_next != NONE)
        entry_at(g, x->owner_next)->owner_prev = x->owner_prev;
}

/* count - in (+1) or out (-1) of the hash of its bucket, and of the numbers. */
static void count(struct gossip *g, const struct entry *x, int sign)
{
    uint64_t v[3] = { x->hash, x->owner, x->revision };
    uint32_t h = (uint32_t)gossip_hash(x->seq, v, sizeof v);
    if (x->state != GOSSIP_ENTRY_DELETED)
        g->entry_hash[x->hash % GOSSIP_BUCKETS] += sign > 0 ? h : -h;
    *(x->state == GOSSIP_ENTRY_LIVE ? &g->n_live : &g->n_kept) += (uint32_t)sign;
}

static void dirty(struct gossip *g, uint32_t i)
{
    struct entry *x = entry_at(g, i);
    if (x->dirty_next != NOT_DIRTY)
        return;
    x->dirty_next = NONE;
    if (g->dirty_tail == NONE)
        g->dirty_head = i;
    else
        entry_at(g, g->dirty_tail)->dirty_next = i;
    g->dirty_tail = i;
}

static uint32_t entry_new(struct gossip *g, struct str key)
{
    uint64_t hash = hash_key(key);
    uint32_t i = g->entry_free;
    if (map_get(&g->entry_of, hash) != NONE || (i == NONE && g->entries_used == g->conf.entries_max)) {
        g->counts.full++; /* or two keys with one hash of 64 bits: the second is refused */
        return NONE;
    }
    if (i != NONE)
        g->entry_free = entry_at(g, i)->dirty_next;
    else
        i = g->entries_used++;
    struct entry *x = entry_at(g, i);
    *x = (struct entry){ .hash = hash, .dirty_next = NOT_DIRTY, .news = NONE, .key_n = (uint8_t)key.n };
    memcpy(x->text, key.p, key.n);
    x->state = GOSSIP_ENTRY_DELETED;
    map_put(&g->entry_of, hash, i);
    owner_link(g, i);
    count(g, x, 1);
    return i;
}

static void entry_free(struct gossip *g, uint32_t i)
{
    struct entry *x = entry_at(g, i);
    CHECK(x->dirty_next == NOT_DIRTY);
    news_forget_entry(g, x);
    count(g, x, -1);
    owner_unlink(g, i);
    map_del(&g->entry_of, x->hash);
    x->hash = 0;
    x->dirty_next = g->entry_free;
    g->entry_free = i;
}

static void entry_write(struct gossip *g, uint32_t i, const struct gossip_entry *v, bool tell)
{
    struct entry *x = entry_at(g, i);
    count(g, x, -1);
    owner_unlink(g, i);
    x->owner = v->owner;
    x->revision = v->revision;
    x->seq = v->seq;
    x->state = (uint8_t)v->state;
    x->value_n = v->state == GOSSIP_ENTRY_LIVE ? (uint8_t)v->value.n : 0;
    if (x->value_n > 0)
        memmove(x->text + x->key_n, v->value.p, x->value_n);
    owner_link(g, i);
    count(g, x, 1);
    if (v->state == GOSSIP_ENTRY_DELETED) {
        x->until = g->now + g->conf.deleted_ms;
        if (x->until < g->deleted_at)
            g->deleted_at = x->until;
    }
    if (x->told || entry_visible(g, x))
        dirty(g, i);
    if (tell)
        news_entry(g, i);
    else
        news_forget_entry(g, x);
    g->recheck = true;
}

/* remove - as if it had never been; the shell still has to hear of it. */
static void entry_remove(struct gossip *g, uint32_t i)
{
    struct gossip_entry v;
    entry_describe(entry_at(g, i), &v);
    v.state = GOSSIP_ENTRY_DELETED;
    entry_write(g, i, &v, false);
    entry_at(g, i)->until = g->now;
    g->deleted_at = g->now;
}

void entries_of_owner(struct gossip *g, gossip_id owner, bool drop)
{
    for (uint32_t i = *owner_list(g, owner), next; i != NONE; i = next) {
        struct entry *x = entry_at(g, i);
        next = x->owner_next;
        if (x->owner != owner)
            continue;
        if (drop && x->state != GOSSIP_ENTRY_DELETED)
            entry_remove(g, i);
        else if (x->state == GOSSIP_ENTRY_LIVE)
            dirty(g, i);
    }
}

/* sweep - forgets deletions that nobody needs any more. */
static void sweep(struct gossip *g)
{
    g->deleted_at = UINT64_MAX;
    for (uint32_t i = 0; i < g->entries_used && g->n_kept > 0; i++) {
        struct entry *x = entry_at(g, i);
        if (x->hash == 0 || x->state != GOSSIP_ENTRY_DELETED)
            continue;
        if (x->dirty_next == NOT_DIRTY && (x->revision <= g->floor || x->until <= g->now))
            entry_free(g, i);
        else if (x->until <= g->now || x->revision <= g->floor)
            g->deleted_at = g->now + g->conf.news_ms; /* once the shell has heard of it */
        else if (x->until < g->deleted_at)
            g->deleted_at = x->until;
    }
}

bool gossip_changed(struct gossip *g, struct gossip_entry *ret, bool *ret_visible)
{
    while (g->dirty_head != NONE) {
        struct entry *x = entry_at(g, g->dirty_head);
        g->dirty_head = x->dirty_next;
        if (g->dirty_head == NONE)
            g->dirty_tail = NONE;
        x->dirty_next = NOT_DIRTY;
        bool visible = entry_visible(g, x);
        if (!visible && !x->told)
            continue;
        x->told = visible;
        entry_describe(x, ret);
        if (!visible)
            ret->value.n = 0;
        *ret_visible = visible;
        return true;
    }
    return false;
}

/* ---- what others say ---- */

/* An entry in this node's name that it does not know is of an earlier life of it. */
static void about_own(struct gossip *g, uint32_t i, const struct gossip_entry *x)
{
    struct gossip_entry v = *x;
    g->own_seq = x->seq > g->own_seq ? x->seq : g->own_seq;
    if (i != NONE && entry_at(g, i)->owner == g->conf.id && entry_at(g, i)->revision == x->revision)
        entry_describe(entry_at(g, i), &v); /* as it is here, with a count that wins */
    else
        v.state = GOSSIP_ENTRY_WITHDRAWN;
    v.seq = ++g->own_seq;
    if (i == NONE)
        i = entry_new(g, x->key);
    if (i != NONE)
        entry_write(g, i, &v, true);
}

static bool newer(const struct entry *x, const struct gossip_entry *v)
{
    bool gone = x->state == GOSSIP_ENTRY_DELETED, gone_there = v->state == GOSSIP_ENTRY_DELETED;
    if (v->revision != x->revision)
        return v->revision > x->revision;
    if (v->owner != x->owner) /* it moved: the old owner's deletion is not about the new one's */
        return gone != gone_there ? gone : v->owner > x->owner;
    if (gone != gone_there)
        return gone_there;
    return v->seq > x->seq;
}

/* stale - settled at the floor, and this is not what the managers had there. */
static void stale(struct gossip *g, uint32_t i, const struct gossip_entry *x, gossip_id from)
{
    g->counts.stale++;
    if (x->state == GOSSIP_ENTRY_DELETED || (i != NONE && entry_at(g, i)->state != GOSSIP_ENTRY_DELETED))
        return;
    struct gossip_entry no = { .state = GOSSIP_ENTRY_DELETED, .owner = x->owner, .revision = g->floor, .key = x->key };
    g->counts.corrected++;
    send_entry(g, from, &no);
}

void entry_update(struct gossip *g, const struct gossip_entry *x, gossip_id from)
{
    if (x->key.n > g->conf.key_max || x->value.n > g->conf.value_max) {
        g->counts.full++;
        return;
    }
    uint32_t i = entry_find(g, x->key);
    struct entry *there = i == NONE ? NULL : entry_at(g, i);
    if (x->revision <= g->floor && (there == NULL || there->owner != x->owner || there->revision != x->revision)) {
        stale(g, i, x, from);
        return;
    }
    if (x->state == GOSSIP_ENTRY_DELETED) {
        if ((there != NULL && !newer(there, x)) || (there == NULL && (i = entry_new(g, x->key)) == NONE))
            return;
        entry_write(g, i, x, true);
        return;
    }
    if (slot_of(g, x->owner) == NONE || (there != NULL && !newer(there, x)))
        return;
    if (x->owner == g->conf.id && x->seq > 0) {
        about_own(g, i, x);
        return;
    }
    if (i == NONE && (i = entry_new(g, x->key)) == NONE)
        return;
    entry_write(g, i, x, true);
}

/* ---- this node's own ---- */

int entry_set(struct gossip *g, const struct gossip_event *ev, struct err *e)
{
    struct gossip_entry v = { .owner = g->conf.id, .revision = ev->revision, .key = ev->key, .value = ev->value };
    if (ev->key.n == 0 || ev->key.n > g->conf.key_max || ev->value.n > g->conf.value_max || ev->revision == 0)
        return err_set(e, ERR_INVALID, "gossip: key of %zu bytes, value of %zu bytes, revision %llu", ev->key.n,
                       ev->value.n, (unsigned long long)ev->revision);
    uint32_t i = entry_find(g, ev->key);
    if (i != NONE && (entry_at(g, i)->revision > ev->revision ||
                      (entry_at(g, i)->revision == ev->revision && entry_at(g, i)->owner == g->conf.id &&
                       entry_at(g, i)->state == GOSSIP_ENTRY_DELETED)))
        return err_set(e, ERR_PRECONDITION, "gossip: a newer revision of the entry is known");
    if (i == NONE && (i = entry_new(g, ev->key)) == NONE)
        return err_set(e, ERR_TOO_BIG, "gossip: there are %u entries already", g->conf.entries_max);
    v.seq = ++g->own_seq;
    entry_write(g, i, &v, true);
    return 0;
}

int entry_unset(struct gossip *g, const struct gossip_event *ev, struct err *e)
{
    uint32_t i = entry_find(g, ev->key);
    if (i == NONE || entry_at(g, i)->owner != g->conf.id || entry_at(g, i)->state == GOSSIP_ENTRY_DELETED)
        return err_set(e, ERR_NOT_FOUND, "gossip: not an entry of this node");
    struct gossip_entry v;
    entry_describe(entry_at(g, i), &v);
    if (ev->revision < v.revision)
        return err_set(e, ERR_PRECONDITION, "gossip: a newer revision of the entry is known");
    v.state = ev->revision == v.revision ? GOSSIP_ENTRY_WITHDRAWN : GOSSIP_ENTRY_DELETED;
    v.revision = ev->revision;
    v.seq = ++g->own_seq;
    entry_write(g, i, &v, true);
    return 0;
}

/* ---- the managers ---- */

static void settled(struct gossip *g, uint64_t revision)
{
    g->floor = revision;
    g->unsettled_since = 0;
    sweep(g);
}

static void record_put(struct gossip *g, const struct gossip_record *r, uint64_t revision)
{
    uint32_t i = entry_find(g, r->key);
    struct entry *x = i == NONE ? NULL : entry_at(g, i);
    if (x != NULL && (x->revision > revision ||
                      (x->revision == r->revision && x->owner == r->owner && x->state != GOSSIP_ENTRY_DELETED))) {
        x->seen = g->pass;
        return;
    }
    if (slot_of(g, r->owner) == NONE && r->owner != g->conf.id)
        return;
    if (i == NONE && (i = entry_new(g, r->key)) == NONE)
        return;
    struct gossip_entry v = { .owner = r->owner, .revision = r->revision, .key = r->key, .value = r->value };
    entry_write(g, i, &v, false);
    entry_at(g, i)->seen = g->pass;
}

int entry_records(struct gossip *g, const struct gossip_event *ev, struct err *e)
{
    uint64_t sum = 0, revision = ev->digest.revision;
    for (size_t i = 0; i < ev->n_records; i++) {
        const struct gossip_record *r = &ev->records[i];
        if (r->key.n == 0 || r->key.n > g->conf.key_max || r->value.n > g->conf.value_max || r->owner == 0 ||
            r->revision == 0 || r->revision > revision)
            return err_set(e, ERR_INVALID, "gossip: record %zu of the managers can't be", i);
        sum += gossip_entry_hash(r->key, r->owner, r->revision);
    }
    if (sum != ev->digest.hash)
        return err_set(e, ERR_INVALID, "gossip: the managers' records are not those of their digest");
    if (revision < g->floor)
        return err_set(e, ERR_PRECONDITION, "gossip: the managers' records are older than what is known");
    g->pass++;
    for (size_t i = 0; i < ev->n_records; i++)
        record_put(g, &ev->records[i], revision);
    for (uint32_t i = 0; i < g->entries_used; i++) {
        struct entry *x = entry_at(g, i);
        if (x->hash != 0 && x->state != GOSSIP_ENTRY_DELETED && x->revision <= revision && x->seen != g->pass)
            entry_remove(g, i);
    }
    if (revision >= g->digest.revision)
        g->digest = ev->digest;
    settled(g, revision);
    g->recheck = true;
    return 0;
}

/* adds_up - are the entries here those of the digest? */
static bool adds_up(const struct gossip *g)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < g->entries_used; i++) {
        const struct entry *x = entry_at(g, i);
        if (x->hash == 0)
            continue;
        if (x->revision > g->digest.revision)
            return false; /* what it was at the digest's revision is not known here any more */
        if (x->state != GOSSIP_ENTRY_DELETED)
            sum += gossip_entry_hash(key_of(x), x->owner, x->revision);
    }
    return sum == g->digest.hash;
}

void digest_heard(struct gossip *g, const struct gossip_digest *d, gossip_id from)
{
    if (d->revision <= g->digest.revision)
        return;
    g->digest = *d;
    g->digest_rounds = DIGEST_ROUNDS;
    if (adds_up(g)) {
        settled(g, d->revision);
        return;
    }
    g->recheck = true;
    if (from != 0)
        (void)sync_with(g, from); /* who told may have what is missing */
}

void entry_timers(struct gossip *g)
{
    if (g->now >= g->deleted_at)
        sweep(g);
    if (g->floor >= g->digest.revision) {
        g->unsettled_since = 0;
        g->recheck = false;
        return;
    }
    if (g->recheck && adds_up(g)) {
        g->recheck = false;
        settled(g, g->digest.revision);
        return;
    }
    g->recheck = false;
    uint64_t wait = g->conf.settle_ms;
    if (g->unsettled_since == 0) {
        g->unsettled_since = g->now;
        g->fetch_at = g->now + wait + rnd(g, wait);
        g->resync_at = g->now + wait / 3;
    } else if (g->now >= g->fetch_at) {
        uint64_t so_far = g->now - g->unsettled_since; /* twice as long each time */
        g->fetch_at = g->now + (so_far > FETCH_MAX_MS ? FETCH_MAX_MS : so_far) + rnd(g, wait);
        g->out->want_records = true;
        g->counts.fetches++;
    }
    if (g->now >= g->resync_at) { /* meanwhile, what do others have? */
        uint64_t so_far = g->now - g->unsettled_since;
        (void)sync_with(g, member_random(g, true, 0));
        g->resync_at = g->now + (so_far < wait ? wait / 3 : so_far > FETCH_MAX_MS ? FETCH_MAX_MS : so_far);
    }
}
