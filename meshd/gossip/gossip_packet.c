/* gossip_packet.c - one cursor that never reads past the end, and the writer that is its mirror. */
#include "meshd/gossip/gossip_packet.h"

#include <string.h>

#define VERSION 1u
#define ENTRY_KIND 0x10u
#define HEAD_SIZE (1u + 1 + 8 + 8 + 4 + 8 + 8 + 8)

struct cursor {
    const uint8_t *p;
    size_t n;
    bool bad;
};

static uint64_t take(struct cursor *c, unsigned n)
{
    uint64_t v = 0;
    if (c->n < n) {
        c->bad = true;
        c->n = 0;
        return 0;
    }
    for (unsigned i = 0; i < n; i++)
        v = v << 8 | c->p[i];
    c->p += n;
    c->n -= n;
    return v;
}

static struct str take_text(struct cursor *c, size_t max)
{
    size_t n = take(c, 1);
    if (n > max || n > c->n) {
        c->bad = true;
        return (struct str){ NULL, 0 };
    }
    struct str s = { (const char *)c->p, n };
    c->p += n;
    c->n -= n;
    return s;
}

static void take_entry(struct cursor *c, unsigned state, struct gossip_entry *x)
{
    x->state = (enum gossip_entry_state)state;
    x->owner = take(c, 8);
    x->revision = take(c, 8);
    x->seq = take(c, 8);
    x->key = take_text(c, GOSSIP_KEY_MAX);
    x->value = take_text(c, GOSSIP_VALUE_MAX);
    if (state > GOSSIP_ENTRY_DELETED || x->owner == 0 || x->revision == 0 || x->key.n == 0 ||
        (state != GOSSIP_ENTRY_LIVE && x->value.n != 0))
        c->bad = true;
}

static void take_member(struct cursor *c, unsigned state, struct gossip_member_update *m)
{
    m->state = (enum gossip_state)state;
    m->id = take(c, 8);
    m->incarnation = take(c, 8);
    m->by = state == GOSSIP_SUSPECT ? take(c, 8) : 0;
    if (state == GOSSIP_UNKNOWN || state > GOSSIP_LEFT || m->id == 0 || m->incarnation >> 56 != 0 ||
        (state == GOSSIP_SUSPECT && m->by == 0))
        c->bad = true;
}

static bool take_update(struct cursor *c, struct gossip_update *u)
{
    *u = (struct gossip_update){ .is_entry = false };
    unsigned kind = (unsigned)take(c, 1);
    u->is_entry = kind >= ENTRY_KIND;
    if (u->is_entry)
        take_entry(c, kind - ENTRY_KIND, &u->entry);
    else
        take_member(c, kind, &u->member);
    return !c->bad;
}

bool gossip_update_next(struct str *updates, struct gossip_update *ret)
{
    struct cursor c = { .p = (const uint8_t *)updates->p, .n = updates->n };
    if (c.n == 0 || !take_update(&c, ret))
        return false;
    *updates = (struct str){ (const char *)c.p, c.n };
    return true;
}

int gossip_packet_decode(struct str packet, struct gossip_head *ret, struct str *ret_updates, struct err *e)
{
    struct cursor c = { .p = (const uint8_t *)packet.p, .n = packet.n };
    struct gossip_head h = { .from = 0 };
    struct gossip_update u;
    if (packet.n < HEAD_SIZE || packet.n > GOSSIP_PACKET_MAX)
        return err_set(e, ERR_INVALID, "gossip packet of %zu bytes", packet.n);
    if (take(&c, 1) != VERSION)
        return err_set(e, ERR_INVALID, "gossip packet of another version");
    unsigned type = (unsigned)take(&c, 1);
    h.type = (enum gossip_type)type;
    h.from = take(&c, 8);
    h.incarnation = take(&c, 8);
    h.seq = (uint32_t)take(&c, 4);
    h.target = take(&c, 8);
    h.digest.revision = take(&c, 8);
    h.digest.hash = take(&c, 8);
    if (type < GOSSIP_PING || type > GOSSIP_WANT || h.from == 0 || h.incarnation >> 56 != 0)
        return err_set(e, ERR_INVALID, "gossip packet with a bad head");
    for (unsigned i = 0; h.type == GOSSIP_SYNC && i < GOSSIP_BUCKETS; i++)
        h.members[i] = (uint32_t)take(&c, 4);
    for (unsigned i = 0; h.type == GOSSIP_SYNC && i < GOSSIP_BUCKETS; i++)
        h.entries[i] = (uint32_t)take(&c, 4);
    if (h.type == GOSSIP_WANT) {
        h.want_members = take(&c, 8);
        h.want_entries = take(&c, 8);
    }
    struct str updates = { (const char *)c.p, c.n };
    while (c.n > 0 && take_update(&c, &u))
        ;
    if (c.bad)
        return err_set(e, ERR_INVALID, "gossip packet is cut short, or an update in it can't be");
    *ret = h;
    *ret_updates = updates;
    return 0;
}

static void put(struct gossip_writer *w, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        w->p[w->n++] = (uint8_t)(v >> (8 * (n - 1 - i)));
}

static bool room(const struct gossip_writer *w, size_t n)
{
    return w->cap - w->n >= n;
}

bool gossip_put_head(struct gossip_writer *w, const struct gossip_head *h)
{
    size_t more = h->type == GOSSIP_SYNC ? 8 * (size_t)GOSSIP_BUCKETS : h->type == GOSSIP_WANT ? 16 : 0;
    if (!room(w, HEAD_SIZE + more))
        return false;
    put(w, VERSION, 1);
    put(w, h->type, 1);
    put(w, h->from, 8);
    put(w, h->incarnation, 8);
    put(w, h->seq, 4);
    put(w, h->target, 8);
    put(w, h->digest.revision, 8);
    put(w, h->digest.hash, 8);
    for (unsigned i = 0; h->type == GOSSIP_SYNC && i < GOSSIP_BUCKETS; i++)
        put(w, h->members[i], 4);
    for (unsigned i = 0; h->type == GOSSIP_SYNC && i < GOSSIP_BUCKETS; i++)
        put(w, h->entries[i], 4);
    if (h->type == GOSSIP_WANT) {
        put(w, h->want_members, 8);
        put(w, h->want_entries, 8);
    }
    return true;
}

bool gossip_put_member(struct gossip_writer *w, const struct gossip_member_update *m)
{
    if (!room(w, m->state == GOSSIP_SUSPECT ? 25 : 17))
        return false;
    put(w, m->state, 1);
    put(w, m->id, 8);
    put(w, m->incarnation, 8);
    if (m->state == GOSSIP_SUSPECT)
        put(w, m->by, 8);
    return true;
}

bool gossip_put_entry(struct gossip_writer *w, const struct gossip_entry *x)
{
    size_t n = x->state == GOSSIP_ENTRY_LIVE ? x->value.n : 0;
    if (!room(w, 1 + 24 + 2 + x->key.n + n))
        return false;
    put(w, ENTRY_KIND + (unsigned)x->state, 1);
    put(w, x->owner, 8);
    put(w, x->revision, 8);
    put(w, x->seq, 8);
    put(w, x->key.n, 1);
    memcpy(w->p + w->n, x->key.p, x->key.n);
    w->n += x->key.n;
    put(w, n, 1);
    if (n > 0)
        memcpy(w->p + w->n, x->value.p, n);
    w->n += n;
    return true;
}

static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t gossip_hash(uint64_t seed, const void *p, size_t n)
{
    const uint8_t *b = p;
    uint64_t h = 0xcbf29ce484222325u ^ mix(seed);
    for (size_t i = 0; i < n; i++)
        h = (h ^ b[i]) * 0x100000001b3u;
    return mix(h);
}

uint64_t gossip_entry_hash(struct str key, gossip_id owner, uint64_t revision)
{
    return mix(gossip_hash(owner, key.p, key.n) + mix(revision));
}
