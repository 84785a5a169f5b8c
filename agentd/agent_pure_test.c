/* References, the index, templates, users and log records: all the small pure parts of agentd. */
#include "agentd/image_index.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "agentd/ctr_log.h"
#include "agentd/image_ref.h"
#include "agentd/oci_run.h"
#include "agentd/oci_user.h"
#include "agentd/volumes.h"

#define D64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_references(void **state)
{
    static const struct {
        const char *in, *domain, *path, *tag, *digest, *familiar;
    } good[] = {
        { "busybox", "docker.io", "library/busybox", "latest", "", "busybox" },
        { "user/app:v1", "docker.io", "user/app", "v1", "", "user/app" },
        { "127.0.0.1:5000/a/b__c:1.0", "127.0.0.1:5000", "a/b__c", "1.0", "", "127.0.0.1:5000/a/b__c" },
        { "localhost/x@sha256:" D64, "localhost", "x", "", "sha256:" D64, "localhost/x" },
        { "reg.example/x:t@sha256:" D64, "reg.example", "x", "t", "sha256:" D64, "reg.example/x" },
        { "index.docker.io/library/busybox", "docker.io", "library/busybox", "latest", "", "busybox" },
        { "docker.io/busybox:2", "docker.io", "library/busybox", "2", "", "busybox" },
    };
    static const char *const bad[] = {
        "",     "UPPER", "a//b",          "/a",     "a/",    "a:",          "a@sha256:12", "-a", "a b", "a:b:c/d$",
        "a_-b", D64,     ("sha256:" D64), "x:\x01", "a...b", "reg.example/"
    };
    struct image_ref r;
    struct err e = ERR_INIT;
    char f[IMAGE_REF_MAX];
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(image_ref_parse(str_from(good[i].in), &r, &e), 0);
        assert_string_equal(r.domain, good[i].domain);
        assert_string_equal(r.path, good[i].path);
        assert_string_equal(r.tag, good[i].tag);
        assert_string_equal(r.digest, good[i].digest);
        image_ref_familiar(&r, f);
        assert_string_equal(f, good[i].familiar);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (image_ref_parse(str_from(bad[i]), &r, &e) == 0)
            fail_msg("\"%s\" was taken", bad[i]);
        assert_string_equal(e.msg, "invalid reference format");
    }
}

static json_t *image(const char *id, const char *tag, const char *digest)
{
    char full[80];
    snprintf(full, sizeof full, "sha256:%.2s%.62s", id, D64);
    json_t *tags = json_array(), *digests = json_array();
    if (tag)
        json_array_append_new(tags, json_string(tag));
    if (digest)
        json_array_append_new(digests, json_string(digest));
    return json_pack("{s:s,s:o,s:o,s:i,s:i,s:[s]}", "ID", full, "RepoTags", tags, "RepoDigests", digests, "Created", 1,
                     "Size", 2, "Layers", D64);
}

static void add(json_t *index, json_t *img)
{
    image_index_add(index, img);
    json_decref(img);
}

static void test_index(void **state)
{
    json_t *index = json_array(), *img, *untagged = json_array(), *gone;
    struct err e = ERR_INIT;
    (void)state;
    add(index, image("aa", "busybox:latest", NULL));
    add(index, image("ab", "r.io/app:1", "r.io/app@sha256:" D64));
    assert_int_equal(image_index_find(index, STR("busybox"), &img, &e), 0);
    assert_false(image_from_registry(img));
    assert_int_equal(image_index_find(index, STR("docker.io/library/busybox:latest"), &img, &e), 0);
    assert_int_equal(image_index_find(index, STR("r.io/app@sha256:" D64), &img, &e), 0);
    assert_true(image_from_registry(img));
    assert_int_equal(image_index_find(index, STR("aa01"), &img, &e), 0);
    assert_int_equal(image_index_find(index, STR("nosuch"), &img, &e), -ERR_NOT_FOUND);
    assert_string_equal(e.msg, "No such image: nosuch:latest");
    assert_int_equal(image_index_find(index, STR("No Such"), &img, &e), -ERR_INVALID);
    /* the tag moves to a newer image; the old one stays without a name */
    add(index, image("ac", "busybox:latest", NULL));
    assert_int_equal(image_index_find(index, STR("busybox"), &img, &e), 0);
    assert_int_equal(strncmp(image_id(img), "sha256:ac", 9), 0);
    assert_int_equal(json_array_size(index), 3);
    assert_int_equal(image_index_tag(index, img, STR("other"), STR("x"), &e), 0);
    assert_int_equal(image_index_tag(index, img, STR("Bad Name"), STR("x"), &e), -ERR_INVALID);
    /* one of two names */
    assert_int_equal(image_index_remove(index, STR("busybox"), false, true, untagged, &gone, &e), 0);
    assert_null(gone);
    assert_string_equal(json_string_value(json_array_get(untagged, 0)), "busybox:latest");
    /* the last one, in use */
    assert_int_equal(image_index_remove(index, STR("other:x"), false, true, untagged, &gone, &e), -ERR_CONFLICT);
    assert_int_equal(image_index_remove(index, STR("other:x"), false, false, untagged, &gone, &e), 0);
    assert_non_null(gone);
    json_decref(gone);
    assert_true(image_index_uses_layer(index, D64));
    char *text = json_dumps(index, 0);
    json_t *again;
    assert_int_equal(image_index_parse(str_from(text), &again, &e), 0);
    assert_true(json_equal(index, again));
    free(text);
    json_decref(again);
    json_decref(untagged);
    json_decref(index);
    assert_int_equal(image_index_parse(STR("[{\"ID\":\"x\"}]"), &again, &e), -ERR_CORRUPT);
    assert_int_equal(image_index_parse(STR("{"), &again, &e), -ERR_CORRUPT);
}

static void test_users(void **state)
{
    struct str pw = STR("root:x:0:0:root:/root:/bin/sh\nbad line\napp:x:1000:1001::/home/app:/bin/sh\n7up:x:9:9::/:\n");
    struct str gr = STR("root:x:0:\nwheel:x:10:app,root\nadm:x:11:app\n");
    static struct str extra[] = { { "wheel", 5 }, { "123", 3 } };
    struct strs groups = { extra, 2 }, nobody = { extra, 0 };
    struct oci_user u;
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(oci_user_resolve(STR(""), &nobody, pw, gr, &u, &e), 0);
    assert_int_equal(u.uid, 0);
    assert_string_equal(u.home, "/root");
    assert_int_equal(oci_user_resolve(STR("app"), &nobody, pw, gr, &u, &e), 0);
    assert_int_equal(u.uid, 1000);
    assert_int_equal(u.gid, 1001);
    assert_int_equal(u.ngids, 3);
    assert_int_equal(u.gids[0], 1001); /* the primary group first: as Docker since CVE-2022-36109 */
    assert_int_equal(oci_user_resolve(STR("1000:adm"), &groups, pw, gr, &u, &e), 0);
    assert_int_equal(u.gid, 11);
    assert_int_equal(u.ngids, 3);
    assert_int_equal(u.gids[2], 123);
    assert_string_equal(u.home, "/home/app");
    assert_int_equal(oci_user_resolve(STR("4242"), &nobody, STR(""), STR(""), &u, &e), 0);
    assert_int_equal(u.uid, 4242);
    assert_string_equal(u.home, "/");
    assert_int_equal(oci_user_resolve(STR("ghost"), &nobody, pw, gr, &u, &e), -ERR_INVALID);
    assert_string_equal(e.msg, "unable to find user ghost: no matching entries in passwd file");
    assert_int_equal(oci_user_resolve(STR("app:ghosts"), &nobody, pw, gr, &u, &e), -ERR_INVALID);
    assert_string_equal(e.msg, "unable to find group ghosts: no matching entries in group file");
    assert_int_equal(oci_user_resolve(STR("4294967296"), &nobody, pw, gr, &u, &e), -ERR_INVALID);
    assert_string_equal(e.msg, "uids and gids must be in range 0-2147483647");
    assert_int_equal(oci_user_resolve(STR("-1"), &nobody, pw, gr, &u, &e), -ERR_INVALID);
    /* a broken entry does not make its user root */
    pw = STR("big:x:4294967295:5::/:\nnone:x:::/:\n");
    assert_int_equal(oci_user_resolve(STR("big"), &nobody, pw, gr, &u, &e), -ERR_INVALID);
    assert_int_equal(oci_user_resolve(STR("none"), &nobody, pw, gr, &u, &e), -ERR_INVALID);
}

#define T "2026-11-20T18:00:00.5+00:00 "
static void test_log_records(void **state)
{
    struct str s =
        STR(T "stdout F one\n" T "stderr P par\nrubbish\n" T "stderr F tial\n" T "stdout F \n" T "stdout F half");
    struct log_rec r;
    uint64_t n = 2;
    (void)state;
    assert_int_equal(log_tail(s, 3, false, &n), (size_t)(strstr(s.p, T "stderr P") - s.p));
    n = 1;
    assert_int_equal(log_tail(s, 2, false, &n), (size_t)(strstr(s.p, T "stderr P") - s.p));
    n = 9;
    assert_int_equal(log_tail(s, 3, false, &n), 0);
    assert_int_equal(n, 6);
    n = 0;
    assert_int_equal(log_tail(s, 3, false, &n), (size_t)(strstr(s.p, T "stdout F half") - s.p));
    assert_int_equal(log_next(&s, &r), 1);
    assert_true(str_is(r.text, "one") && r.stream == 1 && !r.partial);
    assert_int_equal(r.time.ns % 1000000000, 500000000);
    assert_int_equal(log_next(&s, &r), 1);
    assert_true(str_is(r.text, "par") && r.stream == 2 && r.partial);
    assert_int_equal(log_next(&s, &r), 1);
    assert_true(str_is(r.text, "tial") && !r.partial);
    assert_int_equal(log_next(&s, &r), 1);
    assert_int_equal(r.text.n, 0);
    assert_int_equal(log_next(&s, &r), 0);
    assert_true(str_starts(s, STR(T)));
    struct log_cursor c;
    assert_true(log_cursor_parse(STR("12:34:56"), &c));
    assert_int_equal(c.inode * 10000 + c.offset * 100 + (uint64_t)c.first_ns, 123456);
    assert_int_equal(c.done, 34);
    assert_true(log_cursor_parse(STR("12:34:56:78"), &c));
    assert_int_equal(c.done, 78);
    assert_false(log_cursor_parse(STR("12:34:56:x"), &c));
    assert_false(log_cursor_parse(STR("12:34"), &c));
    s = STR(T "stdout F one\n" T "stdout P two\n" T "stdout P three\n");
    n = 1; /* of a container that has ended, "twothree" is the last line */
    assert_int_equal(log_tail(s, 3, true, &n), (size_t)(strstr(s.p, T "stdout P two") - s.p));
    n = 1;
    assert_int_equal(log_tail(s, 3, false, &n), 0);
    assert_false(log_cursor_parse(STR("a:1:1"), &c));
    assert_false(log_cursor_parse(STR(""), &c));
}

static void test_small_texts(void **state)
{
    char out[300];
    int code;
    (void)state;
    assert_true(exit_file_parse(STR("137\n"), &code) && code == 137);
    assert_true(exit_file_parse(STR("0"), &code) && code == 0);
    assert_false(exit_file_parse(STR(""), &code));
    assert_false(exit_file_parse(STR("-1"), &code));
    assert_false(exit_file_parse(STR("256"), &code));
    oci_error_text(STR("executable file `foo` not found in $PATH: No such file or directory\n"), "foo", out,
                   sizeof out);
    assert_non_null(strstr(out, "exec: \"foo\": executable file not found in $PATH"));
    oci_error_text(STR("cannot find /x\n"), "", out, sizeof out);
    assert_non_null(strstr(out, "OCI runtime create failed: cannot find /x"));
    oci_error_text(STR("open executable: Permission denied"), "/bin/x", out, sizeof out);
    assert_non_null(strstr(out, "exec: \"/bin/x\": permission denied"));
    oci_error_text(STR("open executable: Permission denied"), "x", out, sizeof out);
    assert_non_null(strstr(out, "exec: \"x\": executable file not found in $PATH"));
    oci_error_text(STR("open executable: Operation not permitted"), "", out, sizeof out);
    assert_non_null(strstr(out, "exec: \"\": executable file not found in $PATH"));
    assert_true(volume_name_ok(STR("a_b.c-1")));
    assert_false(volume_name_ok(STR("../x")));
    assert_false(volume_name_ok(STR("a/b")));
    assert_false(volume_name_ok(STR("a")));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_references), cmocka_unit_test(test_index),
                                        cmocka_unit_test(test_users), cmocka_unit_test(test_log_records),
                                        cmocka_unit_test(test_small_texts) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
