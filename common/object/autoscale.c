/* autoscale.c - see autoscale.h. */
#include "common/object/autoscale.h"

#include <math.h>
#include <stdlib.h>

#include "common/util/clock.h"

#define COOLDOWN_NS 30000000000ll
#define COOLDOWN_MAX_NS 86400000000000ll
#define PATH_MAX_BYTES 512u
#define NAME_MAX_BYTES 256u

static bool in_range(struct str text, uint64_t least, uint64_t most, uint64_t *ret)
{
    return str_u64(text, ret) && *ret >= least && *ret <= most;
}

static int read_min(struct autoscale *a, struct str text, struct err *e)
{
    return in_range(text, 1, AUTOSCALE_MAX, &a->min)
               ? 0
               : err_set(e, ERR_INVALID, "must be 1 to %u replicas", AUTOSCALE_MAX);
}

static int read_max(struct autoscale *a, struct str text, struct err *e)
{
    return in_range(text, 1, AUTOSCALE_MAX, &a->max)
               ? 0
               : err_set(e, ERR_INVALID, "must be 1 to %u replicas", AUTOSCALE_MAX);
}

static int read_percent(uint64_t *ret, struct str text, uint64_t most, struct err *e)
{
    if (text.n > 1 && text.p[text.n - 1] == '%')
        text.n--;
    return in_range(text, 1, most, ret)
               ? 0
               : err_set(e, ERR_INVALID, "must be a percentage from 1 to %llu", (unsigned long long)most);
}

static int read_cpu(struct autoscale *a, struct str text, struct err *e)
{
    return read_percent(&a->cpu, text, 10000, e);
}

static int read_memory(struct autoscale *a, struct str text, struct err *e)
{
    return read_percent(&a->memory, text, 100, e);
}

static bool name_ok(struct str name)
{
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':';
        if (!letter && (i == 0 || c < '0' || c > '9'))
            return false;
    }
    return name.n > 0 && name.n <= NAME_MAX_BYTES;
}

static bool path_ok(struct str path)
{
    for (size_t i = 0; i < path.n; i++)
        if (path.p[i] <= ' ' || path.p[i] >= 0x7f)
            return false;
    return path.n > 0 && path.p[0] == '/' && path.n <= PATH_MAX_BYTES;
}

static int read_metric(struct autoscale *a, struct str text, struct err *e)
{
    static const char form[] = "http://:";
    size_t digits = 0, blank;
    struct str rest = { text.p + sizeof form - 1, text.n - (sizeof form - 1) };
    if (!str_starts(text, STR("http://:")))
        goto bad;
    while (digits < rest.n && rest.p[digits] >= '0' && rest.p[digits] <= '9')
        digits++;
    if (!in_range((struct str){ rest.p, digits }, 1, 65535, &a->port))
        goto bad;
    rest = (struct str){ rest.p + digits, rest.n - digits };
    for (blank = 0; blank < rest.n && rest.p[blank] != ' ';)
        blank++;
    a->path = (struct str){ rest.p, blank };
    while (blank < rest.n && rest.p[blank] == ' ')
        blank++;
    a->name = (struct str){ rest.p + blank, rest.n - blank };
    if (!path_ok(a->path) || !name_ok(a->name))
        goto bad;
    a->has_metric = true;
    return 0;
bad:
    return err_set(e, ERR_INVALID,
                   "must be http://:PORT/PATH and a metric's name, such as \"http://:9100/metrics queue_length\"");
}

static int read_target(struct autoscale *a, struct str text, struct err *e)
{
    char number[64], *end;
    if (str_copy(number, sizeof number, text) && number[0] != ' ') {
        a->target = strtod(number, &end);
        if (end > number && *end == '\0' && isfinite(a->target) && a->target > 1e-12 && a->target < 1e15)
            return 0;
    }
    return err_set(e, ERR_INVALID, "must be a number greater than 0");
}

static int read_cooldown(struct autoscale *a, struct str text, struct err *e)
{
    if (duration_parse(text, &a->cooldown_ns) && a->cooldown_ns <= COOLDOWN_MAX_NS)
        return 0;
    return err_set(e, ERR_INVALID, "must be a duration of at most 24h, such as 30s");
}

#define LABEL(what) AUTOSCALE_PREFIX what
static const struct {
    const char *name;
    int (*read)(struct autoscale *a, struct str text, struct err *e);
} labels_known[] = {
    { LABEL("min"), read_min },           { LABEL("max"), read_max },       { LABEL("cpu"), read_cpu },
    { LABEL("memory"), read_memory },     { LABEL("metric"), read_metric }, { LABEL("target"), read_target },
    { LABEL("cooldown"), read_cooldown },
};

static int read_one(struct autoscale *a, const struct strpair *l, const char **ret_label, struct err *e)
{
    for (size_t i = 0; i < sizeof labels_known / sizeof *labels_known; i++)
        if (str_is(l->key, labels_known[i].name)) {
            *ret_label = labels_known[i].name;
            return labels_known[i].read(a, l->val, e);
        }
    *ret_label = AUTOSCALE_PREFIX "*";
    return err_set(e, ERR_INVALID, "must be min, max, cpu, memory, metric, target or cooldown, not " STR_FMT,
                   (int)(l->key.n > 100 ? 100 : l->key.n), l->key.p);
}

/* What does not go together. */
static int check(const struct autoscale *a, const char **ret_label, struct err *e)
{
    *ret_label = LABEL("max");
    if (a->max == 0)
        return err_set(e, ERR_INVALID, "must be there: how many replicas at most");
    if (a->min > a->max)
        return err_set(e, ERR_INVALID, "must not be less than %smin", AUTOSCALE_PREFIX);
    *ret_label = LABEL("cpu");
    if (!a->cpu && !a->memory && !a->has_metric)
        return err_set(e, ERR_INVALID, "must be there, or %smemory or %smetric: what to scale by", AUTOSCALE_PREFIX,
                       AUTOSCALE_PREFIX);
    *ret_label = LABEL("target");
    if (a->has_metric && a->target == 0)
        return err_set(e, ERR_INVALID, "must be there: what the metric should be, a task");
    if (!a->has_metric && a->target != 0)
        return err_set(e, ERR_INVALID, "needs %smetric", AUTOSCALE_PREFIX);
    return 0;
}

int autoscale_parse(const struct strmap *labels, struct autoscale *ret, const char **ret_label, struct err *e)
{
    struct autoscale a = { .min = 1, .cooldown_ns = COOLDOWN_NS };
    *ret = (struct autoscale){ 0 };
    for (size_t i = 0; i < labels->n; i++) {
        if (!str_starts(labels->v[i].key, STR(AUTOSCALE_PREFIX)))
            continue;
        a.given = true;
        if (read_one(&a, &labels->v[i], ret_label, e) < 0)
            return -e->code;
    }
    if (!a.given)
        return 0;
    if (check(&a, ret_label, e) < 0)
        return -e->code;
    *ret = a;
    return 0;
}

uint64_t autoscale_replicas(const struct autoscale *a, uint64_t wanted, uint64_t declared)
{
    uint64_t n = wanted ? wanted : declared;
    return n < a->min ? a->min : n > a->max ? a->max : n;
}
