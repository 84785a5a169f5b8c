/*
 * gossip_fuzz.c - whatever members send, and in whatever order things happen here, no CHECK breaks and no bound is
 * left.
 *
 * Input: commands of a byte and what it takes. Packets are well formed (gossip_packet_fuzz.c has the others), and all
 * that is in them is from the input.
 */
#include <string.h>

#include "common/util/check.h"
#include "meshd/gossip/gossip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *p;
    size_t n;
};

static uint8_t byte(struct input *in)
{
    if (in->n == 0)
        return 0;
    in->n--;
    return *in->p++;
}

static uint64_t number(struct input *in) /* mostly small numbers near each other, at times a huge one */
{
    uint8_t b = byte(in);
    return b < 0xf0 ? b % 16 : b < 0xf8 ? (uint64_t)b << 8 : (UINT64_MAX >> 8) >> (b & 7);
}

static void entry_in(struct input *in, struct gossip_entry *x)
{
    static const char keys[] = "abcdefghijkl";
    uint8_t b = byte(in);
    *x = (struct gossip_entry){ .state = (enum gossip_entry_state)(b >> 4) % 3,
                                .owner = 1 + byte(in) % 8,
                                .revision = 1 + number(in),
                                .seq = number(in),
                                .key = { keys + b % 11, 1 + (b >> 7) } };
    if (x->state == GOSSIP_ENTRY_LIVE)
        x->value = (struct str){ keys, byte(in) % 12 };
}

static size_t packet_in(struct input *in, uint8_t b[GOSSIP_PACKET_MAX])
{
    struct gossip_writer w = { b, 0, GOSSIP_PACKET_MAX };
    struct gossip_head h = { .type = (enum gossip_type)(1 + byte(in) % 7) };
    h.from = 2 + byte(in) % 7;
    h.incarnation = number(in);
    h.seq = (uint32_t)number(in);
    h.target = byte(in) % 9;
    h.digest.revision = number(in);
    h.digest.hash = number(in);
    h.want_members = h.want_entries = h.type == GOSSIP_WANT ? UINT64_MAX : 0;
    h.entries[byte(in) % GOSSIP_BUCKETS] = h.type == GOSSIP_SYNC;
    CHECK(gossip_put_head(&w, &h));
    for (unsigned n = byte(in) % 8; n > 0; n--) {
        uint8_t what = byte(in);
        struct gossip_entry x;
        struct gossip_member_update m = { .id = 1 + byte(in) % 9, .state = (enum gossip_state)(1 + what % 4) };
        m.incarnation = number(in);
        m.by = m.state == GOSSIP_SUSPECT ? 1 + byte(in) % 9 : 0;
        if (what < 128) {
            CHECK(gossip_put_member(&w, &m));
            continue;
        }
        entry_in(in, &x);
        CHECK(gossip_put_entry(&w, &x));
    }
    return w.n;
}

static void records_in(struct input *in, struct gossip_record *r, struct gossip_event *ev)
{
    struct gossip_entry x;
    ev->digest.revision = number(in);
    ev->records = r;
    for (ev->n_records = byte(in) % 5; in->n > 0 && r < ev->records + ev->n_records; r++) {
        entry_in(in, &x);
        *r = (struct gossip_record){ .owner = x.owner, .revision = x.revision, .key = x.key, .value = x.value };
        ev->digest.hash += gossip_entry_hash(r->key, r->owner, r->revision);
    }
    ev->n_records = (size_t)(r - ev->records);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct gossip_effects out;
    struct input in = { data, size };
    gossip_id ids[2][8];
    struct gossip_roster rosters[2] = { { .n = 0 } };
    struct gossip_config conf = { .id = 1,
                                  .incarnation = 3,
                                  .seed = byte(&in),
                                  .members_max = 8,
                                  .entries_max = 6,
                                  .suspects_max = 2,
                                  .queue_max = 4,
                                  .key_max = 2,
                                  .value_max = 8 };
    struct gossip *g = NULL;
    uint64_t now = 0, revision = 0;
    CHECK(gossip_new(&g, &conf, NULL) == 0);
    while (in.n > 0) {
        uint8_t b[GOSSIP_PACKET_MAX], what = byte(&in);
        struct gossip_record records[8];
        struct gossip_entry x;
        now += (uint64_t)byte(&in) * (what / 8u);
        struct gossip_event ev = { .type = (enum gossip_event_type)(what % 8), .now = { now } };
        bool visible;
        memset(records, 0, sizeof records);
        if (ev.type == GOSSIP_EV_PACKET) {
            ev.packet = (struct str){ (const char *)b, packet_in(&in, b) };
        } else if (ev.type == GOSSIP_EV_ROSTER) {
            struct gossip_roster *r = &rosters[++revision % 2];
            uint8_t mask = byte(&in);
            *r = (struct gossip_roster){ .revision = revision, .ids = ids[revision % 2] };
            for (gossip_id id = 1; id <= 8; id++)
                if ((mask >> (id - 1) & 1) != 0)
                    ids[revision % 2][r->n++] = id;
            r->seeds = r->ids;
            r->n_seeds = r->n > 2 ? 2 : r->n;
            ev.roster = r;
        } else if (ev.type == GOSSIP_EV_DIGEST) {
            ev.digest = (struct gossip_digest){ number(&in), number(&in) };
        } else if (ev.type == GOSSIP_EV_RECORDS) {
            records_in(&in, records, &ev);
        } else if (ev.type != GOSSIP_EV_TICK) {
            entry_in(&in, &x);
            ev.key = x.key;
            ev.value = x.value;
            ev.revision = x.revision;
        }
        (void)gossip_step(g, &ev, &out, NULL);
        CHECK(out.n_packets <= GOSSIP_OUT_MAX && out.wake_at.ms > now);
        for (size_t i = 0; i < out.n_packets; i++) {
            struct gossip_head h;
            struct str updates;
            CHECK(out.packets[i].to != 1 || out.packets[i].n == 0);
            CHECK(gossip_packet_decode((struct str){ (const char *)out.packets[i].b, out.packets[i].n }, &h, &updates,
                                       NULL) == 0);
        }
        gossip_check(g);
        while ((what & 0x40) != 0 && gossip_changed(g, &x, &visible))
            ;
        gossip_check(g);
    }
    gossip_free(g);
    return 0;
}
