/* alloc_pass.h - which services and tasks wait for something to be allocated, and the transaction that gives it. */
#pragma once

#include "allocatord/alloc_core.h"
#include "common/store/controller.h"

struct alloc {
    struct marks services, tasks;
    struct table stuck; /* service ID -> nothing: waits for a port that another service holds */
    struct arena scratch;
    struct buf doc;
    unsigned cursor[ALLOC_PROTO_COUNT];
    uint64_t allocated, refused; /* tasks; for metrics */

    /* during one pass */
    struct table answers; /* service ID -> struct alloc_answer */
    struct table claimed; /* reservation ID -> nothing: created by this transaction */
};

void alloc_init(struct alloc *al);
void alloc_done(struct alloc *al);
extern const struct controller_ops alloc_ops; /* arg: struct alloc */
