/* sched_constraint.h - `node.labels.zone == east`: Docker's placement constraints (swarmkit.md §6.3). */
#pragma once

#include "common/object/views.h"

struct sched_constraint {
    struct str key, value; /* borrowed from the text */
    bool equal;            /* ==, else != */
};

/* sched_constraint_parse - false when malformed. */
bool sched_constraint_parse(struct str text, struct sched_constraint *ret);

/* sched_constraint_match - an unknown key is never satisfied; a missing label is the empty text. */
bool sched_constraint_match(const struct sched_constraint *c, const struct view_node *n);

/* sched_label - the value under "node.labels.X" or "engine.labels.X"; false when the key is neither. */
bool sched_label(struct str key, const struct view_node *n, struct str *ret_value);
