#include "swarmctl/tasks.h"

#include <ctype.h>
#include <stdlib.h>

#include "common/util/check.h"
#include "common/util/clock.h"
#include "swarmctl/conv.h"
#include "swarmctl/human.h"
#include "swarmctl/imageref.h"
#include "swarmctl/jpath.h"
#include "swarmctl/output.h"

const struct flag task_ps_flags[] = {
    { .name = "format", .type = &T_STRING, .help = "Pretty-print tasks using a Go template" },
    { .name = "no-resolve", .type = &T_BOOL, .help = "Do not map IDs to Names" },
    { .name = "quiet", .shorthand = 'q', .type = &T_BOOL, .help = "Only display task IDs" },
    FLAGS_END,
};

void resolver_init(struct resolver *r, struct cli *c, bool off)
{
    *r = (struct resolver){ .c = c, .off = off, .services = json_object(), .nodes = json_object() };
}

void resolver_done(struct resolver *r)
{
    json_decref(r->services);
    json_decref(r->nodes);
}

static const char *node_name(const json_t *node)
{
    const char *name = jstr(node, "Spec.Name");
    if (!*name)
        name = jstr(node, "Description.Hostname");
    return *name ? name : jstr(node, "ID");
}

/* After a few single lookups one listing is cheaper than the next lookup. */
static void learn_all(struct resolver *r, const char *path, json_t *into, bool nodes)
{
    json_t *list = NULL, *item;
    size_t i;

    if (api_get(r->c, &list, "%s", path) == 0)
        for_each (list, i, item)
            json_object_set_new(into, jstr(item, "ID"), json_string(nodes ? node_name(item) : jstr(item, "Spec.Name")));
    json_decref(list);
}

static const char *resolve(struct resolver *r, const char *id, json_t *known, const char *path, bool nodes)
{
    json_t *have = json_object_get(known, id), *item = NULL;
    struct buf b = BUF_INIT;
    const char *name = id;

    if (r->off || !*id)
        return id;
    if (!have && r->misses++ == 8) {
        learn_all(r, path, known, nodes);
        have = json_object_get(known, id);
    }
    if (have)
        return json_string_value(have);
    buf_printf(&b, "%s/", path);
    url_path(&b, id);
    if (api_get(r->c, &item, "%s", buf_cstr(&b)) == 0)
        name = nodes ? node_name(item) : jstr(item, "Spec.Name");
    json_object_set_new(known, id, json_string(*name ? name : id));
    json_decref(item);
    buf_done(&b);
    return json_string_value(json_object_get(known, id));
}

const char *resolve_service(struct resolver *r, const char *id)
{
    return resolve(r, id, r->services, "/services", false);
}

const char *resolve_node(struct resolver *r, const char *id)
{
    return resolve(r, id, r->nodes, "/nodes", true);
}

int node_ref(struct cli *c, const char *ref, struct buf *ret)
{
    json_t *info = NULL;

    buf_clear(ret);
    if (strcmp(ref, "self") != 0) {
        buf_puts(ret, ref);
        return 0;
    }
    if (api_get(c, &info, "/info") != 0)
        return cli_fail_api(c);
    buf_puts(ret, jstr(info, "Swarm.NodeID"));
    json_decref(info);
    if (ret->n > 0)
        return 0;
    /* A node without an id is in no swarm: the daemon's own words for that are the better message. */
    json_t *nodes = NULL;
    int r = api_get(c, &nodes, "/nodes") != 0 ? cli_fail_api(c) : cli_fail(c, "node ID not found in /info");
    json_decref(nodes);
    return r;
}

/* One task with what it is sorted by. */
struct entry {
    json_t *task;
    char *name;
    int64_t created_ns;
    size_t order;
};

static int by_name_newest_first(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    int c = natural_cmp(x->name, y->name);

    if (c == 0)
        c = (x->created_ns < y->created_ns) - (x->created_ns > y->created_ns);
    if (c == 0)
        c = (x->order > y->order) - (x->order < y->order);
    return c;
}

static struct entry *sorted(struct resolver *res, json_t *tasks, size_t *ret_n)
{
    size_t n = json_array_size(tasks);
    struct entry *v = calloc(n + 1, sizeof *v);

    CHECK(v);
    for (size_t i = 0; i < n; i++) {
        json_t *t = json_array_get(tasks, i);
        const char *service = resolve_service(res, jstr(t, "ServiceID"));
        struct wall_ns created = { 0 };
        int r = jint(t, "Slot") ? asprintf(&v[i].name, "%s.%lld", service, (long long)jint(t, "Slot"))
                                : asprintf(&v[i].name, "%s.%s", service, jstr(t, "NodeID"));
        CHECK(r >= 0);
        wall_parse(str_from(jstr(t, "CreatedAt")), &created);
        v[i].task = t;
        v[i].created_ns = created.ns;
        v[i].order = i;
    }
    qsort(v, n, sizeof *v, by_name_newest_first);
    *ret_n = n;
    return v;
}

static void put_state(struct buf *b, const json_t *task, int64_t now_ns)
{
    struct wall_ns since;
    struct buf ago = BUF_INIT;
    bool known = wall_parse(str_from(jstr(task, "Status.Timestamp")), &since);

    capitalize(b, str_from(jstr(task, "Status.State")));
    human_duration(&ago, known ? now_ns - since.ns : INT64_MAX);
    for (size_t i = 0; i < ago.n; i++)
        ago.p[i] = (char)tolower((unsigned char)ago.p[i]);
    buf_printf(b, " %s ago", buf_cstr(&ago));
    buf_done(&ago);
}

static void put_error(struct buf *b, const char *err, bool trunc)
{
    if (!*err)
        return;
    buf_putc(b, '"');
    if (trunc)
        ellipsis(b, str_from(err), 30);
    else
        buf_puts(b, err);
    buf_putc(b, '"');
}

static void put_ports(struct buf *b, json_t *ports)
{
    json_t *p;
    size_t i;

    for_each (ports, i, p)
        buf_printf(b, "%s*:%lld->%lld/%s", i ? "," : "", (long long)jint(p, "PublishedPort"),
                   (long long)jint(p, "TargetPort"), jstr(p, "Protocol"));
}

static json_t *task_row(struct resolver *res, const struct entry *en, bool previous, bool trunc)
{
    json_t *row = json_object(), *t = en->task;
    struct buf b = BUF_INIT;
    const char *id = jstr(t, "ID"), *image = jstr(t, "Spec.ContainerSpec.Image");

    put_state(&b, t, res->c->now_ns());
    row_text(row, "CurrentState", &b);
    capitalize(&b, str_from(jstr(t, "DesiredState")));
    row_text(row, "DesiredState", &b);
    put_error(&b, jstr(t, "Status.Err"), trunc);
    row_text(row, "Error", &b);
    buf_printf(&b, "%.*s", trunc ? 12 : 64, id);
    row_text(row, "ID", &b);
    if (trunc)
        imageref_shown(&b, image);
    else
        buf_puts(&b, image);
    row_text(row, "Image", &b);
    buf_printf(&b, "%s%s", previous ? " \\_ " : "", en->name);
    row_text(row, "Name", &b);
    buf_puts(&b, resolve_node(res, jstr(t, "NodeID")));
    row_text(row, "Node", &b);
    put_ports(&b, jget(t, "Status.PortStatus.Ports"));
    row_text(row, "Ports", &b);
    buf_done(&b);
    return row;
}

static const char *const task_titles[][2] = {
    { "ID", "ID" },
    { "Name", "NAME" },
    { "Image", "IMAGE" },
    { "Node", "NODE" },
    { "DesiredState", "DESIRED STATE" },
    { "CurrentState", "CURRENT STATE" },
    { "Error", "ERROR" },
    { "Ports", "PORTS" },
    { NULL, NULL },
};

static const struct listing task_listing = {
    .table =
        "table {{.ID}}\\t{{.Name}}\\t{{.Image}}\\t{{.Node}}\\t{{.DesiredState}}\\t{{.CurrentState}}\\t{{.Error}}\\t"
        "{{.Ports}}",
    .raw = "id: {{.ID}}\\nname: {{.Name}}\\nimage: {{.Image}}\\nnode: {{.Node}}\\ndesired_state: {{.DesiredState}}\\n"
           "current_state: {{.CurrentState}}\\nerror: {{.Error}}\\nports: {{.Ports}}\\n",
    .titles = task_titles,
};

int tasks_print(struct cli *c, const struct call *call, json_t *tasks)
{
    const char *format = flag_str(&call->fs, "format");
    bool quiet = flag_bool(&call->fs, "quiet"), trunc = !quiet && !flag_bool(&call->fs, "no-trunc");
    bool table = !*format || strncmp(format, "table", 5) == 0;
    json_t *rows = json_array();
    struct resolver res;
    size_t n;

    resolver_init(&res, c, flag_bool(&call->fs, "no-resolve"));
    struct entry *v = sorted(&res, tasks, &n);
    for (size_t i = 0; i < n; i++)
        json_array_append_new(rows,
                              task_row(&res, &v[i], table && i > 0 && strcmp(v[i].name, v[i - 1].name) == 0, trunc));
    int r = listing_print(c, &task_listing, rows, format, quiet);
    for (size_t i = 0; i < n; i++)
        free(v[i].name);
    free(v);
    json_decref(rows);
    resolver_done(&res);
    return r;
}
