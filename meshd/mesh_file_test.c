
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/util/cleanup.h"
#include "meshd/mesh_file.h"

static const struct mesh_subnet subnet = { 172u << 24 | 18u << 16, 16 };

static struct mesh_sandbox sample(struct mesh_publish ports[2])
{
    struct mesh_sandbox sb = {
        .task = "t1", .service = "svc", .state = MESH_READY, .addr = subnet.base + 7, .nports = 2, .ports = ports
    };
    ports[0] = (struct mesh_publish){ IPPROTO_TCP, false, 80, 8080 };
    ports[1] = (struct mesh_publish){ IPPROTO_UDP, true, 53, 40000 };
    return sb;
}

struct seen {
    unsigned good, bad;
    struct mesh_sandbox sb;
    char why[480];
};

static void see(void *arg, const char *name, struct mesh_sandbox *sb, struct mesh_subnet s, const struct err *e)
{
    struct seen *seen = arg;
    (void)name, (void)s;
    if (!sb) {
        seen->bad++;
        memcpy(seen->why, e->msg, sizeof seen->why);
        return;
    }
    seen->good++;
    free(seen->sb.ports);
    seen->sb = *sb;
}

static char dir[] = "/tmp/mesh-file-XXXXXX";

static struct seen look(void)
{
    struct seen s = { 0 };
    struct err e = ERR_INIT;
    assert_int_equal(mesh_file_each(dir, see, &s, &e), 0);
    return s;
}

static void test_round_trip(void **state)
{
    struct mesh_publish ports[2];
    struct mesh_sandbox sb = sample(ports);
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(mesh_file_save(dir, &sb, subnet, &e), 0);
    sb.state = MESH_DRAINING;
    assert_int_equal(mesh_file_save(dir, &sb, subnet, &e), 0);
    struct seen s = look();
    assert_int_equal(s.good, 1);
    assert_int_equal(s.bad, 0);
    assert_string_equal(s.sb.task, "t1");
    assert_string_equal(s.sb.service, "svc");
    assert_int_equal(s.sb.state, MESH_DRAINING);
    assert_int_equal(s.sb.addr, sb.addr);
    assert_int_equal(s.sb.nports, 2);
    assert_int_equal(s.sb.ports[1].published, 40000);
    assert_true(s.sb.ports[1].host_mode);
    free(s.sb.ports);
    assert_int_equal(mesh_file_remove(dir, "t1", &e), 0);
    assert_int_equal(mesh_file_remove(dir, "t1", &e), 0);
    assert_int_equal(look().good, 0);
}

/* Every byte cut off or altered: refused or read as something valid, never a crash. */
static void test_damage(void **state)
{
    struct mesh_publish ports[2];
    struct mesh_sandbox sb = sample(ports), got;
    struct mesh_subnet s;
    struct err e = ERR_INIT;
    struct buf b = BUF_INIT;
    struct arena a;
    (void)state;
    arena_init(&a, 1 << 20);
    mesh_record_encode(&sb, subnet, &a, &b);
    for (size_t i = 0; i < b.n; i++) {
        char keep = b.p[i];
        assert_int_not_equal(mesh_record_decode((struct str){ b.p, i }, &a, &got, &s, &e), 0);
        for (int bit = 0; bit < 8; bit++) {
            b.p[i] = (char)(keep ^ (1 << bit));
            if (mesh_record_decode(buf_str(&b), &a, &got, &s, &e) == 0)
                free(got.ports);
            arena_reset(&a);
        }
        b.p[i] = keep;
    }
    buf_done(&b);
    arena_done(&a);
}

static void test_wrong_files(void **state)
{
    struct mesh_publish ports[2];
    struct mesh_sandbox sb = sample(ports);
    struct err e = ERR_INIT;
    char path[100];
    (void)state;
    snprintf(path, sizeof path, "%s/half", dir);
    _cleanup_(closep) int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_int_equal(write(fd, "\x81\xa6Task", 6), 6);
    struct seen s = look();
    assert_int_equal(s.bad, 1);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mesh_file_save(dir, &sb, subnet, &e), 0);
    snprintf(path, sizeof path, "%s/t1", dir);
    char other[100];
    snprintf(other, sizeof other, "%s/t2", dir);
    assert_int_equal(rename(path, other), 0);
    s = look();
    assert_int_equal(s.bad, 1);
    assert_string_equal(s.why, "TaskID: is not the file's name");
    assert_int_equal(unlink(other), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_wrong_files),
    };
    if (!mkdtemp(dir))
        return 1;
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(dir);
    return r;
}
