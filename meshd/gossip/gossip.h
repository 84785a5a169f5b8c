/*
 * gossip.h - membership and endpoints without any central point: what happened goes in as one event, what must be sent
 * comes out as packets.
 *
 * No I/O, no clock, no randomness of its own (time comes with every event, the seed with the configuration), and no
 * memory taken after gossip_new(). Packets are plain here; the shell seals them (keyring.h) and knows the addresses.
 *
 * Members: SWIM (Das, Gupta, Motivala 2002): each probe interval one member is pinged, then asked for through others,
 * then suspected, then dead; incarnations; news ride on packets a bounded number of times. Lifeguard (Dadgar, Phillips,
 * Currey 2017): local health, nacks, suspicion timeouts that shrink with each independent confirmation, and whoever is
 * suspected hears of it first. Who may be a member is the managers' word (the roster): nobody else is listened to. The
 * dead who are in the roster are pinged now and then, so that a healed partition is found within about a second.
 *
 * Entries (key -> value) have an owner, the revision of the store that they derive from, and the owner's own count of
 * changes. Higher revision wins, then higher count. The managers hand out a digest of all entries at a revision; it
 * travels with every packet. A node whose entries add up to that digest is settled at that revision (its floor): what
 * is older and not there is stale, is refused, and whoever sent it is put right. A node that does not add up asks its
 * peers, and when that does not help, the managers (want_records). An entry of a node that is dead or has left is not
 * visible, one of a node that is not in the roster is gone.
 *
 * Anti-entropy: two nodes compare hashes of 64 buckets of members and entries, and send each other what differs.
 */
#pragma once

#include "common/util/clock.h"
#include "meshd/gossip/gossip_packet.h"

#define GOSSIP_OUT_MAX 24u /* packets of one step */

/* The managers' list of nodes. Borrowed until the end of the step that brings the next one. */
struct gossip_roster {
    uint64_t revision;
    size_t n;
    const gossip_id *ids; /* rising, without doubles; this node may be missing */
    size_t n_seeds;       /* whom to ask first when joining: the managers */
    const gossip_id *seeds;
};

/* 0 takes the default. */
struct gossip_config {
    gossip_id id;
    uint64_t incarnation; /* greater at each start; less than 2^55 (wall clock in ms will do); never 0 */
    uint64_t seed;
    uint32_t members_max;    /* 16384 */
    uint32_t entries_max;    /* 65536 */
    uint32_t suspects_max;   /* 4096; beyond it, nobody more is suspected for the time being */
    uint32_t queue_max;      /* 8192; news waiting to be sent; beyond it the most often sent go first */
    uint32_t key_max;        /* 64, at most that */
    uint32_t value_max;      /* 200, at most that */
    uint32_t packet_max;     /* 1400, at most that, at least 700 */
    uint64_t probe_ms;       /* 1000 */
    uint64_t probe_reply_ms; /* 400; wait for an answer before asking others */
    uint64_t news_ms;        /* 200 */
    uint32_t fanout;         /* 3 */
    uint32_t relays;         /* 3; asked for an indirect probe */
    uint32_t suspicion_mult; /* 4 */
    uint32_t transmit_mult;  /* 3 */
    uint64_t sync_ms;        /* 15000 */
    uint64_t settle_ms;      /* 1500; entries don't add up for this long, or up to twice: ask the managers */
    uint64_t deleted_ms;     /* 60000; how long a deletion is remembered when the digest does not settle it before */
    uint32_t tx_per_s;       /* 262144 bytes a second of news and anti-entropy; probes and answers always go */
};

enum gossip_event_type {
    GOSSIP_EV_TICK,    /* time went on */
    GOSSIP_EV_PACKET,  /* packet, opened; sender: whose seal it bore (0: not known) */
    GOSSIP_EV_ROSTER,  /* roster */
    GOSSIP_EV_DIGEST,  /* digest, from the managers themselves */
    GOSSIP_EV_RECORDS, /* records: all entries that the managers have at digest.revision, whose hash is digest.hash */
    GOSSIP_EV_SET,     /* this node owns key -> value, derived from revision */
    GOSSIP_EV_UNSET,   /* and no more. revision: as it was set: withdrawn; greater: the store has deleted it */
    GOSSIP_EV_LEAVE,   /* say goodbye; keep stepping for a second */
};

struct gossip_record {
    gossip_id owner;
    uint64_t revision;
    struct str key, value;
};

struct gossip_event {
    struct mono_ms now; /* never earlier than in the previous event */
    enum gossip_event_type type;
    struct str packet;
    gossip_id sender;
    const struct gossip_roster *roster;
    struct gossip_digest digest;
    const struct gossip_record *records; /* borrowed for the step */
    size_t n_records;
    struct str key, value;
    uint64_t revision;
};

struct gossip_packet {
    gossip_id to;
    size_t n;
    uint8_t b[GOSSIP_PACKET_MAX];
};

struct gossip_effects {
    struct gossip_packet packets[GOSSIP_OUT_MAX];
    size_t n_packets;
    bool want_records;      /* ask the managers for all records (GOSSIP_EV_RECORDS); said again until they come */
    bool members_changed;   /* who is alive */
    bool entries_changed;   /* gossip_changed() has something */
    struct mono_ms wake_at; /* step again with GOSSIP_EV_TICK then */
};

struct gossip_counts {
    uint64_t packets_in, packets_out, bytes_in, bytes_out;
    uint64_t malformed, strangers, stale, corrected, limited, dropped_news, full;
    uint64_t probes, probes_failed, suspected, died, refuted, syncs, fetches;
};

struct gossip_status {
    gossip_id id;
    uint64_t incarnation;
    uint32_t roster, alive, suspect, dead, unknown; /* unknown: in the roster, not heard of yet; alive counts self */
    uint32_t entries;                               /* live ones, visible or not */
    uint32_t remembered;                            /* withdrawn and deleted ones */
    uint32_t queued;
    uint32_t health; /* Lifeguard's multiplier less one: 0 well .. 8 */
    struct gossip_digest digest;
    uint64_t floor; /* entries are known to be the managers' at this revision */
    bool settled;   /* and that is the newest that this node heard of */
    struct gossip_counts counts;
};

struct gossip;
int gossip_new(struct gossip **ret, const struct gossip_config *conf, struct err *e);
struct gossip *gossip_free(struct gossip *g);

/*
 * gossip_step - one event. *out is overwritten.
 *
 * Returns 0, or (with no packets, nothing changed):
 *   -ERR_INVALID       a packet or an event that can't be
 *   -ERR_DENIED        the packet is not from whom it says
 *   -ERR_TOO_BIG       no room for one more entry, or the roster has more nodes than there is room for
 *   -ERR_NOT_FOUND     UNSET of what this node does not own
 *   -ERR_PRECONDITION  SET or UNSET with an older revision than is known; a roster that is older
 */
int gossip_step(struct gossip *g, const struct gossip_event *ev, struct gossip_effects *out, struct err *e);

/* gossip_changed - an entry that came, changed or went since it was last given here; false: none is left.
 * *ret_visible false: it is gone (its value is empty). Borrowed until the next step. */
bool gossip_changed(struct gossip *g, struct gossip_entry *ret, bool *ret_visible);

/* gossip_lookup - a visible entry; borrowed until the next step. */
bool gossip_lookup(const struct gossip *g, struct str key, struct gossip_entry *ret);

/* gossip_next - all entries, live or not: start with *pos = 0. */
bool gossip_next(const struct gossip *g, size_t *pos, struct gossip_entry *ret, bool *ret_visible);

/* gossip_member - UNKNOWN also when it is not in the roster. */
enum gossip_state gossip_member(const struct gossip *g, gossip_id id, uint64_t *ret_incarnation);

void gossip_status(const struct gossip *g, struct gossip_status *ret);

/* gossip_check - CHECKs what must hold between any two events. Slow. */
void gossip_check(const struct gossip *g);
