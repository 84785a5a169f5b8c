/* image_index.c - see image_index.h. */
#include "agentd/image_index.h"

#include <stdio.h>

#include "agentd/image_ref.h"

const char *image_id(json_t *img)
{
    const char *id = json_string_value(json_object_get(img, "ID"));
    return id ? id : "";
}

bool image_from_registry(json_t *img)
{
    return json_array_size(json_object_get(img, "RepoDigests")) > 0;
}

static bool strings(json_t *arr)
{
    size_t i;
    json_t *v;
    if (!json_is_array(arr))
        return false;
    json_array_foreach (arr, i, v)
        if (!json_is_string(v))
            return false;
    return true;
}

static bool hex64(const char *s)
{
    return strlen(s) == 64 && strspn(s, "0123456789abcdef") == 64;
}

int image_index_check_one(json_t *img, struct err *e)
{
    size_t i;
    json_t *v;
    const char *id = image_id(img);
    if (strncmp(id, "sha256:", 7) != 0 || !hex64(id + 7))
        return err_set(e, ERR_CORRUPT, "image with a bad ID \"%.80s\"", id);
    if (!strings(json_object_get(img, "RepoTags")) || !strings(json_object_get(img, "RepoDigests")) ||
        !strings(json_object_get(img, "Layers")) || !json_is_integer(json_object_get(img, "Size")) ||
        !json_is_integer(json_object_get(img, "Created")))
        return err_set(e, ERR_CORRUPT, "image %.19s: fields are missing or wrong", id);
    json_array_foreach (json_object_get(img, "Layers"), i, v)
        if (!hex64(json_string_value(v)))
            return err_set(e, ERR_CORRUPT, "image %.19s: bad layer %zu", id, i);
    return 0;
}

int image_index_parse(struct str text, json_t **ret, struct err *e)
{
    json_error_t je;
    size_t i;
    json_t *v, *root = json_loadb(text.p ? text.p : "", text.n, JSON_REJECT_DUPLICATES, &je);
    if (!root)
        return err_set(e, ERR_CORRUPT, "line %d: %s", je.line, je.text);
    int r = json_is_array(root) ? 0 : err_set(e, ERR_CORRUPT, "not an array");
    json_array_foreach (root, i, v) {
        if (r == 0 && (r = image_index_check_one(v, e)) < 0)
            err_wrap(e, "entry %zu", i);
    }
    if (r < 0) {
        json_decref(root);
        return r;
    }
    *ret = root;
    return 0;
}

static size_t find_string(json_t *arr, const char *s)
{
    size_t i;
    json_t *v;
    json_array_foreach (arr, i, v)
        if (strcmp(json_string_value(v), s) == 0)
            return i;
    return SIZE_MAX;
}

static json_t *by_name(json_t *index, const char *list, const char *name)
{
    size_t i;
    json_t *v;
    json_array_foreach (index, i, v)
        if (find_string(json_object_get(v, list), name) != SIZE_MAX)
            return v;
    return NULL;
}

static int by_id(json_t *index, struct str hex, json_t **ret, struct err *e)
{
    size_t i;
    json_t *v, *hit = NULL;
    json_array_foreach (index, i, v) {
        if (strncmp(image_id(v) + 7, hex.p, hex.n) != 0)
            continue;
        if (hit)
            return err_set(e, ERR_INVALID, "image ID prefix " STR_FMT " is ambiguous", STR_ARG(hex));
        hit = v;
    }
    *ret = hit;
    return hit ? 0 : -ERR_NOT_FOUND;
}

int image_index_find(json_t *index, struct str ref, json_t **ret, struct err *e)
{
    struct image_ref r;
    struct str hex;
    char name[IMAGE_REF_MAX + 130] = "";
    bool id = image_ref_is_id(ref, &hex), full = id && hex.n != ref.n; /* "sha256:..." can only be an id */
    int rc;
    if (!full && image_ref_parse(ref, &r, e) == 0) {
        if (r.digest[0]) {
            image_ref_familiar_digest(&r, r.digest, name);
            *ret = by_name(index, "RepoDigests", name);
        } else {
            image_ref_familiar_tag(&r, name);
            *ret = by_name(index, "RepoTags", name);
        }
        if (*ret)
            return 0;
    } else if (!id) {
        return err_set(e, ERR_INVALID, "invalid reference format");
    }
    if (id && (rc = by_id(index, hex, ret, e)) != -ERR_NOT_FOUND)
        return rc;
    if (name[0])
        return err_set(e, ERR_NOT_FOUND, "No such image: %s", name);
    return err_set(e, ERR_NOT_FOUND, "No such image: " STR_FMT, STR_ARG(ref));
}

static void drop_tag(json_t *index, const char *tag)
{
    json_t *old = by_name(index, "RepoTags", tag);
    if (old) {
        json_t *tags = json_object_get(old, "RepoTags");
        json_array_remove(tags, find_string(tags, tag));
    }
}

static void merge_names(json_t *to, json_t *from)
{
    size_t i;
    json_t *v;
    json_array_foreach (from, i, v)
        if (find_string(to, json_string_value(v)) == SIZE_MAX)
            json_array_append_new(to, json_string(json_string_value(v)));
}

void image_index_add(json_t *index, json_t *img)
{
    size_t i;
    json_t *v, *same = NULL;
    json_array_foreach (json_object_get(img, "RepoTags"), i, v)
        drop_tag(index, json_string_value(v));
    json_array_foreach (index, i, v)
        if (strcmp(image_id(v), image_id(img)) == 0)
            same = v;
    if (!same) {
        json_array_append_new(index, json_deep_copy(img));
        return;
    }
    merge_names(json_object_get(same, "RepoTags"), json_object_get(img, "RepoTags"));
    merge_names(json_object_get(same, "RepoDigests"), json_object_get(img, "RepoDigests"));
}

int image_index_tag(json_t *index, json_t *img, struct str repo, struct str tag, struct err *e)
{
    struct image_ref r;
    char text[IMAGE_REF_MAX], name[IMAGE_REF_MAX + 130];
    int n = snprintf(text, sizeof text, STR_FMT "%s" STR_FMT, STR_ARG(repo), tag.n ? ":" : "", STR_ARG(tag));
    if (n < 0 || (size_t)n >= sizeof text || image_ref_parse((struct str){ text, (size_t)n }, &r, e) < 0 || r.digest[0])
        return err_set(e, ERR_INVALID, "Error parsing reference: \"%.200s\" is not a valid repository/tag", text);
    image_ref_familiar_tag(&r, name);
    json_incref(img);
    drop_tag(index, name);
    json_array_append_new(json_object_get(img, "RepoTags"), json_string(name));
    json_decref(img);
    return 0;
}

/* what `rmi REF` means when REF is a name: only that name goes, unless it is the last one */
static int untag(json_t *img, struct str ref, json_t *untagged)
{
    struct image_ref r;
    struct err e = ERR_INIT;
    struct str hex;
    char name[IMAGE_REF_MAX + 130];
    json_t *tags = json_object_get(img, "RepoTags"), *digests = json_object_get(img, "RepoDigests");
    bool id = image_ref_is_id(ref, &hex) && strncmp(image_id(img) + 7, hex.p, hex.n) == 0;
    if (image_ref_parse(ref, &r, &e) < 0)
        return -1;
    json_t *list = r.digest[0] ? digests : tags;
    if (r.digest[0])
        image_ref_familiar_digest(&r, r.digest, name);
    else
        image_ref_familiar_tag(&r, name);
    size_t i = find_string(list, name);
    if (i == SIZE_MAX)
        return id ? -1 : 0;
    json_array_remove(list, i);
    json_array_append_new(untagged, json_string(name));
    return 0;
}

static size_t repositories(json_t *img)
{
    size_t i, n = 0;
    json_t *v, *tags = json_object_get(img, "RepoTags");
    const char *first = NULL;
    json_array_foreach (tags, i, v) {
        const char *s = json_string_value(v), *c = strrchr(s, ':');
        size_t len = c ? (size_t)(c - s) : strlen(s);
        if (!first || strncmp(first, s, len + 1) != 0)
            n++;
        first = s;
    }
    return n;
}

static void take_names(json_t *list, json_t *untagged)
{
    size_t i;
    json_t *v;
    json_array_foreach (list, i, v)
        json_array_append(untagged, v);
    json_array_clear(list);
}

int image_index_remove(json_t *index, struct str ref, bool force, bool in_use, json_t *untagged, json_t **ret_deleted,
                       struct err *e)
{
    json_t *img = NULL;
    struct str hex = { 0, 0 };
    size_t i;
    json_t *v;
    *ret_deleted = NULL;
    int r = image_index_find(index, ref, &img, e);
    if (r < 0)
        return r;
    json_t *tags = json_object_get(img, "RepoTags"), *digests = json_object_get(img, "RepoDigests");
    bool by_tag_name = !(image_ref_is_id(ref, &hex) && strncmp(image_id(img) + 7, hex.p, hex.n) == 0);
    bool last = json_array_size(tags) <= 1;
    if (by_tag_name && !last)
        return untag(img, ref, untagged);
    if (in_use)
        return err_set(e, ERR_CONFLICT,
                       by_tag_name && !force
                           ? "conflict: unable to remove repository reference \"" STR_FMT
                             "\" (must force) - a running task is using its referenced image %.12s"
                           : "conflict: unable to delete " STR_FMT
                             " (cannot be forced) - image is being used by running task (image %.12s)",
                       STR_ARG(ref), image_id(img) + 7);
    if (!by_tag_name && !force && repositories(img) > 1)
        return err_set(
            e, ERR_CONFLICT,
            "conflict: unable to delete %.12s (must be forced) - image is referenced in multiple repositories",
            image_id(img) + 7);
    take_names(tags, untagged);
    take_names(digests, untagged);
    json_array_foreach (index, i, v)
        if (v == img)
            break;
    *ret_deleted = json_incref(img);
    json_array_remove(index, i);
    return 0;
}

bool image_index_uses_layer(json_t *index, const char *layer)
{
    size_t i;
    json_t *v;
    json_array_foreach (index, i, v)
        if (find_string(json_object_get(v, "Layers"), layer) != SIZE_MAX)
            return true;
    return false;
}
