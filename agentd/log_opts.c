/* log_opts.c - see log_opts.h. */
#include "agentd/log_opts.h"

#include <limits.h>

#define LOCAL_SIZE (20ull << 20) /* Docker's defaults for "local" */
#define LOCAL_FILES 5

static bool one_of(struct str s, const char *const *names)
{
    while (*names && !str_is(s, *names))
        names++;
    return *names != NULL;
}

int log_opts_known(const struct tspec_driver *d, struct err *e)
{
    static const char *const json_file[] = { "max-file", "max-size",  "compress", "labels", "labels-regex",
                                             "env",      "env-regex", "tag",      "mode",   "max-buffer-size",
                                             NULL };
    static const char *const local[] = { "max-file", "max-size", "compress", "mode", "max-buffer-size", NULL };
    bool is_local = d && str_is(d->Name, "local");
    if (!d || (!is_local && d->Name.n && !str_is(d->Name, "json-file")))
        return 0;
    for (size_t i = 0; i < d->Options.n; i++) {
        struct str key = d->Options.v[i].key;
        if (!one_of(key, is_local ? local : json_file))
            return err_set(e, ERR_INVALID, "unknown log opt '" STR_FMT "' for %s log driver", STR_ARG(key),
                           is_local ? "local" : "json-file");
    }
    return 0;
}

static struct str option(const struct tspec_driver *d, const char *key)
{
    for (size_t i = 0; i < d->Options.n; i++)
        if (str_is(d->Options.v[i].key, key))
            return d->Options.v[i].val;
    return (struct str){ 0, 0 };
}

/* "10m", "64kb", "1G" */
static bool size_of(struct str s, uint64_t *ret)
{
    uint64_t mul = 1, v;
    if (s.n && (s.p[s.n - 1] == 'b' || s.p[s.n - 1] == 'B'))
        s.n--;
    char u = s.n ? s.p[s.n - 1] : '\0';
    if (u == 'k' || u == 'K')
        mul = 1024;
    else if (u == 'm' || u == 'M')
        mul = 1024ull * 1024;
    else if (u == 'g' || u == 'G')
        mul = 1024ull * 1024 * 1024;
    if (mul > 1)
        s.n--;
    if (!str_u64(s, &v) || v > UINT64_MAX / mul)
        return false;
    *ret = v * mul;
    return true;
}

#define INIT_FAILED "failed to initialize logging driver: "

static int limits(const struct tspec_driver *d, struct log_opts *o, struct err *e)
{
    struct str size = option(d, "max-size"), files = option(d, "max-file");
    uint64_t n;
    if (size.n) {
        if (!size_of(size, &o->size_max))
            return err_set(e, ERR_INVALID, INIT_FAILED "invalid size: '" STR_FMT "'", STR_ARG(size));
        o->files = str_is(d->Name, "local") ? LOCAL_FILES : 1;
    }
    if (!files.n)
        return 0;
    if (!str_u64(files, &n) || n > INT_MAX)
        return err_set(e, ERR_INVALID, INIT_FAILED "max-file: \"" STR_FMT "\" is not a number", STR_ARG(files));
    if (n < 1)
        return err_set(e, ERR_INVALID, INIT_FAILED "max-file cannot be less than 1");
    o->files = (unsigned)n;
    return 0;
}

int log_opts_read(const struct tspec_driver *d, const struct log_opts *dflt, struct log_opts *ret, struct err *e)
{
    struct log_opts o = *dflt;
    if (d && str_is(d->Name, "none")) {
        o.none = true;
    } else if (d) {
        bool is_local = str_is(d->Name, "local");
        if (d->Name.n && !is_local && !str_is(d->Name, "json-file"))
            return err_set(e, ERR_INVALID, INIT_FAILED "logger: no log driver named '" STR_FMT "' is registered",
                           STR_ARG(d->Name));
        if (is_local)
            o = (struct log_opts){ .size_max = LOCAL_SIZE, .files = LOCAL_FILES };
        int r = limits(d, &o, e);
        if (r < 0)
            return r;
    }
    *ret = o;
    return 0;
}
