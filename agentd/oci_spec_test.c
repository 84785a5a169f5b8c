/*
 * oci_spec_test.c - testdata/spec/NAME.in.json (a TaskTemplate, an image configuration, what the host can do) against
 * testdata/spec/NAME.out.json, the OCI configuration. REWRITE=1 writes the latter. And the seccomp program, run.
 */
#include "agentd/oci_spec.h"

#include <errno.h>
#include <glob.h>
#include <linux/filter.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agentd/fsutil.h"
#include "agentd/oci_seccomp.h"
#include "agentd/test_json.h"
#include "common/util/base64.h"
#include "common/util/cleanup.h"

/* the mounts as agent_run.c makes them, without a host */
static void plain_mounts(struct oci_in *in, struct arena *a)
{
    const struct list *l = &in->spec->ContainerSpec->Mounts;
    struct oci_mount *m = arena_array(a, l->n + 1, sizeof *m);
    struct err e = ERR_INIT;
    for (size_t i = 0; i < l->n; i++) {
        const struct tspec_mount *s = &((const struct tspec_mount *)l->v)[i];
        m[i].type = str_is(s->Type, "tmpfs") ? STR("tmpfs") : STR("bind");
        m[i].source = s->Source;
        assert_int_equal(oci_path_clean(s->Target, a, &m[i].target, &e), 0);
        assert_int_equal(oci_mount_options(s, a, &m[i].options, &e), 0);
    }
    in->mounts = m;
    in->nmounts = l->n;
}

static json_t *build(json_t *in_json, struct arena *a)
{
    _cleanup_(buf_done) struct buf raw = BUF_INIT;
    struct tspec spec;
    struct image_conf ic;
    struct oci_user user;
    struct err e = ERR_INIT;
    json_t *out = NULL;
    test_json_pack(&raw, json_object_get(in_json, "Template"));
    struct str span = arena_str(a, buf_str(&raw));
    if (tspec_decode(span, &spec, a, &e) < 0 || image_conf_read(json_object_get(in_json, "Image"), &ic, a, &e) < 0)
        return json_pack("{s:s}", "error", e.msg);
    const struct tspec_container *c = spec.ContainerSpec;
    if (oci_user_resolve(c->User.n ? c->User : ic.User, &c->Groups, STR("root:x:0:0::/root:/bin/sh\n"),
                         STR("root:x:0:\n"), &user, &e) < 0)
        return json_pack("{s:s}", "error", e.msg);
    struct oci_in in = { .spec = &spec,
                         .image = &ic,
                         .user = &user,
                         .rootfs = "/run/rootfs",
                         .netns = "/run/netns/x",
                         .cgroup_path = "/microswarm/task1",
                         .hostname = c->Hostname.n ? c->Hostname : STR("0123456789ab"),
                         .env = c->Env,
                         .hosts_file = "/b/hosts",
                         .hostname_file = "/b/hostname",
                         .resolv_file = "/b/resolv.conf",
                         .seccomp_b64 = STR("PROGRAM"),
                         .cgroup2 = json_is_true(json_object_get(in_json, "cgroup2")),
                         .swap_limit = json_is_true(json_object_get(in_json, "swap")) };
    bool init = false;
    if (c->Init.n && mp_as_bool(c->Init, &init) && init)
        in.init_path = "/usr/bin/tini-static";
    plain_mounts(&in, a);
    if (oci_spec_build(&in, a, &out, &e) < 0)
        return json_pack("{s:s}", "error", e.msg);
    return out;
}

static void one_file(const char *path)
{
    _cleanup_(buf_done) struct buf text = BUF_INIT, want = BUF_INIT;
    struct arena a;
    struct err e = ERR_INIT;
    json_error_t je;
    char out_path[300];
    assert_int_equal(fs_read(path, 1u << 20, &text, &e), 0);
    json_t *in = json_loads(buf_cstr(&text), 0, &je);
    if (!in)
        fail_msg("%s:%d: %s", path, je.line, je.text);
    arena_init(&a, 1u << 20);
    json_t *out = build(in, &a);
    char *got = json_dumps(out, JSON_INDENT(1));
    snprintf(out_path, sizeof out_path, "%.*s.out.json", (int)(strlen(path) - strlen(".in.json")), path);
    if (getenv("REWRITE"))
        assert_int_equal(fs_write(out_path, str_from(got), 0644, &e), 0);
    assert_int_equal(fs_read(out_path, 1u << 20, &want, &e), 0);
    if (strcmp(got, buf_cstr(&want)) != 0)
        fail_msg("%s differs; got:\n%s", out_path, got);
    free(got);
    json_decref(out);
    json_decref(in);
    arena_done(&a);
}

static void test_golden(void **state)
{
    glob_t g;
    (void)state;
    assert_int_equal(glob("agentd/testdata/spec/*.in.json", 0, NULL, &g), 0);
    assert_true(g.gl_pathc >= 5);
    for (size_t i = 0; i < g.gl_pathc; i++)
        one_file(g.gl_pathv[i]);
    globfree(&g);
}

/* in a child: loads the program and says what some calls answer */
static int under_filter(struct str b64, int (*probe)(void))
{
    struct buf b = BUF_INIT;
    int status;
    assert_true(base64_take(b64, &b));
    assert_int_equal(b.n % sizeof(struct sock_filter), 0);
    struct sock_fprog prog = { .len = (unsigned short)(b.n / sizeof(struct sock_filter)), .filter = (void *)b.p };
    pid_t pid = fork();
    if (pid == 0) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, 2, &prog) < 0)
            _exit(99);
        _exit(probe());
    }
    waitpid(pid, &status, 0);
    buf_done(&b);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

static int probe_default(void)
{
    if (syscall(SYS_clone3, NULL, 0) != -1 || errno != ENOSYS)
        return 1;
    if (unshare(CLONE_NEWNS) != -1 || errno != EPERM)
        return 2;
    if (socket(AF_VSOCK, SOCK_STREAM, 0) != -1 || errno != EPERM)
        return 3;
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (s < 0 && errno != EAFNOSUPPORT)
        return 4;
    if (syscall(SYS_keyctl, 0, 0, 0, 0, 0) != -1 || errno != EPERM)
        return 5;
    if (syscall(SYS_getpid) <= 0 || syscall(SYS_personality, 0xffffffff) < 0)
        return 6;
    if (syscall(SYS_personality, 0x40000) != -1 || errno != EPERM)
        return 7;
    return 0;
}

static int probe_admin(void)
{
    return syscall(SYS_unshare, 0) == 0 && (syscall(SYS_clone3, NULL, 0) == -1 && errno != ENOSYS) ? 0 : 1;
}

static int probe_custom(void)
{
    return syscall(SYS_getcwd, NULL, 0) == -1 && errno == 77 && syscall(SYS_getpid) > 0 ? 0 : 1;
}

static void test_seccomp(void **state)
{
    struct str b64, again;
    struct err e = ERR_INIT;
    _cleanup_(buf_done) struct buf custom = BUF_INIT;
    (void)state;
    assert_int_equal(seccomp_default(0, &b64, &e), 0);
    assert_int_equal(under_filter(b64, probe_default), 0);
    assert_int_equal(seccomp_default(1, &again, &e), 0); /* CAP_CHOWN changes nothing: the same program */
    assert_ptr_equal(b64.p, again.p);
    assert_int_equal(seccomp_default(1ull << 21, &b64, &e), 0);
    assert_int_equal(under_filter(b64, probe_admin), 0);
    assert_int_equal(
        seccomp_custom(STR("{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"getcwd\",\"nosuch\"],"
                           "\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":77},{\"names\":[\"getpid\"],\"action\":"
                           "\"SCMP_ACT_KILL\",\"includes\":{\"caps\":[\"CAP_SYS_BOOT\"]}}]}"),
                       0, &custom, &e),
        0);
    assert_int_equal(under_filter(buf_str(&custom), probe_custom), 0);
    assert_int_equal(seccomp_custom(STR("{"), 0, &custom, &e), -ERR_INVALID);
    assert_int_equal(seccomp_custom(STR("{\"defaultAction\":\"X\"}"), 0, &custom, &e), -ERR_INVALID);
    seccomp_forget();
}

static void test_signals(void **state)
{
    (void)state;
    assert_int_equal(oci_signal(STR("SIGTERM")), SIGTERM);
    assert_int_equal(oci_signal(STR("quit")), SIGQUIT);
    assert_int_equal(oci_signal(STR("9")), 9);
    assert_int_equal(oci_signal(STR("SIGRTMIN+3")), SIGRTMIN + 3);
    assert_int_equal(oci_signal(STR("RTMAX-1")), SIGRTMAX - 1);
    assert_int_equal(oci_signal(STR("RTMIN+99")), 0);
    assert_int_equal(oci_signal(STR("SIGNOTHING")), 0);
    assert_int_equal(oci_signal(STR("0")), 0);
    assert_int_equal(oci_signal(STR("")), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_golden), cmocka_unit_test(test_seccomp),
                                        cmocka_unit_test(test_signals) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
