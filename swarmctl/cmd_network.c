#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "common/util/cidr.h"
#include "common/util/clock.h"
#include "swarmctl/cmds.h"
#include "swarmctl/conv.h"
#include "swarmctl/jpath.h"
#include "swarmctl/output.h"
#include "swarmctl/spec_lists.h"

static const struct flag create_flags[] = {
    { .name = "attachable", .type = &T_BOOL, .help = "Enable manual container attachment" },
    { .name = "aux-address",
      .type = &T_LIST,
      .help = "Auxiliary IPv4 or IPv6 addresses that are given to nobody (\"name=address\")" },
    { .name = "driver",
      .shorthand = 'd',
      .type = &T_STRING,
      .help = "Driver to manage the Network",
      .def = "overlay",
      .choices = "overlay" },
    { .name = "gateway", .type = &T_STRINGS, .help = "IPv4 or IPv6 Gateway for the master subnet" },
    { .name = "ingress", .type = &T_BOOL, .help = "Create swarm routing-mesh network" },
    { .name = "internal", .type = &T_BOOL, .help = "Restrict external access to the network" },
    { .name = "ip-range", .type = &T_STRINGS, .help = "Allocate container ip from a sub-range" },
    { .name = "ipam-driver", .type = &T_STRING, .help = "IP Address Management Driver", .def = "default" },
    { .name = "ipam-opt", .type = &T_LIST, .help = "Set IPAM driver specific options" },
    { .name = "ipv6", .type = &T_BOOL, .help = "Enable or disable IPv6 address assignment" },
    { .name = "label", .type = &T_LABELS, .help = "Set metadata on a network" },
    { .name = "opt", .shorthand = 'o', .type = &T_LIST, .help = "Set driver specific options" },
    { .name = "scope", .type = &T_STRING, .help = "Control the network's scope", .choices = "swarm" },
    { .name = "subnet", .type = &T_STRINGS, .help = "Subnet in CIDR format that represents a network segment" },
    FLAGS_END,
};
static const struct flag verbose_flags[] = {
    { .name = "verbose", .shorthand = 'v', .type = &T_BOOL, .help = "Verbose output for diagnostics" },
    FLAGS_END,
};
static const struct flag rm_flags[] = {
    { .name = "force", .shorthand = 'f', .type = &T_BOOL, .help = "Do not error if the network does not exist" },
    FLAGS_END,
};
static const struct flag prune_flags[] = {
    { .name = "filter", .type = &T_FILTER, .help = "Provide filter values (e.g. \"until=<timestamp>\")" },
    { .name = "force", .shorthand = 'f', .type = &T_BOOL, .help = "Do not prompt for confirmation" },
    FLAGS_END,
};
static const struct flag *const create_tables[] = { create_flags, NULL };
static const struct flag *const ls_tables[] = { filter_flags, format_flags, no_trunc_flags, quiet_id_flags, NULL };
static const struct flag *const inspect_tables[] = { inspect_flags, verbose_flags, NULL };
static const struct flag *const rm_tables[] = { rm_flags, NULL };
static const struct flag *const prune_tables[] = { prune_flags, NULL };

/* ---- create ---- */

/* within - the address, or the first one of the prefix, is in this subnet. */
static bool within(struct cidr subnet, const char *text)
{
    struct cidr c;
    struct ip ip;

    if (cidr_parse(str_from(text), &c))
        return cidr_has(subnet, c.ip);
    return ip_parse(str_from(text), &ip) && cidr_has(subnet, ip);
}

static json_t *config_of(json_t *configs, const char *text)
{
    json_t *c;
    size_t i;

    for_each (configs, i, c) {
        struct cidr subnet;
        if (cidr_parse(str_from(jstr(c, "Subnet")), &subnet) && within(subnet, text))
            return c;
    }
    return NULL;
}

static int add_subnet(struct cli *c, json_t *configs, const char *text)
{
    struct cidr subnet, other;
    json_t *have;
    size_t i;

    if (!cidr_parse(str_from(text), &subnet))
        return cli_fail(c, "invalid CIDR address: %s", text);
    for_each (configs, i, have)
        if (cidr_parse(str_from(jstr(have, "Subnet")), &other) && cidr_overlap(subnet, other))
            return cli_fail(c, "multiple overlapping subnet configuration is not supported");
    json_array_append_new(configs, json_pack("{s:s}", "Subnet", text));
    return 0;
}

/* add_to_subnet - a range or gateway goes to the subnet that it lies in; each has one at most. */
static int add_to_subnet(struct cli *c, json_t *configs, const char *key, const char *text, const char *what,
                         const char *many)
{
    json_t *config = config_of(configs, text);

    if (!config)
        return cli_fail(c, "no matching subnet for %s %s", what, text);
    if (*jstr(config, key))
        return cli_fail(c, "cannot configure multiple %s (%s, %s) on the same subnet (%s)", many, text,
                        jstr(config, key), jstr(config, "Subnet"));
    json_object_set_new(config, key, json_string(text));
    return 0;
}

static int add_aux(struct cli *c, json_t *configs, const char *pair)
{
    const char *eq = strchr(pair, '=');
    json_t *config = eq ? config_of(configs, eq + 1) : NULL;

    if (!eq)
        return cli_fail(c, "bad format for aux-address (expected name=address): %s", pair);
    if (!config)
        return cli_fail(c, "no matching subnet for aux-address %s", eq + 1);
    map_put(jenter(config, "AuxiliaryAddresses"), pair);
    return 0;
}

static int put_configs(struct cli *c, const struct flagset *fs, json_t *configs)
{
    json_t *subnets = flag_json(fs, "subnet"), *ranges = flag_json(fs, "ip-range"),
           *gateways = flag_json(fs, "gateway");
    json_t *item;
    size_t i;
    int r = 0;

    if (json_array_size(subnets) < json_array_size(ranges) || json_array_size(subnets) < json_array_size(gateways))
        return cli_fail(c, "every ip-range or gateway must have a corresponding subnet");
    for_each (subnets, i, item)
        r = r ? r : add_subnet(c, configs, json_string_value(item));
    for_each (ranges, i, item)
        r = r ? r : add_to_subnet(c, configs, "IPRange", json_string_value(item), "range", "ranges");
    for_each (gateways, i, item)
        r = r ? r : add_to_subnet(c, configs, "Gateway", json_string_value(item), "gateway", "gateways");
    for_each (flag_json(fs, "aux-address"), i, item)
        r = r ? r : add_aux(c, configs, json_string_value(item));
    return r;
}

static json_t *map_of(const struct flagset *fs, const char *flag)
{
    json_t *map = json_object(), *item;
    size_t i;

    for_each (flag_json(fs, flag), i, item)
        map_put(map, json_string_value(item));
    return map;
}

static int run_create(struct cli *c, struct call *call)
{
    const struct flagset *fs = &call->fs;
    json_t *configs = json_array(), *ret = NULL, *body;
    int r = put_configs(c, fs, configs);

    body = json_pack("{s:s,s:s,s:s,s:b,s:{s:s,s:o,s:o},s:b,s:b,s:b,s:o,s:o}", "Name", call->argv[0], "Driver",
                     flag_str(fs, "driver"), "Scope", flag_str(fs, "scope"), "EnableIPv6", flag_bool(fs, "ipv6"),
                     "IPAM", "Driver", flag_str(fs, "ipam-driver"), "Options", map_of(fs, "ipam-opt"), "Config",
                     configs, "Internal", flag_bool(fs, "internal"), "Attachable", flag_bool(fs, "attachable"),
                     "Ingress", flag_bool(fs, "ingress"), "Options", map_of(fs, "opt"), "Labels", map_of(fs, "label"));
    if (r == 0 && api_call(c, "POST", "/networks/create", body, &ret) != 0)
        r = cli_fail_api(c);
    if (r == 0) {
        if (*jstr(ret, "Warning"))
            fprintf(c->err, "WARNING: %s\n", jstr(ret, "Warning"));
        fprintf(c->out, "%s\n", jstr(ret, "Id"));
    }
    json_decref(body);
    json_decref(ret);
    return r;
}

/* ---- ls ---- */

static const char *const ls_titles[][2] = {
    { "ID", "NETWORK ID" }, { "Name", "NAME" },         { "Driver", "DRIVER" }, { "Scope", "SCOPE" },
    { "IPv6", "IPV6" },     { "Internal", "INTERNAL" }, { "Labels", "LABELS" }, { "CreatedAt", "CREATED AT" },
    { NULL, NULL },
};
static const struct listing ls_listing = {
    .table = "table {{.ID}}\\t{{.Name}}\\t{{.Driver}}\\t{{.Scope}}",
    .raw = "network_id: {{.ID}}\\nname: {{.Name}}\\ndriver: {{.Driver}}\\nscope: {{.Scope}}\\n",
    .titles = ls_titles,
};

/* put_created - as Go prints a time. */
static void put_created(json_t *row, const char *text)
{
    struct wall_ns t;
    struct buf b = BUF_INIT;
    struct tm tm;
    char out[64];

    if (wall_parse(str_from(text), &t)) {
        time_t sec = (time_t)(t.ns / 1000000000);
        if (t.ns < 0)
            sec = 0;
        strftime(out, sizeof out, "%Y-%m-%d %H:%M:%S", gmtime_r(&sec, &tm));
        buf_puts(&b, out);
        if (t.ns > 0 && t.ns % 1000000000) {
            (void)snprintf(out, sizeof out, ".%09lld", (long long)(t.ns % 1000000000));
            size_t n = strlen(out);
            while (out[n - 1] == '0')
                out[--n] = '\0';
            buf_puts(&b, out);
        }
        buf_puts(&b, " +0000 UTC");
    } else {
        buf_puts(&b, text);
    }
    row_text(row, "CreatedAt", &b);
    buf_done(&b);
}

static json_t *ls_row(json_t *n, bool trunc)
{
    json_t *row = json_object(), *value;
    struct buf b = BUF_INIT;
    const char *key;

    put_created(row, jstr(n, "Created"));
    json_object_set_new(row, "Driver", json_string(jstr(n, "Driver")));
    buf_printf(&b, "%.*s", trunc ? 12 : 80, jstr(n, "Id"));
    row_text(row, "ID", &b);
    json_object_set_new(row, "IPv6", json_string(jbool(n, "EnableIPv6") ? "true" : "false"));
    json_object_set_new(row, "Internal", json_string(jbool(n, "Internal") ? "true" : "false"));
    json_object_foreach (jget(n, "Labels"), key, value)
        buf_printf(&b, "%s%s=%s", b.n ? "," : "", key, json_string_value(value));
    row_text(row, "Labels", &b);
    json_object_set_new(row, "Name", json_string(jstr(n, "Name")));
    json_object_set_new(row, "Scope", json_string(jstr(n, "Scope")));
    buf_done(&b);
    return row;
}

static int run_ls(struct cli *c, struct call *call)
{
    struct buf path = BUF_INIT;
    json_t *list = NULL, *rows = json_array(), *n;
    size_t i;
    int r;

    buf_puts(&path, "/networks");
    url_filters(&path, filters_of(&call->fs, "filter"));
    if (api_get(c, &list, "%s", buf_cstr(&path)) != 0) {
        r = cli_fail_api(c);
    } else {
        json_t *sorted = jsorted(list, "Name");
        for_each (sorted, i, n)
            json_array_append_new(rows, ls_row(n, !flag_bool(&call->fs, "no-trunc")));
        json_decref(sorted);
        r = listing_print(c, &ls_listing, rows, flag_str(&call->fs, "format"), flag_bool(&call->fs, "quiet"));
    }
    json_decref(rows);
    json_decref(list);
    buf_done(&path);
    return r;
}

/* ---- inspect ---- */

static int get_one(struct cli *c, const char *ref, void *arg, struct buf *ret)
{
    const bool *verbose = arg;
    return get_object(c, "/networks/", ref, *verbose ? "?verbose=true" : "", NULL, ret);
}

static int run_network_inspect(struct cli *c, struct call *call)
{
    bool verbose = flag_bool(&call->fs, "verbose");
    return inspect_print(c, call->argv, call->argc, flag_str(&call->fs, "format"), get_one, &verbose);
}

/* ---- rm, prune ---- */

/* confirmed - asks, and reads a line; nothing but yes is yes. */
static bool confirmed(struct cli *c, const char *question)
{
    char line[64];
    size_t n = 0;

    fprintf(c->out, "%s\nAre you sure you want to continue? [y/N] ", question);
    fflush(c->out);
    while (n < sizeof line - 1 && read(c->in_fd, line + n, 1) == 1 && line[n] != '\n')
        n++;
    line[n] = '\0';
    return n > 0 && (line[0] == 'y' || line[0] == 'Y') && (n == 1 || line[1] == '\r');
}

static const char remove_ingress[] =
    "WARNING! Before removing the routing-mesh network, make sure that no service needs its published ports: they "
    "are reachable again only when there is a new one.";

static int remove_one(struct cli *c, const char *ref, bool force)
{
    struct buf path = BUF_INIT;
    json_t *net = NULL;
    int r = 0;

    buf_puts(&path, "/networks/");
    url_path(&path, ref);
    if (api_get(c, &net, "%s", buf_cstr(&path)) == 0 && jbool(net, "Ingress") && !confirmed(c, remove_ingress)) {
        /* it stays */
    } else if (api_call(c, "DELETE", buf_cstr(&path), NULL, NULL) == 0) {
        fprintf(c->out, "%s\n", ref);
    } else if (!force || c->status != 404) {
        r = cli_fail_api(c);
    }
    json_decref(net);
    buf_done(&path);
    return r;
}

static int run_rm(struct cli *c, struct call *call)
{
    int r = 0;

    for (int i = 0; i < call->argc; i++)
        r |= remove_one(c, call->argv[i], flag_bool(&call->fs, "force"));
    return r;
}

static int run_prune(struct cli *c, struct call *call)
{
    static const char question[] = "WARNING! This will remove all custom networks not used by at least one container.";
    struct buf path = BUF_INIT;
    json_t *ret = NULL, *name;
    size_t i;
    int r = 0;

    if (!flag_bool(&call->fs, "force") && !confirmed(c, question))
        return 0;
    buf_puts(&path, "/networks/prune");
    url_filters(&path, filters_of(&call->fs, "filter"));
    if (api_call(c, "POST", buf_cstr(&path), NULL, &ret) != 0) {
        r = cli_fail_api(c);
    } else if (jlen(ret, "NetworksDeleted")) {
        fputs("Deleted Networks:\n", c->out);
        for_each (jget(ret, "NetworksDeleted"), i, name)
            fprintf(c->out, "%s\n", json_string_value(name));
        fputc('\n', c->out);
    }
    json_decref(ret);
    buf_done(&path);
    return r;
}

const struct cmd network_cmds[] = {
    { .name = "create",
      .args = "NETWORK",
      .help = "Create a network",
      .min = 1,
      .max = 1,
      .flags = create_tables,
      .run = run_create },
    { .name = "inspect",
      .args = "NETWORK [NETWORK...]",
      .help = "Display detailed information on one or more networks",
      .min = 1,
      .max = -1,
      .flags = inspect_tables,
      .run = run_network_inspect,
      .complete = "@network" },
    { .name = "ls", .aliases = "list", .help = "List networks", .flags = ls_tables, .run = run_ls },
    { .name = "prune", .help = "Remove all unused networks", .flags = prune_tables, .run = run_prune },
    { .name = "rm",
      .aliases = "remove",
      .args = "NETWORK [NETWORK...]",
      .help = "Remove one or more networks",
      .min = 1,
      .max = -1,
      .flags = rm_tables,
      .run = run_rm,
      .complete = "@network" },
    { .name = NULL },
};
