#include "common/daemon/conf.h"

#include <ctype.h>
#include <pwd.h>
#include <string.h>
#include <sys/types.h>

#include "common/util/check.h"
#include "common/util/clock.h"
#include "common/util/str.h"

static int set_ms(const struct conf_item *it, const char *value, struct err *e)
{
    int64_t ns;
    if (!duration_parse(str_from(value), &ns) || (uint64_t)ns / 1000000u < it->min || (uint64_t)ns / 1000000u > it->max)
        return err_set(e, ERR_INVALID, "%s: \"%s\": must be a duration between %llums and %llums", it->name, value,
                       (unsigned long long)it->min, (unsigned long long)it->max);
    *(uint64_t *)it->target = (uint64_t)ns / 1000000u;
    return 0;
}

static int set_number(const struct conf_item *it, const char *value, struct err *e)
{
    struct str s = str_from(value);
    uint64_t v, unit = 1;
    if (it->type == CONF_T_BYTES && s.n > 0 && strchr("kmg", tolower((unsigned char)s.p[s.n - 1]))) {
        char c = (char)tolower((unsigned char)s.p[--s.n]);
        unit = c == 'k' ? 1u << 10 : c == 'm' ? 1u << 20 : 1u << 30;
    }
    if (!str_u64(s, &v) || __builtin_mul_overflow(v, unit, &v) || v < it->min || v > it->max)
        return err_set(e, ERR_INVALID, "%s: \"%s\": must be a number between %llu and %llu", it->name, value,
                       (unsigned long long)it->min, (unsigned long long)it->max);
    *(uint64_t *)it->target = v;
    return 0;
}

static int set_bool(const struct conf_item *it, const char *value, struct err *e)
{
    bool yes = strcmp(value, "yes") == 0 || strcmp(value, "true") == 0 || strcmp(value, "1") == 0;
    bool no = strcmp(value, "no") == 0 || strcmp(value, "false") == 0 || strcmp(value, "0") == 0;
    if (!yes && !no)
        return err_set(e, ERR_INVALID, "%s: \"%s\": must be yes or no", it->name, value);
    *(bool *)it->target = yes;
    return 0;
}

static int set_uid(const struct conf_item *it, const char *value, struct err *e)
{
    uint64_t v;
    uid_t *target = it->target;
    if (str_u64(str_from(value), &v)) {
        if (v > it->max)
            return err_set(e, ERR_INVALID, "%s: \"%s\": no user id", it->name, value);
        *target = (uid_t)v;
        return 0;
    }
    struct passwd *pw = getpwnam(value);
    *target = pw ? pw->pw_uid : (uid_t)-1;
    return 0;
}

static int set_text(const struct conf_item *it, const char *value, struct err *e)
{
    if (!str_copy(it->target, CONF_TEXT_MAX, str_from(value)))
        return err_set(e, ERR_INVALID, "%s: must have at most %d bytes", it->name, CONF_TEXT_MAX - 1);
    return 0;
}

static int set_item(const struct conf_item *it, const char *value, struct err *e)
{
    switch (it->type) {
    case CONF_T_MS:
        return set_ms(it, value, e);
    case CONF_T_COUNT:
    case CONF_T_BYTES:
        return set_number(it, value, e);
    case CONF_T_BOOL:
        return set_bool(it, value, e);
    case CONF_T_TEXT:
        return set_text(it, value, e);
    case CONF_T_UID:
        return set_uid(it, value, e);
    }
    return err_set(e, ERR_INTERNAL, "%s: no such type of setting", it->name);
}

void conf_defaults(const struct conf_item *items)
{
    struct err e = ERR_INIT;
    for (const struct conf_item *it = items; it && it->name; it++)
        CHECK(set_item(it, it->def, &e) == 0);
}

static const struct conf_item *find(const struct conf_item *items, const char *name)
{
    for (const struct conf_item *it = items; it && it->name; it++) {
        if (strcmp(it->name, name) == 0)
            return it;
    }
    return NULL;
}

int conf_set(const struct conf_item *items, const char *name, const char *value, struct err *e)
{
    const struct conf_item *it = find(items, name);
    return it ? set_item(it, value, e) : err_set(e, ERR_NOT_FOUND, "%s: no such setting", name);
}

static struct str trim(struct str s)
{
    while (s.n > 0 && isspace((unsigned char)s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && isspace((unsigned char)s.p[s.n - 1]))
        s.n--;
    return s;
}

static int parse_line(const struct conf_item *a, const struct conf_item *b, struct str line, struct err *e)
{
    char name[64], value[CONF_TEXT_MAX];
    line = trim(line);
    if (line.n == 0 || line.p[0] == '#')
        return 0;
    const char *eq = memchr(line.p, '=', line.n);
    if (!eq)
        return err_set(e, ERR_INVALID, "expected `name = value`");
    struct str k = trim((struct str){ line.p, (size_t)(eq - line.p) });
    struct str v = trim((struct str){ eq + 1, line.n - (size_t)(eq + 1 - line.p) });
    if (!str_copy(name, sizeof name, k) || memchr(k.p, 0, k.n))
        return err_set(e, ERR_INVALID, "name of a setting is too long");
    if (!str_copy(value, sizeof value, v) || memchr(v.p, 0, v.n))
        return err_set(e, ERR_INVALID, "%s: must have at most %d bytes", name, CONF_TEXT_MAX - 1);
    return conf_set(find(a, name) ? a : b, name, value, e);
}

int conf_parse(const struct conf_item *items, const struct conf_item *items2, const char *text, size_t len,
               struct err *e)
{
    int number = 1;
    for (const char *p = text, *end = text + len; p < end; number++) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        const char *stop = nl ? nl : end;
        if (parse_line(items, items2, (struct str){ p, (size_t)(stop - p) }, e) < 0)
            return err_wrap(e, "line %d", number);
        p = nl ? nl + 1 : end;
    }
    return 0;
}
