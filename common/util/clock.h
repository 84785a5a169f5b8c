/* clock.h - two kinds of time that the compiler keeps apart. Only shells read clocks; cores get time as an input. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/util/str.h"

struct mono_ms {
    uint64_t ms; /* CLOCK_MONOTONIC; comparable within one boot */
};

struct wall_ns {
    int64_t ns; /* since 1970-01-01T00:00:00Z; what documents store */
};

struct mono_ms clock_mono(void);
struct wall_ns clock_wall(void);

#define WALL_TEXT_MAX 40
/* wall_format - RFC 3339 with nanoseconds, UTC, trailing zeros cut, as Go's RFC3339Nano; 0 gives 0001-01-01T00:00:00Z
 */
void wall_format(struct wall_ns t, char text[WALL_TEXT_MAX]);
/* wall_parse - RFC 3339, any offset, up to 9 digits; false when malformed */
bool wall_parse(struct str text, struct wall_ns *ret);

/* duration_parse - "50ms", "5s", "1h30m", "10us", "2m"; nanoseconds. false when malformed, negative or over 292 years.
 */
bool duration_parse(struct str text, int64_t *ret_ns);
