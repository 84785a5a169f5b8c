#include <poll.h>
#include <signal.h>
#include <stdlib.h>

#include "common/util/clock.h"
#include "swarmctl/cmds.h"
#include "swarmctl/conv.h"
#include "swarmctl/converge.h"
#include "swarmctl/human.h"
#include "swarmctl/imageref.h"
#include "swarmctl/jpath.h"
#include "swarmctl/output.h"
#include "swarmctl/pretty.h"
#include "swarmctl/service_flags.h"
#include "swarmctl/service_logs.h"
#include "swarmctl/spec.h"
#include "swarmctl/tasks.h"

#define CS "TaskTemplate.ContainerSpec."

static const struct flag *const scale_tables[] = { service_wait_flags, NULL };
static const struct flag *const rollback_tables[] = { service_wait_flags, progress_flags, NULL };
static const struct flag *const ls_tables[] = { filter_flags, format_flags, quiet_id_flags, NULL };
static const struct flag *const inspect_tables[] = { inspect_flags, pretty_flags, NULL };
static const struct flag *const ps_tables[] = { filter_flags, no_trunc_flags, task_ps_flags, NULL };
static const struct flag *const logs_tables[] = { no_trunc_flags, service_logs_flags, NULL };

/* ---- waiting ---- */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
    (void)sig;
    interrupted = 1;
}

static void show(void *arg, const struct progress *p)
{
    if (arg)
        display_progress(arg, p);
}

/* The tasks that count and the nodes they are on; 1 with the user told. */
static int get_tasks(struct cli *c, const json_t *service, json_t **tasks, json_t **nodes)
{
    json_t *filters = json_object();
    struct buf query = BUF_INIT;
    int r;

    filter_add(filters, "service", jstr(service, "ID"));
    filter_add(filters, "_up-to-date", "true");
    buf_puts(&query, "/tasks");
    url_filters(&query, filters);
    r = api_get(c, tasks, "%s", buf_cstr(&query));
    if (r == 0)
        r = api_get(c, nodes, "/nodes");
    buf_done(&query);
    return r == 0 ? 0 : cli_fail_api(c);
}

/* One look at the service. AGAIN, DONE, or FAILED with the user told. */
static enum converge_next look(struct cli *c, struct converge *cv, const char *path)
{
    json_t *service = NULL, *tasks = NULL, *nodes = NULL;
    struct err e = ERR_INIT;
    enum converge_next next = CONVERGE_FAILED;

    if (api_get(c, &service, "%s", path) != 0) {
        cli_fail_api(c);
    } else {
        next = converge_service(cv, service, c->now_ns(), &e);
        if (next == CONVERGE_FAILED)
            cli_fail(c, "%s", e.msg);
    }
    if (next == CONVERGE_AGAIN || next == CONVERGE_LAST) {
        bool last = next == CONVERGE_LAST;
        next = get_tasks(c, service, &tasks, &nodes) != 0
                   ? CONVERGE_FAILED
                   : converge_tasks(cv, service, tasks, nodes, c->now_ns(), last);
    }
    json_decref(service);
    json_decref(tasks);
    json_decref(nodes);
    return next;
}

int wait_service(struct cli *c, const char *name, bool quiet)
{
    struct display d = { .out = c->out, .tty = c->out_tty, .columns = c->columns };
    struct sigaction act = { .sa_handler = on_interrupt }, old;
    struct converge cv;
    struct buf path = BUF_INIT;
    enum converge_next next;
    int pause_ms = 25; /* the API has nothing to wait on: looks start close together and end at docker's 200 ms */

    fflush(c->out);
    buf_puts(&path, "/services/");
    url_path(&path, name);
    converge_init(&cv, name, show, quiet ? NULL : &d);
    interrupted = 0;
    sigaction(SIGINT, &act, &old);
    while ((next = look(c, &cv, buf_cstr(&path))) == CONVERGE_AGAIN) {
        if (!interrupted)
            poll(NULL, 0, pause_ms);
        pause_ms = pause_ms < 130 ? pause_ms * 3 / 2 : 200;
        if (interrupted) {
            if (!cv.reached && !quiet)
                fprintf(c->out,
                        "Operation continuing in background.\nUse `" PROG " service ps %s` to check progress.\n", name);
            break;
        }
    }
    sigaction(SIGINT, &old, NULL);
    converge_free(&cv);
    display_done(&d);
    buf_done(&path);
    return next == CONVERGE_FAILED;
}

bool wait_interrupted(void)
{
    return interrupted != 0;
}

/* ---- what specs need from the daemon ---- */

static int network_id(void *arg, const char *name, struct buf *id)
{
    struct cli *c = arg;
    struct buf path = BUF_INIT;
    json_t *net = NULL;

    buf_puts(&path, "/networks/");
    url_path(&path, name);
    buf_puts(&path, "?scope=swarm");
    int r = api_get(c, &net, "%s", buf_cstr(&path));
    if (r != 0)
        cli_fail_api(c);
    else
        buf_puts(id, jstr(net, "Id"));
    json_decref(net);
    buf_done(&path);
    return r;
}

static json_t *ref_ids(void *arg, const char *kind, json_t *names)
{
    struct cli *c = arg;
    struct buf path = BUF_INIT;
    json_t *filters = json_object(), *list = NULL, *ids = NULL, *item;
    size_t i;

    for_each (names, i, item)
        filter_add(filters, "name", json_string_value(item));
    buf_printf(&path, "/%s", kind);
    url_filters(&path, filters);
    if (api_get(c, &list, "%s", buf_cstr(&path)) != 0) {
        cli_fail_api(c);
    } else {
        ids = json_object();
        for_each (list, i, item)
            json_object_set(ids, jstr(item, "Spec.Name"), jget(item, "ID"));
        for_each (names, i, item) { /* a name whose content was rotated means its newest version */
            const char *name = json_string_value(item);
            if (!json_object_get(ids, name) && newest_version(list, name))
                json_object_set(ids, name, jget(newest_version(list, name), "ID"));
        }
    }
    json_decref(list);
    buf_done(&path);
    return ids;
}

/* ---- images ---- */

static void add_platforms(json_t *spec, json_t *platforms)
{
    json_t *list = json_array(), *p;
    size_t i;

    for_each (platforms, i, p) {
        const char *arch = jstr(p, "architecture"), *os = jstr(p, "os");
        if (strcmp(arch, "unknown") == 0 || strcmp(os, "unknown") == 0)
            continue;
        if (strcmp(arch, "arm") == 0)
            arch = ""; /* its variants can't be told apart here */
        json_t *one = *arch ? json_pack("{s:s,s:s}", "Architecture", arch, "OS", os) : json_pack("{s:s}", "OS", os);
        json_array_append_new(list, one);
    }
    if (json_array_size(list) > 0)
        jset(spec, "TaskTemplate.Placement.Platforms", list);
    else
        json_decref(list);
}

/* Pins the image to what the registry has under its tag now; without an answer it stays as it is, with a warning. */
static void resolve_image(struct cli *c, json_t *spec, const char *auth)
{
    const char *image = jstr(spec, CS "Image");
    const char *const headers[] = { auth, NULL };
    struct buf path = BUF_INIT, text = BUF_INIT;
    struct imageref ref;
    json_t *reply = NULL;

    buf_puts(&path, "/distribution/");
    url_path(&path, image);
    buf_puts(&path, "/json");
    if (api_raw(c, "GET", buf_cstr(&path), NULL, auth ? headers : NULL, &text) == 0)
        reply = json_loadb(text.p ? text.p : "", text.n, 0, NULL);
    if (*jstr(reply, "Descriptor.digest")) {
        add_platforms(spec, jget(reply, "Platforms"));
        if (imageref_parse(image, &ref) && ref.digest.n == 0)
            jset(spec, CS "Image", json_sprintf("%s@%s", image, jstr(reply, "Descriptor.digest")));
    } else {
        fprintf(c->err,
                "image %s could not be accessed on a registry to record\nits digest. Each node will access %s "
                "independently,\npossibly leading to different nodes running different\nversions of the image.\n",
                image, image);
    }
    json_decref(reply);
    buf_done(&path);
    buf_done(&text);
}

static void tag_image(json_t *spec)
{
    struct buf b = BUF_INIT;

    imageref_tagged(&b, jstr(spec, CS "Image"));
    jset(spec, CS "Image", json_string(buf_cstr(&b)));
    buf_done(&b);
}

static void show_warnings(struct cli *c, json_t *reply)
{
    json_t *w;
    size_t i;

    for_each (jget(reply, "Warnings"), i, w)
        fprintf(c->err, "%s\n", json_string_value(w));
}

/* Sends a spec; the reply, or NULL with the user told. */
static json_t *post_spec(struct cli *c, const char *path, json_t *spec, const char *auth)
{
    const char *const headers[] = { auth, NULL };
    struct buf text = BUF_INIT;
    json_t *reply = NULL;

    if (api_raw(c, "POST", path, spec, auth ? headers : NULL, &text) != 0) {
        cli_fail_api(c);
    } else {
        reply = json_loadb(text.p ? text.p : "", text.n, 0, NULL);
        if (!reply)
            reply = json_object();
        show_warnings(c, reply);
    }
    buf_done(&text);
    return reply;
}

/* ---- create, update, scale, rollback ---- */

static int edit_spec(struct cli *c, struct call *call, json_t *spec, bool create)
{
    struct err e = ERR_INIT;
    struct spec_edit ed = {
        .fs = &call->fs, .spec = spec, .create = create, .e = &e, .network_id = network_id, .ids = ref_ids, .arg = c
    };
    int r = spec_apply(&ed);

    return r < 0 ? cli_fail(c, "%s", e.msg) : r;
}

static int run_create(struct cli *c, struct call *call)
{
    json_t *spec = spec_new(), *reply = NULL;
    struct buf auth = BUF_INIT;
    int r;

    jset(spec, CS "Image", json_string(call->argv[0]));
    if (call->argc > 1) {
        json_t *args = json_array();
        for (int i = 1; i < call->argc; i++)
            json_array_append_new(args, json_string(call->argv[i]));
        jset(spec, CS "Args", args);
    }
    if ((r = edit_spec(c, call, spec, true)) != 0)
        goto out;
    tag_image(spec);
    if (flag_bool(&call->fs, "with-registry-auth"))
        registry_auth(c, call->argv[0], &auth);
    if (!flag_bool(&call->fs, "no-resolve-image"))
        resolve_image(c, spec, auth.n ? buf_cstr(&auth) : NULL);
    reply = post_spec(c, "/services/create", spec, auth.n ? buf_cstr(&auth) : NULL);
    r = !reply;
    if (r == 0) {
        fprintf(c->out, "%s\n", jstr(reply, "ID"));
        if (!flag_bool(&call->fs, "detach"))
            r = wait_service(c, jstr(reply, "ID"), flag_bool(&call->fs, "quiet"));
    }
out:
    json_decref(reply);
    json_decref(spec);
    buf_done(&auth);
    return r;
}

static json_t *get_service(struct cli *c, const char *name)
{
    struct buf path = BUF_INIT;
    json_t *service = NULL;

    buf_puts(&path, "/services/");
    url_path(&path, name);
    if (api_get(c, &service, "%s", buf_cstr(&path)) != 0)
        service = NULL;
    buf_done(&path);
    return service;
}

/* Rollback is the daemon's work and goes alone. */
static int only_rollback(struct cli *c, const struct call *call)
{
    static const char *const with[] = { "rollback", "detach", "quiet" };
    size_t n = 0;

    for (size_t i = 0; i < 3; i++)
        n += flag_changed(&call->fs, with[i]);
    return flag_count(&call->fs) > n ? cli_fail(c, "other flags may not be combined with --rollback") : 0;
}

static int update_service(struct cli *c, struct call *call, json_t *service)
{
    json_t *spec = jget(service, "Spec"), *reply;
    struct buf path = BUF_INIT, auth = BUF_INIT;
    bool rollback = flag_bool(&call->fs, "rollback");
    int r = rollback ? only_rollback(c, call) : edit_spec(c, call, spec, false);

    if (r == 0 && !rollback && *jstr(spec, CS "Image")) {
        tag_image(spec);
        if (flag_bool(&call->fs, "with-registry-auth"))
            registry_auth(c, jstr(spec, CS "Image"), &auth);
        if (flag_changed(&call->fs, "image") && !flag_bool(&call->fs, "no-resolve-image"))
            resolve_image(c, spec, auth.n ? buf_cstr(&auth) : NULL);
    }
    if (r == 0) {
        buf_printf(&path, "/services/%s/update?%s%sversion=%lld", jstr(service, "ID"),
                   auth.n ? "" : "registryAuthFrom=spec&", rollback ? "rollback=previous&" : "",
                   (long long)jint(service, "Version.Index"));
        reply = post_spec(c, buf_cstr(&path), spec, auth.n ? buf_cstr(&auth) : NULL);
        r = !reply;
        json_decref(reply);
    }
    buf_done(&path);
    buf_done(&auth);
    return r;
}

static int run_update(struct cli *c, struct call *call)
{
    json_t *service = get_service(c, call->argv[0]);
    int r = service ? update_service(c, call, service) : cli_fail_api(c);

    json_decref(service);
    if (r == 0)
        fprintf(c->out, "%s\n", call->argv[0]);
    if (r == 0 && !flag_bool(&call->fs, "detach"))
        r = wait_service(c, call->argv[0], flag_bool(&call->fs, "quiet"));
    return r;
}

static int run_rollback(struct cli *c, struct call *call)
{
    json_t *service = get_service(c, call->argv[0]), *reply;
    struct buf path = BUF_INIT;
    int r;

    if (!service)
        return cli_fail_api(c);
    buf_printf(&path, "/services/%s/update?rollback=previous&version=%lld", jstr(service, "ID"),
               (long long)jint(service, "Version.Index"));
    reply = post_spec(c, buf_cstr(&path), jget(service, "Spec"), NULL);
    r = !reply;
    json_decref(reply);
    json_decref(service);
    buf_done(&path);
    if (r == 0)
        fprintf(c->out, "%s\n", call->argv[0]);
    if (r == 0 && !flag_bool(&call->fs, "detach"))
        r = wait_service(c, call->argv[0], flag_bool(&call->fs, "quiet"));
    return r;
}

static int scale_one(struct cli *c, const char *name, uint64_t replicas)
{
    json_t *service = get_service(c, name), *spec = jget(service, "Spec"), *reply = NULL;
    struct buf path = BUF_INIT, text = BUF_INIT;
    int r = 0;

    if (!service)
        r = cli_fail(c, "%s: %s", name, buf_cstr(&c->why));
    else if (jget(spec, "Mode.Replicated"))
        jset(spec, "Mode.Replicated.Replicas", json_integer((json_int_t)replicas));
    else if (jget(spec, "Mode.ReplicatedJob"))
        jset(spec, "Mode.ReplicatedJob.TotalCompletions", json_integer((json_int_t)replicas));
    else
        r = cli_fail(c, "%s: scale can only be used with replicated or replicated-job mode", name);
    if (r == 0) {
        buf_printf(&path, "/services/%s/update?version=%lld", jstr(service, "ID"),
                   (long long)jint(service, "Version.Index"));
        if (api_raw(c, "POST", buf_cstr(&path), spec, NULL, &text) != 0)
            r = cli_fail(c, "%s: %s", name, buf_cstr(&c->why));
        else
            reply = json_loadb(text.p ? text.p : "", text.n, 0, NULL);
        show_warnings(c, reply);
    }
    json_decref(reply);
    json_decref(service);
    buf_done(&path);
    buf_done(&text);
    return r;
}

static int run_scale(struct cli *c, struct call *call)
{
    char **scaled = calloc((size_t)call->argc, sizeof *scaled);
    int r = 0, n = 0;

    for (int i = 0; i < call->argc; i++) {
        const char *eq = strchr(call->argv[i], '=');
        if (!eq || eq == call->argv[i] || !eq[1]) {
            free(scaled);
            return cli_fail(c, "invalid scale specifier '%s'.\nSee '%s --help'.\n\nUsage:  %s [OPTIONS] %s\n\n%s",
                            call->argv[i], call->path, call->path, call->cmd->args, call->cmd->help);
        }
    }
    for (int i = 0; i < call->argc; i++) {
        char *name = call->argv[i], *eq = strchr(name, '=');
        struct err e = ERR_INIT;
        uint64_t replicas;

        *eq = '\0';
        if (parse_go_uint(eq + 1, 10, 63, &replicas, &e) < 0) {
            r = cli_fail(c, "%s: invalid replicas value %s: %s", name, eq + 1, e.msg);
        } else if (scale_one(c, name, replicas) != 0) {
            r = 1;
        } else {
            fprintf(c->out, "%s scaled to %llu\n", name, (unsigned long long)replicas);
            scaled[n++] = name;
        }
    }
    for (int i = 0; i < n && !flag_bool(&call->fs, "detach"); i++)
        r |= wait_service(c, scaled[i], false);
    free(scaled);
    return r;
}

/* ---- ls ---- */

static const char *const ls_titles[][2] = {
    { "ID", "ID" },       { "Name", "NAME" },   { "Mode", "MODE" }, { "Replicas", "REPLICAS" },
    { "Image", "IMAGE" }, { "Ports", "PORTS" }, { NULL, NULL },
};
static const struct listing ls_listing = {
    .table = "table {{.ID}}\\t{{.Name}}\\t{{.Mode}}\\t{{.Replicas}}\\t{{.Image}}\\t{{.Ports}}",
    .raw = "id: {{.ID}}\\nname: {{.Name}}\\nmode: {{.Mode}}\\nreplicas: {{.Replicas}}\\nimage: {{.Image}}\\n"
           "ports: {{.Ports}}\\n",
    .titles = ls_titles,
};

static const char *mode_of(const json_t *s)
{
    return jget(s, "Spec.Mode.Global")          ? "global"
           : jget(s, "Spec.Mode.Replicated")    ? "replicated"
           : jget(s, "Spec.Mode.ReplicatedJob") ? "replicated job"
           : jget(s, "Spec.Mode.GlobalJob")     ? "global job"
                                                : "";
}

static void put_replicas(struct buf *b, const json_t *s)
{
    long long running = jint(s, "ServiceStatus.RunningTasks"), want = jint(s, "ServiceStatus.DesiredTasks");
    long long complete = jint(s, "ServiceStatus.CompletedTasks"),
              max = jint(s, "Spec.TaskTemplate.Placement.MaxReplicas");

    buf_printf(b, "%lld/%lld", running, want);
    if (jget(s, "Spec.Mode.ReplicatedJob"))
        buf_printf(b, " (%lld/%lld completed)", complete,
                   (long long)jint(s, "Spec.Mode.ReplicatedJob.TotalCompletions"));
    else if (jget(s, "Spec.Mode.GlobalJob"))
        buf_printf(b, " (%lld/%lld completed)", complete, want + complete);
    else if (max > 0 && jget(s, "Spec.Mode.Replicated"))
        buf_printf(b, " (max %lld per node)", max);
}

struct port {
    const char *proto;
    int64_t pub, target;
};

static int cmp_ports(const void *a, const void *b)
{
    const struct port *x = a, *y = b;
    int c = strcmp(x->proto, y->proto);
    return c ? c : (x->pub > y->pub) - (x->pub < y->pub);
}

static void put_port_run(struct buf *b, const struct port *first, const struct port *last)
{
    buf_printf(b, "%s*:%lld", b->n ? ", " : "", (long long)first->pub);
    if (last->pub > first->pub)
        buf_printf(b, "-%lld", (long long)last->pub);
    buf_printf(b, "->%lld", (long long)first->target);
    if (last->target > first->target)
        buf_printf(b, "-%lld", (long long)last->target);
    buf_printf(b, "/%s", first->proto);
}

/* Neighbouring ports are shown as one range: many published to one target, or range to range. */
static void put_ports(struct buf *b, json_t *ports)
{
    size_t n = 0, start = 0;
    struct port *v = calloc(json_array_size(ports) + 1, sizeof *v);
    json_t *p;
    size_t i;

    for_each (ports, i, p)
        if (strcmp(jstr(p, "PublishMode"), "ingress") == 0)
            v[n++] = (struct port){ jstr(p, "Protocol"), jint(p, "PublishedPort"), jint(p, "TargetPort") };
    qsort(v, n, sizeof *v, cmp_ports);
    for (i = 1; i <= n; i++) {
        bool range = v[i - 1].target != v[start].target;
        int64_t step = i < n ? v[i].target - v[i - 1].target : 0;
        bool joins = i < n && strcmp(v[i].proto, v[start].proto) == 0 && v[i].pub - v[i - 1].pub <= 1 &&
                     (step == 1 || (step == 0 && !range));
        if (!joins) {
            put_port_run(b, &v[start], &v[i - 1]);
            start = i;
        }
    }
    free(v);
}

static json_t *ls_row(json_t *s)
{
    json_t *row = json_object();
    struct buf b = BUF_INIT;

    buf_printf(&b, "%.12s", jstr(s, "ID"));
    row_text(row, "ID", &b);
    imageref_shown(&b, jstr(s, "Spec.TaskTemplate.ContainerSpec.Image"));
    row_text(row, "Image", &b);
    json_object_set_new(row, "Mode", json_string(mode_of(s)));
    json_object_set_new(row, "Name", json_string(jstr(s, "Spec.Name")));
    put_ports(&b, jget(s, "Endpoint.Ports"));
    row_text(row, "Ports", &b);
    put_replicas(&b, s);
    row_text(row, "Replicas", &b);
    buf_done(&b);
    return row;
}

static int run_ls(struct cli *c, struct call *call)
{
    bool quiet = flag_bool(&call->fs, "quiet");
    struct buf path = BUF_INIT;
    json_t *list = NULL, *rows = json_array();
    int r;

    buf_puts(&path, quiet ? "/services" : "/services?status=true");
    url_filters(&path, filters_of(&call->fs, "filter"));
    if ((r = api_get(c, &list, "%s", buf_cstr(&path))) != 0) {
        cli_fail_api(c);
    } else {
        json_t *sorted = jsorted(list, "Spec.Name"), *service;
        size_t i;
        for_each (sorted, i, service)
            json_array_append_new(rows, ls_row(service));
        json_decref(sorted);
        r = listing_print(c, &ls_listing, rows, flag_str(&call->fs, "format"), quiet);
    }
    json_decref(rows);
    json_decref(list);
    buf_done(&path);
    return r;
}

/* ---- inspect, ps, rm ---- */

static int get_one(struct cli *c, const char *ref, void *arg, struct buf *ret)
{
    (void)arg;
    return get_object(c, "/services/", ref, "?insertDefaults=true", "service", ret);
}

static json_t *network_names(struct cli *c, json_t *service)
{
    json_t *names = json_object(), *net, *n;
    size_t i;

    for_each (jget(service, "Spec.TaskTemplate.Networks"), i, n) {
        struct buf path = BUF_INIT;
        buf_puts(&path, "/networks/");
        url_path(&path, jstr(n, "Target"));
        buf_puts(&path, "?scope=swarm");
        if (api_get(c, &net, "%s", buf_cstr(&path)) == 0)
            json_object_set_new(names, jstr(net, "Id"), json_string(jstr(net, "Name")));
        json_decref(net);
        buf_done(&path);
    }
    return names;
}

static int run_service_inspect(struct cli *c, struct call *call)
{
    int r = 0;

    if (!flag_bool(&call->fs, "pretty")) {
        r = inspect_print(c, call->argv, call->argc, flag_str(&call->fs, "format"), get_one, NULL);
        c->exit_code = 0; /* docker has its exit code for bad templates everywhere but here */
        return r;
    }
    if (flag_changed(&call->fs, "format"))
        return cli_fail(c, "--format is incompatible with human friendly format");
    for (int i = 0; i < call->argc && r == 0; i++) {
        struct buf text = BUF_INIT, out = BUF_INIT;
        if ((r = get_one(c, call->argv[i], NULL, &text)) == 0) {
            json_t *service = json_loadb(text.p, text.n, 0, NULL), *names = network_names(c, service);
            pretty_service(&out, service, names, c->now_ns());
            fprintf(c->out, "%s\n", buf_cstr(&out));
            json_decref(names);
            json_decref(service);
        }
        buf_done(&text);
        buf_done(&out);
    }
    return r;
}

static json_t *list_services_by(struct cli *c, const struct call *call, const char *key)
{
    json_t *filters = json_object(), *list = NULL;
    struct buf path = BUF_INIT;

    for (int i = 0; i < call->argc; i++)
        filter_add(filters, key, call->argv[i]);
    buf_puts(&path, "/services");
    url_filters(&path, filters);
    if (api_get(c, &list, "%s", buf_cstr(&path)) != 0) {
        cli_fail_api(c);
        list = NULL;
    }
    buf_done(&path);
    return list;
}

/* The id of what the user named: whole id, then name, then the beginning of one id. 1 when two ids begin like that. */
static int match_service(const char *ref, json_t *by_id, json_t *by_name, const char **ret)
{
    json_t *s;
    size_t i, hits = 0;

    *ret = NULL;
    for_each (by_id, i, s)
        if (strcmp(jstr(s, "ID"), ref) == 0)
            *ret = jstr(s, "ID");
    for_each (by_name, i, s)
        if (!*ret && strcmp(jstr(s, "Spec.Name"), ref) == 0)
            *ret = jstr(s, "ID");
    if (*ret)
        return 0;
    for_each (by_id, i, s)
        if (strncmp(jstr(s, "ID"), ref, strlen(ref)) == 0) {
            *ret = jstr(s, "ID");
            hits++;
        }
    return hits > 1;
}

/* "self" and names of nodes in --filter node=. */
static int resolve_node_filter(struct cli *c, json_t *filters)
{
    json_t *nodes = json_object_get(filters, "node"), *out = json_object(), *v;
    struct buf id = BUF_INIT;
    const char *key;
    int r = 0;

    json_object_foreach (nodes, key, v) {
        if (r == 0 && (r = node_ref(c, key, &id)) == 0)
            json_object_set_new(out, buf_cstr(&id), json_true());
    }
    if (nodes)
        json_object_set(filters, "node", out);
    json_decref(out);
    buf_done(&id);
    return r;
}

static int run_ps(struct cli *c, struct call *call)
{
    json_t *by_id = list_services_by(c, call, "id"), *by_name = by_id ? list_services_by(c, call, "name") : NULL;
    json_t *filters = filters_of(&call->fs, "filter"), *tasks = NULL;
    struct buf path = BUF_INIT, missing = BUF_INIT;
    int r = !by_name, found = 0;

    for (int i = 0; i < call->argc && r == 0; i++) {
        const char *id;
        if (match_service(call->argv[i], by_id, by_name, &id)) {
            r = cli_fail(c, "multiple services found with provided prefix: %s", call->argv[i]);
        } else if (id) {
            filter_add(filters, "service", id);
            found++;
        } else {
            buf_printf(&missing, "%sno such service: %s", missing.n ? "\n" : "", call->argv[i]);
        }
    }
    if (r == 0 && found > 0 && (r = resolve_node_filter(c, filters)) == 0) {
        buf_puts(&path, "/tasks");
        url_filters(&path, json_incref(filters));
        r = api_get(c, &tasks, "%s", buf_cstr(&path)) != 0 ? cli_fail_api(c) : tasks_print(c, call, tasks);
    }
    if (missing.n > 0)
        r = cli_fail(c, "%s", buf_cstr(&missing));
    json_decref(filters);
    json_decref(by_id);
    json_decref(by_name);
    json_decref(tasks);
    buf_done(&path);
    buf_done(&missing);
    return r;
}

static int run_rm(struct cli *c, struct call *call)
{
    int r = 0;

    for (int i = 0; i < call->argc; i++) {
        struct buf path = BUF_INIT;
        buf_puts(&path, "/services/");
        url_path(&path, call->argv[i]);
        if (api_call(c, "DELETE", buf_cstr(&path), NULL, NULL) != 0)
            r = cli_fail_api(c);
        else
            fprintf(c->out, "%s\n", call->argv[i]);
        buf_done(&path);
    }
    return r;
}

const struct cmd service_cmds[] = {
    { .name = "create",
      .args = "IMAGE [COMMAND] [ARG...]",
      .help = "Create a new service",
      .min = 1,
      .max = -1,
      .flags = service_create_tables,
      .run = run_create,
      .raw_tail = true,
      .complete = "@image" },
    { .name = "inspect",
      .args = "SERVICE [SERVICE...]",
      .help = "Display detailed information on one or more services",
      .min = 1,
      .max = -1,
      .flags = inspect_tables,
      .run = run_service_inspect,
      .complete = "@service" },
    { .name = "logs",
      .args = "SERVICE|TASK",
      .help = "Fetch the logs of a service or task",
      .min = 1,
      .max = 1,
      .flags = logs_tables,
      .run = run_service_logs,
      .complete = "@service" },
    { .name = "ls", .aliases = "list", .help = "List services", .flags = ls_tables, .run = run_ls },
    { .name = "ps",
      .args = "SERVICE [SERVICE...]",
      .help = "List the tasks of one or more services",
      .min = 1,
      .max = -1,
      .flags = ps_tables,
      .run = run_ps,
      .complete = "@service" },
    { .name = "rm",
      .aliases = "remove",
      .args = "SERVICE [SERVICE...]",
      .help = "Remove one or more services",
      .min = 1,
      .max = -1,
      .run = run_rm,
      .complete = "@service" },
    { .name = "rollback",
      .args = "SERVICE",
      .help = "Revert changes to a service's configuration",
      .min = 1,
      .max = 1,
      .flags = rollback_tables,
      .run = run_rollback,
      .complete = "@service" },
    { .name = "scale",
      .args = "SERVICE=REPLICAS [SERVICE=REPLICAS...]",
      .help = "Scale one or multiple replicated services",
      .min = 1,
      .max = -1,
      .flags = scale_tables,
      .run = run_scale,
      .complete = "@service=" },
    { .name = "update",
      .args = "SERVICE",
      .help = "Update a service",
      .min = 1,
      .max = 1,
      .flags = service_update_tables,
      .run = run_update,
      .complete = "@service" },
    { .name = NULL },
};
