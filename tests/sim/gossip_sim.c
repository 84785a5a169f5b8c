/*
 * gossip_sim.c - many small swarms of gossip cores, one after the other, each from a seed of its own.
 *
 *   gossip_sim [--seed S] [--runs N | --seconds N] [-v]
 *
 * Without a seed it draws one, and prints it first. Run i of a call has the seed S + i. Without --runs and --seconds:
 * 200 runs, at most 3 seconds. Each run: all join; a storm of loss, crashes, restarts, removals, key rotation and
 * changes; a partition with changes; then 5 s after it heals no node has a stale entry or lacks one, and when the
 * suspicions have run out everybody agrees on who is alive. Every fourth run is about loss alone: nobody may be held
 * for dead.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/util/check.h"
#include "common/util/clock.h"
#include "common/util/id.h"
#include "tests/sim/gossip_world.h"

#define KEYS 24u

static struct {
    uint64_t events, packets, refused, replayed, corrected, fetches, lossy_hours_x100, false_deaths;
} all;

static const char *failed; /* of this run */

static void expect(const char *when, const char *wrong, const struct world *w)
{
    static char text[240];
    if (wrong[0] == 0 || failed != NULL)
        return;
    snprintf(text, sizeof text, "%s, at %" PRIu64 " ms: %s", when, world_now(w), wrong);
    failed = text;
}

static void one_change(struct world *w, uint32_t nodes)
{
    uint32_t i = (uint32_t)world_rnd(w, nodes), key = (uint32_t)world_rnd(w, KEYS);
    switch (world_rnd(w, 10)) {
    case 0:
        if (i >= 3)
            world_crash(w, i);
        break;
    case 1:
    case 2:
        if (world_listed(w, i))
            world_start(w, i);
        break;
    case 3:
        if (i >= 3 && world_rnd(w, 4) == 0) {
            world_list(w, i, false);
        }
        break;
    case 4:
        world_rotate(w);
        break;
    case 5:
        world_assign(w, key, UINT32_MAX);
        break;
    default:
        if (world_listed(w, i))
            world_assign(w, key, i);
    }
}

static void storm(struct world *w, uint32_t nodes, uint64_t ms)
{
    for (uint64_t until = world_now(w) + ms; world_now(w) < until;) {
        world_run(w, 50 + world_rnd(w, 1500));
        one_change(w, nodes);
    }
}

static void settle_keys(struct world *w)
{
    for (int i = 0; i < 3; i++) {
        world_run(w, 1500);
        world_rotate(w);
    }
}

static void run_storm(struct world *w, uint32_t nodes)
{
    struct world_net rough = { .loss = (uint32_t)world_rnd(w, 200),
                               .twice = (uint32_t)world_rnd(w, 100),
                               .altered = (uint32_t)world_rnd(w, 20),
                               .repeated = (uint32_t)world_rnd(w, 50),
                               .delay_min = 1,
                               .delay_max = 1 + world_rnd(w, 150) };
    struct world_net fair = { .loss = (uint32_t)world_rnd(w, 20), .repeated = 20, .delay_min = 1, .delay_max = 20 };
    world_run(w, 8000);
    expect("after joining", world_members(w), w);
    world_net(w, &rough);
    storm(w, nodes, 20000);
    settle_keys(w);
    uint32_t away = 0;
    for (uint32_t i = 3; i < nodes; i++)
        if (world_rnd(w, 2) == 0) {
            world_cut(w, i, true);
            away++;
        }
    storm(w, nodes, 5000 + world_rnd(w, 30000));
    world_net(w, &fair);
    world_heal(w);
    world_run(w, 5000);
    expect("5 s after healing", world_entries(w, false), w);
    world_run(w, 55000);
    expect("60 s after healing", world_members(w), w);
    expect("60 s after healing", world_entries(w, true), w);
}

static void run_loss(struct world *w, uint32_t nodes)
{
    struct world_sums before, after;
    struct world_net lossy = { .loss = 50, .twice = 10, .delay_min = 1, .delay_max = 100 };
    world_run(w, 8000);
    world_sums(w, &before);
    world_net(w, &lossy);
    world_run(w, 120000);
    world_sums(w, &after);
    all.false_deaths += after.died - before.died;
    all.lossy_hours_x100 += nodes * 120 * 100 / 3600;
    if (after.died != before.died)
        expect("under 5 % loss", "a node that was alive was held for dead", w);
}

static void tally(const struct world *w, uint32_t nodes)
{
    struct world_sums s;
    world_sums(w, &s);
    all.events += world_events(w);
    all.packets += s.packets;
    all.refused += s.refused;
    all.replayed += s.replayed;
    all.corrected += s.corrected;
    all.fetches += s.fetches;
    if (s.bytes / nodes > 8000 * (world_now(w) / 1000)) /* in a storm; idle is under 200 */
        expect("traffic", "more than 8000 bytes a node and second", w);
}

static uint64_t one_run(uint64_t seed, bool verbose)
{
    uint64_t z = seed * 0x9e3779b97f4a7c15u;
    struct world_options o = { .nodes = 4 + (uint32_t)(z >> 40) % 17,
                               .keys = KEYS,
                               .seed = seed,
                               .sealed = true,
                               .skewed = seed % 2 == 0,
                               .checked = true };
    o.conf = (struct gossip_config){
        .members_max = 64, .entries_max = 64, .suspects_max = 32, .queue_max = 128, .key_max = 16, .value_max = 16
    };
    struct world *w = world_new(&o);
    if (seed % 4 == 3)
        run_loss(w, o.nodes);
    else
        run_storm(w, o.nodes);
    tally(w, o.nodes);
    uint64_t hash = world_hash(w);
    if (verbose)
        printf("seed %" PRIu64 ": %u nodes, %" PRIu64 " events, hash %016" PRIx64 "\n", seed, o.nodes, world_events(w),
               hash);
    world_free(w);
    return hash;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "seed", 1, NULL, 's' }, { "runs", 1, NULL, 'r' }, { "seconds", 1, NULL, 't' }, { NULL, 0, NULL, 0 }
    };
    uint64_t seed = 0, runs = 0, seconds = 0, done = 0, t0 = clock_mono().ms;
    bool verbose = false;
    random_bytes(&seed, 4);
    for (int c; (c = getopt_long(argc, argv, "v", options, NULL)) != -1;) {
        uint64_t n = optarg != NULL ? strtoull(optarg, NULL, 10) : 0;
        if (c == 's')
            seed = n;
        else if (c == 'r')
            runs = n;
        else if (c == 't')
            seconds = n;
        else if (c == 'v')
            verbose = true;
        else
            return 2;
    }
    if (runs == 0 && seconds == 0) {
        runs = 200;
        seconds = 3;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("seed %" PRIu64 "\n", seed);
    for (; (runs == 0 || done < runs) && (seconds == 0 || clock_mono().ms - t0 < seconds * 1000); done++, seed++) {
        uint64_t hash = one_run(seed, verbose);
        if (failed == NULL && done == 0 && one_run(seed, false) != hash)
            failed = "a second run went another way";
        if (failed != NULL) {
            printf("not ok seed %" PRIu64 ": %s\n  again: tests/sim/gossip --seed %" PRIu64 " --runs 1\n", seed, failed,
                   seed);
            return 1;
        }
    }
    printf("ok %" PRIu64 " runs in %.1f s: %" PRIu64 " events, %" PRIu64 " packets, %" PRIu64 " refused, %" PRIu64
           " replayed, %" PRIu64 " corrections, %" PRIu64 " fetches, %" PRIu64
           " false deaths in %.2f lossy node hours\n",
           done, (double)(clock_mono().ms - t0) / 1000.0, all.events, all.packets, all.refused, all.replayed,
           all.corrected, all.fetches, all.false_deaths, (double)all.lossy_hours_x100 / 100.0);
    return 0;
}
