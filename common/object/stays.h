/*
 * stays.h - whether a task of an older taskspec may stay as it is although its service has a newer one: nothing but the
 * placement or the registry's credentials differs, and the task satisfies what is asked now (swarmkit.md §3.1).
 */
#pragma once

#include "common/object/views.h"

struct spec_change {
    bool tasks;      /* what a container is made of, or the endpoint: tasks must be replaced */
    bool placement;  /* where it may be */
    bool credential; /* how its image is fetched */
};

/* spec_change - between two taskspec documents. Specs are compared as they are stored, byte by byte. */
struct spec_change spec_change(struct str from, struct str to);

/* task_stays - @now: the service's placement; @node: where the task is, NULL: nowhere. */
bool task_stays(const struct spec_change *c, enum task_state state, enum task_state desired,
                const struct view_placement *now, const struct view_node *node);
