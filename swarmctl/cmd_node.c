#include <stdlib.h>

#include "swarmctl/cmds.h"
#include "swarmctl/conv.h"
#include "swarmctl/human.h"
#include "swarmctl/jpath.h"
#include "swarmctl/output.h"
#include "swarmctl/pretty.h"
#include "swarmctl/spec_lists.h"
#include "swarmctl/tasks.h"

static const struct flag rm_flags[] = {
    { .name = "force", .shorthand = 'f', .type = &T_BOOL, .help = "Force remove a node from the swarm" },
    FLAGS_END,
};
static const struct flag update_flags[] = {
    { .name = "availability",
      .type = &T_STRING,
      .help = "Availability of the node (\"active\", \"pause\", \"drain\")",
      .choices = "active,pause,drain" },
    { .name = "label-add", .type = &T_LIST, .help = "Add or update a node label (\"key=value\")" },
    { .name = "label-rm", .type = &T_LIST, .help = "Remove a node label if exists" },
    { .name = "role",
      .type = &T_STRING,
      .help = "Role of the node (\"worker\", \"manager\")",
      .choices = "worker,manager" },
    FLAGS_END,
};
static const struct flag *const ls_tables[] = { filter_flags, format_flags, quiet_id_flags, NULL };
static const struct flag *const inspect_tables[] = { inspect_flags, pretty_flags, NULL };
static const struct flag *const ps_tables[] = { filter_flags, no_trunc_flags, task_ps_flags, NULL };
static const struct flag *const rm_tables[] = { rm_flags, NULL };
static const struct flag *const update_tables[] = { update_flags, NULL };

static const char *const ls_titles[][2] = {
    { "ID", "ID" },
    { "Self", "" },
    { "Hostname", "HOSTNAME" },
    { "Status", "STATUS" },
    { "Availability", "AVAILABILITY" },
    { "ManagerStatus", "MANAGER STATUS" },
    { "EngineVersion", "ENGINE VERSION" },
    { "TLSStatus", "TLS STATUS" },
    { NULL, NULL },
};
static const struct listing ls_listing = {
    .table = "table {{.ID}} {{if .Self}}*{{else}} {{end}}\\t{{.Hostname}}\\t{{.Status}}\\t{{.Availability}}\\t"
             "{{.ManagerStatus}}\\t{{.EngineVersion}}",
    .raw = "node_id: {{.ID}}\\nhostname: {{.Hostname}}\\nstatus: {{.Status}}\\navailability: {{.Availability}}\\n"
           "manager_status: {{.ManagerStatus}}\\n",
    .titles = ls_titles,
};

static const char *tls_status(json_t *node, json_t *info)
{
    json_t *mine = jget(node, "Description.TLSInfo"), *cluster = jget(info, "Swarm.Cluster.TLSInfo");

    if (jempty(mine) || jempty(cluster))
        return "Unknown";
    return json_equal(mine, cluster) ? "Ready" : "Needs Rotation";
}

static json_t *ls_row(json_t *n, json_t *info)
{
    json_t *row = json_object();
    struct buf b = BUF_INIT;
    bool self = *jstr(n, "ID") && strcmp(jstr(n, "ID"), jstr(info, "Swarm.NodeID")) == 0;

    capitalize(&b, str_from(jstr(n, "Spec.Availability")));
    row_text(row, "Availability", &b);
    json_object_set_new(row, "EngineVersion", json_string(jstr(n, "Description.Engine.EngineVersion")));
    json_object_set_new(row, "Hostname", json_string(jstr(n, "Description.Hostname")));
    json_object_set_new(row, "ID", json_string(jstr(n, "ID")));
    capitalize(&b, str_from(jbool(n, "ManagerStatus.Leader") ? "leader" : jstr(n, "ManagerStatus.Reachability")));
    row_text(row, "ManagerStatus", &b);
    json_object_set_new(row, "Self", json_boolean(self));
    capitalize(&b, str_from(jstr(n, "Status.State")));
    row_text(row, "Status", &b);
    json_object_set_new(row, "TLSStatus", json_string(tls_status(n, info)));
    buf_done(&b);
    return row;
}

static int run_ls(struct cli *c, struct call *call)
{
    bool quiet = flag_bool(&call->fs, "quiet");
    struct buf path = BUF_INIT;
    json_t *list = NULL, *info = NULL, *rows = json_array();
    int r;

    buf_puts(&path, "/nodes");
    url_filters(&path, filters_of(&call->fs, "filter"));
    r = api_get(c, &list, "%s", buf_cstr(&path));
    if (r == 0 && !quiet && json_array_size(list) > 0)
        r = api_get(c, &info, "/info");
    if (r != 0) {
        cli_fail_api(c);
    } else {
        json_t *sorted = jsorted(list, "Description.Hostname"), *node;
        size_t i;
        for_each (sorted, i, node)
            json_array_append_new(rows, ls_row(node, info));
        json_decref(sorted);
        r = listing_print(c, &ls_listing, rows, flag_str(&call->fs, "format"), quiet);
    }
    json_decref(rows);
    json_decref(list);
    json_decref(info);
    buf_done(&path);
    return r;
}

static int get_one(struct cli *c, const char *ref, void *arg, struct buf *ret)
{
    struct buf id = BUF_INIT;

    (void)arg;
    int r = node_ref(c, ref, &id);
    if (r == 0)
        r = get_object(c, "/nodes/", buf_cstr(&id), "", NULL, ret);
    buf_done(&id);
    return r;
}

static int run_node_inspect(struct cli *c, struct call *call)
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
            json_t *node = json_loadb(text.p, text.n, 0, NULL);
            pretty_node(&out, node);
            fputs(buf_cstr(&out), c->out);
            json_decref(node);
        }
        buf_done(&text);
        buf_done(&out);
    }
    return r;
}

/* Appends the tasks of one node. */
static int node_tasks(struct cli *c, const struct call *call, const char *ref, json_t *tasks)
{
    struct buf id = BUF_INIT, path = BUF_INIT;
    json_t *node = NULL, *list = NULL, *filters;
    int r = node_ref(c, ref, &id);

    if (r == 0) {
        buf_puts(&path, "/nodes/");
        url_path(&path, buf_cstr(&id));
        if ((r = api_get(c, &node, "%s", buf_cstr(&path))) != 0)
            cli_fail_api(c);
    }
    if (r == 0) {
        filters = filters_of(&call->fs, "filter");
        filter_add(filters, "node", jstr(node, "ID"));
        buf_clear(&path);
        buf_puts(&path, "/tasks");
        url_filters(&path, filters);
        if ((r = api_get(c, &list, "%s", buf_cstr(&path))) != 0)
            cli_fail_api(c);
        else
            json_array_extend(tasks, list);
    }
    json_decref(node);
    json_decref(list);
    buf_done(&id);
    buf_done(&path);
    return r;
}

static int run_ps(struct cli *c, struct call *call)
{
    json_t *tasks = json_array();
    int r = 0;

    if (call->argc == 0)
        r = node_tasks(c, call, "self", tasks);
    for (int i = 0; i < call->argc; i++)
        r |= node_tasks(c, call, call->argv[i], tasks);
    if (r == 0 || json_array_size(tasks) > 0)
        r |= tasks_print(c, call, tasks);
    json_decref(tasks);
    return r;
}

/* Changes one node: 0 changed, 1 failed with the user told, 2 nothing to do. */
typedef int node_change(struct cli *c, const struct call *call, json_t *node);

static int change_node(struct cli *c, const struct call *call, const char *ref, node_change *change)
{
    struct buf path = BUF_INIT;
    json_t *node = NULL;
    int r;

    buf_puts(&path, "/nodes/");
    url_path(&path, ref);
    if (api_get(c, &node, "%s", buf_cstr(&path)) != 0) {
        r = cli_fail_api(c);
    } else if ((r = change(c, call, node)) == 0) {
        buf_clear(&path);
        buf_printf(&path, "/nodes/%s/update?version=%lld", jstr(node, "ID"), (long long)jint(node, "Version.Index"));
        if (api_call(c, "POST", buf_cstr(&path), jget(node, "Spec"), NULL) != 0)
            r = cli_fail_api(c);
    }
    json_decref(node);
    buf_done(&path);
    return r;
}

static int change_flags(struct cli *c, const struct call *call, json_t *node)
{
    json_t *spec = jenter(node, "Spec"), *labels = jenter(spec, "Labels"), *item;
    size_t i;

    if (flag_changed(&call->fs, "role"))
        json_object_set_new(spec, "Role", json_string(flag_str(&call->fs, "role")));
    if (flag_changed(&call->fs, "availability"))
        json_object_set_new(spec, "Availability", json_string(flag_str(&call->fs, "availability")));
    for_each (flag_json(&call->fs, "label-add"), i, item)
        map_put(labels, json_string_value(item));
    for_each (flag_json(&call->fs, "label-rm"), i, item) {
        if (!json_object_get(labels, json_string_value(item)))
            return cli_fail(c, "key %s doesn't exist in node's labels", json_string_value(item));
        json_object_del(labels, json_string_value(item));
    }
    return 0;
}

static int run_update(struct cli *c, struct call *call)
{
    int r = change_node(c, call, call->argv[0], change_flags);
    if (r == 0)
        fprintf(c->out, "%s\n", call->argv[0]);
    return r;
}

static int set_role(struct cli *c, json_t *node, const char *role)
{
    json_t *spec = jenter(node, "Spec");

    if (strcmp(jstr(spec, "Role"), role) == 0) {
        fprintf(c->out, "Node %s is already a %s.\n", jstr(node, "ID"), role);
        return 2;
    }
    json_object_set_new(spec, "Role", json_string(role));
    return 0;
}

static int change_promote(struct cli *c, const struct call *call, json_t *node)
{
    (void)call;
    return set_role(c, node, "manager");
}

static int change_demote(struct cli *c, const struct call *call, json_t *node)
{
    (void)call;
    return set_role(c, node, "worker");
}

static int run_roles(struct cli *c, struct call *call, node_change *change, const char *before, const char *after)
{
    for (int i = 0; i < call->argc; i++) {
        int r = change_node(c, call, call->argv[i], change);
        if (r == 1)
            return 1;
        if (r == 0)
            fprintf(c->out, "%s %s %s\n", before, call->argv[i], after);
    }
    return 0;
}

static int run_promote(struct cli *c, struct call *call)
{
    return run_roles(c, call, change_promote, "Node", "promoted to a manager in the swarm.");
}

static int run_demote(struct cli *c, struct call *call)
{
    return run_roles(c, call, change_demote, "Manager", "demoted in the swarm.");
}

static int run_rm(struct cli *c, struct call *call)
{
    int r = 0;

    for (int i = 0; i < call->argc; i++) {
        struct buf path = BUF_INIT;
        buf_puts(&path, "/nodes/");
        url_path(&path, call->argv[i]);
        if (flag_bool(&call->fs, "force"))
            buf_puts(&path, "?force=1");
        if (api_call(c, "DELETE", buf_cstr(&path), NULL, NULL) != 0)
            r = cli_fail_api(c);
        else
            fprintf(c->out, "%s\n", call->argv[i]);
        buf_done(&path);
    }
    return r;
}

const struct cmd node_cmds[] = {
    { .name = "demote",
      .args = "NODE [NODE...]",
      .help = "Demote one or more nodes from manager in the swarm",
      .min = 1,
      .max = -1,
      .run = run_demote,
      .complete = "@node" },
    { .name = "inspect",
      .args = "self|NODE [NODE...]",
      .help = "Display detailed information on one or more nodes",
      .min = 1,
      .max = -1,
      .flags = inspect_tables,
      .run = run_node_inspect,
      .complete = "@node" },
    { .name = "ls", .aliases = "list", .help = "List nodes in the swarm", .flags = ls_tables, .run = run_ls },
    { .name = "promote",
      .args = "NODE [NODE...]",
      .help = "Promote one or more nodes to manager in the swarm",
      .min = 1,
      .max = -1,
      .run = run_promote,
      .complete = "@node" },
    { .name = "ps",
      .args = "[NODE...]",
      .help = "List tasks running on one or more nodes, defaults to current node",
      .max = -1,
      .flags = ps_tables,
      .run = run_ps,
      .complete = "@node" },
    { .name = "rm",
      .aliases = "remove",
      .args = "NODE [NODE...]",
      .help = "Remove one or more nodes from the swarm",
      .min = 1,
      .max = -1,
      .flags = rm_tables,
      .run = run_rm,
      .complete = "@node" },
    { .name = "update",
      .args = "NODE",
      .help = "Update a node",
      .min = 1,
      .max = 1,
      .flags = update_tables,
      .run = run_update,
      .complete = "@node" },
    { .name = NULL },
};
