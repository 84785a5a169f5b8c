/*
 * raft_bench - what the core alone costs, and how long a group is without a leader: cores in one process, with
 * simulated time, a network of 0.5 ms a way and disks of 2 ms. A JSON line a figure.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/util/check.h"
#include "raftd/core/raft.h"

#define NODES 5u
#define QUEUE 4096u
#define ENTRIES (1u << 20)
#define ROUNDS 1000u

struct letter {
    uint64_t at; /* us */
    unsigned to;
    enum { MESSAGE, PERSISTED, HINT } what;
    struct raft_msg msg;
    uint64_t write;
};

struct node {
    struct raft *core;
    bool up;
    uint64_t wake;
};

static struct {
    struct node nodes[NODES];
    unsigned n;
    struct letter queue[QUEUE];
    unsigned n_queue;
    uint64_t now, rng, delay_us, disk_us;
    struct raft_effects fx;
    struct raft_entry_meta metas[1024];
} g;

static uint64_t rnd(uint64_t below)
{
    g.rng = g.rng * 6364136223846793005u + 1442695040888963407u;
    return (g.rng >> 33) % below;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void figure(const char *name, double value, const char *unit)
{
    printf("{\"name\":\"%s\",\"value\":%.1f,\"unit\":\"%s\"}\n", name, value, unit);
}

static uint64_t no_terms(void *arg, uint64_t index)
{
    (void)arg, (void)index;
    return 0;
}

static void put(struct letter l)
{
    CHECK(g.n_queue < QUEUE);
    g.queue[g.n_queue++] = l;
}

static void step(unsigned who, struct raft_event ev)
{
    struct err e = ERR_INIT;
    struct node *n = &g.nodes[who];
    ev.now.ms = g.now / 1000;
    if (raft_step(n->core, &ev, &g.fx, &e) < 0)
        return;
    n->wake = g.fx.wake_at.ms;
    if (g.fx.write != 0)
        put((struct letter){ .at = g.now + g.disk_us, .to = who, .what = PERSISTED, .write = g.fx.write });
    for (size_t i = 0; i < g.fx.n_msgs; i++)
        put((struct letter){ .at = g.now + g.delay_us, .to = (unsigned)g.fx.msgs[i].to - 1, .msg = g.fx.msgs[i] });
    if (g.fx.apply_to != 0)
        step(who, (struct raft_event){ .type = RAFT_EV_APPLIED, .index = g.fx.apply_to });
}

static void deliver(struct letter *l)
{
    struct raft_event ev = { .type = RAFT_EV_PERSISTED, .write = l->write };
    if (!g.nodes[l->to].up)
        return;
    if (l->what == HINT) {
        ev = (struct raft_event){ .type = RAFT_EV_LINK_LOST, .member = l->msg.from };
    } else if (l->what == MESSAGE) {
        uint64_t n = l->msg.type == RAFT_MSG_APPEND ? l->msg.entries_to + 1 - l->msg.entries_from : 0;
        for (uint64_t i = 0; i < n; i++) /* all of the leader's term: these logs never differ */
            g.metas[i] = (struct raft_entry_meta){ l->msg.index + 1 + i, l->msg.term, RAFT_ENTRY_DATA, NULL };
        l->msg.entries = g.metas;
        l->msg.n_entries = n;
        ev = (struct raft_event){ .type = RAFT_EV_MESSAGE, .msg = &l->msg };
    }
    step(l->to, ev);
}

/* one - the earliest thing that happens */
static void one(void)
{
    unsigned first = g.n_queue;
    for (unsigned i = 0; i < g.n_queue; i++)
        if (first == g.n_queue || g.queue[i].at < g.queue[first].at)
            first = i;
    for (unsigned k = 0; k < g.n; k++) {
        uint64_t at = g.nodes[k].wake == UINT64_MAX ? UINT64_MAX : g.nodes[k].wake * 1000;
        if (!g.nodes[k].up || (first < g.n_queue && g.queue[first].at <= at))
            continue;
        bool soonest = true;
        for (unsigned j = 0; j < g.n; j++)
            soonest &= !g.nodes[j].up || g.nodes[j].wake >= g.nodes[k].wake;
        if (!soonest)
            continue;
        g.now = at > g.now ? at : g.now;
        step(k, (struct raft_event){ .type = RAFT_EV_TICK });
        return;
    }
    CHECK(first < g.n_queue);
    struct letter l = g.queue[first];
    memmove(&g.queue[first], &g.queue[first + 1], (--g.n_queue - first) * sizeof g.queue[0]);
    g.now = l.at > g.now ? l.at : g.now;
    deliver(&l);
}

static int ready(void)
{
    struct raft_status s;
    for (unsigned k = 0; k < g.n; k++) {
        if (!g.nodes[k].up)
            continue;
        raft_status(g.nodes[k].core, &s);
        if (s.ready)
            return (int)k;
    }
    return -1;
}

static int lead(void)
{
    while (ready() < 0)
        one();
    return ready();
}

static void group_new(unsigned n)
{
    struct raft_config c = { .members = { .n = n } };
    struct raft_log_state l = { .first_index = 1 };
    struct err e = ERR_INIT;
    g.n = n;
    g.n_queue = 0;
    g.now = 0;
    for (unsigned k = 0; k < n; k++)
        c.members.v[k].id = k + 1;
    for (unsigned k = 0; k < n; k++) {
        raft_free(g.nodes[k].core);
        c.id = k + 1;
        c.seed = rnd(UINT32_MAX);
        g.nodes[k].up = true;
        CHECK(raft_new(&g.nodes[k].core, &c, &l, no_terms, NULL, &e) == 0);
        step(k, (struct raft_event){ .type = RAFT_EV_TICK });
    }
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* failover - from the leader's death until another one has its first entry applied. */
static void failover(unsigned n, bool hint, const char *name)
{
    static uint64_t took[ROUNDS];
    char text[64];
    for (unsigned i = 0; i < ROUNDS; i++) {
        group_new(n);
        int leader = lead();
        for (uint64_t until = g.now + 1000000 + rnd(100000); g.now < until;)
            one();
        if (ready() != leader) /* still the same in a quiet group */
            CHECK(!"a leader was deposed for nothing");
        uint64_t died = g.now;
        g.nodes[leader].up = false;
        for (unsigned k = 0; hint && k < n; k++)
            if (k != (unsigned)leader)
                put((struct letter){
                    .at = g.now + 1000 + rnd(2000), .to = k, .what = HINT, .msg = { .from = (raft_id)leader + 1 } });
        (void)lead();
        took[i] = g.now - died;
    }
    qsort(took, ROUNDS, sizeof took[0], by_value);
    uint64_t median = took[ROUNDS / 2], p99 = took[ROUNDS * 99 / 100];
    snprintf(text, sizeof text, "raft_core_failover_%s_%u_median", name, n);
    figure(text, (double)median / 1000.0, "ms");
    snprintf(text, sizeof text, "raft_core_failover_%s_%u_p99", name, n);
    figure(text, (double)p99 / 1000.0, "ms");
    snprintf(text, sizeof text, "raft_core_failover_%s_%u_max", name, n);
    figure(text, (double)took[ROUNDS - 1] / 1000.0, "ms");
}

/* commits - entries through three cores, without any disk, network or bytes. */
static void commits(uint32_t batch, const char *name)
{
    struct raft_status s;
    group_new(3);
    unsigned leader = (unsigned)lead();
    uint64_t want = batch == 1 ? ENTRIES / 8 : ENTRIES;
    double t0 = seconds();
    for (uint64_t sent = 0; sent < want; sent += batch) {
        step(leader, (struct raft_event){ .type = RAFT_EV_PROPOSE, .n_entries = batch, .bytes = 100ull * batch });
        while (g.n_queue > 0) {
            struct letter l = g.queue[0];
            memmove(&g.queue[0], &g.queue[1], --g.n_queue * sizeof g.queue[0]);
            deliver(&l);
        }
    }
    double t = seconds() - t0;
    raft_status(g.nodes[leader].core, &s);
    CHECK(s.committed > want);
    figure(name, (double)want / t, "1/s");
}

int main(void)
{
    g.rng = 42;
    g.delay_us = 500;
    g.disk_us = 2000;
    failover(3, true, "hint");
    failover(5, true, "hint");
    failover(3, false, "silent");
    failover(5, false, "silent");
    commits(1, "raft_core_commits_one_by_one");
    commits(64, "raft_core_commits_by_64");
    for (unsigned k = 0; k < NODES; k++)
        raft_free(g.nodes[k].core);
    return 0;
}
