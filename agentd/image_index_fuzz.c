/* The image index and references to images: a reference, a zero byte, then the index. */
#include <stdio.h>
#include <stdlib.h>

#include "agentd/image_index.h"
#include "agentd/image_ref.h"
#include "common/util/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void reference(struct str ref)
{
    struct image_ref r, again;
    struct err e = ERR_INIT;
    char name[IMAGE_REF_MAX + 130];
    if (image_ref_parse(ref, &r, &e) < 0)
        return;
    if (r.digest[0])
        image_ref_familiar_digest(&r, r.digest, name);
    else
        image_ref_familiar_tag(&r, name);
    CHECK(image_ref_parse(str_from(name), &again, &e) == 0); /* what users see means the same */
    CHECK(strcmp(r.domain, again.domain) == 0 && strcmp(r.path, again.path) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *p = (const char *)data, *z = size ? memchr(p, 0, size) : NULL;
    struct str ref = { p, z ? (size_t)(z - p) : size }, text = { z ? z + 1 : p, z ? size - ref.n - 1 : 0 };
    struct err e = ERR_INIT;
    json_t *index, *img, *gone = NULL, *untagged;
    reference(ref);
    if (image_index_parse(text, &index, &e) < 0)
        return 0;
    untagged = json_array();
    if (image_index_find(index, ref, &img, &e) == 0) {
        json_t *copy = json_deep_copy(img);
        image_index_add(index, copy);
        json_decref(copy);
        (void)image_index_tag(index, img, ref, STR("x"), &e);
        (void)image_index_remove(index, ref, true, false, untagged, &gone, &e);
    }
    char *out = json_dumps(index, 0);
    json_t *again;
    CHECK(image_index_parse(str_from(out), &again, &e) == 0);
    json_decref(again);
    free(out);
    json_decref(gone);
    json_decref(untagged);
    json_decref(index);
    return 0;
}
