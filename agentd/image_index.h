/*
 * image_index.h - the list of local images: a JSON array of
 *   {"ID":"sha256:..","RepoTags":[..],"RepoDigests":[..],"Created":unix,"Size":bytes,"Layers":["<hex of diff id>",..]}
 * kept whole in memory (images are few) and written as one file. Pure: files are images.c's business.
 */
#pragma once

#include <jansson.h>

#include "common/util/err.h"
#include "common/util/str.h"

/* image_index_parse - a checked index (given); -ERR_CORRUPT names the entry. */
int image_index_parse(struct str text, json_t **ret, struct err *e);

/* image_index_check_one - one entry. */
int image_index_check_one(json_t *img, struct err *e);

/* image_index_find - by name[:tag], name@digest, id or unique id prefix. The entry is borrowed.
 * -ERR_NOT_FOUND "No such image: X" (with the tag that was meant), -ERR_INVALID for an ambiguous prefix. */
int image_index_find(json_t *index, struct str ref, json_t **ret, struct err *e);

/* image_index_add - adds or merges an entry; its tags leave the images that had them. The entry is copied. */
void image_index_add(json_t *index, json_t *img);

/* image_index_tag - -ERR_INVALID for a bad name. */
int image_index_tag(json_t *index, json_t *img, struct str repo, struct str tag, struct err *e);

/* image_index_remove - Docker's rules for `rmi REF`. untagged: names that went; *ret_deleted: the image itself went
 * (its entry is then only held by the caller: given). @in_use: a task uses it. */
int image_index_remove(json_t *index, struct str ref, bool force, bool in_use, json_t *untagged, json_t **ret_deleted,
                       struct err *e);

/* image_index_uses_layer - whether any image has this layer. */
bool image_index_uses_layer(json_t *index, const char *layer);

const char *image_id(json_t *img);
/* image_from_registry - it was pulled: it has a repository digest. */
bool image_from_registry(json_t *img);
