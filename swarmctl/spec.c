#include "swarmctl/spec.h"

#include <stdlib.h>

#include "common/util/check.h"
#include "swarmctl/conv.h"
#include "swarmctl/jpath.h"
#include "swarmctl/spec_lists.h"

#define TT "TaskTemplate."
#define CS TT "ContainerSpec."

json_t *spec_new(void)
{
    static const char text[] =
        "{\"Name\":null,\"Labels\":{},\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":null,\"Labels\":null,\"Command\":"
        "null,"
        "\"Args\":null,\"Hostname\":null,\"Env\":null,\"Dir\":null,\"User\":null,\"Groups\":null,\"Privileges\":null,"
        "\"Init\":null,\"StopSignal\":null,\"TTY\":null,\"OpenStdin\":null,\"ReadOnly\":null,\"Mounts\":null,"
        "\"StopGracePeriod\":null,\"Healthcheck\":null,\"Hosts\":null,\"DNSConfig\":{\"Nameservers\":null,\"Search\":"
        "null,"
        "\"Options\":null},\"Secrets\":null,\"Configs\":null,\"Isolation\":null,\"Sysctls\":null,\"CapabilityAdd\":"
        "null,"
        "\"CapabilityDrop\":null,\"Ulimits\":null,\"OomScoreAdj\":null},\"Resources\":{\"Limits\":{\"NanoCPUs\":null,"
        "\"MemoryBytes\":null,\"Pids\":null},\"Reservations\":{\"NanoCPUs\":null,\"MemoryBytes\":null,"
        "\"GenericResources\":null}},\"RestartPolicy\":null,\"Placement\":{\"Constraints\":null,\"Preferences\":null,"
        "\"MaxReplicas\":null,\"Platforms\":null},\"Networks\":null,\"LogDriver\":null,\"ForceUpdate\":0},\"Mode\":"
        "null,"
        "\"UpdateConfig\":null,\"RollbackConfig\":null,\"EndpointSpec\":{\"Mode\":null,\"Ports\":null}}";
    json_t *spec = json_loads(text, 0, NULL);

    CHECK(spec);
    return spec;
}

/* Parts that are sent whole as soon as one of their flags is given. */
static const struct {
    const char *path, *defaults;
} wholes[] = {
    { TT "RestartPolicy", "{\"Condition\":\"any\",\"Delay\":5000000000,\"MaxAttempts\":0}" },
    { "UpdateConfig", "{\"Parallelism\":1,\"Delay\":null,\"FailureAction\":\"pause\",\"Monitor\":5000000000,"
                      "\"MaxFailureRatio\":0,\"Order\":\"stop-first\"}" },
    { "RollbackConfig", "{\"Parallelism\":1,\"Delay\":null,\"FailureAction\":\"pause\",\"Monitor\":5000000000,"
                        "\"MaxFailureRatio\":0,\"Order\":\"stop-first\"}" },
};

static void set_path(struct spec_edit *ed, const char *path, json_t *value)
{
    for (size_t i = 0; i < sizeof wholes / sizeof wholes[0]; i++) {
        size_t n = strlen(wholes[i].path);
        if (strncmp(path, wholes[i].path, n) == 0 && path[n] == '.' && !jget(ed->spec, wholes[i].path))
            jset(ed->spec, wholes[i].path, json_loads(wholes[i].defaults, 0, NULL));
    }
    jset(ed->spec, path, value);
}

static void apply_map(struct spec_edit *ed, const struct flag *f)
{
    json_t *add = flag_json(ed->fs, f->name), *rm = f->pair ? flag_json(ed->fs, f->pair) : NULL, *item, *map;
    size_t i;

    if (!add && !jget(ed->spec, f->path))
        return;
    if (!add && !rm)
        return;
    map = jenter(ed->spec, f->path);
    for_each (rm, i, item)
        map_cut(map, json_string_value(item));
    for_each (add, i, item)
        map_put(map, json_string_value(item));
}

static void apply_list(struct spec_edit *ed, const struct flag *f)
{
    json_t *add = flag_json(ed->fs, f->name), *rm = f->pair ? flag_json(ed->fs, f->pair) : NULL, *item, *out;
    size_t i;

    if (!add && !rm)
        return;
    json_t *now = jget(ed->spec, f->path);
    out = json_array();
    for_each (now, i, item)
        list_add(out, item);
    for_each (add, i, item)
        list_add(out, item);
    for_each (rm, i, item)
        list_cut(out, item);
    list_sort(out);
    jset(ed->spec, f->path, out);
}

static int apply_fn(struct spec_edit *ed, const struct flag *f)
{
    for (unsigned i = 0; i < ed->done_count; i++)
        if (ed->done[i] == f->fn)
            return 0;
    CHECK(ed->done_count < sizeof ed->done / sizeof ed->done[0]);
    ed->done[ed->done_count++] = f->fn;
    return f->fn(ed);
}

static int apply(struct spec_edit *ed, const struct flag *f)
{
    json_t *v = flag_json(ed->fs, f->name);

    switch (f->apply) {
    case APPLY_SET:
        if (v && (!ed->create || !jempty(v)))
            set_path(ed, f->path, json_incref(v));
        return 0;
    case APPLY_GIVEN:
        if (v)
            set_path(ed, f->path, json_incref(v));
        return 0;
    case APPLY_ALWAYS:
        if (v)
            set_path(ed, f->path, json_incref(v));
        else
            set_path(ed, f->path, f->type->no_value ? json_false() : json_string(f->def ? f->def : ""));
        return 0;
    case APPLY_MAP:
        apply_map(ed, f);
        return 0;
    case APPLY_LIST:
        apply_list(ed, f);
        return 0;
    case APPLY_FN:
        return apply_fn(ed, f);
    case APPLY_NONE:
        break;
    }
    return 0;
}

static bool is_job(const json_t *spec)
{
    return jget(spec, "Mode.ReplicatedJob") || jget(spec, "Mode.GlobalJob");
}

int spec_apply(struct spec_edit *ed)
{
    int r = 0;

    for (const struct flag *const *t = ed->fs->tables; t && *t; t++)
        for (const struct flag *f = *t; f->name && r == 0; f++)
            r = apply(ed, f);
    if (r == 0 && ed->create && is_job(ed->spec) &&
        (jget(ed->spec, "UpdateConfig") || jget(ed->spec, "RollbackConfig")))
        r = err_set(ed->e, ERR_INVALID, "update and rollback configuration is not supported for jobs");
    if (r == 0)
        jprune_null(ed->spec);
    return r;
}
