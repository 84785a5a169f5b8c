#include "apid/api_filter.h"

#include <jansson.h>

#include "common/util/cleanup.h"

static void json_freep(json_t **j)
{
    json_decref(*j);
}

static int take_value(struct filter *x, const char *text, size_t len, struct arena *a, struct err *e)
{
    x->vals[x->n] = arena_str(a, (struct str){ text, len });
    if (!x->vals[x->n].p)
        return err_set(e, ERR_NOMEM, "filters are too large");
    x->n++;
    return 0;
}

static int take_values(struct filter *x, json_t *v, struct arena *a, struct err *e)
{
    size_t count = json_is_object(v) ? json_object_size(v) : json_array_size(v);
    const char *key;
    json_t *item;
    size_t i;
    int r;

    if (count > FILTER_VALUES_MAX)
        return err_set(e, ERR_INVALID, "invalid filter: more than %d values for one key", FILTER_VALUES_MAX);
    x->vals = arena_array(a, count ? count : 1, sizeof *x->vals);
    if (!x->vals)
        return err_set(e, ERR_NOMEM, "filters are too large");
    if (json_is_object(v)) {
        json_object_foreach (v, key, item)
            if (!json_is_boolean(item))
                return err_set(e, ERR_INVALID, "invalid filter");
            else if ((r = take_value(x, key, strlen(key), a, e)) < 0)
                return r;
    } else {
        json_array_foreach (v, i, item) {
            if (!json_is_string(item))
                return err_set(e, ERR_INVALID, "invalid filter");
            if ((r = take_value(x, json_string_value(item), json_string_length(item), a, e)) < 0)
                return r;
        }
    }
    return 0;
}

int filters_parse(struct filters *f, struct str json, struct arena *a, struct err *e)
{
    _cleanup_(json_freep) json_t *root = NULL;
    json_error_t je;
    const char *key;
    json_t *v;

    f->n = 0;
    if (json.n == 0)
        return 0;
    root = json_loadb(json.p, json.n, 0, &je);
    if (!json_is_object(root))
        return err_set(e, ERR_INVALID, "invalid filter");
    if (json_object_size(root) > FILTER_KEYS_MAX)
        return err_set(e, ERR_INVALID, "invalid filter: more than %d keys", FILTER_KEYS_MAX);
    json_object_foreach (root, key, v) {
        struct filter *x = &f->v[f->n];
        int r;
        if (!json_is_object(v) && !json_is_array(v))
            return err_set(e, ERR_INVALID, "invalid filter");
        *x = (struct filter){ .key = arena_str(a, str_from(key)) };
        if (!x->key.p)
            return err_set(e, ERR_NOMEM, "filters are too large");
        if ((r = take_values(x, v, a, e)) < 0)
            return r;
        f->n++;
    }
    return 0;
}

int filters_known(const struct filters *f, const char *const *known, struct err *e)
{
    for (size_t i = 0; i < f->n; i++) {
        size_t k = 0;
        while (known[k] && !str_is(f->v[i].key, known[k]))
            k++;
        if (!known[k])
            return err_set(e, ERR_INVALID, "invalid filter '" STR_FMT "'", STR_ARG(f->v[i].key));
    }
    return 0;
}

const struct filter *filters_get(const struct filters *f, const char *key)
{
    for (size_t i = 0; i < f->n; i++)
        if (str_is(f->v[i].key, key))
            return f->v[i].n > 0 ? &f->v[i] : NULL;
    return NULL;
}

bool filters_exact(const struct filters *f, const char *key, struct str value)
{
    const struct filter *x = filters_get(f, key);

    for (size_t i = 0; x && i < x->n; i++)
        if (str_eq(x->vals[i], value))
            return true;
    return !x;
}

bool filters_prefix(const struct filters *f, const char *key, struct str value)
{
    const struct filter *x = filters_get(f, key);

    for (size_t i = 0; x && i < x->n; i++)
        if (str_starts(value, x->vals[i]))
            return true;
    return !x;
}

bool filters_substr(const struct filters *f, const char *key, struct str value)
{
    const struct filter *x = filters_get(f, key);

    for (size_t i = 0; x && i < x->n; i++)
        if (x->vals[i].n == 0 || (value.n > 0 && memmem(value.p, value.n, x->vals[i].p, x->vals[i].n)))
            return true;
    return !x;
}

/* "k=v" or "k": does it hold for the value found (or not found) under k? */
static bool label_holds(struct str want, bool found, struct str have)
{
    const char *eq = memchr(want.p, '=', want.n);
    struct str value = { eq ? eq + 1 : NULL, eq ? want.n - (size_t)(eq + 1 - want.p) : 0 };

    return found && (!eq || str_eq(value, have));
}

static struct str label_key(struct str want)
{
    const char *eq = memchr(want.p, '=', want.n);
    return (struct str){ want.p, eq ? (size_t)(eq - want.p) : want.n };
}

/* Label keys contain dots, so mp_path() can't be used; and the key needs no NUL behind it. */
static bool map_lookup(struct str map, struct str key, struct str *ret)
{
    struct mp_cursor c = mp_cursor(map);
    struct mp_val v;

    if (map.n == 0 || mp_next(&c, &v) < 0 || v.type != MP_MAP)
        return false;
    for (size_t i = 0, n = v.n; i < n; i++) {
        struct mp_val k;
        struct str span;
        if (mp_next(&c, &k) < 0 || k.type != MP_STR || mp_span(&c, &span) < 0)
            return false;
        if (str_eq(k.s, key))
            return mp_as_str(span, ret);
    }
    return false;
}

bool filters_labels(const struct filters *f, const char *key, struct str labels)
{
    const struct filter *x = filters_get(f, key);

    for (size_t i = 0; x && i < x->n; i++) {
        struct str have = { NULL, 0 };
        bool found = map_lookup(labels, label_key(x->vals[i]), &have);
        if (!label_holds(x->vals[i], found, have))
            return false;
    }
    return true;
}

bool filters_label_map(const struct filters *f, const char *key, const struct strmap *labels)
{
    const struct filter *x = filters_get(f, key);

    for (size_t i = 0; x && i < x->n; i++) {
        struct str want = label_key(x->vals[i]), have = { NULL, 0 };
        bool found = false;
        for (size_t k = 0; k < labels->n && !found; k++)
            if ((found = str_eq(labels->v[k].key, want)))
                have = labels->v[k].val;
        if (!label_holds(x->vals[i], found, have))
            return false;
    }
    return true;
}
