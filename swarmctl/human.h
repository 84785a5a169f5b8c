/*
 * human.h - numbers, durations, times and names as people read them, spelled as the docker client spells them.
 *
 * Pure: no clock, no locale. Durations are nanoseconds.
 */
#pragma once

#include "common/util/err.h"
#include "common/util/str.h"

/* human_duration - "Less than a second", "3 seconds", "About a minute", "5 weeks" */
void human_duration(struct buf *b, int64_t ns);

/* human_bytes - binary units, four digits: "23.54GiB"; human_size - decimal units: "3.968MB" */
void human_bytes(struct buf *b, double size);
void human_size(struct buf *b, double size, int digits);

/* go_duration - "1h30m0s", "1.5s", "250ms", "0s" */
void go_duration(struct buf *b, int64_t ns);

/* go_duration_parse - the inverse: an optional sign, then numbers with units ns us ms s m h. */
int go_duration_parse(const char *text, int64_t *ret_ns, struct err *e);

/* go_time - an RFC 3339 text as "2026-11-20 15:45:37.185869818 +0000 UTC"; other text is copied. */
void go_time(struct buf *b, struct str rfc3339);

/* go_quote - "text" in double quotes with escapes. */
void go_quote(struct buf *b, struct str s);

/* capitalize - first letter upper, the rest lower. */
void capitalize(struct buf *b, struct str s);

/* ellipsis - at most `width` columns, the last one "…" when cut. */
void ellipsis(struct buf *b, struct str s, size_t width);

/* natural_cmp - "web2" before "web10" */
int natural_cmp(const char *a, const char *b);

/* text_columns - columns on a terminal: code points, of which combining marks count like any other. */
size_t text_columns(struct str s);

/* edit_distance - Levenshtein, for suggestions; at most 64 characters are looked at. */
unsigned edit_distance(const char *a, const char *b);
