#include "swarmctl/pretty.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/util/clock.h"
#include "swarmctl/human.h"
#include "swarmctl/jpath.h"

#define TT "Spec.TaskTemplate."
#define CS TT "ContainerSpec."

/* A line "label value" when there is a value. */
static void put_some(struct buf *b, const char *label, const char *value)
{
    if (*value)
        buf_printf(b, "%s%s\n", label, value);
}

static void put_duration(struct buf *b, const char *label, json_t *v)
{
    buf_puts(b, label);
    go_duration(b, json_integer_value(v));
    buf_putc(b, '\n');
}

/* A map in the order of its keys: before each key `lead`, between key and value `sep` (left out with an empty value).
 */
static void put_map(struct buf *b, json_t *map, const char *lead, const char *sep)
{
    size_t n;
    const char **keys = jkeys_sorted(map, &n);

    for (size_t i = 0; i < n; i++) {
        const char *v = json_string_value(json_object_get(map, keys[i]));
        buf_printf(b, "%s%s", lead, keys[i]);
        if (v && *v)
            buf_printf(b, "%s%s", sep, v);
        buf_putc(b, '\n');
    }
    free(keys);
}

static void put_list(struct buf *b, const char *label, json_t *list, const char *sep, bool sep_last)
{
    json_t *item;
    size_t i;

    if (json_array_size(list) == 0)
        return;
    buf_puts(b, label);
    for_each (list, i, item)
        buf_printf(b, "%s%s", json_string_value(item), i + 1 < json_array_size(list) || sep_last ? sep : "");
}

static void put_mode(struct buf *b, json_t *s)
{
    buf_puts(b, "Service Mode:");
    if (jget(s, "Spec.Mode.Global"))
        buf_puts(b, "\tGlobal\n");
    else if (jget(s, "Spec.Mode.Replicated")) {
        buf_puts(b, "\tReplicated\n");
        if (jget(s, "Spec.Mode.Replicated.Replicas"))
            buf_printf(b, " Replicas:\t%" PRId64 "\n", jint(s, "Spec.Mode.Replicated.Replicas"));
    } else {
        /* docker leaves this empty for jobs */
        buf_printf(b, "\t%s\n",
                   jget(s, "Spec.Mode.ReplicatedJob") ? "Replicated job"
                   : jget(s, "Spec.Mode.GlobalJob")   ? "Global job"
                                                      : "");
    }
}

static void put_ago(struct buf *b, const char *label, const char *text, int64_t now_ns)
{
    struct wall_ns t;

    if (!wall_parse(str_from(text), &t))
        return;
    buf_puts(b, label);
    human_duration(b, now_ns - t.ns);
    buf_puts(b, " ago\n");
}

static void put_update_status(struct buf *b, json_t *s, int64_t now_ns)
{
    json_t *u = jget(s, "UpdateStatus");

    if (!u || !*jstr(u, "State"))
        return;
    buf_printf(b, "UpdateStatus:\n State:\t\t%s\n", jstr(u, "State"));
    put_ago(b, " Started:\t", jstr(u, "StartedAt"), now_ns);
    if (strcmp(jstr(u, "State"), "completed") == 0)
        put_ago(b, " Completed:\t", jstr(u, "CompletedAt"), now_ns);
    buf_printf(b, " Message:\t%s\n", jstr(u, "Message"));
}

static void put_placement(struct buf *b, json_t *s)
{
    json_t *prefs = jget(s, TT "Placement.Preferences"), *p;
    size_t i;

    buf_puts(b, "Placement:\n");
    if (jlen(s, TT "Placement.Constraints")) {
        put_list(b, " Constraints:\t[", jget(s, TT "Placement.Constraints"), " ", false);
        buf_puts(b, "]\n");
    }
    if (json_array_size(prefs) > 0) {
        buf_puts(b, " Preferences:   [");
        for_each (prefs, i, p)
            buf_printf(b, "%sspread=%s", i ? " " : "", jstr(p, "Spread.SpreadDescriptor"));
        buf_puts(b, "]\n");
    }
    if (jint(s, TT "Placement.MaxReplicas"))
        buf_printf(b, " Max Replicas Per Node:   %" PRId64 "\n", jint(s, TT "Placement.MaxReplicas"));
}

static void put_update_config(struct buf *b, json_t *u, const char *title, const char *order)
{
    if (!u)
        return;
    buf_printf(b, "%s:\n Parallelism:\t%" PRId64 "\n", title, jint(u, "Parallelism"));
    if (jint(u, "Delay") > 0)
        put_duration(b, " Delay:\t\t", jget(u, "Delay"));
    buf_printf(b, " On failure:\t%s\n", jstr(u, "FailureAction"));
    if (jint(u, "Monitor") > 0)
        put_duration(b, " Monitoring Period: ", jget(u, "Monitor"));
    buf_printf(b, " Max failure ratio: %g\n %s%s\n", jnum(u, "MaxFailureRatio"), order, jstr(u, "Order"));
}

static void put_mounts(struct buf *b, json_t *mounts)
{
    json_t *m;
    size_t i;

    if (json_array_size(mounts) > 0)
        buf_puts(b, "Mounts:\n");
    for_each (mounts, i, m)
        buf_printf(b, " Target:\t%s\n  Source:\t%s\n  ReadOnly:\t%s\n  Type:\t\t%s\n", jstr(m, "Target"),
                   jstr(m, "Source"), jbool(m, "ReadOnly") ? "true" : "false", jstr(m, "Type"));
}

static void put_refs(struct buf *b, const char *title, json_t *refs, const char *name)
{
    json_t *r;
    size_t i;

    if (json_array_size(refs) > 0)
        buf_printf(b, "%s:\n", title);
    for_each (refs, i, r)
        buf_printf(b, " Target:\t%s\n  Source:\t%s\n", jstr(r, "File.Name"), jstr(r, name));
}

static void put_container(struct buf *b, json_t *s)
{
    json_t *add = jget(s, CS "CapabilityAdd"), *drop = jget(s, CS "CapabilityDrop"), *u;
    size_t i;

    buf_printf(b, "ContainerSpec:\n Image:\t\t%s\n", jstr(s, CS "Image"));
    put_list(b, " Args:\t\t", jget(s, CS "Args"), " ", true);
    buf_puts(b, jlen(s, CS "Args") ? "\n" : "");
    put_list(b, " Env:\t\t", jget(s, CS "Env"), " ", true);
    buf_puts(b, jlen(s, CS "Env") ? "\n" : "");
    put_some(b, " Dir:\t\t", jstr(s, CS "Dir"));
    if (jget(s, CS "Init"))
        buf_printf(b, " Init:\t\t%s\n", jbool(s, CS "Init") ? "true" : "false");
    put_some(b, " User: ", jstr(s, CS "User"));
    if (json_array_size(add) + json_array_size(drop) > 0)
        buf_puts(b, "Capabilities:\n");
    put_list(b, " Add: ", add, ", ", false);
    buf_puts(b, json_array_size(add) ? "\n" : "");
    put_list(b, " Drop: ", drop, ", ", false);
    buf_puts(b, json_array_size(drop) ? "\n" : "");
    if (jlen(s, CS "Sysctls")) {
        buf_puts(b, "SysCtls:\n");
        put_map(b, jget(s, CS "Sysctls"), " ", ": ");
    }
    if (jlen(s, CS "Ulimits"))
        buf_puts(b, "Ulimits:\n");
    for_each (jget(s, CS "Ulimits"), i, u)
        buf_printf(b, " %s: %" PRId64 ":%" PRId64 "\n", jstr(u, "Name"), jint(u, "Soft"), jint(u, "Hard"));
    put_mounts(b, jget(s, CS "Mounts"));
    put_refs(b, "Configs", jget(s, CS "Configs"), "ConfigName");
    put_refs(b, "Secrets", jget(s, CS "Secrets"), "SecretName");
}

static void put_log_driver(struct buf *b, json_t *s)
{
    if (!jget(s, TT "LogDriver"))
        return;
    buf_puts(b, "Log Driver:\n");
    put_some(b, " Name:\t\t", jstr(s, TT "LogDriver.Name"));
    if (jlen(s, TT "LogDriver.Options")) {
        buf_puts(b, " LogOpts:\n");
        put_map(b, jget(s, TT "LogDriver.Options"), "  ", ":       ");
    }
    buf_putc(b, '\n');
}

static void put_cpus_memory(struct buf *b, json_t *r)
{
    if (jint(r, "NanoCPUs") > 0)
        buf_printf(b, "  CPU:\t\t%.9g\n", (double)jint(r, "NanoCPUs") / 1e9);
    if (jint(r, "MemoryBytes")) {
        buf_puts(b, "  Memory:\t");
        human_bytes(b, (double)jint(r, "MemoryBytes"));
        buf_putc(b, '\n');
    }
}

static void put_resources(struct buf *b, json_t *s)
{
    json_t *res = jget(s, TT "Resources.Reservations"), *lim = jget(s, TT "Resources.Limits");

    if (!jget(s, TT "Resources"))
        return;
    buf_puts(b, "Resources:\n");
    if (jint(res, "NanoCPUs") > 0 || jint(res, "MemoryBytes") > 0) {
        buf_puts(b, " Reservations:\n");
        put_cpus_memory(b, res);
    }
    if (jint(lim, "NanoCPUs") > 0 || jint(lim, "MemoryBytes") > 0 || jint(lim, "Pids") > 0) {
        buf_puts(b, " Limits:\n");
        put_cpus_memory(b, lim);
    }
    if (jint(lim, "Pids") > 0)
        buf_printf(b, "  PIDs:\t\t%" PRId64 "\n", jint(lim, "Pids"));
}

static void put_networks(struct buf *b, json_t *s, json_t *names)
{
    json_t *net;
    size_t i;

    if (!jlen(s, TT "Networks"))
        return;
    buf_puts(b, "Networks:");
    for_each (jget(s, TT "Networks"), i, net) {
        const char *name = json_string_value(json_object_get(names, jstr(net, "Target")));
        buf_printf(b, " %s", name ? name : jstr(net, "Target"));
    }
    buf_puts(b, " \n");
}

static void put_ports(struct buf *b, json_t *ports)
{
    json_t *p;
    size_t i;

    if (json_array_size(ports) == 0) {
        buf_putc(b, '\n');
        return;
    }
    buf_puts(b, "\nPorts:");
    for_each (ports, i, p)
        buf_printf(b, "\n PublishedPort = %" PRId64 "\n  Protocol = %s\n  TargetPort = %" PRId64 "\n  PublishMode = %s",
                   jint(p, "PublishedPort"), jstr(p, "Protocol"), jint(p, "TargetPort"), jstr(p, "PublishMode"));
    buf_puts(b, " \n");
}

static void put_health(struct buf *b, json_t *h)
{
    json_t *t;
    size_t i;

    if (!h)
        return;
    buf_puts(b, " Healthcheck:\n");
    put_duration(b, "  Interval = ", jget(h, "Interval"));
    buf_printf(b, "  Retries = %" PRId64 "\n", jint(h, "Retries"));
    put_duration(b, "  StartPeriod =\t", jget(h, "StartPeriod"));
    put_duration(b, "  Timeout =\t", jget(h, "Timeout"));
    if (jlen(h, "Test"))
        buf_puts(b, "  Tests:\n");
    for_each (jget(h, "Test"), i, t)
        buf_printf(b, "\t Test = %s\n", json_string_value(t));
}

void pretty_service(struct buf *b, json_t *s, json_t *networks, int64_t now_ns)
{
    buf_printf(b, "\nID:\t\t%s\nName:\t\t%s\n", jstr(s, "ID"), jstr(s, "Spec.Name"));
    if (jlen(s, "Spec.Labels")) {
        buf_puts(b, "Labels:\n");
        put_map(b, jget(s, "Spec.Labels"), " ", "=");
    }
    put_mode(b, s);
    put_update_status(b, s, now_ns);
    put_placement(b, s);
    put_update_config(b, jget(s, "Spec.UpdateConfig"), "UpdateConfig", "Update order:      ");
    put_update_config(b, jget(s, "Spec.RollbackConfig"), "RollbackConfig", "Rollback order:    ");
    put_container(b, s);
    put_log_driver(b, s);
    put_resources(b, s);
    put_networks(b, s, networks);
    buf_printf(b, "Endpoint Mode:\t%s", jstr(s, "Spec.EndpointSpec.Mode"));
    put_ports(b, jget(s, "Endpoint.Ports"));
    put_health(b, jget(s, CS "Healthcheck"));
}

/* "Log:\t\tjournald, json-file", a line for each type of plugin. */
static void put_plugins(struct buf *b, json_t *plugins)
{
    json_t *by_type = json_object(), *p;
    size_t i, n;

    for_each (plugins, i, p) {
        const char *have = json_string_value(json_object_get(by_type, jstr(p, "Type")));
        json_object_set_new(by_type, jstr(p, "Type"),
                            json_sprintf("%s%s%s", have ? have : "", have ? ", " : "", jstr(p, "Name")));
    }
    const char **types = jkeys_sorted(by_type, &n);
    if (n > 0)
        buf_puts(b, "Plugins:\n");
    for (i = 0; i < n; i++)
        buf_printf(b, " %s:\t\t%s\n", types[i], json_string_value(json_object_get(by_type, types[i])));
    free(types);
    json_decref(by_type);
}

static void put_manager(struct buf *b, json_t *m)
{
    if (!m)
        return;
    buf_printf(b, "Manager Status:\n Address:\t\t%s\n Raft Status:\t\t", jstr(m, "Addr"));
    capitalize(b, str_from(jstr(m, "Reachability")));
    buf_printf(b, "\n Leader:\t\t%s\n", jbool(m, "Leader") ? "Yes" : "No");
}

static void put_tls(struct buf *b, json_t *tls)
{
    if (!*jstr(tls, "TrustRoot") && !*jstr(tls, "CertIssuerSubject"))
        return;
    buf_printf(b, "TLS Info:\n TrustRoot:\n%s\n Issuer Subject:\t%s\n Issuer Public Key:\t%s\n", jstr(tls, "TrustRoot"),
               jstr(tls, "CertIssuerSubject"), jstr(tls, "CertIssuerPublicKey"));
}

void pretty_node(struct buf *b, json_t *n)
{
    struct buf t = BUF_INIT;

    buf_printf(b, "ID:\t\t\t%s\n", jstr(n, "ID"));
    put_some(b, "Name:\t\t\t", jstr(n, "Spec.Name"));
    if (jlen(n, "Spec.Labels")) {
        buf_puts(b, "Labels:\n");
        put_map(b, jget(n, "Spec.Labels"), " - ", "=");
    }
    go_time(&t, str_from(jstr(n, "CreatedAt")));
    buf_printf(b, "Hostname:              \t%s\nJoined at:             \t", jstr(n, "Description.Hostname"));
    capitalize(b, buf_str(&t));
    buf_puts(b, "\nStatus:\n State:\t\t\t");
    capitalize(b, str_from(jstr(n, "Status.State")));
    buf_putc(b, '\n');
    if (*jstr(n, "Status.Message")) {
        buf_puts(b, " Message:              \t");
        capitalize(b, str_from(jstr(n, "Status.Message")));
        buf_putc(b, '\n');
    }
    buf_puts(b, " Availability:         \t");
    capitalize(b, str_from(jstr(n, "Spec.Availability")));
    buf_putc(b, '\n');
    put_some(b, " Address:\t\t", jstr(n, "Status.Addr"));
    put_manager(b, jget(n, "ManagerStatus"));
    buf_printf(
        b, "Platform:\n Operating System:\t%s\n Architecture:\t\t%s\nResources:\n CPUs:\t\t\t%" PRId64 "\n Memory:\t\t",
        jstr(n, "Description.Platform.OS"), jstr(n, "Description.Platform.Architecture"),
        jint(n, "Description.Resources.NanoCPUs") / 1000000000);
    if (jint(n, "Description.Resources.MemoryBytes"))
        human_bytes(b, (double)jint(n, "Description.Resources.MemoryBytes"));
    buf_putc(b, '\n');
    put_plugins(b, jget(n, "Description.Engine.Plugins"));
    buf_printf(b, "Engine Version:\t\t%s\n", jstr(n, "Description.Engine.EngineVersion"));
    if (jlen(n, "Description.Engine.Labels")) {
        buf_puts(b, "Engine Labels:\n");
        put_map(b, jget(n, "Description.Engine.Labels"), " - ", "=");
    }
    put_tls(b, jget(n, "Description.TLSInfo"));
    buf_done(&t);
}
