/*
 * table.h - a hash table from text to values of one size. Keys are copied; values stay where they are until deleted.
 *
 * Controllers keep their mirrors of the store in these. Running out of memory is fatal (CHECK): a controller that
 * starts again reads everything anew.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/util/str.h"

struct table_entry;
struct table {
    struct table_entry **buckets;
    size_t nbuckets, count, value_size;
};

void table_init(struct table *t, size_t value_size); /* 0 makes a set */
void table_clear(struct table *t);
void table_done(struct table *t);

void *table_get(const struct table *t, struct str key);          /* borrowed; NULL when absent */
void *table_put(struct table *t, struct str key, bool *ret_new); /* the value, zeroed when new */
bool table_del(struct table *t, struct str key);                 /* false when absent */
struct str table_key(const struct table *t, const void *value);  /* of a value that is in the table */

/* Iteration in no particular, but repeatable order: `for (p = 0; table_next(t, &p, &key, &val); )`. The entry just
 * returned may be deleted; nothing may be added on the way. key and val may be NULL. */
struct table_pos {
    size_t bucket;
    struct table_entry *next;
};
bool table_next(const struct table *t, struct table_pos *pos, struct str *key, void *val);
