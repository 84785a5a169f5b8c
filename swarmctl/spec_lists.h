/* spec_lists.h - small edits of JSON lists and maps, shared by spec.c and spec_fn.c. */
#pragma once

#include <jansson.h>

void map_put(json_t *map, const char *pair);                       /* "k=v" */
void map_cut(json_t *map, const char *key);                        /* "k" or "k=v": k goes */
void list_add(json_t *list, json_t *item);                         /* unless an equal one is there; item borrowed */
void list_cut(json_t *list, json_t *item);                         /* all that equal it */
void list_sort(json_t *list);                                      /* texts, in byte order */
void list_sort_by(json_t *list, int (*cmp)(json_t *a, json_t *b)); /* stable */
