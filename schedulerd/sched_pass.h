/* sched_pass.h - keeps the core's mirror up to date with the store, and writes its decisions. */
#pragma once

#include "common/store/controller.h"
#include "schedulerd/sched_core.h"

struct sched_keeper {
    struct sched core;
    struct marks written; /* tasks in the transaction in flight; after a failure, those to read again */
    struct table nodes;   /* during a pass: those that the transaction requires to exist */
    size_t batch;         /* decisions in one transaction */
    struct arena scratch;
    struct buf doc;
    int64_t now_ns;     /* of the last pass */
    bool read_failures; /* the next pass has to look for them first */
    uint64_t placed, refused, evicted;
};

void sched_keeper_init(struct sched_keeper *k);
void sched_keeper_done(struct sched_keeper *k);
extern const struct controller_ops sched_ops; /* arg: struct sched_keeper */
