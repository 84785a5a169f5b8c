/*
 * cron.h - when a schedule in cron's syntax is due: five fields (crontab(5)), or @hourly and its like. UTC.
 *
 * minute hour day-of-month month day-of-week; numbers, names (jan, mon), ranges, lists and steps; 0 and 7 are Sunday.
 * As in Vixie's cron, a day has to meet both day fields when one of them begins with a star, else one of them.
 * Prefix "CRON_TZ=UTC " is taken; other time zones are refused. So is what can never be due (30 February).
 */
#pragma once

#include "common/util/err.h"
#include "common/util/str.h"

#define CRON_TEXT_MAX 256u
#define CRON_NEVER INT64_MAX

struct cron {
    uint64_t minutes;          /* bit i: minute i */
    uint32_t hours, days;      /* days: bits 1 to 31 */
    uint16_t months;           /* bits 1 to 12 */
    uint8_t weekdays;          /* bits 0 to 6, from Sunday */
    bool any_day, any_weekday; /* the field began with a star */
};

/* cron_parse - 0, or -ERR_INVALID saying what is wrong with which field. */
int cron_parse(struct str text, struct cron *ret, struct err *e);

/* cron_next - the first due time after @after_ns (wall clock, ns); CRON_NEVER when there is none within 30 years. */
int64_t cron_next(const struct cron *c, int64_t after_ns);

/* cron_last - the last due time after @after_ns and not after @until_ns; CRON_NEVER when there is none. */
int64_t cron_last(const struct cron *c, int64_t after_ns, int64_t until_ns);
