/*
 * human.h - numbers, durations, times and names as people read them, spelled as the docker client spells them.
 *
 * Pure: no clock, no locale. Durations are nanoseconds.
 */
#pragma once

#include "common/template/gotext.h"
#include "common/util/err.h"
#include "common/util/str.h"

/* human_duration - "Less than a second", "3 seconds", "About a minute", "5 weeks" */
void human_duration(struct buf *b, int64_t ns);

/* human_bytes - binary units, four digits: "23.54GiB"; human_size - decimal units: "3.968MB" */
void human_bytes(struct buf *b, double size);
void human_size(struct buf *b, double size, int digits);

/* go_duration_parse - the inverse: an optional sign, then numbers with units ns us ms s m h. */
int go_duration_parse(const char *text, int64_t *ret_ns, struct err *e);

/* capitalize - first letter upper, the rest lower. */
void capitalize(struct buf *b, struct str s);

/* ellipsis - at most `width` columns, the last one "…" when cut. */
void ellipsis(struct buf *b, struct str s, size_t width);

/* natural_cmp - "web2" before "web10" */
int natural_cmp(const char *a, const char *b);

/* edit_distance - Levenshtein, for suggestions; at most 64 characters are looked at. */
unsigned edit_distance(const char *a, const char *b);
