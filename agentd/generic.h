/*
 * generic.h - generic resources (swarmkit.md 6.5): what a node declares, and what a task was given.
 */
#pragma once

#include "common/proto/fields.h"
#include "common/util/err.h"

struct generic {
    struct str kind, value; /* value: a name, or the decimal number of a discrete resource */
    bool named;
};
struct generic_list {
    struct generic *v;
    size_t n;
};

/*
 * generic_parse - "gpu=uuid1 gpu=uuid2 ssd=3", blank-separated: as dockerd's node-generic-resources, numbers are
 * amounts and everything else names. A kind is one or the other, and amounts are said once. Borrows from the text.
 */
int generic_parse(struct str text, struct generic_list *ret, struct arena *a, struct err *e);

/* generic_put - Docker's GenericResources, msgpack. */
void generic_put(const struct generic_list *l, struct buf *out);

/* generic_decode - the same back; what is neither is left out. 0 or -ERR_INVALID. */
int generic_decode(struct str raw, struct generic_list *ret, struct arena *a);

/* generic_env_text - "DOCKER_RESOURCE_GPU=uuid1,uuid2" for the kind of element @i; false when an earlier element is of
 * the same kind, and said it. */
bool generic_env_text(const struct generic_list *l, size_t i, struct buf *out);
