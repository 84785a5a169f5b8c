/* version, info, events, inspect */
#include <inttypes.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <time.h>

#include "common/daemon/daemon.h" /* MICROSWARM_VERSION */
#include "swarmctl/cmds.h"
#include "swarmctl/conv.h"
#include "swarmctl/format.h"
#include "swarmctl/human.h"
#include "swarmctl/info.h"
#include "swarmctl/jpath.h"
#include "swarmctl/output.h"
#include "swarmctl/tabw.h"

static const struct flag events_flags[] = {
    { .name = "format", .type = &T_STRING, .help = FORMAT_INSPECT_HELP },
    { .name = "since", .type = &T_STRING, .help = "Show all events created since timestamp" },
    { .name = "until", .type = &T_STRING, .help = "Stream events until this timestamp" },
    FLAGS_END,
};
static const struct flag inspect_any_flags[] = {
    { .name = "size", .shorthand = 's', .type = &T_BOOL, .help = "Display total file sizes if the type is container" },
    { .name = "type",
      .type = &T_STRING,
      .help = "Only inspect objects of the given type",
      .choices = "config,container,image,network,node,plugin,secret,service,task,volume" },
    FLAGS_END,
};
const struct flag *const version_tables[] = { inspect_flags, NULL };
const struct flag *const events_tables[] = { filter_flags, events_flags, NULL };
const struct flag *const inspect_any_tables[] = { inspect_flags, inspect_any_flags, NULL };

/* ---- version ---- */

static json_t *client_version(void)
{
    struct utsname u;

    uname(&u);
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s}", "Version", MICROSWARM_VERSION, "ApiVersion", "", "DefaultAPIVersion",
                     "1.50", "Os", "linux", "Arch", strcmp(u.machine, "x86_64") == 0 ? "amd64" : u.machine, "Context",
                     "default");
}

/* The daemon's reply with an "Engine" among its components, whichever daemon it is. */
static void add_engine(json_t *server)
{
    json_t *parts = jget(server, "Components"), *part;
    size_t i;

    for_each (parts, i, part)
        if (strcmp(jstr(part, "Name"), "Engine") == 0)
            return;
    if (!parts) {
        parts = json_array();
        json_object_set_new(server, "Components", parts);
    }
    json_array_insert_new(
        parts, 0,
        json_pack("{s:s,s:s,s:{s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s}}", "Name", "Engine", "Version", jstr(server, "Version"),
                  "Details", "ApiVersion", jstr(server, "ApiVersion"), "MinAPIVersion", jstr(server, "MinAPIVersion"),
                  "GitCommit", jstr(server, "GitCommit"), "GoVersion", jstr(server, "GoVersion"), "Os",
                  jstr(server, "Os"), "Arch", jstr(server, "Arch"), "BuildTime", jstr(server, "BuildTime"),
                  "Experimental", jbool(server, "Experimental") ? "true" : "false"));
}

/* "2026-05-07T21:09:36Z" as "Thu May  7 21:09:36 2026"; other text as it is. */
static void put_build_time(struct buf *b, const char *text)
{
    struct tm tm = { 0 };
    char out[64];

    if (strptime(text, "%Y-%m-%dT%H:%M:%S", &tm)) {
        mktime(&tm);
        strftime(out, sizeof out, "%a %b %e %H:%M:%S %Y", &tm);
        text = out;
    }
    buf_puts(b, text);
}

static void put_engine(struct buf *b, json_t *part)
{
    json_t *d = jget(part, "Details");

    buf_printf(b, "  Version:\t%s\n  API version:\t%s (minimum version %s)\n", jstr(part, "Version"),
               jstr(d, "ApiVersion"), jstr(d, "MinAPIVersion"));
    if (*jstr(d, "GoVersion"))
        buf_printf(b, "  Go version:\t%s\n", jstr(d, "GoVersion"));
    if (*jstr(d, "GitCommit"))
        buf_printf(b, "  Git commit:\t%s\n", jstr(d, "GitCommit"));
    if (*jstr(d, "BuildTime")) {
        buf_puts(b, "  Built:\t");
        put_build_time(b, jstr(d, "BuildTime"));
        buf_putc(b, '\n');
    }
    buf_printf(b, "  OS/Arch:\t%s/%s\n  Experimental:\t%s\n", jstr(d, "Os"), jstr(d, "Arch"), jstr(d, "Experimental"));
}

static void put_component(struct buf *b, json_t *part)
{
    size_t n;
    json_t *d = jget(part, "Details");
    const char **keys = jkeys_sorted(d, &n);

    buf_printf(b, "  Version:\t%s\n", jstr(part, "Version"));
    for (size_t i = 0; i < n; i++)
        buf_printf(b, "  %s:\t%s\n", keys[i], json_string_value(json_object_get(d, keys[i])) ?: "");
    free(keys);
}

static void print_version(struct cli *c, json_t *client, json_t *server)
{
    struct buf b = BUF_INIT, out = BUF_INIT;
    json_t *part;
    size_t i;

    buf_printf(&b, "Client:\n Version:\t%s\n API version:\t%s\n OS/Arch:\t%s/%s\n Context:\t%s\n",
               jstr(client, "Version"), jstr(client, "ApiVersion"), jstr(client, "Os"), jstr(client, "Arch"),
               jstr(client, "Context"));
    if (server) {
        buf_printf(&b, "\nServer:%s%s\n", *jstr(server, "Platform.Name") ? " " : "", jstr(server, "Platform.Name"));
        for_each (jget(server, "Components"), i, part) {
            buf_printf(&b, " %s:\n", jstr(part, "Name"));
            if (strcmp(jstr(part, "Name"), "Engine") == 0)
                put_engine(&b, part);
            else
                put_component(&b, part);
        }
    }
    tabw_format(&out, buf_str(&b), 20, 1);
    fwrite(out.p, 1, out.n, c->out);
    buf_done(&b);
    buf_done(&out);
}

/* An object through --format; a template that can't be parsed ends with its own exit code. */
static int print_formatted(struct cli *c, const char *format, json_t *data)
{
    struct tmpl *t = NULL;
    struct err e = ERR_INIT;
    struct buf out = BUF_INIT;
    int r = 0;

    if (format_parse(&t, strcmp(format, "json") == 0 ? "{{json .}}" : format, &e) < 0) {
        cli_fail(c, "template parsing error: %s", e.msg);
        return cli_exit(c, EXIT_TEMPLATE);
    }
    if (format_exec(t, data, TMPL_API, &out, &e) < 0)
        r = cli_fail(c, "template parsing error: %s", e.msg);
    fwrite(out.p ? out.p : "", 1, out.n, c->out);
    fputc('\n', c->out);
    tmpl_free(t);
    buf_done(&out);
    return r;
}

int run_version(struct cli *c, struct call *call)
{
    const char *format = flag_str(&call->fs, "format");
    json_t *client = client_version(), *server = NULL, *both;
    int r = api_get(c, &server, "/version");

    if (r == 0)
        add_engine(server);
    else
        cli_fail_api(c);
    json_object_set_new(client, "ApiVersion", json_string(c->api_version[0] ? c->api_version : "1.50"));
    if (*format) {
        both = json_object();
        json_object_set(both, "Client", client);
        json_object_set_new(both, "Server", server ? json_incref(server) : json_null());
        r |= print_formatted(c, format, both);
        json_decref(both);
    } else {
        print_version(c, client, server);
    }
    json_decref(client);
    json_decref(server);
    return r;
}

/* ---- info ---- */

int run_info(struct cli *c, struct call *call)
{
    const char *format = flag_str(&call->fs, "format");
    json_t *info = NULL, *w;
    struct buf b = BUF_INIT;
    size_t i;
    int r = api_get(c, &info, "/info");

    if (r != 0)
        cli_fail_api(c);
    if (*format) {
        if (!info)
            info = json_object();
        json_object_set_new(info, "ClientInfo",
                            json_pack("{s:b,s:s,s:s,s:[],s:n}", "Debug", 0, "Version", MICROSWARM_VERSION, "Context",
                                      "default", "Plugins", "Warnings"));
        r |= print_formatted(c, format, info);
    } else {
        fprintf(c->out, "Client:\n Version:    %s\n Context:    default\n Debug Mode: false\n\nServer:\n",
                MICROSWARM_VERSION);
        if (info) {
            info_print(&b, info);
            fwrite(b.p, 1, b.n, c->out);
            fputc('\n', c->out);
        }
        fflush(c->out);
        for_each (jget(info, "Warnings"), i, w)
            fprintf(c->err, "%s\n", json_string_value(w));
    }
    json_decref(info);
    buf_done(&b);
    return r;
}

/* ---- events ---- */

struct events {
    struct cli *c;
    struct tmpl *t;
    struct buf pending;
    int r;
};

static void print_event(FILE *out, json_t *ev)
{
    int64_t ns = jint(ev, "timeNano"), s = jint(ev, "time");
    json_t *attrs = jget(ev, "Actor.Attributes");
    time_t when = (time_t)(ns ? ns / 1000000000 : s);
    struct tm tm;
    char text[64], zone[16];
    size_t n;

    if (ns || s) {
        localtime_r(&when, &tm);
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
        strftime(zone, sizeof zone, "%z", &tm);
        fprintf(out, "%s.%09" PRId64, text, ns % 1000000000);
        if (tm.tm_gmtoff == 0)
            fputs("Z ", out);
        else
            fprintf(out, "%.3s:%s ", zone, zone + 3);
    }
    fprintf(out, "%s %s %s", jstr(ev, "Type"), jstr(ev, "Action"), jstr(ev, "Actor.ID"));
    const char **keys = jkeys_sorted(attrs, &n);
    for (size_t i = 0; i < n; i++)
        fprintf(out, "%s%s=%s", i ? ", " : " (", keys[i], json_string_value(json_object_get(attrs, keys[i])) ?: "");
    fputs(n ? ")\n" : "\n", out);
    free(keys);
}

static bool on_events(const char *p, size_t n, void *arg)
{
    struct events *es = arg;
    struct err e = ERR_INIT;
    json_error_t je;
    json_t *ev;

    buf_put(&es->pending, p, n);
    while (es->r == 0 && es->pending.n > 0 &&
           (ev = json_loadb(es->pending.p, es->pending.n, JSON_DISABLE_EOF_CHECK, &je)) != NULL) {
        size_t used = (size_t)je.position;
        while (used < es->pending.n && strchr("\r\n\x1e ", es->pending.p[used]))
            used++;
        memmove(es->pending.p, es->pending.p + used, es->pending.n - used);
        es->pending.n -= used;
        if (es->t) {
            struct buf out = BUF_INIT;
            if (format_exec(es->t, ev, TMPL_API, &out, &e) < 0)
                es->r = cli_fail(es->c, "%s", e.msg);
            fprintf(es->c->out, "%s\n", buf_cstr(&out));
            buf_done(&out);
        } else {
            print_event(es->c->out, ev);
        }
        json_decref(ev);
    }
    fflush(es->c->out);
    return es->r == 0 && !ferror(es->c->out) && !es->pending.failed;
}

int run_events(struct cli *c, struct call *call)
{
    static const char *const bounds[] = { "since", "until" };
    const char *format = flag_str(&call->fs, "format");
    struct events es = { .c = c };
    struct buf path = BUF_INIT, when = BUF_INIT;
    struct err e = ERR_INIT;
    int r = 0;

    if (*format && format_parse(&es.t, strcmp(format, "json") == 0 ? "{{json .}}" : format, &e) < 0) {
        cli_fail(c, "Error parsing format: %s", e.msg);
        return cli_exit(c, EXIT_TEMPLATE);
    }
    buf_puts(&path, "/events");
    for (size_t i = 0; i < 2 && r == 0; i++)
        if (flag_changed(&call->fs, bounds[i]) && (r = since_text(c, flag_str(&call->fs, bounds[i]), &when)) == 0) {
            url_query(&path, bounds[i], buf_cstr(&when));
            buf_clear(&when);
        }
    url_filters(&path, filters_of(&call->fs, "filter"));
    if (r == 0 && api_stream(c, "GET", buf_cstr(&path), -1, NULL, NULL, on_events, &es) != 0)
        r = cli_fail_api(c);
    r |= es.r;
    tmpl_free(es.t);
    buf_done(&es.pending);
    buf_done(&path);
    buf_done(&when);
    return r;
}

/* ---- inspect ---- */

static const struct kind {
    const char *name, *prefix, *suffix;
    bool swarm; /* asked for only where this node is a manager */
} kinds[] = {
    { "container", "/containers/", "/json", false },
    { "image", "/images/", "/json", false },
    { "network", "/networks/", "", false },
    { "volume", "/volumes/", "", false },
    { "service", "/services/", "?insertDefaults=true", true },
    { "task", "/tasks/", "", true },
    { "node", "/nodes/", "", true },
    { "plugin", "/plugins/", "/json", false },
    { "secret", "/secrets/", "", true },
    { "config", "/configs/", "", true },
};

struct any {
    const char *type; /* "": whatever has that name */
    bool size;
    int manager; /* -1: not asked yet */
};

static bool is_manager(struct cli *c, struct any *a)
{
    if (a->manager < 0) {
        json_t *info = NULL;
        a->manager = api_get(c, &info, "/info") == 0 && jbool(info, "Swarm.ControlAvailable");
        json_decref(info);
    }
    return a->manager;
}

static int get_any(struct cli *c, const char *ref, void *arg, struct buf *ret)
{
    struct any *a = arg;

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct buf path = BUF_INIT;
        if (*a->type && strcmp(a->type, kinds[i].name) != 0)
            continue;
        if (!*a->type && kinds[i].swarm && !is_manager(c, a))
            continue;
        buf_puts(&path, kinds[i].prefix);
        url_path(&path, ref);
        buf_puts(&path, kinds[i].suffix);
        if (a->size && i == 0)
            url_query(&path, "size", "1");
        int r = api_raw(c, "GET", buf_cstr(&path), NULL, NULL, ret);
        buf_done(&path);
        if (r == 0)
            return 0;
        const char *why = buf_cstr(&c->why);
        bool skip = c->status == 404 ||
                    (c->status > 0 && (strstr(why, "not supported") || strstr(why, "invalid reference format")));
        if (*a->type || !skip)
            return cli_fail_api(c);
    }
    return cli_fail(c, "Error: No such object: %s", ref);
}

int run_inspect(struct cli *c, struct call *call)
{
    struct any a = { .type = flag_str(&call->fs, "type"), .size = flag_bool(&call->fs, "size"), .manager = -1 };
    bool known = !*a.type;
    static const char all[] = "\"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", "
                              "\"service\", \"task\", \"volume\"";

    if (flag_changed(&call->fs, "type") && !*a.type)
        return cli_fail(c, "type is empty: must be one of %s", all);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        known = known || strcmp(a.type, kinds[i].name) == 0;
    if (!known)
        return cli_fail(c, "unknown type: \"%s\": must be one of %s", a.type, all);
    return inspect_print(c, call->argv, call->argc, flag_str(&call->fs, "format"), get_any, &a);
}

const struct cmd system_cmds[] = {
    { .name = "events",
      .help = "Get real time events from the server",
      .flags = events_tables,
      .run = run_events,
      .also = "events" },
    { .name = "info",
      .help = "Display system-wide information",
      .flags = version_tables,
      .run = run_info,
      .also = "info" },
    { .name = NULL },
};
