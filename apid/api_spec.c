#include "apid/api_spec.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>

#include "apid/api_ref.h"
#include "common/template/expand.h"
#include "common/util/err.h"

#define NAME_MAX_CHARS 63u
#define MEMORY_MIN (4ll << 20)
#define CPU_MIN_NANO 1000000ll
#define HEALTH_MIN_NS 1000000ll

static int fault(struct spec_fault *f, enum fault_class class, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static int fault(struct spec_fault *f, enum fault_class class, const char *fmt, ...)
{
    va_list ap;

    f->class = class;
    f->status = 400;
    va_start(ap, fmt);
    (void)vsnprintf(f->msg, sizeof f->msg, fmt, ap); /* NOLINT(clang-analyzer-valist.Uninitialized): it is, above */
    va_end(ap);
    return -1;
}

static json_t *at(json_t *o, const char *key)
{
    return json_object_get(o, key);
}

static const char *text(json_t *o, const char *key)
{
    const char *s = json_string_value(at(o, key));
    return s ? s : "";
}

static bool one_of(const char *s, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(s, *list) == 0)
            return true;
    return false;
}

/* ---- the engine's conversion: plain errors ---- */

static int check_runtime(json_t *task, struct spec_fault *f)
{
    const char *runtime = text(task, "Runtime");

    if (strcmp(runtime, "plugin") == 0 || at(task, "PluginSpec")) {
        (void)fault(f, FAULT_PLAIN, "runtime type \"plugin\" only supported in experimental");
        f->status = 500;
        return -1;
    }
    if (*runtime && strcmp(runtime, "container") != 0 && strcmp(runtime, "attachment") != 0)
        return fault(f, FAULT_PLAIN, "unsupported runtime");
    if (!json_is_object(at(task, "ContainerSpec")) || strcmp(runtime, "attachment") == 0)
        return fault(f, FAULT_PLAIN, "mismatched Runtime and *Spec fields");
    return 0;
}

static int check_mount_types(json_t *container, struct spec_fault *f)
{
    static const char *const types[] = { "", "bind", "volume", "tmpfs", "npipe", "cluster", NULL };
    json_t *m;
    size_t i;

    json_array_foreach (at(container, "Mounts"), i, m)
        if (!one_of(text(m, "Type"), types))
            return fault(f, FAULT_PLAIN, "invalid MountType: \"%s\"", text(m, "Type"));
    return 0;
}

static int check_credential_spec(json_t *container, struct spec_fault *f)
{
    json_t *c = at(at(container, "Privileges"), "CredentialSpec");
    int given = (*text(c, "Config") != 0) + (*text(c, "File") != 0) + (*text(c, "Registry") != 0);

    if (c && given == 0)
        return fault(f, FAULT_PLAIN,
                     "invalid CredentialSpec: must either provide \"file\", \"registry\", or \"config\" for credential "
                     "spec");
    if (c && given > 1)
        return fault(f, FAULT_PLAIN,
                     "invalid CredentialSpec: cannot specify more than one of \"file\", \"registry\" and "
                     "\"config\" credential specs");
    return 0;
}

static int check_config_targets(json_t *container, struct spec_fault *f)
{
    json_t *c;
    size_t i;

    json_array_foreach (at(container, "Configs"), i, c) {
        if (at(c, "File") && at(c, "Runtime"))
            return fault(f, FAULT_PLAIN, "invalid Config: cannot specify both File and Runtime");
        if (!at(c, "File") && !at(c, "Runtime"))
            return fault(f, FAULT_PLAIN, "invalid Config: either File or Runtime should be set");
    }
    return 0;
}

static int check_update_words(json_t *u, const char *what, struct spec_fault *f)
{
    static const char *const updates[] = { "", "pause", "continue", "rollback", NULL };
    static const char *const rollbacks[] = { "", "pause", "continue", NULL };
    static const char *const orders[] = { "", "stop-first", "start-first", NULL };
    bool rollback = strcmp(what, "RollbackConfig") == 0;

    if (!one_of(text(u, "FailureAction"), rollback ? rollbacks : updates))
        return fault(f, FAULT_PLAIN, "unrecognized update failure action %s", text(u, "FailureAction"));
    if (!one_of(text(u, "Order"), orders))
        return fault(f, FAULT_PLAIN, "unrecognized update order %s", text(u, "Order"));
    return 0;
}

static int check_words(json_t *spec, json_t *task, struct spec_fault *f)
{
    static const char *const conditions[] = { "", "none", "on-failure", "any", NULL };
    static const char *const modes[] = { "", "vip", "dnsrr", NULL };
    const char *condition = text(at(task, "RestartPolicy"), "Condition");
    const char *mode = text(at(spec, "EndpointSpec"), "Mode");

    if (!one_of(condition, conditions))
        return fault(f, FAULT_PLAIN, "invalid RestartCondition: \"%s\"", condition);
    if (check_update_words(at(spec, "UpdateConfig"), "UpdateConfig", f) < 0 ||
        check_update_words(at(spec, "RollbackConfig"), "RollbackConfig", f) < 0)
        return -1;
    if (!one_of(mode, modes))
        return fault(f, FAULT_PLAIN, "invalid resolution mode: \"%s\"", mode);
    return 0;
}

static int check_mode(json_t *spec, struct spec_fault *f)
{
    json_t *m = at(spec, "Mode");
    int given = (at(m, "Replicated") != NULL) + (at(m, "Global") != NULL) + (at(m, "ReplicatedJob") != NULL) +
                (at(m, "GlobalJob") != NULL);

    if (given > 1)
        return fault(f, FAULT_PLAIN, "must specify only one service mode");
    return 0;
}

/* ---- the manager's validation ---- */

static int check_name(const char *name, struct spec_fault *f)
{
    size_t n = strlen(name);

    if (n == 0)
        return 0; /* gets a random one */
    if (n > NAME_MAX_CHARS)
        return fault(f, FAULT_INVALID, "name must be 63 characters or fewer");
    bool ok = isalnum((unsigned char)name[0]) && isalnum((unsigned char)name[n - 1]);
    for (size_t i = 0; ok && i < n; i++)
        ok = isalnum((unsigned char)name[i]) || strchr("-_", name[i]);
    if (!ok)
        return fault(f, FAULT_INVALID, "name must be valid as a DNS name component");
    return 0;
}

static int check_resources(json_t *r, struct spec_fault *f)
{
    int64_t cpu = json_integer_value(at(r, "NanoCPUs")), mem = json_integer_value(at(r, "MemoryBytes"));

    if (cpu != 0 && cpu < CPU_MIN_NANO)
        return fault(f, FAULT_INVALID, "invalid cpu value %g: Must be at least 0.001", (double)cpu / 1e9);
    if (mem != 0 && mem < MEMORY_MIN)
        return fault(f, FAULT_INVALID, "invalid memory value %lld: Must be at least 4MiB", (long long)mem);
    return 0;
}

static int check_swap(json_t *res, struct spec_fault *f)
{
    if (at(res, "SwapBytes") && json_integer_value(at(at(res, "Limits"), "MemoryBytes")) == 0)
        return fault(f, FAULT_INVALID, "memory swap provided, but no memory-limit was set");
    return 0;
}

static int check_restart(json_t *p, struct spec_fault *f)
{
    if (json_integer_value(at(p, "Delay")) < 0)
        return fault(f, FAULT_INVALID, "TaskSpec: restart-delay cannot be negative");
    if (json_integer_value(at(p, "Window")) < 0)
        return fault(f, FAULT_INVALID, "TaskSpec: restart-window cannot be negative");
    return 0;
}

static bool chars_in(struct str s, const char *extra, bool first_letter)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        bool letter = isalpha(c) || c == '_';
        if (i == 0 && first_letter && !letter)
            return false;
        if (!isalnum(c) && !(c && strchr(extra, c)))
            return false;
    }
    return s.n > 0;
}

static struct str trim(struct str s)
{
    while (s.n > 0 && isspace((unsigned char)s.p[0]))
        s.p++, s.n--;
    while (s.n > 0 && isspace((unsigned char)s.p[s.n - 1]))
        s.n--;
    return s;
}

/* swarmkit's grammar: key op value, with "==" looked for before "!=". */
static int check_constraint(const char *c, struct spec_fault *f)
{
    const char *op = strstr(c, "==");

    if (!op)
        op = strstr(c, "!=");
    if (!op)
        return fault(f, FAULT_UNKNOWN, "constraint expected one operator from ==, !=");
    struct str key = trim((struct str){ c, (size_t)(op - c) }), val = trim(str_from(op + 2));
    if (key.n < 2 || !chars_in(key, "-_.", true))
        return fault(f, FAULT_UNKNOWN, "key '" STR_FMT "' is invalid", STR_ARG(key));
    if (!chars_in(val, ":-_ \t.*()?+[]\\^$|/", false))
        return fault(f, FAULT_UNKNOWN, "value '" STR_FMT "' is invalid", STR_ARG(val));
    return 0;
}

static int check_placement(json_t *p, struct spec_fault *f)
{
    json_t *c;
    size_t i;

    json_array_foreach (at(p, "Constraints"), i, c)
        if (json_is_string(c) && check_constraint(json_string_value(c), f) < 0)
            return -1;
    return 0;
}

static int check_image(json_t *container, struct spec_fault *f)
{
    const char *image = text(container, "Image");
    struct image_ref ref;
    struct err e = ERR_INIT;

    if (!*image)
        return fault(f, FAULT_INVALID, "ContainerSpec: image reference must be provided");
    if (image_ref_parse(str_from(image), &ref, &e) < 0)
        return fault(f, FAULT_INVALID, "ContainerSpec: \"%s\" is not a valid repository/tag", image);
    return 0;
}

static int check_mount_targets(json_t *container, struct spec_fault *f)
{
    json_t *mounts = at(container, "Mounts"), *m, *seen = json_object();
    size_t i;
    int r = 0;

    json_array_foreach (mounts, i, m) {
        const char *target = text(m, "Target");
        if (json_object_get(seen, target))
            r = fault(f, FAULT_INVALID, "ContainerSpec: duplicate mount point: %s", target);
        if (r < 0)
            break;
        json_object_set_new(seen, target, json_true());
    }
    json_decref(seen);
    return r;
}

static int check_health(json_t *h, struct spec_fault *f)
{
    static const char *const times[] = { "Interval", "Timeout", "StartPeriod", "StartInterval", NULL };

    for (size_t i = 0; times[i]; i++) {
        int64_t v = json_integer_value(at(h, times[i]));
        if (v != 0 && v < HEALTH_MIN_NS)
            return fault(f, FAULT_INVALID, "ContainerSpec: %s in HealthConfig cannot be less than 1ms", times[i]);
    }
    if (json_integer_value(at(h, "Retries")) < 0)
        return fault(f, FAULT_INVALID, "ContainerSpec: Retries in HealthConfig cannot be negative");
    return 0;
}

/* Tried with made-up values, as Docker does. */
static int check_templates(json_t *container, struct spec_fault *f)
{
    struct err e = ERR_INIT;
    json_t *v;
    size_t i;

    if (expand_check(str_from(text(container, "Hostname")), &e) < 0)
        return fault(f, FAULT_INVALID, "expanding hostname failed: %s", e.msg);
    json_array_foreach (at(container, "Env"), i, v)
        if (expand_env_check(str_from(json_string_value(v)), &e) < 0)
            return fault(f, FAULT_INVALID, "expanding env failed: %s", e.msg);
    json_array_foreach (at(container, "Mounts"), i, v)
        if (expand_mount_check("mount source", str_from(text(v, "Source")), &e) < 0 ||
            expand_mount_check("mount target", str_from(text(v, "Target")), &e) < 0)
            return fault(f, FAULT_INVALID, "expanding mounts failed: %s", e.msg);
    return 0;
}

static int check_task(json_t *task, struct spec_fault *f)
{
    json_t *c = at(task, "ContainerSpec"), *res = at(task, "Resources");

    if (check_resources(at(res, "Limits"), f) < 0 || check_resources(at(res, "Reservations"), f) < 0 ||
        check_swap(res, f) < 0 || check_restart(at(task, "RestartPolicy"), f) < 0 ||
        check_placement(at(task, "Placement"), f) < 0)
        return -1;
    if (check_image(c, f) < 0 || check_mount_targets(c, f) < 0 || check_health(at(c, "Healthcheck"), f) < 0)
        return -1;
    return check_templates(c, f);
}

static int check_update_numbers(json_t *u, struct spec_fault *f)
{
    double ratio = json_number_value(at(u, "MaxFailureRatio"));

    if (json_integer_value(at(u, "Delay")) < 0)
        return fault(f, FAULT_INVALID, "TaskSpec: update-delay cannot be negative");
    if (json_integer_value(at(u, "Monitor")) < 0)
        return fault(f, FAULT_INVALID, "TaskSpec: update-monitor cannot be negative");
    if (ratio < 0 || ratio > 1)
        return fault(f, FAULT_INVALID, "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1");
    return 0;
}

static bool is_host(json_t *port)
{
    return strcmp(text(port, "PublishMode"), "host") == 0;
}

static const char *protocol(json_t *port)
{
    const char *p = text(port, "Protocol");
    return *p ? p : "tcp";
}

static int check_endpoint(json_t *ep, struct spec_fault *f)
{
    json_t *ports = at(ep, "Ports"), *p, *q;
    size_t i, k;

    json_array_foreach (ports, i, p)
        if (strcmp(text(ep, "Mode"), "dnsrr") == 0 && !is_host(p))
            return fault(f, FAULT_INVALID,
                         "EndpointSpec: port published with ingress mode can't be used with dnsrr mode");
    json_array_foreach (ports, i, p) {
        int64_t number = json_integer_value(at(p, "PublishedPort"));
        json_array_foreach (ports, k, q) {
            if (k >= i)
                break;
            if (number != 0 && number == json_integer_value(at(q, "PublishedPort")) &&
                strcmp(protocol(p), protocol(q)) == 0)
                return fault(f, FAULT_INVALID, "EndpointSpec: duplicate published ports provided");
        }
    }
    return 0;
}

static int check_references(json_t *list, const char *kind, const char *name, struct spec_fault *f)
{
    json_t *a, *b;
    size_t i, k;

    json_array_foreach (list, i, a) {
        const char *target = text(at(a, "File"), "Name");
        if (at(a, "Runtime"))
            continue;
        if (!*target)
            return fault(f, FAULT_INVALID, "malformed %s reference, no target provided", kind);
        json_array_foreach (list, k, b) {
            if (k >= i)
                break;
            if (strcmp(target, text(at(b, "File"), "Name")) == 0)
                return fault(f, FAULT_INVALID, "%s references '%s' and '%s' have a conflicting target: '%s'", kind,
                             text(b, name), text(a, name), target);
        }
    }
    return 0;
}

static bool is_job(json_t *spec)
{
    const char *mode = spec_mode(spec);
    return strcmp(mode, "ReplicatedJob") == 0 || strcmp(mode, "GlobalJob") == 0;
}

int spec_check(json_t *spec, struct spec_fault *f)
{
    json_t *task = at(spec, "TaskTemplate"), *c = at(task, "ContainerSpec");

    if (check_runtime(task, f) < 0 || check_mount_types(c, f) < 0 || check_credential_spec(c, f) < 0 ||
        check_config_targets(c, f) < 0 || check_words(spec, task, f) < 0 || check_mode(spec, f) < 0)
        return -1;
    if (check_name(text(spec, "Name"), f) < 0 || check_task(task, f) < 0)
        return -1;
    if (is_job(spec) && at(spec, "UpdateConfig"))
        return fault(f, FAULT_INVALID, "Jobs may not have an update config");
    if (check_update_numbers(at(spec, "UpdateConfig"), f) < 0 ||
        check_update_numbers(at(spec, "RollbackConfig"), f) < 0 || check_endpoint(at(spec, "EndpointSpec"), f) < 0)
        return -1;
    if (check_references(at(c, "Secrets"), "secret", "SecretName", f) < 0)
        return -1;
    return check_references(at(c, "Configs"), "config", "ConfigName", f);
}

/* ---- what is filled in ---- */

const char *spec_mode(json_t *spec)
{
    static const char *const modes[] = { "Global", "ReplicatedJob", "GlobalJob", NULL };
    json_t *m = at(spec, "Mode");

    for (size_t i = 0; modes[i]; i++)
        if (at(m, modes[i]))
            return modes[i];
    return "Replicated";
}

static void set_default(json_t *o, const char *key, json_t *v)
{
    if (json_is_object(o) && !at(o, key))
        json_object_set_new(o, key, v);
    else
        json_decref(v);
}

static void set_default_text(json_t *o, const char *key, const char *v)
{
    if (json_is_object(o) && !*text(o, key))
        json_object_set_new(o, key, json_string(v));
}

static void normalise_mode(json_t *spec)
{
    set_default(spec, "Mode", json_object());
    json_t *m = at(spec, "Mode"), *job = at(m, "ReplicatedJob");
    if (strcmp(spec_mode(spec), "Replicated") == 0) {
        set_default(m, "Replicated", json_object());
        set_default(at(m, "Replicated"), "Replicas", json_integer(1));
    }
    if (job) {
        set_default(job, "MaxConcurrent", json_integer(1));
        set_default(job, "TotalCompletions", json_integer(json_integer_value(at(job, "MaxConcurrent"))));
    }
}

void spec_normalise(json_t *spec, unsigned version)
{
    json_t *task = at(spec, "TaskTemplate"), *p, *m;
    size_t i;

    set_default(spec, "Labels", json_object());
    if (version < 144 && json_array_size(at(spec, "Networks")) > 0 && json_array_size(at(task, "Networks")) == 0)
        json_object_set(task, "Networks", at(spec, "Networks"));
    json_object_del(spec, "Networks");
    normalise_mode(spec);
    json_array_foreach (at(at(spec, "EndpointSpec"), "Ports"), i, p) {
        set_default_text(p, "Protocol", "tcp");
        set_default_text(p, "PublishMode", "ingress");
    }
    json_array_foreach (at(at(task, "ContainerSpec"), "Mounts"), i, m)
        set_default_text(m, "Type", "volume");
    set_default_text(at(spec, "UpdateConfig"), "FailureAction", "pause");
    set_default_text(at(spec, "UpdateConfig"), "Order", "stop-first");
    set_default_text(at(spec, "RollbackConfig"), "FailureAction", "pause");
    set_default_text(at(spec, "RollbackConfig"), "Order", "stop-first");
    set_default_text(at(task, "RestartPolicy"), "Condition", "any");
}

void spec_name_random(const uint8_t bytes[8], char name[40])
{
    static const char *const left[] = { "agile",   "bold",   "brave", "bright", "calm",   "clever", "eager", "fair",
                                        "gentle",  "happy",  "keen",  "kind",   "lively", "lucid",  "merry", "nimble",
                                        "patient", "polite", "proud", "quick",  "quiet",  "serene", "sharp", "steady",
                                        "sunny",   "swift",  "tidy",  "vivid",  "warm",   "wise",   "witty", "zesty" };
    static const char *const right[] = { "bartik",  "bell",     "bohr",    "cerf",    "curie",    "darwin",  "dijkstra",
                                         "euclid",  "euler",    "faraday", "fermat",  "franklin", "galileo", "gauss",
                                         "goodall", "hamilton", "hopper",  "hypatia", "kepler",   "knuth",   "lamarr",
                                         "lamport", "lovelace", "meitner", "newton",  "noether",  "pascal",  "ritchie",
                                         "shannon", "tesla",    "turing",  "wozniak" };
    unsigned tail = (unsigned)bytes[2] << 16 | (unsigned)bytes[3] << 8 | bytes[4];

    /* The number makes a clash with an existing name unlikely enough not to need a second try. */
    (void)snprintf(name, 40, "%s_%s%u", left[bytes[0] % 32], right[bytes[1] % 32], tail % 100000);
}

/* ---- ports ---- */

size_t spec_ports(json_t *spec, struct spec_port *ret, size_t max)
{
    json_t *p;
    size_t i, n = 0;

    json_array_foreach (at(at(spec, "EndpointSpec"), "Ports"), i, p) {
        int64_t number = json_integer_value(at(p, "PublishedPort"));
        if (number > 0 && n < max)
            ret[n++] = (struct spec_port){ str_from(protocol(p)), (uint64_t)number, is_host(p) };
    }
    return n;
}

bool spec_port_clash(const struct spec_port *ours, size_t n, const struct spec_port *theirs)
{
    for (size_t i = 0; i < n; i++)
        if (theirs->published != 0 && ours[i].published == theirs->published &&
            str_eq(ours[i].protocol, theirs->protocol) && !(theirs->host && ours[i].host))
            return true;
    return false;
}
