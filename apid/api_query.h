/*
 * api_query.h - query strings and the ways Docker's API spells booleans, versions and times in them. Pure.
 *
 * Two kinds of boolean (docker-api.md §1.4): strict ones are Go's ParseBool and refuse anything else; loose ones are
 * false for "", "0", "no", "false", "none" and true for everything else.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/util/arena.h"
#include "common/util/err.h"
#include "common/util/str.h"

#define QUERY_PAIRS_MAX 64

struct query_pair {
    struct str key, val; /* decoded; NUL-terminated behind their length, in the arena */
};
struct query {
    struct query_pair v[QUERY_PAIRS_MAX];
    size_t n;
};

/* percent_decode - into the arena; @plus: '+' means space. -ERR_INVALID for a bad escape or a NUL byte. */
int percent_decode(struct str in, bool plus, struct arena *a, struct str *ret, struct err *e);

/* query_parse - the text behind '?'. -ERR_INVALID: bad escape or more than QUERY_PAIRS_MAX pairs; -ERR_NOMEM. */
int query_parse(struct query *q, struct str raw, struct arena *a, struct err *e);

/* query_get - the first value of `key`; {NULL, 0} when it is not there. */
struct str query_get(const struct query *q, const char *key);

bool query_loose(const struct query *q, const char *key);

/* query_strict - absent or empty is false. Error text: "invalid value for K: V: strconv.ParseBool: ...". */
int query_strict(const struct query *q, const char *key, bool *ret, struct err *e);

/* query_rotate - the booleans of POST /swarm/update, whose error is shorter: "invalid value for K: V". */
int query_rotate(const struct query *q, const char *key, bool *ret, struct err *e);

/* query_version - ?version= of an update: "invalid <kind> version 'V': strconv.ParseUint: parsing ...". */
int query_version(const struct query *q, const char *kind, uint64_t *ret, struct err *e);

/* query_time - unix seconds with optional fraction, or RFC 3339; wall ns. Absent or empty: 0 and false in *ret_set. */
int query_time(const struct query *q, const char *key, int64_t *ret_ns, bool *ret_set, struct err *e);

/* query_tail - "all", absent: -1; else a number of lines. */
int query_tail(const struct query *q, int64_t *ret, struct err *e);
