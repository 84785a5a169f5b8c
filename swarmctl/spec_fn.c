/* The flags that need more than a path: those that come in groups, replace by key, or must be looked up. */
#include <stdio.h>
#include <stdlib.h>

#include "swarmctl/conv.h"
#include "swarmctl/jpath.h"
#include "swarmctl/spec.h"
#include "swarmctl/spec_lists.h"

#define TT "TaskTemplate."
#define CS TT "ContainerSpec."

static bool given(const struct spec_edit *ed, const char *flag)
{
    return flag_changed(ed->fs, flag);
}

static json_t *flag_copy(const struct spec_edit *ed, const char *flag)
{
    return json_incref(flag_json(ed->fs, flag));
}

int spec_mode(struct spec_edit *ed)
{
    const char *mode = flag_str(ed->fs, "mode");
    bool global = strcmp(mode, "global") == 0 || strcmp(mode, "global-job") == 0;
    bool job = strcmp(mode, "replicated-job") == 0;
    json_t *spec = ed->spec;

    if (!global && !job && strcmp(mode, "replicated") != 0)
        return err_set(ed->e, ERR_INVALID, "Unknown mode: %s, only replicated and global supported", mode);
    if (global && given(ed, "replicas"))
        return err_set(ed->e, ERR_INVALID, "replicas can only be used with replicated or replicated-job mode");
    if (global && flag_int(ed->fs, "replicas-max-per-node") > 0)
        return err_set(ed->e, ERR_INVALID,
                       "replicas-max-per-node can only be used with replicated or replicated-job mode");
    if (!job && given(ed, "max-concurrent"))
        return err_set(ed->e, ERR_INVALID, "max-concurrent can only be used with replicated-job mode");
    if (global) {
        jenter(spec, strcmp(mode, "global") == 0 ? "Mode.Global" : "Mode.GlobalJob");
    } else if (job) {
        jenter(spec, "Mode.ReplicatedJob");
        if (given(ed, "max-concurrent") || given(ed, "replicas"))
            jset(spec, "Mode.ReplicatedJob.MaxConcurrent",
                 flag_copy(ed, given(ed, "max-concurrent") ? "max-concurrent" : "replicas"));
        if (given(ed, "replicas"))
            jset(spec, "Mode.ReplicatedJob.TotalCompletions", flag_copy(ed, "replicas"));
    } else {
        jenter(spec, "Mode.Replicated");
        if (given(ed, "replicas"))
            jset(spec, "Mode.Replicated.Replicas", flag_copy(ed, "replicas"));
    }
    return 0;
}

int spec_replicas(struct spec_edit *ed)
{
    if (!given(ed, "replicas"))
        return 0;
    if (!jget(ed->spec, "Mode.Replicated"))
        return err_set(ed->e, ERR_INVALID, "replicas can only be used with replicated mode");
    jset(ed->spec, "Mode.Replicated.Replicas", flag_copy(ed, "replicas"));
    return 0;
}

int spec_force(struct spec_edit *ed)
{
    if (flag_bool(ed->fs, "force"))
        jset(ed->spec, TT "ForceUpdate", json_integer(jint(ed->spec, TT "ForceUpdate") + 1));
    return 0;
}

/* Whether two "K=V" (or "K") name the same variable. */
static bool same_key(const char *a, const char *b)
{
    size_t n = strcspn(a, "=");
    return n == strcspn(b, "=") && memcmp(a, b, n) == 0;
}

/* The last of a name wins, in its place. */
static void env_put(json_t *env, json_t *var)
{
    json_t *have;
    size_t i;

    for_each (env, i, have)
        if (same_key(json_string_value(have), json_string_value(var))) {
            json_array_set(env, i, var);
            return;
        }
    json_array_append(env, var);
}

int spec_env(struct spec_edit *ed)
{
    json_t *env = json_array(), *from_files = json_array(), *item;
    size_t i;
    int r = 0;

    for_each (jget(ed->spec, CS "Env"), i, item) {
        json_t *rm;
        size_t k;
        bool gone = false;
        for_each (flag_json(ed->fs, "env-rm"), k, rm)
            gone = gone || same_key(json_string_value(rm), json_string_value(item));
        if (!gone)
            json_array_append(env, item);
    }
    for_each (flag_json(ed->fs, "env-file"), i, item)
        if (r == 0)
            r = env_file(json_string_value(item), from_files, ed->e);
    for_each (from_files, i, item)
        env_put(env, item);
    for_each (flag_json(ed->fs, ed->create ? "env" : "env-add"), i, item)
        env_put(env, item);
    json_decref(from_files);
    if (json_array_size(env) > 0 || jget(ed->spec, CS "Env"))
        jset(ed->spec, CS "Env", env);
    else
        json_decref(env);
    return r;
}

static json_t *cap_set(json_t *names)
{
    json_t *set = json_array(), *item;
    struct buf b = BUF_INIT;
    size_t i;

    for_each (names, i, item) {
        cap_name(&b, json_string_value(item));
        json_t *name = json_string(buf_cstr(&b));
        list_add(set, name);
        json_decref(name);
        buf_clear(&b);
    }
    buf_done(&b);
    return set;
}

static bool cap_has(json_t *set, const char *name)
{
    json_t *item;
    size_t i;

    for_each (set, i, item)
        if (strcmp(json_string_value(item), name) == 0)
            return true;
    return false;
}

static void cap_cut(json_t *set, const char *name)
{
    json_t *item = json_string(name);
    list_cut(set, item);
    json_decref(item);
}

/* What is asked for meets what is there: adding what was dropped only takes the drop back, and the other way round. */
static void cap_merge(json_t *wanted, json_t *into, json_t *against, json_t *priority)
{
    json_t *item;
    size_t i;

    for_each (wanted, i, item) {
        const char *name = json_string_value(item);
        if (priority && cap_has(priority, name))
            continue;
        if (cap_has(against, name))
            cap_cut(against, name);
        else
            list_add(into, item);
    }
}

static void cap_store(struct spec_edit *ed, const char *path, json_t *set)
{
    if (cap_has(set, "ALL")) {
        json_array_clear(set);
        json_array_append_new(set, json_string("ALL"));
    }
    cap_cut(set, "RESET");
    list_sort(set);
    if (json_array_size(set) > 0) {
        jset(ed->spec, path, set);
    } else {
        if (!ed->create)
            jdel(ed->spec, path);
        json_decref(set);
    }
}

int spec_caps(struct spec_edit *ed)
{
    if (!given(ed, "cap-add") && !given(ed, "cap-drop"))
        return 0;
    json_t *want_add = cap_set(flag_json(ed->fs, "cap-add")), *want_drop = cap_set(flag_json(ed->fs, "cap-drop"));
    json_t *add = cap_set(jget(ed->spec, CS "CapabilityAdd")), *drop = cap_set(jget(ed->spec, CS "CapabilityDrop"));

    if (cap_has(want_add, "RESET"))
        json_array_clear(add);
    if (cap_has(want_drop, "RESET"))
        json_array_clear(drop);
    cap_cut(want_add, "RESET");
    cap_cut(want_drop, "RESET");
    cap_merge(want_drop, drop, add, want_add);
    cap_merge(want_add, add, drop, NULL);
    cap_store(ed, CS "CapabilityAdd", add);
    cap_store(ed, CS "CapabilityDrop", drop);
    json_decref(want_add);
    json_decref(want_drop);
    return 0;
}

/* Replaces the element of `list` whose member `key` is the same, or appends. */
static void put_by(json_t *list, const char *key, json_t *item)
{
    json_t *have;
    size_t i;

    for_each (list, i, have)
        if (strcmp(jstr(have, key), jstr(item, key)) == 0) {
            json_array_set(list, i, item);
            return;
        }
    json_array_append(list, item);
}

static bool cut_by(json_t *list, const char *key, const char *value)
{
    bool found = false;
    for (size_t i = json_array_size(list); i > 0; i--)
        if (strcmp(jstr(json_array_get(list, i - 1), key), value) == 0) {
            json_array_remove(list, i - 1);
            found = true;
        }
    return found;
}

static int by_name(json_t *a, json_t *b)
{
    return strcmp(jstr(a, "Name"), jstr(b, "Name"));
}

int spec_ulimits(struct spec_edit *ed)
{
    json_t *list, *item;
    size_t i;

    if (!given(ed, "ulimit") && !given(ed, "ulimit-add") && !given(ed, "ulimit-rm"))
        return 0;
    list = json_array();
    json_array_extend(list, jget(ed->spec, CS "Ulimits"));
    for_each (flag_json(ed->fs, "ulimit-rm"), i, item)
        cut_by(list, "Name", json_string_value(item));
    for_each (flag_json(ed->fs, ed->create ? "ulimit" : "ulimit-add"), i, item)
        put_by(list, "Name", item);
    list_sort_by(list, by_name);
    jset(ed->spec, CS "Ulimits", list);
    return 0;
}

/* "name:ip" of a flag as the spec has it: "ip name". */
static json_t *host_entry(const char *text)
{
    size_t n = strcspn(text, ":");
    return json_sprintf("%s %.*s", text[n] ? text + n + 1 : "", (int)n, text);
}

/* An entry "ip name alias..." less the names that `rm` ("name" or "name:ip") takes out; NULL when none is left. */
static json_t *host_less(const char *entry, json_t *rm)
{
    struct buf b = BUF_INIT;
    char *copy = strdup(entry), *save = NULL, *ip = strtok_r(copy, " \t", &save);
    json_t *item, *ret;
    size_t i, names = 0;

    buf_puts(&b, ip ? ip : "");
    for (char *name; ip && (name = strtok_r(NULL, " \t", &save));) {
        bool gone = false;
        for_each (rm, i, item) {
            const char *r = json_string_value(item);
            size_t n = strcspn(r, ":");
            gone = gone || (strlen(name) == n && memcmp(name, r, n) == 0 && (!r[n] || strcmp(r + n + 1, ip) == 0));
        }
        if (!gone) {
            buf_printf(&b, " %s", name);
            names++;
        }
    }
    ret = names ? json_string(buf_cstr(&b)) : NULL;
    free(copy);
    buf_done(&b);
    return ret;
}

int spec_hosts(struct spec_edit *ed)
{
    const char *add = ed->create ? "host" : "host-add";
    json_t *out, *item, *entry;
    size_t i;

    if (!given(ed, add) && !given(ed, "host-rm"))
        return 0;
    out = json_array();
    for_each (jget(ed->spec, CS "Hosts"), i, item) {
        entry = host_less(json_string_value(item), flag_json(ed->fs, "host-rm"));
        if (entry)
            list_add(out, entry);
        json_decref(entry);
    }
    for_each (flag_json(ed->fs, add), i, item) {
        entry = host_entry(json_string_value(item));
        list_add(out, entry);
        json_decref(entry);
    }
    jset(ed->spec, CS "Hosts", out);
    return 0;
}

int spec_health(struct spec_edit *ed)
{
    static const char *const numbers[][2] = { { "health-interval", "Interval" },
                                              { "health-timeout", "Timeout" },
                                              { "health-start-period", "StartPeriod" },
                                              { "health-start-interval", "StartInterval" },
                                              { "health-retries", "Retries" } };
    bool any = given(ed, "health-cmd");
    json_t *h;

    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        any = any || given(ed, numbers[i][0]);
    if (flag_bool(ed->fs, "no-healthcheck")) {
        if (any)
            return err_set(ed->e, ERR_INVALID, "--no-healthcheck conflicts with --health-* options");
        jset(ed->spec, CS "Healthcheck", json_pack("{s:[s]}", "Test", "NONE"));
        return 0;
    }
    if (!any)
        return 0;
    h = jenter(ed->spec, CS "Healthcheck");
    if (strcmp(json_string_value(json_array_get(jget(h, "Test"), 0)) ?: "", "NONE") == 0)
        json_object_del(h, "Test");
    if (given(ed, "health-cmd")) {
        const char *cmd = flag_str(ed->fs, "health-cmd");
        if (*cmd)
            json_object_set_new(h, "Test", json_pack("[s,s]", "CMD-SHELL", cmd));
        else
            json_object_del(h, "Test");
    }
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (given(ed, numbers[i][0]))
            json_object_set_new(h, numbers[i][1], flag_copy(ed, numbers[i][0]));
    return 0;
}

int spec_log(struct spec_edit *ed)
{
    const char *name = flag_str(ed->fs, "log-driver");
    json_t *item, *options;
    size_t i;

    if (!*name)
        return 0;
    jset(ed->spec, TT "LogDriver", json_pack("{s:s}", "Name", name));
    if (!given(ed, "log-opt"))
        return 0;
    options = jenter(ed->spec, TT "LogDriver.Options");
    for_each (flag_json(ed->fs, "log-opt"), i, item)
        map_put(options, json_string_value(item));
    return 0;
}

static int by_target(json_t *a, json_t *b)
{
    return strcmp(jstr(a, "Target"), jstr(b, "Target"));
}

static int network_cut(struct spec_edit *ed, json_t *list)
{
    struct buf id = BUF_INIT;
    json_t *item;
    size_t i;
    int r = 0;

    for_each (flag_json(ed->fs, "network-rm"), i, item) {
        if (r == 0 && (r = ed->network_id(ed->arg, json_string_value(item), &id)) == 0)
            cut_by(list, "Target", buf_cstr(&id));
        buf_clear(&id);
    }
    buf_done(&id);
    return r;
}

static int network_put(struct spec_edit *ed, json_t *list, json_t *wanted)
{
    struct buf id = BUF_INIT;
    json_t *have, *net;
    size_t i;
    int r = ed->network_id(ed->arg, jstr(wanted, "Target"), &id);

    for_each (list, i, have)
        if (r == 0 && strcmp(jstr(have, "Target"), buf_cstr(&id)) == 0 && !ed->create)
            r = err_set(ed->e, ERR_INVALID, "service is already attached to network %s", jstr(wanted, "Target"));
    if (r == 0) {
        net = json_copy(wanted);
        json_object_set_new(net, "Target", json_string(buf_cstr(&id)));
        json_array_append_new(list, net);
    }
    buf_done(&id);
    return r;
}

int spec_networks(struct spec_edit *ed)
{
    const char *add = ed->create ? "network" : "network-add";
    json_t *list, *item;
    size_t i;
    int r;

    if (!given(ed, add) && !given(ed, "network-rm"))
        return 0;
    list = json_array();
    json_array_extend(list, jget(ed->spec, jlen(ed->spec, TT "Networks") ? TT "Networks" : "Networks"));
    jdel(ed->spec, "Networks"); /* where old specs had them */
    r = network_cut(ed, list);
    for_each (flag_json(ed->fs, add), i, item)
        if (r == 0)
            r = network_put(ed, list, item);
    list_sort_by(list, by_target);
    jset(ed->spec, TT "Networks", list);
    return r;
}

/* Fills in the ids of references and appends them to `into`; "secret not found: X" when one isn't there. */
static int refs_resolve(struct spec_edit *ed, const char *what, const char *kind, const char *id, const char *name,
                        json_t *wanted, json_t *into)
{
    json_t *names = json_array(), *seen = json_object(), *found, *item;
    size_t i;
    int r = 0;

    for_each (wanted, i, item) {
        const char *target = jstr(item, "File.Name");
        if (r == 0 && *target && json_object_get(seen, target))
            r = err_set(ed->e, ERR_INVALID, "duplicate %s target for %s not allowed", what, jstr(item, name));
        if (*target)
            json_object_set_new(seen, target, json_true());
        list_add(names, jget(item, name));
    }
    found = r == 0 ? ed->ids(ed->arg, kind, names) : NULL;
    if (r == 0 && !found)
        r = 1;
    for_each (wanted, i, item) {
        json_t *ref_id = json_object_get(found, jstr(item, name));
        if (r == 0 && !ref_id)
            r = err_set(ed->e, ERR_NOT_FOUND, "%s not found: %s", what, jstr(item, name));
        if (r == 0) {
            json_t *ref = json_deep_copy(item);
            json_object_set(ref, id, ref_id);
            json_array_append_new(into, ref);
        }
    }
    json_decref(found);
    json_decref(names);
    json_decref(seen);
    return r;
}

int spec_secrets(struct spec_edit *ed)
{
    const char *add = ed->create ? "secret" : "secret-add";
    json_t *list, *item;
    size_t i;
    int r = 0;

    if (!given(ed, add) && !given(ed, "secret-rm"))
        return 0;
    list = json_array();
    json_array_extend(list, jget(ed->spec, CS "Secrets"));
    for_each (flag_json(ed->fs, "secret-rm"), i, item)
        cut_by(list, "SecretName", json_string_value(item));
    if (given(ed, add))
        r = refs_resolve(ed, "secret", "secrets", "SecretID", "SecretName", flag_json(ed->fs, add), list);
    jset(ed->spec, CS "Secrets", list);
    return r;
}

/* The configs that stay: those not removed, and of the ones kept for a credential spec only the one still in use. */
static json_t *configs_kept(struct spec_edit *ed)
{
    json_t *list = json_array(), *config, *rm, *cred = flag_json(ed->fs, "credential-spec");
    const char *cred_id = cred ? "" : jstr(ed->spec, CS "Privileges.CredentialSpec.Config");
    size_t i, k;

    for_each (jget(ed->spec, CS "Configs"), i, config) {
        bool keep = true;
        if (jget(config, "Runtime")) {
            keep = (*cred_id && strcmp(jstr(config, "ConfigID"), cred_id) == 0) ||
                   (*jstr(cred, "Config") && strcmp(jstr(config, "ConfigName"), jstr(cred, "Config")) == 0);
        } else {
            for_each (flag_json(ed->fs, "config-rm"), k, rm)
                keep = keep && strcmp(json_string_value(rm), jstr(config, "ConfigName")) != 0;
        }
        if (keep)
            json_array_append(list, config);
    }
    return list;
}

/* The credential spec, its config by id instead of by name. */
static void set_credential(struct spec_edit *ed, json_t *cred, json_t *configs)
{
    json_t *copy = json_copy(cred), *config;
    size_t i;

    if (json_object_size(cred) == 0) {
        jdel(ed->spec, CS "Privileges.CredentialSpec");
        json_decref(copy);
        return;
    }
    for_each (configs, i, config)
        if (*jstr(cred, "Config") && strcmp(jstr(config, "ConfigName"), jstr(cred, "Config")) == 0)
            json_object_set(copy, "Config", jget(config, "ConfigID"));
    jset(ed->spec, CS "Privileges.CredentialSpec", copy);
}

int spec_configs(struct spec_edit *ed)
{
    const char *add = ed->create ? "config" : "config-add";
    json_t *cred = flag_json(ed->fs, "credential-spec"), *list, *wanted;
    int r = 0;

    if (!given(ed, add) && !given(ed, "config-rm") && !cred)
        return 0;
    list = configs_kept(ed);
    wanted = json_array();
    json_array_extend(wanted, flag_json(ed->fs, add));
    if (*jstr(cred, "Config"))
        json_array_append_new(wanted,
                              json_pack("{s:{},s:n,s:s}", "Runtime", "ConfigID", "ConfigName", jstr(cred, "Config")));
    if (json_array_size(wanted) > 0)
        r = refs_resolve(ed, "config", "configs", "ConfigID", "ConfigName", wanted, list);
    if (r == 0 && cred)
        set_credential(ed, cred, list);
    if (json_array_size(list) > 0 || jget(ed->spec, CS "Configs"))
        jset(ed->spec, CS "Configs", list);
    else
        json_decref(list);
    json_decref(wanted);
    return r;
}

static int by_source_target(json_t *a, json_t *b)
{
    int c = strcmp(jstr(a, "Source"), jstr(b, "Source"));
    return c ? c : by_target(a, b);
}

int spec_mounts(struct spec_edit *ed)
{
    json_t *list, *item, *other, *add = flag_json(ed->fs, "mount-add");
    size_t i, k;

    if (!add && !given(ed, "mount-rm"))
        return 0;
    for_each (add, i, item)
        for_each (add, k, other)
            if (k < i && by_target(item, other) == 0)
                return err_set(ed->e, ERR_INVALID, "duplicate mount target");
    list = json_array();
    json_array_extend(list, jget(ed->spec, CS "Mounts"));
    for_each (add, i, item)
        put_by(list, "Target", item);
    for_each (flag_json(ed->fs, "mount-rm"), i, item)
        cut_by(list, "Target", json_string_value(item));
    list_sort_by(list, by_source_target);
    jset(ed->spec, CS "Mounts", list);
    return 0;
}

static const char *or_default(const char *text, const char *def)
{
    return *text ? text : def;
}

static bool port_matches(json_t *port, json_t *rm)
{
    return jint(port, "TargetPort") == jint(rm, "TargetPort") &&
           strcmp(or_default(jstr(port, "Protocol"), "tcp"), or_default(jstr(rm, "Protocol"), "tcp")) == 0 &&
           strcmp(or_default(jstr(port, "PublishMode"), "ingress"), or_default(jstr(rm, "PublishMode"), "ingress")) ==
               0;
}

static int by_port(json_t *a, json_t *b)
{
    char x[96], y[96];

    snprintf(x, sizeof x, "%lld:%lld/%s/%s", (long long)jint(a, "PublishedPort"), (long long)jint(a, "TargetPort"),
             or_default(jstr(a, "Protocol"), "tcp"), or_default(jstr(a, "PublishMode"), "ingress"));
    snprintf(y, sizeof y, "%lld:%lld/%s/%s", (long long)jint(b, "PublishedPort"), (long long)jint(b, "TargetPort"),
             or_default(jstr(b, "Protocol"), "tcp"), or_default(jstr(b, "PublishMode"), "ingress"));
    return strcmp(x, y);
}

int spec_ports(struct spec_edit *ed)
{
    json_t *out, *port, *item;
    size_t i, k;

    if (!given(ed, "publish-add") && !given(ed, "publish-rm"))
        return 0;
    out = json_array();
    for_each (jget(ed->spec, "EndpointSpec.Ports"), i, port) {
        bool keep = true;
        for_each (flag_json(ed->fs, "publish-rm"), k, item)
            keep = keep && !port_matches(port, item);
        if (keep)
            json_array_append(out, port);
    }
    for_each (flag_json(ed->fs, "publish-add"), i, item) {
        bool have = false;
        for_each (out, k, port)
            have = have || by_port(port, item) == 0;
        if (!have)
            json_array_append(out, item);
    }
    list_sort_by(out, by_port);
    jset(ed->spec, "EndpointSpec.Ports", out);
    return 0;
}

int spec_prefs(struct spec_edit *ed)
{
    json_t *out, *item;
    size_t i;

    if (!given(ed, "placement-pref-add") && !given(ed, "placement-pref-rm"))
        return 0;
    out = json_array();
    json_array_extend(out, jget(ed->spec, TT "Placement.Preferences"));
    for_each (flag_json(ed->fs, "placement-pref-rm"), i, item)
        list_cut(out, item);
    json_array_extend(out, flag_json(ed->fs, "placement-pref-add"));
    jset(ed->spec, TT "Placement.Preferences", out);
    return 0;
}

int spec_generic(struct spec_edit *ed)
{
    static const char path[] = TT "Resources.Reservations.GenericResources", kind[] = "DiscreteResourceSpec.Kind";
    json_t *out, *item;
    size_t i;
    int r = 0;

    if (!given(ed, "generic-resource-add") && !given(ed, "generic-resource-rm"))
        return 0;
    out = json_array();
    json_array_extend(out, jget(ed->spec, path));
    for_each (flag_json(ed->fs, "generic-resource-add"), i, item)
        put_by(out, kind, item);
    for_each (flag_json(ed->fs, "generic-resource-rm"), i, item)
        if (r == 0 && !cut_by(out, kind, json_string_value(item)))
            r = err_set(ed->e, ERR_NOT_FOUND, "could not find generic-resource `%s` to remove it",
                        json_string_value(item));
    jset(ed->spec, path, out);
    return r;
}
