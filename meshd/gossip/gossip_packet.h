/*
 * gossip_packet.h - the bytes of one gossip packet: a head, and updates behind it until the end.
 *
 * All numbers are big endian. A packet is decoded as a whole before anything in it is believed: every length is
 * checked, nothing may be left over, and numbers that can't be are refused. No memory is taken.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/util/err.h"
#include "common/util/str.h"

typedef uint64_t gossip_id; /* of a node; never 0. The shell knows which node id and address it stands for */

#define GOSSIP_PACKET_MAX 1400u /* of payload, before it is sealed */
#define GOSSIP_KEY_MAX 64u
#define GOSSIP_VALUE_MAX 200u
#define GOSSIP_BUCKETS 64u /* of members, and of entries, for anti-entropy */

enum gossip_type {
    /* these numbers go over the wire */
    GOSSIP_PING = 1,     /* seq comes back in the answer */
    GOSSIP_PING_REQ = 2, /* please ping target (SWIM §3.1) */
    GOSSIP_ACK = 3,
    GOSSIP_NACK = 4, /* target did not answer me, but I am there (Lifeguard §IV.A) */
    GOSSIP_NEWS = 5, /* updates and nothing else */
    GOSSIP_SYNC = 6, /* hashes of what the sender has, by bucket */
    GOSSIP_WANT = 7, /* send me all you have in these buckets */
};

enum gossip_state { GOSSIP_UNKNOWN = 0, GOSSIP_ALIVE = 1, GOSSIP_SUSPECT = 2, GOSSIP_DEAD = 3, GOSSIP_LEFT = 4 };

enum gossip_entry_state {
    GOSSIP_ENTRY_LIVE = 0,
    GOSSIP_ENTRY_WITHDRAWN = 1, /* the owner took it back; the managers still have it at this revision */
    GOSSIP_ENTRY_DELETED = 2,   /* the managers have it no more at this revision */
};

/* What the managers have: all entries at a revision of the store. hash: gossip_entry_hash() of each, added up. */
struct gossip_digest {
    uint64_t revision, hash; /* revision 0: none known */
};

struct gossip_head {
    enum gossip_type type;
    gossip_id from;
    uint64_t incarnation;
    uint32_t seq;
    gossip_id target; /* PING_REQ and its NACK; else 0 */
    struct gossip_digest digest;
    uint64_t want_members, want_entries;                       /* WANT: a bit a bucket */
    uint32_t members[GOSSIP_BUCKETS], entries[GOSSIP_BUCKETS]; /* SYNC */
};

struct gossip_member_update {
    gossip_id id;
    enum gossip_state state; /* not UNKNOWN */
    uint64_t incarnation;
    gossip_id by; /* SUSPECT: who says so; else 0 */
};

struct gossip_entry {
    enum gossip_entry_state state;
    gossip_id owner;
    uint64_t revision; /* of the store, which it derives from; never 0 */
    uint64_t seq;      /* counts the owner's changes; 0: as the managers made it */
    struct str key, value;
};

struct gossip_update {
    bool is_entry;
    struct gossip_member_update member;
    struct gossip_entry entry; /* key and value point into the packet */
};

/* gossip_packet_decode - @ret_updates borrows from the packet, for gossip_update_next(). Returns 0 or -ERR_INVALID. */
int gossip_packet_decode(struct str packet, struct gossip_head *ret, struct str *ret_updates, struct err *e);

/* gossip_update_next - of updates that were decoded; false at the end. */
bool gossip_update_next(struct str *updates, struct gossip_update *ret);

/* A packet being written; what does not fit is refused and leaves it as it was. */
struct gossip_writer {
    uint8_t *p;
    size_t n, cap;
};

bool gossip_put_head(struct gossip_writer *w, const struct gossip_head *h);
bool gossip_put_member(struct gossip_writer *w, const struct gossip_member_update *m);
bool gossip_put_entry(struct gossip_writer *w, const struct gossip_entry *x);

/* gossip_hash - FNV-1a of the bytes, mixed (the finalizer of splitmix64): the same on every node. */
uint64_t gossip_hash(uint64_t seed, const void *p, size_t n);

/* gossip_entry_hash - of key, owner and revision: what the managers know of an entry. */
uint64_t gossip_entry_hash(struct str key, gossip_id owner, uint64_t revision);
