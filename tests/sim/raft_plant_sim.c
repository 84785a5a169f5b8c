/*
 * raft_plant_sim - does the simulation find bugs? Known ones are planted into a second build of the core, one at a time
 * (raftd/core/raft_plant.h), and each must be found within SEEDS_MAX seeds; the same build without any must be clean.
 *
 *   raft_plant_sim [BUG [SEED]]     one bug: how often, and what is seen
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/core/raft_plant.h"
#include "tests/sim/raft_world.h"

#define SEEDS_MAX 12000u
#define CLEAN_SEEDS 200u

enum raft_plant raft_plant;

void raft_plant_check_failed(const char *cond, const char *file, int line) __attribute__((noreturn));
void raft_plant_check_failed(const char *cond, const char *file, int line)
{
    (void)file, (void)line;
    world_core_failed(cond);
}

#define RAFT_PLANT_NAME(name, text) text,
static const char *const names[PLANT_COUNT] = { "none", RAFT_PLANTS(RAFT_PLANT_NAME) };

static bool find(uint64_t first_seed, unsigned seeds, uint64_t *ret_seed, struct result *r)
{
    for (unsigned i = 0; i < seeds; i++) {
        struct options o = { .seed = first_seed + i };
        *ret_seed = o.seed;
        if (!world_run(&o, r))
            return true;
    }
    return false;
}

static bool one(enum raft_plant bug, uint64_t first_seed, unsigned seeds)
{
    struct result r;
    uint64_t seed = 0;
    raft_plant = bug;
    bool found = find(first_seed, seeds, &seed, &r), good = found == (bug != PLANT_NONE);
    printf("%s %s: ", good ? "ok" : "not ok", names[bug]);
    if (found)
        printf("after %" PRIu64 " seeds (seed %" PRIu64 "): %s\n", seed - first_seed + 1, seed, r.what);
    else
        printf("nothing in %u seeds\n", seeds);
    return good;
}

/* How sure a find is: in how many of some hundred seeds it shows. */
static int statistics(const char *name, uint64_t seed)
{
    unsigned found = 0;
    for (int b = 0; b < PLANT_COUNT; b++) {
        if (strcmp(names[b], name) != 0)
            continue;
        raft_plant = (enum raft_plant)b;
        for (unsigned i = 0; i < 500; i++) {
            struct options o = { .seed = seed + i };
            struct result r;
            if (!world_run(&o, &r) && found++ < 20)
                printf("seed %" PRIu64 ": %s\n", o.seed, r.what);
        }
        printf("%s: in %u of 500 seeds\n", name, found);
        return 0;
    }
    fprintf(stderr, "no such bug: %s\n", name);
    return 2;
}

int main(int argc, char **argv)
{
    bool good = true;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 1)
        return statistics(argv[1], argc > 2 ? strtoull(argv[2], NULL, 10) : 1);
    good &= one(PLANT_NONE, 1, CLEAN_SEEDS);
    for (int bug = PLANT_NONE + 1; bug < PLANT_COUNT; bug++)
        good &= one((enum raft_plant)bug, 1, SEEDS_MAX);
    return good ? 0 : 1;
}
