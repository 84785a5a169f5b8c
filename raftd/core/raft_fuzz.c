/*
 * raft_fuzz.c - whatever other members send, and in whatever order things happen here, no CHECK breaks: a message may
 * be refused, ignored or believed, but never stop the process. The shell's own side (disk, applying) is played right.
 *
 * Input: one byte of group, then events of a few bytes each.
 */
#include <string.h>

#include "common/util/check.h"
#include "raftd/core/raft.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *p;
    size_t n;
};

struct shell {
    struct raft *r;
    struct raft_effects fx;
    uint64_t now, writes[64], applied, apply_to, installed;
    size_t n_writes;
};

static uint8_t byte(struct input *in)
{
    if (in->n == 0)
        return 0;
    in->n--;
    return *in->p++;
}

/* Mostly small numbers near each other, at times a huge one. */
static uint64_t number(struct input *in)
{
    uint8_t b = byte(in);
    return b < 0xf0 ? b % 16 : b < 0xf8 ? (uint64_t)b << 8 : UINT64_MAX >> (b & 7);
}

static int step(struct shell *s, struct raft_event *ev)
{
    struct err e = ERR_INIT;
    ev->now.ms = s->now;
    int rc = raft_step(s->r, ev, &s->fx, &e);
    if (rc < 0)
        return rc;
    if (s->fx.install_index != 0)
        s->installed = s->fx.install_index;
    if (s->fx.write != 0 && s->n_writes < 64)
        s->writes[s->n_writes++] = s->fx.write;
    else if (s->fx.write != 0)
        s->writes[63] = s->fx.write;
    if (s->fx.apply_to != 0)
        s->apply_to = s->fx.apply_to;
    CHECK(s->fx.n_msgs <= RAFT_MSGS_MAX && s->fx.n_reads <= RAFT_READS_MAX);
    CHECK(s->fx.write != 0 || (s->fx.append_from > s->fx.append_to && !s->fx.hard_state_changed));
    return 0;
}

static void members_in(struct input *in, struct raft_members *m)
{
    m->n = byte(in) % (RAFT_MEMBERS_MAX + 2);
    for (size_t i = 0; i < m->n && i < RAFT_MEMBERS_MAX; i++) {
        uint8_t b = byte(in);
        m->v[i] = (struct raft_member){ b % 12, b & 0x80 };
    }
}

static void message(struct shell *s, struct input *in)
{
    struct raft_entry_meta metas[8];
    struct raft_members members[8];
    struct raft_msg m = { .type = (enum raft_msg_type)(byte(in) % 12) };
    uint8_t flags = byte(in);
    m.from = byte(in) % 8;
    m.to = 1;
    m.term = number(in);
    m.index = number(in);
    m.index_term = number(in);
    m.commit = number(in);
    m.read_id = number(in);
    m.hint_index = number(in);
    m.hint_term = number(in);
    m.reject = flags & 1;
    m.transfer = flags & 2;
    m.n_entries = flags >> 2 & 7;
    m.entries = metas;
    uint64_t term = m.index_term;
    for (size_t i = 0; i < m.n_entries; i++) {
        uint8_t b = byte(in);
        term += b & 1;
        metas[i] = (struct raft_entry_meta){ m.index + 1 + i, b & 2 ? number(in) : term, RAFT_ENTRY_DATA, NULL };
        if (b & 4) {
            members_in(in, &members[i]);
            metas[i].type = RAFT_ENTRY_MEMBERS;
            metas[i].members = &members[i];
        }
    }
    struct raft_event ev = { .type = RAFT_EV_MESSAGE, .msg = &m };
    (void)step(s, &ev);
}

static void disk(struct shell *s, bool refuses, uint8_t how_many)
{
    if (s->n_writes == 0)
        return;
    size_t n = 1 + how_many % s->n_writes;
    struct raft_event ev = { .type = refuses ? RAFT_EV_WRITE_FAILED : RAFT_EV_PERSISTED, .write = s->writes[n - 1] };
    if (refuses) {
        ev.write = s->writes[0];
        n = s->n_writes;
    }
    s->n_writes -= n;
    memmove(s->writes, s->writes + n, s->n_writes * sizeof s->writes[0]);
    CHECK(step(s, &ev) == 0);
}

static void shell_event(struct shell *s, struct input *in, uint8_t what)
{
    struct raft_members m = { 0 };
    struct raft_event ev = { .member = byte(in) % 8 };
    static const enum raft_event_type types[] = {
        RAFT_EV_PROPOSE,         RAFT_EV_READ,      RAFT_EV_MEMBERS,
        RAFT_EV_TRANSFER,        RAFT_EV_LINK_LOST, RAFT_EV_SNAPSHOT_SENT,
        RAFT_EV_SNAPSHOT_FAILED, RAFT_EV_COMPACTED, RAFT_EV_SNAPSHOT_RECEIVED
    };
    ev.type = types[what % 9];
    ev.n_entries = byte(in) % 4;
    ev.bytes = 10;
    ev.change = (enum raft_change)(byte(in) % 6);
    ev.index = number(in);
    ev.term = number(in);
    ev.first_kept = number(in);
    if (ev.type == RAFT_EV_SNAPSHOT_RECEIVED) {
        members_in(in, &m);
        ev.members = &m;
    }
    (void)step(s, &ev);
    for (size_t i = 0; i < s->fx.n_msgs && (what & 0x10); i++)
        if (s->fx.msgs[i].type == RAFT_MSG_APPEND)
            (void)raft_sent(s->r, s->fx.msgs[i].to, number(in), number(in));
}

static void apply(struct shell *s)
{
    struct raft_status st;
    raft_status(s->r, &st);
    if (s->apply_to <= st.applied)
        return;
    struct raft_event ev = { .type = RAFT_EV_APPLIED, .index = s->apply_to };
    CHECK(step(s, &ev) == 0);
}

static uint64_t term_of(void *arg, uint64_t index)
{
    (void)arg, (void)index;
    return 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };
    static struct shell s;
    struct err e = ERR_INIT;
    uint8_t first = byte(&in);
    struct raft_config c = { .id = 1, .seed = 1, .uncommitted_bytes_max = 50, .inflight_msgs_max = 2 };
    c.members.n = first % 5;
    for (size_t i = 0; i < c.members.n; i++)
        c.members.v[i] = (struct raft_member){ i + 1, i == 3 };
    struct raft_log_state l = { .hard_state = { 1, 0 }, .first_index = 1, .last_index = first >> 5 };
    memset(&s, 0, sizeof s);
    CHECK(raft_new(&s.r, &c, &l, term_of, NULL, &e) == 0);
    while (in.n > 0) {
        uint8_t what = byte(&in);
        struct raft_event tick = { .type = RAFT_EV_TICK };
        s.now += what >> 5 == 7 ? 1500 : what >> 5;
        switch (what % 6) {
        case 0:
        case 1:
            message(&s, &in);
            break;
        case 2:
            disk(&s, (what & 0x18) == 0x18, byte(&in));
            break;
        case 3:
            shell_event(&s, &in, byte(&in));
            break;
        case 4:
            apply(&s);
            break;
        default:
            (void)step(&s, &tick);
        }
    }
    raft_free(s.r);
    return 0;
}
