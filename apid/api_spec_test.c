/* What the engine and the manager refuse in a service spec: bodies and texts as recorded from Docker 20.10. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "apid/api_spec.h"

#define T(task) "{\"Name\":\"x\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"busybox\"}" task "}}"
#define C(container) "{\"Name\":\"x\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"busybox\"" container "}}}"
#define S(spec) "{\"Name\":\"x\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"busybox\"}}" spec "}"

static json_t *load(const char *text)
{
    json_error_t je;
    json_t *o = json_loads(text, 0, &je);

    if (!o)
        fail_msg("%s: %s", text, je.text);
    return o;
}

static void test_refused(void **state)
{
    static const struct {
        const char *spec;
        enum fault_class class;
        const char *msg;
    } cases[] = {
        { "{}", FAULT_PLAIN, "mismatched Runtime and *Spec fields" },
        { "{\"Name\":\"x\"}", FAULT_PLAIN, "mismatched Runtime and *Spec fields" },
        { "{\"TaskTemplate\":{\"ContainerSpec\":{}}}", FAULT_INVALID,
          "ContainerSpec: image reference must be provided" },
        { "{\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"UPPER:::\"}}}", FAULT_INVALID,
          "ContainerSpec: \"UPPER:::\" is not a valid repository/tag" },
        { S(",\"Mode\":{\"Replicated\":{},\"Global\":{}}"), FAULT_PLAIN, "must specify only one service mode" },
        { T(",\"Runtime\":\"bogus\""), FAULT_PLAIN, "unsupported runtime" },
        { T(",\"Resources\":{\"Limits\":{\"NanoCPUs\":1000}}"), FAULT_INVALID,
          "invalid cpu value 1e-06: Must be at least 0.001" },
        { T(",\"Resources\":{\"Limits\":{\"MemoryBytes\":1000}}"), FAULT_INVALID,
          "invalid memory value 1000: Must be at least 4MiB" },
        { T(",\"Resources\":{\"Reservations\":{\"MemoryBytes\":-5}}"), FAULT_INVALID,
          "invalid memory value -5: Must be at least 4MiB" },
        { T(",\"RestartPolicy\":{\"Condition\":\"bogus\"}"), FAULT_PLAIN, "invalid RestartCondition: \"bogus\"" },
        { T(",\"RestartPolicy\":{\"Delay\":-1}"), FAULT_INVALID, "TaskSpec: restart-delay cannot be negative" },
        { S(",\"UpdateConfig\":{\"Delay\":-1}"), FAULT_INVALID, "TaskSpec: update-delay cannot be negative" },
        { S(",\"UpdateConfig\":{\"MaxFailureRatio\":2}"), FAULT_INVALID,
          "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1" },
        { S(",\"UpdateConfig\":{\"FailureAction\":\"bogus\"}"), FAULT_PLAIN,
          "unrecognized update failure action bogus" },
        { S(",\"UpdateConfig\":{\"Order\":\"bogus\"}"), FAULT_PLAIN, "unrecognized update order bogus" },
        { S(",\"UpdateConfig\":{\"Monitor\":-1}"), FAULT_INVALID, "TaskSpec: update-monitor cannot be negative" },
        { T(",\"Placement\":{\"Constraints\":[\"bogus\"]}"), FAULT_UNKNOWN,
          "constraint expected one operator from ==, !=" },
        { T(",\"Placement\":{\"Constraints\":[\"node.role=worker\"]}"), FAULT_UNKNOWN,
          "constraint expected one operator from ==, !=" },
        { T(",\"Placement\":{\"Constraints\":[\"node.role==\"]}"), FAULT_UNKNOWN, "value '' is invalid" },
        { S(",\"EndpointSpec\":{\"Mode\":\"bogus\"}"), FAULT_PLAIN, "invalid resolution mode: \"bogus\"" },
        { S(",\"EndpointSpec\":{\"Ports\":[{\"TargetPort\":80,\"PublishedPort\":7001},{\"TargetPort\":81,"
            "\"PublishedPort\":7001}]}"),
          FAULT_INVALID, "EndpointSpec: duplicate published ports provided" },
        { S(",\"EndpointSpec\":{\"Mode\":\"dnsrr\",\"Ports\":[{\"TargetPort\":80,\"PublishedPort\":7001}]}"),
          FAULT_INVALID, "EndpointSpec: port published with ingress mode can't be used with dnsrr mode" },
        { C(",\"Mounts\":[{\"Type\":\"volume\",\"Target\":\"/a\"},{\"Type\":\"volume\",\"Target\":\"/a\"}]"),
          FAULT_INVALID, "ContainerSpec: duplicate mount point: /a" },
        { C(",\"Mounts\":[{\"Type\":\"bogus\",\"Target\":\"/a\"}]"), FAULT_PLAIN, "invalid MountType: \"bogus\"" },
        { C(",\"Healthcheck\":{\"Interval\":1}"), FAULT_INVALID,
          "ContainerSpec: Interval in HealthConfig cannot be less than 1ms" },
        { C(",\"Healthcheck\":{\"Retries\":-1}"), FAULT_INVALID,
          "ContainerSpec: Retries in HealthConfig cannot be negative" },
        { C(",\"Secrets\":[{\"SecretID\":\"a\",\"SecretName\":\"b\"}]"), FAULT_INVALID,
          "malformed secret reference, no target provided" },
        { C(",\"Configs\":[{\"ConfigID\":\"a\",\"ConfigName\":\"b\"}]"), FAULT_PLAIN,
          "invalid Config: either File or Runtime should be set" },
        { C(",\"Secrets\":[{\"SecretName\":\"a\",\"File\":{\"Name\":\"t\"}},{\"SecretName\":\"b\",\"File\":{\"Name\":"
            "\"t\"}}]"),
          FAULT_INVALID, "secret references 'a' and 'b' have a conflicting target: 't'" },
        { S(",\"Mode\":{\"ReplicatedJob\":{}},\"UpdateConfig\":{\"Parallelism\":1}"), FAULT_INVALID,
          "Jobs may not have an update config" },
        { C(",\"Hostname\":\"{{.Bogus}}\""), FAULT_INVALID,
          "expanding hostname failed: template: expansion:1:2: executing \"expansion\" at <.Bogus>: can't evaluate "
          "field "
          "Bogus in type *template.Context" },
        { C(",\"Privileges\":{\"CredentialSpec\":{}}"), FAULT_PLAIN,
          "invalid CredentialSpec: must either provide \"file\", \"registry\", or \"config\" for credential spec" },
        { "{\"Name\":\"a.b\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"b\"}}}", FAULT_INVALID,
          "name must be valid as a DNS name component" },
        { "{\"Name\":\"-a\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"b\"}}}", FAULT_INVALID,
          "name must be valid as a DNS name component" },
        { "{\"Name\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"TaskTemplate\":"
          "{\"ContainerSpec\":{\"Image\":\"b\"}}}",
          FAULT_INVALID, "name must be 63 characters or fewer" },
        { T(",\"Resources\":{\"SwapBytes\":0}"), FAULT_INVALID, "memory swap provided, but no memory-limit was set" },
    };
    struct spec_fault f;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *o = load(cases[i].spec);
        if (spec_check(o, &f) == 0)
            fail_msg("accepted: %s", cases[i].spec);
        assert_string_equal(f.msg, cases[i].msg);
        assert_int_equal(f.class, cases[i].class);
        json_decref(o);
    }
}

static void test_accepted(void **state)
{
    static const char *const ok[] = { S(""),
                                      T(",\"Placement\":{\"Constraints\":[\"node.foo==1\",\"node.labels.a != b\"]}"),
                                      T(",\"Placement\":{\"MaxReplicas\":1}"),
                                      C(",\"Isolation\":\"bogus\""),
                                      C(",\"Hostname\":\"{{.Service.Name}}-{{.Task.Slot}}\""),
                                      C(",\"Env\":[\"A={{ .Node.Hostname }}\"]"),
                                      C(",\"Mounts\":[{\"Target\":\"/a\"},{\"Target\":\"/b\"}]"),
                                      S(",\"Mode\":{\"ReplicatedJob\":{}}"),
                                      S(",\"EndpointSpec\":{\"Ports\":[{\"TargetPort\":80,\"PublishedPort\":7001},{"
                                        "\"Protocol\":\"udp\",\"TargetPort\":"
                                        "80,\"PublishedPort\":7001},{\"TargetPort\":1},{\"TargetPort\":1}]}"),
                                      "{\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"busybox\"}}}",
                                      NULL };
    struct spec_fault f = { .msg = "" };

    (void)state;
    for (size_t i = 0; ok[i]; i++) {
        json_t *o = load(ok[i]);
        if (spec_check(o, &f) < 0)
            fail_msg("%s: %s", ok[i], f.msg);
        json_decref(o);
    }
}

/* Wrong types everywhere must be survived: the object model names them later. */
static void test_wrong_types(void **state)
{
    static const char *const odd[] = { C(",\"Mounts\":7,\"Env\":{},\"Secrets\":\"x\",\"Healthcheck\":[]"),
                                       T(",\"Placement\":[],\"Resources\":\"x\",\"Networks\":1"),
                                       S(",\"Mode\":[],\"EndpointSpec\":\"x\",\"UpdateConfig\":[1]"),
                                       S(",\"Mode\":7,\"Labels\":[]"), NULL };
    struct spec_fault f;

    (void)state;
    for (size_t i = 0; odd[i]; i++) {
        json_t *o = load(odd[i]);
        (void)spec_check(o, &f);
        spec_normalise(o, 150);
        json_decref(o);
    }
}

static void check_normalised(const char *in, unsigned version, const char *want)
{
    json_t *a = load(in), *b = load(want);

    spec_normalise(a, version);
    if (!json_equal(a, b))
        fail_msg("%s gives %s", in, json_dumps(a, 0));
    spec_normalise(a, version);
    assert_true(json_equal(a, b));
    json_decref(a);
    json_decref(b);
}

static void test_normalise(void **state)
{
    (void)state;
    check_normalised("{\"TaskTemplate\":{}}", 150,
                     "{\"TaskTemplate\":{},\"Labels\":{},\"Mode\":{\"Replicated\":{\"Replicas\":1}}}");
    check_normalised("{\"Mode\":{\"Replicated\":{\"Replicas\":0}},\"EndpointSpec\":{\"Ports\":[{\"TargetPort\":80}]}}",
                     150,
                     "{\"Mode\":{\"Replicated\":{\"Replicas\":0}},\"Labels\":{},\"EndpointSpec\":{\"Ports\":["
                     "{\"TargetPort\":80,\"Protocol\":\"tcp\",\"PublishMode\":\"ingress\"}]}}");
    check_normalised("{\"Mode\":{\"ReplicatedJob\":{\"MaxConcurrent\":3}},\"UpdateConfig\":{}}", 150,
                     "{\"Mode\":{\"ReplicatedJob\":{\"MaxConcurrent\":3,\"TotalCompletions\":3}},\"Labels\":{},"
                     "\"UpdateConfig\":{\"FailureAction\":\"pause\",\"Order\":\"stop-first\"}}");
    check_normalised(
        "{\"Networks\":[{\"Target\":\"host\"}],\"TaskTemplate\":{},\"Mode\":{\"Global\":{}}}", 143,
        "{\"TaskTemplate\":{\"Networks\":[{\"Target\":\"host\"}]},\"Labels\":{},\"Mode\":{\"Global\":{}}}");
    check_normalised("{\"Networks\":[{\"Target\":\"host\"}],\"TaskTemplate\":{},\"Mode\":{\"Global\":{}}}", 144,
                     "{\"TaskTemplate\":{},\"Labels\":{},\"Mode\":{\"Global\":{}}}");
}

static void test_ports(void **state)
{
    json_t *o = load(S(",\"EndpointSpec\":{\"Ports\":[{\"TargetPort\":80,\"PublishedPort\":80},{\"TargetPort\":1,"
                       "\"PublishedPort\":53,\"Protocol\":\"udp\",\"PublishMode\":\"host\"},{\"TargetPort\":9}]}"));
    struct spec_port ours[4];
    size_t n = spec_ports(o, ours, 4);

    (void)state;
    assert_int_equal(n, 2);
    assert_true(spec_port_clash(ours, n, &(struct spec_port){ STR("tcp"), 80, false }));
    assert_true(spec_port_clash(ours, n, &(struct spec_port){ STR("tcp"), 80, true }));
    assert_false(spec_port_clash(ours, n, &(struct spec_port){ STR("udp"), 80, false }));
    assert_true(spec_port_clash(ours, n, &(struct spec_port){ STR("udp"), 53, false }));
    assert_false(spec_port_clash(ours, n, &(struct spec_port){ STR("udp"), 53, true }));
    assert_false(spec_port_clash(ours, n, &(struct spec_port){ STR("tcp"), 0, false }));
    json_decref(o);
}

static void test_names(void **state)
{
    static const uint8_t zero[8], ones[8] = { 255, 255, 255, 255, 255, 255, 255, 255 };
    char name[40];

    (void)state;
    spec_name_random(zero, name);
    assert_string_equal(name, "agile_bartik0");
    spec_name_random(ones, name);
    assert_string_equal(name, "zesty_wozniak77215");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),   cmocka_unit_test(test_accepted), cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_normalise), cmocka_unit_test(test_ports),    cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
