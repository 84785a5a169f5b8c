/* --mount: "type=bind,source=/a,target=/b,readonly,..." */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "swarmctl/conv.h"
#include "swarmctl/jpath.h"

/* One mount on its way; the option groups appear when a key of theirs is met. */
struct mount {
    json_t *m; /* with a null in the place of whatever may follow, so that members come in the API's order */
    struct err *e;
};

static json_t *group(struct mount *mt, const char *name)
{
    json_t *g = jget(mt->m, name);
    if (g)
        return g;
    g = strcmp(name, "VolumeOptions") == 0
            ? json_pack("{s:n,s:n,s:n,s:{s:n,s:n}}", "NoCopy", "Labels", "Subpath", "DriverConfig", "Name", "Options")
        : strcmp(name, "BindOptions") == 0
            ? json_pack("{s:n,s:n,s:n}", "Propagation", "NonRecursive", "CreateMountpoint")
        : strcmp(name, "TmpfsOptions") == 0 ? json_pack("{s:n,s:n}", "SizeBytes", "Mode")
                                            : json_object();
    json_object_set_new(mt->m, name, g);
    return g;
}

static int set_text(struct mount *mt, json_t *obj, const char *name, const char *value, bool lower)
{
    json_t *s = json_string(value);
    if (!s)
        return err_set(mt->e, ERR_INVALID, "not valid UTF-8");
    if (lower)
        for (char *p = (char *)json_string_value(s); *p; p++)
            *p = (char)tolower((unsigned char)*p);
    json_object_set_new(obj, name, s);
    return 0;
}

static int set_bool(struct mount *mt, json_t *obj, const char *name, const char *key, const char *value)
{
    struct err ignored = ERR_INIT;
    bool v = true;

    if (value && parse_go_bool(value, &v, &ignored) < 0)
        return err_set(mt->e, ERR_INVALID, "invalid value for %s: %s", key, value);
    json_object_set_new(obj, name, v ? json_true() : json_null());
    return 0;
}

static int set_member(struct mount *mt, json_t *obj, const char *name, const char *pair)
{
    size_t n = strcspn(pair, "=");
    json_t *map = jget(obj, name), *v = json_string(pair[n] ? pair + n + 1 : "");

    if (!v)
        return err_set(mt->e, ERR_INVALID, "not valid UTF-8");
    if (!map) {
        map = json_object();
        json_object_set_new(obj, name, map);
    }
    char *key = strndup(pair, n);
    if (n > 0)
        json_object_set_new(map, key, v);
    else
        json_decref(v);
    free(key);
    return 0;
}

static int key_source(struct mount *mt, const char *key, const char *value)
{
    char cwd[4096];

    (void)key;
    if (value[0] == '.' && getcwd(cwd, sizeof cwd)) {
        char *joined = NULL;
        if (asprintf(&joined, "%s/%s", cwd, value) < 0)
            return err_set(mt->e, ERR_NOMEM, "out of memory");
        char *clean = realpath(joined, NULL); /* as it is written when it doesn't exist: the node will say so */
        int r = set_text(mt, mt->m, "Source", clean ? clean : joined, false);
        free(clean);
        free(joined);
        return r;
    }
    return set_text(mt, mt->m, "Source", value, false);
}

static int key_bind_recursive(struct mount *mt, const char *key, const char *value)
{
    json_t *g = group(mt, "BindOptions");

    if (strcmp(value, "enabled") == 0)
        return 0;
    if (strcmp(value, "disabled") == 0)
        return set_bool(mt, g, "NonRecursive", key, NULL);
    if (strcmp(value, "writable") == 0)
        return set_bool(mt, g, "ReadOnlyNonRecursive", key, NULL);
    if (strcmp(value, "readonly") == 0)
        return set_bool(mt, g, "ReadOnlyForceRecursive", key, NULL);
    return err_set(mt->e, ERR_INVALID,
                   "invalid value for %s: %s (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")", key,
                   value);
}

static int key_tmpfs_size(struct mount *mt, const char *key, const char *value)
{
    struct err ignored = ERR_INIT;
    int64_t v;

    if (parse_bytes(value, &v, &ignored) < 0)
        return err_set(mt->e, ERR_INVALID, "invalid value for %s: %s", key, value);
    json_object_set_new(group(mt, "TmpfsOptions"), "SizeBytes", json_integer(v));
    return 0;
}

static int key_tmpfs_mode(struct mount *mt, const char *key, const char *value)
{
    struct err ignored = ERR_INIT;
    uint64_t v;

    if (parse_go_uint(value, 8, 32, &v, &ignored) < 0)
        return err_set(mt->e, ERR_INVALID, "invalid value for %s: %s", key, value);
    json_object_set_new(group(mt, "TmpfsOptions"), "Mode", json_integer((json_int_t)v));
    return 0;
}

enum mount_value { TEXT, LOWER, SWITCH, MEMBER, SPECIAL };

static const struct mount_key {
    const char *key, *group, *member;
    enum mount_value kind;
    int (*fn)(struct mount *, const char *key, const char *value);
} mount_keys[] = {
    { "type", NULL, "Type", LOWER, NULL },
    { "source", NULL, NULL, SPECIAL, key_source },
    { "src", NULL, NULL, SPECIAL, key_source },
    { "target", NULL, "Target", TEXT, NULL },
    { "dst", NULL, "Target", TEXT, NULL },
    { "destination", NULL, "Target", TEXT, NULL },
    { "readonly", NULL, "ReadOnly", SWITCH, NULL },
    { "ro", NULL, "ReadOnly", SWITCH, NULL },
    { "consistency", NULL, "Consistency", LOWER, NULL },
    { "bind-propagation", "BindOptions", "Propagation", LOWER, NULL },
    { "bind-nonrecursive", "BindOptions", "NonRecursive", SWITCH, NULL },
    { "bind-create-src", "BindOptions", "CreateMountpoint", SWITCH, NULL },
    { "bind-recursive", NULL, NULL, SPECIAL, key_bind_recursive },
    { "volume-nocopy", "VolumeOptions", "NoCopy", SWITCH, NULL },
    { "volume-subpath", "VolumeOptions", "Subpath", TEXT, NULL },
    { "volume-label", "VolumeOptions", "Labels", MEMBER, NULL },
    { "volume-driver", "VolumeOptions.DriverConfig", "Name", TEXT, NULL },
    { "volume-opt", "VolumeOptions.DriverConfig", "Options", MEMBER, NULL },
    { "image-subpath", "ImageOptions", "Subpath", TEXT, NULL },
    { "tmpfs-size", NULL, NULL, SPECIAL, key_tmpfs_size },
    { "tmpfs-mode", NULL, NULL, SPECIAL, key_tmpfs_mode },
};

static json_t *key_object(struct mount *mt, const struct mount_key *k)
{
    if (!k->group)
        return mt->m;
    if (strcmp(k->group, "VolumeOptions.DriverConfig") == 0)
        return jget(group(mt, "VolumeOptions"), "DriverConfig");
    return group(mt, k->group);
}

static int mount_field(struct mount *mt, const char *field)
{
    char key[64];
    size_t n = strcspn(field, "=");
    const char *value = field[n] ? field + n + 1 : NULL;
    const struct mount_key *k = NULL;

    snprintf(key, sizeof key, "%.*s", (int)(n < 63 ? n : 63), field);
    for (char *p = key; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    for (size_t i = 0; i < sizeof mount_keys / sizeof mount_keys[0]; i++)
        if (strcmp(mount_keys[i].key, key) == 0)
            k = &mount_keys[i];
    if (!value && (!k || k->kind != SWITCH))
        return err_set(mt->e, ERR_INVALID, "invalid field '%s' must be a key=value pair", field);
    if (!k)
        return err_set(mt->e, ERR_INVALID, "unexpected key '%s' in '%s'", key, field);
    if (k->kind == SPECIAL)
        return k->fn(mt, key, value);
    json_t *obj = key_object(mt, k);
    if (k->kind == SWITCH)
        return set_bool(mt, obj, k->member, key, value);
    if (k->kind == MEMBER)
        return set_member(mt, obj, k->member, value);
    return set_text(mt, obj, k->member, value, k->kind == LOWER);
}

/* What a mount's type allows, and what must come together. */
static int mount_check(struct mount *mt)
{
    static const struct {
        const char *group, *keys, *type;
    } owners[] = { { "VolumeOptions", "volume", "volume" },
                   { "ImageOptions", "image", "image" },
                   { "BindOptions", "bind", "bind" },
                   { "TmpfsOptions", "tmpfs", "tmpfs" } };
    const char *type = jstr(mt->m, "Type");

    if (!*type)
        return err_set(mt->e, ERR_INVALID, "type is required");
    if (!*jstr(mt->m, "Target"))
        return err_set(mt->e, ERR_INVALID, "target is required");
    for (size_t i = 0; i < sizeof owners / sizeof owners[0]; i++)
        if (jget(mt->m, owners[i].group) && strcmp(type, owners[i].type) != 0)
            return err_set(mt->e, ERR_INVALID, "cannot mix '%s-*' options with mount type '%s'", owners[i].keys, type);
    if (jbool(mt->m, "BindOptions.ReadOnlyNonRecursive") && !jbool(mt->m, "ReadOnly"))
        return err_set(mt->e, ERR_INVALID,
                       "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction");
    if (jbool(mt->m, "BindOptions.ReadOnlyForceRecursive")) {
        if (!jbool(mt->m, "ReadOnly"))
            return err_set(mt->e, ERR_INVALID,
                           "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction");
        if (strcmp(jstr(mt->m, "BindOptions.Propagation"), "rprivate") != 0)
            return err_set(mt->e, ERR_INVALID,
                           "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' "
                           "to be specified in conjunction");
    }
    return 0;
}

static int parse_mount(const char *text, json_t **ret, struct err *e)
{
    json_t *fields = csv_fields(text, e), *field;
    size_t i;
    int r = fields ? 0 : -ERR_INVALID;
    struct mount mt = { .e = e };

    mt.m = json_pack("{s:s,s:n,s:n,s:n,s:n,s:n,s:n,s:n,s:n}", "Type", "volume", "Source", "Target", "ReadOnly",
                     "Consistency", "BindOptions", "VolumeOptions", "ImageOptions", "TmpfsOptions");
    for_each (fields, i, field)
        if (r == 0)
            r = mount_field(&mt, json_string_value(field));
    if (r == 0)
        r = mount_check(&mt);
    json_decref(fields);
    if (r < 0) {
        json_decref(mt.m);
        return r;
    }
    jprune_null(mt.m);
    *ret = mt.m;
    return 0;
}

const struct flag_type T_MOUNT = { .name = "mount", .list = true, .parse = parse_mount };
