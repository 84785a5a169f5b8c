/*
 * /containers, as far as it goes: those that this node runs for tasks. They are the swarm's to start and stop, so they
 * can be listed, inspected and their logs read, and nothing else.
 */
#include <stdio.h>

#include "apid/api_resources.h"
#include "common/proto/msg_agentd.h"
#include "common/util/check.h"

/* One container: what agentd says, with what the store has of its task. */
struct container {
    const struct agent_container *c;
    struct str task; /* document */
    json_t *spec;    /* the task template; borrowed by nobody: given */
    json_t *labels;  /* given */
    struct str service_id, service_name;
    int64_t created;
    char *name; /* in the request's arena */
};

static void container_done(struct container *x)
{
    json_decref(x->spec);
    json_decref(x->labels);
}

static json_t *json_text(struct str s)
{
    return json_stringn_nocheck(s.p ? s.p : "", s.n) ?: json_string("");
}

static json_t *json_of(struct str span)
{
    struct buf b = BUF_INIT;
    json_t *o = NULL;

    if (span.n > 0) {
        mp_to_json(&b, span);
        o = json_loadb(b.p, b.n, JSON_DECODE_ANY, NULL);
    }
    buf_done(&b);
    return o;
}

static json_t *container_spec(const struct container *x)
{
    return json_object_get(x->spec, "ContainerSpec");
}

static void put_labels(struct container *x, struct str node)
{
    json_t *own = json_object_get(container_spec(x), "Labels");

    x->labels = own ? json_deep_copy(own) : json_object();
    json_object_set_new(x->labels, "com.docker.swarm.node.id", json_text(node));
    json_object_set_new(x->labels, "com.docker.swarm.service.id", json_text(x->service_id));
    json_object_set_new(x->labels, "com.docker.swarm.service.name", json_text(x->service_name));
    json_object_set_new(x->labels, "com.docker.swarm.task", json_string(""));
    json_object_set_new(x->labels, "com.docker.swarm.task.id", json_text(x->c->TaskID));
    json_object_set_new(x->labels, "com.docker.swarm.task.name", json_string(x->name));
}

/* agentd knows what it was assigned; the store, where there is one, adds when the task was made and its ports. */
static void container_read(struct req *r, struct store_snap *snap, const struct agent_container *c,
                           struct container *ret)
{
    struct container x = { .c = c, .service_id = c->ServiceID, .service_name = c->ServiceName, .created = c->Since };
    char slot[24];

    if (snap && store_get(snap, KIND_TASK, c->TaskID, &x.task) == 0)
        (void)mp_get_i64(x.task, "CreatedAt", &x.created);
    x.spec = json_of(c->Spec);
    (void)snprintf(slot, sizeof slot, "%llu", (unsigned long long)c->Slot);
    struct str place = c->Slot ? str_from(slot) : c->NodeID;
    x.name = arena_printf(&r->arena, STR_FMT "." STR_FMT "." STR_FMT, STR_ARG(c->ServiceName), STR_ARG(place),
                          STR_ARG(c->TaskID));
    if (!x.name)
        x.name = (char[]){ "" };
    put_labels(&x, c->NodeID);
    *ret = x;
}

/* ---- the pieces both views show ---- */

static const char *image_name(const struct container *x)
{
    return json_string_value(json_object_get(container_spec(x), "Image")) ?: "";
}

static json_t *mounts(const struct agent_container *c)
{
    json_t *out = json_array();

    for (size_t i = 0; i < c->Mounts.n; i++) {
        const struct agent_container_mount *m = &((const struct agent_container_mount *)c->Mounts.v)[i];
        json_t *o = json_object();
        json_object_set_new(o, "Type", json_text(m->Type));
        if (str_is(m->Type, "volume")) {
            json_object_set_new(o, "Name", json_text(m->Name));
            json_object_set_new(o, "Driver", json_string("local"));
        }
        json_object_set_new(o, "Source", json_text(m->Source));
        json_object_set_new(o, "Destination", json_text(m->Destination));
        json_object_set_new(o, "Mode", json_string(""));
        json_object_set_new(o, "RW", json_boolean(m->RW));
        json_object_set_new(o, "Propagation", json_string(""));
        json_array_append_new(out, o);
    }
    return out;
}

/* "172.16.0.5/16" of the first address. */
static void address(const struct agent_container *c, char ip[64], int *prefix)
{
    uint64_t bits = 0;

    ip[0] = '\0';
    *prefix = 0;
    if (c->Addresses.n == 0)
        return;
    struct str a = c->Addresses.v[0];
    const char *slash = memchr(a.p, '/', a.n);
    (void)str_copy(ip, 64, (struct str){ a.p, slash ? (size_t)(slash - a.p) : a.n });
    if (slash && str_u64((struct str){ slash + 1, a.n - (size_t)(slash + 1 - a.p) }, &bits))
        *prefix = (int)bits;
}

static json_t *networks(const struct agent_container *c)
{
    char ip[64];
    int prefix;

    address(c, ip, &prefix);
    if (!ip[0])
        return json_object();
    return json_pack("{s:{s:n, s:n, s:n, s:s, s:s, s:s, s:s, s:i, s:s, s:s, s:i, s:s}}", "bridge", "IPAMConfig",
                     "Links", "Aliases", "NetworkID", "", "EndpointID", "", "Gateway", "", "IPAddress", ip,
                     "IPPrefixLen", prefix, "IPv6Gateway", "", "GlobalIPv6Address", "", "GlobalIPv6PrefixLen", 0,
                     "MacAddress", "");
}

/* Ports that are published on this node itself (mode host). */
static json_t *host_ports(const struct container *x)
{
    struct str span = { NULL, 0 };

    (void)mp_path(x->task, "Status.PortStatus.Ports", &span);
    return json_of(span) ?: json_array();
}

static void put_duration(struct buf *b, long long s)
{
    long long m = s / 60, h = (s + 1800) / 3600;

    if (s < 1)
        buf_puts(b, "Less than a second");
    else if (s == 1)
        buf_puts(b, "1 second");
    else if (s < 60)
        buf_printf(b, "%lld seconds", s);
    else if (m == 1)
        buf_puts(b, "About a minute");
    else if (m < 60)
        buf_printf(b, "%lld minutes", m);
    else if (h == 1)
        buf_puts(b, "About an hour");
    else if (h < 48)
        buf_printf(b, "%lld hours", h);
    else if (h < 24ll * 7 * 2)
        buf_printf(b, "%lld days", h / 24);
    else if (h < 24ll * 30 * 2)
        buf_printf(b, "%lld weeks", h / 24 / 7);
    else if (h < 24ll * 365 * 2)
        buf_printf(b, "%lld months", h / 24 / 30);
    else
        buf_printf(b, "%lld years", h / 24 / 365);
}

static json_t *status_text(const struct agent_container *c)
{
    long long age = (clock_wall().ns - c->Since) / 1000000000;
    struct buf b = BUF_INIT;

    if (str_is(c->State, "running")) {
        buf_puts(&b, "Up ");
        put_duration(&b, age);
        if (str_is(c->Health.Status, "starting"))
            buf_puts(&b, " (health: starting)");
        else if (c->Health.Status.n > 0 && !str_is(c->Health.Status, "none"))
            buf_printf(&b, " (" STR_FMT ")", STR_ARG(c->Health.Status));
    } else if (str_is(c->State, "exited")) {
        buf_printf(&b, "Exited (%lld) ", (long long)c->ExitCode);
        put_duration(&b, age);
        buf_puts(&b, " ago");
    } else {
        buf_puts(&b, "Created");
    }
    json_t *t = json_text(buf_str(&b));
    buf_done(&b);
    return t;
}

/* Docker's one line: arguments with a blank in single quotes. */
static json_t *command_text(const struct agent_container *c)
{
    struct buf b = BUF_INIT;

    for (size_t i = 0; i < c->Argv.n; i++) {
        bool quote = i > 0 && memchr(c->Argv.v[i].p, ' ', c->Argv.v[i].n);
        buf_printf(&b, "%s%s" STR_FMT "%s", i ? " " : "", quote ? "'" : "", STR_ARG(c->Argv.v[i]), quote ? "'" : "");
    }
    json_t *t = json_text(buf_str(&b));
    buf_done(&b);
    return t;
}

/* ---- list ---- */

static json_t *summary(const struct container *x)
{
    json_t *ports = json_array(), *all = host_ports(x), *p;
    size_t i;

    json_array_foreach (all, i, p) {
        json_array_append_new(ports,
                              json_pack("{s:s, s:O, s:O, s:O}", "IP", "0.0.0.0", "PrivatePort",
                                        json_object_get(p, "TargetPort"), "PublicPort",
                                        json_object_get(p, "PublishedPort"), "Type", json_object_get(p, "Protocol")));
    }
    json_decref(all);
    return json_pack("{s:o, s:[o], s:s, s:o, s:o, s:I, s:o, s:O, s:o, s:o, s:{s:s}, s:{s:o}, s:o}", "Id",
                     json_text(x->c->ID), "Names", json_sprintf("/%s", x->name), "Image", image_name(x), "ImageID",
                     json_text(x->c->ImageID), "Command", command_text(x->c), "Created",
                     (json_int_t)(x->created / 1000000000), "Ports", ports, "Labels", x->labels, "State",
                     json_text(x->c->State), "Status", status_text(x->c), "HostConfig", "NetworkMode", "default",
                     "NetworkSettings", "Networks", networks(x->c), "Mounts", mounts(x->c));
}

static bool labels_match(const struct filters *f, json_t *labels)
{
    const struct filter *x = filters_get(f, "label");

    for (size_t i = 0; x && i < x->n; i++) {
        const char *eq = memchr(x->vals[i].p, '=', x->vals[i].n);
        size_t n = eq ? (size_t)(eq - x->vals[i].p) : x->vals[i].n;
        const char *have = json_string_value(json_object_getn(labels, x->vals[i].p, n));
        if (!have || (eq && strcmp(have, eq + 1) != 0))
            return false;
    }
    return true;
}

/* "busybox" is any of: the name as the service has it, with or without its tag, the image's id or its beginning. */
static bool ancestor_matches(const struct filters *f, const struct container *x)
{
    const struct filter *a = filters_get(f, "ancestor");
    struct str image = str_from(image_name(x)), bare = image, id = x->c->ImageID;
    const char *at = memchr(image.p, '@', image.n);

    if (!a)
        return true;
    if (at)
        image.n = bare.n = (size_t)(at - image.p);
    for (size_t i = bare.n; i-- > 0 && bare.p[i] != '/';)
        if (bare.p[i] == ':')
            bare.n = i;
    struct str tag = { image.p + bare.n, image.n - bare.n };
    struct str hex = id.n > 7 ? (struct str){ id.p + 7, id.n - 7 } : id; /* behind "sha256:" */
    bool latest = tag.n == 0 || str_is(tag, ":latest");
    for (size_t i = 0; i < a->n; i++)
        if (str_eq(a->vals[i], image) || (latest && str_eq(a->vals[i], bare)) ||
            (a->vals[i].n > 0 && (str_starts(id, a->vals[i]) || str_starts(hex, a->vals[i]))))
            return true;
    return false;
}

static bool exited_matches(const struct filters *f, const struct agent_container *c)
{
    char code[24];

    if (!filters_get(f, "exited"))
        return true;
    (void)snprintf(code, sizeof code, "%lld", (long long)c->ExitCode);
    return str_is(c->State, "exited") && filters_exact(f, "exited", str_from(code));
}

static bool name_matches(const struct filters *f, const char *name)
{
    char with_slash[200];

    (void)snprintf(with_slash, sizeof with_slash, "/%s", name);
    return filters_substr(f, "name", str_from(with_slash));
}

static bool container_matches(const struct filters *f, bool all, const struct container *x)
{
    if (!all && !filters_get(f, "status") && !filters_get(f, "exited") && !str_is(x->c->State, "running"))
        return false;
    return filters_prefix(f, "id", x->c->ID) && name_matches(f, x->name) && filters_exact(f, "status", x->c->State) &&
           exited_matches(f, x->c) && labels_match(f, x->labels) && ancestor_matches(f, x) &&
           filters_exact(f, "is-task", STR("true")) &&
           filters_exact(f, "health", x->c->Health.Status.n ? x->c->Health.Status : STR("none"));
}

static int newest_first(const void *a, const void *b)
{
    const struct container *x = a, *y = b;
    return x->created < y->created ? 1 : x->created > y->created ? -1 : strcmp(x->name, y->name);
}

static void containers_listed(struct req *r, const void *rep, const struct err *e)
{
    const struct agent_containers_reply *l = rep;
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct err ignored = ERR_INIT;
    struct filters *f = r->data;
    struct container *v;
    json_t *out = json_array();
    uint64_t limit = 0;
    size_t n = 0;

    if (e->code != 0) {
        json_decref(out);
        api_fail(r, e);
        return;
    }
    v = arena_array(&r->arena, l->Containers.n + 1, sizeof *v);
    CHECK(v);
    (void)str_u64(query_get(&r->query, "limit"), &limit);
    bool all = query_loose(&r->query, "all") || limit > 0;
    (void)store_begin(api.store, &snap, &ignored);
    for (size_t i = 0; i < l->Containers.n; i++) {
        container_read(r, snap, &((const struct agent_container *)l->Containers.v)[i], &v[n]);
        if (container_matches(f, all, &v[n]))
            n++;
        else
            container_done(&v[n]);
    }
    qsort(v, n, sizeof *v, newest_first);
    for (size_t i = 0; i < n; i++) {
        if (limit == 0 || i < limit)
            json_array_append_new(out, summary(&v[i]));
        container_done(&v[i]);
    }
    api_reply_json(r, 200, out);
}

void containers_list(struct req *r)
{
    static const char *const known[] = { "ancestor", "before", "expose",    "exited",  "health",  "id",
                                         "is-task",  "label",  "name",      "network", "publish", "since",
                                         "status",   "volume", "isolation", NULL };
    static const char *const never[] = {
        "before", "since", "network", "publish", "expose", "volume", "isolation", NULL
    };
    static const struct agent_containers everything;
    struct filters *f = arena_alloc(&r->arena, sizeof *f);

    CHECK(f);
    r->data = f;
    if (api_filters(r, f, known) < 0)
        return;
    for (size_t i = 0; never[i]; i++)
        if (filters_get(f, never[i])) {
            api_error(r, 501, "filter '%s' of containers is not supported by this version of microswarm", never[i]);
            return;
        }
    api_call(r, api.agentd, &op_agent_containers, &everything, API_AGENT_DEADLINE_MS, containers_listed);
}

/* ---- one container ---- */

static json_t *copy_or(json_t *o, const char *key, json_t *otherwise)
{
    json_t *v = json_object_get(o, key);

    if (!v)
        return otherwise;
    json_decref(otherwise);
    return json_incref(v);
}

static bool has_health(const struct agent_container *c)
{
    return c->Health.Status.n > 0 && !str_is(c->Health.Status, "none");
}

static json_t *health(const struct agent_health *h)
{
    json_t *log = json_array();
    char start[WALL_TEXT_MAX], end[WALL_TEXT_MAX];

    for (size_t i = 0; i < h->Log.n; i++) {
        const struct agent_health_result *x = &((const struct agent_health_result *)h->Log.v)[i];
        struct buf text = BUF_INIT; /* as JSON: what is not UTF-8 is replaced */
        wall_format((struct wall_ns){ x->Start }, start);
        wall_format((struct wall_ns){ x->End }, end);
        buf_json_str(&text, x->Output);
        json_t *said = json_loadb(text.p, text.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        buf_done(&text);
        json_array_append_new(log, json_pack("{s:s, s:s, s:I, s:o}", "Start", start, "End", end, "ExitCode",
                                             (json_int_t)x->ExitCode, "Output", said ?: json_string("")));
    }
    return json_pack("{s:o, s:I, s:o}", "Status", json_text(h->Status), "FailingStreak", (json_int_t)h->FailingStreak,
                     "Log", log);
}

static json_t *health_config(const struct agent_health *h)
{
    json_t *test = json_array();

    for (size_t i = 0; i < h->Test.n; i++)
        json_array_append_new(test, json_text(h->Test.v[i]));
    return json_pack("{s:o, s:I, s:I, s:I, s:I, s:I}", "Test", test, "Interval", (json_int_t)h->Interval, "Timeout",
                     (json_int_t)h->Timeout, "StartPeriod", (json_int_t)h->StartPeriod, "StartInterval",
                     (json_int_t)h->StartInterval, "Retries", (json_int_t)h->Retries);
}

static json_t *state(const struct container *x)
{
    const struct agent_container *c = x->c;
    bool runs = str_is(c->State, "running"), over = str_is(c->State, "exited");
    char since[WALL_TEXT_MAX];
    static const char never[] = "0001-01-01T00:00:00Z";

    wall_format((struct wall_ns){ c->Since }, since);
    json_t *o = json_pack("{s:o, s:b, s:b, s:b, s:b, s:b, s:I, s:I, s:s, s:s, s:s}", "Status", json_text(c->State),
                          "Running", runs, "Paused", 0, "Restarting", 0, "OOMKilled", 0, "Dead", 0, "Pid",
                          (json_int_t)c->PID, "ExitCode", (json_int_t)c->ExitCode, "Error", "", "StartedAt",
                          runs ? since : never, "FinishedAt", over ? since : never);
    if (has_health(c))
        json_object_set_new(o, "Health", health(&c->Health));
    return o;
}

static json_t *host_config(const struct container *x)
{
    json_t *limits = json_object_get(json_object_get(x->spec, "Resources"), "Limits"), *spec = container_spec(x);
    json_t *dns = json_object_get(spec, "DNSConfig"), *log = json_object_get(x->spec, "LogDriver");

    return json_pack(
        "{s:n, s:{s:o, s:o}, s:s, s:{}, s:{s:s, s:i}, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:o, s:o, s:o, s:o, s:o, "
        "s:o, s:o, s:s}",
        "Binds", "LogConfig", "Type", copy_or(log, "Name", json_string("json-file")), "Config",
        copy_or(log, "Options", json_object()), "NetworkMode", "default", "PortBindings", "RestartPolicy", "Name", "",
        "MaximumRetryCount", 0, "AutoRemove", 0, "CapAdd", copy_or(spec, "CapabilityAdd", json_null()), "CapDrop",
        copy_or(spec, "CapabilityDrop", json_null()), "Dns", copy_or(dns, "Nameservers", json_null()), "DnsOptions",
        copy_or(dns, "Options", json_null()), "DnsSearch", copy_or(dns, "Search", json_null()), "GroupAdd",
        copy_or(spec, "Groups", json_null()), "Privileged", 0, "ReadonlyRootfs",
        copy_or(spec, "ReadOnly", json_false()), "Memory", copy_or(limits, "MemoryBytes", json_integer(0)), "NanoCpus",
        copy_or(limits, "NanoCPUs", json_integer(0)), "PidsLimit", copy_or(limits, "Pids", json_null()), "Ulimits",
        copy_or(spec, "Ulimits", json_array()), "Init", copy_or(spec, "Init", json_false()), "Sysctls",
        copy_or(spec, "Sysctls", json_null()), "Isolation", "default");
}

static json_t *config(const struct container *x)
{
    json_t *spec = container_spec(x);
    char short_id[13] = "";

    (void)str_copy(short_id, sizeof short_id, (struct str){ x->c->ID.p, x->c->ID.n < 12 ? x->c->ID.n : 12 });
    json_t *o =
        json_pack("{s:o, s:s, s:o, s:b, s:b, s:b, s:o, s:o, s:b, s:o, s:o, s:s, s:n, s:o, s:o, s:n, s:O, s:o}",
                  "Hostname", copy_or(spec, "Hostname", json_string(short_id)), "Domainname", "", "User",
                  copy_or(spec, "User", json_string("")), "AttachStdin", 0, "AttachStdout", 0, "AttachStderr", 0, "Tty",
                  copy_or(spec, "TTY", json_false()), "OpenStdin", copy_or(spec, "OpenStdin", json_false()),
                  "StdinOnce", 0, "Env", copy_or(spec, "Env", json_array()), "Cmd", copy_or(spec, "Args", json_null()),
                  "Image", image_name(x), "Volumes", "WorkingDir", copy_or(spec, "Dir", json_string("")), "Entrypoint",
                  copy_or(spec, "Command", json_null()), "OnBuild", "Labels", x->labels, "StopSignal",
                  copy_or(spec, "StopSignal", json_string("SIGTERM")));
    if (has_health(x->c))
        json_object_set_new(o, "Healthcheck", health_config(&x->c->Health));
    return o;
}

static json_t *ports(const struct container *x)
{
    json_t *out = json_object(), *all = host_ports(x), *p;
    char key[40];
    size_t i;

    json_array_foreach (all, i, p) {
        (void)snprintf(key, sizeof key, "%lld/%.10s", (long long)json_integer_value(json_object_get(p, "TargetPort")),
                       json_string_value(json_object_get(p, "Protocol")) ?: "tcp");
        json_object_set_new(
            out, key,
            json_pack("[{s:s, s:o}]", "HostIp", "0.0.0.0", "HostPort",
                      json_sprintf("%lld", (long long)json_integer_value(json_object_get(p, "PublishedPort")))));
    }
    json_decref(all);
    return out;
}

static void inspect(struct req *r, const struct container *x)
{
    json_t *args = json_array();
    char created[WALL_TEXT_MAX], ip[64];
    int prefix;

    for (size_t i = 1; i < x->c->Argv.n; i++)
        json_array_append_new(args, json_text(x->c->Argv.v[i]));
    wall_format((struct wall_ns){ x->created }, created);
    address(x->c, ip, &prefix);
    api_reply_json(
        r, 200,
        json_pack("{s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:i, s:s, s:s, s:n, s:o, s:{s:n, s:s}, s:o, s:o, s:{s:s, s:s, "
                  "s:i, s:o, s:o}}",
                  "Id", json_text(x->c->ID), "Created", created, "Path",
                  json_text(x->c->Argv.n ? x->c->Argv.v[0] : STR("")), "Args", args, "State", state(x), "Image",
                  json_text(x->c->ImageID), "Name", json_sprintf("/%s", x->name), "RestartCount", 0, "Driver",
                  "overlayfs", "Platform", "linux", "ExecIDs", "HostConfig", host_config(x), "GraphDriver", "Data",
                  "Name", "overlayfs", "Mounts", mounts(x->c), "Config", config(x), "NetworkSettings", "Bridge", "",
                  "IPAddress", ip, "IPPrefixLen", prefix, "Ports", ports(x), "Networks", networks(x->c)));
}

enum wish { WISH_INSPECT, WISH_LOGS, WISH_OTHER };

static bool is_named(struct str ref, const char *name)
{
    if (str_starts(ref, STR("/")))
        ref = (struct str){ ref.p + 1, ref.n - 1 };
    return str_is(ref, name);
}

/* agentd found by the beginning of an id or by a task's id; which of them was meant? Answers when it is none. */
static bool choose(struct req *r, struct store_snap *snap, const struct agent_containers_reply *l,
                   struct container *ret)
{
    struct str ref = r->params[0];

    for (size_t i = 0; i < l->Containers.n; i++) {
        const struct agent_container *c = &((const struct agent_container *)l->Containers.v)[i];
        container_read(r, snap, c, ret);
        bool by_id = str_starts(c->ID, ref);
        if ((by_id && (l->Containers.n == 1 || c->ID.n == ref.n)) || is_named(ref, ret->name))
            return true;
        container_done(ret);
        if (by_id) {
            api_error(r, 400, "multiple IDs found with provided prefix: " STR_FMT, STR_ARG(ref));
            return false;
        }
    }
    api_error(r, 404, "No such container: " STR_FMT, STR_ARG(ref));
    return false;
}

static void looked_up(struct req *r, const void *rep, const struct err *e)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    enum wish wish = *(enum wish *)r->data;
    struct err se = ERR_INIT;
    struct container x;

    if (e->code != 0) {
        api_fail(r, e);
        return;
    }
    (void)store_begin(api.store, &snap, &se);
    if (!choose(r, snap, rep, &x))
        return;
    if (wish == WISH_INSPECT)
        inspect(r, &x);
    else if (wish == WISH_OTHER)
        api_error(r, 501, "container %s belongs to a service: change the service instead", x.name);
    struct str task = arena_str(&r->arena, x.c->TaskID);
    bool tty = json_is_true(json_object_get(container_spec(&x), "TTY"));
    container_done(&x);
    snap = store_end(snap);
    if (wish == WISH_LOGS)
        container_logs(r, task, tty);
}

/* By id, by its unique beginning, or by the name "service.slot.task", whose last part agentd knows. */
static void with_container(struct req *r, enum wish wish)
{
    enum wish *keep = arena_alloc(&r->arena, sizeof *keep);
    struct str ref = r->params[0];
    struct agent_containers in = { .ID = ref };

    CHECK(keep);
    *keep = wish;
    r->data = keep;
    for (size_t i = ref.n; i-- > 0;)
        if (ref.p[i] == '.') {
            in.ID = (struct str){ ref.p + i + 1, ref.n - i - 1 };
            break;
        }
    if (in.ID.n == 0 || in.ID.n > 64)
        api_error(r, 404, "No such container: " STR_FMT, STR_ARG(ref));
    else
        api_call(r, api.agentd, &op_agent_containers, &in, API_AGENT_DEADLINE_MS, looked_up);
}

void containers_inspect(struct req *r)
{
    with_container(r, WISH_INSPECT);
}

void containers_logs(struct req *r)
{
    with_container(r, WISH_LOGS);
}

void containers_other(struct req *r)
{
    with_container(r, WISH_OTHER);
}
