/*
 * gossip_bench - what gossip costs and how fast it is, with up to 10,000 cores in one process: simulated time, a
 * network of 1 to 5 ms a way that loses nothing. A JSON line a figure. The bytes are payload; sealing, UDP and IP add
 * 73 to each packet, which the figures include.
 *
 *   gossip_bench [NODES...]
 *
 * Without NODES: 100, 1000 and 10000, the last without the partition, which takes many minutes to simulate at that
 * size.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/util/check.h"
#include "tests/sim/gossip_world.h"

#define KEYS 100u
#define WIRE (28u + KEYRING_OVERHEAD)

static uint32_t nodes;

static void figure(const char *what, double value, const char *unit)
{
    printf("{\"name\":\"gossip_%u_%s\",\"value\":%.1f,\"unit\":\"%s\"}\n", nodes, what, value, unit);
    fflush(stdout);
}

static double bytes_of(const struct world *w)
{
    struct world_sums s;
    world_sums(w, &s);
    return (double)(s.bytes + s.packets * WIRE);
}

/* An entry changes: until half, 99 % and all nodes see it, without asking the managers. */
static void spread(struct world *w)
{
    struct world_sums before, after;
    uint64_t t0 = world_now(w), half = 0, most = 0, end = 0;
    double bytes = bytes_of(w);
    world_sums(w, &before);
    world_assign(w, 7, nodes / 2);
    while (end == 0 && world_now(w) < t0 + 20000) {
        world_run(w, 20);
        uint32_t blind = world_blind(w, 7);
        uint64_t t = world_now(w) - t0;
        if (half == 0 && blind <= nodes / 2)
            half = t;
        if (most == 0 && blind <= nodes / 100)
            most = t;
        if (blind == 0)
            end = t;
    }
    world_run(w, t0 + 20000 - world_now(w));
    world_sums(w, &after);
    figure("entry_spread_half", (double)half, "ms");
    figure("entry_spread_99", (double)most, "ms");
    figure("entry_spread_all", (double)end, "ms");
    figure("entry_spread_bytes", (bytes_of(w) - bytes) / nodes, "bytes a node, in 20 s");
    figure("entry_spread_fetches", (double)(after.fetches - before.fetches), "");
    CHECK(end != 0);
}

static void death(struct world *w)
{
    uint64_t t0 = world_now(w), first = 0, most = 0;
    world_crash(w, nodes - 1);
    for (uint32_t wrong = nodes; wrong > nodes / 100 && world_now(w) < t0 + 120000;) {
        world_run(w, 100);
        wrong = world_disagree(w, nodes - 1);
        if (first == 0 && wrong < nodes - 1)
            first = world_now(w) - t0;
        if (wrong <= nodes / 100)
            most = world_now(w) - t0;
    }
    figure("death_known_to_first", (double)first, "ms");
    figure("death_known_to_99", (double)most, "ms");
}

/* A fifth of the nodes are cut off for 30 s, in which all entries change: until nothing is stale or missing anywhere.
 */
static void partition(struct world *w)
{
    for (uint32_t i = nodes - nodes / 5; i < nodes; i++)
        world_cut(w, i, true);
    for (uint32_t k = 0; k < KEYS; k++) {
        world_run(w, 300);
        world_assign(w, k, k % 3 == 0 ? UINT32_MAX : (k * 31) % (nodes / 2));
    }
    world_heal(w);
    uint64_t t0 = world_now(w), fresh = 0, exact = 0;
    double bytes = bytes_of(w);
    while (exact == 0 && world_now(w) < t0 + 30000) {
        world_run(w, 100);
        if (fresh == 0 && world_entries(w, false)[0] == 0)
            fresh = world_now(w) - t0;
        if (fresh != 0 && world_entries(w, true)[0] == 0)
            exact = world_now(w) - t0;
    }
    figure("partition_nothing_stale", (double)fresh, "ms");
    figure("partition_all_entries_right", (double)exact, "ms");
    figure("partition_heal_bytes", (bytes_of(w) - bytes) * 1000 / nodes / (double)(world_now(w) - t0),
           "bytes a node and second");
    CHECK(fresh != 0 && fresh <= 5000);
}

static void bench(bool with_partition)
{
    struct world_options o = { .nodes = nodes, .keys = KEYS, .seed = 42 };
    o.conf = (struct gossip_config){ .members_max = nodes,
                                     .entries_max = 256,
                                     .suspects_max = nodes < 1024 ? 256 : 4096,
                                     .queue_max = 1024,
                                     .key_max = 16,
                                     .value_max = 16 };
    struct world *w = world_new(&o);
    world_warm(w);
    for (uint32_t k = 0; k < KEYS; k++)
        world_assign(w, k, (k * 17) % nodes);
    world_run(w, 30000);
    double bytes = bytes_of(w);
    world_run(w, 20000);
    figure("idle", (bytes_of(w) - bytes) / nodes / 20, "bytes a node and second");
    spread(w);
    death(w);
    if (with_partition)
        partition(w);
    world_free(w);
}

int main(int argc, char **argv)
{
    static const uint32_t sizes[] = { 100, 1000, 10000 };
    for (int i = 1; i < argc; i++) {
        nodes = (uint32_t)strtoul(argv[i], NULL, 10);
        CHECK(nodes >= 10 && nodes <= 20000);
        bench(true);
    }
    for (size_t i = 0; argc == 1 && i < sizeof sizes / sizeof sizes[0]; i++) {
        nodes = sizes[i];
        bench(nodes <= 1000);
    }
    return 0;
}
