/*
 * secret, config: create, inspect, ls, rm, and rotate, which docker does not have.
 *
 * The content of a secret or config never changes, and neither does a name. So a rotation makes another object, NAME.v2
 * (then NAME.v3, ...) with the label microswarm.version-of=NAME, points every service at it, waits for their updates,
 * and removes the older ones. In the services the reference keeps the name NAME and its file: --secret NAME and
 * --secret-rm NAME go on to mean what they meant.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/util/base64.h"
#include "common/util/clock.h"
#include "swarmctl/cmds.h"
#include "swarmctl/conv.h"
#include "swarmctl/human.h"
#include "swarmctl/jpath.h"
#include "swarmctl/output.h"
#include "swarmctl/spec_lists.h"

#define CONTENT_MAX (1u << 20) /* a byte more than any daemon takes is enough to be told so */
#define ROUNDS_MAX 3           /* services that came while others were updated are updated, too */
#define RACES_MAX 10
#define LOOK_MS 50

struct noun {
    const char *word, *path, *refs, *id_key, *name_key; /* refs: below ContainerSpec */
    bool secret;
};
static const struct noun secret_noun = { "secret", "/secrets", "Secrets", "SecretID", "SecretName", true };
static const struct noun config_noun = { "config", "/configs", "Configs", "ConfigID", "ConfigName", false };

static const struct flag driver_flags[] = {
    { .name = "driver", .shorthand = 'd', .type = &T_STRING, .help = "Secret driver" },
    FLAGS_END,
};
static const struct flag create_flags[] = {
    { .name = "label", .shorthand = 'l', .type = &T_LABELS, .help = "Labels" },
    { .name = "template-driver", .type = &T_STRING, .help = "Template driver", .choices = "golang" },
    FLAGS_END,
};
static const struct flag *const create_secret_tables[] = { driver_flags, create_flags, NULL };
static const struct flag *const create_config_tables[] = { create_flags, NULL };
static const struct flag *const ls_tables[] = { filter_flags, format_flags, quiet_id_flags, NULL };
static const struct flag *const inspect_tables[] = { inspect_flags, pretty_flags, NULL };
static const struct flag *const rotate_tables[] = { progress_flags, NULL };

/* ---- content ---- */

static void wipe(struct buf *b)
{
    if (b->p)
        explicit_bzero(b->p, b->cap);
    buf_done(b);
}

/* read_content - a file, or with "-" standard input; in base64. */
static int read_content(struct cli *c, const struct noun *k, const char *file, struct buf *ret)
{
    struct buf raw = { .limit = CONTENT_MAX + 1 };
    char *room = buf_reserve(&raw, CONTENT_MAX + 1); /* never moved */
    int fd = strcmp(file, "-") == 0 ? c->in_fd : open(file, O_RDONLY | O_CLOEXEC), r = 0;
    ssize_t n = 1;

    if (fd < 0 || !room)
        r = cli_fail(c, "error reading content from \"%s\": open %s: %s", file, file, strerror(errno));
    while (r == 0 && n != 0 && raw.n <= CONTENT_MAX) {
        n = read(fd, room + raw.n, CONTENT_MAX + 1 - raw.n);
        if (n < 0 && errno != EINTR)
            r = cli_fail(c, "error reading content from \"%s\": %s", file, strerror(errno));
        raw.n += n > 0 ? (size_t)n : 0;
    }
    if (r == 0 && raw.n > CONTENT_MAX)
        r = cli_fail(c, "error reading content from \"%s\": it is longer than any %s may be", file, k->word);
    if (r == 0)
        base64_put(ret, buf_str(&raw));
    if (fd >= 0 && fd != c->in_fd)
        close(fd);
    wipe(&raw);
    return r;
}

static json_t *labels_of(const struct flagset *fs)
{
    json_t *map = json_object(), *item;
    size_t i;

    for_each (flag_json(fs, "label"), i, item)
        map_put(map, json_string_value(item));
    return map;
}

/* ---- create ---- */

static int post(struct cli *c, const struct noun *k, json_t *body, struct buf *ret_id)
{
    struct buf path = BUF_INIT;
    json_t *reply = NULL;
    int r;

    buf_printf(&path, "%s/create", k->path);
    r = api_call(c, "POST", buf_cstr(&path), body, &reply);
    if (r == 0)
        buf_puts(ret_id, jstr(reply, "ID"));
    json_decref(reply);
    buf_done(&path);
    return r == 0 ? 0 : cli_fail_api(c);
}

static int run_create(struct cli *c, struct call *call, const struct noun *k)
{
    struct buf data = BUF_INIT, id = BUF_INIT;
    const char *driver = k->secret ? flag_str(&call->fs, "driver") : "";
    json_t *body;
    int r = 0;

    if (*driver && call->argc > 1)
        return cli_fail(c, "when using secret driver secret data must be empty");
    if (!*driver && call->argc < 2)
        return cli_fail(c, "\"%s\" requires a file, or - for standard input", call->path);
    if (call->argc > 1)
        r = read_content(c, k, call->argv[1], &data);
    body = json_pack("{s:s,s:o}", "Name", call->argv[0], "Labels", labels_of(&call->fs));
    if (call->argc > 1)
        json_object_set_new(body, "Data", json_string(buf_cstr(&data)));
    if (*driver)
        json_object_set_new(body, "Driver", json_pack("{s:s}", "Name", driver));
    if (*flag_str(&call->fs, "template-driver"))
        json_object_set_new(body, "Templating", json_pack("{s:s}", "Name", flag_str(&call->fs, "template-driver")));
    if (r == 0)
        r = post(c, k, body, &id);
    if (r == 0)
        fprintf(c->out, "%s\n", buf_cstr(&id));
    json_decref(body);
    wipe(&data);
    buf_done(&id);
    return r;
}

/* ---- ls ---- */

static const char *const ls_titles[][2] = {
    { "ID", "ID" },
    { "Name", "NAME" },
    { "Driver", "DRIVER" },
    { "CreatedAt", "CREATED" },
    { "UpdatedAt", "UPDATED" },
    { "Labels", "LABELS" },
    { NULL, NULL },
};
static const struct listing secret_listing = {
    .table = "table {{.ID}}\\t{{.Name}}\\t{{.Driver}}\\t{{.CreatedAt}}\\t{{.UpdatedAt}}",
    .titles = ls_titles,
};
static const struct listing config_listing = {
    .table = "table {{.ID}}\\t{{.Name}}\\t{{.CreatedAt}}\\t{{.UpdatedAt}}",
    .titles = ls_titles,
};

static void put_ago(struct cli *c, json_t *row, const char *key, const char *when)
{
    struct buf b = BUF_INIT;
    struct wall_ns t;

    if (wall_parse(str_from(when), &t)) {
        human_duration(&b, c->now_ns() - t.ns);
        buf_puts(&b, " ago");
    }
    row_text(row, key, &b);
    buf_done(&b);
}

static json_t *ls_row(struct cli *c, const struct noun *k, json_t *o)
{
    json_t *row = json_object(), *value;
    struct buf b = BUF_INIT;
    const char *key;

    put_ago(c, row, "CreatedAt", jstr(o, "CreatedAt"));
    if (k->secret)
        json_object_set_new(row, "Driver", json_string(jstr(o, "Spec.Driver.Name")));
    json_object_set_new(row, "ID", json_string(jstr(o, "ID")));
    json_object_foreach (jget(o, "Spec.Labels"), key, value)
        buf_printf(&b, "%s%s=%s", b.n ? "," : "", key, json_string_value(value));
    row_text(row, "Labels", &b);
    json_object_set_new(row, "Name", json_string(jstr(o, "Spec.Name")));
    put_ago(c, row, "UpdatedAt", jstr(o, "UpdatedAt"));
    buf_done(&b);
    return row;
}

static int run_ls(struct cli *c, struct call *call, const struct noun *k)
{
    struct buf path = BUF_INIT;
    json_t *list = NULL, *rows = json_array(), *o;
    size_t i;
    int r;

    buf_puts(&path, k->path);
    url_filters(&path, filters_of(&call->fs, "filter"));
    if (api_get(c, &list, "%s", buf_cstr(&path)) != 0) {
        r = cli_fail_api(c);
    } else {
        json_t *sorted = jsorted(list, "Spec.Name");
        for_each (sorted, i, o)
            json_array_append_new(rows, ls_row(c, k, o));
        json_decref(sorted);
        r = listing_print(c, k->secret ? &secret_listing : &config_listing, rows, flag_str(&call->fs, "format"),
                          flag_bool(&call->fs, "quiet"));
    }
    json_decref(rows);
    json_decref(list);
    buf_done(&path);
    return r;
}

/* ---- inspect ---- */

static int get_one(struct cli *c, const char *ref, void *arg, struct buf *ret)
{
    const struct noun *k = arg;
    return get_object(c, k->secret ? "/secrets/" : "/configs/", ref, "", NULL, ret);
}

/* put_time - docker prints it in lower case here. */
static void put_time(struct buf *b, const char *head, const char *when)
{
    struct buf t = BUF_INIT;

    go_time(&t, str_from(when));
    for (size_t i = 0; i < t.n; i++)
        t.p[i] = t.p[i] >= 'A' && t.p[i] <= 'Z' ? (char)(t.p[i] + 32) : t.p[i];
    buf_printf(b, "%s%s\n", head, buf_cstr(&t));
    buf_done(&t);
}

static void pretty(struct buf *b, const struct noun *k, json_t *o)
{
    const char *gap = k->secret ? "              " : "\t\t\t", *key;
    json_t *value;

    buf_printf(b, "ID:%s%s\nName:%s%s\n", gap, jstr(o, "ID"), gap, jstr(o, "Spec.Name"));
    if (jlen(o, "Spec.Labels"))
        buf_puts(b, "Labels:\n");
    json_object_foreach (jget(o, "Spec.Labels"), key, value)
        buf_printf(b, " - %s%s%s\n", key, *json_string_value(value) ? "=" : "", json_string_value(value));
    if (k->secret)
        buf_printf(b, "Driver:            %s\n", jstr(o, "Spec.Driver.Name"));
    put_time(b, k->secret ? "Created at:        " : "Created at:            \t", jstr(o, "CreatedAt"));
    put_time(b, k->secret ? "Updated at:        " : "Updated at:            \t", jstr(o, "UpdatedAt"));
    if (!k->secret) {
        buf_puts(b, "Data:\n");
        (void)base64_take(str_from(jstr(o, "Spec.Data")), b);
        buf_putc(b, '\n');
    }
}

static int run_inspect_of(struct cli *c, struct call *call, const struct noun *k)
{
    int r = 0;

    if (!flag_bool(&call->fs, "pretty"))
        return inspect_print(c, call->argv, call->argc, flag_str(&call->fs, "format"), get_one, (void *)k);
    if (flag_changed(&call->fs, "format"))
        return cli_fail(c, "--format is incompatible with human friendly format");
    for (int i = 0; i < call->argc && r == 0; i++) {
        struct buf text = BUF_INIT, out = BUF_INIT;
        if ((r = get_one(c, call->argv[i], (void *)k, &text)) == 0) {
            json_t *o = json_loadb(text.p, text.n, 0, NULL);
            pretty(&out, k, o);
            fwrite(buf_cstr(&out), 1, out.n, c->out);
            json_decref(o);
        }
        buf_done(&text);
        buf_done(&out);
    }
    return r;
}

/* ---- rm ---- */

static int delete_one(struct cli *c, const struct noun *k, const char *ref)
{
    struct buf path = BUF_INIT;

    buf_printf(&path, "%s/", k->path);
    url_path(&path, ref);
    int r = api_call(c, "DELETE", buf_cstr(&path), NULL, NULL);
    buf_done(&path);
    return r;
}

static int run_rm(struct cli *c, struct call *call, const struct noun *k)
{
    int r = 0;

    for (int i = 0; i < call->argc; i++)
        if (delete_one(c, k, call->argv[i]) == 0)
            fprintf(c->out, "%s\n", call->argv[i]);
        else
            r = cli_fail_api(c);
    return r;
}

/* ---- rotate ---- */

/* version_number - 1 for NAME itself, N for NAME.vN with the label; 0: another one's. */
static long version_number(json_t *o, const char *name)
{
    const char *own = jstr(o, "Spec.Name");
    size_t n = strlen(name);
    char *end;

    if (strcmp(own, name) == 0)
        return 1;
    const char *of = json_string_value(json_object_get(jget(o, "Spec.Labels"), VERSION_LABEL));
    if (!of || strcmp(of, name) != 0 || strncmp(own, name, n) != 0 || strncmp(own + n, ".v", 2) != 0)
        return 0;
    long v = strtol(own + n + 2, &end, 10);
    return *end == '\0' && v > 1 ? v : 0;
}

json_t *newest_version(json_t *list, const char *name)
{
    json_t *o, *best = NULL;
    long most = 0;
    size_t i;

    for_each (list, i, o) {
        long v = version_number(o, name);
        if (v > most) {
            most = v;
            best = o;
        }
    }
    return best;
}

struct rotation {
    struct cli *c;
    const struct noun *k;
    const char *name;
    bool quiet;
    json_t *old;       /* ID -> name, of the versions that go */
    struct buf id, to; /* the new one */
};

/* uses - a reference to one of the old versions. */
static json_t *uses(const struct rotation *x, json_t *service)
{
    json_t *ref, *refs = jget(jget(service, "Spec.TaskTemplate.ContainerSpec"), x->k->refs);
    size_t i;

    for_each (refs, i, ref)
        if (json_object_get(x->old, jstr(ref, x->k->id_key)))
            return ref;
    return NULL;
}

static json_t *get_service_of(struct cli *c, const char *id)
{
    struct buf path = BUF_INIT;
    json_t *service = NULL;

    buf_puts(&path, "/services/");
    url_path(&path, id);
    if (api_get(c, &service, "%s", buf_cstr(&path)) != 0)
        service = NULL;
    buf_done(&path);
    return service;
}

/* put_service - the service with the new version, in the places of old ones. 1 when it changed meanwhile. */
static int put_service(struct rotation *x, const char *id, bool *again)
{
    struct buf path = BUF_INIT;
    json_t *service = get_service_of(x->c, id), *ref, *refs;
    size_t i;
    int r = 0;

    *again = false;
    if (!service)
        return x->c->status == 404 ? 0 : cli_fail_api(x->c); /* gone: it needs nothing */
    if (uses(x, service)) {
        refs = jget(jget(service, "Spec.TaskTemplate.ContainerSpec"), x->k->refs);
        for_each (refs, i, ref)
            if (json_object_get(x->old, jstr(ref, x->k->id_key))) {
                json_object_set_new(ref, x->k->id_key, json_string(buf_cstr(&x->id)));
                json_object_set_new(ref, x->k->name_key, json_string(x->name));
            }
        buf_puts(&path, "/services/");
        url_path(&path, id);
        buf_printf(&path, "/update?registryAuthFrom=spec&version=%lld", (long long)jint(service, "Version.Index"));
        r = api_call(x->c, "POST", buf_cstr(&path), jget(service, "Spec"), NULL);
        *again = r != 0 && strstr(buf_cstr(&x->c->why), "out of sequence") != NULL;
        if (r != 0 && !*again)
            (void)cli_fail_api(x->c);
    }
    json_decref(service);
    buf_done(&path);
    return r;
}

/* judge - 1: what became of the update; 0: it took it; -1: not over yet. */
static int judge(struct rotation *x, json_t *service, const char *name)
{
    const char *state = jstr(service, "UpdateStatus.State"), *why = jstr(service, "UpdateStatus.Message");

    if (uses(x, service) || strncmp(state, "rollback", 8) == 0)
        return cli_fail(x->c, "service %s went back to what it was: %s", name, why);
    if (strcmp(state, "paused") == 0)
        return cli_fail(x->c, "the update of service %s is paused: %s", name, why);
    if (strcmp(state, "updating") != 0)
        return 0;
    return wait_interrupted() ? cli_fail(x->c, "the update of service %s goes on", name) : -1;
}

/* settled - its tasks run with the new version, and the manager has watched them for as long as it should: an update
 * that was paused or rolled back has not taken it. */
static int settled(struct rotation *x, const char *id, const char *name)
{
    int r = -1;

    while (r < 0) {
        json_t *service = get_service_of(x->c, id);
        if (!service)
            return x->c->status == 404 ? 0 : cli_fail_api(x->c);
        r = judge(x, service, name);
        json_decref(service);
        if (r < 0)
            poll(NULL, 0, LOOK_MS); /* the API has nothing to wait on */
    }
    return r;
}

static int update_service(struct rotation *x, const char *id, const char *name)
{
    bool again = true;
    int r = 1;

    for (int i = 0; r != 0 && again && i < RACES_MAX; i++)
        r = put_service(x, id, &again);
    if (r != 0 && again)
        (void)cli_fail_api(x->c);
    if (r == 0)
        r = wait_service(x->c, name, x->quiet);
    return r == 0 ? settled(x, id, name) : r;
}

/* update_all - every service that refers to an old version; *ret_n of them. */
static int update_all(struct rotation *x, size_t *ret_n)
{
    json_t *list = NULL, *s;
    size_t i, n = 0, at = 0;
    int r = api_get(x->c, &list, "/services") == 0 ? 0 : cli_fail_api(x->c);

    for_each (list, i, s)
        n += uses(x, s) != NULL;
    for_each (list, i, s) {
        if (r != 0 || !uses(x, s))
            continue;
        if (!x->quiet)
            fprintf(x->c->out, "service %s (%zu of %zu)\n", jstr(s, "Spec.Name"), ++at, n);
        r = update_service(x, jstr(s, "ID"), jstr(s, "Spec.Name"));
    }
    json_decref(list);
    *ret_n = n;
    return r;
}

static int remove_old(struct rotation *x)
{
    const char *id;
    json_t *name;
    int r = 0;

    json_object_foreach (x->old, id, name) {
        if (delete_one(x->c, x->k, id) != 0 && x->c->status != 404)
            r = cli_fail_api(x->c);
        else if (!x->quiet)
            fprintf(x->c->out, "removed %s\n", json_string_value(name));
    }
    return r;
}

/* stopped - what is left, and what can be done about it. */
static int stopped(struct rotation *x)
{
    const char *id, *w = x->k->word;
    struct buf names = BUF_INIT;
    json_t *name;

    json_object_foreach (x->old, id, name)
        buf_printf(&names, "%s%s", names.n ? ", " : "", json_string_value(name));
    cli_fail(x->c,
             "%s rotate: nothing was removed: %s and %s are both there, and each service has the one or the other.\n"
             "To go on, run the command again. To go back, run \"" PROG
             " service rollback\" for the services that were "
             "updated, then \"" PROG " %s rm %s\".",
             w, buf_cstr(&names), buf_cstr(&x->to), w, buf_cstr(&x->to));
    buf_done(&names);
    return 1;
}

/* versions - all there are of NAME; the newest is borrowed from the list (given). */
static int versions(struct rotation *x, json_t **ret_list, json_t **ret_newest)
{
    struct buf path = BUF_INIT;
    json_t *filters = json_object(), *o;
    size_t i;
    int r = 0;

    filter_add(filters, "name", x->name);
    buf_puts(&path, x->k->path);
    url_filters(&path, filters);
    if (api_get(x->c, ret_list, "%s", buf_cstr(&path)) != 0)
        r = cli_fail_api(x->c);
    buf_done(&path);
    if (r != 0)
        return r;
    *ret_newest = newest_version(*ret_list, x->name);
    if (!*ret_newest)
        return cli_fail(x->c, "%s not found: %s", x->k->word, x->name);
    for_each (*ret_list, i, o)
        if (version_number(o, x->name) > 0)
            json_object_set(x->old, jstr(o, "ID"), jget(o, "Spec.Name"));
    return 0;
}

static int create_next(struct rotation *x, json_t *newest, struct buf *data)
{
    json_t *labels = jget(newest, "Spec.Labels") ? json_deep_copy(jget(newest, "Spec.Labels")) : json_object();

    json_object_set_new(labels, VERSION_LABEL, json_string(x->name));
    buf_printf(&x->to, "%s.v%ld", x->name, version_number(newest, x->name) + 1);
    json_t *body = json_pack("{s:s,s:o,s:s}", "Name", buf_cstr(&x->to), "Labels", labels, "Data", buf_cstr(data));
    if (jget(newest, "Spec.Templating"))
        json_object_set(body, "Templating", jget(newest, "Spec.Templating"));
    int r = post(x->c, x->k, body, &x->id);
    json_decref(body);
    if (r == 0 && !x->quiet)
        fprintf(x->c->out, "created %s\n", buf_cstr(&x->to));
    return r;
}

static int rotate(struct rotation *x, const char *file)
{
    json_t *list = NULL, *newest = NULL;
    struct buf data = BUF_INIT;
    size_t n = 1;
    int r = versions(x, &list, &newest);

    if (r == 0)
        r = read_content(x->c, x->k, file, &data);
    if (r == 0 && data.n == 0)
        r = cli_fail(x->c, "error reading content from \"%s\": it is empty", file);
    if (r == 0)
        r = create_next(x, newest, &data);
    wipe(&data);
    json_decref(list);
    if (r != 0)
        return r;
    for (int i = 0; r == 0 && n > 0 && i < ROUNDS_MAX; i++)
        r = update_all(x, &n);
    if (r == 0)
        r = remove_old(x);
    if (r != 0)
        return stopped(x);
    fprintf(x->c->out, "%s\n", buf_cstr(&x->id));
    return 0;
}

static int run_rotate(struct cli *c, struct call *call, const struct noun *k)
{
    struct rotation x = {
        .c = c, .k = k, .name = call->argv[0], .quiet = flag_bool(&call->fs, "quiet"), .old = json_object()
    };
    int r = rotate(&x, call->argv[1]);

    json_decref(x.old);
    buf_done(&x.id);
    buf_done(&x.to);
    return r;
}

/* ---- the two nouns ---- */

#define BOTH(verb, fn)                                                                                                 \
    static int secret_##verb(struct cli *c, struct call *call)                                                         \
    {                                                                                                                  \
        return fn(c, call, &secret_noun);                                                                              \
    }                                                                                                                  \
    static int config_##verb(struct cli *c, struct call *call)                                                         \
    {                                                                                                                  \
        return fn(c, call, &config_noun);                                                                              \
    }
BOTH(create, run_create)
BOTH(ls, run_ls)
BOTH(inspect, run_inspect_of)
BOTH(rm, run_rm)
BOTH(rotate, run_rotate)

const struct cmd secret_cmds[] = {
    { .name = "create",
      .args = "SECRET [file|-]",
      .help = "Create a secret from a file or STDIN as content",
      .min = 1,
      .max = 2,
      .flags = create_secret_tables,
      .run = secret_create },
    { .name = "inspect",
      .args = "SECRET [SECRET...]",
      .help = "Display detailed information on one or more secrets",
      .min = 1,
      .max = -1,
      .flags = inspect_tables,
      .run = secret_inspect,
      .complete = "@secret" },
    { .name = "ls", .aliases = "list", .help = "List secrets", .flags = ls_tables, .run = secret_ls },
    { .name = "rm",
      .aliases = "remove",
      .args = "SECRET [SECRET...]",
      .help = "Remove one or more secrets",
      .min = 1,
      .max = -1,
      .run = secret_rm,
      .complete = "@secret" },
    { .name = "rotate",
      .args = "SECRET file|-",
      .help = "Give the services that use a secret new content, and remove the old",
      .min = 2,
      .max = 2,
      .flags = rotate_tables,
      .run = secret_rotate,
      .complete = "@secret" },
    { .name = NULL },
};
const struct cmd config_cmds[] = {
    { .name = "create",
      .args = "CONFIG file|-",
      .help = "Create a config from a file or STDIN",
      .min = 2,
      .max = 2,
      .flags = create_config_tables,
      .run = config_create },
    { .name = "inspect",
      .args = "CONFIG [CONFIG...]",
      .help = "Display detailed information on one or more configs",
      .min = 1,
      .max = -1,
      .flags = inspect_tables,
      .run = config_inspect,
      .complete = "@config" },
    { .name = "ls", .aliases = "list", .help = "List configs", .flags = ls_tables, .run = config_ls },
    { .name = "rm",
      .aliases = "remove",
      .args = "CONFIG [CONFIG...]",
      .help = "Remove one or more configs",
      .min = 1,
      .max = -1,
      .run = config_rm,
      .complete = "@config" },
    { .name = "rotate",
      .args = "CONFIG file|-",
      .help = "Give the services that use a config new content, and remove the old",
      .min = 2,
      .max = 2,
      .flags = rotate_tables,
      .run = config_rotate,
      .complete = "@config" },
    { .name = NULL },
};
