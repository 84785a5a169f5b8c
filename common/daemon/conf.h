/* conf.h - settings: `name = value` lines, `#` comments; a default and a range each; unknown names are errors. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/util/err.h"

enum conf_type { CONF_T_MS, CONF_T_COUNT, CONF_T_BYTES, CONF_T_BOOL, CONF_T_TEXT, CONF_T_UID };

struct conf_item {
    const char *name;
    enum conf_type type;
    void *target;    /* uint64_t, bool, char[CONF_TEXT_MAX] or uid_t, by type */
    const char *def; /* in the same form as a user would write it */
    uint64_t min, max;
    const char *help; /* one line for the manual */
};
#define CONF_TEXT_MAX 256

#define CONF_MS(n, t, d, lo, hi, h)                                                                                    \
    {                                                                                                                  \
        n, CONF_T_MS, t, d, lo, hi, h                                                                                  \
    } /* "50ms", "5s", "1m" */
#define CONF_COUNT(n, t, d, lo, hi, h)                                                                                 \
    {                                                                                                                  \
        n, CONF_T_COUNT, t, d, lo, hi, h                                                                               \
    }
#define CONF_BYTES(n, t, d, lo, hi, h)                                                                                 \
    {                                                                                                                  \
        n, CONF_T_BYTES, t, d, lo, hi, h                                                                               \
    } /* "64k", "10m", "1g" */
#define CONF_BOOL(n, t, d, h)                                                                                          \
    {                                                                                                                  \
        n, CONF_T_BOOL, t, d, 0, 1, h                                                                                  \
    }
#define CONF_TEXT(n, t, d, h)                                                                                          \
    {                                                                                                                  \
        n, CONF_T_TEXT, t, d, 0, CONF_TEXT_MAX - 1, h                                                                  \
    }
#define CONF_UID(n, t, d, h)                                                                                           \
    {                                                                                                                  \
        n, CONF_T_UID, t, d, 0, UINT32_MAX, h                                                                          \
    } /* user name or number; no such user: -1 */
#define CONF_END                                                                                                       \
    {                                                                                                                  \
        .name = 0                                                                                                      \
    }

/* conf_defaults - sets every target to its default; a bad default is our bug (CHECK). */
void conf_defaults(const struct conf_item *items);

/* conf_set - one setting; errors name it and what is allowed. */
int conf_set(const struct conf_item *items, const char *name, const char *value, struct err *e);

/* conf_parse - the text of a settings file; errors carry the line number. `items2` may be NULL. */
int conf_parse(const struct conf_item *items, const struct conf_item *items2, const char *text, size_t len,
               struct err *e);
