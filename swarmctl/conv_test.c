#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "swarmctl/conv.h"
#include "swarmctl/jpath.h"

static const struct {
    const struct flag_type *type;
    const char *text, *want; /* JSON, or the error after "!" */
} cases[] = {
    { &T_BOOL, "true", "true" },
    { &T_BOOL, "0", "false" },
    { &T_BOOL, "yes", "!strconv.ParseBool: parsing \"yes\": invalid syntax" },
    { &T_UINT, "10", "10" },
    { &T_UINT, "0x10", "16" },
    { &T_UINT, "010", "8" },
    { &T_UINT, "", "!strconv.ParseUint: parsing \"\": invalid syntax" },
    { &T_UINT, "-1", "!strconv.ParseUint: parsing \"-1\": invalid syntax" },
    { &T_UINT, "18446744073709551616", "!strconv.ParseUint: parsing \"18446744073709551616\": value out of range" },
    { &T_UINT32, "4294967296", "!strconv.ParseUint: parsing \"4294967296\": value out of range" },
    { &T_INT, "-5", "-5" },
    { &T_INT, "-9223372036854775808", "-9223372036854775808" },
    { &T_INT, "9223372036854775808", "!strconv.ParseInt: parsing \"9223372036854775808\": value out of range" },
    { &T_FLOAT, "0.5", "0.5" },
    { &T_FLOAT, "1e999", "!strconv.ParseFloat: parsing \"1e999\": invalid syntax" },
    { &T_DURATION, "1h30m", "5400000000000" },
    { &T_DURATION, "-1.5s", "-1500000000" },
    { &T_DURATION, "1us1ns", "1001" },
    { &T_DURATION, "0", "0" },
    { &T_DURATION, "", "!time: invalid duration \"\"" },
    { &T_DURATION, "5", "!time: missing unit in duration \"5\"" },
    { &T_DURATION, "5y", "!time: unknown unit \"y\" in duration \"5y\"" },
    { &T_DURATION, "300000h0.s0h", "1080000000000000000" },
    { &T_DURATION, "3000000h", "!time: invalid duration \"3000000h\"" },
    { &T_POSITIVE_DURATION, "-1s", "!duration cannot be negative" },
    { &T_BYTES, "64m", "67108864" },
    { &T_BYTES, "1.5KiB", "1536" },
    { &T_BYTES, "2 gb", "2147483648" },
    { &T_BYTES, "7b", "7" },
    { &T_BYTES, "7bb", "!invalid suffix: 'bb'" },
    { &T_BYTES, "7x", "!invalid suffix: 'x'" },
    { &T_BYTES, "m", "!invalid size: 'm'" },
    { &T_BYTES, "-1m", "!invalid size: '-1m'" },
    { &T_BYTES, "99999999999p", "!invalid size: '99999999999p'" },
    { &T_CPUS, "0.5", "500000000" },
    { &T_CPUS, "1/4", "250000000" },
    { &T_CPUS, "2", "2000000000" },
    { &T_CPUS, "1/3", "!value is too precise" },
    { &T_CPUS, "1/0", "!failed to parse 1/0 as a rational number" },
    { &T_CPUS, "", "!failed to parse  as a rational number" },
    { &T_LABELS, "a=b=c", "\"a=b=c\"" },
    { &T_LABELS, "=x", "!invalid label '=x': empty name" },
    { &T_LABELS, "a b=c", "!label 'a b' contains whitespaces" },
    { &T_ENVS, "SWARMCTL_TEST", "\"SWARMCTL_TEST=here\"" },
    { &T_ENVS, "SWARMCTL_NOT", "\"SWARMCTL_NOT\"" },
    { &T_ENVS, "SWARMCTL_TEST=", "\"SWARMCTL_TEST=\"" },
    { &T_ENVS, "=", "!invalid environment variable: =" },
    { &T_IPS, " 10.0.0.1 ", "\"10.0.0.1\"" },
    { &T_IPS, "::0001", "\"::1\"" },
    { &T_IPS, "1.2.3", "!IP address is not correctly formatted: 1.2.3" },
    { &T_DOMAINS, "a-b.example.", "\"a-b.example\"" },
    { &T_DOMAINS, ".", "\".\"" },
    { &T_DOMAINS, "-a.b", "!-a.b is not a valid domain" },
    { &T_HOSTS, "h:1.2.3.4", "\"h:1.2.3.4\"" },
    { &T_HOSTS, "h=[::1]", "\"h:::1\"" },
    { &T_HOSTS, "h:host-gateway", "\"h:host-gateway\"" },
    { &T_HOSTS, "h", "!bad format for add-host: \"h\"" },
    { &T_GENERIC, "gpu=2", "{\"DiscreteResourceSpec\":{\"Kind\":\"gpu\",\"Value\":2}}" },
    { &T_FILTER, "Name= web ", "{\"key\":\"name\",\"value\":\"web\"}" },
    { &T_FILTER, "label=a=b", "{\"key\":\"label\",\"value\":\"a=b\"}" },
    { &T_FILTER, "x", "!bad format of filter (expected name=value)" },
    { &T_WORDS, "sh -c 'a  b' \"c\\\"d\" # no", "[\"sh\",\"-c\",\"a  b\",\"c\\\"d\"]" },
    { &T_WORDS, "", "[]" },
    { &T_WORDS, "'a", "!EOF found when expecting closing quote" },
    { &T_PORT, "80", "[{\"Protocol\":\"tcp\",\"TargetPort\":80,\"PublishMode\":\"ingress\"}]" },
    { &T_PORT, "8080:80/udp",
      "[{\"Protocol\":\"udp\",\"TargetPort\":80,\"PublishedPort\":8080,\"PublishMode\":\"ingress\"}]" },
    { &T_PORT, "81-82:91-92",
      "[{\"Protocol\":\"tcp\",\"TargetPort\":91,\"PublishedPort\":81,\"PublishMode\":\"ingress\"},"
      "{\"Protocol\":\"tcp\",\"TargetPort\":92,\"PublishedPort\":82,\"PublishMode\":\"ingress\"}]" },
    { &T_PORT, "81-82:90",
      "[{\"Protocol\":\"tcp\",\"TargetPort\":90,\"PublishedPort\":81,\"PublishMode\":\"ingress\"},"
      "{\"Protocol\":\"tcp\",\"TargetPort\":90,\"PublishedPort\":82,\"PublishMode\":\"ingress\"}]" },
    { &T_PORT, "target=80,published=8080,mode=host,protocol=sctp",
      "{\"Protocol\":\"sctp\",\"TargetPort\":80,\"PublishedPort\":8080,\"PublishMode\":\"host\"}" },
    { &T_PORT, "80/x", "!invalid proto: x" },
    { &T_PORT, "1.2.3.4:80:80", "!hostip is not supported" },
    { &T_PORT, "65536", "!invalid containerPort: 65536" },
    { &T_NETWORK, "net1", "{\"Target\":\"net1\"}" },
    { &T_NETWORK, "name=n,alias=a,alias=b,driver-opt=k=v,ip=1.2.3.4",
      "{\"Target\":\"n\",\"Aliases\":[\"a\",\"b\"],\"DriverOpts\":{\"k\":\"v\"}}" },
    { &T_NETWORK, "alias=a", "!network name/id is not specified" },
    { &T_MOUNT, "source=v,target=/d", "{\"Type\":\"volume\",\"Source\":\"v\",\"Target\":\"/d\"}" },
    { &T_MOUNT, "type=bind,src=/a,dst=/b,ro,bind-propagation=rslave,bind-recursive=disabled",
      "{\"Type\":\"bind\",\"Source\":\"/a\",\"Target\":\"/b\",\"ReadOnly\":true,"
      "\"BindOptions\":{\"Propagation\":\"rslave\",\"NonRecursive\":true}}" },
    { &T_MOUNT, "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777",
      "{\"Type\":\"tmpfs\",\"Target\":\"/t\",\"TmpfsOptions\":{\"SizeBytes\":1048576,\"Mode\":1023}}" },
    { &T_MOUNT, "\"target=/a,b\",volume-opt=o=x,volume-label=l",
      "{\"Type\":\"volume\",\"Target\":\"/"
      "a,b\",\"VolumeOptions\":{\"Labels\":{\"l\":\"\"},\"DriverConfig\":{\"Options\":{\"o\":\"x\"}}}}" },
    { &T_MOUNT, "type=bind,source=/a", "!target is required" },
    { &T_MOUNT, "target=/a,ro=maybe", "!invalid value for ro: maybe" },
    { &T_MOUNT, "target=/a,what=1", "!unexpected key 'what' in 'what=1'" },
    { &T_MOUNT, "type=bind,target=/a,volume-nocopy", "!cannot mix 'volume-*' options with mount type 'bind'" },
    { &T_MOUNT, "", "!EOF" },
    { &T_SECRET, "pw",
      "{\"File\":{\"Name\":\"pw\",\"UID\":\"0\",\"GID\":\"0\",\"Mode\":292},\"SecretID\":null,\"SecretName\":\"pw\"}" },
    { &T_CONFIG, "source=a,target=/b,uid=1,gid=2,mode=0400",
      "{\"File\":{\"Name\":\"/b\",\"UID\":\"1\",\"GID\":\"2\",\"Mode\":256},\"ConfigID\":null,\"ConfigName\":\"a\"}" },
    { &T_SECRET, "target=x", "!source is required" },
    { &T_SECRET, "source=a,mode=09", "!invalid mode specified: invalid syntax" },
    { &T_ULIMIT, "nofile=10:20", "{\"Name\":\"nofile\",\"Hard\":20,\"Soft\":10}" },
    { &T_ULIMIT, "core=-1", "{\"Name\":\"core\",\"Hard\":-1,\"Soft\":-1}" },
    { &T_ULIMIT, "what=1", "!invalid ulimit type: what" },
    { &T_PREF, "spread=node.labels.a", "{\"Spread\":{\"SpreadDescriptor\":\"node.labels.a\"}}" },
    { &T_CREDENTIAL, "config://c", "{\"Config\":\"c\"}" },
    { &T_CREDENTIAL, "", "{}" },
    { &T_NODE_ADDR, "10.0.0.1", "\"10.0.0.1:2377\"" },
    { &T_NODE_ADDR, "eth0:99", "\"eth0:99\"" },
    { &T_NODE_ADDR, "[::1]:5", "\"[::1]:5\"" },
    { &T_NODE_ADDR, "::1", "\"[::1]:2377\"" },
    { &T_NODE_ADDR, "a:b", "!invalid bind address format: a:b" },
    { &T_POOL, "10.30.1.2/16", "\"10.30.0.0/16\"" },
    { &T_POOL, "10.30.0.0", "!invalid string being converted to CIDR: 10.30.0.0" },
    { &T_EXTERNAL_CA, "protocol=cfssl,url=https://x,k=v",
      "{\"Protocol\":\"cfssl\",\"URL\":\"https://x\",\"Options\":{\"k\":\"v\"}}" },
    { &T_EXTERNAL_CA, "url=x", "!the external-ca option needs a protocol= parameter" },
    { &T_PEM, "/nonexistent/x", "!open /nonexistent/x: no such file or directory" },
};

static void test_values(void **state)
{
    (void)state;
    setenv("SWARMCTL_TEST", "here", 1);
    unsetenv("SWARMCTL_NOT");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err e = ERR_INIT;
        json_t *v = NULL;
        struct buf b = BUF_INIT;
        if (cases[i].type->parse(cases[i].text, &v, &e) < 0)
            buf_printf(&b, "!%s", e.msg);
        else
            jdump(&b, v);
        if (strcmp(buf_cstr(&b), cases[i].want) != 0)
            print_error("%s %s\n", cases[i].type->name, cases[i].text);
        assert_string_equal(buf_cstr(&b), cases[i].want);
        json_decref(v);
        buf_done(&b);
    }
}

static void test_env_file(void **state)
{
    char path[] = "/tmp/swarmctl-env.XXXXXX";
    int fd = mkstemp(path);
    static const char text[] = "\xef\xbb\xbf# comment\n\nA=1\n  B=two words \nSWARMCTL_TEST\nSWARMCTL_NOT\n";
    json_t *list = json_array();
    struct err e = ERR_INIT;
    struct buf b = BUF_INIT;

    (void)state;
    setenv("SWARMCTL_TEST", "here", 1);
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    assert_int_equal(env_file(path, list, &e), 0);
    jdump(&b, list);
    assert_string_equal(buf_cstr(&b), "[\"A=1\",\"B=two words \",\"SWARMCTL_TEST=here\"]");
    assert_int_equal(pwrite(fd, "a b=c\n#", 7, 0), 7);
    assert_true(env_file(path, list, &e) < 0);
    assert_non_null(strstr(e.msg, "contains whitespaces"));
    close(fd);
    unlink(path);
    json_decref(list);
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_env_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
