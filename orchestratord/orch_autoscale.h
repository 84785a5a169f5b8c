/*
 * orch_autoscale.h - how many replicas a service that scales itself shall have; pure, and without a memory: all follows
 * from the stored documents and the time.
 *
 * As Kubernetes' HorizontalPodAutoscaler: replicas times (measured / target), rounded up, the largest of all signals,
 * and nothing within a tolerance. Tasks that have not reported count as on target when it goes down and as idle when it
 * goes up, so that what is missing never causes a change. One change at most doubles or halves the replicas, and the
 * next one follows after the cooldown: a metric that lies or jumps does little harm.
 */
#pragma once

#include "common/object/autoscale.h"
#include "common/object/views.h"

#define SCALE_TOLERANCE 0.1
#define SCALE_FRESH_NS 150000000000ll /* usage older than that says nothing; it is written at least every 60 s */
#define SCALE_BLIND "no decision: "   /* how a reason begins for which nothing changes */
#define SCALE_STEP 4u                 /* one change may always add so many */

struct scale_in {
    struct autoscale conf;
    uint64_t replicas;                   /* now */
    int64_t cpu_limit_ns, memory_limit;  /* of a task: NanoCPUs, bytes; 0: none */
    const struct view_usage *usage;      /* NULL: not known */
    const struct view_autoscale *before; /* the last decision; NULL: none */
    int64_t now_ns;
};

struct scale_out {
    uint64_t replicas;
    char reason[200]; /* of the change; without one, why none can be made, or "" */
    bool measured;    /* there was something to decide by */
    int64_t next_ns;  /* look again then; INT64_MAX: when something changes */
};

void scale_decide(const struct scale_in *in, struct scale_out *out);
