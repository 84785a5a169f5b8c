/*
 * object_rules.c - what a table cannot say, in Docker's words where clients know them.
 *
 * Docker's texts stand alone, as its engine and swarmkit give them; rules of our own begin with the path.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/object/autoscale.h"
#include "common/object/constraint.h"
#include "common/object/object_priv.h"
#include "common/object/views.h"
#include "common/template/expand.h"
#include "common/util/base64.h"
#include "common/util/cron.h"

#define MEMORY_MIN_BYTES (4ll << 20)
#define NS_PER_MS 1000000
#define NS_PER_HOUR 3600000000000ll

static int invalid(struct err *e, const char *text)
{
    return err_set(e, ERR_INVALID, "%s", text);
}

/* at - "Mounts[2].Source" below an object's own path. */
static const char *at(char buf[300], const char *path, const char *name)
{
    snprintf(buf, 300, "%s%s%s", path, *path ? "." : "", name);
    return buf;
}

static const char *text_of(const json_t *obj, const char *name)
{
    const char *s = json_string_value(json_object_get(obj, name));
    return s ? s : "";
}

static int64_t number_of(const json_t *obj, const char *name)
{
    return json_integer_value(json_object_get(obj, name));
}

static bool one_of(const char *s, const char *const *names)
{
    for (; *names != NULL; names++)
        if (strcmp(s, *names) == 0)
            return true;
    return false;
}
#define ONE_OF(s, ...) one_of(s, (const char *const[]){ __VA_ARGS__, NULL })

/* ---- names ---- */

/* swarmkit: ^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$ */
static bool dns_component(const char *s)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)s[i]) && s[i] != '-' && s[i] != '_')
            return false;
    return n > 0 && isalnum((unsigned char)s[0]) && isalnum((unsigned char)s[n - 1]);
}

int obj_rule_service_name(json_t *v, const char *path, struct err *e)
{
    const char *s = json_string_value(v);
    (void)path;
    if (*s == 0) /* apid makes one up */
        return 0;
    if (!dns_component(s))
        return invalid(e, "name must be valid as a DNS name component");
    if (strlen(s) > 63)
        return invalid(e, "name must be 63 characters or fewer");
    return 0;
}

/* Secrets and configs. */
int obj_rule_object_name(json_t *v, const char *path, struct err *e)
{
    const char *s = json_string_value(v);
    size_t n = strlen(s);
    bool ok = n <= 64;
    (void)path;
    if (n == 0)
        return invalid(e, "name must be provided");
    for (size_t i = 0; ok && i < n; i++)
        ok = isalnum((unsigned char)s[i]) || strchr("-_.", s[i]) != NULL;
    if (ok && isalnum((unsigned char)s[0]) && isalnum((unsigned char)s[n - 1]))
        return 0;
    return invalid(e,
                   "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be "
                   "[a-zA-Z0-9]");
}

int obj_rule_cluster_name(json_t *v, const char *path, struct err *e)
{
    (void)path;
    if (ONE_OF(json_string_value(v), "", "default"))
        return 0;
    return invalid(e, "swarm spec must be named \"default\"");
}

/* ---- image references: [domain[:port]/]path[:tag][@digest] ---- */

static bool lower_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* [a-z0-9]+ joined by ".", "_", "__" or any number of "-" */
static bool path_component(struct str s)
{
    size_t i = 0;
    while (i < s.n && lower_alnum(s.p[i])) {
        while (i < s.n && lower_alnum(s.p[i]))
            i++;
        if (i == s.n)
            return true;
        if (s.p[i] == '.')
            i++;
        else if (s.p[i] == '_')
            i += i + 1 < s.n && s.p[i + 1] == '_' ? 2 : 1;
        else
            while (i < s.n && s.p[i] == '-')
                i++;
    }
    return false;
}

static bool domain_ok(struct str s)
{
    size_t colon = s.n;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == ':' && (i == 0 || s.p[0] != '['))
            colon = colon == s.n ? i : colon;
        else if (!isalnum((unsigned char)c) && strchr(".-[]:", c) == NULL)
            return false;
    }
    for (size_t i = colon + 1; i < s.n; i++)
        if (!isdigit((unsigned char)s.p[i]))
            return false;
    return colon > 0 && colon != s.n - 1;
}

static bool is_domain(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == '.' || s.p[i] == ':' || isupper((unsigned char)s.p[i]))
            return true;
    return str_is(s, "localhost");
}

static bool tag_ok(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!isalnum((unsigned char)s.p[i]) && s.p[i] != '_' && (i == 0 || (s.p[i] != '.' && s.p[i] != '-')))
            return false;
    return s.n >= 1 && s.n <= 128;
}

static bool digest_ok(struct str s)
{
    const char *colon = memchr(s.p, ':', s.n);
    if (colon == NULL || colon == s.p || !isalpha((unsigned char)s.p[0]))
        return false;
    size_t hex = s.n - (size_t)(colon + 1 - s.p);
    for (size_t i = 0; i < hex; i++)
        if (!isxdigit((unsigned char)colon[1 + i]))
            return false;
    return hex >= 32 && (colon - s.p != 6 || memcmp(s.p, "sha256", 6) != 0 || hex == 64);
}

static bool name_ok(struct str s)
{
    bool first = true, hex = s.n == 64;
    for (size_t i = 0; hex && i < s.n; i++)
        hex = isxdigit((unsigned char)s.p[i]) && !isupper((unsigned char)s.p[i]);
    if (s.n == 0 || s.n > 255 || hex) /* 64 hex digits are an image ID, which no other node knows */
        return false;
    while (s.n > 0) {
        const char *slash = memchr(s.p, '/', s.n);
        struct str part = { s.p, slash ? (size_t)(slash - s.p) : s.n };
        bool domain = first && slash != NULL && is_domain(part);
        if (part.n == 0 || !(domain ? domain_ok(part) : path_component(part)))
            return false;
        if (slash == NULL)
            return true;
        s = (struct str){ slash + 1, s.n - part.n - 1 };
        first = false;
    }
    return false; /* ends in a slash */
}

static bool image_ok(struct str s)
{
    const char *p = memchr(s.p, '@', s.n);
    if (p != NULL) {
        struct str digest = { p + 1, s.n - (size_t)(p + 1 - s.p) };
        if (!digest_ok(digest))
            return false;
        s.n = (size_t)(p - s.p);
    }
    const char *slash = memrchr(s.p, '/', s.n);
    size_t from = slash ? (size_t)(slash + 1 - s.p) : 0;
    p = memchr(s.p + from, ':', s.n - from);
    if (p != NULL) {
        if (!tag_ok((struct str){ p + 1, s.n - (size_t)(p + 1 - s.p) }))
            return false;
        s.n = (size_t)(p - s.p);
    }
    return name_ok(s);
}

int obj_rule_image(json_t *v, const char *path, struct err *e)
{
    (void)path;
    struct str s = { json_string_value(v), json_string_length(v) };
    if (s.n == 0)
        return 0; /* obj_rules_container() says so */
    if (!image_ok(s))
        return err_set(e, ERR_INVALID, "ContainerSpec: \"%.200s\" is not a valid repository/tag", s.p);
    return 0;
}

/* ---- single values with Docker's own words ---- */

int obj_rule_restart_condition(json_t *v, const char *path, struct err *e)
{
    (void)path;
    if (ONE_OF(json_string_value(v), "", "none", "on-failure", "any"))
        return 0;
    return err_set(e, ERR_INVALID, "invalid RestartCondition: \"%.100s\"", json_string_value(v));
}

int obj_rule_failure_action(json_t *v, const char *path, struct err *e)
{
    (void)path;
    if (ONE_OF(json_string_value(v), "", "pause", "continue", "rollback"))
        return 0;
    return err_set(e, ERR_INVALID, "unrecognized update failure action %.100s", json_string_value(v));
}

int obj_rule_update_order(json_t *v, const char *path, struct err *e)
{
    (void)path;
    if (ONE_OF(json_string_value(v), "", "stop-first", "start-first"))
        return 0;
    return err_set(e, ERR_INVALID, "unrecognized update order %.100s", json_string_value(v));
}

int obj_rule_endpoint_mode(json_t *v, const char *path, struct err *e)
{
    (void)path;
    if (ONE_OF(json_string_value(v), "", "vip", "dnsrr"))
        return 0;
    return err_set(e, ERR_INVALID, "invalid resolution mode: \"%.100s\"", json_string_value(v));
}

int obj_rule_mount_type(json_t *v, const char *path, struct err *e)
{
    if (ONE_OF(json_string_value(v), "", "bind", "volume", "tmpfs"))
        return 0;
    return err_set(e, ERR_INVALID, "%s: must be bind, volume or tmpfs (invalid MountType: \"%.60s\")", path,
                   json_string_value(v));
}

int obj_rule_role(json_t *v, const char *path, struct err *e)
{
    (void)path;
    if (ONE_OF(json_string_value(v), "worker", "manager"))
        return 0;
    return err_set(e, ERR_INVALID, "invalid Role: \"%.100s\"", json_string_value(v));
}

int obj_rule_availability(json_t *v, const char *path, struct err *e)
{
    (void)path;
    if (ONE_OF(json_string_value(v), "active", "pause", "drain"))
        return 0;
    return err_set(e, ERR_INVALID, "invalid Availability: \"%.100s\"", json_string_value(v));
}

int obj_rule_ca_protocol(json_t *v, const char *path, struct err *e)
{
    (void)path;
    if (ONE_OF(json_string_value(v), "cfssl", "CFSSL"))
        return 0;
    return err_set(e, ERR_INVALID, "invalid protocol: \"%.100s\"", json_string_value(v));
}

int obj_rule_data_path_port(json_t *v, const char *path, struct err *e)
{
    int64_t port = json_integer_value(v);
    (void)path;
    if (port == 0 || (port >= 1024 && port <= 49151))
        return 0;
    return invalid(e, "Datapath port number is not in valid range (1024-49151)");
}

static int data_size(json_t *v, size_t max, const char *text, struct err *e)
{
    struct buf b = BUF_INIT;
    struct str s = { json_string_value(v), json_string_length(v) };
    bool ok = base64_take(s, &b);
    size_t n = b.n;
    buf_done(&b);
    if (!ok)
        return invalid(e, "illegal base64 data at input byte 0");
    return n > 0 && n < max ? 0 : invalid(e, text);
}

int obj_rule_secret_data(json_t *v, const char *path, struct err *e)
{
    (void)path;
    return data_size(v, 512000, "secret data must be larger than 0 and less than 512000 bytes", e);
}

int obj_rule_config_data(json_t *v, const char *path, struct err *e)
{
    (void)path;
    return data_size(v, 1024000, "config data must be larger than 0 and less than 1024000 bytes", e);
}

/* ---- addresses ---- */

struct net {
    int family;
    unsigned prefix;
    uint8_t addr[16];
};

static bool addr_parse(const char *s, struct net *ret)
{
    *ret = (struct net){ .family = strchr(s, ':') ? AF_INET6 : AF_INET };
    ret->prefix = ret->family == AF_INET6 ? 128 : 32;
    return inet_pton(ret->family, s, ret->addr) == 1;
}

static bool cidr_parse(const char *s, struct net *ret)
{
    char addr[64];
    const char *slash = strchr(s, '/');
    uint64_t prefix;
    if (slash == NULL || !str_copy(addr, sizeof addr, (struct str){ s, (size_t)(slash - s) }) ||
        !addr_parse(addr, ret) || !str_u64(str_from(slash + 1), &prefix) || prefix > ret->prefix)
        return false;
    ret->prefix = (unsigned)prefix;
    return true;
}

static bool net_contains(const struct net *net, const struct net *addr)
{
    if (net->family != addr->family)
        return false;
    for (unsigned bit = 0; bit < net->prefix; bit++)
        if ((net->addr[bit / 8] ^ addr->addr[bit / 8]) & 0x80 >> bit % 8)
            return false;
    return true;
}

int obj_rule_cidr_list(json_t *v, const char *path, struct err *e)
{
    size_t i;
    json_t *item;
    struct net net;
    (void)path;
    json_array_foreach (v, i, item) {
        const char *s = json_string_value(item);
        if (s != NULL && !cidr_parse(s, &net))
            return err_set(e, ERR_INVALID, "invalid CIDR address: %.100s", s);
    }
    return 0;
}

int obj_rules_ipam_config(json_t *obj, const char *path, struct err *e)
{
    struct net net, addr;
    const char *subnet = text_of(obj, "Subnet"), *gateway = text_of(obj, "Gateway"), *range = text_of(obj, "IPRange");
    (void)path;
    if (*subnet && !cidr_parse(subnet, &net))
        return err_set(e, ERR_INVALID, "Invalid subnet %.60s : invalid CIDR address: %.60s", subnet, subnet);
    if (*range && !cidr_parse(range, &addr))
        return err_set(e, ERR_INVALID, "Invalid ip range %.60s : invalid CIDR address: %.60s", range, range);
    if (*range && *subnet && !net_contains(&net, &addr))
        return err_set(e, ERR_INVALID, "ipam configuration: subnet %.60s does not contain ip range %.60s", subnet,
                       range);
    if (*gateway && !addr_parse(gateway, &addr))
        return err_set(e, ERR_INVALID, "Invalid gateway %.60s : invalid IP address: %.60s", gateway, gateway);
    if (*gateway && *subnet && !net_contains(&net, &addr))
        return err_set(e, ERR_INVALID, "ipam configuration: subnet %.60s does not contain gateway %.60s", subnet,
                       gateway);
    return 0;
}

int obj_rules_network(json_t *obj, const char *path, struct err *e)
{
    (void)path;
    if (json_is_true(json_object_get(obj, "Ingress")) && json_is_true(json_object_get(obj, "Attachable")))
        return invalid(e, "ingress network cannot be attachable");
    return 0;
}

/* ---- templates: that they can be expanded; agentd does it ---- */

int obj_rule_hostname(json_t *v, const char *path, struct err *e)
{
    (void)path;
    return expand_check(str_from(json_string_value(v)), e) < 0 ? err_wrap(e, "expanding hostname failed") : 0;
}

/* ---- service ---- */

static bool is_job(const json_t *spec)
{
    const json_t *mode = json_object_get(spec, "Mode");
    return json_object_get(mode, "ReplicatedJob") != NULL || json_object_get(mode, "GlobalJob") != NULL;
}

static int drain_label(const json_t *labels, const char *path, struct err *e)
{
    const json_t *label = json_object_get(labels, VIEW_DRAIN_LABEL);
    char buf[300];
    uint64_t ms;
    if (!label || view_drain_period(str_from(json_string_value(label)), &ms))
        return 0;
    return err_set(e, ERR_INVALID, "%s[\"%s\"]: must be a duration of at most 24h, such as 30s, or 0",
                   at(buf, path, "Labels"), VIEW_DRAIN_LABEL);
}

static int placement_labels(const json_t *labels, const char *path, struct err *e)
{
    const json_t *priority = json_object_get(labels, VIEW_PRIORITY_LABEL),
                 *rebalance = json_object_get(labels, VIEW_REBALANCE_LABEL);
    struct view_budget budget;
    char buf[300];
    int n;
    if (priority && !view_priority(str_from(json_string_value(priority)), &n))
        return err_set(e, ERR_INVALID, "%s[\"%s\"]: must be a whole number from -%d to %d", at(buf, path, "Labels"),
                       VIEW_PRIORITY_LABEL, VIEW_PRIORITY_MAX, VIEW_PRIORITY_MAX);
    if (rebalance && !view_rebalance(str_from(json_string_value(rebalance)), &budget))
        return err_set(e, ERR_INVALID,
                       "%s[\"%s\"]: must be how many tasks may be moved at a time: 1 to 10000, or 1%% to 100%%",
                       at(buf, path, "Labels"), VIEW_REBALANCE_LABEL);
    return 0;
}

static int progress_label(const json_t *labels, const char *path, struct err *e)
{
    const json_t *label = json_object_get(labels, VIEW_PROGRESS_LABEL);
    char buf[300];
    int64_t ns;
    if (!label || view_progress_deadline(str_from(json_string_value(label)), &ns))
        return 0;
    return err_set(e, ERR_INVALID, "%s[\"%s\"]: must be a duration from 1s to 168h, such as 10m",
                   at(buf, path, "Labels"), VIEW_PROGRESS_LABEL);
}

static int schedule_labels(const json_t *obj, const char *path, struct err *e)
{
    const json_t *labels = json_object_get(obj, "Labels"), *when = json_object_get(labels, VIEW_SCHEDULE_LABEL),
                 *overlap = json_object_get(labels, VIEW_OVERLAP_LABEL);
    struct err why = ERR_INIT;
    struct cron cron;
    char buf[300];
    bool replace;
    at(buf, path, "Labels");
    if (when && !is_job(obj))
        return err_set(e, ERR_INVALID, "%s[\"%s\"]: only jobs have a schedule", buf, VIEW_SCHEDULE_LABEL);
    if (when && cron_parse(str_from(json_string_value(when)), &cron, &why) != 0)
        return err_set(e, ERR_INVALID, "%s[\"%s\"]: %s", buf, VIEW_SCHEDULE_LABEL, why.msg);
    if (overlap && !when)
        return err_set(e, ERR_INVALID, "%s[\"%s\"]: there is no %s", buf, VIEW_OVERLAP_LABEL, VIEW_SCHEDULE_LABEL);
    if (overlap && !view_overlap(str_from(json_string_value(overlap)), &replace))
        return err_set(e, ERR_INVALID, "%s[\"%s\"]: must be skip or replace", buf, VIEW_OVERLAP_LABEL);
    return 0;
}

/* scale_labels - as orchestratord reads them, and what they need of the rest of the service. */
static int scale_labels(const json_t *obj, const char *path, struct err *e)
{
    json_t *labels = json_object_get(obj, "Labels"), *value;
    const json_t *limits =
        json_object_get(json_object_get(json_object_get(obj, "TaskTemplate"), "Resources"), "Limits");
    struct strmap map = { calloc(json_object_size(labels) + 1, sizeof *map.v), 0 };
    struct autoscale a = { 0 };
    const char *key, *bad = "";
    struct err why = ERR_INIT;
    char buf[300];
    int r = 0;
    if (!map.v)
        return err_set(e, ERR_NOMEM, "labels: out of memory");
    json_object_foreach (labels, key, value)
        map.v[map.n++] = (struct strpair){ str_from(key), str_from(json_string_value(value)) };
    at(buf, path, "Labels");
    if (autoscale_parse(&map, &a, &bad, &why) < 0)
        r = err_set(e, ERR_INVALID, "%s[\"%s\"]: %s", buf, bad, why.msg);
    else if (a.given && (is_job(obj) || json_object_get(json_object_get(obj, "Mode"), "Global") != NULL))
        r = err_set(e, ERR_INVALID, "%s[\"%s*\"]: only replicated services scale themselves", buf, AUTOSCALE_PREFIX);
    else if (a.memory && number_of(limits, "MemoryBytes") == 0)
        r = err_set(e, ERR_INVALID, "%s[\"%smemory\"]: is a percentage of the memory limit, and there is none", buf,
                    AUTOSCALE_PREFIX);
    free(map.v);
    return r;
}

int obj_rules_service(json_t *obj, const char *path, struct err *e)
{
    if (is_job(obj) && json_object_get(obj, "UpdateConfig") != NULL)
        return invalid(e, "Jobs may not have an update config");
    if (json_object_get(obj, "TaskTemplate") == NULL)
        return invalid(e, "mismatched Runtime and *Spec fields");
    const json_t *labels = json_object_get(obj, "Labels");
    int r = progress_label(labels, path, e);
    if (r >= 0)
        r = drain_label(labels, path, e);
    if (r >= 0)
        r = schedule_labels(obj, path, e);
    if (r >= 0)
        r = scale_labels(obj, path, e);
    return r < 0 ? r : placement_labels(labels, path, e);
}

int obj_rules_mode(json_t *obj, const char *path, struct err *e)
{
    static const char *const modes[] = { "Replicated", "Global", "ReplicatedJob", "GlobalJob" };
    unsigned n = 0;
    (void)path;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        n += json_object_get(obj, modes[i]) != NULL;
    return n > 1 ? invalid(e, "must specify only one service mode") : 0;
}

int obj_rules_task_template(json_t *obj, const char *path, struct err *e)
{
    const char *runtime = text_of(obj, "Runtime");
    bool container = json_object_get(obj, "ContainerSpec") != NULL, plugin = json_object_get(obj, "PluginSpec") != NULL;
    (void)path;
    if (strcmp(runtime, "plugin") == 0 && plugin && !container)
        return invalid(e, "runtime type \"plugin\" only supported in experimental");
    if (!ONE_OF(runtime, "", "container", "plugin", "attachment"))
        return invalid(e, "unsupported runtime");
    if (!container || plugin || json_object_get(obj, "NetworkAttachmentSpec") != NULL ||
        !ONE_OF(runtime, "", "container"))
        return invalid(e, "mismatched Runtime and *Spec fields");
    return 0;
}

int obj_rules_resource(json_t *obj, const char *path, struct err *e)
{
    int64_t cpus = number_of(obj, "NanoCPUs"), memory = number_of(obj, "MemoryBytes");
    (void)path;
    if (cpus != 0 && cpus < 1000000)
        return err_set(e, ERR_INVALID, "invalid cpu value %g: Must be at least %g", (double)cpus / 1e9, 0.001);
    if (memory != 0 && memory < MEMORY_MIN_BYTES)
        return err_set(e, ERR_INVALID, "invalid memory value %lld: Must be at least 4MiB", (long long)memory);
    return 0;
}

int obj_rules_resources(json_t *obj, const char *path, struct err *e)
{
    (void)path;
    if (json_object_get(obj, "SwapBytes") != NULL && number_of(json_object_get(obj, "Limits"), "MemoryBytes") == 0)
        return invalid(e, "memory swap provided, but no memory-limit was set");
    return 0;
}

int obj_rules_generic(json_t *obj, const char *path, struct err *e)
{
    if ((json_object_get(obj, "NamedResourceSpec") != NULL) != (json_object_get(obj, "DiscreteResourceSpec") != NULL))
        return 0;
    return err_set(e, ERR_INVALID, "%s: must have either NamedResourceSpec or DiscreteResourceSpec", path);
}

int obj_rules_restart(json_t *obj, const char *path, struct err *e)
{
    (void)path;
    if (number_of(obj, "Delay") < 0)
        return invalid(e, "TaskSpec: restart-delay cannot be negative");
    if (number_of(obj, "Window") < 0)
        return invalid(e, "TaskSpec: restart-window cannot be negative");
    return 0;
}

int obj_rules_update(json_t *obj, const char *path, struct err *e)
{
    double ratio = json_number_value(json_object_get(obj, "MaxFailureRatio"));
    (void)path;
    if (number_of(obj, "Delay") < 0)
        return invalid(e, "TaskSpec: update-delay cannot be negative");
    if (number_of(obj, "Monitor") < 0)
        return invalid(e, "TaskSpec: update-monitor cannot be negative");
    if (!(ratio >= 0 && ratio <= 1))
        return invalid(e, "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1");
    return 0;
}

static int constraint_check(const char *s, struct err *e)
{
    struct constraint c;
    if (!constraint_split(str_from(s), &c))
        return invalid(e, "constraint expected one operator from ==, !=");
    if (!constraint_key_ok(c.key))
        return err_set(e, ERR_INVALID, "key '%.*s' is invalid", (int)(c.key.n < 100 ? c.key.n : 100), c.key.p);
    if (!constraint_value_ok(c.value))
        return err_set(e, ERR_INVALID, "value '%.*s' is invalid", (int)(c.value.n < 100 ? c.value.n : 100), c.value.p);
    return 0;
}

int obj_rule_constraint_list(json_t *v, const char *path, struct err *e)
{
    size_t i;
    json_t *item;
    (void)path;
    json_array_foreach (v, i, item) {
        const char *s = json_string_value(item);
        int r = s ? constraint_check(s, e) : 0;
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- endpoint ---- */

static const char *or_default(const char *s, const char *def)
{
    return *s ? s : def;
}

/* Published ports seen so far, a bit each: lists may be long, since clients expand ranges. */
struct port_set {
    uint8_t bits[3][65536 / 8];
};

/* port_add - false when it was there. The table has checked protocol and number already. */
static bool port_add(struct port_set *set, const char *proto, int64_t port)
{
    uint8_t *byte = &set->bits[strcmp(proto, "udp") == 0 ? 1 : strcmp(proto, "sctp") == 0 ? 2 : 0][(port & 0xffff) / 8];
    uint8_t bit = (uint8_t)(1u << port % 8);
    bool fresh = !(*byte & bit);
    *byte |= bit;
    return fresh;
}

int obj_rules_endpoint(json_t *obj, const char *path, struct err *e)
{
    const json_t *ports = json_object_get(obj, "Ports");
    bool dnsrr = strcmp(text_of(obj, "Mode"), "dnsrr") == 0;
    struct port_set seen = { 0 };
    (void)path;
    for (size_t i = 0; i < json_array_size(ports); i++) {
        const json_t *p = json_array_get(ports, i);
        if (dnsrr && ONE_OF(text_of(p, "PublishMode"), "", "ingress"))
            return invalid(e, "EndpointSpec: port published with ingress mode can't be used with dnsrr mode");
        int64_t port = number_of(p, "PublishedPort");
        if (port != 0 && !port_add(&seen, text_of(p, "Protocol"), port))
            return invalid(e, "EndpointSpec: duplicate published ports provided");
    }
    return 0;
}

/* ---- container ---- */

/* target_same - as Go's path.Clean for what mounts look like: repeated and trailing slashes don't count. */
static bool target_same(const char *a, const char *b)
{
    for (;;) {
        while (*a == '/' && (a[1] == '/' || a[1] == 0))
            a++;
        while (*b == '/' && (b[1] == '/' || b[1] == 0))
            b++;
        if (*a != *b || *a == 0)
            return *a == *b;
        a++;
        b++;
    }
}

static int mounts_check(const json_t *mounts, struct err *e)
{
    for (size_t i = 1; i < json_array_size(mounts); i++) {
        const char *target = text_of(json_array_get(mounts, i), "Target");
        for (size_t k = 0; k < i; k++)
            if (target_same(target, text_of(json_array_get(mounts, k), "Target")))
                return err_set(e, ERR_INVALID, "ContainerSpec: duplicate mount point: %.200s", target);
    }
    return 0;
}

static const char *ref_target(const json_t *ref)
{
    return text_of(json_object_get(ref, "File"), "Name");
}

static int refs_check(const json_t *refs, const char *kind, const char *name_field, struct err *e)
{
    for (size_t i = 1; i < json_array_size(refs); i++) {
        const json_t *b = json_array_get(refs, i);
        for (size_t k = 0; k < i; k++) {
            const json_t *a = json_array_get(refs, k);
            if (*ref_target(b) && strcmp(ref_target(a), ref_target(b)) == 0)
                return err_set(e, ERR_INVALID, "%s references '%.80s' and '%.80s' have a conflicting target: '%.100s'",
                               kind, text_of(a, name_field), text_of(b, name_field), ref_target(b));
        }
    }
    return 0;
}

static int env_check(const json_t *env, struct err *e)
{
    size_t i;
    json_t *item;
    json_array_foreach (env, i, item) {
        if (expand_env_check(str_from(json_string_value(item)), e) < 0)
            return err_wrap(e, "expanding env failed");
    }
    return 0;
}

int obj_rules_container(json_t *obj, const char *path, struct err *e)
{
    (void)path;
    if (*text_of(obj, "Image") == 0)
        return invalid(e, "ContainerSpec: image reference must be provided");
    int r = mounts_check(json_object_get(obj, "Mounts"), e);
    if (r == 0)
        r = refs_check(json_object_get(obj, "Secrets"), "secret", "SecretName", e);
    if (r == 0)
        r = refs_check(json_object_get(obj, "Configs"), "config", "ConfigName", e);
    if (r == 0)
        r = env_check(json_object_get(obj, "Env"), e);
    return r;
}

int obj_rules_mount(json_t *obj, const char *path, struct err *e)
{
    char where[300];
    const char *type = or_default(text_of(obj, "Type"), "volume"), *source = text_of(obj, "Source");
    const char *target = text_of(obj, "Target");
    if (*target == 0)
        return err_set(e, ERR_INVALID, "%s: must not be empty", at(where, path, "Target"));
    if (*target != '/' && strncmp(target, "{{", 2) != 0)
        return err_set(e, ERR_INVALID, "%s: must be an absolute path", at(where, path, "Target"));
    if (strcmp(type, "bind") == 0 && *source == 0)
        return err_set(e, ERR_INVALID, "%s: must not be empty for a bind mount", at(where, path, "Source"));
    if (strcmp(type, "bind") == 0 && *source != '/' && strncmp(source, "{{", 2) != 0)
        return err_set(e, ERR_INVALID, "%s: invalid mount source %.60s, must be an absolute path for a bind mount",
                       at(where, path, "Source"), source);
    if (strcmp(type, "tmpfs") == 0 && *source != 0)
        return err_set(e, ERR_INVALID, "%s: must be empty for a tmpfs mount", at(where, path, "Source"));
    if (expand_mount_check("mount source", str_from(source), e) < 0 ||
        expand_mount_check("mount target", str_from(target), e) < 0)
        return err_wrap(e, "expanding mounts failed");
    return 0;
}

int obj_rules_health(json_t *obj, const char *path, struct err *e)
{
    static const char *const times[] = { "Interval", "Timeout", "StartPeriod", "StartInterval" };
    (void)path;
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        int64_t v = number_of(obj, times[i]);
        if (v != 0 && v < NS_PER_MS)
            return err_set(e, ERR_INVALID, "ContainerSpec: %s in HealthConfig cannot be less than 1ms", times[i]);
    }
    if (number_of(obj, "Retries") < 0)
        return invalid(e, "ContainerSpec: Retries in HealthConfig cannot be negative");
    return 0;
}

int obj_rules_credential(json_t *obj, const char *path, struct err *e)
{
    unsigned n = !!*text_of(obj, "File") + !!*text_of(obj, "Registry") + !!*text_of(obj, "Config");
    (void)path;
    if (n == 0)
        return invalid(
            e, "invalid CredentialSpec: must either provide \"file\", \"registry\", or \"config\" for credential "
               "spec");
    if (n > 1)
        return invalid(e,
                       "invalid CredentialSpec: cannot specify more than one of \"file\", \"registry\", and \"config\" "
                       "credential specs");
    return 0;
}

int obj_rules_secret_ref(json_t *obj, const char *path, struct err *e)
{
    (void)path;
    if (*text_of(obj, "SecretID") == 0 || *text_of(obj, "SecretName") == 0)
        return invalid(e, "malformed secret reference");
    if (*ref_target(obj) == 0)
        return invalid(e, "malformed secret reference, no target provided");
    return 0;
}

int obj_rules_config_ref(json_t *obj, const char *path, struct err *e)
{
    bool file = json_object_get(obj, "File") != NULL, runtime = json_object_get(obj, "Runtime") != NULL;
    (void)path;
    if (!file && !runtime)
        return invalid(e, "invalid Config: either File or Runtime should be set");
    if (file && runtime)
        return invalid(e, "invalid Config: cannot specify both File and Runtime");
    if (*text_of(obj, "ConfigID") == 0 || *text_of(obj, "ConfigName") == 0)
        return invalid(e, "malformed config reference");
    if (file && *ref_target(obj) == 0)
        return invalid(e, "malformed config reference, no target provided");
    return 0;
}

/* ---- cluster, secret ---- */

int obj_rules_ca(json_t *obj, const char *path, struct err *e)
{
    json_t *expiry = json_object_get(obj, "NodeCertExpiry");
    (void)path;
    if (!obj_json_zero(expiry) && json_integer_value(expiry) < NS_PER_HOUR)
        return invalid(e, "minimum certificate expiry time is: 1h0m0s");
    return 0;
}

int obj_rules_dispatcher(json_t *obj, const char *path, struct err *e)
{
    (void)path;
    if (number_of(obj, "HeartbeatPeriod") < 0)
        return invalid(e, "heartbeat time period cannot be a negative duration");
    return 0;
}

int obj_rules_secret(json_t *obj, const char *path, struct err *e)
{
    bool driver = json_object_get(obj, "Driver") != NULL, data = json_object_get(obj, "Data") != NULL;
    const char *templating = text_of(json_object_get(obj, "Templating"), "Name");
    (void)path;
    if (*text_of(obj, "Name") == 0)
        return invalid(e, "name must be provided");
    if (driver && data)
        return invalid(e, "secret data must not be provided when the driver is specified");
    if (*templating && strcmp(templating, "golang") != 0)
        return err_set(e, ERR_INVALID, "Templating.Name: must be golang");
    return 0;
}
