#include "swarmctl/jpath.h"

#include <stdlib.h>

#include "common/util/check.h"
#include "swarmctl/human.h"

/* The next step of a path, copied; returns what follows its dot, or NULL at the end. */
static const char *step(const char *path, char name[64])
{
    size_t n = strcspn(path, ".");
    CHECK(n < 64);
    memcpy(name, path, n);
    name[n] = '\0';
    return path[n] == '.' ? path + n + 1 : NULL;
}

json_t *jget(const json_t *root, const char *path)
{
    const json_t *v = root;
    char name[64];

    while (path && v) {
        path = step(path, name);
        v = json_is_object(v) ? json_object_get(v, name) : NULL;
    }
    return json_is_null(v) ? NULL : (json_t *)v;
}

const char *jstr(const json_t *root, const char *path)
{
    const char *s = json_string_value(jget(root, path));
    return s ? s : "";
}

int64_t jint(const json_t *root, const char *path)
{
    json_t *v = jget(root, path);
    return json_is_real(v) ? (int64_t)json_real_value(v) : json_integer_value(v);
}

double jnum(const json_t *root, const char *path)
{
    return json_number_value(jget(root, path));
}

bool jbool(const json_t *root, const char *path)
{
    return json_is_true(jget(root, path));
}

size_t jlen(const json_t *root, const char *path)
{
    json_t *v = jget(root, path);
    return json_is_array(v) ? json_array_size(v) : json_object_size(v);
}

/* The object that holds the last step of path, whose name goes to `last`. */
static json_t *parent(json_t *root, const char *path, char last[64], bool create)
{
    for (;;) {
        const char *rest = step(path, last);
        if (!rest)
            return root;
        json_t *next = json_object_get(root, last);
        if (!json_is_object(next)) {
            if (!create)
                return NULL;
            next = json_object();
            json_object_set_new(root, last, next);
        }
        root = next;
        path = rest;
    }
}

void jset(json_t *root, const char *path, json_t *value)
{
    char last[64];
    json_t *obj = parent(root, path, last, true);
    json_object_set_new(obj, last, value);
}

void jdel(json_t *root, const char *path)
{
    char last[64];
    json_t *obj = parent(root, path, last, false);
    if (obj)
        json_object_del(obj, last);
}

json_t *jenter(json_t *root, const char *path)
{
    json_t *v = jget(root, path);
    if (!v) {
        v = json_object();
        jset(root, path, v);
    }
    return v;
}

void jprune_null(json_t *v)
{
    const char *key;
    json_t *child;
    void *tmp;
    size_t i;

    json_object_foreach_safe(v, tmp, key, child)
    {
        if (json_is_null(child))
            json_object_del(v, key);
        else
            jprune_null(child);
    }
    for_each (v, i, child)
        jprune_null(child);
}

static int dump_to_buf(const char *data, size_t n, void *arg)
{
    buf_put(arg, data, n);
    return 0;
}

void jdump(struct buf *b, const json_t *v)
{
    json_dump_callback(v, dump_to_buf, b, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
}

struct keyed {
    const char *key;
    json_t *item;
    size_t order;
};

static int cmp_keyed(const void *a, const void *b)
{
    const struct keyed *x = a, *y = b;
    int c = natural_cmp(x->key, y->key);
    return c ? c : (x->order > y->order) - (x->order < y->order);
}

json_t *jsorted(json_t *list, const char *path)
{
    size_t n = json_array_size(list);
    struct keyed *v = calloc(n + 1, sizeof *v);
    json_t *out = json_array();

    CHECK(v && out);
    for (size_t i = 0; i < n; i++) {
        json_t *item = json_array_get(list, i);
        v[i] = (struct keyed){ jstr(item, path), item, i };
    }
    qsort(v, n, sizeof *v, cmp_keyed);
    for (size_t i = 0; i < n; i++)
        json_array_append(out, v[i].item);
    free(v);
    return out;
}
