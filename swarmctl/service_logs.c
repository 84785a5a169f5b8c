#include "swarmctl/service_logs.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>

#include "swarmctl/cmds.h"
#include "swarmctl/conv.h"
#include "swarmctl/jpath.h"
#include "swarmctl/tasks.h"

#define FRAME_MAX (16u << 20)

const struct flag service_logs_flags[] = {
    { .name = "details", .type = &T_BOOL, .help = "Show extra details provided to logs" },
    { .name = "follow", .shorthand = 'f', .type = &T_BOOL, .help = "Follow log output" },
    { .name = "no-resolve", .type = &T_BOOL, .help = "Do not map IDs to Names in output" },
    { .name = "no-task-ids", .type = &T_BOOL, .help = "Do not include task IDs in output" },
    { .name = "raw", .type = &T_BOOL, .help = "Do not neatly format logs" },
    { .name = "since",
      .type = &T_STRING,
      .help = "Show logs since timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)" },
    { .name = "tail",
      .shorthand = 'n',
      .type = &T_STRING,
      .def = "all",
      .help = "Number of lines to show from the end of the logs" },
    { .name = "timestamps", .shorthand = 't', .type = &T_BOOL, .help = "Show timestamps" },
    FLAGS_END,
};

bool frames_feed(struct frames *f, const char *p, size_t n)
{
    size_t at = 0;
    bool ok = true;

    buf_put(&f->pending, p, n);
    while (ok && f->pending.n - at >= 8) {
        const unsigned char *h = (const unsigned char *)f->pending.p + at;
        size_t len = (size_t)h[4] << 24 | (size_t)h[5] << 16 | (size_t)h[6] << 8 | h[7];
        if (h[0] > 3 || h[1] || h[2] || h[3] || len > FRAME_MAX)
            return false;
        if (f->pending.n - at - 8 < len)
            break;
        ok = f->line(f->arg, h[0], (struct str){ f->pending.p + at + 8, len });
        at += 8 + len;
    }
    if (at > 0)
        memmove(f->pending.p, f->pending.p + at, f->pending.n - at);
    f->pending.n -= at;
    return ok && !f->pending.failed;
}

static bool unescape(struct str s, struct buf *b)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '+') {
            buf_putc(b, ' ');
        } else if (s.p[i] != '%') {
            buf_putc(b, s.p[i]);
        } else {
            char hex[3] = "";
            if (i + 2 >= s.n || !isxdigit((unsigned char)s.p[i + 1]) || !isxdigit((unsigned char)s.p[i + 2]))
                return false;
            memcpy(hex, s.p + i + 1, 2);
            buf_putc(b, (char)strtol(hex, NULL, 16));
            i += 2;
        }
    }
    return true;
}

json_t *details_parse(struct str text)
{
    json_t *map = json_object();
    struct buf k = BUF_INIT, v = BUF_INIT;
    bool ok = true;

    while (ok && text.n > 0) {
        const char *comma = memchr(text.p, ',', text.n);
        struct str pair = { text.p, comma ? (size_t)(comma - text.p) : text.n };
        const char *eq = memchr(pair.p, '=', pair.n);
        ok = eq && unescape((struct str){ pair.p, (size_t)(eq - pair.p) }, &k) &&
             unescape((struct str){ eq + 1, (size_t)(pair.p + pair.n - eq - 1) }, &v);
        if (ok)
            ok = json_object_set_new(map, buf_cstr(&k), json_stringn(v.p ? v.p : "", v.n)) == 0;
        buf_clear(&k);
        buf_clear(&v);
        text = comma ? (struct str){ comma + 1, text.n - pair.n - 1 } : (struct str){ NULL, 0 };
    }
    buf_done(&k);
    buf_done(&v);
    if (ok)
        return map;
    json_decref(map);
    return NULL;
}

/* One run of the command. */
struct logs {
    struct cli *c;
    const struct call *call;
    struct resolver names;
    json_t *prefixes; /* task id -> "svc.1.taskid@node" */
    int slot_width;
    struct frames frames;
    bool raw, tty, colour;
    char why[256]; /* what stopped it */
};

static const char *const colours[] = { "36", "33", "32", "35", "34", "96", "93", "92", "95", "94" };

/* "web.1.61lu4iwnjxe1@host", padded so that slots of one and two digits line up. */
static const char *prefix_of(struct logs *l, const char *service_id, const char *node_id, const char *task_id)
{
    json_t *known = json_object_get(l->prefixes, task_id), *task = NULL;
    struct buf path = BUF_INIT, b = BUF_INIT;
    long long slot = 0;

    if (known)
        return json_string_value(known);
    const char *node = resolve_node(&l->names, node_id), *service = resolve_service(&l->names, service_id);
    buf_puts(&path, "/tasks/");
    url_path(&path, task_id);
    if (api_get(l->c, &task, "%s", buf_cstr(&path)) == 0)
        slot = jint(task, "Slot");
    buf_printf(&b, "%s.%lld", service, slot);
    if (!flag_bool(&l->call->fs, "no-task-ids"))
        buf_printf(&b, ".%.*s", flag_bool(&l->call->fs, "no-trunc") ? 64 : 12, task_id);
    buf_printf(&b, "@%s", node);
    for (int i = snprintf(NULL, 0, "%lld", slot); i < l->slot_width; i++)
        buf_putc(&b, ' ');
    if (l->colour) {
        struct buf coloured = BUF_INIT;
        size_t n = json_object_size(l->prefixes) % (sizeof colours / sizeof colours[0]);
        buf_printf(&coloured, "\x1b[%sm%s    |\x1b[0m ", colours[n], buf_cstr(&b));
        buf_done(&b);
        b = coloured;
    } else {
        buf_puts(&b, "    | ");
    }
    json_object_set_new(l->prefixes, task_id, json_string(buf_cstr(&b)));
    json_decref(task);
    buf_done(&path);
    buf_done(&b);
    return json_string_value(json_object_get(l->prefixes, task_id));
}

/* Up to the next blank; *rest is what follows it. */
static bool cut_word(struct str *rest, struct str *word)
{
    const char *blank = memchr(rest->p, ' ', rest->n);

    if (!blank)
        return false;
    *word = (struct str){ rest->p, (size_t)(blank - rest->p) };
    *rest = (struct str){ blank + 1, rest->n - word->n - 1 };
    return true;
}

static void put_details(FILE *to, json_t *details)
{
    size_t n;
    const char **keys = jkeys_sorted(details, &n);

    for (size_t i = 0; i < n; i++)
        fprintf(to, "%s%s=%s", i ? "," : "", keys[i], json_string_value(json_object_get(details, keys[i])));
    free(keys);
    fputc(' ', to);
}

static bool pretty_line(struct logs *l, FILE *to, struct str payload)
{
    struct str rest = payload, stamp = { NULL, 0 }, details_text;
    json_t *details;
    char node[64], service[64], task[64];

    if ((flag_bool(&l->call->fs, "timestamps") && !cut_word(&rest, &stamp)) || !cut_word(&rest, &details_text) ||
        !(details = details_parse(details_text))) {
        snprintf(l->why, sizeof l->why, "invalid context in log message: %.*s",
                 (int)(payload.n < 160 ? payload.n : 160), payload.p);
        return false;
    }
    snprintf(node, sizeof node, "%.63s", json_string_value(json_object_get(details, "com.docker.swarm.node.id")) ?: "");
    snprintf(service, sizeof service, "%.63s",
             json_string_value(json_object_get(details, "com.docker.swarm.service.id")) ?: "");
    snprintf(task, sizeof task, "%.63s", json_string_value(json_object_get(details, "com.docker.swarm.task.id")) ?: "");
    json_object_del(details, "com.docker.swarm.node.id");
    json_object_del(details, "com.docker.swarm.service.id");
    json_object_del(details, "com.docker.swarm.task.id");
    bool ok = *node && *service && *task;
    if (ok) {
        const char *prefix = prefix_of(l, service, node, task);
        if (stamp.n)
            fprintf(to, STR_FMT " ", STR_ARG(stamp));
        fputs(prefix, to);
        if (flag_bool(&l->call->fs, "details"))
            put_details(to, details);
        fwrite(rest.p, 1, rest.n, to);
    } else {
        snprintf(l->why, sizeof l->why, "missing %s id in details", !*node ? "node" : !*service ? "service" : "task");
    }
    json_decref(details);
    return ok;
}

static bool on_frame(void *arg, int stream, struct str payload)
{
    struct logs *l = arg;
    FILE *to = stream == 2 ? l->c->err : l->c->out;

    if (stream == 3) {
        snprintf(l->why, sizeof l->why, "error from daemon in stream: %.*s", (int)(payload.n < 200 ? payload.n : 200),
                 payload.p);
        return false;
    }
    if (!l->raw)
        return pretty_line(l, to, payload);
    fwrite(payload.p, 1, payload.n, to);
    return true;
}

static bool on_logs(const char *p, size_t n, void *arg)
{
    struct logs *l = arg;
    bool ok = true;

    if (l->tty)
        fwrite(p, 1, n, l->c->out);
    else
        ok = frames_feed(&l->frames, p, n);
    if (!ok && !l->why[0])
        snprintf(l->why, sizeof l->why, "unrecognized bytes in the log stream");
    fflush(l->c->out);
    fflush(l->c->err);
    return ok && !ferror(l->c->out);
}

/* Whether the name is a service or a task, and what of it matters here; 1 with the user told. */
static int find_target(struct logs *l, const char *name, const char **ret_kind)
{
    struct buf path = BUF_INIT;
    json_t *j = NULL;
    int r = 0;

    *ret_kind = "services";
    buf_puts(&path, "/services/");
    url_path(&path, name);
    if (api_get(l->c, &j, "%s", buf_cstr(&path)) == 0) {
        l->tty = jbool(j, "Spec.TaskTemplate.ContainerSpec.TTY");
        if (jget(j, "Spec.Mode.Replicated.Replicas"))
            l->slot_width = snprintf(NULL, 0, "%" PRId64, jint(j, "Spec.Mode.Replicated.Replicas"));
    } else if (l->c->status != 404) {
        r = cli_fail_api(l->c);
    } else {
        *ret_kind = "tasks";
        buf_clear(&path);
        buf_puts(&path, "/tasks/");
        url_path(&path, name);
        if (api_get(l->c, &j, "%s", buf_cstr(&path)) == 0) {
            l->tty = jbool(j, "Spec.ContainerSpec.TTY");
            l->slot_width = snprintf(NULL, 0, "%" PRId64, jint(j, "Slot"));
        } else {
            r = l->c->status == 404 ? cli_fail(l->c, "no such task or service: %s", name) : cli_fail_api(l->c);
        }
    }
    json_decref(j);
    buf_done(&path);
    return r;
}

static int build_path(struct logs *l, const char *kind, struct buf *path)
{
    const struct flagset *fs = &l->call->fs;
    struct buf since = BUF_INIT;
    int r = 0;

    buf_printf(path, "/%s/", kind);
    url_path(path, l->call->argv[0]);
    buf_puts(path, "/logs?stdout=1&stderr=1");
    if (flag_bool(fs, "details") || !l->raw)
        url_query(path, "details", "1");
    if (flag_bool(fs, "follow"))
        url_query(path, "follow", "1");
    if (flag_bool(fs, "timestamps"))
        url_query(path, "timestamps", "1");
    if (flag_changed(fs, "since")) {
        r = since_text(l->c, flag_str(fs, "since"), &since);
        url_query(path, "since", buf_cstr(&since));
    }
    url_query(path, "tail", flag_str(fs, "tail"));
    buf_done(&since);
    return r;
}

int run_service_logs(struct cli *c, struct call *call)
{
    struct logs l = { .c = c, .call = call, .slot_width = 1, .raw = flag_bool(&call->fs, "raw") };
    struct buf path = BUF_INIT;
    const char *kind;
    int r;

    l.frames = (struct frames){ .line = on_frame, .arg = &l };
    l.colour = c->out_tty && !getenv("NO_COLOR");
    l.prefixes = json_object();
    resolver_init(&l.names, c, flag_bool(&call->fs, "no-resolve"));
    r = find_target(&l, call->argv[0], &kind);
    if (r == 0 && l.tty && !l.raw)
        r = cli_fail(c, "tty service logs only supported with --raw");
    if (r == 0)
        r = build_path(&l, kind, &path);
    if (r == 0 && api_stream(c, "GET", buf_cstr(&path), -1, NULL, NULL, on_logs, &l) != 0)
        r = cli_fail_api(c);
    if (l.why[0])
        r = cli_fail(c, "%s", l.why);
    json_decref(l.prefixes);
    resolver_done(&l.names);
    buf_done(&l.frames.pending);
    buf_done(&path);
    return r;
}
