/* gossip_priv.h - what the core's files share; nobody else includes this. */
#pragma once

#include "meshd/gossip/gossip.h"

#define NONE UINT32_MAX
#define HEALTH_MAX 8u
#define RELAYS_MAX 64u
#define STREAMS_MAX 4u
#define TRANSMITS_MAX 64u

/* A hash table from a number (never 0) to a number; open addressing, at most half full. */
struct map {
    uint64_t *keys;
    uint32_t *values;
    size_t mask, n;
};
bool map_init(struct map *m, size_t max);
uint32_t map_get(const struct map *m, uint64_t key); /* NONE */
void map_put(struct map *m, uint64_t key, uint32_t value);
void map_del(struct map *m, uint64_t key);

/* A member is eight bytes, beside its id in the roster: incarnation << 3 | state. */
typedef uint64_t member;

struct suspect {
    gossip_id id; /* 0: free */
    uint64_t since, until;
    gossip_id by[4]; /* who said so, this node or others; independent of each other */
    uint32_t n_by;
};

struct entry {
    uint64_t hash; /* of the key; 0: free */
    uint64_t owner, revision, seq;
    uint64_t until; /* DELETED: forgotten then */
    uint64_t seen;  /* by GOSSIP_EV_RECORDS: the pass that had it */
    uint32_t owner_next, owner_prev;
    uint32_t dirty_next; /* NONE - 1: not in the list; also links free ones */
    uint32_t news;       /* its place in the queue, or NONE */
    uint8_t state, key_n, value_n;
    bool told; /* the shell has it as visible */
    char text[];
};
#define NOT_DIRTY (NONE - 1)

struct news {
    uint64_t member;     /* or */
    uint32_t entry;      /* NONE: a member */
    uint32_t next, prev; /* in the list of those sent as often */
    uint32_t sent;
};

struct relay {              /* an indirect probe that another node asked for */
    gossip_id from, target; /* from 0: free */
    uint32_t from_seq, seq;
    uint64_t nack_at;
};

struct stream {   /* what a peer asked for; sent as the rate allows */
    gossip_id to; /* 0: free */
    uint64_t members, entries;
    uint32_t at_member, at_entry;
};

struct gossip {
    struct gossip_config conf;
    uint64_t now, rng, incarnation, own_seq;
    bool started, leaving;
    uint64_t quiet_until; /* who just started need not pass on who else was there before */
    struct gossip_effects *out;

    struct gossip_roster roster;
    member *members; /* by place in the roster */
    uint32_t n_state[5];
    uint32_t member_hash[GOSSIP_BUCKETS];
    struct map suspect_of; /* id -> suspects */
    struct suspect *suspects;
    uint32_t n_suspects, suspect_free;
    uint64_t suspect_next; /* the earliest `until`, or earlier */

    /* probing */
    uint32_t walk_at, walk_step, walk_left; /* a full cycle through the roster, in an order that differs each time */
    uint64_t probe_at;
    gossip_id probing; /* 0: none */
    uint64_t indirect_at;
    uint32_t probe_seq, seq, nacks_due, nacks;
    uint32_t health;
    struct relay relays[RELAYS_MAX];

    /* entries */
    char *slab;
    size_t entry_size;
    uint32_t entries_used, entry_free, n_live, n_kept; /* used: ever; kept: withdrawn or deleted */
    struct map entry_of;                               /* hash of the key -> entry */
    uint32_t *owners;                                  /* lists by owner */
    uint32_t owners_mask;
    uint32_t dirty_head, dirty_tail;
    uint32_t entry_hash[GOSSIP_BUCKETS];
    struct gossip_digest digest;
    uint64_t floor, unsettled_since, fetch_at, resync_at, deleted_at, pass;
    bool recheck;

    /* news */
    struct news *queue;
    uint32_t news_free, news_fresh; /* the first that was used, and is free; those behind were never used */
    uint32_t n_news, news_head[TRANSMITS_MAX], news_tail[TRANSMITS_MAX];
    struct map news_of; /* id of a member -> queue */
    uint64_t news_at;
    uint32_t digest_rounds; /* the digest is news, too, this often */

    /* anti-entropy */
    uint64_t sync_at, sync_not_before;
    struct stream streams[STREAMS_MAX];
    int64_t tokens; /* bytes, in thousandths */
    uint64_t tokens_at;

    struct gossip_counts counts;
};

/* gossip.c */
uint64_t rnd(struct gossip *g, uint64_t below);
uint32_t log10_x100(uint64_t n); /* of n, times 100 */

/* gossip_members.c */
uint32_t slot_of(const struct gossip *g, gossip_id id); /* place in the roster, or NONE */
enum gossip_state state_at(const struct gossip *g, uint32_t slot);
uint64_t incarnation_at(const struct gossip *g, uint32_t slot);
enum gossip_state state_of(const struct gossip *g, gossip_id id);
bool member_describe(const struct gossip *g, uint32_t slot, struct gossip_member_update *ret);
void member_update(struct gossip *g, const struct gossip_member_update *m);
void member_roster(struct gossip *g, const struct gossip_roster *r);
gossip_id member_random(struct gossip *g, bool alive, gossip_id but);
void member_timers(struct gossip *g);
void probe_timers(struct gossip *g);
void probe_answered(struct gossip *g, const struct gossip_head *h);
void probe_relay(struct gossip *g, const struct gossip_head *h);
void announce_self(struct gossip *g);

/* gossip_entries.c */
struct entry *entry_at(const struct gossip *g, uint32_t i);
void entry_describe(const struct entry *x, struct gossip_entry *ret);
bool entry_visible(const struct gossip *g, const struct entry *x);
uint32_t entry_find(const struct gossip *g, struct str key);
void entry_update(struct gossip *g, const struct gossip_entry *x, gossip_id from);
int entry_set(struct gossip *g, const struct gossip_event *ev, struct err *e);
int entry_unset(struct gossip *g, const struct gossip_event *ev, struct err *e);
int entry_records(struct gossip *g, const struct gossip_event *ev, struct err *e);
void entries_of_owner(struct gossip *g, gossip_id owner, bool drop);
void digest_heard(struct gossip *g, const struct gossip_digest *d, gossip_id from);
void entry_timers(struct gossip *g);

/* gossip_news.c */
void news_member(struct gossip *g, gossip_id id);
void news_entry(struct gossip *g, uint32_t entry);
void news_forget_member(struct gossip *g, gossip_id id);
void news_forget_entry(struct gossip *g, struct entry *x);
void news_init(struct gossip *g);
void send_head(struct gossip *g, gossip_id to, struct gossip_head *h, bool fill);
void send_entry(struct gossip *g, gossip_id to, const struct gossip_entry *x);
bool sync_with(struct gossip *g, gossip_id to);
void sync_compare(struct gossip *g, const struct gossip_head *h);
void sync_wanted(struct gossip *g, const struct gossip_head *h);
void news_timers(struct gossip *g);
uint64_t news_wake(const struct gossip *g);
