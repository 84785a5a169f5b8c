/* object_test.c - round trips, what survives, errors with their paths, Docker's own texts, defaults, differences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/object/object.h"

/* A request with every flag of `docker service create`, in the order in which the engine gives it back. */
#define SPEC_ALL_FLAGS                                                                                                 \
    "{\"Name\":\"allf\",\"Labels\":{\"l\":\"1\"},\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"busybox:latest\","   \
    "\"Labels\""                                                                                                       \
    ":{\"cl\":\"1\"},\"Command\":[\"/bin/"                                                                             \
    "sh\"],\"Args\":[\"-c\",\"top\"],\"Hostname\":\"{{.Service.Name}}-{{.Task.Slot}}\","                               \
    "\"Env\":[\"A=1\",\"B=2\"],\"Dir\":\"/"                                                                            \
    "tmp\",\"User\":\"0:0\",\"Groups\":[\"0\"],\"Init\":true,\"StopSignal\":\"SIGINT\",\"TTY\""                        \
    ":true,\"ReadOnly\":true,\"Mounts\":[{\"Type\":\"volume\",\"Source\":\"vol1\",\"Target\":\"/"                      \
    "data\",\"ReadOnly\":true,\"V"                                                                                     \
    "olumeOptions\":{\"NoCopy\":true,\"Labels\":{\"x\":\"y\"},\"DriverConfig\":{}}},{\"Type\":\"bind\",\"Source\":\"/" \
    "tmp\",\""                                                                                                         \
    "Target\":\"/hosttmp\",\"BindOptions\":{\"Propagation\":\"rslave\"}},{\"Type\":\"tmpfs\",\"Target\":\"/"           \
    "tt\",\"TmpfsOpti"                                                                                                 \
    "ons\":{\"SizeBytes\":1000000,\"Mode\":1016}}],\"StopGracePeriod\":7000000000,\"Healthcheck\":{\"Test\":[\"CMD-SH" \
    "ELL\",\"true\"],\"Interval\":5000000000,\"Timeout\":2000000000,\"StartPeriod\":3000000000,\"Retries\":2},\"Hosts" \
    "\":[\"10.1.2.3 "                                                                                                  \
    "foo.bar\"],\"DNSConfig\":{\"Nameservers\":[\"8.8.8.8\"],\"Search\":[\"example.com\"],\"Options\":[\"n"            \
    "dots:1\"]},\"Secrets\":[{\"File\":{\"Name\":\"pw2\",\"UID\":\"3\",\"GID\":\"4\",\"Mode\":288},\"SecretID\":"      \
    "\"qb3wjo87w33u9"                                                                                                  \
    "jmwacysovtbt\",\"SecretName\":\"pw\"}],\"Configs\":[{\"File\":{\"Name\":\"/etc/"                                  \
    "app.conf\",\"UID\":\"1\",\"GID\":\"2\",\"Mo"                                                                      \
    "de\":256},\"ConfigID\":\"x8dlb5bq4lo66r6gc1xgjpj0r\",\"ConfigName\":\"appcfg\"}],\"Isolation\":\"default\","      \
    "\"Sysct"                                                                                                          \
    "ls\":{\"net.core.somaxconn\":\"1024\"},\"CapabilityAdd\":[\"CAP_NET_ADMIN\"],\"CapabilityDrop\":[\"CAP_MKNOD\"]," \
    "\""                                                                                                               \
    "Ulimits\":[{\"Name\":\"nofile\",\"Hard\":2000,\"Soft\":1000}]},\"Resources\":{\"Limits\":{\"NanoCPUs\":"          \
    "500000000,\"M"                                                                                                    \
    "emoryBytes\":67108864,\"Pids\":50},\"Reservations\":{\"NanoCPUs\":100000000,\"MemoryBytes\":16777216,\"Generic"   \
    "Resources\":[{\"DiscreteResourceSpec\":{\"Kind\":\"gpu\",\"Value\":1}}]}},\"RestartPolicy\":{\"Condition\":\"on-" \
    "fa"                                                                                                               \
    "ilure\",\"Delay\":2000000000,\"MaxAttempts\":4,\"Window\":30000000000},\"Placement\":{\"Constraints\":[\"node.ro" \
    "le==manager\",\"node.labels.zone!=west\"],\"Preferences\":[{\"Spread\":{\"SpreadDescriptor\":\"node.labels.zon"   \
    "e\"}}],\"MaxReplicas\":2},\"Networks\":[{\"Target\":\"4bin4aw96gpod8vvkhk99baw2\",\"Aliases\":[\"al1\",\"al2\"]," \
    "\"Dr"                                                                                                             \
    "iverOpts\":{\"k\":\"v\"}}],\"LogDriver\":{\"Name\":\"json-file\",\"Options\":{\"max-size\":\"1m\"}},"             \
    "\"ForceUpdate\":0},"                                                                                              \
    "\"Mode\":{\"Replicated\":{\"Replicas\":1}},\"UpdateConfig\":{\"Parallelism\":3,\"Delay\":1000000000,"             \
    "\"FailureActi"                                                                                                    \
    "on\":\"rollback\",\"Monitor\":4000000000,\"MaxFailureRatio\":0.2,\"Order\":\"start-first\"},\"RollbackConfig\":{" \
    "\""                                                                                                               \
    "Parallelism\":2,\"Delay\":1000000000,\"FailureAction\":\"continue\",\"Monitor\":3000000000,\"MaxFailureRatio\":"  \
    "0.1,\"Order\":\"start-first\"},\"EndpointSpec\":{\"Mode\":\"dnsrr\",\"Ports\":[{\"Protocol\":\"tcp\","            \
    "\"TargetPort\":89"                                                                                                \
    ",\"PublishedPort\":8089,\"PublishMode\":\"host\"}]}}"

static json_t *parse(const struct obj_type *t, const char *text)
{
    struct err e = ERR_INIT;
    json_t *doc = NULL;
    if (obj_parse(t, str_from(text), &doc, &e) < 0)
        fail_msg("%s: %s", text, e.msg);
    return doc;
}

/* through_store - what a client gets back of what it posted. Given. */
static char *through_store(const struct obj_type *t, const char *text)
{
    struct err e = ERR_INIT;
    struct buf mp = BUF_INIT, out = BUF_INIT;
    json_t *doc = parse(t, text), *again = NULL;
    assert_int_equal(obj_pack(t, doc, &mp, &e), 0);
    assert_true(mp_valid(buf_str(&mp)));
    assert_int_equal(obj_write_json(t, buf_str(&mp), &out, &e), 0);
    assert_int_equal(obj_unpack(t, buf_str(&mp), &again, &e), 0);
    char *dump = json_dumps(again, JSON_COMPACT | JSON_REAL_PRECISION(15));
    assert_string_equal(dump, buf_cstr(&out));
    char *ret = strdup(buf_cstr(&out));
    free(dump);
    json_decref(doc);
    json_decref(again);
    buf_done(&mp);
    buf_done(&out);
    return ret;
}

static void expect_back(const struct obj_type *t, const char *in, const char *out)
{
    char *got = through_store(t, in);
    assert_string_equal(got, out);
    free(got);
}

static void spec_comes_back_as_posted(void **state)
{
    (void)state;
    expect_back(&obj_service_spec, SPEC_ALL_FLAGS, SPEC_ALL_FLAGS);
    static const char small[] =
        "{\"Name\":\"web\",\"Labels\":{},\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"127.0.0.1:5000/busybox:1.0\","
        "\"Init\":false,\"DNSConfig\":{}},\"Resources\":{\"Limits\":{},\"Reservations\":{}},\"Placement\":{"
        "\"Platforms\":"
        "[{\"Architecture\":\"amd64\",\"OS\":\"linux\"}]},\"ForceUpdate\":0},\"Mode\":{\"Replicated\":{\"Replicas\":2}}"
        ","
        "\"EndpointSpec\":{\"Mode\":\"vip\"}}";
    expect_back(&obj_service_spec, small, small);
}

static void go_conventions(void **state)
{
    (void)state;
    /* null is nothing; zeros go unless they are pointers; what Docker always shows is there. */
    expect_back(
        &obj_service_spec,
        "{\"Name\":\"x\",\"Labels\":null,\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"a\",\"TTY\":false,\"Env\":[],"
        "\"Hostname\":\"\",\"StopGracePeriod\":0,\"Init\":null},\"RestartPolicy\":{}},\"Mode\":{},\"UpdateConfig\":{}}",
        "{\"Name\":\"x\",\"Labels\":{},\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"a\",\"StopGracePeriod\":0},"
        "\"RestartPolicy\":{\"Condition\":\"any\",\"MaxAttempts\":0},\"ForceUpdate\":0},"
        "\"Mode\":{\"Replicated\":{\"Replicas\":1}},\"UpdateConfig\":{\"Parallelism\":0,\"FailureAction\":\"pause\","
        "\"MaxFailureRatio\":0,\"Order\":\"stop-first\"}}");
    expect_back(&obj_service_spec,
                "{\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"a\"}},\"Mode\":{\"Replicated\":{\"Replicas\":0}},"
                "\"EndpointSpec\":{\"Ports\":[{\"TargetPort\":80}]}}",
                "{\"Labels\":{},\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"a\"},\"ForceUpdate\":0},"
                "\"Mode\":{\"Replicated\":{\"Replicas\":0}},\"EndpointSpec\":{\"Mode\":\"vip\",\"Ports\":[{"
                "\"Protocol\":\"tcp\","
                "\"TargetPort\":80,\"PublishMode\":\"ingress\"}]}}");
    expect_back(
        &obj_service_spec,
        "{\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"a\"}},\"Mode\":{\"ReplicatedJob\":{\"MaxConcurrent\":3}}}",
        "{\"Labels\":{},\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"a\"},\"ForceUpdate\":0},"
        "\"Mode\":{\"ReplicatedJob\":{\"MaxConcurrent\":3,\"TotalCompletions\":3}}}");
}

static void case_is_folded_as_in_go(void **state)
{
    (void)state;
    expect_back(
        &obj_service_spec,
        "{\"name\":\"x\",\"taskTEMPLATE\":{\"ContainerSpec\":{\"image\":\"a\"}},\"Mode\":{\"global\":{}}}",
        "{\"Name\":\"x\",\"Labels\":{},\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"a\"},\"ForceUpdate\":0},"
        "\"Mode\":{\"Global\":{}}}");
    struct err e = ERR_INIT;
    json_t *doc;
    assert_int_equal(obj_parse(&obj_service_spec, STR("{\"Name\":\"x\",\"name\":\"y\"}"), &doc, &e), -ERR_INVALID);
    assert_string_equal(e.msg, "Name: is there twice, in different case");
}

static void unknown_fields_survive(void **state)
{
    (void)state;
    expect_back(
        &obj_service_spec,
        "{\"Name\":\"x\",\"Future\":{\"a\":[1,-2,null,true,\"t\\u00e9\",1.5]},\"TaskTemplate\":{\"New\":7,"
        "\"ContainerSpec\":{\"Newer\":{},\"Image\":\"a\",\"Mounts\":[{\"Target\":\"/a\",\"Odd\":\"1\"}]}}}",
        "{\"Name\":\"x\",\"Labels\":{},\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"a\",\"Mounts\":[{\"Target\":"
        "\"/a\",\"Odd\":\"1\"}],\"Newer\":{}},\"ForceUpdate\":0,\"New\":7},\"Mode\":{\"Replicated\":{\"Replicas\":1}},"
        "\"Future\":{\"a\":[1,-2,null,true,\"t\xc3\xa9\",1.5]}}");
}

static void times_and_bytes(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct buf mp = BUF_INIT;
    struct str data;
    json_t *doc = parse(&obj_config,
                        "{\"ID\":\"c1\",\"Version\":{\"Index\":9},\"CreatedAt\":\"2026-11-20T15:52:43.090475245Z\","
                        "\"UpdatedAt\":\"0001-01-01T00:00:00Z\",\"Spec\":{\"Name\":\"c\",\"Data\":\"cG9ydD04MAo=\"}}");
    int64_t ns;
    assert_int_equal(obj_pack(&obj_config, doc, &mp, &e), 0);
    assert_true(mp_get_i64(buf_str(&mp), "CreatedAt", &ns));
    assert_true(ns == 1795189963090475245);
    assert_true(mp_path(buf_str(&mp), "Spec.Data", &data));
    struct mp_cursor c = mp_cursor(data);
    struct mp_val v;
    assert_int_equal(mp_next(&c, &v), 0);
    assert_int_equal(v.type, MP_BIN);
    assert_true(str_is(v.s, "port=80\n"));
    json_decref(doc);
    buf_done(&mp);
    expect_back(
        &obj_config,
        "{\"ID\":\"c1\",\"Version\":{\"Index\":9},\"CreatedAt\":\"2026-11-20T15:52:43.090475245Z\",\"Spec\":{\"Name\":"
        "\"c\",\"Data\":\"cG9ydD04MAo=\",\"Templating\":{\"Name\":\"golang\"}}}",
        "{\"ID\":\"c1\",\"Version\":{\"Index\":9},\"CreatedAt\":\"2026-11-20T15:52:43.090475245Z\",\"UpdatedAt\":"
        "\"0001-01-01T00:00:00Z\",\"Spec\":{\"Name\":\"c\",\"Labels\":{},\"Data\":\"cG9ydD04MAo=\",\"Templating\":{"
        "\"Name\":\"golang\"}}}");
}

static void secrets_stay_in(void **state)
{
    (void)state;
    expect_back(
        &obj_secret, "{\"ID\":\"s\",\"Spec\":{\"Name\":\"pw\",\"Data\":\"aGlkZGVu\"},\"Rev\":4}",
        "{\"ID\":\"s\",\"Version\":{},\"CreatedAt\":\"0001-01-01T00:00:00Z\",\"UpdatedAt\":\"0001-01-01T00:00:00Z\","
        "\"Spec\":{\"Name\":\"pw\",\"Labels\":{}}}");
}

static void overlay_adds_what_is_not_stored(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct buf doc = BUF_INIT, spec = BUF_INIT, out = BUF_INIT;
    json_t *tt = parse(&obj_task_template, "{\"ContainerSpec\":{\"Image\":\"a\"}}");
    assert_int_equal(obj_pack(&obj_task_template, tt, &spec, &e), 0);
    mp_map(&doc, 4);
    mp_kv_cstr(&doc, "ID", "t1");
    mp_kv_cstr(&doc, "TaskSpecID", "ts1");
    mp_kv_u64(&doc, "Slot", 2);
    mp_cstr(&doc, "Status");
    mp_map(&doc, 3);
    mp_kv_cstr(&doc, "State", "running");
    mp_kv_i64(&doc, "Timestamp", 1000000000);
    mp_kv_i64(&doc, "AppliedAt", 5);
    struct obj_overlay over[] = { { "Spec", buf_str(&spec) } };
    assert_int_equal(obj_write_json_with(&obj_task, buf_str(&doc), over, 1, &out, &e), 0);
    assert_string_equal(buf_cstr(&out),
                        "{\"ID\":\"t1\",\"Version\":{},\"CreatedAt\":\"0001-01-01T00:00:00Z\",\"UpdatedAt\":"
                        "\"0001-01-01T00:00:00Z\",\"Labels\":{},\"Spec\":{\"ContainerSpec\":{\"Image\":\"a\"},"
                        "\"ForceUpdate\":0},\"Slot\":2,\"Status\":{\"Timestamp\":\"1970-01-01T00:00:01Z\",\"State\":"
                        "\"running\",\"PortStatus\":{}}}");
    json_decref(tt);
    buf_done(&doc);
    buf_done(&spec);
    buf_done(&out);
}

static void malformed_documents_are_refused(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct buf out = BUF_INIT;
    buf_puts(&out, "kept");
    assert_int_equal(obj_write_json(&obj_service, STR("\x81\xa2"), &out, &e), -ERR_CORRUPT);
    assert_int_equal(obj_write_json(&obj_service, STR("\xc0"), &out, &e), -ERR_CORRUPT);
    assert_int_equal(obj_write_json(&obj_service, STR(""), &out, &e), -ERR_CORRUPT);
    assert_string_equal(buf_cstr(&out), "kept");
    buf_done(&out);
}

/* ---- errors ---- */

static void expect_error(const struct obj_type *t, const char *text, const char *message)
{
    struct err e = ERR_INIT;
    json_t *doc = NULL;
    int r = obj_parse(t, str_from(text), &doc, &e);
    if (r == 0)
        fail_msg("accepted: %s", text);
    assert_int_equal(r, -ERR_INVALID);
    assert_string_equal(e.msg, message);
}

#define CS(inner) "{\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"busybox\"," inner "}}}"
#define TT(inner) "{\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"busybox\"}," inner "}}"
#define SPEC(inner) "{\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"busybox\"}}," inner "}"

static const struct {
    const char *text, *message;
} spec_errors[] = {
    /* shape, with the path */
    { "[]", "body: must be an object" },
    { CS("\"TTY\":1"), "TaskTemplate.ContainerSpec.TTY: must be true or false" },
    { CS("\"Env\":[\"A=1\",2]"), "TaskTemplate.ContainerSpec.Env[1]: must be text" },
    { CS("\"Labels\":{\"a\":1}"), "TaskTemplate.ContainerSpec.Labels: must be a map of text to text" },
    { CS("\"Mounts\":[{\"Target\":\"/a\"},{\"Target\":\"/b\"},{\"Type\":\"bogus\",\"Target\":\"/c\"}]"),
      "TaskTemplate.ContainerSpec.Mounts[2].Type: must be bind, volume or tmpfs (invalid MountType: \"bogus\")" },
    { CS("\"Mounts\":[7]"), "TaskTemplate.ContainerSpec.Mounts[0]: must be an object" },
    { CS("\"Mounts\":[{\"Type\":\"bind\",\"Target\":\"/a\"}]"),
      "TaskTemplate.ContainerSpec.Mounts[0].Source: must not be empty for a bind mount" },
    { CS("\"Mounts\":[{}]"), "TaskTemplate.ContainerSpec.Mounts[0].Target: must not be empty" },
    { CS("\"StopGracePeriod\":-1"),
      "TaskTemplate.ContainerSpec.StopGracePeriod: must be between 0 and 9223372036854775807" },
    { CS("\"OomScoreAdj\":2000"), "TaskTemplate.ContainerSpec.OomScoreAdj: must be between -1000 and 1000" },
    { CS("\"Ulimits\":[{\"Soft\":1}]"), "TaskTemplate.ContainerSpec.Ulimits[0].Name: is required" },
    { TT("\"RestartPolicy\":{\"MaxAttempts\":-1}"), "TaskTemplate.RestartPolicy.MaxAttempts: must not be negative" },
    { SPEC("\"Mode\":{\"Replicated\":{\"Replicas\":-1}}"), "Mode.Replicated.Replicas: must not be negative" },
    { SPEC("\"Mode\":{\"Replicated\":{\"Replicas\":1.5}}"), "Mode.Replicated.Replicas: must be a whole number" },
    { SPEC("\"Mode\":{\"Replicated\":{\"Replicas\":99999999999}}"),
      "Mode.Replicated.Replicas: must be between 0 and 1000000" },
    { SPEC("\"EndpointSpec\":{\"Ports\":[{\"TargetPort\":70000}]}"),
      "EndpointSpec.Ports[0].TargetPort: must be between 1 and 65535" },
    { SPEC("\"EndpointSpec\":{\"Ports\":[{\"TargetPort\":1,\"Protocol\":\"icmp\"}]}"),
      "EndpointSpec.Ports[0].Protocol: must be tcp, udp or sctp" },
    /* Docker's words */
    { "{\"Name\":\"a b\"}", "name must be valid as a DNS name component" },
    { "{\"Name\":\"-a\"}", "name must be valid as a DNS name component" },
    { "{\"Name\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
      "name must be 63 characters or fewer" },
    { "{\"Name\":\"ct\"}", "mismatched Runtime and *Spec fields" },
    { "{\"TaskTemplate\":{}}", "mismatched Runtime and *Spec fields" },
    { TT("\"Runtime\":\"wasm\""), "unsupported runtime" },
    { "{\"TaskTemplate\":{\"PluginSpec\":{\"name\":\"x\"},\"Runtime\":\"plugin\"}}",
      "runtime type \"plugin\" only supported in experimental" },
    { "{\"TaskTemplate\":{\"ContainerSpec\":{}}}", "ContainerSpec: image reference must be provided" },
    { "{\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"Bad Image\"}}}",
      "ContainerSpec: \"Bad Image\" is not a valid repository/tag" },
    { SPEC("\"Mode\":{\"Replicated\":{},\"Global\":{}}"), "must specify only one service mode" },
    { TT("\"Resources\":{\"Limits\":{\"NanoCPUs\":1000}}"), "invalid cpu value 1e-06: Must be at least 0.001" },
    { TT("\"Resources\":{\"Reservations\":{\"MemoryBytes\":1000}}"),
      "invalid memory value 1000: Must be at least 4MiB" },
    { TT("\"Resources\":{\"SwapBytes\":1}"), "memory swap provided, but no memory-limit was set" },
    { TT("\"RestartPolicy\":{\"Condition\":\"bogus\"}"), "invalid RestartCondition: \"bogus\"" },
    { TT("\"RestartPolicy\":{\"Delay\":-1}"), "TaskSpec: restart-delay cannot be negative" },
    { TT("\"RestartPolicy\":{\"Window\":-1}"), "TaskSpec: restart-window cannot be negative" },
    { SPEC("\"UpdateConfig\":{\"Delay\":-1}"), "TaskSpec: update-delay cannot be negative" },
    { SPEC("\"UpdateConfig\":{\"Monitor\":-1}"), "TaskSpec: update-monitor cannot be negative" },
    { SPEC("\"UpdateConfig\":{\"MaxFailureRatio\":2}"),
      "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1" },
    { SPEC("\"UpdateConfig\":{\"FailureAction\":\"bogus\"}"), "unrecognized update failure action bogus" },
    { SPEC("\"RollbackConfig\":{\"Order\":\"bogus\"}"), "unrecognized update order bogus" },
    { SPEC("\"Mode\":{\"ReplicatedJob\":{}},\"UpdateConfig\":{\"Parallelism\":1}"),
      "Jobs may not have an update config" },
    { TT("\"Placement\":{\"Constraints\":[\"node.role=worker\"]}"), "constraint expected one operator from ==, !=" },
    { TT("\"Placement\":{\"Constraints\":[\"9x==worker\"]}"), "key '9x' is invalid" },
    { SPEC("\"EndpointSpec\":{\"Mode\":\"bogus\"}"), "invalid resolution mode: \"bogus\"" },
    { SPEC("\"EndpointSpec\":{\"Ports\":[{\"TargetPort\":80,\"PublishedPort\":7001},{\"TargetPort\":81,"
           "\"PublishedPort\":7001,\"Protocol\":\"tcp\"}]}"),
      "EndpointSpec: duplicate published ports provided" },
    { SPEC("\"EndpointSpec\":{\"Mode\":\"dnsrr\",\"Ports\":[{\"TargetPort\":80}]}"),
      "EndpointSpec: port published with ingress mode can't be used with dnsrr mode" },
    { CS("\"Mounts\":[{\"Target\":\"/a\"},{\"Target\":\"/a/\"}]"), "ContainerSpec: duplicate mount point: /a/" },
    { CS("\"Healthcheck\":{\"Interval\":1}"), "ContainerSpec: Interval in HealthConfig cannot be less than 1ms" },
    { CS("\"Healthcheck\":{\"Retries\":-1}"), "ContainerSpec: Retries in HealthConfig cannot be negative" },
    { CS("\"Secrets\":[{\"SecretID\":\"i\",\"SecretName\":\"n\"}]"), "malformed secret reference, no target provided" },
    { CS("\"Configs\":[{\"ConfigID\":\"i\",\"ConfigName\":\"n\"}]"),
      "invalid Config: either File or Runtime should be set" },
    { CS("\"Secrets\":[{\"SecretID\":\"i\",\"SecretName\":\"a\",\"File\":{\"Name\":\"t\"}},"
         "{\"SecretID\":\"j\",\"SecretName\":\"b\",\"File\":{\"Name\":\"t\"}}]"),
      "secret references 'a' and 'b' have a conflicting target: 't'" },
    { CS("\"Privileges\":{\"CredentialSpec\":{}}"),
      "invalid CredentialSpec: must either provide \"file\", \"registry\", or \"config\" for credential spec" },
    { CS("\"Hostname\":\"{{.Bogus}}\""), "expanding hostname failed: template: expansion:1:2: executing \"expansion\" "
                                         "at <.Bogus>: can't evaluate field Bogus "
                                         "in type *template.Context" },
};

static void errors_of_a_service_spec(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof spec_errors / sizeof *spec_errors; i++)
        expect_error(&obj_service_spec, spec_errors[i].text, spec_errors[i].message);
}

static void errors_of_other_specs(void **state)
{
    (void)state;
    expect_error(&obj_node_spec, "{}", "invalid Role: \"\"");
    expect_error(&obj_node_spec, "{\"Role\":\"worker\",\"Availability\":\"x\"}", "invalid Availability: \"x\"");
    expect_error(&obj_cluster_spec, "{\"Name\":\"other\"}", "swarm spec must be named \"default\"");
    expect_error(&obj_cluster_spec, "{\"CAConfig\":{\"NodeCertExpiry\":60000000000}}",
                 "minimum certificate expiry time is: 1h0m0s");
    expect_error(&obj_cluster_spec, "{\"Dispatcher\":{\"HeartbeatPeriod\":-1}}",
                 "heartbeat time period cannot be a negative duration");
    expect_error(&obj_cluster_spec, "{\"CAConfig\":{\"ExternalCAs\":[{\"Protocol\":\"bogus\",\"URL\":\"x\"}]}}",
                 "invalid protocol: \"bogus\"");
    expect_error(&obj_network_spec, "{\"Name\":\"o\",\"IPAM\":{\"Config\":[{\"Subnet\":\"bad\"}]}}",
                 "Invalid subnet bad : invalid CIDR address: bad");
    expect_error(&obj_network_spec,
                 "{\"Name\":\"o\",\"IPAM\":{\"Config\":[{\"Subnet\":\"10.1.0.0/24\",\"Gateway\":\"10.2.0.1\"}]}}",
                 "ipam configuration: subnet 10.1.0.0/24 does not contain gateway 10.2.0.1");
    expect_error(&obj_secret_spec, "{\"Name\":\"a/b\",\"Data\":\"YQ==\"}",
                 "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be "
                 "[a-zA-Z0-9]");
    expect_error(&obj_secret_spec, "{\"Data\":\"YQ==\"}", "name must be provided");
    expect_error(&obj_secret_spec, "{\"Name\":\"a\",\"Data\":\"\"}",
                 "secret data must be larger than 0 and less than 512000 bytes");
    expect_error(&obj_secret_spec, "{\"Name\":\"a\",\"Data\":\"?\"}", "illegal base64 data at input byte 0");
}

static void errors_of_json(void **state)
{
    (void)state;
    expect_error(&obj_service_spec, " \n", "invalid JSON: got EOF while reading request body");
    /* as encoding/json of Go says it */
    static const char *const broken[][2] = {
        { "{i", "invalid character 'i' looking for beginning of object key string" },
        { "{\"a\" 1}", "invalid character '1' after object key" },
        { "{\"a\":1 \"b\"}", "invalid character '\"' after object key:value pair" },
        { "{\"a\":[1 2]}", "invalid character '2' after array element" },
        { "{\"a\":tru}", "invalid character '}' in literal true (expecting 'e')" },
        { "{\"a\":-}", "invalid character '}' in numeric literal" },
        { "{\"a\":1.x}", "invalid character 'x' after decimal point in numeric literal" },
        { "{\"a\":1e}", "invalid character '}' in exponent of numeric literal" },
        { "{\"a\":\"\\q\"}", "invalid character 'q' in string escape code" },
        { "{\"a\":\"\\u12g\"}", "invalid character 'g' in \\u hexadecimal character escape" },
        { "{\"a\":\"\n\"}", "invalid character '\\n' in string literal" },
        { "hello", "invalid character 'h' looking for beginning of value" },
        { "'", "invalid character '\\'' looking for beginning of value" },
        { "\xc3", "invalid character '\xc3\x83' looking for beginning of value" },
        { "{\"a\":", "unexpected EOF" },
        { "{\"a\"", "unexpected EOF" },
    };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        char text[200];
        (void)snprintf(text, sizeof text, "invalid JSON: %s", broken[i][1]);
        expect_error(&obj_service_spec, broken[i][0], text);
    }
    expect_error(&obj_service_spec, "{} x", "unexpected content after JSON");
    struct err e = ERR_INIT;
    json_t *doc;
    struct buf deep = BUF_INIT;
    buf_puts(&deep, "{\"x\":");
    for (int i = 0; i < 40; i++)
        buf_putc(&deep, '[');
    assert_int_equal(obj_parse(&obj_service_spec, buf_str(&deep), &doc, &e), -ERR_INVALID);
    assert_string_equal(e.msg, "invalid JSON: nested more than 32 deep");
    buf_done(&deep);
    assert_int_equal(obj_parse(&obj_service_spec, STR("{\"a\":1,\"a\":2}"), &doc, &e), -ERR_INVALID);
    assert_int_equal(obj_parse(&obj_service_spec, STR("{\"Name\":\"\xff\"}"), &doc, &e), -ERR_INVALID);
    assert_int_equal(obj_parse(&obj_service_spec, STR("{\"Name\":"), &doc, &e), -ERR_INVALID);
    assert_int_equal(obj_parse(&obj_service_spec, (struct str){ "", OBJ_JSON_MAX + 1 }, &doc, &e), -ERR_TOO_BIG);
}

static void images(void **state)
{
    static const char digest[] = "sha256:ed6da3090edbd6740ba70bd62642083a82e24aa3e5a8b98c365039fda20ed9a7";
    static const char *const good[] = {
        "busybox", "busybox:1.0", "127.0.0.1:5000/a/b-c:v1_2", "localhost/x", "docker.io/library/a__b.c:latest",
        "a/b/c",   "[::1]:5000/x"
    };
    static const char *const bad[] = {
        "Busybox", "a:",   ":a",          "a/",
        "/a",      "a//b", "a b",         "a@sha256:12",
        "a:b:c",   "a_-b", "host:port/a", "ed6da3090edbd6740ba70bd62642083a82e24aa3e5a8b98c365039fda20ed9a7"
    };
    (void)state;
    char text[400], message[300];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        snprintf(text, sizeof text, "{\"Image\":\"%s\"}", good[i]);
        json_decref(parse(&obj_container_spec, text));
        snprintf(text, sizeof text, "{\"Image\":\"%s@%s\"}", good[i], digest);
        json_decref(parse(&obj_container_spec, text));
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "{\"Image\":\"%s\"}", bad[i]);
        snprintf(message, sizeof message, "ContainerSpec: \"%s\" is not a valid repository/tag", bad[i]);
        expect_error(&obj_container_spec, text, message);
    }
}

static void drain_periods(void **state)
{
    static const char *const good[] = { "0", "0s", "5s", "1m30s", "250ms", "24h" }, *const bad[] = { "", "5", "-1s",
                                                                                                     "long", "25h" };
    char text[300];
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good + sizeof bad / sizeof *bad; i++) {
        bool ok = i < sizeof good / sizeof *good;
        snprintf(text, sizeof text,
                 "{\"Name\":\"w\",\"Labels\":{\"microswarm.drain-period\":\"%s\"},\"TaskTemplate\":"
                 "{\"ContainerSpec\":{\"Image\":\"a\"}}}",
                 ok ? good[i] : bad[i - sizeof good / sizeof *good]);
        if (ok)
            json_decref(parse(&obj_service_spec, text));
        else
            expect_error(&obj_service_spec, text,
                         "Labels[\"microswarm.drain-period\"]: must be a duration of at most 24h, such as "
                         "30s, or 0");
    }
}

static void autoscale(void **state)
{
#define L(what, value) "\"microswarm.autoscale." what "\":\"" value "\""
#define CPU L("max", "5") "," L("cpu", "50")
#define BAD(what, why) "Labels[\"microswarm.autoscale." what "\"]: " why
    static const struct {
        const char *labels, *error;
    } cases[] = {
        { CPU, NULL },
        { CPU "," L("min", "5") "," L("cooldown", "0"), NULL },
        { L("max", "5") "," L("memory", "80%"), NULL },
        { L("max", "5") "," L("metric", "http://:9100/metrics queue_length") "," L("target", "2.5"), NULL },
        { L("cpu", "50"), BAD("max", "must be there: how many replicas at most") },
        { L("max", "0") "," L("cpu", "50"), BAD("max", "must be 1 to 100000 replicas") },
        { L("max", "many") "," L("cpu", "50"), BAD("max", "must be 1 to 100000 replicas") },
        { CPU "," L("min", "6"), BAD("max", "must not be less than microswarm.autoscale.min") },
        { CPU "," L("min", "0"), BAD("min", "must be 1 to 100000 replicas") },
        { L("max", "5"), BAD("cpu", "must be there, or microswarm.autoscale.memory or microswarm.autoscale.metric: "
                                    "what to scale by") },
        { L("max", "5") "," L("cpu", "0"), BAD("cpu", "must be a percentage from 1 to 10000") },
        { L("max", "5") "," L("memory", "101"), BAD("memory", "must be a percentage from 1 to 100") },
        { L("max", "5") "," L("metric", "http://:9100/metrics q"),
          BAD("target", "must be there: what the metric should be, a task") },
        { CPU "," L("target", "1"), BAD("target", "needs microswarm.autoscale.metric") },
        { L("max", "5") "," L("metric", "http://:9100/m q") "," L("target", "-1"),
          BAD("target", "must be a number greater than 0") },
        { L("max", "5") "," L("metric", "http://:9100/m q") "," L("target", "nan"),
          BAD("target", "must be a number greater than 0") },
        { L("max", "5") "," L("metric", "http://host:9100/m q") "," L("target", "1"),
          BAD("metric", "must be http://:PORT/PATH and a metric's name, such as \"http://:9100/metrics "
                        "queue_length\"") },
        { L("max", "5") "," L("metric", "http://:0/m q") "," L("target", "1"),
          BAD("metric", "must be http://:PORT/PATH and a metric's name, such as \"http://:9100/metrics "
                        "queue_length\"") },
        { L("max", "5") "," L("metric", "http://:90/m q{a=1}") "," L("target", "1"),
          BAD("metric", "must be http://:PORT/PATH and a metric's name, such as \"http://:9100/metrics "
                        "queue_length\"") },
        { CPU "," L("cooldown", "-1s"), BAD("cooldown", "must be a duration of at most 24h, such as 30s") },
        { CPU "," L("speed", "1"),
          BAD("*", "must be min, max, cpu, memory, metric, target or cooldown, not microswarm.autoscale.speed") },
    };
    static const char *const modes[] = { "{\"Replicated\":{\"Replicas\":1}}", "{\"Global\":{}}" };
    char text[900];
    (void)state;
    for (size_t i = 0; i < 2 * (sizeof cases / sizeof *cases); i++) {
        size_t k = i / 2;
        snprintf(text, sizeof text,
                 "{\"Name\":\"w\",\"Labels\":{%s},\"Mode\":%s,\"TaskTemplate\":"
                 "{\"ContainerSpec\":{\"Image\":\"a\"},\"Resources\":{\"Limits\":{\"MemoryBytes\":10000000}}}}",
                 cases[k].labels, modes[i % 2]);
        if (cases[k].error)
            expect_error(&obj_service_spec, text, cases[k].error);
        else if (i % 2)
            expect_error(&obj_service_spec, text, BAD("*", "only replicated services scale themselves"));
        else
            json_decref(parse(&obj_service_spec, text));
    }
    expect_error(
        &obj_service_spec,
        "{\"Name\":\"w\",\"Labels\":{" L("max", "5") "," L("memory", "80") "},\"TaskTemplate\":"
                                                                           "{\"ContainerSpec\":{\"Image\":\"a\"}}}",
        BAD("memory", "is a percentage of the memory limit, and there is none"));
#undef L
#undef CPU
#undef BAD
}

static void schedules(void **state)
{
    static const struct {
        const char *mode, *labels, *error;
    } cases[] = {
        { "ReplicatedJob", "\"microswarm.schedule\":\"*/5 * * * *\"", NULL },
        { "GlobalJob", "\"microswarm.schedule\":\"@hourly\",\"microswarm.schedule.overlap\":\"skip\"", NULL },
        { "GlobalJob", "\"microswarm.schedule\":\"@daily\",\"microswarm.schedule.overlap\":\"replace\"", NULL },
        { "Replicated", "\"microswarm.schedule\":\"@hourly\"",
          "Labels[\"microswarm.schedule\"]: only jobs have a schedule" },
        { "GlobalJob", "\"microswarm.schedule\":\"0 0 30 2 *\"",
          "Labels[\"microswarm.schedule\"]: there is no such day in any year" },
        { "GlobalJob", "\"microswarm.schedule\":\"\"",
          "Labels[\"microswarm.schedule\"]: five fields are needed: minute, hour, day of month, month, day of week; "
          "this has 0" },
        { "GlobalJob", "\"microswarm.schedule\":\"CRON_TZ=Asia/Tokyo @daily\"",
          "Labels[\"microswarm.schedule\"]: time zone \"Asia/Tokyo\": only UTC is supported" },
        { "GlobalJob", "\"microswarm.schedule\":\"@daily\",\"microswarm.schedule.overlap\":\"queue\"",
          "Labels[\"microswarm.schedule.overlap\"]: must be skip or replace" },
        { "GlobalJob", "\"microswarm.schedule.overlap\":\"skip\"",
          "Labels[\"microswarm.schedule.overlap\"]: there is no microswarm.schedule" },
    };
    char text[600];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text,
                 "{\"Name\":\"w\",\"Labels\":{%s},\"Mode\":{\"%s\":{}},\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":"
                 "\"a\"}}}",
                 cases[i].labels, cases[i].mode);
        if (cases[i].error)
            expect_error(&obj_service_spec, text, cases[i].error);
        else
            json_decref(parse(&obj_service_spec, text));
    }
}

static void placement_labels(void **state)
{
    static const struct {
        const char *label, *value, *error;
    } cases[] = {
        { "priority", "0", NULL },
        { "priority", "-1000000", NULL },
        { "priority", "1000000", NULL },
        { "priority", "1000001", "must be a whole number from -1000000 to 1000000" },
        { "priority", "", "must be a whole number from -1000000 to 1000000" },
        { "priority", "-", "must be a whole number from -1000000 to 1000000" },
        { "priority", "high", "must be a whole number from -1000000 to 1000000" },
        { "rebalance", "1", NULL },
        { "rebalance", "100%", NULL },
        { "rebalance", "0", "must be how many tasks may be moved at a time: 1 to 10000, or 1% to 100%" },
        { "rebalance", "101%", "must be how many tasks may be moved at a time: 1 to 10000, or 1% to 100%" },
        { "rebalance", "%", "must be how many tasks may be moved at a time: 1 to 10000, or 1% to 100%" },
        { "rebalance", "true", "must be how many tasks may be moved at a time: 1 to 10000, or 1% to 100%" },
    };
    char text[300], message[300];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text,
                 "{\"Name\":\"w\",\"Labels\":{\"microswarm.%s\":\"%s\"},\"TaskTemplate\":{\"ContainerSpec\":{"
                 "\"Image\":\"a\"}}}",
                 cases[i].label, cases[i].value);
        snprintf(message, sizeof message, "Labels[\"microswarm.%s\"]: %s", cases[i].label, cases[i].error);
        if (cases[i].error)
            expect_error(&obj_service_spec, text, message);
        else
            json_decref(parse(&obj_service_spec, text));
    }
}

static void progress_deadlines(void **state)
{
    static const char *const good[] = { "1s", "10m", "168h", "1m30s" }, *const bad[] = { "",     "0",    "999ms", "-1s",
                                                                                         "long", "169h", "10" };
    char text[300];
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good + sizeof bad / sizeof *bad; i++) {
        bool ok = i < sizeof good / sizeof *good;
        snprintf(text, sizeof text,
                 "{\"Name\":\"w\",\"Labels\":{\"microswarm.update.progress-deadline\":\"%s\"},\"TaskTemplate\":"
                 "{\"ContainerSpec\":{\"Image\":\"a\"}}}",
                 ok ? good[i] : bad[i - sizeof good / sizeof *good]);
        if (ok)
            json_decref(parse(&obj_service_spec, text));
        else
            expect_error(&obj_service_spec, text,
                         "Labels[\"microswarm.update.progress-deadline\"]: must be a duration from 1s to 168h, such as "
                         "10m");
    }
}

/* ---- defaults and differences ---- */

static void defaults_are_filled_in(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    json_t *doc = parse(&obj_service_spec, "{\"Name\":\"w\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"a\"},"
                                           "\"RestartPolicy\":{\"Condition\":\"none\",\"Delay\":0}}}");
    assert_int_equal(obj_defaults(&obj_service_spec, doc, &e), 0);
    char *dump = json_dumps(doc, JSON_COMPACT | JSON_SORT_KEYS);
    assert_string_equal(
        dump,
        "{\"EndpointSpec\":{\"Mode\":\"vip\"},\"Mode\":{\"Replicated\":{\"Replicas\":1}},\"Name\":\"w\","
        "\"RollbackConfig\":{\"FailureAction\":\"pause\",\"MaxFailureRatio\":0,\"Monitor\":5000000000,\"Order\":"
        "\"stop-first\",\"Parallelism\":1},\"TaskTemplate\":{\"ContainerSpec\":{\"DNSConfig\":{},\"Image\":\"a\","
        "\"Isolation\":\"default\",\"StopGracePeriod\":10000000000},\"Placement\":{},\"Resources\":{\"Limits\":{},"
        "\"Reservations\":{}},\"RestartPolicy\":{\"Condition\":\"none\",\"Delay\":0,\"MaxAttempts\":0},\"Runtime\":"
        "\"container\"},\"UpdateConfig\":{\"FailureAction\":\"pause\",\"MaxFailureRatio\":0,\"Monitor\":5000000000,"
        "\"Order\":\"stop-first\",\"Parallelism\":1}}");
    free(dump);
    json_decref(doc);
    doc = parse(&obj_cluster_spec, "{\"Raft\":{\"ElectionTick\":0,\"HeartbeatTick\":0},\"Orchestration\":{}}");
    assert_int_equal(obj_defaults(&obj_cluster_spec, doc, &e), 0);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(doc, "Raft"), "ElectionTick")), 10);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(doc, "Orchestration"), "TaskHistoryRetentionLimit")), 5);
    json_decref(doc);
}

static void collect(void *arg, const char *path, json_t *a, json_t *b)
{
    char *va = a ? json_dumps(a, JSON_COMPACT | JSON_ENCODE_ANY) : strdup("-");
    char *vb = b ? json_dumps(b, JSON_COMPACT | JSON_ENCODE_ANY) : strdup("-");
    buf_printf(arg, "%s %s %s\n", path, va, vb);
    free(va);
    free(vb);
}

static void expect_diff(const struct obj_type *t, const char *a, const char *b, const char *text)
{
    struct buf out = BUF_INIT;
    json_t *da = a ? json_loads(a, 0, NULL) : NULL, *db = b ? json_loads(b, 0, NULL) : NULL;
    bool any = obj_diff(t, da, db, collect, &out);
    assert_string_equal(buf_cstr(&out), text);
    assert_int_equal(any, *text != 0);
    json_decref(da);
    json_decref(db);
    buf_done(&out);
}

static void differences(void **state)
{
    (void)state;
    expect_diff(&obj_service_spec, SPEC_ALL_FLAGS, SPEC_ALL_FLAGS, "");
    expect_diff(&obj_service_spec, "{\"Labels\":{\"a\":\"1\",\"b\":\"\"},\"Mode\":{\"Replicated\":{\"Replicas\":1}}}",
                "{\"Labels\":{\"a\":\"2\"},\"Mode\":{\"Replicated\":{\"Replicas\":0}}}",
                "Labels.a \"1\" \"2\"\nLabels.b \"\" -\nMode.Replicated.Replicas 1 0\n");
    expect_diff(
        &obj_service_spec, "{}",
        "{\"TaskTemplate\":{\"ContainerSpec\":{\"Env\":[\"A\"],\"TTY\":false,\"Init\":false},\"Placement\":{}}}",
        "TaskTemplate.ContainerSpec.Env[0] - \"A\"\nTaskTemplate.ContainerSpec.Init - false\n"
        "TaskTemplate.Placement - {}\n");
    expect_diff(&obj_service_spec, NULL, "{\"Name\":\"\",\"Labels\":{},\"New\":1}", "New - 1\n");
    expect_diff(&obj_service_spec, "{\"UpdateConfig\":{\"MaxFailureRatio\":0}}",
                "{\"UpdateConfig\":{\"MaxFailureRatio\":0.0,\"Delay\":0}}", "");
    expect_diff(&obj_secret_spec, "{\"Data\":\"YQ==\"}", "{\"Data\":\"Yg==\"}", "Data - -\n");
}

static void reference_has_rows(void **state)
{
    (void)state;
    struct buf out = BUF_INIT;
    obj_reference(&obj_service_spec, &out);
    assert_non_null(strstr(buf_cstr(&out), "| `TaskTemplate.ContainerSpec.Mounts[].BindOptions.Propagation` | text |"));
    assert_non_null(strstr(buf_cstr(&out), "| `Mode.Replicated.Replicas` | integer ≥ 0 | `1` | 0…1000000 |"));
    assert_null(strstr(buf_cstr(&out), "Rev`"));
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spec_comes_back_as_posted),
        cmocka_unit_test(go_conventions),
        cmocka_unit_test(case_is_folded_as_in_go),
        cmocka_unit_test(unknown_fields_survive),
        cmocka_unit_test(times_and_bytes),
        cmocka_unit_test(secrets_stay_in),
        cmocka_unit_test(overlay_adds_what_is_not_stored),
        cmocka_unit_test(malformed_documents_are_refused),
        cmocka_unit_test(drain_periods),
        cmocka_unit_test(autoscale),
        cmocka_unit_test(schedules),
        cmocka_unit_test(progress_deadlines),
        cmocka_unit_test(placement_labels),
        cmocka_unit_test(errors_of_a_service_spec),
        cmocka_unit_test(errors_of_other_specs),
        cmocka_unit_test(errors_of_json),
        cmocka_unit_test(images),
        cmocka_unit_test(defaults_are_filled_in),
        cmocka_unit_test(differences),
        cmocka_unit_test(reference_has_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
