/*
 * raft_world.h - a whole group of Raft cores in one process: their clocks, network and disks are simulated, their
 * clients and operators, too. All of it follows from the seed.
 *
 * Faults: messages lost, delayed, doubled and out of order; nodes cut off, also in one direction only; processes killed
 * and machines switched off with unsynced writes lost or half done; disks that refuse; clocks that run too fast or too
 * slow; machines that stand still for a while; wrong hints about broken links; snapshots interrupted; members added,
 * promoted and removed, leaders included.
 *
 * Checked at each step (raft_checks.c), with the properties of Raft, Figure 3: election safety, log matching, leader
 * completeness, state machine safety; that each log's last configuration is the one in force; and that what clients saw
 * of their writes and reads is linearizable. At the end faults stop, and the group must elect, commit and agree.
 */
#pragma once

#include "raftd/core/raft.h"

#define SLOTS 7u /* places for nodes */
#define IDS 64u  /* raft ids of one run; a removed node's is never used again */
#define OPS 48u  /* clients */
#define INDEX_MAX 6000u
#define POOL 768u /* configurations of one run */

struct options {
    uint64_t seed;
    uint64_t sim_ms; /* simulated, before faults stop; 0: drawn from the seed */
    bool trace;
};

struct result {
    bool failed;
    char what[400];
    uint64_t steps, messages, entries, elections, reads, writes, snapshots, changes, crashes, transfers;
    uint64_t hash; /* of all that happened: the same seed gives the same */
};

/* world_run - one seed. Returns !ret->failed. */
bool world_run(const struct options *o, struct result *ret);

/* world_core_failed - a CHECK of the core did not hold, in a build where that comes here. Does not return. */
void world_core_failed(const char *what) __attribute__((noreturn));

/* ---- for raft_checks.c ---- */

struct entry {
    uint64_t term, value; /* value: of the client's write, used once; 0: none */
    uint16_t members;     /* index into the pool; 0: none */
    uint8_t type;
};

/* An observer that sees everything and forgets nothing. */
struct checks {
    struct entry committed[INDEX_MAX + 1];
    uint64_t n_committed;
    uint64_t committed_term[INDEX_MAX + 1]; /* in whose term it was first seen to be committed */
    raft_id leaders[4096];                  /* by term */
    struct seen {                           /* entries ever in a log, by index: a short list */
        struct seen *next;
        struct entry e;
        uint64_t before; /* the term of the entry before it */
    } * seen[INDEX_MAX + 1];
    uint8_t *used;  /* values that were committed */
    uint64_t floor; /* the latest index that some finished read or write has shown to a client */
    char *what;     /* the first violation; empty: none */
    size_t what_size;
};

void checks_init(struct checks *c, char *what, size_t size);
void checks_done(struct checks *c);
void checks_fail(struct checks *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* checks_leader - a node leads a term, with this log: log[i] for first..last. */
void checks_leader(struct checks *c, raft_id id, uint64_t term, const struct entry *log, uint64_t first, uint64_t last);
/* checks_logged - an entry came into a log behind one of term `before`; UINT64_MAX: not known */
void checks_logged(struct checks *c, uint64_t index, const struct entry *e, uint64_t before);
/* checks_committed - a node in `term` believes so. */
void checks_committed(struct checks *c, raft_id by, uint64_t index, const struct entry *e, uint64_t term);

/* checks_began - what a read or write that begins now must at least see. */
uint64_t checks_began(const struct checks *c);
void checks_wrote(struct checks *c, uint64_t floor, uint64_t value, uint64_t index);
void checks_read(struct checks *c, uint64_t floor, uint64_t index);
