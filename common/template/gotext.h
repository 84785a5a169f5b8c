/*
 * gotext.h - how Go prints durations, times and quoted text, and the little that templates need of JSON values.
 *
 * Pure: no clock, no locale. Durations are nanoseconds.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/util/str.h"

/* go_duration - "1h30m0s", "1.5s", "250ms", "0s" */
void go_duration(struct buf *b, int64_t ns);

/* go_time - an RFC 3339 text as "2026-11-20 15:45:37.185869818 +0000 UTC"; other text is copied. */
void go_time(struct buf *b, struct str rfc3339);

/* go_quote - "text" in double quotes with escapes. */
void go_quote(struct buf *b, struct str s);

/* text_columns - columns on a terminal: code points, of which combining marks count like any other. */
size_t text_columns(struct str s);

/* text_char_len - bytes of the code point at @at. */
size_t text_char_len(struct str s, size_t at);

/* for_each - the elements of an array, which may be NULL; i is a size_t. */
#define for_each(list, i, item) for ((i) = 0; (i) < json_array_size(list) && ((item) = json_array_get(list, i)); (i)++)

/* jkeys_sorted - `n` borrowed member names in byte order; given, with free(). */
const char **jkeys_sorted(json_t *obj, size_t *ret_n);

/* jempty - null, "", 0, false, [] or {} */
bool jempty(const json_t *v);
