/* Scenarios in testdata/core: `node`, `spec`, `service`, `task`, `del-` lines build the mirror; `pass`, `rebalance` and
 * `enforce` print what is decided. */
#include "schedulerd/sched_core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/object/constraint.h"
#include "common/util/check.h"
#include "common/util/scenario.h"

#define NOW 1000000000000ll

struct scenario {
    struct sched s;
    struct arena a;
};

/* Collects the words of a line under their key. */
struct args {
    char **words;
    unsigned n;
};

static const char *arg(const struct args *a, const char *key, const char *def)
{
    size_t n = strlen(key);
    for (unsigned i = 0; i < a->n; i++)
        if (strncmp(a->words[i], key, n) == 0 && a->words[i][n] == '=')
            return a->words[i] + n + 1;
    return def;
}

static int64_t amount(const char *v)
{
    char *end;
    double d = strtod(v, &end);
    return (int64_t)(d * (*end == 'G' ? 1 << 30 : *end == 'M' ? 1 << 20 : 1));
}

/* Words "prefix.key=value" as a map, or with `generic` as Docker's list of discrete resources. */
static void put_map(struct buf *b, const struct args *a, const char *prefix)
{
    size_t n = strlen(prefix), count = 0;
    for (unsigned i = 0; i < a->n; i++)
        count += strncmp(a->words[i], prefix, n) == 0;
    mp_map(b, count);
    for (unsigned i = 0; i < a->n; i++)
        if (strncmp(a->words[i], prefix, n) == 0) {
            char *eq = strchr(a->words[i], '=');
            CHECK(eq != NULL);
            mp_str(b, (struct str){ a->words[i] + n, (size_t)(eq - a->words[i]) - n });
            mp_cstr(b, eq + 1);
        }
}

static void put_one_generic(struct buf *b, struct str kind, const char *value)
{
    bool named = *value < '0' || *value > '9';
    mp_map(b, 1);
    mp_cstr(b, named ? "NamedResourceSpec" : "DiscreteResourceSpec");
    mp_map(b, 2);
    mp_cstr(b, "Kind");
    mp_str(b, kind);
    if (named)
        mp_kv_cstr(b, "Value", value);
    else
        mp_kv_i64(b, "Value", strtoll(value, NULL, 10));
}

static void put_generic(struct buf *b, const struct args *a)
{
    size_t count = 0;
    for (unsigned i = 0; i < a->n; i++)
        count += strncmp(a->words[i], "kind.", 5) == 0;
    mp_array(b, count);
    for (unsigned i = 0; i < a->n; i++)
        if (strncmp(a->words[i], "kind.", 5) == 0) {
            char *eq = strchr(a->words[i], '=');
            CHECK(eq != NULL);
            put_one_generic(b, (struct str){ a->words[i] + 5, (size_t)(eq - a->words[i]) - 5 }, eq + 1);
        }
}

static void put_resources(struct buf *b, const struct args *a)
{
    mp_map(b, 3);
    mp_kv_i64(b, "NanoCPUs", (int64_t)(strtod(arg(a, "cpu", "0"), NULL) * 1e9));
    mp_kv_i64(b, "MemoryBytes", amount(arg(a, "mem", "0")));
    mp_cstr(b, "GenericResources");
    put_generic(b, a);
}

static void put_platform(struct buf *b, const char *text)
{
    const char *slash = strchr(text, '/');
    CHECK(slash != NULL);
    mp_map(b, 2);
    mp_cstr(b, "OS");
    mp_str(b, (struct str){ text, (size_t)(slash - text) });
    mp_kv_cstr(b, "Architecture", slash + 1);
}

static void put_plugin(struct buf *b, const char *type, const char *name)
{
    if (!*name)
        return;
    mp_map(b, 2);
    mp_kv_cstr(b, "Type", type);
    mp_kv_cstr(b, "Name", name);
}

static void add_node(struct scenario *sc, const char *id, const struct args *a)
{
    struct buf b = BUF_INIT;
    struct err e;
    mp_map(&b, 5);
    mp_kv_cstr(&b, "ID", id);
    mp_kv_cstr(&b, "Role", arg(a, "observed", ""));
    mp_cstr(&b, "Spec");
    mp_map(&b, 3);
    mp_kv_cstr(&b, "Availability", arg(a, "avail", "active"));
    mp_kv_cstr(&b, "Role", arg(a, "role", "worker"));
    mp_cstr(&b, "Labels");
    put_map(&b, a, "label.");
    mp_cstr(&b, "Description");
    mp_map(&b, 4);
    mp_kv_cstr(&b, "Hostname", arg(a, "host", id));
    mp_cstr(&b, "Platform");
    put_platform(&b, arg(a, "platform", "linux/x86_64"));
    mp_cstr(&b, "Resources");
    put_resources(&b, a);
    mp_cstr(&b, "Engine");
    mp_map(&b, 2);
    mp_cstr(&b, "Labels");
    put_map(&b, a, "engine.");
    mp_cstr(&b, "Plugins");
    mp_array(&b, (*arg(a, "log", "") != 0) + (*arg(a, "volume", "") != 0) + (*arg(a, "net", "") != 0) +
                     (*arg(a, "kernel", "") != 0));
    put_plugin(&b, "Network", arg(a, "net", ""));
    put_plugin(&b, "Kernel", arg(a, "kernel", ""));
    put_plugin(&b, "Log", arg(a, "log", ""));
    put_plugin(&b, "Volume", arg(a, "volume", ""));
    mp_cstr(&b, "Status");
    mp_map(&b, 2);
    mp_kv_cstr(&b, "State", arg(a, "state", "ready"));
    mp_kv_cstr(&b, "Addr", arg(a, "ip", ""));
    assert_int_equal(sched_put_node(&sc->s, buf_str(&b), &e), 0);
    buf_done(&b);
}

static unsigned count_of(const struct args *a, const char *key)
{
    unsigned n = 0;
    for (unsigned i = 0; i < a->n; i++)
        n += strncmp(a->words[i], key, strlen(key)) == 0;
    return n;
}

static void put_placement(struct buf *b, const struct args *a)
{
    mp_map(b, 4);
    mp_kv_u64(b, "MaxReplicas", strtoull(arg(a, "max", "0"), NULL, 10));
    mp_cstr(b, "Constraints");
    mp_array(b, count_of(a, "constraint="));
    for (unsigned i = 0; i < a->n; i++)
        if (strncmp(a->words[i], "constraint=", 11) == 0)
            mp_cstr(b, a->words[i] + 11);
    mp_cstr(b, "Preferences");
    mp_array(b, count_of(a, "spread="));
    for (unsigned i = 0; i < a->n; i++)
        if (strncmp(a->words[i], "spread=", 7) == 0) {
            mp_map(b, 1);
            mp_cstr(b, "Spread");
            mp_map(b, 1);
            mp_kv_cstr(b, "SpreadDescriptor", a->words[i] + 7);
        }
    mp_cstr(b, "Platforms");
    mp_array(b, *arg(a, "platform", "") != 0);
    if (*arg(a, "platform", ""))
        put_platform(b, arg(a, "platform", ""));
}

static bool network_of(void *arg_, struct str id, struct str *ret_driver, bool *ret_encrypted)
{
    (void)arg_;
    *ret_encrypted = str_is(id, "encrypted");
    *ret_driver = *ret_encrypted ? STR("overlay") : id;
    return !str_is(id, "unknown");
}

static void put_container(struct buf *b, const char *image, const char *volume)
{
    bool cluster = strcmp(volume, "cluster") == 0;
    mp_cstr(b, "ContainerSpec");
    mp_map(b, 2);
    mp_kv_cstr(b, "Image", image);
    mp_cstr(b, "Mounts");
    mp_array(b, *volume != 0);
    if (!*volume)
        return;
    mp_map(b, cluster ? 1 : 2);
    mp_kv_cstr(b, "Type", cluster ? "cluster" : "volume");
    if (cluster)
        return;
    mp_cstr(b, "VolumeOptions");
    mp_map(b, 1);
    mp_cstr(b, "DriverConfig");
    mp_map(b, 1);
    mp_kv_cstr(b, "Name", volume);
}

static void add_spec(struct scenario *sc, const char *id, const struct args *a)
{
    struct buf b = BUF_INIT;
    struct err e;
    const char *host = arg(a, "host", ""), *log = arg(a, "log", ""), *volume = arg(a, "volume", "");
    mp_map(&b, 3);
    mp_kv_cstr(&b, "ID", id);
    mp_cstr(&b, "Spec");
    mp_map(&b, 4 + (*log != 0));
    put_container(&b, arg(a, "image", ""), volume);
    mp_cstr(&b, "Networks");
    mp_array(&b, count_of(a, "net="));
    for (unsigned i = 0; i < a->n; i++)
        if (strncmp(a->words[i], "net=", 4) == 0) {
            mp_map(&b, 1);
            mp_kv_cstr(&b, "Target", a->words[i] + 4);
        }
    if (*log) {
        mp_cstr(&b, "LogDriver");
        mp_map(&b, 1);
        mp_kv_cstr(&b, "Name", log);
    }
    mp_cstr(&b, "Resources");
    mp_map(&b, 1);
    mp_cstr(&b, "Reservations");
    put_resources(&b, a);
    mp_cstr(&b, "Placement");
    put_placement(&b, a);
    mp_cstr(&b, "EndpointSpec");
    mp_map(&b, 1);
    mp_cstr(&b, "Ports");
    mp_array(&b, *host != 0);
    if (*host) {
        mp_map(&b, 4);
        mp_kv_cstr(&b, "Protocol", arg(a, "proto", "tcp"));
        mp_kv_cstr(&b, "PublishMode", "host");
        mp_kv_u64(&b, "TargetPort", 1);
        mp_kv_u64(&b, "PublishedPort", strtoull(host, NULL, 10));
    }
    assert_int_equal(sched_put_spec(&sc->s, str_from(id), buf_str(&b), network_of, NULL, &e), 0);
    buf_done(&b);
}

/* given.gpu=a: what the task's document says it has. */
static struct list given(struct scenario *sc, const struct args *a)
{
    struct view_generic *v = arena_array(&sc->a, a->n + 1, sizeof *v);
    size_t n = 0;
    CHECK(v != NULL);
    for (unsigned i = 0; i < a->n; i++)
        if (strncmp(a->words[i], "given.", 6) == 0) {
            char *eq = strchr(a->words[i], '=');
            CHECK(eq != NULL);
            v[n].NamedResourceSpec = arena_alloc(&sc->a, sizeof(struct view_named));
            *v[n++].NamedResourceSpec =
                (struct view_named){ { a->words[i] + 6, (size_t)(eq - a->words[i]) - 6 }, str_from(eq + 1) };
        }
    return (struct list){ v, n };
}

static void add_service(struct scenario *sc, const char *id, const struct args *a)
{
    struct sched_policy p = { 0 };
    CHECK(view_priority(str_from(arg(a, "priority", "0")), &p.priority));
    if (*arg(a, "rebalance", ""))
        CHECK(view_rebalance(str_from(arg(a, "rebalance", "")), &p.rebalance));
    sched_put_service(&sc->s, str_from(id), &p);
}

static void add_task(struct scenario *sc, const char *id, const struct args *a)
{
    static struct view_evict evicted;
    struct view_task t = { .ID = str_from(id),
                           .ServiceID = str_from(arg(a, "svc", "s")),
                           .TaskSpecID = str_from(arg(a, "spec", arg(a, "svc", "s"))),
                           .NodeID = str_from(arg(a, "node", "")),
                           .DesiredState = str_from(arg(a, "desired", "running")),
                           .Slot = strtoull(arg(a, "slot", "1"), NULL, 10),
                           .Evict = *arg(a, "evicted", "") ? &evicted : NULL,
                           .GenericResources = given(sc, a),
                           .Status = { .State = str_from(arg(a, "state", *arg(a, "node", "") ? "running" : "pending")),
                                       .AppliedAt = NOW - (int64_t)(strtod(arg(a, "ago", "0"), NULL) * 1e9) } };
    sched_put_task(&sc->s, &t, NOW);
}

static int by_text(const void *a, const void *b)
{
    return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

static void say_generic(const struct list *l, struct buf *out)
{
    const struct view_generic *g = l->v;
    for (size_t i = 0; i < l->n; i++)
        if (g[i].NamedResourceSpec)
            buf_printf(out, " " STR_FMT "=" STR_FMT, STR_ARG(g[i].NamedResourceSpec->Kind),
                       STR_ARG(g[i].NamedResourceSpec->Value));
        else
            buf_printf(out, " " STR_FMT "=%lld", STR_ARG(g[i].DiscreteResourceSpec->Kind),
                       (long long)g[i].DiscreteResourceSpec->Value);
}

static void say_evictions(const struct sched_eviction *v, size_t n, struct buf *out)
{
    for (size_t i = 0; i < n; i++)
        buf_printf(out, "evict " STR_FMT ": %s\n", STR_ARG(v[i].task), v[i].reason);
}

static void run_pass(struct scenario *sc, size_t max, struct buf *out)
{
    struct sched_decisions d;
    bool more = sched_pass(&sc->s, NOW, max, &sc->a, &d);
    for (size_t i = 0; i < d.n; i++) {
        if (d.v[i].obsolete) {
            buf_printf(out, "end " STR_FMT "\n", STR_ARG(d.v[i].task));
        } else if (d.v[i].reason) {
            buf_printf(out, "refuse " STR_FMT ": %s\n", STR_ARG(d.v[i].task), d.v[i].reason);
        } else {
            buf_printf(out, "%s " STR_FMT " -> " STR_FMT, d.v[i].preassigned ? "confirm" : "place",
                       STR_ARG(d.v[i].task), STR_ARG(d.v[i].node));
            say_generic(&d.v[i].generic, out);
            buf_putc(out, '\n');
        }
    }
    say_evictions(d.evict, d.nevict, out);
    buf_printf(out, "%zu decided, %zu waiting%s\n", d.n, sc->s.waiting, more ? ", more" : "");
}

static void run_rebalance(struct scenario *sc, struct buf *out)
{
    size_t n;
    struct sched_eviction *v = sched_rebalance(&sc->s, NOW, 100, &sc->a, &n);
    say_evictions(v, n, out);
    buf_printf(out, "%zu moved\n", n);
}

static void run_enforce(struct scenario *sc, struct buf *out)
{
    size_t n;
    struct str *v = sched_enforce(&sc->s, &sc->a, &n);
    if (n > 0)
        qsort(v, n, sizeof *v, by_text);
    for (size_t i = 0; i < n; i++)
        buf_printf(out, "reject " STR_FMT "\n", STR_ARG(v[i]));
    buf_printf(out, "%zu rejected\n", n);
}

static void *begin(void)
{
    struct scenario *sc = calloc(1, sizeof *sc);
    CHECK(sc != NULL);
    sched_init(&sc->s);
    arena_init(&sc->a, 64u << 20);
    return sc;
}

static void read_line(void *p, char **words, unsigned n, struct buf *out)
{
    struct scenario *sc = p;
    struct args a = { words + 2, n > 2 ? n - 2 : 0 };
    const char *id = n > 1 ? words[1] : "";
    if (strcmp(words[0], "node") == 0)
        add_node(sc, id, &a);
    else if (strcmp(words[0], "spec") == 0)
        add_spec(sc, id, &a);
    else if (strcmp(words[0], "task") == 0)
        add_task(sc, id, &a);
    else if (strcmp(words[0], "del-task") == 0)
        sched_del_task(&sc->s, str_from(id));
    else if (strcmp(words[0], "del-node") == 0)
        sched_del_node(&sc->s, str_from(id));
    else if (strcmp(words[0], "service") == 0)
        add_service(sc, id, &a);
    else if (strcmp(words[0], "del-service") == 0)
        sched_del_service(&sc->s, str_from(id));
    else if (strcmp(words[0], "rebalance") == 0)
        run_rebalance(sc, out);
    else if (strcmp(words[0], "enforce-again") == 0)
        sched_enforce_again(&sc->s);
    else if (strcmp(words[0], "enforce") == 0)
        run_enforce(sc, out);
    else if (strcmp(words[0], "again") == 0)
        sched_again(&sc->s, str_from(id));
    else if (strcmp(words[0], "explain") == 0)
        sched_explain(&sc->s, str_from(id), NOW, out), buf_putc(out, '\n');
    else if (strcmp(words[0], "pass") == 0)
        run_pass(sc, *id ? strtoull(id, NULL, 10) : 1000, out);
    else
        CHECK(!"a known line");
    sched_check(&sc->s);
}

static void end(void *p, struct buf *out)
{
    struct scenario *sc = p;
    (void)out;
    sched_done(&sc->s);
    arena_done(&sc->a);
    free(sc);
}

static void test_scenarios(void **state)
{
    static const struct scenario_ops ops = { begin, read_line, end };
    (void)state;
    assert_true(scenario_run("schedulerd/testdata/core/*.txt", &ops));
}

static void test_constraints(void **state)
{
    static struct strpair labels[] = { { STR("zone"), STR("East") } };
    const struct view_node n = { .ID = STR("id1"),
                                 .Spec = { .Role = STR("manager"), .Labels = { labels, 1 } },
                                 .Status = { .Addr = STR("10.1.2.3") },
                                 .Description = { .Hostname = STR("h1"),
                                                  .Platform = { .OS = STR("linux"), .Architecture = STR("x86_64") } } };
    static const struct {
        const char *text;
        bool ok, match;
    } cases[] = {
        { "node.id==id1", true, true },
        { "node.id == ID1", true, true },
        { " node.hostname != h1 ", true, false },
        { "NODE.ROLE==manager", true, true },
        { "node.labels.zone==east", true, true },
        { "node.labels.Zone==east", true, false },
        { "node.labels.none!=x", true, true },
        { "engine.labels.none==x", true, false },
        { "node.platform.os==linux", true, true },
        { "node.platform.arch!=arm64", true, true },
        { "node.ip==10.1.2.3", true, true },
        { "node.ip==10.1.0.0/16", true, true },
        { "node.ip!=10.2.0.0/16", true, true },
        { "node.ip==10.1.2.0/29", true, true },
        { "node.ip==10.1.2.8/29", true, false },
        { "node.ip!=nonsense", true, false },
        { "node.ip==10.1.2.3/33", true, false },
        { "node.nothing==x", true, false },
        { "node.nothing!=x", true, false },
        { "n==x", false, false },
        { "node.id=x", false, false },
        { "node.id==", false, false },
        { "==x", false, false },
        { "node id==x", false, false },
        { "node.id==x&y", false, false },
        { "", false, false },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct constraint c;
        bool ok = constraint_parse(str_from(cases[i].text), &c);
        if (ok != cases[i].ok || (ok && constraint_match(&c, &n) != cases[i].match))
            fail_msg("constraint \"%s\"", cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_constraints), cmocka_unit_test(test_scenarios) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
