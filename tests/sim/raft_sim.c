/*
 * raft_sim - many groups of Raft cores, one after the other, each from a seed of its own: see raft_world.h.
 *
 *   raft_sim [--seed S] [--runs N | --seconds N] [--ms N] [--trace] [-v]
 *
 * Without a seed it draws one, and prints it first. Run i of a call has the seed S + i. A failure names its seed; with
 * --seed S --runs 1 --trace it is told step by step. Without --runs and --seconds: 2500 runs, at most 20 seconds.
 */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "common/util/id.h"
#include "tests/sim/raft_world.h"

#define RUNS 2500u
#define SECONDS_MAX 20u

static struct options opt;

static char abort_text[80];

static void on_abort(int sig)
{
    (void)sig;
    if (write(STDERR_FILENO, abort_text, strlen(abort_text)) < 0)
        _exit(1);
}

static void sum(struct result *all, const struct result *one)
{
    all->steps += one->steps;
    all->messages += one->messages;
    all->entries += one->entries;
    all->elections += one->elections;
    all->reads += one->reads;
    all->writes += one->writes;
    all->snapshots += one->snapshots;
    all->changes += one->changes;
    all->crashes += one->crashes;
    all->transfers += one->transfers;
}

static bool failed(const struct result *r)
{
    printf("not ok seed %" PRIu64 ": %s\n  again: tests/sim/raft --seed %" PRIu64 " --runs 1 --ms %" PRIu64
           " --trace\n",
           opt.seed, r->what, opt.seed, opt.sim_ms);
    return false;
}

static bool one_run(struct result *all, bool verbose)
{
    struct result r, again;
    snprintf(abort_text, sizeof abort_text, "aborted with --seed %" PRIu64 " --runs 1\n", opt.seed);
    bool ok = world_run(&opt, &r);
    if (verbose)
        printf("seed %" PRIu64 ": %" PRIu64 " steps, hash %016" PRIx64 "\n", opt.seed, r.steps, r.hash);
    sum(all, &r);
    if (!ok)
        return failed(&r);
    if (opt.seed % 500 != 0 || opt.trace)
        return true;
    (void)world_run(&opt, &again); /* what a seed replays must not depend on anything else */
    if (again.hash == r.hash)
        return true;
    printf("not ok seed %" PRIu64 ": a second run went another way\n", opt.seed);
    return false;
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "seed", 1, NULL, 's' },    { "runs", 1, NULL, 'r' },
                                             { "seconds", 1, NULL, 't' }, { "ms", 1, NULL, 'm' },
                                             { "trace", 0, NULL, 'T' },   { NULL, 0, NULL, 0 } };
    uint64_t runs = 0, seconds = 0, done = 0, t0 = clock_mono().ms;
    bool verbose = false;
    struct result all = { 0 };
    random_bytes(&opt.seed, 4);
    for (int c; (c = getopt_long(argc, argv, "v", options, NULL)) != -1;) {
        uint64_t n = optarg != NULL ? strtoull(optarg, NULL, 10) : 0;
        if (c == 's')
            opt.seed = n;
        else if (c == 'r')
            runs = n;
        else if (c == 't')
            seconds = n;
        else if (c == 'm')
            opt.sim_ms = n;
        else if (c == 'T')
            opt.trace = true;
        else if (c == 'v')
            verbose = true;
        else
            return 2;
    }
    if (runs == 0 && seconds == 0) {
        runs = RUNS;
        seconds = SECONDS_MAX;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGABRT, on_abort);
    printf("seed %" PRIu64 "\n", opt.seed);
    for (; (runs == 0 || done < runs) && (seconds == 0 || clock_mono().ms - t0 < seconds * 1000); done++, opt.seed++)
        if (!one_run(&all, verbose))
            return 1;
    printf("ok %" PRIu64 " runs in %.1f s: %" PRIu64 " steps, %" PRIu64 " messages, %" PRIu64 " entries, %" PRIu64
           " elections, %" PRIu64 " writes and %" PRIu64 " reads answered, %" PRIu64 " snapshots, %" PRIu64
           " member changes, %" PRIu64 " crashes, %" PRIu64 " transfers\n",
           done, (double)(clock_mono().ms - t0) / 1000.0, all.steps, all.messages, all.entries, all.elections,
           all.writes, all.reads, all.snapshots, all.changes, all.crashes, all.transfers);
    return 0;
}
