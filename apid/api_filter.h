/*
 * api_filter.h - the `filters` parameter: {"key":{"value":true}} (Go) or {"key":["value"]} (docker-py, JavaScript).
 * Pure.
 *
 * Several values of one key are alternatives, except for labels, which must all match. Different keys must all match
 * (docker-api.md §2.3).
 */
#pragma once

#include "common/proto/fields.h"
#include "common/util/arena.h"
#include "common/util/err.h"

#define FILTER_KEYS_MAX 32
#define FILTER_VALUES_MAX 4096

struct filter {
    struct str key;
    struct str *vals;
    size_t n;
};
struct filters {
    struct filter v[FILTER_KEYS_MAX];
    size_t n;
};

/* filters_parse - @json may be empty (no filters). -ERR_INVALID "invalid filter". Text is copied into the arena. */
int filters_parse(struct filters *f, struct str json, struct arena *a, struct err *e);

/* filters_known - refuses keys that are not in the NULL-ended list: "invalid filter 'k'". */
int filters_known(const struct filters *f, const char *const *known, struct err *e);

const struct filter *filters_get(const struct filters *f, const char *key); /* NULL when absent or without values */

/* These are true when the key is absent. */
bool filters_exact(const struct filters *f, const char *key, struct str value);
bool filters_prefix(const struct filters *f, const char *key, struct str value);
bool filters_substr(const struct filters *f, const char *key, struct str value);

/* filters_labels - every value "k" or "k=v" must hold in the msgpack map `labels` (may be empty). */
bool filters_labels(const struct filters *f, const char *key, struct str labels);
/* filters_label_map - the same against decoded labels. */
bool filters_label_map(const struct filters *f, const char *key, const struct strmap *labels);
