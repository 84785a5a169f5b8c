#include "swarmctl/spec_lists.h"

#include <stdlib.h>
#include <string.h>

#include "swarmctl/jpath.h"

void map_put(json_t *map, const char *pair)
{
    size_t n = strcspn(pair, "=");
    char *key = strndup(pair, n);

    json_object_set_new(map, key, json_string(pair[n] ? pair + n + 1 : ""));
    free(key);
}

void map_cut(json_t *map, const char *pair)
{
    char *key = strndup(pair, strcspn(pair, "="));
    json_object_del(map, key);
    free(key);
}

void list_add(json_t *list, json_t *item)
{
    json_t *have;
    size_t i;

    for_each (list, i, have)
        if (json_equal(have, item))
            return;
    json_array_append(list, item);
}

void list_cut(json_t *list, json_t *item)
{
    for (size_t i = json_array_size(list); i > 0; i--)
        if (json_equal(json_array_get(list, i - 1), item))
            json_array_remove(list, i - 1);
}

void list_sort_by(json_t *list, int (*cmp)(json_t *a, json_t *b))
{
    /* Lists of a spec are short: insertion keeps equals in order and needs no copy. */
    for (size_t i = 1; i < json_array_size(list); i++) {
        json_t *item = json_incref(json_array_get(list, i));
        size_t at = i;
        while (at > 0 && cmp(json_array_get(list, at - 1), item) > 0)
            at--;
        json_array_remove(list, i);
        json_array_insert_new(list, at, item);
    }
}

static int cmp_text(json_t *a, json_t *b)
{
    const char *x = json_string_value(a), *y = json_string_value(b);
    return strcmp(x ? x : "", y ? y : "");
}

void list_sort(json_t *list)
{
    list_sort_by(list, cmp_text);
}
