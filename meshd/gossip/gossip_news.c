/* gossip_news.c - what goes out: news on every packet, anti-entropy by buckets, and the limit on both. */
#include <string.h>

#include "common/util/check.h"
#include "meshd/gossip/gossip_priv.h"

#define STREAM_MS 20u
#define STREAM_PACKETS 3u /* of each stream in STREAM_MS */

/* ---- the queue: a list for each number of times sent ---- */

void news_init(struct gossip *g)
{
    memset(g->news_head, 0xff, sizeof g->news_head);
    memset(g->news_tail, 0xff, sizeof g->news_tail);
    g->news_free = NONE;
}

static void link_news(struct gossip *g, uint32_t i)
{
    struct news *x = &g->queue[i];
    x->next = NONE;
    x->prev = g->news_tail[x->sent];
    if (x->prev == NONE)
        g->news_head[x->sent] = i;
    else
        g->queue[x->prev].next = i;
    g->news_tail[x->sent] = i;
}

static void unlink_news(struct gossip *g, uint32_t i)
{
    struct news *x = &g->queue[i];
    if (x->prev == NONE)
        g->news_head[x->sent] = x->next;
    else
        g->queue[x->prev].next = x->next;
    if (x->next == NONE)
        g->news_tail[x->sent] = x->prev;
    else
        g->queue[x->next].prev = x->prev;
}

static void drop_news(struct gossip *g, uint32_t i)
{
    struct news *x = &g->queue[i];
    unlink_news(g, i);
    if (x->entry != NONE)
        entry_at(g, x->entry)->news = NONE;
    else
        map_del(&g->news_of, x->member);
    x->next = g->news_free;
    g->news_free = i;
    g->n_news--;
}

static uint32_t new_news(struct gossip *g)
{
    if (g->news_free == NONE && g->news_fresh < g->conf.queue_max) {
        g->n_news++;
        return g->news_fresh++;
    }
    if (g->news_free == NONE) { /* what was sent most often will be missed least */
        uint32_t t = TRANSMITS_MAX - 1;
        while (g->news_head[t] == NONE)
            t--;
        drop_news(g, g->news_head[t]);
        g->counts.dropped_news++;
    }
    uint32_t i = g->news_free;
    g->news_free = g->queue[i].next;
    g->n_news++;
    return i;
}

void news_member(struct gossip *g, gossip_id id)
{
    uint32_t i = map_get(&g->news_of, id);
    if (i != NONE) {
        unlink_news(g, i);
        g->queue[i].sent = 0;
    } else {
        i = new_news(g);
        g->queue[i] = (struct news){ .member = id, .entry = NONE };
        map_put(&g->news_of, id, i);
    }
    link_news(g, i);
}

void news_entry(struct gossip *g, uint32_t entry)
{
    struct entry *x = entry_at(g, entry);
    if (x->news != NONE) {
        unlink_news(g, x->news);
        g->queue[x->news].sent = 0;
    } else {
        x->news = new_news(g);
        g->queue[x->news] = (struct news){ .entry = entry };
    }
    link_news(g, x->news);
}

void news_forget_member(struct gossip *g, gossip_id id)
{
    uint32_t i = map_get(&g->news_of, id);
    if (i != NONE)
        drop_news(g, i);
}

void news_forget_entry(struct gossip *g, struct entry *x)
{
    if (x->news != NONE)
        drop_news(g, x->news);
}

/* ---- packets ---- */

static uint32_t transmits(const struct gossip *g)
{
    uint32_t n = g->n_state[GOSSIP_ALIVE] + g->n_state[GOSSIP_SUSPECT] + 1;
    uint32_t t = g->conf.transmit_mult * ((log10_x100(n) + 99) / 100 + 1);
    return t < TRANSMITS_MAX - 1 ? t : TRANSMITS_MAX - 1;
}

static bool put_news(struct gossip *g, struct gossip_writer *w, const struct news *x)
{
    struct gossip_member_update m;
    struct gossip_entry entry;
    if (x->entry != NONE) {
        entry_describe(entry_at(g, x->entry), &entry);
        return gossip_put_entry(w, &entry);
    }
    uint32_t slot = slot_of(g, x->member);
    return slot == NONE || !member_describe(g, slot, &m) || gossip_put_member(w, &m);
}

static void fill_news(struct gossip *g, struct gossip_writer *w)
{
    uint32_t taken[GOSSIP_PACKET_MAX / 17], n = 0, misses = 0, limit = transmits(g);
    for (uint32_t t = 0; t < TRANSMITS_MAX && misses < 3; t++)
        for (uint32_t i = g->news_head[t]; i != NONE && misses < 3; i = g->queue[i].next) {
            if (n < sizeof taken / sizeof taken[0] && put_news(g, w, &g->queue[i]))
                taken[n++] = i;
            else
                misses++;
        }
    for (uint32_t k = 0; k < n; k++) {
        uint32_t i = taken[k];
        if (g->queue[i].sent + 1 >= limit) {
            drop_news(g, i);
            continue;
        }
        unlink_news(g, i);
        g->queue[i].sent++;
        link_news(g, i);
    }
}

static bool begin(struct gossip *g, gossip_id to, struct gossip_head *h, struct gossip_writer *w)
{
    if (to == 0 || g->out->n_packets == GOSSIP_OUT_MAX) {
        g->counts.limited += to != 0;
        return false;
    }
    h->from = g->conf.id;
    h->incarnation = g->incarnation;
    h->digest = g->digest;
    *w = (struct gossip_writer){ g->out->packets[g->out->n_packets].b, 0, g->conf.packet_max };
    CHECK(gossip_put_head(w, h));
    return true;
}

static void finish(struct gossip *g, gossip_id to, const struct gossip_head *h, const struct gossip_writer *w)
{
    struct gossip_packet *p = &g->out->packets[g->out->n_packets++];
    p->to = to;
    p->n = w->n;
    g->counts.packets_out++;
    g->counts.bytes_out += w->n;
    if (h->type >= GOSSIP_NEWS)
        g->tokens -= (int64_t)w->n * 1000;
}

/* Whoever is held for suspect or dead hears of it before anything else (Lifeguard §IV.C, the buddy system). */
static void put_verdict(struct gossip *g, gossip_id to, struct gossip_writer *w)
{
    struct gossip_member_update m;
    uint32_t slot = slot_of(g, to);
    if (slot != NONE && state_at(g, slot) >= GOSSIP_SUSPECT && member_describe(g, slot, &m))
        (void)gossip_put_member(w, &m);
}

void send_head(struct gossip *g, gossip_id to, struct gossip_head *h, bool fill)
{
    struct gossip_writer w;
    if (!begin(g, to, h, &w))
        return;
    put_verdict(g, to, &w);
    if (fill)
        fill_news(g, &w);
    finish(g, to, h, &w);
}

void send_entry(struct gossip *g, gossip_id to, const struct gossip_entry *x)
{
    struct gossip_head h = { .type = GOSSIP_NEWS };
    struct gossip_writer w;
    if (g->tokens <= 0 || !begin(g, to, &h, &w)) {
        g->counts.limited++;
        return;
    }
    CHECK(gossip_put_entry(&w, x));
    finish(g, to, &h, &w);
}

/* ---- anti-entropy ---- */

bool sync_with(struct gossip *g, gossip_id to)
{
    struct gossip_head h = { .type = GOSSIP_SYNC };
    struct gossip_writer w;
    if (g->now < g->sync_not_before || g->tokens <= 0 || !begin(g, to, &h, &w))
        return false;
    w.n = 0;
    memcpy(h.members, g->member_hash, sizeof h.members);
    memcpy(h.entries, g->entry_hash, sizeof h.entries);
    CHECK(gossip_put_head(&w, &h));
    put_verdict(g, to, &w);
    finish(g, to, &h, &w);
    g->sync_not_before = g->now + g->conf.news_ms;
    g->counts.syncs++;
    return true;
}

static void stream_to(struct gossip *g, gossip_id to, uint64_t members, uint64_t entries)
{
    struct stream *free_one = NULL;
    for (size_t i = 0; i < STREAMS_MAX; i++) {
        struct stream *s = &g->streams[i];
        if (s->to == to) { /* it is being served: what was missed comes with the next round */
            g->counts.limited++;
            return;
        }
        if (s->to == 0)
            free_one = s;
    }
    if (free_one == NULL)
        g->counts.limited++;
    else if ((members | entries) != 0)
        *free_one = (struct stream){ .to = to, .members = members, .entries = entries };
}

void sync_compare(struct gossip *g, const struct gossip_head *h)
{
    struct gossip_head want = { .type = GOSSIP_WANT };
    for (unsigned b = 0; b < GOSSIP_BUCKETS; b++) {
        want.want_members |= (uint64_t)(h->members[b] != g->member_hash[b]) << b;
        want.want_entries |= (uint64_t)(h->entries[b] != g->entry_hash[b]) << b;
    }
    if ((want.want_members | want.want_entries) == 0)
        return;
    if (g->tokens > 0)
        send_head(g, h->from, &want, false);
    stream_to(g, h->from, want.want_members, want.want_entries);
}

void sync_wanted(struct gossip *g, const struct gossip_head *h)
{
    stream_to(g, h->from, h->want_members, h->want_entries);
}

static bool stream_members(struct gossip *g, struct stream *s, struct gossip_writer *w)
{
    struct gossip_member_update m;
    for (; s->members != 0 && s->at_member < g->roster.n; s->at_member++)
        if ((s->members >> (g->roster.ids[s->at_member] % GOSSIP_BUCKETS) & 1) != 0 &&
            member_describe(g, s->at_member, &m) && !gossip_put_member(w, &m))
            return false;
    return true;
}

static bool stream_entries(struct gossip *g, struct stream *s, struct gossip_writer *w)
{
    struct gossip_entry x;
    for (; s->entries != 0 && s->at_entry < g->entries_used; s->at_entry++) {
        const struct entry *there = entry_at(g, s->at_entry);
        if (there->hash == 0 || (s->entries >> (there->hash % GOSSIP_BUCKETS) & 1) == 0)
            continue;
        entry_describe(there, &x);
        if (!gossip_put_entry(w, &x))
            return false;
    }
    return true;
}

static void stream_some(struct gossip *g, struct stream *s)
{
    for (uint32_t i = 0; i < STREAM_PACKETS && s->to != 0 && g->tokens > 0; i++) {
        struct gossip_head h = { .type = GOSSIP_NEWS };
        struct gossip_writer w;
        if (!begin(g, s->to, &h, &w))
            return;
        size_t empty = w.n;
        gossip_id to = s->to;
        if (stream_members(g, s, &w) && stream_entries(g, s, &w))
            s->to = 0;
        if (w.n > empty)
            finish(g, to, &h, &w);
    }
}

/* ---- time ---- */

static bool streaming(const struct gossip *g)
{
    for (size_t i = 0; i < STREAMS_MAX; i++)
        if (g->streams[i].to != 0)
            return true;
    return false;
}

static void refill(struct gossip *g)
{
    int64_t max = (int64_t)g->conf.tx_per_s * 500; /* half a second's */
    uint64_t ms = g->now - g->tokens_at > 1000 ? 1000 : g->now - g->tokens_at;
    g->tokens += (int64_t)(ms * g->conf.tx_per_s);
    g->tokens = g->tokens > max ? max : g->tokens;
    g->tokens_at = g->now;
}

static void sync_some(struct gossip *g)
{
    uint64_t unknown = g->n_state[GOSSIP_UNKNOWN];
    bool most = g->roster.n > 1 && 2 * unknown >= g->roster.n;
    bool joining = most || (unknown > 0 && g->now < g->quiet_until + 10 * g->conf.probe_ms);
    gossip_id to = 0;
    if (most && g->roster.n_seeds > 0)
        to = g->roster.seeds[rnd(g, g->roster.n_seeds)];
    if (to == 0 || to == g->conf.id)
        to = member_random(g, true, 0);
    (void)sync_with(g, to);
    g->sync_at = g->now + (joining ? g->conf.probe_ms : g->conf.sync_ms * 3 / 4 + rnd(g, g->conf.sync_ms / 2 + 1));
}

void news_timers(struct gossip *g)
{
    refill(g);
    if (g->now >= g->sync_at && !g->leaving)
        sync_some(g);
    for (size_t i = 0; i < STREAMS_MAX; i++)
        stream_some(g, &g->streams[i]);
    if ((g->n_news == 0 && g->digest_rounds == 0) || g->now < g->news_at)
        return;
    g->news_at = g->now + g->conf.news_ms;
    bool digest = g->digest_rounds > 0;
    g->digest_rounds -= digest;
    for (uint32_t i = 0; i < g->conf.fanout && (g->n_news > 0 || digest) && g->tokens > 0; i++) {
        struct gossip_head h = { .type = GOSSIP_NEWS };
        send_head(g, member_random(g, true, 0), &h, true);
    }
}

uint64_t news_wake(const struct gossip *g)
{
    uint64_t at = g->n_news > 0 || g->digest_rounds > 0 ? g->news_at : UINT64_MAX;
    if (streaming(g) && g->now + STREAM_MS < at)
        at = g->now + STREAM_MS;
    return at;
}
