/* constraint.h - `node.labels.zone == east`: Docker's placement constraints (swarmkit.md §6.3). */
#pragma once

#include "common/object/views.h"

struct constraint {
    struct str key, value; /* borrowed from the text */
    bool equal;            /* ==, else != */
};

/* constraint_split - at == or, where there is none, at !=; the parts are not looked at. False without an operator. */
bool constraint_split(struct str text, struct constraint *ret);
bool constraint_key_ok(struct str key);
bool constraint_value_ok(struct str value);

/* constraint_parse - false when malformed. */
bool constraint_parse(struct str text, struct constraint *ret);

/* constraint_match - an unknown key is never satisfied; a missing label is the empty text. */
bool constraint_match(const struct constraint *c, const struct view_node *n);

/* constraint_value - the text of a node that this constraint is compared with, upper and lower case being the same;
 * false for node.ip and for unknown keys, which are not plain comparisons. */
bool constraint_value(const struct constraint *c, const struct view_node *n, struct str *ret_value);

/* constraint_label - the value under "node.labels.X" or "engine.labels.X"; false when the key is neither. */
bool constraint_label(struct str key, const struct view_node *n, struct str *ret_value);

/* platform_match - the node has one of these platforms (list of struct view_platform; empty: any will do). */
bool platform_match(const struct list *platforms, const struct view_node *n);
