/* tasks.h - listings of tasks, and names for the ids in them; shared by "service ps", "node ps" and "service logs". */
#pragma once

#include "swarmctl/cli.h"

/* Names already asked for. An id that doesn't resolve is its own name. */
struct resolver {
    struct cli *c;
    bool off;                 /* --no-resolve */
    json_t *services, *nodes; /* id -> name */
    unsigned misses;
};

void resolver_init(struct resolver *r, struct cli *c, bool off);
void resolver_done(struct resolver *r);
const char *resolve_service(struct resolver *r, const char *id); /* borrowed until resolver_done() */
const char *resolve_node(struct resolver *r, const char *id);

/* tasks_print - the flags format, quiet, no-trunc and no-resolve of the call apply. */
int tasks_print(struct cli *c, const struct call *call, json_t *tasks);

/* node_ref - "self" as this node's id, anything else as it is. 0, or 1 with the user told. */
int node_ref(struct cli *c, const char *ref, struct buf *ret);

extern const struct flag task_ps_flags[];
